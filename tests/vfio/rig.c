// SPDX-License-Identifier: MIT
/* The rig of the VFIO tests; see rig.h. */
#include "rig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- the client -------------------------------------------------------------------------- */

static struct rig *rig_of(struct swiommu_caller *c)
{
	return (struct rig *)c;
}

static int copy_in(struct swiommu_caller *c, void *dst, uint64_t uptr, size_t len)
{
	rig_of(c)->copies_in++;
	return rig_of(c)->local->copy_in(c, dst, uptr, len);
}

static int copy_out(struct swiommu_caller *c, uint64_t uptr, const void *src, size_t len)
{
	struct rig *rig = rig_of(c);
	void (*hook)(struct rig * rig) = rig->on_copy_out;

	rig->on_copy_out = NULL;
	if (hook)
		hook(rig);
	if (uptr == rig->bad_out)
		return -EFAULT;
	return rig->local->copy_out(c, uptr, src, len);
}

static int get_ctx(struct swiommu_caller *c, int fd, struct iommufd_ctx **out)
{
	struct rig *rig = rig_of(c);

	if (fd != RIG_CTX_FD && fd != RIG_CTX_FD + 1)
		return rig->local->get_ctx(c, fd, out);
	*out = fd == RIG_CTX_FD ? rig->ctx : rig->other_ctx;
	iommufd_ctx_get(*out);
	return 0;
}

void rig_for_thread(struct rig *copy, struct rig *rig)
{
	memset(copy, 0, sizeof(*copy));
	copy->local = rig->local;
	copy->ops = rig->ops;
	copy->caller.ops = &copy->ops;
	copy->ctx = rig->ctx;
	copy->other_ctx = rig->other_ctx;
	copy->dev = rig->dev;
	copy->file = rig->file;
	copy->ioas = rig->ioas;
}

static void on_fault(void *data, const struct swiommu_fault *fault)
{
	struct rig *rig = data;

	(void)fault;
	atomic_fetch_add(&rig->faults, 1);
}

long rig_ioctl(struct rig *rig, unsigned int cmd, void *arg)
{
	return vfio_file_ioctl(rig->file, &rig->caller, cmd, (uintptr_t)arg);
}

long rig_expect(struct rig *rig, unsigned int cmd, void *arg, long expected)
{
	long rc = rig_ioctl(rig, cmd, arg);

	if (rc != expected)
		fail_msg("ioctl 0x%x: %ld, expected %ld (%s)", cmd, rc, expected,
			 rig->caller.reason);
	assert_int_equal(rig->caller.reason[0] != '\0', expected < 0);
	return rc;
}

static void ctx_ioctl(struct iommufd_ctx *ctx, unsigned int cmd, void *arg)
{
	struct swiommu_caller caller;
	long rc;

	swiommu_caller_local(&caller);
	rc = swiommu_ioctl(ctx, &caller, cmd, (uintptr_t)arg);
	if (rc)
		fail_msg("iommufd ioctl 0x%x: %ld (%s)", cmd, rc, caller.reason);
}

/* ---- life -------------------------------------------------------------------------------- */

void rig_open(struct rig *rig, const struct vfio_model *model, const char *options)
{
	struct swiommu_options of_ctx = {.hooks = {.fault = on_fault, .data = rig},
					 .noiommu = true};
	struct vfio_device_place place = {.bdf = "0000:5e:00.0", .index = 3, .group = &rig->group};
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct swi_reason why = {""};

	memset(rig, 0, sizeof(*rig));
	swiommu_caller_local(&rig->caller);
	rig->local = rig->caller.ops;
	rig->ops = *rig->local;
	rig->ops.copy_in = copy_in;
	rig->ops.copy_out = copy_out;
	rig->ops.get_ctx = get_ctx;
	rig->caller.ops = &rig->ops;
	assert_int_equal(swiommu_open_with(&of_ctx, &rig->ctx), 0);
	assert_int_equal(swiommu_open(NULL, &rig->other_ctx), 0);
	ctx_ioctl(rig->ctx, IOMMU_IOAS_ALLOC, &alloc);
	rig->ioas = alloc.out_ioas_id;
	assert_int_equal(iommu_group_init(&rig->group, 5), 0);
	if (vfio_device_create(model, &place, options, &rig->dev, &why))
		fail_msg("%s", why.text);
	assert_int_equal(vfio_file_open(rig->dev, &rig->file), 0);
}

void rig_bound(struct rig *rig, const struct vfio_model *model, const char *options)
{
	rig_open(rig, model, options);
	assert_int_equal(rig_bind(rig), 0);
}

