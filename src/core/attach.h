/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_ATTACH_H
#define SWIOMMU_CORE_ATTACH_H

/*
 * Attachments: what the devices of a group, or one PASID of them, are attached to (spec devices.md 1.4 to 1.13).
 */

#include "core/device.h"

/*
 * Names an attachment towards fault queues. A new one for each attach and replace, so that what came
 * through an old one can be told.
 */
struct attach_handle {
	uint32_t pasid;
};

/* In device_group.attachments. Changed with the group's `lock` and its `handles` lock, exclusive, held. */
struct attachment {
	struct rb_node node;	      /* by pasid */
	uint32_t pasid;		      /* 0: all requests without one */
	struct hwpt *hwpt;	      /* counted once for each member */
	struct attach_handle *handle; /* owned */
	struct list members;	      /* struct attach_member.entry; never empty */
};

struct attach_member {
	struct list entry;
	struct iommufd_device *idev; /* counted */
};

/* The group's attachment at a PASID, or NULL. One of the two locks held, `handles` at least shared. */
struct attachment *attachment_find(struct device_group *dg, uint32_t pasid);
bool attachment_has(struct attachment *at, struct iommufd_device *idev);

#endif
