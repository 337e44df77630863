// SPDX-License-Identifier: MIT
/*
 * VFIO_DEVICE_SET_IRQS: which interrupts of a device the client wants, and as what (spec
 * vfio.md 4.3).
 *
 * The call goes through four steps. Everything that touches the client comes first and without a
 * lock: (1) copy and check the header, (2) copy the payload, (3) turn file descriptors into
 * eventfds of our own. Then (4) a handler for the pair (index, action) checks the state and acts
 * under irqs.setup, which makes calls follow each other.
 *
 * Step 3 stops at the first bad descriptor and remembers it. Only the handler knows what that
 * means: an error in the state of the device goes first, and for MSI the vectors up to and
 * including the bad one lose their signal.
 *
 * Ownership: eventfds in request.got belong to the request until a handler takes them (and puts -1
 * there).
 *
 * UNMASK with an eventfd needs somebody who waits for it: a thread per device, only while such an
 * eventfd is set.
 */
#include "vfio/irq.h"

#include "base/alloc.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#define HEADER_SIZE 20u
#define ALL_FLAGS ((uint32_t)(VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK))

static const char what[] = "VFIO_DEVICE_SET_IRQS";

struct request {
	struct vfio_device *dev;
	struct swiommu_caller *caller;
	uint32_t type, action, index, start, count;
	/* Payload: bytes of BOOL, or the client's numbers of EVENTFD. */
	const uint8_t *bools;
	const int32_t *fds;
	int *got;	  /* EVENTFD: our eventfds, -1 where the client's number is negative */
	uint32_t nr_good; /* EVENTFD: entries before the first bad one */
	long fd_error;	  /* EVENTFD: what is wrong with that one, 0 = all are good */
	char fd_reason[120];
};

static const char *const index_names[VFIO_PCI_NUM_IRQS] = {"INTx", "MSI", "MSI-X", "ERR", "REQ"};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static long fail(const struct request *r, long err, const char *why)
{
	return vfio_fail(r->caller, err, "%s: %s start %u count %u: %s", what,
			 index_names[r->index], r->start, r->count, why);
}

static long fail_fd(const struct request *r)
{
	return fail(r, r->fd_error, r->fd_reason);
}

/* Puts `fd` (owned from now on) into a slot of the irqs; whoever was there is closed. */
static void put_slot(struct vfio_irqs *irqs, int *slot, int fd)
{
	int old;

	pthread_mutex_lock(&irqs->lock);
	old = *slot;
	*slot = fd;
	pthread_mutex_unlock(&irqs->lock);
	close_fd(&old);
}

static int take(struct request *r, uint32_t i)
{
	int fd = r->got[i];

	r->got[i] = -1;
	return fd;
}

/* Tells a model whose interrupts are signalled elsewhere. irqs.setup held, irqs.lock not. */
static int tell(struct vfio_device *dev, int index, uint32_t start, uint32_t count)
{
	if (index < 0 || !dev->model->irq_update)
		return 0;
	return dev->model->irq_update(dev->priv, (unsigned int)index, start, count);
}

/* ---- MSI and MSI-X ----------------------------------------------------------------------- */

static void set_type(struct vfio_irqs *irqs, int type, unsigned int nr_allocated)
{
	pthread_mutex_lock(&irqs->lock);
	atomic_store(&irqs->type, type);
	irqs->nr_allocated = nr_allocated;
	pthread_mutex_unlock(&irqs->lock);
}

static void msi_disable(struct vfio_device *dev)
{
	struct vfio_irqs *irqs = &dev->irqs;
	int type = atomic_load(&irqs->type);

	set_type(irqs, -1, 0);
	for (unsigned int i = 0; i < irqs->nr_max; i++)
		put_slot(irqs, &irqs->vectors[i], -1);
	tell(dev, type, 0, 0);
}

