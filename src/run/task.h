/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_TASK_H
#define SWIOMMU_RUN_TASK_H

/*
 * A thread of the program while it waits for our answer, as a swiommu_caller.
 *
 * Its id can be trusted only while the notification is valid (the thread may be killed at any moment, and its
 * id be used again); everything that reaches into it checks that afterwards, and before writing.
 */

#include "run/session.h"

struct task {
	struct swiommu_caller caller; /* first */
	struct session *session;
	pid_t tid;
	int pidfd; /* of the thread, or of its process on kernels before 6.9; -1 until needed */
	uint64_t notif_id;
};

void task_init(struct task *t, struct session *s, pid_t tid, uint64_t notif_id);
void task_fini(struct task *t);
/* Whether the thread still waits for this answer. */
bool task_valid(struct task *t);
/*
 * A duplicate of the thread's descriptor, on the same open file; close it soon: while it is open, the open file lives.
 * -EBADF (also for O_PATH), -ESRCH.
 */
int task_dup_fd(struct task *t, int fd);

#endif
