// SPDX-License-Identifier: MIT
/* IOASes without a device: MAP, MAP_FILE, COPY, UNMAP, the two calls on ranges, HUGE_PAGES. */
#include <fcntl.h>

#include "suite.h"

typedef struct iommu_iova_range range_t;

/* A VA whose alignment asks for no more than a page of the IOVA. */
#define VA 0x1000

static void no_lower_than_a_page(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	uint64_t iova;

	/* The input value of iova is not looked at without FIXED. */
	iova = 0x55;
	CHECK_RC(map(c, ioas, RW, 0, 1, &iova), 0);
	CHECK_EQ(iova, 0x1000);
	CHECK_RC(map(c, ioas, RW, 0, 1, &iova), 0);
	CHECK_EQ(iova, 0x1001);
}

static void half_the_space(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	uint64_t iova;

	CHECK_RC(map(c, ioas, RW, 0, 0x7fffffffffffffff, NULL), -EOVERFLOW);
	CHECK_RC(map(c, ioas, RW, 0, 0x7ffffffffffffffe, &iova), 0);
	CHECK_EQ(iova, suite.huge);
}

static void too_long(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	CHECK_RC(map(c, ioas, RW, 1, MAX - 1, NULL), -EINVAL);
	CHECK_RC(map(c, ioas, RW, 0, MAX - PAGE + 1, NULL), -EINVAL);
	CHECK_RC(map(c, ioas, RW, 0, 0, NULL), -EINVAL);
	CHECK_RC(map(c, ioas, RW, 0, MAX, NULL), -EOVERFLOW);
	CHECK_RC(map_at(c, ioas, 0, 0, MAX - PAGE), 0);
}

static void end_of_the_address_space(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	CHECK_RC(map(c, ioas, RW, MAX, 1, NULL), -EOVERFLOW);
	CHECK_RC(map(c, ioas, RW, MAX - 1, 1, NULL), 0);
	CHECK_RC(map(c, ioas, RW, MAX - 1, 2, NULL), -EOVERFLOW);
}

static void fixed_ends(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	CHECK_RC(map_at(c, ioas, 0, VA, PAGE), 0);
	CHECK_RC(map_at(c, ioas, MAX, VA, 1), -EOVERFLOW);
	CHECK_RC(map_at(c, ioas, MAX - 5, VA, 8), -EOVERFLOW);
	CHECK_RC(map_at(c, ioas, MAX - 1, VA, 2), 0);
	unmap_expect(c, ioas, 0, MAX, PAGE + 2);
}

static void map_without_fixed_but_iova_max(struct ctx *c)
{
	struct iommu_ioas_map cmd = {
		.size = sizeof(cmd),
		.flags = RW,
		.ioas_id = ioas_new(c),
		.user_va = VA,
		.length = PAGE,
		.iova = MAX,
	};

	CHECK_RC(call(c, IOMMU_IOAS_MAP, &cmd), -EOVERFLOW);
	CHECK_EQ(cmd.iova, MAX);
	cmd.iova = MAX - 1;
	CHECK_RC(call(c, IOMMU_IOAS_MAP, &cmd), 0);
	CHECK_EQ(cmd.iova, 0x1000);
}

static void map_checks_before_the_id(struct ctx *c)
{
	CHECK_RC(map(c, 99, 0, VA, PAGE, NULL), -EINVAL);
	CHECK_RC(map(c, 99, RW | 8, VA, PAGE, NULL), -EOPNOTSUPP);
	CHECK_RC(map(c, 99, 1u << 31, MAX, MAX, NULL), -EOPNOTSUPP);
	CHECK_RC(map(c, 99, 0, VA, MAX, NULL), -EOVERFLOW);
	CHECK_RC(map(c, 99, RW, MAX, 2, NULL), -ENOENT);
	CHECK_RC(map(c, 99, RW, VA, 0, NULL), -ENOENT);
}

/* Each step of MAP against the next: what is wrong twice is told by the earlier. */
static void map_order_of_checks(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	CHECK_RC(huge_pages_set(c, ioas, 0), 0);
	reserve(c, ioas, 0x10000, 0x1000);
	CHECK_RC(map_at(c, ioas, 0x11000, VA, PAGE), 0);
	CHECK_RC(map_at(c, ioas, 0x10001, VA + 1, PAGE + 1), -EINVAL);
	CHECK_RC(map_at(c, ioas, 0x11001, VA, PAGE), -EINVAL);
	CHECK_RC(map_at(c, ioas, MAX - 0xfff, VA, 2 * PAGE), -EOVERFLOW);
	CHECK_RC(map_at(c, ioas, 0x10000, VA + 1, 2 * PAGE), -EINVAL);
	CHECK_RC(map_at(c, ioas, 0x11000, VA + 1, PAGE), -EEXIST);
	CHECK_RC(map_at(c, ioas, 0x20000, VA + 1, PAGE), -EINVAL);
	CHECK_RC(map(c, ioas, RW, VA + 1, PAGE, NULL), -EINVAL);
	unmap_expect(c, ioas, 0, MAX, PAGE);
}

