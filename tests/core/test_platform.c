// SPDX-License-Identifier: MIT
/*
 * What is special about a device: regions it has reserved, its window for software MSI, coherency, isolation of its
 * interrupts, being a virtual function, having no IOMMU.
 */
#include "support.h"

#include <linux/capability.h>
#include <unistd.h>

#include "base/alloc.h"
#include "core/fault.h"
#include "core/hwpt.h"
#include "core/object.h"
#include "core/sw_msi.h"

#define BASE 0x100000ull
#define WINDOW 0x8000000ull
#define DOORBELL 0x8020040ull
#define NDEVS 4

struct rig;

/* Devices 0 and 1 share a group, 2 and 3 have one each. */
struct rig_device {
	struct device dev;
	struct rig *rig;
	struct iommu_resv_region regions[4];
	int nr_regions; /* or an error */
	struct iommufd_device *idev;
	uint32_t id;
	int probes, releases, fail_probe;
	/* The last write to a doorbell. */
	uint64_t rung, message;
};

struct rig {
	struct iommufd_ctx *ctx;
	struct iommu_group groups[3];
	struct rig_device devs[NDEVS];
	char *memory;
};

static struct rig_device *of(struct device *dev)
{
	return (struct rig_device *)dev;
}

static int probe(struct device *dev)
{
	if (of(dev)->fail_probe)
		return of(dev)->fail_probe;
	assert_null(dev->iommu_priv);
	dev->iommu_priv = of(dev);
	of(dev)->probes++;
	return 0;
}

static void release(struct device *dev)
{
	assert_ptr_equal(dev->iommu_priv, of(dev));
	dev->iommu_priv = NULL;
	of(dev)->releases++;
}

static int get_regions(struct device *dev, struct iommu_resv_region *regions)
{
	struct rig_device *d = of(dev);

	if (d->nr_regions > 0)
		memcpy(regions, d->regions, d->nr_regions * sizeof(*regions));
	return d->nr_regions;
}

static _Atomic int enforced, refuse_to_enforce;

static bool enforce(struct iommu_domain *domain)
{
	(void)domain;
	enforced++;
	return !refuse_to_enforce;
}

static int attach_dev(struct iommu_domain *domain, struct device *dev, struct iommu_domain *old)
{
	bool was = old && old->takes_iopf;

	if (domain->takes_iopf && !was)
		return iopf_queue_add_device(dev);
	if (!domain->takes_iopf && was)
		iopf_queue_remove_device(dev);
	return 0;
}

static void page_response(struct device *dev, const struct iopf_fault *evt,
			  const struct iommu_page_response *resp)
{
	(void)dev;
	(void)evt;
	(void)resp;
}

static const struct iommu_domain_ops domain_ops = {.attach_dev = attach_dev,
						   .enforce_cache_coherency = enforce};
static struct iommu_domain blocked = {.type = IOMMU_DOMAIN_BLOCKED, .ops = &domain_ops};

static const struct iommu_driver driver = {.name = "platform",
					   .pgsize_bitmap = PAGE | 512 * PAGE,
					   .aperture_last = (1ull << 48) - 1,
					   .hwpt_flags = IOMMU_HWPT_ALLOC_NEST_PARENT,
					   .enforces_coherency = true,
					   .domain_ops = &domain_ops,
					   .blocked_domain = &blocked,
					   .page_response = page_response,
					   .probe_device = probe,
					   .release_device = release,
					   .get_resv_regions = get_regions};

static void ring(struct device *dev, uint64_t address, const void *data, size_t len)
{
	of(dev)->rung = address;
	of(dev)->message = 0;
	memcpy(&of(dev)->message, data, len < 8 ? len : 8);
}

static int setup_with(void **state, const struct swiommu_options *options)
{
	static const char *const names[NDEVS] = {"dev0", "dev1", "dev2", "dev3"};
	static const int group_of[NDEVS] = {0, 0, 1, 2};
	struct rig *r = calloc(1, sizeof(*r));

	assert_rc(swiommu_open_with(options, &r->ctx), 0);
	for (int i = 0; i < 3; i++)
		assert_rc(iommu_group_init(&r->groups[i], i), 0);
	for (int i = 0; i < NDEVS; i++) {
		r->devs[i].rig = r;
		r->devs[i].dev = (struct device){.name = names[i],
						 .group = &r->groups[group_of[i]],
						 .iommu = &driver,
						 .doorbell = ring};
	}
	r->memory = memory(16);
	enforced = refuse_to_enforce = 0;
	*state = r;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, NULL);
}

