// SPDX-License-Identifier: MIT
/* Configuration space as a client sees it: spec vfio.md 4.7, and "state at open" of 4.1. */
#include "rig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>
#include <unistd.h>

/* Capabilities of the test model, in the order in which it adds them. */
#define PM 0x40
#define MSI 0x48
#define EXP 0x58
#define MSIX 0x94

static int setup(void **state)
{
	static struct rig rig;

	rig_bound(&rig, &probe_model, "");
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	rig_close(*state);
	return 0;
}

static void header_and_capabilities_at_open(void **state)
{
	static const struct {
		unsigned int pos, size;
		uint32_t value;
	} regs[] = {
		{PCI_VENDOR_ID, 4, 0x56781234},
		{PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_IO},
		{PCI_STATUS, 2, PCI_STATUS_CAP_LIST},
		{PCI_CLASS_REVISION, 4, 0xff010242},
		{PCI_CACHE_LINE_SIZE, 4, 0},
		/* Index 3 of the 32-bit, the 64-bit and the I/O window. */
		{PCI_BASE_ADDRESS_0, 4, 0x83000000},
		{PCI_BASE_ADDRESS_1, 4, 0x83010000},
		{PCI_BASE_ADDRESS_2, 4, 0x0000000c},
		{PCI_BASE_ADDRESS_3, 4, 0x00003830},
		{PCI_BASE_ADDRESS_4, 4, 0x00001301},
		{PCI_BASE_ADDRESS_5, 4, 0},
		{PCI_SUBSYSTEM_VENDOR_ID, 4, 0xdef09abc},
		{PCI_ROM_ADDRESS, 4, 0x83011000},
		{PCI_CAPABILITY_LIST, 1, PM},
		{PCI_INTERRUPT_LINE, 2, 0x0100},
		{PM, 4, 0x00030001 | MSI << 8},
		{PM + 4, 4, 8},
		{MSI, 4, 0x00860005 | EXP << 8},
		{EXP, 4, 0x00020010 | MSIX << 8},
		{EXP + PCI_EXP_DEVCAP, 4, 0x10008000},
		{MSIX, 4, 0x00030011},
		{MSIX + 4, 4, 0x8000},
		{MSIX + 8, 4, 0x9000},
		{0x100, 4, 0},
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(regs); i++)
		if (rig_read(*state, CONFIG, regs[i].pos, regs[i].size) != regs[i].value)
			fail_msg("0x%x: 0x%llx, expected 0x%x", regs[i].pos,
				 (unsigned long long)rig_read(*state, CONFIG, regs[i].pos,
							      regs[i].size),
				 regs[i].value);
}

/* What all ones and then all zeros leave behind, register by register. */
static void writable_bits(void **state)
{
	static const struct {
		unsigned int pos, size;
		uint32_t ones, zeros;
	} regs[] = {
		{PCI_VENDOR_ID, 4, 0x56781234, 0x56781234},
		{PCI_COMMAND, 2, 0x0547, 0},
		{PCI_STATUS, 2, PCI_STATUS_CAP_LIST, PCI_STATUS_CAP_LIST},
		{PCI_CLASS_REVISION, 4, 0xff010242, 0xff010242},
		{PCI_CACHE_LINE_SIZE, 1, 0xff, 0},
		{PCI_LATENCY_TIMER, 1, 0xff, 0},
		{PCI_HEADER_TYPE, 1, 0, 0},
		{PCI_BASE_ADDRESS_0, 4, 0xffff0000, 0},
		{PCI_BASE_ADDRESS_1, 4, 0xfffffff0, 0},
		{PCI_BASE_ADDRESS_2, 4, 0xff00000c, 0xc},
		{PCI_BASE_ADDRESS_3, 4, 0xffffffff, 0},
		{PCI_BASE_ADDRESS_4, 4, 0xffffffe1, 1},
		{PCI_BASE_ADDRESS_5, 4, 0, 0},
		{PCI_CARDBUS_CIS, 4, 0, 0},
		{PCI_SUBSYSTEM_VENDOR_ID, 4, 0xdef09abc, 0xdef09abc},
		{PCI_ROM_ADDRESS, 4, 0xfffff801, 0},
		{PCI_CAPABILITY_LIST, 1, PM, PM},
		{PCI_INTERRUPT_LINE, 1, 0xff, 0},
		{PCI_INTERRUPT_PIN, 1, 1, 1},
		{PM, 4, 0x00030001 | MSI << 8, 0x00030001 | MSI << 8},
		{PM + 4, 4, 0xb, 8},
		/* Not armed: enable stays 0. Multiple message enable is clamped to 8 vectors. */
		{MSI + 2, 2, 0x00b6, 0x0086},
		{MSI + 4, 4, 0xfffffffc, 0},
		{MSI + 8, 4, 0xffffffff, 0},
		{MSI + 12, 2, 0xffff, 0},
		{EXP, 4, 0x00020010 | MSIX << 8, 0x00020010 | MSIX << 8},
		{EXP + PCI_EXP_DEVCAP, 4, 0x10008000, 0x10008000},
		{EXP + PCI_EXP_DEVCTL, 2, 0x7dff, 0},
		{EXP + PCI_EXP_DEVSTA, 2, 0, 0},
		{EXP + PCI_EXP_LNKCTL, 2, 0, 0},
		{EXP + PCI_EXP_DEVCTL2, 2, 0xffdf, 0},
		{MSIX, 4, 0x00030011, 0x00030011},
		{MSIX + 4, 4, 0x8000, 0x8000},
		{0x100, 4, 0, 0},
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(regs); i++) {
		uint64_t ones, zeros;

		rig_write(*state, CONFIG, regs[i].pos, regs[i].size, 0xffffffff);
		ones = rig_read(*state, CONFIG, regs[i].pos, regs[i].size);
		rig_write(*state, CONFIG, regs[i].pos, regs[i].size, 0);
		zeros = rig_read(*state, CONFIG, regs[i].pos, regs[i].size);
		if (ones != regs[i].ones || zeros != regs[i].zeros)
			fail_msg("0x%x: ones 0x%llx (0x%x), zeros 0x%llx (0x%x)", regs[i].pos,
				 (unsigned long long)ones, regs[i].ones, (unsigned long long)zeros,
				 regs[i].zeros);
	}
}

