// SPDX-License-Identifier: MIT
/* DMA with PASIDs, and DMA that asks for pages: what it follows, who answers, what ends a wait. */
#include "generic_rig.h"

#define IOPF SWIOMMU_DMA_PAGE_REQUESTS

static char byte_at(struct swiommu_dma *dma, uint64_t iova)
{
	char c = 0;

	assert_rc(swiommu_dma_read(dma, iova, &c, 1), 0);
	return c;
}

static void follows_its_pasid(void **state)
{
	struct rig *r = *state;
	uint32_t other = ioas_new(r->ctx), a, b;
	struct swiommu_dma *rid, *p7, *p8;
	char c;

	r->memory[0] = 'a';
	r->memory[PAGE] = 'b';
	map_page(r, r->ioas, RW, BASE, 0);
	map_page(r, other, RW, BASE, 1);
	a = hwpt_new(r, r->ioas, PASID, 0);
	b = hwpt_new(r, other, PASID, 0);
	assert_rc(swiommu_dma_open_pasid(r->idev, 1u << 20, 0, &rid), -EINVAL);
	assert_rc(swiommu_dma_open_pasid(r->idev, 1, 0x80, &rid), -EINVAL);
	assert_rc(swiommu_dma_open(r->idev, &rid), 0);
	assert_rc(swiommu_dma_open_pasid(r->idev, 7, 0, &p7), 0);
	attach(r, 7, b);
	assert_rc(swiommu_dma_open_pasid(r->idev, 8, 0, &p8), 0);
	assert_int_equal(byte_at(p7, BASE), 'b');
	assert_rc(swiommu_dma_read(rid, BASE, &c, 1), -ENXIO);
	assert_rc(swiommu_dma_read(p8, BASE, &c, 1), -ENXIO);
	attach(r, 0, a);
	assert_int_equal(byte_at(rid, BASE), 'a');
	assert_int_equal(byte_at(p7, BASE), 'b');
	replace(r, 7, a);
	assert_int_equal(byte_at(p7, BASE), 'a');
	replace(r, 0, b);
	assert_int_equal(byte_at(p7, BASE), 'a');
	assert_int_equal(byte_at(rid, BASE), 'b');
	iommufd_device_detach(r->idev, 7);
	assert_rc(swiommu_dma_read(p7, BASE, &c, 1), -ENXIO);
	assert_int_equal(byte_at(rid, BASE), 'b');
	attach(r, 8, a);
	assert_int_equal(byte_at(p8, BASE), 'a');
	/* The unmap is seen through every PASID. */
	assert_rc(unmap(r->ctx, r->ioas, BASE, PAGE), 0);
	assert_rc(swiommu_dma_read(p8, BASE, &c, 1), -ENOENT);
	/* A handle that comes and goes leaves what is attached alone. */
	swiommu_dma_close(p8);
	assert_rc(swiommu_dma_open_pasid(r->idev, 8, 0, &p8), 0);
	assert_rc(swiommu_dma_read(p8, BASE, &c, 1), -ENOENT);
	iommufd_device_detach(r->idev, 8);
	iommufd_device_detach(r->idev, 0);
	assert_rc(destroy(r->ctx, b), 0);
	swiommu_dma_close(p8);
	swiommu_dma_close(p7);
	swiommu_dma_close(rid);
}

/* Any allocation of an attach with open handles fails: nothing is let through, nothing is left. */
static void attach_without_memory(void **state)
{
	struct rig *r = *state;
	uint32_t hwpt = hwpt_new(r, r->ioas, PASID, 0), pt;
	struct swiommu_dma *dma[3];
	unsigned int nth;
	char c;
	int rc;

	map_page(r, r->ioas, RW, BASE, 0);
	for (int i = 0; i < 3; i++)
		assert_rc(swiommu_dma_open_pasid(r->idev, 5, 0, &dma[i]), 0);
	for (nth = 1;; nth++) {
		pt = hwpt;
		swi_alloc_fail_nth(nth);
		rc = iommufd_device_attach(r->idev, 5, &pt);
		if (swi_alloc_fail_nth(0))
			break;
		assert_true(rc < 0);
		for (int i = 0; i < 3; i++)
			assert_rc(swiommu_dma_read(dma[i], BASE, &c, 1), -ENXIO);
	}
	assert_rc(rc, 0);
	assert_true(nth > 5);
	for (int i = 0; i < 3; i++) {
		assert_rc(swiommu_dma_read(dma[i], BASE, &c, 1), 0);
		swiommu_dma_close(dma[i]);
	}
	iommufd_device_detach(r->idev, 5);
}

