// SPDX-License-Identifier: MIT
/*
 * The ioctls that describe a device, reading and writing of regions, mmap, RESET, FEATURE: spec
 * vfio.md 4.1, 4.2, 4.4-4.6.
 */
#include "rig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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

/* ---- info -------------------------------------------------------------------------------- */

/* Which bytes of a buffer of 0xa5 a call has touched is part of the answer. */
static void get_info(void **state)
{
	struct rig *rig = *state;
	union {
		struct vfio_device_info info;
		uint8_t bytes[64];
	} u;

	for (uint32_t argsz = 16; argsz <= 40; argsz++) {
		memset(&u, 0xa5, sizeof(u));
		u.info.argsz = argsz;
		rig_expect(rig, VFIO_DEVICE_GET_INFO, &u, 0);
		assert_int_equal(u.info.argsz, argsz);
		assert_int_equal(u.info.flags, VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI);
		assert_int_equal(u.info.num_regions, 9);
		assert_int_equal(u.info.num_irqs, 5);
		for (uint32_t i = 16; i < sizeof(u); i++)
			assert_int_equal(u.bytes[i], i < argsz && i < sizeof(u.info) ? 0 : 0xa5);
	}
	for (uint32_t argsz = 0; argsz < 16; argsz++) {
		u.info.argsz = argsz;
		rig_expect(rig, VFIO_DEVICE_GET_INFO, &u, -EINVAL);
	}
	rig_expect(rig, VFIO_DEVICE_GET_INFO, NULL, -EFAULT);
	rig->bad_out = (uintptr_t)&u;
	u.info.argsz = 16;
	rig_expect(rig, VFIO_DEVICE_GET_INFO, &u, -EFAULT);
}

static void get_region_info(void **state)
{
	static const struct {
		uint32_t index;
		long rc;
		uint32_t flags;
		uint64_t size;
	} cases[] = {
		{0, 0, 1 | 2 | 4 | 8, 0x10000},
		{1, 0, 1 | 2 | 4, 16},
		{2, 0, 1 | 2 | 4, 16 << 20},
		{3, 0, 0, 0},
		{4, 0, 1 | 2, 32},
		{5, 0, 0, 0},
		{6, 0, 1, 2048},
		{7, 0, 1 | 2, 4096},
		{8, -EINVAL, 0, 0},
		{9, -EINVAL, 0, 0},
		{UINT32_MAX, -EINVAL, 0, 0},
	};

	((struct rig *)*state)->caller.can_trap = true;
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vfio_region_info info = {
			.argsz = 32, .index = cases[i].index, .flags = 0, .cap_offset = 77};

		rig_expect(*state, VFIO_DEVICE_GET_REGION_INFO, &info, cases[i].rc);
		if (cases[i].rc)
			continue;
		assert_int_equal(info.index, cases[i].index);
		assert_int_equal(info.flags, cases[i].flags);
		assert_int_equal(info.size, cases[i].size);
		assert_int_equal(info.offset, (uint64_t)cases[i].index << 40);
		assert_int_equal(info.cap_offset, 0);
		/* BAR 0 has a capability that did not fit. */
		assert_int_equal(info.argsz, cases[i].index ? 32 : 40);
	}
	for (uint32_t argsz = 0; argsz < 32; argsz += 31) {
		struct vfio_region_info info = {.argsz = argsz};

		rig_expect(*state, VFIO_DEVICE_GET_REGION_INFO, &info, -EINVAL);
	}
	rig_expect(*state, VFIO_DEVICE_GET_REGION_INFO, NULL, -EFAULT);
}

static void region_capabilities(void **state)
{
	union {
		struct vfio_region_info info;
		uint8_t bytes[64];
	} u;
	struct vfio_info_cap_header cap;

	((struct rig *)*state)->caller.can_trap = true;
	for (uint32_t argsz = 32; argsz <= 48; argsz++) {
		memset(&u, 0xa5, sizeof(u));
		u.info.argsz = argsz;
		u.info.index = 0;
		rig_expect(*state, VFIO_DEVICE_GET_REGION_INFO, &u, 0);
		assert_true(u.info.flags & VFIO_REGION_INFO_FLAG_CAPS);
		assert_int_equal(u.info.argsz, argsz < 40 ? 40 : argsz);
		assert_int_equal(u.info.cap_offset, argsz < 40 ? 0 : 32);
		memcpy(&cap, u.bytes + 32, sizeof(cap));
		assert_int_equal(cap.id, argsz < 40 ? 0xa5a5 : VFIO_REGION_INFO_CAP_MSIX_MAPPABLE);
		assert_int_equal(cap.version, argsz < 40 ? 0xa5a5 : 1);
		assert_int_equal(cap.next, argsz < 40 ? 0xa5a5a5a5 : 0);
		assert_int_equal(u.bytes[40], 0xa5);
	}
}