static void reserved_before_existing(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	reserve(c, ioas, 0x2000, 0x1000);
	CHECK_RC(map_at(c, ioas, 0x3000, VA, 0x1000), 0);
	CHECK_RC(map_at(c, ioas, 0x2000, VA, 0x2000), -EINVAL);
	CHECK_RC(map_at(c, ioas, 0x3000, VA, 0x2000), -EEXIST);
	CHECK_RC(map_at(c, ioas, 0x1000, VA, 0x1001), -EINVAL);
	CHECK_RC(map_at(c, ioas, 0x1000, VA, 0x1000), 0);
}

static void allowed_neighbours_are_one(struct ctx *c)
{
	const range_t list[] = {{0x2000, 0x2fff}, {0x1000, 0x1fff}};
	uint32_t ioas = ioas_new(c);
	uint64_t iova;

	CHECK_RC(allow(c, ioas, 2, list), 0);
	CHECK_RC(map(c, ioas, RW, VA, 0x2000, &iova), 0);
	CHECK_EQ(iova, 0x1000);
	CHECK_RC(map(c, ioas, RW, VA, 0x2000, &iova), -ENOSPC);
	CHECK_RC(map_at(c, ioas, 0x8000, VA, PAGE), 0); /* row 38 */
	CHECK_RC(allow(c, ioas, 0, NULL), 0);
	CHECK_RC(map(c, ioas, RW, VA, 0x2000, &iova), 0);
	CHECK_EQ(iova, 0x3000);
}

static void page_zero_of_the_allowed(struct ctx *c)
{
	const range_t list[] = {{0, 0x1fff}};
	uint32_t ioas = ioas_new(c);
	uint64_t iova;

	CHECK_RC(allow(c, ioas, 1, list), 0);
	CHECK_RC(map(c, ioas, RW, VA, 0x1000, &iova), 0);
	CHECK_EQ(iova, 0x1000);
	CHECK_RC(map(c, ioas, RW, VA, 0x1000, &iova), -ENOSPC);
	CHECK_RC(map_at(c, ioas, 0, VA, 0x1000), 0);
}

static void last_page_of_the_space(struct ctx *c)
{
	const range_t list[] = {{MAX - 0x2fff, MAX}};
	uint32_t ioas = ioas_new(c);
	uint64_t iova;

	CHECK_RC(allow(c, ioas, 1, list), 0);
	CHECK_RC(map(c, ioas, RW, VA, 0x1000, &iova), 0);
	CHECK_EQ(iova, MAX - 0x2fff);
	CHECK_RC(map(c, ioas, RW, VA, 0x1000, &iova), 0);
	CHECK_EQ(iova, MAX - 0x1fff);
	CHECK_RC(map(c, ioas, RW, VA, 0x1000, &iova), -ENOSPC);
}

static void gap_of_one_byte(struct ctx *c)
{
	const range_t list[] = {{0x1000, 0x1001}};
	uint32_t ioas = ioas_new(c);
	uint64_t iova;

	CHECK_RC(allow(c, ioas, 1, list), 0);
	CHECK_RC(map(c, ioas, RW, 0, 1, &iova), 0);
	CHECK_EQ(iova, 0x1000);
	CHECK_RC(map(c, ioas, RW, 0, 1, &iova), -ENOSPC);
}

static void exact_fit(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	uint64_t iova;

	reserve(c, ioas, 0, 0x2000);
	reserve(c, ioas, 0x3000, MAX - 0x3000 + 1);
	CHECK_RC(map(c, ioas, RW, VA, 0x1000, &iova), 0);
	CHECK_EQ(iova, 0x2000);
	CHECK_RC(map(c, ioas, RW, VA, 0x1000, &iova), -ENOSPC);
}

static void allow_entries(struct ctx *c)
{
	const range_t single[] = {{0x1000, 0x1000}}, backwards[] = {{0x2000, 0x1000}};
	const range_t overlap[] = {{0x1000, 0x2000}, {0x2000, 0x3000}};
	const range_t adjacent[] = {{0x1000, 0x1fff}, {0x2000, 0x3000}};
	const range_t all[] = {{0, MAX}};
	uint32_t ioas = ioas_new(c);

	CHECK_RC(allow(c, ioas, 1, single), -EINVAL);
	CHECK_RC(allow(c, ioas, 1, backwards), -EINVAL);
	CHECK_RC(allow(c, ioas, 2, overlap), -EINVAL);
	CHECK_RC(allow(c, ioas, 2, adjacent), 0);
	CHECK_RC(allow(c, ioas, 1, all), 0);
	CHECK_RC(allow(c, 99, 1, single), -ENOENT);
}

