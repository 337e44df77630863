/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_PGTABLE_PGTABLE_H
#define SWIOMMU_PGTABLE_PGTABLE_H

/*
 * IO page tables in the formats of real IOMMUs, bit for bit (spec devices.md 7).
 *
 * A table maps IOVAs to physical addresses. Both are numbers: what they mean is the caller's. The
 * pages a table is made of have physical addresses too, which its entries hold: page n of a table
 * lies at config.table_base + n * (size of a page of tables). This space is the table's own; give
 * each a base of its own if several are to be looked at together.
 *
 * A *leaf* is what one mapping step makes: `length` bytes at an aligned IOVA. Where a format writes
 * a leaf as several equal entries it is still one leaf here. The *natural* size of a level is what
 * one entry of it covers.
 *
 * Locking. There is no lock to take. Lookups, marks and dirty reads may run at any time on any
 * thread, besides each other and besides changes. Changes (map, unmap) may run beside changes of
 * other IOVAs. Not at once on the same IOVAs: two changes, or a change and a dirty read.
 *
 * Grace periods. Changes unlink pages of tables that a reader on another thread may be in. These
 * gather in the caller's struct pgtable_gather, who waits for the readers of that moment and then
 * calls pgtable_gather_free(). Whoever passes NULL says that nobody else is reading.
 *
 * Memory. Map fails with -ENOMEM when there is none. Nothing else here needs memory, undoing least
 * of all. A page of tables counts as one failure point (base/alloc.h), wherever it comes from.
 */

#include <stdatomic.h>

#include "base/base.h"

struct pgtable;
struct pgtable_format;

/* The formats. Whoever adds one writes one file and names it here. */
extern const struct pgtable_format pgtable_amdv1;      /* AMD-Vi host table */
extern const struct pgtable_format pgtable_amdv1_mock; /* with 2 KiB pages (spec test-abi.md 2.3) */
extern const struct pgtable_format pgtable_x86_64;     /* CPU, VT-d first stage, AMD-Vi v2 */
extern const struct pgtable_format pgtable_vtdss;      /* VT-d second stage */
extern const struct pgtable_format pgtable_riscv64;    /* Sv39, Sv48, Sv57 */
extern const struct pgtable_format pgtable_arm_lpae_s1; /* 64-bit, stage 1 */
extern const struct pgtable_format pgtable_arm_lpae_s2; /* 64-bit, stage 2 */

/* Attributes of a mapping besides SWI_READ and SWI_WRITE. A format ignores what it cannot say. */
enum {
	PGTABLE_CACHE = 1u << 8,  /* coherent with the caches */
	PGTABLE_NOEXEC = 1u << 9, /* not to be executed from */
	PGTABLE_MMIO = 1u << 10,  /* device registers */
	PGTABLE_PRIV = 1u << 11,  /* for privileged transactions only */
};

/* Options of a table. -EOPNOTSUPP where a format does not know one. */
enum {
	/* The walker does not see the caches: entries that point to tables carry the software's
	 * mark "written back" (x86-64, VT-d, ARM). */
	PGTABLE_NONCOHERENT = 1u << 0,
	PGTABLE_SIGN_EXTENDED = 1u << 1,  /* x86-64: IOVAs are; RISC-V always */
	PGTABLE_FORCE_COHERENT = 1u << 2, /* VT-d: snoop on every leaf; AMDv1 always */
	PGTABLE_FORCE_WRITABLE = 1u << 3, /* VT-d: refuse leaves without SWI_WRITE */
	PGTABLE_SVNAPOT = 1u << 4,	  /* RISC-V: leaves of 64 KiB */
	PGTABLE_PBMT = 1u << 5,		  /* RISC-V: memory types */
	PGTABLE_DIRTY = 1u << 6, /* ARM stage 1: hardware dirty state; AMDv1, VT-d always */
	PGTABLE_FWB = 1u << 7,	 /* ARM stage 2: stage 2 decides on caching */
	PGTABLE_NS = 1u << 8,	 /* ARM stage 1: non-secure */
	PGTABLE_GROWING =
		1u << 9, /* AMDv1 with 2 KiB pages: the root grows, as AMDv1's always does */
};

struct pgtable_config {
	const struct pgtable_format *format;
	unsigned va_bits;   /* width of IOVAs (ARM: IAS) */
	unsigned oa_bits;   /* width of physical addresses (ARM: OAS) */
	unsigned top_level; /* 0 = what va_bits need; levels count from 0, the 4 KiB one */
	unsigned features;  /* PGTABLE_NONCOHERENT and so on */
	uint64_t granules; /* ARM: the offered ones, as a sum of 4 KiB, 16 KiB, 64 KiB; 0 = 4 KiB */
	uint64_t pgsizes;  /* use no other leaf sizes; 0 = all of the format */
	phys_t table_base; /* of the pages of tables; a multiple of 16 of them */
};

