// SPDX-License-Identifier: MIT
/* Open files: what belongs to the descriptor, what to the open file, and when it is gone. */
#include "client.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the plain use --------------------------------------------------------------------------- */

static int ioctl_flow(int argc, char **argv)
{
	struct iommu_ioas_iova_ranges ranges = {.size = sizeof(ranges)};
	int fd = iommu_open();
	uint32_t ioas = ioas_alloc(fd);
	void *p = pages(4 * PAGE, 1);

	(void)argc;
	(void)argv;
	ranges.ioas_id = ioas;
	CHECK_ERROR(ioctl(fd, IOMMU_IOAS_IOVA_RANGES, &ranges), EMSGSIZE);
	CHECK(ranges.num_iovas >= 1);
	CHECK(!ioas_map_at(fd, ioas, p, 4 * PAGE, 0x100000));
	CHECK_ERROR(ioas_map_at(fd, ioas, p, PAGE, 0x101000), EEXIST);
	CHECK_ERROR(ioas_unmap(fd, ioas, 0x101000, PAGE), ENOENT);
	CHECK(!ioas_unmap(fd, ioas, 0x100000, 4 * PAGE));
	CHECK_ERROR(ioas_unmap(fd, ioas, 0x100000, 4 * PAGE), ENOENT);
	CHECK_ERROR(ioctl(fd, _IO(';', 0xf0), NULL), ENOTTY);
	CHECK_ERROR(ioctl(fd, IOMMU_IOAS_ALLOC, NULL), EFAULT);
	CHECK(!destroy(fd, ioas));
	CHECK_ERROR(destroy(fd, ioas), ENOENT);
	CHECK(!close(fd));
	CHECK_ERROR(destroy(fd, ioas), EBADF);
	return 0;
}

static int device_copies(int argc, char **argv)
{
	char *from = pages(3 * PAGE, 0x21), *to = pages(3 * PAGE, 0);
	struct engine e;
	uint64_t src, dst;

	(void)argc;
	(void)argv;
	engine_open(&e);
	src = ioas_map(e.iommufd, e.ioas, from, 3 * PAGE);
	dst = ioas_map(e.iommufd, e.ioas, to, 3 * PAGE);
	CHECK(!engine_copy(&e, dst + 100, src + 50, 2 * PAGE));
	CHECK(all_bytes(to, 100, 0) && all_bytes(to + 100, 2 * PAGE, 0x21));
	CHECK(all_bytes(to + 100 + 2 * PAGE, PAGE - 100, 0));
	CHECK(engine_copy(&e, dst, 0x5000000000, PAGE) & ENGINE_BAD_SOURCE);
	engine_close(&e);
	return 0;
}

/* ---- threads --------------------------------------------------------------------------------- */

#define THREADS 8

struct thread_job {
	int fd;
	uint32_t ioas;
	unsigned int index;
};

static void *map_and_unmap(void *arg)
{
	struct thread_job *j = arg;
	char *p = pages(4 * PAGE, j->index);
	uint64_t iova = 0x1000000ull * (j->index + 1);

	for (int i = 0; i < 150; i++) {
		CHECK(!ioas_map_at(j->fd, j->ioas, p, 4 * PAGE, iova));
		CHECK_ERROR(ioas_map_at(j->fd, j->ioas, p, PAGE, iova), EEXIST);
		CHECK(!ioas_unmap(j->fd, j->ioas, iova, 4 * PAGE));
	}
	return NULL;
}

static void run_threads(void *(*fn)(void *), struct thread_job *jobs)
{
	pthread_t t[THREADS];

	for (unsigned int i = 0; i < THREADS; i++)
		CHECK(!pthread_create(&t[i], NULL, fn, &jobs[i]));
	for (unsigned int i = 0; i < THREADS; i++)
		CHECK(!pthread_join(t[i], NULL));
}

static int threads_one_fd(int argc, char **argv)
{
	struct thread_job jobs[THREADS];
	int fd = iommu_open();
	uint32_t ioas = ioas_alloc(fd);

	(void)argc;
	(void)argv;
	for (unsigned int i = 0; i < THREADS; i++)
		jobs[i] = (struct thread_job){fd, ioas, i};
	run_threads(map_and_unmap, jobs);
	return 0;
}

