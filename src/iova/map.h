/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_IOVA_MAP_H
#define SWIOMMU_IOVA_MAP_H

/*
 * The IOVA map: which IOVAs of one address space (an IOAS) mean which memory.
 *
 * Two structures hold the same areas:
 *  - an ordered tree with the size of the gaps between areas, for those who change the map: overlap
 *    tests, neighbours and automatic placement in O(log n). Guarded by the map's lock.
 *  - a radix table over IOVA, for those who translate: a few dependent loads, no lock.
 *
 * Life of an area (struct iova_area):
 *
 *   iova_map_insert   in the tree, busy: its range is taken, readers do not see it
 *   iova_map_publish  readers see it
 *   iova_map_retract  busy again; new lookups miss it, lookups in progress may still use it
 *   iova_map_sync     returns when every lookup that may still use it has ended
 *   iova_map_remove   out of the tree; the area is the caller's to free
 *
 * Nothing from retract to remove needs memory or can fail; what they need was set aside by insert.
 *
 * Readers. A struct iova_reader belongs to one thread at a time. Between iova_read_begin() and
 * iova_read_end() every area found stays valid, with the memory behind it: iova_map_sync() waits
 * for readers that were inside when it was called (and only for them). A reader announces itself by
 * an exchange on a cache line of its own and then looks; a writer takes the entry out, bumps the
 * generation and then looks at the announcements (both sequentially consistent), so one of the two
 * sees the other. The last translations are remembered in the reader, tagged with the map and its
 * generation.
 *
 * Locking: functions marked [W] need iova_map_lock(); everything else says what it needs.
 * iova_map_sync() must be called *without* the map's lock and never inside a read section.
 */

#include "base/base.h"
#include "base/list.h"
#include "base/rbtree.h"
#include "iova/reader.h"

struct backing;
struct iova_map;

/*
 * What walks down the tree reads of an area is in its first 64 bytes: aligned to a cache line, an
 * area costs one miss a level.
 */
struct iova_area {
	struct rb_node node; /* in the tree, by iova; map lock */
	iova_t iova;	     /* immutable while in the map */
	/*
	 * Last byte. Map lock to write. A split shortens it under readers, hence atomic; they take
	 * it from iova_translate_run(), not from here, where it may be below what they asked for by
	 * now.
	 */
	_Atomic(iova_t) last;
	uint64_t offset;	 /* byte of the backing that `iova` means; immutable */
	struct backing *backing; /* counted reference, held by the area's creator (core) */
	/*
	 * Address of the byte at `iova` in this process while the backing has a window, else NULL.
	 * Written by the creator (core) before publish or while published; loaded by readers.
	 */
	_Atomic(void *) host;
	uint64_t gap_before; /* free bytes between the previous area (or 0) and iova; map lock */
	uint64_t subtree_max_gap; /* largest gap_before in this subtree; map lock */
	uint8_t prot;		  /* SWI_READ | SWI_WRITE; immutable while published */
	_Atomic bool live;	  /* readers may use it: between publish and retract */
	bool busy;		  /* being set up or torn down by some call; map lock */
	/* Accesses refused until unmapped (core.md 4.4 rule 4). Map lock to write. */
	_Atomic bool blocked;
	unsigned pins; /* access pins, also those being made (core); map lock */
	unsigned
		locks; /* how many of them forbid unmapping (core.md 6.2, internal accesses); map lock */
};

/* ---- the map --------------------------------------------------------------------------------- */

/* An empty map over [0, IOVA_MAX]. -ENOMEM. */
int iova_map_create(struct iova_map **out);
/* The map must have no areas and no readers. NULL is allowed. */
void iova_map_destroy(struct iova_map *map);

void iova_map_lock(struct iova_map *map);
void iova_map_unlock(struct iova_map *map);

/*
 * [W] Inserts a zeroed area whose iova, last, offset, backing and prot are set, as busy. Does not
 * check reserved ranges. -EEXIST: meets an area (busy or not); -ENOMEM. On failure nothing changed.
 * Sets aside what publish will need, so that publish cannot fail.
 */
int iova_map_insert(struct iova_map *map, struct iova_area *area);
/* [W] Ends the busy state: readers see the area from now on. */
void iova_map_publish(struct iova_map *map, struct iova_area *area);
/* [W] Busy again; see above. Also right for an area that was never published. */
void iova_map_retract(struct iova_map *map, struct iova_area *area);
/*
 * [W] Makes readers forget what they remember, of areas or of whatever else they keep with the map's generation (see
 * reader.h), from their next section on. What they are not to find any more has been taken away before.
 */
