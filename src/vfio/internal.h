/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VFIO_INTERNAL_H
#define SWIOMMU_VFIO_INTERNAL_H

/*
 * State of a VFIO device, shared by the files of this folder only.
 *
 * Locks, outer before inner. None is held while client memory or a client's fd table is accessed.
 *
 *   life         who has the device: owner, group_users. Short.
 *   attach       attach, replace, detach and what they set. Held while the engine pins memory.
 *   reset        one reset at a time, and none while the model opens or closes. Held while it stops its DMA.
 *   irqs.setup   one SET_IRQS at a time. Held while the thread of an unmask eventfd is started or joined.
 *   config.lock  bytes of the configuration space. Short; register accesses take it.
 *   irqs.lock    what signalling an interrupt looks at. Short; models take it from their threads.
 *
 * life, attach, reset and irqs.setup are never held together. What a register access must know
 * about the configuration space without its lock is kept in atomic copies: decoding, bus_master.
 */

#include "base/base.h"
#include "base/list.h"
#include "base/log.h"
#include "base/rbtree.h"
#include "mem/guard.h"
#include "vfio/device.h"
#include "vfio/model.h"

#include <pthread.h>
#include <stdatomic.h>
#include <linux/vfio.h>
#include <swiommu/iommufd.h>

#define VFIO_NR_BARS 6
#define VFIO_ROM 6
#define VFIO_NR_MODEL_REGIONS 7 /* BARs and ROM */
#define VFIO_CONFIG_MAX 4096u

#define VFIO_NR_AREAS 8 /* of pages, in one BAR */

struct vfio_region {
	uint64_t size; /* 0: absent */
	unsigned int flags;
	uint64_t address; /* what the BAR holds at open, and `resource` shows */
	struct vfio_pages {
		uint64_t offset, length;
		char *host;
		struct mem_guard_range guard;
	} pages[VFIO_NR_AREAS]; /* ascending, not adjacent */
	unsigned int nr_pages;
	/* Pages of other files, likewise. */
	struct vfio_file_pages {
		uint64_t offset, length;
		int fd; /* borrowed from the model */
		uint64_t fd_offset;
	} file_pages[VFIO_NR_AREAS];
	unsigned int nr_file_pages;
};

/* Configuration space; see config.c. Everything but bytes is constant once the device is made. */
struct vfio_config {
	pthread_mutex_t lock;
	unsigned int size;
	uint8_t init[VFIO_CONFIG_MAX];
	uint8_t writable[VFIO_CONFIG_MAX];
	uint8_t write1clear[VFIO_CONFIG_MAX];
	uint8_t bytes[VFIO_CONFIG_MAX]; /* guarded by lock */

	/* Where capabilities are; 0 = absent. */
	unsigned int pm, exp, msi, msix;
	/* For the builders: where the next capability goes, and which pointer will point to it. */
	unsigned int next_cap, link, next_ext, ext_link;

	/* A bit for each byte that is the model's. */
	uint8_t hooked[VFIO_CONFIG_MAX / 8];
};

/* Bits of vfio_device.decoding. */
#define VFIO_DECODE_MEMORY 1u
#define VFIO_DECODE_IO 2u

/* Interrupts; see irq.c. */
struct vfio_irqs {
	pthread_mutex_t setup;
	pthread_mutex_t lock;

	/* Written with both locks held. */
	_Atomic int type; /* index of INTx, MSI or MSI-X; -1 none */
	int *vectors;	  /* eventfds of MSI or MSI-X, owned; -1 none; nr_max of them */
	unsigned int nr_max;
	unsigned int nr_allocated;
	int intx, err, req; /* eventfds, owned; -1 none */

	/* Guarded by lock. */
	bool asserted; /* level of the INTx line */
	bool pulse;    /* it falls by itself when it has fired */
	bool masked;   /* INTx: by MASK or because it fired */
	bool disabled; /* INTx: COMMAND.INTX_DISABLE */

	/* Guarded by setup: the thread that waits for the unmask eventfd; -1 = there is none. */
	pthread_t unmask_thread;
	int unmask, unmask_stop;
};

struct vfio_file;
struct vfio_group;
struct vfio_group_file;

