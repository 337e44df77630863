/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_MEM_OWNER_H
#define SWIOMMU_MEM_OWNER_H

/*
 * Memory owners: whose memory an address means, and how to reach it.
 *
 * | kind    | an address is                       | reached by |
 * |---------|-------------------------------------|------------------------------------------------|
 * | local   | a pointer of this process           | plain loads and stores                         |
 * | process | one of another address space        | its /proc mem file; shared mappings: a window  |
 * | file    | an offset in a memfd or tmpfs file  | a window; pread/pwrite where that is refused   |
 *
 * A process owner means one address space (what the kernel calls mm), not one process: after the
 * program execs or exits the old owner answers -EFAULT and never reaches the successor's memory.
 *
 * Owners are counted. All functions may be called from any thread at any time; all but get/put may
 * block (the other side's memory may be behind userfaultfd or FUSE), so no lock is held over them.
 */

#include "base/base.h"
#include "base/list.h"
#include "base/reason.h"
#include "mem/accounts.h"

struct mem_owner;

/* What a stretch [addr, last] of an owner's memory is, see struct page_key. */
struct mem_ident {
	uint64_t addr, last;
	bool is_private, huge;
	dev_t dev; /* of shared memory: the file, and the byte of it at `addr` */
	ino_t ino;
	uint64_t offset;
};

/* A stretch of an owner's memory that this process can address; `host` NULL = there is none. */
struct mem_window {
	void *host; /* where the window's first asked-for byte is; owned by the window */
	void *map;  /* page-aligned mapping to undo, NULL when nothing was mapped */
	size_t map_length;
	unsigned mappings; /* of the process' limited number of mappings, for the books */
	/*
	 * What the memory was when it was looked up, without gaps, in the order of addresses; 0: not
	 * known, as it is too colourful. Also known where there is no host address.
	 */
	unsigned nr_idents;
	struct mem_ident ident;	  /* if it is a single one */
	struct mem_ident *idents; /* else; owned by the window */
};

/* The file behind a stretch of an owner's memory, so that another process can map it. */
struct mem_file {
	int fd; /* the taker's to close; -1: there is none (private memory), or it cannot be had */
	uint64_t offset; /* byte of the file that the stretch begins at */
	uint64_t length; /* of the stretch; not 0 */
};

struct mem_owner_ops {
	const char *kind;
	/*
	 * Memory of some device (a dma-buf): DMA may reach it, but software accesses may not, mappings of it are not cut
	 * or taken over by another process, and nobody is charged for it.
	 */
	bool device;
	/*
	 * Move `len` bytes between buf and the owner's memory, with the rights the owner has *now*
	 * (a read-only page refuses write). 0, or -EFAULT: some bytes may have moved. A file
	 * answers -EINVAL where the range is not inside its whole pages.
	 */
	int (*read)(struct mem_owner *o, uint64_t addr, void *buf, size_t len);
	int (*write)(struct mem_owner *o, uint64_t addr, const void *buf, size_t len);
	/*
	 * Whether a device could be given [addr, addr+len) with `prot` (spec core.md 5.4), and a
	 * window on it where one can be had. `win->host` stays NULL where read and write are the
	 * only way. The window can be written to only if prot has SWI_WRITE, and be read always.
	 * On failure nothing is held. -EFAULT, -EINVAL (a file that cannot be pinned),
	 * -ENOMEM, with a reason.
	 */
	int (*open_window)(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot,
			   struct mem_window *win, struct swi_reason *why);
	/*
	 * As read and write, for memory that a window was asked for: the rights that held then
	 * still hold (the kernel's pin outlives mprotect). Used where there is no window. 0 or
	 * -EFAULT.
	 */
	int (*read_pinned)(struct mem_owner *o, uint64_t addr, void *buf, size_t len);
	int (*write_pinned)(struct mem_owner *o, uint64_t addr, const void *buf, size_t len);
	/*
	 * Whether both (of this kind) are the same address space. NULL: not an address space but a
	 * file. May say no when one of them has come to an end.
	 */
	bool (*same)(struct mem_owner *a, struct mem_owner *b);
	/* Whether the address space is no more (exit, exec). NULL: cannot happen. */
	bool (*gone)(struct mem_owner *o);
	/*
	 * The key of the page at `addr` as it is now; the page is faulted in. -EFAULT: there is none
	 * that can be used at all (-EINVAL for a file).
	 */
	int (*page_key)(struct mem_owner *o, uint64_t addr, struct page_key *key);
	/*
	 * The file that holds the stretch of memory at `addr`, at most `len` bytes (not 0, of memory that a window
	 * was asked for), in a new open file that permits no more than `prot`. NULL: never one. May block.
	 */
	void (*open_file)(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot,
			  struct mem_file *out);
	/*
	 * Whether both (of this kind, with the same hash) are interchangeable: the same memory with the same rights, but
	 * that one may have come to an end. Does not block. NULL: never.
	 */
	bool (*twin)(const struct mem_owner *a, const struct mem_owner *b);
	/* Names the address space in keys of private memory (struct page_key's object, inode). */
	void (*space)(struct mem_owner *o, uint64_t id[2]);
	void (*destroy)(struct mem_owner *o);
};

