/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_MEM_OWNERS_H
#define SWIOMMU_MEM_OWNERS_H

/*
 * The owners that a context has in use, so that mappings of the same memory share one: an owner keeps files open,
 * and programs map the same few address spaces and files in very many pieces.
 */

#include "mem/owner.h"

struct mem_owners;

/* -ENOMEM. */
int mem_owners_create(struct mem_owners **out);
/* By its creator. What is listed may stay; nothing is shared any more. NULL: does nothing. */
void mem_owners_put(struct mem_owners *owners);
/*
 * An owner that is in use already and interchangeable with `o`, which is put then; or `o`, which others will share
 * from now on (in the list that it came to first). The caller's reference passes from the one to the other. Does not
 * fail.
 */
struct mem_owner *mem_owners_share(struct mem_owners *owners, struct mem_owner *o);

/* For mem_owner_put(): the last reference to a listed owner has gone. */
void mem_owners_forget(struct mem_owner *o);

#endif
