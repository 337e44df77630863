// SPDX-License-Identifier: MIT
/* Pinning and unpinning through an access: each answer, and what the pages are. */
#include "access_rig.h"

#include "mem/backing.h"

/*
 * The IOAS of the tables, IOVA = 0x10000 + offset in memory:
 *   [10000-13fff] RW, [14000-17fff] R, hole, [19000-19fff] W,
 *   [40000-40fff] RW where no memory is
 */
struct fixture {
	struct rig rig;
	uint32_t ioas;
	struct drv drv;
	char *nowhere;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct rig *rig = &f->rig;

	rig_open(rig);
	for (size_t i = 0; i < 16 * PAGE; i++) /* no page like another */
		rig->mem[i] = (char)(i / PAGE * 7 + i % 251);
	f->ioas = ioas_new(rig);
	f->nowhere = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(map_at(rig, f->ioas, 0x10000, rig->mem, 4 * PAGE, R | W), 0);
	assert_int_equal(map_at(rig, f->ioas, 0x14000, rig->mem + 4 * PAGE, 4 * PAGE, R), 0);
	assert_int_equal(map_at(rig, f->ioas, 0x19000, rig->mem + 9 * PAGE, PAGE, W), 0);
	assert_int_equal(map_at(rig, f->ioas, 0x40000, f->nowhere, PAGE, R | W), 0);
	drv_open(rig, &f->drv, f->ioas);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	drv_close(&f->drv);
	munmap(f->nowhere, PAGE);
	rig_close(&f->rig);
	free(f);
	return 0;
}

#define RD IOMMUFD_ACCESS_RW_READ
#define WR IOMMUFD_ACCESS_RW_WRITE

static const struct {
	unsigned long iova, length;
	unsigned int flags;
	int rc;
	unsigned int pages;
} pins[] = {
	{0x10000, PAGE, RD, 0, 1},
	{0x10000, PAGE, WR, 0, 1},
	{0x10000, 1, RD, 0, 1},
	{0x10000, PAGE + 1, RD, 0, 2},
	{0x12000, 2 * PAGE, WR, 0, 2},
	{0x12000, 3 * PAGE, RD, 0, 3}, /* over two areas */
	{0x10000, 0, RD, -EINVAL, 0},
	{0x10800, PAGE, RD, -EINVAL, 0},
	{0x10001, 1, RD, -EINVAL, 0},
	{UINT64_MAX - 0xfff, 2 * PAGE, RD, -EOVERFLOW, 0},
	{0x99000, PAGE, RD, -ENOENT, 0},
	{0x16000, 3 * PAGE, RD, -ENOENT, 0}, /* into the hole */
	{0x18000, PAGE, RD, -ENOENT, 0},
	{0x14000, PAGE, WR, -EPERM, 0},
	{0x10000, 5 * PAGE, WR, -EPERM, 0}, /* the second area is read-only */
	{0x19000, PAGE, RD, -EPERM, 0},
	{0x19000, PAGE, WR, 0, 1},
	{0x16000, 4 * PAGE, WR, -EPERM, 0}, /* before the hole behind it */
	{0x19000, 2 * PAGE, RD, -EPERM, 0}, /* the same, EPERM first */
	{0x19000, 2 * PAGE, WR, -ENOENT, 0},
	{0x40000, PAGE, RD, -EFAULT, 0},
	{0x40000, 1, WR, -EFAULT, 0},
	{0x40000, 2 * PAGE, RD, -EFAULT, 0}, /* before the hole behind it */
	{0xffffffffffffe000, PAGE, RD, -ENOENT, 0},
};

static void check_pin(struct fixture *f, size_t i)
{
	struct iommufd_access *access = f->drv.access;
	struct page *pages[8], *canary = (struct page *)&pages;
	long before[3], after[3];
	char why[240];
	int rc;

	for (int k = 0; k < 8; k++)
		pages[k] = canary;
	for (int k = 0; k < 3; k++)
		before[k] = pins_at(&f->rig, f->ioas, (uint64_t[]){0x10000, 0x14000, 0x19000}[k]);
	rc = iommufd_access_pin_pages(access, pins[i].iova, pins[i].length, pages, pins[i].flags);
	if (rc != pins[i].rc)
		fail_msg("pin %#lx +%#lx flags %u: %d, not %d", pins[i].iova, pins[i].length,
			 pins[i].flags, rc, pins[i].rc);
	swiommu_access_reason(access, why, sizeof(why));
	if (rc)
		assert_string_not_equal(why, "");
	for (unsigned int k = 0; !rc && k < pins[i].pages; k++) {
		assert_true((uintptr_t)page_address(pages[k]) % PAGE == 0);
		assert_memory_equal(page_address(pages[k]),
				    f->rig.mem + (pins[i].iova - 0x10000) + k * PAGE, PAGE);
	}
	if (!rc) {
		assert_ptr_equal(pages[pins[i].pages], canary);
		iommufd_access_unpin_pages(access, pins[i].iova, pins[i].length);
	}
	for (int k = 0; k < 3; k++) {
		after[k] = pins_at(&f->rig, f->ioas, (uint64_t[]){0x10000, 0x14000, 0x19000}[k]);
		assert_int_equal(before[k], after[k]);
	}
	assert_int_equal(f->rig.warnings, 0);
}