static int threads_many_fds(int argc, char **argv)
{
	struct thread_job jobs[THREADS];

	(void)argc;
	(void)argv;
	for (unsigned int i = 0; i < THREADS; i++) {
		int fd = iommu_open();

		/* The same IOVAs for all: they would collide if the files were mixed up. */
		jobs[i] = (struct thread_job){fd, ioas_alloc(fd), 0};
	}
	run_threads(map_and_unmap, jobs);
	return 0;
}

static void *open_fresh(void *arg)
{
	struct thread_job *j = arg;

	/* Everybody's first call at once: two files made out of one would know different objects.
	 */
	for (int i = 0; i < 100; i++)
		CHECK(!destroy(j->fd, ioas_alloc(j->fd)));
	return NULL;
}

static int threads_first_use(int argc, char **argv)
{
	struct thread_job jobs[THREADS];

	(void)argc;
	(void)argv;
	for (int round = 0; round < 5; round++) {
		int fd = iommu_open();

		for (unsigned int i = 0; i < THREADS; i++)
			jobs[i] = (struct thread_job){fd, 0, i};
		run_threads(open_fresh, jobs);
		close(fd);
	}
	return 0;
}

static void *own_table(void *arg)
{
	int *number = arg, fd;

	CHECK(!unshare(CLONE_FILES));
	fd = iommu_open();
	CHECK(dup2(fd, *number) == *number);
	CHECK(!destroy(*number, ioas_alloc(*number)));
	return NULL;
}

/* A number means what it means in the descriptor table of the very thread that uses it. */
static int thread_own_table(int argc, char **argv)
{
	int number = open("/dev/null", O_RDWR);
	pthread_t t;
	uint32_t id;

	(void)argc;
	(void)argv;
	if (syscall(SYS_pidfd_open, syscall(SYS_gettid), O_EXCL) < 0)
		return SKIP; /* Linux before 6.9: no way to tell */
	CHECK(!pthread_create(&t, NULL, own_table, &number));
	CHECK(!pthread_join(t, NULL));
	CHECK_ERROR(ioas_try_alloc(number, &id), ENOTTY);
	return 0;
}

/* ---- descriptors of one open file ------------------------------------------------------------ */

static int dup_shares(int argc, char **argv)
{
	int fd = iommu_open(), other, copies[4];

	(void)argc;
	(void)argv;
	other = iommu_open();
	copies[0] = dup(fd);
	copies[1] = dup2(fd, 200);
	copies[2] = fcntl(fd, F_DUPFD, 300);
	copies[3] = fcntl(fd, F_DUPFD_CLOEXEC, 300);
	for (size_t i = 0; i < ARRAY_SIZE(copies); i++) {
		uint32_t a = ioas_alloc(fd), b = ioas_alloc(copies[i]);

		CHECK(copies[i] >= 0 && a != b);
		CHECK_ERROR(destroy(other, a), ENOENT);
		CHECK(!destroy(copies[i], a));
		CHECK(!destroy(fd, b));
	}
	/* The file outlives the descriptor that it was opened by. */
	uint32_t id = ioas_alloc(fd);

	CHECK(!close(fd));
	CHECK(!destroy(copies[2], id));
	/* dup2 over a descriptor ends what was there. */
	id = ioas_alloc(copies[0]);
	CHECK(dup2(other, copies[0]) == copies[0]);
	CHECK_ERROR(destroy(copies[0], id), ENOENT);
	return 0;
}

static int opens_are_separate(int argc, char **argv)
{
	int a = iommu_open(), b = iommu_open();
	uint32_t id = ioas_alloc(a);

	(void)argc;
	(void)argv;
	CHECK(!ioas_exists(b, id));
	for (int i = 0; i < 4; i++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid)
			continue;
		int c = iommu_open();

		CHECK(!ioas_exists(c, id));
		CHECK(ioas_alloc(c) == id); /* numbers begin anew in each */
		CHECK(!destroy(c, id));
		_exit(0);
	}
	for (int i = 0, status; i < 4; i++)
		CHECK(wait(&status) > 0 && !status);
	CHECK(ioas_exists(a, id));
	return 0;
}

