// SPDX-License-Identifier: MIT
/*
 * The generic driver towards guests: what it says it is, and translation by a table that a guest keeps in its memory: sizes,
 * permissions, accessed and dirty bits, what is remembered until when, page requests, PASIDs.
 */
#include "../random.h"
#include "generic_rig.h"

/* Bits of an entry, from the VT-d specification. */
#define P 1ull
#define RW_ 2ull
#define U 4ull
#define A 0x20ull
#define D 0x40ull
#define PS 0x80ull
#define EA 0x400ull
#define ADDR 0x000ffffffffff000ull

#define GUEST_PAGES 64
#define GPA 0x200000ull /* where the guest's memory begins, in the parent */

struct guest {
	_Atomic uint64_t *ram;
	unsigned int used; /* pages taken by tables, from the end */
	uint32_t parent;
};

static void guest_init(struct rig *r, struct guest *g, uint32_t flags)
{
	g->ram = (void *)memory(GUEST_PAGES);
	g->used = 0;
	assert_rc(map(r->ctx, r->ioas, RW, GPA, (void *)g->ram, GUEST_PAGES * PAGE), 0);
	g->parent = hwpt_new(r, r->ioas, IOMMU_HWPT_ALLOC_NEST_PARENT | flags, 0);
}

static void guest_fini(struct guest *g)
{
	munmap((void *)g->ram, GUEST_PAGES * PAGE);
}

static char *guest_at(struct guest *g, uint64_t gpa)
{
	return (char *)g->ram + (gpa - GPA);
}

static uint64_t table_new(struct guest *g)
{
	return GPA + (GUEST_PAGES - ++g->used) * PAGE;
}

static _Atomic uint64_t *entry_at(struct guest *g, uint64_t table, uint64_t iova,
				  unsigned int level)
{
	return &g->ram[(table - GPA) / 8 + ((iova >> (12 + 9 * level)) & 511)];
}

/* The entry for `iova` at a level; tables on the way are made. */
static _Atomic uint64_t *entry_of(struct guest *g, uint64_t root, unsigned int levels,
				  uint64_t iova, unsigned int level)
{
	uint64_t table = root;

	for (unsigned int at = levels - 1; at > level; at--) {
		_Atomic uint64_t *e = entry_at(g, table, iova, at);

		if (!*e)
			*e = table_new(g) | P | RW_ | U;
		table = *e & ADDR;
	}
	return entry_at(g, table, iova, level);
}

static long nested_alloc(struct rig *r, uint32_t parent, uint64_t root, uint32_t width,
			 uint64_t flags, uint32_t hwpt_flags, uint32_t fault, uint32_t *out)
{
	struct iommu_hwpt_vtd_s1 data = {.flags = flags, .pgtbl_addr = root, .addr_width = width};

	return hwpt_alloc(r, parent, hwpt_flags, fault, IOMMU_HWPT_DATA_VTD_S1, &data, sizeof(data),
			  out);
}

static uint32_t nested_new(struct rig *r, struct guest *g, uint64_t root, uint32_t width,
			   uint64_t flags, uint32_t hwpt_flags, uint32_t fault)
{
	uint32_t id;

	assert_rc(nested_alloc(r, g->parent, root, width, flags, hwpt_flags, fault, &id), 0);
	return id;
}

static long invalidate(struct rig *r, uint32_t hwpt, const void *entries, uint32_t n,
		       uint32_t *done)
{
	struct iommu_hwpt_invalidate cmd = {.size = sizeof(cmd),
					    .hwpt_id = hwpt,
					    .data_uptr = (uintptr_t)entries,
					    .data_type = IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
					    .entry_len =
						    sizeof(struct iommu_hwpt_vtd_s1_invalidate),
					    .entry_num = n};
	long rc = ioc(r, IOMMU_HWPT_INVALIDATE, &cmd);

	*done = cmd.entry_num;
	return rc;
}

static void invalidate_page(struct rig *r, uint32_t hwpt, uint64_t iova)
{
	struct iommu_hwpt_vtd_s1_invalidate inv = {.addr = iova, .npages = 1};
	uint32_t done;

	assert_rc(invalidate(r, hwpt, &inv, 1, &done), 0);
	assert_int_equal(done, 1);
}

/* ---- what it says ---------------------------------------------------------------------------------- */

