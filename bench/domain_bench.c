// SPDX-License-Identifier: MIT
/*
 * What page tables behind HWPTs cost: making them, mapping into them, DMA by them.
 *
 *   domain_bench [--quick] [--check] [SECTION]
 *
 * Sections: hwpt, map, dma. Baselines: a malloc pair, the same with one HWPT less, memcpy. Subject and baseline are measured in turns, see bench.h.
 */
#include <linux/iommufd.h>
#include <swiommu/iommufd.h>
#include <sys/mman.h>

#include "bench.h"
#include "caller.h"
#include "mem/owner.h"

#define PAGE 4096ul
#define MIB (1ul << 20)
#define GIB (1ul << 30)
#define IOVA (1ul << 32)

static struct bench_config cfg = {.rounds = 15};

static struct {
	struct iommufd_ctx *ctx;
	struct swiommu_caller caller;
	struct iommu_group group;
	struct device dev;
	struct iommufd_device *idev;
	struct swiommu_dma *dma;
	uint32_t dev_id;
	char *mem; /* 1 GiB at a multiple of that */
	void *mapping;
} rig;

static struct swiommu_caller_ops caller_ops;

static long must(long rc, const char *what)
{
	if (rc >= 0)
		return rc;
	fprintf(stderr, "domain_bench: %s: %s (%s)\n", what, strerror(-rc), rig.caller.reason);
	exit(2);
}

/* Whose memory it is does not change, and need not be asked. */
static struct mem_owner *owner;

static int get_memory(struct swiommu_caller *c, struct mem_owner **out)
{
	(void)c;
	*out = mem_owner_get(owner);
	return 0;
}

static long call(unsigned int cmd, void *arg)
{
	return swiommu_ioctl(rig.ctx, &rig.caller, cmd, (uintptr_t)arg);
}

static void open_rig(void)
{
	memset(&rig, 0, sizeof(rig));
	must(swiommu_open(NULL, &rig.ctx), "open");
	caller_at_hand(&rig.caller, &caller_ops);
	caller_ops.get_memory = get_memory;
	rig.mapping = mmap(NULL, 2 * GIB, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(rig.mapping == MAP_FAILED ? -12 : 0, "memory");
	rig.mem = (char *)(((uintptr_t)rig.mapping + GIB - 1) & -GIB);
	must(iommu_group_init(&rig.group, 1), "group");
	rig.dev = (struct device){.name = "bench",
				  .group = &rig.group,
				  .iommu = &iommu_generic_driver,
				  .dirty_tracking = true};
	rig.idev = iommufd_device_bind(rig.ctx, &rig.dev, &rig.dev_id);
	must(IS_ERR(rig.idev) ? PTR_ERR(rig.idev) : 0, "bind");
	must(swiommu_dma_open(rig.idev, &rig.dma), "dma");
}

static void close_rig(void)
{
	iommufd_device_detach(rig.idev, 0);
	swiommu_dma_close(rig.dma);
	iommufd_device_unbind(rig.idev);
	iommu_group_fini(&rig.group);
	swiommu_close(rig.ctx);
	munmap(rig.mapping, 2 * GIB);
}

static uint32_t ioas_new(void)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};

	must(call(IOMMU_IOAS_ALLOC, &cmd), "ioas");
	return cmd.out_ioas_id;
}

static uint32_t hwpt_new(uint32_t ioas, uint32_t flags)
{
	struct iommu_hwpt_alloc cmd = {
		.size = sizeof(cmd), .flags = flags, .dev_id = rig.dev_id, .pt_id = ioas};

	must(call(IOMMU_HWPT_ALLOC, &cmd), "hwpt");
	return cmd.out_hwpt_id;
}

static void destroy(uint32_t id)
{
	struct iommu_destroy cmd = {.size = sizeof(cmd), .id = id};

	must(call(IOMMU_DESTROY, &cmd), "destroy");
}

static void map(uint32_t ioas, unsigned long iova, unsigned long at, unsigned long length)
{
	struct iommu_ioas_map cmd = {.size = sizeof(cmd),
				     .flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
					      IOMMU_IOAS_MAP_WRITEABLE,
				     .ioas_id = ioas,
				     .user_va = (uintptr_t)rig.mem + at,
				     .length = length,
				     .iova = iova};

	must(call(IOMMU_IOAS_MAP, &cmd), "map");
}

static void unmap(uint32_t ioas, unsigned long iova, unsigned long length)
{
	struct iommu_ioas_unmap cmd = {
		.size = sizeof(cmd), .ioas_id = ioas, .iova = iova, .length = length};

	must(call(IOMMU_IOAS_UNMAP, &cmd), "unmap");
}

