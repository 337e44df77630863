// SPDX-License-Identifier: MIT
/* What a context holds, as text for people. */
#include <stdio.h>

#include "core/ctx.h"
#include "core/ioas.h"

struct dump {
	void (*line)(void *data, const char *text);
	void *data;
};

/* One area as text; the lock is dropped between areas, so the picture is of each area, not of all. */
static bool dump_area(struct ioas *ioas, iova_t *next, char *buf, size_t size)
{
	struct iova_area *area;

	iova_map_lock(ioas->map);
	area = iova_map_first(ioas->map, *next);
	if (area) {
		struct mem_owner *owner = backing_owner(area->backing);

		snprintf(buf, size, "  [%#llx, %#llx] %c%c %s %d address %#llx%s",
			 (unsigned long long)area->iova, (unsigned long long)area->last,
			 area->prot & SWI_READ ? 'R' : '-', area->prot & SWI_WRITE ? 'W' : '-',
			 owner->ops->kind, (int)mem_owner_pid(owner),
			 (unsigned long long)(backing_addr(area->backing) + area->offset),
			 area->busy ? " busy" : "");
		*next = area->last + 1;
	}
	iova_map_unlock(ioas->map);
	return area;
}

static bool dump_ioas(struct obj *obj, void *data)
{
	struct ioas *ioas = ioas_of(obj);
	struct dump *dump = data;
	iova_t next = 0;
	size_t count;
	char buf[200];

	iova_map_lock(ioas->map);
	count = iova_map_count(ioas->map);
	iova_map_unlock(ioas->map);
	snprintf(buf, sizeof(buf), "IOAS %u: %zu mappings", obj->id, count);
	dump->line(dump->data, buf);
	while (dump_area(ioas, &next, buf, sizeof(buf))) {
		dump->line(dump->data, buf);
		if (!next)
			break;
	}
	return false;
}

void swiommu_dump(struct iommufd_ctx *ctx, void (*line)(void *data, const char *text), void *data)
{
	struct dump dump = {line, data};

	obj_for_each(ctx, OBJ_IOAS, dump_ioas, &dump);
}
