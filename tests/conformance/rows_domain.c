// SPDX-License-Identifier: MIT
/* IOASes behind a device: alignment, aperture, pinned memory, translation. */
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/statfs.h>

#include "suite.h"

#define B MOCK_FIRST

typedef struct iommu_iova_range range_t;

static uint32_t with_mock(struct ctx *c, struct mock *m)
{
	uint32_t ioas = ioas_new(c);

	mock_add(c, ioas, m);
	return ioas;
}

static uint64_t addr(const void *p)
{
	return (uintptr_t)p;
}

static void unaligned_va(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	char *v = memory(2);

	CHECK_RC(map(c, ioas, RW, addr(v) + 1024, 2048, NULL), -EINVAL);
	CHECK_RC(map_at(c, ioas, B, addr(v) + 1024, 2048), -EINVAL);
	CHECK_RC(map_at(c, ioas, B + 1024, addr(v), 2048), -EINVAL);
	CHECK_RC(map_at(c, ioas, B, addr(v), 1024), -EINVAL);
}

static void half_page_offset(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	char *v = memory(2);
	uint64_t iova;

	CHECK_RC(map(c, ioas, RW, addr(v) + 2048, 4096, &iova), 0);
	CHECK_EQ(iova % PAGE, 0x800);
	CHECK_RC(mock_check(&m, iova, v + 2048, 4096), 0);
}

static void iova_not_congruent(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	char *v = memory(2);

	CHECK_RC(map_at(c, ioas, B + 0x800, addr(v), 2 * PAGE), 0);
	CHECK_RC(mock_check(&m, B + 0x800, v, 2 * PAGE), 0);
	CHECK_RC(mock_check(&m, B + 0x1000, v + 0x800, PAGE), 0);
}

static void below_the_aperture(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	char *v = memory(1);

	CHECK_RC(map_at(c, ioas, 0, addr(v), 2047), -EINVAL);
	CHECK_RC(map_at(c, ioas, 0, addr(v), 2048), -EINVAL);
	CHECK_RC(map_at(c, ioas, B - 2048, addr(v), 4096), -EINVAL);
	CHECK_RC(map_at(c, ioas, MOCK_LAST + 1, addr(v), 4096), -EINVAL);
	CHECK_RC(map_at(c, ioas, MOCK_LAST + 1 - 4096, addr(v), 4096), 0);
}

static void longer_than_the_aperture(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);

	CHECK_RC(map(c, ioas, RW, addr(memory(1)), 1ull << 31, NULL), -ENOSPC);
}

static void half_unmapped(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	char *v = memory(4);

	munmap(v + 2 * PAGE, PAGE);
	CHECK_RC(map_at(c, ioas, B, addr(v), 4 * PAGE), -EFAULT);
	CHECK_RC(unmap(c, ioas, B, 4 * PAGE, NULL), -ENOENT);
	CHECK_RC(map_at(c, ioas, B, addr(v), 2 * PAGE), 0);
	CHECK_RC(map_at(c, ioas, B + 2 * PAGE, addr(v) + 3 * PAGE, PAGE), 0);
	CHECK_RC(mock_check(&m, B + PAGE, v + PAGE, PAGE), 0);
	CHECK_RC(mock_check(&m, B + 2 * PAGE, v + 3 * PAGE, PAGE), 0);
}

/* Attach must fail and leave the IOAS as it was. */
static void refused(struct ctx *c, uint32_t ioas, long want)
{
	uint32_t n = 2;
	range_t got[2];
	struct mock m;

	CHECK_RC(mock_try(c, ioas, &m), want);
	CHECK_EQ(ioas_align(c, ioas), 1);
	CHECK_RC(iova_ranges(c, ioas, &n, got, NULL), 0);
	CHECK_EQ(n, 1);
	CHECK_EQ(got[0].start, 0);
	CHECK_EQ(got[0].last, MAX);
}

static void attach_to_fine_areas(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	CHECK_RC(map_at(c, ioas, B, addr(memory(1)), 0x400), 0);
	refused(c, ioas, -EADDRINUSE);
}

