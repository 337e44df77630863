// SPDX-License-Identifier: MIT
/*
 * iopf: a toy that asks for pages (spec vfio.md 7.4), for programs that handle a fault queue.
 *
 * It has a buffer of one page and moves it to or from memory when told to:
 *
 *   0x0  8 bytes  address in memory
 *   0x8  4 bytes  command: bit 0 go, cleared when it is done; bit 1 direction: 1 reads memory into the device
 *   0xc  4 bytes  outcome of the last command: 0, or 1: memory could not be reached
 *   0x10 4 bytes  PASID that the requests of the next command carry; 0: none
 *
 * An address that is not mapped is a page request if the client has attached the device to a page table with a fault
 * queue; the command then waits for the answer. BAR0 is one page, trapped, or with mmio=poll shared, so that a client
 * without the helper can map it.
 */
#include "vfio/model.h"

#include "base/alloc.h"

#include <swiommu/iommufd.h>

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <string.h>

#define REG_ADDRESS 0x0u
#define REG_COMMAND 0x8u
#define REG_OUTCOME 0xcu
#define REG_PASID 0x10u
#define COMMAND_GO 1u
#define COMMAND_READ 2u
#define BUFFER 4096u
#define POLL_US 100u

struct iopf {
	struct vfio_device *dev;
	char mmio[8];
	bool polled;
	struct vfio_worker worker;
	uint32_t *regs; /* first page of BAR0, or private; words are accessed atomically */
	uint32_t private_regs[SWI_PAGE_SIZE / 4];

	/* The worker's. */
	struct vfio_dma dma;
	uint32_t pasid; /* of dma */
	uint8_t buffer[BUFFER];
};

static uint32_t get(const struct iopf *f, unsigned int reg)
{
	return __atomic_load_n(&f->regs[reg / 4], __ATOMIC_ACQUIRE);
}

static void set(struct iopf *f, unsigned int reg, uint32_t value)
{
	__atomic_store_n(&f->regs[reg / 4], value, __ATOMIC_RELEASE);
}

/* The next requests carry the PASID. -EINVAL: there is none. */
static int use_pasid(struct iopf *f, uint32_t pasid)
{
	struct vfio_dma dma;
	int rc;

	if (pasid == f->pasid)
		return 0;
	rc = vfio_dma_open_with(f->dev, &dma, pasid, SWIOMMU_DMA_PAGE_REQUESTS);
	if (rc)
		return rc;
	vfio_dma_close(&f->dma);
	f->dma = dma;
	f->pasid = pasid;
	return 0;
}

static void look(void *arg)
{
	struct iopf *f = arg;
	uint32_t command = get(f, REG_COMMAND);
	uint64_t address = get(f, REG_ADDRESS) | (uint64_t)get(f, REG_ADDRESS + 4) << 32;
	int rc;

	if (!(command & COMMAND_GO))
		return;
	rc = use_pasid(f, get(f, REG_PASID));
	if (!rc)
		rc = command & COMMAND_READ ? vfio_dma_read(&f->dma, address, f->buffer, BUFFER)
					    : vfio_dma_write(&f->dma, address, f->buffer, BUFFER);
	set(f, REG_OUTCOME, rc != 0);
	set(f, REG_COMMAND, command & ~COMMAND_GO);
}

static int region_read(void *priv, unsigned int region, uint64_t offset, unsigned int size,
		       uint64_t *out)
{
	struct iopf *f = priv;

	(void)region;
	*out = get(f, (unsigned int)offset & ~3u) >> 8 * (offset & 3);
	if (size == 8)
		*out |= (uint64_t)get(f, (unsigned int)offset + 4) << 32;
	return 0;
}

static int region_write(void *priv, unsigned int region, uint64_t offset, unsigned int size,
			uint64_t value)
{
	struct iopf *f = priv;

	(void)region;
	if (size < 4)
		return 0;
	for (unsigned int at = (unsigned int)offset; size; size -= 4, at += 4, value >>= 32)
		if (at < REG_OUTCOME || at == REG_PASID)
			set(f, at, (uint32_t)value);
	vfio_worker_kick(&f->worker);
	return 0;
}

static void pages_written(void *priv, unsigned int region, uint64_t offset, unsigned int size)
{
	struct iopf *f = priv;

	(void)region;
	(void)offset;
	(void)size;
	vfio_worker_kick(&f->worker);
}

