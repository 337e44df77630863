// SPDX-License-Identifier: MIT
/* devices.md 9, rows 110 to 145: vIOMMUs, vDEVICEs, event queues, HW queues, regions. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "edges.h"
#include "fe_lib.h"

/* A device, a nesting parent, and a vIOMMU on it. */
struct scene {
	struct edge e;
	uint32_t parent, viommu;
	struct test_viommu_data data;
};

static long viommu_data(struct edge *e, uint32_t hwpt, uint32_t type, void *data, uint32_t len,
			uint32_t *id)
{
	struct iommu_viommu_alloc cmd = {
		.size = sizeof(cmd),
		.type = type,
		.dev_id = e->d.idev,
		.hwpt_id = hwpt,
		.data_len = len,
		.data_uptr = (uintptr_t)data,
	};
	long rc = call(e->c, IOMMU_VIOMMU_ALLOC, &cmd);

	if (!rc && id)
		*id = cmd.out_viommu_id;
	return rc;
}

static void scene_init(struct ctx *c, struct scene *s)
{
	edge_init(c, &s->e, 0);
	s->data = (struct test_viommu_data){0};
	s->parent = hwpt_new(&s->e.d, s->e.io, NEST);
	if (viommu_data(&s->e, s->parent, TEST_TYPE_VIOMMU, &s->data, sizeof(s->data), &s->viommu))
		give_up("VIOMMU_ALLOC");
}

static uint32_t other_viommu(struct scene *s)
{
	uint32_t id = 0;

	CHECK_RC(viommu_data(&s->e, s->parent, TEST_TYPE_VIOMMU, NULL, 0, &id), 0);
	return id;
}

/* ---- VIOMMU_ALLOC (110 to 115) ---------------------------------------------------------------------- */

static void viommu_type(struct ctx *c)
{
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(viommu_data(&e, NOBODY, 0xdead, NULL, 0, NULL), -EOPNOTSUPP);
	CHECK_RC(viommu_data(&e, NOBODY, 0, NULL, 0, NULL), -EOPNOTSUPP);
	CHECK_RC(viommu_data(&e, NOBODY, TEST_TYPE_VIOMMU, NULL, 0, NULL), -ENOENT);
}

static void viommu_parent(struct ctx *c)
{
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(viommu_data(&e, e.io, TEST_TYPE_VIOMMU, NULL, 0, NULL), -ENOENT);
	CHECK_RC(viommu_data(&e, e.d.hwpt, TEST_TYPE_VIOMMU, NULL, 0, NULL), -EINVAL);
}

static void viommu_reserved(struct ctx *c)
{
	struct iommu_viommu_alloc cmd = {
		.size = sizeof(cmd), .type = TEST_TYPE_VIOMMU, .__reserved = 3};
	struct edge e;

	edge_init(c, &e, 0);
	cmd.dev_id = e.d.idev;
	cmd.hwpt_id = hwpt_new(&e.d, e.io, NEST);
	CHECK_RC(call(c, IOMMU_VIOMMU_ALLOC, &cmd), 0);
}

static void viommu_lengths(struct ctx *c)
{
	struct test_viommu_data data[2] = {{0}};
	uint32_t parent, before;
	struct edge e;

	edge_init(c, &e, 0);
	parent = hwpt_new(&e.d, e.io, NEST);
	before = next_id(c);
	CHECK_RC(viommu_data(&e, parent, TEST_TYPE_VIOMMU, NULL, 24, NULL), -EFAULT);
	CHECK_RC(viommu_data(&e, parent, TEST_TYPE_VIOMMU, data, 4, NULL), -EINVAL);
	CHECK_RC(viommu_data(&e, parent, TEST_TYPE_VIOMMU, data, 25, NULL), -EINVAL);
	CHECK_EQ(next_id(c), before);
	CHECK_RC(viommu_data(&e, parent, TEST_TYPE_VIOMMU, data, 8, NULL), 0);
	CHECK_EQ(data[0].out_mmap_length, 0);
}

