// SPDX-License-Identifier: MIT
/*
 * The list of owners in use.
 *
 * It holds no references: an owner whose last one goes takes itself off the list, and whoever looks meanwhile takes
 * none that is on its way (refs is 0). The list is counted, by its creator and by what is listed.
 */
#include "mem/owners.h"

#include "base/alloc.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#define BUCKETS 64

struct mem_owners {
	_Atomic unsigned refs;
	pthread_mutex_t lock;	      /* a leaf */
	struct list buckets[BUCKETS]; /* struct mem_owner.listed, by hash */
};

int mem_owners_create(struct mem_owners **out)
{
	struct mem_owners *owners = swi_new(struct mem_owners);

	if (!owners)
		return -ENOMEM;
	atomic_init(&owners->refs, 1);
	pthread_mutex_init(&owners->lock, NULL);
	for (size_t i = 0; i < BUCKETS; i++)
		list_init(&owners->buckets[i]);
	*out = owners;
	return 0;
}

void mem_owners_put(struct mem_owners *owners)
{
	if (!owners || atomic_fetch_sub_explicit(&owners->refs, 1, memory_order_acq_rel) != 1)
		return;
	pthread_mutex_destroy(&owners->lock);
	swi_free(owners);
}

static bool get_unless_going(struct mem_owner *o)
{
	unsigned refs = atomic_load_explicit(&o->refs, memory_order_relaxed);

	while (refs)
		if (atomic_compare_exchange_weak_explicit(
			    &o->refs, &refs, refs + 1, memory_order_acquire, memory_order_relaxed))
			return true;
	return false;
}

/* With a reference; NULL: there is none. */
static struct mem_owner *find_twin_locked(struct mem_owners *owners, struct mem_owner *o)
{
	struct list *pos;

	list_for_each (pos, &owners->buckets[o->hash % BUCKETS]) {
		struct mem_owner *other = list_entry(pos, struct mem_owner, listed);

		if (other->ops == o->ops && other->hash == o->hash && o->ops->twin(other, o) &&
		    get_unless_going(other))
			return other;
	}
	return NULL;
}

/* Lists `o`, unless another list has it: an owner can be in the hands of several contexts, but in one list only. */
static void list_locked(struct mem_owners *owners, struct mem_owner *o)
{
	struct mem_owners *none = NULL;

	if (!atomic_compare_exchange_strong(&o->owners, &none, owners))
		return;
	atomic_fetch_add_explicit(&owners->refs, 1, memory_order_relaxed);
	list_add(&owners->buckets[o->hash % BUCKETS], &o->listed);
}

static void unlist_locked(struct mem_owner *o)
{
	if (!list_empty(&o->listed))
		list_del(&o->listed);
	list_init(&o->listed);
}

void mem_owners_forget(struct mem_owner *o)
{
	struct mem_owners *owners = o->owners;

	pthread_mutex_lock(&owners->lock);
	unlist_locked(o);
	pthread_mutex_unlock(&owners->lock);
	mem_owners_put(owners);
}

struct mem_owner *mem_owners_share(struct mem_owners *owners, struct mem_owner *o)
{
	struct mem_owner *twin, *gone = NULL;

	/* One that the host keeps for several calls is listed once, perhaps in another context. */
	if (!o->ops->twin || o->owners)
		return o;
	do {
		pthread_mutex_lock(&owners->lock);
		/* What a look without the lock has shown to be at its end is not found again. */
		if (gone)
			unlist_locked(gone);
		twin = find_twin_locked(owners, o);
		if (!twin)
			list_locked(owners, o);
		pthread_mutex_unlock(&owners->lock);
		if (gone)
			mem_owner_put(gone);
		gone = twin && mem_owner_gone(twin) ? twin : NULL;
	} while (gone);
	if (!twin)
		return o;
	mem_owner_put(o);
	return twin;
}
