// SPDX-License-Identifier: MIT
/*
 * The object table: see object.h for the life of an object and the meaning of the counts.
 *
 * IDs are handed out lowest first, as the kernel does and its users have come to expect. The table
 * is an array indexed by ID; `lowest_free` remembers below which ID there is nothing to look for.
 *
 * One mutex guards slots and counts; it is a leaf (nothing is called under it) and is held for a
 * few loads and stores at a time.
 */
#include "core/object.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "core/ctx.h"

/* An ID that is taken, with nothing to be found under it. Never dereferenced. */
static struct obj reserved_marker;
#define RESERVED (&reserved_marker)

#define ID_LIMIT 0x80000000u
#define DESTROY_WAIT_SECONDS 60

void obj_table_init(struct obj_table *t)
{
	memset(t, 0, sizeof(*t));
	t->lowest_free = 1;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->idle, NULL);
}

void obj_table_fini(struct obj_table *t)
{
	swi_free(t->slots);
	pthread_cond_destroy(&t->idle);
	pthread_mutex_destroy(&t->lock);
}

/* Makes room for `id`. Table locked. */
static int grow_locked(struct obj_table *t, uint32_t id)
{
	uint32_t size = t->size ? t->size : 16;
	struct obj **slots;

	while (size <= id)
		size *= 2;
	if (size == t->size)
		return 0;
	slots = swi_realloc(t->slots, size * sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	memset(slots + t->size, 0, (size - t->size) * sizeof(*slots));
	t->slots = slots;
	t->size = size;
	return 0;
}

static void clear_slot_locked(struct obj_table *t, uint32_t id)
{
	t->slots[id] = NULL;
	t->used--;
	if (id < t->lowest_free)
		t->lowest_free = id;
}

int obj_alloc(struct iommufd_ctx *ctx, const struct obj_ops *ops, struct obj **out)
{
	struct obj_table *t = &ctx->table;
	struct obj *obj;
	uint32_t id;
	int rc;

	obj = swi_zalloc(ops->size);
	if (!obj)
		return -ENOMEM;
	obj->ops = ops;
	obj->ctx = ctx;
	obj->users = 1;
	obj->wait_cnt = 1;
	pthread_mutex_lock(&t->lock);
	for (id = t->lowest_free; id < t->size && t->slots[id]; id++)
		;
	rc = id >= ID_LIMIT ? -EBUSY : grow_locked(t, id);
	if (!rc) {
		obj->id = id;
		t->slots[id] = RESERVED;
		t->lowest_free = id + 1;
		t->used++;
	}
	pthread_mutex_unlock(&t->lock);
	if (rc) {
		swi_free(obj);
		return rc;
	}
	*out = obj;
	return 0;
}

/* Takes a published object out of its slot. */
static void unlink_locked(struct obj_table *t, struct obj *obj)
{
	obj->users = 0;
	obj->wait_cnt = 0;
	if (obj->ops->unlinked)
		obj->ops->unlinked(obj);
	clear_slot_locked(t, obj->id);
}

void obj_publish_locked(struct obj *obj)
{
	obj->ctx->table.slots[obj->id] = obj;
}

void obj_publish(struct obj *obj)
{
	struct obj_table *t = &obj->ctx->table;

	pthread_mutex_lock(&t->lock);
	obj_publish_locked(obj);
	pthread_mutex_unlock(&t->lock);
}

void obj_abort(struct obj *obj, bool destroy)
{
	struct obj_table *t = &obj->ctx->table;

	if (destroy)
		obj->ops->destroy(obj);
	pthread_mutex_lock(&t->lock);
	clear_slot_locked(t, obj->id);
	pthread_mutex_unlock(&t->lock);
	swi_free(obj);
}

/* The published object under an ID, or NULL. */
static struct obj *slot_locked(struct obj_table *t, uint32_t id)
{
	struct obj *obj = id < t->size ? t->slots[id] : NULL;

	return obj == RESERVED ? NULL : obj;
}

/*
 * Whether a call may begin to use it. Calls that overlap each other could keep a destroyer waiting without end, hence
 * `going`.
 */
static bool is_open(const struct obj *obj)
{
	return obj->users && obj->wait_cnt && !obj->going;
}

int obj_get(struct iommufd_ctx *ctx, uint32_t id, enum obj_type type, const char *what,
	    struct swi_reason *why, struct obj **out)
{
	struct obj_table *t = &ctx->table;
	const char *found = NULL;
	struct obj *obj;
	bool fits;

	if (swi_fail_point())
		return swi_fail(why, -ENOENT, "%s %u: injected failure", what, id);
	pthread_mutex_lock(&t->lock);
	obj = slot_locked(t, id);
	fits = obj && (type == OBJ_ANY || obj->ops->type == type);
	if (fits && is_open(obj)) {
		obj->users++;
		obj->wait_cnt++;
		pthread_mutex_unlock(&t->lock);
		*out = obj;
		return 0;
	}
	if (obj)
		found = obj->ops->name;
	pthread_mutex_unlock(&t->lock);
	if (fits)
		return swi_fail(why, -ENOENT, "%s %u (%s) is being taken away", what, id, found);
	if (found)
		return swi_fail(why, -ENOENT, "%s %u is the ID of another kind of object (%s)",
				what, id, found);
	return swi_fail(why, -ENOENT, "%s %u: no object has this ID", what, id);
}

bool obj_try_get(struct obj *obj)
{
	struct obj_table *t = &obj->ctx->table;
	bool ok;

	pthread_mutex_lock(&t->lock);
	ok = is_open(obj);
	if (ok) {
		obj->users++;
		obj->wait_cnt++;
	}
	pthread_mutex_unlock(&t->lock);
	return ok;
}

void obj_put(struct obj *obj)
{
	struct obj_table *t = &obj->ctx->table;

	/* users first: a destroyer that sees wait_cnt 0 must not find a stale user. */
	pthread_mutex_lock(&t->lock);
	obj->users--;
	if (--obj->wait_cnt == 0)
		pthread_cond_broadcast(&t->idle);
	pthread_mutex_unlock(&t->lock);
}

struct obj *obj_get_pointer(struct iommufd_ctx *ctx, struct obj **pointer)
{
	struct obj_table *t = &ctx->table;
	struct obj *obj;

	pthread_mutex_lock(&t->lock);
	obj = *pointer;
	if (obj && is_open(obj)) {
		obj->users++;
		obj->wait_cnt++;
	} else {
		obj = NULL;
	}
	pthread_mutex_unlock(&t->lock);
	return obj;
}

void obj_set_pointer(struct iommufd_ctx *ctx, struct obj **pointer, struct obj *obj)
{
	struct obj_table *t = &ctx->table;

	pthread_mutex_lock(&t->lock);
	*pointer = obj;
	pthread_mutex_unlock(&t->lock);
}

void obj_hold(struct obj *obj)
{
	struct obj_table *t = &obj->ctx->table;

	pthread_mutex_lock(&t->lock);
	obj->users++;
	pthread_mutex_unlock(&t->lock);
}

void obj_unhold(struct obj *obj)
{
	struct obj_table *t = &obj->ctx->table;

	pthread_mutex_lock(&t->lock);
	obj->users--;
	pthread_mutex_unlock(&t->lock);
}

void obj_hold_forever(struct obj *obj)
{
	struct obj_table *t = &obj->ctx->table;

	pthread_mutex_lock(&t->lock);
	obj->users++;
	obj->forever++;
	pthread_mutex_unlock(&t->lock);
}

static void destroy_removed(struct obj *obj)
{
	obj->ops->destroy(obj);
	swi_free(obj);
}

int obj_destroy_id(struct iommufd_ctx *ctx, uint32_t id, struct swi_reason *why)
{
	struct obj_table *t = &ctx->table;
	unsigned int others;
	const char *name;
	struct obj *obj;

	pthread_mutex_lock(&t->lock);
	obj = slot_locked(t, id);
	if (!obj || !obj->users) {
		pthread_mutex_unlock(&t->lock);
		return swi_fail(why, -ENOENT, "id %u: no object has this ID", id);
	}
	if (obj->users > 1) {
		others = obj->users - 1;
		name = obj->ops->name;
		pthread_mutex_unlock(&t->lock);
		return swi_fail(
			why, -EBUSY,
			"id %u (%s) is in use by %u other%s: objects built on it, a driver, "
			"or a call that is running",
			id, name, others, others == 1 ? "" : "s");
	}
	/* Every call in progress counts in both, so at users 1 nobody is inside. */
	unlink_locked(t, obj);
	pthread_mutex_unlock(&t->lock);
	destroy_removed(obj);
	return 0;
}

/* Waits until no call uses the object any more; false after a minute. Table locked. */
static bool wait_idle_locked(struct obj_table *t, struct obj *obj)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += DESTROY_WAIT_SECONDS;
	while (obj->wait_cnt)
		if (pthread_cond_timedwait(&t->idle, &t->lock, &until) == ETIMEDOUT)
			return obj->wait_cnt == 0;
	return true;
}

