// SPDX-License-Identifier: MIT
/*
 * Pages that a model shares with clients: what GET_REGION_INFO and mmap say of them, reads and writes, the node they
 * lie in, and clients that take the file away.
 */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mem/guard.h"

/*
 * BAR0 64 KiB: pages at 0x1000-0x3fff (added as two) and 0x8000-0x8fff, MSI-X table at 0x8800, pending bits at 0xf000.
 * BAR2 64 bytes, all of it pages. BAR3 64 bytes, trapped. BAR4 I/O.
 */
static struct vfio_model paged_model;

static struct {
	unsigned int count, region, size;
	uint64_t offset;
} written;

static int paged_create(struct vfio_device *dev, const char *options, struct swi_reason *why,
			void **out_priv)
{
	vfio_pci_add_region(dev, 0, 0x10000, VFIO_BAR_64BIT);
	vfio_pci_add_pages(dev, 0, 0x1000, 0x2000);
	vfio_pci_add_pages(dev, 0, 0x3000, 0x1000);
	vfio_pci_add_pages(dev, 0, 0x8000, 0x1000);
	vfio_pci_add_region(dev, 2, 64, VFIO_BAR_MMAP);
	vfio_pci_add_region(dev, 3, 64, 0);
	vfio_pci_add_region(dev, 4, 32, VFIO_BAR_IO);
	vfio_config_add_msix(dev, 2, 0, 0x8800, 0xf000);
	return bare_model.create(dev, options, why, out_priv);
}

static void pages_written(void *priv, unsigned int region, uint64_t offset, unsigned int size)
{
	(void)priv;
	written.count++;
	written.region = region;
	written.offset = offset;
	written.size = size;
}

static int setup(void **state)
{
	static struct rig rig;

	paged_model = bare_model;
	paged_model.create = paged_create;
	paged_model.pages_written = pages_written;
	rig_bound(&rig, &paged_model, "");
	memset(&written, 0, sizeof(written));
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	rig_close(*state);
	return 0;
}

/* ---- what clients are told ------------------------------------------------------------------- */

union region {
	struct vfio_region_info info;
	uint8_t bytes[256];
};

static void get_region(struct rig *rig, uint32_t index, union region *u)
{
	memset(u, 0xa5, sizeof(*u));
	u->info.argsz = sizeof(*u);
	u->info.index = index;
	rig_expect(rig, VFIO_DEVICE_GET_REGION_INFO, u, 0);
}

/* The capability with `id`; NULL when it is not in the chain. */
static const void *find_cap(const union region *u, uint16_t id)
{
	uint32_t at = u->info.flags & VFIO_REGION_INFO_FLAG_CAPS ? u->info.cap_offset : 0;

	for (unsigned int n = 0; at && n < 8; n++) {
		const struct vfio_info_cap_header *cap = (const void *)(u->bytes + at);

		assert_true(at % 8 == 0 && at + sizeof(*cap) <= sizeof(*u));
		if (cap->id == id)
			return cap;
		at = cap->next;
	}
	assert_int_equal(at, 0);
	return NULL;
}

static void sparse_list(void **state)
{
	const struct vfio_region_info_cap_sparse_mmap *sparse;
	union region u;

	get_region(*state, 0, &u);
	assert_int_equal(u.info.flags, 1 | 2 | 4 | 8);
	sparse = find_cap(&u, VFIO_REGION_INFO_CAP_SPARSE_MMAP);
	assert_non_null(sparse);
	assert_int_equal(sparse->header.version, 1);
	assert_int_equal(sparse->nr_areas, 2);
	assert_int_equal(sparse->reserved, 0);
	assert_int_equal(sparse->areas[0].offset, 0x1000);
	assert_int_equal(sparse->areas[0].size, 0x3000);
	assert_int_equal(sparse->areas[1].offset, 0x8000);
	assert_int_equal(sparse->areas[1].size, 0x1000);
	assert_non_null(find_cap(&u, VFIO_REGION_INFO_CAP_MSIX_MAPPABLE));
	/* All of it: no list. None of it: no mapping. */
	get_region(*state, 2, &u);
	assert_int_equal(u.info.flags, 1 | 2 | 4);
	assert_int_equal(u.info.size, 64);
	for (uint32_t i = 3; i <= 4; i++) {
		get_region(*state, i, &u);
		assert_int_equal(u.info.flags, 1 | 2);
	}
}

