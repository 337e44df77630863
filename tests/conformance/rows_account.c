// SPDX-License-Identifier: MIT
/* Accounting of pinned pages and CHANGE_PROCESS. */
#include <linux/capability.h>
#include <sys/mman.h>

#include "suite.h"

#define B MOCK_FIRST

static uint64_t addr(const void *p)
{
	return (uintptr_t)p;
}

/* An IOAS with a device, where the pages that it pins are accounted at all. */
static uint32_t with_accounting(struct ctx *c, struct mock *m)
{
	uint32_t ioas = ioas_new(c);
	uint64_t before;

	mock_add(c, ioas, m);
	before = status_kb("VmPin");
	CHECK_RC(map_at(c, ioas, B, addr(memory(1)), PAGE), 0);
	if (status_kb("VmPin") == before)
		skip("accounting", "VmPin does not move");
	CHECK_EQ(status_kb("VmPin"), before + 4);
	unmap_expect(c, ioas, B, PAGE, PAGE);
	CHECK_EQ(status_kb("VmPin"), before);
	return ioas;
}

static void limits_do_not_bind_the_privileged(struct ctx *c)
{
	struct mock m, n;
	uint32_t ioas = with_accounting(c, &m), other = ioas_new(c);
	uint64_t iova = B;

	if (!has_cap(CAP_IPC_LOCK))
		skip("privilege", "no CAP_IPC_LOCK");
	set_memlock(4 * PAGE);
	CHECK_RC(map_at(c, ioas, B, addr(memory(16)), 16 * PAGE), 0);
	CHECK_EQ(status_kb("VmPin"), 64);
	CHECK_EQ(status_kb("VmLck"), 0);
	mock_add(c, other, &n);
	CHECK_RC(copy(c, other, ioas, FIXED | RW, B, 16 * PAGE, &iova), 0);
	CHECK_EQ(status_kb("VmPin"), 64);
	unmap_expect(c, ioas, B, 16 * PAGE, 16 * PAGE);
	CHECK_EQ(status_kb("VmPin"), 64);
	unmap_expect(c, other, B, 16 * PAGE, 16 * PAGE);
	CHECK_EQ(status_kb("VmPin"), 0);
}

static void user_limit(struct ctx *c)
{
	struct ctx *second = ctx_open();
	struct mock m, n;
	uint32_t ioas = with_accounting(c, &m), other = ioas_new(second);
	uint64_t iova = B + 16 * PAGE;
	char *v = memory(17);

	drop_cap(CAP_IPC_LOCK);
	set_memlock(16 * PAGE);
	CHECK_RC(map_at(c, ioas, B, addr(v), 16 * PAGE), 0);
	CHECK_RC(map_at(c, ioas, B + 16 * PAGE, addr(v) + 16 * PAGE, PAGE), -ENOMEM);
	CHECK_RC(copy(c, ioas, ioas, FIXED | RW, B, 16 * PAGE, &iova), 0);
	CHECK_EQ(status_kb("VmPin"), 64);
	CHECK_EQ(status_kb("VmLck"), 0);
	mock_add(second, other, &n);
	CHECK_RC(map_at(second, other, B, addr(v) + 16 * PAGE, PAGE), -ENOMEM);
	unmap_expect(c, ioas, 0, MAX, 32 * PAGE);
	CHECK_RC(map_at(second, other, B, addr(v) + 16 * PAGE, PAGE), 0);
	ctx_close(second);
}

static void lazy_over_the_limit(struct ctx *c)
{
	struct mock m, n;
	uint32_t ioas = ioas_new(c);
	struct ctx *probe = ctx_open();

	with_accounting(probe, &m);
	drop_cap(CAP_IPC_LOCK);
	set_memlock(4 * PAGE);
	CHECK_RC(map_at(c, ioas, B, addr(memory(8)), 8 * PAGE), 0);
	CHECK_RC(mock_try(c, ioas, &n), -ENOMEM);
	CHECK_EQ(status_kb("VmPin"), 0);
	ctx_close(probe);
}

static void no_limit_at_all(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_accounting(c, &m), lazy = ioas_new(c);
	char *v = memory(1);

	drop_cap(CAP_IPC_LOCK);
	set_memlock(0);
	CHECK_RC(map_at(c, ioas, B, addr(v), PAGE), -ENOMEM);
	CHECK_RC(map_at(c, lazy, B, addr(v), PAGE), 0);
}

