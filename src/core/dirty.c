// SPDX-License-Identifier: MIT
/*
 * Reading and clearing dirty bits: HWPT_SET_DIRTY_TRACKING and HWPT_GET_DIRTY_BITMAP (spec devices.md 3). What both
 * ask of a device at its attach is here as well.
 *
 * GET goes from mapping to mapping, in turns: under the map's lock, which keeps tables from changing under areas that
 * are not busy, it moves what is dirty into a window of the bitmap kept here, until that is full; without locks it then
 * ORs the window into the caller's memory, which may block. A window begins where something is dirty, so that their
 * number follows what is dirty, not the range. A leaf is taken as a whole: what of it lies beyond the window is the
 * `rest`, for the next one.
 *
 * What was cleared but cannot be told, since the caller's memory is bad, is lost; so it is on Linux.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "core/call.h"
#include "core/dirty.h"

#define WINDOW_WORDS 2048ull /* of a window at best */
#define SPARE_WORDS 256ull   /* when there is no memory */
#define AREAS_AT_A_TIME 256  /* for which the map's lock is held */

struct report {
	struct swiommu_caller *caller; /* NULL: nobody wants to know, the bits are only cleared */
	uint64_t uptr;
	iova_t first, last; /* what is asked for */
	unsigned int shift; /* of the bytes that a bit of the bitmap stands for */
	bool clear;
	bool cleared;		      /* something was */
	struct pgtable_gather gather; /* whether leaves were split */
	/*
	 * The window: `words` words from bit `base` of the bitmap on, of which bits low .. high have been touched, and
	 * room for the caller's bits of the same place. Allocated when something is dirty, or else the spare one.
	 */
	bool open;
	uint64_t base, low, high;
	uint64_t words, *window, *theirs;
	/* Taken already, and to be told with windows of its own. */
	bool has_rest;
	iova_t rest, rest_last;
	uint64_t spare[2 * SPARE_WORDS]; /* not initialised */
};

/* ---- the window ---------------------------------------------------------------------------------- */

/* All but the spare room, which is large. */
static void report_init(struct report *r, struct swiommu_caller *caller, uint64_t uptr,
			unsigned int shift, bool clear)
{
	r->caller = caller;
	r->uptr = uptr;
	r->shift = shift;
	r->clear = clear;
	r->cleared = false;
	pgtable_gather_init(&r->gather);
	r->open = false;
	r->window = NULL;
	r->has_rest = false;
}

/* The last IOVA that the open window has room for. */
static iova_t window_end(const struct report *r)
{
	uint64_t highest = (r->last - r->first) >> r->shift;

	if (highest - r->base < r->words * 64)
		return r->last;
	return r->first + (((r->base + r->words * 64) << r->shift) - 1);
}

/* Never fails, so that nobody has to give bits back. */
static void window_alloc(struct report *r)
{
	r->words = WINDOW_WORDS;
	r->window = swi_alloc(2 * WINDOW_WORDS * sizeof(r->window[0]));
	if (!r->window) {
		r->words = SPARE_WORDS;
		r->window = r->spare;
	}
	r->theirs = r->window + r->words;
}

static void window_free(struct report *r)
{
	if (r->window != r->spare)
		swi_free(r->window);
}

/* Opens it, if it is not, where the bit of `iova` is. */
static void window_open(struct report *r, iova_t iova)
{
	if (r->open)
		return;
	if (!r->window)
		window_alloc(r);
	r->open = true;
	r->base = (iova - r->first) >> r->shift & ~63ull;
	r->low = UINT64_MAX;
	r->high = 0;
	memset(r->window, 0, r->words * sizeof(r->window[0]));
}

static void touch(struct report *r, uint64_t low, uint64_t high)
{
	r->low = SWI_MIN(r->low, low);
	r->high = SWI_MAX(r->high, high);
}

/* Sets the bits of [first, last]. */
static void window_set(struct report *r, iova_t first, iova_t last)
{
	uint64_t low = ((first - r->first) >> r->shift) - r->base;
	uint64_t high = ((last - r->first) >> r->shift) - r->base;
	uint64_t head = ~0ull << low % 64, tail = ~0ull >> (63 - high % 64);

	touch(r, low, high);
	if (low / 64 == high / 64) {
		r->window[low / 64] |= head & tail;
		return;
	}
	r->window[low / 64] |= head;
	for (uint64_t w = low / 64 + 1; w < high / 64; w++)
		r->window[w] = ~0ull;
	r->window[high / 64] |= tail;
}

/* ORs part of the window, bytes from .. to, into the caller's memory. */
static int merge(struct report *r, uint64_t uptr, size_t from, size_t to)
{
	/* Theirs at the same place in a word as mine, so that words can be taken together. */
	unsigned char *theirs = (unsigned char *)r->theirs + from % 8;
	size_t n = to - from + 1, first = from / 8, last = to / 8;
	int rc;

	r->theirs[0] = r->theirs[last - first] = 0;
	rc = r->caller->ops->copy_in(r->caller, theirs, uptr, n);
	if (rc)
		return rc;
	for (size_t w = first; w <= last; w++)
		r->theirs[w - first] |= r->window[w];
	return r->caller->ops->copy_out(r->caller, uptr, theirs, n);
}

