// SPDX-License-Identifier: MIT
/*
 * Who is charged for pinned pages, up to which limit, and which pages are the same: spec core.md 5.6
 * and the rows of its section 9 that need no ioctl (numbers in brackets), test-abi.md 4 and 10.
 */
#include "program.h"

#include <pthread.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "mem/backing.h"

static void set_limit(pid_t pid, uint64_t bytes)
{
	struct rlimit rl;

	assert_return_code(prlimit(pid, RLIMIT_MEMLOCK, NULL, &rl), errno);
	rl.rlim_cur = bytes;
	assert_true(rl.rlim_max >= bytes);
	assert_return_code(prlimit(pid, RLIMIT_MEMLOCK, &rl, NULL), errno);
}

static struct mem_accounts *accounts_new(void)
{
	struct mem_accounts *a;

	assert_int_equal(mem_accounts_create(&a), 0);
	return a;
}

static struct mem_payer payer_of(struct mem_accounts *a, pid_t pid, uid_t uid,
				 enum mem_charge_mode mode)
{
	struct mem_payer p;

	assert_int_equal(mem_payer_init(&p, a, pid, uid, mode, NULL), 0);
	return p;
}

/* A backing of `pages` pages of a new memfd, which is closed. */
static struct backing *file_backing(const struct mem_payer *payer, unsigned pages)
{
	int fd = memfd_create("accounts", MFD_CLOEXEC);
	struct mem_owner *o;
	struct backing *b;

	assert_return_code(fd, errno);
	assert_return_code(ftruncate(fd, (off_t)(pages * PAGE)), errno);
	assert_int_equal(mem_owner_file(fd, &o, NULL), 0);
	assert_int_equal(backing_create(o, payer, 0, pages * PAGE, true, &b), 0);
	mem_owner_put(o);
	return b;
}

static struct backing *payed_by(struct mem_accounts *a, pid_t pid, uid_t uid,
				enum mem_charge_mode mode, unsigned pages)
{
	struct mem_payer p = payer_of(a, pid, uid, mode);
	struct backing *b = file_backing(&p, pages);

	mem_payer_fini(&p);
	return b;
}

static int pin_pages(struct backing *b, unsigned first, unsigned n, struct swi_reason *why)
{
	return backing_pin(b, first * PAGE, n * PAGE, why);
}

static void unpin_pages(struct backing *b, unsigned first, unsigned n)
{
	backing_unpin(b, first * PAGE, n * PAGE);
}

static void assert_usage(struct mem_accounts *a, pid_t pid, uint64_t pinned, uint64_t locked)
{
	struct mem_usage u;

	assert_int_equal(mem_accounts_usage(a, pid, &u), 0);
	assert_int_equal(u.pinned, pinned);
	assert_int_equal(u.locked, locked);
}

/* ---- modes and limits ----------------------------------------------------------------------- */

static void none_has_no_limit(void **state) /* [89] [90] */
{
	struct mem_accounts *a = accounts_new();
	struct program p;
	struct backing *b;

	(void)state;
	program_start(&p);
	set_limit(p.pid, 4 * PAGE);
	b = payed_by(a, p.pid, 7, MEM_CHARGE_NONE, 16);
	assert_usage(a, p.pid, 0, 0);
	assert_int_equal(pin_pages(b, 0, 16, NULL), 0);
	assert_usage(a, p.pid, 16, 0);
	assert_int_equal(pin_pages(b, 0, 16, NULL), 0);
	assert_int_equal(pin_pages(b, 3, 5, NULL), 0);
	assert_usage(a, p.pid, 16, 0);
	unpin_pages(b, 0, 16);
	unpin_pages(b, 0, 16);
	assert_usage(a, p.pid, 5, 0);
	assert_int_equal(mem_accounts_user_pages(a, 7), 0);
	unpin_pages(b, 3, 5);
	assert_usage(a, p.pid, 0, 0);
	backing_put(b);
	mem_accounts_put(a);
	program_stop(&p);
}

