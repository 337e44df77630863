// SPDX-License-Identifier: MIT
/*
 * Accounting of pinned pages.
 *
 * A record per process and one per user exist while some payer refers to them, so the tables are as
 * small as the number of processes that have mappings. A process record keeps its /proc directory
 * and memory file open: the directory belongs to that very process, a later one with the same pid
 * cannot be reached by it, and the memory file to the address space, so that it tells an exec.
 *
 * RLIMIT_MEMLOCK is asked for by pid, and counts if the record's directory still stands afterwards;
 * else the process is gone and the value seen last holds on. What the kernel itself has locked for a
 * process (mlock) is read from its status; what the kernel has pinned for a user (io_uring, RDMA)
 * cannot be known.
 *
 * `lock` is a leaf and never held over a look at /proc.
 */
#include "mem/accounts.h"

#include "base/alloc.h"
#include "mem/vma.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PROCESS_BUCKETS 64

struct mem_process {
	struct list entry; /* in its bucket */
	unsigned refs;
	pid_t pid;
	int dir, mem; /* -1 for this very process, and where they could not be had */
	bool dead;    /* seen to have gone, or to run another program: not to be found any more */
	_Atomic uint64_t limit; /* RLIMIT_MEMLOCK as seen last, bytes */
	uint64_t pinned, locked;
};

struct mem_user {
	struct list entry;
	unsigned refs;
	uid_t uid;
	uint64_t pages;
};

struct mem_accounts {
	_Atomic unsigned refs;
	pthread_rwlock_t moving; /* shared while charging, exclusive while charges move */
	pthread_mutex_t lock;	 /* tables and counters */
	struct list processes[PROCESS_BUCKETS];
	struct list users;
	_Atomic uint64_t batch;	       /* see mem_accounts_set_batch() */
	_Atomic uint64_t floor;	       /* see mem_accounts_set_floor() */
	pthread_mutex_t registry_lock; /* a leaf */
	struct list registry;
};

int mem_accounts_create(struct mem_accounts **out)
{
	struct mem_accounts *a = swi_new(struct mem_accounts);
	unsigned i;

	if (!a)
		return -ENOMEM;
	atomic_init(&a->refs, 1);
	pthread_rwlock_init(&a->moving, NULL);
	pthread_mutex_init(&a->lock, NULL);
	pthread_mutex_init(&a->registry_lock, NULL);
	for (i = 0; i < PROCESS_BUCKETS; i++)
		list_init(&a->processes[i]);
	list_init(&a->users);
	list_init(&a->registry);
	*out = a;
	return 0;
}

struct mem_accounts *mem_accounts_get(struct mem_accounts *a)
{
	atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
	return a;
}

void mem_accounts_put(struct mem_accounts *a)
{
	if (!a || atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) != 1)
		return;
	pthread_mutex_destroy(&a->registry_lock);
	pthread_mutex_destroy(&a->lock);
	pthread_rwlock_destroy(&a->moving);
	swi_free(a);
}

/* ---- processes ------------------------------------------------------------------------------ */

/* Whether the process still is there and runs the address space of the record. */
static bool still_lives(const struct mem_process *p)
{
	char byte;

	if (p->dir < 0)
		return p->pid == getpid();
	if (faccessat(p->dir, "status", F_OK, 0))
		return false;
	/* Page 0 of a living address space gives an error; a dead one has an empty file. */
	return p->mem < 0 || pread(p->mem, &byte, 1, 0) != 0;
}

/* Asks for the limit; the old value stays if the process has gone. */
/*
 * The soft limit as the process' own limits file tells it, which everybody may read: prlimit() refuses
 * processes of other users. False when it cannot be read.
 */
static bool read_memlock_limit(const struct mem_process *p, uint64_t *limit)
{
	char buf[512], word[32];
	struct proc_words w = {.buf = buf, .size = sizeof(buf)};
	unsigned int matched = 0; /* words of "locked memory" seen in a row */
	bool found = false;

	w.fd = p->dir < 0 ? -1 : openat(p->dir, "limits", O_RDONLY | O_CLOEXEC);
	if (w.fd < 0)
		return false;
	while (!found && proc_word(&w, word, sizeof(word)) > 0) {
		found = matched == 2;
		if (found)
			*limit = strcmp(word, "unlimited") ? strtoull(word, NULL, 10)
							   : (uint64_t)RLIM_INFINITY;
		else if (!strcmp(word, matched ? "memory" : "locked"))
			matched++;
		else
			matched = 0;
	}
	close(w.fd);
	return found;
}

