/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_DRIVER_GENERIC_H
#define SWIOMMU_DRIVER_GENERIC_H

/*
 * Inside of the generic driver: generic.c has the devices and what they are attached to, generic_nested.c the tables
 * that guests own, and what a guest is told of the IOMMU.
 */

#include <swiommu/driver.h>

/* Moves a device, or one PASID of it, from `old` to `domain`: dirty tracking, coherency, page requests. */
int generic_attach_dev(struct iommu_domain *domain, struct device *dev, struct iommu_domain *old);
int generic_set_dev_pasid(struct iommu_domain *domain, struct device *dev, uint32_t pasid,
			  struct iommu_domain *old);

/* The page table under a nested domain of this driver; any other domain itself. */
struct iommu_domain *generic_paging_of(struct iommu_domain *domain);

struct iommu_domain *generic_alloc_nested(struct device *dev, struct iommu_domain *parent,
					  uint32_t flags, const struct iommu_user_data *data);
int generic_hw_info(const struct device *dev, uint32_t *type, void *data);

#endif