static void user_mode_is_limited(void **state) /* [91] [94] */
{
	struct mem_accounts *a = accounts_new();
	struct swi_reason why = {""};
	struct backing *b, *c;
	struct program p;

	(void)state;
	program_start(&p);
	set_limit(p.pid, 16 * PAGE);
	b = payed_by(a, p.pid, 7, MEM_CHARGE_USER, 16);
	c = payed_by(a, p.pid, 7, MEM_CHARGE_USER, 4);
	assert_int_equal(pin_pages(b, 0, 16, NULL), 0);
	assert_usage(a, p.pid, 16, 0);
	assert_int_equal(mem_accounts_user_pages(a, 7), 16);
	assert_int_equal(pin_pages(c, 1, 1, &why), -ENOMEM);
	assert_non_null(strstr(why.text, "allows 16 pages"));
	assert_non_null(strstr(why.text, "has 16 pinned"));
	assert_non_null(strstr(why.text, "1 more"));
	assert_null(backing_host(c, PAGE, PAGE));
	assert_usage(a, p.pid, 16, 0);
	assert_int_equal(pin_pages(b, 0, 16, NULL), 0); /* a COPY */
	unpin_pages(b, 0, 16);
	unpin_pages(b, 0, 16);
	/* Only what is newly pinned counts, and each backing by itself. */
	assert_int_equal(pin_pages(b, 4, 8, NULL), 0);
	assert_int_equal(pin_pages(b, 0, 16, NULL), 0);
	assert_int_equal(mem_accounts_user_pages(a, 7), 16);
	unpin_pages(b, 0, 16);
	assert_int_equal(mem_accounts_user_pages(a, 7), 8);
	unpin_pages(b, 4, 8);
	/* A limit of a page and a bit is one page; a lower one does not touch what is charged. */
	set_limit(p.pid, PAGE + 100);
	assert_int_equal(pin_pages(c, 0, 2, NULL), -ENOMEM);
	assert_int_equal(pin_pages(c, 0, 1, NULL), 0);
	set_limit(p.pid, 0);
	assert_int_equal(pin_pages(c, 0, 1, NULL), 0);
	assert_int_equal(pin_pages(c, 1, 1, NULL), -ENOMEM);
	unpin_pages(c, 0, 1);
	unpin_pages(c, 0, 1);
	assert_int_equal(pin_pages(c, 0, 1, NULL), -ENOMEM);
	backing_put(b);
	backing_put(c);
	mem_accounts_put(a);
	program_stop(&p);
}

static void a_user_has_one_counter(void **state) /* [92] [125] */
{
	struct mem_accounts *a = accounts_new(), *other = accounts_new();
	struct backing *b, *same, *alien, *elsewhere;
	struct program p, q;

	(void)state;
	program_start(&p);
	program_start(&q);
	set_limit(p.pid, 16 * PAGE);
	set_limit(q.pid, 16 * PAGE);
	b = payed_by(a, p.pid, 7, MEM_CHARGE_USER, 16);
	same = payed_by(a, q.pid, 7, MEM_CHARGE_USER, 1);
	alien = payed_by(a, q.pid, 8, MEM_CHARGE_USER, 1);
	elsewhere = payed_by(other, p.pid, 7, MEM_CHARGE_USER, 1);
	assert_int_equal(pin_pages(b, 0, 16, NULL), 0);
	assert_int_equal(pin_pages(same, 0, 1, NULL), -ENOMEM);
	assert_int_equal(pin_pages(alien, 0, 1, NULL), 0);
	assert_int_equal(pin_pages(elsewhere, 0, 1, NULL), 0);
	assert_usage(a, q.pid, 1, 0);
	set_limit(q.pid, 17 * PAGE); /* it is q's limit that counts for q */
	assert_int_equal(pin_pages(same, 0, 1, NULL), 0);
	assert_int_equal(mem_accounts_user_pages(a, 7), 17);
	assert_int_equal(mem_accounts_user_pages(a, 8), 1);
	unpin_pages(b, 0, 16);
	unpin_pages(same, 0, 1);
	unpin_pages(alien, 0, 1);
	unpin_pages(elsewhere, 0, 1);
	backing_put(b);
	backing_put(same);
	backing_put(alien);
	backing_put(elsewhere);
	mem_accounts_put(a);
	mem_accounts_put(other);
	program_stop(&p);
	program_stop(&q);
}

