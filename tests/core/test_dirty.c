// SPDX-License-Identifier: MIT
/*
 * Dirty tracking: the checks of its ioctls, what a bitmap says, where it is written, page-table entries larger
 * than a page, failures, and that no write is lost while it is read and cleared.
 */
#include "support.h"

#include "base/alloc.h"
#include "core/dirty.h"

#define BASE 0x1000000ull
#define PAGES 512
#define UNTRACKED 2 /* indexes of rig.hwpt */

static const struct iommu_driver driver = {.name = "any",
					   .pgsize_bitmap = PAGE | PAGE << 6 | PAGE << 9,
					   .aperture_first = 0,
					   .aperture_last = UINT64_MAX};

struct rig {
	struct iommufd_ctx *ctx;
	struct iommu_group group;
	struct device dev;
	struct iommufd_device *idev;
	struct swiommu_dma *dma;
	uint32_t ioas, idev_id;
	uint32_t hwpt
		[3];  /* two that track, on the first of which the device is; one that does not */
	char *memory; /* PAGES pages, mapped from BASE on */
};

static long hwpt_new(struct rig *rig, uint32_t flags, uint32_t *id)
{
	struct iommu_hwpt_alloc cmd = {
		.size = sizeof(cmd), .flags = flags, .dev_id = rig->idev_id, .pt_id = rig->ioas};
	long rc = call(rig->ctx, IOMMU_HWPT_ALLOC, &cmd);

	*id = cmd.out_hwpt_id;
	return rc;
}

static long set_tracking(struct rig *rig, uint32_t hwpt, uint32_t flags)
{
	struct iommu_hwpt_set_dirty_tracking cmd = {sizeof(cmd), flags, hwpt, 0};

	return call(rig->ctx, IOMMU_HWPT_SET_DIRTY_TRACKING, &cmd);
}

static long get(struct rig *rig, uint32_t hwpt, uint32_t flags, uint64_t iova, uint64_t length,
		uint64_t page_size, void *bitmap)
{
	struct iommu_hwpt_get_dirty_bitmap cmd = {.size = sizeof(cmd),
						  .hwpt_id = hwpt,
						  .flags = flags,
						  .iova = iova,
						  .length = length,
						  .page_size = page_size,
						  .data = (uintptr_t)bitmap};

	return call(rig->ctx, IOMMU_HWPT_GET_DIRTY_BITMAP, &cmd);
}

#define CLEAR 0
#define KEEP IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR

static struct rig *rig_new(bool mapped)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig->ctx = ctx_new(NULL);
	assert_rc(iommu_group_init(&rig->group, 0), 0);
	rig->dev = (struct device){
		.name = "dev", .group = &rig->group, .iommu = &driver, .dirty_tracking = true};
	rig->idev = iommufd_device_bind(rig->ctx, &rig->dev, &rig->idev_id);
	assert_rc(swiommu_dma_open(rig->idev, &rig->dma), 0);
	rig->ioas = ioas_new(rig->ctx);
	rig->memory = memory(PAGES);
	if (mapped)
		assert_rc(map(rig->ctx, rig->ioas, RW, BASE, rig->memory, PAGES * PAGE), 0);
	for (int i = 0; i < 3; i++)
		assert_rc(hwpt_new(rig, i == UNTRACKED ? 0 : IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
				   &rig->hwpt[i]),
			  0);
	assert_rc(iommufd_device_attach(rig->idev, 0, &rig->hwpt[0]), 0);
	return rig;
}

static int setup(void **state)
{
	struct rig *rig = rig_new(true);

	assert_rc(set_tracking(rig, rig->hwpt[0], IOMMU_HWPT_DIRTY_TRACKING_ENABLE), 0);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	iommufd_device_detach(rig->idev, 0);
	swiommu_dma_close(rig->dma);
	iommufd_device_unbind(rig->idev);
	swiommu_close(rig->ctx);
	iommu_group_fini(&rig->group);
	munmap(rig->memory, PAGES * PAGE);
	free(rig);
	return 0;
}

static void write_to(struct rig *rig, uint64_t iova, size_t len)
{
	static const char data[16 * PAGE];

	assert_rc(swiommu_dma_write(rig->dma, iova, data, len), 0);
}

/* What GET says of the first 64 pages. */
static uint64_t dirty_pages(struct rig *rig, uint32_t flags)
{
	uint64_t bits = 0;

	assert_rc(get(rig, rig->hwpt[0], flags, BASE, 64 * PAGE, PAGE, &bits), 0);
	return bits;
}

/* ---- arguments ----------------------------------------------------------------------------------- */