static int teardown(void **state)
{
	struct rig *r = *state;

	for (int i = 0; i < NDEVS; i++)
		if (r->devs[i].idev) {
			iommufd_device_detach(r->devs[i].idev, 0);
			iommufd_device_unbind(r->devs[i].idev);
		}
	swiommu_close(r->ctx);
	for (int i = 0; i < 3; i++)
		iommu_group_fini(&r->groups[i]);
	munmap(r->memory, 16 * PAGE);
	free(r);
	return 0;
}

static long bind(struct rig *r, int n)
{
	struct iommufd_device *idev = iommufd_device_bind(r->ctx, &r->devs[n].dev, &r->devs[n].id);

	if (IS_ERR(idev))
		return PTR_ERR(idev);
	r->devs[n].idev = idev;
	return 0;
}

static void unbind(struct rig *r, int n)
{
	iommufd_device_detach(r->devs[n].idev, 0);
	iommufd_device_unbind(r->devs[n].idev);
	r->devs[n].idev = NULL;
}

static int attach(struct rig *r, int n, uint32_t *pt)
{
	return iommufd_device_attach(r->devs[n].idev, 0, pt);
}

static void reserve(struct rig *r, int n, uint64_t first, enum iommu_resv_type type)
{
	struct rig_device *d = &r->devs[n];

	d->regions[d->nr_regions++] = (struct iommu_resv_region){first, first + PAGE - 1, type};
}

static long hwpt_new(struct rig *r, int n, uint32_t ioas, uint32_t flags, uint32_t *out)
{
	struct iommu_hwpt_alloc cmd = {
		.size = sizeof(cmd), .flags = flags, .dev_id = r->devs[n].id, .pt_id = ioas};
	long rc = call(r->ctx, IOMMU_HWPT_ALLOC, &cmd);

	*out = cmd.out_hwpt_id;
	return rc;
}

/* Whether a page can be mapped there, which is undone. */
static bool can_map(struct rig *r, uint32_t ioas, uint64_t iova)
{
	long rc = map(r->ctx, ioas, RW, iova, r->memory, PAGE);

	if (!rc)
		assert_rc(unmap(r->ctx, ioas, iova, PAGE), 0);
	else
		assert_rc(rc, -EINVAL);
	return !rc;
}

/* ---- regions --------------------------------------------------------------------------------------- */

static void kinds_of_regions(void **state)
{
	struct rig *r = *state;
	uint32_t ioas = ioas_new(r->ctx), pt = ioas;

	reserve(r, 0, BASE, IOMMU_RESV_RESERVED);
	reserve(r, 0, BASE + PAGE, IOMMU_RESV_DIRECT_RELAXABLE);
	reserve(r, 0, BASE + 2 * PAGE, IOMMU_RESV_MSI);
	assert_rc(bind(r, 0), 0);
	assert_true(can_map(r, ioas, BASE));
	assert_rc(attach(r, 0, &pt), 0);
	assert_false(can_map(r, ioas, BASE));
	assert_true(can_map(r, ioas, BASE + PAGE));
	assert_false(can_map(r, ioas, BASE + 2 * PAGE));
	iommufd_device_detach(r->devs[0].idev, 0);
	assert_true(can_map(r, ioas, BASE));
	/* What the firmware wants mapped keeps a device from being bound, but not one whose group is bound already. */
	reserve(r, 2, BASE, IOMMU_RESV_DIRECT);
	assert_rc(bind(r, 2), -EINVAL);
	assert_rc(destroy(r->ctx, r->devs[0].id + 1), -ENOENT);
}

