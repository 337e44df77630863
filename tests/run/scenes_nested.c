// SPDX-License-Identifier: MIT
/*
 * What a VMM does with an IOMMU for its guest: a nested page table whose first stage lies in the guest's memory, per
 * PASID, page requests that the guest answers by filling its table, invalidation. With the toy device that asks for pages.
 */
#include "client.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Registers of the toy. */
#define REG_ADDRESS 0x0
#define REG_COMMAND 0x8
#define REG_OUTCOME 0xc
#define REG_PASID 0x10
#define GO 1u
#define READ_MEMORY 2u

/* Bits of an x86-64 page-table entry. */
#define PRESENT 1ull
#define WRITABLE 2ull
#define USER 4ull
#define ACCESSED 0x20ull
#define DIRTY 0x40ull

#define GUEST_PAGES 16
#define GUEST_RAM 0x40000000ull /* where it begins for the guest */
#define GUEST_IOVA 0x7f0000123000ull
#define GUEST_PASID 77u

struct vmm {
	int iommufd, fd, queue;
	uint32_t ioas, devid, parent, nested, fault;
	uint64_t bar;
	uint64_t *ram;
};

static void reg_write(struct vmm *v, uint64_t reg, uint32_t value)
{
	CHECK(pwrite(v->fd, &value, 4, (off_t)(v->bar + reg)) == 4);
}

static uint32_t reg_read(struct vmm *v, uint64_t reg)
{
	uint32_t value;

	CHECK(pread(v->fd, &value, 4, (off_t)(v->bar + reg)) == 4);
	return value;
}

static void go(struct vmm *v, uint64_t address, uint32_t direction)
{
	reg_write(v, REG_ADDRESS, (uint32_t)address);
	reg_write(v, REG_ADDRESS + 4, address >> 32);
	reg_write(v, REG_COMMAND, GO | direction);
}

static uint32_t outcome(struct vmm *v)
{
	double end = seconds() + 20;

	while (reg_read(v, REG_COMMAND) & GO)
		CHECK(seconds() < end);
	return reg_read(v, REG_OUTCOME);
}

static uint32_t hwpt_alloc(struct vmm *v, uint32_t pt, uint32_t flags, uint32_t type, void *data,
			   uint32_t len)
{
	struct iommu_hwpt_alloc cmd = {.size = sizeof(cmd),
				       .flags = flags,
				       .dev_id = v->devid,
				       .pt_id = pt,
				       .data_type = type,
				       .data_len = len,
				       .data_uptr = (uintptr_t)data,
				       .fault_id = v->fault};

	CHECK(!ioctl(v->iommufd, IOMMU_HWPT_ALLOC, &cmd));
	return cmd.out_hwpt_id;
}

static void open_device(struct vmm *v)
{
	struct vfio_device_bind_iommufd bind = {.argsz = sizeof(bind)};
	struct vfio_region_info bar = {.argsz = sizeof(bar)};
	struct vfio_region_info config = {.argsz = sizeof(config),
					  .index = VFIO_PCI_CONFIG_REGION_INDEX};
	struct iommu_hw_info_vtd vtd;
	struct iommu_hw_info info = {
		.size = sizeof(info), .data_len = sizeof(vtd), .data_uptr = (uintptr_t)&vtd};
	uint16_t command = 6;

	v->iommufd = bind.iommufd = iommu_open();
	v->fd = vfio_open(O_RDWR);
	CHECK(!ioctl(v->fd, VFIO_DEVICE_BIND_IOMMUFD, &bind));
	v->devid = info.dev_id = bind.out_devid;
	CHECK(!ioctl(v->fd, VFIO_DEVICE_GET_REGION_INFO, &bar));
	CHECK(!ioctl(v->fd, VFIO_DEVICE_GET_REGION_INFO, &config));
	v->bar = bar.offset;
	CHECK(pwrite(v->fd, &command, 2, (off_t)config.offset + 4) == 2);
	/* What the guest will be told: it can nest, with PASIDs and page requests. */
	CHECK(!ioctl(v->iommufd, IOMMU_GET_HW_INFO, &info));
	CHECK(info.out_data_type == IOMMU_HW_INFO_TYPE_INTEL_VTD);
	CHECK(vtd.ecap_reg >> 26 & 1 && vtd.ecap_reg >> 29 & 1 && vtd.ecap_reg >> 40 & 1);
	CHECK(info.out_max_pasid_log2 == 20);
}

