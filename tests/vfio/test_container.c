// SPDX-License-Identifier: MIT
/* Container files and the type 1 backend: spec vfio.md 3.3. */
#include "group_rig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"

#define P 4096ull

static long check(struct group_rig *g, unsigned long extension)
{
	return container_ioctl(g, 0, VFIO_CHECK_EXTENSION, (void *)extension);
}

static void extensions(void **state)
{
	/* Before and after a type is set. */
	static const struct {
		unsigned long extension;
		long before, after;
	} cases[] = {
		{0, 0, 0}, {1, 1, 1}, {2, 0, 0}, {3, 1, 1}, {4, 0, 1},	{5, 0, 0},
		{6, 0, 0}, {7, 0, 0}, {8, 0, 0}, {9, 1, 1}, {10, 0, 1}, {11, 0, 0},
	};
	struct group_rig *g = *state;

	assert_int_equal(container_ioctl(g, 0, VFIO_GET_API_VERSION, NULL), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(check(g, cases[i].extension), cases[i].before);
	group_ready(g, VFIO_TYPE1v2_IOMMU);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(check(g, cases[i].extension), cases[i].after);
}

static long set_iommu(struct group_rig *g, unsigned long type)
{
	return container_ioctl(g, 0, VFIO_SET_IOMMU, (void *)type);
}

static void a_type_needs_a_group(void **state)
{
	static const unsigned long wrong[] = {0, 2, 4, 6, 7, 8, 9, 1ul << 32};
	struct group_rig *g = *state;
	uint32_t argsz = 64;

	assert_int_equal(set_iommu(g, 1), -EINVAL);
	assert_int_equal(container_ioctl(g, 0, VFIO_IOMMU_GET_INFO, &argsz), -EINVAL);
	assert_int_equal(container_ioctl(g, 0, VFIO_DEVICE_GET_INFO, &argsz), -EINVAL);
	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(set_container(g, 0, CONTAINER_FD), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(set_iommu(g, wrong[i]), -ENODEV);
	assert_int_equal(container_ioctl(g, 0, VFIO_IOMMU_GET_INFO, &argsz), -EINVAL);
	assert_int_equal(set_iommu(g, 1), 0);
	assert_int_equal(set_iommu(g, 1), -EINVAL);
	assert_int_equal(set_iommu(g, 3), -EINVAL);
	assert_int_equal(container_ioctl(g, 0, VFIO_DEVICE_GET_INFO, &argsz), -ENOTTY);
	assert_int_equal(container_ioctl(g, 0, VFIO_IOMMU_ENABLE, NULL), -ENOTTY);
}

static void the_type_goes_with_the_last_group(void **state)
{
	struct group_rig *g = *state;
	uint8_t *page = rig_pages(P);
	uint64_t size = P;

	group_ready(g, 1);
	assert_int_equal(group_open(g, 1), 0);
	assert_int_equal(set_container(g, 1, CONTAINER_FD), 0);
	assert_int_equal(map_dma(g, page, P, 0, RW), 0);
	group_close(g, 0);
	assert_int_equal(map_dma(g, page, P, 0, RW), -EEXIST);
	assert_int_equal(group_ioctl(g, 1, VFIO_GROUP_UNSET_CONTAINER, NULL), 0);
	assert_int_equal(map_dma(g, page, P, 0, RW), -EINVAL);
	assert_int_equal(set_container(g, 1, CONTAINER_FD), 0);
	assert_int_equal(set_iommu(g, 3), 0);
	assert_int_equal(unmap_dma(g, 0, &size, 0), 0);
	assert_int_equal(size, 0);
	munmap(page, P);
}

/* One thing after the other that can fail does; until nothing of it matters. */
static unsigned int until_it_works(struct group_rig *g, long (*call)(struct group_rig *g),
				   void (*unchanged)(struct group_rig *g))
{
	for (unsigned int n = 1; n < 1000; n++) {
		long rc;

		swi_alloc_fail_nth(n);
		rc = call(g);
		swi_alloc_fail_nth(0);
		if (!rc)
			return n - 1;
		unchanged(g);
	}
	return 0;
}

static long set_v2(struct group_rig *g)
{
	return set_iommu(g, 3);
}

static void has_no_type(struct group_rig *g)
{
	uint64_t size = P;

	assert_int_equal(unmap_dma(g, 0, &size, 0), -EINVAL);
	assert_null(g->devices[MINE]->idev);
	assert_null(g->devices[MATE]->idev);
	assert_null(g->devices[OTHER]->idev);
}

static long set_other(struct group_rig *g)
{
	return set_container(g, 1, CONTAINER_FD);
}

static void other_is_free(struct group_rig *g)
{
	assert_false(iommu_group_dma_owner_claimed(&g->other_group));
	assert_null(g->devices[OTHER]->idev);
}

static void a_group_that_cannot_be_attached_changes_nothing(void **state)
{
	struct group_rig *g = *state;

	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(group_open(g, 1), 0);
	assert_int_equal(set_container(g, 0, CONTAINER_FD), 0);
	assert_int_equal(set_container(g, 1, CONTAINER_FD), 0);
	assert_true(until_it_works(g, set_v2, has_no_type) > 20);
	group_close(g, 1);
	assert_int_equal(group_open(g, 1), 0);
	assert_true(until_it_works(g, set_other, other_is_free) > 1);
}

/* ---- MAP_DMA ----------------------------------------------------------------------------- */

static void map_refusals(void **state)
{
	uint8_t *page = rig_pages(4 * P);
	const uint64_t va = (uintptr_t)page;
	const struct {
		uint32_t argsz, flags;
		uint64_t vaddr, iova, size;
		long rc;
	} cases[] = {
		{31, RW, va, 0, P, -EINVAL},
		{32, 8 | RW, va, 0, P, -EINVAL},
		{32, RW, va, 0, 0, -EINVAL},
		{32, 0, va, 0, P, -EINVAL},
		{32, VFIO_DMA_MAP_FLAG_VADDR | RW, va, 0, P, -EINVAL},
		{32, RW, va, -P, 2 * P, -EOVERFLOW},
		{32, RW, -P, 0, 2 * P, -EOVERFLOW},
		{32, 0, va, -P, 2 * P, -EOVERFLOW}, /* the order */
		{32, RW, va, 0, P - 1, -EINVAL},
		{32, RW, va, 512, P, -EINVAL},
		{32, RW, va + 512, 0, P, -EINVAL},
		{32, RW, va, 0x100000, P, -EEXIST},
		{32, RW, va, 0xff000, 2 * P, -EEXIST},
		{32, RW, va, 0x101000, P, -EEXIST},
		{32, RW, va, 0xfee00000, P, -EINVAL},	   /* the MSI window */
		{32, RW, va, 0x1000000000000, P, -EINVAL}, /* beyond the aperture */
		{32, RW, P, 0, P, -EFAULT},
		{32, VFIO_DMA_MAP_FLAG_VADDR, va, 0x200000, P, -ENOENT},
		{32, VFIO_DMA_MAP_FLAG_VADDR, va, 0x100000, 2 * P, -EINVAL}, /* has its address */
		{32, RW, va, 0x200000, P, 0},
		{64, VFIO_DMA_MAP_FLAG_READ, va, 0x201000, P, 0},
	};
	struct group_rig *g = *state;

	group_ready(g, VFIO_TYPE1v2_IOMMU);
	assert_int_equal(map_dma(g, page, 2 * P, 0x100000, RW), 0);
	assert_int_equal(container_ioctl(g, 0, VFIO_IOMMU_MAP_DMA, NULL), -EFAULT);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vfio_iommu_type1_dma_map map = {cases[i].argsz, cases[i].flags,
						       cases[i].vaddr, cases[i].iova,
						       cases[i].size};
		long rc = container_ioctl(g, 0, VFIO_IOMMU_MAP_DMA, &map);

		if (rc != cases[i].rc)
			fail_msg("case %u: %ld, expected %ld (%s)", i, rc, cases[i].rc,
				 g->r.caller.reason);
	}
	munmap(page, 4 * P);
}

static void permissions_and_unmapping_hold_for_devices(void **state)
{
	struct group_rig *g = *state;
	uint8_t byte = 1, *page = rig_pages(P);
	uint64_t size = P;
	struct rig dev;

	rig_for_thread(&dev, &g->r);
	group_ready(g, VFIO_TYPE1v2_IOMMU);
	assert_int_equal(get_device(g, 0, MINE_BDF, &dev.file), 0);
	rig_write(&dev, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	assert_int_equal(map_dma(g, page, P, 0x5000, VFIO_DMA_MAP_FLAG_READ), 0);
	assert_int_equal(vfio_dma_read(&probe_of(&g->r)->dma, 0x5000, &byte, 1), 0);
	assert_int_equal(vfio_dma_write(&probe_of(&g->r)->dma, 0x5000, &byte, 1), -EPERM);
	assert_int_equal(unmap_dma(g, 0x5000, &size, 0), 0);
	assert_int_equal(vfio_dma_read(&probe_of(&g->r)->dma, 0x5000, &byte, 1), -ENOENT);
	vfio_file_close(dev.file);
	munmap(page, P);
}

static void registers_can_be_mapped_for_dma(void **state)
{
	struct group_rig *g = *state;
	struct vfio_device *other = g->devices[OTHER];
	uint8_t bytes[4] = {1, 2, 3, 4}, back[4] = {0};
	uint8_t *pages = vfio_pages(other, 0, 0xf000);
	uint64_t size = 2 * P;
	struct rig dev, peer;

	rig_for_thread(&dev, &g->r);
	rig_for_thread(&peer, &g->r);
	group_ready(g, VFIO_TYPE1v2_IOMMU);
	assert_int_equal(group_open(g, 1), 0);
	assert_int_equal(set_container(g, 1, CONTAINER_FD), 0);
	assert_int_equal(get_device(g, 0, MINE_BDF, &dev.file), 0);
	assert_int_equal(get_device(g, 1, OTHER_BDF, &peer.file), 0);
	rig_write(&dev, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	rig_write(&peer, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(map_dma(g, (void *)BAR_ADDRESS, 2 * P, 0x6000, RW), 0);
	assert_int_equal(map_dma(g, (void *)BAR_ADDRESS, 3 * P, 0x9000, RW), -EFAULT);
	assert_int_equal(map_dma(g, (void *)(BAR_ADDRESS + 2 * P), P, 0x9000, RW), -EFAULT);
	/* The trapped registers are not for DMA. */
	assert_int_equal(vfio_dma_write(&probe_of(&g->r)->dma, 0x6000, bytes, 4), -EFAULT);
	assert_int_equal(vfio_dma_write(&probe_of(&g->r)->dma, 0x7011, bytes, 4), 0);
	assert_memory_equal(pages + 0x11, bytes, 4);
	pages[0x12] = 9;
	assert_int_equal(vfio_dma_read(&probe_of(&g->r)->dma, 0x7011, back, 4), 0);
	assert_int_equal(back[1], 9);
	rig_write(&peer, CONFIG, PCI_COMMAND, 2, 0);
	assert_int_equal(vfio_dma_read(&probe_of(&g->r)->dma, 0x7011, back, 4), -EFAULT);
	assert_int_equal(unmap_dma(g, 0x6000, &size, 0), 0);
	assert_int_equal(size, 2 * P);
	vfio_file_close(dev.file);
	vfio_file_close(peer.file);
}

static uint32_t avail(struct group_rig *g)
{
	union {
		struct vfio_iommu_type1_info info;
		uint8_t bytes[512];
	} u = {.info = {.argsz = sizeof(u)}};
	struct vfio_iommu_type1_info_dma_avail *cap;

	assert_int_equal(container_ioctl(g, 0, VFIO_IOMMU_GET_INFO, &u), 0);
	for (uint32_t at = u.info.cap_offset; at; at = cap->header.next) {
		cap = (void *)(u.bytes + at);
		if (cap->header.id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)
			return cap->avail;
	}
	fail();
	return 0;
}

static void the_limit_on_mappings(void **state)
{
	struct group_rig *g = *state;
	uint8_t *page = rig_pages(P);
	uint64_t size = P;

	group_ready(g, VFIO_TYPE1v2_IOMMU);
	assert_int_equal(avail(g), 65535);
	group_rig_close(g);
	group_rig_open(g, 3);
	group_ready(g, VFIO_TYPE1v2_IOMMU);
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(avail(g), 3 - i);
		assert_int_equal(map_dma(g, page, P, 2 * i * P, RW), 0);
	}
	assert_int_equal(avail(g), 0);
	assert_int_equal(map_dma(g, page, P, 0x100000, RW), -ENOSPC);
	assert_int_equal(map_dma(g, page, P, 0, RW), -EEXIST);
	assert_int_equal(unmap_dma(g, 0, &size, 0), 0);
	assert_int_equal(map_dma(g, page, P, 0x100000, RW), 0);
	munmap(page, P);
}

/* ---- UNMAP_DMA --------------------------------------------------------------------------- */

#define ALL VFIO_DMA_UNMAP_FLAG_ALL

static void unmap_refusals(void **state)
{
	static const struct {
		uint32_t argsz, flags;
		uint64_t iova, size;
		long rc;
	} cases[] = {
		{23, 0, 0, P, -EINVAL},
		{24, 8, 0, P, -EINVAL},
		{24, 0, 0, 0, -EINVAL},
		{24, 0, 0, P - 1, -EINVAL},
		{24, 0, 512, P, -EINVAL},
		{24, 0, -P, 2 * P, -EOVERFLOW},
		{24, ALL, 0, P, -EINVAL},
		{24, ALL, P, 0, -EINVAL},
		{24, VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP, 0, P, -EINVAL}, /* no room for it */
		{24, 0, 0x900000, P, 0},
		{24, ALL, 0, 0, 0},
	};
	struct group_rig *g = *state;

	group_ready(g, VFIO_TYPE1v2_IOMMU);
	assert_int_equal(container_ioctl(g, 0, VFIO_IOMMU_UNMAP_DMA, NULL), -EFAULT);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vfio_iommu_type1_dma_unmap unmap = {cases[i].argsz, cases[i].flags,
							   cases[i].iova, cases[i].size};
		long rc = container_ioctl(g, 0, VFIO_IOMMU_UNMAP_DMA, &unmap);

		if (rc != cases[i].rc)
			fail_msg("case %u: %ld, expected %ld (%s)", i, rc, cases[i].rc,
				 g->r.caller.reason);
		assert_int_equal(unmap.size, rc ? cases[i].size : 0);
	}
}

/* Mappings [1, 3) and [4, 6) and [8, 9) pages; what each version makes of a range of pages. */
static void what_a_range_takes_along(void **state)
{
	static const struct {
		unsigned int first, n;
		long rc_v2;
		unsigned int v2, v1; /* pages removed */
	} cases[] = {
		{0, 1, 0, 0, 0},       {1, 2, 0, 2, 2},	      {0, 4, 0, 2, 2},
		{0, 10, 0, 5, 5},      {4, 5, 0, 3, 3},	      {1, 1, -EINVAL, 0, 2},
		{0, 2, -EINVAL, 0, 2}, {2, 1, -EINVAL, 0, 0}, {2, 7, -EINVAL, 0, 0},
		{1, 4, -EINVAL, 0, 4}, {3, 2, -EINVAL, 0, 2}, {5, 4, -EINVAL, 0, 0},
	};
	static const unsigned int maps[][2] = {{1, 2}, {4, 2}, {8, 1}};
	struct group_rig *g = *state;
	uint8_t *page = rig_pages(2 * P);

	for (unsigned int i = 0; i < 2 * ARRAY_SIZE(cases); i++) {
		bool v2 = i % 2;
		uint64_t size = cases[i / 2].n * P, left = 0;
		long rc;

		group_ready(g, v2 ? VFIO_TYPE1v2_IOMMU : VFIO_TYPE1_IOMMU);
		for (unsigned int m = 0; m < ARRAY_SIZE(maps); m++)
			assert_int_equal(map_dma(g, page, maps[m][1] * P, maps[m][0] * P, RW), 0);
		rc = unmap_dma(g, cases[i / 2].first * P, &size, 0);
		if (rc != (v2 ? cases[i / 2].rc_v2 : 0) ||
		    (!rc && size != P * (v2 ? cases[i / 2].v2 : cases[i / 2].v1)))
			fail_msg("version %d, pages %u+%u: %ld, size %llu", v2 ? 2 : 1,
				 cases[i / 2].first, cases[i / 2].n, rc, (unsigned long long)size);
		assert_int_equal(unmap_dma(g, 0, &left, ALL), 0);
		assert_int_equal(left + (rc ? 0 : size), 5 * P);
		group_close(g, 0);
	}
	munmap(page, 2 * P);
}

/* ---- GET_INFO ---------------------------------------------------------------------------- */

static void information(void **state)
{
	struct group_rig *g = *state;
	union {
		struct vfio_iommu_type1_info info;
		uint8_t bytes[512];
	} u;
	bool seen[4] = {false};
	uint32_t need;

	group_ready(g, VFIO_TYPE1v2_IOMMU);
	memset(&u, 0xee, sizeof(u));
	u.info.argsz = 15;
	assert_int_equal(container_ioctl(g, 0, VFIO_IOMMU_GET_INFO, &u), -EINVAL);
	assert_int_equal(container_ioctl(g, 0, VFIO_IOMMU_GET_INFO, NULL), -EFAULT);
	/* Too short for the chain: the size is told, nothing behind argsz is touched. */
	u.info.argsz = 16;
	assert_int_equal(container_ioctl(g, 0, VFIO_IOMMU_GET_INFO, &u), 0);
	assert_int_equal(u.info.flags, VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS);
	assert_int_equal(u.info.cap_offset, 0xeeeeeeee);
	need = u.info.argsz;
	u.info.argsz = need - 1;
	assert_int_equal(container_ioctl(g, 0, VFIO_IOMMU_GET_INFO, &u), 0);
	assert_int_equal(u.info.argsz, need);
	assert_int_equal(u.info.cap_offset, 0);
	assert_int_equal(u.bytes[24], 0xee);
	assert_int_equal(container_ioctl(g, 0, VFIO_IOMMU_GET_INFO, &u), 0);
	assert_int_equal(u.info.argsz, need);
	assert_int_equal(u.bytes[need], 0xee);
	assert_true(u.info.iova_pgsizes & P);
	assert_false(u.info.iova_pgsizes & (P - 1));
	for (uint32_t at = u.info.cap_offset; at;) {
		struct vfio_info_cap_header *cap = (void *)(u.bytes + at);

		assert_int_equal(at % 8, 0);
		assert_in_range(cap->id, 1, 3);
		seen[cap->id] = true;
		if (cap->id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
			struct vfio_iommu_type1_info_cap_iova_range *r = (void *)cap;

			/* Around the MSI window, up to the aperture's end. */
			assert_int_equal(r->nr_iovas, 2);
			assert_int_equal(r->iova_ranges[0].start, 0);
			assert_int_equal(r->iova_ranges[0].end, 0xfedfffff);
			assert_int_equal(r->iova_ranges[1].start, 0xfef00000);
		}
		at = cap->next;
	}
	assert_true(seen[1] && seen[2] && seen[3]);
}

/* ---- dirty pages, lost addresses --------------------------------------------------------- */

static long dirty_pages(struct group_rig *g, uint32_t flags, uint64_t iova, uint64_t size,
			uint64_t pgsize, uint64_t *bits, uint64_t bytes)
{
	struct {
		uint32_t argsz, flags;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} u = {sizeof(u), flags, {iova, size, {pgsize, bytes, (__u64 *)bits}}};

	return container_ioctl(g, 0, VFIO_IOMMU_DIRTY_PAGES, &u);
}

#define START VFIO_IOMMU_DIRTY_PAGES_FLAG_START
#define STOP VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP
#define GET VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP

static void dirty_bitmaps(void **state)
{
	static const struct {
		uint32_t flags;
		uint64_t iova, size, pgsize, bytes;
		long rc;
	} cases[] = {
		{0, 0, P, P, 8, -EINVAL},	    {START | STOP, 0, P, P, 8, -EINVAL},
		{8, 0, P, P, 8, -EINVAL},	    {GET, 0, 0, P, 8, -EINVAL},
		{GET, 0, P + 1, P, 8, -EINVAL},	    {GET, 1, P, P, 8, -EINVAL},
		{GET, -P, 2 * P, P, 8, -EINVAL},    {GET, 0, P, 2 * P, 8, -EINVAL},
		{GET, 0, P, P, 0, -EINVAL},	    {GET, 0, 65 * P, P, 8, -EINVAL},
		{GET, 0, P, P, 1u << 29, -EINVAL},  {GET, 0, 3 * P, P, 8, -EINVAL}, /* cuts */
		{GET, 3 * P, 3 * P, P, 8, -EINVAL},
	};
	struct group_rig *g = *state;
	uint8_t *page = rig_pages(4 * P);
	uint64_t bits[2] = {0}, size = 0;

	group_ready(g, VFIO_TYPE1v2_IOMMU);
	assert_int_equal(map_dma(g, page, 2 * P, 2 * P, RW), 0);
	assert_int_equal(map_dma(g, page, P, 70 * P, RW), 0);
	assert_int_equal(dirty_pages(g, GET, 0, 128 * P, P, bits, 16), -EINVAL);
	assert_int_equal(dirty_pages(g, START, 0, 0, 0, NULL, 0), 0);
	assert_int_equal(dirty_pages(g, START, 0, 0, 0, NULL, 0), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++)
		if (dirty_pages(g, cases[i].flags, cases[i].iova, cases[i].size, cases[i].pgsize,
				bits, cases[i].bytes) != cases[i].rc)
			fail_msg("case %u (%s)", i, g->r.caller.reason);
	assert_int_equal(bits[0] | bits[1], 0);
	assert_int_equal(dirty_pages(g, GET, 0, 128 * P, P, NULL, 16), -EFAULT);
	bits[0] = 1; /* what is set stays set */
	assert_int_equal(dirty_pages(g, GET, 0, 128 * P, P, bits, 16), 0);
	assert_int_equal(bits[0], 0xd);
	assert_int_equal(bits[1], 1ull << 6);
	assert_int_equal(dirty_pages(g, STOP, 0, 0, 0, NULL, 0), 0);
	assert_int_equal(dirty_pages(g, GET, 0, 128 * P, P, bits, 16), -EINVAL);
	assert_int_equal(unmap_dma(g, 0, &size, ALL), 0);
	munmap(page, 4 * P);
}

static long unmap_dirty(struct group_rig *g, uint32_t argsz, uint32_t flags, uint64_t iova,
			uint64_t size, uint64_t *bits, uint64_t bytes)
{
	struct {
		uint32_t argsz, flags;
		uint64_t iova, size;
		struct vfio_bitmap bitmap;
	} u = {argsz, flags, iova, size, {P, bytes, (__u64 *)bits}};

	return container_ioctl(g, 0, VFIO_IOMMU_UNMAP_DMA, &u);
}

static void unmapping_reports_dirty_pages(void **state)
{
	const uint32_t flag = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
	struct group_rig *g = *state;
	uint8_t *page = rig_pages(P);
	uint64_t bits = 0, left = 0;

	group_ready(g, VFIO_TYPE1v2_IOMMU);
	assert_int_equal(map_dma(g, page, P, 3 * P, RW), 0);
	assert_int_equal(unmap_dirty(g, 48, flag, 2 * P, 3 * P, &bits, 8), -EINVAL);
	assert_int_equal(dirty_pages(g, START, 0, 0, 0, NULL, 0), 0);
	assert_int_equal(unmap_dirty(g, 47, flag, 2 * P, 3 * P, &bits, 8), -EINVAL);
	assert_int_equal(unmap_dirty(g, 48, flag | ALL, 0, 0, &bits, 8), -EINVAL);
	assert_int_equal(unmap_dirty(g, 48, flag, 2 * P, 3 * P, &bits, 0), -EINVAL);
	assert_int_equal(unmap_dirty(g, 48, flag, 2 * P, 3 * P, NULL, 8), -EFAULT);
	assert_int_equal(unmap_dirty(g, 48, flag, 2 * P, 3 * P, &bits, 8), 0);
	assert_int_equal(bits, 2);
	assert_int_equal(unmap_dma(g, 0, &left, ALL), 0);
	assert_int_equal(left, 0);
	munmap(page, P);
}

/* Version 1 takes a mapping completely that begins in the range. The bitmap is for the range. */
static void a_dirty_bitmap_is_not_overrun(void **state)
{
	const uint32_t flag = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
	struct group_rig *g = *state;
	uint8_t *pages = rig_pages(128 * P);
	uint64_t bits[3] = {0};

	group_ready(g, VFIO_TYPE1_IOMMU);
	assert_int_equal(map_dma(g, pages, 128 * P, 2 * P, RW), 0);
	assert_int_equal(dirty_pages(g, START, 0, 0, 0, NULL, 0), 0);
	assert_int_equal(unmap_dirty(g, 48, flag, 0, 4 * P, bits, 8), 0);
	assert_int_equal(bits[0], 0xc);
	assert_int_equal(bits[1], 0);
	assert_int_equal(bits[2], 0);
	/* It is gone as a whole. */
	assert_int_equal(map_dma(g, pages, 128 * P, 2 * P, RW), 0);
	munmap(pages, 128 * P);
}

static void mappings_can_lose_their_addresses(void **state)
{
	const uint32_t vaddr = VFIO_DMA_UNMAP_FLAG_VADDR;
	struct group_rig *g = *state;
	uint8_t byte = 0, *page = rig_pages(2 * P);
	uint64_t size = 0;
	struct rig dev;

	rig_for_thread(&dev, &g->r);
	group_ready(g, VFIO_TYPE1v2_IOMMU);
	assert_int_equal(get_device(g, 0, MINE_BDF, &dev.file), 0);
	rig_write(&dev, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	page[0] = 0x61;
	assert_int_equal(map_dma(g, page, P, 0, RW), 0);
	assert_int_equal(map_dma(g, page + P, P, 2 * P, RW), 0);
	assert_int_equal(unmap_dma(g, 0, &size, vaddr | ALL), 0);
	assert_int_equal(size, 2 * P);
	/* Once only; devices go on; no group comes in. */
	size = 0;
	assert_int_equal(unmap_dma(g, 0, &size, vaddr | ALL), -EINVAL);
	assert_int_equal(probe_dma(g->r.dev, 0, &byte), 0);
	assert_int_equal(byte, 0x61);
	assert_int_equal(group_open(g, 1), 0);
	assert_int_equal(set_container(g, 1, CONTAINER_FD), -EBUSY);
	/* Given back one by one, exactly. */
	assert_int_equal(map_dma(g, page, P, 0, RW), -EEXIST);
	assert_int_equal(map_dma(g, page, P, P, 4), -ENOENT);
	assert_int_equal(map_dma(g, page, 2 * P, 0, 4), -EINVAL);
	assert_int_equal(map_dma(g, page, P, 0, 4), 0);
	assert_int_equal(map_dma(g, page, P, 0, 4), -EINVAL);
	size = P;
	assert_int_equal(unmap_dma(g, 2 * P, &size, 0), 0);
	assert_int_equal(set_container(g, 1, CONTAINER_FD), 0);
	vfio_file_close(dev.file);
	munmap(page, 2 * P);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, group_rig_setup, group_rig_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(extensions),
		TEST(a_type_needs_a_group),
		TEST(the_type_goes_with_the_last_group),
		TEST(a_group_that_cannot_be_attached_changes_nothing),
		TEST(map_refusals),
		TEST(permissions_and_unmapping_hold_for_devices),
		TEST(registers_can_be_mapped_for_dma),
		TEST(the_limit_on_mappings),
		TEST(unmap_refusals),
		TEST(what_a_range_takes_along),
		TEST(information),
		TEST(dirty_bitmaps),
		TEST(unmapping_reports_dirty_pages),
		TEST(a_dirty_bitmap_is_not_overrun),
		TEST(mappings_can_lose_their_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
