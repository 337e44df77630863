// SPDX-License-Identifier: MIT
/*
 * DEVICE_FEATURE of a server's device: DMA logging (spec vfio.md 4.6, 6.7).
 *
 * On the wire a feature has its data behind it where the ioctl has a pointer: DMA_LOGGING_START a list of
 * ranges, DMA_LOGGING_REPORT a bitmap. Both are turned here. A server says EINVAL to a feature it does not have,
 * which is ENOTTY for the client.
 *
 * Migration is not passed on: its state moves through a file that the client is given, and there is none here.
 */
#include "vfio/user/user.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>
#include <swiommu/swiommu.h>

#define HEADER 8u
#define RANGES_MAX 4096u

/* What DMA_LOGGING_REPORT is on the wire; the bitmap follows. */
struct report {
	uint64_t iova, length, page_size;
};

static int copy_in(struct swiommu_caller *caller, void *dst, uint64_t from, size_t len)
{
	return caller->ops->copy_in(caller, dst, from, len) ? -EFAULT : 0;
}

static int send_feature(struct vu_device *u, uint32_t flags, const void *data, size_t data_len,
			void *reply, size_t reply_max, size_t *reply_len)
{
	uint32_t head[2] = {(uint32_t)(HEADER + SWI_MAX(data_len, reply_max)), flags};
	uint8_t *bytes = swi_alloc(HEADER + reply_max);
	struct vu_call call = {.cmd = VU_DEVICE_FEATURE,
			       .head = head,
			       .head_len = sizeof(head),
			       .data = data,
			       .data_len = data_len,
			       .reply = bytes,
			       .reply_max = HEADER + reply_max};
	int rc;

	if (!bytes)
		return -ENOMEM;
	rc = vu_call(&u->conn, &call);
	*reply_len = call.reply_len > HEADER ? call.reply_len - HEADER : 0;
	if (!rc && *reply_len)
		memcpy(reply, bytes + HEADER, *reply_len);
	swi_free(bytes);
	return rc;
}

static long log_start(struct vu_device *u, struct swiommu_caller *caller, uint64_t arg,
		      uint32_t argsz, uint32_t flags)
{
	struct vfio_device_feature_dma_logging_control control;
	size_t size, len;
	uint8_t *msg;
	int rc;

	if (argsz < HEADER + sizeof(control))
		return -EINVAL;
	if (copy_in(caller, &control, arg + HEADER, sizeof(control)))
		return -EFAULT;
	if (control.num_ranges > RANGES_MAX)
		return -E2BIG;
	/* Without the pointer, which comes last. */
	len = offsetof(struct vfio_device_feature_dma_logging_control, ranges);
	size = control.num_ranges * sizeof(struct vfio_device_feature_dma_logging_range);
	msg = swi_alloc(len + size);
	if (!msg)
		return -ENOMEM;
	memcpy(msg, &control, len);
	rc = size ? copy_in(caller, msg + len, control.ranges, size) : 0;
	if (!rc)
		rc = send_feature(u, flags, msg, len + size, msg, len + size, &len);
	swi_free(msg);
	return rc;
}

static long log_report(struct vu_device *u, struct swiommu_caller *caller, uint64_t arg,
		       uint32_t argsz, uint32_t flags)
{
	struct vfio_device_feature_dma_logging_report report;
	struct report wire;
	size_t bitmap, len;
	uint8_t *reply;
	int rc;

	if (argsz < HEADER + sizeof(report))
		return -EINVAL;
	if (copy_in(caller, &report, arg + HEADER, sizeof(report)))
		return -EFAULT;
	if (!is_pow2_u64(report.page_size) || !report.length)
		return -EINVAL;
	bitmap = (report.length / report.page_size + 63) / 64 * 8;
	if (bitmap > VU_MAX_DATA / 2)
		return -E2BIG;
	reply = swi_alloc(sizeof(wire) + bitmap);
	if (!reply)
		return -ENOMEM;
	wire = (struct report){report.iova, report.length, report.page_size};
	rc = send_feature(u, flags, &wire, sizeof(wire), reply, sizeof(wire) + bitmap, &len);
	if (!rc && len != sizeof(wire) + bitmap)
		rc = -EIO;
	if (!rc && caller->ops->copy_out(caller, report.bitmap, reply + sizeof(wire), bitmap))
		rc = -EFAULT;
	swi_free(reply);
	return rc;
}

long vu_feature(void *priv, struct swiommu_caller *caller, uint64_t arg, uint32_t argsz,
		uint32_t flags)
{
	struct vu_device *u = priv;
	uint32_t id = flags & VFIO_DEVICE_FEATURE_MASK;
	size_t len;
	long rc;

	if (id != VFIO_DEVICE_FEATURE_DMA_LOGGING_START &&
	    id != VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP &&
	    id != VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT)
		return -ENOTTY;
	if (flags & VFIO_DEVICE_FEATURE_PROBE || id == VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP) {
		rc = send_feature(u, flags, NULL, 0, NULL, 0, &len);
		return rc == -EINVAL ? -ENOTTY : rc;
	}
	if (id == VFIO_DEVICE_FEATURE_DMA_LOGGING_START)
		return log_start(u, caller, arg, argsz, flags);
	return log_report(u, caller, arg, argsz, flags);
}
