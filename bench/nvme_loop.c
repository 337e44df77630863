// SPDX-License-Identifier: MIT
/*
 * nvme_loop: random reads from an NVMe controller through VFIO, in the loop of a user-space storage driver: one queue pair,
 * polled, with a fixed number of commands under way.
 *
 *   swiommu run --device nvme,bdf=0000:80:01.0 -- build/bench/nvme_loop 0000:80:01.0 --block 512 --depth 32
 *
 * It is an ordinary client: it finds the device in sysfs, binds it to an iommufd, reads and writes registers with pread and
 * pwrite unless BAR0 can be mapped as a whole, and rings doorbells through a mapping. Each block is written once with its
 * number, and what is read is checked.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/vfio.h>

#include "vfio/models/nvme/spec.h"

#define IOVA 0x10000000ull
#define MEMORY (4ull << 20)
#define ASQ 0x0000u
#define ACQ 0x1000u
#define SQ 0x2000u
#define CQ 0x12000u
#define DATA 0x100000u
#define ENTRIES 1024u

struct queue {
	struct nvme_command *sq;
	volatile struct nvme_completion *cq;
	uint32_t size, tail, head;
	uint16_t phase;
	unsigned int id;
};

struct loop {
	const char *bdf;
	unsigned int block, depth, blocks; /* bytes; commands under way; how many blocks are used */
	double seconds;
	bool shared;

	int iommufd, device;
	uint8_t *mem;
	volatile uint8_t *registers; /* the first page of BAR0; NULL: pread and pwrite */
	volatile uint8_t *doorbells;
	struct queue admin, io;
};