static void allow_list_at_a_page_end(struct ctx *c)
{
	range_t *list = (void *)page_end(2 * sizeof(*list));
	uint32_t ioas = ioas_new(c);

	list[0] = (range_t){0x1000, 0x1fff};
	list[1] = (range_t){0x3000, 0x3fff};
	CHECK_RC(allow(c, ioas, 2, list), 0);
	CHECK_RC(allow(c, ioas, 3, list), -EFAULT);
	CHECK_RC(allow(c, ioas, 0xffffffff, list), -EFAULT);
	list[1].last = 0x3000;
	CHECK_RC(allow(c, ioas, 3, list), -EINVAL);
	CHECK_RC(allow(c, ioas, 1, (void *)(uintptr_t)bad_address()), -EFAULT);
	/* None of those has replaced the list. */
	CHECK_RC(map(c, ioas, RW, VA, 0x1000, NULL), 0);
	CHECK_RC(map(c, ioas, RW, VA, 0x1000, NULL), 0);
	CHECK_RC(map(c, ioas, RW, VA, 0x1000, NULL), -ENOSPC);
}

static void allow_over_an_area(struct ctx *c)
{
	const range_t list[] = {{0x1000, 0x3fff}};
	uint32_t ioas = ioas_new(c);

	CHECK_RC(map_at(c, ioas, 0x2000, VA, PAGE), 0);
	CHECK_RC(allow(c, ioas, 1, list), 0);
}

static void allow_meets_reserved(struct ctx *c)
{
	const range_t good[] = {{0x8000, 0x8fff}}, bad[] = {{0x1000, 0x3000}};
	uint32_t ioas = ioas_new(c);
	uint64_t iova;

	CHECK_RC(allow(c, ioas, 1, good), 0);
	reserve(c, ioas, 0x3000, 0x1000);
	CHECK_RC(allow(c, ioas, 1, bad), -EADDRINUSE);
	CHECK_RC(map(c, ioas, RW, VA, PAGE, &iova), 0);
	CHECK_EQ(iova, 0x8000);
	CHECK_RC(reserve_try(c, ioas, 0x8fff, 1), -EADDRINUSE);
}

static void allow_nothing(struct ctx *c)
{
	const range_t list[] = {{0x8000, 0x8fff}};
	uint32_t ioas = ioas_new(c);
	uint64_t iova;

	CHECK_RC(allow(c, ioas, 1, list), 0);
	CHECK_RC(allow(c, ioas, 0, (void *)(uintptr_t)bad_address()), 0);
	CHECK_RC(map(c, ioas, RW, VA, PAGE, &iova), 0);
	CHECK_EQ(iova, 0x1000);
}

static void ranges_of_a_new_ioas(struct ctx *c)
{
	uint32_t ioas = ioas_new(c), n = 3;
	range_t got[3] = {{0}};
	uint64_t align = 0;

	CHECK_RC(iova_ranges(c, ioas, &n, got, &align), 0);
	CHECK_EQ(n, 1);
	CHECK_EQ(got[0].start, 0);
	CHECK_EQ(got[0].last, MAX);
	CHECK_EQ(align, 1);
	CHECK_RC(iova_ranges(c, 99, &n, got, &align), -ENOENT);
}

static void ranges_with_too_little_room(struct ctx *c)
{
	uint32_t ioas = ioas_new(c), n;
	void *bad = (void *)(uintptr_t)bad_address();
	range_t got[2] = {{0}, {77, 77}};
	uint64_t align = 0;

	reserve(c, ioas, 0x10000, 0x10000);
	n = 1;
	CHECK_RC(iova_ranges(c, ioas, &n, got, &align), -EMSGSIZE);
	CHECK_EQ(n, 2);
	CHECK_EQ(align, 1);
	CHECK_EQ(got[0].last, 0xffff);
	CHECK_EQ(got[1].start, 77);
	n = 0;
	CHECK_RC(iova_ranges(c, ioas, &n, bad, NULL), -EMSGSIZE);
	CHECK_EQ(n, 2);
	n = 2;
	CHECK_RC(iova_ranges(c, ioas, &n, bad, NULL), -EFAULT);
	CHECK_EQ(n, 2);
	CHECK_RC(iova_ranges(c, ioas, &n, got, NULL), 0);
	CHECK_EQ(got[1].start, 0x20000);
	CHECK_EQ(got[1].last, MAX);
}

