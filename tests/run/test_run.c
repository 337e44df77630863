// SPDX-License-Identifier: MIT
/*
 * swiommu run, from end to end. What the program sees is checked by the scenes of the clients
 * themselves, what the caller of swiommu sees is checked here. The current directory holds both.
 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define SKIP 77

static struct command cmd, other; /* too large for the stack */

/* swiommu run -d ioat -- ./client ARGS... */
#define RUN "./swiommu", "run"
#define IOAT RUN, "-d", "ioat", "--"
#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})
#define CLIENT(...) ARGV(IOAT, "./client", __VA_ARGS__)

/* ---- what the program sees: scenes ----------------------------------------------------------- */

struct scene_test {
	const char *name, *client, *args[3];
};

static const struct scene_test scene_tests[] = {
	{"ioctls of a dynamic program", "./client", {"ioctl_flow"}},
	{"ioctls of a static program", "./client-static", {"ioctl_flow"}},
	{"ioctls of a program without libc", "./raw", {NULL}},
	{"DMA of a dynamic program", "./client", {"device_copies"}},
	{"DMA of a static program", "./client-static", {"device_copies"}},
	{"threads use one file", "./client", {"threads_one_fd"}},
	{"threads of a static program use one file", "./client-static", {"threads_one_fd"}},
	{"threads use a file each", "./client", {"threads_many_fds"}},
	{"threads use a file for the first time at once", "./client", {"threads_first_use"}},
	{"a thread has a descriptor table of its own", "./client", {"thread_own_table"}},
	{"duplicates are the same file", "./client", {"dup_shares"}},
	{"opens are separate, in processes too", "./client", {"opens_are_separate"}},
	{"open modes, O_PATH and wrong descriptors", "./client", {"open_modes"}},
	{"the file position may be moved", "./client", {"position_moves"}},
	{"fstat shows character devices", "./client", {"identity"}},
	{"fstat shows them to static programs", "./client-static", {"identity"}},
	{"the tree has what clients look for", "./client", {"tree", "0000:80:01.0", ""}},
	{"file flags may be changed", "./client", {"flags_are_harmless"}},
	{"the last close releases, wherever it is", "./client", {"last_close_releases"}},
	{"iommufd and device are closed in any order", "./client", {"close_order"}},
	{"a thousand open files", "./client", {"many_opens"}},
	{"signal handlers restart nothing", "./client", {"signals", "restart"}},
	{"interrupted calls are not done twice", "./client", {"signals"}},
	{"a child maps its own memory", "./client", {"fork_maps_own_memory"}},
	{"a child uses and closes the parent's file", "./client", {"fork_shares_the_file"}},
	{"a file survives exec", "./client", {"exec_keeps"}},
	{"exec closes what is marked so", "./client", {"exec_closes"}},
	{"DMA never reaches the new image after exec", "./client", {"exec_ends_mappings"}},
	{"a file is passed to another process", "./client", {"passed_descriptor"}},
	{"arguments in bad memory", "./client", {"bad_arguments"}},
	{"memory that blocks hinders its user only", "./client", {"blocking_memory"}},
	{"arguments vanish during calls", "./client", {"argument_vanishes"}},
	{"files are closed during calls", "./client", {"file_closes"}},
	{"descriptors are swapped during calls", "./client", {"table_swaps"}},
	{"locks are set and removed", "./client", {"lock_games"}},
	{"a group in a container", "./client", {"group_copies"}},
	{"a group of a static program in a container", "./client-static", {"group_copies"}},
	{"a group in an iommufd", "./client", {"group_iommufd"}},
	{"a group and its cdev exclude each other", "./client", {"group_excludes"}},
	{"the last close of a group releases, wherever it is", "./client", {"group_last_close"}},
	{"a group by other names", "./client", {"group_names"}},
	{"programs are killed that have a group", "./client", {"group_killed"}},
	{"calls by the ring follow descriptors", "./client", {"ring_follows_descriptors"}},
	{"calls by the ring fail as others do", "./client", {"ring_gives_exact_errors"}},
	{"threads and handlers use the ring", "./client", {"ring_is_shared"}},
	{"the ring takes no other file's name", "./client", {"ring_secrets"}},
	{"scribbling in the ring hurts nobody else", "./client", {"ring_scribbled"}},
	{"a process has one ring", "./client", {"one_ring_for_a_process"}},
	{"fifty processes are killed at random", "./client", {"storm"}},
};

