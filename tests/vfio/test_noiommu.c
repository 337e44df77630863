// SPDX-License-Identifier: MIT
/*
 * Devices without an IOMMU: bound through the cdev, where DMA goes by the addresses that GET_PA tells, and opened through
 * their group, where it goes nowhere. Device OTHER is one, in a group of its own.
 */
#include "group_rig.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/pci_regs.h>
#include <sys/mman.h>

#define P 4096ull

static struct group_rig rig;
static struct rig dev; /* a client of OTHER */
static bool is_capable;

static bool capable(struct swiommu_caller *c, int cap)
{
	(void)c;
	return is_capable && cap == CAP_SYS_RAWIO;
}

static int setup(void **state)
{
	is_capable = true;
	group_rig_open_noiommu(&rig);
	rig.r.ops.capable = capable;
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

static long iommufd(struct group_rig *g, unsigned int cmd, void *arg)
{
	return swiommu_ioctl(g->r.ctx, &g->r.caller, cmd, (uintptr_t)arg);
}

static uint64_t get_pa(struct group_rig *g, uint64_t iova)
{
	struct iommu_ioas_noiommu_get_pa cmd = {
		.size = sizeof(cmd), .ioas_id = g->r.ioas, .iova = iova, .length = 1};

	assert_int_equal(iommufd(g, IOMMU_IOAS_NOIOMMU_GET_PA, &cmd), 0);
	return cmd.out_phys;
}

static struct vfio_dma *dma_of(struct group_rig *g)
{
	return &((struct probe *)g->devices[OTHER]->priv)->dma;
}

static void start_master(struct rig *r)
{
	rig_write(r, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
}

/* ---- the cdev ---------------------------------------------------------------------------- */

static void only_some_may_open_it(void **state)
{
	struct group_rig *g = *state;

	assert_int_equal(vfio_device_may_open(g->devices[OTHER], &g->r.caller), 0);
	is_capable = false;
	assert_int_equal(vfio_device_may_open(g->devices[OTHER], &g->r.caller), -EPERM);
	assert_true(g->r.caller.reason[0]);
	assert_int_equal(vfio_device_may_open(g->devices[MINE], &g->r.caller), 0);
}

static void bound_it_moves_memory_by_physical_addresses(void **state)
{
	struct group_rig *g = *state;
	uint8_t byte = 0, *page = rig_pages(2 * P);
	uint64_t pa;

	page[P + 5] = 0x15;
	rig_map(&g->r, page, 2 * P, 0x10000, IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE);
	assert_int_equal(rig_bind(&dev), 0);
	start_master(&dev);
	assert_int_equal(vfio_dma_read(dma_of(g), 0x11005, &byte, 1), -ENXIO);
	assert_int_equal(rig_attach(&dev, &(uint32_t){g->r.ioas}), 0);
	pa = get_pa(g, 0x11005);
	assert_int_equal(vfio_dma_read(dma_of(g), pa, &byte, 1), 0);
	assert_int_equal(byte, 0x15);
	byte = 0x16;
	assert_int_equal(vfio_dma_write(dma_of(g), get_pa(g, 0x10000), &byte, 1), 0);
	assert_int_equal(page[0], 0x16);
	assert_int_equal(vfio_dma_read(dma_of(g), 0x11005, &byte, 1), -ENOENT);
	rig_unmap(&g->r, 0x10000, 2 * P);
	assert_int_equal(vfio_dma_read(dma_of(g), pa, &byte, 1), -ENOENT);
	munmap(page, 2 * P);
}

static void what_it_has_not(void **state)
{
	struct group_rig *g = *state;
	struct vfio_device_attach_iommufd_pt pasid = {
		.argsz = 16, .flags = VFIO_DEVICE_ATTACH_PASID, .pt_id = g->r.ioas, .pasid = 1};
	struct vfio_device_bind_iommufd other = {.argsz = sizeof(other), .iommufd = RIG_CTX_FD + 1};
	struct iommu_hw_info info = {.size = sizeof(info)};

	/* A context that is not for such devices. */
	rig_expect(&dev, VFIO_DEVICE_BIND_IOMMUFD, &other, -EINVAL);
	assert_int_equal(rig_bind(&dev), 0);
	info.dev_id = dev.devid;
	assert_int_equal(iommufd(g, IOMMU_GET_HW_INFO, &info), -EOPNOTSUPP);
	rig_expect(&dev, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &pasid, -EOPNOTSUPP);
	assert_false(iommu_group_dma_owner_claimed(&g->other_group));
	assert_int_equal(group_open(g, 1), -EBUSY);
}

/* ---- the container ----------------------------------------------------------------------- */

static void extensions(void **state)
{
	/* Of a container that is empty, has a group with an IOMMU, or one without. */
	static const struct {
		unsigned long extension;
		bool capable;
		long empty, with, without;
	} rows[] = {
		{VFIO_TYPE1_IOMMU, true, 1, 1, 0},    {VFIO_TYPE1v2_IOMMU, true, 1, 1, 0},
		{VFIO_UNMAP_ALL, true, 1, 1, 0},      {VFIO_NOIOMMU_IOMMU, true, 1, 0, 1},
		{VFIO_NOIOMMU_IOMMU, false, 0, 0, 0}, {VFIO_DMA_CC_IOMMU, true, 0, 0, 0},
		{VFIO_UPDATE_VADDR, true, 0, 0, 0},   {VFIO_TYPE1_IOMMU, false, 1, 1, 0},
	};
	struct group_rig *g = *state;

	for (unsigned int step = 0; step < 3; step++) {
		if (step)
			assert_int_equal(group_open(g, step - 1), 0);
		if (step)
			assert_int_equal(set_container(g, step - 1, CONTAINER_FD), 0);
		for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
			is_capable = rows[i].capable;
			assert_int_equal(container_ioctl(g, 0, VFIO_CHECK_EXTENSION,
							 (void *)rows[i].extension),
					 step == 0   ? rows[i].empty
					 : step == 1 ? rows[i].with
						     : rows[i].without);
		}
		is_capable = true;
		if (step)
			group_close(g, step - 1);
	}
}

static void groups_of_both_kinds_do_not_mix(void **state)
{
	struct group_rig *g = *state;

	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(group_open(g, 1), 0);
	assert_int_equal(set_container(g, 0, CONTAINER_FD), 0);
	assert_int_equal(set_container(g, 1, CONTAINER_FD), -EPERM);
	assert_int_equal(container_ioctl(g, 0, VFIO_SET_IOMMU, (void *)VFIO_NOIOMMU_IOMMU),
			 -ENODEV);
	assert_int_equal(group_ioctl(g, 0, VFIO_GROUP_UNSET_CONTAINER, NULL), 0);
	is_capable = false;
	assert_int_equal(set_container(g, 1, CONTAINER_FD), -EPERM);
	is_capable = true;
	assert_int_equal(set_container(g, 1, CONTAINER_FD), 0);
	assert_int_equal(set_container(g, 0, CONTAINER_FD), -EPERM);
	assert_int_equal(container_ioctl(g, 0, VFIO_SET_IOMMU, (void *)VFIO_TYPE1_IOMMU), -ENODEV);
	assert_int_equal(container_ioctl(g, 0, VFIO_SET_IOMMU, (void *)VFIO_TYPE1v2_IOMMU),
			 -ENODEV);
	assert_int_equal(container_ioctl(g, 0, VFIO_SET_IOMMU, (void *)VFIO_NOIOMMU_IOMMU), 0);
	/* Without a group it is as new. */
	assert_int_equal(group_ioctl(g, 1, VFIO_GROUP_UNSET_CONTAINER, NULL), 0);
	assert_int_equal(set_container(g, 0, CONTAINER_FD), 0);
	assert_int_equal(container_ioctl(g, 0, VFIO_SET_IOMMU, (void *)VFIO_TYPE1_IOMMU), 0);
}

static void a_container_of_type_8(void **state)
{
	struct group_rig *g = *state;
	struct vfio_group_status status = {.argsz = sizeof(status)};
	struct vfio_file *file = NULL;
	uint8_t byte, *page = rig_pages(P);
	uint64_t size = P;

	assert_int_equal(group_open(g, 1), 0);
	assert_int_equal(rig_bind(&dev), -EBUSY);
	assert_int_equal(group_ioctl(g, 1, VFIO_GROUP_GET_STATUS, &status), 0);
	assert_int_equal(status.flags, VFIO_GROUP_FLAGS_VIABLE);
	assert_int_equal(set_container(g, 1, CONTAINER_FD), 0);
	assert_int_equal(group_ioctl(g, 1, VFIO_GROUP_GET_STATUS, &status), 0);
	assert_int_equal(status.flags, VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET);
	assert_int_equal(get_device(g, 1, OTHER_BDF, &file), -EINVAL);
	assert_int_equal(map_dma(g, page, P, 0x10000, RW), -EINVAL);
	is_capable = false;
	assert_int_equal(container_ioctl(g, 0, VFIO_SET_IOMMU, (void *)VFIO_NOIOMMU_IOMMU),
			 -ENODEV);
	is_capable = true;
	assert_int_equal(container_ioctl(g, 0, VFIO_SET_IOMMU, (void *)VFIO_NOIOMMU_IOMMU), 0);
	assert_int_equal(container_ioctl(g, 0, VFIO_SET_IOMMU, (void *)VFIO_NOIOMMU_IOMMU),
			 -EINVAL);
	assert_int_equal(map_dma(g, page, P, 0x10000, RW), -ENOTTY);
	assert_int_equal(unmap_dma(g, 0x10000, &size, 0), -ENOTTY);
	is_capable = false;
	assert_int_equal(get_device(g, 1, OTHER_BDF, &file), -EPERM);
	is_capable = true;
	assert_int_equal(get_device(g, 1, OTHER_BDF, &file), 0);
	assert_int_equal(group_ioctl(g, 1, VFIO_GROUP_UNSET_CONTAINER, NULL), -EBUSY);
	vfio_file_close(dev.file);
	dev.file = file;
	start_master(&dev);
	assert_int_equal(vfio_dma_read(dma_of(g), (uintptr_t)page, &byte, 1), -ENXIO);
	assert_int_equal(vfio_dma_write(dma_of(g), 0, &byte, 1), -ENXIO);
	assert_int_equal(group_ioctl(g, 1, VFIO_GROUP_UNSET_CONTAINER, NULL), -EBUSY);
	munmap(page, P);
}

/* ---- an iommufd in place of a container -------------------------------------------------- */

static long compat(struct group_rig *g, uint16_t op)
{
	struct iommu_vfio_ioas cmd = {.size = sizeof(cmd), .op = op, .ioas_id = g->r.ioas};

	return iommufd(g, IOMMU_VFIO_IOAS, &cmd);
}

static long compat_type(struct group_rig *g, unsigned int cmd, uint64_t type)
{
	return swiommu_ioctl(g->r.ctx, &g->r.caller, cmd, type);
}

static void a_context_becomes_one_without_iommu(void **state)
{
	struct group_rig *g = *state;
	struct vfio_file *file = NULL;
	uint8_t byte;

	assert_int_equal(group_open(g, 1), 0);
	assert_int_equal(compat(g, IOMMU_VFIO_IOAS_SET), 0);
	assert_int_equal(compat_type(g, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU), -EINVAL);
	assert_int_equal(set_container(g, 1, RIG_CTX_FD), -EINVAL);
	assert_int_equal(compat(g, IOMMU_VFIO_IOAS_CLEAR), 0);
	assert_int_equal(compat_type(g, VFIO_CHECK_EXTENSION, VFIO_TYPE1_IOMMU), 1);
	assert_int_equal(set_container(g, 1, RIG_CTX_FD), 0);
	assert_int_equal(compat_type(g, VFIO_CHECK_EXTENSION, VFIO_TYPE1_IOMMU), 0);
	assert_int_equal(compat_type(g, VFIO_CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU), 1);
	assert_int_equal(compat_type(g, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU), -EINVAL);
	assert_int_equal(compat_type(g, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU), 0);
	is_capable = false;
	assert_int_equal(compat_type(g, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU), -EPERM);
	assert_int_equal(get_device(g, 1, OTHER_BDF, &file), -EPERM);
	is_capable = true;
	/* A compat IOAS can still be set; then the device is not for it. */
	assert_int_equal(compat(g, IOMMU_VFIO_IOAS_SET), 0);
	assert_int_equal(get_device(g, 1, OTHER_BDF, &file), -EPERM);
	assert_int_equal(compat(g, IOMMU_VFIO_IOAS_CLEAR), 0);
	assert_int_equal(get_device(g, 1, OTHER_BDF, &file), 0);
	vfio_file_close(dev.file);
	dev.file = file;
	start_master(&dev);
	assert_int_equal(vfio_dma_read(dma_of(g), 0x10000, &byte, 1), -ENXIO);
	/* The mode is the context's for good: not for groups with an IOMMU. */
	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(set_container(g, 0, RIG_CTX_FD), -EINVAL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(only_some_may_open_it),
		TEST(bound_it_moves_memory_by_physical_addresses),
		TEST(what_it_has_not),
		TEST(extensions),
		TEST(groups_of_both_kinds_do_not_mix),
		TEST(a_container_of_type_8),
		TEST(a_context_becomes_one_without_iommu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
