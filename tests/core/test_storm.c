// SPDX-License-Identifier: MIT
/*
 * Several threads of one client make any call on any object of one context (devices.md 8). What each call answers
 * depends on the others; that it is an errno that it may give, that nothing hangs, and that the end of the context
 * finds everything in order does not. A number of steps and no time, so that it ends on any machine; run it under the
 * sanitizers.
 */
#include "nest_rig.h"

#include <pthread.h>

#define THREADS 4
#define STEPS 15000
#define IDS 14 /* most objects have one below */

struct storm {
	struct rig rig; /* with a caller of the thread's own */
	uint64_t seed;
	char *memory;
	long bad;	       /* an errno that no call may give */
	unsigned int done[12]; /* calls that worked, by kind */
};

static uint32_t any(struct storm *s, uint32_t n)
{
	s->seed = s->seed * 6364136223846793005 + 1442695040888963407;
	return (uint32_t)(s->seed >> 33) % n;
}

static bool may_be(long rc)
{
	switch (-rc) {
	case EINVAL:
	case ENOENT:
	case EBUSY:
	case EEXIST:
	case EOPNOTSUPP:
	case EADDRINUSE:
	case EFAULT:
	case EIO:
	case ENOMEM:
	case ENODEV:
	case ESPIPE:
	case EBADF:
	case EBADFD:
	case ENOSPC:
	case EPERM:
	case EMFILE:
	case ENXIO:
	case EOVERFLOW:
		return true;
	default:
		return rc >= 0;
	}
}

static long make(struct storm *s, uint32_t a, uint32_t b)
{
	static const uint32_t flags[] = {0, IOMMU_HWPT_ALLOC_NEST_PARENT, IOMMU_HWPT_ALLOC_PASID,
					 IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
					 IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID};
	struct mock_viommu_data region = {0};
	struct mock_hwpt_data data = {0};
	struct iommu_viommu_alloc viommu = {.size = sizeof(viommu),
					    .type = MOCK_VIOMMU_TYPE,
					    .dev_id = a,
					    .hwpt_id = b,
					    .data_uptr = (uintptr_t)&region};
	struct iommu_vdevice_alloc vdev = {
		.size = sizeof(vdev), .viommu_id = a, .dev_id = b, .virt_id = any(s, 4)};
	struct iommu_hw_queue_alloc queue = {.size = sizeof(queue),
					     .viommu_id = a,
					     .type = MOCK_HW_QUEUE_TYPE,
					     .index = any(s, 2),
					     .nesting_parent_iova = BASE,
					     .length = PAGE};
	uint32_t id;

	switch (any(s, 6)) {
	case 0:
		viommu.data_len = any(s, 2) ? sizeof(region) : 0;
		return ioc(&s->rig, IOMMU_VIOMMU_ALLOC, &viommu);
	case 1:
		return ioc(&s->rig, IOMMU_VDEVICE_ALLOC, &vdev);
	case 2:
		return ioc(&s->rig, IOMMU_HW_QUEUE_ALLOC, &queue);
	case 3:
		return hwpt_alloc(&s->rig, a, b, 0, 0, MOCK_HWPT_DATA_TYPE, &data, sizeof(data),
				  &id);
	default:
		return hwpt_alloc(&s->rig, a, b, flags[any(s, 5)], any(s, IDS), 0, NULL, 0, &id);
	}
}

/* A queue is made, used a little, and closed. */
static long queue(struct storm *s, uint32_t a)
{
	struct iommu_veventq_alloc events = {.size = sizeof(events),
					     .viommu_id = a,
					     .type = MOCK_VEVENT_TYPE,
					     .veventq_depth = 1 + any(s, 3)};
	struct iommu_fault_alloc faults = {.size = sizeof(faults)};
	struct iommu_hwpt_page_response answer = {.cookie = 1 + any(s, 2)};
	char buf[80];
	long rc;
	int fd;

	if (any(s, 2)) {
		rc = ioc(&s->rig, IOMMU_VEVENTQ_ALLOC, &events);
		fd = events.out_veventq_fd;
	} else {
		rc = ioc(&s->rig, IOMMU_FAULT_QUEUE_ALLOC, &faults);
		fd = faults.out_fault_fd;
	}
	if (rc)
		return rc;
	for (int i = any(s, 8); i >= 0 && rc >= 0; i--) {
		struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_TRIGGER_VEVENT};

		cmd.trigger_vevent.dev_id = any(s, IDS);
		op(&s->rig, &cmd);
		rc = rd(&s->rig, fd, buf, sizeof(buf));
		wr(&s->rig, fd, &answer, sizeof(answer));
	}
	close(fd);
	return rc;
}

static long device(struct storm *s, uint32_t a, uint32_t b)
{
	struct iommu_test_cmd cmd = {.id = a};

	switch (any(s, 5)) {
	case 0:
		cmd.op = IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS;
		cmd.mock_domain.dev_flags = MOCK_FLAGS_DEVICE_PASID;
		break;
	case 1:
		cmd.op = IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE;
		cmd.mock_domain_replace.pt_id = b;
		break;
	case 2:
		cmd.op = IOMMU_TEST_OP_TRIGGER_IOPF;
		cmd.trigger_iopf.dev_id = a;
		cmd.trigger_iopf.pasid = any(s, 3);
		break;
	default:
		cmd.op = IOMMU_TEST_OP_PASID_ATTACH + any(s, 3);
		cmd.pasid.pasid = any(s, 3);
		cmd.pasid.pt_id = b;
	}
	return op(&s->rig, &cmd);
}

