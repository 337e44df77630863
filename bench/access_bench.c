// SPDX-License-Identifier: MIT
/*
 * What an access costs an embedder: rw beside memcpy of the same size, pins beside filling an array.
 *
 *   access_bench [--quick] [--check] [SECTION]     --check: exit status 1 if a hard limit is missed
 *
 * Sections: hot, ways, random, pin. Subject and baseline are measured in turns, see bench.h.
 */
#include <linux/iommufd.h>
#include <sys/mman.h>
#include <swiommu/iommufd.h>

#include "bench.h"

#define PAGE 4096ul
#define MIB (1ul << 20)
#define IOVA (1ul << 30)

static struct bench_config cfg = {.rounds = 15};

static struct {
	struct iommufd_ctx *ctx;
	struct swiommu_caller caller;
	uint32_t ioas;
	struct iommufd_access *access;
	struct iommu_group group;
	struct device dev;
	struct iommufd_device *idev; /* NULL: no device attached */
	char *mem;
	unsigned long length;
} rig;

static void must(int rc, const char *what)
{
	if (!rc)
		return;
	fprintf(stderr, "access_bench: %s: %s\n", what, strerror(rc < 0 ? -rc : rc));
	exit(2);
}

/* ---- fixtures -------------------------------------------------------------------------------- */

static void on_unmap(void *data, unsigned long iova, unsigned long length)
{
	(void)data;
	(void)iova;
	(void)length;
}

static void map_memory(void)
{
	struct iommu_ioas_map cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 IOMMU_IOAS_MAP_WRITEABLE,
		.ioas_id = rig.ioas,
		.user_va = (uintptr_t)rig.mem,
		.length = rig.length,
		.iova = IOVA,
	};

	must(swiommu_ioctl(rig.ctx, &rig.caller, IOMMU_IOAS_MAP, (uintptr_t)&cmd), "map");
}

static void attach_device(void)
{
	uint32_t id, pt = rig.ioas;

	must(iommu_group_init(&rig.group, 1), "group");
	rig.dev = (struct device){
		.name = "bench", .group = &rig.group, .iommu = &iommu_generic_driver};
	rig.idev = iommufd_device_bind(rig.ctx, &rig.dev, &id);
	must(IS_ERR(rig.idev) ? (int)PTR_ERR(rig.idev) : 0, "bind");
	must(iommufd_device_attach(rig.idev, 0, &pt), "attach a device");
}

/* `length` bytes of shared memory in an IOAS, with an access. */
static void open_rig(unsigned long length, bool device)
{
	static const struct iommufd_access_ops ops = {.needs_pin_pages = 1, .unmap = on_unmap};
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};
	uint32_t id;

	memset(&rig, 0, sizeof(rig));
	must(swiommu_open(NULL, &rig.ctx), "open");
	swiommu_caller_local(&rig.caller);
	must(swiommu_ioctl(rig.ctx, &rig.caller, IOMMU_IOAS_ALLOC, (uintptr_t)&cmd), "ioas");
	rig.ioas = cmd.out_ioas_id;
	rig.length = length;
	rig.mem = mmap(NULL, length, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	must(rig.mem == MAP_FAILED ? 12 : 0, "memory");
	map_memory();
	if (device)
		attach_device();
	rig.access = iommufd_access_create(rig.ctx, &ops, NULL, &id);
	must(IS_ERR(rig.access) ? (int)PTR_ERR(rig.access) : 0, "access");
	must(iommufd_access_attach(rig.access, rig.ioas), "attach");
}

static void close_rig(void)
{
	iommufd_access_destroy(rig.access);
	if (rig.idev) {
		iommufd_device_detach(rig.idev, 0);
		iommufd_device_unbind(rig.idev);
		iommu_group_fini(&rig.group);
	}
	swiommu_close(rig.ctx);
	munmap(rig.mem, rig.length);
}

static void finish(const struct row *row)
{
	if (!print_row(row))
		cfg.missed = true;
}

