// SPDX-License-Identifier: MIT
/* The NVMe driver of the tests; see nvme_rig.h. */
#include "nvme_rig.h"

#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

uint32_t nvme_get(struct nvme_rig *f, unsigned int reg)
{
	return (uint32_t)rig_read(&f->rig, 0, reg, 4);
}

void nvme_set(struct nvme_rig *f, unsigned int reg, uint32_t value)
{
	rig_write(&f->rig, 0, reg, 4, value);
}

void nvme_await(struct nvme_rig *f, unsigned int reg, uint32_t mask, uint32_t value)
{
	double end = now() + 20;

	while ((nvme_get(f, reg) & mask) != value) {
		if (now() > end)
			fail_msg("register 0x%x: 0x%x, waiting for 0x%x of 0x%x", reg,
				 nvme_get(f, reg), value, mask);
		sched_yield();
	}
}

/* ---- life -------------------------------------------------------------------------------- */

void nvme_setup(struct nvme_rig *f, const char *options)
{
	memset(f, 0, sizeof(*f));
	rig_ready(&f->rig, vfio_model_find("nvme"), options);
	f->mem = rig_pages(NVME_MEMORY);
	rig_map(&f->rig, f->mem, NVME_MEMORY, NVME_IOVA,
		IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE);
	f->cc = NVME_CC_EN | 6 << 16 | 4 << 20;
}

void nvme_teardown(struct nvme_rig *f)
{
	rig_close(&f->rig);
	munmap(f->mem, NVME_MEMORY);
}

static uint32_t sq_offset(uint16_t queue)
{
	return queue * 2u * 4096;
}

static uint32_t cq_offset(uint16_t queue)
{
	return sq_offset(queue) + 4096;
}

void nvme_fresh_queue(struct nvme_rig *f, uint16_t queue, uint32_t entries)
{
	f->q[queue].tail = f->q[queue].head = 0;
	f->q[queue].sq_size = f->q[queue].cq_size = entries;
	f->q[queue].phase = 1;
	memset(f->mem + cq_offset(queue), 0, 4096);
}

void nvme_enable(struct nvme_rig *f)
{
	nvme_fresh_queue(f, 0, 32);
	nvme_set(f, NVME_REG_AQA, 31 << 16 | 31);
	rig_write(&f->rig, 0, NVME_REG_ASQ, 8, nvme_iova(sq_offset(0)));
	rig_write(&f->rig, 0, NVME_REG_ACQ, 8, nvme_iova(cq_offset(0)));
	nvme_set(f, NVME_REG_CC, f->cc);
	nvme_await(f, NVME_REG_CSTS, NVME_CSTS_RDY, NVME_CSTS_RDY);
}

void nvme_disable(struct nvme_rig *f)
{
	nvme_set(f, NVME_REG_CC, f->cc & ~NVME_CC_EN);
	nvme_await(f, NVME_REG_CSTS, NVME_CSTS_RDY, 0);
}

void nvme_create_queue(struct nvme_rig *f, uint16_t id, uint32_t entries, int vector)
{
	struct nvme_command cq = {.opcode = NVME_ADMIN_CREATE_CQ,
				  .prp1 = nvme_iova(cq_offset(id)),
				  .cdw10 = (entries - 1) << 16 | id,
				  .cdw11 = vector < 0 ? 1 : (uint32_t)vector << 16 | 3};
	struct nvme_command sq = {.opcode = NVME_ADMIN_CREATE_SQ,
				  .prp1 = nvme_iova(sq_offset(id)),
				  .cdw10 = (entries - 1) << 16 | id,
				  .cdw11 = (uint32_t)id << 16 | 1};

	nvme_fresh_queue(f, id, entries);
	assert_int_equal(nvme_status(f, 0, &cq), 0);
	assert_int_equal(nvme_status(f, 0, &sq), 0);
}

void nvme_setup_io(struct nvme_rig *f, const char *options)
{
	nvme_setup(f, options);
	nvme_enable(f);
	nvme_create_queue(f, 1, NVME_DEPTH, -1);
}

/* ---- commands ---------------------------------------------------------------------------- */

uint16_t nvme_push(struct nvme_rig *f, uint16_t queue, const struct nvme_command *cmd)
{
	struct nvme_command c = *cmd;

	c.cid = f->next_cid++;
	memcpy(f->mem + sq_offset(queue) + f->q[queue].tail * sizeof(c), &c, sizeof(c));
	f->q[queue].tail = (f->q[queue].tail + 1) % f->q[queue].sq_size;
	return c.cid;
}

void nvme_ring(struct nvme_rig *f, uint16_t queue)
{
	nvme_set(f, NVME_REG_DOORBELLS + 8u * queue, f->q[queue].tail);
}

/*
 * What the device writes at any moment, as a client sees it. The thread sanitizer cannot know that the phase bit
 * orders these accesses.
 */
__attribute__((no_sanitize("thread"))) static void peek(void *dst, const volatile uint8_t *src,
							size_t len)
{
	uint8_t *d = dst;

	for (size_t i = 0; i < len; i++)
		d[i] = src[i];
}

/* The last word to be written: what was read before it may be old, what is read after it is not. */
__attribute__((no_sanitize("thread"))) static uint16_t peek_status(const uint8_t *completion)
{
	return __atomic_load_n((const uint16_t *)(completion + 14), __ATOMIC_ACQUIRE);
}

bool nvme_poll(struct nvme_rig *f, uint16_t queue, struct nvme_completion *out)
{
	const uint8_t *at =
		f->mem + cq_offset(queue) + f->q[queue].head * sizeof(struct nvme_completion);
	struct vfio_device_stats stats;

	if ((peek_status(at) & 1) != f->q[queue].phase)
		return false;
	/* This is how the sanitizer learns that all is there: the device has counted its DMA. */
	vfio_device_get_stats(f->rig.dev, &stats);
	peek(out, at, sizeof(*out));
	if (++f->q[queue].head == f->q[queue].cq_size) {
		f->q[queue].head = 0;
		f->q[queue].phase ^= 1;
	}
	return true;
}

struct nvme_completion nvme_wait(struct nvme_rig *f, uint16_t queue)
{
	struct nvme_completion c = {0};
	double end = now() + 20;

	while (!nvme_poll(f, queue, &c)) {
		if (now() > end)
			fail_msg("no completion in queue %u (CSTS 0x%x)", queue,
				 nvme_get(f, NVME_REG_CSTS));
		sched_yield();
	}
	return c;
}

void nvme_ack(struct nvme_rig *f, uint16_t queue)
{
	nvme_set(f, NVME_REG_DOORBELLS + 8u * queue + 4, f->q[queue].head);
}

struct nvme_completion nvme_do(struct nvme_rig *f, uint16_t queue, const struct nvme_command *cmd)
{
	uint16_t cid = nvme_push(f, queue, cmd);
	struct nvme_completion c;

	nvme_ring(f, queue);
	c = nvme_wait(f, queue);
	nvme_ack(f, queue);
	assert_int_equal(c.cid, cid);
	assert_int_equal(c.sq_id, queue);
	assert_int_equal(c.sq_head, f->q[queue].tail);
	return c;
}

uint16_t nvme_status(struct nvme_rig *f, uint16_t queue, const struct nvme_command *cmd)
{
	return nvme_do(f, queue, cmd).status >> 1 & 0x7ff;
}
