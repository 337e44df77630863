// SPDX-License-Identifier: MIT
/*
 * Interrupts of a server's device (spec vfio.md 6.6).
 *
 * MSI and MSI-X: the server gets the client's own eventfds and signals them without us. The VFIO layer has made all checks
 * and keeps the eventfds; what is told here is always read from there, so that a new server can be told the same.
 * Servers cannot be told "this vector no more" in the midst of others, or do it wrongly: such a vector gets an
 * eventfd that nobody reads.
 *
 * INTx: the server does not mask it when it fires, so it gets an eventfd of ours, and the thread that listens to the
 * server (link.c) makes an interrupt of it with all that belongs to one. Unmasking is passed on for servers
 * whose line is a level: they signal again if it is still up.
 */
#include "vfio/user/user.h"

#include <errno.h>
#include <unistd.h>

#define HEADER_SIZE 20u

static int send_set(struct vu_device *u, uint32_t flags, unsigned int index, unsigned int start,
		    unsigned int count, const int *fds, unsigned int nr_fds)
{
	struct vfio_irq_set set = {.argsz = HEADER_SIZE,
				   .flags = flags,
				   .index = index,
				   .start = start,
				   .count = count};
	uint8_t ignored[64];
	struct vu_call call = {.cmd = VU_DEVICE_SET_IRQS,
			       .head = &set,
			       .head_len = HEADER_SIZE,
			       .fds = fds,
			       .nr_fds = nr_fds,
			       .reply = ignored,
			       .reply_max = sizeof(ignored)};

	return vu_call(&u->conn, &call);
}

static int arm(struct vu_device *u, unsigned int index, unsigned int start, unsigned int count,
	       const int *fds)
{
	return send_set(u, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, index, start,
			count, fds, count);
}

static int disable(struct vu_device *u, unsigned int index)
{
	return send_set(u, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, 0, NULL,
			0);
}

/* As many vectors as the server takes descriptors at once. */
static int arm_piece(struct vu_device *u, unsigned int index, unsigned int start,
		     unsigned int count)
{
	int dups[VU_MAX_FDS], fds[VU_MAX_FDS];
	int rc = vfio_irq_dup(u->dev, index, start, count, dups);

	if (rc)
		return rc;
	for (unsigned int i = 0; i < count; i++)
		fds[i] = dups[i] >= 0 ? dups[i] : u->dummy;
	rc = arm(u, index, start, count, fds);
	for (unsigned int i = 0; i < count; i++)
		if (dups[i] >= 0)
			close(dups[i]);
	return rc;
}

static int arm_range(struct vu_device *u, unsigned int index, unsigned int start,
		     unsigned int count)
{
	unsigned int most = atomic_load(&u->conn.limits.msg_fds), n;
	int rc = 0;

	for (; count && !rc; start += n, count -= n) {
		n = SWI_MIN(count, most);
		rc = arm_piece(u, index, start, n);
	}
	return rc;
}

int vu_irq_update(void *priv, unsigned int index, unsigned int start, unsigned int count)
{
	struct vu_device *u = priv;

	if (!count)
		return disable(u, index);
	if (index == VFIO_PCI_INTX_IRQ_INDEX)
		return arm(u, index, 0, 1, &u->relay);
	return arm_range(u, index, start, count);
}

void vu_irq_mask(void *priv, bool masked)
{
	uint32_t action = masked ? VFIO_IRQ_SET_ACTION_MASK : VFIO_IRQ_SET_ACTION_UNMASK;

	/* Servers without such a thing refuse. */
	send_set(priv, VFIO_IRQ_SET_DATA_NONE | action, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, NULL, 0);
}

int vu_irqs_resend(struct vu_device *u)
{
	int index = vfio_irq_active(u->dev);

	if (index < 0)
		return 0;
	return vu_irq_update(u, (unsigned int)index, 0, SWI_MAX(u->shape.irqs[index], 1u));
}
