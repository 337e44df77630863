// SPDX-License-Identifier: MIT
/*
 * Private memory made shared (spec vfio.md 5.6).
 *
 * A device in another process (vfio-user) can be given memory only if it lies in a file, and the supervisor can address
 * only such memory directly. So where the session asks for it, private anonymous memory is put into one before it is mapped for
 * DMA: its pages are copied to a stretch of a file that the supervisor provides, one per process, and that is mapped in their place.
 *
 * Other threads: while it happens the memory is read-only, and who writes to it waits in the SIGSEGV handler. (A system call that
 * writes to it in that moment fails with EFAULT.) Memory near our own stack pointer is left alone.
 *
 * Children: a child of fork() must have memory of its own. Our fork() makes it so in the child, before either of the two goes on. What
 * the parent had shared with earlier children by copy-on-write stays with them: only its own view is replaced.
 */
#include "preload/state.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

/* ---- what is mapped where ---------------------------------------------------------------------- */

struct area {
	uintptr_t start, end;
	uint64_t inode;
	bool shared, readable, writable, special; /* special: a stack or such */
};

/* The ioctl PROCMAP_QUERY of Linux 6.11 (Documentation/filesystems/proc.rst). */
struct map_query {
	uint64_t size, flags, addr;
	uint64_t start, end, vma_flags, page_size, offset, inode;
	uint32_t major, minor, name_size, build_id_size;
	uint64_t name_addr, build_id_addr;
};
#define MAP_QUERY _IOWR('f', 17, struct map_query)
#define QUERY_OR_NEXT 0x10u

static int query_area(int maps, uintptr_t addr, struct area *out)
{
	char name[64];
	struct map_query q = {.size = sizeof(q), .flags = QUERY_OR_NEXT, .addr = addr};
	long rc = SYS3(SYS_ioctl, maps, MAP_QUERY, &q);

	if (rc)
		return (int)rc;
	*out = (struct area){.start = q.start,
			     .end = q.end,
			     .inode = q.inode,
			     .readable = q.vma_flags & 1,
			     .writable = q.vma_flags & 2,
			     .shared = q.vma_flags & 8};
	if (q.inode)
		return 0;
	/* Its name matters only if it is short; one that is too long is no stack's. */
	q.name_addr = (uintptr_t)name;
	q.name_size = sizeof(name);
	if (!SYS3(SYS_ioctl, maps, MAP_QUERY, &q) && q.name_size && name[0] == '[')
		out->special = name[1] == 's' || name[1] == 'v'; /* stack, vdso, vvar, vsyscall */
	return 0;
}

static const char *parse_hex(const char *at, uint64_t *out)
{
	for (*out = 0;; at++) {
		unsigned int digit = *at >= 'a' ? *at - 'a' + 10u : *at - (unsigned int)'0';

		if (digit > 15)
			return at;
		*out = *out << 4 | digit;
	}
}

/* "start-end rwxp offset major:minor inode   name" */
static void parse_line(const char *at, struct area *out)
{
	uint64_t start, end, ignored;

	at = parse_hex(at, &start);
	at = parse_hex(at + 1, &end);
	*out = (struct area){.start = start,
			     .end = end,
			     .readable = at[1] == 'r',
			     .writable = at[2] == 'w',
			     .shared = at[4] == 's'};
	at = parse_hex(at + 6, &ignored);
	at = parse_hex(at + 1, &ignored);
	at = parse_hex(at + 1, &ignored);
	for (at++; *at >= '0' && *at <= '9'; at++)
		out->inode = out->inode * 10 + (unsigned int)(*at - '0');
	while (*at == ' ')
		at++;
	out->special = at[0] == '[' && (at[1] == 's' || at[1] == 'v');
}

/* The first area that ends behind addr, from the text of the mappings file. */
static int read_area(int maps, uintptr_t addr, struct area *out)
{
	char buf[1024], line[128];
	size_t used = 0;
	long n;

	SYS3(SYS_lseek, maps, 0, SEEK_SET);
	while ((n = SYS3(SYS_read, maps, buf, sizeof(buf))) > 0)
		for (long i = 0; i < n; i++) {
			if (buf[i] != '\n') {
				if (used < sizeof(line) - 1) /* only a long name is cut off */
					line[used++] = buf[i];
				continue;
			}
			line[used] = '\0';
			used = 0;
			parse_line(line, out);
			if (out->end > addr)
				return 0;
		}
	return -ENOENT;
}

