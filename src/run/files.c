// SPDX-License-Identifier: MIT
/*
 * Open files (spec vfio.md 5.4).
 *
 * The nodes are regular files on a tmpfs, so an open file of the program is an open file description of
 * the kernel: dup, fork, exec and SCM_RIGHTS all carry it along without our doing. What we must
 * find from a descriptor is *which* one it is, and we must learn when it goes. Both hang on an
 * open-file-description lock:
 *
 *   - on first use, the description gets a token: a lock on the byte at `token`, taken through our
 *     duplicate of the descriptor and thus owned by the description; and the token as its file
 *     position, and a mark (its SIGIO number, which nothing else uses here) that it has one
 *   - later, the position says the token in one call. It is only a hint, since the program may
 *     move it: a lock owned by this very description is what proves it, and if the position is off,
 *     the token is searched by its lock and the position put back
 *   - when the last reference goes, in whatever way and process, the kernel drops the lock
 *
 * An inotify watch on the nodes tells that some description was closed; files_sweep() then asks which
 * locks are gone. The event comes a moment before the lock goes, so the session sweeps again a
 * little later; and whoever could be hindered by a file that is as good as closed sweeps first. close()
 * returns to the program after the lock has gone, so a sweep that begins later always sees it.
 */
#include "run/files.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include <swiommu/iommufd.h>

/* Tokens are far apart, so that a stray read() or write() does not move from one to the next. */
#define TOKEN_SHIFT 20

struct open_file {
	struct list entry; /* in files.open; files.lock */
	struct node *node;
	uint64_t token;
	_Atomic unsigned int refs; /* the list's, and calls in progress */
	_Atomic pid_t user;	   /* thread that used it last, for reports */
	struct iommufd_ctx *ctx;   /* NODE_IOMMU */
	struct vfio_file *vfio;	   /* NODE_VFIO_CDEV */
};

struct files {
	struct session *session;
	pthread_mutex_t lock; /* list and tokens; held over a few fcntl calls on our own descriptors */
	struct list open;
	size_t count;
	uint64_t next_token;
	int inotify;
	struct swiommu_hooks hooks;
	struct files_orphans orphans; /* lock */
};

int files_create(struct session *s, struct files **out)
{
	struct files *f = swi_new(struct files);
	char path[40];
	int rc;

	if (!f)
		return -ENOMEM;
	f->session = s;
	f->next_token = 1ull << TOKEN_SHIFT;
	list_init(&f->open);
	pthread_mutex_init(&f->lock, NULL);
	session_hooks(s, &f->hooks);
	f->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (f->inotify < 0) {
		rc = -errno;
		goto fail;
	}
	for (size_t i = 0; i < s->nr_nodes; i++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", s->nodes[i].fd);
		if (inotify_add_watch(f->inotify, path, IN_CLOSE) < 0) {
			rc = -errno;
			close(f->inotify);
			goto fail;
		}
	}
	*out = f;
	return 0;
fail:
	pthread_mutex_destroy(&f->lock);
	swi_free(f);
	return rc;
}

/* ---- tokens --------------------------------------------------------------------------------------- */

static struct flock token_lock(uint64_t token, short type)
{
	return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = token, .l_len = 1};
}

/* Whether some description other than fd's own holds the token's byte. */
static bool locked_by_other(int fd, uint64_t token)
{
	struct flock lk = token_lock(token, F_WRLCK);

	/* A failing query must not release a file that may be in use. */
	return fcntl(fd, F_OFD_GETLK, &lk) || lk.l_type != F_UNLCK;
}

static bool owns_token(const struct open_file *file, int fd)
{
	return locked_by_other(file->node->fd, file->token) && !locked_by_other(fd, file->token);
}

