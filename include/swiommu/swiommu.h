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
struct mem_accounts;

#define SWIOMMU_REASON_MAX 240

/* One DMA that did not reach memory. */
struct swiommu_fault {
	const char *device; /* name of the device that made it; valid during the callback */
	uint64_t iova;	    /* first address that could not be translated or accessed */
	size_t length;	    /* bytes of the access from there on */
	bool write;	    /* true: the device wanted to write memory */
	int error; /* -ENOENT not mapped, -EPERM no permission, -ENXIO not attached, -EFAULT lost memory */
	char nearest
		[128];	/* "nearest mapping ..." in words, for -ENOENT and -EPERM; else mostly "" */
	uint32_t pasid; /* that the request was tagged with; 0: none */
	bool physical;	/* the device has no IOMMU: `iova` is a physical address */
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

struct swiommu_test_abi;

/* What a context can be made with. All zero: what swiommu_open(NULL, ...) makes. */
struct swiommu_options {
	struct swiommu_hooks hooks;
	/* Not NULL: the context answers IOMMU_TEST_CMD (see below). Borrowed; must outlive it. */
	struct swiommu_test_abi *test_abi;
	/*
	 * Where pinned memory is counted, against RLIMIT_MEMLOCK; to be shared by contexts that shall
	 * behave as one system. The context takes a reference. NULL: the context has its own.
	 */
	struct mem_accounts *accounts;
	/* Devices without an IOMMU can be bound: their DMA goes by physical addresses, which IOAS_NOIOMMU_GET_PA tells. */
	bool noiommu;
	/* See swiommu_allow_unsafe_interrupts(). */
	bool unsafe_interrupts;
	/* Where regions that the user can map lie, see below. Borrowed; must outlive it. NULL: in a file of its own. */
	struct swiommu_regions *regions;
};

/* As swiommu_open(). `options` is copied; NULL = none. -ENOMEM. */
int swiommu_open_with(const struct swiommu_options *options, struct iommufd_ctx **out);

/*
 * Whether devices of groups with unsafe_interrupts (driver.h) can be bound; at first as the options say. A line in the log
 * tells of each that is.
 */
void swiommu_allow_unsafe_interrupts(struct iommufd_ctx *ctx, bool allow);

int swiommu_accounts_create(struct mem_accounts **out); /* one reference; -ENOMEM */
void swiommu_accounts_put(struct mem_accounts *accounts);
/*
 * Whoever has a lower RLIMIT_MEMLOCK than `bytes` is treated as if that were the limit: what is pinned is a number here, so
 * that the host may be more generous than the kernel was. 0 at first. Any thread, at any time.
 */
void swiommu_accounts_set_memlock(struct mem_accounts *accounts, uint64_t bytes);
/*
 * What has been charged to process `pid`, in pages: what the kernel would show as VmPin, and as VmLck beyond what
 * the process has locked by itself. Zeroes if it has mapped nothing. -ESRCH: no such process.
 */
int swiommu_accounts_usage(struct mem_accounts *accounts, pid_t pid, uint64_t *pinned,
			   uint64_t *locked);

/*
 * The test ABI: IOMMU_TEST_CMD, as a kernel built for testing has it, with mock devices behind a mock
 * IOMMU. It lets the kernel's own iommufd selftests judge this engine. This is what all contexts that
 * shall behave as one system share: the numbers of mock devices.
 */
int swiommu_test_abi_create(struct swiommu_test_abi **out); /* -ENOMEM */
/* No context may use it any more. NULL is allowed. */
void swiommu_test_abi_destroy(struct swiommu_test_abi *abi);

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
	/*
	 * Who is charged for memory that the task maps: its process (thread group, in our pid namespace) and real user. -ESRCH.
	 * NULL: nobody is, and there are no limits.
	 */
	int (*get_account)(struct swiommu_caller *c, pid_t *process, uid_t *user);
	/*
	 * Puts a descriptor of ours (borrowed) into the task's table. flags: O_CLOEXEC, and SWIOMMU_FD_EVENTS if read
	 * and write on it are for swiommu_read() and _write(). Needed by callers that have `files`. -EMFILE: its
	 * table is full.
	 */
	int (*install_fd)(struct swiommu_caller *c, int fd, int flags, int *out_fd);
};

#define SWIOMMU_FD_EVENTS 0x40000000

struct swiommu_caller {
	const struct swiommu_caller_ops *ops;
	struct swiommu_files
		*files; /* the files that the engine has given out; NULL: it cannot give any */
	/*
	 * After a failed call: why, in one line of words ("" = nothing known beyond the errno). The
	 * engine clears it when a call begins.
	 */
	char reason[SWIOMMU_REASON_MAX];
	/*
	 * Accesses of the task to device pages that it maps PROT_NONE are caught and carried out one by one (by a helper
	 * inside of it): a VFIO device then lets it map all of its memory BARs, not only their shared pages.
	 */
	bool can_trap;
};

/*
 * Sets up a caller that stands for this process itself. Fd numbers of other contexts: -EBADFD. It has no
 * `files`; who wants ioctls that answer with a descriptor sets them afterwards.
 */
void swiommu_caller_local(struct swiommu_caller *c);

/* ---- files that the engine gives out ------------------------------------------------------------ */

