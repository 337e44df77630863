// SPDX-License-Identifier: MIT
/*
 * The checks of the test ABI: what is mapped and what is pinned, page by page.
 *
 * Pages are told apart by their keys (mem/accounts.h), which are equal for the same page however it is reached; physical
 * addresses are not, for they belong to backings. The page of a mapping is the one that was pinned, for a HWPT
 * what its page table leads to; the caller's is the one that is at the address now.
 */
#include <errno.h>

#include "core/hwpt.h"
#include "core/selftest.h"

/* The caller's page at `uptr`, which is faulted in. */
static int caller_page(struct call *call, struct mem_owner *caller, uint64_t uptr,
		       struct page_key *key)
{
	if (!mem_owner_page_key(caller, uptr, key))
		return 0;
	return swi_fail(call->why, -EFAULT, "uptr: there is no memory at %#llx", (ull)uptr);
}

/* The backing and the byte in it that an IOVA of the IOAS means; the backing is counted. -ENOENT. */
static int find_in_ioas(struct ioas *ioas, iova_t iova, struct backing **out, uint64_t *offset)
{
	struct iova_area *area;
	int rc = -ENOENT;

	iova_map_lock(ioas->map);
	area = iova_map_first(ioas->map, iova);
	if (area && area->iova <= iova && !area->busy) {
		*out = backing_get(area->backing);
		*offset = area->offset + (iova - area->iova);
		rc = 0;
	}
	iova_map_unlock(ioas->map);
	return rc;
}

/*
 * The pinned page that an IOVA means, and the place in it: by the page table of `hwpt`, if it is not NULL. -ENOENT: not
 * mapped, or not pinned.
 */
static int mapped_page(struct ioas *ioas, struct hwpt *hwpt, iova_t iova, struct page_key *key,
		       uint64_t *in_page)
{
	struct backing *b;
	uint64_t offset;
	int rc;

	rc = hwpt ? hwpt_find_backing(hwpt, iova, &b, &offset)
		  : find_in_ioas(ioas, iova, &b, &offset);
	if (rc)
		return rc;
	rc = backing_page_key(b, backing_page_of(b, offset), key);
	*in_page = (backing_addr(b) + offset) % SWI_PAGE_SIZE;
	backing_put(b);
	return rc;
}

static int compare_one(struct call *call, struct ioas *ioas, struct hwpt *hwpt,
		       struct mem_owner *caller, uint64_t iova, uint64_t uptr, int differs)
{
	struct page_key theirs, ours;
	uint64_t in_page;
	int rc;

	rc = caller_page(call, caller, uptr, &theirs);
	if (rc)
		return rc;
	if (mapped_page(ioas, hwpt, iova, &ours, &in_page))
		return swi_fail(call->why, differs, "nothing is mapped at %#llx", (ull)iova);
	if (!page_key_equal(&theirs, &ours) || (hwpt && in_page != uptr % SWI_PAGE_SIZE))
		return swi_fail(call->why, differs, "IOVA %#llx is not the memory at %#llx",
				(ull)iova, (ull)uptr);
	return 0;
}

int test_compare(struct call *call, struct ioas *ioas, struct hwpt *hwpt, uint64_t iova,
		 uint64_t uptr, uint64_t n, uint64_t step, int differs)
{
	struct mem_owner *caller;
	int rc;

	rc = call->caller->ops->get_memory(call->caller, &caller);
	if (rc)
		return rc;
	for (uint64_t i = 0; !rc && i < n; i++)
		rc = compare_one(call, ioas, hwpt, caller, iova + i * step, uptr + i * step,
				 differs);
	mem_owner_put(caller);
	return rc;
}

int test_check_map(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint64_t length = cmd->check_map.length, end, step;
	struct hwpt *hwpt;
	struct obj *obj;
	int rc;

	rc = obj_get(call->ctx, cmd->id, OBJ_HWPT_PAGING, "id", call->why, &obj);
	if (rc)
		return rc;
	hwpt = hwpt_of(obj);
	step = hwpt->table.pgsize_bitmap & -hwpt->table.pgsize_bitmap;
	if ((cmd->check_map.iova | length | cmd->check_map.uptr) & (step - 1))
		rc = swi_fail(call->why, -EINVAL, "iova, length or uptr is not a multiple of %llu",
			      (ull)step);
	else if (__builtin_add_overflow(cmd->check_map.uptr, length, &end))
		rc = swi_fail(call->why, -EINVAL, "uptr + length passes 2^64");
	else
		rc = test_compare(call, hwpt->ioas, hwpt, cmd->check_map.iova, cmd->check_map.uptr,
				  length / step, step, -EINVAL);
	obj_put(obj);
	return rc;
}

static int check_refs_at(struct call *call, struct mem_owner *caller, uint64_t uptr, uint32_t refs)
{
	struct page_key key;
	long pinned;
	int rc;

	rc = caller_page(call, caller, uptr, &key);
	if (rc || key.huge)
		return rc;
	pinned = mem_registry_count(call->ctx->accounts, &key);
	if (pinned < 0)
		return pinned;
	if (pinned == refs)
		return 0;
	return swi_fail(call->why, -EIO, "the page at %#llx is pinned %ld times, not %u", (ull)uptr,
			pinned, refs);
}

int test_check_refs(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint64_t length = cmd->check_refs.length, uptr = cmd->check_refs.uptr, end;
	struct mem_owner *caller;
	int rc;

	if ((length | uptr) % SWI_PAGE_SIZE || __builtin_add_overflow(uptr, length, &end))
		return swi_fail(call->why, -EINVAL,
				"length or uptr is not a multiple of %llu, or they pass 2^64",
				SWI_PAGE_SIZE);
	rc = call->caller->ops->get_memory(call->caller, &caller);
	if (rc)
		return rc;
	for (; !rc && uptr != end; uptr += SWI_PAGE_SIZE)
		rc = check_refs_at(call, caller, uptr, cmd->check_refs.refs);
	mem_owner_put(caller);
	return rc;
}
