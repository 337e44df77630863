// SPDX-License-Identifier: MIT
/* What the scenes have in common: checks, iommufd calls, the DMA engine, children. */
#include "client.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

_Noreturn void check_failed(const char *file, int line, const char *what, int error)
{
	fprintf(stderr, "%s:%d: not so: %s (errno %d, %s)\n", file, line, what, error,
		strerror(error));
	_exit(1);
}

void check_error(const char *file, int line, const char *what, int got, int want)
{
	if (got == want)
		return;
	fprintf(stderr, "%s:%d: %s: error %d (%s) instead of %d (%s)\n", file, line, what, got,
		strerror(got), want, strerror(want));
	_exit(1);
}

/* ---- iommufd --------------------------------------------------------------------------------- */

int iommu_open(void)
{
	int fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

int ioas_try_alloc(int fd, uint32_t *id)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};
	int rc = ioctl(fd, IOMMU_IOAS_ALLOC, &cmd);

	*id = cmd.out_ioas_id;
	return rc;
}

uint32_t ioas_alloc(int fd)
{
	uint32_t id;

	CHECK(!ioas_try_alloc(fd, &id) && id);
	return id;
}

int destroy(int fd, uint32_t id)
{
	struct iommu_destroy cmd = {.size = sizeof(cmd), .id = id};

	return ioctl(fd, IOMMU_DESTROY, &cmd);
}

int option_get(int fd)
{
	struct iommu_option cmd = {.size = sizeof(cmd),
				   .option_id = IOMMU_OPTION_RLIMIT_MODE,
				   .op = IOMMU_OPTION_OP_GET};

	return ioctl(fd, IOMMU_OPTION, &cmd);
}

static int map(int fd, uint32_t ioas, void *va, size_t len, uint32_t flags, uint64_t *iova)
{
	struct iommu_ioas_map cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE | flags,
		.ioas_id = ioas,
		.user_va = (uintptr_t)va,
		.length = len,
		.iova = *iova,
	};
	int rc = ioctl(fd, IOMMU_IOAS_MAP, &cmd);

	*iova = cmd.iova;
	return rc;
}

uint64_t ioas_map(int fd, uint32_t ioas, void *va, size_t len)
{
	uint64_t iova = 0;

	CHECK(!map(fd, ioas, va, len, 0, &iova));
	return iova;
}

int ioas_map_at(int fd, uint32_t ioas, void *va, size_t len, uint64_t iova)
{
	return map(fd, ioas, va, len, IOMMU_IOAS_MAP_FIXED_IOVA, &iova);
}

int ioas_unmap(int fd, uint32_t ioas, uint64_t iova, size_t len)
{
	struct iommu_ioas_unmap cmd = {
		.size = sizeof(cmd), .ioas_id = ioas, .iova = iova, .length = len};

	return ioctl(fd, IOMMU_IOAS_UNMAP, &cmd);
}

bool ioas_exists(int fd, uint32_t ioas)
{
	struct iommu_ioas_iova_ranges cmd = {.size = sizeof(cmd), .ioas_id = ioas};

	if (!ioctl(fd, IOMMU_IOAS_IOVA_RANGES, &cmd) || errno == EMSGSIZE)
		return true;
	CHECK(errno == ENOENT);
	return false;
}

void *pages(size_t len, int byte)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	memset(p, byte, len);
	return p;
}

bool all_bytes(const void *p, size_t len, int byte)
{
	const volatile unsigned char *at = p;

	for (size_t i = 0; i < len; i++)
		if (at[i] != (unsigned char)byte)
			return false;
	return true;
}

/* ---- the DMA engine -------------------------------------------------------------------------- */

struct engine_desc {
	uint32_t size, control;
	uint64_t source, destination, next, unused[4];
};

int vfio_open(int flags)
{
	char path[300] = "";
	struct dirent *d;
	DIR *dir = opendir("/dev/vfio/devices");

	CHECK(dir);
	while ((d = readdir(dir)))
		if (!strncmp(d->d_name, "vfio", 4))
			snprintf(path, sizeof(path), "/dev/vfio/devices/%s", d->d_name);
	closedir(dir);
	return open(path, flags);
}

int vfio_bind(int fd, int iommufd)
{
	struct vfio_device_bind_iommufd cmd = {.argsz = sizeof(cmd), .iommufd = iommufd};

	return ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, &cmd);
}

int vfio_attach(int fd, uint32_t ioas)
{
	struct vfio_device_attach_iommufd_pt cmd = {.argsz = sizeof(cmd), .pt_id = ioas};

	return ioctl(fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &cmd);
}

