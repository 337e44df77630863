// SPDX-License-Identifier: MIT
/*
 * Unmapping, and what is left of it for after the grace period.
 *
 * From the root down to where the range begins: a table that the range covers and that is full goes
 * as a whole, by the entry that points to it; leaves go one by one, to the end of their table; and
 * anything else ends it. So empty tables stay where a range does not cover them; pgtable_trim() is for whoever knows
 * of a range in which nothing is mapped. Tables that go keep their contents, for readers that are in them, and are
 * wiped when the gather is freed.
 */
#include "pgtable/internal.h"

/* ---- gathers --------------------------------------------------------------------------------- */

void gather_range(struct pgtable_gather *gather, iova_t first, iova_t last)
{
	if (!gather)
		return;
	gather->first = SWI_MIN(gather->first, first);
	gather->last = SWI_MAX(gather->last, last);
}

/* Puts a table and all tables below it in front of a list. Deep as there are levels. */
static uint32_t collect(struct pgtable *pt, uint32_t number, uint32_t list)
{
	struct table table = table_at(&pt->tables, number);
	unsigned level = table.meta->level;

	for (unsigned i = 0; level && i < 1u << pt->geo.index_lg2; i++) {
		uint64_t e = atomic_load_explicit(&table.slot[i], memory_order_acquire);

		if (entry_present(&pt->geo, e) && entry_is_table(&pt->geo, level, e))
			list = collect(pt, table_number(&pt->tables, entry_pa(&pt->geo, e)), list);
	}
	table.meta->next = list;
	return number + 1;
}

void gather_table(struct pgtable *pt, struct pgtable_gather *gather, uint32_t number)
{
	if (!gather) {
		tables_free(&pt->tables, collect(pt, number, 0));
		return;
	}
	table_at(&pt->tables, number).meta->next = gather->retired;
	gather->retired = number + 1;
}

void pgtable_gather_free(struct pgtable *pt, struct pgtable_gather *gather)
{
	uint32_t list = 0;

	for (uint32_t n = gather->retired; n;) {
		uint32_t number = n - 1;

		n = table_at(&pt->tables, number).meta->next;
		list = collect(pt, number, list);
	}
	if (list)
		tables_free(&pt->tables, list);
	pgtable_gather_init(gather);
}

/* ---- unmapping ------------------------------------------------------------------------------- */

/* Takes away the table below the path's lowest slot, which holds `e`. */
static void detach(struct pgtable *pt, struct path *path, uint64_t e, struct pgtable_gather *gather)
{
	unsigned level = path->lowest;
	struct table *table = &path->at[level].table;
	uint32_t number = table_number(&pt->tables, entry_pa(&pt->geo, e));
	struct table below = table_at(&pt->tables, number);

	if (table_full(pt, &below, level - 1))
		path_account(pt, path, level, -1);
	atomic_store_explicit(path_slot(path, level), 0, memory_order_release);
	dirty_forget(table, path->at[level].index, 1);
	gather_table(pt, gather, number);
}

/* Takes away leaves from the path's lowest slot on, within its table; returns the bytes. */
static uint64_t unmap_leaves(struct pgtable *pt, struct path *path, iova_t iova, uint64_t length,
			     uint64_t block)
{
	const struct pgtable_geometry *geo = &pt->geo;
	unsigned level = path->lowest, first = path->at[level].index, index = first;
	unsigned slots = level_slots(geo, level);
	struct table *table = &path->at[level].table;
	uint64_t done = 0;

	while (index < slots && done < length) {
		uint64_t e = atomic_load_explicit(&table->slot[index], memory_order_relaxed);
		unsigned lg2, n;

		if (!entry_present(geo, e) || entry_is_table(geo, level, e))
			break;
		lg2 = leaf_lg2(pt, level, e);
		if ((iova + done) & low_mask(lg2) ||
		    (geo->arm_rules && SWI_MIN(length - done, block) < 1ull << lg2))
			break;
		n = 1u << (lg2 - level_lg2(geo, level));
		for (unsigned i = 0; i < n; i++)
			atomic_store_explicit(&table->slot[index + i], 0, memory_order_release);
		index += n;
		done += 1ull << lg2;
	}
	if (index > first) {
		dirty_forget(table, first, index - first);
		path_account(pt, path, level, -(int)(index - first));
	}
	return done;
}

/* May the table that `e` at the path's lowest level points to go with all it has? */
static bool may_detach(struct pgtable *pt, struct path *path, uint64_t e, iova_t iova,
		       uint64_t left, uint64_t block)
{
	uint64_t covers = low_mask(level_lg2(&pt->geo, path->lowest));
	struct table below;

	if (iova & covers || left - 1 < covers)
		return false;
	below = table_at(&pt->tables, table_number(&pt->tables, entry_pa(&pt->geo, e)));
	return block > covers || table_full(pt, &below, path->lowest - 1);
}

