// SPDX-License-Identifier: MIT
/* Reaching into the thread that waits for an answer: memory, descriptors, privileges. */
#include "run/task.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "mem/owner.h"
#include "run/files.h"

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif

static struct task *task_of(struct swiommu_caller *c)
{
	return container_of(c, struct task, caller);
}

bool task_valid(struct task *t)
{
	return !ioctl(t->session->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &t->notif_id);
}

/* ---- memory --------------------------------------------------------------------------------------- */

static int move(struct task *t, uint64_t remote, void *local, size_t len, bool write)
{
	struct iovec liov = {local, len};
	struct iovec riov = {(void *)(uintptr_t)remote, len};
	ssize_t n;

	if (!len)
		return 0;
	if (write && !task_valid(t))
		return -EFAULT;
	n = write ? process_vm_writev(t->tid, &liov, 1, &riov, 1, 0)
		  : process_vm_readv(t->tid, &liov, 1, &riov, 1, 0);
	if (n < 0 || (size_t)n != len)
		return -EFAULT;
	return write || task_valid(t) ? 0 : -EFAULT;
}

static int task_copy_in(struct swiommu_caller *c, void *dst, uint64_t uptr, size_t len)
{
	return move(task_of(c), uptr, dst, len, false);
}

static int task_copy_out(struct swiommu_caller *c, uint64_t uptr, const void *src, size_t len)
{
	return move(task_of(c), uptr, (void *)src, len, true);
}

static int task_get_memory(struct swiommu_caller *c, struct mem_owner **out)
{
	struct task *t = task_of(c);
	int rc = mem_owner_process(t->tid, out, (struct swi_reason *)c->reason);

	if (rc)
		return rc;
	if (task_valid(t))
		return 0;
	mem_owner_put(*out);
	return -ESRCH;
}

/* ---- descriptors ---------------------------------------------------------------------------------- */

/* The value of a "Key:\t123" line of /proc/TID/status. */
static int status_field(pid_t tid, const char *key, int base, unsigned long long *out)
{
	char path[40], buf[4096], *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return -ESRCH;
	buf[n] = '\0';
	at = strstr(buf, key);
	if (!at)
		return -ENOENT;
	*out = strtoull(at + strlen(key), NULL, base);
	return 0;
}

static int open_pidfd(pid_t tid)
{
	unsigned long long tgid;
	int fd = syscall(SYS_pidfd_open, tid, PIDFD_THREAD);

	if (fd >= 0 || errno != EINVAL)
		return fd < 0 ? -errno : fd;
	/* Before Linux 6.9 only processes have pidfds; threads nearly always share descriptors. */
	if (status_field(tid, "\nTgid:", 10, &tgid))
		return -ESRCH;
	fd = syscall(SYS_pidfd_open, (pid_t)tgid, 0);
	return fd < 0 ? -errno : fd;
}

static int task_pidfd(struct task *t)
{
	int fd;

	if (t->pidfd >= 0)
		return t->pidfd;
	fd = open_pidfd(t->tid);
	if (fd < 0)
		return fd;
	if (!task_valid(t)) {
		close(fd);
		return -ESRCH;
	}
	t->pidfd = fd;
	return fd;
}

int task_dup_fd(struct task *t, int fd)
{
	int pidfd = task_pidfd(t);
	int copy;

	if (pidfd < 0)
		return pidfd;
	copy = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	if (copy < 0)
		return -errno;
	if (fcntl(copy, F_GETFL) & O_PATH) {
		close(copy);
		return -EBADF;
	}
	return copy;
}

static int task_get_fd(struct swiommu_caller *c, int fd, int *out_fd)
{
	int copy = task_dup_fd(task_of(c), fd);

	if (copy < 0)
		return copy;
	*out_fd = copy;
	return 0;
}

static int task_get_ctx(struct swiommu_caller *c, int fd, struct iommufd_ctx **out)
{
	struct task *t = task_of(c);
	struct open_file *file;
	int copy, rc;

	copy = task_dup_fd(t, fd);
	if (copy < 0)
		return copy;
	rc = files_get(t->session->files, copy, t->tid, &file);
	close(copy);
	if (rc)
		return rc == -ENODEV ? -EBADFD : rc;
	rc = open_file_ctx(file, out);
	open_file_put(file);
	return rc;
}

/* ---- privileges ----------------------------------------------------------------------------------- */

/* Capabilities count only in the initial user namespace; ours stands for it. */
static bool same_user_ns(pid_t tid)
{
	struct stat ours, theirs;
	char path[40];

	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)tid);
	return !stat("/proc/self/ns/user", &ours) && !stat(path, &theirs) && ours.st_ino == theirs.st_ino;
}

static bool task_capable(struct swiommu_caller *c, int cap)
{
	struct task *t = task_of(c);
	unsigned long long eff;

	if (t->session->unprivileged || status_field(t->tid, "\nCapEff:", 16, &eff))
		return false;
	return (eff >> cap & 1) && same_user_ns(t->tid) && task_valid(t);
}

void task_init(struct task *t, struct session *s, pid_t tid, uint64_t notif_id)
{
	static const struct swiommu_caller_ops ops = {
		.copy_in = task_copy_in,
		.copy_out = task_copy_out,
		.get_fd = task_get_fd,
		.get_ctx = task_get_ctx,
		.get_memory = task_get_memory,
		.capable = task_capable,
	};

	t->caller.ops = &ops;
	t->caller.reason[0] = '\0';
	t->session = s;
	t->tid = tid;
	t->pidfd = -1;
	t->notif_id = notif_id;
}

void task_fini(struct task *t)
{
	if (t->pidfd >= 0)
		close(t->pidfd);
}
