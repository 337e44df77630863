// SPDX-License-Identifier: MIT
/*
 * The generic IOMMU towards guests: it looks like an Intel VT-d unit in scalable mode (Intel Virtualization Technology
 * for Directed I/O, rev. 4.1), whose guests own first-stage tables in the format of x86-64 page tables (its sections 3.6,
 * 9.8, 9.9), of 4 or 5 levels.
 *
 * A translation is done in two passes. The first reads the entries from the root to the leaf and collects what they
 * permit, without changing anything. The second sets the accessed bit of each entry, and the dirty bit of the leaf for a
 * write, each in one atomic step on the value that was read; if an entry has changed in between, all begins anew.
 * So no entry is marked that did not grant the access, and nothing that a guest does at the same time gets lost.
 */
#include <errno.h>
#include <linux/iommufd.h>
#include <string.h>
#include <swiommu/iommufd.h>

#include "base/alloc.h"
#include "base/base.h"
#include "driver/generic.h"

/* Bits of an entry (9.8 and 9.9 of the specification). */
#define S1_PRESENT (1ull << 0)
#define S1_WRITE (1ull << 1)
#define S1_USER (1ull << 2)
#define S1_ACCESSED (1ull << 5)
#define S1_DIRTY (1ull << 6)
#define S1_PAGE_SIZE (1ull << 7)
#define S1_EXT_ACCESSED (1ull << 10)
#define S1_ADDRESS 0x000ffffffffff000ull

#define S1_FLAGS (IOMMU_VTD_S1_SRE | IOMMU_VTD_S1_EAFE | IOMMU_VTD_S1_WPE)
#define MAX_LEVELS 5u
/* So often a guest may change its table under one translation, before that counts as broken. */
#define MAX_RETRIES 64

struct generic_nested {
	struct iommu_domain domain;
	struct iommu_domain *paging; /* below; the engine keeps it */
	uint64_t flags;		     /* IOMMU_VTD_S1_... */
	uint64_t root;		     /* of the table, in the parent */
	unsigned int levels;
};

/* ---- walking --------------------------------------------------------------------------------------- */

struct walked {
	unsigned int n; /* entries, from the root to the leaf */
	struct {
		uint64_t addr, value;
	} entries[MAX_LEVELS];
	uint64_t granted;      /* of S1_WRITE and S1_USER what all entries have */
	unsigned int leaf_lg2; /* size of what the leaf maps */
};

static unsigned int level_lg2(unsigned int level)
{
	return 12 + 9 * level;
}

/* Whether an entry of a level (0: the lowest) has bits that must be 0. */
static bool is_malformed(uint64_t value, unsigned int level)
{
	if (!(value & S1_PAGE_SIZE) || !level)
		return false;
	if (level > 2)
		return true;
	/* The address of a large page; bit 12 is part of its memory type. */
	return value & S1_ADDRESS & ((1ull << level_lg2(level)) - 1) & ~(1ull << 12);
}

/* The first pass. -ENOENT: an entry is not present. */
static int collect(const struct generic_nested *nested, struct iommu_walk *walk, uint64_t iova,
		   struct walked *out)
{
	uint64_t table = nested->root, value;
	unsigned int level = nested->levels;
	int rc;

	out->n = 0;
	out->granted = S1_WRITE | S1_USER;
	do {
		uint64_t addr = table + ((iova >> level_lg2(--level)) & 511) * sizeof(uint64_t);

		rc = iommu_walk_load(walk, addr, &value);
		if (rc)
			return rc;
		if (!(value & S1_PRESENT))
			return -ENOENT;
		if (is_malformed(value, level))
			return -EFAULT;
		out->entries[out->n].addr = addr;
		out->entries[out->n++].value = value;
		out->granted &= value;
		table = value & S1_ADDRESS;
	} while (level && !(value & S1_PAGE_SIZE));
	out->leaf_lg2 = level_lg2(level);
	return 0;
}

static bool may(const struct generic_nested *nested, uint64_t granted, uint32_t perm)
{
	bool writes = perm & IOMMU_FAULT_PERM_WRITE;

	if (!(perm & IOMMU_FAULT_PERM_PRIV))
		return granted & S1_USER && (!writes || granted & S1_WRITE);
	if (!(nested->flags & IOMMU_VTD_S1_SRE))
		return false;
	return !writes || granted & S1_WRITE || !(nested->flags & IOMMU_VTD_S1_WPE);
}

