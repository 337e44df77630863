// SPDX-License-Identifier: MIT
/*
 * One trapped system call: from the numbers in the notification to the engine or the device, and
 * back.
 *
 * A call on a descriptor that is not ours is told to continue as if nothing had been. That decision
 * rests on the descriptor at that moment; if another thread of the program swaps it meanwhile, the
 * kernel performs the call on whatever is there, which can harm only the program itself.
 */
#include "run/dispatch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "run/calls.h"
#include "run/files.h"
#include "run/groups.h"
#include "run/helper.h"
#include "run/identity.h"
#include "run/names.h"
#include "run/task.h"
#include "run/testabi.h"

/* What a handler returns for "let the kernel do it". Not an errno, and not a possible result. */
#define CONTINUE TESTABI_CONTINUE

static void explain(struct session *s, struct task *t, const struct node *node, const char *what,
		    ull number, long rc)
{
	if (!s->explain || rc >= 0 || t->ring) /* who comes by a ring comes again */
		return;
	session_say(s, "pid %d: %s %#llx on %s: %s%s%s", (int)t->tid, what, number, node->path,
		    strerrorname_np(-rc), t->caller.reason[0] ? ": " : "", t->caller.reason);
}

static void explain_ioctl(struct session *s, struct task *t, const struct node *node,
			  unsigned int cmd, long rc)
{
	const char *name = ioctl_name(node->kind, cmd), *why = t->caller.reason;
	size_t len = name ? strlen(name) : 0;

	if (!s->explain || rc >= 0 || t->ring)
		return;
	if (!name) {
		explain(s, t, node, "ioctl", cmd, rc);
		return;
	}
	/* Many reasons begin with the name. */
	if (!strncmp(why, name, len) && !strncmp(why + len, ": ", 2))
		why += len + 2;
	session_say(s, "pid %d: %s on %s: %s%s%s", (int)t->tid, name, node->path,
		    strerrorname_np(-rc), why[0] ? ": " : "", why);
}

/* ---- handlers -------------------------------------------------------------------------------- */

static long on_ioctl(struct session *s, struct task *t, struct open_file *file, const __u64 *args)
{
	const struct node *node = open_file_node(file);
	unsigned int cmd = args[1];
	long rc;

	/* A device that the program has just closed must not look busy, nor keep an IOAS busy. */
	if (!t->ring)
		files_settle(s->files);
	if (node->kind == NODE_IOMMU) {
		struct iommufd_ctx *ctx;

		rc = open_file_ctx(file, &ctx);
		if (rc)
			return rc;
		testabi_begin(s->testabi, t->tid);
		rc = swiommu_ioctl(ctx, &t->caller, cmd, args[2]);
		testabi_end(s->testabi, t->tid);
		swiommu_close(ctx);
	} else if (node->kind == NODE_VFIO_CONTAINER) {
		rc = vfio_container_ioctl(open_file_container(file), &t->caller, cmd, args[2]);
	} else if (node->kind == NODE_VFIO_GROUP) {
		rc = groups_ioctl(t, file, cmd, args[2]);
	} else {
		rc = vfio_file_ioctl(open_file_vfio(file), &t->caller, cmd, args[2]);
	}
	explain_ioctl(s, t, node, cmd, rc);
	return rc;
}

static ssize_t transfer(struct task *t, struct open_file *file, bool write, uint64_t buf,
			uint64_t count, uint64_t pos)
{
	struct vfio_file *vfio = open_file_vfio(file);

	/* As the kernel: no transfer moves more than this. */
	count = SWI_MIN(count, 0x7ffff000ull);
	if (!vfio)
		return swi_fail((struct swi_reason *)t->caller.reason, -EINVAL,
				"%s is for ioctls: it cannot be read or written",
				open_file_node(file)->path);
	/* By system call or ring, which know nothing of it. */
	if (write && open_file_read_only(file))
		return swi_fail((struct swi_reason *)t->caller.reason, -EBADF,
				"the file was opened for reading only");
	return write ? vfio_file_pwrite(vfio, &t->caller, buf, count, pos)
		     : vfio_file_pread(vfio, &t->caller, buf, count, pos);
}

static long on_transfer(struct session *s, struct task *t, struct open_file *file, bool write,
			const __u64 *args)
{
	ssize_t rc;

	if ((int64_t)args[3] < 0)
		return -EINVAL;
	rc = transfer(t, file, write, args[1], args[2], args[3]);
	explain(s, t, open_file_node(file), write ? "pwrite at" : "pread at", args[3], rc);
	return rc;
}

