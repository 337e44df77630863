/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_MEM_WINDOW_H
#define SWIOMMU_MEM_WINDOW_H

/* Building windows: shared mappings of file parts, side by side in this process. */

#include "mem/owner.h"

/* One part of a window, in the addresses of the owner. */
struct window_part {
	uint64_t start, end; /* end exclusive; multiples of the file's page size */
	uint64_t offset;     /* of `start` in the file */
	int fd;		     /* open for what prot needs; borrowed */
};

/*
 * Maps `n` parts that follow one another without a gap so that they do so in this process too, at
 * addresses that are equal to the owner's modulo `align` (a power of two, the largest page size of
 * the files). win->host becomes the place of the owner's `addr`. prot SWI_WRITE makes it readable
 * as well. 0 or what mmap failed with, -ENOMEM when this process has too many windows already.
 */
int window_map(struct mem_window *win, const struct window_part *parts, unsigned n, uint64_t addr,
	       uint64_t align, unsigned prot);

/*
 * A second mapping of [addr, addr+length) of this process, which lies in one shared mapping; it
 * stays when the first one is unmapped. 0 or what mremap failed with (private memory and hugetlb
 * cannot be had twice), -ENOMEM as above.
 */
int window_alias(struct mem_window *win, uint64_t addr, uint64_t length);

/* Takes the mapping away again, not what is known of the memory. */
void window_unmap(struct mem_window *win);

#endif
