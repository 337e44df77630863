// SPDX-License-Identifier: MIT
/* What a host asks of a device without a client: models, sysfs attributes (spec vfio.md 1.2),
 * sizes. */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

static void models_are_listed(void **state)
{
	unsigned int n = 0;

	(void)state;
	for (; vfio_model_at(n); n++) {
		const struct vfio_model *m = vfio_model_at(n);

		assert_ptr_equal(vfio_model_find(vfio_model_name(m)), m);
		assert_true(vfio_model_summary(m)[0]);
		assert_null(strchr(vfio_model_summary(m), '\n'));
		assert_non_null(vfio_model_options(m));
	}
	assert_true(n > 0);
	assert_null(vfio_model_at(UINT32_MAX));
	assert_null(vfio_model_find("nothing"));
	assert_null(vfio_model_find(""));
}

static void attributes(void **state)
{
	static const struct {
		const char *name, *text;
	} expected[] = {
		{"vendor", "0x1234\n"},
		{"device", "0x5678\n"},
		{"subsystem_vendor", "0x9abc\n"},
		{"subsystem_device", "0xdef0\n"},
		{"class", "0xff0102\n"},
		{"revision", "0x42\n"},
		{"irq", "0\n"},
		{"numa_node", "-1\n"},
		{"driver_override", "(null)\n"},
		{"modalias", "pci:v00001234d00005678sv00009ABCsd0000DEF0bcFFsc01i02\n"},
		{"uevent", "DRIVER=vfio-pci\nPCI_CLASS=FF0102\nPCI_ID=1234:5678\n"
			   "PCI_SUBSYS_ID=9ABC:DEF0\nPCI_SLOT_NAME=0000:5e:00.0\n"
			   "MODALIAS=pci:v00001234d00005678sv00009ABCsd0000DEF0bcFFsc01i02\n"},
		{"enable", "0\n"},
		{"reset_method", "flr\n"},
		{"resource", "0x0000000083000000 0x000000008300ffff 0x0000000000040200\n"
			     "0x0000000083010000 0x000000008301000f 0x0000000000040200\n"
			     "0x0000383000000000 0x0000383000ffffff 0x0000000000142200\n"
			     "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
			     "0x0000000000001300 0x000000000000131f 0x0000000000000100\n"
			     "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
			     "0x0000000083011000 0x00000000830117ff 0x0000000000044200\n"
			     "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
			     "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
			     "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
			     "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
			     "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
			     "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"},
	};
	struct rig rig;
	char buf[1024];
	unsigned int n = 0;

	(void)state;
	rig_open(&rig, &probe_model, "");
	for (unsigned int i = 0; i < ARRAY_SIZE(expected); i++) {
		assert_int_equal(vfio_device_attribute(rig.dev, expected[i].name, buf, sizeof(buf)),
				 0);
		assert_string_equal(buf, expected[i].text);
		/* Exactly large enough, and one too small. */
		assert_int_equal(vfio_device_attribute(rig.dev, expected[i].name, buf,
						       strlen(expected[i].text) + 1),
				 0);
		assert_int_equal(vfio_device_attribute(rig.dev, expected[i].name, buf,
						       strlen(expected[i].text)),
				 -ENOSPC);
	}
	for (; vfio_device_attribute_name(n); n++)
		assert_int_equal(vfio_device_attribute(rig.dev, vfio_device_attribute_name(n), buf,
						       sizeof(buf)),
				 0);
	assert_int_equal(n, ARRAY_SIZE(expected));
	assert_int_equal(vfio_device_attribute(rig.dev, "nothing", buf, sizeof(buf)), -ENOENT);
	rig_close(&rig);
}

static void config_is_what_a_client_finds(void **state)
{
	uint8_t shown[4096], found[4096];
	struct rig rig;

	(void)state;
	rig_bound(&rig, &probe_model, "");
	assert_int_equal(vfio_device_config(rig.dev, shown, sizeof(shown)), 4096);
	assert_int_equal(rig_try_read(&rig, CONFIG, 0, found, 0x200), 0x200);
	assert_memory_equal(shown, found, 0x200);
	shown[0] = 0x55;
	assert_int_equal(vfio_device_config(rig.dev, shown, 0), 4096);
	assert_int_equal(shown[0], 0x55);
	rig_close(&rig);
}

static void region_sizes(void **state)
{
	static const uint64_t sizes[] = {0x10000, 16, 16 << 20, 0, 32, 0, 2048, 4096, 0, 0};
	struct rig rig;

	(void)state;
	rig_open(&rig, &probe_model, "");
	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++)
		assert_int_equal(vfio_device_region_size(rig.dev, i), sizes[i]);
	assert_int_equal(vfio_device_region_size(rig.dev, UINT32_MAX), 0);
	rig_close(&rig);
}

/* Every kind of BAR, over many devices: no two overlap. */
static void addresses_are_unique(void **state)
{
	struct {
		uint64_t start, end;
	} ranges[100 * 7];
	unsigned int n = 0;

	(void)state;
	for (unsigned int index = 0; index < 100; index++) {
		struct vfio_device_place place = {.bdf = "0000:00:01.0", .index = index};
		struct vfio_device *dev;
		char buf[1024], *line = buf;

		assert_int_equal(vfio_device_create(&probe_model, &place, "", &dev, NULL), 0);
		assert_int_equal(vfio_device_attribute(dev, "resource", buf, sizeof(buf)), 0);
		for (unsigned int i = 0; i < 7; i++, line = strchr(line, '\n') + 1) {
			unsigned long long start, end;

			assert_int_equal(sscanf(line, "%llx %llx", &start, &end), 2);
			if (!end)
				continue;
			assert_int_equal(start % (end - start + 1), 0);
			ranges[n].start = start;
			ranges[n++].end = end;
		}
		vfio_device_destroy(dev);
	}
	for (unsigned int i = 0; i < n; i++)
		for (unsigned int k = 0; k < i; k++)
			assert_true(ranges[i].end < ranges[k].start ||
				    ranges[k].end < ranges[i].start);
}

/* Whether the model can be made with the nth allocation failing; false: there are not so many. */
static bool fails_at(const struct vfio_model *model, unsigned int nth)
{
	struct vfio_device_place place = {.bdf = "0000:00:01.0"};
	struct swi_reason why = {""};
	struct vfio_device *dev = NULL;
	int rc;

	swi_alloc_fail_nth(nth);
	rc = vfio_device_create(model, &place, "", &dev, &why);
	if (swi_alloc_fail_nth(0)) {
		assert_int_equal(rc, 0);
		vfio_device_destroy(dev);
		return false;
	}
	assert_int_equal(rc, -ENOMEM);
	assert_true(why.text[0]);
	return true;
}

static void creation_survives_lack_of_memory(void **state)
{
	const struct vfio_model *model;

	(void)state;
	for (unsigned int n = 0; (model = vfio_model_at(n)); n++) {
		unsigned int nth = 1;

		/* It needs a server: tests/vfio-user. */
		if (model == &vfio_model_user)
			continue;
		while (fails_at(model, nth))
			assert_in_range(nth++, 1, 50);
		assert_in_range(nth, 4, 50);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(models_are_listed),
		cmocka_unit_test(attributes),
		cmocka_unit_test(config_is_what_a_client_finds),
		cmocka_unit_test(region_sizes),
		cmocka_unit_test(addresses_are_unique),
		cmocka_unit_test(creation_survives_lack_of_memory),
	};

	return cmocka_run_group_tests_name("vfio_device", tests, NULL, NULL);
}
