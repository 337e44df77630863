/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_MEM_RIGHTS_H
#define SWIOMMU_MEM_RIGHTS_H

/* Which memory of an address space a device may be given: the table of spec core.md 5.4. */

#include "base/reason.h"
#include "mem/owner.h"
#include "mem/vma.h"

/* How to ask about one address space. Every fd is borrowed. */
struct rights_env {
	int maps_fd;
	int proc_dir; /* its /proc directory, -1 = this process */
	pid_t pid;    /* for messages; 0 = this process */
	/* Filesystems of memfds and of shared anonymous memory, which no mount table lists. */
	dev_t shmem_dev, hugetlb_dev;
	/* Whether the page at addr, in v, is there and is memory: 0 or -EFAULT. */
	int (*touch)(void *data, const struct vma *v, uint64_t addr);
	void *data;
	/* Whether a file is not memory but the registers of a device; NULL: none is. */
	mem_is_device_fn is_device;
	void *is_device_data;
};

/*
 * The mappings under a range, in order; private ones side by side are one. `complete`: all of them
 * are here. `windowable`: and all are shared memory files, so a window can be built from them.
 */
#define RIGHTS_PARTS_MAX 32
struct rights_parts {
	unsigned n;
	bool complete, windowable;
	struct vma v[RIGHTS_PARTS_MAX];
};

/* Fills in the two devices, which are constants of the running kernel. Best effort. */
void rights_env_probe(struct rights_env *env);

/*
 * Whether every page of [addr, last] can be pinned for `prot`. 0 and the parts, or -EFAULT with a
 * reason. Touches one page of each mapping; may block.
 */
int rights_check_pin(const struct rights_env *env, uint64_t addr, uint64_t last, unsigned prot,
		     struct rights_parts *parts, struct swi_reason *why);

/* Whether a shared mapping is of a filesystem that lives in memory only. */
bool rights_is_memory_file(const struct rights_env *env, const struct vma *v);
/* What is mapped at addr: its key, for memory that is there. Touches it. 0 or -EFAULT. */
int rights_page_key(const struct rights_env *env, uint64_t addr, const uint64_t space[2],
		    struct page_key *key);
/* What the range is, for the window that was made of it. -ENOMEM. */
int rights_identify(const struct rights_env *env, const struct rights_parts *parts, uint64_t addr,
		    uint64_t last, struct mem_window *win);

/*
 * How far the memory from addr on, up to last, permits `prot` by the page protections alone:
 * *stop becomes the last byte of the mapping or `last`. 0 or -EFAULT.
 */
int rights_check_now(struct vma_walk *w, uint64_t addr, uint64_t last, unsigned prot,
		     uint64_t *stop);

#endif
