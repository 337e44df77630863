// SPDX-License-Identifier: MIT
/*
 * The ops of IOMMU_TEST_CMD, in this process: the rows of spec test-abi.md 10 and the order of checks of
 * its section 1.4, as far as the objects behind them exist. The same ops are exercised from
 * outside by the kernel's selftests (tools/conformance).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/iommufd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "core/selftest_abi.h"
#include <swiommu/swiommu.h>

#define PAGE 4096ull
#define BASE 0x1000000ull
#define RW (IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE)
#define FIXED IOMMU_IOAS_MAP_FIXED_IOVA

struct rig {
	struct swiommu_test_abi *abi;
	struct swiommu_files *files;
	struct mem_accounts *accounts;
	struct iommufd_ctx *ctx;
	struct swiommu_caller caller;
	uint32_t ioas, stdev, hwpt, idev;
	char *mem; /* 16 shared pages */
};

#define MEM_PAGES 16

static long do_ioctl(struct rig *r, unsigned int cmd, void *arg)
{
	return swiommu_ioctl(r->ctx, &r->caller, cmd, (uintptr_t)arg);
}

static long test_op(struct rig *r, struct iommu_test_cmd *cmd)
{
	cmd->size = sizeof(*cmd);
	return do_ioctl(r, IOMMU_TEST_CMD, cmd);
}

static struct iommufd_ctx *open_ctx(struct rig *r)
{
	struct swiommu_options opt = {.test_abi = r->abi, .accounts = r->accounts};
	struct iommufd_ctx *ctx;

	assert_int_equal(swiommu_open_with(&opt, &ctx), 0);
	return ctx;
}

static uint32_t new_ioas(struct rig *r)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};

	assert_int_equal(do_ioctl(r, IOMMU_IOAS_ALLOC, &cmd), 0);
	return cmd.out_ioas_id;
}

static long destroy(struct rig *r, uint32_t id)
{
	struct iommu_destroy cmd = {.size = sizeof(cmd), .id = id};

	return do_ioctl(r, IOMMU_DESTROY, &cmd);
}

static long add_device(struct rig *r, uint32_t pt, uint32_t *stdev, uint32_t *hwpt, uint32_t *idev)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_MOCK_DOMAIN, .id = pt};
	long rc = test_op(r, &cmd);

	if (rc)
		return rc;
	*stdev = cmd.mock_domain.out_stdev_id;
	if (hwpt)
		*hwpt = cmd.mock_domain.out_hwpt_id;
	if (idev)
		*idev = cmd.mock_domain.out_idev_id;
	return 0;
}

static long map_at(struct rig *r, uint32_t ioas, uint64_t iova, void *va, uint64_t len,
		   uint32_t flags)
{
	struct iommu_ioas_map cmd = {.size = sizeof(cmd),
				     .flags = flags | FIXED,
				     .ioas_id = ioas,
				     .user_va = (uintptr_t)va,
				     .length = len,
				     .iova = iova};

	return do_ioctl(r, IOMMU_IOAS_MAP, &cmd);
}

static long unmap(struct rig *r, uint32_t ioas, uint64_t iova, uint64_t len)
{
	struct iommu_ioas_unmap cmd = {
		.size = sizeof(cmd), .ioas_id = ioas, .iova = iova, .length = len};

	return do_ioctl(r, IOMMU_IOAS_UNMAP, &cmd);
}

static long check_map(struct rig *r, uint64_t iova, const void *va, uint64_t len)
{
	struct iommu_test_cmd cmd = {
		.op = IOMMU_TEST_OP_MD_CHECK_MAP,
		.id = r->hwpt,
		.check_map = {.iova = iova, .length = len, .uptr = (uintptr_t)va}};

	return test_op(r, &cmd);
}

static long check_refs(struct rig *r, const void *va, uint64_t len, uint32_t refs)
{
	struct iommu_test_cmd cmd = {
		.op = IOMMU_TEST_OP_MD_CHECK_REFS,
		.check_refs = {.length = len, .uptr = (uintptr_t)va, .refs = refs}};

	return test_op(r, &cmd);
}

static long access_open(struct rig *r, uint32_t ioas, bool pins, int *fd)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_CREATE_ACCESS,
				     .id = ioas,
				     .create_access.flags =
					     pins ? MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES : 0};
	long rc = test_op(r, &cmd);

	if (!rc)
		*fd = cmd.create_access.out_access_fd;
	return rc;
}

static long pin(struct rig *r, int fd, uint64_t iova, uint64_t len, const void *va, uint32_t *item)
{
	struct iommu_test_cmd cmd = {
		.op = IOMMU_TEST_OP_ACCESS_PAGES,
		.id = fd,
		.access_pages = {.iova = iova, .length = len, .uptr = (uintptr_t)va}};
	long rc = test_op(r, &cmd);

	if (!rc)
		*item = cmd.access_pages.out_access_pages_id;
	return rc;
}

static long unpin(struct rig *r, int fd, uint32_t item)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_DESTROY_ACCESS_PAGES,
				     .id = fd,
				     .destroy_access_pages.access_pages_id = item};

	return test_op(r, &cmd);
}

static long rw(struct rig *r, int fd, uint64_t iova, void *buf, uint64_t len, uint32_t flags)
{
	struct iommu_test_cmd cmd = {
		.op = IOMMU_TEST_OP_ACCESS_RW,
		.id = fd,
		.access_rw = {.iova = iova, .length = len, .uptr = (uintptr_t)buf, .flags = flags}};

	return test_op(r, &cmd);
}

