// SPDX-License-Identifier: MIT
/*
 * Random maps, unmaps, marks and dirty reads of every format against a flat model.
 *
 * The model is an array of units that says for each what maps it. A unit is one of the format's leaf
 * sizes, so that large leaves get their turn as well; smaller ones cannot occur then. Which leaves a
 * map makes, what is in their way and what an unmap takes with it follow the spec, worked out here
 * without tables. Only the tables themselves are unknown to the model: on ARM, where an empty one
 * at the place of a block can be unmapped, it takes what the table says.
 */
#include "support.h"

#define UNITS 1536u
#define OPERATIONS 2600u /* for each of the some 55 worlds */

struct unit {
	bool mapped;
	unsigned first, n; /* the leaf */
	phys_t pa;	   /* of the unit */
	unsigned prot;
	bool dirty;
};

struct world {
	const struct variant *v;
	struct pgtable *pt;
	uint64_t size;	/* of a unit */
	uint64_t sizes; /* of leaves, from a unit's on */
	iova_t base;
	uint64_t random;
	struct pgtable_gather gather;
	struct unit unit[UNITS];
	unsigned long operations;
};

static iova_t at(const struct world *w, unsigned i)
{
	return w->base + i * w->size;
}

/* ---- the model ------------------------------------------------------------------------------- */

static unsigned best_leaf(const struct world *w, iova_t iova, phys_t pa, unsigned left)
{
	uint64_t best = w->size;

	for (uint64_t size = w->size; size && size <= left * w->size; size <<= 1) {
		if (w->sizes & size && !((iova | pa) & (size - 1)))
			best = size;
	}
	return (unsigned)(best / w->size);
}

static void model_clear(struct world *w, unsigned first, unsigned n)
{
	memset(&w->unit[first], 0, n * sizeof(w->unit[0]));
}

/* Whether a leaf can be put there. On ARM smaller ones make way, unless they are level 0's size. */
static bool model_room(struct world *w, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++) {
		if (w->unit[i].mapped && (!w->v->arm || w->unit[i].n >= n))
			return false;
	}
	return true;
}

/* Puts down leaves as the table would; returns the units done, all of them or less. */
static unsigned model_map(struct world *w, unsigned first, unsigned n, phys_t pa, unsigned prot,
			  unsigned forced)
{
	unsigned done = 0;

	while (done < n) {
		unsigned i = first + done;
		phys_t here = pa + done * w->size;
		unsigned leaf = forced ? forced : best_leaf(w, at(w, i), here, n - done);

		if (!model_room(w, i, leaf))
			break;
		for (unsigned k = 0; k < leaf; k++) {
			w->unit[i + k] =
				(struct unit){true, i, leaf, here + k * w->size, prot, false};
			w->unit[i + k].dirty = w->v->fresh_is_dirty && prot & SWI_WRITE;
		}
		done += leaf;
	}
	return done;
}

/* ARM: the block that a step of the unmap at unit `i` is; 1 or less than a leaf: none. */
static unsigned arm_block(const struct world *w, unsigned i, unsigned left)
{
	return best_leaf(w, at(w, i), 0, left);
}

/* What an unmap does, whose result was `got` units. Returns what it should have been. */
static unsigned model_unmap(struct world *w, unsigned first, unsigned n, unsigned got)
{
	unsigned done = 0;

	while (done < n) {
		struct unit *u = &w->unit[first + done];
		unsigned i = first + done, block = w->v->arm ? arm_block(w, i, n - done) : 1;
		bool below = false; /* does the block have smaller leaves? */

		for (unsigned k = 0; k < block; k++)
			below |= w->unit[i + k].mapped && w->unit[i + k].n < block;
		if (block > 1 && (below || (!u->mapped && got > done))) {
			model_clear(w, i, block);
			done += block;
			continue;
		}
		if (!u->mapped || u->first != i || (w->v->arm && u->n > n - done))
			break;
		done += u->n;
		model_clear(w, i, u->n);
	}
	return done;
}

