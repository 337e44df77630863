// SPDX-License-Identifier: MIT
/*
 * DMA listeners: see dma_listener.h.
 *
 * A listener is in two lists: that of its device's group, for as long as it is registered, and that of the
 * IOAS whose mappings it knows. MAP and UNMAP hold the domains lock shared while they tell everybody in the
 * second list; who joins or leaves holds it exclusive, so that no mapping is missed, told twice or left behind.
 * An area is told while it is busy: before it is published and after it was retracted. So MAP and UNMAP of
 * one range cannot overtake each other.
 *
 * Attach, replace and detach do not carry listeners along. They change the attachment under the locks they need
 * and then call dma_listeners_follow() with none, which looks where each device is *now* and moves its
 * listener there. Whoever changes something follows up before returning, so the last look sees the last change.
 *
 * Locks: dgroup->listen, then dgroup->lock (short), then the domains lock, held over callbacks.
 */
#include "core/dma_listener.h"

#include <errno.h>
#include <unistd.h>

#include "core/attach.h"

/* ---- telling ------------------------------------------------------------------------------------- */

/* One area to one listener, file by file. On failure some parts have been told. */
static int tell_area(struct dma_listener *l, struct iova_area *area, struct swi_reason *why)
{
	uint64_t length = area->last - area->iova + 1, done = 0;
	struct mem_file file;
	int rc = 0;

	for (; !rc && done < length; done += file.length) {
		backing_open_file(area->backing, area->offset + done, length - done, area->prot,
				  &file);
		rc = l->ops->map(l,
				 &(struct dma_mapping){.iova = area->iova + done,
						       .length = file.length,
						       .prot = area->prot,
						       .fd = file.fd,
						       .fd_offset = file.offset},
				 why);
		if (file.fd >= 0)
			close(file.fd);
	}
	return rc;
}

static struct dma_listener *in_ioas(struct list *pos)
{
	return list_entry(pos, struct dma_listener, ioas_entry);
}

int dma_listeners_map(struct ioas *ioas, struct iova_area *area, struct swi_reason *why)
{
	struct list *pos;
	int rc;

	list_for_each (pos, &ioas->listeners) {
		rc = tell_area(in_ioas(pos), area, why);
		if (rc)
			goto undo;
	}
	return 0;
undo:
	for (; pos != &ioas->listeners; pos = pos->prev)
		in_ioas(pos)->ops->unmap(in_ioas(pos), area->iova, area->last);
	return rc;
}

void dma_listeners_unmap(struct ioas *ioas, iova_t first, iova_t last)
{
	struct list *pos;

	list_for_each (pos, &ioas->listeners)
		in_ioas(pos)->ops->unmap(in_ioas(pos), first, last);
}

/* ---- joining and leaving ------------------------------------------------------------------------- */

/* Domains lock exclusive: the tree does not change, and its own lock is only for stepping. */
static int tell_all(struct dma_listener *l, struct ioas *ioas, struct swi_reason *why)
{
	struct iova_area *area;
	int rc = 0;

	iova_map_lock(ioas->map);
	area = iova_map_first(ioas->map, 0);
	while (area && !rc) {
		iova_map_unlock(ioas->map);
		if (!area->busy)
			rc = tell_area(l, area, why);
		iova_map_lock(ioas->map);
		area = iova_area_next(area);
	}
	iova_map_unlock(ioas->map);
	return rc;
}

static void leave(struct dma_listener *l)
{
	struct ioas *ioas = l->ioas;

	if (!ioas)
		return;
	pthread_rwlock_wrlock(&ioas->domains);
	l->ops->unmap(l, 0, IOVA_MAX);
	list_del(&l->ioas_entry);
	pthread_rwlock_unlock(&ioas->domains);
	l->ioas = NULL;
	obj_unhold(&ioas->obj);
}

/* Takes over the reference on `ioas` (NULL: nowhere). */
static int join(struct dma_listener *l, struct ioas *ioas, struct swi_reason *why)
{
	int rc;

	if (!ioas)
		return 0;
	l->ioas = ioas;
	pthread_rwlock_wrlock(&ioas->domains);
	list_add_tail(&ioas->listeners, &l->ioas_entry);
	rc = tell_all(l, ioas, why);
	pthread_rwlock_unlock(&ioas->domains);
	if (rc)
		leave(l);
	return rc;
}

/* Where the device's DMA goes now, with a reference; NULL: nowhere. */
static struct ioas *get_target(struct iommufd_device *idev)
{
	struct device_group *dg = idev->dgroup;
	struct ioas *ioas = NULL;
	struct attachment *at;

	pthread_mutex_lock(&dg->lock);
	at = attachment_find(dg, 0);
	/* Under a guest's own table the mappings of the IOAS are not what the device meets. */
	if (at && attachment_has(at, idev) &&
	    !(at->hwpt->domain->ops && at->hwpt->domain->ops->translate)) {
		ioas = hwpt_paging(at->hwpt)->ioas;
		obj_hold(&ioas->obj);
	}
	pthread_mutex_unlock(&dg->lock);
	return ioas;
}

static int follow_one(struct dma_listener *l, struct swi_reason *why)
{
	struct ioas *ioas = get_target(l->idev);

	if (ioas == l->ioas) {
		if (ioas)
			obj_unhold(&ioas->obj);
		return 0;
	}
	leave(l);
	return join(l, ioas, why);
}

int dma_listeners_follow(struct device_group *dg, struct swi_reason *why)
{
	struct list *pos;
	int rc = 0, one;

	pthread_mutex_lock(&dg->listen);
	list_for_each (pos, &dg->listeners) {
		one = follow_one(list_entry(pos, struct dma_listener, group_entry), why);
		rc = rc ? rc : one;
	}
	pthread_mutex_unlock(&dg->listen);
	return rc;
}

int dma_listener_add(struct iommufd_device *idev, struct dma_listener *l, struct swi_reason *why)
{
	struct device_group *dg = idev->dgroup;
	int rc;

	l->idev = idev;
	l->ioas = NULL;
	pthread_mutex_lock(&dg->listen);
	rc = follow_one(l, why);
	if (!rc)
		list_add_tail(&dg->listeners, &l->group_entry);
	pthread_mutex_unlock(&dg->listen);
	return rc;
}

void dma_listener_remove(struct dma_listener *l)
{
	struct device_group *dg = l->idev->dgroup;

	pthread_mutex_lock(&dg->listen);
	leave(l);
	list_del(&l->group_entry);
	pthread_mutex_unlock(&dg->listen);
}
