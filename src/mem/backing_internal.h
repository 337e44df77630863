/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_MEM_BACKING_INTERNAL_H
#define SWIOMMU_MEM_BACKING_INTERNAL_H

/* What the files of a backing share; the essay is in backing.c. */

#include "base/list.h"
#include "base/rbtree.h"
#include "mem/backing.h"
#include "mem/phys.h"

#include <pthread.h>
#include <stdatomic.h>

struct segment {
	_Atomic unsigned refs; /* one for all runs, one per mover inside */
	size_t runs;	       /* backing's lock */
	uint64_t first, end;   /* pages, as pinned */
	struct mem_window window;
	struct list entry; /* in a list of new, or of dying segments */
	struct mem_registered registered;
	struct backing *backing; /* for who walks the registry; no reference */
};

struct run {
	struct rb_node node;
	uint64_t page;
	size_t edges; /* intervals that begin or end at `page` */
	size_t cover; /* intervals that hold the run, those over everything not counted */
	struct segment *seg;
	struct run *spare; /* next in the backing's stock */
};

/* Pages [first, end) of a backing. */
struct span {
	uint64_t first, end;
};

struct backing {
	_Atomic unsigned refs;
	bool write_intent;
	struct mem_owner *owner; /* counted */
	uint64_t addr, length, nr_pages;
	pthread_mutex_t lookup; /* outside of lock; held while the owner's memory is looked at */
	pthread_mutex_t lock;	/* everything below; never held over blocking work */
	size_t whole;		/* intervals over everything */
	bool whole_ready;	/* every run has its segment, on behalf of `whole` */
	struct rb_tree runs;
	struct run base; /* the run that begins at page 0 */
	struct run *spares;
	unsigned nr_spares;
	/* Where byte 0 is in this process while all pages are pinned side by side; NULL: see backing_host(). */
	_Atomic(char *) host;
	_Atomic(phys_t) phys;	       /* of page 0; 0: not placed. Written once, locked */
	struct phys_space *space;      /* counted; where it is placed */
	struct mem_accounts *accounts; /* the payer's, whoever it is; immutable, NULL = none */
	struct mem_payer payer;	       /* changed under accounts' block too */
	uint64_t charged;	       /* pages: those of all runs with a segment */
	bool moving;		       /* the charge is about to move */
	uint64_t promised;	       /* pages charged to the next payer already */
};

/* The owner's address of page 0. */
static inline uint64_t page_base(const struct backing *b)
{
	return b->addr & ~(SWI_PAGE_SIZE - 1);
}

static inline struct span span_of(const struct backing *b, uint64_t offset, uint64_t len)
{
	uint64_t first = (b->addr & (SWI_PAGE_SIZE - 1)) + offset;

	return (struct span){first >> SWI_PAGE_SHIFT, ((first + (len - 1)) >> SWI_PAGE_SHIFT) + 1};
}

/* This process' address of byte `offset` of the backing, or NULL. */
static inline char *segment_host(const struct backing *b, const struct segment *seg,
				 uint64_t offset)
{
	uint64_t at = (b->addr & (SWI_PAGE_SIZE - 1)) + offset - (seg->first << SWI_PAGE_SHIFT);

	/* As a number: `offset` may lie before the segment, see backing_host(). */
	return seg->window.host ? (char *)((uintptr_t)seg->window.host + at) : NULL;
}

static inline struct run *run_of(struct rb_node *node)
{
	return node ? container_of(node, struct run, node) : NULL;
}

static inline struct run *run_next(struct run *run)
{
	return run_of(rb_next(&run->node));
}

static inline uint64_t run_end(const struct backing *b, struct run *run)
{
	struct run *next = run_next(run);

	return next ? next->page : b->nr_pages;
}

/* The run that `page` belongs to. Locked. */
struct run *backing_run_at(struct backing *b, uint64_t page);

/* Where byte `offset` is, if the pages of the span are pinned side by side; else NULL. Locked. */
char *backing_host_locked(struct backing *b, struct span s, uint64_t offset);

/* Looks up pages of the backing; may block. One reference. The errors of backing_pin(). */
int backing_segment_open(struct backing *b, struct span s, struct segment **out,
			 struct swi_reason *why);
void backing_segment_put(struct segment *seg);

#endif