static void attach_with_areas_outside(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);

	CHECK_RC(map_at(c, ioas, 0, addr(memory(1)), PAGE), 0);
	refused(c, ioas, -EADDRINUSE);
	unmap_expect(c, ioas, 0, PAGE, PAGE);
	CHECK_RC(map_at(c, ioas, MOCK_LAST + 1 - 2048, addr(memory(1)), PAGE), 0);
	refused(c, ioas, -EADDRINUSE);
}

static void attach_with_allowed_outside(struct ctx *c)
{
	const range_t list[] = {{B, MOCK_LAST}, {MOCK_LAST + 1, MOCK_LAST + 2}};
	uint32_t ioas = ioas_new(c);

	CHECK_RC(allow(c, ioas, 2, list), 0);
	refused(c, ioas, -EADDRINUSE);
}

static void attach_to_bad_memory(struct ctx *c)
{
	uint32_t ioas = ioas_new(c);
	char *v = memory(1);

	CHECK_RC(map_at(c, ioas, B, addr(v), PAGE), 0);
	CHECK_RC(map_at(c, ioas, B + 0x10000, bad_address(), PAGE), 0);
	refused(c, ioas, -EFAULT);
	unmap_expect(c, ioas, B + 0x10000, PAGE, PAGE);
	munmap(v, PAGE);
	refused(c, ioas, -EFAULT);
}

static void allowed_in_the_aperture(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	range_t range = {B, MOCK_LAST};

	CHECK_RC(allow(c, ioas, 1, &range), 0);
	range.last++;
	CHECK_RC(allow(c, ioas, 1, &range), -EADDRINUSE);
	range = (range_t){B - 1, MOCK_LAST};
	CHECK_RC(allow(c, ioas, 1, &range), -EADDRINUSE);
}

static void huge_pages_off(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	char *v = memory(1);

	CHECK_EQ(ioas_align(c, ioas), MOCK_PAGE);
	CHECK_RC(huge_pages_set(c, ioas, 0), 0);
	CHECK_EQ(ioas_align(c, ioas), PAGE);
	CHECK_RC(map_at(c, ioas, B, addr(v), PAGE), 0);
	CHECK_RC(huge_pages_set(c, ioas, 0), 0);
	CHECK_RC(huge_pages_set(c, ioas, 1), 0);
	CHECK_EQ(ioas_align(c, ioas), MOCK_PAGE);
	CHECK_RC(huge_pages_set(c, ioas, 0), -EINVAL);
	CHECK_EQ(huge_pages_get(c, ioas), 1);
	CHECK_EQ(ioas_align(c, ioas), MOCK_PAGE);
	CHECK_RC(mock_check(&m, B, v, PAGE), 0);
}

static void detach_widens(struct ctx *c)
{
	uint32_t ioas = ioas_new(c), n = 1;
	struct mock one, two;
	range_t got;
	char *v = memory(1);

	CHECK_RC(map_at(c, ioas, B, addr(v), PAGE), 0);
	mock_add(c, ioas, &one);
	mock_add(c, ioas, &two);
	CHECK_EQ(one.hwpt_id, two.hwpt_id);
	CHECK_RC(mock_check(&one, B, v, PAGE), 0);
	CHECK_RC(mock_check(&two, B, v, PAGE), 0);
	CHECK_RC(iova_ranges(c, ioas, &n, &got, NULL), 0);
	CHECK_EQ(got.start, B);
	CHECK_EQ(got.last, MOCK_LAST);
	mock_remove(&one);
	CHECK_EQ(ioas_align(c, ioas), MOCK_PAGE);
	CHECK_RC(mock_check(&two, B, v, PAGE), 0);
	CHECK_RC(destroy(c, ioas), -EBUSY);
	mock_remove(&two);
	CHECK_EQ(ioas_align(c, ioas), 1);
	CHECK_RC(iova_ranges(c, ioas, &n, &got, NULL), 0);
	CHECK_EQ(got.last, MAX);
	CHECK_RC(map_at(c, ioas, 0, addr(v), 1), 0);
	CHECK_RC(destroy(c, ioas), 0);
}

