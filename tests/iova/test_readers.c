// SPDX-License-Identifier: MIT
/*
 * Readers against writers, on several threads: after sync nobody uses what was taken away, sync
 * waits for exactly those it has to, and readers come and go meanwhile. Meant to be run under
 * ThreadSanitizer and AddressSanitizer as well; memory that was unmapped is overwritten and freed
 * at once, so that a late use is seen without them too.
 */
#include "support.h"

#include <pthread.h>
#include <sched.h>

static void spawn(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	assert_int_equal(pthread_create(thread, NULL, fn, arg), 0);
}

/* Assertions of cmocka belong to the main thread; others count. */
static _Atomic(unsigned) failures;

static void expect(bool ok)
{
	if (!ok)
		atomic_fetch_add(&failures, 1);
}

static void wait_for(_Atomic(unsigned) *value, unsigned at_least)
{
	while (atomic_load(value) < at_least)
		sched_yield();
}

/* Concurrent work goes on for this long, however fast the machine, and for a few rounds at least.
 */
static bool enough(const struct timespec *start, unsigned rounds)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return rounds >= 50 &&
	       (now.tv_sec - start->tv_sec) * 1000 + (now.tv_nsec - start->tv_nsec) / 1000000 > 700;
}

/* ---- nothing is used after sync -------------------------------------------------------------- */

#define SLOTS 24
#define SLOT_BYTES 0x4000u
#define STAMP(iova) ((unsigned char)((iova)*131 >> 3 | 1))
#define POISON 0 /* never a stamp */

struct arena {
	struct iova_map *map;
	_Atomic(bool) stop;
	_Atomic(unsigned) hits;
	iova_t base[SLOTS];
};

/*
 * Places that make the table grow and shrink, neighbours in one page, neighbours in one slot of the
 * table of pages, the very end.
 */
static void place_slots(struct arena *a)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		switch (i % 4) {
		case 0:
			a->base[i] = 0x10000 + (iova_t)i * SLOT_BYTES / 4 + 0x7ff;
			break;
		case 1:
			a->base[i] = (1ull << 40) + (iova_t)i * (IOVA_TLB_ENTRIES << 12);
			break;
		case 2:
			a->base[i] = IOVA_MAX - 0x100000 + (iova_t)i * SLOT_BYTES;
			break;
		default: /* five bytes each, side by side */
			a->base[i] = 0x7000003 + i / 4 * 5;
			break;
		}
	}
}

static uint64_t slot_length(unsigned i)
{
	return i % 4 == 3 ? 5 : SLOT_BYTES - 1 - 0x20 * (i % 2);
}

static void read_one(struct arena *a, struct iova_reader *reader, uint64_t *seed)
{
	unsigned slot = (unsigned)random_below(seed, SLOTS);
	iova_t iova = a->base[slot] + random_below(seed, slot_length(slot)), last;
	struct iova_area *area = iova_translate_run(reader, a->map, iova, &last);
	unsigned char *host;

	if (!area)
		return;
	expect(area->iova <= iova && iova <= last);
	host = atomic_load_explicit(&area->host, memory_order_relaxed);
	expect(host[iova - area->iova] == STAMP(iova));
	expect(host[last - area->iova] == STAMP(last));
	atomic_fetch_add_explicit(&a->hits, 1, memory_order_relaxed);
}

static void *reading(void *arg)
{
	struct arena *a = arg;
	struct iova_reader *reader = reader_make();
	uint64_t seed = (uintptr_t)reader;

	expect(iova_reader_attach(reader, a->map) == 0);
	while (!atomic_load(&a->stop)) {
		unsigned n = 1 + (unsigned)random_below(&seed, 6);

		iova_read_begin(reader);
		while (n--)
			read_one(a, reader, &seed);
		iova_read_end(reader);
	}
	iova_reader_detach(reader, a->map);
	reader_free(reader);
	return NULL;
}

/* Like reading(), but a new reader every few sections. */
static void *coming_and_going(void *arg)
{
	struct arena *a = arg;
	uint64_t seed = 77;

	while (!atomic_load(&a->stop)) {
		struct iova_reader *reader = reader_make();

		expect(iova_reader_attach(reader, a->map) == 0);
		for (unsigned i = 0; i < 20; i++) {
			iova_read_begin(reader);
			read_one(a, reader, &seed);
			iova_read_end(reader);
		}
		iova_reader_detach(reader, a->map);
		memset(reader, 0xff, sizeof(*reader));
		free(reader);
	}
	return NULL;
}

