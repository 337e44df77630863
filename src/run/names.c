// SPDX-License-Identifier: MIT
/*
 * What ioctls are called, for lines that people read. The same number means different things on different kinds of files, so
 * there is a table for each.
 */
#include "run/names.h"

#include <linux/iommufd.h>
#include <linux/vfio.h>

#include "base/base.h"

#define NAME(cmd)         \
	{                 \
		cmd, #cmd \
	}

struct name {
	unsigned int cmd;
	const char *text;
};

static const struct name iommu_names[] = {
	NAME(IOMMU_DESTROY),
	NAME(IOMMU_IOAS_ALLOC),
	NAME(IOMMU_IOAS_ALLOW_IOVAS),
	NAME(IOMMU_IOAS_COPY),
	NAME(IOMMU_IOAS_IOVA_RANGES),
	NAME(IOMMU_IOAS_MAP),
	NAME(IOMMU_IOAS_UNMAP),
	NAME(IOMMU_OPTION),
	NAME(IOMMU_VFIO_IOAS),
	NAME(IOMMU_HWPT_ALLOC),
	NAME(IOMMU_GET_HW_INFO),
	NAME(IOMMU_HWPT_SET_DIRTY_TRACKING),
	NAME(IOMMU_HWPT_GET_DIRTY_BITMAP),
	NAME(IOMMU_HWPT_INVALIDATE),
	NAME(IOMMU_FAULT_QUEUE_ALLOC),
	NAME(IOMMU_IOAS_MAP_FILE),
	NAME(IOMMU_VIOMMU_ALLOC),
	NAME(IOMMU_VDEVICE_ALLOC),
	NAME(IOMMU_IOAS_CHANGE_PROCESS),
	NAME(IOMMU_VEVENTQ_ALLOC),
	NAME(IOMMU_HW_QUEUE_ALLOC),
	NAME(IOMMU_IOAS_NOIOMMU_GET_PA),
};

static const struct name container_names[] = {
	NAME(VFIO_GET_API_VERSION),   NAME(VFIO_CHECK_EXTENSION), NAME(VFIO_SET_IOMMU),
	NAME(VFIO_IOMMU_GET_INFO),    NAME(VFIO_IOMMU_MAP_DMA),	  NAME(VFIO_IOMMU_UNMAP_DMA),
	NAME(VFIO_IOMMU_DIRTY_PAGES),
};

static const struct name group_names[] = {
	NAME(VFIO_GROUP_GET_STATUS),
	NAME(VFIO_GROUP_SET_CONTAINER),
	NAME(VFIO_GROUP_UNSET_CONTAINER),
	NAME(VFIO_GROUP_GET_DEVICE_FD),
};

static const struct name device_names[] = {
	NAME(VFIO_DEVICE_GET_INFO),
	NAME(VFIO_DEVICE_GET_REGION_INFO),
	NAME(VFIO_DEVICE_GET_IRQ_INFO),
	NAME(VFIO_DEVICE_SET_IRQS),
	NAME(VFIO_DEVICE_RESET),
	NAME(VFIO_DEVICE_GET_PCI_HOT_RESET_INFO),
	NAME(VFIO_DEVICE_PCI_HOT_RESET),
	NAME(VFIO_DEVICE_IOEVENTFD),
	NAME(VFIO_DEVICE_FEATURE),
	NAME(VFIO_DEVICE_BIND_IOMMUFD),
	NAME(VFIO_DEVICE_ATTACH_IOMMUFD_PT),
	NAME(VFIO_DEVICE_DETACH_IOMMUFD_PT),
};

static const char *look_up(const struct name *names, size_t n, unsigned int cmd)
{
	for (size_t i = 0; i < n; i++)
		if (names[i].cmd == cmd)
			return names[i].text;
	return NULL;
}

const char *ioctl_name(enum node_kind kind, unsigned int cmd)
{
	const char *text;

	switch (kind) {
	case NODE_VFIO_CDEV:
		return look_up(device_names, ARRAY_SIZE(device_names), cmd);
	case NODE_VFIO_GROUP:
		return look_up(group_names, ARRAY_SIZE(group_names), cmd);
	case NODE_VFIO_CONTAINER:
		return look_up(container_names, ARRAY_SIZE(container_names), cmd);
	default:
		/* It answers the container's as well; no number is in both. */
		text = look_up(iommu_names, ARRAY_SIZE(iommu_names), cmd);
		return text ? text : look_up(container_names, ARRAY_SIZE(container_names), cmd);
	}
}
