// SPDX-License-Identifier: MIT
/* Processes: fork, exec, exit, and what the program's surroundings look like. */
#include "client.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- fork ------------------------------------------------------------------------------------ */

struct shared {
	struct engine e;
	char *memory;
	uint64_t iova;
};

static void map_own_memory(void *data)
{
	struct shared *s = data;

	memset(s->memory, 0xcc, PAGE);
	s->iova = ioas_map(s->e.iommufd, s->e.ioas, s->memory, PAGE);
	/* While the child lives, the device reads the child's page, not the parent's at the same
	 * address. */
	CHECK(!engine_copy(&s->e, s->iova + PAGE / 2, s->iova, 16));
	CHECK(all_bytes(s->memory, PAGE, 0xcc));
	memset(s->memory, 0xc1, 16);
	CHECK(!engine_copy(&s->e, s->iova + PAGE / 2, s->iova, 16));
	CHECK(all_bytes(s->memory + PAGE / 2, 16, 0xc1));
}

/* The child uses the inherited descriptors; what it maps is its own memory, and goes when it goes.
 */
static int fork_maps_own_memory(int argc, char **argv)
{
	struct shared *s =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *to = pages(PAGE, 0xaa);
	uint64_t dst;

	(void)argc;
	(void)argv;
	engine_open(&s->e);
	s->memory = pages(PAGE, 0xbb);
	in_child(map_own_memory, s);
	CHECK(all_bytes(s->memory, PAGE, 0xbb));
	dst = ioas_map(s->e.iommufd, s->e.ioas, to, PAGE);
	CHECK(engine_copy(&s->e, dst, s->iova, PAGE) & ENGINE_BAD_SOURCE);
	CHECK(engine_copy(&s->e, s->iova, dst, PAGE) & ENGINE_BAD_DESTINATION);
	CHECK(all_bytes(s->memory, PAGE, 0xbb) && all_bytes(to, PAGE, 0xaa));
	/* The mapping itself is the file's, and can be removed. */
	CHECK(!ioas_unmap(s->e.iommufd, s->e.ioas, s->iova, PAGE));
	engine_close(&s->e);
	return 0;
}

static void use_and_exit(void *data)
{
	int fd = *(int *)data;

	CHECK(!destroy(fd, ioas_alloc(fd)));
	CHECK(!close(fd));
}

static int fork_shares_the_file(int argc, char **argv)
{
	int fd = iommu_open();
	uint32_t id = ioas_alloc(fd);

	(void)argc;
	(void)argv;
	for (int i = 0; i < 20; i++) {
		in_child(use_and_exit, &fd);
		CHECK(ioas_exists(fd, id));
	}
	return 0;
}

/* ---- exec ------------------------------------------------------------------------------------ */

static int exec_keeps(int argc, char **argv)
{
	char number[16], id[16];
	int fd;

	if (argc == 2) {
		fd = atoi(argv[0]);
		CHECK(ioas_exists(fd, atoi(argv[1])));
		CHECK(!destroy(fd, atoi(argv[1])));
		return 0;
	}
	fd = open("/dev/iommu", O_RDWR);
	snprintf(number, sizeof(number), "%d", fd);
	snprintf(id, sizeof(id), "%u", ioas_alloc(fd));
	exec_scene("exec_keeps", number, id, NULL);
}

static int exec_closes(int argc, char **argv)
{
	char number[16];
	int fd, dev;

	if (argc == 1) {
		CHECK_ERROR(option_get(atoi(argv[0])), EBADF);
		/* The device of the old image has been given back. */
		fd = iommu_open();
		dev = vfio_open(O_RDWR);
		CHECK(!vfio_bind(dev, fd));
		return 0;
	}
	fd = iommu_open();
	dev = vfio_open(O_RDWR | O_CLOEXEC);
	CHECK(!vfio_bind(dev, fd));
	snprintf(number, sizeof(number), "%d", fd);
	exec_scene("exec_closes", number, NULL, NULL);
}

#define MEETING_POINT ((void *)0x200000000000)

