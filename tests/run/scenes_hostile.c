// SPDX-License-Identifier: MIT
/* Programs that mean harm, or behave as if they did. Only they may suffer from it. */
#include "client.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- arguments in bad memory ----------------------------------------------------------------- */

static int alloc_at(int fd, void *arg)
{
	return ioctl(fd, IOMMU_IOAS_ALLOC, arg);
}

static int bad_arguments(int argc, char **argv)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};
	char *p = pages(3 * PAGE, 0), *none = p + PAGE, *edge;
	int fd = iommu_open();
	uint32_t before = ioas_alloc(fd);

	(void)argc;
	(void)argv;
	CHECK(!munmap(p + 2 * PAGE, PAGE));
	CHECK(!mprotect(none, PAGE, PROT_NONE));
	CHECK_ERROR(alloc_at(fd, NULL), EFAULT);
	CHECK_ERROR(alloc_at(fd, (void *)-1), EFAULT);
	CHECK_ERROR(alloc_at(fd, (void *)0x8000000000000000), EFAULT);
	CHECK_ERROR(alloc_at(fd, (void *)-PAGE), EFAULT);
	CHECK_ERROR(alloc_at(fd, none), EFAULT);
	CHECK_ERROR(alloc_at(fd, p + 2 * PAGE), EFAULT);
	/* The size is in one page, the rest in the next. */
	edge = none - 4;
	memcpy(edge, &cmd.size, sizeof(cmd.size));
	CHECK_ERROR(alloc_at(fd, edge), EFAULT);
	/* It can be read, but not be written back: nothing must be left of it. */
	memcpy(p, &cmd, sizeof(cmd));
	CHECK(!mprotect(p, PAGE, PROT_READ));
	CHECK_ERROR(alloc_at(fd, p), EFAULT);
	CHECK(!mprotect(p, PAGE, PROT_READ | PROT_WRITE));
	CHECK(!alloc_at(fd, p));
	memcpy(&cmd, p, sizeof(cmd));
	CHECK(cmd.out_ioas_id == before + 1);
	/* Two pages, both there, at an odd address. */
	CHECK(!mprotect(none, PAGE, PROT_READ | PROT_WRITE));
	cmd = (struct iommu_ioas_alloc){.size = sizeof(cmd)};
	memcpy(edge + 1, &cmd, sizeof(cmd));
	CHECK(!alloc_at(fd, edge + 1));
	return 0;
}

struct blocked {
	int fd;
	void *arg;
	_Atomic int rc; /* 1: not back yet */
};

static void *call_blocked(void *arg)
{
	struct blocked *b = arg;
	int rc = alloc_at(b->fd, b->arg);

	atomic_store(&b->rc, rc ? -errno : 0);
	return NULL;
}

/* Memory that nobody provides: who asks for it waits. All others go on. */
static int blocking_memory(int argc, char **argv)
{
	enum { N = 12 };
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	struct iommu_ioas_alloc *cmd = pages(PAGE, 0);
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC), fd = iommu_open(), other = iommu_open();
	struct blocked b[N];
	pthread_t t[N];
	char *p = mmap(NULL, N * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)argc;
	(void)argv;
	if (uffd < 0)
		return SKIP;
	CHECK(!ioctl(uffd, UFFDIO_API, &api));
	reg.range = (struct uffdio_range){(uintptr_t)p, N * PAGE};
	CHECK(!ioctl(uffd, UFFDIO_REGISTER, &reg));
	for (int i = 0; i < N; i++) {
		b[i] = (struct blocked){fd, p + i * PAGE, 1};
		CHECK(!pthread_create(&t[i], NULL, call_blocked, &b[i]));
	}
	for (int i = 0; i < 200; i++) {
		CHECK(!destroy(fd, ioas_alloc(fd)));
		CHECK(!destroy(other, ioas_alloc(other)));
		sleep_us(100);
	}
	for (int i = 0; i < N; i++)
		CHECK(b[i].rc == 1);
	/* A file with a call in progress can be closed. */
	CHECK(!close(other));
	*cmd = (struct iommu_ioas_alloc){.size = sizeof(*cmd)};
	for (int i = 0; i < N / 2; i++) {
		struct uffdio_copy copy = {(uintptr_t)p + i * PAGE, (uintptr_t)cmd, PAGE, 0, 0};

		CHECK(!ioctl(uffd, UFFDIO_COPY, &copy));
		CHECK(!pthread_join(t[i], NULL));
		CHECK(b[i].rc == 0);
	}
	/* The others are ended with the process. */
	return 0;
}

