/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_DMA_LISTENER_H
#define SWIOMMU_CORE_DMA_LISTENER_H

/*
 * DMA listeners: who must know the mappings that a device's DMA meets, because the DMA is done somewhere
 * else (a vfio-user server, a simulator).
 *
 * A listener is registered for a bound device. While the device is attached (all its requests, PASID 0), the
 * listener knows every mapping of the IOAS below: those that are there at attach are told one by one, later
 * ones as they come. An UNMAP returns only after the listener has forgotten the range. Detach and replace make
 * it forget everything, replace tells the new mappings then; both before they return. Behind a nested HWPT there is nothing
 * to tell: only the device's own DMA knows the way there.
 *
 * Callbacks of one listener may come from several threads, also at once, but never two of them for the
 * same IOVA. They may block: MAP, UNMAP and attach wait for them, with locks of the IOAS held (docs/locking.md).
 * They may not call into the same context, but the device's DMA (swiommu_dma_read and _write) goes on
 * meanwhile and never waits for them.
 */

#include "base/list.h"
#include "base/reason.h"
#include "core/device.h"

struct dma_mapping {
	iova_t iova;
	uint64_t length;
	unsigned int prot; /* SWI_READ, SWI_WRITE: the device's view */
	int fd; /* of the file behind the memory, open for no more than prot; borrowed. -1: there is none */
	uint64_t fd_offset; /* of `iova` in it */
};

struct dma_listener;

struct dma_listener_ops {
	/*
	 * A mapping, or a part of one whose parts lie in several files. A failure fails the MAP or attach that it
	 * comes from; parts that were told before are taken back by unmap.
	 */
	int (*map)(struct dma_listener *l, const struct dma_mapping *m, struct swi_reason *why);
	/*
	 * Nothing in [first, last] is to be touched any more; returns when that is so. The range has been told before
	 * as a whole, in one or more parts, or holds everything (0 to IOVA_MAX). It may cut a mapping that was told.
	 */
	void (*unmap)(struct dma_listener *l, iova_t first, iova_t last);
};

struct dma_listener {
	const struct dma_listener_ops *ops;
	/* The engine's. */
	struct iommufd_device *idev;
	struct ioas *ioas;	 /* whose mappings it knows, counted; NULL: none. dgroup->listen */
	struct list group_entry; /* in dgroup->listeners; dgroup->listen */
	struct list ioas_entry;	 /* in ioas->listeners; domains lock */
};

/*
 * Registers `l`, which stays the caller's, for a bound device; if that is attached, its mappings are told. On failure it is
 * not registered: -ENOMEM, or what map() returned.
 */
int dma_listener_add(struct iommufd_device *idev, struct dma_listener *l, struct swi_reason *why);
/* Makes it forget everything; no callback runs afterwards. */
void dma_listener_remove(struct dma_listener *l);

/* ---- for the engine ------------------------------------------------------------------------------ */

/*
 * Something of the group has been attached, replaced or detached: takes every listener to where its device is now. No lock
 * held. Returns the first error; such a listener knows nothing then.
 */
int dma_listeners_follow(struct device_group *dg, struct swi_reason *why);
/*
 * Tells a pinned area that is still busy. On failure everybody has forgotten it again. Domains lock held.
 */
int dma_listeners_map(struct ioas *ioas, struct iova_area *area, struct swi_reason *why);
/* Areas of [first, last] are about to go; they are busy, and unpinned later. Domains lock held. */
void dma_listeners_unmap(struct ioas *ioas, iova_t first, iova_t last);

#endif