static char *at_meeting_point(int byte)
{
	char *p = mmap(MEETING_POINT, PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	CHECK(p == MEETING_POINT);
	memset(p, byte, PAGE);
	return p;
}

/* What the old image mapped is gone with it: the device finds nothing, least of all the new image's
 * memory. */
static int exec_ends_mappings(int argc, char **argv)
{
	char fds[2][16], ioas[16];
	struct engine e;
	uint64_t local;
	char *p, *mine;

	if (argc == 3) {
		e = (struct engine){
			.iommufd = atoi(argv[0]), .fd = atoi(argv[1]), .ioas = atoi(argv[2])};
		p = at_meeting_point(0x77);
		mine = pages(PAGE, 0x44);
		engine_start(&e);
		local = ioas_map(e.iommufd, e.ioas, mine, PAGE);
		CHECK(engine_copy(&e, 0x10000000, local, PAGE) & ENGINE_BAD_DESTINATION);
		CHECK(engine_copy(&e, local, 0x10000000, PAGE) & ENGINE_BAD_SOURCE);
		CHECK(all_bytes(p, PAGE, 0x77) && all_bytes(mine, PAGE, 0x44));
		CHECK(!ioas_unmap(e.iommufd, e.ioas, 0x10000000, PAGE));
		CHECK(!ioas_map_at(e.iommufd, e.ioas, p, PAGE, 0x10000000));
		CHECK(!engine_copy(&e, 0x10000000, local, PAGE));
		CHECK(all_bytes(p, PAGE, 0x44));
		return 0;
	}
	engine_open(&e);
	p = at_meeting_point(0x66);
	CHECK(!ioas_map_at(e.iommufd, e.ioas, p, PAGE, 0x10000000));
	CHECK(!engine_copy(&e, 0x10000000, e.iova, 16)); /* it works until then */
	CHECK(!ioas_unmap(e.iommufd, e.ioas, e.iova, PAGE));
	CHECK(!fcntl(e.iommufd, F_SETFD, 0) && !fcntl(e.fd, F_SETFD, 0));
	snprintf(fds[0], sizeof(fds[0]), "%d", e.iommufd);
	snprintf(fds[1], sizeof(fds[1]), "%d", e.fd);
	snprintf(ioas, sizeof(ioas), "%u", e.ioas);
	exec_scene("exec_ends_mappings", fds[0], fds[1], ioas);
}

/* ---- descriptors that travel ----------------------------------------------------------------- */

static int passed_descriptor(int argc, char **argv)
{
	int pair[2], fd, status;
	char *memory;
	pid_t pid;
	char c;

	(void)argc;
	(void)argv;
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	pid = fork(); /* before the file is opened: it comes by the socket only */
	CHECK(pid >= 0);
	if (!pid) {
		int mine = iommu_open(); /* takes the number that the sender has */

		fd = receive_fd(pair[1]);
		CHECK(ioas_exists(fd, 2) && ioas_alloc(mine) == 1 && !ioas_exists(mine, 2));
		memory = pages(PAGE, 1);
		CHECK(!ioas_map_at(fd, 2, memory, PAGE, 0x40000));
		CHECK(write(pair[1], "x", 1) == 1 && read(pair[1], &c, 1) == 1);
		CHECK(ioas_exists(fd, 2)); /* the sender has closed its own */
		return 0;
	}
	fd = iommu_open();
	CHECK(ioas_alloc(fd) == 1 && ioas_alloc(fd) == 2);
	send_fd(pair[0], fd);
	CHECK(read(pair[0], &c, 1) == 1);
	CHECK_ERROR(ioas_map_at(fd, 2, pages(PAGE, 2), PAGE, 0x40000), EEXIST);
	CHECK(!close(fd));
	CHECK(write(pair[0], "x", 1) == 1);
	CHECK(waitpid(pid, &status, 0) == pid && !status);
	return 0;
}

/* ---- the end of the program, watched from outside -------------------------------------------- */

static int exit_with(int argc, char **argv)
{
	return argc ? atoi(argv[0]) : 0;
}

static int die_of(int argc, char **argv)
{
	int sig = argc ? atoi(argv[0]) : SIGKILL, *volatile nowhere = NULL;

	signal(sig, SIG_DFL);
	if (sig == SIGSEGV)
		*nowhere = 1;
	raise(sig);
	return 0;
}

static volatile sig_atomic_t caught, times;

static void on_signal(int sig)
{
	caught = sig;
	times++;
}

/* Says "ready", waits for a signal, and ends with its number; 100 more if it comes twice. */
static int wait_for_signal(int argc, char **argv)
{
	sigset_t none;

	(void)argc;
	(void)argv;
	sigemptyset(&none);
	for (int sig = 1; sig < 16; sig++)
		signal(sig, on_signal);
	(void)!write(STDOUT_FILENO, "ready\n", 6);
	while (!caught)
		sleep_us(1000);
	for (int i = 0; i < 50; i++)
		sleep_us(1000);
	return times > 1 ? 100 + caught : caught;
}

/* Leaves a child behind that nothing but SIGKILL ends; prints its id and its own. */
static int leave_stubborn(int argc, char **argv)
{
	pid_t pid, program = getpid();
	int p[2];
	char c;

	(void)argc;
	(void)argv;
	CHECK(!pipe(p));
	pid = fork();
	if (!pid) {
		setsid();
		signal(SIGTERM, SIG_IGN);
		if (fork()) /* a grandchild, even */
			_exit(0);
		signal(SIGHUP, SIG_IGN);
		printf("%d %d\n", (int)getpid(), (int)program);
		fflush(stdout);
		close(STDOUT_FILENO);
		CHECK(!option_get(iommu_open()));
		(void)!write(p[1], "r", 1);
		for (;;)
			pause();
	}
	CHECK(read(p[0], &c, 1) == 1);
	return 3;
}

/* Leaves a child behind that still has something to do. */
static int leave_busy(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	if (fork())
		return 5;
	for (int i = 0; i < 30; i++) {
		int fd = iommu_open(), dev = vfio_open(O_RDWR);

		CHECK(!vfio_bind(dev, fd));
		CHECK(!destroy(fd, ioas_alloc(fd)));
		CHECK(!close(fd) && !close(dev));
		sleep_us(10000);
	}
	printf("served\n");
	return 0;
}

/* Loops over calls until the supervisor is killed; then calls must fail at once. Prints the error.
 */
static int orphan(int argc, char **argv)
{
	int fd = iommu_open();

	(void)argc;
	(void)argv;
	signal(SIGTERM, on_signal);
	alarm(20); /* a call that hangs */
	printf("%d\n", (int)getpid());
	fflush(stdout);
	while (!option_get(fd))
		;
	printf("errno %d\n", errno);
	CHECK_ERROR(option_get(fd), ENOSYS);
	for (int i = 0; i < 1000 && !caught; i++)
		sleep_us(1000);
	printf("signal %d\n", caught);
	return 0;
}

/* Calls without end, in children too; to be killed. Prints its number. */
static int busy(int argc, char **argv)
{
	int fd = iommu_open();
	void *p = pages(PAGE, 0);

	(void)argc;
	(void)argv;
	printf("%d\n", (int)getpid());
	fflush(stdout);
	for (int i = 0; i < 4; i++)
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			break;
		}
	for (;;) {
		uint32_t id = ioas_alloc(fd);

		CHECK(!ioas_map_at(fd, id, p, PAGE, 0x10000));
		CHECK(!destroy(fd, id));
	}
}

