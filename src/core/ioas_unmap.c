// SPDX-License-Identifier: MIT
/*
 * UNMAP, and cutting mappings in two (spec core.md 4.4, 5.8).
 *
 * UNMAP goes through the range in batches of areas: retract them all, wait once for the DMA that may
 * still be inside, unpin, remove. When it returns, no DMA touches the memory. An area that accesses have
 * pinned comes alone: it is blocked for new pins, and they are told to let go of it, a limited number of times.
 */
#include <errno.h>
#include <linux/iommufd.h>

#include "base/alloc.h"
#include "core/access.h"
#include "core/call.h"
#include "core/dma_listener.h"
#include "core/domain.h"
#include "core/ioas.h"

#define UNMAP_BATCH 64
#define UNMAP_ROUNDS 101 /* of callbacks for one area */

struct unmap_scan {
	iova_t first, last;
	iova_t next; /* where to go on; areas below are done with */
	bool at_end; /* the last address has been passed */
	uint64_t removed;
	/* The area that came first and is pinned by accesses, and how often they have been told so. */
	iova_t pinned, pinned_last;
	unsigned int told;
	bool tell;    /* they are to be told now */
	bool retired; /* pages of tables wait for being freed */
};

/*
 * The next area is pinned by accesses: it takes no new pins from now on, and they are asked to let go of it. The
 * first time this only blocks it, since a pin that is being made may yet fail. Returns -EAGAIN.
 */
static int block_locked(struct unmap_scan *scan, struct iova_area *area)
{
	if (!scan->told || scan->pinned != area->iova)
		scan->told = 0;
	scan->pinned = area->iova;
	scan->pinned_last = area->last;
	scan->tell = area->blocked;
	area->blocked = true;
	return -EAGAIN;
}

/*
 * Retracts the next areas of the range, at most UNMAP_BATCH. An area that may not be removed ends the batch before it;
 * it is judged again, and its error returned, when it comes first. -EAGAIN: go on after ask_to_unpin().
 */
static int retract_batch_locked(struct ioas *ioas, struct unmap_scan *scan,
				struct iova_area **batch, size_t *n, struct swi_reason *why)
{
	struct iova_area *area = scan->at_end ? NULL : iova_map_first(ioas->map, scan->next);
	int rc = 0;

	for (*n = 0; area && area->iova <= scan->last && *n < UNMAP_BATCH;
	     area = iova_area_next(area)) {
		if (area->busy)
			rc = swi_fail(why, -EBUSY,
				      "the mapping [%#llx, %#llx] is being set up or torn down by "
				      "another call",
				      (ull)area->iova, (ull)area->last);
		else if (area->locks)
			rc = swi_fail(why, -EBUSY,
				      "the mapping [%#llx, %#llx] is in use by a hardware queue",
				      (ull)area->iova, (ull)area->last);
		else if (area->iova < scan->first || area->last > scan->last)
			rc = swi_fail(why, -ENOENT,
				      "the range ends inside the mapping [%#llx, %#llx], which "
				      "cannot be cut",
				      (ull)area->iova, (ull)area->last);
		else if (area->pins)
			rc = *n ? -EAGAIN : block_locked(scan, area);
		if (rc)
			break;
		batch[(*n)++] = area;
	}
	if (*n)
		rc = 0;
	for (size_t i = 0; i < *n; i++) {
		scan->retired |= domains_unmap_area_locked(ioas, batch[i]);
		iova_map_retract(ioas->map, batch[i]);
	}
	return rc;
}

/* Runs of neighbours at once; in a gap another call may be mapping. */
static void tell_batch(struct ioas *ioas, struct iova_area **batch, size_t n)
{
	size_t i, first = 0;

	if (list_empty(&ioas->listeners))
		return;
	for (i = 1; i <= n; i++) {
		if (i < n && batch[i]->iova == batch[i - 1]->last + 1)
			continue;
		dma_listeners_unmap(ioas, batch[first]->iova, batch[i - 1]->last);
		first = i;
	}
}

