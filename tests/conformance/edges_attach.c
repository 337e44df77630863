// SPDX-License-Identifier: MIT
/* devices.md 9, rows 1 to 15 and 46 to 60: attaching, replacing and detaching devices and PASIDs. */
#include "edges.h"
#include "fe_lib.h"

/* ---- devices (1 to 15) -------------------------------------------------------------------------- */

static void destroy_device(struct ctx *c)
{
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(destroy(c, e.d.idev), -EBUSY);
}

static void destroy_nothing(struct ctx *c)
{
	CHECK_RC(destroy(c, 0), -ENOENT);
	CHECK_RC(destroy(c, NOBODY), -ENOENT);
}

static void destroy_auto(struct ctx *c)
{
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(destroy(c, e.d.hwpt), -EBUSY);
	CHECK_RC(pasid_check(&e.d, 0, e.d.hwpt), 0);
}

static void destroy_ioas_with_hwpt(struct ctx *c)
{
	struct edge e;
	uint32_t io2, manual;

	edge_init(c, &e, 0);
	io2 = ioas_new(c);
	manual = hwpt_new(&e.d, io2, 0);
	CHECK_RC(destroy(c, io2), -EBUSY);
	CHECK_RC(destroy(c, manual), 0);
	CHECK_RC(destroy(c, io2), 0);
}

static void second_device(struct ctx *c)
{
	struct tdev d2;
	struct edge e;

	edge_init(c, &e, 0);
	tdev_add(c, e.io, 0, &d2);
	CHECK_EQ(d2.hwpt, e.d.hwpt);
}

static void replace_same_ioas(struct ctx *c)
{
	struct edge e;
	uint32_t pt;

	edge_init(c, &e, 0);
	pt = e.io;
	CHECK_RC(tdev_replace(&e.d, &pt), 0);
	CHECK_EQ(pt, e.d.hwpt);
	CHECK_RC(pasid_check(&e.d, 0, e.d.hwpt), 0);
}

static void replace_leaves_auto(struct ctx *c)
{
	uint32_t manual, pt;
	struct edge e;

	edge_init(c, &e, 0);
	manual = pt = hwpt_new(&e.d, e.io, 0);
	CHECK_RC(tdev_replace(&e.d, &pt), 0);
	CHECK_EQ(pt, manual);
	CHECK_RC(destroy(c, e.d.hwpt), -ENOENT);
}

static void replace_makes_auto(struct ctx *c)
{
	uint32_t manual, lowest, pt;
	struct edge e;

	edge_init(c, &e, 0);
	manual = hwpt_new(&e.d, e.io, 0);
	CHECK_RC(tdev_move(&e.d, manual), 0);
	lowest = next_id(c);
	CHECK_EQ(lowest, e.d.hwpt);
	pt = e.io;
	CHECK_RC(tdev_replace(&e.d, &pt), 0);
	CHECK_EQ(pt, lowest);
	CHECK_RC(destroy(c, manual), 0);
}

static void replace_wrong_type(struct ctx *c)
{
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(tdev_move(&e.d, e.d.idev), -EINVAL);
	CHECK_RC(tdev_move(&e.d, e.d.stdev), -EINVAL);
	CHECK_RC(pasid_check(&e.d, 0, e.d.hwpt), 0);
}

static void replace_nothing(struct ctx *c)
{
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(tdev_move(&e.d, NOBODY), -ENOENT);
	CHECK_RC(tdev_move(&e.d, 0), -ENOENT);
}

static void replace_auto_by_id(struct ctx *c)
{
	uint32_t io2, manual;
	struct tdev d2;
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(tdev_move(&e.d, e.d.hwpt), 0);
	/* Also from elsewhere. */
	io2 = ioas_new(c);
	tdev_add(c, io2, 0, &d2);
	CHECK_RC(tdev_move(&d2, e.d.hwpt), 0);
	CHECK_RC(destroy(c, d2.hwpt), -ENOENT);
	manual = hwpt_new(&e.d, io2, 0);
	CHECK_RC(tdev_move(&e.d, manual), 0);
	CHECK_RC(pasid_check(&d2, 0, e.d.hwpt), 0);
}

static void replace_unattached(struct ctx *c)
{
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(pasid_detach(&e.d, 0), 0);
	CHECK_RC(tdev_move(&e.d, e.io), -EINVAL);
	CHECK_RC(pasid_check(&e.d, 0, 0), 0);
}

