// SPDX-License-Identifier: MIT
/*
 * Pinning through an access (spec core.md 6.3, 6.4).
 *
 * A range is pinned area by area, ascending. For each, under the map's lock, the area is judged and
 * its `pins` counted up; then, without the lock since it may block, its pages are pinned in the
 * backing. Unpin does the same in the opposite order. Nothing is remembered per access: the driver
 * remembers, and says the same range again.
 *
 * Why an area cannot vanish under a pin, and why UNMAP cannot miss one. All of this happens inside
 * the access' read section.
 *   - Pin before UNMAP looks: it finds pins > 0, blocks the area and waits for all read sections
 * that are open (iova_map_sync), so for this pin to be complete or taken back. If complete, the pin
 * is known to the driver as soon as the driver's own lock is free, and the callback finds it there.
 *   - UNMAP before pin looks: the area is blocked (-EINVAL), or busy or gone (-ENOENT).
 *   - Unpin counts down first and then unpins the backing. UNMAP, finding 0, takes the area out of
 * reach and waits for read sections before it lets anything go, so for this unpin too.
 *   - Detach, replace and destroy take the IOAS away from the inside of the section: no pin is in
 * progress, none can begin, and then the callback is called. Unpin goes on through unpin_ioas until
 * that has returned.
 *   - A split refuses areas with pins, so an area that is being pinned keeps its bounds.
 */
#include "core/access.h"

#include <errno.h>

#include "base/alloc.h"
#include "core/ctx.h"

/* The part of an area that a range covers. */
struct piece {
	struct iova_area *area;
	struct backing *backing; /* the area's, kept by its pins */
	uint64_t offset, length; /* bytes of the backing */
	iova_t last;
};

/* Which byte of the backing's first page the piece begins at, counted through all its pages. */
static uint64_t page_bytes(const struct piece *p)
{
	return (backing_addr(p->backing) & (SWI_PAGE_SIZE - 1)) + p->offset;
}

static uint64_t count_pages(const struct piece *p)
{
	return ((page_bytes(p) & (SWI_PAGE_SIZE - 1)) + (p->length - 1)) / SWI_PAGE_SIZE + 1;
}

/* The piece of `area` that covers [iova, last] as far as it goes; iova lies in it. */
static struct piece piece_of(struct iova_area *area, iova_t iova, iova_t last)
{
	struct piece p = {.area = area, .backing = area->backing};

	p.last = SWI_MIN(area->last, last);
	p.offset = area->offset + (iova - area->iova);
	p.length = p.last - iova + 1;
	return p;
}

/* ---- unpin ----------------------------------------------------------------------------------- */

/* Inside, the access being attached to `ioas`. False: something was not pinned, and nothing done
 * from there on. */
static bool unpin_range(struct iommufd_access *access, struct ioas *ioas, iova_t iova, iova_t last)
{
	struct iova_area *area;
	struct piece p;

	for (;; iova = p.last + 1) {
		iova_map_lock(ioas->map);
		area = iova_map_first(ioas->map, iova);
		if (!area || area->iova > iova || !area->pins ||
		    (access->internal && !area->locks)) {
			iova_map_unlock(ioas->map);
			return false;
		}
		p = piece_of(area, iova, last);
		area->pins--;
		area->locks -= access->internal;
		backing_get(p.backing);
		iova_map_unlock(ioas->map);
		backing_unpin(p.backing, p.offset, p.length);
		backing_put(p.backing);
		if (p.last == last)
			return true;
	}
}

void iommufd_access_unpin_pages(struct iommufd_access *access, unsigned long iova,
				unsigned long length)
{
	struct access_io *io = atomic_load_explicit(&access->io, memory_order_acquire);
	bool ok = false;
	iova_t last;

	if (io && range_last(iova, length, &last)) {
		access_enter(io);
		ok = io->unpin_ioas && unpin_range(access, io->unpin_ioas, iova, last);
		iova_read_end(&io->reader);
	}
	if (!ok)
		swi_log(&access->obj.ctx->log, SWI_LOG_WARN,
			"access %u unpins IOVA %#lx, length %#lx, which it has not pinned",
			access->obj.id, iova, length);
}

/* ---- pin ------------------------------------------------------------------------------------- */

