// SPDX-License-Identifier: MIT
/*
 * The physical-device kAPI: bind and unbind, and the groups that devices share (spec devices.md 1).
 * Attaching is in attach.c.
 */
#include "core/device.h"

#include <errno.h>

#include "base/alloc.h"
#include "core/ctx.h"
#include "core/dma.h"
#include "core/fault.h"
#include "core/viommu.h"

/* ---- groups -------------------------------------------------------------------------------------- */

int iommu_group_init(struct iommu_group *group, unsigned int id)
{
	group->id = id;
	group->owner = NULL;
	group->owner_count = 0;
	group->unsafe_interrupts = false;
	return -pthread_mutex_init(&group->lock, NULL);
}

void iommu_group_fini(struct iommu_group *group)
{
	pthread_mutex_destroy(&group->lock);
}

int iommu_group_claim_dma_owner(struct iommu_group *group, const void *owner)
{
	int rc = 0;

	pthread_mutex_lock(&group->lock);
	if (group->owner)
		rc = -EPERM;
	else
		group->owner = owner;
	if (!rc)
		group->owner_count++;
	pthread_mutex_unlock(&group->lock);
	return rc;
}

void iommu_group_release_dma_owner(struct iommu_group *group)
{
	pthread_mutex_lock(&group->lock);
	if (!--group->owner_count)
		group->owner = NULL;
	pthread_mutex_unlock(&group->lock);
}

bool iommu_group_dma_owner_claimed(struct iommu_group *group)
{
	bool claimed;

	pthread_mutex_lock(&group->lock);
	claimed = group->owner;
	pthread_mutex_unlock(&group->lock);
	return claimed;
}

struct find_group {
	struct iommu_group *group;
	struct device_group *found; /* with a reference */
};

static bool match_group(struct obj *obj, void *data)
{
	struct iommufd_device *idev = device_of(obj);
	struct find_group *find = data;

	if (idev->dgroup->group != find->group)
		return false;
	find->found = idev->dgroup;
	return true;
}

/*
 * The context's record of a group, shared by its bound members. Called with group->lock held, which serialises
 * binding and unbinding within the group.
 */
static int dgroup_get_locked(struct iommufd_ctx *ctx, struct iommu_group *group,
			     struct device_group **out)
{
	struct find_group find = {.group = group};
	struct device_group *dg;

