/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_IDENTITY_H
#define SWIOMMU_RUN_IDENTITY_H

/* The stat family: our nodes are shown as the character devices that they stand for. See identity.c. */

#include <linux/seccomp.h>

#include "run/task.h"

/* Whether a system call is of the stat family. */
bool identity_is_call(int nr);
/*
 * Answers one such call on a node of the session: 0, with what stat says in the program's memory,
 * or a negative errno; 1: it is on something else (or cannot be told here), so the kernel is to
 * perform it.
 */
long identity_serve(struct session *s, struct task *t, const struct seccomp_data *data);

#endif
