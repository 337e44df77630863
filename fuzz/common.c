// SPDX-License-Identifier: MIT
/* Input, memory and client of the fuzzers; see fuzz.h. */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/vfio.h>

#include "core/selftest_abi.h"
#include "mem/guard.h"

/* ---- the input ----------------------------------------------------------------------------------- */

uint64_t take(struct input *in, unsigned int bytes)
{
	uint64_t v = 0;

	for (unsigned int i = 0; i < bytes && in->left; i++, in->at++, in->left--)
		v |= (uint64_t)*in->at << 8 * i;
	return v;
}

void take_bytes(struct input *in, void *buf, size_t len)
{
	uint8_t *b = buf;

	for (size_t i = 0; i < len; i++)
		b[i] = take8(in);
}

uint64_t take_length(struct input *in)
{
	unsigned int kind = take8(in);

	switch (kind >> 4) {
	case 0:
		return (const uint64_t[]){0,
					  1,
					  2,
					  0x7fffffffffffffff,
					  0x7ffffffffffffffe,
					  UINT64_MAX,
					  UINT64_MAX - 1,
					  UINT64_MAX - SWI_PAGE_SIZE}[kind & 7];
	case 1:
		return 1ull << take8(in) % 64;
	case 2:
		return take(in, 8);
	case 3:
	case 4:
		return take(in, 2);
	case 5:
	case 6:
		return (kind & 15) * 2048ull;
	default:
		return ((kind & 15) + 1) * SWI_PAGE_SIZE;
	}
}

uint64_t take_iova(struct input *in)
{
	static const uint64_t bases[] = {0,	     0x1000,
					 0x10000,    0x200000,
					 0x1000000,  0x1000000,
					 0x7ffff000, 0xfee00000,
					 1ull << 32, (1ull << 48) - 0x4000,
					 1ull << 63, UINT64_MAX - 0xffff};
	unsigned int kind = take8(in);
	uint64_t base = bases[(kind & 15) % ARRAY_SIZE(bases)];

	switch (kind >> 5) {
	case 0:
		return take(in, 8);
	case 1:
		return base + take(in, 2);
	case 2:
		return UINT64_MAX - (kind & 31);
	case 3:
		return base + take8(in) * 1024ull;
	default:
		return base + (take8(in) & 31) * SWI_PAGE_SIZE;
	}
}

uint64_t take_uptr(struct input *in)
{
	uint64_t base = (uintptr_t)arena;
	unsigned int kind = take8(in);

	switch (kind >> 5) {
	case 0:
		return (const uint64_t[]){0,
					  1,
					  0x1400,
					  0xffff800000000000,
					  UINT64_MAX,
					  UINT64_MAX - 0xfff,
					  0x8000000000000000,
					  base - 1}[kind & 7];
	case 1:
		return base + take(in, 3) % (ARENA_SIZE + SWI_PAGE_SIZE);
	case 2:
		return base + take8(in) * 1024ull;
	default:
		return base + take8(in) % ARENA_PAGES * SWI_PAGE_SIZE;
	}
}

/* ---- memory -------------------------------------------------------------------------------------- */

uint8_t *arena;
int memfds[2];

/* Aligned to a large page, above what the sanitizers use for themselves. */
#define ARENA_ADDRESS 0x200000000000ull

static void map_part(unsigned int first, unsigned int pages, int prot, int flags, int fd)
{
	void *at = arena + first * SWI_PAGE_SIZE;
	void *p = mmap(at, pages * SWI_PAGE_SIZE, prot, flags | MAP_FIXED, fd, 0);

	FUZZ_CHECK(p == at, "arena: %s", strerror(errno));
}

static void fill(void)
{
	for (size_t i = 0; i < 32 * SWI_PAGE_SIZE; i += 8)
		*(uint64_t *)(arena + i) = i * 0x9e3779b97f4a7c15;
}

