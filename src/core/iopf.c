// SPDX-License-Identifier: MIT
/*
 * Page requests from a device to a fault queue (spec devices.md 4.2, 4.6).
 *
 * Requests wait per device until the last one of their group comes. Then the group goes to the queue of
 * whatever the device (or its PASID) is attached to. Finding the attachment and queueing the group happen
 * under the group record's `handles` lock, shared; attach, replace and detach change attachments under the
 * same lock, exclusive, and purge the queue afterwards. So nothing is queued through an attachment that is gone.
 *
 * The engine is a device too: a DMA handle with page requests asks with iopf_ask() and sleeps until its group is answered,
 * or it is told to give up. A group that has been given up stays in the queue until the user or a detach answers it.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "core/attach.h"
#include "core/fault.h"

/* A device that never ends its groups, or whose groups nobody answers, must not use up the memory. */
#define PARTIAL_MAX 65536u
#define GROUPS_MAX 65536u
/* PCI Express has 9 bits for the index of a group. */
#define NR_GRPIDS 512u

struct partial {
	struct list entry;
	struct iopf_fault fault;
};

struct iopf_param {
	struct iommufd_device *idev;
	pthread_mutex_t lock;	 /* the lists */
	pthread_mutex_t respond; /* one answer at a time; a leaf but for the driver's */
	pthread_cond_t answered; /* some wait has ended, or may have; with `respond` */
	bool enabled;		 /* lock */
	struct list partials;	 /* oldest first; lock */
	uint32_t nr_partials;	 /* lock */
	uint32_t nr_groups;	 /* without an answer; respond */
	uint32_t next_grpid;	 /* of the engine's own requests; respond */
};

/* A DMA that waits; on its stack. `respond` guards it. */
struct iopf_wait {
	struct fault_group *group; /* NULL: answered */
	enum iommu_page_response_code code;
};

struct iommufd_device *device_of_bound(struct device *dev)
{
	struct iopf_param *param = dev->engine;

	return param ? param->idev : NULL;
}

int iopf_param_create(struct iommufd_device *idev, struct iopf_param **out)
{
	struct iopf_param *param = swi_new(struct iopf_param);

	if (!param)
		return -ENOMEM;
	param->idev = idev;
	pthread_mutex_init(&param->lock, NULL);
	pthread_mutex_init(&param->respond, NULL);
	pthread_cond_init(&param->answered, NULL);
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
	pthread_cond_destroy(&param->answered);
	pthread_mutex_destroy(&param->respond);
	swi_free(param);
}

static void tell_driver_locked(struct iopf_param *param, const struct iopf_fault *last,
			       enum iommu_page_response_code code)
{
	struct device *dev = param->idev->dev;
	struct iommu_page_response resp = {
		.pasid = last->prm.pasid, .grpid = last->prm.grpid, .code = code};

	if (param->idev->driver->page_response)
		param->idev->driver->page_response(dev, last, &resp);
}

static void refuse(struct iopf_param *param, const struct iopf_fault *last,
		   enum iommu_page_response_code code)
{
	pthread_mutex_lock(&param->respond);
	tell_driver_locked(param, last, code);
	pthread_mutex_unlock(&param->respond);
}

void iopf_param_respond(struct iopf_param *param, struct fault_group *group,
			enum iommu_page_response_code code)
{
	struct iopf_wait *wait;

	pthread_mutex_lock(&param->respond);
	param->nr_groups--;
	wait = group->wait;
	if (wait) {
		wait->group = NULL;
		wait->code = code;
		pthread_cond_broadcast(&param->answered);
	} else if (!group->own) {
		tell_driver_locked(param, &group->faults[group->nr - 1], code);
	}
	pthread_mutex_unlock(&param->respond);
}

/* ---- the driver's switch --------------------------------------------------------------------------- */

