// SPDX-License-Identifier: MIT
/* devices.md 9, rows 61 to 79: GET_HW_INFO and HWPT_INVALIDATE. */
#include <sys/mman.h>

#include "edges.h"

/* ---- GET_HW_INFO (61 to 68) ---------------------------------------------------------------------- */

#define TYPED IOMMU_HW_INFO_FLAG_INPUT_TYPE

static long hw_info(struct edge *e, struct iommu_hw_info *cmd)
{
	if (!cmd->size)
		cmd->size = sizeof(*cmd);
	if (!cmd->dev_id)
		cmd->dev_id = e->d.idev;
	return call(e->c, IOMMU_GET_HW_INFO, cmd);
}

static void info_reserved(struct ctx *c)
{
	struct iommu_hw_info cmd = {.flags = 2};
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(hw_info(&e, &cmd), -EOPNOTSUPP);
	for (int i = 0; i < 3; i++) {
		cmd = (struct iommu_hw_info){0};
		cmd.__reserved[i] = 1;
		CHECK_RC(hw_info(&e, &cmd), -EOPNOTSUPP);
	}
}

static void info_type(struct ctx *c)
{
	struct iommu_hw_info cmd = {.in_data_type = 77};
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(hw_info(&e, &cmd), 0);
	CHECK_EQ(cmd.out_data_type, TEST_TYPE_HW_INFO);
	cmd = (struct iommu_hw_info){.flags = TYPED, .in_data_type = 77};
	CHECK_RC(hw_info(&e, &cmd), -EOPNOTSUPP);
	cmd = (struct iommu_hw_info){.flags = TYPED, .in_data_type = TEST_TYPE_HW_INFO};
	CHECK_RC(hw_info(&e, &cmd), 0);
}

static void info_no_device(struct ctx *c)
{
	struct iommu_hw_info cmd = {.flags = TYPED, .in_data_type = 77, .dev_id = NOBODY};
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(hw_info(&e, &cmd), -ENOENT);
}

static void info_no_room(struct ctx *c)
{
	struct iommu_hw_info cmd = {0};
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(hw_info(&e, &cmd), 0);
	CHECK_EQ(cmd.data_len, 8);
	CHECK_EQ(cmd.out_capabilities, 9);
	CHECK_EQ(cmd.out_max_pasid_log2, 0);
}

/* The first min(len, 8) bytes of {0, register}, then zeros up to len, and not one more. */
static void info_into(struct ctx *c)
{
	static const uint32_t full[2] = {0, TEST_HW_INFO_REG};
	uint32_t len = *(const uint32_t *)row_arg();
	char *buf = page_end(len + 1);
	struct iommu_hw_info cmd = {.data_len = len, .data_uptr = (uintptr_t)buf};
	struct edge e;

	edge_init(c, &e, 0);
	memset(buf, 0x55, len + 1);
	CHECK_RC(hw_info(&e, &cmd), 0);
	CHECK_EQ(cmd.data_len, 8);
	CHECK_EQ(cmd.out_data_type, TEST_TYPE_HW_INFO);
	CHECK_EQ(memcmp(buf, full, len < 8 ? len : 8), 0);
	for (uint32_t i = 8; i < len; i++)
		CHECK_EQ(buf[i], 0);
	CHECK_EQ(buf[len], 0x55);
}

static const uint32_t five = 5, sixteen = 16;

static void info_faults(struct ctx *c)
{
	struct iommu_hw_info cmd = {.data_len = 4};
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(hw_info(&e, &cmd), -EFAULT);
	/* The struct is written, the zeros behind it are not. */
	cmd = (struct iommu_hw_info){.data_len = 16, .data_uptr = (uintptr_t)page_end(12)};
	CHECK_RC(hw_info(&e, &cmd), -EFAULT);
	cmd = (struct iommu_hw_info){.data_len = 12, .data_uptr = (uintptr_t)page_end(12)};
	CHECK_RC(hw_info(&e, &cmd), 0);
}

static void info_sizes(struct ctx *c)
{
	struct iommu_hw_info cmd = {.size = 31};
	struct edge e;

	edge_init(c, &e, TEST_DEV_PASID);
	CHECK_RC(hw_info(&e, &cmd), -EINVAL);
	cmd = (struct iommu_hw_info){.size = 32, .out_capabilities = 0x5555};
	CHECK_RC(hw_info(&e, &cmd), 0);
	CHECK_EQ(cmd.out_capabilities, 0x5555);
	CHECK_EQ(cmd.out_max_pasid_log2, 20);
}

/* ---- HWPT_INVALIDATE (69 to 79) -------------------------------------------------------------------- */

struct inv {
	struct edge e;
	uint32_t parent, nested, viommu;
};

