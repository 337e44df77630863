// SPDX-License-Identifier: MIT
/*
 * The space of physical addresses.
 *
 * It is cut into arenas of 2^44 bytes, each for blocks of one power of two: an address says by its upper bits
 * how large its block is, hence by the next ones which block of these it is. A backing takes the smallest block
 * that it fits into when it begins at the offset that its memory has in naturally aligned blocks of (about) its
 * own length. So taking, giving back and finding take the same few steps however much is taken.
 *
 * For each arena there is an array of slots, one for a block: the backing, or a link of the list of free ones. It
 * comes in segments, each twice as large as the one before, so that none ever moves under who is looking.
 *
 * Finding needs no lock: a slot is written before the address is known to anybody, and emptied after nobody
 * knows it any more.
 */
#include "mem/phys.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/alloc.h"

#define ARENA_LG2 44
#define BLOCK_LG2_MIN SWI_PAGE_SHIFT
#define BLOCK_LG2_MAX ARENA_LG2
#define ARENAS (BLOCK_LG2_MAX - BLOCK_LG2_MIN + 1)
#define FIRST_SEGMENT_LG2 4
#define SEGMENTS (ARENA_LG2 - BLOCK_LG2_MIN - FIRST_SEGMENT_LG2 + 1)
/* Beyond this, alignment is of no use to any page table. */
#define ALIGN_LG2_MAX 39

/* A backing; or, odd, 2 * (number of the next free block + 1) + 1. */
typedef _Atomic(uintptr_t) slot_t;

struct arena {
	_Atomic(slot_t *) segment[SEGMENTS];
	uint64_t used; /* blocks that have ever been taken */
	uint64_t free; /* number + 1 of the first free one of these */
};

struct phys_space {
	atomic_uint refs;
	pthread_mutex_t lock;	    /* a leaf; all but reading slots */
	struct arena arena[ARENAS]; /* by the size of blocks */
};

_Static_assert(PHYS_FIRST == 1ull << ARENA_LG2, "arena 0 begins there");
_Static_assert((ARENAS + 1ull) << ARENA_LG2 <= PHYS_LAST, "all arenas fit");
_Static_assert(sizeof(uintptr_t) == 8, "a slot holds any number of a block");

int phys_space_create(struct phys_space **out)
{
	struct phys_space *space = swi_new(struct phys_space);

	if (!space)
		return -ENOMEM;
	atomic_init(&space->refs, 1);
	pthread_mutex_init(&space->lock, NULL);
	*out = space;
	return 0;
}

struct phys_space *phys_space_get(struct phys_space *space)
{
	atomic_fetch_add_explicit(&space->refs, 1, memory_order_relaxed);
	return space;
}

