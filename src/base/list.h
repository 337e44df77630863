/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_BASE_LIST_H
#define SWIOMMU_BASE_LIST_H

/* A circular, intrusive, doubly linked list: a head is a node that belongs to no element. */

#include "base/base.h"

struct list {
	struct list *next, *prev;
};

static inline void list_init(struct list *head)
{
	head->next = head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

static inline void list_add_between(struct list *node, struct list *prev, struct list *next)
{
	node->prev = prev;
	node->next = next;
	prev->next = node;
	next->prev = node;
}

static inline void list_add(struct list *head, struct list *node)
{
	list_add_between(node, head, head->next);
}

static inline void list_add_tail(struct list *head, struct list *node)
{
	list_add_between(node, head->prev, head);
}

/* Leaves the node initialised, so that removing it once more does nothing. */
static inline void list_del(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

#define list_entry(node, type, member) container_of(node, type, member)
#define list_for_each(pos, head) for ((pos) = (head)->next; (pos) != (head); (pos) = (pos)->next)
/* `pos` may be removed (and freed) inside the loop. */
#define list_for_each_safe(pos, tmp, head)                               \
	for ((pos) = (head)->next, (tmp) = (pos)->next; (pos) != (head); \
	     (pos) = (tmp), (tmp) = (pos)->next)

#endif
