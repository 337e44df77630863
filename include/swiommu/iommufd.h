/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_IOMMUFD_H
#define SWIOMMU_IOMMUFD_H

/*
 * The driver's side of iommufd, under the kernel's names, so that driver code ports by changing its
 * includes: contexts, devices that do DMA through them, and accesses, by which software uses the memory
 * of an IOAS itself.
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
/*
 * The context behind a file descriptor of this process: there is none, since a context of a library is a pointer
 * and no open file. -EBADF as ERR_PTR: no such descriptor; -EBADFD: not a context. Code that serves the
 * descriptors of another process asks that process' struct swiommu_caller (get_ctx). The kernel's
 * iommufd_ctx_from_file() has no counterpart, as there is no struct file.
 */
struct iommufd_ctx *iommufd_ctx_from_fd(int fd);
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
 * reference on the context. Errors as ERR_PTR: -EPERM the group is owned by another context, or its interrupts are not
 * isolated (swiommu_allow_unsafe_interrupts()), -ENODEV no group, -EINVAL no IOMMU driver (and the context not made for such),
 * DMA that is not coherent, or firmware that wants it mapped (IOMMU_RESV_DIRECT), -ENOMEM, -EBUSY no free ID.
 */
struct iommufd_device *iommufd_device_bind(struct iommufd_ctx *ictx, struct device *dev,
					   uint32_t *id);
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

/* ---- accesses: software that uses the memory of an IOAS (spec core.md 6) ------------------------- */

struct iommufd_access;

/* What a driver says about its access. Constant while the access exists. */
struct iommufd_access_ops {
	/*
	 * The access will call iommufd_access_pin_pages(). Every mapping of the IOAS must then be aligned to
	 * pages. An access without it can only use iommufd_access_rw().
	 */
	uint8_t needs_pin_pages : 1;
	/*
	 * Let go of every pin of this access that meets [iova, iova+length), also of those that reach beyond it,
	 * before returning; length ULONG_MAX at iova 0: of all. Called, on the thread that unmaps, detaches,
	 * replaces or destroys, without any lock of the library, at any time from attach to the end of
	 * destroy, also several times at once. It is called for a mapping that is being removed as soon as
	 * any access has pins in it. It may sleep and may call iommufd_access_unpin_pages(); it must not
	 * destroy its access. A pin that succeeds while the callback runs must be found by it: make "pin and write
	 * down" one step against the callback (with a lock that is held over both). NULL: no callback.
	 */
	void (*unmap)(void *data, unsigned long iova, unsigned long length);
};

/* Flags of iommufd_access_rw() and iommufd_access_pin_pages(). */
enum {
	IOMMUFD_ACCESS_RW_READ = 0,
	IOMMUFD_ACCESS_RW_WRITE = 1 << 0,
	/* rw of another process' memory: look at what is mapped there now, see iommufd_access_rw(). */
	IOMMUFD_ACCESS_RW_KTHREAD = 1 << 1,
	/* For tests: treat the caller as another process than the one whose memory it is. */
	__IOMMUFD_ACCESS_RW_SLOW_PATH = 1 << 2,
};

/*
 * Makes an access: an object of the context whose ID goes to *id. It holds a reference on the context. `ops` and
 * `data` are the driver's and must stay until iommufd_access_destroy() has returned. ERR_PTR: -EINVAL no
 * ops, -ENOMEM, -EBUSY no free ID.
 */
struct iommufd_access *iommufd_access_create(struct iommufd_ctx *ictx,
					     const struct iommufd_access_ops *ops, void *data,
					     uint32_t *id);
/*
 * Waits for unmap callbacks in progress, detaches if it is attached, and frees the access. No callback runs
 * afterwards. All other calls on it must have returned.
 */
void iommufd_access_destroy(struct iommufd_access *access);

/*
 * Lets the access use an IOAS, which cannot be destroyed meanwhile. -EINVAL attached already; -ENOENT no IOAS
 * has this ID; -EBUSY a detach or replace is in progress, or the IOAS has 65536 accesses; -EADDRINUSE
 * needs_pin_pages, and a mapping is not aligned to pages; -ENOMEM. On failure nothing has changed.
 */
int iommufd_access_attach(struct iommufd_access *access, uint32_t ioas_id);
/*
 * Moves an attached access to another IOAS; for the one it is attached to this does nothing. From here on
 * pin and rw give -ENOENT, then unmap(0, ULONG_MAX) is called, in which all pins are to be released; then the
 * access works on the new IOAS. Errors as attach, -ENOENT also when it is not attached; on failure it stays
 * where it is, with its pins.
 */
int iommufd_access_replace(struct iommufd_access *access, uint32_t ioas_id);
/* The same with nothing new. Nothing happens, but for a line in the log, when it is not attached. */
void iommufd_access_detach(struct iommufd_access *access);

/*
 * A page of pinned memory. There is nothing in it: it is a name, the same one for the same page of a mapping
 * however often that is pinned, and is not to be used after the unpin.
 */
struct page;

/*
 * Where this process can address a pinned page, NULL where it cannot: private memory of another
 * process. Use iommufd_access_rw() there. Only pages of a mapping with IOMMU_IOAS_MAP_WRITEABLE can be written. The
 * file behind a page that belongs to another process can be truncated by it, upon which touching the page
 * raises SIGBUS.
 */
static inline void *page_address(const struct page *page)
{
	return (uintptr_t)page & 1 ? (void *)0 : (void *)(uintptr_t)page;
}