static void attach_twice(struct ctx *c)
{
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(pasid_attach(&e.d, 0, e.d.hwpt), -EBUSY);
	CHECK_RC(pasid_attach(&e.d, 0, e.io), -EBUSY);
}

static void detach_twice(struct ctx *c)
{
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(pasid_detach(&e.d, 0), 0);
	CHECK_RC(destroy(c, e.d.hwpt), -ENOENT);
	CHECK_RC(pasid_detach(&e.d, 0), 0);
	CHECK_RC(pasid_attach(&e.d, 0, e.io), 0);
	CHECK_RC(tdev_free(&e.d), 0);
}

static void replace_no_dirty(struct ctx *c)
{
	struct tdev plain;
	uint32_t tracks;
	struct edge e;

	edge_init(c, &e, 0);
	tdev_add(c, e.io, TEST_DEV_NO_DIRTY, &plain);
	tracks = hwpt_new(&e.d, e.io, DIRTY);
	CHECK_RC(tdev_move(&plain, tracks), -EINVAL);
	CHECK_RC(pasid_check(&plain, 0, plain.hwpt), 0);
	CHECK_RC(tdev_move(&e.d, tracks), 0);
}

/* ---- page requests (46) ------------------------------------------------------------------------- */

/* The library's other mock device is behind an IOMMU without page requests. */
static void replace_without_iopf_lib(struct ctx *c)
{
	uint32_t fault, hwpt = 0, pt, io = ioas_new(c);
	struct mock m;
	struct tdev d;
	int fd;

	mock_add(c, io, &m);
	d = (struct tdev){.c = c, .hwpt = m.hwpt_id, .idev = m.idev_id};
	CHECK_RC(fault_queue(c, &fault, &fd), 0);
	CHECK_RC(hwpt_fault(&d, io, FAULT, fault, &hwpt), 0);
	pt = hwpt;
	CHECK_RC(iommufd_device_replace(fe_lib_idev(&m), 0, &pt), -ENODEV);
	CHECK_RC(destroy(c, d.hwpt), -EBUSY);
	CHECK_RC(destroy(c, hwpt), 0);
}

static void replace_without_iopf(struct ctx *c)
{
	uint32_t fault, hwpt = 0;
	struct edge e;
	long rc;
	int fd;

	if (suite.fe == &fe_lib)
		return replace_without_iopf_lib(c);
	edge_init(c, &e, 0);
	CHECK_RC(fault_queue(c, &fault, &fd), 0);
	CHECK_RC(hwpt_fault(&e.d, e.io, FAULT, fault, &hwpt), 0);
	rc = tdev_move(&e.d, hwpt);
	if (!rc)
		skip("no-iopf", "mock devices have page requests here");
	CHECK_RC(rc, -ENODEV);
	CHECK_RC(pasid_check(&e.d, 0, e.d.hwpt), 0);
	CHECK_RC(destroy(c, hwpt), 0);
}

/* ---- PASIDs (47 to 60) -------------------------------------------------------------------------- */

/* A device with PASIDs on an HWPT for them, or not. */
struct pasids {
	struct edge e;
	uint32_t good, plain; /* HWPTs made with and without PASID */
};

static void pasids_init(struct ctx *c, struct pasids *p, bool rid_is_good)
{
	edge_init(c, &p->e, TEST_DEV_PASID);
	p->good = hwpt_new(&p->e.d, p->e.io, PASID);
	p->plain = hwpt_new(&p->e.d, p->e.io, 0);
	CHECK_RC(tdev_move(&p->e.d, rid_is_good ? p->good : p->plain), 0);
}

static void pasid_on_plain_rid(struct ctx *c)
{
	struct pasids p;

	pasids_init(c, &p, false);
	CHECK_RC(pasid_attach(&p.e.d, 1, p.good), -EINVAL);
	CHECK_RC(pasid_check(&p.e.d, 1, 0), 0);
}

static void pasid_to_unfit(struct ctx *c)
{
	struct pasids p;

	pasids_init(c, &p, true);
	CHECK_RC(pasid_attach(&p.e.d, 1, p.e.io), -EINVAL);
	CHECK_RC(pasid_attach(&p.e.d, 1, p.plain), -EINVAL);
	CHECK_RC(pasid_check(&p.e.d, 1, 0), 0);
}

