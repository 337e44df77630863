// SPDX-License-Identifier: MIT
/*
 * Commands under test. Both outputs are collected while the command runs, so that it never waits
 * for us; every wait is for something that happens, with a limit that only a broken program
 * reaches.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT 30.0

double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static _Noreturn void child(const struct how *how, const char *const *argv, int in, int out,
			    int err)
{
	setpgid(0, 0);
	signal(SIGPIPE, SIG_DFL);
	if (how->ignore_children)
		signal(SIGCHLD, SIG_IGN);
	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(err, STDERR_FILENO);
	if (how->extra_fd)
		fcntl(how->extra_fd, F_SETFD, 0);
	for (int fd = 0; how->no_standard_files && fd <= STDERR_FILENO; fd++)
		close(fd);
	execvp(argv[0], (char *const *)argv);
	_exit(99);
}

void command_start(struct command *c, const struct how *how, const char *const *argv)
{
	static const struct how plain;
	int in[2], out[2], err[2];

	if (!how)
		how = &plain;
	memset(c, 0, offsetof(struct command, out_text));
	c->out_text[0] = c->err_text[0] = '\0';
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(err, O_CLOEXEC), 0);
	c->pid = fork();
	assert_true(c->pid >= 0);
	if (!c->pid) {
		if (how->deaf)
			close(err[0]);
		child(how, argv, in[0], out[1], err[1]);
	}
	setpgid(c->pid, c->pid);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	c->in = in[1];
	c->out = out[0];
	c->err = err[0];
	if (how->deaf) {
		close(c->err);
		c->err = -1;
	}
	if (how->input) {
		assert_int_equal(write(c->in, how->input, how->input_len), how->input_len);
		command_close_input(c);
	}
}

static void take(int *fd, char *text, size_t *len)
{
	ssize_t n = read(*fd, text + *len, OUTPUT_MAX - 1 - *len);

	if (n > 0) {
		*len += n;
		text[*len] = '\0';
	} else if (n == 0 || errno != EINTR) {
		close(*fd);
		*fd = -1;
	}
}

/* One step of listening. False when there is nothing left to listen to. */
static bool listen_once(struct command *c, int timeout_ms)
{
	struct pollfd fds[] = {{.fd = c->out, .events = POLLIN}, {.fd = c->err, .events = POLLIN}};

	if (c->out < 0 && c->err < 0)
		return false;
	if (poll(fds, 2, timeout_ms) > 0) {
		if (fds[0].revents)
			take(&c->out, c->out_text, &c->out_len);
		if (fds[1].revents)
			take(&c->err, c->err_text, &c->err_len);
	}
	return true;
}

static void give_up(struct command *c, const char *why)
{
	print_error("%s\nstandard output:\n%s\nstandard error:\n%s\n", why, c->out_text,
		    c->err_text);
	kill(-c->pid, SIGKILL);
	fail();
}

static void expect(struct command *c, const char *where, const char *text)
{
	double end = seconds() + LIMIT;

	while (!strstr(where, text))
		if (!listen_once(c, 100) || seconds() > end)
			give_up(c, text);
}

void command_expect_output(struct command *c, const char *text)
{
	expect(c, c->out_text, text);
}

void command_expect_error(struct command *c, const char *text)
{
	expect(c, c->err_text, text);
}

bool command_output_ends(struct command *c)
{
	double end = seconds() + 5;

	while (c->out >= 0 && seconds() < end)
		listen_once(c, 100);
	return c->out < 0 && waitpid(c->pid, NULL, WNOHANG) == 0;
}

void command_close_input(struct command *c)
{
	if (c->in >= 0)
		close(c->in);
	c->in = -1;
}

void command_finish(struct command *c)
{
	double end = seconds() + LIMIT;

	command_close_input(c);
	while (!c->ended) {
		pid_t pid = waitpid(c->pid, &c->status, WNOHANG);

		c->ended = pid == c->pid;
		if (c->ended)
			break;
		if (seconds() > end)
			give_up(c, "it does not end");
		if (!listen_once(c, 5))
			nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	/* Nobody else should hold the other ends, but somebody might. */
	while (listen_once(c, 100) && seconds() < end)
		;
	if (c->out >= 0 || c->err >= 0)
		give_up(c, "somebody still holds its output");
}

void command_run(struct command *c, const struct how *how, const char *const *argv)
{
	command_start(c, how, argv);
	command_finish(c);
}

/* ---- what is expected ------------------------------------------------------------------------ */

void assert_exit(const struct command *c, int status)
{
	if (WIFEXITED(c->status) && WEXITSTATUS(c->status) == status)
		return;
	print_error("wait status %#x instead of exit status %d\nstandard output:\n%s\nstandard "
		    "error:\n%s\n",
		    c->status, status, c->out_text, c->err_text);
	fail();
}

void assert_signal(const struct command *c, int sig)
{
	if (WIFSIGNALED(c->status) && WTERMSIG(c->status) == sig)
		return;
	print_error("wait status %#x instead of signal %d\nstandard error:\n%s\n", c->status, sig,
		    c->err_text);
	fail();
}

void assert_says(const char *text, const char *part)
{
	if (strstr(text, part))
		return;
	print_error("\"%s\" is missing in:\n%s\n", part, text);
	fail();
}

void assert_not_says(const char *text, const char *part)
{
	if (!strstr(text, part))
		return;
	print_error("\"%s\" should not be in:\n%s\n", part, text);
	fail();
}

bool is_running(pid_t pid)
{
	return !kill(pid, 0) || errno != ESRCH;
}

void wait_gone(pid_t pid)
{
	double end = seconds() + LIMIT;

	while (is_running(pid)) {
		assert_true(seconds() < end);
		waitpid(pid, NULL, WNOHANG);
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
}
