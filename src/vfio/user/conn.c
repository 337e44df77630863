// SPDX-License-Identifier: MIT
/*
 * The transport of vfio-user: see conn.h; spec vfio.md 6.1.
 *
 * Sockets are never blocked on: every send and receive is tried, and waited for with poll() up to a deadline. A
 * message is the header, which says how long the rest is, and that rest; once it has begun it must end within the
 * timeout. Descriptors may come with any part of it and are collected; more than we said we take is a
 * breach, and all that nobody asked for are closed.
 *
 * A reply is checked against the one call that waits: id, command, type, size. Anything else is a breach too.
 * After a breach nothing on the stream can be trusted, so there is no attempt to go on.
 *
 * Closing. The sockets are shut down by whoever fails the connection, which ends all waiting on them, and
 * closed later by vu_conn_close(), with both the call and the send lock held: nobody uses the numbers then.
 */
#include "vfio/user/conn.h"

#include "base/alloc.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

/* ---- life ------------------------------------------------------------------------------------ */

int vu_conn_init(struct vu_conn *c, const struct vu_conn_ops *ops, unsigned int timeout_ms)
{
	pthread_condattr_t attr;

	memset(c, 0, sizeof(*c));
	c->ops = ops;
	c->timeout_ms = timeout_ms;
	c->sock = c->twin = c->cancel = -1;
	c->rx = swi_alloc(VU_MAX_MESSAGE);
	c->tx_buf = swi_alloc(VU_MAX_DATA);
	if (!c->rx || !c->tx_buf) {
		swi_free(c->rx);
		swi_free(c->tx_buf);
		return -ENOMEM;
	}
	pthread_mutex_init(&c->call, NULL);
	pthread_mutex_init(&c->tx, NULL);
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &attr);
	pthread_condattr_destroy(&attr);
	return 0;
}

void vu_conn_fini(struct vu_conn *c)
{
	vu_conn_close(c);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->tx);
	pthread_mutex_destroy(&c->call);
	swi_free(c->tx_buf);
	swi_free(c->rx);
}

/* Wakes all who wait. Returns whether there was anything to lose. */
static bool give_up(struct vu_conn *c)
{
	bool was;

	pthread_mutex_lock(&c->lock);
	was = !vu_conn_is(c, VU_LOST);
	atomic_store(&c->state, VU_LOST);
	pthread_cond_broadcast(&c->changed);
	if (was)
		shutdown(c->sock, SHUT_RDWR);
	if (was && c->twin >= 0)
		shutdown(c->twin, SHUT_RDWR);
	pthread_mutex_unlock(&c->lock);
	return was;
}

int vu_conn_fail(struct vu_conn *c, const char *fmt, ...)
{
	char why[160];
	va_list ap;

	if (!give_up(c))
		return -EIO;
	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	c->ops->lost(c, why);
	return -EIO;
}

static void set_fd(int *fd, int to)
{
	if (*fd >= 0)
		close(*fd);
	*fd = to;
}

static void set_socks(struct vu_conn *c, int sock, int twin)
{
	pthread_mutex_lock(&c->call);
	pthread_mutex_lock(&c->tx);
	pthread_mutex_lock(&c->lock);
	set_fd(&c->twin, twin);
	set_fd(&c->sock, sock);
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_unlock(&c->tx);
	pthread_mutex_unlock(&c->call);
}

void vu_conn_close(struct vu_conn *c)
{
	give_up(c);
	set_socks(c, -1, -1);
}

void vu_conn_set_twin(struct vu_conn *c, int twin)
{
	pthread_mutex_lock(&c->lock);
	c->twin = twin;
	pthread_mutex_unlock(&c->lock);
}

void vu_conn_set_reading(struct vu_conn *c, bool reading)
{
	pthread_mutex_lock(&c->call);
	c->reading = reading;
	c->reader = pthread_self();
	pthread_mutex_unlock(&c->call);
}

