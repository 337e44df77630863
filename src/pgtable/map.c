// SPDX-License-Identifier: MIT
/*
 * Mapping.
 *
 * A request becomes runs: leaves of one size at neighbouring IOVAs. A run is written table by table:
 * go down to the level of its size, adding tables where there are none, and fill the slots to the
 * end of the table or of the run. What an entry holds besides the address is computed once for a
 * run; from leaf to leaf the entry grows by a constant.
 *
 * Slots are written in ascending order and each only if it was empty, so a failure leaves exactly
 * the leaves before it; pgtable_map() then takes these back.
 */
#include "pgtable/internal.h"

#include <errno.h>

struct run {
	iova_t iova;
	phys_t pa;
	uint64_t left; /* leaves */
	unsigned lg2, level;
	unsigned slots;	     /* per leaf */
	uint64_t bits, step; /* of an entry, besides the address; from leaf to leaf */
	struct pgtable_gather *gather;
};

/* ---- tables ---------------------------------------------------------------------------------- */

/* Adds a root above `root`, unless somebody else does. */
static int grow_root(struct pgtable *pt, uint64_t root)
{
	unsigned top = (root & ROOT_LEVEL) + 1;
	struct table table;
	phys_t pa;

	if (tables_alloc(&pt->tables, top, &pa, &table))
		return -ENOMEM;
	atomic_store_explicit(&table.meta->full, TABLE_NEVER_FULL, memory_order_relaxed);
	atomic_store_explicit(&table.slot[0],
			      pt->geo.level[top].table_bits |
				      entry_address(&pt->geo, root & ~ROOT_LEVEL),
			      memory_order_relaxed);
	if (!atomic_compare_exchange_strong_explicit(&pt->root, &root, pa | top,
						     memory_order_acq_rel, memory_order_relaxed))
		tables_free(&pt->tables, table_number(&pt->tables, pa) + 1);
	return 0;
}

/* Makes the root reach as far as `iova` and up to `level`. */
static int reach(struct pgtable *pt, iova_t iova, unsigned level, struct path *path)
{
	while (!path_enter(pt, iova, path) || path->top < level) {
		uint64_t root = atomic_load_explicit(&pt->root, memory_order_acquire);
		int rc;

		if ((root & ROOT_LEVEL) != path->top)
			continue;
		rc = grow_root(pt, root);
		if (rc)
			return rc;
	}
	return 0;
}

/* Links a new table at the path's lowest, empty slot; *e is what the slot holds then. */
static int add_table(struct pgtable *pt, struct path *path, uint64_t *e)
{
	unsigned level = path->lowest;
	struct table table;
	uint64_t new;
	phys_t pa;

	if (tables_alloc(&pt->tables, level - 1, &pa, &table))
		return -ENOMEM;
	new = pt->geo.level[level].table_bits | entry_address(&pt->geo, pa);
	if (atomic_compare_exchange_strong_explicit(path_slot(path, level), e, new,
						    memory_order_acq_rel, memory_order_acquire))
		*e = new;
	else
		tables_free(&pt->tables, table_number(&pt->tables, pa) + 1);
	return 0;
}

static int occupied(const struct pgtable *pt)
{
	return pt->geo.arm_rules ? -EEXIST : -EADDRINUSE;
}

/* Goes down to the slot for `iova` at `level`, adding what is missing. */
static int descend(struct pgtable *pt, iova_t iova, unsigned level, struct path *path)
{
	int rc = reach(pt, iova, level, path);

	while (!rc && path->lowest > level) {
		uint64_t e = path_entry(path);

		while (!rc && !entry_present(&pt->geo, e))
			rc = add_table(pt, path, &e);
		if (rc)
			break;
		if (!entry_is_table(&pt->geo, path->lowest, e))
			return occupied(pt);
		path_down(pt, iova, path, e);
	}
	return rc;
}

static bool table_empty(struct pgtable *pt, unsigned level, uint64_t e)
{
	struct table table =
		table_at(&pt->tables, table_number(&pt->tables, entry_pa(&pt->geo, e)));

	for (unsigned i = 0; i < 1u << pt->geo.index_lg2; i++) {
		uint64_t below = atomic_load_explicit(&table.slot[i], memory_order_acquire);

		if (entry_present(&pt->geo, below) &&
		    (!entry_is_table(&pt->geo, level, below) || !table_empty(pt, level - 1, below)))
			return false;
	}
	return true;
}

/* ---- leaves ---------------------------------------------------------------------------------- */

/*
 * A slot that a leaf is to be written to holds `e`. A table that may go is replaced; the slot counts
 * as empty afterwards. False: it cannot be.
 */
