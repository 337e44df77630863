// SPDX-License-Identifier: MIT
/* The edu model (spec vfio.md 7.5), and through it INTx: raise, mask, acknowledge, unmask. */
#include "rig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define IOVA 0x100000ull
#define BUFFER 0x40000u

static int setup(void **state)
{
	static struct rig rig;

	rig_ready(&rig, vfio_model_find("edu"), "");
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	rig_close(*state);
	return 0;
}

static uint32_t get(struct rig *rig, unsigned int reg)
{
	return (uint32_t)rig_read(rig, 0, reg, 4);
}

static void set(struct rig *rig, unsigned int reg, uint32_t value)
{
	rig_write(rig, 0, reg, 4, value);
}

static void registers(void **state)
{
	static const uint32_t factorials[] = {1, 1, 2, 6, 24, 120};

	assert_int_equal(get(*state, 0), 0x010000ed);
	set(*state, 4, 0x12345678);
	assert_int_equal(get(*state, 4), ~0x12345678u);
	for (uint32_t n = 0; n < 6; n++) {
		set(*state, 8, n);
		while (get(*state, 0x20) & 1)
			sched_yield();
		assert_int_equal(get(*state, 8), factorials[n]);
	}
	set(*state, 8, 13); /* modulo 2^32 */
	while (get(*state, 0x20) & 1)
		sched_yield();
	assert_int_equal(get(*state, 8), 1932053504u);
	/* Other sizes and places: ones, and nothing is written. */
	assert_int_equal(rig_read(*state, 0, 4, 2), 0xffff);
	assert_int_equal(rig_read(*state, 0, 0, 8), UINT64_MAX);
	assert_int_equal(get(*state, 0x0c), UINT32_MAX);
	assert_int_equal(get(*state, BUFFER), UINT32_MAX);
	rig_write(*state, 0, 4, 1, 0);
	assert_int_equal(get(*state, 4), ~0x12345678u);
	rig_write(*state, 0, 0x80, 8, 0x1122334455667788);
	assert_int_equal(get(*state, 0x84), 0x11223344);
	set(*state, 0x84, 1);
	assert_int_equal(rig_read(*state, 0, 0x80, 8), 0x155667788);
	rig_expect(*state, VFIO_DEVICE_RESET, NULL, 0);
	assert_int_equal(get(*state, 4), 0);
	assert_int_equal(rig_read(*state, 0, 0x80, 8), 0);
}

static long mask(struct rig *rig, uint32_t action)
{
	return rig_set_irqs(rig, VFIO_IRQ_SET_DATA_NONE | action, VFIO_PCI_INTX_IRQ_INDEX, 0, 1,
			    NULL);
}

