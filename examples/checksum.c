// SPDX-License-Identifier: MIT
/*
 * A device model outside of swiommu's tree (docs/writing-a-device.md): it adds up the bytes of a buffer.
 *
 *   0x0  8 bytes  address of the buffer      0x8  4 bytes  its length: a write starts
 *   0xc  4 bytes  the sum, all ones until it is done or if the buffer cannot be read; then MSI 0
 *
 *   cc -shared -fPIC -o checksum.so checksum.c && swiommu run --device ./checksum.so -- PROGRAM
 */
#include <swiommu/model.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <linux/vfio.h>

struct checksum {
	struct vfio_device *dev;
	struct vfio_worker worker;
	struct vfio_dma dma;
	_Atomic uint64_t address;
	atomic_uint length, sum;
};

/* On the model's thread, after each vfio_worker_kick(). */
static void look(void *priv)
{
	struct checksum *c = priv;
	uint64_t address = atomic_load(&c->address);
	unsigned int length = atomic_load(&c->length), sum = 0;
	uint8_t buf[4096];

	for (unsigned int n; length; address += n, length -= n) {
		n = length < sizeof(buf) ? length : sizeof(buf);
		if (vfio_worker_must_return(&c->worker) || vfio_dma_read(&c->dma, address, buf, n))
			return;
		for (unsigned int i = 0; i < n; i++)
			sum += buf[i];
	}
	atomic_store(&c->sum, sum);
	vfio_irq_signal(c->dev, VFIO_PCI_MSI_IRQ_INDEX, 0);
}

static int region_read(void *priv, unsigned int region, uint64_t offset, unsigned int size,
		       uint64_t *out)
{
	struct checksum *c = priv;
	uint64_t words[2] = {atomic_load(&c->address),
			     atomic_load(&c->length) | (uint64_t)atomic_load(&c->sum) << 32};

	(void)region;
	(void)size; /* what is above the access does not matter */
	*out = words[offset / 8] >> 8 * (offset % 8);
	return 0;
}

static int region_write(void *priv, unsigned int region, uint64_t offset, unsigned int size,
			uint64_t value)
{
	struct checksum *c = priv;

	(void)region;
	if (offset == 0 && size == 8)
		atomic_store(&c->address, value);
	if (offset != 8 || size != 4)
		return 0;
	atomic_store(&c->sum, UINT32_MAX);
	atomic_store(&c->length, (unsigned int)value);
	vfio_worker_kick(&c->worker);
	return 0;
}

static void reset(void *priv)
{
	struct checksum *c = priv;

	vfio_worker_pause(&c->worker); /* look() has returned, and is not called */
	atomic_store(&c->address, 0);
	atomic_store(&c->length, 0);
	atomic_store(&c->sum, UINT32_MAX);
	vfio_worker_resume(&c->worker);
}

static int open_device(void *priv)
{
	struct checksum *c = priv;
	int rc = vfio_dma_open(c->dev, &c->dma);

	if (rc)
		return rc;
	rc = vfio_worker_start(&c->worker, 0);
	if (rc)
		vfio_dma_close(&c->dma);
	return rc;
}

static void close_device(void *priv)
{
	struct checksum *c = priv;

	vfio_worker_stop(&c->worker);
	vfio_dma_close(&c->dma);
}

static int create(struct vfio_device *dev, const char *options, struct swi_reason *why,
		  void **out_priv)
{
	static const struct vfio_pci_id id = {
		.vendor = 0x1234, .device = 0xcafe, .class_code = 0xff0000};
	struct checksum *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	rc = vfio_options_parse(options, NULL, 0, why); /* there are none */
	if (!rc)
		rc = vfio_worker_init(&c->worker, look, c);
	if (rc) {
		free(c);
		return rc;
	}
	c->dev = dev;
	vfio_pci_set_id(dev, &id);
	vfio_pci_add_region(dev, 0, 16, 0);
	vfio_config_add_pcie(dev, true);
	vfio_config_add_msi(dev, 0);
	*out_priv = c;
	return 0;
}

static void destroy(void *priv)
{
	struct checksum *c = priv;

	vfio_worker_fini(&c->worker);
	free(c);
}

static const struct vfio_model checksum = {
	.name = "checksum",
	.summary = "adds up the bytes of a buffer",
	.options = "",
	.create = create,
	.destroy = destroy,
	.open = open_device,
	.close = close_device,
	.reset = reset,
	.region_read = region_read,
	.region_write = region_write,
};

SWIOMMU_MODEL(checksum);
