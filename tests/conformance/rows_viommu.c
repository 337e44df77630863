// SPDX-License-Identifier: MIT
/* vIOMMUs as far as the core sees them: tombstones, regions for mmap, HW queues that lock areas. */
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>

#include "suite.h"

#define B MOCK_FIRST

struct scene {
	uint32_t ioas, hwpt, viommu;
	uint32_t dev, idev_id; /* the test ABI's mock: what a front end has need not nest */
	struct test_viommu_data data;
};

static void scene_init(struct ctx *c, struct scene *s)
{
	struct iommu_hwpt_alloc hwpt = {.size = sizeof(hwpt),
					.flags = IOMMU_HWPT_ALLOC_NEST_PARENT};
	struct iommu_viommu_alloc viommu = {.size = sizeof(viommu), .type = TEST_TYPE_VIOMMU};
	struct test_cmd mock = {.op = TEST_OP_MOCK_DOMAIN};
	long rc;

	need_test_abi(c);
	memset(s, 0, sizeof(*s));
	s->ioas = ioas_new(c);
	mock.id = s->ioas;
	CHECK_RC(test_abi_call(c, &mock), 0);
	s->dev = mock.mock.stdev_id;
	s->idev_id = mock.mock.idev_id;
	hwpt.dev_id = s->idev_id;
	hwpt.pt_id = s->ioas;
	rc = call(c, IOMMU_HWPT_ALLOC, &hwpt);
	if (rc == -ENOTTY || rc == -EOPNOTSUPP)
		skip("nesting", "HWPT_ALLOC makes no nesting parent");
	CHECK_RC(rc, 0);
	s->hwpt = hwpt.out_hwpt_id;
	viommu.dev_id = s->idev_id;
	viommu.hwpt_id = s->hwpt;
	viommu.data_len = sizeof(s->data);
	viommu.data_uptr = (uintptr_t)&s->data;
	rc = call(c, IOMMU_VIOMMU_ALLOC, &viommu);
	if (rc == -ENOTTY || rc == -EOPNOTSUPP)
		skip("viommu", "VIOMMU_ALLOC makes no vIOMMU of the test ABI");
	CHECK_RC(rc, 0);
	s->viommu = viommu.out_viommu_id;
}

static uint32_t vdevice(struct ctx *c, struct scene *s)
{
	struct iommu_vdevice_alloc cmd = {
		.size = sizeof(cmd), .viommu_id = s->viommu, .dev_id = s->idev_id, .virt_id = 5};

	CHECK_RC(call(c, IOMMU_VDEVICE_ALLOC, &cmd), 0);
	return cmd.out_vdevice_id;
}

static void tombstone(struct ctx *c)
{
	struct scene s;
	uint32_t id, fresh;

	scene_init(c, &s);
	id = vdevice(c, &s);
	CHECK_RC(destroy(c, s.dev), 0);
	CHECK_RC(destroy(c, id), -ENOENT);
	for (int i = 0; i < 10; i++) {
		fresh = ioas_new(c);
		CHECK(fresh != id);
	}
}

static void tombstone_alone(struct ctx *c)
{
	struct scene s;

	scene_init(c, &s);
	vdevice(c, &s);
	CHECK_RC(destroy(c, s.dev), 0);
	CHECK_RC(destroy(c, s.viommu), 0);
	CHECK_RC(destroy(c, s.hwpt), 0);
	CHECK_RC(destroy(c, s.ioas), 0);
	CHECK_RC(rlimit_mode_set(c, 0), has_cap(CAP_SYS_RESOURCE) ? -EBUSY : -EPERM);
}

static void locked_by_a_queue(struct ctx *c)
{
	struct iommu_hw_queue_alloc cmd = {.size = sizeof(cmd)};
	struct scene s;
	char *v = memory(3);

	scene_init(c, &s);
	CHECK_RC(map_at(c, s.ioas, B, (uintptr_t)v, 3 * PAGE), 0);
	cmd.viommu_id = s.viommu;
	cmd.type = TEST_TYPE_VIOMMU;
	cmd.nesting_parent_iova = B;
	cmd.length = PAGE;
	CHECK_RC(call(c, IOMMU_HW_QUEUE_ALLOC, &cmd), 0);
	CHECK_RC(unmap(c, s.ioas, B, 3 * PAGE, NULL), -EBUSY);
	CHECK_RC(unmap(c, s.ioas, 0, MAX, NULL), -EBUSY);
	CHECK_RC(unmap(c, s.ioas, B + PAGE, PAGE, NULL), -EBUSY);
	CHECK_RC(destroy(c, cmd.out_hw_queue_id), 0);
	unmap_expect(c, s.ioas, B, 3 * PAGE, 3 * PAGE);
}