/* What needs the preload helper. */
static const struct scene_test mmio_tests[] = {
	{"registers through mmap", "./client", {"mmio_copies"}},
	{"registers through mmap are no memory", "./client", {"mmio_and_system_calls"}},
	{"registers through mmap beside handlers of the program", "./client", {"mmio_own_handler"}},
	{"registers through mmap, in pieces", "./client", {"mmio_layout"}},
	{"registers through mmap in threads and children",
	 "./client",
	 {"mmio_threads_and_children"}},
	{"registers are not mapped in a static program",
	 "./client-static",
	 {"mmio_is_not_offered"}},
	{"registers are not mapped after exec of a static program",
	 "./client",
	 {"mmio_exec_static"}},
};

static void test_scene(void **state)
{
	const struct scene_test *t = *state;

	command_run(&cmd, NULL, ARGV(IOAT, t->client, t->args[0], t->args[1], t->args[2]));
	if (WIFEXITED(cmd.status) && WEXITSTATUS(cmd.status) == SKIP)
		skip();
	assert_exit(&cmd, 0);
}

/* What a VMM does with the IOMMU. */
static void guests_have_tables(void **state)
{
	static const char *const clients[] = {"./client", "./client-static"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
		command_run(&cmd, NULL, ARGV(RUN, "-d", "iopf", "--", clients[i], "nested"));
		assert_exit(&cmd, 0);
	}
}

static bool have_helper(void)
{
	return !access("./libswiommu-preload.so", R_OK);
}

static void test_mmio(void **state)
{
	if (!have_helper())
		skip();
	test_scene(state);
}

static void private_memory_is_made_shared(void **state)
{
	(void)state;
	if (!have_helper())
		skip();
	command_run(&cmd, NULL,
		    ARGV(RUN, "--share-memory", "-d", "ioat", "--", "./client", "shared_memory"));
	assert_exit(&cmd, 0);
}

static void helper_can_be_left_out(void **state)
{
	(void)state;
	command_run(&cmd, NULL,
		    ARGV(RUN, "--no-helper", "-e", "-d", "ioat", "--", "./client",
			 "mmio_is_not_offered"));
	assert_exit(&cmd, 0);
	assert_says(cmd.err_text, "as it could with the preload helper: --no-helper was given");
	/* Who has chosen that need not be told. */
	command_run(
		&cmd, NULL,
		ARGV(RUN, "--no-helper", "-d", "ioat", "--", "./client", "mmio_is_not_offered"));
	assert_exit(&cmd, 0);
	assert_string_equal(cmd.err_text, "");
	command_run(&cmd, NULL,
		    ARGV(RUN, "--no-helper", "--", "sh", "-c", "echo \"<$LD_PRELOAD>\""));
	assert_string_equal(cmd.out_text, "<>\n");
}

static void missing_helper_is_told_once(void **state)
{
	const char *first;

	(void)state;
	if (!have_helper())
		skip();
	/* A static program cannot load it. */
	command_run(&cmd, NULL,
		    ARGV(RUN, "-d", "ioat", "--", "sh", "-c",
			 "./client-static mmio_is_not_offered && "
			 "./client-static mmio_is_not_offered"));
	assert_exit(&cmd, 0);
	assert_says(cmd.err_text, "as it could with the preload helper: not loaded");
	first = strstr(cmd.err_text, "cannot map registers");
	assert_non_null(first);
	assert_null(strstr(first + 1, "cannot map registers"));
}

static void other_preloads_are_kept(void **state)
{
	(void)state;
	if (!have_helper() || getenv("SWIOMMU_SANITIZED")) /* who insists on being first */
		skip();
	command_run(&cmd, NULL,
		    ARGV("env", "LD_PRELOAD=libm.so.6", RUN, "--", "sh", "-c", "echo $LD_PRELOAD"));
	assert_says(cmd.out_text, "/libswiommu-preload.so:libm.so.6\n");
}

/* ---- the end of the program ------------------------------------------------------------------ */

static void exit_status_is_passed_on(void **state)
{
	static const char *const numbers[] = {"0", "7", "255"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		command_run(&cmd, NULL, CLIENT("exit_with", numbers[i]));
		assert_exit(&cmd, atoi(numbers[i]));
		assert_string_equal(cmd.err_text, "");
	}
}

static void exit_status_without_sigchld(void **state)
{
	struct how how = {.ignore_children = true};

	(void)state;
	command_run(&cmd, &how, CLIENT("exit_with", "7"));
	assert_exit(&cmd, 7);
	/* and the program finds it ignored, as it would without us */
	command_run(&cmd, &how, ARGV(IOAT, "grep", "SigIgn", "/proc/self/status"));
	command_run(&other, &how, ARGV("grep", "SigIgn", "/proc/self/status"));
	assert_string_equal(cmd.out_text, other.out_text);
}