struct vfio_device {
	const struct vfio_model *model;
	void *priv;
	struct vfio_device_place place;
	struct device device; /* as the engine sees it */
	struct vfio_pci_id id;
	struct vfio_region regions[VFIO_NR_MODEL_REGIONS];
	int pages_fd;	    /* owned: where the pages are; -1: there are none */
	bool pages_in_node; /* it is the client's node, not a file of our own */
	bool has_flr;
	bool has_reset; /* DEVICE_RESET works */
	unsigned int msi_vectors, msix_vectors;
	unsigned int msix_bar;
	uint64_t msix_table;

	/* First error of a builder during create(). */
	int build_error;
	struct swi_reason build_reason;

	struct vfio_config config;
	struct vfio_irqs irqs;
	_Atomic unsigned int decoding;
	_Atomic bool bus_master;
	_Atomic bool told_bus_master; /* that DMA failed for want of it */
	_Atomic bool told_physical;   /* that DMA failed as noiommu.c says */

	pthread_mutex_t life;
	struct vfio_file *owner; /* bound, or in the middle of bind */
	unsigned int group_users;

	struct vfio_group *vgroup; /* NULL: it can only be opened as a cdev; constant */
	struct list in_group;	   /* in vgroup->devices; constant */
	/* Device files that the group has given, and whether the first one bound the device; group's lock. */
	unsigned int group_opens;
	bool group_bound;

	/* SR-IOV, see token.c: the physical function of a virtual one, and how many of those this one has. Constant. */
	struct vfio_device *pf;
	unsigned int nr_vfs;
	pthread_mutex_t token_lock; /* of a physical function; a leaf */
	uint8_t vf_token[16];	    /* token_lock */
	unsigned int vf_users;	    /* opens of its virtual functions; token_lock */

	/* What its writes to memory are logged in; NULL: they are not. See dma_log.c; under the lock. */
	pthread_rwlock_t dma_log_lock;
	struct vfio_dma_log *_Atomic dma_log;
	struct vfio_ioeventfds *ioeventfds; /* NULL until one is set; see ioeventfd.c; life */

	/*
	 * From bind to close; written by who has the device: the owner, or its group or container, with `reset` held,
	 * so that others can look at it there.
	 */
	struct iommufd_device *idev;
	/* The same for an emulated device, which has these instead; see emulated.c. */
	struct iommufd_access *access;
	struct iommufd_ctx *access_ctx; /* whose it is; kept by it */

	pthread_mutex_t attach;
	struct rb_tree attachments; /* struct vfio_attachment, by PASID; attach */
	uint64_t attach_count;	    /* attaches so far; attach */

	pthread_mutex_t reset;

	struct {
		_Atomic uint64_t dma_read_bytes, dma_write_bytes, dma_faults, interrupts;
	} stats;
};

struct vfio_file {
	struct vfio_device *dev;
	_Atomic bool bound;
	struct vfio_group_file *group; /* that gave it, counted; NULL: an open of the cdev */
};

/* Stores the reason of a failed call in the caller and returns `err`. */
long vfio_fail(struct swiommu_caller *caller, long err, const char *fmt, ...) SWI_PRINTF(3, 4);
/* Copies an argument in once; -EFAULT with a reason. */
long vfio_copy_in(struct swiommu_caller *caller, void *dst, uint64_t uptr, size_t len,
		  const char *what);
long vfio_copy_out(struct swiommu_caller *caller, uint64_t uptr, const void *src, size_t len,
		   const char *what);

/*
 * Copies a struct's first `min` bytes in, which begin with its argsz; -EINVAL: that is less. The rest
 * of `dst` stays.
 */
long vfio_get_min(struct swiommu_caller *caller, void *dst, uint64_t arg, uint32_t min,
		  const char *what);

/* device.c */
/* The device becomes active, after BIND; and inactive, before it is unbound. */
int vfio_device_start(struct vfio_device *dev);
void vfio_device_stop(struct vfio_device *dev);
/* -EAGAIN: a reset is going on (only with wait == false). */
int vfio_device_reset(struct vfio_device *dev, bool wait);
/* A builder was misused: the device will not be made. */
void vfio_build_fail(struct vfio_device *dev, const char *fmt, ...) SWI_PRINTF(2, 3);