/* Vectors from r->start on lose their signal; all of them if nothing was enabled before. */
static void msi_disarm(struct request *r, uint32_t count, bool first)
{
	for (uint32_t i = 0; i < count; i++)
		put_slot(&r->dev->irqs, &r->dev->irqs.vectors[r->start + i], -1);
	if (first)
		msi_disable(r->dev);
	else
		tell(r->dev, (int)r->index, r->start, count);
}

static long msi_arm(struct request *r)
{
	struct vfio_irqs *irqs = &r->dev->irqs;
	bool first = atomic_load(&irqs->type) < 0;
	uint32_t end = r->start + r->count;
	int rc;

	if (first && !end)
		return fail(r, -EINVAL, "no vector is asked for");
	if (first)
		set_type(irqs, (int)r->index, end);
	else if (end > irqs->nr_allocated && r->index == VFIO_PCI_MSI_IRQ_INDEX)
		return fail(r, -EINVAL, "MSI cannot grow: disable it first");
	else if (end > irqs->nr_allocated)
		set_type(irqs, (int)r->index, end);
	if (r->fd_error) {
		msi_disarm(r, r->nr_good + 1, first);
		return fail_fd(r);
	}
	/* Vectors without a signal, or nothing new: to a model, no vectors would mean that all are disabled. */
	if (!r->count)
		return 0;
	for (uint32_t i = 0; i < r->count; i++)
		put_slot(irqs, &irqs->vectors[r->start + i], take(r, i));
	rc = tell(r->dev, (int)r->index, r->start, r->count);
	if (!rc)
		return 0;
	msi_disarm(r, r->count, first);
	return fail(r, rc, "the device does not take them");
}

static long msi_trigger(struct request *r)
{
	struct vfio_irqs *irqs = &r->dev->irqs;
	int type = atomic_load(&irqs->type);
	bool active = type == (int)r->index;

	if (active && !r->count && r->type == VFIO_IRQ_SET_DATA_NONE) {
		msi_disable(r->dev);
		return 0;
	}
	if (!active && type >= 0)
		return fail(r, -EINVAL, "another interrupt type is enabled: disable it first");
	if (r->type == VFIO_IRQ_SET_DATA_EVENTFD)
		return msi_arm(r);
	if (!active)
		return fail(r, -EINVAL, "not enabled");
	pthread_mutex_lock(&irqs->lock);
	for (uint32_t i = 0; i < r->count; i++)
		if (r->type == VFIO_IRQ_SET_DATA_NONE || r->bools[i])
			vfio_irq_notify(r->dev, irqs->vectors[r->start + i]);
	pthread_mutex_unlock(&irqs->lock);
	return 0;
}

/* ---- INTx -------------------------------------------------------------------------------- */

bool vfio_drain_eventfd(int fd)
{
	uint64_t value;
	struct iovec iov = {&value, sizeof(value)};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);

	/*
	 * Kernels that cannot do that: another reader could make this wait, until the next signal.
	 */
	if (n < 0 && errno == EOPNOTSUPP && poll(&p, 1, 0) == 1)
		n = read(fd, &value, sizeof(value));
	return n == sizeof(value);
}

static void mask(struct vfio_device *dev, bool masked)
{
	vfio_irq_intx_mask(dev, masked);
	if (dev->model->irq_mask)
		dev->model->irq_mask(dev->priv, masked);
}

static void *unmask_thread(void *arg)
{
	struct vfio_device *dev = arg;
	struct pollfd p[2] = {{.fd = dev->irqs.unmask, .events = POLLIN},
			      {.fd = dev->irqs.unmask_stop, .events = POLLIN}};

	while (poll(p, 2, -1) < 0 || !p[1].revents)
		if (p[0].revents && vfio_drain_eventfd(p[0].fd))
			mask(dev, false);
	return NULL;
}

static void unmask_stop(struct vfio_device *dev)
{
	struct vfio_irqs *irqs = &dev->irqs;
	const uint64_t one = 1;

	if (irqs->unmask < 0)
		return;
	if (write(irqs->unmask_stop, &one, sizeof(one)) == sizeof(one))
		pthread_join(irqs->unmask_thread, NULL);
	close_fd(&irqs->unmask_stop);
	close_fd(&irqs->unmask);
}

