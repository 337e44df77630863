// SPDX-License-Identifier: MIT
/*
 * Moving data through an access (spec core.md 6.6).
 *
 * What memory a call sees depends on whose it is and who calls:
 *
 *   file				the file's pages
 *   the caller's own			what is mapped there now
 *   another process', KTHREAD		what is mapped there now
 *   another process', within a page	what is mapped there now
 *   another process', several pages	pinned pages, and what a pin would get where nothing is
 * pinned a process that is no more		pinned pages, else -EFAULT
 *
 * "A page" and "several" go by the part of the range that lies in one area. access_rw_for() follows this to the letter,
 * for tasks of the front end. For this process itself iommufd_access_rw() differs in one point: an area that is pinned
 * as a whole and addressable (area->host), that is, one under an attached device, is always used through its window, at
 * the cost of a copy. That is the memory which the device sees, also where something else has been mapped at the
 * owner's address since.
 *
 * A call is one read section: unmapping waits for all of it.
 */
#include "core/access.h"

#include <errno.h>

#include "base/alloc.h"
#include "mem/guard.h"

struct mover {
	struct iommufd_access *access;
	struct mem_owner *caller; /* NULL: this process */
	char *data;
	unsigned int dir, flags;
	struct swi_reason *why;
};

static int copy(char *host, char *data, size_t len, unsigned int dir)
{
	return dir == SWI_WRITE ? mem_guard_copy(host, data, len) : mem_guard_copy(data, host, len);
}

/* With the rights of this moment, at the addresses of this moment. */
static int move_now(const struct mover *m, struct mem_owner *owner, uint64_t addr, size_t len)
{
	return m->dir == SWI_WRITE ? owner->ops->write(owner, addr, m->data, len)
				   : owner->ops->read(owner, addr, m->data, len);
}

static int move_pages(const struct mover *m, struct iova_area *area, uint64_t offset, size_t len)
{
	/* A file's pages are the same ones pinned or not: no need to pin them for a copy. */
	if (!mem_owner_is_file(backing_owner(area->backing)))
		return backing_move_slow(area->backing, offset, m->data, len, m->dir);
	return m->dir == SWI_WRITE ? backing_write(area->backing, offset, m->data, len)
				   : backing_read(area->backing, offset, m->data, len);
}

/* The table above, for one area. */
static int move_as_kernel(const struct mover *m, struct iova_area *area, uint64_t offset,
			  size_t len, bool own)
{
	struct mem_owner *owner = backing_owner(area->backing);
	uint64_t addr = backing_addr(area->backing) + offset;
	bool one_page = (addr ^ (addr + len - 1)) < SWI_PAGE_SIZE;
	bool now = (m->flags & IOMMUFD_ACCESS_RW_KTHREAD) || one_page;

	if (mem_owner_is_file(owner))
		return move_pages(m, area, offset, len);
	if (own && !(m->flags & __IOMMUFD_ACCESS_RW_SLOW_PATH))
		return move_now(m, owner, addr, len);
	if (!now || mem_owner_gone(owner))
		return move_pages(m, area, offset, len);
	if (swi_fail_point())
		return -EINVAL;
	return move_now(m, owner, addr, len);
}

/*
 * By the embedder's promise, this process' own memory can be used as a plain pointer once it has been looked at.
 * The pointer stays with the area, as that of a pinned one does.
 */
static char *direct_host(struct iova_area *area, iova_t area_last)
{
	struct mem_owner *owner = backing_owner(area->backing);
	uint64_t addr = backing_addr(area->backing) + area->offset;
	struct mem_window look;

	if (owner->ops->open_window(owner, addr, area_last - area->iova + 1,
				    area->prot & SWI_WRITE ? SWI_WRITE : SWI_READ, &look, NULL))
		return NULL;
	mem_window_close(&look);
	atomic_store_explicit(&area->host, (void *)(uintptr_t)addr, memory_order_relaxed);
	return (char *)(uintptr_t)addr;
}

/* `area_last` is the area's end as it was found. */
static int move_in_area(const struct mover *m, struct iova_area *area, iova_t area_last,
			iova_t iova, size_t len)
{
	struct mem_owner *owner = backing_owner(area->backing);
	uint64_t at = iova - area->iova;
	bool local;
	char *host;

	if (m->caller)
		return move_as_kernel(m, area, area->offset + at, len,
				      mem_owner_same(m->caller, owner));
	local = mem_owner_is_local(owner);
	host = atomic_load_explicit(&area->host, memory_order_relaxed);
	if (!host && local && m->access->direct)
		host = direct_host(area, area_last);
	/* A window that failed is that of a file which has shrunk: ask again the careful way. */
	if (host && !copy(host + at, m->data, len, m->dir))
		return 0;
	return move_as_kernel(m, area, area->offset + at, len, local);
}

