// SPDX-License-Identifier: MIT
/* vIOMMUs, vDEVICEs and their tombstones, event queues, device caches, HW queues, regions. */
#include "nest_rig.h"

#define NEST IOMMU_HWPT_ALLOC_NEST_PARENT

struct scene {
	struct mock m;
	uint32_t parent, viommu;
};

static long viommu_alloc(struct rig *r, uint32_t dev, uint32_t hwpt, uint32_t type, void *data,
			 uint32_t len, uint32_t *out)
{
	struct iommu_viommu_alloc cmd = {.size = sizeof(cmd),
					 .type = type,
					 .dev_id = dev,
					 .hwpt_id = hwpt,
					 .data_len = len,
					 .__reserved = 3,
					 .data_uptr = (uintptr_t)data};
	long rc = ioc(r, IOMMU_VIOMMU_ALLOC, &cmd);

	*out = cmd.out_viommu_id;
	return rc;
}

static long vdevice(struct rig *r, uint32_t viommu, uint32_t dev, uint64_t virt_id, uint32_t *out)
{
	struct iommu_vdevice_alloc cmd = {
		.size = sizeof(cmd), .viommu_id = viommu, .dev_id = dev, .virt_id = virt_id};
	long rc = ioc(r, IOMMU_VDEVICE_ALLOC, &cmd);

	*out = cmd.out_vdevice_id;
	return rc;
}

static void scene_init(struct rig *r, struct scene *s)
{
	s->m = mock_add(r, r->ioas, 0);
	s->parent = hwpt_new(r, s->m.idev, NEST, 0);
	assert_rc(viommu_alloc(r, s->m.idev, s->parent, MOCK_VIOMMU_TYPE, NULL, 0, &s->viommu), 0);
}

static void making(void **state)
{
	struct rig *r = *state;
	struct mock_viommu_data data[2] = {{.in_data = 0xbeef}};
	struct iommu_viommu_alloc bad = {.size = sizeof(bad), .flags = 1, .type = MOCK_VIOMMU_TYPE};
	struct scene s;
	uint32_t plain, id, more;

	scene_init(r, &s);
	plain = hwpt_new(r, s.m.idev, 0, 0);
	assert_rc(ioc(r, IOMMU_VIOMMU_ALLOC, &bad), -EOPNOTSUPP);
	assert_rc(viommu_alloc(r, s.m.idev, 999, 0xdead, NULL, 0, &id), -EOPNOTSUPP);
	assert_rc(viommu_alloc(r, s.m.idev, 999, 0, NULL, 0, &id), -EOPNOTSUPP);
	assert_rc(viommu_alloc(r, s.m.idev, r->ioas, MOCK_VIOMMU_TYPE, NULL, 0, &id), -ENOENT);
	assert_rc(viommu_alloc(r, s.m.idev, plain, MOCK_VIOMMU_TYPE, NULL, 0, &id), -EINVAL);
	assert_rc(viommu_alloc(r, s.m.idev, s.m.hwpt, MOCK_VIOMMU_TYPE, NULL, 0, &id), -EINVAL);
	assert_rc(viommu_alloc(r, r->ioas, s.parent, MOCK_VIOMMU_TYPE, NULL, 0, &id), -ENOENT);
	assert_rc(viommu_alloc(r, s.m.idev, s.parent, MOCK_VIOMMU_TYPE, NULL, 24, &id), -EFAULT);
	assert_rc(viommu_alloc(r, s.m.idev, s.parent, MOCK_VIOMMU_TYPE, data, 4, &id), -EINVAL);
	assert_rc(viommu_alloc(r, s.m.idev, s.parent, MOCK_VIOMMU_TYPE, data, 25, &id), -EINVAL);
	/* Failures left no region either: the first is at the first page, the second behind it. */
	assert_rc(viommu_alloc(r, s.m.idev, s.parent, MOCK_VIOMMU_TYPE, data, 24, &id), 0);
	assert_int_equal(data[0].out_data, 0xbeef);
	assert_int_equal(data[0].out_mmap_offset, 0x1000);
	assert_int_equal(data[0].out_mmap_length, 0x2000);
	assert_rc(viommu_alloc(r, s.m.idev, s.parent, MOCK_VIOMMU_TYPE, data + 1, 24, &more), 0);
	assert_int_equal(data[1].out_mmap_offset, 0x3000);
	assert_rc(rm(r, id), 0);
	assert_rc(viommu_alloc(r, s.m.idev, s.parent, MOCK_VIOMMU_TYPE, data, 24, &id), 0);
	assert_int_equal(data[0].out_mmap_offset, 0x1000);
	assert_rc(rm(r, s.parent), -EBUSY);
}

