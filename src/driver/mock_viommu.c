// SPDX-License-Identifier: MIT
/*
 * The mock IOMMU's vIOMMUs: a region that the user can map, device caches that a guest can invalidate, and two HW
 * queues, of which the second needs the first (spec test-abi.md 2.5, 2.8).
 */
#include <errno.h>
#include <swiommu/viommu.h>

#include "base/alloc.h"
#include "driver/mock.h"

struct mock_hw_queue {
	struct iommufd_hw_queue core;
	struct mock_hw_queue *before; /* that this one depends on; NULL: none */
	uint32_t index;
};

struct mock_viommu {
	struct iommufd_viommu core;
	struct iommu_domain *parent; /* lives longer */
	uint64_t region_offset;	     /* 0: none */
	pthread_mutex_t lock;
	struct mock_hw_queue *queues[MOCK_NR_HW_QUEUES]; /* lock */
};

static struct mock_viommu *mock_viommu_of(struct iommufd_viommu *core)
{
	return container_of(core, struct mock_viommu, core);
}

static void mock_viommu_destroy(struct iommufd_viommu *core)
{
	struct mock_viommu *viommu = mock_viommu_of(core);

	if (viommu->region_offset)
		iommufd_viommu_destroy_mmap(core, viommu->region_offset);
	pthread_mutex_destroy(&viommu->lock);
}

static struct iommu_domain *mock_viommu_alloc_nested(struct iommufd_viommu *viommu, uint32_t flags,
						     const struct iommu_user_data *data)
{
	(void)flags;
	return mock_nested_create(viommu, data);
}

/* ---- device caches ------------------------------------------------------------------------------------ */

static int invalidate_one(struct iommufd_viommu *viommu, const struct mock_viommu_invalidate *inv)
{
	struct mock_device *mock;
	struct device *dev;
	int rc = 0;

	if (inv->flags & ~MOCK_INVALIDATE_ALL)
		return -EOPNOTSUPP;
	if (inv->cache_id >= MOCK_NR_CACHES)
		return -EINVAL;
	iommufd_viommu_lock_vdevs(viommu);
	dev = iommufd_viommu_find_dev(viommu, inv->vdev_id);
	mock = dev ? mock_of_device(dev) : NULL;
	for (unsigned int i = 0; mock && i < MOCK_NR_CACHES; i++)
		if (i == inv->cache_id || inv->flags & MOCK_INVALIDATE_ALL)
			mock->cache[i] = 0;
	if (!mock)
		rc = -EINVAL;
	iommufd_viommu_unlock_vdevs(viommu);
	return rc;
}

static int mock_cache_invalidate(struct iommufd_viommu *viommu, struct iommu_user_data_array *array)
{
	uint32_t n = array->entry_num, i = 0;
	struct mock_viommu_invalidate *invs;
	int rc;

	array->entry_num = 0;
	if (!n)
		return array->type == MOCK_VIOMMU_INVALIDATE_TYPE ? 0 : -EINVAL;
	invs = swi_alloc(n * sizeof(*invs));
	if (!invs)
		return -ENOMEM;
	array->entry_num = n;
	rc = iommu_copy_struct_from_full_user_array(invs, sizeof(*invs), array,
						    MOCK_VIOMMU_INVALIDATE_TYPE);
	while (!rc && i < n) {
		rc = invalidate_one(viommu, &invs[i]);
		i += !rc;
	}
	array->entry_num = i;
	swi_free(invs);
	return rc;
}

/* ---- HW queues ----------------------------------------------------------------------------------------- */

static size_t mock_hw_queue_size(struct iommufd_viommu *viommu, uint32_t type)
{
	(void)viommu;
	return type == MOCK_HW_QUEUE_TYPE ? sizeof(struct mock_hw_queue) : 0;
}

static void mock_hw_queue_destroy(struct iommufd_hw_queue *core)
{
	struct mock_hw_queue *queue = container_of(core, struct mock_hw_queue, core);
	struct mock_viommu *viommu = mock_viommu_of(core->viommu);

	pthread_mutex_lock(&viommu->lock);
	viommu->queues[queue->index] = NULL;
	if (queue->before)
		iommufd_hw_queue_undepend(core, &queue->before->core);
	pthread_mutex_unlock(&viommu->lock);
}

static int mock_hw_queue_init(struct iommufd_hw_queue *core, uint32_t index, uint64_t base_pa)
{
	struct mock_hw_queue *queue = container_of(core, struct mock_hw_queue, core);
	struct mock_viommu *viommu = mock_viommu_of(core->viommu);
	uint64_t at = iommu_iova_to_phys(viommu->parent, core->base_addr);
	int rc = 0;

	if (index >= MOCK_NR_HW_QUEUES)
		return -EINVAL;
	pthread_mutex_lock(&viommu->lock);
	if (viommu->queues[index])
		rc = -EEXIST;
	else if (index && !viommu->queues[index - 1])
		rc = -EIO;
	else if (base_pa != at)
		rc = -EFAULT;
	else if (index)
		rc = iommufd_hw_queue_depend(core, &viommu->queues[index - 1]->core);
	if (!rc) {
		queue->before = index ? viommu->queues[index - 1] : NULL;
		queue->index = index;
		core->destroy = mock_hw_queue_destroy;
		viommu->queues[index] = queue;
	}
	pthread_mutex_unlock(&viommu->lock);
	return rc;
}

/* ---- vIOMMUs ------------------------------------------------------------------------------------------- */

static const struct iommufd_viommu_ops viommu_ops = {
	.destroy = mock_viommu_destroy,
	.alloc_domain_nested = mock_viommu_alloc_nested,
	.cache_invalidate = mock_cache_invalidate,
	.get_hw_queue_size = mock_hw_queue_size,
	.hw_queue_init_phys = mock_hw_queue_init,
};

size_t mock_get_viommu_size(struct device *dev, uint32_t type)
{
	(void)dev;
	return type == MOCK_VIOMMU_TYPE ? sizeof(struct mock_viommu) : 0;
}

static int make_region(struct mock_viommu *viommu, const struct iommu_user_data *data)
{
	struct mock_viommu_data arg;
	uint32_t *page;
	int rc;

	rc = iommu_copy_struct_from_user(&arg, data, MOCK_VIOMMU_TYPE, out_data);
	if (rc)
		return rc;
	rc = iommufd_viommu_alloc_mmap(&viommu->core, MOCK_VIOMMU_REGION, (void **)&page,
				       &viommu->region_offset);
	if (rc)
		return rc;
	*page = arg.in_data;
	arg.out_data = arg.in_data;
	arg.out_mmap_offset = viommu->region_offset;
	arg.out_mmap_length = MOCK_VIOMMU_REGION;
	rc = iommu_copy_struct_to_user(data, &arg, MOCK_VIOMMU_TYPE, out_data);
	if (rc)
		iommufd_viommu_destroy_mmap(&viommu->core, viommu->region_offset);
	return rc;
}

int mock_viommu_init(struct iommufd_viommu *core, struct iommu_domain *parent,
		     const struct iommu_user_data *data)
{
	struct mock_viommu *viommu = mock_viommu_of(core);
	int rc = data ? make_region(viommu, data) : 0;

	if (rc)
		return rc;
	viommu->parent = parent;
	pthread_mutex_init(&viommu->lock, NULL);
	core->ops = &viommu_ops;
	return 0;
}
