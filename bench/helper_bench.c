// SPDX-License-Identifier: MIT
/*
 * What calls of a program cost on each way to the supervisor: the seccomp filter, the helper's ring, a trapped register access.
 * The program is this one again, under `swiommu run`; system calls without the C library do not pass the helper. The baseline is
 * getppid(), a system call that does nothing.
 *
 * The ring needs a second processor that is free: on a busy machine its rows show how it falls back.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload/sys.h"

static struct bench_config cfg = {.rounds = 15};
static int iommufd, device;
static uint32_t ioas;
static char *page;
static volatile uint8_t *bar;

#define REQUIRE(cond)                                               \
	do {                                                        \
		if (!(cond)) {                                      \
			fprintf(stderr, "not so: %s: %m\n", #cond); \
			exit(1);                                    \
		}                                                   \
	} while (0)

static long by_filter(long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	return sys_call(nr, a, b, c, d, 0, 0);
}

/* ---- operations: one each, by the C library (and so the helper) or not ------------------------- */

static void do_nothing(bool filter)
{
	(void)filter;
	by_filter(SYS_getppid, 0, 0, 0, 0);
}

static void do_option(bool filter)
{
	struct iommu_option cmd = {.size = sizeof(cmd),
				   .option_id = IOMMU_OPTION_RLIMIT_MODE,
				   .op = IOMMU_OPTION_OP_GET};

	if (filter)
		REQUIRE(!by_filter(SYS_ioctl, iommufd, IOMMU_OPTION, (uintptr_t)&cmd, 0));
	else
		REQUIRE(!ioctl(iommufd, IOMMU_OPTION, &cmd));
}

static void do_map_unmap(bool filter)
{
	struct iommu_ioas_map map = {.size = sizeof(map),
				     .flags = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE |
					      IOMMU_IOAS_MAP_FIXED_IOVA,
				     .ioas_id = ioas,
				     .user_va = (uintptr_t)page,
				     .length = 4096,
				     .iova = 0x100000};
	struct iommu_ioas_unmap unmap = {
		.size = sizeof(unmap), .ioas_id = ioas, .iova = 0x100000, .length = 4096};

	if (filter) {
		REQUIRE(!by_filter(SYS_ioctl, iommufd, IOMMU_IOAS_MAP, (uintptr_t)&map, 0));
		REQUIRE(!by_filter(SYS_ioctl, iommufd, IOMMU_IOAS_UNMAP, (uintptr_t)&unmap, 0));
	} else {
		REQUIRE(!ioctl(iommufd, IOMMU_IOAS_MAP, &map));
		REQUIRE(!ioctl(iommufd, IOMMU_IOAS_UNMAP, &unmap));
	}
}

static void do_pread(bool filter)
{
	uint64_t value;

	if (filter)
		REQUIRE(by_filter(SYS_pread64, device, (uintptr_t)&value, 8, 0x88) == 8);
	else
		REQUIRE(pread(device, &value, 8, 0x88) == 8);
}

static void do_load(bool filter)
{
	(void)filter;
	consume(*(volatile uint64_t *)(bar + 0x88));
}

static void do_store(bool filter)
{
	(void)filter;
	*(volatile uint64_t *)(bar + 0x98) = 0x1000;
}

/* ---- measuring --------------------------------------------------------------------------------- */

static double time_of(void (*op)(bool), bool filter, unsigned int n)
{
	double t;

	/* What is busy begins to be looked at. */
	for (unsigned int i = 0; i < 200; i++)
		op(filter);
	t = now_ns();
	for (unsigned int i = 0; i < n; i++)
		op(filter);
	return (now_ns() - t) / n;
}

static void measure(const char *name, void (*op)(bool), bool filter, const char *target)
{
	struct row row = {.name = name, .baseline = "getppid", .target = target};
	unsigned int n = cfg.quick ? 500 : 5000;

	for (unsigned int i = 0; i < cfg.rounds; i++) {
		sample(&row.base, time_of(do_nothing, true, n));
		sample(&row.subject, time_of(op, filter, n));
	}
	print_row(&row);
}

static void set_up(void)
{
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct vfio_device_bind_iommufd bind = {.argsz = sizeof(bind)};
	struct vfio_region_info info = {.argsz = sizeof(info), .index = 0};
	uint16_t command = 6;

	iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	REQUIRE(iommufd >= 0);
	device = open(getenv("SWIOMMU_BENCH_NODE"), O_RDWR | O_CLOEXEC);
	REQUIRE(device >= 0);
	bind.iommufd = iommufd;
	REQUIRE(!ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind));
	REQUIRE(!ioctl(iommufd, IOMMU_IOAS_ALLOC, &alloc));
	ioas = alloc.out_ioas_id;
	REQUIRE(pwrite(device, &command, 2, (7ull << 40) + 4) == 2);
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(page, 1, 4096);
	REQUIRE(!ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info));
	if (info.flags & VFIO_REGION_INFO_FLAG_MMAP)
		bar = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, device,
			   (off_t)info.offset);
	REQUIRE(bar != MAP_FAILED);
}

static int client(void)
{
	set_up();
	print_heading("A call, by way");
	measure("ioctl IOMMU_OPTION, filter", do_option, true, "");
	measure("ioctl IOMMU_OPTION, ring", do_option, false, "300 ns");
	measure("IOAS_MAP and UNMAP of a page, filter", do_map_unmap, true, "");
	measure("IOAS_MAP and UNMAP of a page, ring", do_map_unmap, false, "");
	measure("pread of a register, filter", do_pread, true, "");
	measure("pread of a register, ring", do_pread, false, "300 ns");
	if (!bar) {
		puts("registers are not mapped: there is no preload helper");
		return 0;
	}
	measure("load of a register, trapped", do_load, false, "2.8 us");
	measure("store to a register, trapped", do_store, false, "2.8 us");
	return 0;
}

int main(int argc, char **argv)
{
	char self[PATH_MAX], swiommu[PATH_MAX + 16], script[2 * PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (argc > 1 && !strcmp(argv[argc - 1], "--quick")) {
		cfg.quick = true;
		cfg.rounds = 3;
	}
	if (getenv("SWIOMMU_BENCH_NODE"))
		return client();
	REQUIRE(n > 0);
	self[n] = '\0';
	snprintf(script, sizeof(script), "%s", self);
	snprintf(swiommu, sizeof(swiommu), "%s/../swiommu", dirname(script));
	/* The node's number is free to choose for swiommu. */
	snprintf(script, sizeof(script),
		 "SWIOMMU_BENCH_NODE=$(ls -d /dev/vfio/devices/vfio* | tail -n 1) exec '%s' %s",
		 self, cfg.quick ? "--quick" : "");
	execl(swiommu, "swiommu", "run", "-d", "ioat", "--", "sh", "-c", script, NULL);
	perror(swiommu);
	return 1;
}
