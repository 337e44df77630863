// SPDX-License-Identifier: MIT
/* The NVMe model: I/O commands, their data (PRPs), the disk, and clients that do what they must not. */
#include "nvme_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "mem/guard.h"
#include "vfio/models/nvme/nvme.h"

#define LIST 0x1e000u /* two pages for PRP lists */
#define PAGE 4096u

static int setup(void **state)
{
	static struct nvme_rig f;

	nvme_setup_io(&f, "size=8M,namespaces=2");
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	nvme_teardown(*state);
	return 0;
}

static uint16_t io(struct nvme_rig *f, const struct nvme_command *cmd)
{
	return nvme_status(f, 1, cmd);
}

/* ---- data -------------------------------------------------------------------------------- */

/* Where the pages of a transfer lie, in the order of the data: scattered, no two of them neighbours. */
static uint32_t scattered(unsigned int i)
{
	return NVME_DATA + ((i * 7) % 64 * 2) * PAGE;
}

static uint64_t *list_at(struct nvme_rig *f, uint32_t offset)
{
	return (uint64_t *)(f->mem + offset);
}

/*
 * Fills in PRPs for `length` bytes that begin `offset` bytes into the first of the scattered pages. A list begins at
 * `list`; when it reaches the end of its page it goes on at LIST + PAGE.
 */
static void scatter(struct nvme_rig *f, struct nvme_command *cmd, uint32_t offset, uint32_t length,
		    uint32_t list)
{
	unsigned int pages = (offset + length + PAGE - 1) / PAGE;
	uint64_t *entry = list_at(f, list);

	cmd->prp1 = nvme_iova(scattered(0)) + offset;
	cmd->prp2 = 0xdeadbeef; /* not looked at */
	if (pages == 2)
		cmd->prp2 = nvme_iova(scattered(1));
	if (pages <= 2)
		return;
	cmd->prp2 = nvme_iova(list);
	for (unsigned int i = 1; i < pages; i++) {
		if ((uintptr_t)(entry + 1) % PAGE == 0 && i + 1 < pages) {
			*entry = nvme_iova(LIST + PAGE);
			entry = list_at(f, LIST + PAGE);
		}
		*entry++ = nvme_iova(scattered(i));
	}
}

static uint8_t *data_at(struct nvme_rig *f, uint32_t offset, uint32_t i)
{
	return f->mem + scattered((offset + i) / PAGE) + (offset + i) % PAGE;
}

static void transfers_of_every_shape(void **state)
{
	static const struct {
		uint32_t offset, blocks, list;
	} cases[] = {
		{0, 1, 0},
		{512, 1, 0},
		{3584, 1, 0},
		{3588, 1, 0},
		{0, 8, 0},
		{4, 8, 0},
		{512, 8, 0},
		{4092, 8, 0},
		{0, 9, 0},
		{0, 16, 0},
		{512, 16, LIST},
		{0, 17, LIST},
		{0, 24, LIST},
		{0, 24, LIST + 8},
		{0, 24, LIST + PAGE - 16},
		{0, 256, LIST},
		{2048, 256, LIST},
		{4, 255, LIST + 1000 * 4},
		{0, 256, LIST + PAGE - 8 * 31},
		{0, 256, LIST + PAGE - 8 * 30},
		{0, 256, LIST + PAGE - 8},
		{512, 256, LIST + PAGE - 16},
		{4, 256, LIST + PAGE - 8 * 32},
	};
	struct nvme_rig *f = *state;

	for (unsigned int c = 0; c < ARRAY_SIZE(cases); c++) {
		uint32_t length = cases[c].blocks * 512, offset = cases[c].offset;
		struct nvme_command w = nvme_rw(NVME_IO_WRITE, 100 * c, cases[c].blocks, 0);
		struct nvme_command r = nvme_rw(NVME_IO_READ, 100 * c, cases[c].blocks, 0x300000);
		uint8_t *flat = f->mem + 0x300000;

		memset(f->mem + NVME_DATA, 0x11, 0x200000);
		for (uint32_t i = 0; i < length; i++)
			*data_at(f, offset, i) = (uint8_t)(i * 31 + i / 512 + c);
		scatter(f, &w, offset, length, cases[c].list);
		if (io(f, &w))
			fail_msg("case %u: write failed", c);
		/* Read back to one place, by a list of neighbours. */
		memset(flat, 0, length);
		for (unsigned int i = 0; i < 32; i++)
			list_at(f, LIST)[i] = nvme_iova(0x300000 + (i + 1) * PAGE);
		r.prp2 = length <= 2 * PAGE ? nvme_iova(0x301000) : nvme_iova(LIST);
		if (io(f, &r))
			fail_msg("case %u: read failed", c);
		for (uint32_t i = 0; i < length; i++)
			if (flat[i] != (uint8_t)(i * 31 + i / 512 + c))
				fail_msg("case %u: byte %u is wrong on the disk", c, i);
		/* And scattered; nothing around the buffer changes. */
		memset(f->mem + NVME_DATA, 0x22, 0x200000);
		r = nvme_rw(NVME_IO_READ, 100 * c, cases[c].blocks, 0);
		scatter(f, &r, offset, length, cases[c].list);
		if (io(f, &r))
			fail_msg("case %u: scattered read failed", c);
		for (uint32_t i = 0; i < length; i++)
			if (*data_at(f, offset, i) != (uint8_t)(i * 31 + i / 512 + c))
				fail_msg("case %u: byte %u is wrong in memory", c, i);
		if (offset)
			assert_int_equal(*(data_at(f, offset, 0) - 1), 0x22);
		if ((offset + length) % PAGE)
			assert_int_equal(*(data_at(f, offset, length - 1) + 1), 0x22);
		assert_int_equal(f->mem[scattered(0) + PAGE], 0x22);
	}
}