static long move_access(struct rig *r, int fd, uint32_t ioas)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_ACCESS_REPLACE_IOAS,
				     .id = fd,
				     .access_replace_ioas.ioas_id = ioas};

	return test_op(r, &cmd);
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	assert_int_equal(swiommu_test_abi_create(&r->abi), 0);
	assert_int_equal(swiommu_files_create(&r->files), 0);
	assert_int_equal(swiommu_accounts_create(&r->accounts), 0);
	swiommu_caller_local(&r->caller);
	r->caller.files = r->files;
	r->ctx = open_ctx(r);
	r->mem = mmap(NULL, MEM_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	assert_ptr_not_equal(r->mem, MAP_FAILED);
	r->ioas = new_ioas(r);
	assert_int_equal(add_device(r, r->ioas, &r->stdev, &r->hwpt, &r->idev), 0);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	swiommu_close(r->ctx);
	swiommu_files_destroy(r->files);
	r->ctx = NULL;
	swiommu_test_abi_destroy(r->abi);
	swiommu_accounts_put(r->accounts);
	munmap(r->mem, MEM_PAGES * PAGE);
	free(r);
	return 0;
}

/* ---- the ioctl itself ------------------------------------------------------------------------------ */

static void only_with_the_option(void **state)
{
	struct rig *r = *state;
	struct iommu_test_cmd cmd = {.size = sizeof(cmd), .op = IOMMU_TEST_OP_MD_CHECK_REFS};
	struct iommufd_ctx *plain;

	assert_int_equal(swiommu_open(NULL, &plain), 0);
	/* Beyond the table: not even the pointer is looked at. */
	assert_int_equal(swiommu_ioctl(plain, &r->caller, IOMMU_TEST_CMD, 0), -ENOTTY);
	assert_int_equal(swiommu_ioctl(plain, &r->caller, IOMMU_TEST_CMD - 1, 0), -ENOTTY);
	assert_int_equal(do_ioctl(r, IOMMU_TEST_CMD, NULL), -EFAULT);
	/* Inside it now, though there is nothing. */
	assert_int_equal(do_ioctl(r, IOMMU_TEST_CMD - 1, NULL), -EFAULT);
	assert_int_equal(do_ioctl(r, IOMMU_TEST_CMD - 1, &cmd), -ENOTTY);
	swiommu_close(plain);
}

static void sizes_and_ops(void **state)
{
	struct rig *r = *state;
	struct {
		struct iommu_test_cmd cmd;
		char tail[8];
	} a = {.cmd = {.size = 67, .op = IOMMU_TEST_OP_MD_CHECK_REFS}};

	assert_int_equal(do_ioctl(r, IOMMU_TEST_CMD, &a), -EINVAL);
	for (unsigned int size = 68; size <= 80; size++) {
		a.cmd.size = size;
		assert_int_equal(do_ioctl(r, IOMMU_TEST_CMD, &a), 0);
	}
	a.tail[7] = 1;
	assert_int_equal(do_ioctl(r, IOMMU_TEST_CMD, &a), -E2BIG);
	a.cmd.op = 0;
	assert_int_equal(test_op(r, &a.cmd), -EOPNOTSUPP);
	a.cmd.op = 24;
	assert_int_equal(test_op(r, &a.cmd), -EOPNOTSUPP);
}

/* ---- reserved ranges ------------------------------------------------------------------------------- */

static long reserve(struct rig *r, uint32_t id, uint64_t start, uint64_t length)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_ADD_RESERVED,
				     .id = id,
				     .add_reserved = {.start = start, .length = length}};

	return test_op(r, &cmd);
}

static void reserved_ranges(void **state)
{
	struct rig *r = *state;

	assert_int_equal(reserve(r, 999, 0, 0), -EINVAL);
	assert_int_equal(reserve(r, 999, UINT64_MAX, 2), -EOVERFLOW);
	assert_int_equal(reserve(r, 999, 0, PAGE), -ENOENT);
	assert_int_equal(reserve(r, r->stdev, 0, PAGE), -ENOENT);
	assert_int_equal(map_at(r, r->ioas, BASE + PAGE, r->mem, PAGE, RW), 0);
	assert_int_equal(reserve(r, r->ioas, BASE, PAGE + 1), -EADDRINUSE);
	assert_int_equal(reserve(r, r->ioas, BASE, PAGE), 0);
	assert_int_equal(reserve(r, r->ioas, BASE, PAGE), 0);
	assert_int_equal(map_at(r, r->ioas, BASE, r->mem, PAGE, RW), -EINVAL);
	/* It stays when the device, whose reservations go, has gone. */
	assert_int_equal(destroy(r, r->stdev), 0);
	assert_int_equal(map_at(r, r->ioas, BASE, r->mem, PAGE, RW), -EINVAL);
	assert_int_equal(map_at(r, r->ioas, 0, r->mem, PAGE, RW), 0);
}

/* ---- mock devices ---------------------------------------------------------------------------------- */

static void device_ids(void **state)
{
	struct rig *r = *state;
	uint32_t stdev = 0, hwpt = 0, idev = 0;

	/* IOAS 1, then in this order. */
	assert_int_equal(r->stdev, 2);
	assert_int_equal(r->idev, 3);
	assert_int_equal(r->hwpt, 4);
	assert_int_equal(add_device(r, r->ioas, &stdev, &hwpt, &idev), 0);
	assert_int_equal(hwpt, r->hwpt);
	assert_int_equal(idev, stdev + 1);
	assert_int_equal(destroy(r, r->idev), -EBUSY);
	assert_int_equal(destroy(r, r->ioas), -EBUSY);
	assert_int_equal(destroy(r, r->stdev), 0);
	assert_int_equal(destroy(r, r->idev), -ENOENT);
	assert_int_equal(destroy(r, r->hwpt), -EBUSY);
	assert_int_equal(destroy(r, stdev), 0);
	/* The automatic one went with its last device. */
	assert_int_equal(destroy(r, r->hwpt), -ENOENT);
	assert_int_equal(destroy(r, r->ioas), 0);
	assert_int_equal(new_ioas(r), 1);
}