/* An area, and the memory behind it; a cut off part shares the memory. */
struct mapped {
	struct iova_area area;
	struct memory {
		unsigned users;
		unsigned char bytes[SLOT_BYTES];
	} * memory;
};

static struct mapped *map_slot(struct arena *a, unsigned slot)
{
	struct mapped *m = calloc(1, sizeof(*m));
	uint64_t length = slot_length(slot);

	m->memory = calloc(1, sizeof(*m->memory));
	m->memory->users = 1;
	m->area.iova = a->base[slot];
	m->area.last = a->base[slot] + length - 1;
	m->area.host = m->memory->bytes;
	for (uint64_t i = 0; i < length; i++)
		m->memory->bytes[i] = STAMP(a->base[slot] + i);
	iova_map_lock(a->map);
	expect(iova_map_insert(a->map, &m->area) == 0);
	iova_map_publish(a->map, &m->area);
	iova_map_unlock(a->map);
	return m;
}

static void unmap_slot(struct arena *a, struct mapped *m)
{
	unsigned char *host = m->area.host;

	iova_map_lock(a->map);
	iova_map_retract(a->map, &m->area);
	iova_map_unlock(a->map);
	iova_map_sync(a->map);
	/* Only this area's bytes: the other half of a split may be in use. */
	memset(host, POISON, m->area.last - m->area.iova + 1);
	iova_map_lock(a->map);
	iova_map_remove(a->map, &m->area);
	iova_map_unlock(a->map);
	if (!--m->memory->users)
		free(m->memory);
	memset(m, 0xff, sizeof(*m));
	free(m);
}

static struct mapped *split_slot(struct arena *a, struct mapped *m, iova_t at)
{
	struct mapped *right = calloc(1, sizeof(*right));

	right->memory = m->memory;
	m->memory->users++;
	iova_map_lock(a->map);
	expect(iova_map_split(a->map, &m->area, at, &right->area) == 0);
	iova_map_unlock(a->map);
	return right;
}

struct worker {
	struct arena *arena;
	unsigned first, step;
};

/* Maps, splits and unmaps its own slots. */
static void *writing(void *arg)
{
	struct worker *w = arg;
	struct mapped *left[SLOTS] = {NULL}, *right[SLOTS] = {NULL};
	uint64_t seed = w->first + 1;
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (unsigned n = 0; !enough(&start, n); n++) {
		unsigned slot = w->first + w->step * (unsigned)random_below(&seed, SLOTS / w->step);
		struct mapped *m = left[slot];

		if (!m) {
			left[slot] = map_slot(w->arena, slot);
		} else if (!right[slot] && random_below(&seed, 3) == 0) {
			iova_t at = m->area.iova + random_below(&seed, m->area.last - m->area.iova);

			right[slot] = split_slot(w->arena, m, at);
		} else {
			/* In both orders. */
			if (right[slot] && random_below(&seed, 2)) {
				unmap_slot(w->arena, right[slot]);
				right[slot] = NULL;
			}
			unmap_slot(w->arena, m);
			left[slot] = NULL;
			if (right[slot])
				unmap_slot(w->arena, right[slot]);
			right[slot] = NULL;
		}
	}
	for (unsigned i = 0; i < SLOTS; i++) {
		if (left[i])
			unmap_slot(w->arena, left[i]);
		if (right[i])
			unmap_slot(w->arena, right[i]);
	}
	return NULL;
}

static void nothing_is_used_after_sync(void **state)
{
	struct arena a = {.stop = false};
	struct worker workers[2] = {{&a, 0, 2}, {&a, 1, 2}};
	pthread_t readers[3], writer;

	(void)state;
	atomic_store(&failures, 0);
	place_slots(&a);
	assert_int_equal(iova_map_create(&a.map), 0);
	spawn(&readers[0], reading, &a);
	spawn(&readers[1], reading, &a);
	spawn(&readers[2], coming_and_going, &a);
	spawn(&writer, writing, &workers[1]);
	writing(&workers[0]);
	pthread_join(writer, NULL);
	atomic_store(&a.stop, true);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(readers[i], NULL);
	assert_int_equal(failures, 0);
	assert_true(a.hits > 100);
	assert_int_equal(iova_map_count(a.map), 0);
	check_map(a.map);
	iova_map_destroy(a.map);
}

/* ---- splits leave no hole -------------------------------------------------------------------- */

struct split_arena {
	struct iova_map *map;
	_Atomic(uint64_t) version; /* odd: mapped throughout */
	_Atomic(bool) stop;
	_Atomic(unsigned) hits;
	iova_t base;
	uint64_t length;
	unsigned char *memory;
};

