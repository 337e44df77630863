// SPDX-License-Identifier: MIT
/* Emulated devices: bound as accesses, by cdev and through their group. */
#include "group_rig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <sys/mman.h>

#define P 4096ull

static struct group_rig rig;
static struct rig dev; /* a client of OTHER, which is emulated */

static int setup(void **state)
{
	group_rig_open_emulated(&rig);
	rig_for_thread(&dev, &rig.r);
	dev.ops.get_ctx = rig.rig_get_ctx;
	assert_int_equal(vfio_file_open(rig.devices[OTHER], &dev.file), 0);
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	vfio_file_close(dev.file);
	group_rig_close(*state);
	return 0;
}

static struct probe *other(struct group_rig *g)
{
	return g->devices[OTHER]->priv;
}

static long iommufd(struct group_rig *g, unsigned int cmd, void *arg)
{
	return swiommu_ioctl(g->r.ctx, &g->r.caller, cmd, (uintptr_t)arg);
}

static long destroy(struct group_rig *g, uint32_t id)
{
	struct iommu_destroy cmd = {.size = sizeof(cmd), .id = id};

	return iommufd(g, IOMMU_DESTROY, &cmd);
}

static long attach(struct rig *r, uint32_t pt_id)
{
	uint32_t id = pt_id;
	long rc = rig_attach(r, &id);

	assert_int_equal(id, pt_id);
	return rc;
}

