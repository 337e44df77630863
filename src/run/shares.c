// SPDX-License-Identifier: MIT
/*
 * Memory that programs have made shared (preload/convert.c): a file per address space, which grows by every stretch. We keep
 * it open, for windows of our own and for servers that a device's memory is passed to; the program has it mapped only. It goes when the
 * address space does. (What the program unmaps before stays allocated until then.)
 */
#include "run/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "mem/owner.h"
#include "run/task.h"

struct share {
	struct list entry;
	struct mem_owner *owner;
	int fd;
	dev_t dev;
	ino_t ino;
	uint64_t size;
};

struct shares {
	pthread_mutex_t
		lock; /* the list; held over looks at the owners, which do not block for long */
	struct list list;
};

int shares_create(struct shares **out)
{
	struct shares *s = swi_new(struct shares);

	if (!s)
		return -ENOMEM;
	pthread_mutex_init(&s->lock, NULL);
	list_init(&s->list);
	*out = s;
	return 0;
}

static void share_free(struct share *share)
{
	if (share->fd >= 0)
		close(share->fd);
	mem_owner_put(share->owner);
	swi_free(share);
}

static void sweep(struct shares *s, bool all)
{
	struct list *pos, *tmp;

	pthread_mutex_lock(&s->lock);
	list_for_each_safe (pos, tmp, &s->list) {
		struct share *share = list_entry(pos, struct share, entry);

		if (!all && !mem_owner_gone(share->owner))
			continue;
		list_del(&share->entry);
		share_free(share);
	}
	pthread_mutex_unlock(&s->lock);
}

void shares_sweep(struct shares *s)
{
	sweep(s, false);
}

void shares_destroy(struct shares *s)
{
	if (!s)
		return;
	sweep(s, true);
	pthread_mutex_destroy(&s->lock);
	swi_free(s);
}

static int make_locked(struct shares *s, struct mem_owner *owner, struct share **out)
{
	struct share *share = swi_new(struct share);
	struct stat st;
	int rc;

	if (!share) {
		mem_owner_put(owner);
		return -ENOMEM;
	}
	share->owner = owner;
	share->fd = memfd_create("swiommu-memory", MFD_CLOEXEC);
	if (share->fd < 0 || fstat(share->fd, &st)) {
		rc = -errno;
		share_free(share);
		return rc;
	}
	share->dev = st.st_dev;
	share->ino = st.st_ino;
	list_add(&s->list, &share->entry);
	*out = share;
	return 0;
}

/* Takes the reference to the owner over. */
static int find_locked(struct shares *s, struct mem_owner *owner, struct share **out)
{
	struct list *pos;

	list_for_each (pos, &s->list) {
		struct share *share = list_entry(pos, struct share, entry);

		if (!mem_owner_same(share->owner, owner))
			continue;
		mem_owner_put(owner);
		*out = share;
		return 0;
	}
	return make_locked(s, owner, out);
}

int shares_add(struct shares *s, struct task *t, uint64_t length, int *out_fd, uint64_t *out_offset,
	       uint64_t *out_inode)
{
	struct share *share = NULL;
	struct mem_owner *owner;
	int rc;

	if (!length || length % SWI_PAGE_SIZE || length > 1ull << 46)
		return -EINVAL;
	shares_sweep(s);
	/* Before the lock: the program's memory is looked at, which may wait for the program. */
	rc = t->caller.ops->get_memory(&t->caller, &owner);
	if (rc)
		return rc;
	pthread_mutex_lock(&s->lock);
	rc = find_locked(s, owner, &share);
	if (rc)
		goto unlock;
	rc = -EMFILE;
	*out_fd = fcntl(share->fd, F_DUPFD_CLOEXEC, 3);
	if (*out_fd < 0)
		goto unlock;
	rc = 0;
	if (share->size + length > 1ull << 47 ||
	    ftruncate(share->fd, (off_t)(share->size + length))) {
		close(*out_fd);
		rc = -ENOMEM;
		goto unlock;
	}
	*out_offset = share->size;
	*out_inode = share->ino;
	share->size += length;
unlock:
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int shares_open(void *shares, dev_t dev, ino_t ino, int mode)
{
	struct shares *s = shares;
	char path[40];
	struct list *pos;
	int fd = -1;

	pthread_mutex_lock(&s->lock);
	list_for_each (pos, &s->list) {
		struct share *share = list_entry(pos, struct share, entry);

		if (share->dev != dev || share->ino != ino)
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", share->fd);
		fd = open(path, mode | O_CLOEXEC);
		break;
	}
	pthread_mutex_unlock(&s->lock);
	return fd;
}
