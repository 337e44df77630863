// SPDX-License-Identifier: MIT
/* The NVMe model: registers, admin commands, interrupts, resets (NVMe 1.4; spec vfio.md 7.3). */
#include "nvme_rig.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int setup(void **state)
{
	static struct nvme_rig f;

	nvme_setup(&f, "serial=S1,size=8M,namespaces=3,queues=4,vectors=5");
	*state = &f;
	return 0;
}

static int setup_enabled(void **state)
{
	setup(state);
	nvme_enable(*state);
	return 0;
}

static int teardown(void **state)
{
	nvme_teardown(*state);
	return 0;
}

/* ---- registers --------------------------------------------------------------------------- */

static void registers(void **state)
{
	struct nvme_rig *f = *state;
	uint64_t cap = rig_read(&f->rig, 0, NVME_REG_CAP, 8);

	assert_int_equal(cap & 0xffff, 4095);
	assert_int_equal(cap >> 16 & 1, 1);	/* contiguous queues */
	assert_int_equal(cap >> 24 & 0xff, 20); /* 10 s */
	assert_int_equal(cap >> 32 & 0xf, 0);	/* doorbell stride */
	assert_int_equal(cap >> 37 & 0xff, 1);	/* NVM command set only */
	assert_int_equal(cap >> 48 & 0xff, 0);	/* pages of 4 KiB */
	assert_int_equal(nvme_get(f, NVME_REG_CAP + 4), cap >> 32);
	assert_int_equal(rig_read(&f->rig, 0, NVME_REG_CAP + 1, 1), (cap >> 8) & 0xff);
	assert_int_equal(nvme_get(f, NVME_REG_VS), 0x10400);
	/* Read only, or not there. */
	for (unsigned int reg = 0; reg < 0x1000; reg += 4) {
		uint32_t old = nvme_get(f, reg);

		if ((reg >= NVME_REG_INTMS && reg <= NVME_REG_CC) ||
		    (reg >= NVME_REG_AQA && reg < NVME_REG_ACQ + 8))
			continue;
		nvme_set(f, reg, ~old);
		assert_int_equal(nvme_get(f, reg), old);
	}
	nvme_set(f, NVME_REG_AQA, 0xffffffff);
	assert_int_equal(nvme_get(f, NVME_REG_AQA), 0x0fff0fff);
	/* The high half first. */
	nvme_set(f, NVME_REG_ASQ + 4, 0x12345678);
	nvme_set(f, NVME_REG_ASQ, 0x9abcdfff);
	assert_int_equal(rig_read(&f->rig, 0, NVME_REG_ASQ, 8), 0x123456789abcd000);
	/* Bytes and words of registers are not written. */
	rig_write(&f->rig, 0, NVME_REG_ASQ, 2, 0);
	assert_int_equal(rig_read(&f->rig, 0, NVME_REG_ASQ, 8), 0x123456789abcd000);
	nvme_set(f, NVME_REG_INTMS, 0xf0);
	nvme_set(f, NVME_REG_INTMS, 0x0f);
	nvme_set(f, NVME_REG_INTMC, 0x3c);
	assert_int_equal(nvme_get(f, NVME_REG_INTMS), 0xc3);
	assert_int_equal(nvme_get(f, NVME_REG_INTMC), 0xc3);
}

static void enable_and_disable(void **state)
{
	struct nvme_rig *f = *state;
	struct nvme_command identify = {
		.opcode = NVME_ADMIN_IDENTIFY, .prp1 = nvme_iova(NVME_DATA), .cdw10 = 1};

	assert_int_equal(nvme_get(f, NVME_REG_CSTS), 0);
	for (unsigned int i = 0; i < 3; i++) {
		nvme_enable(f);
		assert_int_equal(nvme_get(f, NVME_REG_CSTS), NVME_CSTS_RDY);
		for (unsigned int k = 0; k < 40; k++) /* more than the queue has entries */
			assert_int_equal(nvme_status(f, 0, &identify), 0);
		nvme_create_queue(f, 1, 16, -1);
		nvme_disable(f);
		assert_int_equal(nvme_get(f, NVME_REG_CSTS), 0);
		/* A register of the controller that a reset leaves alone, and a doorbell. */
		assert_int_equal(nvme_get(f, NVME_REG_AQA), 31 << 16 | 31);
		assert_int_equal(nvme_get(f, NVME_REG_DOORBELLS), 0);
	}
	/* Without waiting in between: whether or not the thread sees it fall, it is a reset, which clears doorbells. */
	nvme_enable(f);
	for (unsigned int i = 0; i < 100; i++) {
		nvme_create_queue(f, 1, 16, -1);
		nvme_fresh_queue(f, 0, 32);
		nvme_set(f, NVME_REG_CC, f->cc & ~NVME_CC_EN);
		nvme_set(f, NVME_REG_CC, f->cc);
		nvme_await(f, NVME_REG_DOORBELLS, ~0u, 0);
		nvme_await(f, NVME_REG_CSTS, ~0u, NVME_CSTS_RDY);
	}
}

