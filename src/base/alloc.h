/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_BASE_ALLOC_H
#define SWIOMMU_BASE_ALLOC_H

/*
 * All memory of the engine comes from here, so that every allocation can be made to fail.
 *
 * A thread that sets swi_alloc_fail_nth(n) sees the n-th failure point that it passes from then on
 * fail (1 is the next one); then the counter is off again. Every allocation is such a point, and so
 * is whatever calls swi_fail_point(). The counter is per thread, as the kernel's fail-nth file is;
 * it is the one piece of state in the library that hangs off a thread and not a context.
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
 * Arms (n > 0) or disarms (0) the failure of this thread's n-th failure point from now. Returns
 * what was left of the counter before: 0 = was off, or has fired.
 */
unsigned swi_alloc_fail_nth(unsigned n);

/*
 * A place that can be told to fail and is no allocation: a look-up, a copy from or to the client, a
 * pin. True: fail now. Never on the way of undoing or destroying something, which cannot fail.
 */
bool swi_fail_point(void);

#define swi_new(type) ((type *)swi_zalloc(sizeof(type)))

#endif
