// SPDX-License-Identifier: MIT
/*
 * The memory of another process.
 *
 * Its identity is two open files, /proc/PID/mem and /proc/PID/maps. Both belong to the address
 * space that the process had when they were opened, and keep answering for that one only: after an
 * exec or the end of the process they have nothing to give, and the successor's memory cannot be
 * reached by them. Pids and the /proc directory, in contrast, may come to mean somebody else at any
 * time, so nothing that is found through them is believed before the mappings file has confirmed
 * it.
 *
 * The memory file ignores page protections. That is what is wanted for memory that counts as
 * pinned; for anything else the mappings are asked first. The program can change them between the
 * question and the access, but only for its own memory and to its own harm.
 *
 * Shared memory can be addressed directly: its file is opened a second time and mapped here. The
 * file is found through the kernel's map_files links, which need privilege, or among the program's
 * open files. What is found counts only if it is the inode that the mapping names, and if the
 * mapping is still there once the window stands: a live mapping keeps its inode, so an inode number
 * cannot have passed on to another file. Opening it for writing gives the program nothing, as it
 * has a shared writable mapping of that very file. Only memory filesystems qualify: a page fault in
 * such a window waits for nobody, while one served by FUSE or a network may hang for ever.
 */
#include "mem/owner.h"

#include "base/alloc.h"
#include "mem/fd_io.h"
#include "mem/rights.h"
#include "mem/window.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <linux/magic.h>
#include <sys/uio.h>
#include <unistd.h>

/* How many open files of a program are looked at in search of a mapping's file. */
#define FD_SEARCH_MAX 4096
#define FD_HINTS 16

struct process_owner {
	struct mem_owner base;
	pid_t pid;  /* as given, for messages */
	pid_t tgid; /* for hints only, never for identity */
	int dir;    /* /proc/TGID: of whoever has the pid, see above */
	int mem;
	int maps;
	dev_t shmem_dev, hugetlb_dev;
	mem_is_device_fn is_device; /* see mem_owner_process_set_devices() */
	void *is_device_data;
	/*
	 * The number of `dir`, which is another one for another process of the same pid; and what the kernel has given the
	 * program that runs in the address space at random, which is another one after an exec. For twins.
	 */
	ino_t dir_ino;
	uint8_t random[16];
	bool has_random;
	/* Under which descriptor of the program a file was found last, by inode number. */
	_Atomic int fd_hint[FD_HINTS];
	int (*open_known)(void *data, dev_t dev, ino_t ino, int mode); /* may be NULL */
	void *open_data;
};

static struct process_owner *process_of(struct mem_owner *o)
{
	return container_of(o, struct process_owner, base);
}

/* Whether the range can be a position of the memory file. */
static bool has_position(uint64_t addr, size_t len)
{
	uint64_t last;

	return range_last(addr, len, &last) && last <= INT64_MAX;
}

static int read_pinned(struct mem_owner *o, uint64_t addr, void *buf, size_t len)
{
	if (!len)
		return 0;
	if (!has_position(addr, len) || fd_read_all(process_of(o)->mem, addr, buf, len))
		return -EFAULT;
	return 0;
}

static int write_pinned(struct mem_owner *o, uint64_t addr, const void *buf, size_t len)
{
	if (!len)
		return 0;
	if (!has_position(addr, len) || fd_write_all(process_of(o)->mem, addr, buf, len))
		return -EFAULT;
	return 0;
}

/* Both directions with the rights of this moment, mapping by mapping. */
static int move_checked(struct mem_owner *o, uint64_t addr, void *buf, size_t len, unsigned prot)
{
	uint64_t last, stop;
	struct vma_walk w;
	size_t n;
	int ret;

	if (!len)
		return 0;
	if (!range_last(addr, len, &last))
		return -EFAULT;
	vma_walk_start(&w, process_of(o)->maps);
	for (;; addr = stop + 1, buf = (char *)buf + n) {
		ret = rights_check_now(&w, addr, last, prot, &stop);
		if (ret)
			return ret;
		n = stop - addr + 1;
		ret = prot == SWI_WRITE ? write_pinned(o, addr, buf, n)
					: read_pinned(o, addr, buf, n);
		if (ret || stop == last)
			return ret;
	}
}

