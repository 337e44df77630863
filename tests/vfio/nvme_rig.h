/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_TESTS_VFIO_NVME_RIG_H
#define SWIOMMU_TESTS_VFIO_NVME_RIG_H

/*
 * A driver for the NVMe model, as small as a driver can be, for tests that say what each field of a command is.
 *
 * One stretch of memory is mapped for the device. Its first pages are queues (page 0 and 1 the admin pair, then a pair for
 * each I/O queue); buffers are wherever a test wants them from RIG_DATA on.
 */

#include "rig.h"

#include "vfio/models/nvme/spec.h"

#define NVME_IOVA 0x40000000ull
#define NVME_MEMORY (4u << 20)
#define NVME_DATA 0x20000u /* offset of what no queue uses */
#define NVME_RIG_QUEUES 4
#define NVME_DEPTH 64u /* entries of each queue, one page of submissions */

struct nvme_rig {
	struct rig rig; /* first */
	uint8_t *mem;
	uint32_t cc;
	struct {
		uint32_t tail, head, sq_size, cq_size;
		uint16_t phase;
	} q[NVME_RIG_QUEUES + 1];
	uint16_t next_cid;
};

/* The device, ready for DMA, with the controller not enabled. */
void nvme_setup(struct nvme_rig *f, const char *options);
void nvme_teardown(struct nvme_rig *f);
/* Enables the controller with an empty admin queue pair, waits until it is ready. */
void nvme_enable(struct nvme_rig *f);
/* Clears CC.EN and waits until the controller is not ready. */
void nvme_disable(struct nvme_rig *f);
/* Creates pair `id` with so many entries; completions interrupt vector `vector`, -1: do not. */
void nvme_create_queue(struct nvme_rig *f, uint16_t id, uint32_t entries, int vector);
/* Forgets what has happened in the pair: it is empty, and the controller is about to take it as new. */
void nvme_fresh_queue(struct nvme_rig *f, uint16_t queue, uint32_t entries);
/* setup, enable, and queue pair 1 of NVME_DEPTH entries without interrupts. */
void nvme_setup_io(struct nvme_rig *f, const char *options);

uint32_t nvme_get(struct nvme_rig *f, unsigned int reg);
void nvme_set(struct nvme_rig *f, unsigned int reg, uint32_t value);
/* Waits until (register & mask) == value. */
void nvme_await(struct nvme_rig *f, unsigned int reg, uint32_t mask, uint32_t value);

/* Puts a command into the queue, without ringing its doorbell; returns its identifier. */
uint16_t nvme_push(struct nvme_rig *f, uint16_t queue, const struct nvme_command *cmd);
void nvme_ring(struct nvme_rig *f, uint16_t queue);
/* Whether there is a completion; takes it, without telling the controller. */
bool nvme_poll(struct nvme_rig *f, uint16_t queue, struct nvme_completion *out);
/* Waits for one. */
struct nvme_completion nvme_wait(struct nvme_rig *f, uint16_t queue);
/* Tells the controller how far completions have been taken. */
void nvme_ack(struct nvme_rig *f, uint16_t queue);
/* A command from beginning to end: its completion, acknowledged, which must be the command's own. */
struct nvme_completion nvme_do(struct nvme_rig *f, uint16_t queue, const struct nvme_command *cmd);
/* The same, returning the status field without the "do not retry" bit. */
uint16_t nvme_status(struct nvme_rig *f, uint16_t queue, const struct nvme_command *cmd);

static inline uint64_t nvme_iova(uint32_t offset)
{
	return NVME_IOVA + offset;
}

/* Read or write `blocks` blocks at `lba` of namespace 1, to or from offset `data` of the memory. */
static inline struct nvme_command nvme_rw(uint8_t opcode, uint64_t lba, uint32_t blocks,
					  uint32_t data)
{
	return (struct nvme_command){.opcode = opcode,
				     .nsid = 1,
				     .prp1 = nvme_iova(data),
				     .cdw10 = (uint32_t)lba,
				     .cdw11 = (uint32_t)(lba >> 32),
				     .cdw12 = blocks - 1};
}

#endif