static void bare_device(void **state)
{
	struct vfio_device_info info = {.argsz = sizeof(info)};
	struct vfio_region_info region = {.argsz = sizeof(region), .index = 6};
	struct rig rig;

	(void)state;
	rig_bound(&rig, &bare_model, "");
	rig_expect(&rig, VFIO_DEVICE_GET_INFO, &info, 0);
	assert_int_equal(info.flags, VFIO_DEVICE_FLAGS_PCI);
	rig_expect(&rig, VFIO_DEVICE_RESET, NULL, -EINVAL);
	rig_expect(&rig, VFIO_DEVICE_GET_REGION_INFO, &region, 0);
	assert_int_equal(region.flags, 0);
	assert_int_equal(region.size, 0);
	rig_close(&rig);
}

static void hot_reset_and_feature(void **state)
{
	static const struct {
		unsigned int cmd;
		uint32_t argsz, flags;
		long rc;
	} cases[] = {
		{VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, 11, 0, -EINVAL},
		{VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, 12, 0, -ENOSPC},
		{VFIO_DEVICE_PCI_HOT_RESET, 11, 0, -EINVAL},
		{VFIO_DEVICE_PCI_HOT_RESET, 12, 1, -EINVAL},
		{VFIO_DEVICE_PCI_HOT_RESET, 12, 0, 0},
		{VFIO_DEVICE_FEATURE, 7, VFIO_DEVICE_FEATURE_GET, -EINVAL},
		{VFIO_DEVICE_FEATURE, 8, 1u << 19, -EINVAL},
		{VFIO_DEVICE_FEATURE, 8, 1u << 31, -EINVAL},
		{VFIO_DEVICE_FEATURE, 16, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET,
		 -EINVAL},
		{VFIO_DEVICE_FEATURE, 16,
		 VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PROBE | 1,
		 -ENOTTY},
		{VFIO_DEVICE_FEATURE, 16, VFIO_DEVICE_FEATURE_GET | 1, -ENOTTY},
		{VFIO_DEVICE_FEATURE, 24, VFIO_DEVICE_FEATURE_SET | 0xffff, -ENOTTY},
		{VFIO_DEVICE_FEATURE, 8, 0, -ENOTTY},
		{VFIO_DEVICE_IOEVENTFD, 27, 0, -EINVAL},
		{VFIO_DEVICE_IOEVENTFD, 40, 0, -EINVAL},
		{VFIO_DEVICE_QUERY_GFX_PLANE, 64, 0, -ENOTTY},
		{VFIO_DEVICE_GET_GFX_DMABUF, 64, 0, -ENOTTY},
		{VFIO_GROUP_GET_STATUS, 8, 0, -ENOTTY},
		{VFIO_DEVICE_GET_INFO | 1u << 30, 16, 0, -ENOTTY},
		{0x5401, 64, 0, -ENOTTY},
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t arg[16] = {cases[i].argsz, cases[i].flags};

		rig_expect(*state, cases[i].cmd, arg, cases[i].rc);
	}
	rig_expect(*state, VFIO_DEVICE_FEATURE, NULL, -EFAULT);
	rig_expect(*state, VFIO_DEVICE_PCI_HOT_RESET, NULL, -EFAULT);
	rig_expect(*state, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, NULL, -EFAULT);
}

/* ---- reading and writing ----------------------------------------------------------------- */