static void errors(void **state)
{
	/* A namespace has 8192 blocks. */
	static const struct {
		uint8_t opcode, flags;
		uint32_t nsid;
		uint64_t lba;
		uint32_t blocks;
		uint64_t prp1, prp2; /* offsets of the memory */
		uint16_t status;
	} cases[] = {
		{NVME_IO_READ, 0, 1, 8191, 1, NVME_DATA, 0, 0},
		{NVME_IO_READ, 0, 2, 8191, 1, NVME_DATA, 0, 0},
		{NVME_IO_READ, 0, 1, 8192, 1, NVME_DATA, 0, NVME_LBA_RANGE},
		{NVME_IO_READ, 0, 1, 8191, 2, NVME_DATA, 0, NVME_LBA_RANGE},
		{NVME_IO_WRITE, 0, 1, 8191, 2, NVME_DATA, 0, NVME_LBA_RANGE},
		{NVME_IO_WRITE_ZEROES, 0, 1, 8191, 2, 0, 0, NVME_LBA_RANGE},
		{NVME_IO_READ, 0, 1, UINT64_MAX, 1, NVME_DATA, 0, NVME_LBA_RANGE},
		{NVME_IO_READ, 0, 1, UINT64_MAX, 2, NVME_DATA, 0, NVME_LBA_RANGE},
		{NVME_IO_READ, 0, 0, 0, 1, NVME_DATA, 0, NVME_INVALID_NAMESPACE},
		{NVME_IO_READ, 0, 3, 0, 1, NVME_DATA, 0, NVME_INVALID_NAMESPACE},
		{NVME_IO_READ, 0, NVME_NSID_ALL, 0, 1, NVME_DATA, 0, NVME_INVALID_NAMESPACE},
		{NVME_IO_DSM, 0, 3, 0, 1, NVME_DATA, 0, NVME_INVALID_NAMESPACE},
		{NVME_IO_WRITE_ZEROES, 0, 0, 0, 1, 0, 0, NVME_INVALID_NAMESPACE},
		{NVME_IO_FLUSH, 0, 3, 0, 1, 0, 0, NVME_INVALID_NAMESPACE},
		{NVME_IO_FLUSH, 0, NVME_NSID_ALL, 0, 1, 0, 0, 0},
		{NVME_IO_READ, 0, 1, 0, 257, NVME_DATA, LIST, NVME_INVALID_FIELD},
		{NVME_IO_READ, 0, 1, 0, 65536, NVME_DATA, LIST, NVME_INVALID_FIELD},
		{NVME_IO_READ, 1, 1, 0, 1, NVME_DATA, 0, NVME_INVALID_FIELD},	 /* fused */
		{NVME_IO_READ, 0x40, 1, 0, 1, NVME_DATA, 0, NVME_INVALID_FIELD}, /* SGL */
		{NVME_IO_READ, 0, 1, 0, 1, NVME_DATA + 2, 0, NVME_INVALID_PRP_OFFSET},
		{NVME_IO_READ, 0, 1, 0, 16, NVME_DATA, NVME_DATA + 8, NVME_INVALID_PRP_OFFSET},
		{NVME_IO_READ, 0, 1, 0, 32, NVME_DATA, LIST + 4, NVME_INVALID_PRP_OFFSET},
		{NVME_IO_READ, 0, 1, 0, 1, NVME_MEMORY, 0, NVME_DATA_TRANSFER_ERROR},
		{NVME_IO_WRITE, 0, 1, 0, 1, NVME_MEMORY, 0, NVME_DATA_TRANSFER_ERROR},
		{NVME_IO_READ, 0, 1, 0, 16, NVME_DATA, NVME_MEMORY, NVME_DATA_TRANSFER_ERROR},
		{NVME_IO_READ, 0, 1, 0, 32, NVME_DATA, NVME_MEMORY, NVME_DATA_TRANSFER_ERROR},
		{NVME_IO_READ, 0, 1, 0, 16, NVME_MEMORY - PAGE, NVME_MEMORY,
		 NVME_DATA_TRANSFER_ERROR},
		{NVME_IO_DSM, 0, 1, 0, 1, NVME_MEMORY, 0, NVME_DATA_TRANSFER_ERROR},
		{0x05, 0, 1, 0, 1, NVME_DATA, 0, NVME_INVALID_OPCODE}, /* compare */
		{0x80, 0, 1, 0, 1, NVME_DATA, 0, NVME_INVALID_OPCODE},
		{0xff, 0, 99, 0, 1, NVME_DATA, 0, NVME_INVALID_OPCODE},
	};
	struct nvme_rig *f = *state;

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct nvme_command cmd =
			nvme_rw(cases[i].opcode, cases[i].lba, cases[i].blocks, 0);
		uint16_t status;

		cmd.flags = cases[i].flags;
		cmd.nsid = cases[i].nsid;
		cmd.prp1 = NVME_IOVA + cases[i].prp1;
		cmd.prp2 = NVME_IOVA + cases[i].prp2;
		status = io(f, &cmd);
		if (status != cases[i].status)
			fail_msg("case %u: 0x%x, not 0x%x", i, status, cases[i].status);
	}
}

