// SPDX-License-Identifier: MIT
/* Nested HWPTs: on what they can be made, their cache and its invalidation, where their faults go. */
#include "nest_rig.h"

#define NEST IOMMU_HWPT_ALLOC_NEST_PARENT

static long invalidate(struct rig *r, uint32_t id, uint32_t type, const void *data, uint32_t len,
		       uint32_t *n)
{
	struct iommu_hwpt_invalidate cmd = {.size = sizeof(cmd),
					    .hwpt_id = id,
					    .data_uptr = (uintptr_t)data,
					    .data_type = type,
					    .entry_len = len,
					    .entry_num = *n};
	long rc = ioc(r, IOMMU_HWPT_INVALIDATE, &cmd);

	*n = cmd.entry_num;
	return rc;
}

static long iotlb(struct rig *r, uint32_t hwpt, uint32_t i, uint32_t want)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_MD_CHECK_IOTLB,
				     .id = hwpt,
				     .check_iotlb = {.id = i, .iotlb = want}};

	return op(r, &cmd);
}

static void making(void **state)
{
	struct rig *r = *state;
	struct mock m = mock_add(r, r->ioas, 0);
	uint32_t parent = hwpt_new(r, m.idev, NEST, 0), plain = hwpt_new(r, m.idev, 0, 0);
	struct mock_hwpt_data data = {.iotlb = 1};
	uint32_t nested = nested_new(r, m.idev, parent, 0, 0), id;
	const uint32_t type = MOCK_HWPT_DATA_TYPE;
	const struct {
		uint32_t dev, pt, flags, fault, type;
		const void *data;
		uint32_t len;
		long rc;
	} rows[] = {
		{m.idev, plain, 0, 0, 0, NULL, 0, -EOPNOTSUPP}, /* no data, before the parent */
		{m.idev, plain, 0, 0, type, &data, 8, -EINVAL},
		{m.idev, m.hwpt, 0, 0, type, &data, 8, -EINVAL}, /* automatic */
		{m.idev, nested, 0, 0, type, &data, 8, -EINVAL},
		{m.idev, m.stdev, 0, 0, type, &data, 8, -EINVAL},
		{m.idev, parent, NEST, 0, type, &data, 8, -EOPNOTSUPP},
		{m.idev, parent, IOMMU_HWPT_ALLOC_DIRTY_TRACKING, 0, type, &data, 8, -EOPNOTSUPP},
		{m.idev, parent, 1u << 31, 0, type, &data, 8, -EOPNOTSUPP},
		{m.idev, parent, 0, 0, 0, &data, 8, -EINVAL},
		{m.idev, parent, 0, 0, type, &data, 0, -EINVAL},
		{m.idev, parent, 0, 0, 77, &data, 8, -EOPNOTSUPP},
		{m.idev, parent, 0, 0, type, &data, 3, -EINVAL},
		{m.idev, parent, 0, 0, type, &data, 9, -EINVAL},
		{m.idev, parent, 0, 0, type, NULL, 8, -EFAULT},
		{m.idev, parent, IOMMU_HWPT_FAULT_ID_VALID, 999, type, &data, 8, -ENOENT},
		{m.idev, parent, IOMMU_HWPT_ALLOC_PASID, 0, type, &data, 4, 0},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		long rc = hwpt_alloc(r, rows[i].dev, rows[i].pt, rows[i].flags, rows[i].fault,
				     rows[i].type, rows[i].data, rows[i].len, &id);

		if (rc != rows[i].rc)
			fail_msg("row %zu gives %ld, not %ld", i, rc, rows[i].rc);
	}
	/* Failures left nothing: only two hold the parent. */
	assert_rc(rm(r, parent), -EBUSY);
	assert_rc(rm(r, nested), 0);
	assert_rc(rm(r, parent), -EBUSY);
	assert_rc(rm(r, id), 0);
	assert_rc(rm(r, parent), 0);
}

static void attaching(void **state)
{
	struct rig *r = *state;
	struct mock m = mock_add(r, r->ioas, 0);
	uint32_t parent = hwpt_new(r, m.idev, NEST, 0),
		 nested = nested_new(r, m.idev, parent, 0, 0);
	uint32_t dirty = hwpt_new(r, m.idev, IOMMU_HWPT_ALLOC_DIRTY_TRACKING, 0);
	struct mock none = mock_add(r, r->ioas, MOCK_FLAGS_DEVICE_NO_DIRTY);

	assert_rc(replace(r, &m, nested), 0);
	assert_rc(rm(r, nested), -EBUSY);
	assert_rc(rm(r, m.hwpt), -EBUSY); /* `none` is on it */
	assert_rc(replace(r, &m, parent), 0);
	assert_rc(rm(r, nested), 0);
	/* What the driver refuses leaves the device where it was. */
	assert_rc(replace(r, &none, dirty), -EINVAL);
	assert_rc(p_check(r, &none, 0, none.hwpt), 0);
	assert_rc(rm(r, dirty), 0);
}

