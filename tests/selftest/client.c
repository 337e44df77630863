// SPDX-License-Identifier: MIT
/*
 * An ordinary program to be run under `swiommu run --test-abi` (with the argument "plain": without that
 * option): what it sees besides the answers of IOMMU_TEST_CMD, and what it can do to the files that it
 * is given. Prints a line per check; ends with 0 if all hold.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/iommufd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/core/selftest_abi.h"

#define PAGE 4096ul
#define BASE 0x1000000ul

static int failures;

static void check(bool ok, const char *what)
{
	printf("check: %s %s\n", what, ok ? "ok" : "FAILED");
	fflush(stdout);
	failures += !ok;
}

static long result(long rc)
{
	return rc < 0 ? -errno : rc;
}

static long test_op(int fd, struct iommu_test_cmd *cmd)
{
	cmd->size = sizeof(*cmd);
	return result(ioctl(fd, IOMMU_TEST_CMD, cmd));
}

static int open_iommu(void)
{
	return open("/dev/iommu", O_RDWR | O_CLOEXEC);
}

static uint32_t new_ioas(int fd)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};

	return ioctl(fd, IOMMU_IOAS_ALLOC, &cmd) ? 0 : cmd.out_ioas_id;
}

static long map_page(int fd, uint32_t ioas, void *va)
{
	struct iommu_ioas_map cmd = {.size = sizeof(cmd),
				     .flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
					      IOMMU_IOAS_MAP_WRITEABLE,
				     .ioas_id = ioas,
				     .user_va = (uintptr_t)va,
				     .length = PAGE,
				     .iova = BASE};

	return result(ioctl(fd, IOMMU_IOAS_MAP, &cmd));
}

static long add_device(int fd, uint32_t ioas, uint32_t *stdev)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_MOCK_DOMAIN, .id = ioas};
	long rc = test_op(fd, &cmd);

	*stdev = cmd.mock_domain.out_stdev_id;
	return rc;
}

static long check_refs(int fd, void *va, uint32_t refs)
{
	struct iommu_test_cmd cmd = {
		.op = IOMMU_TEST_OP_MD_CHECK_REFS,
		.check_refs = {.length = PAGE, .uptr = (uintptr_t)va, .refs = refs}};

	return test_op(fd, &cmd);
}

/* A new access; its descriptor or a negative errno. */
static long new_access(int fd, uint32_t ioas)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_CREATE_ACCESS,
				     .id = ioas,
				     .create_access.flags =
					     MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES};
	long rc = test_op(fd, &cmd);

	return rc ? rc : (long)cmd.create_access.out_access_fd;
}

static long pin(int fd, int access, void *va)
{
	struct iommu_test_cmd cmd = {
		.op = IOMMU_TEST_OP_ACCESS_PAGES,
		.id = access,
		.access_pages = {.iova = BASE, .length = PAGE, .uptr = (uintptr_t)va}};

	return test_op(fd, &cmd);
}

static void *shared_page(void)
{
	char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	*p = 1;
	return p;
}

/* ---- descriptors ---------------------------------------------------------------------------------- */

static int lowest_free_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

static void wait_for(pid_t pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* Who has an access last is all the same: its end is seen by the next call. */
static void scene_last_close(void)
{
	int fd = open_iommu(), pair[2], gate[2];
	uint32_t ioas = new_ioas(fd);
	void *page = shared_page();
	struct msghdr msg = {0};
	char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
	struct iovec iov = {&byte, 1};
	struct cmsghdr *c;
	long access;
	pid_t child;

	map_page(fd, ioas, page);
	access = new_access(fd, ioas);
	check(access >= 0 && fcntl(access, F_GETFD) == FD_CLOEXEC,
	      "an access is a new close-on-exec descriptor");
	check(!pin(fd, access, page) && !check_refs(fd, page, 1), "it pins");
	check(!pipe(gate), "pipe");
	child = fork();
	if (!child) {
		close(gate[1]);
		(void)!read(gate[0], &byte, 1);
		_exit(0);
	}
	close(gate[0]);
	close(access);
	check(!check_refs(fd, page, 1), "a child's copy keeps it");
	close(gate[1]);
	wait_for(child);
	check(!check_refs(fd, page, 0), "the child's end ends it");

	access = new_access(fd, ioas);
	pin(fd, access, page);
	check(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	msg = (struct msghdr){.msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control)};
	c = CMSG_FIRSTHDR(&msg);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &(int){access}, sizeof(int));
	sendmsg(pair[0], &msg, 0);
	close(access);
	check(!check_refs(fd, page, 1), "one in flight in a message keeps it");
	close(pair[0]);
	close(pair[1]);
	check(!check_refs(fd, page, 0), "the message's end ends it");

	access = new_access(fd, ioas);
	pin(fd, access, page);
	close(fd);
	fd = open_iommu();
	check(!check_refs(fd, page, 1), "it outlives the closed context");
	close(access);
	check(!check_refs(fd, page, 0), "and takes it along");
	close(fd);
}