static void bad_lists(void **state)
{
	struct nvme_rig *f = *state;
	struct nvme_command cmd = nvme_rw(NVME_IO_READ, 0, 256, 0);
	uint64_t *last = list_at(f, LIST + PAGE - 8);

	/* An entry inside a page. */
	scatter(f, &cmd, 0, 256 * 512, LIST);
	list_at(f, LIST)[20] += 8;
	assert_int_equal(io(f, &cmd), NVME_INVALID_PRP_OFFSET);
	/* One that is not mapped. */
	list_at(f, LIST)[20] = nvme_iova(NVME_MEMORY);
	assert_int_equal(io(f, &cmd), NVME_DATA_TRANSFER_ERROR);
	/* The next page of the list: inside a page, not mapped. */
	scatter(f, &cmd, 0, 256 * 512, LIST + PAGE - 64);
	assert_int_equal(io(f, &cmd), 0);
	*last += 8;
	assert_int_equal(io(f, &cmd), NVME_INVALID_PRP_OFFSET);
	*last = nvme_iova(NVME_MEMORY);
	assert_int_equal(io(f, &cmd), NVME_DATA_TRANSFER_ERROR);
	/* A list that names itself as its next page ends all the same: its entries are looked at as data. */
	for (unsigned int i = 0; i < 512; i++)
		list_at(f, LIST)[i] = nvme_iova(LIST + PAGE * (i % 2));
	cmd.opcode = NVME_IO_WRITE;
	cmd.prp2 = nvme_iova(LIST + PAGE - 8);
	*last = nvme_iova(LIST);
	assert_int_equal(io(f, &cmd), 0);
}

