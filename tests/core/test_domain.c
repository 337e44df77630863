// SPDX-License-Identifier: MIT
/*
 * Page tables behind HWPTs: equal to the mappings of the IOAS at every moment, in leaves as large as they should be.
 *
 * The random test keeps a flat model of two IOASes, a struct page for each page of their windows, and compares the
 * table of every HWPT with it: through the table and the physical address to the backing, and by DMA. Each operation is
 * tried with every allocation of it failing first, and must leave the model's state as it was.
 */
#include "support.h"

#include <time.h>

#include "base/alloc.h"
#include "core/hwpt.h"

#define BASE (1ull << 32)
#define PAGES 1600u /* of a window; three leaves of 2 MiB and a bit */
#define MIB (1ull << 20)
#define GIB (1ull << 30)

static const struct iommu_driver drivers[] = {
	{.name = "vtd",
	 .pgsize_bitmap = PAGE | 2 * MIB | GIB,
	 .aperture_last = (1ull << 48) - 1,
	 .pt_format = IOMMU_PT_VTDSS,
	 .enforces_coherency = true},
	{.name = "amd", .pgsize_bitmap = -PAGE, .aperture_last = UINT64_MAX},
	{.name = "amd-2k",
	 .pgsize_bitmap = ((1ull << 37) - 1) & -2048ull,
	 .aperture_last = (1ull << 38) - 1,
	 .pt_format = IOMMU_PT_AMDV1_2K},
	{.name = "amd-2k-wide", .pgsize_bitmap = 2048, .aperture_last = UINT64_MAX >> 1},
	{.name = "x86",
	 .pgsize_bitmap = PAGE | 2 * MIB,
	 .aperture_last = (1ull << 47) - 1,
	 .pt_format = IOMMU_PT_X86_64},
	{.name = "riscv",
	 .pgsize_bitmap = PAGE | 2 * MIB | GIB,
	 .aperture_last = (1ull << 38) - 1,
	 .pt_format = IOMMU_PT_RISCV64},
};
#define DRIVERS ((unsigned)(sizeof(drivers) / sizeof(drivers[0])))

struct rig {
	struct iommufd_ctx *ctx;
	struct iommu_group group[DRIVERS];
	struct device dev[DRIVERS];
	struct iommufd_device *idev[DRIVERS];
	uint32_t dev_id[DRIVERS];
	uint32_t ioas[2];
};

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig->ctx = ctx_new(NULL);
	for (unsigned i = 0; i < DRIVERS; i++) {
		assert_rc(iommu_group_init(&rig->group[i], i), 0);
		rig->dev[i] = (struct device){.name = drivers[i].name,
					      .group = &rig->group[i],
					      .iommu = &drivers[i],
					      .dirty_tracking = i < 4};
		rig->idev[i] = iommufd_device_bind(rig->ctx, &rig->dev[i], &rig->dev_id[i]);
		assert_false(IS_ERR(rig->idev[i]));
	}
	for (unsigned i = 0; i < 2; i++)
		rig->ioas[i] = ioas_new(rig->ctx);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	for (unsigned i = 0; i < DRIVERS; i++) {
		iommufd_device_detach(rig->idev[i], 0);
		iommufd_device_unbind(rig->idev[i]);
		iommu_group_fini(&rig->group[i]);
	}
	swiommu_close(rig->ctx);
	free(rig);
	return 0;
}

static long hwpt_new(struct rig *rig, unsigned dev, unsigned ioas, uint32_t flags, uint32_t *id)
{
	struct iommu_hwpt_alloc cmd = {.size = sizeof(cmd),
				       .flags = flags,
				       .dev_id = rig->dev_id[dev],
				       .pt_id = rig->ioas[ioas]};
	long rc = call(rig->ctx, IOMMU_HWPT_ALLOC, &cmd);

	*id = cmd.out_hwpt_id;
	return rc;
}

