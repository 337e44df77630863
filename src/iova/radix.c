// SPDX-License-Identifier: MIT
/*
 * The radix table: from an IOVA to its area in a few dependent loads, without a lock.
 *
 * Shape. Like a page table: 9 bits a level above the 4 KiB page, as many levels as the highest
 * taken IOVA needs. A span takes a slot whole wherever it fills it, at the highest level possible,
 * so that a large mapping costs its edges. Below the page the same goes on with two levels of 6
 * bits, down to single bytes, but only in pages where two spans meet: a span that is alone in a
 * page it does not fill sits in the page's slot marked PART, and the reader compares. (Once made,
 * the tables below a page stay until the page is empty.)
 *
 * Two lives. *Taking* a span makes the tables it needs and counts its slots in `used` (whole slots,
 * PART pages and tables below count one each), so that *showing* and hiding only store words. A
 * table exists exactly as long as its `used` is not 0; whose slots they are is not recorded, hence
 * a cut can hand slots over to another area without counting again.
 *
 * Readers may be anywhere at any time. New tables are linked when they are ready, by a release
 * store. A table that is unlinked is retired with the generation of that moment, not freed. The
 * generation is counted up under the lock only; so a reader that loads a later one cannot find the
 * table, and when a sync that began at a later one has waited for its readers, nobody is in the
 * table. Then it is spare: unmapping, which counts up and syncs anyway, pays nothing for it. A
 * retired root keeps its link to the tables below, for readers in it; it is wiped when the wait is
 * over. All other retired tables are zero already.
 *
 * When many are retired and no reader is inside they are taken back at once. Their number is
 * bounded: areas that were shown are removed after a sync. Only taking and dropping spans that were
 * never shown, over and over while one reader stays inside, could pile them up; then taking fails
 * with -ENOMEM at RETIRED_LIMIT.
 */
#include "iova/internal.h"

#include <errno.h>
#include "base/alloc.h"

#define SPARE_MAX 8
#define RETIRED_MANY 16
#define RETIRED_LIMIT 4096

/* ---- tables out of use ----------------------------------------------------------------------- */

static unsigned pool_kind(const struct radix_table *table)
{
	return table->level >= RADIX_PAGE;
}

/* `table` is all zero and no reader is in it. */
static void pool_put(struct radix_pool *pool, struct radix_table *table)
{
	unsigned kind = pool_kind(table);

	if (pool->nspare[kind] >= SPARE_MAX) {
		swi_free(table);
		return;
	}
	table->next = pool->spare[kind];
	pool->spare[kind] = table;
	pool->nspare[kind]++;
}

/* Makes spare tables of those retired ones that no reader can be in any more. */
static void pool_reap(struct radix_pool *pool)
{
	uint64_t safe = atomic_load_explicit(&pool->safe, memory_order_acquire);
	unsigned n = atomic_load_explicit(&pool->nretired, memory_order_relaxed);
	struct radix_table *table;

	for (; (table = pool->retired) && table->generation < safe; n--) {
		pool->retired = table->next;
		/* A root that was not empty; all others are zero. */
		atomic_store_explicit(&table->slot[0], 0, memory_order_relaxed);
		pool_put(pool, table);
	}
	atomic_store_explicit(&pool->nretired, n, memory_order_relaxed);
}

/* `generation` was loaded before it was found that no reader of that time is left inside. */
static void raise_safe(struct radix_pool *pool, uint64_t generation)
{
	uint64_t safe = atomic_load_explicit(&pool->safe, memory_order_relaxed);

	while (safe < generation &&
	       !atomic_compare_exchange_weak_explicit(&pool->safe, &safe, generation,
						      memory_order_acq_rel, memory_order_relaxed))
		;
}

/* The same without waiting for a sync, if no reader is inside just now. For when they become many.
 */
static void pool_reap_now(struct iova_map *map)
{
	uint64_t generation = map_count_up(map);

	if (map_readers_outside(map))
		raise_safe(&map->pool, generation);
	pool_reap(&map->pool);
}

