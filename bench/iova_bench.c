// SPDX-License-Identifier: MIT
/*
 * What the IOVA map costs, by its own interface alone.
 *
 * Each section sets up a map, then measures subject and baseline in turns. Targets are those of the
 * project's performance page: hard ones (marked met/MISSED) are ratios to something measured here,
 * in the same run; the nanoseconds beside them are what a quiet Zen 4 machine should show.
 *
 *   iova_bench [--quick] [--check] [SECTION]     --check: exit status 1 if a hard limit is missed
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/alloc.h"
#include "bench.h"
#include "iova/map.h"

#define PAGE 4096ull
#define BATCH 256u /* translations in one read section where many are measured */

static struct bench_config cfg = {.rounds = 15};

static void finish(const struct row *row)
{
	if (!print_row(row))
		cfg.missed = true;
}

static void die(const char *what)
{
	fprintf(stderr, "iova_bench: %s\n", what);
	exit(2);
}

static void *must(void *p)
{
	if (!p)
		die("out of memory");
	return p;
}

/* ---- fixtures -------------------------------------------------------------------------------- */

static struct iova_map *make_map(void)
{
	struct iova_map *map;

	if (iova_map_create(&map))
		die("cannot create a map");
	return map;
}

static struct iova_reader *make_reader(struct iova_map *map)
{
	struct iova_reader *reader = must(swi_zalloc_aligned(SWI_CACHELINE, sizeof(*reader)));

	if (iova_reader_init(reader) || iova_reader_attach(reader, map))
		die("cannot make a reader");
	return reader;
}

static void drop_reader(struct iova_reader *reader, struct iova_map *map)
{
	iova_reader_detach(reader, map);
	iova_reader_fini(reader);
	swi_free(reader);
}

static void take(struct iova_map *map, struct iova_area *area)
{
	iova_map_lock(map);
	if (iova_map_insert(map, area))
		die("insert failed");
	iova_map_publish(map, area);
	iova_map_unlock(map);
}

static void give_back(struct iova_map *map, struct iova_area *area)
{
	iova_map_lock(map);
	iova_map_retract(map, area);
	iova_map_unlock(map);
	iova_map_sync(map);
	iova_map_lock(map);
	iova_map_remove(map, area);
	iova_map_unlock(map);
}

static struct iova_area *new_area(iova_t first, uint64_t length)
{
	struct iova_area *area = must(swi_new(struct iova_area));

	area->iova = first;
	area->last = first + length - 1;
	area->prot = SWI_READ | SWI_WRITE;
	area->host = (void *)area;
	return area;
}

/* n areas of a page each, `stride` apart from `base` on, entered in random order as real ones are.
 */
static void fill(struct iova_map *map, size_t n, iova_t base, uint64_t stride)
{
	uint32_t *order = must(malloc((n + 1) * sizeof(*order)));
	uint64_t seed = 88172645463325252u;

	for (size_t i = 0; i < n; i++)
		order[i] = (uint32_t)i;
	for (size_t i = n; i > 1; i--) {
		size_t k = rng_next(&seed) % i;
		uint32_t t = order[i - 1];

		order[i - 1] = order[k];
		order[k] = t;
	}
	for (size_t i = 0; i < n; i++)
		take(map, new_area(base + order[i] * stride, PAGE));
	free(order);
}

static void destroy_map(struct iova_map *map)
{
	struct iova_area *area;

	while ((area = iova_map_first(map, 0))) {
		give_back(map, area);
		swi_free(area);
	}
	iova_map_destroy(map);
}

/* ---- baselines ------------------------------------------------------------------------------- */

/* A dependent load that hits L1. */
static double l1_load(void)
{
	enum { N = 1000000 };
	void *cell[8];
	void **p = cell;
	double start;

	for (unsigned i = 0; i < 8; i++)
		cell[i] = &cell[(i + 3) % 8];
	p = opaque(p);
	start = now_ns();
	for (unsigned i = 0; i < N; i++)
		p = *p;
	consume(p);
	return (now_ns() - start) / N;
}

struct sorted {
	size_t n;
	struct sorted_entry {
		iova_t first, last;
		struct iova_area *area;
	} * e;
};

static void sorted_of(struct iova_map *map, struct sorted *s)
{
	struct iova_area *area;

	s->n = 0;
	s->e = must(malloc((iova_map_count(map) + 1) * sizeof(*s->e)));
	iova_map_for_each (area, map)
		s->e[s->n++] = (struct sorted_entry){area->iova, area->last, area};
}

