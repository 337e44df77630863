// SPDX-License-Identifier: MIT
/*
 * Lookups, marks and dirty reads beside changes, on several threads. Meant for ThreadSanitizer and
 * AddressSanitizer as well.
 *
 * Three regions share tables. In the stable one nothing changes: every lookup must find it, and every
 * mark must be reported by a read that begins after it. In the two others a mapper each maps and
 * unmaps, waits for the readers, and frees; what a lookup finds there is right or not there, and a
 * leaf is clean when it is mapped, however late the last mark came.
 */
#include "support.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define SPOTS 96u   /* for leaves of each mapper */
#define STABLE 600u /* pages */
#define READERS 2u
#define MAPPERS 2u

struct arena {
	const struct variant *v;
	struct pgtable *pt;
	uint64_t page, large;
	iova_t spot[MAPPERS][SPOTS];
	iova_t stable;
	/* Odd: this reader is inside. */
	_Alignas(64) _Atomic(unsigned) inside[READERS];
	_Atomic(unsigned) begun[STABLE], ended[STABLE]; /* marks of each stable page */
	_Atomic(bool) open[MAPPERS][SPOTS];		/* may be marked */
	_Atomic(bool) stop;
	_Atomic(unsigned) failures, line; /* how many, and where the first one was */
	_Atomic(unsigned) lookups, changes;
};

struct member {
	struct arena *a;
	unsigned number;
	uint64_t random;
};

/* Assertions of cmocka belong to the main thread; others count. */
#define expect(a, ok) expect_at(a, ok, __LINE__)
static void expect_at(struct arena *a, bool ok, unsigned line)
{
	unsigned none = 0;

	if (ok)
		return;
	atomic_fetch_add(&a->failures, 1);
	atomic_compare_exchange_strong(&a->line, &none, line);
}

static phys_t pa_of(const struct arena *a, iova_t iova)
{
	return iova & ((1ull << (a->v->config.oa_bits - 1)) - 1);
}

/* ---- readers --------------------------------------------------------------------------------- */

static void look(struct arena *a, struct member *m)
{
	unsigned owner = random_next(&m->random) % MAPPERS, i = random_next(&m->random) % SPOTS;
	iova_t iova = a->spot[owner][i] + random_next(&m->random) % a->page;
	struct pgtable_leaf leaf;

	if (!pgtable_lookup(a->pt, iova, &leaf))
		return;
	expect(a, leaf.pa + (iova - leaf.iova) == pa_of(a, iova));
	expect(a, leaf.length == a->page || leaf.length == a->large);
	if (atomic_load(&a->open[owner][i])) {
		if (random_next(&m->random) % 16 == 0)
			sched_yield();
		pgtable_mark_dirty(a->pt, iova, 1);
	}
}

static void *reader_thread(void *arg)
{
	struct member *m = arg;
	struct arena *a = m->a;

	while (!atomic_load(&a->stop)) {
		unsigned i = random_next(&m->random) % STABLE;
		iova_t iova = a->stable + i * a->page;

		atomic_fetch_add(&a->inside[m->number], 1);
		expect(a, pgtable_iova_to_phys(a->pt, iova + 3) == pa_of(a, iova) + 3);
		if (i % READERS == m->number) {
			atomic_fetch_add(&a->begun[i], 1);
			pgtable_mark_dirty(a->pt, iova, 1);
			atomic_fetch_add(&a->ended[i], 1);
		}
		look(a, m);
		atomic_fetch_add(&a->inside[m->number], 1);
		atomic_fetch_add_explicit(&a->lookups, 2, memory_order_relaxed);
	}
	return NULL;
}

static void wait_for_readers(struct arena *a)
{
	for (unsigned r = 0; r < READERS; r++) {
		unsigned seen = atomic_load(&a->inside[r]);

		while (seen % 2 && atomic_load(&a->inside[r]) == seen)
			sched_yield();
	}
}

/* ---- mappers --------------------------------------------------------------------------------- */

static void nothing_there(void *data, iova_t iova, uint64_t length)
{
	(void)iova;
	(void)length;
	expect((struct arena *)data, false);
}

static void *mapper_thread(void *arg)
{
	struct member *m = arg;
	struct arena *a = m->a;

	while (!atomic_load(&a->stop)) {
		unsigned i = random_next(&m->random) % SPOTS;
		bool whole = random_next(&m->random) % 2, pages = random_next(&m->random) % 2;
		iova_t iova = a->spot[m->number][i];
		uint64_t size = whole ? a->large : a->page, done;
		struct pgtable_gather gather;
		struct pgtable_leaf leaf;
		int rc;

		pgtable_gather_init(&gather);
		rc = pgtable_map_pages(a->pt, iova, pa_of(a, iova), pages ? a->page : size,
				       pages ? size / a->page : 1, RW, &done, &gather);
		expect(a, !rc && done == size);
		expect(a, pgtable_lookup(a->pt, iova, &leaf));
		/* Nobody may mark yet; who was late is gone. */
		expect(a, leaf.dirty == a->v->fresh_is_dirty);
		atomic_store(&a->open[m->number][i], true);
		if (random_next(&m->random) % 4 == 0)
			sched_yield();
		atomic_store(&a->open[m->number][i], false);
		expect(a, pgtable_unmap(a->pt, iova, size, &gather) == size);
		expect(a, !pgtable_lookup(a->pt, iova, &leaf));
		wait_for_readers(a);
		/* Late marks have left no trace. */
		if (a->v->dirty)
			pgtable_read_dirty(a->pt, iova, a->large, PGTABLE_NO_CLEAR, nothing_there,
					   a, NULL);
		pgtable_gather_free(a->pt, &gather);
		atomic_fetch_add_explicit(&a->changes, 2, memory_order_relaxed);
	}
	return NULL;
}

