// SPDX-License-Identifier: MIT
/*
 * The IOMMU that built-in devices sit behind by default: an ordinary 48-bit one with the x86 MSI
 * window, which is what programs meet on most machines.
 */
#include <swiommu/driver.h>

static const struct iommu_resv_region msi_window[] = {
	{0xfee00000, 0xfeefffff},
};

const struct iommu_driver iommu_generic_driver = {
	.name = "generic",
	.pgsize_bitmap = 1ull << 12 | 1ull << 21 | 1ull << 30,
	.aperture_first = 0,
	.aperture_last = (1ull << 48) - 1,
	.enforces_coherency = true,
	.resv = msi_window,
	.nr_resv = 1,
};
