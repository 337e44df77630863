// SPDX-License-Identifier: MIT
/*
 * Event queues under load (spec devices.md 8, 30 to 32): full queues of any depth, readers that compete and fail, reports
 * to a queue that goes, and the end of the sequence numbers, which only who sees the queue from inside can reach.
 */
#include "core/veventq.c"

#include "nest_rig.h"

#define TYPE 0x1234

struct event {
	uint32_t flags, sequence, number;
};

struct scene {
	struct rig *r;
	uint32_t viommu_id, id;
	struct iommufd_viommu *viommu;
	struct veventq *q;
	int fd;
};

static long queue_new(struct rig *r, uint32_t viommu, uint32_t depth, uint32_t *id, int *fd)
{
	struct iommu_veventq_alloc cmd = {
		.size = sizeof(cmd), .viommu_id = viommu, .type = TYPE, .veventq_depth = depth};
	long rc = ioc(r, IOMMU_VEVENTQ_ALLOC, &cmd);

	*id = cmd.out_veventq_id;
	*fd = rc ? -1 : (int)cmd.out_veventq_fd;
	return rc;
}

static void viommu_init(struct rig *r, struct scene *s)
{
	struct mock m = mock_add(r, r->ioas, 0);
	struct iommu_viommu_alloc cmd = {
		.size = sizeof(cmd),
		.type = MOCK_VIOMMU_TYPE,
		.dev_id = m.idev,
		.hwpt_id = hwpt_new(r, m.idev, IOMMU_HWPT_ALLOC_NEST_PARENT, 0)};
	struct obj *obj;

	*s = (struct scene){.r = r};
	assert_rc(ioc(r, IOMMU_VIOMMU_ALLOC, &cmd), 0);
	s->viommu_id = cmd.out_viommu_id;
	assert_rc(obj_get(r->ctx, s->viommu_id, OBJ_VIOMMU, "", NULL, &obj), 0);
	s->viommu = viommu_of(obj)->pub;
	obj_put(obj);
}

static void scene_init(struct rig *r, struct scene *s, uint32_t depth)
{
	struct obj *obj;

	viommu_init(r, s);
	assert_rc(queue_new(r, s->viommu_id, depth, &s->id, &s->fd), 0);
	assert_rc(obj_get(r->ctx, s->id, OBJ_VEVENTQ, "", NULL, &obj), 0);
	s->q = veventq_of(obj);
	obj_put(obj);
}

static void scene_fini(struct scene *s)
{
	close_fd(s->r, s->fd);
	assert_rc(rm(s->r, s->id), 0);
	assert_rc(rm(s->r, s->viommu_id), 0);
}

static int report(struct scene *s, uint32_t number)
{
	return iommufd_viommu_report_event(s->viommu, TYPE, &number, sizeof(number));
}

/* ---- full queues ------------------------------------------------------------------------------------- */

static void as_deep_as_told(void **state)
{
	static const uint32_t depths[] = {1, 2, 1u << 19};
	struct event *got = calloc((1u << 19) + 1, sizeof(*got));

	for (int i = 0; i < 3; i++) {
		uint32_t depth = depths[i];
		struct scene s;

		scene_init(*state, &s, depth);
		for (uint32_t n = 0; n < depth + 5; n++)
			assert_rc(report(&s, n), 0);
		assert_rc(rd(s.r, s.fd, got, (depth + 1) * sizeof(*got)),
			  (long)(depth * sizeof(*got)) + 8);
		for (uint32_t n = 0; n < depth; n++)
			assert_true(!got[n].flags && got[n].sequence == n && got[n].number == n);
		assert_int_equal(got[depth].flags, IOMMU_VEVENTQ_FLAG_LOST_EVENTS);
		assert_int_equal(got[depth].sequence, depth + 4);
		assert_rc(rd(s.r, s.fd, got, sizeof(*got)), 0);
		scene_fini(&s);
	}
	free(got);
}

static void sequence_begins_again(void **state)
{
	struct event got[5];
	struct scene s;

	scene_init(*state, &s, 4);
	s.q->sequence = SEQUENCE_MAX - 1;
	for (uint32_t n = 0; n < 4; n++)
		assert_rc(report(&s, n), 0);
	assert_rc(rd(s.r, s.fd, got, sizeof(got)), 4 * sizeof(*got));
	assert_int_equal(got[0].sequence, 0x7ffffffe);
	assert_int_equal(got[1].sequence, 0x7fffffff);
	assert_int_equal(got[2].sequence, 0);
	assert_int_equal(got[3].sequence, 1);
	/* The same where events are lost: the last that fits, the last of all, and one behind it. */
	s.q->sequence = SEQUENCE_MAX - 3;
	for (uint32_t n = 0; n < 5; n++)
		assert_rc(report(&s, n), 0);
	assert_rc(rd(s.r, s.fd, got, sizeof(got)), 4 * sizeof(*got) + 8);
	assert_int_equal(got[3].sequence, 0x7fffffff);
	assert_int_equal(got[4].flags, IOMMU_VEVENTQ_FLAG_LOST_EVENTS);
	assert_int_equal(got[4].sequence, 0);
	assert_rc(report(&s, 5), 0);
	assert_rc(rd(s.r, s.fd, got, sizeof(got)), sizeof(*got));
	assert_int_equal(got[0].sequence, 1);
	scene_fini(&s);
}

/* ---- readers ----------------------------------------------------------------------------------------- */

#define EVENTS 20000
#define READERS 2

struct race {
	struct scene *s;
	_Atomic uint8_t seen[EVENTS];
	_Atomic unsigned int events, markers, wrong;
	_Atomic uint32_t last;
	_Atomic bool done;
};

