/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_DMA_H
#define SWIOMMU_CORE_DMA_H

/*
 * A device's DMA, by file:
 *
 *   dma.c        moving bytes: translate (translate.h), check, copy
 *   dma_route.c  handles, and where the DMA of a device with a PASID goes
 *   dma_nested.c translations that a guest owns
 *   dma_fault.c  what becomes of an access that does not reach memory: page requests, reports
 *
 * A device has a route for its requests without a PASID, and one for each PASID that is attached or has a handle. The
 * route says behind which HWPT the requests are; attach, replace and detach change it, and every handle of
 * that PASID follows.
 */

#include "base/rbtree.h"
#include "core/device.h"
#include "core/translate.h"

struct dma_route {
	struct rb_node node; /* in idev->routes, by pasid; idev->dma_lock */
	uint32_t pasid;	     /* 0: requests without one */
	/* NULL = nowhere. Written under idev->dma_lock, loaded inside read sections. */
	_Atomic(struct hwpt *) hwpt;
	struct list dmas; /* struct swiommu_dma.entry; idev->dma_lock */
};

/* A handle's memory of what a guest's table says: for IOVAs first to last, `iova + delta` is the address in the parent. */
struct dma_nest_entry {
	iova_t first, last; /* empty: first > last */
	uint64_t delta;
	uint32_t perm;
};

#define DMA_NEST_ENTRIES 64u

struct dma_nest {
	/* What the entries are of; a flush of the domain changes the one, an unmap in the parent the other. */
	uint64_t flushes, generation;
	struct dma_nest_entry last;
	struct dma_nest_entry pages[DMA_NEST_ENTRIES]; /* by page of the IOVA */
	/* Of the last access that failed: it was in the parent, at this address. */
	bool in_parent;
	uint64_t addr;
};

struct swiommu_dma {
	struct iova_reader reader; /* first: it has cache lines of its own */
	struct translator translator;
	struct dma_route *route; /* exists as long as the handle */
	struct iommufd_device *idev;
	unsigned int flags; /* SWIOMMU_DMA_... */
	bool physical;	    /* the device has no IOMMU: see noiommu.c */
	struct list entry;  /* in route->dmas; idev->dma_lock */
	_Atomic bool cancelled;
	struct dma_nest nest;
};

/* How a handle's request for one direction looks to a driver. */
static inline uint32_t dma_perm(const struct swiommu_dma *dma, unsigned int dir)
{
	return (dir == SWI_WRITE ? IOMMU_FAULT_PERM_WRITE : IOMMU_FAULT_PERM_READ) |
	       (dma->flags & SWIOMMU_DMA_PRIVILEGED ? IOMMU_FAULT_PERM_PRIV : 0);
}

/*
 * Where an IOVA of a device on a page table leads, and in *len how much of what was asked for lies there in one
 * piece. Inside a read section. -ENOENT, -EPERM.
 */
int dma_find(struct swiommu_dma *dma, const struct hwpt *paging, iova_t iova, unsigned int dir,
	     struct place *place, size_t *len);

/* Moves bytes that dma_find() has found, in the same section. -EFAULT, -EINVAL. */
int dma_move(const struct place *place, void *buf, size_t len, unsigned int dir);

/*
 * Through a nested HWPT: *iova becomes the address in its page table, and *len is cut to what holds for. Inside a read
 * section. -ENOENT, -EPERM by the guest's table; -EFAULT.
 */
int dma_translate_nested(struct swiommu_dma *dma, struct hwpt *nested, iova_t *iova, size_t *len,
			 unsigned int dir);

/*
 * An access at `iova` of which `len` bytes have not been moved has failed with `error`. 0: the user has answered a page
 * request, it is to be tried again. Else the error that the access ends with, which has been reported. May wait; no lock, not
 * inside a read section.
 */
int dma_recover(struct swiommu_dma *dma, iova_t iova, size_t len, unsigned int dir, int error);
/* Tells the host. Returns `error`. */
int dma_report(struct swiommu_dma *dma, iova_t iova, size_t len, unsigned int dir, int error);

/* A write, or a read, at the physical address of a doorbell. Inside a read section. -EFAULT: there is none. */
int dma_doorbell(struct swiommu_dma *dma, uint64_t addr, const void *buf, size_t len,
		 unsigned int dir);
/* As a step of dma.c, for a device whose addresses are physical. */
int noiommu_step(struct swiommu_dma *dma, uint64_t addr, void *buf, size_t *len, unsigned int dir);

/* Frees the routes of a device that is going; it has no handles any more. */
void dma_routes_free(struct iommufd_device *idev);

#endif