int vu_conn_go_live(struct vu_conn *c)
{
	int rc = -EIO;

	pthread_mutex_lock(&c->lock);
	if (vu_conn_is(c, VU_SETUP)) {
		atomic_store(&c->state, VU_LIVE);
		rc = 0;
	}
	pthread_mutex_unlock(&c->lock);
	return rc;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* Waits for an event on a socket. 0, -ETIMEDOUT. */
static int wait_for(int sock, short events, int64_t deadline)
{
	struct pollfd p = {.fd = sock, .events = events};
	int64_t left = deadline - now_ms();

	if (left <= 0)
		return -ETIMEDOUT;
	return poll(&p, 1, (int)SWI_MIN(left, 60000)) < 0 && errno != EINTR ? -errno : 0;
}

static bool may_wait(void)
{
	return errno == EAGAIN || errno == EINTR;
}

static void attach_fds(struct msghdr *msg, void *control, const int *fds, unsigned int nr_fds)
{
	struct cmsghdr *cm;

	msg->msg_control = control;
	msg->msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
	cm = CMSG_FIRSTHDR(msg);
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
	memcpy(CMSG_DATA(cm), fds, nr_fds * sizeof(int));
}

/* Drops the first `n` bytes of a list of parts. */
static void advance(struct msghdr *msg, size_t n)
{
	while (msg->msg_iovlen && n >= msg->msg_iov->iov_len) {
		n -= msg->msg_iov->iov_len;
		msg->msg_iov++;
		msg->msg_iovlen--;
	}
	if (msg->msg_iovlen) {
		msg->msg_iov->iov_base = (char *)msg->msg_iov->iov_base + n;
		msg->msg_iov->iov_len -= n;
	}
}

/* Sends a message whole, the descriptors with its first byte. tx held. */
static int send_locked(struct vu_conn *c, int sock, struct iovec *iov, size_t nr_iov,
		       const int *fds, unsigned int nr_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(VU_MAX_FDS * sizeof(int))];
	} control = {.bytes = {0}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = nr_iov};
	int64_t deadline = now_ms() + c->timeout_ms;
	ssize_t n;
	int rc;

	if (nr_fds)
		attach_fds(&msg, &control, fds, nr_fds);
	advance(&msg, 0);
	while (msg.msg_iovlen) {
		n = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && !may_wait())
			return -errno;
		if (n < 0) {
			rc = wait_for(sock, POLLOUT, deadline);
			if (rc)
				return rc;
			continue;
		}
		msg.msg_control = NULL;
		msg.msg_controllen = 0;
		advance(&msg, (size_t)n);
	}
	return 0;
}

/* A message that arrives. */
struct incoming {
	struct vu_header h;
	size_t len; /* of the body, in conn->rx */
	int fds[VU_MAX_FDS];
	unsigned int nr_fds;
	bool flood; /* more descriptors than that */
};

static void drop_fds(struct incoming *in)
{
	while (in->nr_fds)
		close(in->fds[--in->nr_fds]);
}

static void take_fds(struct incoming *in, struct msghdr *msg)
{
	struct cmsghdr *cm;

	in->flood |= msg->msg_flags & MSG_CTRUNC;
	for (cm = CMSG_FIRSTHDR(msg); cm; cm = CMSG_NXTHDR(msg, cm)) {
		size_t n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cm) + i * sizeof(fd), sizeof(fd));
			if (in->nr_fds < VU_MAX_FDS) {
				in->fds[in->nr_fds++] = fd;
			} else {
				close(fd);
				in->flood = true;
			}
		}
	}
}

/* Exactly `len` bytes. 0, -ETIMEDOUT, -EPIPE at the end of the stream, or another errno. */
static int receive_bytes(int sock, void *buf, size_t len, struct incoming *in, int64_t deadline)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(VU_MAX_FDS * sizeof(int))];
	} control;
	ssize_t n;
	int rc;

	while (len) {
		struct iovec iov = {buf, len};
		struct msghdr msg = {.msg_iov = &iov,
				     .msg_iovlen = 1,
				     .msg_control = &control,
				     .msg_controllen = sizeof(control)};

		n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n < 0 && !may_wait())
			return -errno;
		if (n < 0) {
			rc = wait_for(sock, POLLIN, deadline);
			if (rc)
				return rc;
			continue;
		}
		take_fds(in, &msg);
		if (!n)
			return -EPIPE;
		buf = (char *)buf + n;
		len -= (size_t)n;
	}
	return 0;
}