static void pasid_taken(struct ctx *c)
{
	struct pasids p;

	pasids_init(c, &p, true);
	CHECK_RC(pasid_attach(&p.e.d, 1, p.good), 0);
	CHECK_RC(pasid_attach(&p.e.d, 1, p.good), -EBUSY);
	CHECK_RC(pasid_attach(&p.e.d, 1, p.plain), -EBUSY);
	CHECK_RC(pasid_attach(&p.e.d, 1, p.e.io), -EBUSY);
}

static void pasid_limits(struct ctx *c)
{
	struct pasids p;

	pasids_init(c, &p, true);
	CHECK_RC(pasid_attach(&p.e.d, TEST_MAX_PASIDS - 1, p.good), 0);
	CHECK_RC(pasid_attach(&p.e.d, TEST_MAX_PASIDS, p.good), -EINVAL);
	CHECK_RC(pasid_attach(&p.e.d, UINT32_MAX, p.good), -EINVAL);
}

static void pasid_without_rid(struct ctx *c)
{
	struct pasids p;

	pasids_init(c, &p, true);
	CHECK_RC(pasid_detach(&p.e.d, 0), 0);
	CHECK_RC(pasid_attach(&p.e.d, 7, p.good), 0);
	CHECK_RC(pasid_check(&p.e.d, 7, p.good), 0);
}

static void rid_beside_pasids(struct ctx *c)
{
	struct pasids p;

	pasids_init(c, &p, true);
	CHECK_RC(pasid_attach(&p.e.d, 7, p.good), 0);
	CHECK_RC(tdev_move(&p.e.d, p.plain), -EINVAL);
	CHECK_RC(tdev_move(&p.e.d, p.e.io), -EINVAL);
	CHECK_RC(pasid_check(&p.e.d, 0, p.good), 0);
	CHECK_RC(pasid_detach(&p.e.d, 0), 0);
	CHECK_RC(pasid_attach(&p.e.d, 0, p.plain), -EINVAL);
	CHECK_RC(pasid_attach(&p.e.d, 0, p.e.io), -EINVAL);
	CHECK_RC(pasid_check(&p.e.d, 0, 0), 0);
}

static void rid_to_fit(struct ctx *c)
{
	struct pasids p;
	uint32_t other;

	pasids_init(c, &p, true);
	CHECK_RC(pasid_attach(&p.e.d, 7, p.good), 0);
	other = hwpt_new(&p.e.d, p.e.io, PASID);
	CHECK_RC(tdev_move(&p.e.d, other), 0);
	CHECK_RC(pasid_check(&p.e.d, 7, p.good), 0);
}

static void pasid_replace_unattached(struct ctx *c)
{
	struct pasids p;

	pasids_init(c, &p, true);
	CHECK_RC(pasid_replace(&p.e.d, 7, p.good), -EINVAL);
	CHECK_RC(pasid_check(&p.e.d, 7, 0), 0);
}

static void pasid_replace_fails(struct ctx *c)
{
	struct pasids p;
	uint32_t other;

	pasids_init(c, &p, true);
	other = hwpt_new(&p.e.d, p.e.io, PASID);
	CHECK_RC(pasid_attach(&p.e.d, TEST_FAILING_PASID, p.good), 0);
	CHECK_RC(pasid_replace(&p.e.d, TEST_FAILING_PASID, other), -ENOMEM);
	CHECK_RC(pasid_check(&p.e.d, TEST_FAILING_PASID, p.good), 0);
	CHECK_RC(destroy(c, other), 0);
}

static void pasid_replace_same(struct ctx *c)
{
	struct pasids p;

	pasids_init(c, &p, true);
	CHECK_RC(pasid_attach(&p.e.d, 7, p.good), 0);
	CHECK_RC(pasid_replace(&p.e.d, 7, p.good), 0);
	CHECK_RC(pasid_check(&p.e.d, 7, p.good), 0);
}

static void pasid_detach_unattached(struct ctx *c)
{
	struct pasids p;

	pasids_init(c, &p, true);
	CHECK_RC(pasid_detach(&p.e.d, 7), 0);
	CHECK_RC(pasid_check(&p.e.d, 0, p.good), 0);
}

