// SPDX-License-Identifier: MIT
/*
 * Dirty state.
 *
 * Each page of tables has a bit per slot beside it (struct table). At a leaf it says "dirty", for
 * all entries of a leaf of several alike; at a pointer to a table, "something below may be dirty". So
 * a read goes down only where there is something to find, and cleans 64 leaves by one exchange,
 * without touching entries. Entries get their dirty bit when somebody looks at them.
 *
 * A mark sets the leaf's bits first, then those above, each only if it is not set yet. A read that
 * cleans takes bits away from above, then those below. All this is sequentially consistent: if a
 * mark finds a bit above still set, the read that will take it away looks below afterwards. Each
 * mark looks at all levels, whoever else marks the same leaf: when it is done, a read finds it.
 *
 * When the root grows (AMDv1), marks may still come in by the old one. So the levels that were added
 * keep no account of what is below: their tables are few and are always looked through.
 *
 * A mark can be late: the leaf was unmapped since the walk. Unmapping stores the empty entry, then
 * clears the bits; a mark sets the bits, then looks at the entry again, and takes them back if it
 * changed. Both change the same word, so one of them sees what the other did. The mark's caller is
 * a reader, so nothing new is mapped there in between.
 */
#include "pgtable/internal.h"

#include <errno.h>

#define WORD_BITS 64u

/* The bits of word w for slots [first, last]. */
static uint64_t word_mask(unsigned w, unsigned first, unsigned last)
{
	uint64_t mask = UINT64_MAX;

	if (w == first / WORD_BITS)
		mask &= UINT64_MAX << first % WORD_BITS;
	if (w == last / WORD_BITS)
		mask &= UINT64_MAX >> (WORD_BITS - 1 - last % WORD_BITS);
	return mask;
}

static bool dirty_test(const struct table *table, unsigned index)
{
	return atomic_load(&table->dirty[index / WORD_BITS]) >> index % WORD_BITS & 1;
}

/* True if a bit was not set before. */
static bool dirty_set(struct table *table, unsigned first, unsigned n)
{
	unsigned last = first + n - 1;
	bool changed = false;

	for (unsigned w = first / WORD_BITS; w <= last / WORD_BITS; w++) {
		uint64_t mask = word_mask(w, first, last);

		if (~atomic_load(&table->dirty[w]) & mask) {
			atomic_fetch_or(&table->dirty[w], mask);
			changed = true;
		}
	}
	return changed;
}

void dirty_forget(struct table *table, unsigned first, unsigned n)
{
	unsigned last = first + n - 1;

	if (!table->dirty)
		return;
	/* Always an exchange, also when nothing is set: see the essay. */
	for (unsigned w = first / WORD_BITS; w <= last / WORD_BITS; w++)
		atomic_fetch_and(&table->dirty[w], ~word_mask(w, first, last));
}

/* Tells the tables above the path's lowest. */
static void dirty_tell(struct pgtable *pt, struct path *path)
{
	/* Levels that the root has grown by are always looked at. */
	unsigned top = SWI_MIN(path->top, pt->geo.top);

	for (unsigned level = path->lowest + 1; level <= top; level++) {
		struct table *table = &path->at[level].table;
		unsigned index = path->at[level].index;

		/* Late: nothing from here up leads to the leaf any more. */
		if (dirty_set(table, index, 1) &&
		    atomic_load(&table->slot[index]) != path->at[level].entry) {
			dirty_forget(table, index, 1);
			return;
		}
	}
}

void dirty_fresh(struct pgtable *pt, struct path *path, unsigned first, unsigned n)
{
	dirty_set(&path->at[path->lowest].table, first, n);
	dirty_tell(pt, path);
}

uint64_t dirty_render(const struct pgtable *pt, const struct table *table, unsigned index,
		      uint64_t e)
{
	return table->dirty && dirty_test(table, index) ? e ^ pt->geo.dirty_flip : e;
}

/* ---- marking --------------------------------------------------------------------------------- */