static void device_errors(void **state)
{
	struct rig *r = *state;
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS,
				     .id = r->ioas,
				     .mock_domain.dev_flags = 1 << 1};
	uint32_t low, stdev;

	assert_int_equal(test_op(r, &cmd), -EINVAL);
	assert_int_equal(add_device(r, 999, &stdev, NULL, NULL), -ENOENT);
	assert_int_equal(add_device(r, r->stdev, &stdev, NULL, NULL), -EINVAL);
	assert_int_equal(add_device(r, r->idev, &stdev, NULL, NULL), -EINVAL);
	/* An area that lies outside the aperture, and one that is too finely aligned. */
	low = new_ioas(r);
	assert_int_equal(map_at(r, low, 0x800, r->mem, PAGE, RW), 0);
	assert_int_equal(add_device(r, low, &stdev, NULL, NULL), -EADDRINUSE);
	assert_int_equal(unmap(r, low, 0, UINT64_MAX), 0);
	assert_int_equal(map_at(r, low, BASE + 1, r->mem, PAGE, RW), 0);
	assert_int_equal(add_device(r, low, &stdev, NULL, NULL), -EADDRINUSE);
	assert_int_equal(unmap(r, low, 0, UINT64_MAX), 0);
	/* Memory that is not there, which nobody had to know until now. */
	assert_int_equal(map_at(r, low, BASE, (void *)PAGE, PAGE, RW), 0);
	assert_int_equal(add_device(r, low, &stdev, NULL, NULL), -EFAULT);
	/* Nothing of all that is left: the next ID is the lowest again. */
	assert_int_equal(new_ioas(r), low + 1);
}

static void device_flags(void **state)
{
	struct rig *r = *state;
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS,
				     .id = r->ioas,
				     .mock_domain.dev_flags =
					     MOCK_FLAGS_DEVICE_NO_DIRTY | MOCK_FLAGS_DEVICE_PASID};

	assert_int_equal(test_op(r, &cmd), 0);
	assert_int_equal(cmd.mock_domain.out_hwpt_id, r->hwpt);
	/* The plain op does not look at the field. */
	cmd.op = IOMMU_TEST_OP_MOCK_DOMAIN;
	cmd.mock_domain.dev_flags = ~0u;
	assert_int_equal(test_op(r, &cmd), 0);
}

static void device_bad_pointer_undoes(void **state)
{
	struct rig *r = *state;
	long size = sysconf(_SC_PAGESIZE);
	struct iommu_test_cmd *cmd =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t next = r->hwpt + 1;

	*cmd = (struct iommu_test_cmd){
		.size = sizeof(*cmd), .op = IOMMU_TEST_OP_MOCK_DOMAIN, .id = r->ioas};
	mprotect(cmd, size, PROT_READ);
	assert_int_equal(do_ioctl(r, IOMMU_TEST_CMD, cmd), -EFAULT);
	assert_int_equal(new_ioas(r), next);
	mprotect(cmd, size, PROT_READ | PROT_WRITE);
	*cmd = (struct iommu_test_cmd){
		.size = sizeof(*cmd), .op = IOMMU_TEST_OP_CREATE_ACCESS, .id = r->ioas};
	mprotect(cmd, size, PROT_READ);
	assert_int_equal(do_ioctl(r, IOMMU_TEST_CMD, cmd), -EFAULT);
	assert_int_equal(new_ioas(r), next + 1);
	munmap(cmd, size);
}

static void device_replace(void **state)
{
	struct rig *r = *state;
	uint32_t other = new_ioas(r);
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE,
				     .id = r->stdev,
				     .mock_domain_replace.pt_id = other};

	assert_int_equal(test_op(r, &cmd), 0);
	assert_int_not_equal(cmd.mock_domain_replace.pt_id, r->hwpt);
	assert_int_equal(destroy(r, r->hwpt), -ENOENT);
	assert_int_equal(destroy(r, r->ioas), 0);
	assert_int_equal(destroy(r, other), -EBUSY);
	cmd.mock_domain_replace.pt_id = 999;
	assert_int_equal(test_op(r, &cmd), -ENOENT);
	cmd.id = r->idev;
	assert_int_equal(test_op(r, &cmd), -ENOENT);
}

/* ---- what is mapped and pinned --------------------------------------------------------------------- */

static void check_map_rows(void **state)
{
	struct rig *r = *state;

	assert_int_equal(map_at(r, r->ioas, BASE, r->mem, 2 * PAGE, RW), 0);
	assert_int_equal(check_map(r, BASE, r->mem, 2 * PAGE), 0);
	assert_int_equal(check_map(r, BASE + 0x800, r->mem + 2048, 2048), 0);
	assert_int_equal(check_map(r, BASE + 0x800, r->mem, 2048), -EINVAL);
	assert_int_equal(check_map(r, BASE, r->mem + PAGE, PAGE), -EINVAL);
	assert_int_equal(check_map(r, BASE + 2 * PAGE, r->mem, PAGE), -EINVAL);
	assert_int_equal(check_map(r, BASE + 0x400, r->mem, 2048), -EINVAL);
	assert_int_equal(check_map(r, BASE, r->mem, 100), -EINVAL);
	assert_int_equal(check_map(r, BASE, NULL, PAGE), -EFAULT);
	assert_int_equal(check_map(r, BASE, r->mem, 0), 0);
	r->hwpt = r->ioas;
	assert_int_equal(check_map(r, BASE, r->mem, PAGE), -ENOENT);
}