static void says_what_it_is(void **state)
{
	struct rig *r = *state;
	struct iommu_hw_info_vtd vtd;
	struct iommu_hw_info cmd = {.size = sizeof(cmd),
				    .dev_id = r->dev_id,
				    .data_len = sizeof(vtd),
				    .data_uptr = (uintptr_t)&vtd};

	assert_rc(ioc(r, IOMMU_GET_HW_INFO, &cmd), 0);
	assert_int_equal(cmd.out_data_type, IOMMU_HW_INFO_TYPE_INTEL_VTD);
	assert_int_equal(cmd.data_len, sizeof(vtd));
	assert_int_equal(cmd.out_max_pasid_log2, 20);
	assert_true(cmd.out_capabilities ==
		    (IOMMU_HW_CAP_DIRTY_TRACKING | IOMMU_HW_CAP_PCI_PASID_PRIV));
	/* What a guest can rely on, as the specification numbers the bits: width, sizes, nesting, requests, PASIDs. */
	assert_int_equal(vtd.flags, 0);
	assert_int_equal(vtd.cap_reg >> 16 & 0x3f, 47);
	assert_int_equal(vtd.cap_reg >> 8 & 0x1f, 4);
	assert_true(vtd.cap_reg >> 34 & 1 && vtd.cap_reg >> 35 & 1);
	assert_true(vtd.cap_reg >> 56 & 1 && vtd.cap_reg >> 60 & 1);
	assert_true(vtd.ecap_reg >> 26 & 1 && vtd.ecap_reg >> 29 & 1 && vtd.ecap_reg >> 40 & 1);
	assert_true(vtd.ecap_reg >> 43 & 1 && vtd.ecap_reg >> 46 & 1 && vtd.ecap_reg >> 47 & 1);
	assert_int_equal(vtd.ecap_reg >> 35 & 0x1f, 19);
	/* Asked for by its type, and for another. */
	cmd.flags = IOMMU_HW_INFO_FLAG_INPUT_TYPE;
	cmd.in_data_type = IOMMU_HW_INFO_TYPE_INTEL_VTD;
	assert_rc(ioc(r, IOMMU_GET_HW_INFO, &cmd), 0);
	cmd.in_data_type = IOMMU_HW_INFO_TYPE_ARM_SMMUV3;
	assert_rc(ioc(r, IOMMU_GET_HW_INFO, &cmd), -EOPNOTSUPP);
	/* A device that can do less. */
	r->dev.ats = r->dev.pasid_priv = r->dev.dirty_tracking = false;
	r->dev.max_pasids = 0;
	cmd.flags = 0;
	assert_rc(ioc(r, IOMMU_GET_HW_INFO, &cmd), 0);
	assert_int_equal(cmd.out_max_pasid_log2, 0);
	assert_true(cmd.out_capabilities == IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED);
}

static void refuses_odd_tables(void **state)
{
	struct rig *r = *state;
	struct iommu_hwpt_vtd_s1 data = {.pgtbl_addr = GPA, .addr_width = 48, .__reserved = 1};
	uint32_t plain = hwpt_new(r, r->ioas, 0, 0), id;
	struct guest g;

	guest_init(r, &g, 0);
	assert_rc(nested_alloc(r, plain, GPA, 48, 0, 0, 0, &id), -EINVAL);
	assert_rc(nested_alloc(r, g.parent, GPA, 39, 0, 0, 0, &id), -EINVAL);
	assert_rc(nested_alloc(r, g.parent, GPA + 8, 48, 0, 0, 0, &id), -EINVAL);
	assert_rc(nested_alloc(r, g.parent, 1ull << 52, 48, 0, 0, 0, &id), -EINVAL);
	assert_rc(nested_alloc(r, g.parent, GPA, 48, 8, 0, 0, &id), -EOPNOTSUPP);
	assert_rc(hwpt_alloc(r, g.parent, 0, 0, IOMMU_HWPT_DATA_VTD_S1, &data, sizeof(data), &id),
		  -EOPNOTSUPP);
	assert_rc(hwpt_alloc(r, g.parent, 0, 0, IOMMU_HWPT_DATA_VTD_S1, &data, 8, &id), -EINVAL);
	assert_rc(
		hwpt_alloc(r, g.parent, 0, 0, IOMMU_HWPT_DATA_ARM_SMMUV3, &data, sizeof(data), &id),
		-EOPNOTSUPP);
	/* The table may be anywhere: it is looked at when there is DMA. */
	assert_rc(nested_alloc(r, g.parent, 0x1000, 57, 0, 0, 0, &id), 0);
	assert_rc(destroy(r->ctx, g.parent), -EBUSY);
	assert_rc(destroy(r->ctx, id), 0);
	assert_rc(destroy(r->ctx, g.parent), 0);
	guest_fini(&g);
}

/* ---- translating ------------------------------------------------------------------------------------ */

struct size_case {
	uint32_t width;
	unsigned int level;
	uint64_t iova;
};

