/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_IOMMUFD_H
#define SWIOMMU_IOMMUFD_H

/*
 * The driver's side of iommufd, under the kernel's names, so that driver code ports by changing its
 * includes: contexts, and devices that do DMA through them.
 *
 * Where the kernel hands a struct to hardware, swiommu has the hardware call back in: a device does
 * its DMA through a struct swiommu_dma (end of this file).
 */

#include <stdint.h>
#include <sys/types.h>
#include <swiommu/driver.h>
#include <swiommu/swiommu.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Error pointers: a pointer-returning function of the kAPI fails with ERR_PTR(-errno). */
static inline void *ERR_PTR(long error)
{
	return (void *)error;
}
static inline long PTR_ERR(const void *ptr)
{
	return (long)ptr;
}
static inline bool IS_ERR(const void *ptr)
{
	return (unsigned long)ptr >= (unsigned long)-4095;
}

/* ---- contexts (spec core.md 6.1) --------------------------------------------------------------- */

/* One more reference; the caller must hold one. */
void iommufd_ctx_get(struct iommufd_ctx *ictx);
/* Drops one; the last drop releases the context and everything in it. */
void iommufd_ctx_put(struct iommufd_ctx *ictx);
/* Whether some bound device of the context is in the group. NULL arguments: false. */
bool iommufd_ctx_has_group(struct iommufd_ctx *ictx, struct iommu_group *group);

/* ---- the VFIO container on a context (spec core.md 7.6) ------------------------------------------ */

/* The ID of the IOAS that the VFIO container ioctls act on. -ENODEV when there is none. */
int iommufd_vfio_compat_ioas_get_id(struct iommufd_ctx *ictx, uint32_t *out_ioas_id);
/* Makes and sets one unless there is one already. -EINVAL in no-iommu mode, -ENOMEM, -EBUSY. */
int iommufd_vfio_compat_ioas_create(struct iommufd_ctx *ictx);
/* Enters no-iommu mode for the rest of the context's life. -EINVAL when a compat IOAS is set. */
int iommufd_vfio_compat_set_no_iommu(struct iommufd_ctx *ictx);

/* ---- physical devices (spec devices.md 1) ------------------------------------------------------ */

struct iommufd_device;

/*
 * Binds a device to a context: claims its group's DMA for this context (all DMA of the device faults
 * until it is attached) and makes a DEVICE object, whose ID is stored in *id. The device holds a
 * reference on the context. Errors as ERR_PTR: -EPERM the group is owned by another context, -ENODEV
 * no group, -EINVAL no IOMMU driver, -ENOMEM, -EBUSY no free ID.
 */
struct iommufd_device *iommufd_device_bind(struct iommufd_ctx *ictx, struct device *dev, uint32_t *id);
/* Undoes bind. All attachments must have been detached and all DMA handles closed. */
void iommufd_device_unbind(struct iommufd_device *idev);

/*
 * Puts the device (pasid 0: all its requests) behind the page table or IOAS with ID *pt_id. For an IOAS an
 * automatic HWPT is found or made and its ID stored in *pt_id. -ENOENT no such ID; -EINVAL not something to
 * attach to, or the group already uses another page table; -EBUSY attached already; -EADDRINUSE mappings
 * or allowed ranges lie where the IOMMU or the device has reserved IOVAs, or are too finely aligned;
 * -EFAULT, -EINVAL, -ENOMEM memory of a mapping cannot be pinned. On failure nothing has changed.
 */
int iommufd_device_attach(struct iommufd_device *idev, uint32_t pasid, uint32_t *pt_id);
/*
 * As attach, for an attached device: DMA goes from the old to the new translation without a window. Errors as
 * attach; -EINVAL also when not attached. On failure the old translation stays.
 */
int iommufd_device_replace(struct iommufd_device *idev, uint32_t pasid, uint32_t *pt_id);
/* Never fails; returns when no DMA of the device can touch memory any more. */
void iommufd_device_detach(struct iommufd_device *idev, uint32_t pasid);

/*
 * Why the last attach or replace of this device failed, in words; "" when there is nothing beyond the errno. Valid until the
 * next such call, with which the caller serialises it.
 */
const char *swiommu_device_reason(struct iommufd_device *idev);

struct iommufd_ctx *iommufd_device_to_ictx(struct iommufd_device *idev);
uint32_t iommufd_device_to_id(struct iommufd_device *idev);

/* ---- a device's DMA ----------------------------------------------------------------------------- */

/*
 * One stream of DMA of a bound device, for one thread at a time; a device may have many. It follows
 * the device's attachment: attach, replace and detach take effect between two accesses, and wait for
 * the access in progress.
 */
struct swiommu_dma;

/* -ENOMEM. Close every handle before iommufd_device_unbind(). */
int swiommu_dma_open(struct iommufd_device *idev, struct swiommu_dma **out);
void swiommu_dma_close(struct swiommu_dma *dma);

/*
 * Move `len` bytes between a buffer of the caller and [iova, iova+len), which may cross any number of mappings.
 * 0, or -ENOENT not mapped, -EPERM mapping without that permission, -ENXIO not attached, -EFAULT the memory
 * behind the mapping is gone, -EOVERFLOW the range passes 2^64. Bytes before the failing address have moved. Every
 * failure is also told to the context's fault hook. May block when the memory belongs to another process.
 */
int swiommu_dma_read(struct swiommu_dma *dma, uint64_t iova, void *buf, size_t len);
int swiommu_dma_write(struct swiommu_dma *dma, uint64_t iova, const void *buf, size_t len);

#ifdef __cplusplus
}
#endif
#endif
