// SPDX-License-Identifier: MIT
/* Moving data through an access: each answer, how far it got, and whose memory it was. */
#include "access_rig.h"

#include <fcntl.h>

#define RD IOMMUFD_ACCESS_RW_READ
#define WR IOMMUFD_ACCESS_RW_WRITE
#define KT IOMMUFD_ACCESS_RW_KTHREAD
#define SLOW __IOMMUFD_ACCESS_RW_SLOW_PATH

struct fixture {
	struct rig rig;
	uint32_t ioas;
	struct iommufd_access *access;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	rig_open(&f->rig);
	f->ioas = ioas_new(&f->rig);
	f->access = plain_open(&f->rig, f->ioas);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	iommufd_access_destroy(f->access);
	rig_close(&f->rig);
	free(f);
	return 0;
}

/* ---- answers --------------------------------------------------------------------------------- */

/*
 * [10000-11fff] RW, [12000-12fff] R, [13000-133ff] W, [13400-137ff] RW, hole,
 * [20000-20fff] RW nothing there, [21000-21fff] R of PROT_READ memory, [22000-22fff] RW of it
 */
static const struct {
	unsigned long iova;
	size_t length;
	unsigned int flags;
	int rc;
	size_t moved;
} cases[] = {
	{0x10000, 1, RD, 0, 1},
	{0x10000, 0x2000, WR, 0, 0x2000},
	{0x10ff1, 0x21, WR, 0, 0x21},
	{0x11fff, 2, RD, 0, 2},
	{0x11ffe, 0x1002, RD, 0, 0x1002},
	{0x10000, 0, RD, -EINVAL, 0},
	{0x99999, 0, WR, -EINVAL, 0},
	{UINT64_MAX, 2, RD, -EOVERFLOW, 0},
	{UINT64_MAX, 1, RD, -ENOENT, 0},
	{0x99999, 1, RD, -ENOENT, 0},
	{0x11ff0, 0x20, WR, -EPERM, 0x10}, /* the second is read-only: the first part is written */
	{0x12000, 1, WR, -EPERM, 0},
	{0x13000, 1, RD, -EPERM, 0},
	{0x12ff0, 0x20, RD, -EPERM, 0x10},
	{0x13000, 0x800, WR, 0, 0x800},
	{0x137ff, 2, WR, -ENOENT, 1},
	{0x137f0, 0x20, WR, -ENOENT, 0x10},
	{0x20000, 8, RD, -EFAULT, 0},
	{0x20000, 8, WR, -EFAULT, 0},
	{0x21000, 8, RD, 0, 8},
	{0x22000, 8, RD, 0, 8},
	{0x22000, 8, WR, -EFAULT, 0},
};

static void map_cases(struct fixture *f, char *nowhere, char *readable)
{
	struct rig *rig = &f->rig;

	assert_int_equal(map_at(rig, f->ioas, 0x10000, rig->mem, 0x2000, R | W), 0);
	assert_int_equal(map_at(rig, f->ioas, 0x12000, rig->mem + 0x2000, 0x1000, R), 0);
	assert_int_equal(map_at(rig, f->ioas, 0x13000, rig->mem + 0x3000, 0x400, W), 0);
	assert_int_equal(map_at(rig, f->ioas, 0x13400, rig->mem + 0x3400, 0x400, R | W), 0);
	assert_int_equal(map_at(rig, f->ioas, 0x20000, nowhere, PAGE, R | W), 0);
	assert_int_equal(map_at(rig, f->ioas, 0x21000, readable, PAGE, R), 0);
	assert_int_equal(map_at(rig, f->ioas, 0x22000, readable, PAGE, R | W), 0);
}

/* What `moved` bytes must look like on the side that was written. */
static void check_bytes(size_t i, const char *to, const char *from)
{
	char *zero = calloc(1, 0x4000);

	if (memcmp(to, from, cases[i].moved))
		fail_msg("case %zu: other bytes have moved", i);
	if (memcmp(to + cases[i].moved, zero, 0x2000 - cases[i].moved))
		fail_msg("case %zu: more bytes have moved than %#zx", i, cases[i].moved);
	free(zero);
}

static void run_case(struct fixture *f, size_t i)
{
	bool known = cases[i].iova >= 0x10000 && cases[i].iova < 0x14000;
	char *mem = known ? f->rig.mem + (cases[i].iova - 0x10000) : NULL, *buf = calloc(1, 0x4000);
	char *src = cases[i].flags & WR ? buf : f->rig.mem;
	char why[240];
	int rc;

	memset(f->rig.mem, 0, 0x6000);
	for (size_t k = 0; k < 0x4000; k++)
		src[k] = (char)(k * 13 + k / 256 + 1) | 1;
	rc = iommufd_access_rw(f->access, cases[i].iova, buf, cases[i].length, cases[i].flags);
	if (rc != cases[i].rc)
		fail_msg("case %zu, rw %#lx +%#zx flags %u: %d, not %d", i, cases[i].iova,
			 cases[i].length, cases[i].flags, rc, cases[i].rc);
	swiommu_access_reason(f->access, why, sizeof(why));
	if (rc)
		assert_string_not_equal(why, "");
	if (known)
		check_bytes(i, cases[i].flags & WR ? mem : buf, cases[i].flags & WR ? buf : mem);
	free(buf);
}