static uint64_t region_offset(int fd, uint32_t index)
{
	struct vfio_region_info info = {.argsz = sizeof(info), .index = index};

	CHECK(!ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, &info));
	return info.offset;
}

static void reg_write(struct engine *e, uint64_t at, uint64_t value, size_t size)
{
	CHECK(pwrite(e->fd, &value, size, at) == (ssize_t)size);
}

static uint64_t reg_read(struct engine *e, uint64_t at, size_t size)
{
	uint64_t value = 0;

	CHECK(pread(e->fd, &value, size, at) == (ssize_t)size);
	return value;
}

void engine_prepare(struct engine *e)
{
	e->bar = region_offset(e->fd, VFIO_PCI_BAR0_REGION_INDEX);
	e->config = region_offset(e->fd, VFIO_PCI_CONFIG_REGION_INDEX);
	reg_write(e, e->config + 4, 6, 2); /* memory decoding, bus master */
	/* Shared, so that a child may use the engine too. */
	e->desc = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(e->desc != MAP_FAILED);
}

void engine_start(struct engine *e)
{
	engine_prepare(e);
	e->iova = ioas_map(e->iommufd, e->ioas, e->desc, PAGE);
}

void engine_open(struct engine *e)
{
	e->iommufd = iommu_open();
	e->ioas = ioas_alloc(e->iommufd);
	e->fd = vfio_open(O_RDWR | O_CLOEXEC);
	CHECK(e->fd >= 0);
	CHECK(!vfio_bind(e->fd, e->iommufd));
	CHECK(!vfio_attach(e->fd, e->ioas));
	engine_start(e);
}

void engine_close(struct engine *e)
{
	CHECK(!close(e->fd));
	CHECK(!close(e->iommufd));
	munmap(e->desc, PAGE);
}

void engine_describe(struct engine *e, uint64_t to, uint64_t from, uint32_t len)
{
	*e->desc = (struct engine_desc){
		.size = len, .source = from, .destination = to, .next = e->iova};
}

uint32_t engine_copy(struct engine *e, uint64_t to, uint64_t from, uint32_t len)
{
	double end = seconds() + 10;
	uint64_t status;

	engine_describe(e, to, from, len);
	reg_write(e, e->bar + 0x84, 0x20, 1); /* reset */
	reg_write(e, e->bar + 0xa8, reg_read(e, e->bar + 0xa8, 4), 4);
	reg_write(e, e->bar + 0x80, 0x0d, 2);
	reg_write(e, e->bar + 0x98, e->iova + 512, 8);
	reg_write(e, e->bar + 0x90, e->iova, 8);
	reg_write(e, e->bar + 0x86, 1, 2); /* the doorbell */
	do {
		status = reg_read(e, e->bar + 0x88, 8);
		CHECK(seconds() < end);
	} while ((status & 7) != 1 && (status & 7) != 3);
	return (status & 7) == 1 ? 0 : (uint32_t)reg_read(e, e->bar + 0xa8, 4);
}

/* ---- processes ------------------------------------------------------------------------------- */

void in_child(void (*fn)(void *data), void *data)
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (!pid) {
		fn(data);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(status == 0);
}

void send_fd(int sock, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'f';
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	CHECK(sendmsg(sock, &msg, 0) == 1);
}

int receive_fd(int sock)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	int fd;

	CHECK(recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) == 1);
	CHECK(CMSG_FIRSTHDR(&msg));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	return fd;
}

double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

void sleep_us(unsigned int us)
{
	nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000}, NULL);
}

_Noreturn void exec_scene(const char *scene, const char *arg1, const char *arg2, const char *arg3)
{
	execl("/proc/self/exe", "client", scene, arg1, arg2, arg3, NULL);
	check_failed(__FILE__, __LINE__, "exec", errno);
}

const struct scene *find_scene(const char *name)
{
	static const struct scene *const tables[] = {
		file_scenes,  process_scenes, hostile_scenes, stress_scenes,  tree_scenes,
		group_scenes, mmio_scenes,    nested_scenes,  noiommu_scenes, ring_scenes};

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
		for (const struct scene *s = tables[i]; s->name; s++)
			if (!strcmp(s->name, name))
				return s;
	return NULL;
}

int main(int argc, char **argv)
{
	const struct scene *s = argc > 1 ? find_scene(argv[1]) : NULL;

	if (!s) {
		fprintf(stderr, "no scene '%s'\n", argc > 1 ? argv[1] : "");
		return 2;
	}
	return s->run(argc - 2, argv + 2);
}
