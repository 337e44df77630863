// SPDX-License-Identifier: MIT
/*
 * Files that the engine gives out: see include/swiommu/swiommu.h.
 *
 * The table holds our ends of the socket pairs, found by the identity of the other end, the task's. An
 * epoll instance tells which have hung up: that costs one system call however many files there are,
 * and none while there are none. We never ask for input, so what a task writes into its end (which the
 * kernel's files of this kind would refuse) does not matter.
 *
 * Files that can be polled are pipes instead: the task has an end that is readable while a byte lies in the
 * pipe, and, opened for both directions, always writable. The byte is put in and taken out through a third
 * opening of the pipe that lives for that moment only, so that our own end still sees the task's go: as a reader
 * that has no writer, or a writer that has no reader. A sweep waits for such moments (`signalling`), or it would miss
 * a file that is closed while events are reported.
 *
 * Releasing a file may wait for other calls, so it is done without the lock; `releasing` counts those
 * under way, so that a sweep that returns has seen every file that was closed before it began go.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/list.h"
#include <swiommu/swiommu.h>

#define BUCKETS 64

struct given {
	struct list entry;	   /* in a bucket, then in a list of what is to be released */
	struct swiommu_file *file; /* counted */
	int ours;
	dev_t dev; /* of the task's end */
	ino_t ino;
};

struct swiommu_files {
	pthread_mutex_t lock;
	pthread_cond_t released;
	struct list buckets[BUCKETS]; /* struct given.entry; lock */
	unsigned int releasing;	      /* lock */
	_Atomic unsigned int count;   /* files in the table or being released */
	int epoll;
	pthread_mutex_t signalling; /* a leaf; inside `lock`, and inside what guards the events of a file */
};

/* ---- references ----------------------------------------------------------------------------------- */

void swiommu_file_init(struct swiommu_file *file, const struct swiommu_file_ops *ops)
{
	file->ops = ops;
	file->refs = 1;
	file->signal_fd = -1;
}

void swiommu_file_get(struct swiommu_file *file)
{
	__atomic_add_fetch(&file->refs, 1, __ATOMIC_RELAXED);
}

void swiommu_file_put(struct swiommu_file *file)
{
	if (!__atomic_sub_fetch(&file->refs, 1, __ATOMIC_ACQ_REL))
		file->ops->release(file);
}

/* ---- the table ------------------------------------------------------------------------------------ */

int swiommu_files_create(struct swiommu_files **out)
{
	struct swiommu_files *files = swi_new(struct swiommu_files);

	if (!files)
		return -ENOMEM;
	files->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (files->epoll < 0) {
		swi_free(files);
		return errno == EMFILE ? -EMFILE : -ENOMEM;
	}
	pthread_mutex_init(&files->lock, NULL);
	pthread_cond_init(&files->released, NULL);
	pthread_mutex_init(&files->signalling, NULL);
	for (size_t i = 0; i < BUCKETS; i++)
		list_init(&files->buckets[i]);
	*out = files;
	return 0;
}

int swiommu_files_fd(const struct swiommu_files *files)
{
	return files->epoll;
}

bool swiommu_files_any(const struct swiommu_files *files)
{
	return files && atomic_load(&files->count);
}

static struct list *bucket_of(struct swiommu_files *files, ino_t ino)
{
	return &files->buckets[ino % BUCKETS];
}

static struct given *find_locked(struct swiommu_files *files, const struct stat *st)
{
	struct list *pos;

	list_for_each (pos, bucket_of(files, st->st_ino)) {
		struct given *g = list_entry(pos, struct given, entry);

		if (g->ino == st->st_ino && g->dev == st->st_dev)
			return g;
	}
	return NULL;
}

static void take_locked(struct swiommu_files *files, struct given *g, struct list *gone)
{
	list_del(&g->entry);
	list_add_tail(gone, &g->entry);
	files->releasing++;
}

