// SPDX-License-Identifier: MIT
/*
 * vDEVICEs: devices as a guest knows them (spec devices.md 5.3, 5.4).
 *
 * A device has at most one, which its group record's lock guards (iommufd_device.vdev). The user ends it by its ID,
 * or it ends when the device is unbound, and then its ID is never used again. Who comes second waits: the
 * pointer in the device is cleared, under the lock, as the last step of either.
 *
 * While one is being made it is in that pointer too, but not `ready`: unbinding waits for that as well. The
 * response to the user is written meanwhile, without the lock.
 */
#include <errno.h>
#include <limits.h>

#include "base/alloc.h"
#include "core/call.h"
#include "core/viommu.h"

struct vdevice {
	struct obj obj;
	struct iommufd_vdevice *pub; /* owned */
	struct viommu *viommu;	     /* counted */
	struct iommufd_device *idev; /* counted */
	bool ready;		     /* published; dgroup->lock */
	bool visible;		     /* to lookups by virt_id; vdevs_lock */
	struct list entry;	     /* in viommu->vdevs; vdevs_lock */
};

static struct vdevice *vdevice_of(struct obj *obj)
{
	return container_of(obj, struct vdevice, obj);
}

/* ---- the table of a vIOMMU -------------------------------------------------------------------------- */

void iommufd_viommu_lock_vdevs(struct iommufd_viommu *viommu)
{
	pthread_mutex_lock(&viommu_of_pub(viommu)->vdevs_lock);
}

void iommufd_viommu_unlock_vdevs(struct iommufd_viommu *viommu)
{
	pthread_mutex_unlock(&viommu_of_pub(viommu)->vdevs_lock);
}

static struct vdevice *find_locked(struct viommu *viommu, uint64_t virt_id)
{
	struct list *pos;

	list_for_each (pos, &viommu->vdevs) {
		struct vdevice *vdev = list_entry(pos, struct vdevice, entry);

		if (vdev->pub->virt_id == virt_id)
			return vdev;
	}
	return NULL;
}

struct device *iommufd_viommu_find_dev(struct iommufd_viommu *pub, uint64_t virt_id)
{
	struct vdevice *vdev = find_locked(viommu_of_pub(pub), virt_id);

	return vdev && vdev->visible ? vdev->pub->dev : NULL;
}

int iommufd_viommu_get_vdev_id(struct iommufd_viommu *pub, struct device *dev, uint64_t *virt_id)
{
	struct viommu *viommu = viommu_of_pub(pub);
	struct list *pos;
	int rc = -ENOENT;

	pthread_mutex_lock(&viommu->vdevs_lock);
	list_for_each (pos, &viommu->vdevs) {
		struct vdevice *vdev = list_entry(pos, struct vdevice, entry);

		if (vdev->visible && vdev->pub->dev == dev) {
			*virt_id = vdev->pub->virt_id;
			rc = 0;
		}
	}
	pthread_mutex_unlock(&viommu->vdevs_lock);
	return rc;
}

/* ---- the end ---------------------------------------------------------------------------------------- */

/* What a vDEVICE owns, but for its place in the device. dgroup->lock held. */
static void end_locked(struct vdevice *vdev)
{
	pthread_mutex_lock(&vdev->viommu->vdevs_lock);
	vdev->visible = false;
	pthread_mutex_unlock(&vdev->viommu->vdevs_lock);
	if (vdev->pub->destroy)
		vdev->pub->destroy(vdev->pub);
	pthread_mutex_lock(&vdev->viommu->vdevs_lock);
	list_del(&vdev->entry);
	pthread_mutex_unlock(&vdev->viommu->vdevs_lock);
	swi_free(vdev->pub);
	obj_unhold(&vdev->viommu->obj);
	obj_unhold(&vdev->idev->obj);
}

static void vdevice_destroy(struct obj *obj)
{
	struct vdevice *vdev = vdevice_of(obj);
	struct device_group *dg = vdev->idev->dgroup;

	pthread_mutex_lock(&dg->lock);
	vdev->idev->vdev = NULL;
	end_locked(vdev);
	pthread_cond_broadcast(&dg->vdev_gone);
	pthread_mutex_unlock(&dg->lock);
}

static const struct obj_ops vdevice_ops = {
	.type = OBJ_VDEVICE,
	.name = "vDEVICE",
	.size = sizeof(struct vdevice),
	.destroy = vdevice_destroy,
};

void vdevice_unbind(struct iommufd_device *idev)
{
	struct device_group *dg = idev->dgroup;
	struct vdevice *vdev = NULL;

	pthread_mutex_lock(&dg->lock);
	idev->going = true;
	/* Either somebody is making or ending it, whom we wait for, or we end it. */
	while (idev->vdev) {
		vdev = idev->vdev;
		if (vdev->ready && obj_try_get(&vdev->obj)) {
			obj_hold(&vdev->obj);
			obj_put(&vdev->obj);
			break;
		}
		vdev = NULL;
		pthread_cond_wait(&dg->vdev_gone, &dg->lock);
	}
	pthread_mutex_unlock(&dg->lock);
	if (vdev)
		obj_destroy_tombstone(&vdev->obj);
}