/*
 * A dirty leaf that [first, first + n) covers in part becomes two or more of the next smaller size, until no such one is
 * left. Nothing is clean yet.
 */
static void model_split(struct world *w, unsigned first, unsigned n)
{
	bool again = !w->v->arm;

	while (again) {
		again = false;
		for (unsigned i = first; i < first + n; i++) {
			struct unit leaf = w->unit[i];
			unsigned smaller = leaf.n / 2;

			if (!leaf.dirty ||
			    (leaf.first >= first && leaf.first + leaf.n <= first + n))
				continue;
			/* Two entries, and nothing of the size of one. */
			if (w->v->config.format == &pgtable_amdv1 && leaf.n * w->size == 1ull << 40)
				continue;
			while (!(w->sizes & smaller * w->size))
				smaller /= 2;
			for (unsigned k = leaf.first; k < leaf.first + leaf.n; k++) {
				w->unit[k].first = k - (k - leaf.first) % smaller;
				w->unit[k].n = smaller;
			}
			again = true;
		}
	}
}

/* ---- comparison ------------------------------------------------------------------------------ */

static void check_unit(struct world *w, unsigned i)
{
	const struct unit *u = &w->unit[i];
	uint64_t byte = random_below(&w->random, w->size);
	struct pgtable_leaf leaf;

	assert_int_equal(pgtable_lookup(w->pt, at(w, i) + byte, &leaf), u->mapped);
	assert_int_equal(pgtable_iova_to_phys(w->pt, at(w, i) + byte),
			 u->mapped ? u->pa + byte : 0);
	if (!u->mapped)
		return;
	assert_int_equal(leaf.iova, at(w, u->first));
	assert_int_equal(leaf.length, u->n * w->size);
	assert_int_equal(leaf.pa, u->pa - (i - u->first) * w->size);
	assert_int_equal(leaf.prot & SWI_WRITE, u->prot & SWI_WRITE);
	assert_int_equal(leaf.dirty, u->dirty);
}

static void check_some(struct world *w, unsigned first, unsigned n)
{
	unsigned from = first ? first - 1 : 0, to = SWI_MIN(first + n + 1, UNITS);

	check_unit(w, from);
	check_unit(w, to - 1);
	for (unsigned k = 0; k < 6; k++)
		check_unit(w, from + (unsigned)random_below(&w->random, to - from));
}

/* ---- operations ------------------------------------------------------------------------------ */

static struct pgtable_gather *some_gather(struct world *w)
{
	switch (random_below(&w->random, 4)) {
	case 0:
		return NULL;
	case 1:
		pgtable_gather_free(w->pt, &w->gather);
		return &w->gather;
	default:
		return &w->gather;
	}
}

static void some_range(struct world *w, unsigned *first, unsigned *n)
{
	unsigned wanted = 1u << random_below(&w->random, 12);

	*first = (unsigned)random_below(&w->random, UNITS);
	if (random_below(&w->random, 2)) /* where large leaves begin */
		*first &= -(512u >> random_below(&w->random, 10));
	if (random_below(&w->random, 2)) /* not as large as they are */
		wanted = 1 + (unsigned)random_below(&w->random, wanted);
	*n = SWI_MIN(wanted, UNITS - *first);
}

static phys_t some_pa(struct world *w, unsigned first, unsigned n)
{
	unsigned oa = w->v->config.oa_bits;
	uint64_t units = ((1ull << oa) / w->size), unit;

	unit = random_below(&w->random, units - n);
	/* In step with the IOVA, as memory in large pages is, or a little out of it. */
	if (random_below(&w->random, 4)) {
		unit &= ~4095ull;
		unit += at(w, first) / w->size % 4096;
		if (random_below(&w->random, 4) == 0)
			unit += 1ull << random_below(&w->random, 10);
		if (unit >= units - n)
			unit = at(w, first) / w->size % 4096 % (units - n);
	}
	return unit ? unit * w->size : w->size; /* 0 looks like nothing to iova_to_phys */
}

