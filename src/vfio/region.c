// SPDX-License-Identifier: MIT
/*
 * read, write and mmap of the device file (spec vfio.md 4.1).
 *
 * The position says it all: region << 40 | offset. A transfer goes through a buffer on the stack in
 * chunks that end at multiples of the buffer's size, so that cutting a chunk into naturally aligned
 * pieces gives the same pieces as cutting the whole. For a write, a chunk is copied in completely
 * before its first piece takes effect. No lock is held while client memory is touched; pieces take
 * what locks they need.
 *
 * A BAR answers when its kind of decoding is on. The bytes of the MSI-X table belong to the host:
 * they read as 0xff and writes to them are dropped, whatever decoding says. Pages that the model shares
 * with clients are accessed in place (pages.c).
 *
 * Only shared pages can be mapped, and by a client whose accesses are trapped also the others, without any rights.
 * Decoding and resets do not reach into mappings: while decoding is off, loads and stores go on in the shared pages,
 * where the kernel would raise SIGBUS.
 */
#include "vfio/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define CHUNK 512u
/* No system call moves more (the kernel's limit for one read or write). */
#define COUNT_MAX 0x7ffff000u

struct transfer {
	struct vfio_device *dev;
	unsigned int region;
	bool write;
	/* Bytes of the region that nobody reaches: [hole, hole_end). */
	uint64_t hole, hole_end;
	unsigned int decode; /* VFIO_DECODE_* needed */
};

static int access_model(const struct transfer *t, uint64_t off, uint8_t *buf, unsigned int size)
{
	const struct vfio_model *model = t->dev->model;
	const struct vfio_pages *pages = vfio_pages_find(&t->dev->regions[t->region], off);
	uint64_t value = 0;
	int rc;

	if (t->decode && !(atomic_load(&t->dev->decoding) & t->decode))
		return -EIO;
	if (pages) {
		vfio_pages_access(pages, off, buf, size, t->write);
		if (t->write && model->pages_written)
			model->pages_written(t->dev->priv, t->region, off, size);
		return 0;
	}
	if (t->write)
		return model->region_write(t->dev->priv, t->region, off, size,
					   vfio_load_le(buf, size));
	rc = model->region_read(t->dev->priv, t->region, off, size, &value);
	if (!rc)
		vfio_store_le(buf, size, value);
	return rc;
}

/* One chunk of a BAR or the ROM. */
static int bar_chunk(const struct transfer *t, uint64_t off, uint8_t *buf, size_t len)
{
	uint64_t n;

	for (; len; off += n, buf += n, len -= n) {
		if (off >= t->hole && off < t->hole_end) {
			n = SWI_MIN(len, t->hole_end - off);
			if (!t->write)
				memset(buf, 0xff, n);
			continue;
		}
		n = off < t->hole ? SWI_MIN(len, t->hole - off) : len;
		n = vfio_piece(off, n, t->region == VFIO_ROM ? 4 : 8);

		int rc = access_model(t, off, buf, (unsigned int)n);

		if (rc)
			return rc;
	}
	return 0;
}

static int chunk(const struct transfer *t, uint64_t off, uint8_t *buf, size_t len)
{
	if (t->region != VFIO_PCI_CONFIG_REGION_INDEX)
		return bar_chunk(t, off, buf, len);
	if (t->write)
		return vfio_config_write(t->dev, (unsigned int)off, buf, len);
	return vfio_config_read(t->dev, (unsigned int)off, buf, len);
}

static ssize_t fail_access(const struct transfer *t, struct swiommu_caller *caller, int rc,
			   uint64_t off)
{
	const char *what = t->write ? "write" : "read";

	if (rc == -EIO && t->decode)
		return vfio_fail(caller, rc,
				 "%s of region %u at 0x%llx: %s decoding is off in COMMAND, "
				 "or the device is in D3hot",
				 what, t->region, (unsigned long long)off,
				 t->decode == VFIO_DECODE_IO ? "I/O" : "memory");
	return vfio_fail(caller, rc, "%s of region %u at 0x%llx: refused by the device", what,
			 t->region, (unsigned long long)off);
}

static ssize_t transfer(const struct transfer *t, struct swiommu_caller *caller, uint64_t uptr,
			size_t count, uint64_t off)
{
	uint8_t buf[CHUNK];
	size_t done = 0;

	while (done < count) {
		size_t n = SWI_MIN(count - done, CHUNK - (off + done) % CHUNK);
		int rc;

		if (t->write && vfio_copy_in(caller, buf, uptr + done, n, "data to write"))
			return -EFAULT;
		rc = chunk(t, off + done, buf, n);
		if (rc)
			return fail_access(t, caller, rc, off + done);
		if (!t->write && vfio_copy_out(caller, uptr + done, buf, n, "buffer to read into"))
			return -EFAULT;
		done += n;
	}
	return (ssize_t)done;
}

void vfio_region_msix_table(const struct vfio_device *dev, unsigned int region, uint64_t *start,
			    uint64_t *end)
{
	bool here = dev->msix_vectors && dev->msix_bar == region;

	*start = here ? dev->msix_table : 0;
	*end = here ? dev->msix_table + dev->msix_vectors * 16ull : 0;
}

