// SPDX-License-Identifier: MIT
/*
 * The VFIO type 1 container ioctls on /dev/iommu (spec core.md 7).
 *
 * They act on the compat IOAS, an ordinary IOAS to which the context keeps a pointer without a reference:
 * destroying it clears the pointer. There is no second implementation of mapping behind them; what
 * is different is argument checking, the answer to "nothing to unmap" (success), and that a type 1
 * (not v2) container may unmap parts of mappings, which are cut first.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <string.h>

#include "base/alloc.h"
#include "core/call.h"
#include "core/hwpt.h"
#include "core/ioas.h"

/* The compat IOAS for this call (obj_put() it), or -ENODEV. */
static int get_compat(struct call *call, struct ioas **out)
{
	struct obj *obj = obj_get_pointer(call->ctx, &call->ctx->compat_ioas);

	*out = NULL;
	if (!obj)
		return swi_fail(call->why, -ENODEV,
				"no compat IOAS: set one with IOMMU_VFIO_IOAS, or put a VFIO group "
				"into this container");
	*out = ioas_of(obj);
	return 0;
}

static bool no_iommu(struct iommufd_ctx *ctx)
{
	bool mode;

	pthread_mutex_lock(&ctx->table.lock);
	mode = ctx->no_iommu;
	pthread_mutex_unlock(&ctx->table.lock);
	return mode;
}

/* ---- the compat IOAS ------------------------------------------------------------------------------ */

int vfio_compat_cmd_ioas(struct call *call)
{
	struct iommu_vfio_ioas *cmd = (void *)call->cmd.bytes;
	struct obj **pointer = &call->ctx->compat_ioas;
	struct ioas *ioas;
	struct obj *obj;
	int rc;

	if (cmd->__reserved)
		return swi_fail(call->why, -EOPNOTSUPP, "__reserved is not 0");
	switch (cmd->op) {
	case IOMMU_VFIO_IOAS_GET:
		rc = get_compat(call, &ioas);
		if (rc)
			return rc;
		cmd->ioas_id = ioas->obj.id;
		obj_put(&ioas->obj);
		return call_respond(call);
	case IOMMU_VFIO_IOAS_SET:
		rc = obj_get(call->ctx, cmd->ioas_id, OBJ_IOAS, "ioas_id", call->why, &obj);
		if (rc)
			return rc;
		obj_set_pointer(call->ctx, pointer, obj);
		obj_put(obj);
		return 0;
	case IOMMU_VFIO_IOAS_CLEAR:
		obj_set_pointer(call->ctx, pointer, NULL);
		return 0;
	default:
		return swi_fail(call->why, -EOPNOTSUPP, "op %u is neither GET, SET nor CLEAR",
				cmd->op);
	}
}

int iommufd_vfio_compat_ioas_get_id(struct iommufd_ctx *ictx, uint32_t *out_ioas_id)
{
	struct obj *obj = obj_get_pointer(ictx, &ictx->compat_ioas);

	if (!obj)
		return -ENODEV;
	*out_ioas_id = obj->id;
	obj_put(obj);
	return 0;
}

int iommufd_vfio_compat_ioas_create(struct iommufd_ctx *ictx)
{
	struct obj_table *t = &ictx->table;
	struct ioas *ioas;
	int rc;

	rc = ioas_create(ictx, &ioas);
	if (rc)
		return rc;
	pthread_mutex_lock(&t->lock);
	rc = ictx->no_iommu ? -EINVAL : ictx->compat_ioas ? -EEXIST : 0;
	if (!rc) {
		obj_publish_locked(&ioas->obj);
		ictx->compat_ioas = &ioas->obj;
	}
	pthread_mutex_unlock(&t->lock);
	if (rc)
		obj_abort(&ioas->obj, true);
	return rc == -EEXIST ? 0 : rc;
}

int iommufd_vfio_compat_set_no_iommu(struct iommufd_ctx *ictx)
{
	struct obj_table *t = &ictx->table;
	int rc = -EINVAL;

	pthread_mutex_lock(&t->lock);
	if (!ictx->compat_ioas) {
		ictx->no_iommu = true;
		rc = 0;
	}
	pthread_mutex_unlock(&t->lock);
	return rc;
}

/* ---- extensions and type --------------------------------------------------------------------------- */

bool ioas_is_coherent(struct ioas *ioas)
{
	bool coherent = true;
	struct list *pos;

	pthread_mutex_lock(&ioas->mutex);
	list_for_each (pos, &ioas->hwpts)
		coherent &= list_entry(pos, struct hwpt, entry)->paging.enforced;
	pthread_mutex_unlock(&ioas->mutex);
	return coherent;
}

static long check_extension(struct call *call)
{
	struct ioas *ioas;
	long rc;

	switch (call->uptr) {
	case VFIO_TYPE1_IOMMU:
	case VFIO_TYPE1v2_IOMMU:
	case VFIO_UNMAP_ALL:
		return !no_iommu(call->ctx);
	case VFIO_NOIOMMU_IOMMU:
		return call->ctx->noiommu;
	case VFIO_DMA_CC_IOMMU:
		rc = get_compat(call, &ioas);
		if (rc)
			return rc;
		rc = ioas_is_coherent(ioas);
		obj_put(&ioas->obj);
		return rc;
	default:
		return 0;
	}
}