void radix_readers_left(struct iova_map *map, uint64_t generation)
{
	raise_safe(&map->pool, generation);
	if (atomic_load_explicit(&map->pool.nretired, memory_order_relaxed) < RETIRED_MANY)
		return;
	iova_map_lock(map);
	pool_reap(&map->pool);
	iova_map_unlock(map);
}

static bool many_retired(const struct iova_map *map, unsigned many)
{
	return atomic_load_explicit(&map->pool.nretired, memory_order_relaxed) >= many;
}

static struct radix_table *table_alloc(struct iova_map *map, unsigned level)
{
	unsigned kind = level >= RADIX_PAGE;
	struct radix_table *table;

	if (!map->pool.spare[kind] && map->pool.retired)
		pool_reap(&map->pool);
	if (!map->pool.spare[kind] && many_retired(map, RETIRED_MANY))
		pool_reap_now(map);
	table = map->pool.spare[kind];
	if (table) {
		map->pool.spare[kind] = table->next;
		map->pool.nspare[kind]--;
	} else {
		if (many_retired(map, RETIRED_LIMIT))
			return NULL;
		table = swi_zalloc_aligned(SWI_CACHELINE,
					   sizeof(*table) +
						   radix_slots(level) * sizeof(table->slot[0]));
		if (!table)
			return NULL;
	}
	table->level = level;
	table->used = 0;
	table->next = NULL;
	return table;
}

/* `table` has been unlinked; readers may be in it. */
static void table_retire(struct iova_map *map, struct radix_table *table)
{
	struct radix_pool *pool = &map->pool;
	unsigned n = atomic_load_explicit(&pool->nretired, memory_order_relaxed) + 1;

	table->generation = map_generation(map);
	table->next = NULL;
	if (pool->retired)
		pool->retired_end->next = table;
	else
		pool->retired = table;
	pool->retired_end = table;
	atomic_store_explicit(&pool->nretired, n, memory_order_relaxed);
	if (n % RETIRED_MANY == 0)
		pool_reap_now(map);
}

static void free_list(struct radix_table *list)
{
	struct radix_table *next;

	for (; list; list = next) {
		next = list->next;
		swi_free(list);
	}
}

void radix_destroy(struct iova_map *map)
{
	free_list(map->pool.retired);
	free_list(map->pool.spare[0]);
	free_list(map->pool.spare[1]);
}

/* ---- walking a span -------------------------------------------------------------------------- */

static uintptr_t slot_get(const struct radix_table *table, unsigned index)
{
	/* The writer reads its own stores; what is behind them is under the lock. */
	return atomic_load_explicit(&table->slot[index], memory_order_relaxed);
}

static void slot_set(struct radix_table *table, unsigned index, uintptr_t word)
{
	atomic_store_explicit(&table->slot[index], word, memory_order_release);
}

static struct radix_table *slot_table(const struct radix_table *table, unsigned index)
{
	return radix_table_of(slot_get(table, index));
}

/* What [first, last], which lies within one table, is there: a run of whole slots and two in part.
 */
struct pieces {
	unsigned whole, nwhole;
	unsigned nparts;
	struct piece {
		unsigned index;
		iova_t first, last;
	} part[2];
};

static void pieces_of(const struct radix_table *table, iova_t first, iova_t last, struct pieces *p)
{
	iova_t low = ((iova_t)1 << radix_shift(table->level)) - 1;
	unsigned i = radix_index(table->level, first);
	unsigned end = radix_index(table->level, last) + 1;

	p->nparts = 0;
	if (first & low) {
		p->part[p->nparts++] = (struct piece){i, first, SWI_MIN(last, first | low)};
		i++;
	}
	if (i < end && (last & low) != low) {
		end--;
		p->part[p->nparts++] = (struct piece){end, SWI_MAX(first, last & ~low), last};
	}
	p->whole = i;
	p->nwhole = i < end ? end - i : 0;
}

/*
 * The table below a whole slot of a span: an area that filled a root which then grew is in that former
 * root, below slot 0, and not in the slot itself. Otherwise NULL; the table is all the area's.
 */
static struct radix_table *former_root(const struct radix_table *table, const struct pieces *p)
{
	return p->nwhole && !p->whole ? slot_table(table, 0) : NULL;
}

