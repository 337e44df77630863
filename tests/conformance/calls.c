// SPDX-License-Identifier: MIT
/* The ioctls as functions, and the surroundings that cases need: memory, privileges, children. */
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "harness.h"

long call(struct ctx *c, unsigned int cmd, void *arg)
{
	return c->fe->ioctl(c, cmd, (uintptr_t)arg);
}

struct ctx *ctx_open(void)
{
	struct ctx *c;
	int rc = suite.fe->open(O_RDWR, &c);

	if (rc)
		give_up("one more context cannot be opened: %s", strerror(-rc));
	return c;
}

void ctx_close(struct ctx *c)
{
	c->fe->close(c);
}

long ioas_alloc(struct ctx *c, uint32_t *id)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};
	long rc = call(c, IOMMU_IOAS_ALLOC, &cmd);

	if (!rc)
		*id = cmd.out_ioas_id;
	return rc;
}

uint32_t ioas_new(struct ctx *c)
{
	uint32_t id;
	long rc = ioas_alloc(c, &id);

	if (rc)
		give_up("IOAS_ALLOC: %s", strerror(-rc));
	return id;
}

long destroy(struct ctx *c, uint32_t id)
{
	struct iommu_destroy cmd = {.size = sizeof(cmd), .id = id};

	return call(c, IOMMU_DESTROY, &cmd);
}

long map(struct ctx *c, uint32_t ioas, uint32_t flags, uint64_t va, uint64_t len, uint64_t *iova)
{
	struct iommu_ioas_map cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.ioas_id = ioas,
		.user_va = va,
		.length = len,
		.iova = iova && (flags & FIXED) ? *iova : 0,
	};
	long rc = call(c, IOMMU_IOAS_MAP, &cmd);

	if (!rc && iova)
		*iova = cmd.iova;
	return rc;
}

long map_at(struct ctx *c, uint32_t ioas, uint64_t iova, uint64_t va, uint64_t len)
{
	return map(c, ioas, FIXED | RW, va, len, &iova);
}

long map_file(struct ctx *c, uint32_t ioas, uint32_t flags, int fd, uint64_t start, uint64_t len,
	      uint64_t *iova)
{
	struct iommu_ioas_map_file cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.ioas_id = ioas,
		.fd = fd,
		.start = start,
		.length = len,
		.iova = iova && (flags & FIXED) ? *iova : 0,
	};
	long rc = call(c, IOMMU_IOAS_MAP_FILE, &cmd);

	if (!rc && iova)
		*iova = cmd.iova;
	return rc;
}

long copy(struct ctx *c, uint32_t dst, uint32_t src, uint32_t flags, uint64_t src_iova,
	  uint64_t len, uint64_t *dst_iova)
{
	struct iommu_ioas_copy cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.dst_ioas_id = dst,
		.src_ioas_id = src,
		.length = len,
		.dst_iova = dst_iova && (flags & FIXED) ? *dst_iova : 0,
		.src_iova = src_iova,
	};
	long rc = call(c, IOMMU_IOAS_COPY, &cmd);

	if (!rc && dst_iova)
		*dst_iova = cmd.dst_iova;
	return rc;
}

long unmap(struct ctx *c, uint32_t ioas, uint64_t iova, uint64_t len, uint64_t *removed)
{
	struct iommu_ioas_unmap cmd = {
		.size = sizeof(cmd), .ioas_id = ioas, .iova = iova, .length = len};
	long rc = call(c, IOMMU_IOAS_UNMAP, &cmd);

	if (rc)
		CHECK_EQ(cmd.length, len);
	else if (removed)
		*removed = cmd.length;
	return rc;
}

void unmap_expect(struct ctx *c, uint32_t ioas, uint64_t iova, uint64_t len, uint64_t removed)
{
	uint64_t got = 0;

	CHECK_RC(unmap(c, ioas, iova, len, &got), 0);
	CHECK_EQ(got, removed);
}

long iova_ranges(struct ctx *c, uint32_t ioas, uint32_t *n, void *ranges, uint64_t *align)
{
	struct iommu_ioas_iova_ranges cmd = {
		.size = sizeof(cmd),
		.ioas_id = ioas,
		.num_iovas = *n,
		.allowed_iovas = (uintptr_t)ranges,
	};
	long rc = call(c, IOMMU_IOAS_IOVA_RANGES, &cmd);

	*n = cmd.num_iovas;
	if (align)
		*align = cmd.out_iova_alignment;
	return rc;
}

uint64_t ioas_align(struct ctx *c, uint32_t ioas)
{
	uint64_t align = 0;
	uint32_t n = 0;
	long rc = iova_ranges(c, ioas, &n, NULL, &align);

	CHECK_RC(rc, n ? -EMSGSIZE : 0);
	return align;
}

