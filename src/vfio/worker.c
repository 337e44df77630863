// SPDX-License-Identifier: MIT
/* The thread of a model; see <swiommu/model.h>. */
#include "vfio/model.h"

#include <errno.h>
#include <time.h>

int vfio_worker_init(struct vfio_worker *w, void (*look)(void *arg), void *arg)
{
	pthread_condattr_t attr;

	*w = (struct vfio_worker){.look = look, .arg = arg};
	if (pthread_condattr_init(&attr))
		return -ENOMEM;
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	if (pthread_mutex_init(&w->lock, NULL))
		goto attr;
	if (pthread_cond_init(&w->wake, &attr))
		goto lock;
	if (pthread_cond_init(&w->idle, NULL))
		goto wake;
	pthread_condattr_destroy(&attr);
	return 0;

wake:
	pthread_cond_destroy(&w->wake);
lock:
	pthread_mutex_destroy(&w->lock);
attr:
	pthread_condattr_destroy(&attr);
	return -ENOMEM;
}

void vfio_worker_fini(struct vfio_worker *w)
{
	pthread_cond_destroy(&w->idle);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
}

/* Waits for a kick or the end of the period; whether it is time to look. */
static bool wait_locked(struct vfio_worker *w)
{
	struct timespec t;
	int rc = 0;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += w->period_us * 1000l;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	while (!rc && !w->stop && (w->paused || !w->kicked))
		rc = w->period_us ? pthread_cond_timedwait(&w->wake, &w->lock, &t)
				  : pthread_cond_wait(&w->wake, &w->lock);
	return !w->stop && !w->paused;
}

static void *worker(void *arg)
{
	struct vfio_worker *w = arg;

	pthread_mutex_lock(&w->lock);
	while (!w->stop) {
		if (!wait_locked(w))
			continue;
		w->kicked = false;
		w->busy = true;
		pthread_mutex_unlock(&w->lock);
		w->look(w->arg);
		pthread_mutex_lock(&w->lock);
		w->busy = false;
		pthread_cond_broadcast(&w->idle);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

int vfio_worker_start(struct vfio_worker *w, unsigned int period_us)
{
	w->stop = false;
	w->period_us = SWI_MIN(period_us, 1000000u);
	return vfio_thread_start(&w->thread, worker, w);
}

void vfio_worker_stop(struct vfio_worker *w)
{
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
}

bool vfio_worker_must_return(struct vfio_worker *w)
{
	bool must;

	pthread_mutex_lock(&w->lock);
	must = w->stop || w->paused;
	pthread_mutex_unlock(&w->lock);
	return must;
}

void vfio_worker_kick(struct vfio_worker *w)
{
	pthread_mutex_lock(&w->lock);
	w->kicked = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
}

void vfio_worker_pause(struct vfio_worker *w)
{
	pthread_mutex_lock(&w->lock);
	w->paused++;
	w->kicked = false;
	while (w->busy)
		pthread_cond_wait(&w->idle, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

void vfio_worker_resume(struct vfio_worker *w)
{
	pthread_mutex_lock(&w->lock);
	w->paused--;
	if (!w->paused && w->kicked)
		pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
}
