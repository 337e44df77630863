// SPDX-License-Identifier: MIT
/*
 * Accesses against each other, unmapping, moving and destroying (spec core.md 8.2, rows 12 to 19). The first half
 * holds one side still in the middle of what it does; the second half runs everything at once and checks what is
 * left. Meant for ThreadSanitizer and AddressSanitizer as well.
 */
#include "access_rig.h"

#include <semaphore.h>
#include <sched.h>
#include <time.h>

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig_open(rig);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	rig_close(*state);
	free(*state);
	return 0;
}

static void pause_ms(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

/* ---- memory that keeps its users waiting ----------------------------------------------------- */

/* This process' memory; looking it up or reading it stops until it is told to go on. */
struct slow_memory {
	struct mem_owner base;
	struct mem_owner *inner;
	sem_t inside, go_on;
	int pin_error;
	struct swiommu_caller_ops ops;
};

static struct slow_memory *slow_of(struct mem_owner *o)
{
	return container_of(o, struct slow_memory, base);
}

static void stop(struct slow_memory *s)
{
	sem_post(&s->inside);
	while (sem_wait(&s->go_on))
		;
}

static int slow_read(struct mem_owner *o, uint64_t addr, void *buf, size_t len)
{
	stop(slow_of(o));
	return slow_of(o)->inner->ops->read(slow_of(o)->inner, addr, buf, len);
}

static int slow_write(struct mem_owner *o, uint64_t addr, const void *buf, size_t len)
{
	stop(slow_of(o));
	return slow_of(o)->inner->ops->write(slow_of(o)->inner, addr, buf, len);
}

static int slow_window(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot,
		       struct mem_window *win, struct swi_reason *why)
{
	struct slow_memory *s = slow_of(o);

	stop(s);
	if (s->pin_error)
		return swi_fail(why, s->pin_error, "as told");
	return s->inner->ops->open_window(s->inner, addr, len, prot, win, why);
}

static int slow_key(struct mem_owner *o, uint64_t addr, struct page_key *key)
{
	return slow_of(o)->inner->ops->page_key(slow_of(o)->inner, addr, key);
}

static void slow_space(struct mem_owner *o, uint64_t id[2])
{
	slow_of(o)->inner->ops->space(slow_of(o)->inner, id);
}

static void slow_destroy(struct mem_owner *o)
{
	mem_owner_put(slow_of(o)->inner);
}

static const struct mem_owner_ops slow_ops = {
	.kind = "slow",
	.read = slow_read,
	.write = slow_write,
	.open_window = slow_window,
	.read_pinned = slow_read,
	.write_pinned = slow_write,
	.page_key = slow_key,
	.space = slow_space,
	.destroy = slow_destroy,
};

static struct slow_memory *mapping_slow;

static int slow_memory(struct swiommu_caller *c, struct mem_owner **out)
{
	(void)c;
	*out = mem_owner_get(&mapping_slow->base);
	return 0;
}

/* Maps a page of it at 0x10000 of the IOAS. */
static void slow_map(struct rig *rig, struct slow_memory *s, uint32_t ioas)
{
	const struct swiommu_caller_ops *before = rig->caller.ops;

	memset(s, 0, sizeof(*s));
	s->base.ops = &slow_ops;
	s->base.refs = 1;
	sem_init(&s->inside, 0, 0);
	sem_init(&s->go_on, 0, 0);
	assert_int_equal(mem_owner_local(&s->inner), 0);
	mapping_slow = s;
	s->ops = *before;
	s->ops.get_memory = slow_memory;
	rig->caller.ops = &s->ops;
	assert_int_equal(map_at(rig, ioas, 0x10000, rig->mem, PAGE, R | W), 0);
	rig->caller.ops = before;
	mem_owner_put(&s->base); /* the mapping has its own */
}

static void wait_inside(struct slow_memory *s)
{
	while (sem_wait(&s->inside))
		;
}

/* A call in a thread of its own. */
struct task {
	pthread_t thread;
	struct rig *rig;
	struct drv *drv;
	uint32_t id;
	unsigned long iova;
	_Atomic bool done;
	int rc;
};

static void task_start(struct task *t, void *(*fn)(void *arg))
{
	assert_int_equal(pthread_create(&t->thread, NULL, fn, t), 0);
}

static int task_end(struct task *t)
{
	pthread_join(t->thread, NULL);
	return t->rc;
}

static void *do_pin(void *arg)
{
	struct task *t = arg;

	t->rc = drv_pin(t->drv, t->iova, PAGE, 0);
	t->done = true;
	return NULL;
}

/* A pin that is written down without a lock, and rightly so: nothing is forbidden about it. */
static void *do_pin_alone(void *arg)
{
	struct task *t = arg;

	t->rc = iommufd_access_pin_pages(t->drv->access, t->iova, PAGE, NULL, 0);
	t->done = true;
	return NULL;
}

static void *do_read(void *arg)
{
	struct task *t = arg;
	char buf[8];

	t->rc = iommufd_access_rw(t->drv->access, t->iova, buf, sizeof(buf), 0);
	t->done = true;
	return NULL;
}

static void *do_unmap(void *arg)
{
	struct swiommu_caller caller;
	struct task *t = arg;
	struct iommu_ioas_unmap cmd = {.size = sizeof(cmd), .ioas_id = t->id, .length = UINT64_MAX};

	swiommu_caller_local(&caller);
	t->rc = swiommu_ioctl(t->rig->ctx, &caller, IOMMU_IOAS_UNMAP, (uintptr_t)&cmd);
	t->done = true;
	return NULL;
}

static void *do_replace(void *arg)
{
	struct task *t = arg;

	t->rc = iommufd_access_replace(t->drv->access, t->id);
	t->done = true;
	return NULL;
}

static void *do_destroy(void *arg)
{
	struct task *t = arg;

	iommufd_access_destroy(t->drv->access);
	t->done = true;
	return NULL;
}

/* Until the area at 0x10000 is closed to accesses. */
static void wait_blocked(struct rig *rig, uint32_t ioas_id)
{
	struct iova_area *area;
	struct obj *obj;
	bool blocked = false;

	assert_int_equal(obj_get(rig->ctx, ioas_id, OBJ_IOAS, "", NULL, &obj), 0);
	while (!blocked) {
		iova_map_lock(ioas_of(obj)->map);
		area = iova_map_first(ioas_of(obj)->map, 0x10000);
		blocked = area->blocked;
		iova_map_unlock(ioas_of(obj)->map);
		sched_yield();
	}
	obj_put(obj);
}

/* ---- one side held still --------------------------------------------------------------------- */

static void unmap_waits_for_a_pin_that_is_being_made(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig);
	struct slow_memory slow;
	struct drv drv, late;
	struct task pin = {.rig = rig, .drv = &drv, .iova = 0x10000};
	struct task unmap = {.rig = rig, .id = ioas};

	drv_open(rig, &drv, ioas);
	drv_open(rig, &late, ioas);
	slow_map(rig, &slow, ioas);
	task_start(&pin, do_pin);
	wait_inside(&slow);
	task_start(&unmap, do_unmap);
	wait_blocked(rig, ioas);
	assert_int_equal(drv_pin(&late, 0x10000, PAGE, 0), -EINVAL);
	pause_ms(20);
	assert_false(unmap.done || pin.done);
	assert_int_equal(late.calls,
			 0); /* no round is spent before there is something to release */
	sem_post(&slow.go_on);
	assert_int_equal(task_end(&pin), 0);
	assert_int_equal(task_end(&unmap), 0);
	assert_int_equal(late.calls, 1);
	drv_close(&drv);
	drv_close(&late);
}