	if (group && obj_for_each(ctx, OBJ_DEVICE, match_group, &find)) {
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
	dg->sw_msi_start = SW_MSI_NONE;
	pthread_mutex_init(&dg->lock, NULL);
	pthread_rwlock_init(&dg->handles, NULL);
	pthread_cond_init(&dg->vdev_gone, NULL);
	pthread_mutex_init(&dg->listen, NULL);
	list_init(&dg->listeners);
	*out = dg;
	return 0;
}

static void dgroup_put_locked(struct device_group *dg)
{
	if (--dg->refs)
		return;
	pthread_mutex_destroy(&dg->listen);
	pthread_cond_destroy(&dg->vdev_gone);
	pthread_rwlock_destroy(&dg->handles);
	pthread_mutex_destroy(&dg->lock);
	swi_free(dg);
}

/* ---- bind and unbind ----------------------------------------------------------------------------- */

/* A device without an IOMMU is in no group that anybody else could have. */
static void lock_group(struct iommu_group *group)
{
	if (group)
		pthread_mutex_lock(&group->lock);
}

static void unlock_group(struct iommu_group *group)
{
	if (group)
		pthread_mutex_unlock(&group->lock);
}

/* All that has to do with the host's device, which may go after this. */
static void let_go(struct iommufd_device *idev)
{
	struct iommu_group *group = idev->dgroup->group;

	if (idev->dev->engine == idev->iopf)
		idev->dev->engine = NULL;
	iopf_param_destroy(idev->iopf);
	dma_routes_free(idev);
	lock_group(group);
	dgroup_put_locked(idev->dgroup);
	if (group && !--group->owner_count)
		group->owner = NULL;
	if (!--idev->dev->bindings && idev->driver->release_device)
		idev->driver->release_device(idev->dev);
	unlock_group(group);
	idev->dev = NULL;
}

static void device_destroy(struct obj *obj)
{
	struct iommufd_device *idev = device_of(obj);

	if (idev->dev)
		let_go(idev);
	pthread_mutex_destroy(&idev->dma_lock);
}

static const struct obj_ops device_ops = {
	.type = OBJ_DEVICE,
	.name = "device",
	.size = sizeof(struct iommufd_device),
	.destroy = device_destroy,
};

static int refuse(struct iommufd_ctx *ictx, const struct device *dev, int rc, const char *why)
{
	swi_log(&ictx->log, SWI_LOG_WARN, "device %s cannot be bound: %s", dev->name, why);
	return rc;
}

/* Steps 2 to 5 of devices.md 1.2. */
static int check_device(struct iommufd_ctx *ictx, const struct device *dev)
{
	if (!dev->iommu)
		return ictx->noiommu ? 0 : refuse(ictx, dev, -EINVAL, "it has no IOMMU");
	if (dev->incoherent)
		return refuse(ictx, dev, -EINVAL, "its DMA is not coherent with caches");
	if (!dev->group)
		return refuse(ictx, dev, -ENODEV, "it is in no IOMMU group");
	if (!dev->group->unsafe_interrupts)
		return 0;
	if (!ictx->unsafe_interrupts)
		return refuse(ictx, dev, -EPERM,
			      "interrupts of its group are not isolated from others");
	swi_log(&ictx->log, SWI_LOG_WARN,
		"device %s is bound though interrupts of its group are not isolated", dev->name);
	return 0;
}

/* Step 6, for the device at hand. Group locked. */
static int check_owner_locked(struct iommufd_ctx *ictx, struct device *dev)
{
	struct iommu_resv_region regions[DEVICE_RESV_MAX];
	unsigned int nr;
	int rc;

	if (dev->group->owner)
		return dev->group->owner == ictx
			       ? 0
			       : refuse(ictx, dev, -EPERM, "its group is owned by somebody else");
	rc = device_get_resv(dev, dev->iommu, regions, &nr, NULL);
	/* What is wrong with the regions is told when it is attached. */
	for (unsigned int i = 0; !rc && i < nr; i++)
		if (regions[i].type == IOMMU_RESV_DIRECT)
			return refuse(ictx, dev, -EINVAL,
				      "its firmware wants memory mapped at all times");
	return 0;
}

struct iommufd_device *device_bind(struct iommufd_ctx *ictx, struct device *dev, bool hold_ctx,
				   uint32_t *id)
{
	struct iommu_group *group = dev->iommu ? dev->group : NULL;
	struct iommufd_device *idev;
	struct obj *obj;
	int rc;

	rc = obj_alloc(ictx, &device_ops, &obj);
	if (rc)
		return ERR_PTR(rc);
	rc = check_device(ictx, dev);
	if (rc)
		goto abort;
	idev = device_of(obj);
	idev->ctx = ictx;
	idev->dev = dev;
	idev->driver = dev->iommu ? dev->iommu : &noiommu_driver;
	idev->enforces = idev->driver->enforces_coherency && !dev->no_enforce;

	rc = iopf_param_create(idev, &idev->iopf);
	if (rc)
		goto abort;
	lock_group(group);
	rc = group ? check_owner_locked(ictx, dev) : 0;
	if (!rc && !dev->bindings && idev->driver->probe_device)
		rc = idev->driver->probe_device(dev);
	if (rc)
		goto unlock;
	rc = dgroup_get_locked(ictx, group, &idev->dgroup);
	if (rc)
		goto release;
	dev->bindings++;
	if (group) {
		group->owner = ictx;
		group->owner_count++;
	}
	idev->holds_ctx = hold_ctx;
	if (hold_ctx)
		iommufd_ctx_get(ictx);
	pthread_mutex_init(&idev->dma_lock, NULL);
	dev->engine = idev->iopf;
	obj_hold(obj); /* the binder's */
	*id = obj->id;
	/* Published under the group's lock: the next member to bind finds the record through it. */
	obj_publish(obj);
	unlock_group(group);
	return idev;

release:
	if (!dev->bindings && idev->driver->release_device)
		idev->driver->release_device(dev);
unlock:
	unlock_group(group);
	iopf_param_destroy(idev->iopf);
abort:
	obj_abort(obj, false);
	return ERR_PTR(rc);
}

struct iommufd_device *iommufd_device_bind(struct iommufd_ctx *ictx, struct device *dev,
					   uint32_t *id)
{
	return device_bind(ictx, dev, true, id);
}

int device_unbind(struct iommufd_device *idev)
{
	struct iommufd_ctx *ctx = idev->holds_ctx ? idev->ctx : NULL;
	int rc;

	vdevice_unbind(idev);
	device_abandon(idev);
	rc = obj_destroy_held(&idev->obj);
	if (rc == -EBUSY)
		let_go(idev);
	iommufd_ctx_put(ctx);
	return rc;
}

void iommufd_device_unbind(struct iommufd_device *idev)
{
	device_unbind(idev);
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
