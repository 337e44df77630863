// SPDX-License-Identifier: MIT
/* Allocation with injected failures; see alloc.h. */
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

static _Thread_local unsigned fail_nth;

static bool should_fail(void)
{
	return SWI_UNLIKELY(fail_nth) && --fail_nth == 0;
}

bool swi_fail_point(void)
{
	return should_fail();
}

unsigned swi_alloc_fail_nth(unsigned n)
{
	unsigned old = fail_nth;

	fail_nth = n;
	return old;
}

void *swi_alloc(size_t size)
{
	return should_fail() ? NULL : malloc(size);
}

void *swi_zalloc(size_t size)
{
	return should_fail() ? NULL : calloc(1, size);
}

void *swi_realloc(void *p, size_t size)
{
	return should_fail() ? NULL : realloc(p, size);
}

void *swi_zalloc_aligned(size_t align, size_t size)
{
	void *p;

	if (should_fail() || posix_memalign(&p, align, size))
		return NULL;
	return memset(p, 0, size);
}

void swi_free(void *p)
{
	free(p);
}