static int process_read(struct mem_owner *o, uint64_t addr, void *buf, size_t len)
{
	return move_checked(o, addr, buf, len, SWI_READ);
}

static int process_write(struct mem_owner *o, uint64_t addr, const void *buf, size_t len)
{
	return move_checked(o, addr, (void *)(uintptr_t)buf, len, SWI_WRITE);
}

/*
 * The memory file tells whether the page is there. It also opens device memory whose driver has
 * made provision for debuggers; process_vm_readv has no such exception, but goes by pid, so that
 * its word counts only when it says no, and only about files, which device memory always is.
 */
static int process_touch(void *data, const struct vma *v, uint64_t addr)
{
	struct process_owner *po = data;
	struct iovec mine, theirs;
	char byte;

	if (read_pinned(&po->base, addr, &byte, 1))
		return -EFAULT;
	if (!v->dev || !(v->prot & SWI_READ))
		return 0;
	mine = (struct iovec){&byte, 1};
	theirs = (struct iovec){(void *)(uintptr_t)addr, 1};
	if (process_vm_readv(po->tgid, &mine, 1, &theirs, 1, 0) < 0 && errno == EFAULT)
		return -EFAULT;
	return 0;
}

/* Whether `name` under dir is the regular file that v maps. Asks no file server. */
static bool is_file_of(int dir, const char *name, int flags, const struct vma *v)
{
	struct statx st;

	return !statx(dir, name, AT_STATX_DONT_SYNC | flags, STATX_TYPE | STATX_INO, &st) &&
	       S_ISREG(st.stx_mode) && st.stx_ino == v->ino &&
	       makedev(st.stx_dev_major, st.stx_dev_minor) == v->dev;
}

/*
 * Opens `name` again if it is v's file. First without effect (O_PATH), since between a look and an
 * open the program could put a FIFO or a device in its place; then for use, from the handle.
 */
static int open_if_file_of(int dir, const char *name, const struct vma *v, int mode)
{
	char link[48];
	int handle, fd = -1;

	handle = openat(dir, name, O_PATH | O_CLOEXEC);
	if (handle < 0)
		return -1;
	if (is_file_of(handle, "", AT_EMPTY_PATH, v)) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", handle);
		fd = open(link, mode | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	}
	close(handle);
	return fd;
}

static int search_open_files(int fds, const struct vma *v, int mode, _Atomic int *hint)
{
	_Alignas(struct dirent64) char buf[4096];
	const struct dirent64 *d;
	unsigned seen = 0;
	char name[16];
	ssize_t n, at;
	int fd;

	/* Programs map many pieces of few files: the search costs microseconds per descriptor. */
	snprintf(name, sizeof(name), "%d", atomic_load_explicit(hint, memory_order_relaxed));
	fd = open_if_file_of(fds, name, v, mode);
	if (fd >= 0)
		return fd;
	while ((n = getdents64(fds, buf, sizeof(buf))) > 0) {
		for (at = 0; at < n; at += d->d_reclen) {
			d = (const struct dirent64 *)(buf + at);
			if (d->d_name[0] == '.')
				continue;
			if (++seen > FD_SEARCH_MAX)
				return -1;
			if (!is_file_of(fds, d->d_name, 0, v))
				continue;
			fd = open_if_file_of(fds, d->d_name, v, mode);
			if (fd >= 0) {
				atomic_store_explicit(hint, atoi(d->d_name), memory_order_relaxed);
				return fd;
			}
		}
	}
	return -1;
}

