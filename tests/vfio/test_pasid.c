// SPDX-License-Identifier: MIT
/* ATTACH and DETACH of single PASIDs, and DMA that waits for the client's answer: spec vfio.md 2.4, 2.5. */
#include "rig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ATTACH VFIO_DEVICE_ATTACH_IOMMUFD_PT
#define DETACH VFIO_DEVICE_DETACH_IOMMUFD_PT
#define IOVA 0x10000ull

static struct swiommu_files *files;

static int setup(void **state)
{
	static struct rig rig;

	assert_int_equal(swiommu_files_create(&files), 0);
	rig_open(&rig, &probe_model, "");
	assert_int_equal(rig_bind(&rig), 0);
	rig_write(&rig, CONFIG, PCI_COMMAND, 2, 6);
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	rig_close(*state);
	swiommu_files_destroy(files);
	return 0;
}

static long iommufd(struct rig *rig, unsigned int cmd, void *arg)
{
	struct swiommu_caller c;

	swiommu_caller_local(&c);
	c.files = files;
	return swiommu_ioctl(rig->ctx, &c, cmd, (uintptr_t)arg);
}

static long destroy(struct rig *rig, uint32_t id)
{
	return iommufd(rig, IOMMU_DESTROY,
		       &(struct iommu_destroy){sizeof(struct iommu_destroy), id});
}

static uint32_t hwpt_new(struct rig *rig, uint32_t ioas, uint32_t flags, uint32_t fault)
{
	struct iommu_hwpt_alloc cmd = {.size = sizeof(cmd),
				       .flags = flags,
				       .dev_id = rig->devid,
				       .pt_id = ioas,
				       .fault_id = fault};

	assert_int_equal(iommufd(rig, IOMMU_HWPT_ALLOC, &cmd), 0);
	return cmd.out_hwpt_id;
}

static uint32_t ioas_new(struct rig *rig)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};

	assert_int_equal(iommufd(rig, IOMMU_IOAS_ALLOC, &cmd), 0);
	return cmd.out_ioas_id;
}

static struct vfio_device_attach_iommufd_pt attach_arg(uint32_t pasid, uint32_t pt)
{
	return (struct vfio_device_attach_iommufd_pt){
		.argsz = 16, .flags = VFIO_DEVICE_ATTACH_PASID, .pt_id = pt, .pasid = pasid};
}

static void attach(struct rig *rig, uint32_t pasid, uint32_t pt, long rc)
{
	struct vfio_device_attach_iommufd_pt arg = attach_arg(pasid, pt);

	rig_expect(rig, ATTACH, &arg, rc);
	assert_int_equal(arg.pt_id, pt);
}

static void detach(struct rig *rig, uint32_t pasid, long rc)
{
	struct vfio_device_detach_iommufd_pt arg = {
		.argsz = 12, .flags = VFIO_DEVICE_DETACH_PASID, .pasid = pasid};

	rig_expect(rig, DETACH, &arg, rc);
}

static int byte_at(struct vfio_dma *dma, uint64_t iova)
{
	uint8_t byte;
	int rc = vfio_dma_read(dma, iova, &byte, 1);

	return rc ? rc : byte;
}

static void refusals(void **state)
{
	struct rig *rig = *state;
	uint32_t good = hwpt_new(rig, rig->ioas, IOMMU_HWPT_ALLOC_PASID, 0);
	uint32_t plain = hwpt_new(rig, rig->ioas, 0, 0), pt_id = plain;
	uint8_t *page = rig_pages(8192);
	struct vfio_device_attach_iommufd_pt *cut = (void *)(page + 4096 - 12);

	attach(rig, 0, good, -EINVAL);
	detach(rig, 0, -EINVAL);
	attach(rig, 1u << 20, good, -EINVAL);
	attach(rig, 5, plain, -EINVAL);
	attach(rig, 5, rig->ioas, -EINVAL);
	attach(rig, 5, 9999, -ENOENT);
	detach(rig, 5, 0);
	detach(rig, UINT32_MAX, 0);
	/* The PASID itself cannot be read. */
	munmap(page + 4096, 4096);
	cut->argsz = 16;
	cut->flags = VFIO_DEVICE_ATTACH_PASID;
	cut->pt_id = good;
	rig_expect(rig, ATTACH, cut, -EFAULT);
	/* Beside a device that is on a table not for PASIDs. */
	assert_int_equal(rig_attach(rig, &pt_id), 0);
	attach(rig, 5, good, -EINVAL);
	/* A device without any. */
	rig->dev->device.max_pasids = 0;
	attach(rig, 5, good, -EOPNOTSUPP);
	detach(rig, 5, -EOPNOTSUPP);
	rig->dev->device.max_pasids = 1u << 20;
	assert_int_equal(destroy(rig, good), 0);
	munmap(page, 4096);
}

