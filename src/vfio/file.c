// SPDX-License-Identifier: MIT
/*
 * The open file of a device: open, close, and the way into every system call on it.
 *
 * Calls on a file run concurrently; close comes last, so a call may use the device's bound state
 * without a lock once it has seen file->bound. Before BIND has succeeded everything else is EINVAL.
 */
#include "vfio/group_internal.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

long vfio_fail(struct swiommu_caller *caller, long err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(caller->reason, sizeof(caller->reason), fmt, ap);
	va_end(ap);
	return err;
}

long vfio_copy_in(struct swiommu_caller *caller, void *dst, uint64_t uptr, size_t len,
		  const char *what)
{
	if (!caller->ops->copy_in(caller, dst, uptr, len))
		return 0;
	return vfio_fail(caller, -EFAULT, "%s: %zu bytes at 0x%llx cannot be read", what, len,
			 (unsigned long long)uptr);
}

long vfio_copy_out(struct swiommu_caller *caller, uint64_t uptr, const void *src, size_t len,
		   const char *what)
{
	if (!caller->ops->copy_out(caller, uptr, src, len))
		return 0;
	return vfio_fail(caller, -EFAULT, "%s: %zu bytes at 0x%llx cannot be written", what, len,
			 (unsigned long long)uptr);
}

int vfio_file_open(struct vfio_device *dev, struct vfio_file **out)
{
	struct vfio_file *file = swi_new(struct vfio_file);

	if (!file)
		return -ENOMEM;
	file->dev = dev;
	*out = file;
	return 0;
}

void vfio_file_close(struct vfio_file *file)
{
	if (!file)
		return;
	if (file->group)
		vfio_group_close_device(file);
	else
		vfio_unbind(file);
	swi_free(file);
}

struct vfio_device *vfio_file_device(const struct vfio_file *file)
{
	return file->dev;
}

bool vfio_file_is_bound(struct vfio_file *file)
{
	return atomic_load(&file->bound);
}

static long ioctl_reset(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg)
{
	int rc;

	(void)arg;
	if (!file->dev->has_reset)
		return vfio_fail(caller, -EINVAL, "VFIO_DEVICE_RESET: %s cannot be reset",
				 file->dev->place.bdf);
	rc = vfio_device_reset(file->dev, false);
	if (rc)
		return vfio_fail(caller, rc, "VFIO_DEVICE_RESET: %s %s", file->dev->place.bdf,
				 rc == -EAGAIN ? "is being reset already"
					       : "has failed to reset itself");
	return 0;
}

static const struct {
	unsigned int cmd;
	long (*handler)(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg);
} ioctls[] = {
	{VFIO_DEVICE_GET_INFO, vfio_ioctl_get_info},
	{VFIO_DEVICE_GET_REGION_INFO, vfio_ioctl_get_region_info},
	{VFIO_DEVICE_GET_IRQ_INFO, vfio_ioctl_get_irq_info},
	{VFIO_DEVICE_SET_IRQS, vfio_ioctl_set_irqs},
	{VFIO_DEVICE_RESET, ioctl_reset},
	{VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, vfio_ioctl_hot_reset_info},
	{VFIO_DEVICE_PCI_HOT_RESET, vfio_ioctl_hot_reset},
	{VFIO_DEVICE_FEATURE, vfio_ioctl_feature},
	{VFIO_DEVICE_IOEVENTFD, vfio_ioctl_ioeventfd},
	/* From here on only of an open of the cdev. */
	{VFIO_DEVICE_ATTACH_IOMMUFD_PT, vfio_ioctl_attach},
	{VFIO_DEVICE_DETACH_IOMMUFD_PT, vfio_ioctl_detach},
};

long vfio_file_ioctl(struct vfio_file *file, struct swiommu_caller *caller, unsigned int cmd,
		     uint64_t arg)
{
	caller->reason[0] = '\0';
	if (cmd == VFIO_DEVICE_BIND_IOMMUFD)
		return vfio_ioctl_bind(file, caller, arg);
	if (!vfio_file_is_bound(file))
		return vfio_fail(caller, -EINVAL, "ioctl 0x%x before VFIO_DEVICE_BIND_IOMMUFD",
				 cmd);
	for (unsigned int i = 0; i < ARRAY_SIZE(ioctls) - (file->group ? 2 : 0); i++)
		if (ioctls[i].cmd == cmd)
			return ioctls[i].handler(file, caller, arg);
	return vfio_fail(caller, -ENOTTY, "ioctl 0x%x is not one of a VFIO PCI device", cmd);
}

ssize_t vfio_file_pread(struct vfio_file *file, struct swiommu_caller *caller, uint64_t uptr,
			size_t count, uint64_t pos)
{
	caller->reason[0] = '\0';
	if (!vfio_file_is_bound(file))
		return vfio_fail(caller, -EINVAL, "read before VFIO_DEVICE_BIND_IOMMUFD");
	return vfio_region_rw(file->dev, caller, uptr, count, pos, false);
}

ssize_t vfio_file_pwrite(struct vfio_file *file, struct swiommu_caller *caller, uint64_t uptr,
			 size_t count, uint64_t pos)
{
	caller->reason[0] = '\0';
	if (!vfio_file_is_bound(file))
		return vfio_fail(caller, -EINVAL, "write before VFIO_DEVICE_BIND_IOMMUFD");
	return vfio_region_rw(file->dev, caller, uptr, count, pos, true);
}
