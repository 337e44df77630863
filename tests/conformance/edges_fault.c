// SPDX-License-Identifier: MIT
/* devices.md 9, rows 100 to 109: fault queues. */
#include <fcntl.h>
#include <poll.h>

#include "edges.h"
#include "fe_lib.h"

typedef struct iommu_hwpt_pgfault rec;
typedef struct iommu_hwpt_page_response resp;

#define RD(fd, buf, len) c->fe->read(c, fd, buf, len)
#define WR(fd, buf, len) c->fe->write(c, fd, buf, len)

/* O_LARGEFILE as the kernel has it: libc calls it 0 where files are always large. */
#define KERNEL_LARGEFILE 0100000

struct scene {
	struct edge e;
	uint32_t fault, hwpt;
	int fd;
};

/* A device whose page requests come to a queue, or a skip. */
static void scene_init(struct ctx *c, struct scene *s)
{
	long rc;

	edge_init(c, &s->e, 0);
	CHECK_RC(fault_queue(c, &s->fault, &s->fd), 0);
	CHECK_RC(hwpt_fault(&s->e.d, s->e.io, FAULT, s->fault, &s->hwpt), 0);
	rc = tdev_move(&s->e.d, s->hwpt);
	if (rc == -ENODEV)
		skip("iopf", "mock devices have no page requests");
	CHECK_RC(rc, 0);
}

static void trigger(struct scene *s, uint32_t group)
{
	struct test_cmd cmd = {
		.op = TEST_OP_TRIGGER_IOPF,
		.iopf = {.dev_id = s->e.d.idev, .grpid = group, .perm = 3, .addr = 0x5000},
	};

	CHECK_RC(test_abi_call(s->e.c, &cmd), 0);
}

static void queue_flags(struct ctx *c)
{
	struct iommu_fault_alloc cmd = {.size = sizeof(cmd), .flags = 1};

	CHECK_RC(call(c, IOMMU_FAULT_QUEUE_ALLOC, &cmd), -EOPNOTSUPP);
}

static int queue_new(struct ctx *c, uint32_t *id)
{
	int fd = -1;

	CHECK_RC(fault_queue(c, id, &fd), 0);
	return fd;
}

static void read_nothing(struct ctx *c)
{
	uint32_t id;
	int fd = queue_new(c, &id);
	rec got[2];

	CHECK_RC(RD(fd, got, 40), 0);
	CHECK_RC(RD(fd, got, 80), 0);
	CHECK_RC(RD(fd, got, 41), -ESPIPE);
	CHECK_RC(RD(fd, got, 0), 0);
}

static void read_no_room(struct ctx *c)
{
	struct scene s;
	rec got;

	scene_init(c, &s);
	trigger(&s, 1);
	CHECK_RC(RD(s.fd, &got, 0), -EINVAL);
	CHECK_RC(RD(s.fd, &got, 40), 40);
	CHECK_EQ(got.cookie, 1);
	CHECK_EQ(got.dev_id, s.e.d.idev);
	CHECK_EQ(got.addr, 0x5000);
}

static void write_lengths(struct ctx *c)
{
	uint32_t id;
	int fd = queue_new(c, &id);
	resp r = {0};

	CHECK_RC(WR(fd, &r, 7), -ESPIPE);
	CHECK_RC(WR(fd, &r, 0), 0);
}

static void write_nonsense(struct ctx *c)
{
	uint32_t id;
	int fd = queue_new(c, &id);
	resp r = {.cookie = 1, .code = 2};

	CHECK_RC(WR(fd, &r, 8), -EINVAL);
	r.code = IOMMUFD_PAGE_RESP_SUCCESS;
	CHECK_RC(WR(fd, &r, 8), -EINVAL);
	CHECK_RC(WR(fd, (void *)bad_address(), 8), -EFAULT);
}

static void write_half(struct ctx *c)
{
	resp r[2] = {{1, IOMMUFD_PAGE_RESP_SUCCESS}, {9, IOMMUFD_PAGE_RESP_SUCCESS}};
	struct scene s;
	rec got;

	scene_init(c, &s);
	trigger(&s, 1);
	CHECK_RC(RD(s.fd, &got, 40), 40);
	CHECK_RC(WR(s.fd, r, 16), 8);
	CHECK_RC(WR(s.fd, r, 8), -EINVAL);
}

static void queue_in_use(struct ctx *c)
{
	uint32_t id, hwpt = 0;
	int fd = queue_new(c, &id), copy;
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(destroy(c, id), -EBUSY);
	copy = dup(fd);
	close(fd);
	CHECK_RC(destroy(c, id), -EBUSY);
	CHECK_RC(hwpt_fault(&e.d, e.io, FAULT, id, &hwpt), 0);
	close(copy);
	CHECK_RC(destroy(c, id), -EBUSY);
	CHECK_RC(destroy(c, hwpt), 0);
	CHECK_RC(destroy(c, id), 0);
}

static void poll_empty(struct ctx *c)
{
	struct pollfd p = {.events = POLLIN | POLLOUT | POLLRDNORM};
	uint32_t id;

	p.fd = queue_new(c, &id);
	CHECK_EQ(poll(&p, 1, 0), 1);
	CHECK_EQ(p.revents, POLLOUT);
}