static struct hwpt *hwpt_get(struct rig *rig, uint32_t id)
{
	struct obj *obj;

	assert_rc(obj_get(rig->ctx, id, OBJ_HWPT_PAGING, "", NULL, &obj), 0);
	return hwpt_of(obj);
}

static struct pgtable_leaf leaf_at(struct rig *rig, uint32_t id, uint64_t iova)
{
	struct hwpt *hwpt = hwpt_get(rig, id);
	struct pgtable_leaf leaf = {0};

	pgtable_lookup(hwpt->tables.table, iova, &leaf);
	obj_put(&hwpt->obj);
	return leaf;
}

/* Memory that begins at a multiple of `align`. Nothing is unmapped: the process ends soon. */
static char *aligned_memory(size_t size, size_t align)
{
	char *p = mmap(NULL, size + align, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(p != MAP_FAILED);
	return (char *)(((uintptr_t)p + align - 1) & -align);
}

/* ---- leaves -------------------------------------------------------------------------------------- */

static void leaves_are_large(void **state)
{
	struct rig *rig = *state;
	char *memory = aligned_memory(2 * GIB, GIB);
	struct pgtable_leaf leaf;
	uint32_t vtd, amd;

	assert_rc(hwpt_new(rig, 0, 0, 0, &vtd), 0);
	assert_rc(hwpt_new(rig, 1, 0, 0, &amd), 0);
	/* One leaf each. */
	assert_rc(map(rig->ctx, rig->ioas[0], RW, BASE, memory, GIB), 0);
	leaf = leaf_at(rig, vtd, BASE + 12345);
	assert_true(leaf.iova == BASE && leaf.length == GIB && leaf.level == 2);
	assert_true(leaf.entry &
		    1ull << 11); /* VT-d's snoop bit, as the driver enforces coherency */
	leaf = leaf_at(rig, amd, BASE + 12345);
	assert_true(leaf.iova == BASE && leaf.length == GIB);
	assert_rc(unmap(rig->ctx, rig->ioas[0], BASE, GIB), 0);
	assert_rc(map(rig->ctx, rig->ioas[0], R, BASE, memory + 2 * MIB, 2 * MIB), 0);
	leaf = leaf_at(rig, vtd, BASE);
	assert_true(leaf.length == 2 * MIB && leaf.level == 1 && leaf.prot == SWI_READ);
	/* From 64 KiB below a border on: what fits before it and after it. */
	assert_rc(map(rig->ctx, rig->ioas[0], W, BASE + GIB - 64 * 1024, memory + GIB - 64 * 1024,
		      4 * MIB + 128 * 1024),
		  0);
	leaf = leaf_at(rig, vtd, BASE + GIB - 1);
	assert_true(leaf.length == PAGE && leaf.prot == SWI_WRITE);
	leaf = leaf_at(rig, vtd, BASE + GIB);
	assert_true(leaf.length == 2 * MIB);
	leaf = leaf_at(rig, vtd, BASE + GIB + 4 * MIB);
	assert_true(leaf.length == PAGE);
	leaf = leaf_at(rig, amd, BASE + GIB - 1);
	assert_true(leaf.length == 64 * 1024);
	leaf = leaf_at(rig, amd, BASE + GIB);
	assert_true(leaf.length == 4 * MIB);
	/* Memory and IOVA out of step. */
	assert_rc(map(rig->ctx, rig->ioas[0], RW, 4 * BASE, memory + PAGE, 4 * MIB), 0);
	leaf = leaf_at(rig, vtd, 4 * BASE + MIB);
	assert_true(leaf.length == PAGE);
}

static void leaves_are_small_where_they_tell(void **state)
{
	struct rig *rig = *state;
	char *memory = aligned_memory(4 * MIB, 4 * MIB);
	struct iommu_option off = {.size = sizeof(off), .option_id = IOMMU_OPTION_HUGE_PAGES};
	uint32_t plain, tracks, later, id;

	assert_rc(hwpt_new(rig, 1, 0, 0, &plain), 0);
	assert_rc(hwpt_new(rig, 1, 0, IOMMU_HWPT_ALLOC_DIRTY_TRACKING, &tracks), 0);
	assert_rc(map(rig->ctx, rig->ioas[0], RW, BASE, memory, 4 * MIB), 0);
	assert_rc(hwpt_new(rig, 1, 0, IOMMU_HWPT_ALLOC_DIRTY_TRACKING, &later), 0);
	assert_true(leaf_at(rig, plain, BASE).length == 4 * MIB);
	assert_true(leaf_at(rig, tracks, BASE).length == PAGE);
	assert_true(leaf_at(rig, later, BASE).length == PAGE);
	assert_true(leaf_at(rig, later, BASE).pa == leaf_at(rig, plain, BASE).pa);
	/* A table without dirty bits cannot track. */
	rig->dev[4].dirty_tracking = true;
	assert_rc(hwpt_new(rig, 4, 0, IOMMU_HWPT_ALLOC_DIRTY_TRACKING, &id), -EINVAL);

	off.object_id = rig->ioas[1];
	assert_rc(call(rig->ctx, IOMMU_OPTION, &off), 0);
	assert_rc(hwpt_new(rig, 1, 1, 0, &plain), 0);
	assert_rc(map(rig->ctx, rig->ioas[1], RW, BASE, memory, 4 * MIB), 0);
	assert_true(leaf_at(rig, plain, BASE).length == PAGE);
	/* The option may come back; what is there stays. */
	off.val64 = 1;
	off.op = IOMMU_OPTION_OP_SET;
	assert_rc(call(rig->ctx, IOMMU_OPTION, &off), 0);
	assert_true(leaf_at(rig, plain, BASE).length == PAGE);
	assert_rc(unmap(rig->ctx, rig->ioas[1], BASE, 4 * MIB), 0);
	assert_rc(map(rig->ctx, rig->ioas[1], RW, BASE, memory, 4 * MIB), 0);
	assert_true(leaf_at(rig, plain, BASE).length == 4 * MIB);
}

/* A backing keeps its physical addresses, in whatever domain it is; they are somebody else's only when it is gone. */
static void backings_stay_in_place(void **state)
{
	struct rig *rig = *state;
	char *memory = aligned_memory(4 * MIB, 2 * MIB);
	struct iommu_ioas_copy copy = {.size = sizeof(copy),
				       .flags = RW | IOMMU_IOAS_MAP_FIXED_IOVA,
				       .dst_ioas_id = rig->ioas[1],
				       .src_ioas_id = rig->ioas[0],
				       .length = MIB,
				       .dst_iova = 3 * BASE,
				       .src_iova = BASE + MIB};
	uint32_t first, second;
	uint64_t pa;

	assert_rc(hwpt_new(rig, 0, 0, 0, &first), 0);
	assert_rc(hwpt_new(rig, 0, 1, 0, &second), 0);
	assert_rc(map(rig->ctx, rig->ioas[0], RW, BASE, memory, 4 * MIB), 0);
	assert_rc(call(rig->ctx, IOMMU_IOAS_COPY, &copy), 0);
	pa = leaf_at(rig, first, BASE).pa;
	assert_true(pa && pa % (2 * MIB) == 0);
	assert_true(leaf_at(rig, second, 3 * BASE).pa == pa + MIB);
	assert_rc(unmap(rig->ctx, rig->ioas[0], BASE, 4 * MIB), 0);
	assert_true(leaf_at(rig, second, 3 * BASE).pa == pa + MIB);
	/* Not given to others meanwhile. */
	assert_rc(map(rig->ctx, rig->ioas[0], RW, BASE, memory, 4 * MIB), 0);
	assert_true(leaf_at(rig, first, BASE).pa != pa);
	assert_rc(unmap(rig->ctx, rig->ioas[1], 3 * BASE, MIB), 0);
	assert_rc(map(rig->ctx, rig->ioas[1], RW, 3 * BASE, memory, 4 * MIB), 0);
	assert_true(leaf_at(rig, second, 3 * BASE).pa == pa);
}

/* Empty pages of tables do not pile up beyond measure, and those that a large leaf replaces go. */
static void small_leaves_make_way(void **state)
{
	struct rig *rig = *state;
	char *memory = aligned_memory(4 * MIB, 2 * MIB);
	struct hwpt *hwpt;
	struct pgtable_info info;
	uint32_t id;

	assert_rc(hwpt_new(rig, 0, 0, 0, &id), 0);
	for (unsigned i = 0; i < 20; i++) {
		assert_rc(map(rig->ctx, rig->ioas[0], RW, BASE + 3 * PAGE, memory, PAGE), 0);
		assert_true(leaf_at(rig, id, BASE + 3 * PAGE).length == PAGE);
		assert_rc(unmap(rig->ctx, rig->ioas[0], BASE + 3 * PAGE, PAGE), 0);
		assert_rc(map(rig->ctx, rig->ioas[0], RW, BASE, memory, 2 * MIB), 0);
		assert_true(leaf_at(rig, id, BASE).length == 2 * MIB);
		assert_rc(unmap(rig->ctx, rig->ioas[0], BASE, 2 * MIB), 0);
	}
	hwpt = hwpt_get(rig, id);
	pgtable_get_info(hwpt->tables.table, &info);
	assert_true(info.tables <= 5);
	/* All over the place, a few of which stay. */
	for (uint64_t i = 0; i < 5000; i++) {
		uint64_t iova = (i * 0x9e3779b97f4a7c15ull >> 20) % (1ull << 46) & -PAGE;

		assert_rc(map(rig->ctx, rig->ioas[0], RW, iova, memory, PAGE), 0);
		assert_true(leaf_at(rig, id, iova).length == PAGE);
		if (i % 100)
			assert_rc(unmap(rig->ctx, rig->ioas[0], iova, PAGE), 0);
		pgtable_get_info(hwpt->tables.table, &info);
		assert_true(info.tables <= 1500);
	}
	for (uint64_t i = 0; i < 5000; i += 100) {
		uint64_t iova = (i * 0x9e3779b97f4a7c15ull >> 20) % (1ull << 46) & -PAGE;

		assert_true(leaf_at(rig, id, iova).length == PAGE);
	}
	obj_put(&hwpt->obj);
}

/* ---- random operations --------------------------------------------------------------------------- */

#define HWPTS 6u
#define OPERATIONS 700u

struct page {
	char *va; /* NULL: not mapped */
	unsigned prot;
	unsigned first, n; /* the mapping */
};

struct world {
	struct rig *rig;
	uint64_t random;
	struct page page[2][PAGES];
	struct {
		uint32_t id; /* 0: none */
		unsigned ioas, dev;
	} hwpt[HWPTS];
	int attached[DRIVERS]; /* the HWPT, -1: none */
	struct swiommu_dma *dma[DRIVERS];
	char *memory; /* 2 * PAGES pages; the first word of a page is its number + 1 */
	unsigned long failures, checks;
};

static unsigned below(struct world *w, unsigned n)
{
	w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)((w->random >> 33) % n);
}