static void nested_on_viommu(struct ctx *c)
{
	struct test_hwpt_data data = {0};
	struct scene s;

	scene_init(c, &s);
	CHECK_RC(hwpt_try(&s.e.d, s.viommu, 0, NULL), -EOPNOTSUPP);
	CHECK_RC(hwpt_data(&s.e.d, s.viommu, DIRTY, TEST_TYPE_DATA, &data, sizeof(data), NULL),
		 -EOPNOTSUPP);
	CHECK_RC(hwpt_data(&s.e.d, s.viommu, 0, TEST_TYPE_DATA, &data, sizeof(data), NULL), 0);
}

static void attach_without_vdevice(struct ctx *c)
{
	struct scene s;
	uint32_t nested;

	scene_init(c, &s);
	nested = nested_new(&s.e.d, s.viommu, 0);
	CHECK_RC(tdev_move(&s.e.d, nested), -ENOENT);
	CHECK_RC(pasid_check(&s.e.d, 0, s.e.d.hwpt), 0);
}

/* ---- VDEVICE_ALLOC (116 to 120) --------------------------------------------------------------------- */

static long vdevice(struct scene *s, uint32_t viommu, uint32_t dev, uint64_t virt_id, uint32_t *id)
{
	struct iommu_vdevice_alloc cmd = {
		.size = sizeof(cmd), .viommu_id = viommu, .dev_id = dev, .virt_id = virt_id};
	long rc = call(s->e.c, IOMMU_VDEVICE_ALLOC, &cmd);

	if (!rc && id)
		*id = cmd.out_vdevice_id;
	return rc;
}

static void one_per_device(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s);
	CHECK_RC(vdevice(&s, s.viommu, s.e.d.idev, 5, NULL), 0);
	CHECK_RC(vdevice(&s, s.viommu, s.e.d.idev, 6, NULL), -EEXIST);
	CHECK_RC(vdevice(&s, other_viommu(&s), s.e.d.idev, 6, NULL), -EEXIST);
}

static void one_per_number(struct ctx *c)
{
	struct tdev d2, d3;
	struct scene s;

	scene_init(c, &s);
	tdev_add(c, s.e.io, 0, &d2);
	tdev_add(c, s.e.io, 0, &d3);
	CHECK_RC(vdevice(&s, s.viommu, s.e.d.idev, 5, NULL), 0);
	CHECK_RC(vdevice(&s, s.viommu, d2.idev, 5, NULL), -EEXIST);
	CHECK_RC(vdevice(&s, other_viommu(&s), d2.idev, 5, NULL), 0);
	CHECK_RC(vdevice(&s, s.viommu, d3.idev, MAX, NULL), 0);
}

static void vdevice_into_read_only(struct ctx *c)
{
	struct iommu_vdevice_alloc *cmd = (void *)page_end(sizeof(*cmd));
	struct scene s;

	scene_init(c, &s);
	*cmd = (struct iommu_vdevice_alloc){
		.size = sizeof(*cmd), .viommu_id = s.viommu, .dev_id = s.e.d.idev, .virt_id = 5};
	make_read_only(cmd);
	CHECK_RC(call(c, IOMMU_VDEVICE_ALLOC, cmd), -EFAULT);
	CHECK_RC(vdevice(&s, s.viommu, s.e.d.idev, 5, NULL), 0);
}

static void vdevice_in_use(struct ctx *c)
{
	uint32_t id = 0, nested;
	struct scene s;

	scene_init(c, &s);
	CHECK_RC(vdevice(&s, s.viommu, s.e.d.idev, 5, &id), 0);
	nested = nested_new(&s.e.d, s.viommu, 0);
	CHECK_RC(tdev_move(&s.e.d, nested), 0);
	CHECK_RC(destroy(c, id), 0);
	CHECK_RC(pasid_check(&s.e.d, 0, nested), 0);
	CHECK_RC(vdevice(&s, s.viommu, s.e.d.idev, 6, NULL), 0);
}

