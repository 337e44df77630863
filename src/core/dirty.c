// SPDX-License-Identifier: MIT
/*
 * Dirty bits: where they are kept, which page-table entry a write goes through, and marking. Reading and
 * clearing, with the ioctls, are in dirty_read.c; why no write is lost is in dirty.h.
 *
 * The bits of an area live in one block, which is counted because a split leaves two areas with one block: each
 * half has a view of its own, which counts bits from the beginning of the block, so that nothing has to be
 * copied under writers. The first view of a block is part of it.
 */
#include "core/dirty.h"

#include <errno.h>

#include "base/alloc.h"

#define HUGE_SHIFT 21

struct dirty_bits {
	atomic_uint refs; /* views */
	struct dirty_view first;
	_Atomic(uint64_t) bits[]; /* the summary, then the words */
};

/* ---- the page table ------------------------------------------------------------------------------ */

/*
 * How much memory at a time is one piece to the IOMMU: a page of the memory behind the area, or what OPTION
 * HUGE_PAGES allows of it. The area is pinned.
 */
static uint64_t contiguous_bytes(const struct ioas *ioas, const struct iova_area *area)
{
	uint64_t page = backing_page_of(area->backing, area->offset), last;
	struct page_key key;

	if (!ioas->huge_pages)
		return SWI_PAGE_SIZE;
	last = backing_page_of(area->backing, area->offset + (area->last - area->iova));
	/* Mixed memory counts as small pages. */
	for (;; page = SWI_MIN(page + (1u << (HUGE_SHIFT - SWI_PAGE_SHIFT)), last)) {
		if (backing_page_key(area->backing, page, &key) || !key.huge)
			return SWI_PAGE_SIZE;
		if (page == last)
			return 1ull << HUGE_SHIFT;
	}
}

/* The sizes of entries that the HWPT's page table can have in the area: at most that, and where memory is aligned as IOVA is. */
static uint64_t leaf_sizes(const struct hwpt *hwpt, const struct iova_area *area)
{
	uint64_t sizes = hwpt->table.pgsize_bitmap, smallest = sizes & -sizes;
	uint64_t differ = (backing_addr(area->backing) + area->offset) ^ area->iova;
	uint64_t limit = contiguous_bytes(hwpt->ioas, area);

	/* Of a difference in bit n, sizes above 2^n are out. */
	if (differ & (limit - 1))
		limit = differ & -differ;
	return (sizes & (limit | (limit - 1))) | smallest;
}

/*
 * The entry of the page table that maps `iova`. Page tables are filled with the largest entries that fit in memory that
 * is contiguous, which are aligned blocks within the area; so that is what is computed. A HWPT with a page table in
 * memory would be asked instead.
 */
static void find_leaf(const struct dirty_view *v, iova_t iova, iova_t *first, iova_t *last)
{
	uint64_t left = v->leaf_sizes, size;

	do {
		size = 1ull << (63 - __builtin_clzll(left));
		left &= ~size;
		*first = iova & -size;
		*last = *first + (size - 1);
	} while (left && (*first < v->base || *last > v->last));
}

/* ---- marking ------------------------------------------------------------------------------------- */

static void mark_word(struct dirty_view *v, uint64_t w, uint64_t mask)
{
	_Atomic(uint64_t) *word = &v->words[w], *summary = &v->summary[w / 64];
	uint64_t bit = 1ull << w % 64;

	if ((atomic_load(word) & mask) != mask)
		atomic_fetch_or(word, mask);
	if (!(atomic_load(summary) & bit))
		atomic_fetch_or(summary, bit);
}

void dirty_mark_view(struct dirty_view *v, iova_t first, iova_t last)
{
	uint64_t s, e, w;
	iova_t other;

	/* A single size is that of a bit. */
	if (v->leaf_sizes & (v->leaf_sizes - 1)) {
		find_leaf(v, last, &other, &last);
		find_leaf(v, first, &first, &other);
	}
	s = (first - v->base) >> v->shift;
	e = (last - v->base) >> v->shift;
	for (w = s / 64; w <= e / 64; w++) {
		uint64_t mask = ~0ull;

		if (w == s / 64)
			mask &= ~0ull << s % 64;
		if (w == e / 64)
			mask &= ~0ull >> (63 - e % 64);
		mark_word(v, w, mask);
	}
}

/* ---- views --------------------------------------------------------------------------------------- */

static void put_view(struct dirty_view *v)
{
	struct dirty_bits *bits = v->bits;

	if (v != &bits->first)
		swi_free(v);
	if (atomic_fetch_sub(&bits->refs, 1) == 1)
		swi_free(bits);
}

/* Not linked to the area yet. NULL: no memory. */
static struct dirty_view *make_view(const struct hwpt *hwpt, const struct iova_area *area)
{
	unsigned int shift = __builtin_ctzll(hwpt->table.pgsize_bitmap);
	uint64_t words = ((area->last - area->iova) >> shift) / 64 + 1;
	uint64_t summary = (words + 63) / 64;
	struct dirty_bits *bits;
	struct dirty_view *v;

