// SPDX-License-Identifier: MIT
/* The ioat model, driven as its clients drive it: spec vfio.md 7.2. */
#include "rig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CHANCTRL 0x80
#define CHANCMD 0x84
#define COUNT 0x86
#define STATUS 0x88
#define CHAIN 0x90
#define COMPLETION 0x98
#define CHANERR 0xa8

#define CMD_RESET 0x20
#define CMD_SUSPEND 0x04

#define ACTIVE 0
#define DONE 1
#define SUSPENDED 2
#define HALTED 3
#define ARMED 4

#define D_INTERRUPT 1u
#define D_COMPLETION 8u
#define D_NULL 0x20u
#define D_FILL (1u << 24)

struct desc {
	uint32_t size, control;
	uint64_t source, destination, next;
	uint64_t unused[4];
};

/* One mapping of 2 MiB: descriptors, completion, source, destination. */
#define LEN (2u << 20)
#define IOVA 0x10000000ull
#define AT_COMPLETION 0xf000
#define AT_SOURCE 0x10000
#define AT_DESTINATION 0x100000

struct fixture {
	struct rig rig;
	uint8_t *mem;
	int32_t efd;
};

static struct desc *desc(struct fixture *f, unsigned int i)
{
	return (struct desc *)f->mem + i;
}

static uint64_t desc_iova(unsigned int i)
{
	return IOVA + i * sizeof(struct desc);
}

static uint64_t reg(struct fixture *f, uint64_t off, unsigned int size)
{
	return rig_read(&f->rig, 0, off, size);
}

static void set(struct fixture *f, uint64_t off, unsigned int size, uint64_t value)
{
	rig_write(&f->rig, 0, off, size, value);
}

static void copy_desc(struct fixture *f, unsigned int i, uint32_t size, uint32_t control)
{
	*desc(f, i) = (struct desc){.size = size,
				    .control = control,
				    .source = IOVA + AT_SOURCE,
				    .destination = IOVA + AT_DESTINATION,
				    .next = desc_iova(i + 1)};
}

static void start(struct fixture *f, uint64_t chain)
{
	set(f, CHANCMD, 1, CMD_RESET);
	set(f, CHAIN, 8, chain);
	assert_int_equal(reg(f, STATUS, 8), ARMED);
}

/* Waits until the channel is not active; its status. */
static uint64_t finish(struct fixture *f)
{
	const struct timespec ms = {0, 1000000};
	uint64_t status;

	for (unsigned int i = 0; i < 20000; i++) {
		status = reg(f, STATUS, 8);
		if ((status & 7) != ACTIVE)
			return status;
		nanosleep(&ms, NULL);
	}
	fail_msg("still active");
	return 0;
}

static int setup_with(void **state, const char *options)
{
	static struct fixture f;

	rig_ready(&f.rig, vfio_model_find("ioat"), options);
	f.mem = rig_pages(LEN);
	rig_map(&f.rig, f.mem, LEN, IOVA, IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE);
	for (unsigned int i = AT_SOURCE; i < AT_DESTINATION; i++)
		f.mem[i] = (uint8_t)(i * 7 + (i >> 8));
	f.efd = rig_eventfd();
	assert_int_equal(rig_arm(&f.rig, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, &f.efd), 0);
	*state = &f;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, "");
}

static int setup_big(void **state)
{
	return setup_with(state, "xfercap=20,vectors=4");
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	rig_close(&f->rig);
	close(f->efd);
	munmap(f->mem, LEN);
	return 0;
}

static void registers_after_open(void **state)
{
	static const struct {
		uint64_t off;
		unsigned int size;
		uint64_t value;
	} regs[] = {
		{0x00, 1, 1},	     {0x01, 1, 14},	      {0x03, 1, 0},	  {0x08, 1, 0x33},
		{0x10, 4, 0x40},     {CHANCTRL, 2, 0},	      {CHANCMD, 1, 0},	  {COUNT, 2, 0},
		{STATUS, 8, HALTED}, {CHAIN, 8, 0},	      {COMPLETION, 8, 0}, {CHANERR, 4, 0},
		{0x00, 8, 0x0e01},   {0x2000, 8, UINT64_MAX}, {0x200f, 1, 0xff},  {0x2010, 4, 0},
	};
	struct fixture *f = *state;

	for (unsigned int i = 0; i < ARRAY_SIZE(regs); i++)
		assert_int_equal(reg(f, regs[i].off, regs[i].size), regs[i].value);
	assert_int_equal(rig_read(&f->rig, CONFIG, 0, 4), 0x20218086);
	assert_int_equal(rig_read(&f->rig, CONFIG, PCI_CLASS_REVISION, 4), 0x08800000);
	assert_int_equal(rig_read(&f->rig, CONFIG, 0x148, 4), 0);
	assert_int_equal(rig_read(&f->rig, CONFIG, 0x180, 4), 0);
	rig_write(&f->rig, CONFIG, 0x148, 4, 0xffffffff);
	assert_int_equal(rig_read(&f->rig, CONFIG, 0x148, 4), 0);
}