/* ---- queues ------------------------------------------------------------------------------ */

static void many_commands_at_once(void **state)
{
	struct nvme_rig *f = *state;
	unsigned int sent = 0, done = 0;
	uint16_t first_cid = f->next_cid;
	struct nvme_completion c;

	for (unsigned int i = 0; i < 8192; i++)
		((uint64_t *)(f->mem + NVME_DATA))[i] = i;
	for (unsigned int i = 0; i < 128; i++) {
		struct nvme_command w = nvme_rw(NVME_IO_WRITE, i, 1, NVME_DATA + 512 * i);

		assert_int_equal(io(f, &w), 0);
	}
	first_cid = f->next_cid;
	/* As many as fit, in lumps of all sizes. */
	while (done < 20000) {
		unsigned int lump = 1 + (sent * 7919u) % (NVME_DEPTH - 1);

		while (lump-- && sent - done < NVME_DEPTH - 1 && sent < 20000) {
			unsigned int slot = sent % NVME_DEPTH;
			struct nvme_command r =
				nvme_rw(NVME_IO_READ, sent % 128, 1, 0x200000 + 512 * slot);

			nvme_push(f, 1, &r);
			sent++;
		}
		nvme_ring(f, 1);
		do {
			c = nvme_wait(f, 1);
			assert_int_equal(c.cid, (uint16_t)(first_cid + done));
			assert_int_equal(c.status >> 1, 0);
			assert_int_equal(((uint64_t *)(f->mem + 0x200000))[done % NVME_DEPTH * 64],
					 done % 128 * 64);
			done++;
		} while (done < sent && done % 5);
		nvme_ack(f, 1);
	}
	assert_false(nvme_poll(f, 1, &c));
}

static void a_full_completion_queue_stops_the_controller(void **state)
{
	struct nvme_rig *f = *state;
	struct nvme_command flush = {.opcode = NVME_IO_FLUSH, .nsid = 1};
	struct nvme_command del = {.opcode = NVME_ADMIN_DELETE_SQ, .cdw10 = 1};
	struct nvme_command cq = {.opcode = NVME_ADMIN_CREATE_CQ,
				  .prp1 = nvme_iova(5 * PAGE),
				  .cdw10 = 3 << 16 | 2,
				  .cdw11 = 1};
	struct nvme_command sq = {.opcode = NVME_ADMIN_CREATE_SQ,
				  .prp1 = nvme_iova(4 * PAGE),
				  .cdw10 = 63 << 16 | 2,
				  .cdw11 = 2 << 16 | 1};
	struct nvme_completion c;

	assert_int_equal(nvme_status(f, 0, &del), 0);
	/* Four entries, so three completions. */
	assert_int_equal(nvme_status(f, 0, &cq), 0);
	assert_int_equal(nvme_status(f, 0, &sq), 0);
	f->q[2].sq_size = 64;
	f->q[2].cq_size = 4;
	f->q[2].phase = 1;
	for (unsigned int i = 0; i < 50; i++)
		nvme_push(f, 2, &flush);
	nvme_ring(f, 2);
	for (unsigned int i = 0; i < 50; i++) {
		c = nvme_wait(f, 2);
		assert_int_equal(c.sq_head, i + 1);
		if (i % 3 != 2 && i != 49)
			continue;
		/* The controller lives, but takes nothing from this queue. */
		assert_int_equal(
			nvme_status(f, 0,
				    &(struct nvme_command){.opcode = NVME_ADMIN_GET_FEATURES,
							   .cdw10 = 7}),
			0);
		assert_false(nvme_poll(f, 2, &c));
		nvme_ack(f, 2);
	}
}

/* ---- the disk ---------------------------------------------------------------------------- */

static void check_blocks(struct nvme_rig *f, uint64_t lba, unsigned int nr, uint8_t value)
{
	for (unsigned int i = 0; i < nr; i++) {
		struct nvme_command r = nvme_rw(NVME_IO_READ, lba + i, 1, NVME_DATA);

		memset(f->mem + NVME_DATA, 0x77, 512);
		assert_int_equal(io(f, &r), 0);
		for (unsigned int k = 0; k < 512; k++)
			if (f->mem[NVME_DATA + k] != value)
				fail_msg("LBA %llu: 0x%x, not 0x%x", (unsigned long long)(lba + i),
					 f->mem[NVME_DATA + k], value);
	}
}