/* An fd on the file that v maps, or -1. */
static int open_mapped_file(struct process_owner *po, const struct vma *v, int mode)
{
	char name[64];
	int fds, fd;

	snprintf(name, sizeof(name), "map_files/%llx-%llx", (unsigned long long)v->start,
		 (unsigned long long)v->end);
	fd = open_if_file_of(po->dir, name, v, mode);
	if (fd < 0 && po->open_known)
		fd = po->open_known(po->open_data, v->dev, v->ino, mode);
	if (fd >= 0)
		return fd;
	fds = openat(po->dir, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fds < 0)
		return -1;
	fd = search_open_files(fds, v, mode, &po->fd_hint[v->ino % FD_HINTS]);
	close(fds);
	return fd;
}

static bool same_mapping(const struct vma *a, const struct vma *b)
{
	/* The offset of a byte, not of the start: neighbours may have been split off or merged. */
	return a->shared == b->shared && a->dev == b->dev && a->ino == b->ino &&
	       a->offset - a->start == b->offset - b->start;
}

/* Whether the parts are mapped now as they were when they were looked at, with the rights. */
static bool still_mapped(const struct process_owner *po, const struct rights_parts *parts,
			 unsigned prot)
{
	struct vma_walk w;
	struct vma v;
	uint64_t addr;
	unsigned i;

	vma_walk_start(&w, po->maps);
	for (i = 0; i < parts->n; i++) {
		for (addr = parts->v[i].start; addr < parts->v[i].end; addr = v.end)
			if (vma_walk_to(&w, addr, &v) || !same_mapping(&v, &parts->v[i]) ||
			    (prot & ~v.prot))
				return false;
	}
	return true;
}

/* The page size of an open file of a memory filesystem; 0 if it is of no such. */
static uint64_t page_size_of(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return 0;
	if (fs.f_type == HUGETLBFS_MAGIC)
		return (uint64_t)fs.f_bsize;
	return fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC ? (uint64_t)getpagesize() : 0;
}

/*
 * Tries for a window; success is a matter of luck and never required. Files of neighbouring
 * mappings are mostly the same one, which is then opened once.
 */
static void try_window(struct process_owner *po, uint64_t addr, uint64_t last, unsigned prot,
		       struct rights_parts *parts, struct mem_window *win)
{
	int mode = prot & SWI_WRITE ? O_RDWR : O_RDONLY;
	struct window_part wp[RIGHTS_PARTS_MAX];
	uint64_t size = 0, align = (uint64_t)getpagesize();
	struct vma *v;
	unsigned i;

	for (i = 0; i < parts->n; i++) {
		v = &parts->v[i];
		if (i && v->ino == v[-1].ino && v->dev == v[-1].dev)
			wp[i].fd = wp[i - 1].fd;
		else
			wp[i].fd = open_mapped_file(po, v, mode);
		if (wp[i].fd < 0)
			goto out;
		if (!i || wp[i].fd != wp[i - 1].fd)
			size = page_size_of(wp[i].fd);
		if (!size) {
			i++;
			goto out;
		}
		align = SWI_MAX(align, size);
		/* Only what is asked for. (Mappings begin and end at their page size.) */
		wp[i].start = SWI_MAX(v->start, addr & ~(size - 1));
		wp[i].end = SWI_MIN(v->end, (last | (size - 1)) + 1);
		wp[i].offset = v->offset + (wp[i].start - v->start);
		v->offset = wp[i].offset;
		v->start = wp[i].start;
		v->end = wp[i].end;
	}
	if (!window_map(win, wp, parts->n, addr, align, prot) && !still_mapped(po, parts, prot))
		window_unmap(win);
out:
	while (i--)
		if (!i || wp[i].fd != wp[i - 1].fd)
			close(wp[i].fd);
}

static struct rights_env env_of(struct process_owner *po)
{
	return (struct rights_env){
		.maps_fd = po->maps,
		.proc_dir = po->dir,
		.pid = po->pid,
		.shmem_dev = po->shmem_dev,
		.hugetlb_dev = po->hugetlb_dev,
		.touch = process_touch,
		.data = po,
		.is_device = po->is_device,
		.is_device_data = po->is_device_data,
	};
}

