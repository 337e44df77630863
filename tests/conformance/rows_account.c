// SPDX-License-Identifier: MIT
/* Accounting of pinned pages and CHANGE_PROCESS. */
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/stat.h>

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

/* What a child does with an IOAS that it shares, and what came of it. */
struct errand {
	uint32_t ioas;
	int file;
	uid_t ruid, euid;
	long want;
	uint64_t *pinned; /* VmPin of the child at its end; shared */
};

static void *shared_page(void)
{
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		give_up("shared memory: %s", strerror(errno));
	return p;
}

static void become(uid_t ruid, uid_t euid)
{
	if (setresuid(ruid, euid, euid))
		give_up("setresuid: %s", strerror(errno));
}

/* Two users, whose limits the engine can know: one outside of the kernel has to ask for them. */
static void need_two_users(void)
{
	if (!can_change_user())
		skip("privilege", "there is one user only");
}

/* Accounting shows in a context of its own, so that the case's is still untouched. */
static void need_accounting(void)
{
	struct ctx *probe = ctx_open();
	struct mock m;

	with_accounting(probe, &m);
	ctx_close(probe);
}

static void map_lazily(struct ctx *c, void *data)
{
	struct errand *e = data;
	uint64_t iova = B;

	drop_cap(CAP_IPC_LOCK);
	set_memlock(4 * PAGE);
	CHECK_RC(map_file(c, e->ioas, FIXED | RW, e->file, 0, 8 * PAGE, &iova), 0);
}

static void limit_of_the_dead(struct ctx *c)
{
	struct errand e = {.ioas = ioas_new(c), .file = memfd(8 * PAGE)};
	struct mock m;

	need_fd(c);
	need_accounting();
	in_child(c, map_lazily, &e);
	CHECK_RC(mock_try(c, e.ioas, &m), -ENOMEM);
	CHECK_EQ(status_kb("VmPin"), 0);
	unmap_expect(c, e.ioas, B, 8 * PAGE, 8 * PAGE);
	CHECK_RC(mock_try(c, e.ioas, &m), 0);
}

static void adopt_as_another(struct ctx *c, void *data)
{
	struct errand *e = data;

	set_memlock(7 * PAGE);
	become(e->ruid, e->euid);
	CHECK_RC(change_process(c), -ENOMEM);
	CHECK_EQ(status_kb("VmPin"), 0);
}

static void adopt_as_another_with_room(struct ctx *c, void *data)
{
	struct errand *e = data;

	set_memlock(10 * PAGE);
	become(e->ruid, e->euid);
	CHECK_RC(change_process(c), 0);
	CHECK_EQ(status_kb("VmPin"), 32);
}

static void change_charges_pages_once(struct ctx *c)
{
	struct errand e = {.ruid = OTHER_USER, .euid = OTHER_USER};
	uint64_t iova = B;
	struct mock m;

	need_two_users();
	need_accounting();
	e.ioas = ioas_new(c);
	mock_add(c, e.ioas, &m);
	drop_cap(CAP_IPC_LOCK);
	set_memlock(16 * PAGE);
	CHECK_RC(map_file(c, e.ioas, FIXED | RW, memfd(8 * PAGE), 0, 8 * PAGE, &iova), 0);
	for (int i = 1; i < 3; i++) {
		iova = B + i * 8 * PAGE;
		CHECK_RC(copy(c, e.ioas, e.ioas, FIXED | RW, B, 8 * PAGE, &iova), 0);
	}
	CHECK_EQ(status_kb("VmPin"), 32);
	in_child(c, adopt_as_another, &e);
	CHECK_EQ(status_kb("VmPin"), 32);
	in_child(c, adopt_as_another_with_room, &e);
	CHECK_EQ(status_kb("VmPin"), 0);
}

static void adopt_and_unmap(struct ctx *c, void *data)
{
	struct errand *e = data;
	uint64_t adopted;

	CHECK_RC(change_process(c), 0);
	adopted = status_kb("VmPin");
	unmap_expect(c, e->ioas, B, 16 * PAGE, 16 * PAGE);
	*e->pinned = status_kb("VmPin");
	CHECK_EQ(adopted - *e->pinned, 64);
}

/*
 * Linux leaves the pages with the process that pinned them and takes them from the one that has
 * them unpinned (quirk Q12). Either way the sums are right, as the arithmetic wraps around.
 */
static void change_without_a_limit(struct ctx *c)
{
	struct errand e = {.pinned = shared_page()};
	uint64_t iova = B;
	struct mock m;

	need_fd(c);
	if (!has_cap(CAP_IPC_LOCK))
		skip("privilege", "no CAP_IPC_LOCK");
	e.ioas = with_accounting(c, &m);
	CHECK_RC(map_file(c, e.ioas, FIXED | RW, memfd(16 * PAGE), 0, 16 * PAGE, &iova), 0);
	CHECK_EQ(status_kb("VmPin"), 64);
	*e.pinned = MAX;
	in_child(c, adopt_and_unmap, &e);
	CHECK(*e.pinned == 0 || *e.pinned == (uint64_t)-64);
	CHECK_EQ(status_kb("VmPin") + *e.pinned, 0);
}

static void map_as(struct ctx *c, void *data)
{
	struct errand *e = data;

	become(e->ruid, e->euid);
	CHECK_RC(map_at(c, e->ioas, B + 16 * PAGE, addr(memory(1)), PAGE), e->want);
}

static void the_real_user_counts(struct ctx *c)
{
	struct errand e = {.ruid = getuid(), .euid = OTHER_USER, .want = -ENOMEM};
	struct mock m;

	need_two_users();
	e.ioas = with_accounting(c, &m);
	drop_cap(CAP_IPC_LOCK);
	set_memlock(16 * PAGE);
	CHECK_RC(map_at(c, e.ioas, B, addr(memory(16)), 16 * PAGE), 0);
	in_child(c, map_as, &e);
	e = (struct errand){.ioas = e.ioas, .ruid = OTHER_USER, .euid = geteuid()};
	in_child(c, map_as, &e);
}

static const struct row rows[] = {
	{"9.89-90", "CAP_IPC_LOCK and a limit", limits_do_not_bind_the_privileged, NULL},
	{"9.91-92", "the user's limit", user_limit, NULL},
	{"9.93", "attach over the limit of the mapper", lazy_over_the_limit, NULL},
	{"9.94", "a limit of 0", no_limit_at_all, NULL},
	{"9.95", "attach over the limit of a mapper that is gone", limit_of_the_dead, NULL},
	{"9.96", "the process' limit", process_limit, NULL},
	{"9.97", "transfers are not charged", slow_access_is_not_charged, NULL},
	{"9.98", "CHANGE_PROCESS with user memory", change_with_user_memory, NULL},
	{"9.99", "CHANGE_PROCESS with nothing to change", change_without_anything, NULL},
	{"4.6-files", "CHANGE_PROCESS with files", change_with_files, NULL},
	{"9.100", "CHANGE_PROCESS needs double room", change_needs_double_room, NULL},
	{"9.101", "CHANGE_PROCESS counts pages once", change_charges_pages_once, NULL},
	{"9.124", "CHANGE_PROCESS of pages without a limit", change_without_a_limit, NULL},
	{"9.125", "the real user counts", the_real_user_counts, NULL},
};
ROWS(rows_account, rows);
