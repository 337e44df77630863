// SPDX-License-Identifier: MIT
/*
 * Device models in shared objects: the example, which is compiled with nothing but the public header, and objects
 * that must be refused. They are named on the command line, the example first.
 */
#include "rig.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define IOVA 0x40000000ull
#define LENGTH (4u << 20)

static char **paths;

static void the_example_works(void **state)
{
	const struct vfio_model *model = NULL;
	struct swi_reason why = {""};
	int32_t efd = rig_eventfd();
	uint32_t expected = 0;
	struct rig rig;
	uint8_t *mem;

	(void)state;
	if (vfio_model_load(paths[1], &model, &why))
		fail_msg("%s", why.text);
	rig_ready(&rig, model, "");
	mem = rig_pages(LENGTH);
	rig_map(&rig, mem, LENGTH, IOVA, IOMMU_IOAS_MAP_READABLE);
	assert_int_equal(rig_arm(&rig, VFIO_PCI_MSI_IRQ_INDEX, 0, 1, &efd), 0);
	for (unsigned int i = 0; i < 10001; i++) {
		mem[3 + i] = (uint8_t)(i * 7);
		expected += mem[3 + i];
	}
	assert_int_equal(rig_read(&rig, 0, 0xc, 4), UINT32_MAX);
	rig_write(&rig, 0, 0, 8, IOVA + 3);
	rig_write(&rig, 0, 8, 4, 10001);
	assert_int_equal(rig_wait(efd), 1);
	assert_int_equal(rig_read(&rig, 0, 0xc, 4), expected);
	assert_int_equal(rig_read(&rig, 0, 0, 8), IOVA + 3);
	assert_int_equal(rig_read(&rig, 0, 8, 8), 10001 | (uint64_t)expected << 32);
	/* Not mapped. */
	rig_write(&rig, 0, 0, 8, IOVA + LENGTH);
	rig_write(&rig, 0, 8, 4, 1);
	while (!rig.faults)
		sched_yield();
	/* In the middle of it. */
	rig_write(&rig, 0, 0, 8, IOVA);
	rig_write(&rig, 0, 8, 4, LENGTH);
	rig_expect(&rig, VFIO_DEVICE_RESET, NULL, 0);
	assert_int_equal(rig_read(&rig, 0, 8, 8), (uint64_t)UINT32_MAX << 32);
	rig_close(&rig);
	munmap(mem, LENGTH);
	close(efd);
}

static void others_are_refused(void **state)
{
	static const struct {
		unsigned int path;
		int rc;
		const char *why;
	} cases[] = {
		{2, -EINVAL, "SWIOMMU_MODEL"},
		{3, -EINVAL, "version 2"},
		{4, -EINVAL, "incomplete"},
		{0, -ENOENT, "/"}, /* this program */
	};
	const struct vfio_model *model = NULL;
	struct swi_reason why = {""};

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		why.text[0] = '\0';
		assert_int_equal(vfio_model_load(paths[cases[i].path], &model, &why), cases[i].rc);
		if (!strstr(why.text, cases[i].why))
			fail_msg("%s: %s", paths[cases[i].path], why.text);
		assert_null(model);
	}
	assert_int_equal(vfio_model_load("/nonexistent.so", &model, &why), -ENOENT);
	assert_non_null(strstr(why.text, "/nonexistent.so"));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_example_works),
		cmocka_unit_test(others_are_refused),
	};

	if (argc != 5)
		return 2;
	paths = argv;
	return cmocka_run_group_tests_name("vfio_load", tests, NULL, NULL);
}