static void bar_values_are_kept_per_byte(void **state)
{
	rig_write(*state, CONFIG, PCI_BASE_ADDRESS_0, 4, 0xdead0000);
	rig_write(*state, CONFIG, PCI_BASE_ADDRESS_0 + 3, 1, 0x12);
	assert_int_equal(rig_read(*state, CONFIG, PCI_BASE_ADDRESS_0, 4), 0x12ad0000);
	/* The region has not moved. */
	rig_write(*state, 0, 0x10, 4, 0x11223344);
	assert_int_equal(rig_read(*state, 0, 0x10, 4), 0x11223344);
}

static void power_state_has_d0_and_d3hot(void **state)
{
	char byte;

	rig_write(*state, CONFIG, PM + 4, 2, 1);
	assert_int_equal(rig_read(*state, CONFIG, PM + 4, 2), 8);
	rig_write(*state, CONFIG, PM + 4, 2, 3);
	assert_int_equal(rig_read(*state, CONFIG, PM + 4, 2), 0xb);
	rig_write(*state, CONFIG, PM + 4, 2, 2);
	assert_int_equal(rig_read(*state, CONFIG, PM + 4, 2), 0xb);
	assert_int_equal(rig_try_read(*state, 0, 0, &byte, 1), -EIO);
	assert_int_equal(rig_try_read(*state, 4, 0, &byte, 1), -EIO);
	rig_write(*state, CONFIG, PM + 4, 2, 0);
	assert_int_equal(rig_try_read(*state, 0, 0, &byte, 1), 1);
}

static void accesses_beyond_the_space_fail(void **state)
{
	static const struct {
		uint64_t pos, count;
		ssize_t rc;
	} cases[] = {
		{0, 0, 0},	    {4096, 0, 0},
		{0, 4096, 4096},    {4095, 1, 1},
		{4095, 2, -EFAULT}, {4096, 1, -EFAULT},
		{0, 4097, -EFAULT}, {1ull << 39, 4, -EFAULT},
	};
	static uint8_t buf[4097];

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(rig_try_read(*state, CONFIG, cases[i].pos, buf, cases[i].count),
				 cases[i].rc);
		if (cases[i].rc <= 1)
			assert_int_equal(
				rig_try_write(*state, CONFIG, cases[i].pos, buf, cases[i].count),
				cases[i].rc);
	}
}

/* Reading all at once gives what reading byte by byte gives. */
static void any_split_reads_the_same(void **state)
{
	uint8_t whole[4096], byte;

	assert_int_equal(rig_try_read(*state, CONFIG, 0, whole, 4096), 4096);
	for (unsigned int i = 0; i < 4096; i++) {
		assert_int_equal(rig_try_read(*state, CONFIG, i, &byte, 1), 1);
		assert_int_equal(byte, whole[i]);
	}
}

