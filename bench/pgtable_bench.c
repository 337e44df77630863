// SPDX-License-Identifier: MIT
/*
 * What page tables cost, by their own interface alone.
 *
 * Map and unmap are timed apart, with the gather freed inside unmap's time (there are no readers to
 * wait for here) and, for what is large, once more without: that is what unmap itself takes. The
 * baselines are the memory work that cannot be avoided, measured in the same run: an allocation, the
 * stores of as many entries, the scan of a bitmap of as many bits.
 *
 *   pgtable_bench [--quick] [--check]     --check: exit status 1 if a hard limit is missed
 */
#include <stdatomic.h>

#include "base/alloc.h"
#include "bench.h"
#include "pgtable/pgtable.h"

#define KIB (1ull << 10)
#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define RW (SWI_READ | SWI_WRITE)

static struct {
	unsigned rounds;
	bool missed;
} cfg = {.rounds = 15};

static void die(const char *what)
{
	fprintf(stderr, "pgtable_bench: %s\n", what);
	exit(2);
}

static void finish(const struct row *row)
{
	if (!print_row(row))
		cfg.missed = true;
}

/* ---- baselines ------------------------------------------------------------------------------- */

/* Storing the entries of `bytes` of tables, as they are stored for readers. */
static double entry_stores(_Atomic(uint64_t) *table, size_t bytes, unsigned n)
{
	double start = now_ns();

	for (unsigned i = 0; i < n; i++) {
		for (size_t k = 0; k < bytes / 8; k++)
			atomic_store_explicit(&table[k], k << 12 | 3, memory_order_release);
		consume(table);
	}
	return (now_ns() - start) / n;
}

static double bitmap_scan(_Atomic(uint64_t) *bitmap, unsigned n)
{
	double start = now_ns();

	for (unsigned i = 0; i < n; i++) {
		uint64_t any = 0;

		for (unsigned k = 0; k < 32 * KIB / 8; k++)
			any += atomic_load_explicit(&bitmap[k], memory_order_relaxed) != 0;
		consume(any);
	}
	return (now_ns() - start) / n;
}

static double bitmap_exchange(_Atomic(uint64_t) *bitmap, unsigned n)
{
	double start = now_ns();

	for (unsigned i = 0; i < n; i++) {
		uint64_t any = 0;

		for (unsigned k = 0; k < 32 * KIB / 8; k++)
			any += atomic_exchange(&bitmap[k], 0);
		consume(any);
	}
	return (now_ns() - start) / n;
}

/* ---- mapping --------------------------------------------------------------------------------- */

struct shape {
	const char *name;
	uint64_t length, pgsize; /* 0: the largest leaves */
	unsigned n;		 /* per round */
	const char *map_target, *unmap_target, *free_target;
};

static const struct shape shapes[] = {
	{"4 KiB", 4 * KIB, 4 * KIB, 20000, "<= 20 ns", "<= 20 ns", NULL},
	{"2 MiB, large leaf", 2 * MIB, 0, 20000, "<= 20 ns", "<= 20 ns", NULL},
	{"1 GiB, large leaf", GIB, 0, 20000, "<= 20 ns", "<= 20 ns", NULL},
	{"2 MiB of 4 KiB leaves", 2 * MIB, 4 * KIB, 1000, "<= 150 ns", "", "zeroing"},
	{"1 GiB of 2 MiB leaves", GIB, 2 * MIB, 1000, "<= 300 ns", "", "zeroing"},
	{"1 GiB of 4 KiB leaves", GIB, 4 * KIB, 4, "<= 220 us", "<= 200 ns", "zeroing"},
};

static void map_once(struct pgtable *pt, const struct shape *s, iova_t iova)
{
	uint64_t done;
	int rc = s->pgsize ? pgtable_map_pages(pt, iova, 64 * GIB, s->pgsize, s->length / s->pgsize,
					       RW, &done, NULL)
			   : pgtable_map(pt, iova, 64 * GIB, s->length, RW, NULL);

	if (rc)
		die("map failed");
}