static uint64_t iova_of(unsigned page)
{
	return BASE + page * PAGE;
}

static void check_hwpt(struct world *w, unsigned h, unsigned i)
{
	struct hwpt *hwpt = hwpt_get(w->rig, w->hwpt[h].id);
	const struct page *p = &w->page[w->hwpt[h].ioas][i];
	uint64_t iova = iova_of(i) + below(w, PAGE), offset;
	struct pgtable_leaf leaf;
	struct backing *b;

	w->checks++;
	assert_int_equal(pgtable_lookup(hwpt->tables.table, iova, &leaf), !!p->va);
	if (p->va) {
		assert_true(pgtable_iova_to_phys(hwpt->tables.table, iova) ==
			    leaf.pa + (iova - leaf.iova));
		assert_true(leaf.iova >= iova_of(p->first) &&
			    leaf.iova + leaf.length <= iova_of(p->first + p->n));
		assert_int_equal(leaf.prot & SWI_WRITE, p->prot & W ? SWI_WRITE : 0);
		assert_rc(hwpt_find_backing(hwpt, iova, &b, &offset), 0);
		assert_true(backing_addr(b) + offset == (uintptr_t)p->va + iova % PAGE);
		backing_put(b);
	} else {
		assert_rc(hwpt_find_backing(hwpt, iova, &b, &offset), -ENOENT);
	}
	obj_put(&hwpt->obj);
}

