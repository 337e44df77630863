// SPDX-License-Identifier: MIT
/*
 * A device's DMA: from an IOVA to bytes moved (see include/swiommu/iommufd.h).
 *
 * Each handle is a reader of the IOVA map (iova/map.h). An access works in steps, one per contiguous run inside
 * one area: announce, load where the device's DMA goes, translate, check the permission, move, retire. A
 * step is limited in length so that nobody who waits for it (unmap, detach) waits for long.
 *
 * Switching the device to the HWPT of another IOAS registers every handle with the new map first, then changes the pointer,
 * then takes the handles off the old map, which waits for steps in progress.
 */
#include <errno.h>
#include <stdio.h>

#include "base/alloc.h"
#include "core/ctx.h"
#include "core/device.h"
#include "core/dirty.h"
#include "mem/guard.h"

#define STEP_MAX (1u << 20)

struct swiommu_dma {
	struct iova_reader reader; /* first: it has cache lines of its own */
	struct iommufd_device *idev;
	struct list entry; /* in idev->dmas; idev->dma_lock */
};

/* ---- handles and switching ------------------------------------------------------------------------ */

int swiommu_dma_open(struct iommufd_device *idev, struct swiommu_dma **out)
{
	struct swiommu_dma *dma = swi_zalloc_aligned(SWI_CACHELINE, sizeof(*dma));
	struct hwpt *hwpt;
	int rc = 0;

	if (!dma)
		return -ENOMEM;
	dma->idev = idev;
	rc = iova_reader_init(&dma->reader);
	if (rc) {
		swi_free(dma);
		return rc;
	}
	pthread_mutex_lock(&idev->dma_lock);
	hwpt = idev->dma_hwpt;
	if (hwpt)
		rc = iova_reader_attach(&dma->reader, hwpt->ioas->map);
	if (!rc)
		list_add_tail(&idev->dmas, &dma->entry);
	pthread_mutex_unlock(&idev->dma_lock);
	if (rc) {
		iova_reader_fini(&dma->reader);
		swi_free(dma);
		return rc;
	}
	*out = dma;
	return 0;
}

void swiommu_dma_close(struct swiommu_dma *dma)
{
	struct iommufd_device *idev = dma->idev;
	struct hwpt *hwpt;

	pthread_mutex_lock(&idev->dma_lock);
	list_del(&dma->entry);
	hwpt = idev->dma_hwpt;
	if (hwpt)
		iova_reader_detach(&dma->reader, hwpt->ioas->map);
	pthread_mutex_unlock(&idev->dma_lock);
	iova_reader_fini(&dma->reader);
	swi_free(dma);
}

static struct swiommu_dma *dma_of(struct list *pos)
{
	return list_entry(pos, struct swiommu_dma, entry);
}

static int attach_readers_locked(struct iommufd_device *idev, struct ioas *ioas)
{
	struct list *pos;
	int rc;

	list_for_each (pos, &idev->dmas) {
		rc = iova_reader_attach(&dma_of(pos)->reader, ioas->map);
		if (rc)
			goto undo;
	}
	return 0;
undo:
	while ((pos = pos->prev) != &idev->dmas)
		iova_reader_detach(&dma_of(pos)->reader, ioas->map);
	return rc;
}

int device_dma_switch(struct iommufd_device *idev, struct hwpt *hwpt)
{
	struct list *pos;
	struct hwpt *old;
	int rc = 0;

	pthread_mutex_lock(&idev->dma_lock);
	old = idev->dma_hwpt;
	if (old == hwpt)
		goto out;
	if (hwpt && old && hwpt->ioas == old->ioas) {
		/* The handles are readers of this map already. */
		idev->dma_hwpt = hwpt;
		iova_map_sync(hwpt->ioas->map);
		goto out;
	}
	if (hwpt)
		rc = attach_readers_locked(idev, hwpt->ioas);
	if (rc)
		goto out;
	idev->dma_hwpt = hwpt;
	if (old)
		list_for_each (pos, &idev->dmas)
			iova_reader_detach(&dma_of(pos)->reader, old->ioas->map);
out:
	pthread_mutex_unlock(&idev->dma_lock);
	return rc;
}

void device_dma_switch_back(struct iommufd_device *idev, struct hwpt *hwpt)
{
	if (device_dma_switch(idev, hwpt))
		device_dma_switch(idev, NULL);
}

/* ---- faults --------------------------------------------------------------------------------------- */

static void describe_area(const struct iova_area *area, const char *where, iova_t iova, char *buf,
			  size_t size)
{
	snprintf(buf, size, "nearest mapping [%#llx, %#llx] %c%c %s by %#llx bytes",
		 (unsigned long long)area->iova, (unsigned long long)area->last,
		 area->prot & SWI_READ ? 'R' : '-', area->prot & SWI_WRITE ? 'W' : '-', where,
		 (unsigned long long)(area->iova > iova ? area->iova - iova : iova - area->last));
}

