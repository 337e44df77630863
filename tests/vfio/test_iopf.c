// SPDX-License-Identifier: MIT
/* The iopf toy: it asks its client for pages (spec vfio.md 7.4, devices.md 4). */
#include "rig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define IOVA 0x100000ull
#define GO 1u
#define READ_MEMORY 2u

struct fixture {
	struct rig rig; /* first */
	struct swiommu_files *files;
	uint8_t *mem;
	int queue; /* of page requests */
};

static void ctx_ioctl(struct fixture *f, unsigned int cmd, void *arg)
{
	struct swiommu_caller caller;
	long rc;

	swiommu_caller_local(&caller);
	caller.files = f->files;
	rc = swiommu_ioctl(f->rig.ctx, &caller, cmd, (uintptr_t)arg);
	if (rc)
		fail_msg("ioctl 0x%x: %ld (%s)", cmd, rc, caller.reason);
}

static int setup_with(void **state, const char *options)
{
	static struct fixture f;

	assert_int_equal(swiommu_files_create(&f.files), 0);
	rig_ready(&f.rig, vfio_model_find("iopf"), options);
	f.mem = rig_pages(2 * 4096);
	f.queue = -1;
	*state = &f;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, "");
}

static int setup_polled(void **state)
{
	return setup_with(state, "mmio=poll");
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->queue >= 0)
		close(f->queue);
	swiommu_files_sweep(f->files);
	rig_close(&f->rig);
	swiommu_files_destroy(f->files);
	munmap(f->mem, 2 * 4096);
	return 0;
}

/* Attaches the device to a page table with a fault queue. */
static void with_queue(struct fixture *f)
{
	struct iommu_fault_alloc fault = {.size = sizeof(fault)};
	struct iommu_hwpt_alloc hwpt = {.size = sizeof(hwpt),
					.flags = IOMMU_HWPT_FAULT_ID_VALID,
					.dev_id = f->rig.devid,
					.pt_id = f->rig.ioas};
	uint32_t pt_id;

	ctx_ioctl(f, IOMMU_FAULT_QUEUE_ALLOC, &fault);
	f->queue = (int)fault.out_fault_fd;
	hwpt.fault_id = fault.out_fault_id;
	ctx_ioctl(f, IOMMU_HWPT_ALLOC, &hwpt);
	pt_id = hwpt.out_hwpt_id;
	assert_int_equal(rig_attach(&f->rig, &pt_id), 0);
}

static void go(struct fixture *f, uint64_t address, uint32_t direction)
{
	rig_write(&f->rig, 0, 0, 4, (uint32_t)address);
	rig_write(&f->rig, 0, 4, 4, address >> 32);
	rig_write(&f->rig, 0, 8, 4, GO | direction);
}

/* Waits for the end of the command; the outcome. */
static uint32_t outcome(struct fixture *f)
{
	while (rig_read(&f->rig, 0, 8, 4) & GO)
		sched_yield();
	return (uint32_t)rig_read(&f->rig, 0, 12, 4);
}

static void take_request(struct fixture *f, struct iommu_hwpt_pgfault *out)
{
	struct pollfd p = {.fd = f->queue, .events = POLLIN};
	struct swiommu_caller caller;

	swiommu_caller_local(&caller);
	caller.files = f->files;
	assert_int_equal(poll(&p, 1, 20000), 1);
	assert_int_equal(swiommu_read(&caller, f->queue, (uintptr_t)out, sizeof(*out)),
			 sizeof(*out));
}

static long answer(struct fixture *f, const struct iommu_hwpt_pgfault *request, uint32_t code)
{
	struct iommu_hwpt_page_response response = {.cookie = request->cookie, .code = code};
	struct swiommu_caller caller;

	swiommu_caller_local(&caller);
	caller.files = f->files;
	return swiommu_write(&caller, f->queue, (uintptr_t)&response, sizeof(response));
}