/* With a vDEVICE of number 5 in the vIOMMU. */
static void inv_init(struct ctx *c, struct inv *v)
{
	struct iommu_viommu_alloc viommu = {.size = sizeof(viommu), .type = TEST_TYPE_VIOMMU};
	struct iommu_vdevice_alloc vdev = {.size = sizeof(vdev), .virt_id = 5};

	edge_init(c, &v->e, 0);
	v->parent = hwpt_new(&v->e.d, v->e.io, NEST);
	v->nested = nested_new(&v->e.d, v->parent, 0);
	viommu.dev_id = vdev.dev_id = v->e.d.idev;
	viommu.hwpt_id = v->parent;
	CHECK_RC(call(c, IOMMU_VIOMMU_ALLOC, &viommu), 0);
	v->viommu = vdev.viommu_id = viommu.out_viommu_id;
	CHECK_RC(call(c, IOMMU_VDEVICE_ALLOC, &vdev), 0);
}

/* Also checks how many entries it says it has handled. */
static long invalidate(struct inv *v, uint32_t id, const void *data, uint32_t type, uint32_t len,
		       uint32_t num, uint32_t done)
{
	struct iommu_hwpt_invalidate cmd = {
		.size = sizeof(cmd),
		.hwpt_id = id,
		.data_uptr = (uintptr_t)data,
		.data_type = type,
		.entry_len = len,
		.entry_num = num,
	};
	long rc = call(v->e.c, IOMMU_HWPT_INVALIDATE, &cmd);

	CHECK_EQ(cmd.entry_num, done);
	return rc;
}

static void check_iotlb(struct inv *v, uint32_t index, uint32_t value)
{
	struct test_cmd cmd = {
		.op = TEST_OP_MD_CHECK_IOTLB, .id = v->nested, .check_iotlb = {index, value}};

	CHECK_RC(test_abi_call(v->e.c, &cmd), 0);
}

#define T TEST_TYPE_VIOMMU /* the entries of both have this type */

static void inv_reserved(struct ctx *c)
{
	struct iommu_hwpt_invalidate cmd = {
		.size = sizeof(cmd), .data_type = T, .entry_num = 3, .__reserved = 1};
	struct inv v;

	inv_init(c, &v);
	cmd.hwpt_id = v.nested;
	CHECK_RC(call(c, IOMMU_HWPT_INVALIDATE, &cmd), -EOPNOTSUPP);
	CHECK_EQ(cmd.entry_num, 0);
}

static void inv_no_length(struct ctx *c)
{
	struct test_nested_inv one = {0};
	struct inv v;

	inv_init(c, &v);
	CHECK_RC(invalidate(&v, NOBODY, &one, T, 0, 1, 0), -EINVAL);
	CHECK_RC(invalidate(&v, NOBODY, &one, T, 8, 1, 0), -ENOENT);
}

static void inv_nothing(struct ctx *c)
{
	struct inv v;

	inv_init(c, &v);
	CHECK_RC(invalidate(&v, v.nested, NULL, 0xdadbeef, 8, 0, 0), -EINVAL);
	CHECK_RC(invalidate(&v, v.nested, NULL, T, 8, 0, 0), 0);
	CHECK_RC(invalidate(&v, v.viommu, NULL, 0xdadbeef, 12, 0, 0), -EINVAL);
	CHECK_RC(invalidate(&v, v.viommu, NULL, T, 12, 0, 0), 0);
}

static void inv_nothing_long(struct ctx *c)
{
	struct inv v;

	inv_init(c, &v);
	CHECK_RC(invalidate(&v, v.nested, NULL, T, 1u << 30, 0, 0), 0);
}

static void inv_nothing_of_nobody(struct ctx *c)
{
	struct inv v;

	inv_init(c, &v);
	CHECK_RC(invalidate(&v, v.parent, NULL, T, 8, 0, 0), -EINVAL);
	CHECK_RC(invalidate(&v, v.e.io, NULL, T, 8, 0, 0), -EINVAL);
	CHECK_RC(invalidate(&v, v.e.d.idev, NULL, T, 8, 0, 0), -EINVAL);
	CHECK_RC(invalidate(&v, NOBODY, NULL, T, 8, 0, 0), -ENOENT);
}

static void inv_limits(struct ctx *c)
{
	struct test_nested_inv one = {0};
	struct inv v;

	inv_init(c, &v);
	CHECK_RC(invalidate(&v, v.nested, &one, T, PAGE + 1, 1, 0), -EINVAL);
	CHECK_RC(invalidate(&v, v.nested, &one, T, 8, (1u << 19) + 1, 0), -EINVAL);
	CHECK_RC(invalidate(&v, v.nested, NULL, T, 8, 1, 0), -EINVAL);
	check_iotlb(&v, 0, 0xbadbeef);
}