static void impossible_settings_are_fatal(void **state)
{
	static const struct {
		uint32_t cc, aqa;
	} cases[] = {
		{1 << 7, 31 << 16 | 31},  /* pages of 8 KiB */
		{1 << 4, 31 << 16 | 31},  /* another command set */
		{1 << 11, 31 << 16 | 31}, /* weighted arbitration */
		{0, 31 << 16},		  /* queues of one entry */
		{0, 31},
	};
	struct nvme_rig *f = *state;

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		nvme_set(f, NVME_REG_AQA, cases[i].aqa);
		nvme_set(f, NVME_REG_CC, f->cc | cases[i].cc);
		nvme_await(f, NVME_REG_CSTS, ~0u, NVME_CSTS_CFS);
		nvme_set(f, NVME_REG_CC, 0);
		nvme_await(f, NVME_REG_CSTS, ~0u, 0);
	}
	nvme_enable(f);
}

static void shutdown_is_acknowledged(void **state)
{
	struct nvme_rig *f = *state;

	for (uint32_t how = 1; how <= 2; how++) {
		nvme_enable(f);
		nvme_set(f, NVME_REG_CC, f->cc | how << 14);
		nvme_await(f, NVME_REG_CSTS, ~0u, NVME_CSTS_RDY | 2 << 2);
		nvme_disable(f);
		assert_int_equal(nvme_get(f, NVME_REG_CSTS), 0);
	}
}

/* ---- identify ---------------------------------------------------------------------------- */

static struct nvme_command identify_command(uint32_t cns, uint32_t nsid)
{
	return (struct nvme_command){.opcode = NVME_ADMIN_IDENTIFY,
				     .nsid = nsid,
				     .prp1 = nvme_iova(NVME_DATA),
				     .cdw10 = cns};
}

static const uint8_t *identify(struct nvme_rig *f, uint32_t cns, uint32_t nsid)
{
	struct nvme_command cmd = identify_command(cns, nsid);

	memset(f->mem + NVME_DATA, 0xa5, 8192);
	assert_int_equal(nvme_status(f, 0, &cmd), 0);
	assert_int_equal(f->mem[NVME_DATA + 4096], 0xa5);
	return f->mem + NVME_DATA;
}

static uint64_t field(const uint8_t *d, unsigned int at, unsigned int size)
{
	return vfio_load_le(d + at, size);
}

static void identify_controller(void **state)
{
	const uint8_t *d = identify(*state, 1, 0);

	assert_memory_equal(d + 4, "S1                  ", 20);
	assert_int_equal(d[77], 5);
	assert_int_equal(field(d, 80, 4), 0x10400);
	assert_int_equal(d[111], 1);
	assert_int_equal(d[512], 0x66);
	assert_int_equal(d[513], 0x44);
	assert_int_equal(field(d, 516, 4), 3);
	assert_int_equal(field(d, 520, 2), 0xc);
	assert_int_equal(field(d, 536, 4), 0); /* no SGLs */
	assert_memory_equal(d + 768, "nqn.2014-08.org.nvmexpress:uuid:", 32);
	assert_int_equal(strlen((const char *)d + 768), 32 + 36);
}

static void identify_namespaces(void **state)
{
	uint8_t uuids[3][16];
	const uint8_t *d;

	for (uint32_t i = 1; i <= 3; i++) {
		d = identify(*state, 0, i);
		assert_int_equal(field(d, 0, 8), (8 << 20) / 3 / 512);
		assert_int_equal(field(d, 8, 8), (8 << 20) / 3 / 512);
		assert_int_equal(d[25], 0);  /* one format */
		assert_int_equal(d[130], 9); /* of 512 bytes */
		assert_int_equal(d[99], 0);
		d = identify(*state, 3, i);
		assert_int_equal(d[0], 3); /* a UUID */
		assert_int_equal(d[1], 16);
		assert_int_equal(field(d, 20, 4), 0); /* the end */
		assert_int_equal(d[4 + 6] >> 4, 8);
		memcpy(uuids[i - 1], d + 4, 16);
	}
	assert_memory_not_equal(uuids[0], uuids[1], 16);
	assert_memory_not_equal(uuids[1], uuids[2], 16);
	for (uint32_t above = 0; above <= 4; above++) {
		d = identify(*state, 2, above);
		for (uint32_t i = 0; i < 4; i++)
			assert_int_equal(field(d, 4 * i, 4), above + i < 3 ? above + i + 1 : 0);
	}
	identify(*state, 5, 1);
	identify(*state, 6, 0);
}

static void identify_errors(void **state)
{
	static const struct {
		uint32_t cns, nsid, cdw11;
		uint16_t status;
	} cases[] = {
		{0, 0, 0, NVME_INVALID_NAMESPACE},
		{0, 4, 0, NVME_INVALID_NAMESPACE},
		{0, NVME_NSID_ALL, 0, NVME_INVALID_NAMESPACE},
		{2, 0xfffffffe, 0, NVME_INVALID_NAMESPACE},
		{3, 0, 0, NVME_INVALID_NAMESPACE},
		{3, 4, 0, NVME_INVALID_NAMESPACE},
		{5, 1, 1u << 24, NVME_INVALID_FIELD},
		{6, 0, 2u << 24, NVME_INVALID_FIELD},
		{4, 0, 0, NVME_INVALID_FIELD},
		{8, 1, 0, NVME_INVALID_FIELD},
		{0x10, 0, 0, NVME_INVALID_FIELD},
		{0xff, 0, 0, NVME_INVALID_FIELD},
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct nvme_command cmd = identify_command(cases[i].cns, cases[i].nsid);
		uint16_t status;

		cmd.cdw11 = cases[i].cdw11;
		status = nvme_status(*state, 0, &cmd);
		if (status != cases[i].status)
			fail_msg("CNS 0x%x of 0x%x: 0x%x, not 0x%x", cases[i].cns, cases[i].nsid,
				 status, cases[i].status);
	}
}