static void die(const char *what)
{
	fprintf(stderr, "nvme_loop: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- VFIO -------------------------------------------------------------------------------- */

static int open_device(const char *bdf)
{
	char path[512];
	struct dirent *d;
	int fd = -1;
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/vfio-dev", bdf);
	dir = opendir(path);
	if (!dir)
		die(path);
	while (fd < 0 && (d = readdir(dir))) {
		if (strncmp(d->d_name, "vfio", 4))
			continue;
		snprintf(path, sizeof(path), "/dev/vfio/devices/%s", d->d_name);
		fd = open(path, O_RDWR | O_CLOEXEC);
	}
	closedir(dir);
	if (fd < 0)
		die(path);
	return fd;
}

static void attach(struct loop *l)
{
	struct vfio_device_bind_iommufd bind = {.argsz = sizeof(bind)};
	struct vfio_device_attach_iommufd_pt attach = {.argsz = sizeof(attach)};
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct iommu_ioas_map map = {.size = sizeof(map),
				     .flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
					      IOMMU_IOAS_MAP_WRITEABLE,
				     .length = MEMORY,
				     .iova = IOVA};
	uint16_t command;

	l->iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (l->iommufd < 0)
		die("/dev/iommu");
	l->device = open_device(l->bdf);
	bind.iommufd = l->iommufd;
	if (ioctl(l->device, VFIO_DEVICE_BIND_IOMMUFD, &bind))
		die("BIND_IOMMUFD");
	if (ioctl(l->iommufd, IOMMU_IOAS_ALLOC, &alloc))
		die("IOAS_ALLOC");
	attach.pt_id = alloc.out_ioas_id;
	if (ioctl(l->device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach))
		die("ATTACH_IOMMUFD_PT");
	l->mem = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE,
		      (l->shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);
	if (l->mem == MAP_FAILED)
		die("memory");
	memset(l->mem, 0, MEMORY);
	map.ioas_id = alloc.out_ioas_id;
	map.user_va = (uintptr_t)l->mem;
	if (ioctl(l->iommufd, IOMMU_IOAS_MAP, &map))
		die("IOAS_MAP");
	if (pread(l->device, &command, 2, (7ll << 40) + 4) != 2)
		die("configuration space");
	command |= 6; /* memory, bus master */
	if (pwrite(l->device, &command, 2, (7ll << 40) + 4) != 2)
		die("configuration space");
}

static void map_registers(struct loop *l)
{
	struct vfio_region_info info = {.argsz = sizeof(info)};
	void *p;

	if (ioctl(l->device, VFIO_DEVICE_GET_REGION_INFO, &info))
		die("GET_REGION_INFO");
	if (!(info.flags & VFIO_REGION_INFO_FLAG_MMAP)) {
		errno = ENOTSUP;
		die("BAR0 cannot be mapped");
	}
	p = mmap(NULL, 0x2000, PROT_READ | PROT_WRITE, MAP_SHARED, l->device, 0);
	if (p != MAP_FAILED) {
		l->registers = p;
		l->doorbells = l->registers + NVME_REG_DOORBELLS;
		return;
	}
	p = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_SHARED, l->device, NVME_REG_DOORBELLS);
	if (p == MAP_FAILED)
		die("mmap of the doorbells");
	l->doorbells = p;
}

static uint32_t get(struct loop *l, unsigned int reg)
{
	uint32_t v;

	if (l->registers)
		return *(volatile uint32_t *)(l->registers + reg);
	if (pread(l->device, &v, 4, reg) != 4)
		die("read of a register");
	return v;
}

static void set(struct loop *l, unsigned int reg, uint32_t v)
{
	if (l->registers)
		*(volatile uint32_t *)(l->registers + reg) = v;
	else if (pwrite(l->device, &v, 4, reg) != 4)
		die("write of a register");
}

/* ---- queues ------------------------------------------------------------------------------ */

static void init_queue(struct loop *l, struct queue *q, unsigned int id, uint32_t sq, uint32_t cq,
		       uint32_t size)
{
	*q = (struct queue){.sq = (void *)(l->mem + sq),
			    .cq = (void *)(l->mem + cq),
			    .size = size,
			    .phase = 1,
			    .id = id};
}

static void submit(struct queue *q, const struct nvme_command *c)
{
	q->sq[q->tail] = *c;
	q->tail = q->tail + 1 == q->size ? 0 : q->tail + 1;
}

static void ring(struct loop *l, struct queue *q, bool completion, uint32_t value)
{
	__atomic_store_n((uint32_t *)(l->doorbells + 8 * q->id + 4 * completion), value,
			 __ATOMIC_RELEASE);
}

/* Takes a completion if there is one. */
static bool complete(struct queue *q, uint16_t *cid)
{
	volatile struct nvme_completion *c = &q->cq[q->head];
	uint16_t status = __atomic_load_n(&c->status, __ATOMIC_ACQUIRE);

	if ((status & 1) != q->phase)
		return false;
	if (status >> 1) {
		fprintf(stderr, "nvme_loop: command failed with status 0x%x\n", status >> 1);
		exit(1);
	}
	*cid = c->cid;
	if (++q->head == q->size) {
		q->head = 0;
		q->phase ^= 1;
	}
	return true;
}

static void run_admin(struct loop *l, const struct nvme_command *c)
{
	uint16_t cid;

	submit(&l->admin, c);
	ring(l, &l->admin, false, l->admin.tail);
	while (!complete(&l->admin, &cid))
		;
	ring(l, &l->admin, true, l->admin.head);
}

static void bring_up(struct loop *l)
{
	struct nvme_command cq = {.opcode = NVME_ADMIN_CREATE_CQ,
				  .prp1 = IOVA + CQ,
				  .cdw10 = (ENTRIES - 1) << 16 | 1,
				  .cdw11 = 1};
	struct nvme_command sq = {.opcode = NVME_ADMIN_CREATE_SQ,
				  .prp1 = IOVA + SQ,
				  .cdw10 = (ENTRIES - 1) << 16 | 1,
				  .cdw11 = 1 << 16 | 1};

	set(l, NVME_REG_CC, 0);
	while (get(l, NVME_REG_CSTS) & NVME_CSTS_RDY)
		;
	init_queue(l, &l->admin, 0, ASQ, ACQ, 32);
	init_queue(l, &l->io, 1, SQ, CQ, ENTRIES);
	set(l, NVME_REG_AQA, 31 << 16 | 31);
	set(l, NVME_REG_ASQ, (uint32_t)(IOVA + ASQ));
	set(l, NVME_REG_ASQ + 4, 0);
	set(l, NVME_REG_ACQ, (uint32_t)(IOVA + ACQ));
	set(l, NVME_REG_ACQ + 4, 0);
	set(l, NVME_REG_CC, NVME_CC_EN | 6 << 16 | 4 << 20);
	while (!(get(l, NVME_REG_CSTS) & NVME_CSTS_RDY))
		;
	run_admin(l, &cq);
	run_admin(l, &sq);
}

/* ---- the loop ---------------------------------------------------------------------------- */

static uint64_t seed = 88172645463325252ull;

static uint32_t random_block(const struct loop *l)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed % l->blocks);
}

