// SPDX-License-Identifier: MIT
/* Bind, attach, replace, detach: groups, automatic HWPTs, and what a failure leaves behind. */
#include "support.h"

#define BASE 0x1000000ull

static const struct iommu_resv_region window[] = {{0x8000000, 0x8ffffff, IOMMU_RESV_MSI}};
static const struct iommu_driver narrow = {.name = "narrow",
					   .pgsize_bitmap = 2048 | PAGE,
					   .aperture_first = BASE,
					   .aperture_last = 0x7fffffff,
					   .resv = window,
					   .nr_resv = 1};
static const struct iommu_driver wide = {.name = "wide",
					 .pgsize_bitmap = PAGE,
					 .aperture_first = 0,
					 .aperture_last = (1ull << 40) - 1};

struct rig {
	struct iommufd_ctx *ctx;
	struct iommu_group group[2];
	struct device dev[3]; /* 0 and 1 in group 0, narrow; 2 in group 1, wide */
	struct iommufd_device *idev[3];
	uint32_t id[3];
	struct swiommu_dma *dma[3];
	uint32_t ioas[2]; /* each with a page at BASE whose bytes are the index + 1 */
	char *page[2];
};

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig->ctx = ctx_new(NULL);
	for (int i = 0; i < 2; i++) {
		assert_rc(iommu_group_init(&rig->group[i], i), 0);
		rig->ioas[i] = ioas_new(rig->ctx);
		rig->page[i] = memory(1);
		memset(rig->page[i], i + 1, PAGE);
		assert_rc(map(rig->ctx, rig->ioas[i], RW, BASE, rig->page[i], PAGE), 0);
	}
	for (int i = 0; i < 3; i++) {
		rig->dev[i] = (struct device){.name = "dev",
					      .group = &rig->group[i / 2],
					      .iommu = i == 2 ? &wide : &narrow};
		rig->idev[i] = iommufd_device_bind(rig->ctx, &rig->dev[i], &rig->id[i]);
		assert_false(IS_ERR(rig->idev[i]));
		assert_rc(swiommu_dma_open(rig->idev[i], &rig->dma[i]), 0);
	}
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	for (int i = 0; i < 3; i++) {
		swiommu_dma_close(rig->dma[i]);
		iommufd_device_unbind(rig->idev[i]);
	}
	/* Nothing may be left but the two IOASes. */
	for (uint32_t id = 3; id < 12; id++)
		assert_rc(destroy(rig->ctx, id), -ENOENT);
	for (int i = 0; i < 2; i++) {
		assert_rc(destroy(rig->ctx, rig->ioas[i]), 0);
		iommu_group_fini(&rig->group[i]);
		munmap(rig->page[i], PAGE);
	}
	swiommu_close(rig->ctx);
	free(rig);
	return 0;
}

static long attach(struct rig *rig, int dev, uint32_t *pt)
{
	return iommufd_device_attach(rig->idev[dev], 0, pt);
}

static uint32_t attach_ioas(struct rig *rig, int dev, int ioas)
{
	uint32_t pt = rig->ioas[ioas];

	assert_rc(attach(rig, dev, &pt), 0);
	assert_int_not_equal(pt, rig->ioas[ioas]);
	return pt;
}

static long replace(struct rig *rig, int dev, uint32_t pt)
{
	return iommufd_device_replace(rig->idev[dev], 0, &pt);
}

static void detach(struct rig *rig, int dev)
{
	iommufd_device_detach(rig->idev[dev], 0);
}

/* Which IOAS the device's DMA meets: 0 or 1, or an errno. */
static long where(struct rig *rig, int dev)
{
	char c = 0;
	int rc = swiommu_dma_read(rig->dma[dev], BASE + 17, &c, 1);

	return rc ? rc : c - 1;
}

