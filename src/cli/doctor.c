// SPDX-License-Identifier: MIT
/*
 * swiommu doctor: what `swiommu run` needs of this machine, tried out one by one, and what the lack
 * of each means. Every trial that could change the process runs in a child of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "run/filter.h"
#include "run/helper.h"
#include "run/tree.h"

/* How much depends on it. */
enum need { REQUIRED, BETTER };

struct check {
	const char *what;
	enum need need;
	int (*run)(void);    /* 0 or a negative errno, perhaps with `detail`; in a child */
	const char *without; /* what its lack means */
	const char *remedy;
};

/* What a trial says beyond its errno. */
static char detail[240];

/* ---- the trials ------------------------------------------------------------------------------ */

static int namespaces_and_mounts(void)
{
	struct tree_error err;
	bool unprivileged;
	int rc = tree_enter_namespaces(&unprivileged, &err);

	if (!rc && mount("swiommu", "/dev", "tmpfs", MS_NOSUID, "mode=755"))
		rc = -errno;
	if (!rc)
		rc = tree_leave_root(unprivileged, getuid(), getgid(), &err);
	return rc;
}

/* The tree of a session with a device, built and thrown away. */
static int whole_tree(void)
{
	const char *device = "ioat";
	struct session_options opt = {.devices = &device, .nr_devices = 1};
	struct tree_error err = {""};
	bool unprivileged;
	struct session *s;
	int rc = session_create(&opt, &s);

	if (rc)
		return rc;
	rc = tree_enter_namespaces(&unprivileged, &err);
	if (!rc)
		rc = tree_build(s, &err);
	memcpy(detail, err.what, sizeof(err.what));
	return rc ? rc : err.what[0] ? -EPERM : 0;
}

static int install(bool *restartable)
{
	struct run_filter filter;
	int fd, rc = run_filter_build(&(struct run_filter_options){.bar0_limit = 1, .groups = true},
				      &filter);

	if (rc)
		return rc;
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	fd = run_filter_install(&filter, restartable);
	return fd < 0 ? fd : 0;
}

static int user_notification(void)
{
	bool restartable;

	return install(&restartable);
}

static int wait_killable(void)
{
	bool restartable;
	int rc = install(&restartable);

	return rc ? rc : restartable ? -ENOSYS : 0;
}

/* A forked child that waits until it is killed; -1 on failure. */
static pid_t sleeper(void)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
}

static void end_sleeper(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static volatile char probe = 'x';

static int other_memory(void)
{
	pid_t pid = sleeper();
	char c = 0;
	struct iovec l = {&c, 1}, r = {(void *)&probe, 1};
	int rc = 0;

	if (pid < 0)
		return -errno;
	if (process_vm_readv(pid, &l, 1, &r, 1, 0) != 1)
		rc = -errno;
	end_sleeper(pid);
	return rc;
}

static int memory_file(void)
{
	pid_t pid = sleeper();
	char path[40], c = 0;
	int fd, rc = 0;

	if (pid < 0)
		return -errno;
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || pread(fd, &c, 1, (off_t)(uintptr_t)&probe) != 1 ||
	    pwrite(fd, &c, 1, (off_t)(uintptr_t)&probe) != 1)
		rc = -errno;
	end_sleeper(pid);
	return rc;
}

static int descriptor_copy(void)
{
	pid_t pid = sleeper();
	int pidfd, fd, rc = 0;

	if (pid < 0)
		return -errno;
	pidfd = syscall(SYS_pidfd_open, pid, 0);
	fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, 2, 0);
	if (fd < 0)
		rc = -errno;
	end_sleeper(pid);
	return rc;
}

static int file_locks(void)
{
	struct flock lk = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 1};
	int fd = memfd_create("doctor", MFD_CLOEXEC);

	return fd < 0 || fcntl(fd, F_OFD_SETLK, &lk) ? -errno : 0;
}

/* PROCMAP_QUERY of Linux 6.11, asked for the area of `probe`. */
static int map_query(void)
{
	struct {
		uint64_t size, flags, addr, out[10];
	} q = {.size = sizeof(q), .addr = (uintptr_t)&probe};
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	return fd < 0 || ioctl(fd, _IOC(_IOC_READ | _IOC_WRITE, 'f', 17, 104), &q) ? -errno : 0;
}

static int map_files(void)
{
	char path[100];
	void *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (long)p, (long)p + 4096);
	return open(path, O_RDONLY | O_CLOEXEC) < 0 ? -errno : 0;
}