static void check_dma(struct world *w, unsigned dev, unsigned i)
{
	const struct page *p;
	uint64_t value = 0;
	int h = w->attached[dev];
	int rc = swiommu_dma_read(w->dma[dev], iova_of(i), &value, 8);

	if (h < 0) {
		assert_rc(rc, -ENXIO);
		return;
	}
	p = &w->page[w->hwpt[h].ioas][i];
	/* x86 tables cannot forbid reading. */
	if (p->va && !(p->prot & R))
		assert_true(rc == -EPERM || drivers[dev].pt_format == IOMMU_PT_X86_64 ||
			    drivers[dev].pt_format == IOMMU_PT_RISCV64);
	else
		assert_rc(rc, p->va ? 0 : -ENOENT);
	if (!rc)
		assert_true(value == (uint64_t)(p->va - w->memory) / PAGE + 1);
}

static void check_some(struct world *w, unsigned n)
{
	for (unsigned h = 0; h < HWPTS; h++)
		for (unsigned k = 0; w->hwpt[h].id && k < n; k++)
			check_hwpt(w, h, below(w, PAGES));
	for (unsigned d = 0; d < DRIVERS; d++)
		check_dma(w, d, below(w, PAGES));
}

static void check_all(struct world *w)
{
	for (unsigned h = 0; h < HWPTS; h++)
		for (unsigned i = 0; w->hwpt[h].id && i < PAGES; i++)
			check_hwpt(w, h, i);
}

