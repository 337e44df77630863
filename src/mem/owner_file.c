// SPDX-License-Identifier: MIT
/*
 * The contents of a file: memfd, tmpfs or hugetlbfs. Other files can be owned too, as the kernel
 * lets MAP_FILE take them, but never looked into.
 *
 * The kernel takes pages from the file's page cache and asks neither how the file was opened nor
 * whether it is sealed. We need an open file with both rights, so one that was passed read-only is
 * opened again through /proc; that fails where the supervisor itself may not. A seal against
 * writing cannot be worked around: a writable mapping of such a file is refused with a reason,
 * where the kernel would grant it.
 *
 * Usable are the pages that lie wholly inside the file's size at the time of the call. A window's
 * file may shrink at any moment afterwards; users copy with mem_guard_copy().
 */
#include "mem/owner.h"

#include "base/alloc.h"
#include "mem/fd_io.h"
#include "mem/guard.h"
#include "mem/window.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

enum file_kind { FILE_OTHER, FILE_SHMEM, FILE_HUGETLB };

struct file_owner {
	struct mem_owner base;
	int fd;
	enum file_kind kind;
	unsigned can; /* SWI_READ, SWI_WRITE: what fd is open for */
	uint64_t page_size;
	dev_t dev;
	ino_t ino;
};

static struct file_owner *file_of(struct mem_owner *o)
{
	return container_of(o, struct file_owner, base);
}

static bool sealed_against_writing(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);

	return seals > 0 && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE));
}

/* Whether the pages of [addr, addr+len) can be used for prot now. 0 or -EINVAL. */
static int check_range(const struct file_owner *fo, uint64_t addr, uint64_t len, unsigned prot,
		       struct swi_reason *why)
{
	uint64_t last, usable;
	struct stat st;

	if (fo->kind == FILE_OTHER)
		return swi_fail(why, -EINVAL, "the file is not a memfd, tmpfs or hugetlbfs file");
	if ((prot & SWI_WRITE) && sealed_against_writing(fo->fd))
		return swi_fail(why, -EINVAL, "the file is sealed against writing");
	if (prot & ~fo->can)
		return swi_fail(why, -EINVAL,
				"the file is not open for %s, and may not be opened so again",
				prot & ~fo->can & SWI_WRITE ? "writing" : "reading");
	if (fstat(fo->fd, &st))
		return swi_fail(why, -EINVAL, "the file's size is unknown: %s", strerror(errno));
	usable = (uint64_t)st.st_size & ~(SWI_PAGE_SIZE - 1);
	if (!range_last(addr, len, &last) || last >= usable)
		return swi_fail(why, -EINVAL,
				"bytes %#llx+%#llx of the file reach beyond its last whole page "
				"(size %#llx)",
				(unsigned long long)addr, (unsigned long long)len,
				(unsigned long long)st.st_size);
	return 0;
}

static int map_range(const struct file_owner *fo, uint64_t addr, uint64_t len, unsigned prot,
		     struct mem_window *win)
{
	struct window_part part = {
		.start = addr & ~(fo->page_size - 1),
		.end = ((addr + len - 1) | (fo->page_size - 1)) + 1,
		.fd = fo->fd,
	};

	part.offset = part.start;
	return window_map(win, &part, 1, addr, fo->page_size, prot);
}

static struct mem_ident ident_of(const struct file_owner *fo, uint64_t addr, uint64_t len)
{
	return (struct mem_ident){
		.addr = addr,
		.last = addr + (len - 1),
		.huge = fo->kind == FILE_HUGETLB,
		.dev = fo->dev,
		.ino = fo->ino,
		.offset = addr,
	};
}

static int file_open_window(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot,
			    struct mem_window *win, struct swi_reason *why)
{
	struct file_owner *fo = file_of(o);
	int ret;

	*win = (struct mem_window){0};
	ret = check_range(fo, addr, len, prot, why);
	if (ret)
		return ret;
	win->ident = ident_of(fo, addr, len);
	win->nr_idents = 1;
	ret = map_range(fo, addr, len, prot, win);
	/* pread and pwrite do as well, but hugetlbfs has no pwrite. */
	if (ret && fo->kind == FILE_HUGETLB)
		return swi_fail(why, -ENOMEM, "the huge pages cannot be mapped: %s",
				strerror(-ret));
	return 0;
}

static int file_read(struct mem_owner *o, uint64_t addr, void *buf, size_t len)
{
	struct file_owner *fo = file_of(o);
	int ret;

	if (!len)
		return 0;
	ret = check_range(fo, addr, len, SWI_READ, NULL);
	if (ret)
		return ret;
	return fd_read_all(fo->fd, addr, buf, len) ? -EINVAL : 0;
}

static int file_write(struct mem_owner *o, uint64_t addr, const void *buf, size_t len)
{
	struct file_owner *fo = file_of(o);
	struct mem_window win = {0};
	int ret;

	if (!len)
		return 0;
	ret = check_range(fo, addr, len, SWI_WRITE, NULL);
	if (ret)
		return ret;
	if (fo->kind == FILE_SHMEM)
		return fd_write_all(fo->fd, addr, buf, len) ? -EINVAL : 0;
	ret = map_range(fo, addr, len, SWI_WRITE, &win);
	if (ret)
		return -EINVAL;
	ret = mem_guard_copy(win.host, buf, len);
	mem_window_close(&win);
	return ret;
}