static long on_vector(struct session *s, struct task *t, struct open_file *file, bool write,
		      const __u64 *args)
{
	uint64_t count = args[2], pos = args[3];
	long done = 0, rc = 0;
	struct {
		uint64_t base, len;
	} iov;

	if (count > 1024 || (int64_t)pos < 0)
		return -EINVAL;
	for (uint64_t i = 0; i < count; i++) {
		rc = t->caller.ops->copy_in(&t->caller, &iov, args[1] + i * sizeof(iov),
					    sizeof(iov));
		if (!rc)
			rc = transfer(t, file, write, iov.base, iov.len, pos + done);
		if (rc < 0)
			break;
		done += rc;
		if ((uint64_t)rc < iov.len)
			break;
	}
	rc = done ? done : rc;
	explain(s, t, open_file_node(file), write ? "pwritev at" : "preadv at", pos, rc);
	return rc;
}

static long on_mmap(struct session *s, struct task *t, struct open_file *file, const __u64 *args)
{
	struct vfio_file *vfio = open_file_vfio(file);
	struct iommufd_ctx *ctx;
	long rc;

	if (open_file_read_only(file)) {
		/* Writable ones are the kernel's to refuse (EACCES); the others count as private. */
		if ((args[2] & PROT_WRITE) && (args[3] & MAP_SHARED))
			return CONTINUE;
		rc = swi_fail((struct swi_reason *)t->caller.reason, -EINVAL,
			      "the file was opened for reading only");
	} else if (vfio) {
		rc = vfio_file_mmap(vfio, &t->caller, args[1], args[2], args[3], args[5]);
		if (rc)
			helper_tell_missing(s, t, open_file_node(file), args[5]);
	} else if (open_file_ctx(file, &ctx)) {
		rc = swi_fail((struct swi_reason *)t->caller.reason, -ENODEV,
			      "groups and containers cannot be mapped");
	} else {
		/* Regions lie in the file that the program has opened: the kernel maps them. */
		rc = swiommu_mmap(ctx, &t->caller, args[1], args[2], args[3], args[5], NULL);
		swiommu_close(ctx);
	}
	explain(s, t, open_file_node(file), "mmap at", args[5], rc);
	return rc ? rc : CONTINUE;
}

/* One read or write of a file that the engine gave out, or of several pieces, as if one by one. */
static long on_event_file(struct task *t, struct swiommu_file *file, bool write, bool vector,
			  const __u64 *args)
{
	ssize_t (*move)(struct swiommu_file *, struct swiommu_caller *, uint64_t, size_t) =
		write ? file->ops->write : file->ops->read;
	struct {
		uint64_t base, len;
	} iov;
	long done = 0, rc = 0;

	if (!move)
		return -EINVAL;
	if (!vector)
		return move(file, &t->caller, args[1], SWI_MIN(args[2], 0x7ffff000ull));
	if (args[2] > 1024)
		return -EINVAL;
	for (uint64_t i = 0; i < args[2]; i++) {
		rc = t->caller.ops->copy_in(&t->caller, &iov, args[1] + i * sizeof(iov),
					    sizeof(iov));
		if (!rc)
			rc = move(file, &t->caller, iov.base, SWI_MIN(iov.len, 0x7ffff000ull));
		if (rc < 0)
			break;
		done += rc;
		if ((uint64_t)rc < iov.len)
			break;
	}
	return done ? done : rc;
}

/* The file that the engine gave out as this descriptor of the task's, and a copy of that; false: it is none. */
static bool get_given(struct session *s, struct task *t, int number, struct swiommu_file **file,
		      int *copy)
{
	if (!swiommu_files_any(s->given))
		return false;
	*copy = task_dup_fd(t, number);
	if (*copy < 0)
		return false;
	if (!swiommu_files_find(s->given, *copy, NULL, file))
		return true;
	close(*copy);
	return false;
}

/* read and write without a position: for files that the engine gave out; others are let through. */
static long on_stream(struct session *s, struct task *t, const struct seccomp_data *data)
{
	bool write = data->nr == SYS_write || data->nr == SYS_writev;
	struct swiommu_file *file;
	long rc;
	int fd;

	if (!get_given(s, t, data->args[0], &file, &fd))
		return CONTINUE;
	close(fd);
	testabi_begin(s->testabi, t->tid);
	rc = on_event_file(t, file, write, data->nr == SYS_readv || data->nr == SYS_writev,
			   data->args);
	testabi_end(s->testabi, t->tid);
	swiommu_file_put(file);
	return rc;
}

/*
 * Calls about a descriptor itself. A copy of an event file goes where its reads are trapped too, if there is room; and
 * event files are open for both directions, whatever the pipe behind them is.
 */