/*
 * Pins the pages of [iova, iova+length), whose IOVA must be the start of a page; the last page may be touched in
 * part. out_pages (NULL: not wanted) gets a struct page for each page touched. flags: READ or WRITE. Pins
 * nest and overlap freely. Only for accesses with needs_pin_pages and an unmap callback; may block.
 * -EINVAL not such an access, length 0, not at a page's start, a mapping's end inside a page and
 * not at the end of the range, the mapping is being removed, memory of a file that cannot be pinned; -EOVERFLOW;
 * -ENOENT not attached, or not mapped up to the end; -EPERM the mapping forbids it; -EFAULT,
 * -ENOMEM. On failure nothing is pinned.
 */
int iommufd_access_pin_pages(struct iommufd_access *access, unsigned long iova,
			     unsigned long length, struct page **out_pages, unsigned int flags);
/* Undoes one pin of exactly these values. What was never pinned is left alone, with a line in the log. */
void iommufd_access_unpin_pages(struct iommufd_access *access, unsigned long iova,
				unsigned long length);

/*
 * Moves bytes between `data` and [iova, iova+length), of any alignment, over any number of mappings. May block.
 * Calls on one access are done one after the other. -EINVAL length 0, the mapping is being removed, memory
 * of a file that cannot be used; -EOVERFLOW; -ENOENT not attached, or not mapped; -EPERM the mapping forbids it;
 * -EFAULT memory is not there; -ENOMEM. Bytes before the failing mapping have been moved.
 *
 * What is looked at: in a mapping under an attached device, the pinned memory, as the device does. Else, in this
 * process' own memory, what is mapped there now; in a file, its pages; in another process' memory, what is
 * mapped there now if the range touches one page or IOMMUFD_ACCESS_RW_KTHREAD is given, and otherwise what is pinned, or a
 * pin would get. Of a process that has ended only pinned memory is left.
 */
int iommufd_access_rw(struct iommufd_access *access, unsigned long iova, void *data, size_t length,
		      unsigned int flags);

/*
 * For speed: promises that memory of this process that is mapped in the access' IOASes stays there, accessible
 * as it was mapped, until it is unmapped from the IOAS. rw then checks a mapping once and uses plain
 * copies from then on (nanoseconds), where it otherwise asks the kernel to copy each time (a microsecond) because
 * a bad pointer must give -EFAULT. Does not affect memory of files and other processes.
 */
void swiommu_access_set_direct(struct iommufd_access *access, bool direct);

/*
 * Why the last failed attach, replace, pin or rw of this access failed, in words; "" when there is nothing
 * beyond the errno. Copies at most `size` bytes, with the final NUL.
 */
void swiommu_access_reason(struct iommufd_access *access, char *buf, size_t size);

/* ---- a device's DMA ----------------------------------------------------------------------------- */

/*
 * One stream of DMA of a bound device, for one thread at a time; a device may have many. It follows
 * the device's attachment: attach, replace and detach take effect between two accesses, and wait for
 * the access in progress.
 */
struct swiommu_dma;

/*
 * An access that misses (not mapped, or no such permission) asks for the page, as a device with PRI does, if what the
 * device is attached to has a fault queue: the request is read from it, and the access waits for the answer. After success it
 * goes on, or asks again; else it fails as it would have without asking.
 */
#define SWIOMMU_DMA_PAGE_REQUESTS 1u
/* Requests are privileged, which a guest's table tells from others; only with a PASID, of devices with pasid_priv. */
#define SWIOMMU_DMA_PRIVILEGED 2u

/*
 * DMA without a PASID (0), or tagged with one, which then follows what that PASID is attached to; it need not be attached yet.
 * `flags`: SWIOMMU_DMA_.... Close every handle before iommufd_device_unbind(). -EINVAL: no such flag, or a PASID that
 * the device does not have; -ENOMEM.
 */
int swiommu_dma_open_pasid(struct iommufd_device *idev, uint32_t pasid, unsigned int flags,
			   struct swiommu_dma **out);
/* Without a PASID, without flags. */
int swiommu_dma_open(struct iommufd_device *idev, struct swiommu_dma **out);
void swiommu_dma_close(struct swiommu_dma *dma);

/*
 * From now until swiommu_dma_resume() no access of the handle waits for the answer to a page request: one that does, or
 * would, fails with -ECANCELED. For whoever must wait until the thread with the handle is done. Any thread; the handle stays open
 * during the call. The request itself stays in the queue, and its answer does nothing.
 */
void swiommu_dma_cancel(struct swiommu_dma *dma);
void swiommu_dma_resume(struct swiommu_dma *dma);
/* The same for all handles of the device, also those yet to be opened; each block is undone by one unblock. */
void swiommu_device_block_requests(struct iommufd_device *idev);
void swiommu_device_unblock_requests(struct iommufd_device *idev);

/*
 * Move `len` bytes between a buffer of the caller and [iova, iova+len), which may cross any number of mappings.
 * 0, or -ENOENT not mapped, -EPERM mapping without that permission, -ENXIO not attached, -EFAULT the memory
 * behind the mapping is gone, or (nested) a guest's table or what it leads to is not in the parent, -EOVERFLOW the range passes 2^64, -ECANCELED (swiommu_dma_cancel()). Bytes before the
 * failing address have moved. Every failure but the last is also told to the context's fault hook. May block when the
 * memory belongs to another process, and with SWIOMMU_DMA_PAGE_REQUESTS until the user answers, the device is detached, or
 * the wait is cancelled.
 */
int swiommu_dma_read(struct swiommu_dma *dma, uint64_t iova, void *buf, size_t len);
int swiommu_dma_write(struct swiommu_dma *dma, uint64_t iova, const void *buf, size_t len);

#ifdef __cplusplus
}
#endif
#endif
