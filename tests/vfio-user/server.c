// SPDX-License-Identifier: MIT
/*
 * The test server: see server.h. One thread; everything blocks, but every wait ends when the server is stopped.
 *
 * answer() is the one place where messages go out in reply, and where faults happen. The server takes note of whatever a
 * client does against the protocol ("violations"), which the tests look at in the end.
 */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PAGE 4096u
#define BAR0_SIZE 0x3000u
#define DATA_MAX (1u << 20)
#define BODY_MAX (DATA_MAX + 64)
#define FDS_MAX 64
#define MAPS_MAX 4096
#define NR_MSIX 8
#define NR_MSI 4

enum { TYPE_COMMAND = 0, TYPE_REPLY = 1, NO_REPLY = 0x10, IS_ERROR = 0x20 };

struct header {
	uint16_t id, cmd;
	uint32_t size, flags, error;
};

struct message {
	struct header h;
	uint8_t *body;
	uint32_t len;
	int fds[FDS_MAX];
	unsigned int nr_fds;
	bool full;
};

struct map {
	uint64_t address, size;
	uint32_t flags;
	uint8_t *host; /* NULL: by messages */
};

struct server {
	struct server_options opt;
	char path[108];
	int listener, stop, sock, twin;
	pthread_t thread;
	struct message in, pending;
	uint8_t *scratch;
	uint16_t next_id;
	unsigned int sent;
	uint64_t logged[2]; /* iova, length */
	/* The device. */
	int memory; /* a memfd: BAR0 */
	uint8_t *bar0;
	uint8_t bar1[PAGE], bar2[16], config[4096];
	uint64_t regs[16];
	struct map maps[MAPS_MAX];
	unsigned int nr_maps;
	int irqs[3][NR_MSIX];
	unsigned int later; /* GO_*, to be done after the answer */
	pthread_mutex_t lock;
	struct server_stats stats; /* lock */
	_Atomic unsigned int fault;
};

__attribute__((format(printf, 2, 3))) static void violation(struct server *s, const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&s->lock);
	if (!s->stats.violations++) {
		va_start(ap, fmt);
		vsnprintf(s->stats.violation, sizeof(s->stats.violation), fmt, ap);
		va_end(ap);
	}
	pthread_mutex_unlock(&s->lock);
}

static void count(struct server *s, unsigned int *what)
{
	pthread_mutex_lock(&s->lock);
	++*what;
	pthread_mutex_unlock(&s->lock);
}

/* ---- the wire -------------------------------------------------------------------------------- */

static bool wait_on(struct server *s, int fd, short events)
{
	struct pollfd p[] = {{.fd = s->stop, .events = POLLIN}, {.fd = fd, .events = events}};

	while (poll(p, 2, -1) < 0)
		;
	return !p[0].revents;
}

static bool send_bytes(struct server *s, int fd, const void *buf, size_t len, const int *fds,
		       unsigned int nr_fds)
{
	char control[CMSG_SPACE(253 * sizeof(int))] = {0};

	while (len) {
		struct iovec iov = {(void *)(uintptr_t)buf, len};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n;

		if (nr_fds) {
			struct cmsghdr *c;

			msg.msg_control = control;
			msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
			c = CMSG_FIRSTHDR(&msg);
			c->cmsg_level = SOL_SOCKET;
			c->cmsg_type = SCM_RIGHTS;
			c->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
			memcpy(CMSG_DATA(c), fds, nr_fds * sizeof(int));
		}
		n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN && wait_on(s, fd, POLLOUT))
			continue;
		if (n < 0)
			return false;
		nr_fds = 0;
		buf = (const char *)buf + n;
		len -= (size_t)n;
	}
	return true;
}

static bool receive_bytes(struct server *s, int fd, void *buf, size_t len, struct message *m)
{
	char control[CMSG_SPACE(FDS_MAX * sizeof(int))];

	while (len) {
		struct iovec iov = {buf, len};
		struct msghdr msg = {.msg_iov = &iov,
				     .msg_iovlen = 1,
				     .msg_control = control,
				     .msg_controllen = sizeof(control)};
		struct cmsghdr *c;
		ssize_t n;

		if (!wait_on(s, fd, POLLIN))
			return false;
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
		if (n <= 0)
			return false;
		for (c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
			size_t got = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

			memcpy(m->fds + m->nr_fds, CMSG_DATA(c), got * sizeof(int));
			m->nr_fds += got;
		}
		buf = (char *)buf + n;
		len -= (size_t)n;
	}
	return true;
}

static void close_fds(struct message *m)
{
	while (m->nr_fds)
		close(m->fds[--m->nr_fds]);
}

static bool receive(struct server *s, int fd, struct message *m)
{
	m->nr_fds = 0;
	m->full = false;
	if (!receive_bytes(s, fd, &m->h, sizeof(m->h), m))
		return false;
	if (m->h.size < sizeof(m->h) || m->h.size - sizeof(m->h) > BODY_MAX) {
		violation(s, "a message of %u bytes", m->h.size);
		return false;
	}
	m->len = m->h.size - sizeof(m->h);
	if (!receive_bytes(s, fd, m->body, m->len, m))
		return false;
	m->full = true;
	return true;
}