static void run_cases(struct fixture *f)
{
	char *nowhere = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *readable = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	map_cases(f, nowhere, readable);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		run_case(f, i);
	assert_int_equal(unmap_at(&f->rig, f->ioas, 0, UINT64_MAX), 0);
	munmap(nowhere, PAGE);
	munmap(readable, PAGE);
}

static void rw_answers_by_range_and_permission(void **state)
{
	run_cases(*state);
}

static void a_promise_changes_no_answer(void **state)
{
	struct fixture *f = *state;

	swiommu_access_set_direct(f->access, true);
	run_cases(f);
	run_cases(f);
}

static void detached_there_is_nothing(void **state)
{
	struct fixture *f = *state;
	char c;

	assert_int_equal(map_at(&f->rig, f->ioas, 0x1000, f->rig.mem, PAGE, R), 0);
	assert_int_equal(iommufd_access_rw(f->access, 0x1000, &c, 1, RD), 0);
	iommufd_access_detach(f->access);
	assert_int_equal(iommufd_access_rw(f->access, 0x1000, &c, 1, RD), -ENOENT);
	assert_int_equal(iommufd_access_rw(f->access, 0x1000, &c, 0, RD), -EINVAL);
	assert_int_equal(iommufd_access_rw(f->access, UINT64_MAX, &c, 2, RD), -EOVERFLOW);
	assert_int_equal(iommufd_access_attach(f->access, f->ioas), 0);
	assert_int_equal(iommufd_access_rw(f->access, 0x1000, &c, 1, RD), 0);
}

/* Under a device, with its window; the same answers, at any byte. */
static void bytes_arrive_under_a_device_too(void **state)
{
	struct fixture *f = *state;
	struct rig_device d;
	char buf[64];

	assert_int_equal(map_at(&f->rig, f->ioas, 0x10000, f->rig.mem, 2 * PAGE, R | W), 0);
	assert_int_equal(map_at(&f->rig, f->ioas, 0x12000, f->rig.mem + 4 * PAGE, PAGE, R), 0);
	assert_int_equal(rig_device_attach(&f->rig, &d, f->ioas), 0);
	for (unsigned int off = PAGE - 40; off < PAGE + 8; off++) {
		for (unsigned int len = 1; len < 64; len++) {
			memset(buf, (int)(off + len), sizeof(buf));
			memset(f->rig.mem + off, 0, 72);
			assert_int_equal(iommufd_access_rw(f->access, 0x10000 + off, buf, len, WR),
					 0);
			assert_memory_equal(f->rig.mem + off, buf, len);
			assert_int_equal(f->rig.mem[off + len], 0);
		}
	}
	assert_int_equal(iommufd_access_rw(f->access, 0x11ff8, buf, 16, WR), -EPERM);
	assert_int_equal(iommufd_access_rw(f->access, 0x12ff8, buf, 16, RD), -ENOENT);
	rig_device_remove(&d);
}

static void files_are_read_as_far_as_they_go(void **state)
{
	struct fixture *f = *state;
	struct iommu_ioas_map_file cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | R | W,
		.ioas_id = f->ioas,
		.fd = memfd_create("rw", MFD_CLOEXEC),
		.length = 2 * PAGE,
		.iova = 0x10000,
	};
	char c = 0;

	assert_int_equal(ftruncate(cmd.fd, PAGE + 100), 0);
	assert_int_equal(pwrite(cmd.fd, "f", 1, 7), 1);
	assert_int_equal(
		swiommu_ioctl(f->rig.ctx, &f->rig.caller, IOMMU_IOAS_MAP_FILE, (uintptr_t)&cmd), 0);
	assert_int_equal(iommufd_access_rw(f->access, 0x10007, &c, 1, RD), 0);
	assert_int_equal(c, 'f');
	assert_int_equal(iommufd_access_rw(f->access, 0x11000, &c, 1, RD),
			 -EINVAL); /* not a whole page */
	close(cmd.fd);
	assert_int_equal(iommufd_access_rw(f->access, 0x10007, &c, 1, RD), 0);
}

/* ---- whose memory ---------------------------------------------------------------------------- */