static void vdevice_of_unbound(struct ctx *c)
{
	uint32_t id = 0, again = 0;
	struct tdev d2, d3;
	struct scene s;

	scene_init(c, &s);
	tdev_add(c, s.e.io, 0, &d2);
	CHECK_RC(vdevice(&s, s.viommu, d2.idev, 5, &id), 0);
	CHECK_RC(tdev_free(&d2), 0);
	CHECK_RC(destroy(c, id), -ENOENT);
	for (int i = 0; i < 10; i++)
		CHECK(ioas_new(c) != id);
	tdev_add(c, s.e.io, 0, &d3);
	CHECK_RC(vdevice(&s, s.viommu, d3.idev, 5, &again), 0);
	CHECK(again != id);
}

/* ---- event queues (121 to 132) ------------------------------------------------------------------------ */

static long veventq(struct scene *s, uint32_t viommu, uint32_t type, uint32_t depth, int *fd)
{
	struct iommu_veventq_alloc cmd = {
		.size = sizeof(cmd), .viommu_id = viommu, .type = type, .veventq_depth = depth};
	long rc = call(s->e.c, IOMMU_VEVENTQ_ALLOC, &cmd);

	if (!rc && fd)
		*fd = cmd.out_veventq_fd;
	return rc;
}

static void queue_depth(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s);
	CHECK_RC(veventq(&s, NOBODY, TEST_TYPE_VEVENTQ, 0, NULL), -EINVAL);
	CHECK_RC(veventq(&s, NOBODY, TEST_TYPE_VEVENTQ, (1u << 19) + 1, NULL), -EINVAL);
	CHECK_RC(veventq(&s, NOBODY, TEST_TYPE_VEVENTQ, 1u << 19, NULL), -ENOENT);
}

static void queue_of_any_type(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s);
	CHECK_RC(veventq(&s, s.viommu, 0x1234, 1, NULL), 0);
}

static void queue_per_type(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s);
	CHECK_RC(veventq(&s, s.viommu, TEST_TYPE_VEVENTQ, 1, NULL), 0);
	CHECK_RC(veventq(&s, s.viommu, TEST_TYPE_VEVENTQ, 1, NULL), -EEXIST);
	CHECK_RC(veventq(&s, other_viommu(&s), TEST_TYPE_VEVENTQ, 1, NULL), 0);
}

struct event {
	struct iommufd_vevent_header header;
	uint32_t virt_id;
};

/* A device known as 5 in the vIOMMU, whose events come to a queue of this depth. */
static int events_init(struct ctx *c, struct scene *s, uint32_t depth)
{
	int fd = -1;

	scene_init(c, s);
	CHECK_RC(vdevice(s, s->viommu, s->e.d.idev, 5, NULL), 0);
	CHECK_RC(tdev_move(&s->e.d, nested_new(&s->e.d, s->viommu, 0)), 0);
	CHECK_RC(veventq(s, s->viommu, TEST_TYPE_VEVENTQ, depth, &fd), 0);
	return fd;
}

static void trigger(struct scene *s, int times)
{
	struct test_cmd cmd = {.op = TEST_OP_TRIGGER_VEVENT, .vevent.dev_id = s->e.d.idev};

	for (int i = 0; i < times; i++)
		CHECK_RC(test_abi_call(s->e.c, &cmd), 0);
}

#define RD(fd, buf, len) c->fe->read(c, fd, buf, len)

static void check_event(struct ctx *c, int fd, uint32_t sequence)
{
	struct event ev = {0};

	CHECK_RC(RD(fd, &ev, sizeof(ev)), sizeof(ev));
	CHECK_EQ(ev.header.flags, 0);
	CHECK_EQ(ev.header.sequence, sequence);
	CHECK_EQ(ev.virt_id, 5);
}