static void unmap_hides(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	char *v = memory(2), *w = memory(2);

	CHECK_RC(map_at(c, ioas, B, addr(v), 2 * PAGE), 0);
	CHECK_RC(mock_check(&m, B, v, 2 * PAGE), 0);
	unmap_expect(c, ioas, B, 2 * PAGE, 2 * PAGE);
	CHECK(mock_check(&m, B, v, PAGE) != 0);
	CHECK_RC(map_at(c, ioas, B, addr(w), 2 * PAGE), 0);
	CHECK_RC(mock_check(&m, B, w, 2 * PAGE), 0);
}

static void copy_is_translated(struct ctx *c)
{
	uint32_t src = ioas_new(c), dst;
	struct mock m;
	char *v = memory(4), *w = memory(4);
	uint64_t iova = B + 0x8000;

	CHECK_RC(map_at(c, src, 0x10000, addr(v), 4 * PAGE), 0);
	CHECK_RC(map_at(c, src, 0x14000, addr(w), 4 * PAGE), 0);
	dst = with_mock(c, &m);
	CHECK_RC(copy(c, dst, src, FIXED | RW, 0x13000, 2 * PAGE, &iova), 0);
	CHECK_RC(mock_check(&m, iova, v + 3 * PAGE, PAGE), 0);
	CHECK_RC(mock_check(&m, iova + PAGE, w, PAGE), 0);
	CHECK_RC(copy(c, dst, src, RW, 0x13400, PAGE, NULL), -EINVAL);
	CHECK_RC(destroy(c, src), 0);
	CHECK_RC(mock_check(&m, iova, v + 3 * PAGE, PAGE), 0);
	unmap_expect(c, dst, iova, 2 * PAGE, 2 * PAGE);
}

/* What a mapping for reading and one for writing demand of memory with these rights. */
static void what_can_be_pinned(struct ctx *c)
{
	static const struct {
		int prot, flags;
		long read, write;
	} kinds[] = {
		{PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, 0},
		{PROT_READ | PROT_WRITE, MAP_SHARED, 0, 0},
		{PROT_READ, MAP_PRIVATE, 0, -EFAULT},
		{PROT_READ, MAP_SHARED, 0, -EFAULT},
		{PROT_WRITE, MAP_PRIVATE, -EFAULT, 0},
		{PROT_NONE, MAP_PRIVATE, -EFAULT, -EFAULT},
	};
	struct mock m;
	uint32_t ioas = with_mock(c, &m);

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		char *v = mmap(NULL, PAGE, kinds[i].prot, kinds[i].flags | MAP_ANONYMOUS, -1, 0);

		CHECK_RC(map(c, ioas, R, addr(v), PAGE, NULL), kinds[i].read);
		CHECK_RC(map(c, ioas, RW, addr(v), PAGE, NULL), kinds[i].write);
		CHECK_RC(map(c, ioas, W, addr(v), PAGE, NULL), kinds[i].write);
	}
	CHECK_RC(map(c, ioas, R, 0xffffffff80000000, PAGE, NULL), -EFAULT);
	CHECK_RC(map(c, ioas, RW, bad_address(), PAGE, NULL), -EFAULT);
}

static int disk_file(void)
{
	char name[] = "conformance-XXXXXX", tmp[] = "/var/tmp/conformance-XXXXXX", *used = name;
	int fd = mkostemp(name, O_CLOEXEC);
	struct statfs fs;

	if (fd < 0)
		fd = mkostemp(used = tmp, O_CLOEXEC);
	if (fd < 0 || ftruncate(fd, 4 * PAGE) || fstatfs(fd, &fs))
		give_up("file: %s", strerror(errno));
	unlink(used);
	if (fs.f_type == TMPFS_MAGIC)
		skip("disk", "neither . nor /var/tmp is on a disk");
	return fd;
}

static void files_that_cannot_be_pinned(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	CHECK_RC(map_file(c, ioas, RW, null, 0, PAGE, NULL), -EINVAL);
	CHECK_RC(map_file(c, ioas, RW, memfd(PAGE), PAGE, PAGE, NULL), -EINVAL);
	CHECK_RC(map_file(c, ioas, RW, memfd(PAGE), 0, 2 * PAGE, NULL), -EINVAL);
	CHECK_RC(map_file(c, ioas, RW, disk_file(), 0, PAGE, NULL), -EINVAL);
	CHECK_RC(unmap(c, ioas, 0, MAX - 1, NULL), -ENOENT);
}

