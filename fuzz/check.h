/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_FUZZ_CHECK_H
#define SWIOMMU_FUZZ_CHECK_H

/*
 * What must hold of a set of contexts between two calls, whatever has been called (spec core.md 8.5),
 * looked at from inside. Aborts when something does not.
 */

#include "fuzz.h"

struct ioas;

/* A pin by an access that the fuzzer knows of. */
struct known_pin {
	const struct ioas *ioas;
	uint64_t iova, length;
};

struct check {
	struct iommufd_ctx **ctx;
	unsigned int nr_ctx;
	struct mem_accounts *accounts; /* of all contexts */
	const struct known_pin *pins;
	unsigned int nr_pins;
	/* There may be pins that are not in the list: what they would change is not compared. */
	bool unknown_pins;
};

/* Areas, ranges, alignment, pins, charges and references. */
void check_contexts(const struct check *check);
/* The same translations from a reader that joins now as from the tree. For each IOAS. */
void check_translations(const struct check *check);
/* All is given back. */
void check_accounts_empty(struct mem_accounts *accounts);

#endif