/* ---- rw -------------------------------------------------------------------------------------- */

struct load {
	size_t size;
	unsigned long
		span; /* addresses lie in the first `span` bytes, at multiples of a page; 0: always the same */
	unsigned n;
	char *buf;
};

static unsigned long address(const struct load *l, uint64_t *seed)
{
	return l->span ? rng_next(seed) % (l->span / PAGE) * PAGE : 0;
}

static double run_rw(const struct load *l)
{
	uint64_t seed = 88172645463325252u;
	double start = now_ns();
	int bad = 0;

	for (unsigned i = 0; i < l->n; i++) {
		bad |= iommufd_access_rw(rig.access, IOVA + address(l, &seed), l->buf, l->size,
					 i & 1 ? IOMMUFD_ACCESS_RW_WRITE : IOMMUFD_ACCESS_RW_READ);
		consume(l->buf);
	}
	start = (now_ns() - start) / l->n;
	must(bad, "rw");
	return start;
}

static double run_memcpy(const struct load *l)
{
	uint64_t seed = 88172645463325252u;
	double start = now_ns();

	for (unsigned i = 0; i < l->n; i++) {
		char *at = rig.mem + address(l, &seed);

		if (i & 1)
			memcpy(at, l->buf, opaque(l->size));
		else
			memcpy(l->buf, at, opaque(l->size));
		consume(l->buf);
	}
	return (now_ns() - start) / l->n;
}

static void rw_row(const char *name, const char *target, double limit, size_t size,
		   unsigned long span, unsigned n)
{
	struct row row = {.name = name, .baseline = "memcpy", .target = target, .limit = limit};
	struct load l = {.size = size, .span = span, .n = cfg.quick ? n / 8 + 1 : n};

	l.buf = aligned_alloc(PAGE, size < PAGE ? PAGE : size);
	must(l.buf ? 0 : 12, "buffer");
	memset(l.buf, 1, size);
	run_rw(&l);
	for (unsigned i = 0; i < cfg.rounds; i++) {
		sample(&row.base, run_memcpy(&l));
		sample(&row.subject, run_rw(&l));
	}
	finish(&row);
	free(l.buf);
}

static void hot_rows(void)
{
	rw_row("rw 64 B", "5 ns, <= 2x", 2, 64, 0, 400000);
	rw_row("rw 4 KiB", "50 ns, <= 1.1x", 1.1, PAGE, 0, 60000);
	rw_row("rw 1 MiB", "25 us, <= 1.05x", 1.05, MIB, 0, 300);
}

static void bench_hot(void)
{
	print_heading("hot, a device attached");
	open_rig(4 * MIB, true);
	hot_rows();
	close_rig();
	print_heading("hot, no device, memory promised");
	open_rig(4 * MIB, false);
	swiommu_access_set_direct(rig.access, true);
	hot_rows();
	close_rig();
}

/* What it costs where a bad pointer must give an error. */
static void bench_ways(void)
{
	print_heading("hot, no device, own memory as it is now");
	open_rig(4 * MIB, false);
	rw_row("rw 64 B", "", 0, 64, 0, 20000);
	rw_row("rw 4 KiB", "", 0, PAGE, 0, 20000);
	rw_row("rw 1 MiB", "", 0, MIB, 0, 200);
	close_rig();
}

static void bench_random(void)
{
	unsigned long length = cfg.quick ? 128 * MIB : 1024 * MIB;

	print_heading(cfg.quick ? "random pages of 128 MiB" : "random pages of 1 GiB");
	open_rig(length, true);
	rw_row("rw 64 B", "80 ns, <= 2.3x", 2.3, 64, length, 200000);
	rw_row("rw 4 KiB", "700 ns, <= 1.35x", 1.35, PAGE, length, 40000);
	close_rig();
}

/* ---- pin ------------------------------------------------------------------------------------- */

struct pin_load {
	unsigned long length;
	struct page **pages; /* NULL: not wanted */
	unsigned n;
};

