/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CONFORMANCE_HARNESS_H
#define TESTS_CONFORMANCE_HARNESS_H

#include "suite.h"

struct tally {
	unsigned int passed, failed, skipped;
};

/* Runs one case in a child and prints its TAP line. `required`: features that must not be missing. */
void harness_run(size_t nr, const struct row *row, const char *required, struct tally *tally);
/* Comparisons made so far. */
unsigned long harness_checks(void);
/* Runs fn in a child of a case; returns the exit status that the child should have. */
int harness_guard(void (*fn)(struct ctx *c, void *data), struct ctx *c, void *data);

#endif
