// SPDX-License-Identifier: MIT
/* Group files and the devices that they give: spec vfio.md 3.1, 3.2, 3.4. */
#include "group_rig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint32_t status(struct group_rig *g, unsigned int which)
{
	struct vfio_group_status s = {.argsz = sizeof(s), .flags = 0xffff};

	assert_int_equal(group_ioctl(g, which, VFIO_GROUP_GET_STATUS, &s), 0);
	return s.flags;
}

static void a_group_is_open_once(void **state)
{
	struct group_rig *g = *state;

	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(group_open(g, 0), -EBUSY);
	assert_int_equal(group_open(g, 1), 0);
	group_close(g, 0);
	assert_int_equal(group_open(g, 0), 0);
}

struct opener {
	struct group_rig *g;
	pthread_t thread;
	int rc;
	bool waits;
};

static void *open_again(void *arg)
{
	struct opener *o = arg;

	o->rc = group_open(o->g, 0);
	return NULL;
}

/* While a device starts, which may take as long as the client likes. */
static void open_meanwhile(void *arg)
{
	struct opener *o = arg;
	struct timespec until;

	assert_int_equal(pthread_create(&o->thread, NULL, open_again, o), 0);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 5;
	o->waits = pthread_timedjoin_np(o->thread, NULL, &until) != 0;
}

static void who_opens_a_group_waits_for_nobody(void **state)
{
	struct group_rig *g = *state;
	struct probe *p = g->devices[MINE]->priv;
	struct opener o = {.g = g};
	struct vfio_file *file;

	group_ready(g, VFIO_TYPE1v2_IOMMU);
	p->on_life_data = &o;
	p->on_open = open_meanwhile;
	assert_int_equal(get_device(g, 0, MINE_BDF, &file), 0);
	if (o.waits)
		pthread_join(o.thread, NULL);
	assert_false(o.waits);
	assert_int_equal(o.rc, -EBUSY);
	vfio_file_close(file);
}

static void groups_and_cdevs_exclude_each_other(void **state)
{
	struct group_rig *g = *state;

	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(rig_bind(&g->r), -EBUSY);
	group_close(g, 0);
	assert_int_equal(rig_bind(&g->r), 0);
	/* Any device of the group, and none of another one. */
	assert_int_equal(group_open(g, 0), -EBUSY);
	assert_int_equal(group_open(g, 1), 0);
	vfio_file_close(g->r.file);
	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(vfio_file_open(g->r.dev, &g->r.file), 0);
}

static void a_refused_open_leaves_cdevs_alone(void **state)
{
	struct group_rig *g = *state;
	struct vfio_file *mine = g->r.file, *mate;

	assert_int_equal(vfio_file_open(g->devices[MATE], &g->r.file), 0);
	assert_int_equal(rig_bind(&g->r), 0);
	assert_int_equal(group_open(g, 0), -EBUSY);
	mate = g->r.file;
	g->r.file = mine;
	assert_int_equal(rig_bind(&g->r), 0);
	vfio_file_close(mate);
}

static void status_tells_who_has_the_group(void **state)
{
	const uint32_t both = VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET;
	static const uint32_t sizes[] = {0, 4, 7};
	struct group_rig *g = *state;
	struct vfio_group_status s;

	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(status(g, 0), VFIO_GROUP_FLAGS_VIABLE);
	assert_int_equal(iommu_group_claim_dma_owner(&g->r.group, g), 0);
	assert_int_equal(status(g, 0), 0);
	iommu_group_release_dma_owner(&g->r.group);
	assert_int_equal(set_container(g, 0, CONTAINER_FD), 0);
	assert_int_equal(status(g, 0), both);
	assert_int_equal(group_ioctl(g, 0, VFIO_GROUP_UNSET_CONTAINER, NULL), 0);
	assert_int_equal(status(g, 0), VFIO_GROUP_FLAGS_VIABLE);
	assert_int_equal(set_container(g, 0, RIG_CTX_FD), 0);
	assert_int_equal(status(g, 0), both);
	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++) {
		s.argsz = sizes[i];
		assert_int_equal(group_ioctl(g, 0, VFIO_GROUP_GET_STATUS, &s), -EINVAL);
	}
	assert_int_equal(group_ioctl(g, 0, VFIO_GROUP_GET_STATUS, NULL), -EFAULT);
}