static void check_refs_rows(void **state)
{
	struct rig *r = *state;
	struct iommufd_ctx *first = r->ctx;

	assert_int_equal(check_refs(r, r->mem, MEM_PAGES * PAGE, 0), 0);
	assert_int_equal(map_at(r, r->ioas, BASE, r->mem, 2 * PAGE, RW), 0);
	assert_int_equal(check_refs(r, r->mem, 2 * PAGE, 1), 0);
	assert_int_equal(check_refs(r, r->mem, 2 * PAGE, 2), -EIO);
	/* The same pages once more are another array of pages. */
	assert_int_equal(map_at(r, r->ioas, BASE + 16 * PAGE, r->mem, 2 * PAGE, RW), 0);
	assert_int_equal(check_refs(r, r->mem, 2 * PAGE, 2), 0);
	assert_int_equal(check_refs(r, r->mem, 2 * PAGE, 1), -EIO);
	assert_int_equal(check_refs(r, r->mem + 2 * PAGE, PAGE, 0), 0);
	assert_int_equal(check_refs(r, r->mem, 3 * PAGE, 2), -EIO);
	assert_int_equal(check_refs(r, r->mem + 1, PAGE, 2), -EINVAL);
	assert_int_equal(check_refs(r, r->mem, PAGE + 1, 2), -EINVAL);
	assert_int_equal(check_refs(r, NULL, PAGE, 0), -EFAULT);
	/* Any context can ask. */
	r->ctx = open_ctx(r);
	assert_int_equal(check_refs(r, r->mem, 2 * PAGE, 2), 0);
	swiommu_close(first);
	assert_int_equal(check_refs(r, r->mem, 2 * PAGE, 0), 0);
}

static void aliases_are_the_same_page(void **state)
{
	struct rig *r = *state;
	int fd = memfd_create("alias", MFD_CLOEXEC);
	char *a, *b, buf[PAGE + 8], *page = buf;
	struct iommu_ioas_map_file file = {.size = sizeof(file),
					   .flags = RW | FIXED,
					   .ioas_id = r->ioas,
					   .fd = fd,
					   .start = PAGE,
					   .length = PAGE,
					   .iova = BASE + 16 * PAGE};
	int plain = -1;

	assert_int_equal(ftruncate(fd, 4 * PAGE), 0);
	a = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	b = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	memset(b, 'b', 4 * PAGE);
	assert_int_equal(access_open(r, r->ioas, false, &plain), 0);
	assert_int_equal(map_at(r, r->ioas, BASE, a, 4 * PAGE, RW), 0);
	assert_int_equal(check_map(r, BASE, b, 4 * PAGE), 0);
	assert_int_equal(check_refs(r, b, 4 * PAGE, 1), 0);
	munmap(a, 4 * PAGE);
	assert_int_equal(check_map(r, BASE, b, 4 * PAGE), 0);
	assert_int_equal(check_refs(r, b, 4 * PAGE, 1), 0);
	/* The address means nothing any more; several pages are read where they are pinned. */
	assert_int_equal(rw(r, plain, BASE, page, 8, 0), -EFAULT);
	assert_int_equal(rw(r, plain, BASE, page, 8, MOCK_ACCESS_RW_SLOW_PATH), -EFAULT);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(rw(r, plain, BASE + 4, page, PAGE, MOCK_ACCESS_RW_SLOW_PATH), 0);
	assert_int_equal(page[0], 'b');
	assert_int_equal(page[PAGE - 1], 'b');
	/* And the file itself, for one page of it. */
	assert_int_equal(do_ioctl(r, IOMMU_IOAS_MAP_FILE, &file), 0);
	assert_int_equal(check_refs(r, b + PAGE, PAGE, 2), 0);
	assert_int_equal(check_refs(r, b, PAGE, 1), 0);
	assert_int_equal(check_map(r, BASE + 16 * PAGE, b + PAGE, PAGE), 0);
	munmap(b, 4 * PAGE);
	close(fd);
	close(plain);
}

/* ---- accesses -------------------------------------------------------------------------------------- */