static int destroy_held(struct obj *obj, bool tombstone)
{
	struct iommufd_ctx *ctx = obj->ctx;
	struct obj_table *t = &ctx->table;
	uint32_t id = obj->id;
	unsigned int users;

	pthread_mutex_lock(&t->lock);
	obj->going = true;
	obj->wait_cnt--;
	if (!wait_idle_locked(t, obj)) {
		obj->wait_cnt++;
		obj->users--;
		pthread_mutex_unlock(&t->lock);
		swi_log(&ctx->log, SWI_LOG_WARN,
			"object %u is still in use after %d s; kept until the "
			"context ends",
			id, DESTROY_WAIT_SECONDS);
		return -ETIMEDOUT;
	}
	users = --obj->users;
	if (users != 1) {
		pthread_mutex_unlock(&t->lock);
		swi_log(&ctx->log, SWI_LOG_WARN,
			"object %u still has %u users when its driver lets it go; kept until the "
			"context ends",
			id, users - 1);
		return -EBUSY;
	}
	unlink_locked(t, obj);
	if (tombstone) {
		/* Taken again before anybody can see it free. */
		t->slots[id] = RESERVED;
		t->used++;
	}
	pthread_mutex_unlock(&t->lock);
	destroy_removed(obj);
	return 0;
}

