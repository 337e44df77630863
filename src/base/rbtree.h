/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_BASE_RBTREE_H
#define SWIOMMU_BASE_RBTREE_H

/*
 * An intrusive red-black tree that can keep a summary of each subtree (its largest gap, its largest
 * end, ...).
 *
 * The tree knows no keys: the caller looks for the place of a new node and hands it to rb_insert().
 * Nothing here needs memory or can fail.
 *
 * A summary is a field of the element, a function of the element and of its children's summaries.
 * `update` recomputes it for one node whose children are right, and tells whether it changed; the
 * tree calls it wherever a subtree has changed. NULL when there is no summary.
 */

#include "base/base.h"

struct rb_node {
	struct rb_node *parent, *left, *right;
	bool red;
};

struct rb_tree {
	struct rb_node *root;
	bool (*update)(struct rb_node *node);
};

/*
 * Hangs `node` (in no tree) under `parent` at `link`, which is &parent->left or &parent->right and
 * empty; the first node of a tree has parent NULL and link &tree->root. O(log n).
 */
void rb_insert(struct rb_tree *tree, struct rb_node *node, struct rb_node *parent,
	       struct rb_node **link);

/* The same, right after `before` in the tree's order; at the very front when it is NULL. */
void rb_insert_after(struct rb_tree *tree, struct rb_node *node, struct rb_node *before);

/* Takes out `node`, whose own fields are then undefined. O(log n). */
void rb_erase(struct rb_tree *tree, struct rb_node *node);

/* To be called when what `update` makes of `node` alone may have changed. */
void rb_changed(struct rb_tree *tree, struct rb_node *node);

/* In order; NULL where there is none. */
struct rb_node *rb_first(const struct rb_tree *tree);
struct rb_node *rb_last(const struct rb_tree *tree);
struct rb_node *rb_next(const struct rb_node *node);
struct rb_node *rb_prev(const struct rb_node *node);

#endif
