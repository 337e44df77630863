// SPDX-License-Identifier: MIT
/*
 * Which addresses are device memory.
 *
 * A device's region consists of areas (the supervisor tells which): pages that are really there, shared with the model,
 * and trapped ones. The whole is mapped from the device's file, as the program asked, but PROT_NONE; so the kernel
 * knows it as a mapping of that file, which keeps the device open, shows up in /proc and is inherited by fork. Then the pages that
 * are there get their rights. The rest faults, for ever, and trap.c looks the address up here.
 *
 * The table has an entry per stretch. It is changed under a lock with the sequence number odd, and read without
 * a lock, in signal handlers. What changes mappings without passing here (a plain system call) only makes it describe too much:
 * an address is looked up when it has faulted, and memory that is there does not fault.
 */
#include <linux/vfio.h>
#include <sys/mman.h>

#include "preload/state.h"

#define MAPPINGS_MAX 1024u

static struct mapping table[MAPPINGS_MAX];
static _Atomic uint32_t used; /* entries that were ever in use; those with end == 0 are free */

bool mapping_find(uintptr_t addr, struct mapping *out)
{
	struct preload_state *s;
	uint32_t before, n = used;
	bool found;

	if (!n)
		return false;
	s = preload_state();
	if (!s)
		return false;
	do {
		before = atomic_load_explicit(&s->sequence, memory_order_acquire);
		found = false;
		for (uint32_t i = 0; i < n && !found; i++) {
			if (addr < table[i].start || addr >= table[i].end)
				continue;
			*out = table[i];
			found = true;
		}
		atomic_thread_fence(memory_order_acquire);
	} while (before & 1 || before != atomic_load_explicit(&s->sequence, memory_order_relaxed));
	return found;
}

/* ---- changing the table ------------------------------------------------------------------------ */

static uint64_t begin(struct preload_state *s)
{
	uint64_t mask;

	state_lock(&s->lock, &mask);
	atomic_fetch_add_explicit(&s->sequence, 1, memory_order_acq_rel);
	return mask;
}

static void end(struct preload_state *s, uint64_t mask)
{
	atomic_fetch_add_explicit(&s->sequence, 1, memory_order_acq_rel);
	state_unlock(&s->lock, mask);
}

static bool add_locked(const struct mapping *m)
{
	for (uint32_t i = 0; i < MAPPINGS_MAX; i++) {
		if (table[i].end)
			continue;
		table[i] = *m;
		if (i >= used)
			used = i + 1;
		return true;
	}
	return false;
}

static bool overlaps(const struct mapping *m, uintptr_t start, uintptr_t stop)
{
	return m->end && m->start < stop && m->end > start;
}

/* The part of *m from `start` on. */
static struct mapping tail_of(const struct mapping *m, uintptr_t start)
{
	struct mapping t = *m;

	t.position += start - m->start;
	t.start = start;
	return t;
}

/* Makes an entry begin or end at `at` if one lies across it. The table may be full: then it does not. */
static void cut_locked(uintptr_t at)
{
	for (uint32_t i = 0; i < used; i++) {
		struct mapping t;

		if (!table[i].end || table[i].start >= at || table[i].end <= at)
			continue;
		t = tail_of(&table[i], at);
		if (add_locked(&t))
			table[i].end = at;
	}
}

static void forget_locked(uintptr_t start, uintptr_t stop)
{
	cut_locked(start);
	cut_locked(stop);
	for (uint32_t i = 0; i < used; i++)
		if (overlaps(&table[i], start, stop) && table[i].start >= start)
			table[i].end = 0;
}

/* Whether anything of ours is in the range: mostly not, and then nothing needs to be done. */
static bool any_in(uintptr_t start, uintptr_t stop)
{
	uint32_t n = used;

	for (uint32_t i = 0; i < n; i++)
		if (overlaps(&table[i], start, stop))
			return true;
	return false;
}