/* What is mapped around an IOVA, in words. The device may be switched meanwhile: its dma_lock is taken. */
static void describe_nearest(struct iommufd_device *idev, iova_t iova, char *buf, size_t size)
{
	struct iova_area *above, *below;
	struct hwpt *hwpt;
	struct ioas *ioas;

	pthread_mutex_lock(&idev->dma_lock);
	hwpt = idev->dma_hwpt;
	if (!hwpt)
		goto out;
	ioas = hwpt->ioas;
	iova_map_lock(ioas->map);
	above = iova_map_first(ioas->map, iova);
	below = above ? iova_area_prev(above) : iova_map_last(ioas->map);
	if (above && above->iova <= iova)
		snprintf(buf, size, "mapping [%#llx, %#llx] %c%c", (unsigned long long)above->iova,
			 (unsigned long long)above->last, above->prot & SWI_READ ? 'R' : '-',
			 above->prot & SWI_WRITE ? 'W' : '-');
	else if (below && (!above || iova - below->last <= above->iova - iova))
		describe_area(below, "ends below", iova, buf, size);
	else if (above)
		describe_area(above, "begins above", iova, buf, size);
	else
		snprintf(buf, size, "nothing is mapped");
	iova_map_unlock(ioas->map);
out:
	pthread_mutex_unlock(&idev->dma_lock);
}

static int report_fault(struct swiommu_dma *dma, iova_t iova, size_t len, unsigned int dir,
			int error)
{
	struct iommufd_device *idev = dma->idev;
	const struct swiommu_hooks *hooks = &idev->ctx->hooks;
	struct swiommu_fault fault = {
		.device = idev->dev->name,
		.iova = iova,
		.length = len,
		.write = dir == SWI_WRITE,
		.error = error,
	};

	if (hooks->fault) {
		if (error == -ENOENT || error == -EPERM)
			describe_nearest(idev, iova, fault.nearest, sizeof(fault.nearest));
		hooks->fault(hooks->data, &fault);
	}
	return error;
}

/* ---- moving --------------------------------------------------------------------------------------- */

/* Bytes from `iova` to `last`, at most `len`. */
static size_t run_length(iova_t iova, iova_t last, size_t len)
{
	uint64_t left = last - iova; /* one less than the bytes left */

	return left < len ? left + 1 : len;
}

static int move_in_area(struct iova_area *area, iova_t iova, void *buf, size_t len,
			unsigned int dir)
{
	uint64_t at = iova - area->iova;
	char *host = atomic_load_explicit(&area->host, memory_order_relaxed);

	if (host)
		return dir == SWI_WRITE ? mem_guard_copy(host + at, buf, len)
					: mem_guard_copy(buf, host + at, len);
	return dir == SWI_WRITE ? backing_write(area->backing, area->offset + at, buf, len)
				: backing_read(area->backing, area->offset + at, buf, len);
}

/* One step: at most `*len` bytes, the number moved in *len. Does not report. */
static int step(struct swiommu_dma *dma, iova_t iova, void *buf, size_t *len, unsigned int dir)
{
	struct iova_area *area;
	struct hwpt *hwpt;
	iova_t last;
	int rc;

	iova_read_begin(&dma->reader);
	/* Sequentially consistent, after the announcement: either we see the switch or it waits for us. */
	hwpt = dma->idev->dma_hwpt;
	if (!hwpt) {
		rc = -ENXIO;
		goto out;
	}
	area = iova_translate_run(&dma->reader, hwpt->ioas->map, iova, &last);
	if (!area) {
		rc = -ENOENT;
		goto out;
	}
	if (!(area->prot & dir)) {
		rc = -EPERM;
		goto out;
	}
	*len = run_length(iova, last, SWI_MIN(*len, STEP_MAX));
	if (dir == SWI_WRITE && atomic_load(&hwpt->tracking))
		dirty_mark(area, hwpt, iova, iova + (*len - 1));
	rc = move_in_area(area, iova, buf, *len, dir);
	if (rc)
		rc = -EFAULT;
out:
	iova_read_end(&dma->reader);
	return rc;
}

static int move(struct swiommu_dma *dma, iova_t iova, char *buf, size_t len, unsigned int dir)
{
	uint64_t last;
	size_t n;
	int rc;

	if (!len)
		return 0;
	if (!range_last(iova, len, &last))
		return report_fault(dma, iova, len, dir, -EOVERFLOW);
	for (; len; len -= n, iova += n, buf += n) {
		n = len;
		rc = step(dma, iova, buf, &n, dir);
		if (SWI_UNLIKELY(rc))
			return report_fault(dma, iova, len, dir, rc);
	}
	return 0;
}

int swiommu_dma_read(struct swiommu_dma *dma, uint64_t iova, void *buf, size_t len)
{
	return move(dma, iova, buf, len, SWI_READ);
}

int swiommu_dma_write(struct swiommu_dma *dma, uint64_t iova, const void *buf, size_t len)
{
	return move(dma, iova, (void *)buf, len, SWI_WRITE);
}
