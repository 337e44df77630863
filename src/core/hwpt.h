/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_HWPT_H
#define SWIOMMU_CORE_HWPT_H

/*
 * HWPTs. A nested one (nested.c) is a driver's translation on top of a paging one.
 *
 * A paging HWPT: a page table that mirrors one IOAS (domain.h), made for the IOMMU of some device, and the object that
 * attach and replace name. A device that is attached to it translates by the table.
 */

#include "core/domain.h"
#include "core/ioas.h"
#include <swiommu/driver.h>

struct hwpt {
	struct obj obj;
	struct ioas *ioas; /* holds a reference on its object */
	struct list entry; /* in ioas->hwpts; ioas->mutex */
	const struct iommu_driver *driver;
	struct iommu_table_format table; /* sizes and reach of the page table; immutable */
	struct domain tables;		 /* the page table itself */
	uint64_t sw_msi;		 /* doorbells that are in it; see sw_msi.h */
	uint64_t serial;		 /* of the context's page tables; immutable */
	bool is_auto;			 /* goes away with the last attachment; immutable */
	bool nest_parent;		 /* nested HWPTs and vIOMMUs may build on it; immutable */
	bool populated;			 /* the domain has been added to the IOAS */
	/* See dirty.h. */
	bool tracks_dirty;	     /* made with DIRTY_TRACKING; immutable */
	_Atomic bool tracking;	     /* it is on */
	bool pasid_compat;	     /* made with ALLOC_PASID; immutable */
	struct iommu_domain *domain; /* what the driver attaches devices to; immutable */
	struct iommu_domain paging;  /* `domain` of a paging HWPT */
	struct fault *fault;	     /* counted; NULL: page requests are refused; immutable */
	struct hwpt *base; /* the page table under it: itself, or that of its parent; immutable */
	_Atomic(uint64_t) flushes; /* of a nested HWPT: changes with each iommu_domain_flush() */
	/* Of a nested HWPT one of these, counted; its `ioas` is that of the parent, not counted here. */
	struct hwpt *parent;
	struct viommu *viommu;
};

static inline struct hwpt *hwpt_of(struct obj *obj)
{
	return container_of(obj, struct hwpt, obj);
}

/* The page table under a HWPT: its own, or the one that a nested HWPT builds on (see nested.c). */
static inline struct hwpt *hwpt_paging(const struct hwpt *hwpt)
{
	return hwpt->base;
}

/* What page tables a driver makes when no data says otherwise. */
struct iommu_table_format hwpt_default_format(const struct iommu_driver *driver);
struct iommufd_device;
/*
 * An unpublished HWPT with an empty page table for a device, not populated yet. format: NULL for the default. flags:
 * IOMMU_HWPT_ALLOC_... ioas->mutex held. -ENOMEM, -EBUSY, -EINVAL (no such table).
 */
int hwpt_create_locked(struct ioas *ioas, struct iommufd_device *idev, bool is_auto,
		       const struct iommu_table_format *format, uint32_t flags,
		       struct swi_reason *why, struct hwpt **out);
/* Adds the domain to the IOAS: see ioas_add_domain(). ioas->mutex held. */
int hwpt_populate_locked(struct hwpt *hwpt, struct swi_reason *why);
/* Undoes create and populate. The HWPT was never published. ioas->mutex held. */
void hwpt_abort_locked(struct hwpt *hwpt);
/* Where an IOVA is by the page table of a paging HWPT; 0: nowhere. */
phys_t hwpt_iova_to_phys(struct hwpt *hwpt, iova_t iova);
/*
 * What the page table of a paging HWPT leads to: the backing, counted, and the byte in it. -ENOENT: nothing, or no memory
 * of a backing.
 */
int hwpt_find_backing(struct hwpt *hwpt, iova_t iova, struct backing **out, uint64_t *offset);
/* Drops an attachment's reference; an automatic HWPT without attachments is destroyed. No lock held. */
void hwpt_put_attachment(struct hwpt *hwpt);

#endif