static uint64_t memlock_limit(struct mem_process *p)
{
	struct rlimit rl;
	uint64_t limit;

	if (!prlimit(p->pid, RLIMIT_MEMLOCK, NULL, &rl) &&
	    (p->dir < 0 || !faccessat(p->dir, "status", F_OK, 0)))
		atomic_store_explicit(&p->limit, rl.rlim_cur, memory_order_relaxed);
	else if (read_memlock_limit(p, &limit))
		atomic_store_explicit(&p->limit, limit, memory_order_relaxed);
	return atomic_load_explicit(&p->limit, memory_order_relaxed);
}

/* The pages that the process has locked by itself. */
static uint64_t really_locked(const struct mem_process *p)
{
	char buf[512], word[32];
	struct proc_words w = {.buf = buf, .size = sizeof(buf)};
	bool next = false;
	uint64_t kb = 0;

	if (!still_lives(p))
		return 0;
	w.fd = p->dir < 0 ? open("/proc/self/status", O_RDONLY | O_CLOEXEC)
			  : openat(p->dir, "status", O_RDONLY | O_CLOEXEC);
	if (w.fd < 0)
		return 0;
	while (proc_word(&w, word, sizeof(word)) > 0) {
		if (next) {
			kb = strtoull(word, NULL, 10);
			break;
		}
		next = !strcmp(word, "VmLck:");
	}
	close(w.fd);
	return kb / (SWI_PAGE_SIZE / 1024);
}

static void process_free(struct mem_process *p)
{
	if (p->mem >= 0)
		close(p->mem);
	if (p->dir >= 0)
		close(p->dir);
	swi_free(p);
}

static int process_open(pid_t pid, struct mem_process **out, struct swi_reason *why)
{
	struct mem_process *p = swi_new(struct mem_process);
	char path[32];

	if (!p)
		return swi_fail(why, -ENOMEM, "out of memory");
	p->refs = 1;
	p->pid = pid;
	p->dir = p->mem = -1;
	if (pid != getpid()) {
		snprintf(path, sizeof(path), "/proc/%d", (int)pid);
		p->dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (p->dir < 0) {
			int ret = errno == EMFILE || errno == ENFILE || errno == ENOMEM ? -ENOMEM
											: -ESRCH;

			process_free(p);
			return swi_fail(why, ret, "process %d cannot be looked at", (int)pid);
		}
		p->mem = openat(p->dir, "mem", O_RDONLY | O_CLOEXEC);
	}
	memlock_limit(p);
	*out = p;
	return 0;
}

static struct list *bucket_of(struct mem_accounts *a, pid_t pid)
{
	return &a->processes[(unsigned)pid % PROCESS_BUCKETS];
}

static void put_process_locked(struct mem_process *p, struct list *dying)
{
	if (p && !--p->refs) {
		list_del(&p->entry);
		list_add(dying, &p->entry);
	}
}

static void free_processes(struct list *dying)
{
	struct list *pos, *tmp;

	list_for_each_safe (pos, tmp, dying)
		process_free(list_entry(pos, struct mem_process, entry));
}

static void put_process(struct mem_accounts *a, struct mem_process *p)
{
	struct list dying;

	list_init(&dying);
	pthread_mutex_lock(&a->lock);
	put_process_locked(p, &dying);
	pthread_mutex_unlock(&a->lock);
	free_processes(&dying);
}

/* The record of a pid that is not known to be dead, with a reference, or NULL. */
static struct mem_process *get_candidate_locked(struct mem_accounts *a, pid_t pid)
{
	struct list *pos;

	list_for_each (pos, bucket_of(a, pid)) {
		struct mem_process *p = list_entry(pos, struct mem_process, entry);

		if (p->pid == pid && !p->dead) {
			p->refs++;
			return p;
		}
	}
	return NULL;
}

/* The record of the process that has this pid now, with a reference, or NULL if there is none. */
static struct mem_process *get_process(struct mem_accounts *a, pid_t pid)
{
	struct mem_process *p;

	for (;;) {
		pthread_mutex_lock(&a->lock);
		p = get_candidate_locked(a, pid);
		pthread_mutex_unlock(&a->lock);
		if (!p || still_lives(p))
			return p;
		pthread_mutex_lock(&a->lock);
		p->dead = true;
		pthread_mutex_unlock(&a->lock);
		put_process(a, p);
	}
}

/* get_process() that makes a record if it must. */
static int need_process(struct mem_accounts *a, pid_t pid, struct mem_process **out,
			struct swi_reason *why)
{
	struct mem_process *fresh = NULL, *p = get_process(a, pid);
	int ret;

