// SPDX-License-Identifier: MIT
/* devices.md 9, rows 16 to 45 and 146: HWPT_ALLOC, and what a page table does to its IOAS. */
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "edges.h"

/* ---- the struct (16 to 33) ---------------------------------------------------------------------- */

/* What an ID in a case stands for. */
enum what {
	A_DEVICE,
	A_BAD_ID,
	AN_IOAS,
	A_PLAIN, /* HWPTs */
	A_PARENT,
	AN_AUTO,
	A_NESTED,
	A_QUEUE, /* of faults */
	NR_WHAT,
};

struct alloc_case {
	uint32_t size; /* 0: the right one */
	uint32_t flags;
	enum what dev, pt, fault;
	uint32_t reserved, reserved2;
	uint32_t type, len;
	uint8_t tail; /* of what lies behind the struct */
	long rc;
};

/* Up to three calls in a row, each of which is made twice: by a device that tracks, or that does not. */
struct alloc_row {
	uint32_t dev_flags;
	struct alloc_case cases[3];
};

struct objects {
	struct edge e;
	uint32_t id[NR_WHAT];
};

static void objects_init(struct ctx *c, struct objects *o, uint32_t dev_flags)
{
	int fd;

	edge_init(c, &o->e, dev_flags);
	o->id[A_DEVICE] = o->e.d.idev;
	o->id[A_BAD_ID] = NOBODY;
	o->id[AN_IOAS] = o->e.io;
	o->id[AN_AUTO] = o->e.d.hwpt;
	o->id[A_PLAIN] = hwpt_new(&o->e.d, o->e.io, 0);
	o->id[A_PARENT] = hwpt_new(&o->e.d, o->e.io, NEST);
	o->id[A_NESTED] = nested_new(&o->e.d, o->id[A_PARENT], 0);
	CHECK_RC(fault_queue(c, &o->id[A_QUEUE], &fd), 0);
}

/* A failed call leaves nothing: the next ID is the same. */
static void alloc_one(struct objects *o, const struct alloc_case *a)
{
	union {
		struct iommu_hwpt_alloc cmd;
		uint8_t bytes[128];
	} u = {0};
	struct test_hwpt_data data = {0};
	uint32_t before = next_id(o->e.c);

	u.cmd = (struct iommu_hwpt_alloc){
		.size = a->size ? a->size : sizeof(u.cmd),
		.flags = a->flags,
		.dev_id = o->id[a->dev],
		.pt_id = o->id[a->pt],
		.__reserved = a->reserved,
		.__reserved2 = a->reserved2,
		.data_type = a->type,
		.data_len = a->len,
		.data_uptr = (uintptr_t)&data,
		.fault_id = o->id[a->fault],
	};
	u.bytes[sizeof(u.cmd) + 3] = a->tail;
	CHECK_RC(call(o->e.c, IOMMU_HWPT_ALLOC, &u.cmd), a->rc);
	if (a->rc)
		CHECK_EQ(next_id(o->e.c), before);
	else
		CHECK_EQ(u.cmd.out_hwpt_id, before);
}

static void alloc_cases(struct ctx *c)
{
	const struct alloc_row *row = row_arg();
	struct objects o;

	objects_init(c, &o, row->dev_flags);
	for (size_t i = 0; i < 3 && (row->cases[i].size || row->cases[i].pt); i++)
		alloc_one(&o, &row->cases[i]);
}

#define ALLOC(...) .cases = {__VA_ARGS__}
#define D TEST_TYPE_DATA
#define DLEN sizeof(struct test_hwpt_data)

