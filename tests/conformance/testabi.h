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
	TEST_OP_MOCK_DOMAIN_FLAGS = 12,
	TEST_OP_DIRTY = 13,
	TEST_OP_MD_CHECK_IOTLB = 14,
	TEST_OP_TRIGGER_IOPF = 15,
	TEST_OP_TRIGGER_VEVENT = 17,
	TEST_OP_PASID_ATTACH = 18,
	TEST_OP_PASID_REPLACE = 19,
	TEST_OP_PASID_DETACH = 20,
	TEST_OP_PASID_CHECK_HWPT = 21,
	TEST_OP_DMABUF_GET = 22,
	TEST_OP_DMABUF_REVOKE = 23,
};

enum {
	TEST_ACCESS_WRITE = 1 << 0, /* of ACCESS_PAGES */
	TEST_RW_WRITE = 1 << 0,
	TEST_RW_SLOW = 1 << 2,
	TEST_ACCESS_NEEDS_PIN = 1 << 0, /* of CREATE_ACCESS */
	TEST_DEV_NO_DIRTY = 1 << 0,	/* of MOCK_DOMAIN_FLAGS */
	TEST_DEV_PASID = 1 << 2,
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
			__u32 stdev_id, hwpt_id, idev_id, flags;
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
			__u32 flags;
			__aligned_u64 iova, length, page_size, uptr, nr_dirty;
		} dirty;
		struct {
			__u32 index, iotlb;
		} check_iotlb;
		struct {
			__u32 dev_id, pasid, grpid, perm;
			__aligned_u64 addr;
		} iopf;
		struct {
			__u32 dev_id;
		} vevent;
		struct {
			__u32 pasid, pt_id;
		} pasid;
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
#define TEST_TYPE_VIOMMU 0xdeadbeef /* vIOMMU, HW queue, entries to invalidate */
#define TEST_TYPE_VEVENTQ 0xbeefbeef
#define TEST_TYPE_HW_INFO 0xfeedbeef
#define TEST_HW_INFO_REG 0xdeadbeef
#define TEST_FAILING_PASID 1024 /* every second domain that is set there fails */
#define TEST_MAX_PASIDS (1u << 20)
#define MOCK_HUGE_LAST ((1ull << 38) - 1) /* the other kind of table: 4 KiB and 1 MiB pages */

struct test_hwpt_data {
	__u32 iotlb, table; /* 1: the other kind */
};

struct test_nested_inv {
	__u32 flags, iotlb_id;
};

struct test_viommu_inv {
	__u32 flags, vdev_id, cache_id;
};

struct test_viommu_data {
	__u32 in_data, out_data;
	__aligned_u64 out_mmap_offset, out_mmap_length;
};

#endif
