/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CORE_ACCESS_RIG_H
#define TESTS_CORE_ACCESS_RIG_H

/*
 * What the tests of accesses share: a context with IOASes in this process, and a driver that obeys the
 * contract of the unmap callback.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <linux/iommufd.h>

#include "core/access.h"
#include "core/ctx.h"
#include "mem/backing.h"

#define PAGE 4096ul
#define R IOMMU_IOAS_MAP_READABLE
#define W IOMMU_IOAS_MAP_WRITEABLE
#define MEM_PAGES 1024ul

struct rig {
	struct iommufd_ctx *ctx;
	struct swiommu_caller caller;
	char *mem; /* MEM_PAGES of shared memory */
	_Atomic unsigned int warnings;
};

static inline void rig_log(void *data, enum swiommu_log_level level, const char *line)
{
	struct rig *rig = data;

	(void)line;
	if (level <= SWIOMMU_LOG_WARN)
		rig->warnings++;
}

static inline void rig_open(struct rig *rig)
{
	struct swiommu_hooks hooks = {.log = rig_log, .data = rig};

	memset(rig, 0, sizeof(*rig));
	assert_int_equal(swiommu_open(&hooks, &rig->ctx), 0);
	swiommu_caller_local(&rig->caller);
	rig->mem = mmap(NULL, MEM_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	assert_ptr_not_equal(rig->mem, MAP_FAILED);
}

static inline void rig_close(struct rig *rig)
{
	swiommu_close(rig->ctx);
	munmap(rig->mem, MEM_PAGES * PAGE);
}

/* ---- ioctls ---------------------------------------------------------------------------------- */

static inline uint32_t ioas_new(struct rig *rig)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};

	assert_int_equal(swiommu_ioctl(rig->ctx, &rig->caller, IOMMU_IOAS_ALLOC, (uintptr_t)&cmd),
			 0);
	return cmd.out_ioas_id;
}

static inline int map_at(struct rig *rig, uint32_t ioas, uint64_t iova, const void *va,
			 uint64_t len, uint32_t prot)
{
	struct iommu_ioas_map cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | prot,
		.ioas_id = ioas,
		.user_va = (uintptr_t)va,
		.length = len,
		.iova = iova,
	};

	return swiommu_ioctl(rig->ctx, &rig->caller, IOMMU_IOAS_MAP, (uintptr_t)&cmd);
}

static inline int copy_at(struct rig *rig, uint32_t src, uint64_t src_iova, uint32_t dst,
			  uint64_t dst_iova, uint64_t len, uint32_t prot)
{
	struct iommu_ioas_copy cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | prot,
		.dst_ioas_id = dst,
		.src_ioas_id = src,
		.length = len,
		.dst_iova = dst_iova,
		.src_iova = src_iova,
	};

	return swiommu_ioctl(rig->ctx, &rig->caller, IOMMU_IOAS_COPY, (uintptr_t)&cmd);
}

static inline int unmap_at(struct rig *rig, uint32_t ioas, uint64_t iova, uint64_t len)
{
	struct iommu_ioas_unmap cmd = {
		.size = sizeof(cmd), .ioas_id = ioas, .iova = iova, .length = len};

	return swiommu_ioctl(rig->ctx, &rig->caller, IOMMU_IOAS_UNMAP, (uintptr_t)&cmd);
}

static inline int destroy_id(struct rig *rig, uint32_t id)
{
	struct iommu_destroy cmd = {.size = sizeof(cmd), .id = id};

	return swiommu_ioctl(rig->ctx, &rig->caller, IOMMU_DESTROY, (uintptr_t)&cmd);
}

static inline uint64_t align_of(struct rig *rig, uint32_t ioas)
{
	struct iommu_ioas_iova_ranges cmd = {.size = sizeof(cmd), .ioas_id = ioas};

	assert_int_equal(
		swiommu_ioctl(rig->ctx, &rig->caller, IOMMU_IOAS_IOVA_RANGES, (uintptr_t)&cmd),
		-EMSGSIZE);
	return cmd.out_iova_alignment;
}