static void storage_registers(void **state)
{
	struct fixture *f = *state;

	set(f, 0x03, 1, 8);
	assert_int_equal(reg(f, 0x03, 1), 8);
	set(f, CHANCTRL, 2, 0x010d);
	assert_int_equal(reg(f, CHANCTRL, 2), 0x000d); /* "in use" reads 0 */
	set(f, CHAIN, 4, 0x1000);
	set(f, CHAIN + 4, 4, 0x2);
	assert_int_equal(reg(f, CHAIN, 8), 0x200001000);
	set(f, COMPLETION + 4, 4, 7);
	assert_int_equal(reg(f, COMPLETION, 8), 0x700000000);
	/* Constant registers stay. */
	set(f, 0x00, 8, UINT64_MAX);
	set(f, 0x08, 8, UINT64_MAX);
	set(f, 0x10, 8, UINT64_MAX);
	set(f, STATUS, 8, UINT64_MAX);
	assert_int_equal(reg(f, 0x00, 2), 0x0e01);
	assert_int_equal(reg(f, 0x08, 8), 0x33);
	assert_int_equal(reg(f, 0x10, 8), 0x40);
	assert_int_equal(reg(f, STATUS, 8), ARMED);
}

static void copies_with_interrupt_and_completion(void **state)
{
	struct fixture *f = *state;
	uint64_t completion;

	for (unsigned int i = 0; i < 4; i++) {
		copy_desc(f, i, 0x4000, i == 3 ? D_INTERRUPT | D_COMPLETION : 0);
		desc(f, i)->source += i * 0x4000;
		desc(f, i)->destination += i * 0x4000;
	}
	set(f, COMPLETION, 8, IOVA + AT_COMPLETION);
	start(f, desc_iova(0));
	set(f, COUNT, 2, 4);
	assert_int_equal(finish(f), desc_iova(3) | DONE);
	assert_memory_equal(f->mem + AT_SOURCE, f->mem + AT_DESTINATION, 0x10000);
	assert_int_equal(rig_count(f->efd), 1);
	memcpy(&completion, f->mem + AT_COMPLETION, 8);
	assert_int_equal(completion, desc_iova(3) | DONE);
	assert_int_equal(reg(f, CHANERR, 4), 0);
	assert_int_equal(reg(f, COUNT, 2), 4);
}

static void interrupt_per_descriptor_that_asks(void **state)
{
	struct fixture *f = *state;

	for (unsigned int i = 0; i < 10; i++)
		copy_desc(f, i, 64, i % 2 ? D_INTERRUPT : 0);
	start(f, desc_iova(0));
	set(f, COUNT, 2, 10);
	assert_int_equal(finish(f), desc_iova(9) | DONE);
	assert_int_equal(rig_count(f->efd), 5);
}

static void fills_with_the_pattern(void **state)
{
	struct fixture *f = *state;
	static const uint64_t pattern = 0x8877665544332211;

	copy_desc(f, 0, 16384 - 5, D_FILL);
	desc(f, 0)->source = pattern;
	desc(f, 0)->destination += 3;
	start(f, desc_iova(0));
	set(f, COUNT, 2, 1);
	assert_int_equal(finish(f), desc_iova(0) | DONE);
	for (unsigned int i = 0; i < 16384 - 5; i++)
		assert_int_equal(f->mem[AT_DESTINATION + 3 + i], 0x11 * (i % 8 + 1));
	assert_int_equal(f->mem[AT_DESTINATION + 2], 0);
	assert_int_equal(f->mem[AT_DESTINATION + 3 + 16384 - 5], 0);
}

static void fills_beyond_the_buffer(void **state)
{
	struct fixture *f = *state;

	copy_desc(f, 0, 0x80000 + 12, D_FILL);
	desc(f, 0)->source = 0x0706050403020100;
	start(f, desc_iova(0));
	set(f, COUNT, 2, 1);
	assert_int_equal(finish(f), desc_iova(0) | DONE);
	for (unsigned int i = 0; i < 0x80000 + 12; i++)
		assert_int_equal(f->mem[AT_DESTINATION + i], i % 8);
}

