/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_HELPER_H
#define SWIOMMU_RUN_HELPER_H

/*
 * The supervisor's side of the preload helper (src/preload; preload/protocol.h has the protocol).
 *
 *   helper.c      marked calls, and where the helper is found
 *   rings.c       the rings and the thread that looks at them
 *   decode_x86.c  decoding instructions for it
 */

#include <linux/seccomp.h>

#include "preload/protocol.h"
#include "run/calls.h"
#include "run/session.h"

/* Whether the call came through a helper, which then catches accesses to device pages. */
bool helper_made(const struct seccomp_data *data);
/* Whether it is one of those that exist only between the two. */
bool helper_is_own_call(const struct seccomp_data *data);
/*
 * Answers such a call. `file` is that of its descriptor, NULL for those on none. What the system call is to return.
 */
long helper_call(struct session *s, struct task *t, struct call *call, struct open_file *file,
		 const struct seccomp_data *data);

/*
 * Path of the helper's library, as the program can load it; "" when there is none, and then why. `dir` is where the swiommu
 * binary lies.
 */
void helper_find(char *path, size_t size, const char **why);
/*
 * A mapping was refused. If it could have been made with a helper, says so: once in a session, as hardware would not have
 * refused; of those who chose to have no helper only to who wants explanations.
 */
void helper_tell_missing(struct session *s, struct task *t, const struct node *node,
			 uint64_t position);
/* Adds it to the environment of the calling process, which is about to execute the program. */
void helper_set_environment(const char *path);

/* Replaces the input by what the instruction does. -EINVAL: not one that is known. */
int helper_decode(struct helper_insn *insn);

/* ---- shares.c ---------------------------------------------------------------------------------- */

/* Files with memory that programs have made shared, one per address space. */
struct shares;
int shares_create(struct shares **out); /* -ENOMEM */
void shares_destroy(struct shares *s);	/* NULL is allowed */
/* Room for so much in the caller's file, made if it has none yet: *out_fd is ours to close. */
int shares_add(struct shares *s, struct task *t, uint64_t length, int *out_fd, uint64_t *out_offset,
	       uint64_t *out_inode);
/* The file, opened anew; -1: it is none of these. */
int shares_open(void *shares, dev_t dev, ino_t ino, int mode);
/* Lets go of those whose address space is no more. */
void shares_sweep(struct shares *s);

/* ---- rings.c ----------------------------------------------------------------------------------- */

struct rings;

/* Starts no thread yet. NULL in *out if rings make no sense here (one processor; the test ABI). -ENOMEM. */
int rings_create(struct session *s, struct rings **out);
/* Nobody makes calls any more. NULL is allowed. */
void rings_destroy(struct rings *r);
/* A ring for the caller's process, in place of any it had, in a file to be mapped by it. -EMFILE, -ENOMEM, -EAGAIN there are enough. */
int rings_add(struct rings *r, struct task *t, int *out_fd, unsigned int *out_number,
	      uint32_t *out_size);
/* A process with a ring has made a system call: many of them are a reason to look at it. */
void rings_hint(struct rings *r, unsigned int number);
/* For a call that a ring serves: whether its process, as it was when the ring was made, is still there. */
struct ring_process;
bool ring_process_alive(struct ring_process *p);

#endif
