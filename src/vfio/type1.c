// SPDX-License-Identifier: MIT
/*
 * The type 1 backend: MAP_DMA, UNMAP_DMA and GET_INFO of a container (spec vfio.md 3.3).
 *
 * Mapping itself is the engine's: the backend owns an IOAS that nobody else can reach, and each
 * mapping is one area of it, made by one MAP_DMA and never cut. What is here is what a container
 * does differently from iommufd: its checks and their order, the limit on mappings, and what an
 * UNMAP_DMA takes along. Version 2 refuses a range that cuts a mapping; version 1 stops quietly at
 * one that begins before the range, and takes one completely that begins in it.
 *
 * All changes are made under the backend's lock, one at a time, so that what has been checked still
 * holds; this is what a kernel does as well.
 */
#include "vfio/type1.h"

#include "base/alloc.h"
#include "core/call.h"

#include <errno.h>
#include <string.h>

#define MAX_MAPPINGS 65535u

int type1_create(struct iommufd_ctx *ctx, unsigned long type,
		 const struct vfio_system_options *options, struct type1 **out)
{
	struct type1 *t = swi_new(struct type1);
	int rc;

	if (!t)
		return -ENOMEM;
	rc = ioas_create(ctx, &t->ioas);
	if (rc)
		goto free;
	if (pthread_mutex_init(&t->lock, NULL)) {
		rc = -ENOMEM;
		goto abort;
	}
	obj_publish(&t->ioas->obj);
	iommufd_ctx_get(ctx);
	t->ctx = ctx;
	t->refs = 1;
	t->v2 = type == VFIO_TYPE1v2_IOMMU;
	t->options = options;
	t->max_mappings = options->max_mappings ? options->max_mappings : MAX_MAPPINGS;
	*out = t;
	return 0;
abort:
	obj_abort(&t->ioas->obj, true);
free:
	swi_free(t);
	return rc;
}

struct type1 *type1_get(struct type1 *t)
{
	t->refs++;
	return t;
}

void type1_put(struct type1 *t)
{
	struct swi_reason why;

	if (!t || --t->refs)
		return;
	type1_drop_vaddrs_locked(t, 0, IOVA_MAX);
	/* No device is attached any more; mappings go with it. */
	(void)obj_destroy_id(t->ctx, t->ioas->obj.id, &why);
	pthread_mutex_destroy(&t->lock);
	iommufd_ctx_put(t->ctx);
	swi_free(t);
}

uint64_t type1_page(struct type1 *t)
{
	uint64_t sizes = ioas_page_sizes(t->ioas);

	return sizes & -sizes;
}

static uint64_t count_mappings(struct type1 *t)
{
	uint64_t n;

	iova_map_lock(t->ioas->map);
	n = iova_map_count(t->ioas->map);
	iova_map_unlock(t->ioas->map);
	return n;
}

/* ---- MAP_DMA ----------------------------------------------------------------------------- */

static long check_map(struct type1 *t, struct swiommu_caller *caller,
		      const struct vfio_iommu_type1_dma_map *map)
{
	static const char what[] = "VFIO_IOMMU_MAP_DMA";
	const uint32_t rights = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
	uint64_t page = type1_page(t), last;

	if (map->argsz < sizeof(*map) || map->flags & ~(rights | VFIO_DMA_MAP_FLAG_VADDR))
		return vfio_fail(caller, -EINVAL,
				 "%s: argsz %u, flags 0x%x: at least 32, and bits 0-2 only", what,
				 map->argsz, map->flags);
	if (!map->size)
		return vfio_fail(caller, -EINVAL, "%s: size is 0", what);
	if (!range_last(map->iova, map->size, &last) || !range_last(map->vaddr, map->size, &last))
		return vfio_fail(caller, -EOVERFLOW,
				 "%s: iova %#llx or vaddr %#llx + size %#llx passes 2^64", what,
				 (ull)map->iova, (ull)map->vaddr, (ull)map->size);
	if (!(map->flags & VFIO_DMA_MAP_FLAG_VADDR) == !(map->flags & rights))
		return vfio_fail(caller, -EINVAL,
				 "%s: flags 0x%x: READ, WRITE or both; or VADDR alone", what,
				 map->flags);
	if ((map->size | map->iova | map->vaddr) & (page - 1))
		return vfio_fail(caller, -EINVAL,
				 "%s: iova %#llx, vaddr %#llx, size %#llx: must be multiples of "
				 "the smallest page, %llu bytes",
				 what, (ull)map->iova, (ull)map->vaddr, (ull)map->size, (ull)page);
	return 0;
}

