// SPDX-License-Identifier: MIT
/*
 * Groups: the table of them, group files (/dev/vfio/G, spec vfio.md 3.1), and the devices that are
 * opened through them (3.2).
 *
 * One file per group at most is open in the whole system. While it is, no device of the group can be
 * bound through its cdev. The file is put into a container (container.c) or an iommufd context; then
 * it gives device files. Those are ordinary struct vfio_file that need no BIND; each holds the group file,
 * so what it was opened in stays until the last of them is closed.
 *
 * A device that is opened through its group is started by its first file and stopped with its last.
 * With an iommufd context it is bound, and attached to the compat IOAS, in the same two moments;
 * in a container that is the container's matter.
 */
#include "vfio/group_internal.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

/* ---- the table --------------------------------------------------------------------------- */

int vfio_system_create(const struct vfio_system_options *options, struct vfio_system **out)
{
	struct vfio_system *sys = swi_new(struct vfio_system);

	if (!sys)
		return -ENOMEM;
	sys->options = *options;
	list_init(&sys->groups);
	*out = sys;
	return 0;
}

void vfio_system_destroy(struct vfio_system *sys)
{
	struct list *pos, *tmp;

	if (!sys)
		return;
	list_for_each_safe (pos, tmp, &sys->groups) {
		struct vfio_group *group = list_entry(pos, struct vfio_group, entry);

		pthread_mutex_destroy(&group->lock);
		swi_free(group);
	}
	swi_free(sys);
}

struct vfio_group *vfio_system_group(struct vfio_system *sys, const struct iommu_group *group)
{
	struct list *pos;

	list_for_each (pos, &sys->groups) {
		struct vfio_group *vgroup = list_entry(pos, struct vfio_group, entry);

		if (vgroup->group == group)
			return vgroup;
	}
	return NULL;
}

int vfio_system_add(struct vfio_system *sys, struct vfio_device *dev)
{
	struct vfio_group *group = vfio_system_group(sys, dev->place.group);

	if (!group) {
		group = swi_new(struct vfio_group);
		if (!group)
			return -ENOMEM;
		if (pthread_mutex_init(&group->lock, NULL)) {
			swi_free(group);
			return -ENOMEM;
		}
		group->sys = sys;
		group->group = dev->place.group;
		list_init(&group->devices);
		list_add_tail(&sys->groups, &group->entry);
	}
	dev->vgroup = group;
	group->noiommu |= dev->place.noiommu;
	sys->noiommu |= dev->place.noiommu;
	list_add_tail(&group->devices, &dev->in_group);
	return 0;
}

/* ---- ownership of DMA -------------------------------------------------------------------- */

/* Whether there is any DMA to own: emulated devices have none, and that of devices without an IOMMU cannot be. */
static bool has_dma(struct vfio_group *group)
{
	struct vfio_device *dev;
	struct list *pos;

	vfio_for_each_device (dev, pos, group)
		if (!dev->place.emulated && !dev->place.noiommu)
			return true;
	return false;
}

int vfio_group_claim(struct vfio_group *group, const struct iommufd_ctx *owner)
{
	return has_dma(group) ? iommu_group_claim_dma_owner(group->group, owner) : 0;
}

void vfio_group_release(struct vfio_group *group)
{
	if (has_dma(group))
		iommu_group_release_dma_owner(group->group);
}

/* ---- files ------------------------------------------------------------------------------- */

/* Keeps cdevs out, or lets them in again. */
static int hold_devices_locked(struct vfio_group *group, struct swi_reason *why)
{
	struct vfio_device *dev, *undo;
	struct list *pos, *done;

	vfio_for_each_device (dev, pos, group) {
		if (!vfio_device_group_open(dev))
			continue;
		vfio_for_each_device (undo, done, group) {
			if (undo == dev)
				break;
			vfio_device_group_close(undo);
		}
		return swi_fail(why, -EBUSY,
				"%s of group %u is bound to an iommufd through its cdev",
				dev->place.bdf, group->group->id);
	}
	return 0;
}