static int open_modes(int argc, char **argv)
{
	static const int modes[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_NONBLOCK,
				    O_RDWR | O_APPEND};
	int fds[2 * ARRAY_SIZE(modes)], iommufd = iommu_open(), path, dev;
	uint32_t ids[ARRAY_SIZE(fds)], id;

	(void)argc;
	(void)argv;
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = open("/dev/iommu", modes[i / 2]);
		CHECK(fds[i] >= 0);
		for (size_t n = 0; n <= i; n++)
			ids[i] = ioas_alloc(fds[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		CHECK(!destroy(fds[i], ids[i]));
		CHECK_ERROR(destroy(fds[i], ids[i]), ENOENT);
	}
	path = open("/dev/iommu", O_PATH);
	CHECK(path >= 0);
	CHECK_ERROR(ioas_try_alloc(path, &id), EBADF);
	dev = vfio_open(O_RDWR);
	CHECK_ERROR(vfio_bind(dev, path), EBADF);
	CHECK_ERROR(vfio_bind(dev, 999), EBADF);
	CHECK_ERROR(vfio_bind(dev, STDERR_FILENO), EBADFD);
	CHECK_ERROR(vfio_bind(dev, dev), EBADFD);
	CHECK(!vfio_bind(dev, iommufd));
	/* A device that was opened for reading is not written to. */
	CHECK(!close(dev));
	dev = vfio_open(O_RDONLY);
	CHECK(!vfio_bind(dev, iommufd));
	CHECK(pread(dev, &id, 4, 7ll << 40) == 4);
	CHECK_ERROR(pwrite(dev, &id, 4, 7ll << 40), EBADF);
	CHECK_ERROR(pwritev(dev, &(struct iovec){&id, 4}, 1, 7ll << 40), EBADF);
	return 0;
}

/* ---- the position and the flags are the program's own ---------------------------------------- */

static int position_moves(int argc, char **argv)
{
	static const off_t at[] = {0, 1, 4096, 1 << 20, 5 << 20, 1ll << 39, 0x7000000000000000};
	int a = iommu_open(), b = iommu_open();
	uint32_t ia, ib;
	char c = 0;

	(void)argc;
	(void)argv;
	ia = ioas_alloc(a);
	ioas_alloc(b);
	ib = ioas_alloc(b);
	CHECK(ia != ib);
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		(void)!lseek(a, at[i], SEEK_SET);
		CHECK(ioas_exists(a, ia) && !ioas_exists(a, ib));
		CHECK(ioas_exists(b, ib));
	}
	/* To where the other one is, even. */
	(void)!lseek(a, lseek(b, 0, SEEK_CUR), SEEK_SET);
	CHECK(ioas_exists(a, ia) && !ioas_exists(a, ib));
	(void)!lseek(b, lseek(a, 0, SEEK_CUR), SEEK_SET);
	CHECK(ioas_exists(b, ib));
	for (int i = 0; i < 3; i++) {
		(void)!write(a, &c, 1);
		(void)!read(a, &c, 1);
	}
	CHECK(ioas_exists(a, ia) && !ioas_exists(a, ib));
	/* To where a third one was that has gone. */
	int third = iommu_open();

	ioas_alloc(third);
	ioas_alloc(third);
	uint32_t ic = ioas_alloc(third);
	off_t pos = lseek(third, 0, SEEK_CUR);

	close(third);
	(void)!lseek(a, pos, SEEK_SET);
	CHECK(!ioas_exists(a, ic) && ioas_exists(a, ia));
	return 0;
}

static int flags_are_harmless(int argc, char **argv)
{
	int fd = iommu_open(), dev = vfio_open(O_RDWR);
	struct f_owner_ex owner = {F_OWNER_PID, 0};
	uint32_t id = ioas_alloc(fd);

	(void)argc;
	(void)argv;
	CHECK(!vfio_bind(dev, fd));
	CHECK(!fcntl(fd, F_SETFL, O_NONBLOCK));
	CHECK(ioas_exists(fd, id));
	CHECK(!fcntl(fd, F_SETFL, O_APPEND));
	CHECK(ioas_exists(fd, id));
	CHECK(!fcntl(fd, F_SETFL, 0));
	CHECK(!fcntl(fd, F_SETFD, FD_CLOEXEC));
	CHECK(!fcntl(fd, F_SETOWN_EX, &owner));
	CHECK(!fcntl(fd, F_SETSIG, SIGUSR1));
	CHECK(ioas_exists(fd, id));
	CHECK(!fcntl(fd, F_SETSIG, 0));
	CHECK(ioas_exists(fd, id));
	/* With the position at its start as well, it looks as it did when it was opened. */
	CHECK(!lseek(fd, 0, SEEK_SET));
	CHECK(ioas_exists(fd, id));
	CHECK(!fcntl(dev, F_SETSIG, 0));
	CHECK(!lseek(dev, 0, SEEK_SET));
	CHECK_ERROR(vfio_bind(dev, fd), EINVAL);
	CHECK(!vfio_attach(dev, id));
	return 0;
}

