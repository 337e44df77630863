/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_SWIOMMU_H
#define SWIOMMU_SWIOMMU_H

/*
 * swiommu as a library: an iommufd context in this process, and who talks to it.
 *
 * A context is what an open of /dev/iommu is on Linux: a table of objects (IOASes, page tables,
 * devices) that answers the ioctls of <linux/iommufd.h>. The library starts no threads, prints
 * nothing, installs no signal handlers and has no global state; a process can hold many contexts.
 *
 * All functions may be called from any thread. Errors are 0 or a negative errno.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct iommufd_ctx;
struct mem_owner;

#define SWIOMMU_REASON_MAX 240

/* One DMA that did not reach memory. */
struct swiommu_fault {
	const char *device; /* name of the device that made it; valid during the callback */
	uint64_t iova;	    /* first address that could not be translated or accessed */
	size_t length;	    /* bytes of the access from there on */
	bool write;	    /* true: the device wanted to write memory */
	int error;	    /* -ENOENT not mapped, -EPERM no permission, -ENXIO not attached, -EFAULT lost memory */
	char nearest[128];  /* "nearest mapping ..." in words, for -ENOENT and -EPERM; else "" */
};

/* Severity of a line given to swiommu_hooks.log. */
enum swiommu_log_level {
	SWIOMMU_LOG_ERROR,
	SWIOMMU_LOG_WARN,
	SWIOMMU_LOG_INFO,
	SWIOMMU_LOG_DEBUG,
};

/* What a context tells its host. Any member may be NULL. Called from any thread, no lock held. */
struct swiommu_hooks {
	void (*log)(void *data, enum swiommu_log_level level, const char *line);
	void (*fault)(void *data, const struct swiommu_fault *fault);
	void *data;
};

/*
 * Makes a context. `hooks` is copied; NULL = none. The reference returned is dropped with
 * swiommu_close() (= iommufd_ctx_put()). -ENOMEM.
 */
int swiommu_open(const struct swiommu_hooks *hooks, struct iommufd_ctx **out);
void swiommu_close(struct iommufd_ctx *ctx);

/* ---- who calls --------------------------------------------------------------------------------- */

struct swiommu_caller;

/*
 * How the engine reaches the task that issues an ioctl: pointers in `arg`, file descriptors and
 * privileges are all meant in that task's world. For an ioctl of this very process, use
 * swiommu_caller_local().
 */
struct swiommu_caller_ops {
	/* Copy between the task's memory and ours with the rights it has now. 0 or -EFAULT. */
	int (*copy_in)(struct swiommu_caller *c, void *dst, uint64_t uptr, size_t len);
	int (*copy_out)(struct swiommu_caller *c, uint64_t uptr, const void *src, size_t len);
	/* A duplicate of the task's fd, owned by us then. -EBADF (also for O_PATH descriptors). */
	int (*get_fd)(struct swiommu_caller *c, int fd, int *out_fd);
	/* The context behind the task's fd, with a reference. -EBADF not open, -EBADFD not an iommufd. */
	int (*get_ctx)(struct swiommu_caller *c, int fd, struct iommufd_ctx **out);
	/* The task's address space, with a reference. -ESRCH, -EPERM, -ENOMEM. */
	int (*get_memory)(struct swiommu_caller *c, struct mem_owner **out);
	/* Whether it has CAP_xxx (number of <linux/capability.h>) in the initial user namespace. */
	bool (*capable)(struct swiommu_caller *c, int cap);
};

struct swiommu_caller {
	const struct swiommu_caller_ops *ops;
	/*
	 * After a failed call: why, in one line of words ("" = nothing known beyond the errno). The
	 * engine clears it when a call begins.
	 */
	char reason[SWIOMMU_REASON_MAX];
};

/* Sets up a caller that stands for this process itself. Fd numbers of other contexts: -EBADFD. */
void swiommu_caller_local(struct swiommu_caller *c);

/*
 * One ioctl on the context's file. `cmd` and `arg` as ioctl(2) has them; returns what ioctl(2) would:
 * 0 (for VFIO numbers also a positive answer) or a negative errno. May block.
 */
long swiommu_ioctl(struct iommufd_ctx *ctx, struct swiommu_caller *caller, unsigned int cmd,
		   uint64_t arg);

/*
 * A line per mapping of every IOAS of the context, ascending, for people to read:
 * calls `line(data, text)` with no lock held that the callback could need.
 */
void swiommu_dump(struct iommufd_ctx *ctx, void (*line)(void *data, const char *text), void *data);

#ifdef __cplusplus
}
#endif
#endif
