// SPDX-License-Identifier: MIT
/*
 * The request table of iommufd as numbers, so that a slip in the headers is seen without network
 * too. Only compiled, as C and as C++ (compile_test.sh); abi_test.sh is the full comparison.
 */
#include <linux/iommufd.h>
#include <linux/vfio.h>

#ifdef __cplusplus
#define check(condition) static_assert(condition, #condition)
#else
#define check(condition) _Static_assert(condition, #condition)
#endif

#define check_request(name, type, number, bytes)    \
	check(IOMMU_##name == (0x3b00 | (number))); \
	check(sizeof(struct type) == (bytes))

check_request(DESTROY, iommu_destroy, 0x80, 8);
check_request(IOAS_ALLOC, iommu_ioas_alloc, 0x81, 12);
check_request(IOAS_ALLOW_IOVAS, iommu_ioas_allow_iovas, 0x82, 24);
check_request(IOAS_COPY, iommu_ioas_copy, 0x83, 40);
check_request(IOAS_IOVA_RANGES, iommu_ioas_iova_ranges, 0x84, 32);
check_request(IOAS_MAP, iommu_ioas_map, 0x85, 40);
check_request(IOAS_UNMAP, iommu_ioas_unmap, 0x86, 24);
check_request(OPTION, iommu_option, 0x87, 24);
check_request(VFIO_IOAS, iommu_vfio_ioas, 0x88, 12);
check_request(HWPT_ALLOC, iommu_hwpt_alloc, 0x89, 48);
check_request(GET_HW_INFO, iommu_hw_info, 0x8a, 40);
check_request(HWPT_SET_DIRTY_TRACKING, iommu_hwpt_set_dirty_tracking, 0x8b, 16);
check_request(HWPT_GET_DIRTY_BITMAP, iommu_hwpt_get_dirty_bitmap, 0x8c, 48);
check_request(HWPT_INVALIDATE, iommu_hwpt_invalidate, 0x8d, 32);
check_request(FAULT_QUEUE_ALLOC, iommu_fault_alloc, 0x8e, 16);
check_request(IOAS_MAP_FILE, iommu_ioas_map_file, 0x8f, 40);
check_request(VIOMMU_ALLOC, iommu_viommu_alloc, 0x90, 40);
check_request(VDEVICE_ALLOC, iommu_vdevice_alloc, 0x91, 24);
check_request(IOAS_CHANGE_PROCESS, iommu_ioas_change_process, 0x92, 8);
check_request(VEVENTQ_ALLOC, iommu_veventq_alloc, 0x93, 32);
check_request(HW_QUEUE_ALLOC, iommu_hw_queue_alloc, 0x94, 40);
check_request(IOAS_NOIOMMU_GET_PA, iommu_ioas_noiommu_get_pa, 0x95, 40);

/* What is read from and written to the queues. */
check(sizeof(struct iommu_hwpt_pgfault) == 40);
check(sizeof(struct iommu_hwpt_page_response) == 8);
check(sizeof(struct iommufd_vevent_header) == 8);

/* The first and the last request of VFIO. */
check(VFIO_GET_API_VERSION == 0x3b64);
check(VFIO_MIG_GET_PRECOPY_INFO == 0x3b79);
check(sizeof(struct vfio_device_bind_iommufd) == 24);