static void ids_and_context(void **state)
{
	struct rig *rig = *state;
	struct iommu_group stranger;

	for (int i = 0; i < 3; i++) {
		assert_int_equal(rig->id[i], 3 + i);
		assert_int_equal(iommufd_device_to_id(rig->idev[i]), rig->id[i]);
		assert_ptr_equal(iommufd_device_to_ictx(rig->idev[i]), rig->ctx);
		assert_rc(destroy(rig->ctx, rig->id[i]), -EBUSY);
		assert_rc(where(rig, i), -ENXIO);
	}
	assert_rc(iommu_group_init(&stranger, 9), 0);
	assert_true(iommufd_ctx_has_group(rig->ctx, &rig->group[0]));
	assert_true(iommufd_ctx_has_group(rig->ctx, &rig->group[1]));
	assert_false(iommufd_ctx_has_group(rig->ctx, &stranger));
	assert_false(iommufd_ctx_has_group(rig->ctx, NULL));
	assert_false(iommufd_ctx_has_group(NULL, &rig->group[0]));
	iommu_group_fini(&stranger);
}

static void a_group_belongs_to_one_context(void **state)
{
	struct rig *rig = *state;
	struct iommufd_ctx *other = ctx_new(NULL);
	struct device dev = {.name = "late", .group = &rig->group[0], .iommu = &narrow};
	struct iommufd_device *idev;
	uint32_t id = 77;

	idev = iommufd_device_bind(other, &dev, &id);
	assert_true(IS_ERR(idev));
	assert_rc(PTR_ERR(idev), -EPERM);
	assert_int_equal(id, 77);
	assert_false(iommufd_ctx_has_group(other, &rig->group[0]));
	/* Only when the last member has gone. */
	swiommu_dma_close(rig->dma[0]);
	iommufd_device_unbind(rig->idev[0]);
	assert_rc(PTR_ERR(iommufd_device_bind(other, &dev, &id)), -EPERM);
	swiommu_dma_close(rig->dma[1]);
	iommufd_device_unbind(rig->idev[1]);
	assert_false(iommufd_ctx_has_group(rig->ctx, &rig->group[0]));
	idev = iommufd_device_bind(other, &dev, &id);
	assert_false(IS_ERR(idev));
	assert_int_equal(id, 1);
	assert_rc(PTR_ERR(iommufd_device_bind(rig->ctx, &rig->dev[0], &id)), -EPERM);
	iommufd_device_unbind(idev);
	for (int i = 0; i < 2; i++) {
		rig->idev[i] = iommufd_device_bind(rig->ctx, &rig->dev[i], &rig->id[i]);
		assert_false(IS_ERR(rig->idev[i]));
		assert_rc(swiommu_dma_open(rig->idev[i], &rig->dma[i]), 0);
	}
	swiommu_close(other);
}

static void what_cannot_be_bound(void **state)
{
	struct rig *rig = *state;
	struct device no_iommu = {.name = "a", .group = &rig->group[1]};
	struct device no_group = {.name = "b", .iommu = &wide};
	uint32_t id;

	assert_rc(PTR_ERR(iommufd_device_bind(rig->ctx, &no_iommu, &id)), -EINVAL);
	assert_rc(PTR_ERR(iommufd_device_bind(rig->ctx, &no_group, &id)), -ENODEV);
	/* Their IDs are free again. */
	assert_int_equal(ioas_new(rig->ctx), 6);
	assert_rc(destroy(rig->ctx, 6), 0);
}

/* A bound device keeps the context, as an open file does. */
static void a_device_keeps_the_context(void **state)
{
	struct iommufd_ctx *ctx = ctx_new(NULL);
	struct iommu_group group;
	struct device dev = {.name = "dev", .group = &group, .iommu = &wide};
	struct iommufd_device *idev;
	char *v = memory(1), c = 0;
	struct swiommu_dma *dma;
	uint32_t id, pt = ioas_new(ctx);

	(void)state;
	assert_rc(iommu_group_init(&group, 0), 0);
	idev = iommufd_device_bind(ctx, &dev, &id);
	assert_rc(map(ctx, pt, R, 0x1000, v, PAGE), 0);
	v[5] = 'x';
	assert_rc(iommufd_device_attach(idev, 0, &pt), 0);
	swiommu_close(ctx);
	assert_rc(swiommu_dma_open(idev, &dma), 0);
	assert_rc(swiommu_dma_read(dma, 0x1005, &c, 1), 0);
	assert_int_equal(c, 'x');
	swiommu_dma_close(dma);
	iommufd_device_detach(idev, 0);
	iommufd_device_unbind(idev);
	iommu_group_fini(&group);
	munmap(v, PAGE);
}

