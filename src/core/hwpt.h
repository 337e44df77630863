/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_HWPT_H
#define SWIOMMU_CORE_HWPT_H

/*
 * HWPTs. A nested one (nested.c) is a driver's translation on top of a paging one.
 *
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
	struct iommu_table_format table; /* sizes and reach of the page table; immutable */
	bool is_auto;			 /* goes away with the last attachment; immutable */
	bool nest_parent;		 /* nested HWPTs and vIOMMUs may build on it; immutable */
	bool populated;			 /* the domain has been added to the IOAS */
	/* See dirty.h. */
	bool tracks_dirty;	     /* made with DIRTY_TRACKING; immutable */
	_Atomic bool tracking;	     /* it is on */
	bool tracked;		     /* in ioas->trackers; domains lock */
	struct list tracker;	     /* in ioas->trackers */
	bool pasid_compat;	     /* made with ALLOC_PASID; immutable */
	struct iommu_domain *domain; /* what the driver attaches devices to; immutable */
	struct iommu_domain paging;  /* `domain` of a paging HWPT */
	struct fault *fault;	     /* counted; NULL: page requests are refused; immutable */
	struct hwpt *base;	     /* the page table under it: itself, or that of its parent; immutable */
	_Atomic(uint64_t) flushes;   /* of a nested HWPT: changes with each iommu_domain_flush() */
	/* Of a nested HWPT one of these, counted; its `ioas` is that of the parent, not counted here. */
	struct hwpt *parent;
	struct viommu *viommu;
};

extern const struct obj_ops hwpt_ops;

static inline struct hwpt *hwpt_of(struct obj *obj)
{
	return container_of(obj, struct hwpt, obj);
}

/* The page table under a HWPT: its own, or the one that a nested HWPT builds on (see nested.c). */
static inline struct hwpt *hwpt_paging(const struct hwpt *hwpt)
{
	return hwpt->base;
}

/* An unpublished HWPT, not populated yet. ioas->mutex held. -ENOMEM, -EBUSY. */
int hwpt_create_locked(struct ioas *ioas, const struct iommu_driver *driver, bool is_auto,
		       struct hwpt **out);
/* Adds the domain to the IOAS: see ioas_add_domain(). ioas->mutex held. */
int hwpt_populate_locked(struct hwpt *hwpt, struct swi_reason *why);
/* Undoes create and populate. The HWPT was never published. ioas->mutex held. */
void hwpt_abort_locked(struct hwpt *hwpt);
/* Drops an attachment's reference; an automatic HWPT without attachments is destroyed. No lock held. */
void hwpt_put_attachment(struct hwpt *hwpt);

#endif
