/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CONFORMANCE_TESTABI_H
#define TESTS_CONFORMANCE_TESTABI_H

/*
 * The part of IOMMU_TEST_CMD that the suite uses: an independent statement of the layout, from
 * the facts in the specification of the test ABI. A kernel built with the selftest ops has it, and
 * `swiommu run` may.
 */

#include <linux/ioctl.h>
#include <linux/types.h>

#define IOMMU_TEST_CMD _IO(';', 0xa0)

enum {
	TEST_OP_ADD_RESERVED = 1,
	TEST_OP_MOCK_DOMAIN = 2,
	TEST_OP_MD_CHECK_MAP = 3,
	TEST_OP_MD_CHECK_REFS = 4,
	TEST_OP_CREATE_ACCESS = 5,
	TEST_OP_DESTROY_ACCESS_PAGES = 6,
	TEST_OP_ACCESS_PAGES = 7,
	TEST_OP_ACCESS_RW = 8,
	TEST_OP_MOCK_DOMAIN_REPLACE = 10,
	TEST_OP_ACCESS_REPLACE_IOAS = 11,
	TEST_OP_DMABUF_GET = 22,
	TEST_OP_DMABUF_REVOKE = 23,
};

enum {
	TEST_ACCESS_WRITE = 1 << 0, /* of ACCESS_PAGES */
	TEST_RW_WRITE = 1 << 0,
	TEST_RW_SLOW = 1 << 2,
	TEST_ACCESS_NEEDS_PIN = 1 << 0, /* of CREATE_ACCESS */
};

struct test_cmd {
	__u32 size;
	__u32 op;
	__u32 id;
	__u32 __reserved;
	union {
		struct {
			__aligned_u64 start, length;
		} reserved;
		struct {
			__u32 stdev_id, hwpt_id, idev_id;
		} mock;
		struct {
			__u32 pt_id;
		} mock_replace;
		struct {
			__aligned_u64 iova, length, uptr;
		} check_map;
		struct {
			__aligned_u64 length, uptr;
			__u32 refs;
		} check_refs;
		struct {
			__u32 access_fd, flags;
		} create_access;
		struct {
			__u32 pages_id;
		} destroy_pages;
		struct {
			__u32 flags, pages_id;
			__aligned_u64 iova, length, uptr;
		} access_pages;
		struct {
			__aligned_u64 iova, length, uptr;
			__u32 flags;
		} access_rw;
		struct {
			__u32 ioas_id;
		} access_replace;
		struct {
			__u32 length, open_flags;
		} dmabuf_get;
		struct {
			__s32 fd;
			__u32 revoked;
		} dmabuf_revoke;
		__u8 room[48];
	};
	__u32 last;
};

_Static_assert(sizeof(struct test_cmd) == 72, "size of the test command");

/* The mock IOMMU. */
#define MOCK_FIRST 0x1000000ull
#define MOCK_LAST 0x7fffffffull
#define MOCK_PAGE 2048ull

#define TEST_TYPE_DATA 0xdead	    /* HWPT data */
#define TEST_TYPE_VIOMMU 0xdeadbeef /* vIOMMU and HW queue */

struct test_viommu_data {
	__u32 in_data, out_data;
	__aligned_u64 out_mmap_offset, out_mmap_length;
};

#endif