static void what_a_group_can_be_put_into(void **state)
{
	static const struct {
		int fd;
		long rc, when_set;
	} cases[] = {
		{-1, -EBADF, -EBADF},
		{9999, -EBADF, -EBADF},
		{STDOUT_FILENO, -EBADFD, -EINVAL},
		{GROUP_FD, -EBADFD, -EINVAL},
		{CONTAINER_FD, 0, -EINVAL},
		{RIG_CTX_FD, 0, -EINVAL},
	};
	struct group_rig *g = *state;

	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(group_ioctl(g, 0, VFIO_GROUP_SET_CONTAINER, NULL), -EFAULT);
	assert_int_equal(group_ioctl(g, 0, VFIO_GROUP_UNSET_CONTAINER, NULL), -EINVAL);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(set_container(g, 0, cases[i].fd), cases[i].rc);
		if (cases[i].rc)
			assert_int_equal(set_container(g, 0, CONTAINER_FD), 0);
		assert_int_equal(set_container(g, 0, cases[i].fd), cases[i].when_set);
		assert_int_equal(group_ioctl(g, 0, VFIO_GROUP_UNSET_CONTAINER, NULL), 0);
	}
	assert_int_equal(group_ioctl(g, 0, VFIO_GROUP_UNSET_CONTAINER, NULL), -EINVAL);
	assert_int_equal(group_ioctl(g, 0, VFIO_SET_IOMMU, NULL), -ENOTTY);
	assert_int_equal(group_ioctl(g, 0, VFIO_DEVICE_GET_INFO, NULL), -ENOTTY);
}

static void a_container_owns_the_dma_of_its_groups(void **state)
{
	struct group_rig *g = *state;

	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(iommu_group_claim_dma_owner(&g->r.group, g), 0);
	assert_int_equal(set_container(g, 0, CONTAINER_FD), -EPERM);
	iommu_group_release_dma_owner(&g->r.group);
	assert_int_equal(set_container(g, 0, CONTAINER_FD), 0);
	assert_int_equal(iommu_group_claim_dma_owner(&g->r.group, g), -EPERM);
	group_close(g, 0);
	assert_false(iommu_group_dma_owner_claimed(&g->r.group));
}

static void names_of_devices(void **state)
{
#define UUID "00112233-4455-6677-8899-aAbBcCdDeEfF"
	static const struct {
		const char *name;
		int rc;
	} cases[] = {
		{"", -ENODEV},
		{"0000:5e:00.2", -ENODEV},
		{"0000:5e:00", -ENODEV},
		{MINE_BDF "x", -ENODEV},
		{OTHER_BDF, -ENODEV}, /* of another group */
		{MINE_BDF " nonsense", -EINVAL},
		{MINE_BDF " vf_token=", -EINVAL},
		{MINE_BDF " vf_token=00112233445566778899aabbccddeeff", -EINVAL},
		{MINE_BDF " vf_token=0011223g-4455-6677-8899-aabbccddeeff", -EINVAL},
		{MINE_BDF " vf_token=" UUID " vf_token=" UUID, -EINVAL},
		{MINE_BDF " vf_token=" UUID, -EINVAL}, /* no SR-IOV function */
		{MINE_BDF, 0},
		{MINE_BDF " ", 0},
		{MATE_BDF, 0},
	};
	struct group_rig *g = *state;
	struct vfio_file *file = NULL;
	char *page = rig_pages(3 * 4096);

	group_ready(g, VFIO_TYPE1v2_IOMMU);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		int rc = get_device(g, 0, cases[i].name, &file);

		if (rc != cases[i].rc)
			fail_msg("\"%s\": %d, expected %d", cases[i].name, rc, cases[i].rc);
		if (!rc)
			vfio_file_close(file);
	}
	assert_int_equal(get_device(g, 0, NULL, &file), -EFAULT);
	/* Up to the end of readable memory, and not beyond. */
	memset(page, 'x', 2 * 4096);
	assert_int_equal(get_device(g, 0, page, &file), -EINVAL);
	munmap(page + 4096, 2 * 4096);
	strcpy(page + 4096 - sizeof(MINE_BDF), MINE_BDF);
	assert_int_equal(get_device(g, 0, page + 4096 - sizeof(MINE_BDF), &file), 0);
	vfio_file_close(file);
	page[4095] = 'x';
	assert_int_equal(get_device(g, 0, page + 4096 - sizeof(MINE_BDF), &file), -EFAULT);
	munmap(page, 4096);
}

