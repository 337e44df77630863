// SPDX-License-Identifier: MIT
/*
 * The file tree (spec vfio.md 1 and 5.1): /dev/iommu, /dev/vfio/devices/vfioN, and for each device
 * an entry in /sys/bus/pci/devices and /sys/kernel/iommu_groups, next to what the host has there.
 *
 * The means is a graft: a directory is covered by a tmpfs of ours into which every old entry is put
 * back (symbolic links copied, everything else bind-mounted from underneath), and which takes new
 * names then. All in a mount namespace of the program's own, so nothing outside changes and nothing
 * is left behind when its last process ends.
 *
 * tmpfs is mounted with mode 755: sticky world-writable directories would make the kernel refuse
 * O_CREAT opens of bound device nodes.
 */
#include "run/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static int fail(struct tree_error *err, int rc, const char *fmt, ...) SWI_PRINTF(3, 4);

static int fail(struct tree_error *err, int rc, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err->what, sizeof(err->what), fmt, ap);
	va_end(ap);
	return rc;
}

/* ---- namespaces ------------------------------------------------------------------------------ */

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;
	int rc;

	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text));
	rc = n < 0 ? -errno : 0;
	close(fd);
	return rc;
}

/* In a new user namespace: `inside` here is `outside` in the parent namespace, and nobody else
 * exists. */
static int map_ids(uid_t uid_in, uid_t uid_out, gid_t gid_in, gid_t gid_out)
{
	char text[64];
	int rc;

	/* Required before an unprivileged process may map its group; absent on very old kernels. */
	rc = write_text("/proc/self/setgroups", "deny");
	if (rc && rc != -ENOENT)
		return rc;
	snprintf(text, sizeof(text), "%u %u 1", uid_in, uid_out);
	rc = write_text("/proc/self/uid_map", text);
	if (rc)
		return rc;
	snprintf(text, sizeof(text), "%u %u 1", gid_in, gid_out);
	return write_text("/proc/self/gid_map", text);
}

int tree_enter_namespaces(bool *unprivileged, struct tree_error *err)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int rc;

	*unprivileged = false;
	if (unshare(CLONE_NEWNS)) {
		*unprivileged = true;
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
			return fail(
				err, -errno,
				"this machine does not let an ordinary user make a user namespace");
		rc = map_ids(0, uid, 0, gid);
		if (rc)
			return fail(err, rc, "cannot map user %u in a new user namespace", uid);
	}
	/* What the host mounts later still shows up; what we mount stays here. */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
		return fail(err, -errno, "cannot detach the mount namespace%s",
			    errno == EINVAL ? ": / is not a mount point (in a chroot, bind-mount "
					      "its directory onto itself first)"
					    : "");
	return 0;
}

int tree_leave_root(bool unprivileged, uid_t uid, gid_t gid, struct tree_error *err)
{
	int rc;

	if (!unprivileged)
		return 0;
	/* A second user namespace turns our root back into the user, so that the program sees its
	 * own ids. */
	if (unshare(CLONE_NEWUSER))
		return fail(err, -errno, "cannot make a second user namespace");
	rc = map_ids(uid, 0, gid, 0);
	return rc ? fail(err, rc, "cannot map user %u back", uid) : 0;
}

/* ---- grafts ---------------------------------------------------------------------------------- */

#define PATH_SIZE 320
#define TMPFS_OPTIONS "mode=755,size=64m"