/*
 * Some ioctls answer with a new file descriptor (an access of the test ABI, a fault queue). What the
 * task gets is one end of a socket pair; we keep the other. So a file is recognised through dup, fork
 * and SCM_RIGHTS by the socket's identity, and its last close is the hang-up of our end.
 *
 * A table of such files belongs to a world of tasks that can pass descriptors to each other: the
 * session of `swiommu run`, or this process. In an embedder that forks, the child holds copies of
 * both ends, and a file is released when those are gone too.
 */
struct swiommu_file;

struct swiommu_file_ops {
	const char *name; /* for messages */
	/* The last reference is gone. May block; no lock of ours is held. */
	void (*release)(struct swiommu_file *file);
	/*
	 * What read(2) and write(2) on the descriptor do, for the host to call when it learns of one: bytes, or a
	 * negative errno. Files with `read` can be polled (swiommu_file_signal()): for input while they are
	 * signalled, for output always if they have `write`, else never.
	 */
	ssize_t (*read)(struct swiommu_file *file, struct swiommu_caller *caller, uint64_t uptr,
			size_t count);
	ssize_t (*write)(struct swiommu_file *file, struct swiommu_caller *caller, uint64_t uptr,
			 size_t count);
};

/* To be embedded in what the file is. */
struct swiommu_file {
	const struct swiommu_file_ops *ops;
	unsigned int
		refs; /* counted by the functions below, atomically; not an _Atomic for C++'s sake */
	int signal_fd; /* our end of a file that can be polled; -1: not installed */
	struct swiommu_files *files; /* where it is installed; the engine's */
};

void swiommu_file_init(struct swiommu_file *file,
		       const struct swiommu_file_ops *ops); /* one reference */
void swiommu_file_get(struct swiommu_file *file);
void swiommu_file_put(struct swiommu_file *file);

struct swiommu_files;

int swiommu_files_create(struct swiommu_files **out); /* -ENOMEM, -EMFILE */
/* Releases what is still open. No call may be in progress. NULL is allowed. */
void swiommu_files_destroy(struct swiommu_files *files);
/*
 * Releases the files that have been closed by now, and returns when nobody is releasing one any more. Every
 * swiommu_ioctl() begins with it; a host that wants closed files to go at once also calls it when
 * swiommu_files_fd(), to be polled for input, becomes readable.
 */
void swiommu_files_sweep(struct swiommu_files *files);
int swiommu_files_fd(const struct swiommu_files *files);
bool swiommu_files_any(const struct swiommu_files *files); /* whether some file is open */

/*
 * Gives `file` to the caller: the new descriptor's number in *out_fd. Takes a reference of its own. -ENOMEM,
 * -EMFILE, -EOPNOTSUPP the caller has no table of files.
 */
int swiommu_file_install(struct swiommu_caller *caller, struct swiommu_file *file, int flags,
			 int *out_fd);
/*
 * The file behind the caller's descriptor, with a reference. -EBADF not open, -EBADFD not one of ours with
 * these ops (NULL: any).
 */
int swiommu_file_lookup(struct swiommu_caller *caller, int fd, const struct swiommu_file_ops *ops,
			struct swiommu_file **out);
/* The same by a duplicate of the descriptor that is ours. -EBADFD. */
int swiommu_files_find(struct swiommu_files *files, int fd, const struct swiommu_file_ops *ops,
		       struct swiommu_file **out);
/*
 * Whether there is something to read, for those who poll the descriptor. Calls on one file are serialised by the
 * caller. Nothing happens while it is not installed, or no descriptor can be had.
 */
void swiommu_file_signal(struct swiommu_file *file, bool readable);
/* To be called by `release` of a file with `read`, serialised with signalling: nobody polls it any more. */
void swiommu_file_unsignal(struct swiommu_file *file);
/*
 * read(2) and write(2) on a descriptor that the engine gave out, for a host whose tasks call them; the plain
 * system calls do not do what the kernel's files of this kind do. -EBADFD: not one of ours, to be left to the kernel.
 */
ssize_t swiommu_read(struct swiommu_caller *caller, int fd, uint64_t uptr, size_t count);
ssize_t swiommu_write(struct swiommu_caller *caller, int fd, uint64_t uptr, size_t count);

/* ---- regions that can be mapped ------------------------------------------------------------------ */

/*
 * Drivers' memory that IOMMU_VIOMMU_ALLOC offers for mapping lies in a file, at the offsets that it tells. Contexts that
 * share a table share that file. `fd`, open for reading and writing, is that file (duplicated); -1: a new one. -ENOMEM.
 */
struct swiommu_regions;
int swiommu_regions_create(int fd, struct swiommu_regions **out);
void swiommu_regions_destroy(
	struct swiommu_regions *regions); /* no context uses it any more; NULL is allowed */
/*
 * mmap(2) on the context's file: whether it may be done. 0, and then the host maps `length` bytes at `offset` of *out_fd
 * (borrowed; NULL: it knows the file) for the caller, in a moment; -EINVAL not MAP_SHARED, -EPERM PROT_EXEC, -ENXIO not
 * exactly a region. A region that is mapped, by any process that /proc shows, keeps its vIOMMU busy and the context open.
 */
int swiommu_mmap(struct iommufd_ctx *ctx, struct swiommu_caller *caller, uint64_t length, int prot,
		 int flags, uint64_t offset, int *out_fd);
/* Lets go of what is mapped no more. NULL is allowed. Takes time with all mappings of all processes if there are regions. */
void swiommu_regions_settle(struct swiommu_regions *regions);

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
