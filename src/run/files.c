// SPDX-License-Identifier: MIT
/*
 * Open files (spec vfio.md 5.4).
 *
 * The nodes are regular files on a tmpfs, so an open file of the program is an open file
 * description of the kernel: dup, fork, exec and SCM_RIGHTS all carry it along without our doing.
 * What we must find from a descriptor is *which* one it is, and we must learn when it goes. Both
 * hang on an open-file-description lock:
 *
 *   - on first use, the description gets a token: a lock on the byte at `token`, taken through our
 *     duplicate of the descriptor and thus owned by the description; and the token as its file
 * position
 *   - later, the position says the token in one call. It is only a hint, since the program may
 *     move it: a lock owned by this very description is what proves it. If the position is off, the
 *     kernel is asked for the locks of the description (fdinfo), and the position put back
 *   - when the last reference goes, in whatever way and process, the kernel drops the lock
 *
 * An inotify watch on the nodes tells that some description was closed; a thread of ours, the
 * sweeper, then asks which locks are gone. The event comes a moment before the lock goes, so it
 * asks again a little later; and whoever could be hindered by a file that is as good as closed
 * sweeps first. close() returns to the program after the lock has gone, so a sweep that begins
 * later always sees it.
 *
 * Releasing a device waits for its DMA, which may wait for the program (whose memory may be behind
 * userfaultfd). So it is done by the sweeper or by who wants that very device, without the lock,
 * one file at a time.
 */
#include "run/files.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "run/helper.h"
#include "run/task.h"
#include <swiommu/iommufd.h>

/* Tokens are far apart, so that a stray read() or write() does not move from one to the next. */
#define TOKEN_SHIFT 20
/* And no other file's position is where they are. */
#define TOKEN_FIRST (1ull << 61)
#define BUCKETS 256

struct open_file {
	struct list entry;  /* in files.open, files.gone, or neither; files.lock */
	struct list bucket; /* in files.by_token while in files.open */
	struct node *node;
	uint64_t token;
	uint64_t secret;	   /* who knows it has had a descriptor on the file; see helper.c */
	_Atomic unsigned int refs; /* the list's, and calls in progress */
	_Atomic pid_t user;	   /* thread that used it last, for reports */
	bool read_only;		   /* opened O_RDONLY */
	struct iommufd_ctx *ctx;   /* NODE_IOMMU */
	struct vfio_file *vfio;	   /* NODE_VFIO_CDEV */
	struct vfio_container *container; /* NODE_VFIO_CONTAINER */
	struct vfio_group_file *group;	  /* NODE_VFIO_GROUP */
};

struct files {
	struct session *session;
	/* Lists, tokens and counts; held over a few calls on our own descriptors. */
	pthread_mutex_t lock;
	pthread_cond_t closed; /* something left `closing` */
	struct list closing;   /* devices being released, oldest first: struct closing */
	uint64_t next_closing;
	struct list open[NODE_KINDS]; /* as far as we know; by node kind */
	struct list by_token[BUCKETS];
	struct list gone; /* closed by the program, to be released */
	uint64_t next_token;
	int inotify;
	struct swiommu_hooks hooks;
	struct files_orphans orphans; /* lock */
	pthread_t sweeper;
	int stop; /* eventfd: the sweeper is to end */
};

/* On the stack of the thread that releases. */
struct closing {
	struct list entry;
	uint64_t number;
};

static void *sweeper(void *arg);

static int watch_nodes(struct files *f)
{
	struct session *s = f->session;
	char path[40];

	for (size_t i = 0; i < s->nr_nodes; i++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", s->nodes[i].fd);
		if (inotify_add_watch(f->inotify, path, IN_CLOSE) < 0)
			return -errno;
	}
	return 0;
}

/* Regions lie in the very file that the program has open as /dev/iommu. */
static int make_regions(struct session *s)
{
	char path[40];
	int fd, rc;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->nodes[0].fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = swiommu_regions_create(fd, &s->regions);
	close(fd);
	return rc;
}

int files_create(struct session *s, struct files **out)
{
	struct files *f = swi_new(struct files);
	int rc;

	if (!f)
		return -ENOMEM;
	f->session = s;
	f->next_token = TOKEN_FIRST;
	for (size_t i = 0; i < NODE_KINDS; i++)
		list_init(&f->open[i]);
	list_init(&f->gone);
	list_init(&f->closing);
	for (size_t i = 0; i < BUCKETS; i++)
		list_init(&f->by_token[i]);
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->closed, NULL);
	session_hooks(s, &f->hooks);
	f->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	f->stop = eventfd(0, EFD_CLOEXEC);
	rc = f->inotify < 0 || f->stop < 0 ? -errno : watch_nodes(f);
	if (!rc)
		rc = make_regions(s);
	if (!rc)
		rc = -pthread_create(&f->sweeper, NULL, sweeper, f);
	if (rc)
		goto fail;
	*out = f;
	return 0;
