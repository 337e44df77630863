// SPDX-License-Identifier: MIT
/*
 * The rules of spec devices.md 7 one by one, on every format they are for: what can be made, errors
 * in order, the choice of leaves, what unmapping takes, what dirty reads report, failed allocations.
 */
#include "support.h"

#define for_each_variant(v) for (v = variants; v < variants + ARRAY_SIZE(variants); v++)

static int create(struct pgtable_config config)
{
	struct pgtable *pt = NULL;
	int rc = pgtable_create(&config, &pt);

	pgtable_destroy(pt);
	return rc;
}

#define CREATE(...) create((struct pgtable_config)CONFIG(__VA_ARGS__))

static void creation(void **state)
{
	const struct variant *v;

	(void)state;
	for_each_variant(v)
	{
		struct pgtable *pt = table_make(v);
		struct pgtable_info info = info_of(pt);

		assert_int_equal(info.pgsizes, v->pgsizes);
		assert_int_equal(info.dirty, v->dirty);
		assert_int_equal(info.aperture_first, 0);
		pgtable_destroy(pt);
		assert_int_equal(create((struct pgtable_config){.format = v->config.format,
								.oa_bits = v->config.oa_bits}),
				 -EINVAL);
		assert_int_equal(create((struct pgtable_config){.format = v->config.format,
								.va_bits = v->config.va_bits}),
				 -EINVAL);
		assert_int_equal(create((struct pgtable_config){.format = v->config.format,
								.va_bits = v->config.va_bits,
								.oa_bits = v->config.oa_bits,
								.features = 1u << 31}),
				 -EOPNOTSUPP);
	}
	assert_int_equal(CREATE(amdv1, 65, 52, .top_level = 0), -EINVAL);
	assert_int_equal(CREATE(amdv1, 64, 53, .top_level = 0), -EINVAL);
	assert_int_equal(CREATE(amdv1, 64, 52, .top_level = 6), -EOPNOTSUPP);
	assert_int_equal(CREATE(amdv1_mock, 39, 51, .top_level = 0), -EOPNOTSUPP);
	assert_int_equal(CREATE(amdv1_mock, 38, 52, .top_level = 0), -EINVAL);
	assert_int_equal(CREATE(x86_64, 57, 52, .top_level = 0), -EINVAL);
	assert_int_equal(CREATE(x86_64, 57, 52, .features = PGTABLE_SIGN_EXTENDED), 0);
	assert_int_equal(CREATE(x86_64, 48, 52, .top_level = 3), -EOPNOTSUPP);
	assert_int_equal(CREATE(x86_64, 47, 52, .top_level = 3), 0);
	assert_int_equal(CREATE(x86_64, 39, 52, .top_level = 2), -EOPNOTSUPP);
	assert_int_equal(CREATE(vtdss, 48, 52, .top_level = 2), -EOPNOTSUPP);
	assert_int_equal(CREATE(vtdss, 48, 52, .top_level = 4), 0);
	assert_int_equal(CREATE(vtdss, 58, 52, .top_level = 0), -EINVAL);
	assert_int_equal(CREATE(riscv64, 40, 56, .top_level = 0), -EINVAL);
	assert_int_equal(CREATE(riscv64, 39, 57, .top_level = 0), -EINVAL);
	assert_int_equal(CREATE(arm_lpae_s1, 48, 41, .top_level = 0), -EINVAL);
	assert_int_equal(CREATE(arm_lpae_s1, 52, 52, .top_level = 0), -EINVAL);
	assert_int_equal(CREATE(arm_lpae_s1, 48, 48, .granules = 8 * KIB), -EINVAL);
	assert_int_equal(CREATE(arm_lpae_s2, 48, 48, .features = PGTABLE_DIRTY), -EOPNOTSUPP);
	/* No leaf size is left; tables do not fit below the end, or lie askew. */
	assert_int_equal(CREATE(vtdss, 48, 52, .pgsizes = 8 * KIB), -EINVAL);
	assert_int_equal(CREATE(vtdss, 48, 52, .table_base = 1ull << 52), -EINVAL);
	assert_int_equal(CREATE(vtdss, 48, 52, .table_base = 0x1000), -EINVAL);
}