static void start_master(struct rig *r)
{
	rig_write(r, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
}

static void binding_makes_an_access(void **state)
{
	struct group_rig *g = *state;
	struct iommu_hw_info info = {.size = sizeof(info)};

	assert_int_equal(rig_bind(&dev), 0);
	assert_int_not_equal(dev.devid, 0);
	/* It is no device to iommufd, and claims nobody's DMA. */
	info.dev_id = dev.devid;
	assert_int_equal(iommufd(g, IOMMU_GET_HW_INFO, &info), -ENOENT);
	assert_false(iommu_group_dma_owner_claimed(&g->other_group));
	assert_false(iommufd_ctx_has_group(g->r.ctx, &g->other_group));
	assert_int_equal(destroy(g, dev.devid), -EBUSY);
	vfio_file_close(dev.file);
	assert_int_equal(destroy(g, dev.devid), -ENOENT);
	assert_int_equal(vfio_file_open(g->devices[OTHER], &dev.file), 0);
}

static void what_it_can_be_attached_to(void **state)
{
	struct group_rig *g = *state;
	struct iommu_hwpt_alloc hwpt = {.size = sizeof(hwpt), .pt_id = g->r.ioas};
	struct vfio_device_attach_iommufd_pt pasid = {
		.argsz = 16, .flags = VFIO_DEVICE_ATTACH_PASID, .pt_id = g->r.ioas, .pasid = 1};

	assert_int_equal(rig_bind(&g->r), 0);
	hwpt.dev_id = g->r.devid;
	assert_int_equal(iommufd(g, IOMMU_HWPT_ALLOC, &hwpt), 0);
	assert_int_equal(rig_bind(&dev), 0);
	assert_int_equal(attach(&dev, 0), -ENOENT);
	assert_int_equal(attach(&dev, 4711), -ENOENT);
	assert_int_equal(attach(&dev, hwpt.out_hwpt_id), -ENOENT);
	assert_int_equal(attach(&dev, g->r.ioas), 0);
	rig_expect(&dev, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &pasid, -EOPNOTSUPP);
	assert_int_equal(destroy(g, hwpt.out_hwpt_id), 0);
	assert_int_equal(destroy(g, g->r.ioas), -EBUSY);
	assert_int_equal(rig_detach(&dev), 0);
	assert_int_equal(rig_detach(&dev), 0);
	assert_int_equal(destroy(g, g->r.ioas), 0);
}

static void dma_uses_the_memory_as_it_is_now(void **state)
{
	struct group_rig *g = *state;
	uint8_t byte = 0, *page = rig_pages(2 * P);
	struct vfio_dma *dma;

	page[5] = 0x15;
	rig_map(&g->r, page, P, 0x10000, IOMMU_IOAS_MAP_READABLE);
	rig_map(&g->r, page + P, P, 0x11000, IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE);
	assert_int_equal(rig_bind(&dev), 0);
	dma = &other(g)->dma;
	assert_int_equal(vfio_dma_read(dma, 0x10005, &byte, 1), -ENXIO); /* no bus master */
	start_master(&dev);
	assert_int_equal(vfio_dma_read(dma, 0x10005, &byte, 1), -ENOENT); /* not attached */
	assert_int_equal(attach(&dev, g->r.ioas), 0);
	assert_int_equal(vfio_dma_read(dma, 0x10005, &byte, 1), 0);
	assert_int_equal(byte, 0x15);
	assert_int_equal(vfio_dma_write(dma, 0x10005, &byte, 1), -EPERM);
	assert_int_equal(vfio_dma_write(dma, 0x11007, &byte, 1), 0);
	assert_int_equal(page[P + 7], 0x15);
	assert_int_equal(vfio_dma_read(dma, 0x12000, &byte, 1), -ENOENT);
	assert_int_equal(g->r.faults, 3);
	/* Nothing was pinned: other memory at the same address is what the device sees. */
	assert_ptr_equal(mmap(page, P, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 page);
	page[5] = 0x25;
	assert_int_equal(vfio_dma_read(dma, 0x10005, &byte, 1), 0);
	assert_int_equal(byte, 0x25);
	munmap(page, P);
	assert_int_equal(vfio_dma_read(dma, 0x10005, &byte, 1), -EFAULT);
	rig_unmap(&g->r, 0x11000, P);
	assert_int_equal(vfio_dma_read(dma, 0x11007, &byte, 1), -ENOENT);
	munmap(page + P, P);
}

static void replacing_follows(void **state)
{
	struct group_rig *g = *state;
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	uint8_t byte = 0, *page = rig_pages(P);

	page[0] = 1;
	rig_map(&g->r, page, P, 0x10000, IOMMU_IOAS_MAP_READABLE);
	assert_int_equal(iommufd(g, IOMMU_IOAS_ALLOC, &alloc), 0);
	assert_int_equal(rig_bind(&dev), 0);
	start_master(&dev);
	assert_int_equal(attach(&dev, g->r.ioas), 0);
	assert_int_equal(vfio_dma_read(&other(g)->dma, 0x10000, &byte, 1), 0);
	assert_int_equal(attach(&dev, 4711), -ENOENT);
	assert_int_equal(vfio_dma_read(&other(g)->dma, 0x10000, &byte, 1), 0);
	assert_int_equal(attach(&dev, alloc.out_ioas_id), 0);
	assert_int_equal(vfio_dma_read(&other(g)->dma, 0x10000, &byte, 1), -ENOENT);
	assert_int_equal(rig_detach(&dev), 0);
	munmap(page, P);
}

static void the_rest_of_the_device_is_as_ever(void **state)
{
	struct vfio_pci_hot_reset_info info = {.argsz = sizeof(info)};
	int32_t efd = rig_eventfd();

	(void)state;
	assert_int_equal(rig_bind(&dev), 0);
	assert_int_equal(rig_read(&dev, CONFIG, PCI_VENDOR_ID, 2), 0x1234);
	assert_int_equal(rig_arm(&dev, VFIO_PCI_REQ_IRQ_INDEX, 0, 1, &efd), 0);
	rig_expect(&dev, VFIO_DEVICE_RESET, NULL, 0);
	rig_expect(&dev, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &info, -ENODEV);
}

static void emulated_devices_in_a_container(void **state)
{
	struct group_rig *g = *state;
	uint8_t byte = 0, *page = rig_pages(P);
	struct vfio_file *file = NULL;
	uint64_t size = 0;

	assert_int_equal(group_open(g, 1), 0);
	assert_int_equal(set_container(g, 1, CONTAINER_FD), 0);
	assert_false(iommu_group_dma_owner_claimed(&g->other_group));
	assert_int_equal(container_ioctl(g, 0, VFIO_SET_IOMMU, (void *)3), 0);
	/* Memory is not looked at when it is mapped. */
	assert_int_equal(map_dma(g, (void *)(1 << 20), P, 0x50000, RW), 0);
	assert_int_equal(map_dma(g, page, P, 0x60000, RW), 0);
	assert_int_equal(get_device(g, 1, OTHER_BDF, &file), 0);
	vfio_file_close(dev.file);
	dev.file = file;
	start_master(&dev);
	page[9] = 0x39;
	assert_int_equal(probe_dma(g->devices[OTHER], 0x60009, &byte), 0);
	assert_int_equal(byte, 0x39);
	assert_int_equal(probe_dma(g->devices[OTHER], 0x50000, &byte), -EFAULT);
	/* Who uses memory by its address must keep it. */
	assert_int_equal(
		unmap_dma(g, 0, &size, VFIO_DMA_UNMAP_FLAG_VADDR | VFIO_DMA_UNMAP_FLAG_ALL),
		-EBUSY);
	/* A device with an IOMMU finds memory missing that nobody had looked at. */
	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(set_container(g, 0, CONTAINER_FD), -EFAULT);
	munmap(page, P);
}

static void emulated_devices_in_an_iommufd_group(void **state)
{
	struct group_rig *g = *state;
	uint32_t id = g->r.ioas;
	struct iommu_vfio_ioas compat = {
		.size = sizeof(compat), .op = IOMMU_VFIO_IOAS_SET, .ioas_id = id};
	uint8_t byte = 0, *page = rig_pages(P);
	struct vfio_file *file = NULL;

	page[0] = 0x42;
	rig_map(&g->r, page, P, 0x10000, IOMMU_IOAS_MAP_READABLE);
	assert_int_equal(iommufd(g, IOMMU_VFIO_IOAS, &compat), 0);
	assert_int_equal(group_open(g, 1), 0);
	assert_int_equal(set_container(g, 1, RIG_CTX_FD), 0);
	assert_int_equal(get_device(g, 1, OTHER_BDF, &file), 0);
	vfio_file_close(dev.file);
	dev.file = file;
	start_master(&dev);
	assert_int_equal(probe_dma(g->devices[OTHER], 0x10000, &byte), 0);
	assert_int_equal(byte, 0x42);
	/* It stays there, and so the group cannot go into a container meanwhile. */
	assert_int_equal(group_ioctl(g, 1, VFIO_GROUP_UNSET_CONTAINER, NULL), 0);
	assert_int_equal(set_container(g, 1, CONTAINER_FD), -EPERM);
	assert_int_equal(probe_dma(g->devices[OTHER], 0x10000, &byte), 0);
	munmap(page, P);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(binding_makes_an_access),
		TEST(what_it_can_be_attached_to),
		TEST(dma_uses_the_memory_as_it_is_now),
		TEST(replacing_follows),
		TEST(the_rest_of_the_device_is_as_ever),
		TEST(emulated_devices_in_a_container),
		TEST(emulated_devices_in_an_iommufd_group),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