static long check_free(struct type1 *t, struct swiommu_caller *caller, uint64_t iova, uint64_t size)
{
	struct iova_area *hit;
	long rc = 0;

	iova_map_lock(t->ioas->map);
	hit = iova_map_first(t->ioas->map, iova);
	if (hit && hit->iova <= iova + size - 1)
		rc = vfio_fail(caller, -EEXIST,
			       "VFIO_IOMMU_MAP_DMA: [%#llx, %#llx] meets the mapping [%#llx, "
			       "%#llx]",
			       (ull)iova, (ull)(iova + size - 1), (ull)hit->iova, (ull)hit->last);
	else if (iova_map_count(t->ioas->map) >= t->max_mappings)
		rc = vfio_fail(caller, -ENOSPC,
			       "VFIO_IOMMU_MAP_DMA: the container has %llu mappings, its limit",
			       (ull)t->max_mappings);
	iova_map_unlock(t->ioas->map);
	return rc;
}

/* Registers that the caller has mapped, which are no memory for anybody but a type 1 container. */
static int map_registers(struct type1 *t, struct call *call,
			 const struct vfio_iommu_type1_dma_map *map, unsigned int prot)
{
	const struct vfio_host_ops *host = t->options->host;
	uint64_t iova = map->iova, pos;
	struct vfio_device *dev;
	struct mem_owner *owner;
	int rc;

	if (!host->find_mapping ||
	    host->find_mapping(call->caller, map->vaddr, map->size, &dev, &pos))
		return -EFAULT;
	rc = vfio_bar_memory(dev, pos, map->size, &owner);
	if (rc)
		return rc;
	call->why->text[0] = '\0';
	rc = ioas_map_owner(call, t->ioas, owner, pos, map->size, prot, true, &iova);
	mem_owner_put(owner);
	return rc;
}

static long map_dma_locked(struct type1 *t, struct swiommu_caller *caller,
			   const struct vfio_iommu_type1_dma_map *map)
{
	struct call call = {
		.ctx = t->ctx, .caller = caller, .why = (struct swi_reason *)caller->reason};
	unsigned int prot = (map->flags & VFIO_DMA_MAP_FLAG_READ ? SWI_READ : 0) |
			    (map->flags & VFIO_DMA_MAP_FLAG_WRITE ? SWI_WRITE : 0);
	uint64_t iova = map->iova;
	long rc;

	if (map->flags & VFIO_DMA_MAP_FLAG_VADDR)
		return type1_set_vaddr_locked(t, caller, map->iova, map->size);
	rc = check_free(t, caller, map->iova, map->size);
	if (rc)
		return rc;
	rc = ioas_map_memory(&call, t->ioas, map->vaddr, map->size, prot, true, &iova);
	return rc == -EFAULT ? map_registers(t, &call, map, prot) : rc;
}

static long map_dma(struct type1 *t, struct swiommu_caller *caller, uint64_t arg)
{
	struct vfio_iommu_type1_dma_map map;
	long rc;

	rc = vfio_copy_in(caller, &map, arg, sizeof(map), "VFIO_IOMMU_MAP_DMA");
	if (!rc)
		rc = check_map(t, caller, &map);
	if (rc)
		return rc;
	pthread_mutex_lock(&t->lock);
	rc = map_dma_locked(t, caller, &map);
	pthread_mutex_unlock(&t->lock);
	return rc;
}

/* ---- UNMAP_DMA --------------------------------------------------------------------------- */

struct unmap {
	struct {
		uint32_t argsz, flags;
		uint64_t iova, size;
	} head;			   /* struct vfio_iommu_type1_dma_unmap, up to its data */
	struct vfio_bitmap bitmap; /* with GET_DIRTY_BITMAP */
	iova_t last;
};

#define UNMAP_HEAD offsetof(struct vfio_iommu_type1_dma_unmap, data)

static long check_unmap_range(struct type1 *t, struct swiommu_caller *caller, struct unmap *u)
{
	static const char what[] = "VFIO_IOMMU_UNMAP_DMA";
	uint64_t page = type1_page(t);

	u->last = IOVA_MAX;
	if (u->head.flags & VFIO_DMA_UNMAP_FLAG_ALL)
		return u->head.iova || u->head.size
			       ? vfio_fail(caller, -EINVAL,
					   "%s: iova and size must be 0 to unmap all", what)
			       : 0;
	if (!u->head.size || (u->head.iova | u->head.size) & (page - 1))
		return vfio_fail(caller, -EINVAL,
				 "%s: iova %#llx, size %#llx: must be multiples of the smallest "
				 "page, %llu bytes, and size not 0",
				 what, (ull)u->head.iova, (ull)u->head.size, (ull)page);
	if (!range_last(u->head.iova, u->head.size, &u->last))
		return vfio_fail(caller, -EOVERFLOW, "%s: iova %#llx + size %#llx passes 2^64",
				 what, (ull)u->head.iova, (ull)u->head.size);
	return 0;
}

