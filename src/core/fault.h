/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_FAULT_H
#define SWIOMMU_CORE_FAULT_H

/*
 * Fault queues: page requests of devices on their way to the user, and answers on their way back (spec
 * devices.md 4).
 *
 *   fault.c  the queue object and its file
 *   iopf.c   from the device to a queue: groups of requests, and who takes them
 */

#include "base/list.h"
#include "core/device.h"

struct fault;
struct attach_handle;

/* Page requests that are answered together: the last one, which closes the group, comes last. */
struct fault_group {
	struct list entry;	      /* in the queue while unread; fault->lock */
	struct rb_node node;	      /* in the queue while unanswered; fault->lock */
	struct attach_handle *handle; /* through which it came; for comparison */
	struct iommufd_device *idev;  /* that made it; bound as long as the group is queued */
	/*
	 * It is DMA of the engine's own that waits, not the driver, who hears nothing of it; the waiter, NULL when it has
	 * given up. The device's answers lock.
	 */
	bool own;
	struct iopf_wait *wait;
	uint32_t cookie; /* 0 while unread */
	uint32_t nr;
	struct iopf_fault faults[];
};

struct fault *fault_of(struct obj *obj);
struct obj *fault_obj(struct fault *fault);

/* Takes the group over. The handle is one whose HWPT uses the queue, and cannot go meanwhile. */
void fault_enqueue(struct fault *fault, struct fault_group *group);
/*
 * Answers as invalid what came through the handle (of `idev` only, if that is not NULL) and has no answer. Nothing
 * comes through it any more.
 */
void fault_purge(struct fault *fault, const struct attach_handle *handle,
		 const struct iommufd_device *idev);

/* What a bound device knows of its page requests (struct device.engine). */
struct iopf_param;
/* The device that a driver's bound one is here; NULL: it is not bound. */
struct iommufd_device *device_of_bound(struct device *dev);
/* -ENOMEM */
int iopf_param_create(struct iommufd_device *idev, struct iopf_param **out);
/* NULL is allowed. Nobody reports any more. */
void iopf_param_destroy(struct iopf_param *param);
/* Passes the answer on to who waits for the group, and lets go of it. */
void iopf_param_respond(struct iopf_param *param, struct fault_group *group,
			enum iommu_page_response_code code);
/*
 * The page request of a DMA of the engine's own; waits for the answer. 0 with the answer; -ECANCELED: *cancelled has become
 * true, or requests of the device are blocked; -EINVAL: nobody takes it; -ENOMEM.
 */
int iopf_ask(struct iommufd_device *idev, const struct iopf_fault *evt,
	     const _Atomic bool *cancelled, enum iommu_page_response_code *code);
/* Has all waiters look again whether they are cancelled. */
void iopf_wake(struct iommufd_device *idev);

#endif