static void hooked_registers_go_to_the_model_in_pieces(void **state)
{
	struct probe *p = probe_of(*state);
	static const struct {
		unsigned int offset, size;
	} pieces[] = {{0x201, 1}, {0x202, 2}, {0x204, 2}};
	uint8_t buf[8] = {0};

	/* 0x1ff is ordinary, then 5 hooked bytes. */
	assert_int_equal(rig_try_read(*state, CONFIG, 0x201, buf, 5), 5);
	assert_int_equal(p->nr_log, 3);
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(p->log[i].offset, pieces[i].offset);
		assert_int_equal(p->log[i].size, pieces[i].size);
		assert_false(p->log[i].write);
	}
	rig_write(*state, CONFIG, 0x200, 4, 0xcafe);
	assert_int_equal(rig_read(*state, CONFIG, 0x200, 2), 0xcafe);
	assert_int_equal(rig_try_write(*state, CONFIG, 0x204, "\xad\x0b\0\0", 4), -EIO);
	p->nr_log = 0;
	rig_write(*state, CONFIG, 0x208, 4, 1);
	assert_int_equal(p->nr_log, 0);
}

static void flr_resets_and_reads_zero(void **state)
{
	struct probe *p = probe_of(*state);
	unsigned int resets = p->resets;

	rig_write(*state, CONFIG, PCI_COMMAND, 2, 6);
	rig_write(*state, CONFIG, PCI_BASE_ADDRESS_0, 4, 0x12340000);
	rig_write(*state, CONFIG, EXP + PCI_EXP_DEVCTL, 2, 0x8000);
	assert_int_equal(p->resets, resets + 1);
	assert_int_equal(rig_read(*state, CONFIG, EXP + PCI_EXP_DEVCTL, 2), 0);
	/* Configuration is saved and restored around it. */
	assert_int_equal(rig_read(*state, CONFIG, PCI_COMMAND, 2), 6);
	assert_int_equal(rig_read(*state, CONFIG, PCI_BASE_ADDRESS_0, 4), 0x12340000);
	/* The other byte of DEVCTL alone has no such bit. */
	rig_write(*state, CONFIG, EXP + PCI_EXP_DEVCTL, 1, 0x80);
	assert_int_equal(p->resets, resets + 1);
	rig_write(*state, CONFIG, EXP + PCI_EXP_DEVCTL + 1, 1, 0x80);
	assert_int_equal(p->resets, resets + 2);
}

static void enable_bits_follow_set_irqs(void **state)
{
	int32_t fd = rig_eventfd();

	assert_int_equal(rig_arm(*state, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, &fd), 0);
	assert_int_equal(rig_read(*state, CONFIG, MSIX + 2, 2), 0x8003);
	rig_write(*state, CONFIG, MSIX + 2, 2, 0);
	assert_int_equal(rig_read(*state, CONFIG, MSIX + 2, 2), 0x8003);
	rig_write(*state, CONFIG, MSI + 2, 2, 1);
	assert_int_equal(rig_read(*state, CONFIG, MSI + 2, 2), 0x86);
	assert_int_equal(rig_set_irqs(*state, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
				      VFIO_PCI_MSIX_IRQ_INDEX, 0, 0, NULL),
			 0);
	assert_int_equal(rig_read(*state, CONFIG, MSIX + 2, 2), 3);

	assert_int_equal(rig_arm(*state, VFIO_PCI_MSI_IRQ_INDEX, 0, 1, &fd), 0);
	rig_write(*state, CONFIG, MSI + 2, 2, 0x11);
	assert_int_equal(rig_read(*state, CONFIG, MSI + 2, 2), 0x97);
	assert_int_equal(rig_set_irqs(*state, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
				      VFIO_PCI_MSI_IRQ_INDEX, 0, 0, NULL),
			 0);
	assert_int_equal(rig_read(*state, CONFIG, MSI + 2, 2), 0x96);
	close(fd);
}

static void a_new_open_starts_afresh(void **state)
{
	struct rig *rig = *state;

	rig_write(rig, CONFIG, PCI_COMMAND, 2, 0x405);
	rig_write(rig, CONFIG, PCI_BASE_ADDRESS_0, 4, 0);
	vfio_file_close(rig->file);
	assert_int_equal(vfio_file_open(rig->dev, &rig->file), 0);
	assert_int_equal(rig_bind(rig), 0);
	assert_int_equal(rig_read(rig, CONFIG, PCI_COMMAND, 2), 3);
	assert_int_equal(rig_read(rig, CONFIG, PCI_BASE_ADDRESS_0, 4), 0x83000000);
}

static void bare_device_has_256_bytes(void **state)
{
	struct rig rig;
	uint8_t buf[256];

	(void)state;
	rig_bound(&rig, &bare_model, "");
	assert_int_equal(rig_try_read(&rig, CONFIG, 0, buf, 256), 256);
	for (unsigned int i = 0; i < 256; i++)
		assert_int_equal(buf[i], 0);
	assert_int_equal(rig_try_read(&rig, CONFIG, 256, buf, 1), -EFAULT);
	rig_close(&rig);
}

/* ---- what builders refuse ---------------------------------------------------------------- */

static int bad_model_number;

