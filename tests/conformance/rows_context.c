// SPDX-License-Identifier: MIT
/* Contexts, IDs, what comes before an ioctl's handler, and the file itself. */
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "suite.h"

static void lowest_id_first(struct ctx *c)
{
	CHECK_EQ(ioas_new(c), 1);
	CHECK_EQ(ioas_new(c), 2);
	CHECK_EQ(ioas_new(c), 3);
	CHECK_RC(destroy(c, 2), 0);
	CHECK_EQ(ioas_new(c), 2);
	CHECK_EQ(ioas_new(c), 4);
}

static void destroy_what_is_not_there(struct ctx *c)
{
	uint32_t id = ioas_new(c);

	CHECK_RC(destroy(c, 0), -ENOENT);
	CHECK_RC(destroy(c, 0x7fffffff), -ENOENT);
	CHECK_RC(destroy(c, 0x80000000), -ENOENT);
	CHECK_RC(destroy(c, 0xffffffff), -ENOENT);
	CHECK_RC(destroy(c, id + 1), -ENOENT);
	CHECK_RC(destroy(c, id), 0);
	CHECK_RC(destroy(c, id), -ENOENT);
}

/* Whether RLIMIT_MODE may be set: said by a context without objects, cross-checked where it can be. */
static bool may_set_rlimit_mode(struct ctx *c)
{
	long rc = rlimit_mode_set(c, 0);

	if (!has_cap(CAP_SYS_RESOURCE))
		CHECK_RC(rc, -EPERM);
	else
		CHECK(rc == 0 || rc == -EPERM);
	return rc == 0;
}

static void rlimit_mode_without_objects(struct ctx *c)
{
	uint32_t id = ioas_new(c);
	uint64_t val = 7;

	CHECK_RC(option(c, IOMMU_OPTION_OP_GET, IOMMU_OPTION_RLIMIT_MODE, 0, &val), 0);
	CHECK_EQ(val, 0);
	CHECK_RC(destroy(c, id), 0);
	if (!may_set_rlimit_mode(c))
		skip("privilege", "no CAP_SYS_RESOURCE");
	CHECK_RC(rlimit_mode_set(c, 1), 0);
	CHECK_RC(option(c, IOMMU_OPTION_OP_GET, IOMMU_OPTION_RLIMIT_MODE, 0, &val), 0);
	CHECK_EQ(val, 1);
	CHECK_RC(rlimit_mode_set(c, 2), -EINVAL);
	CHECK_RC(option(c, IOMMU_OPTION_OP_GET, IOMMU_OPTION_RLIMIT_MODE, 0, &val), 0);
	CHECK_EQ(val, 1);
	CHECK_RC(rlimit_mode_set(c, 0), 0);
}

static void rlimit_mode_unprivileged(struct ctx *c)
{
	ioas_new(c);
	drop_cap(CAP_SYS_RESOURCE);
	CHECK_RC(rlimit_mode_set(c, 9), -EPERM);
	CHECK_RC(rlimit_mode_set(c, 0), -EPERM);
}

static void rlimit_mode_with_objects(struct ctx *c)
{
	if (!may_set_rlimit_mode(c))
		skip("privilege", "no CAP_SYS_RESOURCE");
	ioas_new(c);
	CHECK_RC(rlimit_mode_set(c, 7), -EBUSY);
	CHECK_RC(rlimit_mode_set(c, 0), -EBUSY);
}

static void rlimit_mode_with_object_id(struct ctx *c)
{
	uint64_t val = 0;

	CHECK_RC(option(c, IOMMU_OPTION_OP_GET, IOMMU_OPTION_RLIMIT_MODE, 5, &val), -EOPNOTSUPP);
	CHECK_RC(option(c, IOMMU_OPTION_OP_SET, IOMMU_OPTION_RLIMIT_MODE, 5, &val), -EOPNOTSUPP);
	CHECK_RC(option(c, 2, IOMMU_OPTION_RLIMIT_MODE, 0, &val), -EOPNOTSUPP);
	CHECK_RC(option(c, IOMMU_OPTION_OP_GET, 2, 0, &val), -EOPNOTSUPP);
}