static void let_go_devices_locked(struct vfio_group *group)
{
	struct vfio_device *dev;
	struct list *pos;

	vfio_for_each_device (dev, pos, group)
		vfio_device_group_close(dev);
}

static int fail_opened(struct vfio_group *group, struct swi_reason *why)
{
	return swi_fail(why, -EBUSY, "group %u is open already: one open file in the whole system",
			group->group->id);
}

int vfio_group_file_open(struct vfio_group *group, struct vfio_group_file **out,
			 struct swi_reason *why)
{
	struct vfio_group_file *gf;
	int rc;

	/* While it is open its lock may be held for long, and who opens does not wait. */
	if (atomic_load(&group->opened))
		return fail_opened(group, why);
	gf = swi_new(struct vfio_group_file);
	if (!gf)
		return -ENOMEM;
	gf->group = group;
	gf->refs = 1;
	pthread_mutex_lock(&group->lock);
	if (atomic_load(&group->opened))
		rc = fail_opened(group, why);
	else
		rc = hold_devices_locked(group, why);
	if (!rc)
		atomic_store(&group->opened, gf);
	pthread_mutex_unlock(&group->lock);
	if (rc)
		swi_free(gf);
	else
		*out = gf;
	return rc;
}

struct vfio_group_file *vfio_group_file_get(struct vfio_group_file *gf)
{
	gf->refs++;
	return gf;
}

/* Takes the group out of what it was put into. */
static void unset_locked(struct vfio_group_file *gf)
{
	if (gf->container) {
		vfio_container_remove_group(gf->container, gf->group);
		vfio_container_put(gf->container);
		gf->container = NULL;
	}
	iommufd_ctx_put(gf->ctx);
	gf->ctx = NULL;
}

void vfio_group_file_put(struct vfio_group_file *gf)
{
	struct vfio_group *group;

	if (!gf || --gf->refs)
		return;
	group = gf->group;
	pthread_mutex_lock(&group->lock);
	unset_locked(gf);
	let_go_devices_locked(group);
	atomic_store(&group->opened, NULL);
	pthread_mutex_unlock(&group->lock);
	swi_free(gf);
}

/* ---- GET_STATUS, SET_CONTAINER, UNSET_CONTAINER ------------------------------------------ */

static long get_status(struct vfio_group_file *gf, struct swiommu_caller *caller, uint64_t arg)
{
	static const char what[] = "VFIO_GROUP_GET_STATUS";
	struct vfio_group_status status;
	long rc = vfio_copy_in(caller, &status, arg, sizeof(status), what);

	if (rc)
		return rc;
	if (status.argsz < sizeof(status))
		return vfio_fail(caller, -EINVAL, "%s: argsz is %u, at least %zu needed", what,
				 status.argsz, sizeof(status));
	status.flags = 0;
	pthread_mutex_lock(&gf->group->lock);
	if (gf->container || gf->ctx)
		status.flags = VFIO_GROUP_FLAGS_CONTAINER_SET | VFIO_GROUP_FLAGS_VIABLE;
	else if (!iommu_group_dma_owner_claimed(gf->group->group))
		status.flags = VFIO_GROUP_FLAGS_VIABLE;
	pthread_mutex_unlock(&gf->group->lock);
	return vfio_copy_out(caller, arg, &status, sizeof(status), what);
}

/* What the caller's fd is: a container or a context, with a reference. */
static long find_target(struct vfio_group_file *gf, struct swiommu_caller *caller, int fd,
			struct vfio_container **container, struct iommufd_ctx **ctx)
{
	const struct vfio_host_ops *host = gf->group->sys->options.host;
	long rc = host->get_container(caller, fd, container);

	if (rc == -EBADFD)
		rc = caller->ops->get_ctx(caller, fd, ctx);
	return rc;
}

/* What a context becomes by being a container, for good. */
static long set_ctx(struct vfio_group *group, struct swiommu_caller *caller,
		    struct iommufd_ctx *ctx)
{
	static const char what[] = "VFIO_GROUP_SET_CONTAINER";
	long rc;

