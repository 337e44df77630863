// SPDX-License-Identifier: MIT
/*
 * The drivers' steps of fuzz_ioctl.c: devices that bind, attach and do DMA, accesses that pin pages and move bytes. What
 * they have pinned is written down in the world, for check.c to count.
 */
#include "ioctl_world.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/alloc.h"
#include "core/access.h"
#include "core/hwpt.h"

#define MOVE_MAX 9000u

/* ---- devices ------------------------------------------------------------------------------------- */

void leave(struct fake_device *d)
{
	if (d->dma)
		swiommu_dma_close(d->dma);
	d->dma = NULL;
	if (!d->idev)
		return;
	iommufd_device_detach(d->idev, 0);
	d->attached = false;
	iommufd_device_unbind(d->idev);
	d->idev = NULL;
}

void do_bind(struct world *w)
{
	struct fake_device *d = &w->device[pick(w->in, NR_DEVICES)];
	struct iommufd_device *idev;
	uint32_t id = 0;

	if (d->idev) {
		if (seldom(w->in, 4))
			leave(d);
		return;
	}
	idev = iommufd_device_bind(w->ctx[take_ctx(w)], &d->dev, &id);
	if (IS_ERR(idev)) {
		FUZZ_CHECK(is_known_errno(PTR_ERR(idev)), "bind: %ld", PTR_ERR(idev));
		return;
	}
	d->idev = idev;
	FUZZ_CHECK(iommufd_device_to_id(idev) == id, "device ID %u", id);
	FUZZ_CHECK(iommufd_ctx_has_group(iommufd_device_to_ictx(idev), d->dev.group),
		   "its group is not there");
}

/* The IOAS under the HWPT that an attach has answered with. */
static struct ioas *ioas_of_hwpt(struct iommufd_ctx *ctx, uint32_t id)
{
	struct swi_reason why;
	struct ioas *ioas;
	struct obj *obj;

	swi_alloc_fail_nth(0);
	FUZZ_CHECK(!obj_get(ctx, id, OBJ_ANY, "pt_id", &why, &obj) && obj->ops->type != OBJ_IOAS,
		   "%u is no HWPT", id);
	ioas = hwpt_of(obj)->ioas;
	obj_put(obj);
	return ioas;
}

void do_attach(struct world *w)
{
	struct fake_device *d = &w->device[pick(w->in, NR_DEVICES)];
	uint32_t id, pasid = seldom(w->in, 64);
	long rc = 0;

	if (!d->idev)
		return;
	id = take_pt(w, iommufd_device_to_ictx(d->idev));
	switch (pick(w->in, 5)) {
	case 0:
		iommufd_device_detach(d->idev, pasid);
		d->attached = d->attached && pasid;
		return;
	case 1:
	case 2:
		rc = iommufd_device_replace(d->idev, pasid, &id);
		break;
	default:
		rc = iommufd_device_attach(d->idev, pasid, &id);
	}
	FUZZ_CHECK(rc == 0 || is_known_errno(rc), "attach: %ld", rc);
	FUZZ_CHECK(!rc || swiommu_device_reason(d->idev), "no reason");
	if (rc || pasid)
		return;
	d->attached = true;
	*d->ioas = ioas_of_hwpt(iommufd_device_to_ictx(d->idev), id);
}

/* Whether the bytes of a DMA that has been done are the ones that the tree leads to; one area only. */
static void compare_dma(struct ioas *ioas, uint64_t iova, const uint8_t *data, size_t len)
{
	static uint8_t file_data[MOVE_MAX];
	struct iova_area *area;
	struct mem_owner *owner;
	uint64_t addr;

	iova_map_lock(ioas->map);
	area = iova_map_first(ioas->map, iova);
	iova_map_unlock(ioas->map);
	FUZZ_CHECK(area && area->iova <= iova, "DMA at %#llx, where nothing is mapped", (ull)iova);
	if (area->last - iova < len - 1)
		return;
	owner = backing_owner(area->backing);
	addr = backing_addr(area->backing) + area->offset + (iova - area->iova);
	if (owner->ops->device)
		return;
	if (mem_owner_is_file(owner)) {
		if (owner->ops->read(owner, addr, file_data, len))
			return;
		FUZZ_CHECK(!memcmp(data, file_data, len), "other bytes at %#llx of a file",
			   (ull)iova);
		return;
	}
	FUZZ_CHECK(!memcmp(data, (const void *)(uintptr_t)addr, len), "other bytes at %#llx",
		   (ull)iova);
}

/* What DMA must answer, but for memory that has gone. */
static int want_dma(struct ioas *ioas, uint64_t iova, size_t len, unsigned int dir)
{
	uint64_t end = iova + len;
	struct iova_area *area;
	int rc = 0;

	if (!len)
		return 0;
	if (len - 1 > UINT64_MAX - iova)
		return -EOVERFLOW;
	if (!ioas)
		return -ENXIO;
	iova_map_lock(ioas->map);
	for (uint64_t at = iova; !rc && at != end;) {
		area = iova_map_first(ioas->map, at);
		if (!area || area->iova > at) {
			rc = -ENOENT;
		} else if (!(area->prot & dir)) {
			rc = -EPERM;
		} else if (area->last >= end - 1) {
			break;
		} else {
			at = area->last + 1;
		}
	}
	iova_map_unlock(ioas->map);
	return rc;
}

static unsigned int ctx_index(const struct world *w, const struct iommufd_ctx *ctx)
{
	unsigned int i = 0;

	while (i < NR_CTX - 1 && w->ctx[i] != ctx)
		i++;
	return i;
}

