// SPDX-License-Identifier: MIT
/*
 * Files that the engine gives out: see include/swiommu/swiommu.h.
 *
 * The table holds our ends of the socket pairs, found by the identity of the other end, the task's. An
 * epoll instance tells which have hung up: that costs one system call however many files there are,
 * and none while there are none. We never ask for input, so what a task writes into its end (which the
 * kernel's files of this kind would refuse) does not matter.
 *
 * Releasing a file may wait for other calls, so it is done without the lock; `releasing` counts those
 * under way, so that a sweep that returns has seen every file that was closed before it began go.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
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
};

/* ---- references ----------------------------------------------------------------------------------- */

void swiommu_file_init(struct swiommu_file *file, const struct swiommu_file_ops *ops)
{
	file->ops = ops;
	file->refs = 1;
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
	for (size_t i = 0; i < BUCKETS; i++)
		list_init(&files->buckets[i]);
	*out = files;
	return 0;
}

int swiommu_files_fd(const struct swiommu_files *files)
{
	return files->epoll;
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
		n = epoll_wait(files->epoll, events, ARRAY_SIZE(events), 0);
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
	pthread_cond_destroy(&files->released);
	pthread_mutex_destroy(&files->lock);
	swi_free(files);
}

/* Makes a socket pair for `file` and puts it into the table; *theirs is the caller's to pass on and close. */
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
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
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
	rc = caller->ops->install_fd(caller, theirs, flags, out_fd);
	close(theirs);
	/* If nobody has it, it has hung up now. */
	if (rc)
		swiommu_files_sweep(caller->files);
	return rc;
}

int swiommu_file_lookup(struct swiommu_caller *caller, int fd, const struct swiommu_file_ops *ops,
			struct swiommu_file **out)
{
	struct given *g;
	struct stat st;
	int copy, rc;

	rc = caller->ops->get_fd(caller, fd, &copy);
	if (rc)
		return rc;
	rc = -EBADFD;
	if (caller->files && !fstat(copy, &st)) {
		pthread_mutex_lock(&caller->files->lock);
		g = find_locked(caller->files, &st);
		if (g && (!ops || g->file->ops == ops)) {
			swiommu_file_get(g->file);
			*out = g->file;
			rc = 0;
		}
		pthread_mutex_unlock(&caller->files->lock);
	}
	close(copy);
	return rc;
}
