/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VFIO_TYPE1_H
#define SWIOMMU_VFIO_TYPE1_H

/*
 * The type 1 backend of a container: one IOAS of a private context, and the container's own rules
 * for changing it (spec vfio.md 3.3).
 */

#include "core/ioas.h"
#include "vfio/group.h"
#include "vfio/internal.h"

struct type1 {
	_Atomic unsigned int refs;
	struct iommufd_ctx *ctx; /* counted */
	struct ioas *ioas;	 /* lives as long as the context, which nobody else can reach */
	bool v2;
	const struct vfio_system_options *options; /* of the container's system */
	uint64_t max_mappings;
	/*
	 * Changes of mappings, one at a time, as their rules look at several mappings. Held while memory
	 * is pinned, which may wait for the client.
	 */
	pthread_mutex_t lock;
	bool dirty_tracking;	/* lock */
	struct rb_tree invalid; /* mappings without an address, struct lost_vaddr; lock */
	size_t nr_invalid;	/* lock */
};

/* `type`: VFIO_TYPE1_IOMMU or _TYPE1v2_. -ENOMEM. */
int type1_create(struct iommufd_ctx *ctx, unsigned long type,
		 const struct vfio_system_options *options, struct type1 **out);
struct type1 *type1_get(struct type1 *t);
void type1_put(struct type1 *t);
/* Whether some mapping has lost its address: no device may be added meanwhile. */
bool type1_has_invalid(struct type1 *t);

/* VFIO_IOMMU_...; other numbers: -ENOTTY. */
long type1_ioctl(struct type1 *t, struct swiommu_caller *caller, unsigned int cmd, uint64_t arg);

/* type1_dirty.c */
/* Whether a bitmap of the caller's can take `size` bytes of IOVA. 0 or -EINVAL with a reason. */
long type1_check_bitmap(struct type1 *t, struct swiommu_caller *caller,
			const struct vfio_bitmap *bitmap, uint64_t size);
/* Reports the mappings in [iova, last] as written. -EFAULT. */
long type1_report_dirty(struct type1 *t, struct swiommu_caller *caller,
			const struct vfio_bitmap *bitmap, iova_t iova, iova_t last);
long type1_dirty_pages(struct type1 *t, struct swiommu_caller *caller, uint64_t arg);

/* type1_vaddr.c, all with the lock held */
/* UNMAP with VADDR of [iova, last]; *bytes of mappings lost their addresses. */
long type1_forget_vaddr_locked(struct type1 *t, struct swiommu_caller *caller, iova_t iova,
			       iova_t last, uint64_t *bytes);
/* MAP with VADDR. */
long type1_set_vaddr_locked(struct type1 *t, struct swiommu_caller *caller, iova_t iova,
			    uint64_t size);
/* The mappings in [iova, last] are gone. */
void type1_drop_vaddrs_locked(struct type1 *t, iova_t iova, iova_t last);

/* The smallest page that a mapping can have. */
uint64_t type1_page(struct type1 *t);

#endif