static long raw(struct ctx *c, unsigned int cmd, uint64_t arg)
{
	return c->fe->ioctl(c, cmd, arg);
}

static void numbers_outside_the_table(struct ctx *c)
{
	CHECK_RC(raw(c, _IO(';', 0x7f), 1), -ENOTTY);
	CHECK_RC(raw(c, _IO(';', 0xa1), 1), -ENOTTY);
	CHECK_RC(raw(c, _IO(';', 0xff), 1), -ENOTTY);
	CHECK_RC(raw(c, _IO(';', 0), 1), -ENOTTY);
}

static void other_type_in_the_range(struct ctx *c)
{
	uint32_t zero[32] = {0};

	CHECK_RC(raw(c, _IO('A', 0x80), 1), -EFAULT);
	CHECK_RC(raw(c, _IO('A', 0x80), (uintptr_t)zero), -ENOTTY);
	CHECK_RC(raw(c, _IO('A', 0x95), 1), -EFAULT);
	CHECK_RC(raw(c, _IO('A', 0x95), (uintptr_t)zero), -ENOTTY);
}

static void direction_in_the_number(struct ctx *c)
{
	struct iommu_destroy cmd = {.size = sizeof(cmd), .id = 1};

	CHECK_RC(raw(c, _IOWR(';', 0x80, struct iommu_destroy), (uintptr_t)&cmd), -ENOTTY);
	CHECK_RC(raw(c, _IOR(';', 0x80, struct iommu_destroy), (uintptr_t)&cmd), -ENOTTY);
	CHECK_RC(raw(c, _IOC(0, ';', 0x80, 8), (uintptr_t)&cmd), -ENOTTY);
	CHECK_RC(raw(c, _IOWR(';', 0x80, struct iommu_destroy), 1), -EFAULT);
	CHECK_RC(destroy(c, 1), -ENOENT);
}

static void short_size_and_end_of_page(struct ctx *c)
{
	struct iommu_destroy short_cmd = {.size = 7};
	struct iommu_destroy *cmd = (void *)page_end(sizeof(*cmd));

	CHECK_RC(call(c, IOMMU_DESTROY, &short_cmd), -EINVAL);
	cmd->size = sizeof(*cmd);
	cmd->id = ioas_new(c);
	CHECK_RC(call(c, IOMMU_DESTROY, cmd), 0);
	CHECK_RC(call(c, IOMMU_DESTROY, cmd), -ENOENT);
}

static void unmapped_tail(struct ctx *c)
{
	uint32_t *cmd = (void *)page_end(8);

	cmd[0] = 16;
	cmd[1] = ioas_new(c);
	CHECK_RC(call(c, IOMMU_DESTROY, cmd), -EFAULT);
	cmd[0] = 8;
	CHECK_RC(call(c, IOMMU_DESTROY, cmd), 0);
}

static void only_the_size_is_readable(struct ctx *c)
{
	uint32_t *cmd = (void *)page_end(4);

	*cmd = 4;
	CHECK_RC(call(c, IOMMU_DESTROY, cmd), -EINVAL);
	*cmd = 8;
	CHECK_RC(call(c, IOMMU_DESTROY, cmd), -EFAULT);
	CHECK_RC(raw(c, IOMMU_DESTROY, 0), -EFAULT);
	CHECK_RC(raw(c, IOMMU_DESTROY, bad_address()), -EFAULT);
	CHECK_RC(raw(c, IOMMU_DESTROY, MAX), -EFAULT);
	CHECK_RC(raw(c, IOMMU_DESTROY, MAX - 3), -EFAULT);
}

