// SPDX-License-Identifier: MIT
/*
 * Where mappings may not go (reserved ranges, core.md 3.3) and where automatic placement may go
 * (the allowed list, 3.5).
 *
 * Reserved ranges belong to owners and may overlap: a tree by first IOVA that keeps the largest
 * last IOVA of each subtree, so that the first range reaching a point is found in O(log n). Allowed
 * ranges are disjoint: a plain tree. No reserved range ever meets an area or an allowed range.
 */
#include "iova/internal.h"

#include <errno.h>
#include "base/alloc.h"

/* ---- reserved ranges ------------------------------------------------------------------------- */

struct reserved {
	struct rb_node node; /* by first */
	iova_t first, last;
	iova_t subtree_last; /* largest last in this subtree */
	const void *owner;
};

static struct reserved *reserved_of(const struct rb_node *node)
{
	return container_of(node, struct reserved, node);
}

static bool update_last(struct rb_node *node)
{
	struct reserved *r = reserved_of(node);
	iova_t max = r->last;
	bool changed;

	if (node->left)
		max = SWI_MAX(max, reserved_of(node->left)->subtree_last);
	if (node->right)
		max = SWI_MAX(max, reserved_of(node->right)->subtree_last);
	changed = r->subtree_last != max;
	r->subtree_last = max;
	return changed;
}

/* The first range, in the order of `first`, whose last >= iova. */
static struct reserved *first_reaching(const struct iova_map *map, iova_t iova)
{
	struct rb_node *node = map->reserved.root;

	if (!node || reserved_of(node)->subtree_last < iova)
		return NULL;
	for (;;) {
		if (node->left && reserved_of(node->left)->subtree_last >= iova)
			node = node->left;
		else if (reserved_of(node)->last >= iova)
			return reserved_of(node);
		else
			node = node->right;
	}
}

bool iova_map_is_reserved(struct iova_map *map, iova_t first, iova_t last, struct iova_range *hit)
{
	struct reserved *r = first_reaching(map, first);

	if (!r || r->first > last)
		return false;
	if (hit)
		*hit = (struct iova_range){r->first, r->last};
	return true;
}

static bool meets_allowed(const struct iova_map *map, iova_t first, iova_t last)
{
	struct iova_allowed *allowed = allowed_from(map->allowed, first);

	return allowed && allowed_range(allowed).first <= last;
}

int iova_map_reserve(struct iova_map *map, iova_t first, iova_t last, const void *owner)
{
	struct rb_node *parent = NULL, **link = &map->reserved.root;
	struct iova_area *area = iova_map_first(map, first);
	struct reserved *r;

	if ((area && area->iova <= last) || meets_allowed(map, first, last))
		return -EADDRINUSE;
	r = swi_new(struct reserved);
	if (!r)
		return -ENOMEM;
	r->first = first;
	r->last = last;
	r->owner = owner;
	while (*link) {
		parent = *link;
		link = first < reserved_of(parent)->first ? &parent->left : &parent->right;
	}
	rb_insert(&map->reserved, &r->node, parent, link);
	return 0;
}

void iova_map_unreserve(struct iova_map *map, const void *owner)
{
	struct rb_node *node, *next;

	for (node = rb_first(&map->reserved); node; node = next) {
		next = rb_next(node);
		if (reserved_of(node)->owner != owner)
			continue;
		rb_erase(&map->reserved, node);
		swi_free(reserved_of(node));
	}
}

bool ranges_next_free(struct iova_map *map, iova_t first, iova_t last, struct iova_range *out)
{
	struct reserved *r;

	while ((r = first_reaching(map, first)) && r->first <= first) {
		if (r->last >= last)
			return false;
		first = r->last + 1;
	}
	out->first = first;
	out->last = r && r->first <= last ? r->first - 1 : last;
	return true;
}

size_t iova_map_usable(struct iova_map *map, struct iova_range *ranges, size_t max)
{
	struct iova_range range;
	iova_t from = 0;
	size_t n = 0;

	while (ranges_next_free(map, from, IOVA_MAX, &range)) {
		if (n < max)
			ranges[n] = range;
		n++;
		if (range.last == IOVA_MAX)
			break;
		from = range.last + 1;
	}
	return n;
}

/* ---- allowed ranges -------------------------------------------------------------------------- */

struct iova_allowed {
	struct rb_node node; /* by first */
	struct iova_range range;
};

struct iova_allow_list {
	struct rb_tree tree;
};

static struct iova_allowed *allowed_of(const struct rb_node *node)
{
	return container_of(node, struct iova_allowed, node);
}

int iova_allow_list_create(struct iova_allow_list **out)
{
	struct iova_allow_list *list = swi_new(struct iova_allow_list);

	if (!list)
		return -ENOMEM;
	*out = list;
	return 0;
}

void iova_allow_list_destroy(struct iova_allow_list *list)
{
	struct rb_node *node;

	if (!list)
		return;
	while ((node = list->tree.root)) {
		rb_erase(&list->tree, node);
		swi_free(allowed_of(node));
	}
	swi_free(list);
}

int iova_allow_list_add(struct iova_allow_list *list, iova_t first, iova_t last)
{
	struct rb_node *parent = NULL, **link = &list->tree.root;
	struct iova_allowed *allowed;

	if (first >= last)
		return -EINVAL;
	while (*link) {
		parent = *link;
		if (last < allowed_of(parent)->range.first)
			link = &parent->left;
		else if (first > allowed_of(parent)->range.last)
			link = &parent->right;
		else
			return -EINVAL;
	}
	allowed = swi_new(struct iova_allowed);
	if (!allowed)
		return -ENOMEM;
	allowed->range = (struct iova_range){first, last};
	rb_insert(&list->tree, &allowed->node, parent, link);
	return 0;
}

bool allowed_none(const struct iova_allow_list *list)
{
	return !list || !list->tree.root;
}

struct iova_allowed *allowed_from(const struct iova_allow_list *list, iova_t first)
{
	struct rb_node *node = list ? list->tree.root : NULL;
	struct iova_allowed *found = NULL;

	while (node) {
		if (allowed_of(node)->range.last < first) {
			node = node->right;
		} else {
			found = allowed_of(node);
			node = node->left;
		}
	}
	return found;
}

struct iova_allowed *allowed_next(const struct iova_allowed *allowed)
{
	struct rb_node *node = rb_next(&allowed->node);

	return node ? allowed_of(node) : NULL;
}

struct iova_range allowed_range(const struct iova_allowed *allowed)
{
	return allowed->range;
}

int iova_map_set_allowed(struct iova_map *map, struct iova_allow_list *list)
{
	struct iova_allowed *allowed;

	for (allowed = allowed_from(list, 0); allowed; allowed = allowed_next(allowed)) {
		if (iova_map_is_reserved(map, allowed->range.first, allowed->range.last, NULL))
			return -EADDRINUSE;
	}
	iova_allow_list_destroy(map->allowed);
	map->allowed = list;
	return 0;
}

void ranges_init(struct iova_map *map)
{
	map->reserved.update = update_last;
	map->allowed = NULL;
}

void ranges_destroy(struct iova_map *map)
{
	struct rb_node *node;

	while ((node = map->reserved.root)) {
		rb_erase(&map->reserved, node);
		swi_free(reserved_of(node));
	}
	iova_allow_list_destroy(map->allowed);
	map->allowed = NULL;
}