static void widths(void **state)
{
	static const struct {
		struct pgtable_config config;
		iova_t last;
		unsigned levels;
	} v[] = {
		{CONFIG(amdv1, 64, 52, .top_level = 0), UINT64_MAX, 3},
		{CONFIG(amdv1_mock, 38, 51, .top_level = 0), 0x3fffffffff, 3},
		{CONFIG(x86_64, 48, 52, .features = PGTABLE_SIGN_EXTENDED), 0x7fffffffffff, 4},
		{CONFIG(x86_64, 57, 52, .features = PGTABLE_SIGN_EXTENDED), 0xffffffffffffff, 5},
		{CONFIG(x86_64, 47, 52, .top_level = 0), 0x7fffffffffff, 4},
		{CONFIG(x86_64, 48, 52, .top_level = 0), 0xffffffffffff, 5},
		{CONFIG(vtdss, 39, 52, .top_level = 0), 0x7fffffffff, 3},
		{CONFIG(vtdss, 57, 52, .top_level = 0), 0x1ffffffffffffff, 5},
		{CONFIG(riscv64, 39, 56, .top_level = 0), 0x3fffffffff, 3},
		{CONFIG(arm_lpae_s1, 48, 48, .top_level = 0), 0xffffffffffff, 4},
		{CONFIG(arm_lpae_s1, 32, 32, .top_level = 0), 0xffffffff, 3},
		{CONFIG(arm_lpae_s2, 40, 40, .top_level = 0), 0xffffffffff, 3},
		{CONFIG(arm_lpae_s2, 42, 42, .top_level = 0), 0x3ffffffffff, 3},
		{CONFIG(arm_lpae_s2, 44, 44, .top_level = 0), 0xfffffffffff, 4},
		{CONFIG(arm_lpae_s2, 40, 40, .granules = 16 * KIB), 0xffffffffff, 2},
		{CONFIG(arm_lpae_s2, 48, 48, .granules = 16 * KIB), 0xffffffffffff, 3},
		{CONFIG(arm_lpae_s1, 48, 48, .granules = 16 * KIB), 0xffffffffffff, 4},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		struct pgtable_info info;
		struct pgtable *pt;
		uint64_t page;

		assert_int_equal(pgtable_create(&v[i].config, &pt), 0);
		info = info_of(pt);
		assert_int_equal(info.aperture_last, v[i].last);
		assert_int_equal(info.levels, v[i].levels);
		/* The last page can be mapped, and the one after it cannot. */
		page = lowest_size(info.pgsizes);
		assert_int_equal(pgtable_map(pt, v[i].last - page + 1, page, page, RW, NULL), 0);
		assert_int_equal(pgtable_iova_to_phys(pt, v[i].last), 2 * page - 1);
		if (v[i].last != UINT64_MAX)
			assert_int_equal(pgtable_map(pt, v[i].last + 1, page, page, RW, NULL),
					 -ERANGE);
		assert_int_equal(pgtable_iova_to_phys(pt, v[i].last + 1), 0);
		assert_int_equal(pgtable_unmap(pt, v[i].last - page + 1, 4 * page, NULL), page);
		pgtable_destroy(pt);
	}
	assert_int_equal(pgtable_choose_granule(20 * KIB, 4 * KIB), 4 * KIB);
	assert_int_equal(pgtable_choose_granule(20 * KIB, 64 * KIB), 16 * KIB);
	assert_int_equal(pgtable_choose_granule(80 * KIB, 4 * KIB), 16 * KIB);
	assert_int_equal(pgtable_choose_granule(0, 4 * KIB), 0);
}

