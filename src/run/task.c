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
#include "run/filter.h"
#include "run/groups.h"
#include "run/helper.h"

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif

static struct task *task_of(struct swiommu_caller *c)
{
	return container_of(c, struct task, caller);
}

bool task_valid(struct task *t)
{
	if (t->ring)
		return ring_process_alive(t->ring);
	return !ioctl(t->session->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &t->notif_id);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static bool read_memory(struct task *t, void *dst, uint64_t from, size_t len, size_t *got)
{
	struct iovec liov = {dst, len};
	struct iovec riov = {(void *)(uintptr_t)from, len};
	ssize_t n = process_vm_readv(t->tid, &liov, 1, &riov, 1, 0);

	*got = n < 0 ? 0 : n;
	return *got && task_valid(t);
}

/*
 * Most calls read a struct in two or three pieces: its size, its old part, the rest. The first
 * piece brings the others along, as far as they are in the same page (touching another one might
 * block or fail).
 */
static bool read_ahead(struct task *t, uint64_t from, size_t len)
{
	uint64_t page_left = -from & 4095;

	if (from - t->ahead_at < t->ahead_len && len <= t->ahead_len - (from - t->ahead_at))
		return true;
	t->ahead_len = 0;
	if (!page_left)
		page_left = 4096;
	if (len > SWI_MIN(page_left, sizeof(t->ahead)))
		return false;
	t->ahead_at = from;
	if (!read_memory(t, t->ahead, from, SWI_MIN(page_left, sizeof(t->ahead)), &t->ahead_len))
		t->ahead_len = 0;
	return len <= t->ahead_len;
}

static int task_copy_in(struct swiommu_caller *c, void *dst, uint64_t uptr, size_t len)
{
	struct task *t = task_of(c);
	size_t got;

	if (!len)
		return 0;
	if (read_ahead(t, uptr, len)) {
		memcpy(dst, t->ahead + (uptr - t->ahead_at), len);
		return 0;
	}
	return read_memory(t, dst, uptr, len, &got) && got == len ? 0 : -EFAULT;
}

static int task_copy_out(struct swiommu_caller *c, uint64_t uptr, const void *src, size_t len)
{
	struct task *t = task_of(c);
	struct iovec liov = {(void *)src, len};
	struct iovec riov = {(void *)(uintptr_t)uptr, len};
	ssize_t n;

	if (!len)
		return 0;
	t->ahead_len = 0;
	if (!task_valid(t))
		return -EFAULT;
	n = process_vm_writev(t->tid, &liov, 1, &riov, 1, 0);
	return n >= 0 && (size_t)n == len ? 0 : -EFAULT;
}

static int task_get_memory(struct swiommu_caller *c, struct mem_owner **out)
{
	struct task *t = task_of(c);
	struct mem_owner *owner = NULL;
	int rc = mem_owner_process(t->tid, &owner, (struct swi_reason *)c->reason);

	if (rc)
		return rc;
	mem_owner_process_set_files(owner, shares_open, t->session->shares);
	mem_owner_process_set_devices(owner, groups_is_device, t->session);
	/* Callers may put what they find in *out after a failure. */
	if (!task_valid(t)) {
		mem_owner_put(owner);
		return -ESRCH;
	}
	*out = owner;
	return 0;
}

/* ---- descriptors ----------------------------------------------------------------------------- */

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

/* *keep: it is the thread's own. Before Linux 6.9 only processes have handles; threads nearly
 * always share descriptors. */
static int open_handle(pid_t tid, bool *keep)
{
	unsigned long long tgid;
	int fd = syscall(SYS_pidfd_open, tid, PIDFD_THREAD);

	*keep = fd >= 0;
	if (fd >= 0 || errno != EINVAL)
		return fd < 0 ? -errno : fd;
	if (status_field(tid, "\nTgid:", 10, &tgid))
		return -ESRCH;
	fd = syscall(SYS_pidfd_open, (pid_t)tgid, 0);
	return fd < 0 ? -errno : fd;
}

static void remember(struct task_cache *cache, pid_t tid, int pidfd)
{
	unsigned int i;

	for (i = 0; i < TASK_HANDLES; i++)
		if (cache->handles[i].tid == tid)
			break;
	if (i == TASK_HANDLES)
		i = cache->next++ % TASK_HANDLES;
	if (cache->handles[i].tid)
		close(cache->handles[i].pidfd);
	cache->handles[i].tid = tid;
	cache->handles[i].pidfd = pidfd;
}

static int get_fd_anew(struct task *t, int fd)
{
	bool keep;
	int copy, pidfd = open_handle(t->tid, &keep);

	if (pidfd < 0)
		return pidfd;
	/* The thread was there all the time, so the handle is its own. */
	if (!task_valid(t)) {
		close(pidfd);
		return -ESRCH;
	}
	copy = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	if (copy < 0)
		copy = -errno;
	if (keep)
		remember(t->cache, t->tid, pidfd);
	else
		close(pidfd);
	return copy;
}

static int get_fd(struct task *t, int fd)
{
	int copy;

	for (unsigned int i = 0; i < TASK_HANDLES; i++) {
		if (t->cache->handles[i].tid != t->tid)
			continue;
		copy = syscall(SYS_pidfd_getfd, t->cache->handles[i].pidfd, fd, 0);
		if (copy >= 0)
			return copy;
		if (errno != ESRCH) /* else the id has passed to another thread */
			return -errno;
	}
	return get_fd_anew(t, fd);
}

int task_dup_fd(struct task *t, int fd)
{
	int copy = get_fd(t, fd);

	if (copy >= 0 && fcntl(copy, F_GETFL) & O_PATH) {
		close(copy);
		return -EBADF;
	}
	return copy;
}

void task_cache_clear(struct task_cache *cache)
{
	for (unsigned int i = 0; i < TASK_HANDLES; i++)
		if (cache->handles[i].tid)
			close(cache->handles[i].pidfd);
	memset(cache, 0, sizeof(*cache));
}

static int task_get_fd(struct swiommu_caller *c, int fd, int *out_fd)
{
	int copy = task_dup_fd(task_of(c), fd);

	if (copy < 0)
		return copy;
	*out_fd = copy;
	return 0;
}

static bool number_is_free(pid_t tid, int number)
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)tid, number);
	return access(path, F_OK) && errno == ENOENT;
}

