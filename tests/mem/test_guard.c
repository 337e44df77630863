// SPDX-License-Identifier: MIT
/*
 * Guarded copies. Signal dispositions belong to the process and the guard cannot be uninstalled, so
 * each case runs in a child and reports by its exit status.
 */
#include "program.h"

#include <pthread.h>
#include <stdatomic.h>

#include "mem/guard.h"

#define OK 42

static int status_of(int (*body)(void))
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		signal(SIGBUS, SIG_DFL);
		_exit(body());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static bool exited(int status, int code)
{
	return WIFEXITED(status) && WEXITSTATUS(status) == code;
}

static bool died_of(int status, int sig)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == sig;
}

/* Leaves the case with the line that went wrong (as far as eight bits tell). */
#define CHECK(x)                                                        \
	do {                                                            \
		if (!(x)) {                                             \
			fprintf(stderr, "line %d: %s\n", __LINE__, #x); \
			_exit(1);                                       \
		}                                                       \
	} while (0)

/* Two mapped pages of a file that has one. */
static char *half_gone(void)
{
	int fd = memfd_create("half", MFD_CLOEXEC);
	char *p;

	CHECK(fd >= 0 && !ftruncate(fd, 2 * PAGE));
	p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	memset(p, 0x61, 2 * PAGE);
	CHECK(!ftruncate(fd, PAGE));
	close(fd);
	return p;
}

static char plain[2 * PAGE];

static int copies_end_with_efault(void)
{
	char *p = half_gone();
	int i;

	CHECK(mem_guard_install() == 0);
	CHECK(mem_guard_install() == 0);
	for (i = 0; i < 3; i++) { /* not just once: the signal must not stay blocked */
		CHECK(mem_guard_copy(plain, p, 2 * PAGE) == -EFAULT);
		CHECK(mem_guard_copy(p + 8, plain, 2 * PAGE - 8) == -EFAULT);
		CHECK(mem_guard_copy(plain, p + PAGE, 1) == -EFAULT);
		CHECK(mem_guard_copy(p + 2 * PAGE - 1, plain, 1) == -EFAULT);
		memset(plain, 0, sizeof(plain));
		CHECK(mem_guard_copy(plain, p, PAGE) == 0);
		CHECK(plain[0] == 0x61 && plain[PAGE - 1] == 0x61 && plain[PAGE] == 0);
		CHECK(mem_guard_copy(plain, p + PAGE, 0) == 0);
	}
	return OK;
}

static int copy_unguarded(void)
{
	char *p = half_gone();

	mem_guard_copy(plain, p, 2 * PAGE);
	return OK;
}

static int fault_outside(void)
{
	volatile char *p = half_gone();

	CHECK(mem_guard_install() == 0);
	CHECK(mem_guard_copy(plain, (char *)p, 2 * PAGE) == -EFAULT);
	plain[0] = p[PAGE];
	return OK;
}

static int ignored_fault_outside(void)
{
	signal(SIGBUS, SIG_IGN);
	return fault_outside();
}

static int vanished_pages_are_mended(void)
{
	volatile char *p = half_gone(), *other = half_gone();
	struct mem_guard_range never = {0}, ranges[3] = {0};

	CHECK(mem_guard_install() == 0);
	mem_guard_mend(&ranges[0], (char *)other, 2 * PAGE);
	mem_guard_mend(&ranges[1], (char *)p, 2 * PAGE);
	mem_guard_mend(&ranges[2], plain, PAGE);
	errno = 77;
	CHECK(p[PAGE + 5] == 0 && errno == 77);
	p[PAGE + 6] = 3;
	CHECK(p[PAGE + 6] == 3 && p[PAGE - 1] == 0x61);
	mem_guard_forget(&never);
	for (int i = 0; i < 3; i++)
		mem_guard_forget(&ranges[i]);
	return OK;
}

static int only_pages_of_a_range_are_mended(void)
{
	volatile char *p = half_gone();
	struct mem_guard_range range = {0};

	CHECK(mem_guard_install() == 0);
	mem_guard_mend(&range, (char *)p, PAGE);
	plain[0] = p[PAGE];
	return OK;
}

static int forgotten_pages_are_not_mended(void)
{
	volatile char *p = half_gone();
	struct mem_guard_range ranges[3] = {0};

	CHECK(mem_guard_install() == 0);
	for (int i = 0; i < 3; i++)
		mem_guard_mend(&ranges[i], i == 1 ? (char *)p : plain, PAGE);
	mem_guard_forget(&ranges[1]);
	mem_guard_forget(&ranges[2]);
	plain[0] = p[PAGE];
	return OK;
}

static int sent_signal(void)
{
	CHECK(mem_guard_install() == 0);
	kill(getpid(), SIGBUS);
	return OK;
}

static int ignored_sent_signal(void)
{
	signal(SIGBUS, SIG_IGN);
	return sent_signal();
}

static void exit_with_43(int sig)
{
	_exit(sig == SIGBUS ? 43 : 1);
}

static void exit_with_44(int sig, siginfo_t *info, void *context)
{
	sigset_t mask;

	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	_exit(sig == SIGBUS && info->si_addr && context && sigismember(&mask, SIGUSR1) ? 44 : 1);
}

static int previous_handler(void)
{
	signal(SIGBUS, exit_with_43);
	return fault_outside();
}

static int previous_info_handler(void)
{
	struct sigaction sa = {.sa_sigaction = exit_with_44, .sa_flags = SA_SIGINFO};

	sigaddset(&sa.sa_mask, SIGUSR1);
	sigaction(SIGBUS, &sa, NULL);
	return fault_outside();
}

static char *half, *stepping_stone;
static int nested_bad, nested_good;

/* A copying thread must not block SIGBUS. ThreadSanitizer's handlers block everything. */
static void unblock_sigbus(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* Valgrind cannot grow the stack of a forked child while it delivers a signal. */
static void grow_stack(void)
{
	volatile char room[256 << 10];
	size_t i;

	for (i = 0; i < sizeof(room); i += 1024)
		room[sizeof(room) - 1 - i] = 0;
}

/* Runs in the middle of a guarded copy, which cannot read its source yet. */
static void nested_copies(int sig)
{
	char buf[64];

	(void)sig;
	unblock_sigbus();
	nested_bad = mem_guard_copy(buf, half + PAGE, sizeof(buf));
	nested_good = mem_guard_copy(buf, half, sizeof(buf));
	mprotect(stepping_stone, PAGE, PROT_READ | PROT_WRITE);
}

static int nests(void)
{
	char *src = half_gone();

	grow_stack();
	half = half_gone();
	CHECK(mem_guard_install() == 0);
	signal(SIGSEGV, nested_copies);
	/* Interrupted, then completed. */
	stepping_stone = src;
	mprotect(src, PAGE, PROT_NONE);
	nested_bad = nested_good = 1;
	CHECK(mem_guard_copy(plain, src, PAGE) == 0);
	CHECK(nested_bad == -EFAULT && nested_good == 0);
	/* Interrupted, then ended by a fault of its own: the inner copies have left the chain. */
	mprotect(src, PAGE, PROT_NONE);
	nested_bad = nested_good = 1;
	CHECK(mem_guard_copy(plain, src, 2 * PAGE) == -EFAULT);
	CHECK(nested_bad == -EFAULT && nested_good == 0);
	return OK;
}

static void touch_unguarded(int sig)
{
	(void)sig;
	unblock_sigbus();
	plain[0] = *(volatile char *)(half + PAGE);
}

/* A fault during a guarded copy, but not of it. */
static int foreign_fault_inside(void)
{
	char *src = half_gone();

	grow_stack();
	half = half_gone();
	signal(SIGBUS, exit_with_43);
	CHECK(mem_guard_install() == 0);
	signal(SIGSEGV, touch_unguarded);
	mprotect(src, PAGE, PROT_NONE);
	mem_guard_copy(plain, src, PAGE);
	return OK;
}

static int memfd;
static atomic_int copies_begun;
#define BIG (4ul << 20)

static void *truncate_soon(void *arg)
{
	(void)arg;
	while (atomic_load(&copies_begun) < 20)
		;
	CHECK(!ftruncate(memfd, 0));
	return NULL;
}

static int truncated_while_copying(void)
{
	char *p, *to = malloc(BIG);
	pthread_t t;
	int i, ret = 0;

	CHECK(mem_guard_install() == 0);
	memfd = memfd_create("big", MFD_CLOEXEC);
	CHECK(memfd >= 0 && !ftruncate(memfd, BIG) && to);
	p = mmap(NULL, BIG, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	CHECK(p != MAP_FAILED);
	CHECK(!pthread_create(&t, NULL, truncate_soon, NULL));
	for (i = 0; !ret; i++) {
		atomic_fetch_add(&copies_begun, 1);
		ret = mem_guard_copy(to, p, BIG);
	}
	CHECK(ret == -EFAULT && i >= 20);
	pthread_join(t, NULL);
	free(to);
	return OK;
}

static void *copy_in_thread(void *arg)
{
	char own;

	return (void *)(intptr_t)mem_guard_copy(&own, (char *)arg + PAGE, 1);
}

static int every_thread_has_its_own_chain(void)
{
	char *p = half_gone();
	pthread_t t[4];
	void *ret;
	int i;

	CHECK(mem_guard_install() == 0);
	for (i = 0; i < 4; i++)
		CHECK(!pthread_create(&t[i], NULL, copy_in_thread, p));
	for (i = 0; i < 4; i++) {
		CHECK(!pthread_join(t[i], &ret));
		CHECK((intptr_t)ret == -EFAULT);
	}
	return OK;
}

#define EXITS(name, body, code)                             \
	static void name(void **state)                      \
	{                                                   \
		(void)state;                                \
		assert_true(exited(status_of(body), code)); \
	}
#define DIES(name, body)                                       \
	static void name(void **state)                         \
	{                                                      \
		(void)state;                                   \
		assert_true(died_of(status_of(body), SIGBUS)); \
	}

EXITS(lost_pages_end_the_copy, copies_end_with_efault, OK)
EXITS(truncation_while_copying_ends_the_copy, truncated_while_copying, OK)
EXITS(copies_nest, nests, OK)
EXITS(threads_copy_independently, every_thread_has_its_own_chain, OK)
DIES(without_installation_it_is_memcpy, copy_unguarded)
DIES(faults_outside_copies_are_fatal_as_before, fault_outside)
DIES(ignored_faults_are_fatal_as_before, ignored_fault_outside)
DIES(sent_signals_are_fatal_as_before, sent_signal)
EXITS(ignored_sent_signals_are_ignored_as_before, ignored_sent_signal, OK)
EXITS(faults_outside_copies_reach_the_previous_handler, previous_handler, 43)
EXITS(previous_handler_gets_what_it_asked_for, previous_info_handler, 44)
EXITS(lost_registers_become_zeros, vanished_pages_are_mended, OK)
DIES(loss_next_to_registers_is_fatal, only_pages_of_a_range_are_mended)
DIES(loss_of_forgotten_registers_is_fatal, forgotten_pages_are_not_mended)
EXITS(foreign_faults_inside_a_copy_are_passed_on, foreign_fault_inside, 43)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lost_pages_end_the_copy),
		cmocka_unit_test(truncation_while_copying_ends_the_copy),
		cmocka_unit_test(copies_nest),
		cmocka_unit_test(threads_copy_independently),
		cmocka_unit_test(without_installation_it_is_memcpy),
		cmocka_unit_test(faults_outside_copies_are_fatal_as_before),
		cmocka_unit_test(ignored_faults_are_fatal_as_before),
		cmocka_unit_test(sent_signals_are_fatal_as_before),
		cmocka_unit_test(ignored_sent_signals_are_ignored_as_before),
		cmocka_unit_test(faults_outside_copies_reach_the_previous_handler),
		cmocka_unit_test(previous_handler_gets_what_it_asked_for),
		cmocka_unit_test(foreign_faults_inside_a_copy_are_passed_on),
		cmocka_unit_test(lost_registers_become_zeros),
		cmocka_unit_test(loss_next_to_registers_is_fatal),
		cmocka_unit_test(loss_of_forgotten_registers_is_fatal),
	};

	return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
