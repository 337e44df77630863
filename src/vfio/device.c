// SPDX-License-Identifier: MIT
/*
 * The life of a device: made from a model, started when a client binds it, stopped, destroyed; and
 * the services that belong to no other file: reset, DMA, statistics, threads.
 *
 * Making: the model describes its function with builders, which record the first mistake instead of
 * returning it; then regions get addresses and the configuration space its header. Addresses are
 * those a firmware might have given; nothing answers there, but clients read them and expect them
 * to differ between devices.
 *
 * A device that is not bound is stopped: no thread of its model runs, no eventfd is held, bus
 * mastering is off.
 */
#include "vfio/internal.h"

#include "base/alloc.h"
#include "core/dma_listener.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Where a device's BARs are placed: window + index * share, by kind. */
struct window {
	uint64_t base, share, limit;
};

static const struct window windows[] = {
	{0x380000000000, 1ull << 36, 0x780000000000}, /* 64-bit memory */
	{0x80000000, 1ull << 24, 0xf0000000},	      /* 32-bit memory, ROM */
	{0x1000, 0x100, 0x10000},		      /* I/O ports */
};

void vfio_build_fail(struct vfio_device *dev, const char *fmt, ...)
{
	va_list ap;

	if (dev->build_error)
		return;
	dev->build_error = -EINVAL;
	va_start(ap, fmt);
	vsnprintf(dev->build_reason.text, sizeof(dev->build_reason.text), fmt, ap);
	va_end(ap);
}

void vfio_pci_set_id(struct vfio_device *dev, const struct vfio_pci_id *id)
{
	dev->id = *id;
}

void vfio_pci_set_reset(struct vfio_device *dev)
{
	dev->has_reset = true;
}

void vfio_pci_add_region(struct vfio_device *dev, unsigned int index, uint64_t size,
			 unsigned int flags)
{
	bool io = flags & VFIO_BAR_IO;
	unsigned int nr_regs = flags & VFIO_BAR_64BIT ? 2 : 1;

	if (index >= VFIO_NR_MODEL_REGIONS || !is_pow2_u64(size) || size < (io ? 4 : 16) ||
	    (index == VFIO_ROM && (flags || size < 2048)) ||
	    (io && (flags & (VFIO_BAR_64BIT | VFIO_BAR_PREFETCH | VFIO_BAR_MMAP))) ||
	    (index < VFIO_NR_BARS && index + nr_regs > VFIO_NR_BARS) ||
	    (nr_regs == 1 && size > 1u << 31)) {
		vfio_build_fail(dev, "region %u of 0x%llx bytes, flags 0x%x", index,
				(unsigned long long)size, flags);
		return;
	}
	if (dev->regions[index].size || (nr_regs == 2 && dev->regions[index + 1].size) ||
	    (index && index < VFIO_ROM && dev->regions[index - 1].flags & VFIO_BAR_64BIT)) {
		vfio_build_fail(dev, "region %u overlaps another BAR", index);
		return;
	}
	dev->regions[index].size = size;
	dev->regions[index].flags = flags;
	if (flags & VFIO_BAR_MMAP)
		vfio_pci_add_pages(dev, index, 0, vfio_region_span(dev, index));
}

static void place_regions(struct vfio_device *dev)
{
	uint64_t used[ARRAY_SIZE(windows)] = {0};

	for (unsigned int i = 0; i < VFIO_NR_MODEL_REGIONS; i++) {
		struct vfio_region *r = &dev->regions[i];
		unsigned int kind = r->flags & VFIO_BAR_IO ? 2 : !(r->flags & VFIO_BAR_64BIT);
		const struct window *w = &windows[kind];
		uint64_t align = SWI_MAX(r->size, kind == 2 ? 4 : SWI_PAGE_SIZE);

		if (!r->size)
			continue;
		used[kind] = (used[kind] + align - 1) & ~(align - 1);
		r->address = w->base + dev->place.index * w->share + used[kind];
		used[kind] += align;
		if (used[kind] > w->share || r->address + r->size > w->limit)
			vfio_build_fail(dev,
					"region %u of 0x%llx bytes does not fit the address window",
					i, (unsigned long long)r->size);
	}
}

static int init_locks(struct vfio_device *dev)
{
	pthread_mutex_t *locks[] = {&dev->life, &dev->attach, &dev->reset, &dev->token_lock};

	/* Of the default kind: cannot fail. */
	pthread_rwlock_init(&dev->dma_log_lock, NULL);
	for (unsigned int i = 0; i < ARRAY_SIZE(locks); i++) {
		if (!pthread_mutex_init(locks[i], NULL))
			continue;
		while (i--)
			pthread_mutex_destroy(locks[i]);
		return -ENOMEM;
	}
	return 0;
}

static void fini_locks(struct vfio_device *dev)
{
	pthread_rwlock_destroy(&dev->dma_log_lock);
	pthread_mutex_destroy(&dev->token_lock);
	pthread_mutex_destroy(&dev->reset);
	pthread_mutex_destroy(&dev->attach);
	pthread_mutex_destroy(&dev->life);
}

