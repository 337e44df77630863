/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_BASE_ALLOC_H
#define SWIOMMU_BASE_ALLOC_H

/*
 * All memory of the engine comes from here, so that every allocation can be made to fail.
 *
 * A thread that sets swi_alloc_fail_nth(n) gets NULL from its n-th allocation that follows (1 is
 * the next one); then the counter is off again. The counter is per thread, as the kernel's fail-nth
 * file is; it is the one piece of state in the library that hangs off a thread and not a context.
 */

#include "base/base.h"

/* Memory of `size` bytes, uninitialised / zeroed; NULL when there is none. Freed by swi_free(). */
void *swi_alloc(size_t size);
void *swi_zalloc(size_t size);
/* Like realloc(); on failure the old block stays valid and NULL is returned. */
void *swi_realloc(void *p, size_t size);
/* Zeroed memory aligned to `align` (a power of two, multiple of sizeof(void *)). */
void *swi_zalloc_aligned(size_t align, size_t size);
void swi_free(void *p);

/*
 * Arms (n > 0) or disarms (0) the failure of this thread's n-th allocation from now. Returns what
 * was left of the counter before: 0 = was off, or has fired.
 */
unsigned swi_alloc_fail_nth(unsigned n);

#define swi_new(type) ((type *)swi_zalloc(sizeof(type)))

#endif
