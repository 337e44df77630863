/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_PRELOAD_STATE_H
#define SWIOMMU_PRELOAD_STATE_H

/*
 * What belongs to one address space. It lies in memory that the kernel empties in the child of a fork, so a child
 * begins with no ring, and with locks that nobody holds.
 */

#include "preload/preload.h"

struct preload_state {
	/* fast.c */
	struct helper_ring *_Atomic ring; /* NULL: none yet */
	_Atomic uint32_t ring_number;
	_Atomic uint32_t slow_calls; /* served by system calls so far */
	_Atomic uint32_t ring_tried;
	/* mapping.c */
	_Atomic uint32_t lock;
	_Atomic uint32_t sequence; /* odd: the table is being changed */
	/* convert.c */
	_Atomic uint32_t convert_lock;
	_Atomic uintptr_t convert_start, convert_end;
};

/* NULL: no memory, or the machine is out of it. */
struct preload_state *preload_state(void);

/* Locks of the state: signals are blocked while one is held, and nothing that they guard can fault. */
void state_lock(_Atomic uint32_t *lock, uint64_t *old_mask);
void state_unlock(_Atomic uint32_t *lock, uint64_t old_mask);

#endif