/*
 * How many slots from the path's lowest on hold leaves that can be dirty and begin at or below `last`, all of natural
 * size; or those of the one larger leaf that it belongs to, with the first of them in *first.
 */
static unsigned leaves_at(struct pgtable *pt, struct path *path, uint64_t e, iova_t iova,
			  iova_t last, unsigned *first)
{
	const struct pgtable_geometry *geo = &pt->geo;
	unsigned level = path->lowest, lg2 = level_lg2(geo, level), n = 1, most;
	slot_t *slot = path_slot(path, level);

	*first = path->at[level].index;
	if (entry_is_contig(geo, e)) {
		n = 1u << (leaf_lg2(pt, level, e) - lg2);
		*first &= ~(n - 1);
		return n;
	}
	most = level_slots(geo, level) - *first;
	if ((last >> lg2) - (iova >> lg2) < most)
		most = (unsigned)((last >> lg2) - (iova >> lg2)) + 1;
	for (; n < most; n++) {
		e = atomic_load_explicit(&slot[n], memory_order_acquire);
		if (!entry_present(geo, e) || entry_is_table(geo, level, e) ||
		    entry_is_contig(geo, e) || (e & geo->dirty_need) != geo->dirty_need)
			break;
	}
	return n;
}

/* Marks the leaves in `n` slots of the path's lowest table. */
static void mark_leaves(struct pgtable *pt, struct path *path, unsigned first, unsigned n)
{
	struct table *table = &path->at[path->lowest].table;

	if (dirty_set(table, first, n))
		for (unsigned i = first; i < first + n; i++)
			if (!entry_present(&pt->geo, atomic_load(&table->slot[i])))
				dirty_forget(table, i, 1);
	dirty_tell(pt, path);
}

/* The last IOVA at which something can be mapped. There is no sign-extended format with dirty state. */
static iova_t reach_last(struct pgtable *pt)
{
	unsigned top = atomic_load_explicit(&pt->root, memory_order_acquire) & ROOT_LEVEL;
	unsigned reach = level_lg2(&pt->geo, top) + level_slots_lg2(&pt->geo, top);

	return low_mask(SWI_MIN(pt->geo.va_bits, reach));
}

void pgtable_mark_dirty(struct pgtable *pt, iova_t iova, uint64_t length)
{
	const struct pgtable_geometry *geo = &pt->geo;
	uint64_t last;

	if (!geo->dirty_flip || !range_last(iova, length, &last))
		return;
	last = SWI_MIN(last, reach_last(pt));
	while (iova <= last) {
		struct path path;
		uint64_t e, inside;
		bool leaf = path_walk(pt, iova, &path, &e);
		unsigned first, n = 1;

		/* Over a hole as far as one entry tells. */
		inside =
			low_mask(leaf ? leaf_lg2(pt, path.lowest, e) : level_lg2(geo, path.lowest));
		if (leaf && (e & geo->dirty_need) == geo->dirty_need) {
			n = leaves_at(pt, &path, e, iova, last, &first);
			mark_leaves(pt, &path, first, n);
			if (entry_is_contig(geo, e))
				n = 1;
		}
		iova |= inside;
		if (iova >= last || last - iova <= (n - 1) * (inside + 1))
			return;
		iova += (n - 1) * (inside + 1) + 1;
	}
}

/* Remembers the table that `iova` leads to. */
static void marker_learn(struct pgtable *pt, struct pgtable_marker *m, iova_t iova)
{
	const struct pgtable_geometry *geo = &pt->geo;
	struct path path;
	unsigned level, top;
	uint64_t e;

	pgtable_marker_init(m);
	if (!path_walk(pt, iova, &path, &e))
		return;
	level = path.lowest;
	top = SWI_MIN(path.top, geo->top);
	m->lg2 = level_lg2(geo, level);
	m->last = low_mask(m->lg2 + level_slots_lg2(geo, level));
	m->first = iova & ~m->last;
	m->slot = path.at[level].table.slot;
	m->dirty = path.at[level].table.dirty;
	for (level++; level <= top; level++, m->above++) {
		struct table *table = &path.at[level].table;
		unsigned index = path.at[level].index;

		m->at[m->above].slot = &table->slot[index];
		m->at[m->above].entry = path.at[level].entry;
		m->at[m->above].word = &table->dirty[index / WORD_BITS];
		m->at[m->above].bit = 1ull << index % WORD_BITS;
	}
}

