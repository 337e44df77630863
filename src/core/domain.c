// SPDX-License-Identifier: MIT
/*
 * Domains: making tables and keeping them as the areas are; see domain.h.
 *
 * Where a leaf may be large. In physical space the memory of a backing is one piece, so that tables can use what
 * fits. A domain that tracks dirty pages is told of whole leaves, and there what is contiguous is what would be on
 * hardware: a page of the memory, that is 2 MiB of hugetlb memory and of transparent huge pages, else 4 KiB. With
 * OPTION HUGE_PAGES off it is a page in every domain.
 *
 * Pages of tables lie above all memory in physical space. Each table has them to itself: nothing looks at two.
 */
#include "core/domain.h"

#include <errno.h>

#include "core/ioas.h"
#include "mem/phys.h"

#define TABLE_BASE (1ull << PHYS_BITS)
#define TABLE_OA_BITS (PHYS_BITS + 1)
#define TRIM_MIN ((size_t)128) /* so many pages of tables are no reason to look for empty ones */

/* ---- making -------------------------------------------------------------------------------------- */

static const struct pgtable_format *const formats[] = {
	[IOMMU_PT_AMDV1] = &pgtable_amdv1,     [IOMMU_PT_AMDV1_2K] = &pgtable_amdv1_mock,
	[IOMMU_PT_X86_64] = &pgtable_x86_64,   [IOMMU_PT_VTDSS] = &pgtable_vtdss,
	[IOMMU_PT_RISCV64] = &pgtable_riscv64,
};

/* Bits of the widest address of the aperture. */
static unsigned aperture_bits(const struct iommu_table_format *format)
{
	return format->aperture_last ? 64 - (unsigned)__builtin_clzll(format->aperture_last) : 1;
}

/* The widths that formats with a fixed number of levels come in. */
static unsigned round_bits(unsigned bits)
{
	return bits <= 39 ? 39 : bits <= 48 ? 48 : 57;
}

static int configure(const struct iommu_table_format *format, struct pgtable_config *config)
{
	uint64_t smallest = format->pgsize_bitmap & -format->pgsize_bitmap;
	enum iommu_pt_format kind = format->format;

	if (kind == IOMMU_PT_ANY)
		kind = smallest < SWI_PAGE_SIZE ? IOMMU_PT_AMDV1_2K : IOMMU_PT_AMDV1;
	if ((unsigned)kind >= ARRAY_SIZE(formats) || !formats[kind])
		return -EINVAL;
	*config = (struct pgtable_config){.format = formats[kind],
					  .va_bits = aperture_bits(format),
					  .oa_bits = TABLE_OA_BITS,
					  .pgsizes = format->pgsize_bitmap,
					  .table_base = TABLE_BASE};
	switch (kind) {
	case IOMMU_PT_AMDV1_2K:
		/* Three levels hold 38 bits. Sizes are those of a table of so many, whatever the aperture. */
		if (config->va_bits > 38)
			config->features = PGTABLE_GROWING;
		config->va_bits = SWI_MAX(config->va_bits, 38u);
		break;
	case IOMMU_PT_VTDSS:
		config->va_bits = round_bits(config->va_bits);
		if (format->coherent)
			config->features = PGTABLE_FORCE_COHERENT;
		break;
	case IOMMU_PT_X86_64:
		config->va_bits = config->va_bits <= 47 ? 47 : 56;
		break;
	case IOMMU_PT_RISCV64:
		/* Addresses are sign-extended: of the lower half. */
		config->va_bits = round_bits(config->va_bits + 1);
		break;
	default:
		/* A leaf is at most half of the space. */
		config->va_bits = SWI_MAX(config->va_bits, 14u);
		break;
	}
	return 0;
}

static void retired_init(struct domain_retired *retired)
{
	pgtable_gather_init(&retired->gather);
	retired->generation = 0;
}

int domain_init(struct domain *dom, const struct iommu_table_format *format, bool fine,
		struct swi_reason *why)
{
	uint64_t smallest = format->pgsize_bitmap & -format->pgsize_bitmap;
	struct pgtable_config config;
	struct pgtable_info info;
	int rc;

