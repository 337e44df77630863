/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VFIO_DEVICE_H
#define SWIOMMU_VFIO_DEVICE_H

/*
 * A VFIO device as the front end sees it: made from a model and options, opened as a cdev, closed.
 *
 *   vfio_device   one emulated PCI function, from the launch of a session to its end
 *   vfio_file     one open of its node /dev/vfio/devices/vfioN; at most one at a time is bound
 *
 * Spec: vfio.md 2 and 4.
 */

#include "base/base.h"
#include "base/log.h"
#include "base/reason.h"

#include <swiommu/driver.h>
#include <swiommu/swiommu.h>

struct vfio_device;
struct vfio_file;
struct vfio_model;

/* What is known of a device apart from its model's own options. */
struct vfio_device_place {
	char bdf[13];		   /* "dddd:bb:dd.f", lower case */
	bool multifunction;	   /* the slot has other functions */
	unsigned int index;	   /* N of vfioN */
	struct iommu_group *group; /* borrowed; outlives the device */
	const struct swi_log *log; /* borrowed; may be NULL */
	bool emulated; /* its DMA is software's use of an IOAS, as of a mediated device; no IOMMU is involved */
	bool noiommu;  /* there is none in front of it, and it is the only device of its group */
};

/* The built-in model of that name; NULL when there is none. */
const struct vfio_model *vfio_model_find(const char *name);
/*
 * The model in the shared object at `path`, which contains a '/'. Its code runs in this process. -ENOENT: cannot be loaded,
 * -EINVAL: is none, or one for another version; with a reason.
 */
int vfio_model_load(const char *path, const struct vfio_model **out, struct swi_reason *why);
/* All of them in a fixed order: index 0, 1, ... until NULL. */
const struct vfio_model *vfio_model_at(unsigned int index);
const char *vfio_model_name(const struct vfio_model *model);
const char *vfio_model_summary(const struct vfio_model *model); /* one line */
const char *
vfio_model_options(const struct vfio_model *model); /* "key=VALUE (what)" lines, or "" */

/* The option that MODEL:VALUE sets; NULL: none. */
const char *vfio_model_main_option(const struct vfio_model *model);

/*
 * Makes a device. `options` is "key=value,key=value" of the model's own keys (bdf= already taken
 * out); unknown keys and bad values: -EINVAL with a reason. -ENOMEM.
 */
int vfio_device_create(const struct vfio_model *model, const struct vfio_device_place *place,
		       const char *options, struct vfio_device **out, struct swi_reason *why);
/*
 * Makes `vf` a virtual function of `pf`, which is none itself, while neither is open. Only VFIO's rules for the two are
 * meant, its VF tokens; what the devices do is their models' matter.
 */
void vfio_device_set_pf(struct vfio_device *vf, struct vfio_device *pf);
struct vfio_device *vfio_device_pf(const struct vfio_device *dev); /* NULL: it is none */
/* Whether clients' private memory had better be put into files before it is mapped for this device. */
bool vfio_device_prefers_files(const struct vfio_device *dev);
/* All files must have been closed. */
void vfio_device_destroy(struct vfio_device *dev);

const struct vfio_device_place *vfio_device_place(const struct vfio_device *dev);
/* Size in bytes of region `index` (vfio.md 4.1), 0 if absent or out of range. */
uint64_t vfio_device_region_size(const struct vfio_device *dev, unsigned int index);
/*
 * What backs a client's mapping of a BAR, by ranges. The page at the end of a BAR that is smaller than a page counts as a
 * whole.
 */
enum vfio_area_kind {
	VFIO_AREA_TRAPPED, /* nothing: each access is a vfio_file_pread() or _pwrite() */
	VFIO_AREA_PAGES,   /* memory that the model looks at too */
};
struct vfio_area {
	uint64_t offset, length; /* in the region */
	enum vfio_area_kind kind;
	/* Of PAGES: the file to map, borrowed, and where. -1: the device's own node, at index << 40 | offset. */
	int fd;
	uint64_t fd_offset;
};
/* The area that contains `offset`. -EINVAL: outside of the region, or nothing of it can ever be mapped. */
int vfio_region_area(const struct vfio_device *dev, unsigned int index, uint64_t offset,
		     struct vfio_area *out);
