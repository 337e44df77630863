// SPDX-License-Identifier: MIT
/*
 * nvme: an NVM Express 1.4 controller with a disk (spec vfio.md 7.3).
 *
 * BAR0: registers in the first page, doorbells in the second, which is shared with the client in any case; then
 * the MSI-X table and its pending bits. mmio=trap leaves the register page trapped, as a client finds it by pread
 * and pwrite or through the preload helper; mmio=poll shares the whole BAR, for clients that map it all and have
 * no helper.
 *
 * This file makes the function and its life; see nvme.h for the rest.
 */
#include "vfio/models/nvme/nvme.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define MSIX_TABLE 0x2000u
#define MSIX_ENTRY 16u

/* ---- registers --------------------------------------------------------------------------- */

static int region_read(void *priv, unsigned int region, uint64_t offset, unsigned int size,
		       uint64_t *out)
{
	struct nvme *n = priv;

	(void)region;
	/* Behind the registers: pending bits, which are never set. */
	*out = offset < SWI_PAGE_SIZE ? nvme_register_read(n, offset, size) : 0;
	return 0;
}

static int region_write(void *priv, unsigned int region, uint64_t offset, unsigned int size,
			uint64_t value)
{
	struct nvme *n = priv;

	(void)region;
	if (offset < SWI_PAGE_SIZE)
		nvme_register_write(n, offset, size, value);
	return 0;
}

static void pages_written(void *priv, unsigned int region, uint64_t offset, unsigned int size)
{
	(void)region;
	(void)offset;
	(void)size;
	nvme_kick(priv);
}

/* ---- life -------------------------------------------------------------------------------- */

/* Pages have an address from the end of create() on; a reset comes before the first use of a device. */
static void find_registers(struct nvme *n)
{
	n->doorbells = vfio_pages(n->dev, 0, NVME_REG_DOORBELLS);
	n->regs = n->polled ? vfio_pages(n->dev, 0, 0) : n->private_regs;
}

static void reset(void *priv)
{
	struct nvme *n = priv;
	uint64_t ticket;

	pthread_mutex_lock(&n->lock);
	if (!n->running) {
		pthread_mutex_unlock(&n->lock);
		find_registers(n);
		nvme_power_on(n);
		return;
	}
	ticket = ++n->resets_wanted;
	atomic_store(&n->abort, true);
	pthread_cond_signal(&n->wake);
	while (n->resets_done < ticket)
		pthread_cond_wait(&n->done, &n->lock);
	pthread_mutex_unlock(&n->lock);
}

static int open_controller(void *priv)
{
	struct nvme *n = priv;
	int rc = vfio_dma_open(n->dev, &n->dma);

	if (rc)
		return rc;
	n->stop = false;
	atomic_store(&n->abort, false);
	rc = vfio_thread_start(&n->thread, nvme_controller, n);
	if (rc) {
		vfio_dma_close(&n->dma);
		return rc;
	}
	pthread_mutex_lock(&n->lock);
	n->running = true;
	pthread_mutex_unlock(&n->lock);
	return 0;
}

static void close_controller(void *priv)
{
	struct nvme *n = priv;

	pthread_mutex_lock(&n->lock);
	n->stop = true;
	n->running = false;
	atomic_store(&n->abort, true);
	pthread_cond_signal(&n->wake);
	pthread_mutex_unlock(&n->lock);
	pthread_join(n->thread, NULL);
	vfio_dma_close(&n->dma);
}

/* ---- making one -------------------------------------------------------------------------- */

static void describe(struct nvme *n)
{
	static const struct vfio_pci_id id = {
		.vendor = 0x1234,
		.device = 0x1e00,
		.subsystem_vendor = 0x1234,
		.subsystem_device = 0x0001,
		.class_code = 0x010802,
		.revision = 1,
		.int_pin = 1,
	};
	uint32_t table = (uint32_t)n->nr_vectors * MSIX_ENTRY;
	uint32_t pba = MSIX_TABLE + (uint32_t)((table + SWI_PAGE_SIZE - 1) & ~(SWI_PAGE_SIZE - 1));
	uint64_t size = 0x4000;

	while (size < pba + SWI_PAGE_SIZE)
		size *= 2;
	vfio_pci_set_id(n->dev, &id);
	vfio_pci_add_region(n->dev, 0, size, VFIO_BAR_64BIT | (n->polled ? VFIO_BAR_MMAP : 0));
	if (!n->polled)
		vfio_pci_add_pages(n->dev, 0, NVME_REG_DOORBELLS, SWI_PAGE_SIZE);
	vfio_config_add_pm(n->dev);
	vfio_config_add_pcie(n->dev, true);
	vfio_config_add_msix(n->dev, (unsigned int)n->nr_vectors, 0, MSIX_TABLE, pba);
}