/* Very many, in an order that is none: found and left in little time. */
static void as_many_as_there_are(void **state)
{
	struct rig *r = *state;
	uint32_t a = hwpt_new(r, r->ioas, PASID, 0), b = hwpt_new(r, r->ioas, PASID, 0), plain, pt;
	const uint32_t n = 60000;

	for (uint32_t i = 1; i <= n; i++)
		attach(r, i * 7919 % (1u << 20), a);
	plain = hwpt_new(r, r->ioas, 0, 0);
	pt = plain;
	assert_rc(iommufd_device_attach(r->idev, 0, &pt), -EINVAL);
	attach(r, 0, b);
	assert_rc(iommufd_device_replace(r->idev, 0, &pt), -EINVAL);
	for (uint32_t i = 1; i <= n; i++) {
		pt = a;
		assert_rc(iommufd_device_attach(r->idev, i * 7919 % (1u << 20), &pt), -EBUSY);
		replace(r, i * 7919 % (1u << 20), b);
	}
	assert_rc(destroy(r->ctx, a), 0);
	for (uint32_t i = 1; i <= n; i++)
		iommufd_device_detach(r->idev, i * 7919 % (1u << 20));
	replace(r, 0, plain);
	assert_rc(destroy(r->ctx, b), 0);
	iommufd_device_detach(r->idev, 0);
}

/* ---- page requests --------------------------------------------------------------------------------- */

struct scene {
	struct swiommu_dma *dma;
	uint32_t fault, hwpt, pasid;
	int fd;
	struct access access;
	char buf[PAGE];
};

static void scene_init(struct rig *r, struct scene *s, uint32_t pasid)
{
	s->pasid = pasid;
	s->fault = fault_new(r, &s->fd);
	s->hwpt = hwpt_new(r, r->ioas, FAULT | PASID, s->fault);
	attach(r, pasid, s->hwpt);
	assert_rc(swiommu_dma_open_pasid(r->idev, pasid, IOPF, &s->dma), 0);
	memset(s->buf, 0x5a, sizeof(s->buf));
	s->access = (struct access){s->dma, BASE + PAGE - 4, s->buf, 8, true, 0, 0};
}

static void scene_fini(struct rig *r, struct scene *s)
{
	swiommu_dma_close(s->dma);
	iommufd_device_detach(r->idev, s->pasid);
	close_fd(r, s->fd);
	assert_rc(destroy(r->ctx, s->hwpt), 0);
	assert_rc(destroy(r->ctx, s->fault), 0);
}

/* Two pages are missing, then one of them is read-only: three requests, and then all bytes are there. */
static void pages_on_demand(void **state)
{
	struct rig *r = *state;
	struct scene s;
	pgfault got;

	scene_init(r, &s, 9);
	access_start(&s.access);
	got = next_request(r, s.fd);
	assert_int_equal(got.flags,
			 IOMMU_PGFAULT_FLAGS_PASID_VALID | IOMMU_PGFAULT_FLAGS_LAST_PAGE);
	assert_int_equal(got.dev_id, r->dev_id);
	assert_int_equal(got.pasid, 9);
	assert_int_equal(got.perm, IOMMU_PGFAULT_PERM_WRITE);
	assert_true(got.addr == BASE);
	map_page(r, r->ioas, RW, BASE, 3);
	assert_rc(respond(r, s.fd, got.cookie, IOMMUFD_PAGE_RESP_SUCCESS), 8);
	got = next_request(r, s.fd);
	assert_true(got.addr == BASE + PAGE);
	map_page(r, r->ioas, R, BASE + PAGE, 1);
	assert_rc(respond(r, s.fd, got.cookie, IOMMUFD_PAGE_RESP_SUCCESS), 8);
	got = next_request(r, s.fd);
	assert_true(got.addr == BASE + PAGE);
	assert_rc(unmap(r->ctx, r->ioas, BASE + PAGE, PAGE), 0);
	map_page(r, r->ioas, RW, BASE + PAGE, 1);
	assert_rc(respond(r, s.fd, got.cookie, IOMMUFD_PAGE_RESP_SUCCESS), 8);
	assert_rc(access_end(&s.access), 0);
	assert_memory_equal(r->memory + 4 * PAGE - 4, s.buf, 4);
	assert_memory_equal(r->memory + PAGE, s.buf, 4);
	assert_int_equal(r->memory[PAGE + 4], 0);
	assert_int_equal(r->faults, 0);
	scene_fini(r, &s);
}