/* The host may be more generous than the process' own limit, never less. */
static void the_floor_raises_low_limits(void **state)
{
	struct mem_accounts *a = accounts_new();
	struct swi_reason why = {""};
	struct mem_payer payer;
	struct program p;

	(void)state;
	program_start(&p);
	set_limit(p.pid, 4 * PAGE);
	payer = payer_of(a, p.pid, 7, MEM_CHARGE_USER);
	mem_accounts_set_floor(a, 6 * PAGE);
	assert_int_equal(mem_payer_charge(&payer, 6, &why), 0);
	assert_int_equal(mem_payer_charge(&payer, 1, &why), -ENOMEM);
	mem_payer_uncharge(&payer, 6);
	mem_accounts_set_floor(a, 2 * PAGE);
	assert_int_equal(mem_payer_charge(&payer, 4, &why), 0);
	assert_int_equal(mem_payer_charge(&payer, 1, &why), -ENOMEM);
	mem_payer_uncharge(&payer, 4);
	mem_accounts_set_floor(a, UINT64_MAX);
	assert_int_equal(mem_payer_charge(&payer, 1ull << 40, &why), 0);
	mem_payer_uncharge(&payer, 1ull << 40);
	mem_payer_fini(&payer);
	mem_accounts_put(a);
	program_stop(&p);
}

static void the_dead_keep_their_limit(void **state) /* [93] [95] */
{
	struct mem_accounts *a = accounts_new();
	struct mem_usage u;
	struct backing *b;
	struct program p;

	(void)state;
	program_start(&p);
	set_limit(p.pid, 4 * PAGE);
	b = payed_by(a, p.pid, 7, MEM_CHARGE_USER, 8);
	program_stop(&p);
	assert_int_equal(pin_pages(b, 0, 8, NULL), -ENOMEM);
	assert_int_equal(pin_pages(b, 0, 4, NULL), 0);
	assert_int_equal(mem_accounts_user_pages(a, 7), 4);
	assert_int_equal(mem_accounts_usage(a, p.pid, &u), -ESRCH);
	unpin_pages(b, 0, 4);
	assert_int_equal(mem_accounts_user_pages(a, 7), 0);
	backing_put(b);
	mem_accounts_put(a);
}

static void process_mode_shares_with_mlock(void **state) /* [96] */
{
	struct mem_accounts *a = accounts_new();
	struct swi_reason why = {""};
	struct backing *b;
	struct program p;
	uint64_t at;

	(void)state;
	program_start(&p);
	set_limit(p.pid, 16 * PAGE);
	at = program_anon(&p, 8 * PAGE, MAP_PRIVATE, 1);
	assert_int_equal(program_call(&p, SYS_mlock, (long)at, 8 * PAGE), 0);
	b = payed_by(a, p.pid, 7, MEM_CHARGE_PROCESS, 9);
	assert_int_equal(pin_pages(b, 0, 9, &why), -ENOMEM);
	assert_non_null(strstr(why.text, "has 8 locked, 9 more"));
	assert_int_equal(pin_pages(b, 0, 8, NULL), 0);
	assert_usage(a, p.pid, 8, 8);
	assert_int_equal(mem_accounts_user_pages(a, 7), 0);
	assert_int_equal(pin_pages(b, 8, 1, NULL), -ENOMEM);
	program_call(&p, SYS_munlock, (long)at, 8 * PAGE);
	assert_int_equal(pin_pages(b, 8, 1, NULL), 0);
	assert_usage(a, p.pid, 9, 9);
	unpin_pages(b, 0, 8);
	unpin_pages(b, 8, 1);
	assert_usage(a, p.pid, 0, 0);
	backing_put(b);
	mem_accounts_put(a);
	program_stop(&p);
}

