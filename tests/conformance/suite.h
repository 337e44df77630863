/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CONFORMANCE_SUITE_H
#define TESTS_CONFORMANCE_SUITE_H

/*
 * One body of cases, several front ends.
 *
 * A case (struct row) is written against a context (struct ctx) and never asks which front end
 * serves it: the library in this process, or /dev/iommu, which is a kernel's or that of
 * `swiommu run`. What a front end cannot do it refuses with -ENOSYS, and the case is skipped in the
 * name of a feature; --require FEATURE makes such a skip a failure.
 *
 * Every case runs in a child process of its own with a fresh context.
 */

#include <errno.h>
#include <linux/iommufd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "testabi.h"

#define PAGE 4096ull
#define MAX UINT64_MAX

#define OTHER_USER 65533 /* nobody else runs as that */

#define FIXED IOMMU_IOAS_MAP_FIXED_IOVA
#define R IOMMU_IOAS_MAP_READABLE
#define W IOMMU_IOAS_MAP_WRITEABLE
#define RW (R | W)

/* ---- front ends --------------------------------------------------------------------------------- */

struct front_end;

struct ctx {
	const struct front_end *fe;
};

/* A device behind an IOMMU with 2 KiB pages and the aperture [MOCK_FIRST, MOCK_LAST]. */
struct mock {
	struct ctx *c;
	uint32_t ioas;
	uint32_t id;	  /* to destroy; 0 where there is no such object */
	uint32_t hwpt_id; /* what it is attached to */
	uint32_t idev_id;
	void *priv; /* the front end's */
};

/* Functions return 0 or more, or a negative errno. */
struct front_end {
	const char *name;
	/* A context; `flags` as of open(2), of which the library has no use. */
	int (*open)(int flags, struct ctx **out);
	void (*close)(struct ctx *c);
	long (*ioctl)(struct ctx *c, unsigned int cmd, uint64_t arg);
	/* The descriptor behind the context; -ENOSYS: there is none, and a fork does not share it. */
	int (*fd)(struct ctx *c);
	/* mmap(2) of the context's file. */
	int (*mmap)(struct ctx *c, size_t len, int prot, int flags, uint64_t offset, char **out);
	/* read(2) and write(2) of an event queue's descriptor. */
	long (*read)(struct ctx *c, int fd, void *buf, size_t len);
	long (*write)(struct ctx *c, int fd, const void *buf, size_t len);
	/* Attaches a mock device to an IOAS or HWPT. */
	int (*mock_add)(struct ctx *c, uint32_t pt_id, struct mock *m);
	int (*mock_remove)(struct mock *m);
	/* Whether the device sees the memory at `va` at `iova`; multiples of 2 KiB. */
	int (*mock_check)(struct mock *m, uint64_t iova, void *va, size_t len);
	/* DMA of the device. */
	int (*mock_dma)(struct mock *m, uint64_t iova, void *buf, size_t len, bool write);
	/* Reserves IOVAs for the life of the IOAS. */
	int (*reserve)(struct ctx *c, uint32_t ioas, uint64_t first, uint64_t length);
};

extern const struct front_end fe_lib, fe_dev;

/* ---- cases and checks --------------------------------------------------------------------------- */

struct row {
	const char *id; /* number in the table of edge cases, or a name of ours */
	const char *title;
	void (*run)(struct ctx *c);
	const void *arg; /* row_arg() while it runs */
};

struct rows {
	const struct row *rows;
	size_t n;
};

extern const struct rows rows_context, rows_map, rows_domain, rows_access, rows_account,
	rows_dmabuf, rows_vfio, rows_viommu, rows_races, edges_attach, edges_hwpt, edges_info,
	edges_dirty, edges_fault, edges_viommu, edges_group;
/* Generated from the table of ioctls on first use. */
struct rows rows_prevalidation(void);

#define ROWS(name, array) const struct rows name = {array, sizeof(array) / sizeof((array)[0])}

/* What the command line says of the kernel or engine under test. */
struct suite {
	const struct front_end *fe;
	uint64_t huge; /* automatic IOVAs are aligned to at most this */
	bool kernel;   /* the oddities of the reference are what is right */
};
extern struct suite suite;