/* ---- changes in the middle of a call --------------------------------------------------------- */

static _Atomic bool stop;
static _Atomic int shared_fd;
static void *volatile shared_page;

static void *remap(void *arg)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};

	(void)arg;
	while (!stop) {
		CHECK(!munmap(shared_page, PAGE));
		CHECK(mmap(shared_page, PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == shared_page);
		memcpy(shared_page, &cmd, sizeof(cmd));
		sched_yield();
	}
	return NULL;
}

static int argument_vanishes(int argc, char **argv)
{
	double end = seconds() + 0.5;
	int fd = iommu_open(), good = 0, rc;
	pthread_t t;

	(void)argc;
	(void)argv;
	shared_page = pages(PAGE, 0);
	CHECK(!pthread_create(&t, NULL, remap, NULL));
	while (seconds() < end) {
		rc = alloc_at(fd, shared_page);
		/* A page of zeros says a size of 0. */
		CHECK(!rc || errno == EFAULT || errno == EINVAL);
		good += !rc;
	}
	stop = true;
	CHECK(!pthread_join(t, NULL));
	CHECK(!destroy(fd, ioas_alloc(fd)));
	printf("%d succeeded\n", good);
	return 0;
}

static void *close_and_open(void *arg)
{
	(void)arg;
	while (!stop) {
		int fd = shared_fd;

		shared_fd = -1;
		CHECK(!close(fd));
		shared_fd = iommu_open();
		sched_yield();
	}
	return NULL;
}

static int file_closes(int argc, char **argv)
{
	double end = seconds() + 0.5;
	pthread_t t;
	uint32_t id;
	void *p = pages(PAGE, 0);

	(void)argc;
	(void)argv;
	shared_fd = iommu_open();
	CHECK(!pthread_create(&t, NULL, close_and_open, NULL));
	while (seconds() < end) {
		int fd = shared_fd;

		if (ioas_try_alloc(fd, &id)) {
			CHECK(errno == EBADF);
			continue;
		}
		/* By now it may be another file, or none. */
		if (ioas_map_at(fd, id, p, PAGE, 0x1000))
			CHECK(errno == EBADF || errno == ENOENT);
		if (destroy(fd, id))
			CHECK(errno == EBADF || errno == ENOENT);
	}
	stop = true;
	CHECK(!pthread_join(t, NULL));
	return 0;
}

static void *swap(void *arg)
{
	int *fds = arg;

	for (unsigned int i = 0; !stop; i++)
		CHECK(dup2(fds[i % 3], fds[3]) == fds[3]);
	return NULL;
}

/* One number, changing between two contexts and something else: every call is of one of the three.
 */
static int table_swaps(int argc, char **argv)
{
	int fds[4] = {iommu_open(), iommu_open(), open("/dev/null", O_RDWR), 500}, hits[3] = {0};
	double end = seconds() + 0.5;
	uint32_t in_a, in_b, id;
	pthread_t t;

	(void)argc;
	(void)argv;
	for (int i = 0; i < 1000; i++)
		in_a = ioas_alloc(fds[0]);
	in_b = ioas_alloc(fds[1]);
	CHECK(dup2(fds[0], fds[3]) == fds[3]);
	CHECK(!pthread_create(&t, NULL, swap, fds));
	while (seconds() < end) {
		if (ioas_try_alloc(fds[3], &id)) {
			CHECK(errno == ENOTTY);
			hits[2]++;
		} else if (id == in_a + 1) {
			in_a = id;
			hits[0]++;
		} else {
			CHECK(id == in_b + 1);
			in_b = id;
			hits[1]++;
		}
	}
	stop = true;
	CHECK(!pthread_join(t, NULL));
	CHECK(hits[0] && hits[1] && hits[2]);
	return 0;
}

