/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_TESTABI_H
#define SWIOMMU_RUN_TESTABI_H

/*
 * What `swiommu run --test-abi` shows to the program besides IOMMU_TEST_CMD: the files of the kernel's
 * fault injection (spec test-abi.md 6), and what a process has pinned in its status file (7.4).
 */

#include <linux/seccomp.h>

#include "run/task.h"

struct testabi;

/* What a handler returns for "let the kernel do it". */
#define TESTABI_CONTINUE (-100000L)

int testabi_create(struct session *s, struct testabi **out); /* -ENOMEM */
/* Tells the log how many failures were injected. NULL is allowed. */
void testabi_destroy(struct testabi *t);

/* open, openat and openat2. */
long testabi_open(struct testabi *t, struct task *task, const struct seccomp_data *data);
/*
 * pwrite to a descriptor of the program, of which `fd` is a duplicate: if it is a fail-nth file. Else
 * TESTABI_CONTINUE.
 */
long testabi_pwrite(struct testabi *t, struct task *task, int fd, const struct seccomp_data *data);

/* Around the engine's work for the thread `tid`: failures are injected in between. NULL: does nothing. */
void testabi_begin(struct testabi *t, pid_t tid);
void testabi_end(struct testabi *t, pid_t tid);

#endif
