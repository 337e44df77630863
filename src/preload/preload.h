/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_PRELOAD_PRELOAD_H
#define SWIOMMU_PRELOAD_PRELOAD_H

/*
 * The preload helper: the little of swiommu that lives in the program.
 *
 *   interpose.c  the functions that take the place of the C library's
 *   mapping.c    which addresses are device memory
 *   trap.c       SIGSEGV: ours first, the program's own behind it
 *   access.c     memory accesses on behalf of an instruction, device registers among them
 *   execute_x86.c  carrying out one instruction
 *   fast.c       the ring
 *   convert.c    private memory made shared
 *   guarded.S    copies that fail instead of faulting
 *
 * It is one shared library with no constructor that matters, no threads, no descriptors and no memory of the C library's:
 * everything works as soon as it is relocated, in any thread, in signal handlers, and in a child of fork or vfork.
 * Nothing here keeps state that a system call behind our back could make wrong, but for the table of mappings.
 */

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#include "preload/protocol.h"
#include "preload/sys.h"

#define PRELOAD_EXPORT __attribute__((visibility("default")))
#define PRELOAD_PAGE 4096ul

/* ---- fast.c ------------------------------------------------------------------------------------ */

/* The descriptor argument of a marked call. */
uint64_t fast_fd(int fd);
/*
 * The call as the kernel would answer it, by the ring or else by a system call. Async-signal-safe. 0 and more,
 * or a negative errno.
 */
long fast_ioctl(int fd, unsigned long command, uint64_t arg);
/* Whether the descriptor was last found to be a device. */
bool fast_is_device(int fd);
/* pread or pwrite of one. Bytes, or a negative errno. */
long fast_transfer(int fd, bool write, uint64_t buf, size_t count, uint64_t position);
/* One access to registers, `size` at most HELPER_ACCESS_MAX. 0 or a negative errno. */
int fast_access(uint64_t token, uint64_t secret, uint64_t position, void *data, unsigned int size,
		bool write);
/* Replaces the bytes by what the instruction does. 0 or a negative errno. */
int fast_decode(struct helper_insn *insn);
/* What an open file is called by. -ENOTTY: not one of ours. */
int fast_token(int fd, struct helper_token *out);

/* ---- guarded.S --------------------------------------------------------------------------------- */

/* Copies unless a page is missing: 0, or how many bytes were not copied. */
size_t guarded_copy(void *to, const void *from, size_t length);
/* Whether the byte can be written: writes it as it is. 0: yes. */
size_t guarded_touch(void *at);
/* If the fault was in one of them, makes it return. */
bool guarded_fixup(ucontext_t *uc);

/* ---- mapping.c --------------------------------------------------------------------------------- */

struct mapping {
	uintptr_t start, end;
	uint64_t token, secret;
	uint64_t position; /* file position of `start` */
	int prot;	   /* as the program wants it */
	bool trapped;
};

/* The mapping at an address, copied; async-signal-safe. */
bool mapping_find(uintptr_t addr, struct mapping *out);
/* As the system calls, for all mappings; they keep the table. Negative errno. */
long mapping_mmap(uint64_t addr, uint64_t length, int prot, int flags, int fd, uint64_t offset);
long mapping_munmap(uint64_t addr, uint64_t length);
long mapping_mremap(uint64_t addr, uint64_t old_length, uint64_t new_length, int flags,
		    uint64_t new_addr);
long mapping_mprotect(uint64_t addr, uint64_t length, int prot);
long mapping_madvise(uint64_t addr, uint64_t length, int advice);

/* ---- trap.c ------------------------------------------------------------------------------------ */

/* Our handler is there from now on. Idempotent. */
void trap_install(void);
/* sigaction() of SIGSEGV once it is; false: the kernel is to be asked. */
bool trap_sigaction(const struct sigaction *act, struct sigaction *old);

/* ---- access.c, execute_x86.c ------------------------------------------------------------------- */

/* Why an instruction could not be carried out. */
struct trap_fault {
	int sig; /* SIGSEGV or SIGBUS */
	int code;
	uintptr_t addr;
};

/* Bytes of memory, device registers or not. 0, or -1 with *fault. */
int access_read(uintptr_t addr, void *buf, size_t length, struct trap_fault *fault);
int access_write(uintptr_t addr, const void *buf, size_t length, struct trap_fault *fault);

enum execute_result {
	EXECUTE_DONE,	 /* registers are as after it */
	EXECUTE_FAULT,	 /* an access failed: registers are as before */
	EXECUTE_UNKNOWN, /* not an instruction that we know; nothing has happened */
};
/* The instruction at the context's instruction pointer. */
enum execute_result execute(ucontext_t *uc, struct trap_fault *fault);

/* ---- convert.c --------------------------------------------------------------------------------- */

/* Makes private anonymous memory in the range shared, where that can be done; contents stay. */
void convert_range(uintptr_t addr, size_t length);
/* A fault at an address being converted: waits until that is over. False: it is not. */
bool convert_wait(uintptr_t addr);

/* fork(), `library` being the C library's: the child gets memory of its own. */
pid_t convert_fork(pid_t (*library)(void));

#endif
