// SPDX-License-Identifier: MIT
/* A device's registers through mmap: with the preload helper they can be mapped, and each access is one of the device. */
#include "client.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define BAR_SIZE 0x4000ul
#define REG8(base, at) (*(volatile uint8_t *)((char *)(base) + (at)))
#define REG16(base, at) (*(volatile uint16_t *)((char *)(base) + (at)))
#define REG32(base, at) (*(volatile uint32_t *)((char *)(base) + (at)))
#define REG64(base, at) (*(volatile uint64_t *)((char *)(base) + (at)))

static uint32_t bar_flags(int fd)
{
	struct vfio_region_info info = {.argsz = sizeof(info), .index = VFIO_PCI_BAR0_REGION_INDEX};

	CHECK(!ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, &info));
	CHECK(info.size == BAR_SIZE);
	return info.flags;
}

static char *map_bar(struct engine *e)
{
	char *p;

	CHECK(bar_flags(e->fd) & VFIO_REGION_INFO_FLAG_MMAP);
	p = mmap(NULL, BAR_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, e->fd, (off_t)e->bar);
	CHECK(p != MAP_FAILED);
	return p;
}

/* engine_copy() by loads and stores. */
static uint32_t copy_by_registers(struct engine *e, char *bar, uint64_t to, uint64_t from,
				  uint32_t len)
{
	double end = seconds() + 10;
	uint64_t status;

	engine_describe(e, to, from, len);
	REG8(bar, 0x84) = 0x20;
	REG32(bar, 0xa8) = REG32(bar, 0xa8);
	REG16(bar, 0x80) = 0x0d;
	REG64(bar, 0x98) = e->iova + 512;
	REG64(bar, 0x90) = e->iova;
	REG16(bar, 0x86) = 1;
	do {
		status = REG64(bar, 0x88);
		CHECK(seconds() < end);
	} while ((status & 7) != 1 && (status & 7) != 3);
	return (status & 7) == 1 ? 0 : REG32(bar, 0xa8);
}

static int mmio_copies(int argc, char **argv)
{
	char *from = pages(3 * PAGE, 0x21), *to = pages(3 * PAGE, 0), *bar;
	struct engine e;
	uint64_t src, dst;

	(void)argc;
	(void)argv;
	engine_open(&e);
	bar = map_bar(&e);
	CHECK(REG8(bar, 8) == 0x33); /* the engine's version */
	src = ioas_map(e.iommufd, e.ioas, from, 3 * PAGE);
	dst = ioas_map(e.iommufd, e.ioas, to, 3 * PAGE);
	for (int i = 0; i < 50; i++) {
		memset(to, 0, 3 * PAGE);
		CHECK(!copy_by_registers(&e, bar, dst + 100, src + 50, 2 * PAGE));
		CHECK(all_bytes(to, 100, 0) && all_bytes(to + 100, 2 * PAGE, 0x21));
	}
	CHECK(copy_by_registers(&e, bar, dst, 0x5000000000, PAGE) & ENGINE_BAD_SOURCE);
	/* The mapping keeps the device open and usable, as any mapping does with its file. */
	CHECK(!close(e.fd));
	CHECK(!copy_by_registers(&e, bar, dst, src, PAGE));
	e.fd = vfio_open(O_RDWR | O_CLOEXEC);
	CHECK_ERROR(vfio_bind(e.fd, e.iommufd), EINVAL);
	CHECK(!munmap(bar, BAR_SIZE));
	CHECK(!vfio_bind(e.fd, e.iommufd));
	return 0;
}

/* ---- where it is no memory --------------------------------------------------------------------- */

static sigjmp_buf back;
static volatile sig_atomic_t signals_seen, last_code;
static void *volatile last_addr;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	signals_seen++;
	last_code = info->si_code;
	last_addr = info->si_addr;
	siglongjmp(back, sig);
}

static int fault_of(volatile char *at, bool write)
{
	int sig = sigsetjmp(back, 1);

	if (sig)
		return sig;
	if (write)
		*at = 1;
	else
		(void)*at;
	return 0;
}