static void remove_batch(struct ioas *ioas, struct unmap_scan *scan, struct iova_area **batch,
			 size_t n)
{
	uint64_t generation;

	tell_batch(ioas, batch, n);
	generation = iova_map_generation(ioas->map);
	iova_map_sync(ioas->map);
	if (scan->retired)
		domains_free_retired(ioas, generation);
	if (ioas->nr_domains)
		for (size_t i = 0; i < n; i++)
			backing_unpin(batch[i]->backing, batch[i]->offset,
				      batch[i]->last - batch[i]->iova + 1);
	iova_map_lock(ioas->map);
	for (size_t i = 0; i < n; i++)
		iova_map_remove(ioas->map, batch[i]);
	scan->retired = domains_trim_locked(ioas);
	generation = iova_map_generation(ioas->map);
	iova_map_unlock(ioas->map);
	if (SWI_UNLIKELY(scan->retired)) {
		iova_map_sync(ioas->map);
		domains_free_retired(ioas, generation);
		scan->retired = false;
	}
	for (size_t i = 0; i < n; i++) {
		scan->removed += batch[i]->last - batch[i]->iova + 1;
		scan->at_end = batch[i]->last == IOVA_MAX;
		scan->next = batch[i]->last + 1;
		backing_put(batch[i]->backing);
		swi_free(batch[i]);
	}
}

/*
 * Between two looks at an area that accesses pin, without locks. Pins that were being made when it was
 * blocked are inside a read section; once those have ended, whatever pins it is known to a driver, whose
 * callback finds it.
 */
static int ask_to_unpin(struct ioas *ioas, struct unmap_scan *scan, struct swi_reason *why)
{
	iova_map_sync(ioas->map);
	if (!scan->tell)
		return 0;
	access_notify_unmap(ioas, scan->pinned, scan->pinned_last - scan->pinned + 1);
	if (++scan->told < UNMAP_ROUNDS)
		return 0;
	return swi_fail(why, -EDEADLOCK,
			"accesses still pin the mapping [%#llx, %#llx] after being told %u times",
			(ull)scan->pinned, (ull)scan->pinned_last, scan->told);
}

int ioas_unmap(struct ioas *ioas, iova_t first, iova_t last, uint64_t *removed,
	       struct swi_reason *why)
{
	struct unmap_scan scan = {.first = first, .last = last, .next = first};
	struct iova_area *batch[UNMAP_BATCH];
	bool again = true;
	size_t n;
	int rc;

	pthread_rwlock_rdlock(&ioas->domains);
	do {
		iova_map_lock(ioas->map);
		rc = retract_batch_locked(ioas, &scan, batch, &n, why);
		iova_map_unlock(ioas->map);
		if (n) {
			remove_batch(ioas, &scan, batch, n);
		} else if (rc == -EAGAIN) {
			pthread_rwlock_unlock(&ioas->domains);
			rc = ask_to_unpin(ioas, &scan, why);
			pthread_rwlock_rdlock(&ioas->domains);
			again = !rc;
		} else {
			again = false;
		}
	} while (again);
	pthread_rwlock_unlock(&ioas->domains);
	*removed = scan.removed;
	return rc;
}

int ioas_cmd_unmap(struct call *call)
{
	struct iommu_ioas_unmap *cmd = (void *)call->cmd.bytes;
	bool all = cmd->iova == 0 && cmd->length == IOVA_MAX;
	uint64_t removed = 0;
	iova_t last = IOVA_MAX;
	struct obj *obj;
	int rc;

	rc = obj_get(call->ctx, cmd->ioas_id, OBJ_IOAS, "ioas_id", call->why, &obj);
	if (rc)
		return rc;
	if (all)
		rc = 0;
	else if (cmd->iova == IOVA_MAX || cmd->length == IOVA_MAX)
		rc = swi_fail(call->why, -EOVERFLOW, "%s is 2^64 - 1",
			      cmd->iova == IOVA_MAX ? "iova" : "length");
	else if (!cmd->length)
		rc = swi_fail(call->why, -EINVAL, "length is 0");
	else
		rc = swi_range_last("iova", cmd->iova, cmd->length, &last, call->why);
	if (!rc)
		rc = ioas_unmap(ioas_of(obj), cmd->iova, last, &removed, call->why);
	if (!rc && !removed && !all)
		rc = swi_fail(call->why, -ENOENT, "nothing is mapped in [%#llx, %#llx]",
			      (ull)cmd->iova, (ull)last);
	if (!rc) {
		cmd->length = removed;
		rc = call_respond(call);
	}
	obj_put(obj);
	return rc;
}

