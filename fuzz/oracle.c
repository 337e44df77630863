// SPDX-License-Identifier: MIT
/* The naive IOAS; see oracle.h. Everything is O(n) or worse and meant to be read at one go. */
#include "oracle.h"

#include <errno.h>
#include <string.h>

#define LAST UINT64_MAX
#define HUGE_PAGE (2ull << 20)

uint64_t oracle_align(const struct oracle_ioas *o)
{
	return o->huge_off || o->page_accesses ? SWI_PAGE_SIZE : 1;
}

const struct oracle_area *oracle_at(const struct oracle_ioas *o, uint64_t iova)
{
	for (unsigned int i = 0; i < o->nr_areas; i++)
		if (o->areas[i].iova <= iova && iova <= o->areas[i].last)
			return &o->areas[i];
	return NULL;
}

static bool meets(uint64_t a, uint64_t a_last, uint64_t b, uint64_t b_last)
{
	return a <= b_last && b <= a_last;
}

static bool meets_ranges(const struct oracle_range *r, unsigned int n, uint64_t first,
			 uint64_t last)
{
	for (unsigned int i = 0; i < n; i++)
		if (meets(r[i].first, r[i].last, first, last))
			return true;
	return false;
}

static bool meets_areas(const struct oracle_ioas *o, uint64_t first, uint64_t last)
{
	for (unsigned int i = 0; i < o->nr_areas; i++)
		if (meets(o->areas[i].iova, o->areas[i].last, first, last))
			return true;
	return false;
}

/* ---- placement ----------------------------------------------------------------------------------- */

struct place {
	uint64_t length, align, off;
};

/* The rule for a range and for a gap: the first aligned start, if enough is left behind it. */
static bool start_in(const struct place *p, uint64_t first, uint64_t last, uint64_t *start)
{
	if (first > LAST - (p->align - 1))
		return false;
	*start = ((first + p->align - 1) / p->align * p->align) | p->off;
	return *start < last && last - *start >= p->length - 1;
}

/* The lowest end of what blocks `at`, or false. */
static bool blocked_until(const struct oracle_ioas *o, uint64_t at, uint64_t *last)
{
	for (unsigned int i = 0; i < o->nr_reserved; i++)
		if (o->reserved[i].first <= at && at <= o->reserved[i].last) {
			*last = o->reserved[i].last;
			return true;
		}
	if (oracle_at(o, at)) {
		*last = oracle_at(o, at)->last;
		return true;
	}
	return false;
}

/* The last free address of the gap that holds `at`. */
static uint64_t gap_end(const struct oracle_ioas *o, uint64_t at, uint64_t last)
{
	for (unsigned int i = 0; i < o->nr_reserved; i++)
		if (o->reserved[i].first > at && o->reserved[i].first <= last)
			last = o->reserved[i].first - 1;
	for (unsigned int i = 0; i < o->nr_areas; i++)
		if (o->areas[i].iova > at && o->areas[i].iova <= last)
			last = o->areas[i].iova - 1;
	return last;
}

static bool find_in(const struct oracle_ioas *o, const struct place *p, uint64_t first,
		    uint64_t last, uint64_t *iova)
{
	uint64_t at, end;

	if (first > last || !start_in(p, first, last, &at))
		return false;
	for (;;) {
		if (blocked_until(o, at, &end)) {
			if (end >= last)
				return false;
			at = end + 1;
			continue;
		}
		end = gap_end(o, at, last);
		if (start_in(p, at, end, iova))
			return true;
		if (end == last)
			return false;
		at = end + 1;
	}
}

/* The allowed ranges, adjacent ones merged, within the clip. */
static unsigned int allowed_in_clip(const struct oracle_ioas *o, struct oracle_range *out)
{
	const struct oracle_range clip = {SWI_PAGE_SIZE, LAST - SWI_PAGE_SIZE};
	unsigned int n = 0;

	if (!o->nr_allowed) {
		out[0] = clip;
		return 1;
	}
	for (unsigned int i = 0; i < o->nr_allowed; i++) {
		if (n && out[n - 1].last + 1 == o->allowed[i].first)
			out[n - 1].last = o->allowed[i].last;
		else
			out[n++] = o->allowed[i];
	}
	for (unsigned int i = 0; i < n; i++) {
		out[i].first = SWI_MAX(out[i].first, clip.first);
		out[i].last = SWI_MIN(out[i].last, clip.last);
	}
	return n;
}