static int put_back(int old, const char *dir, const struct dirent *d)
{
	char from[PATH_SIZE], to[PATH_SIZE], link[PATH_SIZE];
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

/* Covers an existing directory with a tmpfs that shows the same entries. */
static int cover(const char *dir, struct tree_error *err)
{
	struct dirent *d;
	int old, rc = 0;
	DIR *list;

	old = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (old < 0)
		return fail(err, -errno, "cannot open %s", dir);
	list = fdopendir(old);
	if (!list) {
		close(old);
		return fail(err, -ENOMEM, "cannot list %s", dir);
	}
	if (mount("swiommu", dir, "tmpfs", MS_NOSUID, TMPFS_OPTIONS)) {
		rc = fail(err, -errno, "cannot mount a tmpfs on %s", dir);
		goto out;
	}
	while (!rc && (d = readdir(list))) {
		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		rc = put_back(old, dir, d);
		if (rc)
			fail(err, rc, "cannot put %s/%s back", dir, d->d_name);
	}
out:
	closedir(list);
	return rc;
}

/* Whether the directory is one of ours, so that names can be added. */
static bool is_graft(const char *dir)
{
	char probe[PATH_SIZE];

	snprintf(probe, sizeof(probe), "%s/.swiommu", dir);
	return !access(probe, F_OK);
}

static int mark_graft(const char *dir, struct tree_error *err)
{
	char probe[PATH_SIZE];
	int fd;

	snprintf(probe, sizeof(probe), "%s/.swiommu", dir);
	fd = open(probe, O_CREAT | O_WRONLY | O_CLOEXEC, 0444);
	if (fd < 0)
		return fail(err, -errno, "cannot write to %s", dir);
	close(fd);
	return 0;
}

/* Makes `dir` a directory to which names can be added, whatever the host has of it. */
static int graft(const char *dir, struct tree_error *err)
{
	char parent[PATH_SIZE];
	struct stat st;
	char *slash;
	int rc;

	if (!stat(dir, &st)) {
		if (is_graft(dir))
			return 0;
		rc = cover(dir, err);
		return rc ? rc : mark_graft(dir, err);
	}
	snprintf(parent, sizeof(parent), "%s", dir);
	slash = strrchr(parent, '/');
	if (!slash || slash == parent)
		return fail(err, -ENOENT, "%s does not exist", dir);
	*slash = '\0';
	rc = graft(parent, err);
	if (rc)
		return rc;
	if (mkdir(dir, 0755))
		return fail(err, -errno, "cannot make %s", dir);
	return mark_graft(dir, err);
}

/* The marks are only needed while the tree is built. */
static void unmark(const char *dir)
{
	char probe[PATH_SIZE];

	snprintf(probe, sizeof(probe), "%s/.swiommu", dir);
	unlink(probe);
}

/* ---- contents -------------------------------------------------------------------------------- */

static int add_file(const char *path, const char *text, mode_t mode, struct tree_error *err)
{
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode);
	int rc = 0;

	if (fd < 0)
		return fail(err, -errno, "cannot make %s", path);
	if (write(fd, text, strlen(text)) < 0 || fchmod(fd, mode))
		rc = fail(err, -errno, "cannot write %s", path);
	close(fd);
	return rc;
}

static int add_dir(const char *path, struct tree_error *err)
{
	return mkdir(path, 0755) && errno != EEXIST ? fail(err, -errno, "cannot make %s", path) : 0;
}

static int add_link(const char *path, const char *target, struct tree_error *err)
{
	return symlink(target, path) ? fail(err, -errno, "cannot make %s", path) : 0;
}

static int add_attributes(const struct session_device *d, const char *dir, struct tree_error *err)
{
	char path[PATH_SIZE], text[2048];
	const char *name;
	int rc = 0;

	for (unsigned int i = 0; !rc && (name = vfio_device_attribute_name(i)); i++) {
		if (vfio_device_attribute(d->dev, name, text, sizeof(text)))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, name);
		rc = add_file(path, text, 0644, err);
	}
	return rc;
}

/* The number by which vfio-dev/vfioN/dev and a later stat of the node agree. */
static void device_number(const struct session_device *d, char *text, size_t size)
{
	snprintf(text, size, "%u:%u\n", major(d->rdev), minor(d->rdev));
}

static int add_pci_device(const struct session_device *d, struct tree_error *err)
{
	char dir[PATH_SIZE / 2], path[PATH_SIZE], text[64];
	int rc;

	snprintf(dir, sizeof(dir), "/sys/bus/pci/devices/%s", d->place.bdf);
	rc = add_dir(dir, err);
	if (!rc)
		rc = add_attributes(d, dir, err);
	if (rc)
		return rc;
	snprintf(path, sizeof(path), "%s/subsystem", dir);
	rc = add_link(path, "/sys/bus/pci", err);
	snprintf(path, sizeof(path), "%s/driver", dir);
	if (!rc)
		rc = add_link(path, "/sys/bus/pci/drivers/vfio-pci", err);
	snprintf(path, sizeof(path), "%s/iommu_group", dir);
	snprintf(text, sizeof(text), "/sys/kernel/iommu_groups/%u", d->group->group.id);
	if (!rc)
		rc = add_link(path, text, err);
	snprintf(path, sizeof(path), "%s/vfio-dev", dir);
	if (!rc)
		rc = add_dir(path, err);
	snprintf(path, sizeof(path), "%s/vfio-dev/vfio%u", dir, d->place.index);
	if (!rc)
		rc = add_dir(path, err);
	snprintf(path, sizeof(path), "%s/vfio-dev/vfio%u/dev", dir, d->place.index);
	device_number(d, text, sizeof(text));
	return rc ? rc : add_file(path, text, 0444, err);
}

