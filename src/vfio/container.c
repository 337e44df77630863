// SPDX-License-Identifier: MIT
/*
 * Container files, /dev/vfio/vfio (spec vfio.md 3.3), and the list of groups.
 *
 * A container is a list of groups and, once VFIO_SET_IOMMU has succeeded, a backend. The first group
 * that is put in gives it a private iommufd context, in whose name the container owns the DMA of its
 * groups. With a backend, every device of every group is bound to that context and attached to the
 * backend's IOAS, whether a device file exists or not: so memory is pinned, and its errors appear,
 * when it is mapped. When the last group leaves, backend, context and mappings go, and the container
 * is as new.
 *
 * A call on the backend holds a reference on it and not the container's lock, since mapping may
 * wait for the client. If the last group leaves meanwhile, the call ends on a backend that no
 * device uses any more.
 */
#include "vfio/group_internal.h"

#include "base/alloc.h"
#include "core/ctx.h"
#include "vfio/type1.h"

#include <errno.h>
#include <linux/capability.h>

int vfio_container_open(struct vfio_system *sys, struct vfio_container **out)
{
	struct vfio_container *c = swi_new(struct vfio_container);

	if (!c)
		return -ENOMEM;
	if (pthread_mutex_init(&c->lock, NULL)) {
		swi_free(c);
		return -ENOMEM;
	}
	c->sys = sys;
	c->refs = 1;
	list_init(&c->groups);
	*out = c;
	return 0;
}

struct vfio_container *vfio_container_get(struct vfio_container *c)
{
	c->refs++;
	return c;
}

void vfio_container_put(struct vfio_container *c)
{
	if (!c || --c->refs)
		return;
	pthread_mutex_destroy(&c->lock);
	swi_free(c);
}

static struct type1 *get_backend(struct vfio_container *c)
{
	struct type1 *t;

	pthread_mutex_lock(&c->lock);
	t = c->backend ? type1_get(c->backend) : NULL;
	pthread_mutex_unlock(&c->lock);
	return t;
}

bool vfio_container_has_type(struct vfio_container *c)
{
	bool has;

	pthread_mutex_lock(&c->lock);
	has = c->backend || c->noiommu_set;
	pthread_mutex_unlock(&c->lock);
	return has;
}

/* Whether its type is 8, by which there is no backend. */
static bool is_noiommu(struct vfio_container *c)
{
	bool is;

	pthread_mutex_lock(&c->lock);
	is = c->noiommu_set;
	pthread_mutex_unlock(&c->lock);
	return is;
}

/* ---- devices and the backend ------------------------------------------------------------- */

static void detach_device(struct vfio_device *dev)
{
	vfio_device_detach(dev);
	vfio_device_unbind(dev);
}

static long attach_device_locked(struct vfio_container *c, struct type1 *t, struct vfio_device *dev,
				 struct swiommu_caller *caller)
{
	uint32_t id, pt_id = t->ioas->obj.id;
	long rc = vfio_device_bind(dev, c->ctx, &id);

	if (rc)
		return vfio_fail(caller, rc, "the container's IOMMU does not take %s",
				 dev->place.bdf);
	rc = vfio_device_attach(dev, &pt_id, caller);
	if (rc)
		vfio_device_unbind(dev);
	return rc;
}

/* Detaches the devices of a group up to, and without, `end` (NULL: all). */
static void detach_group(struct vfio_group *group, const struct vfio_device *end)
{
	struct vfio_device *dev;
	struct list *pos;

	vfio_for_each_device (dev, pos, group) {
		if (dev == end)
			return;
		detach_device(dev);
	}
}

static long attach_group_locked(struct vfio_container *c, struct type1 *t, struct vfio_group *group,
				struct swiommu_caller *caller)
{
	struct vfio_device *dev;
	struct list *pos;
	long rc;

