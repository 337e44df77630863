// SPDX-License-Identifier: MIT
/* Backings over each kind of owner: what pinning changes, and that it can be shared and undone. */
#include "program.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "mem/backing.h"
#include "mem/guard.h"

static struct backing *backing_of(struct mem_owner *o, uint64_t addr, uint64_t len, bool write)
{
	struct backing *b;

	assert_int_equal(backing_create(o, NULL, addr, len, write, &b), 0);
	assert_true(backing_addr(b) == addr && backing_length(b) == len);
	assert_true(backing_write_intent(b) == write);
	assert_ptr_equal(backing_owner(b), o);
	return b;
}

static int pin_all(struct backing *b, struct swi_reason *why)
{
	return backing_pin(b, 0, backing_length(b), why);
}

static void unpin_all(struct backing *b)
{
	backing_unpin(b, 0, backing_length(b));
}

static void *host_all(struct backing *b)
{
	return backing_host(b, 0, backing_length(b));
}

static struct mem_owner *file_owner(int fd)
{
	struct mem_owner *o;

	assert_int_equal(mem_owner_file(fd, &o, NULL), 0);
	return o;
}

static void nothing_is_looked_at_before_the_pin(void **state)
{
	struct mem_owner *o;
	struct swi_reason why = {""};
	struct backing *b;
	char c = 0;

	(void)state;
	assert_int_equal(mem_owner_local(&o), 0);
	b = backing_of(o, 0, 4 * PAGE, true); /* address 0: nothing there */
	mem_owner_put(o);		      /* the backing has its own reference */
	assert_null(host_all(b));
	assert_int_equal(backing_read(b, 0, &c, 1), -EFAULT);
	assert_int_equal(backing_write(b, 0, &c, 1), -EFAULT);
	assert_int_equal(pin_all(b, &why), -EFAULT);
	assert_string_not_equal(why.text, "");
	assert_null(host_all(b));
	backing_put(b);
}

static void pins_nest_and_are_forgotten(void **state)
{
	int fd = memfd_of(2 * PAGE, 1), watch = dup(fd);
	struct mem_owner *o = file_owner(fd);
	struct backing *b = backing_of(o, PAGE, PAGE, true);
	unsigned char c = 0;
	char *host;

	(void)state;
	assert_null(host_all(b));
	assert_int_equal(backing_read(b, 5, &c, 1), 0);
	assert_int_equal(c, 1);
	assert_int_equal(pin_all(b, NULL), 0);
	host = host_all(b);
	assert_non_null(host);
	assert_int_equal(pin_all(b, NULL), 0);
	assert_ptr_equal(host_all(b), host);
	unpin_all(b);
	assert_ptr_equal(host_all(b), host);
	c = 2;
	assert_int_equal(backing_write(b, 7, &c, 1), 0);
	assert_int_equal(host[7], 2);
	assert_int_equal(pread(watch, &c, 1, PAGE + 7), 1);
	assert_int_equal(c, 2);
	unpin_all(b);
	assert_null(host_all(b));
	/* Nothing is mapped there now. */
	assert_ptr_equal(mmap(host, PAGE, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
			 host);
	munmap(host, PAGE);
	/* A later pin sees the file as it is by then. */
	assert_return_code(ftruncate(watch, PAGE), errno);
	assert_int_equal(pin_all(b, NULL), -EINVAL);
	assert_int_equal(backing_read(b, 0, &c, 1), -EINVAL);
	assert_return_code(ftruncate(watch, 2 * PAGE), errno);
	assert_int_equal(pin_all(b, NULL), 0);
	assert_int_equal(backing_read(b, 7, &c, 1), 0);
	assert_int_equal(c, 0);
	unpin_all(b);
	backing_put(b);
	mem_owner_put(o);
	close(watch);
}

static void write_intent_is_demanded_by_every_pin(void **state)
{
	char *p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), c;
	struct mem_owner *o;
	struct backing *r, *w;

	(void)state;
	assert_int_equal(mem_owner_local(&o), 0);
	r = backing_of(o, (uintptr_t)p, PAGE, false);
	w = backing_of(o, (uintptr_t)p, PAGE, true);
	assert_int_equal(pin_all(r, NULL), 0);
	assert_ptr_equal(host_all(r), p);
	assert_int_equal(pin_all(w, NULL), -EFAULT);
	assert_int_equal(backing_read(w, 0, &c, 1), 0); /* as memory, it can be read still */
	unpin_all(r);
	backing_put(r);
	backing_put(w);
	mem_owner_put(o);
	munmap(p, PAGE);
}