/*
 * The usual user-space translation, in its two good forms: with branches, which lets the processor
 * guess on and wins where memory is far, and without, which wins where it is near.
 */
static inline struct iova_area *bisect_branches(const struct sorted *s, iova_t iova)
{
	size_t low = 0, high = s->n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (s->e[middle].last < iova)
			low = middle + 1;
		else
			high = middle;
	}
	return low < s->n && s->e[low].first <= iova ? s->e[low].area : NULL;
}

static inline struct iova_area *bisect_moves(const struct sorted *s, iova_t iova)
{
	const struct sorted_entry *base = s->e;
	size_t n = s->n;

	while (n > 1) {
		size_t half = n / 2;
		const struct sorted_entry *upper = base + half;

		/* opaque: or the compiler makes a branch of it */
		base = opaque((int)(upper->first <= iova)) ? upper : base;
		n -= half;
	}
	return iova >= base->first && iova <= base->last ? base->area : NULL;
}

/* ---- translate ------------------------------------------------------------------------------- */

enum { PROBES = 1 << 16 };

static iova_t *make_probes(size_t pages, iova_t base, uint64_t stride)
{
	iova_t *probe = must(malloc(PROBES * sizeof(*probe)));
	uint64_t seed = 0x9e3779b97f4a7c15u;

	for (unsigned i = 0; i < PROBES; i++)
		probe[i] = base + rng_next(&seed) % pages * stride + rng_next(&seed) % PAGE;
	return probe;
}

/* begin, translate, end for each probe; ns. */
static double translate_each(struct iova_reader *r, struct iova_map *map, const iova_t *probe,
			     unsigned mask, unsigned n)
{
	double start = now_ns();

	for (unsigned i = 0; i < n; i++) {
		struct iova_area *area;

		iova_read_begin(r);
		area = iova_translate(r, map, probe[i & mask]);
		consume(area);
		iova_read_end(r);
	}
	return (now_ns() - start) / n;
}

/*
 * Lookups in sections of BATCH. `chain`: each probe waits for the result before (its address is
 * ANDed away), else they may overlap. `host`: the result is the area's address in memory, loaded
 * from it.
 */
#define LOOKUP_LOOP(find, begin, end)                                                      \
	do {                                                                               \
		uintptr_t dep = 0, any = 0;                                                \
		double start = now_ns();                                                   \
		for (unsigned i = 0; i < n; i++) {                                         \
			struct iova_area *area;                                            \
			uintptr_t got;                                                     \
			if (i % BATCH == 0)                                                \
				begin;                                                     \
			iova = probe[(i + dep) & (PROBES - 1)];                            \
			area = find;                                                       \
			got = host ? (uintptr_t)atomic_load_explicit(&area->host,          \
								     memory_order_relaxed) \
				   : (uintptr_t)area;                                      \
			any |= got;                                                        \
			if (chain)                                                         \
				dep = opaque(got) >> 63;                                   \
			if (i % BATCH == BATCH - 1)                                        \
				end;                                                       \
		}                                                                          \
		if (n % BATCH)                                                             \
			end;                                                               \
		consume(any);                                                              \
		return (now_ns() - start) / n;                                             \
	} while (0)

static double lookup_map(struct iova_reader *r, struct iova_map *map, const iova_t *probe,
			 bool chain, bool host, unsigned n)
{
	iova_t iova;

	LOOKUP_LOOP(iova_translate(r, map, iova), iova_read_begin(r), iova_read_end(r));
}

static double lookup_branches(const struct sorted *s, const iova_t *probe, bool chain, bool host,
			      unsigned n)
{
	iova_t iova;

	LOOKUP_LOOP(bisect_branches(s, iova), (void)0, (void)0);
}

static double lookup_moves(const struct sorted *s, const iova_t *probe, bool chain, bool host,
			   unsigned n)
{
	iova_t iova;

	LOOKUP_LOOP(bisect_moves(s, iova), (void)0, (void)0);
}

/* The better of the two. */
static double lookup_sorted(const struct sorted *s, const iova_t *probe, bool chain, bool host,
			    unsigned n)
{
	double branches = lookup_branches(s, probe, chain, host, n);
	double moves = lookup_moves(s, probe, chain, host, n);

	return branches < moves ? branches : moves;
}

