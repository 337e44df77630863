// SPDX-License-Identifier: MIT
/*
 * Which system calls are trapped. Everything else runs at full speed, so the list is short and each
 * rule is as narrow as its arguments allow:
 *
 *   ioctl      type ';' (iommufd and VFIO share it), and argument-less numbers 0x80-0xa0 of any
 *	          type, because /dev/iommu answers those with EFAULT before ENOTTY
 *   pread,     positions that a device file can mean: a region index is in bits 40 and up, and
 *   pwrite     BAR 0 is at position 0, so small positions are trapped up to the largest BAR 0
 *   read,      descriptors from FILTER_EVENT_FDS on, where the files are put that the engine gives out (fault
 *   write,     queues): their reads and writes are ours. A program that moves one to a lower number
 *              can poll it there, but not read it. With --test-abi all are trapped
 *   dup,       of those descriptors, so that the copy is among them as well; F_GETFL because their access mode
 *   fcntl      is not what the kernel knows
 *   open,      only with --test-abi, some of whose files exist only while they are open; then
 *   openat     also pread and pwrite at position 0. With VFIO groups, which can be open once only: opens for
 *              reading and writing of what exists
 *   fstat and  the stat family by descriptor, from 3 on; by path too when asked for (identity.c)
 *   others
 *   mmap       shared mappings of files (the dynamic loader's are private); with --test-abi all of files
 *
 * libseccomp compiles the rules; the program is loaded by hand because its version in Debian 12
 * does not know SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV. With that flag, a call that the supervisor
 * has begun to serve is interrupted by fatal signals only; without it, a signal handler would make
 * the kernel repeat the call, and a MAP done twice is EEXIST.
 */
#include "run/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

#define REGION_SHIFT 40

static int add_ioctl_rules(scmp_filter_ctx ctx)
{
	static const struct {
		uint64_t mask, value;
	} rules[] = {
		{0xff00, 0x3b00},	  /* type ';' */
		{0xffff00e0, 0x00000080}, /* no size, no direction, number 0x80-0x9f */
		{0xffff00ff, 0x000000a0},
	};
	int rc = 0;

	for (size_t i = 0; !rc && i < ARRAY_SIZE(rules); i++)
		rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(ioctl), 1,
				      SCMP_A1(SCMP_CMP_MASKED_EQ, rules[i].mask, rules[i].value));
	return rc;
}

static int add_position_rules(scmp_filter_ctx ctx, uint64_t bar0_limit)
{
	static const int calls[] = {
		SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(preadv),
		SCMP_SYS(pwritev), SCMP_SYS(preadv2),  SCMP_SYS(pwritev2),
	};
	int rc = 0;

	for (size_t i = 0; !rc && i < ARRAY_SIZE(calls); i++) {
		rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, calls[i], 1,
				      SCMP_A3(SCMP_CMP_GE, 1ull << REGION_SHIFT, 0));
		if (!rc && bar0_limit)
			rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, calls[i], 1,
					      SCMP_A3(SCMP_CMP_LT, bar0_limit, 0));
	}
	return rc;
}

static int add_stream_rules(scmp_filter_ctx ctx, bool all)
{
	static const int calls[] = {SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv),
				    SCMP_SYS(writev)};
	int rc = 0;

	for (size_t i = 0; !rc && i < ARRAY_SIZE(calls); i++) {
		if (all)
			rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, calls[i], 0);
		else
			rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, calls[i], 1,
					      SCMP_A0_32(SCMP_CMP_GE, FILTER_EVENT_FDS, 0));
	}
	return rc;
}

static int add_number_rules(scmp_filter_ctx ctx, bool all)
{
	static const int commands[] = {F_DUPFD, F_DUPFD_CLOEXEC};
	int rc;

	if (all)
		return seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(fcntl), 1,
					SCMP_A1_32(SCMP_CMP_EQ, F_GETFL, 0));
	rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(dup), 1,
			      SCMP_A0_32(SCMP_CMP_GE, FILTER_EVENT_FDS, 0));
	if (!rc)
		rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(fcntl), 2,
				      SCMP_A0_32(SCMP_CMP_GE, FILTER_EVENT_FDS, 0),
				      SCMP_A1_32(SCMP_CMP_EQ, F_GETFL, 0));
	for (size_t i = 0; !rc && i < ARRAY_SIZE(commands); i++)
		rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(fcntl), 2,
				      SCMP_A0_32(SCMP_CMP_GE, FILTER_EVENT_FDS, 0),
				      SCMP_A1_32(SCMP_CMP_EQ, commands[i], 0));
	return rc;
}