static void refused(void **state)
{
	struct rig *r = *state;
	struct scene s;
	pgfault got;

	scene_init(r, &s, 0);
	s.access.write = false;
	access_start(&s.access);
	got = next_request(r, s.fd);
	assert_int_equal(got.flags, IOMMU_PGFAULT_FLAGS_LAST_PAGE);
	assert_int_equal(got.perm, IOMMU_PGFAULT_PERM_READ);
	assert_rc(respond(r, s.fd, got.cookie, IOMMUFD_PAGE_RESP_INVALID), 8);
	assert_rc(access_end(&s.access), -ENOENT);
	assert_int_equal(r->faults, 1);
	assert_true(r->fault.iova == s.access.iova);
	scene_fini(r, &s);
}

/* Without a queue, without the flag, or with a device that has no PRI nobody is asked. */
static void nobody_is_asked(void **state)
{
	struct rig *r = *state;
	uint32_t plain = hwpt_new(r, r->ioas, PASID, 0), pt;
	struct swiommu_dma *silent;
	struct scene s;
	char c;

	scene_init(r, &s, 0);
	assert_rc(swiommu_dma_open(r->idev, &silent), 0);
	assert_rc(swiommu_dma_read(silent, BASE, &c, 1), -ENOENT);
	replace(r, 0, plain);
	assert_rc(swiommu_dma_read(s.dma, BASE, &c, 1), -ENOENT);
	r->dev.pri = false;
	pt = s.hwpt;
	assert_rc(iommufd_device_replace(r->idev, 0, &pt), -ENODEV);
	assert_rc(swiommu_dma_read(s.dma, BASE, &c, 1), -ENOENT);
	swiommu_dma_close(silent);
	scene_fini(r, &s);
}

static void detached_while_waiting(void **state)
{
	struct rig *r = *state;
	uint32_t plain;
	struct scene s;
	pgfault got;

	/* Detached before the user has read it, then after. */
	for (int after = 0; after < 2; after++) {
		scene_init(r, &s, 3);
		access_start(&s.access);
		if (after) {
			got = next_request(r, s.fd);
		} else {
			struct pollfd p = {.fd = s.fd, .events = POLLIN};

			assert_int_equal(poll(&p, 1, 60000), 1);
		}
		iommufd_device_detach(r->idev, 3);
		assert_rc(access_end(&s.access), -ENOENT);
		if (after)
			assert_rc(respond(r, s.fd, got.cookie, 0), -EINVAL);
		scene_fini(r, &s);
	}
	/* Replaced. */
	scene_init(r, &s, 3);
	plain = hwpt_new(r, r->ioas, PASID, 0);
	access_start(&s.access);
	got = next_request(r, s.fd);
	replace(r, 3, plain);
	assert_rc(access_end(&s.access), -ENOENT);
	assert_rc(respond(r, s.fd, got.cookie, 0), -EINVAL);
	scene_fini(r, &s);
}

static void cancelled(void **state)
{
	struct rig *r = *state;
	struct scene s;
	pgfault got;
	char c;

	scene_init(r, &s, 3);
	access_start(&s.access);
	got = next_request(r, s.fd);
	swiommu_dma_cancel(s.dma);
	assert_rc(access_end(&s.access), -ECANCELED);
	/* It stays so, and the user's answer goes nowhere. */
	assert_rc(swiommu_dma_read(s.dma, BASE, &c, 1), -ECANCELED);
	assert_rc(respond(r, s.fd, got.cookie, 0), 8);
	assert_int_equal(r->faults, 0);
	swiommu_dma_resume(s.dma);
	got = next_request(r, s.fd); /* what the read above left */
	access_start(&s.access);
	got = next_request(r, s.fd);
	swiommu_device_block_requests(r->idev);
	assert_rc(access_end(&s.access), -ECANCELED);
	swiommu_device_unblock_requests(r->idev);
	access_start(&s.access);
	got = next_request(r, s.fd);
	assert_rc(respond(r, s.fd, got.cookie, IOMMUFD_PAGE_RESP_INVALID), 8);
	assert_rc(access_end(&s.access), -ENOENT);
	scene_fini(r, &s);
}

