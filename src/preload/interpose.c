// SPDX-License-Identifier: MIT
/*
 * The functions that take the place of the C library's. Each decides quickly whether it is about us; what is not goes on as
 * it would have. They leave errno alone unless they fail.
 *
 * Most make the system call themselves, for the library does no more (and some are called before anything is initialised).
 * Those where it does more, because a thread can be cancelled in them or signals of its own are protected, are looked up and called.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include "preload/preload.h"

/* Absent where it lies in a library of its own that the program has not loaded. */
extern __typeof__(dlsym) dlsym __attribute__((weak));

static void *library_function(void *_Atomic *cache, const char *name)
{
	void *f = *cache;

	if (!f && dlsym)
		*cache = f = dlsym(RTLD_NEXT, name);
	return f;
}

/* They are looked up at start, so that none is by a signal handler; a call that comes earlier looks up its own. */
#define COMMON(F)                                                                    \
	F(pread)                                                                     \
	F(pread64)                                                                   \
	F(pwrite) F(pwrite64) F(__pread_chk) F(__pread64_chk) F(sigaction) F(signal) \
		F(sigprocmask) F(pthread_sigmask) F(fork)
#define RARE(F) F(bsd_signal) F(ssignal) F(sysv_signal) F(__sysv_signal)

/* As compiled with _FORTIFY_SOURCE; and names that headers do not have any more. */
ssize_t __pread_chk(int fd, void *buf, size_t count, off_t offset, size_t room);
ssize_t __pread64_chk(int fd, void *buf, size_t count, off_t offset, size_t room);
sighandler_t __sysv_signal(int sig, sighandler_t handler);
sighandler_t bsd_signal(int sig, sighandler_t handler);

#define CACHE(name) static void *_Atomic library_##name;
COMMON(CACHE)
RARE(CACHE)

#define LIBRARY(name) ((__typeof__(&name))(uintptr_t)library_function(&library_##name, #name))

/* ---- devices ----------------------------------------------------------------------------------- */

PRELOAD_EXPORT int ioctl(int fd, unsigned long command, ...)
{
	uint64_t arg;
	va_list ap;

	va_start(ap, command);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	if ((command & 0xff00) != 0x3b00)
		return (int)sys_return(SYS3(SYS_ioctl, fd, command, arg));
	return (int)sys_return(fast_ioctl(fd, command, arg));
}

#define TRANSFER(name, writes, pointer, number)                                            \
	PRELOAD_EXPORT ssize_t name(int fd, pointer buf, size_t count, off_t offset)       \
	{                                                                                  \
		__typeof__(&name) library;                                                 \
		long rc;                                                                   \
                                                                                           \
		if (fast_is_device(fd))                                                    \
			return sys_return(                                                 \
				fast_transfer(fd, writes, (uintptr_t)buf, count, offset)); \
		library = LIBRARY(name);                                                   \
		if (library)                                                               \
			return library(fd, buf, count, offset);                            \
		rc = SYS4(number, fd, buf, count, offset);                                 \
		return sys_return(rc);                                                     \
	}

TRANSFER(pread, false, void *, SYS_pread64)
TRANSFER(pread64, false, void *, SYS_pread64)
TRANSFER(pwrite, true, const void *, SYS_pwrite64)
TRANSFER(pwrite64, true, const void *, SYS_pwrite64)

#define TRANSFER_CHECKED(name, plain)                                                           \
	PRELOAD_EXPORT ssize_t name(int fd, void *buf, size_t count, off_t offset, size_t room) \
	{                                                                                       \
		__typeof__(&name) library;                                                      \
                                                                                                \
		if (count <= room && fast_is_device(fd))                                        \
			return plain(fd, buf, count, offset);                                   \
		library = LIBRARY(name);                                                        \
		/* The check and its consequences are the library's. */                         \
		return library ? library(fd, buf, count, offset, room)                          \
			       : plain(fd, buf, count, offset);                                 \
	}

TRANSFER_CHECKED(__pread_chk, pread)
TRANSFER_CHECKED(__pread64_chk, pread64)

/* ---- memory ------------------------------------------------------------------------------------ */

PRELOAD_EXPORT void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	return (void *)sys_return(
		mapping_mmap((uintptr_t)addr, length, prot, flags, fd, (uint64_t)offset));
}

PRELOAD_EXPORT void *mmap64(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	return mmap(addr, length, prot, flags, fd, offset);
}

PRELOAD_EXPORT int munmap(void *addr, size_t length)
{
	return (int)sys_return(mapping_munmap((uintptr_t)addr, length));
}

PRELOAD_EXPORT void *mremap(void *addr, size_t old_length, size_t new_length, int flags, ...)
{
	uint64_t new_addr = 0;
	va_list ap;

	va_start(ap, flags);
	if (flags & (2 /* MREMAP_FIXED */ | 4 /* MREMAP_DONTUNMAP */))
		new_addr = va_arg(ap, unsigned long);
	va_end(ap);
	return (void *)sys_return(
		mapping_mremap((uintptr_t)addr, old_length, new_length, flags, new_addr));
}

