// SPDX-License-Identifier: MIT
/* Owners in use are shared: by mappings of one address space or one file, and by nobody else. */
#include "program.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "mem/owners.h"

static struct mem_owners *list;

static int setup(void **state)
{
	(void)state;
	return mem_owners_create(&list);
}

static int teardown(void **state)
{
	(void)state;
	mem_owners_put(list);
	return 0;
}

static struct mem_owner *of_process(pid_t pid)
{
	struct swi_reason why = {""};
	struct mem_owner *o;

	assert_int_equal(mem_owner_process(pid, &o, &why), 0);
	return mem_owners_share(list, o);
}

static struct mem_owner *of_file(int fd)
{
	struct swi_reason why = {""};
	struct mem_owner *o;

	assert_true(fd >= 0);
	assert_int_equal(mem_owner_file(fd, &o, &why), 0);
	return mem_owners_share(list, o);
}

static struct mem_owner *of_this(void)
{
	struct mem_owner *o;

	assert_int_equal(mem_owner_local(&o), 0);
	return mem_owners_share(list, o);
}

static void one_for_a_process(void **state)
{
	struct program p, q;
	struct mem_owner *a, *b, *c;
	unsigned before;

	(void)state;
	program_start(&p);
	program_start(&q);
	a = of_process(p.pid);
	before = count_fds();
	b = of_process(p.pid);
	assert_ptr_equal(a, b);
	assert_int_equal(count_fds(), before);
	/* A fork has a copy of everything by which address spaces are told, but is another process. */
	c = of_process(q.pid);
	assert_ptr_not_equal(c, a);
	mem_owner_put(a);
	assert_ptr_equal(of_process(p.pid), b);
	mem_owner_put(b);
	mem_owner_put(b);
	assert_true(count_fds() < before + 3);
	a = of_process(p.pid);
	program_stop(&p);
	assert_true(mem_owner_gone(a));
	mem_owner_put(a);
	mem_owner_put(c);
	program_stop(&q);
}

static void another_after_an_exec(void **state)
{
	static char *argv[] = {"sleep", "1000", NULL};
	struct mem_owner *a, *b;
	struct program p;

	(void)state;
	program_start(&p);
	a = of_process(p.pid);
	assert_int_equal(
		program_call(&p, SYS_execve, (long)"/bin/sleep", (long)argv, (long)environ),
		-EPIPE);
	b = of_process(p.pid);
	assert_ptr_not_equal(a, b);
	assert_false(mem_owner_gone(b));
	assert_ptr_equal(of_process(p.pid), b);
	mem_owner_put(b);
	mem_owner_put(b);
	mem_owner_put(a);
	program_stop(&p);
}

static int go[2];

static int wait_and_exec(void *arg)
{
	static char *argv[] = {"sleep", "1000", NULL};
	char c;

	(void)arg;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (read(go[0], &c, 1) == 1)
		execve("/bin/sleep", argv, environ);
	_exit(1);
}

/* A child that shares our memory until it executes a program: its first owner does not come to an end then. */
static void another_after_the_exec_of_a_vfork(void **state)
{
	char *stack =
		mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct mem_owner *a, *b;
	char exe[64], path[32];
	pid_t pid;
	int i;

	(void)state;
#ifdef __SANITIZE_THREAD__
	skip(); /* its run time takes the child for this thread */
#endif
	assert_return_code(pipe2(go, O_CLOEXEC), errno);
	pid = clone(wait_and_exec, stack + 16 * PAGE, CLONE_VM | SIGCHLD, NULL);
	assert_true(pid > 0);
	a = of_process(pid);
	assert_int_equal(write(go[1], "", 1), 1);
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	for (i = 0; i < 10000; i++) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = read(fd, exe, sizeof(exe));

		close(fd);
		if (n >= 5 && !memcmp(exe, "sleep", 5))
			break;
		usleep(1000);
	}
	assert_true(i < 10000);
	assert_false(mem_owner_gone(a));
	b = of_process(pid);
	assert_ptr_not_equal(a, b);
	mem_owner_put(a);
	mem_owner_put(b);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(go[0]);
	close(go[1]);
	munmap(stack, 16 * PAGE);
}

static void one_for_a_file(void **state)
{
	int fd = memfd_of(PAGE, 1), other = memfd_of(PAGE, 2), sealed;
	struct mem_owner *a, *b, *c;
	char link[40];

	(void)state;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	a = of_file(dup(fd));
	/* However it was opened: the owner opens it for both directions. */
	b = of_file(open(link, O_RDONLY | O_CLOEXEC));
	assert_ptr_equal(a, b);
	c = of_file(other);
	assert_ptr_not_equal(a, c);
	mem_owner_put(c);
	/* What is allowed has changed since. */
	assert_return_code(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), errno);
	sealed = open(link, O_RDONLY | O_CLOEXEC);
	c = of_file(sealed);
	assert_ptr_not_equal(a, c);
	mem_owner_put(a);
	mem_owner_put(b);
	mem_owner_put(c);
	close(fd);
}

static void one_for_this_process(void **state)
{
	struct mem_owner *a = of_this(), *b = of_this();

	(void)state;
	assert_ptr_equal(a, b);
	mem_owner_put(a);
	mem_owner_put(b);
}

/* The list may go before what is on it. */
static void outlive_the_list(void **state)
{
	struct mem_owner *a;

	(void)state;
	a = of_this();
	mem_owners_put(list);
	assert_int_equal(mem_owners_create(&list), 0);
	mem_owner_put(a);
}

/* One that several contexts are handed (a process' ring has one for all calls) stays in the first list. */
static void in_one_list_only(void **state)
{
	struct mem_owner *a = of_this(), *b;
	struct mem_owners *second;

	(void)state;
	assert_int_equal(mem_owners_create(&second), 0);
	assert_ptr_equal(mem_owners_share(second, mem_owner_get(a)), a);
	mem_owner_put(a);
	assert_ptr_equal(atomic_load(&a->owners), list);
	assert_int_equal(mem_owner_local(&b), 0);
	assert_ptr_equal(mem_owners_share(second, b), b);
	mem_owner_put(b);
	assert_ptr_equal(of_this(), a);
	mem_owner_put(a);
	mem_owners_put(second);
	mem_owner_put(a);
}

static void *come_and_go(void *arg)
{
	int fd = *(int *)arg;

	for (int i = 0; i < 2000; i++) {
		struct mem_owner *a = of_file(dup(fd)), *b = of_this();
		char c = 0;

		assert_int_equal(a->ops->read(a, 0, &c, 1), 0);
		assert_int_equal(c, 7);
		mem_owner_put(a);
		mem_owner_put(b);
	}
	return NULL;
}

static void by_many_at_once(void **state)
{
	pthread_t threads[4];
	int fd = memfd_of(PAGE, 7);

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &fd), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	close(fd);
}

static int remember(void **state)
{
	remember_fds(state);
	return setup(state);
}

static int check(void **state)
{
	teardown(state);
	return no_fd_leaked(state);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, remember, check)
	const struct CMUnitTest tests[] = {
		T(one_for_a_process),
		T(another_after_an_exec),
		T(another_after_the_exec_of_a_vfork),
		T(one_for_a_file),
		T(one_for_this_process),
		T(outlive_the_list),
		T(in_one_list_only),
		T(by_many_at_once),
	};
	return cmocka_run_group_tests_name("owners in use", tests, NULL, NULL) ? 1 : 0;
}