	if (type1_has_invalid(t))
		return vfio_fail(caller, -EBUSY,
				 "mappings of the container have lost their addresses (UNMAP_DMA "
				 "with VADDR): no group can be added");
	vfio_for_each_device (dev, pos, group) {
		rc = attach_device_locked(c, t, dev, caller);
		if (rc) {
			detach_group(group, dev);
			return rc;
		}
	}
	return 0;
}

/* ---- groups ------------------------------------------------------------------------------ */

static struct vfio_group *group_of(struct list *pos)
{
	return list_entry(pos, struct vfio_group, in_container);
}

/* A container charges pinned memory to the process that maps, not to its user. */
static int make_ctx(struct vfio_container *c)
{
	int rc;

	if (c->ctx)
		return 0;
	rc = swiommu_open_with(&c->sys->options.contexts, &c->ctx);
	if (!rc)
		c->ctx->rlimit_process = true;
	return rc;
}

static void forget_if_empty_locked(struct vfio_container *c)
{
	if (!list_empty(&c->groups))
		return;
	type1_put(c->backend);
	c->backend = NULL;
	iommufd_ctx_put(c->ctx);
	c->ctx = NULL;
	c->noiommu = false;
	c->noiommu_set = false;
}

/* Nothing is owned, nothing attached: only kept. */
static long add_noiommu_locked(struct vfio_container *c, struct vfio_group *group,
			       struct swiommu_caller *caller)
{
	long rc = vfio_noiommu_check(caller, "VFIO_GROUP_SET_CONTAINER");

	if (rc)
		return rc;
	c->noiommu = true;
	list_add_tail(&c->groups, &group->in_container);
	return 0;
}

static long add_group_locked(struct vfio_container *c, struct vfio_group *group,
			     struct swiommu_caller *caller)
{
	long rc;

	if (!list_empty(&c->groups) && c->noiommu != group->noiommu)
		return vfio_fail(
			caller, -EPERM,
			"VFIO_GROUP_SET_CONTAINER: groups with and without an IOMMU do not "
			"go into one container");
	if (group->noiommu)
		return add_noiommu_locked(c, group, caller);
	rc = make_ctx(c);
	if (rc)
		return vfio_fail(caller, rc, "VFIO_GROUP_SET_CONTAINER: out of memory");
	rc = vfio_group_claim(group, c->ctx);
	if (rc) {
		vfio_fail(caller, rc,
			  "VFIO_GROUP_SET_CONTAINER: the DMA of group %u is owned by somebody "
			  "else",
			  group->group->id);
		goto forget;
	}
	rc = c->backend ? attach_group_locked(c, c->backend, group, caller) : 0;
	if (rc)
		goto release;
	list_add_tail(&c->groups, &group->in_container);
	return 0;
release:
	vfio_group_release(group);
forget:
	forget_if_empty_locked(c);
	return rc;
}

long vfio_container_add_group(struct vfio_container *c, struct vfio_group *group,
			      struct swiommu_caller *caller)
{
	long rc;

	pthread_mutex_lock(&c->lock);
	rc = add_group_locked(c, group, caller);
	pthread_mutex_unlock(&c->lock);
	return rc;
}

void vfio_container_remove_group(struct vfio_container *c, struct vfio_group *group)
{
	pthread_mutex_lock(&c->lock);
	if (c->backend)
		detach_group(group, NULL);
	vfio_group_release(group);
	list_del(&group->in_container);
	forget_if_empty_locked(c);
	pthread_mutex_unlock(&c->lock);
}

/* ---- ioctls ------------------------------------------------------------------------------ */

static bool may_noiommu(struct swiommu_caller *caller)
{
	return caller->ops->capable(caller, CAP_SYS_RAWIO);
}

static long set_noiommu_locked(struct vfio_container *c, struct swiommu_caller *caller,
			       uint64_t type)
{
	if (type != VFIO_NOIOMMU_IOMMU || !may_noiommu(caller))
		return vfio_fail(
			caller, -ENODEV,
			"VFIO_SET_IOMMU: type %llu: a container of groups without an IOMMU "
			"takes 8 (NOIOMMU) only, from those with CAP_SYS_RAWIO",
			(unsigned long long)type);
	c->noiommu_set = true;
	return 0;
}

