/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_TASK_H
#define SWIOMMU_RUN_TASK_H

/*
 * A thread of the program while it waits for our answer, as a swiommu_caller.
 *
 * Its id can be trusted only while the notification is valid (the thread may be killed at any
 * moment, and its id be used again); everything that reaches into it checks that afterwards, and
 * before writing.
 */

#include "run/session.h"

/*
 * What a worker remembers of threads that it has served: handles by thread id. A handle stays with
 * its thread and is dead for good once that has ended, so one that still answers is the right one
 * however old it is.
 */
#define TASK_HANDLES 2

struct task_cache {
	struct {
		pid_t tid; /* 0: free */
		int pidfd;
	} handles[TASK_HANDLES];
	unsigned int next; /* to be replaced */
};

/* A cache of all zeros is empty. */
void task_cache_clear(struct task_cache *cache);

/* How much of the program's memory one read of an argument brings along. */
#define TASK_AHEAD 192

struct task {
	struct swiommu_caller caller; /* first */
	struct session *session;
	struct task_cache *cache;
	pid_t tid;
	uint64_t notif_id;
	struct ring_process *ring; /* not NULL: it does not wait for an answer, see rings.c */
	uint64_t ahead_at;	   /* address of ahead[0] in the program */
	size_t ahead_len;
	uint8_t ahead[TASK_AHEAD];
};

void task_init(struct task *t, struct session *s, struct task_cache *cache, pid_t tid,
	       uint64_t notif_id);
/* Whether the thread still waits for this answer. */
bool task_valid(struct task *t);
/*
 * A duplicate of the thread's descriptor, on the same open file; close it soon: while it is open,
 * the open file lives. -EBADF (also for O_PATH), -ESRCH.
 */
int task_dup_fd(struct task *t, int fd);
/*
 * Gives the thread one more descriptor of `fd` (ours), at a number from `from` on where reads and writes are trapped.
 * -EMFILE: none of those is free.
 */
int task_add_trapped_fd(struct task *t, int fd, int from, bool cloexec, int *out_fd);
/* As in struct swiommu_caller_ops. */
bool task_capable(struct swiommu_caller *c, int cap);
int task_get_account(struct swiommu_caller *c, pid_t *process, uid_t *user);

#endif