static void nonzero_tail(struct ctx *c)
{
	unsigned char buf[72] = {0};
	struct iommu_destroy *cmd = (void *)buf;

	cmd->size = sizeof(buf);
	cmd->id = 1;
	CHECK_RC(call(c, IOMMU_DESTROY, cmd), -ENOENT);
	buf[71] = 1;
	CHECK_RC(call(c, IOMMU_DESTROY, cmd), -E2BIG);
	buf[71] = 0;
	buf[8] = 0x80;
	CHECK_RC(call(c, IOMMU_DESTROY, cmd), -E2BIG);
}

static void huge_size(struct ctx *c)
{
	struct iommu_destroy *cmd = (void *)page_end(64);

	cmd->size = 0x7fffffff;
	CHECK_RC(call(c, IOMMU_DESTROY, cmd), -EFAULT);
	((char *)cmd)[63] = 1;
	CHECK_RC(call(c, IOMMU_DESTROY, cmd), -E2BIG);
	cmd = (void *)page_end(3 * PAGE);
	cmd->size = 0xffffffff;
	CHECK_RC(call(c, IOMMU_DESTROY, cmd), -EFAULT);
	((char *)cmd)[2 * PAGE + 5] = 1;
	CHECK_RC(call(c, IOMMU_DESTROY, cmd), -E2BIG);
	((char *)cmd)[2 * PAGE + 5] = 0;
	cmd->size = 3 * PAGE;
	CHECK_RC(call(c, IOMMU_DESTROY, cmd), -ENOENT);
}

static void odd_address(struct ctx *c)
{
	char buf[64];

	for (int i = 0; i < 8; i++) {
		struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};

		memcpy(buf + i, &cmd, sizeof(cmd));
		CHECK_RC(call(c, IOMMU_IOAS_ALLOC, buf + i), 0);
		memcpy(&cmd, buf + i, sizeof(cmd));
		CHECK_EQ(cmd.out_ioas_id, i + 1);
	}
}

static void alloc_into_read_only_memory(struct ctx *c)
{
	struct iommu_ioas_alloc *cmd = (void *)page_end(sizeof(*cmd));

	cmd->size = sizeof(*cmd);
	make_read_only(cmd);
	CHECK_RC(call(c, IOMMU_IOAS_ALLOC, cmd), -EFAULT);
	CHECK_EQ(ioas_new(c), 1);
}

static void map_answers_into_read_only_memory(struct ctx *c)
{
	struct iommu_ioas_map *cmd = (void *)page_end(sizeof(*cmd));

	*cmd = (struct iommu_ioas_map){
		.size = sizeof(*cmd),
		.flags = FIXED | RW,
		.ioas_id = ioas_new(c),
		.user_va = PAGE,
		.length = PAGE,
		.iova = PAGE,
	};
	make_read_only(cmd);
	CHECK_RC(call(c, IOMMU_IOAS_MAP, cmd), -EFAULT);
	CHECK_RC(call(c, IOMMU_IOAS_MAP, cmd), -EEXIST);
	unmap_expect(c, cmd->ioas_id, PAGE, PAGE, PAGE);
}

static void copy_answers_into_read_only_memory(struct ctx *c)
{
	struct iommu_ioas_copy *cmd = (void *)page_end(sizeof(*cmd));
	uint32_t ioas = ioas_new(c);

	CHECK_RC(map_at(c, ioas, PAGE, PAGE, PAGE), 0);
	*cmd = (struct iommu_ioas_copy){
		.size = sizeof(*cmd),
		.flags = FIXED | RW,
		.dst_ioas_id = ioas,
		.src_ioas_id = ioas,
		.length = PAGE,
		.dst_iova = 4 * PAGE,
		.src_iova = PAGE,
	};
	make_read_only(cmd);
	CHECK_RC(call(c, IOMMU_IOAS_COPY, cmd), -EFAULT);
	CHECK_RC(call(c, IOMMU_IOAS_COPY, cmd), -EEXIST);
	unmap_expect(c, ioas, 4 * PAGE, PAGE, PAGE);
}