static void each_pasid_has_its_own(void **state)
{
	struct rig *rig = *state;
	uint32_t first = rig->ioas, second = ioas_new(rig), a, b;
	uint8_t *mem = rig_pages(8192);
	struct vfio_dma dma[2];

	mem[0] = 1;
	mem[4096] = 2;
	rig_map(rig, mem, 4096, IOVA, IOMMU_IOAS_MAP_READABLE);
	rig->ioas = second;
	rig_map(rig, mem + 4096, 4096, IOVA, IOMMU_IOAS_MAP_READABLE);
	a = hwpt_new(rig, first, IOMMU_HWPT_ALLOC_PASID, 0);
	b = hwpt_new(rig, second, IOMMU_HWPT_ALLOC_PASID, 0);
	assert_int_equal(vfio_dma_open_with(rig->dev, &dma[0], 1u << 20, 0), -EINVAL);
	for (int i = 0; i < 2; i++)
		assert_int_equal(vfio_dma_open_with(rig->dev, &dma[i], 8 + i, 0), 0);
	attach(rig, 8, a, 0);
	attach(rig, 9, b, 0);
	assert_int_equal(byte_at(&dma[0], IOVA), 1);
	assert_int_equal(byte_at(&dma[1], IOVA), 2);
	assert_int_equal(byte_at(&probe_of(rig)->dma, IOVA), -ENXIO);
	/* Again: a replace. The same again: nothing. A failure changes nothing. */
	attach(rig, 8, b, 0);
	attach(rig, 8, b, 0);
	attach(rig, 8, 9999, -ENOENT);
	assert_int_equal(byte_at(&dma[0], IOVA), 2);
	detach(rig, 8, 0);
	assert_int_equal(byte_at(&dma[0], IOVA), -ENXIO);
	assert_int_equal(byte_at(&dma[1], IOVA), 2);
	/* The device itself, beside its PASIDs; its detach leaves them. */
	assert_int_equal(rig_attach(rig, &a), 0);
	assert_int_equal(byte_at(&probe_of(rig)->dma, IOVA), 1);
	assert_int_equal(rig_detach(rig), 0);
	assert_int_equal(byte_at(&dma[1], IOVA), 2);
	for (int i = 0; i < 2; i++)
		vfio_dma_close(&dma[i]);
	munmap(mem, 8192);
}

static void detach_in_between(struct rig *rig)
{
	struct rig other;

	rig_for_thread(&other, rig);
	detach(&other, 8, 0);
	attach(&other, 8, rig->ioas, 0);
}

static void other_in_between(struct rig *rig)
{
	struct rig other;

	rig_for_thread(&other, rig);
	attach(&other, 9, rig->ioas, 0);
}

static void only_its_own_attach_is_undone(void **state)
{
	struct rig *rig = *state;
	uint32_t hwpt = hwpt_new(rig, rig->ioas, IOMMU_HWPT_ALLOC_PASID, 0);
	struct vfio_device_attach_iommufd_pt arg = attach_arg(8, hwpt);
	struct vfio_dma dma[2];
	uint8_t *mem = rig_pages(4096);

	rig_map(rig, mem, 4096, IOVA, IOMMU_IOAS_MAP_READABLE);
	for (int i = 0; i < 2; i++)
		assert_int_equal(vfio_dma_open_with(rig->dev, &dma[i], 8 + i, 0), 0);
	rig->ioas = hwpt; /* for the two above */
	rig->bad_out = (uintptr_t)&arg.pt_id;
	rig->on_copy_out = other_in_between;
	rig_expect(rig, ATTACH, &arg, -EFAULT);
	assert_int_equal(byte_at(&dma[0], IOVA), -ENXIO);
	assert_int_equal(byte_at(&dma[1], IOVA), 0);
	rig->on_copy_out = detach_in_between;
	rig_expect(rig, ATTACH, &arg, -EFAULT);
	assert_int_equal(byte_at(&dma[0], IOVA), 0);
	for (int i = 0; i < 2; i++)
		vfio_dma_close(&dma[i]);
	munmap(mem, 4096);
}

