// SPDX-License-Identifier: MIT
/*
 * Grafts. A directory is covered by a tmpfs of ours into which every old entry is put back (symbolic
 * links copied, everything else bind-mounted from underneath), and which takes new names then. A
 * directory that the host does not have is made in its parent, which is grafted for it.
 *
 * tmpfs is mounted with mode 755: sticky world-writable directories would make the kernel refuse
 * O_CREAT opens of bound device nodes.
 */
#include "run/graft.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static void vfail(struct graft *g, int rc, const char *fmt, va_list ap)
{
	if (g->rc)
		return;
	g->rc = rc;
	vsnprintf(g->what, sizeof(g->what), fmt, ap);
}

/* Records a failure, the first only. */
SWI_PRINTF(3, 4) static void graft_fail(struct graft *g, int rc, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfail(g, rc, fmt, ap);
	va_end(ap);
}

/* ---- directories ----------------------------------------------------------------------------- */

static int put_back(int old, const char *dir, const struct dirent *d)
{
	char from[GRAFT_PATH], to[GRAFT_PATH], link[GRAFT_PATH];
	struct stat st;
	ssize_t n;
	int fd;

	if (fstatat(old, d->d_name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : -errno;
	snprintf(to, sizeof(to), "%s/%s", dir, d->d_name);
	if (S_ISLNK(st.st_mode)) {
		n = readlinkat(old, d->d_name, link, sizeof(link) - 1);
		if (n < 0)
			return -errno;
		link[n] = '\0';
		return symlink(link, to) ? -errno : 0;
	}
	if (S_ISDIR(st.st_mode)) {
		if (mkdir(to, 0755))
			return -errno;
	} else {
		fd = open(to, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
		if (fd < 0)
			return -errno;
		close(fd);
	}
	snprintf(from, sizeof(from), "/proc/self/fd/%d/%s", old, d->d_name);
	/* An entry that cannot be bound (a dead FUSE mount, say) is missed, not fatal. */
	if (mount(from, to, NULL, MS_BIND | MS_REC, NULL))
		S_ISDIR(st.st_mode) ? rmdir(to) : unlink(to);
	return 0;
}

static bool is_ours(const struct graft *g, const struct stat *st)
{
	for (size_t i = 0; i < g->nr_devs; i++)
		if (g->devs[i] == st->st_dev)
			return true;
	return false;
}

void graft_empty(struct graft *g, const char *dir)
{
	struct stat st;

	if (g->rc)
		return;
	if (g->nr_devs == GRAFTS_MAX)
		return graft_fail(g, -ENOSPC, "%s: too many grafts", dir);
	if (mount("swiommu", dir, "tmpfs", MS_NOSUID, GRAFT_TMPFS_OPTIONS) || stat(dir, &st))
		return graft_fail(g, -errno, "cannot mount a tmpfs on %s", dir);
	g->devs[g->nr_devs++] = st.st_dev;
}

/* Covers an existing directory with a tmpfs that shows the same entries. */
static void cover(struct graft *g, const char *dir)
{
	struct dirent *d;
	DIR *list = opendir(dir);

	if (!list)
		return graft_fail(g, -errno, "cannot list %s", dir);
	graft_empty(g, dir);
	while (!g->rc && (d = readdir(list))) {
		int rc;

		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		rc = put_back(dirfd(list), dir, d);
		if (rc)
			graft_fail(g, rc, "cannot put %s/%s back", dir, d->d_name);
	}
	closedir(list);
	/* Half of the entries would be worse than none added. */
	if (g->rc)
		umount2(dir, MNT_DETACH);
}

void graft(struct graft *g, const char *dir)
{
	char parent[GRAFT_PATH];
	struct stat st;
	char *slash;

	if (g->rc)
		return;
	if (!stat(dir, &st)) {
		if (!is_ours(g, &st))
			cover(g, dir);
		return;
	}
	snprintf(parent, sizeof(parent), "%s", dir);
	slash = strrchr(parent, '/');
	if (!slash || slash == parent)
		return graft_fail(g, -ENOENT, "%s does not exist", dir);
	*slash = '\0';
	graft(g, parent);
	if (!g->rc && mkdir(dir, 0755))
		graft_fail(g, -errno, "cannot make %s", dir);
}

/* ---- entries --------------------------------------------------------------------------------- */

static void make_path(char *path, const char *fmt, va_list ap)
{
	vsnprintf(path, GRAFT_PATH, fmt, ap);
}

static void write_file(struct graft *g, mode_t mode, const void *data, size_t size,
		       const char *path)
{
	int fd;

	if (g->rc)
		return;
	/* What stood here was bound from the host. */
	if (!access(path, F_OK)) {
		umount2(path, MNT_DETACH);
		unlink(path);
	}
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode);
	if (fd < 0)
		return graft_fail(g, -errno, "cannot make %s", path);
	if (write(fd, data, size) != (ssize_t)size || fchmod(fd, mode))
		graft_fail(g, errno ? -errno : -ENOSPC, "cannot write %s", path);
	close(fd);
}

void graft_file(struct graft *g, mode_t mode, const void *data, size_t size, const char *fmt, ...)
{
	char path[GRAFT_PATH];
	va_list ap;

	va_start(ap, fmt);
	make_path(path, fmt, ap);
	va_end(ap);
	write_file(g, mode, data, size, path);
}

void graft_text(struct graft *g, mode_t mode, const char *text, const char *fmt, ...)
{
	char path[GRAFT_PATH];
	va_list ap;

	va_start(ap, fmt);
	make_path(path, fmt, ap);
	va_end(ap);
	write_file(g, mode, text, strlen(text), path);
}

void graft_dir(struct graft *g, const char *fmt, ...)
{
	char path[GRAFT_PATH];
	va_list ap;

	va_start(ap, fmt);
	make_path(path, fmt, ap);
	va_end(ap);
	if (!g->rc && mkdir(path, 0755) && errno != EEXIST)
		graft_fail(g, -errno, "cannot make %s", path);
}

/* Links within /sys are relative, as the kernel's: some programs (lspci) append the text to the directory. */
static void link_text(char *text, size_t size, const char *target, const char *path)
{
	static const char sys[] = "/sys/";
	size_t used = 0;

	if (strncmp(path, sys, sizeof(sys) - 1) || strncmp(target, sys, sizeof(sys) - 1)) {
		snprintf(text, size, "%s", target);
		return;
	}
	for (const char *p = path + sizeof(sys) - 1; (p = strchr(p, '/')) && used + 3 < size; p++)
		used += (size_t)snprintf(text + used, size - used, "../");
	snprintf(text + used, size - used, "%s", target + sizeof(sys) - 1);
}

void graft_link(struct graft *g, const char *target, const char *fmt, ...)
{
	char path[GRAFT_PATH], text[2 * GRAFT_PATH];
	va_list ap;

	va_start(ap, fmt);
	make_path(path, fmt, ap);
	va_end(ap);
	if (g->rc)
		return;
	unlink(path); /* the host's, copied */
	link_text(text, sizeof(text), target, path);
	if (symlink(text, path))
		graft_fail(g, -errno, "cannot make %s", path);
}

void graft_over(struct graft *g, const char *file, const char *path)
{
	if (!g->rc && !access(path, F_OK) && mount(file, path, NULL, MS_BIND, NULL))
		graft_fail(g, -errno, "cannot cover %s", path);
}