static int bad_create(struct vfio_device *dev, const char *options, struct swi_reason *why,
		      void **out_priv)
{
	int rc = bare_model.create(dev, options, why, out_priv);

	vfio_pci_add_region(dev, 0, 4096, VFIO_BAR_64BIT);
	switch (bad_model_number) {
	case 0:
		vfio_pci_add_region(dev, 2, 3000, 0);
		break;
	case 1:
		vfio_pci_add_region(dev, 5, 4096, VFIO_BAR_64BIT);
		break;
	case 2:
		vfio_pci_add_region(dev, 1, 4096, 0);
		break;
	case 3:
		vfio_config_add_msix(dev, 300, 0, 0, 2048);
		break;
	case 4:
		vfio_config_add_msix(dev, 1, 2, 0, 2048);
		break;
	case 5:
		vfio_config_add_msi(dev, 6);
		break;
	case 6:
		vfio_config_add_ext_cap(dev, 1, 1, 16);
		break;
	case 7:
		vfio_config_hook(dev, 0x80, 4);
		break;
	case 8:
		for (unsigned int i = 0; i < 7; i++)
			vfio_config_add_cap(dev, PCI_CAP_ID_VNDR, 28);
		break;
	case 9:
		vfio_pci_add_region(dev, 2, 1ull << 37, VFIO_BAR_64BIT);
		break;
	case 10:
		vfio_pci_add_region(dev, 2, 1ull << 25, 0);
		break;
	}
	return rc;
}

static void builders_refuse_nonsense(void **state)
{
	struct vfio_model bad = bare_model;
	struct vfio_device_place place = {.bdf = "0000:00:01.0"};

	(void)state;
	bad.create = bad_create;
	for (bad_model_number = 0; bad_model_number <= 10; bad_model_number++) {
		struct swi_reason why = {""};
		struct vfio_device *dev = NULL;
		int rc = vfio_device_create(&bad, &place, "", &dev, &why);

		if (rc != -EINVAL || !why.text[0])
			fail_msg("case %d: %d (%s)", bad_model_number, rc, why.text);
	}
}

static int caps_create(struct vfio_device *dev, const char *options, struct swi_reason *why,
		       void **out_priv)
{
	int rc = bare_model.create(dev, options, why, out_priv);
	unsigned int pos = vfio_config_add_cap(dev, PCI_CAP_ID_VNDR, 9);

	vfio_config_set(dev, pos + 2, 1, 9, 0, 0);
	vfio_config_set(dev, pos + 4, 4, 0x80000001, 0xff, 0x80000000);
	vfio_config_add_pcie(dev, false);
	vfio_config_add_ext_cap(dev, PCI_EXT_CAP_ID_DSN, 1, 12);
	vfio_config_add_ext_cap(dev, PCI_EXT_CAP_ID_LTR, 2, 8);
	return rc;
}

static void other_capabilities_are_linked(void **state)
{
	struct vfio_model model = bare_model;
	struct rig rig;

	(void)state;
	model.create = caps_create;
	rig_bound(&rig, &model, "");
	assert_int_equal(rig_read(&rig, CONFIG, 0x40, 4), 0x00094c09);
	assert_int_equal(rig_read(&rig, CONFIG, 0x4c, 2), 0x0010);
	assert_int_equal(rig_read(&rig, CONFIG, 0x100, 4), 0x10c10003);
	assert_int_equal(rig_read(&rig, CONFIG, 0x10c, 4), 0x00020018);
	rig_write(&rig, CONFIG, 0x44, 4, 0x0000ff22);
	assert_int_equal(rig_read(&rig, CONFIG, 0x44, 4), 0x80000022);
	rig_write(&rig, CONFIG, 0x44, 4, 0x80000000);
	assert_int_equal(rig_read(&rig, CONFIG, 0x44, 4), 0);
	/* No FLR: the bit is without effect. */
	rig_write(&rig, CONFIG, 0x4c + PCI_EXP_DEVCTL, 2, 0x8000);
	assert_int_equal(probe_of(&rig)->resets, 1);
	rig_close(&rig);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(header_and_capabilities_at_open),
		T(writable_bits),
		T(bar_values_are_kept_per_byte),
		T(power_state_has_d0_and_d3hot),
		T(accesses_beyond_the_space_fail),
		T(any_split_reads_the_same),
		T(hooked_registers_go_to_the_model_in_pieces),
		T(flr_resets_and_reads_zero),
		T(enable_bits_follow_set_irqs),
		T(a_new_open_starts_afresh),
		cmocka_unit_test(bare_device_has_256_bytes),
		cmocka_unit_test(builders_refuse_nonsense),
		cmocka_unit_test(other_capabilities_are_linked),
	};

	return cmocka_run_group_tests_name("vfio_config", tests, NULL, NULL);
}
