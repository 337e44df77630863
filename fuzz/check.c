// SPDX-License-Identifier: MIT
/*
 * Invariants; see check.h.
 *
 * What is pinned is computed a second time here: every area under a page table and every pin of an access is
 * an interval of pages of its backing, and the pages in the union of these intervals must be
 * what the process has been charged with.
 */
#include "check.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "core/ctx.h"
#include "core/ioas.h"
#include "mem/accounts.h"

#define INTERVALS 4096u

struct interval {
	struct backing *backing;
	uint64_t first, last; /* pages */
};

struct walk {
	const struct check *check;
	struct interval *held;
	unsigned int nr_held;
};

static bool meets(const struct iova_area *area, const struct known_pin *pin)
{
	return area->iova <= pin->iova + pin->length - 1 && pin->iova <= area->last;
}

static void hold(struct walk *w, const struct iova_area *area, iova_t first, iova_t last)
{
	uint64_t from = area->offset + (first - area->iova),
		 to = area->offset + (last - area->iova);

	if (backing_owner(area->backing)->ops->device)
		return;
	FUZZ_CHECK(w->nr_held < INTERVALS, "too many intervals");
	w->held[w->nr_held++] =
		(struct interval){area->backing, backing_page_of(area->backing, from),
				  backing_page_of(area->backing, to)};
}

/* ---- one IOAS ------------------------------------------------------------------------------------ */

static void check_area(struct walk *w, struct ioas *ioas, struct iova_area *area)
{
	uint64_t length = area->last - area->iova + 1,
		 first = backing_addr(area->backing) + area->offset;
	const struct check *check = w->check;
	unsigned int pins = 0;

	FUZZ_CHECK(!area->busy && area->live && (!area->locks || ioas->obj.ctx->test_abi),
		   "[%#llx, %#llx] is busy", (ull)area->iova, (ull)area->last);
	FUZZ_CHECK(area->offset + length <= backing_length(area->backing), "beyond its backing");
	FUZZ_CHECK(!iova_map_is_reserved(ioas->map, area->iova, area->last, NULL),
		   "%#llx is reserved", (ull)area->iova);
	FUZZ_CHECK(!((area->iova | length | (first & (SWI_PAGE_SIZE - 1))) & (ioas->align - 1)),
		   "[%#llx, %#llx] is not aligned to %llu", (ull)area->iova, (ull)area->last,
		   (ull)ioas->align);
	FUZZ_CHECK(!(area->prot & SWI_WRITE) || backing_write_intent(area->backing),
		   "W without intent");
	if (ioas->nr_domains)
		hold(w, area, area->iova, area->last);
	for (unsigned int i = 0; i < check->nr_pins; i++) {
		const struct known_pin *pin = &check->pins[i];

		if (pin->ioas != ioas || !meets(area, pin))
			continue;
		pins++;
		hold(w, area, SWI_MAX(pin->iova, area->iova),
		     SWI_MIN(pin->iova + pin->length - 1, area->last));
	}
	FUZZ_CHECK(pins == area->pins || check->unknown_pins, "[%#llx, %#llx]: %u pins, want %u",
		   (ull)area->iova, (ull)area->last, area->pins, pins);
}

static void check_align(const struct ioas *ioas)
{
	uint64_t domains = ioas->domain_align, align;

	align = ioas->huge_pages && !ioas->nr_page_accesses ? domains
							    : SWI_MAX(domains, SWI_PAGE_SIZE);
	/* No driver here has pages of one byte. */
	FUZZ_CHECK(align == ioas->align && is_pow2_u64(align) && align <= SWI_PAGE_SIZE &&
			   (domains > 1) == (ioas->nr_domains > 0),
		   "%u domains that want %llu; align %llu, want %llu", ioas->nr_domains,
		   (ull)domains, (ull)ioas->align, (ull)align);
}

/* Reserved ranges come with page tables and devices, and go with them; the test ABI makes others. */
static void check_reserved_locked(struct ioas *ioas)
{
	struct iova_range range = {0};
	size_t n;

	if (ioas->nr_domains || ioas->obj.ctx->test_abi)
		return;
	n = iova_map_usable(ioas->map, &range, 1);
	FUZZ_CHECK(n == 1 && !range.first && range.last == IOVA_MAX,
		   "[%#llx, %#llx] of %zu is usable", (ull)range.first, (ull)range.last, n);
}

static bool check_ioas(struct obj *obj, void *data)
{
	struct ioas *ioas = ioas_of(obj);
	struct iova_area *area, *before = NULL;
	struct walk *w = data;
	size_t n = 0;

	check_align(ioas);
	iova_map_lock(ioas->map);
	check_reserved_locked(ioas);
	iova_map_for_each (area, ioas->map) {
		FUZZ_CHECK(area->iova <= area->last && (!before || before->last < area->iova),
			   "areas meet at %#llx", (ull)area->iova);
		check_area(w, ioas, area);
		before = area;
		n++;
	}
	FUZZ_CHECK(n == iova_map_count(ioas->map), "%zu areas, not %zu", n,
		   iova_map_count(ioas->map));
	iova_map_unlock(ioas->map);
	return false;
}

/* ---- what is pinned ------------------------------------------------------------------------------ */

static int compare(const void *a, const void *b)
{
	const struct interval *x = a, *y = b;

	if (x->backing != y->backing)
		return x->backing < y->backing ? -1 : 1;
	return x->first < y->first ? -1 : x->first > y->first;
}