static void pins_outlive_what_the_program_does(void **state)
{
	int fd = memfd_of(PAGE, 0x21);
	struct backing *priv, *shared;
	struct program p;
	struct mem_owner *o;
	uint64_t a, s;
	unsigned char c;

	(void)state;
	program_start(&p);
	assert_int_equal(mem_owner_process(p.pid, &o, NULL), 0);
	a = program_anon(&p, PAGE, MAP_PRIVATE, 0x20);
	s = program_mmap(&p, 0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	priv = backing_of(o, a, PAGE, true);
	shared = backing_of(o, s, PAGE, true);
	mem_owner_put(o);
	assert_int_equal(pin_all(priv, NULL), 0);
	assert_int_equal(pin_all(shared, NULL), 0);
	assert_null(host_all(priv));
	assert_non_null(host_all(shared));
	program_call(&p, SYS_mprotect, (long)a, PAGE, PROT_NONE);
	program_call(&p, SYS_munmap, (long)s, PAGE);
	assert_int_equal(backing_read(priv, 3 * 0, &c, 1), 0);
	assert_int_equal(c, 0x20);
	assert_int_equal(backing_read(shared, 9, &c, 1), 0);
	assert_int_equal(c, 0x21);
	c = 0x22;
	assert_int_equal(backing_write(shared, 9, &c, 1), 0);
	program_stop(&p);
	assert_int_equal(backing_read(shared, 9, &c, 1), 0);
	assert_int_equal(c, 0x22);
	assert_int_equal(backing_read(priv, 0, &c, 1), -EFAULT);
	unpin_all(shared);
	unpin_all(priv);
	/* Not pinned any more, it is the memory of somebody dead. */
	assert_int_equal(backing_read(shared, 9, &c, 1), -EFAULT);
	assert_int_equal(pin_all(shared, NULL), -EFAULT);
	backing_put(shared);
	backing_put(priv);
	close(fd);
}

static void unpinned_memory_has_the_rights_of_now(void **state)
{
	struct program p;
	struct mem_owner *o;
	struct backing *b;
	unsigned char c = 1;
	uint64_t a;

	(void)state;
	program_start(&p);
	assert_int_equal(mem_owner_process(p.pid, &o, NULL), 0);
	a = program_anon(&p, PAGE, MAP_PRIVATE, 0x20);
	b = backing_of(o, a, PAGE, true);
	assert_int_equal(backing_write(b, 0, &c, 1), 0);
	program_call(&p, SYS_mprotect, (long)a, PAGE, PROT_READ);
	assert_int_equal(backing_write(b, 0, &c, 1), -EFAULT);
	assert_int_equal(backing_read(b, 0, &c, 1), 0);
	backing_put(b);
	mem_owner_put(o);
	program_stop(&p);
}

/* In a child, as the guard stays installed. */
static void truncated_window_is_an_error(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		int fd = memfd_of(2 * PAGE, 1), watch = dup(fd);
		struct mem_owner *o = file_owner(fd);
		struct backing *b = backing_of(o, 0, 2 * PAGE, true);
		static char buf[2 * PAGE];

		assert_int_equal(mem_guard_install(), 0);
		assert_int_equal(pin_all(b, NULL), 0);
		assert_return_code(ftruncate(watch, PAGE), errno);
		assert_int_equal(backing_read(b, 0, buf, 2 * PAGE), -EFAULT);
		assert_int_equal(backing_write(b, PAGE, buf, 1), -EFAULT);
		assert_int_equal(backing_write(b, 0, buf, PAGE), 0);
		unpin_all(b); /* the failed copies have given their pins back */
		assert_null(host_all(b));
		_exit(42);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
}

/* Everything from the owner to the window, with each allocation failing once. */
static int whole_chain(struct program *p, uint64_t at, int fd)
{
	struct mem_owner *o[3] = {NULL};
	struct backing *b[3] = {NULL};
	unsigned n = 0, i, pinned = 0;
	char c = 0;
	int ret;

	ret = mem_owner_process(p->pid, &o[n], NULL);
	if (ret)
		goto out;
	ret = backing_create(o[n], NULL, at, PAGE, true, &b[n]);
	n++;
	if (ret)
		goto out;
	ret = mem_owner_local(&o[n]);
	if (ret)
		goto out;
	ret = backing_create(o[n], NULL, (uintptr_t)&c, 1, true, &b[n]);
	n++;
	if (ret)
		goto out;
	ret = mem_owner_file(dup(fd), &o[n], NULL);
	if (ret) {
		/* The descriptor is ours still: the highest one, and open. */
		int again = dup(fd);

		close(again);
		assert_return_code(close(again - 1), errno);
		goto out;
	}
	ret = backing_create(o[n], NULL, 0, PAGE, true, &b[n]);
	n++;
	for (i = 0; i < n && !ret; i++) {
		ret = pin_all(b[i], NULL);
		pinned += !ret;
	}
	for (i = 0; i < n && !ret; i++)
		ret = backing_read(b[i], 0, &c, 1);
out:
	while (pinned)
		unpin_all(b[--pinned]);
	for (i = 0; i < n; i++) {
		if (b[i])
			backing_put(b[i]);
		mem_owner_put(o[i]);
	}
	return ret;
}

static void each_allocation_may_fail(void **state)
{
	int fd = memfd_of(PAGE, 3);
	struct program p;
	unsigned nth, before;
	uint64_t at;
	int ret;

	(void)state;
	program_start(&p);
	at = program_mmap(&p, 0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	before = count_fds();
	for (nth = 1; nth < 100; nth++) {
		swi_alloc_fail_nth(nth);
		ret = whole_chain(&p, at, fd);
		assert_int_equal(count_fds(), before);
		if (swi_alloc_fail_nth(0)) {
			assert_int_equal(ret, 0);
			break;
		}
		/* -EFAULT: of a lookup, which can be made to fail like an allocation. */
		assert_true(ret == -ENOMEM || ret == -EFAULT);
	}
	assert_in_range(nth, 6, 99); /* owner and backing of each kind at the least */
	program_stop(&p);
	close(fd);
}

static struct backing *contended;
static atomic_int failures;

static void *pin_and_read(void *arg)
{
	unsigned char c;
	int i;

	(void)arg;
	for (i = 0; i < 3000; i++) {
		if (pin_all(contended, NULL)) {
			failures++;
			continue;
		}
		c = *((unsigned char *)host_all(contended) + PAGE - 1);
		if (c != 0x51)
			failures++;
		unpin_all(contended);
	}
	return NULL;
}

static void *read_anyway(void *arg)
{
	unsigned char c;
	int i;

	(void)arg;
	for (i = 0; i < 6000; i++) {
		c = 0;
		if (backing_read(contended, PAGE - 1, &c, 1) || c != 0x51)
			failures++;
	}
	return NULL;
}

/* Readers without a pin of their own race with the last unpin. */
static void pins_and_reads_race(void **state)
{
	struct mem_owner *o = file_owner(memfd_of(PAGE, 0x51));
	pthread_t t[4];
	int i;

	(void)state;
	contended = backing_of(o, 0, PAGE, false);
	failures = 0;
	for (i = 0; i < 4; i++)
		assert_int_equal(
			pthread_create(&t[i], NULL, i & 1 ? read_anyway : pin_and_read, NULL), 0);
	for (i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(failures, 0);
	assert_null(host_all(contended));
	backing_put(contended);
	mem_owner_put(o);
}

/* More mappings than a window may use: data moves all the same. */
static void too_many_windows_are_no_failure(void **state)
{
	enum { N = 18000 };
	struct mem_owner *o = file_owner(memfd_of(PAGE, 0x17));
	struct backing **b = calloc(N, sizeof(struct backing *));
	unsigned i, with = 0;
	unsigned char c;
	void *p;

	(void)state;
	for (i = 0; i < N; i++) {
		b[i] = backing_of(o, 0, PAGE, false);
		assert_int_equal(pin_all(b[i], NULL), 0);
		with += !!host_all(b[i]);
	}
	assert_in_range(with, 1000, N - 1);
	assert_int_equal(backing_read(b[0], 5, &c, 1), 0);
	assert_int_equal(backing_read(b[N - 1], 5, &c, 1), 0);
	assert_int_equal(c, 0x17);
	p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(p, MAP_FAILED); /* there is room for others */
	munmap(p, PAGE);
	for (i = 0; i < N; i++) {
		unpin_all(b[i]);
		backing_put(b[i]);
	}
	/* And they come back. */
	b[0] = backing_of(o, 0, PAGE, false);
	assert_int_equal(pin_all(b[0], NULL), 0);
	assert_non_null(host_all(b[0]));
	unpin_all(b[0]);
	backing_put(b[0]);
	free(b);
	mem_owner_put(o);
}

static void references_are_counted(void **state)
{
	struct mem_owner *o = file_owner(memfd_of(PAGE, 1));
	struct backing *b = backing_of(o, 0, PAGE, false);
	char c;

	(void)state;
	mem_owner_put(o);
	assert_ptr_equal(backing_get(b), b);
	backing_put(b);
	assert_int_equal(backing_read(b, 0, &c, 1), 0);
	backing_put(b);
}

static int group(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, remember_fds, no_fd_leaked)
	const struct CMUnitTest tests[] = {
		T(nothing_is_looked_at_before_the_pin),
		T(pins_nest_and_are_forgotten),
		T(write_intent_is_demanded_by_every_pin),
		T(pins_outlive_what_the_program_does),
		T(unpinned_memory_has_the_rights_of_now),
		T(truncated_window_is_an_error),
		T(each_allocation_may_fail),
		T(pins_and_reads_race),
		T(too_many_windows_are_no_failure),
		T(references_are_counted),
	};
	return cmocka_run_group_tests_name("backing", tests, NULL, NULL);
}

int main(void)
{
	return run_variants(group) ? 1 : 0;
}