static void uuids(void **state)
{
	static const struct {
		const char *text;
		bool valid;
	} cases[] = {
		{"00112233-4455-6677-8899-aAbBcCdDeEfF", true},
		{"00112233-4455-6677-8899-aAbBcCdDeEf", false},
		{"00112233-4455-6677-8899-aAbBcCdDeEfF0", false},
		{"00112233x4455-6677-8899-aAbBcCdDeEfF", false},
		{"00112233-4455-6677-8899-aAbBcCdDeEfg", false},
		{"0011223-34455-6677-8899-aAbBcCdDeEfF", false},
		{"", false},
	};
	static const uint8_t expected[16] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
					     0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
	uint8_t uuid[16];

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(vfio_parse_uuid(cases[i].text, strlen(cases[i].text), uuid),
				 cases[i].valid);
	assert_true(vfio_parse_uuid(cases[0].text, 36, uuid));
	assert_memory_equal(uuid, expected, 16);
}

static void a_device_needs_a_container_with_a_type(void **state)
{
	struct group_rig *g = *state;
	struct vfio_file *file = NULL;

	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(get_device(g, 0, MINE_BDF, &file), -EINVAL);
	assert_int_equal(get_device(g, 0, "0000:00:00.0", &file), -ENODEV);
	assert_int_equal(set_container(g, 0, CONTAINER_FD), 0);
	assert_int_equal(get_device(g, 0, MINE_BDF, &file), -EINVAL);
	assert_int_equal(container_ioctl(g, 0, VFIO_SET_IOMMU, (void *)1), 0);
	assert_int_equal(get_device(g, 0, MINE_BDF, &file), 0);
	vfio_file_close(file);
}

static void device_files_are_bound_and_stay_so(void **state)
{
	struct group_rig *g = *state;
	struct vfio_device_bind_iommufd bind = {.argsz = sizeof(bind), .iommufd = RIG_CTX_FD};
	struct vfio_device_attach_iommufd_pt attach = {.argsz = 12, .pt_id = 1};
	struct vfio_device_info info = {.argsz = sizeof(info)};
	struct rig dev;

	rig_for_thread(&dev, &g->r);
	group_ready(g, VFIO_TYPE1v2_IOMMU);
	assert_int_equal(get_device(g, 0, MINE_BDF, &dev.file), 0);
	assert_true(vfio_file_is_bound(dev.file));
	assert_ptr_equal(vfio_file_device(dev.file), g->devices[MINE]);
	rig_expect(&dev, VFIO_DEVICE_GET_INFO, &info, 0);
	assert_int_equal(rig_read(&dev, CONFIG, PCI_VENDOR_ID, 2), 0x1234);
	rig_expect(&dev, VFIO_DEVICE_BIND_IOMMUFD, &bind, -EINVAL);
	rig_expect(&dev, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach, -ENOTTY);
	rig_expect(&dev, VFIO_DEVICE_DETACH_IOMMUFD_PT, &attach, -ENOTTY);
	vfio_file_close(dev.file);
}

static void a_device_runs_from_its_first_to_its_last_file(void **state)
{
	struct group_rig *g = *state;
	struct probe *p = probe_of(&g->r);
	struct vfio_file *one = NULL, *two = NULL, *mate = NULL;

	group_ready(g, VFIO_TYPE1v2_IOMMU);
	assert_int_equal(p->opens, 0);
	assert_int_equal(get_device(g, 0, MINE_BDF, &one), 0);
	assert_int_equal(get_device(g, 0, MINE_BDF, &two), 0);
	assert_int_equal(get_device(g, 0, MATE_BDF, &mate), 0);
	assert_int_equal(p->opens, 1);
	assert_int_equal(group_ioctl(g, 0, VFIO_GROUP_UNSET_CONTAINER, NULL), -EBUSY);
	vfio_file_close(one);
	vfio_file_close(mate);
	assert_int_equal(p->closes, 0);
	assert_int_equal(group_ioctl(g, 0, VFIO_GROUP_UNSET_CONTAINER, NULL), -EBUSY);
	vfio_file_close(two);
	assert_int_equal(p->closes, 1);
	assert_int_equal(group_ioctl(g, 0, VFIO_GROUP_UNSET_CONTAINER, NULL), 0);
}