/* One at a time, so that the tables stay warm; the clock's cost is taken off. */
static void time_shape(struct pgtable *pt, const struct shape *s, double clock_ns, double *map,
		       double *unmap, double *freed)
{
	iova_t iova = 128 * GIB;

	*map = *unmap = *freed = 0;
	for (unsigned i = 0; i < s->n; i++) {
		struct pgtable_gather gather;
		double t[4];

		pgtable_gather_init(&gather);
		t[0] = now_ns();
		map_once(pt, s, iova);
		t[1] = now_ns();
		if (pgtable_unmap(pt, iova, s->length, &gather) != s->length)
			die("unmap failed");
		t[2] = now_ns();
		pgtable_gather_free(pt, &gather);
		t[3] = now_ns();
		*map += t[1] - t[0] - clock_ns;
		*unmap += t[2] - t[1] - clock_ns;
		*freed += t[3] - t[2] - clock_ns;
	}
	*map /= s->n;
	*unmap /= s->n;
	*freed /= s->n;
}

static double clock_cost(void)
{
	double start = now_ns();

	for (unsigned i = 0; i < 2000; i++)
		consume(now_ns());
	return (now_ns() - start) / 2001;
}

static void bench_shape(const struct pgtable_config *config, const struct shape *s)
{
	bool small = s->length / (s->pgsize ? s->pgsize : s->length) == 1;
	size_t bytes = small ? 0 : s->length / s->pgsize * 8;
	_Atomic(uint64_t) *table = small ? NULL : aligned_alloc(4096, bytes);
	const char *base = small ? "malloc+free" : "storing the entries";
	char name[3][64];
	struct row map = {.name = name[0], .baseline = base, .target = s->map_target};
	struct row unmap = {.name = name[1], .baseline = base, .target = s->unmap_target};
	struct row freed = {.name = name[2], .baseline = base, .target = s->free_target};
	struct pgtable *pt;

	snprintf(name[0], sizeof(name[0]), "map %s", s->name);
	snprintf(name[1], sizeof(name[1]), "unmap %s", s->name);
	snprintf(name[2], sizeof(name[2]), "free its tables");
	if (pgtable_create(config, &pt))
		die("cannot create a table");
	/* Something nearby is mapped, as it is in use. */
	map_once(pt, &shapes[0], 128 * GIB - 4 * KIB);
	map_once(pt, &shapes[0], 128 * GIB + 2 * GIB);
	for (unsigned i = 0; i < cfg.rounds + 1; i++) {
		double m, u, f, b;

		time_shape(pt, s, clock_cost(), &m, &u, &f);
		b = small ? malloc_pair(s->n) : entry_stores(table, bytes, s->n);
		if (!i)
			continue; /* warming up */
		sample(&map.subject, m);
		sample(&unmap.subject, u);
		sample(&freed.subject, f);
		sample(&map.base, b);
		sample(&unmap.base, b);
		sample(&freed.base, b);
	}
	finish(&map);
	finish(&unmap);
	if (s->free_target)
		finish(&freed);
	pgtable_destroy(pt);
	free((void *)table);
}

/* ---- looking up, dirty ----------------------------------------------------------------------- */

static void count(void *data, iova_t iova, uint64_t length)
{
	(void)iova;
	*(uint64_t *)data += length;
}

static double time_dirty(struct pgtable *pt, unsigned flags, unsigned n, uint64_t expected)
{
	double start = now_ns();

	for (unsigned i = 0; i < n; i++) {
		uint64_t dirty = 0;

		pgtable_read_dirty(pt, 0, GIB, flags, count, &dirty, NULL);
		if (dirty != expected)
			die("dirty read is wrong");
	}
	return (now_ns() - start) / n;
}

static double time_lookups(struct pgtable *pt, unsigned n, uint64_t pages)
{
	uint64_t seed = 88172645463325252u;
	double start = now_ns();

	for (unsigned i = 0; i < n; i++)
		consume(pgtable_iova_to_phys(pt, rng_next(&seed) % pages * 4096));
	return (now_ns() - start) / n;
}

static double time_marks(struct pgtable *pt, unsigned n)
{
	uint64_t seed = 88172645463325252u;
	double start = now_ns();

	for (unsigned i = 0; i < n; i++)
		pgtable_mark_dirty(pt, rng_next(&seed) % 64 * 4096, 64);
	return (now_ns() - start) / n;
}