void phys_space_put(struct phys_space *space)
{
	if (!space || atomic_fetch_sub_explicit(&space->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (unsigned a = 0; a < ARENAS; a++)
		for (unsigned s = 0; s < SEGMENTS; s++)
			swi_free((void *)space->arena[a].segment[s]);
	pthread_mutex_destroy(&space->lock);
	swi_free(space);
}

/* ---- blocks ------------------------------------------------------------------------------------- */

static unsigned block_lg2(unsigned arena)
{
	return BLOCK_LG2_MIN + arena;
}

static unsigned arena_of(phys_t pa)
{
	return (unsigned)(pa >> ARENA_LG2) - 1;
}

static uint64_t block_of(phys_t pa)
{
	return (pa & ((1ull << ARENA_LG2) - 1)) >> block_lg2(arena_of(pa));
}

static phys_t block_pa(unsigned arena, uint64_t block)
{
	return (arena + 1ull) << ARENA_LG2 | block << block_lg2(arena);
}

/* Segment s holds 2^(s + FIRST_SEGMENT_LG2) slots. */
static unsigned segment_of(uint64_t block, uint64_t *index)
{
	uint64_t n = block + (1ull << FIRST_SEGMENT_LG2);
	unsigned lg2 = 63 - (unsigned)__builtin_clzll(n);

	*index = n - (1ull << lg2);
	return lg2 - FIRST_SEGMENT_LG2;
}

static slot_t *slot_at(const struct arena *arena, uint64_t block)
{
	uint64_t index;
	unsigned s = segment_of(block, &index);
	slot_t *segment = atomic_load_explicit(&arena->segment[s], memory_order_acquire);

	return segment ? segment + index : NULL;
}

/* Lock held. Makes sure that the slot of a block is there. */
static int need_slot(struct arena *arena, uint64_t block)
{
	uint64_t index;
	unsigned s = segment_of(block, &index);
	slot_t *segment;

	if (atomic_load_explicit(&arena->segment[s], memory_order_relaxed))
		return 0;
	segment = swi_zalloc(sizeof(*segment) << (s + FIRST_SEGMENT_LG2));
	if (!segment)
		return -ENOMEM;
	atomic_store_explicit(&arena->segment[s], segment, memory_order_release);
	return 0;
}

/* Lock held. -ENOSPC: all are taken. */
static int take_block(struct phys_space *space, unsigned a, struct backing *b, uint64_t *out)
{
	struct arena *arena = &space->arena[a];
	uint64_t block;
	slot_t *slot;

	if (arena->free) {
		block = arena->free - 1;
		slot = slot_at(arena, block);
		arena->free = atomic_load_explicit(slot, memory_order_relaxed) >> 1;
	} else {
		block = arena->used;
		if (block >= 1ull << (ARENA_LG2 - block_lg2(a)))
			return -ENOSPC;
		if (need_slot(arena, block))
			return -ENOMEM;
		slot = slot_at(arena, block);
		arena->used++;
	}
	atomic_store_explicit(slot, (uintptr_t)b, memory_order_release);
	*out = block;
	return 0;
}

/* ---- ranges ------------------------------------------------------------------------------------- */

/* The smallest number whose power of two is not less than n. */
static unsigned lg2_up(uint64_t n)
{
	return n > 1 ? 64 - (unsigned)__builtin_clzll(n - 1) : 0;
}

int phys_take(struct phys_space *space, struct backing *b, uint64_t addr, uint64_t length,
	      phys_t *pa)
{
	unsigned align = SWI_MIN(lg2_up(length), ALIGN_LG2_MAX);
	uint64_t offset = addr & ((1ull << align) - 1), end, block = 0;
	unsigned a, lg2;
	int rc = -ENOSPC;

	if (__builtin_add_overflow(offset, length, &end) || end > 1ull << BLOCK_LG2_MAX)
		return -ENOMEM;
	lg2 = SWI_MAX(lg2_up(end), (unsigned)BLOCK_LG2_MIN);
	pthread_mutex_lock(&space->lock);
	/* When they are all taken, a larger one does as well. */
	for (a = lg2 - BLOCK_LG2_MIN; rc == -ENOSPC && a < ARENAS; a++) {
		rc = take_block(space, a, b, &block);
		if (!rc)
			*pa = block_pa(a, block) + offset;
	}
	pthread_mutex_unlock(&space->lock);
	return rc ? -ENOMEM : 0;
}

void phys_give(struct phys_space *space, phys_t pa)
{
	struct arena *arena = &space->arena[arena_of(pa)];
	uint64_t block = block_of(pa);

	pthread_mutex_lock(&space->lock);
	atomic_store_explicit(slot_at(arena, block), arena->free << 1 | 1, memory_order_relaxed);
	arena->free = block + 1;
	pthread_mutex_unlock(&space->lock);
}

struct backing *phys_find(const struct phys_space *space, phys_t pa)
{
	uintptr_t found;
	slot_t *slot;

	if (pa < PHYS_FIRST || arena_of(pa) >= ARENAS)
		return NULL;
	slot = slot_at(&space->arena[arena_of(pa)], block_of(pa));
	if (!slot)
		return NULL;
	found = atomic_load_explicit(slot, memory_order_acquire);
	return found & 1 ? NULL : (struct backing *)found;
}
