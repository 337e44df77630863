// SPDX-License-Identifier: MIT
/* A device's DMA: across mappings, permissions, faults told to the host, switching under load. */
#include "support.h"

#define BASE 0x100000ull

static const struct iommu_driver driver = {.name = "any",
					   .pgsize_bitmap = PAGE,
					   .aperture_first = 0,
					   .aperture_last = (1ull << 48) - 1};

struct rig {
	struct iommufd_ctx *ctx;
	struct iommu_group group;
	struct device dev;
	struct iommufd_device *idev;
	struct swiommu_dma *dma;
	uint32_t ioas;
	char *memory; /* 8 pages */
	/* The last fault. */
	struct swiommu_fault fault;
	unsigned int faults;
};

static void on_fault(void *data, const struct swiommu_fault *fault)
{
	struct rig *rig = data;

	rig->fault = *fault;
	rig->faults++;
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct swiommu_hooks hooks = {.fault = on_fault, .data = rig};
	uint32_t id;

	rig->ctx = ctx_new(&hooks);
	assert_rc(iommu_group_init(&rig->group, 0), 0);
	rig->dev = (struct device){.name = "0000:80:01.0", .group = &rig->group, .iommu = &driver};
	rig->idev = iommufd_device_bind(rig->ctx, &rig->dev, &id);
	assert_rc(swiommu_dma_open(rig->idev, &rig->dma), 0);
	rig->ioas = ioas_new(rig->ctx);
	rig->memory = memory(8);
	for (size_t i = 0; i < 8 * PAGE; i++)
		rig->memory[i] = i * 37 >> 3;
	*state = rig;
	return 0;
}

static void attach(struct rig *rig)
{
	uint32_t pt = rig->ioas;

	assert_rc(iommufd_device_attach(rig->idev, 0, &pt), 0);
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	iommufd_device_detach(rig->idev, 0);
	swiommu_dma_close(rig->dma);
	iommufd_device_unbind(rig->idev);
	swiommu_close(rig->ctx);
	iommu_group_fini(&rig->group);
	munmap(rig->memory, 8 * PAGE);
	free(rig);
	return 0;
}

/* Pages in reverse order, so that every page border is one between areas. */
static void across_areas(void **state)
{
	struct rig *rig = *state;
	static char buf[8 * PAGE], want[8 * PAGE];

	attach(rig);
	for (int i = 0; i < 8; i++) {
		assert_rc(map(rig->ctx, rig->ioas, RW, BASE + i * PAGE,
			      rig->memory + (7 - i) * PAGE, PAGE),
			  0);
		memcpy(want + i * PAGE, rig->memory + (7 - i) * PAGE, PAGE);
	}
	assert_rc(swiommu_dma_read(rig->dma, BASE + 5, buf, 8 * PAGE - 9), 0);
	assert_memory_equal(buf, want + 5, 8 * PAGE - 9);
	memset(buf, 0x11, sizeof(buf));
	assert_rc(swiommu_dma_write(rig->dma, BASE + PAGE - 1, buf, PAGE + 2), 0);
	assert_int_equal(rig->memory[8 * PAGE - 1], 0x11);
	assert_memory_equal(rig->memory + 6 * PAGE, buf, PAGE);
	assert_int_equal(rig->memory[5 * PAGE], 0x11);
	assert_int_equal(rig->memory[5 * PAGE + 1], want[2 * PAGE + 1]);
	assert_rc(swiommu_dma_read(rig->dma, BASE, buf, 0), 0);
	assert_int_equal(rig->faults, 0);
}

static void expect_fault(struct rig *rig, uint64_t iova, size_t len, bool write, int error)
{
	assert_int_equal(rig->faults, 1);
	assert_string_equal(rig->fault.device, "0000:80:01.0");
	assert_true(rig->fault.iova == iova);
	assert_true(rig->fault.length == len);
	assert_int_equal(rig->fault.write, write);
	assert_rc(rig->fault.error, error);
	rig->faults = 0;
}

static void faults_are_told(void **state)
{
	struct rig *rig = *state;
	char buf[64];

	assert_rc(swiommu_dma_read(rig->dma, BASE, buf, 8), -ENXIO);
	expect_fault(rig, BASE, 8, false, -ENXIO);
	attach(rig);
	assert_rc(swiommu_dma_write(rig->dma, BASE, buf, 8), -ENOENT);
	expect_fault(rig, BASE, 8, true, -ENOENT);
	assert_string_equal(rig->fault.nearest, "nothing is mapped");

	assert_rc(map(rig->ctx, rig->ioas, R, BASE, rig->memory, PAGE), 0);
	assert_rc(map(rig->ctx, rig->ioas, W, BASE + 0x10000, rig->memory, PAGE), 0);
	/* The first address that failed, and how much was left. */
	assert_rc(swiommu_dma_read(rig->dma, BASE + PAGE - 10, buf, 64), -ENOENT);
	expect_fault(rig, BASE + PAGE, 54, false, -ENOENT);
	assert_string_equal(rig->fault.nearest,
			    "nearest mapping [0x100000, 0x100fff] R- ends below by 0x1 bytes");
	assert_rc(swiommu_dma_read(rig->dma, BASE + 0xffff, buf, 1), -ENOENT);
	expect_fault(rig, BASE + 0xffff, 1, false, -ENOENT);
	assert_string_equal(rig->fault.nearest,
			    "nearest mapping [0x110000, 0x110fff] -W begins above by 0x1 bytes");
	assert_rc(swiommu_dma_read(rig->dma, 3ull << 40, buf, 1), -ENOENT);
	expect_fault(rig, 3ull << 40, 1, false, -ENOENT);
	assert_non_null(strstr(rig->fault.nearest, "[0x110000, 0x110fff]"));

	assert_rc(swiommu_dma_write(rig->dma, BASE + 4, buf, 4), -EPERM);
	expect_fault(rig, BASE + 4, 4, true, -EPERM);
	assert_string_equal(rig->fault.nearest, "mapping [0x100000, 0x100fff] R-");
	assert_rc(swiommu_dma_read(rig->dma, BASE + 0x10000, buf, 4), -EPERM);
	expect_fault(rig, BASE + 0x10000, 4, false, -EPERM);
	assert_rc(swiommu_dma_read(rig->dma, UINT64_MAX - 3, buf, 5), -EOVERFLOW);
	expect_fault(rig, UINT64_MAX - 3, 5, false, -EOVERFLOW);
}

