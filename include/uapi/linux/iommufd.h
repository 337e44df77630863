/* SPDX-License-Identifier: MIT */
/*
 * The iommufd ABI: what a program says to /dev/iommu, as of Linux 7.3.
 *
 * An independent statement of the interface. Names, values and layouts are facts shared with the
 * kernel and are proved equal to its published headers by tests/abi; order and words are ours.
 * The include guard is the customary one, so that a program which also meets another copy of the
 * header gets only the first.
 *
 * One convention holds for every request. It is ioctl(fd, IOMMU_x, &struct), the struct starts
 * with its own size in bytes, and the request number encodes neither direction nor size, so a
 * struct may grow at its end:
 *  - a shorter struct (older program) is read as if the missing tail were zero;
 *  - a longer one (newer program) is accepted if the unknown tail is zero, else E2BIG;
 *  - an unknown flag, option or type, and a reserved field that is not zero, give EOPNOTSUPP.
 * Fields named out_* are written by the call, those named *_uptr and the other addresses of
 * program memory are virtual addresses widened to 64 bits, lengths are bytes, IOVA ranges that
 * carry "last" include it. Objects are named by 32-bit ids, unique within one open /dev/iommu
 * whatever their kind, never 0.
 */
#ifndef _IOMMUFD_H
#define _IOMMUFD_H

#include <linux/types.h>
#include <linux/ioctl.h>

/* ---- Requests -------------------------------------------------------------------------------- */

/* The ioctl type, shared with VFIO, whose numbers lie below 0x80. */
#define IOMMUFD_TYPE (';')

/* The number of each request. */
enum {
	IOMMUFD_CMD_BASE = 0x80,
	IOMMUFD_CMD_DESTROY = IOMMUFD_CMD_BASE,
	IOMMUFD_CMD_IOAS_ALLOC = 0x81,
	IOMMUFD_CMD_IOAS_ALLOW_IOVAS = 0x82,
	IOMMUFD_CMD_IOAS_COPY = 0x83,
	IOMMUFD_CMD_IOAS_IOVA_RANGES = 0x84,
	IOMMUFD_CMD_IOAS_MAP = 0x85,
	IOMMUFD_CMD_IOAS_UNMAP = 0x86,
	IOMMUFD_CMD_OPTION = 0x87,
	IOMMUFD_CMD_VFIO_IOAS = 0x88,
	IOMMUFD_CMD_HWPT_ALLOC = 0x89,
	IOMMUFD_CMD_GET_HW_INFO = 0x8a,
	IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING = 0x8b,
	IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP = 0x8c,
	IOMMUFD_CMD_HWPT_INVALIDATE = 0x8d,
	IOMMUFD_CMD_FAULT_QUEUE_ALLOC = 0x8e,
	IOMMUFD_CMD_IOAS_MAP_FILE = 0x8f,
	IOMMUFD_CMD_VIOMMU_ALLOC = 0x90,
	IOMMUFD_CMD_VDEVICE_ALLOC = 0x91,
	IOMMUFD_CMD_IOAS_CHANGE_PROCESS = 0x92,
	IOMMUFD_CMD_VEVENTQ_ALLOC = 0x93,
	IOMMUFD_CMD_HW_QUEUE_ALLOC = 0x94,
	IOMMUFD_CMD_IOAS_NOIOMMU_GET_PA = 0x95,
};

/* The whole request set, by theme; the argument of each is the struct described below. */
#define IOMMU_DESTROY _IO(IOMMUFD_TYPE, IOMMUFD_CMD_DESTROY)
#define IOMMU_OPTION _IO(IOMMUFD_TYPE, IOMMUFD_CMD_OPTION)