const void *row_arg(void);
/* Records a failed comparison; the case goes on. */
void check_rc(const char *file, int line, const char *expr, long got, long want);
void check_eq(const char *file, int line, const char *expr, uint64_t got, uint64_t want);
/* Ends the case: it cannot run here because `feature` is missing. */
_Noreturn void skip(const char *feature, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Ends the case as failed: the surroundings are broken. */
_Noreturn void give_up(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define CHECK_RC(expr, want) check_rc(__FILE__, __LINE__, #expr, (expr), (want))
#define CHECK_EQ(expr, want) check_eq(__FILE__, __LINE__, #expr, (expr), (want))
#define CHECK(expr) check_eq(__FILE__, __LINE__, #expr, !!(expr), 1)

/* ---- calls -------------------------------------------------------------------------------------- */

long call(struct ctx *c, unsigned int cmd, void *arg);
struct ctx *ctx_open(void);
void ctx_close(struct ctx *c);

uint32_t ioas_new(struct ctx *c); /* must succeed */
long ioas_alloc(struct ctx *c, uint32_t *id);
long destroy(struct ctx *c, uint32_t id);
/* `*iova` is the input for FIXED, else the output; NULL: not wanted. */
long map(struct ctx *c, uint32_t ioas, uint32_t flags, uint64_t va, uint64_t len, uint64_t *iova);
long map_at(struct ctx *c, uint32_t ioas, uint64_t iova, uint64_t va, uint64_t len); /* FIXED RW */
long map_file(struct ctx *c, uint32_t ioas, uint32_t flags, int fd, uint64_t start, uint64_t len,
	      uint64_t *iova);
long copy(struct ctx *c, uint32_t dst, uint32_t src, uint32_t flags, uint64_t src_iova,
	  uint64_t len, uint64_t *dst_iova);
/* `*removed` is written on success only. */
long unmap(struct ctx *c, uint32_t ioas, uint64_t iova, uint64_t len, uint64_t *removed);
/* Unmaps and checks the number of bytes. */
void unmap_expect(struct ctx *c, uint32_t ioas, uint64_t iova, uint64_t len, uint64_t removed);
long iova_ranges(struct ctx *c, uint32_t ioas, uint32_t *n, void *ranges, uint64_t *align);
uint64_t ioas_align(struct ctx *c, uint32_t ioas);
long allow(struct ctx *c, uint32_t ioas, uint32_t n, const void *ranges);
long option(struct ctx *c, uint32_t op, uint32_t which, uint32_t object, uint64_t *val);
long huge_pages_set(struct ctx *c, uint32_t ioas, uint64_t val);
uint64_t huge_pages_get(struct ctx *c, uint32_t ioas);
long rlimit_mode_set(struct ctx *c, uint64_t val);
long change_process(struct ctx *c);

/* These skip the case where the front end has no way. */
void mock_add(struct ctx *c, uint32_t ioas, struct mock *m); /* must succeed */
long mock_try(struct ctx *c, uint32_t ioas, struct mock *m);
void mock_remove(struct mock *m);
long mock_check(struct mock *m, uint64_t iova, void *va, size_t len);
long mock_dma(struct mock *m, uint64_t iova, void *buf, size_t len, bool write);
void reserve(struct ctx *c, uint32_t ioas, uint64_t first, uint64_t length); /* must succeed */
long reserve_try(struct ctx *c, uint32_t ioas, uint64_t first, uint64_t length);
int need_fd(struct ctx *c);
/* The test ABI, for whoever has IOMMU_TEST_CMD, and its accesses: descriptors. */
long test_abi_call(struct ctx *c, struct test_cmd *cmd);
void need_test_abi(struct ctx *c);
int accfd_open(struct ctx *c, uint32_t ioas, bool pin); /* must succeed; a descriptor */
long accfd_try(struct ctx *c, uint32_t ioas, bool pin, int *fd);
long accfd_pin(struct ctx *c, int access, bool write, uint64_t iova, uint64_t len, uint32_t *item);
long accfd_unpin(struct ctx *c, int access, uint32_t item);
long accfd_rw(struct ctx *c, int access, unsigned int flags, uint64_t iova, void *buf,
	      uint64_t len);
long accfd_replace(struct ctx *c, int access, uint32_t ioas);
long check_refs(struct ctx *c, void *va, uint64_t len, uint32_t refs);

/* ---- memory and privileges ---------------------------------------------------------------------- */

char *memory(size_t pages);   /* private, read-write, touched */
char *page_end(size_t len);   /* the last `len` bytes before an unmapped page; zeroed */
void make_read_only(void *p); /* the pages of a page_end() */
uint64_t bad_address(void);   /* a page that is not mapped, and will not be */
int memfd(size_t bytes);
bool has_cap(int cap);
void drop_cap(int cap);
void set_memlock(uint64_t bytes);
uint64_t status_kb(const char *field); /* of /proc/self/status */
/* Whether this process may become another user, so that cases can have two. */
bool can_change_user(void);
/* Runs fn in a child that shares the context; its checks count. Skips where a fork does not share it. */
void in_child(struct ctx *c, void (*fn)(struct ctx *c, void *data), void *data);

#endif
