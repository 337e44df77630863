/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_DEVICE_H
#define SWIOMMU_CORE_DEVICE_H

/*
 * Bound devices, and the record of their group in one context (spec devices.md 1).
 *
 * Lock order: ioas->mutex, then device_group.lock, then iommufd_device.dma_lock, then the locks of
 * the IOAS (domains, map). iommu_group.lock is a leaf.
 */

#include "base/list.h"
#include "base/rbtree.h"
#include "core/hwpt.h"
#include <swiommu/iommufd.h>

/* One per (context, group) with bound members: they share one translation. */
struct device_group {
	struct iommufd_ctx *ctx;
	struct iommu_group *group; /* NULL: of a device without an IOMMU, for itself */
	unsigned int refs;	   /* bound members; the group->lock */
	pthread_mutex_t lock;
	struct rb_tree attachments; /* struct attachment.node; see attach.h */
	pthread_rwlock_t handles;   /* shared by who reports a fault; inside `lock` */
	/* Software MSI, see sw_msi.h; `lock`. */
	uint64_t sw_msi_start;	  /* of the window; SW_MSI_NONE: there is none */
	uint64_t sw_msi_required; /* a bit per doorbell that its devices use */
	pthread_cond_t vdev_gone; /* some device's vdev is ready or gone; with `lock` */
	pthread_mutex_t listen;	  /* outside of `lock`; held while listeners are told */
	struct list listeners;	  /* struct dma_listener.group_entry; `listen` */
};

struct iommufd_device {
	struct obj obj;
	struct iommufd_ctx *ctx; /* counted if holds_ctx */
	bool holds_ctx;
	const struct iommu_driver *driver; /* of its IOMMU; noiommu_driver: it has none */
	bool enforces;			   /* its IOMMU can make its DMA snoop caches; immutable */
	struct device *dev;		   /* NULL after an unbind that found it in use */
	struct device_group *dgroup;	   /* counted */
	struct iopf_param *iopf;	   /* owned; its page requests */
	struct vdevice *vdev;		   /* that stands for it in a guest; dgroup->lock */
	bool going; /* unbinding; no vDEVICE can be made any more; dgroup->lock */

	pthread_mutex_t dma_lock;
	struct rb_tree routes; /* struct dma_route.node; see dma.h; dma_lock */
	_Atomic unsigned int
		requests_blocked; /* not 0: no DMA waits for the answer to a page request */

	struct swi_reason why; /* of the last attach or replace; serialised by the caller */
};

static inline struct iommufd_device *device_of(struct obj *obj)
{
	return container_of(obj, struct iommufd_device, obj);
}

/*
 * iommufd_device_bind(); with `hold_ctx` false it takes no reference on the context, because what binds the
 * device is itself an object of that context and unbinds it when that ends.
 */
struct iommufd_device *device_bind(struct iommufd_ctx *ictx, struct device *dev, bool hold_ctx,
				   uint32_t *id);

/*
 * iommufd_device_unbind(). What is still attached is detached, but the device's ID and those of what it was attached
 * to stay in use until the context ends. -ETIMEDOUT: a call still uses the struct device, which must stay.
 */
int device_unbind(struct iommufd_device *idev);

/* What a device without an IOMMU is bound with; see noiommu.c. */
extern const struct iommu_driver noiommu_driver;

static inline bool device_is_noiommu(const struct iommufd_device *idev)
{
	return idev->driver == &noiommu_driver;
}

/*
 * The regions that the device has reserved, all kinds; *nr becomes their number. `regions`: room for DEVICE_RESV_MAX. The
 * errors of the driver; -EINVAL: more than one window for software MSI, or one beside a window of hardware.
 */
#define DEVICE_RESV_MAX (2 * IOMMU_RESV_MAX)
int device_get_resv(struct device *dev, const struct iommu_driver *driver,
		    struct iommu_resv_region *regions, unsigned int *nr, struct swi_reason *why);

/* End of the context: detaches what is bound by objects of the context itself, so that these can be destroyed. */
void device_detach_all(struct iommufd_ctx *ctx);
/* Detaches a device that is unbound while it is attached, leaving it and its HWPTs in use for ever. */
void device_abandon(struct iommufd_device *idev);

/*
 * Sends the device's DMA with a PASID (0: without one) through `hwpt` (NULL: nowhere) from now on; returns when no DMA
 * uses the old one any more. -ENOMEM (never for NULL): then nothing changed.
 */
int device_dma_switch(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt);
/*
 * Undoes the last successful switch, back to `hwpt`: DMA stops if memory is too short to let it go on there.
 */
void device_dma_switch_back(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt);

#endif
