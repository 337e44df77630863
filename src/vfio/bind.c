// SPDX-License-Identifier: MIT
/*
 * BIND_IOMMUFD: the device file and its iommufd context (spec vfio.md 2.3).
 *
 * At most one file has the device. BIND reserves it first by making itself the owner (under
 * dev->life), then does all that can fail or block without a lock, and at last opens the gate
 * (file->bound) or gives the reservation back. Until the gate is open no other call on the file
 * gets past its first check, so nobody sees a half-bound device.
 */
#include "vfio/internal.h"

#include <errno.h>
#include <string.h>

/* The part that every version of the struct has. */
#define BIND_MIN 16u
/* Longer arguments are refused whether their tail is zero or not. */
#define BIND_MAX 4096u

/*
 * Copies an extensible struct in: a short one is padded with zeros, a long one must end in zeros.
 */
static long copy_struct(struct swiommu_caller *caller, void *dst, size_t size, uint64_t arg,
			uint32_t argsz, const char *what)
{
	uint8_t tail[BIND_MAX];
	long rc;

	memset(dst, 0, size);
	rc = vfio_copy_in(caller, dst, arg, SWI_MIN(size, argsz), what);
	if (rc || argsz <= size)
		return rc;
	if (argsz > BIND_MAX)
		return vfio_fail(caller, -E2BIG, "%s: argsz is %u, more than %u is not understood",
				 what, argsz, BIND_MAX);
	rc = vfio_copy_in(caller, tail, arg + size, argsz - size, what);
	if (rc)
		return rc;
	for (size_t i = 0; i < argsz - size; i++)
		if (tail[i])
			return vfio_fail(caller, -E2BIG,
					 "%s: byte %zu is 0x%02x, must be 0 (unknown field)", what,
					 size + i, tail[i]);
	return 0;
}

/* Steps 5 and 6 of the rules; `taken`: also step 9. */
static long check_free_locked(struct vfio_file *file, struct swiommu_caller *caller, bool taken)
{
	struct vfio_device *dev = file->dev;

	if (dev->group_users)
		return vfio_fail(caller, -EBUSY,
				 "VFIO_DEVICE_BIND_IOMMUFD: the group file of %s is open",
				 dev->place.bdf);
	if (dev->owner == file)
		return vfio_fail(caller, -EINVAL,
				 "VFIO_DEVICE_BIND_IOMMUFD: this open of %s is bound already",
				 dev->place.bdf);
	if (taken && dev->owner)
		return vfio_fail(caller, -EINVAL,
				 "VFIO_DEVICE_BIND_IOMMUFD: %s is bound through another open file",
				 dev->place.bdf);
	return 0;
}

static long fail_bind(struct vfio_file *file, struct swiommu_caller *caller, long rc)
{
	const char *why = rc == -EPERM	 ? "its group's DMA is owned by another context"
			  : rc == -EBUSY ? "no free object ID, or the group's translation is in use"
			  : rc == -ENODEV ? "the device has no group"
			  : rc == -EINVAL ? "the device has no IOMMU driver"
					  : "out of memory";

	return vfio_fail(caller, rc, "VFIO_DEVICE_BIND_IOMMUFD: %s: %s", file->dev->place.bdf, why);
}

static void release(struct vfio_file *file)
{
	struct vfio_device *dev = file->dev;

	pthread_mutex_lock(&dev->life);
	dev->owner = NULL;
	pthread_mutex_unlock(&dev->life);
	vfio_token_leave(dev);
}

long vfio_device_bind(struct vfio_device *dev, struct iommufd_ctx *ctx, uint32_t *id)
{
	struct iommufd_device *idev;

	if (dev->place.emulated)
		return vfio_emulated_bind(dev, ctx, id);
	idev = iommufd_device_bind(ctx, &dev->device, id);
	if (IS_ERR(idev))
		return PTR_ERR(idev);
	pthread_mutex_lock(&dev->reset);
	dev->idev = idev;
	pthread_mutex_unlock(&dev->reset);
	return 0;
}

void vfio_device_unbind(struct vfio_device *dev)
{
	struct iommufd_device *idev = dev->idev;

	if (dev->place.emulated) {
		vfio_emulated_unbind(dev);
		return;
	}
	/* Somebody else may be looking, or resetting the slot. */
	pthread_mutex_lock(&dev->reset);
	dev->idev = NULL;
	pthread_mutex_unlock(&dev->reset);
	iommufd_device_unbind(idev);
}

/* Binds and starts the device of which `file` is the owner; *id is its object ID. */
static long bind_owned(struct vfio_file *file, struct swiommu_caller *caller,
		       struct iommufd_ctx *ctx, uint32_t *id)
{
	struct vfio_device *dev = file->dev;
	long rc;