static void a_pin_that_fails_leaves_unmap_nothing_to_ask(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig);
	struct slow_memory slow;
	struct drv drv;
	struct task pin = {.rig = rig, .drv = &drv, .iova = 0x10000};
	struct task unmap = {.rig = rig, .id = ioas};

	drv_open(rig, &drv, ioas);
	slow_map(rig, &slow, ioas);
	slow.pin_error = -EFAULT;
	task_start(&pin, do_pin_alone);
	wait_inside(&slow);
	task_start(&unmap, do_unmap);
	wait_blocked(rig, ioas);
	sem_post(&slow.go_on);
	assert_int_equal(task_end(&pin), -EFAULT);
	assert_int_equal(task_end(&unmap), 0);
	assert_int_equal(drv.calls, 0);
	drv_close(&drv);
}

static void unmap_waits_for_rw(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig);
	struct slow_memory slow;
	struct drv drv;
	struct task read = {.rig = rig, .drv = &drv, .iova = 0x10000};
	struct task unmap = {.rig = rig, .id = ioas};

	drv_open(rig, &drv, ioas);
	slow_map(rig, &slow, ioas);
	task_start(&read, do_read);
	wait_inside(&slow);
	task_start(&unmap, do_unmap);
	pause_ms(20);
	assert_false(unmap.done || read.done);
	/* Another range is not held up. */
	assert_int_equal(map_at(rig, ioas, 0x80000, rig->mem, PAGE, R), 0);
	sem_post(&slow.go_on);
	assert_int_equal(task_end(&read), 0);
	assert_int_equal(task_end(&unmap), 0);
	drv_close(&drv);
}