/* config.c */
int vfio_config_init(struct vfio_device *dev);
void vfio_config_fini(struct vfio_device *dev);
void vfio_config_finish(struct vfio_device *dev); /* after create(): header from id and regions */
void vfio_config_start(struct vfio_device *dev);  /* to the state at open */
void vfio_config_stop(struct vfio_device *dev);	  /* bus master off */
/* [pos, pos+len) lies inside the space. 0 or a negative errno of a hook. */
int vfio_config_read(struct vfio_device *dev, unsigned int pos, uint8_t *buf, size_t len);
int vfio_config_write(struct vfio_device *dev, unsigned int pos, const uint8_t *buf, size_t len);

/* pages.c */
int vfio_pages_init(struct vfio_device *dev); /* after create(): makes them */
void vfio_pages_fini(struct vfio_device *dev);
void vfio_pages_start(
	struct vfio_device *dev); /* puts back what an earlier client has taken away */
/* The pages that contain `offset`; NULL: none. */
const struct vfio_pages *vfio_pages_find(const struct vfio_region *r, uint64_t offset);
/* A natural access of `size` bytes at `offset` of them. */
void vfio_pages_access(const struct vfio_pages *p, uint64_t offset, uint8_t *buf, unsigned int size,
		       bool write);
/* The size of a memory BAR in whole pages; 0: the region can never be mapped. */
uint64_t vfio_region_span(const struct vfio_device *dev, unsigned int index);

/* ioeventfd.c */
long vfio_ioctl_ioeventfd(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg);
void vfio_ioeventfds_stop(
	struct vfio_device *dev); /* forgets them all; nothing is written any more */

/* region.c */
/*
 * Stores 1, 2, 4 or 8 bytes in a BAR, [offset, offset+size) of which lies inside it, as pwrite would. 0, or a
 * negative errno when it does not answer.
 */
int vfio_region_store(struct vfio_device *dev, unsigned int region, uint64_t offset,
		      unsigned int size, uint64_t value);
/* Bytes of a region that belong to the MSI-X table: [*start, *end), empty when there are none. */
void vfio_region_msix_table(const struct vfio_device *dev, unsigned int region, uint64_t *start,
			    uint64_t *end);
#define VFIO_REGION_SHIFT 40
ssize_t vfio_region_rw(struct vfio_device *dev, struct swiommu_caller *caller, uint64_t uptr,
		       size_t count, uint64_t pos, bool write);

struct mem_owner;
/* bar_memory.c: the registers at [pos, pos+length) of the device file as memory for DMA. -EFAULT, -ENOMEM. */
int vfio_bar_memory(struct vfio_device *dev, uint64_t pos, uint64_t length, struct mem_owner **out);

/* info.c */
long vfio_ioctl_get_info(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg);
long vfio_ioctl_get_region_info(struct vfio_file *file, struct swiommu_caller *caller,
				uint64_t arg);
long vfio_ioctl_get_irq_info(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg);
/* hot_reset.c */
long vfio_ioctl_hot_reset_info(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg);
long vfio_ioctl_hot_reset(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg);
long vfio_ioctl_feature(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg);

/* bind.c */
long vfio_ioctl_bind(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg);
void vfio_unbind(struct vfio_file *file);
/*
 * What BIND, ATTACH and their ends do to the device itself; the caller has it to himself. Bind does not
 * say why it failed; attach does, and replaces.
 */
long vfio_device_bind(struct vfio_device *dev, struct iommufd_ctx *ctx, uint32_t *id);
void vfio_device_unbind(struct vfio_device *dev);
long vfio_device_attach(struct vfio_device *dev, uint32_t *pt_id, struct swiommu_caller *caller);
void vfio_device_detach(struct vfio_device *dev);

/* attach.c */
long vfio_ioctl_attach(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg);
long vfio_ioctl_detach(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg);
/* Before it is unbound: every PASID, then the device itself. */
void vfio_device_detach_all(struct vfio_device *dev);