static void sizes_and_widths(void **state)
{
	static const struct size_case cases[] = {
		{48, 0, 0x7000},
		{48, 1, 0x40200000},
		{48, 2, 0x7fc0000000},
		{48, 0, 0xffff900000001000},
		{57, 0, 0x123456789abcd000},
		{57, 1, 0xabcde00000000},
		{57, 2, 0xff00000040000000},
	};
	struct rig *r = *state;
	struct swiommu_dma *dma;
	struct guest g;
	char buf[64], *at;

	guest_init(r, &g, 0);
	assert_rc(swiommu_dma_open(r->idev, &dma), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct size_case *c = &cases[i];
		unsigned int levels = c->width == 57 ? 5 : 4;
		uint64_t iova = c->iova & ~((1ull << (12 + 9 * c->level)) - 1), size, to, offset;
		uint64_t root;
		uint32_t hwpt;

		memset((void *)g.ram, 0, GUEST_PAGES * PAGE);
		g.used = 0;
		root = table_new(&g);
		/* The canonical 57-bit addresses among them. */
		iova = (uint64_t)((int64_t)(iova << (64 - c->width)) >> (64 - c->width));
		size = 1ull << (12 + 9 * c->level);
		/* The large pages begin below the guest's memory: only its offset in them matters. */
		to = GPA & ~(size - 1);
		offset = GPA - to + (c->level ? 3 * PAGE : 0);
		*entry_of(&g, root, levels, iova, c->level) =
			to | P | RW_ | U | (c->level ? PS : 0);
		hwpt = nested_new(r, &g, root, c->width, 0, 0, 0);
		attach(r, 0, hwpt);
		memset(buf, 0x40 + i, sizeof(buf));
		assert_rc(swiommu_dma_write(dma, iova + offset + 8, buf, sizeof(buf)), 0);
		at = guest_at(&g, to + offset + 8);
		assert_memory_equal(at, buf, sizeof(buf));
		at[0] = 'x';
		assert_rc(swiommu_dma_read(dma, iova + offset + 8, buf, 1), 0);
		assert_int_equal(buf[0], 'x');
		assert_rc(swiommu_dma_read(dma, iova ^ 1ull << (12 + 9 * c->level), buf, 1),
			  -ENOENT);
		iommufd_device_detach(r->idev, 0);
		assert_rc(destroy(r->ctx, hwpt), 0);
	}
	swiommu_dma_close(dma);
	guest_fini(&g);
}

/* Across pages that lie in the opposite order, and end with one that is not there. */
static void across_pages(void **state)
{
	struct rig *r = *state;
	static char buf[4 * PAGE], want[4 * PAGE];
	struct swiommu_dma *dma;
	uint64_t root;
	struct guest g;

	guest_init(r, &g, 0);
	root = table_new(&g);
	for (int i = 0; i < 4; i++) {
		memset(guest_at(&g, GPA + (3 - i) * PAGE), 'a' + i, PAGE);
		memset(want + i * PAGE, 'a' + i, PAGE);
		*entry_of(&g, root, 4, BASE + i * PAGE, 0) = (GPA + (3 - i) * PAGE) | P | U;
	}
	attach(r, 0, nested_new(r, &g, root, 48, 0, 0, 0));
	assert_rc(swiommu_dma_open(r->idev, &dma), 0);
	assert_rc(swiommu_dma_read(dma, BASE + 100, buf, 4 * PAGE - 100), 0);
	assert_memory_equal(buf, want + 100, 4 * PAGE - 100);
	memset(buf, 0, sizeof(buf));
	assert_rc(swiommu_dma_read(dma, BASE + 3 * PAGE, buf, PAGE + 1), -ENOENT);
	assert_memory_equal(buf, want + 3 * PAGE, PAGE);
	assert_int_equal(r->faults, 1);
	assert_true(r->fault.iova == BASE + 4 * PAGE);
	assert_rc(swiommu_dma_write(dma, BASE, buf, 1), -EPERM);
	swiommu_dma_close(dma);
	iommufd_device_detach(r->idev, 0);
	guest_fini(&g);
}

static void permissions(void **state)
{
	/* By bits of the upper entry, bits of the leaf, flags of the table; what user and privileged requests may. */
	static const struct {
		uint64_t upper, leaf, flags;
		int user_read, user_write, priv_read, priv_write;
	} cases[] = {
		{RW_ | U, RW_ | U, 0, 0, 0, -EPERM, -EPERM},
		{RW_ | U, RW_ | U, IOMMU_VTD_S1_SRE, 0, 0, 0, 0},
		{RW_ | U, U, IOMMU_VTD_S1_SRE, 0, -EPERM, 0, 0},
		{RW_ | U, U, IOMMU_VTD_S1_SRE | IOMMU_VTD_S1_WPE, 0, -EPERM, 0, -EPERM},
		{U, RW_ | U, IOMMU_VTD_S1_SRE | IOMMU_VTD_S1_WPE, 0, -EPERM, 0, -EPERM},
		{RW_, RW_ | U, IOMMU_VTD_S1_SRE, -EPERM, -EPERM, 0, 0},
		{RW_ | U, RW_, IOMMU_VTD_S1_SRE, -EPERM, -EPERM, 0, 0},
		{RW_ | U, 0, IOMMU_VTD_S1_SRE | IOMMU_VTD_S1_WPE, -EPERM, -EPERM, 0, -EPERM},
	};
	struct swiommu_dma *user, *priv;
	struct rig *r = *state;
	struct guest g;
	uint64_t root;
	char c = 0;

	guest_init(r, &g, PASID);
	root = table_new(&g);
	entry_of(&g, root, 4, BASE, 0);
	assert_rc(swiommu_dma_open_pasid(r->idev, 0, SWIOMMU_DMA_PRIVILEGED, &priv), -EINVAL);
	assert_rc(swiommu_dma_open_pasid(r->idev, 5, 0, &user), 0);
	assert_rc(swiommu_dma_open_pasid(r->idev, 5, SWIOMMU_DMA_PRIVILEGED, &priv), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint32_t hwpt = nested_new(r, &g, root, 48, cases[i].flags, PASID, 0);
		_Atomic uint64_t *leaf = entry_of(&g, root, 4, BASE, 0);
		_Atomic uint64_t *upper = entry_of(&g, root, 4, BASE, 1);

		*leaf = GPA | P | cases[i].leaf;
		*upper = (*upper & ADDR) | P | cases[i].upper;
		attach(r, 5, hwpt);
		/* Twice: by the table, and by what is remembered. */
		for (int again = 0; again < 2; again++) {
			assert_rc(swiommu_dma_read(user, BASE, &c, 1), cases[i].user_read);
			assert_rc(swiommu_dma_write(user, BASE, &c, 1), cases[i].user_write);
			assert_rc(swiommu_dma_read(priv, BASE, &c, 1), cases[i].priv_read);
			assert_rc(swiommu_dma_write(priv, BASE, &c, 1), cases[i].priv_write);
		}
		iommufd_device_detach(r->idev, 5);
		assert_rc(destroy(r->ctx, hwpt), 0);
	}
	swiommu_dma_close(priv);
	swiommu_dma_close(user);
	guest_fini(&g);
}

