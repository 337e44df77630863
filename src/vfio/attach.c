// SPDX-License-Identifier: MIT
/*
 * ATTACH_IOMMUFD_PT and DETACH_IOMMUFD_PT, of a device and of single PASIDs (spec vfio.md 2.4).
 *
 * VFIO has one call for attach and replace: which of the two it is, is told by what is in dev->attachments, a tree by
 * PASID with the device itself at 0.
 *
 * ATTACH writes the ID back after dev->attach is dropped. Should that fail, the attachment is undone, unless the same
 * PASID has been attached or detached meanwhile: every attach has a number of its own.
 */
#include "vfio/internal.h"

#include <errno.h>

#include "base/alloc.h"

struct vfio_attachment {
	struct rb_node node;
	uint32_t pasid;	 /* 0: the device */
	uint64_t number; /* of the attach that it is the work of */
};

static struct vfio_attachment *attachment_of(struct rb_node *node)
{
	return container_of(node, struct vfio_attachment, node);
}

/* NULL: there is none, and *link below *parent is its place. dev->attach held. */
static struct vfio_attachment *find_locked(struct vfio_device *dev, uint32_t pasid,
					   struct rb_node **parent, struct rb_node ***link)
{
	*parent = NULL;
	*link = &dev->attachments.root;
	while (**link) {
		struct vfio_attachment *at = attachment_of(**link);

		if (at->pasid == pasid)
			return at;
		*parent = **link;
		*link = pasid < at->pasid ? &(*parent)->left : &(*parent)->right;
	}
	return NULL;
}

/* The engine keeps its words until the next attach of the device. dev->attach held. */
static void fail_attach_locked(struct vfio_device *dev, struct swiommu_caller *caller, long rc,
			       uint32_t pt_id)
{
	char why[SWIOMMU_REASON_MAX];

	vfio_pt_reason(dev, why, sizeof(why));
	vfio_fail(caller, rc, "attaching %s to %u: %s", dev->place.bdf, pt_id,
		  *why ? why : "not possible");
}

static long attach_new_locked(struct vfio_device *dev, uint32_t pasid, uint32_t *pt_id,
			      struct swiommu_caller *caller)
{
	struct vfio_attachment *at = swi_new(struct vfio_attachment);
	struct rb_node *parent, **link;
	long rc;

	if (!at)
		return vfio_fail(caller, -ENOMEM, "no memory to attach %s", dev->place.bdf);
	rc = vfio_pt_attach(dev, pasid, pt_id);
	if (rc) {
		fail_attach_locked(dev, caller, rc, *pt_id);
		swi_free(at);
		return rc;
	}
	at->pasid = pasid;
	at->number = ++dev->attach_count;
	find_locked(dev, pasid, &parent, &link);
	rb_insert(&dev->attachments, &at->node, parent, link);
	return 0;
}

/* *number: of this attach. */
static long attach_locked(struct vfio_device *dev, uint32_t pasid, uint32_t *pt_id,
			  struct swiommu_caller *caller, uint64_t *number)
{
	struct rb_node *parent, **link;
	struct vfio_attachment *at = find_locked(dev, pasid, &parent, &link);
	long rc;

	if (!at) {
		rc = attach_new_locked(dev, pasid, pt_id, caller);
	} else {
		rc = vfio_pt_replace(dev, pasid, pt_id);
		if (rc)
			fail_attach_locked(dev, caller, rc, *pt_id);
		else
			at->number = ++dev->attach_count;
	}
	*number = dev->attach_count;
	return rc;
}

static void detach_locked(struct vfio_device *dev, struct vfio_attachment *at)
{
	vfio_pt_detach(dev, at->pasid);
	rb_erase(&dev->attachments, &at->node);
	swi_free(at);
}

static void detach(struct vfio_device *dev, uint32_t pasid)
{
	struct rb_node *parent, **link;
	struct vfio_attachment *at;

	pthread_mutex_lock(&dev->attach);
	at = find_locked(dev, pasid, &parent, &link);
	if (at)
		detach_locked(dev, at);
	pthread_mutex_unlock(&dev->attach);
}