static void map(struct fixture *f)
{
	rig_map(&f->rig, f->mem, 4096, IOVA, IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE);
}

/* ---- tests ------------------------------------------------------------------------------- */

static void without_a_queue_a_miss_is_an_error(void **state)
{
	struct fixture *f = *state;

	go(f, IOVA, READ_MEMORY);
	assert_int_equal(outcome(f), 1);
	assert_int_equal(f->rig.faults, 1);
	map(f);
	memset(f->mem, 0x5a, 4096);
	go(f, IOVA, READ_MEMORY);
	assert_int_equal(outcome(f), 0);
	memset(f->mem, 0, 4096);
	go(f, IOVA, 0);
	assert_int_equal(outcome(f), 0);
	assert_int_equal(f->mem[0], 0x5a);
	assert_int_equal(f->mem[4095], 0x5a);
	assert_int_equal(f->mem[4096], 0);
	assert_int_equal(rig_read(&f->rig, 0, 0, 8), IOVA);
}

static void a_miss_is_a_page_request(void **state)
{
	struct fixture *f = *state;
	struct iommu_hwpt_pgfault request;

	with_queue(f);
	for (unsigned int i = 0; i < 2; i++) {
		memset(f->mem, 0x40 + i, 4096);
		go(f, IOVA, i ? 0 : READ_MEMORY);
		take_request(f, &request);
		assert_int_equal(request.addr & ~4095ull, IOVA);
		assert_int_equal(request.dev_id, f->rig.devid);
		assert_int_equal(rig_read(&f->rig, 0, 8, 4) & GO, GO);
		map(f);
		assert_int_equal(answer(f, &request, IOMMUFD_PAGE_RESP_SUCCESS), 8);
		assert_int_equal(outcome(f), 0);
		/* What it has read the first time it writes the second time. */
		assert_int_equal(f->mem[4095], 0x40);
		rig_unmap(&f->rig, IOVA, 4096);
	}
	assert_int_equal(f->rig.faults, 0);
}

static void a_refused_request_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct iommu_hwpt_pgfault request;

	with_queue(f);
	go(f, IOVA, READ_MEMORY);
	take_request(f, &request);
	assert_int_equal(answer(f, &request, IOMMUFD_PAGE_RESP_INVALID), 8);
	assert_int_equal(outcome(f), 1);
}

static void a_reset_ends_the_waiting(void **state)
{
	struct fixture *f = *state;
	struct iommu_hwpt_pgfault request;

	with_queue(f);
	go(f, IOVA, READ_MEMORY);
	take_request(f, &request);
	rig_expect(&f->rig, VFIO_DEVICE_RESET, NULL, 0);
	assert_int_equal(rig_read(&f->rig, 0, 0, 8), 0);
	assert_int_equal(rig_read(&f->rig, 0, 8, 8), 0);
	answer(f, &request, IOMMUFD_PAGE_RESP_SUCCESS);
	/* It works as before. */
	map(f);
	f->mem[0] = 7;
	go(f, IOVA, READ_MEMORY);
	assert_int_equal(outcome(f), 0);
	f->mem[0] = 0;
	go(f, IOVA, 0);
	assert_int_equal(outcome(f), 0);
	assert_int_equal(f->mem[0], 7);
}

