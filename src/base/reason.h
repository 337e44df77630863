/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_BASE_REASON_H
#define SWIOMMU_BASE_REASON_H

/*
 * Why a call failed, in words, next to the errno that says that it failed.
 *
 * A reason travels down the call as a pointer; NULL means that nobody wants to know. The innermost
 * function that knows the object, the field and the limit writes it; callers pass it on unchanged.
 */

#include "base/base.h"

struct swi_reason {
	char text[240]; /* one line without a newline; "" = none */
};

/* Records the formatted reason (if `why` is not NULL) and returns `err`, a negative errno. */
int swi_fail(struct swi_reason *why, int err, const char *fmt, ...) SWI_PRINTF(3, 4);

/*
 * range_last() for what a client has given as `what` and length, which is not 0: 0, or -EOVERFLOW with a reason.
 */
int swi_range_last(const char *what, uint64_t first, uint64_t length, uint64_t *last,
		   struct swi_reason *why);

#endif
