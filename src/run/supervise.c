// SPDX-License-Identifier: MIT
/*
 * The supervisor's main thread: from launch to exit status.
 *
 * It waits for signals, the end of children among them; the workers and the sweeper of files.c do
 * the rest. It is a child subreaper, so every descendant of the program becomes its child sooner or
 * later and none is lost.
 *
 * Signals. A key at the terminal (SIGINT, SIGQUIT, SIGHUP) reaches the program by itself, being in
 * the same process group; one that somebody sent to us is passed on. (Who signals the whole group
 * with kill() makes the program see it twice: the kernel does not tell us that it was meant for
 * all.) Once the program has ended, a signal hastens the end of what it left behind. Our own end
 * mirrors the program's.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "run/calls.h"
#include "run/dispatch.h"
#include "run/files.h"
#include "run/helper.h"
#include "run/launch.h"

struct supervision {
	struct session *s;
	pid_t main_pid;
	int main_status;
	bool main_gone;
	bool no_children; /* every descendant has been reaped */
	int64_t ask_at; /* when to send the next signal to leftover processes, ms; 0 = not ending */
	unsigned int asked; /* how often they were signalled */
	int signals;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

/* ---- children -------------------------------------------------------------------------------- */

static void reap(struct supervision *v)
{
	int status;
	pid_t pid;

	for (;;) {
		pid = waitpid(-1, &status, WNOHANG);
		if (pid == 0)
			return;
		if (pid < 0) {
			v->no_children = errno == ECHILD;
			return;
		}
		if (pid == v->main_pid) {
			v->main_gone = true;
			v->main_status = status;
		}
	}
}

static pid_t parent_of(pid_t pid)
{
	char path[40], buf[512], *at;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fread(buf, 1, sizeof(buf) - 1, f);
	fclose(f);
	buf[n] = '\0';
	/* The name in parentheses may hold anything, even parentheses. */
	at = strrchr(buf, ')');
	return at && at[1] && at[2] && at[3] ? atoi(at + 4) : 0;
}

/* Signals our direct children; theirs become ours when they end. Returns how many there are. */
static unsigned int signal_children(int sig)
{
	unsigned int n = 0;
	struct dirent *d;
	DIR *proc = opendir("/proc");

	if (!proc)
		return 0;
	while ((d = readdir(proc))) {
		pid_t pid = atoi(d->d_name);

		if (pid <= 0 || parent_of(pid) != getpid())
			continue;
		n++;
		kill(pid, sig);
	}
	closedir(proc);
	return n;
}

#define GRACE_MS 2000
#define KILL_EVERY_MS 20

/* The program has ended and left processes behind: they are asked to end, then made to. */
static void end_leftovers(struct supervision *v)
{
	unsigned int n;

	if (now_ms() < v->ask_at)
		return;
	if (!v->asked) {
		n = signal_children(SIGTERM);
		signal_children(SIGCONT);
		if (n)
			session_say(v->s,
				    "the program has ended; ending %u process%s it left behind", n,
				    n == 1 ? "" : "es");
	} else {
		signal_children(SIGKILL);
	}
	v->ask_at = now_ms() + (v->asked++ ? KILL_EVERY_MS : GRACE_MS);
}

/* ---- events ---------------------------------------------------------------------------------- */

/* The program has ended, and somebody wants us to end too: no more waiting, no more grace. */
static void hasten(struct supervision *v, int sig)
{
	if (sig != SIGINT && sig != SIGTERM && sig != SIGHUP && sig != SIGQUIT)
		return;
	v->ask_at = 0;
	v->s->wait = false;
}

static void on_signals(struct supervision *v)
{
	struct signalfd_siginfo si;

	while (read(v->signals, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGCHLD)
			reap(v);
		else if (v->main_gone)
			hasten(v, si.ssi_signo);
		else if (si.ssi_code != SI_KERNEL)
			kill(v->main_pid, si.ssi_signo);
	}
}

static int next_timeout(const struct supervision *v)
{
	return v->main_gone && !v->s->wait ? (int)SWI_MAX(v->ask_at - now_ms(), 0) : -1;
}

