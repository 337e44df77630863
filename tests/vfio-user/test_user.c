// SPDX-License-Identifier: MIT
/* The vfio-user client against a server that behaves: what the client of the device sees, and what the server does. */
#include "urig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define R IOMMU_IOAS_MAP_READABLE
#define W IOMMU_IOAS_MAP_WRITEABLE
#define RW (R | W)
#define BASE 0x100000ull
#define NONE_TRIGGER (VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER)

static const struct server_options plain, with_twin = {.twin = true};

/* ---- shape ----------------------------------------------------------------------------------- */

static struct vfio_region_info region_info(struct urig *u, unsigned int index)
{
	struct vfio_region_info info = {.argsz = sizeof(info), .index = index};

	assert_int_equal(rig_ioctl(&u->rig, VFIO_DEVICE_GET_REGION_INFO, &info), 0);
	return info;
}

static unsigned int irq_count(struct urig *u, unsigned int index, uint32_t *flags)
{
	struct vfio_irq_info info = {.argsz = sizeof(info), .index = index};

	assert_int_equal(rig_ioctl(&u->rig, VFIO_DEVICE_GET_IRQ_INFO, &info), 0);
	*flags = info.flags;
	return info.count;
}

static void regions_and_interrupts_are_shown(void **state)
{
	struct vfio_device_info info = {.argsz = sizeof(info)};
	struct vfio_area area;
	struct urig u;
	uint32_t flags;
	char text[64];

	(void)state;
	urig_bound(&u, &plain, NULL);
	rig_expect(&u.rig, VFIO_DEVICE_GET_INFO, &info, 0);
	assert_int_equal(info.flags, VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET);
	assert_int_equal(region_info(&u, 0).size, 0x4000); /* 12 KiB rounded up */
	assert_int_equal(region_info(&u, 1).size, 0x1000);
	assert_int_equal(region_info(&u, 2).size, 16);
	assert_int_equal(region_info(&u, 3).size, 0);
	assert_int_equal(region_info(&u, 7).size, 4096);
	/* Nothing that a program without the helper could map. */
	assert_int_equal(region_info(&u, 0).flags & VFIO_REGION_INFO_FLAG_MMAP, 0);
	u.rig.caller.can_trap = true;
	assert_int_equal(region_info(&u, 0).flags & VFIO_REGION_INFO_FLAG_MMAP, 4);
	assert_int_equal(vfio_region_area(u.rig.dev, 0, 0x1800, &area), 0);
	assert_int_equal(area.kind, VFIO_AREA_PAGES);
	assert_true(area.fd >= 0 && area.offset == PAGE && area.length == PAGE);
	assert_int_equal(area.fd_offset, PAGE);
	assert_int_equal(vfio_region_area(u.rig.dev, 0, 0x2abc, &area), 0);
	assert_int_equal(area.kind, VFIO_AREA_TRAPPED);
	assert_true(area.offset == 2 * PAGE && area.length == 2 * PAGE);
	assert_int_equal(vfio_region_area(u.rig.dev, 0, 0, &area), 0);
	assert_true(area.offset == 0 && area.length == PAGE);

	assert_int_equal(irq_count(&u, VFIO_PCI_INTX_IRQ_INDEX, &flags), 1);
	assert_int_equal(flags,
			 VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED);
	assert_int_equal(irq_count(&u, VFIO_PCI_MSI_IRQ_INDEX, &flags), 4);
	assert_int_equal(irq_count(&u, VFIO_PCI_MSIX_IRQ_INDEX, &flags), 8);
	assert_int_equal(irq_count(&u, VFIO_PCI_REQ_IRQ_INDEX, &flags), 1);
	assert_int_equal(vfio_device_attribute(u.rig.dev, "class", text, sizeof(text)), 0);
	assert_string_equal(text, "0xff0000\n");
	urig_close(&u);
}