static void set_handler(int sig)
{
	struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO}, now;

	sigfillset(&sa.sa_mask);
	CHECK(!sigaction(sig, &sa, NULL));
	CHECK(!sigaction(sig, NULL, &now));
	CHECK(now.sa_sigaction == on_fault && now.sa_flags & SA_SIGINFO);
}

static int mmio_and_system_calls(int argc, char **argv)
{
	struct engine e;
	char *bar, byte = 0;
	int pipefd[2];

	(void)argc;
	(void)argv;
	engine_open(&e);
	bar = map_bar(&e);
	CHECK(!pipe(pipefd));
	CHECK_ERROR(write(pipefd[1], bar + 8, 1), EFAULT);
	CHECK(write(pipefd[1], &byte, 1) == 1);
	CHECK_ERROR(read(pipefd[0], bar + 8, 1), EFAULT);
	CHECK_ERROR(ioas_map_at(e.iommufd, e.ioas, bar, PAGE, 0x40000000), EFAULT);
	CHECK_ERROR(ioctl(e.iommufd, IOMMU_IOAS_ALLOC, bar), EFAULT);
	/* Past the end, without the flag: as ever. */
	CHECK_ERROR((long)mmap(NULL, BAR_SIZE + PAGE, PROT_READ, MAP_SHARED, e.fd, 0), EINVAL);
	CHECK_ERROR((long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, e.fd, (off_t)e.config), EINVAL);
	CHECK(REG8(bar, 8) == 0x33);
	return 0;
}

static int mmio_own_handler(int argc, char **argv)
{
	volatile char *hole = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct engine e;
	sigset_t all;
	char *bar;

	(void)argc;
	(void)argv;
	set_handler(SIGSEGV);
	CHECK(fault_of(hole + 3, true) == SIGSEGV && last_addr == (void *)(hole + 3));
	engine_open(&e);
	bar = map_bar(&e);
	CHECK(REG8(bar, 8) == 0x33);
	/* Set before the device was mapped, it is still there; and set afterwards. */
	CHECK(fault_of(hole + 4, true) == SIGSEGV && last_addr == (void *)(hole + 4));
	set_handler(SIGSEGV);
	CHECK(fault_of(hole + 5, false) == SIGSEGV && last_addr == (void *)(hole + 5));
	CHECK(signals_seen == 3 && REG8(bar, 8) == 0x33 && signals_seen == 3);
	CHECK(signal(SIGSEGV, SIG_DFL) == (sighandler_t)(void *)on_fault);
	CHECK(signal(SIGSEGV, SIG_IGN) == SIG_DFL);
	/* Nobody can block what registers need. */
	sigfillset(&all);
	CHECK(!sigprocmask(SIG_BLOCK, &all, NULL));
	CHECK(REG8(bar, 8) == 0x33);
	CHECK(!pthread_sigmask(SIG_SETMASK, &all, NULL));
	CHECK(REG8(bar, 8) == 0x33);
	sigemptyset(&all);
	CHECK(!sigprocmask(SIG_SETMASK, &all, NULL));
	/* With memory decoding off, registers do not answer. */
	set_handler(SIGBUS);
	uint16_t command = 0;

	CHECK(pwrite(e.fd, &command, 2, (off_t)e.config + 4) == 2);
	CHECK(fault_of(bar + 8, false) == SIGBUS && last_addr == bar + 8);
	command = 6;
	CHECK(pwrite(e.fd, &command, 2, (off_t)e.config + 4) == 2);
	CHECK(REG8(bar, 8) == 0x33);
	return 0;
}

