// SPDX-License-Identifier: MIT
/*
 * MAP, MAP_FILE and COPY (spec core.md 4.1 to 4.3).
 *
 * All three share one shape. A `struct plan` lists the pieces to be mapped side by
 * side (one for MAP, one per source area for COPY), each with its backing. plan_place() takes the
 * IOVA range by inserting busy areas; plan_fill() pins, which may block, with the map unlocked;
 * then either plan_publish() or plan_drain(). Neither of the last two can fail. ioas_unmap.c goes the
 * other way.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/iommufd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "core/call.h"
#include "core/dma_listener.h"
#include "core/domain.h"
#include "core/ioas.h"
#include "core/selftest_abi.h"
#include "mem/owners.h"

#define FIXED_RW (IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE)

struct piece {
	struct backing *backing; /* counted */
	uint64_t offset, length; /* bytes of the backing */
	struct iova_area *area;	 /* NULL until placed */
};

struct plan {
	struct piece *pieces;
	size_t n, room;
	uint64_t length; /* sum of the pieces */
	unsigned int prot;
	bool fixed;
	iova_t iova; /* in for fixed, out otherwise */
};

static unsigned int prot_of(uint32_t flags)
{
	return (flags & IOMMU_IOAS_MAP_READABLE ? SWI_READ : 0) |
	       (flags & IOMMU_IOAS_MAP_WRITEABLE ? SWI_WRITE : 0);
}

/* ---- plans -------------------------------------------------------------------------------------- */

static uint64_t piece_addr(const struct piece *p)
{
	return backing_addr(p->backing) + p->offset;
}

/* Takes over the reference on the backing, also on failure. */
static int plan_add(struct plan *plan, struct backing *backing, uint64_t offset, uint64_t length)
{
	struct piece *pieces;
	size_t room;

	if (plan->n == plan->room) {
		room = plan->room ? plan->room * 2 : 1;
		pieces = swi_realloc(plan->pieces, room * sizeof(*pieces));
		if (!pieces) {
			backing_put(backing);
			return -ENOMEM;
		}
		plan->pieces = pieces;
		plan->room = room;
	}
	plan->pieces[plan->n++] = (struct piece){backing, offset, length, NULL};
	plan->length += length;
	return 0;
}

/* Frees the plan and what was not published. */
static void plan_free(struct plan *plan)
{
	for (size_t i = 0; i < plan->n; i++) {
		swi_free(plan->pieces[i].area);
		backing_put(plan->pieces[i].backing);
	}
	swi_free(plan->pieces);
}

/* Step 9 of MAP for a fixed IOVA. Map locked. */
static int check_fixed_locked(struct ioas *ioas, const struct plan *plan, struct swi_reason *why)
{
	struct iova_area *hit;
	struct iova_range resv;
	iova_t last;
	int rc;

	if (plan->iova & (ioas->align - 1))
		return swi_fail(why, -EINVAL, "iova %#llx is not a multiple of the alignment %llu",
				(ull)plan->iova, (ull)ioas->align);
	rc = swi_range_last("iova", plan->iova, plan->length, &last, why);
	if (rc)
		return rc;
	if (iova_map_is_reserved(ioas->map, plan->iova, last, &resv))
		return swi_fail(why, -EINVAL,
				"[%#llx, %#llx] meets the reserved range [%#llx, %#llx]",
				(ull)plan->iova, (ull)last, (ull)resv.first, (ull)resv.last);
	hit = iova_map_first(ioas->map, plan->iova);
	if (hit && hit->iova <= last)
		return swi_fail(why, -EEXIST, "[%#llx, %#llx] meets the mapping [%#llx, %#llx]",
				(ull)plan->iova, (ull)last, (ull)hit->iova, (ull)hit->last);
	return 0;
}