static void ranges_at_the_end(struct ctx *c)
{
	uint32_t ioas = ioas_new(c), n = 1;
	range_t got = {0};

	reserve(c, ioas, 0, MAX);
	CHECK_RC(iova_ranges(c, ioas, &n, &got, NULL), 0);
	CHECK_EQ(n, 1);
	CHECK_EQ(got.start, MAX);
	CHECK_EQ(got.last, MAX);
	reserve(c, ioas, MAX, 1);
	CHECK_RC(iova_ranges(c, ioas, &n, &got, NULL), 0);
	CHECK_EQ(n, 0);
}

static void reservations_overlap(struct ctx *c)
{
	uint32_t ioas = ioas_new(c), n = 4;
	range_t got[4] = {{0}};

	reserve(c, ioas, 0x1000, 0x3000);
	reserve(c, ioas, 0x2000, 0x1000);
	reserve(c, ioas, 0x3000, 0x4000);
	reserve(c, ioas, 0x7000, 0x1000);
	reserve(c, ioas, 0x9000, 0x1000);
	CHECK_RC(iova_ranges(c, ioas, &n, got, NULL), 0);
	CHECK_EQ(n, 3);
	CHECK_EQ(got[0].last, 0xfff);
	CHECK_EQ(got[1].start, 0x8000);
	CHECK_EQ(got[1].last, 0x8fff);
	CHECK_EQ(got[2].start, 0xa000);
	CHECK_RC(map_at(c, ioas, 0x8000, VA, PAGE), 0);
	CHECK_RC(reserve_try(c, ioas, 0x8fff, 1), -EADDRINUSE);
	CHECK_RC(reserve_try(c, ioas, 0x7000, 0x1001), -EADDRINUSE);
	reserve(c, ioas, 0x7000, 0x1000);
}

static void huge_pages_without_areas(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	CHECK_EQ(huge_pages_get(c, ioas), 1);
	CHECK_RC(huge_pages_set(c, ioas, 2), -EINVAL);
	CHECK_RC(huge_pages_set(c, ioas, 0), 0);
	CHECK_EQ(huge_pages_get(c, ioas), 0);
	CHECK_EQ(ioas_align(c, ioas), PAGE);
	CHECK_RC(huge_pages_set(c, ioas, 0), 0);
	CHECK_RC(huge_pages_set(c, ioas, 1), 0);
	CHECK_EQ(ioas_align(c, ioas), 1);
}

static void huge_pages_with_fine_areas(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	CHECK_RC(map_at(c, ioas, PAGE, VA, PAGE), 0);
	CHECK_RC(map_at(c, ioas, 3 * PAGE, VA, PAGE - 1), 0);
	CHECK_RC(huge_pages_set(c, ioas, 0), -EADDRINUSE);
	CHECK_EQ(huge_pages_get(c, ioas), 1);
	CHECK_EQ(ioas_align(c, ioas), 1);
	unmap_expect(c, ioas, 3 * PAGE, PAGE, PAGE - 1);
	CHECK_RC(map_at(c, ioas, 3 * PAGE, VA + 8, PAGE), 0);
	CHECK_RC(huge_pages_set(c, ioas, 0), -EADDRINUSE);
	unmap_expect(c, ioas, 3 * PAGE, PAGE, PAGE);
	CHECK_RC(map_at(c, ioas, 3 * PAGE + 8, VA, PAGE), 0);
	CHECK_RC(huge_pages_set(c, ioas, 0), -EADDRINUSE);
	unmap_expect(c, ioas, 3 * PAGE, 2 * PAGE, PAGE);
	CHECK_RC(huge_pages_set(c, ioas, 0), 0);
	CHECK_RC(map_at(c, ioas, 3 * PAGE, VA, PAGE - 1), -EINVAL);
}

static void huge_pages_order(struct ctx *c)
{
	uint64_t val = 5;

	CHECK_RC(option(c, 7, IOMMU_OPTION_HUGE_PAGES, 99, &val), -ENOENT);
	CHECK_RC(option(c, 7, IOMMU_OPTION_HUGE_PAGES, ioas_new(c), &val), -EOPNOTSUPP);
	CHECK_RC(option(c, IOMMU_OPTION_OP_SET, IOMMU_OPTION_HUGE_PAGES, 0, &val), -ENOENT);
}

static void unmap_never_cuts(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	CHECK_RC(map_at(c, ioas, 0x10000, VA, 2 * PAGE), 0);
	CHECK_RC(map_at(c, ioas, 0x12000, VA, 2 * PAGE), 0);
	CHECK_RC(unmap(c, ioas, 0x10000, PAGE, NULL), -ENOENT);
	CHECK_RC(unmap(c, ioas, 0x11000, 2 * PAGE, NULL), -ENOENT);
	CHECK_RC(unmap(c, ioas, 0x11000, PAGE, NULL), -ENOENT);
	unmap_expect(c, ioas, 0, MAX, 4 * PAGE);
}