/* ---- VDEVICE_ALLOC ---------------------------------------------------------------------------------- */

/* Puts a new one into the vIOMMU's table, has the driver fill it in, and lets lookups find it. dgroup->lock held. */
static int init_locked(struct call *call, struct vdevice *vdev)
{
	const struct iommufd_viommu_ops *ops = vdev->viommu->pub->ops;
	struct viommu *viommu = vdev->viommu;
	int rc = 0;

	pthread_mutex_lock(&viommu->vdevs_lock);
	if (swi_fail_point())
		rc = -ENOMEM;
	else if (find_locked(viommu, vdev->pub->virt_id))
		rc = swi_fail(call->why, -EEXIST, "virt_id %#llx is in use in vIOMMU %u",
			      (unsigned long long)vdev->pub->virt_id, viommu->obj.id);
	else
		list_add_tail(&viommu->vdevs, &vdev->entry);
	pthread_mutex_unlock(&viommu->vdevs_lock);
	if (!rc && ops->vdevice_init)
		rc = ops->vdevice_init(vdev->pub);
	if (rc)
		return rc;
	pthread_mutex_lock(&viommu->vdevs_lock);
	vdev->visible = true;
	pthread_mutex_unlock(&viommu->vdevs_lock);
	return 0;
}

static int create_locked(struct call *call, struct viommu *viommu, struct iommufd_device *idev,
			 struct vdevice **out)
{
	const struct iommu_vdevice_alloc *cmd = (void *)call->cmd.bytes;
	const struct iommufd_viommu_ops *ops = viommu->pub->ops;
	size_t size = ops->vdevice_size ? ops->vdevice_size : sizeof(struct iommufd_vdevice);
	struct vdevice *vdev;
	struct obj *obj;
	int rc;

	if (idev->going)
		return swi_fail(call->why, -ENOENT, "device %s is being unbound", idev->dev->name);
	if (idev->vdev)
		return swi_fail(call->why, -EEXIST, "device %s has a vDEVICE already",
				idev->dev->name);
	if (size < sizeof(struct iommufd_vdevice) || (ops->vdevice_size && !ops->vdevice_init))
		return swi_fail(call->why, -EOPNOTSUPP, "the driver (%s) makes no vDEVICEs",
				viommu->driver->name);
	rc = obj_alloc(call->ctx, &vdevice_ops, &obj);
	if (rc)
		return rc;
	vdev = vdevice_of(obj);
	vdev->pub = swi_zalloc(size);
	if (!vdev->pub) {
		obj_abort(obj, false);
		return -ENOMEM;
	}
	*vdev->pub = (struct iommufd_vdevice){
		.viommu = viommu->pub, .dev = idev->dev, .virt_id = cmd->virt_id, .engine = vdev};
	vdev->viommu = viommu;
	vdev->idev = idev;
	list_init(&vdev->entry);
	obj_hold(&viommu->obj);
	obj_hold(&idev->obj);
	rc = init_locked(call, vdev);
	if (rc) {
		vdev->pub->destroy = NULL;
		end_locked(vdev);
		obj_abort(obj, false);
		return rc;
	}
	idev->vdev = vdev;
	*out = vdev;
	return 0;
}

static int alloc_for(struct call *call, struct viommu *viommu, struct iommufd_device *idev)
{
	struct iommu_vdevice_alloc *cmd = (void *)call->cmd.bytes;
	struct device_group *dg = idev->dgroup;
	struct vdevice *vdev = NULL;
	int rc;

	if (viommu->driver != idev->driver || viommu->instance != idev->dev->iommu_instance)
		return swi_fail(call->why, -EINVAL,
				"device %s is behind another IOMMU than vIOMMU %u", idev->dev->name,
				viommu->obj.id);
	pthread_mutex_lock(&dg->lock);
	rc = create_locked(call, viommu, idev, &vdev);
	pthread_mutex_unlock(&dg->lock);
	if (rc)
		return rc;
	cmd->out_vdevice_id = vdev->obj.id;
	rc = call_respond(call);
	if (rc) {
		obj_abort(&vdev->obj, true);
		return rc;
	}
	pthread_mutex_lock(&dg->lock);
	obj_publish(&vdev->obj);
	vdev->ready = true;
	pthread_cond_broadcast(&dg->vdev_gone);
	pthread_mutex_unlock(&dg->lock);
	return 0;
}

int vdevice_cmd_alloc(struct call *call)
{
	const struct iommu_vdevice_alloc *cmd = (void *)call->cmd.bytes;
	struct obj *viommu, *dev;
	int rc;

	if (cmd->virt_id > ULONG_MAX)
		return swi_fail(call->why, -EINVAL, "virt_id %#llx is too large",
				(unsigned long long)cmd->virt_id);
	rc = obj_get(call->ctx, cmd->viommu_id, OBJ_VIOMMU, "viommu_id", call->why, &viommu);
	if (rc)
		return rc;
	rc = obj_get(call->ctx, cmd->dev_id, OBJ_DEVICE, "dev_id", call->why, &dev);
	if (!rc) {
		rc = alloc_for(call, viommu_of(viommu), device_of(dev));
		obj_put(dev);
	}
	obj_put(viommu);
	return rc;
}