static void close_detaches_all(void **state)
{
	struct rig *rig = *state;
	uint32_t hwpt = hwpt_new(rig, rig->ioas, IOMMU_HWPT_ALLOC_PASID, 0), pt_id = hwpt;

	for (uint32_t pasid = 1; pasid < 300; pasid++)
		attach(rig, pasid * 3499, hwpt, 0);
	assert_int_equal(rig_attach(rig, &pt_id), 0);
	detach(rig, 3499, 0);
	assert_int_equal(destroy(rig, hwpt), -EBUSY);
	vfio_file_close(rig->file);
	assert_int_equal(destroy(rig, hwpt), 0);
	assert_int_equal(destroy(rig, rig->devid), -ENOENT);
	assert_int_equal(vfio_file_open(rig->dev, &rig->file), 0);
}

/* ---- waiting for the client ----------------------------------------------------------------------- */

struct waiter {
	struct rig *rig;
	struct vfio_dma dma;
	pthread_t thread;
	int rc;
};

static void *wait_for_page(void *arg)
{
	struct waiter *w = arg;
	uint8_t byte;

	w->rc = vfio_dma_read(&w->dma, IOVA, &byte, 1);
	return NULL;
}

/* As a model's reset does it: when it returns, its DMA has ended. */
static void end_dma(void *data)
{
	struct waiter *w = data;

	pthread_join(w->thread, NULL);
}

static void waiter_start(struct rig *rig, struct waiter *w, int *fd)
{
	struct iommu_fault_alloc fault = {.size = sizeof(fault)};
	struct pollfd p;

	assert_int_equal(iommufd(rig, IOMMU_FAULT_QUEUE_ALLOC, &fault), 0);
	attach(rig, 8,
	       hwpt_new(rig, rig->ioas, IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_FAULT_ID_VALID,
			fault.out_fault_id),
	       0);
	w->rig = rig;
	assert_int_equal(vfio_dma_open_with(rig->dev, &w->dma, 8, SWIOMMU_DMA_PAGE_REQUESTS), 0);
	assert_int_equal(pthread_create(&w->thread, NULL, wait_for_page, w), 0);
	*fd = fault.out_fault_fd;
	p = (struct pollfd){.fd = *fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 60000), 1);
	probe_of(rig)->on_reset = end_dma;
	probe_of(rig)->on_reset_data = w;
}

static void a_reset_ends_the_wait(void **state)
{
	struct rig *rig = *state;
	struct waiter w;
	int fd;

	waiter_start(rig, &w, &fd);
	assert_int_equal(rig_ioctl(rig, VFIO_DEVICE_RESET, NULL), 0);
	assert_int_equal(w.rc, -ECANCELED);
	/* Cancelled by the model: the same; and afterwards it asks again. */
	rig_write(rig, CONFIG, PCI_COMMAND, 2, 6);
	assert_int_equal(pthread_create(&w.thread, NULL, wait_for_page, &w), 0);
	vfio_dma_cancel(&w.dma);
	pthread_join(w.thread, NULL);
	assert_int_equal(w.rc, -ECANCELED);
	vfio_dma_resume(&w.dma);
	assert_int_equal(pthread_create(&w.thread, NULL, wait_for_page, &w), 0);
	detach(rig, 8, 0);
	pthread_join(w.thread, NULL);
	assert_true(w.rc == -ENOENT || w.rc == -ENXIO);
	vfio_dma_close(&w.dma);
	close(fd);
}

static void close_dma(void *data)
{
	struct waiter *w = data;

	end_dma(w);
	vfio_dma_close(&w->dma);
}

static void a_close_ends_the_wait(void **state)
{
	struct rig *rig = *state;
	struct waiter w;
	int fd;

	waiter_start(rig, &w, &fd);
	probe_of(rig)->on_reset = close_dma;
	vfio_file_close(rig->file);
	assert_int_equal(w.rc, -ECANCELED);
	assert_int_equal(vfio_file_open(rig->dev, &rig->file), 0);
	close(fd);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(refusals),	       T(each_pasid_has_its_own), T(only_its_own_attach_is_undone),
		T(close_detaches_all), T(a_reset_ends_the_wait),  T(a_close_ends_the_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
