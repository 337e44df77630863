// SPDX-License-Identifier: MIT
/*
 * The file tree (spec vfio.md 1 and 5.1): a mount namespace of the program's own in which /dev has our
 * nodes and /sys our devices, next to what the host has there. Nothing outside changes, and nothing
 * is left behind when the program's last process ends. How names are added: graft.c; what /sys
 * tells: sysfs.c.
 */
#include "run/tree.h"

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

#include "run/graft.h"
#include "run/sysfs.h"

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

/* ---- fault injection ------------------------------------------------------------------------- */

/*
 * The directories by which a kernel that can inject failures is told how, with its defaults. What is
 * written into them has no effect: the thread's fail-nth file alone decides here. They stand in place of the
 * host's own, which a program under test must not change.
 */
static void add_fault_files(struct graft *g, const char *name, const char *const *extra)
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

	graft_dir(g, "/sys/kernel/debug/%s", name);
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		for (const char *const *f = lists[i]; f && *f; f += 2)
			graft_text(g, 0600, f[1], "/sys/kernel/debug/%s/%s", name, f[0]);
}

static void add_fault_injection(struct graft *g)
{
	static const char *const slab[] = {"cache-filter", "N\n", "ignore-gfp-wait", "Y\n", NULL};
	static const char *const page[] = {
		"ignore-gfp-wait", "Y\n", "ignore-gfp-highmem", "Y\n", "min-order", "1\n", NULL};

	if (access("/sys/kernel/debug", F_OK))
		graft(g, "/sys/kernel/debug");
	else
		graft_empty(g, "/sys/kernel/debug");
	add_fault_files(g, "failslab", slab);
	add_fault_files(g, "fail_page_alloc", page);
	add_fault_files(g, "fail_usercopy", NULL);
	add_fault_files(g, "fail_iommufd", NULL);
}

/* ---- everything ------------------------------------------------------------------------------ */

/* By device number, which is how QEMU finds a node that is not where it expected it. */
static void add_number(struct graft *g, const struct node *n)
{
	char target[80];

	snprintf(target, sizeof(target), "..%s", n->path + strlen("/dev"));
	graft_link(g, target, "/dev/char/%u:%u", major(n->rdev), minor(n->rdev));
}

/* Programs that are told the name of a node need no /sys, so its lack is no reason to give up. */
static void add_sysfs(struct session *s, const struct graft *dev, struct tree_error *warning)
{
	struct graft g = {0};

	if (dev->rc)
		return;
	sysfs_build(&g, s);
	if (g.rc)
		fail(warning, g.rc,
		     "%s: %s; programs cannot find devices by PCI address, only by /dev/vfio",
		     g.what, strerror(-g.rc));
}

int tree_build(struct session *s, struct tree_error *err)
{
	struct graft g = {0};

	umask(022);
	graft(&g, "/dev");
	graft(&g, "/dev/char");
	if (s->nr_devices) {
		graft(&g, "/dev/vfio");
		graft(&g, "/dev/vfio/devices");
		add_sysfs(s, &g, err);
	}
	if (s->testabi)
		add_fault_injection(&g);
	for (size_t i = 0; i < s->nr_nodes; i++) {
		graft_text(&g, 0666, "", "%s", s->nodes[i].path);
		add_number(&g, &s->nodes[i]);
	}
	if (g.rc)
		fail(err, g.rc, "%s", g.what);
	return g.rc;
}