/* Closing our end only now keeps the number of the task's socket from being used again meanwhile. */
static void release_all(struct swiommu_files *files, struct list *gone)
{
	while (!list_empty(gone)) {
		struct given *g = list_entry(gone->next, struct given, entry);

		list_del(&g->entry);
		if (!g->file->ops->read)
			close(g->ours);
		swiommu_file_put(g->file);
		swi_free(g);
		pthread_mutex_lock(&files->lock);
		files->releasing--;
		files->count--;
		pthread_cond_broadcast(&files->released);
		pthread_mutex_unlock(&files->lock);
	}
}

void swiommu_files_sweep(struct swiommu_files *files)
{
	struct epoll_event events[16];
	unsigned int fail_nth;
	struct list gone;
	int n;

	if (!atomic_load(&files->count))
		return;
	/* Whoever comes by does the releasing, which must not use up the failures injected into him. */
	fail_nth = swi_alloc_fail_nth(0);
	do {
		list_init(&gone);
		pthread_mutex_lock(&files->lock);
		pthread_mutex_lock(&files->signalling);
		n = epoll_wait(files->epoll, events, ARRAY_SIZE(events), 0);
		pthread_mutex_unlock(&files->signalling);
		for (int i = 0; i < n; i++) {
			struct given *g = events[i].data.ptr;

			epoll_ctl(files->epoll, EPOLL_CTL_DEL, g->ours, NULL);
			take_locked(files, g, &gone);
		}
		pthread_mutex_unlock(&files->lock);
		release_all(files, &gone);
	} while (n == (int)ARRAY_SIZE(events));
	pthread_mutex_lock(&files->lock);
	while (files->releasing)
		pthread_cond_wait(&files->released, &files->lock);
	pthread_mutex_unlock(&files->lock);
	swi_alloc_fail_nth(fail_nth);
}

void swiommu_files_destroy(struct swiommu_files *files)
{
	struct list gone;

	if (!files)
		return;
	list_init(&gone);
	pthread_mutex_lock(&files->lock);
	for (size_t i = 0; i < BUCKETS; i++)
		while (!list_empty(&files->buckets[i]))
			take_locked(files, list_entry(files->buckets[i].next, struct given, entry),
				    &gone);
	pthread_mutex_unlock(&files->lock);
	release_all(files, &gone);
	close(files->epoll);
	pthread_mutex_destroy(&files->signalling);
	pthread_cond_destroy(&files->released);
	pthread_mutex_destroy(&files->lock);
	swi_free(files);
}

/* Opens one end of a pipe anew. */
static int reopen(int fd, int flags)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_CLOEXEC);
}

/* pair[0] is ours, pair[1] the task's. */
static int make_ends(const struct swiommu_file_ops *ops, int pair[2])
{
	int both;

	if (!ops->read)
		return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	if (pipe2(pair, O_CLOEXEC))
		return -1;
	if (!ops->write) {
		both = pair[0];
		pair[0] = pair[1];
		pair[1] = both;
		return 0;
	}
	both = reopen(pair[0], O_RDWR);
	close(pair[1]);
	pair[1] = both;
	if (both >= 0)
		return 0;
	close(pair[0]);
	return -1;
}

void swiommu_file_signal(struct swiommu_file *file, bool readable)
{
	char buf[16];
	int fd;

	if (file->signal_fd < 0)
		return;
	pthread_mutex_lock(&file->files->signalling);
	fd = reopen(file->signal_fd, O_RDWR | O_NONBLOCK);
	if (fd >= 0) {
		while (read(fd, buf, sizeof(buf)) > 0)
			;
		if (readable)
			(void)!write(fd, "", 1);
		close(fd);
	}
	pthread_mutex_unlock(&file->files->signalling);
}

void swiommu_file_unsignal(struct swiommu_file *file)
{
	if (file->signal_fd >= 0)
		close(file->signal_fd);
	file->signal_fd = -1;
}

