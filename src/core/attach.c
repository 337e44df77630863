// SPDX-License-Identifier: MIT
/*
 * Attach, replace and detach, of whole devices and of single PASIDs (spec devices.md 1.4 to 1.13).
 *
 * Attaching to an IOAS tries its automatic HWPTs in order and makes one when none fits. Everything
 * that can fail comes before the device's DMA is let in, which is the last step (device_dma_switch);
 * detaching begins with the same step the other way round. So DMA only ever meets an IOAS whose
 * areas are pinned.
 *
 * Devices of a group share their attachments. Each attachment has a handle, a name that is never used again:
 * when it goes, what has come through it and waits in a fault queue is answered. The driver is told of
 * each device when it attaches itself.
 *
 * What the driver and the device have to say to it is in attach_rules.c, replace in replace.c.
 */
#include "core/attach_internal.h"

#include <errno.h>

#include "base/alloc.h"
#include "core/ctx.h"
#include "core/dma_listener.h"
#include "core/fault.h"
#include "core/sw_msi.h"

/* ---- who is attached ----------------------------------------------------------------------------- */

struct attachment *attachment_find(struct device_group *dg, uint32_t pasid)
{
	struct rb_node *node = dg->attachments.root;

	while (node) {
		struct attachment *at = attachment_of(node);

		if (at->pasid == pasid)
			return at;
		node = pasid < at->pasid ? node->left : node->right;
	}
	return NULL;
}

/* There is none at its PASID yet. */
static void insert_attachment_locked(struct device_group *dg, struct attachment *at)
{
	struct rb_node *parent = NULL, **link = &dg->attachments.root;

	while (*link) {
		parent = *link;
		link = at->pasid < attachment_of(parent)->pasid ? &parent->left : &parent->right;
	}
	rb_insert(&dg->attachments, &at->node, parent, link);
}

static struct attach_member *find_member(struct attachment *at, struct iommufd_device *idev)
{
	struct list *pos;

	list_for_each (pos, &at->members) {
		struct attach_member *m = list_entry(pos, struct attach_member, entry);

		if (m->idev == idev)
			return m;
	}
	return NULL;
}

bool attachment_has(struct attachment *at, struct iommufd_device *idev)
{
	return find_member(at, idev);
}

/* ---- attach -------------------------------------------------------------------------------------- */

/* Takes an attachment that is about to go out of sight of fault reports, and answers what came through it. */
static void unlink_attachment_locked(struct device_group *dg, struct attachment *at)
{
	pthread_rwlock_wrlock(&dg->handles);
	rb_erase(&dg->attachments, &at->node);
	pthread_rwlock_unlock(&dg->handles);
	if (at->hwpt->fault)
		fault_purge(at->hwpt->fault, at->handle, NULL);
	swi_free(at->handle);
	swi_free(at);
}

static struct attachment *new_attachment(struct hwpt *hwpt, uint32_t pasid)
{
	struct attachment *at = swi_new(struct attachment);

	if (!at)
		return NULL;
	at->handle = swi_new(struct attach_handle);
	if (!at->handle) {
		swi_free(at);
		return NULL;
	}
	at->handle->pasid = pasid;
	at->pasid = pasid;
	at->hwpt = hwpt;
	list_init(&at->members);
	return at;
}

static void add_member_locked(struct device_group *dg, struct attachment *at,
			      struct attach_member *member)
{
	pthread_rwlock_wrlock(&dg->handles);
	list_add_tail(&at->members, &member->entry);
	if (!attachment_find(dg, at->pasid))
		insert_attachment_locked(dg, at);
	pthread_rwlock_unlock(&dg->handles);
	obj_hold(&at->hwpt->obj);
	obj_hold(&member->idev->obj);
}

/* The attachment of the group at the PASID, or a new one. Checks what both share (devices.md 1.5). */
static int get_attachment_locked(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt,
				 struct attachment **out, bool *fresh)
{
	struct attachment *at = attachment_find(idev->dgroup, pasid);
	int rc;

	*out = at;
	*fresh = !at;
	if (at)
		return 0;
	rc = attach_check_requests(idev, hwpt);
	if (!rc)
		rc = attach_check_pasid_locked(idev, pasid, hwpt);
	if (rc)
		return rc;
	*out = new_attachment(hwpt, pasid);
	return *out ? 0 : -ENOMEM;
}

static int check_attach_locked(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt)
{
	struct attachment *at = attachment_find(idev->dgroup, pasid);

	if (at && attachment_has(at, idev))
		return swi_fail(&idev->why, -EBUSY, "device %s is attached already",
				idev->dev->name);
	if (at && at->hwpt != hwpt)
		return swi_fail(&idev->why, -EINVAL,
				"the IOMMU group %u of device %s is attached to HWPT %u already",
				idev->dgroup->group->id, idev->dev->name, at->hwpt->obj.id);
	return attach_check_fit(idev, hwpt, &idev->why);
}