	if (p) {
		*out = p;
		return 0;
	}
	ret = process_open(pid, &fresh, why);
	if (ret)
		return ret;
	pthread_mutex_lock(&a->lock);
	p = get_candidate_locked(a, pid); /* somebody was faster */
	if (!p) {
		p = fresh;
		list_add(bucket_of(a, pid), &p->entry);
	}
	pthread_mutex_unlock(&a->lock);
	if (p != fresh)
		process_free(fresh);
	*out = p;
	return 0;
}

static struct mem_user *find_user_locked(struct mem_accounts *a, uid_t uid)
{
	struct list *pos;

	list_for_each (pos, &a->users)
		if (list_entry(pos, struct mem_user, entry)->uid == uid)
			return list_entry(pos, struct mem_user, entry);
	return NULL;
}

static void put_user_locked(struct mem_user *u)
{
	if (u && !--u->refs) {
		list_del(&u->entry);
		swi_free(u);
	}
}

static int need_user(struct mem_accounts *a, uid_t uid, struct mem_user **out,
		     struct swi_reason *why)
{
	struct mem_user *fresh = NULL, *u;

	pthread_mutex_lock(&a->lock);
	u = find_user_locked(a, uid);
	if (!u) {
		pthread_mutex_unlock(&a->lock);
		fresh = swi_new(struct mem_user);
		if (!fresh)
			return swi_fail(why, -ENOMEM, "out of memory");
		fresh->uid = uid;
		pthread_mutex_lock(&a->lock);
		u = find_user_locked(a, uid);
	}
	if (!u) {
		u = fresh;
		fresh = NULL;
		list_add(&a->users, &u->entry);
	}
	u->refs++;
	pthread_mutex_unlock(&a->lock);
	swi_free(fresh);
	*out = u;
	return 0;
}

/* ---- payers --------------------------------------------------------------------------------- */

int mem_payer_init(struct mem_payer *p, struct mem_accounts *a, pid_t tgid, uid_t uid,
		   enum mem_charge_mode mode, struct swi_reason *why)
{
	int ret;

	*p = (struct mem_payer){.accounts = mem_accounts_get(a), .mode = mode};
	if (!tgid)
		return 0;
	ret = need_process(a, tgid, &p->process, why);
	if (!ret)
		ret = need_user(a, uid, &p->user, why);
	if (ret)
		mem_payer_fini(p);
	return ret;
}

void mem_payer_copy(struct mem_payer *to, const struct mem_payer *from)
{
	*to = *from;
	if (!to->accounts)
		return;
	mem_accounts_get(to->accounts);
	if (!to->process)
		return;
	pthread_mutex_lock(&to->accounts->lock);
	to->process->refs++;
	to->user->refs++;
	pthread_mutex_unlock(&to->accounts->lock);
}

void mem_payer_fini(struct mem_payer *p)
{
	struct list dying;

	if (p->process) {
		list_init(&dying);
		pthread_mutex_lock(&p->accounts->lock);
		put_process_locked(p->process, &dying);
		put_user_locked(p->user);
		pthread_mutex_unlock(&p->accounts->lock);
		free_processes(&dying);
	}
	mem_accounts_put(p->accounts);
	*p = (struct mem_payer){0};
}

/* ---- charging ------------------------------------------------------------------------------- */

/* Whether `more` pages on top of `used` pass the limit. */
static bool beyond(uint64_t used, uint64_t more, uint64_t limit_pages)
{
	return more > limit_pages || used > limit_pages - more;
}

int mem_payer_charge_bill(const struct mem_payer *p, const struct mem_bill *bill,
			  struct swi_reason *why)
{
	uint64_t user = bill->pages[MEM_CHARGE_USER], process = bill->pages[MEM_CHARGE_PROCESS];
	uint64_t limit = UINT64_MAX, own = 0, used = 0;
	struct mem_accounts *a = p->accounts;
	int ret = 0;