static void null_descriptors_move_nothing(void **state)
{
	struct fixture *f = *state;

	copy_desc(f, 0, 0, D_NULL | D_INTERRUPT);
	desc(f, 0)->source = desc(f, 0)->destination = 0;
	start(f, desc_iova(0));
	set(f, COUNT, 2, 1);
	assert_int_equal(finish(f), desc_iova(0) | DONE);
	assert_int_equal(rig_wait(f->efd), 1);
	assert_int_equal(reg(f, CHANERR, 4), 0);
}

/* The count goes on from where it was, and passes 65536. */
static void the_count_is_cumulative(void **state)
{
	static const uint16_t counts[] = {1, 3, 40000, 65535, 0, 5};
	static const unsigned int done[] = {1, 3, 40000, 65535, 65536, 65541};
	struct fixture *f = *state;
	struct vfio_device_stats before, now;

	copy_desc(f, 0, 8, 0);
	desc(f, 0)->next = desc_iova(0); /* to itself */
	start(f, desc_iova(0));
	vfio_device_get_stats(f->rig.dev, &before);
	for (unsigned int i = 0; i < ARRAY_SIZE(counts); i++) {
		set(f, COUNT, 2, counts[i]);
		assert_int_equal(finish(f), desc_iova(0) | DONE);
		vfio_device_get_stats(f->rig.dev, &now);
		assert_int_equal(now.dma_write_bytes - before.dma_write_bytes, 8ull * done[i]);
	}
	/* The same count again is no work. */
	set(f, COUNT, 2, 5);
	assert_int_equal(reg(f, STATUS, 8), desc_iova(0) | DONE);
	/* A new chain starts counting anew. */
	set(f, CHAIN, 8, desc_iova(0));
	assert_int_equal(reg(f, STATUS, 8), DONE);
	assert_int_equal(reg(f, COUNT, 2), 0);
	set(f, COUNT, 2, 5);
	finish(f);
	vfio_device_get_stats(f->rig.dev, &now);
	assert_int_equal(now.dma_write_bytes - before.dma_write_bytes, 8ull * 65546);
}

static void a_halted_channel_ignores_the_count(void **state)
{
	struct fixture *f = *state;

	copy_desc(f, 0, 8, D_INTERRUPT);
	set(f, CHANCMD, 1, CMD_RESET);
	assert_int_equal(reg(f, CHANCMD, 1), 0);
	set(f, COUNT, 2, 1);
	assert_int_equal(reg(f, STATUS, 8), HALTED);
	assert_int_equal(reg(f, COUNT, 2), 0);
	set(f, CHAIN, 8, desc_iova(0));
	assert_int_equal(reg(f, STATUS, 8), ARMED);
	assert_int_equal(rig_count(f->efd), 0);
}

struct bad {
	const char *name;
	struct desc desc;
	uint64_t chain; /* 0: the descriptor */
	uint32_t error;
	bool faults;
};

static const struct bad bad_descriptors[] = {
	{"source",
	 {.size = 64, .source = 0x1000, .destination = IOVA + AT_DESTINATION},
	 0,
	 1,
	 true},
	{"destination",
	 {.size = 64, .source = IOVA + AT_SOURCE, .destination = 0x1000},
	 0,
	 2,
	 true},
	{"fill", {.size = 64, .control = D_FILL, .destination = 0x1000}, 0, 2, true},
	{"descriptor", {.size = 64}, 0x5000, 1 << 8, true},
	{"size 0", {.source = IOVA, .destination = IOVA}, 0, 1 << 10, false},
	{"size", {.size = 16385, .source = IOVA, .destination = IOVA}, 0, 1 << 10, false},
	{"size max", {.size = UINT32_MAX, .source = IOVA, .destination = IOVA}, 0, 1 << 10, false},
	{"operation", {.size = 8, .control = 2u << 24}, 0, 1 << 10, false},
	{"operation ff", {.size = 8, .control = 0xffu << 24}, 0, 1 << 10, false},
	{"source end", {.size = 64, .source = UINT64_MAX, .destination = IOVA}, 0, 1, true},
	{"destination end",
	 {.size = 64, .source = IOVA, .destination = UINT64_MAX - 8},
	 0,
	 2,
	 true},
	{"chain end", {.size = 64}, UINT64_MAX, 1 << 8, true},
	{"half source",
	 {.size = 64, .source = IOVA + LEN - 32, .destination = IOVA + AT_DESTINATION},
	 0,
	 1,
	 true},
	{"half destination",
	 {.size = 64, .source = IOVA + AT_SOURCE, .destination = IOVA + LEN - 32},
	 0,
	 2,
	 true},
};