/* A host's mistake: nothing of the engine may refer to what it frees then, nor stay when the context ends. */
static void unbound_while_attached(void **state)
{
	struct iommufd_ctx *ctx = ctx_new(NULL);
	struct iommu_group *group = malloc(sizeof(*group));
	struct device *dev = calloc(1, sizeof(*dev));
	struct iommu_hw_info info = {.size = sizeof(info)};
	uint32_t io = ioas_new(ctx), pt = io, id;
	struct iommufd_device *idev;
	char *v = memory(1);

	(void)state;
	assert_rc(iommu_group_init(group, 0), 0);
	*dev = (struct device){.name = "dev", .group = group, .iommu = &wide};
	idev = iommufd_device_bind(ctx, dev, &id);
	assert_rc(iommufd_device_attach(idev, 0, &pt), 0);
	iommufd_device_unbind(idev);
	iommu_group_fini(group);
	free(group);
	free(dev);
	info.dev_id = id;
	assert_rc(call(ctx, IOMMU_GET_HW_INFO, &info), -ENOENT);
	assert_rc(destroy(ctx, id), -EBUSY);
	assert_rc(destroy(ctx, pt), -EBUSY);
	assert_rc(destroy(ctx, io), -EBUSY);
	assert_rc(map(ctx, io, RW, 0x1000, v, PAGE), 0);
	swiommu_close(ctx);
	munmap(v, PAGE);
}

static void the_automatic_hwpt_comes_and_goes(void **state)
{
	struct rig *rig = *state;
	uint64_t align;
	uint32_t one = attach_ioas(rig, 0, 0);

	assert_int_equal(one, 6);
	assert_rc(where(rig, 0), 0);
	assert_rc(destroy(rig->ctx, one), -EBUSY);
	assert_rc(destroy(rig->ctx, rig->ioas[0]), -EBUSY);
	assert_true(first_range(rig->ctx, rig->ioas[0], &align).start == BASE);
	assert_int_equal(align, 2048);
	/* Another driver needs another page table. */
	assert_int_equal(attach_ioas(rig, 2, 0), 7);
	assert_true(first_range(rig->ctx, rig->ioas[0], &align).start == BASE);
	assert_int_equal(align, PAGE);
	detach(rig, 0);
	assert_rc(where(rig, 0), -ENXIO);
	assert_rc(where(rig, 2), 0);
	assert_rc(destroy(rig->ctx, one), -ENOENT);
	assert_true(first_range(rig->ctx, rig->ioas[0], &align).start == 0);
	detach(rig, 2);
	first_range(rig->ctx, rig->ioas[0], &align);
	assert_int_equal(align, 1);
	detach(rig, 2); /* of what is not attached: nothing */
}

static void members_share_the_page_table(void **state)
{
	struct rig *rig = *state;
	uint32_t pt = attach_ioas(rig, 0, 0), other = rig->ioas[1];

	/* The second member must go where the first one is. */
	assert_rc(attach(rig, 1, &other), -EINVAL);
	assert_string_not_equal(swiommu_device_reason(rig->idev[1]), "");
	assert_rc(where(rig, 1), -ENXIO);
	assert_int_equal(attach_ioas(rig, 1, 0), pt);
	assert_rc(attach(rig, 1, &pt), -EBUSY);
	detach(rig, 0);
	assert_rc(where(rig, 0), -ENXIO);
	assert_rc(where(rig, 1), 0);
	assert_rc(attach(rig, 0, &pt), 0); /* by the HWPT's ID */
	assert_rc(where(rig, 0), 0);
	detach(rig, 0);
	detach(rig, 1);
	assert_int_equal(attach_ioas(rig, 1, 1), pt); /* its ID is free again */
	detach(rig, 1);
}