/*
 * Which memory is looked at, for another process' mapping of two pages that had "old" when it was pinned (if it
 * was) and has "new" mapped in its place now. Through access_rw_for(), as whom `caller` says.
 */
enum whom { MAPPER, SOMEBODY, US };

static const struct {
	bool pinned;
	enum whom caller;
	unsigned int flags;
	size_t length;
	const char *sees; /* NULL: -EFAULT */
} views[] = {
	{false, MAPPER, RD, 4, "new"},
	{false, MAPPER, RD, 2 * PAGE, "new"},
	{false, SOMEBODY, RD, 4, "new"},
	{false, SOMEBODY, RD, 2 * PAGE, "new"},
	{true, MAPPER, RD, 4, "new"}, /* the fast way */
	{true, MAPPER, RD, 2 * PAGE, "new"},
	{true, MAPPER, SLOW, 4, "new"}, /* the medium way */
	{true, MAPPER, SLOW, 2 * PAGE, "old"},
	{true, SOMEBODY, RD, 4, "new"},
	{true, SOMEBODY, RD, 2 * PAGE, "old"},
	{true, SOMEBODY, KT, 2 * PAGE, "new"},
	{true, US, RD, 4, "old"}, /* the library's own way: what a device sees */
	{true, US, RD, 2 * PAGE, "old"},
	{false, US, RD, 4, "new"},
};

static void remap(void *data)
{
	if (mmap(data, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) == data)
		strcpy(data, "new");
}

static int rw_as(struct fixture *f, struct child *child, enum whom whom, unsigned long iova,
		 void *buf, size_t len, unsigned int flags)
{
	struct mem_owner *us;
	int rc;

	if (whom == US)
		return iommufd_access_rw(f->access, iova, buf, len, flags);
	if (whom == MAPPER)
		return access_rw_for(f->access, child->memory, iova, buf, len, flags, NULL);
	assert_int_equal(mem_owner_local(&us), 0);
	rc = access_rw_for(f->access, us, iova, buf, len, flags, NULL);
	mem_owner_put(us);
	return rc;
}

static void check_views(struct fixture *f, bool pinned)
{
	char *mem = f->rig.mem, buf[2 * PAGE];
	struct rig_device d;
	struct child child;
	int rc;

	strcpy(mem, "old");
	child_start(&f->rig, &child, remap, mem);
	assert_int_equal(map_at(&f->rig, f->ioas, 0x10000, mem, 2 * PAGE, R | W), 0);
	if (pinned)
		assert_int_equal(rig_device_attach(&f->rig, &d, f->ioas), 0);
	child_act(&child);
	for (size_t i = 0; i < ARRAY_SIZE(views); i++) {
		if (views[i].pinned != pinned)
			continue;
		memset(buf, 0, sizeof(buf));
		rc = rw_as(f, &child, views[i].caller, 0x10000, buf, views[i].length,
			   views[i].flags);
		if (rc || strcmp(buf, views[i].sees))
			fail_msg("view %zu: %d, sees %s", i, rc, buf);
	}
	if (pinned)
		rig_device_remove(&d);
	assert_int_equal(unmap_at(&f->rig, f->ioas, 0x10000, 2 * PAGE), 0);
	child_end(&f->rig, &child);
}

static void the_caller_decides_what_is_seen(void **state)
{
	check_views(*state, false);
	check_views(*state, true);
}

static void unmap_it(void *data)
{
	munmap(data, 2 * PAGE);
}

static void unmapped_memory_is_seen_only_where_it_is_pinned(void **state)
{
	struct fixture *f = *state;
	char buf[2 * PAGE] = "";
	struct rig_device d;
	struct child child;

	strcpy(f->rig.mem, "old");
	child_start(&f->rig, &child, unmap_it, f->rig.mem);
	assert_int_equal(map_at(&f->rig, f->ioas, 0x10000, f->rig.mem, 2 * PAGE, R | W), 0);
	assert_int_equal(rig_device_attach(&f->rig, &d, f->ioas), 0);
	child_act(&child);
	assert_int_equal(rw_as(f, &child, MAPPER, 0x10000, buf, 4, RD), -EFAULT);
	assert_int_equal(rw_as(f, &child, MAPPER, 0x10000, buf, 4, SLOW), -EFAULT);
	assert_int_equal(rw_as(f, &child, MAPPER, 0x10000, buf, 2 * PAGE, SLOW), 0);
	assert_string_equal(buf, "old");
	assert_int_equal(rw_as(f, &child, US, 0x10000, buf, 4, RD), 0);
	rig_device_remove(&d);
	assert_int_equal(rw_as(f, &child, US, 0x10000, buf, 4, RD), -EFAULT);
	child_end(&f->rig, &child);
}

