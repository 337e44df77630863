// SPDX-License-Identifier: MIT
/*
 * The mock IOMMU's domains: what happens when a device, or one PASID of it, is attached (spec test-abi.md 2.1, 2.2),
 * and nested domains.
 */
#include <errno.h>
#include <linux/iommufd.h>
#include <swiommu/iommufd.h>
#include <swiommu/viommu.h>

#include "base/alloc.h"
#include "driver/mock.h"

static struct iommufd_viommu *viommu_under(struct iommu_domain *domain)
{
	struct mock_nested *nested = mock_nested_of(domain);

	return nested ? nested->viommu : NULL;
}

/* ---- page requests ---------------------------------------------------------------------------------- */

static int iopf_enable(struct mock_device *mock, const struct iommu_domain *domain)
{
	int rc = 0;

	if (!domain->takes_iopf)
		return 0;
	if (!mock->iopf_users)
		rc = iopf_queue_add_device(&mock->dev);
	if (!rc)
		mock->iopf_users++;
	return rc;
}

static void iopf_disable(struct mock_device *mock, const struct iommu_domain *domain)
{
	if (!domain || !domain->takes_iopf)
		return;
	if (!--mock->iopf_users)
		iopf_queue_remove_device(&mock->dev);
}

/* ---- attaching --------------------------------------------------------------------------------------- */

static int check_dirty(const struct iommu_domain *domain, const struct device *dev)
{
	return domain->flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING && !dev->dirty_tracking ? -EINVAL
										       : 0;
}

static int mock_attach_dev(struct iommu_domain *domain, struct device *dev,
			   struct iommu_domain *old)
{
	struct iommufd_viommu *viommu = viommu_under(domain);
	struct mock_device *mock = mock_of_device(dev);
	uint64_t virt_id = 0;
	int rc;

	rc = check_dirty(domain, dev);
	if (!rc && viommu)
		rc = iommufd_viommu_get_vdev_id(viommu, dev, &virt_id);
	if (!rc)
		rc = iopf_enable(mock, domain);
	if (rc)
		return rc;
	iopf_disable(mock, old);
	/* Within one vIOMMU the ID stays what it was when the device came. */
	pthread_mutex_lock(&mock->viommu_lock);
	if (mock->viommu != viommu) {
		mock->viommu = viommu;
		mock->virt_id = virt_id;
	}
	pthread_mutex_unlock(&mock->viommu_lock);
	return 0;
}

static int mock_set_dev_pasid(struct iommu_domain *domain, struct device *dev, uint32_t pasid,
			      struct iommu_domain *old)
{
	struct mock_device *mock = mock_of_device(dev);
	int rc = check_dirty(domain, dev);

	if (rc)
		return rc;
	if (pasid == MOCK_FAILING_PASID) {
		mock->failing_pasid_set =
			!mock->failing_pasid_set && domain->type != IOMMU_DOMAIN_BLOCKED;
		if (!mock->failing_pasid_set && domain->type != IOMMU_DOMAIN_BLOCKED)
			return -ENOMEM;
	}
	rc = iopf_enable(mock, domain);
	if (!rc)
		iopf_disable(mock, old);
	return rc;
}

const struct iommu_domain_ops mock_paging_ops = {
	.attach_dev = mock_attach_dev,
	.set_dev_pasid = mock_set_dev_pasid,
};

struct iommu_domain mock_blocked_domain = {
	.type = IOMMU_DOMAIN_BLOCKED,
	.ops = &mock_paging_ops,
};

int mock_device_vevent(struct mock_device *mock)
{
	struct mock_vevent event;
	int rc = -ENOENT;

	pthread_mutex_lock(&mock->viommu_lock);
	event.virt_id = mock->virt_id;
	if (mock->viommu && mock->virt_id)
		rc = iommufd_viommu_report_event(mock->viommu, MOCK_VEVENT_TYPE, &event,
						 sizeof(event));
	pthread_mutex_unlock(&mock->viommu_lock);
	return rc;
}

/* ---- nested domains ----------------------------------------------------------------------------------- */

static int invalidate_one(struct mock_nested *nested, const struct iommu_user_data_array *array,
			  uint32_t i)
{
	struct mock_hwpt_invalidate inv;
	int rc;

	rc = iommu_copy_struct_from_user_array(&inv, array, MOCK_HWPT_INVALIDATE_TYPE, i, iotlb_id);
	if (rc)
		return rc;
	if (inv.flags & ~MOCK_INVALIDATE_ALL)
		return -EOPNOTSUPP;
	if (inv.iotlb_id >= MOCK_NR_IOTLBS)
		return -EINVAL;
	if (!(inv.flags & MOCK_INVALIDATE_ALL)) {
		nested->iotlb[inv.iotlb_id] = 0;
		return 0;
	}
	for (unsigned int n = 0; n < MOCK_NR_IOTLBS; n++)
		nested->iotlb[n] = 0;
	return 0;
}

static int mock_invalidate(struct iommu_domain *domain, struct iommu_user_data_array *array)
{
	uint32_t i = 0;
	int rc = array->type == MOCK_HWPT_INVALIDATE_TYPE ? 0 : -EINVAL;

	while (!rc && i < array->entry_num) {
		rc = invalidate_one(mock_nested_of(domain), array, i);
		i += !rc;
	}
	array->entry_num = i;
	return rc;
}

static void mock_free_nested(struct iommu_domain *domain)
{
	swi_free(mock_nested_of(domain));
}

static const struct iommu_domain_ops nested_ops = {
	.attach_dev = mock_attach_dev,
	.set_dev_pasid = mock_set_dev_pasid,
	.cache_invalidate_user = mock_invalidate,
	.free = mock_free_nested,
};

struct mock_nested *mock_nested_of(struct iommu_domain *domain)
{
	return domain->ops == &nested_ops ? container_of(domain, struct mock_nested, domain) : NULL;
}

struct iommu_domain *mock_nested_create(struct iommufd_viommu *viommu,
					const struct iommu_user_data *data)
{
	struct mock_nested *nested;
	struct mock_hwpt_data arg;
	int rc;

	if (data->type != MOCK_HWPT_DATA_TYPE)
		return ERR_PTR(-EOPNOTSUPP);
	rc = iommu_copy_struct_from_user(&arg, data, MOCK_HWPT_DATA_TYPE, iotlb);
	if (rc)
		return ERR_PTR(rc);
	nested = swi_new(struct mock_nested);
	if (!nested)
		return ERR_PTR(-ENOMEM);
	nested->domain.type = IOMMU_DOMAIN_NESTED;
	nested->domain.ops = &nested_ops;
	nested->viommu = viommu;
	for (unsigned int i = 0; i < MOCK_NR_IOTLBS; i++)
		nested->iotlb[i] = arg.iotlb;
	return &nested->domain;
}
