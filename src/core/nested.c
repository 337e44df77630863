// SPDX-License-Identifier: MIT
/*
 * Nested HWPTs: a driver's translation, owned by a guest, on top of a paging HWPT or of a vIOMMU (spec
 * devices.md 2.4, 2.5, 2.11), and IOMMU_HWPT_INVALIDATE.
 *
 * A nested HWPT is a struct hwpt without a page table: it has the driver's domain, and for attaching the IOAS of
 * the paging HWPT below, which it holds directly or through its vIOMMU.
 */
#include "core/nested.h"

#include <errno.h>

#include "core/ctx.h"
#include "core/fault.h"
#include "core/viommu.h"

void nested_count_flush(struct hwpt *hwpt)
{
	hwpt->flushes = ++hwpt->obj.ctx->flushes;
}

static void nested_destroy(struct obj *obj)
{
	struct hwpt *hwpt = hwpt_of(obj);

	if (hwpt->domain && hwpt->domain->ops->free)
		hwpt->domain->ops->free(hwpt->domain);
	if (hwpt->fault)
		obj_unhold(fault_obj(hwpt->fault));
	obj_unhold(hwpt->viommu ? &hwpt->viommu->obj : &hwpt->parent->obj);
}

static const struct obj_ops nested_ops = {
	.type = OBJ_HWPT_NESTED,
	.name = "nested HWPT",
	.size = sizeof(struct hwpt),
	.destroy = nested_destroy,
};

/* ---- HWPT_ALLOC ------------------------------------------------------------------------------------ */

static struct iommu_user_data user_data(struct call *call)
{
	const struct iommu_hwpt_alloc *cmd = (void *)call->cmd.bytes;

	return (struct iommu_user_data){
		.type = cmd->data_type, .uptr = cmd->data_uptr, .len = cmd->data_len, .call = call};
}

static int check_flags(struct call *call, bool offered)
{
	const struct iommu_hwpt_alloc *cmd = (void *)call->cmd.bytes;

	if (cmd->flags & ~(IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID) || !cmd->data_len)
		return swi_fail(call->why, -EOPNOTSUPP,
				"a nested HWPT needs data and has no such flags");
	if (!offered)
		return swi_fail(call->why, -EOPNOTSUPP,
				"the IOMMU of the device cannot nest page tables");
	return 0;
}

/*
 * Takes the object over; `domain` is what the driver made, or its error. One of another type is not taken, nor freed: it may
 * be in use elsewhere.
 */
static int finish(struct call *call, struct hwpt *hwpt, struct iommu_domain *domain)
{
	int rc = 0;

	if (IS_ERR(domain)) {
		rc = PTR_ERR(domain);
		if (!call->why->text[0])
			swi_fail(call->why, rc, "the driver (%s) does not make such a domain",
				 hwpt->driver->name);
	} else if (!domain || domain->type != IOMMU_DOMAIN_NESTED || !domain->ops) {
		rc = swi_fail(call->why, -EOPNOTSUPP,
			      "the driver (%s) has not made a nested domain", hwpt->driver->name);
	}
	if (rc) {
		obj_abort(&hwpt->obj, true);
		return rc;
	}
	hwpt->domain = domain;
	domain->engine = hwpt;
	call->new_obj = &hwpt->obj;
	return 0;
}

static int create(struct call *call, struct hwpt *paging, struct hwpt **out)
{
	const struct iommu_hwpt_alloc *cmd = (void *)call->cmd.bytes;
	struct obj *obj;
	int rc = obj_alloc(call->ctx, &nested_ops, &obj);

	if (rc)
		return rc;
	*out = hwpt_of(obj);
	(*out)->ioas = paging->ioas;
	(*out)->driver = paging->driver;
	(*out)->base = paging;
	nested_count_flush(*out);
	(*out)->pasid_compat = cmd->flags & IOMMU_HWPT_ALLOC_PASID;
	list_init(&(*out)->entry);
	return 0;
}

int nested_alloc_on_hwpt(struct call *call, struct iommufd_device *idev, struct hwpt *parent)
{
	const struct iommu_hwpt_alloc *cmd = (void *)call->cmd.bytes;
	const struct iommu_driver *drv = idev->driver;
	struct iommu_user_data data = user_data(call);
	struct hwpt *hwpt;
	int rc;

	rc = check_flags(call, drv->domain_alloc_nested);
	if (rc)
		return rc;
	if (parent->is_auto || !parent->nest_parent || parent->driver != drv)
		return swi_fail(call->why, -EINVAL,
				"HWPT %u was not made with NEST_PARENT for this IOMMU",
				parent->obj.id);
	rc = create(call, parent, &hwpt);
	if (rc)
		return rc;
	hwpt->parent = parent;
	obj_hold(&parent->obj);
	return finish(call, hwpt,
		      drv->domain_alloc_nested(idev->dev, parent->domain,
					       cmd->flags & ~IOMMU_HWPT_FAULT_ID_VALID, &data));
}