int vfio_device_create(const struct vfio_model *model, const struct vfio_device_place *place,
		       const char *options, struct vfio_device **out, struct swi_reason *why)
{
	struct vfio_device *dev = swi_new(struct vfio_device);
	int rc;

	if (!dev)
		return swi_fail(why, -ENOMEM, "no memory for a device");
	dev->model = model;
	dev->place = *place;
	dev->pages_fd = -1;
	dev->device.name = dev->place.bdf;
	dev->device.group = place->group;
	dev->device.dirty_tracking = true;
	if (!place->noiommu) {
		dev->device.iommu = &iommu_generic_driver;
		dev->device.max_pasids = 1u << 20;
		dev->device.pasid_priv = true;
		dev->device.ats = true;
		dev->device.pri = true;
	}
	rc = init_locks(dev);
	if (rc)
		goto free_dev;
	rc = vfio_config_init(dev);
	if (rc)
		goto locks;
	rc = model->create(dev, options ? options : "", why, &dev->priv);
	if (rc)
		goto config;
	place_regions(dev);
	rc = dev->build_error;
	if (rc) {
		swi_fail(why, rc, "model %s: %s", model->name, dev->build_reason.text);
		goto priv;
	}
	rc = vfio_irqs_init(dev);
	if (rc) {
		swi_fail(why, rc, "no memory for the interrupts of a device");
		goto priv;
	}
	rc = vfio_pages_init(dev);
	if (rc) {
		swi_fail(why, rc, "no memory for the BARs of a device");
		goto irqs;
	}
	vfio_config_finish(dev);
	*out = dev;
	return 0;

irqs:
	vfio_irqs_fini(dev);
priv:
	model->destroy(dev->priv);
config:
	vfio_config_fini(dev);
locks:
	fini_locks(dev);
free_dev:
	swi_free(dev);
	return rc;
}

void vfio_device_destroy(struct vfio_device *dev)
{
	if (!dev)
		return;
	dev->model->destroy(dev->priv);
	vfio_pages_fini(dev);
	vfio_irqs_fini(dev);
	vfio_config_fini(dev);
	fini_locks(dev);
	swi_free(dev);
}

bool vfio_device_prefers_files(const struct vfio_device *dev)
{
	/* The DMA of an emulated device is done here. */
	return dev->model->prefers_files && !dev->place.emulated;
}

const struct vfio_device_place *vfio_device_place(const struct vfio_device *dev)
{
	return &dev->place;
}

uint64_t vfio_device_region_size(const struct vfio_device *dev, unsigned int index)
{
	if (index == VFIO_PCI_CONFIG_REGION_INDEX)
		return dev->config.size;
	return index < VFIO_NR_MODEL_REGIONS ? dev->regions[index].size : 0;
}

void vfio_device_get_stats(const struct vfio_device *dev, struct vfio_device_stats *out)
{
	out->dma_read_bytes = atomic_load(&dev->stats.dma_read_bytes);
	out->dma_write_bytes = atomic_load(&dev->stats.dma_write_bytes);
	out->dma_faults = atomic_load(&dev->stats.dma_faults);
	out->interrupts = atomic_load(&dev->stats.interrupts);
}

/* ---- start, stop, reset ------------------------------------------------------------------ */

static int reset_locked(struct vfio_device *dev)
{
	struct iommufd_device *idev = dev->idev;
	int rc = 0;

	/* Threads that wait for the client would keep the model from ending its DMA. */
	if (idev)
		swiommu_device_block_requests(idev);
	if (dev->model->try_reset)
		rc = dev->model->try_reset(dev->priv);
	else
		dev->model->reset(dev->priv);
	if (idev)
		swiommu_device_unblock_requests(idev);
	if (!rc)
		vfio_irq_set_line(dev, false);
	return rc;
}

/* Another function of the slot can cause a reset at any time: models open and close without one. */
int vfio_device_start(struct vfio_device *dev)
{
	int rc;

	atomic_store(&dev->told_physical, false);
	vfio_config_start(dev);
	pthread_mutex_lock(&dev->reset);
	vfio_pages_start(dev);
	reset_locked(dev);
	rc = dev->model->open(dev->priv);
	pthread_mutex_unlock(&dev->reset);
	return rc;
}

void vfio_device_stop(struct vfio_device *dev)
{
	vfio_config_stop(dev);
	vfio_ioeventfds_stop(dev);
	if (dev->idev)
		swiommu_device_block_requests(dev->idev);
	pthread_mutex_lock(&dev->reset);
	dev->model->close(dev->priv);
	reset_locked(dev);
	pthread_mutex_unlock(&dev->reset);
	if (dev->idev)
		swiommu_device_unblock_requests(dev->idev);
	vfio_irqs_stop(dev);
	vfio_dma_log_stop(dev);
}

int vfio_device_reset(struct vfio_device *dev, bool wait)
{
	int rc;

	if (wait)
		pthread_mutex_lock(&dev->reset);
	else if (pthread_mutex_trylock(&dev->reset))
		return -EAGAIN;
	rc = reset_locked(dev);
	pthread_mutex_unlock(&dev->reset);
	return rc;
}

