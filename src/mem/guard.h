/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_MEM_GUARD_H
#define SWIOMMU_MEM_GUARD_H

/*
 * Copies through windows of files that somebody else may truncate at any moment.
 *
 * A load or store beyond the new end of the file raises SIGBUS. A host that serves untrusted
 * clients calls mem_guard_install() once at start; a fault inside mem_guard_copy() then ends that
 * copy with -EFAULT instead of the process. Signal dispositions belong to the process, so the
 * library never installs it by itself: an embedder that trusts its files needs nothing.
 */

#include <stdatomic.h>

#include "base/base.h"

/*
 * Installs the SIGBUS handler for this process; faults outside guarded copies get the previous
 * disposition. No thread that copies may block SIGBUS: the kernel ends a process that faults with
 * the signal blocked. Idempotent. 0 or negative errno.
 */
int mem_guard_install(void);

/*
 * memcpy() that survives vanished file pages when the guard is installed. 0 or -EFAULT (part may
 * have been copied). Costs a few ns over memcpy. Not for overlapping buffers.
 */
int mem_guard_copy(void *dst, const void *src, size_t len);
/* The same for one aligned word that others change at the same time: loads it, or makes `value` of `old` (*done: it was that). */
int mem_guard_load(const _Atomic(uint64_t) *src, uint64_t *out);
int mem_guard_swap(_Atomic(uint64_t) *dst, uint64_t old, uint64_t value, bool *done);

/*
 * Pages that code touches directly, at any time and from any thread, and that somebody else may truncate: device
 * registers that a client maps. When one of them has vanished, a page of zeros takes its place in this process, and
 * the code goes on. Owned and zeroed by the caller until mem_guard_forget() returns.
 */
struct mem_guard_range {
	struct mem_guard_range *next;
	uintptr_t start;
	size_t length;
};

/* `addr` and `length` are whole pages. Has no effect while the guard is not installed. */
void mem_guard_mend(struct mem_guard_range *range, void *addr, size_t length);
/* When it returns, no handler looks at the range. Does nothing with one that was never added. */
void mem_guard_forget(struct mem_guard_range *range);

#endif
