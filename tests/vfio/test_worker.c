// SPDX-License-Identifier: MIT
/* The thread of a model: kicks, pauses, the end (<swiommu/model.h>). */
#include "rig.h"

#include <sched.h>
#include <unistd.h>

struct fixture {
	struct vfio_worker worker;
	atomic_uint looks, inside, finished;
	atomic_bool hold;      /* look() waits until it is clear */
	atomic_bool must;      /* look() waits until it must return */
	atomic_bool kick_self; /* look() kicks once */
};

static void look(void *arg)
{
	struct fixture *f = arg;

	atomic_fetch_add(&f->inside, 1);
	atomic_fetch_add(&f->looks, 1);
	if (atomic_exchange(&f->kick_self, false))
		vfio_worker_kick(&f->worker);
	while (atomic_load(&f->hold))
		sched_yield();
	while (atomic_load(&f->must) && !vfio_worker_must_return(&f->worker))
		sched_yield();
	atomic_fetch_add(&f->finished, 1);
	atomic_fetch_sub(&f->inside, 1);
}

static int setup(void **state)
{
	static struct fixture f;

	f = (struct fixture){0};
	assert_int_equal(vfio_worker_init(&f.worker, look, &f), 0);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	vfio_worker_fini(&((struct fixture *)*state)->worker);
	return 0;
}

static void wait_looks(struct fixture *f, unsigned int n)
{
	while (atomic_load(&f->looks) < n)
		sched_yield();
}

static void wait_outside(struct fixture *f)
{
	while (atomic_load(&f->inside))
		sched_yield();
}

static void each_kick_is_looked_at(void **state)
{
	struct fixture *f = *state;

	vfio_worker_kick(&f->worker); /* before the start counts too */
	assert_int_equal(vfio_worker_start(&f->worker, 0), 0);
	wait_looks(f, 1);
	wait_outside(f); /* else the first look would kick */
	atomic_store(&f->kick_self, true);
	vfio_worker_kick(&f->worker);
	wait_looks(f, 3);
	wait_outside(f); /* else the third look would see `hold` */
	/* A kick while it looks: it looks again. */
	atomic_store(&f->hold, true);
	vfio_worker_kick(&f->worker);
	wait_looks(f, 4);
	vfio_worker_kick(&f->worker);
	vfio_worker_kick(&f->worker);
	atomic_store(&f->hold, false);
	wait_looks(f, 5);
	vfio_worker_stop(&f->worker);
	assert_int_equal(atomic_load(&f->looks), 5);
	/* It can be started again. */
	assert_int_equal(vfio_worker_start(&f->worker, 0), 0);
	vfio_worker_kick(&f->worker);
	wait_looks(f, 6);
	vfio_worker_stop(&f->worker);
}

static void a_period(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(vfio_worker_start(&f->worker, 100), 0);
	wait_looks(f, 5);
	vfio_worker_stop(&f->worker);
}

static void *let_go(void *arg)
{
	struct fixture *f = arg;

	/* Long enough for a pause that does not wait to be caught. */
	usleep(20000);
	atomic_store(&f->hold, false);
	return NULL;
}

static void a_pause_waits_for_the_look(void **state)
{
	struct fixture *f = *state;
	unsigned int looks;
	pthread_t thread;

	assert_int_equal(vfio_worker_start(&f->worker, 0), 0);
	atomic_store(&f->hold, true);
	vfio_worker_kick(&f->worker);
	wait_looks(f, 1);
	vfio_worker_kick(&f->worker); /* forgotten by the pause */
	assert_int_equal(pthread_create(&thread, NULL, let_go, f), 0);
	vfio_worker_pause(&f->worker);
	assert_int_equal(atomic_load(&f->inside), 0);
	pthread_join(thread, NULL);
	/* Twice paused, twice resumed; a kick meanwhile is kept. */
	vfio_worker_pause(&f->worker);
	vfio_worker_kick(&f->worker);
	vfio_worker_resume(&f->worker);
	looks = atomic_load(&f->looks);
	usleep(1000);
	assert_int_equal(atomic_load(&f->looks), looks);
	assert_int_equal(looks, 1);
	vfio_worker_resume(&f->worker);
	wait_looks(f, 2);
	vfio_worker_stop(&f->worker);
	assert_int_equal(atomic_load(&f->finished), 2);
}

static void a_long_look_is_told_to_return(void **state)
{
	struct fixture *f = *state;

	atomic_store(&f->must, true);
	assert_int_equal(vfio_worker_start(&f->worker, 0), 0);
	vfio_worker_kick(&f->worker);
	wait_looks(f, 1);
	vfio_worker_pause(&f->worker);
	assert_int_equal(atomic_load(&f->finished), 1);
	vfio_worker_resume(&f->worker);
	vfio_worker_kick(&f->worker);
	wait_looks(f, 2);
	vfio_worker_stop(&f->worker);
	assert_int_equal(atomic_load(&f->finished), 2);
}

/* What a reset does to a model that is closed. */
static void pauses_without_a_thread(void **state)
{
	struct fixture *f = *state;

	vfio_worker_kick(&f->worker);
	vfio_worker_pause(&f->worker);
	vfio_worker_resume(&f->worker);
	assert_int_equal(vfio_worker_start(&f->worker, 0), 0);
	vfio_worker_pause(&f->worker);
	assert_int_equal(atomic_load(&f->looks), 0);
	vfio_worker_resume(&f->worker);
	vfio_worker_stop(&f->worker);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(each_kick_is_looked_at),     T(a_period),
		T(a_pause_waits_for_the_look), T(a_long_look_is_told_to_return),
		T(pauses_without_a_thread),
	};

	return cmocka_run_group_tests_name("vfio_worker", tests, NULL, NULL);
}