#define IOMMU_IOAS_ALLOC _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_ALLOC)
#define IOMMU_IOAS_IOVA_RANGES _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_IOVA_RANGES)
#define IOMMU_IOAS_ALLOW_IOVAS _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_ALLOW_IOVAS)
#define IOMMU_IOAS_MAP _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_MAP)
#define IOMMU_IOAS_MAP_FILE _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_MAP_FILE)
#define IOMMU_IOAS_COPY _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_COPY)
#define IOMMU_IOAS_UNMAP _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_UNMAP)
#define IOMMU_IOAS_CHANGE_PROCESS _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_CHANGE_PROCESS)
#define IOMMU_IOAS_NOIOMMU_GET_PA _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_NOIOMMU_GET_PA)
#define IOMMU_VFIO_IOAS _IO(IOMMUFD_TYPE, IOMMUFD_CMD_VFIO_IOAS)

#define IOMMU_GET_HW_INFO _IO(IOMMUFD_TYPE, IOMMUFD_CMD_GET_HW_INFO)

#define IOMMU_HWPT_ALLOC _IO(IOMMUFD_TYPE, IOMMUFD_CMD_HWPT_ALLOC)
#define IOMMU_HWPT_SET_DIRTY_TRACKING _IO(IOMMUFD_TYPE, IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING)
#define IOMMU_HWPT_GET_DIRTY_BITMAP _IO(IOMMUFD_TYPE, IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP)
#define IOMMU_HWPT_INVALIDATE _IO(IOMMUFD_TYPE, IOMMUFD_CMD_HWPT_INVALIDATE)

#define IOMMU_FAULT_QUEUE_ALLOC _IO(IOMMUFD_TYPE, IOMMUFD_CMD_FAULT_QUEUE_ALLOC)

#define IOMMU_VIOMMU_ALLOC _IO(IOMMUFD_TYPE, IOMMUFD_CMD_VIOMMU_ALLOC)
#define IOMMU_VDEVICE_ALLOC _IO(IOMMUFD_TYPE, IOMMUFD_CMD_VDEVICE_ALLOC)
#define IOMMU_VEVENTQ_ALLOC _IO(IOMMUFD_TYPE, IOMMUFD_CMD_VEVENTQ_ALLOC)
#define IOMMU_HW_QUEUE_ALLOC _IO(IOMMUFD_TYPE, IOMMUFD_CMD_HW_QUEUE_ALLOC)

/* ---- Any object ------------------------------------------------------------------------------ */

/* IOMMU_DESTROY: end an object. EBUSY while something uses it. */
struct iommu_destroy {
	__u32 size;
	__u32 id; /* object of any kind */
};

/* What IOMMU_OPTION can tune. */
enum iommufd_option {
	/*
	 * Who is charged for pinned memory, for the whole file: 0 the user (as RLIMIT_MEMLOCK of
	 * the user counts), 1 the process, as VFIO type1 did. object_id is 0. To be set while no
	 * object exists, and privileged.
	 */
	IOMMU_OPTION_RLIMIT_MODE = 0,
	/*
	 * Per IOAS (object_id): 1 (the default) lets contiguous memory become large IO page table
	 * entries, 0 keeps every entry at the size of a page, which makes dirty tracking finest.
	 */
	IOMMU_OPTION_HUGE_PAGES = 1,
};

/* Direction of IOMMU_OPTION. */
enum iommufd_option_ops {
	IOMMU_OPTION_OP_SET = 0, /* val64 is the new value */
	IOMMU_OPTION_OP_GET = 1, /* val64 receives the present value */
};

/* IOMMU_OPTION: read or change one setting. */
struct iommu_option {
	__u32 size;
	__u32 option_id; /* enum iommufd_option */
	__u16 op;	 /* enum iommufd_option_ops */
	__u16 __reserved;
	__u32 object_id; /* object concerned, 0 for the whole file */
	__aligned_u64 val64;
};

/* ---- IO address spaces (IOAS) ---------------------------------------------------------------- */

/* IOMMU_IOAS_ALLOC: make an empty IO address space. */
struct iommu_ioas_alloc {
	__u32 size;
	__u32 flags; /* 0 */
	__u32 out_ioas_id;
};

/* A span of IO virtual addresses, both ends included. */
struct iommu_iova_range {
	__aligned_u64 start;
	__aligned_u64 last;
};