static void run_pins(const struct pin_load *l, double *pin, double *unpin)
{
	double start, mid, sum[2] = {0};
	int bad = 0;

	for (unsigned i = 0; i < l->n; i += 64) {
		start = now_ns();
		for (unsigned k = 0; k < 64; k++)
			bad |= iommufd_access_pin_pages(rig.access, IOVA + MIB, l->length, l->pages,
							1);
		mid = now_ns();
		for (unsigned k = 0; k < 64; k++)
			iommufd_access_unpin_pages(rig.access, IOVA + MIB, l->length);
		sum[1] += now_ns() - mid;
		sum[0] += mid - start;
	}
	must(bad, "pin");
	*pin = sum[0] / l->n;
	*unpin = sum[1] / l->n;
}

static double fill_array(const struct pin_load *l)
{
	static struct page *sink[512];
	double start = now_ns();

	for (unsigned i = 0; i < l->n; i++) {
		for (unsigned long k = 0; k < l->length / PAGE; k++)
			sink[k] = (struct page *)(rig.mem + (k + i) * PAGE);
		consume(sink);
	}
	return (now_ns() - start) / l->n;
}

static void pin_rows(const char *what, const char *pin_target, double limit,
		     const char *unpin_target, const struct pin_load *l)
{
	struct row pin = {.baseline = "fill an array", .target = pin_target}, unpin;
	char name[2][64];
	double t[2];

	snprintf(name[0], sizeof(name[0]), "pin %s", what);
	snprintf(name[1], sizeof(name[1]), "unpin %s", what);
	unpin = pin;
	pin.name = name[0];
	pin.limit = limit;
	unpin.name = name[1];
	unpin.target = unpin_target;
	for (unsigned i = 0; i < cfg.rounds; i++) {
		double base = fill_array(l);

		run_pins(l, &t[0], &t[1]);
		sample(&pin.base, base);
		sample(&unpin.base, base);
		sample(&pin.subject, t[0]);
		sample(&unpin.subject, t[1]);
	}
	finish(&pin);
	finish(&unpin);
}

/* Pages that nobody else holds: each time the memory is looked at. */
static void bench_first_pin(void)
{
	struct row row = {.name = "pin and unpin 1 page, looked up each time",
			  .baseline = "fill an array",
			  .target = ""};
	struct pin_load l = {.length = PAGE, .n = 2000};
	double start;

	for (unsigned i = 0; i < cfg.rounds; i++) {
		sample(&row.base, fill_array(&l));
		start = now_ns();
		for (unsigned k = 0; k < l.n; k++) {
			must(iommufd_access_pin_pages(rig.access, IOVA, PAGE, NULL, 1), "pin");
			iommufd_access_unpin_pages(rig.access, IOVA, PAGE);
		}
		sample(&row.subject, (now_ns() - start) / l.n);
	}
	finish(&row);
}

static void bench_pin(void)
{
	static struct page *pages[512];
	unsigned n = cfg.quick ? 6400 : 64000;

	print_heading("pins, a device attached");
	open_rig(8 * MIB, true);
	pin_rows("1 page", "25 ns", 0, "20 ns",
		 &(struct pin_load){.length = PAGE, .pages = pages, .n = n});
	pin_rows("2 MiB, run only", "25 ns", 0, "20 ns",
		 &(struct pin_load){.length = 2 * MIB, .n = n});
	pin_rows("2 MiB, 512 pages", "100 ns", 0, "20 ns",
		 &(struct pin_load){.length = 2 * MIB, .pages = pages, .n = n / 4});
	close_rig();
	print_heading("pins, no device");
	open_rig(8 * MIB, false);
	bench_first_pin();
	close_rig();
}

static const struct bench_section sections[] = {
	{"hot", bench_hot},
	{"ways", bench_ways},
	{"random", bench_random},
	{"pin", bench_pin},
};

int main(int argc, char **argv)
{
	return bench_main(&cfg, sections, sizeof(sections) / sizeof(sections[0]), argc, argv);
}
