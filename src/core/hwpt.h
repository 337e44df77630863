/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_HWPT_H
#define SWIOMMU_CORE_HWPT_H

/*
 * A paging HWPT: a page table that mirrors one IOAS, made for the IOMMU of some device.
 *
 * Its domain holds no table of its own: a device attached to it translates by the IOVA map of the IOAS, which
 * says the same. What the HWPT adds is the domain's demands on the IOAS (alignment, aperture, pinned memory) and
 * the object that attach and replace name.
 */

#include "core/ioas.h"
#include <swiommu/driver.h>

struct hwpt {
	struct obj obj;
	struct ioas *ioas; /* holds a reference on its object */
	struct list entry; /* in ioas->hwpts; ioas->mutex */
	const struct iommu_driver *driver;
	bool is_auto; /* goes away with the last attachment; immutable */
	bool nest_parent; /* nested HWPTs and vIOMMUs may build on it; immutable */
	bool populated; /* the domain has been added to the IOAS */
};

extern const struct obj_ops hwpt_ops;

static inline struct hwpt *hwpt_of(struct obj *obj)
{
	return container_of(obj, struct hwpt, obj);
}

/* An unpublished HWPT, not populated yet. ioas->mutex held. -ENOMEM, -EBUSY. */
int hwpt_create_locked(struct ioas *ioas, const struct iommu_driver *driver, bool is_auto, struct hwpt **out);
/* Adds the domain to the IOAS: see ioas_add_domain(). ioas->mutex held. */
int hwpt_populate_locked(struct hwpt *hwpt, struct swi_reason *why);
/* Undoes create and populate. The HWPT was never published. ioas->mutex held. */
void hwpt_abort_locked(struct hwpt *hwpt);
/* Drops an attachment's reference; an automatic HWPT without attachments is destroyed. No lock held. */
void hwpt_put_attachment(struct hwpt *hwpt);

#endif
