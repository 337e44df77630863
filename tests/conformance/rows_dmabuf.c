// SPDX-License-Identifier: MIT
/*
 * dma-bufs of the test ABI: memory that belongs to a device. Page tables take it; accounting,
 * software accesses and CHANGE_PROCESS do not, and its exporter may revoke it at any time.
 */
#include <fcntl.h>

#include "suite.h"

#define B MOCK_FIRST

/* The number that the next file gets. */
static int lowest_free_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	close(fd);
	return fd;
}

static int dmabuf(struct ctx *c, uint32_t length)
{
	struct test_cmd cmd = {.op = TEST_OP_DMABUF_GET,
			       .dmabuf_get = {length, O_CLOEXEC | O_RDWR}};
	int next = lowest_free_fd();
	long rc;

	need_test_abi(c);
	rc = test_abi_call(c, &cmd);
	if (rc == -EOPNOTSUPP || rc == -ENOTTY || rc == -ENOSYS)
		skip("dma-buf", "DMABUF_GET is not known");
	if (rc < 0)
		give_up("DMABUF_GET: %s", strerror(-rc));
	/* Linux makes the file, but answers 0. */
	return !rc && c->fe->fd(c) >= 0 ? next : rc;
}

static long set_revoked(struct ctx *c, int fd, bool revoked)
{
	struct test_cmd cmd = {.op = TEST_OP_DMABUF_REVOKE, .dmabuf_revoke = {fd, revoked}};

	return test_abi_call(c, &cmd);
}

static long map_buf(struct ctx *c, uint32_t ioas, int fd, uint64_t start, uint64_t len,
		    uint64_t iova)
{
	return map_file(c, ioas, FIXED | RW, fd, start, len, &iova);
}

static void limits(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	int fd = dmabuf(c, 2 * PAGE);

	CHECK_RC(map_buf(c, ioas, fd, 0, 2 * PAGE + 1, B), -EINVAL);
	CHECK_RC(map_buf(c, ioas, fd, PAGE, PAGE + 1, B), -EINVAL);
	CHECK_RC(map_buf(c, ioas, fd, 2 * PAGE, 1, B), -EINVAL);
	CHECK_RC(map_buf(c, ioas, fd, 2 * PAGE, PAGE, B), -EINVAL);
	CHECK_RC(map_buf(c, ioas, fd, 0, 2 * PAGE, B), 0);
	CHECK_RC(map_buf(c, ioas, fd, PAGE, PAGE, B + 2 * PAGE), 0);
	unmap_expect(c, ioas, 0, MAX, 3 * PAGE);
}

static void revoked(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	int fd = dmabuf(c, 2 * PAGE);
	uint64_t iova = B + 4 * PAGE;
	struct mock m;

	CHECK_RC(map_buf(c, ioas, fd, 0, 2 * PAGE, B), 0);
	CHECK_RC(set_revoked(c, fd, true), 0);
	CHECK_RC(map_buf(c, ioas, fd, 0, PAGE, B + 8 * PAGE), -ENODEV);
	CHECK_RC(copy(c, ioas, ioas, FIXED | RW, B, 2 * PAGE, &iova), 0);
	CHECK_RC(mock_try(c, ioas, &m), 0);
	unmap_expect(c, ioas, B, 2 * PAGE, 2 * PAGE);
	unmap_expect(c, ioas, iova, 2 * PAGE, 2 * PAGE);
	CHECK_RC(set_revoked(c, fd, false), 0);
	CHECK_RC(map_buf(c, ioas, fd, 0, PAGE, B), 0);
}

static void not_memory_of_a_process(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	int fd = dmabuf(c, PAGE), access;
	char b[8] = {0};

	CHECK_RC(map_buf(c, ioas, fd, 0, PAGE, B), 0);
	access = accfd_open(c, ioas, true);
	CHECK_RC(accfd_pin(c, access, false, B, PAGE, NULL), -EINVAL);
	CHECK_RC(accfd_pin(c, access, true, B, PAGE, NULL), -EINVAL);
	CHECK_RC(accfd_rw(c, access, 0, B, b, 8), -EINVAL);
	CHECK_RC(accfd_rw(c, access, TEST_RW_WRITE, B, b, 8), -EINVAL);
	CHECK_RC(accfd_rw(c, access, TEST_RW_SLOW, B, b, 8), -EINVAL);
	CHECK_RC(change_process(c), -EINVAL);
	unmap_expect(c, ioas, 0, MAX, PAGE);
	CHECK_RC(change_process(c), 0);
}

static const struct row rows[] = {
	{"9.86", "MAP_FILE beyond the end of a dma-buf", limits, NULL},
	{"9.87", "a revoked dma-buf", revoked, NULL},
	{"9.88", "a dma-buf is not for pins, transfers, CHANGE_PROCESS", not_memory_of_a_process,
	 NULL},
};
ROWS(rows_dmabuf, rows);
