// SPDX-License-Identifier: MIT
/*
 * DMA through nested HWPTs: first the guest's translation, by the driver's translate() (iommu_domain_ops), then the page
 * table below, as for every other DMA.
 *
 * A handle remembers what translate() said, in a table of its own. All of it holds for one state of the nested domain and
 * of the IOVA map below. iommu_domain_flush() gives the domain another number, which no domain of the context
 * has had, and waits for the accesses that are going on; an unmap moves the map's generation on (iova/reader.h). An access
 * announces itself, then loads the two, so what it finds remembered is still right, or is waited for.
 */
#include <errno.h>
#include <string.h>

#include "core/ctx.h"
#include "core/dma.h"
#include "core/nested.h"
#include "mem/guard.h"

struct iommu_walk {
	struct swiommu_dma *dma;
	struct hwpt *paging;
};

/* ---- what drivers call ---------------------------------------------------------------------------- */

/* The word of the parent at `addr`, and where it is in this process if it can be addressed. */
static int find_word(struct iommu_walk *walk, uint64_t addr, unsigned int dir, struct place *place,
		     _Atomic(uint64_t) **host)
{
	size_t len = sizeof(uint64_t);
	int rc;

	rc = addr % len ? -EINVAL : dma_find(walk->dma, walk->paging, addr, dir, place, &len);
	if (rc || len < sizeof(uint64_t) || (!place->host && !place->backing)) {
		walk->dma->nest.in_parent = true;
		walk->dma->nest.addr = addr;
		return -EFAULT;
	}
	/* Memory that is mapped at an odd address cannot be changed atomically. */
	*host = (uintptr_t)place->host % len ? NULL : (_Atomic(uint64_t) *)place->host;
	return 0;
}

int iommu_walk_load(struct iommu_walk *walk, uint64_t addr, uint64_t *value)
{
	_Atomic(uint64_t) *host;
	struct place place;
	int rc;

	*value = 0;
	rc = find_word(walk, addr, SWI_READ, &place, &host);
	if (rc)
		return rc;
	rc = host ? mem_guard_load(host, value) : dma_move(&place, value, sizeof(*value), SWI_READ);
	return rc ? -EFAULT : 0;
}

/* Where there is no address: atomic among the engine's walks, but not against the guest. */
static int swap_slowly(struct iommufd_ctx *ctx, const struct place *place, uint64_t old,
		       uint64_t value, bool *done)
{
	uint64_t now;
	int rc;

	pthread_mutex_lock(&ctx->walk_lock);
	rc = dma_move(place, &now, sizeof(now), SWI_READ);
	*done = !rc && now == old;
	if (*done)
		rc = dma_move(place, &value, sizeof(value), SWI_WRITE);
	pthread_mutex_unlock(&ctx->walk_lock);
	return rc;
}

int iommu_walk_swap(struct iommu_walk *walk, uint64_t addr, uint64_t old, uint64_t value,
		    bool *done)
{
	struct hwpt *paging = walk->paging;
	_Atomic(uint64_t) *host;
	struct place place;
	int rc;

	*done = false;
	rc = find_word(walk, addr, SWI_WRITE, &place, &host);
	if (rc)
		return rc;
	if (atomic_load(&paging->tracking))
		translate_mark_dirty(&walk->dma->translator, paging, addr, sizeof(value));
	rc = host ? mem_guard_swap(host, old, value, done)
		  : swap_slowly(paging->obj.ctx, &place, old, value, done);
	return rc ? -EFAULT : 0;
}

void iommu_domain_flush(struct iommu_domain *domain)
{
	struct hwpt *hwpt = domain->engine;

	/* Not handed to the engine yet: nobody has translated by it. */
	if (!hwpt)
		return;
	nested_count_flush(hwpt);
	iova_map_sync(hwpt->ioas->map);
}

/* ---- translating ---------------------------------------------------------------------------------- */

static bool holds(const struct dma_nest_entry *e, iova_t iova, uint32_t perm)
{
	return iova >= e->first && iova <= e->last && !(perm & ~e->perm);
}

static void forget(struct dma_nest *nest)
{
	static const struct dma_nest_entry empty = {.first = 1, .last = 0};

	nest->last = empty;
	for (unsigned int i = 0; i < DMA_NEST_ENTRIES; i++)
		nest->pages[i] = empty;
}

/* Privilege is part of what an entry is remembered for. */
static uint32_t remembered_perm(const struct swiommu_dma *dma, uint32_t perm)
{
	return perm | (dma->flags & SWIOMMU_DMA_PRIVILEGED ? IOMMU_FAULT_PERM_PRIV : 0);
}

static int ask_driver(struct swiommu_dma *dma, struct hwpt *nested, iova_t iova, uint32_t perm,
		      struct dma_nest_entry *out)
{
	struct iommu_walk walk = {dma, hwpt_paging(nested)};
	struct iommu_translation tr = {0};
	uint64_t size;
	int rc;

	rc = nested->domain->ops->translate(nested->domain, &walk, iova, perm, &tr);
	if (rc)
		return rc;
	size = 1ull << SWI_MIN(tr.size_lg2, 63u);
	out->first = iova & -size;
	out->last = out->first + (size - 1);
	out->delta = tr.addr - iova;
	out->perm = remembered_perm(dma, tr.perm);
	return 0;
}

int dma_translate_nested(struct swiommu_dma *dma, struct hwpt *nested, iova_t *iova, size_t *len,
			 unsigned int dir)
{
	const struct iova_map_view *view = (const struct iova_map_view *)nested->ioas->map;
	uint64_t generation = atomic_load(&view->generation);
	uint64_t flushes = atomic_load(&nested->flushes);
	struct dma_nest *nest = &dma->nest;
	uint32_t perm = dma_perm(dma, dir);
	struct dma_nest_entry *e = &nest->pages[(*iova >> SWI_PAGE_SHIFT) % DMA_NEST_ENTRIES];
	uint64_t left;
	int rc;

	nest->in_parent = false;
	if (!nested->domain->ops->translate)
		return 0;
	if (nest->flushes != flushes || nest->generation != generation) {
		forget(nest);
		nest->flushes = flushes;
		nest->generation = generation;
	}
	if (!holds(&nest->last, *iova, perm)) {
		if (!holds(e, *iova, perm)) {
			rc = ask_driver(dma, nested, *iova, perm, e);
			if (rc)
				return rc;
		}
		nest->last = *e;
	}
	left = nest->last.last - *iova;
	*len = left < *len ? left + 1 : *len;
	*iova += nest->last.delta;
	/* What the guest's table leads to is not asked for if it is missing: the guest cannot help it. */
	nest->in_parent = true;
	nest->addr = *iova;
	return 0;
}
