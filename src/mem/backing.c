// SPDX-License-Identifier: MIT
/*
 * Backings: which of their pages are pinned, and through what.
 *
 * The line of pages is cut into runs, at every page where a pinned interval begins or ends and
 * wherever two neighbouring pages were pinned by different lookups. Runs hang in a tree by their
 * first page; the first run is part of the backing, so that there is always one. A run knows how
 * many intervals cover it and, if its pages are pinned, the segment they were pinned as. A segment
 * is the outcome of one lookup: the window on a stretch of memory, if there is one, and its
 * identity. It lives until its last run lets go of it. Intervals over the whole backing, which is
 * what domains ask for, are one counter next to the tree and cut nothing.
 *
 * Unpinning counts down along the interval, lets go of what is not covered any more and joins runs
 * that nothing keeps apart: it needs no memory. Pinning needs at most two new runs; some are kept
 * for reuse.
 *
 * Pinning pages that were not pinned has three steps: the interval is counted first, so that
 * nothing of it can go away; the pages missing are looked up without `lock`, one pinner at a time
 * (`lookup`), as that may block; then the segments are handed to the runs, or the count is taken
 * back. Until then those runs have no segment and to everybody else are not pinned.
 *
 * Data movers (backing_data.c) hold a reference on the segment while they use its window, so that
 * an unpin meanwhile, from an address space that shares the backing, cannot take it away under
 * them.
 *
 * When all of it is pinned and lies in one piece in this process, backing->host says where, for who must not take
 * locks. Pages that somebody has pinned stay where it says even when the whole is let go: their segment does.
 *
 * Invariants (under `lock`): a run that is held by no interval has no segment; a run that is held
 * has one unless its pinner is still looking; neighbouring runs differ in coverage or segment.
 */
#include "mem/backing_internal.h"

#include "base/alloc.h"

#include <errno.h>

/* Unused runs kept per backing: enough for pins that come and go. */
#define SPARES_MAX 4

/* ---- life ----------------------------------------------------------------------------------- */

int backing_create(struct mem_owner *owner, const struct mem_payer *payer, uint64_t addr,
		   uint64_t length, bool write_intent, struct backing **out)
{
	struct backing *b = swi_new(struct backing);

	if (!b)
		return -ENOMEM;
	atomic_init(&b->refs, 1);
	pthread_mutex_init(&b->lookup, NULL);
	pthread_mutex_init(&b->lock, NULL);
	b->owner = mem_owner_get(owner);
	if (payer) {
		mem_payer_copy(&b->payer, payer);
		b->accounts = payer->accounts;
	}
	b->addr = addr;
	b->length = length;
	b->nr_pages = (((addr & (SWI_PAGE_SIZE - 1)) + (length - 1)) >> SWI_PAGE_SHIFT) + 1;
	b->write_intent = write_intent;
	rb_insert(&b->runs, &b->base.node, NULL, &b->runs.root);
	*out = b;
	return 0;
}

struct backing *backing_get(struct backing *b)
{
	atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
	return b;
}

