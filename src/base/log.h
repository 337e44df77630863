/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_BASE_LOG_H
#define SWIOMMU_BASE_LOG_H

/*
 * Where messages go. The library prints nothing by itself: whoever makes a context or a session
 * passes a sink; without one, messages are dropped.
 */

#include "base/base.h"

enum swi_log_level { SWI_LOG_ERROR, SWI_LOG_WARN, SWI_LOG_INFO, SWI_LOG_DEBUG };

struct swi_log {
	/* Called with one line without a newline, from any thread, possibly concurrently. */
	void (*sink)(void *data, enum swi_log_level level, const char *line);
	void *data;
};

/* `log` may be NULL. */
void swi_log(const struct swi_log *log, enum swi_log_level level, const char *fmt, ...)
	SWI_PRINTF(3, 4);

#endif