static int find_iova_locked(struct ioas *ioas, struct plan *plan, struct swi_reason *why)
{
	int rc = iova_map_find(ioas->map, plan->length, piece_addr(&plan->pieces[0]), ioas->align,
			       &plan->iova);

	if (rc == -EOVERFLOW)
		return swi_fail(why, rc, "length %#llx is half of the IOVA space or more",
				(ull)plan->length);
	if (rc == -EINVAL)
		return swi_fail(why, rc,
				"memory at %#llx or length %#llx is not aligned to the %llu bytes "
				"that this IOAS demands",
				(ull)piece_addr(&plan->pieces[0]), (ull)plan->length,
				(ull)ioas->align);
	if (rc == -ENOSPC)
		return swi_fail(why, rc, "no free IOVA range of %#llx bytes among the allowed ones",
				(ull)plan->length);
	return rc;
}

/* Steps 8 to 10 of MAP, step 10 of COPY. Map locked. */
static int plan_check_locked(struct ioas *ioas, struct plan *plan, struct swi_reason *why)
{
	int rc;

	if (plan->length & (ioas->align - 1))
		return swi_fail(why, -EINVAL,
				"length %#llx is not a multiple of the alignment %llu",
				(ull)plan->length, (ull)ioas->align);
	rc = plan->fixed ? check_fixed_locked(ioas, plan, why) : find_iova_locked(ioas, plan, why);
	if (rc)
		return rc;
	for (size_t i = 0; i < plan->n; i++) {
		struct piece *p = &plan->pieces[i];

		if ((plan->prot & SWI_WRITE) && !backing_write_intent(p->backing))
			return swi_fail(
				why, -EPERM,
				"the memory was mapped without IOMMU_IOAS_MAP_WRITEABLE at first");
		if ((piece_addr(p) & (SWI_PAGE_SIZE - 1)) & (ioas->align - 1))
			return swi_fail(why, -EINVAL,
					"memory at %#llx is not aligned to %llu bytes",
					(ull)piece_addr(p), (ull)ioas->align);
		/* A later piece would begin unaligned: the kernel lets it in and fails later (quirk Q7). */
		if (plan->n > 1 && (p->length & (ioas->align - 1)))
			return swi_fail(
				why, -EINVAL,
				"a piece of %#llx bytes is not a multiple of the alignment %llu",
				(ull)p->length, (ull)ioas->align);
	}
	return 0;
}

static void drop_areas_locked(struct ioas *ioas, struct plan *plan, size_t n)
{
	while (n--)
		iova_map_remove(ioas->map, plan->pieces[n].area);
}

/* Takes the IOVA range with busy areas. Domains lock held shared. */
static int plan_place(struct ioas *ioas, struct plan *plan, struct swi_reason *why)
{
	iova_t iova;
	size_t i;
	int rc;

	for (i = 0; i < plan->n; i++) {
		plan->pieces[i].area = swi_zalloc_aligned(SWI_CACHELINE, sizeof(struct iova_area));
		if (!plan->pieces[i].area)
			return -ENOMEM;
	}
	iova_map_lock(ioas->map);
	rc = plan_check_locked(ioas, plan, why);
	iova = plan->iova;
	for (i = 0; !rc && i < plan->n; i++) {
		struct piece *p = &plan->pieces[i];
		struct iova_area *area = p->area;

		area->iova = iova;
		area->last = iova + p->length - 1;
		area->offset = p->offset;
		area->backing = p->backing;
		area->prot = plan->prot;
		rc = iova_map_insert(ioas->map, area);
		if (rc)
			drop_areas_locked(ioas, plan, i);
		iova += p->length;
	}
	iova_map_unlock(ioas->map);
	return rc;
}

/* Takes the first n pieces out of the page tables again and unpins them. */
static void plan_drain(struct ioas *ioas, struct plan *plan, size_t n)
{
	uint64_t generation;

	if (!n)
		return;
	iova_map_lock(ioas->map);
	for (size_t i = 0; i < n; i++)
		domains_unmap_area_locked(ioas, plan->pieces[i].area);
	iova_map_flush(ioas->map);
	generation = iova_map_generation(ioas->map);
	iova_map_unlock(ioas->map);
	/* Devices may have used what was mapped already. */
	iova_map_sync(ioas->map);
	domains_free_retired(ioas, generation);
	while (n--)
		backing_unpin(plan->pieces[n].backing, plan->pieces[n].offset,
			      plan->pieces[n].length);
}