/* Row 150: nothing of the device is left in the IOAS, whichever of its regions is in the way. */
static void regions_in_the_way(void **state)
{
	struct rig *r = *state;
	uint32_t ioas = ioas_new(r->ctx), pt = ioas;

	reserve(r, 0, BASE, IOMMU_RESV_RESERVED);
	reserve(r, 0, BASE + PAGE, IOMMU_RESV_MSI);
	assert_rc(bind(r, 0), 0);
	assert_rc(map(r->ctx, ioas, RW, BASE + PAGE, r->memory, PAGE), 0);
	assert_rc(attach(r, 0, &pt), -EADDRINUSE);
	assert_non_null(strstr(swiommu_device_reason(r->devs[0].idev), "0x101000"));
	assert_true(can_map(r, ioas, BASE));
	/* The driver fails, tells too many, or windows that cannot be. */
	r->devs[0].nr_regions = -ENODEV;
	assert_rc(attach(r, 0, &pt), -ENODEV);
	r->devs[0].nr_regions = 1;
	r->devs[0].regions[0].type = IOMMU_RESV_SW_MSI;
	reserve(r, 0, BASE + 4 * PAGE, IOMMU_RESV_SW_MSI);
	assert_rc(attach(r, 0, &pt), -EINVAL);
	r->devs[0].regions[1].type = IOMMU_RESV_MSI;
	assert_rc(attach(r, 0, &pt), -EINVAL);
	r->devs[0].nr_regions = 1;
	assert_rc(attach(r, 0, &pt), 0);
}

/* Row 151, and that a replace that fails in one member's regions leaves the other's old ones alone. */
static void replace_with_regions_in_the_way(void **state)
{
	struct rig *r = *state;
	uint32_t first = ioas_new(r->ctx), second = ioas_new(r->ctx), pt = first;

	reserve(r, 0, BASE, IOMMU_RESV_RESERVED);
	reserve(r, 1, BASE + PAGE, IOMMU_RESV_RESERVED);
	for (int i = 0; i < 2; i++) {
		assert_rc(bind(r, i), 0);
		pt = first;
		assert_rc(attach(r, i, &pt), 0);
	}
	assert_rc(map(r->ctx, second, RW, BASE + PAGE, r->memory, PAGE), 0);
	pt = second;
	assert_rc(iommufd_device_replace(r->devs[0].idev, 0, &pt), -EADDRINUSE);
	assert_true(can_map(r, second, BASE));
	assert_false(can_map(r, first, BASE));
	assert_false(can_map(r, first, BASE + PAGE));
	assert_rc(unmap(r->ctx, second, BASE + PAGE, PAGE), 0);
	pt = second;
	assert_rc(iommufd_device_replace(r->devs[0].idev, 0, &pt), 0);
	assert_false(can_map(r, second, BASE + PAGE));
	assert_true(can_map(r, first, BASE));
	/* Row 149: the group has one translation. */
	iommufd_device_detach(r->devs[1].idev, 0);
	pt = first;
	assert_rc(attach(r, 1, &pt), -EINVAL);
}

/* ---- software MSI ---------------------------------------------------------------------------------- */

static uint64_t msi(struct rig *r, int n, uint64_t doorbell)
{
	struct msi_desc desc = {.dev = &r->devs[n].dev};

	assert_rc(iommufd_sw_msi(NULL, &desc, doorbell), 0);
	return desc.address;
}

/* A device's write to an IOVA: 0, and what its host was told. */
static int ring_at(struct rig *r, int n, uint64_t iova)
{
	struct swiommu_dma *dma;
	uint32_t message = 0x4711;
	int rc;

	assert_rc(swiommu_dma_open(r->devs[n].idev, &dma), 0);
	r->devs[n].rung = 0;
	rc = swiommu_dma_write(dma, iova, &message, sizeof(message));
	swiommu_dma_close(dma);
	if (!rc)
		assert_int_equal(r->devs[n].message, message);
	return rc;
}