static void accesses_are_split_by_alignment(void **state)
{
	static const struct {
		uint64_t off;
		size_t len;
		unsigned int sizes[8]; /* of the pieces */
	} cases[] = {
		{0x10, 8, {8}},		  {0x10, 4, {4}},	{0x10, 16, {8, 8}},
		{0x11, 1, {1}},		  {0x11, 2, {1, 1}},	{0x11, 8, {1, 2, 4, 1}},
		{0x14, 8, {4, 4}},	  {0x12, 8, {2, 4, 2}}, {0x17, 10, {1, 8, 1}},
		{0x13, 15, {1, 4, 8, 2}}, {0x10, 7, {4, 2, 1}}, {0x1fd, 6, {1, 2, 2, 1}},
	};
	struct probe *p = probe_of(*state);
	uint8_t buf[32], back[32];

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t off = cases[i].off;
		unsigned int n = 0;

		for (unsigned int k = 0; k < sizeof(buf); k++)
			buf[k] = (uint8_t)(k + 16 * i + 1);
		for (unsigned int write = 2; write--;) {
			p->nr_log = 0;
			assert_int_equal(write ? rig_try_write(*state, 0, off, buf, cases[i].len)
					       : rig_try_read(*state, 0, off, back, cases[i].len),
					 cases[i].len);
			off = cases[i].off;
			for (n = 0; n < 8 && cases[i].sizes[n]; n++) {
				assert_int_equal(p->log[n].size, cases[i].sizes[n]);
				assert_int_equal(p->log[n].offset, off);
				assert_int_equal(p->log[n].write, write);
				off += p->log[n].size;
			}
			assert_int_equal(p->nr_log, n);
			off = cases[i].off;
		}
		assert_memory_equal(buf, back, cases[i].len);
	}
}

/* However long a transfer is, no piece of it is smaller than alignment asks for. */
static void long_transfers_keep_the_pieces(void **state)
{
	struct probe *p = probe_of(*state);
	uint8_t buf[1600];

	assert_int_equal(rig_try_read(*state, 2, 0x104, buf, sizeof(buf)), sizeof(buf));
	assert_int_equal(p->nr_log, 201);
	for (unsigned int i = 0; i < p->nr_log; i++)
		assert_int_equal(p->log[i].size, i == 0 || i == 200 ? 4 : 8);
}

static void positions_and_counts(void **state)
{
	static const struct {
		unsigned int region;
		uint64_t off;
		size_t len;
		ssize_t read, write;
	} cases[] = {
		{0, 0, 0, 0, 0},
		{0, 0x10000, 0, 0, 0},
		{9, 0, 0, 0, 0},
		{0, 0xffff, 1, 1, 1},
		{0, 0xfffe, 4, 2, 2},
		{0, 0x10000, 1, -EINVAL, -EINVAL},
		{0, UINT32_MAX, 1, -EINVAL, -EINVAL},
		{1, 0, 64, 16, 16},
		{3, 0, 4, -EINVAL, -EINVAL},
		{4, 30, 4, 2, 2},
		{5, 0, 1, -EINVAL, -EINVAL},
		{6, 2047, 8, 1, -EINVAL},
		{6, 2048, 1, -EINVAL, -EINVAL},
		{8, 0, 1, -EINVAL, -EINVAL},
		{9, 0, 1, -EINVAL, -EINVAL},
		{0x7fffff, 0, 1, -EINVAL, -EINVAL},
		{0xffffff, UINT32_MAX, 1, -EINVAL, -EINVAL},
	};
	uint8_t buf[64] = {0};

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct rig *rig = *state;
		ssize_t r = rig_try_read(rig, cases[i].region, cases[i].off, buf, cases[i].len);
		ssize_t w;

		assert_int_equal(rig->caller.reason[0] != '\0', r < 0);
		w = rig_try_write(rig, cases[i].region, cases[i].off, buf, cases[i].len);
		assert_int_equal(rig->caller.reason[0] != '\0', w < 0);
		if (r != cases[i].read || w != cases[i].write)
			fail_msg("case %u: read %zd, write %zd (%s)", i, r, w, rig->caller.reason);
	}
}

static void long_transfers(void **state)
{
	static uint8_t buf[0x12000], back[0x12000];

	for (unsigned int i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)i;
	assert_int_equal(rig_try_write(*state, 2, 0x101, buf, sizeof(buf)), sizeof(buf));
	assert_int_equal(rig_try_read(*state, 2, 0x101, back, sizeof(back)), sizeof(back));
	for (unsigned int i = 0; i < sizeof(back); i++) /* memory repeats every 256 bytes */
		assert_int_equal(back[i], buf[sizeof(buf) - 256 + i % 256]);
	/* Clamped at the end of the region. */
	assert_int_equal(rig_try_read(*state, 0, 0x100, back, sizeof(back)), 0xff00);
}