/*
 * Runs an operation that returns an errno, with its first, second ... allocation failing until none is left to fail. It

 * fails as a whole then, or succeeds. With -EFAULT the answer may be all that failed, which does not take a mapping back:
 * `undo` does.
 */
#define EACH_FAILING(w, rc, expr, undo)                           \
	do {                                                      \
		for (unsigned nth_ = 1;; nth_++) {                \
			bool failed_;                             \
                                                                  \
			swi_alloc_fail_nth(nth_);                 \
			(rc) = (expr);                            \
			failed_ = !swi_alloc_fail_nth(0);         \
			if (!failed_ || (rc) == 0 || nth_ > 60) { \
				if ((rc) && failed_)              \
					(rc) = (expr);            \
				break;                            \
			}                                         \
			if ((rc) == -EFAULT)                      \
				undo;                             \
			(w)->failures++;                          \
			check_some(w, 3);                         \
		}                                                 \
	} while (0)

static void some_range(struct world *w, unsigned *first, unsigned *n)
{
	*n = 1u << below(w, 11);
	if (below(w, 2))
		*n = 1 + below(w, *n);
	*first = below(w, PAGES);
	if (below(w, 2))
		*first &= -512u;
	*n = *n < PAGES - *first ? *n : PAGES - *first;
}

static bool is_free(struct world *w, unsigned ioas, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++)
		if (w->page[ioas][i].va)
			return false;
	return true;
}