static void doorbells(void **state)
{
	struct rig *r = *state;
	uint32_t first = ioas_new(r->ctx), second = ioas_new(r->ctx), pt, hwpt;
	struct msi_desc desc = {.dev = &r->devs[0].dev};
	uint64_t a, b;

	for (int i = 0; i < NDEVS; i++)
		if (i != 3)
			reserve(r, i, WINDOW, IOMMU_RESV_SW_MSI);
	/* Not bound, not attached, no window: the message stays what it is. */
	assert_true(msi(r, 0, DOORBELL) == DOORBELL);
	for (int i = 0; i < NDEVS; i++)
		assert_rc(bind(r, i), 0);
	assert_true(msi(r, 0, DOORBELL) == DOORBELL);
	pt = first;
	assert_rc(attach(r, 3, &pt), 0);
	assert_true(msi(r, 3, DOORBELL) == DOORBELL);
	pt = first;
	assert_rc(attach(r, 0, &pt), 0);
	a = msi(r, 0, DOORBELL);
	assert_true(a == WINDOW + DOORBELL % PAGE);
	assert_true(msi(r, 0, DOORBELL + 8) == a + 8);
	b = msi(r, 0, DOORBELL + 0x10000);
	assert_true(b == a + PAGE);
	assert_rc(ring_at(r, 0, a), 0);
	assert_true(r->devs[0].rung == DOORBELL);
	assert_rc(ring_at(r, 0, b), 0);
	assert_true(r->devs[0].rung == DOORBELL + 0x10000);
	assert_rc(ring_at(r, 0, b + PAGE), -ENOENT);
	/* The member of its group, when it comes; a replace to another IOAS: at once, by the same IOVAs. */
	pt = first;
	assert_rc(attach(r, 1, &pt), 0);
	pt = second;
	assert_rc(iommufd_device_replace(r->devs[0].idev, 0, &pt), 0);
	assert_rc(ring_at(r, 1, b), 0);
	assert_true(r->devs[1].rung == DOORBELL + 0x10000 && !r->devs[0].rung);
	/* Another group with that window: the same doorbell, the same IOVA, and only what it needs. */
	assert_rc(hwpt_new(r, 2, second, 0, &hwpt), 0);
	assert_rc(attach(r, 2, &hwpt), 0);
	assert_rc(ring_at(r, 2, a), -ENOENT);
	assert_true(msi(r, 2, DOORBELL + 0x10000) == b);
	assert_rc(ring_at(r, 2, b), 0);
	assert_rc(ring_at(r, 2, a), -ENOENT);
	/* Nothing is read there, and no host that is not told. */
	r->devs[2].dev.doorbell = NULL;
	assert_rc(ring_at(r, 2, b), -EFAULT);
	assert_false(can_map(r, second, WINDOW));
	assert_rc(iommufd_sw_msi(NULL, &desc, 1ull << 50), -ERANGE);
	/* Not of what it is attached to. */
	assert_rc(iommufd_sw_msi(&blocked, &desc, DOORBELL), 0);
	assert_true(desc.address == DOORBELL);
}

static void doorbells_come_to_an_end(void **state)
{
	struct rig *r = *state;
	struct msi_desc desc = {.dev = &r->devs[0].dev};
	uint32_t pt = ioas_new(r->ctx);

	reserve(r, 0, WINDOW, IOMMU_RESV_SW_MSI);
	assert_rc(bind(r, 0), 0);
	assert_rc(attach(r, 0, &pt), 0);
	for (uint64_t i = 0; i < 64; i++)
		assert_true(msi(r, 0, DOORBELL + i * PAGE) == WINDOW + i * PAGE + 0x40);
	assert_rc(iommufd_sw_msi(NULL, &desc, DOORBELL + 64 * PAGE), -EOVERFLOW);
	assert_true(msi(r, 0, DOORBELL + 63 * PAGE) == WINDOW + 63 * PAGE + 0x40);
}

/* Empty page tables are looked for beside them when there are many. */
static void doorbells_stay_when_tables_are_trimmed(void **state)
{
	struct rig *r = *state;
	uint32_t ioas = ioas_new(r->ctx), hwpt;
	struct obj *obj;
	uint64_t a;

	reserve(r, 0, WINDOW, IOMMU_RESV_SW_MSI);
	assert_rc(bind(r, 0), 0);
	assert_rc(hwpt_new(r, 0, ioas, 0, &hwpt), 0);
	assert_rc(attach(r, 0, &hwpt), 0);
	a = msi(r, 0, DOORBELL);
	assert_rc(ring_at(r, 0, a), 0);
	/* Pages far apart take tables of their own, which stay as unmapping one page empties them. */
	for (uint64_t i = 1; i <= 4; i++)
		assert_true(can_map(r, ioas, i << 40));
	assert_rc(obj_get(r->ctx, hwpt, OBJ_HWPT_PAGING, "", NULL, &obj), 0);
	hwpt_of(obj)->tables.trim_at = 1;
	obj_put(obj);
	assert_true(can_map(r, ioas, 5ull << 40));
	assert_rc(ring_at(r, 0, a), 0);
	assert_true(r->devs[0].rung == DOORBELL);
}

/* ---- coherency, isolation, virtual functions -------------------------------------------------------- */