/* ---- features and logs ------------------------------------------------------------------- */

static uint16_t feature(struct nvme_rig *f, uint8_t opcode, uint32_t id, uint32_t value,
			uint32_t *result)
{
	struct nvme_command cmd = {.opcode = opcode, .cdw10 = id, .cdw11 = value};
	struct nvme_completion c = nvme_do(f, 0, &cmd);

	*result = c.result;
	return c.status >> 1 & 0x7ff;
}

static void features(void **state)
{
	static const struct {
		uint32_t id, value;
		uint16_t get, set;
		uint32_t expected; /* after setting */
	} cases[] = {
		{1, 0x01020303, 0, 0, 0x01020303},
		{2, 0, 0, 0, 0},
		{2, 1, 0, NVME_INVALID_FIELD, 0},
		{4, 0x160, 0, 0, 0x160},
		{4, 0x10160, NVME_INVALID_FIELD, NVME_INVALID_FIELD, 0},
		{5, 7, 0, 0, 7},
		{6, 1, NVME_INVALID_FIELD, NVME_INVALID_FIELD, 0}, /* memory has no cache */
		{7, 0x00070007, 0, 0, 0x00030003},
		{7, 0x0000ffff, 0, NVME_INVALID_FIELD, 0x00030003},
		{7, 0xffff0000, 0, NVME_INVALID_FIELD, 0x00030003},
		{8, 0x0102, 0, 0, 0x0102},
		{9, 4 | 1 << 16, 0, 0, 4 | 1 << 16},
		{9, 5, NVME_INVALID_FIELD, NVME_INVALID_FIELD, 0},
		{10, 1, 0, 0, 1},
		{11, 0x01, 0, 0, 0x01},
		{11 | 1u << 31, 0x02, 0, NVME_NOT_SAVEABLE, 0x01},
		{0, 0, NVME_INVALID_FIELD, NVME_INVALID_FIELD, 0},
		{3, 0, NVME_INVALID_FIELD, NVME_INVALID_FIELD, 0},
		{12, 0, NVME_INVALID_FIELD, NVME_INVALID_FIELD, 0},
		{0x80, 0, NVME_INVALID_FIELD, NVME_INVALID_FIELD, 0},
	};
	uint32_t result;

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		uint16_t set = feature(*state, NVME_ADMIN_SET_FEATURES, cases[i].id, cases[i].value,
				       &result);
		uint16_t get = feature(*state, NVME_ADMIN_GET_FEATURES, cases[i].id & 0xff,
				       cases[i].value, &result);

		if (set != cases[i].set || get != cases[i].get ||
		    (!get && result != cases[i].expected))
			fail_msg("feature 0x%x: set 0x%x, get 0x%x, value 0x%x", cases[i].id, set,
				 get, result);
	}
	/* A reset of the controller puts them back. */
	nvme_disable(*state);
	nvme_enable(*state);
	assert_int_equal(feature(*state, NVME_ADMIN_GET_FEATURES, 11, 0, &result), 0);
	assert_int_equal(result, 0);
	/* The number of queues is settled when there are some. */
	nvme_create_queue(*state, 1, 16, -1);
	assert_int_equal(feature(*state, NVME_ADMIN_SET_FEATURES, 7, 0, &result),
			 NVME_SEQUENCE_ERROR);
}

static struct nvme_command log_command(uint32_t log, uint32_t bytes, uint64_t offset)
{
	return (struct nvme_command){.opcode = NVME_ADMIN_GET_LOG,
				     .nsid = NVME_NSID_ALL,
				     .prp1 = nvme_iova(NVME_DATA),
				     .prp2 = nvme_iova(NVME_DATA + 4096),
				     .cdw10 = log | (bytes / 4 - 1) << 16,
				     .cdw12 = (uint32_t)offset,
				     .cdw13 = (uint32_t)(offset >> 32)};
}