PRELOAD_EXPORT int mprotect(void *addr, size_t length, int prot)
{
	return (int)sys_return(mapping_mprotect((uintptr_t)addr, length, prot));
}

PRELOAD_EXPORT int madvise(void *addr, size_t length, int advice)
{
	return (int)sys_return(mapping_madvise((uintptr_t)addr, length, advice));
}

static pid_t plain_fork(void)
{
	return (pid_t)sys_return(SYS6(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0));
}

PRELOAD_EXPORT pid_t fork(void)
{
	__typeof__(&fork) library = LIBRARY(fork);

	return convert_fork(library ? library : plain_fork);
}

/* ---- signals ----------------------------------------------------------------------------------- */

PRELOAD_EXPORT int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	__typeof__(&sigaction) library;
	struct sigaction changed;

	if (sig == SIGSEGV && trap_sigaction(act, old))
		return 0;
	if (act) {
		/* A handler may use a device. */
		changed = *act;
		sigdelset(&changed.sa_mask, SIGSEGV);
		act = &changed;
	}
	library = LIBRARY(sigaction);
	if (library)
		return library(sig, act, old);
	errno = ENOSYS;
	return -1;
}

static bool own_signal(int sig, sighandler_t handler, int flags, sighandler_t *old_handler)
{
	struct sigaction act = {.sa_handler = handler, .sa_flags = flags}, old;

	if (sig != SIGSEGV || handler == SIG_ERR || !trap_sigaction(&act, &old))
		return false;
	*old_handler = old.sa_handler;
	return true;
}

#define SIGNAL(name, flags)                                             \
	PRELOAD_EXPORT sighandler_t name(int sig, sighandler_t handler) \
	{                                                               \
		__typeof__(&name) library;                              \
		sighandler_t old;                                       \
                                                                        \
		if (own_signal(sig, handler, flags, &old))              \
			return old;                                     \
		library = LIBRARY(name);                                \
		return library ? library(sig, handler) : SIG_ERR;       \
	}

SIGNAL(signal, SA_RESTART)
SIGNAL(bsd_signal, SA_RESTART)
SIGNAL(ssignal, SA_RESTART)
SIGNAL(sysv_signal, (int)(SA_RESETHAND | SA_NODEFER))
SIGNAL(__sysv_signal, (int)(SA_RESETHAND | SA_NODEFER))

/* A set that may be blocked. */
static const sigset_t *without_segv(int how, const sigset_t *set, sigset_t *copy)
{
	if (!set || how == SIG_UNBLOCK || !sigismember(set, SIGSEGV))
		return set;
	*copy = *set;
	sigdelset(copy, SIGSEGV);
	return copy;
}

#define MASK(name, failure)                                                  \
	PRELOAD_EXPORT int name(int how, const sigset_t *set, sigset_t *old) \
	{                                                                    \
		__typeof__(&name) library = LIBRARY(name);                   \
		sigset_t copy;                                               \
		long rc;                                                     \
                                                                             \
		set = without_segv(how, set, &copy);                         \
		if (library)                                                 \
			return library(how, set, old);                       \
		rc = SYS4(SYS_rt_sigprocmask, how, set, old, 8);             \
		return failure;                                              \
	}

MASK(sigprocmask, (int)sys_return(rc))
MASK(pthread_sigmask, (int)-rc)

__attribute__((constructor)) static void begin(void)
{
	uint64_t segv = 1ull << (SIGSEGV - 1);

#define LOOK_UP(name) (void)LIBRARY(name);
	COMMON(LOOK_UP)
	/* It may have been inherited blocked. */
	SYS4(SYS_rt_sigprocmask, SIG_UNBLOCK, &segv, 0, 8);
}

/* ---- by number --------------------------------------------------------------------------------- */

PRELOAD_EXPORT long syscall(long number, ...)
{
	uint64_t a[6];
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, unsigned long);
	va_end(ap);
	switch (number) {
	case SYS_ioctl:
		return ioctl((int)a[0], a[1], a[2]);
	case SYS_mmap:
		return sys_return(mapping_mmap(a[0], a[1], (int)a[2], (int)a[3], (int)a[4], a[5]));
	case SYS_munmap:
		return sys_return(mapping_munmap(a[0], a[1]));
	case SYS_mremap:
		return sys_return(mapping_mremap(a[0], a[1], a[2], (int)a[3], a[4]));
	case SYS_mprotect:
		return sys_return(mapping_mprotect(a[0], a[1], (int)a[2]));
	case SYS_madvise:
		return sys_return(mapping_madvise(a[0], a[1], (int)a[2]));
	default:
		return sys_return(SYS6(number, a[0], a[1], a[2], a[3], a[4], a[5]));
	}
}