/* The queue's file is closed: the wait lasts until the detach. */
static void queue_closed(void **state)
{
	struct rig *r = *state;
	struct scene s;

	scene_init(r, &s, 3);
	access_start(&s.access);
	next_request(r, s.fd);
	close_fd(r, s.fd);
	assert_rc(destroy(r->ctx, s.fault), -EBUSY);
	iommufd_device_detach(r->idev, 3);
	assert_rc(access_end(&s.access), -ENOENT);
	swiommu_dma_close(s.dma);
	assert_rc(destroy(r->ctx, s.hwpt), 0);
	assert_rc(destroy(r->ctx, s.fault), 0);
}

/* ---- races ------------------------------------------------------------------------------------------ */

#define THREADS 3
#define ROUNDS 150

struct race {
	struct rig *r;
	int fd;
	uint32_t hwpt;
	_Atomic bool stop;
	_Atomic unsigned int ended;
	_Atomic unsigned int next_offset; /* a byte for each thread */
};

/* Every access ends, one way or the other. */
static void *racing_device(void *arg)
{
	struct race *race = arg;
	unsigned int offset = race->next_offset++;
	struct swiommu_dma *dma;
	char c = 1;

	while (!race->stop) {
		assert_rc(swiommu_dma_open_pasid(race->r->idev, 3, IOPF, &dma), 0);
		for (int i = 0; i < 4; i++) {
			int rc = swiommu_dma_write(dma, BASE + i * PAGE + offset, &c, 1);

			if (rc && rc != -ENOENT && rc != -ENXIO && rc != -ECANCELED)
				fail_msg("access: %d", rc);
			race->ended++;
		}
		swiommu_dma_close(dma);
	}
	return NULL;
}

static void *racing_user(void *arg)
{
	struct race *race = arg;
	struct swiommu_caller caller;
	pgfault got[4];

	swiommu_caller_local(&caller);
	caller.files = race->r->files;
	while (!race->stop) {
		struct pollfd p = {.fd = race->fd, .events = POLLIN};
		long n;

		poll(&p, 1, 1);
		n = swiommu_read(&caller, race->fd, (uintptr_t)got, sizeof(got));
		for (long i = 0; i < n / (long)sizeof(got[0]); i++) {
			/* A third of them may never be answered but by a detach. */
			if (got[i].cookie % 3 == 0)
				continue;
			map(race->r->ctx, race->r->ioas, RW, got[i].addr,
			    race->r->memory + (got[i].addr - BASE), PAGE);
			respond(race->r, race->fd, got[i].cookie, got[i].cookie % 3 - 1);
		}
	}
	return NULL;
}

static void waits_race_with_everything(void **state)
{
	struct rig *r = *state;
	struct race race = {.r = r};
	pthread_t threads[THREADS + 1];
	uint32_t fault, hwpts[2], pt;

	fault = fault_new(r, &race.fd);
	hwpts[0] = hwpt_new(r, r->ioas, FAULT | PASID, fault);
	hwpts[1] = hwpt_new(r, r->ioas, FAULT | PASID, fault);
	for (int i = 0; i < THREADS; i++)
		assert_rc(pthread_create(&threads[i], NULL, racing_device, &race), 0);
	assert_rc(pthread_create(&threads[THREADS], NULL, racing_user, &race), 0);
	for (int i = 0; i < ROUNDS; i++) {
		unsigned int before = race.ended;

		pt = hwpts[0];
		assert_rc(iommufd_device_attach(r->idev, 3, &pt), 0);
		unmap(r->ctx, r->ioas, BASE, 4 * PAGE);
		replace(r, 3, hwpts[1]);
		swiommu_device_block_requests(r->idev);
		swiommu_device_unblock_requests(r->idev);
		iommufd_device_detach(r->idev, 3);
		/* Nobody is stuck in a request that is gone. */
		while (race.ended == before)
			sched_yield();
	}
	race.stop = true;
	swiommu_device_block_requests(r->idev);
	for (int i = 0; i <= THREADS; i++)
		pthread_join(threads[i], NULL);
	swiommu_device_unblock_requests(r->idev);
	close_fd(r, race.fd);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(follows_its_pasid),
		T(attach_without_memory),
		T(as_many_as_there_are),
		T(pages_on_demand),
		T(refused),
		T(nobody_is_asked),
		T(detached_while_waiting),
		T(cancelled),
		T(queue_closed),
		T(waits_race_with_everything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