static int mmio_layout(int argc, char **argv)
{
	struct engine e;
	char *bar, *space, *moved;

	(void)argc;
	(void)argv;
	set_handler(SIGSEGV);
	engine_open(&e);
	/* Over a reservation, in two pieces, the second only for writing. */
	space = mmap(NULL, 16 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(space != MAP_FAILED);
	bar = mmap(space + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, e.fd,
		   (off_t)e.bar);
	CHECK(bar == space + 2 * PAGE);
	CHECK(mmap(bar + PAGE, 3 * PAGE, PROT_WRITE, MAP_SHARED | MAP_FIXED, e.fd,
		   (off_t)(e.bar + PAGE)) == bar + PAGE);
	CHECK(!madvise(bar, PAGE, MADV_HUGEPAGE));
	CHECK(REG8(bar, 8) == 0x33);
	REG64(bar, 0x90) = 0x123456789abcde00;
	CHECK(REG32(bar, 0x94) == 0x12345678);
	/* The table of MSI-X reads as ones; what is written is dropped. */
	REG32(bar, 0x2000) = 5;
	CHECK(REG32(bar, 0x2000) == UINT32_MAX);
	/* Rights. */
	CHECK(!mprotect(bar, PAGE, PROT_READ));
	CHECK(REG8(bar, 8) == 0x33);
	CHECK(fault_of(bar + 0x90, true) == SIGSEGV && last_code == SEGV_ACCERR);
	CHECK(!mprotect(bar, PAGE, PROT_NONE));
	CHECK(fault_of(bar + 8, false) == SIGSEGV);
	CHECK(!mprotect(bar, PAGE, PROT_READ | PROT_WRITE));
	CHECK(REG8(bar, 8) == 0x33);
	/* Moved, cut, replaced, gone. */
	moved = mremap(bar, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, space + 10 * PAGE);
	CHECK(moved == space + 10 * PAGE && REG8(moved, 8) == 0x33);
	CHECK(fault_of(bar + 8, false) == SIGSEGV);
	CHECK(!munmap(bar + 2 * PAGE, PAGE));
	CHECK(fault_of(bar + 2 * PAGE, true) == SIGSEGV);
	REG32(bar + PAGE, 8) = 1;
	REG32(bar + 3 * PAGE, 8) = 1;
	CHECK(mmap(moved, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == moved);
	CHECK(REG8(moved, 8) == 0);
	REG8(moved, 8) = 7;
	CHECK(REG8(moved, 8) == 7);
	CHECK(!munmap(space, 16 * PAGE));
	CHECK(fault_of(bar + PAGE, true) == SIGSEGV);
	return 0;
}

/* ---- threads and processes --------------------------------------------------------------------- */

static void *read_registers(void *arg)
{
	char *bar = arg;

	for (int i = 0; i < 3000; i++)
		CHECK(REG8(bar, 8) == 0x33 && REG16(bar, 0) == (1 | 14 << 8));
	return NULL;
}

static void child_reads(void *data)
{
	read_registers(data);
	exec_scene("mmio_after_exec", NULL, NULL, NULL);
}

static int mmio_threads_and_children(int argc, char **argv)
{
	pthread_t t[4];
	struct engine e;
	char *bar;

	(void)argc;
	(void)argv;
	engine_open(&e);
	bar = map_bar(&e);
	for (int i = 0; i < 4; i++)
		CHECK(!pthread_create(&t[i], NULL, read_registers, bar));
	for (int i = 0; i < 2; i++)
		in_child(child_reads, bar);
	for (int i = 0; i < 4; i++)
		CHECK(!pthread_join(t[i], NULL));
	return 0;
}

static int mmio_after_exec(int argc, char **argv)
{
	int iommufd = iommu_open(), fd = vfio_open(O_RDWR | O_CLOEXEC);

	(void)argc;
	(void)argv;
	CHECK(iommufd >= 0 && fd >= 0);
	return 0;
}

/* ---- memory made shared ------------------------------------------------------------------------ */

#define COUNTERS 1024ul /* less than an ordinary user may pin */

struct writer {
	char *p;
	volatile bool stop;
	unsigned long rounds;
};

/* Counts up in every page of memory that is being converted: no count may get lost. */
static void *keep_writing(void *arg)
{
	struct writer *w = arg;

	for (; !w->stop; w->rounds++)
		for (size_t i = 0; i < COUNTERS; i++)
			(*(volatile unsigned long *)(w->p + i * PAGE))++;
	return NULL;
}

static bool is_shared(const void *at)
{
	char line[512], perms[8];
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long start, end;
	bool shared = false;

	CHECK(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx %7s", &start, &end, perms) == 3 &&
		    (uintptr_t)at >= start && (uintptr_t)at < end)
			shared = perms[3] == 's';
	fclose(f);
	return shared;
}

static void child_has_its_own(void *data)
{
	char *p = data;

	CHECK(!is_shared(p) && all_bytes(p, PAGE, 0x42) && all_bytes(p + 7 * PAGE, PAGE, 0));
	memset(p, 0x55, 8 * PAGE);
}

/* With --share-memory. */
static int shared_memory(int argc, char **argv)
{
	char *p = pages(8 * PAGE, 0x42), *read_only = pages(PAGE, 0), on_stack[2 * PAGE];
	struct writer w = {.p = pages(COUNTERS * PAGE, 0)};
	struct engine e;
	uint64_t src, dst, iova;
	pthread_t t;

	(void)argc;
	(void)argv;
	engine_open(&e);
	CHECK(!madvise(p + 7 * PAGE, PAGE, MADV_DONTNEED));
	CHECK(!is_shared(p));
	src = ioas_map(e.iommufd, e.ioas, p, 4 * PAGE);
	CHECK(is_shared(p) && is_shared(p + 3 * PAGE) && !is_shared(p + 4 * PAGE));
	dst = ioas_map(e.iommufd, e.ioas, p + 4 * PAGE, 4 * PAGE);
	CHECK(is_shared(p + 7 * PAGE));
	CHECK(all_bytes(p, 7 * PAGE, 0x42) && all_bytes(p + 7 * PAGE, PAGE, 0));
	/* The device and we see the same bytes. */
	memset(p, 0x17, PAGE);
	CHECK(!engine_copy(&e, dst, src, PAGE));
	CHECK(all_bytes(p + 4 * PAGE, PAGE, 0x17) && all_bytes(p + 5 * PAGE, PAGE, 0x42));
	/* A child does not share it. */
	memset(p, 0x42, PAGE);
	in_child(child_has_its_own, p);
	CHECK(all_bytes(p, PAGE, 0x42) && all_bytes(p + 7 * PAGE, PAGE, 0));
	/* Read-only memory and the stack are left as they are. */
	CHECK(!mprotect(read_only, PAGE, PROT_READ));
	CHECK_ERROR(ioas_map_at(e.iommufd, e.ioas, read_only, PAGE, 0x70000000), EFAULT);
	CHECK(!is_shared(read_only));
	memset(on_stack, 1, sizeof(on_stack));
	iova = ioas_map(e.iommufd, e.ioas, (void *)(((uintptr_t)on_stack + PAGE - 1) & -PAGE),
			PAGE);
	CHECK(!is_shared(on_stack) && !ioas_unmap(e.iommufd, e.ioas, iova, PAGE));
	/* While another thread writes. */
	CHECK(!pthread_create(&t, NULL, keep_writing, &w));
	for (size_t i = 0; i < COUNTERS; i += COUNTERS / 4) {
		ioas_map(e.iommufd, e.ioas, w.p + i * PAGE, COUNTERS / 4 * PAGE);
		CHECK(is_shared(w.p + i * PAGE));
	}
	w.stop = true;
	CHECK(!pthread_join(t, NULL));
	for (size_t i = 0; i < COUNTERS; i++)
		CHECK(*(unsigned long *)(w.p + i * PAGE) == w.rounds);
	return 0;
}

/* ---- without it -------------------------------------------------------------------------------- */

static int mmio_is_not_offered(int argc, char **argv)
{
	struct engine e;

	(void)argc;
	(void)argv;
	engine_open(&e);
	CHECK(!(bar_flags(e.fd) & VFIO_REGION_INFO_FLAG_MMAP));
	CHECK_ERROR((long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, e.fd, (off_t)e.bar), EINVAL);
	return 0;
}

/* A program with the helper becomes one without. */
static int mmio_exec_static(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	execl("./client-static", "client", "mmio_is_not_offered", NULL);
	check_failed(__FILE__, __LINE__, "exec", errno);
}

const struct scene mmio_scenes[] = {
	{"mmio_copies", mmio_copies},
	{"mmio_and_system_calls", mmio_and_system_calls},
	{"mmio_own_handler", mmio_own_handler},
	{"mmio_layout", mmio_layout},
	{"mmio_threads_and_children", mmio_threads_and_children},
	{"mmio_after_exec", mmio_after_exec},
	{"shared_memory", shared_memory},
	{"mmio_is_not_offered", mmio_is_not_offered},
	{"mmio_exec_static", mmio_exec_static},
	{NULL, NULL},
};
