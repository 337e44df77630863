// SPDX-License-Identifier: MIT
/*
 * The memory that page tables are made of.
 *
 * Entries hold physical addresses, and a walk must get from there to our memory at each level. So
 * pages of tables are numbered, page n lies at base + n * size, and the memory comes in segments of
 * which each is twice as large as the one before: a number gives segment and place in a few
 * instructions and one load, and no segment ever moves under a reader.
 *
 * The root is the first page, or the first few where a format wants several side by side; they lie
 * together in the first segment and are never freed.
 *
 * Pages are zero when they are new. Freed ones are zeroed and kept, in a list for each segment; allocation takes the lowest segment
 * that has one, so that high ones run empty. An empty segment that is large goes back to the
 * system.
 *
 * A reader finds a segment only by an entry that points into it, which was stored (release) after
 * the segment was there, and it has left before the page, hence the segment, is freed.
 */
#include "pgtable/tables.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "base/alloc.h"

/* Segments up to this size are kept when empty. */
#define KEEP_BYTES (4ull << 20)
/* Segments from this size on ask the system for pages of this size. */
#define HUGE_BYTES (2ull << 20)

static size_t align_up(size_t n, size_t to)
{
	return (n + to - 1) & ~(to - 1);
}

static uint32_t segment_pages(const struct tables *t, unsigned s)
{
	return 1u << (t->first_lg2 + s);
}

static uint32_t segment_first(const struct tables *t, unsigned s)
{
	return segment_pages(t, s) - (1u << t->first_lg2);
}

/* How many pages of segment s exist: the last one may reach past the limit. */
static uint32_t segment_usable(const struct tables *t, unsigned s)
{
	uint32_t first = segment_first(t, s);

	return t->limit <= first ? 0 : SWI_MIN(segment_pages(t, s), t->limit - first);
}

static int segment_add(struct tables *t, unsigned s)
{
	struct table_segment *segment = &t->segment[s];
	size_t pages = segment_pages(t, s);
	size_t slots = pages << t->page_lg2, dirty = pages * t->dirty_words * sizeof(slot_t);
	size_t align = slots >= HUGE_BYTES ? HUGE_BYTES : SWI_PAGE_SIZE;
	char *memory;

	memory = swi_zalloc(align + slots + dirty + pages * sizeof(struct table_meta));
	if (!memory)
		return -ENOMEM;
	segment->memory = memory;
	segment->slots = (char *)align_up((uintptr_t)memory, align);
	/* Walks go all over them: it is worth some hundred page faults, and misses of the processor's own TLB. */
	if (slots >= HUGE_BYTES)
		madvise(segment->slots, slots, MADV_HUGEPAGE);
	segment->dirty = (slot_t *)(segment->slots + slots);
	segment->meta = (struct table_meta *)(segment->slots + slots + dirty);
	segment->carved = segment->live = segment->free = 0;
	return 0;
}

static void table_wipe(const struct tables *t, struct table *table)
{
	memset((void *)table->slot, 0, (size_t)1 << t->page_lg2);
	if (table->dirty)
		memset((void *)table->dirty, 0, t->dirty_words * sizeof(slot_t));
	atomic_store_explicit(&table->meta->full, 0, memory_order_relaxed);
}

/* Lock held. The number of a page in segment s, which has room. It is zeroed. */
static uint32_t segment_take(struct tables *t, unsigned s)
{
	struct table_segment *segment = &t->segment[s];
	uint32_t i;

	if (segment->free) {
		i = segment->free - 1;
		segment->free = segment->meta[i].next;
	} else {
		i = segment->carved++;
	}
	segment->live++;
	t->live++;
	if (!segment->free && segment->carved == segment_usable(t, s))
		t->roomy &= ~(1u << s);
	return segment_first(t, s) + i;
}

/* Lock held. Adds the lowest missing segment. */
static int segment_next(struct tables *t)
{
	for (unsigned s = 0; s < TABLE_SEGMENTS && segment_usable(t, s); s++) {
		if (t->segment[s].memory)
			continue;
		if (segment_add(t, s))
			return -ENOMEM;
		t->roomy |= 1u << s;
		return 0;
	}
	return -ENOMEM;
}

int tables_alloc(struct tables *t, unsigned level, phys_t *pa, struct table *out)
{
	uint32_t number;

	if (swi_fail_point())
		return -ENOMEM;
	pthread_mutex_lock(&t->lock);
	if (!t->roomy && segment_next(t)) {
		pthread_mutex_unlock(&t->lock);
		return -ENOMEM;
	}
	number = segment_take(t, (unsigned)__builtin_ctz(t->roomy));
	pthread_mutex_unlock(&t->lock);
	*out = table_at(t, number);
	out->meta->level = (uint8_t)level;
	*pa = table_pa(t, number);
	return 0;
}

/* Lock held. Puts a wiped page back. */
static void segment_put(struct tables *t, uint32_t number)
{
	uint32_t i;
	unsigned s = table_segment(t, number, &i);
	struct table_segment *segment = &t->segment[s];

	t->live--;
	t->roomy |= 1u << s;
	segment->meta[i].next = segment->free;
	segment->free = i + 1;
	if (--segment->live || (uint64_t)segment_pages(t, s) << t->page_lg2 <= KEEP_BYTES)
		return;
	swi_free(segment->memory);
	memset(segment, 0, sizeof(*segment));
	t->roomy &= ~(1u << s);
}

void tables_free(struct tables *t, uint32_t first)
{
	for (uint32_t n = first; n;) {
		struct table table = table_at(t, n - 1);

		n = table.meta->next;
		table_wipe(t, &table);
	}
	pthread_mutex_lock(&t->lock);
	for (uint32_t n = first; n;) {
		uint32_t number = n - 1;

		n = table_at(t, number).meta->next;
		segment_put(t, number);
	}
	pthread_mutex_unlock(&t->lock);
}

uint32_t tables_live(struct tables *t)
{
	uint32_t live;

	pthread_mutex_lock(&t->lock);
	live = t->live;
	pthread_mutex_unlock(&t->lock);
	return live;
}

int tables_init(struct tables *t, phys_t base, unsigned page_lg2, unsigned root_lg2, uint32_t limit,
		bool dirty)
{
	memset(t, 0, sizeof(*t));
	t->base = base;
	t->page_lg2 = page_lg2;
	t->first_lg2 = SWI_MAX(root_lg2, 1u);
	t->limit = limit;
	if (dirty)
		t->dirty_words = ((1u << page_lg2) / sizeof(slot_t) + 63) / 64;
	if (segment_add(t, 0))
		return -ENOMEM;
	t->roomy = 1;
	for (unsigned i = 0; i < 1u << root_lg2; i++)
		segment_take(t, 0);
	pthread_mutex_init(&t->lock, NULL);
	return 0;
}

void tables_fini(struct tables *t)
{
	for (unsigned s = 0; s < TABLE_SEGMENTS; s++)
		swi_free(t->segment[s].memory);
	pthread_mutex_destroy(&t->lock);
}
