/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_IOVA_RADIX_H
#define SWIOMMU_IOVA_RADIX_H

/*
 * The radix table over IOVA; the essay is in radix.c. Everything but radix_lookup() needs the map's
 * lock.
 */

#include <stdatomic.h>
#include "base/base.h"

struct iova_area;
struct iova_map;

/* Levels of tables by what one of their slots covers. */
enum {
	RADIX_BYTE = 0, /* a byte: 64 slots */
	RADIX_LINE = 1, /* 64 bytes: 64 slots */
	RADIX_PAGE = 2, /* 4 KiB: 512 slots; from here on 9 bits each: 2 MiB, 1 GiB, 512 GiB, ... */
	RADIX_TOP = 7,	/* 2^57 bytes */
};

/*
 * A word in a slot or at the root: 0; an area that holds the whole slot; an area that is alone in a
 * page but does not fill it; or the table of the next level, with its level in bits 2 to 4.
 */
enum { RADIX_FULL = 0, RADIX_TABLE = 1, RADIX_PART = 2, RADIX_TAG = 3 };

struct radix_table {
	unsigned used;		  /* taken slots and tables below; map lock */
	uint8_t level;		  /* immutable while linked */
	struct radix_table *next; /* in the pool; map lock */
	uint64_t generation;	  /* the map's when it was retired; map lock */
	_Alignas(SWI_CACHELINE) _Atomic(uintptr_t) slot[];
};

/* Tables out of use: spare ones are all zero; retired ones may still have readers in them. */
struct radix_pool {
	struct radix_table *spare[2]; /* small, large */
	unsigned nspare[2];
	struct radix_table *retired, *retired_end; /* first in, first out */
	_Atomic(unsigned) nretired;		   /* written under the map's lock */
	/* No reader is left that could have found what was retired at an earlier generation. */
	_Atomic(uint64_t) safe;
};

/* A taken range; `shown` is what readers find there: its area, or NULL. */
struct iova_span {
	iova_t first, last;
	struct iova_area *shown;
};

/*
 * Takes [first, last] without showing it: afterwards radix_show() needs no memory. `prev` and
 * `next` are the neighbours (NULL: none), of interest where they touch the same page. -ENOMEM,
 * nothing changed.
 */
int radix_take(struct iova_map *map, iova_t first, iova_t last, const struct iova_span *prev,
	       const struct iova_span *next);
/* Lets readers find `area` (NULL: nothing) in [first, last], which is a taken span or was cut so.
 */
void radix_show(struct iova_map *map, iova_t first, iova_t last, struct iova_area *area);
/* Gives back a taken span that shows nothing. */
void radix_drop(struct iova_map *map, iova_t first, iova_t last);
/*
 * Makes two spans of one, [first, at] and [at + 1, last], both showing what it shows. -ENOMEM,
 * nothing changed.
 */
int radix_cut(struct iova_map *map, const struct iova_span *span, iova_t at);

/*
 * For readers: the area shown at `iova`, or NULL, and the range around iova of which that is known
 * without asking again. `page` tells whether this range holds the whole page of iova.
 */
struct iova_area *radix_lookup(const struct iova_map *map, iova_t iova, iova_t *first, iova_t *last,
			       bool *page);

/*
 * Sync's part, without the map's lock: the readers that were inside when the generation was
 * `generation` have left.
 */
void radix_readers_left(struct iova_map *map, uint64_t generation);
/* Frees all. No area is left and no reader. */
void radix_destroy(struct iova_map *map);

static inline unsigned radix_shift(unsigned level)
{
	return level >= RADIX_PAGE ? SWI_PAGE_SHIFT + 9 * (level - RADIX_PAGE) : 6 * level;
}

static inline unsigned radix_slots(unsigned level)
{
	return level >= RADIX_PAGE ? 512 : 64;
}

static inline unsigned radix_index(unsigned level, iova_t iova)
{
	return (iova >> radix_shift(level)) & (radix_slots(level) - 1);
}

static inline struct radix_table *radix_table_of(uintptr_t word)
{
	if ((word & RADIX_TAG) != RADIX_TABLE)
		return NULL;
	return (struct radix_table *)(word & ~(uintptr_t)(SWI_CACHELINE - 1));
}

static inline uintptr_t radix_word_of(const struct radix_table *table)
{
	return (uintptr_t)table | (uintptr_t)table->level << 2 | RADIX_TABLE;
}

#endif