void do_dma(struct world *w)
{
	struct fake_device *d = &w->device[pick(w->in, NR_DEVICES)];
	static uint8_t data[MOVE_MAX];
	uint64_t iova, length;
	struct ioas *ioas;
	bool write = seldom(w->in, 2);
	long rc, want;

	if (!d->idev)
		return;
	if (!d->dma || seldom(w->in, 16)) {
		if (d->dma)
			swiommu_dma_close(d->dma);
		d->dma = NULL;
		rc = swiommu_dma_open(d->idev, &d->dma);
		FUZZ_CHECK(!rc || rc == -ENOMEM, "dma_open: %ld", rc);
		if (rc) {
			d->dma = NULL;
			return;
		}
	}
	take_range(w, ctx_index(w, iommufd_device_to_ictx(d->idev)), &iova, &length);
	length %= MOVE_MAX;
	if (write)
		memset(data, take8(w->in), length);
	ioas = d->attached ? *d->ioas : NULL;
	want = want_dma(ioas, iova, length, write ? SWI_WRITE : SWI_READ);
	rc = write ? swiommu_dma_write(d->dma, iova, data, length)
		   : swiommu_dma_read(d->dma, iova, data, length);
	FUZZ_CHECK(rc == want || rc == -EFAULT, "DMA of %llu bytes at %#llx: %ld, want %ld",
		   (ull)length, (ull)iova, rc, want);
	if (!rc && length)
		compare_dma(ioas, iova, data, length);
}

/* ---- accesses ------------------------------------------------------------------------------------ */

static void forget_pin(struct world *w, unsigned int i)
{
	w->nr_pins--;
	w->pins[i] = w->pins[w->nr_pins];
	w->pinner[i] = w->pinner[w->nr_pins];
}

static void on_unmap(void *data, unsigned long iova, unsigned long length)
{
	struct fake_access *a = data;
	struct world *w = a->world;
	bool all = !iova && length == ULONG_MAX;

	if (a->stubborn && !all)
		return;
	for (unsigned int i = w->nr_pins; i--;) {
		struct known_pin pin = w->pins[i];

		if (w->pinner[i] != a->access ||
		    (!all && (pin.iova > iova + (length - 1) || pin.iova + pin.length - 1 < iova)))
			continue;
		iommufd_access_unpin_pages(a->access, pin.iova, pin.length);
		forget_pin(w, i);
	}
}

void drop_access(struct fake_access *a)
{
	if (a->access)
		iommufd_access_destroy(a->access);
	a->access = NULL;
}

void do_access(struct world *w)
{
	static const struct iommufd_access_ops pinning = {.needs_pin_pages = true,
							  .unmap = on_unmap};
	static const struct iommufd_access_ops plain = {.unmap = on_unmap}, bare = {.unmap = NULL};
	unsigned int i = pick(w->in, NR_ACCESSES);
	struct fake_access *a = &w->access[i];
	long rc = 0;
	uint32_t id;

	if (!a->access) {
		struct iommufd_access *access;

		a->world = w;
		a->ctx = take_ctx(w);
		a->stubborn = seldom(w->in, 12);
		access = iommufd_access_create(w->ctx[a->ctx],
					       i < 2		  ? &pinning
					       : seldom(w->in, 2) ? &bare
								  : &plain,
					       a, &id);
		if (IS_ERR(access))
			return;
		a->access = access;
		if (seldom(w->in, 4))
			swiommu_access_set_direct(access, true);
		return;
	}
	id = take_ioas(w, a->ctx);
	switch (pick(w->in, 8)) {
	case 0:
		drop_access(a);
		break;
	case 1:
		iommufd_access_detach(a->access);
		break;
	case 2:
	case 3:
		rc = iommufd_access_replace(a->access, id);
		break;
	default:
		rc = iommufd_access_attach(a->access, id);
	}
	FUZZ_CHECK(rc == 0 || is_known_errno(rc), "access: %ld", rc);
}

void do_pin(struct world *w)
{
	struct fake_access *a = &w->access[pick(w->in, NR_ACCESSES)];
	unsigned int flags = seldom(w->in, 2) ? IOMMUFD_ACCESS_RW_WRITE : 0;
	struct page *pages[65];
	uint64_t iova, length;
	long rc;

	if (!a->access)
		return;
	take_range(w, a->ctx, &iova, &length);
	if (w->nr_pins && seldom(w->in, 3)) {
		unsigned int i = take8(w->in) % w->nr_pins;

		/* Also ones that it does not have. */
		if (w->pinner[i] == a->access) {
			iommufd_access_unpin_pages(a->access, w->pins[i].iova, w->pins[i].length);
			forget_pin(w, i);
		}
		return;
	}
	length = SWI_MIN(length, ARENA_SIZE);
	if (w->nr_pins == NR_PINS)
		return;
	rc = iommufd_access_pin_pages(a->access, iova, length, seldom(w->in, 2) ? NULL : pages,
				      flags);
	FUZZ_CHECK(rc == 0 || is_known_errno(rc), "pin: %ld", rc);
	if (rc)
		return;
	w->pins[w->nr_pins] = (struct known_pin){a->access->ioas, iova, length};
	w->pinner[w->nr_pins++] = a->access;
}

void do_rw(struct world *w)
{
	struct fake_access *a = &w->access[pick(w->in, NR_ACCESSES)];
	unsigned int flags = pick(w->in, 8);
	static uint8_t data[MOVE_MAX];
	uint64_t iova, length;
	long rc;

	if (!a->access)
		return;
	take_range(w, a->ctx, &iova, &length);
	rc = iommufd_access_rw(a->access, iova, data, length % MOVE_MAX, flags);
	FUZZ_CHECK(rc == 0 || is_known_errno(rc), "rw: %ld", rc);
}