static int find_area(int maps, uintptr_t addr, struct area *out)
{
	int rc = query_area(maps, addr, out);

	return rc == -ENOTTY || rc == -EINVAL ? read_area(maps, addr, out) : rc;
}

/* ---- converting -------------------------------------------------------------------------------- */

#define CONVERTED_MAX 1024u

/* Stretches that were converted, for fork(). They grow where new ones follow; state.convert_lock. */
static struct converted {
	uintptr_t start, end;
	uint64_t inode;
} converted[CONVERTED_MAX];
static uint32_t nr_converted;

static bool remember(uintptr_t start, uintptr_t end, uint64_t inode)
{
	for (uint32_t i = nr_converted; i-- > 0;) {
		struct converted *c = &converted[i];

		if (c->inode != inode || start > c->end || end < c->start)
			continue;
		c->start = start < c->start ? start : c->start;
		c->end = end > c->end ? end : c->end;
		return true;
	}
	if (nr_converted == CONVERTED_MAX)
		return false;
	converted[nr_converted++] = (struct converted){start, end, inode};
	return true;
}

static int write_all(int fd, uintptr_t from, size_t length)
{
	while (length) {
		long n = SYS3(SYS_write, fd, from, length);

		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		from += n;
		length -= n;
	}
	return 0;
}

#define PAGEMAP_CHUNK 256u
#define PAGE_THERE (3ull << 62) /* present or swapped out */