static int take_options(struct nvme *n, const char *options, struct swi_reason *why)
{
	const struct vfio_option known[] = {
		{.key = "file", .text = n->path, .text_size = sizeof(n->path)},
		{.key = "size", .number = &n->size, .min = 1 << 20, .max = 1ull << 44},
		{.key = "block_size", .number = &n->block_size, .min = 512, .max = 4096},
		{.key = "namespaces",
		 .number = &n->nr_namespaces,
		 .min = 1,
		 .max = NVME_MAX_NAMESPACES},
		{.key = "read_only", .number = &n->read_only, .min = 0, .max = 1},
		{.key = "mmio", .text = n->mmio, .text_size = sizeof(n->mmio)},
		{.key = "queues", .number = &n->nr_queues, .min = 1, .max = NVME_MAX_QUEUES},
		{.key = "vectors", .number = &n->nr_vectors, .min = 1, .max = NVME_MAX_VECTORS},
		{.key = "serial", .text = n->serial, .text_size = sizeof(n->serial)},
	};
	int rc;

	n->block_size = 512;
	n->nr_namespaces = 1;
	n->nr_queues = 64;
	snprintf(n->mmio, sizeof(n->mmio), "trap");
	snprintf(n->serial, sizeof(n->serial), "SWIOMMU0");
	rc = vfio_options_parse(options, known, ARRAY_SIZE(known), why);
	if (rc)
		return rc;
	if (!is_pow2_u64(n->block_size))
		return swi_fail(why, -EINVAL, "option block_size: %llu is no power of two",
				(unsigned long long)n->block_size);
	n->polled = !strcmp(n->mmio, "poll");
	if (!n->polled && strcmp(n->mmio, "trap"))
		return swi_fail(why, -EINVAL, "option mmio: \"%s\" is neither poll nor trap",
				n->mmio);
	if (!n->nr_vectors)
		n->nr_vectors = SWI_MIN(n->nr_queues + 1, NVME_MAX_VECTORS);
	if (!n->size && !n->path[0])
		n->size = 64 << 20;
	return 0;
}

static int open_disk(struct nvme *n, struct swi_reason *why)
{
	int rc = nvme_disk_open(&n->disk, n->path, n->size, n->read_only, why);

	if (rc)
		return rc;
	n->blocks = n->disk.size / n->nr_namespaces / n->block_size;
	if (n->blocks)
		return 0;
	nvme_disk_close(&n->disk);
	return swi_fail(why, -EINVAL, "%llu bytes are less than a block for each namespace",
			(unsigned long long)n->disk.size);
}

static int init_locks(struct nvme *n)
{
	pthread_condattr_t attr;
	int rc = -ENOMEM;

	if (pthread_condattr_init(&attr))
		return -ENOMEM;
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	if (pthread_mutex_init(&n->lock, NULL))
		goto attr;
	if (pthread_cond_init(&n->wake, &attr))
		goto lock;
	if (pthread_cond_init(&n->done, NULL))
		goto wake;
	pthread_condattr_destroy(&attr);
	return 0;

wake:
	pthread_cond_destroy(&n->wake);
lock:
	pthread_mutex_destroy(&n->lock);
attr:
	pthread_condattr_destroy(&attr);
	return rc;
}

static int create(struct vfio_device *dev, const char *options, struct swi_reason *why,
		  void **out_priv)
{
	struct nvme *n = swi_new(struct nvme);
	int rc;

	if (!n)
		return swi_fail(why, -ENOMEM, "no memory for a model");
	n->dev = dev;
	n->private_regs = swi_zalloc_aligned(SWI_CACHELINE, SWI_PAGE_SIZE);
	if (!n->private_regs) {
		rc = swi_fail(why, -ENOMEM, "no memory for a model");
		goto free_nvme;
	}
	rc = take_options(n, options, why);
	if (rc)
		goto regs;
	rc = open_disk(n, why);
	if (rc)
		goto regs;
	rc = init_locks(n);
	if (rc)
		goto disk;
	describe(n);
	*out_priv = n;
	return 0;

disk:
	nvme_disk_close(&n->disk);
regs:
	swi_free(n->private_regs);
free_nvme:
	swi_free(n);
	return rc;
}

static void destroy(void *priv)
{
	struct nvme *n = priv;

	pthread_cond_destroy(&n->done);
	pthread_cond_destroy(&n->wake);
	pthread_mutex_destroy(&n->lock);
	nvme_disk_close(&n->disk);
	swi_free(n->private_regs);
	swi_free(n);
}

const struct vfio_model vfio_model_nvme = {
	.name = "nvme",
	.summary = "NVMe 1.4 controller with a disk in memory or in a file",
	.options = "file=PATH (the disk; made if size= is given too; default: memory)\n"
		   "size=BYTES (of all namespaces together, K, M, G or T; default 64M, or the "
		   "file's)\n"
		   "namespaces=N (the disk is divided among them, 1-64; default 1)\n"
		   "block_size=BYTES (512, 1024, 2048 or 4096; default 512)\n"
		   "read_only=1 (writes fail; default 0)\n"
		   "mmio=trap|poll (registers trapped, or all of BAR0 shared; default trap)\n"
		   "queues=N (I/O queue pairs, 1-511; default 64)\n"
		   "vectors=N (MSI-X vectors, 1-512; default one per queue pair and one)\n"
		   "serial=TEXT (serial number, up to 20 characters)\n",
	.create = create,
	.destroy = destroy,
	.open = open_controller,
	.close = close_controller,
	.reset = reset,
	.region_read = region_read,
	.region_write = region_write,
	.pages_written = pages_written,
};
