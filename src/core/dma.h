/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_DMA_H
#define SWIOMMU_CORE_DMA_H

/*
 * A device's DMA, by file:
 *
 *   dma.c        moving bytes: translate, check, copy
 *   dma_route.c  handles, and where the DMA of a device with a PASID goes
 *   dma_fault.c  what becomes of an access that does not reach memory: page requests, reports
 *
 * A device has a route for its requests without a PASID, and one for each PASID that is attached or has a handle. The
 * route says behind which HWPT the requests are; attach, replace and detach change it, and every handle of
 * that PASID follows.
 */

#include "base/rbtree.h"
#include "core/device.h"

struct dma_route {
	struct rb_node node; /* in idev->routes, by pasid; idev->dma_lock */
	uint32_t pasid;	     /* 0: requests without one */
	/* NULL = nowhere. Written under idev->dma_lock, loaded inside read sections. */
	_Atomic(struct hwpt *) hwpt;
	struct list dmas; /* struct swiommu_dma.entry; idev->dma_lock */
};

struct swiommu_dma {
	struct iova_reader reader; /* first: it has cache lines of its own */
	struct dma_route *route;   /* exists as long as the handle */
	struct iommufd_device *idev;
	unsigned int flags; /* SWIOMMU_DMA_... */
	struct list entry;  /* in route->dmas; idev->dma_lock */
	_Atomic bool cancelled;
};

/*
 * An access at `iova` of which `len` bytes have not been moved has failed with `error`. 0: the user has answered a page
 * request, it is to be tried again. Else the error that the access ends with, which has been reported. May wait; no lock, not
 * inside a read section.
 */
int dma_recover(struct swiommu_dma *dma, iova_t iova, size_t len, unsigned int dir, int error);
/* Tells the host. Returns `error`. */
int dma_report(struct swiommu_dma *dma, iova_t iova, size_t len, unsigned int dir, int error);

/* Frees the routes of a device that is going; it has no handles any more. */
void dma_routes_free(struct iommufd_device *idev);

#endif