/* ---- hwpt ---------------------------------------------------------------------------------------- */

static void time_hwpt(struct row *alloc, struct row *gone, uint32_t ioas, uint32_t flags,
		      unsigned n)
{
	double making = 0, ending = 0, base = malloc_pair(10000);

	for (unsigned i = 0; i < n; i++) {
		double start = now_ns(), middle;
		uint32_t id = hwpt_new(ioas, flags);

		middle = now_ns();
		making += middle - start;
		destroy(id);
		ending += now_ns() - middle;
	}
	sample(&alloc->subject, making / n);
	sample(&alloc->base, base);
	sample(&gone->subject, ending / n);
	sample(&gone->base, base);
}

static void time_replace(struct row *row, uint32_t a, uint32_t b)
{
	double start = now_ns();
	unsigned n = 2000;

	for (unsigned i = 0; i < n; i++) {
		uint32_t pt = i & 1 ? a : b;

		must(iommufd_device_replace(rig.idev, 0, &pt), "replace");
	}
	sample(&row->subject, (now_ns() - start) / n);
	sample(&row->base, malloc_pair(10000));
}

static void bench_hwpt(void)
{
	static const struct {
		const char *name, *end, *target;
		uint32_t flags;
		bool mapped;
	} cases[] = {
		{"HWPT_ALLOC, IOAS empty", "  DESTROY", "250 ns", 0, false},
		{"HWPT_ALLOC on 1 GiB, large leaves", "  DESTROY", "1 us", 0, true},
		{"HWPT_ALLOC on 1 GiB, 4 KiB leaves", "  DESTROY", "340 us",
		 IOMMU_HWPT_ALLOC_DIRTY_TRACKING, true},
	};
	struct row same = {
		.name = "replace, same IOAS", .baseline = "malloc pair", .target = "100 ns"};
	struct row other = {
		.name = "replace, another IOAS", .baseline = "malloc pair", .target = "100 ns"};
	uint32_t ioas[2], pt, a, b, c;

	print_heading("hwpt");
	open_rig();
	ioas[0] = ioas_new();
	ioas[1] = ioas_new();
	map(ioas[1], IOVA, 0, GIB);
	/* Pinned already: what is measured are the tables. */
	c = hwpt_new(ioas[1], 0);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct row alloc = {.name = cases[i].name,
				    .baseline = "malloc pair",
				    .target = cases[i].target};
		struct row gone = {.name = cases[i].end, .baseline = "malloc pair", .target = ""};

		for (unsigned r = 0; r < cfg.rounds; r++)
			time_hwpt(&alloc, &gone, ioas[cases[i].mapped], cases[i].flags,
				  cases[i].flags ? 3 : 1000);
		print_row(&alloc);
		print_row(&gone);
	}
	a = hwpt_new(ioas[0], 0);
	b = hwpt_new(ioas[0], 0);
	pt = a;
	must(iommufd_device_attach(rig.idev, 0, &pt), "attach");
	for (unsigned r = 0; r < cfg.rounds; r++) {
		time_replace(&same, a, b);
		time_replace(&other, a, c);
	}
	print_row(&same);
	print_row(&other);
	close_rig();
}

/* ---- map ----------------------------------------------------------------------------------------- */

/* ns of a map and of an unmap of `length` bytes. */
static void time_map(uint32_t ioas, unsigned long length, unsigned n, double *mapping, double *gone)
{
	*mapping = *gone = 0;
	for (unsigned i = 0; i < n; i++) {
		double start = now_ns(), middle;

		map(ioas, IOVA, 0, length);
		middle = now_ns();
		*mapping += middle - start;
		unmap(ioas, IOVA, length);
		*gone += now_ns() - middle;
	}
	*mapping /= n;
	*gone /= n;
}

/*
 * What a table adds: with two HWPTs beside with one. The first costs more than its table, since with it comes the pinning,
 * which is a look at the memory.
 */
