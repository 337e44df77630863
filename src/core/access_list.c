// SPDX-License-Identifier: MIT
/*
 * The list of accesses that each IOAS keeps: who is attached, in which slot, what they demand of its
 * alignment, and how they are told that an area is to go (spec core.md 6.2, 6.5).
 *
 * Slots are handed out lowest first, and callbacks follow their order. The list may change while callbacks run:
 * each step looks at it afresh. An access found in it cannot be freed, as it leaves the list before; one that
 * is being destroyed already is passed over, since its last callback is another thread's business.
 */
#include "core/access.h"

#include <errno.h>
#include <time.h>

#include "base/alloc.h"

#define SLOTS_MAX 65536u
#define DYING_WAIT_NS 10000000l

void access_slots_init(struct access_slots *slots)
{
	pthread_mutex_init(&slots->lock, NULL);
	pthread_cond_init(&slots->left, NULL);
}

void access_slots_fini(struct access_slots *slots)
{
	swi_free(slots->v);
	pthread_cond_destroy(&slots->left);
	pthread_mutex_destroy(&slots->lock);
}

static int slots_grow_locked(struct access_slots *slots)
{
	uint32_t size = slots->size ? slots->size * 2 : 4;
	struct iommufd_access **v = swi_realloc(slots->v, size * sizeof(*v));

	if (!v)
		return -ENOMEM;
	while (slots->size < size)
		v[slots->size++] = NULL;
	slots->v = v;
	return 0;
}

/* Puts the access into the lowest free slot, whose number goes to *slot. -EBUSY, -ENOMEM. */
static int slot_take(struct access_slots *slots, struct iommufd_access *access, uint32_t *slot)
{
	uint32_t i;
	int rc = 0;

	pthread_mutex_lock(&slots->lock);
	for (i = slots->lowest_free; i < slots->size && slots->v[i]; i++)
		;
	if (i == SLOTS_MAX)
		rc = -EBUSY;
	else if (i == slots->size)
		rc = slots_grow_locked(slots);
	if (!rc) {
		slots->v[i] = access;
		slots->lowest_free = i + 1;
		*slot = i;
	}
	pthread_mutex_unlock(&slots->lock);
	return rc;
}

static void slot_clear(struct access_slots *slots, uint32_t slot)
{
	pthread_mutex_lock(&slots->lock);
	slots->v[slot] = NULL;
	slots->lowest_free = SWI_MIN(slots->lowest_free, slot);
	pthread_cond_broadcast(&slots->left);
	pthread_mutex_unlock(&slots->lock);
}

static bool wants_pages(const struct iommufd_access *access)
{
	return access->internal || access->ops->needs_pin_pages;
}

/* One access more or less that wants the IOAS aligned to pages. Domains lock exclusive. */
static int count_page_access(struct ioas *ioas, int change, struct swi_reason *why)
{
	int rc;

	ioas->nr_page_accesses += change;
	rc = ioas_set_align(ioas, ioas->domain_align, ioas->huge_pages, why);
	if (rc)
		ioas->nr_page_accesses -= change;
	return rc;
}

int ioas_add_access(struct ioas *ioas, struct iommufd_access *access, uint32_t *slot,
		    struct swi_reason *why)
{
	int rc;

	pthread_rwlock_wrlock(&ioas->domains);
	rc = slot_take(&ioas->accesses, access, slot);
	if (rc) {
		if (rc == -EBUSY)
			swi_fail(why, rc, "the IOAS has %u accesses, which is the limit",
				 SLOTS_MAX);
		else
			swi_fail(why, rc, "no memory to list one access more");
		goto out;
	}
	if (wants_pages(access)) {
		rc = count_page_access(ioas, 1, why);
		if (rc)
			slot_clear(&ioas->accesses, *slot);
	}
out:
	pthread_rwlock_unlock(&ioas->domains);
	return rc;
}

void ioas_remove_access(struct ioas *ioas, struct iommufd_access *access, uint32_t slot)
{
	pthread_rwlock_wrlock(&ioas->domains);
	if (wants_pages(access))
		count_page_access(ioas, -1, NULL); /* the alignment does not rise: cannot fail */
	slot_clear(&ioas->accesses, slot);
	pthread_rwlock_unlock(&ioas->domains);
}

/*
 * The access in the first used slot from *i on that wants callbacks, held for use; *i becomes the
 * slot after it. NULL at the end. Those that are being destroyed are passed over and reported in
 * *dying.
 */
static struct iommufd_access *next_listener(struct access_slots *slots, uint32_t *i, bool *dying)
{
	struct iommufd_access *access = NULL;

	pthread_mutex_lock(&slots->lock);
	while (!access && *i < slots->size) {
		access = slots->v[(*i)++];
		if (!access || access->internal || !access->ops->unmap || access->orphan) {
			access = NULL;
		} else if (!obj_try_get(&access->obj)) {
			*dying = true;
			access = NULL;
		}
	}
	pthread_mutex_unlock(&slots->lock);
	return access;
}

/* Until an access leaves the list, or for a moment. */
static void wait_for_leaver(struct access_slots *slots)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += DYING_WAIT_NS;
	if (until.tv_nsec >= 1000000000l) {
		until.tv_nsec -= 1000000000l;
		until.tv_sec++;
	}
	pthread_mutex_lock(&slots->lock);
	pthread_cond_timedwait(&slots->left, &slots->lock, &until);
	pthread_mutex_unlock(&slots->lock);
}

void access_notify_unmap(struct ioas *ioas, iova_t first, uint64_t length)
{
	struct iommufd_access *access;
	bool dying = false;
	uint32_t i = 0;

	while ((access = next_listener(&ioas->accesses, &i, &dying))) {
		access->ops->unmap(access->data, first, length);
		obj_put(&access->obj);
	}
	if (dying)
		wait_for_leaver(&ioas->accesses);
}
