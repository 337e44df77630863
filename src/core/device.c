// SPDX-License-Identifier: MIT
/*
 * The physical-device kAPI: bind, attach, replace, detach, unbind (spec devices.md 1).
 *
 * Attaching to an IOAS tries its automatic HWPTs in order and makes one when none fits. Everything
 * that can fail comes before the device's DMA is let in, which is the last step (device_dma_switch);
 * detaching begins with the same step the other way round. So DMA only ever meets an IOAS whose
 * areas are pinned.
 */
#include "core/device.h"

#include <errno.h>

#include "base/alloc.h"
#include "core/ctx.h"

typedef unsigned long long ull;

/* ---- groups -------------------------------------------------------------------------------------- */

int iommu_group_init(struct iommu_group *group, unsigned int id)
{
	group->id = id;
	group->owner = NULL;
	group->owner_count = 0;
	return -pthread_mutex_init(&group->lock, NULL);
}

void iommu_group_fini(struct iommu_group *group)
{
	pthread_mutex_destroy(&group->lock);
}

struct find_group {
	struct iommu_group *group;
	struct device_group *found; /* with a reference */
};

static bool match_group(struct obj *obj, void *data)
{
	struct iommufd_device *idev = device_of(obj);
	struct find_group *find = data;

	if (idev->dev->group != find->group)
		return false;
	find->found = idev->dgroup;
	return true;
}

/*
 * The context's record of a group, shared by its bound members. Called with group->lock held, which serialises
 * binding and unbinding within the group.
 */
static int dgroup_get_locked(struct iommufd_ctx *ctx, struct iommu_group *group, struct device_group **out)
{
	struct find_group find = {.group = group};
	struct device_group *dg;

	if (obj_for_each(ctx, OBJ_DEVICE, match_group, &find)) {
		find.found->refs++;
		*out = find.found;
		return 0;
	}
	dg = swi_new(struct device_group);
	if (!dg)
		return -ENOMEM;
	dg->ctx = ctx;
	dg->group = group;
	dg->refs = 1;
	pthread_mutex_init(&dg->lock, NULL);
	list_init(&dg->attached);
	*out = dg;
	return 0;
}

static void dgroup_put_locked(struct device_group *dg)
{
	if (--dg->refs)
		return;
	pthread_mutex_destroy(&dg->lock);
	swi_free(dg);
}

/* ---- bind and unbind ----------------------------------------------------------------------------- */

static void device_destroy(struct obj *obj)
{
	struct iommufd_device *idev = device_of(obj);
	struct iommu_group *group = idev->dev->group;

	pthread_mutex_lock(&group->lock);
	dgroup_put_locked(idev->dgroup);
	if (!--group->owner_count)
		group->owner = NULL;
	pthread_mutex_unlock(&group->lock);
	pthread_mutex_destroy(&idev->dma_lock);
}

static const struct obj_ops device_ops = {
	.type = OBJ_DEVICE,
	.name = "device",
	.size = sizeof(struct iommufd_device),
	.destroy = device_destroy,
};

struct iommufd_device *device_bind(struct iommufd_ctx *ictx, struct device *dev, bool hold_ctx, uint32_t *id)
{
	struct iommu_group *group = dev->group;
	struct iommufd_device *idev;
	struct obj *obj;
	int rc;

	rc = obj_alloc(ictx, &device_ops, &obj);
	if (rc)
		return ERR_PTR(rc);
	rc = !dev->iommu ? -EINVAL : !group ? -ENODEV : 0;
	if (rc)
		goto abort;
	idev = device_of(obj);
	idev->ctx = ictx;
	idev->dev = dev;
	list_init(&idev->attached);
	list_init(&idev->dmas);

	pthread_mutex_lock(&group->lock);
	if (group->owner && group->owner != ictx) {
		rc = -EPERM;
		goto unlock;
	}
	rc = dgroup_get_locked(ictx, group, &idev->dgroup);
	if (rc)
		goto unlock;
	group->owner = ictx;
	group->owner_count++;
	idev->holds_ctx = hold_ctx;
	if (hold_ctx)
		iommufd_ctx_get(ictx);
	pthread_mutex_init(&idev->dma_lock, NULL);
	obj_hold(obj); /* the binder's */
	*id = obj->id;
	/* Published under the group's lock: the next member to bind finds the record through it. */
	obj_publish(obj);
	pthread_mutex_unlock(&group->lock);
	return idev;

unlock:
	pthread_mutex_unlock(&group->lock);
abort:
	obj_abort(obj, false);
	return ERR_PTR(rc);
}

struct iommufd_device *iommufd_device_bind(struct iommufd_ctx *ictx, struct device *dev, uint32_t *id)
{
	return device_bind(ictx, dev, true, id);
}

