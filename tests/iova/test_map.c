// SPDX-License-Identifier: MIT
/*
 * The map as its writers and one reader see it: the life of areas, the edges of the 64-bit space,
 * failing allocations, and random work compared with a plain sorted array.
 */
#include "support.h"

#include <malloc.h>

struct fixture {
	struct iova_map *map;
	struct iova_reader *reader;
};

static int setup(void **state)
{
	static struct fixture f;

	assert_int_equal(iova_map_create(&f.map), 0);
	f.reader = reader_make();
	assert_int_equal(iova_reader_attach(f.reader, f.map), 0);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	unmap_all(f->map);
	assert_true(f->map->view.root == 0);
	iova_reader_detach(f->reader, f->map);
	reader_free(f->reader);
	iova_map_destroy(f->map);
	return 0;
}

/* Through the reader's memory and past it: both must agree. */
static struct iova_area *translate(struct fixture *f, iova_t iova)
{
	struct iova_area *area, *again;
	iova_t last = 0;

	iova_read_begin(f->reader);
	area = iova_translate(f->reader, f->map, iova);
	again = iova_translate_run(f->reader, f->map, iova, &last);
	iova_read_end(f->reader);
	assert_ptr_equal(area, again);
	assert_ptr_equal(area, look(f->map, iova));
	if (area)
		assert_true(last == area->last && iova >= area->iova && iova <= last);
	return area;
}

/* ---- life of an area ------------------------------------------------------------------------- */

static void readers_see_an_area_from_publish_to_retract(void **state)
{
	struct fixture *f = *state;
	struct iova_area *area = area_make(0x10000, 0x1ffff);

	assert_int_equal(iova_map_insert(f->map, area), 0);
	assert_true(area->busy);
	assert_false(area->live);
	assert_null(translate(f, 0x10000));
	iova_map_publish(f->map, area);
	assert_false(area->busy);
	assert_true(area->live);
	assert_ptr_equal(translate(f, 0x10000), area);
	assert_ptr_equal(translate(f, 0x1ffff), area);
	assert_null(translate(f, 0xffff));
	assert_null(translate(f, 0x20000));
	iova_map_retract(f->map, area);
	assert_true(area->busy);
	assert_null(translate(f, 0x10000));
	assert_int_equal(iova_map_count(f->map), 1);
	iova_map_publish(f->map, area);
	assert_ptr_equal(translate(f, 0x12345), area);
	unmap_area(f->map, area);
	assert_int_equal(iova_map_count(f->map), 0);
	assert_null(translate(f, 0x10000));
}

static void area_that_was_never_published_can_be_retracted(void **state)
{
	struct fixture *f = *state;
	struct iova_area *area = area_make(5, 9);

	assert_int_equal(iova_map_insert(f->map, area), 0);
	unmap_area(f->map, area);
	check_map(f->map);
}

static void busy_areas_occupy_their_range(void **state)
{
	struct fixture *f = *state;
	struct iova_area *area = area_make(0x1000, 0x2fff);

	assert_int_equal(iova_map_insert(f->map, area), 0);
	assert_int_equal(try_map(f->map, 0x1000, 0x2fff), -EEXIST);
	assert_int_equal(try_map(f->map, 0x2fff, 0x2fff), -EEXIST);
	assert_int_equal(try_map(f->map, 0, 0x1000), -EEXIST);
	assert_int_equal(try_map(f->map, 0, IOVA_MAX), -EEXIST);
	assert_int_equal(try_map(f->map, 0x1800, 0x18ff), -EEXIST);
	assert_int_equal(try_map(f->map, 0, 0xfff), 0);
	assert_int_equal(try_map(f->map, 0x3000, 0x3000), 0);
	check_map(f->map);
}