static void logs(void **state)
{
	struct nvme_rig *f = *state;
	struct nvme_command bad = {.opcode = 0x7f, .nsid = 77};
	const uint8_t *d = f->mem + NVME_DATA;
	struct nvme_command cmd;
	uint16_t cid;

	/* Errors: newest first. */
	assert_int_equal(nvme_status(f, 0, &bad), NVME_INVALID_OPCODE);
	cid = f->next_cid;
	assert_int_equal(nvme_status(f, 0, &bad), NVME_INVALID_OPCODE);
	cmd = log_command(1, 256, 0);
	assert_int_equal(nvme_status(f, 0, &cmd), 0);
	assert_int_equal(field(d, 0, 8), 2);
	assert_int_equal(field(d, 8, 2), 0);
	assert_int_equal(field(d, 10, 2), cid);
	assert_int_equal(field(d, 12, 2) >> 1 & 0x7ff, NVME_INVALID_OPCODE);
	assert_int_equal(field(d, 24, 4), 77);
	assert_int_equal(field(d, 64, 8), 1);
	assert_int_equal(field(d, 128, 8), 0);
	/* From the second entry on. */
	cmd = log_command(1, 64, 64);
	assert_int_equal(nvme_status(f, 0, &cmd), 0);
	assert_int_equal(field(d, 0, 8), 1);
	/* Health: the errors are counted there too. */
	memset(f->mem + NVME_DATA, 0xa5, 1024);
	cmd = log_command(2, 1024, 0);
	assert_int_equal(nvme_status(f, 0, &cmd), 0);
	assert_int_equal(d[0], 0);
	assert_int_equal(field(d, 1, 2), 310);
	assert_int_equal(field(d, 176, 8), 2);
	assert_int_equal(d[512], 0xa5); /* nothing beyond the log */
	cmd = log_command(3, 512, 0);
	assert_int_equal(nvme_status(f, 0, &cmd), 0);
	assert_int_equal(d[0], 1);
	cmd = log_command(5, 4096, 0);
	assert_int_equal(nvme_status(f, 0, &cmd), 0);
	assert_int_equal(field(d, 4 * NVME_ADMIN_IDENTIFY, 4), 1);
	assert_int_equal(field(d, 4 * 0x7f, 4), 0);
	assert_int_equal(field(d, 1024 + 4 * NVME_IO_WRITE, 4), 3);
	cmd = log_command(4, 64, 0);
	assert_int_equal(nvme_status(f, 0, &cmd), NVME_INVALID_LOG);
	cmd = log_command(2, 64, 516);
	assert_int_equal(nvme_status(f, 0, &cmd), NVME_INVALID_FIELD);
	cmd = log_command(2, 64, 1ull << 40);
	assert_int_equal(nvme_status(f, 0, &cmd), NVME_INVALID_FIELD);
	cmd = log_command(2, 64, 2);
	assert_int_equal(nvme_status(f, 0, &cmd), NVME_INVALID_FIELD);
}

/* ---- queues ------------------------------------------------------------------------------ */

static void queue_errors(void **state)
{
	/* Pair 1 exists, and completion queue 2 alone. */
	static const struct {
		uint8_t opcode;
		uint32_t cdw10, cdw11;
		uint32_t offset;
		uint16_t status;
	} cases[] = {
		{NVME_ADMIN_CREATE_CQ, 15 << 16 | 0, 1, 0, NVME_INVALID_QUEUE_ID},
		{NVME_ADMIN_CREATE_CQ, 15 << 16 | 1, 1, 0, NVME_INVALID_QUEUE_ID},
		{NVME_ADMIN_CREATE_CQ, 15 << 16 | 5, 1, 0, NVME_INVALID_QUEUE_ID},
		{NVME_ADMIN_CREATE_CQ, 15 << 16 | 0xffff, 1, 0, NVME_INVALID_QUEUE_ID},
		{NVME_ADMIN_CREATE_CQ, 0 << 16 | 3, 1, 0, NVME_INVALID_QUEUE_SIZE},
		{NVME_ADMIN_CREATE_CQ, 4096 << 16 | 3, 1, 0, NVME_INVALID_QUEUE_SIZE},
		{NVME_ADMIN_CREATE_CQ, 15 << 16 | 3, 0, 0, NVME_INVALID_FIELD},
		{NVME_ADMIN_CREATE_CQ, 15 << 16 | 3, 1, 8, NVME_INVALID_PRP_OFFSET},
		{NVME_ADMIN_CREATE_CQ, 15 << 16 | 3, 5 << 16 | 3, 0, NVME_INVALID_VECTOR},
		{NVME_ADMIN_CREATE_SQ, 15 << 16 | 3, 0 << 16 | 1, 0, NVME_CQ_INVALID},
		{NVME_ADMIN_CREATE_SQ, 15 << 16 | 3, 3 << 16 | 1, 0, NVME_CQ_INVALID},
		{NVME_ADMIN_CREATE_SQ, 15 << 16 | 3, 600 << 16 | 1, 0, NVME_CQ_INVALID},
		{NVME_ADMIN_CREATE_SQ, 15 << 16 | 0, 2 << 16 | 1, 0, NVME_INVALID_QUEUE_ID},
		{NVME_ADMIN_CREATE_SQ, 15 << 16 | 1, 2 << 16 | 1, 0, NVME_INVALID_QUEUE_ID},
		{NVME_ADMIN_CREATE_SQ, 15 << 16 | 5, 2 << 16 | 1, 0, NVME_INVALID_QUEUE_ID},
		{NVME_ADMIN_CREATE_SQ, 0 << 16 | 3, 2 << 16 | 1, 0, NVME_INVALID_QUEUE_SIZE},
		{NVME_ADMIN_CREATE_SQ, 15 << 16 | 3, 2 << 16 | 0, 0, NVME_INVALID_FIELD},
		{NVME_ADMIN_CREATE_SQ, 15 << 16 | 3, 2 << 16 | 1, 512, NVME_INVALID_PRP_OFFSET},
		{NVME_ADMIN_DELETE_CQ, 0, 0, 0, NVME_INVALID_QUEUE_ID},
		{NVME_ADMIN_DELETE_CQ, 3, 0, 0, NVME_INVALID_QUEUE_ID},
		{NVME_ADMIN_DELETE_CQ, 0xffff, 0, 0, NVME_INVALID_QUEUE_ID},
		{NVME_ADMIN_DELETE_CQ, 1, 0, 0, NVME_INVALID_DELETION},
		{NVME_ADMIN_DELETE_SQ, 0, 0, 0, NVME_INVALID_QUEUE_ID},
		{NVME_ADMIN_DELETE_SQ, 2, 0, 0, NVME_INVALID_QUEUE_ID},
		{NVME_ADMIN_DELETE_SQ, 1, 0, 0, 0},
		{NVME_ADMIN_DELETE_SQ, 1, 0, 0, NVME_INVALID_QUEUE_ID},
		{NVME_ADMIN_DELETE_CQ, 1, 0, 0, 0},
		{NVME_ADMIN_DELETE_CQ, 2, 0, 0, 0},
		{NVME_ADMIN_DELETE_CQ, 2, 0, 0, NVME_INVALID_QUEUE_ID},
		{0x55, 0, 0, 0, NVME_INVALID_OPCODE},
		{0x10, 0, 0, 0, NVME_INVALID_OPCODE},
	};
	struct nvme_command alone = {.opcode = NVME_ADMIN_CREATE_CQ,
				     .prp1 = nvme_iova(NVME_DATA),
				     .cdw10 = 15 << 16 | 2,
				     .cdw11 = 1};
	struct nvme_rig *f = *state;

	nvme_create_queue(f, 1, 16, -1);
	assert_int_equal(nvme_status(f, 0, &alone), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct nvme_command cmd = {.opcode = cases[i].opcode,
					   .prp1 = nvme_iova(NVME_DATA) + cases[i].offset,
					   .cdw10 = cases[i].cdw10,
					   .cdw11 = cases[i].cdw11};
		uint16_t status = nvme_status(f, 0, &cmd);

		if (status != cases[i].status)
			fail_msg("case %u: 0x%x, not 0x%x", i, status, cases[i].status);
	}
	/* The client did not say how large the entries are. */
	nvme_disable(f);
	f->cc = NVME_CC_EN;
	nvme_enable(f);
	assert_int_equal(nvme_status(f, 0, &alone), NVME_INVALID_FIELD);
}