static iova_t slot_last(const struct radix_table *table, iova_t first)
{
	return first | (((iova_t)1 << radix_shift(table->level)) - 1);
}

/* Counts the slots of a span whose tables exist. */
static void count_slots(struct radix_table *table, iova_t first, iova_t last)
{
	struct pieces p;

	pieces_of(table, first, last, &p);
	table->used += p.nwhole;
	for (unsigned k = 0; k < p.nparts; k++) {
		struct radix_table *below = slot_table(table, p.part[k].index);

		if (below)
			count_slots(below, p.part[k].first, p.part[k].last);
		else
			table->used++; /* alone in its page */
	}
}

static void show(struct radix_table *table, iova_t first, iova_t last, struct iova_area *area)
{
	uintptr_t word = (uintptr_t)area;
	struct radix_table *former;
	struct pieces p;

	pieces_of(table, first, last, &p);
	former = former_root(table, &p);
	if (former)
		show(former, first, slot_last(table, first), area);
	for (unsigned k = 0; k < p.nparts; k++) {
		struct radix_table *below = slot_table(table, p.part[k].index);

		if (below)
			show(below, p.part[k].first, p.part[k].last, area);
		else
			slot_set(table, p.part[k].index, area ? word | RADIX_PART : 0);
	}
	for (unsigned i = former ? 1 : 0; i < p.nwhole; i++)
		slot_set(table, p.whole + i, word);
}

void radix_show(struct iova_map *map, iova_t first, iova_t last, struct iova_area *area)
{
	uintptr_t root = atomic_load_explicit(&map->view.root, memory_order_relaxed);

	show(radix_table_of(root), first, last, area);
}

/* ---- taking ---------------------------------------------------------------------------------- */

/* Frees tables that were never linked. */
static void free_unlinked(struct radix_table *table)
{
	for (unsigned i = 0; i < radix_slots(table->level); i++) {
		struct radix_table *below = slot_table(table, i);

		if (below)
			free_unlinked(below);
	}
	swi_free(table);
}

static const struct iova_span *who_shares(iova_t page, const struct iova_span *prev,
					  const struct iova_span *next)
{
	if (prev && prev->last >> SWI_PAGE_SHIFT == page >> SWI_PAGE_SHIFT)
		return prev;
	if (next && next->first >> SWI_PAGE_SHIFT == page >> SWI_PAGE_SHIFT)
		return next;
	return NULL;
}

static int make_tables(struct iova_map *map, struct radix_table *table, iova_t first, iova_t last,
		       const struct iova_span *prev, const struct iova_span *next);

/* Takes, counts and shows a span in tables that are not linked yet. */
static int fill_unlinked(struct iova_map *map, struct radix_table *table,
			 const struct iova_span *span, const struct iova_span *prev)
{
	int err = make_tables(map, table, span->first, span->last, prev, NULL);

	if (err)
		return err;
	count_slots(table, span->first, span->last);
	show(table, span->first, span->last, span->shown);
	return 0;
}

/* The tables below a page that `other` alone has held so far, with its part of the page in them. */
static int open_page(struct iova_map *map, iova_t page, const struct iova_span *other,
		     struct radix_table **out)
{
	iova_t last = page | (SWI_PAGE_SIZE - 1);
	struct iova_span part = {
		.first = SWI_MAX(other->first, last - (SWI_PAGE_SIZE - 1)),
		.last = SWI_MIN(other->last, last),
		.shown = other->shown,
	};
	struct radix_table *below = table_alloc(map, RADIX_LINE);
	int err;

	if (!below)
		return -ENOMEM;
	err = fill_unlinked(map, below, &part, NULL);
	if (err) {
		free_unlinked(below);
		return err;
	}
	*out = below;
	return 0;
}

/*
 * Makes what [first, last] lacks of tables under `table`. After a failure some may be there with
 * `used` 0, to be pruned.
 */