static long map_region(struct rig *r, uint64_t length, int prot, int flags, uint64_t offset,
		       void **at)
{
	int fd;
	long rc = swiommu_mmap(r->ctx, &r->caller, length, prot, flags, offset, &fd);

	if (!rc) {
		*at = mmap(NULL, length, prot, flags, fd, offset);
		assert_true(*at != MAP_FAILED);
	}
	return rc;
}

static void regions(void **state)
{
	struct rig *r = *state;
	struct mock_viommu_data data = {.in_data = 0xbeef};
	struct scene s;
	uint32_t id;
	void *at;

	scene_init(r, &s);
	assert_rc(map_region(r, 0x2000, PROT_READ, MAP_SHARED, 0x1000, &at), -ENXIO);
	assert_rc(viommu_alloc(r, s.m.idev, s.parent, MOCK_VIOMMU_TYPE, &data, 24, &id), 0);
	assert_rc(map_region(r, 0x2000, PROT_READ, MAP_PRIVATE, 0, &at), -EINVAL);
	assert_rc(map_region(r, 0x2000, PROT_EXEC, MAP_SHARED, 0, &at), -EPERM);
	assert_rc(map_region(r, 0x2000, PROT_READ, MAP_SHARED, 0, &at), -ENXIO);
	assert_rc(map_region(r, 0x1000, PROT_READ, MAP_SHARED, 0x2000, &at), -ENXIO);
	assert_rc(map_region(r, 0x1000, PROT_READ, MAP_SHARED, 0x1000, &at), -ENXIO);
	assert_rc(map_region(r, 0x4000, PROT_READ, MAP_SHARED, 0x1000, &at), -ENXIO);
	assert_rc(rm(r, id), 0);
	data.in_data = 0xcafe;
	assert_rc(viommu_alloc(r, s.m.idev, s.parent, MOCK_VIOMMU_TYPE, &data, 24, &id), 0);
	assert_rc(map_region(r, 0x2000, PROT_READ | PROT_WRITE, MAP_SHARED, 0x1000, &at), 0);
	assert_int_equal(*(uint32_t *)at, 0xcafe);
	((char *)at)[0x1fff] = 1;
	assert_rc(rm(r, id), -EBUSY);
	munmap(at, 0x1000);
	assert_rc(rm(r, id), -EBUSY);
	munmap((char *)at + 0x1000, 0x1000);
	assert_rc(rm(r, id), 0);
	/* The next one finds nothing of what was written. */
	assert_rc(viommu_alloc(r, s.m.idev, s.parent, MOCK_VIOMMU_TYPE, &data, 24, &id), 0);
	assert_rc(map_region(r, 0x2000, PROT_READ, MAP_SHARED, 0x1000, &at), 0);
	assert_int_equal(((char *)at)[0x1fff], 0);
	munmap(at, 0x2000);
	assert_rc(rm(r, id), 0);
}

