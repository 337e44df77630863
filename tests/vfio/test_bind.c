// SPDX-License-Identifier: MIT
/* BIND, ATTACH, DETACH and close: spec vfio.md 2.2-2.5, 3.4. */
#include "rig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"

#define BIND VFIO_DEVICE_BIND_IOMMUFD
#define ATTACH VFIO_DEVICE_ATTACH_IOMMUFD_PT
#define DETACH VFIO_DEVICE_DETACH_IOMMUFD_PT

static int setup(void **state)
{
	static struct rig rig;

	rig_open(&rig, &probe_model, "");
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	rig_close(*state);
	return 0;
}

static long dma(struct rig *rig, uint64_t iova)
{
	uint8_t byte;

	return vfio_dma_read(&probe_of(rig)->dma, iova, &byte, 1);
}

static uint32_t new_ioas(struct rig *rig)
{
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct swiommu_caller c;

	swiommu_caller_local(&c);
	assert_int_equal(swiommu_ioctl(rig->ctx, &c, IOMMU_IOAS_ALLOC, (uintptr_t)&alloc), 0);
	return alloc.out_ioas_id;
}

static long destroy(struct rig *rig, uint32_t id)
{
	struct iommu_destroy d = {.size = sizeof(d), .id = id};
	struct swiommu_caller c;

	swiommu_caller_local(&c);
	return swiommu_ioctl(rig->ctx, &c, IOMMU_DESTROY, (uintptr_t)&d);
}

static void an_unbound_file_does_nothing(void **state)
{
	static const unsigned int cmds[] = {
		VFIO_DEVICE_GET_INFO,
		VFIO_DEVICE_GET_REGION_INFO,
		VFIO_DEVICE_GET_IRQ_INFO,
		VFIO_DEVICE_SET_IRQS,
		VFIO_DEVICE_RESET,
		VFIO_DEVICE_FEATURE,
		ATTACH,
		DETACH,
		0x5401,
	};
	struct rig *rig = *state;
	uint32_t arg[16] = {64};
	uint8_t byte = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(cmds); i++)
		rig_expect(rig, cmds[i], arg, -EINVAL);
	assert_int_equal(rig_try_read(rig, CONFIG, 0, &byte, 1), -EINVAL);
	assert_int_equal(rig_try_read(rig, CONFIG, 0, &byte, 0), -EINVAL);
	assert_int_equal(rig_try_write(rig, CONFIG, 0, &byte, 1), -EINVAL);
	assert_false(vfio_file_is_bound(rig->file));
	assert_int_equal(rig_bind(rig), 0);
	assert_true(vfio_file_is_bound(rig->file));
	assert_int_equal(rig_try_read(rig, CONFIG, 0, &byte, 1), 1);
}

/* Refusals, one field at a time; the tail of the argument is `tail`. */
static void bind_refusals(void **state)
{
	static const struct {
		uint32_t argsz, flags;
		int32_t iommufd;
		uint8_t tail;
		long rc;
	} cases[] = {
		{0, 0, RIG_CTX_FD, 0, -EINVAL},
		{15, 0, RIG_CTX_FD, 0, -EINVAL},
		{25, 0, RIG_CTX_FD, 1, -E2BIG},
		{4096, 0, RIG_CTX_FD, 1, -E2BIG},
		{4097, 0, RIG_CTX_FD, 0, -E2BIG},
		{UINT32_MAX, 0, RIG_CTX_FD, 0, -E2BIG},
		{24, 0, -1, 0, -EINVAL},
		{24, 0, INT32_MIN, 0, -EINVAL},
		{24, 2, RIG_CTX_FD, 0, -EINVAL},
		{24, 1u << 31, RIG_CTX_FD, 0, -EINVAL},
		{24, VFIO_DEVICE_BIND_FLAG_TOKEN, RIG_CTX_FD, 0, -EINVAL},
		{24, 0, 9999, 0, -EBADF},
		{24, 0, STDOUT_FILENO, 0, -EBADFD},
		/* the order */
		{25, 2, -1, 1, -E2BIG},
		{24, VFIO_DEVICE_BIND_FLAG_TOKEN, 9999, 0, -EINVAL},
	};
	struct rig *rig = *state;
	union {
		struct vfio_device_bind_iommufd bind;
		uint8_t bytes[8192];
	} u;

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		memset(&u, 0, sizeof(u));
		u.bind.argsz = cases[i].argsz;
		u.bind.flags = cases[i].flags;
		u.bind.iommufd = cases[i].iommufd;
		u.bytes[SWI_MAX(24, SWI_MIN(cases[i].argsz, 4096)) - 1] = cases[i].tail;
		rig_expect(rig, BIND, &u, cases[i].rc);
		assert_false(vfio_file_is_bound(rig->file));
	}
	rig_expect(rig, BIND, NULL, -EFAULT);
	assert_int_equal(rig_bind(rig), 0);
}

