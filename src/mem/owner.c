// SPDX-License-Identifier: MIT
/*
 * What all kinds of memory owners have in common: the count of references. The kinds are in
 * owner_local.c, owner_process.c and owner_file.c.
 */
#include "mem/owner.h"

#include "mem/owners.h"

#include <errno.h>
#include <stdatomic.h>

struct mem_owner *mem_owner_get(struct mem_owner *o)
{
	atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
	return o;
}

bool mem_owner_same(struct mem_owner *a, struct mem_owner *b)
{
	return a->ops == b->ops && a->ops->same && (a == b || a->ops->same(a, b));
}

void mem_owner_put(struct mem_owner *o)
{
	/* Whoever drops the last reference sees all that the other holders did before. */
	if (atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) != 1)
		return;
	if (o->owners)
		mem_owners_forget(o);
	o->ops->destroy(o);
}

void mem_ident_key(const struct mem_ident *id, uint64_t addr, const uint64_t space[2],
		   struct page_key *key)
{
	*key = (struct page_key){.is_private = id->is_private, .huge = id->huge};
	if (id->is_private) {
		key->object = space[0];
		key->inode = space[1];
		key->index = addr >> SWI_PAGE_SHIFT;
	} else {
		key->object = id->dev;
		key->inode = id->ino;
		key->index = (id->offset + (addr - id->addr)) >> SWI_PAGE_SHIFT;
	}
}

int mem_window_key(const struct mem_window *win, uint64_t addr, const uint64_t space[2],
		   struct page_key *key)
{
	const struct mem_ident *ids = win->idents ? win->idents : &win->ident;
	unsigned i;

	for (i = 0; i < win->nr_idents; i++) {
		if (addr < ids[i].addr || addr > ids[i].last)
			continue;
		mem_ident_key(&ids[i], addr, space, key);
		return 0;
	}
	return -ENOENT;
}

void mem_owner_open_file(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot,
			 struct mem_file *out)
{
	*out = (struct mem_file){.fd = -1, .length = len};
	if (o->ops->open_file)
		o->ops->open_file(o, addr, len, prot, out);
}

int mem_owner_page_key(struct mem_owner *o, uint64_t addr, struct page_key *key)
{
	return o->ops->page_key(o, addr, key);
}