/* Row 152. */
static void coherency(void **state)
{
	struct rig *r = *state;
	uint32_t ioas = ioas_new(r->ctx), a = ioas, b = ioas, hwpt;
	struct swiommu_caller caller;

	r->devs[2].dev.no_enforce = true;
	r->devs[3].dev.incoherent = true;
	assert_rc(bind(r, 3), -EINVAL);
	assert_rc(bind(r, 0), 0);
	assert_rc(bind(r, 2), 0);
	assert_rc(attach(r, 0, &a), 0);
	assert_int_equal(enforced, 1);
	assert_rc(attach(r, 2, &b), 0);
	assert_int_not_equal(a, b);
	assert_int_equal(enforced, 1);
	/* By name, and by replace. */
	iommufd_device_detach(r->devs[2].idev, 0);
	assert_rc(attach(r, 2, &a), -EINVAL);
	assert_rc(hwpt_new(r, 2, ioas, 0, &hwpt), 0);
	assert_rc(attach(r, 2, &hwpt), 0);
	assert_rc(iommufd_device_replace(r->devs[2].idev, 0, &a), -EINVAL);
	/* The other way round it goes. */
	assert_rc(iommufd_device_replace(r->devs[0].idev, 0, &hwpt), 0);
	/* What the container API says of it. */
	swiommu_caller_local(&caller);
	assert_rc(call(r->ctx, IOMMU_VFIO_IOAS,
		       &(struct iommu_vfio_ioas){sizeof(struct iommu_vfio_ioas), ioas,
						 IOMMU_VFIO_IOAS_SET, 0}),
		  0);
	assert_rc(swiommu_ioctl(r->ctx, &caller, _IO(';', 101), 4), 0);
	/* A driver that does not do what it says. */
	refuse_to_enforce = 1;
	assert_rc(hwpt_new(r, 0, ioas, 0, &hwpt), -EINVAL);
}

static void isolation_of_interrupts(void **state)
{
	struct rig *r = *state;

	r->groups[0].unsafe_interrupts = true;
	assert_rc(bind(r, 0), -EPERM);
	assert_rc(bind(r, 2), 0);
	swiommu_allow_unsafe_interrupts(r->ctx, true);
	assert_rc(bind(r, 0), 0);
	swiommu_allow_unsafe_interrupts(r->ctx, false);
	assert_rc(bind(r, 1), -EPERM);
}

/* Row 147. */
static void owned_groups(void **state)
{
	struct rig *r = *state;
	struct iommufd_ctx *other = ctx_new(NULL);
	struct iommufd_device *idev;
	uint32_t id;

	assert_rc(bind(r, 0), 0);
	idev = iommufd_device_bind(other, &r->devs[1].dev, &id);
	assert_rc(PTR_ERR(idev), -EPERM);
	unbind(r, 0);
	idev = iommufd_device_bind(other, &r->devs[1].dev, &id);
	assert_false(IS_ERR(idev));
	iommufd_device_unbind(idev);
	swiommu_close(other);
}

/* A driver hears of a device once, however often it is bound, and of its end. */
static void probes(void **state)
{
	struct rig *r = *state;
	struct rig_device *d = &r->devs[0];
	struct iommufd_device *twice;
	unsigned int nth;
	uint32_t id;

	d->fail_probe = -ENODEV;
	assert_rc(bind(r, 0), -ENODEV);
	d->fail_probe = 0;
	assert_rc(bind(r, 0), 0);
	twice = iommufd_device_bind(r->ctx, &d->dev, &id);
	assert_false(IS_ERR(twice));
	assert_int_equal(d->probes, 1);
	iommufd_device_unbind(twice);
	assert_int_equal(d->releases, 0);
	unbind(r, 0);
	assert_int_equal(d->releases, 1);
	for (nth = 1;; nth++) {
		long rc;

		swi_alloc_fail_nth(nth);
		rc = bind(r, 0);
		if (swi_alloc_fail_nth(0)) {
			assert_rc(rc, 0);
			break;
		}
		assert_true(rc < 0);
		assert_int_equal(d->probes, d->releases);
	}
	assert_int_equal(d->probes, d->releases + 1);
}