/* What a read section costs before anything is done in it. */
static double empty_section(struct iova_reader *r, unsigned n)
{
	double start = now_ns();

	for (unsigned i = 0; i < n; i++) {
		iova_read_begin(r);
		consume(i);
		iova_read_end(r);
	}
	return (now_ns() - start) / n;
}

static void bench_translate_hot(void)
{
	struct row empty = {"begin+end alone", "L1 load", "", 0, false, {0}, {0}};
	struct row same = {
		"repeated page, begin+translate+end", "L1 load", "<= 4 ns", 4, false, {0}, {0}};
	struct row batch = {
		"repeated page, inside a section", "L1 load", "<= 1.5 ns", 1.5, false, {0}, {0}};
	struct row p16 = {"16 hot pages, begin+translate+end",
			  "L1 load",
			  "<= 5 ns (4 L1)",
			  5,
			  false,
			  {0},
			  {0}};
	struct row p64 = {"64 hot pages, begin+translate+end",
			  "L1 load",
			  "<= 5 ns (4 L1)",
			  5,
			  false,
			  {0},
			  {0}};
	unsigned n = cfg.quick ? 300000 : 1000000;
	struct iova_map *map = make_map();
	struct iova_reader *r = make_reader(map);
	iova_t *one = make_probes(1, 0x100000, PAGE), *hot16 = make_probes(16, 0x100000, PAGE);
	iova_t *hot64 = make_probes(64, 0x100000, PAGE);

	fill(map, 1000, 0x100000, PAGE);
	for (unsigned i = 0; i < cfg.rounds; i++) {
		double l1 = l1_load();

		sample(&empty.base, l1);
		sample(&empty.subject, empty_section(r, n));
		sample(&same.base, l1);
		sample(&batch.base, l1);
		sample(&p16.base, l1);
		sample(&p64.base, l1);
		sample(&same.subject, translate_each(r, map, one, 1023, n));
		sample(&batch.subject, lookup_map(r, map, one, false, false, n));
		sample(&p16.subject, translate_each(r, map, hot16, 1023, n));
		sample(&p64.subject, translate_each(r, map, hot64, 1023, n));
	}
	print_heading("translate, hot");
	finish(&empty);
	finish(&same);
	finish(&batch);
	finish(&p16);
	finish(&p64);
	drop_reader(r, map);
	destroy_map(map);
	free(one);
	free(hot16);
	free(hot64);
}

static void bench_translate_random(size_t areas, const char *name, const char *ns_dep,
				   const char *ns_thr, bool hard)
{
	char names[3][64], targets[3][64];
	struct row rows[3] = {0};
	unsigned n = cfg.quick ? 100000 : 400000;
	iova_t base = 1ull << 32;
	struct iova_map *map = make_map();
	struct iova_reader *r = make_reader(map);
	iova_t *probe = make_probes(areas, base, PAGE);
	struct sorted sorted;

	for (unsigned k = 0; k < 3; k++) {
		static const char *const kinds[] = {"dependent", "throughput",
						    "dependent, to host addr."};

		snprintf(names[k], sizeof(names[k]), "random @%s, %s", name, kinds[k]);
		rows[k].name = names[k];
		rows[k].baseline = k == 2 ? "best bisection + host" : "best bisection";
		rows[k].target = targets[k];
	}
	snprintf(targets[0], sizeof(targets[0]), "<= 0.5x; %s ns", ns_dep);
	snprintf(targets[1], sizeof(targets[1]), "%s ns", ns_thr);
	targets[2][0] = 0;
	rows[0].limit = 0.5;
	rows[0].hard = hard;
	fill(map, areas, base, PAGE);
	sorted_of(map, &sorted);
	for (unsigned i = 0; i < cfg.rounds; i++) {
		for (unsigned k = 0; k < 3; k++) {
			sample(&rows[k].subject, lookup_map(r, map, probe, k != 1, k == 2, n));
			sample(&rows[k].base, lookup_sorted(&sorted, probe, k != 1, k == 2, n));
		}
	}
	for (unsigned k = 0; k < 3; k++)
		finish(&rows[k]);
	drop_reader(r, map);
	free(sorted.e);
	free(probe);
	destroy_map(map);
}

static void bench_random(void)
{
	print_heading("translate, random page (each its own area)");
	bench_translate_random(1000, "1k", "10", "4", false);
	bench_translate_random(100000, "100k", "55", "16", true);
	bench_translate_random(1000000, "1M", "190", "36", false);
}