static void first_next_and_prev_walk_in_order(void **state)
{
	struct fixture *f = *state;
	struct iova_area *b = map_area(f->map, 0x5000, 0x5fff);
	struct iova_area *a = map_area(f->map, 0x1000, 0x1fff);
	struct iova_area *c = map_area(f->map, 0x6000, 0x6000);

	assert_ptr_equal(iova_map_first(f->map, 0), a);
	assert_ptr_equal(iova_map_first(f->map, 0x1fff), a);
	assert_ptr_equal(iova_map_first(f->map, 0x2000), b);
	assert_ptr_equal(iova_map_first(f->map, 0x5fff), b);
	assert_ptr_equal(iova_map_first(f->map, 0x6000), c);
	assert_null(iova_map_first(f->map, 0x6001));
	assert_ptr_equal(iova_map_last(f->map), c);
	assert_ptr_equal(iova_area_next(a), b);
	assert_ptr_equal(iova_area_next(b), c);
	assert_null(iova_area_next(c));
	assert_ptr_equal(iova_area_prev(c), b);
	assert_null(iova_area_prev(a));
}

static void both_ends_of_the_space_can_be_mapped(void **state)
{
	struct fixture *f = *state;
	struct iova_area *a, *b;

	a = map_area(f->map, 0, 0);
	b = map_area(f->map, IOVA_MAX, IOVA_MAX);
	assert_ptr_equal(translate(f, 0), a);
	assert_null(translate(f, 1));
	assert_null(translate(f, IOVA_MAX - 1));
	assert_ptr_equal(translate(f, IOVA_MAX), b);
	check_map(f->map);
	unmap_all(f->map);
	a = map_area(f->map, IOVA_MAX - 1, IOVA_MAX);
	assert_ptr_equal(translate(f, IOVA_MAX - 1), a);
	unmap_all(f->map);
	a = map_area(f->map, 0, IOVA_MAX);
	assert_ptr_equal(translate(f, 0), a);
	assert_ptr_equal(translate(f, 1ull << 63), a);
	assert_ptr_equal(translate(f, IOVA_MAX), a);
	check_map(f->map);
}

static unsigned count_tables(const struct radix_table *table)
{
	unsigned n = 1;

	for (unsigned i = 0; i < radix_slots(table->level); i++) {
		if (radix_table_of(table->slot[i]))
			n += count_tables(radix_table_of(table->slot[i]));
	}
	return n;
}

static void a_large_area_costs_its_edges(void **state)
{
	struct fixture *f = *state;
	struct iova_area *area = map_area(f->map, 0, (1ull << 40) - 1);

	assert_true(count_tables(radix_table_of(f->map->view.root)) <= 1);
	unmap_area(f->map, area);
	/* Ragged to the byte at both ends: two tables a level, none below a page. */
	area = map_area(f->map, (1ull << 40) + 12345, (1ull << 60) + 54321);
	assert_true(count_tables(radix_table_of(f->map->view.root)) <= 1 + 2 * 5);
	assert_ptr_equal(translate(f, (1ull << 40) + 12345), area);
	assert_ptr_equal(translate(f, 1ull << 59), area);
	assert_null(translate(f, (1ull << 40) + 12344));
	assert_null(translate(f, (1ull << 60) + 54322));
	check_map(f->map);
}

static void areas_may_share_a_page_down_to_single_bytes(void **state)
{
	struct fixture *f = *state;
	struct iova_area *area[4096];

	for (unsigned i = 0; i < 4096; i++)
		area[i] = map_area(f->map, 0x7000 + i, 0x7000 + i);
	for (unsigned i = 0; i < 4096; i++)
		assert_ptr_equal(translate(f, 0x7000 + i), area[i]);
	check_map(f->map);
	for (unsigned i = 0; i < 4096; i += 2)
		unmap_area(f->map, area[i]);
	check_map(f->map);
	for (unsigned i = 0; i < 4096; i++)
		assert_ptr_equal(translate(f, 0x7000 + i), i % 2 ? area[i] : NULL);
}

static void tables_are_given_back_at_ever_new_addresses(void **state)
{
	struct fixture *f = *state;

	for (uint64_t i = 0; i < 3000; i++) {
		iova_t iova = i << 40 | i << 21 | 0x10;

		unmap_area(f->map, map_area(f->map, iova, iova + 0x2000));
		assert_true(f->map->view.root == 0);
		assert_true(f->map->pool.nretired < 64);
		assert_true(f->map->pool.nspare[0] <= 8 && f->map->pool.nspare[1] <= 8);
	}
}