static void *reading_while_splitting(void *arg)
{
	struct split_arena *s = arg;
	struct iova_reader *reader = reader_make();
	uint64_t seed = 5;

	expect(iova_reader_attach(reader, s->map) == 0);
	while (!atomic_load(&s->stop)) {
		uint64_t before = atomic_load(&s->version);
		iova_t iova = s->base + random_below(&seed, s->length), last = 0;
		struct iova_area *area;

		iova_read_begin(reader);
		area = iova_translate_run(reader, s->map, iova, &last);
		if (area) {
			unsigned char *host = area->host;

			expect(last >= iova && last < s->base + s->length);
			expect(host[iova - area->iova] == STAMP(iova));
		} else if (before & 1) {
			expect(atomic_load(&s->version) != before);
		}
		iova_read_end(reader);
		if (area)
			atomic_fetch_add_explicit(&s->hits, 1, memory_order_relaxed);
	}
	iova_reader_detach(reader, s->map);
	reader_free(reader);
	return NULL;
}

static void readers_see_no_hole_while_areas_are_split(void **state)
{
	struct split_arena s = {.base = 0x1ff400, .length = 0x3a00};
	struct timespec start;
	uint64_t seed = 9;
	pthread_t reader;

	(void)state;
	atomic_store(&failures, 0);
	s.memory = malloc(s.length);
	for (uint64_t i = 0; i < s.length; i++)
		s.memory[i] = STAMP(s.base + i);
	assert_int_equal(iova_map_create(&s.map), 0);
	spawn(&reader, reading_while_splitting, &s);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (unsigned round = 0; !enough(&start, round); round++) {
		struct iova_area *area = area_make(s.base, s.base + s.length - 1);

		area->host = s.memory;
		iova_map_lock(s.map);
		assert_int_equal(iova_map_insert(s.map, area), 0);
		iova_map_publish(s.map, area);
		atomic_fetch_add(&s.version, 1);
		for (unsigned i = 0; i < 30; i++) {
			iova_t at = s.base + random_below(&seed, s.length - 1);

			if (i % 3 == 0)
				at |= 0xfff;
			area = iova_map_first(s.map, at);
			if (area && at < area->last)
				assert_int_equal(
					iova_map_split(s.map, area, at, calloc(1, sizeof(*area))),
					0);
			if (i % 8 == 0) {
				iova_map_unlock(s.map);
				sched_yield();
				iova_map_lock(s.map);
			}
		}
		if (round % 50 == 0)
			check_map(s.map);
		atomic_fetch_add(&s.version, 1);
		iova_map_unlock(s.map);
		unmap_all(s.map);
	}
	atomic_store(&s.stop, true);
	pthread_join(reader, NULL);
	assert_int_equal(failures, 0);
	assert_true(s.hits > 100);
	iova_map_destroy(s.map);
	free(s.memory);
}

/* ---- whom sync waits for --------------------------------------------------------------------- */

struct visit {
	struct iova_map *map;
	_Atomic(unsigned) inside, may_leave, leaving, synced;
};

static void *visiting(void *arg)
{
	struct visit *v = arg;
	struct iova_reader *reader = reader_make();

	expect(iova_reader_attach(reader, v->map) == 0);
	iova_read_begin(reader);
	atomic_fetch_add(&v->inside, 1);
	wait_for(&v->may_leave, 1);
	atomic_fetch_add(&v->leaving, 1);
	iova_read_end(reader);
	iova_reader_detach(reader, v->map);
	reader_free(reader);
	return NULL;
}

static void *syncing(void *arg)
{
	struct visit *v = arg;

	iova_map_sync(v->map);
	atomic_fetch_add(&v->synced, 1);
	return NULL;
}

/* Waits under way, as the readers' registrations count them. */
static unsigned count_watched(struct iova_map *map)
{
	struct list *pos;
	unsigned n = 0;

	pthread_mutex_lock(&map->readers_lock);
	list_for_each (pos, &map->readers)
		n += list_entry(pos, struct registration, node)->watched;
	pthread_mutex_unlock(&map->readers_lock);
	return n;
}

