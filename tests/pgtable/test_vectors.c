// SPDX-License-Identifier: MIT
/*
 * Entries bit for bit: the vectors of spec devices.md 7, each made by mapping and read back from a
 * dump of the table.
 */
#include "support.h"

#define AMD CONFIG(amdv1, 64, 52, .top_level = 0)
#define AMD_AT(base) CONFIG(amdv1, 64, 52, .table_base = (base))
#define MOCK CONFIG(amdv1_mock, 38, 51, .top_level = 0)
#define X86 CONFIG(x86_64, 48, 52, .features = PGTABLE_SIGN_EXTENDED)
#define VTD CONFIG(vtdss, 48, 52, .features = PGTABLE_FORCE_COHERENT)
#define RISCV CONFIG(riscv64, 48, 56, .features = PGTABLE_SVNAPOT)
#define S1(extra) CONFIG(arm_lpae_s1, 48, 48, .features = (extra))
#define S1_64K CONFIG(arm_lpae_s1, 52, 52, .granules = 64 * KIB)
#define S2(extra) CONFIG(arm_lpae_s2, 48, 48, .features = (extra))

/* ---- leaves ---------------------------------------------------------------------------------- */

struct leaf_vector {
	struct pgtable_config config;
	phys_t pa;
	uint64_t size;
	unsigned prot;
	uint64_t entry;
	unsigned replicas;
};

static const struct leaf_vector leaves[] = {
	{AMD, 0x123456000, 4 * KIB, RW, 0x7000000123456001, 1},
	{AMD, 0x123456000, 4 * KIB, SWI_READ, 0x3000000123456001, 1},
	{AMD, 0x100000, 8 * KIB, RW, 0x7000000000100e01, 2},
	{AMD, 0x100000, 16 * KIB, RW, 0x7000000000101e01, 4},
	{AMD, 0x300000, MIB, RW, 0x700000000037fe01, 256},
	{AMD, 0x40000000, 2 * MIB, RW, 0x7000000040000001, 1},
	{AMD, 0x40000000, 16 * MIB, SWI_WRITE, 0x50000000407ffe01, 8},
	{AMD, 0x4000000000, GIB, RW, 0x7000004000000001, 1},
	{AMD, 0x10000000000, TIB, RW, 0x7000017ffffffe01, 2},
	{MOCK, 0x123456800, 2 * KIB, RW, 0x60000002468ad001, 1},
	{MOCK, 0x123456000, 4 * KIB, RW, 0x60000002468ace01, 2},
	{MOCK, 0x100000, 16 * KIB, RW, 0x6000000000203e01, 8},
	{MOCK, 0x100000, MIB, RW, 0x6000000000200001, 1},
	{X86, 0x123456000, 4 * KIB, RW, 0x0000000123456067, 1},
	{X86, 0x123456000, 4 * KIB, SWI_READ, 0x0000000123456025, 1},
	{X86, 0x40000000, 2 * MIB, RW, 0x00000000400000e7, 1},
	{X86, 0x40000000, GIB, SWI_READ, 0x00000000400000a5, 1},
	{VTD, 0x123456000, 4 * KIB, RW, 0x0000000123456803, 1},
	{VTD, 0x123456000, 4 * KIB, SWI_READ, 0x0000000123456801, 1},
	{VTD, 0x40000000, 2 * MIB, RW, 0x0000000040000883, 1},
	{VTD, 0x40000000, GIB, SWI_WRITE, 0x0000000040000882, 1},
	{RISCV, 0x123456000, 4 * KIB, RW | PGTABLE_CACHE, 0x0000000048d158df, 1},
	{RISCV, 0x123456000, 4 * KIB, SWI_READ | PGTABLE_CACHE, 0x0000000048d1585b, 1},
	{RISCV, 0x123450000, 64 * KIB, RW | PGTABLE_CACHE, 0x8000000048d160df, 16},
	{RISCV, 0x40000000, 2 * MIB, RW | PGTABLE_CACHE, 0x00000000100000df, 1},
	{RISCV, 0x40000000, GIB, RW | PGTABLE_CACHE, 0x00000000100000df, 1},
	{S1(0), 0x123456000, 4 * KIB, RW | PGTABLE_CACHE, 0x0000000123456f47, 1},
	{S1(0), 0x123456000, 4 * KIB, SWI_READ | PGTABLE_CACHE, 0x0000000123456fc7, 1},
	{S1(PGTABLE_DIRTY), 0x123456000, 4 * KIB, RW | PGTABLE_CACHE, 0x0008000123456f47, 1},
	{S1(0), 0x123456000, 4 * KIB, RW | PGTABLE_MMIO, 0x0000000123456e4b, 1},
	{S1(0), 0x40000000, 2 * MIB, RW | PGTABLE_CACHE, 0x0000000040000f45, 1},
	{S1_64K, 0x8000000010000, 64 * KIB, RW | PGTABLE_CACHE, 0x0000000000018f47, 1},
	{S2(0), 0x123456000, 4 * KIB, RW | PGTABLE_CACHE, 0x00000001234567ff, 1},
	{S2(0), 0x123456000, 4 * KIB, SWI_READ | PGTABLE_CACHE, 0x000000012345677f, 1},
	{S2(PGTABLE_FWB), 0x123456000, 4 * KIB, RW | PGTABLE_CACHE, 0x00000001234567db, 1},
	{S2(0), 0x123456000, 4 * KIB, RW | PGTABLE_MMIO, 0x00000001234566c7, 1},
	{S2(0), 0x40000000, GIB, RW | PGTABLE_CACHE, 0x00000000400007fd, 1},

	/* Not among the vectors, from the tables of bits. */
	{S1(0), 0x1000, 4 * KIB, RW, 0x1e43, 1},
	{S1(0), 0x1000, 4 * KIB, RW | PGTABLE_CACHE | PGTABLE_PRIV, 0x1f07, 1},
	{S1(0), 0x1000, 4 * KIB, RW | PGTABLE_CACHE | PGTABLE_NOEXEC, 0x0060000000001f47, 1},
	{S1(PGTABLE_NS), 0x1000, 4 * KIB, RW | PGTABLE_CACHE, 0x1f67, 1},
	{S1(PGTABLE_DIRTY), 0x1000, 4 * KIB, SWI_READ | PGTABLE_CACHE, 0x1fc7, 1},
	{S2(0), 0x1000, 4 * KIB, SWI_WRITE, 0x1697, 1},
	{RISCV, 0x1000, 4 * KIB, SWI_WRITE | PGTABLE_NOEXEC, 0x4d7, 1},
	{CONFIG(riscv64, 39, 56, .features = PGTABLE_PBMT), 0x1000, 4 * KIB, RW | PGTABLE_MMIO,
	 0x40000000000004df, 1},
	{CONFIG(riscv64, 39, 56, .features = PGTABLE_PBMT), 0x1000, 4 * KIB, RW, 0x20000000000004df,
	 1},
	{CONFIG(vtdss, 39, 52, .top_level = 0), 0x1000, 4 * KIB, RW, 0x1003, 1},
};

