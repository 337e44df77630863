#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Proves that abi_test.sh can fail: damages a copy of our headers in one place at a time and
# expects it to notice and to name the place.
#
# usage: abi_mutation_test.sh [CACHE-DIR], as for abi_test.sh. Exit: 0, 1, or 77 (nothing to
# compare with).
set -u
LC_ALL=C
export LC_ALL

here=$(cd "$(dirname "$0")" && pwd)
headers=$here/../../include/uapi
cache=${1-}
temp=$(mktemp -d) || exit 1
trap 'rm -rf "$temp"' EXIT
trap 'exit 1' HUP INT TERM

sh "$here/abi_test.sh" ${cache:+"$cache"} >"$temp/out"
status=$?
case $status in
0) ;;
77) cat "$temp/out" && exit 77 ;;
*) cat "$temp/out" && echo "the undamaged headers are not equal" && exit 1 ;;
esac

tried=0
missed=0
# damage HEADER SED-SCRIPT TEXT: after the damage the test must fail with TEXT in its output.
damage() {
	tried=$((tried + 1))
	rm -rf "$temp/include"
	cp -r "$headers" "$temp/include" || exit 1
	sed "$2" "$headers/linux/$1.h" >"$temp/include/linux/$1.h" || exit 1
	if cmp -s "$headers/linux/$1.h" "$temp/include/linux/$1.h"; then
		echo "no longer damages anything: $1: $2"
		missed=$((missed + 1))
		return
	fi
	sh "$here/abi_test.sh" -H "$temp/include" ${cache:+"$cache"} >"$temp/out" 2>&1
	if [ $? -ne 1 ] || ! grep -q -e "$3" "$temp/out"; then
		echo "not noticed: $1: $2 (output without: $3)"
		sed 's/^/    /' "$temp/out"
		missed=$((missed + 1))
	fi
}

# Values: an enumerator, a request number, a flag, the type of a constant, a text.
damage iommufd 's/IOMMU_PGFAULT_PERM_PRIV = (1 << 3)/IOMMU_PGFAULT_PERM_PRIV = (1 << 4)/' \
	'> enumerator IOMMU_PGFAULT_PERM_PRIV .* 0x10'
damage iommufd 's/^#define IOMMU_IOAS_MAP _IO\(.*MAP\))/#define IOMMU_IOAS_MAP _IOR\1, __u32)/' \
	'> macro IOMMU_IOAS_MAP: .* 0x80043b85'
damage vfio 's/(VFIO_TYPE, VFIO_BASE + 17)/(VFIO_TYPE, VFIO_BASE + 18)/' \
	'> macro VFIO_DEVICE_FEATURE: .* 0x3b76'
damage vfio 's/^\(#define VFIO_DEVICE_FLAGS_CDX (1\)/\1U/' \
	'VFIO_DEVICE_FLAGS_CDX: unsigned int 0x100'
damage vfio 's/"vfio-ap"/"vfio-AP"/' 'VFIO_DEVICE_API_AP_STRING: text 0 "vfio-AP"'
damage vfio 's/(!(VFIO_DEVICE_STATE_V1_RESUMING/(!(VFIO_DEVICE_STATE_V1_SAVING/' \
	'> function VFIO_DEVICE_STATE_VALID'

# Types: signedness, same size by another name, alignment, array length, width, byte order.
damage iommufd 's/__u32 out_ioas_id/__s32 out_ioas_id/' \
	'> member struct iommu_ioas_alloc out_ioas_id __s32'
damage vfio 's/__u16 segment/__le16 segment/' \
	'> member struct vfio_pci_dependent_device segment __le16'
damage vfio 's/__aligned_u64 stop_copy_length/__u64 stop_copy_length/' 'stop_copy_length __u64$'
damage iommufd 's/__aligned_u64 dte\[4\]/__aligned_u64 dte[2]/' \
	'> struct iommu_hwpt_amd_guest: size 16'
damage iommufd 's/__u8 log2vsids/__u16 log2vsids/' \
	'> member struct iommu_hw_info_tegra241_cmdqv __reserved .*offset 8'
damage iommufd 's/__aligned_le64 evt/__aligned_u64 evt/' \
	'> member struct iommu_vevent_arm_smmuv3 evt __u64'
damage vfio 's/__s32 group_fds\[\]/__s32 group_fds[1]/' \
	'< member struct vfio_pci_hot_reset group_fds __s32 \[\]'

# Layout: two fields change places, a union is taken apart, a struct is packed.
damage iommufd '/^struct iommu_ioas_copy/,/^}/{s/dst_iova/X/;s/src_iova/dst_iova/;s/X/src_iova/;}' \
	'> member struct iommu_ioas_copy dst_iova .*: offset 32'
damage iommufd '/^struct iommu_hw_info {/,/^}/s/union {/struct {/' \
	'struct iommu_hw_info out_data_type'
damage vfio '/^struct vfio_iommu_type1_info_dma_avail/,/^}/s/^};/} __attribute__((packed));/' \
	'vfio_iommu_type1_info_dma_avail: .*alignment 1'

# Completeness: each kind of name missing, renamed, moved to another enum, turned into another
# kind, or beside the reference.
damage iommufd '/IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV = 2/d' \
	'< enumerator IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV'
damage iommufd 's/^enum iommu_viommu_type/enum iommu_viommu_kind/' '< enum iommu_viommu_type'
damage iommufd '/define IOMMU_HW_QUEUE_ALLOC/d' '< macro IOMMU_HW_QUEUE_ALLOC'
damage iommufd '/^struct iommu_vdevice_alloc/,/^}/d' '< struct iommu_vdevice_alloc'
damage iommufd '/__u32 fault_id/s/fault_id/fault/' '< member struct iommu_hwpt_alloc fault_id'
damage vfio '/VFIO_EEH_PE_INJECT_ERR 9/d' '< macro VFIO_EEH_PE_INJECT_ERR'
damage vfio 's/^#define VFIO_UNMAP_ALL 9.*/enum { VFIO_UNMAP_ALL = 9 };/' '< macro VFIO_UNMAP_ALL'
damage vfio 's/^#define VFIO_BASE 100/&\n#define VFIO_EXTRA 1/' '> macro VFIO_EXTRA'

echo "$((tried - missed)) of $tried damages noticed"
[ $missed -eq 0 ]
