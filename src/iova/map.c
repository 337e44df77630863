// SPDX-License-Identifier: MIT
/*
 * The IOVA map for those who change it: the tree of areas, and their way into and out of the view
 * of readers. map.h tells the life of an area; this file orders its steps:
 *
 *   insert   take the radix slots (the only step that needs memory), then link into the tree
 *   publish  store the area into its slots
 *   retract  clear the slots, then count the generation up
 *   remove   give the slots back, unlink from the tree
 *
 * Invariants, under the map's lock:
 *   - areas are disjoint, the tree is in the order of their IOVAs;
 *   - gap_before is the distance to the area before, or to IOVA 0, in bytes; subtree_max_gap is the
 *     largest of them in the subtree (the gap after the last area is not recorded);
 *   - every area in the tree has its slots taken, and they show it exactly if it is live.
 */
#include "iova/internal.h"

#include <errno.h>
#include <time.h>
#include "base/alloc.h"

/* ---- creation -------------------------------------------------------------------------------- */

static bool update_gap(struct rb_node *node)
{
	struct iova_area *area = area_of(node);
	uint64_t max = area->gap_before;
	bool changed;

	if (node->left)
		max = SWI_MAX(max, area_of(node->left)->subtree_max_gap);
	if (node->right)
		max = SWI_MAX(max, area_of(node->right)->subtree_max_gap);
	changed = area->subtree_max_gap != max;
	area->subtree_max_gap = max;
	return changed;
}

/*
 * Readers recognise what they remember by the map's address and generation; nobody tells them when
 * a map is gone. So a map at the address of an earlier one must not repeat its generations. It
 * starts at the time in nanoseconds, and since counting up takes longer than a nanosecond, the
 * earlier one cannot have come that far.
 */
static uint64_t first_generation(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + 1;
}

int iova_map_create(struct iova_map **out)
{
	struct iova_map *map = swi_zalloc_aligned(_Alignof(struct iova_map), sizeof(*map));

	if (!map)
		return -ENOMEM;
	if (pthread_mutex_init(&map->lock, NULL))
		goto free_map;
	if (pthread_mutex_init(&map->readers_lock, NULL))
		goto destroy_lock;
	atomic_init(&map->view.generation, first_generation());
	map->areas.update = update_gap;
	list_init(&map->readers);
	map->next_number = 1;
	ranges_init(map);
	*out = map;
	return 0;

destroy_lock:
	pthread_mutex_destroy(&map->lock);
free_map:
	swi_free(map);
	return -ENOMEM;
}

void iova_map_destroy(struct iova_map *map)
{
	if (!map)
		return;
	ranges_destroy(map);
	radix_destroy(map);
	pthread_mutex_destroy(&map->readers_lock);
	pthread_mutex_destroy(&map->lock);
	swi_free(map);
}

void iova_map_lock(struct iova_map *map)
{
	pthread_mutex_lock(&map->lock);
}

void iova_map_unlock(struct iova_map *map)
{
	pthread_mutex_unlock(&map->lock);
}

/* ---- the tree -------------------------------------------------------------------------------- */

static struct iova_area *area_or_null(struct rb_node *node)
{
	return node ? area_of(node) : NULL;
}

struct iova_area *iova_area_next(struct iova_area *area)
{
	return area_or_null(rb_next(&area->node));
}

struct iova_area *iova_area_prev(struct iova_area *area)
{
	return area_or_null(rb_prev(&area->node));
}

struct iova_area *iova_map_first(struct iova_map *map, iova_t iova)
{
	struct rb_node *node = map->areas.root;
	struct iova_area *found = NULL;

	while (node) {
		struct iova_area *area = area_of(node);

		if (area_last(area) < iova) {
			node = node->right;
		} else {
			found = area;
			if (area->iova <= iova)
				break;
			node = node->left;
		}
	}
	return found;
}

struct iova_area *iova_map_last(struct iova_map *map)
{
	return area_or_null(rb_last(&map->areas));
}

size_t iova_map_count(const struct iova_map *map)
{
	return map->count;
}

/* The first area in the order of the subtree at `node` with such a gap; there is one. */
static struct iova_area *first_gap_in(struct rb_node *node, uint64_t size)
{
	for (;;) {
		if (node->left && area_of(node->left)->subtree_max_gap >= size)
			node = node->left;
		else if (area_of(node)->gap_before >= size)
			return area_of(node);
		else
			node = node->right;
	}
}

struct iova_area *area_next_gap(struct iova_area *area, uint64_t size)
{
	struct rb_node *node = &area->node;