/* Both halves of a sign-extended space, apart from each other. */
static void sign_extension(void **state)
{
	struct pgtable_config config = CONFIG(riscv64, 39, 56, .top_level = 0);
	iova_t upper = -(1ull << 38);
	struct pgtable *pt;

	(void)state;
	assert_int_equal(pgtable_create(&config, &pt), 0);
	assert_int_equal(pgtable_map(pt, upper, 0x1000, 0x1000, RW, NULL), 0);
	assert_int_equal(pgtable_map(pt, -0x1000ull, 0x2000, 0x1000, RW, NULL), 0);
	assert_int_equal(pgtable_iova_to_phys(pt, upper + 5), 0x1005);
	assert_int_equal(pgtable_iova_to_phys(pt, UINT64_MAX), 0x2fff);
	assert_int_equal(pgtable_iova_to_phys(pt, 1ull << 38), 0);
	assert_int_equal(pgtable_map(pt, (1ull << 38) - 0x1000, 0, 0x2000, RW, NULL), -ERANGE);
	assert_int_equal(pgtable_map(pt, 0x1000, 0, upper, RW, NULL), -ERANGE);
	assert_int_equal(pgtable_unmap(pt, -0x1000ull, 0x1000, NULL), 0x1000);
	assert_int_equal(pgtable_unmap(pt, upper, 0x1000, NULL), 0x1000);
	pgtable_destroy(pt);
}

/* One thing wrong after the other; what is wrong earlier in the list wins. */
static void map_errors(void **state)
{
	const struct variant *v;

	(void)state;
	for_each_variant(v)
	{
		struct pgtable *pt = table_make(v);
		uint64_t page = lowest_size(v->pgsizes), pa_end = 1ull << v->config.oa_bits, done;
		iova_t last = info_of(pt).aperture_last;
		int askew = v->arm ? -EINVAL : -ENXIO;
		size_t tables = info_of(pt).tables;

		assert_int_equal(pgtable_map(pt, 0, pa_end, page, PGTABLE_CACHE, NULL), -EINVAL);
		assert_int_equal(pgtable_map(pt, 0, pa_end, 0, RW, NULL), -ERANGE);
		assert_int_equal(pgtable_map(pt, 0, 0, 0, RW, NULL), -EINVAL);
		assert_int_equal(pgtable_map(pt, UINT64_MAX - 1, 0, 4, RW, NULL), -EOVERFLOW);
		assert_int_equal(pgtable_map(pt, 0, pa_end - page, 2 * page, RW, NULL), -ERANGE);
		if (last != UINT64_MAX)
			assert_int_equal(pgtable_map(pt, last - 1, 0, 3, RW, NULL), -ERANGE);
		assert_int_equal(pgtable_map(pt, page / 2, 0, page, RW, NULL), askew);
		assert_int_equal(pgtable_map(pt, 0, page / 2, page, RW, NULL), askew);
		assert_int_equal(pgtable_map(pt, 0, 0, page + page / 2, RW, NULL), askew);
		assert_int_equal(pgtable_map_pages(pt, 0, 0, page / 2, 1, RW, &done, NULL),
				 -EINVAL);
		assert_int_equal(pgtable_map_pages(pt, 0, 0, 3 * page, 1, RW, &done, NULL),
				 -EINVAL);
		assert_int_equal(pgtable_map_pages(pt, 0, 0, page, 0, RW, &done, NULL), -EINVAL);
		assert_int_equal(pgtable_map_pages(pt, 0, 0, page, UINT64_MAX, RW, &done, NULL),
				 -EOVERFLOW);
		assert_int_equal(info_of(pt).tables, tables);
		pgtable_destroy(pt);
	}
}

static void writable_only(void **state)
{
	struct pgtable_config config = CONFIG(vtdss, 48, 52, .features = PGTABLE_FORCE_WRITABLE);
	struct pgtable *pt;

	(void)state;
	assert_int_equal(pgtable_create(&config, &pt), 0);
	assert_int_equal(pgtable_map(pt, 0, 0, 0x1000, SWI_READ, NULL), -EINVAL);
	assert_int_equal(pgtable_map(pt, 0, 0, 0x1000, RW, NULL), 0);
	pgtable_destroy(pt);
}