void iova_map_flush(struct iova_map *map);
/* Waits for the readers that are inside now. Any number of threads may do so at a time. */
void iova_map_sync(struct iova_map *map);
/* [W] Takes a busy area out of the map. After retract, a sync must have come in between. */
void iova_map_remove(struct iova_map *map, struct iova_area *area);
/*
 * [W] Cuts a published or busy area after IOVA `at` (iova <= at < last): `area` keeps [iova, at]
 * and the caller's zeroed `right` takes [at+1, last] with the same backing (the caller adds its
 * reference), prot and state; readers see one or the other, never a hole. -ENOMEM, nothing changed.
 */
int iova_map_split(struct iova_map *map, struct iova_area *area, iova_t at,
		   struct iova_area *right);

/* [W] The first area whose last >= iova, in ascending order; NULL at the end. */
struct iova_area *iova_map_first(struct iova_map *map, iova_t iova);
/* [W] The area with the highest IOVA; NULL when there are none. */
struct iova_area *iova_map_last(struct iova_map *map);
/* [W] The next / previous area in the tree; NULL at the end. */
struct iova_area *iova_area_next(struct iova_area *area);
struct iova_area *iova_area_prev(struct iova_area *area);
/* [W] Number of areas, busy ones included. */
size_t iova_map_count(const struct iova_map *map);

#define iova_map_for_each(area, map) \
	for ((area) = iova_map_first(map, 0); (area); (area) = iova_area_next(area))

/* ---- reserved and allowed ranges (core.md 3.3 to 3.5) ---------------------------------------- */

struct iova_range {
	iova_t first, last;
};

/*
 * [W] Reserves [first, last] in the name of `owner` (an opaque, non-NULL cookie; ranges may
 * overlap). -EADDRINUSE: meets an area or an allowed range; -ENOMEM. On failure nothing changed.
 */
int iova_map_reserve(struct iova_map *map, iova_t first, iova_t last, const void *owner);
/* [W] Drops all ranges of that owner. */
void iova_map_unreserve(struct iova_map *map, const void *owner);
/* [W] Whether [first, last] meets a reserved range; `hit` (may be NULL) gets it. */
bool iova_map_is_reserved(struct iova_map *map, iova_t first, iova_t last, struct iova_range *hit);
/*
 * [W] The usable ranges, that is the gaps of the reserved set in [0, IOVA_MAX], ascending; the
 * first `max` are stored in `ranges`. Returns the total number.
 */
size_t iova_map_usable(struct iova_map *map, struct iova_range *ranges, size_t max);

/* A list of allowed ranges being built; not part of a map yet. Not thread safe. */
struct iova_allow_list;
int iova_allow_list_create(struct iova_allow_list **out);   /* -ENOMEM */
void iova_allow_list_destroy(struct iova_allow_list *list); /* NULL is allowed */
/* -EINVAL: first >= last or meets an earlier entry (adjacent is fine); -ENOMEM. O(log n). */
int iova_allow_list_add(struct iova_allow_list *list, iova_t first, iova_t last);
/*
 * [W] Makes `list` the map's allowed list (an empty one: no limit) and takes it over; the old one
 * is destroyed. -EADDRINUSE: an entry meets a reserved range; then the list stays the caller's.
 */
int iova_map_set_allowed(struct iova_map *map, struct iova_allow_list *list);

/*
 * [W] Automatic placement, core.md 3.6 steps 2 to 6 exactly: the lowest IOVA for `length` bytes
 * whose memory begins at address `addr`, in a map with alignment `align`. -EOVERFLOW (step 1),
 * -EINVAL (step 3), -ENOSPC. O(log n) in the number of areas, save where many gaps are long enough
 * but wrongly aligned.
 */
int iova_map_find(struct iova_map *map, uint64_t length, uint64_t addr, uint64_t align,
		  iova_t *out);

/* ---- readers --------------------------------------------------------------------------------- */

/*
 * iova_translate(), and in `last` (>= iova) how far the area goes on from there, from one and the
 * same state of the area. This is the function for a DMA that touches more than one byte.
 */
static inline struct iova_area *iova_translate_run(struct iova_reader *reader,
						   const struct iova_map *map, iova_t iova,
						   iova_t *last)
{
	struct iova_area *area;

	do {
		area = iova_translate(reader, map, iova);
		if (!area)
			return NULL;
		*last = atomic_load_explicit(&area->last, memory_order_acquire);
		/* Too short: split between the two loads, and then the next look finds the right
		 * half. */
	} while (SWI_UNLIKELY(*last < iova));
	return area;
}

#endif
