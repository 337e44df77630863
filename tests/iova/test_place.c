// SPDX-License-Identifier: MIT
/*
 * Automatic placement: the examples and rows of the specification (core.md 3.6 and 9), and a model
 * that tries one start after the other.
 */
#include "support.h"

static int setup(void **state)
{
	return iova_map_create((struct iova_map **)state);
}

static int teardown(void **state)
{
	unmap_all(*state);
	iova_map_destroy(*state);
	return 0;
}

static const char owner;

/* Finds and maps; the IOVA, or the errno as a negative number. */
static iova_t place_aligned(struct iova_map *map, uint64_t length, uint64_t addr, uint64_t align)
{
	iova_t iova = 0;
	int err = iova_map_find(map, length, addr, align, &iova);

	if (err)
		return (iova_t)(int64_t)err;
	map_area(map, iova, iova + length - 1);
	return iova;
}

static iova_t place(struct iova_map *map, uint64_t length, uint64_t addr)
{
	return place_aligned(map, length, addr, 1);
}

#define ERR(e) ((iova_t)(int64_t) - (e))
#define assert_iova(a, b) assert_true((a) == (b))

static void allow(struct iova_map *map, const struct iova_range *ranges, size_t n)
{
	struct iova_allow_list *list;

	assert_int_equal(iova_allow_list_create(&list), 0);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(iova_allow_list_add(list, ranges[i].first, ranges[i].last), 0);
	assert_int_equal(iova_map_set_allowed(map, list), 0);
}

#define ALLOW(map, ...)                                           \
	do {                                                      \
		const struct iova_range allow_[] = {__VA_ARGS__}; \
		allow(map, allow_, ARRAY_SIZE(allow_));           \
	} while (0)

static void examples_on_an_empty_map(void **state)
{
	static const struct {
		uint64_t addr, length;
		iova_t want;
	} examples[] = {
		{0, 1, 0x1000},
		{0x1400, 0x1000, 0x1400},
		{2 << 20, 2 << 20, 0x200000},
		{2 << 20, 0x3000, 0x4000},
		{0x3000, 0x5000, 0x1000},
		{0, 0x5000, 0x8000},
	};
	iova_t iova;

	for (unsigned i = 0; i < ARRAY_SIZE(examples); i++) {
		assert_int_equal(
			iova_map_find(*state, examples[i].length, examples[i].addr, 1, &iova), 0);
		assert_iova(iova, examples[i].want);
	}
}

static void one_byte_each_goes_to_consecutive_iovas(void **state)
{
	assert_iova(place(*state, 1, 0), 0x1000); /* row 26 */
	assert_iova(place(*state, 1, 0), 0x1001);
}

static void length_has_a_limit(void **state)
{
	/* row 27 */
	assert_iova(place(*state, 0x7fffffffffffffff, 0), ERR(EOVERFLOW));
	assert_iova(place(*state, UINT64_MAX, 0), ERR(EOVERFLOW));
	assert_iova(place(*state, 0x7ffffffffffffffe, 0), 0x200000);
	assert_iova(place(*state, 0x7ffffffffffffffe, 0), ERR(ENOSPC));
}

static void memory_less_aligned_than_the_map_is_refused(void **state)
{
	assert_iova(place_aligned(*state, 2048, 0x1400, 2048), ERR(EINVAL)); /* row 49 */
	assert_iova(place_aligned(*state, 4096, 0x1800, 2048), 0x1800);	     /* row 50 */
	assert_iova(place_aligned(*state, 1, 0x1000, 2), ERR(EINVAL));
}

static void adjacent_allowed_ranges_are_one(void **state)
{
	ALLOW(*state, {0x2000, 0x2fff}, {0x1000, 0x1fff});
	assert_iova(place(*state, 0x2000, 0x1000), 0x1000); /* row 37 */
	assert_iova(place(*state, 0x2000, 0x1000), ERR(ENOSPC));
}

static void page_zero_is_never_chosen(void **state)
{
	ALLOW(*state, {0, 0x1fff});
	assert_iova(place(*state, 0x1000, 0), 0x1000); /* row 39 */
	assert_iova(place(*state, 0x1000, 0), ERR(ENOSPC));
	assert_int_equal(try_map(*state, 0, 0xfff), 0);
	unmap_all(*state);
	ALLOW(*state, {0, 0xfff});
	assert_iova(place(*state, 1, 0), ERR(ENOSPC));
}

static void the_last_page_is_never_chosen(void **state)
{
	ALLOW(*state, {IOVA_MAX - 0x2fff, IOVA_MAX}); /* row 40 */
	assert_iova(place(*state, 0x1000, 0), IOVA_MAX - 0x2fff);
	assert_iova(place(*state, 0x1000, 0), IOVA_MAX - 0x1fff);
	assert_iova(place(*state, 0x1000, 0), ERR(ENOSPC));
	unmap_all(*state);
	ALLOW(*state, {IOVA_MAX - 0xfff, IOVA_MAX});
	assert_iova(place(*state, 1, 0), ERR(ENOSPC));
	/* Rounding up must not wrap around to the beginning. */
	ALLOW(*state, {IOVA_MAX - 0x2fff, IOVA_MAX});
	assert_iova(place(*state, 0x2000000, 0), ERR(ENOSPC));
}