static void invalidating(void **state)
{
	struct rig *r = *state;
	struct mock m = mock_add(r, r->ioas, 0);
	uint32_t parent = hwpt_new(r, m.idev, NEST, 0),
		 nested = nested_new(r, m.idev, parent, 0, 0);
	const uint32_t type = MOCK_HWPT_INVALIDATE_TYPE;
	struct mock_hwpt_invalidate inv[3] = {{0, 1}, {0, 9}, {2, 0}};
	char *edge = memory(2);
	uint32_t n;

	munmap(edge + PAGE, PAGE);
	memcpy(edge + PAGE - 8, &(struct mock_hwpt_invalidate){0, 2}, 8);
	for (int i = 0; i < MOCK_NR_IOTLBS; i++)
		assert_rc(iotlb(r, nested, i, 0xbadbeef), 0);
	assert_rc(iotlb(r, nested, 4, 0xbadbeef), -EINVAL);
	assert_rc(iotlb(r, parent, 0, 0xbadbeef), -ENOENT);
#define INV(id, type, data, len, count, rc, done)                      \
	do {                                                           \
		n = count;                                             \
		assert_rc(invalidate(r, id, type, data, len, &n), rc); \
		assert_int_equal(n, done);                             \
	} while (0)
	INV(nested, type, NULL, 0, 0, 0, 0);
	INV(nested, type, NULL, 1u << 30, 0, 0, 0);
	INV(nested, type + 1, NULL, 0, 0, -EINVAL, 0);
	INV(999, type, NULL, 0, 0, -ENOENT, 0);
	INV(999, type, inv, 0, 1, -EINVAL, 0);
	INV(parent, type, NULL, 0, 0, -EINVAL, 0);
	INV(r->ioas, type, NULL, 0, 0, -EINVAL, 0);
	INV(nested, type, inv, 4097, 1, -EINVAL, 0);
	INV(nested, type, inv, 8, (1u << 19) + 1, -EINVAL, 0);
	INV(nested, type, NULL, 8, 1, -EINVAL, 0);
	INV(nested, type, inv, 9, 1, -EINVAL, 0);
	INV(nested, type, inv, 7, 1, -EINVAL, 0);
	INV(nested, type, inv, 8, 2, -EINVAL, 1);
	assert_rc(iotlb(r, nested, 1, 0), 0);
	assert_rc(iotlb(r, nested, 0, 0xbadbeef), 0);
	INV(nested, type, inv + 2, 8, 1, -EOPNOTSUPP, 0);
	INV(nested, type, edge + PAGE - 8, 8, 2, -EFAULT, 1);
	assert_rc(iotlb(r, nested, 2, 0), 0);
	inv[0] = (struct mock_hwpt_invalidate){MOCK_INVALIDATE_ALL, 4};
	INV(nested, type, inv, 8, 1, -EINVAL, 0);
	inv[0].iotlb_id = 0;
	INV(nested, type, inv, 8, 1, 0, 1);
	assert_rc(iotlb(r, nested, 3, 0), 0);
	munmap(edge, PAGE);
}

/* Requests of a PASID without attachment go to the device's own domain, if that is nested. */
static void pasid_faults(void **state)
{
	struct rig *r = *state;
	struct mock m = mock_add(r, r->ioas, MOCK_FLAGS_DEVICE_PASID);
	uint32_t parent = hwpt_new(r, m.idev, NEST, 0), fault, nested;
	struct iommu_hwpt_pgfault got;
	int fd;

	assert_rc(fault_alloc(r, &fault, &fd), 0);
	nested = nested_new(r, m.idev, parent, IOMMU_HWPT_FAULT_ID_VALID, fault);
	assert_rc(replace(r, &m, nested), 0);
	iopf(r, m.idev, 77, 1, 0);
	assert_rc(rd(r, fd, &got, 40), 40);
	assert_int_equal(got.pasid, 77);
	close_fd(r, fd);
	assert_rc(rm(r, fault), -EBUSY);
	assert_rc(replace(r, &m, r->ioas), 0);
	assert_rc(rm(r, nested), 0);
	assert_rc(rm(r, fault), 0);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {T(making), T(attaching), T(invalidating),
					   T(pasid_faults)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
