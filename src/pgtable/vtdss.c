// SPDX-License-Identifier: MIT
/*
 * VT-d's second stage (spec devices.md 7.4).
 *
 * There is no present bit: an entry is there when it is not 0, which permissions see to.
 */
#include "pgtable/format.h"

#include <errno.h>

#define READABLE (1ull << 0)
#define WRITABLE (1ull << 1)
#define LARGE (1ull << 7)
#define DIRTY (1ull << 9)
#define WRITTEN_BACK (1ull << 10)
#define SNOOP (1ull << 11)
#define ADDRESS 0x000ffffffffff000ull
#define LEAF_LEVELS 3

static int vtdss_init(const struct pgtable_config *config, struct pgtable_geometry *geo)
{
	unsigned top = config->top_level;

	if (!config->va_bits || config->va_bits > 57 || !config->oa_bits || config->oa_bits > 52)
		return -EINVAL;
	if (!top)
		top = config->va_bits > 48 ? 4 : config->va_bits > 39 ? 3 : 2;
	if (top < 2 || top > 4 || config->va_bits > 12 + 9 * (top + 1))
		return -EOPNOTSUPP;
	geo->granule_lg2 = 12;
	geo->index_lg2 = geo->root_lg2 = 9;
	geo->top = geo->max_top = top;
	geo->va_bits = config->va_bits;
	geo->oa_bits = config->oa_bits;
	geo->pgsizes = 1ull << 12 | 1ull << 21 | 1ull << 30;
	geo->present = UINT64_MAX;
	for (unsigned l = 0; l <= top; l++) {
		geo->level[l].table_mask = l < LEAF_LEVELS ? LARGE : 0;
		geo->level[l].table_bits = READABLE | WRITABLE;
		if (config->features & PGTABLE_NONCOHERENT)
			geo->level[l].table_bits |= WRITTEN_BACK;
	}
	geo->addr_mask = ADDRESS;
	geo->contig_value = 1;
	geo->dirty_flip = DIRTY;
	return 0;
}

static int vtdss_leaf_bits(const struct pgtable_geometry *geo, unsigned features, unsigned prot,
			   unsigned level, unsigned lg2, uint64_t *bits)
{
	(void)geo;
	(void)lg2;
	if ((features & PGTABLE_FORCE_WRITABLE) && !(prot & SWI_WRITE))
		return -EINVAL;
	*bits = 0;
	if (prot & SWI_READ)
		*bits |= READABLE;
	if (prot & SWI_WRITE)
		*bits |= WRITABLE;
	if (features & PGTABLE_FORCE_COHERENT)
		*bits |= SNOOP;
	if (level)
		*bits |= LARGE;
	return 0;
}

static unsigned vtdss_leaf_prot(uint64_t entry)
{
	return (entry & READABLE ? SWI_READ : 0) | (entry & WRITABLE ? SWI_WRITE : 0);
}

const struct pgtable_format pgtable_vtdss = {
	.name = "VT-d second stage",
	.features = PGTABLE_NONCOHERENT | PGTABLE_FORCE_COHERENT | PGTABLE_FORCE_WRITABLE,
	.init = vtdss_init,
	.leaf_bits = vtdss_leaf_bits,
	.leaf_prot = vtdss_leaf_prot,
};
