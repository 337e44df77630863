/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_TRANSLATE_H
#define SWIOMMU_CORE_TRANSLATE_H

/*
 * From an IOVA to bytes, by the page table of a HWPT: what a step of a device's DMA costs.
 *
 * The table says the permissions and a physical address, and that says which byte of which backing (mem/phys.h). A
 * translator remembers the last stretch of memory it was led to, and pages in the IOTLB of its reader: host addresses
 * with permissions, so that a hit looks at nothing else. All of it is void when the generation of the IOVA map has
 * counted up, or for another page table; page tables of a context have numbers that are never used again.
 */

#include "core/hwpt.h"
#include "iova/reader.h"

struct translator {
	uint64_t serial; /* of the page table that what follows is about; 0: none */
	uint64_t generation;
	/* The last stretch: IOVAs first .. first + span. */
	iova_t first;
	uint64_t span;
	char *host;		 /* of `first`, NULL: not in this process */
	unsigned prot;		 /* SWI_READ | SWI_WRITE */
	uint64_t offset;	 /* of `first` in the backing; without one its physical address */
	struct backing *backing; /* NULL: a physical address without memory */
	uint64_t ahead;		 /* how far to look while one miss follows the other in order */
	struct pgtable_marker marker;
};

/* Where an IOVA leads. */
struct place {
	uint64_t length; /* it goes on for so many bytes, or more */
	char *host;	 /* NULL: by backing_read() and _write() */
	unsigned prot;
	uint64_t offset;
	struct backing *backing; /* not set if `host` is; NULL: there is no memory */
};

/* The place `at` bytes into the stretch that was found last. */
static inline void translator_place(const struct translator *tr, uint64_t at, struct place *out)
{
	out->length = tr->span - at + 1;
	out->host = tr->host ? tr->host + at : NULL;
	out->prot = tr->prot;
	out->offset = tr->offset + at;
	out->backing = tr->backing;
}

/* The part of translate() that is not inlined. */
bool translate_miss(struct iova_reader *reader, struct translator *tr, const struct hwpt *hwpt,
		    iova_t iova, uint64_t want, uint64_t generation, struct place *out);

/*
 * Where `iova` leads by a paging HWPT; false: nowhere. Looks for as many as `want` bytes in one piece if that comes
 * cheap. Permissions are the caller's to check. Inside a section of `reader`, which is in the map of the HWPT's IOAS;
 * valid until it ends. The reader is used for nothing else, and always with this translator.
 */
static inline bool translate(struct iova_reader *reader, struct translator *tr,
			     const struct hwpt *hwpt, iova_t iova, uint64_t want, struct place *out)
{
	uint64_t generation = iova_map_generation(hwpt->ioas->map), at;

	if (SWI_LIKELY(tr->serial == hwpt->serial && tr->generation == generation)) {
		const struct iova_tlb_entry *e;

		at = iova - tr->first;
		if (at <= tr->span) {
			translator_place(tr, at, out);
			return true;
		}
		at = iova % SWI_PAGE_SIZE;
		e = &reader->tlb[(iova >> SWI_PAGE_SHIFT) % IOVA_TLB_ENTRIES];
		if (e->key == ((iova - at) | reader->tag) && want <= SWI_PAGE_SIZE - at) {
			out->length = SWI_PAGE_SIZE - at;
			out->host = (char *)(e->word & ~(SWI_PAGE_SIZE - 1)) + at;
			out->prot = e->word % SWI_PAGE_SIZE;
			return true;
		}
	}
	return translate_miss(reader, tr, hwpt, iova, want, generation, out);
}

/* The device is about to write `length` bytes at `iova`, to where translate() has just led; the HWPT tracks. */
static inline void translate_mark_dirty(struct translator *tr, const struct hwpt *hwpt, iova_t iova,
					uint64_t length)
{
	pgtable_mark(hwpt->tables.table, &tr->marker, iova, length);
}

#endif