void vfio_device_request(struct vfio_device *dev)
{
	vfio_irq_signal(dev, VFIO_PCI_REQ_IRQ_INDEX, 0);
}

int vfio_device_group_open(struct vfio_device *dev)
{
	int rc = 0;

	pthread_mutex_lock(&dev->life);
	if (dev->owner)
		rc = -EBUSY;
	else
		dev->group_users++;
	pthread_mutex_unlock(&dev->life);
	return rc;
}

void vfio_device_group_close(struct vfio_device *dev)
{
	pthread_mutex_lock(&dev->life);
	dev->group_users--;
	pthread_mutex_unlock(&dev->life);
}

/* ---- services for models ----------------------------------------------------------------- */

int vfio_dma_open(struct vfio_device *dev, struct vfio_dma *dma)
{
	return vfio_dma_open_with(dev, dma, 0, 0);
}

int vfio_dma_open_with(struct vfio_device *dev, struct vfio_dma *dma, uint32_t pasid,
		       unsigned int flags)
{
	dma->dev = dev;
	dma->stream = NULL;
	/*
	 * An emulated device has one access for all of its DMA, and neither PASIDs nor page requests. One without an IOMMU
	 * that its group has opened is bound to nothing.
	 */
	if (dev->place.emulated || !dev->idev)
		return pasid || flags ? -EOPNOTSUPP : 0;
	return swiommu_dma_open_pasid(dev->idev, pasid, flags, &dma->stream);
}

void vfio_dma_cancel(struct vfio_dma *dma)
{
	if (dma->stream)
		swiommu_dma_cancel(dma->stream);
}

void vfio_dma_resume(struct vfio_dma *dma)
{
	if (dma->stream)
		swiommu_dma_resume(dma->stream);
}

void vfio_dma_close(struct vfio_dma *dma)
{
	if (dma->stream)
		swiommu_dma_close(dma->stream);
	dma->stream = NULL;
}

int vfio_dma_listen(struct vfio_device *dev, struct dma_listener *l, struct swi_reason *why)
{
	if (dev->place.emulated)
		return swi_fail(why, -EOPNOTSUPP, "an emulated device has no mappings of its own");
	if (dev->place.noiommu)
		return swi_fail(why, -EOPNOTSUPP, "a device without an IOMMU does not know IOVAs");
	return dma_listener_add(dev->idev, l, why);
}

/* DMA without a stream. */
static int other_dma(struct vfio_device *dev, uint64_t iova, void *buf, size_t len, bool write)
{
	return dev->place.emulated ? vfio_emulated_dma(dev, iova, buf, len, write)
				   : vfio_noiommu_dma(dev, iova, len, write);
}

/* Whether the function may make requests at all; says so once when it may not. */
static bool may_master(struct vfio_device *dev, uint64_t iova)
{
	if (SWI_LIKELY(atomic_load(&dev->bus_master)))
		return true;
	if (!atomic_exchange(&dev->told_bus_master, true))
		swi_log(dev->place.log, SWI_LOG_WARN,
			"%s: DMA at IOVA 0x%llx dropped: bus mastering (COMMAND bit 2) is off",
			dev->place.bdf, (unsigned long long)iova);
	return false;
}

int vfio_dma_read(struct vfio_dma *dma, uint64_t iova, void *buf, size_t len)
{
	struct vfio_device *dev = dma->dev;
	int rc = -ENXIO;

	if (!may_master(dev, iova))
		goto out;
	rc = SWI_LIKELY(dma->stream) ? swiommu_dma_read(dma->stream, iova, buf, len)
				     : other_dma(dev, iova, buf, len, false);
out:
	if (rc)
		atomic_fetch_add(&dev->stats.dma_faults, 1);
	else
		atomic_fetch_add(&dev->stats.dma_read_bytes, len);
	return rc;
}

int vfio_dma_write(struct vfio_dma *dma, uint64_t iova, const void *buf, size_t len)
{
	struct vfio_device *dev = dma->dev;
	int rc = -ENXIO;

	if (!may_master(dev, iova))
		goto out;
	rc = SWI_LIKELY(dma->stream) ? swiommu_dma_write(dma->stream, iova, buf, len)
				     : other_dma(dev, iova, (void *)(uintptr_t)buf, len, true);
	/* Also after an error: some bytes may have moved. */
	if (SWI_UNLIKELY(atomic_load_explicit(&dev->dma_log, memory_order_relaxed)))
		vfio_dma_log_mark(dev, iova, len);
out:
	if (rc)
		atomic_fetch_add(&dev->stats.dma_faults, 1);
	else
		atomic_fetch_add(&dev->stats.dma_write_bytes, len);
	return rc;
}

int vfio_thread_start(pthread_t *thread, void *(*run)(void *), void *arg)
{
	sigset_t all, old;
	int rc;

	sigfillset(&all);
	/* Blocked, a fault would end the process instead of a copy (mem/guard.h). */
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGSEGV);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -rc;
}