static void model_map(struct world *w, unsigned ioas, unsigned first, unsigned n, char *va,
		      unsigned prot)
{
	for (unsigned i = first; i < first + n; i++)
		w->page[ioas][i] = (struct page){va + (i - first) * PAGE, prot, first, n};
}

static void try_map(struct world *w)
{
	static const unsigned prots[] = {R, W, RW, RW};
	unsigned first, n, ioas = below(w, 2), prot = prots[below(w, 4)], at;
	bool free;
	long rc;

	some_range(w, &first, &n);
	free = is_free(w, ioas, first, n);
	/* In step with the IOVA or not. */
	at = below(w, 3) ? first : below(w, PAGES);
	EACH_FAILING(w, rc,
		     map(w->rig->ctx, w->rig->ioas[ioas], prot, iova_of(first),
			 w->memory + at * PAGE, n * PAGE),
		     free ? unmap(w->rig->ctx, w->rig->ioas[ioas], iova_of(first), n * PAGE) : 0);
	assert_rc(rc, free ? 0 : -EEXIST);
	if (free)
		model_map(w, ioas, first, n, w->memory + at * PAGE, prot);
}

static void try_unmap(struct world *w)
{
	unsigned ioas = below(w, 2), i = below(w, PAGES), first, n;
	struct page *p = &w->page[ioas][i];

	if (!p->va) {
		assert_rc(unmap(w->rig->ctx, w->rig->ioas[ioas], iova_of(i), PAGE), -ENOENT);
		return;
	}
	first = p->first;
	n = p->n;
	assert_rc(unmap(w->rig->ctx, w->rig->ioas[ioas], iova_of(first), n * PAGE), 0);
	memset(&w->page[ioas][first], 0, n * sizeof(*p));
}

static void try_copy(struct world *w)
{
	unsigned from = below(w, 2), to = !from, i = below(w, PAGES), first, n;
	const struct page *p = &w->page[from][i];
	struct iommu_ioas_copy cmd = {.size = sizeof(cmd),
				      .flags = R | IOMMU_IOAS_MAP_FIXED_IOVA,
				      .dst_ioas_id = w->rig->ioas[to],
				      .src_ioas_id = w->rig->ioas[from]};
	bool free;
	long rc;

	if (!p->va)
		return;
	n = 1 + below(w, p->first + p->n - i);
	first = below(w, 2) ? i : below(w, PAGES - n + 1);
	free = is_free(w, to, first, n);
	cmd.src_iova = iova_of(i);
	cmd.dst_iova = iova_of(first);
	cmd.length = n * PAGE;
	EACH_FAILING(w, rc, call(w->rig->ctx, IOMMU_IOAS_COPY, &cmd),
		     free ? unmap(w->rig->ctx, w->rig->ioas[to], cmd.dst_iova, cmd.length) : 0);
	assert_rc(rc, free ? 0 : -EEXIST);
	if (free)
		model_map(w, to, first, n, p->va, R);
}

static void try_hwpt(struct world *w)
{
	unsigned h = below(w, HWPTS), dev = below(w, DRIVERS), ioas = below(w, 2);
	uint32_t flags = dev < 4 && below(w, 2) ? IOMMU_HWPT_ALLOC_DIRTY_TRACKING : 0, id = 0;
	long rc;

	if (w->hwpt[h].id) {
		for (unsigned d = 0; d < DRIVERS; d++)
			if (w->attached[d] == (int)h)
				return;
		assert_rc(destroy(w->rig->ctx, w->hwpt[h].id), 0);
		w->hwpt[h].id = 0;
		return;
	}
	EACH_FAILING(w, rc, hwpt_new(w->rig, dev, ioas, flags, &id), (void)0);
	assert_rc(rc, 0);
	w->hwpt[h].id = id;
	w->hwpt[h].ioas = ioas;
	w->hwpt[h].dev = dev;
}