/* emulated.c: what depends on whether it is a device or an access that is bound to a context. */
long vfio_pt_attach(struct vfio_device *dev, uint32_t pasid, uint32_t *pt_id);
long vfio_pt_replace(struct vfio_device *dev, uint32_t pasid, uint32_t *pt_id);
void vfio_pt_detach(struct vfio_device *dev, uint32_t pasid);
/* Why the last attach or replace failed. */
void vfio_pt_reason(struct vfio_device *dev, char *buf, size_t size);
int vfio_emulated_bind(struct vfio_device *dev, struct iommufd_ctx *ctx, uint32_t *id);
void vfio_emulated_unbind(struct vfio_device *dev);
/* As swiommu_dma_read() and _write(). */
int vfio_emulated_dma(struct vfio_device *dev, uint64_t iova, void *buf, size_t len, bool write);

/* noiommu.c */
/* 0, or -EPERM with a reason: the caller may not use a device without an IOMMU. */
long vfio_noiommu_check(struct swiommu_caller *caller, const char *what);
/* DMA of a device without an IOMMU that is bound to no context. Always -ENXIO. */
int vfio_noiommu_dma(struct vfio_device *dev, uint64_t addr, size_t len, bool write);

/* dma_log.c */
/* One of the DMA_LOGGING features; -ENOTTY, without a reason: another one. */
long vfio_dma_log_feature(struct vfio_device *dev, struct swiommu_caller *caller, uint64_t arg,
			  uint32_t argsz, uint32_t flags);
/* The device has written [iova, iova+len). */
void vfio_dma_log_mark(struct vfio_device *dev, uint64_t iova, size_t len);
void vfio_dma_log_stop(struct vfio_device *dev);
/* Sets bits [first, last] of a bitmap of 64-bit words in the caller's memory. -EFAULT. */
long vfio_set_bits(struct swiommu_caller *caller, uint64_t base, uint64_t first, uint64_t last);
/*
 * What every feature checks of a call, in the kernel's order: 1 go on, 0 it was a probe, or a negative errno.
 * `directions`: GET, SET or both; `size`: of its struct.
 */
long vfio_check_feature(struct swiommu_caller *caller, uint32_t argsz, uint32_t flags,
			uint32_t directions, uint32_t size);

/* token.c */
/* "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" of `len` characters. False: not one. */
bool vfio_parse_uuid(const char *text, size_t len, uint8_t uuid[16]);
/*
 * Somebody opens the device and gives a VF token (NULL: none). 0, -EINVAL it has none, -EACCES; and after success, when he
 * closes it.
 */
long vfio_token_enter(struct vfio_device *dev, struct swiommu_caller *caller, const uint8_t *token,
		      const char *what);
void vfio_token_leave(struct vfio_device *dev);
/* DEVICE_FEATURE PCI_VF_TOKEN; -ENOTTY, without a reason: another one, or not a physical function. */
long vfio_token_feature(struct vfio_device *dev, struct swiommu_caller *caller, uint64_t arg,
			uint32_t argsz, uint32_t flags);

/* irq.c */
int vfio_irqs_init(struct vfio_device *dev);
void vfio_irqs_fini(struct vfio_device *dev);
void vfio_irqs_stop(struct vfio_device *dev); /* forgets every eventfd */
unsigned int vfio_irq_count(const struct vfio_device *dev, unsigned int index);
/* COMMAND.INTX_DISABLE has changed. Never blocks. */
void vfio_irq_intx_disable(struct vfio_device *dev, bool disabled);
bool vfio_irq_line(struct vfio_device *dev);

/* setirqs.c */
long vfio_ioctl_set_irqs(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg);

static inline uint64_t vfio_load_le(const uint8_t *p, unsigned int size)
{
	uint64_t v = 0;

	for (unsigned int i = 0; i < size; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static inline void vfio_store_le(uint8_t *p, unsigned int size, uint64_t v)
{
	for (unsigned int i = 0; i < size; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

/* The largest naturally aligned piece, at most `max` bytes, at the start of [pos, pos+len). */
static inline unsigned int vfio_piece(uint64_t pos, uint64_t len, unsigned int max)
{
	while (max > 1 && (pos % max || len < max))
		max /= 2;
	return max;
}

#endif
