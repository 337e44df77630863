// SPDX-License-Identifier: MIT
/*
 * DMA handles, and switching a device's DMA from one translation to another.
 *
 * Each handle is a reader of the IOVA map that its route leads to (iova/map.h). Switching a route to a HWPT of another
 * IOAS registers every handle with the new map first, then changes the route, then takes the handles off the old map,
 * which waits for accesses in progress. So when a switch returns, no access uses the old translation.
 *
 * A route exists while it leads somewhere or has handles. That of requests without a PASID is part of the device.
 */
#include <errno.h>

#include "base/alloc.h"
#include "core/ctx.h"
#include "core/dma.h"

/* ---- routes --------------------------------------------------------------------------------------- */

static struct dma_route *route_of(struct rb_node *node)
{
	return container_of(node, struct dma_route, node);
}

/* NULL: there is none, and *link below *parent is its place. idev->dma_lock held. */
static struct dma_route *find_route_locked(struct iommufd_device *idev, uint32_t pasid,
					   struct rb_node **parent, struct rb_node ***link)
{
	*parent = NULL;
	*link = &idev->routes.root;
	while (**link) {
		struct dma_route *route = route_of(**link);

		if (route->pasid == pasid)
			return route;
		*parent = **link;
		*link = pasid < route->pasid ? &(*parent)->left : &(*parent)->right;
	}
	return NULL;
}

/* The route of a PASID, made if needed: to be given to put_route_locked() when it is used no more. NULL: no memory. */
static struct dma_route *get_route_locked(struct iommufd_device *idev, uint32_t pasid)
{
	struct rb_node *parent, **link;
	struct dma_route *route = find_route_locked(idev, pasid, &parent, &link);

	if (route)
		return route;
	route = swi_new(struct dma_route);
	if (!route)
		return NULL;
	route->pasid = pasid;
	list_init(&route->dmas);
	rb_insert(&idev->routes, &route->node, parent, link);
	return route;
}

static void put_route_locked(struct iommufd_device *idev, struct dma_route *route)
{
	if (route->hwpt || !list_empty(&route->dmas))
		return;
	rb_erase(&idev->routes, &route->node);
	swi_free(route);
}

void dma_routes_free(struct iommufd_device *idev)
{
	struct rb_node *node;

	while ((node = rb_first(&idev->routes))) {
		rb_erase(&idev->routes, node);
		swi_free(route_of(node));
	}
}

/* ---- handles -------------------------------------------------------------------------------------- */

static int join_route_locked(struct iommufd_device *idev, uint32_t pasid, struct swiommu_dma *dma)
{
	struct dma_route *route = get_route_locked(idev, pasid);
	struct hwpt *hwpt;
	int rc = 0;

	if (!route)
		return -ENOMEM;
	hwpt = route->hwpt;
	if (hwpt)
		rc = iova_reader_attach(&dma->reader, hwpt->ioas->map);
	if (!rc) {
		dma->route = route;
		list_add_tail(&route->dmas, &dma->entry);
	}
	put_route_locked(idev, route);
	return rc;
}

int swiommu_dma_open_pasid(struct iommufd_device *idev, uint32_t pasid, unsigned int flags,
			   struct swiommu_dma **out)
{
	struct swiommu_dma *dma;
	int rc;

	if (flags & ~(SWIOMMU_DMA_PAGE_REQUESTS | SWIOMMU_DMA_PRIVILEGED) ||
	    (flags & SWIOMMU_DMA_PRIVILEGED && !(pasid && idev->dev->pasid_priv)) ||
	    (pasid && pasid >= idev->dev->max_pasids))
		return -EINVAL;
	dma = swi_zalloc_aligned(SWI_CACHELINE, sizeof(*dma));
	if (!dma)
		return -ENOMEM;
	dma->idev = idev;
	dma->flags = flags;
	dma->physical = device_is_noiommu(idev);
	rc = iova_reader_init(&dma->reader);
	if (rc)
		goto free;
	pthread_mutex_lock(&idev->dma_lock);
	rc = join_route_locked(idev, pasid, dma);
	pthread_mutex_unlock(&idev->dma_lock);
	if (rc)
		goto fini;
	*out = dma;
	return 0;
fini:
	iova_reader_fini(&dma->reader);
free:
	swi_free(dma);
	return rc;
}

int swiommu_dma_open(struct iommufd_device *idev, struct swiommu_dma **out)
{
	return swiommu_dma_open_pasid(idev, 0, 0, out);
}

void swiommu_dma_close(struct swiommu_dma *dma)
{
	struct iommufd_device *idev = dma->idev;
	struct hwpt *hwpt;

	pthread_mutex_lock(&idev->dma_lock);
	list_del(&dma->entry);
	hwpt = dma->route->hwpt;
	if (hwpt)
		iova_reader_detach(&dma->reader, hwpt->ioas->map);
	put_route_locked(idev, dma->route);
	pthread_mutex_unlock(&idev->dma_lock);
	iova_reader_fini(&dma->reader);
	swi_free(dma);
}

/* ---- switching ------------------------------------------------------------------------------------ */

static struct swiommu_dma *dma_of(struct list *pos)
{
	return list_entry(pos, struct swiommu_dma, entry);
}

static int attach_readers_locked(struct dma_route *route, struct ioas *ioas)
{
	struct list *pos;
	int rc;

	list_for_each (pos, &route->dmas) {
		rc = iova_reader_attach(&dma_of(pos)->reader, ioas->map);
		if (rc)
			goto undo;
	}
	return 0;
undo:
	while ((pos = pos->prev) != &route->dmas)
		iova_reader_detach(&dma_of(pos)->reader, ioas->map);
	return rc;
}

static int switch_route_locked(struct dma_route *route, struct hwpt *hwpt)
{
	struct hwpt *old = route->hwpt;
	struct list *pos;
	int rc;

	if (old == hwpt)
		return 0;
	if (hwpt && old && hwpt->ioas == old->ioas) {
		/* The handles are readers of this map already. */
		route->hwpt = hwpt;
		iova_map_sync(hwpt->ioas->map);
		return 0;
	}
	rc = hwpt ? attach_readers_locked(route, hwpt->ioas) : 0;
	if (rc)
		return rc;
	route->hwpt = hwpt;
	if (old)
		list_for_each (pos, &route->dmas)
			iova_reader_detach(&dma_of(pos)->reader, old->ioas->map);
	return 0;
}

int device_dma_switch(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt)
{
	struct rb_node *parent, **link;
	struct dma_route *route;
	int rc = 0;

	pthread_mutex_lock(&idev->dma_lock);
	route = hwpt ? get_route_locked(idev, pasid)
		     : find_route_locked(idev, pasid, &parent, &link);
	if (route) {
		rc = switch_route_locked(route, hwpt);
		put_route_locked(idev, route);
	} else if (hwpt) {
		rc = -ENOMEM;
	}
	pthread_mutex_unlock(&idev->dma_lock);
	return rc;
}

void device_dma_switch_back(struct iommufd_device *idev, uint32_t pasid, struct hwpt *hwpt)
{
	if (device_dma_switch(idev, pasid, hwpt))
		device_dma_switch(idev, pasid, NULL);
}