/* Sometimes: a byte, a bit, or the length of the message in s->scratch is another. Returns the length of its body. */
static uint32_t mutate(struct server *s, uint32_t len)
{
	unsigned int *seed = &s->opt.mutate;
	uint32_t size = sizeof(struct header) + len;

	if (!*seed || s->sent++ < s->opt.mutate_after || rand_r(seed) % 12)
		return len;
	for (int i = rand_r(seed) % 3; i >= 0; i--) {
		uint32_t at = (uint32_t)rand_r(seed) %
			      (rand_r(seed) % 2 ? 16 : (size < 128 ? size : 128));

		if (rand_r(seed) % 2)
			s->scratch[at] ^= (uint8_t)(1 << rand_r(seed) % 8);
		else
			s->scratch[at] = (uint8_t)rand_r(seed);
	}
	return rand_r(seed) % 4 ? len : len - (uint32_t)rand_r(seed) % (len + 1);
}

static bool send_message(struct server *s, int fd, const struct header *h, const void *body,
			 uint32_t len, const int *fds, unsigned int nr_fds)
{
	/* In one go, as the protocol demands of both sides. */
	memcpy(s->scratch, h, sizeof(*h));
	if (len)
		memcpy(s->scratch + sizeof(*h), body, len);
	len = mutate(s, len);
	return send_bytes(s, fd, s->scratch, sizeof(*h) + len, fds, nr_fds);
}

/* ---- DMA by messages ------------------------------------------------------------------------- */

struct dma {
	uint64_t address, count;
};

/* Sends a command of ours and waits for its reply: 0 or an errno, -1 when the client is gone. */
static int command(struct server *s, uint16_t cmd, const void *body, uint32_t len, void *reply,
		   uint32_t reply_len, uint32_t flags)
{
	int fd = s->twin >= 0 ? s->twin : s->sock;
	struct header h = {.id = s->next_id++, .cmd = cmd, .size = sizeof(h) + len, .flags = flags};
	struct message m = {.body = malloc(BODY_MAX)};
	int rc = -1;

	count(s, &s->stats.messages);
	if (!send_message(s, fd, &h, body, len, NULL, 0))
		goto out;
	if (flags & NO_REPLY) {
		rc = 0;
		goto out;
	}
	for (;;) {
		if (!receive(s, fd, &m))
			goto out;
		if ((m.h.flags & 0xf) == TYPE_REPLY)
			break;
		/* A command of the client, amid our own: taken care of later. */
		count(s, &s->stats.collisions);
		if (s->pending.full) {
			violation(s, "two commands at once");
			goto out;
		}
		memcpy(s->pending.body, m.body, m.len);
		s->pending.h = m.h;
		s->pending.len = m.len;
		memcpy(s->pending.fds, m.fds, sizeof(m.fds));
		s->pending.nr_fds = m.nr_fds;
		s->pending.full = true;
	}
	if (m.h.id != h.id || m.h.cmd != cmd)
		violation(s, "a reply to %u/%u instead of %u/%u", m.h.id, m.h.cmd, h.id, cmd);
	rc = m.h.flags & IS_ERROR ? (int)m.h.error : 0;
	if (!rc && m.len != reply_len)
		violation(s, "a reply of %u bytes to command %u, not %u", m.len, cmd, reply_len);
	else if (!rc && reply)
		memcpy(reply, m.body, reply_len);
out:
	free(m.body);
	return rc;
}

static int message_read(struct server *s, uint64_t address, void *buf, uint64_t len)
{
	struct dma d = {address, len};
	uint8_t *reply = malloc(sizeof(d) + len);
	int rc = command(s, CMD_DMA_READ, &d, sizeof(d), reply, (uint32_t)(sizeof(d) + len), 0);

	if (!rc && memcmp(reply, &d, sizeof(d)))
		violation(s, "a DMA_READ reply about something else");
	if (!rc)
		memcpy(buf, reply + sizeof(d), len);
	free(reply);
	return rc;
}

static int message_write(struct server *s, uint64_t address, const void *buf, uint64_t len)
{
	struct dma d = {address, len};
	uint8_t *msg = malloc(sizeof(d) + len);
	int rc;

	memcpy(msg, &d, sizeof(d));
	memcpy(msg + sizeof(d), buf, len);
	rc = command(s, CMD_DMA_WRITE, msg, (uint32_t)(sizeof(d) + len), NULL, sizeof(d), 0);
	free(msg);
	return rc;
}

/* [address, address+len) where a file is mapped for it; NULL: not so. */
static uint8_t *mapped(struct server *s, uint64_t address, uint64_t len, uint32_t flag)
{
	for (unsigned int i = 0; i < s->nr_maps; i++) {
		struct map *m = &s->maps[i];

		if (m->host && m->flags & flag && address >= m->address &&
		    address - m->address < m->size && len <= m->size - (address - m->address))
			return m->host + (address - m->address);
	}
	return NULL;
}

