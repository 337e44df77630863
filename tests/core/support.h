/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CORE_SUPPORT_H
#define TESTS_CORE_SUPPORT_H

/* What the tests of src/core share: a context, ioctls on it, devices, memory. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <linux/iommufd.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include <swiommu/iommufd.h>

#define PAGE 4096ull
#define R IOMMU_IOAS_MAP_READABLE
#define W IOMMU_IOAS_MAP_WRITEABLE
#define RW (R | W)

/* assert_int_equal() for values that may be negative errnos, with names in the message. */
#define assert_rc(expr, want)                                                    \
	do {                                                                     \
		long got_ = (expr), want_ = (want);                              \
		if (got_ != want_)                                               \
			fail_msg("%s gives %ld (%s), not %ld (%s)", #expr, got_, \
				 got_ < 0 ? strerror(-got_) : "", want_,         \
				 want_ < 0 ? strerror(-want_) : "");             \
	} while (0)

static inline long call(struct iommufd_ctx *ctx, unsigned int cmd, void *arg)
{
	struct swiommu_caller caller;

	swiommu_caller_local(&caller);
	return swiommu_ioctl(ctx, &caller, cmd, (uintptr_t)arg);
}

static inline struct iommufd_ctx *ctx_new(const struct swiommu_hooks *hooks)
{
	struct iommufd_ctx *ctx;

	assert_rc(swiommu_open(hooks, &ctx), 0);
	return ctx;
}

static inline uint32_t ioas_new(struct iommufd_ctx *ctx)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};

	assert_rc(call(ctx, IOMMU_IOAS_ALLOC, &cmd), 0);
	return cmd.out_ioas_id;
}

static inline long destroy(struct iommufd_ctx *ctx, uint32_t id)
{
	struct iommu_destroy cmd = {sizeof(cmd), id};

	return call(ctx, IOMMU_DESTROY, &cmd);
}

static inline long map(struct iommufd_ctx *ctx, uint32_t ioas, uint32_t prot, uint64_t iova,
		       void *va, uint64_t len)
{
	struct iommu_ioas_map cmd = {
		sizeof(cmd), prot | IOMMU_IOAS_MAP_FIXED_IOVA, ioas, 0, (uintptr_t)va, len, iova};

	return call(ctx, IOMMU_IOAS_MAP, &cmd);
}

static inline long unmap(struct iommufd_ctx *ctx, uint32_t ioas, uint64_t iova, uint64_t len)
{
	struct iommu_ioas_unmap cmd = {sizeof(cmd), ioas, iova, len};

	return call(ctx, IOMMU_IOAS_UNMAP, &cmd);
}

/* The usable range that begins lowest, and the alignment. */
static inline struct iommu_iova_range first_range(struct iommufd_ctx *ctx, uint32_t ioas,
						  uint64_t *align)
{
	struct iommu_iova_range range = {0, 0};
	struct iommu_ioas_iova_ranges cmd = {.size = sizeof(cmd),
					     .ioas_id = ioas,
					     .num_iovas = 1,
					     .allowed_iovas = (uintptr_t)&range};
	long rc = call(ctx, IOMMU_IOAS_IOVA_RANGES, &cmd);

	assert_true(rc == 0 || rc == -EMSGSIZE);
	if (align)
		*align = cmd.out_iova_alignment;
	return range;
}

static inline char *memory(size_t pages)
{
	char *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);

	assert_true(p != MAP_FAILED);
	return p;
}

#endif
