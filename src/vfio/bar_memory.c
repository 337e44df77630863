// SPDX-License-Identifier: MIT
/*
 * Registers of a device as the target of DMA of devices: what a program gets by mapping a BAR and giving
 * that address to a type 1 container (spec vfio.md 1.5; iommufd refuses such memory).
 *
 * It is an owner of memory whose addresses are positions in the device file. DMA reaches the pages that a model shares
 * with its clients, as stores through a mapping do. It does not reach trapped registers: the DMA of one
 * device would wait for another one, which may be waiting for the first. That DMA faults.
 */
#include "vfio/internal.h"

#include "base/alloc.h"
#include "mem/owner.h"

#include <errno.h>

struct bar_memory {
	struct mem_owner owner;
	struct vfio_device *dev; /* borrowed: devices outlive containers */
};

static int move(struct mem_owner *o, uint64_t pos, uint8_t *buf, size_t len, bool write)
{
	struct vfio_device *dev = container_of(o, struct bar_memory, owner)->dev;
	const struct vfio_region *r = &dev->regions[pos >> VFIO_REGION_SHIFT];
	uint64_t off = pos & ((1ull << VFIO_REGION_SHIFT) - 1);
	unsigned int n;

	if (!(atomic_load(&dev->decoding) & VFIO_DECODE_MEMORY))
		return -EFAULT;
	for (; len; off += n, buf += n, len -= n) {
		const struct vfio_pages *pages = vfio_pages_find(r, off);

		if (!pages)
			return -EFAULT;
		n = vfio_piece(off, len, 8);
		vfio_pages_access(pages, off, buf, n, write);
	}
	return 0;
}

static int bar_read(struct mem_owner *o, uint64_t addr, void *buf, size_t len)
{
	return move(o, addr, buf, len, false);
}

static int bar_write(struct mem_owner *o, uint64_t addr, const void *buf, size_t len)
{
	return move(o, addr, (void *)(uintptr_t)buf, len, true);
}

/* Registers need no pinning, and are reached by read and write only. */
static int bar_open_window(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot,
			   struct mem_window *win, struct swi_reason *why)
{
	(void)o;
	(void)addr;
	(void)len;
	(void)prot;
	(void)why;
	*win = (struct mem_window){0};
	return 0;
}

static int bar_page_key(struct mem_owner *o, uint64_t addr, struct page_key *key)
{
	(void)o;
	(void)addr;
	(void)key;
	return -EFAULT;
}

static void bar_space(struct mem_owner *o, uint64_t id[2])
{
	id[0] = (uintptr_t)container_of(o, struct bar_memory, owner)->dev;
	id[1] = UINT64_MAX;
}

static void bar_destroy(struct mem_owner *o)
{
	swi_free(container_of(o, struct bar_memory, owner));
}

static const struct mem_owner_ops bar_ops = {
	.kind = "registers",
	.device = true,
	.read = bar_read,
	.write = bar_write,
	.open_window = bar_open_window,
	.read_pinned = bar_read,
	.write_pinned = bar_write,
	.page_key = bar_page_key,
	.space = bar_space,
	.destroy = bar_destroy,
};

int vfio_bar_memory(struct vfio_device *dev, uint64_t pos, uint64_t length, struct mem_owner **out)
{
	uint64_t index = pos >> VFIO_REGION_SHIFT, off = pos & ((1ull << VFIO_REGION_SHIFT) - 1);
	uint64_t span = index < VFIO_NR_BARS ? vfio_region_span(dev, (unsigned int)index) : 0;
	struct bar_memory *bar;

	if (off >= span || length > span - off)
		return -EFAULT;
	bar = swi_new(struct bar_memory);
	if (!bar)
		return -ENOMEM;
	bar->owner.ops = &bar_ops;
	atomic_init(&bar->owner.refs, 1);
	bar->dev = dev;
	*out = &bar->owner;
	return 0;
}
