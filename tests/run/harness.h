/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_TESTS_RUN_HARNESS_H
#define SWIOMMU_TESTS_RUN_HARNESS_H

/* Starting commands and looking at what becomes of them. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#define OUTPUT_MAX (256u << 10)

struct command {
	pid_t pid; /* leader of a process group of its own */
	int in, out, err;
	int status; /* as of waitpid(), once it has ended */
	bool ended;
	size_t out_len, err_len;
	char out_text[OUTPUT_MAX], err_text[OUTPUT_MAX]; /* ended by '\0' */
};

struct how {
	bool no_standard_files; /* 0, 1 and 2 are closed */
	bool deaf;		/* nobody reads standard error: writing there gives EPIPE */
	bool ignore_children;	/* started with SIGCHLD ignored, as by some daemons */
	int extra_fd;		/* to be inherited, if not 0 */
	const char *input; /* standard input; NULL: empty and open until command_close_input() */
	size_t input_len;
};

/* argv[0] is searched in PATH. */
void command_start(struct command *c, const struct how *how, const char *const *argv);
/* Reads output until `text` has come out of it; fails the test if that does not happen. */
void command_expect_output(struct command *c, const char *text);
void command_expect_error(struct command *c, const char *text);
/* Whether standard output ends while the command is still running. */
bool command_output_ends(struct command *c);
void command_close_input(struct command *c);
/* Waits for the end; the test fails if that takes more than 30 s. Closes everything. */
void command_finish(struct command *c);
/* Start and finish. */
void command_run(struct command *c, const struct how *how, const char *const *argv);

void assert_exit(const struct command *c, int status);
void assert_signal(const struct command *c, int sig);
void assert_says(const char *text, const char *part);
void assert_not_says(const char *text, const char *part);

/* test_run.c: all tests, or only the one with so many kills. Returns how many failed. */
int run_tests_here(const char *only_kills);

double seconds(void);
bool is_running(pid_t pid);
/* Waits until it is not, or fails. */
void wait_gone(pid_t pid);

#endif