/* ---- map and unmap --------------------------------------------------------------------------- */

enum { GROUP = 64 };

struct mapping {
	struct iova_map *map;
	struct iova_area *area[GROUP];
};

static double insert_group(struct mapping *m)
{
	double start = now_ns();

	for (unsigned i = 0; i < GROUP; i++)
		take(m->map, m->area[i]);
	return (now_ns() - start) / GROUP;
}

static double remove_group(struct mapping *m)
{
	double start = now_ns();

	for (unsigned i = 0; i < GROUP; i++)
		give_back(m->map, m->area[i]);
	return (now_ns() - start) / GROUP;
}

/* Holes are the odd pages behind each area; `random` takes any of them, else one and the same. */
static void pick_holes(struct mapping *m, size_t areas, bool random, uint64_t *seed)
{
	for (unsigned i = 0; i < GROUP; i++) {
		uint64_t hole = areas + i;

		if (random && areas) /* without repeating one */
			hole = (rng_next(seed) % (areas / GROUP)) * GROUP + i;
		m->area[i]->iova = (1ull << 32) + hole * 2 * PAGE + PAGE;
		m->area[i]->last = m->area[i]->iova + PAGE - 1;
	}
}

static void bench_map_at(size_t areas, const char *name, bool random, const char *target_map,
			 const char *target_unmap)
{
	char names[2][64];
	struct row map_row = {names[0], "malloc+free", target_map, 0, false, {0}, {0}};
	struct row unmap_row = {names[1], "malloc+free", target_unmap, 0, false, {0}, {0}};
	unsigned groups = cfg.quick ? 30 : 200;
	struct mapping m = {.map = make_map()};
	struct iova_reader *r = make_reader(m.map);
	uint64_t seed = 4711;

	snprintf(names[0], sizeof(names[0]), "insert+publish @%s, %s", name,
		 random ? "random" : "hot");
	snprintf(names[1], sizeof(names[1]), "retract+sync+remove @%s, %s", name,
		 random ? "random" : "hot");
	fill(m.map, areas, 1ull << 32, 2 * PAGE);
	for (unsigned i = 0; i < GROUP; i++)
		m.area[i] = new_area(0, PAGE);
	for (unsigned i = 0; i < cfg.rounds; i++) {
		double pair = malloc_pair(100000), in = 0, out = 0;

		for (unsigned k = 0; k < groups; k++) {
			pick_holes(&m, areas, random, &seed);
			in += insert_group(&m);
			out += remove_group(&m);
		}
		sample(&map_row.base, pair);
		sample(&unmap_row.base, pair);
		sample(&map_row.subject, in / groups);
		sample(&unmap_row.subject, out / groups);
	}
	finish(&map_row);
	finish(&unmap_row);
	for (unsigned i = 0; i < GROUP; i++)
		swi_free(m.area[i]);
	drop_reader(r, m.map);
	destroy_map(m.map);
}

static void bench_map(void)
{
	print_heading("map and unmap 4 KiB (with locks; objects of the caller)");
	bench_map_at(0, "0", false, "60 ns (7x)", "45 ns (5x)");
	bench_map_at(1000, "1k", false, "60 ns (7x)", "45 ns (5x)");
	bench_map_at(1000, "1k", true, "", "");
	bench_map_at(100000, "100k", false, "60 ns (7x)", "45 ns (5x)");
	bench_map_at(100000, "100k", true, "450 ns", "120 ns");
}

/* ---- automatic IOVA -------------------------------------------------------------------------- */

static double place_group(struct mapping *m, uint64_t length)
{
	double start = now_ns();

	for (unsigned i = 0; i < GROUP; i++) {
		struct iova_area *area = m->area[i];
		iova_t iova;

		iova_map_lock(m->map);
		if (iova_map_find(m->map, length, 1 << 20, 1, &iova))
			die("no place found");
		area->iova = iova;
		area->last = iova + length - 1;
		if (iova_map_insert(m->map, area))
			die("insert failed");
		iova_map_publish(m->map, area);
		iova_map_unlock(m->map);
	}
	return (now_ns() - start) / GROUP;
}

