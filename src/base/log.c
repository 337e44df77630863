// SPDX-License-Identifier: MIT
/* Lines for the host's log. They are made here and go to its sink; the library itself prints nothing. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void swi_log(const struct swi_log *log, enum swi_log_level level, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (!log || !log->sink)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	log->sink(log->data, level, line);
}