/* A good descriptor, then a bad one: halted with the good one as the last. */
static void errors_halt_the_channel(void **state)
{
	struct fixture *f = *state;

	set(f, COMPLETION, 8, IOVA + AT_COMPLETION);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad_descriptors); i++) {
		const struct bad *b = &bad_descriptors[i];
		unsigned int faults = f->rig.faults;
		struct vfio_device_stats s;
		uint64_t completion;

		copy_desc(f, 0, 8, 0);
		*desc(f, 1) = b->desc;
		desc(f, 1)->control |= D_INTERRUPT | D_COMPLETION;
		if (b->chain)
			desc(f, 0)->next = b->chain;
		start(f, desc_iova(0));
		set(f, COUNT, 2, 2);
		if (finish(f) != (desc_iova(0) | HALTED) || reg(f, CHANERR, 4) != b->error)
			fail_msg("%s: status 0x%llx, error 0x%llx", b->name,
				 (unsigned long long)reg(f, STATUS, 8),
				 (unsigned long long)reg(f, CHANERR, 4));
		memcpy(&completion, f->mem + AT_COMPLETION, 8);
		assert_int_equal(completion, desc_iova(0) | HALTED);
		assert_int_equal(rig_count(f->efd), 0);
		assert_int_equal(f->rig.faults - faults, b->faults);
		/* Only a reset gets it going again. */
		set(f, COUNT, 2, 3);
		assert_int_equal(reg(f, STATUS, 8), desc_iova(0) | HALTED);
		set(f, CHANERR, 4, b->error ^ 0xffffffff);
		assert_int_equal(reg(f, CHANERR, 4), b->error);
		set(f, CHANERR, 4, b->error);
		assert_int_equal(reg(f, CHANERR, 4), 0);
		vfio_device_get_stats(f->rig.dev, &s);
		assert_int_equal(s.dma_faults, f->rig.faults);
	}
}

static void an_error_without_completion_address_writes_none(void **state)
{
	struct fixture *f = *state;

	start(f, 0x5000);
	set(f, COUNT, 2, 1);
	assert_int_equal(finish(f), HALTED);
	assert_int_equal(f->rig.faults, 1); /* of the descriptor, none of IOVA 0 */
}

static void an_unmapped_completion_address_is_an_error(void **state)
{
	struct fixture *f = *state;

	set(f, COMPLETION, 8, 0x7000);
	copy_desc(f, 0, 8, D_COMPLETION);
	start(f, desc_iova(0));
	set(f, COUNT, 2, 1);
	assert_int_equal(finish(f) & 7, HALTED);
	assert_int_equal(reg(f, CHANERR, 4), 1 << 12);
}

static void read_only_memory_is_not_written(void **state)
{
	struct fixture *f = *state;
	uint8_t *ro = rig_pages(4096);

	rig_map(&f->rig, ro, 4096, 0x40000000, IOMMU_IOAS_MAP_READABLE);
	copy_desc(f, 0, 64, 0);
	desc(f, 0)->destination = 0x40000000;
	start(f, desc_iova(0));
	set(f, COUNT, 2, 1);
	assert_int_equal(finish(f), HALTED);
	assert_int_equal(reg(f, CHANERR, 4), 2);
	assert_int_equal(ro[0], 0);
	munmap(ro, 4096);
}

