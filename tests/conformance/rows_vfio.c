// SPDX-License-Identifier: MIT
/* The VFIO type1 container's ioctls on an iommufd. */
#include <linux/vfio.h>

#include "suite.h"

#define B MOCK_FIRST

static void need_vfio(struct ctx *c)
{
	if (call(c, VFIO_GET_API_VERSION, NULL) == -ENOTTY)
		skip("vfio-compat", "VFIO_GET_API_VERSION is not known");
	CHECK_RC(call(c, VFIO_GET_API_VERSION, (void *)1), 0);
}

static long vfio_ioas(struct ctx *c, uint16_t op, uint32_t *id)
{
	struct iommu_vfio_ioas cmd = {.size = sizeof(cmd), .op = op, .ioas_id = *id};
	long rc = call(c, IOMMU_VFIO_IOAS, &cmd);

	*id = cmd.ioas_id;
	return rc;
}

static uint32_t compat(struct ctx *c)
{
	uint32_t id = ioas_new(c);

	need_vfio(c);
	CHECK_RC(vfio_ioas(c, IOMMU_VFIO_IOAS_SET, &id), 0);
	return id;
}

static long set_iommu(struct ctx *c, unsigned long type)
{
	return c->fe->ioctl(c, VFIO_SET_IOMMU, type);
}

static long map_dma(struct ctx *c, uint32_t flags, uint64_t va, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_map cmd = {sizeof(cmd), flags, va, iova, size};

	return call(c, VFIO_IOMMU_MAP_DMA, &cmd);
}

/* `*size` comes back in all cases. */
static long unmap_dma(struct ctx *c, uint32_t flags, uint64_t iova, uint64_t *size)
{
	struct vfio_iommu_type1_dma_unmap cmd = {
		.argsz = sizeof(cmd), .flags = flags, .iova = iova, .size = *size};
	long rc = call(c, VFIO_IOMMU_UNMAP_DMA, &cmd);

	*size = cmd.size;
	return rc;
}

static void unmap_dma_expect(struct ctx *c, uint64_t iova, uint64_t size, long want,
			     uint64_t removed)
{
	CHECK_RC(unmap_dma(c, 0, iova, &size), want);
	CHECK_EQ(size, removed);
}

static void without_compat_ioas(struct ctx *c)
{
	struct vfio_iommu_type1_info info = {.argsz = sizeof(info)};
	uint64_t size = PAGE;
	uint32_t id = 0;

	need_vfio(c);
	CHECK_RC(vfio_ioas(c, IOMMU_VFIO_IOAS_GET, &id), -ENODEV);
	CHECK_RC(map_dma(c, 3, 0, 0, PAGE), -ENODEV);
	CHECK_RC(unmap_dma(c, 0, 0, &size), -ENODEV);
	CHECK_RC(call(c, VFIO_IOMMU_GET_INFO, &info), -ENODEV);
	CHECK_RC(set_iommu(c, VFIO_TYPE1_IOMMU), -ENODEV);
	CHECK_RC(set_iommu(c, VFIO_TYPE1v2_IOMMU), -ENODEV);
	CHECK_RC(c->fe->ioctl(c, VFIO_CHECK_EXTENSION, VFIO_DMA_CC_IOMMU), -ENODEV);
	CHECK_RC(c->fe->ioctl(c, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU), 1);
	CHECK_RC(c->fe->ioctl(c, VFIO_CHECK_EXTENSION, VFIO_UNMAP_ALL), 1);
	CHECK_RC(c->fe->ioctl(c, VFIO_CHECK_EXTENSION, 10), 0);
	for (int type = 0; type < 10; type++)
		if (type != 1 && type != 3)
			CHECK_RC(set_iommu(c, type), -EINVAL);
}