static void reset(void *priv)
{
	struct iopf *f = priv;

	/* A command that waits for a page has been told to give up. */
	vfio_worker_pause(&f->worker);
	f->regs = f->polled ? vfio_pages(f->dev, 0, 0) : f->private_regs;
	for (unsigned int reg = 0; reg < SWI_PAGE_SIZE; reg += 4)
		set(f, reg, 0);
	memset(f->buffer, 0, sizeof(f->buffer));
	vfio_worker_resume(&f->worker);
}

static int open_device(void *priv)
{
	struct iopf *f = priv;
	int rc = vfio_dma_open_with(f->dev, &f->dma, 0, SWIOMMU_DMA_PAGE_REQUESTS);

	f->pasid = 0;
	if (rc)
		return rc;
	rc = vfio_worker_start(&f->worker, f->polled ? POLL_US : 0);
	if (rc)
		vfio_dma_close(&f->dma);
	return rc;
}

static void close_device(void *priv)
{
	struct iopf *f = priv;

	vfio_worker_stop(&f->worker);
	vfio_dma_close(&f->dma);
}

static void describe(struct iopf *f)
{
	static const struct vfio_pci_id id = {
		.vendor = 0x1234,
		.device = 0x10bf,
		.class_code = 0xff0000,
	};
	unsigned int pos;

	vfio_pci_set_id(f->dev, &id);
	vfio_pci_add_region(f->dev, 0, SWI_PAGE_SIZE,
			    VFIO_BAR_64BIT | (f->polled ? VFIO_BAR_MMAP : 0));
	vfio_config_add_pcie(f->dev, true);
	/* It asks its IOMMU for translations and for pages: enabled, with room for as many groups as there are numbers. */
	pos = vfio_config_add_ext_cap(f->dev, PCI_EXT_CAP_ID_ATS, 1, 8);
	vfio_config_set(f->dev, pos + PCI_ATS_CTRL, 2, PCI_ATS_CTRL_ENABLE, 0, 0);
	pos = vfio_config_add_ext_cap(f->dev, PCI_EXT_CAP_ID_PRI, 1, 16);
	vfio_config_set(f->dev, pos + PCI_PRI_CTRL, 2, PCI_PRI_CTRL_ENABLE, 0, 0);
	vfio_config_set(f->dev, pos + PCI_PRI_STATUS, 2, PCI_PRI_STATUS_PASID, 0, 0);
	vfio_config_set(f->dev, pos + PCI_PRI_MAX_REQ, 4, 512, 0, 0);
	vfio_config_set(f->dev, pos + PCI_PRI_ALLOC_REQ, 4, 512, 0, 0);
}

static int create(struct vfio_device *dev, const char *options, struct swi_reason *why,
		  void **out_priv)
{
	struct iopf *f = swi_new(struct iopf);
	int rc;

	if (!f)
		return swi_fail(why, -ENOMEM, "no memory for a model");

	const struct vfio_option known[] = {
		{.key = "mmio", .text = f->mmio, .text_size = sizeof(f->mmio)},
	};

	f->dev = dev;
	f->regs = f->private_regs;
	snprintf(f->mmio, sizeof(f->mmio), "trap");
	rc = vfio_options_parse(options, known, ARRAY_SIZE(known), why);
	if (rc)
		goto free_iopf;
	f->polled = !strcmp(f->mmio, "poll");
	if (!f->polled && strcmp(f->mmio, "trap")) {
		rc = swi_fail(why, -EINVAL, "option mmio: \"%s\" is neither poll nor trap",
			      f->mmio);
		goto free_iopf;
	}
	rc = vfio_worker_init(&f->worker, look, f);
	if (rc)
		goto free_iopf;
	describe(f);
	*out_priv = f;
	return 0;

free_iopf:
	swi_free(f);
	return rc;
}

static void destroy(void *priv)
{
	struct iopf *f = priv;

	vfio_worker_fini(&f->worker);
	swi_free(f);
}

const struct vfio_model vfio_model_iopf = {
	.name = "iopf",
	.summary = "toy that moves one page and asks for it when it is not mapped",
	.options = "mmio=trap|poll (registers trapped, or BAR0 shared; default trap)\n",
	.create = create,
	.destroy = destroy,
	.open = open_device,
	.close = close_device,
	.reset = reset,
	.region_read = region_read,
	.region_write = region_write,
	.pages_written = pages_written,
};
