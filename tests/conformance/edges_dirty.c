// SPDX-License-Identifier: MIT
/* devices.md 9, rows 80 to 99: dirty tracking. */
#include <sys/mman.h>

#include "edges.h"

struct scene {
	struct edge e;
	uint32_t hwpt; /* tracks, and the device is on it */
	char *v;
};

static long set_tracking(struct ctx *c, uint32_t hwpt, uint32_t flags)
{
	struct iommu_hwpt_set_dirty_tracking cmd = {sizeof(cmd), flags, hwpt, 0};

	return call(c, IOMMU_HWPT_SET_DIRTY_TRACKING, &cmd);
}

#define ON IOMMU_HWPT_DIRTY_TRACKING_ENABLE

static long get_flags(struct scene *s, uint32_t hwpt, uint32_t flags, uint64_t iova,
		      uint64_t length, uint64_t unit, void *bitmap)
{
	struct iommu_hwpt_get_dirty_bitmap cmd = {
		.size = sizeof(cmd),
		.hwpt_id = hwpt,
		.flags = flags,
		.iova = iova,
		.length = length,
		.page_size = unit,
		.data = (uintptr_t)bitmap,
	};

	return call(s->e.c, IOMMU_HWPT_GET_DIRTY_BITMAP, &cmd);
}

static long get(struct scene *s, uint64_t iova, uint64_t length, uint64_t unit, void *bitmap)
{
	return get_flags(s, s->hwpt, 0, iova, length, unit, bitmap);
}

/* The bits of up to 64 units. */
static uint64_t bits(struct scene *s, uint64_t iova, uint64_t length, uint64_t unit)
{
	uint64_t bitmap = 0;

	CHECK_RC(get(s, iova, length, unit, &bitmap), 0);
	return bitmap;
}

/* As if the device had written at `iova`. */
static void dirty(struct scene *s, uint64_t iova)
{
	uint8_t bit = 1;
	struct test_cmd cmd = {
		.op = TEST_OP_DIRTY,
		.id = s->hwpt,
		.dirty = {.iova = iova,
			  .length = MOCK_PAGE,
			  .page_size = MOCK_PAGE,
			  .uptr = (uintptr_t)&bit},
	};

	CHECK_RC(test_abi_call(s->e.c, &cmd), 0);
	CHECK_EQ(cmd.dirty.nr_dirty, 1);
}

/* `pages` of memory at B; with `small` in entries of a page each, which also makes the IOAS' alignment a page. */
static void scene_init(struct ctx *c, struct scene *s, size_t pages, bool small)
{
	edge_init(c, &s->e, 0);
	if (small)
		CHECK_RC(huge_pages_set(c, s->e.io, 0), 0);
	s->hwpt = hwpt_new(&s->e.d, s->e.io, DIRTY);
	CHECK_RC(tdev_move(&s->e.d, s->hwpt), 0);
	s->v = memory(pages);
	CHECK_RC(map_at(c, s->e.io, B, (uintptr_t)s->v, pages * PAGE), 0);
	CHECK_RC(set_tracking(c, s->hwpt, ON), 0);
}

/* ---- SET_DIRTY_TRACKING (80 to 84) ----------------------------------------------------------------- */

static void set_flags(struct ctx *c)
{
	need_test_abi(c);
	CHECK_RC(set_tracking(c, NOBODY, 2), -EOPNOTSUPP);
	CHECK_RC(set_tracking(c, NOBODY, ON), -ENOENT);
}

static void set_off_without(struct ctx *c)
{
	struct edge e;
	uint32_t plain;

	edge_init(c, &e, 0);
	plain = hwpt_new(&e.d, e.io, 0);
	CHECK_RC(set_tracking(c, plain, 0), -EOPNOTSUPP);
	CHECK_RC(set_tracking(c, plain, ON), -EOPNOTSUPP);
}

static void wrong_kind(struct ctx *c)
{
	uint32_t parent, nested;
	struct scene s;
	uint64_t map = 0;

	scene_init(c, &s, 1, true);
	parent = hwpt_new(&s.e.d, s.e.io, NEST | DIRTY);
	nested = nested_new(&s.e.d, parent, 0);
	CHECK_RC(set_tracking(c, nested, ON), -ENOENT);
	CHECK_RC(set_tracking(c, s.e.io, ON), -ENOENT);
	CHECK_RC(get_flags(&s, nested, 0, B, PAGE, PAGE, &map), -ENOENT);
	CHECK_RC(get_flags(&s, s.e.io, 0, B, PAGE, PAGE, &map), -ENOENT);
	CHECK_RC(get_flags(&s, parent, 0, B, PAGE, PAGE, &map), 0);
}