/*
 * IOMMU_IOAS_IOVA_RANGES: ask which IOVAs every device attached at present can use. Attaching
 * more devices can shrink the answer. With an array that is too short it is filled as far as it
 * goes, num_iovas tells the number needed, and the call gives EMSGSIZE.
 */
struct iommu_ioas_iova_ranges {
	__u32 size;
	__u32 ioas_id;
	__u32 num_iovas; /* in: room in the array, out: ranges that exist */
	__u32 __reserved;
	__aligned_u64 allowed_iovas;	  /* address of struct iommu_iova_range[num_iovas] */
	__aligned_u64 out_iova_alignment; /* bytes: IOVA and length of a mapping are multiples */
};

/*
 * IOMMU_IOAS_ALLOW_IOVAS: promise to stay inside a list of ranges. Whatever would make one of
 * them unusable later, such as attaching a device with less reach, fails instead. The list
 * replaces the former one; an empty list takes the promise back.
 */
struct iommu_ioas_allow_iovas {
	__u32 size;
	__u32 ioas_id;
	__u32 num_iovas;
	__u32 __reserved;
	__aligned_u64 allowed_iovas; /* address of struct iommu_iova_range[num_iovas] */
};

/* How to map; for MAP, MAP_FILE and COPY. */
enum iommufd_ioas_map_flags {
	IOMMU_IOAS_MAP_FIXED_IOVA = 1 << 0, /* at the given IOVA; else one is chosen and returned */
	IOMMU_IOAS_MAP_WRITEABLE = 1 << 1,  /* devices may write */
	IOMMU_IOAS_MAP_READABLE = 1 << 2,   /* devices may read */
};

/* IOMMU_IOAS_MAP: let devices reach memory of the calling process. Never replaces a mapping. */
struct iommu_ioas_map {
	__u32 size;
	__u32 flags; /* enum iommufd_ioas_map_flags */
	__u32 ioas_id;
	__u32 __reserved;
	__aligned_u64 user_va; /* address of the memory */
	__aligned_u64 length;  /* bytes */
	__aligned_u64 iova;    /* in with FIXED_IOVA, else out */
};

/*
 * IOMMU_IOAS_MAP_FILE: the same for the content of a file: a memfd, or a dma-buf such as VFIO
 * exports for device memory. The mapping keeps the file, not the descriptor.
 */
struct iommu_ioas_map_file {
	__u32 size;
	__u32 flags; /* enum iommufd_ioas_map_flags */
	__u32 ioas_id;
	__s32 fd;
	__aligned_u64 start;  /* offset in the file, bytes */
	__aligned_u64 length; /* bytes */
	__aligned_u64 iova;   /* in with FIXED_IOVA, else out */
};

/*
 * IOMMU_IOAS_COPY: map again what is mapped already, in the same or another IOAS. The pages are
 * shared with the source and pinned once; both mappings then live independently.
 */
struct iommu_ioas_copy {
	__u32 size;
	__u32 flags; /* enum iommufd_ioas_map_flags, for the new mapping */
	__u32 dst_ioas_id;
	__u32 src_ioas_id;
	__aligned_u64 length;	/* bytes */
	__aligned_u64 dst_iova; /* in with FIXED_IOVA, else out */
	__aligned_u64 src_iova; /* start of the source, may lie inside a mapping */
};

/*
 * IOMMU_IOAS_UNMAP: remove all mappings inside a range. One that sticks out of it makes the call
 * fail. iova 0 with the largest length means everything.
 */
struct iommu_ioas_unmap {
	__u32 size;
	__u32 ioas_id;
	__aligned_u64 iova;
	__aligned_u64 length; /* in: bytes to unmap, out: bytes that had been mapped */
};

/*
 * IOMMU_IOAS_CHANGE_PROCESS: charge the pinned memory of all IOASes to the calling process from
 * now on, for a program that received the file from its predecessor. Works when every mapping
 * is one of a memfd, made by MAP_FILE.
 */
struct iommu_ioas_change_process {
	__u32 size;
	__u32 __reserved;
};

