/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_OBJECT_H
#define SWIOMMU_CORE_OBJECT_H

/*
 * Objects and their IDs (spec core.md 1).
 *
 * Life in three steps: obj_alloc() reserves the lowest free ID without publishing the object; the
 * creator does everything that can fail; obj_publish() (cannot fail) makes it visible, or obj_abort()
 * takes it back. After publishing, another thread may destroy it at any moment.
 *
 * Two counts, both guarded by the table's lock:
 *   users     the table's own reference (1), one for each dependent object, holder in a driver, and
 *	       call that is using the object right now. Only at exactly 1 can it be destroyed by ID.
 *   wait_cnt  1 for the table, and one for each call that is using it right now: what the destroyer
 *	       of a driver's object waits for.
 */

#include <pthread.h>

#include "base/base.h"
#include "base/reason.h"

struct iommufd_ctx;
struct obj;

enum obj_type {
	OBJ_ANY, /* for lookups */
	OBJ_IOAS,
	OBJ_HWPT_PAGING,
	OBJ_HWPT_NESTED,
	OBJ_FAULT,
	OBJ_VIOMMU,
	OBJ_VDEVICE,
	OBJ_VEVENTQ,
	OBJ_HW_QUEUE,
	OBJ_DEVICE,
	OBJ_ACCESS,
	OBJ_SELFTEST,
};

struct obj_ops {
	enum obj_type type;
	const char *name; /* for messages */
	size_t size;
	/*
	 * The object's ID is being taken out of the table: forget plain pointers to it. Under the table's lock; may be NULL.
	 */
	void (*unlinked)(struct obj *obj);
	/* Frees what the object owns (not the object itself). Runs once, out of the table's lock. */
	void (*destroy)(struct obj *obj);
};

struct obj {
	const struct obj_ops *ops;
	struct iommufd_ctx *ctx; /* borrowed: an object lives inside its context */
	uint32_t id;
	unsigned int users;    /* table lock */
	unsigned int wait_cnt; /* table lock */
	unsigned int forever;  /* of users: those that end with the context; table lock */
	bool going;	       /* obj_destroy_held() has begun: not found any more; table lock */
};

/* The ID space of one context. slots[id] is NULL, an object, or one of two markers. */
struct obj_table {
	pthread_mutex_t lock;
	pthread_cond_t idle; /* some wait_cnt became 0 */
	struct obj **slots;
	uint32_t size;	      /* of slots */
	uint32_t lowest_free; /* no free ID below; 1.. */
	uint32_t used;	      /* IDs in use: objects, reserved, tombstones */
};

void obj_table_init(struct obj_table *t);
/* The table must have been emptied by obj_table_release(). */
void obj_table_fini(struct obj_table *t);
/*
 * End of the context: destroys everything, dependents first, in ascending rounds (core.md 1.7).
 * Returns the number of objects that could not be destroyed because something still claims them.
 */
unsigned int obj_table_release(struct obj_table *t);

/* A zeroed object with a reserved ID, users = wait_cnt = 1. -ENOMEM; -EBUSY when no ID is free. */
int obj_alloc(struct iommufd_ctx *ctx, const struct obj_ops *ops, struct obj **out);
void obj_publish(struct obj *obj);
void obj_publish_locked(struct obj *obj); /* table's lock held */
/* Of an unpublished object: frees the ID and the object; with `destroy`, what it owns before. */
void obj_abort(struct obj *obj, bool destroy);

/*
 * A published object for the duration of a call; obj_put() ends it. -ENOENT: no such ID, not of that
 * type, or on its way out; with a reason that names the field `what`.
 */
int obj_get(struct iommufd_ctx *ctx, uint32_t id, enum obj_type type, const char *what,
	    struct swi_reason *why, struct obj **out);
void obj_put(struct obj *obj);
/* The same for an object that some other lock keeps from being freed: false if it is on its way out. */
bool obj_try_get(struct obj *obj);

/*
 * Looks up through a plain pointer that `unlinked` clears: the object for the duration of a call, or NULL. And sets such a
 * pointer to a published object that the caller is using.
 */
struct obj *obj_get_pointer(struct iommufd_ctx *ctx, struct obj **pointer);
void obj_set_pointer(struct iommufd_ctx *ctx, struct obj **pointer, struct obj *obj);

/* A reference that outlasts the call, by somebody who holds or depends on the object. */
void obj_hold(struct obj *obj);
void obj_unhold(struct obj *obj);

/* One more, by nobody: the object is in use until the context ends. */
void obj_hold_forever(struct obj *obj);

/* IOMMU_DESTROY: -ENOENT, -EBUSY (never waits for users). */
int obj_destroy_id(struct iommufd_ctx *ctx, uint32_t id, struct swi_reason *why);
/*
 * Destroys an object whose creator holds one reference beyond the table's (a driver's). Blocks new
 * lookups, waits for calls that use it, then destroys. The caller's reference is dropped in any case. -EBUSY: something
 * else still claims it; it stays until the context ends. -ETIMEDOUT: a call has not come back for a minute, and uses it
 * still. In either case it is not found any more.
 */
int obj_destroy_held(struct obj *obj);
/* The same; on success its ID is never used again while the context lives. */
int obj_destroy_tombstone(struct obj *obj);
/*
 * Drops the caller's reference and destroys the object if only the table's is left then. Returns whether
 * it was destroyed.
 */
bool obj_unhold_destroy(struct obj *obj);

/* Calls fn for each published object of a type while it is held for use; stops at true. */
bool obj_for_each(struct iommufd_ctx *ctx, enum obj_type type,
		  bool (*fn)(struct obj *obj, void *data), void *data);

#endif
