// SPDX-License-Identifier: MIT
/*
 * The life of accesses: created, attached, moved, detached, destroyed (spec core.md 6.2). The list
 * of them that each IOAS keeps is in access_list.c, pins are in access_pin.c, and access_rw.c moves
 * data.
 *
 * An access knows its IOAS twice. `ioas` is what rw and pin use, `unpin_ioas` what unpin uses; they
 * differ from the moment at which a detach or replace begins until it ends. In between the driver's
 * callback is asked to release all pins, without our holding a lock, so all other calls may come
 * in: they find `ioas` empty. Both exist a second time in struct access_io, for those inside;
 * switch_io() changes them there from the inside, which waits for the call in progress. So after
 * the switch no pin can be added, and the callback that follows finds them all.
 *
 * Keeping alive: the IOAS is counted by its accesses. An access is counted by each callback in
 * progress (as a call that uses the object), for which destroying waits; an access that is being
 * destroyed gets no more callbacks but the last one.
 */
#include "core/access.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

#include "base/alloc.h"
#include "core/ctx.h"

/* ---- being inside ---------------------------------------------------------------------------- */

void access_enter_slow(struct access_io *io)
{
	unsigned int rounds = 0;

	/* A call is short, unless it waits for a client's memory: look often at first, then rarely.
	 */
	pthread_mutex_lock(&io->queue);
	while (!iova_read_try_begin(&io->reader)) {
		struct timespec nap = {0, rounds < 200 ? 30000 : 500000};

		if (rounds++ < 100)
			sched_yield();
		else
			nanosleep(&nap, NULL);
	}
	pthread_mutex_unlock(&io->queue);
}

static int io_create_locked(struct iommufd_access *access)
{
	struct access_io *io = swi_zalloc_aligned(SWI_CACHELINE, sizeof(*io));
	int rc;

	if (!io)
		return -ENOMEM;
	rc = iova_reader_init(&io->reader);
	if (rc)
		goto free;
	rc = iova_reader_attach(&io->reader, access->ioas->map);
	if (rc)
		goto fini;
	io->ioas = io->unpin_ioas = access->ioas;
	pthread_mutex_init(&io->queue, NULL);
	atomic_store_explicit(&access->io, io, memory_order_release);
	return 0;
fini:
	iova_reader_fini(&io->reader);
free:
	swi_free(io);
	return rc;
}

int access_io_get(struct iommufd_access *access, struct access_io **out)
{
	int rc = 0;

	*out = atomic_load_explicit(&access->io, memory_order_acquire);
	if (SWI_LIKELY(*out))
		return 0;
	pthread_mutex_lock(&access->lock);
	*out = atomic_load_explicit(&access->io, memory_order_relaxed);
	if (!*out) {
		rc = access->ioas ? io_create_locked(access) : -ENOENT;
		*out = atomic_load_explicit(&access->io, memory_order_relaxed);
	}
	pthread_mutex_unlock(&access->lock);
	return rc;
}

/* When this returns, calls that used other IOASes than these have ended. access->lock held. */
static void switch_io(struct access_io *io, struct ioas *ioas, struct ioas *unpin_ioas)
{
	if (!io)
		return;
	access_enter(io);
	io->ioas = ioas;
	io->unpin_ioas = unpin_ioas;
	iova_read_end(&io->reader);
}

/* ---- attach, replace, detach ----------------------------------------------------------------- */

static void release_pins_unlocked(struct iommufd_access *access)
{
	if (!access->internal && access->ops->unmap && !access->orphan)
		access->ops->unmap(access->data, 0, ULONG_MAX);
}

/* What may fail of going to `next`; the caller is using it. access->lock held. */
static int join_locked(struct iommufd_access *access, struct ioas *next, uint32_t *slot,
		       struct swi_reason *why)
{
	struct access_io *io = access->io;
	int rc;

	rc = ioas_add_access(next, access, slot, why);
	if (rc)
		return rc;
	if (io) {
		rc = iova_reader_attach(&io->reader, next->map);
		if (rc) {
			ioas_remove_access(next, access, *slot);
			return swi_fail(why, rc, "no memory for the access' reader");
		}
	}
	obj_hold(&next->obj);
	return 0;
}

/*
 * From the current IOAS, if any, to `next`, which has been joined in `slot`, or to none.
 * access->lock held, but dropped for the callback.
 */
static void move_locked(struct iommufd_access *access, struct ioas *next, uint32_t slot)
{
	uint32_t old_slot = access->slot;
	struct access_io *io = access->io;
	struct ioas *old = access->ioas;

	if (old) {
		access->ioas = NULL;
		switch_io(io, NULL, old);
		pthread_mutex_unlock(&access->lock);
		release_pins_unlocked(access);
		pthread_mutex_lock(&access->lock);
	}
	/* No io can have been made meanwhile, as there was no IOAS. */
	access->ioas = access->unpin_ioas = next;
	access->slot = slot;
	switch_io(io, next, next);
	if (!old)
		return;
	if (io)
		iova_reader_detach(&io->reader, old->map);
	ioas_remove_access(old, access, old_slot);
	obj_unhold(&old->obj);
}