static int fail_receive(struct vu_conn *c, int rc, const char *what)
{
	if (rc == -ETIMEDOUT)
		return vu_conn_fail(c, "no %s within %u ms", what, c->timeout_ms);
	if (rc == -EPIPE || rc == -ECONNRESET)
		return vu_conn_fail(c, "the server has closed the connection");
	return vu_conn_fail(c, "receiving failed: %s", strerror(-rc));
}

/* One message, its header first. What it begins must come to its end. */
static int receive_message(struct vu_conn *c, int sock, struct incoming *in)
{
	int64_t deadline = now_ms() + c->timeout_ms;
	int rc;

	in->nr_fds = 0;
	in->flood = false;
	rc = receive_bytes(sock, &in->h, sizeof(in->h), in, deadline);
	if (rc)
		return fail_receive(c, rc, "end of a header");
	if (in->h.size < sizeof(in->h) || in->h.size > VU_MAX_MESSAGE)
		return vu_conn_fail(c, "a message of %u bytes", in->h.size);
	in->len = in->h.size - sizeof(in->h);
	rc = receive_bytes(sock, c->rx, in->len, in, deadline);
	if (rc)
		return fail_receive(c, rc, "rest of a message");
	if (in->flood)
		return vu_conn_fail(c, "more than %u descriptors with a message", VU_MAX_FDS);
	return 0;
}

/* ---- messages -------------------------------------------------------------------------------- */

void vu_conn_reply(struct vu_conn *c, int sock, const struct vu_header *command, int error,
		   const void *head, size_t head_len, const void *data, size_t data_len)
{
	struct vu_header h = {.id = command->id,
			      .cmd = command->cmd,
			      .size = (uint32_t)(sizeof(h) + (error ? 0 : head_len + data_len)),
			      .flags = VU_TYPE_REPLY | (error ? VU_ERROR : 0),
			      .error = (uint32_t)error};
	struct iovec iov[] = {{&h, sizeof(h)},
			      {(void *)(uintptr_t)head, head_len},
			      {(void *)(uintptr_t)data, data_len}};
	int rc;

	if (command->flags & VU_NO_REPLY)
		return;
	pthread_mutex_lock(&c->tx);
	rc = send_locked(c, sock, iov, error ? 1 : ARRAY_SIZE(iov), NULL, 0);
	pthread_mutex_unlock(&c->tx);
	if (rc)
		vu_conn_fail(c, "a DMA reply cannot be sent: %s", strerror(-rc));
}

/* What is wrong with a reply to `call`; NULL: nothing. lock held. */
static const char *check_reply_locked(struct vu_conn *c, const struct incoming *in)
{
	const struct vu_call *call = c->waiting;

	if (!call || c->done)
		return "a reply that nobody waits for";
	if (in->h.id != c->waiting_id)
		return "a reply to another message";
	if (in->h.cmd != call->cmd)
		return "a reply to another command";
	if (in->h.flags & VU_ERROR)
		return in->h.error && in->h.error < 4096 ? NULL : "an error reply without an errno";
	if (in->len < call->reply_min || in->len > call->reply_max)
		return "a reply of the wrong size";
	return NULL;
}

static void fill_reply(struct vu_call *call, struct incoming *in, const uint8_t *body)
{
	unsigned int n = SWI_MIN(in->nr_fds, call->max_reply_fds);

	if (in->len)
		memcpy(call->reply, body, in->len);
	call->reply_len = in->len;
	if (!n)
		return;
	memcpy(call->reply_fds, in->fds, n * sizeof(int));
	memmove(in->fds, in->fds + n, (in->nr_fds - n) * sizeof(int));
	call->nr_reply_fds = n;
	in->nr_fds -= n;
}