static void a_client_that_traps_sees_whole_bars(void **state)
{
	struct rig *rig = *state;
	union region u;

	rig->caller.can_trap = true;
	get_region(rig, 0, &u);
	assert_int_equal(u.info.flags, 1 | 2 | 4 | 8);
	assert_null(find_cap(&u, VFIO_REGION_INFO_CAP_SPARSE_MMAP));
	assert_non_null(find_cap(&u, VFIO_REGION_INFO_CAP_MSIX_MAPPABLE));
	for (uint32_t i = 2; i <= 3; i++) {
		get_region(rig, i, &u);
		assert_int_equal(u.info.flags, 1 | 2 | 4);
	}
	get_region(rig, 4, &u); /* I/O */
	assert_int_equal(u.info.flags, 1 | 2);
}

static void mmap_of_areas(void **state)
{
	static const struct {
		uint64_t region, off, length;
		int rc, trapping, none; /* the caller can trap; and asks for PROT_NONE */
	} cases[] = {
		{0, 0x1000, 0x1000, 0, 0, 0},
		{0, 0x1000, 0x3000, 0, 0, 0},
		{0, 0x2000, 0x2000, 0, 0, 0},
		{0, 0x8000, 0x1000, 0, 0, 0},
		{2, 0, 0x1000, 0, 0, 0},
		{0, 0, 0x1000, -EINVAL, -EINVAL, 0},
		{0, 0, 0x10000, -EINVAL, -EINVAL, 0},
		{0, 0x1000, 0x4000, -EINVAL, -EINVAL, 0},
		{0, 0x4000, 0x1000, -EINVAL, -EINVAL, 0},
		{0, 0x7000, 0x2000, -EINVAL, -EINVAL, 0},
		{0, 0x8000, 0x2000, -EINVAL, -EINVAL, 0},
		{0, 0x8000, 0x9000, -EINVAL, -EINVAL, -EINVAL},
		{0, 0x10000, 0x1000, -EINVAL, -EINVAL, -EINVAL},
		{0, 0x1000, UINT64_MAX - 0xfff, -EINVAL, -EINVAL, -EINVAL},
		{2, 0, 0x2000, -EINVAL, -EINVAL, -EINVAL},
		{3, 0, 0x1000, -EINVAL, -EINVAL, 0},
		{4, 0, 0x1000, -EINVAL, -EINVAL, -EINVAL},
		{1, 0, 0x1000, -EINVAL, -EINVAL, -EINVAL},
		{7, 0, 0x1000, -EINVAL, -EINVAL, -EINVAL},
	};
	struct rig *rig = *state;

	/* Who cannot trap, asking for access or not; who can, likewise. */
	for (unsigned int i = 0; i < 4 * ARRAY_SIZE(cases); i++) {
		unsigned int k = i / 4, how = i % 4;
		bool traps = how / 2, none = how % 2;
		int expected = !traps ? cases[k].rc : none ? cases[k].none : cases[k].trapping;
		int rc;

		rig->caller.can_trap = traps;
		rc = vfio_file_mmap(rig->file, &rig->caller, cases[k].length,
				    none ? PROT_NONE : PROT_READ | PROT_WRITE, MAP_SHARED,
				    cases[k].region << 40 | cases[k].off);
		if (rc != expected || (rc && !rig->caller.reason[0]))
			fail_msg("case %u, caller %u: %d (%s)", k, how, rc, rig->caller.reason);
	}
}