static void the_msix_table_is_the_hosts(void **state)
{
	struct probe *p = probe_of(*state);
	uint8_t buf[0x60];

	memset(p->memory[0], 0x11, 256);
	memset(buf, 0x22, sizeof(buf));
	assert_int_equal(rig_try_write(*state, 0, 0x7ff6, buf, sizeof(buf)), sizeof(buf));
	for (unsigned int i = 0; i < p->nr_log; i++)
		assert_true(p->log[i].offset + p->log[i].size <= 0x8000 ||
			    p->log[i].offset >= 0x8040);
	for (unsigned int i = 0; i < 256; i++) /* 0xf6-0xff and 0x40-0x55 */
		assert_int_equal(p->memory[0][i],
				 i >= 0xf6 || (i >= 0x40 && i < 0x56) ? 0x22 : 0x11);
	assert_int_equal(rig_try_read(*state, 0, 0x7ff6, buf, sizeof(buf)), sizeof(buf));
	for (unsigned int i = 0; i < sizeof(buf); i++)
		assert_int_equal(buf[i], i >= 10 && i < 74 ? 0xff : 0x22);
	/* The table of BAR 0 is in no other BAR. */
	rig_write(*state, 2, 0x8000, 4, 5);
	assert_int_equal(rig_read(*state, 2, 0x8000, 4), 5);
	/* Even without decoding. */
	rig_write(*state, CONFIG, PCI_COMMAND, 2, 0);
	assert_int_equal(rig_read(*state, 0, 0x8000, 4), 0xffffffff);
	assert_int_equal(rig_try_read(*state, 0, 0x803c, buf, 8), -EIO);
}

static void decoding_off_is_eio(void **state)
{
	static const struct {
		uint16_t command;
		bool memory, io;
	} cases[] = {{0, false, false},
		     {PCI_COMMAND_IO, false, true},
		     {PCI_COMMAND_MEMORY, true, false},
		     {PCI_COMMAND_IO | PCI_COMMAND_MEMORY, true, true}};
	static const unsigned int regions[] = {0, 1, 2, 4, 6};
	struct probe *p = probe_of(*state);
	uint32_t value = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		rig_write(*state, CONFIG, PCI_COMMAND, 2, cases[i].command);
		for (unsigned int k = 0; k < ARRAY_SIZE(regions); k++) {
			bool on = regions[k] == 4 ? cases[i].io : cases[i].memory;

			p->nr_log = 0;
			assert_int_equal(rig_try_read(*state, regions[k], 0, &value, 4),
					 on ? 4 : -EIO);
			if (regions[k] != 6)
				assert_int_equal(rig_try_write(*state, regions[k], 0, &value, 4),
						 on ? 4 : -EIO);
			assert_int_equal(p->nr_log != 0, on);
		}
	}
}

static void bad_client_memory(void **state)
{
	struct rig *rig = *state;
	uint8_t *page = rig_pages(8192);

	munmap(page + 4096, 4096);
	assert_int_equal(rig_try_read(rig, 0, 0, page + 4092, 8), -EFAULT);
	assert_true(rig->caller.reason[0]);
	assert_int_equal(rig_try_write(rig, 0, 0, page + 4092, 8), -EFAULT);
	assert_int_equal(rig_try_read(rig, CONFIG, 0, page + 4092, 8), -EFAULT);
	/* A write that faults has not had an effect. */
	assert_int_equal(rig_read(rig, 0, 0, 4), 0);
	munmap(page, 4096);
}

/* ---- mmap, reset ------------------------------------------------------------------------- */

static void mmap_rules(void **state)
{
	static const struct {
		uint64_t region, off, length;
		int flags, rc;
	} cases[] = {
		{0, 0, 0x10000, MAP_SHARED, 0},
		{0, 0xf000, 0x1000, MAP_SHARED | MAP_FIXED, 0},
		{0, 0, 0x1000, MAP_SHARED_VALIDATE, 0},
		{0, 0, 0x1000, MAP_PRIVATE, -EINVAL},
		{0, 0, 0x11000, MAP_SHARED, -EINVAL},
		{0, 0xf000, 0x2000, MAP_SHARED, -EINVAL},
		{0, 0x10000, 0x1000, MAP_SHARED, -EINVAL},
		{0, 0x1000, UINT64_MAX, MAP_SHARED, -EINVAL},
		{0, 0, 0, MAP_SHARED, -EINVAL},
		{1, 0, 0x1000, MAP_SHARED, 0},
		{1, 0, 0x1001, MAP_SHARED, -EINVAL},
		{4, 0, 0x1000, MAP_SHARED, -EINVAL},
		{5, 0, 0x1000, MAP_SHARED, -EINVAL},
		{6, 0, 0x1000, MAP_SHARED, -EINVAL},
		{7, 0, 0x1000, MAP_SHARED, -EINVAL},
		{0xffffff, 0, 0x1000, MAP_SHARED, -EINVAL},
	};
	struct rig *rig = *state;
	struct vfio_file *unbound;

	rig->caller.can_trap = true;
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		int rc = vfio_file_mmap(rig->file, &rig->caller, cases[i].length, PROT_NONE,
					cases[i].flags, cases[i].region << 40 | cases[i].off);

		if (rc != cases[i].rc || (rc && !rig->caller.reason[0]))
			fail_msg("case %u: %d (%s)", i, rc, rig->caller.reason);
	}
	rig->caller.can_trap = false;
	assert_int_equal(
		vfio_file_mmap(rig->file, &rig->caller, 0x1000, PROT_NONE, MAP_SHARED, 1ull << 40),
		-EINVAL);
	assert_non_null(strstr(rig->caller.reason, "pread"));
	assert_int_equal(vfio_file_open(rig->dev, &unbound), 0);
	assert_int_equal(vfio_file_mmap(unbound, &rig->caller, 0x1000, PROT_READ, MAP_SHARED, 0),
			 -EINVAL);
	vfio_file_close(unbound);
}