	bits = swi_zalloc(sizeof(*bits) + (words + summary) * sizeof(bits->bits[0]));
	if (!bits)
		return NULL;
	v = &bits->first;
	bits->refs = 1;
	v->hwpt = hwpt;
	v->base = area->iova;
	v->last = area->last;
	v->shift = shift;
	v->leaf_sizes = leaf_sizes(hwpt, area);
	v->summary = bits->bits;
	v->words = bits->bits + summary;
	v->bits = bits;
	return v;
}

static void link_view(struct iova_area *area, struct dirty_view *v)
{
	v->next = atomic_load_explicit(&area->dirty, memory_order_relaxed);
	atomic_store_explicit(&area->dirty, v, memory_order_release);
}

void dirty_area_fini(struct iova_area *area)
{
	struct dirty_view *v = area->dirty, *next;

	for (; v; v = next) {
		next = v->next;
		put_view(v);
	}
	area->dirty = NULL;
}

int dirty_area_init(struct ioas *ioas, struct iova_area *area)
{
	struct dirty_view *v;
	struct list *pos;

	list_for_each (pos, &ioas->trackers) {
		v = make_view(list_entry(pos, struct hwpt, tracker), area);
		if (!v) {
			dirty_area_fini(area);
			return -ENOMEM;
		}
		link_view(area, v);
	}
	return 0;
}

int dirty_area_split(struct iova_area *area, struct iova_area *right)
{
	struct dirty_view *v, *copy;

	for (v = area->dirty; v; v = v->next) {
		copy = swi_new(struct dirty_view);
		if (!copy) {
			dirty_area_fini(right);
			return -ENOMEM;
		}
		copy->hwpt = v->hwpt;
		copy->base = v->base;
		copy->last = v->last;
		copy->shift = v->shift;
		copy->leaf_sizes = v->leaf_sizes;
		copy->summary = v->summary;
		copy->words = v->words;
		copy->bits = v->bits;
		atomic_fetch_add(&v->bits->refs, 1);
		link_view(right, copy);
	}
	return 0;
}

/* ---- HWPTs --------------------------------------------------------------------------------------- */

int dirty_check_attach(const struct device *dev, const struct hwpt *hwpt, struct swi_reason *why)
{
	if (!hwpt->tracks_dirty || dev->dirty_tracking)
		return 0;
	return swi_fail(why, -EINVAL, "HWPT %u tracks dirty pages, which the IOMMU of %s cannot",
			hwpt->obj.id, dev->name);
}

/* Takes the view out of the area's list. Map locked. */
static struct dirty_view *unlink_view_locked(struct iova_area *area, const struct hwpt *hwpt)
{
	_Atomic(struct dirty_view *) *at = &area->dirty;
	struct dirty_view *v;

	for (; (v = *at); at = &v->next) {
		if (v->hwpt != hwpt)
			continue;
		/* A reader that is at v goes on from there. */
		*at = v->next;
		break;
	}
	return v;
}

#define DROP_BATCH 64u

/* Takes the views of a HWPT away from all areas below `end` (NULL: all). Domains lock exclusive. */
static void drop_views(struct hwpt *hwpt, struct iova_area *end)
{
	struct iova_map *map = hwpt->ioas->map;
	struct dirty_view *batch[DROP_BATCH];
	struct iova_area *area;
	size_t n;

	iova_map_lock(map);
	for (area = iova_map_first(map, 0); area != end;) {
		for (n = 0; n < DROP_BATCH && area != end; area = iova_area_next(area)) {
			batch[n] = unlink_view_locked(area, hwpt);
			n += !!batch[n];
		}
		iova_map_unlock(map);
		/* Devices on other HWPTs of the IOAS pass by here. */
		iova_map_sync(map);
		while (n)
			put_view(batch[--n]);
		iova_map_lock(map);
	}
	iova_map_unlock(map);
}

int dirty_hwpt_add(struct hwpt *hwpt)
{
	struct ioas *ioas = hwpt->ioas;
	struct iova_area *area;
	struct dirty_view *v;
	int rc = 0;

	if (!hwpt->tracks_dirty)
		return 0;
	pthread_rwlock_wrlock(&ioas->domains);
	/* The tree cannot change meanwhile: its lock is taken to step, and to link. */
	iova_map_lock(ioas->map);
	area = iova_map_first(ioas->map, 0);
	while (area) {
		iova_map_unlock(ioas->map);
		v = make_view(hwpt, area);
		if (!v) {
			drop_views(hwpt, area);
			rc = -ENOMEM;
			goto out;
		}
		iova_map_lock(ioas->map);
		link_view(area, v);
		area = iova_area_next(area);
	}
	iova_map_unlock(ioas->map);
	list_add_tail(&ioas->trackers, &hwpt->tracker);
	hwpt->tracked = true;
out:
	pthread_rwlock_unlock(&ioas->domains);
	return rc;
}

void dirty_hwpt_remove(struct hwpt *hwpt)
{
	if (!hwpt->tracked)
		return;
	pthread_rwlock_wrlock(&hwpt->ioas->domains);
	list_del(&hwpt->tracker);
	hwpt->tracked = false;
	drop_views(hwpt, NULL);
	pthread_rwlock_unlock(&hwpt->ioas->domains);
}