static void bind_sizes(void **state)
{
	static const uint32_t sizes[] = {16, 20, 24, 25, 4096};
	struct rig *rig = *state;
	union {
		struct vfio_device_bind_iommufd bind;
		uint8_t bytes[4096];
	} u;

	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++) {
		memset(&u, 0, sizeof(u));
		u.bind.argsz = sizes[i];
		u.bind.iommufd = RIG_CTX_FD;
		rig_expect(rig, BIND, &u, 0);
		assert_int_not_equal(u.bind.out_devid, 0);
		assert_int_equal(destroy(rig, u.bind.out_devid), -EBUSY);
		vfio_file_close(rig->file);
		assert_int_equal(destroy(rig, u.bind.out_devid), -ENOENT);
		assert_int_equal(vfio_file_open(rig->dev, &rig->file), 0);
	}
}

static void a_short_page_is_a_fault(void **state)
{
	struct rig *rig = *state;
	uint8_t *page = rig_pages(8192);
	struct vfio_device_bind_iommufd *bind = (void *)(page + 4096 - 24);

	munmap(page + 4096, 4096);
	bind->argsz = 32;
	bind->iommufd = RIG_CTX_FD;
	rig_expect(rig, BIND, bind, -EFAULT);
	bind->argsz = 24;
	rig_expect(rig, BIND, bind, 0);
	munmap(page, 4096);
}

static void one_file_at_a_time(void **state)
{
	struct rig *rig = *state;
	struct rig other;

	rig_for_thread(&other, rig);
	assert_int_equal(vfio_file_open(rig->dev, &other.file), 0);
	assert_int_equal(rig_bind(rig), 0);
	assert_int_equal(rig_bind(rig), -EINVAL);
	assert_non_null(strstr(rig->caller.reason, "already"));
	assert_int_equal(rig_bind(&other), -EINVAL);
	assert_non_null(strstr(other.caller.reason, "another"));
	assert_false(vfio_file_is_bound(other.file));
	/* Closing the one without the device changes nothing. */
	vfio_file_close(other.file);
	assert_int_equal(rig_read(rig, CONFIG, 0, 2), 0x1234);
	assert_int_equal(vfio_file_open(rig->dev, &other.file), 0);
	vfio_file_close(rig->file);
	assert_int_equal(rig_bind(&other), 0);
	rig->file = other.file;
}

static void an_open_group_keeps_cdevs_out(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(vfio_device_group_open(rig->dev), 0);
	assert_int_equal(rig_bind(rig), -EBUSY);
	vfio_device_group_close(rig->dev);
	assert_int_equal(rig_bind(rig), 0);
	assert_int_equal(vfio_device_group_open(rig->dev), -EBUSY);
	vfio_file_close(rig->file);
	assert_int_equal(vfio_device_group_open(rig->dev), 0);
	vfio_device_group_close(rig->dev);
	assert_int_equal(vfio_file_open(rig->dev, &rig->file), 0);
}