static void unmap_keeps_what_it_did(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	CHECK_RC(map_at(c, ioas, 0x10000, VA, 2 * PAGE), 0);
	CHECK_RC(map_at(c, ioas, 0x12000, VA, 2 * PAGE), 0);
	CHECK_RC(unmap(c, ioas, 0x10000, 3 * PAGE, NULL), -ENOENT);
	CHECK_RC(unmap(c, ioas, 0x10000, 2 * PAGE, NULL), -ENOENT);
	unmap_expect(c, ioas, 0x12000, 2 * PAGE, 2 * PAGE);
}

static void unmap_a_superset(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	CHECK_RC(map_at(c, ioas, 0x10000, VA, 5), 0);
	CHECK_RC(map_at(c, ioas, 0x10005, VA, 0x100), 0);
	CHECK_RC(map_at(c, ioas, 0x20000, VA, PAGE), 0);
	CHECK_RC(map_at(c, ioas, 0x30000, VA, PAGE), 0);
	unmap_expect(c, ioas, 0x123, 0x20000 + PAGE - 0x123, 0x105 + PAGE);
	unmap_expect(c, ioas, 1, MAX - 1, PAGE);
}

static void unmap_everything_of_nothing(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	unmap_expect(c, ioas, 0, MAX, 0);
	CHECK_RC(unmap(c, ioas, 0, MAX - 1, NULL), -ENOENT);
}

static void unmap_arguments(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	CHECK_RC(unmap(c, ioas, 1, MAX, NULL), -EOVERFLOW);
	CHECK_RC(unmap(c, ioas, MAX, 1, NULL), -EOVERFLOW);
	CHECK_RC(unmap(c, ioas, 0, 0, NULL), -EINVAL);
	CHECK_RC(unmap(c, ioas, MAX, 0, NULL), -EOVERFLOW);
	CHECK_RC(unmap(c, ioas, MAX - 1, 3, NULL), -EOVERFLOW);
	CHECK_RC(unmap(c, 99, 1, MAX, NULL), -ENOENT);
	CHECK_RC(unmap(c, 99, 0, 0, NULL), -ENOENT);
}

static void unmap_many(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	for (uint64_t i = 0; i < 300; i++)
		CHECK_RC(map_at(c, ioas, (2 * i + 1) * PAGE, VA, PAGE), 0);
	/* The 200th sticks out: everything before it goes. */
	CHECK_RC(unmap(c, ioas, 0, 399 * PAGE + 5, NULL), -ENOENT);
	unmap_expect(c, ioas, 0, MAX, 101 * PAGE);
}

static void copy_across(struct ctx *c)
{
	uint32_t src = ioas_new(c), dst = ioas_new(c);
	uint64_t iova = 0x8000;

	CHECK_RC(map_at(c, src, 0x10000, VA, 2 * PAGE), 0);
	CHECK_RC(map_at(c, src, 0x12000, 0x50000, 2 * PAGE), 0);
	CHECK_RC(copy(c, dst, src, FIXED | RW, 0x11000, 2 * PAGE, &iova), 0);
	CHECK_EQ(iova, 0x8000);
	CHECK_RC(map_at(c, dst, 0x8fff, VA, 2), -EEXIST);
	unmap_expect(c, dst, 0x8000, PAGE, PAGE);
	unmap_expect(c, dst, 0x9000, PAGE, PAGE);
	/* Automatically placed for the first piece; and into the source itself. */
	CHECK_RC(copy(c, src, src, RW, 0x10000, 4 * PAGE, &iova), 0);
	CHECK_EQ(iova, 0x1000);
	unmap_expect(c, src, 0x1000, 4 * PAGE, 4 * PAGE);
}

static void copy_unaligned(struct ctx *c)
{
	uint32_t src = ioas_new(c), dst = ioas_new(c);
	uint64_t iova;

	CHECK_RC(map_at(c, src, 0x10000, VA, 2 * PAGE), 0);
	CHECK_RC(copy(c, dst, src, RW, 0x10123, 0x777, &iova), 0);
	unmap_expect(c, dst, iova, 0x777, 0x777);
}

static void copy_of_a_hole(struct ctx *c)
{
	uint32_t src = ioas_new(c);

	CHECK_RC(map_at(c, src, 0x10000, VA, PAGE), 0);
	CHECK_RC(map_at(c, src, 0x12000, VA, PAGE), 0);
	CHECK_RC(copy(c, src, src, RW, 0x10000, 3 * PAGE, NULL), -ENOENT);
	CHECK_RC(copy(c, src, src, RW, 0xffff, PAGE, NULL), -ENOENT);
	CHECK_RC(copy(c, src, src, RW, 0x12000, PAGE + 1, NULL), -ENOENT);
	CHECK_RC(copy(c, src, src, RW, 0x11000, PAGE, NULL), -ENOENT);
	unmap_expect(c, src, 0, MAX, 2 * PAGE);
}

