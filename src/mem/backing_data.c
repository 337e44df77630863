// SPDX-License-Identifier: MIT
/*
 * Backings, seen from those who use what is pinned: where the bytes are, moving them, which pages
 * they are, and who pays for them. How pages get pinned is in backing.c.
 */
#include "mem/backing_internal.h"

#include "base/alloc.h"
#include "mem/guard.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- reaching the bytes --------------------------------------------------------------------- */

char *backing_host_locked(struct backing *b, struct span s, uint64_t offset)
{
	struct run *run = backing_run_at(b, s.first);
	char *host = NULL, *next;

	if (run->seg)
		host = segment_host(b, run->seg, offset);
	/* Different segments may still lie side by side in this process. */
	while (host && (run = run_next(run)) && run->page < s.end) {
		next = run->seg ? segment_host(b, run->seg, offset) : NULL;
		if (next != host)
			host = NULL;
	}
	return host;
}

void *backing_host(struct backing *b, uint64_t offset, uint64_t len)
{
	char *host = atomic_load_explicit(&b->host, memory_order_acquire);

	if (host)
		return host + offset;
	pthread_mutex_lock(&b->lock);
	host = backing_host_locked(b, span_of(b, offset, len), offset);
	pthread_mutex_unlock(&b->lock);
	return host;
}

/*
 * How the memory at `offset` is pinned, with a reference, NULL if it is not; and how many bytes, at
 * most `len`, go on the same way.
 */
static struct segment *stretch_at(struct backing *b, uint64_t offset, size_t len, size_t *stretch)
{
	struct span s = span_of(b, offset, len);
	struct segment *seg;
	struct run *run;
	uint64_t end;

	pthread_mutex_lock(&b->lock);
	run = backing_run_at(b, s.first);
	seg = run->seg;
	do
		end = run_end(b, run);
	while (end < s.end && (run = run_next(run)) && run->seg == seg);
	if (seg)
		atomic_fetch_add_explicit(&seg->refs, 1, memory_order_relaxed);
	pthread_mutex_unlock(&b->lock);
	if (end >= s.end)
		*stretch = len;
	else
		*stretch = (end << SWI_PAGE_SHIFT) - (b->addr & (SWI_PAGE_SIZE - 1)) - offset;
	return seg;
}

static int move_pinned(struct backing *b, struct segment *seg, uint64_t offset, void *buf,
		       size_t len, unsigned dir)
{
	const struct mem_owner_ops *ops = b->owner->ops;
	char *host = segment_host(b, seg, offset);

	if (host)
		return dir == SWI_WRITE ? mem_guard_copy(host, buf, len)
					: mem_guard_copy(buf, host, len);
	return dir == SWI_WRITE ? ops->write_pinned(b->owner, b->addr + offset, buf, len)
				: ops->read_pinned(b->owner, b->addr + offset, buf, len);
}

static int move_now(struct backing *b, uint64_t offset, void *buf, size_t len, unsigned dir)
{
	const struct mem_owner_ops *ops = b->owner->ops;

	return dir == SWI_WRITE ? ops->write(b->owner, b->addr + offset, buf, len)
				: ops->read(b->owner, b->addr + offset, buf, len);
}

static int move_transient(struct backing *b, uint64_t offset, void *buf, size_t len, unsigned dir)
{
	struct segment *seg;
	int ret = backing_segment_open(b, span_of(b, offset, len), &seg, NULL);

	if (ret)
		return ret;
	ret = move_pinned(b, seg, offset, buf, len, dir);
	backing_segment_put(seg);
	return ret;
}

static int move(struct backing *b, uint64_t offset, char *buf, size_t len, unsigned dir, bool slow)
{
	struct segment *seg;
	size_t n;
	int ret;

	for (; len; offset += n, buf += n, len -= n) {
		seg = stretch_at(b, offset, len, &n);
		if (seg) {
			ret = move_pinned(b, seg, offset, buf, n, dir);
			backing_segment_put(seg);
		} else if (slow) {
			ret = move_transient(b, offset, buf, n, dir);
		} else {
			ret = move_now(b, offset, buf, n, dir);
		}
		if (ret)
			return ret;
	}
	return 0;
}