static void line(void **state)
{
	int32_t efd = rig_eventfd();

	assert_int_equal(rig_arm(*state, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, &efd), 0);
	set(*state, 0x60, 0x3);
	assert_int_equal(rig_count(efd), 1);
	assert_int_equal(get(*state, 0x24), 3);
	assert_true(rig_read(*state, CONFIG, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	/* Firing has masked it: more reasons make no more interrupts. */
	set(*state, 0x60, 0x4);
	assert_int_equal(rig_count(efd), 0);
	/* Still up when unmasked: again. */
	assert_int_equal(mask(*state, VFIO_IRQ_SET_ACTION_UNMASK), 0);
	assert_int_equal(rig_count(efd), 1);
	set(*state, 0x64, 0x3);
	assert_int_equal(get(*state, 0x24), 4);
	assert_int_equal(mask(*state, VFIO_IRQ_SET_ACTION_UNMASK), 0);
	assert_int_equal(rig_count(efd), 1);
	set(*state, 0x64, 0x4);
	assert_false(rig_read(*state, CONFIG, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	assert_int_equal(mask(*state, VFIO_IRQ_SET_ACTION_UNMASK), 0);
	assert_int_equal(rig_count(efd), 0);
	/* Masked: it waits. */
	assert_int_equal(mask(*state, VFIO_IRQ_SET_ACTION_MASK), 0);
	set(*state, 0x60, 1);
	assert_int_equal(rig_count(efd), 0);
	assert_int_equal(mask(*state, VFIO_IRQ_SET_ACTION_UNMASK), 0);
	assert_int_equal(rig_count(efd), 1);
	/* A reset lowers the line. */
	rig_expect(*state, VFIO_DEVICE_RESET, NULL, 0);
	assert_int_equal(get(*state, 0x24), 0);
	assert_int_equal(mask(*state, VFIO_IRQ_SET_ACTION_UNMASK), 0);
	assert_int_equal(rig_count(efd), 0);
	close(efd);
}

static void message(void **state)
{
	int32_t efd = rig_eventfd();

	assert_int_equal(rig_arm(*state, VFIO_PCI_MSI_IRQ_INDEX, 0, 1, &efd), 0);
	set(*state, 0x60, 0x1);
	set(*state, 0x60, 0x2);
	assert_int_equal(rig_count(efd), 2);
	/* When a factorial is done. */
	set(*state, 0x64, 3);
	set(*state, 0x20, 0x80);
	set(*state, 8, 5);
	assert_int_equal(rig_wait(efd), 1);
	assert_int_equal(get(*state, 0x24), 1);
	assert_int_equal(get(*state, 0x20), 0x80);
	close(efd);
}

static void dma(struct rig *rig, uint64_t source, uint64_t destination, uint64_t count,
		uint32_t command)
{
	rig_write(rig, 0, 0x80, 8, source);
	rig_write(rig, 0, 0x88, 8, destination);
	rig_write(rig, 0, 0x90, 8, count);
	set(rig, 0x98, command);
	while (get(rig, 0x98) & 1)
		sched_yield();
}

static void copies(void **state)
{
	/* Each moves nothing and raises nothing. */
	static const struct {
		uint64_t source, destination, count;
		uint32_t command;
	} bad[] = {
		{IOVA, BUFFER, 4097, 5},     /* larger than the buffer */
		{IOVA, BUFFER + 1, 4096, 5}, /* behind its end */
		{IOVA, BUFFER - 1, 1, 5},    /* before it */
		{IOVA, UINT64_MAX, 2, 5},    /* around the end */
		{IOVA, BUFFER, UINT64_MAX, 5},	  {1ull << 28, BUFFER, 1, 5}, /* beyond 28 bits */
		{(1ull << 28) - 1, BUFFER, 2, 5}, {UINT64_MAX, BUFFER, 2, 5},
		{IOVA + 8192, BUFFER, 1, 5}, /* not mapped */
		{BUFFER, IOVA + 8192, 1, 7},
	};
	struct rig *rig = *state;
	int32_t efd = rig_eventfd();
	uint8_t *mem = rig_pages(8192);

	assert_int_equal(rig_arm(rig, VFIO_PCI_MSI_IRQ_INDEX, 0, 1, &efd), 0);
	rig_map(rig, mem, 8192, IOVA, IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE);
	/* Around the end of the device's addresses. */
	rig_map(rig, mem, 8192, (1ull << 28) - 4096,
		IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE);
	for (unsigned int i = 0; i < 4096; i++)
		mem[i] = (uint8_t)(i * 3);
	dma(rig, IOVA, BUFFER, 4096, 1 | 4);
	assert_int_equal(rig_wait(efd), 1);
	assert_int_equal(get(rig, 0x24), 0x100);
	dma(rig, BUFFER + 100, IOVA + 4096 + 7, 50, 1 | 2);
	assert_memory_equal(mem + 4096 + 7, mem + 100, 50);
	assert_int_equal(mem[4096 + 6], 0);
	assert_int_equal(mem[4096 + 57], 0);
	assert_int_equal(rig_count(efd), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		dma(rig, bad[i].source, bad[i].destination, bad[i].count, bad[i].command);
		assert_int_equal(rig_count(efd), 0);
	}
	dma(rig, BUFFER, IOVA + 4096, 4096, 1 | 2);
	assert_memory_equal(mem, mem + 4096, 4096);
	munmap(mem, 8192);
	close(efd);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(registers),
		T(line),
		T(message),
		T(copies),
	};

	return cmocka_run_group_tests_name("vfio_edu", tests, NULL, NULL);
}