int iopf_queue_add_device(struct device *dev)
{
	struct iopf_param *param = dev->engine;
	int rc = 0;

	if (!param || !param->idev->driver->page_response)
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
	if (!at && has_pasid && idev->driver->user_pasid_table) {
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

/* Takes the group over. False: the device has too many without an answer; it is freed. Handles shared. */
static bool enqueue(struct iopf_param *param, struct attachment *at, struct fault_group *group)
{
	bool fits;

	pthread_mutex_lock(&param->respond);
	fits = param->nr_groups < GROUPS_MAX;
	param->nr_groups += fits;
	pthread_mutex_unlock(&param->respond);
	if (!fits) {
		swi_free(group);
		return false;
	}
	group->idev = param->idev;
	group->handle = at->handle;
	list_init(&group->entry);
	fault_enqueue(at->hwpt->fault, group);
	return true;
}

/* Handles shared. */
static int report(struct iopf_param *param, struct attachment *at, const struct iopf_fault *evt)
{
	struct fault_group *group;

	if (!(evt->prm.flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE))
		return add_partial(param, evt);
	group = complete_group(param, evt);
	if (!group || !enqueue(param, at, group))
		refuse(param, evt, IOMMU_PAGE_RESP_FAILURE);
	return 0;
}

static bool is_enabled(struct iopf_param *param)
{
	bool enabled;

	pthread_mutex_lock(&param->lock);
	enabled = param->enabled;
	pthread_mutex_unlock(&param->lock);
	return enabled;
}

int iommu_report_device_fault(struct device *dev, const struct iopf_fault *evt)
{
	struct iopf_param *param = dev->engine;
	struct device_group *dg;
	struct attachment *at;
	int rc;

	if (!param)
		return -EINVAL;
	dg = param->idev->dgroup;
	pthread_rwlock_rdlock(&dg->handles);
	at = find_taker(param->idev, evt);
	if (at && is_enabled(param)) {
		rc = report(param, at, evt);
	} else {
		rc = -EINVAL;
		if (evt->prm.flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE)
			refuse(param, evt, IOMMU_PAGE_RESP_INVALID);
	}
	pthread_rwlock_unlock(&dg->handles);
	return rc;
}

/* ---- asking ------------------------------------------------------------------------------------------ */

/* A group of one, in which *wait is told the answer. */
static int post(struct iopf_param *param, const struct iopf_fault *evt, struct iopf_wait *wait)
{
	struct device_group *dg = param->idev->dgroup;
	struct fault_group *group = swi_zalloc(sizeof(*group) + sizeof(group->faults[0]));
	struct attachment *at;
	int rc = 0;

	if (!group)
		return -ENOMEM;
	group->own = true;
	group->wait = wait;
	wait->group = group;
	group->nr = 1;
	group->faults[0] = *evt;
	pthread_mutex_lock(&param->respond);
	group->faults[0].prm.grpid = param->next_grpid++ % NR_GRPIDS;
	pthread_mutex_unlock(&param->respond);
	pthread_rwlock_rdlock(&dg->handles);
	at = find_taker(param->idev, evt);
	if (!at || !is_enabled(param)) {
		swi_free(group);
		rc = -EINVAL;
	} else if (!enqueue(param, at, group)) {
		rc = -ENOMEM;
	}
	pthread_rwlock_unlock(&dg->handles);
	return rc;
}

int iopf_ask(struct iommufd_device *idev, const struct iopf_fault *evt,
	     const _Atomic bool *cancelled, enum iommu_page_response_code *code)
{
	struct iopf_param *param = idev->iopf;
	struct iopf_wait wait = {0};
	int rc = post(param, evt, &wait);

	*code = IOMMU_PAGE_RESP_FAILURE;
	if (rc)
		return rc;
	pthread_mutex_lock(&param->respond);
	while (wait.group && !*cancelled && !idev->requests_blocked)
		pthread_cond_wait(&param->answered, &param->respond);
	if (wait.group) {
		wait.group->wait = NULL;
		rc = -ECANCELED;
	} else {
		*code = wait.code;
	}
	pthread_mutex_unlock(&param->respond);
	return rc;
}

void iopf_wake(struct iommufd_device *idev)
{
	/* The lock: who has looked and does not sleep yet must not miss it. */
	pthread_mutex_lock(&idev->iopf->respond);
	pthread_cond_broadcast(&idev->iopf->answered);
	pthread_mutex_unlock(&idev->iopf->respond);
}