static int take_reply(struct vu_conn *c, struct incoming *in)
{
	struct vu_call *call;
	const char *wrong;

	pthread_mutex_lock(&c->lock);
	wrong = check_reply_locked(c, in);
	if (!wrong) {
		call = c->waiting;
		c->done = true;
		c->result = in->h.flags & VU_ERROR ? -(int)in->h.error : 0;
		if (!c->result)
			fill_reply(call, in, c->rx);
		pthread_cond_broadcast(&c->changed);
	}
	pthread_mutex_unlock(&c->lock);
	return wrong ? vu_conn_fail(c, "%s (command %u)", wrong, in->h.cmd) : 0;
}

static int act_on(struct vu_conn *c, int sock, struct incoming *in)
{
	uint32_t type = in->h.flags & VU_TYPE_MASK;

	if (type == VU_TYPE_REPLY && sock == c->sock)
		return take_reply(c, in);
	if (type != VU_TYPE_COMMAND)
		return vu_conn_fail(c, "a message with flags 0x%x", in->h.flags);
	if (in->h.cmd == VU_DMA_READ || in->h.cmd == VU_DMA_WRITE)
		c->ops->serve(c, sock, &in->h, c->rx, in->len);
	else
		vu_conn_reply(c, sock, &in->h, ENOTSUP, NULL, 0, NULL, 0);
	return vu_conn_is(c, VU_LOST) ? -EIO : 0;
}

int vu_conn_receive(struct vu_conn *c, int sock)
{
	struct incoming in;
	int rc = receive_message(c, sock, &in);

	if (!rc)
		rc = act_on(c, sock, &in);
	drop_fds(&in);
	return rc;
}

/* ---- calls ----------------------------------------------------------------------------------- */

/* Whether this thread may call now. *pump: and reads the reply itself. call held. */
static bool may_call(struct vu_conn *c, bool *pump)
{
	bool ok;

	pthread_mutex_lock(&c->lock);
	ok = vu_conn_is(c, VU_LIVE);
	*pump = !c->reading || pthread_equal(c->reader, pthread_self());
	if (vu_conn_is(c, VU_SETUP)) {
		ok = pthread_equal(c->setup_thread, pthread_self());
		*pump = true;
	}
	pthread_mutex_unlock(&c->lock);
	return ok;
}

static int send_call(struct vu_conn *c, struct vu_call *call, uint16_t id)
{
	struct vu_header h = {.id = id,
			      .cmd = call->cmd,
			      .size = (uint32_t)(sizeof(h) + call->head_len + call->data_len),
			      .flags = VU_TYPE_COMMAND};
	struct iovec iov[] = {{&h, sizeof(h)},
			      {(void *)(uintptr_t)call->head, call->head_len},
			      {(void *)(uintptr_t)call->data, call->data_len}};
	int rc;

	pthread_mutex_lock(&c->tx);
	rc = send_locked(c, c->sock, iov, ARRAY_SIZE(iov), call->fds, call->nr_fds);
	pthread_mutex_unlock(&c->tx);
	if (rc == -ETIMEDOUT)
		return vu_conn_fail(c, "the server has taken no message for %u ms", c->timeout_ms);
	if (rc == -EPIPE || rc == -ECONNRESET)
		return vu_conn_fail(c, "the server has closed the connection");
	return rc ? vu_conn_fail(c, "sending failed: %s", strerror(-rc)) : 0;
}

static bool is_done(struct vu_conn *c)
{
	bool done;

	pthread_mutex_lock(&c->lock);
	done = c->done;
	pthread_mutex_unlock(&c->lock);
	return done;
}

/* While setting up: whether that is to end. */
static int check_setup(struct vu_conn *c, int64_t now, bool cancelled)
{
	if (!vu_conn_is(c, VU_SETUP))
		return 0;
	if (cancelled)
		return vu_conn_fail(c, "the device is being closed");
	if (now > c->setup_until)
		return vu_conn_fail(c, "it takes too long to get to know the server");
	return 0;
}

/*
 * Until the reply is there, by reading ourselves. The server may have to do some DMA before it answers, and may send its
 * own commands as fast as it likes.
 */
