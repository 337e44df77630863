// SPDX-License-Identifier: MIT
/*
 * IOMMU_IOAS_CHANGE_PROCESS (spec core.md 4.6): the caller becomes the mapper of everything that the
 * context maps, and pays for it from now on. For a program that took over the file.
 *
 * Everything that changes mappings or domains is shut out by holding all IOASes exclusively, and all
 * charging of the session for the moment in which the charges move. The new payer is charged before
 * the old ones are relieved, so within one user there must be room for both (quirk Q5, kept).
 *
 * Two bugs of the kernel are not kept (spec core.md 8.3, Q2 and Q12): a mapper that is gone does not
 * make the call fail, and memory that is pinned without a limit moves to the caller's VmPin too.
 */
#include <errno.h>
#include <linux/iommufd.h>

#include "base/alloc.h"
#include "core/call.h"
#include "core/ioas.h"

struct held {
	struct ioas **ioas; /* held for use and exclusively, ascending */
	size_t n, room;
	struct swi_reason *why;
	int rc;
};

static bool has_busy_area(struct ioas *ioas)
{
	struct iova_area *area;

	iova_map_lock(ioas->map);
	iova_map_for_each (area, ioas->map)
		if (area->busy)
			break;
	iova_map_unlock(ioas->map);
	return area;
}

/* Takes one more IOAS; stops on failure. A call in progress on it is an error, not waited for. */
static bool hold_ioas(struct obj *obj, void *data)
{
	struct held *held = data;
	struct ioas **bigger;

	if (held->n == held->room) {
		held->room = held->room ? held->room * 2 : 8;
		bigger = swi_realloc(held->ioas, held->room * sizeof(*bigger));
		if (!bigger) {
			held->rc = swi_fail(held->why, -ENOMEM, "out of memory");
			return true;
		}
		held->ioas = bigger;
	}
	if (!obj_try_get(obj))
		return false;
	if (has_busy_area(ioas_of(obj))) {
		obj_put(obj);
		held->rc =
			swi_fail(held->why, -EBUSY,
				 "a mapping of IOAS %u is being changed by another call", obj->id);
		return true;
	}
	pthread_rwlock_wrlock(&ioas_of(obj)->domains);
	held->ioas[held->n++] = ioas_of(obj);
	return false;
}

static void release_all(struct held *held)
{
	while (held->n--) {
		pthread_rwlock_unlock(&held->ioas[held->n]->domains);
		obj_put(&held->ioas[held->n]->obj);
	}
	swi_free(held->ioas);
}

/* Calls fn for the backing of every area; those shared by several areas more than once. */
static void for_each_backing(struct held *held, void (*fn)(struct backing *b, void *data),
			     void *data)
{
	struct iova_area *area;

	for (size_t i = 0; i < held->n; i++) {
		iova_map_lock(held->ioas[i]->map);
		iova_map_for_each (area, held->ioas[i]->map)
			fn(area->backing, data);
		iova_map_unlock(held->ioas[i]->map);
	}
}

static void find_other_memory(struct backing *b, void *data)
{
	struct backing **found = data;

	if (!mem_owner_is_file(backing_owner(b)))
		*found = b;
}

struct charge_move {
	const struct mem_payer *to;
	struct mem_bill bill;
};

static void prepare(struct backing *b, void *data)
{
	struct charge_move *move = data;

	backing_charge_prepare(b, move->to, &move->bill);
}

static void commit(struct backing *b, void *data)
{
	backing_charge_move(b, ((struct charge_move *)data)->to);
}

static void cancel(struct backing *b, void *data)
{
	(void)data;
	backing_charge_cancel(b);
}

static int move_charges(struct call *call, struct held *held)
{
	struct charge_move move = {0};
	struct mem_payer payer;
	int rc = call_get_payer(call, &payer);

	if (rc)
		return rc;
	move.to = &payer;
	mem_accounts_block(call->ctx->accounts);
	for_each_backing(held, prepare, &move);
	rc = mem_payer_charge_bill(&payer, &move.bill, call->why);
	for_each_backing(held, rc ? cancel : commit, &move);
	mem_accounts_unblock(call->ctx->accounts);
	mem_payer_fini(&payer);
	return rc;
}

int ioas_cmd_change_process(struct call *call)
{
	struct iommu_ioas_change_process *cmd = (void *)call->cmd.bytes;
	struct held held = {.why = call->why};
	struct backing *other = NULL;
	int rc;

	if (cmd->__reserved)
		return swi_fail(call->why, -EOPNOTSUPP, "__reserved is not 0");
	obj_for_each(call->ctx, OBJ_IOAS, hold_ioas, &held);
	rc = held.rc;
	if (rc)
		goto out;
	for_each_backing(&held, find_other_memory, &other);
	if (other)
		rc = swi_fail(call->why, -EINVAL,
			      "memory at %#llx was not mapped by IOMMU_IOAS_MAP_FILE, so it cannot "
			      "change hands",
			      (unsigned long long)backing_addr(other));
	else
		rc = move_charges(call, &held);
out:
	release_all(&held);
	return rc;
}