static void get_info(struct ctx *c)
{
	const uint32_t small[] = {16, 24, 40, 71};
	union {
		struct vfio_iommu_type1_info info;
		uint64_t words[16];
	} u = {.info.argsz = 15};
	uint32_t cap;

	compat(c);
	CHECK_RC(call(c, VFIO_IOMMU_GET_INFO, &u), -EINVAL);
	for (size_t i = 0; i < 4; i++) {
		memset(&u, 0, sizeof(u));
		u.info.argsz = small[i];
		u.info.cap_offset = small[i] < 24 ? 77 : 0;
		CHECK_RC(call(c, VFIO_IOMMU_GET_INFO, &u), 0);
		CHECK_EQ(u.info.argsz, 72);
		CHECK_EQ(u.info.flags, 3);
		CHECK_EQ(u.info.iova_pgsizes, 0xfffffffffffff000);
		CHECK_EQ(u.info.cap_offset, small[i] < 24 ? 77 : 0);
	}
	memset(&u, 0, sizeof(u));
	u.info.argsz = 72;
	CHECK_RC(call(c, VFIO_IOMMU_GET_INFO, &u), 0);
	CHECK_EQ(u.info.cap_offset, 24);
	memcpy(&cap, (char *)&u + 24, 4);
	CHECK_EQ(cap, 0x00010003);
	memcpy(&cap, (char *)&u + 28, 4);
	CHECK_EQ(cap, 40);
	memcpy(&cap, (char *)&u + 48, 4);
	CHECK_EQ(cap, 1);
	CHECK_EQ(u.words[8], MAX);
}

static void v1_cuts(struct ctx *c)
{
	uint32_t ioas = compat(c);

	CHECK_RC(set_iommu(c, VFIO_TYPE1_IOMMU), 0);
	CHECK_RC(map_dma(c, 3, 0x100000, B, 8 * PAGE), 0);
	unmap_dma_expect(c, B, PAGE, 0, PAGE);
	unmap_dma_expect(c, B + 3 * PAGE, PAGE, 0, PAGE);
	CHECK_RC(unmap(c, ioas, B + 5 * PAGE, PAGE, NULL), -ENOENT);
	unmap_dma_expect(c, B + 4 * PAGE, 100 * PAGE, 0, 4 * PAGE);
	unmap_expect(c, ioas, 0, MAX, 2 * PAGE);
}

static void v1_finer_than_a_page(struct ctx *c)
{
	compat(c);
	CHECK_RC(set_iommu(c, VFIO_TYPE1_IOMMU), 0);
	CHECK_RC(map_dma(c, 3, 0x100000, B, 8 * PAGE), 0);
	unmap_dma_expect(c, B, 0x800, -EINVAL, 0x800);
	unmap_dma_expect(c, B, 0, -EINVAL, 0);
	unmap_dma_expect(c, B, 8 * PAGE, 0, 8 * PAGE);
	unmap_dma_expect(c, B, 8 * PAGE, 0, 0);
}

static void unmap_flags(struct ctx *c)
{
	uint64_t size = PAGE;

	compat(c);
	CHECK_RC(unmap_dma(c, 2, 0, &size), -EINVAL);
	CHECK_RC(unmap_dma(c, 1, 0, &size), -EINVAL);
	CHECK_RC(unmap_dma(c, 4, 0, &size), -EINVAL);
	size = 0;
	CHECK_RC(unmap_dma(c, 2, PAGE, &size), -EINVAL);
	CHECK_RC(unmap_dma(c, 2, 0, &size), 0);
	CHECK_EQ(size, 0);
	CHECK_RC(map_dma(c, 3, 0, B, PAGE), 0);
	CHECK_RC(map_dma(c, 3, 0, B, PAGE), -EEXIST);
	CHECK_RC(map_dma(c, 3, 0, 2 * B, 0), -EINVAL);
	CHECK_RC(map_dma(c, 4, 0, 2 * B, PAGE), -EINVAL);
	CHECK_RC(unmap_dma(c, 2, 0, &size), 0);
	CHECK_EQ(size, PAGE);
}

static void v1_with_a_pin(struct ctx *c)
{
	uint32_t ioas = compat(c);
	int access = accfd_open(c, ioas, true);
	char *v = memory(4);
	uint64_t size = PAGE;

	CHECK_RC(set_iommu(c, VFIO_TYPE1_IOMMU), 0);
	CHECK_RC(map_dma(c, 3, (uintptr_t)v, B, 4 * PAGE), 0);
	CHECK_RC(accfd_pin(c, access, true, B + PAGE, PAGE, NULL), 0);
	CHECK_RC(unmap_dma(c, 0, B, &size), -EINVAL);
	unmap_dma_expect(c, B, 4 * PAGE, 0, 4 * PAGE);
	CHECK_RC(check_refs(c, v, 4 * PAGE, 0), 0);
}

