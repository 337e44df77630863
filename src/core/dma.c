// SPDX-License-Identifier: MIT
/*
 * A device's DMA: from an IOVA to bytes moved (see include/swiommu/iommufd.h).
 *
 * Each handle is a reader of the IOVA map (iova/map.h). An access works in steps, one per contiguous run of memory:
 * announce, load where the device's DMA goes, translate by the page table there (translate.h), check the permission,
 * move, retire. A step is limited in length so that nobody who waits for it (unmap, detach) waits for long.
 *
 * What happens to an access that a step cannot go on with is up to dma_recover() (dma_fault.c), between two steps.
 */
#include <errno.h>

#include "core/dma.h"
#include "mem/guard.h"

#define STEP_MAX (1u << 20)

/* ---- moving --------------------------------------------------------------------------------------- */

int dma_move(const struct place *place, void *buf, size_t len, unsigned int dir)
{
	if (SWI_LIKELY(place->host != NULL))
		return dir == SWI_WRITE ? mem_guard_copy(place->host, buf, len)
					: mem_guard_copy(buf, place->host, len);
	if (!place->backing)
		return -EFAULT;
	return dir == SWI_WRITE ? backing_write(place->backing, place->offset, buf, len)
				: backing_read(place->backing, place->offset, buf, len);
}

int dma_find(struct swiommu_dma *dma, const struct hwpt *paging, iova_t iova, unsigned int dir,
	     struct place *place, size_t *len)
{
	if (!translate(&dma->reader, &dma->translator, paging, iova, *len, place))
		return -ENOENT;
	if (!(place->prot & dir))
		return -EPERM;
	*len = SWI_MIN(*len, place->length);
	return 0;
}

/* One step: at most `*len` bytes, the number moved in *len. Does not report. */
static int step(struct swiommu_dma *dma, iova_t iova, void *buf, size_t *len, unsigned int dir)
{
	struct place place;
	bool nested = false;
	struct hwpt *hwpt;
	int rc;

	iova_read_begin(&dma->reader);
	/* Sequentially consistent, after the announcement: either we see the switch or it waits for us. */
	hwpt = dma->route->hwpt;
	if (!hwpt) {
		rc = -ENXIO;
		goto out;
	}
	*len = SWI_MIN(*len, STEP_MAX);
	nested = hwpt_paging(hwpt) != hwpt;
	if (SWI_UNLIKELY(nested)) {
		rc = dma_translate_nested(dma, hwpt, &iova, len, dir);
		if (rc)
			goto out;
		hwpt = hwpt_paging(hwpt);
	}
	rc = dma_find(dma, hwpt, iova, dir, &place, len);
	if (SWI_UNLIKELY(rc)) {
		/* The user of a nested HWPT can do nothing about it. */
		if (nested && dma->nest.in_parent)
			rc = -EFAULT;
		goto out;
	}
	if (dir == SWI_WRITE && atomic_load(&hwpt->tracking))
		translate_mark_dirty(&dma->translator, hwpt, iova, *len);
	rc = SWI_LIKELY(place.host || place.backing)
		     ? dma_move(&place, buf, *len, dir)
		     : dma_doorbell(dma, place.offset, buf, *len, dir);
	if (rc)
		rc = -EFAULT;
out:
	iova_read_end(&dma->reader);
	if (SWI_UNLIKELY(rc && !nested))
		dma->nest.in_parent = false;
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
		return dma_report(dma, iova, len, dir, -EOVERFLOW);
	while (len) {
		n = len;
		rc = SWI_LIKELY(!dma->physical) ? step(dma, iova, buf, &n, dir)
						: noiommu_step(dma, iova, buf, &n, dir);
		if (SWI_UNLIKELY(rc)) {
			rc = dma_recover(dma, iova, len, dir, rc);
			if (rc)
				return rc;
			continue;
		}
		len -= n;
		iova += n;
		buf += n;
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