static void bench_map(void)
{
	static const struct {
		const char *map, *unmap, *target, *target_unmap;
		unsigned long length;
		uint32_t flags;
		unsigned n;
	} cases[] = {
		{"map 4 KiB, another HWPT", "  unmap", "+15 ns", "+15 ns", PAGE, 0, 1000},
		{"map 64 KiB, another HWPT", "  unmap", "", "", 64 << 10, 0, 1000},
		{"map 2 MiB, another HWPT, large leaf", "  unmap", "", "", 2 * MIB, 0, 1000},
		{"map 2 MiB, another HWPT, 4 KiB leaves", "  unmap", "+50 ns", "", 2 * MIB,
		 IOMMU_HWPT_ALLOC_DIRTY_TRACKING, 1000},
		{"map 1 GiB, another HWPT, large leaf", "  unmap", "", "", GIB, 0, 500},
		{"map 1 GiB, another HWPT, 4 KiB leaves", "  unmap", "+220-340 us", "", GIB,
		 IOMMU_HWPT_ALLOC_DIRTY_TRACKING, 2},
	};

	print_heading("map");
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct row mapping = {
			.name = cases[i].map, .baseline = "one HWPT", .target = cases[i].target};
		struct row gone = {.name = cases[i].unmap,
				   .baseline = "one HWPT",
				   .target = cases[i].target_unmap};
		uint32_t one, two;

		open_rig();
		one = ioas_new();
		two = ioas_new();
		hwpt_new(one, 0);
		hwpt_new(two, 0);
		hwpt_new(two, cases[i].flags);
		for (unsigned r = 0; r < cfg.rounds; r++) {
			double m, u;

			time_map(two, cases[i].length, cases[i].n, &m, &u);
			sample(&mapping.subject, m);
			sample(&gone.subject, u);
			time_map(one, cases[i].length, cases[i].n, &m, &u);
			sample(&mapping.base, m);
			sample(&gone.base, u);
		}
		close_rig();
		print_row(&mapping);
		print_row(&gone);
	}
}

/* ---- dma ----------------------------------------------------------------------------------------- */

static uint64_t state = 88172645463325252ull;

/* ns of reading `length` bytes at one of `pages` pages of 1 GiB, in order or anywhere. */
static double time_dma(unsigned long pages, unsigned long length, bool random, unsigned n)
{
	static char buf[MIB];
	unsigned long page = 0;
	double start = now_ns();

	for (unsigned i = 0; i < n; i++) {
		page = random ? rng_next(&state) % pages : (page + 1) % pages;
		must(swiommu_dma_read(rig.dma, IOVA + page * PAGE, buf, length), "read");
	}
	return (now_ns() - start) / n;
}

/* The same without any IOMMU. */
static double time_copy(unsigned long pages, unsigned long length, bool random, unsigned n)
{
	static char buf[MIB];
	unsigned long page = 0;
	double start = now_ns();

	for (unsigned i = 0; i < n; i++) {
		page = random ? rng_next(&state) % pages : (page + 1) % pages;
		memcpy(buf, rig.mem + page * PAGE, opaque(length));
		consume(buf);
	}
	return (now_ns() - start) / n;
}

static void bench_dma(void)
{
	static const struct {
		const char *name;
		unsigned long pages, length;
		bool random;
		unsigned n;
	} cases[] = {
		{"read 64 B, one page", 1, 64, false, 200000},
		{"read 64 B, 64 pages at random", 64, 64, true, 200000},
		{"read 64 B, 1 GiB in order", GIB / PAGE, 64, false, 200000},
		{"read 64 B, 1 GiB at random", GIB / PAGE, 64, true, 200000},
		{"read 4 KiB, 1 GiB at random", GIB / PAGE, 4096, true, 50000},
		{"read 1 MiB, 16 MiB in order", 4096 - 256, MIB, false, 100},
	};
	static const char *const kinds[] = {"dma, large leaves", "dma, 4 KiB leaves"};

	for (unsigned k = 0; k < 2; k++) {
		uint32_t ioas, pt;

		print_heading(kinds[k]);
		open_rig();
		ioas = ioas_new();
		memset(rig.mem, 1, GIB);
		map(ioas, IOVA, 0, GIB);
		pt = hwpt_new(ioas, k ? IOMMU_HWPT_ALLOC_DIRTY_TRACKING : 0);
		must(iommufd_device_attach(rig.idev, 0, &pt), "attach");
		for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			struct row row = {
				.name = cases[i].name, .baseline = "memcpy", .target = ""};

			time_copy(cases[i].pages, cases[i].length, cases[i].random, cases[i].n);
			for (unsigned r = 0; r < cfg.rounds; r++) {
				sample(&row.subject, time_dma(cases[i].pages, cases[i].length,
							      cases[i].random, cases[i].n));
				sample(&row.base, time_copy(cases[i].pages, cases[i].length,
							    cases[i].random, cases[i].n));
			}
			print_row(&row);
		}
		close_rig();
	}
}

int main(int argc, char **argv)
{
	static const struct bench_section sections[] = {
		{"hwpt", bench_hwpt}, {"map", bench_map}, {"dma", bench_dma}};
	int rc;

	must(mem_owner_local(&owner), "owner");
	rc = bench_main(&cfg, sections, 3, argc, argv);
	mem_owner_put(owner);
	return rc;
}
