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
#include "vfio/internal.h"

#include <errno.h>
#include <string.h>

#define HEADER 8u
#define RANGES_MAX 4096u

/* What DMA_LOGGING_REPORT is on the wire; the bitmap follows. */
struct report {
	uint64_t iova, length, page_size;
};

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

static long fail_server(struct swiommu_caller *caller, const char *what, int rc)
{
	if (rc == -ENOMEM)
		return vfio_fail(caller, rc, "%s: out of memory", what);
	return vfio_fail(caller, rc, "%s: the vfio-user server says: %s", what, strerror(-rc));
}

static long log_start(struct vu_device *u, struct swiommu_caller *caller, uint64_t data,
		      uint32_t flags)
{
	static const char what[] = "DMA_LOGGING_START";
	struct vfio_device_feature_dma_logging_control control;
	size_t size, len;
	uint8_t *msg;
	long rc;

	rc = vfio_copy_in(caller, &control, data, sizeof(control), what);
	if (rc)
		return rc;
	if (control.num_ranges > RANGES_MAX)
		return vfio_fail(caller, -E2BIG, "%s: %u ranges, more than %u", what,
				 control.num_ranges, RANGES_MAX);
	/* Without the pointer, which comes last. */
	len = offsetof(struct vfio_device_feature_dma_logging_control, ranges);
	size = control.num_ranges * sizeof(struct vfio_device_feature_dma_logging_range);
	msg = swi_alloc(len + size);
	if (!msg)
		return fail_server(caller, what, -ENOMEM);
	memcpy(msg, &control, len);
	rc = size ? vfio_copy_in(caller, msg + len, control.ranges, size, what) : 0;
	if (!rc) {
		rc = send_feature(u, flags, msg, len + size, msg, len + size, &len);
		if (rc)
			fail_server(caller, what, (int)rc);
	}
	swi_free(msg);
	return rc;
}

static long log_report(struct vu_device *u, struct swiommu_caller *caller, uint64_t data,
		       uint32_t flags)
{
	static const char what[] = "DMA_LOGGING_REPORT";
	struct vfio_device_feature_dma_logging_report report;
	struct report wire;
	size_t bitmap, len;
	uint8_t *reply;
	long rc;

	rc = vfio_copy_in(caller, &report, data, sizeof(report), what);
	if (rc)
		return rc;
	if (!is_pow2_u64(report.page_size) || !report.length)
		return vfio_fail(caller, -EINVAL,
				 "%s: page_size %#llx, length %#llx: must be a power of two, and "
				 "not 0",
				 what, (unsigned long long)report.page_size,
				 (unsigned long long)report.length);
	bitmap = (report.length / report.page_size + 63) / 64 * 8;
	if (bitmap > VU_MAX_DATA / 2)
		return vfio_fail(caller, -E2BIG, "%s: a bitmap of %zu bytes, more than %u", what,
				 bitmap, VU_MAX_DATA / 2);
	reply = swi_alloc(sizeof(wire) + bitmap);
	if (!reply)
		return fail_server(caller, what, -ENOMEM);
	wire = (struct report){report.iova, report.length, report.page_size};
	rc = send_feature(u, flags, &wire, sizeof(wire), reply, sizeof(wire) + bitmap, &len);
	if (!rc && len != sizeof(wire) + bitmap)
		rc = -EIO;
	if (rc)
		fail_server(caller, what, (int)rc);
	else
		rc = vfio_copy_out(caller, report.bitmap, reply + sizeof(wire), bitmap, what);
	swi_free(reply);
	return rc;
}

static long log_stop(struct vu_device *u, struct swiommu_caller *caller, uint64_t data,
		     uint32_t flags)
{
	size_t len;
	int rc = send_feature(u, flags, NULL, 0, NULL, 0, &len);

	(void)data;
	return rc ? fail_server(caller, "DMA_LOGGING_STOP", rc) : 0;
}

long vu_feature(void *priv, struct swiommu_caller *caller, uint64_t arg, uint32_t argsz,
		uint32_t flags)
{
	static const struct {
		uint32_t feature, direction, size;
		long (*handler)(struct vu_device *u, struct swiommu_caller *caller, uint64_t data,
				uint32_t flags);
	} features[] = {
		{VFIO_DEVICE_FEATURE_DMA_LOGGING_START, VFIO_DEVICE_FEATURE_SET, 24, log_start},
		{VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, VFIO_DEVICE_FEATURE_SET, 0, log_stop},
		{VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, VFIO_DEVICE_FEATURE_GET, 32, log_report},
	};
	uint32_t id = flags & VFIO_DEVICE_FEATURE_MASK;
	struct vu_device *u = priv;
	size_t len;
	long rc;

	for (unsigned int i = 0; i < ARRAY_SIZE(features); i++) {
		if (features[i].feature != id)
			continue;
		/* Whether it is there, only the server knows. */
		rc = send_feature(u, id | features[i].direction | VFIO_DEVICE_FEATURE_PROBE, NULL,
				  0, NULL, 0, &len);
		if (rc == -EINVAL || rc == -ENOTTY || rc == -ENOTSUP)
			return -ENOTTY;
		if (rc)
			return fail_server(caller, "VFIO_DEVICE_FEATURE", (int)rc);
		rc = vfio_check_feature(caller, argsz, flags, features[i].direction,
					features[i].size);
		return rc <= 0 ? rc : features[i].handler(u, caller, arg + HEADER, flags);
	}
	return -ENOTTY;
}