/* Pins every piece and maps it into the page tables, if the IOAS has some. Undoes itself on failure. */
static int plan_fill(struct ioas *ioas, struct plan *plan, struct swi_reason *why)
{
	size_t i;
	int rc;

	if (!ioas->nr_domains)
		return 0;
	if (!plan->prot)
		return swi_fail(why, -EINVAL,
				"a page table cannot hold a mapping without permissions");
	for (i = 0; i < plan->n; i++) {
		struct piece *p = &plan->pieces[i];

		rc = ioas_pin_area(ioas, p->area, why);
		if (rc)
			goto drain;
		rc = domains_map_area(ioas, p->area, why);
		if (rc) {
			backing_unpin(p->backing, p->offset, p->length);
			goto drain;
		}
	}
	return 0;
drain:
	plan_drain(ioas, plan, i);
	return rc;
}

/* Tells the listeners of the IOAS what is about to be published. Undoes itself on failure. */
static int plan_tell(struct ioas *ioas, struct plan *plan, struct swi_reason *why)
{
	size_t i;
	int rc;

	for (i = 0; i < plan->n; i++) {
		rc = dma_listeners_map(ioas, plan->pieces[i].area, why);
		if (rc)
			goto undo;
	}
	return 0;
undo:
	while (i--)
		dma_listeners_unmap(ioas, plan->pieces[i].area->iova, plan->pieces[i].area->last);
	return rc;
}

static void plan_publish(struct ioas *ioas, struct plan *plan)
{
	iova_map_lock(ioas->map);
	for (size_t i = 0; i < plan->n; i++) {
		iova_map_publish(ioas->map, plan->pieces[i].area);
		/* The area and its reference now belong to the map. */
		plan->pieces[i].area = NULL;
		backing_get(plan->pieces[i].backing);
	}
	iova_map_unlock(ioas->map);
}

static int plan_run(struct ioas *ioas, struct plan *plan, struct swi_reason *why)
{
	int rc;

	pthread_rwlock_rdlock(&ioas->domains);
	rc = plan_place(ioas, plan, why);
	if (rc)
		goto out;
	rc = plan_fill(ioas, plan, why);
	if (!rc) {
		rc = plan_tell(ioas, plan, why);
		if (rc && ioas->nr_domains)
			plan_drain(ioas, plan, plan->n);
	}
	if (rc) {
		iova_map_lock(ioas->map);
		drop_areas_locked(ioas, plan, plan->n);
		iova_map_unlock(ioas->map);
		goto out;
	}
	plan_publish(ioas, plan);
out:
	pthread_rwlock_unlock(&ioas->domains);
	if (rc == -ENOMEM && !why->text[0])
		swi_fail(why, rc, "out of memory");
	return rc;
}

/* ---- MAP and MAP_FILE ---------------------------------------------------------------------------- */

static int check_map_args(struct call *call, uint32_t flags, uint32_t allowed, uint64_t iova,
			  uint64_t length)
{
	if (flags & ~allowed)
		return swi_fail(call->why, -EOPNOTSUPP, "flags %#x: only %#x are defined", flags,
				allowed);
	if (iova == IOVA_MAX || length == IOVA_MAX)
		return swi_fail(call->why, -EOVERFLOW, "%s is 2^64 - 1",
				iova == IOVA_MAX ? "iova" : "length");
	if (!prot_of(flags))
		return swi_fail(call->why, -EINVAL,
				"flags give the device neither read nor write access");
	return 0;
}

int call_get_payer(struct call *call, struct mem_payer *payer)
{
	enum mem_charge_mode mode = MEM_CHARGE_NONE;
	struct swiommu_caller *caller = call->caller;
	pid_t process = 0;
	uid_t user = 0;
	int rc;

	if (caller->ops->get_account) {
		rc = caller->ops->get_account(caller, &process, &user);
		if (rc)
			return swi_fail(call->why, rc, "the calling process is gone");
		if (!caller->ops->capable(caller, CAP_IPC_LOCK))
			mode = call->ctx->rlimit_process ? MEM_CHARGE_PROCESS : MEM_CHARGE_USER;
	}
	return mem_payer_init(payer, call->ctx->accounts, process, user, mode, call->why);
}

