/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VFIO_GROUP_INTERNAL_H
#define SWIOMMU_VFIO_GROUP_INTERNAL_H

/*
 * Groups and containers, shared by the files of this folder only.
 *
 * Locks, outer before inner: group->lock, container->lock, then those of the devices (internal.h)
 * and of the engine. They are held while devices are bound, attached, started and stopped, which may
 * wait for DMA and for client memory to be pinned; but never while a caller's struct is copied.
 */

#include "base/list.h"
#include "vfio/group.h"
#include "vfio/internal.h"

struct type1;

struct vfio_system {
	struct vfio_system_options options;
	struct list groups; /* struct vfio_group.entry; constant once files are open */
	bool noiommu;	    /* some device has no IOMMU; likewise */
};

struct vfio_group {
	struct list entry;
	struct vfio_system *sys;
	struct iommu_group *group; /* borrowed */
	struct list devices;	   /* struct vfio_device.in_group; constant once files are open */
	bool noiommu;		   /* of a device without an IOMMU; likewise */
	pthread_mutex_t lock;
	struct vfio_group_file *_Atomic opened; /* changed with lock */
	struct list in_container;		/* in container->groups; container's lock */
};

struct vfio_group_file {
	struct vfio_group *group;
	_Atomic unsigned int refs; /* the open file, device files, calls */
	/* What the group was put into, at most one of them; counted; group's lock. */
	struct vfio_container *container;
	struct iommufd_ctx *ctx;
	unsigned int nr_device_files; /* group's lock */
};

struct vfio_container {
	struct vfio_system *sys;
	_Atomic unsigned int refs; /* the open file, groups, calls */
	pthread_mutex_t lock;
	struct list groups; /* struct vfio_group.in_container */
	/* While there are groups, unless noiommu: their DMA is owned by it, and devices will be bound to it. */
	struct iommufd_ctx *ctx;
	struct type1 *backend; /* counted; NULL: no type has been set, or it is 8 */
	/* While there are groups: whether they are of devices without an IOMMU; then it has no context. */
	bool noiommu;
	bool noiommu_set; /* the type is 8 (NOIOMMU) */
};

#define vfio_for_each_device(dev, pos, vgroup)  \
	list_for_each (pos, &(vgroup)->devices) \
		if (((dev) = list_entry(pos, struct vfio_device, in_group)))

/* container.c */
/* VFIO_GROUP_SET_CONTAINER, and its end. The group's lock is held, no device of it is open. */
long vfio_container_add_group(struct vfio_container *c, struct vfio_group *group,
			      struct swiommu_caller *caller);
void vfio_container_remove_group(struct vfio_container *c, struct vfio_group *group);
/* Whether VFIO_SET_IOMMU has succeeded. */
bool vfio_container_has_type(struct vfio_container *c);

/* group.c */
/* The group's DMA gets an owner, or none. -EPERM: it has one. */
int vfio_group_claim(struct vfio_group *group, const struct iommufd_ctx *owner);
void vfio_group_release(struct vfio_group *group);

/* group_device.c */
/* A device file of the group is being closed. */
void vfio_group_close_device(struct vfio_file *file);

#endif