static void fatal_signal_is_passed_on(void **state)
{
	static const int signals[] = {SIGTERM, SIGSEGV, SIGKILL, SIGPIPE, SIGABRT};
	char number[8];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		snprintf(number, sizeof(number), "%d", signals[i]);
		command_run(&cmd, NULL, CLIENT("die_of", number));
		assert_signal(&cmd, signals[i]);
	}
}

static void program_not_found(void **state)
{
	(void)state;
	command_run(&cmd, NULL, ARGV(IOAT, "no-such-program"));
	assert_exit(&cmd, 127);
	assert_says(cmd.err_text, "no-such-program: No such file");
	command_run(&cmd, NULL, ARGV(IOAT, "/etc"));
	assert_exit(&cmd, 126);
	assert_says(cmd.err_text, "/etc: Permission denied");
}

static void killed_in_the_middle_of_calls(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++) {
		command_start(&cmd, NULL, CLIENT("busy"));
		command_expect_output(&cmd, "\n");
		/* Not always at the same point of its work. */
		nanosleep(&(struct timespec){.tv_nsec = i * 700000}, NULL);
		assert_int_equal(kill(atoi(cmd.out_text), SIGKILL), 0);
		command_finish(&cmd);
		assert_signal(&cmd, SIGKILL);
	}
}

/* ---- signals --------------------------------------------------------------------------------- */

static void start_waiting(void)
{
	command_start(&cmd, NULL, CLIENT("wait_for_signal"));
	command_expect_output(&cmd, "ready");
}

static void signal_to_the_supervisor(void **state)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		start_waiting();
		assert_int_equal(kill(cmd.pid, signals[i]), 0);
		command_finish(&cmd);
		assert_exit(&cmd, signals[i]);
	}
}

static void signal_to_the_group(void **state)
{
	(void)state;
	start_waiting();
	assert_int_equal(kill(-cmd.pid, SIGINT), 0);
	command_finish(&cmd);
	/* Once from the sender and once from us, who cannot know that; it may merge. */
	if (!WIFEXITED(cmd.status) || WEXITSTATUS(cmd.status) != 100 + SIGINT)
		assert_exit(&cmd, SIGINT);
}

static void key_at_the_terminal(void **state)
{
	char buf[256];
	int master, status;
	ssize_t n, got = 0;
	pid_t pid;

	(void)state;
	pid = forkpty(&master, NULL, NULL, NULL);
	if (pid < 0)
		skip();
	if (!pid) {
		execv("./swiommu", (char *const *)CLIENT("wait_for_signal"));
		_exit(99);
	}
	do {
		n = read(master, buf + got, sizeof(buf) - 1 - got);
		assert_true(n > 0);
		got += n;
		buf[got] = '\0';
	} while (!strstr(buf, "ready"));
	assert_int_equal(write(master, "\003", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(master);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), SIGINT);
}

static void supervisor_killed(void **state)
{
	pid_t program;

	(void)state;
	command_start(&cmd, NULL, CLIENT("orphan"));
	command_expect_output(&cmd, "\n");
	program = atoi(cmd.out_text);
	assert_int_equal(kill(cmd.pid, SIGKILL), 0);
	command_expect_output(&cmd, "errno 38");
	/* It is told that its devices are gone. */
	command_expect_output(&cmd, "signal 15");
	command_finish(&cmd);
	wait_gone(program);
}

/* ---- what a program leaves behind ------------------------------------------------------------ */

static void leftovers_are_ended(void **state)
{
	double start = seconds();

	(void)state;
	command_run(&cmd, NULL, CLIENT("leave_stubborn"));
	assert_exit(&cmd, 3);
	assert_says(cmd.err_text, "left behind");
	assert_true(atoi(cmd.out_text) > 0 && !is_running(atoi(cmd.out_text)));
	assert_true(seconds() - start > 1.9); /* it had time to end by itself */
}

static void impatience_hastens_the_end(void **state)
{
	double start = seconds();

	(void)state;
	command_start(&cmd, NULL, CLIENT("leave_stubborn"));
	command_expect_error(&cmd, "left behind");
	kill(cmd.pid, SIGTERM);
	command_finish(&cmd);
	assert_exit(&cmd, 3);
	assert_true(seconds() - start < 1.9);
	assert_false(is_running(atoi(cmd.out_text)));
}

static void wait_serves_leftovers(void **state)
{
	(void)state;
	command_run(&cmd, NULL, ARGV(RUN, "--wait", "-d", "ioat", "./client", "leave_busy"));
	assert_exit(&cmd, 5);
	assert_string_equal(cmd.out_text, "served\n");
	assert_string_equal(cmd.err_text, "");
}

