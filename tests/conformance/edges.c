// SPDX-License-Identifier: MIT
/* The devices and ioctls of edges.h. */
#include "edges.h"

static void give_up_if(long rc, const char *what)
{
	if (rc)
		give_up("%s: %s", what, strerror(-rc));
}

/* ---- devices ------------------------------------------------------------------------------------ */

long tdev_try(struct ctx *c, uint32_t pt, uint32_t flags, struct tdev *out)
{
	struct test_cmd cmd = {.op = TEST_OP_MOCK_DOMAIN_FLAGS, .id = pt, .mock.flags = flags};
	long rc;

	need_test_abi(c);
	rc = test_abi_call(c, &cmd);
	if (!rc)
		*out = (struct tdev){c, cmd.mock.stdev_id, cmd.mock.hwpt_id, cmd.mock.idev_id};
	return rc;
}

void tdev_add(struct ctx *c, uint32_t pt, uint32_t flags, struct tdev *out)
{
	give_up_if(tdev_try(c, pt, flags, out), "a mock device cannot be attached");
}

void edge_init(struct ctx *c, struct edge *e, uint32_t dev_flags)
{
	need_test_abi(c);
	e->c = c;
	e->io = ioas_new(c);
	tdev_add(c, e->io, dev_flags, &e->d);
}

long tdev_free(struct tdev *d)
{
	return destroy(d->c, d->stdev);
}

long tdev_replace(struct tdev *d, uint32_t *pt)
{
	struct test_cmd cmd = {
		.op = TEST_OP_MOCK_DOMAIN_REPLACE, .id = d->stdev, .mock_replace.pt_id = *pt};
	long rc = test_abi_call(d->c, &cmd);

	if (!rc)
		*pt = cmd.mock_replace.pt_id;
	return rc;
}

long tdev_move(struct tdev *d, uint32_t pt)
{
	return tdev_replace(d, &pt);
}

static long pasid_op(struct tdev *d, uint32_t op, uint32_t pasid, uint32_t pt)
{
	struct test_cmd cmd = {.op = op, .id = d->stdev, .pasid = {pasid, pt}};

	return test_abi_call(d->c, &cmd);
}

long pasid_attach(struct tdev *d, uint32_t pasid, uint32_t pt)
{
	return pasid_op(d, TEST_OP_PASID_ATTACH, pasid, pt);
}

long pasid_replace(struct tdev *d, uint32_t pasid, uint32_t pt)
{
	return pasid_op(d, TEST_OP_PASID_REPLACE, pasid, pt);
}

long pasid_detach(struct tdev *d, uint32_t pasid)
{
	return pasid_op(d, TEST_OP_PASID_DETACH, pasid, 0);
}

long pasid_check(struct tdev *d, uint32_t pasid, uint32_t hwpt)
{
	return pasid_op(d, TEST_OP_PASID_CHECK_HWPT, pasid, hwpt);
}

/* ---- IDs and ranges ----------------------------------------------------------------------------- */

uint32_t next_id(struct ctx *c)
{
	uint32_t id = ioas_new(c);

	CHECK_RC(destroy(c, id), 0);
	return id;
}

void check_range(struct ctx *c, uint32_t ioas, uint64_t first, uint64_t last, uint64_t align)
{
	struct iommu_iova_range got[2] = {0};
	uint64_t is = 0;
	uint32_t n = 2;

	CHECK_RC(iova_ranges(c, ioas, &n, got, &is), 0);
	CHECK_EQ(n, 1);
	CHECK_EQ(got[0].start, first);
	CHECK_EQ(got[0].last, last);
	CHECK_EQ(is, align);
}

/* ---- HWPTs -------------------------------------------------------------------------------------- */

static long alloc(struct ctx *c, struct iommu_hwpt_alloc *cmd, uint32_t *id)
{
	long rc;

	cmd->size = sizeof(*cmd);
	rc = call(c, IOMMU_HWPT_ALLOC, cmd);
	if (!rc && id)
		*id = cmd->out_hwpt_id;
	return rc;
}

long hwpt_try(struct tdev *d, uint32_t pt, uint32_t flags, uint32_t *id)
{
	struct iommu_hwpt_alloc cmd = {.flags = flags, .dev_id = d->idev, .pt_id = pt};

	return alloc(d->c, &cmd, id);
}

uint32_t hwpt_new(struct tdev *d, uint32_t pt, uint32_t flags)
{
	uint32_t id = 0;

	give_up_if(hwpt_try(d, pt, flags, &id), "HWPT_ALLOC");
	return id;
}

long hwpt_fault(struct tdev *d, uint32_t pt, uint32_t flags, uint32_t fault, uint32_t *id)
{
	struct iommu_hwpt_alloc cmd = {
		.flags = flags, .dev_id = d->idev, .pt_id = pt, .fault_id = fault};

	return alloc(d->c, &cmd, id);
}

long hwpt_data(struct tdev *d, uint32_t pt, uint32_t flags, uint32_t type, const void *data,
	       uint32_t len, uint32_t *id)
{
	struct iommu_hwpt_alloc cmd = {
		.flags = flags,
		.dev_id = d->idev,
		.pt_id = pt,
		.data_type = type,
		.data_len = len,
		.data_uptr = (uintptr_t)data,
	};

	return alloc(d->c, &cmd, id);
}

uint32_t nested_new(struct tdev *d, uint32_t parent, uint32_t flags)
{
	struct test_hwpt_data data = {.iotlb = 0xbadbeef};
	uint32_t id = 0;

	give_up_if(hwpt_data(d, parent, flags, TEST_TYPE_DATA, &data, sizeof(data), &id),
		   "HWPT_ALLOC, nested");
	return id;
}

long fault_queue(struct ctx *c, uint32_t *id, int *fd)
{
	struct iommu_fault_alloc cmd = {.size = sizeof(cmd)};
	long rc = call(c, IOMMU_FAULT_QUEUE_ALLOC, &cmd);

	if (!rc) {
		*id = cmd.out_fault_id;
		*fd = cmd.out_fault_fd;
	}
	return rc;
}
