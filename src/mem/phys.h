/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_MEM_PHYS_H
#define SWIOMMU_MEM_PHYS_H

/*
 * Physical addresses: what page tables hold for the memory of backings (spec test-abi.md 2.3).
 *
 * Nothing lies at them. A backing gets a range of its own when it is first pinned for a page table and keeps it
 * as long as it lives: its pages in order, aligned as they are in the memory of the owner, so that a page table
 * can use large entries where a device's addresses are aligned with the memory too. All address spaces of a
 * context share one space, so a page that is mapped by MAP and COPY is at one address everywhere.
 *
 * The addresses lie in [PHYS_FIRST, PHYS_LAST]; those above, up to 51 bits, are free for other uses.
 */

#include "base/base.h"

#define PHYS_BITS 50
#define PHYS_FIRST (1ull << 44)
#define PHYS_LAST ((1ull << PHYS_BITS) - 1)

struct backing;
struct phys_space;

/* A new, empty space; counted, one reference. -ENOMEM. */
int phys_space_create(struct phys_space **out);
struct phys_space *phys_space_get(struct phys_space *space);
void phys_space_put(struct phys_space *space);

/*
 * A range for `length` bytes of `b`, which begin at address `addr` of its owner; both are multiples of a page. *pa
 * becomes its first address. -ENOMEM: no memory, or no addresses left.
 */
int phys_take(struct phys_space *space, struct backing *b, uint64_t addr, uint64_t length,
	      phys_t *pa);
/* Gives it back. No page table holds an address of the range any more, and who read one has forgotten it. */
void phys_give(struct phys_space *space, phys_t pa);

/*
 * The backing whose range holds `pa`, NULL: none. Takes no lock. For who knows that the range stays taken, as
 * from a page-table entry inside a read section (iova/reader.h).
 */
struct backing *phys_find(const struct phys_space *space, phys_t pa);

#endif
