// SPDX-License-Identifier: MIT
/* A device without an IOMMU, which programs with CAP_SYS_RAWIO may use. */
#include "client.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define NOBODY 65534

/* The first name in `dir` that begins with `prefix`, with its directory. */
static void find(const char *dir, const char *prefix, char *path, size_t size)
{
	DIR *list = opendir(dir);
	struct dirent *d;

	CHECK(list);
	*path = '\0';
	while ((d = readdir(list)))
		if (!strncmp(d->d_name, prefix, strlen(prefix)))
			snprintf(path, size, "%s/%s", dir, d->d_name);
	closedir(list);
	CHECK(*path);
}

static int open_cdev(int flags)
{
	char path[300];

	find("/dev/vfio/devices", "noiommu-vfio", path, sizeof(path));
	return open(path, flags);
}

static int open_group(int flags)
{
	char path[300];

	find("/dev/vfio", "noiommu-", path, sizeof(path));
	return open(path, flags);
}

static int get_pa(const struct engine *e, uint64_t iova, uint64_t *pa)
{
	struct iommu_ioas_noiommu_get_pa cmd = {
		.size = sizeof(cmd), .ioas_id = e->ioas, .iova = iova, .length = PAGE};
	int rc = ioctl(e->iommufd, IOMMU_IOAS_NOIOMMU_GET_PA, &cmd);

	*pa = cmd.out_phys;
	return rc;
}

static uint64_t map_for(const struct engine *e, void *p)
{
	uint64_t pa;

	CHECK(!get_pa(e, ioas_map(e->iommufd, e->ioas, p, PAGE), &pa));
	CHECK(pa && pa % PAGE == 0);
	return pa;
}

static void check_parameter(void)
{
	char text[3] = "";
	int fd = open("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", O_RDONLY);

	CHECK(fd >= 0 && read(fd, text, 2) == 2 && !strcmp(text, "Y\n"));
	close(fd);
}

/* Bound by its cdev: copies by the addresses that it is told, and by no others. */
static int noiommu_copies(int argc, char **argv)
{
	char *from = pages(PAGE, 0x2b), *to = pages(PAGE, 0);
	struct engine e = {.iommufd = iommu_open()};
	struct iommu_hw_info info = {.size = sizeof(info)};
	struct vfio_device_bind_iommufd bind = {.argsz = sizeof(bind), .iommufd = e.iommufd};
	uint64_t src, dst, iova;

	(void)argc;
	(void)argv;
	check_parameter();
	e.ioas = ioas_alloc(e.iommufd);
	e.fd = open_cdev(O_RDWR | O_CLOEXEC);
	CHECK(e.fd >= 0 && fcntl(e.fd, F_GETFD) == FD_CLOEXEC);
	CHECK(!ioctl(e.fd, VFIO_DEVICE_BIND_IOMMUFD, &bind));
	info.dev_id = bind.out_devid;
	CHECK_ERROR(ioctl(e.iommufd, IOMMU_GET_HW_INFO, &info), EOPNOTSUPP);
	CHECK_ERROR(open_group(O_RDWR), EBUSY);
	CHECK(!vfio_attach(e.fd, e.ioas));
	engine_start(&e);
	iova = ioas_map(e.iommufd, e.ioas, from, PAGE);
	CHECK(!get_pa(&e, iova, &src));
	CHECK(!get_pa(&e, e.iova, &e.iova));
	dst = map_for(&e, to);
	CHECK(!engine_copy(&e, dst, src, PAGE));
	CHECK(all_bytes(to, PAGE, 0x2b));
	/* IOVAs mean nothing to it, nor do addresses of what is not mapped any more. */
	CHECK(engine_copy(&e, dst, iova, PAGE) & ENGINE_BAD_SOURCE);
	CHECK(ioas_unmap(e.iommufd, e.ioas, iova, PAGE) == 0);
	CHECK(engine_copy(&e, dst, src, PAGE) & ENGINE_BAD_SOURCE);
	CHECK_ERROR(get_pa(&e, iova, &src), ENOENT);
	engine_close(&e);
	return 0;
}

/* Opened through its group, in a container of type 8: no address means anything. */
static int noiommu_group(int argc, char **argv)
{
	int container = open("/dev/vfio/vfio", O_RDWR), group = open_group(O_RDWR);
	struct vfio_iommu_type1_dma_map map = {.argsz = sizeof(map), .flags = 3, .size = PAGE};
	struct engine e;

	CHECK(argc == 1 && container >= 0 && group >= 0);
	CHECK_ERROR(open_group(O_RDWR), EBUSY);
	CHECK(ioctl(container, VFIO_CHECK_EXTENSION, (long)VFIO_NOIOMMU_IOMMU) == 1);
	CHECK(!ioctl(group, VFIO_GROUP_SET_CONTAINER, &container));
	CHECK(ioctl(container, VFIO_CHECK_EXTENSION, (long)VFIO_TYPE1_IOMMU) == 0);
	CHECK_ERROR(ioctl(container, VFIO_SET_IOMMU, (long)VFIO_TYPE1_IOMMU), ENODEV);
	CHECK(!ioctl(container, VFIO_SET_IOMMU, (long)VFIO_NOIOMMU_IOMMU));
	CHECK_ERROR(ioctl(container, VFIO_IOMMU_MAP_DMA, &map), ENOTTY);
	e.fd = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, argv[0]);
	CHECK(e.fd >= 0);
	engine_prepare(&e);
	e.iova = 0x1000;
	CHECK(engine_copy(&e, 0x2000, 0x3000, PAGE));
	CHECK(!close(e.fd) && !close(group) && !close(container));
	return 0;
}

/* Without the capability: opens fail, and what can be opened in other ways is of no use. */
static int noiommu_refused(int argc, char **argv)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	int container = open("/dev/vfio/vfio", O_RDWR), iommufd = iommu_open(), fd;
	struct engine e = {.iommufd = iommufd, .ioas = ioas_alloc(iommufd)};
	uint64_t pa;

	(void)argc;
	(void)argv;
	if (!geteuid())
		CHECK(!setresgid(NOBODY, NOBODY, NOBODY) && !setresuid(NOBODY, NOBODY, NOBODY));
	CHECK_ERROR(open_cdev(O_RDWR), EPERM);
	CHECK_ERROR(open_group(O_RDWR), EPERM);
	CHECK(ioctl(container, VFIO_CHECK_EXTENSION, (long)VFIO_NOIOMMU_IOMMU) == 0);
	CHECK_ERROR(get_pa(&e, 0, &pa), EPERM);
	fd = open_cdev(O_RDONLY);
	CHECK(fd >= 0);
	CHECK_ERROR(vfio_bind(fd, iommufd), EPERM);
	CHECK(!close(fd));
	fd = open_group(O_RDONLY);
	CHECK(fd >= 0);
	CHECK_ERROR(ioctl(fd, VFIO_GROUP_GET_STATUS, &status), EPERM);
	return 0;
}

const struct scene noiommu_scenes[] = {
	{"noiommu_copies", noiommu_copies},
	{"noiommu_group", noiommu_group},
	{"noiommu_refused", noiommu_refused},
	{NULL, NULL},
};