static long set_iommu(struct call *call)
{
	uint64_t type = call->uptr;
	struct ioas *ioas;
	int rc;

	if (type == VFIO_NOIOMMU_IOMMU && no_iommu(call->ctx))
		return call->caller->ops->capable(call->caller, CAP_SYS_RAWIO)
			       ? 0
			       : swi_fail(call->why, -EPERM,
					  "IOMMU type 8 (NOIOMMU) needs CAP_SYS_RAWIO");
	if ((type != VFIO_TYPE1_IOMMU && type != VFIO_TYPE1v2_IOMMU) || no_iommu(call->ctx))
		return swi_fail(call->why, -EINVAL, "IOMMU type %llu is neither TYPE1 nor TYPE1v2",
				(ull)type);
	rc = get_compat(call, &ioas);
	if (rc)
		return rc;
	/* Type 1 may unmap parts of mappings: page tables must not hold large pages then. */
	if (type == VFIO_TYPE1_IOMMU)
		rc = ioas_set_huge_pages(ioas, false, call->why);
	obj_put(&ioas->obj);
	return rc;
}

/* ---- map and unmap ---------------------------------------------------------------------------------- */

static int check_head(struct call *call, uint32_t argsz, uint32_t min, uint32_t flags,
		      uint32_t allowed)
{
	if (argsz < min)
		return swi_fail(call->why, -EINVAL, "argsz is %u, less than %u", argsz, min);
	if (flags & ~allowed)
		return swi_fail(call->why, -EINVAL, "flags %#x: only %#x are supported", flags,
				allowed);
	return 0;
}