struct pgtable_info {
	uint64_t pgsizes; /* sum of the leaf sizes */
	/* What should be offered for mapping; a sign-extended table maps its upper half as well. */
	iova_t aperture_first, aperture_last;
	unsigned oa_bits;
	unsigned levels; /* at present */
	bool dirty;	 /* dirty reads work */
	/* Pages of tables in use, and those waiting in gathers. A page has `table_size` bytes. */
	size_t tables;
	uint64_t table_size;
};

/* What changes leave behind: IOVAs to flush from caches, and memory to free after that. */
struct pgtable_gather {
	iova_t first, last; /* changed or cleaned since init; empty when first > last */
	uint32_t retired;   /* not 0: there are pages to free */
	bool split;	    /* leaves were split: what markers remember is void */
};

static inline void pgtable_gather_init(struct pgtable_gather *gather)
{
	gather->first = IOVA_MAX;
	gather->last = 0;
	gather->retired = 0;
	gather->split = false;
}

/*
 * A new, empty table in *out; the caller's until pgtable_destroy().
 * -EINVAL: a width of 0 or above the format's, widths or granules it does not know, a bad
 * table_base, no leaf size left. -EOPNOTSUPP: an unknown option, or a top level that the format does
 * not have or that is too low for va_bits. -ENOMEM.
 */
int pgtable_create(const struct pgtable_config *config, struct pgtable **out);

/* Frees the table with all it maps and what is in gathers. Nobody uses it any more. NULL is fine. */
void pgtable_destroy(struct pgtable *pt);

void pgtable_get_info(struct pgtable *pt, struct pgtable_info *out);

/*
 * The granule to use when `granules` are offered and the host has pages of `host` bytes: this one,
 * else the largest smaller, else the smallest larger. 0 when none is offered.
 */
uint64_t pgtable_choose_granule(uint64_t granules, uint64_t host);

/*
 * Maps `length` bytes with the largest leaves: each as large as divides iova and pa and fits into
 * the rest. On failure nothing is mapped (pages of tables that were added may stay, empty).
 *
 * -EINVAL: neither SWI_READ nor SWI_WRITE, or refused by an option, or (ARM) misaligned; -ERANGE:
 * not within the widths; -EINVAL: length 0; -EOVERFLOW: wraps; -ENXIO: aligned to no leaf size;
 * -EADDRINUSE (ARM: -EEXIST): meets a leaf; -ENOMEM.
 *
 * An empty page of tables where a large leaf fits makes room for it; on ARM one with leaves does so
 * too, with its contents, which a failure later on does not bring back.
 */
int pgtable_map(struct pgtable *pt, iova_t iova, phys_t pa, uint64_t length, unsigned prot,
		struct pgtable_gather *gather);

/* The same with leaves of at most `largest` bytes, a power of two; but never smaller than there are. */
int pgtable_map_limited(struct pgtable *pt, iova_t iova, phys_t pa, uint64_t length,
			uint64_t largest, unsigned prot, struct pgtable_gather *gather);

/*
 * The same with `count` leaves of exactly `pgsize` bytes. On failure *mapped says how many bytes
 * are mapped, which the caller unmaps; 0 on errors of the arguments. -EINVAL also: no such leaf
 * size, or iova or pa no multiple of it.
 */
int pgtable_map_pages(struct pgtable *pt, iova_t iova, phys_t pa, uint64_t pgsize, uint64_t count,
		      unsigned prot, uint64_t *mapped, struct pgtable_gather *gather);

/*
 * Unmaps from `iova` on until `length` bytes are done or a hole is met, and returns how many bytes
 * were unmapped. Stops where it would begin inside a leaf. A leaf that the range ends in goes as a
 * whole, and the result is larger than asked; on ARM it stays. A page of tables goes when the range
 * covers all it can map (ARM: with its holes, as one block). Dirtiness is lost.
 */
uint64_t pgtable_unmap(struct pgtable *pt, iova_t iova, uint64_t length,
		       struct pgtable_gather *gather);

/* The same, in `count` steps of `pgsize`; they differ on ARM only, where it is the block's size. */
uint64_t pgtable_unmap_pages(struct pgtable *pt, iova_t iova, uint64_t pgsize, uint64_t count,
			     struct pgtable_gather *gather);

/*
 * Takes pages of tables away that translate nothing but IOVAs of [first, last], where nothing is mapped: unmapping leaves
 * those that it empties by and by.
 */
void pgtable_trim(struct pgtable *pt, iova_t first, iova_t last, struct pgtable_gather *gather);
/* Pages of tables in use, and those waiting in gathers: pgtable_info.tables, roughly, at no cost. */
size_t pgtable_tables(struct pgtable *pt);

/*
 * Frees the pages of tables in `gather`, which is as new then. Readers that were inside when they
 * were unlinked have left.
 */
void pgtable_gather_free(struct pgtable *pt, struct pgtable_gather *gather);

/* ---- looking up ------------------------------------------------------------------------------ */