static void access_is_a_file(void **state)
{
	struct rig *r = *state;
	struct iommu_test_cmd cmd = {
		.op = IOMMU_TEST_OP_CREATE_ACCESS, .id = r->ioas, .create_access.flags = 2};
	int fd = -1, copy;
	uint32_t item = 0;
	char c;

	assert_int_equal(test_op(r, &cmd), -EOPNOTSUPP);
	assert_int_equal(access_open(r, 999, true, &fd), -ENOENT);
	assert_int_equal(access_open(r, r->ioas, true, &fd), 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(lseek(fd, 0, SEEK_SET), -1);
	assert_int_equal(map_at(r, r->ioas, BASE, r->mem, PAGE, RW), 0);
	/* A duplicate is the same access, and keeps it. */
	copy = dup(fd);
	assert_int_equal(pin(r, copy, BASE, PAGE, r->mem, &item), 0);
	close(fd);
	assert_int_equal(unpin(r, copy, item), 0);
	assert_int_equal(destroy(r, r->stdev), 0);
	assert_int_equal(destroy(r, r->ioas), -EBUSY);
	close(copy);
	/* The last close is seen by the next call. */
	assert_int_equal(destroy(r, r->ioas), 0);
	assert_int_equal(rw(r, copy, BASE, &c, 1, 0), -EBADFD);
	assert_int_equal(rw(r, 777, BASE, &c, 1, 0), -EBADFD);
	assert_int_equal(rw(r, STDERR_FILENO, BASE, &c, 1, 0), -EBADFD);
}

static void access_outlives_the_context(void **state)
{
	struct rig *r = *state;
	uint32_t item = 0;
	int fd = -1;

	assert_int_equal(map_at(r, r->ioas, BASE, r->mem, PAGE, RW), 0);
	assert_int_equal(access_open(r, r->ioas, true, &fd), 0);
	assert_int_equal(pin(r, fd, BASE, PAGE, r->mem, &item), 0);
	swiommu_close(r->ctx);
	r->ctx = open_ctx(r);
	assert_int_equal(check_refs(r, r->mem, PAGE, 1), 0);
	close(fd);
	assert_int_equal(check_refs(r, r->mem, PAGE, 0), 0);
}

static void access_alignment(void **state)
{
	struct rig *r = *state;
	uint32_t odd = new_ioas(r);
	int p = -1, w = -1, fd = -1;

	assert_int_equal(map_at(r, odd, 0x800, r->mem, PAGE, RW), 0);
	assert_int_equal(access_open(r, odd, true, &fd), -EADDRINUSE);
	assert_int_equal(access_open(r, odd, false, &w), 0);
	assert_int_equal(access_open(r, r->ioas, true, &p), 0);
	assert_int_equal(move_access(r, p, odd), -EADDRINUSE);
	assert_int_equal(move_access(r, p, 999), -ENOENT);
	assert_int_equal(move_access(r, p, r->ioas), 0);
	assert_int_equal(move_access(r, 777, r->ioas), -EBADFD);
	close(p);
	close(w);
}

static void pin_rows(void **state)
{
	struct rig *r = *state;
	uint32_t a = 0, b = 0, none = new_ioas(r);
	int p = -1, w = -1;

	assert_int_equal(map_at(r, r->ioas, BASE, r->mem, 4 * PAGE, RW), 0);
	assert_int_equal(access_open(r, r->ioas, true, &p), 0);
	assert_int_equal(access_open(r, r->ioas, false, &w), 0);
	assert_int_equal(pin(r, w, BASE, PAGE, NULL, &a), -EOPNOTSUPP);
	assert_int_equal(pin(r, 777, BASE, (16 << 20) + 1, NULL, &a), -ENOMEM);
	assert_int_equal(pin(r, p, BASE, PAGE, r->mem, &a), 0);
	assert_int_equal(a, 0);
	assert_int_equal(pin(r, p, BASE, PAGE, r->mem, &b), 0);
	assert_int_equal(b, 1);
	assert_int_equal(check_refs(r, r->mem, PAGE, 1), 0);
	assert_int_equal(pin(r, p, BASE, PAGE, r->mem + PAGE, &b), -EBADE);
	assert_int_equal(pin(r, p, BASE, PAGE, (void *)PAGE, &b), -EFAULT);
	assert_int_equal(pin(r, p, BASE, 8 * PAGE, NULL, &b), -ENOENT);
	assert_int_equal(pin(r, p, BASE + 2048, PAGE, NULL, &b), -EINVAL);
	assert_int_equal(pin(r, p, BASE, 0, NULL, &b), -EINVAL);
	assert_int_equal(pin(r, p, UINT64_MAX - 1, PAGE, NULL, &b), -EOVERFLOW);
	assert_int_equal(pin(r, p, BASE, 100, r->mem, &b), 0);
	/* Failures do not use up numbers. */
	assert_int_equal(b, 2);
	assert_int_equal(unpin(r, p, 3), -ENOENT);
	assert_int_equal(unpin(r, w, 0), -ENOENT);
	assert_int_equal(unpin(r, p, 0), 0);
	assert_int_equal(unpin(r, p, 0), -ENOENT);
	/* Items stay when the device goes, and the pages with them. */
	assert_int_equal(destroy(r, r->stdev), 0);
	assert_int_equal(check_refs(r, r->mem, PAGE, 1), 0);
	assert_int_equal(check_refs(r, r->mem + PAGE, 3 * PAGE, 0), 0);
	/* Unmapping drops what it meets. */
	assert_int_equal(unmap(r, r->ioas, BASE, 4 * PAGE), 0);
	assert_int_equal(check_refs(r, r->mem, PAGE, 0), 0);
	assert_int_equal(unpin(r, p, 1), -ENOENT);
	assert_int_equal(unpin(r, p, 2), -ENOENT);
	assert_int_equal(map_at(r, r->ioas, BASE, r->mem, PAGE, RW), 0);
	assert_int_equal(pin(r, p, BASE, PAGE, r->mem, &b), 0);
	assert_int_equal(b, 3);
	/* So does moving. */
	assert_int_equal(move_access(r, p, none), 0);
	assert_int_equal(check_refs(r, r->mem, PAGE, 0), 0);
	assert_int_equal(unpin(r, p, 3), -ENOENT);
	assert_int_equal(pin(r, p, BASE, PAGE, NULL, &b), -ENOENT);
	close(p);
	close(w);
}

static void rw_rows(void **state)
{
	struct rig *r = *state;
	char buf[64], *big = calloc(1, 2 * PAGE);
	int w = -1;

	assert_int_equal(map_at(r, r->ioas, BASE, r->mem, 2 * PAGE, RW), 0);
	assert_int_equal(
		map_at(r, r->ioas, BASE + 8 * PAGE, r->mem, PAGE, IOMMU_IOAS_MAP_WRITEABLE), 0);
	assert_int_equal(access_open(r, r->ioas, false, &w), 0);
	assert_int_equal(rw(r, 777, BASE, buf, (16 << 20) + 1, 0), -ENOMEM);
	assert_int_equal(rw(r, 777, BASE, buf, 8, 1 << 1), -EOPNOTSUPP);
	assert_int_equal(rw(r, w, BASE, NULL, 8, MOCK_ACCESS_RW_WRITE), -EFAULT);
	assert_int_equal(rw(r, w, BASE, buf, 0, 0), -EINVAL);
	assert_int_equal(rw(r, w, UINT64_MAX, buf, 8, 0), -EOVERFLOW);
	for (unsigned int slow = 0; slow <= MOCK_ACCESS_RW_SLOW_PATH;
	     slow += MOCK_ACCESS_RW_SLOW_PATH) {
		memcpy(buf, "across the pages' border", 24);
		assert_int_equal(rw(r, w, BASE + PAGE - 7, buf, 24, slow | MOCK_ACCESS_RW_WRITE),
				 0);
		assert_memory_equal(r->mem + PAGE - 7, "across the pages' border", 24);
		memcpy(r->mem + PAGE - 7, "and back", 8);
		assert_int_equal(rw(r, w, BASE + PAGE - 7, buf, 8, slow), 0);
		assert_memory_equal(buf, "and back", 8);
		assert_int_equal(rw(r, w, BASE + 8 * PAGE, buf, 8, slow), -EPERM);
		assert_int_equal(rw(r, w, BASE + 8 * PAGE, buf, 8, slow | MOCK_ACCESS_RW_WRITE), 0);
	}
	/* A read that runs into a hole brings nothing; a write has done what came before it. */
	memset(r->mem, 'm', 2 * PAGE);
	memset(big, 'o', 2 * PAGE);
	assert_int_equal(rw(r, w, BASE + PAGE, big, 2 * PAGE, 0), -ENOENT);
	assert_int_equal(big[0], 'o');
	assert_int_equal(rw(r, w, BASE + PAGE, big, 2 * PAGE, MOCK_ACCESS_RW_WRITE), -ENOENT);
	assert_int_equal(r->mem[PAGE], 'o');
	assert_int_equal(rw(r, w, BASE, NULL, 8, 0), -EFAULT);
	free(big);
	close(w);
}

static void nth_area(void **state)
{
	struct rig *r = *state;
	uint64_t second = (uint64_t)16 << 32 | 1, none = 2;
	struct iommu_ioas_copy copy = {.size = sizeof(copy),
				       .flags = RW | FIXED | MOCK_FLAGS_ACCESS_SYZ,
				       .dst_ioas_id = r->ioas,
				       .src_ioas_id = r->ioas,
				       .length = PAGE,
				       .dst_iova = BASE + 16 * PAGE};
	char buf[8];
	int w = -1;

	assert_int_equal(map_at(r, r->ioas, BASE, r->mem, PAGE, RW), 0);
	assert_int_equal(map_at(r, r->ioas, BASE + 8 * PAGE, r->mem + PAGE, PAGE, RW), 0);
	assert_int_equal(access_open(r, r->ioas, false, &w), 0);
	strcpy(r->mem + PAGE + 16, "second");
	assert_int_equal(rw(r, w, second, buf, 8, MOCK_FLAGS_ACCESS_SYZ), 0);
	assert_string_equal(buf, "second");
	assert_int_equal(rw(r, w, none, buf, 8, MOCK_FLAGS_ACCESS_SYZ), -ENOENT);
	copy.src_iova = 1;
	assert_int_equal(do_ioctl(r, IOMMU_IOAS_COPY, &copy), 0);
	assert_int_equal(check_map(r, BASE + 16 * PAGE, r->mem + PAGE, PAGE), 0);
	close(w);
}

/* How many failure points mapping all pages passes. */
static unsigned int points_of_map(struct rig *r)
{
	const unsigned int many = 100000;
	unsigned int left;

	swi_alloc_fail_nth(many);
	assert_int_equal(map_at(r, r->ioas, BASE, r->mem, MEM_PAGES * PAGE, RW), 0);
	left = swi_alloc_fail_nth(0);
	assert_int_equal(check_map(r, BASE, r->mem, MEM_PAGES * PAGE), 0);
	assert_int_equal(check_refs(r, r->mem, MEM_PAGES * PAGE, 1), 0);
	assert_int_equal(unmap(r, r->ioas, BASE, MEM_PAGES * PAGE), 0);
	return many - left;
}

static void memory_limit(void **state)
{
	struct rig *r = *state;
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT,
				     .memory_limit.limit = 11};
	unsigned int by_default = points_of_map(r);

	assert_int_equal(test_op(r, &cmd), -EINVAL);
	cmd.memory_limit.limit = 12;
	assert_int_equal(test_op(r, &cmd), 0);
	/* A page at a time: more chances to fail, the same result. */
	assert_in_range(points_of_map(r), by_default + MEM_PAGES - 1, by_default + 10 * MEM_PAGES);
	cmd.memory_limit.limit = 65536;
	assert_int_equal(test_op(r, &cmd), 0);
	assert_in_range(points_of_map(r), 1, by_default);
}

