// SPDX-License-Identifier: MIT
/* DMA logging, and what every DEVICE_FEATURE checks: spec vfio.md 4.6. */
#include "rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"

#define P 4096ull
#define START VFIO_DEVICE_FEATURE_DMA_LOGGING_START
#define STOP VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP
#define REPORT VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT
#define GET VFIO_DEVICE_FEATURE_GET
#define SET VFIO_DEVICE_FEATURE_SET
#define PROBE VFIO_DEVICE_FEATURE_PROBE

static struct rig rig;
static uint8_t *memory;

#define MEMORY (256 * P)

static int setup(void **state)
{
	rig_ready(&rig, &probe_model, "");
	memory = rig_pages(MEMORY);
	rig_map(&rig, memory, MEMORY, 0x100000, IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE);
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	rig_close(*state);
	munmap(memory, MEMORY);
	return 0;
}

static long feature(struct rig *r, uint32_t flags, uint32_t argsz, const void *data, size_t size)
{
	struct {
		uint32_t argsz, flags;
		uint8_t data[64];
	} u = {.argsz = argsz, .flags = flags};

	if (size)
		memcpy(u.data, data, size);
	return rig_ioctl(r, VFIO_DEVICE_FEATURE, &u);
}

typedef struct vfio_device_feature_dma_logging_range range_t;

static long start(struct rig *r, uint64_t page_size, uint32_t n, const range_t *ranges)
{
	struct vfio_device_feature_dma_logging_control c = {
		.page_size = page_size, .num_ranges = n, .ranges = (uintptr_t)ranges};

	return feature(r, SET | START, 8 + sizeof(c), &c, sizeof(c));
}

static long report(struct rig *r, uint64_t iova, uint64_t length, uint64_t page_size,
		   uint64_t *bitmap)
{
	struct vfio_device_feature_dma_logging_report rep = {iova, length, page_size,
							     (uintptr_t)bitmap};

	return feature(r, GET | REPORT, 8 + sizeof(rep), &rep, sizeof(rep));
}

static void dma(struct rig *r, uint64_t iova, size_t len)
{
	static uint8_t bytes[16 * P];

	assert_int_equal(vfio_dma_write(&probe_of(r)->dma, iova, bytes, len), 0);
}

static void what_every_feature_checks(void **state)
{
	static const struct {
		uint32_t flags, argsz;
		long rc;
	} cases[] = {
		{START | GET, 64, -EINVAL},
		{STOP | GET, 64, -EINVAL},
		{REPORT | SET, 64, -EINVAL},
		{START | GET | PROBE, 64, -EINVAL},
		{START | SET | GET | PROBE, 64, -EINVAL},
		{START | SET | PROBE, 8, 0},
		{STOP | SET | PROBE, 8, 0},
		{REPORT | GET | PROBE, 8, 0},
		{REPORT | PROBE, 8, 0},
		{START, 64, -EINVAL},
		{START | SET, 31, -EINVAL},
		{REPORT | GET, 39, -EINVAL},
		{STOP | SET, 8, 0},
		{9 | GET, 64, -ENOTTY},
	};
	struct rig *r = *state;

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		long rc = feature(r, cases[i].flags, cases[i].argsz, NULL, 0);

		if (rc != cases[i].rc)
			fail_msg("case %u: %ld, expected %ld (%s)", i, rc, cases[i].rc,
				 r->caller.reason);
	}
}

static void starting(void **state)
{
	static const range_t ok[] = {{0, P}}, unaligned[] = {{0, P - 512}}, odd[] = {{512, P}},
			     empty[] = {{0, 0}}, over[] = {{-P, 2 * P}}, vast[] = {{0, 1ull << 62}},
			     overlap[] = {{0, 4 * P}, {8 * P, P}, {3 * P, P}},
			     side[] = {{0, 4 * P}, {4 * P, P}, {-P, P}};
	const struct {
		uint64_t page_size;
		uint32_t n;
		const range_t *ranges;
		long rc;
	} cases[] = {
		{P, 0, ok, -EINVAL},   {0, 1, ok, -EINVAL},	 {3 * P, 1, ok, -EINVAL},
		{P, 86, ok, -E2BIG},   {P, 1, NULL, -EFAULT},	 {P, 1, unaligned, -EINVAL},
		{P, 1, odd, -EINVAL},  {P, 1, empty, -EINVAL},	 {P, 1, over, -EOVERFLOW},
		{P, 1, vast, -ENOMEM}, {P, 3, overlap, -EINVAL}, {P, 3, side, 0},
		{P, 3, side, -EINVAL}, /* it runs */
	};
	struct rig *r = *state;

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		long rc = start(r, cases[i].page_size, cases[i].n, cases[i].ranges);

		if (rc != cases[i].rc)
			fail_msg("case %u: %ld, expected %ld (%s)", i, rc, cases[i].rc,
				 r->caller.reason);
	}
	assert_int_equal(feature(r, SET | STOP, 8, NULL, 0), 0);
	assert_int_equal(start(r, 512, 1, unaligned), 0);
	/* The next client begins anew. */
	vfio_file_close(r->file);
	assert_int_equal(vfio_file_open(r->dev, &r->file), 0);
	assert_int_equal(rig_bind(r), 0);
	assert_int_equal(start(r, P, 1, ok), 0);
}