void fuzz_setup(void)
{
	const int anon = MAP_PRIVATE | MAP_ANONYMOUS;
	uint64_t at = ARENA_ADDRESS - ARENA_ROOM;
	void *room;

	if (arena)
		return;
	room = mmap((void *)at, 2 * ARENA_ROOM + ARENA_SIZE, PROT_NONE, anon | MAP_NORESERVE, -1,
		    0);
	FUZZ_CHECK(room != MAP_FAILED, "arena: %s", strerror(errno));
	arena = (uint8_t *)room + ARENA_ROOM;
	for (unsigned int i = 0; i < ARRAY_SIZE(memfds); i++) {
		memfds[i] = memfd_create("fuzz", MFD_CLOEXEC);
		FUZZ_CHECK(memfds[i] >= 0 &&
				   !ftruncate(memfds[i], FUZZ_MEMFD_PAGES * SWI_PAGE_SIZE),
			   "memfd: %s", strerror(errno));
	}
	map_part(0, 32, PROT_READ | PROT_WRITE, anon, -1);
	map_part(32, 4, PROT_READ, anon, -1);
	map_part(ARENA_MEMFD_PAGE, 8, PROT_READ | PROT_WRITE, MAP_SHARED, memfds[0]);
	map_part(48, 2, PROT_WRITE, anon, -1);
	map_part(50, 14, PROT_READ | PROT_WRITE, anon, -1);
	FUZZ_CHECK(!munmap(arena + 38 * SWI_PAGE_SIZE, 2 * SWI_PAGE_SIZE), "munmap");
	FUZZ_CHECK(!mem_guard_install(), "no guard");
}

void fuzz_restore(void)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(memfds); i++)
		FUZZ_CHECK(!ftruncate(memfds[i], FUZZ_MEMFD_PAGES * SWI_PAGE_SIZE), "ftruncate");
	fill();
}

void fuzz_tame(uint64_t *addr, uint64_t *length)
{
	const uint64_t lowest = 1ull << 16, highest = 1ull << 47;
	uint64_t room = (uintptr_t)arena - ARENA_ROOM;
	uint64_t end = room + 2 * ARENA_ROOM + ARENA_SIZE;

	if (*addr < lowest)
		*length = SWI_MIN(*length, lowest - *addr);
	else if (*addr < highest && (*addr < room || *addr >= end))
		*addr = room + *addr % ARENA_ROOM;
	if (*addr >= room && *addr < end)
		*length = SWI_MIN(*length, end - *addr);
}

/* Bytewise: memcpy() would be looked at by ThreadSanitizer all the same. */
__attribute__((no_sanitize("thread"))) void arena_write(void *at, const void *src, size_t len)
{
	const uint8_t *from = src;
	volatile uint8_t *to = at;

	for (size_t i = 0; i < len; i++)
		to[i] = from[i];
}

unsigned int fuzz_count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	FUZZ_CHECK(dir, "/proc/self/fd: %s", strerror(errno));
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* ---- the client ----------------------------------------------------------------------------------- */

static struct client *client_of(struct swiommu_caller *c)
{
	return (struct client *)c;
}

static bool may_touch(const struct client *c, uint64_t uptr, size_t len)
{
	uint64_t base = (uintptr_t)arena, arg = (uintptr_t)c->arg;

	if (uptr >= base && uptr - base <= ARENA_SIZE && len <= ARENA_SIZE - (uptr - base))
		return true;
	return uptr >= arg && uptr - arg <= c->arg_size && len <= c->arg_size - (uptr - arg);
}

static int copy_in(struct swiommu_caller *c, void *dst, uint64_t uptr, size_t len)
{
	return may_touch(client_of(c), uptr, len) ? client_of(c)->local->copy_in(c, dst, uptr, len)
						  : -EFAULT;
}

static int copy_out(struct swiommu_caller *c, uint64_t uptr, const void *src, size_t len)
{
	return may_touch(client_of(c), uptr, len) ? client_of(c)->local->copy_out(c, uptr, src, len)
						  : -EFAULT;
}

static int get_fd(struct swiommu_caller *c, int fd, int *out_fd)
{
	struct client *client = client_of(c);

	for (unsigned int i = 0; i < client->nr_fds; i++)
		if (client->fds[i].fd == fd && fd >= 0)
			return client->local->get_fd(c, fd, out_fd);
	return -EBADF;
}

