// SPDX-License-Identifier: MIT
/*
 * Reserved and allowed ranges: what refuses what, what IOAS_IOVA_RANGES would list. "Row n" is a
 * row of the table of edge cases (core.md 9).
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

static const char owner_a, owner_b;

static void assert_usable(struct iova_map *map, const struct iova_range *want, size_t n)
{
	struct iova_range got[16];

	assert_int_equal(iova_map_usable(map, got, 16), n);
	for (size_t i = 0; i < n; i++) {
		assert_true(got[i].first == want[i].first);
		assert_true(got[i].last == want[i].last);
	}
}

#define USABLE(map, ...)                                         \
	do {                                                     \
		const struct iova_range want_[] = {__VA_ARGS__}; \
		assert_usable(map, want_, ARRAY_SIZE(want_));    \
	} while (0)

static struct iova_allow_list *allow_list(void)
{
	struct iova_allow_list *list;

	assert_int_equal(iova_allow_list_create(&list), 0);
	return list;
}

static void empty_map_is_usable_from_end_to_end(void **state)
{
	USABLE(*state, {0, IOVA_MAX});
}

static void reserved_ranges_merge_in_the_list_of_usable_ones(void **state)
{
	struct iova_map *map = *state;

	assert_int_equal(iova_map_reserve(map, 0x1000, 0x1fff, &owner_a), 0);
	assert_int_equal(iova_map_reserve(map, 0x2000, 0x2fff, &owner_b), 0); /* adjacent */
	assert_int_equal(iova_map_reserve(map, 0x1800, 0x27ff, &owner_a), 0); /* over both */
	assert_int_equal(iova_map_reserve(map, 0x8000, 0x8000, &owner_b), 0); /* one IOVA */
	USABLE(map, {0, 0xfff}, {0x3000, 0x7fff}, {0x8001, IOVA_MAX});
	check_map(map);
}

static void a_usable_range_may_be_one_iova(void **state)
{
	assert_int_equal(iova_map_reserve(*state, 0, IOVA_MAX - 1, &owner_a), 0);
	USABLE(*state, {IOVA_MAX, IOVA_MAX}); /* row 48 */
}

static void everything_can_be_reserved(void **state)
{
	struct iova_range none;

	assert_int_equal(iova_map_reserve(*state, 0, IOVA_MAX, &owner_a), 0);
	assert_int_equal(iova_map_usable(*state, &none, 1), 0);
	assert_true(iova_map_is_reserved(*state, IOVA_MAX, IOVA_MAX, NULL));
}

static void only_as_many_ranges_are_stored_as_fit(void **state)
{
	struct iova_range got[2] = {{1, 1}, {2, 2}};

	assert_int_equal(iova_map_reserve(*state, 0x1000, 0x1fff, &owner_a), 0);
	assert_int_equal(iova_map_usable(*state, got, 1), 2); /* row 47 */
	assert_true(got[0].first == 0 && got[0].last == 0xfff);
	assert_true(got[1].first == 2);
	assert_int_equal(iova_map_usable(*state, NULL, 0), 2);
}

static void an_owner_takes_back_only_his_ranges(void **state)
{
	struct iova_map *map = *state;

	assert_int_equal(iova_map_reserve(map, 0x1000, 0x2fff, &owner_a), 0);
	assert_int_equal(iova_map_reserve(map, 0x2000, 0x3fff, &owner_b), 0);
	assert_int_equal(iova_map_reserve(map, 0x9000, 0x9fff, &owner_a), 0);
	iova_map_unreserve(map, &owner_a);
	USABLE(map, {0, 0x1fff}, {0x4000, IOVA_MAX});
	iova_map_unreserve(map, &owner_a);
	iova_map_unreserve(map, &owner_b);
	USABLE(map, {0, IOVA_MAX});
}

static void is_reserved_tells_which(void **state)
{
	struct iova_map *map = *state;
	struct iova_range hit = {0};

	assert_int_equal(iova_map_reserve(map, 0x5000, 0x5fff, &owner_a), 0);
	assert_int_equal(iova_map_reserve(map, 0x7000, 0x7fff, &owner_a), 0);
	assert_false(iova_map_is_reserved(map, 0, 0x4fff, &hit));
	assert_false(iova_map_is_reserved(map, 0x6000, 0x6fff, &hit));
	assert_true(iova_map_is_reserved(map, 0x5fff, 0x6000, &hit));
	assert_true(hit.first == 0x5000 && hit.last == 0x5fff);
	assert_true(iova_map_is_reserved(map, 0x6000, 0x7000, &hit));
	assert_true(hit.first == 0x7000 && hit.last == 0x7fff);
}