static void deleted_queues_are_quiet(void **state)
{
	struct nvme_command flush = {.opcode = NVME_IO_FLUSH, .nsid = 1};
	struct nvme_command del = {.opcode = NVME_ADMIN_DELETE_SQ, .cdw10 = 1};
	struct nvme_rig *f = *state;
	struct nvme_completion c;

	nvme_create_queue(f, 1, 16, -1);
	nvme_create_queue(f, 2, 16, -1);
	assert_int_equal(nvme_status(f, 1, &flush), 0);
	assert_int_equal(nvme_status(f, 0, &del), 0);
	nvme_push(f, 1, &flush);
	nvme_ring(f, 1);
	assert_int_equal(nvme_status(f, 2, &flush), 0);
	assert_int_equal(nvme_status(f, 2, &flush), 0);
	assert_false(nvme_poll(f, 1, &c));
}

static void a_queue_that_cannot_be_read_is_fatal(void **state)
{
	struct nvme_rig *f = *state;
	struct nvme_command flush = {.opcode = NVME_IO_FLUSH, .nsid = 1};

	nvme_enable(f);
	nvme_create_queue(f, 1, 16, -1);
	rig_unmap(&f->rig, NVME_IOVA, NVME_MEMORY);
	nvme_push(f, 1, &flush);
	nvme_ring(f, 1);
	nvme_await(f, NVME_REG_CSTS, ~0u, NVME_CSTS_RDY | NVME_CSTS_CFS);
	rig_map(&f->rig, f->mem, NVME_MEMORY, NVME_IOVA,
		IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE);
	nvme_disable(f);
	assert_int_equal(nvme_get(f, NVME_REG_CSTS), 0);
	nvme_enable(f);
	nvme_create_queue(f, 1, 16, -1);
	assert_int_equal(nvme_status(f, 1, &flush), 0);
	/* The same for one that cannot be written. */
	rig_unmap(&f->rig, NVME_IOVA, NVME_MEMORY);
	rig_map(&f->rig, f->mem, NVME_MEMORY, NVME_IOVA, IOMMU_IOAS_MAP_READABLE);
	nvme_push(f, 1, &flush);
	nvme_ring(f, 1);
	nvme_await(f, NVME_REG_CSTS, ~0u, NVME_CSTS_RDY | NVME_CSTS_CFS);
}

/* ---- events and aborts ------------------------------------------------------------------- */