static void bench_place_behind(bool holes, uint64_t length)
{
	static const size_t counts[] = {0, 1000, 10000, 100000};
	static const char *const count_names[] = {"0", "1k", "10k", "100k"};
	char names[4][64];
	struct row rows[4] = {0};
	struct mapping m[4] = {0};
	unsigned groups = cfg.quick ? 20 : 100;

	for (unsigned k = 0; k < 4; k++) {
		snprintf(names[k], sizeof(names[k]), "%s behind %s, %s prefix",
			 length == PAGE ? "4 KiB" : "64 KiB", count_names[k],
			 holes ? "holey" : "dense");
		rows[k] = (struct row){names[k],
				       "the same behind 0",
				       k == 3 ? "<= 10x; 100 ns hot" : "100 ns hot",
				       10,
				       k == 3,
				       {0},
				       {0}};
		m[k].map = make_map();
		/* From the first page on; holes of a page, too short for 64 KiB. */
		fill(m[k].map, counts[k], PAGE, holes ? 2 * PAGE : PAGE);
		for (unsigned i = 0; i < GROUP; i++)
			m[k].area[i] = new_area(0, length);
	}
	for (unsigned i = 0; i < cfg.rounds; i++) {
		double sum[4] = {0};

		for (unsigned g = 0; g < groups; g++) {
			for (unsigned k = 0; k < 4; k++) {
				sum[k] += place_group(&m[k], length);
				remove_group(&m[k]);
			}
		}
		for (unsigned k = 0; k < 4; k++) {
			sample(&rows[k].subject, sum[k] / groups);
			sample(&rows[k].base, sum[0] / groups);
		}
	}
	for (unsigned k = 0; k < 4; k++) {
		finish(&rows[k]);
		for (unsigned i = 0; i < GROUP; i++)
			swi_free(m[k].area[i]);
		destroy_map(m[k].map);
	}
}

static void bench_place(void)
{
	print_heading("automatic IOVA: find+insert+publish");
	bench_place_behind(false, PAGE);
	bench_place_behind(false, 16 * PAGE);
	bench_place_behind(true, PAGE);
	bench_place_behind(true, 16 * PAGE);
}

/* ---- moving bytes ---------------------------------------------------------------------------- */

static bool rw(struct iova_reader *r, struct iova_map *map, iova_t iova, char *to, size_t length)
{
	while (length) {
		struct iova_area *area;
		size_t n = length;
		iova_t last;

		iova_read_begin(r);
		area = iova_translate_run(r, map, iova, &last);
		if (!area || !(area->prot & SWI_READ)) {
			iova_read_end(r);
			return false;
		}
		if (last - iova < n)
			n = last - iova + 1;
		memcpy(to,
		       (char *)atomic_load_explicit(&area->host, memory_order_relaxed) +
			       (iova - area->iova),
		       n);
		iova_read_end(r);
		length -= n;
		iova += n;
		to += n;
	}
	return true;
}

static void bench_rw_length(struct iova_reader *r, struct iova_map *map, char *from, char *to,
			    size_t length, struct row *row)
{
	unsigned n = (unsigned)((cfg.quick ? 16u << 20 : 64u << 20) / (length + 512)) + 8;

	for (unsigned i = 0; i < cfg.rounds; i++) {
		double start = now_ns();

		for (unsigned k = 0; k < n; k++) {
			if (!rw(r, map, 1ull << 32, to, opaque(length)))
				die("rw failed");
			consume(to);
		}
		sample(&row->subject, (now_ns() - start) / n);
		start = now_ns();
		for (unsigned k = 0; k < n; k++) {
			memcpy(to, opaque(from), opaque(length));
			consume(to);
		}
		sample(&row->base, (now_ns() - start) / n);
	}
	finish(row);
}

static void bench_rw(void)
{
	struct row small = {"rw 64 B", "memcpy 64 B", "<= 2x; 5 ns", 2, false, {0}, {0}};
	struct row page = {"rw 4 KiB", "memcpy 4 KiB", "<= 1.1x; 50 ns", 1.1, false, {0}, {0}};
	struct row big = {"rw 1 MiB", "memcpy 1 MiB", "<= 1.11x (0.9x speed); 25 us",
			  1 / 0.9,    true,	      {0},
			  {0}};
	char *from = must(aligned_alloc(PAGE, 1 << 20)), *to = must(aligned_alloc(PAGE, 1 << 20));
	struct iova_map *map = make_map();
	struct iova_reader *r = make_reader(map);
	struct iova_area *area = new_area(1ull << 32, 1 << 20);

	memset(from, 1, 1 << 20);
	memset(to, 2, 1 << 20);
	area->host = from;
	take(map, area);
	print_heading("begin+translate+copy+end, hot");
	bench_rw_length(r, map, from, to, 64, &small);
	bench_rw_length(r, map, from, to, 4096, &page);
	bench_rw_length(r, map, from, to, 1 << 20, &big);
	drop_reader(r, map);
	destroy_map(map);
	free(from);
	free(to);
}

