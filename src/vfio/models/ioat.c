// SPDX-License-Identifier: MIT
/*
 * ioat: a DMA engine with one channel, as in Intel's server chips (PCI 8086:2021; spec
 * vfio.md 7.2).
 *
 * The client builds a chain of 64-byte descriptors in memory, writes the address of the first one
 * and then, cumulatively, how many the channel is to execute. The channel's thread does that, one
 * descriptor at a time, so a register access never waits for a batch and a status read sees
 * "active".
 *
 * All registers and the channel's state are guarded by `lock`. The thread takes a snapshot of what
 * it needs, drops the lock for the DMA (which may block), and takes it again to note the outcome.
 * Whoever stops the channel counts himself in `stopping` and waits until the thread is not `busy`:
 * then no access of the old life is under way. Reset and close also raise `abort`, which the thread
 * looks at between two pieces of DMA; a descriptor cut short that way has no outcome. Suspend lets
 * it finish.
 *
 * A chain is whatever the client says: it may loop, point anywhere, have any size in it. Each
 * doorbell is good for at most 65535 descriptors and each descriptor for one transfer of the
 * advertised size, moved through one buffer.
 */
#include "vfio/model.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <linux/vfio.h>

#define BAR_SIZE 0x4000u
#define MSIX_TABLE 0x2000u
#define MSIX_PBA 0x3000u
#define MAX_VECTORS 32u
#define PIECE 16384u

/* Registers, as offsets of the 8-byte words that hold them. */
#define REG_GENERAL 0x00u /* channel count, transfer capability, -, interrupt control */
#define REG_VERSION 0x08u
#define REG_CAPABILITY 0x10u
#define REG_CHANNEL 0x80u /* control (2 bytes), -, command (1) at 4, descriptor count (2) at 6 */
#define REG_STATUS 0x88u
#define REG_CHAIN 0x90u
#define REG_COMPLETION 0x98u
#define REG_ERROR 0xa8u /* error, error mask */

#define VERSION 0x33u
#define CAPABILITY_FILL (1u << 6)
#define CONTROL_IN_USE (1u << 8)
#define COMMAND_SUSPEND 0x04u
#define COMMAND_RESET 0x20u

#define ERROR_SOURCE (1u << 0)
#define ERROR_DESTINATION (1u << 1)
#define ERROR_DESCRIPTOR (1u << 8)
#define ERROR_LENGTH (1u << 10)
#define ERROR_COMPLETION (1u << 12)

/*
 * Configuration registers of the real device that report errors; nothing ever sets a bit in ours.
 */
#define CONFIG_UNCORRECTABLE 0x148u
#define CONFIG_CHANNEL_ERROR 0x180u

enum state { ACTIVE = 0, DONE = 1, SUSPENDED = 2, HALTED = 3, ARMED = 4 };

/* A descriptor in memory, little endian. */
struct descriptor {
	uint32_t size;
	uint32_t control;
	uint64_t source, destination, next;
	uint64_t unused[4];
};

#define DESC_INTERRUPT (1u << 0)
#define DESC_COMPLETION (1u << 3)
#define DESC_NULL (1u << 5)
#define DESC_OP(control) ((control) >> 24)
#define OP_COPY 0u
#define OP_FILL 1u

struct ioat {
	struct vfio_device *dev;
	uint64_t transfer_lg2, vectors;

	pthread_mutex_t lock;
	pthread_cond_t wake; /* for the thread: work, or stop */
	pthread_cond_t idle; /* from the thread: not busy any more */
	pthread_t thread;
	bool stop, busy;
	unsigned int stopping; /* how many wait for the channel to stop */
	atomic_uint abort;     /* how many of them want it cut short */

	/* Registers. */
	uint8_t interrupt_control;
	uint16_t control, count;
	uint64_t chain, completion;
	bool has_completion; /* the completion address has been written */
	uint32_t error, error_mask;

	/* The channel. */
	enum state state;
	uint16_t executed;
	uint64_t next; /* descriptor to execute */
	uint64_t last; /* the one completed last */

	/* The thread's own. */
	struct vfio_dma dma;
	uint8_t buffer[PIECE];
};

/* ---- the channel's thread ---------------------------------------------------------------- */

/* What executing a descriptor has come to. */
struct outcome {
	uint32_t error;
	struct descriptor desc;
};

static uint64_t le64(uint64_t v)
{
	uint8_t b[8];

	memcpy(b, &v, 8);
	return (uint64_t)b[0] | (uint64_t)b[1] << 8 | (uint64_t)b[2] << 16 | (uint64_t)b[3] << 24 |
	       (uint64_t)b[4] << 32 | (uint64_t)b[5] << 40 | (uint64_t)b[6] << 48 |
	       (uint64_t)b[7] << 56;
}