/* ---- cutting ------------------------------------------------------------------------------------- */

/* The checks of core.md 5.8 for cutting `area` after `at`. Map locked. */
static int check_cut_locked(struct ioas *ioas, const struct iova_area *area, iova_t at,
			    struct swi_reason *why)
{
	uint64_t addr = backing_addr(area->backing) + area->offset + (at + 1 - area->iova);

	if (area->busy || area->blocked)
		return swi_fail(why, -EBUSY, "the mapping [%#llx, %#llx] is %s", (ull)area->iova,
				(ull)area->last,
				area->busy ? "being changed by another call" : "being unmapped");
	if (backing_owner(area->backing)->ops->device)
		return swi_fail(why, -EOPNOTSUPP,
				"the mapping [%#llx, %#llx] is of a device's memory",
				(ull)area->iova, (ull)area->last);
	if (((at + 1) | (addr & (SWI_PAGE_SIZE - 1))) & (ioas->align - 1))
		return swi_fail(why, -EINVAL, "a cut at %#llx is not aligned to %llu bytes",
				(ull)at + 1, (ull)ioas->align);
	if (area->pins)
		return swi_fail(why, -EINVAL, "the mapping [%#llx, %#llx] is pinned by an access",
				(ull)area->iova, (ull)area->last);
	if (ioas->nr_domains && ioas->huge_pages)
		return swi_fail(why, -EINVAL, "page tables may hold [%#llx, %#llx] in large pages",
				(ull)area->iova, (ull)area->last);
	return 0;
}

/*
 * Cuts an area that a domain maps: each half holds its own pages from then on. The memory is pinned
 * already, so this only counts and does not block. Map locked.
 */
static int cut_pinned_locked(struct ioas *ioas, struct iova_area *area, iova_t at,
			     struct iova_area *right, struct swi_reason *why)
{
	uint64_t offset = area->offset, left = at + 1 - area->iova;
	uint64_t length = area->last - area->iova + 1;
	struct backing *backing = area->backing;
	int rc;

	rc = backing_pin(backing, offset, left, why);
	if (rc)
		return rc;
	rc = backing_pin(backing, offset + left, length - left, why);
	if (rc)
		goto unpin_left;
	rc = iova_map_split(ioas->map, area, at, right);
	if (rc)
		goto unpin_right;
	backing_unpin(backing, offset, length);
	return 0;
unpin_right:
	backing_unpin(backing, offset + left, length - left);
unpin_left:
	backing_unpin(backing, offset, left);
	return rc;
}

int ioas_cut(struct ioas *ioas, iova_t at, struct swi_reason *why)
{
	struct iova_area *right = swi_zalloc_aligned(SWI_CACHELINE, sizeof(struct iova_area));
	struct iova_area *area;
	int rc = 0;

	if (!right)
		return -ENOMEM;
	pthread_rwlock_rdlock(&ioas->domains);
	iova_map_lock(ioas->map);
	area = iova_map_first(ioas->map, at);
	if (!area || area->iova > at || area->iova == at || area->last == at)
		goto unlock;
	rc = check_cut_locked(ioas, area, at, why);
	if (rc)
		goto unlock;
	rc = ioas->nr_domains ? cut_pinned_locked(ioas, area, at, right, why)
			      : iova_map_split(ioas->map, area, at, right);
	if (rc)
		goto unlock;
	backing_get(area->backing);
	right = NULL;
unlock:
	iova_map_unlock(ioas->map);
	pthread_rwlock_unlock(&ioas->domains);
	swi_free(right);
	return rc;
}