static void events(void **state)
{
	struct nvme_rig *f = *state;
	struct nvme_command event = {.opcode = NVME_ADMIN_ASYNC_EVENT};
	struct nvme_command abort = {.opcode = NVME_ADMIN_ABORT};
	struct nvme_command flush = {.opcode = NVME_IO_FLUSH, .nsid = 1};
	struct nvme_command log = log_command(1, 64, 0);
	struct nvme_completion c;
	uint16_t cids[4];

	for (unsigned int i = 0; i < 4; i++)
		cids[i] = nvme_push(f, 0, &event);
	assert_int_equal(nvme_status(f, 0, &event), NVME_ASYNC_LIMIT);
	/* Aborted: its completion comes first. */
	abort.cdw10 = (uint32_t)cids[1] << 16;
	nvme_push(f, 0, &abort);
	nvme_ring(f, 0);
	c = nvme_wait(f, 0);
	assert_int_equal(c.cid, cids[1]);
	assert_int_equal(c.status >> 1, NVME_ABORTED_BY_REQUEST);
	c = nvme_wait(f, 0);
	assert_int_equal(c.status >> 1, 0);
	assert_int_equal(c.result, 0);
	nvme_ack(f, 0);
	/* It is not there any more, and another queue has none. */
	c = nvme_do(f, 0, &abort);
	assert_int_equal(c.result, 1);
	abort.cdw10 = (uint32_t)cids[0] << 16 | 1;
	c = nvme_do(f, 0, &abort);
	assert_int_equal(c.result, 1);

	/* A doorbell value that is no entry of the queue: told once, and ignored. */
	nvme_create_queue(f, 1, 16, -1);
	for (unsigned int i = 0; i < 2; i++) {
		nvme_set(f, NVME_REG_DOORBELLS + 8 + 4 * i, 16);
		/* The other kind of doorbell is looked at when there is something to complete. */
		if (i)
			assert_int_equal(nvme_status(f, 1, &flush), 0);
		c = nvme_wait(f, 0);
		nvme_ack(f, 0);
		assert_int_equal(c.status >> 1, 0);
		assert_int_equal(c.result, 0x00010100);
		/* Silence until the log has been read. */
		nvme_set(f, NVME_REG_DOORBELLS + 8, 0xffffffff);
		while (nvme_get(f, NVME_REG_DOORBELLS + 8) == 0xffffffff)
			sched_yield();
		assert_int_equal(nvme_status(f, 0, &log), 0);
		assert_false(nvme_poll(f, 0, &c));
	}
	assert_int_equal(nvme_status(f, 1, &flush), 0);
}

/* ---- interrupts -------------------------------------------------------------------------- */

static void message_interrupts(void **state)
{
	struct nvme_rig *f = *state;
	struct nvme_command flush = {.opcode = NVME_IO_FLUSH, .nsid = 1};
	int32_t efds[5];

	for (unsigned int i = 0; i < 5; i++)
		efds[i] = rig_eventfd();
	assert_int_equal(rig_arm(&f->rig, VFIO_PCI_MSIX_IRQ_INDEX, 0, 5, efds), 0);
	nvme_create_queue(f, 1, 16, 3);
	nvme_create_queue(f, 2, 16, -1);
	assert_true(rig_wait(efds[0]) >= 1);
	assert_int_equal(nvme_status(f, 1, &flush), 0);
	assert_true(rig_wait(efds[3]) >= 1);
	assert_int_equal(nvme_status(f, 2, &flush), 0);
	/* One after the other, so that what had to come has come. */
	assert_int_equal(nvme_status(f, 1, &flush), 0);
	assert_true(rig_wait(efds[3]) >= 1);
	assert_int_equal(rig_count(efds[1]) + rig_count(efds[2]) + rig_count(efds[4]), 0);
	for (unsigned int i = 0; i < 5; i++)
		close(efds[i]);
}

static void unmask(struct rig *rig)
{
	assert_int_equal(rig_set_irqs(rig, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
				      VFIO_PCI_INTX_IRQ_INDEX, 0, 1, NULL),
			 0);
}

static void line_interrupts(void **state)
{
	struct nvme_rig *f = *state;
	struct nvme_command flush = {.opcode = NVME_IO_FLUSH, .nsid = 1};
	int32_t efd = rig_eventfd();

	nvme_create_queue(f, 1, 16, 0);
	assert_int_equal(rig_arm(&f->rig, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, &efd), 0);
	nvme_push(f, 1, &flush);
	nvme_ring(f, 1);
	assert_int_equal(rig_wait(efd), 1);
	/* The line stays up until the completion has been taken. */
	unmask(&f->rig);
	assert_int_equal(rig_wait(efd), 1);
	nvme_wait(f, 1);
	nvme_ack(f, 1);
	nvme_await(f, NVME_REG_CSTS, NVME_CSTS_RDY, NVME_CSTS_RDY);
	while (vfio_irq_line(f->rig.dev))
		sched_yield();
	unmask(&f->rig);
	assert_int_equal(rig_count(efd), 0);
	/* Masked in the controller. */
	nvme_set(f, NVME_REG_INTMS, 1);
	nvme_push(f, 1, &flush);
	nvme_ring(f, 1);
	nvme_wait(f, 1);
	assert_false(vfio_irq_line(f->rig.dev));
	assert_int_equal(rig_count(efd), 0);
	nvme_set(f, NVME_REG_INTMC, 1);
	assert_int_equal(rig_wait(efd), 1);
	nvme_ack(f, 1);
	close(efd);
}