static void without_bus_master_nothing_moves(void **state)
{
	struct fixture *f = *state;

	copy_desc(f, 0, 64, D_INTERRUPT);
	start(f, desc_iova(0));
	rig_write(&f->rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	set(f, COUNT, 2, 1);
	assert_int_equal(finish(f), HALTED);
	assert_int_equal(reg(f, CHANERR, 4), 1 << 8);
	assert_int_equal(f->mem[AT_DESTINATION + 1], 0);
	assert_int_equal(rig_count(f->efd), 0);
	rig_write(&f->rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	start(f, desc_iova(0));
	set(f, COUNT, 2, 1);
	assert_int_equal(finish(f), desc_iova(0) | DONE);
	assert_int_equal(rig_count(f->efd), 1);
}

static void detached_and_attached_again(void **state)
{
	struct fixture *f = *state;
	uint32_t pt_id = f->rig.ioas;

	copy_desc(f, 0, 64, 0);
	assert_int_equal(rig_detach(&f->rig), 0);
	start(f, desc_iova(0));
	set(f, COUNT, 2, 1);
	assert_int_equal(finish(f), HALTED);
	assert_int_equal(rig_attach(&f->rig, &pt_id), 0);
	start(f, desc_iova(0));
	set(f, COUNT, 2, 1);
	assert_int_equal(finish(f), desc_iova(0) | DONE);
}

/* A long batch: one descriptor 65535 times, each with an interrupt. Returns how many have been
 * seen. */
static uint64_t start_storm(struct fixture *f)
{
	copy_desc(f, 0, (uint32_t)(1u << reg(f, 1, 1)) / 2, D_INTERRUPT);
	desc(f, 0)->next = desc_iova(0);
	start(f, desc_iova(0));
	rig_count(f->efd);
	set(f, COUNT, 2, 65535);
	assert_int_equal(reg(f, STATUS, 1) & 7, ACTIVE);
	return rig_wait(f->efd);
}

/* What has been written to memory and signalled so far does not change any more. */
static void assert_quiet(struct fixture *f)
{
	const struct timespec wait = {0, 20000000};
	struct vfio_device_stats before, after;

	vfio_device_get_stats(f->rig.dev, &before);
	nanosleep(&wait, NULL);
	vfio_device_get_stats(f->rig.dev, &after);
	assert_memory_equal(&before, &after, sizeof(before));
}

static void reset_while_active(void **state)
{
	struct fixture *f = *state;

	for (unsigned int i = 0; i < 3; i++) {
		start_storm(f);
		if (i == 0)
			set(f, CHANCMD, 1, CMD_RESET);
		else if (i == 1)
			rig_expect(&f->rig, VFIO_DEVICE_RESET, NULL, 0);
		else
			rig_write(&f->rig, CONFIG, 0x48 + PCI_EXP_DEVCTL, 2, 0x8000);
		assert_int_equal(reg(f, STATUS, 8), HALTED);
		assert_int_equal(reg(f, COUNT, 2), 0);
		assert_quiet(f);
	}
	/* And it works afterwards. */
	copy_desc(f, 0, 64, 0);
	start(f, desc_iova(0));
	set(f, COUNT, 2, 1);
	assert_int_equal(finish(f), desc_iova(0) | DONE);
}

static void suspend_and_go_on(void **state)
{
	struct fixture *f = *state;
	uint64_t interrupts = start_storm(f);

	set(f, CHANCMD, 1, CMD_SUSPEND);
	assert_int_equal(reg(f, CHANCMD, 1), 0);
	assert_int_equal(reg(f, STATUS, 8), desc_iova(0) | SUSPENDED);
	assert_quiet(f);
	interrupts += rig_count(f->efd);
	assert_true(interrupts < 65535);
	/* A shorter piece of work from here on: nothing was lost, nothing done twice. */
	desc(f, 0)->size = 8;
	set(f, COUNT, 2, 65535);
	assert_int_equal(finish(f), desc_iova(0) | DONE);
	assert_int_equal(rig_count(f->efd) + interrupts, 65535);
}

static void close_while_active(void **state)
{
	struct fixture *f = *state;

	start_storm(f);
	vfio_file_close(f->rig.file);
	assert_quiet(f);
	/* A later client finds a fresh device. */
	assert_int_equal(vfio_file_open(f->rig.dev, &f->rig.file), 0);
	assert_int_equal(rig_bind(&f->rig), 0);
	assert_int_equal(reg(f, STATUS, 8), HALTED);
	assert_int_equal(reg(f, CHAIN, 8), 0);
	assert_int_equal(rig_read(&f->rig, CONFIG, PCI_COMMAND, 2), PCI_COMMAND_MEMORY);
}

static void unmap_while_active(void **state)
{
	struct fixture *f = *state;

	start_storm(f);
	rig_unmap(&f->rig, IOVA, LEN);
	memset(f->mem, 0x55, LEN);
	assert_int_equal(finish(f) & 7, HALTED);
	for (unsigned int i = 0; i < LEN; i++)
		assert_int_equal(f->mem[i], 0x55);
}

/* The client changes descriptors, resets and rings while the channel runs. */
struct vandal {
	struct fixture *f;
	unsigned int seed;
};

static void *vandalise(void *arg)
{
	struct vandal *v = arg;
	struct rig rig;

	rig_for_thread(&rig, &v->f->rig);
	for (unsigned int i = 0; i < 400; i++) {
		static const uint64_t offsets[] = {CHANCTRL,  CHANCMD,	  COUNT,   CHAIN,
						   CHAIN + 4, COMPLETION, CHANERR, 0x03};
		static const uint64_t values[] = {IOVA, IOVA + 64,  IOVA + 33, 1,     5,   0x20,
						  4,	UINT64_MAX, 0,	       65535, 0x24};
		uint64_t off = offsets[rand_r(&v->seed) % ARRAY_SIZE(offsets)];
		uint64_t value = values[rand_r(&v->seed) % ARRAY_SIZE(values)];
		unsigned int size = 1u << rand_r(&v->seed) % 4;

		rig_try_write(&rig, 0, off, &value, size);
		rig_try_read(&rig, 0, off, &value, size);
		if (i % 50 == 0)
			vfio_file_ioctl(rig.file, &rig.caller, VFIO_DEVICE_RESET, 0);
	}
	return NULL;
}

static void hostile_chains(void **state)
{
	struct fixture *f = *state;
	struct vandal vandals[3];
	pthread_t threads[3];
	unsigned int seed = 1;

	for (unsigned int i = 0; i < 64; i++) {
		copy_desc(f, i, (uint32_t)rand_r(&seed) % 20000, (uint32_t)rand_r(&seed) & 0x39);
		desc(f, i)->source = IOVA + (uint64_t)rand_r(&seed) % (2 * LEN);
		desc(f, i)->destination = IOVA + 8192 + (uint64_t)rand_r(&seed) % (2 * LEN);
		desc(f, i)->next = IOVA + (uint64_t)rand_r(&seed) % 8192;
	}
	for (unsigned int i = 0; i < 3; i++) {
		vandals[i] = (struct vandal){f, i + 1};
		assert_int_equal(pthread_create(&threads[i], NULL, vandalise, &vandals[i]), 0);
	}
	for (unsigned int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	set(f, CHANCMD, 1, CMD_RESET);
	assert_quiet(f);
	copy_desc(f, 0, 64, 0);
	start(f, desc_iova(0));
	set(f, COUNT, 2, 1);
	assert_int_equal(finish(f), desc_iova(0) | DONE);
}

static void options(void **state)
{
	static const struct {
		const char *text;
		int rc;
	} cases[] = {
		{"", 0},
		{"xfercap=12", 0},
		{"xfercap=20,vectors=32", 0},
		{"vectors=0x8", 0},
		{"xfercap=11", -EINVAL},
		{"xfercap=21", -EINVAL},
		{"vectors=0", -EINVAL},
		{"vectors=33", -EINVAL},
		{"vectors=", -EINVAL},
		{"vectors", -EINVAL},
		{"vectors=1x", -EINVAL},
		{"vectors=-1", -EINVAL},
		{"=1", -EINVAL},
		{"speed=1", -EINVAL},
		{"vectors=99999999999999999999", -EINVAL},
	};
	struct vfio_device_place place = {.bdf = "0000:00:01.0"};

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct swi_reason why = {""};
		struct vfio_device *dev = NULL;
		int rc = vfio_device_create(vfio_model_find("ioat"), &place, cases[i].text, &dev,
					    &why);

		if (rc != cases[i].rc || (rc && !why.text[0]))
			fail_msg("\"%s\": %d (%s)", cases[i].text, rc, why.text);
		vfio_device_destroy(dev);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define B(f) cmocka_unit_test_setup_teardown(f, setup_big, teardown)
	const struct CMUnitTest tests[] = {
		T(registers_after_open),
		T(storage_registers),
		T(copies_with_interrupt_and_completion),
		T(interrupt_per_descriptor_that_asks),
		T(fills_with_the_pattern),
		B(fills_beyond_the_buffer),
		T(null_descriptors_move_nothing),
		T(the_count_is_cumulative),
		T(a_halted_channel_ignores_the_count),
		T(errors_halt_the_channel),
		T(an_error_without_completion_address_writes_none),
		T(an_unmapped_completion_address_is_an_error),
		T(read_only_memory_is_not_written),
		T(without_bus_master_nothing_moves),
		T(detached_and_attached_again),
		B(reset_while_active),
		T(suspend_and_go_on),
		B(close_while_active),
		B(unmap_while_active),
		T(hostile_chains),
		cmocka_unit_test(options),
	};

	return cmocka_run_group_tests_name("vfio_ioat", tests, NULL, NULL);
}