static void tables_are_given_back_without_a_sync_too(void **state)
{
	struct fixture *f = *state;
	struct iova_area *area;

	for (uint64_t i = 0; i < 500; i++) {
		area = area_make(i << 30, (i << 30) + 5);
		assert_int_equal(iova_map_insert(f->map, area), 0);
	}
	while ((area = iova_map_first(f->map, 0))) {
		iova_map_remove(f->map, area);
		free(area);
	}
	assert_true(f->map->pool.nretired < 64);
}

static void height_follows_the_largest_area(void **state)
{
	struct fixture *f = *state;
	struct iova_area *low = map_area(f->map, 0x1000, 0x1fff), *high;

	assert_int_equal(radix_table_of(f->map->view.root)->level, RADIX_PAGE);
	high = map_area(f->map, IOVA_MAX - 0xfff, IOVA_MAX);
	assert_int_equal(radix_table_of(f->map->view.root)->level, RADIX_TOP);
	assert_ptr_equal(translate(f, 0x1000), low);
	assert_ptr_equal(translate(f, IOVA_MAX), high);
	check_map(f->map);
	unmap_area(f->map, high);
	assert_int_equal(radix_table_of(f->map->view.root)->level, RADIX_PAGE);
	assert_ptr_equal(translate(f, 0x1000), low);
	assert_null(translate(f, IOVA_MAX));
}

/* ---- what a reader remembers ----------------------------------------------------------------- */

/* An area that fills the root stays in it when the root grows, also if it is cut or taken back then. */
static void an_area_as_large_as_the_root_gives_its_table_back(void **state)
{
	static const iova_t sizes[] = {0x200000, 0x40000000, 0x8000000000};
	struct fixture *f = *state;
	size_t before = 0;

	for (unsigned int round = 0; round < 300; round++) {
		iova_t size = sizes[round % ARRAY_SIZE(sizes)];
		struct iova_area *low = map_area(f->map, 0, size - 1);
		struct iova_area *high = map_area(f->map, size * 3, size * 3 + 0xfff), *right;

		check_map(f->map);
		if (round % 2) {
			right = area_make(0, 0);
			assert_int_equal(iova_map_split(f->map, low, size / 2 - 1, right), 0);
			check_map(f->map);
			unmap_area(f->map, right);
		}
		if (round % 4 < 2) {
			unmap_area(f->map, low);
			assert_null(translate(f, size - 1));
			check_map(f->map);
			unmap_area(f->map, high);
		} else {
			unmap_area(f->map, high);
			check_map(f->map);
			unmap_area(f->map, low);
		}
		assert_int_equal(atomic_load(&f->map->view.root), 0);
		/* By then the spare tables are all there. */
		if (round == 100)
			before = mallinfo2().uordblks;
	}
	assert_true(mallinfo2().uordblks < before + 10 * 4096);
}

static void a_miss_is_not_remembered(void **state)
{
	struct fixture *f = *state;
	struct iova_area *other = map_area(f->map, 0x9000, 0x9fff), *area;

	assert_ptr_equal(translate(f, 0x9000), other);
	assert_null(translate(f, 0x4000));
	area = map_area(f->map, 0x4000, 0x4fff);
	assert_ptr_equal(translate(f, 0x4000), area);
}

static void remembered_pages_survive_new_areas_but_not_unmap(void **state)
{
	struct fixture *f = *state;
	struct iova_area *area[3];

	for (unsigned i = 0; i < 3; i++) /* the same line of the table of pages */
		area[i] = map_area(f->map, (iova_t)i * IOVA_TLB_ENTRIES << 12,
				   ((iova_t)i * IOVA_TLB_ENTRIES << 12) + 0xfff);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 3; i++)
			assert_ptr_equal(translate(f, area[i]->iova + 5), area[i]);
	}
	map_area(f->map, 0x1000, 0x1fff);
	assert_ptr_equal(translate(f, area[1]->iova), area[1]);
	unmap_area(f->map, area[1]);
	assert_null(translate(f, (iova_t)IOVA_TLB_ENTRIES << 12));
	assert_ptr_equal(translate(f, area[2]->iova), area[2]);
}