/* ---- locks and positions: what the supervisor itself relies on ------------------------------- */

static int lock_games(int argc, char **argv)
{
	struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int a = iommu_open(), b = iommu_open(), dev = vfio_open(O_RDWR), c;
	uint32_t id = ioas_alloc(a), other;

	(void)argc;
	(void)argv;
	/* Everything that nobody has: joins up with what the supervisor holds for the file. */
	CHECK(!fcntl(a, F_OFD_SETLK, &all));
	CHECK(ioas_exists(a, id));
	CHECK(!lseek(a, 0, SEEK_SET));
	CHECK(ioas_exists(a, id));
	/* Now nobody else can be made known; that must fail cleanly. */
	c = iommu_open();
	CHECK(ioas_try_alloc(c, &other) && errno == EAGAIN);
	CHECK(ioas_exists(a, id));
	/* It throws away everything, its own identity too. */
	all.l_type = F_UNLCK;
	CHECK(!fcntl(a, F_OFD_SETLK, &all));
	(void)!ioas_try_alloc(a, &other);
	CHECK(ioas_alloc(b) == 1);
	CHECK(ioas_alloc(c) == 1);
	CHECK(!vfio_bind(dev, b));
	all.l_type = F_WRLCK;
	(void)!fcntl(dev, F_OFD_SETLK, &all);
	all.l_type = F_UNLCK;
	CHECK(!fcntl(dev, F_OFD_SETLK, &all));
	(void)!vfio_attach(dev, 1);
	CHECK(!close(dev));
	dev = vfio_open(O_RDWR);
	CHECK(!vfio_bind(dev, b));
	return 0;
}

/* ---- storms ---------------------------------------------------------------------------------- */

static void storm_child(unsigned int seed, int inherited)
{
	void *p = pages(4 * PAGE, seed);
	uint32_t id;

	for (;;) {
		int fd = rand_r(&seed) % 2 ? inherited : iommu_open();
		int dev = rand_r(&seed) % 4 ? -1 : vfio_open(O_RDWR);

		CHECK(!ioas_try_alloc(fd, &id));
		CHECK(!ioas_map_at(fd, id, p, 4 * PAGE, 0x10000));
		if (dev >= 0 && !vfio_bind(dev, fd))
			CHECK(!vfio_attach(dev, id));
		if (rand_r(&seed) % 2 && destroy(fd, id))
			CHECK(errno == EBUSY);
		if (dev >= 0)
			close(dev);
		if (fd != inherited)
			close(fd);
	}
}

static int storm(int argc, char **argv)
{
	enum { N = 50 };
	unsigned int seed = argc ? atoi(argv[0]) : 1;
	double end = seconds() + 1.5;
	pid_t pids[N];
	int fd = iommu_open(), status, dev;

	for (int i = 0; i < N; i++) {
		pids[i] = fork();
		CHECK(pids[i] >= 0);
		if (!pids[i])
			storm_child(seed + i, fd);
	}
	while (seconds() < end) {
		int i = rand_r(&seed) % N;

		CHECK(!kill(pids[i], SIGKILL));
		CHECK(waitpid(pids[i], &status, 0) == pids[i]);
		CHECK(WIFSIGNALED(status)); /* not by a failed check */
		pids[i] = fork();
		CHECK(pids[i] >= 0);
		if (!pids[i])
			storm_child(rand_r(&seed), fd);
		sleep_us(rand_r(&seed) % 3000);
	}
	for (int i = 0; i < N; i++)
		kill(pids[i], SIGKILL);
	for (int i = 0; i < N; i++)
		CHECK(wait(&status) > 0 && WIFSIGNALED(status));
	dev = vfio_open(O_RDWR);
	CHECK(!vfio_bind(dev, fd));
	return 0;
}

const struct scene hostile_scenes[] = {
	{"bad_arguments", bad_arguments},
	{"blocking_memory", blocking_memory},
	{"argument_vanishes", argument_vanishes},
	{"file_closes", file_closes},
	{"table_swaps", table_swaps},
	{"lock_games", lock_games},
	{"storm", storm},
	{NULL, NULL},
};