static void accessed_and_dirty(void **state)
{
	struct rig *r = *state;
	_Atomic uint64_t *leaf, *other, *upper, *top;
	struct swiommu_dma *dma;
	uint64_t root;
	uint32_t hwpt;
	struct guest g;
	char c = 0;

	guest_init(r, &g, 0);
	root = table_new(&g);
	leaf = entry_of(&g, root, 4, BASE, 0);
	other = entry_of(&g, root, 4, BASE + PAGE, 0);
	upper = entry_of(&g, root, 4, BASE, 1);
	top = entry_of(&g, root, 4, BASE, 3);
	*leaf = GPA | P | RW_ | U;
	*other = (GPA + PAGE) | P | U;
	hwpt = nested_new(r, &g, root, 48, 0, 0, 0);
	attach(r, 0, hwpt);
	assert_rc(swiommu_dma_open(r->idev, &dma), 0);
	/* A request that is refused marks nothing. */
	assert_rc(swiommu_dma_write(dma, BASE + PAGE, &c, 1), -EPERM);
	assert_true(!(*other & (A | D)) && !(*upper & A) && !(*top & A));
	assert_rc(swiommu_dma_read(dma, BASE, &c, 1), 0);
	assert_true(*leaf == (GPA | P | RW_ | U | A));
	assert_true(*upper & A && *top & A && !(*upper & D) && !(*upper & EA));
	/* The translation is remembered for reading; the write must still leave its mark. */
	assert_rc(swiommu_dma_write(dma, BASE, &c, 1), 0);
	assert_true(*leaf == (GPA | P | RW_ | U | A | D));
	/* Cleared and invalidated, it is set again. */
	*leaf = GPA | P | RW_ | U;
	assert_rc(swiommu_dma_write(dma, BASE, &c, 1), 0);
	assert_true(!(*leaf & D));
	invalidate_page(r, hwpt, BASE);
	assert_rc(swiommu_dma_write(dma, BASE, &c, 1), 0);
	assert_true(*leaf & D);
	/* The extended accessed bit, if it is asked for. */
	replace(r, 0, nested_new(r, &g, root, 48, IOMMU_VTD_S1_EAFE, 0, 0));
	assert_rc(swiommu_dma_read(dma, BASE, &c, 1), 0);
	assert_true(*leaf & EA && *upper & EA && *top & EA);
	/* A table that the parent has read-only cannot be marked; without a mark to set it can be used. */
	assert_rc(unmap(r->ctx, r->ioas, GPA, GUEST_PAGES * PAGE), 0);
	assert_rc(map(r->ctx, r->ioas, R, GPA, (void *)g.ram, GUEST_PAGES * PAGE), 0);
	assert_rc(swiommu_dma_read(dma, BASE, &c, 1), 0);
	*leaf &= ~A;
	replace(r, 0, hwpt);
	assert_rc(swiommu_dma_read(dma, BASE, &c, 1), -EFAULT);
	assert_non_null(strstr(r->fault.nearest, "guest address"));
	swiommu_dma_close(dma);
	iommufd_device_detach(r->idev, 0);
	guest_fini(&g);
}