static void check_marker(struct ctx *c, int fd, uint32_t sequence)
{
	struct iommufd_vevent_header head = {0};

	CHECK_RC(RD(fd, &head, sizeof(head)), sizeof(head));
	CHECK_EQ(head.flags, IOMMU_VEVENTQ_FLAG_LOST_EVENTS);
	CHECK_EQ(head.sequence, sequence);
}

static void read_no_events(struct ctx *c)
{
	struct scene s;
	int fd = events_init(c, &s, 2);
	char buf[8];

	CHECK_RC(RD(fd, buf, 7), -EINVAL);
	CHECK_RC(RD(fd, buf, 8), 0);
}

static void read_too_short(struct ctx *c)
{
	struct scene s;
	int fd = events_init(c, &s, 2);
	char buf[12];

	trigger(&s, 1);
	CHECK_RC(RD(fd, buf, 8), -EINVAL);
	CHECK_RC(RD(fd, buf, 11), -EINVAL);
	check_event(c, fd, 0);
}

static void overflow(struct ctx *c)
{
	struct scene s;
	int fd = events_init(c, &s, 2);
	char buf[8];

	trigger(&s, 5);
	check_event(c, fd, 0);
	check_event(c, fd, 1);
	check_marker(c, fd, 4);
	CHECK_RC(RD(fd, buf, 8), 0);
	trigger(&s, 1);
	check_event(c, fd, 5);
}

static void marker_goes(struct ctx *c)
{
	struct scene s;
	int fd = events_init(c, &s, 2);
	char buf[8];

	trigger(&s, 5);
	check_event(c, fd, 0);
	check_event(c, fd, 1);
	trigger(&s, 1);
	check_event(c, fd, 5);
	CHECK_RC(RD(fd, buf, 8), 0);
}

static void marker_does_not_fit(struct ctx *c)
{
	struct scene s;
	int fd = events_init(c, &s, 2);
	struct event ev[2];

	trigger(&s, 3);
	CHECK_RC(RD(fd, ev, 24), 24);
	CHECK_EQ(ev[1].header.sequence, 1);
	check_marker(c, fd, 2);
}

static void read_to_nowhere(struct ctx *c)
{
	struct scene s;
	int fd = events_init(c, &s, 1);
	void *nowhere = (void *)bad_address();

	trigger(&s, 2);
	CHECK_RC(RD(fd, nowhere, 12), -EFAULT);
	check_event(c, fd, 0);
	CHECK_RC(RD(fd, nowhere, 8), -EFAULT);
	check_marker(c, fd, 1);
}

static void write_events(struct ctx *c)
{
	struct scene s;
	int fd = events_init(c, &s, 1);

	CHECK_RC(c->fe->write(c, fd, "12345678", 8), -EINVAL);
}

/* 5.5: open for both directions, but never to be polled for output. */
static void events_descriptor(struct ctx *c)
{
	struct pollfd p = {.events = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM};
	struct scene s;

	p.fd = events_init(c, &s, 1);
	CHECK_EQ(fcntl(p.fd, F_GETFD), FD_CLOEXEC);
	if (suite.fe != &fe_lib)
		CHECK_EQ(fcntl(p.fd, F_GETFL), O_RDWR);
	CHECK_EQ(poll(&p, 1, 0), 0);
	trigger(&s, 1);
	CHECK_EQ(poll(&p, 1, 0), 1);
	CHECK_EQ(p.revents, POLLIN | POLLRDNORM);
	check_event(c, p.fd, 0);
	CHECK_EQ(poll(&p, 1, 0), 0);
}

/* What the driver hears is what the test ABI answers. */
static void report_to_full(struct ctx *c)
{
	struct scene s;
	int fd = events_init(c, &s, 1);

	trigger(&s, 4);
	check_event(c, fd, 0);
	check_marker(c, fd, 3);
}

