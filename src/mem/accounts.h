/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_MEM_ACCOUNTS_H
#define SWIOMMU_MEM_ACCOUNTS_H

/*
 * Accounting of pinned pages (spec core.md 5.6), and which pages are pinned at all.
 *
 * One struct mem_accounts is one system: the counters per user and per process that contexts share
 * if they are to behave as opens of the same /dev/iommu.
 *
 * Pages are charged to a payer, the process that made the mapping, in the mode that was fixed then:
 *
 * | mode    | limit test (RLIMIT_MEMLOCK of the process)  | counters moved          |
 * |---------|---------------------------------------------|-------------------------|
 * | none    | none                                        | VmPin                   |
 * | user    | pages of the real user, all processes       | user's pages, VmPin     |
 * | process | VmLck of the process, what it mlocked incl. | VmLck, VmPin            |
 *
 * A process here is one address space of one process: after an exec the same pid is another one.
 */

#include "base/base.h"
#include "base/list.h"
#include "base/reason.h"

struct mem_accounts;

int mem_accounts_create(struct mem_accounts **out); /* one reference; -ENOMEM */
struct mem_accounts *mem_accounts_get(struct mem_accounts *a);
void mem_accounts_put(struct mem_accounts *a); /* NULL is allowed */

enum mem_charge_mode { MEM_CHARGE_NONE, MEM_CHARGE_USER, MEM_CHARGE_PROCESS };
#define MEM_CHARGE_MODES 3

struct mem_process;
struct mem_user;

/* Who pays. Holds references on all it points to; all zero = nobody pays and nothing is counted. */
struct mem_payer {
	struct mem_accounts *accounts;
	struct mem_process *process; /* NULL: counted by nobody */
	struct mem_user *user;
	enum mem_charge_mode mode;
};

/*
 * The process `tgid` (a process id in our pid namespace) with the real user id `uid`. tgid 0: nobody
 * pays. The caller guarantees that the process stays put during the call, as for
 * mem_owner_process(). Keeps two files open per process, not per payer. -ENOMEM, -ESRCH.
 */
int mem_payer_init(struct mem_payer *p, struct mem_accounts *a, pid_t tgid, uid_t uid,
		   enum mem_charge_mode mode, struct swi_reason *why);
void mem_payer_copy(struct mem_payer *to, const struct mem_payer *from);
void mem_payer_fini(struct mem_payer *p);

/* Charges pages; -ENOMEM beyond the limit, with a reason, and nothing is charged. */
int mem_payer_charge(const struct mem_payer *p, uint64_t pages, struct swi_reason *why);
/* Never fails, never blocks. */
void mem_payer_uncharge(const struct mem_payer *p, uint64_t pages);

/* Pages by mode, for moving the charges of many backings to a new payer at once. */
struct mem_bill {
	uint64_t pages[MEM_CHARGE_MODES];
};
/* As mem_payer_charge(), whatever p->mode is. All or nothing. */
int mem_payer_charge_bill(const struct mem_payer *p, const struct mem_bill *bill,
			  struct swi_reason *why);
/* Whether a charge in `from`'s mode has to move when `to` becomes the mapper (core.md 4.6 step 5). */
bool mem_payer_differs(const struct mem_payer *from, const struct mem_payer *to);

/* Counters of one process, in pages. */
struct mem_usage {
	uint64_t pinned; /* VmPin, beyond what the kernel shows */
	uint64_t locked; /* VmLck, beyond what the kernel shows: only process mode adds to it */
};

/*
 * What pid (of a process or thread) has been charged with, as the address space that it has now.
 * Zeroes for a process that never mapped anything. -ESRCH: no such process.
 */
int mem_accounts_usage(struct mem_accounts *a, pid_t pid, struct mem_usage *out);
/*
 * How many pages are looked up at a time when memory is pinned, at most; 0 = no limit, as at first. For
 * tests: what is pinned is the same, but there are more places at which pinning can fail.
 */
void mem_accounts_set_batch(struct mem_accounts *a, uint64_t pages);
uint64_t mem_accounts_batch(const struct mem_accounts *a); /* UINT64_MAX: no limit; also for NULL */
/* No process' limit counts as lower than so many bytes; 0 at first. */
void mem_accounts_set_floor(struct mem_accounts *a, uint64_t bytes);
/* Pages charged to a real user in user mode. */
uint64_t mem_accounts_user_pages(struct mem_accounts *a, uid_t uid);

/*
 * Charging goes on inside these; between block and unblock no backing's charge grows or moves (they
 * may shrink). For who moves charges from one payer to another. NULL: does nothing.
 */
void mem_accounts_enter(struct mem_accounts *a);
void mem_accounts_leave(struct mem_accounts *a);
void mem_accounts_block(struct mem_accounts *a);
void mem_accounts_unblock(struct mem_accounts *a);

/* ---- identity of pages (spec test-abi.md 4.2) -------------------------------------------------- */

/*
 * Names one page of memory: pages that are the same have equal keys, however they are mapped. For
 * shared memory the file, for private memory the address in its address space.
 */
struct page_key {
	bool is_private;
	bool huge;	 /* of a hugetlb page; not part of the identity */
	uint64_t object; /* device of the file / address space */
	uint64_t inode;	 /* of the file / what tells apart two address spaces of one process */
	uint64_t index;	 /* page of the file / of the address space */
};

static inline bool page_key_equal(const struct page_key *a, const struct page_key *b)
{
	return a->is_private == b->is_private && a->object == b->object && a->inode == b->inode &&
	       a->index == b->index;
}

/* An entry of the list of what is pinned; embedded in mem/backing.c's segments. */
struct mem_registered {
	struct list entry;
};
void mem_registry_add(struct mem_accounts *a, struct mem_registered *r);
void mem_registry_del(struct mem_accounts *a, struct mem_registered *r);
/* Calls fn for each entry with the registry locked; nothing may be added or removed by it. */
void mem_registry_walk(struct mem_accounts *a, void (*fn)(struct mem_registered *r, void *data),
		       void *data);

#endif