static void forget(uintptr_t start, uintptr_t stop)
{
	struct preload_state *s;
	uint64_t mask;

	if (!any_in(start, stop))
		return;
	s = preload_state();
	if (!s)
		return;
	mask = begin(s);
	forget_locked(start, stop);
	end(s, mask);
}

static uintptr_t page_end(uint64_t addr, uint64_t length)
{
	return (addr + length + PRELOAD_PAGE - 1) & ~(PRELOAD_PAGE - 1);
}

/* ---- mapping a device -------------------------------------------------------------------------- */

static long plain_mmap(uint64_t addr, uint64_t length, int prot, int flags, int fd, uint64_t offset)
{
	long rc = SYS6(SYS_mmap, addr, length, prot, flags, fast_fd(fd), offset);

	if ((rc >= 0 || rc < -4095) && flags & (MAP_FIXED | MAP_FIXED_NOREPLACE))
		forget(rc, page_end(rc, length));
	return rc;
}

static long area_at(int fd, uint64_t offset, struct helper_area *area)
{
	*area = (struct helper_area){.offset = offset, .fd = -1};
	return SYS3(SYS_ioctl, fast_fd(fd), HELPER_CALL_AREA, area);
}

/* Gives one area of a new PROT_NONE mapping what it is to be. 0 or a negative errno. */
static long place_area(struct mapping *m, const struct helper_area *area)
{
	uint64_t length = m->end - m->start;
	long rc;

	m->trapped = area->trapped;
	if (area->trapped)
		return 0;
	if (area->fd < 0)
		return SYS3(SYS_mprotect, m->start, length, m->prot);
	rc = SYS6(SYS_mmap, m->start, length, m->prot, MAP_SHARED | MAP_FIXED, area->fd,
		  area->fd_offset);
	SYS3(SYS_close, area->fd, 0, 0);
	return rc >= 0 || rc < -4095 ? 0 : rc;
}

/* Places all areas of [addr, addr+length), which has just been mapped and is nobody else's yet. */
static long place_areas(struct preload_state *s, const struct mapping *whole, int fd)
{
	struct helper_area area;
	long rc = 0;

	for (uintptr_t at = whole->start; at < whole->end && !rc;) {
		struct mapping m = tail_of(whole, at);
		uint64_t mask;

		rc = area_at(fd, m.position, &area);
		if (rc)
			return rc;
		area.length = (area.length + PRELOAD_PAGE - 1) & ~(PRELOAD_PAGE - 1);
		if (!area.length)
			return -EINVAL;
		if (area.length < m.end - at)
			m.end = at + area.length;
		rc = place_area(&m, &area);
		if (rc)
			return rc;
		mask = begin(s);
		if (!add_locked(&m))
			rc = -ENOMEM;
		end(s, mask);
		at = m.end;
	}
	return rc;
}

static long map_device(uint64_t addr, uint64_t length, int prot, int flags, int fd, uint64_t offset)
{
	struct preload_state *s = preload_state();
	struct helper_token token;
	struct mapping whole;
	long p, rc;

	if (!s)
		return -ENOMEM;
	rc = fast_token(fd, &token);
	if (rc)
		return rc;
	trap_install();
	p = plain_mmap(addr, length, PROT_NONE, flags & ~(MAP_POPULATE | MAP_LOCKED), fd, offset);
	if (p < 0 && p >= -4095)
		return p;
	whole = (struct mapping){.start = p,
				 .end = page_end(p, length),
				 .token = token.token,
				 .secret = token.secret,
				 .position = offset,
				 .prot = prot};
	rc = place_areas(s, &whole, fd);
	if (!rc)
		return p;
	forget(whole.start, whole.end);
	SYS3(SYS_munmap, whole.start, whole.end - whole.start, 0);
	return rc;
}

