// SPDX-License-Identifier: MIT
/*
 * Devices without an IOMMU (spec vfio.md 3.5): who may use them, and what their DMA comes to.
 *
 * Such a device can be opened in two ways. Bound to an iommufd through its cdev it is the engine's matter (core/noiommu.c):
 * its DMA goes by the physical addresses that IOMMU_IOAS_NOIOMMU_GET_PA tells. Opened through its group, in a container of
 * type 8 or in an iommufd, it is bound to nothing: on hardware the program would find out physical addresses by
 * itself, and nothing would stand between the device and memory. Here no address that it can find out means anything, so
 * every DMA fails, and the log says what to do instead.
 *
 * A device without an IOMMU is alone in its group. Its group (vfio_group.noiommu) has no DMA that could have an owner, and
 * a container (vfio_container.noiommu) holds groups of one kind only.
 */
#include "vfio/group_internal.h"

#include <errno.h>
#include <linux/capability.h>

long vfio_noiommu_check(struct swiommu_caller *caller, const char *what)
{
	if (caller->ops->capable(caller, CAP_SYS_RAWIO))
		return 0;
	return vfio_fail(
		caller, -EPERM,
		"%s: a device without an IOMMU is for those with CAP_SYS_RAWIO (root, and not in a "
		"user namespace)",
		what);
}

long vfio_device_may_open(const struct vfio_device *dev, struct swiommu_caller *caller)
{
	return dev->place.noiommu ? vfio_noiommu_check(caller, dev->place.bdf) : 0;
}

int vfio_noiommu_dma(struct vfio_device *dev, uint64_t addr, size_t len, bool write)
{
	if (!atomic_exchange(&dev->told_physical, true))
		swi_log(dev->place.log, SWI_LOG_WARN,
			"%s: DMA fault: %s of %zu bytes at physical address %#llx: opened through "
			"its group, the "
			"device reaches no memory here, as the machine's physical addresses mean "
			"nothing to it; "
			"bind its cdev to an iommufd and ask IOMMU_IOAS_NOIOMMU_GET_PA for "
			"addresses",
			dev->place.bdf, write ? "write" : "read", len, (unsigned long long)addr);
	return -ENXIO;
}
