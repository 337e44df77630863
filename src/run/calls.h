/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_CALLS_H
#define SWIOMMU_RUN_CALLS_H

/* The calls in progress, and which of them were left by their callers. See calls.c. */

#include "base/list.h"
#include "run/task.h"

struct open_file;

struct calls {
	pthread_mutex_t lock;
	pthread_cond_t ended; /* some call */
	struct list active;   /* struct call, oldest first */
	uint64_t next_number;
};

/* On the stack of the worker. */
struct call {
	struct list entry;
	uint64_t number;
	struct task *task;
	const struct open_file *file; /* for comparison only; NULL: not known yet; lock */
	bool device;		      /* it is a device, a group or a container */
	bool left;		      /* its caller was killed; lock */
};

void calls_init(struct calls *calls);
void calls_fini(struct calls *calls);
/* The call of `t` begins: before a descriptor of the caller's is copied. To be paired with call_end(). */
void call_begin(struct calls *calls, struct call *call, struct task *t);
/*
 * It is on `file`, and may be served; before that, waits for the calls that its caller could take for
 * ended. False: the caller has been killed, do nothing.
 */
bool call_proceed(struct calls *calls, struct call *call, const struct open_file *file);
/* The open file must have been put. */
void call_end(struct calls *calls, struct call *call);

#endif