/* ---- what a device is ------------------------------------------------------------------------------ */

static long hw_info(struct rig *r, uint32_t dev, uint32_t type, uint32_t flags, void *buf,
		    uint32_t len, struct iommu_hw_info *out)
{
	*out = (struct iommu_hw_info){.size = sizeof(*out),
				      .flags = flags,
				      .dev_id = dev,
				      .data_len = len,
				      .data_uptr = (uintptr_t)buf,
				      .in_data_type = type};
	return do_ioctl(r, IOMMU_GET_HW_INFO, out);
}

static void hw_info_rows(void **state)
{
	struct rig *r = *state;
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS,
				     .id = r->ioas,
				     .mock_domain.dev_flags =
					     MOCK_FLAGS_DEVICE_NO_DIRTY | MOCK_FLAGS_DEVICE_PASID};
	const uint32_t expected[2] = {0, 0xdeadbeef};
	struct iommu_hw_info info;
	unsigned char buf[16];

	memset(buf, 0x5a, sizeof(buf));
	assert_int_equal(hw_info(r, r->idev, 77, 0, buf, 16, &info), 0);
	assert_memory_equal(buf, expected, 8);
	for (unsigned int i = 8; i < 16; i++)
		assert_int_equal(buf[i], 0);
	assert_int_equal(info.data_len, 8);
	assert_int_equal(info.out_data_type, 0xfeedbeef);
	assert_int_equal(info.out_capabilities, 9);
	assert_int_equal(info.out_max_pasid_log2, 0);
	memset(buf, 0x5a, sizeof(buf));
	assert_int_equal(
		hw_info(r, r->idev, 0xfeedbeef, IOMMU_HW_INFO_FLAG_INPUT_TYPE, buf, 5, &info), 0);
	assert_memory_equal(buf, expected, 5);
	assert_int_equal(buf[5], 0x5a);
	assert_int_equal(info.data_len, 8);
	assert_int_equal(hw_info(r, r->idev, 0, 0, NULL, 0, &info), 0);
	assert_int_equal(info.data_len, 8);
	assert_int_equal(hw_info(r, r->idev, 0, 0, NULL, 4, &info), -EFAULT);
	assert_int_equal(hw_info(r, r->idev, 77, IOMMU_HW_INFO_FLAG_INPUT_TYPE, buf, 8, &info),
			 -EOPNOTSUPP);
	assert_int_equal(hw_info(r, r->ioas, 77, IOMMU_HW_INFO_FLAG_INPUT_TYPE, buf, 8, &info),
			 -ENOENT);
	assert_int_equal(hw_info(r, 999, 0, 2, buf, 8, &info), -EOPNOTSUPP);
	assert_int_equal(test_op(r, &cmd), 0);
	assert_int_equal(hw_info(r, cmd.mock_domain.out_idev_id, 0, 0, NULL, 0, &info), 0);
	assert_int_equal(info.out_capabilities, 8);
	assert_int_equal(info.out_max_pasid_log2, 20);
}