static long look(struct storm *s, uint32_t a)
{
	struct iommu_hwpt_set_dirty_tracking set = {sizeof(set), any(s, 2), a, 0};
	struct mock_viommu_invalidate entry = {.vdev_id = any(s, 4)};
	struct iommu_hwpt_invalidate inv = {.size = sizeof(inv),
					    .hwpt_id = a,
					    .data_uptr = (uintptr_t)&entry,
					    .data_type = MOCK_VIOMMU_INVALIDATE_TYPE,
					    .entry_len = any(s, 2) ? 8 : 12,
					    .entry_num = 1};
	uint64_t bitmap = 0;
	struct iommu_hwpt_get_dirty_bitmap get = {.size = sizeof(get),
						  .hwpt_id = a,
						  .iova = BASE,
						  .length = 4 * PAGE,
						  .page_size = PAGE,
						  .data = (uintptr_t)&bitmap};
	struct iommu_hw_info info = {.size = sizeof(info), .dev_id = a};

	switch (any(s, 4)) {
	case 0:
		return ioc(&s->rig, IOMMU_HWPT_SET_DIRTY_TRACKING, &set);
	case 1:
		return ioc(&s->rig, IOMMU_HWPT_INVALIDATE, &inv);
	case 2:
		return ioc(&s->rig, IOMMU_HWPT_GET_DIRTY_BITMAP, &get);
	default:
		return ioc(&s->rig, IOMMU_GET_HW_INFO, &info);
	}
}

static long memory_of(struct storm *s)
{
	struct iommu_ioas_map map = {.size = sizeof(map),
				     .flags = 7,
				     .ioas_id = s->rig.ioas,
				     .user_va = (uintptr_t)s->memory,
				     .length = 4 * PAGE,
				     .iova = BASE + any(s, 2) * 4 * PAGE};
	struct iommu_ioas_unmap unmap = {.size = sizeof(unmap),
					 .ioas_id = s->rig.ioas,
					 .iova = map.iova,
					 .length = 4 * PAGE};

	return any(s, 2) ? ioc(&s->rig, IOMMU_IOAS_MAP, &map)
			 : ioc(&s->rig, IOMMU_IOAS_UNMAP, &unmap);
}

static void *rage(void *data)
{
	struct storm *s = data;

	for (int i = 0; i < STEPS && !s->bad; i++) {
		uint32_t a = any(s, IDS), b = any(s, 3) ? any(s, IDS) : s->rig.ioas;
		uint32_t kind = any(s, 12);
		long rc;

		/* The IOAS itself stays, so that there is something to do. */
		if (kind < 1)
			rc = a == s->rig.ioas ? 0 : rm(&s->rig, a);
		else if (kind < 5)
			rc = make(s, a, b);
		else if (kind < 6)
			rc = queue(s, a);
		else if (kind < 9)
			rc = device(s, any(s, 4) ? a : s->rig.ioas, b);
		else if (kind < 11)
			rc = look(s, a);
		else
			rc = memory_of(s);
		s->done[kind] += rc >= 0;
		if (!may_be(rc))
			s->bad = rc;
	}
	return NULL;
}

static unsigned int errors;

static void count_errors(void *data, enum swiommu_log_level level, const char *line)
{
	(void)data;
	(void)line;
	if (level == SWIOMMU_LOG_ERROR)
		__atomic_add_fetch(&errors, 1, __ATOMIC_RELAXED);
}

static void everything_at_once(void **state)
{
	struct rig *r = *state;
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct swiommu_options opt = {.test_abi = r->abi, .hooks = {.log = count_errors}};
	unsigned int done[12] = {0};
	struct storm storms[THREADS];
	pthread_t threads[THREADS];
	char *v = memory(4);

	swiommu_close(r->ctx);
	assert_rc(swiommu_open_with(&opt, &r->ctx), 0);
	assert_rc(ioc(r, IOMMU_IOAS_ALLOC, &alloc), 0);
	r->ioas = alloc.out_ioas_id;
	for (int i = 0; i < 2; i++)
		mock_add(r, r->ioas, MOCK_FLAGS_DEVICE_PASID);
	for (int i = 0; i < THREADS; i++) {
		storms[i] = (struct storm){.rig = *r, .seed = 77 + i, .memory = v};
		swiommu_caller_local(&storms[i].rig.caller);
		storms[i].rig.caller.files = r->files;
		assert_rc(pthread_create(&threads[i], NULL, rage, &storms[i]), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_rc(storms[i].bad, 0);
		for (int k = 0; k < 12; k++)
			done[k] += storms[i].done[k];
	}
	/* Each kind of call has worked now and then. */
	for (int k = 0; k < 12; k++)
		assert_true(done[k] > 10);
	swiommu_files_sweep(r->files);
	swiommu_close(r->ctx);
	assert_int_equal(errors, 0);
	assert_rc(swiommu_open_with(&opt, &r->ctx), 0);
	munmap(v, 4 * PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(everything_at_once, rig_setup, rig_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