static void areas_even_busy_ones_and_allowed_ranges_refuse_a_reservation(void **state)
{
	struct iova_map *map = *state;
	struct iova_area *busy = area_make(0x1000, 0x1fff);
	struct iova_allow_list *list = allow_list();

	assert_int_equal(iova_map_insert(map, busy), 0);
	assert_int_equal(iova_map_reserve(map, 0x1fff, 0x2fff, &owner_a), -EADDRINUSE);
	assert_int_equal(iova_map_reserve(map, 0, IOVA_MAX, &owner_a), -EADDRINUSE);
	assert_int_equal(iova_allow_list_add(list, 0x8000, 0x8fff), 0);
	assert_int_equal(iova_map_set_allowed(map, list), 0);
	assert_int_equal(iova_map_reserve(map, 0x8fff, 0x9fff, &owner_a), -EADDRINUSE);
	assert_int_equal(iova_map_reserve(map, 0x7000, 0x8000, &owner_a), -EADDRINUSE);
	assert_int_equal(iova_map_reserve(map, 0x8800, 0x8800, &owner_a), -EADDRINUSE);
	USABLE(map, {0, IOVA_MAX});
	assert_int_equal(iova_map_reserve(map, 0x2000, 0x7fff, &owner_a), 0);
	assert_int_equal(iova_map_reserve(map, 0x9000, IOVA_MAX, &owner_a), 0);
	USABLE(map, {0, 0x1fff}, {0x8000, 0x8fff});
}

static void allowed_entries_have_two_bytes_and_do_not_overlap(void **state)
{
	struct iova_allow_list *list = allow_list();

	(void)state;
	/* row 43 */
	assert_int_equal(iova_allow_list_add(list, 0x1000, 0x1000), -EINVAL);
	assert_int_equal(iova_allow_list_add(list, 0x1001, 0x1000), -EINVAL);
	assert_int_equal(iova_allow_list_add(list, 0x1000, 0x1fff), 0);
	assert_int_equal(iova_allow_list_add(list, 0x1fff, 0x2fff), -EINVAL);
	assert_int_equal(iova_allow_list_add(list, 0, 0x1000), -EINVAL);
	assert_int_equal(iova_allow_list_add(list, 0, IOVA_MAX), -EINVAL);
	assert_int_equal(iova_allow_list_add(list, 0x1100, 0x1101), -EINVAL);
	assert_int_equal(iova_allow_list_add(list, 0x2000, 0x2fff), 0);
	assert_int_equal(iova_allow_list_add(list, 0, 0xfff), 0);
	iova_allow_list_destroy(list);
}

static void allowing_over_an_area_is_fine(void **state)
{
	struct iova_allow_list *list = allow_list();

	map_area(*state, 0x1000, 0x1fff);
	assert_int_equal(iova_allow_list_add(list, 0x1000, 0x1fff), 0);
	assert_int_equal(iova_map_set_allowed(*state, list), 0); /* row 44 */
}

static void allowing_a_reserved_byte_keeps_the_old_list(void **state)
{
	struct iova_map *map = *state;
	struct iova_allow_list *old = allow_list(), *new = allow_list();
	iova_t iova;

	assert_int_equal(iova_map_reserve(map, 0x9fff, 0xafff, &owner_a), 0);
	assert_int_equal(iova_allow_list_add(old, 0x4000, 0x4fff), 0);
	assert_int_equal(iova_map_set_allowed(map, old), 0);
	assert_int_equal(iova_allow_list_add(new, 0x6000, 0x6fff), 0);
	assert_int_equal(iova_allow_list_add(new, 0x8000, 0x9fff), 0);
	assert_int_equal(iova_map_set_allowed(map, new), -EADDRINUSE); /* row 45 */
	assert_int_equal(iova_map_find(map, 0x1000, 0, 1, &iova), 0);
	assert_true(iova == 0x4000);
	iova_allow_list_destroy(new);
}

static void an_empty_list_lifts_the_limit(void **state)
{
	struct iova_allow_list *list = allow_list();
	iova_t iova;

	assert_int_equal(iova_allow_list_add(list, 0x4000, 0x4fff), 0);
	assert_int_equal(iova_map_set_allowed(*state, list), 0);
	assert_int_equal(iova_map_set_allowed(*state, allow_list()), 0); /* row 46 */
	assert_int_equal(iova_map_find(*state, 0x1000, 0, 1, &iova), 0);
	assert_true(iova == 0x1000);
	assert_int_equal(iova_map_reserve(*state, 0x4000, 0x4fff, &owner_a), 0);
}

/* The mock domain's aperture, reserved around. */
static int reserve_around_aperture(struct iova_map *map)
{
	int err = iova_map_reserve(map, 0, 0xffffff, &owner_a);

	return err ? err : iova_map_reserve(map, 0x80000000, IOVA_MAX, &owner_a);
}

static void a_domain_comes_in_only_where_nothing_is_outside_its_aperture(void **state)
{
	struct iova_map *map = *state;
	struct iova_allow_list *list = allow_list();
	struct iova_area *area = map_area(map, 0, 0xfff);

	assert_int_equal(reserve_around_aperture(map), -EADDRINUSE); /* row 56 */
	unmap_area(map, area);
	assert_int_equal(iova_allow_list_add(list, 0x1000000, 0x80000000), 0);
	assert_int_equal(iova_map_set_allowed(map, list), 0);
	assert_int_equal(reserve_around_aperture(map), -EADDRINUSE); /* row 57 */
	iova_map_unreserve(map, &owner_a);
	assert_int_equal(iova_map_set_allowed(map, NULL), 0);
	assert_int_equal(reserve_around_aperture(map), 0);
}