static void vdevices(void **state)
{
	struct rig *r = *state;
	struct mock other;
	uint32_t id, id2, viommu2, nested;
	struct scene s;

	scene_init(r, &s);
	other = mock_add(r, r->ioas, 0);
	nested = nested_new(r, s.m.idev, s.viommu, 0, 0);
	assert_rc(replace(r, &s.m, nested), -ENOENT);
	assert_rc(viommu_alloc(r, s.m.idev, s.parent, MOCK_VIOMMU_TYPE, NULL, 0, &viommu2), 0);
	assert_rc(vdevice(r, 999, s.m.idev, 5, &id), -ENOENT);
	assert_rc(vdevice(r, s.viommu, 999, 5, &id), -ENOENT);
	assert_rc(vdevice(r, s.viommu, s.m.idev, 5, &id), 0);
	assert_rc(vdevice(r, s.viommu, s.m.idev, 6, &id2), -EEXIST);
	assert_rc(vdevice(r, viommu2, s.m.idev, 6, &id2), -EEXIST);
	assert_rc(vdevice(r, s.viommu, other.idev, 5, &id2), -EEXIST);
	assert_rc(vdevice(r, viommu2, other.idev, 5, &id2), 0);
	assert_rc(rm(r, viommu2), -EBUSY);
	assert_rc(replace(r, &s.m, nested), 0);
	/* Also while the device is attached. */
	assert_rc(rm(r, id), 0);
	assert_rc(vdevice(r, s.viommu, s.m.idev, UINT64_MAX, &id), 0);
	assert_rc(rm(r, s.viommu), -EBUSY);
	assert_rc(rm(r, s.m.stdev), 0);
	/* A tombstone: the number is gone for good, the guest's number is free. */
	assert_rc(rm(r, id), -ENOENT);
	assert_rc(rm(r, other.stdev), 0);
	other = mock_add(r, r->ioas, 0);
	assert_rc(vdevice(r, s.viommu, other.idev, UINT64_MAX, &id2), 0);
	for (int i = 0; i < 20; i++)
		assert_int_not_equal(hwpt_new(r, other.idev, 0, 0), id);
}

static void failed_response(void **state)
{
	struct rig *r = *state;
	struct iommu_vdevice_alloc *cmd = (void *)memory(1);
	struct scene s;
	uint32_t id;

	scene_init(r, &s);
	*cmd = (struct iommu_vdevice_alloc){
		.size = sizeof(*cmd), .viommu_id = s.viommu, .dev_id = s.m.idev, .virt_id = 5};
	assert_rc(mprotect(cmd, PAGE, PROT_READ), 0);
	assert_rc(ioc(r, IOMMU_VDEVICE_ALLOC, cmd), -EFAULT);
	assert_rc(vdevice(r, s.viommu, s.m.idev, 5, &id), 0);
	munmap(cmd, PAGE);
}

/* ---- events ----------------------------------------------------------------------------------------- */

static long veventq(struct rig *r, uint32_t viommu, uint32_t type, uint32_t depth, uint32_t *id,
		    int *fd)
{
	struct iommu_veventq_alloc cmd = {
		.size = sizeof(cmd), .viommu_id = viommu, .type = type, .veventq_depth = depth};
	long rc = ioc(r, IOMMU_VEVENTQ_ALLOC, &cmd);

	*id = cmd.out_veventq_id;
	*fd = rc ? -1 : (int)cmd.out_veventq_fd;
	return rc;
}

static long trigger(struct rig *r, uint32_t dev)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_TRIGGER_VEVENT,
				     .trigger_vevent.dev_id = dev};

	return op(r, &cmd);
}

struct event {
	uint32_t flags, sequence, virt_id;
};

