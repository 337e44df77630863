/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CORE_NEST_RIG_H
#define TESTS_CORE_NEST_RIG_H

/* Mock devices of the test ABI in this process, for what is built on their IOMMU. */

#include "support.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "base/alloc.h"
#include "core/selftest_abi.h"
#include "driver/mock.h"
#include <swiommu/viommu.h>

#define BASE 0x1000000ull

struct rig {
	struct swiommu_test_abi *abi;
	struct swiommu_files *files;
	struct iommufd_ctx *ctx;
	struct swiommu_caller caller;
	uint32_t ioas;
};

struct mock {
	uint32_t stdev, hwpt, idev;
};

static inline long ioc(struct rig *r, unsigned int cmd, void *arg)
{
	return swiommu_ioctl(r->ctx, &r->caller, cmd, (uintptr_t)arg);
}

static inline long op(struct rig *r, struct iommu_test_cmd *cmd)
{
	cmd->size = sizeof(*cmd);
	return ioc(r, IOMMU_TEST_CMD, cmd);
}

static inline int rig_setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct swiommu_options opt = {0};
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};

	assert_rc(swiommu_test_abi_create(&r->abi), 0);
	assert_rc(swiommu_files_create(&r->files), 0);
	opt.test_abi = r->abi;
	assert_rc(swiommu_open_with(&opt, &r->ctx), 0);
	swiommu_caller_local(&r->caller);
	r->caller.files = r->files;
	assert_rc(ioc(r, IOMMU_IOAS_ALLOC, &alloc), 0);
	r->ioas = alloc.out_ioas_id;
	*state = r;
	return 0;
}

static inline int rig_teardown(void **state)
{
	struct rig *r = *state;

	swiommu_close(r->ctx);
	swiommu_files_destroy(r->files);
	swiommu_test_abi_destroy(r->abi);
	free(r);
	return 0;
}

static inline struct mock mock_add(struct rig *r, uint32_t pt, uint32_t flags)
{
	struct iommu_test_cmd cmd = {
		.op = IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS, .id = pt, .mock_domain.dev_flags = flags};

	assert_rc(op(r, &cmd), 0);
	return (struct mock){cmd.mock_domain.out_stdev_id, cmd.mock_domain.out_hwpt_id,
			     cmd.mock_domain.out_idev_id};
}

static inline long rm(struct rig *r, uint32_t id)
{
	struct iommu_destroy cmd = {sizeof(cmd), id};

	return ioc(r, IOMMU_DESTROY, &cmd);
}

static inline long replace(struct rig *r, struct mock *m, uint32_t pt)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE,
				     .id = m->stdev,
				     .mock_domain_replace.pt_id = pt};

	return op(r, &cmd);
}

static inline long hwpt_alloc(struct rig *r, uint32_t dev, uint32_t pt, uint32_t flags,
			      uint32_t fault, uint32_t type, const void *data, uint32_t len,
			      uint32_t *out)
{
	struct iommu_hwpt_alloc cmd = {.size = sizeof(cmd),
				       .flags = flags,
				       .dev_id = dev,
				       .pt_id = pt,
				       .data_type = type,
				       .data_len = len,
				       .data_uptr = (uintptr_t)data,
				       .fault_id = fault};
	long rc = ioc(r, IOMMU_HWPT_ALLOC, &cmd);

	*out = cmd.out_hwpt_id;
	return rc;
}

static inline uint32_t hwpt_new(struct rig *r, uint32_t dev, uint32_t flags, uint32_t fault)
{
	uint32_t id = 0;

	assert_rc(hwpt_alloc(r, dev, r->ioas, flags, fault, 0, NULL, 0, &id), 0);
	return id;
}

static inline uint32_t nested_new(struct rig *r, uint32_t dev, uint32_t parent, uint32_t flags,
				  uint32_t fault)
{
	struct mock_hwpt_data data = {.iotlb = 0xbadbeef};
	uint32_t id = 0;

	assert_rc(hwpt_alloc(r, dev, parent, flags, fault, MOCK_HWPT_DATA_TYPE, &data, sizeof(data),
			     &id),
		  0);
	return id;
}

static inline long fault_alloc(struct rig *r, uint32_t *id, int *fd)
{
	struct iommu_fault_alloc cmd = {.size = sizeof(cmd)};
	long rc = ioc(r, IOMMU_FAULT_QUEUE_ALLOC, &cmd);

	*id = cmd.out_fault_id;
	*fd = rc ? -1 : (int)cmd.out_fault_fd;
	return rc;
}

static inline void iopf(struct rig *r, uint32_t dev, uint32_t pasid, uint32_t grpid, uint64_t addr)
{
	struct iommu_test_cmd cmd = {
		.op = IOMMU_TEST_OP_TRIGGER_IOPF,
		.trigger_iopf = {
			.dev_id = dev, .pasid = pasid, .grpid = grpid, .perm = 3, .addr = addr}};

	assert_rc(op(r, &cmd), 0);
}

static inline long rd(struct rig *r, int fd, void *buf, size_t n)
{
	return swiommu_read(&r->caller, fd, (uintptr_t)buf, n);
}

static inline long wr(struct rig *r, int fd, const void *buf, size_t n)
{
	return swiommu_write(&r->caller, fd, (uintptr_t)buf, n);
}

static inline short polled(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};

	assert_true(poll(&p, 1, 0) >= 0);
	return p.revents;
}

/* What the program closes goes at its next call. */
static inline void close_fd(struct rig *r, int fd)
{
	close(fd);
	swiommu_files_sweep(r->files);
}

static inline long pasid_op(struct rig *r, uint32_t what, struct mock *m, uint32_t pasid,
			    uint32_t pt)
{
	struct iommu_test_cmd cmd = {
		.op = what, .id = m->stdev, .pasid = {.pasid = pasid, .pt_id = pt}};

	return op(r, &cmd);
}

#define p_attach(r, m, pasid, pt) pasid_op(r, IOMMU_TEST_OP_PASID_ATTACH, m, pasid, pt)
#define p_replace(r, m, pasid, pt) pasid_op(r, IOMMU_TEST_OP_PASID_REPLACE, m, pasid, pt)
#define p_detach(r, m, pasid) pasid_op(r, IOMMU_TEST_OP_PASID_DETACH, m, pasid, 0)
#define p_check(r, m, pasid, pt) pasid_op(r, IOMMU_TEST_OP_PASID_CHECK_HWPT, m, pasid, pt)

#endif
