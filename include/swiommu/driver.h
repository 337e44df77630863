/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_DRIVER_H
#define SWIOMMU_DRIVER_H

/*
 * Devices and the software IOMMU drivers behind which they sit.
 *
 * A struct device is whatever makes DMA: a VFIO device, an emulator's bus master. It belongs to one
 * group (the unit of isolation) and to one struct iommu_driver, which says what the IOMMU in front
 * of it can do. The engine keeps pointers to both between iommufd_device_bind() and _unbind(); the
 * host owns the memory.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An IOVA range that devices cannot use for mappings. Inclusive. */
struct iommu_resv_region {
	uint64_t first, last;
};

struct device;

/* A software IOMMU driver. All members are constant. */
struct iommu_driver {
	const char *name;
	uint64_t pgsize_bitmap; /* bit n: pages of 2^n bytes; the smallest is at most 4096 */
	uint64_t aperture_first, aperture_last; /* IOVAs its page tables can hold */
	uint32_t hwpt_flags; /* IOMMU_HWPT_ALLOC_... that its page tables can be made with */
	bool enforces_coherency; /* DMA always snoops caches: VFIO_DMA_CC_IOMMU */
	const struct iommu_resv_region *resv;	/* reserved for every device, e.g. an MSI window */
	unsigned int nr_resv;
	/*
	 * What IOMMU_GET_HW_INFO tells of the device's IOMMU: a struct in `data` (IOMMU_DRIVER_HW_INFO_MAX bytes), whose length
	 * is returned. *type is the kind that was asked for, 0 for any, and becomes the kind of the struct (enum
	 * iommu_hw_info_type). -EOPNOTSUPP: there is none of this kind. NULL: nothing is told.
	 */
	int (*hw_info)(const struct device *dev, uint32_t *type, void *data);
};

#define IOMMU_DRIVER_HW_INFO_MAX 64

/*
 * The driver that built-in devices use: 4 KiB pages and larger, a 48-bit aperture, the x86 MSI window
 * 0xfee00000-0xfeefffff reserved.
 */
extern const struct iommu_driver iommu_generic_driver;

/*
 * A set of devices that cannot be isolated from each other: its DMA is owned by one context at a
 * time. Made and freed by the host; initialise with iommu_group_init().
 */
struct iommu_group {
	unsigned int id; /* the number in /sys/kernel/iommu_groups */
	/* The engine's: who owns the DMA, counted per bound device; guarded by lock. */
	pthread_mutex_t lock;
	const void *owner;
	unsigned int owner_count;
};

/* 0 or -ENOMEM. */
int iommu_group_init(struct iommu_group *group, unsigned int id);
/* No device of the group may be bound. */
void iommu_group_fini(struct iommu_group *group);

struct device {
	const char *name; /* for messages: the BDF of a PCI device */
	struct iommu_group *group;
	const struct iommu_driver *iommu;
	bool dirty_tracking; /* its IOMMU can record what it writes */
	uint32_t max_pasids; /* PASIDs that it can tag its requests with are below this; 0: it has none */
};

#ifdef __cplusplus
}
#endif
#endif
