// SPDX-License-Identifier: MIT
/* Hot reset of a slot, by both kinds of device files: spec vfio.md 4.5. */
#include "group_rig.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

struct info {
	struct {
		uint32_t argsz, flags, count;
	} head;
	struct vfio_pci_dependent_device devices[4];
};

static struct info get_info(struct rig *dev)
{
	struct info info;

	memset(&info, 0xee, sizeof(info));
	info.head.argsz = sizeof(info);
	rig_expect(dev, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &info, 0);
	assert_int_equal(info.head.argsz, sizeof(info));
	return info;
}

/* The entry of a function; fails if there is none. */
static uint32_t entry(const struct info *info, uint8_t bus, uint8_t devfn)
{
	for (uint32_t i = 0; i < info->head.count; i++)
		if (info->devices[i].bus == bus && info->devices[i].devfn == devfn &&
		    !info->devices[i].segment)
			return info->devices[i].devid;
	fail();
	return 0;
}

static long hot_reset(struct rig *dev, uint32_t count, const int32_t *fds)
{
	struct {
		struct {
			uint32_t argsz, flags, count;
		} head;
		int32_t fds[8];
	} u = {.head = {.argsz = sizeof(u), .count = count}};

	if (fds)
		memcpy(u.fds, fds, count * sizeof(*fds));
	return rig_ioctl(dev, VFIO_DEVICE_PCI_HOT_RESET, &u);
}

static unsigned int resets(struct group_rig *g, unsigned int which)
{
	struct probe *p = g->devices[which]->priv;

	return p->resets;
}

/* The client opens the cdev of a device and binds it to a context. */
static void bind_cdev(struct group_rig *g, unsigned int which, int fd, struct rig *dev)
{
	struct vfio_device_bind_iommufd bind = {.argsz = sizeof(bind), .iommufd = fd};

	rig_for_thread(dev, &g->r);
	dev->ops.get_ctx = g->rig_get_ctx;
	assert_int_equal(vfio_file_open(g->devices[which], &dev->file), 0);
	rig_expect(dev, VFIO_DEVICE_BIND_IOMMUFD, &bind, 0);
	dev->devid = bind.out_devid;
}

static void who_owns_the_functions_of_a_slot(void **state)
{
	const uint32_t both = VFIO_PCI_HOT_RESET_FLAG_DEV_ID | VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED;
	struct group_rig *g = *state;
	struct rig mine, mate, other, extra;
	struct info info;

	bind_cdev(g, MINE, RIG_CTX_FD, &mine);
	info = get_info(&mine);
	assert_int_equal(info.head.count, 2);
	assert_int_equal(info.head.flags, both);
	assert_int_equal(entry(&info, 0x5e, 0), mine.devid);
	assert_int_equal(entry(&info, 0x5e, 1), VFIO_PCI_DEVID_OWNED);
	bind_cdev(g, MATE, RIG_CTX_FD, &mate);
	info = get_info(&mine);
	assert_int_equal(entry(&info, 0x5e, 1), mate.devid);
	/* In the other slot there is a device of a group that is nobody's yet. */
	bind_cdev(g, EXTRA, RIG_CTX_FD, &extra);
	info = get_info(&extra);
	assert_int_equal(info.head.flags, VFIO_PCI_HOT_RESET_FLAG_DEV_ID);
	assert_int_equal(entry(&info, 0x5e, 0x0b), extra.devid);
	assert_int_equal(entry(&info, 0x5e, 0x08), (uint32_t)VFIO_PCI_DEVID_NOT_OWNED);
	assert_int_equal(hot_reset(&extra, 0, NULL), -EINVAL);
	/* Then somebody else's, then ours. */
	bind_cdev(g, OTHER, RIG_CTX_FD + 1, &other);
	info = get_info(&extra);
	assert_int_equal(entry(&info, 0x5e, 0x08), (uint32_t)VFIO_PCI_DEVID_NOT_OWNED);
	assert_int_equal(hot_reset(&extra, 0, NULL), -EINVAL);
	vfio_file_close(other.file);
	bind_cdev(g, OTHER, RIG_CTX_FD, &other);
	info = get_info(&extra);
	assert_int_equal(info.head.flags, both);
	assert_int_equal(entry(&info, 0x5e, 0x08), other.devid);
	assert_int_equal(hot_reset(&extra, 0, NULL), 0);
	vfio_file_close(mine.file);
	vfio_file_close(mate.file);
	vfio_file_close(other.file);
	vfio_file_close(extra.file);
}

static void too_little_room_is_told(void **state)
{
	static const uint32_t sizes[] = {12, 20, 27};
	struct group_rig *g = *state;
	struct info info;
	struct rig mine;

	bind_cdev(g, MINE, RIG_CTX_FD, &mine);
	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++) {
		memset(&info, 0xee, sizeof(info));
		info.head.argsz = sizes[i];
		rig_expect(&mine, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &info, -ENOSPC);
		assert_int_equal(info.head.count, 2);
		assert_int_equal(info.devices[0].devid, 0xeeeeeeee);
	}
	vfio_file_close(mine.file);
}