static _Atomic unsigned int entered;

static void count_entry(struct drv *drv, unsigned long iova, unsigned long length)
{
	(void)drv;
	(void)iova;
	(void)length;
	entered++;
}

static void replace_waits_for_a_pin_and_has_it_released(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig), next = ioas_new(rig);
	struct slow_memory slow;
	struct drv drv;
	struct task pin = {.rig = rig, .drv = &drv, .iova = 0x10000};
	struct task replace = {.rig = rig, .drv = &drv, .id = next};

	drv_open(rig, &drv, ioas);
	drv.called = count_entry;
	entered = 0;
	slow_map(rig, &slow, ioas);
	task_start(&pin, do_pin);
	wait_inside(&slow);
	task_start(&replace, do_replace);
	pause_ms(20);
	assert_false(replace.done || pin.done);
	assert_int_equal(entered, 0); /* the callback must not come before the pin it is to find */
	sem_post(&slow.go_on);
	assert_int_equal(task_end(&pin), 0);
	assert_int_equal(task_end(&replace), 0);
	assert_int_equal(drv.calls, 1);
	assert_null(drv.items);
	assert_int_equal(pins_at(rig, ioas, 0x10000), 0);
	assert_int_equal(destroy_id(rig, ioas), 0);
	drv_close(&drv);
}

/* A callback that stops inside. */
static sem_t in_callback, leave_callback;

static void stop_in_callback(struct drv *drv, unsigned long iova, unsigned long length)
{
	(void)iova;
	if (length == ULONG_MAX && !drv->cookie)
		return;
	sem_post(&in_callback);
	while (sem_wait(&leave_callback))
		;
}

static void destroy_waits_for_the_callback(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig);
	struct drv drv;
	struct task unmap = {.rig = rig, .id = ioas}, destroy = {.rig = rig, .drv = &drv};

	sem_init(&in_callback, 0, 0);
	sem_init(&leave_callback, 0, 0);
	assert_int_equal(map_at(rig, ioas, 0x10000, rig->mem, PAGE, R), 0);
	drv_open(rig, &drv, ioas);
	assert_int_equal(drv_pin(&drv, 0x10000, PAGE, 0), 0);
	drv.called = stop_in_callback;
	task_start(&unmap, do_unmap);
	while (sem_wait(&in_callback))
		;
	task_start(&destroy, do_destroy);
	pause_ms(20);
	assert_false(destroy.done || unmap.done);
	assert_int_equal(drv.calls, 0);
	sem_post(&leave_callback);
	task_end(&destroy);
	assert_int_equal(task_end(&unmap), 0);
	assert_int_equal(drv.calls, 2); /* for the area; for everything */
	assert_int_equal(destroy_id(rig, ioas), 0);
}

/* The pins of an access that is being destroyed are on their way: unmapping does not give up on them. */
static void unmap_waits_for_an_access_that_is_being_destroyed(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig);
	struct drv drv;
	struct task unmap = {.rig = rig, .id = ioas}, destroy = {.rig = rig, .drv = &drv};

	sem_init(&in_callback, 0, 0);
	sem_init(&leave_callback, 0, 0);
	assert_int_equal(map_at(rig, ioas, 0x10000, rig->mem, PAGE, R), 0);
	drv_open(rig, &drv, ioas);
	assert_int_equal(drv_pin(&drv, 0x10000, PAGE, 0), 0);
	drv.called = stop_in_callback;
	drv.cookie = &drv; /* also in the last one */
	task_start(&destroy, do_destroy);
	while (sem_wait(&in_callback))
		;
	task_start(&unmap, do_unmap);
	pause_ms(50);
	assert_false(unmap.done);
	sem_post(&leave_callback);
	task_end(&destroy);
	assert_int_equal(task_end(&unmap), 0);
	assert_int_equal(destroy_id(rig, ioas), 0);
}

/* ---- everything at once ---------------------------------------------------------------------- */

/*
 * SLOTS mappings come and go, each of a page that holds LIVE while it is mapped and is spoiled when UNMAP has
 * returned. Whoever reads a mapped or pinned page must find LIVE.
 */