static void pin_answers_by_range_and_permission(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(pins); i++)
		check_pin(*state, i);
}

static void who_may_pin(void **state)
{
	static const struct iommufd_access_ops no_pages = {.unmap = drv_unmap},
					       no_unmap = {.needs_pin_pages = 1};
	static const struct iommufd_access_ops *bad[] = {&no_pages, &no_unmap, &plain_ops};
	struct fixture *f = *state;
	struct iommufd_access *access;
	uint32_t id;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		access = iommufd_access_create(f->rig.ctx, bad[i], &f->drv, &id);
		assert_int_equal(iommufd_access_attach(access, f->ioas), 0);
		assert_int_equal(iommufd_access_pin_pages(access, 0x10000, PAGE, NULL, RD),
				 -EINVAL);
		iommufd_access_destroy(access);
	}
	iommufd_access_detach(f->drv.access);
	assert_int_equal(iommufd_access_pin_pages(f->drv.access, 0x10000, PAGE, NULL, RD), -ENOENT);
	assert_int_equal(iommufd_access_pin_pages(f->drv.access, 0x10000, 0, NULL, RD), -EINVAL);
	assert_int_equal(iommufd_access_attach(f->drv.access, f->ioas), 0);
}

/* Areas that do not begin or end with pages can only be met by who does not demand pages of the IOAS. */
static void pieces_must_begin_and_end_with_pages(void **state)
{
	struct fixture *f = *state;
	struct rig *rig = &f->rig;
	uint32_t ioas = ioas_new(rig);
	struct iommufd_access *access = plain_open(rig, ioas);

	assert_int_equal(map_at(rig, ioas, 0x10000, rig->mem, 0x400, R | W), 0);
	assert_int_equal(map_at(rig, ioas, 0x10400, rig->mem + 0x1000, 0x1000, R | W), 0);
	assert_int_equal(map_at(rig, ioas, 0x20800, rig->mem + 0x3000, 0x1000, R | W), 0);
	assert_int_equal(access_pin(access, 0x10000, 0x400, NULL, RD, NULL), 0);
	assert_int_equal(access_pin(access, 0x10000, 0x401, NULL, RD, NULL),
			 -EINVAL); /* ends inside a page */
	assert_int_equal(access_pin(access, 0x10400, 0x1000, NULL, RD, NULL),
			 0); /* what counts is the memory */
	assert_int_equal(access_pin(access, 0x20800, 0x1000, NULL, RD, NULL), 0);
	assert_int_equal(access_pin(access, 0x21000, 0x800, NULL, RD, NULL), -EINVAL);
	assert_int_equal(pins_at(rig, ioas, 0x10000), 1);
	iommufd_access_unpin_pages(access, 0x10000, 0x400);
	iommufd_access_unpin_pages(access, 0x10400, 0x1000);
	iommufd_access_unpin_pages(access, 0x20800, 0x1000);
	assert_int_equal(rig->warnings, 0);
	iommufd_access_destroy(access);
}

static void pins_nest_and_overlap(void **state)
{
	struct fixture *f = *state;
	struct page *a[4], *b[4], *c[4];
	struct drv other;

	drv_open(&f->rig, &other, f->ioas);
	assert_int_equal(iommufd_access_pin_pages(f->drv.access, 0x10000, 4 * PAGE, a, RD), 0);
	assert_int_equal(iommufd_access_pin_pages(f->drv.access, 0x10000, 4 * PAGE, b, RD), 0);
	assert_int_equal(iommufd_access_pin_pages(other.access, 0x11000, 2 * PAGE, c, WR), 0);
	assert_memory_equal(a, b, sizeof(a)); /* the same pages have the same names */
	assert_memory_equal(a + 1, c, 2 * sizeof(*a));
	assert_int_equal(pins_at(&f->rig, f->ioas, 0x10000), 3);
	iommufd_access_unpin_pages(f->drv.access, 0x10000, 4 * PAGE);
	iommufd_access_unpin_pages(f->drv.access, 0x10000, 4 * PAGE);
	assert_int_equal(pins_at(&f->rig, f->ioas, 0x10000), 1);
	strcpy(page_address(c[0]), "still here");
	assert_string_equal(f->rig.mem + PAGE, "still here");
	iommufd_access_unpin_pages(other.access, 0x11000, 2 * PAGE);
	assert_int_equal(pins_at(&f->rig, f->ioas, 0x10000), 0);
	drv_close(&other);
}