/* Undoes the attach with that number if it still holds. */
static void undo_attach(struct vfio_device *dev, uint32_t pasid, uint64_t number)
{
	struct rb_node *parent, **link;
	struct vfio_attachment *at;

	pthread_mutex_lock(&dev->attach);
	at = find_locked(dev, pasid, &parent, &link);
	if (at && at->number == number)
		detach_locked(dev, at);
	pthread_mutex_unlock(&dev->attach);
}

/* ---- for groups and BIND -------------------------------------------------------------------- */

long vfio_device_attach(struct vfio_device *dev, uint32_t *pt_id, struct swiommu_caller *caller)
{
	uint64_t number;
	long rc;

	pthread_mutex_lock(&dev->attach);
	rc = attach_locked(dev, 0, pt_id, caller, &number);
	pthread_mutex_unlock(&dev->attach);
	return rc;
}

void vfio_device_detach(struct vfio_device *dev)
{
	detach(dev, 0);
}

void vfio_device_detach_all(struct vfio_device *dev)
{
	struct rb_node *node;

	pthread_mutex_lock(&dev->attach);
	/* From the largest PASID down: the device itself, 0, comes last. */
	while ((node = rb_last(&dev->attachments)))
		detach_locked(dev, attachment_of(node));
	pthread_mutex_unlock(&dev->attach);
}

/* ---- the ioctls ------------------------------------------------------------------------------ */

/* argsz, flags, with `nr` words before the PASID, whose first two are these. */
struct args {
	uint32_t words[4];
	uint32_t pasid;
};

/*
 * Reads what ATTACH (3 words and the PASID) and DETACH (2 and the PASID) are given, and checks what they check alike.
 */
static long get_args(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg,
		     unsigned int nr, struct args *out, const char *what)
{
	const struct vfio_device *dev = file->dev;
	uint32_t argsz, flags, min = nr * sizeof(uint32_t);
	long rc;

	rc = vfio_copy_in(caller, out->words, arg, min, what);
	if (rc)
		return rc;
	argsz = out->words[0];
	flags = out->words[1];
	out->pasid = 0;
	if (argsz < min)
		return vfio_fail(caller, -EINVAL, "%s: argsz is %u, at least %u needed", what,
				 argsz, min);
	if (flags & ~1u)
		return vfio_fail(caller, -EINVAL, "%s: flags 0x%x: only bit 0 (PASID) is known",
				 what, flags);
	if (!flags)
		return 0;
	if (argsz < min + sizeof(uint32_t))
		return vfio_fail(caller, -EINVAL, "%s: argsz is %u, at least %zu needed with PASID",
				 what, argsz, min + sizeof(uint32_t));
	if (!dev->device.max_pasids || dev->place.emulated)
		return vfio_fail(caller, -EOPNOTSUPP, "%s: %s does not support PASIDs", what,
				 dev->place.bdf);
	rc = vfio_copy_in(caller, &out->pasid, arg + min, sizeof(out->pasid), what);
	if (rc)
		return rc;
	if (!out->pasid)
		return vfio_fail(
			caller, -EINVAL,
			"%s: PASID 0 is no PASID: leave the flag out for the device itself", what);
	return 0;
}

long vfio_ioctl_attach(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg)
{
	static const char what[] = "VFIO_DEVICE_ATTACH_IOMMUFD_PT";
	struct vfio_device *dev = file->dev;
	struct args args;
	uint64_t number;
	long rc;

	rc = get_args(file, caller, arg, 3, &args, what);
	if (rc)
		return rc;
	pthread_mutex_lock(&dev->attach);
	rc = attach_locked(dev, args.pasid, &args.words[2], caller, &number);
	pthread_mutex_unlock(&dev->attach);
	if (rc)
		return rc;
	rc = vfio_copy_out(caller, arg + offsetof(struct vfio_device_attach_iommufd_pt, pt_id),
			   &args.words[2], sizeof(args.words[2]), what);
	if (rc)
		undo_attach(dev, args.pasid, number);
	return rc;
}

long vfio_ioctl_detach(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg)
{
	struct args args;
	long rc;

	rc = get_args(file, caller, arg, 2, &args, "VFIO_DEVICE_DETACH_IOMMUFD_PT");
	if (!rc)
		detach(file->dev, args.pasid);
	return rc;
}