fail:
	if (f->stop >= 0)
		close(f->stop);
	if (f->inotify >= 0)
		close(f->inotify);
	pthread_cond_destroy(&f->closed);
	pthread_mutex_destroy(&f->lock);
	swi_free(f);
	return rc;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

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

	if (fcntl(fd, F_OFD_SETLK, &lk) || lseek(fd, token, SEEK_SET) < 0)
		return -errno;
	return 0;
}

static struct list *bucket_of(struct files *f, uint64_t token)
{
	return &f->by_token[(token >> TOKEN_SHIFT) % BUCKETS];
}

static struct open_file *by_token_locked(struct files *f, struct node *node, uint64_t token)
{
	struct list *pos;

	list_for_each (pos, bucket_of(f, token)) {
		struct open_file *file = list_entry(pos, struct open_file, bucket);

		if (file->node == node && file->token == token)
			return file;
	}
	return NULL;
}

/* The range of a line such as "lock:\t1: OFDLCK  ADVISORY  WRITE -1 00:2d:3 1048576 1048576" (or
 * "EOF"). */
static bool parse_lock(const char *line, uint64_t *first, uint64_t *last)
{
	const char *at;
	char *end;

	if (strncmp(line, "lock:", 5) || !strstr(line, "OFDLCK"))
		return false;
	at = strrchr(line, ' ');
	*last = strtoull(at + 1, &end, 10);
	if (end == at + 1)
		*last = UINT64_MAX;
	while (at > line && at[-1] != ' ')
		at--;
	*first = strtoull(at, NULL, 10);
	return true;
}

static struct open_file *in_range_locked(struct files *f, struct node *node, uint64_t first,
					 uint64_t last)
{
	struct list *pos;

	if (first == last)
		return by_token_locked(f, node, first);
	/* The program has set locks of its own, and the kernel has joined them with ours. */
	list_for_each (pos, &f->open[node->kind]) {
		struct open_file *file = list_entry(pos, struct open_file, entry);

		if (file->node == node && file->token >= first && file->token <= last)
			return file;
	}
	return NULL;
}

/* The known open file of a description whose position says nothing, by the locks that it owns; *out
 * NULL: none. */
static int find_by_locks_locked(struct files *f, struct node *node, int fd, struct open_file **out)
{
	char path[40], line[256];
	uint64_t first, last;
	FILE *info;

	*out = NULL;
	if (list_empty(&f->open[node->kind]))
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = fopen(path, "re");
	if (!info)
		return errno == EMFILE || errno == ENFILE ? -ENOMEM : -errno;
	while (!*out && fgets(line, sizeof(line), info))
		if (parse_lock(line, &first, &last))
			*out = in_range_locked(f, node, first, last);
	fclose(info);
	if (*out)
		(void)!lseek(fd, (*out)->token, SEEK_SET);
	return 0;
}

/* The known open file of a description; *out NULL: it is new. */
static int find_locked(struct files *f, struct node *node, int fd, struct open_file **out)
{
	off_t pos = lseek(fd, 0, SEEK_CUR);

	*out = pos <= 0 ? NULL
			: by_token_locked(f, node, (uint64_t)pos >> TOKEN_SHIFT << TOKEN_SHIFT);
	if (*out && owns_token(*out, fd))
		return 0;
	return find_by_locks_locked(f, node, fd, out);
}

/* ---- life ------------------------------------------------------------------------------------ */

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

/* A device of the node that only some may open. NULL: everybody may. */
static const struct vfio_device *guarded(const struct node *node)
{
	if (node->kind == NODE_VFIO_GROUP)
		return node->group->guarded;
	return node->kind == NODE_VFIO_CDEV && node->device->place.noiommu ? node->device->dev
									   : NULL;
}

/* What stands behind a new open file. `vfio` is that already, if not NULL. */
static int open_inside(struct files *f, struct open_file *file, struct vfio_file *vfio,
		       struct task *t)
{
	struct swi_reason *why = (struct swi_reason *)t->caller.reason;
	struct swiommu_options options = {.hooks = f->hooks,
					  .accounts = f->session->accounts,
					  .test_abi = f->session->mocks,
					  .regions = f->session->regions,
					  .noiommu = f->session->noiommu};
	struct node *node = file->node;
	const struct vfio_device *dev = vfio ? NULL : guarded(node);
	int rc = dev ? (int)vfio_device_may_open(dev, &t->caller) : 0;

	if (rc)
		return rc;

