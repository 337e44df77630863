/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VFIO_WORKER_H
#define SWIOMMU_VFIO_WORKER_H

/*
 * The thread of a model: for what a register starts and the register access must not wait for.
 *
 *   create()   vfio_worker_init(&m->worker, look, m)
 *   open()     vfio_dma_open(), vfio_worker_start()        close()   vfio_worker_stop(), vfio_dma_close()
 *   register   note what is to be done, vfio_worker_kick()
 *   look()     on the thread: do what has been noted. No lock is held, so DMA is fine here
 *   reset()    vfio_worker_pause(), clear everything, vfio_worker_resume()
 *
 * What the registers say is the model's to guard, as look() and register accesses run at once.
 */

#include "base/base.h"

#include <pthread.h>

struct vfio_worker {
	void (*look)(void *arg);
	void *arg;

	pthread_mutex_t lock;
	pthread_cond_t wake, idle; /* to the thread; from it */
	/* Guarded by lock. */
	bool kicked, busy, stop;
	unsigned int paused, period_us;
	pthread_t thread;
};

/* -ENOMEM. */
int vfio_worker_init(struct vfio_worker *w, void (*look)(void *arg), void *arg);
void vfio_worker_fini(struct vfio_worker *w);

/*
 * From here to vfio_worker_stop() look() is called after each kick, and, if period_us is not 0, so long after
 * it has returned: for models that poll shared pages. Kicks from before the start count. 0 or a negative errno.
 */
int vfio_worker_start(struct vfio_worker *w, unsigned int period_us);
/* Returns when look() has, for the last time. */
void vfio_worker_stop(struct vfio_worker *w);

/* There is something to do. Any thread, any time; cheap. Kicks during look() cause one more call. */
void vfio_worker_kick(struct vfio_worker *w);

/*
 * Returns when look() is not running, and forgets kicks; it is not called until as many calls of vfio_worker_resume().
 * Started or not; not from look().
 */
void vfio_worker_pause(struct vfio_worker *w);
void vfio_worker_resume(struct vfio_worker *w);

#endif
