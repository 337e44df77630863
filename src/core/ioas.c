// SPDX-License-Identifier: MIT
/*
 * IOAS objects: making and destroying them, their alignment, their domains, and the two ioctls on
 * ranges. Mapping is in ioas_map.c, unmapping in ioas_unmap.c.
 *
 * The alignment is derived (spec core.md 3.2): the largest of 1, a page if large pages are off or an access
 * pins pages, and the smallest page of each domain. It is stored next to the map because MAP needs it under the
 * map's lock.
 */
#include "core/ioas.h"

#include <errno.h>
#include <linux/iommufd.h>

#include "base/alloc.h"
#include "core/access.h"
#include "core/call.h"
#include "core/ctx.h"
#include "core/domain.h"

static void free_area(struct iova_area *area)
{
	backing_put(area->backing);
	swi_free(area);
}

static void ioas_destroy(struct obj *obj)
{
	struct ioas *ioas = ioas_of(obj);
	struct iova_area *area;

	/* Nothing refers to the IOAS: no domain, no call. */
	iova_map_lock(ioas->map);
	iova_map_for_each (area, ioas->map)
		iova_map_retract(ioas->map, area);
	iova_map_unlock(ioas->map);
	iova_map_sync(ioas->map);
	iova_map_lock(ioas->map);
	while ((area = iova_map_first(ioas->map, 0))) {
		iova_map_remove(ioas->map, area);
		free_area(area);
	}
	iova_map_unlock(ioas->map);
	iova_map_destroy(ioas->map);
	access_slots_fini(&ioas->accesses);
	pthread_rwlock_destroy(&ioas->domains);
	pthread_mutex_destroy(&ioas->mutex);
}

static void ioas_unlinked(struct obj *obj)
{
	if (obj->ctx->compat_ioas == obj)
		obj->ctx->compat_ioas = NULL;
}

const struct obj_ops ioas_ops = {
	.type = OBJ_IOAS,
	.name = "IOAS",
	.size = sizeof(struct ioas),
	.unlinked = ioas_unlinked,
	.destroy = ioas_destroy,
};

/*
 * Writers first: MAP and UNMAP from several threads overlap so that there may always be a reader, and
 * an attach would wait for ever. Nobody takes the lock twice.
 */
static void init_domains_lock(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(lock, &attr);
	pthread_rwlockattr_destroy(&attr);
}

int ioas_create(struct iommufd_ctx *ctx, struct ioas **out)
{
	struct iova_map *map;
	struct ioas *ioas;
	struct obj *obj;
	int rc;

	rc = iova_map_create(&map);
	if (rc)
		return rc;
	rc = obj_alloc(ctx, &ioas_ops, &obj);
	if (rc) {
		iova_map_destroy(map);
		return rc;
	}
	ioas = ioas_of(obj);
	ioas->map = map;
	ioas->align = 1;
	ioas->domain_align = 1;
	ioas->huge_pages = true;
	list_init(&ioas->hwpts);
	list_init(&ioas->listeners);
	list_init(&ioas->tables);
	access_slots_init(&ioas->accesses);
	pthread_mutex_init(&ioas->mutex, NULL);
	init_domains_lock(&ioas->domains);
	*out = ioas;
	return 0;
}

int ioas_cmd_alloc(struct call *call)
{
	struct iommu_ioas_alloc *cmd = (void *)call->cmd.bytes;
	struct ioas *ioas;
	int rc;

	if (cmd->flags)
		return swi_fail(call->why, -EOPNOTSUPP, "flags %#x: no flag is defined",
				cmd->flags);
	rc = ioas_create(call->ctx, &ioas);
	if (rc)
		return swi_fail(call->why, rc, "no %s for an IOAS",
				rc == -EBUSY ? "free ID" : "memory");
	call->new_obj = &ioas->obj;
	cmd->out_ioas_id = ioas->obj.id;
	return call_respond(call);
}

/* ---- ranges ------------------------------------------------------------------------------------- */

