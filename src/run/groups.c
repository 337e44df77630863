// SPDX-License-Identifier: MIT
/*
 * VFIO groups and containers of the program (spec vfio.md 3), as far as they are more than open files
 * with ioctls: descriptors as arguments, a descriptor as result, and an open that can fail.
 *
 * A group can be open once in the whole system, and while it is, its devices cannot be bound through
 * their cdevs. A device without an IOMMU can be opened by some only. All other files may be discovered
 * when they are first used, but these must be known when they are opened. So opens that look like one
 * of a device are trapped (filter.c), and if the path leads to such a node, it is opened here and the
 * descriptor put into the program. Opened in another way (O_RDONLY, openat2, a link with a name of
 * another form), one is discovered at its first use, which gives the error then.
 */
#include "run/groups.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mem/vma.h"
#include "run/testabi.h"

#define PATH_SIZE 256

static struct task *task_of(struct swiommu_caller *c)
{
	return container_of(c, struct task, caller);
}

/* ---- descriptors as arguments ---------------------------------------------------------------- */

static int get_file(struct swiommu_caller *c, int fd, enum node_kind kind, struct open_file **out)
{
	struct task *t = task_of(c);
	int copy = task_dup_fd(t, fd), rc;

	if (copy < 0)
		return copy;
	rc = files_get(t->session->files, copy, t, out);
	close(copy);
	if (rc)
		return rc == -ENODEV ? -EBADFD : rc;
	if (open_file_node(*out)->kind == kind)
		return 0;
	open_file_put(*out);
	return -EBADFD;
}

static int get_container(struct swiommu_caller *c, int fd, struct vfio_container **out)
{
	struct open_file *file;
	int rc = get_file(c, fd, NODE_VFIO_CONTAINER, &file);

	if (rc)
		return rc;
	*out = vfio_container_get(open_file_container(file));
	open_file_put(file);
	return 0;
}

static int get_group(struct swiommu_caller *c, int fd, struct vfio_group_file **out)
{
	struct open_file *file;
	int rc = get_file(c, fd, NODE_VFIO_GROUP, &file);

	if (rc)
		return rc;
	*out = vfio_group_file_get(open_file_group(file));
	open_file_put(file);
	return 0;
}

static struct node *find_cdev(struct session *s, dev_t dev, ino_t ino)
{
	for (size_t i = 0; i < s->nr_nodes; i++)
		if (s->nodes[i].kind == NODE_VFIO_CDEV && s->nodes[i].st_ino == ino &&
		    s->nodes[i].st_dev == dev)
			return &s->nodes[i];
	return NULL;
}

bool groups_is_device(void *data, dev_t dev, ino_t ino)
{
	return find_cdev(data, dev, ino);
}

/* Goes through the mappings of [uptr, last]: all of one node, and side by side in it. */
static int walk_mappings(struct session *s, int maps, uint64_t uptr, uint64_t last,
			 struct vfio_device **dev, uint64_t *pos)
{
	struct node *node = NULL;
	struct vma_walk w;
	struct vma v;

	vma_walk_start(&w, maps);
	for (uint64_t addr = uptr; addr <= last; addr = v.end) {
		if (vma_walk_to(&w, addr, &v) || !v.shared)
			return -ENOENT;
		if (!node) {
			node = find_cdev(s, v.dev, v.ino);
			*pos = v.offset + (uptr - v.start);
		}
		if (!node || node != find_cdev(s, v.dev, v.ino) ||
		    v.offset + (addr - v.start) != *pos + (addr - uptr))
			return -ENOENT;
	}
	*dev = node->device->dev;
	return 0;
}

static int find_mapping(struct swiommu_caller *c, uint64_t uptr, uint64_t length,
			struct vfio_device **dev, uint64_t *pos)
{
	struct task *t = task_of(c);
	char path[40];
	uint64_t last;
	int maps, rc;

	if (!range_last(uptr, length, &last))
		return -ENOENT;
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)t->tid);
	maps = open(path, O_RDONLY | O_CLOEXEC);
	if (maps < 0)
		return -ENOENT;
	rc = walk_mappings(t->session, maps, uptr, last, dev, pos);
	close(maps);
	return rc || !task_valid(t) ? -ENOENT : 0;
}

const struct vfio_host_ops groups_host = {
	.get_container = get_container,
	.get_group = get_group,
	.find_mapping = find_mapping,
};

/* ---- opening --------------------------------------------------------------------------------- */

static bool read_path(struct task *t, uint64_t from, char *path)
{
	for (size_t len = 0; len < PATH_SIZE; len++) {
		if (t->caller.ops->copy_in(&t->caller, path + len, from + len, 1))
			return false;
		if (!path[len])
			return true;
	}
	return false;
}

/*
 * What most opens are sorted out by, before anything is looked up: a group's node has a number for a name, with a word before
 * it if there is no IOMMU; then the device's node has one of that kind too.
 */