static void a_device_that_cannot_start_is_not_opened(void **state)
{
	struct group_rig *g = *state;
	struct vfio_file *file = NULL;

	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(set_container(g, 0, RIG_CTX_FD), 0);
	probe_of(&g->r)->fail_open = -EIO;
	assert_int_equal(get_device(g, 0, MINE_BDF, &file), -EIO);
	assert_false(iommu_group_dma_owner_claimed(&g->r.group));
	assert_int_equal(get_device(g, 0, MINE_BDF, &file), 0);
	vfio_file_close(file);
	assert_false(iommu_group_dma_owner_claimed(&g->r.group));
}

static void device_files_keep_the_group_open(void **state)
{
	struct group_rig *g = *state;
	struct vfio_file *file = NULL;
	uint8_t byte = 0, *page = rig_pages(4096);
	struct rig dev;

	rig_for_thread(&dev, &g->r);
	page[0] = 0x5a;
	group_ready(g, VFIO_TYPE1v2_IOMMU);
	assert_int_equal(get_device(g, 0, MINE_BDF, &file), 0);
	assert_int_equal(map_dma(g, page, 4096, 0x10000, RW), 0);
	dev.file = file;
	rig_write(&dev, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	group_close(g, 0);
	vfio_container_put(g->containers[0]);
	g->containers[0] = NULL;
	assert_int_equal(probe_dma(g->r.dev, 0x10000, &byte), 0);
	assert_int_equal(byte, 0x5a);
	assert_int_equal(group_open(g, 0), -EBUSY);
	assert_int_equal(rig_bind(&g->r), -EBUSY);
	vfio_file_close(file);
	assert_int_equal(group_open(g, 0), 0);
	assert_false(iommu_group_dma_owner_claimed(&g->r.group));
	munmap(page, 4096);
}

/* ---- with an iommufd --------------------------------------------------------------------- */

static long iommufd(struct group_rig *g, unsigned int cmd, void *arg)
{
	return swiommu_ioctl(g->r.ctx, &g->r.caller, cmd, (uintptr_t)arg);
}

static long compat_ioas(struct group_rig *g, uint16_t op, uint32_t *id)
{
	struct iommu_vfio_ioas cmd = {.size = sizeof(cmd), .op = op, .ioas_id = *id};
	long rc = iommufd(g, IOMMU_VFIO_IOAS, &cmd);

	*id = cmd.ioas_id;
	return rc;
}

static void an_iommufd_gets_a_compat_ioas(void **state)
{
	struct group_rig *g = *state;
	uint32_t id = 0, mine = g->r.ioas;

	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(compat_ioas(g, IOMMU_VFIO_IOAS_GET, &id), -ENODEV);
	assert_int_equal(set_container(g, 0, RIG_CTX_FD), 0);
	assert_int_equal(compat_ioas(g, IOMMU_VFIO_IOAS_GET, &id), 0);
	assert_int_not_equal(id, mine);
	assert_int_equal(group_ioctl(g, 0, VFIO_GROUP_UNSET_CONTAINER, NULL), 0);
	/* One that is there already is kept. */
	assert_int_equal(compat_ioas(g, IOMMU_VFIO_IOAS_SET, &mine), 0);
	assert_int_equal(set_container(g, 0, RIG_CTX_FD), 0);
	assert_int_equal(compat_ioas(g, IOMMU_VFIO_IOAS_GET, &id), 0);
	assert_int_equal(id, mine);
}

static void a_device_is_attached_to_the_compat_ioas_of_its_first_open(void **state)
{
	struct group_rig *g = *state;
	uint8_t byte = 0, *page = rig_pages(4096);
	uint32_t id = 0, mine = g->r.ioas;
	struct rig dev;

	rig_for_thread(&dev, &g->r);
	page[1] = 0x77;
	rig_map(&g->r, page, 4096, 0x40000, IOMMU_IOAS_MAP_READABLE);
	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(set_container(g, 0, RIG_CTX_FD), 0);
	assert_int_equal(compat_ioas(g, IOMMU_VFIO_IOAS_CLEAR, &id), 0);
	assert_int_equal(get_device(g, 0, MINE_BDF, &dev.file), -ENODEV);
	assert_int_equal(compat_ioas(g, IOMMU_VFIO_IOAS_SET, &mine), 0);
	assert_int_equal(get_device(g, 0, MINE_BDF, &dev.file), 0);
	assert_true(iommu_group_dma_owner_claimed(&g->r.group));
	rig_write(&dev, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	assert_int_equal(probe_dma(g->r.dev, 0x40001, &byte), 0);
	assert_int_equal(byte, 0x77);
	/* Leaving does not take it away from who has the device open. */
	assert_int_equal(group_ioctl(g, 0, VFIO_GROUP_UNSET_CONTAINER, NULL), 0);
	assert_int_equal(probe_dma(g->r.dev, 0x40001, &byte), 0);
	vfio_file_close(dev.file);
	assert_false(iommu_group_dma_owner_claimed(&g->r.group));
	munmap(page, 4096);
}

static void memory_errors_appear_when_the_device_is_opened(void **state)
{
	struct group_rig *g = *state;
	uint8_t *page = rig_pages(4096);
	struct vfio_file *file = NULL;
	uint32_t mine = g->r.ioas;

	rig_map(&g->r, page, 4096, 0x40000, IOMMU_IOAS_MAP_READABLE);
	munmap(page, 4096);
	assert_int_equal(compat_ioas(g, IOMMU_VFIO_IOAS_SET, &mine), 0);
	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(set_container(g, 0, RIG_CTX_FD), 0);
	assert_int_equal(get_device(g, 0, MINE_BDF, &file), -EFAULT);
	assert_false(iommu_group_dma_owner_claimed(&g->r.group));
	rig_unmap(&g->r, 0x40000, 4096);
	assert_int_equal(get_device(g, 0, MINE_BDF, &file), 0);
	vfio_file_close(file);
}

static void a_context_without_iommu_cannot_be_used(void **state)
{
	struct group_rig *g = *state;

	assert_int_equal(iommufd_vfio_compat_set_no_iommu(g->r.ctx), 0);
	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(set_container(g, 0, RIG_CTX_FD), -EINVAL);
	assert_int_equal(status(g, 0), VFIO_GROUP_FLAGS_VIABLE);
}

static void mates_share_an_iommufd(void **state)
{
	struct group_rig *g = *state;
	struct vfio_file *one = NULL, *two = NULL;

	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(set_container(g, 0, RIG_CTX_FD), 0);
	assert_int_equal(get_device(g, 0, MINE_BDF, &one), 0);
	assert_int_equal(get_device(g, 0, MATE_BDF, &two), 0);
	vfio_file_close(one);
	vfio_file_close(two);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, group_rig_setup, group_rig_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(a_group_is_open_once),
		TEST(who_opens_a_group_waits_for_nobody),
		TEST(groups_and_cdevs_exclude_each_other),
		TEST(a_refused_open_leaves_cdevs_alone),
		TEST(status_tells_who_has_the_group),
		TEST(what_a_group_can_be_put_into),
		TEST(a_container_owns_the_dma_of_its_groups),
		TEST(names_of_devices),
		cmocka_unit_test(uuids),
		TEST(a_device_needs_a_container_with_a_type),
		TEST(device_files_are_bound_and_stay_so),
		TEST(a_device_runs_from_its_first_to_its_last_file),
		TEST(a_device_that_cannot_start_is_not_opened),
		TEST(device_files_keep_the_group_open),
		TEST(an_iommufd_gets_a_compat_ioas),
		TEST(a_device_is_attached_to_the_compat_ioas_of_its_first_open),
		TEST(memory_errors_appear_when_the_device_is_opened),
		TEST(a_context_without_iommu_cannot_be_used),
		TEST(mates_share_an_iommufd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