int nested_alloc_on_viommu(struct call *call, struct iommufd_device *idev, struct viommu *viommu)
{
	const struct iommu_hwpt_alloc *cmd = (void *)call->cmd.bytes;
	const struct iommufd_viommu_ops *ops = viommu->pub->ops;
	struct iommu_user_data data = user_data(call);
	struct hwpt *hwpt;
	int rc;

	if (viommu->driver != idev->driver || viommu->instance != idev->dev->iommu_instance)
		return swi_fail(call->why, -EINVAL,
				"device %s is behind another IOMMU than vIOMMU %u", idev->dev->name,
				viommu->obj.id);
	rc = check_flags(call, ops->alloc_domain_nested);
	if (rc)
		return rc;
	rc = create(call, viommu->parent, &hwpt);
	if (rc)
		return rc;
	hwpt->viommu = viommu;
	obj_hold(&viommu->obj);
	return finish(call, hwpt,
		      ops->alloc_domain_nested(viommu->pub, cmd->flags & ~IOMMU_HWPT_FAULT_ID_VALID,
					       &data));
}

int hwpt_bind_fault(struct call *call, struct hwpt *hwpt)
{
	const struct iommu_hwpt_alloc *cmd = (void *)call->cmd.bytes;
	struct obj *obj;
	int rc = obj_get(call->ctx, cmd->fault_id, OBJ_FAULT, "fault_id", call->why, &obj);

	if (rc)
		return rc;
	obj_hold(obj);
	obj_put(obj);
	hwpt->fault = fault_of(obj);
	hwpt->domain->takes_iopf = true;
	return 0;
}

/* ---- HWPT_INVALIDATE -------------------------------------------------------------------------------- */

static int no_cache(struct call *call, const struct obj *obj, int rc)
{
	return swi_fail(call->why, rc,
			"hwpt_id %u is a %s, which has no cache that a user can invalidate",
			obj->id, obj->ops->name);
}

static int invalidate(struct call *call, struct obj *obj, struct iommu_user_data_array *array)
{
	const struct iommufd_viommu_ops *vops;
	struct hwpt *hwpt;

	switch (obj->ops->type) {
	case OBJ_HWPT_NESTED:
		hwpt = hwpt_of(obj);
		if (!hwpt->domain->ops->cache_invalidate_user)
			return no_cache(call, obj, -EOPNOTSUPP);
		return hwpt->domain->ops->cache_invalidate_user(hwpt->domain, array);
	case OBJ_VIOMMU:
		vops = viommu_of(obj)->pub->ops;
		if (!vops->cache_invalidate)
			return no_cache(call, obj, -EOPNOTSUPP);
		return vops->cache_invalidate(viommu_of(obj)->pub, array);
	default:
		array->entry_num = 0;
		return no_cache(call, obj, -EINVAL);
	}
}

static int run_invalidate(struct call *call, uint32_t *done)
{
	const struct iommu_hwpt_invalidate *cmd = (void *)call->cmd.bytes;
	struct iommu_user_data_array array = {.type = cmd->data_type,
					      .uptr = cmd->data_uptr,
					      .entry_len = cmd->entry_len,
					      .entry_num = cmd->entry_num,
					      .call = call};
	struct obj *obj;
	int rc;

	if (cmd->__reserved)
		return swi_fail(call->why, -EOPNOTSUPP, "__reserved is not 0");
	if (array.entry_num && (!array.uptr || !array.entry_len ||
				array.entry_len > SWI_PAGE_SIZE || array.entry_num > 1u << 19))
		return swi_fail(call->why, -EINVAL, "%u entries of %u bytes at %#llx cannot be",
				cmd->entry_num, cmd->entry_len, (unsigned long long)cmd->data_uptr);
	rc = obj_get(call->ctx, cmd->hwpt_id, OBJ_ANY, "hwpt_id", call->why, &obj);
	if (rc)
		return rc;
	rc = invalidate(call, obj, &array);
	*done = array.entry_num;
	obj_put(obj);
	return rc;
}

int hwpt_cmd_invalidate(struct call *call)
{
	struct iommu_hwpt_invalidate *cmd = (void *)call->cmd.bytes;
	uint32_t done = 0;
	int rc = run_invalidate(call, &done);

	/* How many were done is told in any case. */
	cmd->entry_num = done;
	return call_respond(call) ? -EFAULT : rc;
}