	rc = configure(format, &config);
	if (!rc)
		rc = pgtable_create(&config, &dom->table);
	if (rc)
		return swi_fail(why, rc == -ENOMEM ? rc : -EINVAL,
				rc == -ENOMEM ? "no memory for a page table"
					      : "no page table has the sizes and the aperture that "
						"the IOMMU's driver asks for");
	pgtable_get_info(dom->table, &info);
	if (!(info.pgsizes & smallest) || (fine && !info.dirty)) {
		domain_fini(dom);
		return swi_fail(why, -EINVAL, "the page table has no pages of %llu bytes%s",
				(unsigned long long)smallest, fine ? ", or no dirty bits" : "");
	}
	dom->pgsize_min = smallest;
	dom->aperture_first = format->aperture_first;
	dom->aperture_last = format->aperture_last;
	dom->fine = fine;
	dom->trim_at = TRIM_MIN;
	dom->kept_first = IOVA_MAX;
	dom->kept_last = 0;
	retired_init(&dom->newer);
	retired_init(&dom->older);
	return 0;
}

void domain_fini(struct domain *dom)
{
	pgtable_destroy(dom->table);
	dom->table = NULL;
}

/* ---- mapping ------------------------------------------------------------------------------------- */

static uint64_t largest_leaf(const struct domain *dom, const struct ioas *ioas,
			     const struct iova_area *area)
{
	if (!ioas->huge_pages)
		return SWI_PAGE_SIZE;
	return dom->fine
		       ? backing_page_size(area->backing, area->offset, area->last - area->iova + 1)
		       : 1ull << 63;
}

static unsigned int table_prot(const struct iova_area *area)
{
	bool device = backing_owner(area->backing)->ops->device;

	return area->prot | (device ? PGTABLE_MMIO : PGTABLE_CACHE);
}

/*
 * Pages of tables that had become empty gave way to a large leaf: readers may be in them, and who looks for dirty bits
 * with the map locked.
 */
static void free_replaced(struct domain *dom, struct ioas *ioas, struct pgtable_gather *gather)
{
	if (!gather->retired)
		return;
	iova_map_lock(ioas->map);
	iova_map_flush(ioas->map);
	iova_map_unlock(ioas->map);
	iova_map_sync(ioas->map);
	pgtable_gather_free(dom->table, gather);
}

int domain_map_area(struct domain *dom, struct ioas *ioas, const struct iova_area *area,
		    struct swi_reason *why)
{
	uint64_t length = area->last - area->iova + 1;
	struct pgtable_gather gather;
	int rc;

	pgtable_gather_init(&gather);
	rc = pgtable_map_limited(dom->table, area->iova, backing_phys(area->backing, area->offset),
				 length, largest_leaf(dom, ioas, area), table_prot(area), &gather);
	free_replaced(dom, ioas, &gather);
	if (!rc)
		return 0;
	return swi_fail(why, rc, "the page table does not take the mapping [%#llx, %#llx]",
			(unsigned long long)area->iova, (unsigned long long)area->last);
}

int domain_map_page(struct domain *dom, struct ioas *ioas, iova_t iova, phys_t pa,
		    struct swi_reason *why)
{
	struct pgtable_gather gather;
	int rc;

	/* First: no area keeps the tables that this is about to use, or that lead to the page later. */
	iova_map_lock(ioas->map);
	dom->kept_first = SWI_MIN(dom->kept_first, iova);
	dom->kept_last = SWI_MAX(dom->kept_last, iova + (SWI_PAGE_SIZE - 1));
	iova_map_unlock(ioas->map);
	pgtable_gather_init(&gather);
	rc = pgtable_map_limited(dom->table, iova, pa, SWI_PAGE_SIZE, SWI_PAGE_SIZE,
				 SWI_READ | SWI_WRITE | PGTABLE_MMIO, &gather);
	free_replaced(dom, ioas, &gather);
	if (!rc)
		return 0;
	return swi_fail(why, rc, "the page table does not take a page at %#llx",
			(unsigned long long)iova);
}

/* Takes an area out of a table. It must be told to readers (iova_map_retract() or _flush()) next. Map locked. */
static bool unmap_area_locked(struct domain *dom, struct ioas *ioas, const struct iova_area *area)
{
	struct domain_retired *newer = &dom->newer;
	uint32_t before = newer->gather.retired;

	pgtable_unmap(dom->table, area->iova, area->last - area->iova + 1, &newer->gather);
	if (newer->gather.retired == before)
		return false;
	/* The generation that this will be told with is the next one. */
	newer->generation = iova_map_generation(ioas->map) + 1;
	return true;
}