static int make_tables(struct iova_map *map, struct radix_table *table, iova_t first, iova_t last,
		       const struct iova_span *prev, const struct iova_span *next)
{
	struct pieces p;
	int err;

	pieces_of(table, first, last, &p);
	for (unsigned k = 0; k < p.nparts; k++) {
		const struct piece *part = &p.part[k];
		struct radix_table *below = slot_table(table, part->index);

		if (!below && table->level == RADIX_PAGE) {
			const struct iova_span *other = who_shares(part->first, prev, next);

			if (!other)
				continue;
			err = open_page(map, part->first, other, &below);
			if (err)
				return err;
			/* It counts for the slot that `other` had. */
			slot_set(table, part->index, radix_word_of(below));
		} else if (!below) {
			below = table_alloc(map, table->level - 1);
			if (!below)
				return -ENOMEM;
			table->used++;
			slot_set(table, part->index, radix_word_of(below));
		}
		err = make_tables(map, below, part->first, part->last, prev, next);
		if (err)
			return err;
	}
	return 0;
}

static unsigned level_for(iova_t last)
{
	unsigned level = RADIX_PAGE;

	while (level < RADIX_TOP && last >> radix_shift(level + 1))
		level++;
	return level;
}

/* Makes the table high enough for `last`. */
static int grow(struct iova_map *map, iova_t last)
{
	uintptr_t old = atomic_load_explicit(&map->view.root, memory_order_relaxed);
	struct radix_table *root = radix_table_of(old);
	unsigned want = level_for(last);
	unsigned level = root ? root->level + 1u : want;

	if (level > want)
		return 0;
	for (; level <= want; level++) {
		struct radix_table *above = table_alloc(map, level);

		if (!above)
			goto undo;
		if (root) {
			above->used = 1;
			slot_set(above, 0, radix_word_of(root));
		}
		root = above;
	}
	atomic_store_explicit(&map->view.root, radix_word_of(root), memory_order_release);
	return 0;
undo:
	while (root && radix_word_of(root) != old) {
		struct radix_table *above = root;

		root = slot_table(above, 0);
		swi_free(above);
	}
	return -ENOMEM;
}

/* ---- giving back ----------------------------------------------------------------------------- */

/* Takes off the slots of a span (not when `taken` is false) and unlinks the tables left empty. */
static void drop(struct iova_map *map, struct radix_table *table, iova_t first, iova_t last,
		 bool taken)
{
	struct radix_table *former;
	struct pieces p;

	pieces_of(table, first, last, &p);
	former = taken ? former_root(table, &p) : NULL;
	if (former) {
		drop(map, former, first, slot_last(table, first), true);
		slot_set(table, 0, 0);
		table_retire(map, former);
	}
	if (taken)
		table->used -= p.nwhole;
	for (unsigned k = 0; k < p.nparts; k++) {
		unsigned index = p.part[k].index;
		struct radix_table *below = slot_table(table, index);

		if (!below) {
			if (taken)
				table->used--;
			continue;
		}
		drop(map, below, p.part[k].first, p.part[k].last, taken);
		if (!below->used) {
			slot_set(table, index, 0);
			table->used--;
			table_retire(map, below);
		}
	}
}

/* Drops the span, then roots that are empty or higher than needed. */
static void drop_and_shrink(struct iova_map *map, iova_t first, iova_t last, bool taken)
{
	struct radix_table *root =
		radix_table_of(atomic_load_explicit(&map->view.root, memory_order_relaxed));

	drop(map, root, first, last, taken);
	for (;;) {
		struct radix_table *below = slot_table(root, 0);

		if (root->used && !(root->used == 1 && below && root->level > RADIX_PAGE))
			return;
		if (!root->used)
			below = NULL;
		atomic_store_explicit(&map->view.root, below ? radix_word_of(below) : 0,
				      memory_order_release);
		table_retire(map, root);
		if (!below)
			return;
		root = below;
	}
}

void radix_drop(struct iova_map *map, iova_t first, iova_t last)
{
	drop_and_shrink(map, first, last, true);
}

int radix_take(struct iova_map *map, iova_t first, iova_t last, const struct iova_span *prev,
	       const struct iova_span *next)
{
	struct radix_table *root;
	int err = grow(map, last);

	if (err)
		return err;
	root = radix_table_of(atomic_load_explicit(&map->view.root, memory_order_relaxed));
	err = make_tables(map, root, first, last, prev, next);
	if (err) {
		drop_and_shrink(map, first, last, false);
		return err;
	}
	count_slots(root, first, last);
	return 0;
}