static void process_limit(struct ctx *c)
{
	struct ctx *probe = ctx_open();
	struct mock m, n;
	uint32_t ioas;
	char *v = memory(9), *locked;

	with_accounting(probe, &n);
	ctx_close(probe);
	if (rlimit_mode_set(c, 1))
		skip("privilege", "no CAP_SYS_RESOURCE");
	ioas = ioas_new(c);
	mock_add(c, ioas, &m);
	drop_cap(CAP_IPC_LOCK);
	set_memlock(16 * PAGE);
	locked = memory(8);
	CHECK_RC(mlock(locked, 8 * PAGE), 0);
	CHECK_RC(map_at(c, ioas, B, addr(v), 9 * PAGE), -ENOMEM);
	CHECK_RC(map_at(c, ioas, B, addr(v), 8 * PAGE), 0);
	CHECK_EQ(status_kb("VmLck"), 64);
	CHECK_RC(mlock(v + 8 * PAGE, PAGE), -1);
	unmap_expect(c, ioas, B, 8 * PAGE, 8 * PAGE);
	CHECK_EQ(status_kb("VmLck"), 32);
}

static void slow_access_is_not_charged(struct ctx *c)
{
	struct ctx *probe = ctx_open();
	uint32_t ioas = ioas_new(c);
	struct mock n;
	char b[8];
	int access;

	with_accounting(probe, &n);
	ctx_close(probe);
	access = accfd_open(c, ioas, false);
	drop_cap(CAP_IPC_LOCK);
	set_memlock(0);
	CHECK_RC(map_at(c, ioas, B, addr(memory(4)), 4 * PAGE), 0);
	CHECK_RC(accfd_rw(c, access, TEST_RW_SLOW, B + PAGE - 4, b, 8), 0);
	CHECK_EQ(status_kb("VmPin"), 0);
}

static void child_adopts(struct ctx *c, void *data)
{
	CHECK_RC(change_process(c), *(long *)data);
}

static void change_with_user_memory(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	CHECK_RC(change_process(c), 0);
	CHECK_RC(map_at(c, ioas, B, 0, PAGE), 0);
	CHECK_RC(change_process(c), -EINVAL);
	unmap_expect(c, ioas, 0, MAX, PAGE);
	CHECK_RC(change_process(c), 0);
}

static void change_without_anything(struct ctx *c)
{
	long want = 0;

	CHECK_RC(change_process(c), 0);
	ioas_new(c);
	CHECK_RC(change_process(c), 0);
	in_child(c, child_adopts, &want);
}

static void change_with_files(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	uint64_t iova = B;
	long want = 0;

	CHECK_RC(change_process(c), 0);
	CHECK_RC(map_file(c, ioas, FIXED | RW, memfd(PAGE), 0, PAGE, &iova), 0);
	CHECK_RC(change_process(c), 0);
	in_child(c, child_adopts, &want);
	unmap_expect(c, ioas, 0, MAX, PAGE);
}

static void change_needs_double_room(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_accounting(c, &m);
	uint64_t iova = B;
	long want = -ENOMEM;

	drop_cap(CAP_IPC_LOCK);
	set_memlock(16 * PAGE);
	CHECK_RC(map_file(c, ioas, FIXED | RW, memfd(16 * PAGE), 0, 16 * PAGE, &iova), 0);
	in_child(c, child_adopts, &want);
	CHECK_EQ(status_kb("VmPin"), 64);
}

static const struct row rows[] = {
	{"9.89-90", "CAP_IPC_LOCK and a limit", limits_do_not_bind_the_privileged, NULL},
	{"9.91-92", "the user's limit", user_limit, NULL},
	{"9.93", "attach over the limit of the mapper", lazy_over_the_limit, NULL},
	{"9.94", "a limit of 0", no_limit_at_all, NULL},
	{"9.96", "the process' limit", process_limit, NULL},
	{"9.97", "transfers are not charged", slow_access_is_not_charged, NULL},
	{"9.98", "CHANGE_PROCESS with user memory", change_with_user_memory, NULL},
	{"9.99", "CHANGE_PROCESS with nothing to change", change_without_anything, NULL},
	{"4.6-files", "CHANGE_PROCESS with files", change_with_files, NULL},
	{"9.100", "CHANGE_PROCESS needs double room", change_needs_double_room, NULL},
};
ROWS(rows_account, rows);
