// SPDX-License-Identifier: MIT
/* Attaching single PASIDs: what fits beside what, and that failures change nothing. */
#include "nest_rig.h"

#define PASID IOMMU_HWPT_ALLOC_PASID
#define DEV MOCK_FLAGS_DEVICE_PASID

static void needs_compatible(void **state)
{
	struct rig *r = *state;
	struct mock m = mock_add(r, r->ioas, DEV);
	uint32_t plain = hwpt_new(r, m.idev, 0, 0), pasid = hwpt_new(r, m.idev, PASID, 0);

	/* The device's own HWPT is an automatic one. */
	assert_rc(p_attach(r, &m, 100, pasid), -EINVAL);
	assert_rc(replace(r, &m, pasid), 0);
	assert_rc(p_attach(r, &m, 100, plain), -EINVAL);
	assert_rc(p_attach(r, &m, 100, r->ioas), -EINVAL);
	assert_rc(p_attach(r, &m, 100, 999), -ENOENT);
	assert_rc(p_attach(r, &m, 100, m.idev), -EINVAL);
	assert_rc(p_check(r, &m, 100, 0), 0);
	assert_rc(p_attach(r, &m, 100, pasid), 0);
	assert_rc(p_check(r, &m, 100, pasid), 0);
	assert_rc(p_check(r, &m, 100, plain), -EINVAL);
	assert_rc(p_check(r, &m, 100, r->ioas), -EINVAL);
	assert_rc(p_check(r, &m, 100, 999), -ENOENT);
	/* Attached already comes before everything else. */
	assert_rc(p_attach(r, &m, 100, r->ioas), -EBUSY);
	assert_rc(p_attach(r, &m, 100, plain), -EBUSY);
	/* With a PASID attached, the device stays on what goes with it. */
	assert_rc(replace(r, &m, plain), -EINVAL);
	assert_rc(replace(r, &m, r->ioas), -EINVAL);
	assert_rc(p_check(r, &m, 0, pasid), 0);
	assert_rc(rm(r, pasid), -EBUSY);
	assert_rc(p_detach(r, &m, 100), 0);
	assert_rc(p_detach(r, &m, 100), 0);
	assert_rc(replace(r, &m, plain), 0);
	assert_rc(rm(r, pasid), 0);
}

static void limits(void **state)
{
	struct rig *r = *state;
	struct mock m = mock_add(r, r->ioas, DEV), none = mock_add(r, r->ioas, 0);
	uint32_t hwpt = hwpt_new(r, m.idev, PASID, 0);

	assert_rc(replace(r, &m, hwpt), 0);
	assert_rc(replace(r, &none, hwpt), 0);
	assert_rc(p_attach(r, &m, 1u << 20, hwpt), -EINVAL);
	assert_rc(p_attach(r, &m, UINT32_MAX, hwpt), -EINVAL);
	assert_rc(p_attach(r, &m, (1u << 20) - 1, hwpt), 0);
	assert_rc(p_attach(r, &none, 1, hwpt), -EINVAL);
	assert_rc(p_attach(r, &none, 0, hwpt), -EBUSY);
	assert_rc(p_detach(r, &m, (1u << 20) - 1), 0);
}

static void replacing(void **state)
{
	struct rig *r = *state;
	struct mock m = mock_add(r, r->ioas, DEV);
	uint32_t a = hwpt_new(r, m.idev, PASID, 0), b = hwpt_new(r, m.idev, PASID, 0);
	uint32_t plain = hwpt_new(r, m.idev, 0, 0);

	assert_rc(replace(r, &m, a), 0);
	assert_rc(p_replace(r, &m, 7, a), -EINVAL);
	assert_rc(p_attach(r, &m, 7, a), 0);
	assert_rc(p_replace(r, &m, 7, a), 0);
	assert_rc(p_replace(r, &m, 7, plain), -EINVAL);
	assert_rc(p_replace(r, &m, 7, r->ioas), -EINVAL);
	assert_rc(p_check(r, &m, 7, a), 0);
	assert_rc(p_replace(r, &m, 7, b), 0);
	assert_rc(p_check(r, &m, 7, b), 0);
	assert_rc(p_detach(r, &m, 7), 0);
	assert_rc(rm(r, b), 0);
	/* The driver fails the second time: the first HWPT stays, with its references. */
	b = hwpt_new(r, m.idev, PASID, 0);
	assert_rc(p_attach(r, &m, MOCK_FAILING_PASID, a), 0);
	assert_rc(p_replace(r, &m, MOCK_FAILING_PASID, b), -ENOMEM);
	assert_rc(p_check(r, &m, MOCK_FAILING_PASID, a), 0);
	assert_rc(rm(r, b), 0);
	assert_rc(p_detach(r, &m, MOCK_FAILING_PASID), 0);
	assert_rc(p_attach(r, &m, MOCK_FAILING_PASID, a), 0);
	assert_rc(p_detach(r, &m, MOCK_FAILING_PASID), 0);
	assert_rc(replace(r, &m, r->ioas), 0);
	assert_rc(rm(r, a), 0);
}

