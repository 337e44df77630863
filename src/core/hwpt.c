// SPDX-License-Identifier: MIT
/* HWPT objects and their life: see hwpt.h; spec devices.md 2.3, 2.7, 2.8. */
#include "core/hwpt.h"

#include <errno.h>

#include "core/ctx.h"
#include "core/dirty.h"
#include "core/fault.h"

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
	dirty_hwpt_remove(hwpt);
	if (hwpt->populated)
		ioas_remove_domain(ioas, hwpt, align_without(ioas, hwpt));
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

const struct obj_ops hwpt_ops = {
	.type = OBJ_HWPT_PAGING,
	.name = "HWPT",
	.size = sizeof(struct hwpt),
	.destroy = hwpt_destroy,
};

int hwpt_create_locked(struct ioas *ioas, const struct iommu_driver *driver, bool is_auto,
		       struct hwpt **out)
{
	struct hwpt *hwpt;
	struct obj *obj;
	int rc;

	rc = obj_alloc(ioas->obj.ctx, &hwpt_ops, &obj);
	if (rc)
		return rc;
	hwpt = hwpt_of(obj);
	hwpt->ioas = ioas;
	hwpt->driver = driver;
	hwpt->table = (struct iommu_table_format){driver->pgsize_bitmap, driver->aperture_first,
						  driver->aperture_last};
	hwpt->is_auto = is_auto;
	hwpt->paging.type = IOMMU_DOMAIN_PAGING;
	hwpt->paging.ops = driver->domain_ops;
	hwpt->domain = &hwpt->paging;
	hwpt->base = hwpt;
	obj_hold(&ioas->obj);
	list_add_tail(&ioas->hwpts, &hwpt->entry);
	*out = hwpt;
	return 0;
}

int hwpt_populate_locked(struct hwpt *hwpt, struct swi_reason *why)
{
	const struct iommu_table_format *table = &hwpt->table;
	struct ioas_domain dom = {
		.pgsize_min = table->pgsize_bitmap & -table->pgsize_bitmap,
		.aperture_first = table->aperture_first,
		.aperture_last = table->aperture_last,
	};
	int rc = ioas_add_domain(hwpt->ioas, &dom, hwpt, why);

	if (rc)
		return rc;
	hwpt->populated = true;
	return dirty_hwpt_add(hwpt);
}

void hwpt_abort_locked(struct hwpt *hwpt)
{
	struct ioas *ioas = hwpt->ioas;

	unlink_locked(hwpt);
	obj_abort(&hwpt->obj, false);
	obj_unhold(&ioas->obj);
}

void hwpt_put_attachment(struct hwpt *hwpt)
{
	if (hwpt->is_auto)
		obj_unhold_destroy(&hwpt->obj);
	else
		obj_unhold(&hwpt->obj);
}