/* Pinned pages cannot lie outside the file, so one that does is lost memory. */
static int file_read_pinned(struct mem_owner *o, uint64_t addr, void *buf, size_t len)
{
	return file_read(o, addr, buf, len) ? -EFAULT : 0;
}

static int file_write_pinned(struct mem_owner *o, uint64_t addr, const void *buf, size_t len)
{
	return file_write(o, addr, buf, len) ? -EFAULT : 0;
}

static int file_page_key(struct mem_owner *o, uint64_t addr, struct page_key *key)
{
	struct file_owner *fo = file_of(o);
	struct mem_ident id = ident_of(fo, addr, 1);
	int ret = check_range(fo, addr, 1, 0, NULL);
	uint64_t space[2] = {0, 0};

	if (!ret)
		mem_ident_key(&id, addr, space, key);
	return ret;
}

static void file_open_file(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot,
			   struct mem_file *out)
{
	struct file_owner *fo = file_of(o);
	char link[48];

	if (check_range(fo, addr, len, prot, NULL))
		return;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fo->fd);
	out->fd = open(link,
		       (prot & SWI_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	/* A file that may not be opened anew: the one there is, if it permits no more than asked for. */
	if (out->fd < 0 && !(fo->can & ~prot))
		out->fd = fcntl(fo->fd, F_DUPFD_CLOEXEC, 3);
	out->offset = addr;
}

static void file_space(struct mem_owner *o, uint64_t id[2])
{
	(void)o;
	id[0] = id[1] = 0; /* nothing in a file is private */
}

static bool file_twin(const struct mem_owner *a, const struct mem_owner *b)
{
	const struct file_owner *fa = container_of(a, const struct file_owner, base);
	const struct file_owner *fb = container_of(b, const struct file_owner, base);

	return fa->ino && fa->dev == fb->dev && fa->ino == fb->ino && fa->kind == fb->kind &&
	       fa->can == fb->can;
}

static void file_destroy(struct mem_owner *o)
{
	struct file_owner *fo = file_of(o);

	close(fo->fd);
	swi_free(fo);
}

static const struct mem_owner_ops file_ops = {
	.kind = "file",
	.read = file_read,
	.write = file_write,
	.open_window = file_open_window,
	.read_pinned = file_read_pinned,
	.write_pinned = file_write_pinned,
	.page_key = file_page_key,
	.open_file = file_open_file,
	.twin = file_twin,
	.space = file_space,
	.destroy = file_destroy,
};

static void find_kind(struct file_owner *fo, int fd)
{
	struct statfs fs;
	struct stat st;

	fo->kind = FILE_OTHER;
	fo->page_size = (uint64_t)getpagesize();
	if (fstat(fd, &st))
		return;
	fo->dev = st.st_dev;
	fo->ino = st.st_ino;
	fo->base.hash = st.st_ino;
	if (!S_ISREG(st.st_mode) || fstatfs(fd, &fs))
		return;
	if (fs.f_type == HUGETLBFS_MAGIC) {
		fo->kind = FILE_HUGETLB;
		fo->page_size = (uint64_t)fs.f_bsize;
	} else if (fs.f_type == TMPFS_MAGIC) {
		fo->kind = FILE_SHMEM;
	}
}

/*
 * Replaces fo->fd by one that is open for both directions, if it is not and if we may. A sealed
 * file is opened for reading only: kernels before 6.7 refuse even read-only mappings otherwise.
 * O_NONBLOCK: somebody may hold a lease on the file and take his time to give it up.
 */
static void widen_mode(struct file_owner *fo)
{
	bool sealed = sealed_against_writing(fo->fd);
	unsigned want = sealed ? SWI_READ : SWI_READ | SWI_WRITE;
	char link[48];
	int fd;

	if (fo->can == want)
		return;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fo->fd);
	fd = open(link, (sealed ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return;
	close(fo->fd);
	fo->fd = fd;
	fo->can = want;
}

bool mem_owner_is_file(const struct mem_owner *o)
{
	return o->ops == &file_ops;
}

int mem_owner_file(int fd, struct mem_owner **out, struct swi_reason *why)
{
	struct file_owner *fo;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || (flags & O_PATH))
		return swi_fail(why, -EBADF, "fd %d is not an open file", fd);
	fo = swi_new(struct file_owner);
	if (!fo)
		return swi_fail(why, -ENOMEM, "out of memory");
	fo->base.ops = &file_ops;
	atomic_init(&fo->base.refs, 1);
	fo->fd = fd;
	switch (flags & O_ACCMODE) {
	case O_RDONLY:
		fo->can = SWI_READ;
		break;
	case O_WRONLY:
		fo->can = SWI_WRITE;
		break;
	default:
		fo->can = SWI_READ | SWI_WRITE;
	}
	find_kind(fo, fd);
	if (fo->kind != FILE_OTHER)
		widen_mode(fo);
	*out = &fo->base;
	return 0;
}