static long unmask_start(struct request *r)
{
	struct vfio_irqs *irqs = &r->dev->irqs;
	int rc;

	if (irqs->unmask >= 0)
		return fail(r, -EBUSY, "an unmask eventfd is set already");
	irqs->unmask_stop = eventfd(0, EFD_CLOEXEC);
	if (irqs->unmask_stop < 0)
		return fail(r, -errno, "no eventfd for ourselves");
	irqs->unmask = take(r, 0);
	rc = vfio_thread_start(&irqs->unmask_thread, unmask_thread, r->dev);
	if (!rc)
		return 0;
	close_fd(&irqs->unmask);
	close_fd(&irqs->unmask_stop);
	return fail(r, rc, "no thread to wait for the unmask eventfd");
}

static void intx_disable(struct vfio_device *dev)
{
	int type = atomic_load(&dev->irqs.type);

	unmask_stop(dev);
	set_type(&dev->irqs, -1, 0);
	put_slot(&dev->irqs, &dev->irqs.intx, -1);
	tell(dev, type, 0, 0);
}

static bool intx_active(const struct request *r)
{
	return atomic_load(&r->dev->irqs.type) == VFIO_PCI_INTX_IRQ_INDEX;
}

static long intx_mask(struct request *r)
{
	if (!intx_active(r) || r->start || r->count != 1)
		return fail(r, -EINVAL, "MASK needs INTx enabled, start 0 and count 1");
	if (r->type == VFIO_IRQ_SET_DATA_EVENTFD)
		return fail(r, -ENOTTY, "MASK by eventfd does not exist");
	if (r->type == VFIO_IRQ_SET_DATA_NONE || r->bools[0])
		mask(r->dev, true);
	return 0;
}

static long intx_unmask(struct request *r)
{
	if (!intx_active(r) || r->start || r->count != 1)
		return fail(r, -EINVAL, "UNMASK needs INTx enabled, start 0 and count 1");
	if (r->type == VFIO_IRQ_SET_DATA_EVENTFD) {
		if (r->fd_error)
			return fail_fd(r);
		if (r->fds[0] >= 0)
			return unmask_start(r);
		unmask_stop(r->dev);
		return 0;
	}
	if (r->type == VFIO_IRQ_SET_DATA_NONE || r->bools[0])
		mask(r->dev, false);
	return 0;
}

static long intx_arm(struct request *r)
{
	struct vfio_irqs *irqs = &r->dev->irqs;
	bool first = !intx_active(r);
	int rc;

	if (r->fd_error)
		return fail_fd(r);
	put_slot(irqs, &irqs->intx, take(r, 0));
	pthread_mutex_lock(&irqs->lock);
	if (first) {
		irqs->masked = false;
		atomic_store(&irqs->type, VFIO_PCI_INTX_IRQ_INDEX);
	}
	vfio_irq_intx_fire_locked(r->dev);
	pthread_mutex_unlock(&irqs->lock);
	rc = first ? tell(r->dev, VFIO_PCI_INTX_IRQ_INDEX, 0, 1) : 0;
	if (!rc)
		return 0;
	intx_disable(r->dev);
	return fail(r, rc, "the device does not take it");
}

static long intx_trigger(struct request *r)
{
	struct vfio_irqs *irqs = &r->dev->irqs;
	bool active = intx_active(r);

	if (active && !r->count && r->type == VFIO_IRQ_SET_DATA_NONE) {
		intx_disable(r->dev);
		return 0;
	}
	if (!active && atomic_load(&irqs->type) >= 0)
		return fail(r, -EINVAL, "another interrupt type is enabled: disable it first");
	if (r->start || r->count != 1)
		return fail(r, -EINVAL, "needs start 0 and count 1");
	if (r->type == VFIO_IRQ_SET_DATA_EVENTFD)
		return intx_arm(r);
	if (!active)
		return fail(r, -EINVAL, "not enabled");
	pthread_mutex_lock(&irqs->lock);
	if (!irqs->disabled && (r->type == VFIO_IRQ_SET_DATA_NONE || r->bools[0]))
		vfio_irq_notify(r->dev, irqs->intx);
	pthread_mutex_unlock(&irqs->lock);
	return 0;
}

