// SPDX-License-Identifier: MIT
/*
 * Guarded copies and mended pages. Each thread has a chain of the copies it is in (more than one if a signal handler
 * copies too), innermost first. The SIGBUS handler leaves the innermost copy by siglongjmp() if the
 * faulting address is in one of its two buffers; any other SIGBUS is passed on.
 *
 * The alternative, to put an empty page in the place of the lost one and go on, would hide the loss
 * from all later copies; it is what is done for pages that are not copied but looked at by code that
 * has nowhere to jump to (mem_guard_mend()). Jumping leaves the window as it is: it fails again, and works again should
 * the file grow. The signal mask is put back by the handler, from what the kernel saved, so that a
 * copy without a fault makes no system call.
 *
 * The chain's head is reached from a signal handler in threads that may never have copied anything.
 * Hence the initial-exec model: no access to it can need an allocation.
 *
 * The handler and what it replaced are state of the process, as the disposition itself is; and so is
 * the list of ranges to mend. The handler walks it without a lock: it counts itself in `walkers`, and who
 * takes a range off the list waits until nobody walks.
 */
#include "mem/guard.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

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
static struct mem_guard_range *_Atomic ranges; /* changed with install_lock held */
static atomic_uint walkers;

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

/* Puts a page of zeros where one has vanished, if it is one to be mended. */
static bool mend(uintptr_t addr)
{
	uintptr_t page = (uintptr_t)getpagesize();
	const struct mem_guard_range *r;
	int saved = errno;
	bool found = false;

	atomic_fetch_add(&walkers, 1);
	for (r = atomic_load(&ranges); r && !found; r = __atomic_load_n(&r->next, __ATOMIC_SEQ_CST))
		found = in_buffer(addr, r->start, r->length);
	if (found)
		found = mmap((void *)(addr & ~(page - 1)), page, PROT_READ | PROT_WRITE,
			     MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
	atomic_fetch_sub(&walkers, 1);
	errno = saved;
	return found;
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
	if (info->si_code > 0 && mend(addr))
		return;
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

int mem_guard_load(const _Atomic(uint64_t) *src, uint64_t *out)
{
	struct guard_frame f;

	if (!atomic_load_explicit(&installed, memory_order_relaxed)) {
		*out = atomic_load(src);
		return 0;
	}
	f.outer = innermost;
	f.dst = f.src = (uintptr_t)src;
	f.len = sizeof(*src);
	if (sigsetjmp(f.jump, 0)) {
		innermost = f.outer;
		return -EFAULT;
	}
	innermost = &f;
	atomic_signal_fence(memory_order_seq_cst);
	*out = atomic_load(src);
	atomic_signal_fence(memory_order_seq_cst);
	innermost = f.outer;
	return 0;
}

int mem_guard_swap(_Atomic(uint64_t) *dst, uint64_t old, uint64_t value, bool *done)
{
	struct guard_frame f;

	if (!atomic_load_explicit(&installed, memory_order_relaxed)) {
		*done = atomic_compare_exchange_strong(dst, &old, value);
		return 0;
	}
	f.outer = innermost;
	f.dst = f.src = (uintptr_t)dst;
	f.len = sizeof(*dst);
	if (sigsetjmp(f.jump, 0)) {
		innermost = f.outer;
		return -EFAULT;
	}
	innermost = &f;
	atomic_signal_fence(memory_order_seq_cst);
	*done = atomic_compare_exchange_strong(dst, &old, value);
	atomic_signal_fence(memory_order_seq_cst);
	innermost = f.outer;
	return 0;
}

void mem_guard_mend(struct mem_guard_range *range, void *addr, size_t length)
{
	range->start = (uintptr_t)addr;
	range->length = length;
	pthread_mutex_lock(&install_lock);
	range->next = atomic_load(&ranges);
	atomic_store(&ranges, range);
	pthread_mutex_unlock(&install_lock);
}

void mem_guard_forget(struct mem_guard_range *range)
{
	struct mem_guard_range *r;

	if (!range->length)
		return;
	pthread_mutex_lock(&install_lock);
	r = atomic_load(&ranges);
	if (r == range)
		atomic_store(&ranges, range->next);
	for (; r && r != range; r = r->next)
		if (r->next == range)
			__atomic_store_n(&r->next, range->next, __ATOMIC_SEQ_CST);
	while (atomic_load(&walkers))
		sched_yield();
	pthread_mutex_unlock(&install_lock);
	*range = (struct mem_guard_range){0};
}
