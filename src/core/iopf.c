// SPDX-License-Identifier: MIT
/*
 * Page requests from a device to a fault queue (spec devices.md 4.2, 4.6).
 *
 * Requests wait per device until the last one of their group comes. Then the group goes to the queue of
 * whatever the device (or its PASID) is attached to. Finding the attachment and queueing the group happen
 * under the group record's `handles` lock, shared; attach, replace and detach change attachments under the
 * same lock, exclusive, and purge the queue afterwards. So nothing is queued through an attachment that is gone.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "core/attach.h"
#include "core/fault.h"

/* A device that never ends its groups must not use up the memory. */
#define PARTIAL_MAX 65536u

struct partial {
	struct list entry;
	struct iopf_fault fault;
};

struct iopf_param {
	struct iommufd_device *idev;
	pthread_mutex_t lock;	 /* the lists */
	pthread_mutex_t respond; /* one answer at a time; a leaf but for the driver's */
	bool enabled;		 /* lock */
	struct list partials;	 /* oldest first; lock */
	uint32_t nr_partials;	 /* lock */
};

int iopf_param_create(struct iommufd_device *idev, struct iopf_param **out)
{
	struct iopf_param *param = swi_new(struct iopf_param);

	if (!param)
		return -ENOMEM;
	param->idev = idev;
	pthread_mutex_init(&param->lock, NULL);
	pthread_mutex_init(&param->respond, NULL);
	list_init(&param->partials);
	*out = param;
	return 0;
}

static void drop_partials_locked(struct iopf_param *param)
{
	while (!list_empty(&param->partials)) {
		struct partial *p = list_entry(param->partials.next, struct partial, entry);

		list_del(&p->entry);
		swi_free(p);
	}
	param->nr_partials = 0;
}

void iopf_param_destroy(struct iopf_param *param)
{
	if (!param)
		return;
	drop_partials_locked(param);
	pthread_mutex_destroy(&param->lock);
	pthread_mutex_destroy(&param->respond);
	swi_free(param);
}

void iopf_param_respond(struct iopf_param *param, const struct iopf_fault *last,
			enum iommu_page_response_code code)
{
	struct device *dev = param->idev->dev;
	struct iommu_page_response resp = {
		.pasid = last->prm.pasid, .grpid = last->prm.grpid, .code = code};

	if (!dev->iommu->page_response)
		return;
	pthread_mutex_lock(&param->respond);
	dev->iommu->page_response(dev, last, &resp);
	pthread_mutex_unlock(&param->respond);
}

/* ---- the driver's switch --------------------------------------------------------------------------- */

int iopf_queue_add_device(struct device *dev)
{
	struct iopf_param *param = dev->engine;
	int rc = 0;

	if (!dev->iommu->page_response || !param)
		return -ENODEV;
	pthread_mutex_lock(&param->lock);
	if (param->enabled)
		rc = -EBUSY;
	param->enabled = true;
	pthread_mutex_unlock(&param->lock);
	return rc;
}

void iopf_queue_discard_partial(struct device *dev)
{
	struct iopf_param *param = dev->engine;

	pthread_mutex_lock(&param->lock);
	drop_partials_locked(param);
	pthread_mutex_unlock(&param->lock);
}

void iopf_queue_remove_device(struct device *dev)
{
	struct iopf_param *param = dev->engine;

	pthread_mutex_lock(&param->lock);
	param->enabled = false;
	drop_partials_locked(param);
	pthread_mutex_unlock(&param->lock);
}

/* ---- reporting --------------------------------------------------------------------------------------- */

/* The attachment whose user is asked; NULL: there is none that takes requests. Handles shared. */
static struct attachment *find_taker(struct iommufd_device *idev, const struct iopf_fault *evt)
{
	bool has_pasid = evt->prm.flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID;
	struct attachment *at;

	at = attachment_find(idev->dgroup, has_pasid ? evt->prm.pasid : 0);
	if (!at && has_pasid && idev->dev->iommu->user_pasid_table) {
		at = attachment_find(idev->dgroup, 0);
		if (at && at->hwpt->domain->type != IOMMU_DOMAIN_NESTED)
			at = NULL;
	}
	return at && at->handle && at->hwpt->fault && attachment_has(at, idev) ? at : NULL;
}

static int add_partial(struct iopf_param *param, const struct iopf_fault *evt)
{
	struct partial *p = swi_new(struct partial);
	int rc = -ENOMEM;

	if (!p)
		return rc;
	p->fault = *evt;
	pthread_mutex_lock(&param->lock);
	if (param->nr_partials < PARTIAL_MAX) {
		list_add_tail(&param->partials, &p->entry);
		param->nr_partials++;
		rc = 0;
	}
	pthread_mutex_unlock(&param->lock);
	if (rc)
		swi_free(p);
	return rc;
}

/* The group that `last` completes. NULL: no memory; its partial requests are dropped then. */
static struct fault_group *complete_group(struct iopf_param *param, const struct iopf_fault *last)
{
	struct fault_group *group;
	struct list *pos, *tmp;
	uint32_t nr = 1;

	pthread_mutex_lock(&param->lock);
	list_for_each (pos, &param->partials)
		nr += list_entry(pos, struct partial, entry)->fault.prm.grpid == last->prm.grpid;
	group = swi_zalloc(sizeof(*group) + nr * sizeof(group->faults[0]));
	list_for_each_safe (pos, tmp, &param->partials) {
		struct partial *p = list_entry(pos, struct partial, entry);

		if (p->fault.prm.grpid != last->prm.grpid)
			continue;
		if (group)
			group->faults[group->nr++] = p->fault;
		list_del(&p->entry);
		param->nr_partials--;
		swi_free(p);
	}
	pthread_mutex_unlock(&param->lock);
	if (group)
		group->faults[group->nr++] = *last;
	return group;
}

/* Handles shared. */
static int report(struct iopf_param *param, struct attachment *at, const struct iopf_fault *evt)
{
	struct fault_group *group;

	if (!(evt->prm.flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE))
		return add_partial(param, evt);
	group = complete_group(param, evt);
	if (!group) {
		iopf_param_respond(param, evt, IOMMU_PAGE_RESP_FAILURE);
		return 0;
	}
	group->idev = param->idev;
	group->handle = at->handle;
	list_init(&group->entry);
	fault_enqueue(at->hwpt->fault, group);
	return 0;
}

int iommu_report_device_fault(struct device *dev, const struct iopf_fault *evt)
{
	struct iopf_param *param = dev->engine;
	struct device_group *dg;
	struct attachment *at;
	bool enabled;
	int rc;

	if (!param)
		return -EINVAL;
	dg = param->idev->dgroup;
	pthread_mutex_lock(&param->lock);
	enabled = param->enabled;
	pthread_mutex_unlock(&param->lock);
	pthread_rwlock_rdlock(&dg->handles);
	at = find_taker(param->idev, evt);
	if (at && enabled) {
		rc = report(param, at, evt);
	} else {
		rc = -EINVAL;
		if (evt->prm.flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE)
			iopf_param_respond(param, evt, IOMMU_PAGE_RESP_INVALID);
	}
	pthread_rwlock_unlock(&dg->handles);
	return rc;
}