static long try_mmap(struct ctx *c, size_t len, int prot, int flags, uint64_t offset, char **out)
{
	char *p;
	int rc = c->fe->mmap(c, len, prot, flags, offset, &p);

	if (rc)
		return rc;
	if (out)
		*out = p;
	else
		munmap(p, len);
	return 0;
}

static void mmap_of_a_region(struct ctx *c)
{
	const int all = PROT_READ | PROT_WRITE;
	struct scene s;
	uint64_t at;

	scene_init(c, &s);
	at = s.data.out_mmap_offset;
	CHECK_EQ(at, PAGE);
	CHECK_EQ(s.data.out_mmap_length, 2 * PAGE);
	CHECK_RC(try_mmap(c, 2 * PAGE, PROT_EXEC, MAP_SHARED, at, NULL), -EPERM);
	CHECK_RC(try_mmap(c, PAGE, PROT_READ, MAP_SHARED, at, NULL), -ENXIO);
	CHECK_RC(try_mmap(c, 4 * PAGE, PROT_READ, MAP_SHARED, at, NULL), -ENXIO);
	CHECK_RC(try_mmap(c, 2 * PAGE, PROT_READ, MAP_SHARED, at + PAGE, NULL), -ENXIO);
	CHECK_RC(try_mmap(c, 2 * PAGE, all, MAP_SHARED, at, NULL), 0);
	CHECK_RC(try_mmap(c, 2 * PAGE, PROT_READ, MAP_PRIVATE, at, NULL), -EINVAL);
}

/* Without leave to write there is no shared mapping that could ever become writable. */
static void mmap_by_a_reader(struct ctx *c)
{
	const int all = PROT_READ | PROT_WRITE;
	struct ctx *reader;
	struct scene s;
	long rc;

	need_fd(c);
	if (c->fe->open(O_RDONLY, &reader))
		give_up("O_RDONLY open failed");
	scene_init(reader, &s);
	CHECK_RC(try_mmap(reader, 2 * PAGE, all, MAP_SHARED, s.data.out_mmap_offset, NULL),
		 -EACCES);
	rc = try_mmap(reader, 2 * PAGE, PROT_READ, MAP_SHARED, s.data.out_mmap_offset, NULL);
	CHECK_RC(rc, -EINVAL);
	ctx_close(reader);
}

static void child_has_it(struct ctx *c, void *data)
{
	struct scene *s = data;

	CHECK_RC(destroy(c, s->viommu), -EBUSY);
}

static void mapped_region_is_busy(struct ctx *c)
{
	struct scene s;
	char *p = NULL;
	long rc;

	scene_init(c, &s);
	rc = try_mmap(c, 2 * PAGE, PROT_READ, MAP_SHARED, s.data.out_mmap_offset, &p);
	if (rc)
		give_up("mmap of the region: %s", strerror(-rc));
	CHECK_RC(destroy(c, s.viommu), -EBUSY);
	munmap(p, PAGE);
	CHECK_RC(destroy(c, s.viommu), -EBUSY);
	if (c->fe->fd(c) >= 0)
		in_child(c, child_has_it, &s);
	munmap(p + PAGE, PAGE);
	CHECK_RC(destroy(c, s.viommu), 0);
}

static const struct row rows[] = {
	{"9.5,144", "a vDEVICE dies with its device", tombstone, NULL},
	{"9.6", "a tombstone keeps the table busy", tombstone_alone, NULL},
	{"9.70", "a HW queue locks an area", locked_by_a_queue, NULL},
	{"9.120", "mmap of a region", mmap_of_a_region, NULL},
	{"9.121", "mmap of a region through a read-only descriptor", mmap_by_a_reader, NULL},
	{"9.126", "a mapped region keeps its owner", mapped_region_is_busy, NULL},
};
ROWS(rows_viommu, rows);