int obj_destroy_held(struct obj *obj)
{
	return destroy_held(obj, false);
}

int obj_destroy_tombstone(struct obj *obj)
{
	return destroy_held(obj, true);
}

bool obj_unhold_destroy(struct obj *obj)
{
	struct obj_table *t = &obj->ctx->table;
	bool last;

	pthread_mutex_lock(&t->lock);
	last = --obj->users == 1;
	if (last)
		unlink_locked(t, obj);
	pthread_mutex_unlock(&t->lock);
	if (last)
		destroy_removed(obj);
	return last;
}

bool obj_for_each(struct iommufd_ctx *ctx, enum obj_type type,
		  bool (*fn)(struct obj *obj, void *data), void *data)
{
	struct obj_table *t = &ctx->table;
	struct obj *obj;
	bool stop = false;

	pthread_mutex_lock(&t->lock);
	for (uint32_t id = 1; id < t->size && !stop; id++) {
		obj = slot_locked(t, id);
		if (!obj || obj->ops->type != type || !is_open(obj))
			continue;
		obj->users++;
		obj->wait_cnt++;
		pthread_mutex_unlock(&t->lock);
		stop = fn(obj, data);
		obj_put(obj);
		pthread_mutex_lock(&t->lock);
	}
	pthread_mutex_unlock(&t->lock);
	return stop;
}

unsigned int obj_table_release(struct obj_table *t)
{
	unsigned int left;
	bool progress;
	struct obj *obj;

	/* Nobody else can be running: the lock is for the destructors, which drop references. */
	for (uint32_t id = 1; id < t->size; id++) {
		obj = slot_locked(t, id);
		if (obj)
			obj->users -= obj->forever;
	}
	do {
		progress = false;
		left = 0;
		for (uint32_t id = 1; id < t->size; id++) {
			obj = slot_locked(t, id);
			if (!obj)
				continue;
			if (obj->users != 1) {
				left++;
				continue;
			}
			pthread_mutex_lock(&t->lock);
			unlink_locked(t, obj);
			pthread_mutex_unlock(&t->lock);
			destroy_removed(obj);
			progress = true;
		}
	} while (left && progress);
	return left;
}