int backing_read(struct backing *b, uint64_t offset, void *buf, size_t len)
{
	return move(b, offset, buf, len, SWI_READ, false);
}

int backing_write(struct backing *b, uint64_t offset, const void *buf, size_t len)
{
	return move(b, offset, (void *)(uintptr_t)buf, len, SWI_WRITE, false);
}

int backing_move_slow(struct backing *b, uint64_t offset, void *buf, size_t len, unsigned dir)
{
	return move(b, offset, buf, len, dir, true);
}

/* ---- files ----------------------------------------------------------------------------------- */

/* Whether the file is what the pinned page at `offset` was found in. What is not known is believed. */
static bool is_pinned_file(struct backing *b, uint64_t offset, const struct mem_file *f)
{
	struct page_key key;
	struct stat st;

	if (fstat(f->fd, &st))
		return false;
	if (backing_page_key(b, backing_page_of(b, offset), &key))
		return true;
	return !key.is_private && key.object == st.st_dev && key.inode == st.st_ino &&
	       key.index == f->offset >> SWI_PAGE_SHIFT;
}

void backing_open_file(struct backing *b, uint64_t offset, uint64_t len, unsigned prot,
		       struct mem_file *out)
{
	mem_owner_open_file(b->owner, b->addr + offset, len, prot, out);
	/* The program may have mapped something else at the same address since. */
	if (out->fd >= 0 && !is_pinned_file(b, offset, out)) {
		close(out->fd);
		out->fd = -1;
	}
}

/* ---- physical addresses --------------------------------------------------------------------- */

int backing_place(struct backing *b, struct phys_space *space)
{
	phys_t pa;
	int ret = 0;

	if (atomic_load_explicit(&b->phys, memory_order_acquire))
		return 0;
	pthread_mutex_lock(&b->lock);
	if (!b->space) {
		ret = phys_take(space, b, page_base(b), b->nr_pages << SWI_PAGE_SHIFT, &pa);
		if (!ret) {
			b->space = phys_space_get(space);
			atomic_store_explicit(&b->phys, pa, memory_order_release);
		}
	}
	pthread_mutex_unlock(&b->lock);
	return ret;
}

phys_t backing_phys(const struct backing *b, uint64_t offset)
{
	phys_t pa = atomic_load_explicit(&b->phys, memory_order_acquire);

	return pa ? pa + (b->addr & (SWI_PAGE_SIZE - 1)) + offset : 0;
}

uint64_t backing_offset_of(const struct backing *b, phys_t pa)
{
	return pa - atomic_load_explicit(&b->phys, memory_order_acquire) -
	       (b->addr & (SWI_PAGE_SIZE - 1));
}

/* ---- identity and charge -------------------------------------------------------------------- */

int backing_page_key(struct backing *b, uint64_t page, struct page_key *key)
{
	uint64_t space[2];
	struct run *run;
	int ret = -ENOENT;

	b->owner->ops->space(b->owner, space);
	pthread_mutex_lock(&b->lock);
	run = backing_run_at(b, page);
	if (run->seg && page < b->nr_pages)
		ret = mem_window_key(&run->seg->window, page_base(b) + (page << SWI_PAGE_SHIFT),
				     space, key);
	pthread_mutex_unlock(&b->lock);
	return ret;
}

/* Whether all memory of [addr, last] in a window is known to be of huge pages. */
static bool window_is_huge(const struct mem_window *win, uint64_t addr, uint64_t last)
{
	const struct mem_ident *ids = win->idents ? win->idents : &win->ident;

	for (unsigned i = 0; i < win->nr_idents; i++)
		if (ids[i].addr <= last && ids[i].last >= addr && !ids[i].huge)
			return false;
	return win->nr_idents;
}