/* Every allocation on the way fails once; then what was before is there still. */
static void out_of_memory(void **state)
{
	struct rig *r = *state;
	struct mock m = mock_add(r, r->ioas, DEV);
	uint32_t a = hwpt_new(r, m.idev, PASID, 0), b = hwpt_new(r, m.idev, PASID, 0);
	unsigned int nth, failed = 0;
	long rc;

	assert_rc(replace(r, &m, a), 0);
	for (nth = 1;; nth++) {
		swi_alloc_fail_nth(nth);
		rc = p_attach(r, &m, 3, a);
		if (!rc)
			rc = p_replace(r, &m, 3, b);
		if (swi_alloc_fail_nth(0))
			break;
		failed += rc != 0;
		assert_true(rc < 0);
		if (!p_check(r, &m, 3, a))
			assert_rc(p_detach(r, &m, 3), 0);
		else if (!p_check(r, &m, 3, b))
			assert_rc(p_detach(r, &m, 3), 0);
		assert_rc(p_check(r, &m, 3, 0), 0);
		assert_true(nth < 100);
	}
	assert_rc(rc, 0);
	assert_true(failed >= 6);
	assert_rc(p_check(r, &m, 3, b), 0);
	assert_rc(p_detach(r, &m, 3), 0);
	assert_rc(rm(r, b), 0);
}

/* Nothing of a PASID that was attached keeps the device or the HWPT. */
static void leaves_nothing(void **state)
{
	struct rig *r = *state;
	struct mock m = mock_add(r, r->ioas, DEV);
	uint32_t a = hwpt_new(r, m.idev, PASID, 0);

	assert_rc(replace(r, &m, a), 0);
	assert_rc(p_attach(r, &m, 3, a), 0);
	assert_rc(p_detach(r, &m, 3), 0);
	assert_rc(rm(r, m.stdev), 0);
	assert_rc(rm(r, m.idev), -ENOENT);
	assert_rc(rm(r, a), 0);
}

/* A device that is freed with PASIDs attached is gone, but for the IDs; and closing is enough. */
static void freed_attached(void **state)
{
	struct rig *r = *state;
	struct mock m = mock_add(r, r->ioas, DEV), next;
	uint32_t a = hwpt_new(r, m.idev, PASID, 0);

	assert_rc(replace(r, &m, a), 0);
	assert_rc(p_attach(r, &m, 3, a), 0);
	assert_rc(p_attach(r, &m, 9, a), 0);
	assert_rc(rm(r, m.stdev), 0);
	assert_rc(rm(r, m.idev), -EBUSY);
	assert_rc(rm(r, a), -EBUSY);
	assert_rc(rm(r, r->ioas), -EBUSY);
	next = mock_add(r, a, DEV);
	assert_int_equal(next.stdev, m.stdev);
	assert_rc(rm(r, next.stdev), 0);
	assert_rc(rm(r, a), -EBUSY);
}

/* Closing is enough, with PASIDs attached: a leak checker sees what stays. */
static void closed_attached(void **state)
{
	struct rig *r = *state;
	struct mock m = mock_add(r, r->ioas, DEV), next;
	uint32_t a = hwpt_new(r, m.idev, PASID, 0), id;
	struct swiommu_options opt = {.test_abi = r->abi};
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};

	assert_rc(replace(r, &m, a), 0);
	assert_rc(p_attach(r, &m, 3, a), 0);
	assert_rc(p_attach(r, &m, 4, a), 0);
	swiommu_close(r->ctx);
	assert_rc(swiommu_open_with(&opt, &r->ctx), 0);
	assert_rc(ioc(r, IOMMU_IOAS_ALLOC, &alloc), 0);
	id = alloc.out_ioas_id;
	next = mock_add(r, id, DEV);
	assert_rc(rm(r, next.stdev), 0);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(needs_compatible), T(limits),		 T(replacing),	    T(out_of_memory),
		T(leaves_nothing),   T(closed_attached), T(freed_attached),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