int ioas_map_owner(struct call *call, struct ioas *ioas, struct mem_owner *owner, uint64_t addr,
		   uint64_t length, unsigned int prot, bool fixed, uint64_t *iova)
{
	struct plan plan = {.prot = prot, .fixed = fixed, .iova = *iova};
	struct mem_payer payer = {0};
	struct backing *backing;
	int rc;

	rc = owner->ops->device ? 0 : call_get_payer(call, &payer);
	if (rc)
		return rc;
	rc = backing_create(owner, &payer, addr, length, plan.prot & SWI_WRITE, &backing);
	mem_payer_fini(&payer);
	if (rc)
		return rc;
	rc = plan_add(&plan, backing, 0, length);
	if (!rc)
		rc = plan_run(ioas, &plan, call->why);
	if (!rc)
		*iova = plan.iova;
	plan_free(&plan);
	return rc;
}

int ioas_map_memory(struct call *call, struct ioas *ioas, uint64_t uptr, uint64_t length,
		    unsigned int prot, bool fixed, uint64_t *iova)
{
	struct mem_owner *owner;
	uint64_t end;
	int rc;

	if (__builtin_add_overflow(uptr, length, &end))
		return swi_fail(call->why, -EOVERFLOW, "memory at %#llx + length %#llx passes 2^64",
				(ull)uptr, (ull)length);
	if (!length || length > IOVA_MAX - SWI_PAGE_SIZE)
		return swi_fail(call->why, -EINVAL, "length %#llx is %s", (ull)length,
				length ? "too large" : "0");
	rc = call->caller->ops->get_memory(call->caller, &owner);
	if (rc)
		return rc;
	owner = mem_owners_share(call->ctx->owners, owner);
	rc = ioas_map_owner(call, ioas, owner, uptr, length, prot, fixed, iova);
	mem_owner_put(owner);
	return rc;
}

int ioas_cmd_map(struct call *call)
{
	struct iommu_ioas_map *cmd = (void *)call->cmd.bytes;
	struct obj *obj;
	int rc;

	if (cmd->__reserved)
		return swi_fail(call->why, -EOPNOTSUPP, "__reserved is not 0");
	rc = check_map_args(call, cmd->flags, FIXED_RW, cmd->iova, cmd->length);
	if (rc)
		return rc;
	rc = obj_get(call->ctx, cmd->ioas_id, OBJ_IOAS, "ioas_id", call->why, &obj);
	if (rc)
		return rc;
	rc = ioas_map_memory(call, ioas_of(obj), cmd->user_va, cmd->length, prot_of(cmd->flags),
			     cmd->flags & IOMMU_IOAS_MAP_FIXED_IOVA, (uint64_t *)&cmd->iova);
	if (!rc)
		rc = call_respond(call);
	obj_put(obj);
	return rc;
}

/* What MAP_FILE maps: the contents of a file, or a dma-buf. */
static int file_owner(struct call *call, struct mem_owner **out)
{
	struct iommu_ioas_map_file *cmd = (void *)call->cmd.bytes;
	int rc, fd;

	if (call->ctx->test_abi) {
		rc = test_dmabuf_attach(call, cmd->fd, cmd->start + cmd->length - 1, out);
		if (rc || *out)
			return rc;
	}
	rc = call->caller->ops->get_fd(call->caller, cmd->fd, &fd);
	if (rc)
		return swi_fail(call->why, rc, "fd %d is not an open file", cmd->fd);
	if (cmd->length > IOVA_MAX - SWI_PAGE_SIZE)
		rc = swi_fail(call->why, -EINVAL, "length %#llx is too large", (ull)cmd->length);
	else
		rc = mem_owner_file(fd, out, call->why);
	if (rc)
		close(fd);
	else
		*out = mem_owners_share(call->ctx->owners, *out);
	return rc;
}