static void try_map(struct world *w)
{
	static const unsigned prots[] = {SWI_READ, RW, RW};
	unsigned first, n, done, forced = 0, prot = prots[random_below(&w->random, 3)];
	int busy = w->v->arm ? -EEXIST : -EADDRINUSE, rc;
	uint64_t mapped = 0;
	phys_t pa;

	some_range(w, &first, &n);
	pa = some_pa(w, first, n);
	if (random_below(&w->random, 3) == 0) { /* small ones by force */
		forced = 1;
		rc = pgtable_map_pages(w->pt, at(w, first), pa, w->size, n, prot, &mapped,
				       some_gather(w));
	} else {
		rc = pgtable_map(w->pt, at(w, first), pa, n * w->size, prot, some_gather(w));
	}
	done = model_map(w, first, n, pa, prot, forced);
	assert_int_equal(rc, done == n ? 0 : busy);
	if (forced)
		assert_int_equal(mapped, done * w->size);
	if (done < n && forced)
		assert_int_equal(
			pgtable_unmap_pages(w->pt, at(w, first), w->size, done, some_gather(w)),
			mapped);
	if (done < n)
		model_clear(w, first, done);
	check_some(w, first, n);
}

static void try_unmap(struct world *w)
{
	unsigned first, n, expected;
	uint64_t got;

	some_range(w, &first, &n);
	if (random_below(&w->random, 2) && w->unit[first].mapped) {
		first = w->unit[first].first;
		n = SWI_MIN(n, UNITS - first);
	}
	got = pgtable_unmap(w->pt, at(w, first), n * w->size, some_gather(w));
	assert_int_equal(got % w->size, 0);
	expected = model_unmap(w, first, n, (unsigned)(got / w->size));
	assert_int_equal(got, expected * w->size);
	check_some(w, first, SWI_MAX(n, expected));
}

static void try_mark(struct world *w)
{
	unsigned first, n;

	some_range(w, &first, &n);
	n = SWI_MIN(n, 20u);
	pgtable_mark_dirty(w->pt, at(w, first) + random_below(&w->random, w->size),
			   (n - 1) * w->size + 1);
	/* It may or may not have touched unit first + n: make it certain. */
	pgtable_mark_dirty(w->pt, at(w, first + n - 1), 1);
	if (first + n < UNITS)
		pgtable_mark_dirty(w->pt, at(w, first + n), 1);
	for (unsigned i = first; i <= first + n && i < UNITS; i++) {
		const struct unit *u = &w->unit[i];

		if (!u->mapped || !w->v->dirty || (w->v->arm && !(u->prot & SWI_WRITE)))
			continue;
		for (unsigned k = u->first; k < u->first + u->n; k++)
			w->unit[k].dirty = true;
	}
	check_some(w, first, n);
}

struct seen {
	struct world *w;
	bool dirty[UNITS];
	iova_t next; /* ranges are ascending, and apart from each other */
	bool any;
};

static void see(void *data, iova_t iova, uint64_t length)
{
	struct seen *seen = data;
	struct world *w = seen->w;

	assert_true(!seen->any || iova > seen->next);
	seen->any = true;
	seen->next = iova + length;
	assert_int_equal((iova | length) & (w->size - 1), 0);
	assert_true(iova >= w->base && iova + (length - 1) <= at(w, UNITS) - 1);
	for (uint64_t i = (iova - w->base) / w->size; length; length -= w->size)
		seen->dirty[i++] = true;
}