int iommufd_access_attach(struct iommufd_access *access, uint32_t ioas_id)
{
	struct swi_reason why = {""};
	struct obj *obj;
	uint32_t slot;
	int rc;

	pthread_mutex_lock(&access->lock);
	if (access->ioas) {
		rc = swi_fail(&why, -EINVAL, "access %u is attached already", access->obj.id);
		goto out;
	}
	rc = obj_get(access->obj.ctx, ioas_id, OBJ_IOAS, "ioas_id", &why, &obj);
	if (rc)
		goto out;
	if (access->unpin_ioas)
		rc = swi_fail(&why, -EBUSY, "access %u is being detached or moved", access->obj.id);
	else
		rc = join_locked(access, ioas_of(obj), &slot, &why);
	if (!rc)
		move_locked(access, ioas_of(obj), slot);
	obj_put(obj);
out:
	pthread_mutex_unlock(&access->lock);
	return access_note(access, &why, rc);
}

int iommufd_access_replace(struct iommufd_access *access, uint32_t ioas_id)
{
	struct swi_reason why = {""};
	struct obj *obj;
	uint32_t slot;
	int rc;

	pthread_mutex_lock(&access->lock);
	if (!access->ioas) {
		rc = swi_fail(&why, -ENOENT, "access %u is not attached", access->obj.id);
		goto out;
	}
	rc = obj_get(access->obj.ctx, ioas_id, OBJ_IOAS, "ioas_id", &why, &obj);
	if (rc)
		goto out;
	if (ioas_of(obj) != access->ioas) {
		rc = join_locked(access, ioas_of(obj), &slot, &why);
		if (!rc)
			move_locked(access, ioas_of(obj), slot);
	}
	obj_put(obj);
out:
	pthread_mutex_unlock(&access->lock);
	return access_note(access, &why, rc);
}

void iommufd_access_detach(struct iommufd_access *access)
{
	bool attached;

	pthread_mutex_lock(&access->lock);
	attached = access->ioas;
	if (attached)
		move_locked(access, NULL, 0);
	pthread_mutex_unlock(&access->lock);
	if (!attached)
		swi_log(&access->obj.ctx->log, SWI_LOG_WARN,
			"access %u is detached, but was not attached", access->obj.id);
}

/* ---- create and destroy ---------------------------------------------------------------------- */

static void access_destroy(struct obj *obj)
{
	struct iommufd_access *access = access_of(obj);
	struct access_io *io;

	pthread_mutex_lock(&access->lock);
	if (access->ioas)
		move_locked(access, NULL, 0);
	pthread_mutex_unlock(&access->lock);
	io = access->io;
	if (io) {
		iova_reader_fini(&io->reader);
		pthread_mutex_destroy(&io->queue);
		swi_free(io);
	}
	pthread_mutex_destroy(&access->lock);
}

static const struct obj_ops access_ops = {
	.type = OBJ_ACCESS,
	.name = "access",
	.size = sizeof(struct iommufd_access),
	.destroy = access_destroy,
};

/* Unpublished, with the driver's reference. */
static int create(struct iommufd_ctx *ctx, struct iommufd_access **out)
{
	struct obj *obj;
	int rc;

	rc = obj_alloc(ctx, &access_ops, &obj);
	if (rc)
		return rc;
	*out = access_of(obj);
	pthread_mutex_init(&(*out)->lock, NULL);
	obj_hold(obj);
	return 0;
}

struct iommufd_access *iommufd_access_create(struct iommufd_ctx *ictx,
					     const struct iommufd_access_ops *ops, void *data,
					     uint32_t *id)
{
	struct iommufd_access *access;
	int rc;

	if (!ops)
		return ERR_PTR(-EINVAL);
	rc = create(ictx, &access);
	if (rc)
		return ERR_PTR(rc);
	access->ops = ops;
	access->data = data;
	access->holds_ctx = true;
	iommufd_ctx_get(ictx);
	*id = access->obj.id;
	obj_publish(&access->obj);
	return access;
}

int access_create_internal(struct iommufd_ctx *ctx, struct iommufd_access **out)
{
	int rc = create(ctx, out);

	if (rc)
		return rc;
	(*out)->internal = true;
	obj_publish(&(*out)->obj);
	return 0;
}

void iommufd_access_destroy(struct iommufd_access *access)
{
	struct iommufd_ctx *ctx = access->holds_ctx ? access->obj.ctx : NULL;

	/* A callback that does not return (or destroys its own access) keeps the object until the
	 * context ends. */
	if (obj_destroy_held(&access->obj))
		access->orphan = true;
	iommufd_ctx_put(ctx);
}

/* ---- the rest -------------------------------------------------------------------------------- */

int access_note(struct iommufd_access *access, const struct swi_reason *why, int rc)
{
	if (!rc)
		return 0;
	pthread_mutex_lock(&access->lock);
	access->why = *why;
	pthread_mutex_unlock(&access->lock);
	return rc;
}

void swiommu_access_reason(struct iommufd_access *access, char *buf, size_t size)
{
	pthread_mutex_lock(&access->lock);
	snprintf(buf, size, "%s", access->why.text);
	pthread_mutex_unlock(&access->lock);
}

void swiommu_access_set_direct(struct iommufd_access *access, bool direct)
{
	access->direct = direct;
}

struct iommufd_ctx *iommufd_ctx_from_fd(int fd)
{
	return ERR_PTR(fcntl(fd, F_GETFD) < 0 ? -EBADF : -EBADFD);
}
