/* SPDX-License-Identifier: MIT */
#ifndef TESTS_PGTABLE_SUPPORT_H
#define TESTS_PGTABLE_SUPPORT_H

/* What the tests of src/pgtable share: the formats to try, and repeatable random numbers. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "pgtable/pgtable.h"
#include "../random.h"

#define RW (SWI_READ | SWI_WRITE)
#define KIB (1ull << 10)
#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define TIB (1ull << 40)

#define CONFIG(fmt, va, oa, ...)                                                        \
	{                                                                               \
		.format = &pgtable_##fmt, .va_bits = (va), .oa_bits = (oa), __VA_ARGS__ \
	}

struct variant {
	const char *name;
	struct pgtable_config config;
	uint64_t pgsizes; /* what it must advertise */
	bool arm;	  /* the rules of ARM */
	bool dirty, fresh_is_dirty;
};

#define SIZES_4K (1ull << 12 | 1ull << 21 | 1ull << 30)

static const struct variant variants[] = {
	{.name = "AMDv1",
	 .config = CONFIG(amdv1, 64, 52, .top_level = 0),
	 .pgsizes = 0x000fff7ffffff000,
	 .dirty = true},
	{.name = "AMDv1, 32 bits",
	 .config = CONFIG(amdv1, 32, 52, .top_level = 0),
	 .pgsizes = 0x7ffff000,
	 .dirty = true},
	{.name = "AMDv1 mock",
	 .config = CONFIG(amdv1_mock, 38, 51, .top_level = 0),
	 .pgsizes = 0x1ffffff800,
	 .dirty = true},
	{.name = "AMDv1 mock, huge",
	 .config = CONFIG(amdv1_mock, 38, 51, .pgsizes = 4 * KIB | MIB),
	 .pgsizes = 4 * KIB | MIB,
	 .dirty = true},
	{.name = "VT-d second stage, 3 levels",
	 .config = CONFIG(vtdss, 39, 52, .features = PGTABLE_FORCE_COHERENT),
	 .pgsizes = SIZES_4K,
	 .dirty = true},
	{.name = "VT-d second stage, 4 levels",
	 .config = CONFIG(vtdss, 48, 52, .features = PGTABLE_NONCOHERENT),
	 .pgsizes = SIZES_4K,
	 .dirty = true},
	{.name = "VT-d second stage, 5 levels",
	 .config = CONFIG(vtdss, 57, 46, .top_level = 0),
	 .pgsizes = SIZES_4K,
	 .dirty = true},
	{
		.name = "x86-64, 4 levels",
		.config = CONFIG(x86_64, 48, 52, .features = PGTABLE_SIGN_EXTENDED),
		.pgsizes = SIZES_4K,
	},
	{
		.name = "x86-64, 5 levels",
		.config = CONFIG(x86_64, 56, 52, .features = PGTABLE_NONCOHERENT),
		.pgsizes = SIZES_4K,
	},
	{
		.name = "Sv39",
		.config = CONFIG(riscv64, 39, 56, .top_level = 0),
		.pgsizes = SIZES_4K,
	},
	{
		.name = "Sv48 + Svnapot",
		.config = CONFIG(riscv64, 48, 56, .features = PGTABLE_SVNAPOT),
		.pgsizes = 0x8040211000,
	},
	{
		.name = "Sv57",
		.config = CONFIG(riscv64, 57, 56, .top_level = 0),
		.pgsizes = 0x1008040201000,
	},
	{.name = "LPAE s1 4K",
	 .config = CONFIG(arm_lpae_s1, 48, 48, .top_level = 0),
	 .pgsizes = SIZES_4K,
	 .arm = true},
	{.name = "LPAE s1 4K dirty",
	 .config = CONFIG(arm_lpae_s1, 40, 44, .features = PGTABLE_DIRTY | PGTABLE_NONCOHERENT),
	 .pgsizes = SIZES_4K,
	 .arm = true,
	 .dirty = true,
	 .fresh_is_dirty = true},
	{.name = "LPAE s1 16K",
	 .config = CONFIG(arm_lpae_s1, 48, 48, .granules = 16 * KIB),
	 .pgsizes = 16 * KIB | 32 * MIB,
	 .arm = true},
	{.name = "LPAE s1 64K",
	 .config = CONFIG(arm_lpae_s1, 52, 52, .granules = 64 * KIB, .features = PGTABLE_DIRTY),
	 .pgsizes = 64 * KIB | 512 * MIB | 4 * TIB,
	 .arm = true,
	 .dirty = true,
	 .fresh_is_dirty = true},
	{.name = "LPAE s2 4K, 2 tables as root",
	 .config = CONFIG(arm_lpae_s2, 40, 40, .top_level = 0),
	 .pgsizes = SIZES_4K,
	 .arm = true},
	{.name = "LPAE s2 4K, 8 tables as root",
	 .config = CONFIG(arm_lpae_s2, 42, 42, .top_level = 0),
	 .pgsizes = SIZES_4K,
	 .arm = true},
	{.name = "LPAE s2 16K, 16 tables as root",
	 .config = CONFIG(arm_lpae_s2, 40, 40, .granules = 16 * KIB),
	 .pgsizes = 16 * KIB | 32 * MIB,
	 .arm = true},
	{.name = "LPAE s2 16K, 2 tables as root",
	 .config = CONFIG(arm_lpae_s2, 48, 48, .granules = 16 * KIB),
	 .pgsizes = 16 * KIB | 32 * MIB,
	 .arm = true},
	{.name = "LPAE s2 64K",
	 .config = CONFIG(arm_lpae_s2, 48, 48, .granules = 64 * KIB),
	 .pgsizes = 64 * KIB | 512 * MIB,
	 .arm = true},
};

static inline struct pgtable *table_make(const struct variant *v)
{
	struct pgtable *pt;

	assert_int_equal(pgtable_create(&v->config, &pt), 0);
	return pt;
}

static inline struct pgtable_info info_of(struct pgtable *pt)
{
	struct pgtable_info info;

	pgtable_get_info(pt, &info);
	return info;
}

static inline uint64_t lowest_size(uint64_t sizes)
{
	return sizes & -sizes;
}

#endif