static const struct alloc_row
	row16 = {ALLOC({.size = 20, .pt = AN_IOAS, .rc = -EINVAL}, {.size = 24, .pt = AN_IOAS})},
	row17 = {ALLOC({.size = 100, .pt = AN_IOAS},
		       {.size = 100, .pt = AN_IOAS, .tail = 1, .rc = -E2BIG})},
	row18 = {ALLOC({.pt = AN_IOAS, .reserved = 1, .rc = -EOPNOTSUPP},
		       {.pt = AN_IOAS, .reserved2 = 7})},
	row19 = {ALLOC({.dev = A_BAD_ID, .pt = AN_IOAS, .len = 4, .rc = -EINVAL},
		       {.dev = A_BAD_ID, .pt = AN_IOAS, .type = D, .rc = -EINVAL})},
	row20 = {ALLOC({.dev = A_BAD_ID, .pt = A_BAD_ID, .rc = -ENOENT})},
	row21 = {ALLOC({.pt = A_BAD_ID, .rc = -EINVAL}, {.size = 48, .pt = A_DEVICE, .rc = -EINVAL},
		       {.pt = A_QUEUE, .rc = -EINVAL})},
	row22 = {ALLOC({.flags = 0x10, .pt = AN_IOAS, .rc = -EOPNOTSUPP},
		       {.flags = 1u << 31, .pt = AN_IOAS, .rc = -EOPNOTSUPP})},
	row23 = {ALLOC(
		{.flags = NEST | FAULT, .pt = AN_IOAS, .fault = A_BAD_ID, .rc = -EOPNOTSUPP})},
	row24 = {ALLOC({.flags = FAULT, .pt = AN_IOAS, .fault = A_BAD_ID, .rc = -ENOENT},
		       {.flags = FAULT, .pt = AN_IOAS, .fault = AN_IOAS, .rc = -ENOENT},
		       {.flags = FAULT, .pt = AN_IOAS, .fault = A_QUEUE})},
	row25 = {ALLOC({.pt = AN_IOAS, .fault = A_BAD_ID})},
	row26 = {ALLOC({.flags = NEST | DIRTY | PASID, .pt = AN_IOAS})},
	row27 = {.dev_flags = TEST_DEV_NO_DIRTY,
		 ALLOC({.flags = DIRTY, .pt = AN_IOAS, .rc = -EOPNOTSUPP})},
	row28 = {ALLOC({.pt = AN_IOAS, .type = D, .len = 3, .rc = -EINVAL},
		       {.pt = AN_IOAS, .type = D, .len = 4},
		       {.pt = AN_IOAS, .type = D, .len = 16, .rc = -EINVAL})},
	row29 = {ALLOC({.pt = A_PLAIN, .rc = -EOPNOTSUPP})},
	row30 = {ALLOC({.pt = A_PLAIN, .type = D, .len = DLEN, .rc = -EINVAL},
		       {.pt = AN_AUTO, .type = D, .len = DLEN, .rc = -EINVAL},
		       {.pt = A_PARENT, .type = D, .len = DLEN})},
	row31 = {ALLOC({.flags = NEST, .pt = A_PARENT, .type = D, .len = DLEN, .rc = -EOPNOTSUPP},
		       {.flags = DIRTY, .pt = A_PARENT, .type = D, .len = DLEN, .rc = -EOPNOTSUPP},
		       {.flags = PASID, .pt = A_PARENT, .type = D, .len = DLEN})},
	row32 = {ALLOC({.pt = A_NESTED, .type = D, .len = DLEN, .rc = -EINVAL},
		       {.pt = A_NESTED, .rc = -EINVAL})};

static void alloc_into_read_only(struct ctx *c)
{
	struct iommu_hwpt_alloc *cmd = (void *)page_end(sizeof(*cmd));
	uint32_t before;
	struct edge e;

	edge_init(c, &e, 0);
	before = next_id(c);
	*cmd = (struct iommu_hwpt_alloc){.size = sizeof(*cmd), .dev_id = e.d.idev, .pt_id = e.io};
	make_read_only(cmd);
	CHECK_RC(call(c, IOMMU_HWPT_ALLOC, cmd), -EFAULT);
	CHECK_EQ(next_id(c), before);
}

/* ---- mappings that do not fit (34 to 39) ---------------------------------------------------------- */

/* Nothing that puts a page table behind io2 works, and io2 stays what it was. */
static void all_refuse(struct edge *e, uint32_t io2, long rc)
{
	struct tdev d2;

	CHECK_RC(hwpt_try(&e->d, io2, 0, NULL), rc);
	check_range(e->c, io2, 0, MAX, 1);
	CHECK_RC(tdev_try(e->c, io2, 0, &d2), rc);
	check_range(e->c, io2, 0, MAX, 1);
	CHECK_RC(tdev_move(&e->d, io2), rc);
	check_range(e->c, io2, 0, MAX, 1);
	CHECK_RC(pasid_check(&e->d, 0, e->d.hwpt), 0);
}

static void below_aperture(struct ctx *c)
{
	uint32_t io2 = ioas_new(c);
	struct edge e;

	CHECK_RC(map_at(c, io2, 0, (uintptr_t)memory(1), PAGE), 0);
	edge_init(c, &e, 0);
	all_refuse(&e, io2, -EADDRINUSE);
}

static void allowed_outside(struct ctx *c)
{
	const struct iommu_iova_range range = {B - PAGE, B + PAGE - 1};
	uint32_t io2 = ioas_new(c);
	struct edge e;

	CHECK_RC(allow(c, io2, 1, &range), 0);
	edge_init(c, &e, 0);
	CHECK_RC(hwpt_try(&e.d, io2, 0, NULL), -EADDRINUSE);
	CHECK_RC(tdev_move(&e.d, io2), -EADDRINUSE);
}

