// SPDX-License-Identifier: MIT
/*
 * Accesses, the way in for device emulators, by the descriptors of the test ABI: pins, transfers,
 * what UNMAP and moving to another IOAS do with pins.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "suite.h"

#define B 0x10000ull

static uint64_t addr(const void *p)
{
	return (uintptr_t)p;
}

static void keeps_the_ioas(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	int access = accfd_open(c, ioas, true);

	CHECK_RC(destroy(c, ioas), -EBUSY);
	CHECK_RC(destroy(c, ioas + 1), -EBUSY); /* the access' own ID */
	close(access);
	CHECK_RC(destroy(c, ioas + 1), -ENOENT);
	CHECK_RC(destroy(c, ioas), 0);
}

static void copy_under_a_pin_access(struct ctx *c)
{
	uint32_t src = ioas_new(c), dst = ioas_new(c);
	int access = accfd_open(c, dst, true);

	CHECK_EQ(ioas_align(c, dst), PAGE);
	CHECK_RC(map_at(c, src, B, 0x5000, 2 * PAGE), 0);
	CHECK_RC(copy(c, dst, src, RW, B + 0x400, PAGE, NULL), -EINVAL);
	CHECK_RC(copy(c, dst, src, RW, B, PAGE, NULL), 0);
	close(access);
	CHECK_EQ(ioas_align(c, dst), 1);
}

static void unaligned_areas(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	int access;

	need_test_abi(c);
	CHECK_RC(map_at(c, ioas, B, addr(memory(2)) + 100, PAGE), 0);
	CHECK_RC(accfd_try(c, ioas, true, &access), -EADDRINUSE);
	CHECK_RC(accfd_try(c, ioas, false, &access), 0);
	close(access);
}

static void permission_seam(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	int access = accfd_open(c, ioas, true);
	char *v = memory(5), b[32];
	uint64_t iova = B + 4 * PAGE;

	CHECK_RC(map_at(c, ioas, B, addr(v), 4 * PAGE), 0);
	CHECK_RC(map(c, ioas, FIXED | R, addr(v) + 4 * PAGE, PAGE, &iova), 0);
	CHECK_RC(accfd_pin(c, access, true, B, 5 * PAGE, NULL), -EPERM);
	CHECK_RC(check_refs(c, v, 5 * PAGE, 0), 0);
	CHECK_RC(accfd_pin(c, access, false, B, 5 * PAGE, NULL), 0);
	CHECK_RC(check_refs(c, v, 5 * PAGE, 1), 0);
	memset(b, 'x', sizeof(b));
	CHECK_RC(accfd_rw(c, access, TEST_RW_WRITE, iova - 16, b, 32), -EPERM);
	CHECK_RC(memcmp(v + 4 * PAGE - 16, b, 16), 0);
	CHECK_EQ(v[4 * PAGE], 5);
}

static void write_into_a_hole(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	int access = accfd_open(c, ioas, true);
	char *v = memory(1), b[32];

	CHECK_RC(map_at(c, ioas, B, addr(v), PAGE), 0);
	memset(b, 'x', sizeof(b));
	CHECK_RC(accfd_rw(c, access, TEST_RW_WRITE, B + PAGE - 16, b, 32), -ENOENT);
	CHECK_RC(memcmp(v + PAGE - 16, b, 16), 0);
	CHECK_RC(accfd_rw(c, access, 0, B, b, 0), -EINVAL);
	CHECK_RC(accfd_rw(c, access, 0, MAX - 3, b, 5), -EOVERFLOW);
}

