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

#define MOCK_NR_CACHES 4
#define MOCK_CACHE_DEFAULT 0x00baddad

extern const struct iommu_driver mock_iommu_driver;

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
	char name[24];
};

/* The mock device, if it is one. */
static inline struct mock_device *mock_of_device(struct device *dev)
{
	return dev->iommu == &mock_iommu_driver ? container_of(dev, struct mock_device, dev) : NULL;
}

/* no_dirty: its IOMMU cannot track dirty pages; pasid: it has PASIDs. -ENOMEM. Destroyed by mock_device_destroy() when it is not bound. */
int mock_device_create(struct mock_bus *bus, bool no_dirty, bool pasid, struct mock_device **out);
void mock_device_destroy(struct mock_device *mock);

#endif