static long check_cache(struct rig *r, uint32_t id, uint32_t which, uint32_t value)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_DEV_CHECK_CACHE,
				     .id = id,
				     .check_dev_cache = {.id = which, .cache = value}};

	return test_op(r, &cmd);
}

static void device_cache(void **state)
{
	struct rig *r = *state;

	assert_int_equal(check_cache(r, r->idev, 0, 0x00baddad), 0);
	assert_int_equal(check_cache(r, r->idev, 3, 0x00baddad), 0);
	assert_int_equal(check_cache(r, r->idev, 3, 0), -EINVAL);
	assert_int_equal(check_cache(r, r->idev, 4, 0x00baddad), -EINVAL);
	assert_int_equal(check_cache(r, r->stdev, 0, 0x00baddad), -ENOENT);
}

static long alloc_hwpt(struct rig *r, uint32_t dev, uint32_t pt, uint32_t flags, uint32_t *id)
{
	struct iommu_hwpt_alloc cmd = {
		.size = sizeof(cmd), .flags = flags, .dev_id = dev, .pt_id = pt};
	long rc = do_ioctl(r, IOMMU_HWPT_ALLOC, &cmd);

	if (!rc)
		*id = cmd.out_hwpt_id;
	return rc;
}

static long replace_pt(struct rig *r, uint32_t stdev, uint32_t pt)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE,
				     .id = stdev,
				     .mock_domain_replace.pt_id = pt};

	return test_op(r, &cmd);
}

static void manual_hwpts(void **state)
{
	struct rig *r = *state;
	struct iommu_hwpt_alloc cmd = {.size = sizeof(cmd), .dev_id = r->idev, .pt_id = r->ioas};
	uint32_t a = 0, b = 0, stdev = 0, hwpt = 0;

	cmd.__reserved = 1;
	assert_int_equal(do_ioctl(r, IOMMU_HWPT_ALLOC, &cmd), -EOPNOTSUPP);
	cmd.__reserved = 0;
	cmd.data_len = 4;
	assert_int_equal(do_ioctl(r, IOMMU_HWPT_ALLOC, &cmd), -EINVAL);
	assert_int_equal(alloc_hwpt(r, 999, 999, 0, &a), -ENOENT);
	assert_int_equal(alloc_hwpt(r, r->idev, 999, 0, &a), -EINVAL);
	assert_int_equal(alloc_hwpt(r, r->idev, r->stdev, 0, &a), -EINVAL);
	assert_int_equal(alloc_hwpt(r, r->idev, r->ioas, 1u << 31, &a), -EOPNOTSUPP);
	assert_int_equal(alloc_hwpt(r, r->idev, r->ioas, 0, &a), 0);
	assert_int_equal(alloc_hwpt(r, r->idev, r->ioas, IOMMU_HWPT_ALLOC_NEST_PARENT, &b), 0);
	/* A new device does not get them by itself, but can be put on one. */
	assert_int_equal(add_device(r, r->ioas, &stdev, &hwpt, NULL), 0);
	assert_int_equal(hwpt, r->hwpt);
	assert_int_equal(destroy(r, stdev), 0);
	assert_int_equal(add_device(r, a, &stdev, &hwpt, NULL), 0);
	assert_int_equal(hwpt, a);
	assert_int_equal(destroy(r, a), -EBUSY);
	assert_int_equal(replace_pt(r, stdev, b), 0);
	assert_int_equal(destroy(r, b), -EBUSY);
	/* It stays when its last device goes, and keeps the IOAS. */
	assert_int_equal(destroy(r, stdev), 0);
	assert_int_equal(destroy(r, r->stdev), 0);
	assert_int_equal(destroy(r, r->ioas), -EBUSY);
	assert_int_equal(destroy(r, a), 0);
	assert_int_equal(map_at(r, r->ioas, BASE, r->mem, PAGE, RW), 0);
	assert_int_equal(check_refs(r, r->mem, PAGE, 1), 0);
	r->hwpt = b;
	assert_int_equal(check_map(r, BASE, r->mem, PAGE), 0);
	assert_int_equal(destroy(r, b), 0);
	assert_int_equal(check_refs(r, r->mem, PAGE, 0), 0);
	assert_int_equal(destroy(r, r->ioas), 0);
}

/* ---- dma-bufs --------------------------------------------------------------------------------------- */

static long dmabuf(struct rig *r, uint32_t length)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_DMABUF_GET,
				     .dmabuf_get = {length, O_CLOEXEC | O_RDWR}};

	return test_op(r, &cmd);
}

static long revoke_buf(struct rig *r, int fd, uint32_t revoked)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_DMABUF_REVOKE,
				     .dmabuf_revoke = {fd, revoked}};

	return test_op(r, &cmd);
}

static long map_file(struct rig *r, int fd, uint64_t start, uint64_t length, uint64_t iova)
{
	struct iommu_ioas_map_file cmd = {.size = sizeof(cmd),
					  .flags = RW | FIXED,
					  .ioas_id = r->ioas,
					  .fd = fd,
					  .start = start,
					  .length = length,
					  .iova = iova};

	return do_ioctl(r, IOMMU_IOAS_MAP_FILE, &cmd);
}