static void look(struct race *race, const struct event *ev, int64_t *before)
{
	if ((int64_t)ev->sequence <= *before || ev->sequence >= EVENTS)
		race->wrong++;
	*before = ev->sequence;
	if (ev->sequence > race->last)
		race->last = ev->sequence;
	if (ev->flags) {
		race->markers++;
		return;
	}
	race->events++;
	if (ev->number != ev->sequence || race->seen[ev->sequence % EVENTS]++)
		race->wrong++;
}

static void *reader(void *arg)
{
	struct race *race = arg;
	struct rig mine = {.ctx = race->s->r->ctx};
	int64_t before = -1;
	struct event got[3];
	bool last = false;
	unsigned int i;
	long n = 1;

	swiommu_caller_local(&mine.caller);
	mine.caller.files = race->s->r->files;
	for (i = 0; !last || n > 0; i++) {
		/* When that is said, what there is can be read, and no more comes. */
		last = race->done;
		/* Now and then to nowhere, or what is too short. */
		if (i % 3 == 1)
			rd(&mine, race->s->fd, NULL, sizeof(got));
		if (i % 3 == 2) {
			n = rd(&mine, race->s->fd, got, 11);
			if (n == 8)
				look(race, got, &before);
		}
		n = rd(&mine, race->s->fd, got, sizeof(got));
		for (long at = 0; at < n; at += sizeof(*got))
			look(race, &got[at / (long)sizeof(*got)], &before);
	}
	return NULL;
}

/* All events are read once, in order; what is not read was lost, and that is said. */
static void race_of_readers(struct rig *r, uint32_t depth)
{
	struct race *race = calloc(1, sizeof(*race));
	pthread_t threads[READERS];
	struct scene s;

	scene_init(r, &s, depth);
	race->s = &s;
	for (int i = 0; i < READERS; i++)
		assert_rc(pthread_create(&threads[i], NULL, reader, race), 0);
	for (uint32_t n = 0; n < EVENTS; n++)
		assert_rc(report(&s, n), 0);
	race->done = true;
	for (int i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(race->wrong, 0);
	assert_int_equal(race->last, EVENTS - 1);
	if (depth >= EVENTS)
		assert_true(race->events == EVENTS && !race->markers);
	assert_int_equal(polled(s.fd), 0);
	scene_fini(&s);
	free(race);
}

static void readers_compete(void **state)
{
	race_of_readers(*state, EVENTS);
}

static void readers_are_too_slow(void **state)
{
	race_of_readers(*state, 1);
	race_of_readers(*state, 7);
}

/* ---- the end of a queue ------------------------------------------------------------------------------ */

struct coming {
	struct scene *s;
	_Atomic bool stop;
	_Atomic unsigned int taken, refused, wrong;
};

static void *reporter(void *arg)
{
	struct coming *c = arg;

	for (uint32_t n = 0; !c->stop; n++) {
		int rc = report(c->s, n);

		c->taken += !rc;
		c->refused += rc == -EOPNOTSUPP;
		c->wrong += rc && rc != -EOPNOTSUPP;
	}
	return NULL;
}

/* A caller in whose memory a report is made in the middle of the call. */
static struct scene *reporting;
static int early;

static int copy_out_and_report(struct swiommu_caller *c, uint64_t uptr, const void *src, size_t len)
{
	struct swiommu_caller plain;

	(void)c;
	if (early == 1)
		early = report(reporting, 0);
	swiommu_caller_local(&plain);
	return plain.ops->copy_out(&plain, uptr, src, len);
}

/* Who polls the new descriptor must be told of all that can be read from it. */
static void no_event_before_the_descriptor(void **state)
{
	struct swiommu_caller_ops ops;
	struct event got;
	struct scene s;

	viommu_init(*state, &s);
	ops = *s.r->caller.ops;
	ops.copy_out = copy_out_and_report;
	s.r->caller.ops = &ops;
	reporting = &s;
	early = 1;
	assert_rc(queue_new(s.r, s.viommu_id, 2, &s.id, &s.fd), 0);
	swiommu_caller_local(&s.r->caller);
	s.r->caller.files = s.r->files;
	assert_rc(early, -EOPNOTSUPP);
	assert_rc(report(&s, 7), 0);
	assert_int_equal(polled(s.fd), POLLIN);
	assert_rc(rd(s.r, s.fd, &got, sizeof(got)), sizeof(got));
	assert_true(got.sequence == 0 && got.number == 7);
	scene_fini(&s);
}

static void queues_come_and_go(void **state)
{
	struct coming c = {0};
	struct event got[4];
	pthread_t thread;
	struct scene s;

	viommu_init(*state, &s);
	c.s = &s;
	assert_rc(report(&s, 0), -EOPNOTSUPP);
	assert_rc(pthread_create(&thread, NULL, reporter, &c), 0);
	for (int i = 0; i < 300 || !c.taken || !c.refused; i++) {
		assert_rc(queue_new(s.r, s.viommu_id, 1 + i % 3, &s.id, &s.fd), 0);
		if (i % 2)
			assert_true(rd(s.r, s.fd, got, sizeof(got)) >= 0);
		assert_rc(rm(s.r, s.viommu_id), -EBUSY);
		close_fd(s.r, s.fd);
		assert_rc(rm(s.r, s.id), 0);
	}
	c.stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(c.wrong, 0);
	assert_rc(rm(s.r, s.viommu_id), 0);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(as_deep_as_told),    T(sequence_begins_again),
		T(readers_compete),    T(readers_are_too_slow),
		T(queues_come_and_go), T(no_event_before_the_descriptor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
