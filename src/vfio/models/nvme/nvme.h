/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VFIO_MODELS_NVME_NVME_H
#define SWIOMMU_VFIO_MODELS_NVME_NVME_H

/*
 * State of the NVMe controller, shared by the files of this folder.
 *
 *   nvme.c        the model: options, PCI function, life
 *   controller.c  the controller's thread and its registers
 *   queue.c       from doorbells to commands to completions and interrupts
 *   prp.c         a command's data, to and from the client's memory
 *   admin.c       admin commands; identify.c, log.c and feature.c are the large ones
 *   io.c          I/O commands
 *   disk.c        what the namespaces are made of
 *
 * One thread owns all of it, so there are no locks around queues and commands. Others reach it by the registers, which are
 * memory (shared with the client or private), and by what `lock` guards.
 */

#include "base/alloc.h"
#include "vfio/model.h"
#include "vfio/models/nvme/spec.h"

#include <pthread.h>
#include <stdatomic.h>

#define NVME_MAX_QUEUES 511u /* I/O queue pairs whose doorbells are in one page */
#define NVME_MAX_VECTORS 512u
#define NVME_MAX_NAMESPACES 64u
#define NVME_MDTS 5u /* log2 of the largest transfer in pages */
#define NVME_TRANSFER_MAX (SWI_PAGE_SIZE << NVME_MDTS)
#define NVME_HELD_EVENTS 4u
#define NVME_NR_ERRORS 16u
#define NVME_BATCH 32u
#define NVME_SERIAL_MAX 20u

/* ---- disk.c ------------------------------------------------------------------------------ */

/* A file or anonymous memory, mapped as a whole. */
struct nvme_disk {
	int fd;
	uint8_t *map;
	uint64_t size;
	bool read_only;
	bool lasting; /* a file: there is something to flush to */
};

/* `path` "": memory. `size` 0: the file's. Errors with a reason. */
int nvme_disk_open(struct nvme_disk *disk, const char *path, uint64_t size, bool read_only,
		   struct swi_reason *why);
void nvme_disk_close(struct nvme_disk *disk);
/* What was written to the range is in the file when it returns. 0 or a negative errno. */
int nvme_disk_sync(struct nvme_disk *disk, uint64_t offset, uint64_t length);
/*
 * Zeros, given back to the file system where possible; else written, which may take long and ends early when *abort is set.
 * 0 or a negative errno.
 */
int nvme_disk_zero(struct nvme_disk *disk, uint64_t offset, uint64_t length,
		   const atomic_bool *abort);

/* ---- the controller ---------------------------------------------------------------------- */

struct nvme_cq {
	bool exists;
	uint16_t id;
	uint32_t size, tail, head; /* in entries */
	uint16_t phase;
	bool interrupts;
	uint16_t vector;
	uint64_t base;
	unsigned int users; /* submission queues */
};

struct nvme_sq {
	bool exists;
	uint16_t id;
	uint32_t size, head;
	uint64_t base;
	struct nvme_cq *cq;
};

struct nvme_error {
	uint64_t count; /* 0: none */
	uint16_t sq_id, cid, status;
	uint32_t nsid;
	uint64_t lba;
};

struct nvme {
	struct vfio_device *dev;

	/* Options. */
	uint64_t nr_queues, nr_vectors, nr_namespaces, block_size, read_only, size;
	bool polled; /* the register page is shared with the client too */
	char path[512], mmio[8], serial[NVME_SERIAL_MAX + 1];
	struct nvme_disk disk;
	uint64_t blocks; /* of each namespace */

	/* How others reach the thread. */
	pthread_mutex_t lock;
	pthread_cond_t wake; /* to the thread: kicks, resets_wanted or stop have changed */
	pthread_cond_t done; /* from the thread: resets_done has changed */
	pthread_t thread;
	bool running, stop;
	uint64_t kicks, resets_wanted, resets_done;
	atomic_bool abort;    /* leave what you do: there is a reset, or the end */
	atomic_uint cc_falls; /* how often CC.EN was cleared, with trapped registers */

	/* The first page of BAR0; trapped: memory of our own. And the page of the doorbells, always shared. */
	uint32_t *regs, *doorbells;
	void *private_regs;