static long map_dma(struct call *call)
{
	struct vfio_iommu_type1_dma_map map;
	unsigned int prot = 0;
	struct ioas *ioas;
	uint64_t iova;
	int rc;

	rc = call_copy_in(call, &map, call->uptr, sizeof(map), "struct");
	if (rc)
		return rc;
	rc = check_head(call, map.argsz, sizeof(map), map.flags,
			VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
	if (rc)
		return rc;
	rc = get_compat(call, &ioas);
	if (rc)
		return rc;
	if (map.flags & VFIO_DMA_MAP_FLAG_READ)
		prot |= SWI_READ;
	if (map.flags & VFIO_DMA_MAP_FLAG_WRITE)
		prot |= SWI_WRITE;
	iova = map.iova;
	rc = ioas_map_memory(call, ioas, map.vaddr, map.size, prot, true, &iova);
	obj_put(&ioas->obj);
	return rc;
}

/* Type 1 lets a range begin and end inside mappings: they are cut at its edges. */
static int cut_edges(struct call *call, struct ioas *ioas, uint64_t iova, uint64_t size)
{
	bool large;
	int rc;

	pthread_rwlock_rdlock(&ioas->domains);
	large = ioas->huge_pages;
	pthread_rwlock_unlock(&ioas->domains);
	if (large)
		return 0;
	rc = ioas_cut(ioas, iova + size - 1, call->why);
	if (!rc && iova)
		rc = ioas_cut(ioas, iova - 1, call->why);
	return rc;
}

static int unmap_sized(struct call *call, struct ioas *ioas, uint64_t iova, uint64_t size,
		       uint64_t *removed)
{
	uint64_t last;

	if (!size)
		return swi_fail(call->why, -EINVAL, "size is 0");
	if (!range_last(iova, size, &last))
		return swi_fail(call->why, -EOVERFLOW, "iova %#llx + size %#llx passes 2^64",
				(ull)iova, (ull)size);
	return ioas_unmap(ioas, iova, last, removed, call->why);
}

static long unmap_dma(struct call *call)
{
	struct vfio_iommu_type1_dma_unmap unmap;
	const size_t head = offsetof(struct vfio_iommu_type1_dma_unmap, data);
	uint64_t removed = 0;
	struct ioas *ioas;
	int rc;

	rc = call_copy_in(call, &unmap, call->uptr, head, "struct");
	if (rc)
		return rc;
	rc = check_head(call, unmap.argsz, head, unmap.flags, VFIO_DMA_UNMAP_FLAG_ALL);
	if (rc)
		return rc;
	rc = get_compat(call, &ioas);
	if (rc)
		return rc;
	if (unmap.flags & VFIO_DMA_UNMAP_FLAG_ALL) {
		if (unmap.iova || unmap.size)
			rc = swi_fail(call->why, -EINVAL, "iova and size must be 0 to unmap all");
		else
			rc = ioas_unmap(ioas, 0, IOVA_MAX, &removed, call->why);
	} else {
		rc = cut_edges(call, ioas, unmap.iova, unmap.size);
		if (rc) {
			obj_put(&ioas->obj);
			return rc;
		}
		rc = unmap_sized(call, ioas, unmap.iova, unmap.size, &removed);
	}
	obj_put(&ioas->obj);
	/* The size comes back even when the call fails: what it removed stays removed. */
	unmap.size = removed;
	if (call->caller->ops->copy_out(call->caller, call->uptr, &unmap, head))
		return swi_fail(call->why, -EFAULT, "struct: cannot be written");
	return rc;
}

/* ---- information ------------------------------------------------------------------------------------ */

/* Which page sizes a mapping may have, as the container's users understand it. */
uint64_t ioas_page_sizes(struct ioas *ioas)
{
	uint64_t sizes = UINT64_MAX, align;
	struct list *pos;

	pthread_mutex_lock(&ioas->mutex);
	list_for_each (pos, &ioas->hwpts)
		sizes &= list_entry(pos, struct hwpt, entry)->table.pgsize_bitmap;
	pthread_mutex_unlock(&ioas->mutex);
	if (sizes & (SWI_PAGE_SIZE - 1))
		sizes = (sizes & ~(SWI_PAGE_SIZE - 1)) | SWI_PAGE_SIZE;
	iova_map_lock(ioas->map);
	align = ioas->align;
	iova_map_unlock(ioas->map);
	return SWI_MAX(sizes, align);
}

/* The capability chain that follows the fixed part: DMA_AVAIL, then IOVA_RANGE. */
static void *build_caps(const struct iova_range *ranges, size_t n, size_t base, size_t *size)
{
	struct vfio_iommu_type1_info_dma_avail *avail;
	struct vfio_iommu_type1_info_cap_iova_range *range;
	const size_t avail_size = sizeof(*avail) + 4; /* the next one begins 8-byte aligned */
	char *caps;

	*size = avail_size + sizeof(*range) + n * sizeof(range->iova_ranges[0]);
	caps = swi_zalloc(*size);
	if (!caps)
		return NULL;
	avail = (void *)caps;
	avail->header.id = VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL;
	avail->header.version = 1;
	avail->header.next = base + avail_size;
	avail->avail = UINT32_MAX;
	range = (void *)(caps + avail_size);
	range->header.id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE;
	range->header.version = 1;
	range->nr_iovas = n;
	for (size_t i = 0; i < n; i++) {
		range->iova_ranges[i].start = ranges[i].first;
		range->iova_ranges[i].end = ranges[i].last;
	}
	return caps;
}

static int respond_info(struct call *call, struct vfio_iommu_type1_info *info, const void *caps,
			size_t caps_size)
{
	uint32_t given = info->argsz;
	int rc = 0;

	info->argsz = sizeof(*info) + caps_size;
	if (given >= info->argsz) {
		info->cap_offset = sizeof(*info);
		rc = call_copy_out(call, call->uptr + sizeof(*info), caps, caps_size,
				   "capabilities");
	}
	if (rc)
		return rc;
	return call_copy_out(call, call->uptr, info, SWI_MIN(given, sizeof(*info)), "struct");
}

static long get_info(struct call *call)
{
	const size_t min = offsetof(struct vfio_iommu_type1_info, cap_offset);
	struct vfio_iommu_type1_info info = {0};
	struct iova_range *ranges = NULL;
	size_t n, caps_size;
	struct ioas *ioas;
	void *caps;
	int rc;

	_Static_assert(sizeof(info) == 24, "the capabilities begin at 24");
	rc = call_copy_in(call, &info, call->uptr, min, "struct");
	if (rc)
		return rc;
	/* The flags come back as they are now: what was in them does not matter. */
	rc = check_head(call, info.argsz, min, 0, 0);
	if (rc)
		return rc;
	rc = get_compat(call, &ioas);
	if (rc)
		return rc;
	info.flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
	info.iova_pgsizes = ioas_page_sizes(ioas);
	info.cap_offset = 0;
	rc = ioas_usable_ranges(ioas, SIZE_MAX, &ranges, &n);
	obj_put(&ioas->obj);
	if (rc)
		return rc;
	caps = build_caps(ranges, n, sizeof(info), &caps_size);
	rc = caps ? respond_info(call, &info, caps, caps_size) : -ENOMEM;
	swi_free(caps);
	swi_free(ranges);
	return rc;
}

/* ---- dispatch --------------------------------------------------------------------------------------- */

long vfio_compat_ioctl(struct call *call, unsigned int cmd)
{
	switch (cmd) {
	case VFIO_GET_API_VERSION:
		return VFIO_API_VERSION;
	case VFIO_CHECK_EXTENSION:
		return check_extension(call);
	case VFIO_SET_IOMMU:
		return set_iommu(call);
	case VFIO_IOMMU_GET_INFO:
		return get_info(call);
	case VFIO_IOMMU_MAP_DMA:
		return map_dma(call);
	case VFIO_IOMMU_UNMAP_DMA:
		return unmap_dma(call);
	default:
		return swi_fail(
			call->why, -ENOTTY,
			"ioctl number %#x is neither one of iommufd nor of a VFIO container", cmd);
	}
}
