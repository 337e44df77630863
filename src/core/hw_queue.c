// SPDX-License-Identifier: MIT
/*
 * HW queues: queues in guest memory that a driver works on by itself (spec devices.md 5.6).
 *
 * The memory is pinned through an access of the engine's own, whose pins forbid unmapping. It has to be in one
 * piece where the parent's page table puts it, and that is where the driver is told that it is. It also has to be
 * in one piece where it comes from, as far as that has an identity (mem/accounts.h).
 */
#include <errno.h>

#include "base/alloc.h"
#include "core/access.h"
#include "core/call.h"
#include "core/viommu.h"
#include "mem/accounts.h"

struct hw_queue {
	struct obj obj;
	struct iommufd_hw_queue *pub;  /* owned */
	struct viommu *viommu;	       /* counted */
	struct iommufd_access *access; /* NULL until there */
	bool pinned;
	bool initialised; /* the driver's destroy is due */
};

static struct hw_queue *hw_queue_of(struct obj *obj)
{
	return container_of(obj, struct hw_queue, obj);
}

static iova_t first_page(const struct iommufd_hw_queue *pub)
{
	return pub->base_addr & ~(SWI_PAGE_SIZE - 1);
}

/* Bytes of the pages that the queue touches. The caller has checked that it does not wrap. */
static uint64_t page_length(const struct iommufd_hw_queue *pub)
{
	return (pub->base_addr + pub->length - 1 - first_page(pub)) / SWI_PAGE_SIZE *
		       SWI_PAGE_SIZE +
	       SWI_PAGE_SIZE;
}

static void hw_queue_destroy(struct obj *obj)
{
	struct hw_queue *q = hw_queue_of(obj);

	if (q->initialised && q->pub->destroy)
		q->pub->destroy(q->pub);
	if (q->pinned)
		iommufd_access_unpin_pages(q->access, first_page(q->pub), page_length(q->pub));
	if (q->access)
		iommufd_access_destroy(q->access);
	swi_free(q->pub);
	obj_unhold(&q->viommu->obj);
}

static const struct obj_ops hw_queue_ops = {
	.type = OBJ_HW_QUEUE,
	.name = "HW queue",
	.size = sizeof(struct hw_queue),
	.destroy = hw_queue_destroy,
};

/* ---- where the memory is ----------------------------------------------------------------------------- */

/* What the page at `iova` is: its place in a file or address space. */
static int page_key_at(struct ioas *ioas, iova_t iova, struct page_key *key)
{
	struct iova_area *area;
	struct backing *b;
	int rc = -ENOENT;

	iova_map_lock(ioas->map);
	area = iova_map_first(ioas->map, iova);
	b = area && area->iova <= iova ? backing_get(area->backing) : NULL;
	if (b)
		rc = (int)(area->offset + (iova - area->iova) >= backing_length(b)) ? -ENOENT : 0;
	if (!rc)
		rc = backing_page_key(b, backing_page_of(b, area->offset + (iova - area->iova)),
				      key);
	iova_map_unlock(ioas->map);
	if (b)
		backing_put(b);
	return rc;
}

/*
 * The physical address of the first byte of the pinned range. -EFAULT: its pages do not follow each other, either there or
 * in the file or address space that they belong to: page tables have physical addresses of our own making, at which
 * pages that have nothing to do with each other may meet.
 */
static int find_base(struct call *call, const struct hw_queue *q, uint64_t *base)
{
	const struct iommufd_hw_queue *pub = q->pub;
	uint64_t n = page_length(pub) / SWI_PAGE_SIZE;
	struct hwpt *parent = q->viommu->parent;
	phys_t first = hwpt_iova_to_phys(parent, first_page(pub));
	struct page_key first_key = {0}, key;
	iova_t at = first_page(pub);

	for (uint64_t i = 0; i < n; i++, at += SWI_PAGE_SIZE) {
		if (page_key_at(parent->ioas, at, &key))
			return swi_fail(call->why, -EFAULT,
					"where the queue's memory lies is not known");
		if (!i)
			first_key = key;
		key.index -= i;
		if (!first || hwpt_iova_to_phys(parent, at) != first + i * SWI_PAGE_SIZE ||
		    !page_key_equal(&first_key, &key))
			return swi_fail(call->why, -EFAULT,
					"the queue's memory is not in one piece: page %llu does "
					"not follow the one before it",
					(unsigned long long)i);
	}
	*base = first + (pub->base_addr & (SWI_PAGE_SIZE - 1));
	return 0;
}

/* ---- HW_QUEUE_ALLOC ---------------------------------------------------------------------------------- */