static void reset_keeps_configuration_and_eventfds(void **state)
{
	struct probe *p = probe_of(*state);
	unsigned int resets = p->resets;
	int32_t efd = rig_eventfd();

	rig_write(*state, CONFIG, PCI_COMMAND, 2, 7);
	assert_int_equal(rig_arm(*state, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, &efd), 0);
	rig_expect(*state, VFIO_DEVICE_RESET, NULL, 0);
	assert_int_equal(p->resets, resets + 1);
	assert_int_equal(rig_read(*state, CONFIG, PCI_COMMAND, 2), 7);
	vfio_irq_signal(((struct rig *)*state)->dev, VFIO_PCI_MSIX_IRQ_INDEX, 0);
	assert_int_equal(rig_count(efd), 1);
	close(efd);
}

static void *second_reset(void *arg)
{
	struct rig rig;

	rig_for_thread(&rig, arg);
	return (void *)rig_ioctl(&rig, VFIO_DEVICE_RESET, NULL);
}

static void during_reset(void *data)
{
	pthread_t thread;
	void *rc;

	assert_int_equal(pthread_create(&thread, NULL, second_reset, data), 0);
	pthread_join(thread, &rc);
	assert_int_equal((long)rc, -EAGAIN);
}

static void concurrent_reset_is_eagain(void **state)
{
	struct probe *p = probe_of(*state);

	p->on_reset_data = *state;
	p->on_reset = during_reset;
	rig_expect(*state, VFIO_DEVICE_RESET, NULL, 0);
	assert_null(p->on_reset);
	rig_expect(*state, VFIO_DEVICE_RESET, NULL, 0);
}

/* Each argument is fetched once, so that a client cannot change it between check and use. */
static void arguments_are_copied_once(void **state)
{
	static const struct {
		unsigned int cmd;
		uint32_t arg[8];
	} cases[] = {
		{VFIO_DEVICE_GET_INFO, {24}},	      {VFIO_DEVICE_GET_REGION_INFO, {32}},
		{VFIO_DEVICE_GET_IRQ_INFO, {16}},     {VFIO_DEVICE_FEATURE, {8}},
		{VFIO_DEVICE_PCI_HOT_RESET, {12}},    {VFIO_DEVICE_ATTACH_IOMMUFD_PT, {12}},
		{VFIO_DEVICE_DETACH_IOMMUFD_PT, {8}}, {VFIO_DEVICE_SET_IRQS, {20, 33, 2, 0, 1}},
	};
	struct rig *rig = *state;

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t arg[16];

		memcpy(arg, cases[i].arg, sizeof(cases[i].arg));
		rig->copies_in = 0;
		rig_ioctl(rig, cases[i].cmd, arg);
		assert_int_equal(rig->copies_in, 1);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(get_info),
		T(get_region_info),
		T(region_capabilities),
		cmocka_unit_test(bare_device),
		T(hot_reset_and_feature),
		T(accesses_are_split_by_alignment),
		T(long_transfers_keep_the_pieces),
		T(positions_and_counts),
		T(long_transfers),
		T(the_msix_table_is_the_hosts),
		T(decoding_off_is_eio),
		T(bad_client_memory),
		T(mmap_rules),
		T(reset_keeps_configuration_and_eventfds),
		T(concurrent_reset_is_eagain),
		T(arguments_are_copied_once),
	};

	return cmocka_run_group_tests_name("vfio_region", tests, NULL, NULL);
}