static void fill_blocks(struct nvme_rig *f, uint64_t lba, unsigned int nr, uint8_t value)
{
	memset(f->mem + NVME_DATA, value, 512);
	for (unsigned int i = 0; i < nr; i++) {
		struct nvme_command w = nvme_rw(NVME_IO_WRITE, lba + i, 1, NVME_DATA);

		assert_int_equal(io(f, &w), 0);
	}
}

static void zeroing_and_deallocating(void **state)
{
	struct nvme_rig *f = *state;
	struct nvme_command zero = nvme_rw(NVME_IO_WRITE_ZEROES, 10, 20, 0);
	struct nvme_command dsm = {.opcode = NVME_IO_DSM,
				   .nsid = 1,
				   .prp1 = nvme_iova(0x30000),
				   .cdw10 = 1,
				   .cdw11 = 4};
	struct {
		uint32_t attributes, blocks;
		uint64_t lba;
	} *range = (void *)(f->mem + 0x30000);

	fill_blocks(f, 0, 64, 0x5a);
	assert_int_equal(io(f, &zero), 0);
	check_blocks(f, 0, 10, 0x5a);
	check_blocks(f, 10, 20, 0);
	check_blocks(f, 30, 34, 0x5a);
	range[0].lba = 3;
	range[0].blocks = 2;
	range[1].lba = 40;
	range[1].blocks = 9;
	assert_int_equal(io(f, &dsm), 0);
	check_blocks(f, 0, 3, 0x5a);
	check_blocks(f, 3, 2, 0);
	check_blocks(f, 5, 5, 0x5a);
	check_blocks(f, 40, 9, 0);
	check_blocks(f, 49, 15, 0x5a);
	/* A bad range: none is carried out. Without the deallocate bit: nothing is. */
	range[0].lba = 0;
	range[1].lba = 8190;
	assert_int_equal(io(f, &dsm), NVME_LBA_RANGE);
	dsm.cdw10 = 0;
	dsm.cdw11 = 1;
	assert_int_equal(io(f, &dsm), 0);
	check_blocks(f, 0, 2, 0x5a);
	/* The other namespace has its own blocks. */
	zero.nsid = 2;
	zero.cdw10 = 0;
	assert_int_equal(io(f, &zero), 0);
	check_blocks(f, 0, 3, 0x5a);
}

static void large_blocks(void **state)
{
	struct nvme_command w, r;
	struct nvme_rig f;

	(void)state;
	nvme_setup_io(&f, "size=1M,block_size=4096");
	memset(f.mem + NVME_DATA, 0xcd, 4096);
	w = nvme_rw(NVME_IO_WRITE, 255, 1, NVME_DATA);
	assert_int_equal(io(&f, &w), 0);
	r = nvme_rw(NVME_IO_READ, 255, 1, NVME_DATA + 4096);
	assert_int_equal(io(&f, &r), 0);
	assert_memory_equal(f.mem + NVME_DATA, f.mem + NVME_DATA + 4096, 4096);
	r.cdw10 = 256;
	assert_int_equal(io(&f, &r), NVME_LBA_RANGE);
	nvme_teardown(&f);
}

static char path[64];