static int copy(struct server *s, bool direct)
{
	uint64_t from = s->regs[REG_SOURCE / 8], to = s->regs[REG_TARGET / 8];
	uint64_t len = s->regs[REG_LENGTH / 8];
	uint8_t *source = direct ? mapped(s, from, len, 1) : NULL;
	uint8_t *target = direct ? mapped(s, to, len, 2) : NULL;
	uint8_t *buf;
	int rc = 0;

	if (!len || len > DATA_MAX)
		return EINVAL;
	buf = malloc(len);
	if (source)
		memcpy(buf, source, len);
	else
		rc = message_read(s, from, buf, len);
	if (!rc && target)
		memcpy(target, buf, len);
	else if (!rc)
		rc = message_write(s, to, buf, len);
	free(buf);
	return rc;
}

static void fire(struct server *s, unsigned int vector)
{
	const uint64_t one = 1;

	/* One kind is armed at a time. */
	for (int i = 0; i < 3; i++)
		if (vector < NR_MSIX && s->irqs[i][vector] >= 0)
			(void)!write(s->irqs[i][vector], &one, sizeof(one));
}

static void go(struct server *s, unsigned int what)
{
	int rc = copy(s, (what & 15) == GO_COPY);

	s->regs[REG_STATUS / 8] = rc < 0 ? EIO : (unsigned int)rc;
	if (what & GO_INTERRUPT)
		fire(s, 0);
}

/* ---- faults ---------------------------------------------------------------------------------- */

void server_fault(struct server *s, unsigned int fault, unsigned int cmd, unsigned int skip)
{
	atomic_store(&s->fault, fault | cmd << 8 | skip << 16);
}

/* The fault that is due with this answer. */
static enum fault due(struct server *s, uint16_t cmd)
{
	unsigned int f = atomic_load(&s->fault);

	if (!f || ((f >> 8 & 0xff) && (f >> 8 & 0xff) != cmd))
		return FAULT_NONE;
	if (f >> 16) {
		atomic_store(&s->fault, f - (1u << 16));
		return FAULT_NONE;
	}
	atomic_store(&s->fault, 0);
	return f & 0xff;
}

static void odd_dma(struct server *s, enum fault fault)
{
	struct {
		struct dma d;
		uint8_t data[16];
	} m = {.d = {0xdead000000, 64}};

	switch (fault) {
	case FAULT_ODD_COMMAND:
		if (command(s, 99, NULL, 0, NULL, 0, 0) <= 0)
			violation(s, "command 99 was accepted");
		break;
	case FAULT_DMA_HUGE:
		m.d.count = 1ull << 40;
		if (command(s, CMD_DMA_READ, &m, 16, NULL, 0, 0) <= 0)
			violation(s, "a DMA of 2^40 bytes");
		break;
	case FAULT_DMA_WRAP:
		m.d.address = -32ull;
		if (command(s, CMD_DMA_READ, &m, 16, NULL, 0, 0) <= 0)
			violation(s, "a DMA beyond 2^64");
		break;
	case FAULT_DMA_UNMAPPED:
		if (command(s, CMD_DMA_READ, &m, 16, NULL, 0, 0) <= 0)
			violation(s, "a DMA of what is not mapped");
		break;
	case FAULT_DMA_SHORT:
		if (command(s, CMD_DMA_READ, &m, 8, NULL, 0, 0) <= 0)
			violation(s, "a DMA without length");
		break;
	case FAULT_DMA_EMPTY:
		if (command(s, CMD_DMA_WRITE, NULL, 0, NULL, 0, 0) <= 0)
			violation(s, "an empty DMA_WRITE");
		break;
	case FAULT_DMA_MISMATCH:
		if (command(s, CMD_DMA_WRITE, &m, sizeof(m), NULL, 0, 0) <= 0)
			violation(s, "a DMA_WRITE of more than it brings");
		break;
	case FAULT_DMA_ZERO:
		m.d.count = 0;
		command(s, CMD_DMA_READ, &m, 16, NULL, 16, 0);
		break;
	case FAULT_DMA_FLOOD:
		for (int i = 0; i < 2000; i++)
			if (command(s, CMD_DMA_READ, &m, 16, NULL, 0, 0) < 0)
				break;
		break;
	case FAULT_DMA_MUTE:
		command(s, CMD_DMA_WRITE, &m, 16 + 16, NULL, 0, NO_REPLY);
		break;
	default:
		break;
	}
}

static void trickle(struct server *s, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!send_bytes(s, s->sock, bytes + i, 1, NULL, 0))
			return;
		usleep(200);
	}
}

static void hang_up(struct server *s)
{
	shutdown(s->sock, SHUT_RDWR);
}

