// SPDX-License-Identifier: MIT
/*
 * What attach and replace ask of a device and its driver: to be moved by the driver, regions that the device has
 * reserved in an IOAS, and whether a HWPT fits (spec devices.md 1.5, 1.7).
 */
#include "core/attach_internal.h"

#include <errno.h>

#include "base/alloc.h"
#include "core/dirty.h"

/* ---- the driver ---------------------------------------------------------------------------------- */

static int set_rid(struct iommufd_device *idev, struct iommu_domain *domain,
		   struct iommu_domain *old)
{
	if (domain && domain->ops && domain->ops->attach_dev)
		return domain->ops->attach_dev(domain, idev->dev, old);
	if (domain && domain->takes_iopf)
		return -ENODEV;
	return 0;
}

static int set_pasid(struct iommufd_device *idev, uint32_t pasid, struct iommu_domain *domain,
		     struct iommu_domain *old, struct swi_reason *why)
{
	const struct iommu_domain *blocked = idev->driver->blocked_domain;

	if (!blocked || !blocked->ops->set_dev_pasid || !domain->ops || !domain->ops->set_dev_pasid)
		return swi_fail(why, -EOPNOTSUPP, "the IOMMU of %s (%s) has no PASIDs",
				idev->dev->name, idev->driver->name);
	if (!idev->dev->max_pasids)
		return 0;
	if (pasid >= idev->dev->max_pasids)
		return swi_fail(why, -EINVAL, "PASID %u: those of %s are below %u", pasid,
				idev->dev->name, idev->dev->max_pasids);
	return domain->ops->set_dev_pasid(domain, idev->dev, pasid, old);
}

int attach_driver_set(struct iommufd_device *idev, uint32_t pasid, struct iommu_domain *domain,
		      struct iommu_domain *old, struct swi_reason *why)
{
	int rc;

	if (device_is_noiommu(idev))
		return 0;
	rc = pasid ? set_pasid(idev, pasid, domain, old, why) : set_rid(idev, domain, old);
	if (rc && !why->text[0])
		swi_fail(why, rc, "the IOMMU (%s) does not take device %s there",
			 idev->driver->name, idev->dev->name);
	return rc;
}

void attach_driver_clear(struct iommufd_device *idev, uint32_t pasid, struct iommu_domain *old)
{
	struct iommu_domain *blocked = idev->driver->blocked_domain;

	if (!blocked)
		return;
	if (!pasid)
		set_rid(idev, blocked, old);
	else if (idev->dev->max_pasids)
		blocked->ops->set_dev_pasid(blocked, idev->dev, pasid, old);
}

/* ---- reserved regions ----------------------------------------------------------------------------- */

static int reserve_one_locked(struct iommufd_device *idev, struct ioas *ioas,
			      const struct iommu_resv_region *resv, struct swi_reason *why)
{
	int rc;

	if (resv->type == IOMMU_RESV_DIRECT_RELAXABLE)
		return 0;
	rc = iova_map_reserve(ioas->map, resv->first, resv->last, idev);
	return rc == -EADDRINUSE
		       ? swi_fail(why, rc,
				  "a mapping or allowed range lies in [%#llx, %#llx], which device "
				  "%s has reserved",
				  (ull)resv->first, (ull)resv->last, idev->dev->name)
		       : rc;
}

int attach_reserve(struct iommufd_device *idev, struct ioas *ioas, struct swi_reason *why)
{
	struct iommu_resv_region regions[DEVICE_RESV_MAX];
	unsigned int nr;
	int rc;

	if (device_is_noiommu(idev))
		return 0;
	if (swi_fail_point())
		return swi_fail(why, -EINVAL, "injected failure to learn the reserved regions");
	rc = device_get_resv(idev->dev, idev->driver, regions, &nr, why);
	if (rc)
		return rc;
	iova_map_lock(ioas->map);
	for (unsigned int i = 0; !rc && i < nr; i++)
		rc = reserve_one_locked(idev, ioas, &regions[i], why);
	if (rc)
		iova_map_unreserve(ioas->map, idev);
	iova_map_unlock(ioas->map);
	for (unsigned int i = 0; !rc && i < nr; i++)
		if (regions[i].type == IOMMU_RESV_SW_MSI)
			idev->dgroup->sw_msi_start = regions[i].first;
	return rc;
}

void attach_unreserve(struct iommufd_device *idev, struct ioas *ioas)
{
	iova_map_lock(ioas->map);
	iova_map_unreserve(ioas->map, idev);
	iova_map_unlock(ioas->map);
}

/* ---- what fits ----------------------------------------------------------------------------------- */

int attach_check_pasid_locked(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt)
{
	struct attachment *rid = attachment_find(idev->dgroup, 0);
	struct rb_node *highest = rb_last(&idev->dgroup->attachments);

	if (pasid) {
		if (!hwpt->pasid_compat || (rid && !rid->hwpt->pasid_compat))
			return swi_fail(&idev->why, -EINVAL,
					"what a device with PASIDs is attached to must be made "
					"with ALLOC_PASID");
		return 0;
	}
	if (highest && attachment_of(highest)->pasid && !hwpt->pasid_compat)
		return swi_fail(&idev->why, -EINVAL,
				"PASIDs of %s are attached, and HWPT %u was not made with "
				"ALLOC_PASID",
				idev->dev->name, hwpt->obj.id);
	return 0;
}

int attach_check_requests(struct iommufd_device *idev, struct hwpt *hwpt)
{
	if (hwpt->fault && idev->dev->is_vf && idev->dev->pri)
		return swi_fail(&idev->why, -EINVAL,
				"HWPT %u takes page requests, and %s is a virtual function with "
				"PRI",
				hwpt->obj.id, idev->dev->name);
	return 0;
}

int attach_check_fit(struct iommufd_device *idev, struct hwpt *hwpt, struct swi_reason *why)
{
	if (hwpt->driver != idev->driver)
		return swi_fail(why, -EINVAL, "HWPT %u was made for another IOMMU (%s)",
				hwpt->obj.id, hwpt->driver->name);
	if (hwpt_paging(hwpt)->paging.enforced && !idev->enforces)
		return swi_fail(why, -EINVAL,
				"DMA through HWPT %u snoops caches, which that of %s cannot be "
				"made to do",
				hwpt->obj.id, idev->dev->name);
	return dirty_check_attach(idev->dev, hwpt, why);
}