/* One table's worth from `iova` on; 0: a hole, or something that has to stay. */
static uint64_t unmap_step(struct pgtable *pt, iova_t iova, uint64_t left, uint64_t block,
			   struct pgtable_gather *gather)
{
	struct path path;

	if (!path_enter(pt, iova, &path))
		return 0;
	for (;;) {
		uint64_t e = path_entry(&path);

		if (!entry_present(&pt->geo, e))
			return 0;
		if (!entry_is_table(&pt->geo, path.lowest, e))
			return unmap_leaves(pt, &path, iova, left, block);
		if (may_detach(pt, &path, e, iova, left, block)) {
			detach(pt, &path, e, gather);
			return 1ull << level_lg2(&pt->geo, path.lowest);
		}
		path_down(pt, iova, &path, e);
	}
}

/* ARM: in steps of `block` at most. Tables of that size go with their holes, larger leaves stay. */
static uint64_t unmap_range(struct pgtable *pt, iova_t iova, uint64_t length, uint64_t block,
			    struct pgtable_gather *gather)
{
	uint64_t done = 0;

	while (done < length && va_valid(&pt->geo, iova + done)) {
		uint64_t n = unmap_step(pt, iova + done, length - done, block, gather);

		if (!n)
			break;
		done += n;
		if (iova + done < iova) /* that was the last address */
			break;
	}
	if (done)
		gather_range(gather, iova, iova + (done - 1));
	return done;
}

uint64_t pgtable_unmap_pages(struct pgtable *pt, iova_t iova, uint64_t pgsize, uint64_t count,
			     struct pgtable_gather *gather)
{
	uint64_t length;

	if (!is_pow2_u64(pgsize) || !(pgsize & pt->geo.pgsizes) || iova & (pgsize - 1) ||
	    __builtin_mul_overflow(pgsize, count, &length))
		return 0;
	return unmap_range(pt, iova, length, pt->geo.arm_rules ? pgsize : 0, gather);
}

uint64_t pgtable_unmap(struct pgtable *pt, iova_t iova, uint64_t length,
		       struct pgtable_gather *gather)
{
	uint64_t sizes = pt->geo.pgsizes, largest = 1ull << (63 - __builtin_clzll(sizes));

	/* What the range covers of a table is what steps of the largest sizes would cover. */
	return unmap_range(pt, iova, length, pt->geo.arm_rules ? largest : 0, gather);
}

/* ---- empty tables ---------------------------------------------------------------------------- */

/* In a table whose slot 0 is at `base`, which [first, last] meets. */
static void trim_table(struct pgtable *pt, struct table *table, unsigned level, iova_t base,
		       iova_t first, iova_t last, struct pgtable_gather *gather)
{
	unsigned lg2 = level_lg2(&pt->geo, level);
	unsigned from = (unsigned)((first - base) >> lg2), to = (unsigned)((last - base) >> lg2);

	for (unsigned i = from; level && i <= to; i++) {
		uint64_t e = atomic_load_explicit(&table->slot[i], memory_order_acquire);
		iova_t at = base + ((iova_t)i << lg2), end = at + low_mask(lg2);
		struct table below;
		uint32_t number;

		if (!entry_present(&pt->geo, e) || !entry_is_table(&pt->geo, level, e))
			continue;
		number = table_number(&pt->tables, entry_pa(&pt->geo, e));
		if (at >= first && end <= last) {
			atomic_store_explicit(&table->slot[i], 0, memory_order_release);
			dirty_forget(table, i, 1);
			gather_table(pt, gather, number);
			continue;
		}
		below = table_at(&pt->tables, number);
		trim_table(pt, &below, level - 1, at, SWI_MAX(first, at), SWI_MIN(last, end),
			   gather);
	}
}

void pgtable_trim(struct pgtable *pt, iova_t first, iova_t last, struct pgtable_gather *gather)
{
	struct path path;
	iova_t reach;

	/* Of a sign-extended table the upper half is nobody's business here. */
	path_enter(pt, 0, &path);
	reach = low_mask(
		SWI_MIN(pt->geo.va_bits - pt->geo.sign_extended,
			level_lg2(&pt->geo, path.top) + level_slots_lg2(&pt->geo, path.top)));
	last = SWI_MIN(last, reach);
	if (first <= last)
		trim_table(pt, &path.at[path.top].table, path.top, 0, first, last, gather);
}

size_t pgtable_tables(struct pgtable *pt)
{
	return atomic_load_explicit(&pt->tables.live, memory_order_relaxed);
}
