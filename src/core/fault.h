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
	struct list entry;	      /* in the queue, unread or unanswered; fault->lock */
	struct attach_handle *handle; /* through which it came; for comparison */
	struct iommufd_device *idev;  /* that made it; bound as long as the group is queued */
	uint32_t cookie;	      /* 0 while unread */
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

/* Tells the driver, and frees the group. */
void fault_respond(struct fault_group *group, enum iommu_page_response_code code);

/* What a bound device knows of its page requests (struct device.engine). */
struct iopf_param;
/* -ENOMEM */
int iopf_param_create(struct iommufd_device *idev, struct iopf_param **out);
/* NULL is allowed. Nobody reports any more. */
void iopf_param_destroy(struct iopf_param *param);
/* Calls page_response(), one call per device at a time. */
void iopf_param_respond(struct iopf_param *param, const struct iopf_fault *last,
			enum iommu_page_response_code code);

#endif
