// SPDX-License-Identifier: MIT
/* The swiommu command: a table of subcommands. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "run/session.h"

/* Our own failures, as env, timeout and container tools have it. */
#define EXIT_OURS 125
#define DEVICES_MAX 200

static const char run_usage[] =
	"usage: swiommu run [OPTION]... [--] PROGRAM [ARGUMENT]...\n"
	"Runs PROGRAM with /dev/iommu and VFIO devices that exist only for it and its "
	"descendants.\n"
	"\n"
	"  -d, --device MODEL[,bdf=BDF][,group=N][,emulated=1][,noiommu=1][,vf_of=BDF][,KEY=VALUE]...\n"
	"                  a device; may be repeated (swiommu devices lists the models)\n"
	"  -e, --explain   say why each failing call fails\n"
	"  -l, --log FILE  write our own messages to FILE, not to standard error\n"
	"  -w, --wait      serve until the last descendant has ended; without it, processes that\n"
	"                  PROGRAM leaves behind are ended with it\n"
	"      --max-dma-maps N\n"
	"                  mappings that a VFIO container takes (65535, as the kernel's default)\n"
	"      --memlock SIZE\n"
	"                  let each user pin so much for DMA, such as 512M, or 'unlimited', even "
	"if\n"
	"                  'ulimit -l' is lower\n"
	"      --stat-paths\n"
	"                  show the devices as character devices to stat by path (ls, test -c) "
	"too, "
	"not\n"
	"                  only to fstat; slows every stat of any file down\n"
	"      --test-abi  answer IOMMU_TEST_CMD and show the kernel's fault injection, so that "
	"the\n"
	"                  kernel's own iommufd selftests can run\n"
	"      --share-memory\n"
	"                  put private memory that PROGRAM maps for DMA into a file first, so that it is\n"
	"                  reached directly, by servers in other processes too; the default with\n"
	"                  vfio-user devices\n"
	"      --no-share-memory\n"
	"                  leave private memory as it is; vfio-user servers reach it by messages\n"
	"      --no-helper do not load swiommu's helper library into PROGRAM (see README)\n"
	"  -h, --help      this text\n"
	"\n"
	"Exit status: PROGRAM's own (a fatal signal is repeated); 125 when swiommu itself fails, "
	"126\n"
	"when PROGRAM cannot be executed, 127 when it is not found.\n";

/* Ends as the program ended, so that a shell sees no difference. */
static int mirror(int status)
{
	struct rlimit no_core = {0, 0};

	if (!WIFSIGNALED(status))
		return WEXITSTATUS(status);
	setrlimit(RLIMIT_CORE, &no_core); /* the program has dumped its own */
	signal(WTERMSIG(status), SIG_DFL);
	raise(WTERMSIG(status));
	return 128 + WTERMSIG(status);
}

static int run_session(const struct session_options *opt, char **argv)
{
	struct session *s;
	int status, rc;

	if (session_create(opt, &s))
		return EXIT_OURS;
	rc = session_run(s, argv, &status);
	session_destroy(s);
	return rc ? EXIT_OURS : mirror(status);
}

static bool read_count(const char *text, unsigned int *out)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || !n || n > UINT32_MAX)
		return false;
	*out = n;
	return true;
}

/* Bytes, or with K, M, G; or "unlimited". */
static bool read_size(const char *text, uint64_t *out)
{
	static const char units[] = "KMG";
	unsigned long long n;
	const char *unit;
	int shift = 0;
	char *end;

	*out = UINT64_MAX;
	if (!strcmp(text, "unlimited"))
		return true;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || errno)
		return false;
	if (*end) {
		unit = strchr(units, *end);
		if (!unit || end[1])
			return false;
		shift = 10 * (unit - units + 1);
	}
	if (n > UINT64_MAX >> shift)
		return false;
	*out = (uint64_t)n << shift;
	return true;
}