static int process_open_window(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot,
			       struct mem_window *win, struct swi_reason *why)
{
	struct process_owner *po = process_of(o);
	struct rights_env env = env_of(po);
	struct rights_parts parts;
	uint64_t last;
	int ret;

	*win = (struct mem_window){0};
	if (!range_last(addr, len, &last))
		return swi_fail(why, -EFAULT, "%#llx bytes at %#llx are no memory range",
				(unsigned long long)len, (unsigned long long)addr);
	ret = rights_check_pin(&env, addr, last, prot, &parts, why);
	if (ret)
		return ret;
	if (rights_identify(&env, &parts, addr, last, win))
		return swi_fail(why, -ENOMEM, "out of memory");
	if (parts.windowable)
		try_window(po, addr, last, prot, &parts, win);
	return 0;
}

static void process_open_file(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot,
			      struct mem_file *out)
{
	struct process_owner *po = process_of(o);
	struct rights_env env = env_of(po);
	struct rights_parts one = {.n = 1};
	struct vma *v = &one.v[0];
	struct vma_walk w;
	int fd;

	vma_walk_start(&w, po->maps);
	if (vma_walk_to(&w, addr, v))
		return;
	out->length = SWI_MIN(len, v->end - addr);
	if (!v->shared || (prot & ~v->prot) || !rights_is_memory_file(&env, v))
		return;
	fd = open_mapped_file(po, v, prot & SWI_WRITE ? O_RDWR : O_RDONLY);
	if (fd < 0)
		return;
	/* As with windows: what was found counts if the mapping is still there. */
	if (!page_size_of(fd) || !still_mapped(po, &one, prot)) {
		close(fd);
		return;
	}
	out->fd = fd;
	out->offset = v->offset + (addr - v->start);
}

/*
 * As the process may have run another program since, what its directory says counts only if the
 * address space still lives; one that does not is nobody else's.
 */
static void process_space(struct mem_owner *o, uint64_t id[2])
{
	struct process_owner *po = process_of(o);
	char byte;

	if (proc_space_id(po->dir, id) && pread(po->maps, &byte, 1, 0) == 1)
		return;
	id[0] = (uintptr_t)po;
	id[1] = UINT64_MAX;
}

static int process_page_key(struct mem_owner *o, uint64_t addr, struct page_key *key)
{
	struct rights_env env = env_of(process_of(o));
	uint64_t space[2];

	process_space(o, space);
	return rights_page_key(&env, addr, space, key);
}

static bool process_gone(struct mem_owner *o)
{
	char byte;

	return pread(process_of(o)->maps, &byte, 1, 0) != 1;
}

/*
 * Of owners of one process that both still have something to show, neither was left behind by an exec,
 * unless somebody else goes on in the address space before it (a vfork's parent).
 */
static bool process_same(struct mem_owner *a, struct mem_owner *b)
{
	return process_of(a)->tgid == process_of(b)->tgid && !process_gone(a) && !process_gone(b);
}

static bool process_twin(const struct mem_owner *a, const struct mem_owner *b)
{
	const struct process_owner *pa = container_of(a, const struct process_owner, base);
	const struct process_owner *pb = container_of(b, const struct process_owner, base);

	return pa->has_random && pb->has_random && pa->dir_ino == pb->dir_ino &&
	       pa->is_device == pb->is_device && pa->is_device_data == pb->is_device_data &&
	       !memcmp(pa->random, pb->random, sizeof(pa->random));
}

static void process_destroy(struct mem_owner *o)
{
	struct process_owner *po = process_of(o);

	if (po->maps >= 0)
		close(po->maps);
	if (po->mem >= 0)
		close(po->mem);
	if (po->dir >= 0)
		close(po->dir);
	swi_free(po);
}