static void thousands_of_unmaps_do_not_revive_a_remembered_page(void **state)
{
	struct fixture *f = *state;
	struct iova_area *keep = map_area(f->map, 0x40000000, 0x40000fff);
	struct iova_area *gone = map_area(f->map, 0x5000, 0x5fff);

	assert_ptr_equal(translate(f, 0x5000), gone);
	unmap_area(f->map, gone);
	/* More than there are tags for what was remembered at some time. */
	for (unsigned i = 0; i < 10000; i++) {
		unmap_area(f->map, map_area(f->map, 0x80000, 0x80fff));
		iova_read_begin(f->reader);
		assert_ptr_equal(iova_translate(f->reader, f->map, 0x40000000), keep);
		assert_null(iova_translate(f->reader, f->map, 0x5000));
		iova_read_end(f->reader);
	}
}

static void one_reader_in_two_maps_keeps_them_apart(void **state)
{
	struct fixture *f = *state;
	struct iova_map *other;
	struct iova_area *a, *b;

	assert_int_equal(iova_map_create(&other), 0);
	assert_int_equal(iova_reader_attach(f->reader, other), 0);
	a = map_area(f->map, 0x1000, 0x2fff);
	b = map_area(other, 0x1000, 0x1fff);
	iova_read_begin(f->reader);
	for (unsigned i = 0; i < 5; i++) {
		assert_ptr_equal(iova_translate(f->reader, f->map, 0x1000), a);
		assert_ptr_equal(iova_translate(f->reader, other, 0x1000), b);
		assert_ptr_equal(iova_translate(f->reader, f->map, 0x2000), a);
		assert_null(iova_translate(f->reader, other, 0x2000));
	}
	iova_read_end(f->reader);
	unmap_all(other);
	iova_reader_detach(f->reader, other);
	iova_map_destroy(other);
}

static void a_new_map_at_an_old_address_repeats_no_generation(void **state)
{
	uint64_t top = 0;
	struct iova_map *map;

	(void)state;
	for (unsigned i = 0; i < 200; i++) {
		assert_int_equal(iova_map_create(&map), 0);
		assert_true(map->view.generation > top);
		for (unsigned k = 0; k < 50; k++)
			unmap_area(map, map_area(map, 0x1000, 0x1fff));
		top = map->view.generation;
		iova_map_destroy(map);
	}
}

/* ---- split ----------------------------------------------------------------------------------- */

static void check_split(struct fixture *f, iova_t first, iova_t last, iova_t at, bool live)
{
	struct iova_area *area = area_make(first, last), *right = calloc(1, sizeof(*right));
	uint64_t offset = area->offset;
	char byte;

	area->backing = (struct backing *)f;
	area->prot = SWI_WRITE;
	area->host = &byte;
	assert_int_equal(iova_map_insert(f->map, area), 0);
	if (live)
		iova_map_publish(f->map, area);
	translate(f, first); /* is remembered with its old end */
	assert_int_equal(iova_map_split(f->map, area, at, right), 0);
	assert_true(area->iova == first && area->last == at);
	assert_true(right->iova == at + 1 && right->last == last);
	assert_true(right->offset == offset + (at + 1 - first));
	assert_ptr_equal(right->backing, f);
	assert_int_equal(right->prot, SWI_WRITE);
	assert_true((uintptr_t)right->host == (uintptr_t)&byte + (uintptr_t)(at + 1 - first));
	assert_true(right->live == live && right->busy == !live);
	assert_ptr_equal(iova_area_next(area), right);
	assert_ptr_equal(translate(f, first), live ? area : NULL);
	assert_ptr_equal(translate(f, at), live ? area : NULL);
	assert_ptr_equal(translate(f, at + 1), live ? right : NULL);
	assert_ptr_equal(translate(f, last), live ? right : NULL);
	check_map(f->map);
	unmap_area(f->map, area);
	assert_null(translate(f, at));
	assert_ptr_equal(translate(f, at + 1), live ? right : NULL);
	check_map(f->map);
	unmap_area(f->map, right);
	check_map(f->map);
}