static void a_group_belongs_to_one_context(void **state)
{
	struct rig *rig = *state;
	struct vfio_device_place place = *vfio_device_place(rig->dev);
	struct vfio_device_bind_iommufd bind = {.argsz = 24, .iommufd = RIG_CTX_FD + 1};
	struct rig mate;

	rig_for_thread(&mate, rig);
	place.index++;
	assert_int_equal(vfio_device_create(&bare_model, &place, "", &mate.dev, NULL), 0);
	assert_int_equal(vfio_file_open(mate.dev, &mate.file), 0);
	assert_int_equal(rig_bind(rig), 0);
	rig_expect(&mate, BIND, &bind, -EPERM);
	assert_int_equal(rig_bind(&mate), 0);
	vfio_file_close(mate.file);
	vfio_device_destroy(mate.dev);
	vfio_file_close(rig->file);
	assert_int_equal(vfio_file_open(rig->dev, &rig->file), 0);
	rig_expect(rig, BIND, &bind, 0);
}

/* Errors late in BIND leave nothing behind. */
static void a_failed_bind_is_undone(void **state)
{
	struct rig *rig = *state;
	struct vfio_device_bind_iommufd bind = {.argsz = 24, .iommufd = RIG_CTX_FD};
	struct probe *p = probe_of(rig);

	p->fail_open = -ENOMEM;
	rig_expect(rig, BIND, &bind, -ENOMEM);
	assert_int_equal(p->closes, 0);
	rig->bad_out = (uintptr_t)&bind.out_devid;
	rig_expect(rig, BIND, &bind, -EFAULT);
	rig->bad_out = 0;
	assert_int_equal(p->opens, 1);
	assert_int_equal(p->closes, 1);
	assert_false(vfio_file_is_bound(rig->file));
	assert_int_equal(vfio_device_group_open(rig->dev), 0);
	vfio_device_group_close(rig->dev);
	bind.iommufd++;
	rig_expect(rig, BIND, &bind, 0);
}

static void attach_refusals(void **state)
{
	static const struct {
		unsigned int cmd;
		uint32_t argsz, flags;
		long rc;
	} cases[] = {
		{ATTACH, 11, 0, -EINVAL}, {ATTACH, 12, 2, -EINVAL}, {ATTACH, 12, 1, -EINVAL},
		{ATTACH, 15, 1, -EINVAL}, {ATTACH, 16, 1, -EINVAL}, {ATTACH, 16, 3, -EINVAL},
		{DETACH, 7, 0, -EINVAL},  {DETACH, 8, 2, -EINVAL},  {DETACH, 8, 1, -EINVAL},
		{DETACH, 11, 1, -EINVAL}, {DETACH, 12, 1, 0},	    {DETACH, 8, 0, 0},
	};
	struct rig *rig = *state;
	uint32_t pt_id = 0x7fffffff;

	assert_int_equal(rig_bind(rig), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t arg[8] = {cases[i].argsz, cases[i].flags, rig->ioas};

		rig_expect(rig, cases[i].cmd, arg, cases[i].rc);
	}
	rig_expect(rig, ATTACH, NULL, -EFAULT);
	rig_expect(rig, DETACH, NULL, -EFAULT);
	assert_int_equal(rig_attach(rig, &pt_id), -ENOENT);
	assert_true(rig->caller.reason[0]);
	pt_id = rig->devid;
	assert_int_equal(rig_attach(rig, &pt_id), -EINVAL);
	assert_int_equal(dma(rig, 0), -ENXIO);
}