static bool make_way(struct pgtable *pt, struct path *path, unsigned index, uint64_t e,
		     struct run *run)
{
	unsigned level = path->lowest;
	struct table *table = &path->at[level].table;
	uint32_t number;
	struct table below;
	iova_t first;

	if (!entry_is_table(&pt->geo, level, e) ||
	    (!pt->geo.arm_rules && !table_empty(pt, level - 1, e)))
		return false;
	number = table_number(&pt->tables, entry_pa(&pt->geo, e));
	below = table_at(&pt->tables, number);
	if (table_full(pt, &below, level - 1))
		path_account(pt, path, level, -1);
	atomic_store_explicit(&table->slot[index], 0, memory_order_release);
	dirty_forget(table, index, 1);
	/* run->iova is where the path's slot begins. */
	first = run->iova + ((iova_t)(index - path->at[level].index) << level_lg2(&pt->geo, level));
	gather_range(run->gather, first, first + low_mask(level_lg2(&pt->geo, level)));
	gather_table(pt, run->gather, number);
	return true;
}

/* Writes one leaf of several entries, or none of them. */
static bool write_contig(struct pgtable *pt, struct path *path, unsigned index, uint64_t entry,
			 struct run *run)
{
	slot_t *slot = path->at[path->lowest].table.slot;

	for (unsigned i = index; i < index + run->slots; i++) {
		uint64_t e = atomic_load_explicit(&slot[i], memory_order_relaxed);

		if (entry_present(&pt->geo, e) && !make_way(pt, path, i, e, run))
			return false;
	}
	for (unsigned i = index; i < index + run->slots; i++)
		atomic_store_explicit(&slot[i], entry, memory_order_release);
	return true;
}

/* Writes `n` leaves of natural size; returns how many it could. */
static unsigned write_natural(struct pgtable *pt, struct path *path, unsigned n, uint64_t entry,
			      struct run *run)
{
	unsigned index = path->at[path->lowest].index;
	slot_t *slot = path->at[path->lowest].table.slot + index;
	uint64_t present = pt->geo.present, step = run->step;

	for (unsigned i = 0; i < n; i++) {
		uint64_t e = atomic_load_explicit(&slot[i], memory_order_relaxed);

		if (SWI_UNLIKELY(e & present) && !make_way(pt, path, index + i, e, run))
			return i;
		atomic_store_explicit(&slot[i], entry, memory_order_release);
		entry += step;
	}
	return n;
}

/* Fills the table at the path's lowest level from its slot on; returns how many leaves it did. */
static unsigned fill(struct pgtable *pt, struct path *path, struct run *run, unsigned n)
{
	const struct pgtable_geometry *geo = &pt->geo;
	unsigned index = path->at[run->level].index, done = 0;
	uint64_t entry = run->bits | entry_address(geo, run->pa);

	if (run->slots == 1) {
		done = write_natural(pt, path, n, entry, run);
	} else {
		for (; done < n; done++, entry += run->step) {
			if (!write_contig(pt, path, index + done * run->slots, entry, run))
				break;
		}
	}
	if (!done)
		return 0;
	path_account(pt, path, run->level, (int)(done * run->slots));
	if (geo->fresh_is_dirty && (run->bits & geo->dirty_need) == geo->dirty_need)
		dirty_fresh(pt, path, index, done * run->slots);
	return done;
}

static int write_run(struct pgtable *pt, struct run *run)
{
	const struct pgtable_geometry *geo = &pt->geo;

	while (run->left) {
		struct path path;
		uint64_t n, done;
		int rc = descend(pt, run->iova, run->level, &path);

		if (rc)
			return rc;
		n = (level_slots(geo, run->level) - path.at[run->level].index) / run->slots;
		n = SWI_MIN(n, run->left);
		if (geo->linear_size)
			n = SWI_MIN(n, (geo->linear_size - (run->pa & (geo->linear_size - 1))) >>
					       run->lg2);
		done = fill(pt, &path, run, (unsigned)n);
		run->iova += done << run->lg2;
		run->pa += done << run->lg2;
		run->left -= done;
		if (done < n)
			return occupied(pt);
	}
	return 0;
}

