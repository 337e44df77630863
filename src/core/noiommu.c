// SPDX-License-Identifier: MIT
/*
 * Devices without an IOMMU (spec devices.md 1.11). They are bound, and attached for the books, to a page table of a
 * driver that is part of the engine, so that IOAS_NOIOMMU_GET_PA can tell their user physical addresses. These are what
 * the device then uses.
 *
 * On hardware it could reach all memory with them. Here it reaches what is mapped in the IOAS that it is attached to, so
 * that a wrong address is found. An access looks for the mapping among all of the IOAS, under the map's lock: this is
 * not about speed. It does so inside a read section, as every other DMA, so an unmap waits for it.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/iommufd.h>

#include "core/call.h"
#include "core/device.h"
#include "core/dma.h"

const struct iommu_driver noiommu_driver = {
	.name = "no IOMMU",
	.pgsize_bitmap = 0x000fff7ffffff000,
	.aperture_last = UINT64_MAX,
	.pt_format = IOMMU_PT_AMDV1,
};

/* ---- DMA ------------------------------------------------------------------------------------------ */

/* The published area whose memory lies at a physical address; *at: which byte of it. Map locked. */
static struct iova_area *find_phys_locked(struct ioas *ioas, phys_t pa, uint64_t *at)
{
	struct iova_area *area;

	iova_map_for_each (area, ioas->map) {
		phys_t first = backing_phys(area->backing, area->offset);

		if (!first || area->busy || pa < first || pa - first > area->last - area->iova)
			continue;
		*at = pa - first;
		return area;
	}
	return NULL;
}

int noiommu_step(struct swiommu_dma *dma, uint64_t addr, void *buf, size_t *len, unsigned int dir)
{
	struct iova_area *area = NULL;
	struct backing *backing = NULL;
	uint64_t at = 0, offset = 0, left;
	struct hwpt *hwpt;
	unsigned int prot = 0;
	int rc;

	iova_read_begin(&dma->reader);
	hwpt = dma->route->hwpt;
	if (!hwpt) {
		iova_read_end(&dma->reader);
		return -ENXIO;
	}
	iova_map_lock(hwpt->ioas->map);
	area = find_phys_locked(hwpt->ioas, addr, &at);
	if (area) {
		backing = area->backing;
		offset = area->offset + at;
		prot = area->prot;
		left = area->last - area->iova - at;
		*len = left < *len ? left + 1 : *len;
	}
	iova_map_unlock(hwpt->ioas->map);
	if (!backing)
		rc = -ENOENT;
	else if (!(prot & dir))
		rc = -EPERM;
	else if (dir == SWI_WRITE)
		rc = backing_write(backing, offset, buf, *len) ? -EFAULT : 0;
	else
		rc = backing_read(backing, offset, buf, *len) ? -EFAULT : 0;
	iova_read_end(&dma->reader);
	return rc;
}

/* ---- IOAS_NOIOMMU_GET_PA -------------------------------------------------------------------------- */

/* Whether physical addresses of the IOAS' mappings are there because of a device without IOMMU. Domains lock held. */
static bool is_noiommu_ioas(struct ioas *ioas)
{
	struct domain *dom;

	if (list_empty(&ioas->tables))
		return false;
	dom = list_entry(ioas->tables.next, struct domain, entry);
	return container_of(dom, struct hwpt, tables)->driver == &noiommu_driver;
}

static int get_pa_locked(struct call *call, struct ioas *ioas)
{
	struct iommu_ioas_noiommu_get_pa *cmd = (void *)call->cmd.bytes;
	struct iova_area *area = iova_map_first(ioas->map, cmd->iova);
	uint64_t at, left;

	if (!area || area->iova > cmd->iova || area->busy)
		return swi_fail(call->why, -ENOENT, "nothing is mapped at iova %#llx",
				(unsigned long long)cmd->iova);
	if (!is_noiommu_ioas(ioas))
		return swi_fail(call->why, -EOPNOTSUPP,
				"no device without an IOMMU is attached to IOAS %u, or one with an "
				"IOMMU was before it",
				cmd->ioas_id);
	at = cmd->iova - area->iova;
	left = area->last - cmd->iova;
	cmd->out_phys = backing_phys(area->backing, area->offset + at);
	if (left < cmd->length)
		cmd->length = left + 1;
	return 0;
}

static int check_get_pa(struct call *call)
{
	const struct iommu_ioas_noiommu_get_pa *cmd = (void *)call->cmd.bytes;

	if (!call->ctx->noiommu)
		return swi_fail(call->why, -EOPNOTSUPP, "no-iommu mode is not enabled");
	if (!call->caller->ops->capable(call->caller, CAP_SYS_RAWIO))
		return swi_fail(call->why, -EPERM,
				"physical addresses are for those with CAP_SYS_RAWIO");
	if (cmd->flags || cmd->__reserved)
		return swi_fail(call->why, -EOPNOTSUPP, "flags %#x: none is defined", cmd->flags);
	if (!cmd->length)
		return swi_fail(call->why, -EINVAL, "length is 0");
	if (cmd->iova == IOVA_MAX)
		return swi_fail(call->why, -EOVERFLOW, "iova is 2^64 - 1");
	return 0;
}

int noiommu_cmd_get_pa(struct call *call)
{
	const struct iommu_ioas_noiommu_get_pa *cmd = (void *)call->cmd.bytes;
	struct ioas *ioas;
	struct obj *obj;
	int rc;

	rc = check_get_pa(call);
	if (!rc)
		rc = obj_get(call->ctx, cmd->ioas_id, OBJ_IOAS, "ioas_id", call->why, &obj);
	if (rc)
		return rc;
	ioas = ioas_of(obj);
	pthread_rwlock_rdlock(&ioas->domains);
	iova_map_lock(ioas->map);
	rc = get_pa_locked(call, ioas);
	iova_map_unlock(ioas->map);
	pthread_rwlock_unlock(&ioas->domains);
	if (!rc)
		rc = call_respond(call);
	obj_put(obj);
	return rc;
}
