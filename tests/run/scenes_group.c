// SPDX-License-Identifier: MIT
/* The older way to a device: group and container files. */
#include "client.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- steps ----------------------------------------------------------------------------------- */

/* "/dev/vfio/G" of the only group, and its device's name. */
static void find_group(char *group, char *bdf)
{
	char path[300];
	struct dirent *d;
	DIR *dir = opendir("/dev/vfio");

	CHECK(dir);
	*group = *bdf = '\0';
	while ((d = readdir(dir)))
		if (d->d_name[0] >= '0' && d->d_name[0] <= '9')
			sprintf(group, "/dev/vfio/%.20s", d->d_name);
	closedir(dir);
	CHECK(*group);
	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%s/devices", group + 10);
	dir = opendir(path);
	CHECK(dir);
	while ((d = readdir(dir)))
		if (d->d_name[0] != '.')
			sprintf(bdf, "%.20s", d->d_name);
	closedir(dir);
	CHECK(*bdf);
}

static int open_group(void)
{
	char group[40], bdf[40];

	find_group(group, bdf);
	return open(group, O_RDWR | O_CLOEXEC);
}

static uint32_t status_of(int group)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};

	CHECK(!ioctl(group, VFIO_GROUP_GET_STATUS, &status));
	return status.flags;
}

static int get_device(int group)
{
	char path[40], bdf[40];

	find_group(path, bdf);
	return ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf);
}

static int map_dma(int container, void *p, size_t len, uint64_t iova)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)p,
		.iova = iova,
		.size = len,
	};

	return ioctl(container, VFIO_IOMMU_MAP_DMA, &map);
}

static uint64_t unmap_dma(int container, uint64_t iova, size_t len)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap), .iova = iova, .size = len};

	CHECK(!ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap));
	return unmap.size;
}

struct legacy {
	struct engine e;
	int container, group;
};

#define DESC_IOVA 0x10000000ul

/* As every program of that kind begins. */
static void legacy_open(struct legacy *l, int type)
{
	l->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	CHECK(l->container >= 0);
	CHECK(ioctl(l->container, VFIO_GET_API_VERSION) == VFIO_API_VERSION);
	CHECK(ioctl(l->container, VFIO_CHECK_EXTENSION, type) == 1);
	l->group = open_group();
	CHECK(l->group >= 0);
	CHECK(status_of(l->group) == VFIO_GROUP_FLAGS_VIABLE);
	CHECK(!ioctl(l->group, VFIO_GROUP_SET_CONTAINER, &l->container));
	CHECK(status_of(l->group) == (VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET));
	CHECK(!ioctl(l->container, VFIO_SET_IOMMU, (long)type));
	l->e.fd = get_device(l->group);
	CHECK(l->e.fd >= 0);
	engine_prepare(&l->e);
	l->e.iova = DESC_IOVA;
	CHECK(!map_dma(l->container, l->e.desc, PAGE, DESC_IOVA));
}

static void legacy_close(struct legacy *l)
{
	CHECK(!close(l->e.fd));
	CHECK(!close(l->group));
	CHECK(!close(l->container));
	munmap(l->e.desc, PAGE);
}

/* Moves a page and looks at it. */
static void copy_once(struct legacy *l, int byte)
{
	char *from = pages(PAGE, byte), *to = pages(PAGE, 0);

	CHECK(!map_dma(l->container, from, PAGE, 0x20000000));
	CHECK(!map_dma(l->container, to, PAGE, 0x30000000));
	CHECK(!engine_copy(&l->e, 0x30000000, 0x20000000, PAGE));
	CHECK(all_bytes(to, PAGE, byte));
	CHECK(unmap_dma(l->container, 0x20000000, PAGE) == PAGE);
	CHECK(unmap_dma(l->container, 0x30000000, PAGE) == PAGE);
	CHECK(engine_copy(&l->e, 0x30000000, 0x20000000, PAGE) & ENGINE_BAD_SOURCE);
	munmap(from, PAGE);
	munmap(to, PAGE);
}

/* ---- scenes ---------------------------------------------------------------------------------- */

static int group_copies(int argc, char **argv)
{
	static const int types[] = {VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU};
	char path[40], link[40] = {0};
	struct legacy l;

	(void)argc;
	(void)argv;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		legacy_open(&l, types[i]);
		sprintf(path, "/proc/self/fd/%d", l.container);
		CHECK(readlink(path, link, sizeof(link) - 1) == 14);
		CHECK(!strcmp(link, "/dev/vfio/vfio"));
		CHECK(fcntl(l.e.fd, F_GETFD) == FD_CLOEXEC);
		CHECK((fcntl(l.e.fd, F_GETFL) & O_ACCMODE) == O_RDWR);
		copy_once(&l, 0x31);
		CHECK_ERROR(map_dma(l.container, (void *)PAGE, PAGE, 0x40000000), EFAULT);
		CHECK_ERROR(map_dma(l.container, l.e.desc, PAGE, DESC_IOVA), EEXIST);
		CHECK_ERROR(vfio_bind(l.e.fd, l.container), EINVAL);
		legacy_close(&l);
	}
	return 0;
}

