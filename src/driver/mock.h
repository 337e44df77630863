/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_DRIVER_MOCK_H
#define SWIOMMU_DRIVER_MOCK_H

/*
 * The mock IOMMU of the test ABI and its devices (spec test-abi.md 2): 2 KiB pages, an aperture that
 * neither begins at 0 nor is large, no reserved regions. Odd on purpose: what wrongly assumes 4 KiB
 * pages or a mapping at IOVA 0 fails on it.
 */

#include <pthread.h>

#include "base/base.h"
#include <swiommu/driver.h>

#define MOCK_PAGE_SIZE 2048ull
#define MOCK_APERTURE_FIRST 0x01000000ull
#define MOCK_APERTURE_LAST 0x7fffffffull
#define MOCK_MAX_PASIDS (1u << 20)

/* The type and the struct by which IOMMU_GET_HW_INFO knows it. */
#define MOCK_HW_INFO_TYPE 0xfeedbeef
#define MOCK_HW_INFO_REG 0xdeadbeef
struct mock_hw_info {
	uint32_t flags;
	uint32_t test_reg;
};

/*
 * What a page table can be made with: a struct of this type, in which pagetable_type says which of two kinds. The large one
 * has two sizes of pages and begins at IOVA 0; that of no data is the other one.
 */
#define MOCK_HWPT_DATA_TYPE 0xdead
#define MOCK_TABLE_DEFAULT 0
#define MOCK_TABLE_HUGE 1
#define MOCK_HUGE_PAGE_SIZE (512 * MOCK_PAGE_SIZE)
#define MOCK_HUGE_APERTURE_LAST ((1ull << 38) - 1)
struct mock_hwpt_data {
	uint32_t iotlb;
	uint32_t pagetable_type;
};

#define MOCK_NR_CACHES 4
#define MOCK_CACHE_DEFAULT 0x00baddad

/* Of nested domains: how many entries of a cache they have; what invalidates them, to 0. */
#define MOCK_NR_IOTLBS 4
#define MOCK_HWPT_INVALIDATE_TYPE 0xdeadbeef
#define MOCK_INVALIDATE_ALL (1u << 0)
struct mock_hwpt_invalidate {
	uint32_t flags;
	uint32_t iotlb_id;
};

/* vIOMMUs: with data, a region to be mapped whose first word is in_data. */
#define MOCK_VIOMMU_TYPE 0xdeadbeef
#define MOCK_VIOMMU_REGION (2 * SWI_PAGE_SIZE)
struct mock_viommu_data {
	uint32_t in_data;
	uint32_t out_data;
	uint64_t out_mmap_offset;
	uint64_t out_mmap_length;
};
#define MOCK_VIOMMU_INVALIDATE_TYPE 0xdeadbeef
struct mock_viommu_invalidate {
	uint32_t flags;
	uint32_t vdev_id;
	uint32_t cache_id;
};
#define MOCK_VEVENT_TYPE 0xbeefbeef
struct mock_vevent {
	uint32_t virt_id;
};
#define MOCK_HW_QUEUE_TYPE 0xdeadbeef
#define MOCK_NR_HW_QUEUES 2

/* A PASID at which every second attempt to set a domain fails. */
#define MOCK_FAILING_PASID 1024

struct iommufd_viommu;

/* A nested domain: no table, just the cache that a guest would invalidate. */
struct mock_nested {
	struct iommu_domain domain;
	struct iommufd_viommu *viommu; /* NULL: directly on a page table */
	_Atomic uint32_t iotlb[MOCK_NR_IOTLBS];
};

extern const struct iommu_driver mock_iommu_driver;
extern const struct iommu_domain_ops mock_paging_ops; /* of page tables */
extern struct iommu_domain mock_blocked_domain;

/* `viommu` may be NULL. ERR_PTR. */
struct iommu_domain *mock_nested_create(struct iommufd_viommu *viommu,
					const struct iommu_user_data *data);
/* NULL if it is none of the mock's. */
struct mock_nested *mock_nested_of(struct iommu_domain *domain);
size_t mock_get_viommu_size(struct device *dev, uint32_t type);
int mock_viommu_init(struct iommufd_viommu *viommu, struct iommu_domain *parent,
		     const struct iommu_user_data *data);

/* What numbers the devices of one system: N of iommufd_mockN, lowest free first. */
struct mock_bus {
	pthread_mutex_t lock;
	uint64_t *used; /* a bit per number; lock */
	size_t words;
};

void mock_bus_init(struct mock_bus *bus);
/* Every device is gone. */
void mock_bus_fini(struct mock_bus *bus);

/* A device in a group of its own. */
struct mock_device {
	struct device dev;
	struct iommu_group group;
	struct mock_bus *bus;
	unsigned int number;
	_Atomic uint32_t cache[MOCK_NR_CACHES]; /* of device translations; invalidated to 0 */
	unsigned int iopf_users; /* attachments that take page requests; who attaches */
	bool failing_pasid_set;	 /* who attaches */
	pthread_mutex_t viommu_lock;
	struct iommufd_viommu *viommu; /* that it is attached through, NULL: none; viommu_lock */
	uint64_t virt_id;	       /* by which that knew it then; viommu_lock */
	char name[24];
};

/* The mock device, if it is one. */
static inline struct mock_device *mock_of_device(struct device *dev)
{
	return dev->iommu == &mock_iommu_driver ? container_of(dev, struct mock_device, dev) : NULL;
}

/* Raises the event that its guest sees. -ENOENT: it has no guest; the errors of iommufd_viommu_report_event(). */
int mock_device_vevent(struct mock_device *mock);

/* no_dirty: its IOMMU cannot track dirty pages; pasid: it has PASIDs. -ENOMEM. Destroyed by mock_device_destroy() when it is not bound. */
int mock_device_create(struct mock_bus *bus, bool no_dirty, bool pasid, struct mock_device **out);
void mock_device_destroy(struct mock_device *mock);

#endif