static void a_wrong_unpin_only_warns(void **state)
{
	static const struct {
		unsigned long iova, length;
	} wrong[] = {
		{0x10000, 0},
		{UINT64_MAX, 2},
		{0x99000, PAGE},
		{0x14000, PAGE} /* nothing pinned there */,
	};
	struct fixture *f = *state;

	iommufd_access_unpin_pages(f->drv.access, 0x10000, PAGE); /* nothing ever pinned */
	assert_int_equal(f->rig.warnings, 1);
	assert_int_equal(drv_pin(&f->drv, 0x10000, PAGE, RD), 0);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		iommufd_access_unpin_pages(f->drv.access, wrong[i].iova, wrong[i].length);
		assert_int_equal(f->rig.warnings, 2 + i);
		assert_int_equal(pins_at(&f->rig, f->ioas, 0x10000), 1);
	}
	drv_unpin_all(&f->drv);
	iommufd_access_detach(f->drv.access);
	iommufd_access_unpin_pages(f->drv.access, 0x10000, PAGE);
	assert_int_equal(f->rig.warnings, 2 + ARRAY_SIZE(wrong));
}

/* A page that is pinned stays the same when a domain comes and goes. */
static void pages_are_those_of_a_domain(void **state)
{
	struct fixture *f = *state;
	struct rig *rig = &f->rig;
	uint32_t ioas = ioas_new(rig);
	struct page *before[2], *during[2], *after[2];
	struct rig_device d;

	assert_int_equal(iommufd_access_replace(f->drv.access, ioas), 0);
	assert_int_equal(map_at(rig, ioas, 0x10000, rig->mem, 4 * PAGE, R | W), 0);
	assert_int_equal(iommufd_access_pin_pages(f->drv.access, 0x11000, 2 * PAGE, before, RD), 0);
	assert_int_equal(rig_device_attach(rig, &d, ioas), 0);
	assert_int_equal(iommufd_access_pin_pages(f->drv.access, 0x11000, 2 * PAGE, during, RD), 0);
	rig_device_remove(&d);
	assert_int_equal(iommufd_access_pin_pages(f->drv.access, 0x11000, 2 * PAGE, after, RD), 0);
	assert_memory_equal(before, during, sizeof(before));
	assert_memory_equal(before, after, sizeof(before));
	for (int i = 0; i < 3; i++)
		iommufd_access_unpin_pages(f->drv.access, 0x11000, 2 * PAGE);
	assert_int_equal(pins_at(rig, ioas, 0x10000), 0);
}

/* ---- another process' memory ----------------------------------------------------------------- */

static void private_memory_of_another_process_has_no_address(void **state)
{
	struct fixture *f = *state;
	struct rig *rig = &f->rig;
	char *private =
		mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct page *shared_page[2], *far[2], *again[2];
	struct child child;
	char buf[8] = "";

	strcpy(private, "before");
	child_start(rig, &child, NULL, NULL);
	strcpy(private, "parent");
	assert_int_equal(map_at(rig, f->ioas, 0x50000, private, 2 * PAGE, R | W), 0);
	assert_int_equal(map_at(rig, f->ioas, 0x60000, rig->mem + 2 * PAGE, 2 * PAGE, R | W), 0);
	assert_int_equal(iommufd_access_pin_pages(f->drv.access, 0x50000, 2 * PAGE, far, WR), 0);
	assert_int_equal(iommufd_access_pin_pages(f->drv.access, 0x50000, 2 * PAGE, again, WR), 0);
	assert_memory_equal(far, again, sizeof(far));
	assert_ptr_not_equal(far[0], far[1]);
	assert_null(page_address(far[0]));
	assert_null(page_address(far[1]));
	assert_int_equal(iommufd_access_rw(f->drv.access, 0x50000, buf, 7, RD), 0);
	assert_string_equal(buf, "before");
	/* Shared memory is mapped here as well: a second address of the same bytes. */
	assert_int_equal(
		iommufd_access_pin_pages(f->drv.access, 0x60000, 2 * PAGE, shared_page, WR), 0);
	assert_non_null(page_address(shared_page[1]));
	strcpy(page_address(shared_page[1]), "device");
	assert_string_equal(rig->mem + 3 * PAGE, "device");
	iommufd_access_unpin_pages(f->drv.access, 0x50000, 2 * PAGE);
	iommufd_access_unpin_pages(f->drv.access, 0x50000, 2 * PAGE);
	iommufd_access_unpin_pages(f->drv.access, 0x60000, 2 * PAGE);
	child_end(rig, &child);
	assert_int_equal(iommufd_access_pin_pages(f->drv.access, 0x50000, PAGE, far, RD), -EFAULT);
	assert_int_equal(unmap_at(rig, f->ioas, 0x50000, 2 * PAGE), 0);
	munmap(private, 2 * PAGE);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(pin_answers_by_range_and_permission),
		T(who_may_pin),
		T(pieces_must_begin_and_end_with_pages),
		T(pins_nest_and_overlap),
		T(a_wrong_unpin_only_warns),
		T(pages_are_those_of_a_domain),
		T(private_memory_of_another_process_has_no_address),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
