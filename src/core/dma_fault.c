// SPDX-License-Identifier: MIT
/*
 * DMA that does not reach memory: asking the user for the page, and telling the host.
 *
 * A handle with SWIOMMU_DMA_PAGE_REQUESTS whose access misses asks, through the fault queue of what it is attached to, for
 * the page, and waits for the answer. It waits outside of the read section and without locks, so that whatever the user
 * does to answer (map, replace, detach) is not held up by the wait.
 */
#include <errno.h>
#include <stdio.h>

#include "core/ctx.h"
#include "core/dma.h"
#include "core/fault.h"

/* ---- page requests -------------------------------------------------------------------------------- */

static bool ask_for_page(struct swiommu_dma *dma, iova_t iova, unsigned int dir, int *error)
{
	uint32_t pasid = dma->route->pasid;
	struct iopf_fault evt = {
		.prm = {
			.flags = IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE |
				 (pasid ? IOMMU_FAULT_PAGE_REQUEST_PASID_VALID : 0),
			.pasid = pasid,
			.perm = dma_perm(dma, dir),
			.addr = iova & ~(SWI_PAGE_SIZE - 1),
		}};
	enum iommu_page_response_code code;
	int rc = iopf_ask(dma->idev, &evt, &dma->cancelled, &code);

	if (rc == -ECANCELED)
		*error = rc;
	return !rc && code == IOMMU_PAGE_RESP_SUCCESS;
}

int dma_recover(struct swiommu_dma *dma, iova_t iova, size_t len, unsigned int dir, int error)
{
	bool can_ask = error == -ENOENT || error == -EPERM;

	if (can_ask && dma->flags & SWIOMMU_DMA_PAGE_REQUESTS &&
	    ask_for_page(dma, iova, dir, &error))
		return 0;
	if (error == -ECANCELED)
		return error;
	return dma_report(dma, iova, len, dir, error);
}

void swiommu_dma_cancel(struct swiommu_dma *dma)
{
	dma->cancelled = true;
	iopf_wake(dma->idev);
}

void swiommu_dma_resume(struct swiommu_dma *dma)
{
	dma->cancelled = false;
}

void swiommu_device_block_requests(struct iommufd_device *idev)
{
	idev->requests_blocked++;
	iopf_wake(idev);
}

void swiommu_device_unblock_requests(struct iommufd_device *idev)
{
	idev->requests_blocked--;
}

/* ---- reports -------------------------------------------------------------------------------------- */

static void describe_area(const struct iova_area *area, const char *where, iova_t iova, char *buf,
			  size_t size)
{
	snprintf(buf, size, "nearest mapping [%#llx, %#llx] %c%c %s by %#llx bytes",
		 (unsigned long long)area->iova, (unsigned long long)area->last,
		 area->prot & SWI_READ ? 'R' : '-', area->prot & SWI_WRITE ? 'W' : '-', where,
		 (unsigned long long)(area->iova > iova ? area->iova - iova : iova - area->last));
}

/* What is mapped around an address, in words. */
static void describe_around(struct ioas *ioas, iova_t iova, char *buf, size_t size)
{
	struct iova_area *above, *below;

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
}

/* Why an access did not get through, in words. The device may be switched meanwhile: its dma_lock is taken. */
static void describe_nearest(struct swiommu_dma *dma, iova_t iova, int error, char *buf,
			     size_t size)
{
	bool guests = error == -ENOENT || error == -EPERM;
	struct hwpt *hwpt;
	int n;

	pthread_mutex_lock(&dma->idev->dma_lock);
	hwpt = dma->route->hwpt;
	if (!hwpt) {
		;
	} else if (dma->physical) {
		if (guests)
			snprintf(buf, size,
				 "IOMMU_IOAS_NOIOMMU_GET_PA tells where mappings of IOAS %u are",
				 hwpt->ioas->obj.id);
	} else if (!hwpt->domain->ops || !hwpt->domain->ops->translate) {
		if (guests)
			describe_around(hwpt->ioas, iova, buf, size);
	} else if (guests) {
		snprintf(buf, size, "the guest's table (HWPT %u) does not %s it", hwpt->obj.id,
			 error == -ENOENT ? "map" : "allow");
	} else if (error == -EFAULT && dma->nest.in_parent) {
		n = snprintf(buf, size,
			     "guest address %#llx: ", (unsigned long long)dma->nest.addr);
		describe_around(hwpt->ioas, dma->nest.addr, buf + n, size - n);
	}
	pthread_mutex_unlock(&dma->idev->dma_lock);
}

int dma_report(struct swiommu_dma *dma, iova_t iova, size_t len, unsigned int dir, int error)
{
	struct iommufd_device *idev = dma->idev;
	const struct swiommu_hooks *hooks = &idev->ctx->hooks;
	struct swiommu_fault fault = {
		.device = idev->dev->name,
		.iova = iova,
		.length = len,
		.write = dir == SWI_WRITE,
		.error = error,
		.pasid = dma->route->pasid,
		.physical = dma->physical,
	};

	if (hooks->fault) {
		describe_nearest(dma, iova, error, fault.nearest, sizeof(fault.nearest));
		hooks->fault(hooks->data, &fault);
	}
	return error;
}