static void pasid_of_none(struct ctx *c)
{
	struct edge e;
	uint32_t good;

	edge_init(c, &e, 0);
	good = hwpt_new(&e.d, e.io, PASID);
	CHECK_RC(tdev_move(&e.d, good), 0);
	CHECK_RC(pasid_attach(&e.d, 1, good), -EINVAL);
	CHECK_RC(pasid_attach(&e.d, UINT32_MAX, good), -EINVAL);
}

static void freed_with_pasid(struct ctx *c)
{
	struct pasids p;

	pasids_init(c, &p, true);
	CHECK_RC(pasid_attach(&p.e.d, 7, p.good), 0);
	CHECK_RC(tdev_free(&p.e.d), 0);
	CHECK_RC(destroy(c, p.e.d.idev), -EBUSY);
	CHECK_RC(destroy(c, p.good), -EBUSY);
	CHECK_RC(destroy(c, p.e.io), -EBUSY);
	CHECK_RC(destroy(c, p.plain), 0);
	/* Whoever looks for leaks does so when the context has been closed. */
}

static void ids_of_others(struct ctx *c)
{
	struct ctx *other = ctx_open();
	uint32_t far = 0, io;
	struct edge e;

	edge_init(c, &e, 0);
	for (int i = 0; i < 20; i++)
		far = ioas_new(other);
	CHECK_RC(hwpt_try(&e.d, far, 0, NULL), -EINVAL);
	CHECK_RC(tdev_move(&e.d, far), -ENOENT);
	ctx_close(other);
	other = ctx_open();
	io = ioas_new(other);
	CHECK(io < e.d.idev);
	e.d.c = other;
	CHECK_RC(hwpt_try(&e.d, io, 0, NULL), -ENOENT);
	ctx_close(other);
}

static const struct row rows[] = {
	{"d9.1", "DESTROY of a bound device", destroy_device, NULL},
	{"d9.2", "DESTROY of nothing", destroy_nothing, NULL},
	{"d9.3", "DESTROY of an automatic HWPT in use", destroy_auto, NULL},
	{"d9.4", "DESTROY of an IOAS with an HWPT", destroy_ioas_with_hwpt, NULL},
	{"d9.5", "a second device shares the automatic HWPT", second_device, NULL},
	{"d9.6", "replace with the same IOAS", replace_same_ioas, NULL},
	{"d9.7", "an automatic HWPT goes with its last user", replace_leaves_auto, NULL},
	{"d9.8", "manual HWPTs are never chosen", replace_makes_auto, NULL},
	{"d9.9", "replace with what is no page table", replace_wrong_type, NULL},
	{"d9.10", "replace with an unused ID", replace_nothing, NULL},
	{"d9.11", "an automatic HWPT named by its ID", replace_auto_by_id, NULL},
	{"d9.12", "replace of what is not attached", replace_unattached, NULL},
	{"d9.13", "attach twice", attach_twice, NULL},
	{"d9.14", "detach twice", detach_twice, NULL},
	{"d9.15", "a device that cannot track and a table that does", replace_no_dirty, NULL},
	{"d9.46", "page requests where there are none", replace_without_iopf, NULL},
	{"d9.47", "a PASID beside a table not for PASIDs", pasid_on_plain_rid, NULL},
	{"d9.48", "a PASID to a table not for PASIDs", pasid_to_unfit, NULL},
	{"d9.49", "a PASID that is taken", pasid_taken, NULL},
	{"d9.50", "the largest PASID", pasid_limits, NULL},
	{"d9.51", "a PASID of a detached device", pasid_without_rid, NULL},
	{"d9.52", "a table not for PASIDs beside one", rid_beside_pasids, NULL},
	{"d9.53", "a table for PASIDs beside one", rid_to_fit, NULL},
	{"d9.54", "replace of a PASID that is not attached", pasid_replace_unattached, NULL},
	{"d9.55", "replace of a PASID that fails", pasid_replace_fails, NULL},
	{"d9.56", "replace of a PASID with the same HWPT", pasid_replace_same, NULL},
	{"d9.57", "detach of a PASID that is not attached", pasid_detach_unattached, NULL},
	{"d9.58", "a PASID of a device that has none", pasid_of_none, NULL},
	{"d9.59", "a device freed with a PASID attached", freed_with_pasid, NULL},
	{"d9.60", "IDs of another context", ids_of_others, NULL},
};
ROWS(edges_attach, rows);