static void a_refused_write_changes_nothing(void **state)
{
	struct rig *rig = *state;
	char before[PAGE];

	attach(rig);
	assert_rc(map(rig->ctx, rig->ioas, R, BASE, rig->memory, PAGE), 0);
	memcpy(before, rig->memory, PAGE);
	assert_rc(swiommu_dma_write(rig->dma, BASE + 100, "zzzz", 4), -EPERM);
	assert_memory_equal(before, rig->memory, PAGE);
}

static void unmap_takes_effect(void **state)
{
	struct rig *rig = *state;
	char c;

	attach(rig);
	for (int i = 0; i < 100; i++) {
		assert_rc(map(rig->ctx, rig->ioas, RW, BASE, rig->memory + i % 8 * PAGE, PAGE), 0);
		rig->memory[i % 8 * PAGE] = i;
		assert_rc(swiommu_dma_read(rig->dma, BASE, &c, 1), 0);
		assert_int_equal(c, i);
		assert_rc(unmap(rig->ctx, rig->ioas, BASE, PAGE), 0);
		assert_rc(swiommu_dma_read(rig->dma, BASE, &c, 1), -ENOENT);
	}
}

/* A handle that is opened while the device is attached, and one that was there before. */
static void handles_follow_the_attachment(void **state)
{
	struct rig *rig = *state;
	struct swiommu_dma *late;
	uint32_t other = ioas_new(rig->ctx), pt = other;
	char c;

	assert_rc(map(rig->ctx, rig->ioas, R, BASE, rig->memory, PAGE), 0);
	assert_rc(map(rig->ctx, other, R, BASE, rig->memory + PAGE, PAGE), 0);
	rig->memory[0] = 'a';
	rig->memory[PAGE] = 'b';
	attach(rig);
	assert_rc(swiommu_dma_open(rig->idev, &late), 0);
	assert_rc(swiommu_dma_read(rig->dma, BASE, &c, 1), 0);
	assert_int_equal(c, 'a');
	assert_rc(swiommu_dma_read(late, BASE, &c, 1), 0);
	assert_int_equal(c, 'a');
	assert_rc(iommufd_device_replace(rig->idev, 0, &pt), 0);
	assert_rc(swiommu_dma_read(rig->dma, BASE, &c, 1), 0);
	assert_int_equal(c, 'b');
	assert_rc(swiommu_dma_read(late, BASE, &c, 1), 0);
	assert_int_equal(c, 'b');
	iommufd_device_detach(rig->idev, 0);
	assert_rc(swiommu_dma_read(late, BASE, &c, 1), -ENXIO);
	swiommu_dma_close(late);
}

struct load {
	pthread_t thread;
	struct swiommu_dma *dma;
	atomic_bool stop;
	atomic_ulong reads;
	unsigned long wrong, failed;
};

static void *load_thread(void *data)
{
	struct load *load = data;
	char buf[2];

	while (!load->stop) {
		if (swiommu_dma_read(load->dma, BASE + PAGE - 1, buf, 2))
			load->failed++;
		else if (buf[0] != buf[1] && load->wrong < 1000)
			load->wrong++;
		load->reads++;
	}
	return NULL;
}

/*
 * Replacing has no window: a DMA stream sees the old or the new translation, never a fault. Within one access it
 * may see both (it crosses areas here), as on hardware.
 */
static void replace_under_load(void **state)
{
	struct rig *rig = *state;
	uint32_t spaces[2] = {rig->ioas, ioas_new(rig->ctx)}, pt;
	struct load load = {0};
	unsigned long start;

	for (int i = 0; i < 2; i++) {
		memset(rig->memory + 2 * i * PAGE, 'a' + i, 2 * PAGE);
		/* Reversed: two areas for the two bytes. */
		assert_rc(map(rig->ctx, spaces[i], R, BASE, rig->memory + (2 * i + 1) * PAGE, PAGE),
			  0);
		assert_rc(
			map(rig->ctx, spaces[i], R, BASE + PAGE, rig->memory + 2 * i * PAGE, PAGE),
			0);
	}
	attach(rig);
	assert_rc(swiommu_dma_open(rig->idev, &load.dma), 0);
	assert_int_equal(pthread_create(&load.thread, NULL, load_thread, &load), 0);
	for (int i = 1; i <= 300; i++) {
		start = load.reads;
		pt = spaces[i % 2];
		assert_rc(iommufd_device_replace(rig->idev, 0, &pt), 0);
		while (load.reads < start + 2)
			sched_yield();
	}
	load.stop = true;
	pthread_join(load.thread, NULL);
	swiommu_dma_close(load.dma);
	assert_int_equal(load.failed, 0);
	assert_int_equal(rig->faults, 0);
	assert_true(load.wrong <= 300);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(across_areas),
		T(faults_are_told),
		T(a_refused_write_changes_nothing),
		T(unmap_takes_effect),
		T(handles_follow_the_attachment),
		T(replace_under_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