int ioas_cmd_map_file(struct call *call)
{
	struct iommu_ioas_map_file *cmd = (void *)call->cmd.bytes;
	struct mem_owner *owner;
	struct obj *obj;
	uint64_t last;
	int rc;

	rc = check_map_args(call, cmd->flags, FIXED_RW, cmd->iova, cmd->length);
	if (rc)
		return rc;
	rc = obj_get(call->ctx, cmd->ioas_id, OBJ_IOAS, "ioas_id", call->why, &obj);
	if (rc)
		return rc;
	if (!cmd->length) {
		rc = swi_fail(call->why, -EINVAL, "length is 0");
		goto out;
	}
	rc = swi_range_last("start", cmd->start, cmd->length, &last, call->why);
	if (rc)
		goto out;
	rc = file_owner(call, &owner);
	if (rc)
		goto out;
	rc = ioas_map_owner(call, ioas_of(obj), owner, cmd->start, cmd->length, prot_of(cmd->flags),
			    cmd->flags & IOMMU_IOAS_MAP_FIXED_IOVA, (uint64_t *)&cmd->iova);
	mem_owner_put(owner);
	if (!rc)
		rc = call_respond(call);
out:
	obj_put(obj);
	return rc;
}

/* ---- COPY ---------------------------------------------------------------------------------------- */

/* The consecutive areas that cover [first, last] of the source, as pieces. */
static int collect_source(struct ioas *ioas, iova_t first, iova_t last, struct plan *plan,
			  struct swi_reason *why)
{
	struct iova_area *area;
	iova_t next = first, end;
	int rc = 0;

	iova_map_lock(ioas->map);
	for (area = iova_map_first(ioas->map, first);; area = iova_area_next(area)) {
		if (!area || area->iova > next || area->busy) {
			rc = swi_fail(why, -ENOENT, "src_iova: nothing is mapped at %#llx",
				      (ull)next);
			break;
		}
		end = SWI_MIN(area->last, last);
		rc = plan_add(plan, backing_get(area->backing), area->offset + (next - area->iova),
			      end - next + 1);
		if (rc || end == last)
			break;
		next = end + 1;
	}
	iova_map_unlock(ioas->map);
	return rc;
}

int ioas_cmd_copy(struct call *call)
{
	struct iommu_ioas_copy *cmd = (void *)call->cmd.bytes;
	struct plan plan = {.prot = prot_of(cmd->flags),
			    .fixed = cmd->flags & IOMMU_IOAS_MAP_FIXED_IOVA,
			    .iova = cmd->dst_iova};
	uint32_t allowed = FIXED_RW | (call->ctx->test_abi ? MOCK_FLAGS_ACCESS_SYZ : 0);
	struct obj *obj;
	iova_t last;
	int rc;

	rc = check_map_args(call, cmd->flags, allowed, cmd->dst_iova, cmd->length);
	if (rc && cmd->flags & ~allowed)
		return rc;
	if (cmd->src_iova == IOVA_MAX)
		return swi_fail(call->why, -EOVERFLOW, "src_iova is 2^64 - 1");
	if (rc)
		return rc;
	rc = obj_get(call->ctx, cmd->src_ioas_id, OBJ_IOAS, "src_ioas_id", call->why, &obj);
	if (rc)
		return rc;
	if (cmd->flags & MOCK_FLAGS_ACCESS_SYZ)
		cmd->src_iova = test_nth_iova(ioas_of(obj), cmd->src_iova);
	if (!cmd->length)
		rc = swi_fail(call->why, -EINVAL, "length is 0");
	else
		rc = swi_range_last("src_iova", cmd->src_iova, cmd->length, &last, call->why);
	if (!rc)
		rc = collect_source(ioas_of(obj), cmd->src_iova, last, &plan, call->why);
	obj_put(obj);
	if (rc)
		goto out;
	rc = obj_get(call->ctx, cmd->dst_ioas_id, OBJ_IOAS, "dst_ioas_id", call->why, &obj);
	if (rc)
		goto out;
	rc = plan_run(ioas_of(obj), &plan, call->why);
	if (!rc) {
		cmd->dst_iova = plan.iova;
		rc = call_respond(call);
	}
	obj_put(obj);
out:
	plan_free(&plan);
	return rc;
}
