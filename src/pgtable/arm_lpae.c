// SPDX-License-Identifier: MIT
/*
 * ARM's long descriptors, 64-bit, stage 1 and stage 2 (spec devices.md 7.6).
 *
 * The architecture counts levels down to 3, the leaf-most; here it is 0. The granule is 4, 16 or
 * 64 KiB and is the size of a page of tables as well, so 9, 11 or 13 bits index each. A root of
 * stage 2 that would have at most 16 entries is left out: the tables it would point to lie side by
 * side and are indexed as one.
 *
 * MAIR, to which AttrIndx refers: 0 = 0x44 (not cached), 1 = 0xff (write-back), 2 = 0x04 (device),
 * 3 = 0xf4.
 */
#include "pgtable/format.h"

#include <errno.h>

#define VALID (1ull << 0)
#define TYPE_MASK 3ull
#define TYPE_BLOCK 1ull
#define TYPE_TABLE 3ull /* of a page, too, at the last level */
#define NS (1ull << 5)
#define SH_OUTER (2ull << 8)
#define SH_INNER (3ull << 8)
#define AF (1ull << 10)
#define XN (3ull << 53)
#define WRITTEN_BACK (1ull << 55)
#define NSTABLE (1ull << 63)

#define S1_ATTR(n) ((uint64_t)(n) << 2)
#define S1_UNPRIV (1ull << 6)
#define S1_RDONLY (1ull << 7)
#define S1_NG (1ull << 11)
#define S1_DBM (1ull << 51)

#define S2_MEMATTR(n) ((uint64_t)(n) << 2)
#define S2_READ (1ull << 6)
#define S2_WRITE (1ull << 7)

#define CONCAT_LG2 4 /* 16 tables side by side at most */

static bool arm_width(unsigned bits)
{
	return bits == 32 || bits == 36 || bits == 40 || bits == 42 || bits == 44 || bits == 48 ||
	       bits == 52;
}

/* Stage 2: is the root, at the architecture's `start` level, replaced by the tables below it? */
static bool arm_concatenates(unsigned granule_lg2, unsigned start, unsigned ias, unsigned oas)
{
	if (granule_lg2 == 12)
		return start == 0 && (oas == 40 || oas == 42);
	if (granule_lg2 == 14)
		return (start == 0 && ias == 48 && oas == 48) || (start == 1 && oas == 40);
	return false;
}

static void arm_levels(struct pgtable_geometry *geo, bool stage2)
{
	unsigned bits = geo->va_bits - geo->granule_lg2;
	unsigned levels = (bits + geo->index_lg2 - 1) / geo->index_lg2;

	geo->root_lg2 = bits - geo->index_lg2 * (levels - 1);
	if (stage2 && levels > 1 && geo->root_lg2 <= CONCAT_LG2 &&
	    arm_concatenates(geo->granule_lg2, 4 - levels, geo->va_bits, geo->oa_bits)) {
		levels--;
		geo->root_lg2 += geo->index_lg2;
	}
	geo->top = geo->max_top = levels - 1;
}

static uint64_t arm_sizes(const struct pgtable_geometry *geo)
{
	/* Blocks at the architecture's level 2; at level 1 not with every granule. */
	unsigned sizes =
		geo->granule_lg2 == 12 || (geo->granule_lg2 == 16 && geo->oa_bits > 48) ? 3 : 2;
	uint64_t pgsizes = 0;

	for (unsigned l = 0; l < sizes && l <= geo->top; l++)
		pgsizes |= 1ull << level_lg2(geo, l);
	return pgsizes;
}

static int arm_init(const struct pgtable_config *config, struct pgtable_geometry *geo, bool stage2)
{
	uint64_t granules = config->granules ? config->granules : 1 << 12, granule;
	unsigned widest;

	if (granules & ~(1ull << 12 | 1ull << 14 | 1ull << 16))
		return -EINVAL;
	granule = pgtable_choose_granule(granules, SWI_PAGE_SIZE);
	geo->granule_lg2 = (unsigned)__builtin_ctzll(granule);
	geo->index_lg2 = geo->granule_lg2 - 3;
	widest = geo->granule_lg2 == 16 ? 52 : 48;
	if (config->va_bits <= geo->granule_lg2 || config->va_bits > widest ||
	    config->oa_bits > widest || !arm_width(config->oa_bits))
		return -EINVAL;
	geo->va_bits = config->va_bits;
	geo->oa_bits = config->oa_bits;
	arm_levels(geo, stage2);
	if (config->top_level && config->top_level != geo->top)
		return -EOPNOTSUPP;
	geo->pgsizes = arm_sizes(geo);
	geo->arm_rules = true;
	geo->present = VALID;
	for (unsigned l = 0; l <= geo->top; l++) {
		geo->level[l].table_mask = TYPE_MASK;
		geo->level[l].table_value = geo->level[l].table_bits = TYPE_TABLE;
		if (config->features & PGTABLE_NONCOHERENT)
			geo->level[l].table_bits |= WRITTEN_BACK;
		if (config->features & PGTABLE_NS)
			geo->level[l].table_bits |= NSTABLE;
	}
	geo->addr_mask = low_mask(48) & ~(granule - 1);
	if (geo->granule_lg2 == 16) {
		geo->high_mask = 0xf000; /* PA 51:48 */
		geo->high_shift = 36;
		geo->linear_size = 1ull << 48;
	}
	geo->contig_value = 1;
	geo->dirty_errno = -EINVAL;
	return 0;
}

