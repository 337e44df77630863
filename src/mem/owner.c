// SPDX-License-Identifier: MIT
/*
 * What all kinds of memory owners have in common: the count of references. The kinds are in
 * owner_local.c, owner_process.c and owner_file.c.
 */
#include "mem/owner.h"

#include <stdatomic.h>

struct mem_owner *mem_owner_get(struct mem_owner *o)
{
	atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
	return o;
}

void mem_owner_put(struct mem_owner *o)
{
	/* Whoever drops the last reference sees all that the other holders did before. */
	if (atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) == 1)
		o->ops->destroy(o);
}