static int add_mmap_rules(scmp_filter_ctx ctx, bool all)
{
	if (all)
		return seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(mmap), 1,
					SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, 0));
	return seccomp_rule_add(
		ctx, SCMP_ACT_NOTIFY, SCMP_SYS(mmap), 1,
		SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_SHARED | MAP_ANONYMOUS, MAP_SHARED));
}

static int add_stat_rules(scmp_filter_ctx ctx, bool paths)
{
	const struct scmp_arg_cmp fd = SCMP_A0_32(SCMP_CMP_GE, STDERR_FILENO + 1, 0);
	const struct scmp_arg_cmp at = SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH);
	const struct scmp_arg_cmp atx = SCMP_A2(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH);
	int rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(fstat), 1, fd);

	if (!paths) {
		if (!rc)
			rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(newfstatat), 2, fd,
					      at);
		if (!rc)
			rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(statx), 2, fd, atx);
		return rc;
	}
	if (!rc)
		rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(newfstatat), 0);
	if (!rc)
		rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(statx), 0);
	if (!rc)
		rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(stat), 0);
	if (!rc)
		rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(lstat), 0);
	/* Not on every architecture. */
	return rc == -EDOM ? 0 : rc;
}

/* Opens as of a device: for reading and writing, of what exists. Few others are like that. */
#define DEVICE_OPEN (O_ACCMODE | O_CREAT | O_DIRECTORY | O_PATH)

static int add_open_rules(scmp_filter_ctx ctx, bool all)
{
	unsigned int n = all ? 0 : 1;
	int rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(open), n,
				  SCMP_A1_32(SCMP_CMP_MASKED_EQ, DEVICE_OPEN, O_RDWR));

	if (!rc)
		rc = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(openat), n,
				      SCMP_A2_32(SCMP_CMP_MASKED_EQ, DEVICE_OPEN, O_RDWR));
	return rc;
}

/* libseccomp can only write the program to a file. */
static int export_program(scmp_filter_ctx ctx, struct run_filter *out)
{
	int fd = memfd_create("swiommu-filter", MFD_CLOEXEC);
	struct stat st;
	int rc;

	if (fd < 0)
		return -errno;
	rc = seccomp_export_bpf(ctx, fd);
	if (rc)
		goto out;
	if (fstat(fd, &st)) {
		rc = -errno;
		goto out;
	}
	out->code = swi_alloc(st.st_size);
	if (!out->code) {
		rc = -ENOMEM;
		goto out;
	}
	out->length = st.st_size / sizeof(*out->code);
	if (pread(fd, out->code, st.st_size, 0) != st.st_size) {
		run_filter_free(out);
		rc = -EIO;
	}
out:
	close(fd);
	return rc;
}

int run_filter_build(const struct run_filter_options *opt, struct run_filter *out)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	int rc;

	if (!ctx)
		return -ENOMEM;
	/* A program of another ABI (32-bit) is left alone: iommufd has no compat ioctls either. */
	rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ALLOW);
	if (!rc)
		rc = add_ioctl_rules(ctx);
	if (!rc)
		rc = add_position_rules(ctx, opt->bar0_limit);
	if (!rc)
		rc = add_mmap_rules(ctx, opt->opens);
	if (!rc)
		rc = add_stream_rules(ctx, opt->opens);
	if (!rc)
		rc = add_number_rules(ctx, opt->opens);
	if (!rc)
		rc = add_stat_rules(ctx, opt->stat_paths);
	if (!rc && (opt->opens || opt->groups))
		rc = add_open_rules(ctx, opt->opens);
	if (!rc)
		rc = export_program(ctx, out);
	seccomp_release(ctx);
	return rc;
}

void run_filter_free(struct run_filter *f)
{
	swi_free(f->code);
	f->code = NULL;
}

int run_filter_install(const struct run_filter *f, bool *restartable)
{
	struct sock_fprog prog = {f->length, f->code};
	unsigned int flags =
		SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
	int fd;

	*restartable = false;
	fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
	if (fd < 0 && errno == EINVAL) {
		*restartable = true;
		flags &= ~SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
		fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
	}
	return fd < 0 ? -errno : fd;
}
