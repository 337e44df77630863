// SPDX-License-Identifier: MIT
/*
 * Hot reset: all functions of a slot at once (spec vfio.md 4.5).
 *
 * The slot is the PCI address without the function, whatever groups the functions are in. Who wants to reset it must
 * have a right to every one of them: through the iommufd context that his device is bound to, or by
 * showing the files of their groups. Emulated devices are in no slot.
 */
#include "vfio/group_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEAD 12u      /* argsz, flags, count of both structs */
#define SLOT_CHARS 10 /* "dddd:bb:dd" */
#define FUNCTIONS_MAX 8u

/* The functions of the device's slot, itself among them. Returns how many. */
static unsigned int find_slot(struct vfio_device *dev, struct vfio_device *slot[FUNCTIONS_MAX])
{
	struct list *gpos, *pos;
	struct vfio_device *d;
	unsigned int n = 0;

	if (!dev->vgroup) {
		slot[0] = dev;
		return 1;
	}
	list_for_each (gpos, &dev->vgroup->sys->groups) {
		struct vfio_group *group = list_entry(gpos, struct vfio_group, entry);

		vfio_for_each_device (d, pos, group)
			if (!d->place.emulated && n < FUNCTIONS_MAX &&
			    !strncmp(d->place.bdf, dev->place.bdf, SLOT_CHARS))
				slot[n++] = d;
	}
	return n;
}

static long check_slot(const struct vfio_file *file, struct swiommu_caller *caller,
		       const char *what)
{
	if (!file->dev->place.emulated)
		return 0;
	return vfio_fail(caller, -ENODEV, "%s: %s is emulated: it has no slot or bus to reset",
			 what, file->dev->place.bdf);
}

/* What a device is to a context: its object ID there, VFIO_PCI_DEVID_OWNED or _NOT_OWNED. */
static uint32_t devid_in(struct vfio_device *dev, struct iommufd_ctx *ctx)
{
	uint32_t id = 0;

	pthread_mutex_lock(&dev->reset);
	if (dev->idev && iommufd_device_to_ictx(dev->idev) == ctx)
		id = iommufd_device_to_id(dev->idev);
	pthread_mutex_unlock(&dev->reset);
	if (id)
		return id;
	return iommufd_ctx_has_group(ctx, dev->place.group) ? VFIO_PCI_DEVID_OWNED
							    : (uint32_t)VFIO_PCI_DEVID_NOT_OWNED;
}

/* Segment, bus, device and function of "dddd:bb:dd.f". */
static void put_address(struct vfio_pci_dependent_device *out, const char *bdf)
{
	out->segment = (uint16_t)strtoul(bdf, NULL, 16);
	out->bus = (uint8_t)strtoul(bdf + 5, NULL, 16);
	out->devfn = (uint8_t)(strtoul(bdf + 8, NULL, 16) << 3 | strtoul(bdf + 11, NULL, 16));
}

long vfio_ioctl_hot_reset_info(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg)
{
	static const char what[] = "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO";
	struct vfio_pci_dependent_device entries[FUNCTIONS_MAX] = {0};
	struct vfio_device *slot[FUNCTIONS_MAX];
	uint32_t head[3], id; /* argsz, flags, count */
	long rc;

	rc = vfio_get_min(caller, head, arg, HEAD, what);
	if (!rc)
		rc = check_slot(file, caller, what);
	if (rc)
		return rc;
	head[1] = file->group
			  ? 0
			  : VFIO_PCI_HOT_RESET_FLAG_DEV_ID | VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED;
	head[2] = find_slot(file->dev, slot);
	for (uint32_t i = 0; i < head[2]; i++) {
		put_address(&entries[i], slot[i]->place.bdf);
		if (file->group) {
			entries[i].group_id = slot[i]->place.group->id;
			continue;
		}
		id = devid_in(slot[i], iommufd_device_to_ictx(file->dev->idev));
		entries[i].devid = id;
		if (id == (uint32_t)VFIO_PCI_DEVID_NOT_OWNED)
			head[1] &= ~VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED;
	}
	if (head[0] < HEAD + head[2] * sizeof(entries[0])) {
		rc = vfio_copy_out(caller, arg, head, HEAD, what);
		return rc ? rc
			  : vfio_fail(caller, -ENOSPC, "%s: argsz is %u, but %u devices need %zu",
				      what, head[0], head[2], HEAD + head[2] * sizeof(entries[0]));
	}
	rc = vfio_copy_out(caller, arg + HEAD, entries, head[2] * sizeof(entries[0]), what);
	return rc ? rc : vfio_copy_out(caller, arg, head, HEAD, what);
}

