// SPDX-License-Identifier: MIT
/*
 * devices.md 9, rows 147 to 152: groups of several devices, which mock devices never form. So they are written
 * against the kAPI of the library, with drivers of their own.
 */
#include "edges.h"
#include "fe_lib.h"

/* Behind this one nothing is reserved; behind the other a page is. */
static const struct iommu_driver plain_driver = {
	.name = "plain", .pgsize_bitmap = PAGE, .aperture_last = UINT64_MAX};

#define RESV 0x100000ull
static const struct iommu_resv_region resv = {RESV, RESV + PAGE - 1, IOMMU_RESV_RESERVED};
static const struct iommu_driver resv_driver = {
	.name = "reserving",
	.pgsize_bitmap = PAGE,
	.aperture_last = UINT64_MAX,
	.resv = &resv,
	.nr_resv = 1,
};

/* Makes DMA snoop caches, where the device lets it. */
static const struct iommu_driver coherent_driver = {.name = "coherent",
						    .pgsize_bitmap = PAGE,
						    .aperture_last = UINT64_MAX,
						    .hwpt_flags = IOMMU_HWPT_ALLOC_NEST_PARENT,
						    .enforces_coherency = true};

/* Two devices of one group. */
struct pair {
	struct iommu_group group;
	struct device dev[2];
	struct iommufd_device *idev[2];
	struct tdev d[2]; /* c and idev only */
};

static void pair_init(struct pair *p, const struct iommu_driver *driver)
{
	if (suite.fe != &fe_lib)
		skip("kapi", "only a host of the library makes groups");
	memset(p, 0, sizeof(*p));
	if (iommu_group_init(&p->group, 7))
		give_up("no memory for a group");
	for (int i = 0; i < 2; i++)
		p->dev[i] =
			(struct device){.name = "of a pair", .group = &p->group, .iommu = driver};
}

static long bind(struct ctx *c, struct pair *p, int i)
{
	struct iommufd_device *idev =
		iommufd_device_bind(fe_lib_ictx(c), &p->dev[i], &p->d[i].idev);

	p->d[i].c = c;
	if (IS_ERR(idev))
		return PTR_ERR(idev);
	p->idev[i] = idev;
	return 0;
}

static void pair_fini(struct pair *p)
{
	for (int i = 0; i < 2; i++) {
		if (!p->idev[i])
			continue;
		iommufd_device_detach(p->idev[i], 0);
		iommufd_device_unbind(p->idev[i]);
	}
	iommu_group_fini(&p->group);
}

static long attach(struct pair *p, int i, uint32_t pt)
{
	return iommufd_device_attach(p->idev[i], 0, &pt);
}

static void owned_by_another(struct ctx *c)
{
	struct ctx *other;
	struct pair p;

	pair_init(&p, &plain_driver);
	other = ctx_open();
	/* Somebody who is no context, as a driver of the kernel. */
	CHECK_RC(iommu_group_claim_dma_owner(&p.group, &plain_driver), 0);
	CHECK_RC(bind(c, &p, 0), -EPERM);
	iommu_group_release_dma_owner(&p.group);
	CHECK_RC(bind(c, &p, 0), 0);
	CHECK_RC(bind(other, &p, 1), -EPERM);
	CHECK_RC(bind(c, &p, 1), 0);
	pair_fini(&p);
	ctx_close(other);
}

static void group_of_two_minds(struct ctx *c)
{
	uint32_t io = ioas_new(c), one, two;
	struct pair p;

	pair_init(&p, &plain_driver);
	CHECK_RC(bind(c, &p, 0), 0);
	CHECK_RC(bind(c, &p, 1), 0);
	one = hwpt_new(&p.d[0], io, 0);
	two = hwpt_new(&p.d[1], io, 0);
	CHECK_RC(attach(&p, 0, one), 0);
	CHECK_RC(attach(&p, 1, two), -EINVAL);
	CHECK_RC(attach(&p, 1, ioas_new(c)), -EINVAL);
	CHECK_RC(attach(&p, 1, one), 0);
	pair_fini(&p);
	CHECK_RC(destroy(c, one), 0);
	CHECK_RC(destroy(c, two), 0);
	CHECK_RC(destroy(c, io), 0);
}

static void region_hits(struct ctx *c)
{
	uint32_t io = ioas_new(c);
	struct pair p;

	pair_init(&p, &resv_driver);
	CHECK_RC(map_at(c, io, RESV, (uintptr_t)memory(1), PAGE), 0);
	CHECK_RC(bind(c, &p, 0), 0);
	CHECK_RC(attach(&p, 0, io), -EADDRINUSE);
	check_range(c, io, 0, MAX, 1);
	unmap_expect(c, io, RESV, PAGE, PAGE);
	CHECK_RC(attach(&p, 0, io), 0);
	CHECK_RC(map_at(c, io, RESV, (uintptr_t)memory(1), PAGE), -EINVAL);
	pair_fini(&p);
	check_range(c, io, 0, MAX, 1);
}