uint64_t backing_page_size(struct backing *b, uint64_t offset, uint64_t len)
{
	struct span s = span_of(b, offset, len);
	struct run *run;
	bool huge = true;

	pthread_mutex_lock(&b->lock);
	for (run = backing_run_at(b, s.first); huge && run && run->page < s.end;
	     run = run_next(run)) {
		uint64_t first = SWI_MAX(run->page, s.first);
		uint64_t end = SWI_MIN(run_end(b, run), s.end);

		huge = run->seg &&
		       window_is_huge(&run->seg->window, page_base(b) + (first << SWI_PAGE_SHIFT),
				      page_base(b) + ((end << SWI_PAGE_SHIFT) - 1));
	}
	pthread_mutex_unlock(&b->lock);
	return huge ? 2ull << 20 : SWI_PAGE_SIZE;
}

struct registry_look {
	const struct page_key *key;
	struct candidate {
		struct backing *backing; /* counted */
		uint64_t page;
	} * found;
	size_t room, n; /* n goes on counting beyond room */
};

/* The pages of a segment that may be the one looked for; whether they are pinned is seen later. */
static void look_at_segment(struct mem_registered *r, void *data)
{
	struct segment *seg = container_of(r, struct segment, registered);
	const struct mem_window *win = &seg->window;
	const struct mem_ident *ids = win->idents ? win->idents : &win->ident;
	struct registry_look *look = data;
	const struct page_key *key = look->key;
	uint64_t byte = key->index << SWI_PAGE_SHIFT, addr;
	unsigned i;

	for (i = 0; i < win->nr_idents; i++) {
		if (ids[i].is_private != key->is_private)
			continue;
		if (!key->is_private &&
		    (ids[i].dev != key->object || ids[i].ino != key->inode || byte < ids[i].offset))
			continue;
		addr = key->is_private ? byte : ids[i].addr + (byte - ids[i].offset);
		if (addr < ids[i].addr || addr > ids[i].last)
			continue;
		if (look->n < look->room)
			look->found[look->n] = (struct candidate){
				backing_get(seg->backing),
				(addr - page_base(seg->backing)) >> SWI_PAGE_SHIFT,
			};
		look->n++;
	}
}

long mem_registry_count(struct mem_accounts *a, const struct page_key *key)
{
	struct registry_look look = {.key = key};
	struct page_key theirs;
	long count = 0;
	size_t i, n;

	/* First how many there are, then who they are; again if there were more by then. */
	for (;;) {
		mem_registry_walk(a, look_at_segment, &look);
		if (look.n <= look.room)
			break;
		n = look.n;
		for (i = 0; i < look.room; i++)
			backing_put(look.found[i].backing);
		swi_free(look.found);
		look = (struct registry_look){.key = key, .room = n};
		look.found = swi_alloc(n * sizeof(*look.found));
		if (!look.found)
			return -ENOMEM;
	}
	for (i = 0; i < look.n; i++) {
		count += !backing_page_key(look.found[i].backing, look.found[i].page, &theirs) &&
			 page_key_equal(&theirs, key);
		backing_put(look.found[i].backing);
	}
	swi_free(look.found);
	return count;
}

void backing_charge_prepare(struct backing *b, const struct mem_payer *to, struct mem_bill *bill)
{
	pthread_mutex_lock(&b->lock);
	if (!b->moving && mem_payer_differs(&b->payer, to)) {
		b->moving = true;
		b->promised = b->charged;
		bill->pages[b->payer.mode] += b->charged;
	}
	pthread_mutex_unlock(&b->lock);
}

void backing_charge_move(struct backing *b, const struct mem_payer *to)
{
	struct mem_payer old = {0};

	pthread_mutex_lock(&b->lock);
	if (b->moving) {
		b->moving = false;
		old = b->payer;
		mem_payer_copy(&b->payer, to);
		b->payer.mode = old.mode;
		/* What was unpinned since the promise was uncharged from the old payer. */
		mem_payer_uncharge(&b->payer, b->promised - b->charged);
		mem_payer_uncharge(&old, b->charged);
	}
	pthread_mutex_unlock(&b->lock);
	mem_payer_fini(&old);
}

void backing_charge_cancel(struct backing *b)
{
	pthread_mutex_lock(&b->lock);
	b->moving = false;
	pthread_mutex_unlock(&b->lock);
}