/* A faulty answer instead of the right one. False: the right one is still to be sent. */
static bool faulty_answer(struct server *s, enum fault fault, struct header *h, const uint8_t *body,
			  uint32_t len)
{
	uint8_t bytes[sizeof(*h) + 4096 + 64] = {0};
	uint32_t size = sizeof(*h) + len;
	int fds[200];

	memcpy(bytes, h, sizeof(*h));
	memcpy(bytes + sizeof(*h), body, len < 4096 ? len : 4096);
	switch (fault) {
	case FAULT_SILENT:
		return true;
	case FAULT_LATE:
		usleep(1000000);
		return false;
	case FAULT_HANG_UP:
		hang_up(s);
		return true;
	case FAULT_HALF_HEADER:
		send_bytes(s, s->sock, bytes, 7, NULL, 0);
		hang_up(s);
		return true;
	case FAULT_HALF_BODY:
	case FAULT_STALL_BODY:
		h->size = size < 64 ? 64 : size;
		memcpy(bytes, h, sizeof(*h));
		send_bytes(s, s->sock, bytes, h->size - 3, NULL, 0);
		if (fault == FAULT_HALF_BODY)
			hang_up(s);
		return true;
	case FAULT_WRONG_ID:
		h->id ^= 0x5555;
		return false;
	case FAULT_WRONG_COMMAND:
		h->cmd ^= 1;
		return false;
	case FAULT_TINY:
		h->size = 15;
		return false;
	case FAULT_HUGE:
		h->size = UINT32_MAX;
		return false;
	case FAULT_LARGE:
		h->size = size + 4096;
		memcpy(bytes, h, sizeof(*h));
		send_bytes(s, s->sock, bytes, sizeof(*h) + (len < 64 ? len : 64), NULL, 0);
		for (uint32_t sent = len < 64 ? len : 64; sent < len + 4096; sent++)
			if (!send_bytes(s, s->sock, "x", 1, NULL, 0))
				break;
		return true;
	case FAULT_GARBAGE:
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)(i * 2654435761u >> 13);
		send_bytes(s, s->sock, bytes, sizeof(bytes), NULL, 0);
		return true;
	case FAULT_TYPE:
		h->flags = 7;
		return false;
	case FAULT_ERROR_0:
	case FAULT_ERROR_HUGE:
	case FAULT_ERROR:
		h->flags |= IS_ERROR;
		h->error = fault == FAULT_ERROR ? EINVAL : fault == FAULT_ERROR_0 ? 0 : 1u << 20;
		h->size = sizeof(*h);
		send_message(s, s->sock, h, NULL, 0, NULL, 0);
		return true;
	case FAULT_FD_FLOOD:
	case FAULT_FDS:
		for (int i = 0; i < 200; i++)
			fds[i] = s->stop;
		send_message(s, s->sock, h, body, len, fds, fault == FAULT_FDS ? 5 : 200);
		return true;
	case FAULT_TWICE:
		send_message(s, s->sock, h, body, len, NULL, 0);
		return false;
	case FAULT_TRICKLE:
		trickle(s, bytes, size);
		return true;
	default:
		odd_dma(s, fault);
		return false;
	}
}

static void answer(struct server *s, const struct header *to, int error, const void *body,
		   uint32_t len, const int *fds, unsigned int nr_fds)
{
	struct header h = {.id = to->id,
			   .cmd = to->cmd,
			   .flags = TYPE_REPLY | (error ? IS_ERROR : 0),
			   .error = (uint32_t)error};
	enum fault fault = due(s, to->cmd);
	uint8_t *bent = NULL;

	if (error)
		len = 0;
	if (s->opt.bend && !error) {
		bent = calloc(1, len + 4096);
		if (len)
			memcpy(bent, body, len);
		s->opt.bend(to->cmd, s->in.body, bent, &len);
		body = bent;
	}
	h.size = sizeof(h) + len;
	if (!fault || !faulty_answer(s, fault, &h, len ? body : (const void *)"", len))
		send_message(s, s->sock, &h, body, len, fds, nr_fds);
	free(bent);
}

/* ---- commands -------------------------------------------------------------------------------- */

static void on_version(struct server *s, struct message *m)
{
	static const char plain[] = "{\"capabilities\":{\"max_msg_fds\":%u%s%s%s}}";
	char body[4096] = {0}, maps[40] = "", xfer[48] = "";
	const char *twin = s->opt.twin || s->opt.twin_fd
				   ? ",\"twin_socket\":{\"supported\":true,\"fd_index\":0}"
				   : "";
	uint16_t version[2] = {s->opt.major, s->opt.minor ? s->opt.minor : 2};
	int pair[2] = {-1, -1}, fd = -1;
	uint32_t len;

	if (m->len < 5 || m->body[m->len - 1] || m->body[0] || m->body[1])
		violation(s, "VERSION of %u bytes", m->len);
	if (s->opt.minor == 0xffff)
		version[1] = 0;
	if (s->opt.max_maps)
		snprintf(maps, sizeof(maps), ",\"max_dma_maps\":%u", s->opt.max_maps);
	if (s->opt.max_xfer)
		snprintf(xfer, sizeof(xfer), ",\"max_data_xfer_size\":%u", s->opt.max_xfer);
	memcpy(body, version, 4);
	if (s->opt.version) {
		len = (uint32_t)(s->opt.version_len ? s->opt.version_len
						    : strlen(s->opt.version) + 1);
		memcpy(body + 4, s->opt.version, len);
	} else {
		len = 1 + (uint32_t)snprintf(body + 4, sizeof(body) - 4, plain,
					     s->opt.max_fds ? s->opt.max_fds : 8, twin, maps, xfer);
	}
	if (s->opt.twin && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		s->twin = pair[0];
		fd = pair[1];
	} else if (s->opt.twin_fd == 2) {
		fd = memfd_create("no socket", MFD_CLOEXEC);
	}
	answer(s, &m->h, 0, body, 4 + len, &fd, fd >= 0);
	if (fd >= 0)
		close(fd);
}

