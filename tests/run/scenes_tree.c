// SPDX-License-Identifier: MIT
/* What programs find by name: the nodes, what stat says of them, and /sys. */
#include "client.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static char text[8192];

/* The contents of a file, in `text`. */
static size_t contents(const char *path)
{
	int fd = open(path, O_RDONLY);
	ssize_t n;

	CHECK(fd >= 0);
	n = read(fd, text, sizeof(text) - 1);
	CHECK(n >= 0);
	text[n] = '\0';
	close(fd);
	return n;
}

static bool exists(const char *path)
{
	return !access(path, F_OK);
}

static unsigned int entries(const char *dir)
{
	DIR *list = opendir(dir);
	unsigned int n = 0;
	struct dirent *d;

	CHECK(list);
	while ((d = readdir(list)))
		n += d->d_name[0] != '.' || (strcmp(d->d_name, ".") && strcmp(d->d_name, ".."));
	closedir(list);
	return n;
}

/* Writing "x" gives no error, as for a shell's echo. */
static bool writable(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	bool ok = fd >= 0 && write(fd, "x\n", 2) == 2;

	close(fd);
	return ok;
}

static void link_ends_with(const char *path, const char *end)
{
	ssize_t n = readlink(path, text, sizeof(text) - 1);

	CHECK(n > 0);
	text[n] = '\0';
	CHECK(strlen(text) > strlen(end) && !strcmp(text + n - strlen(end), end));
	CHECK(strncmp(path, "/sys/", 5) || text[0] != '/'); /* as the kernel has them */
	CHECK(exists(path)); /* it leads somewhere */
}

/* The path of a device's file, in one of a few buffers. */
static const char *at(const char *bdf, const char *name)
{
	static char paths[4][256];
	static unsigned int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "/sys/bus/pci/devices/%s/%s", bdf, name);
	return path;
}

/* ---- /sys ------------------------------------------------------------------------------------ */

static void check_resource(const char *bdf)
{
	unsigned long long start, end, flags;

	contents(at(bdf, "resource"));
	CHECK(sscanf(text, "%llx %llx %llx", &start, &end, &flags) == 3);
	CHECK(start && end == start + 0x3fff && flags == 0x140200);
}

/* The number of the device's node; its files in vfio-dev are checked. */
static void check_node(const char *bdf)
{
	struct dirent *d = NULL;
	unsigned int maj, min;
	char path[600];
	struct stat st;
	DIR *list;
	int fd;

	CHECK(entries(at(bdf, "vfio-dev")) == 1);
	list = opendir(at(bdf, "vfio-dev"));
	while ((d = readdir(list)) && d->d_name[0] == '.')
		;
	CHECK(d && !strncmp(d->d_name, "vfio", 4));
	snprintf(path, sizeof(path), "%s/%s/dev", at(bdf, "vfio-dev"), d->d_name);
	contents(path);
	CHECK(sscanf(text, "%u:%u\n", &maj, &min) == 2);
	snprintf(path, sizeof(path), "/dev/vfio/devices/%s", d->d_name);
	fd = open(path, O_RDWR);
	CHECK(fd >= 0 && !fstat(fd, &st));
	CHECK(S_ISCHR(st.st_mode) && st.st_rdev == makedev(maj, min));
	close(fd);
	snprintf(path, sizeof(path), "/dev/char/%u:%u", maj, min);
	fd = open(path, O_RDWR);
	CHECK(fd >= 0 && !fstat(fd, &st) && st.st_rdev == makedev(maj, min));
	close(fd);
	closedir(list);
}

static void check_device(const char *bdf, const char *group)
{
	char path[100];

	contents(at(bdf, "vendor"));
	CHECK(!strcmp(text, "0x8086\n"));
	contents(at(bdf, "device"));
	CHECK(!strcmp(text, "0x2021\n"));
	contents(at(bdf, "class"));
	CHECK(!strcmp(text, "0x088000\n"));
	contents(at(bdf, "numa_node"));
	CHECK(!strcmp(text, "-1\n"));
	contents(at(bdf, "uevent"));
	CHECK(strstr(text, "PCI_ID=8086:2021\n"));
	CHECK(contents(at(bdf, "config")) == 4096);
	CHECK(!memcmp(text, "\x86\x80\x21\x20", 4));
	check_resource(bdf);
	link_ends_with(at(bdf, "driver"), "/vfio-pci");
	link_ends_with(at(bdf, "subsystem"), "/bus/pci");
	link_ends_with(at(bdf, "iommu_group"), group);
	snprintf(path, sizeof(path), "iommu_group/devices/%s/vendor", bdf);
	CHECK(exists(at(bdf, path)));
	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/vfio-pci/%s", bdf);
	CHECK(exists(path));
	CHECK(writable(at(bdf, "driver_override")));
	check_node(bdf);
}