static void tmpfs_file(struct ctx *c)
{
	char name[] = "/dev/shm/conformance-XXXXXX";
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	int fd = mkostemp(name, O_CLOEXEC);
	struct statfs fs;
	uint64_t iova;
	char *v;

	if (fd < 0 || fstatfs(fd, &fs) || fs.f_type != TMPFS_MAGIC)
		skip("tmpfs", "/dev/shm is no tmpfs");
	unlink(name);
	if (ftruncate(fd, 2 * PAGE))
		give_up("ftruncate");
	v = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK_RC(map_file(c, ioas, RW, fd, PAGE, PAGE, &iova), 0);
	CHECK_RC(mock_check(&m, iova, v + PAGE, PAGE), 0);
}

static void memfd_through_read_only_fd(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	int fd = memfd(PAGE), ro;
	char path[40], *v;
	uint64_t iova;

	v = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	if (ro < 0)
		give_up("%s: %s", path, strerror(errno));
	close(fd);
	CHECK_RC(map_file(c, ioas, RW, ro, 0, PAGE, &iova), 0);
	close(ro);
	CHECK_RC(mock_dma(&m, iova + 5, "abc", 3, true), 0);
	CHECK_RC(memcmp(v + 5, "abc", 3), 0);
}

static void sealed_memfd(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	int fd = memfd(PAGE);
	uint64_t iova;
	char b[3];
	long rc;

	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE))
		give_up("F_SEAL_WRITE: %s", strerror(errno));
	CHECK_RC(map_file(c, ioas, R, fd, 0, PAGE, NULL), 0);
	rc = map_file(c, ioas, RW, fd, 0, PAGE, &iova);
	if (rc == -EINVAL)
		skip("sealed-files", "a file that is sealed against writing is not written");
	CHECK_RC(rc, 0);
	CHECK_RC(mock_dma(&m, iova + 5, "abc", 3, true), 0);
	CHECK_EQ(pread(fd, b, 3, 5), 3);
	CHECK_RC(memcmp(b, "abc", 3), 0);
}

static void truncated_memfd(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	int fd = memfd(PAGE);
	uint64_t iova;
	char b[3] = "";
	long rc;

	CHECK_EQ(pwrite(fd, "old", 3, 7), 3);
	CHECK_RC(map_file(c, ioas, RW, fd, 0, PAGE, &iova), 0);
	CHECK_RC(ftruncate(fd, 0), 0);
	close(fd);
	rc = mock_dma(&m, iova + 7, b, 3, false);
	if (rc == -EFAULT)
		skip("true-pins", "the pages of a truncated file are gone");
	CHECK_RC(rc, 0);
	CHECK_RC(memcmp(b, "old", 3), 0);
}

static void odd_sized_memfd(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	int fd = memfd(PAGE + 100);

	CHECK_RC(map_file(c, ioas, RW, fd, 0, 2 * PAGE, NULL), -EINVAL);
	CHECK_RC(map_file(c, ioas, RW, fd, 0, PAGE, NULL), 0);
	CHECK_RC(map_file(c, ioas, R, fd, PAGE, PAGE, NULL), -EINVAL);
}

static void unmapped_after_pinning(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	int fd = memfd(2 * PAGE);
	char *v = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *alias, b[8];

	if (suite.fe == &fe_lib)
		skip("true-pins", "an embedder promises to keep its own memory");
	alias = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK_RC(map_at(c, ioas, B, addr(v), 2 * PAGE), 0);
	strcpy(alias + PAGE - 4, "shared!");
	munmap(v, 2 * PAGE);
	if (mock_dma(&m, B + PAGE - 4, b, 8, false) == -EFAULT)
		skip("true-pins", "memory that its process unmaps is gone");
	CHECK_RC(memcmp(b, "shared!", 8), 0);
}