static void count_maps(struct server *s)
{
	pthread_mutex_lock(&s->lock);
	s->stats.maps = s->nr_maps;
	s->stats.file_maps = 0;
	for (unsigned int i = 0; i < s->nr_maps; i++)
		s->stats.file_maps += !!s->maps[i].host;
	pthread_mutex_unlock(&s->lock);
}

static int map(struct server *s, struct message *m)
{
	struct {
		uint32_t argsz, flags;
		uint64_t offset, address, size;
	} r;
	struct map *new = &s->maps[s->nr_maps];
	int prot;

	if (m->len != sizeof(r) || m->nr_fds > 1) {
		violation(s, "DMA_MAP of %u bytes, %u descriptors", m->len, m->nr_fds);
		return EINVAL;
	}
	memcpy(&r, m->body, sizeof(r));
	for (unsigned int i = 0; i < s->nr_maps; i++)
		if (r.address < s->maps[i].address + s->maps[i].size &&
		    s->maps[i].address < r.address + r.size) {
			violation(s, "DMA_MAP over another mapping");
			return EEXIST;
		}
	if (s->nr_maps == MAPS_MAX || (s->opt.real_maps && s->nr_maps == s->opt.real_maps))
		return EINVAL;
	if (s->opt.max_maps && s->nr_maps == s->opt.max_maps) {
		violation(s, "more mappings than we take");
		return EINVAL;
	}
	*new = (struct map){r.address, r.size, r.flags, NULL};
	if (m->nr_fds) {
		prot = (r.flags & 1 ? PROT_READ : 0) | (r.flags & 2 ? PROT_WRITE : 0);
		new->host = mmap(NULL, r.size, prot, MAP_SHARED, m->fds[0], (off_t)r.offset);
		if (new->host == MAP_FAILED) {
			violation(s, "DMA_MAP: the file cannot be mapped: %s", strerror(errno));
			return EFAULT;
		}
	}
	s->nr_maps++;
	return 0;
}

static int unmap(struct server *s, struct message *m)
{
	struct {
		uint32_t argsz, flags;
		uint64_t address, size;
	} r;

	if (m->len != sizeof(r)) {
		violation(s, "DMA_UNMAP of %u bytes", m->len);
		return EINVAL;
	}
	if (s->opt.no_unmap)
		return EBUSY;
	memcpy(&r, m->body, sizeof(r));
	for (unsigned int i = 0; i < s->nr_maps; i++) {
		struct map *old = &s->maps[i];

		if (old->address != r.address || old->size != r.size)
			continue;
		if (old->host)
			munmap(old->host, old->size);
		*old = s->maps[--s->nr_maps];
		return 0;
	}
	violation(s, "DMA_UNMAP of what is not mapped: 0x%llx", (unsigned long long)r.address);
	return ENOENT;
}

static void on_region_info(struct server *s, struct message *m)
{
	static const struct {
		uint64_t size;
		uint32_t flags;
	} regions[9] = {{BAR0_SIZE, 7 | VFIO_REGION_INFO_FLAG_CAPS},
			{PAGE, 3},
			{16, 3},
			{0, 0},
			{0, 0},
			{0, 0},
			{0, 0},
			{4096, 3},
			{0, 0}};
	struct {
		struct vfio_region_info info;
		struct vfio_info_cap_header cap;
		uint32_t nr, reserved;
		uint64_t offset, size;
	} r = {.info = {.argsz = 32}};
	uint32_t index, argsz;

	memcpy(&argsz, m->body, 4);
	memcpy(&index, m->body + 8, 4);
	if (m->len != 32 || index >= 9) {
		answer(s, &m->h, EINVAL, NULL, 0, NULL, 0);
		return;
	}
	r.info.index = index;
	r.info.size = regions[index].size;
	r.info.flags = regions[index].flags;
	if (index) {
		answer(s, &m->h, 0, &r, 32, NULL, 0);
		return;
	}
	r.info.argsz = sizeof(r);
	if (argsz < sizeof(r)) {
		r.info.flags &= ~VFIO_REGION_INFO_FLAG_CAPS;
		answer(s, &m->h, 0, &r, 32, NULL, 0);
		return;
	}
	r.info.cap_offset = 32;
	r.cap.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
	r.cap.version = 1;
	r.nr = 1;
	r.offset = r.size = PAGE;
	answer(s, &m->h, 0, &r, sizeof(r), &s->memory, 1);
}

static void on_irq_info(struct server *s, struct message *m)
{
	static const uint32_t counts[] = {1, NR_MSI, NR_MSIX, 1, 1};
	uint32_t r[4];

	memcpy(r, m->body, 16);
	if (m->len != 16 || r[2] >= 5) {
		answer(s, &m->h, EINVAL, NULL, 0, NULL, 0);
		return;
	}
	r[1] = VFIO_IRQ_INFO_EVENTFD;
	r[3] = counts[r[2]];
	answer(s, &m->h, 0, r, 16, NULL, 0);
}

