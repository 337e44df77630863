// SPDX-License-Identifier: MIT
/*
 * Memory accesses on behalf of an instruction. What is trapped becomes a register access of the device, in one piece as
 * far as it goes; the supervisor splits it as hardware would. Everything else is memory like any other, and a fault there
 * is the program's.
 */
#include "preload/preload.h"

#include <sys/mman.h>

static bool allowed(const struct mapping *m, bool write)
{
	/* On the hardware that this runs on, who may write or execute may read. */
	return write ? m->prot & PROT_WRITE : m->prot != PROT_NONE;
}

static int plain(uintptr_t addr, void *buf, size_t length, bool write, struct trap_fault *fault)
{
	size_t left = write ? guarded_copy((void *)addr, buf, length)
			    : guarded_copy(buf, (void *)addr, length);

	if (!left)
		return 0;
	*fault = (struct trap_fault){SIGSEGV, SEGV_MAPERR, addr + length - left};
	return -1;
}

static int move(uintptr_t addr, uint8_t *buf, size_t length, bool write, struct trap_fault *fault)
{
	struct mapping m;

	while (length) {
		bool trapped = mapping_find(addr, &m) && m.trapped;
		size_t n = trapped ? m.end - addr : PRELOAD_PAGE - addr % PRELOAD_PAGE;

		n = n < length ? n : length;
		if (!trapped) {
			if (plain(addr, buf, n, write, fault))
				return -1;
		} else if (!allowed(&m, write)) {
			*fault = (struct trap_fault){SIGSEGV, SEGV_ACCERR, addr};
			return -1;
		} else {
			n = n < HELPER_ACCESS_MAX ? n : HELPER_ACCESS_MAX;
			if (fast_access(m.token, m.secret, m.position + (addr - m.start), buf, n,
					write)) {
				/* As on hardware with memory decoding off. */
				*fault = (struct trap_fault){SIGBUS, BUS_ADRERR, addr};
				return -1;
			}
		}
		addr += n;
		buf += n;
		length -= n;
	}
	return 0;
}

int access_read(uintptr_t addr, void *buf, size_t length, struct trap_fault *fault)
{
	return move(addr, buf, length, false, fault);
}

int access_write(uintptr_t addr, const void *buf, size_t length, struct trap_fault *fault)
{
	return move(addr, (uint8_t *)(uintptr_t)buf, length, true, fault);
}