int ioas_usable_ranges(struct ioas *ioas, size_t max, struct iova_range **out, size_t *total)
{
	struct iova_range *ranges = NULL, *bigger;
	size_t room = 0, want;

	for (;;) {
		iova_map_lock(ioas->map);
		*total = iova_map_usable(ioas->map, ranges, room);
		iova_map_unlock(ioas->map);
		want = SWI_MIN(max, *total);
		if (want <= room)
			break;
		bigger = swi_realloc(ranges, want * sizeof(*ranges));
		if (!bigger) {
			swi_free(ranges);
			return -ENOMEM;
		}
		ranges = bigger;
		room = want;
	}
	*out = ranges;
	return 0;
}

int ioas_cmd_iova_ranges(struct call *call)
{
	struct iommu_ioas_iova_ranges *cmd = (void *)call->cmd.bytes;
	uint32_t room = cmd->num_iovas;
	struct iova_range *ranges = NULL;
	struct ioas *ioas;
	struct obj *obj;
	size_t total, n;
	int rc;

	_Static_assert(sizeof(struct iova_range) == sizeof(struct iommu_iova_range), "same layout");
	if (cmd->__reserved)
		return swi_fail(call->why, -EOPNOTSUPP, "__reserved is not 0");
	rc = obj_get(call->ctx, cmd->ioas_id, OBJ_IOAS, "ioas_id", call->why, &obj);
	if (rc)
		return rc;
	ioas = ioas_of(obj);
	rc = ioas_usable_ranges(ioas, room, &ranges, &total);
	if (rc)
		goto out;
	n = SWI_MIN(total, room);
	if (n)
		rc = call_copy_out(call, cmd->allowed_iovas, ranges, n * sizeof(*ranges),
				   "allowed_iovas");
	if (rc)
		goto out;
	iova_map_lock(ioas->map);
	cmd->out_iova_alignment = ioas->align;
	iova_map_unlock(ioas->map);
	cmd->num_iovas = total;
	rc = call_respond(call);
	if (!rc && total > room)
		rc = swi_fail(call->why, -EMSGSIZE,
			      "num_iovas has room for %u ranges, there are %zu", room, total);
out:
	swi_free(ranges);
	obj_put(obj);
	return rc;
}

#define ALLOW_BATCH 64u

/* Reads the client's list in batches; an entry before the first unreadable one is judged first. */
static int read_allow_list(struct call *call, uint64_t uptr, uint32_t n,
			   struct iova_allow_list *list)
{
	struct iommu_iova_range buf[ALLOW_BATCH];
	uint32_t done, got, batch = ALLOW_BATCH;
	int rc;

	for (done = 0; done < n; done += got) {
		got = SWI_MIN(n - done, batch);
		rc = call_copy_in(call, buf, uptr + done * sizeof(buf[0]), got * sizeof(buf[0]),
				  "allowed_iovas");
		if (rc && got == 1)
			return rc;
		if (rc) {
			batch = 1;
			got = 0;
			continue;
		}
		for (uint32_t i = 0; i < got; i++) {
			rc = iova_allow_list_add(list, buf[i].start, buf[i].last);
			if (rc)
				return swi_fail(call->why, rc,
						"allowed_iovas[%u] = [%#llx, %#llx] %s", done + i,
						(unsigned long long)buf[i].start,
						(unsigned long long)buf[i].last,
						rc == -ENOMEM ? "does not fit in memory"
						: buf[i].start >= buf[i].last
							? "is not start < last"
							: "overlaps an earlier entry");
		}
	}
	return 0;
}