static void context_is_closed(struct ctx *c)
{
	struct ctx *other = ctx_open();
	struct scene s;
	int fd = events_init(other, &s, 2);

	trigger(&s, 1);
	ctx_close(other);
	check_event(c, fd, 0);
	close(fd);
}

/* ---- HW queues (133 to 141) --------------------------------------------------------------------------- */

static long hw_queue(struct scene *s, uint32_t viommu, uint32_t index, uint64_t iova,
		     uint64_t length, uint32_t *id)
{
	struct iommu_hw_queue_alloc cmd = {
		.size = sizeof(cmd),
		.viommu_id = viommu,
		.type = TEST_TYPE_VIOMMU,
		.index = index,
		.nesting_parent_iova = iova,
		.length = length,
	};
	long rc = call(s->e.c, IOMMU_HW_QUEUE_ALLOC, &cmd);

	if (!rc && id)
		*id = cmd.out_hw_queue_id;
	return rc;
}

static void hw_queue_empty(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s);
	CHECK_RC(hw_queue(&s, NOBODY, 0, B, 0, NULL), -EINVAL);
	CHECK_RC(hw_queue(&s, NOBODY, 0, B, 1, NULL), -ENOENT);
}

static void hw_queue_endless(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s);
	CHECK_RC(hw_queue(&s, s.viommu, 0, MAX, PAGE, NULL), -EOVERFLOW);
	CHECK_RC(hw_queue(&s, s.viommu, 0, 0, MAX, NULL), -ERANGE);
	CHECK_RC(hw_queue(&s, s.viommu, 0, 0, 1ull << 40, NULL), -ENOMEM);
}

static void hw_queue_unmapped(struct ctx *c)
{
	struct scene s;
	uint32_t before;

	scene_init(c, &s);
	before = next_id(c);
	CHECK_RC(hw_queue(&s, s.viommu, 0, B, PAGE, NULL), -ENOENT);
	CHECK_RC(map_at(c, s.e.io, B, (uintptr_t)memory(1), PAGE), 0);
	CHECK_RC(hw_queue(&s, s.viommu, 0, B, PAGE + 1, NULL), -ENOENT);
	CHECK_EQ(next_id(c), before);
	unmap_expect(c, s.e.io, B, PAGE, PAGE);
}

static void hw_queue_rights(struct ctx *c)
{
	uint64_t ro = B, wo = B + PAGE;
	struct scene s;

	scene_init(c, &s);
	CHECK_RC(map(c, s.e.io, FIXED | R, (uintptr_t)memory(1), PAGE, &ro), 0);
	CHECK_RC(map(c, s.e.io, FIXED | W, (uintptr_t)memory(1), PAGE, &wo), 0);
	CHECK_RC(hw_queue(&s, s.viommu, 0, wo, PAGE, NULL), -EPERM);
	CHECK_RC(hw_queue(&s, s.viommu, 0, ro, PAGE, NULL), 0);
}

static void hw_queue_too_fine(struct ctx *c)
{
	struct scene s;
	char *v = memory(2);

	scene_init(c, &s);
	CHECK_RC(map_at(c, s.e.io, B, (uintptr_t)v, PAGE), 0);
	CHECK_RC(map_at(c, s.e.io, B + 16 * PAGE, (uintptr_t)v + PAGE, MOCK_PAGE), 0);
	CHECK_RC(hw_queue(&s, s.viommu, 0, B, PAGE, NULL), -EADDRINUSE);
	CHECK_EQ(ioas_align(c, s.e.io), MOCK_PAGE);
}

