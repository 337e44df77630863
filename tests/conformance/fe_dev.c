// SPDX-License-Identifier: MIT
/* /dev/iommu by system calls. Mock devices come from IOMMU_TEST_CMD where there is one. */
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "suite.h"

struct dev_ctx {
	struct ctx base;
	int fd;
};

static int fd_of(struct ctx *c)
{
	return ((struct dev_ctx *)c)->fd;
}

static int dev_open(int flags, struct ctx **out)
{
	struct dev_ctx *dc = calloc(1, sizeof(*dc));

	if (!dc)
		return -ENOMEM;
	dc->base.fe = &fe_dev;
	dc->fd = open("/dev/iommu", flags | O_CLOEXEC);
	if (dc->fd < 0) {
		int rc = -errno;

		free(dc);
		return rc;
	}
	*out = &dc->base;
	return 0;
}

static void dev_close(struct ctx *c)
{
	close(fd_of(c));
	free(c);
}

static long dev_ioctl(struct ctx *c, unsigned int cmd, uint64_t arg)
{
	int rc = ioctl(fd_of(c), cmd, arg);

	return rc < 0 ? -errno : rc;
}

static int dev_mmap(struct ctx *c, size_t len, int prot, int flags, uint64_t offset, char **out)
{
	*out = mmap(NULL, len, prot, flags, fd_of(c), offset);
	return *out == MAP_FAILED ? -errno : 0;
}

static long dev_read(struct ctx *c, int fd, void *buf, size_t len)
{
	ssize_t n = read(fd, buf, len);

	(void)c;
	return n < 0 ? -errno : n;
}

static long dev_write(struct ctx *c, int fd, const void *buf, size_t len)
{
	ssize_t n = write(fd, buf, len);

	(void)c;
	return n < 0 ? -errno : n;
}

static int test_op(struct ctx *c, struct test_cmd *cmd)
{
	long rc;

	cmd->size = sizeof(*cmd);
	rc = dev_ioctl(c, IOMMU_TEST_CMD, (uintptr_t)cmd);
	return rc == -ENOTTY ? -ENOSYS : rc;
}

static int dev_mock_add(struct ctx *c, uint32_t pt_id, struct mock *m)
{
	struct test_cmd cmd = {.op = TEST_OP_MOCK_DOMAIN, .id = pt_id};
	int rc = test_op(c, &cmd);

	if (rc)
		return rc;
	*m = (struct mock){
		.c = c,
		.ioas = pt_id,
		.id = cmd.mock.stdev_id,
		.hwpt_id = cmd.mock.hwpt_id,
		.idev_id = cmd.mock.idev_id,
	};
	return 0;
}

static int dev_mock_remove(struct mock *m)
{
	return destroy(m->c, m->id);
}

static int dev_mock_check(struct mock *m, uint64_t iova, void *va, size_t len)
{
	struct test_cmd cmd = {
		.op = TEST_OP_MD_CHECK_MAP,
		.id = m->hwpt_id,
		.check_map = {.iova = iova, .length = len, .uptr = (uintptr_t)va},
	};

	return test_op(m->c, &cmd);
}

/* By an access for the time of the transfer, on the path that sees what the page table maps. */
static int dev_mock_dma(struct mock *m, uint64_t iova, void *buf, size_t len, bool write)
{
	int access = accfd_open(m->c, m->ioas, false);
	int rc = accfd_rw(m->c, access, (write ? TEST_RW_WRITE : 0) | TEST_RW_SLOW, iova, buf, len);

	close(access);
	return rc;
}

static int dev_reserve(struct ctx *c, uint32_t ioas, uint64_t first, uint64_t length)
{
	struct test_cmd cmd = {
		.op = TEST_OP_ADD_RESERVED,
		.id = ioas,
		.reserved = {.start = first, .length = length},
	};

	return test_op(c, &cmd);
}

const struct front_end fe_dev = {
	.name = "dev",
	.open = dev_open,
	.close = dev_close,
	.ioctl = dev_ioctl,
	.fd = fd_of,
	.mmap = dev_mmap,
	.read = dev_read,
	.write = dev_write,
	.mock_add = dev_mock_add,
	.mock_remove = dev_mock_remove,
	.mock_check = dev_mock_check,
	.mock_dma = dev_mock_dma,
	.reserve = dev_reserve,
};