static long get_unmap(struct type1 *t, struct swiommu_caller *caller, uint64_t arg, struct unmap *u)
{
	static const char what[] = "VFIO_IOMMU_UNMAP_DMA";
	const uint32_t dirty = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
	const uint32_t others = VFIO_DMA_UNMAP_FLAG_ALL | VFIO_DMA_UNMAP_FLAG_VADDR;
	long rc;

	rc = vfio_copy_in(caller, &u->head, arg, UNMAP_HEAD, what);
	if (rc)
		return rc;
	if (u->head.argsz < UNMAP_HEAD || u->head.flags & ~(dirty | others))
		return vfio_fail(caller, -EINVAL,
				 "%s: argsz %u, flags 0x%x: at least 24, and bits 0-2 only", what,
				 u->head.argsz, u->head.flags);
	if (!(u->head.flags & dirty))
		return check_unmap_range(t, caller, u);
	if (u->head.flags & others || u->head.argsz < UNMAP_HEAD + sizeof(u->bitmap))
		return vfio_fail(caller, -EINVAL,
				 "%s: argsz %u, flags 0x%x: the dirty bitmap needs 48 bytes and "
				 "goes with no other flag",
				 what, u->head.argsz, u->head.flags);
	rc = vfio_copy_in(caller, &u->bitmap, arg + UNMAP_HEAD, sizeof(u->bitmap), what);
	if (!rc)
		rc = check_unmap_range(t, caller, u);
	return rc ? rc : type1_check_bitmap(t, caller, &u->bitmap, u->head.size);
}

/*
 * What the range means for the mappings at its edges: it may grow to the end of one, or become
 * nothing (*none).
 */
static long settle_edges(struct type1 *t, struct swiommu_caller *caller, struct unmap *u,
			 bool *none)
{
	struct iova_area *first, *end;
	long rc = 0;

	iova_map_lock(t->ioas->map);
	first = iova_map_first(t->ioas->map, u->head.iova);
	end = iova_map_first(t->ioas->map, u->last);
	*none = !first || first->iova > u->last;
	if (*none)
		goto out;
	if (end && end->iova > u->last)
		end = NULL; /* the range ends in a gap */
	if (t->v2 && (first->iova < u->head.iova || (end && end->last > u->last))) {
		const struct iova_area *cut = first->iova < u->head.iova ? first : end;

		rc = vfio_fail(caller, -EINVAL,
			       "VFIO_IOMMU_UNMAP_DMA: the range [%#llx, %#llx] would cut the "
			       "mapping [%#llx, %#llx], which type 1 v2 does not do",
			       (ull)u->head.iova, (ull)u->last, (ull)cut->iova, (ull)cut->last);
	} else if (first->iova < u->head.iova) {
		*none = true;
	} else if (end) {
		u->last = SWI_MAX(u->last, end->last);
	}
out:
	iova_map_unlock(t->ioas->map);
	return rc;
}

static long unmap_dma_locked(struct type1 *t, struct swiommu_caller *caller, struct unmap *u,
			     uint64_t *removed)
{
	bool none;
	long rc;

	if (u->head.flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP && !t->dirty_tracking)
		return vfio_fail(caller, -EINVAL,
				 "VFIO_IOMMU_UNMAP_DMA: a dirty bitmap, but dirty tracking has "
				 "not been started");
	rc = settle_edges(t, caller, u, &none);
	if (rc || none)
		return rc;
	if (u->head.flags & VFIO_DMA_UNMAP_FLAG_VADDR)
		return type1_forget_vaddr_locked(t, caller, u->head.iova, u->last, removed);
	if (u->head.flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) {
		/* The bitmap has room for what was asked for, also if version 1 takes more along. */
		rc = type1_report_dirty(t, caller, &u->bitmap, u->head.iova,
					u->head.iova + (u->head.size - 1));
		if (rc)
			return rc;
	}
	rc = ioas_unmap(t->ioas, u->head.iova, u->last, removed,
			(struct swi_reason *)caller->reason);
	type1_drop_vaddrs_locked(t, u->head.iova, u->last);
	return rc;
}

