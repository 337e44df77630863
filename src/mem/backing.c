// SPDX-License-Identifier: MIT
/*
 * Backings. The only state is the count of pins and the window that exists while it is not zero.
 *
 * `lock` serialises looking the memory up and forgetting it. Everything else goes without: `pins`
 * is counted up from non-zero and down by compare-and-swap. Data movers hold a pin of their own
 * while they use a window, so that an unpin meanwhile, from an address space that shares the
 * backing, cannot take the window away under them; whoever drops the last pin closes it.
 *
 * Invariant: `window` is open only if `pins` > 0, or if the thread that dropped the last pin is on
 * its way to the lock. A pinner who gets there first closes it himself and looks again: what was
 * known before the last unpin must not be used any more.
 */
#include "mem/backing.h"

#include "base/alloc.h"
#include "mem/guard.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

struct backing {
	_Atomic unsigned refs;
	bool write_intent;
	struct mem_owner *owner; /* counted */
	uint64_t addr, length;
	_Atomic unsigned pins;
	_Atomic(void *) host; /* window.host while pinned */
	pthread_mutex_t lock; /* protects window; held while open_window runs */
	struct mem_window window;
};

int backing_create(struct mem_owner *owner, uint64_t addr, uint64_t length, bool write_intent,
		   struct backing **out)
{
	struct backing *b = swi_new(struct backing);

	if (!b)
		return -ENOMEM;
	atomic_init(&b->refs, 1);
	atomic_init(&b->pins, 0);
	atomic_init(&b->host, NULL);
	pthread_mutex_init(&b->lock, NULL);
	b->owner = mem_owner_get(owner);
	b->addr = addr;
	b->length = length;
	b->write_intent = write_intent;
	*out = b;
	return 0;
}

struct backing *backing_get(struct backing *b)
{
	atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
	return b;
}

void backing_put(struct backing *b)
{
	if (atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
		return;
	mem_owner_put(b->owner);
	pthread_mutex_destroy(&b->lock);
	swi_free(b);
}

uint64_t backing_addr(const struct backing *b)
{
	return b->addr;
}

uint64_t backing_length(const struct backing *b)
{
	return b->length;
}

bool backing_write_intent(const struct backing *b)
{
	return b->write_intent;
}

struct mem_owner *backing_owner(const struct backing *b)
{
	return b->owner;
}

/* One more pin if there is one already. */
static bool pin_if_pinned(struct backing *b)
{
	unsigned n = atomic_load_explicit(&b->pins, memory_order_relaxed);

	while (n)
		if (atomic_compare_exchange_weak_explicit(&b->pins, &n, n + 1, memory_order_acquire,
							  memory_order_relaxed))
			return true;
	return false;
}

static void close_window_locked(struct backing *b)
{
	atomic_store_explicit(&b->host, NULL, memory_order_relaxed);
	mem_window_close(&b->window);
}

int backing_pin(struct backing *b, struct swi_reason *why)
{
	unsigned prot = b->write_intent ? SWI_WRITE : SWI_READ;
	int ret = 0;

	if (pin_if_pinned(b))
		return 0;
	pthread_mutex_lock(&b->lock);
	if (pin_if_pinned(b))
		goto out;
	close_window_locked(b);
	ret = b->owner->ops->open_window(b->owner, b->addr, b->length, prot, &b->window, why);
	if (ret)
		goto out;
	atomic_store_explicit(&b->host, b->window.host, memory_order_relaxed);
	atomic_store_explicit(&b->pins, 1, memory_order_release);
out:
	pthread_mutex_unlock(&b->lock);
	return ret;
}

void backing_unpin(struct backing *b)
{
	if (atomic_fetch_sub_explicit(&b->pins, 1, memory_order_acq_rel) != 1)
		return;
	pthread_mutex_lock(&b->lock);
	/* A new pinner may have been faster, and has closed and reopened it then. */
	if (!atomic_load_explicit(&b->pins, memory_order_relaxed))
		close_window_locked(b);
	pthread_mutex_unlock(&b->lock);
}

void *backing_host(const struct backing *b)
{
	return atomic_load_explicit(&b->host, memory_order_acquire);
}

int backing_read(struct backing *b, uint64_t offset, void *buf, size_t len)
{
	const struct mem_owner_ops *ops = b->owner->ops;
	const char *host;
	int ret;

	if (!pin_if_pinned(b))
		return ops->read(b->owner, b->addr + offset, buf, len);
	host = backing_host(b);
	ret = host ? mem_guard_copy(buf, host + offset, len)
		   : ops->read_pinned(b->owner, b->addr + offset, buf, len);
	backing_unpin(b);
	return ret;
}

int backing_write(struct backing *b, uint64_t offset, const void *buf, size_t len)
{
	const struct mem_owner_ops *ops = b->owner->ops;
	char *host;
	int ret;

	if (!pin_if_pinned(b))
		return ops->write(b->owner, b->addr + offset, buf, len);
	host = backing_host(b);
	ret = host ? mem_guard_copy(host + offset, buf, len)
		   : ops->write_pinned(b->owner, b->addr + offset, buf, len);
	backing_unpin(b);
	return ret;
}
