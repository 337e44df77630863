// SPDX-License-Identifier: MIT
/*
 * The caller that is this process itself: pointers are ours, file descriptors are ours.
 *
 * A pointer in an ioctl may be bad, and then the answer is EFAULT as in the kernel: copies go through
 * process_vm_readv and _writev on the own process, which check where memcpy would crash.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "mem/owner.h"
#include <swiommu/swiommu.h>

static int move(uint64_t remote, void *local, size_t len, bool write)
{
	struct iovec liov = {local, len};
	struct iovec riov = {(void *)(uintptr_t)remote, len};
	ssize_t n;

	if (!len)
		return 0;
	n = write ? process_vm_writev(getpid(), &liov, 1, &riov, 1, 0)
		  : process_vm_readv(getpid(), &liov, 1, &riov, 1, 0);
	return n >= 0 && (size_t)n == len ? 0 : -EFAULT;
}

static int local_copy_in(struct swiommu_caller *c, void *dst, uint64_t uptr, size_t len)
{
	(void)c;
	return move(uptr, dst, len, false);
}

static int local_copy_out(struct swiommu_caller *c, uint64_t uptr, const void *src, size_t len)
{
	(void)c;
	return move(uptr, (void *)src, len, true);
}

static int local_get_fd(struct swiommu_caller *c, int fd, int *out_fd)
{
	int flags = fcntl(fd, F_GETFL);
	int copy;

	(void)c;
	if (flags < 0 || flags & O_PATH)
		return -EBADF;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0)
		return -errno;
	*out_fd = copy;
	return 0;
}

static int local_get_ctx(struct swiommu_caller *c, int fd, struct iommufd_ctx **out)
{
	(void)c;
	(void)out;
	return fcntl(fd, F_GETFD) < 0 ? -EBADF : -EBADFD;
}

static int local_get_memory(struct swiommu_caller *c, struct mem_owner **out)
{
	(void)c;
	return mem_owner_local(out);
}

static bool local_capable(struct swiommu_caller *c, int cap)
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	(void)c;
	if (syscall(SYS_capget, &head, data))
		return false;
	return data[CAP_TO_INDEX(cap)].effective & CAP_TO_MASK(cap);
}

static int local_get_account(struct swiommu_caller *c, pid_t *process, uid_t *user)
{
	(void)c;
	*process = getpid();
	*user = getuid();
	return 0;
}

static int local_install_fd(struct swiommu_caller *c, int fd, int flags, int *out_fd)
{
	int copy = fcntl(fd, flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);

	(void)c;
	if (copy < 0)
		return errno == EMFILE ? -EMFILE : -errno;
	*out_fd = copy;
	return 0;
}

void swiommu_caller_local(struct swiommu_caller *c)
{
	static const struct swiommu_caller_ops ops = {
		.copy_in = local_copy_in,
		.copy_out = local_copy_out,
		.get_fd = local_get_fd,
		.get_ctx = local_get_ctx,
		.get_memory = local_get_memory,
		.capable = local_capable,
		.get_account = local_get_account,
		.install_fd = local_install_fd,
	};

	c->ops = &ops;
	c->files = NULL;
	c->reason[0] = '\0';
	c->can_trap = false;
}
