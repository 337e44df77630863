// SPDX-License-Identifier: MIT
/* VF tokens, by BIND, by the group and by DEVICE_FEATURE: spec vfio.md 2.3 step 7, 3.2, 4.6. */
#include "group_rig.h"

#include <errno.h>
#include <string.h>

static struct group_rig rig;

/* MINE is the physical function, MATE and EXTRA are virtual ones of it, OTHER is neither. */
static int setup(void **state)
{
	group_rig_open(&rig, 0);
	vfio_device_set_pf(rig.devices[MATE], rig.devices[MINE]);
	vfio_device_set_pf(rig.devices[EXTRA], rig.devices[MINE]);
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	group_rig_close(*state);
	return 0;
}

static const uint8_t one[16] = {0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x33, 0x33,
				0x44, 0x44, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55};
static const uint8_t two[16] = {2};
#define ONE_TEXT " vf_token=11111111-2222-3333-4444-555555555555"

/* Opens the cdev and binds it, giving a token or none; the file stays open on success. */
static long bind_with(struct group_rig *g, unsigned int which, const void *token, struct rig *dev)
{
	struct vfio_device_bind_iommufd bind = {.argsz = sizeof(bind),
						.flags = token ? VFIO_DEVICE_BIND_FLAG_TOKEN : 0,
						.iommufd = RIG_CTX_FD,
						.token_uuid_ptr = (uintptr_t)token};
	long rc;

	rig_for_thread(dev, &g->r);
	dev->ops.get_ctx = g->rig_get_ctx;
	assert_int_equal(vfio_file_open(g->devices[which], &dev->file), 0);
	rc = rig_ioctl(dev, VFIO_DEVICE_BIND_IOMMUFD, &bind);
	assert_int_equal(dev->caller.reason[0] != '\0', rc < 0);
	if (rc)
		vfio_file_close(dev->file);
	return rc;
}

static long set_token(struct rig *dev, const uint8_t *token)
{
	struct {
		uint32_t argsz, flags;
		uint8_t token[16];
	} u = {.argsz = sizeof(u),
	       .flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PCI_VF_TOKEN};

	memcpy(u.token, token, 16);
	return rig_ioctl(dev, VFIO_DEVICE_FEATURE, &u);
}

static void virtual_functions_need_the_token(void **state)
{
	struct group_rig *g = *state;
	struct rig pf, vf, other;

	/* Nobody knows the first one. */
	assert_int_equal(bind_with(g, MATE, NULL, &vf), -EACCES);
	assert_int_equal(bind_with(g, MATE, one, &vf), -EACCES);
	assert_int_equal(bind_with(g, MATE, (void *)8, &vf), -EFAULT);
	assert_int_equal(bind_with(g, OTHER, one, &other), -EINVAL);
	assert_int_equal(bind_with(g, OTHER, (void *)8, &other), -EINVAL);
	assert_int_equal(bind_with(g, MINE, NULL, &pf), 0);
	assert_int_equal(set_token(&pf, one), 0);
	assert_int_equal(bind_with(g, MATE, NULL, &vf), -EACCES);
	assert_int_equal(bind_with(g, MATE, two, &vf), -EACCES);
	assert_int_equal(bind_with(g, MATE, one, &vf), 0);
	assert_int_equal(set_token(&vf, one), -ENOTTY);
	vfio_file_close(vf.file);
	vfio_file_close(pf.file);
}

static void the_first_to_open_the_physical_one_sets_it(void **state)
{
	struct group_rig *g = *state;
	struct rig pf, vf;

	assert_int_equal(bind_with(g, MINE, one, &pf), 0);
	assert_int_equal(bind_with(g, MATE, one, &vf), 0);
	vfio_file_close(pf.file);
	/* While a virtual one is open, who opens the physical one must know it. */
	assert_int_equal(bind_with(g, MINE, NULL, &pf), -EACCES);
	assert_int_equal(bind_with(g, MINE, two, &pf), -EACCES);
	assert_int_equal(bind_with(g, MINE, one, &pf), 0);
	vfio_file_close(pf.file);
	vfio_file_close(vf.file);
	assert_int_equal(bind_with(g, MINE, two, &pf), 0);
	assert_int_equal(bind_with(g, MATE, one, &vf), -EACCES);
	assert_int_equal(bind_with(g, MATE, two, &vf), 0);
	vfio_file_close(vf.file);
	vfio_file_close(pf.file);
	assert_int_equal(bind_with(g, MINE, NULL, &pf), 0);
	vfio_file_close(pf.file);
}

static void a_bind_that_fails_leaves_no_user(void **state)
{
	struct group_rig *g = *state;
	struct probe *p = g->devices[MATE]->priv;
	struct rig pf, vf;

	assert_int_equal(bind_with(g, MINE, one, &pf), 0);
	vfio_file_close(pf.file);
	p->fail_open = -EIO;
	assert_int_equal(bind_with(g, MATE, one, &vf), -EIO);
	assert_int_equal(iommu_group_claim_dma_owner(&g->r.group, &rig), 0);
	assert_int_equal(bind_with(g, MATE, one, &vf), -EPERM);
	iommu_group_release_dma_owner(&g->r.group);
	assert_int_equal(bind_with(g, MINE, two, &pf), 0);
	vfio_file_close(pf.file);
}

static void by_the_group(void **state)
{
	struct group_rig *g = *state;
	struct vfio_file *pf = NULL, *vf = NULL, *again = NULL;

	group_ready(g, VFIO_TYPE1v2_IOMMU);
	assert_int_equal(get_device(g, 0, MATE_BDF, &vf), -EACCES);
	assert_int_equal(get_device(g, 0, MATE_BDF ONE_TEXT, &vf), -EACCES);
	assert_int_equal(get_device(g, 0, MINE_BDF ONE_TEXT, &pf), 0);
	assert_int_equal(get_device(g, 0, MATE_BDF, &vf), -EACCES);
	assert_int_equal(get_device(g, 0, MATE_BDF ONE_TEXT, &vf), 0);
	assert_int_equal(get_device(g, 0, MATE_BDF, &again), -EACCES);
	vfio_file_close(pf);
	assert_int_equal(get_device(g, 0, MINE_BDF, &pf), -EACCES);
	vfio_file_close(vf);
	assert_int_equal(get_device(g, 0, MINE_BDF, &pf), 0);
	vfio_file_close(pf);
}

static void the_feature(void **state)
{
	static const struct {
		uint32_t argsz, flags;
		long rc;
	} cases[] = {
		{24, VFIO_DEVICE_FEATURE_GET, -EINVAL},
		{8, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PROBE, 0},
		{24, 0, -EINVAL},
		{23, VFIO_DEVICE_FEATURE_SET, -EINVAL},
		{24, VFIO_DEVICE_FEATURE_SET, 0},
	};
	struct group_rig *g = *state;
	struct rig pf;

	assert_int_equal(bind_with(g, MINE, NULL, &pf), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t u[6] = {cases[i].argsz, cases[i].flags};

		rig_expect(&pf, VFIO_DEVICE_FEATURE, u, cases[i].rc);
	}
	vfio_file_close(pf.file);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(virtual_functions_need_the_token),
		TEST(the_first_to_open_the_physical_one_sets_it),
		TEST(a_bind_that_fails_leaves_no_user),
		TEST(by_the_group),
		TEST(the_feature),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