void iommufd_device_unbind(struct iommufd_device *idev)
{
	struct iommufd_ctx *ctx = idev->holds_ctx ? idev->ctx : NULL;

	/* A device that is still attached stays, claimed, until the context ends. */
	obj_destroy_held(&idev->obj);
	iommufd_ctx_put(ctx);
}

struct iommufd_ctx *iommufd_device_to_ictx(struct iommufd_device *idev)
{
	return idev->ctx;
}

uint32_t iommufd_device_to_id(struct iommufd_device *idev)
{
	return idev->obj.id;
}

bool iommufd_ctx_has_group(struct iommufd_ctx *ictx, struct iommu_group *group)
{
	struct find_group find = {.group = group};

	return ictx && group && obj_for_each(ictx, OBJ_DEVICE, match_group, &find);
}

/* ---- attach -------------------------------------------------------------------------------------- */

static int reserve_regions(struct iommufd_device *idev, struct ioas *ioas)
{
	const struct iommu_driver *drv = idev->dev->iommu;
	const struct iommu_resv_region *resv = drv->resv;
	int rc = 0;

	if (swi_fail_point())
		return swi_fail(&idev->why, -EINVAL, "injected failure to learn the reserved regions");
	iova_map_lock(ioas->map);
	for (unsigned int i = 0; !rc && i < drv->nr_resv; i++, resv++) {
		rc = iova_map_reserve(ioas->map, resv->first, resv->last, idev);
		if (rc == -EADDRINUSE)
			swi_fail(&idev->why, rc,
				 "a mapping or allowed range lies in [%#llx, %#llx], which device %s has reserved",
				 (ull)resv->first, (ull)resv->last, idev->dev->name);
	}
	if (rc)
		iova_map_unreserve(ioas->map, idev);
	iova_map_unlock(ioas->map);
	return rc;
}

static void unreserve_regions(struct iommufd_device *idev, struct ioas *ioas)
{
	iova_map_lock(ioas->map);
	iova_map_unreserve(ioas->map, idev);
	iova_map_unlock(ioas->map);
}

/* Steps 1 to 6 of devices.md 1.5 but for letting DMA in. The attachment takes its references. */
static int attach_begin_locked(struct iommufd_device *idev, struct hwpt *hwpt)
{
	struct device_group *dg = idev->dgroup;
	int rc;

	if (!list_empty(&idev->attached))
		return swi_fail(&idev->why, -EBUSY, "device %s is attached already", idev->dev->name);
	if (dg->hwpt && dg->hwpt != hwpt)
		return swi_fail(&idev->why, -EINVAL, "the IOMMU group %u of device %s is attached to HWPT %u already",
				dg->group->id, idev->dev->name, dg->hwpt->obj.id);
	if (hwpt->driver != idev->dev->iommu)
		return swi_fail(&idev->why, -EINVAL, "HWPT %u was made for another IOMMU (%s)", hwpt->obj.id,
				hwpt->driver->name);
	rc = reserve_regions(idev, hwpt->ioas);
	if (rc)
		return rc;
	dg->hwpt = hwpt;
	list_add_tail(&dg->attached, &idev->attached);
	obj_hold(&hwpt->obj);
	obj_hold(&idev->obj);
	return 0;
}

/* Undoes attach_begin_locked() but for the HWPT's reference, which the caller drops without locks. */
static void attach_end_locked(struct iommufd_device *idev, struct hwpt *hwpt)
{
	struct device_group *dg = idev->dgroup;

	list_del(&idev->attached);
	if (list_empty(&dg->attached))
		dg->hwpt = NULL;
	unreserve_regions(idev, hwpt->ioas);
	obj_unhold(&idev->obj);
}

static int attach_hwpt(struct iommufd_device *idev, struct hwpt *hwpt)
{
	int rc;

	pthread_mutex_lock(&idev->dgroup->lock);
	rc = attach_begin_locked(idev, hwpt);
	if (rc)
		goto out;
	rc = device_dma_switch(idev, hwpt->ioas);
	if (rc) {
		attach_end_locked(idev, hwpt);
		obj_unhold(&hwpt->obj);
	}
out:
	pthread_mutex_unlock(&idev->dgroup->lock);
	return rc;
}

/* A new automatic HWPT for the device; devices.md 1.6 step 2. ioas->mutex held. */
static int attach_new_auto_locked(struct iommufd_device *idev, struct ioas *ioas, struct hwpt **out)
{
	struct hwpt *hwpt;
	int rc;

	rc = hwpt_create_locked(ioas, idev->dev->iommu, true, &hwpt);
	if (rc)
		return rc;
	pthread_mutex_lock(&idev->dgroup->lock);
	rc = attach_begin_locked(idev, hwpt);
	if (rc)
		goto unlock;
	rc = hwpt_populate_locked(hwpt, &idev->why);
	if (!rc)
		rc = device_dma_switch(idev, ioas);
	if (rc) {
		attach_end_locked(idev, hwpt);
		obj_unhold(&hwpt->obj);
	} else {
		/* Before another member of the group can detach, and so destroy it. */
		obj_publish(&hwpt->obj);
	}
unlock:
	pthread_mutex_unlock(&idev->dgroup->lock);
	if (rc) {
		hwpt_abort_locked(hwpt);
		return rc;
	}
	*out = hwpt;
	return 0;
}