static int compat_map(int fd, void *p, size_t len, uint64_t iova)
{
	return map_dma(fd, p, len, iova);
}

static int group_iommufd(int argc, char **argv)
{
	char *from = pages(PAGE, 0x47), *to = pages(PAGE, 0);
	struct legacy l = {.container = iommu_open(), .group = open_group()};

	(void)argc;
	(void)argv;
	CHECK_ERROR(compat_map(l.container, from, PAGE, 0x20000000), ENODEV);
	CHECK(!ioctl(l.group, VFIO_GROUP_SET_CONTAINER, &l.container));
	CHECK(status_of(l.group) == (VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET));
	CHECK(!ioctl(l.container, VFIO_SET_IOMMU, (long)VFIO_TYPE1v2_IOMMU));
	CHECK(!compat_map(l.container, from, PAGE, 0x20000000));
	l.e.fd = get_device(l.group);
	CHECK(l.e.fd >= 0);
	engine_prepare(&l.e);
	l.e.iova = DESC_IOVA;
	CHECK(!compat_map(l.container, l.e.desc, PAGE, DESC_IOVA));
	CHECK(!compat_map(l.container, to, PAGE, 0x30000000));
	CHECK(!engine_copy(&l.e, 0x30000000, 0x20000000, PAGE));
	CHECK(all_bytes(to, PAGE, 0x47));
	/* The context stays what the device was opened in. */
	CHECK(!ioctl(l.group, VFIO_GROUP_UNSET_CONTAINER));
	CHECK(!close(l.container));
	CHECK(!engine_copy(&l.e, 0x30000000, 0x20000000, PAGE));
	CHECK(!close(l.e.fd));
	CHECK(!close(l.group));
	return 0;
}

static int group_excludes(int argc, char **argv)
{
	int iommufd = iommu_open(), cdev = vfio_open(O_RDWR), group = open_group(), container;

	(void)argc;
	(void)argv;
	CHECK(cdev >= 0 && group >= 0);
	CHECK_ERROR(open_group(), EBUSY);
	CHECK_ERROR(vfio_bind(cdev, iommufd), EBUSY);
	CHECK_ERROR(get_device(group), EINVAL);
	CHECK_ERROR(ioctl(group, VFIO_GROUP_SET_CONTAINER, NULL), EFAULT);
	CHECK_ERROR(ioctl(group, VFIO_GROUP_SET_CONTAINER, &(int){-1}), EBADF);
	CHECK_ERROR(ioctl(group, VFIO_GROUP_SET_CONTAINER, &cdev), EBADFD);
	CHECK_ERROR(ioctl(group, VFIO_GROUP_SET_CONTAINER, &(int){STDOUT_FILENO}), EBADFD);
	container = open("/dev/vfio/vfio", O_RDWR);
	CHECK(!ioctl(group, VFIO_GROUP_SET_CONTAINER, &container));
	CHECK_ERROR(ioctl(group, VFIO_GROUP_SET_CONTAINER, &iommufd), EINVAL);
	CHECK(!close(group));
	/* The container has lost its group. */
	CHECK_ERROR(ioctl(container, VFIO_SET_IOMMU, 1L), EINVAL);
	CHECK(!vfio_bind(cdev, iommufd));
	CHECK_ERROR(open_group(), EBUSY);
	CHECK(!close(cdev));
	group = open_group();
	CHECK(group >= 0);
	CHECK(!close(group));
	return 0;
}

static void try_later(void *data)
{
	(void)data;
	CHECK_ERROR(open_group(), EBUSY);
}