static void a_gap_of_one_iova_is_never_used(void **state)
{
	ALLOW(*state, {0x5000, 0x5001});
	assert_iova(place(*state, 1, 0), 0x5000); /* row 41 */
	assert_iova(place(*state, 1, 0), ERR(ENOSPC));
}

static void an_exact_fit_between_reserved_ranges_is_used(void **state)
{
	assert_int_equal(iova_map_reserve(*state, 0, 0x1fff, &owner), 0);
	assert_int_equal(iova_map_reserve(*state, 0x3000, IOVA_MAX, &owner), 0);
	assert_iova(place(*state, 0x1000, 0), 0x2000); /* row 42 */
	assert_iova(place(*state, 0x1000, 0), ERR(ENOSPC));
}

static void an_aperture_bounds_the_search(void **state)
{
	assert_int_equal(iova_map_reserve(*state, 0, 0xffffff, &owner), 0);
	assert_int_equal(iova_map_reserve(*state, 0x80000000, IOVA_MAX, &owner), 0);
	assert_iova(place_aligned(*state, 1ull << 31, 0, 2048), ERR(ENOSPC)); /* row 53 */
	assert_iova(place_aligned(*state, 1ull << 30, 0, 2048), 0x1000000);
}

static void a_gap_that_reserved_ranges_cut_is_used_in_part(void **state)
{
	map_area(*state, 0x1000, 0x1fff);
	map_area(*state, 0x8000, 0x8fff);
	assert_int_equal(iova_map_reserve(*state, 0x2000, 0x3fff, &owner), 0);
	assert_int_equal(iova_map_reserve(*state, 0x3000, 0x4fff, &owner), 0);
	assert_int_equal(iova_map_reserve(*state, 0x6000, 0x6fff, &owner), 0);
	assert_iova(place(*state, 0x1000, 0), 0x5000);
	assert_iova(place(*state, 0x1000, 0), 0x7000);
	assert_iova(place(*state, 0x1000, 0), 0x9000);
}

static void iova_need_not_be_congruent_to_the_memory(void **state)
{
	map_area(*state, 0x1000, 0x17ff);
	assert_iova(place(*state, 0x400, 0x2400), 0x1c00); /* 3.6, consequences */
}

static void lowest_gap_wins_and_busy_areas_count(void **state)
{
	struct iova_area *busy = area_make(0x1000, 0x2fff);

	assert_int_equal(iova_map_insert(*state, busy), 0);
	map_area(*state, 0x4000, 0x4fff);
	map_area(*state, 0x9000, 0x9fff);
	assert_iova(place(*state, 0x1000, 0), 0x3000);
	assert_iova(place(*state, 0x1000, 0), 0x5000);
	assert_iova(place(*state, 0x4000, 0), 0xc000);
	assert_iova(place(*state, 0x2000, 0), 0x6000);
}

static void behind_many_areas_the_search_does_not_visit_them(void **state)
{
	/* 64 KiB behind 2^15 holes of a page: a scan under this many searches would take seconds.
	 */
	enum { AREAS = 1 << 15, SEARCHES = 100000 };
	struct timespec start, end;
	iova_t iova;

	for (iova_t i = 0; i < AREAS; i++)
		map_area(*state, 0x1000 + i * 0x2000, 0x1000 + i * 0x2000 + 0xfff);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
	for (unsigned i = 0; i < SEARCHES; i++) {
		assert_int_equal(iova_map_find(*state, 0x10000, 0x10000, 1, &iova), 0);
		assert_iova(iova, (iova_t)AREAS * 0x2000);
	}
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
	assert_true(end.tv_sec - start.tv_sec < 5);
}

/* ---- the rules once more, naively ------------------------------------------------------------ */

#define PAGE 4096ull

struct taken {
	iova_t first, last;
};

static int by_first(const void *a, const void *b)
{
	const struct taken *x = a, *y = b;

	return (x->first > y->first) - (x->first < y->first);
}