/* 4.1: what the descriptor of a queue is; needs no device. */
static void queue_descriptor(struct ctx *c)
{
	char buf[80];
	uint32_t id;
	int fd = queue_new(c, &id);

	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(fd, F_GETFL), O_RDWR | (suite.fe == &fe_lib ? KERNEL_LARGEFILE : 0));
	CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	CHECK_EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR | O_NONBLOCK);
	CHECK_RC(lseek(fd, 0, SEEK_CUR) < 0 ? -errno : 0, -ESPIPE);
	CHECK_RC(pread(fd, buf, 40, 0) < 0 ? -errno : 0, -ESPIPE);
	CHECK_RC(RD(fd, buf, 40), 0);
}

/* Copies read and write as the first one does, and are files of their own number. */
static void queue_copies(struct ctx *c)
{
	int copies[4];
	resp r = {0};
	char buf[80];
	uint32_t id;
	int fd = queue_new(c, &id);

	copies[0] = dup(fd);
	copies[1] = fcntl(fd, F_DUPFD, 3);
	copies[2] = fcntl(copies[0], F_DUPFD_CLOEXEC, fd);
	copies[3] = dup3(fd, fd + 20, O_CLOEXEC);
	CHECK_EQ(fcntl(copies[0], F_GETFD), 0);
	CHECK_EQ(fcntl(copies[1], F_GETFD), 0);
	CHECK_EQ(fcntl(copies[2], F_GETFD), FD_CLOEXEC);
	CHECK(copies[2] > fd);
	for (int i = 0; i < 4; i++) {
		CHECK(copies[i] >= 0 && copies[i] != fd);
		for (int k = 0; k < i; k++)
			CHECK(copies[k] != copies[i]);
		CHECK_RC(RD(copies[i], buf, 40), 0);
		CHECK_RC(RD(copies[i], buf, 41), -ESPIPE);
		CHECK_RC(WR(copies[i], &r, 7), -ESPIPE);
		CHECK_RC(WR(copies[i], &r, 8), -EINVAL);
	}
	close(fd);
	for (int i = 0; i < 3; i++)
		close(copies[i]);
	CHECK_RC(destroy(c, id), -EBUSY);
	close(copies[3]);
	CHECK_RC(destroy(c, id), 0);
	CHECK_RC(fcntl(copies[3], F_GETFD) < 0 ? -errno : 0, -EBADF);
}

/* ---- groups of several requests, which only a driver of our own can report ------------------------------ */

struct rig {
	struct iommu_group group;
	struct device dev;
	struct iommufd_device *idev;
	struct edge e; /* c, io, d.idev and d.c only */
	uint32_t fault, hwpt;
	int fd;
};

static int answered[3]; /* by code */

static void count_answer(struct device *dev, const struct iopf_fault *evt,
			 const struct iommu_page_response *answer)
{
	(void)dev;
	(void)evt;
	answered[answer->code]++;
}

static int take_device(struct iommu_domain *domain, struct device *dev, struct iommu_domain *old)
{
	int rc = 0;

	if (domain->takes_iopf && (!old || !old->takes_iopf))
		rc = iopf_queue_add_device(dev);
	else if (!domain->takes_iopf && old && old->takes_iopf)
		iopf_queue_remove_device(dev);
	return rc;
}

static const struct iommu_domain_ops domain_ops = {.attach_dev = take_device};
static struct iommu_domain nowhere = {.type = IOMMU_DOMAIN_BLOCKED, .ops = &domain_ops};

static const struct iommu_driver driver = {
	.name = "with page requests",
	.pgsize_bitmap = PAGE,
	.aperture_last = UINT64_MAX,
	.domain_ops = &domain_ops,
	.blocked_domain = &nowhere,
	.page_response = count_answer,
};

static void rig_init(struct ctx *c, struct rig *r)
{
	uint32_t pt;

	if (suite.fe != &fe_lib)
		skip("kapi", "only a driver of one's own reports that");
	memset(r, 0, sizeof(*r));
	if (iommu_group_init(&r->group, 0))
		give_up("no memory for a group");
	r->dev = (struct device){.name = "rig", .group = &r->group, .iommu = &driver};
	r->e.c = r->e.d.c = c;
	r->e.io = ioas_new(c);
	r->idev = iommufd_device_bind(fe_lib_ictx(c), &r->dev, &r->e.d.idev);
	if (IS_ERR(r->idev))
		give_up("bind: %s", strerror(-PTR_ERR(r->idev)));
	r->fd = queue_new(c, &r->fault);
	CHECK_RC(hwpt_fault(&r->e.d, r->e.io, FAULT, r->fault, &r->hwpt), 0);
	pt = r->hwpt;
	CHECK_RC(iommufd_device_attach(r->idev, 0, &pt), 0);
}

static void rig_fini(struct rig *r)
{
	iommufd_device_detach(r->idev, 0);
	iommufd_device_unbind(r->idev);
	iommu_group_fini(&r->group);
}