int vfio_region_store(struct vfio_device *dev, unsigned int region, uint64_t offset,
		      unsigned int size, uint64_t value)
{
	struct transfer t = {.dev = dev, .region = region, .write = true};
	uint8_t bytes[8];

	t.decode = dev->regions[region].flags & VFIO_BAR_IO ? VFIO_DECODE_IO : VFIO_DECODE_MEMORY;
	vfio_region_msix_table(dev, region, &t.hole, &t.hole_end);
	vfio_store_le(bytes, size, value);
	return bar_chunk(&t, offset, bytes, size);
}

ssize_t vfio_region_rw(struct vfio_device *dev, struct swiommu_caller *caller, uint64_t uptr,
		       size_t count, uint64_t pos, bool write)
{
	struct transfer t = {.dev = dev, .write = write};
	uint64_t off = pos & ((1ull << VFIO_REGION_SHIFT) - 1);
	uint64_t size;

	if (!count)
		return 0;
	count = SWI_MIN(count, COUNT_MAX);
	if (pos >> VFIO_REGION_SHIFT >= VFIO_PCI_NUM_REGIONS)
		return vfio_fail(caller, -EINVAL,
				 "position 0x%llx: region %llu, but the device has regions 0-%d",
				 (unsigned long long)pos,
				 (unsigned long long)(pos >> VFIO_REGION_SHIFT),
				 VFIO_PCI_NUM_REGIONS - 1);
	t.region = (unsigned int)(pos >> VFIO_REGION_SHIFT);
	if (t.region == VFIO_PCI_VGA_REGION_INDEX)
		return vfio_fail(caller, -EINVAL, "the device has no VGA region");
	size = vfio_device_region_size(dev, t.region);
	if (t.region == VFIO_PCI_CONFIG_REGION_INDEX) {
		if (off >= size || count > size - off)
			return vfio_fail(
				caller, -EFAULT,
				"configuration space at 0x%llx, %zu bytes: its size is %llu",
				(unsigned long long)off, count, (unsigned long long)size);
		return transfer(&t, caller, uptr, count, off);
	}
	if (t.region == VFIO_ROM && write)
		return vfio_fail(caller, -EINVAL, "the ROM cannot be written");
	if (off >= size)
		return vfio_fail(caller, -EINVAL, "offset 0x%llx in region %u: its size is 0x%llx",
				 (unsigned long long)off, t.region, (unsigned long long)size);
	count = SWI_MIN(count, size - off);
	t.decode = dev->regions[t.region].flags & VFIO_BAR_IO ? VFIO_DECODE_IO : VFIO_DECODE_MEMORY;
	vfio_region_msix_table(dev, t.region, &t.hole, &t.hole_end);
	return transfer(&t, caller, uptr, count, off);
}

int vfio_file_mmap(struct vfio_file *file, struct swiommu_caller *caller, uint64_t length, int prot,
		   int flags, uint64_t offset)
{
	struct vfio_device *dev = file->dev;
	uint64_t region = offset >> VFIO_REGION_SHIFT;
	uint64_t off = offset & ((1ull << VFIO_REGION_SHIFT) - 1);
	const struct vfio_pages *pages;
	uint64_t size;
	int type = flags & MAP_TYPE;

	caller->reason[0] = '\0';
	if (!vfio_file_is_bound(file))
		return (int)vfio_fail(caller, -EINVAL, "mmap before VFIO_DEVICE_BIND_IOMMUFD");
	if (type != MAP_SHARED && type != MAP_SHARED_VALIDATE)
		return (int)vfio_fail(caller, -EINVAL, "a device must be mapped MAP_SHARED");
	if (region >= VFIO_NR_BARS)
		return (int)vfio_fail(caller, -EINVAL, "region %llu cannot be mapped, only BARs",
				      (unsigned long long)region);
	size = vfio_region_span(dev, (unsigned int)region);
	if (!size || (!dev->regions[region].nr_pages && !caller->can_trap))
		return (int)vfio_fail(caller, -EINVAL,
				      "region %llu has no MMAP flag (see "
				      "VFIO_DEVICE_GET_REGION_INFO): use pread and pwrite",
				      (unsigned long long)region);
	if (!length || off >= size || length > size - off)
		return (int)vfio_fail(
			caller, -EINVAL,
			"mmap of 0x%llx bytes at 0x%llx of region %llu: its size is 0x%llx",
			(unsigned long long)length, (unsigned long long)off,
			(unsigned long long)region, (unsigned long long)size);
	if (caller->can_trap && prot == PROT_NONE)
		return 0;
	pages = vfio_pages_find(&dev->regions[region], off);
	if (!pages || length > pages->length - (off - pages->offset))
		return (int)vfio_fail(
			caller, -EINVAL,
			"mmap of 0x%llx bytes at 0x%llx of region %llu: not in the sparse mmap "
			"list of VFIO_DEVICE_GET_REGION_INFO; use pread and pwrite there",
			(unsigned long long)length, (unsigned long long)off,
			(unsigned long long)region);
	return 0;
}