/* A failed map leaves what was there and nothing else. */
static void occupied(void **state)
{
	const struct variant *v;

	(void)state;
	for_each_variant(v)
	{
		struct pgtable *pt = table_make(v);
		uint64_t page = lowest_size(v->pgsizes), n = 700, done;
		int busy = v->arm ? -EEXIST : -EADDRINUSE;

		assert_int_equal(pgtable_map(pt, n * page, page, page, RW, NULL), 0);
		assert_int_equal(pgtable_map(pt, page, 8 * page, n * page, RW, NULL), busy);
		for (unsigned i = 0; i < n; i++)
			assert_int_equal(pgtable_iova_to_phys(pt, i * page), 0);
		assert_int_equal(pgtable_iova_to_phys(pt, n * page), page);
		assert_int_equal(pgtable_map_pages(pt, page, 8 * page, page, n, RW, &done, NULL),
				 busy);
		assert_int_equal(done, (n - 1) * page);
		assert_int_equal(pgtable_unmap_pages(pt, page, page, n, NULL), n * page);
		pgtable_destroy(pt);
	}
}

/* A large leaf takes the place of an empty table, not of one with leaves, save on ARM. */
static void large_over_table(void **state)
{
	const struct variant *v;

	(void)state;
	for_each_variant(v)
	{
		struct pgtable *pt = table_make(v);
		struct pgtable_gather gather;
		uint64_t page = lowest_size(v->pgsizes), more = v->pgsizes & (v->pgsizes - 1);
		struct pgtable_leaf leaf;
		uint64_t large, tables, done;

		/* The smallest that is natural at level 1. */
		while (more && pgtable_map_pages(pt, 0, 0, large = lowest_size(more), 1, RW, &done,
						 NULL) == 0) {
			assert_true(pgtable_lookup(pt, 0, &leaf));
			assert_int_equal(pgtable_unmap(pt, 0, large, NULL), large);
			if (leaf.level)
				break;
			more &= more - 1;
		}
		if (!more || large < 3 * page) {
			pgtable_destroy(pt);
			continue;
		}
		pgtable_gather_init(&gather);
		assert_int_equal(pgtable_map(pt, page, page, page, RW, NULL), 0);
		tables = info_of(pt).tables;
		assert_int_equal(pgtable_map(pt, 0, 0, large, RW, &gather),
				 v->arm ? 0 : -EADDRINUSE);
		if (!v->arm) {
			assert_int_equal(pgtable_iova_to_phys(pt, page), page);
			assert_int_equal(pgtable_unmap(pt, page, page, NULL), page);
			assert_int_equal(info_of(pt).tables, tables);
			pgtable_gather_init(&gather);
			assert_int_equal(pgtable_map(pt, 0, 0, large, RW, &gather), 0);
		}
		assert_true(gather.first == 0 && gather.last == large - 1);
		assert_true(pgtable_lookup(pt, page, &leaf));
		assert_int_equal(leaf.length, large);
		/* The table waits for its readers. */
		assert_int_equal(info_of(pt).tables, tables);
		pgtable_gather_free(pt, &gather);
		assert_int_equal(info_of(pt).tables, tables - 1);
		pgtable_destroy(pt);
	}
}