static void virtual_functions(void **state)
{
	struct rig *r = *state;
	struct swiommu_files *files;
	struct swiommu_caller caller;
	struct iommu_fault_alloc fault = {.size = sizeof(fault)};
	struct iommu_hwpt_alloc cmd = {.size = sizeof(cmd), .flags = IOMMU_HWPT_FAULT_ID_VALID};
	uint32_t pt;

	assert_rc(swiommu_files_create(&files), 0);
	swiommu_caller_local(&caller);
	caller.files = files;
	r->devs[0].dev.is_vf = r->devs[0].dev.pri = true;
	r->devs[2].dev.is_vf = true;
	for (int i = 0; i < 3; i++)
		assert_rc(bind(r, i), 0);
	cmd.dev_id = r->devs[0].id;
	cmd.pt_id = pt = ioas_new(r->ctx);
	assert_rc(swiommu_ioctl(r->ctx, &caller, IOMMU_FAULT_QUEUE_ALLOC, (uintptr_t)&fault), 0);
	cmd.fault_id = fault.out_fault_id;
	assert_rc(swiommu_ioctl(r->ctx, &caller, IOMMU_HWPT_ALLOC, (uintptr_t)&cmd), 0);
	assert_rc(attach(r, 0, &cmd.out_hwpt_id), -EINVAL);
	assert_rc(attach(r, 2, &cmd.out_hwpt_id), 0);
	assert_rc(attach(r, 0, &pt), 0);
	assert_rc(iommufd_device_replace(r->devs[0].idev, 0, &cmd.out_hwpt_id), -EINVAL);
	/* Who comes to what its group has is not asked. */
	iommufd_device_detach(r->devs[0].idev, 0);
	assert_rc(attach(r, 1, &cmd.out_hwpt_id), 0);
	assert_rc(attach(r, 0, &cmd.out_hwpt_id), 0);
	for (int i = 0; i < 3; i++)
		unbind(r, i);
	swiommu_close(r->ctx);
	close(fault.out_fault_fd);
	swiommu_files_destroy(files);
	r->ctx = ctx_new(NULL);
}

/* ---- without an IOMMU ------------------------------------------------------------------------------- */

static int setup_noiommu(void **state)
{
	struct swiommu_options options = {.noiommu = true};
	struct rig *r;

	setup_with(state, &options);
	r = *state;
	for (int i = 0; i < 2; i++) {
		r->devs[i].dev.iommu = NULL;
		r->devs[i].dev.group = NULL;
		r->devs[i].dev.dirty_tracking = true;
	}
	return 0;
}

static bool is_capable;

static bool capable(struct swiommu_caller *c, int cap)
{
	(void)c;
	return is_capable && cap == CAP_SYS_RAWIO;
}

static long get_pa(struct rig *r, uint32_t ioas, uint64_t iova, uint64_t *length, uint64_t *pa)
{
	struct iommu_ioas_noiommu_get_pa cmd = {
		.size = sizeof(cmd), .ioas_id = ioas, .iova = iova, .length = *length};
	struct swiommu_caller_ops ops;
	struct swiommu_caller caller;
	long rc;

	swiommu_caller_local(&caller);
	ops = *caller.ops;
	ops.capable = capable;
	caller.ops = &ops;
	rc = swiommu_ioctl(r->ctx, &caller, IOMMU_IOAS_NOIOMMU_GET_PA, (uintptr_t)&cmd);
	*length = cmd.length;
	*pa = cmd.out_phys;
	return rc;
}

