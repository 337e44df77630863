// SPDX-License-Identifier: MIT
/*
 * Launching. The child makes its namespaces and tree and installs the filter, then sends the listener
 * and its root directory to the supervisor in one message and waits. When the supervisor serves
 * notifications it says go, and the child execs; its end of the channel closes on exec, so
 * end-of-file means success and an errno means failure.
 *
 * Through the root directory, which is in the program's mount namespace, the supervisor opens each
 * node once. These are our own open files (for lock queries and inotify); the program never sees
 * them.
 */
#include "run/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "run/filter.h"
#include "run/helper.h"
#include "run/tree.h"

/* What the child sends: its listener and its root directory. */
enum { FD_LISTENER, FD_ROOT, NR_FDS };

/* What the child reports when it is ready, or why it is not. */
struct report {
	int error; /* 0 or negative errno */
	bool unprivileged, restartable;
	struct tree_error err;
};

/* ---- the child ------------------------------------------------------------------------------- */

static void send_report(int channel, const struct report *r, const int *fds, size_t nr_fds)
{
	char control[CMSG_SPACE(NR_FDS * sizeof(int))] = {0};
	struct iovec iov = {(void *)r, sizeof(*r)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;

	if (nr_fds) {
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nr_fds * sizeof(int));
	}
	(void)!sendmsg(channel, &msg, MSG_NOSIGNAL);
}

static void child_fail(int channel, struct report *r, int error)
{
	r->error = error;
	send_report(channel, r, NULL, 0);
	_exit(125);
}

static int install_filter(const struct run_filter *filter, struct report *r)
{
	int fd;

	/* Only a privileged process may install a filter and keep set-user-id programs working. */
	if (r->unprivileged && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	fd = run_filter_install(filter, &r->restartable);
	if (fd == -EACCES && !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		fd = run_filter_install(filter, &r->restartable);
	if (fd == -EBUSY)
		snprintf(r->err.what, sizeof(r->err.what),
			 "another supervisor listens to this process' system calls already: "
			 "swiommu cannot run inside "
			 "swiommu or a container manager that uses seccomp user notification");
	else if (fd < 0)
		snprintf(r->err.what, sizeof(r->err.what),
			 "cannot install a seccomp filter with user notification");
	return fd;
}

static void child_main(struct session *s, char **argv, int channel, const struct run_filter *filter,
		       const sigset_t *mask)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	mode_t old_umask = umask(022);
	struct report r = {0};
	int fds[NR_FDS];
	char go;
	int rc;

	rc = tree_enter_namespaces(&r.unprivileged, &r.err);
	if (!rc)
		rc = tree_build(s, &r.err);
	if (!rc)
		rc = tree_leave_root(r.unprivileged, uid, gid, &r.err);
	if (rc)
		child_fail(channel, &r, rc);
	umask(old_umask);
	/* Without its supervisor the program has no devices: it is asked to end. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	fds[FD_ROOT] = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fds[FD_ROOT] < 0)
		child_fail(channel, &r, -errno);
	fds[FD_LISTENER] = install_filter(filter, &r);
	if (fds[FD_LISTENER] < 0)
		child_fail(channel, &r, fds[FD_LISTENER]);
	send_report(channel, &r, fds, NR_FDS);
	/* The listener must live in the supervisor only: if that dies, our calls fail instead of
	 * hanging. */
	for (size_t i = 0; i < NR_FDS; i++)
		close(fds[i]);
	if (read(channel, &go, 1) != 1)
		_exit(125);
	sigprocmask(SIG_SETMASK, mask, NULL);
	helper_set_environment(s->helper);
	execvp(argv[0], argv);
	rc = errno;
	(void)!write(channel, &rc, sizeof(rc));
	_exit(rc == ENOENT ? 127 : 126);
}

/* ---- the parent ------------------------------------------------------------------------------ */

static int receive_report(int channel, struct report *r, int *fds, size_t *nr_fds)
{
	char control[CMSG_SPACE(NR_FDS * sizeof(int))];
	struct iovec iov = {r, sizeof(*r)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	ssize_t n;

	do {
		n = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC | MSG_WAITALL);
	} while (n < 0 && errno == EINTR);
	*nr_fds = 0;
	if (n != sizeof(*r))
		return -EPIPE;
	for (c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		*nr_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), *nr_fds * sizeof(int));
	}
	return 0;
}