static void wait_can_be_ended(void **state)
{
	int daemon, program;

	(void)state;
	command_start(&cmd, NULL, ARGV(RUN, "--wait", "-d", "ioat", "./client", "leave_stubborn"));
	command_expect_output(&cmd, "\n");
	assert_int_equal(sscanf(cmd.out_text, "%d %d", &daemon, &program), 2);
	wait_gone(program);
	assert_true(is_running(daemon));
	kill(cmd.pid, SIGINT);
	command_finish(&cmd);
	assert_exit(&cmd, 3);
	assert_false(is_running(daemon));
}

static char *read_all(const char *path)
{
	static char buf[2][1 << 16];
	static unsigned int turn;
	char *to = buf[turn++ % 2];
	FILE *f = fopen(path, "re");
	size_t n;

	assert_non_null(f);
	n = fread(to, 1, sizeof(buf[0]) - 1, f);
	fclose(f);
	to[n] = '\0';
	return to;
}

static unsigned int entries(const char *path)
{
	DIR *dir = opendir(path);
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void nothing_is_left(void **state)
{
	unsigned int dev = entries("/dev"), tmp = entries(".");

	(void)state;
	command_start(&cmd, NULL, CLIENT("hold_device"));
	command_expect_output(&cmd, "bound");
	/* Not even while it runs. */
	assert_not_says(read_all("/proc/self/mountinfo"), "swiommu");
	assert_int_equal(entries("/dev"), dev);
	assert_int_equal(access("/dev/vfio/devices", F_OK), -1);
	command_finish(&cmd);
	assert_exit(&cmd, 0);
	assert_not_says(read_all("/proc/self/mountinfo"), "swiommu");
	assert_int_equal(entries("/dev"), dev);
	assert_int_equal(entries("."), tmp);
	/* We are a subreaper: whoever outlived its parent would be our child. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

/* ---- surroundings ---------------------------------------------------------------------------- */

static void runs_do_not_meet(void **state)
{
	(void)state;
	command_start(&other, NULL,
		      ARGV(RUN, "-d", "ioat,bdf=0000:90:01.0", "./client", "hold_device"));
	command_expect_output(&other, "bound");
	command_start(&cmd, NULL,
		      ARGV(RUN, "-d", "ioat,bdf=0000:91:01.0", "./client", "hold_device"));
	command_expect_output(&cmd, "bound");
	command_finish(&cmd);
	assert_exit(&cmd, 0);
	command_run(&cmd, NULL,
		    ARGV(RUN, "-d", "ioat,bdf=0000:91:01.0", "./client", "list",
			 "/sys/bus/pci/devices", "/dev/vfio/devices"));
	assert_exit(&cmd, 0);
	assert_says(cmd.out_text, "/sys/bus/pci/devices/0000:91:01.0\n");
	assert_not_says(cmd.out_text, "0000:90:01.0");
	command_finish(&other);
	assert_exit(&other, 0);
}

static void devices_get_places_of_their_own(void **state)
{
	(void)state;
	command_run(&cmd, NULL,
		    ARGV(RUN, "-d", "ioat", "-d", "ioat,bdf=0000:80:02.0", "-d", "ioat", "./client",
			 "list", "/sys/bus/pci/devices", "/dev/vfio/devices"));
	assert_exit(&cmd, 0);
	assert_says(cmd.out_text, "/sys/bus/pci/devices/0000:80:01.0\n");
	assert_says(cmd.out_text, "/sys/bus/pci/devices/0000:80:02.0\n");
	assert_says(cmd.out_text, "/sys/bus/pci/devices/0000:80:03.0\n");
	assert_says(cmd.out_text, "vfio0\n");
	assert_says(cmd.out_text, "vfio1\n");
	assert_says(cmd.out_text, "vfio2\n");
}

static void emulated_devices_work_alike(void **state)
{
	static const char *const scenes[] = {"device_copies", "group_iommufd", "group_excludes",
					     "group_last_close", "exec_ends_mappings"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(scenes); i++) {
		command_run(&cmd, NULL, ARGV(RUN, "-d", "ioat,emulated=1", "./client", scenes[i]));
		assert_exit(&cmd, 0);
	}
	command_run(&cmd, NULL, ARGV(RUN, "-d", "ioat,emulated=2", "./client", "device_copies"));
	assert_exit(&cmd, 125);
	assert_says(cmd.err_text, "emulated=2");
}

/* Whether the programs that we run will have it. */
static bool have_rawio(void)
{
	unsigned long long eff = 0;
	char line[256];
	FILE *f = fopen("/proc/self/status", "re");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "CapEff: %llx", &eff);
	fclose(f);
	return eff >> CAP_SYS_RAWIO & 1;
}

#define NO_IOMMU RUN, "-e", "-d", "ioat,noiommu=1,bdf=0000:80:01.0"

static void devices_without_iommu_for_the_privileged(void **state)
{
	static const char *const clients[] = {"./client", "./client-static"};

	(void)state;
	if (!have_rawio())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
		command_run(&cmd, NULL, ARGV(NO_IOMMU, clients[i], "noiommu_copies"));
		assert_exit(&cmd, 0);
		assert_says(cmd.err_text, "at physical address");
		assert_says(cmd.err_text, "IOMMU_IOAS_NOIOMMU_GET_PA tells where");
		command_run(&cmd, NULL,
			    ARGV(NO_IOMMU, clients[i], "noiommu_group", "0000:80:01.0"));
		assert_exit(&cmd, 0);
		assert_says(cmd.err_text, "ask IOMMU_IOAS_NOIOMMU_GET_PA for addresses");
	}
	/* Beside one with an IOMMU, which knows nothing of it. */
	command_run(&cmd, NULL, ARGV(NO_IOMMU, "-d", "ioat", "./client", "noiommu_copies"));
	assert_exit(&cmd, 0);
	command_run(&cmd, NULL, ARGV(NO_IOMMU, "-d", "ioat", "./client", "device_copies"));
	assert_exit(&cmd, 0);
}

