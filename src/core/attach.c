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
 */
#include "core/attach.h"

#include <errno.h>

#include "base/alloc.h"
#include "core/ctx.h"
#include "core/dirty.h"
#include "core/dma_listener.h"
#include "core/fault.h"
#include "core/sw_msi.h"

typedef unsigned long long ull;

/* ---- who is attached ----------------------------------------------------------------------------- */

static struct attachment *attachment_of(struct rb_node *node)
{
	return container_of(node, struct attachment, node);
}

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

static struct iommufd_device *member_of(struct list *pos)
{
	return list_entry(pos, struct attach_member, entry)->idev;
}

/* ---- the driver ---------------------------------------------------------------------------------- */

static int set_rid(struct iommufd_device *idev, struct iommu_domain *domain,
		   struct iommu_domain *old)
{
	if (domain && domain->ops && domain->ops->attach_dev)
		return domain->ops->attach_dev(domain, idev->dev, old);
	if (domain && domain->takes_iopf)
		return -ENODEV;
	return 0;
}

static int set_pasid(struct iommufd_device *idev, uint32_t pasid, struct iommu_domain *domain,
		     struct iommu_domain *old, struct swi_reason *why)
{
	const struct iommu_domain *blocked = idev->driver->blocked_domain;

	if (!blocked || !blocked->ops->set_dev_pasid || !domain->ops || !domain->ops->set_dev_pasid)
		return swi_fail(why, -EOPNOTSUPP, "the IOMMU of %s (%s) has no PASIDs",
				idev->dev->name, idev->driver->name);
	if (!idev->dev->max_pasids)
		return 0;
	if (pasid >= idev->dev->max_pasids)
		return swi_fail(why, -EINVAL, "PASID %u: those of %s are below %u", pasid,
				idev->dev->name, idev->dev->max_pasids);
	return domain->ops->set_dev_pasid(domain, idev->dev, pasid, old);
}

/*
 * Has the driver move a device, or one PASID of it. On failure it is where it was. `why` is not that of the device
 * when another member of its group moves them all.
 */
static int driver_set(struct iommufd_device *idev, uint32_t pasid, struct iommu_domain *domain,
		      struct iommu_domain *old, struct swi_reason *why)
{
	int rc;

	if (device_is_noiommu(idev))
		return 0;
	rc = pasid ? set_pasid(idev, pasid, domain, old, why) : set_rid(idev, domain, old);
	if (rc && !why->text[0])
		swi_fail(why, rc, "the IOMMU (%s) does not take device %s there",
			 idev->driver->name, idev->dev->name);
	return rc;
}

static void driver_clear(struct iommufd_device *idev, uint32_t pasid, struct iommu_domain *old)
{
	struct iommu_domain *blocked = idev->driver->blocked_domain;

	if (!blocked)
		return;
	if (!pasid)
		set_rid(idev, blocked, old);
	else if (idev->dev->max_pasids)
		blocked->ops->set_dev_pasid(blocked, idev->dev, pasid, old);
}

/* What may be attached at a PASID beside what is attached at others (devices.md 1.7). */
static int check_pasid_locked(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt)
{
	struct attachment *rid = attachment_find(idev->dgroup, 0);
	struct rb_node *highest = rb_last(&idev->dgroup->attachments);

	if (pasid) {
		if (!hwpt->pasid_compat || (rid && !rid->hwpt->pasid_compat))
			return swi_fail(&idev->why, -EINVAL,
					"what a device with PASIDs is attached to must be made "
					"with ALLOC_PASID");
		return 0;
	}
	if (highest && attachment_of(highest)->pasid && !hwpt->pasid_compat)
		return swi_fail(&idev->why, -EINVAL,
				"PASIDs of %s are attached, and HWPT %u was not made with "
				"ALLOC_PASID",
				idev->dev->name, hwpt->obj.id);
	return 0;
}

/* ---- reserved regions ----------------------------------------------------------------------------- */

static int reserve_one_locked(struct iommufd_device *idev, struct ioas *ioas,
			      const struct iommu_resv_region *resv, struct swi_reason *why)
{
	int rc;

	if (resv->type == IOMMU_RESV_DIRECT_RELAXABLE)
		return 0;
	rc = iova_map_reserve(ioas->map, resv->first, resv->last, idev);
	return rc == -EADDRINUSE
		       ? swi_fail(why, rc,
				  "a mapping or allowed range lies in [%#llx, %#llx], which device "
				  "%s has reserved",
				  (ull)resv->first, (ull)resv->last, idev->dev->name)
		       : rc;
}