static void dma_permissions(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	char *v = memory(2), b[16];
	uint64_t iova = B;

	CHECK_RC(map(c, ioas, FIXED | R, addr(v), PAGE, &iova), 0);
	iova = B + PAGE;
	CHECK_RC(map(c, ioas, FIXED | W, addr(v) + PAGE, PAGE, &iova), 0);
	CHECK_RC(mock_dma(&m, B + 16, b, 16, false), 0);
	CHECK_RC(mock_dma(&m, B + 16, b, 16, true), -EPERM);
	CHECK_RC(mock_dma(&m, B + PAGE, b, 16, false), -EPERM);
	CHECK_RC(mock_dma(&m, B + PAGE, b, 16, true), 0);
	CHECK_RC(mock_dma(&m, B + 2 * PAGE, b, 16, true), -ENOENT);
	CHECK_RC(mock_dma(&m, B - 16, b, 16, true), -ENOENT);
	CHECK_RC(mock_dma(&m, MAX - 3, b, 16, true), -EOVERFLOW);
}

static void dma_crosses_areas(struct ctx *c)
{
	struct mock m;
	uint32_t ioas = with_mock(c, &m);
	char *v = memory(2), b[16] = "0123456789abcde";

	CHECK_RC(map_at(c, ioas, B, addr(v) + PAGE, PAGE), 0);
	CHECK_RC(map_at(c, ioas, B + PAGE, addr(v), PAGE), 0);
	CHECK_RC(mock_dma(&m, B + PAGE - 5, b, 16, true), 0);
	CHECK_RC(memcmp(v + 2 * PAGE - 5, "01234", 5), 0);
	CHECK_RC(memcmp(v, "56789abcde", 11), 0);
	/* The part before the hole has moved. */
	CHECK_RC(mock_dma(&m, B + 2 * PAGE - 4, "WXYZ!", 5, true), -ENOENT);
	CHECK_RC(memcmp(v + PAGE - 4, "WXYZ", 4), 0);
}

static const struct row rows[] = {
	{"9.49", "VA finer than the page table", unaligned_va, NULL},
	{"9.50", "VA in the middle of a page", half_page_offset, NULL},
	{"9.51", "IOVA and VA not congruent", iova_not_congruent, NULL},
	{"9.52", "FIXED outside the aperture", below_the_aperture, NULL},
	{"9.53", "longer than the aperture", longer_than_the_aperture, NULL},
	{"9.54", "MAP of a half unmapped range", half_unmapped, NULL},
	{"9.55", "attach to areas too fine", attach_to_fine_areas, NULL},
	{"9.56", "attach to areas outside the aperture", attach_with_areas_outside, NULL},
	{"9.57", "attach with allowed ranges outside", attach_with_allowed_outside, NULL},
	{"9.58", "attach to bad memory", attach_to_bad_memory, NULL},
	{"9.59", "ALLOW of the aperture", allowed_in_the_aperture, NULL},
	{"9.60-62", "HUGE_PAGES with a device", huge_pages_off, NULL},
	{"3.7", "detaching widens again", detach_widens, NULL},
	{"4.4", "what is unmapped is not seen", unmap_hides, NULL},
	{"4.3-dev", "a copy is translated", copy_is_translated, NULL},
	{"5.4", "what can be pinned", what_can_be_pinned, NULL},
	{"9.81", "files that cannot be pinned", files_that_cannot_be_pinned, NULL},
	{"9.82", "a file on tmpfs", tmpfs_file, NULL},
	{"9.83", "a memfd through a read-only descriptor", memfd_through_read_only_fd, NULL},
	{"9.83-seal", "a memfd sealed against writing", sealed_memfd, NULL},
	{"9.84", "a truncated memfd", truncated_memfd, NULL},
	{"9.122", "a memfd of odd size", odd_sized_memfd, NULL},
	{"5.5", "memory unmapped by its process", unmapped_after_pinning, NULL},
	{"6.6-perm", "DMA and permissions", dma_permissions, NULL},
	{"6.6-cross", "DMA across areas and into a hole", dma_crosses_areas, NULL},
};
ROWS(rows_domain, rows);
