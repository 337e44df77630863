// SPDX-License-Identifier: MIT
/* HWPT objects and their life: see hwpt.h; spec devices.md 2.3, 2.7, 2.8. */
#include "core/hwpt.h"

#include <errno.h>
#include <linux/iommufd.h>

#include "core/ctx.h"
#include "core/device.h"
#include "core/fault.h"
#include "mem/phys.h"

/* The largest smallest page of the populated HWPTs of the IOAS but for one. ioas->mutex held. */
static uint64_t align_without(struct ioas *ioas, struct hwpt *but)
{
	uint64_t align = 1, pgsize;
	struct list *pos;

	list_for_each (pos, &ioas->hwpts) {
		struct hwpt *hwpt = list_entry(pos, struct hwpt, entry);

		pgsize = hwpt->table.pgsize_bitmap & -hwpt->table.pgsize_bitmap;
		if (hwpt != but && hwpt->populated)
			align = SWI_MAX(align, pgsize);
	}
	return align;
}

static void unlink_locked(struct hwpt *hwpt)
{
	struct ioas *ioas = hwpt->ioas;

	list_del(&hwpt->entry);
	if (hwpt->populated)
		ioas_remove_domain(ioas, &hwpt->tables, hwpt, align_without(ioas, hwpt));
	domain_fini(&hwpt->tables);
}

static void hwpt_destroy(struct obj *obj)
{
	struct hwpt *hwpt = hwpt_of(obj);
	struct ioas *ioas = hwpt->ioas;

	pthread_mutex_lock(&ioas->mutex);
	unlink_locked(hwpt);
	pthread_mutex_unlock(&ioas->mutex);
	if (hwpt->fault)
		obj_unhold(fault_obj(hwpt->fault));
	obj_unhold(&ioas->obj);
}

static const struct obj_ops hwpt_ops = {
	.type = OBJ_HWPT_PAGING,
	.name = "HWPT",
	.size = sizeof(struct hwpt),
	.destroy = hwpt_destroy,
};

struct iommu_table_format hwpt_default_format(const struct iommu_driver *driver)
{
	return (struct iommu_table_format){
		.pgsize_bitmap = driver->pgsize_bitmap,
		.aperture_first = driver->aperture_first,
		.aperture_last = driver->aperture_last,
		.format = driver->pt_format,
		.coherent = driver->enforces_coherency,
	};
}

/* A table for a device whose DMA can be made to snoop caches has that done, before it holds anything. */
static int enforce_coherency(struct hwpt *hwpt, struct iommufd_device *idev, struct swi_reason *why)
{
	const struct iommu_domain_ops *ops = hwpt->paging.ops;

	if (!idev->enforces)
		return 0;
	if (ops && ops->enforce_cache_coherency && !ops->enforce_cache_coherency(&hwpt->paging))
		return swi_fail(
			why, -EINVAL,
			"the driver (%s) says that it can enforce cache coherency, and does "
			"not",
			idev->driver->name);
	hwpt->paging.enforced = true;
	return 0;
}

int hwpt_create_locked(struct ioas *ioas, struct iommufd_device *idev, bool is_auto,
		       const struct iommu_table_format *format, uint32_t flags,
		       struct swi_reason *why, struct hwpt **out)
{
	const struct iommu_driver *driver = idev->driver;
	struct hwpt *hwpt;
	struct obj *obj;
	int rc;

	rc = obj_alloc(ioas->obj.ctx, &hwpt_ops, &obj);
	if (rc)
		return rc;
	hwpt = hwpt_of(obj);
	hwpt->table = format ? *format : hwpt_default_format(driver);
	hwpt->table.coherent = idev->enforces;
	hwpt->paging.ops = driver->domain_ops;
	hwpt->paging.type = IOMMU_DOMAIN_PAGING;
	hwpt->paging.flags = flags & ~IOMMU_HWPT_FAULT_ID_VALID;
	hwpt->tracks_dirty = flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
	rc = domain_init(&hwpt->tables, &hwpt->table, hwpt->tracks_dirty, why);
	if (!rc)
		rc = enforce_coherency(hwpt, idev, why);
	if (rc) {
		domain_fini(&hwpt->tables);
		obj_abort(obj, false);
		return rc;
	}
	hwpt->ioas = ioas;
	hwpt->driver = driver;
	hwpt->serial = ++ioas->obj.ctx->page_tables;
	hwpt->is_auto = is_auto;
	hwpt->nest_parent = flags & IOMMU_HWPT_ALLOC_NEST_PARENT;
	hwpt->pasid_compat = flags & IOMMU_HWPT_ALLOC_PASID;
	hwpt->domain = &hwpt->paging;
	hwpt->base = hwpt;
	obj_hold(&ioas->obj);
	list_add_tail(&ioas->hwpts, &hwpt->entry);
	*out = hwpt;
	return 0;
}

int hwpt_populate_locked(struct hwpt *hwpt, struct swi_reason *why)
{
	int rc = ioas_add_domain(hwpt->ioas, &hwpt->tables, hwpt, why);

	hwpt->populated = !rc;
	return rc;
}

void hwpt_abort_locked(struct hwpt *hwpt)
{
	struct ioas *ioas = hwpt->ioas;

	unlink_locked(hwpt);
	obj_abort(&hwpt->obj, false);
	obj_unhold(&ioas->obj);
}

phys_t hwpt_iova_to_phys(struct hwpt *hwpt, iova_t iova)
{
	phys_t pa;

	/* What is in the table leaves it under this lock. */
	iova_map_lock(hwpt->ioas->map);
	pa = pgtable_iova_to_phys(hwpt->tables.table, iova);
	iova_map_unlock(hwpt->ioas->map);
	return pa;
}

uint64_t iommu_iova_to_phys(struct iommu_domain *domain, uint64_t iova)
{
	if (domain->type != IOMMU_DOMAIN_PAGING)
		return 0;
	return hwpt_iova_to_phys(container_of(domain, struct hwpt, paging), iova);
}

int hwpt_find_backing(struct hwpt *hwpt, iova_t iova, struct backing **out, uint64_t *offset)
{
	struct backing *b = NULL;
	phys_t pa;

	/* What is in the table leaves it under this lock, and its memory goes later. */
	iova_map_lock(hwpt->ioas->map);
	pa = pgtable_iova_to_phys(hwpt->tables.table, iova);
	if (pa)
		b = phys_find(hwpt->obj.ctx->phys, pa);
	if (b) {
		*out = backing_get(b);
		*offset = backing_offset_of(b, pa);
	}
	iova_map_unlock(hwpt->ioas->map);
	return b ? 0 : -ENOENT;
}

void hwpt_put_attachment(struct hwpt *hwpt)
{
	if (hwpt->is_auto)
		obj_unhold_destroy(&hwpt->obj);
	else
		obj_unhold(&hwpt->obj);
}