static long unmap_dma(struct type1 *t, struct swiommu_caller *caller, uint64_t arg)
{
	uint64_t removed = 0;
	struct unmap u;
	long rc;

	rc = get_unmap(t, caller, arg, &u);
	if (rc)
		return rc;
	pthread_mutex_lock(&t->lock);
	rc = unmap_dma_locked(t, caller, &u, &removed);
	pthread_mutex_unlock(&t->lock);
	if (rc)
		return rc;
	u.head.size = removed;
	return vfio_copy_out(caller, arg, &u.head, UNMAP_HEAD, "VFIO_IOMMU_UNMAP_DMA");
}

/* ---- GET_INFO ---------------------------------------------------------------------------- */

/* The capability chain behind the fixed part of `base` bytes: MIGRATION, DMA_AVAIL, IOVA_RANGE. */
static void *build_caps(struct type1 *t, size_t base, size_t *size)
{
	struct vfio_iommu_type1_info_cap_migration *migration;
	struct vfio_iommu_type1_info_dma_avail *avail;
	struct vfio_iommu_type1_info_cap_iova_range *range;
	const size_t avail_size = sizeof(*avail) + 4; /* the next one begins 8-byte aligned */
	struct iova_range *ranges = NULL;
	size_t n = 0;
	char *caps;

	if (ioas_usable_ranges(t->ioas, SIZE_MAX, &ranges, &n))
		return NULL;
	*size = sizeof(*migration) + avail_size + sizeof(*range) +
		n * sizeof(range->iova_ranges[0]);
	caps = swi_zalloc(*size);
	if (!caps)
		goto out;
	migration = (void *)caps;
	migration->header.id = VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION;
	migration->header.version = 1;
	migration->header.next = (uint32_t)(base + sizeof(*migration));
	migration->pgsize_bitmap = type1_page(t);
	migration->max_dirty_bitmap_size = 1u << 28;
	avail = (void *)(migration + 1);
	avail->header.id = VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL;
	avail->header.version = 1;
	avail->header.next = migration->header.next + (uint32_t)avail_size;
	avail->avail = (uint32_t)SWI_MIN(
		t->max_mappings - SWI_MIN(count_mappings(t), t->max_mappings), UINT32_MAX);
	range = (void *)((char *)avail + avail_size);
	range->header.id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE;
	range->header.version = 1;
	range->nr_iovas = (uint32_t)n;
	for (size_t i = 0; i < n; i++) {
		range->iova_ranges[i].start = ranges[i].first;
		range->iova_ranges[i].end = ranges[i].last;
	}
out:
	swi_free(ranges);
	return caps;
}

static long get_info(struct type1 *t, struct swiommu_caller *caller, uint64_t arg)
{
	static const char what[] = "VFIO_IOMMU_GET_INFO";
	const size_t min = offsetof(struct vfio_iommu_type1_info, cap_offset);
	struct vfio_iommu_type1_info info = {0};
	uint32_t room;
	size_t size;
	void *caps;
	long rc;

	rc = vfio_copy_in(caller, &info, arg, min, what);
	if (rc)
		return rc;
	room = info.argsz;
	if (room < min)
		return vfio_fail(caller, -EINVAL, "%s: argsz is %u, at least %zu needed", what,
				 room, min);
	caps = build_caps(t, sizeof(info), &size);
	if (!caps)
		return vfio_fail(caller, -ENOMEM, "%s: out of memory", what);
	info.flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
	info.iova_pgsizes = ioas_page_sizes(t->ioas);
	if (room < sizeof(info) + size) {
		info.argsz = (uint32_t)(sizeof(info) + size);
	} else {
		info.cap_offset = sizeof(info);
		rc = vfio_copy_out(caller, arg + sizeof(info), caps, size, what);
	}
	if (!rc)
		rc = vfio_copy_out(caller, arg, &info, SWI_MIN(room, sizeof(info)), what);
	swi_free(caps);
	return rc;
}

long type1_ioctl(struct type1 *t, struct swiommu_caller *caller, unsigned int cmd, uint64_t arg)
{
	switch (cmd) {
	case VFIO_IOMMU_GET_INFO:
		return get_info(t, caller, arg);
	case VFIO_IOMMU_MAP_DMA:
		return map_dma(t, caller, arg);
	case VFIO_IOMMU_UNMAP_DMA:
		return unmap_dma(t, caller, arg);
	case VFIO_IOMMU_DIRTY_PAGES:
		return type1_dirty_pages(t, caller, arg);
	default:
		return vfio_fail(caller, -ENOTTY, "ioctl 0x%x is not one of a type 1 container",
				 cmd);
	}
}