static void pin_arguments(struct ctx *c)
{
	uint32_t ioas = ioas_new(c), item;
	int access = accfd_open(c, ioas, true);
	char *v = memory(2);

	CHECK_RC(map_at(c, ioas, B, addr(v), 2 * PAGE), 0);
	CHECK_RC(accfd_pin(c, access, true, B + 8, PAGE, NULL), -EINVAL);
	CHECK_RC(accfd_pin(c, access, true, B, 0, NULL), -EINVAL);
	CHECK_RC(accfd_pin(c, access, true, MAX - 1, 3, NULL), -EOVERFLOW);
	CHECK_RC(accfd_pin(c, access, true, B, 1, &item), 0);
	CHECK_EQ(item, 0);
	CHECK_RC(accfd_pin(c, access, true, B, PAGE + 1, &item), 0);
	CHECK_EQ(item, 1);
	CHECK_RC(accfd_pin(c, access, true, B + PAGE, PAGE + 1, NULL), -ENOENT);
	CHECK_RC(check_refs(c, v, 2 * PAGE, 1), 0);
	CHECK_RC(accfd_unpin(c, access, 1), 0);
	CHECK_RC(check_refs(c, v, PAGE, 1), 0);
	CHECK_RC(check_refs(c, v + PAGE, PAGE, 0), 0);
	CHECK_RC(accfd_unpin(c, access, 1), -ENOENT);
}

static void unmap_calls_back(struct ctx *c)
{
	uint32_t ioas = ioas_new(c), item[2];
	int one = accfd_open(c, ioas, true), two = accfd_open(c, ioas, true);
	char *v = memory(4);

	CHECK_RC(map_at(c, ioas, B, addr(v), 4 * PAGE), 0);
	CHECK_RC(accfd_pin(c, one, true, B, 2 * PAGE, &item[0]), 0);
	CHECK_RC(accfd_pin(c, two, false, B + PAGE, 2 * PAGE, &item[1]), 0);
	CHECK_RC(check_refs(c, v, 3 * PAGE, 1), 0);
	CHECK_RC(unmap(c, ioas, B, PAGE, NULL), -ENOENT);
	CHECK_RC(check_refs(c, v, 3 * PAGE, 1), 0);
	unmap_expect(c, ioas, B, 4 * PAGE, 4 * PAGE);
	CHECK_RC(check_refs(c, v, 4 * PAGE, 0), 0);
	CHECK_RC(accfd_unpin(c, one, item[0]), -ENOENT);
	CHECK_RC(accfd_unpin(c, two, item[1]), -ENOENT);
}

static void replace(struct ctx *c)
{
	uint32_t ioas = ioas_new(c), fine = ioas_new(c), other = ioas_new(c), item;
	int access = accfd_open(c, ioas, true);
	char *v = memory(1);

	CHECK_RC(map_at(c, ioas, B, addr(v), PAGE), 0);
	CHECK_RC(map_at(c, fine, B, addr(v), 5), 0);
	CHECK_RC(accfd_pin(c, access, true, B, PAGE, &item), 0);
	CHECK_RC(accfd_replace(c, access, ioas), 0);
	CHECK_RC(check_refs(c, v, PAGE, 1), 0);
	CHECK_RC(accfd_replace(c, access, 99), -ENOENT);
	CHECK_RC(accfd_replace(c, access, fine), -EADDRINUSE);
	CHECK_RC(check_refs(c, v, PAGE, 1), 0);
	CHECK_RC(accfd_replace(c, access, other), 0);
	CHECK_RC(check_refs(c, v, PAGE, 0), 0);
	CHECK_RC(accfd_unpin(c, access, item), -ENOENT);
	CHECK_RC(destroy(c, ioas), 0);
	CHECK_RC(destroy(c, other), -EBUSY);
	CHECK_EQ(ioas_align(c, other), PAGE);
}

static void pin_twice(struct ctx *c)
{
	uint32_t ioas = ioas_new(c), item[2];
	int access = accfd_open(c, ioas, true);
	char *v = memory(1);

	CHECK_RC(map_at(c, ioas, B, addr(v), PAGE), 0);
	CHECK_RC(accfd_pin(c, access, true, B, PAGE, &item[0]), 0);
	CHECK_RC(accfd_replace(c, access, ioas), 0);
	CHECK_RC(accfd_pin(c, access, true, B, PAGE, &item[1]), 0);
	CHECK_RC(accfd_unpin(c, access, item[0]), 0);
	CHECK_RC(check_refs(c, v, PAGE, 1), 0);
	CHECK_RC(accfd_unpin(c, access, item[1]), 0);
	CHECK_RC(check_refs(c, v, PAGE, 0), 0);
}

