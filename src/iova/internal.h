/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_IOVA_INTERNAL_H
#define SWIOMMU_IOVA_INTERNAL_H

/* What the files of src/iova share and nobody else sees (save the tests of this folder). */

#include <pthread.h>
#include "iova/map.h"
#include "iova/radix.h"

struct iova_map {
	/* Written by writers only when areas go; on a line of its own because every reader loads
	 * it. */
	_Alignas(SWI_CACHELINE) struct iova_map_view view;

	/* Guards everything up to the readers. */
	_Alignas(SWI_CACHELINE) pthread_mutex_t lock;
	struct rb_tree areas; /* struct iova_area by iova */
	size_t count;
	struct radix_pool pool;
	struct rb_tree reserved; /* struct reserved (ranges.c) by first, may overlap; owned */
	struct iova_allow_list *allowed; /* owned; NULL = no limit */

	/* Registered readers. Taken inside `lock` or alone; held for moments only. */
	_Alignas(SWI_CACHELINE) pthread_mutex_t readers_lock;
	struct list readers; /* struct registration, in the order of their numbers */
	uint64_t next_number;
	_Atomic(unsigned) nreaders;
};

/* map.c */

static inline iova_t area_last(const struct iova_area *area)
{
	return atomic_load_explicit(&area->last, memory_order_relaxed);
}

static inline struct iova_area *area_of(const struct rb_node *node)
{
	return container_of(node, struct iova_area, node);
}

/* [W] The next area above `area` whose gap_before is at least `size`; NULL if none. O(log n). */
struct iova_area *area_next_gap(struct iova_area *area, uint64_t size);

/* reader.c */

/* That a reader is in a map; made by attach, freed by detach. */
struct registration {
	struct list node; /* in map->readers; readers_lock */
	struct iova_reader *reader;
	uint64_t number;	   /* ascending in the list */
	_Atomic(unsigned) watched; /* waits that look at reader->state; raised under readers_lock */
};

static inline uint64_t map_generation(const struct iova_map *map)
{
	return atomic_load_explicit(&map->view.generation, memory_order_seq_cst);
}

/*
 * [W] Counts the generation up, to what is returned: cached translations are void, and readers that
 * load it see what was stored before.
 */
uint64_t map_count_up(struct iova_map *map);
/* After map_count_up(): whether no reader is inside, so that none can hold what was unlinked. */
bool map_readers_outside(struct iova_map *map);

/* ranges.c */

/*
 * [W] The first part of [first, last] that no reserved range meets and that is not preceded by such
 * a part; false when there is none. O(log n) for each reserved range passed.
 */
bool ranges_next_free(struct iova_map *map, iova_t first, iova_t last, struct iova_range *out);

/*
 * The first allowed range whose last >= first, and the one after a given one, as stored (not
 * merged); an absent or empty list has none.
 */
struct iova_allowed;
struct iova_allowed *allowed_from(const struct iova_allow_list *list, iova_t first);
struct iova_allowed *allowed_next(const struct iova_allowed *allowed);
struct iova_range allowed_range(const struct iova_allowed *allowed);
bool allowed_none(const struct iova_allow_list *list);

/* An empty set and no list / frees both. */
void ranges_init(struct iova_map *map);
void ranges_destroy(struct iova_map *map);

#endif