static void replace_moves_the_group(void **state)
{
	struct rig *rig = *state;
	uint32_t pt = rig->ioas[1];

	assert_rc(replace(rig, 0, rig->ioas[1]), -EINVAL); /* not attached */
	attach_ioas(rig, 0, 0);
	attach_ioas(rig, 1, 0);
	assert_rc(iommufd_device_replace(rig->idev[1], 0, &pt), 0);
	assert_rc(where(rig, 0), 1);
	assert_rc(where(rig, 1), 1);
	assert_rc(destroy(rig->ctx, 6), -ENOENT); /* the old HWPT */
	assert_rc(destroy(rig->ctx, pt), -EBUSY);
	assert_true(first_range(rig->ctx, rig->ioas[0], NULL).start == 0);
	assert_rc(replace(rig, 0, rig->ioas[1]), 0); /* to where it is */
	assert_rc(where(rig, 1), 1);
	detach(rig, 0);
	detach(rig, 1);
}

static void a_failed_replace_changes_nothing(void **state)
{
	struct rig *rig = *state;
	uint32_t low = ioas_new(rig->ctx), bad = ioas_new(rig->ctx), hit = ioas_new(rig->ctx);
	char *hole = memory(1);

	attach_ioas(rig, 0, 0);
	attach_ioas(rig, 1, 0);
	munmap(hole, PAGE);
	assert_rc(map(rig->ctx, low, RW, 0, rig->page[0], PAGE), 0);
	assert_rc(map(rig->ctx, bad, RW, BASE, hole, PAGE), 0);
	assert_rc(map(rig->ctx, hit, RW, window[0].first, rig->page[0], PAGE), 0);
	assert_rc(replace(rig, 0, low), -EADDRINUSE);
	assert_rc(replace(rig, 0, bad), -EFAULT);
	assert_rc(replace(rig, 0, hit), -EADDRINUSE);
	assert_non_null(strstr(swiommu_device_reason(rig->idev[0]), "reserved"));
	assert_rc(replace(rig, 0, 99), -ENOENT);
	assert_rc(replace(rig, 0, rig->id[1]), -EINVAL);
	assert_rc(where(rig, 0), 0);
	assert_rc(where(rig, 1), 0);
	/* The IOASes that refused are as they were. */
	assert_true(first_range(rig->ctx, hit, NULL).last == UINT64_MAX);
	assert_rc(destroy(rig->ctx, low), 0);
	assert_rc(destroy(rig->ctx, bad), 0);
	assert_rc(destroy(rig->ctx, hit), 0);
	detach(rig, 0);
	detach(rig, 1);
}

static void what_cannot_be_attached(void **state)
{
	struct rig *rig = *state;
	uint32_t pt = 99, hwpt;

	assert_rc(attach(rig, 0, &pt), -ENOENT);
	pt = rig->id[1];
	assert_rc(attach(rig, 0, &pt), -EINVAL);
	hwpt = attach_ioas(rig, 2, 0);
	assert_rc(attach(rig, 0, &hwpt), -EINVAL); /* another driver's */
	pt = rig->ioas[0];
	assert_rc(iommufd_device_attach(rig->idev[0], 5, &pt), -EINVAL); /* PASIDs: not this one */
	assert_rc(where(rig, 0), -ENXIO);
	detach(rig, 2);
}

static void reserved_regions(void **state)
{
	struct rig *rig = *state;

	attach_ioas(rig, 0, 0);
	assert_rc(map(rig->ctx, rig->ioas[0], RW, window[0].first - PAGE, rig->page[0], PAGE), 0);
	assert_rc(map(rig->ctx, rig->ioas[0], RW, window[0].first, rig->page[0], PAGE), -EINVAL);
	assert_rc(map(rig->ctx, rig->ioas[0], RW, window[0].last + 1, rig->page[0], PAGE), 0);
	detach(rig, 0);
	assert_rc(map(rig->ctx, rig->ioas[0], RW, window[0].first, rig->page[0], PAGE), 0);
	assert_rc(unmap(rig->ctx, rig->ioas[0], window[0].first - PAGE, 0x1000000 + 2 * PAGE), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(ids_and_context),
		T(a_group_belongs_to_one_context),
		T(what_cannot_be_bound),
		cmocka_unit_test(a_device_keeps_the_context),
		cmocka_unit_test(unbound_while_attached),
		T(the_automatic_hwpt_comes_and_goes),
		T(members_share_the_page_table),
		T(replace_moves_the_group),
		T(a_failed_replace_changes_nothing),
		T(what_cannot_be_attached),
		T(reserved_regions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