static void remembered_until_told(void **state)
{
	struct rig *r = *state;
	struct iommu_hwpt_vtd_s1_invalidate inv[3] = {{.addr = BASE, .npages = 1},
						      {.npages = UINT64_MAX},
						      {.addr = BASE, .npages = 1, .flags = 2}};
	_Atomic uint64_t *leaf;
	struct swiommu_dma *dma;
	uint64_t root;
	uint32_t hwpt, done;
	struct guest g;
	char c;

	guest_init(r, &g, 0);
	*guest_at(&g, GPA) = 'a';
	*guest_at(&g, GPA + PAGE) = 'b';
	root = table_new(&g);
	leaf = entry_of(&g, root, 4, BASE, 0);
	*leaf = GPA | P | U;
	hwpt = nested_new(r, &g, root, 48, 0, 0, 0);
	attach(r, 0, hwpt);
	assert_rc(swiommu_dma_open(r->idev, &dma), 0);
	for (int how = 0; how < 4; how++) {
		*leaf = GPA | P | U;
		assert_rc(invalidate(r, hwpt, inv, 1, &done), 0);
		assert_rc(swiommu_dma_read(dma, BASE, &c, 1), 0);
		assert_int_equal(c, 'a');
		*leaf = (GPA + PAGE) | P | U;
		assert_rc(swiommu_dma_read(dma, BASE, &c, 1), 0);
		assert_int_equal(c, 'a');
		/* A page, everything, as many as were right before the wrong one, or an unmap in the parent. */
		if (how == 0)
			assert_rc(invalidate(r, hwpt, inv, 1, &done), 0);
		else if (how == 1)
			assert_rc(invalidate(r, hwpt, &inv[1], 1, &done), 0);
		else if (how == 2)
			assert_rc(invalidate(r, hwpt, inv, 3, &done), -EOPNOTSUPP);
		else
			assert_rc(unmap(r->ctx, r->ioas, GPA + 2 * GUEST_PAGES * PAGE, PAGE), 0);
		if (how == 2)
			assert_int_equal(done, 2);
		if (how == 2) {
			/* For the next round. */
			assert_rc(map(r->ctx, r->ioas, R, GPA + 2 * GUEST_PAGES * PAGE, r->memory,
				      PAGE),
				  0);
		}
		assert_rc(swiommu_dma_read(dma, BASE, &c, 1), 0);
		assert_int_equal(c, 'b');
	}
	inv[0].addr = BASE + 1;
	assert_rc(invalidate(r, hwpt, inv, 1, &done), -EINVAL);
	inv[0] = (struct iommu_hwpt_vtd_s1_invalidate){.addr = BASE, .npages = UINT64_MAX};
	assert_rc(invalidate(r, hwpt, inv, 1, &done), -EINVAL);
	inv[0] = (struct iommu_hwpt_vtd_s1_invalidate){.addr = BASE, .__reserved = 1};
	assert_rc(invalidate(r, hwpt, inv, 1, &done), -EOPNOTSUPP);
	assert_int_equal(done, 0);
	swiommu_dma_close(dma);
	iommufd_device_detach(r->idev, 0);
	guest_fini(&g);
}

/* What is broken below the guest's table, or in it, is no page request. */
static void broken_tables(void **state)
{
	struct rig *r = *state;
	struct swiommu_dma *dma;
	_Atomic uint64_t *leaf;
	uint32_t fault, hwpt;
	uint64_t root;
	struct guest g;
	char c;
	int fd;

	guest_init(r, &g, 0);
	fault = fault_new(r, &fd);
	root = table_new(&g);
	leaf = entry_of(&g, root, 4, BASE, 0);
	hwpt = nested_new(r, &g, root, 48, 0, FAULT, fault);
	attach(r, 0, hwpt);
	assert_rc(swiommu_dma_open_pasid(r->idev, 0, SWIOMMU_DMA_PAGE_REQUESTS, &dma), 0);
	/* It leads out of the guest's memory. */
	*leaf = (GPA + GUEST_PAGES * PAGE) | P | U;
	assert_rc(swiommu_dma_read(dma, BASE, &c, 1), -EFAULT);
	assert_non_null(strstr(r->fault.nearest, "ends below"));
	/* Its middle does; a large page that is not aligned; a page size bit at the top; no canonical address. */
	*entry_of(&g, root, 4, BASE + (1ull << 30), 1) = 0x7000000000 | P | U;
	assert_rc(swiommu_dma_read(dma, BASE + (1ull << 30), &c, 1), -EFAULT);
	*entry_of(&g, root, 4, BASE + (2ull << 30), 1) = (GPA + PAGE + PAGE) | P | U | PS;
	assert_rc(swiommu_dma_read(dma, BASE + (2ull << 30), &c, 1), -EFAULT);
	*entry_of(&g, root, 4, 1ull << 39, 3) = P | U | PS;
	assert_rc(swiommu_dma_read(dma, 1ull << 39 | GPA, &c, 1), -EFAULT);
	assert_rc(swiommu_dma_read(dma, BASE | 1ull << 47, &c, 1), -EFAULT);
	assert_int_equal(r->faults, 5);
	swiommu_dma_close(dma);
	iommufd_device_detach(r->idev, 0);
	close_fd(r, fd);
	guest_fini(&g);
}

