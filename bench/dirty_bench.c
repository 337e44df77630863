// SPDX-License-Identifier: MIT
/*
 * What dirty tracking costs: reading and clearing a bitmap beside a scan of as many bits, and a DMA write with
 * tracking beside one without.
 *
 *   dirty_bench [--quick] [--check] [SECTION]
 *
 * Sections: read, write. Subject and baseline are measured in turns, see bench.h.
 */
#include <linux/iommufd.h>
#include <stdatomic.h>
#include <swiommu/iommufd.h>
#include <sys/mman.h>

#include "bench.h"
#include "caller.h"

#define PAGE 4096ul
#define GIB (1ul << 30)
#define IOVA (1ul << 32)
#define BITS (GIB / PAGE)
#define SMALL (4ul << 20)

static struct bench_config cfg = {.rounds = 15};

static struct {
	struct iommufd_ctx *ctx;
	struct swiommu_caller caller;
	struct iommu_group group;
	struct device dev;
	struct iommufd_device *idev;
	struct swiommu_dma *dma;
	uint32_t ioas, idev_id, hwpt;
	char *mem;
} rig;

static struct swiommu_caller_ops caller_ops;

static void must(long rc, const char *what)
{
	if (!rc)
		return;
	fprintf(stderr, "dirty_bench: %s: %s (%s)\n", what, strerror(rc < 0 ? -rc : rc),
		rig.caller.reason);
	exit(2);
}

static long call(unsigned int cmd, void *arg)
{
	return swiommu_ioctl(rig.ctx, &rig.caller, cmd, (uintptr_t)arg);
}

static void map_one(unsigned long at, unsigned long length)
{
	struct iommu_ioas_map cmd = {.size = sizeof(cmd),
				     .flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
					      IOMMU_IOAS_MAP_WRITEABLE,
				     .ioas_id = rig.ioas,
				     .user_va = (uintptr_t)rig.mem + at,
				     .length = length,
				     .iova = IOVA + at};

	must(call(IOMMU_IOAS_MAP, &cmd), "map");
}

static void track(bool on)
{
	struct iommu_hwpt_set_dirty_tracking cmd = {
		.size = sizeof(cmd), .flags = on, .hwpt_id = rig.hwpt};

	must(call(IOMMU_HWPT_SET_DIRTY_TRACKING, &cmd), "set dirty tracking");
}