/* Steps 4 to 6 for the area that holds `iova`, whose pins are counted up then. Map locked. */
static int claim_locked(struct iommufd_access *access, struct ioas *ioas, iova_t iova, iova_t last,
			unsigned int dir, struct piece *p, struct swi_reason *why)
{
	struct iova_area *area = iova_map_first(ioas->map, iova);

	if (!area || area->iova > iova || area->busy)
		return swi_fail(why, -ENOENT, "nothing is mapped at IOVA %#llx", (ull)iova);
	if (area->blocked)
		return swi_fail(why, -EINVAL, "the mapping [%#llx, %#llx] is being unmapped",
				(ull)area->iova, (ull)area->last);
	*p = piece_of(area, iova, last);
	if (page_bytes(p) & (SWI_PAGE_SIZE - 1))
		return swi_fail(why, -EINVAL, "IOVA %#llx is not the start of a page", (ull)iova);
	if (p->last != last && ((page_bytes(p) + p->length) & (SWI_PAGE_SIZE - 1)))
		return swi_fail(why, -EINVAL, "the mapping [%#llx, %#llx] ends inside a page",
				(ull)area->iova, (ull)area->last);
	if (!(area->prot & dir) || (dir == SWI_WRITE && !backing_write_intent(area->backing)))
		return swi_fail(why, -EPERM, "the mapping [%#llx, %#llx] does not permit %s",
				(ull)area->iova, (ull)area->last,
				dir == SWI_WRITE ? "writing" : "reading");
	if (backing_owner(area->backing)->ops->device)
		return swi_fail(
			why, -EINVAL,
			"the mapping [%#llx, %#llx] is of a device's memory, which has no pages",
			(ull)area->iova, (ull)area->last);
	if (area->pins == UINT32_MAX)
		return swi_fail(why, -EOVERFLOW, "too many pins in one mapping");
	area->pins++;
	area->locks += access->internal;
	return 0;
}

static int pin_piece(struct iommufd_access *access, struct ioas *ioas, iova_t iova, iova_t last,
		     unsigned int dir, struct piece *p, struct swi_reason *why)
{
	int rc;

	iova_map_lock(ioas->map);
	rc = claim_locked(access, ioas, iova, last, dir, p, why);
	iova_map_unlock(ioas->map);
	if (rc)
		return rc;
	rc = swi_fail_point() ? swi_fail(why, -EINVAL, "injected failure of a pin")
			      : backing_pin(p->backing, p->offset, p->length, why);
	if (rc) {
		iova_map_lock(ioas->map);
		p->area->pins--;
		p->area->locks -= access->internal;
		iova_map_unlock(ioas->map);
	}
	return rc;
}

/* The name of a page that this process cannot address: its owner's address, made odd. */
static struct page *far_page(const struct piece *p, uint64_t offset)
{
	return (struct page *)(uintptr_t)((backing_addr(p->backing) + offset) | 1);
}

/* The names of the pages of a pinned piece. The first one is whole but for its end. */
static void name_pages(const struct piece *p, struct page **out)
{
	char *host = backing_host(p->backing, p->offset, p->length);
	uint64_t n = count_pages(p), at = p->offset, left = p->length, step;
	uint64_t i;

	if (host) {
		for (i = 0; i < n; i++)
			out[i] = (struct page *)(host + i * SWI_PAGE_SIZE);
		return;
	}
	/* Not in one piece: pinned by different calls, or not addressable. */
	for (i = 0; i < n; i++, at += step, left -= step) {
		step = SWI_MIN(left, SWI_PAGE_SIZE);
		host = backing_host(p->backing, at, step);
		out[i] = host ? (struct page *)host : far_page(p, at);
	}
}

/* Inside. */
static int pin_range(struct iommufd_access *access, struct ioas *ioas, iova_t first, iova_t last,
		     struct page **out_pages, unsigned int dir, struct swi_reason *why)
{
	iova_t iova = first;
	struct piece p = {0}; /* gcc sees no more than that pin_piece() may fail */
	int rc;

	for (;; iova = p.last + 1) {
		rc = pin_piece(access, ioas, iova, last, dir, &p, why);
		if (rc)
			break;
		if (out_pages) {
			name_pages(&p, out_pages);
			out_pages += count_pages(&p);
		}
		if (p.last == last)
			return 0;
	}
	if (iova != first)
		unpin_range(access, ioas, first, iova - 1);
	return rc;
}

int access_pin(struct iommufd_access *access, iova_t iova, uint64_t length, struct page **out_pages,
	       unsigned int flags, struct swi_reason *why)
{
	unsigned int dir = flags & IOMMUFD_ACCESS_RW_WRITE ? SWI_WRITE : SWI_READ;
	struct access_io *io;
	iova_t last;
	int rc;

	if (!length)
		return swi_fail(why, -EINVAL, "length is 0");
	rc = swi_range_last("iova", iova, length, &last, why);
	if (rc)
		return rc;
	rc = access_io_get(access, &io);
	if (rc == -ENOMEM)
		return swi_fail(why, rc, "no memory for the access' reader");
	if (!rc) {
		access_enter(io);
		rc = io->ioas ? pin_range(access, io->ioas, iova, last, out_pages, dir, why)
			      : -ENOENT;
		if (rc == -ENOENT && !io->ioas)
			swi_fail(why, rc, "access %u is not attached", access->obj.id);
		iova_read_end(&io->reader);
		return rc;
	}
	return swi_fail(why, rc, "access %u is not attached", access->obj.id);
}

int iommufd_access_pin_pages(struct iommufd_access *access, unsigned long iova,
			     unsigned long length, struct page **out_pages, unsigned int flags)
{
	struct swi_reason why = {""};
	int rc;

	if (access->internal || !access->ops->needs_pin_pages || !access->ops->unmap)
		rc = swi_fail(&why, -EINVAL, "access %u was not made for pinning", access->obj.id);
	else
		rc = access_pin(access, iova, length, out_pages, flags, &why);
	return access_note(access, &why, rc);
}