static void set_arguments(void **state)
{
	struct rig *rig = *state;
	const struct {
		uint32_t flags, hwpt, reserved;
		int rc;
	} cases[] = {
		{2, 0x7777, 0, -EOPNOTSUPP}, /* flags come first */
		{1, 0x7777, 0, -ENOENT},
		{1, rig->ioas, 0, -ENOENT},
		{1, rig->idev_id, 0, -ENOENT},
		{1, rig->hwpt[UNTRACKED], 0, -EOPNOTSUPP},
		{0, rig->hwpt[UNTRACKED], 0, -EOPNOTSUPP},
		{1, rig->hwpt[1], 5, 0}, /* __reserved is not looked at */
		{1, rig->hwpt[1], 0, 0},
		{0, rig->hwpt[1], 0, 0},
		{0, rig->hwpt[1], 0, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct iommu_hwpt_set_dirty_tracking cmd = {sizeof(cmd), cases[i].flags,
							    cases[i].hwpt, cases[i].reserved};

		print_message("case %zu\n", i);
		assert_rc(call(rig->ctx, IOMMU_HWPT_SET_DIRTY_TRACKING, &cmd), cases[i].rc);
	}
}

static void get_arguments(void **state)
{
	struct rig *rig = *state;
	const struct {
		uint32_t flags, reserved, hwpt;
		uint64_t iova, length, page_size;
		int rc;
	} cases[] = {
		{2, 0, 0x7777, 0, 0, 0, -EOPNOTSUPP},
		{0, 1, 0x7777, 0, 0, 0, -EOPNOTSUPP},
		{0, 0, 0x7777, 0, 0, 0, -ENOENT},
		{0, 0, rig->ioas, BASE, PAGE, PAGE, -ENOENT},
		{0, 0, rig->hwpt[UNTRACKED], BASE, 0, PAGE, -EINVAL},
		{0, 0, rig->hwpt[UNTRACKED], 0 - PAGE, 2 * PAGE, PAGE, -EOVERFLOW},
		{0, 0, rig->hwpt[UNTRACKED], BASE, PAGE, 0, -EINVAL},
		{0, 0, rig->hwpt[UNTRACKED], BASE, PAGE, PAGE, -EOPNOTSUPP}, /* the range first */
		{0, 0, rig->hwpt[0], BASE + 512, PAGE, 512, -EINVAL},
		{0, 0, rig->hwpt[0], BASE, PAGE + 512, 512, -EINVAL},
		{0, 0, rig->hwpt[0], BASE, PAGE, 512, 0},
		{0, 0, rig->hwpt[0], BASE, PAGE, 2 * PAGE, -EINVAL},
		{0, 0, rig->hwpt[0], BASE + PAGE, 3 * PAGE, 2 * PAGE, -EINVAL},
		{0, 0, rig->hwpt[0], BASE, 16 * PAGE, 3 * PAGE, 0},
		{0, 0, rig->hwpt[0], 0 - PAGE, PAGE, PAGE, 0}, /* nothing is mapped there */
		{0, 0, rig->hwpt[0], 0, UINT64_MAX, 1, -EINVAL},
		{1, 0, rig->hwpt[1], BASE, PAGE, PAGE, 0}, /* never switched on */
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct iommu_hwpt_get_dirty_bitmap cmd = {.size = sizeof(cmd),
							  .flags = cases[i].flags,
							  .__reserved = cases[i].reserved,
							  .hwpt_id = cases[i].hwpt,
							  .iova = cases[i].iova,
							  .length = cases[i].length,
							  .page_size = cases[i].page_size};

		print_message("case %zu\n", i);
		assert_rc(call(rig->ctx, IOMMU_HWPT_GET_DIRTY_BITMAP, &cmd), cases[i].rc);
	}
}

static void devices_that_cannot(void **state)
{
	struct rig *rig = *state;
	struct iommu_hw_info info = {.size = sizeof(info), .dev_id = rig->idev_id};
	struct iommu_group group;
	struct device dev = {.name = "poor", .group = &group, .iommu = &driver};
	struct iommufd_device *idev;
	uint32_t good = rig->idev_id, pt, id;

	assert_rc(call(rig->ctx, IOMMU_GET_HW_INFO, &info), 0);
	assert_true(info.out_capabilities & IOMMU_HW_CAP_DIRTY_TRACKING);
	assert_rc(iommu_group_init(&group, 1), 0);
	idev = iommufd_device_bind(rig->ctx, &dev, &rig->idev_id);
	info = (struct iommu_hw_info){.size = sizeof(info), .dev_id = rig->idev_id};
	assert_rc(call(rig->ctx, IOMMU_GET_HW_INFO, &info), 0);
	assert_false(info.out_capabilities & IOMMU_HW_CAP_DIRTY_TRACKING);
	assert_rc(hwpt_new(rig, IOMMU_HWPT_ALLOC_DIRTY_TRACKING, &id), -EOPNOTSUPP);
	pt = rig->hwpt[0];
	assert_rc(iommufd_device_attach(idev, 0, &pt), -EINVAL);
	pt = rig->hwpt[UNTRACKED];
	assert_rc(iommufd_device_attach(idev, 0, &pt), 0);
	pt = rig->hwpt[0];
	assert_rc(iommufd_device_replace(idev, 0, &pt), -EINVAL);
	assert_rc(destroy(rig->ctx, rig->hwpt[UNTRACKED]), -EBUSY); /* still there */
	iommufd_device_detach(idev, 0);
	iommufd_device_unbind(idev);
	iommu_group_fini(&group);
	rig->idev_id = good;
}

/* ---- what is dirty ------------------------------------------------------------------------------- */

static void writes_are_reported(void **state)
{
	struct rig *rig = *state;
	static const struct {
		uint64_t at;
		size_t len;
		uint64_t pages;
	} cases[] = {
		{0, 1, 1},
		{PAGE - 1, 1, 1},
		{PAGE - 1, 2, 3},
		{PAGE, PAGE, 2},
		{63 * PAGE + 5, 3, 1ull << 63},
		{62 * PAGE, 3 * PAGE, 3ull << 62}, /* and one beyond */
		{5 * PAGE + 7, 9 * PAGE, 0x3ffull << 5},
	};
	char buf[8];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		print_message("case %zu\n", i);
		write_to(rig, BASE + cases[i].at, cases[i].len);
		assert_int_equal(dirty_pages(rig, KEEP), cases[i].pages);
		assert_int_equal(dirty_pages(rig, CLEAR), cases[i].pages);
		assert_int_equal(dirty_pages(rig, CLEAR), 0);
	}
	assert_rc(swiommu_dma_read(rig->dma, BASE, buf, 8), 0);
	assert_int_equal(dirty_pages(rig, CLEAR), 0);
}