static void protect_it(void *data)
{
	mprotect(data, 2 * PAGE, PROT_READ);
}

static void the_slow_way_demands_what_a_pin_demands(void **state)
{
	struct fixture *f = *state;
	char buf[2 * PAGE];
	struct child child;

	child_start(&f->rig, &child, protect_it, f->rig.mem);
	assert_int_equal(map_at(&f->rig, f->ioas, 0x10000, f->rig.mem, 2 * PAGE, R | W), 0);
	child_act(&child);
	assert_int_equal(rw_as(f, &child, MAPPER, 0x10000, buf, 2 * PAGE, RD), 0);
	assert_int_equal(rw_as(f, &child, SOMEBODY, 0x10000, buf, PAGE, RD), 0);
	assert_int_equal(rw_as(f, &child, SOMEBODY, 0x10800, buf, PAGE, RD),
			 -EFAULT); /* two pages */
	assert_int_equal(rw_as(f, &child, SOMEBODY, 0x10000, buf, 2 * PAGE, RD), -EFAULT);
	assert_int_equal(rw_as(f, &child, SOMEBODY, 0x10000, buf, 2 * PAGE, KT), 0);
	assert_int_equal(rw_as(f, &child, MAPPER, 0x10000, buf, 4, WR), -EFAULT);
	child_end(&f->rig, &child);
}

static void of_a_dead_process_only_pinned_memory_is_left(void **state)
{
	struct fixture *f = *state;
	struct rig_device d;
	struct child child;
	char buf[8] = "";
	uint32_t copy = ioas_new(&f->rig);

	strcpy(f->rig.mem, "left");
	child_start(&f->rig, &child, NULL, NULL);
	assert_int_equal(map_at(&f->rig, f->ioas, 0x10000, f->rig.mem, PAGE, R | W), 0);
	assert_int_equal(rig_device_attach(&f->rig, &d, f->ioas), 0);
	close(child.to);
	waitpid(child.pid, NULL, 0);
	assert_int_equal(rw_as(f, &child, US, 0x10000, buf, 5, RD), 0);
	assert_string_equal(buf, "left");
	memset(buf, 0, sizeof(buf));
	assert_int_equal(rw_as(f, &child, SOMEBODY, 0x10000, buf, 5, RD),
			 0); /* medium has become slow */
	assert_string_equal(buf, "left");
	assert_int_equal(rw_as(f, &child, SOMEBODY, 0x10000, buf, 5, KT), 0);
	rig_device_remove(&d);
	assert_int_equal(rw_as(f, &child, US, 0x10000, buf, 5, RD), -EFAULT);
	assert_int_equal(rw_as(f, &child, SOMEBODY, 0x10000, buf, 5, RD), -EFAULT);
	assert_int_equal(rig_device_attach(&f->rig, &d, f->ioas), -EFAULT);
	rig_device_remove(&d);
	assert_int_equal(copy_at(&f->rig, f->ioas, 0x10000, copy, 0x10000, PAGE, R), 0);
	assert_int_equal(unmap_at(&f->rig, f->ioas, 0x10000, PAGE), 0);
	close(child.from);
	mem_owner_put(child.memory);
	f->rig.caller.ops = child.local_ops;
}

static void own_memory_is_what_is_mapped_now(void **state)
{
	struct fixture *f = *state;
	char *mem = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct page *page;
	struct drv drv;
	char buf[8] = "";

	drv_open(&f->rig, &drv, f->ioas);
	strcpy(mem, "old");
	assert_int_equal(map_at(&f->rig, f->ioas, 0x10000, mem, 2 * PAGE, R | W), 0);
	assert_int_equal(iommufd_access_pin_pages(drv.access, 0x10000, PAGE, &page, RD), 0);
	remap(mem);
	assert_int_equal(iommufd_access_rw(f->access, 0x10000, buf, 4, RD), 0);
	assert_string_equal(buf, "new");
	assert_string_equal(page_address(page), "old");
	munmap(mem, 2 * PAGE);
	assert_int_equal(iommufd_access_rw(f->access, 0x10000, buf, 4, RD), -EFAULT);
	assert_string_equal(page_address(page), "old");
	iommufd_access_unpin_pages(drv.access, 0x10000, PAGE);
	drv_close(&drv);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(rw_answers_by_range_and_permission),
		T(a_promise_changes_no_answer),
		T(detached_there_is_nothing),
		T(bytes_arrive_under_a_device_too),
		T(files_are_read_as_far_as_they_go),
		T(the_caller_decides_what_is_seen),
		T(unmapped_memory_is_seen_only_where_it_is_pinned),
		T(the_slow_way_demands_what_a_pin_demands),
		T(of_a_dead_process_only_pinned_memory_is_left),
		T(own_memory_is_what_is_mapped_now),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
