// SPDX-License-Identifier: MIT
/*
 * Queues: from a doorbell to the commands behind it, and from their outcome to completions and an interrupt.
 *
 * A doorbell is a cell of a page that the client writes at any time. A value that is no index of the queue is ignored,
 * and told as an asynchronous event. A queue is served in batches: the entries up to the doorbell are read by one DMA,
 * executed one after the other, and their completions written together, no more than there is room for in the completion
 * queue; while it is full, nothing is taken.
 *
 * The client recognises a new completion by its phase bit, so that must arrive last. Writing a stretch of completions is
 * therefore done twice: first with the phase bits as they were, then with the new ones. However a copy is
 * cut and ordered on its way, who sees a new phase bit sees the completion it belongs to.
 *
 * An address error on a queue itself is fatal for the controller, as there is nobody to tell.
 */
#include "vfio/models/nvme/nvme.h"

#include <endian.h>
#include <string.h>
#include <linux/vfio.h>

#define SQ_ENTRY sizeof(struct nvme_command)
#define CQ_ENTRY sizeof(struct nvme_completion)
/* Completions do not wait for more than this much data of the commands behind them. */
#define BYTES_PER_BATCH (64u << 10)

static uint32_t *doorbell(struct nvme *n, unsigned int id, bool completion)
{
	return &n->doorbells[2 * id + completion];
}

