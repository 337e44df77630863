// SPDX-License-Identifier: MIT
/*
 * VFIO_DEVICE_IOEVENTFD: an eventfd whose signal writes a value into a register (spec vfio.md 4.6).
 *
 * A thread per device waits for all of them, from the first that is set until the device stops. It writes with
 * the lock held, so that nothing is written any more once the removal of one has returned.
 */
#include "base/alloc.h"
#include "base/list.h"
#include "vfio/irq.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MAX_PER_DEVICE 1000u
#define MIN_SIZE 28u /* up to the descriptor */

struct ioeventfd {
	struct list entry; /* vfio_ioeventfds.all */
	int fd;		   /* owned */
	unsigned int region, size;
	uint64_t offset, data;
};

struct vfio_ioeventfds {
	struct vfio_device *dev;
	pthread_mutex_t lock; /* over all, count, and a write; a leaf but for the model's */
	struct list all;
	unsigned int count;
	int epoll, stop; /* eventfd: the thread is to end; its epoll data is NULL */
	pthread_t thread;
};

/* ---- the thread -------------------------------------------------------------------------- */

/* The event may be an old one, of an ioeventfd that has gone: it counts if it is still there. */
static void fire(struct vfio_ioeventfds *s, const void *which)
{
	struct list *pos;

	pthread_mutex_lock(&s->lock);
	list_for_each (pos, &s->all) {
		struct ioeventfd *e = list_entry(pos, struct ioeventfd, entry);

		if (e != which)
			continue;
		if (vfio_drain_eventfd(e->fd))
			(void)vfio_region_store(s->dev, e->region, e->offset, e->size, e->data);
		break;
	}
	pthread_mutex_unlock(&s->lock);
}

static void *run(void *arg)
{
	struct vfio_ioeventfds *s = arg;
	struct epoll_event event;

	for (;;) {
		if (epoll_wait(s->epoll, &event, 1, -1) != 1)
			continue;
		if (!event.data.ptr)
			return NULL;
		fire(s, event.data.ptr);
	}
}

/* ---- life -------------------------------------------------------------------------------- */

static void destroy(struct vfio_ioeventfds *s)
{
	if (s->stop >= 0)
		close(s->stop);
	if (s->epoll >= 0)
		close(s->epoll);
	pthread_mutex_destroy(&s->lock);
	swi_free(s);
}

static int create(struct vfio_device *dev, struct vfio_ioeventfds **out)
{
	struct vfio_ioeventfds *s = swi_new(struct vfio_ioeventfds);
	struct epoll_event event = {.events = EPOLLIN};
	int rc;

	if (!s)
		return -ENOMEM;
	if (pthread_mutex_init(&s->lock, NULL)) {
		swi_free(s);
		return -ENOMEM;
	}
	s->dev = dev;
	list_init(&s->all);
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	s->stop = eventfd(0, EFD_CLOEXEC);
	rc = s->epoll < 0 || s->stop < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->stop, &event)
		     ? -errno
		     : vfio_thread_start(&s->thread, run, s);
	if (rc)
		destroy(s);
	else
		*out = s;
	return rc;
}

/* The device's, made if there is none yet. */
static int get(struct vfio_device *dev, struct vfio_ioeventfds **out)
{
	int rc = 0;

	pthread_mutex_lock(&dev->life);
	if (!dev->ioeventfds)
		rc = create(dev, &dev->ioeventfds);
	*out = dev->ioeventfds;
	pthread_mutex_unlock(&dev->life);
	return rc;
}

static void drop_locked(struct vfio_ioeventfds *s, struct ioeventfd *e)
{
	list_del(&e->entry);
	s->count--;
	epoll_ctl(s->epoll, EPOLL_CTL_DEL, e->fd, NULL);
	close(e->fd);
	swi_free(e);
}

void vfio_ioeventfds_stop(struct vfio_device *dev)
{
	struct vfio_ioeventfds *s;
	const uint64_t one = 1;

	pthread_mutex_lock(&dev->life);
	s = dev->ioeventfds;
	dev->ioeventfds = NULL;
	pthread_mutex_unlock(&dev->life);
	if (!s)
		return;
	(void)!write(s->stop, &one, sizeof(one));
	pthread_join(s->thread, NULL);
	while (!list_empty(&s->all))
		drop_locked(s, list_entry(s->all.next, struct ioeventfd, entry));
	destroy(s);
}

/* ---- the call ---------------------------------------------------------------------------- */

static const char what[] = "VFIO_DEVICE_IOEVENTFD";