	rc = vfio_device_bind(dev, ctx, id);
	if (rc)
		return fail_bind(file, caller, rc);
	rc = vfio_device_start(dev);
	if (!rc)
		return 0;
	vfio_device_unbind(dev);
	return vfio_fail(caller, rc, "VFIO_DEVICE_BIND_IOMMUFD: %s cannot start", dev->place.bdf);
}

static void unbind_owned(struct vfio_file *file)
{
	struct vfio_device *dev = file->dev;

	vfio_device_stop(dev);
	vfio_device_detach_all(dev);
	vfio_device_unbind(dev);
	release(file);
}

/* Step 7. */
static long give_token(struct vfio_device *dev, struct swiommu_caller *caller,
		       const struct vfio_device_bind_iommufd *bind)
{
	static const char what[] = "VFIO_DEVICE_BIND_IOMMUFD";
	uint8_t token[16] = {0};
	long rc;

	if (!(bind->flags & VFIO_DEVICE_BIND_FLAG_TOKEN))
		return vfio_token_enter(dev, caller, NULL, what);
	if (!dev->pf && !dev->nr_vfs)
		return vfio_token_enter(dev, caller, token, what); /* refused, whatever it is */
	rc = vfio_copy_in(caller, token, bind->token_uuid_ptr, sizeof(token), what);
	return rc ? rc : vfio_token_enter(dev, caller, token, what);
}

/* Reserves the device for the file and finds the context; the caller drops both. */
static long bind_prepare(struct vfio_file *file, struct swiommu_caller *caller,
			 const struct vfio_device_bind_iommufd *bind, struct iommufd_ctx **ctx)
{
	struct vfio_device *dev = file->dev;
	long rc;

	pthread_mutex_lock(&dev->life);
	rc = check_free_locked(file, caller, false);
	pthread_mutex_unlock(&dev->life);
	if (!rc)
		rc = give_token(dev, caller, bind);
	if (rc)
		return rc;
	rc = caller->ops->get_ctx(caller, bind->iommufd, ctx);
	if (rc) {
		vfio_fail(caller, rc, "VFIO_DEVICE_BIND_IOMMUFD: iommufd %d is %s", bind->iommufd,
			  rc == -EBADF ? "not open" : "not an iommufd");
		goto leave;
	}
	pthread_mutex_lock(&dev->life);
	rc = check_free_locked(file, caller, true);
	if (!rc)
		dev->owner = file;
	pthread_mutex_unlock(&dev->life);
	if (!rc)
		return 0;
	iommufd_ctx_put(*ctx);
leave:
	vfio_token_leave(dev);
	return rc;
}

long vfio_ioctl_bind(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg)
{
	struct vfio_device_bind_iommufd bind;
	struct iommufd_ctx *ctx;
	uint32_t argsz, id;
	long rc;

	rc = vfio_copy_in(caller, &argsz, arg, sizeof(argsz), "VFIO_DEVICE_BIND_IOMMUFD");
	if (rc)
		return rc;
	if (argsz < BIND_MIN)
		return vfio_fail(caller, -EINVAL,
				 "VFIO_DEVICE_BIND_IOMMUFD: argsz is %u, at least %u needed", argsz,
				 BIND_MIN);
	rc = copy_struct(caller, &bind, sizeof(bind), arg, argsz, "VFIO_DEVICE_BIND_IOMMUFD");
	if (rc)
		return rc;
	if (bind.iommufd < 0 || bind.flags & ~VFIO_DEVICE_BIND_FLAG_TOKEN)
		return vfio_fail(caller, -EINVAL,
				 "VFIO_DEVICE_BIND_IOMMUFD: iommufd %d, flags 0x%x: must be 0 or "
				 "more, and bit 0 only",
				 bind.iommufd, bind.flags);
	if (file->group)
		return vfio_fail(caller, -EINVAL,
				 "VFIO_DEVICE_BIND_IOMMUFD: this device file was opened through "
				 "the group of %s, which needs no BIND",
				 file->dev->place.bdf);
	rc = bind_prepare(file, caller, &bind, &ctx);
	if (rc)
		return rc;
	rc = bind_owned(file, caller, ctx, &id);
	iommufd_ctx_put(ctx);
	if (rc) {
		release(file);
		return rc;
	}
	rc = vfio_copy_out(caller, arg + offsetof(struct vfio_device_bind_iommufd, out_devid), &id,
			   sizeof(id), "VFIO_DEVICE_BIND_IOMMUFD: out_devid");
	if (rc) {
		unbind_owned(file);
		return rc;
	}
	atomic_store(&file->bound, true);
	return 0;
}

void vfio_unbind(struct vfio_file *file)
{
	if (atomic_exchange(&file->bound, false))
		unbind_owned(file);
}