static void devices_without_iommu_for_others(void **state)
{
	(void)state;
	command_run(&cmd, NULL, ARGV(NO_IOMMU, "./client", "noiommu_refused"));
	assert_exit(&cmd, 0);
	assert_says(cmd.err_text, "noiommu-vfio0: EPERM");
	assert_says(cmd.err_text, "first use of a file: EPERM: 0000:80:01.0");
	assert_says(cmd.err_text, "CAP_SYS_RAWIO");
}

static void devices_without_iommu_are_alone(void **state)
{
	static const struct {
		const char *one, *two, *why;
	} rows[] = {
		{"ioat,noiommu=2", "ioat", "noiommu=2"},
		{"ioat,noiommu=1,emulated=1", "ioat", "emulated"},
		{"ioat,noiommu=1,group=7", "ioat,group=7", "group 7"},
		{"ioat,group=7", "ioat,noiommu=1,group=7", "group 7"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		command_run(&cmd, NULL, ARGV(RUN, "-d", rows[i].one, "-d", rows[i].two, "true"));
		assert_exit(&cmd, 125);
		assert_says(cmd.err_text, rows[i].why);
	}
}

/* Every name of the host is there, and ours besides. */
static void host_stays_visible(void **state)
{
	static const char *const dirs[] = {"/dev", "/sys/bus/pci/devices", "/sys/bus/pci/drivers"};
	char line[512];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		struct dirent *d;
		DIR *dir = opendir(dirs[i]);

		if (!dir)
			continue;
		command_run(&cmd, NULL, CLIENT("list", dirs[i]));
		assert_exit(&cmd, 0);
		while ((d = readdir(dir))) {
			snprintf(line, sizeof(line), "%s/%s\n", dirs[i], d->d_name);
			if (d->d_name[0] != '.')
				assert_says(cmd.out_text, line);
		}
		closedir(dir);
	}
	command_run(
		&cmd, NULL,
		ARGV(IOAT, "sh", "-c",
		     "echo x >/dev/null && echo y >>/dev/null && head -c 8 /dev/zero | wc -c && "
		     ": >/dev/shm/swiommu-test.$$ && rm /dev/shm/swiommu-test.$$"));
	assert_exit(&cmd, 0);
	assert_string_equal(cmd.out_text, "8\n");
}

static void standard_files_are_untouched(void **state)
{
	static char data[60000];
	struct how how = {.input = data, .input_len = sizeof(data)};

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = i * i >> 3;
	command_run(&cmd, &how, ARGV(IOAT, "cat"));
	assert_exit(&cmd, 0);
	assert_int_equal(cmd.out_len, sizeof(data));
	assert_memory_equal(cmd.out_text, data, sizeof(data));
	assert_string_equal(cmd.err_text, "");
}

static void output_ends_when_the_program_closes_it(void **state)
{
	(void)state;
	command_start(&cmd, NULL, CLIENT("close_output"));
	command_expect_output(&cmd, "all\n");
	assert_true(command_output_ends(&cmd));
	command_finish(&cmd);
	assert_exit(&cmd, 0);
}

static void program_is_who_it_was(void **state)
{
	static const char script[] =
		"id -u; id -g; umask; pwd; ulimit -n; ulimit -l; echo $HOME; grep -E "
		"'^(Sig(Blk|Ign|Cgt)):' /proc/self/status; ps -o ppid= $$ | wc -l";

	(void)state;
	command_run(&other, NULL, ARGV("sh", "-c", script));
	command_run(&cmd, NULL, ARGV(IOAT, "sh", "-c", script));
	assert_exit(&cmd, 0);
	assert_string_equal(cmd.out_text, other.out_text);
}