#define SLOTS 16
#define LIVE 0x55
#define SPOILT 0xaa

struct storm {
	struct rig *rig;
	uint32_t ioas, other;
	struct drv drv[2];
	struct iommufd_access *plain;
	_Atomic bool stop;
	_Atomic unsigned int unmaps, pins, reads, moves, bad;
};

static uint64_t next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	return *x ^= *x << 17;
}

static void *storm_map(void *arg)
{
	struct storm *s = arg;
	struct rig local = {.ctx = s->rig->ctx};
	uint64_t seed = 7;
	int rc;

	swiommu_caller_local(&local.caller);
	for (unsigned int i = 0; i < 2000; i++) {
		unsigned long k = next_random(&seed) % SLOTS, iova = 0x10000 + 2 * k * PAGE;
		char *page = s->rig->mem + k * PAGE;

		rc = unmap_at(&local, s->ioas, iova, PAGE);
		if (rc && rc != -ENOENT)
			s->bad++;
		if (!rc)
			s->unmaps++;
		__atomic_store_n(page, (char)SPOILT, __ATOMIC_SEQ_CST);
		__atomic_store_n(page, (char)LIVE, __ATOMIC_SEQ_CST);
		if (map_at(&local, s->ioas, iova, page, PAGE, R | W))
			s->bad++;
	}
	s->stop = true;
	return NULL;
}

static bool is_live(const char *page)
{
	return __atomic_load_n(page, __ATOMIC_SEQ_CST) == LIVE;
}

static void *storm_pin(void *arg)
{
	struct storm *s = ((void **)arg)[0];
	struct drv *drv = ((void **)arg)[1];
	uint64_t seed = (uintptr_t)drv;
	struct page *page;

	while (!s->stop) {
		unsigned long iova = 0x10000 + 2 * (next_random(&seed) % SLOTS) * PAGE;
		struct item *it = malloc(sizeof(*it));
		int rc;

		pthread_mutex_lock(&drv->lock);
		rc = iommufd_access_pin_pages(drv->access, iova, PAGE, &page, 0);
		if (!rc) {
			*it = (struct item){drv->items, iova, PAGE};
			drv->items = it;
			/* The callback cannot come while we hold the lock, so the page is ours. */
			if (!is_live(page_address(page)))
				s->bad++;
			s->pins++;
		} else {
			free(it);
			if (rc != -ENOENT && rc != -EINVAL)
				s->bad++;
		}
		if (next_random(&seed) % 4 == 0)
			while (drv->items)
				drv_unpin(drv, &drv->items);
		pthread_mutex_unlock(&drv->lock);
		sched_yield(); /* let the callback have the lock */
	}
	return NULL;
}

static void *storm_read(void *arg)
{
	struct storm *s = arg;
	uint64_t seed = 99;
	char c;
	int rc;

	while (!s->stop) {
		rc = iommufd_access_rw(s->plain, 0x10000 + 2 * (next_random(&seed) % SLOTS) * PAGE,
				       &c, 1, 0);
		if (!rc && c != LIVE)
			s->bad++;
		if (rc && rc != -ENOENT && rc != -EINVAL)
			s->bad++;
		s->reads++;
	}
	return NULL;
}

/* Moves the drivers to an empty IOAS and back, each also by a second thread: one of two may come too late. */
static void *storm_move(void *arg)
{
	struct storm *s = arg;
	uint64_t seed = (uintptr_t)&seed;
	int rc;

	while (!s->stop) {
		struct drv *drv = &s->drv[next_random(&seed) % 2];

		rc = iommufd_access_replace(drv->access,
					    next_random(&seed) % 4 ? s->ioas : s->other);
		if (rc && rc != -ENOENT)
			s->bad++;
		s->moves += !rc;
		sched_yield();
	}
	return NULL;
}

