// SPDX-License-Identifier: MIT
/*
 * Automatic placement (core.md 3.6): the lowest IOVA that fits.
 *
 * Three filters, one inside the other, all in ascending order: the allowed ranges (or the whole
 * clip), in them the parts that are not reserved, in these the gaps between areas. Gaps that are
 * too short are passed by the summary in the area tree without a look at them. What is left to try
 * one by one are gaps that are long enough but hold no aligned start.
 */
#include "iova/internal.h"

#include <errno.h>

/* Mappings of at least that size and alignment are placed so that a table entry can cover it. */
#define HUGE_PAGE (2ull << 20)
#define CLIP_FIRST SWI_PAGE_SIZE
#define CLIP_LAST (IOVA_MAX - SWI_PAGE_SIZE)

struct request {
	uint64_t length;
	uint64_t align;	 /* power of two, <= HUGE_PAGE */
	uint64_t offset; /* in the page; a multiple of align when that is below a page */
};

/* Whether [first, last] can begin with a start for the request, and which. */
static bool fit(const struct request *req, iova_t first, iova_t last, iova_t *start)
{
	iova_t p;

	if (__builtin_add_overflow(first, req->align - 1, &p))
		return false;
	p = (p & ~(req->align - 1)) | req->offset;
	if (p >= last || last - p < req->length - 1)
		return false;
	*start = p;
	return true;
}

/* The first fitting gap between areas in [first, last], where nothing is reserved. */
static bool find_between_areas(struct iova_map *map, const struct request *req, iova_t first,
			       iova_t last, iova_t *out)
{
	struct iova_area *area = iova_map_first(map, first);
	struct iova_area *next;
	iova_t gap;

	if (!area)
		return fit(req, first, last, out);
	if (area->iova > last)
		return fit(req, first, last, out);
	if (area->iova > first && fit(req, first, area->iova - 1, out))
		return true;
	while ((next = area_next_gap(area, SWI_MAX(req->length, 2u)))) {
		gap = next->iova - next->gap_before;
		if (gap > last)
			return false;
		if (fit(req, gap, SWI_MIN(last, next->iova - 1), out))
			return true;
		area = next;
	}
	/* After the last area of all. */
	gap = area_last(area_of(rb_last(&map->areas)));
	return gap < last && fit(req, gap + 1, last, out);
}

/* The same in [first, last], an allowed range, minding reserved ranges. */
static bool find_in(struct iova_map *map, const struct request *req, iova_t first, iova_t last,
		    iova_t *out)
{
	struct iova_range part;

	if (!fit(req, first, last, &first))
		return false;
	while (ranges_next_free(map, first, last, &part)) {
		if (find_between_areas(map, req, part.first, part.last, out))
			return true;
		if (part.last == last)
			break;
		first = part.last + 1;
	}
	return false;
}

static bool find_in_allowed(struct iova_map *map, const struct request *req, iova_t *out)
{
	struct iova_allowed *allowed = allowed_from(map->allowed, CLIP_FIRST);

	while (allowed) {
		struct iova_range range = allowed_range(allowed);

		/* Adjacent entries are as good as one. */
		while ((allowed = allowed_next(allowed)) &&
		       allowed_range(allowed).first == range.last + 1)
			range.last = allowed_range(allowed).last;
		if (range.first > CLIP_LAST)
			return false;
		if (find_in(map, req, SWI_MAX(range.first, CLIP_FIRST),
			    SWI_MIN(range.last, CLIP_LAST), out))
			return true;
	}
	return false;
}

/* The largest alignment that is of use: of the length, of the memory, of a huge page. */
static uint64_t useful_align(uint64_t length, uint64_t addr)
{
	uint64_t align = HUGE_PAGE;

	if (length < align)
		align = is_pow2_u64(length) ? length : 1ull << (64 - __builtin_clzll(length));
	if (addr)
		align = SWI_MIN(align, addr & -addr);
	return align;
}

int iova_map_find(struct iova_map *map, uint64_t length, uint64_t addr, uint64_t align, iova_t *out)
{
	struct request req = {.length = length, .offset = addr % SWI_PAGE_SIZE};
	bool found;

	if (length >= IOVA_MAX / 2)
		return -EOVERFLOW;
	if (!length)
		return -EINVAL;
	req.align = useful_align(length, addr);
	if (req.align < align)
		return -EINVAL;
	if (allowed_none(map->allowed))
		found = find_in(map, &req, CLIP_FIRST, CLIP_LAST, out);
	else
		found = find_in_allowed(map, &req, out);
	return found ? 0 : -ENOSPC;
}