static uint32_t le32(uint32_t v)
{
	uint8_t b[4];

	memcpy(b, &v, 4);
	return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* Data of one descriptor. An abort returns 0 early; the caller finds out under the lock. */
static uint32_t move(struct ioat *ioat, const struct descriptor *d)
{
	bool fill = DESC_OP(d->control) == OP_FILL;

	if (fill)
		for (uint32_t i = 0; i < SWI_MIN(d->size, PIECE); i++)
			ioat->buffer[i] = (uint8_t)(d->source >> (8 * (i % 8)));
	for (uint32_t done = 0, n; done < d->size; done += n) {
		n = SWI_MIN(d->size - done, PIECE);
		if (atomic_load(&ioat->abort))
			return 0;
		if (!fill && vfio_dma_read(&ioat->dma, d->source + done, ioat->buffer, n))
			return ERROR_SOURCE;
		if (atomic_load(&ioat->abort))
			return 0;
		if (vfio_dma_write(&ioat->dma, d->destination + done, ioat->buffer, n))
			return ERROR_DESTINATION;
	}
	return 0;
}

static void execute(struct ioat *ioat, uint64_t address, struct outcome *out)
{
	struct descriptor *d = &out->desc;

	out->error = 0;
	if (vfio_dma_read(&ioat->dma, address, d, sizeof(*d))) {
		out->error = ERROR_DESCRIPTOR;
		return;
	}
	d->size = le32(d->size);
	d->control = le32(d->control);
	d->source = le64(d->source);
	d->destination = le64(d->destination);
	d->next = le64(d->next);
	if (d->control & DESC_NULL)
		return;
	if (DESC_OP(d->control) > OP_FILL || !d->size || d->size > 1u << ioat->transfer_lg2)
		out->error = ERROR_LENGTH;
	else
		out->error = move(ioat, d);
}

static uint64_t status_of(uint64_t last, enum state state)
{
	return (last & ~0x3full) | state;
}

/* Writes the status for the client to poll in memory. Without the lock. */
static bool write_completion(struct ioat *ioat, uint64_t address, uint64_t status)
{
	uint64_t v = le64(status);

	return !vfio_dma_write(&ioat->dma, address, &v, sizeof(v));
}

/*
 * Executes the next descriptor and notes the outcome. Called and returns with the lock held, drops
 * it for DMA. The order that clients see: data, interrupt, completion in memory, status register.
 */
static void step_locked(struct ioat *ioat)
{
	uint64_t address = ioat->next, completion = ioat->completion, before = ioat->last;
	bool has_completion = ioat->has_completion;
	bool final;
	struct outcome out;

	pthread_mutex_unlock(&ioat->lock);
	execute(ioat, address, &out);
	if (out.error && has_completion && !atomic_load(&ioat->abort))
		write_completion(ioat, completion, status_of(before, HALTED));
	pthread_mutex_lock(&ioat->lock);
	if (atomic_load(&ioat->abort))
		return;
	if (out.error)
		goto halt;
	ioat->last = address;
	ioat->next = out.desc.next;
	ioat->executed++;
	if (out.desc.control & DESC_INTERRUPT)
		vfio_irq_signal(ioat->dev, VFIO_PCI_MSIX_IRQ_INDEX, 0);
	if (out.desc.control & DESC_COMPLETION && has_completion) {
		/* The count may rise meanwhile: then the status in memory was true when it was
		 * written. */
		final = ioat->executed == ioat->count;
		pthread_mutex_unlock(&ioat->lock);
		if (!write_completion(ioat, completion, status_of(address, final ? DONE : ACTIVE)))
			out.error = ERROR_COMPLETION;
		pthread_mutex_lock(&ioat->lock);
		if (atomic_load(&ioat->abort))
			return;
		if (out.error)
			goto halt;
	}
	if (ioat->executed == ioat->count && ioat->state == ACTIVE)
		ioat->state = DONE;
	return;

halt:
	ioat->error |= out.error;
	ioat->state = HALTED;
}

static void *channel(void *arg)
{
	struct ioat *ioat = arg;

	pthread_mutex_lock(&ioat->lock);
	while (!ioat->stop) {
		if (ioat->state != ACTIVE || ioat->stopping) {
			pthread_cond_wait(&ioat->wake, &ioat->lock);
			continue;
		}
		ioat->busy = true;
		step_locked(ioat);
		ioat->busy = false;
		pthread_cond_broadcast(&ioat->idle);
	}
	pthread_mutex_unlock(&ioat->lock);
	return NULL;
}

/*
 * Stops the channel and leaves it in `state`. With `cut`, the descriptor in progress is dropped,
 * which takes at most one piece of DMA; else it is finished. Several threads may be here at once:
 * the channel stays stopped until all have gone on.
 */
static void quiesce_locked(struct ioat *ioat, enum state state, bool cut)
{
	ioat->state = state;
	ioat->stopping++;
	if (cut)
		atomic_fetch_add(&ioat->abort, 1);
	while (ioat->busy)
		pthread_cond_wait(&ioat->idle, &ioat->lock);
	if (cut)
		atomic_fetch_sub(&ioat->abort, 1);
	ioat->stopping--;
	ioat->state = state;
}

/* ---- registers --------------------------------------------------------------------------- */

static void channel_reset_locked(struct ioat *ioat)
{
	quiesce_locked(ioat, HALTED, true);
	ioat->error = 0;
	ioat->count = 0;
	ioat->executed = 0;
	ioat->last = 0;
}

static void write_command_locked(struct ioat *ioat, uint8_t command)
{
	if (command & COMMAND_RESET)
		channel_reset_locked(ioat);
	else if (command & COMMAND_SUSPEND)
		quiesce_locked(ioat, SUSPENDED, false);
}

static void write_count_locked(struct ioat *ioat, uint16_t count)
{
	if (ioat->state == HALTED)
		return;
	ioat->count = count;
	if (ioat->executed == count || ioat->state == ACTIVE)
		return;
	ioat->state = ACTIVE;
	pthread_cond_signal(&ioat->wake);
}

static void write_chain_locked(struct ioat *ioat, uint64_t chain)
{
	ioat->chain = chain;
	if (ioat->state == ACTIVE)
		return;
	ioat->next = chain;
	ioat->executed = 0;
	ioat->count = 0;
	ioat->last = 0;
	if (ioat->state == HALTED)
		ioat->state = ARMED;
}

/* The 8 bytes of registers at `word`. */
static uint64_t read_word_locked(const struct ioat *ioat, uint64_t word)
{
	switch (word) {
	case REG_GENERAL:
		return 1 | ioat->transfer_lg2 << 8 | (uint64_t)ioat->interrupt_control << 24;
	case REG_VERSION:
		return VERSION;
	case REG_CAPABILITY:
		return CAPABILITY_FILL;
	case REG_CHANNEL:
		return ioat->control | (uint64_t)ioat->count << 48;
	case REG_STATUS:
		return status_of(ioat->last, ioat->state);
	case REG_CHAIN:
		return ioat->chain;
	case REG_COMPLETION:
		return ioat->completion;
	case REG_ERROR:
		return ioat->error | (uint64_t)ioat->error_mask << 32;
	default:
		return 0;
	}
}

static int region_read(void *priv, unsigned int region, uint64_t offset, unsigned int size,
		       uint64_t *out)
{
	struct ioat *ioat = priv;

	(void)region;
	(void)size; /* the bytes behind the access do not matter */
	pthread_mutex_lock(&ioat->lock);
	*out = read_word_locked(ioat, offset & ~7ull) >> (8 * (offset & 7));
	pthread_mutex_unlock(&ioat->lock);
	return 0;
}

/* `mask` says which bits of the word the access writes. */
static void write_word_locked(struct ioat *ioat, uint64_t word, uint64_t mask, uint64_t value)
{
	uint64_t merged = (read_word_locked(ioat, word) & ~mask) | (value & mask);

	switch (word) {
	case REG_GENERAL:
		ioat->interrupt_control = (uint8_t)(merged >> 24);
		break;
	case REG_CHANNEL:
		ioat->control = (uint16_t)(merged & ~CONTROL_IN_USE);
		if (mask & 0xffull << 32)
			write_command_locked(ioat, (uint8_t)(merged >> 32));
		if (mask & 0xffffull << 48)
			write_count_locked(ioat, (uint16_t)(merged >> 48));
		break;
	case REG_CHAIN:
		write_chain_locked(ioat, merged);
		break;
	case REG_COMPLETION:
		ioat->completion = merged;
		ioat->has_completion = true;
		break;
	case REG_ERROR:
		ioat->error &= (uint32_t) ~(value & mask);
		ioat->error_mask = (uint32_t)(merged >> 32);
		break;
	default:
		break;
	}
}

static int region_write(void *priv, unsigned int region, uint64_t offset, unsigned int size,
			uint64_t value)
{
	struct ioat *ioat = priv;
	unsigned int shift = 8 * (unsigned int)(offset & 7);
	uint64_t mask = (size == 8 ? UINT64_MAX : (1ull << 8 * size) - 1) << shift;

	(void)region;
	pthread_mutex_lock(&ioat->lock);
	write_word_locked(ioat, offset & ~7ull, mask, value << shift);
	pthread_mutex_unlock(&ioat->lock);
	return 0;
}

/* ---- life -------------------------------------------------------------------------------- */

static void reset(void *priv)
{
	struct ioat *ioat = priv;

	pthread_mutex_lock(&ioat->lock);
	channel_reset_locked(ioat);
	ioat->interrupt_control = 0;
	ioat->control = 0;
	ioat->chain = ioat->next = 0;
	ioat->completion = 0;
	ioat->has_completion = false;
	ioat->error_mask = 0;
	pthread_mutex_unlock(&ioat->lock);
}

static int open_channel(void *priv)
{
	struct ioat *ioat = priv;
	int rc = vfio_dma_open(ioat->dev, &ioat->dma);

	if (rc)
		return rc;
	ioat->stop = false;
	rc = vfio_thread_start(&ioat->thread, channel, ioat);
	if (rc)
		vfio_dma_close(&ioat->dma);
	return rc;
}

static void close_channel(void *priv)
{
	struct ioat *ioat = priv;

	pthread_mutex_lock(&ioat->lock);
	ioat->stop = true;
	quiesce_locked(ioat, HALTED, true);
	pthread_cond_signal(&ioat->wake);
	pthread_mutex_unlock(&ioat->lock);
	pthread_join(ioat->thread, NULL);
	vfio_dma_close(&ioat->dma);
}

static void describe(struct ioat *ioat)
{
	static const struct vfio_pci_id id = {
		.vendor = 0x8086,
		.device = 0x2021,
		.subsystem_vendor = 0x8086,
		.subsystem_device = 0x0000,
		.class_code = 0x088000,
	};

	vfio_pci_set_id(ioat->dev, &id);
	vfio_pci_add_region(ioat->dev, 0, BAR_SIZE, VFIO_BAR_64BIT);
	vfio_config_add_pm(ioat->dev);
	vfio_config_add_pcie(ioat->dev, true);
	vfio_config_add_msix(ioat->dev, (unsigned int)ioat->vectors, 0, MSIX_TABLE, MSIX_PBA);
	vfio_config_set(ioat->dev, CONFIG_UNCORRECTABLE, 4, 0, 0, UINT32_MAX);
	vfio_config_set(ioat->dev, CONFIG_CHANNEL_ERROR, 4, 0, 0, UINT32_MAX);
}

static int create(struct vfio_device *dev, const char *options, struct swi_reason *why,
		  void **out_priv)
{
	struct ioat *ioat = swi_new(struct ioat);
	int rc;

	if (!ioat)
		return swi_fail(why, -ENOMEM, "no memory for a model");

	const struct vfio_option known[] = {
		{.key = "xfercap", .number = &ioat->transfer_lg2, .min = 12, .max = 20},
		{.key = "vectors", .number = &ioat->vectors, .min = 1, .max = MAX_VECTORS},
	};

	ioat->dev = dev;
	ioat->transfer_lg2 = 14;
	ioat->vectors = 1;
	ioat->state = HALTED;
	rc = vfio_options_parse(options, known, ARRAY_SIZE(known), why);
	if (rc)
		goto free_ioat;
	rc = -ENOMEM;
	if (pthread_mutex_init(&ioat->lock, NULL))
		goto free_ioat;
	if (pthread_cond_init(&ioat->wake, NULL))
		goto lock;
	if (pthread_cond_init(&ioat->idle, NULL))
		goto wake;
	describe(ioat);
	*out_priv = ioat;
	return 0;

wake:
	pthread_cond_destroy(&ioat->wake);
lock:
	pthread_mutex_destroy(&ioat->lock);
free_ioat:
	swi_free(ioat);
	return rc;
}

static void destroy(void *priv)
{
	struct ioat *ioat = priv;

	pthread_cond_destroy(&ioat->idle);
	pthread_cond_destroy(&ioat->wake);
	pthread_mutex_destroy(&ioat->lock);
	swi_free(ioat);
}

const struct vfio_model vfio_model_ioat = {
	.name = "ioat",
	.summary = "DMA engine with one channel: copy and fill (Intel ioat 8086:2021)",
	.options = "xfercap=LOG2 (largest transfer in bytes, 12-20; default 14)\n"
		   "vectors=N (MSI-X vectors, 1-32; default 1)\n",
	.create = create,
	.destroy = destroy,
	.open = open_channel,
	.close = close_channel,
	.reset = reset,
	.region_read = region_read,
	.region_write = region_write,
};