	if (swi_fail_point())
		return swi_fail(why, -ENOMEM, "injected failure of the charge");
	if (!p->process)
		return 0;
	if (user || process)
		limit = SWI_MAX(memlock_limit(p->process), a->floor) / SWI_PAGE_SIZE;
	if (process)
		own = really_locked(p->process);
	pthread_mutex_lock(&a->lock);
	if (user && beyond(p->user->pages, user, limit)) {
		used = p->user->pages;
		ret = swi_fail(why, -ENOMEM,
			       "RLIMIT_MEMLOCK of process %d allows %llu pages, user %u has %llu "
			       "pinned, %llu more are wanted",
			       (int)p->process->pid, (unsigned long long)limit,
			       (unsigned)p->user->uid, (unsigned long long)used,
			       (unsigned long long)user);
	} else if (process && beyond(p->process->locked + own, process, limit)) {
		used = p->process->locked + own;
		ret = swi_fail(why, -ENOMEM,
			       "RLIMIT_MEMLOCK of process %d allows %llu pages, it has %llu "
			       "locked, %llu more are wanted",
			       (int)p->process->pid, (unsigned long long)limit,
			       (unsigned long long)used, (unsigned long long)process);
	} else {
		p->user->pages += user;
		p->process->locked += process;
		p->process->pinned += user + process + bill->pages[MEM_CHARGE_NONE];
	}
	pthread_mutex_unlock(&a->lock);
	return ret;
}

int mem_payer_charge(const struct mem_payer *p, uint64_t pages, struct swi_reason *why)
{
	struct mem_bill bill = {0};

	bill.pages[p->mode] = pages;
	return mem_payer_charge_bill(p, &bill, why);
}

void mem_payer_uncharge(const struct mem_payer *p, uint64_t pages)
{
	if (!p->process || !pages)
		return;
	pthread_mutex_lock(&p->accounts->lock);
	p->process->pinned -= pages;
	if (p->mode == MEM_CHARGE_USER)
		p->user->pages -= pages;
	else if (p->mode == MEM_CHARGE_PROCESS)
		p->process->locked -= pages;
	pthread_mutex_unlock(&p->accounts->lock);
}

bool mem_payer_differs(const struct mem_payer *from, const struct mem_payer *to)
{
	return from->process != to->process ||
	       (from->mode == MEM_CHARGE_USER && from->user != to->user);
}

/* ---- questions ------------------------------------------------------------------------------ */

int mem_accounts_usage(struct mem_accounts *a, pid_t pid, struct mem_usage *out)
{
	pid_t tgid = proc_thread_group(pid);
	struct mem_process *p;

	*out = (struct mem_usage){0};
	if (tgid < 0)
		return tgid;
	p = get_process(a, tgid);
	if (!p)
		return 0;
	pthread_mutex_lock(&a->lock);
	*out = (struct mem_usage){p->pinned, p->locked};
	pthread_mutex_unlock(&a->lock);
	put_process(a, p);
	return 0;
}

void mem_accounts_set_batch(struct mem_accounts *a, uint64_t pages)
{
	a->batch = pages;
}

void mem_accounts_set_floor(struct mem_accounts *a, uint64_t bytes)
{
	a->floor = bytes;
}

uint64_t mem_accounts_batch(const struct mem_accounts *a)
{
	return a && a->batch ? a->batch : UINT64_MAX;
}

uint64_t mem_accounts_user_pages(struct mem_accounts *a, uid_t uid)
{
	struct mem_user *u;
	uint64_t pages;

	pthread_mutex_lock(&a->lock);
	u = find_user_locked(a, uid);
	pages = u ? u->pages : 0;
	pthread_mutex_unlock(&a->lock);
	return pages;
}

void mem_accounts_enter(struct mem_accounts *a)
{
	if (a)
		pthread_rwlock_rdlock(&a->moving);
}

void mem_accounts_leave(struct mem_accounts *a)
{
	if (a)
		pthread_rwlock_unlock(&a->moving);
}

void mem_accounts_block(struct mem_accounts *a)
{
	if (a)
		pthread_rwlock_wrlock(&a->moving);
}

void mem_accounts_unblock(struct mem_accounts *a)
{
	if (a)
		pthread_rwlock_unlock(&a->moving);
}

/* ---- what is pinned ------------------------------------------------------------------------- */

void mem_registry_add(struct mem_accounts *a, struct mem_registered *r)
{
	pthread_mutex_lock(&a->registry_lock);
	list_add(&a->registry, &r->entry);
	pthread_mutex_unlock(&a->registry_lock);
}

void mem_registry_del(struct mem_accounts *a, struct mem_registered *r)
{
	pthread_mutex_lock(&a->registry_lock);
	list_del(&r->entry);
	pthread_mutex_unlock(&a->registry_lock);
}

void mem_registry_walk(struct mem_accounts *a, void (*fn)(struct mem_registered *r, void *data),
		       void *data)
{
	struct list *pos;

	pthread_mutex_lock(&a->registry_lock);
	list_for_each (pos, &a->registry)
		fn(container_of(pos, struct mem_registered, entry), data);
	pthread_mutex_unlock(&a->registry_lock);
}