static int check_area(const struct iova_area *area, unsigned int dir, struct swi_reason *why)
{
	if (area->blocked)
		return swi_fail(why, -EINVAL, "the mapping at IOVA %#llx is being unmapped",
				(ull)area->iova);
	/* An area has W only if its backing has: COPY sees to it. */
	if (!(area->prot & dir))
		return swi_fail(why, -EPERM, "the mapping at IOVA %#llx does not permit %s",
				(ull)area->iova, dir == SWI_WRITE ? "writing" : "reading");
	if (backing_owner(area->backing)->ops->device)
		return swi_fail(why, -EINVAL, "the mapping at IOVA %#llx is of a device's memory",
				(ull)area->iova);
	return 0;
}

/* Inside. */
static int move_range(struct mover *m, struct access_io *io, iova_t iova, iova_t last)
{
	struct iova_area *area;
	iova_t area_last;
	size_t len;
	int rc;

	for (;; iova += len, m->data += len) {
		area = iova_translate_run(&io->reader, io->ioas->map, iova, &area_last);
		if (!area)
			return swi_fail(m->why, -ENOENT, "nothing is mapped at IOVA %#llx",
					(ull)iova);
		rc = check_area(area, m->dir, m->why);
		if (rc)
			return rc;
		len = SWI_MIN(area_last, last) - iova + 1;
		rc = move_in_area(m, area, area_last, iova, len);
		if (rc)
			return swi_fail(m->why, rc, "the memory behind IOVA %#llx cannot be %s",
					(ull)iova, m->dir == SWI_WRITE ? "written" : "read");
		if (area_last >= last)
			return 0;
	}
}

static int rw(struct iommufd_access *access, struct mem_owner *caller, iova_t iova, void *data,
	      size_t length, unsigned int flags, struct swi_reason *why)
{
	struct mover m = {
		.access = access,
		.caller = caller,
		.data = data,
		.dir = flags & IOMMUFD_ACCESS_RW_WRITE ? SWI_WRITE : SWI_READ,
		.flags = flags,
		.why = why,
	};
	struct access_io *io;
	iova_t last;
	int rc;

	if (!length)
		return swi_fail(why, -EINVAL, "length is 0");
	rc = swi_range_last("iova", iova, length, &last, why);
	if (rc)
		return rc;
	rc = access_io_get(access, &io);
	if (rc)
		goto fail;
	access_enter(io);
	rc = io->ioas ? 0 : -ENOENT;
	if (!rc) {
		rc = move_range(&m, io, iova, last);
		iova_read_end(&io->reader);
		return rc;
	}
	iova_read_end(&io->reader);
fail:
	return swi_fail(why, rc,
			rc == -ENOENT ? "access %u is not attached"
				      : "no memory for the reader of access %u",
			access->obj.id);
}

int access_rw_for(struct iommufd_access *access, struct mem_owner *caller, iova_t iova, void *data,
		  size_t length, unsigned int flags, struct swi_reason *why)
{
	return rw(access, caller, iova, data, length, flags, why);
}

/* The usual case: addressable memory inside one area. False: not done, or not to the end; do it the
 * long way. */
static inline bool move_fast(struct access_io *io, iova_t iova, void *data, size_t length,
			     unsigned int flags)
{
	unsigned int dir = flags & IOMMUFD_ACCESS_RW_WRITE ? SWI_WRITE : SWI_READ;
	struct iova_area *area;
	iova_t last;
	char *host;

	if (SWI_UNLIKELY(!io->ioas))
		return false;
	area = iova_translate_run(&io->reader, io->ioas->map, iova, &last);
	if (SWI_UNLIKELY(!area))
		return false;
	/* A split that shortens the area from now on does no harm: the memory goes on behind it. */
	host = atomic_load_explicit(&area->host, memory_order_relaxed);
	if (SWI_UNLIKELY(!host || !(area->prot & dir) || length - 1 > last - iova ||
			 atomic_load_explicit(&area->blocked, memory_order_relaxed)))
		return false;
	return !copy(host + (iova - area->iova), data, length, dir);
}

int iommufd_access_rw(struct iommufd_access *access, unsigned long iova, void *data, size_t length,
		      unsigned int flags)
{
	struct access_io *io = atomic_load_explicit(&access->io, memory_order_acquire);
	struct swi_reason why;
	bool done;
	int rc;

	if (SWI_LIKELY(io && length)) {
		access_enter(io);
		done = move_fast(io, iova, data, length, flags);
		iova_read_end(&io->reader);
		if (SWI_LIKELY(done))
			return 0;
	}
	why.text[0] = '\0';
	rc = rw(access, NULL, iova, data, length, flags, &why);
	return access_note(access, &why, rc);
}
