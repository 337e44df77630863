// SPDX-License-Identifier: MIT
/*
 * AMDv1, the host table of AMD's IOMMU, and the variant of the test ABI with pages of 2 KiB
 * (spec devices.md 7.2, test-abi.md 2.3).
 *
 * An entry says by its next level what it is: 0 a leaf of natural size, 7 a leaf with its size in
 * the address, k a pointer to the table of level k - 1, in a table of level k. So a leaf may have
 * any power of two; one that is not of natural size is 2 to 256 equal entries.
 *
 * The root starts at level 2 and grows with what is mapped: the old one becomes slot 0 of the new.
 *
 * The variant is the same with all addresses in entries doubled. It keeps its three levels, unless told otherwise, and
 * does not set the coherency bit.
 */
#include "pgtable/format.h"

#include <errno.h>

#define PRESENT (1ull << 0)
#define DIRTY (1ull << 6)
#define NEXT_LEVEL(n) ((uint64_t)(n) << 9)
#define NEXT_LEVEL_SIZED NEXT_LEVEL(7)
#define ADDRESS 0x000ffffffffff000ull
#define FORCE_COHERENT (1ull << 60)
#define READABLE (1ull << 61)
#define WRITABLE (1ull << 62)

/* Every power of two up to 2^51 but 512 GiB, which would be the natural size of level 3. */
#define PGSIZES (0x000ffffffffff800ull & ~(1ull << 39))

static void amdv1_geometry(struct pgtable_geometry *geo)
{
	geo->index_lg2 = geo->root_lg2 = 9;
	geo->present = PRESENT;
	for (unsigned l = 0; l < PGTABLE_LEVELS; l++) {
		geo->level[l].table_mask = NEXT_LEVEL(7);
		geo->level[l].table_value = NEXT_LEVEL(l);
		geo->level[l].table_bits = PRESENT | NEXT_LEVEL(l) | READABLE | WRITABLE;
	}
	geo->addr_mask = ADDRESS;
	geo->contig_mask = geo->contig_value = NEXT_LEVEL_SIZED;
	geo->dirty_flip = DIRTY;
}

static int amdv1_init(const struct pgtable_config *config, struct pgtable_geometry *geo)
{
	if (!config->va_bits || config->va_bits > 64 || !config->oa_bits || config->oa_bits > 52)
		return -EINVAL;
	geo->top = config->top_level ? config->top_level : 2;
	if (geo->top >= PGTABLE_LEVELS)
		return -EOPNOTSUPP;
	amdv1_geometry(geo);
	geo->granule_lg2 = 12;
	geo->max_top = PGTABLE_LEVELS - 1;
	geo->va_bits = config->va_bits;
	geo->oa_bits = config->oa_bits;
	geo->pgsizes = PGSIZES & ~0x800ull;
	return 0;
}

static int mock_init(const struct pgtable_config *config, struct pgtable_geometry *geo)
{
	if (!config->va_bits || config->va_bits > 64 || !config->oa_bits || config->oa_bits > 51)
		return -EINVAL;
	if ((config->top_level && config->top_level != 2) ||
	    (config->va_bits > 38 && !(config->features & PGTABLE_GROWING)))
		return -EOPNOTSUPP;
	amdv1_geometry(geo);
	geo->granule_lg2 = 11;
	geo->shift_right = 1;
	geo->top = geo->max_top = 2;
	if (config->features & PGTABLE_GROWING)
		geo->max_top = PGTABLE_LEVELS - 1;
	geo->va_bits = config->va_bits;
	geo->oa_bits = config->oa_bits;
	geo->pgsizes = PGSIZES & low_mask(37);
	return 0;
}

static int mock_leaf_bits(const struct pgtable_geometry *geo, unsigned features, unsigned prot,
			  unsigned level, unsigned lg2, uint64_t *bits)
{
	(void)features;
	*bits = PRESENT;
	if (prot & SWI_READ)
		*bits |= READABLE;
	if (prot & SWI_WRITE)
		*bits |= WRITABLE;
	/* A size of 2^s, in the units of the address: ones from bit 12 up to s - 2, bit s - 1 0. */
	if (lg2 != level_lg2(geo, level))
		*bits |= NEXT_LEVEL_SIZED | (low_mask(lg2 + geo->shift_right - 1) & ADDRESS);
	return 0;
}

static int amdv1_leaf_bits(const struct pgtable_geometry *geo, unsigned features, unsigned prot,
			   unsigned level, unsigned lg2, uint64_t *bits)
{
	int rc = mock_leaf_bits(geo, features, prot, level, lg2, bits);

	*bits |= FORCE_COHERENT;
	return rc;
}

static unsigned amdv1_leaf_prot(uint64_t entry)
{
	return (entry & READABLE ? SWI_READ : 0) | (entry & WRITABLE ? SWI_WRITE : 0);
}

static unsigned amdv1_contig_lg2(const struct pgtable_geometry *geo, uint64_t entry)
{
	/* Some zero follows the ones: of the 52 bits above bit 12 the highest are no address. */
	return 13 + (unsigned)__builtin_ctzll(~(entry >> 12)) - geo->shift_right;
}

const struct pgtable_format pgtable_amdv1 = {
	.name = "AMDv1",
	.features = PGTABLE_FORCE_COHERENT,
	.init = amdv1_init,
	.leaf_bits = amdv1_leaf_bits,
	.leaf_prot = amdv1_leaf_prot,
	.contig_lg2 = amdv1_contig_lg2,
};

const struct pgtable_format pgtable_amdv1_mock = {
	.name = "AMDv1 with 2 KiB pages",
	.features = PGTABLE_GROWING,
	.init = mock_init,
	.leaf_bits = mock_leaf_bits,
	.leaf_prot = amdv1_leaf_prot,
	.contig_lg2 = amdv1_contig_lg2,
};