static uint8_t *slot_data(struct loop *l, unsigned int slot)
{
	return l->mem + DATA + (size_t)slot * 4096;
}

static struct nvme_command command(struct loop *l, uint8_t opcode, unsigned int slot,
				   uint32_t block)
{
	unsigned int per_block = l->block / 512;

	return (struct nvme_command){.opcode = opcode,
				     .cid = (uint16_t)slot,
				     .nsid = 1,
				     .prp1 = IOVA + DATA + (uint64_t)slot * 4096,
				     .cdw10 = block * per_block,
				     .cdw12 = per_block - 1};
}

/* In batches of the depth, each waited for. */
static void write_blocks(struct loop *l)
{
	uint16_t cid;

	for (uint32_t b = 0; b < l->blocks;) {
		unsigned int n = 0;

		for (; n < l->depth && b < l->blocks; n++, b++) {
			struct nvme_command c = command(l, NVME_IO_WRITE, n, b);

			for (unsigned int i = 0; i < l->block / 4; i++)
				((uint32_t *)slot_data(l, n))[i] = b;
			submit(&l->io, &c);
		}
		ring(l, &l->io, false, l->io.tail);
		while (n)
			n -= complete(&l->io, &cid);
		ring(l, &l->io, true, l->io.head);
	}
}

static uint64_t read_blocks(struct loop *l, double *took)
{
	uint32_t wanted[256];
	uint64_t done = 0;
	double begin = now(), end = begin + l->seconds;
	uint16_t slot;

	for (unsigned int i = 0; i < l->depth; i++) {
		struct nvme_command c = command(l, NVME_IO_READ, i, wanted[i] = random_block(l));

		submit(&l->io, &c);
	}
	ring(l, &l->io, false, l->io.tail);
	for (;;) {
		bool any = false;

		while (complete(&l->io, &slot)) {
			const uint32_t *data = (const uint32_t *)slot_data(l, slot);
			struct nvme_command c;

			if (data[0] != wanted[slot] || data[l->block / 4 - 1] != wanted[slot]) {
				fprintf(stderr, "nvme_loop: block %u reads as %u\n", wanted[slot],
					data[0]);
				exit(1);
			}
			c = command(l, NVME_IO_READ, slot, wanted[slot] = random_block(l));
			submit(&l->io, &c);
			done++;
			any = true;
		}
		if (!any)
			continue;
		ring(l, &l->io, true, l->io.head);
		*took = now() - begin;
		if (begin + *took >= end)
			break;
		ring(l, &l->io, false, l->io.tail);
	}
	return done;
}

static void take_options(struct loop *l, int argc, char **argv)
{
	static const struct option options[] = {
		{"block", required_argument, NULL, 'b'},  {"blocks", required_argument, NULL, 'n'},
		{"depth", required_argument, NULL, 'd'},  {"seconds", required_argument, NULL, 's'},
		{"memory", required_argument, NULL, 'm'}, {0}};
	int o;

	l->block = 512;
	l->depth = 32;
	l->blocks = 8192;
	l->seconds = 2;
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == 'b')
			l->block = (unsigned int)atoi(optarg);
		else if (o == 'd')
			l->depth = (unsigned int)atoi(optarg);
		else if (o == 'n')
			l->blocks = (unsigned int)atoi(optarg);
		else if (o == 's')
			l->seconds = atof(optarg);
		else if (o == 'm')
			l->shared = !strcmp(optarg, "shared");
		else
			exit(2);
	}
	if (optind + 1 != argc || l->block % 512 || l->block > 4096 || !l->block || !l->depth ||
	    l->depth > 256 || !l->blocks) {
		fprintf(stderr, "usage: nvme_loop BDF [--block 512-4096] [--blocks N] "
				"[--depth 1-256] [--seconds S] [--memory private|shared]\n");
		exit(2);
	}
	l->bdf = argv[optind];
}

int main(int argc, char **argv)
{
	struct loop l = {0};
	uint64_t done;
	double took;

	take_options(&l, argc, argv);
	attach(&l);
	map_registers(&l);
	bring_up(&l);
	write_blocks(&l);
	done = read_blocks(&l, &took);
	printf("%u bytes, depth %u, %s memory, registers by %s: %.0f reads/s, %.2f us each\n",
	       l.block, l.depth, l.shared ? "shared" : "private", l.registers ? "mapping" : "pread",
	       (double)done / took, took / (double)done * l.depth * 1e6);
	return 0;
}