static uint64_t count_pages(struct walk *w)
{
	uint64_t pages = 0, next = 0;

	qsort(w->held, w->nr_held, sizeof(*w->held), compare);
	for (unsigned int i = 0; i < w->nr_held; i++) {
		const struct interval *h = &w->held[i];

		if (!i || h[-1].backing != h->backing)
			next = 0;
		if (h->last + 1 > next) {
			pages += h->last + 1 - SWI_MAX(next, h->first);
			next = h->last + 1;
		}
	}
	return pages;
}

static void check_pinned(struct walk *w)
{
	uint64_t pinned, locked, want = count_pages(w);

	FUZZ_CHECK(!swiommu_accounts_usage(w->check->accounts, getpid(), &pinned, &locked),
		   "no usage");
	if (w->check->unknown_pins)
		return;
	FUZZ_CHECK(pinned == want, "%llu pages are charged, %llu held", (ull)pinned, (ull)want);
	FUZZ_CHECK(locked <= pinned &&
			   mem_accounts_user_pages(w->check->accounts, getuid()) <= pinned,
		   "more locked than pinned");
	for (unsigned int i = 0; i < w->nr_held; i++)
		for (uint64_t page = w->held[i].first; page <= w->held[i].last; page++) {
			struct page_key key;

			FUZZ_CHECK(!backing_page_key(w->held[i].backing, page, &key),
				   "page %llu is held, but not pinned", (ull)page);
		}
}

/* ---- contexts ------------------------------------------------------------------------------------ */

static void check_objects(struct iommufd_ctx *ctx)
{
	struct obj_table *t = &ctx->table;
	bool compat = !ctx->compat_ioas;

	pthread_mutex_lock(&t->lock);
	for (uint32_t id = 1; id < t->size; id++) {
		struct obj *obj = t->slots[id];

		/* What marks a used ID without an object has no type. */
		if (!obj || !obj->ops)
			continue;
		FUZZ_CHECK(obj->id == id && obj->users >= 1 &&
				   (obj->wait_cnt == 1 || ctx->test_abi),
			   "object %u: users %u, wait_cnt %u", id, obj->users, obj->wait_cnt);
		compat |= obj == ctx->compat_ioas && obj->ops == &ioas_ops;
	}
	FUZZ_CHECK(compat, "the compat IOAS is none of this context");
	pthread_mutex_unlock(&t->lock);
}

void check_contexts(const struct check *check)
{
	static struct interval held[INTERVALS];
	struct walk w = {.check = check, .held = held};

	for (unsigned int i = 0; i < check->nr_ctx; i++) {
		check_objects(check->ctx[i]);
		obj_for_each(check->ctx[i], OBJ_IOAS, check_ioas, &w);
	}
	check_pinned(&w);
}

/* ---- translation --------------------------------------------------------------------------------- */

static void check_at(struct ioas *ioas, struct iova_reader *reader, iova_t iova)
{
	struct iova_area *area, *want;
	iova_t last = 0;

	iova_map_lock(ioas->map);
	want = iova_map_first(ioas->map, iova);
	if (want && want->iova > iova)
		want = NULL;
	iova_map_unlock(ioas->map);
	iova_read_begin(reader);
	area = iova_translate_run(reader, ioas->map, iova, &last);
	iova_read_end(reader);
	FUZZ_CHECK(area == want && (!area || last == area->last), "IOVA %#llx leads elsewhere",
		   (ull)iova);
}

static bool check_reader(struct obj *obj, void *data)
{
	struct iova_reader *reader = data;
	struct ioas *ioas = ioas_of(obj);
	struct iova_area *area;

	if (iova_reader_attach(reader, ioas->map))
		return false;
	check_at(ioas, reader, 0);
	check_at(ioas, reader, IOVA_MAX);
	/* Nobody changes the map meanwhile. */
	iova_map_for_each (area, ioas->map) {
		check_at(ioas, reader, area->iova);
		check_at(ioas, reader, area->last);
		check_at(ioas, reader, area->iova - 1);
		check_at(ioas, reader, area->last + 1);
	}
	iova_reader_detach(reader, ioas->map);
	return false;
}

void check_translations(const struct check *check)
{
	struct iova_reader *reader = swi_zalloc_aligned(SWI_CACHELINE, sizeof(*reader));

	FUZZ_CHECK(reader && !iova_reader_init(reader), "no reader");
	for (unsigned int i = 0; i < check->nr_ctx; i++)
		obj_for_each(check->ctx[i], OBJ_IOAS, check_reader, reader);
	iova_reader_fini(reader);
	swi_free(reader);
}

static void count_entry(struct mem_registered *r, void *data)
{
	(void)r;
	++*(unsigned int *)data;
}

void check_accounts_empty(struct mem_accounts *accounts)
{
	uint64_t pinned = 1, locked = 1;
	unsigned int entries = 0;

	FUZZ_CHECK(!swiommu_accounts_usage(accounts, getpid(), &pinned, &locked) && !pinned &&
			   !locked,
		   "%llu pages are still pinned, %llu locked", (ull)pinned, (ull)locked);
	FUZZ_CHECK(!mem_accounts_user_pages(accounts, getuid()), "the user still pays");
	mem_registry_walk(accounts, count_entry, &entries);
	FUZZ_CHECK(!entries, "%u entries in the registry of pins", entries);
}
