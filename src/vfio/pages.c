// SPDX-License-Identifier: MIT
/*
 * Pages of a BAR that the model shares with clients: what a mapping of the device shows.
 *
 * They lie in one file per device, region i at i << 40, which is where clients map them when the file is the
 * device's node (`swiommu run` has made it an empty file on a tmpfs of its own). Until the node is known, and for
 * embedders for good, it is a memfd. The model sees each range at an address that never changes: another
 * file is mapped over it, with the contents carried over.
 *
 * The client may do to its node whatever one can do to a file, truncating included. So the ranges are registered
 * with the SIGBUS guard: the model goes on with zeros, and the client finds its BAR dead. The next one
 * to bind the device finds it whole again.
 */
#include "vfio/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t file_offset(unsigned int index, const struct vfio_pages *p)
{
	return (uint64_t)index << VFIO_REGION_SHIFT | p->offset;
}

uint64_t vfio_region_span(const struct vfio_device *dev, unsigned int index)
{
	if (index >= VFIO_NR_BARS || dev->regions[index].flags & VFIO_BAR_IO)
		return 0;
	return (dev->regions[index].size + SWI_PAGE_SIZE - 1) & ~(uint64_t)(SWI_PAGE_SIZE - 1);
}

void vfio_pci_add_pages(struct vfio_device *dev, unsigned int index, uint64_t offset,
			uint64_t length)
{
	uint64_t span = vfio_region_span(dev, index);
	struct vfio_region *r = &dev->regions[SWI_MIN(index, VFIO_NR_BARS)];
	struct vfio_pages *last = r->nr_pages ? &r->pages[r->nr_pages - 1] : NULL;

	if (!length || (offset | length) % SWI_PAGE_SIZE || offset > span ||
	    length > span - offset || (last && offset < last->offset + last->length)) {
		vfio_build_fail(dev, "pages at 0x%llx, 0x%llx bytes, in BAR %u",
				(unsigned long long)offset, (unsigned long long)length, index);
		return;
	}
	if (last && offset == last->offset + last->length) {
		last->length += length;
		return;
	}
	if (r->nr_pages == VFIO_NR_AREAS) {
		vfio_build_fail(dev, "more than %u ranges of pages in BAR %u", VFIO_NR_AREAS,
				index);
		return;
	}
	r->pages[r->nr_pages].offset = offset;
	r->pages[r->nr_pages++].length = length;
}

void vfio_pci_add_file_pages(struct vfio_device *dev, unsigned int index, uint64_t offset,
			     uint64_t length, int fd, uint64_t fd_offset)
{
	uint64_t span = vfio_region_span(dev, index);
	struct vfio_region *r = &dev->regions[SWI_MIN(index, VFIO_NR_BARS)];
	struct vfio_file_pages *last =
		r->nr_file_pages ? &r->file_pages[r->nr_file_pages - 1] : NULL;

	if (!length || (offset | length | fd_offset) % SWI_PAGE_SIZE || offset > span ||
	    length > span - offset || r->nr_pages || r->nr_file_pages == VFIO_NR_AREAS ||
	    (last && offset < last->offset + last->length)) {
		vfio_build_fail(dev, "pages of a file at 0x%llx, 0x%llx bytes, in BAR %u",
				(unsigned long long)offset, (unsigned long long)length, index);
		return;
	}
	r->file_pages[r->nr_file_pages++] = (struct vfio_file_pages){offset, length, fd, fd_offset};
}

/* ---- the file -------------------------------------------------------------------------------- */

/* Calls `visit` for each range of pages until one fails. */
static int for_each(struct vfio_device *dev, int fd,
		    int (*visit)(unsigned int index, struct vfio_pages *p, int fd))
{
	int rc = 0;

	for (unsigned int i = 0; i < VFIO_NR_BARS; i++)
		for (unsigned int k = 0; !rc && k < dev->regions[i].nr_pages; k++)
			rc = visit(i, &dev->regions[i].pages[k], fd);
	return rc;
}

/* Room in the file, so that a later store cannot find the file system full. */
static int visit_allocate(unsigned int index, struct vfio_pages *p, int fd)
{
	int rc;

	do {
		rc = fallocate(fd, 0, (off_t)file_offset(index, p), (off_t)p->length) ? -errno : 0;
	} while (rc == -EINTR);
	return rc;
}

static int visit_reserve(unsigned int index, struct vfio_pages *p, int fd)
{
	void *host = mmap(NULL, p->length, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			  (off_t)file_offset(index, p));

	if (host == MAP_FAILED)
		return -errno;
	p->host = host;
	mem_guard_mend(&p->guard, host, p->length);
	return 0;
}

static int visit_map(unsigned int index, struct vfio_pages *p, int fd)
{
	void *host = mmap(p->host, p->length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
			  (off_t)file_offset(index, p));

	return host == MAP_FAILED ? -errno : 0;
}

static int visit_copy(unsigned int index, struct vfio_pages *p, int fd)
{
	for (uint64_t done = 0; done < p->length;) {
		ssize_t n = pwrite(fd, p->host + done, p->length - done,
				   (off_t)(file_offset(index, p) + done));

		if (n <= 0)
			return n ? -errno : -EIO;
		done += (uint64_t)n;
	}
	return 0;
}

bool vfio_device_has_pages(const struct vfio_device *dev)
{
	return dev->pages_fd >= 0;
}