static void events(void **state)
{
	struct rig *r = *state;
	uint32_t id, q, q2, nested;
	struct event ev[4];
	struct scene s;
	int fd, fd2;

	scene_init(r, &s);
	assert_rc(veventq(r, s.viommu, 0, 2, &q, &fd), -EOPNOTSUPP);
	assert_rc(veventq(r, 999, 1, 0, &q, &fd), -EINVAL);
	assert_rc(veventq(r, s.viommu, 1, (1u << 19) + 1, &q, &fd), -EINVAL);
	assert_rc(veventq(r, 999, 1, 1u << 19, &q, &fd), -ENOENT);
	nested = nested_new(r, s.m.idev, s.viommu, 0, 0);
	assert_rc(vdevice(r, s.viommu, s.m.idev, 0x99, &id), 0);
	assert_rc(trigger(r, s.m.idev), -ENOENT);
	assert_rc(replace(r, &s.m, nested), 0);
	assert_rc(trigger(r, s.m.idev), -EOPNOTSUPP);
	assert_rc(veventq(r, s.viommu, MOCK_VEVENT_TYPE, 2, &q, &fd), 0);
	assert_rc(veventq(r, s.viommu, MOCK_VEVENT_TYPE, 2, &q2, &fd2), -EEXIST);
	assert_rc(veventq(r, s.viommu, 0x1234, 2, &q2, &fd2), 0);
	close_fd(r, fd2);
	assert_rc(rm(r, q2), 0);
	assert_rc(rm(r, q), -EBUSY);
	assert_int_equal(polled(fd), 0);
	assert_rc(rd(r, fd, ev, 7), -EINVAL);
	assert_rc(rd(r, fd, ev, 8), 0);
	assert_rc(wr(r, fd, ev, 8), -EINVAL);
	for (int i = 0; i < 5; i++)
		assert_rc(trigger(r, s.m.idev), 0);
	assert_int_equal(polled(fd), POLLIN);
	assert_rc(rd(r, fd, ev, 8), -EINVAL);
	assert_rc(rd(r, fd, ev, 11), -EINVAL);
	assert_rc(rd(r, fd, NULL, 24), -EFAULT);
	assert_rc(rd(r, fd, ev, 24), 24);
	assert_int_equal(ev[0].sequence, 0);
	assert_int_equal(ev[0].virt_id, 0x99);
	assert_int_equal(ev[1].sequence, 1);
	/* The marker, which a failed read leaves where it is. */
	assert_rc(rd(r, fd, NULL, 8), -EFAULT);
	assert_int_equal(polled(fd), POLLIN);
	assert_rc(rd(r, fd, ev, 12), 8);
	assert_int_equal(ev[0].flags, IOMMU_VEVENTQ_FLAG_LOST_EVENTS);
	assert_int_equal(ev[0].sequence, 4);
	assert_int_equal(polled(fd), 0);
	/* A marker goes when an event fits again: the gap says the same. */
	for (int i = 5; i < 8; i++)
		assert_rc(trigger(r, s.m.idev), 0);
	assert_rc(rd(r, fd, ev, 12), 12);
	assert_rc(trigger(r, s.m.idev), 0);
	assert_rc(rd(r, fd, ev, sizeof(ev)), 24);
	assert_int_equal(ev[0].sequence, 6);
	assert_int_equal(ev[1].sequence, 8);
	/* What is there can be read when the context is closed. */
	assert_rc(trigger(r, s.m.idev), 0);
	iommufd_ctx_get(r->ctx);
	swiommu_close(r->ctx);
	assert_rc(rd(r, fd, ev, sizeof(ev)), 12);
	close_fd(r, fd);
	assert_rc(rm(r, q), 0);
}

/* ---- caches ----------------------------------------------------------------------------------------- */

static long cache(struct rig *r, uint32_t dev, uint32_t i, uint32_t want)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_DEV_CHECK_CACHE,
				     .id = dev,
				     .check_dev_cache = {.id = i, .cache = want}};

	return op(r, &cmd);
}