/* Maps `count` leaves of `size`; *mapped grows by what was mapped. */
static int map_run(struct pgtable *pt, iova_t iova, phys_t pa, uint64_t size, uint64_t count,
		   unsigned prot, uint64_t *mapped, struct pgtable_gather *gather)
{
	unsigned lg2 = (unsigned)__builtin_ctzll(size);
	struct run run = {
		.iova = iova,
		.pa = pa,
		.left = count,
		.lg2 = lg2,
		.level = level_of_lg2(&pt->geo, lg2),
		.step = entry_address(&pt->geo, size),
		.gather = gather,
	};
	int rc;

	run.slots = 1u << (lg2 - level_lg2(&pt->geo, run.level));
	rc = pt->format->leaf_bits(&pt->geo, pt->features, prot, run.level, lg2, &run.bits);
	if (!rc)
		rc = write_run(pt, &run);
	*mapped += (count - run.left) << lg2;
	return rc;
}

/* ---- requests -------------------------------------------------------------------------------- */

/* What can be wrong with a request whatever the table holds, in the order of the spec. */
static int check_map(const struct pgtable *pt, iova_t iova, phys_t pa, uint64_t length,
		     unsigned prot)
{
	const struct pgtable_geometry *geo = &pt->geo;
	uint64_t last, pa_last, bits;
	uint64_t smallest = geo->pgsizes & -geo->pgsizes;
	unsigned lg2 = (unsigned)__builtin_ctzll(smallest);
	int rc;

	if (!(prot & (SWI_READ | SWI_WRITE)))
		return -EINVAL;
	rc = pt->format->leaf_bits(geo, pt->features, prot, level_of_lg2(geo, lg2), lg2, &bits);
	if (rc)
		return rc;
	if (pa > low_mask(geo->oa_bits))
		return -ERANGE;
	if (!length)
		return -EINVAL;
	if (!range_last(iova, length, &last) || !range_last(pa, length, &pa_last))
		return -EOVERFLOW;
	if (!va_range_valid(geo, iova, last) || pa_last > low_mask(geo->oa_bits))
		return -ERANGE;
	if ((iova | pa | length) & (smallest - 1))
		return geo->arm_rules ? -EINVAL : -ENXIO;
	return 0;
}

int pgtable_map_pages(struct pgtable *pt, iova_t iova, phys_t pa, uint64_t pgsize, uint64_t count,
		      unsigned prot, uint64_t *mapped, struct pgtable_gather *gather)
{
	uint64_t length;
	int rc;

	*mapped = 0;
	if (!is_pow2_u64(pgsize) || !(pgsize & pt->geo.pgsizes) || (iova | pa) & (pgsize - 1))
		return -EINVAL;
	if (__builtin_mul_overflow(pgsize, count, &length))
		return -EOVERFLOW;
	rc = check_map(pt, iova, pa, length, prot);
	return rc ? rc : map_run(pt, iova, pa, pgsize, count, prot, mapped, gather);
}

/*
 * How many leaves of `size`, the largest that iova and pa allow, to write before looking again: up
 * to where a larger one becomes possible, or as many as fit.
 */
static uint64_t run_length(uint64_t sizes, iova_t iova, phys_t pa, uint64_t left, uint64_t size)
{
	uint64_t larger = sizes & ~(size | (size - 1)), boundary;

	for (; larger; larger &= larger - 1) {
		uint64_t next = larger & -larger;

		/* They meet no boundary of this size, nor of any larger one, together. */
		if ((iova ^ pa) & (next - 1))
			break;
		boundary = next - (iova & (next - 1));
		if (!(iova & (next - 1)) || boundary >= left || left - boundary < next)
			continue;
		return boundary / size;
	}
	return left / size;
}

int pgtable_map_limited(struct pgtable *pt, iova_t iova, phys_t pa, uint64_t length,
			uint64_t largest, unsigned prot, struct pgtable_gather *gather)
{
	uint64_t done = 0, sizes = pt->geo.pgsizes;
	int rc = check_map(pt, iova, pa, length, prot);

	if (rc)
		return rc;
	sizes &= (largest | (largest - 1)) | (sizes & -sizes);
	while (!rc && done < length) {
		iova_t at = iova + done;
		uint64_t left = length - done;
		/* As far as the rest goes, which bounds the size from above. */
		uint64_t fits = sizes & low_mask(64 - (unsigned)__builtin_clzll(left));
		uint64_t size = size_dividing(fits, at | (pa + done));

		rc = map_run(pt, at, pa + done, size, run_length(sizes, at, pa + done, left, size),
			     prot, &done, gather);
	}
	if (rc)
		pgtable_unmap(pt, iova, done, gather);
	return rc;
}

int pgtable_map(struct pgtable *pt, iova_t iova, phys_t pa, uint64_t length, unsigned prot,
		struct pgtable_gather *gather)
{
	return pgtable_map_limited(pt, iova, pa, length, 1ull << 63, prot, gather);
}