/* The same order of steps as mark_leaves() and dirty_tell(), for one leaf of natural size; false: it is none. */
static bool marker_set(struct pgtable *pt, struct pgtable_marker *m, unsigned index)
{
	const struct pgtable_geometry *geo = &pt->geo;
	uint64_t bit = 1ull << index % WORD_BITS, e = atomic_load(&m->slot[index]);
	slot_t *word = &m->dirty[index / WORD_BITS];

	/* At the level of a marker's slots there may be tables too, where leaves of that size are neighbours. */
	if (!entry_present(geo, e) || entry_is_contig(geo, e) ||
	    (e & geo->dirty_need) != geo->dirty_need ||
	    entry_is_table(geo, (m->lg2 - geo->granule_lg2) / geo->index_lg2, e))
		return false;
	if (!(atomic_load(word) & bit)) {
		atomic_fetch_or(word, bit);
		if (atomic_load(&m->slot[index]) != e)
			atomic_fetch_and(word, ~bit);
	}
	for (unsigned i = 0; i < m->above; i++) {
		if (atomic_load(m->at[i].word) & m->at[i].bit)
			continue;
		atomic_fetch_or(m->at[i].word, m->at[i].bit);
		if (atomic_load(m->at[i].slot) != m->at[i].entry) {
			atomic_fetch_and(m->at[i].word, ~m->at[i].bit);
			break;
		}
	}
	return true;
}

void pgtable_mark_more(struct pgtable *pt, struct pgtable_marker *m, iova_t iova, uint64_t length)
{
	uint64_t from = iova - m->first, to = from + (length - 1);

	if (m->dirty && to >= from && to <= m->last && from >> m->lg2 == to >> m->lg2 &&
	    marker_set(pt, m, (unsigned)(from >> m->lg2)))
		return;
	pgtable_mark_dirty(pt, iova, length);
	if (pt->geo.dirty_flip)
		marker_learn(pt, m, iova);
}

/* ---- reading --------------------------------------------------------------------------------- */

struct scan {
	struct pgtable *pt;
	bool clear;
	void (*fn)(void *data, iova_t iova, uint64_t length);
	void *data;
	struct pgtable_gather *gather;
	/* Found, and not reported yet because more may follow. */
	bool pending;
	iova_t first, last;
};

static void report_pending(struct scan *scan)
{
	if (scan->pending && scan->fn)
		scan->fn(scan->data, scan->first, scan->last - scan->first + 1);
	scan->pending = false;
}

static void report(struct scan *scan, iova_t first, iova_t last)
{
	if (scan->pending && scan->last + 1 == first) {
		scan->last = last;
		return;
	}
	report_pending(scan);
	scan->pending = true;
	scan->first = first;
	scan->last = last;
}

/* Found clean leaves dirty, all of them in the range: reports them; they are clean now. */
static void found(struct scan *scan, iova_t first, iova_t last)
{
	report(scan, first, last);
	if (scan->clear)
		gather_range(scan->gather, first, last);
}

/* The bits among `mask` of a word of a table at level 0. */
static uint64_t take_leaves(const struct scan *scan, slot_t *word, uint64_t mask)
{
	uint64_t bits = atomic_load(word) & mask;

	if (!bits || !scan->clear)
		return bits;
	return mask & (~mask ? atomic_fetch_and(word, ~mask) : atomic_exchange(word, 0));
}