struct dump {
	unsigned level, leaves, others;
	iova_t first, last;
	uint64_t entry;
};

static void dump_leaf(void *data, const struct pgtable_entry *entry)
{
	struct dump *dump = data;

	if (entry->level != dump->level || entry->iova < dump->first || entry->iova > dump->last)
		return; /* a table on the way to it, or the old root of a root that grew */
	if (entry->value == dump->entry)
		dump->leaves++;
	else
		dump->others++;
}

static void check_leaf(size_t i, const struct leaf_vector *v)
{
	iova_t iova = v->config.va_bits <= 39 ? v->size : 4 * TIB + v->size;
	struct dump dump = {.entry = v->entry};
	struct pgtable_leaf leaf;
	struct pgtable *pt;
	uint64_t mapped;

	assert_int_equal(pgtable_create(&v->config, &pt), 0);
	assert_int_equal(pgtable_map_pages(pt, iova, v->pa, v->size, 1, v->prot, &mapped, NULL), 0);
	assert_int_equal(mapped, v->size);
	for (unsigned r = 0; r < v->replicas; r++) {
		assert_true(pgtable_lookup(pt, iova + v->size / v->replicas * r, &leaf));
		if (leaf.entry != v->entry)
			print_error("vector %zu: %016llx, not %016llx\n", i,
				    (unsigned long long)leaf.entry, (unsigned long long)v->entry);
		assert_int_equal(leaf.entry, v->entry);
		assert_int_equal(leaf.iova, iova);
		assert_int_equal(leaf.length, v->size);
		assert_int_equal(leaf.pa, v->pa);
	}
	dump.level = leaf.level;
	dump.first = iova;
	dump.last = iova + (v->size - 1);
	pgtable_dump(pt, dump_leaf, &dump);
	assert_int_equal(dump.leaves, v->replicas);
	assert_int_equal(dump.others, 0);
	assert_int_equal(pgtable_unmap(pt, iova, v->size, NULL), v->size);
	assert_false(pgtable_lookup(pt, iova, &leaf));
	pgtable_destroy(pt);
}

static void leaf_vectors(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
		check_leaf(i, &leaves[i]);
}

/* ---- pointers to tables ---------------------------------------------------------------------- */