static void split_makes_two_areas_at_any_cut(void **state)
{
	static const struct {
		iova_t first, last, at;
	} cases[] = {
		{0, 0x1fff, 0xfff},
		{0, 0xfff, 0x7ff},
		{0, 0xfff, 0},
		{0x10, 0x2010, 0x12},
		{0x10, 0x2010, 0x200f},
		{0x10, 0x20, 0x18},
		{0x1003, 0x1004, 0x1003},
		{0, (1ull << 30) - 1, (1ull << 21) - 1},
		{0, (1ull << 30) - 1, (1ull << 21) + 12344},
		{0, IOVA_MAX, (1ull << 63) - 1},
		{0, IOVA_MAX, 0},
		{0, IOVA_MAX, IOVA_MAX - 1},
		{12345, IOVA_MAX, 1ull << 50},
		{1ull << 21, (1ull << 31) + 77, (1ull << 31) - 1},
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		check_split(f, cases[i].first, cases[i].last, cases[i].at, true);
		check_split(f, cases[i].first, cases[i].last, cases[i].at, false);
	}
}

static void both_halves_work_on_after_a_split_between_neighbours(void **state)
{
	struct fixture *f = *state;
	struct iova_area *right = calloc(1, sizeof(*right));
	struct iova_area *low = map_area(f->map, 0x1000, 0x13ff);
	struct iova_area *area = map_area(f->map, 0x1400, 0x1bff);
	struct iova_area *high = map_area(f->map, 0x1c00, 0x2fff);

	assert_int_equal(iova_map_split(f->map, area, 0x17ff, right), 0);
	assert_ptr_equal(translate(f, 0x13ff), low);
	assert_ptr_equal(translate(f, 0x17ff), area);
	assert_ptr_equal(translate(f, 0x1800), right);
	assert_ptr_equal(translate(f, 0x1c00), high);
	unmap_area(f->map, area);
	assert_int_equal(try_map(f->map, 0x1400, 0x17ff), 0);
	assert_int_equal(try_map(f->map, 0x17ff, 0x17ff), -EEXIST);
	check_map(f->map);
}

/* ---- failing allocations --------------------------------------------------------------------- */

/* Everything a caller could see of the map, to compare before and after. */
static uint64_t digest(struct iova_map *map)
{
	struct iova_range ranges[32];
	struct iova_area *area;
	uint64_t h = 1469598103934665603u;
	size_t n = iova_map_usable(map, ranges, 32);

	iova_map_for_each (area, map) {
		h = (h ^ area->iova) * 1099511628211u;
		h = (h ^ area->last) * 1099511628211u;
		h = (h ^ (uintptr_t)look(map, area->iova)) * 1099511628211u;
		h = (h ^ (uintptr_t)look(map, area->last)) * 1099511628211u;
		h = (h ^ area->busy) * 1099511628211u;
		h = (h ^ area->gap_before) * 1099511628211u;
	}
	for (size_t i = 0; i < n && i < 32; i++)
		h = (h ^ ranges[i].first ^ ranges[i].last << 1) * 1099511628211u;
	return h ^ n;
}

/* Drops spare tables, so that every table wanted is one allocation. */
static void drain_pool(struct iova_map *map)
{
	radix_destroy(map);
	memset(&map->pool, 0, sizeof(map->pool));
}