static int group_last_close(int argc, char **argv)
{
	int sock[2], copy, passed, status;
	struct legacy l;
	pid_t pid;

	(void)argc;
	(void)argv;
	legacy_open(&l, VFIO_TYPE1v2_IOMMU);
	/* The device file alone keeps the group and the container. */
	CHECK_ERROR(ioctl(l.group, VFIO_GROUP_UNSET_CONTAINER), EBUSY);
	copy = dup(l.container);
	CHECK(!close(l.container));
	l.container = copy;
	CHECK(!close(l.group));
	CHECK_ERROR(open_group(), EBUSY);
	in_child(try_later, NULL);
	copy_once(&l, 0x55);
	/* The last reference goes with a child that was given it. */
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock));
	pid = fork();
	if (!pid) {
		char go;

		close(l.e.fd);
		close(sock[0]);
		passed = receive_fd(sock[1]);
		CHECK(write(sock[1], "k", 1) == 1);
		CHECK(read(sock[1], &go, 1) == 1);
		l.e.fd = passed;
		copy_once(&l, 0x56);
		_exit(0);
	}
	close(sock[1]);
	send_fd(sock[0], l.e.fd);
	CHECK(read(sock[0], &(char){0}, 1) == 1);
	CHECK(!close(l.e.fd));
	CHECK_ERROR(open_group(), EBUSY);
	CHECK(write(sock[0], "g", 1) == 1);
	CHECK(waitpid(pid, &status, 0) == pid && !status);
	l.group = open_group();
	CHECK(l.group >= 0);
	/* The type was forgotten, and the mappings. */
	CHECK_ERROR(map_dma(l.container, l.e.desc, PAGE, DESC_IOVA), EINVAL);
	CHECK(!ioctl(l.group, VFIO_GROUP_SET_CONTAINER, &l.container));
	CHECK(!ioctl(l.container, VFIO_SET_IOMMU, (long)VFIO_TYPE1_IOMMU));
	CHECK(!map_dma(l.container, l.e.desc, PAGE, DESC_IOVA));
	CHECK(!close(l.container));
	CHECK(!close(l.group));
	return 0;
}

/* Paths that are relative, or lead over symbolic links; and another file with a number for a name. */
static int group_names(int argc, char **argv)
{
	char group[40], bdf[40], dir[] = "/tmp/group-names.XXXXXX", path[100];
	int fd, dirfd, other;

	(void)argc;
	(void)argv;
	find_group(group, bdf);
	CHECK(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/77", dir);
	CHECK(!symlink(group, path));
	fd = open(path, O_RDWR);
	CHECK(fd >= 0);
	CHECK_ERROR(open(group, O_RDWR), EBUSY);
	CHECK(!close(fd));
	dirfd = open("/dev/vfio", O_RDONLY | O_DIRECTORY);
	fd = openat(dirfd, group + 10, O_RDWR);
	CHECK(fd >= 0);
	CHECK_ERROR(openat(dirfd, group + 10, O_RDWR), EBUSY);
	CHECK(!close(fd));
	CHECK(!chdir("/dev/vfio/devices"));
	snprintf(path, sizeof(path), "../%s", group + 10);
	fd = open(path, O_RDWR);
	CHECK(fd >= 0);
	CHECK_ERROR(open(path, O_RDWR), EBUSY);
	/* Opened for reading it is known only when it is used. */
	other = open(path, O_RDONLY);
	CHECK_ERROR(ioctl(other, VFIO_GROUP_GET_STATUS, &(uint64_t){8}), EBUSY);
	CHECK(!close(other));
	CHECK(!close(fd));
	snprintf(path, sizeof(path), "%s/78", dir);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	CHECK(fd >= 0);
	other = open(path, O_RDWR);
	CHECK(other >= 0 && write(other, "x", 1) == 1);
	CHECK(!unlink(path));
	CHECK_ERROR(open(path, O_RDWR), ENOENT);
	snprintf(path, sizeof(path), "%s/77", dir);
	CHECK(!unlink(path) && !rmdir(dir));
	return 0;
}

/* Programs that are killed while they have the group: it is free again at once, every time. */
static int group_killed(int argc, char **argv)
{
	struct legacy l;
	char byte;

	(void)argc;
	(void)argv;
	for (unsigned int i = 0; i < 20; i++) {
		int fds[2], status;
		pid_t pid;

		CHECK(!pipe(fds));
		pid = fork();
		if (!pid) {
			/* Some in the middle of opening, some with copies under way. */
			if (i % 2)
				CHECK(write(fds[1], "g", 1) == 1);
			legacy_open(&l, VFIO_TYPE1v2_IOMMU);
			if (!(i % 2))
				CHECK(write(fds[1], "g", 1) == 1);
			for (;;)
				copy_once(&l, (int)i + 1);
		}
		CHECK(read(fds[0], &byte, 1) == 1);
		sleep_us(i % 5 * 300);
		CHECK(!kill(pid, SIGKILL));
		CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
		close(fds[0]);
		close(fds[1]);
		legacy_open(&l, VFIO_TYPE1_IOMMU);
		copy_once(&l, 0x60);
		legacy_close(&l);
	}
	return 0;
}

const struct scene group_scenes[] = {
	{"group_copies", group_copies},
	{"group_iommufd", group_iommufd},
	{"group_excludes", group_excludes},
	{"group_last_close", group_last_close},
	{"group_names", group_names},
	{"group_killed", group_killed},
	{NULL, NULL},
};