static int pump(struct vu_conn *c, int64_t deadline)
{
	int rc = 0;

	while (!rc && !is_done(c)) {
		bool setup = vu_conn_is(c, VU_SETUP);
		struct pollfd p[] = {{.fd = c->sock, .events = POLLIN},
				     {.fd = c->twin, .events = POLLIN},
				     {.fd = setup ? c->cancel : -1, .events = POLLIN}};
		int64_t now = now_ms();

		if (now >= deadline)
			return vu_conn_fail(c, "no answer within %u ms", c->timeout_ms);
		if (poll(p, ARRAY_SIZE(p), (int)SWI_MIN(deadline - now, 60000)) <= 0)
			continue;
		rc = check_setup(c, now, p[2].revents);
		if (!rc && p[1].revents)
			rc = vu_conn_receive(c, c->twin);
		if (!rc && p[0].revents)
			rc = vu_conn_receive(c, c->sock);
	}
	return rc;
}

/* The same while another thread reads. */
static int wait_done(struct vu_conn *c, int64_t deadline)
{
	struct timespec until = {deadline / 1000, deadline % 1000 * 1000000};
	bool done;
	int rc = 0;

	pthread_mutex_lock(&c->lock);
	while (!c->done && vu_conn_is(c, VU_LIVE) && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&c->changed, &c->lock, &until);
	done = c->done;
	pthread_mutex_unlock(&c->lock);
	return done ? 0 : vu_conn_fail(c, "no answer within %u ms", c->timeout_ms);
}

static void set_waiting(struct vu_conn *c, struct vu_call *call, uint16_t id)
{
	pthread_mutex_lock(&c->lock);
	c->waiting = call;
	c->waiting_id = id;
	c->done = false;
	pthread_mutex_unlock(&c->lock);
}

int vu_call(struct vu_conn *c, struct vu_call *call)
{
	int64_t deadline;
	uint16_t id;
	bool self;
	int rc;

	call->nr_reply_fds = 0;
	call->reply_len = 0;
	pthread_mutex_lock(&c->call);
	if (!may_call(c, &self)) {
		rc = -EIO;
		goto out;
	}
	id = c->next_id++;
	set_waiting(c, call, id);
	rc = send_call(c, call, id);
	deadline = now_ms() + c->timeout_ms;
	if (!rc)
		rc = self ? pump(c, deadline) : wait_done(c, deadline);
	pthread_mutex_lock(&c->lock);
	/* The reply has come, perhaps together with the end: it counts. */
	if (c->done)
		rc = c->result;
	c->waiting = NULL;
	pthread_mutex_unlock(&c->lock);
out:
	pthread_mutex_unlock(&c->call);
	return rc;
}

/* ---- connecting ------------------------------------------------------------------------------ */

static int connect_to(const char *path, struct swi_reason *why)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int sock, rc;

	if (strlen(path) >= sizeof(addr.sun_path))
		return swi_fail(why, -ENAMETOOLONG, "socket %s: the path is too long", path);
	memcpy(addr.sun_path, path, strlen(path));
	/* Not blocking: a server that accepts nobody and has a full queue gives EAGAIN. */
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock < 0)
		return swi_fail(why, -errno, "no socket: %s", strerror(errno));
	if (!connect(sock, (struct sockaddr *)&addr, sizeof(addr)))
		return sock;
	rc = errno == EAGAIN ? -EBUSY : -errno;
	close(sock);
	return swi_fail(why, rc, "socket %s: %s%s", path, strerror(-rc),
			rc == -ENOENT || rc == -ECONNREFUSED
				? "; no server listens there (wait=SECONDS waits for one)"
				: "");
}

int vu_conn_open(struct vu_conn *c, const char *path, struct swi_reason *why)
{
	int sock = connect_to(path, why);
	int rc;

	if (sock < 0)
		return sock;
	give_up(c);
	set_socks(c, sock, -1);
	c->setup_until = now_ms() + 10ll * c->timeout_ms;
	pthread_mutex_lock(&c->lock);
	c->setup_thread = pthread_self();
	atomic_store(&c->state, VU_SETUP);
	pthread_mutex_unlock(&c->lock);
	rc = vu_negotiate(c, why);
	if (rc)
		vu_conn_close(c);
	return rc;
}
