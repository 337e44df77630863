/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_GROUPS_H
#define SWIOMMU_RUN_GROUPS_H

/* VFIO groups and containers of the program: what they need beyond ordinary open files. */

#include <linux/seccomp.h>

#include "run/files.h"
#include "run/task.h"
#include "vfio/group.h"

extern const struct vfio_host_ops groups_host;
/* Whether a file is the node of a device of the session (`data`): mapped, it shows registers. */
bool groups_is_device(void *data, dev_t dev, ino_t ino);

/*
 * open and openat, if of a group's node or of a device without an IOMMU: the descriptor's number, -EBUSY or -EPERM; else
 * TESTABI_CONTINUE. A group must be known to be open from its open on, not from its first use.
 */
long groups_open(struct task *t, const struct seccomp_data *data);
/* An ioctl on a group. */
long groups_ioctl(struct task *t, struct open_file *file, unsigned int cmd, uint64_t arg);

#endif
