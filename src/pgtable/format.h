/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_PGTABLE_FORMAT_H
#define SWIOMMU_PGTABLE_FORMAT_H

/*
 * What a format is to the code that walks, maps and unmaps: numbers and masks, filled in once when
 * a table is made, and three functions. That code knows no format; formats know no walk.
 *
 * Levels count from 0, the leaf-most. An entry is one of four things: empty, a pointer to the page
 * of tables of the level below, a leaf of its level's natural size, or one of the equal entries of a
 * larger leaf ("contiguous"), which all lie in one page of tables.
 *
 * Entries are stored clean; the dirty bits are kept beside the tables (tables.h) and put into an
 * entry when somebody looks at it.
 */

#include "pgtable/pgtable.h"

#define PGTABLE_LEVELS 6

struct pgtable_geometry {
	unsigned granule_lg2; /* natural size of level 0 */
	unsigned index_lg2;   /* slots in a page of tables */
	unsigned top;	      /* the root's level at first */
	unsigned max_top;     /* > top: the root may grow */
	unsigned root_lg2;    /* slots in the root; > index_lg2: pages side by side */
	unsigned va_bits, oa_bits;
	bool sign_extended;
	uint64_t pgsizes;

	/* What differs when changes meet what is there (spec 7.6): ARM's rules instead of 7.1's. */
	bool arm_rules;

	uint64_t present; /* an entry without these bits is empty */
	struct {
		/* entry & mask == value: points to a table. Level 0 is not asked. */
		uint64_t table_mask, table_value;
		uint64_t table_bits; /* of such an entry, besides the address */
	} level[PGTABLE_LEVELS];

	/* An address in an entry: shifted right and left, then masked; bits that have no room there
	 * go to high_mask, high_shift below their place. */
	uint64_t addr_mask, high_mask;
	unsigned shift_right, shift_left, high_shift;
	/* Entries of neighbouring leaves differ by the same number up to multiples of this size. */
	uint64_t linear_size;

	/* entry & mask == value: one of several equal entries. */
	uint64_t contig_mask, contig_value;

	/* Dirty state: `dirty_flip` turns a stored, clean entry into a dirty one, if all of
	 * `dirty_need` are set in it. dirty_flip 0: none, and then dirty_errno is why. */
	uint64_t dirty_flip, dirty_need;
	bool fresh_is_dirty; /* a new leaf is dirty */
	int dirty_errno;
};

struct pgtable_format {
	const char *name;
	/* Options it knows. */
	unsigned features;
	/* Fills in the zeroed geometry; checks all of config but the common part. Negative errno. */
	int (*init)(const struct pgtable_config *config, struct pgtable_geometry *geo);
	/*
	 * Everything of a leaf's entry but the physical address, for leaves of 2^lg2 bytes at
	 * `level`. Negative errno when prot cannot be had.
	 */
	int (*leaf_bits)(const struct pgtable_geometry *geo, unsigned features, unsigned prot,
			 unsigned level, unsigned lg2, uint64_t *bits);
	/* SWI_READ, SWI_WRITE of a stored leaf. */
	unsigned (*leaf_prot)(uint64_t entry);
	/* Size of the leaf that a contiguous entry belongs to. NULL if there are none. */
	unsigned (*contig_lg2)(const struct pgtable_geometry *geo, uint64_t entry);
};

/* ---- sizes ----------------------------------------------------------------------------------- */

/* Natural size of a level. Level 5 of AMDv1 is 2^57: never above 63. */
static inline unsigned level_lg2(const struct pgtable_geometry *geo, unsigned level)
{
	return geo->granule_lg2 + geo->index_lg2 * level;
}

static inline uint64_t low_mask(unsigned bits)
{
	return bits >= 64 ? UINT64_MAX : (1ull << bits) - 1;
}

/* The largest of `sizes` that divides `addresses`; 0 when there is none. */
static inline uint64_t size_dividing(uint64_t sizes, uint64_t addresses)
{
	if (addresses)
		sizes &= addresses ^ (addresses - 1); /* up to the lowest bit that is set */
	return sizes ? 1ull << (63 - __builtin_clzll(sizes)) : 0;
}

/* The level whose entries hold leaves of 2^lg2 bytes. */
static inline unsigned level_of_lg2(const struct pgtable_geometry *geo, unsigned lg2)
{
	return (lg2 - geo->granule_lg2) / geo->index_lg2;
}

static inline unsigned level_slots_lg2(const struct pgtable_geometry *geo, unsigned level)
{
	return level == geo->top && geo->top == geo->max_top ? geo->root_lg2 : geo->index_lg2;
}

static inline unsigned level_slots(const struct pgtable_geometry *geo, unsigned level)
{
	return 1u << level_slots_lg2(geo, level);
}

static inline unsigned level_index(const struct pgtable_geometry *geo, unsigned level, iova_t iova)
{
	return (iova >> level_lg2(geo, level)) & (level_slots(geo, level) - 1);
}

/* ---- entries --------------------------------------------------------------------------------- */

static inline bool entry_present(const struct pgtable_geometry *geo, uint64_t e)
{
	return e & geo->present;
}

/* Of a present entry. */
static inline bool entry_is_table(const struct pgtable_geometry *geo, unsigned level, uint64_t e)
{
	return level && (e & geo->level[level].table_mask) == geo->level[level].table_value;
}

static inline phys_t entry_pa(const struct pgtable_geometry *geo, uint64_t e)
{
	return (e & geo->addr_mask) >> geo->shift_right << geo->shift_left |
	       (e & geo->high_mask) << geo->high_shift;
}

static inline uint64_t entry_address(const struct pgtable_geometry *geo, phys_t pa)
{
	return (pa >> geo->shift_left << geo->shift_right & geo->addr_mask) |
	       (pa >> geo->high_shift & geo->high_mask);
}

static inline bool entry_is_contig(const struct pgtable_geometry *geo, uint64_t e)
{
	return (e & geo->contig_mask) == geo->contig_value;
}

#endif