int radix_cut(struct iova_map *map, const struct iova_span *span, iova_t at)
{
	struct radix_table *table =
		radix_table_of(atomic_load_explicit(&map->view.root, memory_order_relaxed));
	struct radix_table *below;
	struct iova_span left, right;
	unsigned index;
	iova_t low;
	int err;

	/* Down to the slot that holds both sides of the cut; at a slot's edge there is nothing to
	 * do. */
	for (;;) {
		low = ((iova_t)1 << radix_shift(table->level)) - 1;
		if (!((at + 1) & low))
			return 0;
		index = radix_index(table->level, at);
		below = slot_table(table, index);
		if (!below)
			break;
		table = below;
	}
	left = (struct iova_span){SWI_MAX(span->first, at & ~low), at, span->shown};
	right = (struct iova_span){at + 1, SWI_MIN(span->last, at | low), span->shown};
	below = table_alloc(map, table->level - 1);
	if (!below)
		return -ENOMEM;
	err = fill_unlinked(map, below, &left, NULL);
	if (!err)
		err = fill_unlinked(map, below, &right, &left);
	if (err) {
		free_unlinked(below);
		return err;
	}
	/* It counts for the slot that the span had. */
	slot_set(table, index, radix_word_of(below));
	return 0;
}

/* ---- looking up ------------------------------------------------------------------------------ */

/* The area that is alone in a page, if it holds `iova`. */
static struct iova_area *look_at_part(uintptr_t word, iova_t iova, iova_t *first, iova_t *last)
{
	struct iova_area *area = (struct iova_area *)(word & ~(uintptr_t)RADIX_TAG);

	*first = area->iova;
	*last = atomic_load_explicit(&area->last, memory_order_acquire);
	return iova >= *first && iova <= *last ? area : NULL;
}

/* Below the page: `shift` becomes that of the slot in which the word was found. */
static uintptr_t look_below_page(const struct radix_table *table, iova_t iova, unsigned *shift)
{
	uintptr_t word = atomic_load_explicit(&table->slot[iova >> 6 & 63], memory_order_acquire);

	*shift = 6;
	table = radix_table_of(word);
	if (!table)
		return word;
	*shift = 0;
	return atomic_load_explicit(&table->slot[iova & 63], memory_order_acquire);
}

struct iova_area *radix_lookup(const struct iova_map *map, iova_t iova, iova_t *first, iova_t *last,
			       bool *page)
{
	uintptr_t word = atomic_load_explicit(&map->view.root, memory_order_acquire);
	const struct radix_table *table = radix_table_of(word);
	const _Atomic(uintptr_t) *slot;
	struct iova_area *area;
	unsigned shift;

	*page = true;
	if (!table)
		return NULL;
	shift = SWI_PAGE_SHIFT + 9 * ((unsigned)(word >> 2 & 7) - RADIX_PAGE);
	if (iova >> shift >= 512)
		return NULL;
	for (;;) {
		slot = &table->slot[iova >> shift & 511];
		word = atomic_load_explicit(slot, memory_order_acquire);
		table = radix_table_of(word);
		if (SWI_LIKELY(!table))
			break;
		if (SWI_UNLIKELY(shift == SWI_PAGE_SHIFT)) {
			*page = false;
			word = look_below_page(table, iova, &shift);
			break;
		}
		shift -= 9;
	}
	if (SWI_UNLIKELY(word & RADIX_PART)) {
		*page = false;
		area = look_at_part(word, iova, first, last);
		/*
		 * A split stores the slot first and the shorter end then: the old slot with the new
		 * end would make a hole that never was. Who saw the new end sees the new slot now.
		 */
		if (!area && atomic_load_explicit(slot, memory_order_acquire) != word)
			return radix_lookup(map, iova, first, last, page);
		return area;
	}
	*first = iova >> shift << shift;
	*last = *first + (((iova_t)1 << shift) - 1);
	return (struct iova_area *)word;
}