/* The guest's fault handler fills its table, and answers. */
static void pages_of_a_guest_on_demand(void **state)
{
	struct rig *r = *state;
	struct access access;
	struct swiommu_dma *dma;
	uint32_t fault, hwpt;
	uint64_t root;
	struct guest g;
	pgfault got;
	char buf[8] = "guest!";
	int fd;

	guest_init(r, &g, PASID);
	fault = fault_new(r, &fd);
	root = table_new(&g);
	entry_of(&g, root, 4, BASE, 0);
	hwpt = nested_new(r, &g, root, 48, 0, FAULT | PASID, fault);
	attach(r, 77, hwpt);
	assert_rc(swiommu_dma_open_pasid(r->idev, 77, SWIOMMU_DMA_PAGE_REQUESTS, &dma), 0);
	access = (struct access){dma, BASE + 16, buf, sizeof(buf), true, 0, 0};
	access_start(&access);
	got = next_request(r, fd);
	assert_int_equal(got.pasid, 77);
	assert_true(got.addr == BASE);
	/* First for reading only, so that it asks again. */
	*entry_of(&g, root, 4, BASE, 0) = (GPA + 5 * PAGE) | P | U;
	invalidate_page(r, hwpt, BASE);
	assert_rc(respond(r, fd, got.cookie, IOMMUFD_PAGE_RESP_SUCCESS), 8);
	got = next_request(r, fd);
	*entry_of(&g, root, 4, BASE, 0) = (GPA + 5 * PAGE) | P | U | RW_;
	invalidate_page(r, hwpt, BASE);
	assert_rc(respond(r, fd, got.cookie, IOMMUFD_PAGE_RESP_SUCCESS), 8);
	assert_rc(access_end(&access), 0);
	assert_string_equal(guest_at(&g, GPA + 5 * PAGE + 16), "guest!");
	assert_int_equal(r->faults, 0);
	swiommu_dma_close(dma);
	iommufd_device_detach(r->idev, 77);
	close_fd(r, fd);
	guest_fini(&g);
}

/* Each process of a guest has its PASID and its table. */
static void tables_by_pasid(void **state)
{
	struct rig *r = *state;
	struct swiommu_dma *dma[3];
	struct guest g;
	char c;

	guest_init(r, &g, PASID);
	attach(r, 0, nested_new(r, &g, table_new(&g), 48, 0, PASID, 0));
	for (unsigned int i = 0; i < 3; i++) {
		uint64_t root = table_new(&g);

		*guest_at(&g, GPA + i * PAGE) = 'a' + i;
		*entry_of(&g, root, i == 1 ? 5 : 4, BASE, 0) = (GPA + i * PAGE) | P | U;
		attach(r, 100 + i, nested_new(r, &g, root, i == 1 ? 57 : 48, 0, PASID, 0));
		assert_rc(swiommu_dma_open_pasid(r->idev, 100 + i, 0, &dma[i]), 0);
	}
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 3; i++) {
			assert_rc(swiommu_dma_read(dma[i], BASE, &c, 1), 0);
			assert_int_equal(c, 'a' + i);
		}
	/* One ends; the others go on. */
	iommufd_device_detach(r->idev, 101);
	assert_rc(swiommu_dma_read(dma[1], BASE, &c, 1), -ENXIO);
	assert_rc(swiommu_dma_read(dma[2], BASE, &c, 1), 0);
	for (int i = 0; i < 3; i++) {
		swiommu_dma_close(dma[i]);
		iommufd_device_detach(r->idev, 100 + i);
	}
	iommufd_device_detach(r->idev, 0);
	guest_fini(&g);
}