/* Takes an area back out of the tables of the domains before `end`. */
static void undo_map(struct ioas *ioas, const struct iova_area *area, struct list *end)
{
	struct list *pos;
	uint64_t generation;

	iova_map_lock(ioas->map);
	for (pos = ioas->tables.next; pos != end; pos = pos->next)
		unmap_area_locked(list_entry(pos, struct domain, entry), ioas, area);
	iova_map_flush(ioas->map);
	generation = iova_map_generation(ioas->map);
	iova_map_unlock(ioas->map);
	iova_map_sync(ioas->map);
	domains_free_retired(ioas, generation);
}

int domains_map_area(struct ioas *ioas, const struct iova_area *area, struct swi_reason *why)
{
	struct list *pos;
	int rc;

	list_for_each (pos, &ioas->tables) {
		rc = domain_map_area(list_entry(pos, struct domain, entry), ioas, area, why);
		if (rc) {
			/* Of this one parts may have been visible too. */
			undo_map(ioas, area, pos);
			return rc;
		}
	}
	return 0;
}

/* ---- unmapping ----------------------------------------------------------------------------------- */

bool domains_unmap_area_locked(struct ioas *ioas, const struct iova_area *area)
{
	bool retired = false;
	struct list *pos;

	list_for_each (pos, &ioas->tables)
		retired |= unmap_area_locked(list_entry(pos, struct domain, entry), ioas, area);
	return retired;
}

/* Takes away what lies between two areas, but for where pages are that belong to none. */
static void trim_gap(struct domain *dom, iova_t first, iova_t last)
{
	struct pgtable_gather *gather = &dom->newer.gather;

	if (dom->kept_first > dom->kept_last || dom->kept_last < first || dom->kept_first > last) {
		pgtable_trim(dom->table, first, last, gather);
		return;
	}
	if (dom->kept_first > first)
		pgtable_trim(dom->table, first, dom->kept_first - 1, gather);
	if (dom->kept_last < last)
		pgtable_trim(dom->table, dom->kept_last + 1, last, gather);
}

/* Takes away what lies between the areas, also those that are busy. */
static bool trim(struct domain *dom, struct ioas *ioas)
{
	uint32_t before = dom->newer.gather.retired;
	struct iova_area *area;
	iova_t from = 0;

	iova_map_for_each (area, ioas->map) {
		if (area->iova > from)
			trim_gap(dom, from, area->iova - 1);
		from = area->last + 1;
		if (!from)
			break;
	}
	if (from || !area)
		trim_gap(dom, from, IOVA_MAX);
	if (dom->newer.gather.retired == before)
		return false;
	dom->newer.generation = iova_map_generation(ioas->map) + 1;
	return true;
}

bool domains_trim_locked(struct ioas *ioas)
{
	bool retired = false;
	struct list *pos;

	list_for_each (pos, &ioas->tables) {
		struct domain *dom = list_entry(pos, struct domain, entry);
		size_t before = pgtable_tables(dom->table);

		if (SWI_LIKELY(before <= dom->trim_at))
			continue;
		/* Again when there are twice as many as are left, which is known when they have been freed. */
		if (trim(dom, ioas)) {
			dom->trim_at = SIZE_MAX;
			retired = true;
		} else {
			dom->trim_at = 2 * before;
		}
	}
	if (retired)
		iova_map_flush(ioas->map);
	return retired;
}

/* Moves a list out if its readers have left. */
static bool take_retired(struct domain_retired *retired, uint64_t generation,
			 struct pgtable_gather *out)
{
	if (!retired->gather.retired || retired->generation > generation)
		return false;
	*out = retired->gather;
	retired_init(retired);
	return true;
}

static void free_retired(struct domain *dom, struct ioas *ioas, uint64_t generation)
{
	struct pgtable_gather older, newer;
	bool has_older, has_newer;

	iova_map_lock(ioas->map);
	has_older = take_retired(&dom->older, generation, &older);
	has_newer = take_retired(&dom->newer, generation, &newer);
	/* Others go on adding to the newer list, so that it might never be free of readers: close it. */
	if (!dom->older.gather.retired) {
		dom->older = dom->newer;
		retired_init(&dom->newer);
	}
	iova_map_unlock(ioas->map);
	if (has_older)
		pgtable_gather_free(dom->table, &older);
	if (has_newer)
		pgtable_gather_free(dom->table, &newer);
	if (dom->trim_at == SIZE_MAX)
		dom->trim_at = SWI_MAX(2 * pgtable_tables(dom->table), TRIM_MIN);
}

void domains_free_retired(struct ioas *ioas, uint64_t generation)
{
	struct list *pos;

	list_for_each (pos, &ioas->tables)
		free_retired(list_entry(pos, struct domain, entry), ioas, generation);
}
