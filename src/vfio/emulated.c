// SPDX-License-Identifier: MIT
/*
 * Emulated devices: what the kernel calls mediated. Their DMA is software's use of an IOAS, an iommufd access,
 * and involves no IOMMU: no page table, no pinning when memory is mapped, no ownership of the group's DMA.
 *
 * To the layer above, an access is bound and attached like a device; the functions vfio_pt_*() are where the two
 * part. An access can be attached to an IOAS only.
 *
 * The models know nothing of it: vfio_dma_read() and _write() end here. They move data in place and keep no
 * pins, so there is nothing to let go of when memory is unmapped; the engine lets no move go on beyond that.
 */
#include "vfio/internal.h"

#include "core/ctx.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void unmap(void *data, unsigned long iova, unsigned long length)
{
	(void)data;
	(void)iova;
	(void)length;
}

/* As of every emulated device of the kernel: mappings must consist of whole pages. */
static const struct iommufd_access_ops access_ops = {.needs_pin_pages = 1, .unmap = unmap};

int vfio_emulated_bind(struct vfio_device *dev, struct iommufd_ctx *ctx, uint32_t *id)
{
	struct iommufd_access *access = iommufd_access_create(ctx, &access_ops, dev, id);

	if (IS_ERR(access))
		return (int)PTR_ERR(access);
	dev->access = access;
	dev->access_ctx = ctx;
	return 0;
}

void vfio_emulated_unbind(struct vfio_device *dev)
{
	iommufd_access_destroy(dev->access);
	dev->access = NULL;
	dev->access_ctx = NULL;
}

long vfio_pt_attach(struct vfio_device *dev, uint32_t pasid, uint32_t *pt_id)
{
	return dev->access ? iommufd_access_attach(dev->access, *pt_id)
			   : iommufd_device_attach(dev->idev, pasid, pt_id);
}

long vfio_pt_replace(struct vfio_device *dev, uint32_t pasid, uint32_t *pt_id)
{
	return dev->access ? iommufd_access_replace(dev->access, *pt_id)
			   : iommufd_device_replace(dev->idev, pasid, pt_id);
}

void vfio_pt_detach(struct vfio_device *dev, uint32_t pasid)
{
	if (dev->access)
		iommufd_access_detach(dev->access);
	else
		iommufd_device_detach(dev->idev, pasid);
}

void vfio_pt_reason(struct vfio_device *dev, char *buf, size_t size)
{
	if (dev->access)
		swiommu_access_reason(dev->access, buf, size);
	else
		snprintf(buf, size, "%s", swiommu_device_reason(dev->idev));
}

/* The engine tells faults of devices only. */
static int report(struct vfio_device *dev, uint64_t iova, size_t len, bool write, int error)
{
	const struct swiommu_hooks *hooks = &dev->access_ctx->hooks;
	struct swiommu_fault fault = {
		.device = dev->place.bdf,
		.iova = iova,
		.length = len,
		.write = write,
		.error = error,
	};

	if (hooks->fault)
		hooks->fault(hooks->data, &fault);
	return error;
}

int vfio_emulated_dma(struct vfio_device *dev, uint64_t iova, void *buf, size_t len, bool write)
{
	/* Other processes' memory is used as it is now: there need be no pin that says how it was. */
	unsigned int flags = write ? IOMMUFD_ACCESS_RW_WRITE : IOMMUFD_ACCESS_RW_READ;
	int rc = len ? iommufd_access_rw(dev->access, iova, buf, len,
					 flags | IOMMUFD_ACCESS_RW_KTHREAD)
		     : 0;

	return rc ? report(dev, iova, len, write, rc) : 0;
}