static void make_file(off_t size)
{
	int fd;

	snprintf(path, sizeof(path), "/tmp/swiommu-test-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

static void file_bytes(off_t at, void *buf, size_t len, bool write)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_int_equal(write ? pwrite(fd, buf, len, at) : pread(fd, buf, len, at), len);
	close(fd);
}

static void a_file_as_the_disk(void **state)
{
	struct nvme_command flush = {.opcode = NVME_IO_FLUSH, .nsid = 1}, cmd;
	uint8_t block[512], options[128];
	struct nvme_rig f;
	struct stat st;

	(void)state;
	make_file(1 << 20);
	snprintf((char *)options, sizeof(options), "file=%s,size=2M", path);
	nvme_setup_io(&f, (char *)options);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 2 << 20);
	memset(f.mem + NVME_DATA, 0xab, 512);
	cmd = nvme_rw(NVME_IO_WRITE, 4095, 1, NVME_DATA);
	cmd.cdw12 |= NVME_RW_FUA;
	assert_int_equal(io(&f, &cmd), 0);
	assert_int_equal(io(&f, &flush), 0);
	file_bytes(4095 * 512, block, 512, false);
	assert_memory_equal(block, f.mem + NVME_DATA, 512);
	/* It has a cache that can be switched off. */
	cmd = (struct nvme_command){.opcode = NVME_ADMIN_SET_FEATURES, .cdw10 = 6};
	assert_int_equal(nvme_status(&f, 0, &cmd), 0);
	fill_blocks(&f, 0, 2, 0x31);
	cmd.opcode = NVME_ADMIN_GET_FEATURES;
	assert_int_equal(nvme_do(&f, 0, &cmd).result, 0);
	nvme_teardown(&f);
	file_bytes(512, block, 512, false);
	assert_int_equal(block[511], 0x31);

	/* As it is, and read only. */
	memset(block, 0x66, 512);
	file_bytes(0, block, 512, true);
	snprintf((char *)options, sizeof(options), "file=%s,read_only=1", path);
	nvme_setup_io(&f, (char *)options);
	check_blocks(&f, 0, 1, 0x66);
	check_blocks(&f, 4095, 1, 0xab);
	cmd = nvme_rw(NVME_IO_WRITE, 0, 1, NVME_DATA);
	assert_int_equal(io(&f, &cmd), NVME_WRITE_PROTECTED);
	cmd = nvme_rw(NVME_IO_WRITE_ZEROES, 0, 1, 0);
	assert_int_equal(io(&f, &cmd), NVME_WRITE_PROTECTED);
	assert_int_equal(io(&f, &flush), 0);
	check_blocks(&f, 0, 1, 0x66);
	nvme_teardown(&f);
	unlink(path);
}

static void a_file_that_is_truncated(void **state)
{
	struct nvme_command cmd;
	uint8_t options[128];
	struct nvme_rig f;

	(void)state;
	assert_int_equal(mem_guard_install(), 0);
	make_file(1 << 20);
	snprintf((char *)options, sizeof(options), "file=%s", path);
	nvme_setup_io(&f, (char *)options);
	fill_blocks(&f, 100, 1, 1);
	assert_int_equal(truncate(path, 4096), 0);
	for (unsigned int i = 0; i < 3; i++) {
		cmd = nvme_rw(NVME_IO_READ, 100, 1, NVME_DATA);
		assert_int_equal(io(&f, &cmd), NVME_DATA_TRANSFER_ERROR);
		cmd = nvme_rw(NVME_IO_WRITE, 100, 1, NVME_DATA);
		assert_int_equal(io(&f, &cmd), NVME_DATA_TRANSFER_ERROR);
	}
	check_blocks(&f, 0, 1, 0);
	nvme_teardown(&f);
	unlink(path);
}

/* ---- hostile clients --------------------------------------------------------------------- */

static uint64_t random_state;

