// SPDX-License-Identifier: MIT
/*
 * Red-black tree: no red node has a red child, and every way from the root down to a missing child
 * passes the same number of black nodes; so no way is more than twice as long as another.
 *
 * Summaries: a rotation leaves the set of nodes under its top alone, so that only the two nodes
 * that change places are recomputed. A node that comes or goes changes all subtrees above it; the
 * walk up ends as soon as a summary stays what it was.
 */
#include "base/rbtree.h"

static bool is_red(const struct rb_node *node)
{
	return node && node->red;
}

/* Recomputes node by node upwards until nothing changes any more. */
static void update_upwards(struct rb_tree *tree, struct rb_node *node)
{
	while (node && tree->update(node))
		node = node->parent;
}

void rb_changed(struct rb_tree *tree, struct rb_node *node)
{
	if (tree->update)
		update_upwards(tree, node);
}

/* Puts `new` (may be NULL) where `old` hangs; leaves the children of both alone. */
static void replace_child(struct rb_tree *tree, struct rb_node *old, struct rb_node *new)
{
	struct rb_node *parent = old->parent;

	if (!parent)
		tree->root = new;
	else if (parent->left == old)
		parent->left = new;
	else
		parent->right = new;
	if (new)
		new->parent = parent;
}

/* Turns left: the right child of `top` takes its place, `top` becomes its left child; or mirrored.
 */
static void rotate(struct rb_tree *tree, struct rb_node *top, bool left)
{
	struct rb_node *up = left ? top->right : top->left;
	struct rb_node *middle = left ? up->left : up->right;

	replace_child(tree, top, up);
	if (left) {
		top->right = middle;
		up->left = top;
	} else {
		top->left = middle;
		up->right = top;
	}
	if (middle)
		middle->parent = top;
	top->parent = up;
	if (tree->update) {
		tree->update(top);
		tree->update(up);
	}
}

/* `node` is red; its parent may be too, everything else is in order. */
static void fix_red_pair(struct rb_tree *tree, struct rb_node *node)
{
	struct rb_node *parent, *grand, *uncle;
	bool parent_left;

	while (is_red(parent = node->parent)) {
		grand = parent->parent; /* a red node is not the root */
		parent_left = grand->left == parent;
		uncle = parent_left ? grand->right : grand->left;
		if (is_red(uncle)) {
			parent->red = uncle->red = false;
			grand->red = true;
			node = grand;
			continue;
		}
		if ((parent->left == node) != parent_left) {
			rotate(tree, parent, parent_left);
			parent = node;
		}
		parent->red = false;
		grand->red = true;
		rotate(tree, grand, !parent_left);
		break;
	}
	tree->root->red = false;
}

void rb_insert(struct rb_tree *tree, struct rb_node *node, struct rb_node *parent,
	       struct rb_node **link)
{
	node->parent = parent;
	node->left = node->right = NULL;
	node->red = true;
	*link = node;
	if (tree->update) {
		tree->update(node);
		update_upwards(tree, parent);
	}
	fix_red_pair(tree, node);
}

static struct rb_node *leftmost(struct rb_node *node)
{
	while (node && node->left)
		node = node->left;
	return node;
}

static struct rb_node *rightmost(struct rb_node *node)
{
	while (node && node->right)
		node = node->right;
	return node;
}

void rb_insert_after(struct rb_tree *tree, struct rb_node *node, struct rb_node *before)
{
	struct rb_node *next = before ? before->right : tree->root;

	if (next) {
		next = leftmost(next);
		rb_insert(tree, node, next, &next->left);
	} else {
		rb_insert(tree, node, before, before ? &before->right : &tree->root);
	}
}

/*
 * The ways through `node`, a child of `parent` or missing there, have one black node too few. (When
 * node is NULL only `parent` tells where it is: the other child is never missing then.)
 */
static void fix_black_deficit(struct rb_tree *tree, struct rb_node *node, struct rb_node *parent)
{
	while (parent && !is_red(node)) {
		bool left = parent->left == node;
		struct rb_node *sibling = left ? parent->right : parent->left;
		struct rb_node *near, *far;

		if (sibling->red) {
			sibling->red = false;
			parent->red = true;
			rotate(tree, parent, left);
			sibling = left ? parent->right : parent->left;
		}
		near = left ? sibling->left : sibling->right;
		far = left ? sibling->right : sibling->left;
		if (!is_red(near) && !is_red(far)) {
			sibling->red = true;
			node = parent;
			parent = node->parent;
			continue;
		}
		if (!is_red(far)) {
			near->red = false;
			sibling->red = true;
			rotate(tree, sibling, !left);
			far = sibling;
			sibling = near;
		}
		sibling->red = parent->red;
		parent->red = false;
		far->red = false;
		rotate(tree, parent, left);
		return;
	}
	if (node)
		node->red = false;
}

void rb_erase(struct rb_tree *tree, struct rb_node *node)
{
	struct rb_node *moved = NULL; /* takes the place of a node with two children */
	struct rb_node *child, *parent, *n;
	bool lost_red;

	if (!node->left || !node->right) {
		child = node->left ? node->left : node->right;
		parent = node->parent;
		lost_red = node->red;
		replace_child(tree, node, child);
	} else {
		moved = leftmost(node->right);
		child = moved->right;
		lost_red = moved->red;
		if (moved->parent == node) {
			parent = moved;
		} else {
			parent = moved->parent;
			replace_child(tree, moved, child);
			moved->right = node->right;
			moved->right->parent = moved;
		}
		replace_child(tree, node, moved);
		moved->left = node->left;
		moved->left->parent = moved;
		moved->red = node->red;
	}
	if (tree->update) {
		/* Below and at the moved node "unchanged" says nothing about the place it has now.
		 */
		for (n = parent; moved && n != moved; n = n->parent)
			tree->update(n);
		if (moved) {
			tree->update(moved);
			update_upwards(tree, moved->parent);
		} else {
			update_upwards(tree, parent);
		}
	}
	if (!lost_red)
		fix_black_deficit(tree, child, parent);
}

struct rb_node *rb_first(const struct rb_tree *tree)
{
	return leftmost(tree->root);
}

struct rb_node *rb_last(const struct rb_tree *tree)
{
	return rightmost(tree->root);
}

struct rb_node *rb_next(const struct rb_node *node)
{
	if (node->right)
		return leftmost(node->right);
	while (node->parent && node->parent->right == node)
		node = node->parent;
	return node->parent;
}

struct rb_node *rb_prev(const struct rb_node *node)
{
	if (node->left)
		return rightmost(node->left);
	while (node->parent && node->parent->left == node)
		node = node->parent;
	return node->parent;
}