/* Hands the window over. What the caller's memory does not take is left out, by the page. Without locks. */
static void window_flush(struct report *r)
{
	size_t from, to, last;
	uint64_t uptr, end;

	if (!r->open)
		return;
	r->open = false;
	from = r->low / 8;
	last = r->high / 8;
	if (__builtin_add_overflow(r->uptr, r->base / 8 + from, &uptr) ||
	    __builtin_add_overflow(uptr, last - from, &end))
		return;
	if (!merge(r, uptr, from, last))
		return;
	for (; from <= last; uptr += to + 1 - from, from = to + 1) {
		to = SWI_MIN(last, from + (SWI_PAGE_SIZE - 1 - uptr % SWI_PAGE_SIZE));
		merge(r, uptr, from, to);
	}
}

/* Hands over what did not fit into a window, after the one that is open. Without locks. */
static void flush_rest(struct report *r)
{
	iova_t end;

	window_flush(r);
	while (r->has_rest) {
		window_open(r, r->rest);
		end = SWI_MIN(r->rest_last, window_end(r));
		window_set(r, r->rest, end);
		window_flush(r);
		r->has_rest = end != r->rest_last;
		r->rest = end + 1;
	}
}

/* ---- one mapping --------------------------------------------------------------------------------- */

/* [iova, iova + length) is dirty; it begins in the window. */
static void record(void *data, iova_t iova, uint64_t length)
{
	iova_t last = iova + (length - 1), end;
	struct report *r = data;

	r->cleared |= r->clear;
	end = window_end(r);
	if (last > end) {
		r->has_rest = true;
		r->rest = end + 1;
		r->rest_last = last;
		last = end;
	}
	window_set(r, iova, last);
}

/* The last IOVA of the leaf at `iova`, or `iova`. */
static iova_t leaf_end(struct pgtable *pt, iova_t iova)
{
	struct pgtable_leaf leaf;

	return pgtable_lookup(pt, iova, &leaf) ? leaf.iova + (leaf.length - 1) : iova;
}

/* The part [*at, end] of an area. False: the window is full, and *at is where to go on. Map locked. */
static bool scan_area(struct report *r, const struct hwpt *hwpt, iova_t *at, iova_t end)
{
	unsigned flags = r->clear ? 0 : PGTABLE_NO_CLEAR;
	struct pgtable *pt = hwpt->tables.table;
	iova_t stop;

	if (!r->caller) {
		pgtable_read_dirty(pt, *at, end - *at + 1, flags, NULL, NULL, NULL);
		return true;
	}
	if (!pgtable_next_dirty(pt, *at, end, at))
		return true;
	window_open(r, *at);
	stop = window_end(r);
	if (*at > stop)
		return false;
	/* Part of a leaf could be told, but not cleaned. */
	stop = stop < end ? SWI_MIN(end, leaf_end(pt, stop)) : end;
	pgtable_read_dirty(pt, *at, stop - *at + 1, flags, record, r, &r->gather);
	*at = stop + 1;
	return stop == end;
}

/* ---- all mappings -------------------------------------------------------------------------------- */

enum progress { AT_END, WINDOW_FULL, GO_ON };

/* From *at on, as far as memory is mapped without a gap. Map locked. */
static enum progress scan_run_locked(struct report *r, struct hwpt *hwpt, iova_t *at)
{
	struct iova_area *area;
	iova_t end;

	/* Mostly there is nothing at all, and no need to know where mappings end. */
	if (!pgtable_next_dirty(hwpt->tables.table, *at, r->last, &end))
		return AT_END;
	area = iova_map_first(hwpt->ioas->map, *at);
	for (unsigned int n = 0; n < AREAS_AT_A_TIME; n++, area = iova_area_next(area)) {
		if (!area || area->iova > *at || area->busy)
			return AT_END;
		end = SWI_MIN(area->last, r->last);
		if (!scan_area(r, hwpt, at, end))
			return WINDOW_FULL;
		if (end == r->last)
			return AT_END;
		*at = end + 1;
		if (r->has_rest)
			return WINDOW_FULL;
	}
	return GO_ON;
}

static void read_dirty(struct report *r, struct hwpt *hwpt)
{
	struct iova_map *map = hwpt->ioas->map;
	enum progress progress;
	iova_t at = r->first;

	do {
		iova_map_lock(map);
		progress = scan_run_locked(r, hwpt, &at);
		iova_map_unlock(map);
		if (progress != GO_ON)
			flush_rest(r);
	} while (progress != AT_END);
	if (r->gather.split) {
		iova_map_lock(map);
		iova_map_flush(map);
		iova_map_unlock(map);
	}
	/* What was written because a bit was set before, is in memory when we return. */
	if (r->cleared)
		iova_map_sync(map);
}