static void physical_addresses(void **state)
{
	struct rig *r = *state;
	uint32_t ioas = ioas_new(r->ctx), other = ioas_new(r->ctx), pt = ioas;
	uint64_t len = 100, pa, pa2;
	struct swiommu_dma *dma;
	char c = 0;

	is_capable = true;
	assert_rc(bind(r, 0), 0);
	assert_rc(bind(r, 1), 0);
	assert_rc(attach(r, 0, &pt), 0);
	pt = ioas;
	assert_rc(attach(r, 1, &pt), 0);
	assert_rc(map(r->ctx, ioas, RW, ~0ull - 3 * PAGE + 1, r->memory, 2 * PAGE), 0);
	assert_rc(get_pa(r, ioas, ~0ull - 3 * PAGE + 1 + 150, &len, &pa), 0);
	assert_int_equal(len, 100);
	assert_true(pa && pa % PAGE == 150);
	len = 1ull << 40;
	assert_rc(get_pa(r, ioas, ~0ull - 2 * PAGE + 1, &len, &pa2), 0);
	assert_true(len == PAGE && pa2 == pa - 150 + PAGE);
	/* The device uses them, and nothing else. */
	assert_rc(swiommu_dma_open(r->devs[0].idev, &dma), 0);
	r->memory[150] = 'x';
	assert_rc(swiommu_dma_read(dma, pa, &c, 1), 0);
	assert_int_equal(c, 'x');
	c = 'y';
	assert_rc(swiommu_dma_write(dma, pa2, &c, 1), 0);
	assert_int_equal(r->memory[PAGE], 'y');
	assert_rc(swiommu_dma_read(dma, pa - 151, &c, 1), -ENOENT);
	assert_rc(swiommu_dma_read(dma, ~0ull - 3 * PAGE + 1, &c, 1), -ENOENT);
	assert_rc(unmap(r->ctx, ioas, ~0ull - 3 * PAGE + 1, 2 * PAGE), 0);
	assert_rc(swiommu_dma_read(dma, pa, &c, 1), -ENOENT);
	assert_rc(map(r->ctx, ioas, R, BASE, r->memory, PAGE), 0);
	len = 1;
	assert_rc(get_pa(r, ioas, BASE, &len, &pa), 0);
	assert_rc(swiommu_dma_write(dma, pa, &c, 1), -EPERM);
	swiommu_dma_close(dma);
	/* Not of an IOAS of other devices, and the order in which things are checked. */
	assert_rc(get_pa(r, other, BASE, &len, &pa), -ENOENT);
	assert_rc(map(r->ctx, other, RW, BASE, r->memory, PAGE), 0);
	assert_rc(get_pa(r, other, BASE, &len, &pa), -EOPNOTSUPP);
	assert_rc(get_pa(r, 99, BASE, &len, &pa), -ENOENT);
	assert_rc(get_pa(r, 99, ~0ull, &len, &pa), -EOVERFLOW);
	len = 0;
	assert_rc(get_pa(r, 99, ~0ull, &len, &pa), -EINVAL);
	is_capable = false;
	assert_rc(get_pa(r, 99, ~0ull, &len, &pa), -EPERM);
}

static void what_it_has_not(void **state)
{
	struct rig *r = *state;
	uint32_t ioas = ioas_new(r->ctx), hwpt, pt;
	struct iommu_hw_info info = {.size = sizeof(info)};
	struct iommu_viommu_alloc viommu = {.size = sizeof(viommu), .type = 1};
	struct iommufd_ctx *plain = ctx_new(NULL);
	uint32_t id;

	assert_rc(PTR_ERR(iommufd_device_bind(plain, &r->devs[0].dev, &id)), -EINVAL);
	swiommu_close(plain);
	for (int i = 0; i < 3; i++)
		assert_rc(bind(r, i), 0);
	info.dev_id = viommu.dev_id = r->devs[0].id;
	assert_rc(call(r->ctx, IOMMU_GET_HW_INFO, &info), -EOPNOTSUPP);
	assert_rc(call(r->ctx, IOMMU_VIOMMU_ALLOC, &viommu), -EOPNOTSUPP);
	assert_rc(hwpt_new(r, 0, ioas, IOMMU_HWPT_ALLOC_PASID, &hwpt), -EOPNOTSUPP);
	assert_rc(hwpt_new(r, 0, ioas, IOMMU_HWPT_ALLOC_NEST_PARENT, &hwpt), -EOPNOTSUPP);
	assert_rc(hwpt_new(r, 0, ioas, IOMMU_HWPT_ALLOC_DIRTY_TRACKING, &hwpt), -EOPNOTSUPP);
	assert_rc(hwpt_new(r, 0, ioas, 0, &hwpt), 0);
	/* Tables of the two kinds do not mix. */
	assert_rc(attach(r, 2, &hwpt), -EINVAL);
	assert_rc(attach(r, 0, &hwpt), 0);
	pt = hwpt;
	assert_rc(iommufd_device_attach(r->devs[0].idev, 5, &pt), -EINVAL);
	assert_rc(hwpt_new(r, 2, ioas, 0, &pt), 0);
	assert_rc(iommufd_device_replace(r->devs[0].idev, 0, &pt), -EINVAL);
	assert_false(iommufd_ctx_has_group(r->ctx, &r->groups[0]));
	assert_true(iommufd_ctx_has_group(r->ctx, &r->groups[1]));
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
#define N(fn) cmocka_unit_test_setup_teardown(fn, setup_noiommu, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(kinds_of_regions),
		T(regions_in_the_way),
		T(replace_with_regions_in_the_way),
		T(doorbells),
		T(doorbells_come_to_an_end),
		T(doorbells_stay_when_tables_are_trimmed),
		T(coherency),
		T(isolation_of_interrupts),
		T(owned_groups),
		T(probes),
		T(virtual_functions),
		N(physical_addresses),
		N(what_it_has_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