/* ---- several threads ------------------------------------------------------------------------- */

enum { HOT_PAGES = 64 };

struct crew {
	struct iova_map *map;
	char *memory;
	pthread_barrier_t start;
	_Atomic(bool) stop;
	double seconds;
};

struct member {
	struct crew *crew;
	unsigned cpu;
	unsigned every_ns;   /* a mapper: time between two mappings, 0 = flat out */
	bool bare;	     /* a reader: copy without translating */
	uint64_t operations; /* out */
	double busy_ns;	     /* out: of a mapper time in its work, of a reader processor time */
};

/* Spread over the processors we may use; without the right to choose, as the system likes. */
static void pin_to(unsigned nth)
{
	cpu_set_t all, one;
	unsigned seen = 0;

	if (sched_getaffinity(0, sizeof(all), &all))
		return;
	nth %= (unsigned)CPU_COUNT(&all);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all) || seen++ != nth)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
		return;
	}
}

static double thread_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Copies 64 bytes from a random one of the hot pages, each in a section of its own. */
static void *reader_thread(void *arg)
{
	struct member *me = arg;
	struct crew *crew = me->crew;
	struct iova_reader *r = make_reader(crew->map);
	uint64_t seed = 99 + me->cpu, n = 0;
	char to[64];
	double start;

	pin_to(me->cpu);
	pthread_barrier_wait(&crew->start);
	start = thread_ns();
	while (!atomic_load_explicit(&crew->stop, memory_order_relaxed)) {
		for (unsigned i = 0; i < 64; i++) {
			uint64_t at = rng_next(&seed) % (HOT_PAGES * PAGE / 64) * 64;

			if (me->bare)
				memcpy(to, crew->memory + at, sizeof(to));
			else if (!rw(r, crew->map, (1ull << 32) + at, to, sizeof(to)))
				die("rw failed");
			consume(to);
		}
		n += 64;
	}
	me->busy_ns = thread_ns() - start;
	me->operations = n;
	drop_reader(r, crew->map);
	return NULL;
}

/* Maps and unmaps one page far from those that are read. */
static void *mapper_thread(void *arg)
{
	struct member *me = arg;
	struct crew *crew = me->crew;
	struct iova_area *area = new_area(1ull << 33, PAGE);
	double next;

	pin_to(me->cpu);
	pthread_barrier_wait(&crew->start);
	next = now_ns();
	while (!atomic_load_explicit(&crew->stop, memory_order_relaxed)) {
		double start = now_ns();

		if (me->every_ns && start < next)
			continue;
		next += me->every_ns;
		for (unsigned i = 0; i < (me->every_ns ? 1u : 64u); i++) {
			take(crew->map, area);
			give_back(crew->map, area);
			me->operations++;
		}
		me->busy_ns += now_ns() - start;
	}
	swi_free(area);
	return NULL;
}

/* Runs the members for a while on one map. */
static void run_crew(struct crew *crew, struct member *member, void *(*const *role)(void *),
		     unsigned n)
{
	struct timespec length = {0, cfg.quick ? 20000000 : 50000000};
	pthread_t thread[4];
	double start;

	atomic_store(&crew->stop, false);
	pthread_barrier_init(&crew->start, NULL, n + 1);
	for (unsigned i = 0; i < n; i++) {
		member[i].crew = crew;
		member[i].cpu = i;
		member[i].operations = 0;
		member[i].busy_ns = 0;
		if (pthread_create(&thread[i], NULL, role[i], &member[i]))
			die("cannot make a thread");
	}
	pthread_barrier_wait(&crew->start);
	start = now_ns();
	nanosleep(&length, NULL);
	atomic_store(&crew->stop, true);
	crew->seconds = (now_ns() - start) / 1e9;
	for (unsigned i = 0; i < n; i++)
		pthread_join(thread[i], NULL);
	pthread_barrier_destroy(&crew->start);
}

/* Operations a microsecond of the readers among two members, by the clock or by their processor
 * time. */
