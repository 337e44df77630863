/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_MEM_BACKING_H
#define SWIOMMU_MEM_BACKING_H

/*
 * A backing: the memory behind one MAP or MAP_FILE call, as a line of bytes 0..length-1 of one
 * owner (spec core.md 5.1, "page array"). Counted: the area that made it and every COPY of it.
 *
 * A backing is pinned while at least one domain maps it, once however many do. Pinning is when the
 * memory is looked at: it must be there with the wanted rights, and where it can be, a window makes
 * it directly addressable. Before that nothing is known of it, and after the last unpin it is
 * forgotten again, so that a later pin sees what the owner has at those addresses by then.
 */

#include "mem/owner.h"

struct backing; /* immutable but for the pin state */

/*
 * `length` bytes of `owner` from address `addr`; takes its own reference on the owner.
 * write_intent: the mapping call asked for W, so every pin demands writability (spec core.md 5.2).
 * -ENOMEM.
 */
int backing_create(struct mem_owner *owner, uint64_t addr, uint64_t length, bool write_intent,
		   struct backing **out);
struct backing *backing_get(struct backing *b);
void backing_put(struct backing *b);

uint64_t backing_addr(const struct backing *b);
uint64_t backing_length(const struct backing *b);
bool backing_write_intent(const struct backing *b);
struct mem_owner *backing_owner(const struct backing *b);

/*
 * One more holder. The first one looks the memory up (may block, serialised per backing) and fails
 * with -EFAULT, -EINVAL or -ENOMEM and a reason, leaving nothing behind. Undone by backing_unpin(),
 * which cannot fail; the caller has made sure that no DMA uses backing_host() any more.
 */
int backing_pin(struct backing *b, struct swi_reason *why);
void backing_unpin(struct backing *b);

/*
 * The window's address of byte 0 while pinned; NULL: not addressable, use backing_read/write. Takes
 * no lock; the caller holds a pin, or knows one that cannot go meanwhile. Untrusted owners: copy
 * with mem_guard_copy(), and write only if the backing has write intent.
 */
void *backing_host(const struct backing *b);

/*
 * Moves bytes [offset, offset+len), which the caller has checked against the length. While pinned
 * through the window or with pinned rights, else with the owner's rights of this moment. An unpin
 * meanwhile is waited for by nobody: the window stays until the copy is done. Permission bits of
 * areas are the caller's matter, write intent is too (a window without it cannot be written). 0 or
 * -EFAULT (some bytes may have moved), -EINVAL (file).
 */
int backing_read(struct backing *b, uint64_t offset, void *buf, size_t len);
int backing_write(struct backing *b, uint64_t offset, const void *buf, size_t len);

#endif
