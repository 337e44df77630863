// SPDX-License-Identifier: MIT
/*
 * DIRTY_PAGES of a type 1 container, and the dirty bitmap of UNMAP_DMA (spec vfio.md 3.3).
 *
 * A container does not record writes of devices that can reach all of its memory: every page that is
 * mapped for such a device counts as written. So tracking is one flag, and a bitmap is made from the
 * mappings. iommufd has the exact records (core/dirty.c).
 */
#include "vfio/type1.h"

#include <errno.h>
#include <string.h>

/* As the kernel: 2^31 - 1 bits, in whole words. */
#define BITMAP_MAX (1u << 28)

long type1_check_bitmap(struct type1 *t, struct swiommu_caller *caller,
			const struct vfio_bitmap *bitmap, uint64_t size)
{
	uint64_t page = type1_page(t), npages = size / page;

	if (bitmap->pgsize != page)
		return vfio_fail(caller, -EINVAL,
				 "dirty bitmap: pgsize %#llx: must be the smallest page, %#llx",
				 (ull)bitmap->pgsize, (ull)page);
	if (!npages || !bitmap->size || bitmap->size > BITMAP_MAX ||
	    bitmap->size < (npages + 63) / 64 * 8)
		return vfio_fail(caller, -EINVAL,
				 "dirty bitmap: %llu bytes for %llu pages: must be enough, and at "
				 "most %u",
				 (ull)bitmap->size, (ull)npages, BITMAP_MAX);
	return 0;
}

#define CHUNK 512u

long vfio_set_bits(struct swiommu_caller *caller, uint64_t base, uint64_t first, uint64_t last)
{
	uint8_t buf[CHUNK];

	while (first <= last) {
		uint64_t byte = first / 8;
		size_t len = (size_t)SWI_MIN(last / 8 - byte + 1, CHUNK);
		uint64_t end = SWI_MIN(last, (byte + len) * 8 - 1);
		long rc = vfio_copy_in(caller, buf, base + byte, len, "dirty bitmap");

		if (rc)
			return rc;
		for (uint64_t bit = first; bit <= end; bit++)
			buf[bit / 8 - byte] |= (uint8_t)(1u << bit % 8);
		rc = vfio_copy_out(caller, base + byte, buf, len, "dirty bitmap");
		if (rc)
			return rc;
		first = end + 1;
	}
	return 0;
}

long type1_report_dirty(struct type1 *t, struct swiommu_caller *caller,
			const struct vfio_bitmap *bitmap, iova_t iova, iova_t last)
{
	iova_t from = iova;
	long rc;

	do {
		uint64_t first, end;
		struct iova_area *area;

		/* The client's memory is not touched under the map's lock. */
		iova_map_lock(t->ioas->map);
		area = iova_map_first(t->ioas->map, from);
		first = area ? area->iova : IOVA_MAX;
		end = area ? SWI_MIN(area->last, last) : 0;
		iova_map_unlock(t->ioas->map);
		if (!area || first > last)
			return 0;
		rc = vfio_set_bits(caller, (uintptr_t)bitmap->data, (first - iova) / bitmap->pgsize,
				   (end - iova) / bitmap->pgsize);
		from = end + 1;
		if (end == last)
			break;
	} while (!rc);
	return rc;
}

/* The range must hold whole mappings. */
static long check_whole_locked(struct type1 *t, struct swiommu_caller *caller, iova_t iova,
			       iova_t last)
{
	struct iova_area *first, *end;
	long rc = 0;

	iova_map_lock(t->ioas->map);
	first = iova_map_first(t->ioas->map, iova);
	end = iova_map_first(t->ioas->map, last);
	if ((first && first->iova < iova) || (end && end->iova <= last && end->last != last))
		rc = vfio_fail(caller, -EINVAL,
			       "VFIO_IOMMU_DIRTY_PAGES: [%#llx, %#llx] begins or ends inside a "
			       "mapping",
			       (ull)iova, (ull)last);
	iova_map_unlock(t->ioas->map);
	return rc;
}

static long get_bitmap_locked(struct type1 *t, struct swiommu_caller *caller, uint32_t argsz,
			      uint64_t arg)
{
	static const char what[] = "VFIO_IOMMU_DIRTY_PAGES";
	const size_t head = offsetof(struct vfio_iommu_type1_dirty_bitmap, data);
	struct vfio_iommu_type1_dirty_bitmap_get get;
	iova_t last;
	long rc;

	if (!t->dirty_tracking || argsz < head + sizeof(get))
		return vfio_fail(caller, -EINVAL, "%s: %s", what,
				 t->dirty_tracking ? "argsz is less than 48"
						   : "tracking has not been started");
	rc = vfio_copy_in(caller, &get, arg + head, sizeof(get), what);
	if (rc)
		return rc;
	if (!get.size || !range_last(get.iova, get.size, &last) ||
	    (get.iova | get.size) & (type1_page(t) - 1))
		return vfio_fail(caller, -EINVAL,
				 "%s: iova %#llx, size %#llx: must be multiples of the smallest "
				 "page, size not 0 and their sum at most 2^64",
				 what, (ull)get.iova, (ull)get.size);
	rc = type1_check_bitmap(t, caller, &get.bitmap, get.size);
	if (!rc)
		rc = check_whole_locked(t, caller, get.iova, last);
	return rc ? rc : type1_report_dirty(t, caller, &get.bitmap, get.iova, last);
}

long type1_dirty_pages(struct type1 *t, struct swiommu_caller *caller, uint64_t arg)
{
	static const char what[] = "VFIO_IOMMU_DIRTY_PAGES";
	uint32_t head[2]; /* argsz, flags */
	long rc;

	rc = vfio_copy_in(caller, head, arg, sizeof(head), what);
	if (rc)
		return rc;
	if (head[0] < sizeof(head))
		return vfio_fail(caller, -EINVAL, "%s: argsz is %u, at least 8 needed", what,
				 head[0]);
	pthread_mutex_lock(&t->lock);
	switch (head[1]) {
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_START:
		t->dirty_tracking = true;
		break;
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP:
		t->dirty_tracking = false;
		break;
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP:
		rc = get_bitmap_locked(t, caller, head[0], arg);
		break;
	default:
		rc = vfio_fail(caller, -EINVAL,
			       "%s: flags 0x%x: exactly one of START, STOP and GET_BITMAP", what,
			       head[1]);
	}
	pthread_mutex_unlock(&t->lock);
	return rc;
}