static void on_and_off(void **state)
{
	struct rig *rig = *state;

	write_to(rig, BASE + PAGE, 1);
	assert_rc(set_tracking(rig, rig->hwpt[0], 0), 0);
	write_to(rig, BASE + 2 * PAGE, 1);
	assert_int_equal(dirty_pages(rig, KEEP), 2); /* what was recorded stays */
	assert_rc(set_tracking(rig, rig->hwpt[0], 1), 0);
	assert_int_equal(dirty_pages(rig, KEEP), 0);
	write_to(rig, BASE + 3 * PAGE, 1);
	assert_rc(set_tracking(rig, rig->hwpt[0], 1), 0); /* once more: a clean slate */
	assert_int_equal(dirty_pages(rig, KEEP), 0);
	write_to(rig, BASE + 3 * PAGE, 1);
	assert_int_equal(dirty_pages(rig, KEEP), 8);
}

static void each_hwpt_for_itself(void **state)
{
	struct rig *rig = *state;
	uint32_t pt = rig->hwpt[1];
	uint64_t bits = 0;

	write_to(rig, BASE, 1);
	assert_rc(iommufd_device_replace(rig->idev, 0, &pt), 0);
	write_to(rig, BASE + PAGE, 1); /* not tracked there */
	assert_rc(set_tracking(rig, rig->hwpt[1], 1), 0);
	write_to(rig, BASE + 2 * PAGE, 1);
	assert_rc(get(rig, rig->hwpt[1], CLEAR, BASE, 64 * PAGE, PAGE, &bits), 0);
	assert_int_equal(bits, 4);
	assert_int_equal(dirty_pages(rig, KEEP), 1);
	pt = rig->hwpt[0];
	assert_rc(iommufd_device_replace(rig->idev, 0, &pt), 0);
	assert_rc(destroy(rig->ctx, rig->hwpt[1]), 0);
	write_to(rig, BASE + 3 * PAGE, 1);
	assert_int_equal(dirty_pages(rig, CLEAR), 9);
}

static void mappings_come_and_go(void **state)
{
	struct rig *rig = *state;
	uint64_t bits[2] = {0, 0};

	write_to(rig, BASE, 1);
	assert_rc(unmap(rig->ctx, rig->ioas, BASE, PAGES * PAGE), 0);
	assert_int_equal(dirty_pages(rig, KEEP), 0);
	/* Two mappings, a hole of one page, another one. */
	assert_rc(map(rig->ctx, rig->ioas, RW, BASE, rig->memory, 4 * PAGE), 0);
	assert_rc(map(rig->ctx, rig->ioas, RW, BASE + 4 * PAGE, rig->memory, 4 * PAGE), 0);
	assert_rc(map(rig->ctx, rig->ioas, RW, BASE + 9 * PAGE, rig->memory, 100 * PAGE), 0);
	assert_int_equal(dirty_pages(rig, KEEP), 0);
	write_to(rig, BASE + 3 * PAGE, 2 * PAGE);
	write_to(rig, BASE + 10 * PAGE, 1);
	write_to(rig, BASE + 100 * PAGE, 1);
	/* Silently up to the hole; what is beyond stays dirty. */
	assert_int_equal(dirty_pages(rig, CLEAR), 3 << 3);
	assert_rc(get(rig, rig->hwpt[0], CLEAR, BASE + 8 * PAGE, 64 * PAGE, PAGE, bits), 0);
	assert_int_equal(bits[0], 0);
	assert_rc(get(rig, rig->hwpt[0], CLEAR, BASE + 9 * PAGE, 100 * PAGE, PAGE, bits), 0);
	assert_int_equal(bits[0], 2);
	assert_int_equal(bits[1], 1ull << (91 - 64));
}

/* ---- bitmaps ------------------------------------------------------------------------------------- */