static long check(const struct vfio_device *dev, struct swiommu_caller *caller,
		  const struct vfio_device_ioeventfd *req, struct ioeventfd *e)
{
	uint64_t off = req->offset & ((1ull << VFIO_REGION_SHIFT) - 1);
	uint64_t region = req->offset >> VFIO_REGION_SHIFT, start, end;

	e->size = req->flags;
	if (req->flags & ~VFIO_DEVICE_IOEVENTFD_SIZE_MASK || !is_pow2_u64(req->flags))
		return vfio_fail(caller, -EINVAL, "%s: flags 0x%x: exactly one size needed", what,
				 req->flags);
	if (req->fd < -1)
		return vfio_fail(caller, -EINVAL, "%s: fd is %d", what, req->fd);
	if (region >= VFIO_NR_BARS || off >= dev->regions[region].size ||
	    e->size > dev->regions[region].size - off)
		return vfio_fail(caller, -EINVAL,
				 "%s: offset 0x%llx: %u bytes that are not inside a BAR", what,
				 (unsigned long long)req->offset, e->size);
	e->region = (unsigned int)region;
	e->offset = off;
	e->data = req->data;
	vfio_region_msix_table(dev, e->region, &start, &end);
	if (off < end && off + e->size > start)
		return vfio_fail(caller, -EINVAL, "%s: offset 0x%llx lies in the MSI-X table", what,
				 (unsigned long long)req->offset);
	return 0;
}

static struct ioeventfd *find_locked(struct vfio_ioeventfds *s, const struct ioeventfd *like)
{
	struct list *pos;

	list_for_each (pos, &s->all) {
		struct ioeventfd *e = list_entry(pos, struct ioeventfd, entry);

		if (e->region == like->region && e->offset == like->offset &&
		    e->size == like->size && e->data == like->data)
			return e;
	}
	return NULL;
}

static long remove_locked(struct vfio_ioeventfds *s, struct swiommu_caller *caller,
			  const struct ioeventfd *like)
{
	struct ioeventfd *e = find_locked(s, like);

	if (!e)
		return vfio_fail(caller, -ENODEV, "%s: nothing is set for this register and value",
				 what);
	drop_locked(s, e);
	return 0;
}

static long check_new_locked(struct vfio_ioeventfds *s, struct swiommu_caller *caller,
			     const struct ioeventfd *like)
{
	if (find_locked(s, like))
		return vfio_fail(caller, -EEXIST, "%s: set for this register and value already",
				 what);
	if (s->count == MAX_PER_DEVICE)
		return vfio_fail(caller, -ENOSPC, "%s: the device has %u, the limit", what,
				 MAX_PER_DEVICE);
	return 0;
}

/* Takes `fd` over on success. */
static long add_locked(struct vfio_ioeventfds *s, struct swiommu_caller *caller,
		       const struct ioeventfd *like, int fd)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};
	struct ioeventfd *e;
	long rc = check_new_locked(s, caller, like);

	if (rc)
		return rc;
	e = swi_new(struct ioeventfd);
	if (!e)
		return vfio_fail(caller, -ENOMEM, "%s: out of memory", what);
	*e = *like;
	e->fd = fd;
	event.data.ptr = e;
	if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event)) {
		swi_free(e);
		return vfio_fail(caller, -ENOMEM, "%s: out of memory", what);
	}
	list_add_tail(&s->all, &e->entry);
	s->count++;
	return 0;
}

long vfio_ioctl_ioeventfd(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg)
{
	struct vfio_device_ioeventfd req = {0};
	struct ioeventfd like = {.fd = -1};
	struct vfio_ioeventfds *s;
	int fd = -1;
	long rc;

	rc = vfio_get_min(caller, &req, arg, MIN_SIZE, what);
	if (!rc)
		rc = check(file->dev, caller, &req, &like);
	if (rc)
		return rc;
	rc = get(file->dev, &s);
	if (rc)
		return vfio_fail(caller, rc, "%s: no memory, descriptor or thread", what);
	pthread_mutex_lock(&s->lock);
	rc = req.fd < 0 ? remove_locked(s, caller, &like) : check_new_locked(s, caller, &like);
	pthread_mutex_unlock(&s->lock);
	if (rc || req.fd < 0)
		return rc;
	rc = vfio_get_eventfd(caller, req.fd, &fd);
	if (rc)
		return vfio_fail(caller, rc, "%s: fd %d is %s", what, req.fd,
				 rc == -EBADF ? "not open" : "not an eventfd");
	pthread_mutex_lock(&s->lock);
	rc = add_locked(s, caller, &like, fd);
	pthread_mutex_unlock(&s->lock);
	if (rc)
		close(fd);
	return rc;
}
