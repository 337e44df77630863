// SPDX-License-Identifier: MIT
/* The op of the test ABI that makes memory dirty as a device would, but by a list and without touching it. */
#include <errno.h>

#include "base/alloc.h"
#include "core/dirty.h"
#include "core/selftest.h"

#define BITS_MAX (1ull << 27)
#define BITS_AT_A_TIME (1ull << 16) /* for which the map's lock is held */

/* Marks what bits from .. to - 1 stand for; counts them. */
static uint64_t mark_some(struct hwpt *hwpt, const struct iommu_test_cmd *cmd,
			  const unsigned char *bits, uint64_t from, uint64_t to)
{
	struct iova_map *map = hwpt->ioas->map;
	struct iova_area *area;
	uint64_t n = 0, iova;

	iova_map_lock(map);
	for (uint64_t i = from; i < to; i++) {
		if (!(bits[i / 8] >> i % 8 & 1))
			continue;
		n++;
		iova = cmd->dirty.iova + i * cmd->dirty.page_size;
		area = iova_map_first(map, iova);
		if (iova >= cmd->dirty.iova && area && area->iova <= iova && !area->busy)
			dirty_mark(hwpt, iova, 1);
	}
	iova_map_unlock(map);
	return n;
}

static int mark_list(struct call *call, struct hwpt *hwpt)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint64_t nr = cmd->dirty.length / cmd->dirty.page_size, dirty = 0, i, end;
	unsigned char *bits;
	int rc;

	if (!hwpt->tracking)
		return swi_fail(call->why, -EINVAL, "HWPT %u does not track dirty pages now",
				hwpt->obj.id);
	bits = swi_alloc((nr + 7) / 8);
	if (!bits)
		return -ENOMEM;
	rc = call_copy_in(call, bits, cmd->dirty.uptr, (nr + 7) / 8, "uptr");
	for (i = 0; !rc && i < nr; i = end) {
		end = SWI_MIN(nr, i + BITS_AT_A_TIME);
		dirty += mark_some(hwpt, cmd, bits, i, end);
	}
	swi_free(bits);
	if (rc)
		return rc;
	cmd->dirty.out_nr_dirty = dirty;
	return call_respond(call);
}

int test_dirty(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	struct obj *obj;
	int rc;

	if (!cmd->dirty.page_size || !cmd->dirty.length || cmd->dirty.iova % cmd->dirty.page_size ||
	    cmd->dirty.length % cmd->dirty.page_size || !cmd->dirty.uptr)
		return swi_fail(call->why, -EINVAL,
				"iova or length is not a multiple of page_size, or one is 0");
	if (cmd->dirty.length / cmd->dirty.page_size > BITS_MAX)
		return swi_fail(call->why, -EOVERFLOW, "more than %llu pages", BITS_MAX);
	rc = obj_get(call->ctx, cmd->id, OBJ_HWPT_PAGING, "id", call->why, &obj);
	if (rc)
		return rc;
	rc = mark_list(call, hwpt_of(obj));
	obj_put(obj);
	return rc;
}
