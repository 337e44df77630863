/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_PGTABLE_TABLES_H
#define SWIOMMU_PGTABLE_TABLES_H

/* The memory that page tables are made of; the essay is in tables.c. */

#include <pthread.h>
#include <stdatomic.h>
#include "pgtable/pgtable.h"

typedef _Atomic(uint64_t) slot_t;

#define TABLE_SEGMENTS 26
/* A page that is or was the root begins counting here and so never seems full. */
#define TABLE_NEVER_FULL 0x80000000u

/* What belongs to a page of tables and is no part of its format. */
struct table_meta {
	/* Slots taken by leaves, and by pages of tables that are full in this sense. */
	_Atomic(uint32_t) full;
	uint32_t next; /* number + 1 of the next one: free list, gather, or being freed */
	uint8_t level; /* set before it is linked */
};

/* A page of tables, by its three parts. */
struct table {
	slot_t *slot;
	/* A bit per slot: a leaf is dirty, or something below the table it points to may be. */
	slot_t *dirty; /* NULL: the format has no dirty state */
	struct table_meta *meta;
};

struct table_segment {
	void *memory;  /* owned; NULL: not there */
	char *slots;   /* 2^n pages of tables, aligned */
	slot_t *dirty; /* their dirty bits */
	struct table_meta *meta;
	uint32_t carved; /* the first so many have been used before; lock */
	uint32_t live;	 /* in use or in a gather; lock */
	uint32_t free;	 /* list of zeroed ones; lock */
};

struct tables {
	phys_t base;
	unsigned page_lg2;	/* bytes in a page of tables */
	unsigned first_lg2;	/* pages in the first segment */
	unsigned dirty_words;	/* for each page */
	uint32_t limit;		/* so many fit below the end of physical space */
	pthread_mutex_t lock;	/* a leaf */
	uint32_t roomy;		/* segments that have a free page, as bits; lock */
	_Atomic(uint32_t) live; /* written under the lock */
	struct table_segment segment[TABLE_SEGMENTS];
};

/* -ENOMEM. The first 2^root_lg2 pages, the root, are taken. */
int tables_init(struct tables *t, phys_t base, unsigned page_lg2, unsigned root_lg2, uint32_t limit,
		bool dirty);
void tables_fini(struct tables *t);

/* A zeroed page of tables for `level` and its address. -ENOMEM. Any thread. */
int tables_alloc(struct tables *t, unsigned level, phys_t *pa, struct table *out);
/* Takes back pages listed by meta.next from number `first` - 1 on; they need not be zero. */
void tables_free(struct tables *t, uint32_t first);
uint32_t tables_live(struct tables *t);

/* Number of the page at an address handed out, and back. */
static inline uint32_t table_number(const struct tables *t, phys_t pa)
{
	return (uint32_t)((pa - t->base) >> t->page_lg2);
}

static inline phys_t table_pa(const struct tables *t, uint32_t number)
{
	return t->base + ((phys_t)number << t->page_lg2);
}

/* Segment s holds 2^(first_lg2 + s) pages, those numbered from 2^(first_lg2 + s) - 2^first_lg2. */
static inline unsigned table_segment(const struct tables *t, uint32_t number, uint32_t *index)
{
	uint32_t n = number + (1u << t->first_lg2);
	unsigned lg2 = 31 - (unsigned)__builtin_clz(n);

	*index = n - (1u << lg2);
	return lg2 - t->first_lg2;
}

static inline struct table table_at(const struct tables *t, uint32_t number)
{
	uint32_t i;
	const struct table_segment *s = &t->segment[table_segment(t, number, &i)];

	return (struct table){
		.slot = (slot_t *)(s->slots + ((size_t)i << t->page_lg2)),
		.dirty = t->dirty_words ? s->dirty + (size_t)i * t->dirty_words : NULL,
		.meta = s->meta + i,
	};
}

#endif