/* Whether the device has PAGES at all. */
bool vfio_device_has_pages(const struct vfio_device *dev);
/*
 * From now on the device's pages are those of `fd` (duplicated), its node: a file of memory open for reading and writing,
 * which is made long enough. Before, they are in a file of the device's own. No client may have it open.
 * -ENOSPC, -EMFILE, -ENOMEM and others: nothing has changed.
 */
int vfio_device_set_node(struct vfio_device *dev, int fd);
/*
 * Text of one attribute file of /sys/bus/pci/devices/BDF (vfio.md 1.2): "vendor", "class",
 * "resource"..., with its newline, into buf. -ENOENT: not an attribute of this device.
 */
int vfio_device_attribute(const struct vfio_device *dev, const char *name, char *buf, size_t size);
/* Names of those attributes: index 0, 1, ... until NULL. */
const char *vfio_device_attribute_name(unsigned int index);
/* And the modes of their files: 0444 or 0644. */
unsigned int vfio_device_attribute_mode(unsigned int index);
/*
 * The binary attribute "config": configuration space as it is when nobody has the device open.
 * Copies at most `size` bytes; returns how many it has (256 or 4096).
 */
size_t vfio_device_config(const struct vfio_device *dev, void *buf, size_t size);

/* What the device has done so far; for reports. */
struct vfio_device_stats {
	uint64_t dma_read_bytes, dma_write_bytes, dma_faults, interrupts;
};
void vfio_device_get_stats(const struct vfio_device *dev, struct vfio_device_stats *out);

/*
 * The group's file is being opened (-EBUSY: the device is bound through its cdev) and is closed
 * again. While it is open, BIND fails with EBUSY. To be called for every device of the group.
 */
int vfio_device_group_open(struct vfio_device *dev);
void vfio_device_group_close(struct vfio_device *dev);
/* Asks the client to give the device back: signals the REQ interrupt if armed. May be repeated. */
void vfio_device_request(struct vfio_device *dev);

/*
 * Whether the caller may open the device's node, or that of its group: -EPERM, with a reason, for a device without an
 * IOMMU and a caller without CAP_SYS_RAWIO. To be asked by the host before vfio_file_open() and vfio_group_file_open().
 */
long vfio_device_may_open(const struct vfio_device *dev, struct swiommu_caller *caller);

/* ---- an open of the cdev ----------------------------------------------------------------- */

/* Any number may be open. -ENOMEM. */
int vfio_file_open(struct vfio_device *dev, struct vfio_file **out);
/*
 * The last reference to the open file is gone: quiesces and resets the device, detaches, unbinds.
 * Waits for DMA in progress. No other call on the file may run or follow.
 */
void vfio_file_close(struct vfio_file *file);
/*
 * ioctl, pread, pwrite on the file, on behalf of `caller`: what the system call would return, or a
 * negative errno with caller->reason. `uptr` is in the caller's memory. Any thread; calls on one
 * file may run concurrently.
 */
long vfio_file_ioctl(struct vfio_file *file, struct swiommu_caller *caller, unsigned int cmd,
		     uint64_t arg);
ssize_t vfio_file_pread(struct vfio_file *file, struct swiommu_caller *caller, uint64_t uptr,
			size_t count, uint64_t pos);
ssize_t vfio_file_pwrite(struct vfio_file *file, struct swiommu_caller *caller, uint64_t uptr,
			 size_t count, uint64_t pos);
/*
 * Whether mmap(length, prot, flags, offset) on the file is to be allowed: 0 (the caller then maps what
 * vfio_region_area() says) or the errno that mmap gives. Arguments as of mmap(2). Trapped pages can be mapped by callers
 * with can_trap only, and PROT_NONE.
 */
int vfio_file_mmap(struct vfio_file *file, struct swiommu_caller *caller, uint64_t length, int prot,
		   int flags, uint64_t offset);
struct vfio_device *vfio_file_device(const struct vfio_file *file);
/* Whether BIND_IOMMUFD has succeeded on it, or a group has given it. */
bool vfio_file_is_bound(struct vfio_file *file);

#endif