static void copy_with_write(struct ctx *c)
{
	uint32_t src = ioas_new(c), dst = ioas_new(c);
	uint64_t iova = 0x10000;

	CHECK_RC(map(c, src, FIXED | R, VA, PAGE, &iova), 0);
	CHECK_RC(copy(c, dst, src, FIXED | RW, 0x10000, PAGE, &iova), -EPERM);
	CHECK_RC(copy(c, src, src, FIXED | RW, 0x10000, PAGE, &iova), -EEXIST);
	CHECK_RC(copy(c, dst, src, FIXED | R, 0x10000, PAGE, &iova), 0);
	CHECK_RC(copy(c, dst, src, FIXED | W, 0x10000, PAGE, &iova), -EEXIST);
}

static void copy_adds_read(struct ctx *c)
{
	uint32_t src = ioas_new(c), dst = ioas_new(c);
	uint64_t iova = 0x10000;

	CHECK_RC(map(c, src, FIXED | W, VA, PAGE, &iova), 0);
	CHECK_RC(copy(c, dst, src, FIXED | R, 0x10000, PAGE, &iova), 0);
	/* What counts is the original MAP, not the copy in between. */
	CHECK_RC(copy(c, src, dst, RW, 0x10000, PAGE, NULL), 0);
}

static void copy_ids(struct ctx *c)
{
	uint32_t src = ioas_new(c);

	CHECK_RC(copy(c, 99, 98, RW, 0, PAGE, NULL), -ENOENT);
	CHECK_RC(copy(c, 99, src, RW, 0, PAGE, NULL), -ENOENT);
	CHECK_RC(map_at(c, src, 0x10000, VA, PAGE), 0);
	CHECK_RC(copy(c, 99, src, RW, 0x10000, PAGE, NULL), -ENOENT);
	CHECK_RC(copy(c, src, 99, RW, 0x10000, PAGE, NULL), -ENOENT);
}

static void copy_order_of_checks(struct ctx *c)
{
	uint32_t src = ioas_new(c);
	uint64_t max = MAX;

	CHECK_RC(copy(c, 99, 99, RW | 8, MAX, MAX, NULL), -EOPNOTSUPP);
	CHECK_RC(copy(c, 99, 99, 0, MAX, PAGE, NULL), -EOVERFLOW);
	CHECK_RC(copy(c, 99, 99, 0, 0, MAX, NULL), -EOVERFLOW);
	CHECK_RC(copy(c, 99, 99, FIXED, 0, PAGE, &max), -EOVERFLOW);
	CHECK_RC(copy(c, 99, 99, 0, 0, PAGE, NULL), -EINVAL);
	CHECK_RC(copy(c, 99, 99, RW, 0, 0, NULL), -ENOENT);
	CHECK_RC(copy(c, 99, src, RW, 0, 0, NULL), -EINVAL);
	CHECK_RC(copy(c, 99, src, RW, MAX - 1, 3, NULL), -EOVERFLOW);
	CHECK_RC(copy(c, 99, src, RW, MAX - 1, 2, NULL), -ENOENT);
}

static void copy_outlives_the_source(struct ctx *c)
{
	uint32_t src = ioas_new(c), dst = ioas_new(c);
	uint64_t iova = 0x10000;

	CHECK_RC(map_at(c, src, 0x10000, VA, PAGE), 0);
	CHECK_RC(copy(c, dst, src, FIXED | RW, 0x10000, PAGE, &iova), 0);
	CHECK_RC(destroy(c, src), 0);
	CHECK_RC(copy(c, dst, dst, RW, 0x10000, PAGE, NULL), 0);
	unmap_expect(c, dst, 0x10000, PAGE, PAGE);
}

static void destroy_with_areas(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	for (uint64_t i = 0; i < 200; i++)
		CHECK_RC(map_at(c, ioas, i * 2 * PAGE, VA, PAGE), 0);
	CHECK_RC(destroy(c, ioas), 0);
	CHECK_EQ(ioas_new(c), ioas);
	unmap_expect(c, ioas, 0, MAX, 0);
}