/* Makes the two ends of `file` and puts it into the table; *theirs is the caller's to pass on and close. */
static int add(struct swiommu_files *files, struct swiommu_file *file, int *theirs)
{
	struct epoll_event event = {0}; /* hang-up is always reported */
	struct given *g;
	struct stat st;
	int pair[2], rc;

	g = swi_new(struct given);
	if (!g)
		return -ENOMEM;
	if (swi_fail_point()) {
		rc = -ENOMEM;
		goto free;
	}
	if (make_ends(file->ops, pair)) {
		rc = errno == EMFILE ? -EMFILE : -ENOMEM;
		goto free;
	}
	if (fstat(pair[1], &st)) {
		rc = -errno;
		goto close;
	}
	g->file = file;
	g->ours = pair[0];
	g->dev = st.st_dev;
	g->ino = st.st_ino;
	event.data.ptr = g;
	pthread_mutex_lock(&files->lock);
	rc = epoll_ctl(files->epoll, EPOLL_CTL_ADD, g->ours, &event) ? -ENOMEM : 0;
	if (!rc) {
		swiommu_file_get(file);
		if (file->ops->read) {
			file->files = files;
			file->signal_fd = g->ours;
		}
		list_add(bucket_of(files, g->ino), &g->entry);
		files->count++;
	}
	pthread_mutex_unlock(&files->lock);
	if (rc)
		goto close;
	*theirs = pair[1];
	return 0;
close:
	close(pair[0]);
	close(pair[1]);
free:
	swi_free(g);
	return rc;
}

/* ---- giving out and finding ----------------------------------------------------------------------- */

int swiommu_file_install(struct swiommu_caller *caller, struct swiommu_file *file, int flags,
			 int *out_fd)
{
	int theirs = -1, rc;

	if (!caller->files || !caller->ops->install_fd)
		return -EOPNOTSUPP;
	rc = add(caller->files, file, &theirs);
	if (rc)
		return rc;
	rc = caller->ops->install_fd(caller, theirs,
				     flags | (file->ops->read ? SWIOMMU_FD_EVENTS : 0), out_fd);
	close(theirs);
	/* If nobody has it, it has hung up now. */
	if (rc)
		swiommu_files_sweep(caller->files);
	return rc;
}

int swiommu_files_find(struct swiommu_files *files, int fd, const struct swiommu_file_ops *ops,
		       struct swiommu_file **out)
{
	struct given *g;
	struct stat st;
	int rc = -EBADFD;

	if (!files || !atomic_load(&files->count) || fstat(fd, &st))
		return rc;
	pthread_mutex_lock(&files->lock);
	g = find_locked(files, &st);
	if (g && (!ops || g->file->ops == ops)) {
		swiommu_file_get(g->file);
		*out = g->file;
		rc = 0;
	}
	pthread_mutex_unlock(&files->lock);
	return rc;
}

int swiommu_file_lookup(struct swiommu_caller *caller, int fd, const struct swiommu_file_ops *ops,
			struct swiommu_file **out)
{
	int copy, rc;

	rc = caller->ops->get_fd(caller, fd, &copy);
	if (rc)
		return rc;
	rc = swiommu_files_find(caller->files, copy, ops, out);
	close(copy);
	return rc;
}

/* ---- read and write ------------------------------------------------------------------------------- */

ssize_t swiommu_read(struct swiommu_caller *caller, int fd, uint64_t uptr, size_t count)
{
	struct swiommu_file *file;
	ssize_t rc = swiommu_file_lookup(caller, fd, NULL, &file);

	if (rc)
		return rc;
	rc = file->ops->read ? file->ops->read(file, caller, uptr, count) : -EINVAL;
	swiommu_file_put(file);
	return rc;
}

ssize_t swiommu_write(struct swiommu_caller *caller, int fd, uint64_t uptr, size_t count)
{
	struct swiommu_file *file;
	ssize_t rc = swiommu_file_lookup(caller, fd, NULL, &file);

	if (rc)
		return rc;
	rc = file->ops->write ? file->ops->write(file, caller, uptr, count) : -EINVAL;
	swiommu_file_put(file);
	return rc;
}