static void set_reserved(struct ctx *c)
{
	struct iommu_hwpt_set_dirty_tracking cmd = {sizeof(cmd), ON, 0, 5};
	struct scene s;

	scene_init(c, &s, 1, true);
	cmd.hwpt_id = s.hwpt;
	CHECK_RC(call(c, IOMMU_HWPT_SET_DIRTY_TRACKING, &cmd), 0);
}

static void set_on_again(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s, 4, true);
	dirty(&s, B + PAGE);
	CHECK_RC(set_tracking(c, s.hwpt, ON), 0);
	CHECK_EQ(bits(&s, B, 4 * PAGE, PAGE), 0);
	dirty(&s, B + PAGE);
	CHECK_EQ(bits(&s, B, 4 * PAGE, PAGE), 2);
}

/* ---- GET_DIRTY_BITMAP (85 to 99) -------------------------------------------------------------------- */

static void get_after_off(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s, 4, true);
	dirty(&s, B + 2 * PAGE);
	CHECK_RC(set_tracking(c, s.hwpt, 0), 0);
	CHECK_EQ(bits(&s, B, 4 * PAGE, PAGE), 4);
}

static void get_nothing(struct ctx *c)
{
	struct scene s;
	uint32_t plain;

	scene_init(c, &s, 1, true);
	plain = hwpt_new(&s.e.d, s.e.io, 0);
	CHECK_RC(get_flags(&s, plain, 0, B, 0, PAGE, NULL), -EINVAL);
	CHECK_RC(get_flags(&s, plain, 0, B, PAGE, PAGE, NULL), -EOPNOTSUPP);
}

static void get_finer_than_aligned(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s, 2, true);
	CHECK_EQ(ioas_align(c, s.e.io), PAGE);
	CHECK_RC(get(&s, B + 512, PAGE, 512, NULL), -EINVAL);
	CHECK_RC(get(&s, B, PAGE - 512, 512, NULL), -EINVAL);
	CHECK_RC(get(&s, B, PAGE, 512, NULL), 0);
}

static void get_small_units(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s, 1, false);
	CHECK_EQ(ioas_align(c, s.e.io), MOCK_PAGE);
	CHECK_EQ(bits(&s, B, PAGE, 512), 0);
	dirty(&s, B);
	CHECK_EQ(bits(&s, B, PAGE, 512), 0xff);
}

static void get_large_units(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s, 2, true);
	CHECK_RC(get(&s, B, PAGE, 2 * PAGE, NULL), -EINVAL);
	dirty(&s, B + PAGE);
	CHECK_EQ(bits(&s, B, 2 * PAGE, 2 * PAGE), 1);
}

static void get_odd_units(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s, 5, true);
	dirty(&s, B + 4 * PAGE);
	CHECK_EQ(bits(&s, B, 5 * PAGE, 3 * PAGE), 16);
	CHECK_RC(get(&s, B, 2 * PAGE, 3 * PAGE, NULL), -EINVAL);
}

static void get_at_the_end(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s, 1, true);
	CHECK_EQ(bits(&s, MAX - PAGE + 1, PAGE, PAGE), 0);
	CHECK_RC(get(&s, MAX - PAGE + 1, PAGE + 1, PAGE, NULL), -EOVERFLOW);
}

#define MIB (1ull << 20)

static void get_over_a_hole(struct ctx *c)
{
	uint64_t bitmap[16] = {0};
	struct scene s;

	scene_init(c, &s, MIB / PAGE, true);
	CHECK_RC(map_at(c, s.e.io, B + 2 * MIB, (uintptr_t)memory(1), PAGE), 0);
	dirty(&s, B + PAGE);
	dirty(&s, B + 2 * MIB);
	CHECK_RC(get(&s, B, 4 * MIB, PAGE, bitmap), 0);
	CHECK_EQ(bitmap[0], 2);
	for (int i = 1; i < 16; i++)
		CHECK_EQ(bitmap[i], 0);
	CHECK_EQ(bits(&s, B, PAGE * 2, PAGE), 0);
	CHECK_EQ(bits(&s, B + 2 * MIB, PAGE, PAGE), 1);
}

static void get_to_nowhere(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s, 1, true);
	CHECK_RC(get(&s, B, PAGE, PAGE, NULL), 0);
	dirty(&s, B);
	CHECK_RC(get(&s, B, PAGE, PAGE, NULL), 0);
}