/*
 * IOMMU_IOAS_NOIOMMU_GET_PA: the physical address behind an IOVA, for drivers of a device that
 * works without an IOMMU and must be given physical addresses. Privileged.
 */
struct iommu_ioas_noiommu_get_pa {
	__u32 size;
	__u32 flags; /* 0 */
	__u32 ioas_id;
	__u32 __reserved;
	__aligned_u64 iova;
	__aligned_u64 length;	/* in: most bytes of interest, out: bytes contiguous from there */
	__aligned_u64 out_phys; /* physical address of iova */
};

/* What IOMMU_VFIO_IOAS does with the compatibility IOAS. */
enum iommufd_vfio_ioas_op {
	IOMMU_VFIO_IOAS_GET = 0,   /* tell its id */
	IOMMU_VFIO_IOAS_SET = 1,   /* use this one */
	IOMMU_VFIO_IOAS_CLEAR = 2, /* use none; the IOAS itself stays */
};

/* IOMMU_VFIO_IOAS: the IOAS on which VFIO type1 container requests to this file act. */
struct iommu_vfio_ioas {
	__u32 size;
	__u32 ioas_id; /* in for SET, out for GET */
	__u16 op;      /* enum iommufd_vfio_ioas_op */
	__u16 __reserved;
};

/* ---- The IOMMU behind a device --------------------------------------------------------------- */

/* Known traps of an Intel VT-d unit. */
enum iommu_hw_info_vtd_flags {
	/* Erratum 772415: a nested parent must have no read-only mappings. */
	IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17 = 1 << 0,
};

/* IOMMU_HW_INFO_TYPE_INTEL_VTD: registers as VT-d defines them. */
struct iommu_hw_info_vtd {
	__u32 flags; /* enum iommu_hw_info_vtd_flags */
	__u32 __reserved;
	__aligned_u64 cap_reg;	/* Capability register */
	__aligned_u64 ecap_reg; /* Extended Capability register */
};

/* Known traps of an ARM SMMUv3. */
enum iommu_hw_info_arm_smmuv3_flags {
	/* Erratum T264-SMMU-3: each TLBI or CFGI with its SYNC must be issued twice. */
	IOMMU_HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI = 1 << 0,
};

/*
 * IOMMU_HW_INFO_TYPE_ARM_SMMUV3: raw identification registers. They describe the hardware, not
 * what a guest can be given; that is for the VMM to work out.
 */
struct iommu_hw_info_arm_smmuv3 {
	__u32 flags; /* enum iommu_hw_info_arm_smmuv3_flags */
	__u32 __reserved;
	__u32 idr[6]; /* SMMU_IDR0 to SMMU_IDR5 */
	__u32 iidr;   /* SMMU_IIDR */
	__u32 aidr;   /* SMMU_AIDR */
};

/* IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV: fields of the PARAM register of NVIDIA's CMDQV extension. */
struct iommu_hw_info_tegra241_cmdqv {
	__u32 flags;	 /* 0 */
	__u8 version;	 /* PARAM bits 3:0 */
	__u8 log2vcmdqs; /* virtual command queues, log2: PARAM bits 7:4 */
	__u8 log2vsids;	 /* stream ID replacements, log2: PARAM bits 15:12 */
	__u8 __reserved;
};

/* IOMMU_HW_INFO_TYPE_AMD: feature registers of an AMD IOMMU, unfiltered. */
struct iommu_hw_info_amd {
	__aligned_u64 efr;  /* Extended Feature register, MMIO 0x30 */
	__aligned_u64 efr2; /* Extended Feature 2 register, MMIO 0x1a0 */
};

/* Which struct describes the hardware. */
enum iommu_hw_info_type {
	IOMMU_HW_INFO_TYPE_NONE = 0,	/* as output: nothing to tell */
	IOMMU_HW_INFO_TYPE_DEFAULT = 0, /* as input: whatever the driver prefers */
	IOMMU_HW_INFO_TYPE_INTEL_VTD = 1,
	IOMMU_HW_INFO_TYPE_ARM_SMMUV3 = 2,
	IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV = 3, /* extends an SMMUv3 */
	IOMMU_HW_INFO_TYPE_AMD = 4,
};