static void failing_insert_changes_nothing(void **state)
{
	static const iova_t spans[][2] = {
		{0x205000, 0x205fff},		     /* fresh leaf */
		{0x1801, 0x1fff},		     /* opens the page of a neighbour */
		{0x1810, 0x3000},		     /* and of another on the other side */
		{1ull << 40, (1ull << 40) + 0x1234}, /* grows */
		{0x3c00, IOVA_MAX - 5},		     /* two edges, all levels */
		{IOVA_MAX - 3, IOVA_MAX},
	};
	struct fixture *f = *state;
	struct iova_area *busy;

	map_area(f->map, 0x1003, 0x1800);
	map_area(f->map, 0x3001, 0x3bff);
	busy = area_make(0x4000, 0x4001);
	assert_int_equal(iova_map_insert(f->map, busy), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(spans); i++) {
		struct iova_area *area = area_make(spans[i][0], spans[i][1]);
		unsigned nth = 0;
		int err;

		if (i == 4) { /* it would meet the busy one */
			unmap_area(f->map, busy);
			busy = NULL;
		}
		do {
			uint64_t before = digest(f->map);

			drain_pool(f->map);
			swi_alloc_fail_nth(++nth);
			err = iova_map_insert(f->map, area);
			swi_alloc_fail_nth(0);
			if (err) {
				assert_int_equal(err, -ENOMEM);
				assert_true(digest(f->map) == before);
				check_map(f->map);
			}
		} while (err);
		assert_true(nth > 1);
		iova_map_publish(f->map, area);
		check_map(f->map);
		unmap_area(f->map, area);
		check_map(f->map);
	}
}

static void failing_split_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct iova_area *area = map_area(f->map, 0x123, (1ull << 50) + 0x321);
	struct iova_area *right = calloc(1, sizeof(*right));
	unsigned nth = 0;
	int err;

	map_area(f->map, 0x100, 0x122);
	do {
		uint64_t before = digest(f->map);

		drain_pool(f->map);
		swi_alloc_fail_nth(++nth);
		err = iova_map_split(f->map, area, (1ull << 49) + 0x77, right);
		swi_alloc_fail_nth(0);
		if (err) {
			assert_int_equal(err, -ENOMEM);
			assert_true(digest(f->map) == before);
			check_map(f->map);
		}
	} while (err);
	assert_true(nth > 5);
	check_map(f->map);
}

static void failing_reserve_and_allow_change_nothing(void **state)
{
	struct fixture *f = *state;
	struct iova_allow_list *list;
	uint64_t before = digest(f->map);

	swi_alloc_fail_nth(1);
	assert_int_equal(iova_map_reserve(f->map, 0x1000, 0x1fff, f), -ENOMEM);
	assert_true(digest(f->map) == before);
	swi_alloc_fail_nth(1);
	assert_int_equal(iova_allow_list_create(&list), -ENOMEM);
	assert_int_equal(iova_allow_list_create(&list), 0);
	swi_alloc_fail_nth(1);
	assert_int_equal(iova_allow_list_add(list, 1, 2), -ENOMEM);
	assert_int_equal(iova_allow_list_add(list, 1, 2), 0);
	iova_allow_list_destroy(list);
}

static void failing_create_and_attach_leak_nothing(void **state)
{
	struct fixture *f = *state;
	struct iova_map *map;
	struct iova_reader *reader;

	swi_alloc_fail_nth(1);
	assert_int_equal(iova_map_create(&map), -ENOMEM);
	reader = reader_make();
	swi_alloc_fail_nth(1);
	assert_int_equal(iova_reader_attach(reader, f->map), -ENOMEM);
	assert_int_equal(f->map->nreaders, 1);
	reader_free(reader);
}

static void publish_to_remove_need_no_memory(void **state)
{
	struct fixture *f = *state;
	struct iova_area *area = area_make(0x10003, (1ull << 33) + 3);

	map_area(f->map, 0x10000, 0x10002);
	assert_int_equal(iova_map_insert(f->map, area), 0);
	swi_alloc_fail_nth(1);
	iova_map_publish(f->map, area);
	unmap_area(f->map, area);
	assert_int_equal(swi_alloc_fail_nth(0), 1); /* still armed: nobody asked */
	check_map(f->map);
}

/* ---- random work against a model ------------------------------------------------------------- */

#define MODEL_MAX 160

