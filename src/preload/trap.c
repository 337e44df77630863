// SPDX-License-Identifier: MIT
/*
 * SIGSEGV. The handler is installed when the first device is mapped or the first ring made, not before. From then on the
 * program's own disposition lives here: it sets and reads it as ever (sigaction() and its relatives are ours), and
 * faults that do not concern us go to it as if the kernel had delivered them.
 *
 * A fault concerns us if it is in memory that is being converted, in one of our guarded copies, or at a trapped
 * address. An instruction that we do not know is printed and ends the program the way a fault does.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "preload/state.h"

/* struct sigaction as the kernel has it. */
struct kernel_action {
	void (*handler)(int, siginfo_t *, void *);
	unsigned long flags;
#if defined(__x86_64__)
	void (*restorer)(void);
#endif
	uint64_t mask;
};

#ifndef SA_RESTORER
#define SA_RESTORER 0x04000000
#endif

static struct kernel_action theirs;
static _Atomic bool installed;
static _Atomic uint32_t action_lock;

void guarded_restore(void);

static void set_kernel(const struct kernel_action *act, struct kernel_action *old)
{
	SYS4(SYS_rt_sigaction, SIGSEGV, act, old, 8);
}

static struct kernel_action take_theirs(void)
{
	struct kernel_action a;
	uint64_t mask;

	state_lock(&action_lock, &mask);
	a = theirs;
	if (a.flags & SA_RESETHAND)
		theirs.handler = (void *)SIG_DFL;
	state_unlock(&action_lock, mask);
	return a;
}

/* ---- passing on -------------------------------------------------------------------------------- */

/* Ends the program as the fault would have: by the default action, at the instruction. */
static void default_action(const siginfo_t *info)
{
	struct kernel_action dfl = {.handler = (void *)SIG_DFL};

	set_kernel(&dfl, NULL);
	/* A fault happens again as soon as we return; a signal that somebody sent does not. */
	if (info->si_code <= 0)
		SYS3(SYS_tgkill, SYS3(SYS_getpid, 0, 0, 0), SYS3(SYS_gettid, 0, 0, 0), SIGSEGV);
}

static void pass_on(siginfo_t *info, void *context)
{
	struct kernel_action a = take_theirs();
	uint64_t mask = a.mask & ~(1ull << (SIGSEGV - 1));

	if (a.handler == (void *)SIG_IGN && info->si_code <= 0)
		return;
	if (a.handler == (void *)SIG_DFL || a.handler == (void *)SIG_IGN) {
		default_action(info);
		return;
	}
	/* The mask from before comes back when our handler returns. */
	SYS4(SYS_rt_sigprocmask, SIG_BLOCK, &mask, 0, 8);
	a.handler(SIGSEGV, info, context);
}

/* A bus error at this instruction, delivered by the kernel when we return. */
static void raise_bus_error(const struct trap_fault *fault, ucontext_t *uc)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	info.si_signo = SIGBUS;
	info.si_code = fault->code;
	info.si_addr = (void *)fault->addr;
	sigdelset(&uc->uc_sigmask, SIGBUS); /* one that is blocked would end it, too */
	SYS4(SYS_rt_tgsigqueueinfo, SYS3(SYS_getpid, 0, 0, 0), SYS3(SYS_gettid, 0, 0, 0), SIGBUS,
	     &info);
}

/* ---- what cannot be carried out ---------------------------------------------------------------- */

static void say(const char *text, size_t length)
{
	SYS3(SYS_write, STDERR_FILENO, text, length);
}

static char *put_hex(char *at, uint64_t value, unsigned int digits)
{
	while (digits--)
		*at++ = "0123456789abcdef"[value >> 4 * digits & 15];
	return at;
}

static char *put_text(char *at, const char *text)
{
	while (*text)
		*at++ = *text++;
	return at;
}

static void say_unknown(uintptr_t addr, uintptr_t pc)
{
	char line[192], *at = line;
	uint8_t code[HELPER_CODE_MAX];
	size_t known = sizeof(code) - guarded_copy(code, (void *)pc, sizeof(code));

	at = put_text(at, "swiommu: device registers at 0x");
	at = put_hex(at, addr, 12);
	at = put_text(at, ": the instruction at 0x");
	at = put_hex(at, pc, 12);
	at = put_text(at, " is not one that can be emulated:");
	for (size_t i = 0; i < known; i++) {
		*at++ = ' ';
		at = put_hex(at, code[i], 2);
	}
	*at++ = '\n';
	say(line, at - line);
}

static uintptr_t program_counter(const ucontext_t *uc)
{
#if defined(__x86_64__)
	return uc->uc_mcontext.gregs[REG_RIP];
#else
	return uc->uc_mcontext.pc;
#endif
}

/* ---- the handler ------------------------------------------------------------------------------- */

/* False: none of our business. */
static bool handle(siginfo_t *info, ucontext_t *uc)
{
	uintptr_t addr = (uintptr_t)info->si_addr;
	struct trap_fault fault;
	struct mapping m;

	if (convert_wait(addr) || guarded_fixup(uc))
		return true;
	if (!mapping_find(addr, &m) || !m.trapped)
		return false;
	switch (execute(uc, &fault)) {
	case EXECUTE_DONE:
		return true;
	case EXECUTE_UNKNOWN:
		say_unknown(addr, program_counter(uc));
		default_action(info);
		return true;
	default:
		if (fault.sig == SIGBUS) {
			raise_bus_error(&fault, uc);
			return true;
		}
		info->si_addr = (void *)fault.addr;
		info->si_code = fault.code;
		return false;
	}
}

static void on_segv(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	/* A signal that somebody sent has a code of 0 or less. */
	if (info->si_code <= 0 || !handle(info, context))
		pass_on(info, context);
}

void trap_install(void)
{
	struct kernel_action ours = {.handler = on_segv,
				     .flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART};
	uint64_t mask, segv = 1ull << (SIGSEGV - 1);

#if defined(__x86_64__)
	ours.flags |= SA_RESTORER;
	ours.restorer = guarded_restore;
#endif
	if (installed)
		return;
	state_lock(&action_lock, &mask);
	if (!installed) {
		set_kernel(&ours, &theirs);
		installed = true;
	}
	state_unlock(&action_lock, mask);
	SYS4(SYS_rt_sigprocmask, SIG_UNBLOCK, &segv, 0, 8);
}

bool trap_sigaction(const struct sigaction *act, struct sigaction *old)
{
	uint64_t mask;

	if (!installed)
		return false;
	state_lock(&action_lock, &mask);
	if (old) {
		memset(old, 0, sizeof(*old));
		old->sa_sigaction = theirs.handler;
		old->sa_flags = (int)(theirs.flags & ~(unsigned long)SA_RESTORER);
		memcpy(&old->sa_mask, &theirs.mask, sizeof(theirs.mask));
	}
	if (act) {
		theirs.handler = act->sa_sigaction;
		theirs.flags = (unsigned int)act->sa_flags;
		memcpy(&theirs.mask, &act->sa_mask, sizeof(theirs.mask));
	}
	state_unlock(&action_lock, mask);
	return true;
}
