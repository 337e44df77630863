// SPDX-License-Identifier: MIT
/*
 * edu: the teaching device that QEMU documents (PCI 1234:11e8; spec vfio.md 7.5). Interrupts by INTx or one MSI, DMA
 * between memory and a buffer of one page, and a register that computes factorials, all of it easy to see.
 *
 *   0x00  identification          0x04  reads back the complement       0x08  factorial of what is written
 *   0x20  status: 1 computing, 0x80 interrupt when it is done            0x24  pending interrupts
 *   0x60  raises interrupts       0x64  acknowledges them
 *   0x80  DMA source    0x88 destination    0x90 count    0x98 command: 1 start, 2 from the device, 4 interrupt
 *   0x40000, a page: the buffer, as DMA addresses name it; not accessible as registers
 *
 * Registers below 0x80 are accessed by 4 bytes, the others by 4 or 8; anything else reads as ones and writes
 * nothing. DMA outside of the buffer, of the device's address width or of what is mapped moves nothing (or only a part)
 * and ends without an interrupt.
 *
 * The worker computes and does DMA; `lock` guards all registers.
 */
#include "vfio/model.h"

#include "base/alloc.h"

#include <errno.h>
#include <linux/vfio.h>

#define BAR_SIZE (1u << 20)
#define BUFFER_AT 0x40000u
#define BUFFER_SIZE 4096u

#define REG_ID 0x00u
#define REG_LIVENESS 0x04u
#define REG_FACTORIAL 0x08u
#define REG_STATUS 0x20u
#define REG_PENDING 0x24u
#define REG_RAISE 0x60u
#define REG_ACKNOWLEDGE 0x64u
#define REG_DMA_SOURCE 0x80u
#define REG_DMA_DESTINATION 0x88u
#define REG_DMA_COUNT 0x90u
#define REG_DMA_COMMAND 0x98u

#define IDENTIFICATION 0x010000edu
#define STATUS_COMPUTING 0x01u
#define STATUS_INTERRUPT 0x80u
#define PENDING_FACTORIAL 0x001u
#define PENDING_DMA 0x100u
#define DMA_START 1u
#define DMA_FROM_DEVICE 2u
#define DMA_INTERRUPT 4u

struct edu {
	struct vfio_device *dev;
	uint64_t dma_bits; /* width of its addresses */
	struct vfio_worker worker;

	pthread_mutex_t lock;
	uint32_t liveness, factorial, status, pending;
	uint64_t source, destination, count, command;

	/* The worker's. */
	struct vfio_dma dma;
	uint8_t buffer[BUFFER_SIZE];
};

/* ---- interrupts -------------------------------------------------------------------------- */

/* The line is up while something is pending; a message is sent when something more becomes pending. */
static void raise_locked(struct edu *e, uint32_t bits)
{
	e->pending |= bits;
	if (!e->pending)
		return;
	vfio_irq_set_line(e->dev, true);
	vfio_irq_signal(e->dev, VFIO_PCI_MSI_IRQ_INDEX, 0);
}

static void acknowledge_locked(struct edu *e, uint32_t bits)
{
	e->pending &= ~bits;
	if (!e->pending)
		vfio_irq_set_line(e->dev, false);
}

/* ---- the worker -------------------------------------------------------------------------- */

/* Modulo 2^32, so from 34 on it is 0. */
static uint32_t factorial(uint32_t n)
{
	uint32_t result = 1;

	for (; n && result; n--)
		result *= n;
	return result;
}

static void compute(struct edu *e)
{
	uint32_t n, result;

	pthread_mutex_lock(&e->lock);
	n = e->factorial;
	if (!(e->status & STATUS_COMPUTING)) {
		pthread_mutex_unlock(&e->lock);
		return;
	}
	pthread_mutex_unlock(&e->lock);
	result = factorial(n);
	pthread_mutex_lock(&e->lock);
	e->factorial = result;
	e->status &= ~STATUS_COMPUTING;
	if (e->status & STATUS_INTERRUPT)
		raise_locked(e, PENDING_FACTORIAL);
	pthread_mutex_unlock(&e->lock);
}

