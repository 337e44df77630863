// SPDX-License-Identifier: MIT
/*
 * x86-64: the CPU's table, which VT-d's first stage and AMD-Vi's v2 share (spec devices.md 7.3).
 *
 * Reading cannot be denied. Dirty and accessed bits are set from the start, so that the walker never
 * writes; hence there is no dirty tracking.
 */
#include "pgtable/format.h"

#include <errno.h>

#define PRESENT (1ull << 0)
#define WRITABLE (1ull << 1)
#define USER (1ull << 2)
#define ACCESSED (1ull << 5)
#define DIRTY (1ull << 6)
#define LARGE (1ull << 7)
#define WRITTEN_BACK (1ull << 9)
#define ADDRESS 0x000ffffffffff000ull
#define LEAF_LEVELS 3 /* with leaves: 4 KiB, 2 MiB, 1 GiB */

static int x86_64_init(const struct pgtable_config *config, struct pgtable_geometry *geo)
{
	bool extended = config->features & PGTABLE_SIGN_EXTENDED;
	unsigned widest = extended ? 57 : 56, top = config->top_level;

	if (!config->va_bits || config->va_bits > widest || !config->oa_bits ||
	    config->oa_bits > 52)
		return -EINVAL;
	if (!top)
		top = config->va_bits > widest - 9 ? 4 : 3;
	if ((top != 3 && top != 4) || config->va_bits > widest - 9 * (4 - top))
		return -EOPNOTSUPP;
	geo->granule_lg2 = 12;
	geo->index_lg2 = geo->root_lg2 = 9;
	geo->top = geo->max_top = top;
	geo->va_bits = config->va_bits;
	geo->oa_bits = config->oa_bits;
	geo->sign_extended = extended;
	geo->pgsizes = 1ull << 12 | 1ull << 21 | 1ull << 30;
	geo->present = PRESENT;
	for (unsigned l = 0; l <= top; l++) {
		/* Above the levels with leaves the bit means nothing. */
		geo->level[l].table_mask = l < LEAF_LEVELS ? LARGE : 0;
		geo->level[l].table_bits = PRESENT | WRITABLE | USER | ACCESSED;
		if (config->features & PGTABLE_NONCOHERENT)
			geo->level[l].table_bits |= WRITTEN_BACK;
	}
	geo->addr_mask = ADDRESS;
	geo->contig_value = 1;
	geo->dirty_errno = -EOPNOTSUPP;
	return 0;
}

static int x86_64_leaf_bits(const struct pgtable_geometry *geo, unsigned features, unsigned prot,
			    unsigned level, unsigned lg2, uint64_t *bits)
{
	(void)geo;
	(void)features;
	(void)lg2;
	*bits = PRESENT | USER | ACCESSED;
	if (prot & SWI_WRITE)
		*bits |= WRITABLE | DIRTY;
	if (level)
		*bits |= LARGE;
	return 0;
}

static unsigned x86_64_leaf_prot(uint64_t entry)
{
	return SWI_READ | (entry & WRITABLE ? SWI_WRITE : 0);
}

const struct pgtable_format pgtable_x86_64 = {
	.name = "x86-64",
	.features = PGTABLE_NONCOHERENT | PGTABLE_SIGN_EXTENDED,
	.init = x86_64_init,
	.leaf_bits = x86_64_leaf_bits,
	.leaf_prot = x86_64_leaf_prot,
};
