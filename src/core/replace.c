// SPDX-License-Identifier: MIT
/*
 * Replace: all devices of a group, or one PASID of them, go from one HWPT to another (spec devices.md 1.12).
 *
 * Members move one by one, driver first, then DMA; if one fails, those before it move back, which cannot
 * fail. The attachment stays and gets a new handle.
 */
#include "core/attach_internal.h"

#include <errno.h>

#include "base/alloc.h"
#include "core/fault.h"
#include "core/sw_msi.h"

/* Where a replace goes: members move one by one, and back if one fails. */
struct move {
	struct attachment *at;
	struct hwpt *from, *to;
	struct swi_reason *why; /* of the member that moves all */
};

static void move_back(const struct move *mv, struct list *pos)
{
	while ((pos = pos->prev) != &mv->at->members) {
		struct iommufd_device *idev = attach_member_of(pos);

		device_dma_switch_back(idev, mv->at->pasid, mv->from);
		attach_driver_set(idev, mv->at->pasid, mv->from->domain, mv->to->domain, mv->why);
	}
}

/* Moves every attached member; on failure all are where they were. */
static int move_members_locked(const struct move *mv)
{
	uint32_t pasid = mv->at->pasid;
	struct list *pos;
	int rc;

	list_for_each (pos, &mv->at->members) {
		struct iommufd_device *idev = attach_member_of(pos);

		rc = attach_driver_set(idev, pasid, mv->to->domain, mv->from->domain, mv->why);
		if (rc)
			goto undo;
		rc = device_dma_switch(idev, pasid, mv->to);
		if (rc) {
			attach_driver_set(idev, pasid, mv->from->domain, mv->to->domain, mv->why);
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
		attach_unreserve(attach_member_of(pos), ioas);
}

static int reserve_members_locked(struct iommufd_device *idev, struct attachment *at,
				  struct ioas *ioas)
{
	struct list *pos;
	int rc;

	list_for_each (pos, &at->members) {
		rc = attach_reserve(attach_member_of(pos), ioas, &idev->why);
		if (rc) {
			while ((pos = pos->prev) != &at->members)
				attach_unreserve(attach_member_of(pos), ioas);
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
	rc = attach_check_requests(idev, hwpt);
	if (rc)
		return rc;
	list_for_each (pos, &at->members) {
		struct attach_member *member = list_entry(pos, struct attach_member, entry);

		rc = attach_check_fit(member->idev, hwpt, &idev->why);
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
		rc = attach_check_pasid_locked(idev, pasid, mv->to);
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

int attach_replace_hwpt(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt, bool fresh,
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
		rc = attach_replace_hwpt(idev, pasid, hwpt, true, done);
	if (rc) {
		hwpt_abort_locked(hwpt);
		return rc;
	}
	*out = hwpt;
	return 0;
}

int attach_replace_ioas(struct iommufd_device *idev, uint32_t pasid, struct ioas *ioas,
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
		rc = attach_replace_hwpt(idev, pasid, hwpt, false, done);
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