static int set_irqs(struct server *s, struct message *m)
{
	static const uint32_t counts[] = {1, NR_MSI, NR_MSIX};
	uint32_t r[5]; /* argsz, flags, index, start, count */

	if (m->len < 20)
		return EINVAL;
	memcpy(r, m->body, 20);
	if (r[2] > 2 || r[3] + r[4] > counts[r[2]])
		return EINVAL;
	if (m->nr_fds > (s->opt.max_fds ? s->opt.max_fds : 8))
		violation(s, "%u descriptors at once", m->nr_fds);
	if (r[1] & VFIO_IRQ_SET_ACTION_UNMASK) {
		s->regs[REG_RESETS / 8] += 1ull << 48;
		return 0;
	}
	if (r[1] & VFIO_IRQ_SET_ACTION_MASK)
		return ENOTSUP;
	if (r[1] & VFIO_IRQ_SET_DATA_EVENTFD) {
		if (m->nr_fds != r[4])
			violation(s, "SET_IRQS of %u with %u descriptors", r[4], m->nr_fds);
		for (int i = 0; i < 3; i++)
			for (unsigned int v = 0; i != (int)r[2] && v < NR_MSIX; v++)
				if (s->irqs[i][v] >= 0)
					violation(s, "two kinds of interrupts armed");
		for (unsigned int i = 0; i < m->nr_fds; i++) {
			int *slot = &s->irqs[r[2]][r[3] + i];

			if (*slot >= 0)
				close(*slot);
			*slot = fcntl(m->fds[i], F_DUPFD_CLOEXEC, 0);
		}
		return 0;
	}
	if (r[4])
		violation(s, "SET_IRQS flags 0x%x count %u", r[1], r[4]);
	for (unsigned int v = 0; v < NR_MSIX; v++) {
		if (s->irqs[r[2]][v] >= 0)
			close(s->irqs[r[2]][v]);
		s->irqs[r[2]][v] = -1;
	}
	return 0;
}

/* ---- registers ------------------------------------------------------------------------------- */

static uint8_t *region(struct server *s, uint32_t index, uint64_t *size)
{
	switch (index) {
	case 0:
		*size = BAR0_SIZE;
		return s->bar0;
	case 1:
		*size = PAGE;
		return s->bar1;
	case 2:
		*size = 16;
		return s->bar2;
	case 7:
		*size = 4096;
		return s->config;
	default:
		*size = 0;
		return NULL;
	}
}

static void refresh_registers(struct server *s)
{
	unsigned int file_maps = 0;

	for (unsigned int i = 0; i < s->nr_maps; i++)
		file_maps += !!s->maps[i].host;
	s->regs[REG_MAGIC / 8] = MAGIC;
	s->regs[REG_MAPS / 8] = s->nr_maps | (uint64_t)file_maps << 32;
	s->regs[REG_RESETS / 8] &= ~(0xffffull << 32);
	s->regs[REG_RESETS / 8] |= (uint64_t)(s->config[4] | s->config[5] << 8) << 32;
	pthread_mutex_lock(&s->lock);
	s->regs[REG_MESSAGES / 8] = s->stats.messages | (uint64_t)s->stats.collisions << 32;
	pthread_mutex_unlock(&s->lock);
	memcpy(s->bar0, s->regs, sizeof(s->regs));
}

static void register_written(struct server *s, uint64_t offset)
{
	uint64_t value;

	memcpy(s->regs, s->bar0, sizeof(s->regs));
	value = s->regs[offset / 8];
	if (offset == REG_GO && (value & 15) == GO_LATER)
		s->later = (unsigned int)value;
	else if (offset == REG_GO)
		go(s, (unsigned int)value);
	else if (offset == REG_IRQ)
		fire(s, (unsigned int)value);
	else if (offset == REG_FAULT)
		atomic_store(&s->fault, (unsigned int)value);
}

static bool config_write_ok(uint64_t offset, uint32_t count)
{
	/* COMMAND whole; the vendor capability; what follows the headers of extended ones. */
	return (offset == PCI_COMMAND && count == 2) || (offset >= 0xb4 && offset < 0xbc) ||
	       offset >= 0x100;
}