static void too_fine(struct ctx *c)
{
	static const struct {
		uint64_t iova, offset, length;
	} cases[] = {{B + 1, 0, PAGE}, {B, 1, PAGE}, {B, 0, 1000}};
	char *v = memory(2);
	struct edge e;

	edge_init(c, &e, 0);
	for (size_t i = 0; i < 3; i++) {
		uint32_t io2 = ioas_new(c);

		CHECK_RC(map_at(c, io2, cases[i].iova, (uintptr_t)v + cases[i].offset,
				cases[i].length),
			 0);
		all_refuse(&e, io2, -EADDRINUSE);
	}
}

static void fine_enough(struct ctx *c)
{
	uint32_t io2 = ioas_new(c);
	char *v = memory(1);
	struct edge e;

	CHECK_RC(map_at(c, io2, B + MOCK_PAGE, (uintptr_t)v + MOCK_PAGE, MOCK_PAGE), 0);
	edge_init(c, &e, 0);
	CHECK_RC(hwpt_try(&e.d, io2, 0, NULL), 0);
	check_range(c, io2, B, MOCK_LAST, MOCK_PAGE);
}

static void gone_memory(struct ctx *c)
{
	uint32_t io2 = ioas_new(c);
	char *v = memory(2);
	struct edge e;

	CHECK_RC(map_at(c, io2, B, (uintptr_t)v, 2 * PAGE), 0);
	munmap(v + PAGE, PAGE);
	edge_init(c, &e, 0);
	all_refuse(&e, io2, -EFAULT);
}

static void read_only_memory(struct ctx *c)
{
	char *v = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t io2 = ioas_new(c), io3 = ioas_new(c);
	uint64_t iova = B;
	struct edge e;

	edge_init(c, &e, 0);
	CHECK_RC(map_at(c, io2, B, (uintptr_t)v, PAGE), 0);
	CHECK_RC(hwpt_try(&e.d, io2, 0, NULL), -EFAULT);
	CHECK_RC(map(c, io3, FIXED | R, (uintptr_t)v, PAGE, &iova), 0);
	CHECK_RC(hwpt_try(&e.d, io3, 0, NULL), 0);
}

/* ---- accounting (40, 41) -------------------------------------------------------------------------- */

/* An unprivileged process whose limit is 64 KiB, with `pages` mapped in io2: the mapper's privilege counts. */
static uint32_t limited(struct ctx *c, struct edge *e, size_t pages)
{
	uint32_t io2 = ioas_new(c);

	edge_init(c, e, 0);
	set_memlock(64 << 10);
	if (has_cap(CAP_IPC_LOCK))
		drop_cap(CAP_IPC_LOCK);
	CHECK_RC(map_at(c, io2, B, (uintptr_t)memory(pages), pages * PAGE), 0);
	return io2;
}

static void over_the_limit(struct ctx *c)
{
	struct edge e;
	uint32_t io2 = limited(c, &e, 256);

	CHECK_RC(hwpt_try(&e.d, io2, 0, NULL), -ENOMEM);
	check_range(c, io2, 0, MAX, 1);
}

static void pinned_already(struct ctx *c)
{
	struct edge e;
	uint32_t io2 = limited(c, &e, 16);

	CHECK_RC(hwpt_try(&e.d, io2, 0, NULL), 0);
	CHECK_RC(hwpt_try(&e.d, io2, 0, NULL), 0);
}

/* ---- IOVA ranges (42 to 45, 146) ------------------------------------------------------------------- */

static const struct test_hwpt_data other_table = {.table = 1};

static void ranges_of_manual(struct ctx *c)
{
	struct edge e;
	uint32_t io2;

	edge_init(c, &e, 0);
	io2 = ioas_new(c);
	hwpt_new(&e.d, io2, 0);
	check_range(c, io2, B, MOCK_LAST, MOCK_PAGE);
}

static void ranges_of_two_kinds(struct ctx *c)
{
	struct edge e;
	uint32_t io2;

	edge_init(c, &e, 0);
	io2 = ioas_new(c);
	hwpt_new(&e.d, io2, 0);
	CHECK_RC(hwpt_data(&e.d, io2, 0, D, &other_table, DLEN, NULL), 0);
	check_range(c, io2, B, MOCK_LAST, PAGE);
}

static void ranges_of_other_kind(struct ctx *c)
{
	struct edge e;
	uint32_t io2;

	edge_init(c, &e, 0);
	io2 = ioas_new(c);
	CHECK_RC(hwpt_data(&e.d, io2, 0, D, &other_table, DLEN, NULL), 0);
	check_range(c, io2, 0, MOCK_HUGE_LAST, PAGE);
}

static void ranges_of_none(struct ctx *c)
{
	uint32_t io2, hwpt;
	struct edge e;

	edge_init(c, &e, 0);
	io2 = ioas_new(c);
	hwpt = hwpt_new(&e.d, io2, 0);
	CHECK_RC(destroy(c, hwpt), 0);
	check_range(c, io2, 0, MAX, 1);
}