static void caches(void **state)
{
	struct rig *r = *state;
	struct mock_viommu_invalidate inv[3] = {{0, 0x99, 1}, {0, 0x98, 0}, {0, 0x99, 2}};
	struct iommu_hwpt_invalidate cmd = {.size = sizeof(cmd)};
	uint32_t id, padded[4] = {0, 0x99, 3, 0};
	struct scene s;
	const struct {
		uint32_t type, len, num;
		const void *data;
		long rc;
		uint32_t done;
	} rows[] = {
		{MOCK_VIOMMU_INVALIDATE_TYPE, 0, 0, NULL, 0, 0},
		{77, 0, 0, NULL, -EINVAL, 0},
		{77, 12, 1, inv, -EINVAL, 0},
		{MOCK_VIOMMU_INVALIDATE_TYPE, 12, 3, inv, -EINVAL, 1},
		{MOCK_VIOMMU_INVALIDATE_TYPE, 16, 1, padded, 0, 1},
		{MOCK_VIOMMU_INVALIDATE_TYPE, 8, 1, inv, 0, 1}, /* cache 0 */
		{MOCK_VIOMMU_INVALIDATE_TYPE, 1, 1, inv, -EINVAL, 0},
	};

	scene_init(r, &s);
	assert_rc(vdevice(r, s.viommu, s.m.idev, 0x99, &id), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		cmd = (struct iommu_hwpt_invalidate){.size = sizeof(cmd),
						     .hwpt_id = s.viommu,
						     .data_uptr = (uintptr_t)rows[i].data,
						     .data_type = rows[i].type,
						     .entry_len = rows[i].len,
						     .entry_num = rows[i].num};
		assert_rc(ioc(r, IOMMU_HWPT_INVALIDATE, &cmd), rows[i].rc);
		assert_int_equal(cmd.entry_num, rows[i].done);
	}
	assert_rc(cache(r, s.m.idev, 0, 0), 0);
	assert_rc(cache(r, s.m.idev, 1, 0), 0);
	assert_rc(cache(r, s.m.idev, 2, MOCK_CACHE_DEFAULT), 0);
	assert_rc(cache(r, s.m.idev, 3, 0), 0);
	padded[3] = 1;
	cmd = (struct iommu_hwpt_invalidate){.size = sizeof(cmd),
					     .hwpt_id = s.viommu,
					     .data_uptr = (uintptr_t)padded,
					     .data_type = MOCK_VIOMMU_INVALIDATE_TYPE,
					     .entry_len = 16,
					     .entry_num = 1};
	assert_rc(ioc(r, IOMMU_HWPT_INVALIDATE, &cmd), -E2BIG);
	assert_int_equal(cmd.entry_num, 0);
}

/* ---- HW queues --------------------------------------------------------------------------------------- */

static long hw_queue(struct rig *r, uint32_t viommu, uint32_t index, uint64_t iova, uint64_t len,
		     uint32_t *out)
{
	struct iommu_hw_queue_alloc cmd = {.size = sizeof(cmd),
					   .viommu_id = viommu,
					   .type = MOCK_HW_QUEUE_TYPE,
					   .index = index,
					   .nesting_parent_iova = iova,
					   .length = len};
	long rc = ioc(r, IOMMU_HW_QUEUE_ALLOC, &cmd);

	*out = cmd.out_hw_queue_id;
	return rc;
}