static void unmap_rules(void **state)
{
	const struct variant *v;

	(void)state;
	for_each_variant(v)
	{
		struct pgtable *pt = table_make(v);
		uint64_t page = lowest_size(v->pgsizes), large = lowest_size(v->pgsizes & ~page);
		struct pgtable_gather gather;

		pgtable_gather_init(&gather);
		assert_int_equal(pgtable_unmap(pt, 0, page, &gather), 0);
		assert_true(gather.first > gather.last);
		/* page, hole, page */
		assert_int_equal(pgtable_map(pt, 0, page, page, RW, NULL), 0);
		assert_int_equal(pgtable_map(pt, 2 * page, page, page, RW, NULL), 0);
		assert_int_equal(pgtable_unmap_pages(pt, 0, page, 3, &gather), page);
		assert_true(gather.first == 0 && gather.last == page - 1);
		assert_int_equal(pgtable_iova_to_phys(pt, 2 * page), page);
		assert_int_equal(pgtable_unmap(pt, 2 * page, page, NULL), page);
		/* Inside a leaf, and up to the middle of one. */
		assert_int_equal(pgtable_map(pt, 0, 0, large, RW, NULL), 0);
		assert_int_equal(pgtable_unmap(pt, page, large - page, NULL), 0);
		assert_int_equal(pgtable_unmap(pt, 0, page, NULL), v->arm ? 0 : large);
		if (v->arm) {
			/* A block is no number of pages. */
			assert_int_equal(pgtable_unmap_pages(pt, 0, page, large / page, NULL), 0);
			assert_int_equal(pgtable_unmap_pages(pt, 0, large, 1, NULL), large);
		}
		pgtable_destroy(pt);
	}
}

/* ARM: a block that took a full table's place counts once, so that a hole further on is noticed. */
static void block_over_full_table(void **state)
{
	struct pgtable_config config = CONFIG(arm_lpae_s1, 48, 48, .top_level = 0);
	uint64_t block = 2 * MIB, done;
	struct pgtable *pt;

	(void)state;
	assert_int_equal(pgtable_create(&config, &pt), 0);
	assert_int_equal(pgtable_map_pages(pt, 0, 0, 4 * KIB, 512, RW, &done, NULL), 0);
	assert_int_equal(pgtable_map_pages(pt, 0, 0, block, 511, RW, &done, NULL), 0);
	assert_int_equal(pgtable_unmap_pages(pt, 0, block, 512, NULL), 511 * block);
	pgtable_destroy(pt);
}

/* Tables go when what they can map is unmapped at once, and memory is used again. */
static void tables_go(void **state)
{
	const struct variant *v;

	(void)state;
	for_each_variant(v)
	{
		struct pgtable *pt = table_make(v);
		struct pgtable_info info = info_of(pt);
		uint64_t page = lowest_size(v->pgsizes), slots = info.table_size / 8;
		uint64_t length = 3 * slots * page, done, slot = 1, empty;

		if (v->config.pgsizes)
			slot = 2; /* the smallest leaf takes two slots */
		length /= slot;
		/* What leads there stays. */
		assert_int_equal(pgtable_map_pages(pt, 2 * length, 0, page, 1, RW, &done, NULL), 0);
		assert_int_equal(pgtable_unmap(pt, 2 * length, page, NULL), page);
		empty = info_of(pt).tables;
		for (unsigned round = 0; round < 3; round++) {
			struct pgtable_gather gather;

			pgtable_gather_init(&gather);
			assert_int_equal(
				pgtable_map_pages(pt, 0, 0, page, length / page, RW, &done, NULL),
				0);
			assert_int_equal(info_of(pt).tables, empty + 3);
			assert_int_equal(pgtable_unmap(pt, 0, length, &gather), length);
			assert_int_equal(pgtable_iova_to_phys(pt, length - 1), 0);
			assert_int_equal(info_of(pt).tables, empty + 3);
			pgtable_gather_free(pt, &gather);
			assert_int_equal(info_of(pt).tables, empty);
		}
		pgtable_destroy(pt);
	}
}

/* ---- dirty ----------------------------------------------------------------------------------- */

struct reported {
	unsigned n;
	iova_t first;
	uint64_t length;
};

static void note(void *data, iova_t iova, uint64_t length)
{
	struct reported *r = data;

	if (!r->n++)
		r->first = iova;
	r->length += length;
}

static struct reported read_dirty(struct pgtable *pt, iova_t iova, uint64_t length, unsigned flags)
{
	struct reported r = {0};

	assert_int_equal(pgtable_read_dirty(pt, iova, length, flags, note, &r, NULL), 0);
	return r;
}

