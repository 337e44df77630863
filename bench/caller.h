/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_BENCH_CALLER_H
#define SWIOMMU_BENCH_CALLER_H

/*
 * A caller whose structs are at hand: the local one checks pointers by system calls, which would be all that is
 * measured.
 */

#include <string.h>
#include <swiommu/swiommu.h>

static inline int caller_copy_in(struct swiommu_caller *c, void *dst, uint64_t uptr, size_t len)
{
	(void)c;
	memcpy(dst, (const void *)(uintptr_t)uptr, len);
	return 0;
}

static inline int caller_copy_out(struct swiommu_caller *c, uint64_t uptr, const void *src,
				  size_t len)
{
	(void)c;
	memcpy((void *)(uintptr_t)uptr, src, len);
	return 0;
}

/* `ops` becomes the caller's, and lives as long. */
static inline void caller_at_hand(struct swiommu_caller *c, struct swiommu_caller_ops *ops)
{
	swiommu_caller_local(c);
	*ops = *c->ops;
	ops->copy_in = caller_copy_in;
	ops->copy_out = caller_copy_out;
	c->ops = ops;
}

#endif
