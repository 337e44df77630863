/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_SW_MSI_H
#define SWIOMMU_CORE_SW_MSI_H

/*
 * Software MSI (spec devices.md 1.9): doorbells for interrupts that devices must reach through their page tables.
 *
 * A context gives each doorbell page, for each start of a window, the next page of that window, and a number below 64. A
 * group remembers the numbers that its devices need, a page table those that it holds; whatever the group is
 * attached to gets what is missing.
 */

#include <pthread.h>

#include "base/base.h"
#include "base/reason.h"

#define SW_MSI_NONE UINT64_MAX
#define SW_MSI_PAGES 64u

struct sw_msi_page {
	uint64_t start;	 /* of the window */
	uint64_t pa;	 /* of the doorbell's page */
	uint64_t offset; /* in the window */
};

/* In the context. The lock is taken inside of those of groups; held while page tables change. */
struct sw_msi {
	pthread_mutex_t lock;
	struct sw_msi_page pages[SW_MSI_PAGES]; /* lock */
	unsigned int nr;			/* lock */
};

struct device_group;
struct hwpt;

/*
 * Lets the HWPT (or the page table under it) have the doorbells that the group needs, before the group is attached to it.
 * dgroup->lock held. -ENOMEM; those that are there by then stay.
 */
int sw_msi_install_locked(struct device_group *dg, struct hwpt *hwpt, struct swi_reason *why);

#endif
