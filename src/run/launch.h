/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_LAUNCH_H
#define SWIOMMU_RUN_LAUNCH_H

/* Starting the program: what the child does between fork and exec, and what it tells its parent. */

#include "run/session.h"

struct launched {
	pid_t pid;
	int channel; /* to the child until it has exec'ed */
	bool unprivileged;
	bool restartable; /* see filter.h */
};

/*
 * Forks and prepares the program; it waits, filter installed, for launch_go(). Fills in
 * session->listener and the nodes' fds. 0, or a negative errno with a message printed and nothing
 * left.
 */
int launch_prepare(struct session *s, char **argv, struct launched *out);
/* Lets it exec. If that fails, a message is printed and the child ends with status 126 or 127. */
void launch_go(struct session *s, struct launched *l, char **argv);

#endif
