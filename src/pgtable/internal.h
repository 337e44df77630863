/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_PGTABLE_INTERNAL_H
#define SWIOMMU_PGTABLE_INTERNAL_H

/* What the files of src/pgtable share; the essay is in pgtable.c. */

#include "pgtable/format.h"
#include "pgtable/tables.h"

struct pgtable {
	struct pgtable_geometry geo; /* immutable */
	const struct pgtable_format *format;
	unsigned features;
	/* Where the root lies, and its level in the low bits: changes in one piece when it grows. */
	_Atomic(uint64_t) root;
	struct tables tables;
};

/*
 * The tables from the root down to some level that translate an IOVA, indexed by level. Those below
 * `lowest` are not filled in.
 */
struct path {
	unsigned top, lowest;
	struct {
		struct table table;
		unsigned index; /* of the slot taken */
		uint64_t entry; /* above lowest: which led to the table below */
	} at[PGTABLE_LEVELS];
};

#define ROOT_LEVEL 0xfull

/* Enters at the root. False when its levels do not reach as far as `iova`. */
static inline bool path_enter(struct pgtable *pt, iova_t iova, struct path *path)
{
	const struct pgtable_geometry *geo = &pt->geo;
	uint64_t root = atomic_load_explicit(&pt->root, memory_order_acquire);
	unsigned top = root & ROOT_LEVEL, reach = level_lg2(geo, top) + geo->index_lg2;

	path->top = path->lowest = top;
	path->at[top].table = table_at(&pt->tables, table_number(&pt->tables, root & ~ROOT_LEVEL));
	path->at[top].index = level_index(geo, top, iova);
	return top == geo->max_top || reach >= 64 || !(iova >> reach);
}

/* One level down, by an entry that was found to point to a table. */
static inline void path_down(struct pgtable *pt, iova_t iova, struct path *path, uint64_t e)
{
	unsigned level = --path->lowest;

	path->at[level + 1].entry = e;
	path->at[level].table =
		table_at(&pt->tables, table_number(&pt->tables, entry_pa(&pt->geo, e)));
	path->at[level].index = level_index(&pt->geo, level, iova);
}

static inline slot_t *path_slot(struct path *path, unsigned level)
{
	return &path->at[level].table.slot[path->at[level].index];
}

/* The entry at the lowest level so far. */
static inline uint64_t path_entry(struct path *path)
{
	return atomic_load_explicit(path_slot(path, path->lowest), memory_order_acquire);
}

/*
 * Walks to the entry that decides about `iova`: a leaf (true) or an empty one. path->lowest is its
 * level.
 */
bool path_walk(struct pgtable *pt, iova_t iova, struct path *path, uint64_t *e);

/* Is it an address that the table can translate? */
bool va_valid(const struct pgtable_geometry *geo, iova_t iova);
/* Are both, and is all between them? */
bool va_range_valid(const struct pgtable_geometry *geo, iova_t first, iova_t last);

static inline unsigned leaf_lg2(const struct pgtable *pt, unsigned level, uint64_t e)
{
	return entry_is_contig(&pt->geo, e) ? pt->format->contig_lg2(&pt->geo, e)
					    : level_lg2(&pt->geo, level);
}

/*
 * Counts slots of the table at path level `level` as taken (n > 0) or empty, and tells the tables
 * above when it became full or is so no more.
 */
void path_account(struct pgtable *pt, struct path *path, unsigned level, int n);

static inline bool table_full(const struct pgtable *pt, const struct table *table, unsigned level)
{
	return atomic_load_explicit(&table->meta->full, memory_order_relaxed) ==
	       level_slots(&pt->geo, level);
}

/* Adds [first, last] to what the gather has to flush. NULL is fine. */
void gather_range(struct pgtable_gather *gather, iova_t first, iova_t last);
/* A table was unlinked, with all below it. NULL: no reader is there, free it now. */
void gather_table(struct pgtable *pt, struct pgtable_gather *gather, uint32_t number);

/* ---- dirty bits (dirty.c) -------------------------------------------------------------------- */

/* The slots [first, first + n) were emptied: they are clean. To be called after that was stored. */
void dirty_forget(struct table *table, unsigned first, unsigned n);
/* The leaves in slots [first, first + n) of the path's lowest table were born dirty. */
void dirty_fresh(struct pgtable *pt, struct path *path, unsigned first, unsigned n);
/* The entry as the hardware reads it. */
uint64_t dirty_render(const struct pgtable *pt, const struct table *table, unsigned index,
		      uint64_t e);

#endif
