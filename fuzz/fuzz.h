/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_FUZZ_FUZZ_H
#define SWIOMMU_FUZZ_FUZZ_H

/*
 * What the fuzzers share: reading values out of the input, the memory that clients map, a client that lives
 * in this process but can be made to misbehave, and the verdict.
 *
 * A fuzzer is one function, LLVMFuzzerTestOneInput(), that plays its input as a sequence of calls and looks after each whether
 * the engine is still in order. The same function runs under libFuzzer (tools/fuzz) and under the replay
 * program of replay.c, which needs no libFuzzer.
 *
 * The engine can reach every byte of this process if a client asks for it. So that an input cannot
 * destroy the fuzzer itself, the client's pointers work in the arena and in the caller's own struct
 * only, its descriptors are the ones it was given, and fuzz_tame() keeps what it maps to the arena.
 */

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <swiommu/iommufd.h>

#include "base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The verdict: says what is wrong and aborts, which libFuzzer and the replay program both catch. */
#define FUZZ_CHECK(cond, ...)                                                        \
	do {                                                                         \
		if (!(cond)) {                                                       \
			fprintf(stderr, "%s:%d: %s\n\t", __FILE__, __LINE__, #cond); \
			fprintf(stderr, __VA_ARGS__);                                \
			fputc('\n', stderr);                                         \
			abort();                                                     \
		}                                                                    \
	} while (0)

/* ---- the input ----------------------------------------------------------------------------------- */

struct input {
	const uint8_t *at;
	size_t left;
};

/* The next bytes, little endian; zeroes beyond the end. */
uint64_t take(struct input *in, unsigned int bytes);
static inline uint8_t take8(struct input *in)
{
	return (uint8_t)take(in, 1);
}
/* A number below n (1 to 256). */
static inline unsigned int pick(struct input *in, unsigned int n)
{
	return take8(in) % n;
}
/* Fills a buffer. */
void take_bytes(struct input *in, void *buf, size_t len);
/* True once in about n. */
static inline bool seldom(struct input *in, unsigned int n)
{
	return take8(in) % n == n - 1;
}
/* Numbers that tend to matter: lengths, 0 and 1, ends of the range, odd ones, any. */
uint64_t take_length(struct input *in);
uint64_t take_iova(struct input *in);
/* Addresses in the arena, mostly; else ones where there is never memory. */
uint64_t take_uptr(struct input *in);

/* ---- memory -------------------------------------------------------------------------------------- */

/*
 * The arena: pages that can be mapped. By page number:
 *
 *   0-31 private   32-35 read only   36-37 no access   38-39 nothing there   40-47 a memfd
 *   48-49 write only   50-63 private
 *
 * Around it nothing is ever mapped, as far as ARENA_ROOM.
 */
#define ARENA_PAGES 64u
#define ARENA_SIZE (ARENA_PAGES * SWI_PAGE_SIZE)
#define ARENA_ROOM (64ull << 20)
#define ARENA_MEMFD_PAGE 40u
#define FUZZ_MEMFD_PAGES 16u

extern uint8_t *arena;
extern int memfds[2]; /* FUZZ_MEMFD_PAGES pages each; the first one is in the arena too */

/* Once per process; aborts when the machine cannot. Also installs the guard against SIGBUS. */
void fuzz_setup(void);
/* Before each input: the arena and the memfds as they were at first. */
void fuzz_restore(void);
/* Makes [addr, addr + *length) harmless to write to: either without memory, or around the arena. */
void fuzz_tame(uint64_t *addr, uint64_t *length);
/* Writes memory that a device may be using at this moment, as a client is free to do. */
void arena_write(void *at, const void *src, size_t len);
/* Descriptors that are open now. */
unsigned int fuzz_count_fds(void);

/* ---- the client ----------------------------------------------------------------------------------- */

#define CLIENT_FDS 24

struct client {
	struct swiommu_caller caller; /* first: the operations find the client by it */
	struct swiommu_caller_ops ops;
	const struct swiommu_caller_ops *local;
	bool capable;
	/* Where the struct of the call in progress lies, besides the arena. */
	const void *arg;
	size_t arg_size;
	/* What its descriptors are: closed by client_fini() if `owned`, -1 when closed. */
	struct {
		int fd;
		bool owned;
	} fds[CLIENT_FDS];
	unsigned int nr_fds;
	/* The context that the numbers CLIENT_CTX_FD + i stand for. */
	struct iommufd_ctx *ctx[3];
};

#define CLIENT_CTX_FD 7000

void client_init(struct client *c);
void client_fini(struct client *c);
/* Lets the client use a descriptor of this process. */
void client_give_fd(struct client *c, int fd, bool owned);
/* One of its descriptors, one of a context, or a bad one. */
int client_take_fd(struct client *c, struct input *in);
/* swiommu_ioctl() with the struct at `arg`; what it returns is one of the values that it may return. */
long client_ioctl(struct client *c, struct iommufd_ctx *ctx, unsigned int cmd, void *arg,
		  size_t size);
/* Whether it is an error that some call is specified to return. */
bool is_known_errno(long rc);

#endif
