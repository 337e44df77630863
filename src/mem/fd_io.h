/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_MEM_FD_IO_H
#define SWIOMMU_MEM_FD_IO_H

/* Whole reads and writes at a position of a file, which the kernel may do in pieces. */

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

/* 0, or -1: the file does not give all of it. Some of `buf` may have been written then. */
static inline int fd_read_all(int fd, uint64_t at, void *buf, size_t len)
{
	char *to = buf;

	while (len) {
		ssize_t n = pread(fd, to, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		at += n;
		to += n;
		len -= n;
	}
	return 0;
}

/* 0, or -1: the file does not take all of it. Some of it may have been written then. */
static inline int fd_write_all(int fd, uint64_t at, const void *buf, size_t len)
{
	const char *from = buf;

	while (len) {
		ssize_t n = pwrite(fd, from, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		at += n;
		from += n;
		len -= n;
	}
	return 0;
}

#endif