static void dirty_rules(void **state)
{
	const struct variant *v;

	(void)state;
	for_each_variant(v)
	{
		struct pgtable *pt = table_make(v);
		uint64_t page = lowest_size(v->pgsizes), large = lowest_size(v->pgsizes & ~page);
		struct pgtable_gather gather;
		struct reported r;

		if (!v->dirty) {
			assert_int_equal(pgtable_read_dirty(pt, 0, page, 0, NULL, NULL, NULL),
					 v->arm ? -EINVAL : -EOPNOTSUPP);
			pgtable_destroy(pt);
			continue;
		}
		assert_int_equal(pgtable_read_dirty(pt, 0, page, 2, NULL, NULL, NULL), -EINVAL);
		assert_int_equal(pgtable_read_dirty(pt, 0, 0, 0, NULL, NULL, NULL), -EINVAL);
		assert_int_equal(pgtable_read_dirty(pt, 2, UINT64_MAX, 0, NULL, NULL, NULL),
				 -EOVERFLOW);
		assert_int_equal(pgtable_map(pt, 0, 0, 2 * large, RW, NULL), 0);
		r = read_dirty(pt, 0, UINT64_MAX, 0);
		assert_int_equal(r.length, v->fresh_is_dirty ? 2 * large : 0);
		assert_int_equal(read_dirty(pt, 0, UINT64_MAX, 0).n, 0);

		/* One byte makes its leaf dirty; reading with NO_CLEAR keeps it so. (AMDv1 may have
		 * made one leaf of the two.) */
		pgtable_mark_dirty(pt, large - 1, 1);
		for (unsigned i = 0; i < 2; i++) {
			r = read_dirty(pt, 0, 2 * large, PGTABLE_NO_CLEAR);
			assert_int_equal(r.n, 1);
			assert_int_equal(r.first, 0);
			assert_true(r.length == large || r.length == 2 * large);
		}
		/* Parts of it: reported as far as asked, and not forgotten. */
		r = read_dirty(pt, page, page / 2, 0);
		assert_true(r.n == (page < large) && (!r.n || r.first == page));
		r = read_dirty(pt, large - page, 5, 0);
		assert_true(r.n == 1 && r.first == large - page && r.length == 5);
		pgtable_gather_init(&gather);
		assert_int_equal(pgtable_read_dirty(pt, 0, 2 * large, 0, note, &r, &gather), 0);
		assert_int_equal(r.n, 2);
		assert_true(gather.first == 0 && gather.last + 1 >= large);
		assert_int_equal(read_dirty(pt, 0, 2 * large, 0).n, 0);

		/* Unmapping forgets. */
		pgtable_mark_dirty(pt, 0, 2 * large);
		assert_int_equal(pgtable_unmap(pt, 0, 2 * large, NULL), 2 * large);
		assert_int_equal(pgtable_map(pt, 0, 0, 2 * large, SWI_READ, NULL), 0);
		assert_int_equal(read_dirty(pt, 0, 2 * large, 0).n, 0);
		/* Read-only leaves can be marked, save where dirty means writable. */
		pgtable_mark_dirty(pt, 0, 2 * large);
		assert_int_equal(read_dirty(pt, 0, 2 * large, 0).length, v->arm ? 0 : 2 * large);
		pgtable_destroy(pt);
	}
}

