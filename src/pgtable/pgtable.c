// SPDX-License-Identifier: MIT
/*
 * IO page tables: making them, walking them, looking at them.
 *
 * One walk for all formats. A format (format.h) is a set of numbers and masks by which entries are
 * told apart and made; the walk goes from the root down by them. Who changes tables is in map.c and
 * unmap.c, who keeps account of dirtiness in dirty.c, and where the memory comes from in tables.c.
 *
 * Readers take no lock. An entry is 64 bits and changes in one piece; one that points to a table is
 * stored (release) when that table is zeroed; a table that was unlinked stays as it is until its
 * readers have left. So a walk sees each IOVA as it was at some moment, and IOVAs that nobody
 * changes as they are.
 *
 * Changes of different IOVAs meet in three places only: at an entry for which both need a table
 * (compare-exchange, one wins and the other uses it), at the root when it grows (the same), and in
 * the counts of taken slots (atomic). Tables are freed by whoever's range covers all they can map:
 * nobody else changes anything below then.
 *
 * The count in each table (table_meta.full) says when everything below is mapped. Then unmapping
 * takes a whole subtree away by its topmost entry, and knows how many bytes that were. The root has
 * no table above it to tell, but may get one when it grows. Changes that came in by the old root
 * would not tell; so what is or was the root never counts as full (TABLE_NEVER_FULL).
 */
#include "pgtable/internal.h"

#include <errno.h>
#include <string.h>
#include "base/alloc.h"

#define PAGES_SIDE_BY_SIDE 16ull

uint64_t pgtable_choose_granule(uint64_t granules, uint64_t host)
{
	uint64_t smaller = granules & (host | (host - 1));

	if (smaller)
		return 1ull << (63 - __builtin_clzll(smaller));
	return granules & -granules;
}

/* Sizes that leave a choice of where to put them, and that fit physical space (spec 7.1). */
static uint64_t limit_sizes(const struct pgtable_geometry *geo, uint64_t wanted)
{
	uint64_t sizes = geo->pgsizes;

	if (!geo->arm_rules)
		sizes &= low_mask(SWI_MIN(geo->va_bits - 1, geo->oa_bits));
	return wanted ? sizes & wanted : sizes;
}

static int create_tables(struct pgtable *pt, phys_t base)
{
	struct pgtable_geometry *geo = &pt->geo;
	unsigned page_lg2 = geo->index_lg2 + 3;
	unsigned side_lg2 = geo->root_lg2 > geo->index_lg2 ? geo->root_lg2 - geo->index_lg2 : 0;
	uint64_t room;
	struct table root;

	if (base & ((PAGES_SIDE_BY_SIDE << page_lg2) - 1) || base > low_mask(geo->oa_bits))
		return -EINVAL;
	room = (low_mask(geo->oa_bits) - base + 1) >> page_lg2;
	if (room < 2 * PAGES_SIDE_BY_SIDE)
		return -EINVAL;
	if (tables_init(&pt->tables, base, page_lg2, side_lg2, (uint32_t)SWI_MIN(room, 1ull << 30),
			geo->dirty_flip))
		return -ENOMEM;
	root = table_at(&pt->tables, 0);
	root.meta->level = (uint8_t)geo->top;
	atomic_store_explicit(&root.meta->full, TABLE_NEVER_FULL, memory_order_relaxed);
	atomic_store_explicit(&pt->root, base | geo->top, memory_order_relaxed);
	return 0;
}

int pgtable_create(const struct pgtable_config *config, struct pgtable **out)
{
	struct pgtable_geometry geo = {0};
	struct pgtable *pt;
	int rc;

	if (config->features & ~config->format->features)
		return -EOPNOTSUPP;
	rc = config->format->init(config, &geo);
	if (rc)
		return rc;
	geo.pgsizes = limit_sizes(&geo, config->pgsizes);
	if (!geo.pgsizes)
		return -EINVAL;
	pt = swi_new(struct pgtable);
	if (!pt)
		return -ENOMEM;
	pt->geo = geo;
	pt->format = config->format;
	pt->features = config->features;
	rc = create_tables(pt, config->table_base);
	if (rc) {
		swi_free(pt);
		return rc;
	}
	*out = pt;
	return 0;
}

void pgtable_destroy(struct pgtable *pt)
{
	if (!pt)
		return;
	tables_fini(&pt->tables);
	swi_free(pt);
}

void pgtable_get_info(struct pgtable *pt, struct pgtable_info *out)
{
	const struct pgtable_geometry *geo = &pt->geo;
	uint64_t root = atomic_load_explicit(&pt->root, memory_order_relaxed);

	*out = (struct pgtable_info){
		.pgsizes = geo->pgsizes,
		.aperture_last = low_mask(geo->va_bits - geo->sign_extended),
		.oa_bits = geo->oa_bits,
		.levels = (root & ROOT_LEVEL) + 1,
		.dirty = geo->dirty_flip,
		.tables = tables_live(&pt->tables),
		.table_size = 1ull << pt->tables.page_lg2,
	};
}

/* ---- walking --------------------------------------------------------------------------------- */

bool va_valid(const struct pgtable_geometry *geo, iova_t iova)
{
	uint64_t above;

	if (!geo->sign_extended)
		return iova <= low_mask(geo->va_bits);
	above = iova >> (geo->va_bits - 1);
	return !above || above == low_mask(65 - geo->va_bits);
}

