// SPDX-License-Identifier: MIT
/* Translation that is not remembered: walking the page table; see translate.h. */
#include "core/translate.h"

#include "core/ctx.h"
#include "mem/phys.h"

/*
 * A device that goes through memory in order misses once for each leaf. So it is looked further and further ahead then,
 * as long as leaves go on where the last one ended.
 */
#define AHEAD_MIN (16 * SWI_PAGE_SIZE)
#define AHEAD_MAX (512 * SWI_PAGE_SIZE)

/* A page can be remembered by its host address if that has room for the permissions. */
static void remember_page(struct iova_reader *reader, const struct translator *tr, iova_t iova)
{
	iova_t page = iova & ~(SWI_PAGE_SIZE - 1);
	uint64_t at = page - tr->first;
	struct iova_tlb_entry *e;
	uintptr_t host;

	if (!tr->host || page < tr->first || at > tr->span || tr->span - at < SWI_PAGE_SIZE - 1)
		return;
	host = (uintptr_t)(tr->host + at);
	if (host % SWI_PAGE_SIZE)
		return;
	e = &reader->tlb[(iova >> SWI_PAGE_SHIFT) % IOVA_TLB_ENTRIES];
	e->key = page | reader->tag;
	e->word = host | tr->prot;
}

bool translate_miss(struct iova_reader *reader, struct translator *tr, const struct hwpt *hwpt,
		    iova_t iova, uint64_t want, uint64_t generation, struct place *out)
{
	struct pgtable_run run;

	/* Void leftovers can make this true: it looks ahead for nothing then. */
	if (iova - tr->first == tr->span + 1)
		tr->ahead = SWI_MIN(SWI_MAX(2 * tr->ahead, AHEAD_MIN), AHEAD_MAX);
	else
		tr->ahead = 0;
	if (!pgtable_translate(hwpt->tables.table, iova, SWI_MAX(want, tr->ahead), &run))
		return false; /* not remembered: it may be mapped next without the generation moving */
	/* Walked after the generation was loaded: at worst the table is newer than what we tag it with. */
	if (tr->serial != hwpt->serial || tr->generation != generation) {
		iova_reader_forget(reader);
		pgtable_marker_init(&tr->marker);
		tr->serial = hwpt->serial;
		tr->generation = generation;
	}
	tr->first = run.iova;
	tr->span = run.length - 1;
	tr->prot = run.prot;
	tr->host = NULL;
	tr->offset = run.pa;
	tr->backing = phys_find(hwpt->obj.ctx->phys, run.pa);
	if (tr->backing) {
		tr->offset = backing_offset_of(tr->backing, run.pa);
		/* In physical space the next backing may follow at once. */
		run.length = SWI_MIN(run.length, backing_length(tr->backing) - tr->offset);
		tr->span = run.length - 1;
		tr->host = backing_host(tr->backing, tr->offset, run.length);
		remember_page(reader, tr, iova);
	}
	translator_place(tr, iova - tr->first, out);
	return true;
}