	/* The rest is the thread's. */
	struct vfio_dma dma;
	uint64_t seen_kicks;
	uint32_t cc;
	unsigned int seen_falls;
	uint32_t interrupt_mask;
	bool line; /* INTx */
	struct nvme_sq sqs[NVME_MAX_QUEUES + 1];
	struct nvme_cq cqs[NVME_MAX_QUEUES + 1];
	uint16_t active[NVME_MAX_QUEUES + 1]; /* IDs of the submission queues that exist */
	unsigned int nr_active;
	unsigned int owed; /* completions of the batch in progress that have not been written */

	uint16_t held[NVME_HELD_EVENTS]; /* Asynchronous Event Requests waiting for an event */
	unsigned int nr_held;
	bool event_pending; /* a bad doorbell is to be told */
	bool event_masked;  /* it has been, and the log has not been read since */

	uint32_t features[NVME_NR_FEATURES];
	uint32_t vector_config[NVME_MAX_VECTORS]; /* coalescing disabled, per vector */

	struct nvme_error errors[NVME_NR_ERRORS]; /* ring; the newest at (error_count - 1) % size */
	uint64_t error_count;
	struct {
		uint64_t reads, writes, blocks_read, blocks_written; /* blocks of 512 bytes */
		uint64_t power_cycles;
	} smart;
};

/* controller.c */
void *nvme_controller(void *arg); /* the thread */
/* Registers and everything behind them to the state after power-on. On the thread, or while there is none. */
void nvme_power_on(struct nvme *n);
/* Something has been written: the thread is to look at once. Any thread. */
void nvme_kick(struct nvme *n);
/* Trapped accesses to the register page. Any thread. */
uint64_t nvme_register_read(struct nvme *n, uint64_t offset, unsigned int size);
void nvme_register_write(struct nvme *n, uint64_t offset, unsigned int size, uint64_t value);
/* The controller gives up until the client resets it: CSTS.CFS. */
void nvme_fatal(struct nvme *n);
static inline bool nvme_is_dead(const struct nvme *n)
{
	return __atomic_load_n(&n->regs[NVME_REG_CSTS / 4], __ATOMIC_RELAXED) & NVME_CSTS_CFS;
}

/* queue.c */
/* Takes what the doorbell of the queue announces, at most a batch; whether there was something. */
bool nvme_sq_serve(struct nvme *n, struct nvme_sq *sq);
/* Sets up a queue whose arguments are right; `size` entries. */
void nvme_cq_start(struct nvme *n, uint16_t id, uint64_t base, uint32_t size);
void nvme_sq_start(struct nvme *n, uint16_t id, uint64_t base, uint32_t size, struct nvme_cq *cq);
void nvme_sq_stop(struct nvme *n, struct nvme_sq *sq);
/* Answers a held request with a pending event, if there are both; whether it did. */
bool nvme_serve_events(struct nvme *n);
/* Completes held request number `i` as aborted; false when the completion queue is full. */
bool nvme_abort_held(struct nvme *n, unsigned int i);
/* Brings the INTx line to what the queues and the mask say. */
void nvme_update_line(struct nvme *n);

/* prp.c */
/*
 * Moves `length` bytes (at most NVME_TRANSFER_MAX) between `host` and the command's buffer. A status; 0 also when the
 * controller is being reset, in which case nobody asks.
 */
uint16_t nvme_transfer(struct nvme *n, const struct nvme_command *cmd, void *host, size_t length,
		       bool to_client);

/* admin.c, identify.c, log.c, feature.c: a status; *result goes to the completion. */
#define NVME_NO_COMPLETION 0xffffu /* held back, to be completed later */
uint16_t nvme_admin(struct nvme *n, const struct nvme_command *cmd, uint32_t *result);
uint16_t nvme_identify(struct nvme *n, const struct nvme_command *cmd);
uint16_t nvme_get_log(struct nvme *n, const struct nvme_command *cmd);
uint16_t nvme_get_features(struct nvme *n, const struct nvme_command *cmd, uint32_t *result);
uint16_t nvme_set_features(struct nvme *n, const struct nvme_command *cmd, uint32_t *result);
void nvme_features_reset(struct nvme *n);

/* io.c */
uint16_t nvme_io(struct nvme *n, const struct nvme_command *cmd);
/* Bytes that a command has moved, to be told from the outside how long it took. */
size_t nvme_io_bytes(const struct nvme *n, const struct nvme_command *cmd);

/* Numbers in structures that the client gets. */
static inline void nvme_put(uint8_t *at, unsigned int size, uint64_t value)
{
	for (unsigned int i = 0; i < size; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

/* `text` filled up with blanks. */
void nvme_put_text(uint8_t *at, size_t size, const char *text);

#endif