int cmd_run(int argc, char **argv)
{
	static const struct option options[] = {
		{"device", required_argument, NULL, 'd'},
		{"explain", no_argument, NULL, 'e'},
		{"log", required_argument, NULL, 'l'},
		{"wait", no_argument, NULL, 'w'},
		{"max-dma-maps", required_argument, NULL, 'm'},
		{"memlock", required_argument, NULL, 'L'},
		{"stat-paths", no_argument, NULL, 's'},
		{"test-abi", no_argument, NULL, 't'},
		{"no-helper", no_argument, NULL, 'n'},
		{"share-memory", no_argument, NULL, 'S'},
		{"no-share-memory", no_argument, NULL, 'N'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct session_options opt = {0};
	const char *devices[DEVICES_MAX];
	int c;

	opt.devices = devices;
	argv[0] = "swiommu run"; /* getopt's messages begin with it */
	while ((c = getopt_long(argc, argv, "+d:el:wh", options, NULL)) != -1) {
		switch (c) {
		case 'd':
			if (opt.nr_devices == DEVICES_MAX) {
				fprintf(stderr, "swiommu run: more than %d devices\n", DEVICES_MAX);
				return EXIT_OURS;
			}
			devices[opt.nr_devices++] = optarg;
			break;
		case 'e':
			opt.explain = true;
			break;
		case 'l':
			opt.log_path = optarg;
			break;
		case 'w':
			opt.wait = true;
			break;
		case 'L':
			if (!read_size(optarg, &opt.memlock)) {
				fprintf(stderr,
					"swiommu run: --memlock %s: not a size such as 512M, nor "
					"'unlimited'\n",
					optarg);
				return EXIT_OURS;
			}
			break;
		case 'm':
			if (!read_count(optarg, &opt.max_mappings)) {
				fprintf(stderr,
					"swiommu run: --max-dma-maps %s: not a number from "
					"1 to 4294967295\n",
					optarg);
				return EXIT_OURS;
			}
			break;
		case 's':
			opt.stat_paths = true;
			break;
		case 't':
			opt.test_abi = true;
			break;
		case 'S':
			opt.share_memory = SHARE_ALWAYS;
			break;
		case 'N':
			opt.share_memory = SHARE_NEVER;
			break;
		case 'n':
			opt.no_helper = true;
			break;
		case 'h':
			fputs(run_usage, stdout);
			return 0;
		default:
			fputs("swiommu run --help tells the options\n", stderr);
			return EXIT_OURS;
		}
	}
	if (argc == 1) {
		fputs(run_usage, stderr);
		return EXIT_OURS;
	}
	if (optind == argc) {
		fputs("swiommu run: no PROGRAM to run is named (swiommu run --help tells how)\n",
		      stderr);
		return EXIT_OURS;
	}
	return run_session(&opt, argv + optind);
}

static void tell_model(const struct vfio_model *m)
{
	printf("%s: %s\n%s", vfio_model_name(m), vfio_model_summary(m), vfio_model_options(m));
}

/* The built-in models, or those that are named; shared objects by a path. */
int cmd_devices(int argc, char **argv)
{
	const struct vfio_model *m;
	struct swi_reason why;
	int status = 0;

	for (int i = 1; i < argc; i++) {
		m = vfio_model_find(argv[i]);
		if (m) {
			tell_model(m);
			continue;
		}
		if (!strchr(argv[i], '/')) {
			fprintf(stderr,
				"swiommu devices: there is no device model '%s' (a shared object "
				"is named by a path, ./%s)\n",
				argv[i], argv[i]);
			status = EXIT_OURS;
			continue;
		}
		if (!vfio_model_load(argv[i], &m, &why)) {
			tell_model(m);
			continue;
		}
		fprintf(stderr, "swiommu devices: %s\n", why.text);
		status = EXIT_OURS;
	}
	if (argc > 1)
		return status;
	puts("Options of every device:\n"
	     "  bdf=BDF (PCI address such as 0000:80:01.0; functions of a slot may be given one "
	     "each)\n"
	     "  group=N (IOMMU group; devices that name the same share it; without, each has its "
	     "own)\n"
	     "  emulated=1 (as a mediated device: its DMA is an iommufd access, without an IOMMU)\n"
	     "  noiommu=1 (without an IOMMU: for programs with CAP_SYS_RAWIO, by physical addresses that "
	     "IOMMU_IOAS_NOIOMMU_GET_PA tells)\n"
	     "  vf_of=BDF (a virtual function of that device: whoever opens it needs its VF "
	     "token)\n"
	     "\nModels and their own options; a path (./model.so) names one that is not built in:");
	for (unsigned int i = 0; (m = vfio_model_at(i)); i++)
		tell_model(m);
	return 0;
}

static int cmd_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	puts("swiommu " SWIOMMU_VERSION);
	return 0;
}

static int cmd_help(int argc, char **argv);

static const struct {
	const char *name, *what;
	int (*main)(int argc, char **argv);
} commands[] = {
	{"run", "run a program with a software IOMMU and VFIO devices", cmd_run},
	{"devices", "list the device models and their options", cmd_devices},
	{"doctor", "tell what this machine offers and what is missing", cmd_doctor},
	{"version", "print the version", cmd_version},
	{"help", "print this list", cmd_help},
};

static void tell_commands(FILE *to)
{
	fputs("usage: swiommu COMMAND [OPTION]...\n", to);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(to, "  %-8s  %s\n", commands[i].name, commands[i].what);
}

static int cmd_help(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	tell_commands(stdout);
	return 0;
}

/*
 * No file of ours may get the number of a standard one that the caller has closed, for the program
 * would find it there, and our messages would go into it. The program finds them closed as they
 * were.
 */
static void fill_standard_files(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;

	fill_standard_files();
	if (argc < 2) {
		tell_commands(stderr);
		return EXIT_OURS;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		name = "help";
	if (!strcmp(name, "--version"))
		name = "version";
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(name, commands[i].name))
			return commands[i].main(argc - 1, argv + 1);
	fprintf(stderr, "swiommu: no command '%s' (swiommu help lists them)\n", name);
	return EXIT_OURS;
}