static void attach_replace_detach(void **state)
{
	struct rig *rig = *state;
	uint32_t first = rig->ioas, second = new_ioas(rig), pt_id;
	uint8_t *mem = rig_pages(8192);

	assert_int_equal(rig_bind(rig), 0);
	rig_write(rig, CONFIG, PCI_COMMAND, 2, 6);
	rig_map(rig, mem, 4096, 0x10000, IOMMU_IOAS_MAP_READABLE);
	rig->ioas = second;
	rig_map(rig, mem, 4096, 0x20000, IOMMU_IOAS_MAP_READABLE);
	assert_int_equal(dma(rig, 0x10000), -ENXIO);

	pt_id = first;
	assert_int_equal(rig_attach(rig, &pt_id), 0);
	assert_int_not_equal(pt_id, first); /* the automatic page table's */
	assert_int_equal(dma(rig, 0x10000), 0);
	assert_int_equal(dma(rig, 0x20000), -ENOENT);
	/* Attaching again replaces. */
	pt_id = second;
	assert_int_equal(rig_attach(rig, &pt_id), 0);
	assert_int_equal(dma(rig, 0x10000), -ENOENT);
	assert_int_equal(dma(rig, 0x20000), 0);
	/* A failure changes nothing. */
	pt_id = 12345;
	assert_int_equal(rig_attach(rig, &pt_id), -ENOENT);
	assert_int_equal(pt_id, 12345);
	assert_int_equal(dma(rig, 0x20000), 0);
	assert_int_equal(rig_detach(rig), 0);
	assert_int_equal(dma(rig, 0x20000), -ENXIO);
	assert_int_equal(rig_detach(rig), 0);
	pt_id = first;
	assert_int_equal(rig_attach(rig, &pt_id), 0);
	assert_int_equal(dma(rig, 0x10000), 0);
	munmap(mem, 8192);
}

static void detach_in_between(struct rig *rig)
{
	struct rig other;
	uint32_t pt_id = rig->ioas;

	rig_for_thread(&other, rig);
	assert_int_equal(rig_detach(&other), 0);
	assert_int_equal(rig_attach(&other, &pt_id), 0);
}

static void an_attach_that_cannot_answer_is_undone(void **state)
{
	struct rig *rig = *state;
	struct vfio_device_attach_iommufd_pt attach = {.argsz = 12, .pt_id = rig->ioas};
	uint8_t *mem = rig_pages(4096);

	assert_int_equal(rig_bind(rig), 0);
	rig_write(rig, CONFIG, PCI_COMMAND, 2, 6);
	rig_map(rig, mem, 4096, 0x10000, IOMMU_IOAS_MAP_READABLE);
	rig->bad_out = (uintptr_t)&attach.pt_id;
	rig_expect(rig, ATTACH, &attach, -EFAULT);
	assert_int_equal(dma(rig, 0x10000), -ENXIO);
	/* But not what somebody else has attached meanwhile. */
	rig->on_copy_out = detach_in_between;
	rig_expect(rig, ATTACH, &attach, -EFAULT);
	assert_int_equal(dma(rig, 0x10000), 0);
	munmap(mem, 4096);
}

static void close_gives_everything_back(void **state)
{
	struct rig *rig = *state;
	uint32_t pt_id = rig->ioas;

	assert_int_equal(rig_bind(rig), 0);
	assert_int_equal(rig_attach(rig, &pt_id), 0);
	assert_int_equal(destroy(rig, rig->ioas), -EBUSY);
	vfio_file_close(rig->file);
	assert_int_equal(destroy(rig, pt_id), -ENOENT);
	assert_int_equal(destroy(rig, rig->ioas), 0);
	assert_int_equal(probe_of(rig)->opens, probe_of(rig)->closes);
	assert_int_equal(vfio_file_open(rig->dev, &rig->file), 0);
}

/* The device keeps the context alive after its number is closed. */
static void the_context_lives_as_long_as_the_binding(void **state)
{
	struct rig *rig = *state;
	uint32_t pt_id = rig->ioas;
	uint8_t *mem = rig_pages(4096);

	assert_int_equal(rig_bind(rig), 0);
	rig_write(rig, CONFIG, PCI_COMMAND, 2, 6);
	rig_map(rig, mem, 4096, 0x10000, IOMMU_IOAS_MAP_READABLE);
	assert_int_equal(rig_attach(rig, &pt_id), 0);
	swiommu_close(rig->ctx);
	assert_int_equal(dma(rig, 0x10000), 0);
	vfio_file_close(rig->file);
	assert_int_equal(swiommu_open(NULL, &rig->ctx), 0);
	assert_int_equal(vfio_file_open(rig->dev, &rig->file), 0);
	munmap(mem, 4096);
}

