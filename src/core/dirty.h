/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_DIRTY_H
#define SWIOMMU_CORE_DIRTY_H

/*
 * Dirty tracking: which memory devices wrote through one HWPT (spec devices.md 3).
 *
 * Every area of an IOAS has, for each HWPT that can track, a struct dirty_view: a bit for each smallest page, and
 * a summary with a bit for each word of those. A write marks all bits of the page-table entries that it goes through,
 * so that a reader sees entries dirty as a whole, and yet can be told about, and clean, a part of one.
 *
 * Rules that make it lossless without a lock on the writers' side (all accesses sequentially consistent):
 *  - a marker sets bits, then their summary bit; it may leave out what it sees set, but a bit alone is not
 *    enough, since whoever set it may not have reached the summary yet;
 *  - a reader that clears takes the summary bit away first, then looks at the word. Readers hold the map's lock;
 *  - a marker is inside a read section of the map (a DMA), and a reader that cleared something waits for the open
 *    ones before it returns. So what was written by a marker that relied on an old bit is in memory by then, and
 *    whoever copies the memory afterwards has it.
 *
 * Views appear when the HWPT is populated or the area is mapped, and go with either, after readers of the map were
 * waited for. Marking, reading and clearing need no memory.
 */

#include <stdatomic.h>

#include "core/hwpt.h"
#include "iova/map.h"

struct dirty_bits;

/* One HWPT's dirty bits of one area. Immutable but for `next`, which is written under the map's lock. */
struct dirty_view {
	_Atomic(struct dirty_view *) next; /* of the same area, of another HWPT */
	const struct hwpt *hwpt;
	iova_t base, last;	    /* what the bits are about; a split area has a part of that */
	unsigned int shift;	    /* bytes a bit: 1 << shift */
	uint64_t leaf_sizes;	    /* sizes that entries of the page table can have here */
	_Atomic(uint64_t) *words;   /* a bit per smallest page */
	_Atomic(uint64_t) *summary; /* a bit per word */
	struct dirty_bits *bits;    /* counted; where the two are */
};

/* What device_attach and _replace must know: -EINVAL if the HWPT tracks and the device's IOMMU cannot. */
int dirty_check_attach(const struct device *dev, const struct hwpt *hwpt, struct swi_reason *why);

/*
 * Makes the HWPT, if it tracks, one whose areas have views; from then on new areas get them. Takes the domains lock.
 * -ENOMEM: nothing changed.
 */
int dirty_hwpt_add(struct hwpt *hwpt);
/* Undoes it, if it was done. No device uses the HWPT any more. Takes the domains lock. */
void dirty_hwpt_remove(struct hwpt *hwpt);

/* Views for a new area, unpublished but pinned. Domains lock held. -ENOMEM: nothing changed. */
int dirty_area_init(struct ioas *ioas, struct iova_area *area);
/* Gives `right`, with which `area` is about to be split, the same bits. Map locked. -ENOMEM: nothing changed. */
int dirty_area_split(struct iova_area *area, struct iova_area *right);
/* The area is in no map, and readers have left. Never fails. */
void dirty_area_fini(struct iova_area *area);

/* The view of an HWPT, NULL if there is none. Inside a read section, or map locked. */
static inline struct dirty_view *dirty_view_of(const struct iova_area *area,
					       const struct hwpt *hwpt)
{
	struct dirty_view *v = atomic_load_explicit(&area->dirty, memory_order_acquire);

	while (v && v->hwpt != hwpt)
		v = atomic_load_explicit(&v->next, memory_order_acquire);
	return v;
}

/* The part of dirty_mark() that is not inlined. */
void dirty_mark_view(struct dirty_view *v, iova_t first, iova_t last);

/* The device wrote, or is about to write, [first, last] of the area. Inside a read section, or map locked. */
static inline void dirty_mark(const struct iova_area *area, const struct hwpt *hwpt, iova_t first,
			      iova_t last)
{
	struct dirty_view *v = dirty_view_of(area, hwpt);
	uint64_t slot;

	if (!v)
		return;
	slot = (first - v->base) >> v->shift;
	if (SWI_LIKELY(slot == (last - v->base) >> v->shift) &&
	    atomic_load(&v->words[slot / 64]) >> slot % 64 & 1 &&
	    atomic_load(&v->summary[slot / 4096]) >> slot / 64 % 64 & 1)
		return;
	dirty_mark_view(v, first, last);
}

#endif