static void supervise(struct supervision *v)
{
	struct pollfd fd = {.fd = v->signals, .events = POLLIN};

	reap(v);
	while (!v->no_children) {
		if (v->main_gone && !v->s->wait)
			end_leftovers(v);
		if (poll(&fd, 1, next_timeout(v)) > 0)
			on_signals(v);
		reap(v);
	}
}

static int block_signals(sigset_t *old)
{
	static const int signals[] = {SIGINT,  SIGQUIT, SIGTERM, SIGHUP,  SIGUSR1,
				      SIGUSR2, SIGALRM, SIGCHLD, SIGWINCH};
	sigset_t set;

	/* The program has what we were started with; for us, messages nobody reads and ends that
	 * nobody waits for. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	pthread_sigmask(SIG_BLOCK, &set, old);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* What a program left open when it ended has been released; that is told if it did not end by
 * itself. */
static void tell_end(struct supervision *v)
{
	struct files_orphans o;

	files_get_orphans(v->s->files, &o);
	if (!WIFSIGNALED(v->main_status) || !(o.contexts + o.devices))
		return;
	session_say(v->s,
		    "the program was ended by signal %d (%s); released what it held: %zu iommufd "
		    "context%s, %zu device%s",
		    WTERMSIG(v->main_status), strsignal(WTERMSIG(v->main_status)), o.contexts,
		    o.contexts == 1 ? "" : "s", o.devices, o.devices == 1 ? "" : "s");
}

/* The reader of the program's output must see its end when the program closes it, not when we do.
 */
static void detach_standard_files(const struct session *s)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	dup3(null, STDIN_FILENO, O_CLOEXEC);
	dup3(null, STDOUT_FILENO, O_CLOEXEC);
	/* Messages go to log_fd; what libraries and sanitizers say goes there too. */
	if (s->log_fd != STDERR_FILENO)
		dup3(s->log_fd, STDERR_FILENO, O_CLOEXEC);
	if (null > STDERR_FILENO)
		close(null);
}

/* A few descriptors for every process whose memory is mapped; the program keeps the limit that it
 * was started with. */
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int run_launched(struct session *s, struct launched *l, char **argv, int *wait_status)
{
	struct supervision v = {.s = s, .main_pid = l->pid};
	struct calls calls;
	sigset_t old;
	int rc;

	calls_init(&calls);
	s->calls = &calls;
	detach_standard_files(s);
	raise_file_limit();
	v.signals = block_signals(&old);
	if (v.signals < 0) {
		rc = -errno;
		goto abandon;
	}
	rc = files_create(s, &s->files);
	if (rc)
		goto restore;
	rc = rings_create(s, &s->rings);
	if (rc)
		goto destroy_files;
	rc = workers_start(s, &s->workers);
	if (rc)
		goto destroy_rings;
	if (l->restartable)
		session_say(s, "this kernel is older than 5.19: a signal handler of the program "
			       "may repeat a call");
	launch_go(s, l, argv);
	supervise(&v);
	workers_stop(s->workers);
	s->workers = NULL;
	rings_destroy(s->rings);
	s->rings = NULL;
	tell_end(&v);
	*wait_status = v.main_status;
	files_destroy(s->files);
	s->files = NULL;
	close(v.signals);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	calls_fini(&calls);
	return 0;

destroy_rings:
	rings_destroy(s->rings);
	s->rings = NULL;
destroy_files:
	files_destroy(s->files);
	s->files = NULL;
restore:
	close(v.signals);
abandon:
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	calls_fini(&calls);
	session_say(s, "cannot serve the program: %s", strerror(-rc));
	/* The child has not been let go: it ends when the channel closes. */
	close(l->channel);
	waitpid(l->pid, NULL, 0);
	return rc;
}

int session_run(struct session *s, char **argv, int *wait_status)
{
	struct launched l;
	int rc;

	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	rc = launch_prepare(s, argv, &l);
	if (rc)
		return rc;
	rc = run_launched(s, &l, argv, wait_status);
	return rc;
}
