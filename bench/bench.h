/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_BENCH_H
#define SWIOMMU_BENCH_H

/*
 * Helpers of the benchmarks: time, medians, and rows of a table.
 *
 * A number alone says little on a shared machine. Every row has a baseline measured in the same
 * process, in turns with the subject round by round; what counts is the median of the rounds'
 * ratios.
 */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* The compiler must have computed `v`, and knows nothing about memory any more. */
#define consume(v) __asm__ volatile("" : : "r"(v) : "memory")
/* The same value, of which the compiler knows nothing any more. */
#define opaque(v)                                     \
	({                                            \
		__typeof__((v) + 0) opaque_ = (v);    \
		__asm__ volatile("" : "+r"(opaque_)); \
		opaque_;                              \
	})

static inline uint64_t rng_next(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

/* A baseline: ns of a malloc and a free of an object's size. */
static inline double malloc_pair(unsigned n)
{
	double start = now_ns();

	for (unsigned i = 0; i < n; i++) {
		void *p = malloc(192);

		consume(p);
		free(p);
	}
	return (now_ns() - start) / n;
}

#define ROUNDS_MAX 64

struct samples {
	unsigned n;
	double v[ROUNDS_MAX];
};

static inline void sample(struct samples *s, double v)
{
	if (s->n < ROUNDS_MAX)
		s->v[s->n++] = v;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static inline double median(const struct samples *s)
{
	struct samples sorted = *s;

	if (!s->n)
		return 0;
	qsort(sorted.v, sorted.n, sizeof(double), compare_doubles);
	return sorted.n % 2 ? sorted.v[sorted.n / 2]
			    : (sorted.v[sorted.n / 2 - 1] + sorted.v[sorted.n / 2]) / 2;
}

/* One line of the result: a subject and its baseline, in ns per operation, sampled in turns. */
struct row {
	const char *name;
	const char *baseline;
	const char *target; /* free text, shown beside the result */
	double limit;	    /* of the ratio; 0 = none. Negative: at least that */
	bool hard;	    /* the limit is a requirement, not a goal */
	struct samples subject, base;
};

static inline double row_ratio(const struct row *row)
{
	struct samples ratio = {0};

	for (unsigned i = 0; i < row->subject.n && i < row->base.n; i++)
		sample(&ratio, row->subject.v[i] / row->base.v[i]);
	return median(&ratio);
}

static inline void print_heading(const char *title)
{
	printf("\n%-44s %10s  %-24s %10s %8s  %s\n", title, "ns", "baseline", "ns", "ratio",
	       "target");
}

/* Prints the row; false when it misses a hard limit. */
static inline bool print_row(const struct row *row)
{
	double ratio = row_ratio(row);
	bool ok = !row->limit || (row->limit > 0 ? ratio <= row->limit : ratio >= -row->limit);

	printf("%-44s %10.2f  %-24s %10.2f %8.2f  %s%s\n", row->name, median(&row->subject),
	       row->baseline, median(&row->base), ratio, row->target,
	       !row->limit ? ""
	       : ok	   ? (row->hard ? "  [met]" : "  [ok]")
			   : (row->hard ? "  [MISSED]" : "  [short]"));
	fflush(stdout);
	return ok || !row->hard;
}

/* How a bench program has been asked to run, and whether a hard limit was missed. */
struct bench_config {
	bool quick;
	unsigned rounds;
	bool missed;
};

struct bench_section {
	const char *name;
	void (*run)(void);
};

/* [--quick] [--check] [SECTION]: runs all sections or the named one; the exit status. */
static inline int bench_main(struct bench_config *cfg, const struct bench_section *sections,
			     unsigned n, int argc, char **argv)
{
	const char *only = NULL;
	bool check = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--quick")) {
			cfg->quick = true;
			cfg->rounds = 5;
		} else if (!strcmp(argv[i], "--check")) {
			check = true;
		} else if (argv[i][0] != '-') {
			only = argv[i];
		} else {
			fprintf(stderr, "usage: %s [--quick] [--check] [SECTION]\n", argv[0]);
			return 2;
		}
	}
	for (unsigned i = 0; i < n; i++)
		if (!only || !strcmp(only, sections[i].name))
			sections[i].run();
	return check && cfg->missed ? 1 : 0;
}

#endif
