/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_TESTS_VFIO_RIG_H
#define SWIOMMU_TESTS_VFIO_RIG_H

/*
 * What the tests of the VFIO layer have in common: a context, an IOAS, devices of which one is a
 * model made for tests, and a client that lives in this process.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vfio/device.h"
#include "vfio/internal.h"
#include "vfio/model.h"

#include <linux/iommufd.h>
#include <linux/vfio.h>

/*
 * The number that the test client knows the rig's context by; RIG_CTX_FD + 1 is another context's, which takes no
 * devices without an IOMMU.
 */
#define RIG_CTX_FD 7000

struct rig {
	struct swiommu_caller caller; /* first: the operations find the rig by it */
	struct swiommu_caller_ops ops;
	const struct swiommu_caller_ops *local;
	struct iommufd_ctx *ctx, *other_ctx;
	struct iommu_group group;
	struct vfio_device *dev;
	struct vfio_file *file;
	uint32_t ioas, devid;
	uint64_t bad_out; /* copy_out to this address fails */
	/* Runs once in the next copy_out. */
	void (*on_copy_out)(struct rig *rig);
	_Atomic unsigned int faults;
	unsigned int copies_in;
};

/* A rig with a device of `model`, opened but not bound; the device's index is 3. */
void rig_open(struct rig *rig, const struct vfio_model *model, const char *options);
/* The same, bound. */
void rig_bound(struct rig *rig, const struct vfio_model *model, const char *options);
/* The same, bound, attached to rig->ioas, with bus mastering on. */
void rig_ready(struct rig *rig, const struct vfio_model *model, const char *options);
void rig_close(struct rig *rig);

/* A rig for one more thread: the same device and file, a caller of its own. Not to be closed. */
void rig_for_thread(struct rig *copy, struct rig *rig);

long rig_ioctl(struct rig *rig, unsigned int cmd, void *arg);
/* As rig_ioctl(), and a failure must come with a reason. */
long rig_expect(struct rig *rig, unsigned int cmd, void *arg, long expected);
long rig_bind(struct rig *rig);
long rig_attach(struct rig *rig, uint32_t *pt_id);
long rig_detach(struct rig *rig);

/* Maps `len` bytes at `p` to `iova` with IOMMU_IOAS_MAP_{READ,WRITE}able flags. */
void rig_map(struct rig *rig, void *p, size_t len, uint64_t iova, uint32_t access);
void rig_unmap(struct rig *rig, uint64_t iova, size_t len);
/* Page-aligned anonymous memory; freed by munmap. */
void *rig_pages(size_t len);

/* Registers by pread/pwrite; must succeed. */
uint64_t rig_read(struct rig *rig, unsigned int region, uint64_t off, unsigned int size);
void rig_write(struct rig *rig, unsigned int region, uint64_t off, unsigned int size,
	       uint64_t value);
/* The same, returning what the call returns. */
ssize_t rig_try_read(struct rig *rig, unsigned int region, uint64_t off, void *buf, size_t len);
ssize_t rig_try_write(struct rig *rig, unsigned int region, uint64_t off, const void *buf,
		      size_t len);
#define CONFIG VFIO_PCI_CONFIG_REGION_INDEX

/* SET_IRQS with a payload of `count` elements (NULL: none). */
long rig_set_irqs(struct rig *rig, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
		  const void *payload);
long rig_arm(struct rig *rig, uint32_t index, uint32_t start, uint32_t count, const int32_t *fds);
int rig_eventfd(void);
/* How often it has been signalled since the last call. */
uint64_t rig_count(int efd);
/* Waits until it has been signalled, then as rig_count(). Fails after ten seconds. */
uint64_t rig_wait(int efd);

/*
 * The test model. BAR0 64 KiB memory with the MSI-X table (4 vectors) at 0x8000; BAR1 16
 * bytes memory; BAR2 64-bit prefetchable 16 MiB; BAR4 I/O 32 bytes; ROM 2 KiB; INTA; 8 MSI vectors;
 * PM; PCIe with FLR; a hook at 0x200-0x207. Memory behaves as memory (the first 256 bytes of each
 * region, repeated); every access is logged.
 */
extern const struct vfio_model probe_model;
/* Without capabilities, INTx, FLR and regions. */
extern const struct vfio_model bare_model;

#define PROBE_LOG 256

struct probe {
	struct vfio_device *dev;
	pthread_mutex_t lock;
	uint8_t memory[VFIO_NR_MODEL_REGIONS][256];
	uint32_t hooked[2];
	unsigned int opens, closes, resets;
	int fail_open; /* error of the next open() */
	struct vfio_dma dma;
	bool has_dma;
	struct {
		bool write;
		unsigned int region, size;
		uint64_t offset, value;
	} log[PROBE_LOG];
	unsigned int nr_log;
	/* Runs once in the next reset(). */
	void (*on_reset)(void *data);
	void *on_reset_data;
	/* Run in the next open() or close(). */
	void (*on_open)(void *data);
	void (*on_close)(void *data);
	void *on_life_data;
};

struct probe *probe_of(struct rig *rig);

#endif