	switch (node->kind) {
	case NODE_IOMMU:
		return swiommu_open_with(&options, &file->ctx);
	case NODE_VFIO_CONTAINER:
		return vfio_container_open(f->session->vfio, &file->container);
	case NODE_VFIO_GROUP:
		return vfio_group_file_open(node->group->vfio, &file->group, why);
	default:
		file->vfio = vfio;
		return vfio ? 0 : vfio_file_open(node->device->dev, &file->vfio);
	}
}

static void close_inside(struct open_file *file)
{
	swiommu_close(file->ctx);
	vfio_file_close(file->vfio);
	vfio_group_file_put(file->group);
	vfio_container_put(file->container);
}

static int create_locked(struct files *f, struct node *node, int fd, struct vfio_file *vfio,
			 struct task *t, struct open_file **out)
{
	struct open_file *file = swi_new(struct open_file);
	int rc;

	if (!file)
		return -ENOMEM;
	file->node = node;
	file->token = f->next_token;
	file->refs = 1;
	if (getrandom(&file->secret, sizeof(file->secret), 0) != sizeof(file->secret)) {
		rc = -EIO;
		goto free;
	}
	file->user = t->tid;
	file->read_only = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
	rc = open_inside(f, file, vfio, t);
	if (rc)
		goto free;
	rc = give_token(fd, file->token);
	if (rc)
		goto close;
	f->next_token += 1ull << TOKEN_SHIFT;
	list_add(&f->open[node->kind], &file->entry);
	list_add(bucket_of(f, file->token), &file->bucket);
	*out = file;
	return 0;
close:
	if (vfio)
		file->vfio = NULL;
	close_inside(file);
free:
	swi_free(file);
	return rc;
}

int files_get(struct files *f, int fd, struct task *t, struct open_file **out)
{
	struct node *node = find_node(f->session, fd);
	struct open_file *file;
	int rc;

	if (!node)
		return -ENODEV;
	pthread_mutex_lock(&f->lock);
	rc = find_locked(f, node, fd, &file);
	if (!rc && !file)
		rc = create_locked(f, node, fd, NULL, t, &file);
	if (!rc) {
		file->refs++;
		file->user = t->tid;
		*out = file;
	}
	pthread_mutex_unlock(&f->lock);
	return rc;
}

int files_open(struct files *f, struct node *node, struct vfio_file *vfio, int flags,
	       struct task *t, int *out_fd)
{
	struct open_file *file;
	char path[40];
	int fd, rc;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", node->fd);
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	pthread_mutex_lock(&f->lock);
	rc = create_locked(f, node, fd, vfio, t, &file);
	pthread_mutex_unlock(&f->lock);
	if (rc)
		close(fd);
	else
		*out_fd = fd;
	return rc;
}

int files_get_named(struct files *f, uint64_t token, uint64_t secret, pid_t user,
		    struct open_file **out)
{
	struct list *pos;
	int rc = -ENODEV;

	pthread_mutex_lock(&f->lock);
	list_for_each (pos, bucket_of(f, token)) {
		struct open_file *file = list_entry(pos, struct open_file, bucket);

		if (file->token != token || file->secret != secret)
			continue;
		file->refs++;
		file->user = user;
		*out = file;
		rc = 0;
		break;
	}
	pthread_mutex_unlock(&f->lock);
	return rc;
}

void open_file_name(const struct open_file *file, uint64_t *token, uint64_t *secret)
{
	*token = file->token;
	*secret = file->secret;
}

void open_file_put(struct open_file *file)
{
	if (--file->refs)
		return;
	close_inside(file);
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

bool open_file_read_only(const struct open_file *file)
{
	return file->read_only;
}

struct vfio_file *open_file_vfio(struct open_file *file)
{
	return file->vfio;
}

struct vfio_container *open_file_container(struct open_file *file)
{
	return file->container;
}

struct vfio_group_file *open_file_group(struct open_file *file)
{
	return file->group;
}

/* Whether a thread has ended (perhaps not been reaped yet). Only for reports: its number may be
 * another's by now. */
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
	else if (file->vfio && vfio_file_is_bound(file->vfio))
		f->orphans.devices++;
}

static bool is_closed(struct open_file *file)
{
	return !locked_by_other(file->node->fd, file->token);
}

static void to_gone_locked(struct files *f, struct open_file *file)
{
	list_del(&file->entry);
	list_del(&file->bucket);
	list_add_tail(&f->gone, &file->entry);
	count_orphan_locked(f, file);
}

/* Moves the files that the program has closed to files.gone; all, if `force`. */
static void collect_gone_locked(struct files *f, bool force)
{
	struct list *pos, *tmp;

	for (size_t kind = 0; kind < ARRAY_SIZE(f->open); kind++)
		list_for_each_safe (pos, tmp, &f->open[kind]) {
			struct open_file *file = list_entry(pos, struct open_file, entry);

			if (force || is_closed(file))
				to_gone_locked(f, file);
		}
}

