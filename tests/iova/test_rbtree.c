// SPDX-License-Identifier: MIT
/* The balanced tree against a sorted array, with a summary (sum of values) that must stay right. */
#include "support.h"
#include "base/rbtree.h"

struct item {
	struct rb_node node;
	unsigned key;
	uint64_t value, sum;
};

static struct item *item_of(const struct rb_node *node)
{
	return container_of(node, struct item, node);
}

static uint64_t sum_of(const struct rb_node *node)
{
	return node ? item_of(node)->sum : 0;
}

static bool update_sum(struct rb_node *node)
{
	struct item *item = item_of(node);
	uint64_t sum = item->value + sum_of(node->left) + sum_of(node->right);
	bool changed = sum != item->sum;

	item->sum = sum;
	return changed;
}

static void check_sum(const struct rb_node *node)
{
	const struct item *item = item_of(node);

	assert_true(item->sum == item->value + sum_of(node->left) + sum_of(node->right));
}

static void insert(struct rb_tree *tree, struct item *item)
{
	struct rb_node *parent = NULL, **link = &tree->root;

	while (*link) {
		parent = *link;
		link = item->key < item_of(parent)->key ? &parent->left : &parent->right;
	}
	rb_insert(tree, &item->node, parent, link);
}

#define KEYS 300

/* Forwards and backwards: exactly the present keys, ascending. */
static void check_order(struct rb_tree *tree, const bool *present)
{
	struct rb_node *node = rb_first(tree), *prev = NULL;

	for (unsigned key = 0; key < KEYS; key++) {
		if (!present[key])
			continue;
		assert_non_null(node);
		assert_int_equal(item_of(node)->key, key);
		assert_ptr_equal(rb_prev(node), prev);
		prev = node;
		node = rb_next(node);
	}
	assert_null(node);
	assert_ptr_equal(rb_last(tree), prev);
	check_rb(tree->root, NULL, tree->update ? check_sum : NULL);
}

static void run_random(bool summary)
{
	static struct item items[KEYS];
	bool present[KEYS] = {false};
	struct rb_tree tree = {.update = summary ? update_sum : NULL};
	uint64_t seed = random_seed("rbtree");

	memset(items, 0, sizeof(items));
	for (unsigned step = 0; step < 6000; step++) {
		/* Grow, shrink, grow: all shapes and the empty tree come by. */
		unsigned key = (unsigned)random_below(&seed, KEYS);
		bool growing = step / 1000 % 2 == 0;
		struct item *item = &items[key];

		if (present[key] && (!growing || random_below(&seed, 3) == 0)) {
			rb_erase(&tree, &item->node);
			present[key] = false;
		} else if (present[key]) {
			item->value = random_next(&seed) >> 32;
			rb_changed(&tree, &item->node);
		} else if (growing || random_below(&seed, 3) == 0) {
			item->key = key;
			item->value = random_next(&seed) >> 32;
			insert(&tree, item);
			present[key] = true;
		}
		if (step % 16 == 0 || step % 1000 > 950)
			check_order(&tree, present);
	}
}

static void random_changes_keep_order_balance_and_summary(void **state)
{
	(void)state;
	run_random(true);
}

static void works_without_a_summary(void **state)
{
	(void)state;
	run_random(false);
}

static void insert_after_appends_right_behind(void **state)
{
	static struct item items[64];
	struct rb_tree tree = {.update = update_sum};
	struct rb_node *node;
	unsigned order[64], n = 0;
	uint64_t seed = random_seed("insert_after");

	(void)state;
	memset(items, 0, sizeof(items));
	for (unsigned i = 0; i < 64; i++) {
		unsigned at = (unsigned)random_below(&seed, n + 1);

		items[i].key = i;
		items[i].value = i;
		rb_insert_after(&tree, &items[i].node, at ? &items[order[at - 1]].node : NULL);
		memmove(order + at + 1, order + at, (n - at) * sizeof(*order));
		order[at] = i;
		n++;
		check_rb(tree.root, NULL, check_sum);
	}
	node = rb_first(&tree);
	for (unsigned i = 0; i < n; i++, node = rb_next(node))
		assert_int_equal(item_of(node)->key, order[i]);
	assert_null(node);
}

static void sorted_input_stays_shallow(void **state)
{
	enum { N = 4096 };
	struct item *items = calloc(N, sizeof(*items));
	struct rb_tree tree = {0};
	unsigned deepest = 0;

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		items[i].key = i;
		insert(&tree, &items[i]);
	}
	for (unsigned i = 0; i < N; i++) {
		unsigned depth = 1;

		for (struct rb_node *n = &items[i].node; n->parent; n = n->parent)
			depth++;
		deepest = SWI_MAX(deepest, depth);
	}
	assert_true(deepest <= 24); /* 2 log2(N) */
	free(items);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_changes_keep_order_balance_and_summary),
		cmocka_unit_test(works_without_a_summary),
		cmocka_unit_test(insert_after_appends_right_behind),
		cmocka_unit_test(sorted_input_stays_shallow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