long allow(struct ctx *c, uint32_t ioas, uint32_t n, const void *ranges)
{
	struct iommu_ioas_allow_iovas cmd = {
		.size = sizeof(cmd),
		.ioas_id = ioas,
		.num_iovas = n,
		.allowed_iovas = (uintptr_t)ranges,
	};

	return call(c, IOMMU_IOAS_ALLOW_IOVAS, &cmd);
}

long option(struct ctx *c, uint32_t op, uint32_t which, uint32_t object, uint64_t *val)
{
	struct iommu_option cmd = {
		.size = sizeof(cmd),
		.option_id = which,
		.op = op,
		.object_id = object,
		.val64 = *val,
	};
	long rc = call(c, IOMMU_OPTION, &cmd);

	*val = cmd.val64;
	return rc;
}

long huge_pages_set(struct ctx *c, uint32_t ioas, uint64_t val)
{
	return option(c, IOMMU_OPTION_OP_SET, IOMMU_OPTION_HUGE_PAGES, ioas, &val);
}

uint64_t huge_pages_get(struct ctx *c, uint32_t ioas)
{
	uint64_t val = 99;

	CHECK_RC(option(c, IOMMU_OPTION_OP_GET, IOMMU_OPTION_HUGE_PAGES, ioas, &val), 0);
	return val;
}

long rlimit_mode_set(struct ctx *c, uint64_t val)
{
	return option(c, IOMMU_OPTION_OP_SET, IOMMU_OPTION_RLIMIT_MODE, 0, &val);
}

long change_process(struct ctx *c)
{
	struct iommu_ioas_change_process cmd = {.size = sizeof(cmd)};
	long rc = call(c, IOMMU_IOAS_CHANGE_PROCESS, &cmd);

	if (rc == -ENOTTY)
		skip("change-process", "IOAS_CHANGE_PROCESS is not known");
	return rc;
}

/* ---- mock devices, reservations, the test ABI --------------------------------------------------- */

static long or_skip(long rc)
{
	if (rc == -ENOSYS)
		skip("test-abi", "IOMMU_TEST_CMD is not known");
	return rc;
}

long mock_try(struct ctx *c, uint32_t ioas, struct mock *m)
{
	return or_skip(c->fe->mock_add(c, ioas, m));
}

void mock_add(struct ctx *c, uint32_t ioas, struct mock *m)
{
	long rc = mock_try(c, ioas, m);

	if (rc)
		give_up("a mock device cannot be attached: %s", strerror(-rc));
}

void mock_remove(struct mock *m)
{
	CHECK_RC(m->c->fe->mock_remove(m), 0);
}

long mock_check(struct mock *m, uint64_t iova, void *va, size_t len)
{
	return m->c->fe->mock_check(m, iova, va, len);
}

long mock_dma(struct mock *m, uint64_t iova, void *buf, size_t len, bool write)
{
	return m->c->fe->mock_dma(m, iova, buf, len, write);
}

long reserve_try(struct ctx *c, uint32_t ioas, uint64_t first, uint64_t length)
{
	return or_skip(c->fe->reserve(c, ioas, first, length));
}

void reserve(struct ctx *c, uint32_t ioas, uint64_t first, uint64_t length)
{
	CHECK_RC(reserve_try(c, ioas, first, length), 0);
}

int need_fd(struct ctx *c)
{
	int fd = c->fe->fd(c);

	if (fd < 0)
		skip("fd", "the context is no file");
	return fd;
}

long test_abi_call(struct ctx *c, struct test_cmd *cmd)
{
	cmd->size = sizeof(*cmd);
	return call(c, IOMMU_TEST_CMD, cmd);
}

void need_test_abi(struct ctx *c)
{
	struct test_cmd cmd = {.op = 0};

	if (test_abi_call(c, &cmd) == -ENOTTY)
		skip("test-abi", "IOMMU_TEST_CMD is not known");
}

long accfd_try(struct ctx *c, uint32_t ioas, bool pin, int *fd)
{
	struct test_cmd cmd = {
		.op = TEST_OP_CREATE_ACCESS,
		.id = ioas,
		.create_access = {.flags = pin ? TEST_ACCESS_NEEDS_PIN : 0},
	};
	long rc;

	need_test_abi(c);
	rc = test_abi_call(c, &cmd);
	if (!rc)
		*fd = cmd.create_access.access_fd;
	return rc;
}

int accfd_open(struct ctx *c, uint32_t ioas, bool pin)
{
	int fd = -1;
	long rc = accfd_try(c, ioas, pin, &fd);

	if (rc)
		give_up("CREATE_ACCESS: %s", strerror(-rc));
	return fd;
}

long accfd_pin(struct ctx *c, int access, bool write, uint64_t iova, uint64_t len, uint32_t *item)
{
	struct test_cmd cmd = {
		.op = TEST_OP_ACCESS_PAGES,
		.id = access,
		.access_pages = {.flags = write ? TEST_ACCESS_WRITE : 0,
				 .iova = iova,
				 .length = len},
	};
	long rc = test_abi_call(c, &cmd);

	if (!rc && item)
		*item = cmd.access_pages.pages_id;
	return rc;
}

