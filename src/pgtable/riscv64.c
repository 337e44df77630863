// SPDX-License-Identifier: MIT
/*
 * RISC-V, 64-bit: Sv39, Sv48, Sv57 (spec devices.md 7.5).
 *
 * Whatever has one of the permissions is a leaf, at any level. With Svnapot 16 entries of level 0
 * can be one leaf of 64 KiB, told by N and a lone one in the low bits of the page number.
 */
#include "pgtable/format.h"

#include <errno.h>

#define VALID (1ull << 0)
#define READABLE (1ull << 1)
#define WRITABLE (1ull << 2)
#define EXECUTABLE (1ull << 3)
#define USER (1ull << 4)
#define ACCESSED (1ull << 6)
#define DIRTY (1ull << 7)
#define PPN 0x003ffffffffffc00ull
#define PBMT_NC (1ull << 61)
#define PBMT_IO (1ull << 62)
#define NAPOT (1ull << 63)
#define NAPOT_64K (8ull << 10)
#define NAPOT_LG2 16u

static int riscv64_init(const struct pgtable_config *config, struct pgtable_geometry *geo)
{
	unsigned top;

	if (config->va_bits != 39 && config->va_bits != 48 && config->va_bits != 57)
		return -EINVAL;
	if (!config->oa_bits || config->oa_bits > 56)
		return -EINVAL;
	top = (config->va_bits - 12) / 9 - 1;
	if (config->top_level && config->top_level != top)
		return -EOPNOTSUPP;
	geo->granule_lg2 = 12;
	geo->index_lg2 = geo->root_lg2 = 9;
	geo->top = geo->max_top = top;
	geo->va_bits = config->va_bits;
	geo->oa_bits = config->oa_bits;
	geo->sign_extended = true;
	geo->present = VALID;
	for (unsigned l = 0; l <= top; l++) {
		geo->pgsizes |= 1ull << (12 + 9 * l);
		geo->level[l].table_mask = READABLE | WRITABLE | EXECUTABLE;
		geo->level[l].table_bits = VALID;
	}
	if (config->features & PGTABLE_SVNAPOT)
		geo->pgsizes |= 1ull << NAPOT_LG2;
	geo->addr_mask = PPN;
	geo->shift_left = 2;
	geo->contig_mask = geo->contig_value = NAPOT;
	geo->dirty_errno = -EOPNOTSUPP;
	return 0;
}

static int riscv64_leaf_bits(const struct pgtable_geometry *geo, unsigned features, unsigned prot,
			     unsigned level, unsigned lg2, uint64_t *bits)
{
	uint64_t access = 0;

	if (prot & SWI_WRITE)
		access |= READABLE | WRITABLE | DIRTY;
	if (prot & SWI_READ)
		access |= READABLE;
	if (!(prot & PGTABLE_NOEXEC))
		access |= EXECUTABLE;
	if (!access)
		return -EOPNOTSUPP;
	*bits = VALID | ACCESSED | USER | access;
	if (features & PGTABLE_PBMT) {
		if (prot & PGTABLE_MMIO)
			*bits |= PBMT_IO;
		else if (!(prot & PGTABLE_CACHE))
			*bits |= PBMT_NC;
	}
	if (lg2 != level_lg2(geo, level))
		*bits |= NAPOT | NAPOT_64K;
	return 0;
}

static unsigned riscv64_leaf_prot(uint64_t entry)
{
	return (entry & READABLE ? SWI_READ : 0) | (entry & WRITABLE ? SWI_WRITE : 0);
}

static unsigned riscv64_contig_lg2(const struct pgtable_geometry *geo, uint64_t entry)
{
	(void)geo;
	(void)entry;
	return NAPOT_LG2;
}

const struct pgtable_format pgtable_riscv64 = {
	.name = "RISC-V",
	.features = PGTABLE_SIGN_EXTENDED | PGTABLE_SVNAPOT | PGTABLE_PBMT,
	.init = riscv64_init,
	.leaf_bits = riscv64_leaf_bits,
	.leaf_prot = riscv64_leaf_prot,
	.contig_lg2 = riscv64_contig_lg2,
};