/* 1 GiB of sparse shared memory, as one mapping or as many small ones; a device on a HWPT that tracks. */
static void open_rig(bool small)
{
	struct iommu_ioas_alloc ioas = {.size = sizeof(ioas)};
	struct iommu_hwpt_alloc hwpt = {.size = sizeof(hwpt),
					.flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING};

	memset(&rig, 0, sizeof(rig));
	must(swiommu_open(NULL, &rig.ctx), "open");
	caller_at_hand(&rig.caller, &caller_ops);
	must(call(IOMMU_IOAS_ALLOC, &ioas), "ioas");
	rig.ioas = ioas.out_ioas_id;
	rig.mem = mmap(NULL, GIB, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(rig.mem == MAP_FAILED ? 12 : 0, "memory");
	for (unsigned long at = 0, step = small ? SMALL : GIB; at < GIB; at += step)
		map_one(at, step);
	must(iommu_group_init(&rig.group, 1), "group");
	rig.dev = (struct device){.name = "bench",
				  .group = &rig.group,
				  .iommu = &iommu_generic_driver,
				  .dirty_tracking = true};
	rig.idev = iommufd_device_bind(rig.ctx, &rig.dev, &rig.idev_id);
	must(IS_ERR(rig.idev) ? PTR_ERR(rig.idev) : 0, "bind");
	hwpt.dev_id = rig.idev_id;
	hwpt.pt_id = rig.ioas;
	must(call(IOMMU_HWPT_ALLOC, &hwpt), "hwpt");
	rig.hwpt = hwpt.out_hwpt_id;
	must(iommufd_device_attach(rig.idev, 0, &hwpt.out_hwpt_id), "attach");
	must(swiommu_dma_open(rig.idev, &rig.dma), "dma");
}

static void close_rig(void)
{
	swiommu_dma_close(rig.dma);
	iommufd_device_detach(rig.idev, 0);
	iommufd_device_unbind(rig.idev);
	iommu_group_fini(&rig.group);
	swiommu_close(rig.ctx);
	munmap(rig.mem, GIB);
}

/* ---- read ---------------------------------------------------------------------------------------- */

static uint64_t bitmap[BITS / 64];

/* ns of one get and clear of it all. */
static double get(unsigned times)
{
	struct iommu_hwpt_get_dirty_bitmap cmd = {.size = sizeof(cmd),
						  .hwpt_id = rig.hwpt,
						  .iova = IOVA,
						  .length = GIB,
						  .page_size = PAGE,
						  .data = (uintptr_t)bitmap};
	double start = now_ns();

	for (unsigned i = 0; i < times; i++)
		must(call(IOMMU_HWPT_GET_DIRTY_BITMAP, &cmd), "get");
	return (now_ns() - start) / times;
}

/* ns of the same ioctl where nothing is mapped. */
static double no_get(unsigned times)
{
	struct iommu_hwpt_get_dirty_bitmap cmd = {
		.size = sizeof(cmd), .hwpt_id = rig.hwpt, .length = PAGE, .page_size = PAGE};
	double start = now_ns();

	for (unsigned i = 0; i < times; i++)
		must(call(IOMMU_HWPT_GET_DIRTY_BITMAP, &cmd), "empty get");
	return (now_ns() - start) / times;
}

static double scan(unsigned times)
{
	static _Atomic(uint64_t) words[BITS / 64];
	double start = now_ns();

	for (unsigned i = 0; i < times; i++) {
		uint64_t any = 0;

		for (unsigned long w = 0; w < BITS / 64; w++)
			any |= atomic_load_explicit(&words[w], memory_order_relaxed);
		consume(any);
	}
	return (now_ns() - start) / times;
}

static _Atomic(uint64_t) words_to_take[BITS / 64];

static double exchange(void)
{
	double start = now_ns();

	for (unsigned long w = 0; w < BITS / 64; w++)
		bitmap[w] |= atomic_exchange(&words_to_take[w], 0);
	consume(bitmap);
	return now_ns() - start;
}

/* Makes a page in each `step` dirty. Little is left in the caches then, so both sides have it done before. */
static void soil(unsigned long step)
{
	char byte = 0;

	for (unsigned long w = 0; w < BITS / 64; w++)
		words_to_take[w] = ~0ull;
	for (unsigned long at = 0; at < GIB; at += step)
		must(swiommu_dma_write(rig.dma, IOVA + at, &byte, 1), "write");
}

static void bench_read(void)
{
	struct row clean = {.name = "get+clear 1 GiB, clean, ioctl included",
			    .baseline = "scan of 32 KiB",
			    .target = "0.1 with the summary",
			    .limit = 1};
	struct row idle = {.name = "  the same less that of an unmapped page",
			   .baseline = "scan of 32 KiB",
			   .target = "150 ns",
			   .limit = 0.12};
	struct row full = {.name = "get+clear 1 GiB, all dirty",
			   .baseline = "xchg of 32 KiB",
			   .target = "14 us"};
	struct row sparse = {.name = "get+clear 1 GiB, 1 page in 1 MiB dirty",
			     .baseline = "scan of 32 KiB",
			     .target = ""};
	struct row small = {.name = "get+clear 1 GiB, clean, mappings of 4 MiB",
			    .baseline = "scan of 32 KiB",
			    .target = "(256 mappings)"};

	print_heading("read");
	open_rig(false);
	track(true);
	for (unsigned r = 0; r < cfg.rounds; r++) {
		double base = scan(100), ioctl, us;

		us = get(1000);
		ioctl = no_get(1000);
		sample(&clean.subject, us);
		sample(&clean.base, base);
		sample(&idle.subject, us - ioctl);
		sample(&idle.base, base);
		soil(PAGE);
		sample(&full.subject, get(1));
		soil(PAGE);
		sample(&full.base, exchange());
		get(1);
		soil(1ul << 20);
		sample(&sparse.subject, get(1));
		sample(&sparse.base, base);
	}
	close_rig();
	open_rig(true);
	track(true);
	for (unsigned r = 0; r < cfg.rounds; r++) {
		sample(&small.subject, get(1));
		sample(&small.base, scan(10));
	}
	close_rig();
	print_row(&clean);
	print_row(&idle);
	print_row(&full);
	print_row(&sparse);
	print_row(&small);
}

/* ---- write --------------------------------------------------------------------------------------- */

#define WRITES 8192u /* pages, one after the other */

/* ns of a write of 8 bytes to each of some pages. */
static double write_pages(unsigned times)
{
	uint64_t value = 1;
	double start = now_ns();

	for (unsigned i = 0; i < times; i++)
		for (unsigned p = 0; p < WRITES; p++)
			must(swiommu_dma_write(rig.dma, IOVA + p * PAGE, &value, 8), "write");
	return (now_ns() - start) / times / WRITES;
}

/* ns of a write of 8 bytes to one page. */
static double write_one(unsigned times)
{
	uint64_t value = 1;
	double start = now_ns();

	for (unsigned i = 0; i < times; i++)
		must(swiommu_dma_write(rig.dma, IOVA, &value, 8), "write");
	return (now_ns() - start) / times;
}

static void bench_write(void)
{
	struct row one = {.name = "write of 8 bytes, page is dirty already",
			  .baseline = "tracking off",
			  .target = "+0.5 ns"};
	struct row set = {.name = "write of 8 bytes to each page, all dirty",
			  .baseline = "tracking off",
			  .target = "+0.5 ns"};
	struct row new = {.name = "write of 8 bytes to each page, all clean",
			  .baseline = "tracking off",
			  .target = "+4 ns"};
	unsigned times = cfg.quick ? 100000 : 1000000;

	print_heading("write");
	open_rig(false);
	write_pages(1);
	for (unsigned r = 0; r < cfg.rounds; r++) {
		double off;

		track(false);
		sample(&one.base, write_one(times));
		write_pages(1); /* both sides begin with what is in the caches then */
		off = write_pages(10);
		sample(&set.base, off);
		sample(&new.base, off);
		track(true);
		sample(&new.subject, write_pages(1));
		sample(&set.subject, write_pages(10));
		sample(&one.subject, write_one(times));
	}
	close_rig();
	print_row(&one);
	print_row(&set);
	print_row(&new);
}

int main(int argc, char **argv)
{
	static const struct bench_section sections[] = {{"read", bench_read},
							{"write", bench_write}};

	return bench_main(&cfg, sections, 2, argc, argv);
}