static void bench_dirty(const struct pgtable_config *config)
{
	struct row clean = {.name = "read 1 GiB, clean",
			    .baseline = "scan of 32 KiB of bitmap",
			    .target = "<= 1x (150 ns)",
			    .limit = 1,
			    .hard = true};
	struct row sparse = {.name = "read 1 GiB, one page dirty",
			     .baseline = "scan of 32 KiB of bitmap",
			     .target = "<= 1x",
			     .limit = 1,
			     .hard = true};
	struct row full = {.name = "read+clear 1 GiB, all dirty",
			   .baseline = "exchange of 32 KiB",
			   .target = "<= 1.2x (14 us)",
			   .limit = 1.2};
	struct row keep = {.name = "read 1 GiB, all dirty, NO_CLEAR",
			   .baseline = "exchange of 32 KiB",
			   .target = ""};
	struct row look = {
		.name = "iova_to_phys, 64 pages", .baseline = "malloc+free", .target = ""};
	struct row far = {
		.name = "iova_to_phys, 1 GiB of 4 KiB", .baseline = "malloc+free", .target = ""};
	struct row mark = {.name = "mark a dirty page", .baseline = "malloc+free", .target = ""};
	struct row *const rows[] = {&clean, &sparse, &full, &keep, &look, &far, &mark};
	_Atomic(uint64_t) *bitmap = aligned_alloc(4096, 32 * KIB);
	struct pgtable *pt;
	uint64_t done;

	memset((void *)bitmap, 0, 32 * KIB);
	if (pgtable_create(config, &pt) ||
	    pgtable_map_pages(pt, 0, 0, 4 * KIB, GIB / (4 * KIB), RW, &done, NULL))
		die("cannot map");
	for (unsigned i = 0; i < cfg.rounds + 1; i++) {
		double scan = bitmap_scan(bitmap, 100), exchange = bitmap_exchange(bitmap, 20);
		double pair = malloc_pair(20000), v[7];

		pgtable_read_dirty(pt, 0, GIB, 0, NULL, NULL, NULL);
		v[0] = time_dirty(pt, 0, 100, 0);
		pgtable_mark_dirty(pt, GIB / 3, 1);
		v[1] = time_dirty(pt, PGTABLE_NO_CLEAR, 100, 4 * KIB);
		pgtable_mark_dirty(pt, 0, GIB);
		v[3] = time_dirty(pt, PGTABLE_NO_CLEAR, 1, GIB);
		v[2] = time_dirty(pt, 0, 1, GIB);
		v[4] = time_lookups(pt, 20000, 64);
		v[5] = time_lookups(pt, 20000, GIB / 4096);
		v[6] = time_marks(pt, 20000);
		if (!i)
			continue;
		for (unsigned k = 0; k < 7; k++) {
			sample(&rows[k]->subject, v[k]);
			sample(&rows[k]->base, k < 2 ? scan : k < 4 ? exchange : pair);
		}
	}
	for (unsigned k = 0; k < 7; k++)
		finish(rows[k]);
	pgtable_destroy(pt);
	free((void *)bitmap);
}

int main(int argc, char **argv)
{
	static const struct pgtable_config config[] = {
		{.format = &pgtable_vtdss, .va_bits = 48, .oa_bits = 52},
		{.format = &pgtable_amdv1, .va_bits = 64, .oa_bits = 52},
		{.format = &pgtable_x86_64, .va_bits = 48, .oa_bits = 52},
	};
	static const char *const name[] = {"VT-d second stage, 4 levels", "AMDv1", "x86-64"};
	bool check = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--quick")) {
			cfg.rounds = 5;
		} else if (!strcmp(argv[i], "--check")) {
			check = true;
		} else {
			fprintf(stderr, "usage: pgtable_bench [--quick] [--check]\n");
			return 2;
		}
	}
	for (unsigned i = 0; i < 3; i++) {
		print_heading(name[i]);
		for (unsigned k = 0; k < sizeof(shapes) / sizeof(shapes[0]); k++)
			bench_shape(&config[i], &shapes[k]);
		if (config[i].format != &pgtable_x86_64)
			bench_dirty(&config[i]);
	}
	return check && cfg.missed ? 1 : 0;
}
