/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_SELFTEST_H
#define SWIOMMU_CORE_SELFTEST_H

/*
 * IOMMU_TEST_CMD (spec test-abi.md): what its files share.
 *
 *   selftest.c		the table of ops; the ops that are neither of the two below
 *   selftest_device.c	mock devices: SELFTEST objects
 *   selftest_pasid.c	single PASIDs of mock devices, and what they are attached to
 *   selftest_viommu.c	caches of nested HWPTs; page requests and events of mock devices
 *   selftest_access.c	accesses behind file descriptors
 *   selftest_dirty.c	dirty marks without DMA
 *   selftest_check.c	what is mapped and pinned, judged page by page
 *   selftest_dmabuf.c	dma-bufs of a mock exporter
 */

#include "core/call.h"
#include "core/device.h"
#include "core/selftest_abi.h"
#include "driver/mock.h"

struct swiommu_test_abi {
	struct mock_bus bus;
};

/* The object that owns a mock device. */
struct stdev {
	struct obj obj;
	struct mock_device *mock;    /* owned */
	struct iommufd_device *idev; /* NULL until bound */
	pthread_mutex_t lock;	     /* serialises attach and replace */
};

static inline struct stdev *stdev_of(struct obj *obj)
{
	return container_of(obj, struct stdev, obj);
}

/*
 * The mock device that cmd->id names, with its lock held; 0, or a negative errno with a reason. The other undoes that.
 */
int test_stdev_lock(struct call *call, struct stdev **out);
void test_stdev_unlock(struct stdev *stdev);
/* Passes the words for a failed attach or replace on. stdev->lock held. Returns `rc`. */
int test_pass_reason(struct call *call, struct stdev *stdev, int rc);

static inline struct iommu_test_cmd *test_cmd_of(struct call *call)
{
	return (struct iommu_test_cmd *)call->cmd.bytes;
}

/* The ops. Each returns 0 or more, or a negative errno with a reason; `call->cmd` is what it works on. */
int test_mock_domain(struct call *call);
int test_mock_domain_flags(struct call *call);
int test_mock_domain_replace(struct call *call);
int test_check_cache(struct call *call);
int test_check_iotlb(struct call *call);
int test_trigger_iopf(struct call *call);
int test_trigger_vevent(struct call *call);
int test_pasid_attach(struct call *call);
int test_pasid_replace(struct call *call);
int test_pasid_detach(struct call *call);
int test_pasid_check_hwpt(struct call *call);
int test_check_map(struct call *call);
int test_dirty(struct call *call);
int test_check_refs(struct call *call);
int test_create_access(struct call *call);
int test_destroy_access_pages(struct call *call);
int test_access_pages(struct call *call);
int test_access_rw(struct call *call);
int test_access_replace_ioas(struct call *call);
int test_dmabuf_get(struct call *call);
int test_dmabuf_revoke(struct call *call);

struct ioas;
struct hwpt;
/*
 * Whether `n` pieces of memory, `step` bytes apart from `iova` on, are the ones that the caller has now at uptr, also `step`
 * bytes apart: the same page; with `hwpt` by its page table and at the same place in the page, without by the
 * areas. 0, `differs` (a negative errno, also for what is not mapped), -EFAULT the caller has no memory there, -ENOMEM.
 */
int test_compare(struct call *call, struct ioas *ioas, struct hwpt *hwpt, uint64_t iova,
		 uint64_t uptr, uint64_t n, uint64_t step, int differs);

#endif