/* ---- the reset --------------------------------------------------------------------------- */

/* Whether the context that the file's device is bound to has a right to all of them. */
static long check_owned(struct vfio_file *file, struct swiommu_caller *caller,
			struct vfio_device *const *slot, unsigned int n)
{
	struct iommufd_ctx *ctx = iommufd_device_to_ictx(file->dev->idev);

	for (unsigned int i = 0; i < n; i++)
		if (devid_in(slot[i], ctx) == (uint32_t)VFIO_PCI_DEVID_NOT_OWNED)
			return vfio_fail(caller, -EINVAL,
					 "VFIO_DEVICE_PCI_HOT_RESET: %s of the same slot is not "
					 "owned by the iommufd of %s",
					 slot[i]->place.bdf, file->dev->place.bdf);
	return 0;
}

static long check_grouped(struct swiommu_caller *caller, struct vfio_device *const *slot,
			  unsigned int n, struct vfio_group_file *const *groups, unsigned int nr)
{
	for (unsigned int i = 0; i < n; i++) {
		bool found = false;

		for (unsigned int k = 0; k < nr; k++)
			found |= groups[k]->group == slot[i]->vgroup;
		if (!found)
			return vfio_fail(caller, -EINVAL,
					 "VFIO_DEVICE_PCI_HOT_RESET: %s of the same slot is in "
					 "group %u, which is not among the given ones",
					 slot[i]->place.bdf, slot[i]->place.group->id);
	}
	return 0;
}

static void reset_all(struct vfio_device *const *slot, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		vfio_device_reset(slot[i], true);
}

static long reset_by_groups(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg,
			    uint32_t count, struct vfio_device *const *slot, unsigned int n)
{
	static const char what[] = "VFIO_DEVICE_PCI_HOT_RESET";
	struct vfio_group_file *groups[FUNCTIONS_MAX];
	int32_t fds[FUNCTIONS_MAX];
	uint32_t nr = 0;
	long rc;

	if (!count || count > n)
		return vfio_fail(caller, -EINVAL,
				 "%s: %u group files for the %u devices of the slot", what, count,
				 n);
	rc = vfio_copy_in(caller, fds, arg + HEAD, count * sizeof(fds[0]), what);
	for (; !rc && nr < count; nr++) {
		const struct vfio_host_ops *host = file->group->group->sys->options.host;

		rc = host->get_group(caller, fds[nr], &groups[nr]);
		if (!rc)
			continue;
		rc = rc == -EBADFD ? -EINVAL : rc;
		vfio_fail(caller, rc, "%s: fd %d is %s", what, fds[nr],
			  rc == -EINVAL ? "not a group" : "not open");
		break;
	}
	if (!rc)
		rc = check_grouped(caller, slot, n, groups, nr);
	if (!rc)
		reset_all(slot, n);
	while (nr--)
		vfio_group_file_put(groups[nr]);
	return rc;
}

long vfio_ioctl_hot_reset(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg)
{
	static const char what[] = "VFIO_DEVICE_PCI_HOT_RESET";
	struct vfio_device *slot[FUNCTIONS_MAX];
	uint32_t head[3]; /* argsz, flags, count */
	unsigned int n;
	long rc;

	rc = vfio_get_min(caller, head, arg, HEAD, what);
	if (rc)
		return rc;
	if (head[1])
		return vfio_fail(caller, -EINVAL, "%s: flags are 0x%x, must be 0", what, head[1]);
	rc = check_slot(file, caller, what);
	if (rc)
		return rc;
	n = find_slot(file->dev, slot);
	if (file->group)
		return reset_by_groups(file, caller, arg, head[2], slot, n);
	if (head[2])
		return vfio_fail(caller, -EINVAL,
				 "%s: %u group files, but a device that is bound to an iommufd "
				 "needs none",
				 what, head[2]);
	rc = check_owned(file, caller, slot, n);
	if (!rc)
		reset_all(slot, n);
	return rc;
}