static void huge_pages_too_late(struct ctx *c)
{
	struct edge e;
	uint32_t io2;

	edge_init(c, &e, 0);
	io2 = ioas_new(c);
	hwpt_new(&e.d, io2, 0);
	CHECK_RC(map_at(c, io2, B, (uintptr_t)memory(1), PAGE), 0);
	CHECK_RC(huge_pages_set(c, io2, 0), -EINVAL);
	CHECK_EQ(huge_pages_get(c, io2), 1);
	unmap_expect(c, io2, B, PAGE, PAGE);
	CHECK_RC(huge_pages_set(c, io2, 0), 0);
}

/* Each piece of a file is a mapping of its own: how many there can be is no matter of descriptors. */
static void many_pieces(struct ctx *c)
{
	const struct rlimit few = {64, 64};
	int fd = memfd(400 * PAGE);
	struct edge e;
	char *v;

	edge_init(c, &e, 0);
	v = mmap(NULL, 400 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (v == MAP_FAILED || setrlimit(RLIMIT_NOFILE, &few))
		give_up("a file of 400 pages: %s", strerror(errno));
	for (uint64_t i = 0; i < 400; i++) {
		uint64_t va = B + i * PAGE, file = B + (1000 + i) * PAGE;

		CHECK_RC(map_at(c, e.io, va, (uintptr_t)v + i * PAGE, PAGE), 0);
		CHECK_RC(map_file(c, e.io, FIXED | RW, fd, i * PAGE, PAGE, &file), 0);
	}
	unmap_expect(c, e.io, 0, MAX, 800 * PAGE);
}

static const struct row rows[] = {
	{"d9.16", "HWPT_ALLOC: short structs", alloc_cases, &row16},
	{"d9.17", "HWPT_ALLOC: long structs", alloc_cases, &row17},
	{"d9.18", "HWPT_ALLOC: reserved members", alloc_cases, &row18},
	{"d9.19", "HWPT_ALLOC: type and length before the device", alloc_cases, &row19},
	{"d9.20", "HWPT_ALLOC: the device before the page table", alloc_cases, &row20},
	{"d9.21", "HWPT_ALLOC: on what carries no page table", alloc_cases, &row21},
	{"d9.22", "HWPT_ALLOC: unknown flags", alloc_cases, &row22},
	{"d9.23", "HWPT_ALLOC: a nesting parent takes no faults", alloc_cases, &row23},
	{"d9.24", "HWPT_ALLOC: what is no fault queue", alloc_cases, &row24},
	{"d9.25", "HWPT_ALLOC: fault_id without its flag", alloc_cases, &row25},
	{"d9.26", "HWPT_ALLOC: three flags", alloc_cases, &row26},
	{"d9.27", "HWPT_ALLOC: a device that cannot track", alloc_cases, &row27},
	{"d9.28", "HWPT_ALLOC: length of a driver's data", alloc_cases, &row28},
	{"d9.29", "HWPT_ALLOC: nested without data", alloc_cases, &row29},
	{"d9.30", "HWPT_ALLOC: nested on what is no parent", alloc_cases, &row30},
	{"d9.31", "HWPT_ALLOC: nested with flags", alloc_cases, &row31},
	{"d9.32", "HWPT_ALLOC: nested on nested", alloc_cases, &row32},
	{"d9.33", "HWPT_ALLOC: nowhere to put the ID", alloc_into_read_only, NULL},
	{"d9.34", "a page table under mappings outside its aperture", below_aperture, NULL},
	{"d9.35", "a page table under allowed ranges outside", allowed_outside, NULL},
	{"d9.36", "a page table under mappings too fine", too_fine, NULL},
	{"d9.37", "a page table under a mapping just fine enough", fine_enough, NULL},
	{"d9.38", "a page table under memory that is gone", gone_memory, NULL},
	{"d9.39", "a page table under read-only memory", read_only_memory, NULL},
	{"d9.40", "a page table over the limit of pinned memory", over_the_limit, NULL},
	{"d9.41", "a second page table pins nothing more", pinned_already, NULL},
	{"d9.42", "IOVA_RANGES with an HWPT that nobody uses", ranges_of_manual, NULL},
	{"d9.43", "IOVA_RANGES with two kinds of tables", ranges_of_two_kinds, NULL},
	{"d9.44", "IOVA_RANGES with the other kind", ranges_of_other_kind, NULL},
	{"d9.45", "IOVA_RANGES without the last HWPT", ranges_of_none, NULL},
	{"5.5-pieces", "very many mappings of one file", many_pieces, NULL},
	{"d9.146", "HUGE_PAGES with an HWPT and a mapping", huge_pages_too_late, NULL},
};
ROWS(edges_hwpt, rows);