/* What works with the device, whatever the make of its IOMMU. */
enum iommufd_hw_capabilities {
	IOMMU_HW_CAP_DIRTY_TRACKING = 1 << 0,	     /* HWPTs can record writes */
	IOMMU_HW_CAP_PCI_PASID_EXEC = 1 << 1,	     /* execute requests; needs a PASID width > 0 */
	IOMMU_HW_CAP_PCI_PASID_PRIV = 1 << 2,	     /* privileged mode; likewise */
	IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED = 1 << 3, /* ATS absent or unusable */
};

/* Flags of IOMMU_GET_HW_INFO. */
enum iommufd_hw_info_flags {
	IOMMU_HW_INFO_FLAG_INPUT_TYPE = 1 << 0, /* in_data_type asks for a certain struct */
};

/* IOMMU_GET_HW_INFO: describe the IOMMU in front of a bound device. */
struct iommu_hw_info {
	__u32 size;
	__u32 flags; /* enum iommufd_hw_info_flags */
	__u32 dev_id;
	__u32 data_len;		 /* bytes; in: room at data_uptr, out: length known for the type */
	__aligned_u64 data_uptr; /* receives the struct; what it does not fill is zeroed */
	union {
		__u32 in_data_type;  /* enum iommu_hw_info_type, with FLAG_INPUT_TYPE */
		__u32 out_data_type; /* enum iommu_hw_info_type of what was written */
	};
	__u8 out_max_pasid_log2; /* width of the PASIDs the device can use in bits, 0 for none */
	__u8 __reserved[3];
	__aligned_u64 out_capabilities; /* enum iommufd_hw_capabilities */
};

/* ---- Hardware page tables (HWPT) ------------------------------------------------------------- */

/* Flags of IOMMU_HWPT_ALLOC. */
enum iommufd_hwpt_alloc_flags {
	IOMMU_HWPT_ALLOC_NEST_PARENT = 1 << 0,	  /* nested HWPTs and vIOMMUs may build on it */
	IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 1 << 1, /* only devices that can record writes attach */
	IOMMU_HWPT_FAULT_ID_VALID = 1 << 2,	  /* page requests go to the queue fault_id */
	IOMMU_HWPT_ALLOC_PASID = 1 << 3,	  /* may be attached to PASIDs, and beside them */
};

/* Flags of a VT-d first-stage table; bit meanings as in a PASID table entry. */
enum iommu_hwpt_vtd_s1_flags {
	IOMMU_VTD_S1_SRE = 1 << 0,  /* supervisor requests allowed */
	IOMMU_VTD_S1_EAFE = 1 << 1, /* extended accessed flag */
	IOMMU_VTD_S1_WPE = 1 << 2,  /* write protection also binds supervisor requests */
};

/* IOMMU_HWPT_DATA_VTD_S1: a guest's first-stage table on an Intel VT-d unit. */
struct iommu_hwpt_vtd_s1 {
	__aligned_u64 flags;	  /* enum iommu_hwpt_vtd_s1_flags */
	__aligned_u64 pgtbl_addr; /* of its top level, an address in the parent */
	__u32 addr_width;	  /* input address bits */
	__u32 __reserved;
};

/*
 * IOMMU_HWPT_DATA_ARM_SMMUV3: the first two words of a guest's Stream Table Entry, little-endian.
 * Word 0 may carry V, Cfg, S1Fmt, S1ContextPtr, S1CDMax; word 1 S1DSS, S1CIR, S1COR, S1CSH,
 * S1STALLD and EATS. Anything else must be clear.
 */
struct iommu_hwpt_arm_smmuv3 {
	__aligned_le64 ste[2];
};

/* IOMMU_HWPT_DATA_AMD_GUEST: a guest's Device Table Entry on an AMD IOMMU. */
struct iommu_hwpt_amd_guest {
	__aligned_u64 dte[4];
};