/* Opens the nodes below the program's root directory. */
static int take_nodes(struct session *s, int root)
{
	for (size_t i = 0; i < s->nr_nodes; i++) {
		struct node *n = &s->nodes[i];
		struct stat st;

		n->fd = openat(root, n->path + 1, O_RDWR | O_CLOEXEC);
		if (n->fd < 0 || fstat(n->fd, &st)) {
			int rc = -errno;

			session_say(s, "cannot open the program's %s: %s", n->path, strerror(-rc));
			return rc;
		}
		n->st_dev = st.st_dev;
		n->st_ino = st.st_ino;
	}
	for (size_t i = 0; i < s->nr_nodes; i++) {
		const struct session_device *d = s->nodes[i].device;
		int rc = d ? vfio_device_set_node(d->dev, s->nodes[i].fd) : 0;

		if (rc) {
			session_say(s, "%s: no room for the device's pages: %s", s->nodes[i].path,
				    strerror(-rc));
			return rc;
		}
	}
	return 0;
}

static int adopt_child(struct session *s, struct launched *l)
{
	struct report r;
	int fds[NR_FDS];
	size_t nr_fds;
	int rc;

	rc = receive_report(l->channel, &r, fds, &nr_fds);
	if (rc) {
		session_say(s, "the child ended before it was ready");
		return rc;
	}
	if (r.error) {
		session_say(s, "%s: %s (swiommu doctor tells what this machine lacks)", r.err.what,
			    strerror(-r.error));
		return r.error;
	}
	if (nr_fds != NR_FDS) {
		session_say(
			s,
			"descriptors were lost on the way from the child (limit on open files?)");
		for (size_t i = 0; i < nr_fds; i++)
			close(fds[i]);
		return -EMFILE;
	}
	if (r.err.what[0])
		session_say(s, "%s", r.err.what);
	s->listener = fds[FD_LISTENER];
	l->unprivileged = s->unprivileged = r.unprivileged;
	l->restartable = r.restartable;
	rc = take_nodes(s, fds[FD_ROOT]);
	close(fds[FD_ROOT]);
	return rc;
}

int launch_prepare(struct session *s, char **argv, struct launched *out)
{
	struct run_filter_options filter_options = {
		.opens = s->testabi, .groups = s->nr_groups, .stat_paths = s->stat_paths};
	struct run_filter filter;
	sigset_t all, mask;
	int pair[2], rc;

	/* The fail-nth files of the test ABI are written at position 0. */
	filter_options.bar0_limit = SWI_MAX(session_bar0_limit(s), s->testabi ? 1 : 0);
	rc = run_filter_build(&filter_options, &filter);
	if (rc) {
		session_say(s, "cannot build the seccomp filter: %s", strerror(-rc));
		return rc;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		rc = -errno;
		goto free_filter;
	}
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &mask);
	out->pid = fork();
	if (!out->pid) {
		close(pair[0]);
		child_main(s, argv, pair[1], &filter, &mask);
	}
	rc = out->pid < 0 ? -errno : 0;
	sigprocmask(SIG_SETMASK, &mask, NULL);
	close(pair[1]);
	out->channel = pair[0];
	if (!rc) {
		rc = adopt_child(s, out);
		if (rc)
			waitpid(out->pid, NULL, 0);
	}
	if (rc)
		close(pair[0]);
free_filter:
	run_filter_free(&filter);
	return rc;
}

void launch_go(struct session *s, struct launched *l, char **argv)
{
	int error = 0;
	ssize_t n;

	(void)!send(l->channel, "g", 1, MSG_NOSIGNAL);
	do {
		n = read(l->channel, &error, sizeof(error));
	} while (n < 0 && errno == EINTR);
	close(l->channel);
	if (n == sizeof(error))
		session_say(s, "%s: %s", argv[0], strerror(error));
}