int vfio_pages_init(struct vfio_device *dev)
{
	bool any = false;
	int rc;

	for (unsigned int i = 0; i < VFIO_NR_BARS; i++)
		any |= dev->regions[i].nr_pages;
	if (!any)
		return 0;
	dev->pages_fd = memfd_create("swiommu-bars", MFD_CLOEXEC);
	if (dev->pages_fd < 0)
		return -errno;
	rc = for_each(dev, dev->pages_fd, visit_allocate);
	if (!rc)
		rc = for_each(dev, dev->pages_fd, visit_reserve);
	if (rc)
		vfio_pages_fini(dev);
	return rc;
}

void vfio_pages_fini(struct vfio_device *dev)
{
	for (unsigned int i = 0; i < VFIO_NR_BARS; i++)
		for (unsigned int k = 0; k < dev->regions[i].nr_pages; k++) {
			struct vfio_pages *p = &dev->regions[i].pages[k];

			mem_guard_forget(&p->guard);
			if (p->host)
				munmap(p->host, p->length);
			p->host = NULL;
		}
	if (dev->pages_fd >= 0)
		close(dev->pages_fd);
	dev->pages_fd = -1;
}

int vfio_device_set_node(struct vfio_device *dev, int fd)
{
	int copy, rc;

	if (!vfio_device_has_pages(dev))
		return 0;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return -errno;
	rc = for_each(dev, copy, visit_allocate);
	if (!rc)
		rc = for_each(dev, copy, visit_copy);
	if (!rc)
		rc = for_each(dev, copy, visit_map);
	if (rc) {
		/* Mapping over what is mapped already fails for want of memory at most; undoing is best effort. */
		for_each(dev, dev->pages_fd, visit_map);
		close(copy);
		return rc;
	}
	close(dev->pages_fd);
	dev->pages_fd = copy;
	dev->pages_in_node = true;
	return 0;
}

void vfio_pages_start(struct vfio_device *dev)
{
	if (!vfio_device_has_pages(dev))
		return;
	/* When there is no room any more the guard's zeros stand in. */
	for_each(dev, dev->pages_fd, visit_allocate);
	for_each(dev, dev->pages_fd, visit_map);
}

/* ---- looking --------------------------------------------------------------------------------- */

const struct vfio_pages *vfio_pages_find(const struct vfio_region *r, uint64_t offset)
{
	for (unsigned int k = 0; k < r->nr_pages; k++)
		if (offset >= r->pages[k].offset &&
		    offset - r->pages[k].offset < r->pages[k].length)
			return &r->pages[k];
	return NULL;
}

void *vfio_pages(struct vfio_device *dev, unsigned int index, uint64_t offset)
{
	const struct vfio_pages *p =
		index < VFIO_NR_BARS ? vfio_pages_find(&dev->regions[index], offset) : NULL;

	return p && p->host ? p->host + (offset - p->offset) : NULL;
}

/* Keeps off pages at [first, first+length), which `offset` of the area is not in. */
static void narrow(struct vfio_area *area, uint64_t offset, uint64_t first, uint64_t length)
{
	uint64_t end = area->offset + area->length;

	if (first > offset)
		end = SWI_MIN(end, first);
	else
		area->offset = SWI_MAX(area->offset, first + length);
	area->length = end - area->offset;
}

int vfio_region_area(const struct vfio_device *dev, unsigned int index, uint64_t offset,
		     struct vfio_area *out)
{
	uint64_t span = vfio_region_span(dev, index);
	const struct vfio_region *r;
	const struct vfio_pages *p;

	if (offset >= span)
		return -EINVAL;
	r = &dev->regions[index];
	p = vfio_pages_find(r, offset);
	if (p) {
		*out = (struct vfio_area){p->offset, p->length, VFIO_AREA_PAGES,
					  dev->pages_in_node ? -1 : dev->pages_fd,
					  file_offset(index, p)};
		return 0;
	}
	for (unsigned int k = 0; k < r->nr_file_pages; k++) {
		const struct vfio_file_pages *f = &r->file_pages[k];

		if (offset < f->offset || offset - f->offset >= f->length)
			continue;
		*out = (struct vfio_area){f->offset, f->length, VFIO_AREA_PAGES, f->fd,
					  f->fd_offset};
		return 0;
	}
	/* From the end of the pages before to the beginning of those behind. */
	*out = (struct vfio_area){.length = span, .kind = VFIO_AREA_TRAPPED, .fd = -1};
	for (unsigned int k = 0; k < r->nr_pages; k++)
		narrow(out, offset, r->pages[k].offset, r->pages[k].length);
	for (unsigned int k = 0; k < r->nr_file_pages; k++)
		narrow(out, offset, r->file_pages[k].offset, r->file_pages[k].length);
	return 0;
}

/*
 * As one access of the processor would do it: a client or a model that looks at the same time sees all of it or
 * nothing. The bytes keep their order, so it does not matter which one the processor has.
 */
void vfio_pages_access(const struct vfio_pages *p, uint64_t offset, uint8_t *buf, unsigned int size,
		       bool write)
{
	void *at = p->host + (offset - p->offset);

#define ACCESS(type)                                                       \
	do {                                                               \
		type v;                                                    \
		if (write) {                                               \
			memcpy(&v, buf, sizeof(v));                        \
			__atomic_store_n((type *)at, v, __ATOMIC_SEQ_CST); \
		} else {                                                   \
			v = __atomic_load_n((type *)at, __ATOMIC_SEQ_CST); \
			memcpy(buf, &v, sizeof(v));                        \
		}                                                          \
	} while (0)
	switch (size) {
	case 8:
		ACCESS(uint64_t);
		break;
	case 4:
		ACCESS(uint32_t);
		break;
	case 2:
		ACCESS(uint16_t);
		break;
	default:
		ACCESS(uint8_t);
		break;
	}
#undef ACCESS
}