/* Which struct configures a new HWPT. */
enum iommu_hwpt_data_type {
	IOMMU_HWPT_DATA_NONE = 0, /* none: the driver decides */
	IOMMU_HWPT_DATA_VTD_S1 = 1,
	IOMMU_HWPT_DATA_ARM_SMMUV3 = 2,
	IOMMU_HWPT_DATA_AMD_GUEST = 3,
};

/*
 * IOMMU_HWPT_ALLOC: make a page table by hand. On an IOAS it becomes a paging HWPT, which follows
 * the mappings of the IOAS; on a paging HWPT made with NEST_PARENT, or on a vIOMMU, a nested one,
 * whose first stage the guest writes itself.
 */
struct iommu_hwpt_alloc {
	__u32 size;
	__u32 flags;  /* enum iommufd_hwpt_alloc_flags */
	__u32 dev_id; /* the device whose IOMMU is to understand the table */
	__u32 pt_id;  /* what it builds on: IOAS, paging HWPT or vIOMMU */
	__u32 out_hwpt_id;
	__u32 __reserved;
	__u32 data_type;	 /* enum iommu_hwpt_data_type */
	__u32 data_len;		 /* bytes at data_uptr */
	__aligned_u64 data_uptr; /* the struct of data_type */
	__u32 fault_id;		 /* fault queue, with FAULT_ID_VALID */
	__u32 __reserved2;
};

/* Flags of IOMMU_HWPT_SET_DIRTY_TRACKING. */
enum iommufd_hwpt_set_dirty_tracking_flags {
	IOMMU_HWPT_DIRTY_TRACKING_ENABLE = 1, /* start; absent means stop */
};

/* IOMMU_HWPT_SET_DIRTY_TRACKING: start, with a clean slate, or stop recording device writes. */
struct iommu_hwpt_set_dirty_tracking {
	__u32 size;
	__u32 flags; /* enum iommufd_hwpt_set_dirty_tracking_flags */
	__u32 hwpt_id;
	__u32 __reserved;
};

/* Flags of IOMMU_HWPT_GET_DIRTY_BITMAP. */
enum iommufd_hwpt_get_dirty_bitmap_flags {
	/* Leave the record as it is: cheaper, for a range that is about to be unmapped. */
	IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR = 1,
};

/*
 * IOMMU_HWPT_GET_DIRTY_BITMAP: what devices wrote since the last look. Bit n of the bitmap (of
 * byte n / 8, bit n % 8) stands for the n-th page from iova on. Bits are only ever set, so the
 * program clears the bitmap beforehand.
 */
struct iommu_hwpt_get_dirty_bitmap {
	__u32 size;
	__u32 hwpt_id;
	__u32 flags; /* enum iommufd_hwpt_get_dirty_bitmap_flags */
	__u32 __reserved;
	__aligned_u64 iova;
	__aligned_u64 length;	 /* bytes */
	__aligned_u64 page_size; /* bytes a bit stands for */
	__aligned_u64 data;	 /* address of the bitmap */
};

/* Which struct an entry of IOMMU_HWPT_INVALIDATE is. */
enum iommu_hwpt_invalidate_data_type {
	IOMMU_HWPT_INVALIDATE_DATA_VTD_S1 = 0,	     /* for a nested HWPT */
	IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3 = 1, /* for a vIOMMU */
};

/* Flags of a VT-d invalidation. */
enum iommu_hwpt_vtd_s1_invalidate_flags {
	IOMMU_VTD_INV_FLAGS_LEAF = 1 << 0, /* only last-level entries changed */
};

/* Forget cached first-stage translations of a span of addresses; 0 and all ones: of everything. */
struct iommu_hwpt_vtd_s1_invalidate {
	__aligned_u64 addr;   /* guest IO virtual address, a multiple of 4096 */
	__aligned_u64 npages; /* pages of 4096 bytes */
	__u32 flags;	      /* enum iommu_hwpt_vtd_s1_invalidate_flags */
	__u32 __reserved;
};