static void lazy_files(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	int fds[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC), fd = c->fe->fd(c);

	if (null < 0 || pipe(fds))
		give_up("/dev/null or pipe: %s", strerror(errno));
	CHECK_RC(map_file(c, ioas, RW, fds[0], 0, PAGE, NULL), 0);
	CHECK_RC(map_file(c, ioas, RW, null, 0x123, PAGE, NULL), 0);
	CHECK_RC(map_file(c, ioas, RW, memfd(PAGE), 16 * PAGE, PAGE, NULL), 0);
	if (fd >= 0)
		CHECK_RC(map_file(c, ioas, RW, fd, 0, PAGE, NULL), 0);
	unmap_expect(c, ioas, 0, MAX, (fd >= 0 ? 4 : 3) * PAGE);
}

static void file_order_of_checks(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	int path = open("/", O_PATH | O_CLOEXEC), fd = memfd(PAGE);

	CHECK_RC(map_file(c, 99, RW | 8, -1, MAX, MAX, NULL), -EOPNOTSUPP);
	CHECK_RC(map_file(c, 99, 0, -1, MAX, MAX, NULL), -EOVERFLOW);
	CHECK_RC(map_file(c, 99, 0, -1, MAX, 0, NULL), -EINVAL);
	CHECK_RC(map_file(c, 99, RW, -1, MAX, 0, NULL), -ENOENT);
	CHECK_RC(map_file(c, ioas, RW, -1, 0, 0, NULL), -EINVAL);
	CHECK_RC(map_file(c, ioas, RW, -1, MAX, 2, NULL), -EOVERFLOW);
	CHECK_RC(map_file(c, ioas, RW, -1, 0, MAX - 1, NULL), -EBADF);
	CHECK_RC(map_file(c, ioas, RW, 777, 0, PAGE, NULL), -EBADF);
	CHECK_RC(map_file(c, ioas, RW, path, 0, PAGE, NULL), -EBADF);
	CHECK_RC(map_file(c, ioas, RW, fd, 0, MAX - 1, NULL), -EINVAL);
	CHECK_RC(map_file(c, ioas, RW, fd, 0, PAGE, NULL), 0);
}

static void auto_placement(struct ctx *c)
{
	static const struct {
		uint64_t va, len, small, huge;
	} examples[] = {
		{0, 1, 0x1000, 0x1000},
		{0x1400, 0x1000, 0x1400, 0x1400},
		{2 << 20, 2 << 20, 0x1000, 2 << 20},
		{2 << 20, 0x3000, 0x1000, 0x4000},
		{0x3000, 0x5000, 0x1000, 0x1000},
		{0, 0x5000, 0x1000, 0x8000},
	};

	for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
		uint32_t ioas = ioas_new(c);
		uint64_t iova = 0;

		CHECK_RC(map(c, ioas, RW, examples[i].va, examples[i].len, &iova), 0);
		CHECK_EQ(iova, suite.huge == PAGE ? examples[i].small : examples[i].huge);
	}
}

/* Not congruent to the VA modulo a page. */
static void auto_placement_below_a_page(struct ctx *c)
{
	const range_t list[] = {{0x1800, 0x2fff}};
	uint32_t ioas = ioas_new(c);
	uint64_t iova;

	CHECK_RC(allow(c, ioas, 1, list), 0);
	CHECK_RC(map(c, ioas, RW, 0x10400, 0x400, &iova), 0);
	CHECK_EQ(iova, 0x1c00);
	CHECK_RC(map(c, ioas, RW, 0x10400, 0x400, &iova), 0);
	CHECK_EQ(iova, 0x2400);
}

static void auto_fills_gaps_from_below(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	uint64_t iova;

	for (uint64_t i = 1; i < 9; i++)
		CHECK_RC(map_at(c, ioas, i * PAGE, VA, PAGE), 0);
	unmap_expect(c, ioas, 3 * PAGE, PAGE, PAGE);
	unmap_expect(c, ioas, 5 * PAGE, 2 * PAGE, 2 * PAGE);
	CHECK_RC(map(c, ioas, RW, VA, 2 * PAGE, &iova), 0);
	CHECK_EQ(iova, 5 * PAGE);
	CHECK_RC(map(c, ioas, RW, VA, PAGE, &iova), 0);
	CHECK_EQ(iova, 3 * PAGE);
	CHECK_RC(map(c, ioas, RW, VA, PAGE, &iova), 0);
	CHECK_EQ(iova, 9 * PAGE);
}

/* COPY places by the address that the first piece has in its memory. */
static void copy_places_by_the_origin(struct ctx *c)
{
	uint32_t src = ioas_new(c), dst = ioas_new(c);
	uint64_t iova;

	CHECK_RC(map_at(c, src, 0x10000, 0x20400, 0x1000), 0);
	CHECK_RC(copy(c, dst, src, RW, 0x10000, 0x1000, &iova), 0);
	CHECK_EQ(iova, 0x1400);
	CHECK_RC(copy(c, dst, src, RW, 0x10200, 0x200, &iova), 0);
	CHECK_EQ(iova, 0x2600);
}

