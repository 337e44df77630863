// SPDX-License-Identifier: MIT
/* Why a call has failed, in words: the last reason wins, and one that is too long is cut. */
#include "base/reason.h"

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
