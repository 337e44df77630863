/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_ATTACH_INTERNAL_H
#define SWIOMMU_CORE_ATTACH_INTERNAL_H

/*
 * What attach.c, attach_rules.c and replace.c share. 0 or a negative errno, with a reason in idev->why or in `why`,
 * which is not the device's own when another member of its group moves them all. The lock of the device's group is held.
 */

#include "core/attach.h"

static inline struct attachment *attachment_of(struct rb_node *node)
{
	return container_of(node, struct attachment, node);
}

static inline struct iommufd_device *attach_member_of(struct list *pos)
{
	return list_entry(pos, struct attach_member, entry)->idev;
}

/* Has the driver move a device, or one PASID of it. On failure it is where it was. */
int attach_driver_set(struct iommufd_device *idev, uint32_t pasid, struct iommu_domain *domain,
		      struct iommu_domain *old, struct swi_reason *why);
void attach_driver_clear(struct iommufd_device *idev, uint32_t pasid, struct iommu_domain *old);

/* Keeps the regions that the device has reserved free in an IOAS; on failure none is. */
int attach_reserve(struct iommufd_device *idev, struct ioas *ioas, struct swi_reason *why);
void attach_unreserve(struct iommufd_device *idev, struct ioas *ioas);

/* What may be attached at a PASID beside what is attached at others (devices.md 1.7). */
int attach_check_pasid_locked(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt);
/* Of the device that brings its group to a HWPT. Virtual functions share the requests of their physical one. */
int attach_check_requests(struct iommufd_device *idev, struct hwpt *hwpt);
/* What a device must be able to for a HWPT, whatever else is attached. */
int attach_check_fit(struct iommufd_device *idev, struct hwpt *hwpt, struct swi_reason *why);

struct replace {
	struct hwpt *old; /* what to drop when all locks are gone */
	unsigned int moved;
};

/* Takes the group's lock. `fresh`: the HWPT is published by this. */
int attach_replace_hwpt(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt, bool fresh,
			struct replace *done);
/* The same to the first automatic HWPT of the IOAS that fits, or a new one. *out_id: its ID. */
int attach_replace_ioas(struct iommufd_device *idev, uint32_t pasid, struct ioas *ioas,
			uint32_t *out_id, struct replace *done);

#endif