static void on_access(struct server *s, struct message *m, bool write)
{
	struct {
		uint64_t offset;
		uint32_t region, count;
	} a;
	uint64_t size;
	uint8_t *bytes, *reply;

	memcpy(&a, m->body, sizeof(a));
	bytes = region(s, a.region, &size);
	if (m->len != sizeof(a) + (write ? a.count : 0) || a.offset > size ||
	    a.count > size - a.offset || (s->opt.max_xfer && a.count > s->opt.max_xfer)) {
		violation(s, "access to region %u at 0x%llx, %u bytes", a.region,
			  (unsigned long long)a.offset, a.count);
		answer(s, &m->h, EINVAL, NULL, 0, NULL, 0);
		return;
	}
	if (a.region == 0)
		refresh_registers(s);
	if (!write) {
		/* As some servers have it: registers only, in the header. */
		if (a.region == 7 && a.offset < 64 && a.count > 64) {
			answer(s, &m->h, EINVAL, NULL, 0, NULL, 0);
			return;
		}
		reply = malloc(sizeof(a) + a.count);
		memcpy(reply, &a, sizeof(a));
		memcpy(reply + sizeof(a), bytes + a.offset, a.count);
		answer(s, &m->h, 0, reply, sizeof(a) + a.count, NULL, 0);
		free(reply);
		return;
	}
	if (a.region == 7 && !config_write_ok(a.offset, a.count)) {
		answer(s, &m->h, EINVAL, NULL, 0, NULL, 0);
		return;
	}
	memcpy(bytes + a.offset, m->body + sizeof(a), a.count);
	if (a.region == 0 && a.offset < sizeof(s->regs))
		register_written(s, a.offset & ~7ull);
	answer(s, &m->h, 0, &a, sizeof(a), NULL, 0);
}

/* DMA logging: every third page of what is asked for has been written, if it lies in the range that was named. */
static void on_feature(struct server *s, struct message *m)
{
	struct {
		uint32_t argsz, flags;
		uint64_t iova, length, page_size;
		uint8_t bitmap[512];
	} r = {0};
	uint32_t len = 8, pages;

	memcpy(&r, m->body, m->len < 32 ? m->len : 32);
	if (!s->opt.logging || (r.flags & 0xffff) < 6 || (r.flags & 0xffff) > 8) {
		answer(s, &m->h, EINVAL, NULL, 0, NULL, 0);
		return;
	}
	if (r.flags & VFIO_DEVICE_FEATURE_PROBE) {
		answer(s, &m->h, 0, &r, 8, NULL, 0);
		return;
	}
	if ((r.flags & 0xffff) == VFIO_DEVICE_FEATURE_DMA_LOGGING_START) {
		if (m->len != 8 + 16 + 16)
			violation(s, "DMA_LOGGING_START of %u bytes", m->len);
		memcpy(s->logged, m->body + 8 + 16, 16);
	} else if ((r.flags & 0xffff) == VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP) {
		s->logged[1] = 0;
	} else {
		pages = (uint32_t)(r.length / r.page_size);
		for (uint32_t i = 0; i < pages && i < 4096; i += 3)
			if (r.iova + i * r.page_size - s->logged[0] < s->logged[1])
				r.bitmap[i / 8] |= (uint8_t)(1 << i % 8);
		len = 32 + (pages + 63) / 64 * 8;
	}
	answer(s, &m->h, 0, &r, len, NULL, 0);
}

static void act(struct server *s, struct message *m)
{
	uint32_t info[4] = {16, VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET, 9, 5};
	int rc;

	if ((m->h.flags & 0xf) != TYPE_COMMAND)
		violation(s, "a message with flags 0x%x", m->h.flags);
	switch (m->h.cmd) {
	case CMD_VERSION:
		on_version(s, m);
		break;
	case CMD_DMA_MAP:
		rc = map(s, m);
		count_maps(s);
		answer(s, &m->h, rc, NULL, 0, NULL, 0);
		break;
	case CMD_DMA_UNMAP:
		rc = unmap(s, m);
		count_maps(s);
		answer(s, &m->h, rc, m->body, m->len, NULL, 0);
		break;
	case CMD_INFO:
		answer(s, &m->h, 0, info, 16, NULL, 0);
		break;
	case CMD_REGION_INFO:
		on_region_info(s, m);
		break;
	case CMD_IRQ_INFO:
		on_irq_info(s, m);
		break;
	case CMD_SET_IRQS:
		answer(s, &m->h, set_irqs(s, m), NULL, 0, NULL, 0);
		break;
	case CMD_READ:
	case CMD_WRITE:
		on_access(s, m, m->h.cmd == CMD_WRITE);
		break;
	case CMD_RESET:
		s->regs[REG_RESETS / 8]++;
		s->regs[REG_SCRATCH / 8] = 0;
		memcpy(s->bar0, s->regs, sizeof(s->regs));
		count(s, &s->stats.resets);
		answer(s, &m->h, 0, NULL, 0, NULL, 0);
		break;
	case CMD_FEATURE:
		on_feature(s, m);
		break;
	default:
		answer(s, &m->h, EINVAL, NULL, 0, NULL, 0);
	}
	close_fds(m);
	if (s->later) {
		unsigned int what = s->later;

		s->later = 0;
		go(s, what);
	}
}

/* ---- life ------------------------------------------------------------------------------------ */

static void put(struct server *s, unsigned int pos, unsigned int size, uint64_t value)
{
	for (unsigned int i = 0; i < size; i++)
		s->config[pos + i] = (uint8_t)(value >> 8 * i);
}