/*
 * One guest SMMUv3 command, little-endian: the TLBI family for EL1 non-secure translations,
 * ATC_INV, CFGI_CD and CFGI_CD_ALL. VMID is replaced, a stream ID is looked up as virt_id.
 */
struct iommu_viommu_arm_smmuv3_invalidate {
	__aligned_le64 cmd[2];
};

/* IOMMU_HWPT_INVALIDATE: pass on the guest's cache invalidations, in order. */
struct iommu_hwpt_invalidate {
	__u32 size;
	__u32 hwpt_id;		 /* nested HWPT or vIOMMU */
	__aligned_u64 data_uptr; /* array of entries */
	__u32 data_type;	 /* enum iommu_hwpt_invalidate_data_type */
	__u32 entry_len;	 /* bytes of one entry */
	__u32 entry_num;	 /* in: entries given, out: entries done, also on failure */
	__u32 __reserved;
};

/* ---- IO page faults -------------------------------------------------------------------------- */

/* Flags of a page request. */
enum iommu_hwpt_pgfault_flags {
	IOMMU_PGFAULT_FLAGS_PASID_VALID = (1 << 0), /* pasid counts */
	IOMMU_PGFAULT_FLAGS_LAST_PAGE = (1 << 1),   /* last of its group: answer now */
};

/* What the device wanted to do. */
enum iommu_hwpt_pgfault_perm {
	IOMMU_PGFAULT_PERM_READ = (1 << 0),
	IOMMU_PGFAULT_PERM_WRITE = (1 << 1),
	IOMMU_PGFAULT_PERM_EXEC = (1 << 2),
	IOMMU_PGFAULT_PERM_PRIV = (1 << 3), /* in privileged mode */
};

/* A page request, as read from the fault fd. Requests of a group arrive together. */
struct iommu_hwpt_pgfault {
	__u32 flags; /* enum iommu_hwpt_pgfault_flags */
	__u32 dev_id;
	__u32 pasid;
	__u32 grpid; /* page request group index of the device */
	__u32 perm;  /* enum iommu_hwpt_pgfault_perm */
	__u32 __reserved;
	__aligned_u64 addr; /* faulting IO virtual address */
	__u32 length;	    /* bytes likely to be wanted next, a hint */
	__u32 cookie;	    /* names the group in the answer */
};

/* Verdict on a group of page requests. */
enum iommufd_page_response_code {
	IOMMUFD_PAGE_RESP_SUCCESS = 0, /* the pages are there: try again */
	IOMMUFD_PAGE_RESP_INVALID = 1, /* they will not come: give up */
};

/* The answer to one group, as written to the fault fd. */
struct iommu_hwpt_page_response {
	__u32 cookie; /* from the requests */
	__u32 code;   /* enum iommufd_page_response_code */
};

/* IOMMU_FAULT_QUEUE_ALLOC: make a queue and the fd to read requests from and write answers to. */
struct iommu_fault_alloc {
	__u32 size;
	__u32 flags; /* 0 */
	__u32 out_fault_id;
	__u32 out_fault_fd;
};

/* ---- Virtual IOMMUs -------------------------------------------------------------------------- */

/* Make of a virtual IOMMU. */
enum iommu_viommu_type {
	IOMMU_VIOMMU_TYPE_DEFAULT = 0,	  /* not a type; refused */
	IOMMU_VIOMMU_TYPE_ARM_SMMUV3 = 1, /* SMMUv3 */
	/* CMDQV of an SMMUv3. The guest must find HYP_OWN of VINTF_CONFIG wired to 0. */
	IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV = 2,
};

/*
 * IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV: where to mmap, on /dev/iommu, page 0 of the virtual interface,
 * which the guest then drives directly.
 */
struct iommu_viommu_tegra241_cmdqv {
	__aligned_u64 out_vintf_mmap_offset; /* bytes */
	__aligned_u64 out_vintf_mmap_length; /* bytes */
};

