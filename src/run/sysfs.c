// SPDX-License-Identifier: MIT
/*
 * What /sys tells of our devices, in the places where VFIO programs look (spec vfio.md 1.2 and 1.3):
 * the devices themselves, their IOMMU groups, the driver they seem bound to, and the kernel modules
 * that would be behind it.
 *
 * Files that scripts write to, in order to bind devices to vfio-pci, take anything and do nothing:
 * our devices are bound already, and those of the host are not the program's to rebind.
 */
#include "run/sysfs.h"

#include <stdio.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define DEVICES "/sys/bus/pci/devices"
#define DRIVER "/sys/bus/pci/drivers/vfio-pci"
#define GROUPS "/sys/kernel/iommu_groups"
#define MODULES "/sys/module"

#define CONFIG_MAX 4096

static void add_attributes(struct graft *g, const struct session_device *d, const char *dir)
{
	char text[2048], config[CONFIG_MAX];
	const char *name;
	size_t size;

	for (unsigned int i = 0; (name = vfio_device_attribute_name(i)); i++)
		if (!vfio_device_attribute(d->dev, name, text, sizeof(text)))
			graft_text(g, vfio_device_attribute_mode(i), text, "%s/%s", dir, name);
	size = vfio_device_config(d->dev, config, sizeof(config));
	graft_file(g, 0644, config, SWI_MIN(size, sizeof(config)), "%s/config", dir);
}

static void add_device(struct graft *g, const struct session_device *d)
{
	char dir[64], text[64];

	snprintf(dir, sizeof(dir), DEVICES "/%s", d->place.bdf);
	graft_dir(g, "%s", dir);
	add_attributes(g, d, dir);
	graft_link(g, "/sys/bus/pci", "%s/subsystem", dir);
	graft_link(g, DRIVER, "%s/driver", dir);
	graft_link(g, dir, DRIVER "/%s", d->place.bdf);
	snprintf(text, sizeof(text), GROUPS "/%u", d->group->group.id);
	graft_link(g, text, "%s/iommu_group", dir);
	graft_dir(g, "%s/vfio-dev", dir);
	graft_dir(g, "%s/vfio-dev/%s", dir, d->name);
	snprintf(text, sizeof(text), "%u:%u\n", major(d->rdev), minor(d->rdev));
	graft_text(g, 0444, text, "%s/vfio-dev/%s/dev", dir, d->name);
	graft_link(g, dir, "%s/vfio-dev/%s/device", dir, d->name);
	snprintf(text, sizeof(text), GROUPS "/%u/devices", d->group->group.id);
	graft_link(g, dir, "%s/%s", text, d->place.bdf);
}

/* A physical function and its virtual ones show each other. */
static void add_functions(struct graft *g, const struct session *s)
{
	for (size_t i = 0; i < s->nr_devices; i++) {
		const char *pf = s->devices[i].place.bdf;
		char text[64];
		unsigned int n = 0;

		for (size_t k = 0; k < s->nr_devices; k++) {
			const char *vf = s->devices[k].place.bdf;

			if (vfio_device_pf(s->devices[k].dev) != s->devices[i].dev)
				continue;
			snprintf(text, sizeof(text), DEVICES "/%s", vf);
			graft_link(g, text, DEVICES "/%s/virtfn%u", pf, n++);
			snprintf(text, sizeof(text), DEVICES "/%s", pf);
			graft_link(g, text, DEVICES "/%s/physfn", vf);
		}
		snprintf(text, sizeof(text), "%u\n", n);
		if (n)
			graft_text(g, 0444, text, DEVICES "/%s/sriov_totalvfs", pf);
		if (n)
			graft_text(g, 0444, text, DEVICES "/%s/sriov_numvfs", pf);
	}
}

static void add_groups(struct graft *g, const struct session *s)
{
	for (size_t i = 0; i < s->nr_groups; i++) {
		unsigned int id = s->groups[i].group.id;

		graft_dir(g, GROUPS "/%u", id);
		graft_dir(g, GROUPS "/%u/devices", id);
		if (s->groups[i].guarded)
			graft_text(g, 0444, "vfio-noiommu\n", GROUPS "/%u/name", id);
		else
			graft_text(g, 0644, "DMA\n", GROUPS "/%u/type", id);
	}
}

static void add_driver(struct graft *g)
{
	static const char *const files[] = {"bind", "unbind", "new_id", "remove_id"};

	graft(g, DRIVER);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		graft_text(g, 0200, "", DRIVER "/%s", files[i]);
	/* Without it the host has no PCI, and /sys/bus/pci is ours. */
	if (access("/sys/bus/pci/drivers_probe", F_OK))
		graft_text(g, 0200, "", "/sys/bus/pci/drivers_probe");
	else
		graft_over(g, DRIVER "/bind", "/sys/bus/pci/drivers_probe");
}

/* By it programs know whether to look for devices without an IOMMU. */
#define NOIOMMU_MODE "enable_unsafe_noiommu_mode"

/* Of a module that the host has loaded. */
static void replace_parameter(struct graft *g, const char *text)
{
	graft(g, MODULES "/vfio/parameters");
	graft_text(g, 0644, text, MODULES "/vfio/parameters/" NOIOMMU_MODE);
}

/* Those that the kernel would have loaded, if it has not. */
static void add_modules(struct graft *g, const struct session *s)
{
	static const char *const names[] = {"vfio", "vfio_iommu_type1", "vfio_pci", "vfio_pci_core",
					    "iommufd"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char dir[64];

		snprintf(dir, sizeof(dir), MODULES "/%s", names[i]);
		if (!access(dir, F_OK)) {
			if (!i && s->noiommu)
				replace_parameter(g, "Y\n");
			continue;
		}
		graft(g, dir);
		graft_text(g, 0444, "live\n", "%s/initstate", dir);
		graft_dir(g, "%s/parameters", dir);
		if (!i)
			graft_text(g, 0644, s->noiommu ? "Y\n" : "N\n",
				   "%s/parameters/" NOIOMMU_MODE, dir);
	}
}

void sysfs_build(struct graft *g, const struct session *s)
{
	graft(g, DEVICES);
	graft(g, GROUPS);
	add_driver(g);
	add_modules(g, s);
	add_groups(g, s);
	for (size_t i = 0; i < s->nr_devices; i++)
		add_device(g, &s->devices[i]);
	add_functions(g, s);
	/* By it the kernel's selftests would look for our mappings in the host's page tables. */
	if (!access("/sys/kernel/debug/iommu/intel", F_OK))
		graft_empty(g, "/sys/kernel/debug/iommu");
}