static void make_config(struct server *s)
{
	memset(s->config, 0, sizeof(s->config));
	put(s, 0, 4, 0x0b0b1234 + (s->opt.device << 16));
	put(s, PCI_STATUS, 2, PCI_STATUS_CAP_LIST);
	put(s, PCI_REVISION_ID, 4, 0xff000007);
	put(s, PCI_BASE_ADDRESS_1, 4, 1);
	put(s, PCI_BASE_ADDRESS_2, 4, 1);
	put(s, PCI_SUBSYSTEM_VENDOR_ID, 4, 0x56781111);
	put(s, PCI_INTERRUPT_PIN, 1, 1);
	put(s, PCI_CAPABILITY_LIST, 1, 0x40);
	put(s, 0x40, 4, 0xfe035001); /* PM, at 0x40; all PME */
	put(s, 0x50, 4, 0x00846005); /* MSI, 64 bits, 4 vectors */
	put(s, 0x60, 4, 0x00028010); /* PCI Express 2 */
	put(s, 0x64, 4, 1u << 28);   /* FLR */
	put(s, 0x80 - 0x20 + 0xc, 4, 0x11);
	/* 0x60 + 0x3c = 0x9c; its next pointer is 0xa0. */
	put(s, 0x61, 1, 0xa0);
	put(s, 0xa0, 4, 0xb011 | (NR_MSIX - 1) << 16); /* MSI-X */
	put(s, 0xa4, 4, 1);
	put(s, 0xa8, 4, 0x800 | 1);
	put(s, 0xb0, 4, 0x000c0009); /* vendor, 12 bytes */
	put(s, 0xb4, 8, 0x1122334455667788);
	put(s, 0x100, 4, 0x14010001 | 1 << 16); /* AER, next 0x140 */
	put(s, 0x140, 4, 0x1801001b);		/* PASID: hidden. Next 0x180 */
	put(s, 0x180, 4, 0x00010003);		/* serial number */
	put(s, 0x184, 8, 0xcafef00dd15ea5e5);
	if (s->opt.bend_config)
		s->opt.bend_config(s->config);
}

static void forget_client(struct server *s)
{
	while (s->nr_maps) {
		struct map *m = &s->maps[--s->nr_maps];

		if (m->host)
			munmap(m->host, m->size);
	}
	count_maps(s);
	for (int i = 0; i < 3; i++)
		for (int v = 0; v < NR_MSIX; v++) {
			if (s->irqs[i][v] >= 0)
				close(s->irqs[i][v]);
			s->irqs[i][v] = -1;
		}
	if (s->twin >= 0)
		close(s->twin);
	s->twin = -1;
	close(s->sock);
	s->sock = -1;
	s->later = 0;
	close_fds(&s->pending);
	s->pending.full = false;
}

static void *serve(void *arg)
{
	struct server *s = arg;

	while (wait_on(s, s->listener, POLLIN)) {
		s->sock = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
		if (s->sock < 0)
			continue;
		count(s, &s->stats.clients);
		while (s->pending.full || receive(s, s->sock, &s->in)) {
			if (s->pending.full) {
				struct message m = s->pending;

				s->pending.nr_fds = 0;
				s->pending.full = false;
				s->pending.body = malloc(BODY_MAX);
				act(s, &m);
				free(m.body);
				continue;
			}
			act(s, &s->in);
		}
		close_fds(&s->in);
		forget_client(s);
	}
	return NULL;
}

struct server *server_start(const char *path, const struct server_options *opt)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct server *s = calloc(1, sizeof(*s));

	s->opt = *opt;
	snprintf(s->path, sizeof(s->path), "%s", path);
	memcpy(addr.sun_path, s->path, sizeof(s->path));
	s->stop = eventfd(0, EFD_CLOEXEC);
	s->sock = s->twin = -1;
	memset(s->irqs, 0xff, sizeof(s->irqs));
	s->in.body = malloc(BODY_MAX);
	s->pending.body = malloc(BODY_MAX);
	s->scratch = malloc(BODY_MAX + sizeof(struct header));
	s->memory = memfd_create("bar0", MFD_CLOEXEC);
	s->bar0 = ftruncate(s->memory, BAR0_SIZE)
			  ? MAP_FAILED
			  : mmap(NULL, BAR0_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, s->memory, 0);
	pthread_mutex_init(&s->lock, NULL);
	make_config(s);
	unlink(path);
	s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->bar0 == MAP_FAILED || bind(s->listener, (struct sockaddr *)&addr, sizeof(addr)) ||
	    listen(s->listener, 4) || pthread_create(&s->thread, NULL, serve, s)) {
		perror(path);
		abort();
	}
	return s;
}

void server_stop(struct server *s)
{
	const uint64_t one = 1;

	(void)!write(s->stop, &one, sizeof(one));
	pthread_join(s->thread, NULL);
	unlink(s->path);
	close(s->listener);
	close(s->stop);
	munmap(s->bar0, BAR0_SIZE);
	close(s->memory);
	pthread_mutex_destroy(&s->lock);
	free(s->in.body);
	free(s->pending.body);
	free(s->scratch);
	free(s);
}

void server_get_stats(struct server *s, struct server_stats *out)
{
	pthread_mutex_lock(&s->lock);
	*out = s->stats;
	pthread_mutex_unlock(&s->lock);
}