/* Steps 1 to 6 of devices.md 1.5 but for letting DMA in. The attachment takes its references. */
static int attach_begin_locked(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt)
{
	struct attach_member *member;
	struct attachment *at;
	bool fresh;
	int rc;

	rc = check_attach_locked(idev, pasid, hwpt);
	if (rc)
		return rc;
	member = swi_new(struct attach_member);
	if (!member)
		return -ENOMEM;
	member->idev = idev;
	rc = pasid ? 0 : attach_reserve(idev, hwpt->ioas, &idev->why);
	if (rc)
		goto free;
	rc = pasid ? 0 : sw_msi_install_locked(idev->dgroup, hwpt, &idev->why);
	if (rc)
		goto unreserve;
	rc = get_attachment_locked(idev, pasid, hwpt, &at, &fresh);
	if (rc)
		goto unreserve;
	rc = attach_driver_set(idev, pasid, hwpt->domain, NULL, &idev->why);
	if (rc)
		goto drop;
	add_member_locked(idev->dgroup, at, member);
	return 0;
drop:
	if (fresh) {
		swi_free(at->handle);
		swi_free(at);
	}
unreserve:
	if (!pasid)
		attach_unreserve(idev, hwpt->ioas);
free:
	swi_free(member);
	return rc;
}

/* Undoes attach_begin_locked() but for the HWPT's reference, which the caller drops without locks. */
static void attach_end_locked(struct iommufd_device *idev, struct attachment *at)
{
	struct attach_member *member = find_member(at, idev);
	struct device_group *dg = idev->dgroup;
	struct hwpt *hwpt = at->hwpt;
	uint32_t pasid = at->pasid;

	attach_driver_clear(idev, pasid, hwpt->domain);
	pthread_rwlock_wrlock(&dg->handles);
	list_del(&member->entry);
	pthread_rwlock_unlock(&dg->handles);
	swi_free(member);
	if (list_empty(&at->members))
		unlink_attachment_locked(dg, at);
	else if (hwpt->fault)
		fault_purge(hwpt->fault, at->handle, idev);
	if (!pasid)
		attach_unreserve(idev, hwpt->ioas);
	obj_unhold(&idev->obj);
}

static int attach_hwpt(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt)
{
	int rc;

	pthread_mutex_lock(&idev->dgroup->lock);
	rc = attach_begin_locked(idev, pasid, hwpt);
	if (rc)
		goto out;
	rc = device_dma_switch(idev, pasid, hwpt);
	if (rc) {
		attach_end_locked(idev, attachment_find(idev->dgroup, pasid));
		obj_unhold(&hwpt->obj);
	}
out:
	pthread_mutex_unlock(&idev->dgroup->lock);
	return rc;
}

/* A new automatic HWPT for the device; devices.md 1.6 step 2. ioas->mutex held. */
static int attach_new_auto_locked(struct iommufd_device *idev, uint32_t pasid, struct ioas *ioas,
				  struct hwpt **out)
{
	struct hwpt *hwpt;
	int rc;

	rc = hwpt_create_locked(ioas, idev, true, NULL, 0, &idev->why, &hwpt);
	if (rc)
		return rc;
	pthread_mutex_lock(&idev->dgroup->lock);
	rc = attach_begin_locked(idev, pasid, hwpt);
	if (rc)
		goto unlock;
	rc = hwpt_populate_locked(hwpt, &idev->why);
	if (!rc)
		rc = device_dma_switch(idev, pasid, hwpt);
	if (rc) {
		attach_end_locked(idev, attachment_find(idev->dgroup, pasid));
		obj_unhold(&hwpt->obj);
	} else {
		/* Before another member of the group can detach, and so destroy it. */
		obj_publish(&hwpt->obj);
	}
unlock:
	pthread_mutex_unlock(&idev->dgroup->lock);
	if (rc) {
		hwpt_abort_locked(hwpt);
		return rc;
	}
	*out = hwpt;
	return 0;
}

/* Tries the IOAS's automatic HWPTs in order; -EINVAL means "not this one". -ENOENT: none took it. */
static int pick_auto_locked(struct iommufd_device *idev, uint32_t pasid, struct ioas *ioas,
			    struct hwpt **out)
{
	struct list *pos;
	int rc;

	list_for_each (pos, &ioas->hwpts) {
		struct hwpt *hwpt = list_entry(pos, struct hwpt, entry);

		if (!hwpt->is_auto || !obj_try_get(&hwpt->obj))
			continue;
		rc = attach_hwpt(idev, pasid, hwpt);
		obj_put(&hwpt->obj);
		if (rc == -EINVAL)
			continue;
		*out = hwpt;
		return rc;
	}
	return -ENOENT;
}

/* On success the HWPT may be gone as soon as this returns; hence only its ID. */
static int attach_ioas(struct iommufd_device *idev, uint32_t pasid, struct ioas *ioas,
		       uint32_t *out_id)
{
	struct hwpt *hwpt = NULL;
	int rc;

	pthread_mutex_lock(&ioas->mutex);
	rc = pick_auto_locked(idev, pasid, ioas, &hwpt);
	if (rc == -ENOENT)
		rc = attach_new_auto_locked(idev, pasid, ioas, &hwpt);
	if (!rc)
		*out_id = hwpt->obj.id; /* destroying it takes the mutex */
	pthread_mutex_unlock(&ioas->mutex);
	return rc;
}