long mapping_mmap(uint64_t addr, uint64_t length, int prot, int flags, int fd, uint64_t offset)
{
	int type = flags & MAP_TYPE;
	struct helper_area area;

	if (flags & MAP_ANONYMOUS || fd < 0 || (type != MAP_SHARED && type != MAP_SHARED_VALIDATE))
		return plain_mmap(addr, length, prot, flags, fd, offset);
	/* Not a device, or not to be mapped there: the kernel says what is wrong. */
	if (area_at(fd, offset, &area))
		return plain_mmap(addr, length, prot, flags, fd, offset);
	if (area.fd >= 0)
		SYS3(SYS_close, area.fd, 0, 0);
	return map_device(addr, length, prot, flags, fd, offset);
}

/* ---- and what programs do with mappings -------------------------------------------------------- */

long mapping_munmap(uint64_t addr, uint64_t length)
{
	long rc = SYS3(SYS_munmap, addr, length, 0);

	if (!rc)
		forget(addr, page_end(addr, length));
	return rc;
}

static void move_locked(uintptr_t from, uintptr_t stop, uintptr_t to)
{
	cut_locked(from);
	cut_locked(stop);
	for (uint32_t i = 0; i < used; i++) {
		if (!overlaps(&table[i], from, stop) || table[i].start < from)
			continue;
		table[i].start = table[i].start - from + to;
		table[i].end = table[i].end - from + to;
	}
}

long mapping_mremap(uint64_t addr, uint64_t old_length, uint64_t new_length, int flags,
		    uint64_t new_addr)
{
	uintptr_t stop = page_end(addr, old_length), kept;
	struct preload_state *s;
	uint64_t mask;
	long rc;

	/* What a device region has beyond its end is not mapped by making a mapping longer. */
	if (old_length && page_end(addr, new_length) > stop && any_in(addr, stop))
		return -EINVAL;
	rc = SYS6(SYS_mremap, addr, old_length, new_length, flags, new_addr, 0);
	if (rc < 0 && rc >= -4095)
		return rc;
	if (flags & MREMAP_FIXED)
		forget(rc, page_end(rc, new_length));
	if (!any_in(addr, stop))
		return rc;
	s = preload_state();
	if (!s)
		return rc;
	mask = begin(s);
	kept = page_end(addr, new_length);
	if (kept < stop)
		forget_locked(kept, stop);
	if ((uintptr_t)rc != addr)
		move_locked(addr, kept < stop ? kept : stop, rc);
	end(s, mask);
	return rc;
}

/* The rights of trapped pages are a matter of ours: for the kernel they stay out of reach. */
long mapping_mprotect(uint64_t addr, uint64_t length, int prot)
{
	uintptr_t stop = page_end(addr, length), at = addr;
	struct preload_state *s;
	uint64_t mask;
	long rc = 0;

	if (!any_in(addr, stop) || addr & (PRELOAD_PAGE - 1))
		return SYS3(SYS_mprotect, addr, length, prot);
	s = preload_state();
	if (!s)
		return -ENOMEM;
	mask = begin(s);
	cut_locked(addr);
	cut_locked(stop);
	while (at < stop && !rc) {
		struct mapping *next = NULL;
		uintptr_t upto;

		/* The first trapped stretch from here on. */
		for (uint32_t i = 0; i < used; i++)
			if (table[i].trapped && overlaps(&table[i], at, stop) &&
			    (!next || table[i].start < next->start))
				next = &table[i];
		upto = next ? next->start : stop;
		if (upto > at)
			rc = SYS3(SYS_mprotect, at, upto - at, prot);
		if (next && !rc)
			next->prot = prot;
		at = next ? next->end : stop;
	}
	end(s, mask);
	return rc;
}

long mapping_madvise(uint64_t addr, uint64_t length, int advice)
{
	/* Fork behaviour matters; huge pages and the like do not apply to device memory. */
	if (advice == MADV_DONTFORK || advice == MADV_DOFORK ||
	    !any_in(addr, page_end(addr, length)))
		return SYS3(SYS_madvise, addr, length, advice);
	return 0;
}
