/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_CALL_H
#define SWIOMMU_CORE_CALL_H

/*
 * One ioctl on its way through the engine.
 *
 * The dispatcher (ioctl.c) has copied the struct in, once, zero-extended to its full size; handlers
 * work on that copy and never look at the client's struct again.
 */

#include <linux/iommufd.h>

#include "base/reason.h"
#include "core/ctx.h"

/* Room for the largest command struct. */
#define CALL_CMD_MAX 72

struct call {
	struct iommufd_ctx *ctx;
	struct swiommu_caller *caller;
	struct swi_reason *why;
	uint64_t uptr;	    /* the struct in the caller's memory */
	uint32_t user_size; /* the size that the caller gave */
	uint32_t full_size; /* of the struct as we know it */
	/*
	 * An object made by the handler: published by the dispatcher when the handler returns 0, else
	 * destroyed. NULL when there is none.
	 */
	struct obj *new_obj;
	union {
		unsigned char bytes[CALL_CMD_MAX];
		uint64_t align;
	} cmd;
};

/* Writes the struct back, no further than the caller's size. 0 or -EFAULT with a reason. */
int call_respond(struct call *call);
/*
 * The same, when a descriptor that the struct tells of is in the caller's table already and cannot be taken back: for the
 * second write, after a call_respond() that showed that the struct can be written. No failure is injected.
 */
int call_respond_installed(struct call *call);
/* Copy from or to a pointer inside the struct; `what` names it in the reason. 0 or -EFAULT. */
int call_copy_in(struct call *call, void *dst, uint64_t uptr, size_t len, const char *what);
int call_copy_out(struct call *call, uint64_t uptr, const void *src, size_t len, const char *what);

/*
 * The last step of a handler whose new object has a file: gives it to the caller, its descriptor in *field (of the
 * struct), and responds. The file lies inside call->new_obj, on which and on whose context it takes a reference,
 * to be dropped by its release.
 */
int call_install_event_file(struct call *call, struct swiommu_file *file,
			    const struct swiommu_file_ops *ops, uint32_t *field);

struct mem_payer;
/*
 * Who pays for memory that this call maps, in the mode that holds for it now (core.md 5.6). To be given back with
 * mem_payer_fini(). -ENOMEM, -ESRCH, with a reason.
 */
int call_get_payer(struct call *call, struct mem_payer *payer);

/* Handlers, by file. Each returns 0 or a negative errno with a reason. */
int ioas_cmd_alloc(struct call *call);
int ioas_cmd_iova_ranges(struct call *call);
int ioas_cmd_allow_iovas(struct call *call);
int ioas_cmd_map(struct call *call);
int ioas_cmd_map_file(struct call *call);
int ioas_cmd_copy(struct call *call);
int ioas_cmd_unmap(struct call *call);
int ioas_cmd_change_process(struct call *call);
int noiommu_cmd_get_pa(struct call *call);
int option_cmd(struct call *call);
int device_cmd_hw_info(struct call *call);
int hwpt_cmd_alloc(struct call *call);
int hwpt_cmd_invalidate(struct call *call);
int dirty_cmd_set(struct call *call);
int dirty_cmd_get(struct call *call);
int fault_cmd_alloc(struct call *call);
int viommu_cmd_alloc(struct call *call);
int vdevice_cmd_alloc(struct call *call);
int veventq_cmd_alloc(struct call *call);
int hw_queue_cmd_alloc(struct call *call);
int vfio_compat_cmd_ioas(struct call *call);
/*
 * The caller's descriptor as a dma-buf of the test ABI, attached for bytes up to `last`: a memory owner, NULL if it is none.
 * -EINVAL beyond its end, -ENODEV revoked, -ENOMEM.
 */
int test_dmabuf_attach(struct call *call, int fd, uint64_t last, struct mem_owner **out);
struct ioas;
/*
 * MOCK_FLAGS_ACCESS_SYZ, by which fuzzers hit mappings: `what` names the how manieth one (low half) and the offset
 * in it (high half). 0 if there is none.
 */
uint64_t test_nth_iova(struct ioas *ioas, uint64_t what);
int test_cmd(
	struct call *call); /* of contexts with a test_abi; may also return a positive number */

/*
 * The VFIO container ioctls (numbers outside the table): the argument has not been read. Returns what ioctl() does, -ENOTTY for an unknown number.
 */
long vfio_compat_ioctl(struct call *call, unsigned int cmd);

#endif