/* close() has released everything when it returns. */
static void scene_close(void)
{
	void *page = shared_page();
	uint32_t ioas, stdev;
	bool ok = true;

	for (int i = 0; i < 50; i++) {
		int fd = open_iommu();

		ioas = new_ioas(fd);
		ok = ok && !add_device(fd, ioas, &stdev) && !map_page(fd, ioas, page) &&
		     !check_refs(fd, page, 1);
		close(fd);
		fd = open_iommu();
		ok = ok && !check_refs(fd, page, 0);
		close(fd);
	}
	check(ok, "nothing is pinned by what has been closed");
}

static void scene_hostile_descriptors(void)
{
	int fd = open_iommu(), before;
	uint32_t ioas = new_ioas(fd);
	struct iommu_test_cmd *cmd = shared_page();
	struct rlimit old, few;
	char byte = 0;
	long access;

	*cmd = (struct iommu_test_cmd){
		.size = sizeof(*cmd), .op = IOMMU_TEST_OP_CREATE_ACCESS, .id = ioas};
	mprotect(cmd, PAGE, PROT_READ);
	before = lowest_free_fd();
	check(result(ioctl(fd, IOMMU_TEST_CMD, cmd)) == -EFAULT,
	      "an answer that cannot be written is EFAULT");
	check(lowest_free_fd() == before, "and leaves no descriptor");
	getrlimit(RLIMIT_NOFILE, &old);
	few = (struct rlimit){before, old.rlim_max};
	setrlimit(RLIMIT_NOFILE, &few);
	check(new_access(fd, ioas) == -ENOMEM, "a full table of descriptors is ENOMEM");
	setrlimit(RLIMIT_NOFILE, &old);
	check(new_ioas(fd) == ioas + 1, "and leaves no object");

	access = new_access(fd, ioas);
	check(pin(fd, 1, NULL) == -EBADFD && pin(fd, fd, NULL) == -EBADFD &&
		      pin(fd, 777, NULL) == -EBADFD,
	      "other descriptors are EBADFD");
	/* What the kernel's file would refuse must at least do no harm. */
	(void)!write(access, &byte, 1);
	check(pin(fd, access, NULL) == -ENOENT, "writing to an access does not hurt it");
	shutdown(access, SHUT_RDWR);
	check(pin(fd, access, NULL) == -EBADFD, "a shut down one is an access no more");
	close(access);
	close(fd);
}

/* ---- injected failures ------------------------------------------------------------------------------ */

static int open_fail_nth(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%d/fail-nth", (int)syscall(SYS_gettid));
	return open(path, O_RDWR);
}

static bool shows(int nth, const char *text)
{
	char buf[300] = "";

	return pread(nth, buf, sizeof(buf), 0) == (ssize_t)strlen(text) && !strcmp(buf, text);
}

static long set_nth(int nth, const char *text)
{
	return result(pwrite(nth, text, strlen(text), 0));
}

static void *other_thread(void *arg)
{
	int nth = open_fail_nth();
	bool *ok = arg;

	*ok = shows(nth, "0\n");
	close(nth);
	return NULL;
}

static void scene_fail_nth(void)
{
	int nth = open_fail_nth(), again, fd, status;
	pthread_t thread;
	bool ok = false;
	pid_t child;

	check(nth >= 0 && shows(nth, "0\n"), "fail-nth is 0 at first");
	check(set_nth(nth, "soon") == -EINVAL && set_nth(nth, "") == -EINVAL &&
		      set_nth(nth, "-1") == -EINVAL && set_nth(nth, "4294967296") == -EINVAL &&
		      shows(nth, "0\n"),
	      "what is no number is refused");
	check(set_nth(nth, "123\n") == 4 && shows(nth, "123\n"), "a number is taken");
	check(set_nth(nth, "0x11") == 4 && shows(nth, "17\n"),
	      "and a shorter one leaves nothing behind");
	again = open_fail_nth();
	check(shows(again, "17\n"), "opened again, it is the same");
	check(set_nth(again, "0") == 1 && shows(nth, "0\n"), "both ways");
	close(again);
	set_nth(nth, "9");
	pthread_create(&thread, NULL, other_thread, &ok);
	pthread_join(thread, NULL);
	check(ok, "another thread has one of its own");
	child = fork();
	if (!child) {
		int mine = open_fail_nth();

		_exit(!shows(mine, "0\n"));
	}
	waitpid(child, &status, 0);
	check(!status, "a child begins with 0");

	set_nth(nth, "1");
	fd = open_iommu();
	check(fd < 0 && errno == ENOMEM && shows(nth, "0\n"),
	      "the first failure is that of opening");
	fd = open_iommu();
	set_nth(nth, "1");
	check(!new_ioas(fd) && shows(nth, "0\n"), "the next that of the first copy");
	check(new_ioas(fd) == 1, "after which there is no trace");
	set_nth(nth, "1000");
	new_ioas(fd);
	check(!shows(nth, "1000\n") && !shows(nth, "0\n"), "what is left over can be seen");
	set_nth(nth, "0");
	close(fd);
	close(nth);
}

