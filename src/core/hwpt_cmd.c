// SPDX-License-Identifier: MIT
/*
 * The ioctls on page tables and on what a device's IOMMU is (spec devices.md 2): HWPT_ALLOC and GET_HW_INFO. What
 * nested HWPTs have of their own is in nested.c.
 */
#include <errno.h>
#include <string.h>

#include "core/call.h"
#include "core/device.h"
#include "core/nested.h"
#include "core/viommu.h"

#define HWPT_FLAGS                                                        \
	(IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_DIRTY_TRACKING | \
	 IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID)

/* ---- HWPT_ALLOC ------------------------------------------------------------------------------------ */

/* The page table that the call asks for: the driver's usual one, or what the driver makes of the data. */
static int table_format_of(struct call *call, struct iommufd_device *idev,
			   struct iommu_table_format *format)
{
	const struct iommu_hwpt_alloc *cmd = (void *)call->cmd.bytes;
	const struct iommu_driver *drv = idev->driver;
	const struct iommu_user_data data = {cmd->data_type, cmd->data_uptr, cmd->data_len, call};
	int rc = -EOPNOTSUPP;

	*format = hwpt_default_format(drv);
	if (cmd->data_type == IOMMU_HWPT_DATA_NONE)
		return 0;
	if (drv->table_format)
		rc = drv->table_format(idev->dev, &data, format);
	return rc ? swi_fail(call->why, rc,
			     "data_type %#x with %u bytes is not what the IOMMU of %s (%s) takes",
			     cmd->data_type, cmd->data_len, idev->dev->name, drv->name)
		  : 0;
}

/* Manual HWPTs are the user's: never chosen by an attach to the IOAS, kept until destroyed. */
static int alloc_paging(struct call *call, struct iommufd_device *idev, struct ioas *ioas)
{
	const struct iommu_hwpt_alloc *cmd = (void *)call->cmd.bytes;
	struct iommu_table_format format;
	struct hwpt *hwpt;
	int rc;

	if (cmd->flags & ~HWPT_FLAGS)
		return swi_fail(call->why, -EOPNOTSUPP, "flags %#x: only %#x are defined",
				cmd->flags, HWPT_FLAGS);
	if ((cmd->flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) &&
	    (!idev->dev->dirty_tracking || device_is_noiommu(idev)))
		return swi_fail(call->why, -EOPNOTSUPP, "the IOMMU of %s cannot track dirty pages",
				idev->dev->name);
	if ((cmd->flags & IOMMU_HWPT_ALLOC_NEST_PARENT) && (cmd->flags & IOMMU_HWPT_FAULT_ID_VALID))
		return swi_fail(call->why, -EOPNOTSUPP,
				"NEST_PARENT does not go with FAULT_ID_VALID");
	if (cmd->flags & ~(idev->driver->hwpt_flags | IOMMU_HWPT_ALLOC_DIRTY_TRACKING |
			   IOMMU_HWPT_FAULT_ID_VALID))
		return swi_fail(call->why, -EOPNOTSUPP,
				"the IOMMU of %s (%s) offers flags %#x only", idev->dev->name,
				idev->driver->name, idev->driver->hwpt_flags);
	rc = table_format_of(call, idev, &format);
	if (rc)
		return rc;
	pthread_mutex_lock(&ioas->mutex);
	rc = hwpt_create_locked(ioas, idev, false, &format, cmd->flags, call->why, &hwpt);
	if (rc)
		goto unlock;
	rc = hwpt_populate_locked(hwpt, call->why);
	if (rc)
		hwpt_abort_locked(hwpt);
	else
		call->new_obj = &hwpt->obj;
unlock:
	pthread_mutex_unlock(&ioas->mutex);
	return rc;
}

static int alloc_on(struct call *call, struct iommufd_device *idev, struct obj *parent)
{
	const struct iommu_hwpt_alloc *cmd = (void *)call->cmd.bytes;

	switch (parent->ops->type) {
	case OBJ_IOAS:
		return alloc_paging(call, idev, ioas_of(parent));
	case OBJ_HWPT_PAGING:
		return nested_alloc_on_hwpt(call, idev, hwpt_of(parent));
	case OBJ_VIOMMU:
		return nested_alloc_on_viommu(call, idev, viommu_of(parent));
	default:
		return swi_fail(call->why, -EINVAL,
				"pt_id %u is a %s, on which no HWPT can be built", cmd->pt_id,
				parent->ops->name);
	}
}