static void dmabufs(void **state)
{
	struct rig *r = *state;
	uint32_t item = 0, hwpt = 0;
	int fd, p = -1, w = -1;
	char buf[8];

	assert_int_equal(dmabuf(r, 0), -EINVAL);
	assert_int_equal(dmabuf(r, (2 << 20) + 1), -EINVAL);
	assert_int_equal(dmabuf(r, UINT32_MAX), -EINVAL);
	fd = dmabuf(r, PAGE + 1);
	assert_in_range(fd, 0, 1000);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(map_file(r, fd, 0, 0, BASE), -EINVAL);
	assert_int_equal(map_file(r, fd, UINT64_MAX - 1, PAGE, BASE), -EOVERFLOW);
	assert_int_equal(map_file(r, fd, 0, 3 * PAGE, BASE), -EINVAL);
	assert_int_equal(map_file(r, fd, 2 * PAGE, 2048, BASE), -EINVAL);
	assert_int_equal(map_file(r, fd, 2048, 2048, BASE), 0);
	assert_int_equal(map_file(r, fd, 0, 2 * PAGE, BASE + PAGE), 0);
	assert_int_equal(access_open(r, r->ioas, false, &w), 0);
	assert_int_equal(rw(r, w, BASE, buf, 8, 0), -EINVAL);
	assert_int_equal(access_open(r, r->ioas, true, &p), -EADDRINUSE);
	assert_int_equal(unmap(r, r->ioas, BASE, 2048), 0);
	assert_int_equal(access_open(r, r->ioas, true, &p), 0);
	assert_int_equal(pin(r, p, BASE + PAGE, PAGE, NULL, &item), -EINVAL);
	assert_int_equal(revoke_buf(r, 777, 1), -EBADF);
	assert_int_equal(revoke_buf(r, p, 1), -EINVAL);
	assert_int_equal(revoke_buf(r, fd, 1), 0);
	assert_int_equal(map_file(r, fd, 0, PAGE, BASE + 8 * PAGE), -ENODEV);
	/* The mapping stays in the way, page tables pass over it. */
	assert_int_equal(map_at(r, r->ioas, BASE + PAGE, r->mem, PAGE, RW), -EEXIST);
	assert_int_equal(alloc_hwpt(r, r->idev, r->ioas, 0, &hwpt), 0);
	assert_int_equal(revoke_buf(r, fd, 0), 0);
	assert_int_equal(map_file(r, fd, 0, PAGE, BASE + 8 * PAGE), 0);
	/* It lives on in its mappings. */
	close(fd);
	assert_int_equal(unmap(r, r->ioas, BASE + PAGE, 2 * PAGE), 0);
	assert_int_equal(map_at(r, r->ioas, BASE + PAGE, r->mem, PAGE, RW), 0);
	assert_int_equal(unmap(r, r->ioas, 0, UINT64_MAX), 0);
	close(w);
	close(p);
}

/* ---- injected failures ----------------------------------------------------------------------------- */

/* What the sweep does: everything that the ops of this file do, once. Stops at the first error. */
static long everything(struct rig *r)
{
	uint32_t stdev = 0, item = 0;
	int p = -1, w = -1;
	char buf[2 * PAGE];
	long rc;

	rc = map_at(r, r->ioas, BASE, r->mem, 4 * PAGE, RW);
	if (!rc)
		rc = add_device(r, r->ioas, &stdev, &r->hwpt, NULL);
	if (!rc)
		rc = check_map(r, BASE, r->mem, 4 * PAGE);
	if (!rc)
		rc = access_open(r, r->ioas, true, &p);
	if (!rc)
		rc = access_open(r, r->ioas, false, &w);
	if (!rc)
		rc = pin(r, p, BASE, 2 * PAGE, r->mem, &item);
	if (!rc)
		rc = rw(r, w, BASE, buf, sizeof(buf), 0);
	if (!rc)
		rc = rw(r, w, BASE, buf, sizeof(buf),
			MOCK_ACCESS_RW_SLOW_PATH | MOCK_ACCESS_RW_WRITE);
	if (!rc)
		rc = unpin(r, p, item);
	if (!rc)
		rc = destroy(r, stdev);
	if (!rc)
		rc = unmap(r, r->ioas, BASE, 4 * PAGE);
	close(p);
	close(w);
	return rc;
}

/* After every single failure, all that is undone: nothing pinned, no ID taken, and it works again. */
static void nothing_is_left_by_failures(void **state)
{
	struct rig *r = *state;
	unsigned int n, injected = 0;
	uint32_t id;
	long rc;

	for (n = 1; n < 1000; n++) {
		swi_alloc_fail_nth(n);
		rc = everything(r);
		if (swi_alloc_fail_nth(0)) {
			assert_int_equal(rc, 0);
			break;
		}
		injected++;
		/* What was made by the calls before the failing one goes with the context. */
		swiommu_close(r->ctx);
		r->ctx = open_ctx(r);
		assert_int_equal(check_refs(r, r->mem, MEM_PAGES * PAGE, 0), 0);
		id = new_ioas(r);
		assert_int_equal(id, 1);
		r->ioas = id;
		rc = everything(r);
		if (rc)
			print_message("n %u: %s\n", n, r->caller.reason);
		assert_int_equal(rc, 0);
		assert_int_equal(new_ioas(r), 2);
		assert_int_equal(destroy(r, 2), 0);
	}
	assert_in_range(n, 2, 999);
	/* Copies, look-ups and allocations of twelve calls: fewer would mean that points do not fire. */
	assert_in_range(injected, 60, 999);
	print_message("%u failures injected\n", injected);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(only_with_the_option),
		T(sizes_and_ops),
		T(reserved_ranges),
		T(device_ids),
		T(device_errors),
		T(device_flags),
		T(device_bad_pointer_undoes),
		T(device_replace),
		T(check_map_rows),
		T(check_refs_rows),
		T(aliases_are_the_same_page),
		T(access_is_a_file),
		T(access_outlives_the_context),
		T(access_alignment),
		T(pin_rows),
		T(rw_rows),
		T(nth_area),
		T(memory_limit),
		T(hw_info_rows),
		T(device_cache),
		T(manual_hwpts),
		T(dmabufs),
		T(nothing_is_left_by_failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
