// SPDX-License-Identifier: MIT
/*
 * The IOMMU that built-in devices sit behind by default: an ordinary 48-bit one with the x86 MSI
 * window, which is what programs meet on most machines. It does what iommufd can ask of an IOMMU.
 *
 * Of a device the driver remembers how many of its attachments, with and without PASIDs, take page requests: the
 * engine lets them through as long as there is one. Attachments of a group are changed one at a time.
 */
#include <errno.h>
#include <linux/iommufd.h>

#include "driver/generic.h"

/* ---- page requests -------------------------------------------------------------------------------- */

static int iopf_enable(struct device *dev, const struct iommu_domain *domain)
{
	uintptr_t users = (uintptr_t)dev->iommu_priv;
	int rc = 0;

	if (!domain->takes_iopf)
		return 0;
	if (!dev->pri)
		return -ENODEV;
	if (!users)
		rc = iopf_queue_add_device(dev);
	if (!rc)
		dev->iommu_priv = (void *)(users + 1);
	return rc;
}

static void iopf_disable(struct device *dev, const struct iommu_domain *domain)
{
	uintptr_t users = (uintptr_t)dev->iommu_priv;

	if (!domain || !domain->takes_iopf)
		return;
	dev->iommu_priv = (void *)--users;
	if (!users)
		iopf_queue_remove_device(dev);
}

/* Devices make requests through the engine, which tells them the answers itself. */
static void generic_page_response(struct device *dev, const struct iopf_fault *evt,
				  const struct iommu_page_response *resp)
{
	(void)dev;
	(void)evt;
	(void)resp;
}

/* ---- attaching ------------------------------------------------------------------------------------ */

int generic_attach_dev(struct iommu_domain *domain, struct device *dev, struct iommu_domain *old)
{
	int rc;

	if (generic_paging_of(domain)->flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING &&
	    !dev->dirty_tracking)
		return -EINVAL;
	/* First the new one: were it the only user, requests would be dropped in between. */
	rc = iopf_enable(dev, domain);
	if (!rc)
		iopf_disable(dev, old);
	return rc;
}

int generic_set_dev_pasid(struct iommu_domain *domain, struct device *dev, uint32_t pasid,
			  struct iommu_domain *old)
{
	(void)pasid;
	return generic_attach_dev(domain, dev, old);
}

static const struct iommu_domain_ops generic_ops = {
	.attach_dev = generic_attach_dev,
	.set_dev_pasid = generic_set_dev_pasid,
};

static struct iommu_domain generic_blocked = {
	.type = IOMMU_DOMAIN_BLOCKED,
	.ops = &generic_ops,
};

/* ---- the driver ----------------------------------------------------------------------------------- */

static const struct iommu_resv_region msi_window[] = {
	{0xfee00000, 0xfeefffff, IOMMU_RESV_MSI},
};

const struct iommu_driver iommu_generic_driver = {
	.name = "generic",
	.pgsize_bitmap = 1ull << 12 | 1ull << 21 | 1ull << 30,
	.aperture_first = 0,
	.aperture_last = (1ull << 48) - 1,
	.hwpt_flags = IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_PASID,
	.pt_format = IOMMU_PT_VTDSS,
	.enforces_coherency = true,
	.resv = msi_window,
	.nr_resv = 1,
	.domain_ops = &generic_ops,
	.blocked_domain = &generic_blocked,
	.hw_info = generic_hw_info,
	.domain_alloc_nested = generic_alloc_nested,
	.page_response = generic_page_response,
};