static void areas(void **state)
{
	static const struct {
		unsigned int index;
		uint64_t at;
		struct vfio_area area;
	} cases[] = {
		{0, 0, {0, 0x1000, VFIO_AREA_TRAPPED, -1, 0}},
		{0, 0xfff, {0, 0x1000, VFIO_AREA_TRAPPED, -1, 0}},
		{0, 0x1000, {0x1000, 0x3000, VFIO_AREA_PAGES, 0, 0x1000}},
		{0, 0x3fff, {0x1000, 0x3000, VFIO_AREA_PAGES, 0, 0x1000}},
		{0, 0x4000, {0x4000, 0x4000, VFIO_AREA_TRAPPED, -1, 0}},
		{0, 0x8888, {0x8000, 0x1000, VFIO_AREA_PAGES, 0, 0x8000}},
		{0, 0xffff, {0x9000, 0x7000, VFIO_AREA_TRAPPED, -1, 0}},
		{2, 0, {0, 0x1000, VFIO_AREA_PAGES, 0, 2ull << 40}},
		{3, 63, {0, 0x1000, VFIO_AREA_TRAPPED, -1, 0}},
	};
	static const struct {
		unsigned int index;
		uint64_t at;
	} none[] = {{0, 0x10000}, {0, UINT64_MAX}, {1, 0}, {2, 0x1000}, {4, 0},
		    {5, 0},	  {6, 0},	   {7, 0}, {9, 0},	{UINT32_MAX, 0}};
	struct rig *rig = *state;
	struct vfio_area a;

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct vfio_area *e = &cases[i].area;

		memset(&a, 0xa5, sizeof(a));
		assert_int_equal(vfio_region_area(rig->dev, cases[i].index, cases[i].at, &a), 0);
		assert_int_equal(a.offset, e->offset);
		assert_int_equal(a.length, e->length);
		assert_int_equal(a.kind, e->kind);
		assert_true(e->fd < 0 ? a.fd == -1 : a.fd >= 0);
		if (a.kind == VFIO_AREA_PAGES)
			assert_int_equal(a.fd_offset, e->fd_offset);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(none); i++)
		assert_int_equal(vfio_region_area(rig->dev, none[i].index, none[i].at, &a),
				 -EINVAL);
}

/* ---- what is in them ------------------------------------------------------------------------- */

/* The client's mapping of the area that contains `offset`. */
static char *map_area(struct rig *rig, unsigned int index, uint64_t offset, int node)
{
	struct vfio_area a;
	char *p;

	assert_int_equal(vfio_region_area(rig->dev, index, offset, &a), 0);
	assert_int_equal(a.fd < 0, node >= 0);
	p = mmap(NULL, a.length, PROT_READ | PROT_WRITE, MAP_SHARED, a.fd < 0 ? node : a.fd,
		 (off_t)a.fd_offset);
	assert_true(p != MAP_FAILED);
	return p;
}

static void three_ways_to_the_same_bytes(void **state)
{
	struct rig *rig = *state;
	char *mapped = map_area(rig, 0, 0x2000, -1), *model = vfio_pages(rig->dev, 0, 0x1000);
	unsigned int nr_log;
	uint8_t buf[24];

	assert_non_null(model);
	assert_ptr_equal(vfio_pages(rig->dev, 0, 0x3abc), model + 0x2abc);
	assert_null(vfio_pages(rig->dev, 0, 0xfff));
	assert_null(vfio_pages(rig->dev, 0, 0x4000));
	assert_null(vfio_pages(rig->dev, 3, 0));
	assert_null(vfio_pages(rig->dev, 7, 0));
	assert_int_equal(model[0x10], 0);

	rig_write(rig, 0, 0x1010, 8, 0x1122334455667788);
	assert_int_equal(*(uint64_t *)(mapped + 0x10), 0x1122334455667788);
	assert_int_equal(*(uint64_t *)(model + 0x10), 0x1122334455667788);
	mapped[0x2fff] = 0x5a;
	assert_int_equal(model[0x2fff], 0x5a);
	assert_int_equal(rig_read(rig, 0, 0x3fff, 1), 0x5a);
	model[0x20] = 0x77;
	assert_int_equal(mapped[0x20], 0x77);
	assert_int_equal(rig_read(rig, 0, 0x1020, 4), 0x77);
	for (unsigned int i = 0; i < 3; i++)
		rig_write(rig, 0, 0x1031 + i, 1, 0xa0 + i);
	assert_int_equal(rig_read(rig, 0, 0x1030, 4), 0xa2a1a000);
	assert_int_equal(rig_read(rig, 0, 0x1032, 2), 0xa2a1);

	/* Across the border between trapped and shared: each part goes where it belongs. */
	nr_log = probe_of(rig)->nr_log;
	assert_int_equal(nr_log, 0);
	memset(buf, 0x99, sizeof(buf));
	assert_int_equal(rig_try_write(rig, 0, 0xffc, buf, 8), 8);
	assert_int_equal(probe_of(rig)->nr_log, 1);
	assert_int_equal(probe_of(rig)->log[0].offset, 0xffc);
	assert_int_equal(probe_of(rig)->log[0].size, 4);
	assert_int_equal(*(uint32_t *)mapped, 0x99999999);
	assert_int_equal(*(uint32_t *)(mapped + 4), 0);
	munmap(mapped, 0x3000);
}