static int give_token(int fd, uint64_t token)
{
	bool writable = (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
	struct flock lk = token_lock(token, writable ? F_WRLCK : F_RDLCK);

	if (fcntl(fd, F_OFD_SETLK, &lk))
		return -errno;
	if (lseek(fd, token, SEEK_SET) < 0 || fcntl(fd, F_SETSIG, SIGIO))
		return -errno;
	return 0;
}

/* The known open file of a description, or NULL. Files locked. */
static struct open_file *find_locked(struct files *f, struct node *node, int fd)
{
	off_t pos = lseek(fd, 0, SEEK_CUR);
	uint64_t hint = pos < 0 ? 0 : (uint64_t)pos >> TOKEN_SHIFT << TOKEN_SHIFT;
	struct list *pos_entry;
	struct open_file *file;

	if (fcntl(fd, F_GETSIG) != SIGIO)
		return NULL;
	list_for_each(pos_entry, &f->open) {
		file = list_entry(pos_entry, struct open_file, entry);
		if (file->node == node && file->token == hint && owns_token(file, fd))
			return file;
	}
	list_for_each(pos_entry, &f->open) {
		file = list_entry(pos_entry, struct open_file, entry);
		if (file->node != node || !owns_token(file, fd))
			continue;
		(void)!lseek(fd, file->token, SEEK_SET);
		return file;
	}
	return NULL;
}

/* ---- life ----------------------------------------------------------------------------------------- */

static struct node *find_node(struct session *s, int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return NULL;
	for (size_t i = 0; i < s->nr_nodes; i++)
		if (s->nodes[i].st_ino == st.st_ino && s->nodes[i].st_dev == st.st_dev)
			return &s->nodes[i];
	return NULL;
}

static int create_locked(struct files *f, struct node *node, int fd, struct open_file **out)
{
	struct open_file *file = swi_new(struct open_file);
	int rc;

	if (!file)
		return -ENOMEM;
	file->node = node;
	file->token = f->next_token;
	file->refs = 1;
	rc = node->kind == NODE_IOMMU ? swiommu_open(&f->hooks, &file->ctx)
				      : vfio_file_open(node->device->dev, &file->vfio);
	if (rc)
		goto free;
	rc = give_token(fd, file->token);
	if (rc)
		goto close;
	f->next_token += 1ull << TOKEN_SHIFT;
	list_add(&f->open, &file->entry);
	f->count++;
	*out = file;
	return 0;
close:
	if (file->ctx)
		swiommu_close(file->ctx);
	if (file->vfio)
		vfio_file_close(file->vfio);
free:
	swi_free(file);
	return rc;
}

int files_get(struct files *f, int fd, pid_t user, struct open_file **out)
{
	struct node *node = find_node(f->session, fd);
	struct open_file *file;
	int rc = 0;

	if (!node)
		return -ENODEV;
	pthread_mutex_lock(&f->lock);
	file = find_locked(f, node, fd);
	if (!file)
		rc = create_locked(f, node, fd, &file);
	if (!rc) {
		file->refs++;
		file->user = user;
		*out = file;
	}
	pthread_mutex_unlock(&f->lock);
	return rc;
}

void open_file_put(struct open_file *file)
{
	if (--file->refs)
		return;
	if (file->ctx)
		swiommu_close(file->ctx);
	if (file->vfio)
		vfio_file_close(file->vfio);
	swi_free(file);
}

const struct node *open_file_node(const struct open_file *file)
{
	return file->node;
}

int open_file_ctx(struct open_file *file, struct iommufd_ctx **out)
{
	if (!file->ctx)
		return -EBADFD;
	iommufd_ctx_get(file->ctx);
	*out = file->ctx;
	return 0;
}

struct vfio_file *open_file_vfio(struct open_file *file)
{
	return file->vfio;
}

/* Whether a thread has ended (perhaps not been reaped yet). Only for reports: its number may be another's by now. */
static bool has_ended(pid_t tid)
{
	char path[40], buf[256], *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return true;
	buf[n] = '\0';
	at = strrchr(buf, ')');
	return at && (at[2] == 'Z' || at[2] == 'X');
}

static void count_orphan_locked(struct files *f, struct open_file *file)
{
	if (!has_ended(file->user))
		return;
	if (file->ctx)
		f->orphans.contexts++;
	else if (vfio_file_is_bound(file->vfio))
		f->orphans.devices++;
}

/* Moves the open files that are gone (all of them, if `force`) to `gone`. */
static size_t collect_gone(struct files *f, bool force, struct list *gone)
{
	struct list *pos, *tmp;
	size_t left;

	pthread_mutex_lock(&f->lock);
	list_for_each_safe(pos, tmp, &f->open) {
		struct open_file *file = list_entry(pos, struct open_file, entry);

		if (!force && locked_by_other(file->node->fd, file->token))
			continue;
		list_del(&file->entry);
		list_add_tail(gone, &file->entry);
		f->count--;
		count_orphan_locked(f, file);
	}
	left = f->count;
	pthread_mutex_unlock(&f->lock);
	return left;
}

static size_t release(struct files *f, bool force)
{
	struct list gone = LIST_INIT(gone);
	size_t left = collect_gone(f, force, &gone);

	/* Out of the lock: closing a device waits for its DMA. */
	while (!list_empty(&gone)) {
		struct open_file *file = list_entry(gone.next, struct open_file, entry);

		list_del(&file->entry);
		open_file_put(file);
	}
	return left;
}

size_t files_sweep(struct files *f)
{
	return release(f, false);
}

void files_get_orphans(struct files *f, struct files_orphans *out)
{
	pthread_mutex_lock(&f->lock);
	*out = f->orphans;
	pthread_mutex_unlock(&f->lock);
}

int files_event_fd(struct files *f)
{
	return f->inotify;
}

void files_drain(struct files *f)
{
	char buf[4096];

	while (read(f->inotify, buf, sizeof(buf)) > 0)
		;
}

void files_destroy(struct files *f)
{
	if (!f)
		return;
	release(f, true);
	close(f->inotify);
	pthread_mutex_destroy(&f->lock);
	swi_free(f);
}
