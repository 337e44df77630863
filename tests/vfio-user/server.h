/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_TESTS_VFIO_USER_SERVER_H
#define SWIOMMU_TESTS_VFIO_USER_SERVER_H

/*
 * A vfio-user server for tests, written from the protocol's description and sharing nothing with the client: one PCI
 * device that has a bit of everything, and that misbehaves on command. It runs in a thread of the test, or
 * as a program of its own (server_main.c).
 *
 * The device, 1234:0b0b:
 *   BAR0  12 KiB memory. Page 0: registers (below). Page 1: memory that can be mapped. Page 2: memory that cannot.
 *   BAR1  4 KiB, MSI-X table and pending bits (8 vectors). Its BAR register claims to be I/O.
 *   BAR2  16 bytes of I/O ports, memory.
 *   INTx, 4 MSI vectors, PM, PCI Express with FLR, a vendor capability with 8 bytes to write, a serial number.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Registers of BAR0, 64 bits each. */
#define REG_MAGIC 0x00
#define REG_SCRATCH 0x08
#define REG_SOURCE 0x10
#define REG_TARGET 0x18
#define REG_LENGTH 0x20
#define REG_GO 0x28 /* written: GO_*; then REG_STATUS is 0 or an errno */
#define REG_STATUS 0x30
#define REG_IRQ 0x38	  /* written: fires that vector, of what is armed */
#define REG_MAPS 0x40	  /* DMA mappings, of them with a file << 32 */
#define REG_RESETS 0x48	  /* how often reset, COMMAND << 32, unmasked << 48 */
#define REG_FAULT 0x50	  /* written: FAULT_* | command << 8 | how many of them to let pass << 16 */
#define REG_MESSAGES 0x58 /* DMA messages so far; commands that came amid one << 32 */
#define MAGIC 0x3141592653589793ull

#define GO_COPY 1	/* by mapped files where there are, else by messages */
#define GO_MESSAGES 2	/* by messages only */
#define GO_LATER 3	/* by messages, after the answer */
#define GO_INTERRUPT 16 /* with one of them: and then fire vector 0 */

enum fault {
	FAULT_NONE,
	/* The connection cannot survive these. */
	FAULT_SILENT,	   /* no answer */
	FAULT_LATE,	   /* an answer after a second */
	FAULT_HANG_UP,	   /* closes instead of answering */
	FAULT_HALF_HEADER, /* dies in the middle of the header */
	FAULT_HALF_BODY,   /* dies in the middle of the rest */
	FAULT_STALL_BODY,  /* the same, but stays */
	FAULT_WRONG_ID,
	FAULT_WRONG_COMMAND,
	FAULT_TINY,  /* a size below that of the header */
	FAULT_HUGE,  /* a size of 4 GiB - 1 */
	FAULT_LARGE, /* 64 bytes more than belong there */
	FAULT_GARBAGE,
	FAULT_TYPE,    /* neither command nor reply */
	FAULT_ERROR_0, /* an error without an errno */
	FAULT_ERROR_HUGE,
	FAULT_FD_FLOOD, /* 200 descriptors */
	FAULT_TWICE,	/* answers twice */
	FAULT_LAST_DEADLY = FAULT_TWICE,
	/* These are to be survived. */
	FAULT_ERROR,	   /* EINVAL */
	FAULT_FDS,	   /* five descriptors that nobody asked for */
	FAULT_TRICKLE,	   /* byte by byte */
	FAULT_ODD_COMMAND, /* a command that does not exist, first */
	FAULT_DMA_HUGE,	   /* a DMA_READ of 2^40 bytes, first */
	FAULT_DMA_WRAP,	   /* of a range that passes 2^64 */
	FAULT_DMA_UNMAPPED,
	FAULT_DMA_SHORT,    /* with half of its payload */
	FAULT_DMA_EMPTY,    /* with none */
	FAULT_DMA_MISMATCH, /* a DMA_WRITE that says more than it brings */
	FAULT_DMA_ZERO,	    /* of 0 bytes */
	FAULT_DMA_FLOOD,    /* 2000 of them */
	FAULT_DMA_MUTE,	    /* a DMA_WRITE that wants no answer */
	FAULT_LAST,
};

/* How the server is before anything happens; zeros are the good one. */
struct server_options {
	bool twin;		/* uses a socket of its own for DMA */
	const char *version;	/* JSON to send instead */
	size_t version_len;	/* of it, if not strlen() + 1 */
	uint16_t major, minor;	/* minor: 0 = 2, 0xffff = 0 */
	int twin_fd;		/* 1: promises a twin socket without one; 2: sends a file */
	unsigned int max_fds;	/* per message; 0 = 8 */
	unsigned int max_maps;	/* told; 0: not told */
	unsigned int real_maps; /* refuses more with EINVAL; 0: any number */
	unsigned int max_xfer;	/* told; 0: not told */
	bool logging;		/* has the DMA logging features */
	bool no_unmap;		/* refuses to unmap */
	/* Changes the answer to a command: body (which has room for 4096 bytes), its length. */
	void (*bend)(uint16_t cmd, const uint8_t *request, uint8_t *body, uint32_t *len);
	/* Changes the configuration space. */
	void (*bend_config)(uint8_t *config);
	unsigned int mutate;	   /* a seed: messages go out with bytes changed at random */
	unsigned int mutate_after; /* so many messages */
	unsigned int device;	   /* other devices have other ids */
};

struct server;

/* Listens at `path` and serves one client after the other. */
struct server *server_start(const char *path, const struct server_options *opt);
/* Ends: hangs up on the client. */
void server_stop(struct server *s);
/* The same fault as by REG_FAULT. */
void server_fault(struct server *s, unsigned int fault, unsigned int cmd, unsigned int skip);

struct server_stats {
	unsigned int maps, file_maps, clients, resets, violations, messages, collisions;
	char violation[120]; /* the first thing that the client did against the protocol */
};
void server_get_stats(struct server *s, struct server_stats *out);

/* Commands by number, for tests that name one. */
enum {
	CMD_VERSION = 1,
	CMD_DMA_MAP,
	CMD_DMA_UNMAP,
	CMD_INFO,
	CMD_REGION_INFO,
	CMD_IO_FDS,
	CMD_IRQ_INFO,
	CMD_SET_IRQS,
	CMD_READ,
	CMD_WRITE,
	CMD_DMA_READ,
	CMD_DMA_WRITE,
	CMD_RESET,
	CMD_FEATURE = 16
};

#endif