static int reserve_regions(struct iommufd_device *idev, struct ioas *ioas, struct swi_reason *why)
{
	struct iommu_resv_region regions[DEVICE_RESV_MAX];
	unsigned int nr;
	int rc;

	if (device_is_noiommu(idev))
		return 0;
	if (swi_fail_point())
		return swi_fail(why, -EINVAL, "injected failure to learn the reserved regions");
	rc = device_get_resv(idev->dev, idev->driver, regions, &nr, why);
	if (rc)
		return rc;
	iova_map_lock(ioas->map);
	for (unsigned int i = 0; !rc && i < nr; i++)
		rc = reserve_one_locked(idev, ioas, &regions[i], why);
	if (rc)
		iova_map_unreserve(ioas->map, idev);
	iova_map_unlock(ioas->map);
	for (unsigned int i = 0; !rc && i < nr; i++)
		if (regions[i].type == IOMMU_RESV_SW_MSI)
			idev->dgroup->sw_msi_start = regions[i].first;
	return rc;
}

static void unreserve_regions(struct iommufd_device *idev, struct ioas *ioas)
{
	iova_map_lock(ioas->map);
	iova_map_unreserve(ioas->map, idev);
	iova_map_unlock(ioas->map);
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

/* Of the device that brings its group to a HWPT. Virtual functions share the requests of their physical one. */
static int check_requests(struct iommufd_device *idev, struct hwpt *hwpt)
{
	if (hwpt->fault && idev->dev->is_vf && idev->dev->pri)
		return swi_fail(&idev->why, -EINVAL,
				"HWPT %u takes page requests, and %s is a virtual function with "
				"PRI",
				hwpt->obj.id, idev->dev->name);
	return 0;
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
	rc = check_requests(idev, hwpt);
	if (!rc)
		rc = check_pasid_locked(idev, pasid, hwpt);
	if (rc)
		return rc;
	*out = new_attachment(hwpt, pasid);
	return *out ? 0 : -ENOMEM;
}

/* What a device must be able to for a HWPT, whatever else is attached. */
static int check_fit(struct iommufd_device *idev, struct hwpt *hwpt, struct swi_reason *why)
{
	if (hwpt->driver != idev->driver)
		return swi_fail(why, -EINVAL, "HWPT %u was made for another IOMMU (%s)",
				hwpt->obj.id, hwpt->driver->name);
	if (hwpt_paging(hwpt)->paging.enforced && !idev->enforces)
		return swi_fail(why, -EINVAL,
				"DMA through HWPT %u snoops caches, which that of %s cannot be "
				"made to do",
				hwpt->obj.id, idev->dev->name);
	return dirty_check_attach(idev->dev, hwpt, why);
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
	return check_fit(idev, hwpt, &idev->why);
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
	rc = pasid ? 0 : reserve_regions(idev, hwpt->ioas, &idev->why);
	if (rc)
		goto free;
	rc = pasid ? 0 : sw_msi_install_locked(idev->dgroup, hwpt, &idev->why);
	if (rc)
		goto unreserve;
	rc = get_attachment_locked(idev, pasid, hwpt, &at, &fresh);
	if (rc)
		goto unreserve;
	rc = driver_set(idev, pasid, hwpt->domain, NULL, &idev->why);
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
		unreserve_regions(idev, hwpt->ioas);
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

	driver_clear(idev, pasid, hwpt->domain);
	pthread_rwlock_wrlock(&dg->handles);
	list_del(&member->entry);
	pthread_rwlock_unlock(&dg->handles);
	swi_free(member);
	if (list_empty(&at->members))
		unlink_attachment_locked(dg, at);
	else if (hwpt->fault)
		fault_purge(hwpt->fault, at->handle, idev);
	if (!pasid)
		unreserve_regions(idev, hwpt->ioas);
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

typedef int (*attach_fn)(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt);

/* Tries the IOAS's automatic HWPTs in order; -EINVAL means "not this one". -ENOENT: none took it. */
static int pick_auto_locked(struct iommufd_device *idev, uint32_t pasid, struct ioas *ioas,
			    attach_fn attach, struct hwpt **out)
{
	struct list *pos;
	int rc;

	list_for_each (pos, &ioas->hwpts) {
		struct hwpt *hwpt = list_entry(pos, struct hwpt, entry);

		if (!hwpt->is_auto || !obj_try_get(&hwpt->obj))
			continue;
		rc = attach(idev, pasid, hwpt);
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
	rc = pick_auto_locked(idev, pasid, ioas, attach_hwpt, &hwpt);
	if (rc == -ENOENT)
		rc = attach_new_auto_locked(idev, pasid, ioas, &hwpt);
	if (!rc)
		*out_id = hwpt->obj.id; /* destroying it takes the mutex */
	pthread_mutex_unlock(&ioas->mutex);
	return rc;
}

/* ---- replace and detach -------------------------------------------------------------------------- */

/* Where a replace goes: members move one by one, and back if one fails. */
struct move {
	struct attachment *at;
	struct hwpt *from, *to;
	struct swi_reason *why; /* of the member that moves all */
};

static void move_back(const struct move *mv, struct list *pos)
{
	while ((pos = pos->prev) != &mv->at->members) {
		struct iommufd_device *idev = member_of(pos);

		device_dma_switch_back(idev, mv->at->pasid, mv->from);
		driver_set(idev, mv->at->pasid, mv->from->domain, mv->to->domain, mv->why);
	}
}

/* Moves every attached member; on failure all are where they were. */
static int move_members_locked(const struct move *mv)
{
	uint32_t pasid = mv->at->pasid;
	struct list *pos;
	int rc;

	list_for_each (pos, &mv->at->members) {
		struct iommufd_device *idev = member_of(pos);

		rc = driver_set(idev, pasid, mv->to->domain, mv->from->domain, mv->why);
		if (rc)
			goto undo;
		rc = device_dma_switch(idev, pasid, mv->to);
		if (rc) {
			driver_set(idev, pasid, mv->from->domain, mv->to->domain, mv->why);
			goto undo;
		}
	}
	return 0;
undo:
	move_back(mv, pos);
	return rc;
}

static void unreserve_members_locked(struct attachment *at, struct ioas *ioas)
{
	struct list *pos;

	list_for_each (pos, &at->members)
		unreserve_regions(member_of(pos), ioas);
}

static int reserve_members_locked(struct iommufd_device *idev, struct attachment *at,
				  struct ioas *ioas)
{
	struct list *pos;
	int rc;

	list_for_each (pos, &at->members) {
		rc = reserve_regions(member_of(pos), ioas, &idev->why);
		if (rc) {
			while ((pos = pos->prev) != &at->members)
				unreserve_regions(member_of(pos), ioas);
			return rc;
		}
	}
	return 0;
}

static int check_replace_locked(struct iommufd_device *idev, struct attachment *at,
				struct hwpt *hwpt)
{
	struct list *pos;
	int rc;

	if (!at || !attachment_has(at, idev))
		return swi_fail(&idev->why, -EINVAL, "device %s is not attached", idev->dev->name);
	if (at->hwpt == hwpt)
		return 0;
	rc = check_requests(idev, hwpt);
	if (rc)
		return rc;
	list_for_each (pos, &at->members) {
		struct attach_member *member = list_entry(pos, struct attach_member, entry);

		rc = check_fit(member->idev, hwpt, &idev->why);
		if (rc)
			return rc;
	}
	return 0;
}

/* From here on fault reports go to the new HWPT. What is on its way to the user from the old one is answered. */
static void switch_handle_locked(struct device_group *dg, const struct move *mv,
				 struct attach_handle *handle)
{
	struct attach_handle *old = mv->at->handle;

	pthread_rwlock_wrlock(&dg->handles);
	mv->at->hwpt = mv->to;
	mv->at->handle = handle;
	pthread_rwlock_unlock(&dg->handles);
	if (mv->from->fault)
		fault_purge(mv->from->fault, old, NULL);
	swi_free(old);
}

static int move_group_locked(struct iommufd_device *idev, const struct move *mv)
{
	uint32_t pasid = mv->at->pasid;
	bool regions = !pasid && mv->from->ioas != mv->to->ioas;
	struct attach_handle *handle;
	int rc = 0;

	if (regions)
		rc = reserve_members_locked(idev, mv->at, mv->to->ioas);
	if (rc)
		return rc;
	rc = pasid ? 0 : sw_msi_install_locked(idev->dgroup, mv->to, &idev->why);
	if (!rc)
		rc = check_pasid_locked(idev, pasid, mv->to);
	if (rc)
		goto unreserve;
	handle = swi_new(struct attach_handle);
	rc = handle ? 0 : -ENOMEM;
	if (rc)
		goto unreserve;
	handle->pasid = pasid;
	rc = move_members_locked(mv);
	if (rc) {
		swi_free(handle);
		goto unreserve;
	}
	switch_handle_locked(idev->dgroup, mv, handle);
	if (regions)
		unreserve_members_locked(mv->at, mv->from->ioas);
	return 0;
unreserve:
	if (regions)
		unreserve_members_locked(mv->at, mv->to->ioas);
	return rc;
}

/* Moves the whole group (devices.md 1.12). *out_old: the HWPT to drop, `moved` times. */
static int replace_group_locked(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt,
				struct hwpt **out_old, unsigned int *moved)
{
	struct move mv = {
		.at = attachment_find(idev->dgroup, pasid), .to = hwpt, .why = &idev->why};
	struct list *pos;
	int rc;

	rc = check_replace_locked(idev, mv.at, hwpt);
	if (rc || mv.at->hwpt == hwpt)
		return rc;
	mv.from = mv.at->hwpt;
	rc = move_group_locked(idev, &mv);
	if (rc)
		return rc;
	list_for_each (pos, &mv.at->members) {
		obj_hold(&hwpt->obj);
		++*moved;
	}
	*out_old = mv.from;
	return 0;
}

struct replace {
	struct hwpt *old; /* what to drop when all locks are gone */
	unsigned int moved;
};

static int replace_hwpt(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt, bool fresh,
			struct replace *done)
{
	int rc;

	pthread_mutex_lock(&idev->dgroup->lock);
	rc = replace_group_locked(idev, pasid, hwpt, &done->old, &done->moved);
	/* A new one: before another member of the group can detach, and so destroy it. */
	if (!rc && fresh)
		obj_publish(&hwpt->obj);
	pthread_mutex_unlock(&idev->dgroup->lock);
	return rc;
}

/* ioas->mutex held. */
static int replace_new_auto_locked(struct iommufd_device *idev, uint32_t pasid, struct ioas *ioas,
				   struct hwpt **out, struct replace *done)
{
	struct hwpt *hwpt;
	int rc;

	rc = hwpt_create_locked(ioas, idev, true, NULL, 0, &idev->why, &hwpt);
	if (rc)
		return rc;
	rc = hwpt_populate_locked(hwpt, &idev->why);
	if (!rc)
		rc = replace_hwpt(idev, pasid, hwpt, true, done);
	if (rc) {
		hwpt_abort_locked(hwpt);
		return rc;
	}
	*out = hwpt;
	return 0;
}

static int replace_ioas(struct iommufd_device *idev, uint32_t pasid, struct ioas *ioas,
			uint32_t *out_id, struct replace *done)
{
	struct hwpt *hwpt = NULL;
	struct list *pos;
	int rc = -EINVAL;

	pthread_mutex_lock(&ioas->mutex);
	list_for_each (pos, &ioas->hwpts) {
		hwpt = list_entry(pos, struct hwpt, entry);
		if (!hwpt->is_auto || !obj_try_get(&hwpt->obj))
			continue;
		rc = replace_hwpt(idev, pasid, hwpt, false, done);
		obj_put(&hwpt->obj);
		if (rc != -EINVAL)
			break;
	}
	if (rc == -EINVAL)
		rc = replace_new_auto_locked(idev, pasid, ioas, &hwpt, done);
	if (!rc)
		*out_id = hwpt->obj.id;
	pthread_mutex_unlock(&ioas->mutex);
	return rc;
}

static int attach_to(struct iommufd_device *idev, uint32_t pasid, struct obj *obj, uint32_t *out_id,
		     struct replace *replace)
{
	if (obj->ops->type == OBJ_IOAS)
		return replace ? replace_ioas(idev, pasid, ioas_of(obj), out_id, replace)
			       : attach_ioas(idev, pasid, ioas_of(obj), out_id);
	if (obj->ops->type != OBJ_HWPT_PAGING && obj->ops->type != OBJ_HWPT_NESTED)
		return swi_fail(&idev->why, -EINVAL, "pt_id %u is a %s, neither an IOAS nor a HWPT",
				obj->id, obj->ops->name);
	*out_id = obj->id;
	return replace ? replace_hwpt(idev, pasid, hwpt_of(obj), false, replace)
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
