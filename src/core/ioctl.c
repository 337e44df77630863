// SPDX-License-Identifier: MIT
/*
 * The ioctl surface of /dev/iommu: one table, and the checks that come before any handler in the
 * order of spec core.md 2.1 (each errno has its place in that order).
 *
 *   number out of the table's range   ENOTTY without touching the argument
 *   u32 at the argument unreadable	EFAULT
 *   number not exactly a table entry	ENOTTY
 *   size too small			EINVAL
 *   size too large, tail not zero	E2BIG, or EFAULT if unreadable, whichever comes first
 *   head unreadable			EFAULT
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/iommufd.h>
#include <linux/ioctl.h>
#include <string.h>

#include "base/alloc.h"
#include "core/call.h"
#include "core/selftest_abi.h"

struct ioctl_entry {
	uint16_t min_size, full_size;
	const char *name;
	int (*handler)(struct call *call);
};

static int destroy_cmd(struct call *call)
{
	struct iommu_destroy *cmd = (void *)call->cmd.bytes;

	/* What has been unmapped must not look busy. */
	swiommu_regions_settle(call->ctx->regions);
	return obj_destroy_id(call->ctx, cmd->id, call->why);
}

#define end_of(type, member) (offsetof(type, member) + sizeof(((type *)0)->member))
#define ENTRY(ioctl, type, last_member, fn) \
	[(ioctl)-IOCTL_FIRST] = {end_of(type, last_member), sizeof(type), #ioctl, fn}

#define IOCTL_FIRST _IO(IOMMUFD_TYPE, IOMMUFD_CMD_BASE)
#define IOCTL_LAST IOMMU_IOAS_NOIOMMU_GET_PA

/* clang-format off */
static const struct ioctl_entry ioctls[IOCTL_LAST - IOCTL_FIRST + 1] = {
	ENTRY(IOMMU_DESTROY, struct iommu_destroy, id, destroy_cmd),
	ENTRY(IOMMU_IOAS_ALLOC, struct iommu_ioas_alloc, out_ioas_id, ioas_cmd_alloc),
	ENTRY(IOMMU_IOAS_ALLOW_IOVAS, struct iommu_ioas_allow_iovas, allowed_iovas, ioas_cmd_allow_iovas),
	ENTRY(IOMMU_IOAS_COPY, struct iommu_ioas_copy, src_iova, ioas_cmd_copy),
	ENTRY(IOMMU_IOAS_IOVA_RANGES, struct iommu_ioas_iova_ranges, out_iova_alignment, ioas_cmd_iova_ranges),
	ENTRY(IOMMU_IOAS_MAP, struct iommu_ioas_map, iova, ioas_cmd_map),
	ENTRY(IOMMU_IOAS_UNMAP, struct iommu_ioas_unmap, length, ioas_cmd_unmap),
	ENTRY(IOMMU_OPTION, struct iommu_option, val64, option_cmd),
	ENTRY(IOMMU_VFIO_IOAS, struct iommu_vfio_ioas, __reserved, vfio_compat_cmd_ioas),
	ENTRY(IOMMU_HWPT_ALLOC, struct iommu_hwpt_alloc, __reserved, hwpt_cmd_alloc),
	ENTRY(IOMMU_GET_HW_INFO, struct iommu_hw_info, __reserved, device_cmd_hw_info),
	ENTRY(IOMMU_HWPT_SET_DIRTY_TRACKING, struct iommu_hwpt_set_dirty_tracking, __reserved, dirty_cmd_set),
	ENTRY(IOMMU_HWPT_GET_DIRTY_BITMAP, struct iommu_hwpt_get_dirty_bitmap, data, dirty_cmd_get),
	ENTRY(IOMMU_HWPT_INVALIDATE, struct iommu_hwpt_invalidate, __reserved, hwpt_cmd_invalidate),
	ENTRY(IOMMU_FAULT_QUEUE_ALLOC, struct iommu_fault_alloc, out_fault_fd, fault_cmd_alloc),
	ENTRY(IOMMU_IOAS_MAP_FILE, struct iommu_ioas_map_file, iova, ioas_cmd_map_file),
	ENTRY(IOMMU_VIOMMU_ALLOC, struct iommu_viommu_alloc, out_viommu_id, viommu_cmd_alloc),
	ENTRY(IOMMU_VDEVICE_ALLOC, struct iommu_vdevice_alloc, virt_id, vdevice_cmd_alloc),
	ENTRY(IOMMU_VEVENTQ_ALLOC, struct iommu_veventq_alloc, out_veventq_fd, veventq_cmd_alloc),
	ENTRY(IOMMU_HW_QUEUE_ALLOC, struct iommu_hw_queue_alloc, length, hw_queue_cmd_alloc),
	ENTRY(IOMMU_IOAS_CHANGE_PROCESS, struct iommu_ioas_change_process, __reserved, ioas_cmd_change_process),
	ENTRY(IOMMU_IOAS_NOIOMMU_GET_PA, struct iommu_ioas_noiommu_get_pa, out_phys, noiommu_cmd_get_pa),
};
/* clang-format on */

/* Only contexts made for the test ABI have it. */
static const struct ioctl_entry test_entry = {end_of(struct iommu_test_cmd, last),
					      sizeof(struct iommu_test_cmd), "IOMMU_TEST_CMD",
					      test_cmd};

static unsigned int last_nr(const struct iommufd_ctx *ctx)
{
	return _IOC_NR(ctx->test_abi ? IOMMU_TEST_CMD : IOCTL_LAST);
}

int call_copy_in(struct call *call, void *dst, uint64_t uptr, size_t len, const char *what)
{
	if (!swi_fail_point() && !call->caller->ops->copy_in(call->caller, dst, uptr, len))
		return 0;
	return swi_fail(call->why, -EFAULT, "%s: %zu bytes at %#llx cannot be read", what, len,
			(unsigned long long)uptr);
}

int call_copy_out(struct call *call, uint64_t uptr, const void *src, size_t len, const char *what)
{
	if (!swi_fail_point() && !call->caller->ops->copy_out(call->caller, uptr, src, len))
		return 0;
	return swi_fail(call->why, -EFAULT, "%s: %zu bytes at %#llx cannot be written", what, len,
			(unsigned long long)uptr);
}

int call_respond(struct call *call)
{
	return call_copy_out(call, call->uptr, call->cmd.bytes,
			     SWI_MIN(call->user_size, call->full_size), "struct");
}

int call_respond_installed(struct call *call)
{
	size_t len = SWI_MIN(call->user_size, call->full_size);

	if (!call->caller->ops->copy_out(call->caller, call->uptr, call->cmd.bytes, len))
		return 0;
	return swi_fail(call->why, -EFAULT,
			"the struct cannot be written any more: a descriptor is lost");
}

int call_install_event_file(struct call *call, struct swiommu_file *file,
			    const struct swiommu_file_ops *ops, uint32_t *field)
{
	int rc, fd;

	obj_hold(call->new_obj);
	iommufd_ctx_get(call->ctx);
	swiommu_file_init(file, ops);
	/* Once before there is a descriptor, so that a bad pointer leaves none behind. */
	rc = call_respond(call);
	if (rc)
		goto put;
	rc = swiommu_file_install(call->caller, file, O_CLOEXEC, &fd);
	if (rc) {
		rc = swi_fail(call->why, rc, "no file descriptor can be given to the caller");
		goto put;
	}
	*field = fd;
	rc = call_respond_installed(call);
	if (rc) {
		/* The descriptor is there and cannot be taken back: so the object lives until it is closed. */
		obj_publish(call->new_obj);
		call->new_obj = NULL;
	}
put:
	swiommu_file_put(file);
	return rc;
}

/*
 * Bytes full_size..user_size-1 of the client's struct must be zero. A chunk that cannot be read as a
 * whole is read bytewise: a non-zero byte before the fault wins over the fault.
 */
static int check_tail(struct call *call)
{
	unsigned char buf[512];
	uint64_t at = call->full_size, left;
	size_t chunk = sizeof(buf), n;

	for (left = call->user_size - at; left; left -= n, at += n) {
		n = SWI_MIN(left, chunk);
		if (call->caller->ops->copy_in(call->caller, buf, call->uptr + at, n)) {
			if (n == 1)
				return swi_fail(call->why, -EFAULT,
						"size says %u bytes, but byte %llu cannot be read",
						call->user_size, (unsigned long long)at);
			chunk = 1;
			n = 0;
			continue;
		}
		for (size_t i = 0; i < n; i++)
			if (buf[i])
				return swi_fail(
					call->why, -E2BIG,
					"byte %llu is not zero, beyond the %u bytes that are known "
					"of this struct",
					(unsigned long long)(at + i), call->full_size);
	}
	return 0;
}

static const struct ioctl_entry *find_entry(const struct iommufd_ctx *ctx, unsigned int cmd)
{
	if (cmd == IOMMU_TEST_CMD && ctx->test_abi)
		return &test_entry;
	if (cmd < IOCTL_FIRST || cmd > IOCTL_LAST || !ioctls[cmd - IOCTL_FIRST].handler)
		return NULL;
	return &ioctls[cmd - IOCTL_FIRST];
}

/* Steps 4 to 6: the struct into call->cmd. */
static int copy_struct(struct call *call, const struct ioctl_entry *entry)
{
	int rc;

	call->full_size = entry->full_size;
	if (call->user_size < entry->min_size)
		return swi_fail(call->why, -EINVAL, "size is %u, less than the %u that %s needs",
				call->user_size, entry->min_size, entry->name);
	if (call->user_size > entry->full_size) {
		rc = check_tail(call);
		if (rc)
			return rc;
	}
	memset(&call->cmd, 0, sizeof(call->cmd));
	return call_copy_in(call, call->cmd.bytes, call->uptr,
			    SWI_MIN(call->user_size, call->full_size), "struct");
}

static long run(struct call *call, const struct ioctl_entry *entry)
{
	int rc = entry->handler(call);

	if (call->new_obj) {
		if (rc)
			obj_abort(call->new_obj, true);
		else
			obj_publish(call->new_obj);
	}
	return rc;
}

static long dispatch(struct call *call, unsigned int cmd)
{
	const struct ioctl_entry *entry;
	unsigned int nr = _IOC_NR(cmd);
	int rc;

	if (nr < IOMMUFD_CMD_BASE || nr > last_nr(call->ctx))
		return vfio_compat_ioctl(call, cmd);
	rc = call_copy_in(call, &call->user_size, call->uptr, sizeof(call->user_size), "size");
	if (rc)
		return rc;
	entry = find_entry(call->ctx, cmd);
	if (!entry)
		return swi_fail(call->why, -ENOTTY, "ioctl number %#x is not known", cmd);
	rc = copy_struct(call, entry);
	if (rc)
		return rc;
	return run(call, entry);
}

long swiommu_ioctl(struct iommufd_ctx *ctx, struct swiommu_caller *caller, unsigned int cmd,
		   uint64_t arg)
{
	_Static_assert(sizeof(struct swi_reason) == SWIOMMU_REASON_MAX, "one buffer serves both");
	struct call call = {
		.ctx = ctx,
		.caller = caller,
		.why = (struct swi_reason *)caller->reason,
		.uptr = arg,
	};

	caller->reason[0] = '\0';
	/* What the caller has closed must not look busy. */
	if (caller->files)
		swiommu_files_sweep(caller->files);
	return dispatch(&call, cmd);
}