/* The pages in reverse order: whatever follows what in memory, this does not. */
static void hw_queue_scattered(struct ctx *c)
{
	struct scene s;
	char *v = memory(16);
	uint32_t before;

	scene_init(c, &s);
	for (int i = 0; i < 16; i++)
		CHECK_RC(map_at(c, s.e.io, B + i * PAGE, (uintptr_t)v + (15 - i) * PAGE, PAGE), 0);
	before = next_id(c);
	CHECK_RC(hw_queue(&s, s.viommu, 0, B, 16 * PAGE, NULL), -EFAULT);
	CHECK_EQ(next_id(c), before);
	unmap_expect(c, s.e.io, B, 16 * PAGE, 16 * PAGE);
}

static void hw_queue_pins(struct ctx *c)
{
	struct scene s;
	uint32_t id = 0;

	scene_init(c, &s);
	CHECK_RC(map_at(c, s.e.io, B, (uintptr_t)memory(3), 3 * PAGE), 0);
	CHECK_RC(hw_queue(&s, s.viommu, 0, B + PAGE + 36, 100, &id), 0);
	CHECK_RC(unmap(c, s.e.io, B, 3 * PAGE, NULL), -EBUSY);
	CHECK_RC(unmap(c, s.e.io, B, PAGE, NULL), -EBUSY);
	CHECK_RC(unmap(c, s.e.io, 0, MAX, NULL), -EBUSY);
	CHECK_RC(destroy(c, id), 0);
	unmap_expect(c, s.e.io, B, 3 * PAGE, 3 * PAGE);
}

static void hw_queue_depends(struct ctx *c)
{
	uint32_t first = 0, second = 0;
	struct scene s;

	scene_init(c, &s);
	CHECK_RC(map_at(c, s.e.io, B, (uintptr_t)memory(1), PAGE), 0);
	CHECK_RC(hw_queue(&s, s.viommu, 1, B, PAGE, NULL), -EIO);
	CHECK_RC(hw_queue(&s, s.viommu, 2, B, PAGE, NULL), -EINVAL);
	CHECK_RC(hw_queue(&s, s.viommu, 0, B, PAGE, &first), 0);
	CHECK_RC(hw_queue(&s, s.viommu, 0, B, PAGE, NULL), -EEXIST);
	CHECK_RC(hw_queue(&s, s.viommu, 1, B, PAGE, &second), 0);
	CHECK_RC(destroy(c, first), -EBUSY);
	CHECK_RC(destroy(c, second), 0);
	CHECK_RC(destroy(c, first), 0);
}

static void hw_queue_access(struct ctx *c)
{
	struct scene s;
	uint32_t id = 0;

	scene_init(c, &s);
	CHECK_RC(map_at(c, s.e.io, B, (uintptr_t)memory(1), PAGE), 0);
	CHECK_RC(hw_queue(&s, s.viommu, 0, B, PAGE, &id), 0);
	CHECK_RC(destroy(c, id + 1), -EBUSY);
	CHECK_RC(destroy(c, id), 0);
	CHECK_RC(destroy(c, id + 1), -ENOENT);
}

/* ---- regions (142 to 145) ------------------------------------------------------------------------------ */

static long try_mmap(struct ctx *c, size_t len, int prot, int flags, uint64_t offset)
{
	char *p;
	long rc = c->fe->mmap(c, len, prot, flags, offset, &p);

	if (!rc)
		munmap(p, len);
	return rc;
}

#define RW_PROT (PROT_READ | PROT_WRITE)

static void mmap_elsewhere(struct ctx *c)
{
	struct scene s;
	uint64_t at;

	scene_init(c, &s);
	at = s.data.out_mmap_offset;
	CHECK_EQ(s.data.out_mmap_length, 2 * PAGE);
	CHECK_RC(try_mmap(c, 2 * PAGE, RW_PROT, MAP_SHARED, 0), -ENXIO);
	CHECK_RC(try_mmap(c, 2 * PAGE, RW_PROT, MAP_SHARED, at + PAGE), -ENXIO);
	CHECK_RC(try_mmap(c, PAGE, RW_PROT, MAP_SHARED, at), -ENXIO);
	CHECK_RC(try_mmap(c, 4 * PAGE, RW_PROT, MAP_SHARED, at), -ENXIO);
	CHECK_RC(try_mmap(c, 2 * PAGE, RW_PROT, MAP_SHARED, at), 0);
}

