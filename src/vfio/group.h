/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VFIO_GROUP_H
#define SWIOMMU_VFIO_GROUP_H

/*
 * The older way to a VFIO device: group files (/dev/vfio/G) and container files (/dev/vfio/vfio),
 * spec vfio.md 3.
 *
 *   vfio_system      all devices of a session, and what they have in common
 *   vfio_group       an IOMMU group and its devices, as long as the session lasts
 *   vfio_group_file  the one open of its node; the device files that it has given keep it open
 *   vfio_container   one open of /dev/vfio/vfio; the groups that were put into it keep it
 *
 * A device file that a group has given is a struct vfio_file (device.h) as if bound.
 */

#include "vfio/device.h"

struct vfio_system;
struct vfio_group;
struct vfio_group_file;
struct vfio_container;

/* What the host of the files is asked about the descriptors of a caller. */
struct vfio_host_ops {
	/* What is behind the caller's fd, with a reference. -EBADF not open, -EBADFD something else. */
	int (*get_container)(struct swiommu_caller *c, int fd, struct vfio_container **out);
	int (*get_group)(struct swiommu_caller *c, int fd, struct vfio_group_file **out);
	/*
	 * What of a device the caller has mapped at [uptr, uptr+length): one stretch of its file, from position *pos on.
	 * -ENOENT: something else. NULL: nobody can map devices.
	 */
	int (*find_mapping)(struct swiommu_caller *c, uint64_t uptr, uint64_t length,
			    struct vfio_device **dev, uint64_t *pos);
};

struct vfio_system_options {
	const struct vfio_host_ops *host; /* borrowed */
	/* What the contexts of containers are made with; see swiommu_open_with(). */
	struct swiommu_options contexts;
	unsigned int max_mappings; /* of a type 1 container; 0: 65535, as the kernel's default */
};

/* -ENOMEM. */
int vfio_system_create(const struct vfio_system_options *options, struct vfio_system **out);
/* All files must have been closed; before the devices are destroyed. NULL is allowed. */
void vfio_system_destroy(struct vfio_system *sys);
/* Adds a device, while none is open; its group is the one of its place. -ENOMEM. */
int vfio_system_add(struct vfio_system *sys, struct vfio_device *dev);
/* The VFIO side of an IOMMU group; NULL when no device of it was added. */
struct vfio_group *vfio_system_group(struct vfio_system *sys, const struct iommu_group *group);

/* ---- group files ------------------------------------------------------------------------- */

/*
 * An open of the group's node, by who vfio_device_may_open() any of its devices. -EBUSY, with a reason: it is open already, or a device of it is
 * bound through its cdev; -ENOMEM.
 */
int vfio_group_file_open(struct vfio_group *group, struct vfio_group_file **out,
			 struct swi_reason *why);
struct vfio_group_file *vfio_group_file_get(struct vfio_group_file *gf);
/*
 * Drops a reference: the open file's own, or one of vfio_host_ops.get_group. With the last one, and
 * the last device file, the group leaves its container. May wait for DMA.
 */
void vfio_group_file_put(struct vfio_group_file *gf);
/* As vfio_file_ioctl(); but VFIO_GROUP_GET_DEVICE_FD is for vfio_group_get_device(). */
long vfio_group_file_ioctl(struct vfio_group_file *gf, struct swiommu_caller *caller,
			   unsigned int cmd, uint64_t arg);
/*
 * VFIO_GROUP_GET_DEVICE_FD: a new device file, for which the host makes the descriptor; to be
 * closed with vfio_file_close(). A negative errno with a reason.
 */
int vfio_group_get_device(struct vfio_group_file *gf, struct swiommu_caller *caller, uint64_t arg,
			  struct vfio_file **out);

/* ---- containers -------------------------------------------------------------------------- */

/* An open of /dev/vfio/vfio. -ENOMEM. */
int vfio_container_open(struct vfio_system *sys, struct vfio_container **out);
struct vfio_container *vfio_container_get(struct vfio_container *c);
/* Drops a reference: the open file's own, or one of vfio_host_ops.get_container. */
void vfio_container_put(struct vfio_container *c);
/* As vfio_file_ioctl(). */
long vfio_container_ioctl(struct vfio_container *c, struct swiommu_caller *caller, unsigned int cmd,
			  uint64_t arg);

#endif