static int pin(struct call *call, struct hw_queue *q)
{
	struct ioas *ioas = q->viommu->parent->ioas;
	struct iommufd_hw_queue *pub = q->pub;
	uint64_t rounded = page_length(pub);
	void *pages;
	int rc;

	/* The list of pages that a pin takes elsewhere: there is none for a length without end. */
	if (pub->length + (pub->base_addr & (SWI_PAGE_SIZE - 1)) > UINT64_MAX - SWI_PAGE_SIZE)
		return swi_fail(call->why, -ERANGE, "the length passes 2^64 when rounded to pages");
	pages = rounded / SWI_PAGE_SIZE > INT32_MAX / sizeof(void *)
			? NULL
			: swi_alloc(rounded / SWI_PAGE_SIZE * sizeof(void *));
	if (!pages)
		return swi_fail(call->why, -ENOMEM, "no memory for a list of the queue's pages");
	swi_free(pages);
	rc = access_create_internal(call->ctx, &q->access);
	if (rc)
		return rc;
	rc = iommufd_access_attach(q->access, ioas->obj.id);
	if (rc) {
		swiommu_access_reason(q->access, call->why->text, sizeof(call->why->text));
		return rc;
	}
	rc = access_pin(q->access, first_page(pub), rounded, NULL, IOMMUFD_ACCESS_RW_READ,
			call->why);
	q->pinned = !rc;
	return rc;
}

static int init(struct call *call, struct hw_queue *q, uint32_t index)
{
	uint64_t base = 0;
	int rc;

	rc = find_base(call, q, &base);
	if (rc)
		return rc;
	rc = q->viommu->pub->ops->hw_queue_init_phys(q->pub, index, base);
	if (rc && !call->why->text[0])
		swi_fail(call->why, rc, "the driver (%s) does not make queue %u",
			 q->viommu->driver->name, index);
	q->initialised = !rc;
	return rc;
}

static int create(struct call *call, struct viommu *viommu)
{
	struct iommu_hw_queue_alloc *cmd = (void *)call->cmd.bytes;
	const struct iommufd_viommu_ops *ops = viommu->pub->ops;
	struct hw_queue *q;
	struct obj *obj;
	size_t size = 0;
	int rc;

	if (ops->get_hw_queue_size && ops->hw_queue_init_phys)
		size = ops->get_hw_queue_size(viommu->pub, cmd->type);
	if (size < sizeof(struct iommufd_hw_queue))
		return swi_fail(call->why, -EOPNOTSUPP, "vIOMMU %u has no HW queues of type %#x",
				viommu->obj.id, cmd->type);
	rc = obj_alloc(call->ctx, &hw_queue_ops, &obj);
	if (rc)
		return rc;
	q = hw_queue_of(obj);
	q->viommu = viommu;
	obj_hold(&viommu->obj);
	call->new_obj = obj;
	q->pub = swi_zalloc(size);
	if (!q->pub)
		return -ENOMEM;
	*q->pub = (struct iommufd_hw_queue){.viommu = viommu->pub,
					    .type = cmd->type,
					    .base_addr = cmd->nesting_parent_iova,
					    .length = cmd->length,
					    .engine = q};
	rc = pin(call, q);
	if (!rc)
		rc = init(call, q, cmd->index);
	cmd->out_hw_queue_id = obj->id;
	return rc ? rc : call_respond(call);
}

int hw_queue_cmd_alloc(struct call *call)
{
	const struct iommu_hw_queue_alloc *cmd = (void *)call->cmd.bytes;
	struct obj *obj;
	iova_t last;
	int rc;

	if (cmd->flags || cmd->type == IOMMU_HW_QUEUE_TYPE_DEFAULT)
		return swi_fail(call->why, -EOPNOTSUPP,
				"no flag is defined, and type %u is no queue", cmd->type);
	if (!cmd->length)
		return swi_fail(call->why, -EINVAL, "length is 0");
	rc = swi_range_last("nesting_parent_iova", cmd->nesting_parent_iova, cmd->length, &last,
			    call->why);
	if (rc)
		return rc;
	rc = obj_get(call->ctx, cmd->viommu_id, OBJ_VIOMMU, "viommu_id", call->why, &obj);
	if (rc)
		return rc;
	rc = create(call, viommu_of(obj));
	obj_put(obj);
	return rc;
}

/* ---- dependencies ------------------------------------------------------------------------------------ */

int iommufd_hw_queue_depend(struct iommufd_hw_queue *dependent, struct iommufd_hw_queue *depended)
{
	struct hw_queue *on = depended->engine;

	if (dependent == depended || dependent->viommu != depended->viommu ||
	    dependent->type != depended->type)
		return -EINVAL;
	obj_hold(&on->obj);
	return 0;
}

void iommufd_hw_queue_undepend(struct iommufd_hw_queue *dependent,
			       struct iommufd_hw_queue *depended)
{
	struct hw_queue *on = depended->engine;

	(void)dependent;
	obj_unhold(&on->obj);
}