static void a_program_after_exec_is_another(void **state)
{
	static char *const argv[] = {(char *)"sleep", (char *)"100", NULL};
	struct mem_accounts *a = accounts_new();
	struct mem_payer before, again, after;
	struct backing *b;
	struct program p;

	(void)state;
	program_start(&p);
	before = payer_of(a, p.pid, 7, MEM_CHARGE_USER);
	again = payer_of(a, p.pid, 8, MEM_CHARGE_USER);
	assert_ptr_equal(before.process, again.process);
	assert_true(mem_payer_differs(&before, &again)); /* by the user */
	b = file_backing(&before, 4);
	assert_int_equal(pin_pages(b, 0, 4, NULL), 0);
	assert_usage(a, p.pid, 4, 0);
	assert_int_equal(program_call(&p, SYS_execve, (long)(uintptr_t) "/bin/sleep",
				      (long)(uintptr_t)argv, 0),
			 -EPIPE);
	assert_usage(a, p.pid, 0, 0);
	after = payer_of(a, p.pid, 7, MEM_CHARGE_USER);
	assert_ptr_not_equal(after.process, before.process);
	assert_true(mem_payer_differs(&before, &after));
	assert_int_equal(mem_accounts_user_pages(a, 7), 4);
	unpin_pages(b, 0, 4);
	assert_usage(a, p.pid, 0, 0);
	backing_put(b);
	mem_payer_fini(&before);
	mem_payer_fini(&again);
	mem_payer_fini(&after);
	mem_accounts_put(a);
	program_stop(&p);
}

/* ---- moving the charge ---------------------------------------------------------------------- */

static int move_to(struct mem_accounts *a, struct backing **b, unsigned n,
		   const struct mem_payer *to)
{
	struct mem_bill bill = {0};
	unsigned i;
	int ret;

	mem_accounts_block(a);
	for (i = 0; i < n; i++)
		backing_charge_prepare(b[i], to, &bill);
	ret = mem_payer_charge_bill(to, &bill, NULL);
	for (i = 0; i < n; i++) {
		if (ret)
			backing_charge_cancel(b[i]);
		else
			backing_charge_move(b[i], to);
	}
	mem_accounts_unblock(a);
	return ret;
}

static void charges_move_at_once(void **state) /* [100] [101] [124] */
{
	struct mem_accounts *a = accounts_new();
	struct mem_payer to, alien;
	struct program p, q;
	struct backing *b[4];

	(void)state;
	program_start(&p);
	program_start(&q);
	set_limit(p.pid, 16 * PAGE);
	set_limit(q.pid, 16 * PAGE);
	b[0] = payed_by(a, p.pid, 7, MEM_CHARGE_USER, 16);
	assert_int_equal(pin_pages(b[0], 0, 16, NULL), 0);
	to = payer_of(a, q.pid, 7, MEM_CHARGE_USER);
	/* One user: room for both is needed. */
	assert_int_equal(move_to(a, b, 1, &to), -ENOMEM);
	assert_usage(a, p.pid, 16, 0);
	assert_usage(a, q.pid, 0, 0);
	assert_int_equal(mem_accounts_user_pages(a, 7), 16);
	set_limit(q.pid, 32 * PAGE);
	assert_int_equal(move_to(a, b, 1, &to), 0);
	assert_usage(a, p.pid, 0, 0);
	assert_usage(a, q.pid, 16, 0);
	assert_int_equal(mem_accounts_user_pages(a, 7), 16);
	assert_int_equal(move_to(a, b, 1, &to), 0); /* it is there already */
	assert_usage(a, q.pid, 16, 0);
	unpin_pages(b[0], 0, 16);
	assert_usage(a, q.pid, 0, 0);
	backing_put(b[0]);

	/* To another user; several areas of one backing; memory without a limit moves too. */
	b[0] = b[1] = b[2] = payed_by(a, q.pid, 7, MEM_CHARGE_USER, 8);
	b[3] = payed_by(a, q.pid, 7, MEM_CHARGE_NONE, 100);
	assert_int_equal(pin_pages(b[0], 0, 8, NULL), 0);
	assert_int_equal(pin_pages(b[3], 0, 100, NULL), 0);
	set_limit(p.pid, 10 * PAGE);
	alien = payer_of(a, p.pid, 8, MEM_CHARGE_USER);
	assert_int_equal(move_to(a, b, 4, &alien), 0);
	assert_usage(a, p.pid, 108, 0);
	assert_usage(a, q.pid, 0, 0);
	assert_int_equal(mem_accounts_user_pages(a, 7), 0);
	assert_int_equal(mem_accounts_user_pages(a, 8), 8);
	unpin_pages(b[3], 0, 100);
	unpin_pages(b[0], 0, 8);
	assert_usage(a, p.pid, 0, 0);
	backing_put(b[0]);
	backing_put(b[3]);
	mem_payer_fini(&to);
	mem_payer_fini(&alien);
	mem_accounts_put(a);
	program_stop(&p);
	program_stop(&q);
}