int ioas_cmd_allow_iovas(struct call *call)
{
	struct iommu_ioas_allow_iovas *cmd = (void *)call->cmd.bytes;
	struct iova_allow_list *list;
	struct ioas *ioas;
	struct obj *obj;
	int rc;

	if (cmd->__reserved)
		return swi_fail(call->why, -EOPNOTSUPP, "__reserved is not 0");
	rc = obj_get(call->ctx, cmd->ioas_id, OBJ_IOAS, "ioas_id", call->why, &obj);
	if (rc)
		return rc;
	ioas = ioas_of(obj);
	rc = iova_allow_list_create(&list);
	if (rc)
		goto out;
	call->why->text[0] = '\0';
	rc = read_allow_list(call, cmd->allowed_iovas, cmd->num_iovas, list);
	if (!rc) {
		iova_map_lock(ioas->map);
		rc = iova_map_set_allowed(ioas->map, list);
		iova_map_unlock(ioas->map);
		if (!rc)
			goto out;
		swi_fail(call->why, rc,
			 "an allowed range meets one that a device or page table has reserved");
	}
	iova_allow_list_destroy(list);
out:
	obj_put(obj);
	return rc;
}

/* ---- alignment and domains ----------------------------------------------------------------------- */

static bool area_fits(const struct iova_area *area, uint64_t align)
{
	uint64_t first = backing_addr(area->backing) + area->offset;
	uint64_t length = area->last - area->iova + 1; /* 0 stands for 2^64 */

	return !((area->iova | length | (first & (SWI_PAGE_SIZE - 1))) & (align - 1));
}

int ioas_set_align(struct ioas *ioas, uint64_t domain_align, bool huge_pages,
		   struct swi_reason *why)
{
	bool pages = !huge_pages || ioas->nr_page_accesses;
	uint64_t align = SWI_MAX(domain_align, pages ? SWI_PAGE_SIZE : 1);
	struct iova_area *area;
	int rc = 0;

	iova_map_lock(ioas->map);
	if (align > ioas->align) {
		iova_map_for_each (area, ioas->map) {
			if (area_fits(area, align))
				continue;
			rc = swi_fail(
				why, -EADDRINUSE,
				"the mapping [%#llx, %#llx] is not aligned to %llu bytes in IOVA, "
				"length or memory",
				(unsigned long long)area->iova, (unsigned long long)area->last,
				(unsigned long long)align);
			break;
		}
	}
	if (!rc) {
		ioas->align = align;
		ioas->domain_align = domain_align;
		ioas->huge_pages = huge_pages;
	}
	iova_map_unlock(ioas->map);
	return rc;
}

int ioas_set_huge_pages(struct ioas *ioas, bool on, struct swi_reason *why)
{
	bool empty;
	int rc;

	pthread_rwlock_wrlock(&ioas->domains);
	if (on == ioas->huge_pages) {
		rc = 0;
		goto out;
	}
	iova_map_lock(ioas->map);
	empty = !iova_map_count(ioas->map);
	iova_map_unlock(ioas->map);
	if (!on && ioas->nr_domains && !empty) {
		rc = swi_fail(
			why, -EINVAL,
			"large pages cannot be switched off while a page table maps something");
		goto out;
	}
	rc = ioas_set_align(ioas, ioas->domain_align, on, why);
out:
	pthread_rwlock_unlock(&ioas->domains);
	return rc;
}

int ioas_pin_area(struct ioas *ioas, struct iova_area *area, struct swi_reason *why)
{
	uint64_t length = area->last - area->iova + 1;
	int rc = backing_pin(area->backing, area->offset, length, why);

	if (rc)
		return rc;
	rc = backing_place(area->backing, ioas->obj.ctx->phys);
	if (rc) {
		backing_unpin(area->backing, area->offset, length);
		return swi_fail(why, rc, "no memory, or no physical addresses, for the mapping");
	}
	area->host = backing_host(area->backing, area->offset, length);
	return 0;
}

static void unpin_areas(struct ioas *ioas, struct iova_area *end)
{
	struct iova_area *area;

	/* Readers may hold host pointers: forget them all, wait once, then let the memory go. */
	iova_map_lock(ioas->map);
	for (area = iova_map_first(ioas->map, 0); area != end; area = iova_area_next(area))
		area->host = NULL;
	iova_map_unlock(ioas->map);
	iova_map_sync(ioas->map);
	iova_map_lock(ioas->map);
	for (area = iova_map_first(ioas->map, 0); area != end; area = iova_area_next(area))
		backing_unpin(area->backing, area->offset, area->last - area->iova + 1);
	iova_map_unlock(ioas->map);
}