/* The root grows over leaves that are dirty, or are marked later. */
static void dirty_and_growth(void **state)
{
	struct pgtable *pt = table_make(&variants[0]);

	(void)state;
	assert_int_equal(pgtable_map(pt, 0x5000, 0x1000, 0x2000, RW, NULL), 0);
	pgtable_mark_dirty(pt, 0x5000, 1);
	assert_int_equal(info_of(pt).levels, 3);
	assert_int_equal(pgtable_map(pt, 1ull << 63, 0x1000, 0x1000, RW, NULL), 0);
	assert_int_equal(info_of(pt).levels, 6);
	assert_int_equal(pgtable_iova_to_phys(pt, 0x5000), 0x1000);
	assert_int_equal(read_dirty(pt, 0, UINT64_MAX, 0).first, 0x5000);
	pgtable_mark_dirty(pt, 1ull << 63, 1);
	assert_int_equal(read_dirty(pt, 0, UINT64_MAX, 0).first, 1ull << 63);
	assert_int_equal(pgtable_map(pt, 3ull << 52, 1ull << 51, 1ull << 51, RW, NULL), 0);
	pgtable_mark_dirty(pt, (3ull << 52) + 12345, 1);
	assert_int_equal(read_dirty(pt, 0, UINT64_MAX, 0).length, 1ull << 51);
	assert_int_equal(read_dirty(pt, 0, UINT64_MAX, 0).n, 0);
	pgtable_destroy(pt);
}

/* ---- failed allocations ---------------------------------------------------------------------- */

static void count_leaves(void *data, const struct pgtable_entry *entry)
{
	(void)entry;
	++*(unsigned *)data;
}

static void failed_allocations(void **state)
{
	const struct variant *v;
	unsigned failures = 0;

	(void)state;
	for_each_variant(v)
	{
		uint64_t page = lowest_size(v->pgsizes);
		struct pgtable *pt;
		unsigned nth, entries;

		for (nth = 1;; nth++) {
			int rc;

			swi_alloc_fail_nth(nth);
			rc = pgtable_create(&v->config, &pt);
			if (swi_alloc_fail_nth(0)) {
				assert_int_equal(rc, 0);
				break;
			}
			assert_int_equal(rc, -ENOMEM);
		}
		assert_int_equal(nth, 3);
		/* Over several tables, with large leaves between where there are some. */
		for (nth = 1;; nth++) {
			uint64_t length = 40000 * page;
			iova_t iova = info_of(pt).aperture_last / 2 + 1 - 20001 * page;
			struct pgtable_leaf leaf;
			int rc;

			swi_alloc_fail_nth(nth);
			rc = pgtable_map(pt, iova, 7 * page, length, RW, NULL);
			if (swi_alloc_fail_nth(0)) {
				assert_int_equal(rc, 0);
				assert_int_equal(pgtable_unmap(pt, iova, length, NULL), length);
				break;
			}
			assert_int_equal(rc, -ENOMEM);
			failures++;
			for (uint64_t i = 0; i < 40000; i += 13)
				assert_false(pgtable_lookup(pt, iova + i * page, &leaf));
			/* The next try must not live on what this one has made. */
			pgtable_destroy(pt);
			pt = table_make(v);
		}
		assert_true(nth > 2);
		/* Unmapping and the rest need none: each would fail now. */
		assert_int_equal(pgtable_map(pt, 0, 0, 600 * page, RW, NULL), 0);
		swi_alloc_fail_nth(1);
		pgtable_mark_dirty(pt, 0, 600 * page);
		pgtable_read_dirty(pt, 0, 600 * page, 0, NULL, NULL, NULL);
		entries = 0;
		pgtable_dump(pt, count_leaves, &entries);
		assert_true(entries > 1);
		assert_int_equal(pgtable_unmap(pt, 0, 600 * page, NULL), 600 * page);
		assert_int_equal(swi_alloc_fail_nth(0), 1);
		pgtable_destroy(pt);
	}
	print_message("%u allocations failed\n", failures);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(creation),
		cmocka_unit_test(widths),
		cmocka_unit_test(sign_extension),
		cmocka_unit_test(map_errors),
		cmocka_unit_test(writable_only),
		cmocka_unit_test(occupied),
		cmocka_unit_test(large_over_table),
		cmocka_unit_test(unmap_rules),
		cmocka_unit_test(block_over_full_table),
		cmocka_unit_test(tables_go),
		cmocka_unit_test(dirty_rules),
		cmocka_unit_test(dirty_and_growth),
		cmocka_unit_test(failed_allocations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