/* Every allocation of the sequence fails once; then the same sequence succeeds. */
static long sequence(struct rig *rig, const int32_t *efds)
{
	uint32_t pt_id = rig->ioas;
	long rc = rig_bind(rig);

	if (!rc)
		rc = rig_attach(rig, &pt_id);
	if (!rc)
		rc = rig_arm(rig, VFIO_PCI_MSIX_IRQ_INDEX, 0, 4, efds);
	return rc;
}

static void every_allocation_may_fail(void **state)
{
	struct rig *rig = *state;
	uint8_t *mem = rig_pages(4096);
	int32_t efds[4];
	unsigned int nth;

	(void)state;
	for (unsigned int i = 0; i < 4; i++)
		efds[i] = rig_eventfd();
	rig_map(rig, mem, 4096, 0x10000, IOMMU_IOAS_MAP_READABLE);
	for (nth = 1; nth < 200; nth++) {
		long rc;

		swi_alloc_fail_nth(nth);
		rc = sequence(rig, efds);
		if (swi_alloc_fail_nth(0)) {
			assert_int_equal(rc, 0);
			break;
		}
		/* Look-ups and copies are failure points too, each with an errno of its own. */
		assert_true(rc < 0);
		assert_true(rig->caller.reason[0]);
		if (vfio_file_is_bound(rig->file)) {
			vfio_file_close(rig->file);
			assert_int_equal(vfio_file_open(rig->dev, &rig->file), 0);
		}
		assert_int_equal(destroy(rig, rig->devid), -ENOENT);
		assert_int_equal(sequence(rig, efds), 0);
		vfio_file_close(rig->file);
		assert_int_equal(vfio_file_open(rig->dev, &rig->file), 0);
	}
	assert_in_range(nth, 4, 199);
	for (unsigned int i = 0; i < 4; i++)
		close(efds[i]);
	munmap(mem, 4096);
}

/* Threads fight for one device; exactly one at a time has it. */
struct fighter {
	struct rig *rig;
	_Atomic int *owners;
	unsigned int wins;
};

static void *fight(void *arg)
{
	struct fighter *f = arg;
	struct rig rig;

	rig_for_thread(&rig, f->rig);
	for (unsigned int i = 0; i < 200; i++) {
		uint32_t pt_id = rig.ioas;

		if (vfio_file_open(rig.dev, &rig.file))
			abort();
		if (!rig_bind(&rig)) {
			if (atomic_fetch_add(f->owners, 1) || rig_attach(&rig, &pt_id))
				abort();
			f->wins++;
			atomic_fetch_sub(f->owners, 1);
		}
		vfio_file_close(rig.file);
	}
	return NULL;
}

static void binding_is_exclusive(void **state)
{
	_Atomic int owners = 0;
	struct fighter fighters[4];
	pthread_t threads[4];
	unsigned int wins = 0;

	for (unsigned int i = 0; i < 4; i++) {
		fighters[i] = (struct fighter){*state, &owners, 0};
		assert_int_equal(pthread_create(&threads[i], NULL, fight, &fighters[i]), 0);
	}
	for (unsigned int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		wins += fighters[i].wins;
	}
	assert_int_equal(probe_of(*state)->opens, wins);
	assert_int_equal(probe_of(*state)->closes, wins);
	assert_true(wins > 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(an_unbound_file_does_nothing),
		T(bind_refusals),
		T(bind_sizes),
		T(a_short_page_is_a_fault),
		T(one_file_at_a_time),
		T(an_open_group_keeps_cdevs_out),
		T(a_group_belongs_to_one_context),
		T(a_failed_bind_is_undone),
		T(attach_refusals),
		T(attach_replace_detach),
		T(an_attach_that_cannot_answer_is_undone),
		T(close_gives_everything_back),
		T(the_context_lives_as_long_as_the_binding),
		T(every_allocation_may_fail),
		T(binding_is_exclusive),
	};

	return cmocka_run_group_tests_name("vfio_bind", tests, NULL, NULL);
}