long accfd_unpin(struct ctx *c, int access, uint32_t item)
{
	struct test_cmd cmd = {
		.op = TEST_OP_DESTROY_ACCESS_PAGES,
		.id = access,
		.destroy_pages = {.pages_id = item},
	};

	return test_abi_call(c, &cmd);
}

long accfd_rw(struct ctx *c, int access, unsigned int flags, uint64_t iova, void *buf, uint64_t len)
{
	struct test_cmd cmd = {
		.op = TEST_OP_ACCESS_RW,
		.id = access,
		.access_rw = {.iova = iova, .length = len, .uptr = (uintptr_t)buf, .flags = flags},
	};

	return test_abi_call(c, &cmd);
}

long accfd_replace(struct ctx *c, int access, uint32_t ioas)
{
	struct test_cmd cmd = {
		.op = TEST_OP_ACCESS_REPLACE_IOAS,
		.id = access,
		.access_replace = {.ioas_id = ioas},
	};

	return test_abi_call(c, &cmd);
}

long check_refs(struct ctx *c, void *va, uint64_t len, uint32_t refs)
{
	struct test_cmd cmd = {
		.op = TEST_OP_MD_CHECK_REFS,
		.check_refs = {.length = len, .uptr = (uintptr_t)va, .refs = refs},
	};

	return test_abi_call(c, &cmd);
}

/* ---- memory ------------------------------------------------------------------------------------- */

static char *map_pages(size_t pages, int prot)
{
	char *p = mmap(NULL, pages * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		give_up("%zu pages of memory: %s", pages, strerror(errno));
	return p;
}

char *memory(size_t pages)
{
	char *p = map_pages(pages, PROT_READ | PROT_WRITE);

	for (size_t i = 0; i < pages; i++)
		p[i * PAGE] = i + 1;
	return p;
}

char *page_end(size_t len)
{
	size_t pages = (len + PAGE - 1) / PAGE;
	char *p = map_pages(pages + 1, PROT_READ | PROT_WRITE);

	if (mprotect(p + pages * PAGE, PAGE, PROT_NONE))
		give_up("mprotect: %s", strerror(errno));
	return p + pages * PAGE - len;
}

void make_read_only(void *p)
{
	char *page = (char *)((uintptr_t)p & ~(PAGE - 1));

	if (mprotect(page, PAGE, PROT_READ))
		give_up("mprotect: %s", strerror(errno));
}

uint64_t bad_address(void)
{
	return (uintptr_t)map_pages(1, PROT_NONE);
}

int memfd(size_t bytes)
{
	int fd = memfd_create("conformance", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, bytes))
		give_up("memfd: %s", strerror(errno));
	return fd;
}

/* ---- privileges --------------------------------------------------------------------------------- */

static void caps(bool set, struct __user_cap_data_struct data[2])
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};

	if (syscall(set ? SYS_capset : SYS_capget, &head, data))
		give_up("capabilities: %s", strerror(errno));
}

bool has_cap(int cap)
{
	struct __user_cap_data_struct data[2];

	caps(false, data);
	return data[CAP_TO_INDEX(cap)].effective & CAP_TO_MASK(cap);
}

void drop_cap(int cap)
{
	struct __user_cap_data_struct data[2];

	caps(false, data);
	data[CAP_TO_INDEX(cap)].effective &= ~CAP_TO_MASK(cap);
	data[CAP_TO_INDEX(cap)].permitted &= ~CAP_TO_MASK(cap);
	caps(true, data);
}

bool can_change_user(void)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		give_up("fork: %s", strerror(errno));
	if (!pid)
		_exit(geteuid() != 0 || setresuid(OTHER_USER, OTHER_USER, OTHER_USER) != 0);
	return waitpid(pid, &status, 0) == pid && !status;
}

void set_memlock(uint64_t bytes)
{
	struct rlimit lim = {bytes, bytes};

	if (setrlimit(RLIMIT_MEMLOCK, &lim))
		give_up("RLIMIT_MEMLOCK: %s", strerror(errno));
}

uint64_t status_kb(const char *field)
{
	FILE *f = fopen("/proc/self/status", "re");
	size_t len = strlen(field);
	uint64_t kb = MAX;
	char line[200];

	if (!f)
		give_up("/proc/self/status: %s", strerror(errno));
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, field, len) && line[len] == ':')
			kb = strtoull(line + len + 1, NULL, 10);
	fclose(f);
	return kb;
}

void in_child(struct ctx *c, void (*fn)(struct ctx *c, void *data), void *data)
{
	int status;
	pid_t pid;

	need_fd(c);
	pid = fork();
	if (pid < 0)
		give_up("fork: %s", strerror(errno));
	if (!pid)
		_exit(harness_guard(fn, c, data));
	if (waitpid(pid, &status, 0) != pid)
		status = -1;
	CHECK_EQ(status, 0);
}
