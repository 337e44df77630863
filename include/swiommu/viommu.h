/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VIOMMU_H
#define SWIOMMU_VIOMMU_H

/*
 * What a driver gives to a guest (spec devices.md 5, 6.5): a vIOMMU stands for a slice of its IOMMU, a vDEVICE for
 * a device in it, under the ID that the guest knows it by, a HW queue for a queue in guest memory.
 *
 * A driver's own struct of each begins with the one declared here. The engine allocates it, zeroed, in the size that
 * the driver tells, fills in the part declared here, calls the driver's init, and frees it after `destroy`.
 */

#include <swiommu/driver.h>

#ifdef __cplusplus
extern "C" {
#endif

struct iommufd_viommu;
struct iommufd_vdevice;
struct iommufd_hw_queue;

struct iommufd_viommu_ops {
	/* The driver's part ends; mmap regions must be given back. NULL: nothing to do. */
	void (*destroy)(struct iommufd_viommu *viommu);
	/* A nested domain for any device of the vIOMMU. flags: only PASID can be set. ERR_PTR(-errno). NULL: none. */
	struct iommu_domain *(*alloc_domain_nested)(struct iommufd_viommu *viommu, uint32_t flags,
						    const struct iommu_user_data *data);
	/* Entries name devices by virt_id. Stops at the first bad one; entry_num becomes how many were done. */
	int (*cache_invalidate)(struct iommufd_viommu *viommu, struct iommu_user_data_array *array);
	/* The size of the driver's struct for a vDEVICE (0: none), and what fills it in. */
	size_t vdevice_size;
	int (*vdevice_init)(struct iommufd_vdevice *vdev);
	/* The same of a HW queue of a type, 0: no such type. base_pa: where the parent's page table has the first byte. */
	size_t (*get_hw_queue_size)(struct iommufd_viommu *viommu, uint32_t type);
	int (*hw_queue_init_phys)(struct iommufd_hw_queue *queue, uint32_t index, uint64_t base_pa);
};

struct iommufd_viommu {
	const struct iommufd_viommu_ops *ops; /* set by viommu_init() */
	uint32_t type;
	void *engine;
};

struct iommufd_vdevice {
	struct iommufd_viommu *viommu;
	struct device *dev;
	uint64_t virt_id;
	void (*destroy)(struct iommufd_vdevice *vdev); /* set by vdevice_init(), or NULL */
	void *engine;
};

struct iommufd_hw_queue {
	struct iommufd_viommu *viommu;
	uint32_t type;
	uint64_t base_addr; /* guest address (IOVA) of its memory, which stays pinned */
	uint64_t length;
	void (*destroy)(struct iommufd_hw_queue *queue); /* set by hw_queue_init_phys(), or NULL */
	void *engine;
};

/* The vDEVICEs of a vIOMMU stay while this is held. A leaf: do not call the engine but for find_dev. */
void iommufd_viommu_lock_vdevs(struct iommufd_viommu *viommu);
void iommufd_viommu_unlock_vdevs(struct iommufd_viommu *viommu);
/* The device that a guest knows by this ID; NULL: none. vDEVICEs locked. */
struct device *iommufd_viommu_find_dev(struct iommufd_viommu *viommu, uint64_t virt_id);
/* The other way round. -ENOENT. Takes the lock. */
int iommufd_viommu_get_vdev_id(struct iommufd_viommu *viommu, struct device *dev,
			       uint64_t *virt_id);
static inline struct device *iommufd_vdevice_to_device(struct iommufd_vdevice *vdev)
{
	return vdev->dev;
}

/*
 * An event for the guest: to the queue for `type`, if the user made one. -EINVAL no data, -EOPNOTSUPP no queue, -ENOMEM. A full
 * queue is no error: the user sees that events were lost. From any thread while the vIOMMU exists.
 */
int iommufd_viommu_report_event(struct iommufd_viommu *viommu, uint32_t type, const void *data,
				size_t len);

/*
 * While `dependent` exists, `depended` cannot be destroyed; to be undone in the former's destroy. -EINVAL: of two
 * vIOMMUs or types, or the same.
 */
int iommufd_hw_queue_depend(struct iommufd_hw_queue *dependent, struct iommufd_hw_queue *depended);
void iommufd_hw_queue_undepend(struct iommufd_hw_queue *dependent,
			       struct iommufd_hw_queue *depended);

/*
 * A region of memory, zeroed and page-aligned, that the user can map: `length` bytes at *host here, and at *offset of the
 * context's file. Given back with _destroy_mmap() in the vIOMMU's destroy, which does not come while it is mapped.
 * -EINVAL: length not of whole pages; -ENOMEM.
 */
int iommufd_viommu_alloc_mmap(struct iommufd_viommu *viommu, size_t length, void **host,
			      uint64_t *offset);
void iommufd_viommu_destroy_mmap(struct iommufd_viommu *viommu, uint64_t offset);

#ifdef __cplusplus
}
#endif
#endif
