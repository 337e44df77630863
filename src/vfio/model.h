/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VFIO_MODEL_H
#define SWIOMMU_VFIO_MODEL_H

/* What built-in models have beyond <swiommu/model.h>, which tells what a model is. */

#include "base/base.h"
#include "base/reason.h"

#include <swiommu/model.h>

struct dma_listener;

/*
 * Registers for the mappings that the device's DMA meets, see core/dma_listener.h. Between open and close. -EOPNOTSUPP: an
 * emulated device has none.
 */
int vfio_dma_listen(struct vfio_device *dev, struct dma_listener *l, struct swi_reason *why);

extern const struct vfio_model vfio_model_ioat;
extern const struct vfio_model vfio_model_nvme;
extern const struct vfio_model vfio_model_iopf;
extern const struct vfio_model vfio_model_edu;
extern const struct vfio_model vfio_model_user;

#endif
