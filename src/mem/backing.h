/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_MEM_BACKING_H
#define SWIOMMU_MEM_BACKING_H

/*
 * A backing: the memory behind one MAP or MAP_FILE call, as a line of bytes 0..length-1 of one
 * owner (spec core.md 5.1, "page array"). Counted: the area that made it and every COPY of it.
 *
 * Its pages count from the one that holds backing_addr(). Whoever needs some of them (an area under
 * a domain, an access) pins an interval of them; a page is pinned, once, as long as some interval
 * holds it. Pinning is when the memory is looked at: it must be there with the wanted rights, and
 * where it can be, a window makes it directly addressable. Before that nothing is known of it, and
 * after the last unpin it is forgotten again, so that a later pin sees what the owner has at those
 * addresses by then.
 */

#include "mem/owner.h"

struct backing; /* immutable but for what is pinned */

/*
 * `length` bytes of `owner` from address `addr`; takes its own reference on the owner.
 * payer: who is charged for pinned pages; copied. NULL: nobody, and the pages are in no registry.
 * write_intent: the mapping call asked for W, so every pin demands writability (spec core.md 5.2).
 * -ENOMEM.
 */
int backing_create(struct mem_owner *owner, const struct mem_payer *payer, uint64_t addr,
		   uint64_t length, bool write_intent, struct backing **out);
struct backing *backing_get(struct backing *b);
void backing_put(struct backing *b);

uint64_t backing_addr(const struct backing *b);
uint64_t backing_length(const struct backing *b);
bool backing_write_intent(const struct backing *b);
struct mem_owner *backing_owner(const struct backing *b);
/* The number of pages, and the one that byte `offset` lies in. */
uint64_t backing_nr_pages(const struct backing *b);
uint64_t backing_page_of(const struct backing *b, uint64_t offset);

/*
 * Pins the pages that bytes [offset, offset+len) touch (len not 0, inside the backing). Intervals
 * overlap and nest freely. Pages that nobody had pinned are looked up (may block, serialised per
 * backing) and charged, and fail with -EFAULT, -EINVAL or -ENOMEM and a reason; then nothing is left
 * behind. A page is uncharged when the last interval over it goes.
 * Pages that are pinned already are only counted, which fails with nothing but -ENOMEM and does not
 * block.
 *
 * Undone by backing_unpin() of an interval of exactly the same pages, which cannot fail; the caller
 * has made sure that no DMA uses backing_host() any more. An interval that is not pinned is left
 * alone where that can be told.
 */
int backing_pin(struct backing *b, uint64_t offset, uint64_t len, struct swi_reason *why);
void backing_unpin(struct backing *b, uint64_t offset, uint64_t len);

struct phys_space;

/*
 * Gives the backing physical addresses (mem/phys.h), if it has none, which it keeps. Always the same space.
 * -ENOMEM.
 */
int backing_place(struct backing *b, struct phys_space *space);
/* The physical address of byte `offset`, 0 when it has not been placed; and back. Any thread, no lock. */
phys_t backing_phys(const struct backing *b, uint64_t offset);
uint64_t backing_offset_of(const struct backing *b, phys_t pa);

/*
 * Where this process can address bytes [offset, offset+len), all of which the caller has pinned;
 * valid until it unpins. Takes no lock when the whole backing is pinned and lies in one piece. NULL: not as one piece, use backing_read/write. Untrusted owners: copy
 * with mem_guard_copy(), and write only if the backing has write intent.
 */
void *backing_host(struct backing *b, uint64_t offset, uint64_t len);

/*
 * Moves bytes [offset, offset+len), which the caller has checked against the length. Pinned pages
 * through their window or with pinned rights, the others with the owner's rights of this moment. An
 * unpin meanwhile is waited for by nobody: the window stays until the copy is done. Permission bits
 * of areas are the caller's matter, write intent is too (a window without it cannot be written). 0
 * or -EFAULT (some bytes may have moved), -EINVAL (file).
 */
int backing_read(struct backing *b, uint64_t offset, void *buf, size_t len);
int backing_write(struct backing *b, uint64_t offset, const void *buf, size_t len);

/*
 * As above, but pages that are not pinned are pinned for the time of the copy, that is with the
 * rights that a pin demands, uncharged: what a device that goes through the page array sees (the
 * slow way of spec core.md 6.6). dir: SWI_READ or SWI_WRITE, one of them.
 */
int backing_move_slow(struct backing *b, uint64_t offset, void *buf, size_t len, unsigned dir);

/*
 * The file behind the stretch of pinned memory at `offset`, at most `len` bytes: see mem_owner_ops.open_file.
 */
void backing_open_file(struct backing *b, uint64_t offset, uint64_t len, unsigned prot,
		       struct mem_file *out);
/*
 * What page `page` of the backing is pinned as. -ENOENT: it is not pinned, or its identity is not
 * known (a range of very many mappings).
 */
int backing_page_key(struct backing *b, uint64_t page, struct page_key *key);
/*
 * How large the pages of the memory are that bytes [offset, offset+len) lie in, all pinned: 2 MiB if all are at least that
 * (hugetlb), else 4 KiB, also where it is not known.
 */
uint64_t backing_page_size(struct backing *b, uint64_t offset, uint64_t len);
/*
 * How often the page is pinned at this moment, counting each page of each backing whose payer
 * belongs to `a`. Takes time with all that is pinned. Negative: -ENOMEM.
 */
long mem_registry_count(struct mem_accounts *a, const struct page_key *key);

/*
 * Moving the charge to another payer (spec core.md 4.6), for many backings at once: between
 * mem_accounts_block() and unblock, backing_charge_prepare() for each adds what has to be charged
 * to the bill; then, after the bill has been charged to `to`, backing_charge_move() for each, or
 * else backing_charge_cancel(). A backing may be met several times and counts once. None can fail.
 */
void backing_charge_prepare(struct backing *b, const struct mem_payer *to, struct mem_bill *bill);
void backing_charge_move(struct backing *b, const struct mem_payer *to);
void backing_charge_cancel(struct backing *b);

#endif