/* The guest's memory, in which pages 0 to 3 are its table. */
static void start_guest(struct vmm *v)
{
	struct iommu_hwpt_vtd_s1 table = {.pgtbl_addr = GUEST_RAM, .addr_width = 48};
	struct iommu_fault_alloc fault = {.size = sizeof(fault)};
	struct vfio_device_attach_iommufd_pt attach = {
		.argsz = sizeof(attach), .flags = VFIO_DEVICE_ATTACH_PASID, .pasid = GUEST_PASID};
	unsigned int shift = 39;

	v->ram = pages(GUEST_PAGES * PAGE, 0);
	for (int level = 0; level < 3; level++, shift -= 9)
		v->ram[512 * level + (GUEST_IOVA >> shift & 511)] =
			(GUEST_RAM + (level + 1) * PAGE) | PRESENT | WRITABLE | USER;
	v->ioas = ioas_alloc(v->iommufd);
	CHECK(!ioas_map_at(v->iommufd, v->ioas, v->ram, GUEST_PAGES * PAGE, GUEST_RAM));
	CHECK(!ioctl(v->iommufd, IOMMU_FAULT_QUEUE_ALLOC, &fault));
	v->fault = fault.out_fault_id;
	v->queue = (int)fault.out_fault_fd;
	v->parent = hwpt_alloc(v, v->ioas, IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_PASID, 0,
			       NULL, 0);
	v->nested = hwpt_alloc(v, v->parent, IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID,
			       IOMMU_HWPT_DATA_VTD_S1, &table, sizeof(table));
	attach.pt_id = v->nested;
	CHECK(!ioctl(v->fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach));
	reg_write(v, REG_PASID, GUEST_PASID);
}

static uint64_t *leaf(struct vmm *v)
{
	return &v->ram[512 * 3 + (GUEST_IOVA >> 12 & 511)];
}

static void invalidate(struct vmm *v)
{
	struct iommu_hwpt_vtd_s1_invalidate inv = {.addr = GUEST_IOVA, .npages = 1};
	struct iommu_hwpt_invalidate cmd = {.size = sizeof(cmd),
					    .hwpt_id = v->nested,
					    .data_uptr = (uintptr_t)&inv,
					    .data_type = IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
					    .entry_len = sizeof(inv),
					    .entry_num = 1};

	CHECK(!ioctl(v->iommufd, IOMMU_HWPT_INVALIDATE, &cmd) && cmd.entry_num == 1);
}

/* The guest gets a request and answers it with a page, by the given permissions. */
static void serve_request(struct vmm *v, unsigned int page, uint64_t permissions, uint32_t perm)
{
	struct pollfd p = {.fd = v->queue, .events = POLLIN};
	struct iommu_hwpt_page_response response = {.code = IOMMUFD_PAGE_RESP_SUCCESS};
	struct iommu_hwpt_pgfault fault;

	CHECK(poll(&p, 1, 20000) == 1 && p.revents & POLLIN);
	CHECK(read(v->queue, &fault, sizeof(fault)) == sizeof(fault));
	CHECK(fault.pasid == GUEST_PASID && fault.addr == GUEST_IOVA && fault.perm == perm);
	CHECK(fault.dev_id == v->devid);
	*leaf(v) = (GUEST_RAM + page * PAGE) | PRESENT | USER | permissions;
	invalidate(v);
	response.cookie = fault.cookie;
	CHECK(write(v->queue, &response, sizeof(response)) == sizeof(response));
}

static int nested(int argc, char **argv)
{
	struct vmm v = {0};
	unsigned char *ram;

	(void)argc;
	(void)argv;
	open_device(&v);
	start_guest(&v);
	ram = (unsigned char *)v.ram;
	/* The device reads a page that is not there yet. */
	memset(ram + 5 * PAGE, 0x55, PAGE);
	go(&v, GUEST_IOVA, READ_MEMORY);
	serve_request(&v, 5, 0, IOMMU_PGFAULT_PERM_READ);
	CHECK(!outcome(&v));
	CHECK(*leaf(&v) == ((GUEST_RAM + 5 * PAGE) | PRESENT | USER | ACCESSED));
	/* It writes what it has read: the page is read-only, then another one that is not. */
	go(&v, GUEST_IOVA, 0);
	serve_request(&v, 6, WRITABLE, IOMMU_PGFAULT_PERM_WRITE);
	CHECK(!outcome(&v));
	CHECK(all_bytes(ram + 6 * PAGE, PAGE, 0x55));
	CHECK(*leaf(&v) == ((GUEST_RAM + 6 * PAGE) | PRESENT | USER | WRITABLE | ACCESSED | DIRTY));
	/* Remembered until it is invalidated. */
	memset(ram + 6 * PAGE, 0, PAGE);
	*leaf(&v) = (GUEST_RAM + 7 * PAGE) | PRESENT | USER | WRITABLE;
	invalidate(&v);
	go(&v, GUEST_IOVA, 0);
	CHECK(!outcome(&v));
	CHECK(all_bytes(ram + 7 * PAGE, PAGE, 0x55) && all_bytes(ram + 6 * PAGE, PAGE, 0));
	/* Out of the guest's memory there is nothing, and nobody to ask. */
	*leaf(&v) = (GUEST_RAM + GUEST_PAGES * PAGE) | PRESENT | USER;
	invalidate(&v);
	go(&v, GUEST_IOVA, READ_MEMORY);
	CHECK(outcome(&v) == 1);
	/* The guest dies while its device waits: closing must not. */
	*leaf(&v) = 0;
	invalidate(&v);
	go(&v, GUEST_IOVA, READ_MEMORY);
	close(v.fd);
	close(v.queue);
	CHECK(destroy(v.iommufd, v.devid) < 0);
	return 0;
}

const struct scene nested_scenes[] = {{"nested", nested}, {NULL, NULL}};