/* ---- ERR and REQ ------------------------------------------------------------------------- */

static long single_trigger(struct request *r)
{
	struct vfio_irqs *irqs = &r->dev->irqs;
	int *slot = r->index == VFIO_PCI_ERR_IRQ_INDEX ? &irqs->err : &irqs->req;

	if (r->start || r->count > 1)
		return fail(r, -EINVAL, "there is one: start 0 and count 1 or 0");
	if (r->type == VFIO_IRQ_SET_DATA_EVENTFD) {
		if (!r->count || r->fds[0] < -1)
			return fail(r, -EINVAL, "needs one eventfd, or -1");
		if (r->fd_error)
			return fail_fd(r);
		put_slot(irqs, slot, take(r, 0));
		return 0;
	}
	if (*slot < 0)
		return fail(r, -EINVAL, "no eventfd is set");
	if (r->type == VFIO_IRQ_SET_DATA_NONE && !r->count) {
		put_slot(irqs, slot, -1);
		return 0;
	}
	if (!r->count)
		return fail(r, -EINVAL, "BOOL needs count 1");
	pthread_mutex_lock(&irqs->lock);
	if (r->type == VFIO_IRQ_SET_DATA_NONE || r->bools[0])
		vfio_irq_notify(r->dev, *slot);
	pthread_mutex_unlock(&irqs->lock);
	return 0;
}

/* ---- the call ---------------------------------------------------------------------------- */

typedef long (*handler_fn)(struct request *r);

static handler_fn find_handler(uint32_t index, uint32_t action)
{
	static const struct {
		uint32_t index, action;
		handler_fn handler;
	} handlers[] = {
		{VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_MASK, intx_mask},
		{VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK, intx_unmask},
		{VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER, intx_trigger},
		{VFIO_PCI_MSI_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER, msi_trigger},
		{VFIO_PCI_MSIX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER, msi_trigger},
		{VFIO_PCI_ERR_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER, single_trigger},
		{VFIO_PCI_REQ_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER, single_trigger},
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(handlers); i++)
		if (handlers[i].index == index && handlers[i].action == action)
			return handlers[i].handler;
	return NULL;
}

static bool is_eventfd(int fd)
{
	char path[40], link[32];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link));
	return n == 20 && !memcmp(link, "anon_inode:[eventfd]", 20);
}

int vfio_get_eventfd(struct swiommu_caller *caller, int fd, int *out)
{
	int rc = caller->ops->get_fd(caller, fd, out);

	if (rc || is_eventfd(*out))
		return rc;
	close_fd(out);
	return -EINVAL;
}

/* Step 3. Leaves the first error in the request. */
static void get_eventfds(struct request *r)
{
	for (r->nr_good = 0; r->nr_good < r->count; r->nr_good++) {
		uint32_t i = r->nr_good;
		int rc;

		r->got[i] = -1;
		if (r->fds[i] < 0)
			continue;
		rc = vfio_get_eventfd(r->caller, r->fds[i], &r->got[i]);
		if (!rc)
			continue;
		r->got[i] = -1;
		r->fd_error = rc;
		snprintf(r->fd_reason, sizeof(r->fd_reason), "entry %u: fd %d is %s", i, r->fds[i],
			 rc == -EINVAL	? "not an eventfd"
			 : rc == -EBADF ? "not open"
					: "out of reach");
		return;
	}
}

static long act(struct request *r, handler_fn handler)
{
	struct vfio_irqs *irqs = &r->dev->irqs;
	long rc;

	if (r->type == VFIO_IRQ_SET_DATA_EVENTFD)
		get_eventfds(r);
	pthread_mutex_lock(&irqs->setup);
	rc = handler(r);
	pthread_mutex_unlock(&irqs->setup);
	for (uint32_t i = 0; i < r->nr_good; i++)
		close_fd(&r->got[i]);
	return rc;
}