static int find(const struct oracle_ioas *o, uint64_t addr, uint64_t length, uint64_t *iova)
{
	struct place p = {.length = length, .align = 1, .off = addr % SWI_PAGE_SIZE};
	struct oracle_range ranges[ORACLE_RANGES];
	unsigned int n;

	if (length >= LAST / 2)
		return -EOVERFLOW;
	while (p.align < length && p.align < HUGE_PAGE)
		p.align *= 2;
	while (addr % p.align)
		p.align /= 2;
	if (p.align < oracle_align(o))
		return -EINVAL;
	n = allowed_in_clip(o, ranges);
	for (unsigned int i = 0; i < n; i++)
		if (find_in(o, &p, ranges[i].first, ranges[i].last, iova))
			return 0;
	return -ENOSPC;
}

/* ---- adding -------------------------------------------------------------------------------------- */

static void insert(struct oracle_ioas *o, const struct oracle_area *area)
{
	unsigned int i = o->nr_areas++;

	FUZZ_CHECK(i < ORACLE_AREAS, "the caller checks for room");
	for (; i && o->areas[i - 1].iova > area->iova; i--)
		o->areas[i] = o->areas[i - 1];
	o->areas[i] = *area;
}

static int place(const struct oracle_ioas *o, uint64_t addr, uint64_t length, bool fixed,
		 uint64_t *iova)
{
	uint64_t align = oracle_align(o);

	if (length % align)
		return -EINVAL;
	if (!fixed)
		return find(o, addr, length, iova);
	if (*iova % align)
		return -EINVAL;
	if (length - 1 > LAST - *iova)
		return -EOVERFLOW;
	if (meets_ranges(o->reserved, o->nr_reserved, *iova, *iova + length - 1))
		return -EINVAL;
	return meets_areas(o, *iova, *iova + length - 1) ? -EEXIST : 0;
}

int oracle_map(struct oracle_ioas *o, const struct oracle_area *area, uint64_t length, bool fixed,
	       uint64_t *iova)
{
	struct oracle_area new = *area;
	uint64_t at = *iova;
	int rc = place(o, area->addr, length, fixed, &at);

	if (rc)
		return rc;
	if (area->addr % SWI_PAGE_SIZE % oracle_align(o))
		return -EINVAL;
	new.iova = at;
	new.last = at + length - 1;
	insert(o, &new);
	*iova = at;
	return 0;
}

/* The pieces of [src, src + length), as areas without a place. 0: not all of it is mapped. */
static unsigned int collect(const struct oracle_ioas *from, uint64_t src, uint64_t length,
			    struct oracle_area *pieces)
{
	uint64_t last = src + length - 1;
	unsigned int n = 0;

	for (uint64_t at = src;; at = pieces[n++].last + 1) {
		const struct oracle_area *area;

		area = oracle_at(from, at);
		if (!area)
			return 0;
		pieces[n] = *area;
		pieces[n].addr += at - area->iova;
		pieces[n].iova = at;
		if (area->last >= last) {
			pieces[n].last = last;
			return n + 1;
		}
		if (area->last == LAST)
			return 0;
	}
}

unsigned int oracle_pieces(const struct oracle_ioas *from, uint64_t src, uint64_t length)
{
	struct oracle_area pieces[ORACLE_AREAS];

	if (!length || length - 1 > LAST - src)
		return 0;
	return collect(from, src, length, pieces);
}