static void request(struct rig *r, uint32_t group, bool last)
{
	struct iopf_fault evt = {
		.prm = {.flags = last ? IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE : 0, .grpid = group}};

	CHECK_RC(iommu_report_device_fault(&r->dev, &evt), 0);
}

static void read_large_group(struct ctx *c)
{
	struct rig r;
	rec got[3];

	rig_init(c, &r);
	request(&r, 1, false);
	request(&r, 1, false);
	request(&r, 1, true);
	CHECK_RC(RD(r.fd, got, sizeof(rec)), -EINVAL);
	CHECK_RC(RD(r.fd, got, 2 * sizeof(rec)), -EINVAL);
	CHECK_RC(RD(r.fd, got, 3 * sizeof(rec)), 3 * sizeof(rec));
	CHECK_EQ(got[0].cookie, 1);
	CHECK_EQ(got[2].cookie, 1);
	CHECK_EQ(got[2].flags, IOMMU_PGFAULT_FLAGS_LAST_PAGE);
	rig_fini(&r);
}

static void detach_answers(struct ctx *c)
{
	resp answer = {.cookie = 1};
	struct rig r;
	rec got;

	rig_init(c, &r);
	request(&r, 1, true);
	request(&r, 2, true);
	CHECK_RC(RD(r.fd, &got, 40), 40);
	iommufd_device_detach(r.idev, 0);
	CHECK_EQ(answered[IOMMU_PAGE_RESP_INVALID], 2);
	CHECK_RC(WR(r.fd, &answer, 8), -EINVAL);
	CHECK_RC(RD(r.fd, &got, 40), 0);
	CHECK_EQ(answered[IOMMU_PAGE_RESP_SUCCESS], 0);
	rig_fini(&r);
}

/* [Q] of 4.3: the member that was attached first is unbound; faults of the others name whom they come from. */
static void first_member_goes(struct ctx *c)
{
	struct device second = {.name = "second", .iommu = &driver};
	struct iopf_fault evt = {.prm = {.flags = IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE, .grpid = 4}};
	struct iommufd_device *idev;
	uint32_t id, pt;
	struct rig r;
	rec got;

	rig_init(c, &r);
	second.group = &r.group;
	idev = iommufd_device_bind(fe_lib_ictx(c), &second, &id);
	if (IS_ERR(idev))
		give_up("bind: %s", strerror(-PTR_ERR(idev)));
	pt = r.hwpt;
	CHECK_RC(iommufd_device_attach(idev, 0, &pt), 0);
	request(&r, 3, true);
	iommufd_device_detach(r.idev, 0);
	CHECK_EQ(answered[IOMMU_PAGE_RESP_INVALID], 1);
	iommufd_device_unbind(r.idev);
	CHECK_RC(destroy(c, r.e.d.idev), -ENOENT);
	memset(&r.dev, 0x5a, sizeof(r.dev));
	CHECK_RC(iommu_report_device_fault(&second, &evt), 0);
	CHECK_RC(RD(r.fd, &got, sizeof(got)), sizeof(got));
	CHECK_EQ(got.dev_id, id);
	CHECK_EQ(got.grpid, 4);
	iommufd_device_detach(idev, 0);
	CHECK_EQ(answered[IOMMU_PAGE_RESP_INVALID], 2);
	iommufd_device_unbind(idev);
	iommu_group_fini(&r.group);
}

/* Row 109 as far as a client sees it. */
static void detach_forgets(struct ctx *c)
{
	resp answer = {.cookie = 1};
	struct scene s;
	rec got;

	scene_init(c, &s);
	trigger(&s, 1);
	trigger(&s, 2);
	CHECK_RC(RD(s.fd, &got, 40), 40);
	CHECK_RC(pasid_detach(&s.e.d, 0), 0);
	CHECK_RC(WR(s.fd, &answer, 8), -EINVAL);
	CHECK_RC(RD(s.fd, &got, 40), 0);
}

static const struct row rows[] = {
	{"d9.100", "FAULT_QUEUE_ALLOC: flags", queue_flags, NULL},
	{"d9.101", "a fault queue without faults", read_nothing, NULL},
	{"d9.102", "no room for a fault", read_no_room, NULL},
	{"d9.103", "answers of odd length", write_lengths, NULL},
	{"d9.104", "answers to nothing", write_nonsense, NULL},
	{"d9.105", "the second answer is bad", write_half, NULL},
	{"d9.106", "what keeps a fault queue", queue_in_use, NULL},
	{"d9.107", "poll of a fault queue", poll_empty, NULL},
	{"d4.1", "the descriptor of a fault queue", queue_descriptor, NULL},
	{"d4.1-dup", "copies of the descriptor of a fault queue", queue_copies, NULL},
	{"d9.108", "groups are read as a whole", read_large_group, NULL},
	{"d9.109", "detaching answers", detach_answers, NULL},
	{"d4.3-Q", "the member that was attached first goes", first_member_goes, NULL},
	{"d9.109-fd", "detaching empties the queue", detach_forgets, NULL},
};
ROWS(edges_fault, rows);