static void unmap_answers_into_read_only_memory(struct ctx *c)
{
	struct iommu_ioas_unmap *cmd = (void *)page_end(sizeof(*cmd));

	*cmd = (struct iommu_ioas_unmap){
		.size = sizeof(*cmd), .ioas_id = ioas_new(c), .iova = PAGE, .length = PAGE};
	CHECK_RC(map_at(c, cmd->ioas_id, PAGE, PAGE, PAGE), 0);
	make_read_only(cmd);
	CHECK_RC(call(c, IOMMU_IOAS_UNMAP, cmd), -EFAULT);
	CHECK_RC(call(c, IOMMU_IOAS_UNMAP, cmd), -ENOENT);
}

static void option_answers_into_read_only_memory(struct ctx *c)
{
	struct iommu_option *cmd = (void *)page_end(sizeof(*cmd));

	*cmd = (struct iommu_option){
		.size = sizeof(*cmd),
		.option_id = IOMMU_OPTION_HUGE_PAGES,
		.op = IOMMU_OPTION_OP_SET,
		.object_id = ioas_new(c),
	};
	make_read_only(cmd);
	CHECK_RC(call(c, IOMMU_OPTION, cmd), -EFAULT);
	CHECK_EQ(huge_pages_get(c, cmd->object_id), 0);
	CHECK_EQ(ioas_align(c, cmd->object_id), PAGE);
}

static void ranges_answer_into_read_only_memory(struct ctx *c)
{
	struct iommu_ioas_iova_ranges *cmd = (void *)page_end(sizeof(*cmd));
	struct iommu_iova_range range = {5, 6};

	*cmd = (struct iommu_ioas_iova_ranges){
		.size = sizeof(*cmd),
		.ioas_id = ioas_new(c),
		.num_iovas = 1,
		.allowed_iovas = (uintptr_t)&range,
	};
	make_read_only(cmd);
	CHECK_RC(call(c, IOMMU_IOAS_IOVA_RANGES, cmd), -EFAULT);
	CHECK_EQ(range.start, 0);
	CHECK_EQ(range.last, MAX);
}

/* A longer struct than is known comes back with its size as given and its tail untouched. */
static void size_comes_back_as_given(struct ctx *c)
{
	struct {
		struct iommu_ioas_alloc cmd;
		uint32_t tail;
	} big = {.cmd.size = 16};

	CHECK_RC(call(c, IOMMU_IOAS_ALLOC, &big), 0);
	CHECK_EQ(big.cmd.size, 16);
	CHECK_EQ(big.cmd.out_ioas_id, 1);
	CHECK_EQ(big.tail, 0);
}

static void read_only_descriptor(struct ctx *c)
{
	struct ctx *other;

	need_fd(c);
	if (c->fe->open(O_RDONLY, &other))
		give_up("O_RDONLY open failed");
	CHECK_EQ(ioas_new(other), 1);
	CHECK_RC(map_at(other, 1, 0, 0, PAGE), 0);
	ctx_close(other);
}

static void path_descriptor(struct ctx *c)
{
	struct ctx *other;
	uint32_t id;

	need_fd(c);
	if (c->fe->open(O_PATH, &other))
		give_up("O_PATH open failed");
	CHECK_RC(ioas_alloc(other, &id), -EBADF);
	ctx_close(other);
}

static long sys(long rc)
{
	return rc < 0 ? -errno : rc;
}

/*
 * What a program does to the file itself, not by ioctl, may go past `swiommu run`, whose nodes have
 * a regular file underneath, which shows by its position. That must not confuse it, and the
 * answers are those of a regular file then.
 */
static void need_char_device(struct ctx *c)
{
	if (lseek(need_fd(c), 0, SEEK_CUR) >= 0)
		skip("char-device", "the node has a regular file underneath");
}