static bool may_be_guarded(const char *path)
{
	static const char *const words[] = {"noiommu-", "vfio"};
	const char *name = strrchr(path, '/');

	name = name ? name + 1 : path;
	if (!strncmp(name, words[0], strlen(words[0]))) {
		name += strlen(words[0]);
		if (!strncmp(name, words[1], strlen(words[1])))
			name += strlen(words[1]);
	}
	return *name && !name[strspn(name, "0123456789")];
}

/* Where a path begins for the thread: its root, its working directory, or a directory that it has open. */
static int open_start(struct task *t, int dirfd, const char *path)
{
	char link[40];

	if (path[0] != '/' && dirfd != AT_FDCWD)
		return task_dup_fd(t, dirfd);
	snprintf(link, sizeof(link), "/proc/%d/%s", (int)t->tid, path[0] == '/' ? "root" : "cwd");
	return open(link, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Whether an open of the node can fail. */
static bool is_guarded(const struct node *n)
{
	return n->kind == NODE_VFIO_GROUP ||
	       (n->kind == NODE_VFIO_CDEV && n->device->place.noiommu);
}

static struct node *resolve(struct task *t, int dirfd, const char *path)
{
	/* Links such as /proc/self/fd/N would lead to files of ours. */
	struct open_how how = {.flags = O_PATH | O_CLOEXEC,
			       .resolve = RESOLVE_NO_MAGICLINKS |
					  (path[0] == '/' ? RESOLVE_IN_ROOT : 0)};
	struct session *s = t->session;
	int start = open_start(t, dirfd, path), fd;
	struct node *found = NULL;
	struct stat st;

	if (start < 0)
		return NULL;
	fd = (int)syscall(SYS_openat2, start, path, &how, sizeof(how));
	close(start);
	if (fd < 0)
		return NULL;
	if (!fstat(fd, &st))
		for (size_t i = 0; i < s->nr_nodes; i++)
			if (is_guarded(&s->nodes[i]) && s->nodes[i].st_ino == st.st_ino &&
			    s->nodes[i].st_dev == st.st_dev)
				found = &s->nodes[i];
	close(fd);
	return found;
}

/* Opens the node and puts the descriptor into the program. */
static long give_node(struct task *t, struct node *node, struct vfio_file *vfio, int flags)
{
	int fd, number;
	long rc;

	rc = files_open(t->session->files, node, vfio, O_RDWR, t, &fd);
	if (rc) {
		/* What was taken over goes with the file that could not be made known. */
		vfio_file_close(vfio);
		return rc;
	}
	rc = t->caller.ops->install_fd(&t->caller, fd, flags & O_CLOEXEC, &number);
	close(fd);
	if (rc)
		return swi_fail((struct swi_reason *)t->caller.reason, (int)rc,
				"the descriptor table of the program is full");
	return number;
}

long groups_open(struct task *t, const struct seccomp_data *data)
{
	bool at = data->nr == SYS_openat;
	int flags = (int)data->args[at ? 2 : 1];
	struct node *node;
	char path[PATH_SIZE];
	long rc;

	if ((flags & O_ACCMODE) != O_RDWR || flags & (O_CREAT | O_DIRECTORY | O_PATH) ||
	    !t->session->nr_groups || !read_path(t, data->args[at ? 1 : 0], path) ||
	    !may_be_guarded(path))
		return TESTABI_CONTINUE;
	node = resolve(t, at ? (int)data->args[0] : AT_FDCWD, path);
	if (!node || !task_valid(t))
		return TESTABI_CONTINUE;
	files_settle(t->session->files);
	rc = give_node(t, node, NULL, flags);
	if (rc < 0 && t->session->explain)
		session_say(t->session, "pid %d: open of %s: %s: %s", (int)t->tid, node->path,
			    strerrorname_np(-(int)rc), t->caller.reason);
	return rc;
}

/* ---- ioctls ---------------------------------------------------------------------------------- */

static struct node *node_of_device(struct session *s, const struct vfio_file *file)
{
	const struct vfio_device *dev = vfio_file_device(file);

	for (size_t i = 0; i < s->nr_devices; i++)
		if (s->devices[i].dev == dev)
			return s->devices[i].node;
	return NULL;
}

long groups_ioctl(struct task *t, struct open_file *file, unsigned int cmd, uint64_t arg)
{
	struct vfio_group_file *gf = open_file_group(file);
	struct vfio_file *vfio;
	long rc;

	if (cmd != VFIO_GROUP_GET_DEVICE_FD)
		return vfio_group_file_ioctl(gf, &t->caller, cmd, arg);
	rc = vfio_group_get_device(gf, &t->caller, arg, &vfio);
	if (rc)
		return rc;
	return give_node(t, node_of_device(t->session, vfio), vfio, O_CLOEXEC);
}