static void access_outlives_the_fd(struct ctx *c)
{
	struct ctx *other = ctx_open(), *again = ctx_open();
	uint32_t ioas = ioas_new(other);
	int access = accfd_open(other, ioas, false);
	char *v = memory(1), b[4];

	CHECK_RC(map_at(other, ioas, B, addr(v), PAGE), 0);
	ctx_close(other);
	strcpy(v, "abc");
	CHECK_RC(accfd_rw(c, access, 0, B, b, 4), 0);
	CHECK_RC(memcmp(b, "abc", 4), 0);
	ctx_close(again);
	close(access);
}

/* What holds of memory that its process has unmapped or replaced, where pins are what a kernel's are. */
static void need_true_pins(void)
{
	if (suite.fe == &fe_lib)
		skip("true-pins", "an embedder promises to keep its own memory");
}

static void memory_that_went(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	int access = accfd_open(c, ioas, false);
	struct mock m;
	char *v = memory(2), b[8];
	long rc;

	need_true_pins();
	mock_add(c, ioas, &m);
	memcpy(v + PAGE - 4, "old data", 8);
	CHECK_RC(map_at(c, ioas, MOCK_FIRST, addr(v), 2 * PAGE), 0);
	munmap(v, 2 * PAGE);
	CHECK_RC(accfd_rw(c, access, 0, MOCK_FIRST, b, 8), -EFAULT);
	CHECK_RC(accfd_rw(c, access, TEST_RW_SLOW, MOCK_FIRST, b, 8), -EFAULT);
	rc = accfd_rw(c, access, TEST_RW_SLOW, MOCK_FIRST + PAGE - 4, b, 8);
	if (rc == -EFAULT)
		skip("true-pins", "memory that its process unmaps is gone");
	CHECK_RC(rc, 0);
	CHECK_RC(memcmp(b, "old data", 8), 0);
}

static void write_intent_on_read_only(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	int access = accfd_open(c, ioas, false);
	char *v = memory(2), b[8];

	mprotect(v, 2 * PAGE, PROT_READ);
	CHECK_RC(map_at(c, ioas, B, addr(v), 2 * PAGE), 0);
	CHECK_RC(accfd_rw(c, access, 0, B, b, 8), 0);
	CHECK_RC(accfd_rw(c, access, TEST_RW_SLOW, B, b, 8), 0);
	CHECK_RC(accfd_rw(c, access, TEST_RW_SLOW, B + PAGE - 4, b, 8), -EFAULT);
	CHECK_RC(accfd_rw(c, access, TEST_RW_WRITE, B, b, 8), -EFAULT);
}

static void child_maps(struct ctx *c, void *data)
{
	char *v = memory(1);

	CHECK_RC(map_at(c, *(uint32_t *)data, MOCK_FIRST, addr(v), PAGE), 0);
}

static void dead_mapper(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	int access = accfd_open(c, ioas, false);
	uint64_t iova = MOCK_FIRST + PAGE;
	struct mock m;
	char b[8];

	in_child(c, child_maps, &ioas);
	CHECK_RC(accfd_rw(c, access, 0, MOCK_FIRST, b, 8), -EFAULT);
	CHECK_RC(accfd_rw(c, access, TEST_RW_SLOW, MOCK_FIRST, b, 8), -EFAULT);
	CHECK_RC(mock_try(c, ioas, &m), -EFAULT);
	CHECK_RC(copy(c, ioas, ioas, FIXED | RW, MOCK_FIRST, PAGE, &iova), 0);
	unmap_expect(c, ioas, 0, MAX, 2 * PAGE);
}

/* Maps and becomes another program, which closes `tell` by that and lives until `stay` ends. */
struct execing {
	uint32_t ioas;
	int tell[2], stay[2];
};

static void map_and_exec(struct ctx *c, struct execing *e)
{
	char *v = memory(2);
	long rc;

	memcpy(v + PAGE - 4, "old data", 8);
	rc = map_at(c, e->ioas, MOCK_FIRST, addr(v), 2 * PAGE);
	dup2(e->stay[0], STDIN_FILENO);
	close(e->stay[1]);
	if (write(e->tell[1], &rc, sizeof(rc)) == sizeof(rc) && !rc)
		execlp("cat", "cat", NULL);
	_exit(1);
}

