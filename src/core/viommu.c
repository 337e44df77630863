// SPDX-License-Identifier: MIT
/* The vIOMMU object: IOMMU_VIOMMU_ALLOC and its end (spec devices.md 5.1, 5.2). */
#include "core/viommu.h"

#include <errno.h>

#include "base/alloc.h"
#include "core/call.h"

static void viommu_destroy(struct obj *obj)
{
	struct viommu *viommu = viommu_of(obj);

	if (viommu->pub && viommu->pub->ops && viommu->pub->ops->destroy)
		viommu->pub->ops->destroy(viommu->pub);
	swi_free(viommu->pub);
	obj_unhold(&viommu->parent->obj);
	pthread_mutex_destroy(&viommu->vdevs_lock);
	pthread_mutex_destroy(&viommu->events_lock);
}

static const struct obj_ops viommu_ops = {
	.type = OBJ_VIOMMU,
	.name = "vIOMMU",
	.size = sizeof(struct viommu),
	.destroy = viommu_destroy,
};

/* An object with the driver's struct of `size` bytes; the dispatcher undoes it if we fail later. */
static int create(struct call *call, struct iommufd_device *idev, struct hwpt *parent, size_t size)
{
	const struct iommu_viommu_alloc *cmd = (void *)call->cmd.bytes;
	struct viommu *viommu;
	struct obj *obj;
	int rc;

	rc = obj_alloc(call->ctx, &viommu_ops, &obj);
	if (rc)
		return rc;
	viommu = viommu_of(obj);
	viommu->driver = idev->driver;
	viommu->instance = idev->dev->iommu_instance;
	viommu->parent = parent;
	obj_hold(&parent->obj);
	pthread_mutex_init(&viommu->vdevs_lock, NULL);
	pthread_mutex_init(&viommu->events_lock, NULL);
	list_init(&viommu->vdevs);
	list_init(&viommu->veventqs);
	call->new_obj = obj;
	viommu->pub = swi_zalloc(size);
	if (!viommu->pub)
		return -ENOMEM;
	viommu->pub->engine = viommu;
	viommu->pub->type = cmd->type;
	return 0;
}

static int init(struct call *call)
{
	struct iommu_viommu_alloc *cmd = (void *)call->cmd.bytes;
	struct viommu *viommu = viommu_of(call->new_obj);
	struct iommu_user_data data = {
		.type = cmd->type, .uptr = cmd->data_uptr, .len = cmd->data_len, .call = call};
	int rc;

	rc = viommu->driver->viommu_init(viommu->pub, viommu->parent->domain,
					 cmd->data_len ? &data : NULL);
	if (rc)
		return rc;
	if (!viommu->pub->ops)
		return swi_fail(call->why, -EOPNOTSUPP, "the driver (%s) has made no vIOMMU",
				viommu->driver->name);
	cmd->out_viommu_id = viommu->obj.id;
	return call_respond(call);
}

static int alloc_for(struct call *call, struct iommufd_device *idev)
{
	const struct iommu_viommu_alloc *cmd = (void *)call->cmd.bytes;
	const struct iommu_driver *drv = idev->driver;
	struct hwpt *parent;
	struct obj *obj;
	size_t size = 0;
	int rc;

	if (drv->get_viommu_size && drv->viommu_init)
		size = drv->get_viommu_size(idev->dev, cmd->type);
	if (size < sizeof(struct iommufd_viommu))
		return swi_fail(call->why, -EOPNOTSUPP,
				"the IOMMU of %s (%s) offers no vIOMMU of type %#x",
				idev->dev->name, drv->name, cmd->type);
	rc = obj_get(call->ctx, cmd->hwpt_id, OBJ_HWPT_PAGING, "hwpt_id", call->why, &obj);
	if (rc)
		return rc;
	parent = hwpt_of(obj);
	if (!parent->nest_parent || parent->driver != drv)
		rc = swi_fail(call->why, -EINVAL,
			      "HWPT %u was not made with NEST_PARENT for this IOMMU", obj->id);
	else
		rc = create(call, idev, parent, size);
	if (!rc)
		rc = init(call);
	obj_put(obj);
	return rc;
}

int viommu_cmd_alloc(struct call *call)
{
	const struct iommu_viommu_alloc *cmd = (void *)call->cmd.bytes;
	struct obj *dev;
	int rc;

	if (cmd->flags || cmd->type == IOMMU_VIOMMU_TYPE_DEFAULT)
		return swi_fail(call->why, -EOPNOTSUPP,
				"no flag is defined, and type %u is no vIOMMU", cmd->type);
	rc = obj_get(call->ctx, cmd->dev_id, OBJ_DEVICE, "dev_id", call->why, &dev);
	if (rc)
		return rc;
	rc = alloc_for(call, device_of(dev));
	obj_put(dev);
	return rc;
}
