/* SPDX-License-Identifier: MIT */
#ifndef TESTS_RANDOM_H
#define TESTS_RANDOM_H

/* Pseudo-random numbers (splitmix64), which a printed seed repeats. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static inline uint64_t random_below(uint64_t *state, uint64_t n)
{
	return random_next(state) % n;
}

/* SWIOMMU_TEST_SEED repeats a run; it is printed either way. */
static inline uint64_t random_seed(const char *what)
{
	const char *env = getenv("SWIOMMU_TEST_SEED");
	uint64_t seed = env ? strtoull(env, NULL, 0) : (uint64_t)time(NULL) * 2654435761u;

	printf("# %s: SWIOMMU_TEST_SEED=%llu\n", what, (unsigned long long)seed);
	return seed;
}

#endif
