/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_TREE_H
#define SWIOMMU_RUN_TREE_H

/* The program's view of the file system: names added in a private mount namespace. */

#include "run/session.h"

/* What went wrong, for the parent to say. */
struct tree_error {
	char what[240];
};

/*
 * Gives this process (the launched child, before exec) a mount namespace of its own, and a user
 * namespace when it has no right to mount; *unprivileged tells which. 0 or negative errno with err
 * filled in.
 */
int tree_enter_namespaces(bool *unprivileged, struct tree_error *err);
/*
 * Builds the tree of the session in it. 0 or negative errno with err filled in; it is also filled in,
 * as a warning, when all is there but what /sys tells of the devices.
 */
int tree_build(struct session *s, struct tree_error *err);
/* Back to the user id that the process had before tree_enter_namespaces(). */
int tree_leave_root(bool unprivileged, uid_t uid, gid_t gid, struct tree_error *err);

#endif