struct table_vector {
	struct pgtable_config config;
	uint64_t size, stride; /* leaves to map, until the table is there */
	unsigned level;
	phys_t pa;
	uint64_t entry;
};

static const struct table_vector tables[] = {
	{AMD, 4 * KIB, 2 * MIB, 1, 0x5000, 0x6000000000005201},
	{AMD_AT(0xabcde0000), 4 * KIB, GIB, 2, 0xabcdef000, 0x6000000abcdef401},
	{AMD, 1ull << 51, 1ull << 57, 5, 0x7000, 0x6000000000007a01},
	{MOCK, 2 * KIB, MIB, 1, 0x5000, 0x600000000000a201},
	{X86, 4 * KIB, 2 * MIB, 1, 0x5000, 0x0000000000005027},
	{VTD, 4 * KIB, 2 * MIB, 1, 0x5000, 0x0000000000005003},
	{RISCV, 4 * KIB, 2 * MIB, 1, 0x5000, 0x0000000000001401},
	/* From the tables of bits. */
	{CONFIG(x86_64, 48, 52, .features = PGTABLE_SIGN_EXTENDED | PGTABLE_NONCOHERENT), 4 * KIB,
	 2 * MIB, 1, 0x5000, 0x5227},
	{CONFIG(vtdss, 48, 52, .features = PGTABLE_NONCOHERENT), 4 * KIB, 2 * MIB, 1, 0x5000,
	 0x5403},
	{S1(0), 4 * KIB, 2 * MIB, 1, 0x5000, 0x5003},
	{S1(PGTABLE_NS | PGTABLE_NONCOHERENT), 4 * KIB, 2 * MIB, 1, 0x5000, 0x8080000000005003},
	{CONFIG(arm_lpae_s1, 52, 52, .granules = 64 * KIB, .table_base = 0x9000000000000), 64 * KIB,
	 512 * MIB, 1, 0x9000000050000, 0x59003},
};

struct wanted {
	const struct table_vector *v;
	bool seen;
};

static void look_for(void *data, const struct pgtable_entry *entry)
{
	struct wanted *w = data;

	if (entry->level == w->v->level && entry->value == w->v->entry)
		w->seen = true;
}

static void table_vectors(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		struct wanted wanted = {&tables[i], false};
		const struct table_vector *v = wanted.v;
		struct pgtable *pt;
		uint64_t mapped, n;

		assert_int_equal(pgtable_create(&v->config, &pt), 0);
		/* Pages are handed out in ascending order: page n exists after n maps at most. */
		n = 2 + ((v->pa - v->config.table_base) >> __builtin_ctzll(info_of(pt).table_size));
		for (uint64_t k = 1; k < n; k++)
			assert_int_equal(pgtable_map_pages(pt, k * v->stride, 0, v->size, 1, RW,
							   &mapped, NULL),
					 0);
		pgtable_dump(pt, look_for, &wanted);
		if (!wanted.seen)
			print_error("table vector %zu not seen\n", i);
		assert_true(wanted.seen);
		pgtable_destroy(pt);
	}
}

/* ---- dirty bits ------------------------------------------------------------------------------ */

static void dirty_vectors(void **state)
{
	static const struct {
		struct pgtable_config config;
		uint64_t size, clean, dirty;
	} v[] = {
		{AMD, 4 * KIB, 0x7000000000000001, 0x7000000000000041},
		{AMD, 8 * KIB, 0x7000000000000e01, 0x7000000000000e41},
		{MOCK, 2 * KIB, 0x6000000000000001, 0x6000000000000041},
		{VTD, 2 * MIB, 0x883, 0xa83},
		{S1(PGTABLE_DIRTY), 4 * KIB, 0x0008000000000ec3, 0x0008000000000e43},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		struct pgtable_leaf leaf;
		struct pgtable *pt;
		uint64_t mapped;

		assert_int_equal(pgtable_create(&v[i].config, &pt), 0);
		assert_int_equal(pgtable_map_pages(pt, 0, 0, v[i].size, 1, RW, &mapped, NULL), 0);
		assert_int_equal(pgtable_read_dirty(pt, 0, v[i].size, 0, NULL, NULL, NULL), 0);
		assert_true(pgtable_lookup(pt, 0, &leaf));
		assert_int_equal(leaf.entry, v[i].clean);
		pgtable_mark_dirty(pt, 0, 1);
		/* The last replica tells as well as the first. */
		assert_true(pgtable_lookup(pt, v[i].size - 1, &leaf));
		assert_int_equal(leaf.entry, v[i].dirty);
		assert_true(leaf.dirty);
		pgtable_destroy(pt);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(leaf_vectors),
		cmocka_unit_test(table_vectors),
		cmocka_unit_test(dirty_vectors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