/* What a doorbell says. Nonsense is taken back, as if it had not been written. */
static uint32_t read_doorbell(struct nvme *n, unsigned int id, bool completion, uint32_t size,
			      uint32_t old)
{
	uint32_t value = __atomic_load_n(doorbell(n, id, completion), __ATOMIC_ACQUIRE);

	if (SWI_LIKELY(value < size))
		return value;
	__atomic_compare_exchange_n(doorbell(n, id, completion), &value, old, false,
				    __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	if (!n->event_masked)
		n->event_pending = true;
	return old;
}

/* ---- completions ------------------------------------------------------------------------- */

static uint32_t cq_room(struct nvme *n, struct nvme_cq *cq)
{
	cq->head = read_doorbell(n, cq->id, true, cq->size, cq->head);
	return (cq->head + cq->size - cq->tail - 1) % cq->size;
}

/* Writes completions that are contiguous in the queue. */
static int write_stretch(struct nvme *n, struct nvme_cq *cq, struct nvme_completion *c,
			 unsigned int nr)
{
	uint64_t at = cq->base + cq->tail * CQ_ENTRY;
	int rc;

	for (unsigned int i = 0; i < nr; i++)
		c[i].status |= htole16(!cq->phase);
	rc = vfio_dma_write(&n->dma, at, c, nr * CQ_ENTRY);
	if (rc)
		return rc;
	for (unsigned int i = 0; i < nr; i++)
		c[i].status ^= htole16(1);
	return vfio_dma_write(&n->dma, at, c, nr * CQ_ENTRY);
}

static void interrupt(struct nvme *n, const struct nvme_cq *cq)
{
	if (!cq->interrupts)
		return;
	vfio_irq_signal(n->dev, VFIO_PCI_MSIX_IRQ_INDEX, cq->vector);
	nvme_update_line(n);
}

/* There is room for them. */
static void post(struct nvme *n, struct nvme_cq *cq, struct nvme_completion *c, unsigned int nr)
{
	for (unsigned int done = 0, k; done < nr; done += k) {
		k = SWI_MIN(nr - done, cq->size - cq->tail);
		if (write_stretch(n, cq, c + done, k)) {
			nvme_fatal(n);
			return;
		}
		cq->tail += k;
		if (cq->tail == cq->size) {
			cq->tail = 0;
			cq->phase = !cq->phase;
		}
	}
	if (nr)
		interrupt(n, cq);
}

void nvme_update_line(struct nvme *n)
{
	bool line = false;

	/* With message interrupts nobody looks at the line. */
	if (vfio_irq_active(n->dev) != VFIO_PCI_INTX_IRQ_INDEX && !n->line)
		return;
	for (unsigned int i = 0; i <= n->nr_queues && !line; i++) {
		struct nvme_cq *cq = &n->cqs[i];

		if (!cq->exists || !cq->interrupts ||
		    (cq->vector < 32 && n->interrupt_mask >> cq->vector & 1))
			continue;
		cq_room(n, cq); /* for the head */
		line = cq->head != cq->tail;
	}
	if (line == n->line)
		return;
	n->line = line;
	vfio_irq_set_line(n->dev, line);
}

/* ---- commands ---------------------------------------------------------------------------- */

static void command_to_host(struct nvme_command *c)
{
	c->cid = le16toh(c->cid);
	c->nsid = le32toh(c->nsid);
	c->prp1 = le64toh(c->prp1);
	c->prp2 = le64toh(c->prp2);
	c->cdw10 = le32toh(c->cdw10);
	c->cdw11 = le32toh(c->cdw11);
	c->cdw12 = le32toh(c->cdw12);
	c->cdw13 = le32toh(c->cdw13);
	c->cdw14 = le32toh(c->cdw14);
	c->cdw15 = le32toh(c->cdw15);
}

/* Into the error log. */
static void note_error(struct nvme *n, uint16_t sq_id, const struct nvme_command *cmd,
		       uint16_t status)
{
	n->errors[n->error_count % NVME_NR_ERRORS] = (struct nvme_error){
		.count = n->error_count + 1,
		.sq_id = sq_id,
		.cid = cmd->cid,
		.status = status,
		.nsid = cmd->nsid,
		.lba = sq_id ? cmd->cdw10 | (uint64_t)cmd->cdw11 << 32 : 0,
	};
	n->error_count++;
}

/* Executes a command; false: it has no completion yet. */
static bool execute(struct nvme *n, struct nvme_sq *sq, struct nvme_command *cmd,
		    struct nvme_completion *out)
{
	uint32_t result = 0;
	uint16_t status;

	command_to_host(cmd);
	/* Fused operations and SGLs are not offered. */
	if (cmd->flags)
		status = NVME_INVALID_FIELD | NVME_DNR;
	else
		status = sq->id ? nvme_io(n, cmd) : nvme_admin(n, cmd, &result);
	if (status == NVME_NO_COMPLETION)
		return false;
	if (status)
		note_error(n, sq->id, cmd, status);
	*out = (struct nvme_completion){
		.result = htole32(result),
		.sq_head = htole16((uint16_t)sq->head),
		.sq_id = htole16(sq->id),
		.cid = htole16(cmd->cid),
		.status = htole16((uint16_t)(status << 1)),
	};
	return true;
}

/* Executes `nr` commands of the queue that lie in `cmds`. */
static void execute_batch(struct nvme *n, struct nvme_sq *sq, struct nvme_command *cmds,
			  uint32_t nr)
{
	struct nvme_completion out[NVME_BATCH];
	unsigned int nr_out = 0;
	size_t bytes = 0;

	n->owed = nr;
	for (uint32_t i = 0; i < nr; i++) {
		/* A command may delete its own queue's neighbours, but not its own. */
		sq->head = sq->head + 1 == sq->size ? 0 : sq->head + 1;
		nr_out += execute(n, sq, &cmds[i], &out[nr_out]);
		if (atomic_load_explicit(&n->abort, memory_order_relaxed))
			return;
		bytes += sq->id ? nvme_io_bytes(n, &cmds[i]) : 0;
		if (bytes >= BYTES_PER_BATCH) {
			n->owed = nr - i - 1;
			post(n, sq->cq, out, nr_out);
			nr_out = 0;
			bytes = 0;
		}
	}
	n->owed = 0;
	post(n, sq->cq, out, nr_out);
}

bool nvme_sq_serve(struct nvme *n, struct nvme_sq *sq)
{
	struct nvme_command cmds[NVME_BATCH];
	uint32_t tail = read_doorbell(n, sq->id, false, sq->size, sq->head);
	uint32_t nr;

	if (tail == sq->head)
		return false;
	nr = (tail + sq->size - sq->head) % sq->size;
	nr = SWI_MIN(nr, SWI_MIN(sq->size - sq->head, NVME_BATCH));
	nr = SWI_MIN(nr, cq_room(n, sq->cq));
	if (!nr)
		return false;
	if (vfio_dma_read(&n->dma, sq->base + sq->head * SQ_ENTRY, cmds, nr * SQ_ENTRY)) {
		nvme_fatal(n);
		return false;
	}
	execute_batch(n, sq, cmds, nr);
	return true;
}

bool nvme_serve_events(struct nvme *n)
{
	struct nvme_cq *cq = &n->cqs[0];
	struct nvme_completion c;

	if (SWI_LIKELY(!n->event_pending) || !n->nr_held || !cq_room(n, cq))
		return false;
	c = (struct nvme_completion){
		.result = htole32(NVME_EVENT_ERROR | NVME_EVENT_INVALID_DOORBELL_VALUE << 8 |
				  NVME_LOG_ERROR << 16),
		.sq_head = htole16((uint16_t)n->sqs[0].head),
		.cid = htole16(n->held[--n->nr_held]),
	};
	n->event_pending = false;
	n->event_masked = true;
	post(n, cq, &c, 1);
	return true;
}

bool nvme_abort_held(struct nvme *n, unsigned int i)
{
	struct nvme_cq *cq = &n->cqs[0];
	struct nvme_completion c = {
		.sq_head = htole16((uint16_t)n->sqs[0].head),
		.cid = htole16(n->held[i]),
		.status = htole16(NVME_ABORTED_BY_REQUEST << 1),
	};

	if (cq_room(n, cq) <= n->owed)
		return false;
	n->held[i] = n->held[--n->nr_held];
	post(n, cq, &c, 1);
	return true;
}

/* ---- life of a queue --------------------------------------------------------------------- */

void nvme_cq_start(struct nvme *n, uint16_t id, uint64_t base, uint32_t size)
{
	n->cqs[id] =
		(struct nvme_cq){.exists = true, .id = id, .size = size, .phase = 1, .base = base};
	__atomic_store_n(doorbell(n, id, true), 0, __ATOMIC_RELEASE);
}

void nvme_sq_start(struct nvme *n, uint16_t id, uint64_t base, uint32_t size, struct nvme_cq *cq)
{
	n->sqs[id] =
		(struct nvme_sq){.exists = true, .id = id, .size = size, .base = base, .cq = cq};
	cq->users++;
	n->active[n->nr_active++] = id;
	__atomic_store_n(doorbell(n, id, false), 0, __ATOMIC_RELEASE);
}

void nvme_sq_stop(struct nvme *n, struct nvme_sq *sq)
{
	unsigned int i = 0;

	while (n->active[i] != sq->id)
		i++;
	n->nr_active--;
	memmove(&n->active[i], &n->active[i + 1], (n->nr_active - i) * sizeof(n->active[0]));
	sq->cq->users--;
	sq->exists = false;
}