static void mapper_that_execed(struct ctx *c)
{
	struct execing e = {.ioas = ioas_new(c)};
	struct mock m;
	char b[8] = {0};
	long rc = -1;
	pid_t pid;
	int access;

	need_fd(c);
	mock_add(c, e.ioas, &m);
	access = accfd_open(c, e.ioas, false);
	if (pipe2(e.tell, O_CLOEXEC) || pipe2(e.stay, O_CLOEXEC) || (pid = fork()) < 0)
		give_up("pipe or fork: %s", strerror(errno));
	if (!pid)
		map_and_exec(c, &e);
	close(e.tell[1]);
	if (read(e.tell[0], &rc, sizeof(rc)) != sizeof(rc))
		give_up("the mapper has died");
	CHECK_RC(rc, 0);
	CHECK_EQ(read(e.tell[0], &rc, sizeof(rc)), 0); /* exec has closed it */
	rc = accfd_rw(c, access, 0, MOCK_FIRST + PAGE - 4, b, 8);
	close(e.stay[1]);
	waitpid(pid, NULL, 0);
	if (rc == -EFAULT)
		skip("true-pins", "private memory goes with the program");
	CHECK_RC(rc, 0);
	CHECK_RC(memcmp(b, "old data", 8), 0);
}

static void second_domain_uses_old_pages(struct ctx *c)
{
	uint32_t ioas = ioas_new(c), dst = ioas_new(c);
	struct mock m, n;
	char *v = memory(2), b[8];
	uint64_t iova = MOCK_FIRST;
	int access;

	need_true_pins();
	mock_add(c, ioas, &m);
	access = accfd_open(c, dst, false);
	memcpy(v + PAGE - 4, "old data", 8);
	CHECK_RC(map_at(c, ioas, MOCK_FIRST, addr(v), 2 * PAGE), 0);
	CHECK_RC(copy(c, dst, ioas, FIXED | RW, MOCK_FIRST, 2 * PAGE, &iova), 0);
	if (mmap(v, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) != v)
		give_up("remap");
	mock_add(c, dst, &n);
	CHECK_RC(accfd_rw(c, access, TEST_RW_SLOW, MOCK_FIRST + PAGE - 4, b, 8), 0);
	if (memcmp(b, "old data", 8))
		skip("true-pins", "memory that its process replaces is seen at once");
	CHECK_RC(mock_check(&n, MOCK_FIRST, v, PAGE), -EINVAL);
}

/* One UNMAP over many pinned areas (quirk Q1 where they touch). */
static void many_pinned(struct ctx *c, uint64_t stride, long want_adjacent)
{
	uint32_t ioas = ioas_new(c);
	int access = accfd_open(c, ioas, true);
	char *v = memory(150);
	uint64_t i, removed = 0;
	long rc;

	for (i = 0; i < 150; i++) {
		CHECK_RC(map_at(c, ioas, B + i * stride, addr(v) + i * PAGE, PAGE), 0);
		CHECK_RC(accfd_pin(c, access, true, B + i * stride, PAGE, NULL), 0);
	}
	rc = unmap(c, ioas, B, 150 * stride, &removed);
	if (rc == -EDEADLK && want_adjacent) {
		/* The kernel counts rounds over adjacent areas; the hundredth stays and is blocked. */
		uint64_t at = B + 100 * stride, iova;
		char b[4];

		CHECK_RC(accfd_pin(c, access, true, at, PAGE, NULL), -EINVAL);
		CHECK_RC(accfd_rw(c, access, 0, at, b, 4), -EINVAL);
		CHECK_RC(copy(c, ioas, ioas, RW, at, PAGE, &iova), 0);
		unmap_expect(c, ioas, at, PAGE, PAGE);
		return;
	}
	CHECK_RC(rc, 0);
	CHECK_EQ(removed, 150 * PAGE);
	CHECK_RC(check_refs(c, v, 150 * PAGE, 0), 0);
}

static void adjacent_pinned(struct ctx *c)
{
	many_pinned(c, PAGE, -EDEADLK);
}