typedef int (*attach_fn)(struct iommufd_device *idev, struct hwpt *hwpt);

/* Tries the IOAS's automatic HWPTs in order; -EINVAL means "not this one". -ENOENT: none took it. */
static int pick_auto_locked(struct iommufd_device *idev, struct ioas *ioas, attach_fn attach,
			    struct hwpt **out)
{
	struct list *pos;
	int rc;

	list_for_each(pos, &ioas->hwpts) {
		struct hwpt *hwpt = list_entry(pos, struct hwpt, entry);

		if (!hwpt->is_auto || !obj_try_get(&hwpt->obj))
			continue;
		rc = attach(idev, hwpt);
		obj_put(&hwpt->obj);
		if (rc == -EINVAL)
			continue;
		*out = hwpt;
		return rc;
	}
	return -ENOENT;
}

/* On success the HWPT may be gone as soon as this returns; hence only its ID. */
static int attach_ioas(struct iommufd_device *idev, struct ioas *ioas, uint32_t *out_id)
{
	struct hwpt *hwpt = NULL;
	int rc;

	pthread_mutex_lock(&ioas->mutex);
	rc = pick_auto_locked(idev, ioas, attach_hwpt, &hwpt);
	if (rc == -ENOENT)
		rc = attach_new_auto_locked(idev, ioas, &hwpt);
	if (!rc)
		*out_id = hwpt->obj.id; /* destroying it takes the mutex */
	pthread_mutex_unlock(&ioas->mutex);
	return rc;
}

/* ---- replace and detach -------------------------------------------------------------------------- */

/* Moves the DMA of every attached member; on failure all are where they were. */
static int switch_members_locked(struct device_group *dg, struct ioas *from, struct ioas *to)
{
	struct list *pos;
	int rc;

	list_for_each(pos, &dg->attached) {
		rc = device_dma_switch(list_entry(pos, struct iommufd_device, attached), to);
		if (rc)
			goto undo;
	}
	return 0;
undo:
	while ((pos = pos->prev) != &dg->attached)
		device_dma_switch_back(list_entry(pos, struct iommufd_device, attached), from);
	return rc;
}

static void unreserve_members_locked(struct device_group *dg, struct ioas *ioas)
{
	struct list *pos;

	list_for_each(pos, &dg->attached)
		unreserve_regions(list_entry(pos, struct iommufd_device, attached), ioas);
}

static int reserve_members_locked(struct iommufd_device *idev, struct ioas *ioas)
{
	struct device_group *dg = idev->dgroup;
	struct list *pos;
	int rc;

	list_for_each(pos, &dg->attached) {
		struct iommufd_device *member = list_entry(pos, struct iommufd_device, attached);

		rc = reserve_regions(member, ioas);
		if (rc) {
			idev->why = member->why;
			while ((pos = pos->prev) != &dg->attached)
				unreserve_regions(list_entry(pos, struct iommufd_device, attached), ioas);
			return rc;
		}
	}
	return 0;
}

/* Moves the whole group (devices.md 1.12). *out_old: the HWPT to drop, `moved` times. */
static int replace_group_locked(struct iommufd_device *idev, struct hwpt *hwpt, struct hwpt **out_old,
				unsigned int *moved)
{
	struct device_group *dg = idev->dgroup;
	struct hwpt *old = dg->hwpt;
	struct list *pos;
	bool same_ioas;
	int rc;

	if (list_empty(&idev->attached))
		return swi_fail(&idev->why, -EINVAL, "device %s is not attached", idev->dev->name);
	if (old == hwpt)
		return 0;
	if (hwpt->driver != idev->dev->iommu)
		return swi_fail(&idev->why, -EINVAL, "HWPT %u was made for another IOMMU (%s)", hwpt->obj.id,
				hwpt->driver->name);
	same_ioas = old->ioas == hwpt->ioas;
	rc = same_ioas ? 0 : reserve_members_locked(idev, hwpt->ioas);
	if (rc)
		return rc;
	rc = switch_members_locked(dg, old->ioas, hwpt->ioas);
	if (rc) {
		if (!same_ioas)
			unreserve_members_locked(dg, hwpt->ioas);
		return rc;
	}
	if (!same_ioas)
		unreserve_members_locked(dg, old->ioas);
	list_for_each(pos, &dg->attached) {
		obj_hold(&hwpt->obj);
		++*moved;
	}
	dg->hwpt = hwpt;
	*out_old = old;
	return 0;
}