static int arm_s1_init(const struct pgtable_config *config, struct pgtable_geometry *geo)
{
	int rc = arm_init(config, geo, false);

	if (!rc && (config->features & PGTABLE_DIRTY)) {
		/* Kept clean, that is read-only until the first write. */
		geo->dirty_flip = S1_RDONLY;
		geo->dirty_need = S1_DBM;
		geo->fresh_is_dirty = true;
	}
	return rc;
}

static int arm_s2_init(const struct pgtable_config *config, struct pgtable_geometry *geo)
{
	return arm_init(config, geo, true);
}

static uint64_t arm_common_bits(unsigned features, unsigned prot, unsigned level)
{
	uint64_t bits = AF | (level ? TYPE_BLOCK : TYPE_TABLE);

	bits |= prot & PGTABLE_CACHE ? SH_INNER : SH_OUTER;
	if (prot & PGTABLE_NOEXEC)
		bits |= XN;
	if (features & PGTABLE_NS)
		bits |= NS;
	return bits;
}

static int arm_s1_leaf_bits(const struct pgtable_geometry *geo, unsigned features, unsigned prot,
			    unsigned level, unsigned lg2, uint64_t *bits)
{
	(void)geo;
	(void)lg2;
	*bits = arm_common_bits(features, prot, level) | S1_NG;
	*bits |= S1_ATTR(prot & PGTABLE_MMIO ? 2 : prot & PGTABLE_CACHE ? 1 : 0);
	if (!(prot & PGTABLE_PRIV))
		*bits |= S1_UNPRIV;
	if (!(prot & SWI_WRITE))
		*bits |= S1_RDONLY;
	else if (features & PGTABLE_DIRTY)
		*bits |= S1_DBM | S1_RDONLY; /* clean, as stored */
	return 0;
}

static unsigned arm_s1_leaf_prot(uint64_t entry)
{
	return SWI_READ | (!(entry & S1_RDONLY) || entry & S1_DBM ? SWI_WRITE : 0);
}

static int arm_s2_leaf_bits(const struct pgtable_geometry *geo, unsigned features, unsigned prot,
			    unsigned level, unsigned lg2, uint64_t *bits)
{
	unsigned cached = features & PGTABLE_FWB ? 0x6 : 0xf;

	(void)geo;
	(void)lg2;
	*bits = arm_common_bits(features, prot, level);
	*bits |= S2_MEMATTR(prot & PGTABLE_MMIO ? 0x1 : prot & PGTABLE_CACHE ? cached : 0x5);
	if (prot & SWI_READ)
		*bits |= S2_READ;
	if (prot & SWI_WRITE)
		*bits |= S2_WRITE;
	return 0;
}

static unsigned arm_s2_leaf_prot(uint64_t entry)
{
	return (entry & S2_READ ? SWI_READ : 0) | (entry & S2_WRITE ? SWI_WRITE : 0);
}

const struct pgtable_format pgtable_arm_lpae_s1 = {
	.name = "ARM LPAE stage 1",
	.features = PGTABLE_NONCOHERENT | PGTABLE_NS | PGTABLE_DIRTY,
	.init = arm_s1_init,
	.leaf_bits = arm_s1_leaf_bits,
	.leaf_prot = arm_s1_leaf_prot,
};

const struct pgtable_format pgtable_arm_lpae_s2 = {
	.name = "ARM LPAE stage 2",
	.features = PGTABLE_NONCOHERENT | PGTABLE_FWB,
	.init = arm_s2_init,
	.leaf_bits = arm_s2_leaf_bits,
	.leaf_prot = arm_s2_leaf_prot,
};