/* A device's writes through a guest's table are dirt of the parent, as are the marks in the table. */
static void dirt_of_the_parent(void **state)
{
	struct rig *r = *state;
	struct swiommu_dma *dma;
	uint64_t root, bits = 0;
	struct guest g;
	char c = 1;

	guest_init(r, &g, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
	root = table_new(&g);
	*entry_of(&g, root, 4, BASE, 0) = (GPA + 3 * PAGE) | P | U | RW_;
	attach(r, 0, nested_new(r, &g, root, 48, 0, 0, 0));
	assert_rc(swiommu_dma_open(r->idev, &dma), 0);
	assert_rc(ioc(r, IOMMU_HWPT_SET_DIRTY_TRACKING,
		      &(struct iommu_hwpt_set_dirty_tracking){
			      sizeof(struct iommu_hwpt_set_dirty_tracking),
			      IOMMU_HWPT_DIRTY_TRACKING_ENABLE, g.parent, 0}),
		  0);
	assert_rc(swiommu_dma_write(dma, BASE, &c, 1), 0);
	assert_rc(ioc(r, IOMMU_HWPT_GET_DIRTY_BITMAP,
		      &(struct iommu_hwpt_get_dirty_bitmap){
			      .size = sizeof(struct iommu_hwpt_get_dirty_bitmap),
			      .hwpt_id = g.parent,
			      .iova = GPA,
			      .length = GUEST_PAGES * PAGE,
			      .page_size = PAGE,
			      .data = (uintptr_t)&bits}),
		  0);
	/* The page, and the four tables at the end. */
	assert_true(bits == (1ull << 3 | 0xfull << 60));
	/* A device that cannot record writes does not go there. */
	r->dev.dirty_tracking = false;
	iommufd_device_detach(r->idev, 0);
	{
		uint32_t pt = nested_new(r, &g, root, 48, 0, 0, 0);

		assert_rc(iommufd_device_attach(r->idev, 0, &pt), -EINVAL);
	}
	swiommu_dma_close(dma);
	guest_fini(&g);
}

/* ---- any table --------------------------------------------------------------------------------------- */

/* What the specification says of an access, by a walk of the test's own. 0: *gpa is where it leads. */
static int model_walk(struct guest *g, uint64_t root, unsigned int levels, uint64_t iova,
		      bool write, uint64_t *gpa)
{
	uint64_t table = root, e = 0, all = ~0ull, size;
	unsigned int level;
	int64_t top = (int64_t)iova >> (11 + 9 * levels);

	if (top && top != -1)
		return -EFAULT;
	for (level = levels; level--;) {
		if (table < GPA || table >= GPA + GUEST_PAGES * PAGE)
			return -EFAULT;
		e = *entry_at(g, table, iova, level);
		if (!(e & P))
			return -ENOENT;
		if (e & PS && level > 2)
			return -EFAULT;
		size = 1ull << (12 + 9 * level);
		if (e & PS && level && (e & ADDR & (size - 1) & ~0x1000ull))
			return -EFAULT;
		all &= e;
		table = e & ADDR;
		if (e & PS)
			break;
	}
	if (level > levels)
		level = 0;
	if (!(all & U) || (write && !(all & RW_)))
		return -EPERM;
	size = 1ull << (12 + 9 * level);
	*gpa = (e & ADDR & ~(size - 1)) | (iova & (size - 1));
	return *gpa < GPA || *gpa >= GPA + GUEST_PAGES * PAGE ? -EFAULT : 0;
}

/* Pages full of entries that mostly make sense and lead anywhere in them. */
static void random_tables(struct guest *g, uint64_t *seed)
{
	for (unsigned int i = 0; i < GUEST_PAGES * 512; i++) {
		uint64_t r = random_next(seed), to = GPA + r % GUEST_PAGES * PAGE;

		g->ram[i] = to | (r >> 8 & 15 ? P : 0) | (r >> 12 & 7 ? U : 0) |
			    (r >> 15 & 7 ? RW_ : 0) | (r >> 18 & 31 ? 0 : PS) |
			    (r >> 23 & 63 ? 0 : r & ADDR) | (r & 0x7ull << 60);
	}
}

static void as_the_specification_says(void **state)
{
	struct rig *r = *state;
	uint64_t seed = (uint64_t)getpid() << 20 | 0x5eed, start = seed;
	unsigned int outcomes[4] = {0};
	struct swiommu_dma *dma;
	struct guest g;

	guest_init(r, &g, 0);
	assert_rc(swiommu_dma_open(r->idev, &dma), 0);
	for (int round = 0; round < 20; round++) {
		uint32_t width = round % 2 ? 57 : 48, hwpt;
		uint64_t root;

		random_tables(&g, &seed);
		root = GPA + random_next(&seed) % GUEST_PAGES * PAGE;
		hwpt = nested_new(r, &g, root, width, 0, 0, 0);
		attach(r, 0, hwpt);
		for (int i = 0; i < 500; i++) {
			uint64_t iova = random_next(&seed), gpa = 0, got, want;
			bool write = random_next(&seed) & 1;
			int expected, rc;

			/* Mostly canonical, a word within a page. */
			if (random_next(&seed) % 16)
				iova = (uint64_t)((int64_t)(iova << (64 - width)) >> (64 - width));
			iova &= ~7ull;
			got = random_next(&seed);
			expected = model_walk(&g, root, width == 57 ? 5 : 4, iova, write, &gpa);
			rc = write ? swiommu_dma_write(dma, iova, &got, 8)
				   : swiommu_dma_read(dma, iova, &got, 8);
			if (rc != expected)
				fail_msg("seed %#lx round %d access %d: %s of %#lx: %d, not %d",
					 (unsigned long)start, round, i, write ? "write" : "read",
					 (unsigned long)iova, rc, expected);
			outcomes[!rc ? 0 : rc == -ENOENT ? 1 : rc == -EPERM ? 2 : 3]++;
			if (!rc) {
				memcpy(&want, guest_at(&g, gpa), 8);
				if (want != got)
					fail_msg("seed %#lx round %d access %d: another address",
						 (unsigned long)start, round, i);
			}
			/* The write may have changed the table. */
			if (write)
				invalidate_page(r, hwpt, 0);
		}
		iommufd_device_detach(r->idev, 0);
		assert_rc(destroy(r->ctx, hwpt), 0);
	}
	for (int i = 0; i < 4; i++)
		assert_true(outcomes[i] > 100);
	swiommu_dma_close(dma);
	guest_fini(&g);
}

/* Everything on the way to a nested access fails once; nothing is left of it, and then it works. */
static long nested_access(struct rig *r, struct guest *g, uint64_t root, uint32_t fault,
			  struct swiommu_dma *dma)
{
	struct iommu_hwpt_vtd_s1_invalidate inv = {.addr = BASE, .npages = 1};
	uint32_t hwpt, pt, done;
	unsigned int left;
	char c = 1;
	long rc = nested_alloc(r, g->parent, root, 48, 0, FAULT | PASID, fault, &hwpt);

	if (rc)
		return rc;
	pt = hwpt;
	rc = iommufd_device_attach(r->idev, 9, &pt);
	if (!rc) {
		rc = swiommu_dma_write(dma, BASE, &c, 1);
		if (!rc)
			rc = invalidate(r, hwpt, &inv, 1, &done);
		iommufd_device_detach(r->idev, 9);
	}
	left = swi_alloc_fail_nth(0);
	assert_rc(destroy(r->ctx, hwpt), 0);
	swi_alloc_fail_nth(left);
	return rc;
}

static void out_of_memory(void **state)
{
	struct rig *r = *state;
	unsigned int nth, failed = 0;
	struct swiommu_dma *dma;
	uint32_t fault, pt;
	uint64_t root;
	struct guest g;
	char c;
	int fd;

	guest_init(r, &g, PASID);
	fault = fault_new(r, &fd);
	root = table_new(&g);
	*entry_of(&g, root, 4, BASE, 0) = GPA | P | U | RW_;
	assert_rc(swiommu_dma_open_pasid(r->idev, 9, SWIOMMU_DMA_PAGE_REQUESTS, &dma), 0);
	for (nth = 1;; nth++) {
		long rc;

		swi_alloc_fail_nth(nth);
		rc = nested_access(r, &g, root, fault, dma);
		if (swi_alloc_fail_nth(0)) {
			assert_rc(rc, 0);
			break;
		}
		failed += rc != 0;
		assert_true(nth < 200);
	}
	assert_true(failed >= 8);
	/* A request for which there is no memory is a fault, and nobody waits. */
	*entry_of(&g, root, 4, BASE, 0) = 0;
	pt = nested_new(r, &g, root, 48, 0, FAULT | PASID, fault);
	attach(r, 9, pt);
	swi_alloc_fail_nth(1);
	assert_rc(swiommu_dma_read(dma, BASE, &c, 1), -ENOENT);
	assert_int_equal(swi_alloc_fail_nth(0), 0);
	swiommu_dma_close(dma);
	iommufd_device_detach(r->idev, 9);
	close_fd(r, fd);
	guest_fini(&g);
}

/* ---- races ------------------------------------------------------------------------------------------ */

#define FLIPS 80

struct race {
	struct rig *r;
	struct swiommu_dma *dma;
	uint64_t offset; /* a word of its own */
	_Atomic bool stop;
	_Atomic unsigned int accesses;
};

static void *racing_device(void *arg)
{
	struct race *race = arg;
	uint64_t word = ~0ull;

	while (!race->stop) {
		int rc = swiommu_dma_write(race->dma, BASE + race->offset, &word, sizeof(word));

		if (rc && rc != -ENOENT && rc != -EFAULT)
			fail_msg("access: %d", rc);
		race->accesses++;
	}
	return NULL;
}

/* After the invalidation the page that an entry led to is written no more, however many devices are writing. */
static void nothing_after_invalidation(void **state)
{
	struct rig *r = *state;
	struct race race[2] = {{.r = r}, {.r = r, .offset = 8}};
	_Atomic uint64_t *leaf;
	pthread_t threads[2];
	struct guest g;
	uint64_t root;
	uint32_t hwpt;

	guest_init(r, &g, 0);
	root = table_new(&g);
	leaf = entry_of(&g, root, 4, BASE, 0);
	hwpt = nested_new(r, &g, root, 48, 0, 0, 0);
	attach(r, 0, hwpt);
	for (int i = 0; i < 2; i++) {
		assert_rc(swiommu_dma_open(r->idev, &race[i].dma), 0);
		assert_rc(pthread_create(&threads[i], NULL, racing_device, &race[i]), 0);
	}
	for (unsigned int i = 0; i < FLIPS; i++) {
		uint64_t page = i % 8;
		unsigned int before[2];

		*leaf = (GPA + page * PAGE) | P | U | RW_;
		invalidate_page(r, hwpt, BASE);
		for (int t = 0; t < 2; t++)
			before[t] = race[t].accesses;
		for (int t = 0; t < 2; t++)
			while (race[t].accesses == before[t])
				sched_yield();
		*leaf = i % 3 ? 0 : (GPA + 9 * PAGE) | P | U | RW_;
		invalidate_page(r, hwpt, BASE);
		/* The page is ours again: no other thread touches it. */
		memset(guest_at(&g, GPA + page * PAGE), 0, PAGE);
		for (int t = 0; t < 2; t++)
			before[t] = race[t].accesses;
		for (int t = 0; t < 2; t++)
			while (race[t].accesses < before[t] + 2)
				sched_yield();
		for (int i = 0; i < 16; i++)
			assert_int_equal(guest_at(&g, GPA + page * PAGE)[i], 0);
	}
	for (int i = 0; i < 2; i++)
		race[i].stop = true;
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		swiommu_dma_close(race[i].dma);
	}
	iommufd_device_detach(r->idev, 0);
	guest_fini(&g);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(says_what_it_is),
		T(refuses_odd_tables),
		T(sizes_and_widths),
		T(across_pages),
		T(permissions),
		T(accessed_and_dirty),
		T(remembered_until_told),
		T(broken_tables),
		T(pages_of_a_guest_on_demand),
		T(tables_by_pasid),
		T(dirt_of_the_parent),
		T(as_the_specification_says),
		T(out_of_memory),
		T(nothing_after_invalidation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
