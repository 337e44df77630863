/* SPDX-License-Identifier: MIT */
#ifndef TESTS_IOVA_SUPPORT_H
#define TESTS_IOVA_SUPPORT_H

/* What the tests of src/iova share: making areas, and a check of everything a map promises of
 * itself. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <time.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "iova/internal.h"
#include "../random.h"

/* ---- areas -------------------------------------------------------------------------------------
 */

static inline struct iova_area *area_make(iova_t first, iova_t last)
{
	struct iova_area *area = calloc(1, sizeof(*area));

	assert_non_null(area);
	area->iova = first;
	area->last = last;
	area->offset = first ^ 0x123;
	area->prot = SWI_READ;
	return area;
}

static inline struct iova_reader *reader_make(void)
{
	struct iova_reader *reader = NULL;

	assert_int_equal(posix_memalign((void **)&reader, SWI_CACHELINE, sizeof(*reader)), 0);
	assert_int_equal(iova_reader_init(reader), 0);
	return reader;
}

static inline void reader_free(struct iova_reader *reader)
{
	iova_reader_fini(reader);
	free(reader);
}

/* Inserts and publishes; must succeed. */
static inline struct iova_area *map_area(struct iova_map *map, iova_t first, iova_t last)
{
	struct iova_area *area = area_make(first, last);

	assert_int_equal(iova_map_insert(map, area), 0);
	iova_map_publish(map, area);
	return area;
}

static inline void unmap_area(struct iova_map *map, struct iova_area *area)
{
	iova_map_retract(map, area);
	iova_map_sync(map);
	iova_map_remove(map, area);
	free(area);
}

static inline void unmap_all(struct iova_map *map)
{
	struct iova_area *area;

	while ((area = iova_map_first(map, 0)))
		unmap_area(map, area);
}

static inline int try_map(struct iova_map *map, iova_t first, iova_t last)
{
	struct iova_area *area = area_make(first, last);
	int err = iova_map_insert(map, area);

	if (err)
		free(area);
	else
		iova_map_publish(map, area);
	return err;
}

/* What a reader finds, without using anything it remembers. */
static inline struct iova_area *look(struct iova_map *map, iova_t iova)
{
	iova_t first = 1, last = 0;
	bool page;
	struct iova_area *area = radix_lookup(map, iova, &first, &last, &page);

	if (area) {
		assert_true(first <= iova && iova <= last);
		assert_true(area->iova <= first && last <= area->last);
		if (page)
			assert_true((first & 4095) == 0 && (last & 4095) == 4095);
	}
	return area;
}

/* ---- invariants --------------------------------------------------------------------------------
 */

/* Black height; checks colours, parents and, through the callback, what is kept of each subtree. */
static inline int check_rb(const struct rb_node *node, const struct rb_node *parent,
			   void (*check)(const struct rb_node *))
{
	int left, right;

	if (!node)
		return 1;
	assert_ptr_equal(node->parent, parent);
	if (node->red) {
		assert_non_null(parent);
		assert_false(parent->red);
	}
	left = check_rb(node->left, node, check);
	right = check_rb(node->right, node, check);
	assert_int_equal(left, right);
	if (check)
		check(node);
	return left + !node->red;
}

static inline void check_area_node(const struct rb_node *node)
{
	const struct iova_area *area = area_of(node);
	uint64_t max = area->gap_before;

	if (node->left)
		max = SWI_MAX(max, area_of(node->left)->subtree_max_gap);
	if (node->right)
		max = SWI_MAX(max, area_of(node->right)->subtree_max_gap);
	assert_true(area->subtree_max_gap == max);
}

/* Bytes shown in the subtree of a table, which must be used, counted, and disjointly so. */
static inline void check_table(struct iova_map *map, const struct radix_table *table, iova_t base,
			       bool root)
{
	unsigned shift = radix_shift(table->level), busy = 0, used = 0;

	assert_true(table->used > 0);
	/* (of the topmost table only a part lies in the 64-bit space) */
	for (unsigned i = 0; i < (table->level == RADIX_TOP ? 128 : radix_slots(table->level));
	     i++) {
		uintptr_t word = table->slot[i];
		const struct radix_table *below = radix_table_of(word);
		iova_t first = base + ((iova_t)i << shift);
		iova_t last = first + (((iova_t)1 << shift) - 1);
		struct iova_area *area = iova_map_first(map, first);

		if (below) {
			assert_int_equal(below->level, table->level - 1);
			check_table(map, below, first, false);
			used++;
			continue;
		}
		if (area && area->iova > last)
			area = NULL;
		if (!area) {
			assert_true(word == 0);
			continue;
		}
		used++;
		if (!area->live) {
			assert_true(word == 0);
			busy++;
		} else if (area->iova <= first && area->last >= last) {
			assert_true(word == (uintptr_t)area);
		} else {
			assert_true(table->level == RADIX_PAGE);
			assert_true(word == ((uintptr_t)area | RADIX_PART));
		}
	}
	assert_int_equal(used, table->used);
	if (root && table->level > RADIX_PAGE)
		assert_false(used == 1 && radix_table_of(table->slot[0]));
}

static inline void check_map(struct iova_map *map)
{
	struct iova_area *area, *prev = NULL;
	size_t n = 0;

	iova_map_for_each (area, map) {
		assert_true(area->iova <= area->last);
		if (prev)
			assert_true(prev->last < area->iova);
		assert_ptr_equal(iova_area_prev(area), prev);
		assert_true(area->gap_before == (prev ? area->iova - prev->last - 1 : area->iova));
		assert_false(iova_map_is_reserved(map, area->iova, area->last, NULL));
		prev = area;
		n++;
	}
	assert_int_equal(n, iova_map_count(map));
	check_rb(map->areas.root, NULL, check_area_node);
	check_rb(map->reserved.root, NULL, NULL);
	if (map->view.root)
		check_table(map, radix_table_of(map->view.root), 0, true);
	else
		assert_int_equal(n, 0);
}

#endif