/* The second pass. -EAGAIN: an entry is not what it was. */
static int mark(const struct generic_nested *nested, struct iommu_walk *walk, struct walked *w,
		bool writes)
{
	for (unsigned int i = 0; i < w->n; i++) {
		uint64_t value = w->entries[i].value, want = value | S1_ACCESSED;
		bool done = true;
		int rc = 0;

		if (nested->flags & IOMMU_VTD_S1_EAFE)
			want |= S1_EXT_ACCESSED;
		if (writes && i == w->n - 1)
			want |= S1_DIRTY;
		if (want != value)
			rc = iommu_walk_swap(walk, w->entries[i].addr, value, want, &done);
		if (rc)
			return rc;
		if (!done)
			return -EAGAIN;
		w->entries[i].value = want;
	}
	return 0;
}

static bool is_canonical(uint64_t iova, unsigned int levels)
{
	int64_t high = (int64_t)iova >> (level_lg2(levels) - 1);

	return !high || high == -1;
}

static int translate_once(const struct generic_nested *nested, struct iommu_walk *walk,
			  uint64_t iova, uint32_t perm, struct iommu_translation *out)
{
	struct walked w;
	uint64_t leaf, size;
	int rc;

	rc = collect(nested, walk, iova, &w);
	if (rc)
		return rc;
	if (!may(nested, w.granted, perm))
		return -EPERM;
	rc = mark(nested, walk, &w, perm & IOMMU_FAULT_PERM_WRITE);
	if (rc)
		return rc;
	leaf = w.entries[w.n - 1].value;
	size = 1ull << w.leaf_lg2;
	out->addr = (leaf & S1_ADDRESS & -size) | (iova & (size - 1));
	out->size_lg2 = w.leaf_lg2;
	out->perm = IOMMU_FAULT_PERM_READ;
	/* A later write that is remembered would not set the dirty bit. */
	if (leaf & S1_DIRTY &&
	    may(nested, w.granted, IOMMU_FAULT_PERM_WRITE | (perm & IOMMU_FAULT_PERM_PRIV)))
		out->perm |= IOMMU_FAULT_PERM_WRITE;
	return 0;
}

static struct generic_nested *nested_of(struct iommu_domain *domain)
{
	return container_of(domain, struct generic_nested, domain);
}

static int nested_translate(struct iommu_domain *domain, struct iommu_walk *walk, uint64_t iova,
			    uint32_t perm, struct iommu_translation *out)
{
	const struct generic_nested *nested = nested_of(domain);
	int rc = -EAGAIN;

	if (!is_canonical(iova, nested->levels))
		return -EFAULT;
	for (int i = 0; rc == -EAGAIN && i < MAX_RETRIES; i++)
		rc = translate_once(nested, walk, iova, perm, out);
	return rc == -EAGAIN ? -EFAULT : rc;
}

/* ---- invalidation ----------------------------------------------------------------------------------- */

static int check_invalidation(const struct iommu_user_data_array *array, uint32_t i)
{
	struct iommu_hwpt_vtd_s1_invalidate inv;
	int rc;

	rc = iommu_copy_struct_from_user_array(&inv, array, IOMMU_HWPT_INVALIDATE_DATA_VTD_S1, i,
					       __reserved);
	if (rc)
		return rc;
	if (inv.flags & ~IOMMU_VTD_INV_FLAGS_LEAF || inv.__reserved)
		return -EOPNOTSUPP;
	if (inv.addr % SWI_PAGE_SIZE || (inv.npages == UINT64_MAX && inv.addr))
		return -EINVAL;
	return 0;
}

/* Whatever the guest names, all is forgotten, as hardware may do: once for all entries. */
static int nested_invalidate(struct iommu_domain *domain, struct iommu_user_data_array *array)
{
	uint32_t i = 0;
	int rc = array->type == IOMMU_HWPT_INVALIDATE_DATA_VTD_S1 ? 0 : -EINVAL;

	while (!rc && i < array->entry_num) {
		rc = check_invalidation(array, i);
		i += !rc;
	}
	array->entry_num = i;
	if (i)
		iommu_domain_flush(domain);
	return rc;
}

/* ---- domains ---------------------------------------------------------------------------------------- */

static void nested_free(struct iommu_domain *domain)
{
	swi_free(nested_of(domain));
}

static const struct iommu_domain_ops nested_ops = {
	.attach_dev = generic_attach_dev,
	.set_dev_pasid = generic_set_dev_pasid,
	.cache_invalidate_user = nested_invalidate,
	.free = nested_free,
	.translate = nested_translate,
};