static void try_attach(struct world *w)
{
	unsigned h = below(w, HWPTS), dev = w->hwpt[h].dev;
	uint32_t id = w->hwpt[h].id;
	long rc;

	if (!id)
		return;
	if (w->attached[dev] < 0)
		EACH_FAILING(w, rc, iommufd_device_attach(w->rig->idev[dev], 0, &id), (void)0);
	else if (below(w, 3))
		EACH_FAILING(w, rc, iommufd_device_replace(w->rig->idev[dev], 0, &id), (void)0);
	else {
		iommufd_device_detach(w->rig->idev[dev], 0);
		w->attached[dev] = -1;
		return;
	}
	assert_rc(rc, 0);
	w->attached[dev] = (int)h;
}

static void random_operations(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	const char *seed = getenv("SWIOMMU_TEST_SEED");

	w->rig = *state;
	w->random = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
	print_message("SWIOMMU_TEST_SEED=%llu\n", (unsigned long long)w->random);
	w->memory = aligned_memory(2 * PAGES * PAGE, 2 * MIB);
	for (unsigned i = 0; i < 2 * PAGES; i++)
		*(uint64_t *)(w->memory + i * PAGE) = i + 1;
	for (unsigned d = 0; d < DRIVERS; d++) {
		w->attached[d] = -1;
		assert_rc(swiommu_dma_open(w->rig->idev[d], &w->dma[d]), 0);
	}
	for (unsigned i = 0; i < OPERATIONS; i++) {
		switch (below(w, 10)) {
		case 0 ... 3:
			try_map(w);
			break;
		case 4 ... 5:
			try_unmap(w);
			break;
		case 6:
			try_copy(w);
			break;
		case 7 ... 8:
			try_hwpt(w);
			break;
		default:
			try_attach(w);
		}
		check_some(w, 8);
		if (i % 100 == 0)
			check_all(w);
	}
	check_all(w);
	print_message("%lu failed allocations, %lu checks\n", w->failures, w->checks);
	assert_true(w->failures > 500);
	for (unsigned d = 0; d < DRIVERS; d++) {
		iommufd_device_detach(w->rig->idev[d], 0);
		swiommu_dma_close(w->dma[d]);
	}
	free(w);
}

/* ---- DMA beside changes --------------------------------------------------------------------------- */

#define SLOTS 4u /* of 2 MiB */
#define POISON 0xdeadull

struct load {
	pthread_t thread;
	struct swiommu_dma *dma;
	atomic_bool *stop;
	unsigned odd; /* of two devices each has pages of its own */
	unsigned long reads, hits, wrong;
};

/* A page holds its number in its memory of SLOTS * 512 pages, if it is mapped; it is mapped at that place only. */
static void *load_thread(void *data)
{
	struct load *load = data;
	uint64_t random = (uintptr_t)data, value[2 * PAGE / 8];

	while (!atomic_load_explicit(load->stop, memory_order_relaxed)) {
		unsigned page;
		bool write;

		random = random * 6364136223846793005ull + 1442695040888963407ull;
		page = ((random >> 33) % (SLOTS * 256)) * 2 + load->odd;
		write = random >> 60 & 1;
		load->reads++;
		value[0] = page + 1;
		/* What is written is what should be there. */
		if (write ? swiommu_dma_write(load->dma, iova_of(page), value, 8)
			  : swiommu_dma_read(load->dma, iova_of(page), value, 8))
			continue;
		load->hits++;
		load->wrong += value[0] != page + 1;
	}
	return NULL;
}