static long on_number(struct session *s, struct task *t, const struct seccomp_data *data)
{
	unsigned int cmd = data->nr == SYS_dup ? F_DUPFD : data->args[1];
	int from = data->nr == SYS_dup ? 0 : (int)data->args[2];
	struct swiommu_file *file;
	long rc = CONTINUE;
	int fd, number;

	if (!get_given(s, t, data->args[0], &file, &fd))
		return CONTINUE;
	if (!file->ops->read)
		rc = CONTINUE;
	else if (cmd == F_GETFL)
		rc = (fcntl(fd, F_GETFL) & (O_APPEND | O_ASYNC | O_NONBLOCK)) | O_RDWR;
	else if (from >= 0 && !task_add_trapped_fd(t, fd, from, cmd == F_DUPFD_CLOEXEC, &number))
		rc = number;
	close(fd);
	swiommu_file_put(file);
	return rc;
}

static bool is_number_call(int nr)
{
	return nr == SYS_dup || nr == SYS_fcntl;
}

static bool is_stream_call(int nr)
{
	return nr == SYS_read || nr == SYS_write || nr == SYS_readv || nr == SYS_writev;
}

long dispatch_file(struct session *s, struct task *t, struct open_file *file,
		   const struct seccomp_data *data)
{
	switch (data->nr) {
	case SYS_ioctl:
		return on_ioctl(s, t, file, data->args);
	case SYS_pread64:
		return on_transfer(s, t, file, false, data->args);
	case SYS_pwrite64:
		return on_transfer(s, t, file, true, data->args);
	case SYS_preadv:
	case SYS_preadv2:
		return on_vector(s, t, file, false, data->args);
	case SYS_pwritev:
	case SYS_pwritev2:
		return on_vector(s, t, file, true, data->args);
	case SYS_mmap:
		return on_mmap(s, t, file, data->args);
	default:
		return CONTINUE;
	}
}

/* Calls that look at their position before they look at the descriptor. */
static bool position_first(const struct seccomp_data *data)
{
	return data->nr != SYS_ioctl && data->nr != SYS_mmap && (int64_t)data->args[3] < 0;
}

static bool is_open_call(int nr)
{
#ifdef SYS_open
	if (nr == SYS_open)
		return true;
#endif
	return nr == SYS_openat;
}

static long serve(struct session *s, struct task *t, struct call *call,
		  const struct seccomp_data *data)
{
	int number = data->nr == SYS_mmap ? (int)data->args[4] : (int)data->args[0];
	struct open_file *file;
	int fd, rc;
	long ret;

	t->caller.can_trap = helper_made(data);
	if (number == -1 && helper_is_own_call(data))
		return helper_call(s, t, call, NULL, data);
	if (is_open_call(data->nr)) {
		ret = groups_open(t, data);
		return ret == CONTINUE && s->testabi ? testabi_open(s->testabi, t, data) : ret;
	}
	if (identity_is_call(data->nr)) {
		ret = identity_serve(s, t, data);
		return ret == 1 ? CONTINUE : ret;
	}
	if (is_stream_call(data->nr))
		return on_stream(s, t, data);
	if (is_number_call(data->nr))
		return on_number(s, t, data);
	fd = task_dup_fd(t, number);
	/* Said here: when the kernel looks, another thread may have put one of our files in its place. */
	if (fd == -EBADF && !position_first(data))
		return -EBADF;
	if (fd < 0)
		return CONTINUE;
	rc = files_get(s->files, fd, t, &file);
	ret = CONTINUE;
	if (rc == -ENODEV && s->testabi && data->nr == SYS_pwrite64)
		ret = testabi_pwrite(s->testabi, t, fd, data);
	close(fd);
	if (rc == -ENODEV)
		return ret;
	if (rc && s->explain && t->caller.reason[0])
		session_say(s, "pid %d: first use of a file: %s: %s", (int)t->tid,
			    strerrorname_np(-rc), t->caller.reason);
	if (rc)
		return rc;
	if (!call_proceed(s->calls, call, file))
		ret = -ESRCH;
	else if (helper_is_own_call(data))
		ret = helper_call(s, t, call, file, data);
	else
		ret = dispatch_file(s, t, file, data);
	open_file_put(file);
	return ret;
}

void dispatch(struct session *s, struct task_cache *cache, const struct seccomp_notif *req,
	      struct seccomp_notif_resp *resp)
{
	struct task task;
	struct call call;
	long rc;

	task_init(&task, s, cache, req->pid, req->id);
	call_begin(s->calls, &call, &task);
	rc = serve(s, &task, &call, &req->data);
	call_end(s->calls, &call);
	if (helper_made(&req->data))
		rings_hint(s->rings, helper_ring_of(req->data.args[0]));
	memset(resp, 0, sizeof(*resp));
	resp->id = req->id;
	if (rc == CONTINUE)
		resp->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	else if (rc < 0)
		resp->error = rc;
	else
		resp->val = rc;
}
