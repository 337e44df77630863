// SPDX-License-Identifier: MIT
/*
 * A program without a C library: nothing but the system call instruction, as a runtime of another
 * language has it. Makes an IOAS, maps memory, unmaps it; status 0 if all went well, else the
 * number of the step that did not.
 */
#include <asm/unistd.h>
#include <linux/iommufd.h>

#define AT_FDCWD -100
#define O_RDWR 2

static long call(long nr, long a, long b, long c, long d)
{
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return ret;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = nr, x0 __asm__("x0") = a, x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c, x3 __asm__("x3") = d;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
#else
#error "not written for this machine"
#endif
}

static char page[8192];

static int work(void)
{
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct iommu_ioas_map map = {.size = sizeof(map),
				     .flags = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
				     .length = 4096};
	struct iommu_ioas_unmap unmap = {.size = sizeof(unmap), .length = 4096};
	long fd = call(__NR_openat, AT_FDCWD, (long)"/dev/iommu", O_RDWR, 0);

	if (fd < 0)
		return 1;
	if (call(__NR_ioctl, fd, IOMMU_IOAS_ALLOC, (long)&alloc, 0) || !alloc.out_ioas_id)
		return 2;
	map.ioas_id = unmap.ioas_id = alloc.out_ioas_id;
	map.user_va = ((unsigned long)page + 4095) & -4096ul;
	if (call(__NR_ioctl, fd, IOMMU_IOAS_MAP, (long)&map, 0))
		return 3;
	unmap.iova = map.iova;
	if (call(__NR_ioctl, fd, IOMMU_IOAS_UNMAP, (long)&unmap, 0))
		return 4;
	if (call(__NR_ioctl, fd, IOMMU_IOAS_UNMAP, (long)&unmap, 0) != -2) /* ENOENT */
		return 5;
	return 0;
}

void _start(void);
void _start(void)
{
	call(__NR_exit_group, work(), 0, 0, 0);
}