/* tree BDF /GROUP ...: each is there, complete. */
static int tree(int argc, char **argv)
{
	static const char *const files[] = {"bind", "unbind", "new_id", "remove_id"};
	char path[100];

	for (int i = 0; i + 1 < argc; i += 2)
		check_device(argv[i], argv[i + 1]);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(path, sizeof(path), "/sys/bus/pci/drivers/vfio-pci/%s", files[i]);
		CHECK(writable(path));
	}
	CHECK(writable("/sys/bus/pci/drivers_probe"));
	CHECK(exists("/sys/module/vfio") && exists("/sys/module/vfio_pci"));
	CHECK(exists("/sys/module/kernel"));
	CHECK(exists("/dev/null") && writable("/dev/null"));
	return 0;
}

/* config BDF POSITION VALUE: a byte of the device's configuration space. */
static int config_byte(int argc, char **argv)
{
	CHECK(argc == 3 && contents(at(argv[0], "config")) == 4096);
	CHECK((unsigned char)text[atoi(argv[1])] == atoi(argv[2]));
	return 0;
}

/* A device of the machine is still there. */
static int host_device(int argc, char **argv)
{
	CHECK(argc == 1);
	contents(at(argv[0], "vendor"));
	CHECK(!strncmp(text, "0x", 2));
	CHECK(exists(at(argv[0], "subsystem")));
	return 0;
}

/* ---- stat ------------------------------------------------------------------------------------ */

static void check_char(const struct stat *st)
{
	CHECK(S_ISCHR(st->st_mode) && st->st_rdev && !st->st_size);
}

static void check_statx(int dirfd, const char *path, int flags, dev_t rdev)
{
	struct statx stx;

	memset(&stx, 0, sizeof(stx));
	CHECK(!syscall(SYS_statx, dirfd, path, flags, STATX_BASIC_STATS, &stx));
	CHECK(S_ISCHR(stx.stx_mode) && !stx.stx_size);
	CHECK(makedev(stx.stx_rdev_major, stx.stx_rdev_minor) == rdev);
}

/* Every way to stat a descriptor of `path`; returns its number. */
static dev_t check_descriptor(const char *path)
{
	int fd = open(path, O_RDWR), only_path = open(path, O_PATH), copy = dup(fd);
	struct stat st;
	dev_t rdev;

	CHECK(fd >= 0 && !fstat(fd, &st));
	check_char(&st);
	rdev = st.st_rdev;
	memset(&st, 0, sizeof(st));
	CHECK(!syscall(SYS_fstat, copy, &st));
	check_char(&st);
	CHECK(!syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH));
	check_char(&st);
	CHECK(only_path >= 0 && !fstat(only_path, &st));
	check_char(&st);
	CHECK(st.st_rdev == rdev && (st.st_mode & 0777) == 0666);
	check_statx(fd, "", AT_EMPTY_PATH, rdev);
	CHECK_ERROR(syscall(SYS_fstat, fd, (void *)8), EFAULT);
	close(fd);
	CHECK_ERROR(fstat(fd, &st), EBADF);
	close(only_path);
	close(copy);
	return rdev;
}

static void check_path(const char *path, dev_t rdev)
{
	char link[] = "link-to-node", loop[] = "link-to-itself";
	struct stat st;
	int dir;

	CHECK(!stat(path, &st));
	check_char(&st);
	CHECK(st.st_rdev == rdev);
	CHECK(!lstat(path, &st));
	check_char(&st);
	check_statx(AT_FDCWD, path, 0, rdev);
	dir = open("/dev", O_RDONLY | O_DIRECTORY);
	CHECK(!fstatat(dir, path + strlen("/dev/"), &st, 0));
	check_char(&st);
	unlink(link);
	CHECK(!symlink(path, link));
	CHECK(!stat(link, &st));
	check_char(&st);
	CHECK(!lstat(link, &st) && S_ISLNK(st.st_mode));
	unlink(link);
	unlink(loop);
	CHECK(!symlink(loop, loop));
	CHECK_ERROR(stat(loop, &st), ELOOP);
	unlink(loop);
	CHECK_ERROR(stat("/dev/vfio/nothing", &st), ENOENT);
	CHECK_ERROR(stat("", &st), ENOENT);
	CHECK_ERROR(syscall(SYS_newfstatat, AT_FDCWD, (void *)8, &st, 0), EFAULT);
	close(dir);
}

/* identity [paths] */
static int identity(int argc, char **argv)
{
	static const char *const nodes[] = {"/dev/iommu", "/dev/vfio/devices/vfio0"};
	dev_t numbers[ARRAY_SIZE(nodes)];
	struct stat st;
	int fd;

	(void)argv;
	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++) {
		numbers[i] = check_descriptor(nodes[i]);
		if (argc)
			check_path(nodes[i], numbers[i]);
	}
	CHECK(numbers[0] != numbers[1]);
	fd = open("/proc/self/exe", O_RDONLY);
	CHECK(fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size);
	CHECK(!fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH) && S_ISDIR(st.st_mode));
	return 0;
}

const struct scene tree_scenes[] = {
	{"tree", tree},
	{"config_byte", config_byte},
	{"host_device", host_device},
	{"identity", identity},
	{NULL, NULL},
};