/* The supervisor needs more files than the program, and must not be held to its limit. */
static void file_limit_is_the_programs(void **state)
{
	(void)state;
	command_run(&cmd, NULL,
		    ARGV("sh", "-c",
			 "ulimit -S -n 200; exec ./swiommu run -d ioat ./client many_opens"));
	if (WIFEXITED(cmd.status) && WEXITSTATUS(cmd.status) == SKIP)
		skip();
	assert_exit(&cmd, 0);
}

static void no_descriptor_is_added_or_lost(void **state)
{
	struct how how = {.extra_fd = 50};
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_int_equal(dup3(fd, 50, O_CLOEXEC), 50);
	close(fd);
	command_run(&other, &how, ARGV("./client", "list_fds"));
	assert_says(other.out_text, "50 /dev/zero\n");
	command_run(&cmd, &how, CLIENT("list_fds"));
	close(50);
	assert_exit(&cmd, 0);
	assert_string_equal(cmd.out_text, other.out_text);
}

static void standard_files_may_be_closed(void **state)
{
	struct how how = {.no_standard_files = true};

	(void)state;
	command_run(&cmd, &how, CLIENT("without_standard_files"));
	assert_exit(&cmd, 0);
}

static void nobody_listens_to_messages(void **state)
{
	struct how how = {.deaf = true};

	(void)state;
	/* A line from a device's thread, and one from the thread that serves a call. */
	command_run(&cmd, &how, CLIENT("device_copies"));
	assert_exit(&cmd, 0);
	command_run(&cmd, &how, ARGV(RUN, "--explain", "./client", "fail_a_call"));
	assert_exit(&cmd, 0);
}

/* ---- messages and refusals ------------------------------------------------------------------- */

static void explain_tells_reasons(void **state)
{
	(void)state;
	command_run(&cmd, NULL, CLIENT("fail_a_call"));
	assert_exit(&cmd, 0);
	assert_string_equal(cmd.err_text, "");
	command_run(&cmd, NULL, ARGV(RUN, "--explain", "./client", "fail_a_call"));
	assert_exit(&cmd, 0);
	assert_says(cmd.err_text, ": IOMMU_DESTROY on /dev/iommu: ENOENT: ");
	assert_says(cmd.err_text, "4711");
}

static void log_goes_to_a_file(void **state)
{
	(void)state;
	command_run(&cmd, NULL, ARGV(RUN, "--explain", "--log", "log", "./client", "fail_a_call"));
	assert_exit(&cmd, 0);
	assert_string_equal(cmd.err_text, "");
	assert_says(read_all("log"), "ENOENT");
	unlink("log");
	command_run(&cmd, NULL, ARGV(RUN, "--log", "no/such/directory", "./client", "fail_a_call"));
	assert_exit(&cmd, 125);
	assert_says(cmd.err_text, "no/such/directory");
}

static void faults_are_told(void **state)
{
	(void)state;
	command_run(&cmd, NULL, CLIENT("device_copies"));
	assert_exit(&cmd, 0);
	assert_says(cmd.err_text,
		    "swiommu: 0000:80:01.0: DMA fault: read of 4096 bytes at IOVA 0x5000000000");
}