static void try_dirty(struct world *w)
{
	unsigned first, n, flags = random_below(&w->random, 3) ? 0 : PGTABLE_NO_CLEAR;
	struct seen *seen = calloc(1, sizeof(*seen));
	int rc;

	assert_non_null(seen);
	seen->w = w;
	some_range(w, &first, &n);
	rc = pgtable_read_dirty(w->pt, at(w, first), n * w->size, flags, see, seen, NULL);
	if (!w->v->dirty) {
		assert_int_equal(rc, w->v->arm ? -EINVAL : -EOPNOTSUPP);
		free(seen);
		return;
	}
	assert_int_equal(rc, 0);
	if (!flags)
		model_split(w, first, n);
	for (unsigned i = 0; i < UNITS; i++) {
		struct unit *u = &w->unit[i];
		bool inside = i >= first && i < first + n;

		assert_int_equal(seen->dirty[i], inside && u->dirty);
		if (inside && !flags && u->mapped && u->first >= first &&
		    u->first + u->n <= first + n)
			u->dirty = false;
	}
	free(seen);
	check_some(w, first, n);
}

/* ---- runs ------------------------------------------------------------------------------------ */

static void run_world(struct world *w)
{
	pgtable_gather_init(&w->gather);
	for (unsigned i = 0; i < OPERATIONS; i++, w->operations++) {
		switch (random_below(&w->random, 8)) {
		case 0 ... 2:
			try_map(w);
			break;
		case 3 ... 4:
			try_unmap(w);
			break;
		case 5:
			try_mark(w);
			break;
		case 6:
			try_dirty(w);
			break;
		default:
			check_unit(w, (unsigned)random_below(&w->random, UNITS));
			break;
		}
		if (i % 512 == 0)
			for (unsigned k = 0; k < UNITS; k++)
				check_unit(w, k);
	}
	/* Everything goes, and then so do all tables below what is covered. */
	for (unsigned i = 0; i < UNITS; i++) {
		if (w->unit[i].mapped) {
			uint64_t bytes = w->unit[i].n * w->size;

			assert_int_equal(pgtable_unmap(w->pt, at(w, i), bytes, &w->gather), bytes);
			i += w->unit[i].n - 1;
		}
	}
	pgtable_gather_free(w->pt, &w->gather);
	pgtable_destroy(w->pt);
}

/* Where the window lies: at the front, around a place where tables meet, at the very end. */
static iova_t window(const struct variant *v, uint64_t size, unsigned where, iova_t last)
{
	uint64_t window = UNITS * size, middle = (last >> 1) + 1;

	(void)v;
	switch (where) {
	case 0:
		return 0;
	case 1:
		return middle - UNITS / 2 * size;
	default:
		return last - window + 1;
	}
}

static void random_operations(void **state)
{
	uint64_t seed = random_seed("random operations");
	unsigned long operations = 0, worlds = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(variants); i++) {
		const struct variant *v = &variants[i];
		uint64_t unit = lowest_size(v->pgsizes);

		/* Twice or more: units of the smallest size, then of 64 times as much and so on. */
		for (unsigned round = 0; unit; round++) {
			struct world *w = calloc(1, sizeof(*w));
			struct pgtable_info info;
			uint64_t larger;

			assert_non_null(w);
			w->v = v;
			w->pt = table_make(v);
			info = info_of(w->pt);
			if (info.aperture_last / unit < 2 * UNITS ||
			    (1ull << v->config.oa_bits) / unit < 2 * UNITS) {
				pgtable_destroy(w->pt);
				free(w);
				break;
			}
			w->size = unit;
			w->sizes = v->pgsizes & -unit;
			w->base = window(v, unit, (unsigned)(seed + round) % 3, info.aperture_last);
			w->random = seed + i * 16 + round;
			run_world(w);
			operations += w->operations;
			worlds++;
			free(w);
			larger = v->pgsizes & ~((unit << 6) - 1);
			unit = larger & -larger;
		}
	}
	print_message("%lu operations in %lu worlds\n", operations, worlds);
	assert_true(operations >= 100000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(random_operations)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