static unsigned int find_cap(struct urig *u, unsigned int id)
{
	unsigned int pos = rig_read(&u->rig, CONFIG, PCI_CAPABILITY_LIST, 1);

	for (int i = 0; pos && i < 48; i++) {
		if (rig_read(&u->rig, CONFIG, pos, 1) == id)
			return pos;
		pos = rig_read(&u->rig, CONFIG, pos + 1, 1);
	}
	return 0;
}

static void configuration_space_is_ours(void **state)
{
	struct urig u;

	(void)state;
	urig_bound(&u, &plain, NULL);
	assert_int_equal(rig_read(&u.rig, CONFIG, PCI_VENDOR_ID, 4), 0x0b0b1234);
	assert_int_equal(rig_read(&u.rig, CONFIG, PCI_SUBSYSTEM_VENDOR_ID, 4), 0x56781111);
	assert_int_equal(rig_read(&u.rig, CONFIG, PCI_REVISION_ID, 1), 7);
	/* BARs work though the server's do not: BAR1 is memory whatever it says, BAR2 is I/O. */
	rig_write(&u.rig, CONFIG, PCI_BASE_ADDRESS_0, 4, 0xffffffff);
	assert_int_equal(rig_read(&u.rig, CONFIG, PCI_BASE_ADDRESS_0, 4), 0xffffc000);
	rig_write(&u.rig, CONFIG, PCI_BASE_ADDRESS_1, 4, 0xffffffff);
	assert_int_equal(rig_read(&u.rig, CONFIG, PCI_BASE_ADDRESS_1, 4), 0xfffff000);
	rig_write(&u.rig, CONFIG, PCI_BASE_ADDRESS_2, 4, 0xffffffff);
	assert_int_equal(rig_read(&u.rig, CONFIG, PCI_BASE_ADDRESS_2, 4), 0xfffffff1);
	/* Capabilities stand where the server has them. */
	assert_int_equal(find_cap(&u, PCI_CAP_ID_PM), 0x40);
	assert_int_equal(rig_read(&u.rig, CONFIG, 0x42, 2) & PCI_PM_CAP_PME_MASK, 0);
	assert_int_equal(find_cap(&u, PCI_CAP_ID_MSI), 0x50);
	assert_int_equal(find_cap(&u, PCI_CAP_ID_EXP), 0x60);
	assert_int_equal(find_cap(&u, PCI_CAP_ID_MSIX), 0xa0);
	assert_int_equal(rig_read(&u.rig, CONFIG, 0xa2, 2), 7);
	assert_int_equal(rig_read(&u.rig, CONFIG, 0xa8, 4), 0x801);
	assert_int_equal(find_cap(&u, PCI_CAP_ID_VNDR), 0xb0);
	/* What is the server's own goes there and comes back. */
	assert_int_equal(rig_read(&u.rig, CONFIG, 0xb4, 4), 0x55667788);
	rig_write(&u.rig, CONFIG, 0xb6, 2, 0xabcd);
	assert_int_equal(rig_read(&u.rig, CONFIG, 0xb4, 4), 0xabcd7788);
	/* A write that it refuses vanishes. */
	rig_write(&u.rig, CONFIG, 0xc0, 4, 1);
	assert_int_equal(rig_read(&u.rig, CONFIG, 0xc0, 4), 0);
	/* AER, then the serial number; the PASID capability between them is hidden. */
	assert_int_equal(rig_read(&u.rig, CONFIG, 0x100, 4), 0x18010001);
	assert_int_equal(rig_read(&u.rig, CONFIG, 0x180, 4), 0x00010003);
	assert_int_equal(rig_read(&u.rig, CONFIG, 0x184, 4), 0xd15ea5e5);
	urig_close(&u);
}

static void bars_by_option(void **state)
{
	struct urig u;

	(void)state;
	urig_bound(&u, &plain, "memory=4,ports=0");
	rig_write(&u.rig, CONFIG, PCI_BASE_ADDRESS_2, 4, 0xffffffff);
	assert_int_equal(rig_read(&u.rig, CONFIG, PCI_BASE_ADDRESS_2, 4) & 1, 0);
	urig_close(&u);
}

/* ---- registers ------------------------------------------------------------------------------- */

