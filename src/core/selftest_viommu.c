// SPDX-License-Identifier: MIT
/*
 * The test ABI's view of nested HWPTs, and what it has mock devices raise: page requests and events (spec
 * test-abi.md 1.4, ops 14, 15 and 17).
 */
#include <errno.h>

#include "core/selftest.h"

int test_check_iotlb(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint32_t i = cmd->check_iotlb.id;
	struct mock_nested *nested;
	struct obj *obj;
	int rc;

	rc = obj_get(call->ctx, cmd->id, OBJ_HWPT_NESTED, "id", call->why, &obj);
	if (rc)
		return rc;
	nested = mock_nested_of(hwpt_of(obj)->domain);
	if (!nested || i >= MOCK_NR_IOTLBS)
		rc = swi_fail(call->why, -EINVAL, "the domain has no cache entry %u", i);
	else if (nested->iotlb[i] != cmd->check_iotlb.iotlb)
		rc = swi_fail(call->why, -EINVAL, "cache entry %u is %#x", i, nested->iotlb[i]);
	obj_put(obj);
	return rc;
}

int test_trigger_iopf(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	struct iopf_fault evt = {.prm = {
					 .flags = IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE,
					 .pasid = cmd->trigger_iopf.pasid,
					 .grpid = cmd->trigger_iopf.grpid,
					 .perm = cmd->trigger_iopf.perm,
					 .addr = cmd->trigger_iopf.addr,
				 }};
	struct obj *obj;
	int rc;

	rc = obj_get(call->ctx, cmd->trigger_iopf.dev_id, OBJ_DEVICE, "dev_id", call->why, &obj);
	if (rc)
		return rc;
	if (evt.prm.pasid)
		evt.prm.flags |= IOMMU_FAULT_PAGE_REQUEST_PASID_VALID;
	/* Whether somebody takes it is the device's problem. */
	iommu_report_device_fault(device_of(obj)->dev, &evt);
	obj_put(obj);
	return 0;
}

int test_trigger_vevent(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	struct mock_device *mock;
	struct obj *obj;
	int rc;

	rc = obj_get(call->ctx, cmd->trigger_vevent.dev_id, OBJ_DEVICE, "dev_id", call->why, &obj);
	if (rc)
		return rc;
	mock = mock_of_device(device_of(obj)->dev);
	rc = mock ? mock_device_vevent(mock) : -ENOENT;
	if (rc)
		swi_fail(call->why, rc,
			 rc == -ENOENT ? "the device is in no guest" : "nobody takes the event");
	obj_put(obj);
	return rc;
}