static void granules(void **state)
{
	struct rig *rig = *state;
	static const struct {
		uint64_t at, from, pages, size, bits;
	} cases[] = {
		/* from and pages: the window; relative to its beginning, whatever its alignment. */
		{3, 2, 4, PAGE, 2},	      {3, 2, 4, PAGE / 2, 0xc},
		{3, 2, 4, 2 * PAGE, 1},	      {5, 2, 4, 2 * PAGE, 2},
		{5, 4, 12, 3 * PAGE, 2}, /* counts as PAGE */
		{1, 0, 2, 256, 0xffff0000},   {8, 0, 512, 256 * PAGE, 1},
		{300, 0, 512, 256 * PAGE, 2}, {1, 2, 8, PAGE, 0},
		{10, 2, 8, PAGE, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bits[3] = {0, 0, 0};
		bool inside = cases[i].at >= cases[i].from &&
			      cases[i].at < cases[i].from + cases[i].pages;
		uint64_t left[PAGES / 64] = {0};

		print_message("case %zu\n", i);
		write_to(rig, BASE + cases[i].at * PAGE, 1);
		assert_rc(get(rig, rig->hwpt[0], CLEAR, BASE + cases[i].from * PAGE,
			      cases[i].pages * PAGE, cases[i].size, bits),
			  0);
		assert_true(bits[0] == cases[i].bits);
		assert_true(!bits[1] && !bits[2]);
		/* Cleared if it was asked for, and only then. */
		assert_rc(get(rig, rig->hwpt[0], CLEAR, BASE, PAGES * PAGE, PAGE, left), 0);
		assert_int_equal(left[cases[i].at / 64] >> cases[i].at % 64 & 1, !inside);
	}
}

/* Small granules make bitmaps of more than a window. */
static void every_bit_of_many(void **state)
{
	struct rig *rig = *state;
	static unsigned char bitmap[PAGES * PAGE / 8 + 8];

	for (unsigned int granule = 1; granule <= PAGE; granule *= 16) {
		uint64_t per = PAGE / granule, n = PAGES * per;

		for (unsigned int p = 0; p < PAGES; p += p % 7 + 1)
			write_to(rig, BASE + p * PAGE, 1);
		memset(bitmap, 0, sizeof(bitmap));
		assert_rc(get(rig, rig->hwpt[0], KEEP, BASE, PAGES * PAGE, granule, bitmap), 0);
		for (int pass = 0; pass < 2; pass++) {
			bool dirty[PAGES] = {false};

			for (unsigned int p = 0; p < PAGES; p += p % 7 + 1)
				dirty[p] = true;
			for (uint64_t b = 0; b < n; b++)
				if ((bitmap[b / 8] >> b % 8 & 1) != dirty[b / per])
					fail_msg("granule %u, bit %lu", granule, (unsigned long)b);
			memset(bitmap, 0, sizeof(bitmap));
			assert_rc(
				get(rig, rig->hwpt[0], CLEAR, BASE, PAGES * PAGE, granule, bitmap),
				0);
		}
	}
}

static void bits_are_added(void **state)
{
	struct rig *rig = *state;
	unsigned char bitmap[4 + PAGES / 8];

	/* At any address; 13 pages need two bytes, of which three bits are the caller's own. */
	for (unsigned int at = 0; at < 4; at++) {
		memset(bitmap, 0, sizeof(bitmap));
		bitmap[at] = 0x10;
		bitmap[at + 1] = 0xe2;
		write_to(rig, BASE + 11 * PAGE, 16 * PAGE);
		write_to(rig, BASE, 1);
		assert_rc(get(rig, rig->hwpt[0], CLEAR, BASE, 13 * PAGE, PAGE, bitmap + at), 0);
		assert_int_equal(bitmap[at], 0x11);
		assert_int_equal(bitmap[at + 1], 0xe2 | 0x18);
		assert_int_equal(bitmap[at + 2], 0);
		/* The rest is as dirty as before. */
		assert_int_equal(dirty_pages(rig, CLEAR), 0x3fffull << 13);
	}
}

static void bad_bitmaps(void **state)
{
	struct rig *rig = *state;
	char *two = memory(2);
	unsigned char *edge = (unsigned char *)two + PAGE - 1;

	assert_rc(get(rig, rig->hwpt[0], CLEAR, BASE, 64 * PAGE, PAGE, NULL), 0);
	write_to(rig, BASE, 1);
	assert_rc(get(rig, rig->hwpt[0], KEEP, BASE, 64 * PAGE, PAGE, NULL), 0);
	assert_int_equal(dirty_pages(rig, KEEP), 1);
	assert_rc(get(rig, rig->hwpt[0], CLEAR, BASE, 64 * PAGE, PAGE, NULL), 0);
	assert_int_equal(dirty_pages(rig, KEEP), 0); /* lost */
	assert_rc(mprotect(two + PAGE, PAGE, PROT_READ), 0);
	write_to(rig, BASE + 3 * PAGE, 1);
	write_to(rig, BASE + 8 * PAGE, 1);
	assert_rc(get(rig, rig->hwpt[0], CLEAR, BASE, 64 * PAGE, PAGE, edge), 0);
	assert_int_equal(edge[0], 8); /* what can be written is */
	assert_int_equal(edge[1], 0);
	write_to(rig, BASE + 60 * PAGE, 1);
	assert_rc(get(rig, rig->hwpt[0], CLEAR, BASE, 64 * PAGE, PAGE, (void *)(UINT64_MAX - 2)),
		  0);
	assert_int_equal(dirty_pages(rig, KEEP), 0);
	munmap(two, 2 * PAGE);
}

/* The bitmap lies in the struct of the call itself, or in memory that the device writes. */
static void bitmaps_in_use(void **state)
{
	struct rig *rig = *state;
	struct iommu_hwpt_get_dirty_bitmap cmd = {.size = sizeof(cmd),
						  .hwpt_id = rig->hwpt[0],
						  .iova = BASE,
						  .length = 64 * PAGE,
						  .page_size = PAGE};
	uint64_t bits[2] = {0};

	for (size_t at = 0; at < sizeof(cmd); at += 8) {
		struct iommu_hwpt_get_dirty_bitmap own = cmd;

		own.data = (uintptr_t)&own + at;
		write_to(rig, BASE + 3 * PAGE, 1);
		assert_rc(call(rig->ctx, IOMMU_HWPT_GET_DIRTY_BITMAP, &own), 0);
		assert_int_equal(dirty_pages(rig, KEEP), 0);
	}
	/* Page 5 is written by the device, and then by the call. */
	memset(bits, 0x5a, sizeof(bits));
	assert_rc(swiommu_dma_write(rig->dma, BASE + 5 * PAGE, bits, sizeof(bits)), 0);
	assert_rc(get(rig, rig->hwpt[0], CLEAR, BASE, 64 * PAGE, PAGE, rig->memory + 5 * PAGE), 0);
	memcpy(bits, rig->memory + 5 * PAGE, sizeof(bits));
	assert_true(bits[0] == (0x5a5a5a5a5a5a5a5aull | 1 << 5) && bits[1] == 0x5a5a5a5a5a5a5a5aull);
	assert_int_equal(dirty_pages(rig, KEEP), 0);
}

/* Units of a byte and of half of all, ranges without end: the work is that of what is mapped. */
static void the_largest_and_the_smallest(void **state)
{
	struct rig *rig = *state;
	uint8_t bytes[4 * PAGE / 8 + 1] = {0};
	char *low = memory(BASE / PAGE);
	uint64_t bits[8] = {0};

	write_to(rig, BASE + PAGE, 1);
	assert_rc(get(rig, rig->hwpt[0], KEEP, BASE, 4 * PAGE, 1, bytes), 0);
	for (size_t i = 0; i < sizeof(bytes); i++)
		assert_int_equal(bytes[i], i / (PAGE / 8) == 1 ? 0xff : 0);
	assert_rc(get(rig, rig->hwpt[0], KEEP, BASE, -BASE, PAGE, bits), 0);
	assert_true(bits[0] == 2 && !bits[1]);
	/* Nothing is mapped at 0, where that ends then. */
	bits[0] = 0;
	assert_rc(get(rig, rig->hwpt[0], KEEP, 0, 1ull << 63, 1ull << 63, bits), 0);
	assert_int_equal(bits[0], 0);
	assert_rc(map(rig->ctx, rig->ioas, RW, 0, low, BASE), 0);
	assert_rc(get(rig, rig->hwpt[0], CLEAR, 0, 1ull << 63, 1ull << 63, bits), 0);
	assert_int_equal(bits[0], 1);
	assert_int_equal(dirty_pages(rig, KEEP), 0);
	assert_rc(unmap(rig->ctx, rig->ioas, 0, BASE), 0);
	munmap(low, BASE);
}

/* ---- large entries, cut mappings ----------------------------------------------------------------- */

/* Makes a mapping of 192 pages in the largest leaves that fit, as memory of huge pages has. */
static char *map_large(struct rig *rig, uint64_t iova)
{
	char *memory = mmap(NULL, 1024 * PAGE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct obj *hwpt;

	assert_true(memory != MAP_FAILED);
	assert_rc(obj_get(rig->ctx, rig->hwpt[0], OBJ_HWPT_PAGING, "", NULL, &hwpt), 0);
	hwpt_of(hwpt)->tables.fine = false;
	assert_rc(map(rig->ctx, rig->ioas, RW, iova,
		      (char *)(((uintptr_t)memory + 64 * PAGE - 1) & -(64 * PAGE)), 192 * PAGE),
		  0);
	obj_put(hwpt);
	return memory;
}

/* An entry of 64 pages is dirty as a whole, but told of and cleaned by the page. */
static void large_entries(void **state)
{
	struct rig *rig = *state;
	uint64_t bits[3] = {0, 0, 0}, at = 1ull << 32;
	char *memory = map_large(rig, at);

	write_to(rig, at + 70 * PAGE, 1);
	assert_rc(get(rig, rig->hwpt[0], KEEP, at, 192 * PAGE, PAGE, bits), 0);
	assert_true(!bits[0] && !bits[2]);
	assert_true(bits[1] == ~0ull);
	/* Beginning and ending inside. */
	bits[1] = 0;
	assert_rc(get(rig, rig->hwpt[0], CLEAR, at + 65 * PAGE, PAGE, PAGE, bits), 0);
	assert_true(bits[0] == 1 && !bits[1]);
	assert_rc(get(rig, rig->hwpt[0], CLEAR, at, 192 * PAGE, PAGE, bits), 0);
	assert_true(bits[0] == 1 && bits[1] == ~2ull && !bits[2]);
	/* That one is of small entries by now. */
	memset(bits, 0, sizeof(bits));
	write_to(rig, at + 63 * PAGE, 2 * PAGE);
	assert_rc(get(rig, rig->hwpt[0], CLEAR, at, 192 * PAGE, PAGE, bits), 0);
	assert_true(bits[0] == ~0ull && bits[1] == 1 && !bits[2]);
	munmap(memory, 1024 * PAGE);
}

/* A leaf of 2 MiB, whose one bit a handle remembers, is split when a page of it is cleaned: the next write counts again. */
static void split_entries(void **state)
{
	struct rig *rig = *state;
	char *memory = mmap(NULL, 1024 * PAGE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t bits[8], at = 1ull << 32;
	struct obj *hwpt;

	assert_true(memory != MAP_FAILED);
	assert_rc(obj_get(rig->ctx, rig->hwpt[0], OBJ_HWPT_PAGING, "", NULL, &hwpt), 0);
	hwpt_of(hwpt)->tables.fine = false;
	obj_put(hwpt);
	assert_rc(map(rig->ctx, rig->ioas, RW, at,
		      (char *)(((uintptr_t)memory + 512 * PAGE - 1) & -(512 * PAGE)), 512 * PAGE),
		  0);
	for (unsigned i = 0; i < 3; i++) {
		write_to(rig, at + 5 * PAGE, 1);
		memset(bits, 0, sizeof(bits));
		assert_rc(get(rig, rig->hwpt[0], CLEAR, at + 5 * PAGE, PAGE, PAGE, bits), 0);
		assert_true(bits[0] == 1);
		bits[0] = 0;
		assert_rc(get(rig, rig->hwpt[0], CLEAR, at + 5 * PAGE, PAGE, PAGE, bits), 0);
		assert_true(bits[0] == 0);
	}
	/* All others are dirty still, since the first write. */
	assert_rc(get(rig, rig->hwpt[0], CLEAR, at, 512 * PAGE, PAGE, bits), 0);
	assert_true(bits[0] == ~(1ull << 5));
	for (unsigned i = 1; i < 8; i++)
		assert_true(bits[i] == ~0ull);
	munmap(memory, 1024 * PAGE);
}

/* Both halves go on with the same bits, whatever word the cut is in. */
static void cut_mappings(void **state)
{
	struct rig *rig = rig_new(false);
	struct iommu_option off = {.size = sizeof(off), .option_id = IOMMU_OPTION_HUGE_PAGES};
	struct obj *obj;
	uint64_t bits;

	(void)state;
	off.object_id = rig->ioas;
	assert_rc(call(rig->ctx, IOMMU_OPTION, &off), 0);
	assert_rc(map(rig->ctx, rig->ioas, RW, BASE, rig->memory, PAGES * PAGE), 0);
	assert_rc(set_tracking(rig, rig->hwpt[0], 1), 0);
	write_to(rig, BASE + 9 * PAGE, 2 * PAGE);
	assert_rc(obj_get(rig->ctx, rig->ioas, OBJ_IOAS, "", NULL, &obj), 0);
	assert_rc(ioas_cut(ioas_of(obj), BASE + 10 * PAGE - 1, NULL), 0);
	assert_rc(ioas_cut(ioas_of(obj), BASE + 20 * PAGE - 1, NULL), 0);
	obj_put(obj);
	write_to(rig, BASE + 19 * PAGE, 2 * PAGE);
	assert_int_equal(dirty_pages(rig, KEEP), 3 << 9 | 3 << 19);
	/* The middle goes with its bits; the others keep theirs. */
	assert_rc(unmap(rig->ctx, rig->ioas, BASE + 10 * PAGE, 10 * PAGE), 0);
	assert_int_equal(dirty_pages(rig, CLEAR), 1 << 9);
	bits = 0;
	assert_rc(get(rig, rig->hwpt[0], CLEAR, BASE + 20 * PAGE, 64 * PAGE, PAGE, &bits), 0);
	assert_int_equal(bits, 1);
	write_to(rig, BASE + 20 * PAGE, 1);
	assert_rc(unmap(rig->ctx, rig->ioas, BASE, 10 * PAGE), 0);
	assert_rc(get(rig, rig->hwpt[0], CLEAR, BASE + 20 * PAGE, 64 * PAGE, PAGE, &bits), 0);
	assert_int_equal(bits, 1);
	teardown((void **)&rig);
}

/* ---- failures ------------------------------------------------------------------------------------ */

static void no_memory(void **state)
{
	struct rig *rig = *state;
	unsigned int nth, failed[2] = {0, 0};
	uint32_t id;
	long rc;

	for (nth = 1;; nth++) {
		swi_alloc_fail_nth(nth);
		rc = hwpt_new(rig, IOMMU_HWPT_ALLOC_DIRTY_TRACKING, &id);
		if (swi_alloc_fail_nth(0))
			break;
		assert_true(rc < 0);
		failed[0]++;
	}
	assert_rc(rc, 0);
	/* Now three views a mapping. */
	for (nth = 1;; nth++) {
		swi_alloc_fail_nth(nth);
		rc = map(rig->ctx, rig->ioas, RW, 2 * BASE, rig->memory, 4 * PAGE);
		if (swi_alloc_fail_nth(0))
			break;
		/* A struct that cannot be written back is no reason to take the mapping back. */
		if (rc != -EFAULT)
			assert_rc(unmap(rig->ctx, rig->ioas, 2 * BASE, 4 * PAGE), -ENOENT);
		else
			unmap(rig->ctx, rig->ioas, 2 * BASE, 4 * PAGE);
		failed[1]++;
	}
	assert_rc(rc, 0);
	print_message("%u failures of HWPT_ALLOC, %u of MAP\n", failed[0], failed[1]);
	assert_true(failed[0] >= 5 && failed[1] >= 7);
	assert_rc(destroy(rig->ctx, id), 0);
	write_to(rig, 2 * BASE, 1);
	write_to(rig, BASE, 1);
	assert_int_equal(dirty_pages(rig, CLEAR), 1);
}

/* Reading makes do without memory; what fails before has read nothing. */
static void no_memory_to_read(void **state)
{
	struct rig *rig = *state;
	static unsigned char bitmap[PAGES * PAGE / 8];
	unsigned int nth, failed = 0;
	bool armed = true;
	long rc;

	for (nth = 1; armed; nth++) {
		memset(bitmap, 0, sizeof(bitmap));
		write_to(rig, BASE, 1);
		write_to(rig, BASE + 63 * PAGE, 1);
		swi_alloc_fail_nth(nth);
		rc = get(rig, rig->hwpt[0], CLEAR, BASE, 64 * PAGE, 1, bitmap);
		armed = !swi_alloc_fail_nth(0);
		failed += !!rc;
		assert_int_equal(dirty_pages(rig, CLEAR), rc ? 1 | 1ull << 63 : 0);
		for (unsigned int i = 0; i < 64 * PAGE / 8; i++)
			assert_int_equal(bitmap[i],
					 !rc && (i < PAGE / 8 || i >= 63 * PAGE / 8) ? 0xff : 0);
	}
	print_message("%u of %u failures were of the call\n", failed, nth - 2);
	assert_true(failed >= 2);
	assert_int_equal(nth - 2, failed + 1); /* the one that did no harm is the memory */
}

/* ---- concurrency --------------------------------------------------------------------------------- */

#define WRITERS 2
#define SHARED 128 /* pages that are written, `stride` apart */
#define STRIDE_MAX 40
#define AREA          \
	(STRIDE_MAX * \
	 SHARED) /* pages that are mapped for it; more than a word of the summary is about */
#define ROUNDS 10
#define WRITES 300000

#define AT (16 * BASE)

static struct swiommu_caller_ops quick_ops;

static int quick_copy_in(struct swiommu_caller *c, void *dst, uint64_t uptr, size_t len)
{
	(void)c;
	memcpy(dst, (const void *)(uintptr_t)uptr, len);
	return 0;
}

static int quick_copy_out(struct swiommu_caller *c, uint64_t uptr, const void *src, size_t len)
{
	(void)c;
	memcpy((void *)(uintptr_t)uptr, src, len);
	return 0;
}

/*
 * The checker of lost writes. Pages are written by one thread each, which counts before and after. A write that
 * began after a GET that reported its page had returned, and was complete when this GET is called, must be
 * reported by this GET. And whoever copies reported pages after each GET has all in the end.
 */
struct race {
	struct rig *rig;
	struct swiommu_caller caller; /* a quick one */
	char *memory;
	unsigned int stride;
	atomic_uint writing;
	atomic_uint begun[SHARED], done[SHARED];
	unsigned int
		known[SHARED]; /* begun when the last GET that reported the page had returned */
	uint32_t copy[SHARED];
	atomic_bool stop;
	unsigned int reported, checked;
};

struct writer {
	struct race *race;
	unsigned int number, seed;
	struct swiommu_dma *dma;
};

static unsigned int draw(unsigned int *seed)
{
	*seed = *seed * 1103515245 + 12345;
	return *seed >> 8;
}

static void *write_pages(void *data)
{
	struct writer *w = data;
	struct race *race = w->race;
	unsigned int p, n;

	for (int i = 0; i < WRITES; i++) {
		/* Neighbours, so that threads meet in words and at borders. */
		p = draw(&w->seed) % (SHARED / WRITERS) * WRITERS + w->number;
		n = atomic_fetch_add(&race->begun[p], 1) + 1;
		if (swiommu_dma_write(w->dma, AT + p * race->stride * PAGE + 64, &n, sizeof(n)))
			abort();
		atomic_store(&race->done[p], n);
	}
	atomic_fetch_sub(&race->writing, 1);
	return NULL;
}

/* Reads under a DMA, on purpose. */
__attribute__((no_sanitize("thread"))) static uint32_t peek(const char *at)
{
	return *(const volatile uint32_t *)at;
}

static void look(struct race *race, unsigned int from, unsigned int to)
{
	struct rig *rig = race->rig;
	unsigned int before[SHARED], stride = race->stride, bit;
	static uint64_t bits[AREA / 64];
	struct iommu_hwpt_get_dirty_bitmap cmd = {.size = sizeof(cmd),
						  .hwpt_id = rig->hwpt[0],
						  .iova = AT + from * stride * PAGE,
						  .length = (to - from) * stride * PAGE,
						  .page_size = PAGE,
						  .data = (uintptr_t)bits};

	memset(bits, 0, ((to - from) * stride + 63) / 64 * 8);
	for (unsigned int p = from; p < to; p++)
		before[p] = atomic_load(&race->done[p]);
	assert_rc(swiommu_ioctl(rig->ctx, &race->caller, IOMMU_HWPT_GET_DIRTY_BITMAP,
				(uintptr_t)&cmd),
		  0);
	for (unsigned int p = from; p < to; p++) {
		bit = (p - from) * stride;
		if (bits[bit / 64] >> bit % 64 & 1) {
			race->known[p] = atomic_load(&race->begun[p]);
			race->copy[p] = peek(race->memory + p * stride * PAGE + 64);
			race->reported++;
		} else if (before[p] > race->known[p]) {
			fail_msg("write %u of page %u is lost", before[p], p);
		}
		race->checked++;
	}
}

/* Maps, unmaps and clears elsewhere, and switches another HWPT on and off. */
static void *disturb(void *data)
{
	struct race *race = data;
	struct rig *rig = race->rig;
	uint64_t bits;
	uint32_t id;

	while (!atomic_load(&race->stop)) {
		if (map(rig->ctx, rig->ioas, RW, BASE + PAGES * PAGE, rig->memory, PAGE) ||
		    get(rig, rig->hwpt[0], CLEAR, BASE + PAGES * PAGE, PAGE, PAGE, &bits) ||
		    hwpt_new(rig, IOMMU_HWPT_ALLOC_DIRTY_TRACKING, &id) ||
		    set_tracking(rig, id, 1) ||
		    unmap(rig->ctx, rig->ioas, BASE + PAGES * PAGE, PAGE) || destroy(rig->ctx, id))
			abort();
		sched_yield();
	}
	return NULL;
}

static void run_round(struct race *race, unsigned int *seed)
{
	struct writer w[WRITERS];
	pthread_t threads[WRITERS];
	unsigned int from, to;

	atomic_store(&race->writing, WRITERS);
	for (unsigned int i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){.race = race, .number = i, .seed = draw(seed)};
		assert_rc(swiommu_dma_open(race->rig->idev, &w[i].dma), 0);
		assert_rc(pthread_create(&threads[i], NULL, write_pages, &w[i]), 0);
	}
	for (int i = 0; atomic_load(&race->writing); i++) {
		from = i % 4 ? 0 : draw(seed) % SHARED;
		to = i % 4 ? SHARED : from + 1 + draw(seed) % (SHARED - from);
		look(race, from, to);
	}
	for (unsigned int i = 0; i < WRITERS; i++) {
		pthread_join(threads[i], NULL);
		swiommu_dma_close(w[i].dma);
	}
	look(race, 0, SHARED);
	for (unsigned int p = 0; p < SHARED; p++)
		assert_int_equal(race->copy[p], peek(race->memory + p * race->stride * PAGE + 64));
}

static void races(struct rig *rig, unsigned int stride)
{
	struct race *race = calloc(1, sizeof(*race));
	unsigned int seed = stride;
	pthread_t other;

	race->rig = rig;
	race->stride = stride;
	race->memory = memory(AREA);
	swiommu_caller_local(&race->caller);
	quick_ops = *race->caller.ops;
	quick_ops.copy_in = quick_copy_in;
	quick_ops.copy_out = quick_copy_out;
	race->caller.ops = &quick_ops;
	assert_rc(map(rig->ctx, rig->ioas, RW, AT, race->memory, AREA * PAGE), 0);
	assert_rc(pthread_create(&other, NULL, disturb, race), 0);
	for (int i = 0; i < ROUNDS; i++)
		run_round(race, &seed);
	atomic_store(&race->stop, true);
	pthread_join(other, NULL);
	print_message("%u pages reported of %u looked at\n", race->reported, race->checked);
	assert_true(race->reported > SHARED);
	assert_rc(unmap(rig->ctx, rig->ioas, AT, AREA * PAGE), 0);
	munmap(race->memory, AREA * PAGE);
	free(race);
}

/* In the same words of bits; then in many, which are taken together. */
static void no_write_is_lost(void **state)
{
	races(*state, 1);
	races(*state, STRIDE_MAX);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(set_arguments),
		TEST(get_arguments),
		TEST(devices_that_cannot),
		TEST(writes_are_reported),
		TEST(on_and_off),
		TEST(each_hwpt_for_itself),
		TEST(mappings_come_and_go),
		TEST(granules),
		TEST(every_bit_of_many),
		TEST(bits_are_added),
		TEST(bad_bitmaps),
		TEST(bitmaps_in_use),
		TEST(the_largest_and_the_smallest),
		TEST(large_entries),
		TEST(split_entries),
		cmocka_unit_test(cut_mappings),
		TEST(no_memory),
		TEST(no_memory_to_read),
		TEST(no_write_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