/* Pins of the area at iova; -1: there is none. */
static inline long pins_at(struct rig *rig, uint32_t ioas_id, uint64_t iova)
{
	struct iova_area *area;
	struct ioas *ioas;
	struct obj *obj;
	long pins = -1;

	assert_int_equal(obj_get(rig->ctx, ioas_id, OBJ_IOAS, "", NULL, &obj), 0);
	ioas = ioas_of(obj);
	iova_map_lock(ioas->map);
	area = iova_map_first(ioas->map, iova);
	if (area && area->iova <= iova)
		pins = area->pins;
	iova_map_unlock(ioas->map);
	obj_put(obj);
	return pins;
}

/* ---- a domain -------------------------------------------------------------------------------- */

/* A device behind an IOMMU with 2 KiB pages; attached, it has everything in the IOAS pinned. */
struct rig_device {
	struct iommu_group group;
	struct device dev;
	struct iommufd_device *idev;
};

static const struct iommu_driver rig_iommu = {
	.name = "rig",
	.pgsize_bitmap = 2048,
	.aperture_first = 0,
	.aperture_last = UINT64_MAX >> 1,
};

static inline int rig_device_attach(struct rig *rig, struct rig_device *d, uint32_t ioas)
{
	uint32_t id, pt = ioas;

	assert_int_equal(iommu_group_init(&d->group, 1), 0);
	d->dev = (struct device){.name = "rig", .group = &d->group, .iommu = &rig_iommu};
	d->idev = iommufd_device_bind(rig->ctx, &d->dev, &id);
	assert_false(IS_ERR(d->idev));
	return iommufd_device_attach(d->idev, 0, &pt);
}

static inline void rig_device_remove(struct rig_device *d)
{
	iommufd_device_detach(d->idev, 0);
	iommufd_device_unbind(d->idev);
	iommu_group_fini(&d->group);
}

/* ---- another process ------------------------------------------------------------------------- */

/* A child that waits until it is told to do something to itself; what it maps is its memory. */
struct child {
	pid_t pid;
	int to, from;
	struct mem_owner *memory;
	const struct swiommu_caller_ops *local_ops;
	struct swiommu_caller_ops ops;
};

static struct child *mapping_child;

static inline int child_memory(struct swiommu_caller *c, struct mem_owner **out)
{
	(void)c;
	*out = mem_owner_get(mapping_child->memory);
	return 0;
}

/* `act(data)` is what child_act() makes it do, once. From now on the rig maps the child's memory. */
static inline void child_start(struct rig *rig, struct child *child, void (*act)(void *data),
			       void *data)
{
	int to[2], from[2];
	char c;

	assert_int_equal(pipe(to) | pipe(from), 0);
	child->pid = fork();
	if (!child->pid) {
		close(to[1]);
		close(from[0]);
		if (read(to[0], &c, 1) == 1) {
			act(data);
			if (write(from[1], "", 1) == 1)
				c = read(to[0], &c, 1);
		}
		_exit(0);
	}
	assert_true(child->pid > 0);
	close(to[0]);
	close(from[1]);
	child->to = to[1];
	child->from = from[0];
	assert_int_equal(mem_owner_process(child->pid, &child->memory, NULL), 0);
	child->local_ops = rig->caller.ops;
	child->ops = *rig->caller.ops;
	child->ops.get_memory = child_memory;
	mapping_child = child;
	rig->caller.ops = &child->ops;
}

static inline void child_act(struct child *child)
{
	char c;

	assert_int_equal(write(child->to, "", 1), 1);
	assert_int_equal(read(child->from, &c, 1), 1);
}