/* Another thread could take the same number in this moment only by asking for it. */
int task_add_trapped_fd(struct task *t, int fd, int from, bool cloexec, int *out_fd)
{
	struct seccomp_notif_addfd add = {
		.id = t->notif_id,
		.flags = SECCOMP_ADDFD_FLAG_SETFD,
		.srcfd = fd,
		.newfd_flags = cloexec ? O_CLOEXEC : 0,
	};
	int i = SWI_MAX(from, FILTER_EVENT_FDS);

	while (i < FILTER_EVENT_FDS_END && !number_is_free(t->tid, i))
		i++;
	if (i >= FILTER_EVENT_FDS_END)
		return -EMFILE;
	add.newfd = i;
	*out_fd = ioctl(t->session->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add);
	return *out_fd < 0 ? -EMFILE : 0;
}

static int task_install_fd(struct swiommu_caller *c, int fd, int flags, int *out_fd)
{
	struct task *t = task_of(c);
	struct seccomp_notif_addfd add = {
		.id = t->notif_id,
		.srcfd = fd,
		.newfd_flags = flags & O_CLOEXEC,
	};
	int number = -1;

	/* If none is free, no matter: then it can be polled, but not read. With --test-abi any will do. */
	if (flags & SWIOMMU_FD_EVENTS && !t->session->testabi)
		task_add_trapped_fd(t, fd, 0, flags & O_CLOEXEC, &number);
	if (number < 0)
		number = ioctl(t->session->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add);
	if (number < 0)
		return errno == ENOENT || errno == EINPROGRESS ? -ESRCH : -errno;
	*out_fd = number;
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
	rc = files_get(t->session->files, copy, t, &file);
	close(copy);
	if (rc)
		return rc == -ENODEV ? -EBADFD : rc;
	rc = open_file_ctx(file, out);
	open_file_put(file);
	return rc;
}

/* ---- privileges ------------------------------------------------------------------------------ */

/* Capabilities count only in the initial user namespace; ours stands for it. */
static bool same_user_ns(pid_t tid)
{
	struct stat ours, theirs;
	char path[40];

	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)tid);
	return !stat("/proc/self/ns/user", &ours) && !stat(path, &theirs) &&
	       ours.st_ino == theirs.st_ino;
}

bool task_capable(struct swiommu_caller *c, int cap)
{
	struct task *t = task_of(c);
	unsigned long long eff;

	if (t->session->unprivileged || status_field(t->tid, "\nCapEff:", 16, &eff))
		return false;
	return (eff >> cap & 1) && same_user_ns(t->tid) && task_valid(t);
}

int task_get_account(struct swiommu_caller *c, pid_t *process, uid_t *user)
{
	struct task *t = task_of(c);
	unsigned long long tgid, uid;

	if (status_field(t->tid, "\nTgid:", 10, &tgid) ||
	    status_field(t->tid, "\nUid:", 10, &uid) || !task_valid(t))
		return -ESRCH;
	*process = (pid_t)tgid;
	*user = (uid_t)uid; /* the first of four: the real one */
	return 0;
}

void task_init(struct task *t, struct session *s, struct task_cache *cache, pid_t tid,
	       uint64_t notif_id)
{
	static const struct swiommu_caller_ops ops = {
		.copy_in = task_copy_in,
		.copy_out = task_copy_out,
		.get_fd = task_get_fd,
		.get_ctx = task_get_ctx,
		.get_memory = task_get_memory,
		.capable = task_capable,
		.get_account = task_get_account,
		.install_fd = task_install_fd,
	};

	t->caller = (struct swiommu_caller){.ops = &ops, .files = s->given};
	t->session = s;
	t->cache = cache;
	t->tid = tid;
	t->notif_id = notif_id;
	t->ring = NULL;
	t->ahead_len = 0;
}