static void read_write_seek_poll(struct ctx *c)
{
	int fd = need_fd(c);
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
	char b[8] = {0};
	long got[3];

	CHECK_EQ(poll(&p, 1, 0), 1);
	CHECK_EQ(p.revents, POLLIN | POLLOUT);
	got[0] = sys(read(fd, b, sizeof(b)));
	got[1] = sys(write(fd, b, sizeof(b)));
	got[2] = sys(lseek(fd, 0, SEEK_SET));
	CHECK_EQ(ioas_new(c), 1);
	need_char_device(c);
	CHECK_RC(got[0], -EINVAL);
	CHECK_RC(got[1], -EINVAL);
	CHECK_RC(got[2], -ESPIPE);
}

static void generic_ioctls(struct ctx *c)
{
	int fd = need_fd(c), zero = 0;

	CHECK_RC(sys(ioctl(fd, FIOCLEX)), 0);
	CHECK_RC(sys(ioctl(fd, FIONCLEX)), 0);
	CHECK_RC(sys(ioctl(fd, FIONBIO, &zero)), 0);
	CHECK_RC(sys(ioctl(fd, TCGETS, &zero)), -ENOTTY);
	need_char_device(c);
	CHECK_RC(sys(ioctl(fd, FIONREAD, &zero)), -ENOTTY);
}

static long try_mmap(int fd, int prot, int flags, off_t offset)
{
	void *p = mmap(NULL, PAGE, prot, flags, fd, offset);

	if (p == MAP_FAILED)
		return -errno;
	munmap(p, PAGE);
	return 0;
}

static void mmap_without_regions(struct ctx *c)
{
	int fd = need_fd(c);

	CHECK_RC(try_mmap(fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0), -ENXIO);
	CHECK_RC(try_mmap(fd, PROT_READ, MAP_SHARED, 0x1000), -ENXIO);
	CHECK_RC(try_mmap(fd, PROT_READ | PROT_EXEC, MAP_SHARED, 0x7000), -EPERM);
	need_char_device(c);
	CHECK_RC(try_mmap(fd, PROT_READ, MAP_PRIVATE, 0), -EINVAL);
}

static void contexts_are_independent(struct ctx *c)
{
	struct ctx *other = ctx_open();

	CHECK_EQ(ioas_new(c), 1);
	CHECK_RC(destroy(other, 1), -ENOENT);
	CHECK_EQ(ioas_new(other), 1);
	CHECK_RC(map_at(c, 1, PAGE, PAGE, PAGE), 0);
	CHECK_RC(unmap(other, 1, PAGE, PAGE, NULL), -ENOENT);
	ctx_close(other);
	unmap_expect(c, 1, PAGE, PAGE, PAGE);
}

static void child_sees_ioas(struct ctx *c, void *data)
{
	(void)data;
	unmap_expect(c, 1, PAGE, PAGE, PAGE);
	CHECK_EQ(ioas_new(c), 2);
}

static void fork_shares_the_context(struct ctx *c)
{
	CHECK_EQ(ioas_new(c), 1);
	CHECK_RC(map_at(c, 1, PAGE, PAGE, PAGE), 0);
	in_child(c, child_sees_ioas, NULL);
	CHECK_RC(unmap(c, 1, PAGE, PAGE, NULL), -ENOENT);
	CHECK_RC(destroy(c, 2), 0);
}

static void dup_shares_the_context(struct ctx *c)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};
	int fd = dup(need_fd(c));

	CHECK_RC(sys(ioctl(fd, IOMMU_IOAS_ALLOC, &cmd)), 0);
	CHECK_RC(destroy(c, cmd.out_ioas_id), 0);
	close(fd);
	CHECK_EQ(ioas_new(c), 1);
}

static void many_ids(struct ctx *c)
{
	for (uint32_t i = 1; i <= 1000; i++)
		CHECK_EQ(ioas_new(c), i);
	for (uint32_t i = 999; i > 500; i -= 2)
		CHECK_RC(destroy(c, i), 0);
	for (uint32_t i = 501; i < 1000; i += 2)
		CHECK_EQ(ioas_new(c), i);
	CHECK_EQ(ioas_new(c), 1001);
}