static void sync_waits_for_every_reader_inside(void **state)
{
	/* More than one wait can note at a time; the last to come is the last to go. */
	enum { N = 100, SYNCS = 3 };
	struct visit early = {0}, late = {0};
	pthread_t visitors[N], sync[SYNCS];

	(void)state;
	atomic_store(&failures, 0);
	assert_int_equal(iova_map_create(&early.map), 0);
	late.map = early.map;
	for (unsigned i = 0; i < N - 1; i++)
		spawn(&visitors[i], visiting, &early);
	wait_for(&early.inside, N - 1);
	spawn(&visitors[N - 1], visiting, &late);
	wait_for(&late.inside, 1);
	for (unsigned i = 0; i < SYNCS; i++)
		spawn(&sync[i], syncing, &early);
	while (count_watched(early.map) < SYNCS)
		sched_yield();
	assert_int_equal(early.synced, 0);
	atomic_store(&early.may_leave, 1);
	for (unsigned i = 0; i < N - 1; i++)
		pthread_join(visitors[i], NULL);
	/* Only the last one is registered now: each sync must come to watch it. */
	while (count_watched(early.map) < SYNCS && !early.synced)
		sched_yield();
	assert_int_equal(early.synced, 0);
	atomic_store(&late.may_leave, 1);
	for (unsigned i = 0; i < SYNCS; i++)
		pthread_join(sync[i], NULL);
	pthread_join(visitors[N - 1], NULL);
	assert_int_equal(failures, 0);
	assert_int_equal(early.map->nreaders, 0);
	iova_map_destroy(early.map);
}

static void sync_does_not_wait_for_later_sections(void **state)
{
	struct visit v = {0};
	struct iova_reader *late = reader_make();
	pthread_t visitor, sync;

	(void)state;
	atomic_store(&failures, 0);
	assert_int_equal(iova_map_create(&v.map), 0);
	spawn(&visitor, visiting, &v);
	wait_for(&v.inside, 1);
	assert_int_equal(iova_reader_attach(late, v.map), 0);
	spawn(&sync, syncing, &v);
	while (!count_watched(v.map))
		sched_yield();
	iova_read_begin(late);
	atomic_store(&v.may_leave, 1);
	pthread_join(sync, NULL); /* would hang if it waited for the late one */
	pthread_join(visitor, NULL);
	iova_read_end(late);
	iova_reader_detach(late, v.map);
	reader_free(late);
	assert_int_equal(failures, 0);
	iova_map_destroy(v.map);
}

static void *never_resting(void *arg)
{
	struct visit *v = arg;
	struct iova_reader *reader = reader_make();

	expect(iova_reader_attach(reader, v->map) == 0);
	atomic_fetch_add(&v->inside, 1);
	do { /* inside nearly all the time */
		iova_read_begin(reader);
		for (volatile unsigned i = 0; i < 200; i++)
			;
		iova_read_end(reader);
	} while (!atomic_load(&v->may_leave));
	iova_reader_detach(reader, v->map);
	reader_free(reader);
	return NULL;
}

static void busy_readers_do_not_starve_a_writer(void **state)
{
	struct visit v = {0};
	pthread_t visitors[3];

	(void)state;
	atomic_store(&failures, 0);
	assert_int_equal(iova_map_create(&v.map), 0);
	for (unsigned i = 0; i < 3; i++)
		spawn(&visitors[i], never_resting, &v);
	wait_for(&v.inside, 3);
	for (unsigned i = 0; i < 100; i++)
		iova_map_sync(v.map);
	atomic_store(&v.may_leave, 1);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(visitors[i], NULL);
	assert_int_equal(failures, 0);
	iova_map_destroy(v.map);
}

struct detaching {
	struct visit v;
	struct iova_reader *reader;
	_Atomic(unsigned) detached;
};

static void *detaching(void *arg)
{
	struct detaching *d = arg;

	atomic_fetch_add(&d->v.inside, 1);
	iova_reader_detach(d->reader, d->v.map);
	expect(atomic_load(&d->v.leaving) == 1);
	atomic_fetch_add(&d->detached, 1);
	return NULL;
}

static void detach_by_another_thread_waits_for_the_open_section(void **state)
{
	struct detaching d = {.reader = reader_make()};
	struct iova_area *area;
	pthread_t thread, sync;

	(void)state;
	atomic_store(&failures, 0);
	assert_int_equal(iova_map_create(&d.v.map), 0);
	assert_int_equal(iova_reader_attach(d.reader, d.v.map), 0);
	area = map_area(d.v.map, 0x1000, 0x1fff);
	iova_read_begin(d.reader);
	assert_ptr_equal(iova_translate(d.reader, d.v.map, 0x1000), area);
	spawn(&thread, detaching, &d);
	wait_for(&d.v.inside, 1);
	/* Writers still have to wait for the section while detach does. */
	iova_map_retract(d.v.map, area);
	spawn(&sync, syncing, &d.v);
	while (!count_watched(d.v.map))
		sched_yield();
	assert_int_equal(d.v.synced, 0);
	assert_int_equal(d.detached, 0);
	assert_int_equal(area->iova, 0x1000);
	atomic_store(&d.v.leaving, 1);
	iova_read_end(d.reader);
	pthread_join(thread, NULL);
	pthread_join(sync, NULL);
	assert_int_equal(d.v.map->nreaders, 0);
	reader_free(d.reader);
	iova_map_remove(d.v.map, area);
	free(area);
	assert_int_equal(failures, 0);
	iova_map_destroy(d.v.map);
}