struct model {
	struct entry {
		iova_t first, last;
		struct iova_area *area;
		bool live;
	} e[MODEL_MAX + 1];
	unsigned n;
};

/* Index of the first entry whose last >= iova. */
static unsigned model_find(const struct model *m, iova_t iova)
{
	unsigned i = 0;

	while (i < m->n && m->e[i].last < iova)
		i++;
	return i;
}

static void model_add(struct model *m, unsigned at, struct entry e)
{
	memmove(&m->e[at + 1], &m->e[at], (m->n - at) * sizeof(m->e[0]));
	m->e[at] = e;
	m->n++;
}

/* IOVAs crowd in a few small regions, so that areas meet, share pages and sit at the very end. */
static iova_t random_iova(uint64_t *seed)
{
	static const iova_t bases[] = {0,
				       0x1f0000,
				       1ull << 30,
				       (1ull << 39) - 0x3000,
				       1ull << 57,
				       IOVA_MAX - 0x8fff,
				       IOVA_MAX - (1ull << 31)};
	iova_t iova = bases[random_below(seed, ARRAY_SIZE(bases))];

	switch (random_below(seed, 3)) {
	case 0:
		return iova + random_below(seed, 0x9000);
	case 1:
		return (iova & ~0xfffull) + random_below(seed, 9) * 0x1000;
	default:
		return (iova & ~0x1fffffull) + random_below(seed, 4) * 0x200000;
	}
}

static uint64_t random_length(uint64_t *seed)
{
	switch (random_below(seed, 5)) {
	case 0:
		return 1 + random_below(seed, 100);
	case 1:
		return 64 * (1 + random_below(seed, 64));
	case 2:
		return 0x1000 * (1 + random_below(seed, 4));
	case 3:
		return 0x200000 * (1 + random_below(seed, 3));
	default:
		return 1ull << random_below(seed, 62);
	}
}

static void check_point(struct fixture *f, const struct model *m, iova_t iova)
{
	unsigned i = model_find(m, iova);
	bool inside = i < m->n && m->e[i].first <= iova;

	assert_ptr_equal(translate(f, iova), inside && m->e[i].live ? m->e[i].area : NULL);
	assert_ptr_equal(iova_map_first(f->map, iova), i < m->n ? m->e[i].area : NULL);
}

static void check_model(struct fixture *f, const struct model *m, uint64_t *seed)
{
	assert_int_equal(iova_map_count(f->map), m->n);
	for (unsigned i = 0; i < m->n; i++) {
		check_point(f, m, m->e[i].first);
		check_point(f, m, m->e[i].last);
		check_point(f, m, m->e[i].first - 1);
		check_point(f, m, m->e[i].last + 1);
	}
	for (unsigned i = 0; i < 8; i++)
		check_point(f, m, random_iova(seed));
}

static void model_insert(struct fixture *f, struct model *m, uint64_t *seed)
{
	iova_t first = random_iova(seed), last;
	uint64_t length = random_length(seed);
	struct iova_area *area;
	unsigned i;
	int err;

	if (m->n == MODEL_MAX || !range_last(first, length, &last))
		return;
	i = model_find(m, first);
	area = area_make(first, last);
	if (random_below(seed, 8) == 0)
		swi_alloc_fail_nth(1 + (unsigned)random_below(seed, 4));
	err = iova_map_insert(f->map, area);
	swi_alloc_fail_nth(0);
	if (i < m->n && m->e[i].first <= last)
		assert_int_equal(err, -EEXIST);
	else
		assert_true(err == 0 || err == -ENOMEM);
	if (err) {
		free(area);
		return;
	}
	model_add(m, i, (struct entry){first, last, area, false});
	if (random_below(seed, 4)) {
		iova_map_publish(f->map, area);
		m->e[i].live = true;
	}
}

static void model_remove(struct fixture *f, struct model *m, unsigned i)
{
	unmap_area(f->map, m->e[i].area);
	memmove(&m->e[i], &m->e[i + 1], (m->n - i - 1) * sizeof(m->e[0]));
	m->n--;
}

