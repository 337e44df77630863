/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_MEM_VMA_H
#define SWIOMMU_MEM_VMA_H

/*
 * The mappings of an address space, as its /proc maps file tells them at this moment.
 *
 * An open maps file belongs to the address space it was opened for, not to the process: after an
 * exec it has nothing more to say, and it never speaks of the successor.
 */

#include "base/base.h"

struct vma {
	uint64_t start, end; /* end is exclusive */
	unsigned prot;	     /* SWI_READ, SWI_WRITE */
	bool shared;
	uint64_t offset;    /* of `start` in the file, bytes */
	dev_t dev;	    /* filesystem and inode of the file; dev 0 = no file */
	ino_t ino;	    /* may be 0: the first SysV segment's */
	uint64_t page_size; /* the mapping's own page size; 0 = the kernel does not tell */
};

/* A look at several addresses in ascending order. Lives on the stack, owns nothing. */
struct vma_walk {
	int fd;
	bool text; /* parse the text: the kernel cannot be asked for one address */
	off_t pos; /* of the next byte to read into buf */
	size_t at, have;
	struct vma cur; /* the last line parsed; end 0 = none yet */
	char buf[2048];
};

/* `maps_fd` is an open /proc maps file, borrowed. */
void vma_walk_start(struct vma_walk *w, int maps_fd);
/*
 * The mapping that holds `addr`; addresses must not descend from call to call. 0, -ENOENT: nothing
 * is mapped there, -ESRCH: the address space is gone, or what reading the file failed with.
 */
int vma_walk_to(struct vma_walk *w, uint64_t addr, struct vma *out);

/*
 * Reads a text file from /proc word by word through a buffer of a fixed size, so that neither the
 * length of a line nor memory matters. `out` gets the word, cut at cap - 1 bytes. Returns what
 * follows it (' ' or '\n'), 0 at the end of the file, or a negative errno. Runs of blanks are one.
 */
struct proc_words {
	int fd;
	off_t pos;
	size_t at, have;
	char *buf;
	size_t size;
};
int proc_word(struct proc_words *p, char *out, size_t cap);

/* The process that thread `pid` belongs to. -ESRCH, or what opening its status failed with. */
pid_t proc_thread_group(pid_t pid);
/*
 * Two numbers that tell one address space from all others that a machine has had since it was
 * started, as far as anybody can: from the stat file in the /proc directory `dir` (-1: our own).
 * false: there is nobody.
 */
bool proc_space_id(int dir, uint64_t id[2]);

#endif