/* ---- resets ------------------------------------------------------------------------------ */

static void function_reset(void **state)
{
	struct nvme_rig *f = *state;
	struct nvme_command read = nvme_rw(NVME_IO_READ, 0, 256, NVME_DATA);
	static uint8_t before[NVME_MEMORY], after[NVME_MEMORY];

	read.prp2 = nvme_iova(0x1f000);
	for (unsigned int i = 0; i < 31; i++)
		((uint64_t *)(f->mem + 0x1f000))[i] = nvme_iova(NVME_DATA + 4096 * (i + 1));
	for (unsigned int round = 0; round < 20; round++) {
		nvme_enable(f);
		nvme_create_queue(f, 1, NVME_DEPTH, 1);
		for (unsigned int i = 0; i + 1 < NVME_DEPTH; i++)
			nvme_push(f, 1, &read);
		nvme_ring(f, 1);
		for (unsigned int i = 0; i < round; i++)
			sched_yield();
		rig_expect(&f->rig, VFIO_DEVICE_RESET, NULL, 0);
		/* Nothing is written any more. */
		memcpy(before, f->mem, sizeof(before));
		assert_int_equal(nvme_get(f, NVME_REG_CSTS), 0);
		assert_int_equal(nvme_get(f, NVME_REG_CC), 0);
		assert_int_equal(nvme_get(f, NVME_REG_AQA), 0);
		assert_int_equal(rig_read(&f->rig, 0, NVME_REG_ASQ, 8), 0);
		assert_int_equal(nvme_get(f, NVME_REG_DOORBELLS + 8), 0);
		assert_int_equal(rig_read(&f->rig, 0, NVME_REG_CAP, 8), NVME_CAP_VALUE);
		memcpy(after, f->mem, sizeof(after));
		assert_memory_equal(before, after, sizeof(before));
	}
}

static void closing_in_the_middle(void **state)
{
	struct nvme_rig *f = *state;
	struct nvme_command read = nvme_rw(NVME_IO_READ, 0, 16, NVME_DATA);
	static uint8_t before[NVME_MEMORY];

	read.prp2 = nvme_iova(NVME_DATA + 4096);
	for (unsigned int round = 0; round < 10; round++) {
		uint32_t pt_id = f->rig.ioas;

		nvme_enable(f);
		nvme_create_queue(f, 1, NVME_DEPTH, -1);
		for (unsigned int i = 0; i + 1 < NVME_DEPTH; i++)
			nvme_push(f, 1, &read);
		nvme_ring(f, 1);
		vfio_file_close(f->rig.file);
		memcpy(before, f->mem, sizeof(before));
		assert_int_equal(vfio_file_open(f->rig.dev, &f->rig.file), 0);
		assert_int_equal(rig_bind(&f->rig), 0);
		assert_memory_equal(before, f->mem, sizeof(before));
		assert_int_equal(rig_attach(&f->rig, &pt_id), 0);
		rig_write(&f->rig, CONFIG, 4, 2, 6);
	}
}

/* ---- registers in shared memory ---------------------------------------------------------- */

static uint8_t *map_bar(struct nvme_rig *f, uint64_t offset)
{
	struct vfio_area area;
	void *p;

	assert_int_equal(vfio_region_area(f->rig.dev, 0, offset, &area), 0);
	assert_int_equal(area.kind, VFIO_AREA_PAGES);
	assert_int_equal(area.offset, offset);
	p = mmap(NULL, area.length, PROT_READ | PROT_WRITE, MAP_SHARED, area.fd,
		 (off_t)area.fd_offset);
	assert_true(p != MAP_FAILED);
	return p;
}

/* Without a word to the device: it must look by itself, however long it has slept. */
static void doorbells_through_a_mapping(void **state)
{
	struct nvme_rig *f = *state;
	struct nvme_command flush = {.opcode = NVME_IO_FLUSH, .nsid = 1};
	uint8_t *bar = map_bar(f, 0x1000);

	nvme_create_queue(f, 1, 16, -1);
	for (unsigned int i = 0; i < 100; i++) {
		uint16_t cid = nvme_push(f, 1, &flush);

		if (i == 50)
			usleep(50000);
		__atomic_store_n((uint32_t *)(bar + 8), f->q[1].tail, __ATOMIC_RELEASE);
		assert_int_equal(nvme_wait(f, 1).cid, cid);
		__atomic_store_n((uint32_t *)(bar + 12), f->q[1].head, __ATOMIC_RELEASE);
	}
	munmap(bar, 4096);
}

static int setup_polled(void **state)
{
	static struct nvme_rig f;

	nvme_setup(&f, "mmio=poll,queues=4");
	*state = &f;
	return 0;
}

static uint32_t load(const uint8_t *bar, unsigned int reg)
{
	return __atomic_load_n((const uint32_t *)(bar + reg), __ATOMIC_ACQUIRE);
}

static void store(uint8_t *bar, unsigned int reg, uint32_t value)
{
	__atomic_store_n((uint32_t *)(bar + reg), value, __ATOMIC_RELEASE);
}