static void the_aperture_itself_can_be_allowed_and_no_more(void **state)
{
	struct iova_map *map = *state;
	struct iova_allow_list *list = allow_list();

	assert_int_equal(reserve_around_aperture(map), 0);
	assert_int_equal(iova_allow_list_add(list, 0x1000000, 0x7fffffff), 0);
	assert_int_equal(iova_map_set_allowed(map, list), 0); /* row 59 */
	list = allow_list();
	assert_int_equal(iova_allow_list_add(list, 0x1000000, 0x80000000), 0);
	assert_int_equal(iova_map_set_allowed(map, list), -EADDRINUSE);
	iova_allow_list_destroy(list);
}

static void fixed_mappings_are_not_limited_by_the_allowed_list(void **state)
{
	struct iova_allow_list *list = allow_list();

	assert_int_equal(iova_allow_list_add(list, 0x4000, 0x4fff), 0);
	assert_int_equal(iova_map_set_allowed(*state, list), 0);
	assert_int_equal(try_map(*state, 0x8000, 0x8fff), 0); /* row 38 */
	check_map(*state);
}

static void a_caller_can_tell_reserved_from_mapped(void **state)
{
	struct iova_map *map = *state;

	assert_int_equal(iova_map_reserve(map, 0x2000, 0x2fff, &owner_a), 0);
	map_area(map, 0x3000, 0x3fff);
	/* row 36: both are hit, and each question is answered by itself */
	assert_true(iova_map_is_reserved(map, 0x2000, 0x3fff, NULL));
	assert_int_equal(try_map(map, 0x2000, 0x3fff), -EEXIST);
}

/* Against one bit per IOVA of a small space. */
static void random_reservations_agree_with_a_bitmap(void **state)
{
	enum { N = 256, RANGES = 24 };
	struct iova_map *map = *state;
	uint64_t seed = random_seed("ranges model");
	struct {
		iova_t first, last;
		unsigned owner;
	} set[RANGES];
	unsigned n = 0;
	static const char owners[4];

	for (unsigned step = 0; step < 2000; step++) {
		bool bit[N] = {false};
		struct iova_range got[N];
		size_t total, seen = 0;

		if (n < RANGES && random_below(&seed, 3)) {
			iova_t first = random_below(&seed, N - 1);
			iova_t last = first + random_below(&seed, SWI_MIN(20, N - 1 - first));
			unsigned owner = (unsigned)random_below(&seed, 4);

			assert_int_equal(iova_map_reserve(map, first, last, &owners[owner]), 0);
			set[n].first = first;
			set[n].last = last;
			set[n++].owner = owner;
		} else if (random_below(&seed, 3) == 0) {
			unsigned owner = (unsigned)random_below(&seed, 4), k = 0;

			iova_map_unreserve(map, &owners[owner]);
			for (unsigned i = 0; i < n; i++) {
				if (set[i].owner != owner)
					set[k++] = set[i];
			}
			n = k;
		}
		for (unsigned i = 0; i < n; i++)
			memset(bit + set[i].first, true, set[i].last - set[i].first + 1);
		total = iova_map_usable(map, got, N);
		for (unsigned i = 0; i < N; i++) {
			if (!bit[i] && (i == 0 || bit[i - 1]))
				assert_true(got[seen].first == i);
			if (!bit[i] && i + 1 < N && bit[i + 1])
				assert_true(got[seen++].last == i);
			assert_int_equal(iova_map_is_reserved(map, i, i, NULL), bit[i]);
		}
		assert_true(got[total - 1].last == IOVA_MAX);
		assert_int_equal(seen + 1, total);
		check_map(map);
	}
}

#define with_map(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_map(empty_map_is_usable_from_end_to_end),
		with_map(reserved_ranges_merge_in_the_list_of_usable_ones),
		with_map(a_usable_range_may_be_one_iova),
		with_map(everything_can_be_reserved),
		with_map(only_as_many_ranges_are_stored_as_fit),
		with_map(an_owner_takes_back_only_his_ranges),
		with_map(is_reserved_tells_which),
		with_map(areas_even_busy_ones_and_allowed_ranges_refuse_a_reservation),
		with_map(allowed_entries_have_two_bytes_and_do_not_overlap),
		with_map(allowing_over_an_area_is_fine),
		with_map(allowing_a_reserved_byte_keeps_the_old_list),
		with_map(an_empty_list_lifts_the_limit),
		with_map(a_domain_comes_in_only_where_nothing_is_outside_its_aperture),
		with_map(the_aperture_itself_can_be_allowed_and_no_more),
		with_map(fixed_mappings_are_not_limited_by_the_allowed_list),
		with_map(a_caller_can_tell_reserved_from_mapped),
		with_map(random_reservations_agree_with_a_bitmap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