	for (;;) {
		struct rb_node *from;

		if (node->right && area_of(node->right)->subtree_max_gap >= size)
			return first_gap_in(node->right, size);
		do {
			from = node;
			node = node->parent;
		} while (node && node->right == from);
		if (!node)
			return NULL;
		if (area_of(node)->gap_before >= size)
			return area_of(node);
	}
}

/* ---- the life of an area --------------------------------------------------------------------- */

/* Where an area goes in the tree, and its neighbours. */
struct place {
	struct rb_node *parent, **link;
	struct iova_area *prev, *next;
};

static int find_place(struct iova_map *map, iova_t first, iova_t last, struct place *place)
{
	*place = (struct place){.link = &map->areas.root};
	while (*place->link) {
		struct iova_area *area = area_of(*place->link);

		place->parent = *place->link;
		if (last < area->iova) {
			place->next = area;
			place->link = &place->parent->left;
		} else if (first > area_last(area)) {
			place->prev = area;
			place->link = &place->parent->right;
		} else {
			return -EEXIST;
		}
	}
	return 0;
}

static struct iova_span span_of(struct iova_area *area)
{
	bool live = atomic_load_explicit(&area->live, memory_order_relaxed);

	return (struct iova_span){area->iova, area_last(area), live ? area : NULL};
}

int iova_map_insert(struct iova_map *map, struct iova_area *area)
{
	struct iova_span prev, next;
	iova_t last = area_last(area);
	struct place place;
	int err;

	err = find_place(map, area->iova, last, &place);
	if (err)
		return err;
	if (place.prev)
		prev = span_of(place.prev);
	if (place.next)
		next = span_of(place.next);
	err = radix_take(map, area->iova, last, place.prev ? &prev : NULL,
			 place.next ? &next : NULL);
	if (err)
		return err;

	area->busy = true;
	area->gap_before = place.prev ? area->iova - prev.last - 1 : area->iova;
	rb_insert(&map->areas, &area->node, place.parent, place.link);
	if (place.next) {
		place.next->gap_before = next.first - last - 1;
		rb_changed(&map->areas, &place.next->node);
	}
	map->count++;
	return 0;
}

void iova_map_publish(struct iova_map *map, struct iova_area *area)
{
	atomic_store_explicit(&area->live, true, memory_order_relaxed);
	radix_show(map, area->iova, area_last(area), area);
	area->busy = false;
}

void iova_map_retract(struct iova_map *map, struct iova_area *area)
{
	area->busy = true;
	if (!atomic_load_explicit(&area->live, memory_order_relaxed))
		return;
	atomic_store_explicit(&area->live, false, memory_order_relaxed);
	radix_show(map, area->iova, area_last(area), NULL);
	map_count_up(map);
}

void iova_map_flush(struct iova_map *map)
{
	map_count_up(map);
}

void iova_map_remove(struct iova_map *map, struct iova_area *area)
{
	iova_t last = area_last(area);
	struct iova_area *next = iova_area_next(area);

	radix_drop(map, area->iova, last);
	rb_erase(&map->areas, &area->node);
	if (next) {
		next->gap_before += area->gap_before + (last - area->iova) + 1;
		rb_changed(&map->areas, &next->node);
	}
	map->count--;
}

int iova_map_split(struct iova_map *map, struct iova_area *area, iova_t at, struct iova_area *right)
{
	struct iova_span span = span_of(area);
	uintptr_t host;
	int err;

	err = radix_cut(map, &span, at);
	if (err)
		return err;
	right->iova = at + 1;
	atomic_store_explicit(&right->last, span.last, memory_order_relaxed);
	right->offset = area->offset + (right->iova - area->iova);
	right->backing = area->backing;
	right->prot = area->prot;
	right->busy = area->busy;
	right->blocked = area->blocked;
	right->gap_before = 0;
	rb_insert_after(&map->areas, &right->node, &area->node);
	map->count++;
	host = (uintptr_t)atomic_load_explicit(&area->host, memory_order_relaxed);
	if (host)
		host += right->iova - area->iova;
	atomic_store_explicit(&right->host, (void *)host, memory_order_relaxed);
	if (span.shown) {
		atomic_store_explicit(&right->live, true, memory_order_relaxed);
		radix_show(map, right->iova, span.last, right);
		/* What readers remember of `area` reaches too far; see iova_translate_run() for the
		 * order. */
		map_count_up(map);
	}
	atomic_store_explicit(&area->last, at, memory_order_release);
	return 0;
}