	if (group->noiommu) {
		rc = iommufd_vfio_compat_set_no_iommu(ctx);
		return rc ? vfio_fail(caller, rc,
				      "%s: the iommufd has a compat IOAS, which a device without "
				      "an IOMMU cannot use",
				      what)
			  : 0;
	}
	rc = iommufd_vfio_compat_ioas_create(ctx);
	return rc ? vfio_fail(caller, rc, "%s: the iommufd cannot have a compat IOAS: %s", what,
			      rc == -EINVAL ? "it is in no-iommu mode" : "out of memory")
		  : 0;
}

static long set_locked(struct vfio_group_file *gf, struct swiommu_caller *caller, int fd,
		       struct vfio_container *container, struct iommufd_ctx *ctx, long found)
{
	static const char what[] = "VFIO_GROUP_SET_CONTAINER";
	long rc;

	if (gf->container || gf->ctx)
		return vfio_fail(caller, -EINVAL, "%s: group %u is in %s already", what,
				 gf->group->group->id, gf->ctx ? "an iommufd" : "a container");
	if (found)
		return vfio_fail(caller, found, "%s: fd %d is neither a container nor an iommufd",
				 what, fd);
	/* Devices that are still open in an iommufd that was set before. */
	if (container && gf->nr_device_files)
		return vfio_fail(caller, -EPERM,
				 "%s: %u device file(s) of group %u are open in an iommufd", what,
				 gf->nr_device_files, gf->group->group->id);
	if (container) {
		rc = vfio_container_add_group(container, gf->group, caller);
		if (!rc)
			gf->container = vfio_container_get(container);
		return rc;
	}
	rc = set_ctx(gf->group, caller, ctx);
	if (rc)
		return rc;
	iommufd_ctx_get(ctx);
	gf->ctx = ctx;
	return 0;
}

static long set_container(struct vfio_group_file *gf, struct swiommu_caller *caller, uint64_t arg)
{
	struct vfio_container *container = NULL;
	struct iommufd_ctx *ctx = NULL;
	int32_t fd;
	long rc, found;

	rc = vfio_copy_in(caller, &fd, arg, sizeof(fd), "VFIO_GROUP_SET_CONTAINER");
	if (rc)
		return rc;
	found = find_target(gf, caller, fd, &container, &ctx);
	if (found && found != -EBADFD)
		return vfio_fail(caller, found, "VFIO_GROUP_SET_CONTAINER: fd %d is not open", fd);
	pthread_mutex_lock(&gf->group->lock);
	rc = set_locked(gf, caller, fd, container, ctx, found);
	pthread_mutex_unlock(&gf->group->lock);
	vfio_container_put(container);
	iommufd_ctx_put(ctx);
	return rc;
}

static long unset_container(struct vfio_group_file *gf, struct swiommu_caller *caller)
{
	static const char what[] = "VFIO_GROUP_UNSET_CONTAINER";
	long rc = 0;

	pthread_mutex_lock(&gf->group->lock);
	if (!gf->container && !gf->ctx)
		rc = vfio_fail(caller, -EINVAL, "%s: group %u is in nothing", what,
			       gf->group->group->id);
	else if (gf->container && gf->nr_device_files)
		rc = vfio_fail(caller, -EBUSY, "%s: %u device file(s) of group %u are open", what,
			       gf->nr_device_files, gf->group->group->id);
	else
		unset_locked(gf);
	pthread_mutex_unlock(&gf->group->lock);
	return rc;
}

long vfio_group_file_ioctl(struct vfio_group_file *gf, struct swiommu_caller *caller,
			   unsigned int cmd, uint64_t arg)
{
	caller->reason[0] = '\0';
	switch (cmd) {
	case VFIO_GROUP_GET_STATUS:
		return get_status(gf, caller, arg);
	case VFIO_GROUP_SET_CONTAINER:
		return set_container(gf, caller, arg);
	case VFIO_GROUP_UNSET_CONTAINER:
		return unset_container(gf, caller);
	default:
		return vfio_fail(caller, -ENOTTY, "ioctl 0x%x is not one of a VFIO group", cmd);
	}
}
