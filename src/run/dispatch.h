/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_DISPATCH_H
#define SWIOMMU_RUN_DISPATCH_H

/* Answering the program's trapped system calls. */

#include <linux/seccomp.h>

#include "run/session.h"
#include "run/task.h"

/*
 * Serves one notification: fills in the response. Any worker thread, with a cache of its own.
 */
void dispatch(struct session *s, struct task_cache *cache, const struct seccomp_notif *req,
	      struct seccomp_notif_resp *resp);

struct open_file;
/* One system call on an open file of ours: its result, or TESTABI_CONTINUE (testabi.h). */
long dispatch_file(struct session *s, struct task *t, struct open_file *file,
		   const struct seccomp_data *data);

/* Threads that receive and serve notifications; more are started while all are busy. -EAGAIN,
 * -ENOMEM. */
int workers_start(struct session *s, struct workers **out);
/* No notification can come any more. Waits for the threads. */
void workers_stop(struct workers *w);

#endif
