/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_ACCESS_H
#define SWIOMMU_CORE_ACCESS_H

/*
 * Accesses: software that uses the memory of an IOAS (spec core.md 6).
 *
 * Lock order: access->lock, then ioas->domains, then the map's lock. No lock is held while a
 * driver's unmap callback runs.
 *
 * Entering. What moves or pins data does so inside a read section of the access' own reader, which
 * is at the same time the mutual exclusion between calls on one access: who is inside has the
 * reader. So a single atomic operation both serialises the call and makes unmapping wait for it.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "core/ioas.h"
#include <swiommu/iommufd.h>

/* What a call enters; made by the first one, as it is large. */
struct access_io {
	struct iova_reader reader; /* first: it has cache lines of its own */
	struct ioas *ioas;	   /* rw and pin use it; NULL: none. Who is inside. */
	struct ioas *unpin_ioas; /* the same, but stays during detach and replace. Who is inside. */
	pthread_mutex_t queue;	 /* whoever waits to come in, one at a time */
};

struct iommufd_access {
	struct obj obj;
	bool holds_ctx; /* a reference on obj.ctx; immutable */
	/* Internal: no callback; its pins forbid unmapping instead. Immutable. */
	bool internal;
	const struct iommufd_access_ops *ops; /* immutable */
	void *data;
	_Atomic bool direct; /* see swiommu_access_set_direct() */
	_Atomic bool orphan; /* its driver has let it go without our being able to destroy it */
	_Atomic(struct access_io *) io; /* NULL until first used; then constant */

	pthread_mutex_t lock;
	struct ioas *ioas;	 /* counted; NULL also while a detach or replace is in progress */
	struct ioas *unpin_ioas; /* the same, but during detach and replace the old one */
	uint32_t slot;		 /* in ioas->accesses */
	struct swi_reason why;	 /* of the last failed call */
};

static inline struct iommufd_access *access_of(struct obj *obj)
{
	return container_of(obj, struct iommufd_access, obj);
}

/*
 * An access of the engine itself: it holds no reference on the context, has no callback, and always
 * wants pages. While it has pins in an area, unmapping that gives -EBUSY. -ENOMEM, -EBUSY.
 * Destroyed by iommufd_access_destroy().
 */
int access_create_internal(struct iommufd_ctx *ctx, struct iommufd_access **out);

/*
 * The access' io, made if there is none yet. -ENOENT: not attached (before or now), so that it was
 * not needed; -ENOMEM.
 */
int access_io_get(struct iommufd_access *access, struct access_io **out);
/* Enters, after whoever is inside has left. Left by iova_read_end(). */
void access_enter_slow(struct access_io *io);
static inline void access_enter(struct access_io *io)
{
	if (SWI_UNLIKELY(!iova_read_try_begin(&io->reader)))
		access_enter_slow(io);
}
/* Keeps a reason for swiommu_access_reason(); returns `rc`. Not while inside. */
int access_note(struct iommufd_access *access, const struct swi_reason *why, int rc);

/*
 * iommufd_access_pin_pages() without the checks of who may pin; flags as there. `why` as usual.
 */
int access_pin(struct iommufd_access *access, iova_t iova, uint64_t length, struct page **out_pages,
	       unsigned int flags, struct swi_reason *why);

/*
 * iommufd_access_rw() on behalf of a task that has the address space `caller`, to the letter of
 * spec core.md 6.6; the task's own memory is what is mapped there now even if it is pinned.
 */
int access_rw_for(struct iommufd_access *access, struct mem_owner *caller, iova_t iova, void *data,
		  size_t length, unsigned int flags, struct swi_reason *why);

/* Of an IOAS that is being made or destroyed (without accesses). */
void access_slots_init(struct access_slots *slots);
void access_slots_fini(struct access_slots *slots);

/*
 * Enters the access into the IOAS' list, in *slot, with its demand on the alignment. -EBUSY: 65536 are there;
 * -EADDRINUSE: an area is aligned too finely; -ENOMEM. Nothing changed then. Takes the domains lock.
 */
int ioas_add_access(struct ioas *ioas, struct iommufd_access *access, uint32_t *slot,
		    struct swi_reason *why);
void ioas_remove_access(struct ioas *ioas, struct iommufd_access *access, uint32_t slot);

/*
 * Calls the unmap callback of every access that is attached to the IOAS, in the order of their
 * slots. No lock held. If one is being destroyed, which will release its pins, waits a moment for
 * that instead.
 */
void access_notify_unmap(struct ioas *ioas, iova_t first, uint64_t length);

#endif