/* One leaf of 2 MiB, or pages here and there; whatever was mapped is poisoned when it has been unmapped. */
static void change_slot(struct rig *rig, char *memory, unsigned slot, uint64_t *random)
{
	unsigned first = slot * 512, n[8], at[8], count;

	*random = *random * 6364136223846793005ull + 1442695040888963407ull;
	count = *random >> 40 & 1 ? 1 : 8;
	for (unsigned i = 0; i < count; i++) {
		at[i] = count == 1 ? first : first + 64 * i + (*random >> (33 + i) & 31);
		n[i] = count == 1 ? 512 : 1 + (*random >> (20 + i) & 31);
		for (unsigned k = at[i]; k < at[i] + n[i]; k++)
			*(uint64_t *)(memory + k * PAGE) = k + 1;
		assert_rc(map(rig->ctx, rig->ioas[0], RW, iova_of(at[i]), memory + at[i] * PAGE,
			      n[i] * PAGE),
			  0);
	}
	sched_yield();
	assert_rc(unmap(rig->ctx, rig->ioas[0], iova_of(first), 512 * PAGE), 0);
	for (unsigned i = 0; i < count; i++)
		for (unsigned k = at[i]; k < at[i] + n[i]; k++)
			*(uint64_t *)(memory + k * PAGE) = POISON;
}

struct changer {
	pthread_t thread;
	struct rig *rig;
	struct hwpt *hwpt[3];
	char *memory;
	unsigned slot;
};

static void *change_thread(void *data)
{
	struct changer *c = data;
	uint64_t random = c->slot;

	for (unsigned i = 0; i < 300; i++) {
		/* Empty pages of tables are looked for at once. */
		for (unsigned k = 0; k < 3 && i % 3 == 0; k++)
			c->hwpt[k]->tables.trim_at = 1;
		change_slot(c->rig, c->memory, c->slot + (i & 1), &random);
	}
	return NULL;
}

static void dma_beside_changes(void **state)
{
	struct rig *rig = *state;
	char *memory = aligned_memory(SLOTS * 2 * MIB, 2 * MIB);
	struct iommu_hwpt_set_dirty_tracking on = {.size = sizeof(on),
						   .flags = IOMMU_HWPT_DIRTY_TRACKING_ENABLE};
	struct changer changer[2] = {{.rig = rig, .memory = memory},
				     {.rig = rig, .memory = memory, .slot = 2}};
	struct load load[2] = {0};
	atomic_bool stop = false;
	uint32_t id[3];

	/* One device on a table of small leaves, which tracks; one on large ones; and a third table. */
	assert_rc(hwpt_new(rig, 0, 0, IOMMU_HWPT_ALLOC_DIRTY_TRACKING, &id[0]), 0);
	assert_rc(hwpt_new(rig, 1, 0, 0, &id[1]), 0);
	assert_rc(hwpt_new(rig, 2, 0, 0, &id[2]), 0);
	on.hwpt_id = id[0];
	assert_rc(call(rig->ctx, IOMMU_HWPT_SET_DIRTY_TRACKING, &on), 0);
	for (unsigned i = 0; i < 2; i++) {
		uint32_t pt = id[i];

		assert_rc(iommufd_device_attach(rig->idev[i], 0, &pt), 0);
		assert_rc(swiommu_dma_open(rig->idev[i], &load[i].dma), 0);
		load[i].stop = &stop;
		load[i].odd = i;
		pthread_create(&load[i].thread, NULL, load_thread, &load[i]);
	}
	for (unsigned i = 0; i < 3; i++)
		changer[0].hwpt[i] = changer[1].hwpt[i] = hwpt_get(rig, id[i]);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&changer[i].thread, NULL, change_thread, &changer[i]);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(changer[i].thread, NULL);
	stop = true;
	for (unsigned i = 0; i < 3; i++)
		obj_put(&changer[0].hwpt[i]->obj);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(load[i].thread, NULL);
		swiommu_dma_close(load[i].dma);
		print_message("%lu accesses, %lu of them mapped\n", load[i].reads, load[i].hits);
		assert_int_equal(load[i].wrong, 0);
		assert_true(load[i].hits > 0);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(leaves_are_large),	   T(leaves_are_small_where_they_tell),
		T(backings_stay_in_place), T(small_leaves_make_way),
		T(random_operations),	   T(dma_beside_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