/* General refusals; *size = bytes of one payload element. */
static long check_header(const struct vfio_irq_set *h, const struct vfio_device *dev,
			 struct swiommu_caller *caller, uint32_t *size)
{
	uint32_t max;

	if (h->argsz < HEADER_SIZE)
		return vfio_fail(caller, -EINVAL, "%s: argsz is %u, at least %u needed", what,
				 h->argsz, HEADER_SIZE);
	if (h->index >= VFIO_PCI_NUM_IRQS)
		return vfio_fail(caller, -EINVAL, "%s: index %u: the device has indexes 0-%d", what,
				 h->index, VFIO_PCI_NUM_IRQS - 1);
	if (h->flags & ~ALL_FLAGS)
		return vfio_fail(caller, -EINVAL, "%s: flags 0x%x: unknown bits", what, h->flags);
	max = vfio_irq_count(dev, h->index);
	if (h->start >= max || h->count > max - h->start)
		return vfio_fail(caller, -EINVAL, "%s: start %u count %u: the device has %u %s",
				 what, h->start, h->count, max, index_names[h->index]);
	switch (h->flags & VFIO_IRQ_SET_DATA_TYPE_MASK) {
	case VFIO_IRQ_SET_DATA_NONE:
		*size = 0;
		break;
	case VFIO_IRQ_SET_DATA_BOOL:
		*size = sizeof(uint8_t);
		break;
	case VFIO_IRQ_SET_DATA_EVENTFD:
		*size = sizeof(int32_t);
		break;
	default:
		return vfio_fail(caller, -EINVAL, "%s: flags 0x%x: exactly one data type needed",
				 what, h->flags);
	}
	if (h->argsz - HEADER_SIZE < h->count * *size)
		return vfio_fail(caller, -EINVAL, "%s: argsz is %u, but %u entries need %u", what,
				 h->argsz, h->count, HEADER_SIZE + h->count * *size);
	return 0;
}

long vfio_ioctl_set_irqs(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg)
{
	struct vfio_irq_set h;
	struct request r = {.dev = file->dev, .caller = caller};
	handler_fn handler;
	void *payload = NULL;
	uint32_t size = 0;
	long rc;

	rc = vfio_copy_in(caller, &h, arg, HEADER_SIZE, what);
	if (!rc)
		rc = check_header(&h, file->dev, caller, &size);
	if (rc)
		return rc;
	size *= h.count;
	if (size) {
		/* Room for the payload and, if it is of descriptors, for what becomes of them. */
		payload = swi_alloc(2 * (size_t)size);
		if (!payload)
			return vfio_fail(caller, -ENOMEM, "%s: no memory for %u entries", what,
					 h.count);
		rc = vfio_copy_in(caller, payload, arg + HEADER_SIZE, size, what);
		if (rc)
			goto out;
	}
	r.type = h.flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
	r.action = h.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
	r.index = h.index;
	r.start = h.start;
	r.count = h.count;
	r.bools = payload;
	r.fds = payload;
	r.got = size ? (int *)((char *)payload + size) : NULL;
	handler = find_handler(r.index, r.action);
	if (handler)
		rc = act(&r, handler);
	else
		rc = vfio_fail(caller, -ENOTTY, "%s: %s: action 0x%x does not exist for it", what,
			       index_names[r.index], r.action);
out:
	swi_free(payload);
	return rc;
}

void vfio_irqs_stop(struct vfio_device *dev)
{
	struct vfio_irqs *irqs = &dev->irqs;

	pthread_mutex_lock(&irqs->setup);
	intx_disable(dev);
	msi_disable(dev);
	put_slot(irqs, &irqs->err, -1);
	put_slot(irqs, &irqs->req, -1);
	pthread_mutex_unlock(&irqs->setup);
}
