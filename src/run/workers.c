// SPDX-License-Identifier: MIT
/*
 * The threads that wait for notifications.
 *
 * A call may block (on the program's own memory, on DMA in progress), so there must always be a
 * thread left to receive: whoever takes a notification and finds nobody idle starts another thread,
 * up to a limit that a program can only reach by blocking that many calls at once. Threads are
 * kept: their number is bounded by the largest number of calls that were ever in progress together.
 */
#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "base/alloc.h"
#include "run/dispatch.h"

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif
#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#endif

#define WORKERS_MAX 128
#define WORKER_STACK (256u << 10)

struct workers {
	struct session *session;
	pthread_mutex_t lock;
	pthread_t threads[WORKERS_MAX];
	size_t count, idle; /* lock */
	_Atomic size_t running;
	_Atomic bool stop;
};

/* Interrupts a blocked receive: does nothing by itself. Not one that programs send each other. */
#define WAKE_SIGNAL (SIGRTMIN + 7)

static void on_wake(int sig)
{
	(void)sig;
}

static void *worker(void *arg);

/* Workers locked. */
static int add_worker_locked(struct workers *w)
{
	pthread_attr_t attr;
	int rc;

	if (w->count == WORKERS_MAX)
		return -EAGAIN;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, WORKER_STACK);
	w->running++;
	rc = pthread_create(&w->threads[w->count], &attr, worker, w);
	pthread_attr_destroy(&attr);
	if (rc) {
		w->running--;
		return -rc;
	}
	w->count++;
	w->idle++;
	return 0;
}

static void set_busy(struct workers *w, bool busy)
{
	pthread_mutex_lock(&w->lock);
	if (!busy)
		w->idle++;
	else if (!--w->idle && !w->stop)
		add_worker_locked(w); /* else calls queue up until one has ended */
	pthread_mutex_unlock(&w->lock);
}

static void *worker(void *arg)
{
	struct workers *w = arg;
	int listener = w->session->listener;
	struct task_cache cache = {0};
	struct seccomp_notif req;
	struct seccomp_notif_resp resp;

	while (!w->stop) {
		memset(&req, 0, sizeof(req));
		/* ENOENT: the caller was killed before we came; EINTR: the wake-up. */
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &req))
			continue;
		set_busy(w, true);
		dispatch(w->session, &cache, &req, &resp);
		/* The rest cannot block; the caller may come back before this thread runs on. */
		set_busy(w, false);
		/* ENOENT: killed meanwhile; what the call did stays, as in the kernel. */
		(void)!ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &resp);
	}
	task_cache_clear(&cache);
	w->running--;
	return NULL;
}

int workers_start(struct session *s, struct workers **out)
{
	struct workers *w = swi_new(struct workers);
	struct sigaction sa = {.sa_handler = on_wake};
	sigset_t set;
	int rc;

	if (!w)
		return -ENOMEM;
	w->session = s;
	pthread_mutex_init(&w->lock, NULL);
	/* Wakes the waiting thread on this CPU: a system call then costs a switch instead of an
	 * interrupt. */
	(void)!ioctl(s->listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS,
		     SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
	sigaction(WAKE_SIGNAL, &sa, NULL);
	sigemptyset(&set);
	sigaddset(&set, WAKE_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	pthread_mutex_lock(&w->lock);
	rc = add_worker_locked(w);
	pthread_mutex_unlock(&w->lock);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (rc) {
		pthread_mutex_destroy(&w->lock);
		swi_free(w);
		return rc;
	}
	*out = w;
	return 0;
}

void workers_stop(struct workers *w)
{
	struct timespec ms = {0, 1000000};

	if (!w)
		return;
	w->stop = true;
	/* A thread may be just about to block: keep waking until all have seen `stop`. */
	while (w->running) {
		pthread_mutex_lock(&w->lock);
		for (size_t i = 0; i < w->count; i++)
			pthread_kill(w->threads[i], WAKE_SIGNAL);
		pthread_mutex_unlock(&w->lock);
		nanosleep(&ms, NULL);
	}
	for (size_t i = 0; i < w->count; i++)
		pthread_join(w->threads[i], NULL);
	pthread_mutex_destroy(&w->lock);
	swi_free(w);
}