static double readers_rate(const struct crew *crew, const struct member *m, unsigned n, bool clock)
{
	double rate = 0;

	for (unsigned i = 0; i < n; i++)
		rate += (double)m[i].operations /
			(clock ? crew->seconds * 1e6 : m[i].busy_ns / 1e3);
	return rate;
}

static void two_readers(struct crew *crew, bool bare, struct row *row, struct row *by_clock)
{
	void *(*const role[])(void *) = {reader_thread, reader_thread};
	struct member m[2] = {{.bare = bare}, {.bare = bare}};

	run_crew(crew, m, role, 1);
	sample(&row->base, readers_rate(crew, m, 1, false));
	sample(&by_clock->base, readers_rate(crew, m, 1, true));
	run_crew(crew, m, role, 2);
	sample(&row->subject, readers_rate(crew, m, 2, false));
	sample(&by_clock->subject, readers_rate(crew, m, 2, true));
}

static void reader_and_mapper(struct crew *crew, unsigned every_ns, struct row *row,
			      struct row *mapper)
{
	void *(*const role[])(void *) = {reader_thread, mapper_thread};
	struct member m[2] = {0};

	run_crew(crew, m, role, 1);
	sample(&row->base, m[0].busy_ns / (double)m[0].operations);
	m[1].every_ns = every_ns;
	run_crew(crew, m, role, 2);
	sample(&row->subject, m[0].busy_ns / (double)m[0].operations);
	sample(&mapper->subject, m[1].busy_ns / (double)m[1].operations);
	run_crew(crew, m + 1, role + 1, 1);
	sample(&mapper->base, m[1].busy_ns / (double)m[1].operations);
}

/*
 * Readers are counted by their processor time, so that the load others put on the machine does not
 * look like contention; the plain clock is shown beside.
 */
static void bench_threads(void)
{
	struct row two = {"two readers, ops per CPU us",
			  "one reader",
			  ">= 1.8x (1.9x)",
			  -1.8,
			  true,
			  {0},
			  {0}};
	struct row two_clock = {"two readers, ops per us",
				"one reader",
				"(others' load counts)",
				0,
				false,
				{0},
				{0}};
	struct row bare = {"two bare memcpy, ops per CPU us",
			   "one",
			   "(what the machine gives)",
			   0,
			   false,
			   {0},
			   {0}};
	struct row bare_clock = {"two bare memcpy, ops per us",
				 "one",
				 "(what the machine gives)",
				 0,
				 false,
				 {0},
				 {0}};
	struct row slow = {
		"reader, mapper at 10k/s", "reader alone", "<= 1.05x", 1.05, false, {0}, {0}};
	struct row flat = {"reader, mapper flat out", "reader alone", "<= 3x", 3, false, {0}, {0}};
	struct row map_slow = {
		"map+unmap at 10k/s, reader busy", "map+unmap alone", "", 0, false, {0}, {0}};
	struct row map_flat = {
		"map+unmap flat out, reader busy", "map+unmap alone", "", 0, false, {0}, {0}};
	struct row *const rows[] = {&two,  &two_clock, &bare,	  &bare_clock,
				    &slow, &flat,      &map_slow, &map_flat};
	struct crew crew = {.map = make_map(),
			    .memory = must(aligned_alloc(PAGE, HOT_PAGES * PAGE))};

	memset(crew.memory, 1, HOT_PAGES * PAGE);
	for (unsigned i = 0; i < HOT_PAGES; i++) {
		struct iova_area *area = new_area((1ull << 32) + i * PAGE, PAGE);

		area->host = crew.memory + i * PAGE;
		take(crew.map, area);
	}
	for (unsigned i = 0; i < 2 * cfg.rounds; i++) {
		two_readers(&crew, false, &two, &two_clock);
		two_readers(&crew, true, &bare, &bare_clock);
		reader_and_mapper(&crew, 100000, &slow, &map_slow);
		reader_and_mapper(&crew, 0, &flat, &map_flat);
	}
	print_heading("threads: begin+translate+copy 64 B+end");
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		finish(rows[i]);
	destroy_map(crew.map);
	free(crew.memory);
}

/* ---- main ------------------------------------------------------------------------------------ */

static const struct bench_section sections[] = {
	{"hot", bench_translate_hot}, {"random", bench_random}, {"map", bench_map},
	{"place", bench_place},	      {"rw", bench_rw},		{"threads", bench_threads},
};

int main(int argc, char **argv)
{
	return bench_main(&cfg, sections, sizeof(sections) / sizeof(sections[0]), argc, argv);
}