/* Between `iova` and the buffer at its address `at`. */
static int move(struct edu *e, uint64_t iova, uint64_t at, uint64_t count, bool from_device)
{
	uint64_t last = iova + count - 1;

	if (!count)
		return 0;
	if (count > BUFFER_SIZE || at < BUFFER_AT || at - BUFFER_AT > BUFFER_SIZE - count)
		return -EINVAL;
	if (last < iova || (e->dma_bits < 64 && last >> e->dma_bits))
		return -EINVAL;
	at -= BUFFER_AT;
	return from_device ? vfio_dma_write(&e->dma, iova, e->buffer + at, count)
			   : vfio_dma_read(&e->dma, iova, e->buffer + at, count);
}

static void do_dma(struct edu *e)
{
	uint64_t source, destination, count, command;
	bool from_device;
	int rc;

	pthread_mutex_lock(&e->lock);
	source = e->source;
	destination = e->destination;
	count = e->count;
	command = e->command;
	pthread_mutex_unlock(&e->lock);
	if (!(command & DMA_START))
		return;
	from_device = command & DMA_FROM_DEVICE;
	rc = from_device ? move(e, destination, source, count, true)
			 : move(e, source, destination, count, false);
	pthread_mutex_lock(&e->lock);
	e->command &= ~(uint64_t)DMA_START;
	if (!rc && command & DMA_INTERRUPT)
		raise_locked(e, PENDING_DMA);
	pthread_mutex_unlock(&e->lock);
}

static void look(void *arg)
{
	compute(arg);
	do_dma(arg);
}

/* ---- registers --------------------------------------------------------------------------- */

static bool is_access(uint64_t offset, unsigned int size)
{
	return size == 4 || (size == 8 && offset >= REG_DMA_SOURCE);
}

static uint64_t *dma_register(struct edu *e, uint64_t offset)
{
	switch (offset & ~7ull) {
	case REG_DMA_SOURCE:
		return &e->source;
	case REG_DMA_DESTINATION:
		return &e->destination;
	case REG_DMA_COUNT:
		return &e->count;
	case REG_DMA_COMMAND:
		return &e->command;
	default:
		return NULL;
	}
}

static uint64_t read_locked(struct edu *e, uint64_t offset)
{
	const uint64_t *dma = dma_register(e, offset);

	if (dma)
		return *dma >> 8 * (offset & 7);
	switch (offset) {
	case REG_ID:
		return IDENTIFICATION;
	case REG_LIVENESS:
		return e->liveness;
	case REG_FACTORIAL:
		return e->factorial;
	case REG_STATUS:
		return e->status;
	case REG_PENDING:
		return e->pending;
	default:
		return UINT64_MAX;
	}
}

static int region_read(void *priv, unsigned int region, uint64_t offset, unsigned int size,
		       uint64_t *out)
{
	struct edu *e = priv;

	(void)region;
	*out = UINT64_MAX;
	if (!is_access(offset, size))
		return 0;
	pthread_mutex_lock(&e->lock);
	*out = read_locked(e, offset);
	pthread_mutex_unlock(&e->lock);
	return 0;
}

/* While DMA is under way its registers are not written. */
static void write_dma_locked(struct edu *e, uint64_t offset, unsigned int size, uint64_t value)
{
	uint64_t mask = size == 8 ? UINT64_MAX : (uint64_t)UINT32_MAX << 8 * (offset & 7);
	uint64_t *reg = dma_register(e, offset);

	if (!reg || e->command & DMA_START)
		return;
	*reg = (*reg & ~mask) | (value << 8 * (offset & 7) & mask);
	if (e->command & DMA_START)
		vfio_worker_kick(&e->worker);
}

