/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CORE_GENERIC_RIG_H
#define TESTS_CORE_GENERIC_RIG_H

/* A device behind the generic driver, bound, in a context that answers with files. */

#include "support.h"

#include <poll.h>
#include <unistd.h>

#include "base/alloc.h"

#define BASE 0x100000ull
#define FAULT IOMMU_HWPT_FAULT_ID_VALID
#define PASID IOMMU_HWPT_ALLOC_PASID
#define NPAGES 16

typedef struct iommu_hwpt_pgfault pgfault;

struct rig {
	struct swiommu_files *files;
	struct iommufd_ctx *ctx;
	struct swiommu_caller caller;
	struct iommu_group group;
	struct device dev;
	struct iommufd_device *idev;
	uint32_t dev_id, ioas;
	char *memory; /* NPAGES */
	/* The last fault; read when nothing makes any. */
	pthread_mutex_t fault_lock;
	struct swiommu_fault fault;
	_Atomic unsigned int faults;
};

static inline long ioc(struct rig *r, unsigned int cmd, void *arg)
{
	struct swiommu_caller caller;

	swiommu_caller_local(&caller);
	caller.files = r->files;
	return swiommu_ioctl(r->ctx, &caller, cmd, (uintptr_t)arg);
}

static inline void on_fault(void *data, const struct swiommu_fault *fault)
{
	struct rig *r = data;

	pthread_mutex_lock(&r->fault_lock);
	r->fault = *fault;
	r->faults++;
	pthread_mutex_unlock(&r->fault_lock);
}

static inline int rig_setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct swiommu_hooks hooks = {.fault = on_fault, .data = r};

	pthread_mutex_init(&r->fault_lock, NULL);
	assert_rc(swiommu_files_create(&r->files), 0);
	r->ctx = ctx_new(&hooks);
	swiommu_caller_local(&r->caller);
	r->caller.files = r->files;
	assert_rc(iommu_group_init(&r->group, 0), 0);
	r->dev = (struct device){.name = "0000:80:01.0",
				 .group = &r->group,
				 .iommu = &iommu_generic_driver,
				 .dirty_tracking = true,
				 .max_pasids = 1u << 20,
				 .pasid_priv = true,
				 .ats = true,
				 .pri = true};
	r->idev = iommufd_device_bind(r->ctx, &r->dev, &r->dev_id);
	assert_false(IS_ERR(r->idev));
	r->ioas = ioas_new(r->ctx);
	r->memory = memory(NPAGES);
	*state = r;
	return 0;
}

static inline int rig_teardown(void **state)
{
	struct rig *r = *state;

	iommufd_device_unbind(r->idev);
	swiommu_close(r->ctx);
	swiommu_files_destroy(r->files);
	iommu_group_fini(&r->group);
	munmap(r->memory, NPAGES * PAGE);
	free(r);
	return 0;
}

static inline long hwpt_alloc(struct rig *r, uint32_t pt, uint32_t flags, uint32_t fault,
			      uint32_t type, const void *data, uint32_t len, uint32_t *out)
{
	struct iommu_hwpt_alloc cmd = {.size = sizeof(cmd),
				       .flags = flags,
				       .dev_id = r->dev_id,
				       .pt_id = pt,
				       .data_type = type,
				       .data_len = len,
				       .data_uptr = (uintptr_t)data,
				       .fault_id = fault};
	long rc = ioc(r, IOMMU_HWPT_ALLOC, &cmd);

	*out = cmd.out_hwpt_id;
	return rc;
}

static inline uint32_t hwpt_new(struct rig *r, uint32_t ioas, uint32_t flags, uint32_t fault)
{
	uint32_t id = 0;

	assert_rc(hwpt_alloc(r, ioas, flags, fault, 0, NULL, 0, &id), 0);
	return id;
}

static inline uint32_t fault_new(struct rig *r, int *fd)
{
	struct iommu_fault_alloc cmd = {.size = sizeof(cmd)};

	assert_rc(ioc(r, IOMMU_FAULT_QUEUE_ALLOC, &cmd), 0);
	*fd = (int)cmd.out_fault_fd;
	return cmd.out_fault_id;
}

static inline void attach(struct rig *r, uint32_t pasid, uint32_t pt)
{
	assert_rc(iommufd_device_attach(r->idev, pasid, &pt), 0);
}

static inline void replace(struct rig *r, uint32_t pasid, uint32_t pt)
{
	assert_rc(iommufd_device_replace(r->idev, pasid, &pt), 0);
}

static inline void map_page(struct rig *r, uint32_t ioas, uint32_t prot, uint64_t iova, int page)
{
	assert_rc(map(r->ctx, ioas, prot, iova, r->memory + page * PAGE, PAGE), 0);
}

/* The next page request; waits for it. */
static inline pgfault next_request(struct rig *r, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct swiommu_caller caller;
	pgfault got;

	swiommu_caller_local(&caller);
	caller.files = r->files;
	assert_int_equal(poll(&p, 1, 60000), 1);
	assert_rc(swiommu_read(&caller, fd, (uintptr_t)&got, sizeof(got)), sizeof(got));
	return got;
}

static inline long respond(struct rig *r, int fd, uint32_t cookie, uint32_t code)
{
	struct iommu_hwpt_page_response answer = {.cookie = cookie, .code = code};
	struct swiommu_caller caller;

	swiommu_caller_local(&caller);
	caller.files = r->files;
	return swiommu_write(&caller, fd, (uintptr_t)&answer, sizeof(answer));
}

static inline void close_fd(struct rig *r, int fd)
{
	close(fd);
	swiommu_files_sweep(r->files);
}

/* ---- an access in a thread of its own -------------------------------------------------------------- */

struct access {
	struct swiommu_dma *dma;
	uint64_t iova;
	char *buf;
	size_t len;
	bool write;
	int rc;
	pthread_t thread;
};

static inline void *access_run(void *arg)
{
	struct access *a = arg;

	a->rc = a->write ? swiommu_dma_write(a->dma, a->iova, a->buf, a->len)
			 : swiommu_dma_read(a->dma, a->iova, a->buf, a->len);
	return NULL;
}

static inline void access_start(struct access *a)
{
	assert_rc(pthread_create(&a->thread, NULL, access_run, a), 0);
}

static inline int access_end(struct access *a)
{
	pthread_join(a->thread, NULL);
	return a->rc;
}

#endif