static void hw_queues(void **state)
{
	struct rig *r = *state;
	char *mem = memory(4);
	uint32_t q0, q1;
	struct scene s;

	scene_init(r, &s);
	memset(mem, 1, 4 * PAGE);
	assert_rc(map(r->ctx, r->ioas, R, BASE, mem, 2 * PAGE), 0);
	assert_rc(map(r->ctx, r->ioas, W, BASE + 0x10000, mem + 2 * PAGE, PAGE), 0);
	assert_rc(hw_queue(r, 999, 0, BASE, 0, &q0), -EINVAL);
	assert_rc(hw_queue(r, 999, 0, UINT64_MAX, PAGE, &q0), -EOVERFLOW);
	assert_rc(hw_queue(r, 999, 0, BASE, PAGE, &q0), -ENOENT);
	assert_rc(hw_queue(r, s.viommu, 0, 0, UINT64_MAX, &q0), -ERANGE);
	assert_rc(hw_queue(r, s.viommu, 0, 0, 1ull << 40, &q0), -ENOMEM);
	assert_rc(hw_queue(r, s.viommu, 0, BASE + 0x8000, PAGE, &q0), -ENOENT);
	assert_rc(hw_queue(r, s.viommu, 0, BASE + PAGE, 2 * PAGE, &q0), -ENOENT);
	assert_rc(hw_queue(r, s.viommu, 0, BASE + 0x10000, PAGE, &q0), -EPERM);
	assert_rc(hw_queue(r, s.viommu, 2, BASE, PAGE, &q0), -EINVAL);
	assert_rc(hw_queue(r, s.viommu, 1, BASE, PAGE, &q1), -EIO);
	assert_rc(hw_queue(r, s.viommu, 0, BASE + 0x123, 100, &q0), 0);
	assert_rc(hw_queue(r, s.viommu, 0, BASE, PAGE, &q1), -EEXIST);
	/* The access behind the queue. */
	assert_rc(rm(r, q0 + 1), -EBUSY);
	assert_rc(unmap(r->ctx, r->ioas, BASE, 2 * PAGE), -EBUSY);
	assert_rc(unmap(r->ctx, r->ioas, 0, UINT64_MAX), -EBUSY);
	assert_rc(hw_queue(r, s.viommu, 1, BASE, PAGE, &q1), 0);
	assert_rc(rm(r, q0), -EBUSY);
	assert_rc(rm(r, s.viommu), -EBUSY);
	assert_rc(rm(r, q1), 0);
	assert_rc(rm(r, q0), 0);
	assert_rc(unmap(r->ctx, r->ioas, BASE, 2 * PAGE), 0);
	/* Not one after the other in memory. */
	assert_rc(map(r->ctx, r->ioas, R, BASE, mem + PAGE, PAGE), 0);
	assert_rc(map(r->ctx, r->ioas, R, BASE + PAGE, mem, PAGE), 0);
	assert_rc(hw_queue(r, s.viommu, 0, BASE, 2 * PAGE, &q0), -EFAULT);
	assert_rc(unmap(r->ctx, r->ioas, BASE, 2 * PAGE), 0);
	/* A mapping finer than pages. */
	assert_rc(map(r->ctx, r->ioas, R, BASE, mem, PAGE), 0);
	assert_rc(map(r->ctx, r->ioas, R, BASE + 0x20000, mem, 2048), 0);
	assert_rc(hw_queue(r, s.viommu, 0, BASE, PAGE, &q0), -EADDRINUSE);
	assert_rc(rm(r, s.viommu), 0);
	munmap(mem, 4 * PAGE);
}

/* ---- races ------------------------------------------------------------------------------------------- */

#define ROUNDS 300

struct race {
	struct iommufd_ctx *ctx;
	uint32_t viommu, idev;
	_Atomic uint32_t vdev;
	_Atomic bool stop;
};

static void *maker(void *arg)
{
	struct race *race = arg;
	struct rig mine = {.ctx = race->ctx};
	uint32_t id;

	swiommu_caller_local(&mine.caller);
	while (!race->stop)
		if (!vdevice(&mine, race->viommu, race->idev, 7, &id))
			race->vdev = id;
	return NULL;
}

static void *destroyer(void *arg)
{
	struct race *race = arg;
	struct rig mine = {.ctx = race->ctx};

	swiommu_caller_local(&mine.caller);
	while (!race->stop)
		rm(&mine, race->vdev);
	return NULL;
}

/* Devices that go while their vDEVICEs are made and destroyed. */
static void unbinding(void **state)
{
	struct rig *r = *state;
	struct scene s;
	struct race race = {.ctx = r->ctx};
	pthread_t threads[2];

	scene_init(r, &s);
	for (int i = 0; i < ROUNDS; i++) {
		struct mock m = mock_add(r, r->ioas, 0);

		race.viommu = s.viommu;
		race.idev = m.idev;
		race.vdev = 0;
		race.stop = false;
		assert_rc(pthread_create(&threads[0], NULL, maker, &race), 0);
		assert_rc(pthread_create(&threads[1], NULL, destroyer, &race), 0);
		sched_yield();
		assert_rc(rm(r, m.stdev), 0);
		race.stop = true;
		for (int t = 0; t < 2; t++)
			pthread_join(threads[t], NULL);
		assert_rc(rm(r, m.idev), -ENOENT);
	}
	/* No vDEVICE is left. */
	assert_rc(rm(r, s.viommu), 0);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(making), T(regions), T(vdevices),  T(failed_response),
		T(events), T(caches),  T(hw_queues), T(unbinding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