static void write_locked(struct edu *e, uint64_t offset, uint32_t value)
{
	switch (offset) {
	case REG_LIVENESS:
		e->liveness = ~value;
		break;
	case REG_FACTORIAL:
		if (e->status & STATUS_COMPUTING)
			break;
		e->factorial = value;
		e->status |= STATUS_COMPUTING;
		vfio_worker_kick(&e->worker);
		break;
	case REG_STATUS:
		e->status = (e->status & ~STATUS_INTERRUPT) | (value & STATUS_INTERRUPT);
		break;
	case REG_RAISE:
		raise_locked(e, value);
		break;
	case REG_ACKNOWLEDGE:
		acknowledge_locked(e, value);
		break;
	default:
		break;
	}
}

static int region_write(void *priv, unsigned int region, uint64_t offset, unsigned int size,
			uint64_t value)
{
	struct edu *e = priv;

	(void)region;
	if (!is_access(offset, size))
		return 0;
	pthread_mutex_lock(&e->lock);
	if (offset < REG_DMA_SOURCE)
		write_locked(e, offset, (uint32_t)value);
	else
		write_dma_locked(e, offset, size, value);
	pthread_mutex_unlock(&e->lock);
	return 0;
}

/* ---- life -------------------------------------------------------------------------------- */

static void reset(void *priv)
{
	struct edu *e = priv;

	vfio_worker_pause(&e->worker);
	pthread_mutex_lock(&e->lock);
	e->liveness = e->factorial = e->status = e->pending = 0;
	e->source = e->destination = e->count = e->command = 0;
	for (unsigned int i = 0; i < BUFFER_SIZE; i++)
		e->buffer[i] = 0;
	pthread_mutex_unlock(&e->lock);
	vfio_worker_resume(&e->worker);
}

static int open_device(void *priv)
{
	struct edu *e = priv;
	int rc = vfio_dma_open(e->dev, &e->dma);

	if (rc)
		return rc;
	rc = vfio_worker_start(&e->worker, 0);
	if (rc)
		vfio_dma_close(&e->dma);
	return rc;
}

static void close_device(void *priv)
{
	struct edu *e = priv;

	vfio_worker_stop(&e->worker);
	vfio_dma_close(&e->dma);
}

static void describe(struct edu *e)
{
	static const struct vfio_pci_id id = {
		.vendor = 0x1234,
		.device = 0x11e8,
		.subsystem_vendor = 0x1af4,
		.subsystem_device = 0x1100,
		.class_code = 0x00ff00,
		.revision = 0x10,
		.int_pin = 1,
	};

	vfio_pci_set_id(e->dev, &id);
	vfio_pci_add_region(e->dev, 0, BAR_SIZE, 0);
	vfio_config_add_pcie(e->dev, true);
	vfio_config_add_msi(e->dev, 0);
}

static int create(struct vfio_device *dev, const char *options, struct swi_reason *why,
		  void **out_priv)
{
	struct edu *e = swi_new(struct edu);
	int rc;

	if (!e)
		return swi_fail(why, -ENOMEM, "no memory for a model");

	const struct vfio_option known[] = {
		{.key = "dma_bits", .number = &e->dma_bits, .min = 12, .max = 64},
	};

	e->dev = dev;
	e->dma_bits = 28;
	rc = vfio_options_parse(options, known, ARRAY_SIZE(known), why);
	if (rc)
		goto free_edu;
	rc = vfio_worker_init(&e->worker, look, e);
	if (rc)
		goto free_edu;
	if (pthread_mutex_init(&e->lock, NULL)) {
		rc = -ENOMEM;
		goto worker;
	}
	describe(e);
	*out_priv = e;
	return 0;

worker:
	vfio_worker_fini(&e->worker);
free_edu:
	swi_free(e);
	return rc;
}

static void destroy(void *priv)
{
	struct edu *e = priv;

	pthread_mutex_destroy(&e->lock);
	vfio_worker_fini(&e->worker);
	swi_free(e);
}

const struct vfio_model vfio_model_edu = {
	.name = "edu",
	.summary = "teaching device: interrupts, DMA of a page, factorials (as QEMU's, 1234:11e8)",
	.options = "dma_bits=N (width of DMA addresses, 12-64; default 28)\n",
	.create = create,
	.destroy = destroy,
	.open = open_device,
	.close = close_device,
	.reset = reset,
	.region_read = region_read,
	.region_write = region_write,
};
