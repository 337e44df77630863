/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_IOVA_READER_H
#define SWIOMMU_IOVA_READER_H

/*
 * The read side of the IOVA map: what one DMA costs.
 *
 *   iova_read_begin(r);
 *   area = iova_translate_run(r, map, iova, &last);   as often as needed
 *   ... use the memory behind area, up to IOVA `last` ...
 *   iova_read_end(r);
 *
 * Why it is safe. Taking an area away is three steps of a writer: clear its slots in the radix
 * table; count the map's generation up; look who is inside and wait for them. A reader does one
 * step and then looks: it announces itself with an atomic add on its own cache line, and only then
 * loads the generation. These four accesses are sequentially consistent. If the reader loads the
 * old generation, its announcement comes before the writer's look, and the writer waits for it. If
 * it loads the new one, what it remembered is void and the slots it reads have been cleared. There
 * is no fence (ThreadSanitizer does not see fences) and nothing shared is written by a reader.
 *
 * What a reader remembers belongs to one map at one generation: the last translation, and a direct
 * mapped table of pages (an IOTLB). Areas that appear do not disturb it, since misses are not
 * remembered; any area that goes voids it. A generation is never used twice for a map at one
 * address, not even by another map that is created there later (see iova_map_create()).
 *
 * Nothing here looks into the area itself: an area is in the radix table exactly from publish to
 * retract, so that finding it there says that it is live, and a cache line is saved.
 */

#include <stdatomic.h>
#include "base/base.h"

struct iova_area;
struct iova_map;

/* The beginning of every struct iova_map: what readers load. */
struct iova_map_view {
	_Atomic(uint64_t) generation; /* counted up after slots were cleared or changed owner */
	_Atomic(uintptr_t) root;      /* of the radix table; 0 = empty */
};

/* Counts up whenever something that readers could find was taken away. */
static inline uint64_t iova_map_generation(const struct iova_map *map)
{
	return atomic_load_explicit(&((const struct iova_map_view *)map)->generation,
				    memory_order_seq_cst);
}

#define IOVA_TLB_ENTRIES 1024

struct iova_tlb_entry {
	uint64_t key; /* address of the page | tag */
	union {
		struct iova_area *area;
		uintptr_t word; /* whatever it means to who does not use iova_translate() */
	};
};

/*
 * Belongs to one thread at a time. Some 16 KiB, aligned to a cache line: a struct it is embedded in
 * comes from swi_zalloc_aligned().
 */
struct iova_reader {
	/* Odd while inside; counts up by one at begin and at end. Read by writers. */
	_Alignas(SWI_CACHELINE) _Atomic(uint64_t) state;
	/* The last translation: `area` for IOVAs first .. first + span of `map` at `generation`. */
	const struct iova_map *map;
	uint64_t generation;
	iova_t first;
	uint64_t span;
	struct iova_area *area;
	uint64_t tag; /* 1 .. 4095: entries of `tlb` with this tag are for `map` at `generation` */
	_Alignas(SWI_CACHELINE) struct iova_tlb_entry tlb[IOVA_TLB_ENTRIES];
};

/*
 * Makes a reader in no map, in memory of the caller that is aligned to a cache line. 0; an error is
 * reserved for readers that remember in memory of their own.
 */
int iova_reader_init(struct iova_reader *reader);
/* Ends its use. It must be in no map. */
void iova_reader_fini(struct iova_reader *reader);

/*
 * Makes everything void that the reader remembers, entries of `tlb` too. For who fills those by himself: the reader is
 * never given to iova_translate() then, and `tag` is the one for new entries.
 */
void iova_reader_forget(struct iova_reader *reader);

/*
 * Registers the reader with a map in which it is not yet: from now the map's writers wait for it.
 * A reader may be in several maps at a time. Any thread; must not be inside a read section of its
 * own. -ENOMEM.
 */
int iova_reader_attach(struct iova_reader *reader, struct iova_map *map);

/*
 * Takes the reader out of a map. Returns when a section that was open has ended; sections that
 * begin after the call must not use the map any more (publish the change before the call). Any
 * thread, not from inside a section, without the map's lock. May sleep.
 */
void iova_reader_detach(struct iova_reader *reader, struct iova_map *map);

/* Enters a read section. Sections do not nest. Never blocks. */
static inline void iova_read_begin(struct iova_reader *reader)
{
	atomic_fetch_add_explicit(&reader->state, 1, memory_order_seq_cst);
}

/*
 * The same for a reader that several threads share: whoever is inside has it. False: somebody else has. What a
 * thread did with the reader inside a section, the next one sees.
 */
static inline bool iova_read_try_begin(struct iova_reader *reader)
{
	uint64_t state = atomic_load_explicit(&reader->state, memory_order_relaxed);

	return !(state & 1) &&
	       atomic_compare_exchange_strong_explicit(&reader->state, &state, state + 1,
						       memory_order_seq_cst, memory_order_relaxed);
}

static inline void iova_read_end(struct iova_reader *reader)
{
	uint64_t state = atomic_load_explicit(&reader->state, memory_order_relaxed);

	atomic_store_explicit(&reader->state, state + 1, memory_order_release);
}

/* The part of iova_translate() that is not inlined: looks into the radix table and remembers. */
struct iova_area *iova_translate_miss(struct iova_reader *reader, const struct iova_map *map,
				      iova_t iova, uint64_t generation);

/*
 * The area that holds `iova` in `map`, or NULL; valid until iova_read_end(), with the memory behind
 * it. Permissions are the caller's to check. Inside a section, the reader being in `map`.
 *
 * Do not derive from area->last how far you may go: a concurrent split may have shortened it to
 * below `iova` meanwhile (harmless else: the memory stays). Use iova_translate_run() for that.
 */
static inline struct iova_area *iova_translate(struct iova_reader *reader,
					       const struct iova_map *map, iova_t iova)
{
	const struct iova_map_view *view = (const struct iova_map_view *)map;
	uint64_t generation = atomic_load_explicit(&view->generation, memory_order_seq_cst);

	if (SWI_LIKELY(reader->map == map && reader->generation == generation)) {
		const struct iova_tlb_entry *e;

		if (iova - reader->first <= reader->span)
			return reader->area;
		e = &reader->tlb[(iova >> SWI_PAGE_SHIFT) % IOVA_TLB_ENTRIES];
		if (e->key == ((iova & ~(SWI_PAGE_SIZE - 1)) | reader->tag))
			return e->area;
	}
	return iova_translate_miss(reader, map, iova, generation);
}

#endif