static uint64_t rnd(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* An address: in the memory, at its edges, or anywhere. */
static uint64_t random_address(void)
{
	switch (rnd() % 8) {
	case 0:
		return rnd();
	case 1:
		return NVME_IOVA + NVME_MEMORY - 4096 + (rnd() % 16) * 512;
	case 2:
		return UINT64_MAX - rnd() % 8192;
	default:
		return NVME_IOVA + 0x100000 + (rnd() % 256) * (rnd() % 4 ? 4096 : 4);
	}
}

static struct nvme_command random_command(void)
{
	static const uint8_t admin[] = {0, 1, 2, 4, 5, 6, 8, 9, 10, 12};
	struct nvme_command c = {
		.opcode = rnd() % 16 ? admin[rnd() % sizeof(admin)] : (uint8_t)rnd(),
		.flags = rnd() % 32 ? 0 : (uint8_t)rnd(),
		.nsid = rnd() % 8 ? (uint32_t)(rnd() % 4) : (uint32_t)rnd(),
		.prp1 = random_address(),
		.prp2 = random_address(),
		.cdw10 = rnd() % 4 ? (uint32_t)(rnd() % 8 | (rnd() % 32) << 16) : (uint32_t)rnd(),
		.cdw11 = rnd() % 4 ? (uint32_t)(rnd() % 4 | (rnd() % 8) << 16) : (uint32_t)rnd(),
		.cdw12 = rnd() % 4 ? (uint32_t)(rnd() % 256) : (uint32_t)rnd(),
	};

	return c;
}

static void random_clients(void **state)
{
	struct nvme_rig f;
	struct timespec t;

	(void)state;
	clock_gettime(CLOCK_REALTIME, &t);
	random_state = (uint64_t)t.tv_nsec * 2654435761u + (uint64_t)t.tv_sec + 1;
	print_message("seed %llu\n", (unsigned long long)random_state);
	nvme_setup(&f, "size=4M,queues=4,namespaces=3");
	for (unsigned int round = 0; round < 200; round++) {
		nvme_enable(&f);
		/* Lists and ranges are found where the commands point to. */
		for (unsigned int i = 0; i < 0x100000 / 8; i += 1 + rnd() % 4)
			((uint64_t *)(f.mem + 0x100000))[i] = random_address();
		for (unsigned int i = 0; i < 100; i++) {
			struct nvme_command c = random_command();

			nvme_push(&f, 0, &c);
			/* The admin queue's completions are taken blindly. */
			f.q[0].head = f.q[0].tail;
			nvme_ring(&f, 0);
			nvme_ack(&f, 0);
			if (rnd() % 8 == 0)
				nvme_set(&f, NVME_REG_DOORBELLS + 4 * (uint32_t)(rnd() % 12),
					 rnd() % 4 ? (uint32_t)(rnd() % 64) : (uint32_t)rnd());
			if (rnd() % 64 == 0)
				nvme_set(&f, (uint32_t)(rnd() % 16) * 4, (uint32_t)rnd());
		}
		if (rnd() % 2)
			rig_expect(&f.rig, VFIO_DEVICE_RESET, NULL, 0);
		else
			nvme_disable(&f);
		/* Whatever it was: the controller did not hang. */
		nvme_await(&f, NVME_REG_CSTS, NVME_CSTS_RDY | NVME_CSTS_CFS, 0);
	}
	/* And it is as good as new. */
	nvme_enable(&f);
	nvme_create_queue(&f, 1, NVME_DEPTH, -1);
	fill_blocks(&f, 0, 2, 0x42);
	check_blocks(&f, 0, 2, 0x42);
	nvme_teardown(&f);
}

/* A file system that cannot punch holes: what must be written instead may be the whole disk. */
static void zeroing_ends_with_a_reset(void **state)
{
	static uint8_t bytes[4 * PAGE];
	struct nvme_disk disk = {.fd = -1, .map = bytes, .size = sizeof(bytes)};
	atomic_bool abort = true;

	(void)state;
	memset(bytes, 0x5a, sizeof(bytes));
	assert_int_equal(nvme_disk_zero(&disk, 0, sizeof(bytes), &abort), -ECANCELED);
	assert_int_equal(bytes[sizeof(bytes) - 1], 0x5a);
	abort = false;
	assert_int_equal(nvme_disk_zero(&disk, 512, sizeof(bytes) - 1024, &abort), 0);
	assert_int_equal(bytes[511], 0x5a);
	assert_int_equal(bytes[512], 0);
	assert_int_equal(bytes[sizeof(bytes) - 513], 0);
	assert_int_equal(bytes[sizeof(bytes) - 512], 0x5a);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zeroing_ends_with_a_reset),
		T(transfers_of_every_shape),
		T(errors),
		T(bad_lists),
		T(many_commands_at_once),
		T(a_full_completion_queue_stops_the_controller),
		T(zeroing_and_deallocating),
		cmocka_unit_test(large_blocks),
		cmocka_unit_test(a_file_as_the_disk),
		cmocka_unit_test(a_file_that_is_truncated),
		cmocka_unit_test(random_clients),
	};

	return cmocka_run_group_tests_name("vfio_nvme_io", tests, NULL, NULL);
}