void backing_put(struct backing *b)
{
	struct run *run;

	if (atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
		return;
	while ((run = b->spares)) {
		b->spares = run->spare;
		swi_free(run);
	}
	if (b->space)
		phys_give(b->space, b->phys);
	phys_space_put(b->space);
	mem_owner_put(b->owner);
	mem_payer_fini(&b->payer);
	pthread_mutex_destroy(&b->lock);
	pthread_mutex_destroy(&b->lookup);
	swi_free(b);
}

uint64_t backing_addr(const struct backing *b)
{
	return b->addr;
}

uint64_t backing_length(const struct backing *b)
{
	return b->length;
}

bool backing_write_intent(const struct backing *b)
{
	return b->write_intent;
}

struct mem_owner *backing_owner(const struct backing *b)
{
	return b->owner;
}

uint64_t backing_nr_pages(const struct backing *b)
{
	return b->nr_pages;
}

uint64_t backing_page_of(const struct backing *b, uint64_t offset)
{
	return ((b->addr & (SWI_PAGE_SIZE - 1)) + offset) >> SWI_PAGE_SHIFT;
}

/* ---- pages ---------------------------------------------------------------------------------- */

static bool is_whole(const struct backing *b, struct span s)
{
	return s.first == 0 && s.end == b->nr_pages;
}

/* ---- segments ------------------------------------------------------------------------------- */

int backing_segment_open(struct backing *b, struct span s, struct segment **out,
			 struct swi_reason *why)
{
	unsigned prot = b->write_intent ? SWI_WRITE : SWI_READ;
	struct segment *seg = swi_new(struct segment);
	int ret;

	if (!seg)
		return swi_fail(why, -ENOMEM, "out of memory");
	atomic_init(&seg->refs, 1);
	seg->first = s.first;
	seg->end = s.end;
	seg->backing = b;
	ret = b->owner->ops->open_window(b->owner, page_base(b) + (s.first << SWI_PAGE_SHIFT),
					 (s.end - s.first) << SWI_PAGE_SHIFT, prot, &seg->window,
					 why);
	if (ret) {
		swi_free(seg);
		return ret;
	}
	*out = seg;
	return 0;
}

void backing_segment_put(struct segment *seg)
{
	if (atomic_fetch_sub_explicit(&seg->refs, 1, memory_order_acq_rel) != 1)
		return;
	mem_window_close(&seg->window);
	swi_free(seg);
}

/* A segment's runs are gone. Not under a lock, as unmapping takes its time. */
static void put_segments(struct list *dying)
{
	struct list *pos, *tmp;

	list_for_each_safe (pos, tmp, dying)
		backing_segment_put(list_entry(pos, struct segment, entry));
}

/* ---- runs ----------------------------------------------------------------------------------- */

/* The run that `page` belongs to. */
struct run *backing_run_at(struct backing *b, uint64_t page)
{
	struct rb_node *node = b->runs.root;
	struct run *found = &b->base;

	while (node) {
		struct run *run = run_of(node);

		if (run->page > page) {
			node = node->left;
			continue;
		}
		found = run;
		if (run->page == page)
			break;
		node = node->right;
	}
	return found;
}

/*
 * Two runs in stock. May drop the lock for a while. -ENOMEM. They stay in stock until a run is cut,
 * as all who take some hold the lock since they asked.
 */
static int stock_up(struct backing *b)
{
	struct run *run;

	while (SWI_UNLIKELY(b->nr_spares < 2)) {
		pthread_mutex_unlock(&b->lock);
		run = swi_new(struct run);
		pthread_mutex_lock(&b->lock);
		if (!run)
			return -ENOMEM;
		run->spare = b->spares;
		b->spares = run;
		b->nr_spares++;
	}
	return 0;
}

/* Makes a run begin at `page`, which lies in `run`; returns the one that does. */
static struct run *run_cut(struct backing *b, struct run *run, uint64_t page)
{
	struct run *right;

	if (run->page == page)
		return run;
	right = b->spares;
	b->spares = right->spare;
	b->nr_spares--;
	right->page = page;
	right->edges = 0;
	right->cover = run->cover;
	right->seg = run->seg;
	if (right->seg)
		right->seg->runs++;
	rb_insert_after(&b->runs, &right->node, &run->node);
	return right;
}

static void drop_segment(struct backing *b, struct run *run, struct list *dying)
{
	struct segment *seg = run->seg;

	run->seg = NULL;
	if (--seg->runs)
		return;
	if (b->accounts)
		mem_registry_del(b->accounts, &seg->registered);
	list_add_tail(dying, &seg->entry);
}

/* Joins `run` to the one before it if nothing keeps them apart. Returns the run that is left. */
static struct run *run_join(struct backing *b, struct run *run)
{
	struct run *prev;

	if (run == &b->base || run->edges)
		return run;
	prev = run_of(rb_prev(&run->node));
	if (prev->seg != run->seg)
		return run;
	if (run->seg)
		run->seg->runs--;
	rb_erase(&b->runs, &run->node);
	if (b->nr_spares < SPARES_MAX) {
		run->spare = b->spares;
		b->spares = run;
		b->nr_spares++;
	} else {
		swi_free(run);
	}
	return prev;
}

/* ---- intervals ------------------------------------------------------------------------------ */

/* Whether every page of the span is pinned. */
static bool all_pinned(struct backing *b, struct span s, struct run *run)
{
	if (b->whole_ready)
		return true;
	for (; run && run->page < s.end; run = run_next(run))
		if (!run->seg)
			return false;
	return true;
}

/* Counts an interval that is not the whole. `run` holds its first page. Two runs are in stock. */
static void hold(struct backing *b, struct span s, struct run *run)
{
	run = run_cut(b, run, s.first);
	run->edges++;
	for (;;) {
		uint64_t end = run_end(b, run);

		if (end > s.end) {
			run_cut(b, run, s.end);
			end = s.end;
		}
		run->cover++;
		if (end == s.end)
			break;
		run = run_next(run);
	}
	run = run_next(run);
	if (run)
		run->edges++;
}

/* Lets go of what is pinned in `run` if nobody holds it any more; the number of pages. */
static uint64_t settle(struct backing *b, struct run *run, struct list *dying)
{
	if (b->whole || run->cover || !run->seg)
		return 0;
	drop_segment(b, run, dying);
	return run_end(b, run) - run->page;
}

static void uncharge(struct backing *b, uint64_t pages)
{
	if (!pages)
		return;
	b->charged -= pages;
	mem_payer_uncharge(&b->payer, pages);
}

/* The opposite of hold(). */
static void unhold(struct backing *b, struct span s, struct list *dying)
{
	struct run *run = backing_run_at(b, s.first);
	uint64_t released = 0;

	if (run->page != s.first || !run->edges)
		return;
	run->edges--;
	for (; run && run->page < s.end; run = run_next(run)) {
		if (run->cover)
			run->cover--;
		released += settle(b, run, dying);
		run = run_join(b, run);
	}
	if (run) {
		if (run->edges)
			run->edges--;
		run_join(b, run);
	}
	uncharge(b, released);
}

static void unhold_whole(struct backing *b, struct list *dying)
{
	uint64_t released = 0;
	struct run *run;

	if (!b->whole || --b->whole)
		return;
	b->whole_ready = false;
	atomic_store_explicit(&b->host, NULL, memory_order_relaxed);
	for (run = &b->base; run; run = run_next(run)) {
		released += settle(b, run, dying);
		run = run_join(b, run);
	}
	uncharge(b, released);
}

/* Every page is pinned on behalf of an interval over everything: where they are does not change for as long. */
static void whole_pinned(struct backing *b)
{
	struct span s = {0, b->nr_pages};

	b->whole_ready = true;
	if (!atomic_load_explicit(&b->host, memory_order_relaxed))
		atomic_store_explicit(&b->host, backing_host_locked(b, s, 0), memory_order_release);
}

/* ---- pin and unpin -------------------------------------------------------------------------- */

/* The next stretch of the span, from `page` on, whose pages are not pinned. */
static bool next_gap(struct backing *b, struct span s, uint64_t page, struct span *gap)
{
	struct run *run;

	if (page >= s.end)
		return false;
	run = backing_run_at(b, page);
	while (run && run->page < s.end && run->seg)
		run = run_next(run);
	if (!run || run->page >= s.end)
		return false;
	gap->first = SWI_MAX(run->page, page);
	while (run && run->page < s.end && !run->seg)
		run = run_next(run);
	gap->end = run ? SWI_MIN(run->page, s.end) : s.end;
	return true;
}

/*
 * Cuts a gap into two runs, as each is to have its own segment. They stay two, since nobody else can hold pages
 * that are not pinned; and if they are not pinned after all, letting go joins them.
 */
static int cut_gap(struct backing *b, uint64_t page)
{
	int ret;

	pthread_mutex_lock(&b->lock);
	ret = stock_up(b);
	if (!ret)
		run_cut(b, backing_run_at(b, page), page);
	pthread_mutex_unlock(&b->lock);
	return ret;
}

/* Looks up what is not pinned of a span that has been counted. Lookup lock held, lock not. */
static int open_gaps(struct backing *b, struct span s, struct list *fresh, uint64_t *pages,
		     struct swi_reason *why)
{
	uint64_t batch = mem_accounts_batch(b->accounts);
	struct segment *seg;
	struct span gap = {0, s.first};
	bool found;
	int ret;

	for (;;) {
		pthread_mutex_lock(&b->lock);
		found = next_gap(b, s, gap.end, &gap);
		pthread_mutex_unlock(&b->lock);
		if (!found)
			return 0;
		if (gap.end - gap.first > batch) {
			gap.end = gap.first + batch;
			ret = cut_gap(b, gap.end);
			if (ret)
				return swi_fail(why, ret, "out of memory");
		}
		if (swi_fail_point())
			return swi_fail(why, -EFAULT, "injected failure of a batch of pins");
		ret = backing_segment_open(b, gap, &seg, why);
		if (ret)
			return ret;
		list_add_tail(fresh, &seg->entry);
		*pages += gap.end - gap.first;
	}
}

static void hand_out(struct backing *b, struct list *fresh)
{
	struct list *pos, *tmp;
	struct segment *seg;
	struct run *run;

	list_for_each_safe (pos, tmp, fresh) {
		seg = list_entry(pos, struct segment, entry);
		list_del(pos);
		if (b->accounts)
			mem_registry_add(b->accounts, &seg->registered);
		for (run = backing_run_at(b, seg->first); run && run->page < seg->end;
		     run = run_next(run)) {
			run->seg = seg;
			seg->runs++;
		}
	}
}

static int pin_lookup(struct backing *b, struct span s, struct swi_reason *why)
{
	bool whole = is_whole(b, s);
	struct list fresh, dying;
	uint64_t pages = 0;
	int ret = 0;

	list_init(&fresh);
	list_init(&dying);
	pthread_mutex_lock(&b->lookup);
	pthread_mutex_lock(&b->lock);
	if (whole)
		b->whole++;
	else if (!(ret = stock_up(b)))
		hold(b, s, backing_run_at(b, s.first));
	pthread_mutex_unlock(&b->lock);
	if (ret) {
		swi_fail(why, ret, "out of memory");
		goto out;
	}
	ret = open_gaps(b, s, &fresh, &pages, why);
	/* The payer stays the same inside, so it can be used without the lock. */
	mem_accounts_enter(b->accounts);
	if (!ret)
		ret = mem_payer_charge(&b->payer, pages, why);
	pthread_mutex_lock(&b->lock);
	if (!ret) {
		hand_out(b, &fresh);
		b->charged += pages;
		if (whole)
			whole_pinned(b);
	} else if (whole) {
		unhold_whole(b, &dying);
	} else {
		unhold(b, s, &dying);
	}
	pthread_mutex_unlock(&b->lock);
	mem_accounts_leave(b->accounts);
out:
	pthread_mutex_unlock(&b->lookup);
	put_segments(&fresh);
	put_segments(&dying);
	return ret;
}

/* Counts an interval all of whose pages are pinned: 1; 0 = they are not; or -ENOMEM. */
static int pin_pinned_locked(struct backing *b, struct span s)
{
	struct run *run;

	if (is_whole(b, s)) {
		if (!b->whole_ready && !all_pinned(b, s, &b->base))
			return 0;
		b->whole++;
		if (!b->whole_ready)
			whole_pinned(b);
		return 1;
	}
	if (stock_up(b))
		return -ENOMEM;
	run = backing_run_at(b, s.first);
	if (!all_pinned(b, s, run))
		return 0;
	hold(b, s, run);
	return 1;
}

int backing_pin(struct backing *b, uint64_t offset, uint64_t len, struct swi_reason *why)
{
	struct span s = span_of(b, offset, len);
	int ret;

	pthread_mutex_lock(&b->lock);
	ret = pin_pinned_locked(b, s);
	pthread_mutex_unlock(&b->lock);
	if (SWI_LIKELY(ret > 0))
		return 0;
	if (ret)
		return swi_fail(why, ret, "out of memory");
	return pin_lookup(b, s, why);
}

void backing_unpin(struct backing *b, uint64_t offset, uint64_t len)
{
	struct span s = span_of(b, offset, len);
	struct list dying;

	list_init(&dying);
	pthread_mutex_lock(&b->lock);
	if (is_whole(b, s))
		unhold_whole(b, &dying);
	else
		unhold(b, s, &dying);
	pthread_mutex_unlock(&b->lock);
	put_segments(&dying);
}