struct iommu_domain *generic_paging_of(struct iommu_domain *domain)
{
	return domain->ops == &nested_ops ? nested_of(domain)->paging : domain;
}

struct iommu_domain *generic_alloc_nested(struct device *dev, struct iommu_domain *parent,
					  uint32_t flags, const struct iommu_user_data *data)
{
	struct generic_nested *nested;
	struct iommu_hwpt_vtd_s1 arg;
	int rc;

	(void)dev;
	(void)flags;
	if (data->type != IOMMU_HWPT_DATA_VTD_S1)
		return ERR_PTR(-EOPNOTSUPP);
	rc = iommu_copy_struct_from_user(&arg, data, IOMMU_HWPT_DATA_VTD_S1, __reserved);
	if (rc)
		return ERR_PTR(rc);
	if (arg.flags & ~(uint64_t)S1_FLAGS || arg.__reserved)
		return ERR_PTR(-EOPNOTSUPP);
	if ((arg.addr_width != 48 && arg.addr_width != 57) || arg.pgtbl_addr & ~S1_ADDRESS)
		return ERR_PTR(-EINVAL);
	nested = swi_new(struct generic_nested);
	if (!nested)
		return ERR_PTR(-ENOMEM);
	nested->domain.type = IOMMU_DOMAIN_NESTED;
	nested->domain.ops = &nested_ops;
	nested->paging = parent;
	nested->flags = arg.flags;
	nested->root = arg.pgtbl_addr;
	nested->levels = arg.addr_width == 57 ? 5 : 4;
	return &nested->domain;
}

/* ---- what it is ------------------------------------------------------------------------------------- */

/* Capability and Extended Capability registers (10.4.2, 10.4.3): what this driver does, and no more. */
#define CAP_ND_64K 6ull				    /* 2^16 domain IDs */
#define CAP_SAGAW_48 (1ull << 10)		    /* second stage of 4 levels */
#define CAP_MGAW(bits) (((uint64_t)(bits)-1) << 16) /* guest addresses of so many bits */
#define CAP_SSLPS (3ull << 34)			    /* second stage: pages of 2 MiB and 1 GiB */
#define CAP_PSI (1ull << 39)			    /* invalidation by page */
#define CAP_MAMV(lg2) ((uint64_t)(lg2) << 48)
#define CAP_FS1GP (1ull << 56) /* first stage: pages of 1 GiB */
#define CAP_FS5LP (1ull << 60) /* first stage: 5 levels */

#define ECAP_C (1ull << 0)  /* walks see the processor's caches */
#define ECAP_QI (1ull << 1) /* queued invalidation */
#define ECAP_DT (1ull << 2) /* device TLBs: ATS */
#define ECAP_SC (1ull << 7) /* snooping can be enforced */
#define ECAP_NEST (1ull << 26)
#define ECAP_PRS (1ull << 29) /* page requests */
#define ECAP_SRS (1ull << 31) /* privileged requests */
#define ECAP_EAFS (1ull << 34)
#define ECAP_PSS(bits) (((uint64_t)(bits)-1) << 35) /* PASIDs of so many bits */
#define ECAP_PASID (1ull << 40)
#define ECAP_SMTS (1ull << 43)	/* scalable mode */
#define ECAP_SSADS (1ull << 45) /* second stage: accessed and dirty bits */
#define ECAP_SSTS (1ull << 46)	/* second stage */
#define ECAP_FSTS (1ull << 47)	/* first stage */

int generic_hw_info(const struct device *dev, uint32_t *type, void *data)
{
	struct iommu_hw_info_vtd info = {
		.cap_reg = CAP_ND_64K | CAP_SAGAW_48 | CAP_MGAW(48) | CAP_SSLPS | CAP_PSI |
			   CAP_MAMV(36) | CAP_FS1GP | CAP_FS5LP,
		.ecap_reg = ECAP_C | ECAP_QI | ECAP_DT | ECAP_SC | ECAP_NEST | ECAP_PRS | ECAP_SRS |
			    ECAP_EAFS | ECAP_PSS(20) | ECAP_PASID | ECAP_SMTS | ECAP_SSADS |
			    ECAP_SSTS | ECAP_FSTS,
	};

	(void)dev;
	if (*type && *type != IOMMU_HW_INFO_TYPE_INTEL_VTD)
		return -EOPNOTSUPP;
	*type = IOMMU_HW_INFO_TYPE_INTEL_VTD;
	memcpy(data, &info, sizeof(info));
	return sizeof(info);
}
