// SPDX-License-Identifier: MIT
/*
 * Interrupts of a device: from "the model signals vector 3" to the eventfd that the client has
 * armed for it.
 *
 * An armed interrupt is an eventfd that we own. Signalling one takes irqs.lock, looks whether the
 * type is in use and writes the eventfd under the lock; so once SET_IRQS has returned, the old
 * eventfd is not signalled any more. The write does not wait: a counter that is full is left alone,
 * since the client has not looked at it for 2^64 signals. (O_NONBLOCK would do the same but belongs
 * to the client's open file as much as to ours.)
 *
 * INTx is a level. The line fires when it is asserted and neither masked nor disabled in COMMAND;
 * firing masks it, and unmasking fires again if the line is still up. The masked flag is kept from
 * MASK to UNMASK; INTX_DISABLE masks when set and unmasks when cleared.
 *
 * The setup of interrupts (SET_IRQS) is in setirqs.c.
 */
#include "vfio/internal.h"
#include "vfio/irq.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

int vfio_irqs_init(struct vfio_device *dev)
{
	struct vfio_irqs *irqs = &dev->irqs;

	atomic_store(&irqs->type, -1);
	irqs->intx = irqs->err = irqs->req = irqs->unmask = irqs->unmask_stop = -1;
	irqs->nr_max = SWI_MAX(dev->msi_vectors, dev->msix_vectors);
	irqs->vectors = swi_alloc((irqs->nr_max + 1) * sizeof(*irqs->vectors));
	if (!irqs->vectors)
		return -ENOMEM;
	for (unsigned int i = 0; i < irqs->nr_max; i++)
		irqs->vectors[i] = -1;
	if (pthread_mutex_init(&irqs->setup, NULL))
		goto vectors;
	if (pthread_mutex_init(&irqs->lock, NULL))
		goto setup;
	return 0;

setup:
	pthread_mutex_destroy(&irqs->setup);
vectors:
	swi_free(irqs->vectors);
	return -ENOMEM;
}

void vfio_irqs_fini(struct vfio_device *dev)
{
	pthread_mutex_destroy(&dev->irqs.lock);
	pthread_mutex_destroy(&dev->irqs.setup);
	swi_free(dev->irqs.vectors);
}

unsigned int vfio_irq_count(const struct vfio_device *dev, unsigned int index)
{
	switch (index) {
	case VFIO_PCI_INTX_IRQ_INDEX:
		return dev->id.int_pin ? 1 : 0;
	case VFIO_PCI_MSI_IRQ_INDEX:
		return dev->msi_vectors;
	case VFIO_PCI_MSIX_IRQ_INDEX:
		return dev->msix_vectors;
	case VFIO_PCI_ERR_IRQ_INDEX:
	case VFIO_PCI_REQ_IRQ_INDEX:
		return 1;
	default:
		return 0;
	}
}

int vfio_irq_active(struct vfio_device *dev)
{
	return atomic_load(&dev->irqs.type);
}

bool vfio_irq_notify(struct vfio_device *dev, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	const uint64_t one = 1;

	if (fd < 0 || poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT))
		return false;
	if (write(fd, &one, sizeof(one)) != sizeof(one))
		return false;
	atomic_fetch_add(&dev->stats.interrupts, 1);
	return true;
}

void vfio_irq_signal(struct vfio_device *dev, unsigned int index, unsigned int vector)
{
	struct vfio_irqs *irqs = &dev->irqs;
	int fd = -1;

	pthread_mutex_lock(&irqs->lock);
	if (index == VFIO_PCI_ERR_IRQ_INDEX)
		fd = irqs->err;
	else if (index == VFIO_PCI_REQ_IRQ_INDEX)
		fd = irqs->req;
	else if (index != VFIO_PCI_INTX_IRQ_INDEX && (int)index == atomic_load(&irqs->type) &&
		 vector < irqs->nr_allocated && atomic_load(&dev->bus_master))
		fd = irqs->vectors[vector];
	vfio_irq_notify(dev, fd);
	pthread_mutex_unlock(&irqs->lock);
}

int vfio_irq_dup(struct vfio_device *dev, unsigned int index, unsigned int start,
		 unsigned int count, int *fds)
{
	struct vfio_irqs *irqs = &dev->irqs;
	unsigned int i;
	int rc = 0;

	pthread_mutex_lock(&irqs->lock);
	for (i = 0; i < count; i++) {
		bool armed = (int)index == atomic_load(&irqs->type) &&
			     index != VFIO_PCI_INTX_IRQ_INDEX && start + i < irqs->nr_allocated;

		fds[i] = -1;
		if (!armed || irqs->vectors[start + i] < 0)
			continue;
		fds[i] = fcntl(irqs->vectors[start + i], F_DUPFD_CLOEXEC, 3);
		if (fds[i] < 0) {
			rc = -errno;
			break;
		}
	}
	pthread_mutex_unlock(&irqs->lock);
	while (rc && i--)
		if (fds[i] >= 0)
			close(fds[i]);
	return rc;
}

/* ---- INTx -------------------------------------------------------------------------------- */

void vfio_irq_intx_fire_locked(struct vfio_device *dev)
{
	struct vfio_irqs *irqs = &dev->irqs;

	/* With nobody to tell the line stays pending until there is an eventfd. */
	if (atomic_load(&irqs->type) != VFIO_PCI_INTX_IRQ_INDEX || irqs->intx < 0 ||
	    !irqs->asserted || irqs->masked || irqs->disabled)
		return;
	irqs->masked = true;
	if (irqs->pulse)
		irqs->asserted = irqs->pulse = false;
	vfio_irq_notify(dev, irqs->intx);
}

void vfio_irq_set_line(struct vfio_device *dev, bool asserted)
{
	struct vfio_irqs *irqs = &dev->irqs;

	pthread_mutex_lock(&irqs->lock);
	irqs->asserted = asserted;
	irqs->pulse = false;
	vfio_irq_intx_fire_locked(dev);
	pthread_mutex_unlock(&irqs->lock);
}

void vfio_irq_pulse(struct vfio_device *dev)
{
	struct vfio_irqs *irqs = &dev->irqs;

	pthread_mutex_lock(&irqs->lock);
	irqs->asserted = irqs->pulse = true;
	vfio_irq_intx_fire_locked(dev);
	pthread_mutex_unlock(&irqs->lock);
}

bool vfio_irq_line(struct vfio_device *dev)
{
	struct vfio_irqs *irqs = &dev->irqs;
	bool asserted;

	pthread_mutex_lock(&irqs->lock);
	asserted = irqs->asserted;
	pthread_mutex_unlock(&irqs->lock);
	return asserted;
}

void vfio_irq_intx_disable(struct vfio_device *dev, bool disabled)
{
	struct vfio_irqs *irqs = &dev->irqs;

	pthread_mutex_lock(&irqs->lock);
	if (irqs->disabled != disabled) {
		irqs->disabled = disabled;
		if (!disabled)
			irqs->masked = false;
		vfio_irq_intx_fire_locked(dev);
	}
	pthread_mutex_unlock(&irqs->lock);
}

void vfio_irq_intx_mask(struct vfio_device *dev, bool masked)
{
	struct vfio_irqs *irqs = &dev->irqs;

	pthread_mutex_lock(&irqs->lock);
	irqs->masked = masked;
	vfio_irq_intx_fire_locked(dev);
	pthread_mutex_unlock(&irqs->lock);
}