static void mmap_rights(struct ctx *c)
{
	struct scene s;
	uint64_t at;

	scene_init(c, &s);
	at = s.data.out_mmap_offset;
	CHECK_RC(try_mmap(c, 2 * PAGE, RW_PROT, MAP_PRIVATE, at), -EINVAL);
	CHECK_RC(try_mmap(c, 2 * PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, at), -EPERM);
	CHECK_RC(try_mmap(c, 2 * PAGE, PROT_READ, MAP_SHARED, at), 0);
	CHECK_RC(try_mmap(c, 2 * PAGE, PROT_NONE, MAP_SHARED, at), 0);
}

static void mapped_by_child(struct ctx *c)
{
	struct scene s;
	char *p = NULL;
	pid_t child;

	need_fd(c);
	scene_init(c, &s);
	if (c->fe->mmap(c, 2 * PAGE, RW_PROT, MAP_SHARED, s.data.out_mmap_offset, &p))
		give_up("mmap of the region");
	munmap(p, PAGE);
	CHECK_RC(destroy(c, s.viommu), -EBUSY);
	child = fork();
	if (!child) {
		pause();
		_exit(1);
	}
	munmap(p + PAGE, PAGE);
	CHECK_RC(destroy(c, s.viommu), -EBUSY);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	CHECK_RC(destroy(c, s.viommu), 0);
}

/* The mapping keeps the context, and with it what that has pinned; the last one to go takes it along. */
static void region_keeps_context(struct ctx *c)
{
	struct ctx *other = ctx_open();
	char *p = NULL, *v = memory(1);
	struct scene s;

	need_fd(c);
	scene_init(other, &s);
	CHECK_RC(map_at(other, s.e.io, B, (uintptr_t)v, PAGE), 0);
	if (other->fe->mmap(other, 2 * PAGE, RW_PROT, MAP_SHARED, s.data.out_mmap_offset, &p))
		give_up("mmap of the region");
	ctx_close(other);
	p[0] = 77;
	CHECK_EQ(p[0], 77);
	CHECK_RC(check_refs(c, v, PAGE, 1), 0);
	munmap(p + PAGE, PAGE);
	CHECK_RC(check_refs(c, v, PAGE, 1), 0);
	munmap(p, PAGE);
	CHECK_RC(check_refs(c, v, PAGE, 0), 0);
}

/* Protection can change, and a mapping can move or be unmapped in parts; it counts until nothing is left. */
static void region_moves(struct ctx *c)
{
	struct scene s;
	char *p = NULL, *q;

	scene_init(c, &s);
	if (c->fe->mmap(c, 2 * PAGE, RW_PROT, MAP_SHARED, s.data.out_mmap_offset, &p))
		give_up("mmap of the region");
	p[PAGE] = 3;
	CHECK_EQ(mprotect(p, PAGE, PROT_NONE), 0);
	q = mremap(p + PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, memory(1));
	CHECK(q != MAP_FAILED);
	CHECK_EQ(*q, 3);
	CHECK_RC(destroy(c, s.viommu), -EBUSY);
	munmap(p, PAGE);
	CHECK_RC(destroy(c, s.viommu), -EBUSY);
	munmap(q, PAGE);
	CHECK_RC(destroy(c, s.viommu), 0);
}

static void two_regions(struct ctx *c)
{
	struct test_viommu_data data = {0};
	struct scene s;

	scene_init(c, &s);
	CHECK_RC(viommu_data(&s.e, s.parent, TEST_TYPE_VIOMMU, &data, sizeof(data), NULL), 0);
	CHECK_EQ(s.data.out_mmap_offset, 0x1000);
	CHECK_EQ(data.out_mmap_offset, 0x3000);
	CHECK_RC(destroy(c, s.viommu), 0);
	CHECK_RC(viommu_data(&s.e, s.parent, TEST_TYPE_VIOMMU, &data, sizeof(data), NULL), 0);
	CHECK_EQ(data.out_mmap_offset, 0x1000);
}