/* Tells of leaves at level 0, a bit for each, the first one's at `base`. */
static void found_leaves(struct scan *scan, uint64_t bits, iova_t base)
{
	unsigned lg2 = scan->pt->geo.granule_lg2;

	while (bits) {
		unsigned from = (unsigned)__builtin_ctzll(bits);
		uint64_t rest = ~(bits >> from);
		unsigned n = rest ? SWI_MIN((unsigned)__builtin_ctzll(rest), WORD_BITS - from)
				  : WORD_BITS;

		found(scan, base + ((iova_t)from << lg2), base + ((iova_t)(from + n) << lg2) - 1);
		bits &= ~(low_mask(n) << from);
	}
}

/* The dirty leaves in slots from .. to of a table at level 0, whose slot 0 is at `base`. */
static void scan_leaves(struct scan *scan, struct table *table, iova_t base, unsigned from,
			unsigned to)
{
	unsigned lg2 = scan->pt->geo.granule_lg2, end = to / WORD_BITS, full = UINT32_MAX;

	for (unsigned w = from / WORD_BITS; w <= end; w++) {
		uint64_t bits = take_leaves(scan, &table->dirty[w], word_mask(w, from, to));
		iova_t at = base + ((iova_t)w * WORD_BITS << lg2);

		/* Words that are full are told of together. */
		if (!~bits) {
			full = SWI_MIN(full, w);
			if (w == end)
				found(scan, base + ((iova_t)full * WORD_BITS << lg2),
				      at + ((iova_t)WORD_BITS << lg2) - 1);
			continue;
		}
		if (full != UINT32_MAX)
			found(scan, base + ((iova_t)full * WORD_BITS << lg2), at - 1);
		full = UINT32_MAX;
		found_leaves(scan, bits, at);
	}
}

static void scan_table(struct scan *scan, struct table *table, unsigned level, iova_t base,
		       iova_t first, iova_t last);

/*
 * One slot above level 0 that is dirty, or may be. Whatever of it has been taken as clean is looked
 * at from here on. The range covers each leaf that it meets.
 */
static void scan_slot(struct scan *scan, struct table *table, unsigned level, unsigned index,
		      bool dirty, iova_t at, iova_t first, iova_t last)
{
	struct pgtable *pt = scan->pt;
	iova_t end = at + low_mask(level_lg2(&pt->geo, level));
	uint64_t e = atomic_load(&table->slot[index]);
	struct table below;

	if (!entry_present(&pt->geo, e))
		return;
	if (!entry_is_table(&pt->geo, level, e)) {
		if (dirty)
			found(scan, at, end);
		return;
	}
	below = table_at(&pt->tables, table_number(&pt->tables, entry_pa(&pt->geo, e)));
	scan_table(scan, &below, level - 1, at, SWI_MAX(first, at), SWI_MIN(last, end));
}

/* What is dirty in a table whose slot 0 is at `base`, in [first, last], which meets it. */
static void scan_table(struct scan *scan, struct table *table, unsigned level, iova_t base,
		       iova_t first, iova_t last)
{
	unsigned lg2 = level_lg2(&scan->pt->geo, level);
	unsigned from = (unsigned)((first - base) >> lg2), to = (unsigned)((last - base) >> lg2);
	uint64_t head = first & low_mask(lg2), tail = ~last & low_mask(lg2);

	if (!level) {
		scan_leaves(scan, table, base, from, to);
		return;
	}
	for (unsigned w = from / WORD_BITS; w <= to / WORD_BITS; w++) {
		uint64_t mask = word_mask(w, from, to), clean = mask;
		uint64_t dirty = mask & atomic_load(&table->dirty[w]);
		iova_t at = base + ((iova_t)w * WORD_BITS << lg2);

		/* Clear first, then look below; but not where only a part is looked at. */
		if (head && w == from / WORD_BITS)
			clean &= ~(1ull << from % WORD_BITS);
		if (tail && w == to / WORD_BITS)
			clean &= ~(1ull << to % WORD_BITS);
		if (scan->clear && dirty & clean)
			dirty |= mask & atomic_fetch_and(&table->dirty[w], ~clean);
		if (level <= scan->pt->geo.top)
			mask = dirty;
		for (; mask; mask &= mask - 1) {
			unsigned bit = (unsigned)__builtin_ctzll(mask);

			scan_slot(scan, table, level, w * WORD_BITS + bit, dirty >> bit & 1,
				  at + ((iova_t)bit << lg2), first, last);
		}
	}
}