static void a_pasid_of_its_own(void **state)
{
	struct fixture *f = *state;
	struct iommu_hwpt_alloc hwpt = {.size = sizeof(hwpt),
					.flags = IOMMU_HWPT_ALLOC_PASID,
					.dev_id = f->rig.devid,
					.pt_id = f->rig.ioas};
	struct vfio_device_attach_iommufd_pt attach = {
		.argsz = 16, .flags = VFIO_DEVICE_ATTACH_PASID, .pasid = 42};

	map(f);
	assert_int_equal(rig_detach(&f->rig), 0);
	ctx_ioctl(f, IOMMU_HWPT_ALLOC, &hwpt);
	attach.pt_id = hwpt.out_hwpt_id;
	rig_expect(&f->rig, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach, 0);
	go(f, IOVA, READ_MEMORY);
	assert_int_equal(outcome(f), 1);
	rig_write(&f->rig, 0, 16, 4, 42);
	go(f, IOVA, READ_MEMORY);
	assert_int_equal(outcome(f), 0);
	/* One that is not attached, and one that cannot be. */
	rig_write(&f->rig, 0, 16, 4, 43);
	go(f, IOVA, READ_MEMORY);
	assert_int_equal(outcome(f), 1);
	rig_write(&f->rig, 0, 16, 4, 1u << 20);
	go(f, IOVA, READ_MEMORY);
	assert_int_equal(outcome(f), 1);
	assert_int_equal(rig_read(&f->rig, 0, 16, 4), 1u << 20);
	rig_write(&f->rig, 0, 16, 4, 42);
	go(f, IOVA, READ_MEMORY);
	assert_int_equal(outcome(f), 0);
}

/* Its configuration space says that it can ask: ATS and PRI. */
static void says_that_it_asks(void **state)
{
	struct fixture *f = *state;
	uint32_t ats = (uint32_t)rig_read(&f->rig, CONFIG, 0x100, 4), next = ats >> 20, pri;

	assert_int_equal(ats & 0xffff, PCI_EXT_CAP_ID_ATS);
	assert_int_equal(rig_read(&f->rig, CONFIG, 0x100 + PCI_ATS_CTRL, 2), PCI_ATS_CTRL_ENABLE);
	pri = (uint32_t)rig_read(&f->rig, CONFIG, next, 4);
	assert_int_equal(pri & 0xffff, PCI_EXT_CAP_ID_PRI);
	assert_int_equal(rig_read(&f->rig, CONFIG, next + PCI_PRI_CTRL, 2), PCI_PRI_CTRL_ENABLE);
	assert_int_equal(rig_read(&f->rig, CONFIG, next + PCI_PRI_MAX_REQ, 4), 512);
	assert_int_equal(pri >> 20, 0);
}

static void closing_ends_the_waiting(void **state)
{
	struct fixture *f = *state;
	struct iommu_hwpt_pgfault request;

	with_queue(f);
	go(f, IOVA, 0);
	take_request(f, &request);
	vfio_file_close(f->rig.file);
	assert_int_equal(vfio_file_open(f->rig.dev, &f->rig.file), 0);
}

static void registers_through_a_mapping(void **state)
{
	struct fixture *f = *state;
	struct vfio_area area;
	uint32_t *regs;

	assert_int_equal(vfio_region_area(f->rig.dev, 0, 0, &area), 0);
	assert_int_equal(area.kind, VFIO_AREA_PAGES);
	regs = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, area.fd, (off_t)area.fd_offset);
	assert_true(regs != MAP_FAILED);
	map(f);
	__atomic_store_n(&regs[0], (uint32_t)IOVA, __ATOMIC_RELEASE);
	__atomic_store_n(&regs[2], GO | READ_MEMORY, __ATOMIC_RELEASE);
	while (__atomic_load_n(&regs[2], __ATOMIC_ACQUIRE) & GO)
		sched_yield();
	assert_int_equal(regs[3], 0);
	/* And by pwrite, which tells the device. */
	go(f, IOVA + 4096, 0);
	assert_int_equal(outcome(f), 1);
	munmap(regs, 4096);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(without_a_queue_a_miss_is_an_error),
		T(a_miss_is_a_page_request),
		T(a_refused_request_is_an_error),
		T(a_reset_ends_the_waiting),
		T(a_pasid_of_its_own),
		T(says_that_it_asks),
		T(closing_ends_the_waiting),
		cmocka_unit_test_setup_teardown(registers_through_a_mapping, setup_polled,
						teardown),
	};

	return cmocka_run_group_tests_name("vfio_iopf", tests, NULL, NULL);
}