static void tables_are_reused_only_when_nobody_can_be_in_them(void **state)
{
	struct iova_reader *reader = reader_make();
	struct iova_area *area = area_make(1ull << 40, (1ull << 40) + 0xfff);
	struct iova_map *map;

	(void)state;
	assert_int_equal(iova_map_create(&map), 0);
	assert_int_equal(iova_reader_attach(reader, map), 0);
	iova_read_begin(reader);
	assert_int_equal(iova_map_insert(map, area), 0);
	iova_map_remove(map, area);
	assert_int_equal(map->pool.nretired, 4);
	/* The reader is inside, and might be in each of them. */
	assert_int_equal(iova_map_insert(map, area), 0);
	assert_int_equal(map->pool.nretired, 4);
	iova_map_publish(map, area);
	iova_map_retract(map, area);
	iova_read_end(reader);
	/* Not inside, but nobody has made sure. */
	iova_map_remove(map, area);
	assert_int_equal(map->pool.nretired, 8);
	iova_map_sync(map);
	/* The first four were unlinked before the generation that this sync has seen. */
	assert_int_equal(iova_map_insert(map, area), 0);
	assert_int_equal(map->pool.nretired, 4);
	/* In use again they must be as good as new. */
	iova_map_publish(map, area);
	check_map(map);
	unmap_all(map);
	iova_reader_detach(reader, map);
	reader_free(reader);
	iova_map_destroy(map);
}

static void retired_tables_are_bounded_under_a_reader_that_stays(void **state)
{
	struct iova_reader *reader = reader_make();
	struct iova_map *map;
	int err = 0;

	(void)state;
	assert_int_equal(iova_map_create(&map), 0);
	assert_int_equal(iova_reader_attach(reader, map), 0);
	iova_read_begin(reader);
	for (unsigned i = 0; i < 3000 && !err; i++) {
		struct iova_area *area = area_make(1ull << 40, (1ull << 40) + 0xfff);

		err = iova_map_insert(map, area);
		if (!err)
			iova_map_remove(map, area);
		free(area);
	}
	assert_int_equal(err, -ENOMEM);
	iova_read_end(reader);
	assert_int_equal(try_map(map, 1ull << 40, (1ull << 40) + 0xfff), 0);
	assert_true(map->pool.nretired < 64);
	unmap_all(map);
	iova_reader_detach(reader, map);
	reader_free(reader);
	iova_map_destroy(map);
}

static void sync_gives_back_what_piled_up(void **state)
{
	struct iova_reader *reader = reader_make();
	struct iova_area *area[100];
	struct iova_map *map;

	(void)state;
	assert_int_equal(iova_map_create(&map), 0);
	assert_int_equal(iova_reader_attach(reader, map), 0);
	for (unsigned i = 0; i < 100; i++)
		area[i] = map_area(map, (iova_t)i << 30, ((iova_t)i << 30) + 5);
	iova_read_begin(reader);
	for (unsigned i = 0; i < 99; i++) { /* (looked at by nobody, hence without a sync) */
		iova_map_retract(map, area[i]);
		iova_map_remove(map, area[i]);
		free(area[i]);
	}
	assert_true(map->pool.nretired > 99);
	iova_read_end(reader);
	iova_map_retract(map, area[99]);
	iova_map_sync(map);
	assert_int_equal(map->pool.nretired, 0);
	iova_map_remove(map, area[99]);
	free(area[99]);
	iova_reader_detach(reader, map);
	reader_free(reader);
	iova_map_destroy(map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_used_after_sync),
		cmocka_unit_test(readers_see_no_hole_while_areas_are_split),
		cmocka_unit_test(sync_waits_for_every_reader_inside),
		cmocka_unit_test(sync_does_not_wait_for_later_sections),
		cmocka_unit_test(busy_readers_do_not_starve_a_writer),
		cmocka_unit_test(detach_by_another_thread_waits_for_the_open_section),
		cmocka_unit_test(tables_are_reused_only_when_nobody_can_be_in_them),
		cmocka_unit_test(retired_tables_are_bounded_under_a_reader_that_stays),
		cmocka_unit_test(sync_gives_back_what_piled_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