/* Copies the pages that there are; the others read as zero in the file as well. */
static int copy_pages(int fd, uint64_t offset, uintptr_t start, uintptr_t end)
{
	int pagemap =
		(int)SYS4(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
	uint64_t entries[PAGEMAP_CHUNK];
	int rc = 0;

	for (uintptr_t at = start; at < end && !rc;) {
		size_t n = (end - at) / PRELOAD_PAGE;

		n = n < PAGEMAP_CHUNK ? n : PAGEMAP_CHUNK;
		if (pagemap < 0 || SYS3(SYS_lseek, pagemap, at / PRELOAD_PAGE * 8, SEEK_SET) < 0 ||
		    SYS3(SYS_read, pagemap, entries, n * 8) != (long)n * 8)
			memset(entries, 0xff, sizeof(entries));
		for (size_t i = 0, run; i < n && !rc; i += run) {
			for (run = 1; i + run < n && !(entries[i + run] & PAGE_THERE) ==
							     !(entries[i] & PAGE_THERE);)
				run++;
			if (!(entries[i] & PAGE_THERE))
				continue;
			if (SYS3(SYS_lseek, fd, offset + (at - start) + i * PRELOAD_PAGE,
				 SEEK_SET) < 0)
				rc = -EIO;
			else
				rc = write_all(fd, at + i * PRELOAD_PAGE, run * PRELOAD_PAGE);
		}
		at += n * PRELOAD_PAGE;
	}
	if (pagemap >= 0)
		SYS3(SYS_close, pagemap, 0, 0);
	return rc;
}

/* Whether another thread could write meanwhile: /proc/self/task has a link per thread, and two more. */
static bool has_threads(void)
{
	struct statx st;

	memset(&st, 0, sizeof(st));
	if (SYS6(SYS_statx, AT_FDCWD, "/proc/self/task", 0, STATX_NLINK, &st, 0))
		return true;
	return st.stx_nlink != 3;
}

static void convert_piece(struct preload_state *s, const struct area *a, uintptr_t start,
			  uintptr_t end)
{
	uintptr_t stack = (uintptr_t)__builtin_frame_address(0);
	int prot = PROT_WRITE | (a->readable ? PROT_READ : 0);
	struct helper_share share = {.length = end - start, .fd = -1};
	bool threads;
	long p = -1;

	/* Our own stack cannot be taken away from under us. */
	if (start < stack + PRELOAD_PAGE && end > stack - 16 * PRELOAD_PAGE)
		return;
	if (SYS3(SYS_ioctl, HELPER_FD(-1, 0), HELPER_CALL_SHARE, &share))
		return;
	threads = has_threads();
	if (threads) {
		trap_install();
		atomic_store(&s->convert_end, end);
		atomic_store(&s->convert_start, start);
		if (SYS3(SYS_mprotect, start, end - start, PROT_READ))
			goto out;
	}
	if (!copy_pages(share.fd, share.offset, start, end) && remember(start, end, share.inode))
		p = SYS6(SYS_mmap, start, end - start, prot, MAP_SHARED | MAP_FIXED, share.fd,
			 share.offset);
	if (p < 0 && p >= -4095 && threads)
		SYS3(SYS_mprotect, start, end - start, prot);
out:
	atomic_store(&s->convert_start, 0);
	atomic_store(&s->convert_end, 0);
	SYS3(SYS_close, share.fd, 0, 0);
}

static bool can_convert(const struct area *a)
{
	return !a->shared && !a->inode && a->writable && !a->special;
}

void convert_range(uintptr_t addr, size_t length)
{
	uintptr_t at = addr & ~(PRELOAD_PAGE - 1), end = addr + length;
	struct preload_state *s = preload_state();
	struct area a;
	uint64_t mask;
	int maps;

	if (!s || !length || end < addr || end > UINTPTR_MAX - PRELOAD_PAGE)
		return;
	end = (end + PRELOAD_PAGE - 1) & ~(PRELOAD_PAGE - 1);
	state_lock(&s->convert_lock, &mask);
	maps = (int)SYS4(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
	while (maps >= 0 && at < end && !find_area(maps, at, &a) && a.start < end) {
		uintptr_t first = a.start > at ? a.start : at, stop = a.end < end ? a.end : end;

		if (can_convert(&a))
			convert_piece(s, &a, first, stop);
		at = stop;
	}
	if (maps >= 0)
		SYS3(SYS_close, maps, 0, 0);
	state_unlock(&s->convert_lock, mask);
}

bool convert_wait(uintptr_t addr)
{
	struct preload_state *s = preload_state();
	uintptr_t start, end;

	if (!s)
		return false;
	for (bool waited = false;; waited = true) {
		start = atomic_load(&s->convert_start);
		end = atomic_load(&s->convert_end);
		if (!start || addr < start || addr >= end)
			return waited;
		SYS3(SYS_sched_yield, 0, 0, 0);
	}
}

/* ---- fork -------------------------------------------------------------------------------------- */

/* Gives the child its own copy of what is still the file's in [start, end). */
static void make_private(int maps, const struct converted *c)
{
	struct area a;

	for (uintptr_t at = c->start;
	     at < c->end && !find_area(maps, at, &a) && a.start < c->end;) {
		uintptr_t first = a.start > at ? a.start : at;
		uintptr_t stop = a.end < c->end ? a.end : c->end;
		int prot = (a.readable ? PROT_READ : 0) | (a.writable ? PROT_WRITE : 0);
		long p;

		at = stop;
		if (!a.shared || a.inode != c->inode)
			continue;
		p = SYS6(SYS_mmap, 0, stop - first, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p < 0 && p >= -4095)
			continue; /* out of memory: better shared than gone */
		guarded_copy((void *)p, (void *)first, stop - first);
		SYS3(SYS_mprotect, p, stop - first, prot);
		SYS6(SYS_mremap, p, stop - first, stop - first, MREMAP_MAYMOVE | MREMAP_FIXED,
		     first, 0);
	}
}

static _Atomic uint32_t *fork_word(void)
{
	long p;

	if (!nr_converted)
		return NULL;
	p = SYS6(SYS_mmap, 0, PRELOAD_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		 0);
	return p < 0 && p >= -4095 ? NULL : (_Atomic uint32_t *)p;
}

static void in_child(_Atomic uint32_t *done)
{
	int maps = (int)SYS4(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);

	for (uint32_t i = 0; maps >= 0 && i < nr_converted; i++)
		make_private(maps, &converted[i]);
	if (maps >= 0)
		SYS3(SYS_close, maps, 0, 0);
	nr_converted = 0;
	atomic_store(done, 1);
	SYS3(SYS_futex, done, FUTEX_WAKE, 1);
}

static void wait_for_child(_Atomic uint32_t *done, pid_t child)
{
	struct timespec moment = {0, 100000000};
	siginfo_t info;

	while (!atomic_load(done)) {
		SYS4(SYS_futex, done, FUTEX_WAIT, 0, &moment);
		/* It may have been killed. */
		memset(&info, 0, sizeof(info));
		if (!atomic_load(done) &&
		    (SYS6(SYS_waitid, P_PID, child, &info, WEXITED | WNOHANG | WNOWAIT, 0, 0) ||
		     info.si_pid))
			break;
	}
}

pid_t convert_fork(pid_t (*library)(void))
{
	_Atomic uint32_t *done = fork_word();
	pid_t pid = library();

	if (!done)
		return pid;
	if (!pid)
		in_child(done);
	else if (pid > 0)
		wait_for_child(done, pid);
	SYS3(SYS_munmap, done, PRELOAD_PAGE, 0);
	return pid;
}