static void lazy_addresses(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	CHECK_RC(map(c, ioas, RW, bad_address(), PAGE, NULL), 0);
	CHECK_RC(map(c, ioas, R, 0xffffffff80000000, PAGE, NULL), 0);
	CHECK_RC(map(c, ioas, W, 0, PAGE, NULL), 0);
}

static const struct row rows[] = {
	{"9.26", "no automatic IOVA below a page", no_lower_than_a_page, NULL},
	{"9.27", "automatic IOVA for half of the space", half_the_space, NULL},
	{"9.28", "MAP longer than possible", too_long, NULL},
	{"9.29", "MAP at the end of the address space", end_of_the_address_space, NULL},
	{"9.30-33", "FIXED at both ends of the space", fixed_ends, NULL},
	{"9.34", "automatic MAP with iova = MAX on input", map_without_fixed_but_iova_max, NULL},
	{"9.35", "MAP checks flags before the ID", map_checks_before_the_id, NULL},
	{"4.1", "order of MAP's checks", map_order_of_checks, NULL},
	{"4.1-lazy", "memory is not looked at", lazy_addresses, NULL},
	{"9.36", "reserved is told before existing", reserved_before_existing, NULL},
	{"9.37-38", "adjacent allowed ranges are one; FIXED outside", allowed_neighbours_are_one,
	 NULL},
	{"9.39", "page 0 of an allowed range", page_zero_of_the_allowed, NULL},
	{"9.40", "the last page of the space", last_page_of_the_space, NULL},
	{"9.41", "a gap of one byte", gap_of_one_byte, NULL},
	{"9.42", "a gap that fits exactly", exact_fit, NULL},
	{"9.43", "ALLOW: empty, overlapping, adjacent entries", allow_entries, NULL},
	{"3.5-list", "ALLOW: bad entries before unreadable ones", allow_list_at_a_page_end, NULL},
	{"9.44", "ALLOW over an area", allow_over_an_area, NULL},
	{"9.45", "ALLOW of what is reserved", allow_meets_reserved, NULL},
	{"9.46", "ALLOW of nothing", allow_nothing, NULL},
	{"3.4", "ranges of a new IOAS", ranges_of_a_new_ioas, NULL},
	{"9.47", "IOVA_RANGES with too little room", ranges_with_too_little_room, NULL},
	{"9.48", "IOVA_RANGES at the end of the space", ranges_at_the_end, NULL},
	{"3.3", "reservations overlap and stack", reservations_overlap, NULL},
	{"3.6", "examples of automatic placement", auto_placement, NULL},
	{"3.6-sub", "automatic placement below a page", auto_placement_below_a_page, NULL},
	{"3.6-first", "lowest gap first", auto_fills_gaps_from_below, NULL},
	{"3.6-copy", "COPY places by the origin", copy_places_by_the_origin, NULL},
	{"4.5", "HUGE_PAGES without areas", huge_pages_without_areas, NULL},
	{"4.5-areas", "HUGE_PAGES with unaligned areas", huge_pages_with_fine_areas, NULL},
	{"9.63", "HUGE_PAGES: bad ID before bad op", huge_pages_order, NULL},
	{"9.64", "UNMAP never cuts", unmap_never_cuts, NULL},
	{"9.65", "UNMAP keeps what it did before an error", unmap_keeps_what_it_did, NULL},
	{"9.66", "UNMAP of a superset", unmap_a_superset, NULL},
	{"9.67", "UNMAP of everything when there is nothing", unmap_everything_of_nothing, NULL},
	{"9.68-69", "UNMAP's arguments", unmap_arguments, NULL},
	{"4.4-many", "UNMAP of hundreds with an error among them", unmap_many, NULL},
	{"9.71", "COPY across two areas", copy_across, NULL},
	{"9.72", "COPY of an unaligned middle", copy_unaligned, NULL},
	{"9.73", "COPY of a hole", copy_of_a_hole, NULL},
	{"9.74", "COPY may not add W", copy_with_write, NULL},
	{"9.75", "COPY may add R", copy_adds_read, NULL},
	{"9.76", "COPY with bad IDs", copy_ids, NULL},
	{"4.3", "order of COPY's checks", copy_order_of_checks, NULL},
	{"9.77", "a copy outlives its source", copy_outlives_the_source, NULL},
	{"1.7-areas", "DESTROY of an IOAS with areas", destroy_with_areas, NULL},
	{"9.80", "MAP_FILE of any file", lazy_files, NULL},
	{"9.85", "order of MAP_FILE's checks", file_order_of_checks, NULL},
};
ROWS(rows_map, rows);