/*
 * Pins every area, if none is yet, and maps all into the domain's table, which nobody uses. Domains lock exclusive:
 * the tree cannot change, so the map's lock is only taken to step.
 */
static int fill_domain(struct ioas *ioas, struct domain *dom, struct swi_reason *why)
{
	bool pin = !ioas->nr_domains;
	struct iova_area *area;
	int rc;

	iova_map_lock(ioas->map);
	area = iova_map_first(ioas->map, 0);
	while (area) {
		iova_map_unlock(ioas->map);
		rc = pin ? ioas_pin_area(ioas, area, why) : 0;
		if (rc)
			goto unpin;
		rc = domain_map_area(dom, ioas, area, why);
		iova_map_lock(ioas->map);
		area = iova_area_next(area);
		if (rc) {
			iova_map_unlock(ioas->map);
			goto unpin;
		}
	}
	iova_map_unlock(ioas->map);
	return 0;
unpin:
	if (pin)
		unpin_areas(ioas, area);
	return rc;
}

static int reserve_outside(struct ioas *ioas, const struct domain *dom, const void *owner,
			   struct swi_reason *why)
{
	int rc = 0;

	iova_map_lock(ioas->map);
	if (dom->aperture_first)
		rc = iova_map_reserve(ioas->map, 0, dom->aperture_first - 1, owner);
	if (!rc && dom->aperture_last != IOVA_MAX)
		rc = iova_map_reserve(ioas->map, dom->aperture_last + 1, IOVA_MAX, owner);
	if (rc)
		iova_map_unreserve(ioas->map, owner);
	iova_map_unlock(ioas->map);
	if (rc == -EADDRINUSE)
		swi_fail(why, rc,
			 "a mapping or allowed range lies outside the page table's aperture "
			 "[%#llx, %#llx]",
			 (unsigned long long)dom->aperture_first,
			 (unsigned long long)dom->aperture_last);
	return rc;
}

int ioas_add_domain(struct ioas *ioas, struct domain *dom, const void *owner,
		    struct swi_reason *why)
{
	uint64_t old_align;
	int rc;

	if (dom->pgsize_min > SWI_PAGE_SIZE)
		return swi_fail(why, -EINVAL,
				"the page table's smallest page is larger than %llu bytes",
				SWI_PAGE_SIZE);
	pthread_rwlock_wrlock(&ioas->domains);
	old_align = ioas->domain_align;
	rc = ioas_set_align(ioas, SWI_MAX(old_align, dom->pgsize_min), ioas->huge_pages, why);
	if (rc)
		goto unlock;
	rc = reserve_outside(ioas, dom, owner, why);
	if (rc)
		goto undo_align;
	rc = fill_domain(ioas, dom, why);
	if (rc)
		goto undo_reserve;
	list_add_tail(&ioas->tables, &dom->entry);
	ioas->nr_domains++;
	pthread_rwlock_unlock(&ioas->domains);
	return 0;

undo_reserve:
	iova_map_lock(ioas->map);
	iova_map_unreserve(ioas->map, owner);
	iova_map_unlock(ioas->map);
undo_align:
	ioas_set_align(ioas, old_align, ioas->huge_pages, NULL);
unlock:
	pthread_rwlock_unlock(&ioas->domains);
	return rc;
}

void ioas_remove_domain(struct ioas *ioas, struct domain *dom, const void *owner,
			uint64_t align_left)
{
	pthread_rwlock_wrlock(&ioas->domains);
	list_del(&dom->entry);
	if (!--ioas->nr_domains)
		unpin_areas(ioas, NULL);
	iova_map_lock(ioas->map);
	iova_map_unreserve(ioas->map, owner);
	iova_map_unlock(ioas->map);
	ioas_set_align(ioas, align_left, ioas->huge_pages, NULL);
	pthread_rwlock_unlock(&ioas->domains);
}
