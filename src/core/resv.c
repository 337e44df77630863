// SPDX-License-Identifier: MIT
/* What a device has reserved of its IOVAs: the driver's regions for all its devices, and those of the device alone. */
#include <errno.h>
#include <string.h>

#include "core/device.h"

static unsigned int count_type(const struct iommu_resv_region *regions, unsigned int nr,
			       enum iommu_resv_type type)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < nr; i++)
		n += regions[i].type == type;
	return n;
}

int device_get_resv(struct device *dev, const struct iommu_driver *driver,
		    struct iommu_resv_region *regions, unsigned int *nr, struct swi_reason *why)
{
	unsigned int windows;
	int more;

	*nr = SWI_MIN(driver->nr_resv, (unsigned int)IOMMU_RESV_MAX);
	if (*nr)
		memcpy(regions, driver->resv, *nr * sizeof(*regions));
	if (driver->get_resv_regions) {
		more = driver->get_resv_regions(dev, regions + *nr);
		if (more < 0 || more > IOMMU_RESV_MAX)
			return swi_fail(why, more < 0 ? more : -EINVAL,
					"the driver (%s) cannot tell what %s has reserved",
					driver->name, dev->name);
		*nr += more;
	}
	windows = count_type(regions, *nr, IOMMU_RESV_SW_MSI);
	if (windows > 1 || (windows && count_type(regions, *nr, IOMMU_RESV_MSI)))
		return swi_fail(why, -EINVAL,
				"%s has several windows for its interrupts, which cannot be",
				dev->name);
	return 0;
}
