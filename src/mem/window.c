// SPDX-License-Identifier: MIT
/*
 * Windows: the only part of the memory layer that changes this process' address space.
 *
 * The kernel allows a process a fixed number of mappings (vm.max_map_count, 65530 by default) and
 * fails malloc and thread creation beyond it. Since untrusted programs decide how many windows
 * there are, they are counted, and none is made beyond a quarter of that number; the memory is then
 * reached without a window, more slowly. The count belongs to the process and not to a
 * context because the limit does.
 */
#include "mem/window.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#define WINDOW_MAPPINGS_MAX 16384u

static _Atomic unsigned mappings_used;

static bool reserve_mappings(unsigned n)
{
	if (atomic_fetch_add_explicit(&mappings_used, n, memory_order_relaxed) + n <=
	    WINDOW_MAPPINGS_MAX)
		return true;
	atomic_fetch_sub_explicit(&mappings_used, n, memory_order_relaxed);
	return false;
}

/* Address space of `length` bytes at a multiple of align, with nothing in it. */
static void *reserve_space(uint64_t length, uint64_t align)
{
	uint64_t slack = align > (uint64_t)getpagesize() ? align : 0, total, head;
	char *p;

	if (__builtin_add_overflow(length, slack, &total))
		return MAP_FAILED;
	p = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED || !slack)
		return p;
	head = -(uintptr_t)p & (align - 1);
	if (head)
		munmap(p, head);
	munmap(p + head + length, slack - head);
	return p + head;
}

int window_map(struct mem_window *win, const struct window_part *parts, unsigned n, uint64_t addr,
	       uint64_t align, unsigned prot)
{
	int mprot = prot & SWI_WRITE ? PROT_READ | PROT_WRITE : PROT_READ, err;
	uint64_t base = parts[0].start & ~(align - 1), length = parts[n - 1].end - base;
	bool whole = n == 1 && base == parts[0].start && !(length & (align - 1));
	unsigned mappings = whole ? 1 : n + 2, i; /* the parts and what stays reserved around */
	char *map, *at;

	length = (length + align - 1) & ~(align - 1);
	if (!reserve_mappings(mappings))
		return -ENOMEM;
	/* The usual case needs no reservation; the kernel aligns huge pages by itself. */
	map = whole ? mmap(NULL, length, mprot, MAP_SHARED, parts[0].fd, (off_t)parts[0].offset)
		    : reserve_space(length, align);
	if (map == MAP_FAILED) {
		err = -errno;
		goto err_count;
	}
	for (i = 0; i < n && !whole; i++) {
		at = map + (parts[i].start - base);
		if (mmap(at, parts[i].end - parts[i].start, mprot, MAP_SHARED | MAP_FIXED,
			 parts[i].fd, (off_t)parts[i].offset) == MAP_FAILED) {
			err = -errno;
			goto err_unmap;
		}
	}
	win->host = map + (addr - base);
	win->map = map;
	win->map_length = length;
	win->mappings = mappings;
	return 0;
err_unmap:
	munmap(map, length);
err_count:
	atomic_fetch_sub_explicit(&mappings_used, mappings, memory_order_relaxed);
	return err;
}

int window_alias(struct mem_window *win, uint64_t addr, uint64_t length)
{
	uint64_t page = (uint64_t)getpagesize() - 1, first = addr & ~page;
	char *map;

	length = (addr + length - first + page) & ~page;
	if (!reserve_mappings(1))
		return -ENOMEM;
	/* An old size of 0 leaves the mapping where it is and makes a second one. */
	map = mremap((void *)(uintptr_t)first, 0, length, MREMAP_MAYMOVE);
	if (map == MAP_FAILED) {
		int err = -errno;

		atomic_fetch_sub_explicit(&mappings_used, 1, memory_order_relaxed);
		return err;
	}
	win->host = map + (addr - first);
	win->map = map;
	win->map_length = length;
	win->mappings = 1;
	return 0;
}

void window_unmap(struct mem_window *win)
{
	if (win->map) {
		munmap(win->map, win->map_length);
		atomic_fetch_sub_explicit(&mappings_used, win->mappings, memory_order_relaxed);
	}
	win->host = win->map = NULL;
	win->map_length = 0;
	win->mappings = 0;
}

void mem_window_close(struct mem_window *win)
{
	window_unmap(win);
	swi_free(win->idents);
	*win = (struct mem_window){0};
}