/* ---- the dirty reader ------------------------------------------------------------------------ */

struct report {
	struct arena *a;
	bool dirty[STABLE];
};

static void note(void *data, iova_t iova, uint64_t length)
{
	struct report *r = data;
	uint64_t page = r->a->page;

	expect(r->a, iova >= r->a->stable && length % page == 0 &&
			     iova + length <= r->a->stable + STABLE * page);
	for (uint64_t i = (iova - r->a->stable) / page; length; length -= page)
		r->dirty[i++] = true;
}

/*
 * The marks of a page are one thread's, one after the other. If more have ended than had begun when
 * the counters were last looked at, one of them was made in between, and one of the two reads that
 * began after that look reports it.
 */
static void *dirty_thread(void *arg)
{
	struct member *m = arg;
	struct arena *a = m->a;
	struct report last = {.a = a}, now;
	unsigned begun[STABLE] = {0};

	while (!atomic_load(&a->stop)) {
		unsigned ended[STABLE], next[STABLE];

		for (unsigned i = 0; i < STABLE; i++) {
			ended[i] = atomic_load(&a->ended[i]);
			next[i] = atomic_load(&a->begun[i]);
		}
		memset(&now, 0, sizeof(now));
		now.a = a;
		expect(a, !pgtable_read_dirty(a->pt, a->stable, STABLE * a->page, 0, note, &now,
					      NULL));
		for (unsigned i = 0; i < STABLE; i++)
			expect(a, ended[i] <= begun[i] || now.dirty[i] || last.dirty[i]);
		memcpy(begun, next, sizeof(begun));
		last = now;
	}
	return NULL;
}

/* ---- runs ------------------------------------------------------------------------------------ */

static void place(struct arena *a)
{
	struct pgtable_info info;
	iova_t top;
	uint64_t done;

	pgtable_get_info(a->pt, &info);
	/* The mappers' spots take turns, so that they need the same tables. */
	for (unsigned i = 0; i < SPOTS; i++) {
		for (unsigned m = 0; m < MAPPERS; m++)
			a->spot[m][i] = (2 + i * MAPPERS + m) * a->large;
	}
	/* The last ones far away: there the root of AMDv1 has to grow, for both at a time. */
	top = (info.aperture_last >> 1) + 1;
	for (unsigned m = 0; m < MAPPERS; m++)
		a->spot[m][SPOTS - 1] = top + m * a->large;
	/* Beginning in the middle of a table. */
	a->stable = (2 + SPOTS * MAPPERS) * a->large + 100 * a->page;
	assert_int_equal(pgtable_map_pages(a->pt, a->stable, pa_of(a, a->stable), a->page, STABLE,
					   RW, &done, NULL),
			 0);
	if (a->v->dirty)
		pgtable_read_dirty(a->pt, 0, UINT64_MAX, 0, NULL, NULL, NULL);
}

/* A leaf size that fits the window and is natural at level 1, where its format has one. */
static uint64_t second_size(uint64_t sizes, uint64_t page)
{
	uint64_t larger = sizes & ~(page * 256 - 1);

	return larger & -larger;
}

static void run(const struct variant *v, unsigned round, unsigned *lookups, unsigned *changes)
{
	struct timespec length = {0, 40000000};
	struct arena *a = aligned_alloc(64, sizeof(*a));
	pthread_t thread[READERS + MAPPERS + 1];
	struct member member[READERS + MAPPERS + 1];
	unsigned n = READERS + MAPPERS + (v->dirty ? 1 : 0);

	assert_non_null(a);
	memset((void *)a, 0, sizeof(*a));
	a->v = v;
	a->page = lowest_size(v->pgsizes);
	a->large = second_size(v->pgsizes, a->page);
	a->pt = table_make(v);
	place(a);
	for (unsigned i = 0; i < n; i++) {
		bool reader = i < READERS, mapper = !reader && i < READERS + MAPPERS;

		member[i] = (struct member){a, reader ? i : i - READERS, 1 + i + round * 16};
		assert_int_equal(pthread_create(&thread[i], NULL,
						reader	 ? reader_thread
						: mapper ? mapper_thread
							 : dirty_thread,
						&member[i]),
				 0);
	}
	do
		nanosleep(&length, NULL);
	while (atomic_load(&a->changes) < 100);
	atomic_store(&a->stop, true);
	for (unsigned i = 0; i < n; i++)
		pthread_join(thread[i], NULL);
	if (atomic_load(&a->failures))
		print_error("%s: %u failures, first in line %u\n", v->name,
			    atomic_load(&a->failures), atomic_load(&a->line));
	assert_int_equal(atomic_load(&a->failures), 0);
	*lookups += atomic_load(&a->lookups);
	*changes += atomic_load(&a->changes);
	pgtable_destroy(a->pt);
	free(a);
}

static void readers_beside_mappers(void **state)
{
	unsigned lookups = 0, changes = 0;

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(variants); i++)
			run(&variants[i], round, &lookups, &changes);
	}
	print_message("%u lookups, %u changes\n", lookups, changes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(readers_beside_mappers)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
