// SPDX-License-Identifier: MIT
/*
 * Runs cases and prints TAP. Each case is a child process, so that a crash, a hang, dropped
 * privileges or a leaked descriptor end with it; what it has to say comes back through a pipe.
 */
#include "harness.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define CASE_SECONDS 60
#define EXIT_FAIL 1
#define EXIT_SKIP 77

static struct {
	const struct row *row;
	unsigned int failures;
	int report; /* pipe */
	const char *required;
	jmp_buf leave;
	int left_by;
} run;

/* Comparisons made, in all children together. */
static unsigned long *checks;

struct suite suite = {.huge = 2u << 20};

const void *row_arg(void)
{
	return run.row->arg;
}

static void vsay(const char *fmt, va_list ap)
{
	char text[600];
	int n = vsnprintf(text, sizeof(text), fmt, ap);

	if (n >= (int)sizeof(text))
		n = sizeof(text) - 1;
	if (write(run.report, text, n) != n)
		abort();
}

static void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(fmt, ap);
	va_end(ap);
}

static const char *rc_name(long rc, char buf[24])
{
	const char *name = rc < 0 ? strerrorname_np(-rc) : NULL;

	if (!name)
		snprintf(buf, 24, "%ld", rc);
	return name ? name : buf;
}

static const char *file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

void check_rc(const char *file, int line, const char *expr, long got, long want)
{
	char a[24], b[24];

	__atomic_add_fetch(checks, 1, __ATOMIC_RELAXED);
	if (got == want)
		return;
	run.failures++;
	say("%s:%d: %s gives %s, not %s\n", file_name(file), line, expr, rc_name(got, a),
	    rc_name(want, b));
}

void check_eq(const char *file, int line, const char *expr, uint64_t got, uint64_t want)
{
	__atomic_add_fetch(checks, 1, __ATOMIC_RELAXED);
	if (got == want)
		return;
	run.failures++;
	say("%s:%d: %s is %#llx, not %#llx\n", file_name(file), line, expr, (unsigned long long)got,
	    (unsigned long long)want);
}

static bool is_required(const char *feature)
{
	const char *at = run.required ? strstr(run.required, feature) : NULL;
	size_t len = strlen(feature);

	return run.required &&
	       (!strcmp(run.required, "all") ||
		(at && (at == run.required || at[-1] == ',') && (!at[len] || at[len] == ',')));
}

void skip(const char *feature, const char *fmt, ...)
{
	va_list ap;

	say("%s: ", feature);
	va_start(ap, fmt);
	vsay(fmt, ap);
	va_end(ap);
	say("\n");
	run.left_by = is_required(feature) || run.failures ? EXIT_FAIL : EXIT_SKIP;
	longjmp(run.leave, 1);
}

void give_up(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(fmt, ap);
	va_end(ap);
	say("\n");
	run.left_by = EXIT_FAIL;
	longjmp(run.leave, 1);
}

static int run_here(const struct row *row)
{
	struct ctx *volatile c = NULL;
	struct ctx *opened;
	int rc;

	if (setjmp(run.leave))
		return run.left_by;
	rc = suite.fe->open(O_RDWR, &opened);
	if (rc)
		give_up("the context cannot be opened: %s", strerror(-rc));
	c = opened;
	row->run(c);
	suite.fe->close(c);
	return run.failures ? EXIT_FAIL : 0;
}

/* The same setjmp target for a child of a case, whose failures come back as its exit status. */
int harness_guard(void (*fn)(struct ctx *c, void *data), struct ctx *c, void *data)
{
	if (setjmp(run.leave))
		return run.left_by;
	fn(c, data);
	return run.failures ? EXIT_FAIL : 0;
}

static void print_diagnosis(char *text)
{
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		printf("#   %s\n", line);
}

static void print_result(size_t nr, const struct row *row, int status, char *text,
			 struct tally *tally)
{
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;

	if (code == EXIT_SKIP) {
		tally->skipped++;
		text[strcspn(text, "\n")] = '\0';
		printf("ok %zu - %s %s # SKIP %s\n", nr, row->id, row->title, text);
		return;
	}
	printf("%sok %zu - %s %s\n", code ? "not " : "", nr, row->id, row->title);
	if (!code) {
		tally->passed++;
		return;
	}
	tally->failed++;
	print_diagnosis(text);
	if (WIFSIGNALED(status))
		printf("#   killed by signal %d (%s)\n", WTERMSIG(status),
		       strsignal(WTERMSIG(status)));
	else if (code != EXIT_FAIL)
		printf("#   exit status %d\n", code);
}

/* A case that was left in the middle has not tidied up: nothing about leaks can be said of it. */
static _Noreturn void finish(int code)
{
	if (run.left_by)
		_exit(code);
	exit(code);
}

unsigned long harness_checks(void)
{
	return checks ? *checks : 0;
}

void harness_run(size_t nr, const struct row *row, const char *required, struct tally *tally)
{
	char text[8192];
	size_t len = 0;
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	if (!checks)
		checks = mmap(NULL, sizeof(*checks), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fflush(stdout);
	if (checks == MAP_FAILED || pipe(fds) || (pid = fork()) < 0) {
		perror("mmap, pipe or fork");
		exit(2);
	}
	if (!pid) {
		close(fds[0]);
		alarm(CASE_SECONDS);
		run.row = row;
		run.report = fds[1];
		run.required = required;
		finish(run_here(row));
	}
	close(fds[1]);
	while (len < sizeof(text) - 1 && (n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += n;
	text[len] = '\0';
	close(fds[0]);
	if (waitpid(pid, &status, 0) != pid)
		status = -1;
	print_result(nr, row, status, text, tally);
}