static void a_context_resets_what_it_owns(void **state)
{
	struct group_rig *g = *state;
	unsigned int before[NR_DEVICES];
	int32_t fds[] = {GROUP_FD};
	struct rig mine;

	bind_cdev(g, MINE, RIG_CTX_FD, &mine);
	for (unsigned int i = 0; i < NR_DEVICES; i++)
		before[i] = resets(g, i);
	assert_int_equal(hot_reset(&mine, 1, fds), -EINVAL);
	assert_int_equal(resets(g, MINE), before[MINE]);
	assert_int_equal(hot_reset(&mine, 0, NULL), 0);
	assert_int_equal(resets(g, MINE), before[MINE] + 1);
	assert_int_equal(resets(g, MATE), before[MATE] + 1);
	assert_int_equal(resets(g, EXTRA), before[EXTRA]);
	vfio_file_close(mine.file);
}

/* A hot reset by one function of the slot, while another one is being opened or closed. */
struct meeting {
	struct group_rig *g;
	struct rig *by;
	pthread_t thread;
	long rc;
	bool met; /* the model was reset in the middle */
};

static void *reset_thread(void *arg)
{
	struct meeting *m = arg;

	m->rc = hot_reset(m->by, 0, NULL);
	return NULL;
}

/* In open or close of MATE: gives the reset plenty of time to come, which it must not. */
static void invite(void *arg)
{
	struct meeting *m = arg;
	unsigned int before = resets(m->g, MATE);

	assert_int_equal(pthread_create(&m->thread, NULL, reset_thread, m), 0);
	for (unsigned int i = 0; i < 100 && resets(m->g, MATE) == before; i++)
		usleep(1000);
	m->met = resets(m->g, MATE) != before;
}

static void models_are_not_reset_while_they_open_or_close(void **state)
{
	struct group_rig *g = *state;
	struct probe *p = g->devices[MATE]->priv;
	struct meeting m = {.g = g};
	struct rig mine, mate;

	bind_cdev(g, MINE, RIG_CTX_FD, &mine);
	m.by = &mine;
	p->on_life_data = &m;
	p->on_open = invite;
	bind_cdev(g, MATE, RIG_CTX_FD, &mate);
	pthread_join(m.thread, NULL);
	assert_int_equal(m.rc, 0);
	assert_false(m.met);
	p->on_close = invite;
	vfio_file_close(mate.file);
	pthread_join(m.thread, NULL);
	assert_int_equal(m.rc, 0);
	assert_false(m.met);
	vfio_file_close(mine.file);
}

static void groups_prove_ownership_by_their_files(void **state)
{
	static const struct {
		uint32_t count;
		int32_t fds[3];
		long rc;
	} cases[] = {
		{0, {0}, -EINVAL},
		{3, {GROUP_FD, GROUP_FD + 1, GROUP_FD}, -EINVAL}, /* more than devices */
		{1, {9999}, -EBADF},
		{1, {-1}, -EBADF},
		{1, {STDOUT_FILENO}, -EINVAL},
		{1, {CONTAINER_FD}, -EINVAL},
		{2, {GROUP_FD, 9999}, -EBADF},
		{1, {GROUP_FD}, -EINVAL},     /* of two groups */
		{1, {GROUP_FD + 1}, -EINVAL}, /* the other */
		{2, {GROUP_FD, GROUP_FD}, -EINVAL},
		{2, {GROUP_FD, GROUP_FD + 1}, 0},
	};
	struct group_rig *g = *state;
	struct info info;
	struct rig dev;

	rig_for_thread(&dev, &g->r);
	group_ready(g, VFIO_TYPE1v2_IOMMU);
	assert_int_equal(group_open(g, 1), 0);
	assert_int_equal(get_device(g, 0, EXTRA_BDF, &dev.file), 0);
	info = get_info(&dev);
	assert_int_equal(info.head.flags, 0);
	assert_int_equal(info.head.count, 2);
	assert_int_equal(entry(&info, 0x5e, 0x0b), 5);
	assert_int_equal(entry(&info, 0x5e, 0x08), 6);
	/* The client must be one whose descriptors the rig knows. */
	vfio_file_close(g->r.file);
	g->r.file = dev.file;
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned int extra = resets(g, EXTRA), other = resets(g, OTHER);
		long rc = hot_reset(&g->r, cases[i].count, cases[i].fds);

		if (rc != cases[i].rc)
			fail_msg("case %u: %ld, expected %ld (%s)", i, rc, cases[i].rc,
				 g->r.caller.reason);
		assert_int_equal(resets(g, EXTRA), extra + !rc);
		assert_int_equal(resets(g, OTHER), other + !rc);
	}
	vfio_file_close(g->r.file);
	assert_int_equal(vfio_file_open(g->r.dev, &g->r.file), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, group_rig_setup, group_rig_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(who_owns_the_functions_of_a_slot),
		TEST(too_little_room_is_told),
		TEST(a_context_resets_what_it_owns),
		TEST(models_are_not_reset_while_they_open_or_close),
		TEST(groups_prove_ownership_by_their_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
