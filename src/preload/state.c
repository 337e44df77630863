// SPDX-License-Identifier: MIT
/* The state of this address space, made on first use. */
#include "preload/state.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>

static struct preload_state *_Atomic state;

struct preload_state *preload_state(void)
{
	struct preload_state *s = state, *none = NULL;
	long page;

	if (s)
		return s;
	page = SYS6(SYS_mmap, 0, PRELOAD_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
	if (page < 0)
		return NULL;
	if (SYS3(SYS_madvise, page, PRELOAD_PAGE, MADV_WIPEONFORK)) {
		SYS3(SYS_munmap, page, PRELOAD_PAGE, 0);
		return NULL;
	}
	if (atomic_compare_exchange_strong_explicit(&state, &none, (struct preload_state *)page,
						    memory_order_seq_cst, memory_order_seq_cst))
		return (struct preload_state *)page;
	SYS3(SYS_munmap, page, PRELOAD_PAGE, 0); /* another thread was first */
	return none;
}

void state_lock(_Atomic uint32_t *lock, uint64_t *old_mask)
{
	uint64_t all = ~(1ull << (SIGSEGV - 1) | 1ull << (SIGBUS - 1) | 1ull << (SIGTRAP - 1));

	SYS4(SYS_rt_sigprocmask, SIG_BLOCK, &all, old_mask, 8);
	while (atomic_exchange_explicit(lock, 1, memory_order_acquire))
		SYS3(SYS_sched_yield, 0, 0, 0);
}

void state_unlock(_Atomic uint32_t *lock, uint64_t old_mask)
{
	atomic_store_explicit(lock, 0, memory_order_release);
	SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &old_mask, 0, 8);
}
