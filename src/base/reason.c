// SPDX-License-Identifier: MIT
/* Why a call has failed, in words: the last reason wins, and one that is too long is cut. */
#include "base/reason.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int swi_fail(struct swi_reason *why, int err, const char *fmt, ...)
{
	va_list ap;

	if (why) {
		va_start(ap, fmt);
		vsnprintf(why->text, sizeof(why->text), fmt, ap);
		va_end(ap);
	}
	return err;
}

int swi_range_last(const char *what, uint64_t first, uint64_t length, uint64_t *last,
		   struct swi_reason *why)
{
	if (range_last(first, length, last))
		return 0;
	return swi_fail(why, -EOVERFLOW, "%s %#llx + length %#llx passes 2^64", what, (ull)first,
			(ull)length);
}