/* ---- the last close -------------------------------------------------------------------------- */

static void hold_until_end(int fd)
{
	int ready[2];
	pid_t pid;
	char c;

	CHECK(!pipe(ready));
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		(void)!write(ready[1], "r", 1);
		for (;;)
			pause();
	}
	CHECK(read(ready[0], &c, 1) == 1);
	close(ready[0]);
	close(ready[1]);
	CHECK(!close(fd));
	CHECK(!kill(pid, SIGKILL));
	CHECK(waitpid(pid, NULL, 0) == pid);
}

static void hold_in_flight(int fd)
{
	int pair[2];

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	send_fd(pair[0], fd);
	CHECK(!close(fd));
	int again = receive_fd(pair[1]);

	CHECK_ERROR(vfio_bind(again, 999), EINVAL); /* still bound */
	send_fd(pair[0], again);
	CHECK(!close(again));
	CHECK(!close(pair[1]));
	CHECK(!close(pair[0]));
}

static void end_by(unsigned int way, int dev, int iommufd)
{
	int copy;

	switch (way) {
	case 0:
		CHECK(!close(dev));
		CHECK(!close(iommufd));
		return;
	case 1:
		CHECK(!close(iommufd));
		CHECK(!close(dev));
		return;
	case 2:
		copy = dup(dev);
		CHECK(!close(dev));
		CHECK(!close(iommufd));
		CHECK(!vfio_attach(copy, 0) || errno == ENOENT);
		CHECK(!close(copy));
		return;
	case 3:
		close(iommufd);
		CHECK(dup2(STDERR_FILENO, dev) == dev);
		close(dev);
		return;
	case 4:
		hold_until_end(dev);
		close(iommufd);
		return;
	default:
		hold_in_flight(dev);
		close(iommufd);
	}
}

/* Whatever the last reference was: as soon as it has gone, the device is free. */
static int last_close_releases(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	for (unsigned int i = 0; i < 300; i++) {
		int iommufd = iommu_open(), dev = vfio_open(O_RDWR | O_CLOEXEC), second;
		uint32_t ioas = ioas_alloc(iommufd);

		CHECK(!vfio_bind(dev, iommufd));
		CHECK(!vfio_attach(dev, ioas));
		second = vfio_open(O_RDWR | O_CLOEXEC);
		CHECK_ERROR(vfio_bind(second, iommufd), EINVAL);
		close(second);
		end_by(i % 6, dev, iommufd);
	}
	return 0;
}

static int close_order(int argc, char **argv)
{
	char *p = pages(2 * PAGE, 0x33);
	struct engine e;
	uint64_t iova;

	(void)argc;
	(void)argv;
	for (int i = 0; i < 2; i++) {
		engine_open(&e);
		iova = ioas_map(e.iommufd, e.ioas, p, 2 * PAGE);
		memset(p, 0x33, PAGE);
		memset(p + PAGE, 0, PAGE);
		/* The device holds its address space; the number of the iommufd is not needed any
		 * more. */
		CHECK(!close(e.iommufd));
		CHECK(!engine_copy(&e, iova + PAGE, iova, PAGE));
		CHECK(all_bytes(p, 2 * PAGE, 0x33));
		CHECK(!close(e.fd));
	}
	/* The other way round: the context lives on without the device. */
	engine_open(&e);
	CHECK(!close(e.fd));
	CHECK(ioas_exists(e.iommufd, e.ioas));
	CHECK(!destroy(e.iommufd, e.ioas));
	return 0;
}