static int get_ctx(struct swiommu_caller *c, int fd, struct iommufd_ctx **out)
{
	struct client *client = client_of(c);
	int copy, rc;

	if (fd < CLIENT_CTX_FD || fd >= CLIENT_CTX_FD + 3 || !client->ctx[fd - CLIENT_CTX_FD]) {
		rc = get_fd(c, fd, &copy);
		if (!rc)
			close(copy);
		return rc ? rc : -EBADFD;
	}
	*out = client->ctx[fd - CLIENT_CTX_FD];
	iommufd_ctx_get(*out);
	return 0;
}

static bool capable(struct swiommu_caller *c, int cap)
{
	(void)cap;
	return client_of(c)->capable;
}

static int install_fd(struct swiommu_caller *c, int fd, int flags, int *out_fd)
{
	int rc;

	if (client_of(c)->nr_fds == CLIENT_FDS)
		return -EMFILE;
	rc = client_of(c)->local->install_fd(c, fd, flags, out_fd);
	if (!rc)
		client_give_fd(client_of(c), *out_fd, true);
	return rc;
}

void client_init(struct client *c)
{
	memset(c, 0, sizeof(*c));
	swiommu_caller_local(&c->caller);
	c->local = c->caller.ops;
	c->ops = *c->local;
	c->ops.copy_in = copy_in;
	c->ops.copy_out = copy_out;
	c->ops.get_fd = get_fd;
	c->ops.get_ctx = get_ctx;
	c->ops.capable = capable;
	c->ops.install_fd = install_fd;
	c->caller.ops = &c->ops;
}

void client_fini(struct client *c)
{
	for (unsigned int i = 0; i < c->nr_fds; i++)
		if (c->fds[i].owned && c->fds[i].fd >= 0)
			close(c->fds[i].fd);
	c->nr_fds = 0;
}

void client_give_fd(struct client *c, int fd, bool owned)
{
	FUZZ_CHECK(c->nr_fds < CLIENT_FDS, "descriptors");
	c->fds[c->nr_fds].fd = fd;
	c->fds[c->nr_fds++].owned = owned;
}

int client_take_fd(struct client *c, struct input *in)
{
	unsigned int i = take8(in);

	if (i < c->nr_fds)
		return c->fds[i].fd;
	if (i >= 240)
		return CLIENT_CTX_FD + i % 4;
	return i >= 200 || !c->nr_fds ? -1 : c->fds[i % c->nr_fds].fd;
}

bool is_known_errno(long rc)
{
	static const int known[] = {EPERM,	EBADE,	   ENOENT, ENXIO,    E2BIG,
				    EBADF,	EAGAIN,	   ENOMEM, EFAULT,   EBUSY,
				    EEXIST,	ENODEV,	   EINVAL, EMFILE,   ENOTTY,
				    ENOSPC,	EOVERFLOW, EBADFD, EMSGSIZE, EOPNOTSUPP,
				    EADDRINUSE, EDEADLOCK, ESRCH,  EIO,	     EACCES};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (rc == -known[i])
			return true;
	return false;
}

long client_ioctl(struct client *c, struct iommufd_ctx *ctx, unsigned int cmd, void *arg,
		  size_t size)
{
	long rc;

	c->arg = arg;
	c->arg_size = size;
	rc = swiommu_ioctl(ctx, &c->caller, cmd, (uintptr_t)arg);
	c->arg_size = 0;
	if (rc > 0)
		FUZZ_CHECK(cmd == VFIO_CHECK_EXTENSION || cmd == IOMMU_TEST_CMD,
			   "ioctl %#x gave %ld", cmd, rc);
	FUZZ_CHECK(rc >= 0 || is_known_errno(rc), "ioctl %#x gave %ld: %s", cmd, rc,
		   c->caller.reason);
	FUZZ_CHECK(memchr(c->caller.reason, 0, sizeof(c->caller.reason)), "a reason without end");
	return rc;
}
