// SPDX-License-Identifier: MIT
/*
 * The library in this process. A mock device is a struct device of our own behind a struct
 * iommu_driver of our own; that it sees the right memory is proved by moving bytes both ways.
 */
#include <sys/mman.h>

#include "core/ctx.h"
#include "core/ioas.h"
#include "fe_lib.h"
#include "mem/guard.h"

struct lib_ctx {
	struct ctx base;
	struct iommufd_ctx *ictx;
	struct list
		mocks; /* struct lib_mock.entry: what a case leaves attached goes with the context */
};

struct lib_mock {
	struct list entry;
	struct iommu_group group;
	struct device dev;
	struct iommufd_device *idev;
	struct swiommu_dma *dma;
};

static const struct iommu_driver mock_driver = {
	.name = "mock",
	.pgsize_bitmap = MOCK_PAGE | 4096,
	.aperture_first = MOCK_FIRST,
	.aperture_last = MOCK_LAST,
};

/* The world of this process: mock devices are numbered and descriptors are found across its contexts. */
static struct swiommu_test_abi *test_abi;
static struct swiommu_files *files;
static struct swiommu_regions *regions;

static struct iommufd_ctx *ictx_of(struct ctx *c)
{
	return ((struct lib_ctx *)c)->ictx;
}

struct iommufd_ctx *fe_lib_ictx(struct ctx *c)
{
	return ictx_of(c);
}

struct iommufd_device *fe_lib_idev(struct mock *m)
{
	struct lib_mock *lm = m->priv;

	return lm->idev;
}

struct swiommu_dma *fe_lib_dma(struct mock *m)
{
	struct lib_mock *lm = m->priv;
	struct swiommu_dma *dma;

	if (swiommu_dma_open(lm->idev, &dma))
		give_up("no memory for a DMA handle");
	return dma;
}

static int make_world(void)
{
	int rc = 0;

	if (!test_abi)
		rc = swiommu_test_abi_create(&test_abi);
	if (!rc && !files)
		rc = swiommu_files_create(&files);
	if (!rc && !regions)
		rc = swiommu_regions_create(-1, &regions);
	/* Cases truncate files that are mapped, as a host's clients may. */
	return rc ? rc : mem_guard_install();
}

static int lib_open(int flags, struct ctx **out)
{
	struct lib_ctx *lc = calloc(1, sizeof(*lc));
	struct swiommu_options options = {0};
	int rc;

	(void)flags;
	if (!lc)
		return -ENOMEM;
	rc = make_world();
	lc->base.fe = &fe_lib;
	list_init(&lc->mocks);
	options.test_abi = test_abi;
	options.regions = regions;
	if (!rc)
		rc = swiommu_open_with(&options, &lc->ictx);
	if (rc) {
		free(lc);
		return rc;
	}
	*out = &lc->base;
	return 0;
}

static long lib_ioctl(struct ctx *c, unsigned int cmd, uint64_t arg)
{
	struct swiommu_caller caller;

	swiommu_caller_local(&caller);
	caller.files = files;
	return swiommu_ioctl(ictx_of(c), &caller, cmd, arg);
}

static int lib_fd(struct ctx *c)
{
	(void)c;
	return -ENOSYS;
}

static int lib_mmap(struct ctx *c, size_t len, int prot, int flags, uint64_t offset, char **out)
{
	struct swiommu_caller caller;
	int rc, fd;

	swiommu_caller_local(&caller);
	rc = swiommu_mmap(ictx_of(c), &caller, len, prot, flags, offset, &fd);
	if (rc)
		return rc;
	*out = mmap(NULL, len, prot, flags, fd, offset);
	return *out == MAP_FAILED ? -errno : 0;
}

static long lib_read(struct ctx *c, int fd, void *buf, size_t len)
{
	struct swiommu_caller caller;

	(void)c;
	swiommu_caller_local(&caller);
	caller.files = files;
	return swiommu_read(&caller, fd, (uintptr_t)buf, len);
}

static long lib_write(struct ctx *c, int fd, const void *buf, size_t len)
{
	struct swiommu_caller caller;

	(void)c;
	swiommu_caller_local(&caller);
	caller.files = files;
	return swiommu_write(&caller, fd, (uintptr_t)buf, len);
}