struct mem_owners;

struct mem_owner {
	const struct mem_owner_ops *ops;
	_Atomic unsigned refs;
	uint64_t hash; /* twins have the same */
	/* See owners.h. */
	_Atomic(struct mem_owners *)
		owners; /* counted; NULL: not listed; the first list keeps it */
	struct list listed;
};

/*
 * This process' own memory, after a fork the child's. Bad pointers are answered with -EFAULT by
 * read, write, open_window. Keeps one file open. -ENOMEM.
 */
int mem_owner_local(struct mem_owner **out);
/*
 * The address space of `pid` (a thread or process id in our pid namespace) as it is now. The caller
 * guarantees that the task stays put during the call (it waits for the answer to a system call); if
 * it can be torn out of that wait, the caller looks after the call whether it has been, and drops
 * the owner then. Keeps three files open.
 * -EPERM: we may not look into it; -ESRCH: gone; -ENOMEM: no memory or no free descriptor.
 */
int mem_owner_process(pid_t pid, struct mem_owner **out, struct swi_reason *why);
/*
 * Besides its own open files, a process owner may look for the file of a mapping with `open`, which opens one
 * anew or returns -1. To be called right after mem_owner_process(); `data` must outlive the owner.
 */
void mem_owner_process_set_files(struct mem_owner *o,
				 int (*open)(void *data, dev_t dev, ino_t ino, int mode),
				 void *data);
/*
 * The contents of an open file. Takes `fd` over on success (it may be closed at once). Any file is
 * accepted; one that is not a memfd, tmpfs or hugetlbfs file is refused with -EINVAL when a window
 * is opened or data is moved (spec core.md 4.2). The fd's open mode does not matter as long as this
 * process may open the file for both directions by itself. A write window on a file that is sealed
 * against writing is refused with -EINVAL. -EBADF: not an open file (O_PATH), -ENOMEM.
 */
int mem_owner_file(int fd, struct mem_owner **out, struct swi_reason *why);

/*
 * Of a process owner, before others know it: mappings of files for which `is_device` says so are registers and not memory,
 * so that windows on them are refused with -EFAULT. `data` must outlive the owner.
 */
typedef bool (*mem_is_device_fn)(void *data, dev_t dev, ino_t ino);
void mem_owner_process_set_devices(struct mem_owner *o, mem_is_device_fn is_device, void *data);

struct mem_owner *mem_owner_get(struct mem_owner *o);
void mem_owner_put(struct mem_owner *o);
/* Whether both are the address space of one and the same process. False for files. */
bool mem_owner_same(struct mem_owner *a, struct mem_owner *b);
/* Whether it is this process' own memory, whose addresses are pointers. */
bool mem_owner_is_local(const struct mem_owner *o);
/* Whether the address space that the owner means has come to an end (exit, exec). */
static inline bool mem_owner_gone(struct mem_owner *o)
{
	return o->ops->gone && o->ops->gone(o);
}
/* Undoes open_window(); does nothing to a window that is all zero. */
void mem_window_close(struct mem_window *win);

/* The key of the page at addr, which lies in `id`; `space` as mem_owner_ops.space() gives it. */
void mem_ident_key(const struct mem_ident *id, uint64_t addr, const uint64_t space[2],
		   struct page_key *key);
/* The same of memory that a window was opened on. -ENOENT: it is not known. */
int mem_window_key(const struct mem_window *win, uint64_t addr, const uint64_t space[2],
		   struct page_key *key);
/* As mem_owner_ops.open_file; owners without it have no file behind all of their memory. */
void mem_owner_open_file(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot,
			 struct mem_file *out);
/* As mem_owner_ops.page_key. */
int mem_owner_page_key(struct mem_owner *o, uint64_t addr, struct page_key *key);
/* Whether an address means a place in a file. */
bool mem_owner_is_file(const struct mem_owner *o);

/* The pid that mem_owner_process() was given, 0 for other kinds: for messages only. */
pid_t mem_owner_pid(const struct mem_owner *o);

#endif