/* The process ends; the rig maps its own memory again. */
static inline void child_end(struct rig *rig, struct child *child)
{
	close(child->to);
	waitpid(child->pid, NULL, 0);
	close(child->from);
	mem_owner_put(child->memory);
	rig->caller.ops = child->local_ops;
}

/* ---- a driver -------------------------------------------------------------------------------- */

struct item {
	struct item *next;
	unsigned long iova, length;
};

/* Keeps its pins in a list; `lock` makes pinning and writing down one step against the callback. */
struct drv {
	struct iommufd_access *access;
	uint32_t id;
	pthread_mutex_t lock;
	struct item *items;
	bool hold; /* the callback does not unpin */
	/* What it was told. */
	_Atomic unsigned int calls;
	unsigned long last_iova, last_length;
	void (*called)(struct drv *drv, unsigned long iova,
		       unsigned long length); /* without the lock */
	void *cookie;
};

static inline bool meets(const struct item *it, unsigned long iova, unsigned long length)
{
	return it->iova <= iova + (length - 1) && it->iova + (it->length - 1) >= iova;
}

static inline void drv_unpin(struct drv *drv, struct item **link)
{
	struct item *it = *link;

	*link = it->next;
	iommufd_access_unpin_pages(drv->access, it->iova, it->length);
	free(it);
}

static inline void drv_unmap(void *data, unsigned long iova, unsigned long length)
{
	struct drv *drv = data;
	struct item **link;

	if (drv->called)
		drv->called(drv, iova, length);
	pthread_mutex_lock(&drv->lock);
	drv->calls++;
	drv->last_iova = iova;
	drv->last_length = length;
	for (link = &drv->items; *link && !drv->hold;) {
		if (meets(*link, iova, length))
			drv_unpin(drv, link);
		else
			link = &(*link)->next;
	}
	pthread_mutex_unlock(&drv->lock);
}

static const struct iommufd_access_ops drv_ops = {.needs_pin_pages = 1, .unmap = drv_unmap};
static const struct iommufd_access_ops plain_ops = {.needs_pin_pages = 0};

static inline void drv_create(struct rig *rig, struct drv *drv)
{
	memset(drv, 0, sizeof(*drv));
	pthread_mutex_init(&drv->lock, NULL);
	drv->access = iommufd_access_create(rig->ctx, &drv_ops, drv, &drv->id);
	assert_false(IS_ERR(drv->access));
}

/* Attached, unless it cannot be. */
static inline void drv_open(struct rig *rig, struct drv *drv, uint32_t ioas)
{
	drv_create(rig, drv);
	assert_int_equal(iommufd_access_attach(drv->access, ioas), 0);
}

static inline int drv_pin(struct drv *drv, unsigned long iova, unsigned long length,
			  unsigned int flags)
{
	struct item *it = malloc(sizeof(*it));
	int rc;

	pthread_mutex_lock(&drv->lock);
	rc = iommufd_access_pin_pages(drv->access, iova, length, NULL, flags);
	if (!rc) {
		*it = (struct item){drv->items, iova, length};
		drv->items = it;
	}
	pthread_mutex_unlock(&drv->lock);
	if (rc)
		free(it);
	return rc;
}

static inline void drv_unpin_all(struct drv *drv)
{
	pthread_mutex_lock(&drv->lock);
	while (drv->items)
		drv_unpin(drv, &drv->items);
	pthread_mutex_unlock(&drv->lock);
}

static inline void drv_close(struct drv *drv)
{
	drv->hold = false;
	iommufd_access_destroy(drv->access);
	assert_null(drv->items);
	pthread_mutex_destroy(&drv->lock);
}

static inline struct iommufd_access *plain_open(struct rig *rig, uint32_t ioas)
{
	struct iommufd_access *access;
	uint32_t id;

	access = iommufd_access_create(rig->ctx, &plain_ops, NULL, &id);
	assert_false(IS_ERR(access));
	assert_int_equal(iommufd_access_attach(access, ioas), 0);
	return access;
}

#endif