static void region_hits_on_replace(struct ctx *c)
{
	uint32_t io = ioas_new(c), io2 = ioas_new(c), pt, was;
	struct pair p;

	pair_init(&p, &resv_driver);
	CHECK_RC(map_at(c, io2, RESV, (uintptr_t)memory(1), PAGE), 0);
	CHECK_RC(bind(c, &p, 0), 0);
	CHECK_RC(bind(c, &p, 1), 0);
	was = io;
	CHECK_RC(iommufd_device_attach(p.idev[0], 0, &was), 0);
	CHECK_RC(attach(&p, 1, io), 0);
	pt = io2;
	CHECK_RC(iommufd_device_replace(p.idev[0], 0, &pt), -EADDRINUSE);
	check_range(c, io2, 0, MAX, 1);
	/* The old one is there still, and so are its regions. */
	CHECK_RC(destroy(c, was), -EBUSY);
	CHECK_RC(map_at(c, io, RESV, (uintptr_t)memory(1), PAGE), -EINVAL);
	unmap_expect(c, io2, RESV, PAGE, PAGE);
	pt = io2;
	CHECK_RC(iommufd_device_replace(p.idev[0], 0, &pt), 0);
	CHECK_RC(destroy(c, was), -ENOENT);
	check_range(c, io, 0, MAX, 1);
	pair_fini(&p);
}

/* [Q] of 1.12: a replace that fails within one IOAS takes no regions away. */
static void replace_keeps_regions(struct ctx *c)
{
	uint32_t io = ioas_new(c), other = ioas_new(c), pt;
	struct pair p, q;

	pair_init(&p, &resv_driver);
	pair_init(&q, &plain_driver);
	CHECK_RC(bind(c, &p, 0), 0);
	CHECK_RC(bind(c, &q, 0), 0);
	CHECK_RC(attach(&p, 0, io), 0);
	/* Made for another IOMMU. */
	pt = hwpt_new(&q.d[0], io, 0);
	CHECK_RC(iommufd_device_replace(p.idev[0], 0, &pt), -EINVAL);
	CHECK_RC(map_at(c, io, RESV, (uintptr_t)memory(1), PAGE), -EINVAL);
	CHECK_RC(map_at(c, other, RESV, (uintptr_t)memory(1), PAGE), 0);
	pair_fini(&p);
	pair_fini(&q);
}

/* [Q] of 1.13: detaching a device that is not attached, while the other one is. */
static void detach_of_the_other(struct ctx *c)
{
	uint32_t io = ioas_new(c), pt = io;
	struct pair p;

	pair_init(&p, &plain_driver);
	CHECK_RC(bind(c, &p, 0), 0);
	CHECK_RC(bind(c, &p, 1), 0);
	CHECK_RC(iommufd_device_attach(p.idev[0], 0, &pt), 0);
	iommufd_device_detach(p.idev[1], 0);
	iommufd_device_detach(p.idev[1], 0);
	CHECK_RC(destroy(c, pt), -EBUSY);
	CHECK_RC(attach(&p, 1, pt), 0);
	iommufd_device_detach(p.idev[0], 0);
	CHECK_RC(destroy(c, pt), -EBUSY);
	iommufd_device_detach(p.idev[1], 0);
	CHECK_RC(destroy(c, pt), -ENOENT);
	pair_fini(&p);
}

static void not_isolated(struct ctx *c)
{
	uint32_t next = next_id(c);
	struct pair p;

	pair_init(&p, &plain_driver);
	p.group.unsafe_interrupts = true;
	CHECK_RC(bind(c, &p, 0), -EPERM);
	CHECK_EQ(next_id(c), next);
	CHECK(!iommu_group_dma_owner_claimed(&p.group));
	/* The switch is looked at when a device is bound, and at no other time. */
	swiommu_allow_unsafe_interrupts(fe_lib_ictx(c), true);
	CHECK_RC(bind(c, &p, 0), 0);
	swiommu_allow_unsafe_interrupts(fe_lib_ictx(c), false);
	CHECK_RC(bind(c, &p, 1), -EPERM);
	CHECK_RC(attach(&p, 0, ioas_new(c)), 0);
	pair_fini(&p);
}

/* Two devices of groups of their own. */
static void not_coherent(struct ctx *c)
{
	uint32_t io = ioas_new(c), nest, one, other;
	struct pair p, q;

	pair_init(&p, &coherent_driver);
	pair_init(&q, &coherent_driver);
	q.dev[0].no_enforce = true;
	CHECK_RC(bind(c, &p, 0), 0);
	CHECK_RC(bind(c, &q, 0), 0);
	nest = hwpt_new(&p.d[0], io, NEST);
	CHECK_RC(attach(&p, 0, nest), 0);
	CHECK_RC(attach(&q, 0, nest), -EINVAL);
	iommufd_device_detach(p.idev[0], 0);
	/* The automatic one of the first is not for the second, which gets its own. */
	one = io;
	CHECK_RC(iommufd_device_attach(p.idev[0], 0, &one), 0);
	CHECK_RC(attach(&q, 0, one), -EINVAL);
	other = io;
	CHECK_RC(iommufd_device_attach(q.idev[0], 0, &other), 0);
	CHECK(other != one && other != nest);
	/* One that enforces nothing is for both. */
	CHECK_RC(iommufd_device_replace(p.idev[0], 0, &other), 0);
	CHECK_RC(destroy(c, one), -ENOENT);
	pair_fini(&p);
	pair_fini(&q);
	CHECK_RC(destroy(c, nest), 0);
	CHECK_RC(destroy(c, io), 0);
}

static const struct row rows[] = {
	{"d9.147", "a group belongs to one context", owned_by_another, NULL},
	{"d9.148", "a group whose interrupts are not isolated", not_isolated, NULL},
	{"d9.149", "a group is in one place", group_of_two_minds, NULL},
	{"d9.150", "reserved regions on mappings", region_hits, NULL},
	{"d9.151", "reserved regions of all members on mappings", region_hits_on_replace, NULL},
	{"d9.152", "coherency", not_coherent, NULL},
	{"d1.12-Q", "a failed replace keeps reserved regions", replace_keeps_regions, NULL},
	{"d1.13-Q", "detach of a member that is not attached", detach_of_the_other, NULL},
};
ROWS(edges_group, rows);