int hwpt_cmd_alloc(struct call *call)
{
	struct iommu_hwpt_alloc *cmd = (void *)call->cmd.bytes;
	struct obj *dev, *parent;
	int rc;

	if (cmd->__reserved)
		return swi_fail(call->why, -EOPNOTSUPP, "__reserved is not 0");
	if ((cmd->data_type == IOMMU_HWPT_DATA_NONE) != !cmd->data_len)
		return swi_fail(call->why, -EINVAL, "data_type %#x does not go with data_len %u",
				cmd->data_type, cmd->data_len);
	rc = obj_get(call->ctx, cmd->dev_id, OBJ_DEVICE, "dev_id", call->why, &dev);
	if (rc)
		return rc;
	rc = obj_get(call->ctx, cmd->pt_id, OBJ_ANY, "pt_id", call->why, &parent);
	if (rc) {
		rc = -EINVAL;
		goto put_dev;
	}
	rc = alloc_on(call, device_of(dev), parent);
	if (!rc && cmd->flags & IOMMU_HWPT_FAULT_ID_VALID)
		rc = hwpt_bind_fault(call, hwpt_of(call->new_obj));
	if (!rc) {
		cmd->out_hwpt_id = call->new_obj->id;
		rc = call_respond(call);
	}
	obj_put(parent);
put_dev:
	obj_put(dev);
	return rc;
}

/* ---- GET_HW_INFO ----------------------------------------------------------------------------------- */

static uint64_t capabilities_of(const struct device *dev)
{
	return (dev->dirty_tracking ? IOMMU_HW_CAP_DIRTY_TRACKING : 0) |
	       (dev->max_pasids && dev->pasid_exec ? IOMMU_HW_CAP_PCI_PASID_EXEC : 0) |
	       (dev->max_pasids && dev->pasid_priv ? IOMMU_HW_CAP_PCI_PASID_PRIV : 0) |
	       (dev->ats ? 0 : IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED);
}

/* The driver's struct, cut or filled with zeros to what the caller has room for. */
static int write_data(struct call *call, const void *data, uint32_t known)
{
	const struct iommu_hw_info *cmd = (void *)call->cmd.bytes;
	static const char zeros[SWI_PAGE_SIZE];
	uint64_t at = cmd->data_uptr, left, n = SWI_MIN(known, cmd->data_len);
	int rc = 0;

	if (n)
		rc = call_copy_out(call, at, data, n, "data_uptr");
	for (left = cmd->data_len - n, at += n; !rc && left; left -= n, at += n) {
		n = SWI_MIN(left, sizeof(zeros));
		rc = call_copy_out(call, at, zeros, n, "data_uptr");
	}
	return rc;
}

static int hw_info(struct call *call, struct iommufd_device *idev)
{
	struct iommu_hw_info *cmd = (void *)call->cmd.bytes;
	uint32_t type = cmd->flags & IOMMU_HW_INFO_FLAG_INPUT_TYPE ? cmd->in_data_type
								   : IOMMU_HW_INFO_TYPE_DEFAULT;
	const struct device *dev = idev->dev;
	unsigned char data[IOMMU_DRIVER_HW_INFO_MAX];
	int known = 0, rc;

	if (dev->iommu->hw_info) {
		known = dev->iommu->hw_info(dev, &type, data);
		if (known < 0)
			return swi_fail(call->why, known,
					"in_data_type %#x: not what the IOMMU of %s (%s) is", type,
					dev->name, dev->iommu->name);
	} else {
		type = IOMMU_HW_INFO_TYPE_NONE;
	}
	rc = write_data(call, data, known);
	if (rc)
		return rc;
	cmd->data_len = known;
	cmd->out_data_type = type;
	cmd->out_max_pasid_log2 = dev->max_pasids ? 31 - __builtin_clz(dev->max_pasids) : 0;
	cmd->out_capabilities = capabilities_of(dev);
	return call_respond(call);
}

int device_cmd_hw_info(struct call *call)
{
	const struct iommu_hw_info *cmd = (void *)call->cmd.bytes;
	struct obj *obj;
	int rc;

	if (cmd->flags & ~IOMMU_HW_INFO_FLAG_INPUT_TYPE || cmd->__reserved[0] ||
	    cmd->__reserved[1] || cmd->__reserved[2])
		return swi_fail(call->why, -EOPNOTSUPP,
				"only the flag INPUT_TYPE is defined, and __reserved must be 0");
	rc = obj_get(call->ctx, cmd->dev_id, OBJ_DEVICE, "dev_id", call->why, &obj);
	if (rc)
		return rc;
	if (device_is_noiommu(device_of(obj)))
		rc = swi_fail(call->why, -EOPNOTSUPP, "%s has no IOMMU", device_of(obj)->dev->name);
	else
		rc = hw_info(call, device_of(obj));
	obj_put(obj);
	return rc;
}