static void v2_does_not_cut(struct ctx *c)
{
	compat(c);
	CHECK_RC(set_iommu(c, VFIO_TYPE1v2_IOMMU), 0);
	CHECK_RC(map_dma(c, 3, 0x100000, B, 8 * PAGE), 0);
	unmap_dma_expect(c, B, PAGE, -ENOENT, 0);
	unmap_dma_expect(c, 0, B + 8 * PAGE, 0, 8 * PAGE);
}

static void last_byte(struct ctx *c)
{
	uint32_t ioas = compat(c);

	CHECK_RC(map_dma(c, 3, 0, MAX, 1), 0);
	CHECK_RC(unmap(c, ioas, 0, MAX - 1, NULL), -ENOENT);
	unmap_dma_expect(c, MAX, 1, 0, 1);
	CHECK_RC(map_dma(c, 3, 0, MAX, 1), 0);
	unmap_expect(c, ioas, 0, MAX, 1);
}

static void no_permission(struct ctx *c)
{
	uint32_t ioas = compat(c);
	struct mock m;

	CHECK_RC(map_dma(c, 0, 0, B, PAGE), 0);
	unmap_dma_expect(c, B, PAGE, 0, PAGE);
	mock_add(c, ioas, &m);
	CHECK_RC(map_dma(c, 0, (uintptr_t)memory(1), B, PAGE), -EINVAL);
}

static void compat_ioas_destroyed(struct ctx *c)
{
	uint32_t ioas = compat(c), id = 0;

	CHECK_RC(vfio_ioas(c, IOMMU_VFIO_IOAS_GET, &id), 0);
	CHECK_EQ(id, ioas);
	CHECK_RC(destroy(c, ioas), 0);
	CHECK_RC(vfio_ioas(c, IOMMU_VFIO_IOAS_GET, &id), -ENODEV);
	CHECK_RC(map_dma(c, 3, 0, 0, PAGE), -ENODEV);
	CHECK_RC(vfio_ioas(c, IOMMU_VFIO_IOAS_SET, &id), -ENOENT);
	CHECK_RC(vfio_ioas(c, IOMMU_VFIO_IOAS_CLEAR, &id), 0);
}

static void type_1_then_2(struct ctx *c)
{
	uint32_t ioas = compat(c);

	CHECK_RC(set_iommu(c, VFIO_TYPE1_IOMMU), 0);
	CHECK_RC(set_iommu(c, VFIO_TYPE1v2_IOMMU), 0);
	CHECK_EQ(huge_pages_get(c, ioas), 0);
	CHECK_EQ(ioas_align(c, ioas), PAGE);
	CHECK_RC(huge_pages_set(c, ioas, 1), 0);
	CHECK_RC(map_dma(c, 3, 0x100000, B, 2 * PAGE), 0);
	unmap_dma_expect(c, B, PAGE, -ENOENT, 0);
}

static const struct row rows[] = {
	{"9.123,137", "MAP_DMA without permissions", no_permission, NULL},
	{"9.127-128", "no compat IOAS", without_compat_ioas, NULL},
	{"9.129", "GET_INFO", get_info, NULL},
	{"9.130", "v1 cuts areas", v1_cuts, NULL},
	{"9.131-132", "v1 does not cut pages", v1_finer_than_a_page, NULL},
	{"9.133", "flags of UNMAP_DMA", unmap_flags, NULL},
	{"9.134", "v1 with a pin", v1_with_a_pin, NULL},
	{"9.135", "v2 does not cut", v2_does_not_cut, NULL},
	{"9.136", "the last byte", last_byte, NULL},
	{"9.138", "the compat IOAS is destroyed", compat_ioas_destroyed, NULL},
	{"9.139", "type 1, then 3", type_1_then_2, NULL},
};
ROWS(rows_vfio, rows);