static void get_to_read_only(struct ctx *c)
{
	char *bitmap = page_end(8);
	struct scene s;

	make_read_only(bitmap);
	scene_init(c, &s, 2, true);
	dirty(&s, B);
	CHECK_RC(get_flags(&s, s.hwpt, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR, B, 2 * PAGE, PAGE,
			   bitmap),
		 0);
	CHECK_RC(get(&s, B, 2 * PAGE, PAGE, bitmap), 0);
	CHECK_EQ(bits(&s, B, 2 * PAGE, PAGE), 0);
}

static void get_only_sets(struct ctx *c)
{
	uint64_t bitmap = 0x8000000000000004;
	struct scene s;

	scene_init(c, &s, 4, true);
	dirty(&s, B + PAGE);
	CHECK_RC(get(&s, B, 4 * PAGE, PAGE, &bitmap), 0);
	CHECK_EQ(bitmap, 0x8000000000000006);
}

static void get_is_relative(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s, 4, true);
	dirty(&s, B + 3 * PAGE);
	CHECK_EQ(bits(&s, B + 2 * PAGE, 2 * PAGE, PAGE), 2);
}

/* One page is one entry, and requests may begin and end in its middle: that is what the next two are about. */
static void get_from_inside(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s, 1, false);
	dirty(&s, B);
	CHECK_EQ(bits(&s, B + MOCK_PAGE, MOCK_PAGE, MOCK_PAGE), suite.kernel ? 0 : 1);
	CHECK_EQ(bits(&s, B, PAGE, MOCK_PAGE) & 1, suite.kernel ? 0 : 1);
	CHECK_EQ(bits(&s, B, PAGE, MOCK_PAGE), 0);
}

static void get_to_inside(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s, 1, false);
	dirty(&s, B);
	CHECK_EQ(bits(&s, B, MOCK_PAGE, MOCK_PAGE), suite.kernel ? 3 : 1);
	CHECK_EQ(bits(&s, B, PAGE, MOCK_PAGE), suite.kernel ? 0 : 2);
}

static void get_after_mapping_again(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s, 1, true);
	dirty(&s, B);
	unmap_expect(c, s.e.io, B, PAGE, PAGE);
	CHECK_RC(map_at(c, s.e.io, B, (uintptr_t)s.v, PAGE), 0);
	CHECK_EQ(bits(&s, B, PAGE, PAGE), 0);
}

static const struct row rows[] = {
	{"d9.80", "SET_DIRTY: flags before the ID", set_flags, NULL},
	{"d9.81", "SET_DIRTY: a table that cannot", set_off_without, NULL},
	{"d9.82", "SET_DIRTY, GET_DIRTY: what is no paging HWPT", wrong_kind, NULL},
	{"d9.83", "SET_DIRTY: reserved", set_reserved, NULL},
	{"d9.84", "SET_DIRTY: on while on", set_on_again, NULL},
	{"d9.85", "GET_DIRTY after tracking", get_after_off, NULL},
	{"d9.86", "GET_DIRTY: the range before the table", get_nothing, NULL},
	{"d9.87", "GET_DIRTY: alignment of the IOAS", get_finer_than_aligned, NULL},
	{"d9.88", "GET_DIRTY: small units", get_small_units, NULL},
	{"d9.89", "GET_DIRTY: large units", get_large_units, NULL},
	{"d9.90", "GET_DIRTY: units that are no power of two", get_odd_units, NULL},
	{"d9.91", "GET_DIRTY: the last page of all", get_at_the_end, NULL},
	{"d9.92", "GET_DIRTY: a hole ends it", get_over_a_hole, NULL},
	{"d9.93", "GET_DIRTY: no bitmap", get_to_nowhere, NULL},
	{"d9.94", "GET_DIRTY: a read-only bitmap", get_to_read_only, NULL},
	{"d9.95", "GET_DIRTY: bits are only set", get_only_sets, NULL},
	{"d9.96", "GET_DIRTY: bits count from the request's IOVA", get_is_relative, NULL},
	{"d9.97", "GET_DIRTY: from inside an entry", get_from_inside, NULL},
	{"d9.98", "GET_DIRTY: to inside an entry", get_to_inside, NULL},
	{"d9.99", "GET_DIRTY: a mapping made anew is clean", get_after_mapping_again, NULL},
};
ROWS(edges_dirty, rows);