static const struct mem_owner_ops process_ops = {
	.kind = "process",
	.read = process_read,
	.write = process_write,
	.open_window = process_open_window,
	.read_pinned = read_pinned,
	.write_pinned = write_pinned,
	.page_key = process_page_key,
	.open_file = process_open_file,
	.space = process_space,
	.same = process_same,
	.twin = process_twin,
	.gone = process_gone,
	.destroy = process_destroy,
};

static int open_error(int err)
{
	switch (err) {
	case EACCES:
	case EPERM:
		return -EPERM;
	case EMFILE:
	case ENFILE:
	case ENOMEM:
		return -ENOMEM;
	default:
		return -ESRCH;
	}
}

/* Opens the three files of `pid`; 0 if it has an address space, else a negative errno. */
static int open_files(struct process_owner *po, pid_t pid)
{
	char path[32], byte;

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	po->dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (po->dir < 0)
		return open_error(errno);
	po->mem = openat(po->dir, "mem", O_RDWR | O_CLOEXEC);
	if (po->mem < 0)
		return open_error(errno);
	po->maps = openat(po->dir, "maps", O_RDONLY | O_CLOEXEC);
	if (po->maps < 0)
		return open_error(errno);
	/* A kernel thread, a zombie: the files open, but there is nothing behind. */
	if (pread(po->maps, &byte, 1, 0) != 1)
		return -ESRCH;
	return 0;
}

static bool read_random(struct process_owner *po)
{
	int fd = openat(po->dir, "auxv", O_RDONLY | O_CLOEXEC);
	uint64_t auxv[2 * 64], at = 0;
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, auxv, sizeof(auxv));
	close(fd);
	for (ssize_t i = 0; (i + 2) * 8 <= n && !at; i += 2)
		if (auxv[i] == AT_RANDOM)
			at = auxv[i + 1];
	return at && !read_pinned(&po->base, at, po->random, sizeof(po->random));
}

static void identify(struct process_owner *po)
{
	struct stat st;

	if (fstat(po->dir, &st))
		return;
	po->dir_ino = st.st_ino;
	po->base.hash = st.st_ino;
	po->has_random = read_random(po);
}

static void close_files(struct process_owner *po)
{
	int *fds[] = {&po->maps, &po->mem, &po->dir};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fds); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

int mem_owner_process(pid_t pid, struct mem_owner **out, struct swi_reason *why)
{
	struct process_owner *po = swi_new(struct process_owner);
	struct rights_env probe;
	int ret;

	if (!po)
		return swi_fail(why, -ENOMEM, "out of memory");
	po->base.ops = &process_ops;
	atomic_init(&po->base.refs, 1);
	po->pid = pid;
	po->dir = po->mem = po->maps = -1;
	/*
	 * The directory of the process outlasts the one of a thread; but a process whose first
	 * thread has ended shows nothing there, while its other threads still do.
	 */
	po->tgid = proc_thread_group(pid);
	if (po->tgid < 0)
		po->tgid = pid;
	ret = open_files(po, po->tgid);
	if (ret == -ESRCH && po->tgid != pid) {
		close_files(po);
		ret = open_files(po, pid);
	}
	if (ret) {
		process_destroy(&po->base);
		return swi_fail(why, ret, "the memory of process %d cannot be reached: %s",
				(int)pid, strerror(-ret));
	}
	identify(po);
	rights_env_probe(&probe);
	po->shmem_dev = probe.shmem_dev;
	po->hugetlb_dev = probe.hugetlb_dev;
	*out = &po->base;
	return 0;
}

void mem_owner_process_set_devices(struct mem_owner *o, mem_is_device_fn is_device, void *data)
{
	process_of(o)->is_device = is_device;
	process_of(o)->is_device_data = data;
}

pid_t mem_owner_pid(const struct mem_owner *o)
{
	return o->ops == &process_ops ? container_of(o, const struct process_owner, base)->pid : 0;
}

void mem_owner_process_set_files(struct mem_owner *o,
				 int (*open)(void *data, dev_t dev, ino_t ino, int mode),
				 void *data)
{
	struct process_owner *po = process_of(o);

	po->open_known = open;
	po->open_data = data;
}