/* IOMMU_VIOMMU_ALLOC: represent the slice of a physical IOMMU that a guest is given. */
struct iommu_viommu_alloc {
	__u32 size;
	__u32 flags;   /* 0 */
	__u32 type;    /* enum iommu_viommu_type */
	__u32 dev_id;  /* a device behind that physical IOMMU */
	__u32 hwpt_id; /* second stage: paging HWPT made with NEST_PARENT */
	__u32 out_viommu_id;
	__u32 data_len; /* bytes at data_uptr */
	__u32 __reserved;
	__aligned_u64 data_uptr; /* struct of the type, if it has one; may receive outputs */
};

/* IOMMU_VDEVICE_ALLOC: tell under which number a guest knows a device. At most one per device. */
struct iommu_vdevice_alloc {
	__u32 size;
	__u32 viommu_id;
	__u32 dev_id;
	__u32 out_vdevice_id;
	__aligned_u64 virt_id; /* guest's stream ID, requester ID or device ID */
};

/* Flags of an event header. */
enum iommu_veventq_flag {
	/* Events before this header were dropped; no payload follows. Only ever at the end. */
	IOMMU_VEVENTQ_FLAG_LOST_EVENTS = (1U << 0),
};

/*
 * Precedes every event read from an event queue fd. Sequence numbers count all events, so a gap
 * of more than one tells how many are missing.
 */
struct iommufd_vevent_header {
	__u32 flags;	/* enum iommu_veventq_flag */
	__u32 sequence; /* 0 to 2^31 - 1, then from 0 again */
};

/* What a queue carries. */
enum iommu_veventq_type {
	IOMMU_VEVENTQ_TYPE_DEFAULT = 0, /* not a type; refused */
	IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 = 1,
	IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV = 2,
};

/*
 * An SMMUv3 event record, little-endian, its stream ID replaced by the virt_id of the vDEVICE.
 * Passed on are the errors a guest can cause: C_BAD_STE, F_STREAM_DISABLED, C_BAD_SUBSTREAMID,
 * C_BAD_CD, F_TRANSLATION, F_ADDR_SIZE, F_ACCESS and F_PERMISSION.
 */
struct iommu_vevent_arm_smmuv3 {
	__aligned_le64 evt[4];
};

/* A CMDQV error interrupt: which logical command queues are in error, one bit each. */
struct iommu_vevent_tegra241_cmdqv {
	__aligned_le64 lvcmdq_err_map[2];
};

/* IOMMU_VEVENTQ_ALLOC: a queue of events of one type for a guest, read through its own fd. */
struct iommu_veventq_alloc {
	__u32 size;
	__u32 flags; /* 0 */
	__u32 viommu_id;
	__u32 type;	     /* enum iommu_veventq_type, one queue of each per vIOMMU */
	__u32 veventq_depth; /* events held before the queue overflows */
	__u32 out_veventq_id;
	__u32 out_veventq_fd;
	__u32 __reserved;
};

/* Make of a hardware queue. */
enum iommu_hw_queue_type {
	IOMMU_HW_QUEUE_TYPE_DEFAULT = 0, /* not a type; refused */
	/*
	 * A CMDQV virtual command queue. To be allocated in index order, freed in reverse, aligned
	 * to its size, and the size a power of two.
	 */
	IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV = 1,
};

/*
 * IOMMU_HW_QUEUE_ALLOC: let the hardware work directly on a queue in guest memory, which must be
 * mapped in the IOAS of the vIOMMU's second stage and physically contiguous. The mapping cannot be
 * removed while the queue exists.
 */
struct iommu_hw_queue_alloc {
	__u32 size;
	__u32 flags; /* 0 */
	__u32 viommu_id;
	__u32 type;  /* enum iommu_hw_queue_type */
	__u32 index; /* which of the vIOMMU's queues of that type */
	__u32 out_hw_queue_id;
	__aligned_u64 nesting_parent_iova; /* guest physical address of the queue */
	__aligned_u64 length;		   /* bytes */
};

#endif /* _IOMMUFD_H */
