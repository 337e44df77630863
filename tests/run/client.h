/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_TESTS_RUN_CLIENT_H
#define SWIOMMU_TESTS_RUN_CLIENT_H

/*
 * Ordinary iommufd and VFIO programs for the tests of `swiommu run`: they know nothing of swiommu.
 * A scene is one such program; it ends with status 0 if everything was as on a kernel with the real
 * thing, else it says what was not and ends with 1, or with SKIP.
 */

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

#include <linux/iommufd.h>
#include <linux/vfio.h>

#define SKIP 77
#define PAGE 4096ul
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

struct scene {
	const char *name;
	int (*run)(int argc, char **argv); /* arguments after the name */
};
extern const struct scene file_scenes[], process_scenes[], hostile_scenes[], stress_scenes[],
	tree_scenes[], group_scenes[], mmio_scenes[], nested_scenes[], noiommu_scenes[],
	ring_scenes[];
const struct scene *find_scene(const char *name);

/* Ends the process, from any thread, if the condition does not hold. */
#define CHECK(cond) ((cond) ? (void)0 : check_failed(__FILE__, __LINE__, #cond, errno))
/* The same for a call that returns -1 or sets errno: it must give exactly `want`. */
#define CHECK_ERROR(call, want) check_error(__FILE__, __LINE__, #call, (call) < 0 ? errno : 0, want)
_Noreturn void check_failed(const char *file, int line, const char *what, int error);
void check_error(const char *file, int line, const char *what, int got, int want);

/* ---- iommufd -----------------------------------------------------------------------------------
 */

int iommu_open(void);
uint32_t ioas_alloc(int fd);
int ioas_try_alloc(int fd, uint32_t *id); /* as ioctl() */
int destroy(int fd, uint32_t id);
int option_get(int fd); /* a call that changes nothing; as ioctl() */
uint64_t ioas_map(int fd, uint32_t ioas, void *va, size_t len); /* at an IOVA of its choice */
int ioas_map_at(int fd, uint32_t ioas, void *va, size_t len, uint64_t iova);
int ioas_unmap(int fd, uint32_t ioas, uint64_t iova, size_t len);
/* Whether `id` means something in the context behind fd. It must be an IOAS. */
bool ioas_exists(int fd, uint32_t ioas);
/* New private memory, every byte set. */
void *pages(size_t len, int byte);
bool all_bytes(const void *p, size_t len, int byte);

/* ---- the DMA engine ----------------------------------------------------------------------------
 */

struct engine {
	int iommufd, fd;
	uint32_t ioas;
	uint64_t bar, config;
	uint64_t iova; /* of the page that `desc` and the completion record are in */
	struct engine_desc *desc;
};

int vfio_open(int flags); /* the first device of /dev/vfio/devices */
int vfio_bind(int fd, int iommufd);
int vfio_attach(int fd, uint32_t ioas);
/* Bound, attached to a new IOAS, ready. */
void engine_open(struct engine *e);
/* Makes ready an engine of which iommufd, fd and ioas are known, with a descriptor page of this
 * process. */
void engine_start(struct engine *e);
/* The same for who maps e->desc to e->iova himself: of the engine only fd is known. */
void engine_prepare(struct engine *e);
void engine_close(struct engine *e);
/* Has the device copy. 0, or its error register if it halted. */
uint32_t engine_copy(struct engine *e, uint64_t to, uint64_t from, uint32_t len);
/* Writes the descriptor of that copy, for who rings the doorbell himself. */
void engine_describe(struct engine *e, uint64_t to, uint64_t from, uint32_t len);
#define ENGINE_BAD_SOURCE 0x1u
#define ENGINE_BAD_DESTINATION 0x2u

/* ---- processes ---------------------------------------------------------------------------------
 */

/* Runs fn(data) in a child; it must end with status 0. */
void in_child(void (*fn)(void *data), void *data);
void send_fd(int sock, int fd);
int receive_fd(int sock);
double seconds(void);
void sleep_us(unsigned int us);
/* This program again, as another scene. Does not return. */
_Noreturn void exec_scene(const char *scene, const char *arg1, const char *arg2, const char *arg3);

#endif