struct replace {
	struct hwpt *old; /* what to drop when all locks are gone */
	unsigned int moved;
};

static int replace_hwpt(struct iommufd_device *idev, struct hwpt *hwpt, bool fresh, struct replace *done)
{
	int rc;

	pthread_mutex_lock(&idev->dgroup->lock);
	rc = replace_group_locked(idev, hwpt, &done->old, &done->moved);
	/* A new one: before another member of the group can detach, and so destroy it. */
	if (!rc && fresh)
		obj_publish(&hwpt->obj);
	pthread_mutex_unlock(&idev->dgroup->lock);
	return rc;
}

/* ioas->mutex held. */
static int replace_new_auto_locked(struct iommufd_device *idev, struct ioas *ioas, struct hwpt **out,
				   struct replace *done)
{
	struct hwpt *hwpt;
	int rc;

	rc = hwpt_create_locked(ioas, idev->dev->iommu, true, &hwpt);
	if (rc)
		return rc;
	rc = hwpt_populate_locked(hwpt, &idev->why);
	if (!rc)
		rc = replace_hwpt(idev, hwpt, true, done);
	if (rc) {
		hwpt_abort_locked(hwpt);
		return rc;
	}
	*out = hwpt;
	return 0;
}

static int replace_ioas(struct iommufd_device *idev, struct ioas *ioas, uint32_t *out_id,
			struct replace *done)
{
	struct hwpt *hwpt = NULL;
	struct list *pos;
	int rc = -EINVAL;

	pthread_mutex_lock(&ioas->mutex);
	list_for_each(pos, &ioas->hwpts) {
		hwpt = list_entry(pos, struct hwpt, entry);
		if (!hwpt->is_auto || !obj_try_get(&hwpt->obj))
			continue;
		rc = replace_hwpt(idev, hwpt, false, done);
		obj_put(&hwpt->obj);
		if (rc != -EINVAL)
			break;
	}
	if (rc == -EINVAL)
		rc = replace_new_auto_locked(idev, ioas, &hwpt, done);
	if (!rc)
		*out_id = hwpt->obj.id;
	pthread_mutex_unlock(&ioas->mutex);
	return rc;
}

static int attach_to(struct iommufd_device *idev, struct obj *obj, uint32_t *out_id, struct replace *replace)
{
	if (obj->ops->type == OBJ_IOAS)
		return replace ? replace_ioas(idev, ioas_of(obj), out_id, replace)
			       : attach_ioas(idev, ioas_of(obj), out_id);
	if (obj->ops->type != OBJ_HWPT_PAGING)
		return swi_fail(&idev->why, -EINVAL, "pt_id %u is a %s, neither an IOAS nor a HWPT", obj->id,
				obj->ops->name);
	*out_id = obj->id;
	return replace ? replace_hwpt(idev, hwpt_of(obj), false, replace) : attach_hwpt(idev, hwpt_of(obj));
}

static int attach_or_replace(struct iommufd_device *idev, uint32_t pasid, uint32_t *pt_id,
			     struct replace *replace)
{
	uint32_t id = 0;
	struct obj *obj;
	int rc;

	idev->why.text[0] = '\0';
	rc = obj_get(idev->ctx, *pt_id, OBJ_ANY, "pt_id", &idev->why, &obj);
	if (rc)
		return rc;
	if (pasid)
		rc = swi_fail(&idev->why, -EINVAL, "pt_id %u was not made for PASIDs", *pt_id);
	else
		rc = attach_to(idev, obj, &id, replace);
	if (!rc)
		*pt_id = id;
	obj_put(obj);
	return rc;
}

int iommufd_device_attach(struct iommufd_device *idev, uint32_t pasid, uint32_t *pt_id)
{
	return attach_or_replace(idev, pasid, pt_id, NULL);
}

int iommufd_device_replace(struct iommufd_device *idev, uint32_t pasid, uint32_t *pt_id)
{
	struct replace done = {0};
	int rc = attach_or_replace(idev, pasid, pt_id, &done);

	while (done.moved--)
		hwpt_put_attachment(done.old);
	return rc;
}

void iommufd_device_detach(struct iommufd_device *idev, uint32_t pasid)
{
	struct device_group *dg = idev->dgroup;
	struct hwpt *hwpt = NULL;

	if (pasid)
		return;
	pthread_mutex_lock(&dg->lock);
	if (!list_empty(&idev->attached)) {
		hwpt = dg->hwpt;
		device_dma_switch(idev, NULL);
		attach_end_locked(idev, hwpt);
	}
	pthread_mutex_unlock(&dg->lock);
	if (hwpt)
		hwpt_put_attachment(hwpt);
}

const char *swiommu_device_reason(struct iommufd_device *idev)
{
	return idev->why.text;
}
