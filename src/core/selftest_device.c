// SPDX-License-Identifier: MIT
/*
 * Mock devices of the test ABI. A SELFTEST object owns one: made, bound and attached by MOCK_DOMAIN,
 * detached and unbound when the object is destroyed, by its ID or with the context.
 */
#include <errno.h>

#include "core/device.h"
#include "core/selftest.h"

static void stdev_destroy(struct obj *obj)
{
	struct stdev *stdev = stdev_of(obj);

	int rc = 0;

	if (stdev->idev) {
		iommufd_device_detach(stdev->idev, 0);
		rc = device_unbind(stdev->idev);
	}
	/* A call that hangs refers to the mock: then it is never freed, which was logged. */
	if (rc != -ETIMEDOUT)
		mock_device_destroy(stdev->mock);
	pthread_mutex_destroy(&stdev->lock);
}

static const struct obj_ops stdev_ops = {
	.type = OBJ_SELFTEST,
	.name = "mock device",
	.size = sizeof(struct stdev),
	.destroy = stdev_destroy,
};

int test_pass_reason(struct call *call, struct stdev *stdev, int rc)
{
	const char *why = swiommu_device_reason(stdev->idev);

	return rc && why[0] ? swi_fail(call->why, rc, "%s", why) : rc;
}

static int stdev_create(struct call *call, uint32_t flags, struct stdev **out)
{
	struct stdev *stdev;
	struct obj *obj;
	int rc;

	rc = obj_alloc(call->ctx, &stdev_ops, &obj);
	if (rc)
		return rc;
	stdev = stdev_of(obj);
	rc = mock_device_create(&call->ctx->test_abi->bus, flags & MOCK_FLAGS_DEVICE_NO_DIRTY,
				flags & MOCK_FLAGS_DEVICE_PASID, &stdev->mock);
	if (rc) {
		obj_abort(obj, false);
		return rc;
	}
	pthread_mutex_init(&stdev->lock, NULL);
	*out = stdev;
	return 0;
}

static int mock_domain(struct call *call, uint32_t flags)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	struct stdev *stdev;
	uint32_t pt_id = cmd->id, idev_id;
	int rc;

	if (flags & ~(MOCK_FLAGS_DEVICE_NO_DIRTY | MOCK_FLAGS_DEVICE_PASID))
		return swi_fail(call->why, -EINVAL,
				"dev_flags %#x: only NO_DIRTY and PASID are known", flags);
	rc = stdev_create(call, flags, &stdev);
	if (rc)
		return rc;
	/* From here on the dispatcher undoes it all if we fail. */
	call->new_obj = &stdev->obj;
	stdev->idev = device_bind(call->ctx, &stdev->mock->dev, false, &idev_id);
	if (IS_ERR(stdev->idev)) {
		rc = PTR_ERR(stdev->idev);
		stdev->idev = NULL;
		return rc;
	}
	rc = iommufd_device_attach(stdev->idev, 0, &pt_id);
	if (rc)
		return test_pass_reason(call, stdev, rc);
	cmd->mock_domain.out_stdev_id = stdev->obj.id;
	cmd->mock_domain.out_hwpt_id = pt_id;
	cmd->mock_domain.out_idev_id = idev_id;
	return call_respond(call);
}

int test_mock_domain(struct call *call)
{
	return mock_domain(call, 0);
}

int test_mock_domain_flags(struct call *call)
{
	return mock_domain(call, test_cmd_of(call)->mock_domain.dev_flags);
}

int test_check_cache(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint32_t i = cmd->check_dev_cache.id;
	struct mock_device *mock;
	struct obj *obj;
	int rc;

	rc = obj_get(call->ctx, cmd->id, OBJ_DEVICE, "id", call->why, &obj);
	if (rc)
		return rc;
	mock = mock_of_device(device_of(obj)->dev);
	if (!mock || i >= MOCK_NR_CACHES)
		rc = swi_fail(call->why, -EINVAL, "the device has no cache %u", i);
	else if (mock->cache[i] != cmd->check_dev_cache.cache)
		rc = swi_fail(call->why, -EINVAL, "cache %u is %#x", i, mock->cache[i]);
	obj_put(obj);
	return rc;
}

int test_stdev_lock(struct call *call, struct stdev **out)
{
	struct obj *obj;
	int rc;

	*out = NULL;
	rc = obj_get(call->ctx, test_cmd_of(call)->id, OBJ_SELFTEST, "id", call->why, &obj);
	if (rc)
		return rc;
	*out = stdev_of(obj);
	pthread_mutex_lock(&(*out)->lock);
	return 0;
}

void test_stdev_unlock(struct stdev *stdev)
{
	pthread_mutex_unlock(&stdev->lock);
	obj_put(&stdev->obj);
}

int test_mock_domain_replace(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint32_t pt_id = cmd->mock_domain_replace.pt_id;
	struct stdev *stdev;
	int rc;

	rc = test_stdev_lock(call, &stdev);
	if (rc)
		return rc;
	rc = iommufd_device_replace(stdev->idev, 0, &pt_id);
	test_pass_reason(call, stdev, rc);
	test_stdev_unlock(stdev);
	if (rc)
		return rc;
	cmd->mock_domain_replace.pt_id = pt_id;
	return call_respond(call);
}
