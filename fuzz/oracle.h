/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_FUZZ_ORACLE_H
#define SWIOMMU_FUZZ_ORACLE_H

/*
 * What an IOAS without page tables has to do, in the most simple-minded way: sorted arrays, searched from the
 * beginning. Written from the rules alone, to be compared with the engine call by call.
 *
 * Each function does one call on the model and returns its result: 0 or the negative errno.
 */

#include "fuzz.h"

#define ORACLE_AREAS 40u
#define ORACLE_RANGES 16u

struct oracle_area {
	uint64_t iova, last;
	uint64_t addr; /* of its first byte in the source: a pointer, or a file position */
	int source;    /* 0: memory; else 1 + number of a memfd */
	bool intent;   /* the original mapping had W */
	unsigned int prot;
};

struct oracle_range {
	uint64_t first, last;
};

struct oracle_ioas {
	bool exists;
	uint32_t id;
	bool huge_off;
	unsigned int accesses, page_accesses;	/* attached ones; the second kind wants pages */
	struct oracle_area areas[ORACLE_AREAS]; /* ascending */
	unsigned int nr_areas;
	struct oracle_range reserved[ORACLE_RANGES], allowed[ORACLE_RANGES];
	unsigned int nr_reserved, nr_allowed;
};

uint64_t oracle_align(const struct oracle_ioas *o);
/* The area with that IOVA, or NULL. */
const struct oracle_area *oracle_at(const struct oracle_ioas *o, uint64_t iova);

/* From the length check on; *iova as in the ioctls. `area` has source, addr, intent and prot. */
int oracle_map(struct oracle_ioas *o, const struct oracle_area *area, uint64_t length, bool fixed,
	       uint64_t *iova);
/* From finding the source on. */
int oracle_copy(struct oracle_ioas *to, const struct oracle_ioas *from, uint64_t src,
		uint64_t length, unsigned int prot, bool fixed, uint64_t *iova);
/* How many areas that makes; 0: not all of it is mapped. */
unsigned int oracle_pieces(const struct oracle_ioas *from, uint64_t src, uint64_t length);
/* The scan for [first, last]; *removed also counts when it fails. */
int oracle_unmap(struct oracle_ioas *o, uint64_t first, uint64_t last, uint64_t *removed);
int oracle_cut(struct oracle_ioas *o, uint64_t at);
int oracle_reserve(struct oracle_ioas *o, uint64_t first, uint64_t last);
int oracle_allow(struct oracle_ioas *o, const struct oracle_range *list, unsigned int n);
/* Gaps between reserved ranges; at most ORACLE_RANGES + 1. */
unsigned int oracle_usable(const struct oracle_ioas *o, struct oracle_range *out);
/* Whether every area would do with that alignment. */
bool oracle_fits(const struct oracle_ioas *o, uint64_t align);

#endif
