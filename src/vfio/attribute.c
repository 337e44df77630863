// SPDX-License-Identifier: MIT
/*
 * The attribute files of /sys/bus/pci/devices/BDF as text (spec vfio.md 1.2).
 *
 * A table of name and printer. Each printer writes into a bounded stream and cannot fail; a buffer
 * that is too small is an error of the host, reported as -ENOSPC.
 */
#include "vfio/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Flags of `resource` lines: the kernel's resource flags, as sysfs shows them. */
#define RES_IO 0x100u
#define RES_MEMORY 0x200u
#define RES_PREFETCH 0x2000u
#define RES_READONLY 0x4000u
#define RES_SIZEALIGN 0x40000u
#define RES_64BIT 0x100000u

#define NR_RESOURCES 13

struct text {
	char *buf;
	size_t size, used;
};

SWI_PRINTF(2, 3) static void put(struct text *t, const char *fmt, ...)
{
	size_t room = t->used < t->size ? t->size - t->used : 0;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(room ? t->buf + t->used : NULL, room, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->used += (size_t)n;
}

static void put_vendor(const struct vfio_device *dev, struct text *t)
{
	put(t, "0x%04x\n", dev->id.vendor);
}

static void put_device(const struct vfio_device *dev, struct text *t)
{
	put(t, "0x%04x\n", dev->id.device);
}

static void put_subsystem_vendor(const struct vfio_device *dev, struct text *t)
{
	put(t, "0x%04x\n", dev->id.subsystem_vendor);
}

static void put_subsystem_device(const struct vfio_device *dev, struct text *t)
{
	put(t, "0x%04x\n", dev->id.subsystem_device);
}

static void put_class(const struct vfio_device *dev, struct text *t)
{
	put(t, "0x%06x\n", dev->id.class_code);
}

static void put_revision(const struct vfio_device *dev, struct text *t)
{
	put(t, "0x%02x\n", dev->id.revision);
}

static void put_irq(const struct vfio_device *dev, struct text *t)
{
	(void)dev;
	put(t, "0\n");
}

static void put_numa_node(const struct vfio_device *dev, struct text *t)
{
	(void)dev;
	put(t, "-1\n");
}

static void put_driver_override(const struct vfio_device *dev, struct text *t)
{
	(void)dev;
	put(t, "(null)\n");
}

/* How often it is enabled: vfio-pci does so only while a client has it open. */
static void put_enable(const struct vfio_device *dev, struct text *t)
{
	(void)dev;
	put(t, "0\n");
}

static void put_modalias(const struct vfio_device *dev, struct text *t)
{
	const struct vfio_pci_id *id = &dev->id;

	put(t, "pci:v%08Xd%08Xsv%08Xsd%08Xbc%02Xsc%02Xi%02X\n", id->vendor, id->device,
	    id->subsystem_vendor, id->subsystem_device, (id->class_code >> 16) & 0xff,
	    (id->class_code >> 8) & 0xff, id->class_code & 0xff);
}

static void put_resource(const struct vfio_device *dev, struct text *t)
{
	for (unsigned int i = 0; i < NR_RESOURCES; i++) {
		const struct vfio_region *r = i < VFIO_NR_MODEL_REGIONS ? &dev->regions[i] : NULL;
		uint64_t flags;

		if (!r || !r->size) {
			put(t, "0x%016x 0x%016x 0x%016x\n", 0, 0, 0);
			continue;
		}
		flags = r->flags & VFIO_BAR_IO ? RES_IO : RES_MEMORY | RES_SIZEALIGN;
		flags |= r->flags & VFIO_BAR_64BIT ? RES_64BIT : 0;
		flags |= r->flags & VFIO_BAR_PREFETCH ? RES_PREFETCH : 0;
		flags |= i == VFIO_ROM ? RES_READONLY : 0;
		put(t, "0x%016llx 0x%016llx 0x%016llx\n", (unsigned long long)r->address,
		    (unsigned long long)(r->address + r->size - 1), (unsigned long long)flags);
	}
}

static void put_reset_method(const struct vfio_device *dev, struct text *t)
{
	put(t, dev->has_flr ? "flr\n" : dev->has_reset ? "device_specific\n" : "\n");
}

static void put_uevent(const struct vfio_device *dev, struct text *t)
{
	const struct vfio_pci_id *id = &dev->id;

	put(t, "DRIVER=vfio-pci\nPCI_CLASS=%X\nPCI_ID=%04X:%04X\nPCI_SUBSYS_ID=%04X:%04X\n",
	    id->class_code, id->vendor, id->device, id->subsystem_vendor, id->subsystem_device);
	put(t, "PCI_SLOT_NAME=%s\nMODALIAS=", dev->place.bdf);
	put_modalias(dev, t);
}

static const struct {
	const char *name;
	void (*put)(const struct vfio_device *dev, struct text *t);
	bool writable;
} attributes[] = {
	{"vendor", put_vendor, false},
	{"device", put_device, false},
	{"subsystem_vendor", put_subsystem_vendor, false},
	{"subsystem_device", put_subsystem_device, false},
	{"class", put_class, false},
	{"revision", put_revision, false},
	{"irq", put_irq, false},
	{"numa_node", put_numa_node, true},
	{"resource", put_resource, false},
	{"driver_override", put_driver_override, true},
	{"modalias", put_modalias, false},
	{"uevent", put_uevent, true},
	{"enable", put_enable, true},
	{"reset_method", put_reset_method, true},
};

const char *vfio_device_attribute_name(unsigned int index)
{
	return index < ARRAY_SIZE(attributes) ? attributes[index].name : NULL;
}

unsigned int vfio_device_attribute_mode(unsigned int index)
{
	return index < ARRAY_SIZE(attributes) && attributes[index].writable ? 0644 : 0444;
}

int vfio_device_attribute(const struct vfio_device *dev, const char *name, char *buf, size_t size)
{
	struct text t = {buf, size, 0};

	for (unsigned int i = 0; i < ARRAY_SIZE(attributes); i++) {
		if (strcmp(attributes[i].name, name))
			continue;
		attributes[i].put(dev, &t);
		return t.used < size ? 0 : -ENOSPC;
	}
	return -ENOENT;
}

size_t vfio_device_config(const struct vfio_device *dev, void *buf, size_t size)
{
	memcpy(buf, dev->config.init, SWI_MIN(size, dev->config.size));
	return dev->config.size;
}