bool va_range_valid(const struct pgtable_geometry *geo, iova_t first, iova_t last)
{
	/* Between two halves of a sign-extended space there is a gap. */
	return va_valid(geo, first) && va_valid(geo, last) &&
	       !(geo->sign_extended && (first ^ last) >> (geo->va_bits - 1));
}

bool path_walk(struct pgtable *pt, iova_t iova, struct path *path, uint64_t *e)
{
	*e = 0;
	if (!va_valid(&pt->geo, iova) || !path_enter(pt, iova, path))
		return false;
	for (;;) {
		*e = path_entry(path);
		if (!entry_present(&pt->geo, *e))
			return false;
		if (!entry_is_table(&pt->geo, path->lowest, *e))
			return true;
		path_down(pt, iova, path, *e);
	}
}

void path_account(struct pgtable *pt, struct path *path, unsigned level, int n)
{
	/* What the root counts is of no interest. */
	for (; level < path->top; level++) {
		uint32_t slots = level_slots(&pt->geo, level);
		uint32_t old = atomic_fetch_add_explicit(&path->at[level].table.meta->full,
							 (uint32_t)n, memory_order_relaxed);
		bool was = old == slots, is = old + (uint32_t)n == slots;

		if (was == is)
			return;
		n = is ? 1 : -1;
	}
}

/* ---- looking up ------------------------------------------------------------------------------ */

bool pgtable_lookup(struct pgtable *pt, iova_t iova, struct pgtable_leaf *out)
{
	struct path path;
	uint64_t e;
	uint64_t inside;
	unsigned level;

	if (!path_walk(pt, iova, &path, &e))
		return false;
	level = path.lowest;
	inside = low_mask(leaf_lg2(pt, level, e));
	out->iova = iova & ~inside;
	out->length = inside + 1;
	out->pa = entry_pa(&pt->geo, e) & ~inside;
	out->prot = pt->format->leaf_prot(e);
	out->level = level;
	out->entry = dirty_render(pt, &path.at[level].table, path.at[level].index, e);
	out->dirty = out->entry != e;
	return true;
}

phys_t pgtable_iova_to_phys(struct pgtable *pt, iova_t iova)
{
	struct path path;
	uint64_t e, inside;

	if (!path_walk(pt, iova, &path, &e))
		return 0;
	inside = low_mask(leaf_lg2(pt, path.lowest, e));
	return (entry_pa(&pt->geo, e) & ~inside) | (iova & inside);
}

bool pgtable_translate(struct pgtable *pt, iova_t iova, uint64_t want, struct pgtable_run *out)
{
	const struct pgtable_geometry *geo = &pt->geo;
	unsigned level, lg2, index, slots, n;
	struct path path;
	uint64_t e, step, size;
	slot_t *slot;

	if (!path_walk(pt, iova, &path, &e))
		return false;
	level = path.lowest;
	lg2 = leaf_lg2(pt, level, e);
	size = 1ull << lg2;
	out->iova = iova & ~(size - 1);
	out->length = size;
	out->pa = entry_pa(geo, e) & ~(size - 1);
	out->prot = pt->format->leaf_prot(e);
	if (SWI_LIKELY(size - (iova - out->iova) >= want))
		return true;
	/* A neighbour is one with it if its entry differs by the address only, and by as much as they are apart. */
	slot = path.at[level].table.slot;
	slots = level_slots(geo, level);
	n = 1u << (lg2 - level_lg2(geo, level));
	step = entry_address(geo, size);
	for (index = (path.at[level].index & ~(n - 1)) + n; index < slots; index += n) {
		e += step;
		if (out->length - (iova - out->iova) >= want ||
		    atomic_load_explicit(&slot[index], memory_order_acquire) != e)
			break;
		out->length += size;
	}
	return true;
}

/* Puts the sign back that an index does not have. */
static iova_t va_extend(const struct pgtable_geometry *geo, iova_t iova)
{
	unsigned above = 64 - geo->va_bits;

	return geo->sign_extended ? (iova_t)((int64_t)(iova << above) >> above) : iova;
}

static void dump_table(struct pgtable *pt, unsigned level, iova_t iova, phys_t pa,
		       void (*fn)(void *data, const struct pgtable_entry *entry), void *data)
{
	struct table table = table_at(&pt->tables, table_number(&pt->tables, pa));

	for (unsigned i = 0; i < level_slots(&pt->geo, level); i++) {
		uint64_t e = atomic_load_explicit(&table.slot[i], memory_order_acquire);
		iova_t first = iova + ((iova_t)i << level_lg2(&pt->geo, level));
		struct pgtable_entry entry = {level, va_extend(&pt->geo, first), pa + 8ull * i, e};

		if (!entry_present(&pt->geo, e))
			continue;
		if (entry_is_table(&pt->geo, level, e)) {
			fn(data, &entry);
			dump_table(pt, level - 1, first, entry_pa(&pt->geo, e), fn, data);
		} else {
			entry.value = dirty_render(pt, &table, i, e);
			fn(data, &entry);
		}
	}
}

void pgtable_dump(struct pgtable *pt, void (*fn)(void *data, const struct pgtable_entry *entry),
		  void *data)
{
	uint64_t root = atomic_load_explicit(&pt->root, memory_order_acquire);

	dump_table(pt, root & ROOT_LEVEL, 0, root & ~ROOT_LEVEL, fn, data);
}