/* Where something is or may be dirty first in a table whose slot 0 is at `base`, of [first, last], which meets it. */
static bool next_in_table(struct pgtable *pt, struct table *table, unsigned level, iova_t base,
			  iova_t first, iova_t last, iova_t *at)
{
	unsigned lg2 = level_lg2(&pt->geo, level);
	unsigned from = (unsigned)((first - base) >> lg2), to = (unsigned)((last - base) >> lg2);

	for (unsigned w = from / WORD_BITS; w <= to / WORD_BITS; w++) {
		uint64_t mask = word_mask(w, from, to),
			 dirty = mask & atomic_load(&table->dirty[w]);

		if (level <= pt->geo.top)
			mask = dirty;
		for (; mask; mask &= mask - 1) {
			unsigned index = w * WORD_BITS + (unsigned)__builtin_ctzll(mask);
			iova_t slot = base + ((iova_t)index << lg2), end = slot + low_mask(lg2);
			uint64_t e = atomic_load(&table->slot[index]);
			struct table below;

			if (!entry_present(&pt->geo, e))
				continue;
			*at = SWI_MAX(first, slot);
			if (!entry_is_table(&pt->geo, level, e)) {
				if (dirty & mask & -mask)
					return true;
				continue;
			}
			below = table_at(&pt->tables,
					 table_number(&pt->tables, entry_pa(&pt->geo, e)));
			if (next_in_table(pt, &below, level - 1, slot, *at, SWI_MIN(last, end), at))
				return true;
		}
	}
	return false;
}

bool pgtable_next_dirty(struct pgtable *pt, iova_t first, iova_t last, iova_t *at)
{
	struct path path;

	if (!pt->geo.dirty_flip)
		return false;
	last = SWI_MIN(last, reach_last(pt));
	if (first > last)
		return false;
	path_enter(pt, first, &path);
	return next_in_table(pt, &path.at[path.top].table, path.top, 0, first, last, at);
}

/* Is there a leaf at `iova` that reaches beyond [first, last]? Then also whether it is dirty. */
static bool sticks_out(struct pgtable *pt, iova_t iova, iova_t first, iova_t last,
		       struct pgtable_leaf *leaf)
{
	return pgtable_lookup(pt, iova, leaf) &&
	       (leaf->iova < first || leaf->iova + (leaf->length - 1) > last);
}

/* The entries of a leaf of 2^lg2 bytes of the table at `level`, for memory from `pa` on; false: no such leaf. */
static bool split_entry(struct pgtable *pt, unsigned level, unsigned lg2, uint64_t e, phys_t pa,
			uint64_t *entry)
{
	uint64_t bits;

	if (pt->format->leaf_bits(&pt->geo, pt->features, pt->format->leaf_prot(e), level, lg2,
				  &bits))
		return false;
	*entry = bits | entry_address(&pt->geo, pa);
	return true;
}

/* Writes leaves of 2^lg2 bytes into n slots that translate the memory from `pa` on. */
static bool write_split(struct pgtable *pt, slot_t *slot, unsigned n, unsigned level, unsigned lg2,
			uint64_t e, phys_t pa)
{
	unsigned each = 1u << (lg2 - level_lg2(&pt->geo, level));
	uint64_t entry = 0;

	for (unsigned i = 0; i < n; i++) {
		if (!(i % each) &&
		    !split_entry(pt, level, lg2, e, pa + ((phys_t)(i / each) << lg2), &entry))
			return false;
		atomic_store_explicit(&slot[i], entry, memory_order_release);
	}
	return true;
}

/*
 * Puts leaves of the next smaller size in the place of the dirty one at `iova`, all dirty, so that part of it can be
 * cleaned. False: there is no such size at the same level or the one below, or no memory. Translations stay as they are at every moment. Who marks the large leaf meanwhile
 * marks what is marked: he was inside before the read.
 */
