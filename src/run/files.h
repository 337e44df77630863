/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_FILES_H
#define SWIOMMU_RUN_FILES_H

/*
 * The program's open files on our nodes: what each one is, and when it is gone. See files.c for how
 * an open file is recognised through dup, fork, exec and SCM_RIGHTS.
 */

#include "run/session.h"

struct open_file;
struct task;

/* Starts a thread. -ENOMEM, -EMFILE and others. */
int files_create(struct session *s, struct files **out);
/* Every open file is released first; no call may be in progress. */
void files_destroy(struct files *f);

/*
 * The open file behind a duplicate of the program's descriptor, made known if this is its first
 * use; with a reference. `t` is the thread that uses it. -ENODEV: not one of our nodes; -ENOMEM;
 * with a reason in its caller, -EBUSY: a group that is open already, -EPERM: a device without an IOMMU that the thread may
 * not use.
 */
int files_get(struct files *f, int fd, struct task *t, struct open_file **out);
/*
 * Opens a node for the program: *out_fd is ours, to be given to it and then closed. `vfio` is what it is an
 * open file of, taken over on success; NULL: as if the program had opened it. Errors as files_get().
 */
int files_open(struct files *f, struct node *node, struct vfio_file *vfio, int flags,
	       struct task *t, int *out_fd);
/*
 * The open file of that name, which open_file_name() told somebody who had a descriptor on it. -ENODEV: there is none, or
 * it has been closed.
 */
int files_get_named(struct files *f, uint64_t token, uint64_t secret, pid_t user,
		    struct open_file **out);
void open_file_name(const struct open_file *file, uint64_t *token, uint64_t *secret);
void open_file_put(struct open_file *file);

/* Whether it was opened O_RDONLY; ioctls do not care, mappings do. */
bool open_file_read_only(const struct open_file *file);
const struct node *open_file_node(const struct open_file *file);
/* The context of an open /dev/iommu, with a reference; -EBADFD for other nodes. */
int open_file_ctx(struct open_file *file, struct iommufd_ctx **out);
struct vfio_file *open_file_vfio(struct open_file *file); /* NULL for other nodes */
struct vfio_container *open_file_container(struct open_file *file);
struct vfio_group_file *open_file_group(struct open_file *file);

/*
 * Completes the release of the devices that the program has closed so far, so that they hinder
 * nobody. What else it has closed is released a moment later by a thread of `f`; with the test ABI,
 * which can ask what is pinned, it is all released here.
 */
void files_settle(struct files *f);

/* Open files that went because the process that used them last had ended, not because it closed
 * them. */
struct files_orphans {
	size_t contexts, devices; /* of the devices, those that were bound */
};
void files_get_orphans(struct files *f, struct files_orphans *out);

#endif
