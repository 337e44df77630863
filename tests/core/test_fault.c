// SPDX-License-Identifier: MIT
/* Fault queues: what reads, writes and polls give, who answers what, and that each group is answered once. */
#include "nest_rig.h"

#define FAULT IOMMU_HWPT_FAULT_ID_VALID

typedef struct iommu_hwpt_pgfault rec;
typedef struct iommu_hwpt_page_response resp;

static void queue_of_its_own(void **state)
{
	struct rig *r = *state;
	struct iommu_fault_alloc bad = {.size = sizeof(bad), .flags = 1};
	uint32_t id;
	char buf[80];
	int fd, copy;

	assert_rc(ioc(r, IOMMU_FAULT_QUEUE_ALLOC, &bad), -EOPNOTSUPP);
	assert_rc(fault_alloc(r, &id, &fd), 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
	assert_true(lseek(fd, 0, SEEK_SET) < 0 && errno == ESPIPE);
	assert_int_equal(polled(fd), POLLOUT);
	assert_rc(rd(r, fd, buf, 40), 0);
	assert_rc(rd(r, fd, buf, 80), 0);
	assert_rc(rd(r, fd, buf, 0), 0);
	assert_rc(rd(r, fd, buf, 41), -ESPIPE);
	assert_rc(wr(r, fd, buf, 7), -ESPIPE);
	assert_rc(wr(r, fd, buf, 0), 0);
	copy = dup(fd);
	close_fd(r, fd);
	assert_rc(rm(r, id), -EBUSY);
	assert_rc(rd(r, copy, buf, 40), 0);
	close_fd(r, copy);
	assert_rc(rm(r, id), 0);
}

/* A response that cannot be written: neither ID nor descriptor is lost. */
static void failed_response(void **state)
{
	struct rig *r = *state;
	struct iommu_fault_alloc *cmd = (void *)memory(1);
	int before = dup(0), fd, after;
	uint32_t id;

	close(before);
	cmd->size = sizeof(*cmd);
	assert_rc(mprotect(cmd, PAGE, PROT_READ), 0);
	assert_rc(ioc(r, IOMMU_FAULT_QUEUE_ALLOC, cmd), -EFAULT);
	after = dup(0);
	assert_int_equal(after, before);
	close(after);
	assert_rc(fault_alloc(r, &id, &fd), 0);
	assert_int_equal(id, r->ioas + 1);
	munmap(cmd, PAGE);
	close_fd(r, fd);
}

struct scene {
	struct mock m;
	uint32_t fault, hwpt;
	int fd;
};

static void scene_init(struct rig *r, struct scene *s)
{
	s->m = mock_add(r, r->ioas, MOCK_FLAGS_DEVICE_PASID);
	assert_rc(fault_alloc(r, &s->fault, &s->fd), 0);
	s->hwpt = hwpt_new(r, s->m.idev, FAULT | IOMMU_HWPT_ALLOC_PASID, s->fault);
	assert_rc(replace(r, &s->m, s->hwpt), 0);
}

static void binding(void **state)
{
	struct rig *r = *state;
	struct mock m = mock_add(r, r->ioas, 0);
	uint32_t id, before = hwpt_new(r, m.idev, 0, 77), after;

	/* Without the flag the ID is not looked at; with it, nothing is left behind. */
	assert_rc(hwpt_alloc(r, m.idev, r->ioas, FAULT, 999, 0, NULL, 0, &id), -ENOENT);
	assert_rc(hwpt_alloc(r, m.idev, r->ioas, FAULT, r->ioas, 0, NULL, 0, &id), -ENOENT);
	assert_rc(hwpt_alloc(r, m.idev, r->ioas, FAULT | IOMMU_HWPT_ALLOC_NEST_PARENT, 999, 0, NULL,
			     0, &id),
		  -EOPNOTSUPP);
	after = hwpt_new(r, m.idev, 0, 0);
	assert_int_equal(after, before + 1);
}

static void round_trip(void **state)
{
	struct rig *r = *state;
	struct scene s;
	rec got[3];
	resp answer[2] = {{1, 2}, {9, 0}};

	scene_init(r, &s);
	iopf(r, s.m.idev, 0, 5, 0xabc000);
	iopf(r, s.m.idev, 0, 6, 0xdef000);
	assert_int_equal(polled(s.fd), POLLIN | POLLOUT);
	assert_rc(rd(r, s.fd, got, 0), -EINVAL);
	assert_rc(rd(r, s.fd, NULL, 40), -EFAULT);
	assert_rc(rd(r, s.fd, got, 40), 40);
	assert_int_equal(polled(s.fd), POLLIN | POLLOUT);
	assert_int_equal(got[0].flags, IOMMU_PGFAULT_FLAGS_LAST_PAGE);
	assert_int_equal(got[0].dev_id, s.m.idev);
	assert_int_equal(got[0].grpid, 5);
	assert_int_equal(got[0].perm, 3);
	assert_int_equal(got[0].addr, 0xabc000);
	assert_int_equal(got[0].length, 0);
	assert_int_equal(got[0].cookie, 1);
	assert_rc(rd(r, s.fd, got, sizeof(got)), 40);
	assert_int_equal(got[0].cookie, 2);
	assert_int_equal(polled(s.fd), POLLOUT);
	/* The code before the cookie; one answer each; the count of those that went well. */
	assert_rc(wr(r, s.fd, answer, 8), -EINVAL);
	assert_rc(wr(r, s.fd, NULL, 8), -EFAULT);
	answer[0].code = 0;
	assert_rc(wr(r, s.fd, answer, 16), 8);
	assert_rc(wr(r, s.fd, answer, 8), -EINVAL);
	/* The lowest cookie that is free. */
	iopf(r, s.m.idev, 0, 7, 0);
	assert_rc(rd(r, s.fd, got, 40), 40);
	assert_int_equal(got[0].cookie, 1);
	close_fd(r, s.fd);
	assert_rc(rm(r, s.fault), -EBUSY);
}

static void replaced_is_answered(void **state)
{
	struct rig *r = *state;
	struct scene s;
	uint32_t other;
	resp answer = {1, 0};
	rec got[2];

	scene_init(r, &s);
	iopf(r, s.m.idev, 0, 1, 0);
	iopf(r, s.m.idev, 0, 2, 0);
	assert_rc(rd(r, s.fd, got, 40), 40);
	/* The same HWPT again: nothing happens. */
	assert_rc(replace(r, &s.m, s.hwpt), 0);
	assert_int_equal(polled(s.fd), POLLIN | POLLOUT);
	/* Another one, even with the same queue: one unread, one unanswered are gone. */
	other = hwpt_new(r, s.m.idev, FAULT, s.fault);
	assert_rc(replace(r, &s.m, other), 0);
	assert_int_equal(polled(s.fd), POLLOUT);
	assert_rc(rd(r, s.fd, got, 80), 0);
	assert_rc(wr(r, s.fd, &answer, 8), -EINVAL);
	/* And the queue goes on. */
	iopf(r, s.m.idev, 0, 3, 0);
	assert_rc(rd(r, s.fd, got, 80), 40);
	assert_int_equal(got[0].grpid, 3);
	assert_rc(rm(r, s.m.stdev), 0);
	assert_rc(wr(r, s.fd, &answer, 8), -EINVAL);
	close_fd(r, s.fd);
	assert_rc(rm(r, other), 0);
	assert_rc(rm(r, s.hwpt), 0);
	assert_rc(rm(r, s.fault), 0);
}

static void nobody_takes_it(void **state)
{
	struct rig *r = *state;
	struct scene s;
	rec got;

	scene_init(r, &s);
	/* No attachment at that PASID, and the device's own is not nested. */
	iopf(r, s.m.idev, 4, 1, 0);
	assert_rc(rd(r, s.fd, &got, 40), 0);
	assert_rc(p_attach(r, &s.m, 4, s.hwpt), 0);
	iopf(r, s.m.idev, 4, 1, 0);
	assert_rc(rd(r, s.fd, &got, 40), 40);
	assert_int_equal(got.flags,
			 IOMMU_PGFAULT_FLAGS_LAST_PAGE | IOMMU_PGFAULT_FLAGS_PASID_VALID);
	assert_int_equal(got.pasid, 4);
	/* Detaching the PASID answers its own only. */
	iopf(r, s.m.idev, 0, 9, 0);
	assert_rc(p_detach(r, &s.m, 4), 0);
	assert_rc(wr(r, s.fd, &(resp){got.cookie, 0}, 8), -EINVAL);
	assert_rc(rd(r, s.fd, &got, 40), 40);
	assert_int_equal(got.grpid, 9);
	assert_rc(replace(r, &s.m, r->ioas), 0);
	iopf(r, s.m.idev, 0, 1, 0);
	assert_rc(rd(r, s.fd, &got, 40), 0);
	close_fd(r, s.fd);
}

static void alive_without_context(void **state)
{
	struct rig *r = *state;
	struct scene s;
	rec got;

	scene_init(r, &s);
	iopf(r, s.m.idev, 0, 1, 0x5000);
	iommufd_ctx_get(r->ctx); /* for teardown, in place of the one that goes */
	swiommu_close(r->ctx);
	assert_rc(rd(r, s.fd, &got, 40), 40);
	assert_int_equal(got.addr, 0x5000);
	close_fd(r, s.fd);
}

/* ---- groups of several pages, and answers, as a driver sees them ------------------------------------ */

struct model {
	struct device dev;
	struct iommu_group group;
	_Atomic unsigned int answers[3]; /* by code */
};

static int model_attach(struct iommu_domain *domain, struct device *dev, struct iommu_domain *old)
{
	bool was = old && old->takes_iopf;

	if (domain->takes_iopf && !was)
		return iopf_queue_add_device(dev);
	if (!domain->takes_iopf && was)
		iopf_queue_remove_device(dev);
	return 0;
}

static void model_response(struct device *dev, const struct iopf_fault *evt,
			   const struct iommu_page_response *rsp)
{
	(void)evt;
	((struct model *)dev)->answers[rsp->code]++;
}

static const struct iommu_domain_ops model_ops = {.attach_dev = model_attach};
static struct iommu_domain model_blocked = {.type = IOMMU_DOMAIN_BLOCKED, .ops = &model_ops};
static const struct iommu_driver model_driver = {.name = "model",
						 .pgsize_bitmap = PAGE,
						 .aperture_last = (1ull << 40) - 1,
						 .domain_ops = &model_ops,
						 .blocked_domain = &model_blocked,
						 .page_response = model_response};

static int report(struct model *m, uint32_t grpid, bool last)
{
	struct iopf_fault evt = {
		.prm = {.grpid = grpid, .flags = last ? IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE : 0}};

	return iommu_report_device_fault(&m->dev, &evt);
}

static struct iommufd_device *model_bind(struct rig *r, struct model *m, uint32_t *id)
{
	struct iommufd_device *idev;

	memset(m, 0, sizeof(*m));
	assert_rc(iommu_group_init(&m->group, 1), 0);
	m->dev = (struct device){.name = "model", .group = &m->group, .iommu = &model_driver};
	idev = iommufd_device_bind(r->ctx, &m->dev, id);
	assert_false(IS_ERR(idev));
	return idev;
}

static void groups(void **state)
{
	struct rig *r = *state;
	struct iommufd_device *idev;
	uint32_t id, hwpt, fault;
	struct model m;
	rec got[4];
	int fd;

	idev = model_bind(r, &m, &id);
	assert_rc(report(&m, 1, true), -EINVAL);
	assert_int_equal(m.answers[IOMMU_PAGE_RESP_INVALID], 1);
	assert_rc(fault_alloc(r, &fault, &fd), 0);
	hwpt = hwpt_new(r, id, FAULT, fault);
	assert_rc(iommufd_device_attach(idev, 0, &hwpt), 0);
	/* Three of group 1 around one of group 2; none is seen before its last. */
	assert_rc(report(&m, 1, false), 0);
	assert_rc(report(&m, 2, false), 0);
	assert_rc(report(&m, 1, false), 0);
	assert_rc(rd(r, fd, got, 160), 0);
	assert_rc(report(&m, 1, true), 0);
	assert_rc(rd(r, fd, got, 80), -EINVAL);
	assert_rc(rd(r, fd, got, 160), 120);
	assert_int_equal(got[0].cookie, got[2].cookie);
	assert_int_equal(got[0].flags, 0);
	assert_int_equal(got[2].flags, IOMMU_PGFAULT_FLAGS_LAST_PAGE);
	assert_rc(wr(r, fd, &(resp){got[0].cookie, IOMMUFD_PAGE_RESP_SUCCESS}, 8), 8);
	assert_int_equal(m.answers[IOMMU_PAGE_RESP_SUCCESS], 1);
	assert_rc(report(&m, 3, true), 0);
	iommufd_device_detach(idev, 0);
	assert_int_equal(m.answers[IOMMU_PAGE_RESP_INVALID], 2);
	/* The half of group 2 went with the attachment. */
	assert_rc(iommufd_device_attach(idev, 0, &hwpt), 0);
	assert_rc(report(&m, 2, true), 0);
	assert_rc(rd(r, fd, got, 160), 40);
	iommufd_device_detach(idev, 0);
	assert_int_equal(m.answers[IOMMU_PAGE_RESP_INVALID], 3);
	iommufd_device_unbind(idev);
	iommu_group_fini(&m.group);
	close_fd(r, fd);
}

#define MOST 65536

/* Nobody reads, and the device does not stop: what it can use up is bounded, and all of it is answered in the end. */
static void requests_are_bounded(void **state)
{
	struct rig *r = *state;
	struct iommufd_device *idev;
	uint32_t id, hwpt, fault;
	struct model m;
	int fd;

	idev = model_bind(r, &m, &id);
	assert_rc(fault_alloc(r, &fault, &fd), 0);
	hwpt = hwpt_new(r, id, FAULT, fault);
	assert_rc(iommufd_device_attach(idev, 0, &hwpt), 0);
	close_fd(r, fd);
	for (uint32_t i = 0; i < MOST; i++)
		assert_rc(report(&m, i, true), 0);
	assert_int_equal(m.answers[IOMMU_PAGE_RESP_FAILURE], 0);
	assert_rc(report(&m, 1, true), 0);
	assert_int_equal(m.answers[IOMMU_PAGE_RESP_FAILURE], 1);
	assert_rc(rm(r, fault), -EBUSY);
	iommufd_device_detach(idev, 0);
	assert_int_equal(m.answers[IOMMU_PAGE_RESP_INVALID], MOST);
	/* Groups that never get their last page, until the driver drops them. */
	assert_rc(iommufd_device_attach(idev, 0, &hwpt), 0);
	for (uint32_t i = 0; i < MOST; i++)
		assert_rc(report(&m, i % 512, false), 0);
	assert_rc(report(&m, 1, false), -ENOMEM);
	iopf_queue_discard_partial(&m.dev);
	assert_rc(report(&m, 1, false), 0);
	iommufd_device_detach(idev, 0);
	assert_int_equal(m.answers[IOMMU_PAGE_RESP_INVALID], MOST);
	assert_rc(rm(r, hwpt), 0);
	assert_rc(rm(r, fault), 0);
	iommufd_device_unbind(idev);
	iommu_group_fini(&m.group);
}

/* One group of as many pages as there can be, some of them with a PASID, which does not tell groups apart. */
static void a_huge_group(void **state)
{
	rec *got = calloc(MOST + 1, sizeof(*got));
	struct rig *r = *state;
	struct iommufd_device *idev;
	uint32_t id, hwpt, fault;
	struct model m;
	int fd;

	idev = model_bind(r, &m, &id);
	assert_rc(fault_alloc(r, &fault, &fd), 0);
	hwpt = hwpt_new(r, id, FAULT, fault);
	assert_rc(iommufd_device_attach(idev, 0, &hwpt), 0);
	for (uint32_t i = 0; i < MOST - 1; i++)
		assert_rc(report(&m, 7, false), 0);
	assert_rc(report(&m, 8, false), 0);
	assert_rc(report(&m, 7, true), 0);
	assert_rc(rd(r, fd, got, (MOST - 1) * 40), -EINVAL);
	assert_rc(rd(r, fd, got, (MOST + 1) * 40), MOST * 40);
	for (uint32_t i = 0; i < MOST; i++)
		assert_true(got[i].grpid == 7 && got[i].cookie == got[0].cookie &&
			    !got[i].flags == (i < MOST - 1));
	assert_rc(wr(r, fd, &(resp){got[0].cookie, 0}, 8), 8);
	assert_int_equal(m.answers[0], 1);
	/* What has waited meanwhile, and that number again. */
	assert_rc(report(&m, 7, true), 0);
	assert_rc(report(&m, 8, true), 0);
	assert_rc(rd(r, fd, got, 200), 120);
	assert_int_equal(got[0].grpid, 7);
	assert_int_equal(got[1].grpid, 8);
	iommufd_device_detach(idev, 0);
	assert_int_equal(m.answers[IOMMU_PAGE_RESP_INVALID], 2);
	iommufd_device_unbind(idev);
	iommu_group_fini(&m.group);
	close_fd(r, fd);
	free(got);
}

/* All that a device can ask for is read and answered, the last first: each under a cookie of its own. */
static void very_many_cookies(void **state)
{
	rec *got = calloc(MOST, sizeof(*got));
	struct rig *r = *state;
	struct iommufd_device *idev;
	uint32_t id, hwpt, fault;
	struct model m;
	int fd;

	idev = model_bind(r, &m, &id);
	assert_rc(fault_alloc(r, &fault, &fd), 0);
	hwpt = hwpt_new(r, id, FAULT, fault);
	assert_rc(iommufd_device_attach(idev, 0, &hwpt), 0);
	for (uint32_t i = 0; i < MOST; i++)
		assert_rc(report(&m, i, true), 0);
	assert_rc(rd(r, fd, got, MOST * 40), MOST * 40);
	for (uint32_t i = 0; i < MOST; i++)
		assert_int_equal(got[i].cookie, i + 1);
	assert_rc(wr(r, fd, &(resp){MOST + 1, 0}, 8), -EINVAL);
	for (uint32_t i = MOST; i > MOST / 2; i--)
		assert_rc(wr(r, fd, &(resp){i, 0}, 8), 8);
	assert_rc(wr(r, fd, &(resp){17, 0}, 8), 8);
	assert_rc(wr(r, fd, &(resp){17, 0}, 8), -EINVAL);
	/* The lowest that is free. */
	for (int i = 0; i < 2; i++)
		assert_rc(report(&m, i, true), 0);
	assert_rc(rd(r, fd, got, 80), 80);
	assert_int_equal(got[0].cookie, 17);
	assert_int_equal(got[1].cookie, MOST / 2 + 1);
	iommufd_device_detach(idev, 0);
	assert_int_equal(m.answers[0], MOST / 2 + 1);
	assert_int_equal(m.answers[IOMMU_PAGE_RESP_INVALID], MOST / 2 + 1);
	iommufd_device_unbind(idev);
	iommu_group_fini(&m.group);
	close_fd(r, fd);
	free(got);
}

#define RACE_FAULTS 3000

struct race {
	struct rig *r;
	struct model m;
	int fd;
	_Atomic bool stop;
};

static void *racing_reporter(void *arg)
{
	struct race *race = arg;

	for (int i = 0; i < RACE_FAULTS; i++)
		report(&race->m, i, true);
	race->stop = true;
	return NULL;
}

static void *racing_user(void *arg)
{
	struct race *race = arg;
	struct swiommu_caller caller;
	rec got[8];

	swiommu_caller_local(&caller);
	caller.files = race->r->files;
	while (!race->stop) {
		long n = swiommu_read(&caller, race->fd, (uintptr_t)got, sizeof(got));

		for (long i = 0; i < n / 40; i++) {
			resp answer = {got[i].cookie, 0};

			swiommu_write(&caller, race->fd, (uintptr_t)&answer, 8);
		}
	}
	return NULL;
}

/* Reports, two users and replaces at once: each group has exactly one answer. */
static void answered_once(void **state)
{
	struct rig *r = *state;
	struct iommufd_device *idev;
	uint32_t id, hwpts[2], fault;
	struct race race = {.r = r};
	pthread_t threads[3];

	idev = model_bind(r, &race.m, &id);
	assert_rc(fault_alloc(r, &fault, &race.fd), 0);
	for (int i = 0; i < 2; i++)
		hwpts[i] = hwpt_new(r, id, FAULT, fault);
	assert_rc(iommufd_device_attach(idev, 0, &hwpts[0]), 0);
	assert_rc(pthread_create(&threads[0], NULL, racing_reporter, &race), 0);
	for (int i = 1; i < 3; i++)
		assert_rc(pthread_create(&threads[i], NULL, racing_user, &race), 0);
	for (int i = 0; !race.stop; i++)
		assert_rc(iommufd_device_replace(idev, 0, &hwpts[i & 1]), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	iommufd_device_detach(idev, 0);
	assert_int_equal(race.m.answers[0] + race.m.answers[1] + race.m.answers[2], RACE_FAULTS);
	iommufd_device_unbind(idev);
	iommu_group_fini(&race.m.group);
	close_fd(r, race.fd);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(queue_of_its_own),
		T(failed_response),
		T(binding),
		T(round_trip),
		T(replaced_is_answered),
		T(nobody_takes_it),
		T(alive_without_context),
		T(groups),
		T(requests_are_bounded),
		T(a_huge_group),
		T(very_many_cookies),
		T(answered_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
