/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_TESTS_MEM_PROGRAM_H
#define SWIOMMU_TESTS_MEM_PROGRAM_H

/*
 * What the tests of the memory layer share: a program under test that makes any system call it is
 * told to, and a way to run a test program once more as an ordinary user and as on an older kernel.
 *
 * The program is a fork of the test: pointers to static data and descriptors are the same in both.
 */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mem/owner.h"

#define PAGE 4096ul

struct program {
	pid_t pid;
	int sock;
};

struct program_request {
	long nr; /* a system call, or one of the two below */
	long arg[6];
};
#define PROGRAM_POKE (-1) /* store the byte arg[1] at arg[0] */
#define PROGRAM_PEEK (-2) /* the byte at arg[0] */

static inline void program_main(int sock)
{
	struct program_request r;
	long ret;

	while (recv(sock, &r, sizeof(r), 0) == (ssize_t)sizeof(r)) {
		if (r.nr == PROGRAM_POKE) {
			*(volatile unsigned char *)r.arg[0] = (unsigned char)r.arg[1];
			ret = 0;
		} else if (r.nr == PROGRAM_PEEK) {
			ret = *(volatile unsigned char *)r.arg[0];
		} else {
			ret = syscall(r.nr, r.arg[0], r.arg[1], r.arg[2], r.arg[3], r.arg[4],
				      r.arg[5]);
			if (ret == -1)
				ret = -errno;
		}
		if (send(sock, &ret, sizeof(ret), MSG_NOSIGNAL) != (ssize_t)sizeof(ret))
			break;
	}
	_exit(0);
}

static inline void program_start(struct program *p)
{
	int sv[2];

	assert_return_code(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), errno);
	p->pid = fork();
	assert_true(p->pid >= 0);
	if (p->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(sv[0]);
		program_main(sv[1]);
	}
	close(sv[1]);
	p->sock = sv[0];
}

/* -EPIPE: the program has gone, by exec or exit. */
static inline long program_do(struct program *p, struct program_request r)
{
	long ret;

	if (send(p->sock, &r, sizeof(r), MSG_NOSIGNAL) != (ssize_t)sizeof(r) ||
	    recv(p->sock, &ret, sizeof(ret), 0) != (ssize_t)sizeof(ret))
		return -EPIPE;
	return ret;
}

#define program_call(p, number, ...) \
	program_do(p, (struct program_request){.nr = (number), .arg = {__VA_ARGS__}})

static inline uint64_t program_mmap(struct program *p, uint64_t at, size_t len, int prot, int flags,
				    int fd, long offset)
{
	long ret = program_call(p, SYS_mmap, (long)at, (long)len, prot, flags, fd, offset);

	assert_true(ret > 0);
	return (uint64_t)ret;
}

/* Anonymous memory of a program that holds the byte `fill`. */
static inline uint64_t program_anon(struct program *p, size_t len, int flags, unsigned char fill)
{
	uint64_t at = program_mmap(p, 0, len, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
	size_t i;

	for (i = 0; i < len; i += PAGE)
		assert_int_equal(program_call(p, PROGRAM_POKE, (long)(at + i), fill), 0);
	return at;
}

static inline void program_stop(struct program *p)
{
	int status;

	close(p->sock);
	kill(p->pid, SIGKILL);
	assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
}

static inline unsigned count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* Setup and teardown of a test: as many descriptors are open after it as were before. */
static unsigned fds_before __attribute__((unused));

static inline int remember_fds(void **state)
{
	(void)state;
	fds_before = count_fds();
	return 0;
}

static inline int no_fd_leaked(void **state)
{
	(void)state;
	return count_fds() == fds_before ? 0 : -1;
}

static inline int memfd_of(size_t size, unsigned char fill)
{
	int fd = memfd_create("mem-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	size_t i;

	assert_return_code(fd, errno);
	for (i = 0; i < size; i++)
		assert_int_equal(pwrite(fd, &fill, 1, (off_t)i), 1);
	return fd;
}

/* An unnamed file of two pages on a filesystem with a disk behind it; -1 if none is at hand. */
static inline int disk_file(void)
{
	static const char *const dirs[] = {".", "/var/tmp", "/tmp"};
	static const unsigned char page[2 * PAGE];
	struct statfs fs;
	size_t i;
	int fd;

	for (i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		fd = open(dirs[i], O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		if (fd < 0)
			continue;
		if (!fstatfs(fd, &fs) && fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC &&
		    pwrite(fd, page, sizeof(page), 0) == (ssize_t)sizeof(page))
			return fd;
		close(fd);
	}
	return -1;
}

/* From now on the kernel does not know the query for one mapping (ioctl 'f' 17), as before 6.11. */
static inline int forget_procmap_query(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0xc0686611, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOTTY),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(filter) / sizeof(filter[0]), filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) ? -errno : 0;
}

static inline int become_nobody(void)
{
	if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
		return -errno;
	/* A change of ids closes /proc/PID to our own programs otherwise. */
	return prctl(PR_SET_DUMPABLE, 1) ? -errno : 0;
}

/* Runs the tests once more in a child, with what `change` changes. Returns 0 or 1. */
static inline int run_as(const char *what, bool user, bool old_kernel, int (*group)(void))
{
	int status;
	pid_t pid;

	printf("# the same %s\n", what);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if ((user && become_nobody()) || (old_kernel && forget_procmap_query()))
			exit(99);
		exit(group() ? 1 : 0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 1;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	printf("# FAILED %s (status %#x)\n", what, status);
	return 1;
}

static inline int run_variants(int (*group)(void))
{
	int failed = group();

	failed += run_as("on a kernel without PROCMAP_QUERY", false, true, group);
	if (geteuid() != 0) {
		printf("# SKIPPED: as an ordinary user (we are one already)\n");
		return failed;
	}
	failed += run_as("as an ordinary user", true, false, group);
	failed +=
		run_as("as an ordinary user on a kernel without PROCMAP_QUERY", true, true, group);
	return failed;
}

#endif
