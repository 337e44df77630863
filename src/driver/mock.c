// SPDX-License-Identifier: MIT
/*
 * The mock IOMMU: a driver like any other, with devices that come and go by number. A number is taken
 * for as long as the device lives, and given to the next one then, lowest first.
 */
#include "driver/mock.h"

#include <errno.h>
#include <linux/iommufd.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

static int mock_hw_info(const struct device *dev, uint32_t *type, void *data)
{
	static const struct mock_hw_info info = {.test_reg = MOCK_HW_INFO_REG};

	(void)dev;
	if (*type && *type != MOCK_HW_INFO_TYPE)
		return -EOPNOTSUPP;
	*type = MOCK_HW_INFO_TYPE;
	memcpy(data, &info, sizeof(info));
	return sizeof(info);
}

static int mock_table_format(struct device *dev, const struct iommu_user_data *data,
			     struct iommu_table_format *format)
{
	struct mock_hwpt_data arg;
	int rc;

	(void)dev;
	if (data->type != MOCK_HWPT_DATA_TYPE)
		return -EOPNOTSUPP;
	rc = iommu_copy_struct_from_user(&arg, data, MOCK_HWPT_DATA_TYPE, iotlb);
	if (rc)
		return rc;
	if (arg.pagetable_type == MOCK_TABLE_HUGE)
		*format = (struct iommu_table_format){
			.pgsize_bitmap = SWI_PAGE_SIZE | MOCK_HUGE_PAGE_SIZE,
			.aperture_last = MOCK_HUGE_APERTURE_LAST,
			.format = IOMMU_PT_AMDV1_2K,
		};
	return arg.pagetable_type <= MOCK_TABLE_HUGE ? 0 : -EOPNOTSUPP;
}

static struct iommu_domain *mock_alloc_nested(struct device *dev, struct iommu_domain *parent,
					      uint32_t flags, const struct iommu_user_data *data)
{
	(void)dev;
	(void)parent;
	(void)flags;
	return mock_nested_create(NULL, data);
}

/* A mock device waits for no answer. */
static void mock_page_response(struct device *dev, const struct iopf_fault *evt,
			       const struct iommu_page_response *resp)
{
	(void)dev;
	(void)evt;
	(void)resp;
}

const struct iommu_driver mock_iommu_driver = {
	.name = "mock",
	/* Any power of two from 2 KiB to 64 GiB, as page tables with contiguous entries offer. */
	.pgsize_bitmap = ((1ull << 37) - 1) & ~(MOCK_PAGE_SIZE - 1),
	.aperture_first = MOCK_APERTURE_FIRST,
	.aperture_last = MOCK_APERTURE_LAST,
	.pt_format = IOMMU_PT_AMDV1_2K,
	.hwpt_flags = IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_PASID,
	.enforces_coherency = false,
	.hw_info = mock_hw_info,
	.table_format = mock_table_format,
	.domain_ops = &mock_paging_ops,
	.blocked_domain = &mock_blocked_domain,
	.domain_alloc_nested = mock_alloc_nested,
	.user_pasid_table = true,
	.page_response = mock_page_response,
	.get_viommu_size = mock_get_viommu_size,
	.viommu_init = mock_viommu_init,
};

void mock_bus_init(struct mock_bus *bus)
{
	memset(bus, 0, sizeof(*bus));
	pthread_mutex_init(&bus->lock, NULL);
}

void mock_bus_fini(struct mock_bus *bus)
{
	swi_free(bus->used);
	pthread_mutex_destroy(&bus->lock);
}

static int take_number(struct mock_bus *bus, unsigned int *out)
{
	uint64_t *used;
	size_t i;
	int rc = 0;

	pthread_mutex_lock(&bus->lock);
	for (i = 0; i < bus->words && !~bus->used[i]; i++)
		;
	if (i == bus->words) {
		used = swi_realloc(bus->used, (i + 1) * sizeof(*used));
		if (!used) {
			rc = -ENOMEM;
			goto out;
		}
		used[i] = 0;
		bus->used = used;
		bus->words++;
	}
	*out = i * 64 + __builtin_ctzll(~bus->used[i]);
	bus->used[i] |= 1ull << *out % 64;
out:
	pthread_mutex_unlock(&bus->lock);
	return rc;
}

static void put_number(struct mock_bus *bus, unsigned int number)
{
	pthread_mutex_lock(&bus->lock);
	bus->used[number / 64] &= ~(1ull << number % 64);
	pthread_mutex_unlock(&bus->lock);
}

int mock_device_create(struct mock_bus *bus, bool no_dirty, bool pasid, struct mock_device **out)
{
	struct mock_device *mock = swi_new(struct mock_device);
	int rc;

	if (!mock)
		return -ENOMEM;
	rc = take_number(bus, &mock->number);
	if (rc)
		goto free;
	rc = iommu_group_init(&mock->group, mock->number);
	if (rc)
		goto put_number;
	mock->bus = bus;
	pthread_mutex_init(&mock->viommu_lock, NULL);
	for (unsigned int i = 0; i < MOCK_NR_CACHES; i++)
		mock->cache[i] = MOCK_CACHE_DEFAULT;
	mock->dev.dirty_tracking = !no_dirty;
	mock->dev.max_pasids = pasid ? MOCK_MAX_PASIDS : 1;
	snprintf(mock->name, sizeof(mock->name), "iommufd_mock%u", mock->number);
	mock->dev.name = mock->name;
	mock->dev.group = &mock->group;
	mock->dev.iommu = &mock_iommu_driver;
	*out = mock;
	return 0;
put_number:
	put_number(bus, mock->number);
free:
	swi_free(mock);
	return rc;
}

void mock_device_destroy(struct mock_device *mock)
{
	pthread_mutex_destroy(&mock->viommu_lock);
	iommu_group_fini(&mock->group);
	put_number(mock->bus, mock->number);
	swi_free(mock);
}
