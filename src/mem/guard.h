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

#endif