void rig_ready(struct rig *rig, const struct vfio_model *model, const char *options)
{
	uint32_t pt_id;

	rig_bound(rig, model, options);
	pt_id = rig->ioas;
	assert_int_equal(rig_attach(rig, &pt_id), 0);
	rig_write(rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

void rig_close(struct rig *rig)
{
	vfio_file_close(rig->file);
	vfio_device_destroy(rig->dev);
	iommu_group_fini(&rig->group);
	swiommu_close(rig->other_ctx);
	swiommu_close(rig->ctx);
}

long rig_bind(struct rig *rig)
{
	struct vfio_device_bind_iommufd bind = {.argsz = sizeof(bind), .iommufd = RIG_CTX_FD};
	long rc = rig_ioctl(rig, VFIO_DEVICE_BIND_IOMMUFD, &bind);

	rig->devid = bind.out_devid;
	return rc;
}

long rig_attach(struct rig *rig, uint32_t *pt_id)
{
	struct vfio_device_attach_iommufd_pt attach = {.argsz = 12, .pt_id = *pt_id};
	long rc = rig_ioctl(rig, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach);

	*pt_id = attach.pt_id;
	return rc;
}

long rig_detach(struct rig *rig)
{
	struct vfio_device_detach_iommufd_pt detach = {.argsz = 8};

	return rig_ioctl(rig, VFIO_DEVICE_DETACH_IOMMUFD_PT, &detach);
}

/* ---- memory and registers ---------------------------------------------------------------- */

void *rig_pages(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

void rig_map(struct rig *rig, void *p, size_t len, uint64_t iova, uint32_t access)
{
	struct iommu_ioas_map map = {.size = sizeof(map),
				     .flags = IOMMU_IOAS_MAP_FIXED_IOVA | access,
				     .ioas_id = rig->ioas,
				     .user_va = (uintptr_t)p,
				     .length = len,
				     .iova = iova};

	ctx_ioctl(rig->ctx, IOMMU_IOAS_MAP, &map);
}

void rig_unmap(struct rig *rig, uint64_t iova, size_t len)
{
	struct iommu_ioas_unmap unmap = {
		.size = sizeof(unmap), .ioas_id = rig->ioas, .iova = iova, .length = len};

	ctx_ioctl(rig->ctx, IOMMU_IOAS_UNMAP, &unmap);
}

ssize_t rig_try_read(struct rig *rig, unsigned int region, uint64_t off, void *buf, size_t len)
{
	return vfio_file_pread(rig->file, &rig->caller, (uintptr_t)buf, len,
			       ((uint64_t)region << 40) + off);
}

ssize_t rig_try_write(struct rig *rig, unsigned int region, uint64_t off, const void *buf,
		      size_t len)
{
	return vfio_file_pwrite(rig->file, &rig->caller, (uintptr_t)buf, len,
				((uint64_t)region << 40) + off);
}

uint64_t rig_read(struct rig *rig, unsigned int region, uint64_t off, unsigned int size)
{
	uint64_t value = 0;

	assert_int_equal(rig_try_read(rig, region, off, &value, size), size);
	return value;
}

void rig_write(struct rig *rig, unsigned int region, uint64_t off, unsigned int size,
	       uint64_t value)
{
	assert_int_equal(rig_try_write(rig, region, off, &value, size), size);
}

/* ---- interrupts -------------------------------------------------------------------------- */

long rig_set_irqs(struct rig *rig, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
		  const void *payload)
{
	union {
		struct vfio_irq_set set;
		uint8_t bytes[512];
	} u = {.set = {.flags = flags, .index = index, .start = start, .count = count}};
	uint32_t size = !payload ? 0 : flags & VFIO_IRQ_SET_DATA_BOOL ? count : 4 * count;

	assert_true(20 + size <= sizeof(u));
	u.set.argsz = 20 + size;
	if (size)
		memcpy(u.bytes + 20, payload, size);
	return rig_ioctl(rig, VFIO_DEVICE_SET_IRQS, &u);
}

long rig_arm(struct rig *rig, uint32_t index, uint32_t start, uint32_t count, const int32_t *fds)
{
	return rig_set_irqs(rig, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, index,
			    start, count, fds);
}

int rig_eventfd(void)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

uint64_t rig_count(int efd)
{
	uint64_t value;

	return read(efd, &value, sizeof(value)) == sizeof(value) ? value : 0;
}

uint64_t rig_wait(int efd)
{
	struct pollfd p = {.fd = efd, .events = POLLIN};

	assert_int_equal(poll(&p, 1, 10000), 1);
	return rig_count(efd);
}

/* ---- the test model ---------------------------------------------------------------------- */

struct probe *probe_of(struct rig *rig)
{
	return rig->dev->priv;
}

static int probe_create(struct vfio_device *dev, const char *options, struct swi_reason *why,
			void **out_priv)
{
	static const struct vfio_pci_id id = {.vendor = 0x1234,
					      .device = 0x5678,
					      .subsystem_vendor = 0x9abc,
					      .subsystem_device = 0xdef0,
					      .class_code = 0xff0102,
					      .revision = 0x42,
					      .int_pin = 1};
	struct probe *p = calloc(1, sizeof(*p));

	(void)options;
	(void)why;
	p->dev = dev;
	pthread_mutex_init(&p->lock, NULL);
	vfio_pci_set_id(dev, &id);
	vfio_pci_add_region(dev, 0, 0x10000, 0);
	vfio_pci_add_region(dev, 1, 16, 0);
	vfio_pci_add_region(dev, 2, 16 << 20, VFIO_BAR_64BIT | VFIO_BAR_PREFETCH);
	vfio_pci_add_region(dev, 4, 32, VFIO_BAR_IO);
	vfio_pci_add_region(dev, 6, 2048, 0);
	vfio_config_add_pm(dev);
	vfio_config_add_msi(dev, 3);
	vfio_config_add_pcie(dev, true);
	vfio_config_add_msix(dev, 4, 0, 0x8000, 0x9000);
	vfio_config_hook(dev, 0x200, 8);
	*out_priv = p;
	return 0;
}

static int bare_create(struct vfio_device *dev, const char *options, struct swi_reason *why,
		       void **out_priv)
{
	struct probe *p = calloc(1, sizeof(*p));

	(void)options;
	(void)why;
	p->dev = dev;
	pthread_mutex_init(&p->lock, NULL);
	*out_priv = p;
	return 0;
}

static void probe_destroy(void *priv)
{
	struct probe *p = priv;

	pthread_mutex_destroy(&p->lock);
	free(p);
}

static int probe_open(void *priv)
{
	struct probe *p = priv;
	void (*hook)(void *data) = p->on_open;
	int rc = p->fail_open;

	p->on_open = NULL;
	if (hook)
		hook(p->on_life_data);
	p->fail_open = 0;
	if (!rc)
		rc = vfio_dma_open(p->dev, &p->dma);
	if (!rc)
		p->opens++;
	return rc;
}

static void probe_close(void *priv)
{
	struct probe *p = priv;
	void (*hook)(void *data) = p->on_close;

	p->on_close = NULL;
	if (hook)
		hook(p->on_life_data);
	vfio_dma_close(&p->dma);
	p->closes++;
}

static void probe_reset(void *priv)
{
	struct probe *p = priv;
	void (*hook)(void *data) = p->on_reset;

	p->on_reset = NULL;
	if (hook)
		hook(p->on_reset_data);
	pthread_mutex_lock(&p->lock);
	p->resets++;
	pthread_mutex_unlock(&p->lock);
}

static void probe_log(struct probe *p, bool write, unsigned int region, uint64_t offset,
		      unsigned int size, uint64_t value)
{
	if (p->nr_log == PROBE_LOG)
		return;
	p->log[p->nr_log].write = write;
	p->log[p->nr_log].region = region;
	p->log[p->nr_log].size = size;
	p->log[p->nr_log].offset = offset;
	p->log[p->nr_log++].value = value;
}

static int probe_read(void *priv, unsigned int region, uint64_t offset, unsigned int size,
		      uint64_t *out)
{
	struct probe *p = priv;

	pthread_mutex_lock(&p->lock);
	*out = 0;
	for (unsigned int i = 0; i < size; i++)
		*out |= (uint64_t)p->memory[region][(offset + i) % 256] << 8 * i;
	probe_log(p, false, region, offset, size, *out);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

static int probe_write(void *priv, unsigned int region, uint64_t offset, unsigned int size,
		       uint64_t value)
{
	struct probe *p = priv;

	pthread_mutex_lock(&p->lock);
	for (unsigned int i = 0; i < size; i++)
		p->memory[region][(offset + i) % 256] = (uint8_t)(value >> 8 * i);
	probe_log(p, true, region, offset, size, value);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

static int probe_config_read(void *priv, unsigned int pos, unsigned int size, uint32_t *out)
{
	struct probe *p = priv;

	*out = p->hooked[(pos - 0x200) / 4] >> 8 * (pos % 4);
	probe_log(p, false, CONFIG, pos, size, *out);
	return 0;
}

static int probe_config_write(void *priv, unsigned int pos, unsigned int size, uint32_t value)
{
	struct probe *p = priv;

	probe_log(p, true, CONFIG, pos, size, value);
	if (value == 0xbad)
		return -EIO;
	p->hooked[(pos - 0x200) / 4] = value;
	return 0;
}

const struct vfio_model probe_model = {
	.name = "probe",
	.summary = "for tests",
	.options = "",
	.create = probe_create,
	.destroy = probe_destroy,
	.open = probe_open,
	.close = probe_close,
	.reset = probe_reset,
	.region_read = probe_read,
	.region_write = probe_write,
	.config_read = probe_config_read,
	.config_write = probe_config_write,
};

const struct vfio_model bare_model = {
	.name = "bare",
	.summary = "for tests",
	.options = "",
	.create = bare_create,
	.destroy = probe_destroy,
	.open = probe_open,
	.close = probe_close,
	.reset = probe_reset,
	.region_read = probe_read,
	.region_write = probe_write,
};