static const struct row rows[] = {
	{"d9.110", "VIOMMU_ALLOC: the type before the HWPT", viommu_type, NULL},
	{"d9.111", "VIOMMU_ALLOC: on what is no parent", viommu_parent, NULL},
	{"d9.112", "VIOMMU_ALLOC: reserved", viommu_reserved, NULL},
	{"d9.113", "VIOMMU_ALLOC: lengths of data", viommu_lengths, NULL},
	{"d9.114", "nested on a vIOMMU: without data, with flags", nested_on_viommu, NULL},
	{"d9.115", "nested on a vIOMMU: a device that is no vDEVICE", attach_without_vdevice, NULL},
	{"d9.116", "one vDEVICE for a device", one_per_device, NULL},
	{"d9.117", "one vDEVICE for a number", one_per_number, NULL},
	{"d9.118", "VDEVICE_ALLOC: nowhere to put the ID", vdevice_into_read_only, NULL},
	{"d9.119", "DESTROY of a vDEVICE in use", vdevice_in_use, NULL},
	{"d9.120", "the vDEVICE of an unbound device", vdevice_of_unbound, NULL},
	{"d9.121", "VEVENTQ_ALLOC: the depth before the vIOMMU", queue_depth, NULL},
	{"d9.122", "VEVENTQ_ALLOC: a type nobody reports", queue_of_any_type, NULL},
	{"d9.123", "VEVENTQ_ALLOC: one of a type", queue_per_type, NULL},
	{"d9.124", "an event queue without events", read_no_events, NULL},
	{"d9.125", "no room for an event", read_too_short, NULL},
	{"d9.126", "events are lost", overflow, NULL},
	{"d9.127", "an event after lost ones", marker_goes, NULL},
	{"d9.128", "no room for the marker", marker_does_not_fit, NULL},
	{"d9.129", "events to nowhere", read_to_nowhere, NULL},
	{"d9.130", "write to an event queue", write_events, NULL},
	{"d5.5", "the descriptor of an event queue", events_descriptor, NULL},
	{"d9.131", "a report to a full queue", report_to_full, NULL},
	{"d9.132", "events outlive the context's descriptor", context_is_closed, NULL},
	{"d9.133", "HW_QUEUE_ALLOC: the length before the vIOMMU", hw_queue_empty, NULL},
	{"d9.134", "HW_QUEUE_ALLOC: lengths without end", hw_queue_endless, NULL},
	{"d9.135", "HW_QUEUE_ALLOC: not mapped", hw_queue_unmapped, NULL},
	{"d9.136", "HW_QUEUE_ALLOC: rights", hw_queue_rights, NULL},
	{"d9.137", "HW_QUEUE_ALLOC: a mapping too fine", hw_queue_too_fine, NULL},
	{"d9.138", "HW_QUEUE_ALLOC: scattered memory", hw_queue_scattered, NULL},
	{"d9.139", "a HW queue keeps its memory", hw_queue_pins, NULL},
	{"d9.140", "a HW queue keeps another", hw_queue_depends, NULL},
	{"d9.141", "a HW queue has an access", hw_queue_access, NULL},
	{"d9.142", "mmap beside a region", mmap_elsewhere, NULL},
	{"d9.143", "mmap of a region, rights", mmap_rights, NULL},
	{"d9.144", "a region mapped by a child", mapped_by_child, NULL},
	{"d5.7-close", "a region keeps its context", region_keeps_context, NULL},
	{"d5.7-move", "a region is moved and cut", region_moves, NULL},
	{"d9.145", "where regions are", two_regions, NULL},
};
ROWS(edges_viommu, rows);