static void the_model_is_told_of_writes(void **state)
{
	uint32_t value;

	rig_write(*state, 0, 0x2004, 4, 7);
	assert_int_equal(written.count, 1);
	assert_int_equal(written.region, 0);
	assert_int_equal(written.offset, 0x2004);
	assert_int_equal(written.size, 4);
	rig_read(*state, 0, 0x2004, 4);
	rig_write(*state, 0, 0x4004, 4, 7); /* trapped */
	rig_write(*state, 0, 0x8800, 4, 7); /* the host's MSI-X table */
	assert_int_equal(written.count, 1);
	assert_int_equal(rig_read(*state, 0, 0x8800, 4), UINT32_MAX);
	assert_int_equal(*(uint32_t *)vfio_pages(((struct rig *)*state)->dev, 0, 0x8800), 0);
	/* Decoding off: nothing happens. */
	rig_write(*state, CONFIG, 4, 2, 0);
	value = 9;
	assert_int_equal(rig_try_write(*state, 0, 0x2004, &value, 4), -EIO);
	assert_int_equal(rig_try_read(*state, 0, 0x2004, &value, 4), -EIO);
	rig_write(*state, CONFIG, 4, 2, 2);
	assert_int_equal(rig_read(*state, 0, 0x2004, 4), 7);
	assert_int_equal(written.count, 1);
}

/* ---- the node -------------------------------------------------------------------------------- */

