// SPDX-License-Identifier: MIT
/*
 * What stat says of our nodes. They are regular files, because nobody but the kernel can make
 * character devices that open; programs that check what they have opened (QEMU compares st_rdev with
 * sysfs) must see character devices of the right number.
 *
 * These are hot calls of every program, and nearly all of them are about other files, so that a trap
 * must be rare and its "not ours" cheap:
 *
 *   by descriptor   (fstat, and newfstatat and statx with AT_EMPTY_PATH) are always trapped, but for
 *                   descriptors 0 to 2. One stat of /proc/TID/fd/N in this process decides
 *   by path         only when asked for (--stat-paths): the filter cannot see paths, so that each
 *                   stat of any file would pay. Without it they show the regular file
 *
 * The answer is the kernel's own for the placeholder, with type, number and size changed.
 */
#include "run/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define CONTINUE 1

/* A call of the family, brought to one form. */
struct query {
	int dirfd;
	uint64_t path; /* in the program; 0: none */
	uint64_t out;
	int flags;
	bool statx;
	unsigned int mask; /* of statx */
};

bool identity_is_call(int nr)
{
	switch (nr) {
#ifdef SYS_stat
	case SYS_stat:
	case SYS_lstat:
#endif
	case SYS_fstat:
	case SYS_newfstatat:
	case SYS_statx:
		return true;
	default:
		return false;
	}
}

static struct query decode(const struct seccomp_data *data)
{
	const __u64 *a = data->args;
	struct query q = {.dirfd = AT_FDCWD, .path = a[0], .out = a[1]};

	switch (data->nr) {
#ifdef SYS_stat
	case SYS_stat:
		break;
	case SYS_lstat:
		q.flags = AT_SYMLINK_NOFOLLOW;
		break;
#endif
	case SYS_fstat:
		q.dirfd = a[0];
		q.path = 0;
		q.flags = AT_EMPTY_PATH;
		break;
	case SYS_newfstatat:
		q.dirfd = a[0];
		q.path = a[1];
		q.out = a[2];
		q.flags = a[3];
		break;
	case SYS_statx:
		q.dirfd = a[0];
		q.path = a[1];
		q.flags = a[2];
		q.mask = a[3];
		q.out = a[4];
		q.statx = true;
		break;
	}
	return q;
}

static const struct node *find_node(const struct session *s, const struct stat *st)
{
	for (size_t i = 0; i < s->nr_nodes; i++)
		if (s->nodes[i].st_ino == st->st_ino && s->nodes[i].st_dev == st->st_dev)
			return &s->nodes[i];
	return NULL;
}

/* ---- answers --------------------------------------------------------------------------------- */

static long answer_stat(struct task *t, const struct query *q, const struct node *node,
			struct stat *st)
{
	st->st_mode = S_IFCHR | (st->st_mode & 07777);
	st->st_rdev = node->rdev;
	st->st_size = 0;
	st->st_blocks = 0;
	return t->caller.ops->copy_out(&t->caller, q->out, st, sizeof(*st));
}

static long answer_statx(struct task *t, const struct query *q, const struct node *node)
{
	struct statx stx;

	/* The node's own open file: the name may have been removed meanwhile. */
	if (statx(node->fd, "", AT_EMPTY_PATH | (q->flags & AT_STATX_SYNC_TYPE), q->mask, &stx))
		return -errno;
	stx.stx_mode = S_IFCHR | (stx.stx_mode & 07777);
	stx.stx_rdev_major = major(node->rdev);
	stx.stx_rdev_minor = minor(node->rdev);
	stx.stx_size = 0;
	stx.stx_blocks = 0;
	return t->caller.ops->copy_out(&t->caller, q->out, &stx, sizeof(stx));
}

static long answer(struct session *s, struct task *t, const struct query *q, struct stat *st)
{
	const struct node *node = find_node(s, st);

	if (!node)
		return CONTINUE;
	return q->statx ? answer_statx(t, q, node) : answer_stat(t, q, node, st);
}

/* ---- by descriptor --------------------------------------------------------------------------- */

static long by_descriptor(struct session *s, struct task *t, const struct query *q)
{
	char path[48], first;
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)t->tid, q->dirfd);
	if (stat(path, &st) || st.st_dev != s->nodes[0].st_dev)
		return CONTINUE;
	/* Only now: reading the program's memory costs as much as all the rest. */
	if (q->path && (t->caller.ops->copy_in(&t->caller, &first, q->path, 1) || first))
		return CONTINUE;
	return answer(s, t, q, &st);
}

/* ---- by path --------------------------------------------------------------------------------- */

/* A string of the program's. False: unreadable or too long. */
static bool read_string(struct task *t, uint64_t from, char *out, size_t size)
{
	size_t used = 0;

	while (used < size) {
		/* Never across a page, the next one may not exist. */
		size_t n = SWI_MIN(size - used, 4096 - ((from + used) & 4095));

		n = SWI_MIN(n, (size_t)128);
		if (t->caller.ops->copy_in(&t->caller, out + used, from + used, n))
			return false;
		if (memchr(out + used, '\0', n))
			return true;
		used += n;
	}
	return false;
}

/* The path as one below the program's root directory. */
static bool make_absolute(struct task *t, const struct query *q, const char *path, char *out,
			  size_t size)
{
	char link[48], dir[PATH_MAX];
	ssize_t n;

	if (path[0] == '/')
		return (size_t)snprintf(out, size, "%s", path) < size;
	if (q->dirfd == AT_FDCWD)
		snprintf(link, sizeof(link), "/proc/%d/cwd", (int)t->tid);
	else
		snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)t->tid, q->dirfd);
	n = readlink(link, dir, sizeof(dir) - 1);
	if (n <= 0)
		return false;
	dir[n] = '\0';
	return (size_t)snprintf(out, size, "%s/%s", dir, path) < size;
}

static long by_path(struct session *s, struct task *t, const struct query *q)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
	char path[PATH_MAX], full[2 * PATH_MAX], link[48];
	int root, fd, rc;
	struct stat st;

	if (!read_string(t, q->path, path, sizeof(path)) || !path[0] ||
	    !make_absolute(t, q, path, full, sizeof(full)))
		return CONTINUE;
	if (q->flags & AT_SYMLINK_NOFOLLOW)
		how.flags |= O_NOFOLLOW;
	snprintf(link, sizeof(link), "/proc/%d/root", (int)t->tid);
	root = open(link, O_PATH | O_CLOEXEC);
	if (root < 0)
		return CONTINUE;
	fd = syscall(SYS_openat2, root, full, &how, sizeof(how));
	close(root);
	if (fd < 0)
		return CONTINUE;
	rc = fstat(fd, &st);
	close(fd);
	return rc ? CONTINUE : answer(s, t, q, &st);
}

long identity_serve(struct session *s, struct task *t, const struct seccomp_data *data)
{
	struct query q = decode(data);
	long rc = CONTINUE;

	if (q.flags & AT_EMPTY_PATH)
		rc = by_descriptor(s, t, &q);
	if (rc == CONTINUE && s->stat_paths && q.path)
		rc = by_path(s, t, &q);
	return rc;
}
