/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_IOAS_H
#define SWIOMMU_CORE_IOAS_H

/*
 * An IOAS: an IOVA map, the domains that must mirror it, and the rules for changing it.
 *
 * Locks, outermost first:
 *   mutex	 the list of HWPTs; held while an automatic one is looked for, made or destroyed
 *   domains	 shared by MAP, COPY and UNMAP for as long as they fill or drain, exclusive for whatever
 *		 changes who must be filled: adding and removing domains, alignment. Held over
 *		 pinning, which may block on the client's memory.
 *   map's lock  the tree of areas, reserved and allowed ranges; never held over blocking work
 *
 * So an area is pinned if and only if it is published (or about to be) and nr_domains > 0.
 */

#include <pthread.h>

#include "base/list.h"
#include "core/object.h"
#include "iova/map.h"
#include "mem/backing.h"

struct iommufd_access;

/* The accesses attached to an IOAS, by slot; NULL: free. Its lock is a leaf but for the object table's. */
struct access_slots {
	pthread_mutex_t lock;
	pthread_cond_t left; /* one has gone */
	struct iommufd_access **v;
	uint32_t size, lowest_free;
};

struct ioas {
	struct obj obj;
	pthread_mutex_t mutex;
	struct list hwpts;     /* struct hwpt.entry, in order of creation; mutex */
	struct list tables;    /* struct domain.entry: those that mirror the map; domains lock */
	struct list listeners; /* struct dma_listener.ioas_entry; domains lock */
	pthread_rwlock_t domains;
	unsigned int nr_domains; /* of these; domains lock */
	uint64_t domain_align;	 /* largest smallest-page of the domains, 1 if none; domains lock */
	bool huge_pages;	 /* domains lock */
	unsigned int nr_page_accesses; /* of the accesses, those that pin; domains lock */
	struct access_slots accesses;
	uint64_t align; /* what areas must be aligned to now (core.md 3.2); map's lock */
	struct iova_map *map;
};

extern const struct obj_ops ioas_ops;

static inline struct ioas *ioas_of(struct obj *obj)
{
	return container_of(obj, struct ioas, obj);
}

/* A new IOAS with a reserved ID, to be published or aborted. -ENOMEM, -EBUSY. */
int ioas_create(struct iommufd_ctx *ctx, struct ioas **out);

/*
 * Recomputes the alignment after domain_align or huge_pages became the given values, and stores all
 * three. -EADDRINUSE if it rises and an area is too finely aligned; nothing changed then. Domains lock
 * exclusive.
 */
int ioas_set_align(struct ioas *ioas, uint64_t domain_align, bool huge_pages,
		   struct swi_reason *why);

struct domain;

/*
 * Adds a domain (core.md 3.7): alignment, aperture (reserved in the name of `owner`), every area pinned and mapped
 * into its table. On failure the IOAS is as before; the table may hold something that nobody may use. -EINVAL,
 * -EADDRINUSE, and the errors of backing_pin() and domain_map_area().
 */
int ioas_add_domain(struct ioas *ioas, struct domain *dom, const void *owner,
		    struct swi_reason *why);
/* Never fails. No device may use the domain any more. `align_left`: the largest pgsize_min that remains. */
void ioas_remove_domain(struct ioas *ioas, struct domain *dom, const void *owner,
			uint64_t align_left);

/*
 * Pins what an area maps, gives it physical addresses and says where readers find it. The errors of backing_pin().
 * Domains lock held.
 */
int ioas_pin_area(struct ioas *ioas, struct iova_area *area, struct swi_reason *why);

struct call;

/*
 * MAP from its fifth step on (core.md 4.1): `length` bytes of the caller's memory at `uptr`, at *iova if `fixed`,
 * else at an IOVA that is chosen and stored there.
 */
int ioas_map_memory(struct call *call, struct ioas *ioas, uint64_t uptr, uint64_t length,
		    unsigned int prot, bool fixed, uint64_t *iova);
/* The same for `length` bytes of any owner from its address `addr` on. */
int ioas_map_owner(struct call *call, struct ioas *ioas, struct mem_owner *owner, uint64_t addr,
		   uint64_t length, unsigned int prot, bool fixed, uint64_t *iova);
/*
 * UNMAP's fourth step: removes the areas of [first, last]. When it returns, no DMA touches them. *removed counts bytes, also
 * on failure. -EBUSY, -ENOENT (an area lies partly outside), -EDEADLOCK (accesses keep their pins); not finding anything is
 * 0. Calls unmap callbacks of accesses: no lock held that they could need.
 */
int ioas_unmap(struct ioas *ioas, iova_t first, iova_t last, uint64_t *removed,
	       struct swi_reason *why);
/* Cuts the area around IOVA `at` after it (core.md 5.8), if there is one and `at` is not at its edge. */
int ioas_cut(struct ioas *ioas, iova_t at, struct swi_reason *why);

/*
 * The first `max` IOVA ranges that nothing has reserved, in a new array (NULL when there are none to store); *total is
 * their whole number. -ENOMEM.
 */
int ioas_usable_ranges(struct ioas *ioas, size_t max, struct iova_range **out, size_t *total);
/* For VFIO containers, in vfio_compat.c: whether all page tables of the IOAS enforce coherency; the sizes of pages. */
bool ioas_is_coherent(struct ioas *ioas);
uint64_t ioas_page_sizes(struct ioas *ioas);
/* OPTION HUGE_PAGES (core.md 4.5). */
int ioas_set_huge_pages(struct ioas *ioas, bool on, struct swi_reason *why);

#endif