/* What is unpinned after the new payer has been charged is charged to nobody. */
static void unpinned_while_moving(void **state)
{
	struct mem_accounts *a = accounts_new();
	struct mem_bill bill = {0};
	struct mem_payer to;
	struct program p, q;
	struct backing *b;

	(void)state;
	program_start(&p);
	program_start(&q);
	b = payed_by(a, p.pid, 7, MEM_CHARGE_USER, 8);
	to = payer_of(a, q.pid, 8, MEM_CHARGE_USER);
	assert_int_equal(pin_pages(b, 0, 8, NULL), 0);
	assert_int_equal(pin_pages(b, 0, 3, NULL), 0);
	mem_accounts_block(a);
	backing_charge_prepare(b, &to, &bill);
	assert_int_equal(mem_payer_charge_bill(&to, &bill, NULL), 0);
	unpin_pages(b, 0, 8);
	backing_charge_move(b, &to);
	mem_accounts_unblock(a);
	assert_usage(a, p.pid, 0, 0);
	assert_usage(a, q.pid, 3, 0);
	assert_int_equal(mem_accounts_user_pages(a, 7), 0);
	assert_int_equal(mem_accounts_user_pages(a, 8), 3);
	unpin_pages(b, 0, 3);
	assert_usage(a, q.pid, 0, 0);
	backing_put(b);
	mem_payer_fini(&to);
	mem_accounts_put(a);
	program_stop(&p);
	program_stop(&q);
}

/* Pins and unpins go on while the charge moves to and fro. */
static struct backing *moving;
static volatile bool stop_moving;

static void *pin_all_the_time(void *arg)
{
	unsigned i = 0;

	(void)arg;
	while (!__atomic_load_n(&stop_moving, __ATOMIC_RELAXED)) {
		if (pin_pages(moving, i % 8, 1 + i % 5, NULL))
			abort();
		unpin_pages(moving, i % 8, 1 + i % 5);
		i++;
	}
	return NULL;
}

static void charges_move_under_way(void **state)
{
	struct mem_accounts *a = accounts_new();
	struct mem_payer to[2];
	struct program p, q;
	pthread_t t[2];
	unsigned i;

	(void)state;
	program_start(&p);
	program_start(&q);
	to[0] = payer_of(a, p.pid, 7, MEM_CHARGE_USER);
	to[1] = payer_of(a, q.pid, 8, MEM_CHARGE_USER);
	moving = file_backing(&to[0], 16);
	stop_moving = false;
	for (i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, pin_all_the_time, NULL), 0);
	for (i = 0; i < 300; i++)
		assert_int_equal(move_to(a, &moving, 1, &to[i & 1]), 0);
	__atomic_store_n(&stop_moving, true, __ATOMIC_RELAXED);
	for (i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_usage(a, p.pid, 0, 0);
	assert_usage(a, q.pid, 0, 0);
	assert_int_equal(mem_accounts_user_pages(a, 7), 0);
	assert_int_equal(mem_accounts_user_pages(a, 8), 0);
	backing_put(moving);
	mem_payer_fini(&to[0]);
	mem_payer_fini(&to[1]);
	mem_accounts_put(a);
	program_stop(&p);
	program_stop(&q);
}

/* ---- identity ------------------------------------------------------------------------------- */

static struct page_key key_at(struct mem_owner *o, uint64_t addr)
{
	struct page_key key;

	assert_int_equal(mem_owner_page_key(o, addr, &key), 0);
	return key;
}

static struct mem_owner *owner_of(pid_t pid)
{
	struct mem_owner *o;

	assert_int_equal(pid ? mem_owner_process(pid, &o, NULL) : mem_owner_local(&o), 0);
	return o;
}

