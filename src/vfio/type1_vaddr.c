// SPDX-License-Identifier: MIT
/*
 * Mappings of a type 1 container that have lost their address (UNMAP_DMA with VADDR) until they are
 * given one again (MAP_DMA with VADDR): how a program hands its memory over to its successor after
 * an exec, while devices go on.
 *
 * Devices use the memory that was pinned when the mapping was made, so nothing changes for them. What is
 * kept here is only which mappings are in that state, as the rules of both calls demand.
 */
#include "vfio/type1.h"

#include "base/alloc.h"
#include "base/rbtree.h"

#include <errno.h>

struct lost_vaddr {
	struct rb_node node; /* in type1.invalid, by iova */
	iova_t iova, last;
};

static struct lost_vaddr *lost_of(struct rb_node *node)
{
	return node ? container_of(node, struct lost_vaddr, node) : NULL;
}

/* The first one whose last >= iova. */
static struct lost_vaddr *first_lost(struct type1 *t, iova_t iova)
{
	struct rb_node *at = t->invalid.root;
	struct lost_vaddr *best = NULL;

	while (at) {
		struct lost_vaddr *l = lost_of(at);

		if (l->last >= iova) {
			best = l;
			at = at->left;
		} else {
			at = at->right;
		}
	}
	return best;
}

static void insert_lost(struct type1 *t, struct lost_vaddr *l)
{
	struct rb_node **link = &t->invalid.root, *parent = NULL;

	while (*link) {
		parent = *link;
		link = l->iova < lost_of(parent)->iova ? &parent->left : &parent->right;
	}
	rb_insert(&t->invalid, &l->node, parent, link);
	t->nr_invalid++;
}

static void erase_lost(struct type1 *t, struct lost_vaddr *l)
{
	rb_erase(&t->invalid, &l->node);
	t->nr_invalid--;
	swi_free(l);
}

bool type1_has_invalid(struct type1 *t)
{
	bool any;

	pthread_mutex_lock(&t->lock);
	any = t->nr_invalid;
	pthread_mutex_unlock(&t->lock);
	return any;
}

/* One mapping at a time: memory must not be asked for under the map's lock. */
static bool next_mapping(struct type1 *t, iova_t from, iova_t last, iova_t *first, iova_t *end)
{
	struct iova_area *area;

	iova_map_lock(t->ioas->map);
	area = iova_map_first(t->ioas->map, from);
	if (area && area->iova <= last) {
		*first = area->iova;
		*end = area->last;
	} else {
		area = NULL;
	}
	iova_map_unlock(t->ioas->map);
	return area;
}

/* Software that uses the memory by its address. */
static bool has_emulated(struct type1 *t)
{
	bool any;

	pthread_rwlock_rdlock(&t->ioas->domains);
	any = t->ioas->nr_page_accesses;
	pthread_rwlock_unlock(&t->ioas->domains);
	return any;
}

long type1_forget_vaddr_locked(struct type1 *t, struct swiommu_caller *caller, iova_t iova,
			       iova_t last, uint64_t *bytes)
{
	struct lost_vaddr *l = first_lost(t, iova);
	iova_t from = iova, first, end;

	if (has_emulated(t))
		return vfio_fail(caller, -EBUSY,
				 "VFIO_IOMMU_UNMAP_DMA: addresses cannot be taken from emulated "
				 "devices");
	if (l && l->iova <= last)
		return vfio_fail(caller, -EINVAL,
				 "VFIO_IOMMU_UNMAP_DMA: the mapping [%#llx, %#llx] has lost its "
				 "address already",
				 (ull)l->iova, (ull)l->last);
	while (next_mapping(t, from, last, &first, &end)) {
		l = swi_new(struct lost_vaddr);
		if (!l) {
			type1_drop_vaddrs_locked(t, iova, last);
			*bytes = 0;
			return vfio_fail(caller, -ENOMEM, "VFIO_IOMMU_UNMAP_DMA: out of memory");
		}
		l->iova = first;
		l->last = end;
		insert_lost(t, l);
		*bytes += end - first + 1;
		if (end >= last)
			break;
		from = end + 1;
	}
	return 0;
}

long type1_set_vaddr_locked(struct type1 *t, struct swiommu_caller *caller, iova_t iova,
			    uint64_t size)
{
	struct lost_vaddr *l = first_lost(t, iova);
	iova_t first, end;

	if (!next_mapping(t, iova, iova + size - 1, &first, &end))
		return vfio_fail(caller, -ENOENT,
				 "VFIO_IOMMU_MAP_DMA: VADDR, but nothing is mapped in [%#llx, "
				 "%#llx]",
				 (ull)iova, (ull)(iova + size - 1));
	if (!l || l->iova != iova || l->last != iova + size - 1)
		return vfio_fail(caller, -EINVAL,
				 "VFIO_IOMMU_MAP_DMA: VADDR, but [%#llx, %#llx] is not exactly a "
				 "mapping that has lost its address",
				 (ull)iova, (ull)(iova + size - 1));
	erase_lost(t, l);
	return 0;
}

void type1_drop_vaddrs_locked(struct type1 *t, iova_t iova, iova_t last)
{
	struct lost_vaddr *l;

	while ((l = first_lost(t, iova)) && l->iova <= last)
		erase_lost(t, l);
}