static const struct check checks[] = {
	{"a private file tree (mount namespace; user namespace when not root)", REQUIRED,
	 namespaces_and_mounts, "swiommu run cannot give the program its device nodes",
	 "run as root, or allow user namespaces (user.max_user_namespaces, "
	 "kernel.unprivileged_userns_clone, "
	 "AppArmor's restriction on them, or the container's seccomp profile)"},
	{"names in /sys, next to the machine's own", BETTER, whole_tree,
	 "programs must be told the node (/dev/vfio/devices/vfioN, /dev/vfio/G): DPDK, QEMU and "
	 "all that "
	 "go by PCI address find nothing; programs that use iommufd alone lose nothing",
	 "mount sysfs on /sys; do not restrict mounts below it (AppArmor, Landlock)"},
	{"seccomp filters with user notification", REQUIRED, user_notification,
	 "swiommu run cannot answer the program's ioctls",
	 "Linux 5.5 or newer; not inside another supervisor that listens already"},
	{"reading and writing another process' memory", REQUIRED, other_memory,
	 "ioctl arguments cannot be read",
	 "a container needs the right to trace its own processes"},
	{"/proc/PID/mem", REQUIRED, memory_file, "devices cannot reach the program's memory",
	 "mount /proc; do not restrict proc_mem"},
	{"copying descriptors of another process (pidfd_getfd)", REQUIRED, descriptor_copy,
	 "descriptors in ioctls cannot be found", "Linux 5.6 or newer"},
	{"locks on open file descriptions", REQUIRED, file_locks, "closed files cannot be noticed",
	 "Linux 3.15 or newer"},
	{"calls that signals do not interrupt half way (WAIT_KILLABLE_RECV)", BETTER, wait_killable,
	 "a signal handler of the program may make the kernel repeat an ioctl",
	 "Linux 5.19 or newer"},
	{"fast lookup of memory areas (PROCMAP_QUERY)", BETTER, map_query,
	 "mapping memory of programs with very many areas is slower", "Linux 6.11 or newer"},
	{"direct access to anonymous shared memory (map_files)", BETTER, map_files,
	 "DMA to MAP_SHARED|MAP_ANONYMOUS memory goes through /proc/PID/mem, which is slower",
	 "run as root"},
};

/* ---- the report ------------------------------------------------------------------------------ */

/* Runs a trial in a child; its negative errno, or -EIO when the child did not get that far. */
static int try_check(const struct check *c)
{
	int pipefd[2], rc = -EIO, status;
	pid_t pid;

	detail[0] = '\0';

	if (pipe2(pipefd, O_CLOEXEC))
		return -errno;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		alarm(10);
		rc = c->run();
		(void)!write(pipefd[1], &rc, sizeof(rc));
		(void)!write(pipefd[1], detail, sizeof(detail));
		_exit(0);
	}
	close(pipefd[1]);
	if (pid < 0 || read(pipefd[0], &rc, sizeof(rc)) != sizeof(rc))
		rc = -EIO;
	else if (read(pipefd[0], detail, sizeof(detail)) != sizeof(detail))
		detail[0] = '\0';
	close(pipefd[0]);
	if (pid > 0)
		waitpid(pid, &status, 0);
	return rc;
}

/* How memory that is mapped for DMA is held, which depends on what is allowed here. */
static void tell_pins(bool have_map_files)
{
	puts("How memory stays there for DMA when the program unmaps it, execs or exits:");
	puts("  memfd, tmpfs, hugetlb  kept: swiommu maps the file as well");
	printf("  shared anonymous       %s\n",
	       have_map_files ? "kept: swiommu maps it as well (map_files)"
			      : "not kept: reached in the program's address space (no map_files)");
	puts("  private                not kept: reached in the program's address space");
}

static void tell_helper(void)
{
	char path[PATH_MAX];
	const char *why;

	helper_find(path, sizeof(path), &why);
	if (path[0]) {
		printf("Preload helper: %s\n", path);
		return;
	}
	printf("Preload helper: none: %s\n"
	       "         without it: device registers cannot be mapped, only read and written (pread, "
	       "pwrite), and\n"
	       "         calls cost some thirty times as much\n",
	       why);
}

int cmd_doctor(int argc, char **argv)
{
	bool have_map_files = false;
	struct utsname u;
	unsigned int missing = 0;
	int rc;

	(void)argc;
	(void)argv;
	uname(&u);
	printf("%s %s %s, %s\n", u.sysname, u.release, u.machine,
	       geteuid() ? "as an ordinary user" : "as root");
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		const struct check *c = &checks[i];

		rc = try_check(c);
		have_map_files |= !rc && c->run == map_files;
		if (!rc) {
			printf("ok       %s\n", c->what);
			continue;
		}
		missing += c->need == REQUIRED;
		printf("%s  %s: %s\n", c->need == REQUIRED ? "MISSING" : "absent ", c->what,
		       strerror(-rc));
		if (detail[0])
			printf("         seen: %s\n", detail);
		printf("         without it: %s\n         remedy: %s\n", c->without, c->remedy);
	}
	tell_pins(have_map_files);
	tell_helper();
	puts(missing ? "swiommu run cannot work here; the library still can."
		     : "swiommu run works here.");
	return missing ? 1 : 0;
}