static void spaced_pinned(struct ctx *c)
{
	many_pinned(c, 2 * PAGE, 0);
}

static void byte_past_the_end(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	int access = accfd_open(c, ioas, false), fd = memfd(PAGE + 100);
	uint64_t iova = B;
	char b[4];

	CHECK_RC(map_file(c, ioas, FIXED | RW, fd, 0, 2 * PAGE, &iova), 0);
	CHECK_RC(accfd_rw(c, access, 0, B + PAGE, b, 1), -EINVAL);
	CHECK_RC(accfd_rw(c, access, 0, B + PAGE - 1, b, 1), 0);
}

static void lazy_files(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	int access = accfd_open(c, ioas, true), fd = memfd(2 * PAGE);
	uint64_t iova = B;
	char b[4] = "abc";

	CHECK_RC(map_file(c, ioas, FIXED | RW, fd, 0, 2 * PAGE, &iova), 0);
	CHECK_RC(accfd_rw(c, access, TEST_RW_WRITE, B + PAGE - 1, b, 4), 0);
	memset(b, 0, 4);
	CHECK_EQ(pread(fd, b, 4, PAGE - 1), 4);
	CHECK_RC(memcmp(b, "abc", 4), 0);
	CHECK_RC(accfd_pin(c, access, true, B, 2 * PAGE, NULL), 0);
	iova = B + 4 * PAGE;
	CHECK_RC(map_file(c, ioas, FIXED | RW, fd, 2 * PAGE, PAGE, &iova), 0);
	CHECK_RC(accfd_pin(c, access, true, B + 4 * PAGE, PAGE, NULL), -EINVAL);
}

static void alignment_follows(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	struct mock m;
	int access;

	need_test_abi(c);
	CHECK_EQ(ioas_align(c, ioas), 1);
	mock_add(c, ioas, &m);
	CHECK_EQ(ioas_align(c, ioas), MOCK_PAGE);
	access = accfd_open(c, ioas, true);
	CHECK_EQ(ioas_align(c, ioas), PAGE);
	mock_remove(&m);
	CHECK_EQ(ioas_align(c, ioas), PAGE);
	close(access);
	CHECK_EQ(ioas_align(c, ioas), 1);
}

/*
 * Rows 141 (the 65537th access of an IOAS) and 142 (a callback that never unpins) need a driver that
 * misbehaves: tests/core/test_access.c has them.
 */
static const struct row rows[] = {
	{"9.3-4", "an access keeps itself and its IOAS", keeps_the_ioas, NULL},
	{"3.2", "the alignment follows what is attached", alignment_follows, NULL},
	{"9.78", "unaligned COPY under a pinning access", copy_under_a_pin_access, NULL},
	{"9.79", "accesses on an unaligned area", unaligned_areas, NULL},
	{"9.102-103", "pin and write across a loss of permission", permission_seam, NULL},
	{"9.104", "write into a hole", write_into_a_hole, NULL},
	{"9.105", "arguments of pin", pin_arguments, NULL},
	{"9.106-107", "UNMAP calls back", unmap_calls_back, NULL},
	{"9.108", "pins survive a replace by the same IOAS", pin_twice, NULL},
	{"9.109-110", "replace", replace, NULL},
	{"9.111", "an access outlives the descriptor", access_outlives_the_fd, NULL},
	{"9.112", "memory that went", memory_that_went, NULL},
	{"9.113", "a second domain uses the pinned pages", second_domain_uses_old_pages, NULL},
	{"9.114", "W map of read-only memory", write_intent_on_read_only, NULL},
	{"9.115", "mapper dead, nothing pinned", dead_mapper, NULL},
	{"9.116", "mapper execed, pages in a domain", mapper_that_execed, NULL},
	{"9.117-118", "UNMAP of 150 adjacent pinned areas", adjacent_pinned, NULL},
	{"9.119", "UNMAP of 150 spaced pinned areas", spaced_pinned, NULL},
	{"9.122-rw", "transfers beyond the last whole page of a file", byte_past_the_end, NULL},
	{"6.6-file", "transfers and pins of a lazily mapped file", lazy_files, NULL},
};
ROWS(rows_access, rows);