static void free_mock(struct lib_mock *lm)
{
	if (lm->dma)
		swiommu_dma_close(lm->dma);
	if (lm->idev)
		iommufd_device_unbind(lm->idev);
	iommu_group_fini(&lm->group);
	list_del(&lm->entry);
	free(lm);
}

static void detach_and_free(struct lib_mock *lm)
{
	iommufd_device_detach(lm->idev, 0);
	free_mock(lm);
}

static void lib_close(struct ctx *c)
{
	struct list *mocks = &((struct lib_ctx *)c)->mocks;

	while (!list_empty(mocks))
		detach_and_free(list_entry(mocks->next, struct lib_mock, entry));
	swiommu_close(ictx_of(c));
	free(c);
}

static int lib_mock_add(struct ctx *c, uint32_t pt_id, struct mock *m)
{
	struct lib_mock *lm = calloc(1, sizeof(*lm));
	int rc;

	if (!lm || iommu_group_init(&lm->group, 0)) {
		free(lm);
		return -ENOMEM;
	}
	list_add_tail(&((struct lib_ctx *)c)->mocks, &lm->entry);
	*m = (struct mock){.c = c, .ioas = pt_id, .hwpt_id = pt_id, .priv = lm};
	lm->dev = (struct device){.name = "mock", .group = &lm->group, .iommu = &mock_driver};
	lm->idev = iommufd_device_bind(ictx_of(c), &lm->dev, &m->idev_id);
	if (IS_ERR(lm->idev)) {
		rc = PTR_ERR(lm->idev);
		lm->idev = NULL;
		goto fail;
	}
	rc = swiommu_dma_open(lm->idev, &lm->dma);
	if (!rc)
		rc = iommufd_device_attach(lm->idev, 0, &m->hwpt_id);
	if (!rc)
		return 0;
fail:
	free_mock(lm);
	return rc;
}

static int lib_mock_remove(struct mock *m)
{
	detach_and_free(m->priv);
	return 0;
}

static int lib_mock_dma(struct mock *m, uint64_t iova, void *buf, size_t len, bool write)
{
	struct lib_mock *lm = m->priv;

	return write ? swiommu_dma_write(lm->dma, iova, buf, len)
		     : swiommu_dma_read(lm->dma, iova, buf, len);
}

static int lib_mock_check(struct mock *m, uint64_t iova, void *va, size_t len)
{
	char *seen = malloc(len);
	int rc;

	if (!seen)
		return -ENOMEM;
	/* Memory that differs at every byte, so that no other page could pass for it. */
	for (size_t i = 0; i < len; i++)
		((char *)va)[i] = (i * 2654435761u + (uintptr_t)va) >> 7;
	rc = lib_mock_dma(m, iova, seen, len, false);
	if (!rc && memcmp(seen, va, len))
		rc = -EINVAL;
	memset(seen, 0x5a, len);
	if (!rc)
		rc = lib_mock_dma(m, iova, seen, len, true);
	if (!rc && memcmp(seen, va, len))
		rc = -EINVAL;
	free(seen);
	return rc;
}

/* There is no public way to reserve without a device: the IOAS' map is asked directly. */
static int lib_reserve(struct ctx *c, uint32_t ioas, uint64_t first, uint64_t length)
{
	struct iova_map *m;
	struct obj *obj;
	int rc;

	if (!length)
		return -EINVAL;
	if (length - 1 > MAX - first)
		return -EOVERFLOW;
	rc = obj_get(ictx_of(c), ioas, OBJ_IOAS, "ioas", NULL, &obj);
	if (rc)
		return rc;
	m = ioas_of(obj)->map;
	iova_map_lock(m);
	rc = iova_map_reserve(m, first, first + length - 1, &fe_lib);
	iova_map_unlock(m);
	obj_put(obj);
	return rc;
}

const struct front_end fe_lib = {
	.name = "lib",
	.open = lib_open,
	.close = lib_close,
	.ioctl = lib_ioctl,
	.fd = lib_fd,
	.mmap = lib_mmap,
	.read = lib_read,
	.write = lib_write,
	.mock_add = lib_mock_add,
	.mock_remove = lib_mock_remove,
	.mock_check = lib_mock_check,
	.mock_dma = lib_mock_dma,
	.reserve = lib_reserve,
};