static void bad_devices_are_refused(void **state)
{
	static const struct {
		const char *text, *reason;
	} bad[] = {
		{"", "no device model ''"},
		{"nonsense", "no device model 'nonsense'"},
		{"ioat,bdf=1:2", "not a PCI address"},
		{"ioat,bdf=0000:80:20.0", "not a PCI address"},
		{"ioat,bdf=0000:80:01.8", "not a PCI address"},
		{"ioat,colour=red", "colour"},
		{"ioat,group=-1", "not a number"},
		{"ioat,group=", "not a number"},
		{"ioat,group=3x", "not a number"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		command_run(&cmd, NULL,
			    ARGV(RUN, "--device", bad[i].text, "./client", "exit_with", "0"));
		assert_exit(&cmd, 125);
		assert_says(cmd.err_text, bad[i].reason);
	}
	command_run(
		&cmd, NULL,
		ARGV(RUN, "-d", "ioat,bdf=0000:80:01.0", "-d", "ioat,bdf=0000:80:01.0", "true"));
	assert_exit(&cmd, 125);
	assert_says(cmd.err_text, "already");
}

static void stat_by_path_when_asked(void **state)
{
	(void)state;
	command_run(&cmd, NULL,
		    ARGV(RUN, "--stat-paths", "-d", "ioat", "--", "./client", "identity", "paths"));
	assert_exit(&cmd, 0);
	command_run(&cmd, NULL,
		    ARGV(RUN, "--stat-paths", "-d", "ioat", "--", "./client-static", "identity",
			 "paths"));
	assert_exit(&cmd, 0);
}

/* Two functions of a slot in one group with a third device; one asks for nothing; one for a group. */
static void several_devices(void **state)
{
	(void)state;
	command_run(&cmd, NULL,
		    ARGV(RUN, "-d", "ioat", "-d", "ioat,bdf=0000:81:00.0,group=9007", "-d",
			 "ioat,bdf=81:00.1,group=9007", "-d", "ioat,bdf=80:01.0,group=9007", "--",
			 "./client", "tree", "0000:80:02.0", "", "0000:81:00.0", "/9007",
			 "0000:81:00.1", "/9007", "0000:80:01.0", "/9007"));
	assert_exit(&cmd, 0);
	/* The header type of a function that has siblings, and of one that has not. */
	command_run(&cmd, NULL,
		    ARGV(RUN, "-d", "ioat,bdf=81:00.0", "-d", "ioat,bdf=81:00.1", "--", "./client",
			 "config_byte", "0000:81:00.0", "14", "128"));
	assert_exit(&cmd, 0);
	command_run(&cmd, NULL,
		    ARGV(RUN, "-d", "ioat,bdf=81:00.0", "-d", "ioat,bdf=81:01.0", "--", "./client",
			 "config_byte", "0000:81:00.0", "14", "0"));
	assert_exit(&cmd, 0);
}

static void host_devices_stay(void **state)
{
	DIR *list = opendir("/sys/bus/pci/devices");
	struct dirent *d;
	unsigned int n = 0;

	(void)state;
	if (!list)
		skip();
	while ((d = readdir(list)))
		if (d->d_name[0] != '.') {
			n++;
			command_run(&cmd, NULL, CLIENT("host_device", d->d_name));
			assert_exit(&cmd, 0);
		}
	closedir(list);
	if (!n)
		skip();
}

/* A session opens a file per device, not a message's worth of them. */
static void very_many_devices(void **state)
{
	const char *argv[2 + 2 * 150 + 4] = {RUN};
	size_t n = 2;

	(void)state;
	for (unsigned int i = 0; i < 150; i++) {
		argv[n++] = "-d";
		argv[n++] = "ioat";
	}
	argv[n++] = "sh";
	argv[n++] = "-c";
	argv[n++] = "ls /dev/vfio/devices | wc -l";
	command_run(&cmd, NULL, argv);
	assert_exit(&cmd, 0);
	assert_string_equal(cmd.out_text, "150\n");
}

static void usage_errors_are_refused(void **state)
{
	(void)state;
	command_run(&cmd, NULL, ARGV(RUN));
	assert_exit(&cmd, 125);
	assert_says(cmd.err_text, "usage: swiommu run");
	command_run(&cmd, NULL, ARGV(RUN, "--no-such-option", "true"));
	assert_exit(&cmd, 125);
	command_run(&cmd, NULL, ARGV("./swiommu", "no-such-command"));
	assert_exit(&cmd, 125);
	command_run(&cmd, NULL, ARGV(RUN, "--max-dma-maps", "0", "true"));
	assert_exit(&cmd, 125);
	assert_says(cmd.err_text, "not a number");
	/* Options after the program's name are the program's. */
	command_run(&cmd, NULL, ARGV(RUN, "echo", "-d", "--help"));
	assert_exit(&cmd, 0);
	assert_string_equal(cmd.out_text, "-d --help\n");
}

static void nested_run_is_refused(void **state)
{
	(void)state;
	command_run(&cmd, NULL, ARGV(IOAT, "./swiommu", "run", "./client", "exit_with", "0"));
	assert_exit(&cmd, 125);
	assert_says(cmd.err_text, "swiommu cannot run inside swiommu");
}

/* ---- kills ---- */

static const char *nr_kills = "30";

struct load {
	unsigned int fds, threads, rss_kb;
};

static struct load load_of(pid_t pid)
{
	struct load l = {0};
	char path[64], *at;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	l.fds = entries(path) - 2;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	at = read_all(path);
	sscanf(strstr(at, "VmRSS:"), "VmRSS: %u", &l.rss_kb);
	sscanf(strstr(at, "Threads:"), "Threads: %u", &l.threads);
	return l;
}

/*
 * Descriptors of its own, and two handles of threads per worker; nothing that grows with the
 * kills. The growth allowed is what an allocator keeps; a sanitizer's own memory does not count.
 */
#define FDS_AT_REST 16
#define FDS_PER_THREAD 2
#define GROWTH_KB 8192

static void kills_leave_nothing(void **state)
{
	bool sanitized = getenv("SWIOMMU_SANITIZED");
	struct load first = {0}, now;
	char seed[16], text[32];
	double start = seconds();
	int total = atoi(nr_kills);

	(void)state;
	snprintf(seed, sizeof(seed), "%u", (unsigned int)time(NULL));
	print_message("seed %s\n", seed);
	command_start(&cmd, NULL, CLIENT("kills", nr_kills, seed));
	for (int n = 1; n <= total; n++) {
		if (n != total && n != 10 && n % 100)
			continue;
		snprintf(text, sizeof(text), "quiet %d\n", n);
		command_expect_output(&cmd, text);
		/* What was closed by the kernel is released a moment later. */
		for (double end = seconds() + 5; seconds() < end;
		     nanosleep(&(struct timespec){0, 5000000}, NULL)) {
			now = load_of(cmd.pid);
			if (now.fds <= FDS_AT_REST + FDS_PER_THREAD * now.threads)
				break;
		}
		print_message("after %4d kills: %u fds, %u threads, %u KiB, %.1f s\n", n, now.fds,
			      now.threads, now.rss_kb, seconds() - start);
		assert_true(now.fds <= FDS_AT_REST + FDS_PER_THREAD * now.threads);
		if (!first.fds || n <= 100)
			first = now;
		else if (!sanitized)
			assert_true(now.rss_kb < first.rss_kb + GROWTH_KB);
		assert_int_equal(write(cmd.in, "x", 1), 1);
	}
	command_finish(&cmd);
	assert_exit(&cmd, 0);
}

/* ---- running them ---------------------------------------------------------------------------- */

#define TEST(function)                                \
	{                                             \
#function, function, NULL, NULL, NULL \
	}

static const struct CMUnitTest caller_tests[] = {
	TEST(private_memory_is_made_shared),
	TEST(guests_have_tables),
	TEST(helper_can_be_left_out),
	TEST(missing_helper_is_told_once),
	TEST(other_preloads_are_kept),
	TEST(exit_status_is_passed_on),
	TEST(exit_status_without_sigchld),
	TEST(fatal_signal_is_passed_on),
	TEST(program_not_found),
	TEST(killed_in_the_middle_of_calls),
	TEST(signal_to_the_supervisor),
	TEST(signal_to_the_group),
	TEST(key_at_the_terminal),
	TEST(supervisor_killed),
	TEST(leftovers_are_ended),
	TEST(impatience_hastens_the_end),
	TEST(wait_serves_leftovers),
	TEST(wait_can_be_ended),
	TEST(nothing_is_left),
	TEST(runs_do_not_meet),
	TEST(devices_get_places_of_their_own),
	TEST(emulated_devices_work_alike),
	TEST(devices_without_iommu_for_the_privileged),
	TEST(devices_without_iommu_for_others),
	TEST(devices_without_iommu_are_alone),
	TEST(host_stays_visible),
	TEST(standard_files_are_untouched),
	TEST(output_ends_when_the_program_closes_it),
	TEST(program_is_who_it_was),
	TEST(file_limit_is_the_programs),
	TEST(no_descriptor_is_added_or_lost),
	TEST(standard_files_may_be_closed),
	TEST(nobody_listens_to_messages),
	TEST(explain_tells_reasons),
	TEST(log_goes_to_a_file),
	TEST(faults_are_told),
	TEST(bad_devices_are_refused),
	TEST(stat_by_path_when_asked),
	TEST(several_devices),
	TEST(host_devices_stay),
	TEST(very_many_devices),
	TEST(usage_errors_are_refused),
	TEST(nested_run_is_refused),
	TEST(kills_leave_nothing),
};

int run_tests_here(const char *only_kills)
{
	static const struct CMUnitTest kills[] = {TEST(kills_leave_nothing)};
	struct CMUnitTest
		tests[ARRAY_SIZE(scene_tests) + ARRAY_SIZE(mmio_tests) + ARRAY_SIZE(caller_tests)];
	size_t n = 0;

	if (only_kills) {
		nr_kills = only_kills;
		return cmocka_run_group_tests_name("kills", kills, NULL, NULL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(scene_tests); i++)
		tests[n++] = (struct CMUnitTest){scene_tests[i].name, test_scene, NULL, NULL,
						 (void *)&scene_tests[i]};
	for (size_t i = 0; i < ARRAY_SIZE(mmio_tests); i++)
		tests[n++] = (struct CMUnitTest){mmio_tests[i].name, test_mmio, NULL, NULL,
						 (void *)&mmio_tests[i]};
	for (size_t i = 0; i < ARRAY_SIZE(caller_tests); i++)
		tests[n++] = caller_tests[i];
	return _cmocka_run_group_tests("run", tests, n, NULL, NULL);
}