static void all_registers_through_a_mapping(void **state)
{
	struct vfio_region_info info = {.argsz = sizeof(info), .index = 0};
	struct nvme_rig *f = *state;
	uint8_t *bar = map_bar(f, 0);

	rig_expect(&f->rig, VFIO_DEVICE_GET_REGION_INFO, &info, 0);
	assert_int_equal(info.flags & VFIO_REGION_INFO_FLAG_MMAP, VFIO_REGION_INFO_FLAG_MMAP);
	assert_int_equal(load(bar, NVME_REG_CAP), (uint32_t)NVME_CAP_VALUE);
	assert_int_equal(load(bar, NVME_REG_VS), 0x10400);
	for (unsigned int round = 0; round < 3; round++) {
		struct nvme_command cmd = identify_command(1, 0);
		uint16_t cid;

		f->q[0].tail = f->q[0].head = 0;
		f->q[0].sq_size = f->q[0].cq_size = 32;
		f->q[0].phase = 1;
		memset(f->mem + 4096, 0, 4096);
		store(bar, NVME_REG_AQA, 31 << 16 | 31);
		store(bar, NVME_REG_ASQ + 4, 0);
		store(bar, NVME_REG_ASQ, (uint32_t)NVME_IOVA);
		store(bar, NVME_REG_ACQ, (uint32_t)NVME_IOVA + 4096);
		store(bar, NVME_REG_CC, f->cc);
		while (!(load(bar, NVME_REG_CSTS) & NVME_CSTS_RDY))
			sched_yield();
		cid = nvme_push(f, 0, &cmd);
		store(bar, NVME_REG_DOORBELLS, f->q[0].tail);
		assert_int_equal(nvme_wait(f, 0).cid, cid);
		store(bar, NVME_REG_DOORBELLS + 4, f->q[0].head);
		store(bar, NVME_REG_CC, 0);
		while (load(bar, NVME_REG_CSTS))
			sched_yield();
	}
	/* Set and clear meet the mask after a moment. */
	store(bar, NVME_REG_INTMS, 0xf0);
	while (load(bar, NVME_REG_INTMC) != 0xf0)
		sched_yield();
	store(bar, NVME_REG_INTMC, 0x30);
	while (load(bar, NVME_REG_INTMS) != 0xc0 || load(bar, NVME_REG_INTMC) != 0xc0)
		sched_yield();
	munmap(bar, 0x4000);
}

/* ---- options ----------------------------------------------------------------------------- */

static void options(void **state)
{
	static const struct {
		const char *options;
		int rc;
	} cases[] = {
		{"", 0},
		{"size=1M", 0},
		{"size=0x200000", 0},
		{"size=2G,namespaces=64,block_size=4096,queues=511,vectors=512", 0},
		{"queues=511", 0},
		{"mmio=poll", 0},
		{"mmio=trap,serial=12345678901234567890", 0},
		{"serial=123456789012345678901", -EINVAL},
		{"mmio=both", -EINVAL},
		{"size=1000", -EINVAL},
		{"size=1X", -EINVAL},
		{"size=1MM", -EINVAL},
		{"size=M", -EINVAL},
		{"size=99999999T", -EINVAL},
		{"block_size=1000", -EINVAL},
		{"block_size=8192", -EINVAL},
		{"namespaces=0", -EINVAL},
		{"namespaces=65", -EINVAL},
		{"queues=512", -EINVAL},
		{"vectors=0", -EINVAL},
		{"read_only=2", -EINVAL},
		{"file=/nonexistent/disk", -ENOENT},
		{"file=/proc/self/status", -EINVAL},
		{"unknown=1", -EINVAL},
	};
	const struct vfio_model *model = vfio_model_find("nvme");
	struct vfio_device_place place = {.bdf = "0000:5e:00.0"};
	struct iommu_group group;

	(void)state;
	assert_int_equal(iommu_group_init(&group, 5), 0);
	place.group = &group;
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vfio_device *dev = NULL;
		struct swi_reason why = {""};
		int rc = vfio_device_create(model, &place, cases[i].options, &dev, &why);

		if (rc != cases[i].rc || (rc && !why.text[0]))
			fail_msg("%s: %d (%s)", cases[i].options, rc, why.text);
		if (!rc)
			vfio_device_destroy(dev);
	}
	iommu_group_fini(&group);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define E(f) cmocka_unit_test_setup_teardown(f, setup_enabled, teardown)
	const struct CMUnitTest tests[] = {
		T(registers),
		T(enable_and_disable),
		T(impossible_settings_are_fatal),
		T(shutdown_is_acknowledged),
		E(identify_controller),
		E(identify_namespaces),
		E(identify_errors),
		E(features),
		E(logs),
		E(queue_errors),
		E(deleted_queues_are_quiet),
		T(a_queue_that_cannot_be_read_is_fatal),
		E(events),
		E(message_interrupts),
		E(line_interrupts),
		T(function_reset),
		T(closing_in_the_middle),
		E(doorbells_through_a_mapping),
		cmocka_unit_test_setup_teardown(all_registers_through_a_mapping, setup_polled,
						teardown),
		cmocka_unit_test(options),
	};

	return cmocka_run_group_tests_name("vfio_nvme", tests, NULL, NULL);
}
