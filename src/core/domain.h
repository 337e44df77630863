/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_DOMAIN_H
#define SWIOMMU_CORE_DOMAIN_H

/*
 * Domains: the page tables that mirror an IOAS.
 *
 * Every populated domain of an IOAS maps exactly what its published areas say, at the physical addresses of their
 * backings (mem/phys.h), in the largest leaves that fit. Device DMA goes by the table only (translate.h).
 *
 * A domain changes with the areas. One that is being mapped is busy, so only its call touches that part of the
 * tables; one that goes is taken out of them under the map's lock, together with its retraction. What readers
 * remember of the tables is void when the generation of the IOVA map counts up, and whoever waits for readers of the
 * map (iova_map_sync()) waits for the walks too. Taking out needs no memory: pages of tables that go are kept with
 * the domain, in two lists, until some call has waited for the readers that may be in them.
 *
 * Locks: which domains there are is guarded by ioas->domains; a table needs none for looking.
 */

#include "base/list.h"
#include "base/reason.h"
#include "iova/map.h"
#include "pgtable/pgtable.h"
#include <swiommu/driver.h>

struct ioas;

/* Pages of tables that readers may still be in. Under the map's lock. */
struct domain_retired {
	struct pgtable_gather gather;
	uint64_t generation; /* of the map, when the last one was added */
};

struct domain {
	struct list entry;     /* in ioas->tables once populated; domains lock */
	struct pgtable *table; /* owned */
	uint64_t pgsize_min;
	iova_t aperture_first, aperture_last;
	/* Leaves are no larger than pages of the memory, because devices' writes are told by the leaf; immutable. */
	bool fine;
	/* More pages of tables than these, and empty ones are looked for. SIZE_MAX: they are being freed. */
	_Atomic(size_t) trim_at;
	/* Pages of domain_map_page() lie in here; none if first > last. Map locked. */
	iova_t kept_first, kept_last;
	/* Readers of all in `older` leave before anybody has to wait for those of `newer`. */
	struct domain_retired newer, older;
};

/*
 * A domain with an empty table, not part of an IOAS yet. -EINVAL: there is no table of such a format, sizes and
 * aperture; -ENOMEM.
 */
int domain_init(struct domain *dom, const struct iommu_table_format *format, bool fine,
		struct swi_reason *why);
/* It is in no IOAS, and no device uses it. Also after a failed or no domain_init(), if zeroed. */
void domain_fini(struct domain *dom);

/*
 * Maps an area into one table. Busy, or nothing else can change; pinned. On failure nothing of it is mapped.
 * -ENOMEM and what pgtable_map() answers. Domains lock held.
 */
int domain_map_area(struct domain *dom, struct ioas *ioas, const struct iova_area *area,
		    struct swi_reason *why);
/*
 * Maps a page of the host that is no memory, for reading and writing, until the table goes. Nothing else is mapped there, ever:
 * the IOVA is reserved. Same errors; no lock of the IOAS needed but those that keep the table.
 */
int domain_map_page(struct domain *dom, struct ioas *ioas, iova_t iova, phys_t pa,
		    struct swi_reason *why);
/* Into the tables of all domains. Same errors; then nothing of it is mapped, and readers have forgotten it. */
int domains_map_area(struct ioas *ioas, const struct iova_area *area, struct swi_reason *why);
/*
 * Out of the tables of all domains. True: pages of tables were retired, and domains_free_retired() is due. Domains
 * lock held, map locked.
 */
bool domains_unmap_area_locked(struct ioas *ioas, const struct iova_area *area);
/*
 * Frees pages of tables whose readers have left: the caller has waited for those of `generation`, see
 * iova_map_generation(). Who has retired some calls it, which includes those that others could not free then. Domains
 * lock held, map not locked.
 */
void domains_free_retired(struct ioas *ioas, uint64_t generation);
/*
 * Retires pages of tables that have become empty, if there may be many by now, and tells readers. True: as above.
 * Domains lock held, map locked.
 */
bool domains_trim_locked(struct ioas *ioas);

#endif