/* ---- surroundings ---------------------------------------------------------------------------- */

/* Prints the program's open descriptors but the standard ones. */
static int list_fds(int argc, char **argv)
{
	struct dirent *d;
	DIR *dir = opendir("/proc/self/fd");
	char path[300], target[300];

	(void)argc;
	(void)argv;
	CHECK(dir);
	while ((d = readdir(dir))) {
		int fd = atoi(d->d_name);
		ssize_t n;

		if (d->d_name[0] == '.' || fd <= STDERR_FILENO || fd == dirfd(dir))
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, target, sizeof(target) - 1);
		printf("%d %.*s\n", fd, n < 0 ? 0 : (int)n, target);
	}
	return 0;
}

static int list(int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		struct dirent **names;
		int n = scandir(argv[i], &names, NULL, alphasort);

		CHECK(n >= 0);
		for (int k = 0; k < n; k++) {
			if (names[k]->d_name[0] != '.')
				printf("%s/%s\n", argv[i], names[k]->d_name);
			free(names[k]);
		}
		free(names);
	}
	return 0;
}

/* Binds the device, says so, and holds it until standard input ends. */
static int hold_device(int argc, char **argv)
{
	int fd = iommu_open(), dev = vfio_open(O_RDWR);
	char c;

	(void)argc;
	(void)argv;
	CHECK(!vfio_bind(dev, fd));
	CHECK(ioas_alloc(fd) == 2); /* 1 is the device: nobody else is in this context */
	printf("bound\n");
	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	return 0;
}

/* Closes its standard output and goes on until standard input ends. */
static int close_output(int argc, char **argv)
{
	char c;

	(void)argc;
	(void)argv;
	CHECK(write(STDOUT_FILENO, "all\n", 4) == 4);
	CHECK(!close(STDOUT_FILENO));
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	return 0;
}

static int fail_a_call(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	CHECK_ERROR(destroy(iommu_open(), 4711), ENOENT);
	return 0;
}

/* Runs with the standard files closed. */
static int without_standard_files(int argc, char **argv)
{
	struct engine e;

	(void)argc;
	(void)argv;
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) != -1)
			return 10 + fd;
	engine_open(&e);
	/* A fault makes the supervisor say something. */
	return engine_copy(&e, e.iova, 0x123456000, 64) & ENGINE_BAD_SOURCE ? 0 : 20;
}

const struct scene process_scenes[] = {
	{"fork_maps_own_memory", fork_maps_own_memory},
	{"fork_shares_the_file", fork_shares_the_file},
	{"exec_keeps", exec_keeps},
	{"exec_closes", exec_closes},
	{"exec_ends_mappings", exec_ends_mappings},
	{"passed_descriptor", passed_descriptor},
	{"exit_with", exit_with},
	{"die_of", die_of},
	{"wait_for_signal", wait_for_signal},
	{"leave_stubborn", leave_stubborn},
	{"leave_busy", leave_busy},
	{"orphan", orphan},
	{"busy", busy},
	{"list_fds", list_fds},
	{"list", list},
	{"hold_device", hold_device},
	{"close_output", close_output},
	{"fail_a_call", fail_a_call},
	{"without_standard_files", without_standard_files},
	{NULL, NULL},
};
