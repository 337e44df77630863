/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VFIO_IRQ_H
#define SWIOMMU_VFIO_IRQ_H

/* What the setup of interrupts (setirqs.c) needs from their signalling (irq.c). */

#include "vfio/internal.h"

/* Signals an eventfd (-1: none) without waiting, and counts it. irqs.lock held. */
bool vfio_irq_notify(struct vfio_device *dev, int fd);
/* The INTx line, its mask or its eventfd has changed. irqs.lock held. */
void vfio_irq_intx_fire_locked(struct vfio_device *dev);
/* MASK and UNMASK of INTx. */
void vfio_irq_intx_mask(struct vfio_device *dev, bool masked);

#endif
