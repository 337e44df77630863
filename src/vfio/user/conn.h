/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VFIO_USER_CONN_H
#define SWIOMMU_VFIO_USER_CONN_H

/*
 * A connection to a vfio-user server: commands out, replies and the server's own commands in.
 *
 * One command is outstanding at a time. Its reply is read either by whoever waits for it (pumping: while
 * the connection is being set up, and as long as nobody has the device bound), or by one thread that calls
 * vu_conn_receive() (reading: it also sees what the server sends unasked).
 *
 * Nothing waits longer than the timeout; setting a connection up, many calls, takes at most ten times that. A server that does not answer in time, breaks the protocol or goes away
 * loses the connection for good: vu_conn_fail() is the one way there, whoever notices. From then on every
 * call gives -EIO at once. A new connection to the same server is made in the same struct.
 */

#include "base/base.h"
#include "base/reason.h"
#include "vfio/user/proto.h"

#include <pthread.h>
#include <stdatomic.h>

#define VU_MAX_FDS 16u /* that we take with one message */
#define VU_MAX_DATA (1u << 20)
/* The largest message that we take. */
#define VU_MAX_MESSAGE (sizeof(struct vu_header) + sizeof(struct vu_dma_access) + VU_MAX_DATA)

enum vu_state {
	VU_LOST,  /* no connection, or one that is given up */
	VU_SETUP, /* only the thread that sets it up may call */
	VU_LIVE,
};

struct vu_conn;

struct vu_conn_ops {
	/* A DMA command of the server, body of `len` bytes; must call vu_conn_reply(). On the reading thread. */
	void (*serve)(struct vu_conn *c, int sock, const struct vu_header *h, const uint8_t *body,
		      size_t len);
	/* The connection is lost; `why` says how. Once for each connection; any thread; must not block. */
	void (*lost)(struct vu_conn *c, const char *why);
};

/* What the server has said about itself. Written while VU_SETUP. */
struct vu_limits {
	_Atomic uint32_t msg_fds;   /* descriptors it takes with one message, at most VU_MAX_FDS */
	_Atomic uint32_t data_xfer; /* bytes in one region access */
	_Atomic uint32_t dma_maps;  /* that it keeps */
	_Atomic uint64_t pgsizes;   /* of DMA mappings */
};

struct vu_conn {
	const struct vu_conn_ops *ops;
	unsigned int timeout_ms;
	int cancel;	     /* readable: setting up is to be given up; borrowed, -1: never */
	int64_t setup_until; /* when it has taken too long; the thread that sets it up */
	struct vu_limits limits;

	pthread_mutex_t call; /* one call at a time; held while it waits. Outer. */
	pthread_mutex_t tx;   /* messages go out whole; held while sending */
	pthread_mutex_t lock; /* state, reply; short. Inner. */
	pthread_cond_t changed;
	/* Changed with all three held. The server's commands come on twin, or, if that is -1, on sock. */
	int sock, twin;
	_Atomic int state; /* enum vu_state; written with lock held */
	bool reading;	   /* the thread `reader` receives; call */
	pthread_t reader;
	pthread_t setup_thread;
	uint16_t next_id; /* call */

	/* The reply that is waited for. lock */
	struct vu_call *waiting;
	uint16_t waiting_id;
	bool done;
	int result; /* 0 or the server's errno, negative */

	uint8_t *rx;	 /* a message body; whoever receives */
	uint8_t *tx_buf; /* for the data of DMA replies; whoever receives */
};

/* 0, -ENOMEM. The connection is VU_LOST. */
int vu_conn_init(struct vu_conn *c, const struct vu_conn_ops *ops, unsigned int timeout_ms);
void vu_conn_fini(struct vu_conn *c);

/*
 * Connects to the socket at `path` and agrees on a version: VU_SETUP, for this thread. No reading thread. -EIO and what
 * connect() gives, with a reason; then VU_LOST.
 */
int vu_conn_open(struct vu_conn *c, const char *path, struct swi_reason *why);
/* From VU_SETUP to VU_LIVE. -EIO: lost meanwhile. */
int vu_conn_go_live(struct vu_conn *c);
/* Closes the sockets of a lost connection, or gives it up. */
void vu_conn_close(struct vu_conn *c);
/* Gives the connection up, with a reason for the log. Returns -EIO. Any thread, no lock of it held. */
int vu_conn_fail(struct vu_conn *c, const char *fmt, ...) SWI_PRINTF(2, 3);
static inline bool vu_conn_is(struct vu_conn *c, enum vu_state state)
{
	return atomic_load(&c->state) == (int)state;
}
/* While VU_SETUP: the server has given a socket for its own commands, owned from now on. */
void vu_conn_set_twin(struct vu_conn *c, int twin);
/* This thread takes care of what arrives from now on, or nobody does. Its own calls pump. */
void vu_conn_set_reading(struct vu_conn *c, bool reading);

/* A command. Fields that are 0 are absent. */
struct vu_call {
	uint16_t cmd;
	const void *head, *data; /* the payload, in two parts */
	size_t head_len, data_len;
	const int *fds; /* to be sent along; borrowed */
	unsigned int nr_fds;
	void *reply; /* where its payload goes; a longer one is a breach of protocol */
	size_t reply_min, reply_max, reply_len;
	int *reply_fds; /* descriptors that came with it, the caller's to close; others are closed */
	unsigned int max_reply_fds, nr_reply_fds;
};

/*
 * Sends the command and waits for the reply. 0; the server's own errno, negative; -EIO: the connection is lost, by this
 * or before. Blocks up to the timeout, and as long as other calls take.
 */
int vu_call(struct vu_conn *c, struct vu_call *call);

/*
 * Receives one message from a socket that has something to read, and acts on it. The reading thread only. -EIO: the
 * connection is lost.
 */
int vu_conn_receive(struct vu_conn *c, int sock);
/* Answers a command of the server: `error` 0 and a payload in two parts, or a positive errno. */
void vu_conn_reply(struct vu_conn *c, int sock, const struct vu_header *command, int error,
		   const void *head, size_t head_len, const void *data, size_t data_len);

/* version.c: the first command of a connection. 0, -EIO with a reason. */
int vu_negotiate(struct vu_conn *c, struct swi_reason *why);

#endif