/* ---- the calls ------------------------------------------------------------------------------------ */

static int attach_to(struct iommufd_device *idev, uint32_t pasid, struct obj *obj, uint32_t *out_id,
		     struct replace *replace)
{
	if (obj->ops->type == OBJ_IOAS)
		return replace ? attach_replace_ioas(idev, pasid, ioas_of(obj), out_id, replace)
			       : attach_ioas(idev, pasid, ioas_of(obj), out_id);
	if (obj->ops->type != OBJ_HWPT_PAGING && obj->ops->type != OBJ_HWPT_NESTED)
		return swi_fail(&idev->why, -EINVAL, "pt_id %u is a %s, neither an IOAS nor a HWPT",
				obj->id, obj->ops->name);
	*out_id = obj->id;
	return replace ? attach_replace_hwpt(idev, pasid, hwpt_of(obj), false, replace)
		       : attach_hwpt(idev, pasid, hwpt_of(obj));
}

static int attach_or_replace(struct iommufd_device *idev, uint32_t pasid, uint32_t *pt_id,
			     struct replace *replace)
{
	uint32_t id = 0;
	struct obj *obj;
	int rc;

	idev->why.text[0] = '\0';
	rc = obj_get(idev->ctx, *pt_id, OBJ_ANY, "pt_id", &idev->why, &obj);
	if (rc)
		return rc;
	rc = attach_to(idev, pasid, obj, &id, replace);
	if (!rc)
		*pt_id = id;
	obj_put(obj);
	return rc;
}

int iommufd_device_attach(struct iommufd_device *idev, uint32_t pasid, uint32_t *pt_id)
{
	uint32_t asked = *pt_id;
	int rc = attach_or_replace(idev, pasid, pt_id, NULL);

	if (rc || pasid)
		return rc;
	rc = dma_listeners_follow(idev->dgroup, &idev->why);
	if (rc) {
		iommufd_device_detach(idev, pasid);
		*pt_id = asked;
	}
	return rc;
}

int iommufd_device_replace(struct iommufd_device *idev, uint32_t pasid, uint32_t *pt_id)
{
	struct replace done = {0};
	int rc = attach_or_replace(idev, pasid, pt_id, &done);
	struct swi_reason why = {""};

	/* There is no way back that could not fail as well: a listener that failed is left without mappings. */
	if (done.moved && !pasid && dma_listeners_follow(idev->dgroup, &why))
		swi_log(&idev->ctx->log, SWI_LOG_WARN, "%s: the new mappings cannot be told: %s",
			idev->dev->name, why.text);
	while (done.moved--)
		hwpt_put_attachment(done.old);
	return rc;
}

void iommufd_device_detach(struct iommufd_device *idev, uint32_t pasid)
{
	struct device_group *dg = idev->dgroup;
	struct hwpt *hwpt = NULL;
	struct attachment *at;

	pthread_mutex_lock(&dg->lock);
	at = attachment_find(dg, pasid);
	if (at && attachment_has(at, idev)) {
		hwpt = at->hwpt;
		device_dma_switch(idev, pasid, NULL);
		attach_end_locked(idev, at);
	}
	pthread_mutex_unlock(&dg->lock);
	if (hwpt && !pasid)
		dma_listeners_follow(dg, NULL);
	if (hwpt)
		hwpt_put_attachment(hwpt);
	else if (at)
		swi_log(&idev->ctx->log, SWI_LOG_WARN,
			"device %s is detached, but was not attached", idev->dev->name);
}

/* What the device is attached to at some PASID, or NULL. */
static struct hwpt *find_attached(struct iommufd_device *idev, uint32_t *pasid)
{
	struct hwpt *found = NULL;
	struct rb_node *node;

	pthread_mutex_lock(&idev->dgroup->lock);
	node = rb_last(&idev->dgroup->attachments);
	for (; node && !found; node = rb_prev(node)) {
		struct attachment *at = attachment_of(node);

		if (!attachment_has(at, idev))
			continue;
		*pasid = at->pasid;
		found = at->hwpt;
	}
	pthread_mutex_unlock(&idev->dgroup->lock);
	return found;
}

static bool detach_one(struct obj *obj, void *data)
{
	uint32_t pasid;

	(void)data;
	while (find_attached(device_of(obj), &pasid))
		iommufd_device_detach(device_of(obj), pasid);
	return false;
}

void device_detach_all(struct iommufd_ctx *ctx)
{
	obj_for_each(ctx, OBJ_DEVICE, detach_one, NULL);
}

void device_abandon(struct iommufd_device *idev)
{
	struct hwpt *hwpt;
	uint32_t pasid;

	while ((hwpt = find_attached(idev, &pasid))) {
		obj_hold_forever(&hwpt->obj);
		obj_hold_forever(&idev->obj);
		iommufd_device_detach(idev, pasid);
	}
}

const char *swiommu_device_reason(struct iommufd_device *idev)
{
	return idev->why.text;
}
