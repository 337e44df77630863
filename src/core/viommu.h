/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_VIOMMU_H
#define SWIOMMU_CORE_VIOMMU_H

/*
 * vIOMMUs and what is built on them (spec devices.md 5).
 *
 *   viommu.c	the vIOMMU object
 *   vdevice.c	devices as the guest knows them
 *   veventq.c	queues of events for the guest
 *   hw_queue.c	queues in guest memory
 *   region_mmap.c  memory of drivers that the user can map
 */

#include "base/list.h"
#include "core/device.h"
#include <swiommu/viommu.h>

struct viommu {
	struct obj obj;
	struct iommufd_viommu *pub; /* owned */
	const struct iommu_driver *driver;
	const void *instance; /* of the driver's IOMMUs */
	struct hwpt *parent;  /* counted */
	pthread_mutex_t vdevs_lock;
	struct list vdevs; /* struct vdevice.entry; vdevs_lock */
	pthread_mutex_t events_lock;
	struct list veventqs; /* struct veventq.entry; events_lock, which also guards the queues */
};

static inline struct viommu *viommu_of(struct obj *obj)
{
	return container_of(obj, struct viommu, obj);
}

static inline struct viommu *viommu_of_pub(struct iommufd_viommu *pub)
{
	return pub->engine;
}

/* The device is about to be unbound: its vDEVICE, if there is one, becomes a tombstone, and none can be made. */
void vdevice_unbind(struct iommufd_device *idev);

#endif