static void scene_debug_files(void)
{
	static const char *const names[] = {"failslab", "fail_page_alloc", "fail_usercopy",
					    "fail_iommufd"};
	DIR *dir = opendir("/sys/kernel/debug/");
	struct dirent *d;
	char path[300];
	int found = 0, fd;

	check(dir, "there is a debug directory");
	while (dir && (d = readdir(dir))) {
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
			found += !strcmp(d->d_name, names[i]);
		if (strncmp(d->d_name, "fail", 4))
			continue;
		snprintf(path, sizeof(path), "%s/verbose", d->d_name);
		fd = openat(dirfd(dir), path, O_WRONLY);
		check(fd >= 0 && write(fd, "0", 1) == 1, path);
		close(fd);
	}
	check(found == 4, "with four kinds of failures");
	if (dir)
		closedir(dir);
	fd = open("/sys/kernel/debug/failslab/ignore-gfp-wait", O_WRONLY);
	check(fd >= 0 && write(fd, "N", 1) == 1, "which can be told not to spare waiters");
	close(fd);
}

/* ---- status ----------------------------------------------------------------------------------------- */

static long status_kb(pid_t pid, const char *field)
{
	char path[40], line[200];
	long kb = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, field, strlen(field)))
			kb = atol(line + strlen(field) + 1);
	if (f)
		fclose(f);
	return kb;
}

static void scene_status(void)
{
	int fd = open_iommu();
	uint32_t ioas = new_ioas(fd), stdev;
	void *page = shared_page();
	pid_t child, parent = getpid();
	int status;

	check(status_kb(parent, "VmPin:") == 0, "nothing is pinned at first");
	map_page(fd, ioas, page);
	check(status_kb(parent, "VmPin:") == 0, "nor without a device");
	check(!add_device(fd, ioas, &stdev), "a device");
	check(status_kb(parent, "VmPin:") == 4 && status_kb(parent, "VmRSS:") > 0 &&
		      status_kb(parent, "Threads:") == 1,
	      "VmPin tells of the page, other lines stay");
	child = fork();
	if (!child) {
		bool ok = status_kb(getpid(), "VmPin:") == 0 && status_kb(parent, "VmPin:") == 4;

		_exit(!ok);
	}
	waitpid(child, &status, 0);
	check(!status, "a child has none, and sees its parent's");
	ioctl(fd, IOMMU_DESTROY,
	      &(struct iommu_destroy){.size = sizeof(struct iommu_destroy), .id = stdev});
	check(status_kb(parent, "VmPin:") == 0, "none when the device has gone");
	close(fd);
}

/* ---- opening in general ------------------------------------------------------------------------------ */

static void scene_opening(void)
{
	char *pages =
		mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *path, longest[5000];
	int fd, dir;

	munmap(pages + PAGE, PAGE);
	path = strcpy(pages + PAGE - sizeof("/proc/self/fail-nth"), "/proc/self/fail-nth");
	fd = open(path, O_RDWR);
	check(fd >= 0, "a path that ends with its page");
	close(fd);
	memset(pages, '/', PAGE);
	check(open(pages + PAGE - 100, O_RDONLY) < 0 && errno == EFAULT, "a path without an end");
	/* Not by the C library's declaration, which does not want NULL. */
	check(syscall(SYS_openat, AT_FDCWD, NULL, O_RDONLY) < 0 && errno == EFAULT, "no path");
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	check(open(longest, O_RDONLY) < 0 && errno == ENAMETOOLONG, "too long a path");
	check(open("/proc/999999999/fail-nth", O_RDWR) < 0 && errno == ENOENT,
	      "fail-nth of nobody");
	dir = open("/proc/self", O_RDONLY | O_DIRECTORY);
	fd = openat(dir, "status", O_RDONLY);
	check(fd >= 0, "relative to a directory");
	close(fd);
	close(dir);
	fd = open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	check(fd >= 0 && pwrite(fd, "file", 4, 0) == 4 && pread(fd, longest, 9, 0) == 4 &&
		      !memcmp(longest, "file", 4),
	      "files of the program's own, at position 0");
	close(fd);
}

int main(int argc, char **argv)
{
	struct iommu_test_cmd cmd = {.op = IOMMU_TEST_OP_MD_CHECK_REFS};
	bool plain = argc > 1 && !strcmp(argv[1], "plain");
	int fd = open_iommu();

	check(fd >= 0, "/dev/iommu");
	if (plain) {
		check(test_op(fd, &cmd) == -ENOTTY,
		      "without --test-abi there is no IOMMU_TEST_CMD");
		check(open_fail_nth() < 0, "and no fail-nth");
		return failures != 0;
	}
	check(!test_op(fd, &cmd), "IOMMU_TEST_CMD");
	close(fd);
	scene_close();
	scene_last_close();
	scene_hostile_descriptors();
	scene_fail_nth();
	scene_debug_files();
	scene_status();
	scene_opening();
	return failures != 0;
}