static void inv_second_bad(struct ctx *c)
{
	struct test_nested_inv flag[2] = {{0, 0}, {2, 0}}, index[2] = {{0, 1}, {0, 4}};
	struct test_viommu_inv vflag[2] = {{0, 5, 0}, {2, 5, 0}}, vdev[2] = {{0, 5, 0}, {0, 6, 0}};
	struct inv v;

	inv_init(c, &v);
	CHECK_RC(invalidate(&v, v.nested, flag, T, 8, 2, 1), -EOPNOTSUPP);
	check_iotlb(&v, 0, 0);
	check_iotlb(&v, 1, 0xbadbeef);
	CHECK_RC(invalidate(&v, v.nested, index, T, 8, 2, 1), -EINVAL);
	check_iotlb(&v, 1, 0);
	CHECK_RC(invalidate(&v, v.viommu, vflag, T, 12, 2, 1), -EOPNOTSUPP);
	CHECK_RC(invalidate(&v, v.viommu, vdev, T, 12, 2, 1), -EINVAL);
}

static void inv_nested_length(struct ctx *c)
{
	uint64_t zeros[2] = {0};
	struct inv v;

	inv_init(c, &v);
	CHECK_RC(invalidate(&v, v.nested, zeros, T, 9, 1, 0), -EINVAL);
	CHECK_RC(invalidate(&v, v.nested, zeros, T, 7, 1, 0), -EINVAL);
	CHECK_RC(invalidate(&v, v.nested, zeros, T, 8, 1, 1), 0);
}

static void inv_viommu_longer(struct ctx *c)
{
	uint32_t entry[2][4] = {{0, 5, 0, 0}, {0, 5, 1, 0}};
	struct inv v;

	inv_init(c, &v);
	CHECK_RC(invalidate(&v, v.viommu, entry, T, 16, 2, 2), 0);
	entry[1][3] = 1;
	CHECK_RC(invalidate(&v, v.viommu, entry, T, 16, 2, 0), -E2BIG);
}

static void inv_viommu_shorter(struct ctx *c)
{
	uint32_t entry[2] = {0, 5};
	struct inv v;

	inv_init(c, &v);
	CHECK_RC(invalidate(&v, v.viommu, entry, T, 8, 1, 1), 0);
	CHECK_RC(invalidate(&v, v.viommu, entry, T, 1, 1, 0), -EINVAL);
}

static void inv_half_there(struct ctx *c)
{
	struct test_nested_inv *one = (void *)page_end(sizeof(*one));
	struct test_viommu_inv *vone = (void *)page_end(sizeof(*vone));
	struct inv v;

	inv_init(c, &v);
	vone->vdev_id = 5;
	CHECK_RC(invalidate(&v, v.nested, one, T, sizeof(*one), 2, 1), -EFAULT);
	check_iotlb(&v, 0, 0);
	CHECK_RC(invalidate(&v, v.viommu, vone, T, sizeof(*vone), 2, 0), -EFAULT);
}

static const struct row rows[] = {
	{"d9.61", "GET_HW_INFO: flags and reserved bytes", info_reserved, NULL},
	{"d9.62", "GET_HW_INFO: types, with and without the flag", info_type, NULL},
	{"d9.63", "GET_HW_INFO: the device before the type", info_no_device, NULL},
	{"d9.64", "GET_HW_INFO: no room at all", info_no_room, NULL},
	{"d9.65", "GET_HW_INFO: little room", info_into, &five},
	{"d9.66", "GET_HW_INFO: much room", info_into, &sixteen},
	{"d9.67", "GET_HW_INFO: room that is not there", info_faults, NULL},
	{"d9.68", "GET_HW_INFO: sizes", info_sizes, NULL},
	{"d9.69", "INVALIDATE: reserved", inv_reserved, NULL},
	{"d9.70", "INVALIDATE: the length before the ID", inv_no_length, NULL},
	{"d9.71", "INVALIDATE: no entry asks for the type", inv_nothing, NULL},
	{"d9.72", "INVALIDATE: no entry, of any length", inv_nothing_long, NULL},
	{"d9.73", "INVALIDATE: of what has no cache", inv_nothing_of_nobody, NULL},
	{"d9.74", "INVALIDATE: limits", inv_limits, NULL},
	{"d9.75", "INVALIDATE: the second entry is bad", inv_second_bad, NULL},
	{"d9.76", "INVALIDATE: lengths of nested entries", inv_nested_length, NULL},
	{"d9.77", "INVALIDATE: long entries of a vIOMMU", inv_viommu_longer, NULL},
	{"d9.78", "INVALIDATE: short entries of a vIOMMU", inv_viommu_shorter, NULL},
	{"d9.79", "INVALIDATE: the second entry is not there", inv_half_there, NULL},
};
ROWS(edges_info, rows);