static struct open_file *take_gone_locked(struct files *f, bool only_devices)
{
	struct list *pos;

	list_for_each (pos, &f->gone) {
		struct open_file *file = list_entry(pos, struct open_file, entry);

		if (only_devices && file->ctx)
			continue;
		list_del(&file->entry);
		return file;
	}
	return NULL;
}

static void release_gone_locked(struct files *f, bool only_devices)
{
	struct open_file *file;
	struct closing c;

	while ((file = take_gone_locked(f, only_devices))) {
		list_init(&c.entry);
		c.number = f->next_closing++;
		if (!file->ctx || f->session->mocks)
			list_add_tail(&f->closing, &c.entry);
		pthread_mutex_unlock(&f->lock);
		open_file_put(
			file); /* if a call on it is in progress, that call's end is the file's */
		pthread_mutex_lock(&f->lock);
		list_del(&c.entry);
		pthread_cond_broadcast(&f->closed);
	}
}

/* Waits for the releases that have begun so far, but not for later ones: there may be no end of
 * them. */
static void wait_closing_locked(struct files *f)
{
	uint64_t end = f->next_closing;

	while (!list_empty(&f->closing) &&
	       list_entry(f->closing.next, struct closing, entry)->number < end)
		pthread_cond_wait(&f->closed, &f->lock);
}

static void sweep(struct files *f, bool force)
{
	pthread_mutex_lock(&f->lock);
	collect_gone_locked(f, force);
	release_gone_locked(f, false);
	pthread_mutex_unlock(&f->lock);
}

/* Whether its being open may hinder somebody: a cdev that is not bound does not. */
static bool hinders(const struct open_file *file)
{
	return !file->vfio || vfio_file_is_bound(file->vfio);
}

void files_settle(struct files *f)
{
	static const enum node_kind kinds[] = {NODE_VFIO_CDEV, NODE_VFIO_GROUP,
					       NODE_VFIO_CONTAINER};
	struct list *pos, *tmp;

	pthread_mutex_lock(&f->lock);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		list_for_each_safe (pos, tmp, &f->open[kinds[i]]) {
			struct open_file *file = list_entry(pos, struct open_file, entry);

			if (hinders(file) && is_closed(file))
				to_gone_locked(f, file);
		}
	if (f->session->mocks)
		collect_gone_locked(f, false);
	release_gone_locked(f, !f->session->mocks);
	wait_closing_locked(f);
	pthread_mutex_unlock(&f->lock);
	if (f->session->mocks)
		swiommu_regions_settle(f->session->regions);
}

void files_get_orphans(struct files *f, struct files_orphans *out)
{
	pthread_mutex_lock(&f->lock);
	collect_gone_locked(f, false);
	*out = f->orphans;
	pthread_mutex_unlock(&f->lock);
}

/* ---- the sweeper ----------------------------------------------------------------------------- */

/* At 50 us, 200 us ... 0.8 s after the event. */
#define SWEEPS_AFTER_CLOSE 8

static void drain(int fd)
{
	char buf[4096];

	while (read(fd, buf, sizeof(buf)) > 0)
		;
}

static void *sweeper(void *arg)
{
	struct files *f = arg;
	struct pollfd fds[] = {{.fd = f->inotify, .events = POLLIN},
			       {.fd = f->stop, .events = POLLIN},
			       {.fd = swiommu_files_fd(f->session->given), .events = POLLIN}};
	unsigned int again = 0; /* sweeps still to do after a close, at growing distance */
	struct timespec timeout = {0};

	for (;;) {
		timeout.tv_nsec = 50000l << 2 * (SWEEPS_AFTER_CLOSE - again);
		if (ppoll(fds, ARRAY_SIZE(fds), again ? &timeout : NULL, NULL) < 0)
			continue;
		if (fds[1].revents)
			return NULL;
		if (fds[2].revents)
			swiommu_files_sweep(f->session->given);
		if (fds[0].revents) {
			drain(f->inotify);
			again = SWEEPS_AFTER_CLOSE;
		} else if (again) {
			again--;
		}
		sweep(f, false);
		shares_sweep(f->session->shares);
		/* Whatever a program mapped may have gone with it, and keep the memory of its contexts. */
		if (again && f->session->mocks)
			swiommu_regions_settle(f->session->regions);
	}
}

void files_destroy(struct files *f)
{
	if (!f)
		return;
	(void)!write(f->stop, &(uint64_t){1}, sizeof(uint64_t));
	pthread_join(f->sweeper, NULL);
	sweep(f, true);
	swiommu_regions_settle(f->session->regions);
	swiommu_regions_destroy(f->session->regions);
	f->session->regions = NULL;
	close(f->stop);
	close(f->inotify);
	pthread_cond_destroy(&f->closed);
	pthread_mutex_destroy(&f->lock);
	swi_free(f);
}