static int add_group(const struct session_device *d, struct tree_error *err)
{
	char path[PATH_SIZE], target[PATH_SIZE];
	int rc;

	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%u", d->group->group.id);
	rc = add_dir(path, err);
	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%u/devices", d->group->group.id);
	if (!rc)
		rc = add_dir(path, err);
	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%u/devices/%s", d->group->group.id,
		 d->place.bdf);
	snprintf(target, sizeof(target), "/sys/bus/pci/devices/%s", d->place.bdf);
	if (!rc)
		rc = add_link(path, target, err);
	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%u/type", d->group->group.id);
	if (!rc && access(path, F_OK))
		rc = add_file(path, "DMA\n", 0444, err);
	return rc;
}

static int add_nodes(struct session *s, struct tree_error *err)
{
	for (size_t i = 0; i < s->nr_nodes; i++) {
		const char *path = s->nodes[i].path;
		int rc;

		/* A real node of that name was bound from the host: ours takes its place. */
		if (!access(path, F_OK)) {
			umount2(path, MNT_DETACH);
			unlink(path);
		}
		rc = add_file(path, "", 0666, err);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- fault injection ------------------------------------------------------------------------- */

/*
 * The directories by which a kernel that can inject failures is told how, with its defaults. What is
 * written into them has no effect: the thread's fail-nth file alone decides here. They stand in place of the
 * host's own, which a program under test must not change.
 */
static int add_fault_files(const char *dir, const char *const *extra, struct tree_error *err)
{
	static const char *const common[] = {
		"probability",
		"0\n",
		"interval",
		"1\n",
		"times",
		"1\n",
		"space",
		"0\n",
		"verbose",
		"2\n",
		"verbose_ratelimit_burst",
		"10\n",
		"verbose_ratelimit_interval_ms",
		"0\n",
		"task-filter",
		"N\n",
		NULL,
	};
	const char *const *lists[] = {common, extra};
	char path[PATH_SIZE];
	int rc = add_dir(dir, err);

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		for (const char *const *f = lists[i]; !rc && f && *f; f += 2) {
			snprintf(path, sizeof(path), "%s/%s", dir, f[0]);
			rc = add_file(path, f[1], 0600, err);
		}
	return rc;
}

static int add_fault_injection(struct tree_error *err)
{
	static const char *const slab[] = {"cache-filter", "N\n", "ignore-gfp-wait", "Y\n", NULL};
	static const char *const page[] = {
		"ignore-gfp-wait", "Y\n", "ignore-gfp-highmem", "Y\n", "min-order", "1\n", NULL};
	int rc = 0;

	if (access("/sys/kernel/debug", F_OK)) {
		rc = graft("/sys/kernel/debug", err);
		unmark("/sys/kernel/debug");
		unmark("/sys/kernel");
	} else if (mount("tmpfs", "/sys/kernel/debug", "tmpfs", 0, TMPFS_OPTIONS)) {
		rc = fail(err, -errno, "cannot cover /sys/kernel/debug");
	}
	if (!rc)
		rc = add_fault_files("/sys/kernel/debug/failslab", slab, err);
	if (!rc)
		rc = add_fault_files("/sys/kernel/debug/fail_page_alloc", page, err);
	if (!rc)
		rc = add_fault_files("/sys/kernel/debug/fail_usercopy", NULL, err);
	return rc ? rc : add_fault_files("/sys/kernel/debug/fail_iommufd", NULL, err);
}

int tree_build(struct session *s, struct tree_error *err)
{
	static const char *const grafts[] = {"/dev", "/dev/vfio/devices", "/sys/bus/pci/devices",
					     "/sys/bus/pci/drivers/vfio-pci",
					     "/sys/kernel/iommu_groups"};
	size_t n = s->nr_devices ? ARRAY_SIZE(grafts) : 1;
	int rc = 0;

	umask(022);
	for (size_t i = 0; !rc && i < n; i++)
		rc = graft(grafts[i], err);
	for (size_t i = 0; !rc && i < s->nr_devices; i++) {
		rc = add_pci_device(&s->devices[i], err);
		if (!rc)
			rc = add_group(&s->devices[i], err);
	}
	if (!rc && s->testabi)
		rc = add_fault_injection(err);
	if (!rc)
		rc = add_nodes(s, err);
	for (size_t i = 0; i < n; i++)
		unmark(grafts[i]);
	return rc;
}
