// SPDX-License-Identifier: MIT
/*
 * Guarded copies. Each thread has a chain of the copies it is in (more than one if a signal handler
 * copies too), innermost first. The SIGBUS handler leaves the innermost copy by siglongjmp() if the
 * faulting address is in one of its two buffers; any other SIGBUS is passed on.
 *
 * The alternative, to put an empty page in the place of the lost one and go on, would hide the loss
 * from all later copies. Jumping leaves the window as it is: it fails again, and works again should
 * the file grow. The signal mask is put back by the handler, from what the kernel saved, so that a
 * copy without a fault makes no system call.
 *
 * The chain's head is reached from a signal handler in threads that may never have copied anything.
 * Hence the initial-exec model: no access to it can need an allocation.
 *
 * The handler and what it replaced are state of the process, as the disposition itself is.
 */
#include "mem/guard.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <ucontext.h>

struct guard_frame {
	sigjmp_buf jump;
	struct guard_frame *outer;
	uintptr_t dst, src;
	size_t len;
};

static _Thread_local struct guard_frame *volatile innermost
	__attribute__((tls_model("initial-exec")));
static _Atomic bool installed;
static struct sigaction previous;
static pthread_mutex_t install_lock = PTHREAD_MUTEX_INITIALIZER;

static bool in_buffer(uintptr_t addr, uintptr_t start, size_t len)
{
	return addr >= start && addr - start < len;
}

/* Does what would have happened without us. */
static void pass_on(int sig, siginfo_t *info, void *context)
{
	sigset_t old;

	if (!(previous.sa_flags & SA_SIGINFO) &&
	    (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN)) {
		if (info->si_code <= 0 && previous.sa_handler == SIG_IGN)
			return;
		/* A fault strikes again when the handler returns; a sent signal must be resent. */
		sigaction(sig, &previous, NULL);
		if (info->si_code <= 0)
			raise(sig);
		return;
	}
	pthread_sigmask(SIG_BLOCK, &previous.sa_mask, &old);
	if (previous.sa_flags & SA_SIGINFO)
		previous.sa_sigaction(sig, info, context);
	else
		previous.sa_handler(sig);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	struct guard_frame *f = innermost;
	uintptr_t addr = (uintptr_t)info->si_addr;

	/* si_code > 0: the kernel found it, nobody sent it. */
	if (f && info->si_code > 0 &&
	    (in_buffer(addr, f->dst, f->len) || in_buffer(addr, f->src, f->len))) {
		pthread_sigmask(SIG_SETMASK, &((ucontext_t *)context)->uc_sigmask, NULL);
		siglongjmp(f->jump, 1);
	}
	pass_on(sig, info, context);
}

int mem_guard_install(void)
{
	struct sigaction sa = {
		.sa_sigaction = on_sigbus,
		.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK,
	};
	int ret = 0;

	sigemptyset(&sa.sa_mask);
	pthread_mutex_lock(&install_lock);
	if (!atomic_load_explicit(&installed, memory_order_relaxed)) {
		/* Read first: the handler may run before a single call could return it. */
		if (sigaction(SIGBUS, NULL, &previous) || sigaction(SIGBUS, &sa, NULL))
			ret = -errno;
		else
			atomic_store_explicit(&installed, true, memory_order_release);
	}
	pthread_mutex_unlock(&install_lock);
	return ret;
}

int mem_guard_copy(void *dst, const void *src, size_t len)
{
	struct guard_frame f;

	if (!atomic_load_explicit(&installed, memory_order_relaxed)) {
		memcpy(dst, src, len);
		return 0;
	}
	f.outer = innermost;
	f.dst = (uintptr_t)dst;
	f.src = (uintptr_t)src;
	f.len = len;
	if (sigsetjmp(f.jump, 0)) {
		innermost = f.outer;
		return -EFAULT;
	}
	/* The fences keep the compiler from moving the copy out of the guarded stretch. */
	innermost = &f;
	atomic_signal_fence(memory_order_seq_cst);
	memcpy(dst, src, len);
	atomic_signal_fence(memory_order_seq_cst);
	innermost = f.outer;
	return 0;
}