static long set_iommu_locked(struct vfio_container *c, struct swiommu_caller *caller, uint64_t type)
{
	struct type1 *t;
	struct list *pos;
	long rc;

	if (list_empty(&c->groups) || c->backend || c->noiommu_set)
		return vfio_fail(caller, -EINVAL, "VFIO_SET_IOMMU: %s",
				 !list_empty(&c->groups) ? "the container has a type already"
							 : "there is no group in the container");
	if (c->noiommu)
		return set_noiommu_locked(c, caller, type);
	if (type != VFIO_TYPE1_IOMMU && type != VFIO_TYPE1v2_IOMMU)
		return vfio_fail(caller, -ENODEV,
				 "VFIO_SET_IOMMU: type %llu: 1 (TYPE1) and 3 (TYPE1v2) exist",
				 (unsigned long long)type);
	rc = type1_create(c->ctx, type, &c->sys->options, &t);
	if (rc)
		return vfio_fail(caller, rc, "VFIO_SET_IOMMU: out of memory");
	list_for_each (pos, &c->groups) {
		rc = attach_group_locked(c, t, group_of(pos), caller);
		if (rc)
			goto undo;
	}
	c->backend = t;
	return 0;
undo:
	while ((pos = pos->prev) != &c->groups)
		detach_group(group_of(pos), NULL);
	type1_put(t);
	return rc;
}

static long set_iommu(struct vfio_container *c, struct swiommu_caller *caller, uint64_t type)
{
	long rc;

	pthread_mutex_lock(&c->lock);
	rc = set_iommu_locked(c, caller, type);
	pthread_mutex_unlock(&c->lock);
	return rc;
}

/* Which backends can answer: those for the groups that it has, or all. */
static void get_kinds(struct vfio_container *c, bool *normal, bool *noiommu)
{
	pthread_mutex_lock(&c->lock);
	*normal = list_empty(&c->groups) || !c->noiommu;
	*noiommu = list_empty(&c->groups) ? c->sys->noiommu : c->noiommu;
	pthread_mutex_unlock(&c->lock);
}

static long check_extension(struct vfio_container *c, struct swiommu_caller *caller,
			    uint64_t extension)
{
	bool normal, noiommu;
	struct type1 *t;
	long rc;

	get_kinds(c, &normal, &noiommu);
	switch (extension) {
	case VFIO_TYPE1_IOMMU:
	case VFIO_TYPE1v2_IOMMU:
	case VFIO_UNMAP_ALL:
		return normal;
	case VFIO_NOIOMMU_IOMMU:
		return noiommu && may_noiommu(caller);
	case VFIO_UPDATE_VADDR:
		return normal && vfio_container_has_type(c);
	case VFIO_DMA_CC_IOMMU:
		t = get_backend(c);
		rc = t && ioas_is_coherent(t->ioas);
		type1_put(t);
		return rc;
	default:
		return 0;
	}
}

long vfio_container_ioctl(struct vfio_container *c, struct swiommu_caller *caller, unsigned int cmd,
			  uint64_t arg)
{
	struct type1 *t;
	long rc;

	caller->reason[0] = '\0';
	switch (cmd) {
	case VFIO_GET_API_VERSION:
		return VFIO_API_VERSION;
	case VFIO_CHECK_EXTENSION:
		return check_extension(c, caller, arg);
	case VFIO_SET_IOMMU:
		return set_iommu(c, caller, arg);
	default:
		t = get_backend(c);
		if (!t && is_noiommu(c))
			return vfio_fail(caller, -ENOTTY,
					 "ioctl 0x%x: a container of type 8 (NOIOMMU) maps nothing",
					 cmd);
		if (!t)
			return vfio_fail(caller, -EINVAL,
					 "ioctl 0x%x on a container without a type: put a group "
					 "into it, then VFIO_SET_IOMMU",
					 cmd);
		rc = type1_ioctl(t, caller, cmd, arg);
		type1_put(t);
		return rc;
	}
}