/* Steps 2 to 6 of 3.6, over all gaps of the union of areas and reserved ranges, in 128 bits. */
static iova_t model_find(struct taken *taken, unsigned n, const struct iova_range *allowed,
			 unsigned nallowed, uint64_t length, uint64_t addr, uint64_t align)
{
	typedef unsigned __int128 wide;
	uint64_t a = 1;

	while (a < length && a < (2u << 20))
		a *= 2;
	while (addr && addr % a)
		a /= 2;
	if (a < align)
		return ERR(EINVAL);
	qsort(taken, n, sizeof(*taken), by_first);
	for (unsigned k = 0; k < nallowed; k++) {
		wide s = SWI_MAX(allowed[k].first, PAGE);
		wide e = SWI_MIN(allowed[k].last, IOVA_MAX - PAGE);
		wide c, g;

		while (k + 1 < nallowed && allowed[k + 1].first == allowed[k].last + 1) {
			k++;
			e = SWI_MIN(allowed[k].last, IOVA_MAX - PAGE);
		}
		c = ((s + a - 1) / a * a) | addr % PAGE;
		if (!(c < e && e - c >= length - 1))
			continue;
		g = c;
		for (unsigned i = 0; i <= n; i++) {
			wide h = i < n ? (wide)taken[i].first : (wide)1 << 64;
			wide p = ((g + a - 1) / a * a) | addr % PAGE;

			if (h > g) {
				h = SWI_MIN(h - 1, e);
				if (p < h && h - p >= length - 1)
					return (iova_t)p;
			}
			if (i < n)
				g = SWI_MAX(g, (wide)taken[i].last + 1);
		}
	}
	return ERR(ENOSPC);
}

static void random_requests_agree_with_the_rules(void **state)
{
	struct iova_map *map = *state;
	uint64_t seed = random_seed("place model");

	for (unsigned round = 0; round < 60; round++) {
		static const iova_t bases[] = {0, 0x200000, 1ull << 40, IOVA_MAX - 0x3ffff};
		struct iova_range allowed[4] = {{0, IOVA_MAX}};
		struct taken taken[256];
		unsigned n = 0, nallowed = 1;
		iova_t base = bases[random_below(&seed, 4)];
		bool coarse = random_below(&seed, 2);

		for (unsigned i = 0; i < 12; i++) { /* reserved */
			iova_t first = base + random_below(&seed, 0x30000), last;

			last = first + random_below(&seed, 0x1800);
			if (random_below(&seed, 2) || last < first)
				continue;
			assert_int_equal(iova_map_reserve(map, first, last, &owner), 0);
			taken[n++] = (struct taken){first, last};
		}
		if (random_below(&seed, 2)) {
			struct iova_allow_list *list;
			iova_t at = base;

			assert_int_equal(iova_allow_list_create(&list), 0);
			nallowed = 0;
			for (unsigned i = 0; i < 4; i++) {
				iova_t last = at + 1 + random_below(&seed, 0x18000);

				if (last < at || iova_map_is_reserved(map, at, last, NULL))
					break;
				assert_int_equal(iova_allow_list_add(list, at, last), 0);
				allowed[nallowed++] = (struct iova_range){at, last};
				at = last + 1 + random_below(&seed, 2) * random_below(&seed, 9999);
			}
			if (!nallowed)
				allowed[nallowed++] = (struct iova_range){0, IOVA_MAX};
			assert_int_equal(iova_map_set_allowed(map, list), 0);
		}
		for (unsigned i = 0; i < 200; i++) {
			uint64_t length = coarse ? PAGE * (1 + random_below(&seed, 6))
						 : 1 + random_below(&seed, 0x2800);
			uint64_t addr = random_below(&seed, 3) ? random_below(&seed, 1 << 24) : 0;
			uint64_t align = random_below(&seed, 4) ? 1 : PAGE / 2;
			iova_t want, got;

			if (coarse)
				addr &= ~(PAGE / 2 - 1);
			want = model_find(taken, n, allowed, nallowed, length, addr, align);
			got = place_aligned(map, length, addr, align);
			assert_iova(got, want);
			if (got > ERR(4095))
				continue;
			taken[n++] = (struct taken){got, got + length - 1};
			if (random_below(&seed, 3) == 0) { /* make a hole again */
				unsigned k = (unsigned)random_below(&seed, n);
				struct iova_area *area = iova_map_first(map, taken[k].first);

				if (area && area->iova == taken[k].first) {
					unmap_area(map, area);
					taken[k] = taken[--n];
				}
			}
		}
		check_map(map);
		unmap_all(map);
		iova_map_unreserve(map, &owner);
		assert_int_equal(iova_map_set_allowed(map, NULL), 0);
	}
}

#define with_map(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_map(examples_on_an_empty_map),
		with_map(one_byte_each_goes_to_consecutive_iovas),
		with_map(length_has_a_limit),
		with_map(memory_less_aligned_than_the_map_is_refused),
		with_map(adjacent_allowed_ranges_are_one),
		with_map(page_zero_is_never_chosen),
		with_map(the_last_page_is_never_chosen),
		with_map(a_gap_of_one_iova_is_never_used),
		with_map(an_exact_fit_between_reserved_ranges_is_used),
		with_map(an_aperture_bounds_the_search),
		with_map(a_gap_that_reserved_ranges_cut_is_used_in_part),
		with_map(iova_need_not_be_congruent_to_the_memory),
		with_map(lowest_gap_wins_and_busy_areas_count),
		with_map(behind_many_areas_the_search_does_not_visit_them),
		with_map(random_requests_agree_with_the_rules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