static void registers_of_all_sizes(void **state)
{
	char bytes[64], back[64];
	struct urig u;

	(void)state;
	urig_bound(&u, &plain, NULL);
	assert_int_equal(reg(&u, REG_MAGIC), MAGIC);
	set_reg(&u, REG_SCRATCH, 0x1122334455667788);
	assert_int_equal(rig_read(&u.rig, 0, REG_SCRATCH + 3, 1), 0x55);
	assert_int_equal(rig_read(&u.rig, 0, REG_SCRATCH + 6, 2), 0x1122);
	rig_write(&u.rig, 0, REG_SCRATCH + 4, 4, 0xdeadbeef);
	assert_int_equal(reg(&u, REG_SCRATCH), 0xdeadbeef55667788);
	for (int i = 0; i < 64; i++)
		bytes[i] = (char)(i * 7);
	assert_int_equal(rig_try_write(&u.rig, 0, 0x2001, bytes, 61), 61);
	assert_int_equal(rig_try_read(&u.rig, 0, 0x2001, back, 61), 61);
	assert_memory_equal(bytes, back, 61);
	/* Pages that can be mapped can be read and written all the same. */
	assert_int_equal(rig_try_write(&u.rig, 0, 0x1ffd, bytes, 6), 6);
	assert_int_equal(rig_try_read(&u.rig, 0, 0x1ffd, back, 6), 6);
	assert_memory_equal(bytes, back, 6);
	/* What the rounding up has added answers like nothing. */
	rig_write(&u.rig, 0, 0x3000, 8, 1);
	assert_int_equal(rig_read(&u.rig, 0, 0x3000, 8), UINT64_MAX);
	assert_int_equal(rig_read(&u.rig, 0, 0x2ff8, 8), 0);
	/* Ports answer once I/O decoding is on. */
	rig_write(&u.rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	rig_write(&u.rig, 2, 4, 4, 0x12345678);
	assert_int_equal(rig_read(&u.rig, 2, 6, 2), 0x1234);
	urig_close(&u);
}

static void small_transfers(void **state)
{
	const struct server_options opt = {.max_xfer = 3};
	struct urig u;

	(void)state;
	urig_bound(&u, &opt, NULL);
	set_reg(&u, REG_SCRATCH, 0x1122334455667788);
	assert_int_equal(reg(&u, REG_SCRATCH), 0x1122334455667788);
	urig_close(&u);
}

static uint16_t server_command(struct urig *u)
{
	return (uint16_t)(reg(u, REG_RESETS) >> 32);
}

static void command_is_forwarded(void **state)
{
	struct urig u;

	(void)state;
	urig_bound(&u, &plain, NULL);
	assert_int_equal(server_command(&u), PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	rig_write(&u.rig, CONFIG, PCI_COMMAND, 2,
		  PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY);
	assert_int_equal(server_command(&u), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	rig_write(&u.rig, CONFIG, PCI_COMMAND, 1, PCI_COMMAND_MEMORY);
	assert_int_equal(server_command(&u), PCI_COMMAND_MEMORY);
	urig_close(&u);
}

static void resets_are_forwarded(void **state)
{
	struct urig u;
	unsigned int before;

	(void)state;
	urig_bound(&u, &plain, NULL);
	before = (uint16_t)reg(&u, REG_RESETS);
	assert_true(before >= 1); /* at open */
	set_reg(&u, REG_SCRATCH, 5);
	rig_expect(&u.rig, VFIO_DEVICE_RESET, NULL, 0);
	assert_int_equal(reg(&u, REG_SCRATCH), 0);
	rig_write(&u.rig, CONFIG, 0x60 + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR);
	assert_int_equal((uint16_t)reg(&u, REG_RESETS), before + 2);
	urig_close(&u);
}

static void features_are_not_there(void **state)
{
	uint32_t feature[2] = {8, VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET |
					  VFIO_DEVICE_FEATURE_DMA_LOGGING_START};
	struct urig u;

	(void)state;
	urig_bound(&u, &plain, NULL);
	rig_expect(&u.rig, VFIO_DEVICE_FEATURE, feature, -ENOTTY);
	feature[1] = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION;
	rig_expect(&u.rig, VFIO_DEVICE_FEATURE, feature, -ENOTTY);
	urig_close(&u);
}

static void dma_logging_is_passed_on(void **state)
{
	const struct server_options opt = {.logging = true};
	struct vfio_device_feature_dma_logging_range range = {BASE, 8 * PAGE};
	uint64_t bitmap[2] = {-1ull, -1ull};
	struct {
		uint32_t argsz, flags;
		union {
			struct vfio_device_feature_dma_logging_control start;
			struct vfio_device_feature_dma_logging_report report;
		};
	} f = {.argsz = 8};
	struct urig u;

	(void)state;
	urig_bound(&u, &opt, NULL);
	f.flags = VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET |
		  VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
	rig_expect(&u.rig, VFIO_DEVICE_FEATURE, &f, 0);
	f.flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
	rig_expect(&u.rig, VFIO_DEVICE_FEATURE, &f, -EINVAL);
	f.flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
	rig_expect(&u.rig, VFIO_DEVICE_FEATURE, &f, -EINVAL); /* too small */
	f.argsz = sizeof(f);
	f.start.page_size = PAGE;
	f.start.num_ranges = 1;
	f.start.ranges = 8;
	rig_expect(&u.rig, VFIO_DEVICE_FEATURE, &f, -EFAULT);
	f.start.ranges = (uintptr_t)&range;
	rig_expect(&u.rig, VFIO_DEVICE_FEATURE, &f, 0);
	f.flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;
	f.report = (struct vfio_device_feature_dma_logging_report){
		.iova = BASE, .length = 70 * PAGE, .page_size = PAGE, .bitmap = (uintptr_t)bitmap};
	rig_expect(&u.rig, VFIO_DEVICE_FEATURE, &f, 0);
	assert_int_equal(bitmap[0], 0x49); /* every third page up to the eighth */
	assert_int_equal(bitmap[1], 0);
	f.report.bitmap = 8;
	rig_expect(&u.rig, VFIO_DEVICE_FEATURE, &f, -EFAULT);
	f.report.page_size = 3;
	rig_expect(&u.rig, VFIO_DEVICE_FEATURE, &f, -EINVAL);
	f.argsz = 8;
	f.flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP;
	rig_expect(&u.rig, VFIO_DEVICE_FEATURE, &f, 0);
	urig_close(&u);
}

/* ---- DMA ------------------------------------------------------------------------------------- */

static void fill(char *p, size_t len, int seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (char)(i * 31 + i / 256 + seed);
}

static void dma_copies(const struct server_options *opt)
{
	struct urig u;
	int fd;
	char *shared, *private;

	urig_ready(&u, opt, NULL);
	shared = shared_pages(16, &fd);
	private = rig_pages(16 * PAGE);
	rig_map(&u.rig, shared, 16 * PAGE, BASE, RW);
	rig_map(&u.rig, private, 16 * PAGE, 2 * BASE, RW);
	assert_int_equal(nr_maps(&u), 2);
	assert_int_equal(nr_file_maps(&u), 1);
	fill(shared, 16 * PAGE, 1);
	/* Shared to private: the server reads in its mapping, and writes by messages. */
	assert_int_equal(copy(&u, 2 * BASE + 3, BASE + 5, 15 * PAGE, GO_COPY), 0);
	assert_memory_equal(private + 3, shared + 5, 15 * PAGE);
	fill(private, 16 * PAGE, 2);
	assert_int_equal(copy(&u, BASE, 2 * BASE, 16 * PAGE, GO_COPY), 0);
	assert_memory_equal(private, shared, 16 * PAGE);
	/* By messages only, within and after the answer to the write that starts it. */
	fill(private, 16 * PAGE, 3);
	assert_int_equal(copy(&u, BASE, 2 * BASE, 16 * PAGE, GO_MESSAGES), 0);
	assert_memory_equal(private, shared, 16 * PAGE);
	fill(private, 16 * PAGE, 4);
	assert_int_equal(copy(&u, BASE + 1, 2 * BASE, 100, GO_LATER), 0);
	assert_memory_equal(private, shared + 1, 100);
	rig_unmap(&u.rig, BASE, 16 * PAGE);
	assert_int_equal(nr_maps(&u), 1);
	assert_int_equal(copy(&u, 2 * BASE, BASE, 8, GO_COPY), EFAULT);
	assert_int_equal(u.rig.faults, 1);
	close(fd);
	urig_close(&u);
	munmap(shared, 16 * PAGE);
	munmap(private, 16 * PAGE);
}

static void dma_on_the_main_socket(void **state)
{
	(void)state;
	dma_copies(&plain);
}

static void dma_on_a_twin_socket(void **state)
{
	(void)state;
	dma_copies(&with_twin);
}

static void dma_is_checked(void **state)
{
	struct urig u;
	int fd;
	char *shared, *ro, *wo;

	(void)state;
	urig_ready(&u, &with_twin, NULL);
	shared = shared_pages(2, &fd);
	ro = rig_pages(PAGE);
	wo = rig_pages(PAGE);
	rig_map(&u.rig, ro, PAGE, BASE, R);
	rig_map(&u.rig, wo, PAGE, 2 * BASE, W);
	rig_map(&u.rig, shared, PAGE, 3 * BASE, R);
	assert_int_equal(copy(&u, 2 * BASE, BASE, PAGE, GO_MESSAGES), 0);
	assert_int_equal(copy(&u, BASE, BASE, PAGE, GO_MESSAGES), EFAULT);
	assert_int_equal(copy(&u, BASE, 2 * BASE, PAGE, GO_MESSAGES), EFAULT);
	/* Mapped without the right to write: the server falls back on messages, which are refused. */
	assert_int_equal(copy(&u, 3 * BASE, BASE, PAGE, GO_COPY), EFAULT);
	assert_int_equal(copy(&u, 2 * BASE, BASE + PAGE - 1, 2, GO_MESSAGES), EFAULT);
	/* Bus mastering. */
	rig_write(&u.rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(copy(&u, 2 * BASE, BASE, PAGE, GO_MESSAGES), EFAULT);
	close(fd);
	urig_close(&u);
	munmap(shared, 2 * PAGE);
	munmap(ro, PAGE);
	munmap(wo, PAGE);
}

static void attachments_are_followed(void **state)
{
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct swiommu_caller me;
	struct urig u;
	uint32_t pt, first;
	int fd;
	char *shared;

	(void)state;
	urig_bound(&u, &plain, NULL);
	shared = shared_pages(8, &fd);
	for (int i = 0; i < 4; i++)
		rig_map(&u.rig, shared + 2 * i * PAGE, PAGE, BASE + 2 * i * PAGE, RW);
	assert_int_equal(nr_maps(&u), 0);
	first = pt = u.rig.ioas;
	assert_int_equal(rig_attach(&u.rig, &pt), 0);
	assert_int_equal(nr_maps(&u), 4);
	swiommu_caller_local(&me);
	assert_int_equal(swiommu_ioctl(u.rig.ctx, &me, IOMMU_IOAS_ALLOC, (uintptr_t)&alloc), 0);
	u.rig.ioas = alloc.out_ioas_id;
	rig_map(&u.rig, shared, PAGE, 5 * BASE, RW);
	assert_int_equal(nr_maps(&u), 4);
	pt = u.rig.ioas;
	assert_int_equal(rig_attach(&u.rig, &pt), 0); /* replaces */
	assert_int_equal(nr_maps(&u), 1);
	pt = first;
	assert_int_equal(rig_attach(&u.rig, &pt), 0);
	assert_int_equal(nr_maps(&u), 4);
	assert_int_equal(rig_detach(&u.rig), 0);
	assert_int_equal(nr_maps(&u), 0);
	close(fd);
	urig_close(&u);
	munmap(shared, 8 * PAGE);
}

/* Page by page through a server with a short list; each page must end up where it belongs. */
static void neighbours_are_merged(const struct server_options *opt)
{
	struct urig u;
	int fd;
	char *shared, *target;

	urig_ready(&u, opt, NULL);
	shared = shared_pages(64, &fd);
	target = rig_pages(64 * PAGE);
	fill(shared, 64 * PAGE, 9);
	rig_map(&u.rig, target, 64 * PAGE, 8 * BASE, RW);
	for (unsigned int i = 0; i < 64; i++) {
		unsigned int at = i * 5 % 64; /* neighbours come in any order */

		rig_map(&u.rig, shared + at * PAGE, PAGE, BASE + at * PAGE, RW);
		if (i > 20)
			continue;
		assert_int_equal(copy(&u, 8 * BASE, BASE + at * PAGE, PAGE, GO_COPY), 0);
		assert_memory_equal(target, shared + at * PAGE, PAGE);
	}
	assert_true(nr_maps(&u) <= 24);
	assert_int_equal(nr_file_maps(&u), nr_maps(&u) - 1);
	assert_int_equal(copy(&u, 8 * BASE, BASE, 64 * PAGE, GO_MESSAGES), 0);
	assert_memory_equal(target, shared, 64 * PAGE);
	/* Pages out of the middle: only those are gone, and what goes by file still does. */
	for (unsigned int at = 3; at < 64; at += 7)
		rig_unmap(&u.rig, BASE + at * PAGE, PAGE);
	for (unsigned int at = 0; at < 64; at++) {
		uint32_t before = (uint32_t)reg(&u, REG_MESSAGES);
		uint64_t status = copy(&u, 8 * BASE, BASE + at * PAGE, PAGE, GO_COPY);

		if (at % 7 == 3) {
			assert_int_equal(status, EFAULT);
			continue;
		}
		assert_int_equal(status, 0);
		assert_memory_equal(target, shared + at * PAGE, PAGE);
		assert_int_equal((uint32_t)reg(&u, REG_MESSAGES), before + 1); /* the write */
	}
	rig_unmap(&u.rig, BASE, 64 * PAGE);
	assert_int_equal(nr_maps(&u), 1);
	close(fd);
	urig_close(&u);
	munmap(shared, 64 * PAGE);
	munmap(target, 64 * PAGE);
}

static void short_lists(void **state)
{
	const struct server_options told = {.max_maps = 24};
	const struct server_options untold = {.real_maps = 24};

	(void)state;
	neighbours_are_merged(&told);
	neighbours_are_merged(&untold);
}

static void full_lists(void **state)
{
	const struct server_options opt = {.max_maps = 3};
	struct iommu_ioas_map map = {.size = sizeof(map),
				     .flags = IOMMU_IOAS_MAP_FIXED_IOVA | RW,
				     .length = PAGE,
				     .iova = 9 * BASE};
	struct swiommu_caller me;
	struct urig u;
	char *private;

	(void)state;
	urig_ready(&u, &opt, NULL);
	private = rig_pages(8 * PAGE);
	for (int i = 0; i < 3; i++)
		rig_map(&u.rig, private + i * PAGE, PAGE, (i + 1) * BASE, RW);
	swiommu_caller_local(&me);
	map.ioas_id = u.rig.ioas;
	map.user_va = (uintptr_t) private;
	assert_int_equal(swiommu_ioctl(u.rig.ctx, &me, IOMMU_IOAS_MAP, (uintptr_t)&map), -ENOSPC);
	assert_non_null(strstr(me.reason, "3 DMA mappings"));
	assert_int_equal(nr_maps(&u), 3);
	rig_unmap(&u.rig, BASE, PAGE);
	assert_int_equal(swiommu_ioctl(u.rig.ctx, &me, IOMMU_IOAS_MAP, (uintptr_t)&map), 0);
	assert_int_equal(copy(&u, 9 * BASE, 2 * BASE, 8, GO_COPY), 0);
	urig_close(&u);
	munmap(private, 8 * PAGE);
}

/* ---- interrupts ------------------------------------------------------------------------------ */

static void msix_in_small_pieces(void **state)
{
	const struct server_options opt = {.max_fds = 3};
	struct urig u;
	int32_t fds[8];

	(void)state;
	urig_ready(&u, &opt, NULL);
	for (int i = 0; i < 8; i++)
		fds[i] = i == 4 ? -1 : rig_eventfd();
	assert_int_equal(rig_arm(&u.rig, VFIO_PCI_MSIX_IRQ_INDEX, 0, 8, fds), 0);
	for (int i = 0; i < 8; i++)
		set_reg(&u, REG_IRQ, i);
	for (int i = 0; i < 8; i++)
		if (i != 4)
			assert_int_equal(rig_wait(fds[i]), 1);
	/* One less, one more, one other. */
	const int32_t none = -1;

	assert_int_equal(rig_arm(&u.rig, VFIO_PCI_MSIX_IRQ_INDEX, 2, 1, &none), 0);
	assert_int_equal(rig_arm(&u.rig, VFIO_PCI_MSIX_IRQ_INDEX, 4, 1, &fds[2]), 0);
	set_reg(&u, REG_IRQ, 2);
	assert_int_equal(rig_count(fds[2]), 0);
	set_reg(&u, REG_IRQ, 4);
	assert_int_equal(rig_count(fds[2]), 1);
	assert_int_equal(rig_set_irqs(&u.rig, NONE_TRIGGER, VFIO_PCI_MSIX_IRQ_INDEX, 0, 0, NULL),
			 0);
	set_reg(&u, REG_IRQ, 0);
	assert_int_equal(rig_count(fds[0]), 0);
	/* The other kind. */
	assert_int_equal(rig_arm(&u.rig, VFIO_PCI_MSI_IRQ_INDEX, 0, 4, fds), 0);
	set_reg(&u, REG_IRQ, 3);
	assert_int_equal(rig_wait(fds[3]), 1);
	for (int i = 0; i < 8; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	urig_close(&u);
}

static void intx_masks_itself(void **state)
{
	struct urig u;
	int32_t fd = rig_eventfd();

	(void)state;
	urig_ready(&u, &plain, NULL);
	assert_int_equal(rig_arm(&u.rig, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, &fd), 0);
	set_reg(&u, REG_IRQ, 0);
	assert_int_equal(rig_wait(fd), 1);
	/* Masked by having fired: the next one is kept for the unmask. */
	set_reg(&u, REG_IRQ, 0);
	while (!vfio_irq_line(u.rig.dev))
		sched_yield();
	assert_int_equal(rig_count(fd), 0);
	assert_int_equal(rig_set_irqs(&u.rig, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
				      VFIO_PCI_INTX_IRQ_INDEX, 0, 1, NULL),
			 0);
	assert_int_equal(rig_wait(fd), 1);
	assert_int_equal(reg(&u, REG_RESETS) >> 48, 1); /* the server has heard of it */
	/* It fires once for each time, not for ever. */
	assert_int_equal(rig_set_irqs(&u.rig, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
				      VFIO_PCI_INTX_IRQ_INDEX, 0, 1, NULL),
			 0);
	assert_int_equal(rig_count(fd), 0);
	/* Masking is refused by the server and works all the same. */
	assert_int_equal(rig_set_irqs(&u.rig, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK,
				      VFIO_PCI_INTX_IRQ_INDEX, 0, 1, NULL),
			 0);
	set_reg(&u, REG_IRQ, 0);
	while (!vfio_irq_line(u.rig.dev))
		sched_yield();
	assert_int_equal(rig_count(fd), 0);
	assert_int_equal(rig_set_irqs(&u.rig, NONE_TRIGGER, VFIO_PCI_INTX_IRQ_INDEX, 0, 0, NULL),
			 0);
	urig_close(&u);
	close(fd);
}

static void interrupt_after_dma(void **state)
{
	struct urig u;
	int32_t fd = rig_eventfd();
	char *memory;

	(void)state;
	urig_ready(&u, &with_twin, NULL);
	memory = rig_pages(2 * PAGE);
	rig_map(&u.rig, memory, 2 * PAGE, BASE, RW);
	assert_int_equal(rig_arm(&u.rig, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, &fd), 0);
	for (int i = 0; i < 50; i++) {
		fill(memory, PAGE, i);
		set_reg(&u, REG_SOURCE, BASE);
		set_reg(&u, REG_TARGET, BASE + PAGE);
		set_reg(&u, REG_LENGTH, PAGE);
		set_reg(&u, REG_GO, GO_LATER | GO_INTERRUPT);
		assert_int_equal(rig_wait(fd), 1);
		assert_memory_equal(memory, memory + PAGE, PAGE);
		reg(&u, REG_STATUS); /* for the thread sanitizer, which sees no order in eventfds */
	}
	urig_close(&u);
	close(fd);
	munmap(memory, 2 * PAGE);
}

/* ---- several at once ------------------------------------------------------------------------- */

struct load {
	struct urig *u;
	struct rig rig;
	char *memory;
	int what;
	_Atomic bool *stop;
};

static void *load_thread(void *arg)
{
	struct load *l = arg;
	int32_t fd = rig_eventfd();

	for (int i = 0; i < 150 && !atomic_load(l->stop); i++) {
		uint64_t iova = (uint64_t)(20 + l->what) * BASE;

		if (l->what == 0) {
			assert_int_equal(rig_read(&l->rig, 0, REG_MAGIC, 8), MAGIC);
		} else if (l->what == 1) {
			rig_map(l->u != NULL ? &l->rig : NULL, l->memory, PAGE, iova, RW);
			rig_unmap(&l->rig, iova, PAGE);
		} else if (l->what == 2) {
			rig_arm(&l->rig, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, &fd);
			rig_set_irqs(&l->rig, NONE_TRIGGER, VFIO_PCI_MSIX_IRQ_INDEX, 0, 0, NULL);
		} else if (l->what == 3) {
			rig_ioctl(&l->rig, VFIO_DEVICE_RESET, NULL);
			rig_write(&l->rig, CONFIG, PCI_COMMAND, 2, i % 2 ? 6 : 7);
		}
	}
	close(fd);
	return NULL;
}

static void everything_at_once(void **state)
{
	struct load loads[4];
	_Atomic bool stop = false;
	pthread_t threads[4];
	struct urig u;
	char *memory;

	(void)state;
	urig_ready(&u, &with_twin, NULL);
	memory = rig_pages(4 * PAGE);
	rig_map(&u.rig, memory, 4 * PAGE, BASE, RW);
	for (int i = 0; i < 4; i++) {
		loads[i] = (struct load){.u = &u, .memory = memory, .what = i, .stop = &stop};
		rig_for_thread(&loads[i].rig, &u.rig);
		pthread_create(&threads[i], NULL, load_thread, &loads[i]);
	}
	for (int i = 0; i < 50; i++)
		copy(&u, BASE, BASE + PAGE, PAGE, i % 2 ? GO_MESSAGES : GO_LATER);
	atomic_store(&stop, true);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	urig_close(&u);
	munmap(memory, 4 * PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(regions_and_interrupts_are_shown),
		cmocka_unit_test(configuration_space_is_ours),
		cmocka_unit_test(bars_by_option),
		cmocka_unit_test(registers_of_all_sizes),
		cmocka_unit_test(small_transfers),
		cmocka_unit_test(command_is_forwarded),
		cmocka_unit_test(resets_are_forwarded),
		cmocka_unit_test(features_are_not_there),
		cmocka_unit_test(dma_logging_is_passed_on),
		cmocka_unit_test(dma_on_the_main_socket),
		cmocka_unit_test(dma_on_a_twin_socket),
		cmocka_unit_test(dma_is_checked),
		cmocka_unit_test(attachments_are_followed),
		cmocka_unit_test(short_lists),
		cmocka_unit_test(full_lists),
		cmocka_unit_test(msix_in_small_pieces),
		cmocka_unit_test(intx_masks_itself),
		cmocka_unit_test(interrupt_after_dma),
		cmocka_unit_test(everything_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
