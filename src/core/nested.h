/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_NESTED_H
#define SWIOMMU_CORE_NESTED_H

#include "core/call.h"
#include "core/device.h"

struct viommu;

/*
 * HWPT_ALLOC for a nested HWPT, call->new_obj, without its fault queue and the response. The errors of devices.md 2.4
 * and 2.5; on failure there may be a new_obj all the same, which the dispatcher undoes.
 */
int nested_alloc_on_hwpt(struct call *call, struct iommufd_device *idev, struct hwpt *parent);
int nested_alloc_on_viommu(struct call *call, struct iommufd_device *idev, struct viommu *viommu);
/* Numbers its state anew, as none of the context was numbered: what DMA remembers of it holds no more. */
void nested_count_flush(struct hwpt *hwpt);
/* Gives a new HWPT the fault queue that the call names. -ENOENT. */
int hwpt_bind_fault(struct call *call, struct hwpt *hwpt);

#endif