static bool split_leaf(struct pgtable *pt, iova_t iova)
{
	const struct pgtable_geometry *geo = &pt->geo;
	unsigned level, lg2, smaller, n, first;
	struct table below;
	struct path path;
	uint64_t e, sizes;
	phys_t pa, at;

	if (geo->arm_rules || !path_walk(pt, iova, &path, &e))
		return false;
	level = path.lowest;
	lg2 = leaf_lg2(pt, level, e);
	pa = entry_pa(geo, e) & ~low_mask(lg2);
	sizes = geo->pgsizes & low_mask(lg2);
	if (!sizes)
		return false;
	smaller = 63 - (unsigned)__builtin_clzll(sizes);
	if (smaller >= level_lg2(geo, level)) {
		n = 1u << (lg2 - level_lg2(geo, level));
		first = path.at[level].index & ~(n - 1);
		return write_split(pt, &path.at[level].table.slot[first], n, level, smaller, e, pa);
	}
	if (!level || lg2 != level_lg2(geo, level) || level_of_lg2(geo, smaller) != level - 1)
		return false;
	if (tables_alloc(&pt->tables, level - 1, &at, &below))
		return false;
	n = 1u << geo->index_lg2;
	if (!write_split(pt, below.slot, n, level - 1, smaller, e, pa)) {
		tables_free(&pt->tables, table_number(&pt->tables, at) + 1);
		return false;
	}
	dirty_set(&below, 0, n);
	atomic_store_explicit(&below.meta->full, n, memory_order_relaxed);
	atomic_store(path_slot(&path, level),
		     geo->level[level].table_bits | entry_address(geo, at));
	return true;
}

/* As far as there is such a leaf that is dirty and to be cleaned in part, splits it. */
static void split_edge(struct scan *scan, iova_t iova, iova_t first, iova_t last)
{
	struct pgtable_leaf leaf;

	while (scan->clear && sticks_out(scan->pt, iova, first, last, &leaf) && leaf.dirty &&
	       split_leaf(scan->pt, iova))
		if (scan->gather)
			scan->gather->split = true;
}

static void scan_range(struct scan *scan, iova_t first, iova_t last)
{
	struct pgtable_leaf head, tail;
	bool has_tail;
	struct path path;

	split_edge(scan, first, first, last);
	split_edge(scan, last, first, last);
	if (sticks_out(scan->pt, first, first, last, &head)) {
		iova_t end = SWI_MIN(last, head.iova + (head.length - 1));

		if (head.dirty)
			report(scan, first, end);
		if (end == last)
			return;
		first = end + 1;
	}
	has_tail = sticks_out(scan->pt, last, first, last, &tail);
	if (!has_tail || tail.iova > first) {
		iova_t end = has_tail ? tail.iova - 1 : last;

		path_enter(scan->pt, first, &path);
		scan_table(scan, &path.at[path.top].table, path.top, 0, first, end);
	}
	if (has_tail && tail.dirty)
		report(scan, tail.iova, last);
}

int pgtable_read_dirty(struct pgtable *pt, iova_t iova, uint64_t length, unsigned flags,
		       void (*fn)(void *data, iova_t iova, uint64_t length), void *data,
		       struct pgtable_gather *gather)
{
	const struct pgtable_geometry *geo = &pt->geo;
	struct scan scan = {
		.pt = pt,
		.clear = !(flags & PGTABLE_NO_CLEAR),
		.fn = fn,
		.data = data,
		.gather = gather,
	};
	uint64_t last;

	if (!geo->dirty_flip)
		return geo->dirty_errno;
	if (flags & ~PGTABLE_NO_CLEAR || !length)
		return -EINVAL;
	if (!range_last(iova, length, &last))
		return -EOVERFLOW;
	/* Nothing is mapped beyond what the root reaches. */
	last = SWI_MIN(last, reach_last(pt));
	if (iova <= last)
		scan_range(&scan, iova, last);
	report_pending(&scan);
	return 0;
}
