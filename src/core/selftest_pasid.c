// SPDX-License-Identifier: MIT
/* The test ABI's ops on single PASIDs of mock devices (spec test-abi.md 1.4, ops 18 to 21). */
#include <errno.h>

#include "core/attach.h"
#include "core/selftest.h"

typedef int (*move_fn)(struct iommufd_device *idev, uint32_t pasid, uint32_t *pt_id);

static int pasid_move(struct call *call, move_fn move, bool undo)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint32_t pt_id = cmd->pasid.pt_id;
	struct stdev *stdev;
	int rc;

	rc = test_stdev_lock(call, &stdev);
	if (rc)
		return rc;
	rc = move(stdev->idev, cmd->pasid.pasid, &pt_id);
	test_pass_reason(call, stdev, rc);
	if (!rc) {
		cmd->pasid.pt_id = pt_id;
		rc = call_respond(call);
		if (rc && undo)
			iommufd_device_detach(stdev->idev, cmd->pasid.pasid);
	}
	test_stdev_unlock(stdev);
	return rc;
}

int test_pasid_attach(struct call *call)
{
	return pasid_move(call, iommufd_device_attach, true);
}

int test_pasid_replace(struct call *call)
{
	return pasid_move(call, iommufd_device_replace, false);
}

int test_pasid_detach(struct call *call)
{
	struct stdev *stdev;
	int rc;

	rc = test_stdev_lock(call, &stdev);
	if (rc)
		return rc;
	iommufd_device_detach(stdev->idev, test_cmd_of(call)->pasid.pasid);
	test_stdev_unlock(stdev);
	return 0;
}

/* The ID of the HWPT that a PASID is attached to; 0: none. */
static uint32_t attached_id(struct iommufd_device *idev, uint32_t pasid)
{
	struct attachment *at;
	uint32_t id;

	pthread_mutex_lock(&idev->dgroup->lock);
	at = attachment_find(idev->dgroup, pasid);
	id = at ? at->hwpt->obj.id : 0;
	pthread_mutex_unlock(&idev->dgroup->lock);
	return id;
}

static int check_is_hwpt(struct call *call, uint32_t id)
{
	enum obj_type type;
	struct obj *obj;
	int rc;

	rc = obj_get(call->ctx, id, OBJ_ANY, "hwpt_id", call->why, &obj);
	if (rc)
		return rc;
	type = obj->ops->type;
	if (type != OBJ_HWPT_PAGING && type != OBJ_HWPT_NESTED)
		rc = swi_fail(call->why, -EINVAL, "hwpt_id %u is a %s", id, obj->ops->name);
	obj_put(obj);
	return rc;
}

int test_pasid_check_hwpt(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint32_t want = cmd->pasid.pt_id, is;
	struct obj *obj;
	int rc;

	rc = obj_get(call->ctx, cmd->id, OBJ_SELFTEST, "id", call->why, &obj);
	if (rc)
		return rc;
	is = attached_id(stdev_of(obj)->idev, cmd->pasid.pasid);
	rc = want ? check_is_hwpt(call, want) : 0;
	if (!rc && is != want)
		rc = swi_fail(call->why, -EINVAL, "PASID %u is attached to HWPT %u (0: none)",
			      cmd->pasid.pasid, is);
	obj_put(obj);
	return rc;
}
