/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_FILTER_H
#define SWIOMMU_RUN_FILTER_H

/* The seccomp filter of the program: which system calls wait for the supervisor's answer. */

#include "base/base.h"

#include <linux/filter.h>

/* Descriptors from this number on may be files of the engine; below what select() can take. */
#define FILTER_EVENT_FDS 896
#define FILTER_EVENT_FDS_END 1024

struct run_filter {
	struct sock_filter *code;
	unsigned short length; /* instructions */
};

struct run_filter_options {
	uint64_t bar0_limit; /* positions below, and from 2^40 on, are registers of some device */
	bool opens;	     /* every opening of a file is trapped too, and every read and write */
	bool groups;	     /* there are VFIO groups: openings as of a device are trapped */
	bool stat_paths;     /* and every stat, not only of descriptors */
};

/* -ENOMEM and others. */
int run_filter_build(const struct run_filter_options *opt, struct run_filter *out);
void run_filter_free(struct run_filter *f);

/*
 * Installs it for the calling thread and everything it starts; returns the listener or a negative
 * errno: -EBUSY somebody else listens already, -EACCES no right to, -EINVAL/-ENOSYS not supported.
 * *restartable: the kernel lacks SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, so a signal may repeat a
 * call.
 */
int run_filter_install(const struct run_filter *f, bool *restartable);

#endif