static struct backing *backing_at(struct mem_accounts *a, struct mem_owner *o, uint64_t addr,
				  unsigned pages, bool write)
{
	struct mem_payer p = payer_of(a, getpid(), getuid(), MEM_CHARGE_NONE);
	struct backing *b;

	assert_int_equal(backing_create(o, &p, addr, pages * PAGE, write, &b), 0);
	mem_payer_fini(&p);
	return b;
}

static bool same(struct page_key a, struct page_key b)
{
	return page_key_equal(&a, &b);
}

static void shared_pages_have_one_key(void **state)
{
	int fd = memfd_of(3 * PAGE, 1);
	struct mem_accounts *a = accounts_new();
	struct mem_owner *o, *f, *self = owner_of(0);
	struct page_key key, other;
	struct backing *b, *c;
	struct program p;
	uint64_t m1, m2;
	char *here;

	(void)state;
	program_start(&p);
	o = owner_of(p.pid);
	m1 = program_mmap(&p, 0, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	m2 = program_mmap(&p, 0, 2 * PAGE, PROT_READ, MAP_SHARED, fd, PAGE);
	here = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_int_equal(mem_owner_file(dup(fd), &f, NULL), 0);
	key = key_at(o, m1 + PAGE);
	assert_false(key.is_private || key.huge);
	assert_true(same(key, key_at(o, m2 + 123)));
	assert_true(same(key, key_at(self, (uintptr_t)here + PAGE)));
	assert_true(same(key, key_at(f, PAGE)));
	assert_false(same(key, key_at(o, m1)));
	assert_false(same(key, key_at(o, m2 + PAGE)));

	b = backing_at(a, o, m1, 3, true);
	c = backing_at(a, f, PAGE, 1, true);
	assert_int_equal(mem_registry_count(a, &key), 0);
	assert_int_equal(pin_pages(b, 0, 3, NULL), 0);
	assert_int_equal(pin_pages(b, 1, 1, NULL), 0);
	assert_int_equal(mem_registry_count(a, &key), 1);
	assert_int_equal(pin_pages(c, 0, 1, NULL), 0);
	assert_int_equal(mem_registry_count(a, &key), 2);
	other = key_at(o, m1);
	assert_int_equal(mem_registry_count(a, &other), 1);
	assert_int_equal(backing_page_key(b, 1, &other), 0);
	assert_true(same(key, other));
	/* A pin remembers what it has, whatever the program does to its addresses. */
	program_call(&p, SYS_munmap, (long)m1, 3 * PAGE);
	assert_int_equal(mem_owner_page_key(o, m1, &other), -EFAULT);
	assert_int_equal(backing_page_key(b, 1, &other), 0);
	assert_true(same(key, other));
	assert_int_equal(mem_registry_count(a, &key), 2);
	unpin_pages(b, 0, 3);
	assert_int_equal(mem_registry_count(a, &key), 2);
	unpin_pages(b, 1, 1);
	assert_int_equal(mem_registry_count(a, &key), 1);
	unpin_pages(c, 0, 1);
	assert_int_equal(mem_registry_count(a, &key), 0);
	assert_int_equal(backing_page_key(b, 1, &other), -ENOENT);
	assert_int_equal(mem_owner_page_key(f, 3 * PAGE, &other), -EINVAL);
	backing_put(b);
	backing_put(c);
	mem_owner_put(f);
	mem_owner_put(o);
	mem_owner_put(self);
	mem_accounts_put(a);
	munmap(here, 3 * PAGE);
	program_stop(&p);
	close(fd);
}

/* Anonymous shared memory, inherited by fork: the same pages. Private: not. */
static void fork_separates_private_pages_only(void **state)
{
	char *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *priv =
		mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct mem_accounts *a = accounts_new();
	struct mem_owner *self = owner_of(0), *child, *again, *as_process = owner_of(getpid());
	struct page_key key;
	struct program p;
	struct backing *b;

	(void)state;
	*shared = *priv = 1;
	program_start(&p);
	child = owner_of(p.pid);
	again = owner_of(p.pid);
	assert_true(same(key_at(self, (uintptr_t)shared), key_at(child, (uintptr_t)shared)));
	assert_false(same(key_at(self, (uintptr_t)priv), key_at(child, (uintptr_t)priv)));
	assert_true(same(key_at(child, (uintptr_t)priv), key_at(again, (uintptr_t)priv)));
	assert_true(same(key_at(self, (uintptr_t)priv), key_at(as_process, (uintptr_t)priv)));
	b = backing_at(a, child, (uintptr_t)priv + 100, 3, false);
	assert_int_equal(backing_pin(b, 0, 3 * PAGE, NULL), 0);
	key = key_at(child, (uintptr_t)priv);
	assert_true(key.is_private);
	assert_int_equal(mem_registry_count(a, &key), 1);
	key = key_at(self, (uintptr_t)priv);
	assert_int_equal(mem_registry_count(a, &key), 0);
	/* The same page, after the program has written to it. */
	program_call(&p, PROGRAM_POKE, (long)(uintptr_t)priv, 5);
	key = key_at(again, (uintptr_t)priv);
	assert_int_equal(mem_registry_count(a, &key), 1);
	assert_int_equal(mem_owner_page_key(child, 0, &key), -EFAULT);
	program_call(&p, SYS_mprotect, (long)(uintptr_t)priv, PAGE, PROT_NONE);
	assert_int_equal(mem_owner_page_key(child, (uintptr_t)priv, &key), -EFAULT);
	backing_unpin(b, 0, 3 * PAGE);
	backing_put(b);
	program_stop(&p);
	/* Nobody's memory is nobody else's. */
	assert_int_equal(mem_owner_page_key(child, (uintptr_t)priv + PAGE, &key), -EFAULT);
	mem_owner_put(child);
	mem_owner_put(again);
	mem_owner_put(as_process);
	mem_owner_put(self);
	mem_accounts_put(a);
	munmap(shared, PAGE);
	munmap(priv, 4 * PAGE);
}

/* A range of several mappings: each page knows its own. */
static void mixed_ranges_are_told_apart(void **state)
{
	int fd = memfd_of(4 * PAGE, 1);
	struct mem_accounts *a = accounts_new();
	struct page_key key, want;
	struct program p;
	struct mem_owner *o;
	struct backing *b;
	uint64_t at;
	unsigned i;

	(void)state;
	program_start(&p);
	o = owner_of(p.pid);
	at = program_anon(&p, 6 * PAGE, MAP_PRIVATE, 3);
	program_mmap(&p, at + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		     3 * PAGE);
	program_mmap(&p, at + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		     0);
	program_mmap(&p, at + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		     0);
	b = backing_at(a, o, at, 6, true);
	assert_int_equal(pin_pages(b, 0, 6, NULL), 0);
	for (i = 0; i < 6; i++) {
		want = key_at(o, at + i * PAGE);
		assert_int_equal(backing_page_key(b, i, &key), 0);
		assert_true(same(key, want));
		assert_int_equal(key.is_private, i == 0 || i == 3 || i == 5);
		/* One page of the file is in the range twice. */
		assert_int_equal(mem_registry_count(a, &want), i == 2 || i == 4 ? 2 : 1);
	}
	unpin_pages(b, 0, 6);
	backing_put(b);
	mem_owner_put(o);
	mem_accounts_put(a);
	program_stop(&p);
	close(fd);
}

static void huge_pages_are_marked(void **state)
{
	size_t huge = 2u << 20;
	char *p = mmap(NULL, huge, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	struct mem_owner *self;

	(void)state;
	if (p == MAP_FAILED) {
		printf("# SKIPPED: no huge pages\n");
		skip();
	}
	*p = 1;
	self = owner_of(0);
	assert_true(key_at(self, (uintptr_t)p + 5 * PAGE).huge);
	mem_owner_put(self);
	munmap(p, huge);
}

/* ---- pins that outlive the mapping, here ------------------------------------------------------ */

static void local_shared_memory_survives_munmap(void **state)
{
	char *p = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct mem_accounts *a = accounts_new();
	struct mem_owner *self = owner_of(0);
	struct backing *b;
	char *host, c = 0;

	(void)state;
	p[PAGE + 5] = 42;
	b = backing_at(a, self, (uintptr_t)p + 5, 2, true);
	assert_int_equal(backing_pin(b, 0, 2 * PAGE, NULL), 0);
	host = backing_host(b, 0, 2 * PAGE);
	assert_non_null(host);
	assert_int_equal(host[PAGE], 42);
	munmap(p, 3 * PAGE);
	assert_int_equal(host[PAGE], 42);
	host[1] = 7;
	assert_int_equal(backing_read(b, 1, &c, 1), 0);
	assert_int_equal(c, 7);
	backing_unpin(b, 0, 2 * PAGE);
	assert_int_equal(backing_pin(b, 0, 2 * PAGE, NULL), -EFAULT);
	backing_put(b);
	mem_owner_put(self);
	mem_accounts_put(a);
}

/* ---- failures ------------------------------------------------------------------------------- */

static int whole_chain(struct mem_accounts *a, pid_t pid, int fd)
{
	struct page_key key = {0};
	struct mem_payer p;
	struct mem_owner *o;
	struct backing *b;
	int ret;

	ret = mem_payer_init(&p, a, pid, 7, MEM_CHARGE_USER, NULL);
	if (ret) {
		close(fd);
		return ret;
	}
	ret = mem_owner_file(fd, &o, NULL);
	if (ret)
		goto payer;
	ret = backing_create(o, &p, 0, 4 * PAGE, true, &b);
	mem_owner_put(o);
	if (ret) {
		mem_payer_fini(&p);
		return ret;
	}
	ret = pin_pages(b, 1, 2, NULL);
	if (ret)
		goto put;
	ret = pin_pages(b, 0, 4, NULL);
	if (!ret) {
		ret = backing_page_key(b, 1, &key);
		if (!ret) {
			long n = mem_registry_count(a, &key);

			ret = n < 0 ? (int)n : 0;
		}
		unpin_pages(b, 0, 4);
	}
	unpin_pages(b, 1, 2);
put:
	backing_put(b);
	mem_payer_fini(&p);
	return ret;
payer:
	close(fd);
	mem_payer_fini(&p);
	return ret;
}

static void each_allocation_may_fail(void **state)
{
	struct mem_accounts *a = accounts_new();
	unsigned nth, fds, failed = 0;
	struct program p;
	int fd, ret;

	(void)state;
	program_start(&p);
	fds = count_fds();
	for (nth = 1; nth < 100; nth++) {
		fd = memfd_create("chain", MFD_CLOEXEC);
		assert_return_code(ftruncate(fd, 4 * PAGE), errno);
		swi_alloc_fail_nth(nth);
		ret = whole_chain(a, p.pid, fd);
		if (swi_alloc_fail_nth(0)) {
			assert_int_equal(ret, 0);
			break;
		}
		/* -EFAULT: of a lookup, which can be made to fail like an allocation. */
		assert_true(ret == -ENOMEM || ret == -EFAULT);
		failed++;
		assert_usage(a, p.pid, 0, 0);
		assert_int_equal(mem_accounts_user_pages(a, 7), 0);
		assert_int_equal(count_fds(), fds);
	}
	printf("# %u allocations failed in turn\n", failed);
	assert_in_range(failed, 8, 98);
	mem_accounts_put(a);
	program_stop(&p);
}

static int group(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, remember_fds, no_fd_leaked)
	const struct CMUnitTest tests[] = {
		T(none_has_no_limit),
		T(user_mode_is_limited),
		T(the_floor_raises_low_limits),
		T(a_user_has_one_counter),
		T(the_dead_keep_their_limit),
		T(process_mode_shares_with_mlock),
		T(a_program_after_exec_is_another),
		T(charges_move_at_once),
		T(unpinned_while_moving),
		T(charges_move_under_way),
		T(shared_pages_have_one_key),
		T(fork_separates_private_pages_only),
		T(mixed_ranges_are_told_apart),
		T(huge_pages_are_marked),
		T(local_shared_memory_survives_munmap),
		T(each_allocation_may_fail),
	};
	return cmocka_run_group_tests_name("accounts", tests, NULL, NULL);
}

int main(void)
{
	return run_variants(group) ? 1 : 0;
}