static int make_node(void)
{
	int fd = memfd_create("node", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void pages_move_into_the_node(void **state)
{
	struct rig *rig = *state;
	char *model = vfio_pages(rig->dev, 0, 0x1000), *mapped;
	int node = make_node();

	model[5] = 55;
	assert_true(vfio_device_has_pages(rig->dev));
	assert_int_equal(vfio_device_set_node(rig->dev, node), 0);
	assert_ptr_equal(vfio_pages(rig->dev, 0, 0x1000), model);
	mapped = map_area(rig, 0, 0x1000, node);
	assert_int_equal(mapped[5], 55);
	mapped[6] = 66;
	assert_int_equal(model[6], 66);
	munmap(mapped, 0x3000);
	mapped = map_area(rig, 2, 0, node);
	*(volatile char *)mapped = 22;
	assert_int_equal(rig_read(rig, 2, 0, 1), 22);
	munmap(mapped, 0x1000);
	close(node); /* the device has its own */
	assert_int_equal(rig_read(rig, 0, 0x1006, 1), 66);
}

static void a_bad_node_changes_nothing(void **state)
{
	struct rig *rig = *state;
	int node = make_node(), closed = dup(node), read_only;
	char path[32];

	close(closed);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", node);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	rig_write(rig, 0, 0x1000, 4, 123);
	assert_int_equal(vfio_device_set_node(rig->dev, closed), -EBADF);
	assert_int_equal(vfio_device_set_node(rig->dev, read_only), -EBADF);
	assert_int_equal(rig_read(rig, 0, 0x1000, 4), 123);
	munmap(map_area(rig, 0, 0x1000, -1), 0x3000);
	close(read_only);
	close(node);
}

static void a_truncated_node_is_survived(void **state)
{
	struct rig *rig = *state;
	volatile char *model = vfio_pages(rig->dev, 0, 0x1000);
	int node = make_node();
	char *mapped;

	assert_int_equal(mem_guard_install(), 0);
	assert_int_equal(vfio_device_set_node(rig->dev, node), 0);
	model[0] = 1;
	model[0x1000] = 1;
	assert_int_equal(ftruncate(node, 0), 0);
	assert_int_equal(model[0x1000], 0);
	model[0x1000] = 9;
	assert_int_equal(rig_read(rig, 0, 0x2000, 1), 9);
	rig_write(rig, 0, 0x1000, 4, 77);
	assert_int_equal(rig_read(rig, 0, 0x1000, 4), 77);
	/* The next client has a whole device again. */
	vfio_file_close(rig->file);
	assert_int_equal(vfio_file_open(rig->dev, &rig->file), 0);
	assert_int_equal(rig_bind(rig), 0);
	mapped = map_area(rig, 0, 0x1000, node);
	mapped[0x1000] = 3;
	assert_int_equal(model[0x1000], 3);
	munmap(mapped, 0x3000);
	close(node);
}

/* ---- builders -------------------------------------------------------------------------------- */

static struct {
	unsigned int index;
	uint64_t offset, length;
} bad;

static int bad_create(struct vfio_device *dev, const char *options, struct swi_reason *why,
		      void **out_priv)
{
	vfio_pci_add_region(dev, 0, 0x10000, 0);
	vfio_pci_add_region(dev, 1, 64, 0);
	vfio_pci_add_region(dev, 2, 64, VFIO_BAR_IO);
	vfio_pci_add_region(dev, 6, 4096, 0);
	vfio_pci_add_pages(dev, 0, 0x4000, 0x2000);
	vfio_pci_add_pages(dev, bad.index, bad.offset, bad.length);
	return bare_model.create(dev, options, why, out_priv);
}

static void misuse_is_refused(void **state)
{
	static const struct {
		unsigned int index;
		uint64_t offset, length;
		int rc;
	} cases[] = {
		{0, 0x6000, 0x1000, 0},
		{0, 0xf000, 0x1000, 0},
		{1, 0, 0x1000, 0},
		{0, 0x6000, 0, -EINVAL},
		{0, 0x6000, 0x800, -EINVAL},
		{0, 0x6800, 0x1000, -EINVAL},
		{0, 0x5000, 0x1000, -EINVAL},
		{0, 0x1000, 0x1000, -EINVAL},
		{0, 0xf000, 0x2000, -EINVAL},
		{0, 0x20000, 0x1000, -EINVAL},
		{0, 0x7000, UINT64_MAX - 0xfff, -EINVAL},
		{1, 0, 0x2000, -EINVAL},
		{2, 0, 0x1000, -EINVAL},
		{3, 0, 0x1000, -EINVAL},
		{6, 0, 0x1000, -EINVAL},
		{77, 0, 0x1000, -EINVAL},
	};
	struct vfio_model model = bare_model;
	struct vfio_device_place place = {.bdf = "0000:5e:00.0"};
	struct iommu_group group;
	struct vfio_device *dev;
	struct swi_reason why;

	(void)state;
	assert_int_equal(iommu_group_init(&group, 5), 0);
	place.group = &group;
	model.create = bad_create;
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		int rc;

		bad.index = cases[i].index;
		bad.offset = cases[i].offset;
		bad.length = cases[i].length;
		why.text[0] = '\0';
		rc = vfio_device_create(&model, &place, "", &dev, &why);
		if (rc != cases[i].rc || (rc && !why.text[0]))
			fail_msg("case %u: %d (%s)", i, rc, why.text);
		if (!rc)
			vfio_device_destroy(dev);
	}
	iommu_group_fini(&group);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(sparse_list),
		T(a_client_that_traps_sees_whole_bars),
		T(mmap_of_areas),
		T(areas),
		T(three_ways_to_the_same_bytes),
		T(the_model_is_told_of_writes),
		T(pages_move_into_the_node),
		T(a_bad_node_changes_nothing),
		T(a_truncated_node_is_survived),
		cmocka_unit_test(misuse_is_refused),
	};

	return cmocka_run_group_tests_name("vfio_pages", tests, NULL, NULL);
}