static void run_storm(struct rig *rig, bool with_device)
{
	struct storm s = {.rig = rig, .ioas = ioas_new(rig), .other = ioas_new(rig)};
	void *pinner[2][2] = {{&s, &s.drv[0]}, {&s, &s.drv[1]}};
	pthread_t t[7];
	struct rig_device d;

	for (unsigned int k = 0; k < SLOTS; k++)
		rig->mem[k * PAGE] = LIVE;
	drv_open(rig, &s.drv[0], s.ioas);
	drv_open(rig, &s.drv[1], s.ioas);
	s.plain = plain_open(rig, s.ioas);
	if (with_device)
		assert_int_equal(rig_device_attach(rig, &d, s.ioas), 0);
	pthread_create(&t[0], NULL, storm_pin, pinner[0]);
	pthread_create(&t[1], NULL, storm_pin, pinner[1]);
	pthread_create(&t[2], NULL, storm_read, &s);
	pthread_create(&t[3], NULL, storm_read, &s); /* two threads on one access */
	pthread_create(&t[4], NULL, storm_move, &s);
	pthread_create(&t[5], NULL, storm_move, &s);
	pthread_create(&t[6], NULL, storm_map, &s);
	for (int i = 0; i < 7; i++)
		pthread_join(t[i], NULL);
	print_message("%u unmaps, %u pins, %u reads, %u moves\n", s.unmaps, s.pins, s.reads,
		      s.moves);
	assert_int_equal(s.bad, 0);
	assert_true(s.unmaps && s.pins && s.reads && s.moves);
	/* What is left: as many pins as the drivers know of, and none when they are gone. */
	for (unsigned long k = 0; k < SLOTS; k++) {
		unsigned long iova = 0x10000 + 2 * k * PAGE;
		long known = 0;

		for (int i = 0; i < 2; i++)
			for (struct item *it = s.drv[i].items; it; it = it->next)
				known += it->iova == iova;
		assert_int_equal(SWI_MAX(pins_at(rig, s.ioas, iova), 0), known);
	}
	drv_close(&s.drv[0]);
	drv_close(&s.drv[1]);
	for (unsigned long k = 0; k < SLOTS; k++)
		assert_true(pins_at(rig, s.ioas, 0x10000 + 2 * k * PAGE) <= 0);
	iommufd_access_destroy(s.plain);
	if (with_device)
		rig_device_remove(&d);
	assert_int_equal(rig->warnings, 0);
	assert_int_equal(destroy_id(rig, s.ioas), 0);
	assert_int_equal(destroy_id(rig, s.other), 0);
}

static void a_storm_leaves_nothing_behind(void **state)
{
	run_storm(*state, false);
}

static void a_storm_under_a_device_leaves_nothing_behind(void **state)
{
	run_storm(*state, true);
}

/* ---- destroying an IOAS while something attaches to it --------------------------------------- */

struct hunt {
	struct rig *rig;
	_Atomic uint32_t ioas;
	_Atomic bool stop;
	_Atomic unsigned int attached, missed, refused, bad;
};

static void *hunt_attach(void *arg)
{
	struct hunt *h = arg;
	struct drv drv;
	int rc;

	drv_create(h->rig, &drv);
	while (!h->stop) {
		rc = iommufd_access_attach(drv.access, h->ioas);
		if (!rc) {
			h->attached++;
			iommufd_access_detach(drv.access);
		} else if (rc == -ENOENT) {
			h->missed++;
		} else {
			h->bad++;
		}
	}
	drv_close(&drv);
	return NULL;
}

static void attach_and_destroy_of_an_ioas_exclude_each_other(void **state)
{
	struct hunt h = {.rig = *state};
	struct swiommu_caller caller;
	struct rig local = {.ctx = h.rig->ctx};
	pthread_t t[2];
	int rc;

	swiommu_caller_local(&caller);
	local.caller = caller;
	h.ioas = ioas_new(&local);
	pthread_create(&t[0], NULL, hunt_attach, &h);
	pthread_create(&t[1], NULL, hunt_attach, &h);
	for (unsigned int i = 0; i < 3000 || !h.attached || !h.missed; i++) {
		rc = destroy_id(&local, h.ioas);
		if (!rc)
			h.ioas = ioas_new(&local);
		else if (rc == -EBUSY)
			h.refused++;
		else
			h.bad++;
		if (i % 16 == 0)
			sched_yield();
	}
	h.stop = true;
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	print_message("%u attached, %u missed, %u refused\n", h.attached, h.missed, h.refused);
	assert_int_equal(h.bad, 0);
	assert_int_equal(destroy_id(&local, h.ioas), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(unmap_waits_for_a_pin_that_is_being_made),
		T(a_pin_that_fails_leaves_unmap_nothing_to_ask),
		T(unmap_waits_for_rw),
		T(replace_waits_for_a_pin_and_has_it_released),
		T(destroy_waits_for_the_callback),
		T(unmap_waits_for_an_access_that_is_being_destroyed),
		T(a_storm_leaves_nothing_behind),
		T(a_storm_under_a_device_leaves_nothing_behind),
		T(attach_and_destroy_of_an_ioas_exclude_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