int oracle_copy(struct oracle_ioas *to, const struct oracle_ioas *from, uint64_t src,
		uint64_t length, unsigned int prot, bool fixed, uint64_t *iova)
{
	struct oracle_area pieces[ORACLE_AREAS];
	uint64_t align = oracle_align(to), at = *iova;
	unsigned int n = collect(from, src, length, pieces);
	int rc;

	if (!n)
		return -ENOENT;
	rc = place(to, pieces[0].addr, length, fixed, &at);
	if (rc)
		return rc;
	for (unsigned int i = 0; i < n; i++) {
		if ((prot & SWI_WRITE) && !pieces[i].intent)
			return -EPERM;
		/* The second: what the kernel lets in and stumbles over later is refused at once. */
		if (pieces[i].addr % SWI_PAGE_SIZE % align ||
		    (n > 1 && (pieces[i].last - pieces[i].iova + 1) % align))
			return -EINVAL;
	}
	*iova = at;
	for (unsigned int i = 0; i < n; i++) {
		uint64_t len = pieces[i].last - pieces[i].iova;

		pieces[i].iova = at;
		pieces[i].last = at + len;
		pieces[i].prot = prot;
		insert(to, &pieces[i]);
		at += len + 1;
	}
	return 0;
}

/* ---- removing ------------------------------------------------------------------------------------ */

int oracle_unmap(struct oracle_ioas *o, uint64_t first, uint64_t last, uint64_t *removed)
{
	unsigned int i = 0;

	*removed = 0;
	while (i < o->nr_areas) {
		const struct oracle_area *area = &o->areas[i];

		if (!meets(area->iova, area->last, first, last)) {
			i++;
			continue;
		}
		if (area->iova < first || area->last > last)
			return -ENOENT;
		*removed += area->last - area->iova + 1;
		o->nr_areas--;
		memmove(&o->areas[i], &o->areas[i + 1], (o->nr_areas - i) * sizeof(*area));
	}
	return 0;
}

int oracle_cut(struct oracle_ioas *o, uint64_t at)
{
	struct oracle_area *area = (struct oracle_area *)oracle_at(o, at), right;
	uint64_t align = oracle_align(o);

	if (!area || area->iova == at || area->last == at)
		return 0;
	right = *area;
	right.iova = at + 1;
	right.addr += at + 1 - area->iova;
	if (right.iova % align || right.addr % SWI_PAGE_SIZE % align)
		return -EINVAL;
	area->last = at;
	insert(o, &right);
	return 0;
}

/* ---- ranges -------------------------------------------------------------------------------------- */

int oracle_reserve(struct oracle_ioas *o, uint64_t first, uint64_t last)
{
	if (meets_areas(o, first, last) || meets_ranges(o->allowed, o->nr_allowed, first, last))
		return -EADDRINUSE;
	o->reserved[o->nr_reserved++] = (struct oracle_range){first, last};
	return 0;
}

int oracle_allow(struct oracle_ioas *o, const struct oracle_range *list, unsigned int n)
{
	struct oracle_range sorted[ORACLE_RANGES];

	for (unsigned int i = 0; i < n; i++) {
		unsigned int k = i;

		if (list[i].first >= list[i].last ||
		    meets_ranges(list, i, list[i].first, list[i].last))
			return -EINVAL;
		for (; k && sorted[k - 1].first > list[i].first; k--)
			sorted[k] = sorted[k - 1];
		sorted[k] = list[i];
	}
	for (unsigned int i = 0; i < n; i++)
		if (meets_ranges(o->reserved, o->nr_reserved, list[i].first, list[i].last))
			return -EADDRINUSE;
	memcpy(o->allowed, sorted, n * sizeof(*sorted));
	o->nr_allowed = n;
	return 0;
}

unsigned int oracle_usable(const struct oracle_ioas *o, struct oracle_range *out)
{
	struct oracle_ioas only = {.nr_reserved = o->nr_reserved};
	uint64_t at = 0, end;
	unsigned int n = 0;

	memcpy(only.reserved, o->reserved, sizeof(only.reserved));
	for (;;) {
		if (!blocked_until(&only, at, &end)) {
			end = gap_end(&only, at, LAST);
			out[n++] = (struct oracle_range){at, end};
		}
		if (end == LAST)
			return n;
		at = end + 1;
	}
}

bool oracle_fits(const struct oracle_ioas *o, uint64_t align)
{
	for (unsigned int i = 0; i < o->nr_areas; i++) {
		const struct oracle_area *a = &o->areas[i];

		if (a->iova % align || (a->last - a->iova + 1) % align ||
		    a->addr % SWI_PAGE_SIZE % align)
			return false;
	}
	return true;
}