static void reporting(void **state)
{
	static const range_t ranges[] = {{0x100000, 64 * P}, {0x100000 + 128 * P, 128 * P}};
	struct rig *r = *state;
	uint64_t bits[4] = {0};

	assert_int_equal(report(r, 0x100000, MEMORY, P, bits), -EINVAL);
	dma(r, 0x100000, P); /* before */
	assert_int_equal(start(r, P, 2, ranges), 0);
	assert_int_equal(report(r, 0x100000, MEMORY, P, bits), 0);
	assert_int_equal(bits[0] | bits[1] | bits[2] | bits[3], 0);
	dma(r, 0x100000 + 3 * P - 1, 2);   /* pages 2 and 3 */
	dma(r, 0x100000 + 60 * P, 8 * P);  /* 60 to 63 of the range, then out of it */
	dma(r, 0x100000 + 127 * P, 2 * P); /* 128 */
	dma(r, 0x100000 + 255 * P, 1);	   /* the last */
	assert_int_equal(report(r, 0x100000, MEMORY, 3 * P, bits), -EINVAL);
	assert_int_equal(report(r, 0x100000, MEMORY, 2048, bits), -EINVAL);
	assert_int_equal(report(r, 0x100000, 0, P, bits), -EINVAL);
	assert_int_equal(report(r, -P, 2 * P, P, bits), -EOVERFLOW);
	/* What could not be told is told later. */
	assert_int_equal(report(r, 0x100000, MEMORY, P, NULL), -EFAULT);
	bits[1] = 5; /* what is set stays set */
	assert_int_equal(report(r, 0x100000, MEMORY, P, bits), 0);
	assert_int_equal(bits[0], 0xf00000000000000c);
	assert_int_equal(bits[1], 5);
	assert_int_equal(bits[2], 1);
	assert_int_equal(bits[3], 1ull << 63);
	/* And only once. */
	memset(bits, 0, sizeof(bits));
	assert_int_equal(report(r, 0x100000, MEMORY, P, bits), 0);
	assert_int_equal(bits[0] | bits[1] | bits[2] | bits[3], 0);
}

static void parts_and_other_page_sizes(void **state)
{
	static const range_t range = {0x100000, MEMORY};
	struct rig *r = *state;
	uint64_t bits[4] = {0};

	assert_int_equal(start(r, P, 1, &range), 0);
	dma(r, 0x100000 + 60 * P, 8 * P);
	/* Pages 62 to 64 of the eight, counted from there on; the others stay. */
	assert_int_equal(report(r, 0x100000 + 62 * P, 3 * P, P, bits), 0);
	assert_int_equal(bits[0], 7);
	bits[0] = 0;
	assert_int_equal(report(r, 0x100000, MEMORY, 4 * P, bits), 0);
	assert_int_equal(bits[0], 3u << 15);
	assert_int_equal(feature(r, SET | STOP, 8, NULL, 0), 0);
	/* In large pages: the whole one is told, whoever asks for how little. */
	assert_int_equal(start(r, 16 * P, 1, &range), 0);
	dma(r, 0x100000 + 17 * P, 1);
	memset(bits, 0, sizeof(bits));
	assert_int_equal(report(r, 0x100000, MEMORY, P, bits), 0);
	assert_int_equal(bits[0], 0xffff0000);
}

static void memory_may_run_out(void **state)
{
	static const range_t range = {0x100000, MEMORY};
	struct rig *r = *state;
	uint64_t bits[4] = {0};

	assert_int_equal(start(r, P, 1, &range), 0);
	swi_alloc_fail_nth(1);
	dma(r, 0x100000, 1);
	assert_int_equal(swi_alloc_fail_nth(0), 0);
	assert_int_equal(report(r, 0x100000, MEMORY, P, bits), 0);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(bits[i], ~0ull);
}

static _Atomic bool stop_now;

static void *writer(void *arg)
{
	while (!stop_now)
		dma(arg, 0x100000 + 16 * P, 4 * P);
	return NULL;
}

static void marks_are_kept_while_it_goes_on(void **state)
{
	static const range_t range = {0x100000, MEMORY};
	struct rig *r = *state;
	uint64_t bits, seen = 0;
	pthread_t thread;

	stop_now = false;
	assert_int_equal(pthread_create(&thread, NULL, writer, r), 0);
	for (unsigned int i = 0; i < 200 || seen != 0xf0000; i++) {
		assert_int_equal(start(r, P, 1, &range), 0);
		bits = 0;
		for (unsigned int k = 0; k < 1000 && !bits; k++)
			assert_int_equal(report(r, 0x100000, 64 * P, P, &bits), 0);
		assert_int_equal(bits & ~0xf0000ull, 0);
		seen |= bits;
		assert_int_equal(feature(r, SET | STOP, 8, NULL, 0), 0);
	}
	stop_now = true;
	pthread_join(thread, NULL);
	assert_int_equal(seen, 0xf0000);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(what_every_feature_checks),
		TEST(starting),
		TEST(reporting),
		TEST(parts_and_other_page_sizes),
		TEST(memory_may_run_out),
		TEST(marks_are_kept_while_it_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