static int many_opens(int argc, char **argv)
{
	enum { N = 1000 };
	static int fds[N];
	static uint32_t ids[N];
	char *p = pages(PAGE, 0);
	struct rlimit limit;

	(void)argc;
	(void)argv;
	CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = limit.rlim_max;
	CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
	for (int i = 0; i < N; i++) {
		fds[i] = open("/dev/iommu", O_RDWR);
		if (fds[i] < 0 && errno == EMFILE)
			return SKIP;
		for (int n = 0; n <= i % 3; n++)
			ids[i] = ioas_alloc(fds[i]);
		CHECK(!ioas_map_at(fds[i], ids[i], p, PAGE, 0x10000));
	}
	for (int i = 0; i < N; i++) {
		CHECK(!ioas_unmap(fds[i], ids[i], 0x10000, PAGE));
		CHECK(!destroy(fds[i], ids[i]));
		CHECK_ERROR(destroy(fds[i], ids[i]), ENOENT);
	}
	for (int i = 0; i < N; i += 2)
		close(fds[i]);
	return last_close_releases(0, NULL);
}

/* ---- signals --------------------------------------------------------------------------------- */

static volatile sig_atomic_t alarms;

static void on_alarm(int sig)
{
	(void)sig;
	alarms++;
}

/* With `restart`, handlers are invisible; without, a call may be refused with EINTR, but is never
 * done twice. */
static int signals(int argc, char **argv)
{
	bool restart = argc > 0 && !strcmp(argv[0], "restart");
	struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = restart ? SA_RESTART : 0};
	struct itimerval every = {{0, 200}, {0, 200}};
	int fd = iommu_open(), rc;
	uint32_t ioas = ioas_alloc(fd);
	void *p = pages(PAGE, 0);
	unsigned int interrupted = 0;
	double end = seconds() + 1.5;

	CHECK(!sigaction(SIGALRM, &sa, NULL));
	CHECK(!setitimer(ITIMER_REAL, &every, NULL));
	while (seconds() < end || alarms < 1000) {
		while ((rc = ioas_map_at(fd, ioas, p, PAGE, 0x10000)) && errno == EINTR && !restart)
			interrupted++;
		CHECK(!rc);
		while ((rc = ioas_unmap(fd, ioas, 0x10000, PAGE)) && errno == EINTR && !restart)
			interrupted++;
		CHECK(!rc);
	}
	printf("%u of the calls were interrupted\n", interrupted);
	return 0;
}

/* ---- costs ----------------------------------------------------------------------------------- */

/* Not a test: prints what a call costs. */
static int cost(int argc, char **argv)
{
	unsigned int n = argc > 0 ? atoi(argv[0]) : 20000;
	int fd = iommu_open();
	double t0, t1, t2, t3;

	t0 = seconds();
	for (unsigned int i = 0; i < n * 10; i++)
		syscall(SYS_getppid);
	t1 = seconds();
	for (unsigned int i = 0; i < n; i++)
		CHECK(!option_get(fd));
	t2 = seconds();
	for (unsigned int i = 0; i < n / 2; i++)
		CHECK(!destroy(fd, ioas_alloc(fd)));
	t3 = seconds();
	printf("getppid %.3f us, IOMMU_OPTION %.2f us (%.0fx), IOAS_ALLOC or DESTROY %.2f us "
	       "(%.0fx)\n",
	       (t1 - t0) / n * 1e5, (t2 - t1) / n * 1e6, (t2 - t1) / (t1 - t0) * 10,
	       (t3 - t2) / n * 1e6, (t3 - t2) / (t1 - t0) * 10);
	return 0;
}

const struct scene file_scenes[] = {
	{"ioctl_flow", ioctl_flow},
	{"device_copies", device_copies},
	{"threads_one_fd", threads_one_fd},
	{"threads_many_fds", threads_many_fds},
	{"threads_first_use", threads_first_use},
	{"thread_own_table", thread_own_table},
	{"dup_shares", dup_shares},
	{"opens_are_separate", opens_are_separate},
	{"open_modes", open_modes},
	{"position_moves", position_moves},
	{"flags_are_harmless", flags_are_harmless},
	{"last_close_releases", last_close_releases},
	{"close_order", close_order},
	{"many_opens", many_opens},
	{"signals", signals},
	{"cost", cost},
	{NULL, NULL},
};