static void model_split(struct fixture *f, struct model *m, unsigned i, uint64_t *seed)
{
	struct entry *e = &m->e[i];
	struct iova_area *right;
	uint64_t span = e->last - e->first;
	iova_t at;
	int err;

	if (!span || m->n == MODEL_MAX)
		return;
	at = random_below(seed, 2) ? e->first + random_below(seed, span)
				   : (e->first | 0xfff) + 0x1000 * random_below(seed, 3);
	if (at < e->first || at >= e->last)
		return;
	right = calloc(1, sizeof(*right));
	if (random_below(seed, 8) == 0)
		swi_alloc_fail_nth(1 + (unsigned)random_below(seed, 3));
	err = iova_map_split(f->map, e->area, at, right);
	swi_alloc_fail_nth(0);
	if (err) {
		assert_int_equal(err, -ENOMEM);
		free(right);
		return;
	}
	model_add(m, i + 1, (struct entry){at + 1, e->last, right, e->live});
	m->e[i].last = at;
}

static void random_work_agrees_with_a_sorted_array(void **state)
{
	struct fixture *f = *state;
	static struct model m;
	uint64_t seed = random_seed("map model");

	m.n = 0;
	for (unsigned step = 0; step < 3000; step++) {
		unsigned i = m.n ? (unsigned)random_below(&seed, m.n) : 0;
		unsigned what = (unsigned)random_below(&seed, 10);
		bool shrinking = step / 500 % 2;

		if (what < (shrinking ? 2u : 5u) || !m.n) {
			model_insert(f, &m, &seed);
		} else if (what < 6) {
			model_split(f, &m, i, &seed);
		} else if (what < 7) {
			if (m.e[i].live)
				iova_map_retract(f->map, m.e[i].area);
			else
				iova_map_publish(f->map, m.e[i].area);
			m.e[i].live = !m.e[i].live;
		} else {
			model_remove(f, &m, i);
		}
		check_model(f, &m, &seed);
		if (step % 8 == 0)
			check_map(f->map);
	}
	check_map(f->map);
}

/* ---- overlap rules of MAP that the map alone decides (core.md 4.1, table 9) ------------------ */

static void fixed_mappings_reach_both_ends(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(try_map(f->map, 0, 0xfff), 0);		      /* row 30 */
	assert_int_equal(try_map(f->map, IOVA_MAX - 1, IOVA_MAX), 0); /* row 32 */
	assert_int_equal(try_map(f->map, IOVA_MAX, IOVA_MAX), -EEXIST);
}

#define with_map(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_map(readers_see_an_area_from_publish_to_retract),
		with_map(area_that_was_never_published_can_be_retracted),
		with_map(busy_areas_occupy_their_range),
		with_map(first_next_and_prev_walk_in_order),
		with_map(both_ends_of_the_space_can_be_mapped),
		with_map(a_large_area_costs_its_edges),
		with_map(areas_may_share_a_page_down_to_single_bytes),
		with_map(tables_are_given_back_at_ever_new_addresses),
		with_map(tables_are_given_back_without_a_sync_too),
		with_map(height_follows_the_largest_area),
		with_map(an_area_as_large_as_the_root_gives_its_table_back),
		with_map(a_miss_is_not_remembered),
		with_map(remembered_pages_survive_new_areas_but_not_unmap),
		with_map(thousands_of_unmaps_do_not_revive_a_remembered_page),
		with_map(one_reader_in_two_maps_keeps_them_apart),
		with_map(a_new_map_at_an_old_address_repeats_no_generation),
		with_map(split_makes_two_areas_at_any_cut),
		with_map(both_halves_work_on_after_a_split_between_neighbours),
		with_map(failing_insert_changes_nothing),
		with_map(failing_split_changes_nothing),
		with_map(failing_reserve_and_allow_change_nothing),
		with_map(failing_create_and_attach_leak_nothing),
		with_map(publish_to_remove_need_no_memory),
		with_map(random_work_agrees_with_a_sorted_array),
		with_map(fixed_mappings_reach_both_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