/* All areas, whatever is between them. */
static void forget_dirty(struct hwpt *hwpt)
{
	struct iova_map *map = hwpt->ioas->map;
	struct iova_area *area;
	iova_t at = 0, from;
	struct report r;

	report_init(&r, NULL, 0, 0, true);

	do {
		iova_map_lock(map);
		area = iova_map_first(map, at);
		for (unsigned int n = 0; area && n < AREAS_AT_A_TIME;
		     n++, area = iova_area_next(area)) {
			from = area->iova;
			if (!area->busy)
				scan_area(&r, hwpt, &from, area->last);
			at = area->last + 1;
		}
		iova_map_unlock(map);
	} while (area && at);
}

/* ---- attaching ----------------------------------------------------------------------------------- */

int dirty_check_attach(const struct device *dev, const struct hwpt *hwpt, struct swi_reason *why)
{
	if (!hwpt->tracks_dirty || dev->dirty_tracking)
		return 0;
	return swi_fail(why, -EINVAL, "HWPT %u tracks dirty pages, which the IOMMU of %s cannot",
			hwpt->obj.id, dev->name);
}

/* ---- ioctls -------------------------------------------------------------------------------------- */

static int check_tracks(struct call *call, const struct hwpt *hwpt)
{
	if (hwpt->tracks_dirty)
		return 0;
	return swi_fail(call->why, -EOPNOTSUPP,
			"HWPT %u was not made with IOMMU_HWPT_ALLOC_DIRTY_TRACKING", hwpt->obj.id);
}

int dirty_cmd_set(struct call *call)
{
	const struct iommu_hwpt_set_dirty_tracking *cmd = (void *)call->cmd.bytes;
	struct hwpt *hwpt;
	struct obj *obj;
	int rc;

	if (cmd->flags & ~IOMMU_HWPT_DIRTY_TRACKING_ENABLE)
		return swi_fail(call->why, -EOPNOTSUPP, "flags %#x: only ENABLE is defined",
				cmd->flags);
	rc = obj_get(call->ctx, cmd->hwpt_id, OBJ_HWPT_PAGING, "hwpt_id", call->why, &obj);
	if (rc)
		return rc;
	hwpt = hwpt_of(obj);
	rc = check_tracks(call, hwpt);
	if (rc)
		goto out;
	if (cmd->flags & IOMMU_HWPT_DIRTY_TRACKING_ENABLE)
		forget_dirty(hwpt);
	atomic_store(&hwpt->tracking, cmd->flags & IOMMU_HWPT_DIRTY_TRACKING_ENABLE);
	/* DMA that goes by the old state has ended when we return. */
	iova_map_sync(hwpt->ioas->map);
out:
	obj_put(obj);
	return rc;
}

/* Steps 3 to 5 of devices.md 3.2. */
static int check_range(struct call *call, struct ioas *ioas, iova_t *last)
{
	const struct iommu_hwpt_get_dirty_bitmap *cmd = (void *)call->cmd.bytes;
	uint64_t align;
	int rc;

	if (!cmd->length)
		return swi_fail(call->why, -EINVAL, "length is 0");
	rc = swi_range_last("iova", cmd->iova, cmd->length, last, call->why);
	if (rc)
		return rc;
	iova_map_lock(ioas->map);
	align = ioas->align;
	iova_map_unlock(ioas->map);
	if ((cmd->iova | (*last + 1)) & (align - 1))
		return swi_fail(
			call->why, -EINVAL,
			"[%#llx, %#llx] is not aligned to the %llu bytes that this IOAS demands",
			(ull)cmd->iova, (ull)*last, (ull)align);
	if (!cmd->page_size || (cmd->iova | (*last + 1)) & (cmd->page_size - 1))
		return swi_fail(call->why, -EINVAL,
				"[%#llx, %#llx] is not aligned to page_size %#llx", (ull)cmd->iova,
				(ull)*last, (ull)cmd->page_size);
	return 0;
}

int dirty_cmd_get(struct call *call)
{
	const struct iommu_hwpt_get_dirty_bitmap *cmd = (void *)call->cmd.bytes;
	struct report r;
	struct obj *obj;
	iova_t last = 0;
	int rc;

	if (cmd->flags & ~IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR || cmd->__reserved)
		return swi_fail(call->why, -EOPNOTSUPP,
				"only the flag NO_CLEAR is defined, and __reserved must be 0");
	rc = obj_get(call->ctx, cmd->hwpt_id, OBJ_HWPT_PAGING, "hwpt_id", call->why, &obj);
	if (rc)
		return rc;
	rc = check_range(call, hwpt_of(obj)->ioas, &last);
	if (!rc)
		rc = check_tracks(call, hwpt_of(obj));
	if (!rc) {
		/* A size that is no power of two counts as its lowest bit, as on Linux. */
		report_init(&r, call->caller, cmd->data, __builtin_ctzll(cmd->page_size),
			    !(cmd->flags & IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR));
		r.first = cmd->iova;
		r.last = last;
		read_dirty(&r, hwpt_of(obj));
		window_free(&r);
	}
	obj_put(obj);
	return rc;
}