struct pgtable_leaf {
	iova_t iova; /* where the leaf begins, and its size */
	uint64_t length;
	phys_t pa;	/* of its first byte */
	unsigned prot;	/* SWI_READ, SWI_WRITE */
	unsigned level; /* of its entries */
	bool dirty;
	uint64_t entry; /* as the hardware reads it, of the looked up IOVA */
};

/* The leaf that translates `iova`; false when there is none. */
bool pgtable_lookup(struct pgtable *pt, iova_t iova, struct pgtable_leaf *out);
/* Its translation, to the byte; 0 when there is none. */
phys_t pgtable_iova_to_phys(struct pgtable *pt, iova_t iova);

struct pgtable_run {
	iova_t iova;
	uint64_t length;
	phys_t pa;     /* of its first byte */
	unsigned prot; /* SWI_READ, SWI_WRITE */
};

/*
 * The leaf that translates `iova` and, until `want` bytes from there on are found, those after it that go on as if
 * they were one with it. What comes after may be left out. False when there is no leaf.
 */
bool pgtable_translate(struct pgtable *pt, iova_t iova, uint64_t want, struct pgtable_run *out);

/* One entry of a table as the hardware reads it. */
struct pgtable_entry {
	unsigned level;
	iova_t iova; /* the first it translates */
	phys_t at;   /* where it lies */
	uint64_t value;
};

/*
 * Calls fn for every entry in use, each before those below it. `fn` may not change the table, and
 * nobody else does so.
 */
void pgtable_dump(struct pgtable *pt, void (*fn)(void *data, const struct pgtable_entry *entry),
		  void *data);

/* ---- dirty tracking -------------------------------------------------------------------------- */

/*
 * Marks the leaves that [iova, iova + length) touches as a write of a device does; what is not
 * mapped or has no dirty state is skipped. To be called *after* the data was written, by a reader
 * (see "Grace periods") that was inside since before it looked up the leaf.
 */
void pgtable_mark_dirty(struct pgtable *pt, iova_t iova, uint64_t length);

/*
 * What a marker remembers of the table that it marked in last, so that marking again costs a look at a few bits. Void
 * when pages of tables were retired or a leaf was split (see struct pgtable_gather) since: then it is to be emptied.
 */
struct pgtable_marker {
	iova_t first;  /* of what the table translates */
	uint64_t last; /* relative to `first` */
	unsigned lg2;  /* of its slots */
	unsigned above;
	_Atomic(uint64_t) *slot, *dirty;
	struct {
		_Atomic(uint64_t) *slot, *word;
		uint64_t entry, bit;
	} at[5]; /* the slots above that lead to it */
};

static inline void pgtable_marker_init(struct pgtable_marker *m)
{
	m->first = IOVA_MAX;
	m->last = 0;
	m->above = 0;
	m->dirty = NULL;
}

/* The part of pgtable_mark() that is not inlined. */
void pgtable_mark_more(struct pgtable *pt, struct pgtable_marker *m, iova_t iova, uint64_t length);

/* pgtable_mark_dirty() for who marks often. The range does not wrap. */
static inline void pgtable_mark(struct pgtable *pt, struct pgtable_marker *m, iova_t iova,
				uint64_t length)
{
	uint64_t from = iova - m->first, to = from + (length - 1), slot = from >> m->lg2;
	bool known = to >= from && to <= m->last && m->dirty && slot == to >> m->lg2 &&
		     atomic_load(&m->dirty[slot / 64]) >> slot % 64 & 1;

	for (unsigned i = 0; known && i < m->above; i++)
		known = atomic_load(m->at[i].word) & m->at[i].bit;
	if (!known)
		pgtable_mark_more(pt, m, iova, length);
}

/*
 * Where pgtable_read_dirty() of [first, last] would find something first; false: nowhere. As quick as that is where
 * nothing is dirty.
 */
bool pgtable_next_dirty(struct pgtable *pt, iova_t first, iova_t last, iova_t *at);

enum { PGTABLE_NO_CLEAR = 1u << 0 }; /* of pgtable_read_dirty() */

/*
 * Reports what is dirty in [iova, iova + length), in ascending, maximal, disjoint ranges within it,
 * and cleans it unless told otherwise. Dirtiness is kept per leaf: a leaf is reported as far as it
 * lies in the range. One that does not lie in it entirely is split into smaller ones, so that the
 * other part, which has not been asked about, stays dirty; without memory or a smaller size for that, and on
 * ARM, it is reported but stays dirty as a whole. `fn` may be NULL (clean only), `gather` too; what was cleaned
 * is added to it. -EOPNOTSUPP (ARM: -EINVAL): the table has no dirty state; -EINVAL: unknown flags;
 * -EINVAL, -EOVERFLOW: length 0, wraps.
 *
 * Takes time for the dirty leaves, not for the clean ones. What was marked before the call is
 * reported by it, what was marked during it by this or a later one.
 */
int pgtable_read_dirty(struct pgtable *pt, iova_t iova, uint64_t length, unsigned flags,
		       void (*fn)(void *data, iova_t iova, uint64_t length), void *data,
		       struct pgtable_gather *gather);

#endif
