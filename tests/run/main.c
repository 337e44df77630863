// SPDX-License-Identifier: MIT
/*
 * test_run [--user] [--kills N] DIRECTORY SWIOMMU
 *
 * The end-to-end tests of SWIOMMU run with the clients in DIRECTORY. All that is used is copied to
 * a place that every user can reach; with --user the tests run as an ordinary user there. --kills
 * runs only the test that kills workers, with that many.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED 77
#define NOBODY 65534

static void copy(const char *from, const char *to)
{
	char buf[1 << 16];
	int in = open(from, O_RDONLY | O_CLOEXEC);
	int out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	ssize_t n;

	while (in >= 0 && out >= 0 && (n = read(in, buf, sizeof(buf))) > 0)
		if (write(out, buf, n) != n)
			break;
	if (in < 0 || out < 0 || n) {
		fprintf(stderr, "cannot copy %s: %s\n", from, strerror(errno));
		exit(1);
	}
	fchmod(out, 0755);
	close(in);
	close(out);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int become_ordinary(const char *dir)
{
	if (chown(dir, NOBODY, NOBODY) || setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY))
		return -1;
	/* Root's may have directories that are closed to others. */
	setenv("PATH", "/usr/local/bin:/usr/bin:/bin", 1);
	/* As it is after login: the change has made the process one that others may not look into.
	 */
	return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static void prepare(const char *dir, const char *from, const char *swiommu)
{
	static const char *const clients[] = {"client", "client-static", "raw"};
	char source[1024], target[512];

	for (size_t i = 0; i < sizeof(clients) / sizeof(clients[0]); i++) {
		snprintf(source, sizeof(source), "%s/%s", from, clients[i]);
		snprintf(target, sizeof(target), "%s/%s", dir, clients[i]);
		copy(source, target);
	}
	snprintf(target, sizeof(target), "%s/swiommu", dir);
	copy(swiommu, target);
	/* The helper lies beside it, if there is one. */
	snprintf(source, sizeof(source), "%.*s/libswiommu-preload.so",
		 (int)(strrchr(swiommu, '/') - swiommu), swiommu);
	snprintf(target, sizeof(target), "%s/libswiommu-preload.so", dir);
	if (!access(source, R_OK))
		copy(source, target);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"user", no_argument, NULL, 'u'},
		{"kills", required_argument, NULL, 'k'},
		{NULL, 0, NULL, 0},
	};
	const char *kills = NULL, *tmp = getenv("TMPDIR");
	bool user = false;
	char dir[200];
	int c, status;
	pid_t pid;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'u')
			user = true;
		else if (c == 'k')
			kills = optarg;
		else
			return 2;
	}
	if (argc - optind != 2) {
		fprintf(stderr, "usage: test_run [--user] [--kills N] DIRECTORY SWIOMMU\n");
		return 2;
	}
	if (!user && geteuid())
		return SKIPPED; /* not root */
	snprintf(dir, sizeof(dir), "%.180s/run-test.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir) || chmod(dir, 0755)) {
		perror(dir);
		return 1;
	}
	prepare(dir, argv[optind], argv[optind + 1]);
	pid = fork();
	if (!pid) {
		/* Whoever is left over by a run is our child then. */
		prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
		if (chdir(dir) || (user && !geteuid() && become_ordinary(dir))) {
			perror("becoming an ordinary user");
			_exit(1);
		}
		if (system("./swiommu doctor >doctor.txt")) {
			fputs("swiommu cannot run programs here:\n", stderr);
			(void)!system("grep MISSING doctor.txt >&2");
			_exit(SKIPPED);
		}
		exit(run_tests_here(kills) ? 1 : 0);
	}
	waitpid(pid, &status, 0);
	nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
