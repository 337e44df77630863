/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VFIO_IRQ_H
#define SWIOMMU_VFIO_IRQ_H

/* What the files that deal with eventfds need from each other: irq.c, setirqs.c, ioeventfd.c. */

#include "vfio/internal.h"

/*
 * An eventfd of the caller's, as a descriptor of ours. -EBADF not open, -EINVAL not an eventfd, others; without a reason.
 */
int vfio_get_eventfd(struct swiommu_caller *caller, int fd, int *out);
/* Empties an eventfd; false when it was empty. Never waits for long. */
bool vfio_drain_eventfd(int fd);

/* Signals an eventfd (-1: none) without waiting, and counts it. irqs.lock held. */
bool vfio_irq_notify(struct vfio_device *dev, int fd);
/* The INTx line, its mask or its eventfd has changed. irqs.lock held. */
void vfio_irq_intx_fire_locked(struct vfio_device *dev);
/* MASK and UNMASK of INTx. */
void vfio_irq_intx_mask(struct vfio_device *dev, bool masked);

#endif