static void wrong_kind_of_object(struct ctx *c)
{
	uint32_t ioas = ioas_new(c), n = 0;
	struct mock m;

	mock_add(c, ioas, &m);
	CHECK_RC(iova_ranges(c, m.hwpt_id, &n, NULL, NULL), -ENOENT);
	CHECK_RC(map_at(c, m.idev_id, MOCK_FIRST, 0, PAGE), -ENOENT);
	CHECK_RC(unmap(c, m.hwpt_id, 0, MAX, NULL), -ENOENT);
	CHECK_RC(huge_pages_set(c, m.idev_id, 0), -ENOENT);
	CHECK_RC(allow(c, m.hwpt_id, 0, NULL), -ENOENT);
	CHECK_RC(destroy(c, m.idev_id), -EBUSY);
	CHECK_RC(destroy(c, m.hwpt_id), -EBUSY);
	CHECK_RC(destroy(c, ioas), -EBUSY);
	mock_remove(&m);
	CHECK_RC(destroy(c, m.hwpt_id), -ENOENT);
	CHECK_RC(destroy(c, ioas), 0);
}

static const struct row rows[] = {
	{"9.1", "the lowest free ID is given out", lowest_id_first, NULL},
	{"9.2", "DESTROY of an ID that is no object", destroy_what_is_not_there, NULL},
	{"9.7", "RLIMIT_MODE with all objects destroyed", rlimit_mode_without_objects, NULL},
	{"9.8", "RLIMIT_MODE SET unprivileged", rlimit_mode_unprivileged, NULL},
	{"9.9", "RLIMIT_MODE SET with objects", rlimit_mode_with_objects, NULL},
	{"9.10", "RLIMIT_MODE with an object_id", rlimit_mode_with_object_id, NULL},
	{"9.11", "numbers outside the table do not touch the argument", numbers_outside_the_table,
	 NULL},
	{"9.12", "another type with a number of the table", other_type_in_the_range, NULL},
	{"9.13", "direction and size bits in the number", direction_in_the_number, NULL},
	{"9.14", "short size; struct at the end of a page", short_size_and_end_of_page, NULL},
	{"9.15", "unmapped tail", unmapped_tail, NULL},
	{"9.16-17", "only the size readable", only_the_size_is_readable, NULL},
	{"9.18", "non-zero tail", nonzero_tail, NULL},
	{"2.1-huge", "huge sizes are scanned in order", huge_size, NULL},
	{"9.19", "struct at an odd address", odd_address, NULL},
	{"9.20", "IOAS_ALLOC with a read-only struct", alloc_into_read_only_memory, NULL},
	{"9.21", "MAP with a read-only struct", map_answers_into_read_only_memory, NULL},
	{"2.3-copy", "COPY with a read-only struct", copy_answers_into_read_only_memory, NULL},
	{"9.22", "UNMAP with a read-only struct", unmap_answers_into_read_only_memory, NULL},
	{"9.23", "OPTION SET with a read-only struct", option_answers_into_read_only_memory, NULL},
	{"2.3-ranges", "IOVA_RANGES with a read-only struct", ranges_answer_into_read_only_memory,
	 NULL},
	{"2.3-size", "size comes back as given", size_comes_back_as_given, NULL},
	{"9.24", "a read-only descriptor serves", read_only_descriptor, NULL},
	{"1.1-path", "an O_PATH descriptor does not", path_descriptor, NULL},
	{"9.25", "read, write, lseek, poll", read_write_seek_poll, NULL},
	{"2.1-generic", "ioctls of every file", generic_ioctls, NULL},
	{"2.5-none", "mmap without regions", mmap_without_regions, NULL},
	{"1.1-two", "two contexts know nothing of each other", contexts_are_independent, NULL},
	{"1.1-fork", "fork shares the context", fork_shares_the_context, NULL},
	{"1.1-dup", "dup shares the context", dup_shares_the_context, NULL},
	{"1.2-many", "a thousand objects", many_ids, NULL},
	{"1.3-type", "an ID of another type is not found", wrong_kind_of_object, NULL},
};
ROWS(rows_context, rows);
