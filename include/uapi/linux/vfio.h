/* SPDX-License-Identifier: MIT */
/*
 * The VFIO ABI: what a program says to the files under /dev/vfio, as of Linux 7.3.
 *
 * An independent statement of the interface. Names, values and layouts are facts shared with the
 * kernel and are proved equal to its published headers by tests/abi; order and words are ours.
 * The include guard is the customary one, so that a program which also meets another copy of the
 * header gets only the first.
 *
 * Conventions: most structs start with argsz, the bytes the program provides, and flags. Fields
 * that argsz does not reach are neither read nor written. No request encodes direction or size.
 * The same number means different things on a container, a group and a device file. Sizes,
 * lengths and offsets are bytes.
 *
 * Info structs can carry a chain of capabilities behind their fixed part: cap_offset, from the
 * start of the struct, leads to the first header, 0 if there is none. If they do not fit, argsz
 * tells the size needed, and the program asks again.
 */
#ifndef VFIO_H
#define VFIO_H

#include <linux/types.h>
#include <linux/ioctl.h>

/* All request numbers are _IO(VFIO_TYPE, VFIO_BASE + n); the type is shared with iommufd. */
#define VFIO_TYPE (';')
#define VFIO_BASE 100

/* Header of a capability in an info struct. */
struct vfio_info_cap_header {
	__u16 id;
	__u16 version;
	__u32 next; /* offset of the next header from the start of the info struct, 0: last */
};

/* ---- Container: /dev/vfio/vfio --------------------------------------------------------------- */

/* VFIO_GET_API_VERSION returns this, or the program should give up. */
#define VFIO_API_VERSION 0
#define VFIO_GET_API_VERSION _IO(VFIO_TYPE, VFIO_BASE + 0)

/* VFIO_CHECK_EXTENSION: argument one of the numbers below; a result above 0 means supported. */
#define VFIO_CHECK_EXTENSION _IO(VFIO_TYPE, VFIO_BASE + 1)

/* VFIO_SET_IOMMU: argument one of the numbers named _IOMMU; a group must be in the container. */
#define VFIO_SET_IOMMU _IO(VFIO_TYPE, VFIO_BASE + 2)

#define VFIO_TYPE1_IOMMU 1		      /* type1; unmap may split mappings */
#define VFIO_SPAPR_TCE_IOMMU 2		      /* POWER */
#define VFIO_TYPE1v2_IOMMU 3		      /* type1; unmap takes whole mappings only */
#define VFIO_DMA_CC_IOMMU 4		      /* DMA is cache coherent whatever the device says */
#define VFIO_EEH 5			      /* POWER: error handling */
#define __VFIO_RESERVED_TYPE1_NESTING_IOMMU 6 /* withdrawn */
#define VFIO_SPAPR_TCE_v2_IOMMU 7	      /* POWER: memory is registered first */
#define VFIO_NOIOMMU_IOMMU 8		      /* no translation, no protection */
#define VFIO_UNMAP_ALL 9		      /* VFIO_DMA_UNMAP_FLAG_ALL works */
#define VFIO_UPDATE_VADDR 10		      /* the _FLAG_VADDR pair works */

/* ---- Group: /dev/vfio/N ---------------------------------------------------------------------- */

/* VFIO_GROUP_GET_STATUS */
struct vfio_group_status {
	__u32 argsz;
	__u32 flags; /* VFIO_GROUP_FLAGS_* */
};
#define VFIO_GROUP_FLAGS_VIABLE (1 << 0)	/* no device of it is used by another driver */
#define VFIO_GROUP_FLAGS_CONTAINER_SET (1 << 1) /* it is in a container */
#define VFIO_GROUP_GET_STATUS _IO(VFIO_TYPE, VFIO_BASE + 3)

/* Put into a container or an iommufd: argument is the address of an int holding its fd. */
#define VFIO_GROUP_SET_CONTAINER _IO(VFIO_TYPE, VFIO_BASE + 4)
/* Take out again; no device of the group may be open. No argument. */
#define VFIO_GROUP_UNSET_CONTAINER _IO(VFIO_TYPE, VFIO_BASE + 5)
/* Open a device: argument is its name, such as "0000:00:02.0", the result a new fd. */
#define VFIO_GROUP_GET_DEVICE_FD _IO(VFIO_TYPE, VFIO_BASE + 6)

/* ---- Device file: /dev/vfio/devices/vfioN ---------------------------------------------------- */

/* VFIO_DEVICE_BIND_IOMMUFD: take the device into an iommufd. First request on such a file. */
struct vfio_device_bind_iommufd {
	__u32 argsz;
	__u32 flags;		      /* VFIO_DEVICE_BIND_FLAG_* */
	__s32 iommufd;		      /* fd of an open /dev/iommu */
	__u32 out_devid;	      /* the device's id there */
	__aligned_u64 token_uuid_ptr; /* address of 16 bytes, with FLAG_TOKEN */
};
#define VFIO_DEVICE_BIND_FLAG_TOKEN (1 << 0) /* a VF token is given */
#define VFIO_DEVICE_BIND_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 18)

/* VFIO_DEVICE_ATTACH_IOMMUFD_PT: choose the address space of the device, or of one PASID. */
struct vfio_device_attach_iommufd_pt {
	__u32 argsz;
	__u32 flags; /* VFIO_DEVICE_ATTACH_* */
	__u32 pt_id; /* in: IOAS or HWPT, out: the HWPT in use */
	__u32 pasid; /* with ATTACH_PASID */
};
#define VFIO_DEVICE_ATTACH_PASID (1 << 0)
#define VFIO_DEVICE_ATTACH_IOMMUFD_PT _IO(VFIO_TYPE, VFIO_BASE + 19)

/* VFIO_DEVICE_DETACH_IOMMUFD_PT: leave it again; DMA is blocked from here on. */
struct vfio_device_detach_iommufd_pt {
	__u32 argsz;
	__u32 flags; /* VFIO_DEVICE_DETACH_* */
	__u32 pasid; /* with DETACH_PASID */
};
#define VFIO_DEVICE_DETACH_PASID (1 << 0)
#define VFIO_DEVICE_DETACH_IOMMUFD_PT _IO(VFIO_TYPE, VFIO_BASE + 20)

/* ---- Any device: description ----------------------------------------------------------------- */

/* VFIO_DEVICE_GET_INFO */
struct vfio_device_info {
	__u32 argsz;
	__u32 flags;	   /* VFIO_DEVICE_FLAGS_* */
	__u32 num_regions; /* region indexes are below this */
	__u32 num_irqs;	   /* interrupt indexes are below this */
	__u32 cap_offset;  /* with FLAGS_CAPS */
	__u32 pad;
};
#define VFIO_DEVICE_FLAGS_RESET (1 << 0) /* VFIO_DEVICE_RESET works */
#define VFIO_DEVICE_FLAGS_PCI (1 << 1)	 /* a vfio-pci device, and so on */
#define VFIO_DEVICE_FLAGS_PLATFORM (1 << 2)
#define VFIO_DEVICE_FLAGS_AMBA (1 << 3)
#define VFIO_DEVICE_FLAGS_CCW (1 << 4)
#define VFIO_DEVICE_FLAGS_AP (1 << 5)
#define VFIO_DEVICE_FLAGS_FSL_MC (1 << 6)
#define VFIO_DEVICE_FLAGS_CAPS (1 << 7) /* capabilities follow */
#define VFIO_DEVICE_FLAGS_CDX (1 << 8)
#define VFIO_DEVICE_GET_INFO _IO(VFIO_TYPE, VFIO_BASE + 7)

/* Content of a mediated device type's device_api attribute. */
#define VFIO_DEVICE_API_PCI_STRING "vfio-pci"
#define VFIO_DEVICE_API_PLATFORM_STRING "vfio-platform"
#define VFIO_DEVICE_API_AMBA_STRING "vfio-amba"
#define VFIO_DEVICE_API_CCW_STRING "vfio-ccw"
#define VFIO_DEVICE_API_AP_STRING "vfio-ap"

/* Capabilities of a device; 1 to 4 belong to s390 and have their structs in vfio_zdev.h. */
#define VFIO_DEVICE_INFO_CAP_ZPCI_BASE 1
#define VFIO_DEVICE_INFO_CAP_ZPCI_GROUP 2
#define VFIO_DEVICE_INFO_CAP_ZPCI_UTIL 3
#define VFIO_DEVICE_INFO_CAP_ZPCI_PFIP 4
#define VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP 5

/* Which PCIe atomic operations the root port completes for the device. */
struct vfio_device_info_cap_pci_atomic_comp {
	struct vfio_info_cap_header header;
	__u32 flags; /* VFIO_PCI_ATOMIC_COMP* */
	__u32 reserved;
};
#define VFIO_PCI_ATOMIC_COMP32 (1 << 0)
#define VFIO_PCI_ATOMIC_COMP64 (1 << 1)
#define VFIO_PCI_ATOMIC_COMP128 (1 << 2)

/* ---- Any device: regions --------------------------------------------------------------------- */

/* VFIO_DEVICE_GET_REGION_INFO */
struct vfio_region_info {
	__u32 argsz;
	__u32 flags;	      /* VFIO_REGION_INFO_FLAG_* */
	__u32 index;	      /* in: which region */
	__u32 cap_offset;     /* with FLAG_CAPS */
	__aligned_u64 size;   /* 0: the region does not exist */
	__aligned_u64 offset; /* where it starts in the device file */
};
#define VFIO_REGION_INFO_FLAG_READ (1 << 0)  /* read and pread work */
#define VFIO_REGION_INFO_FLAG_WRITE (1 << 1) /* write and pwrite work */
#define VFIO_REGION_INFO_FLAG_MMAP (1 << 2)  /* mmap works */
#define VFIO_REGION_INFO_FLAG_CAPS (1 << 3)  /* capabilities follow */
#define VFIO_DEVICE_GET_REGION_INFO _IO(VFIO_TYPE, VFIO_BASE + 8)

/* Capabilities of a region. */
#define VFIO_REGION_INFO_CAP_SPARSE_MMAP 1   /* only parts can be mapped */
#define VFIO_REGION_INFO_CAP_TYPE 2	     /* what a device-specific region is */
#define VFIO_REGION_INFO_CAP_MSIX_MAPPABLE 3 /* the MSI-X table may be mapped too; header only */
#define VFIO_REGION_INFO_CAP_NVLINK2_SSATGT 4
#define VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD 5

/* A part of a region that can be mapped. */
struct vfio_region_sparse_mmap_area {
	__aligned_u64 offset; /* from the start of the region */
	__aligned_u64 size;
};

/* VFIO_REGION_INFO_CAP_SPARSE_MMAP */
struct vfio_region_info_cap_sparse_mmap {
	struct vfio_info_cap_header header;
	__u32 nr_areas;
	__u32 reserved;
	struct vfio_region_sparse_mmap_area areas[];
};

/* VFIO_REGION_INFO_CAP_TYPE */
struct vfio_region_info_cap_type {
	struct vfio_info_cap_header header;
	__u32 type;    /* VFIO_REGION_TYPE_*, or a PCI vendor's */
	__u32 subtype; /* VFIO_REGION_SUBTYPE_*, by type */
};

/* VFIO_REGION_INFO_CAP_NVLINK2_SSATGT: where on the NVLink bus the device's memory is. */
struct vfio_region_info_cap_nvlink2_ssatgt {
	struct vfio_info_cap_header header;
	__aligned_u64 tgt;
};

/* VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD: speed of the NVLink. */
struct vfio_region_info_cap_nvlink2_lnkspd {
	struct vfio_info_cap_header header;
	__u32 link_speed;
	__u32 __pad;
};

/* Region types: this bit plus a PCI vendor id in the mask, or a generic type. */
#define VFIO_REGION_TYPE_PCI_VENDOR_TYPE (1 << 31)
#define VFIO_REGION_TYPE_PCI_VENDOR_MASK (0xffff)
#define VFIO_REGION_TYPE_GFX (1)
#define VFIO_REGION_TYPE_CCW (2)
#define VFIO_REGION_TYPE_MIGRATION_DEPRECATED (3)

/* Subtypes of vendor 8086 (Intel). */
#define VFIO_REGION_SUBTYPE_INTEL_IGD_OPREGION (1)
#define VFIO_REGION_SUBTYPE_INTEL_IGD_HOST_CFG (2)
#define VFIO_REGION_SUBTYPE_INTEL_IGD_LPC_CFG (3)
/* Subtype of vendor 10de (NVIDIA), and of vendor 1014 (IBM). */
#define VFIO_REGION_SUBTYPE_NVIDIA_NVLINK2_RAM (1)
#define VFIO_REGION_SUBTYPE_IBM_NVLINK2_ATSD (1)
/* Subtype of VFIO_REGION_TYPE_GFX. */
#define VFIO_REGION_SUBTYPE_GFX_EDID (1)
/* Subtypes of VFIO_REGION_TYPE_CCW; structs in vfio_ccw.h. */
#define VFIO_REGION_SUBTYPE_CCW_ASYNC_CMD (1)
#define VFIO_REGION_SUBTYPE_CCW_SCHIB (2)
#define VFIO_REGION_SUBTYPE_CCW_CRW (3)
/* Subtype of VFIO_REGION_TYPE_MIGRATION_DEPRECATED. */
#define VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED (1)

/* ---- Any device: interrupts and reset -------------------------------------------------------- */

/* VFIO_DEVICE_GET_IRQ_INFO */
struct vfio_irq_info {
	__u32 argsz;
	__u32 flags; /* VFIO_IRQ_INFO_* */
	__u32 index; /* in: which kind of interrupt */
	__u32 count; /* vectors of it, 0: not available */
};
#define VFIO_IRQ_INFO_EVENTFD (1 << 0)	  /* can signal eventfds */
#define VFIO_IRQ_INFO_MASKABLE (1 << 1)	  /* can be masked and unmasked */
#define VFIO_IRQ_INFO_AUTOMASKED (1 << 2) /* masks itself when it fires: a level interrupt */
#define VFIO_IRQ_INFO_NORESIZE (1 << 3)	  /* vectors can only be added after disabling all */
#define VFIO_DEVICE_GET_IRQ_INFO _IO(VFIO_TYPE, VFIO_BASE + 9)

/*
 * VFIO_DEVICE_SET_IRQS: act on the vectors start to start + count - 1 of one index. Flags hold one
 * DATA and one ACTION bit. TRIGGER with eventfds arms the vectors, without it fires them; count 0
 * with DATA_NONE and TRIGGER disables the whole index.
 */
struct vfio_irq_set {
	__u32 argsz; /* including data */
	__u32 flags; /* VFIO_IRQ_SET_* */
	__u32 index;
	__u32 start;
	__u32 count;
	__u8 data[]; /* nothing, count bytes or count 32-bit fds, by the DATA bit */
};
#define VFIO_IRQ_SET_DATA_NONE (1 << 0)	   /* all vectors in the span */
#define VFIO_IRQ_SET_DATA_BOOL (1 << 1)	   /* those whose byte is not 0 */
#define VFIO_IRQ_SET_DATA_EVENTFD (1 << 2) /* bind to eventfds, -1 unbinds */
#define VFIO_IRQ_SET_ACTION_MASK (1 << 3)
#define VFIO_IRQ_SET_ACTION_UNMASK (1 << 4)
#define VFIO_IRQ_SET_ACTION_TRIGGER (1 << 5)
#define VFIO_DEVICE_SET_IRQS _IO(VFIO_TYPE, VFIO_BASE + 10)

#define VFIO_IRQ_SET_DATA_TYPE_MASK \
	(VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_DATA_EVENTFD)
#define VFIO_IRQ_SET_ACTION_TYPE_MASK \
	(VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_ACTION_UNMASK | VFIO_IRQ_SET_ACTION_TRIGGER)

/* VFIO_DEVICE_RESET: reset the device alone. No argument. */
#define VFIO_DEVICE_RESET _IO(VFIO_TYPE, VFIO_BASE + 11)

/* ---- Index assignments of the buses ---------------------------------------------------------- */

/* Regions of vfio-pci. Device-specific ones have indexes from VFIO_PCI_NUM_REGIONS on. */
enum {
	VFIO_PCI_BAR0_REGION_INDEX,
	VFIO_PCI_BAR1_REGION_INDEX,
	VFIO_PCI_BAR2_REGION_INDEX,
	VFIO_PCI_BAR3_REGION_INDEX,
	VFIO_PCI_BAR4_REGION_INDEX,
	VFIO_PCI_BAR5_REGION_INDEX,
	VFIO_PCI_ROM_REGION_INDEX,
	VFIO_PCI_CONFIG_REGION_INDEX,
	VFIO_PCI_VGA_REGION_INDEX, /* legacy ranges, offset = address */
	VFIO_PCI_NUM_REGIONS = 9
};

/* Interrupts of vfio-pci. */
enum {
	VFIO_PCI_INTX_IRQ_INDEX,
	VFIO_PCI_MSI_IRQ_INDEX,
	VFIO_PCI_MSIX_IRQ_INDEX,
	VFIO_PCI_ERR_IRQ_INDEX, /* an uncorrectable error */
	VFIO_PCI_REQ_IRQ_INDEX, /* please give the device back */
	VFIO_PCI_NUM_IRQS
};

/* Regions of vfio-ccw (s390 channel I/O). */
enum { VFIO_CCW_CONFIG_REGION_INDEX, VFIO_CCW_NUM_REGIONS };

/* Interrupts of vfio-ccw. */
enum { VFIO_CCW_IO_IRQ_INDEX, VFIO_CCW_CRW_IRQ_INDEX, VFIO_CCW_REQ_IRQ_INDEX, VFIO_CCW_NUM_IRQS };

/* Interrupts of vfio-ap (s390 crypto). */
enum {
	VFIO_AP_REQ_IRQ_INDEX,
	VFIO_AP_CFG_CHG_IRQ_INDEX, /* the guest's configuration changed */
	VFIO_AP_NUM_IRQS
};

/* ---- PCI devices ----------------------------------------------------------------------------- */

/* One of the devices that a bus or slot reset would hit. */
struct vfio_pci_dependent_device {
	union {
		__u32 group_id; /* IOMMU group, for a device opened through its group */
		__u32 devid;	/* iommufd id or VFIO_PCI_DEVID_*, with FLAG_DEV_ID */
	};
	__u16 segment; /* PCI domain */
	__u8 bus;
	__u8 devfn; /* device << 3 | function */
};
#define VFIO_PCI_DEVID_OWNED 0	    /* not opened, but the group is the caller's */
#define VFIO_PCI_DEVID_NOT_OWNED -1 /* somebody else's: no reset possible */

/* VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: ENOSPC with the true count if the array is too short. */
struct vfio_pci_hot_reset_info {
	__u32 argsz;
	__u32 flags; /* VFIO_PCI_HOT_RESET_FLAG_* */
	__u32 count; /* out */
	struct vfio_pci_dependent_device devices[];
};
#define VFIO_PCI_HOT_RESET_FLAG_DEV_ID (1 << 0)	      /* entries carry devid */
#define VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED (1 << 1) /* all are the caller's: reset will do */
#define VFIO_DEVICE_GET_PCI_HOT_RESET_INFO _IO(VFIO_TYPE, VFIO_BASE + 12)

/*
 * VFIO_DEVICE_PCI_HOT_RESET: reset them all, proving ownership by group files or, with none, by
 * the iommufd the device is bound to.
 */
struct vfio_pci_hot_reset {
	__u32 argsz;
	__u32 flags; /* 0 */
	__u32 count;
	__s32 group_fds[];
};
#define VFIO_DEVICE_PCI_HOT_RESET _IO(VFIO_TYPE, VFIO_BASE + 13)

/*
 * VFIO_DEVICE_IOEVENTFD: have a register written by signalling an eventfd. The same offset, data
 * and size with fd -1 ends it.
 */
struct vfio_device_ioeventfd {
	__u32 argsz;
	__u32 flags;	      /* one of the sizes, VFIO_DEVICE_IOEVENTFD_* in bits */
	__aligned_u64 offset; /* of the register in the device file */
	__aligned_u64 data;   /* value to write */
	__s32 fd;
	__u32 reserved;
};
#define VFIO_DEVICE_IOEVENTFD_8 (1 << 0)
#define VFIO_DEVICE_IOEVENTFD_16 (1 << 1)
#define VFIO_DEVICE_IOEVENTFD_32 (1 << 2)
#define VFIO_DEVICE_IOEVENTFD_64 (1 << 3)
#define VFIO_DEVICE_IOEVENTFD_SIZE_MASK (0xf)
#define VFIO_DEVICE_IOEVENTFD _IO(VFIO_TYPE, VFIO_BASE + 16)

/* ---- Displays -------------------------------------------------------------------------------- */

/* VFIO_DEVICE_QUERY_GFX_PLANE: what a virtual display shows now. */
struct vfio_device_gfx_plane_info {
	__u32 argsz;
	__u32 flags;		      /* VFIO_GFX_PLANE_TYPE_* */
	__u32 drm_plane_type;	      /* in: DRM_PLANE_TYPE_* */
	__u32 drm_format;	      /* fourcc */
	__aligned_u64 drm_format_mod; /* modifier */
	__u32 width;		      /* pixels */
	__u32 height;		      /* pixels */
	__u32 stride;		      /* bytes from line to line */
	__u32 size;		      /* bytes, page aligned */
	__u32 x_pos;		      /* of a cursor plane, pixels */
	__u32 y_pos;
	__u32 x_hot; /* hotspot of a cursor plane, pixels; 0xffffffff if unknown */
	__u32 y_hot;
	union {
		__u32 region_index; /* with TYPE_REGION */
		__u32 dmabuf_id;    /* with TYPE_DMABUF: changes when the buffer does */
	};
	__u32 reserved;
};
#define VFIO_GFX_PLANE_TYPE_PROBE (1 << 0)  /* only ask whether the other type is supported */
#define VFIO_GFX_PLANE_TYPE_DMABUF (1 << 1) /* pixels are in a dma-buf */
#define VFIO_GFX_PLANE_TYPE_REGION (1 << 2) /* pixels are in a region */
#define VFIO_DEVICE_QUERY_GFX_PLANE _IO(VFIO_TYPE, VFIO_BASE + 14)

/* VFIO_DEVICE_GET_GFX_DMABUF: argument is the address of a __u32 dmabuf_id, the result an fd. */
#define VFIO_DEVICE_GET_GFX_DMABUF _IO(VFIO_TYPE, VFIO_BASE + 15)

/* Start of the EDID region; the EDID itself follows at edid_offset. */
struct vfio_region_gfx_edid {
	__u32 edid_offset;   /* read only */
	__u32 edid_max_size; /* read only */
	__u32 edid_size;     /* bytes of the EDID in force */
	__u32 max_xres;	     /* read only, pixels */
	__u32 max_yres;	     /* read only, pixels */
	__u32 link_state;    /* take the link down before and up after a change */
};
#define VFIO_DEVICE_GFX_LINK_STATE_UP 1
#define VFIO_DEVICE_GFX_LINK_STATE_DOWN 2

/* ---- Features -------------------------------------------------------------------------------- */

/*
 * VFIO_DEVICE_FEATURE: get, set or probe one of the optional abilities below. PROBE together with
 * GET or SET asks whether that direction works, and takes no data.
 */
struct vfio_device_feature {
	__u32 argsz; /* including data */
	__u32 flags; /* number of the feature and what to do */
	__u8 data[]; /* struct of the feature */
};
#define VFIO_DEVICE_FEATURE_MASK (0xffff) /* the number */
#define VFIO_DEVICE_FEATURE_GET (1 << 16)
#define VFIO_DEVICE_FEATURE_SET (1 << 17)
#define VFIO_DEVICE_FEATURE_PROBE (1 << 18)
#define VFIO_DEVICE_FEATURE _IO(VFIO_TYPE, VFIO_BASE + 17)

#define VFIO_DEVICE_FEATURE_PCI_VF_TOKEN (0)   /* SET: UUID of 16 bytes that VF users must know */
#define VFIO_DEVICE_FEATURE_MIGRATION 1	       /* GET: which kinds of migration */
#define VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE 2 /* GET, SET: the migration state */
#define VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY 3  /* SET: may sleep until the next access; no data */
#define VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP 4 /* SET: the same, with notice */
#define VFIO_DEVICE_FEATURE_LOW_POWER_EXIT 5		  /* SET: awake again; no data */
#define VFIO_DEVICE_FEATURE_DMA_LOGGING_START 6		  /* SET: device records its writes */
#define VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP 7		  /* SET: no more; no data */
#define VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT 8	  /* GET: read and clear the record */
#define VFIO_DEVICE_FEATURE_MIG_DATA_SIZE 9		  /* GET: how much there is to move */
#define VFIO_DEVICE_FEATURE_BUS_MASTER 10		  /* SET: switch bus mastering (CDX) */
#define VFIO_DEVICE_FEATURE_DMA_BUF 11		  /* GET: result is an fd of region memory */
#define VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 12 /* SET: fill flags of precopy info */
#define VFIO_DEVICE_FEATURE_ZPCI_ERROR 13	  /* GET: pending PCI error (s390) */

/* VFIO_DEVICE_FEATURE_MIGRATION */
struct vfio_device_feature_migration {
	__aligned_u64 flags; /* VFIO_MIGRATION_* */
};
#define VFIO_MIGRATION_STOP_COPY (1 << 0) /* STOP_COPY, STOP and RESUMING exist */
#define VFIO_MIGRATION_P2P (1 << 1)	  /* the _P2P states exist */
#define VFIO_MIGRATION_PRE_COPY (1 << 2)  /* the PRE_COPY states exist */

/* Migration states. */
enum vfio_device_mig_state {
	VFIO_DEVICE_STATE_ERROR = 0,	    /* only a reset helps */
	VFIO_DEVICE_STATE_STOP = 1,	    /* no DMA, no interrupts, no change of state */
	VFIO_DEVICE_STATE_RUNNING = 2,	    /* the normal state */
	VFIO_DEVICE_STATE_STOP_COPY = 3,    /* stopped, the rest of the data can be read */
	VFIO_DEVICE_STATE_RESUMING = 4,	    /* stopped, data is written in */
	VFIO_DEVICE_STATE_RUNNING_P2P = 5,  /* starts no DMA to other devices, but serves theirs */
	VFIO_DEVICE_STATE_PRE_COPY = 6,	    /* running, data can be read already */
	VFIO_DEVICE_STATE_PRE_COPY_P2P = 7, /* both */
	VFIO_DEVICE_STATE_NR,
};

/* VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE */
struct vfio_device_feature_mig_state {
	__u32 device_state; /* enum vfio_device_mig_state */
	__s32 data_fd;	    /* out: stream of migration data, -1 when the new state has none */
};

/* VFIO_MIG_GET_PRECOPY_INFO: on the data fd, an estimate of what is left in PRE_COPY. */
struct vfio_precopy_info {
	__u32 argsz;
	__u32 flags;		     /* out with MIG_PRECOPY_INFOv2, else reserved */
	__aligned_u64 initial_bytes; /* to be read before leaving PRE_COPY pays */
	__aligned_u64 dirty_bytes;   /* changed since */
};
#define VFIO_PRECOPY_INFO_REINIT (1 << 0) /* initial data starts anew */
#define VFIO_MIG_GET_PRECOPY_INFO _IO(VFIO_TYPE, VFIO_BASE + 21)

/* VFIO_DEVICE_FEATURE_MIG_DATA_SIZE: an estimate of STOP_COPY data if stopped now. */
struct vfio_device_feature_mig_data_size {
	__aligned_u64 stop_copy_length;
};

/* VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP */
struct vfio_device_low_power_entry_with_wakeup {
	__s32 wakeup_eventfd; /* signalled when the device woke for another reason than an access */
	__u32 reserved;
};

/* A span of IO virtual addresses to log. */
struct vfio_device_feature_dma_logging_range {
	__aligned_u64 iova;
	__aligned_u64 length;
};

/* VFIO_DEVICE_FEATURE_DMA_LOGGING_START */
struct vfio_device_feature_dma_logging_control {
	__aligned_u64 page_size; /* granularity wanted, a power of two */
	__u32 num_ranges;
	__u32 __reserved;
	__aligned_u64 ranges; /* address of the ranges */
};

/* VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT: sets bit n for a write to the n-th page from iova on. */
struct vfio_device_feature_dma_logging_report {
	__aligned_u64 iova;
	__aligned_u64 length;
	__aligned_u64 page_size; /* bytes a bit stands for */
	__aligned_u64 bitmap;	 /* address of 64-bit words */
};

/* VFIO_DEVICE_FEATURE_BUS_MASTER */
struct vfio_device_feature_bus_master {
	__u32 op; /* one of the two below */
};
#define VFIO_DEVICE_FEATURE_CLEAR_MASTER 0
#define VFIO_DEVICE_FEATURE_SET_MASTER 1

/* A part of a region; page aligned. */
struct vfio_region_dma_range {
	__u64 offset;
	__u64 length;
};

/* VFIO_DEVICE_FEATURE_DMA_BUF: export parts of a region to other devices. */
struct vfio_device_feature_dma_buf {
	__u32 region_index;
	__u32 open_flags; /* as for open(): O_CLOEXEC, access mode */
	__u32 flags;	  /* 0 */
	__u32 nr_ranges;
	struct vfio_region_dma_range dma_ranges[];
};

/*
 * VFIO_DEVICE_FEATURE_ZPCI_ERROR: where the error record goes, whose length the ZPCI_BASE
 * capability tells. ENOMSG when none is pending.
 */
struct vfio_device_feature_zpci_err {
	__aligned_u64 data;
};

/* ---- Migration, first version (withdrawn, kept for the names) ---------------------------------
 */

/* Start of the migration region. */
struct vfio_device_migration_info {
	__u32 device_state; /* VFIO_DEVICE_STATE_V1_* */
	__u32 reserved;
	__aligned_u64 pending_bytes;
	__aligned_u64 data_offset;
	__aligned_u64 data_size;
};
#define VFIO_DEVICE_STATE_V1_STOP (0)
#define VFIO_DEVICE_STATE_V1_RUNNING (1 << 0)
#define VFIO_DEVICE_STATE_V1_SAVING (1 << 1)
#define VFIO_DEVICE_STATE_V1_RESUMING (1 << 2)
#define VFIO_DEVICE_STATE_MASK                                                                    \
	(VFIO_DEVICE_STATE_V1_STOP | VFIO_DEVICE_STATE_V1_RUNNING | VFIO_DEVICE_STATE_V1_SAVING | \
	 VFIO_DEVICE_STATE_V1_RESUMING)

/* RESUMING goes with no other bit; together with SAVING alone it is the error state. */
#define VFIO_DEVICE_STATE_VALID(state)                 \
	(!(VFIO_DEVICE_STATE_V1_RESUMING & (state)) || \
	 (VFIO_DEVICE_STATE_MASK & (state)) == VFIO_DEVICE_STATE_V1_RESUMING)
#define VFIO_DEVICE_STATE_IS_ERROR(state)      \
	((VFIO_DEVICE_STATE_MASK & (state)) == \
	 (VFIO_DEVICE_STATE_V1_SAVING | VFIO_DEVICE_STATE_V1_RESUMING))
#define VFIO_DEVICE_STATE_SET_ERROR(state)                                   \
	((~VFIO_DEVICE_STATE_MASK & (state)) | VFIO_DEVICE_STATE_V1_SAVING | \
	 VFIO_DEVICE_STATE_V1_RESUMING)

/* ---- Container with a type1 IOMMU ------------------------------------------------------------ */

/* VFIO_IOMMU_GET_INFO */
struct vfio_iommu_type1_info {
	__u32 argsz;
	__u32 flags;		    /* VFIO_IOMMU_INFO_* */
	__aligned_u64 iova_pgsizes; /* bit n: mappings of 2^n bytes work */
	__u32 cap_offset;	    /* with INFO_CAPS */
	__u32 pad;
};
#define VFIO_IOMMU_INFO_PGSIZES (1 << 0) /* iova_pgsizes counts */
#define VFIO_IOMMU_INFO_CAPS (1 << 1)	 /* capabilities follow */
#define VFIO_IOMMU_GET_INFO _IO(VFIO_TYPE, VFIO_BASE + 12)

/* Its capabilities. */
#define VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE 1 /* usable IOVAs */
#define VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION 2  /* VFIO_IOMMU_DIRTY_PAGES works */
#define VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL 3      /* mappings that can still be made */

/* A span of IO virtual addresses, both ends included. */
struct vfio_iova_range {
	__u64 start;
	__u64 end;
};

/* VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE */
struct vfio_iommu_type1_info_cap_iova_range {
	struct vfio_info_cap_header header;
	__u32 nr_iovas;
	__u32 reserved;
	struct vfio_iova_range iova_ranges[];
};

/* VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION */
struct vfio_iommu_type1_info_cap_migration {
	struct vfio_info_cap_header header;
	__u32 flags;		     /* 0 */
	__u64 pgsize_bitmap;	     /* bit n: a bitmap can have pages of 2^n bytes */
	__u64 max_dirty_bitmap_size; /* bytes of bitmap in one call */
};

/* VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL */
struct vfio_iommu_type1_info_dma_avail {
	struct vfio_info_cap_header header;
	__u32 avail;
};

/* VFIO_IOMMU_MAP_DMA: let devices reach memory of the calling process. Never replaces. */
struct vfio_iommu_type1_dma_map {
	__u32 argsz;
	__u32 flags; /* VFIO_DMA_MAP_FLAG_* */
	__u64 vaddr; /* address of the memory */
	__u64 iova;
	__u64 size;
};
#define VFIO_DMA_MAP_FLAG_READ (1 << 0)	 /* devices may read */
#define VFIO_DMA_MAP_FLAG_WRITE (1 << 1) /* devices may write */
#define VFIO_DMA_MAP_FLAG_VADDR (1 << 2) /* give a mapping that lost it its address back */
#define VFIO_IOMMU_MAP_DMA _IO(VFIO_TYPE, VFIO_BASE + 13)

/* A bitmap in program memory. */
struct vfio_bitmap {
	__u64 pgsize; /* bytes a bit stands for */
	__u64 size;   /* bytes of the bitmap, a multiple of 8 */
	__u64 *data;
};

/* VFIO_IOMMU_UNMAP_DMA: remove the mappings in a range. */
struct vfio_iommu_type1_dma_unmap {
	__u32 argsz;
	__u32 flags; /* VFIO_DMA_UNMAP_FLAG_* */
	__u64 iova;
	__u64 size;  /* in: bytes to unmap, out: bytes that had been mapped */
	__u8 data[]; /* struct vfio_bitmap, with GET_DIRTY_BITMAP */
};
#define VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP (1 << 0) /* report writes to what goes */
#define VFIO_DMA_UNMAP_FLAG_ALL (1 << 1)	      /* everything; iova and size are 0 */
#define VFIO_DMA_UNMAP_FLAG_VADDR (1 << 2)	      /* keep the mapping, forget its address */
#define VFIO_IOMMU_UNMAP_DMA _IO(VFIO_TYPE, VFIO_BASE + 14)

/* Switch the container on and off; type1 knows no such step, POWER does. No argument. */
#define VFIO_IOMMU_ENABLE _IO(VFIO_TYPE, VFIO_BASE + 15)
#define VFIO_IOMMU_DISABLE _IO(VFIO_TYPE, VFIO_BASE + 16)

/* VFIO_IOMMU_DIRTY_PAGES: record writes of devices, or read and clear the record. */
struct vfio_iommu_type1_dirty_bitmap {
	__u32 argsz;
	__u32 flags; /* one of VFIO_IOMMU_DIRTY_PAGES_FLAG_* */
	__u8 data[]; /* the struct below, with GET_BITMAP */
};
#define VFIO_IOMMU_DIRTY_PAGES_FLAG_START (1 << 0)
#define VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP (1 << 1)
#define VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP (1 << 2)

/* Which range to read, and where to. */
struct vfio_iommu_type1_dirty_bitmap_get {
	__u64 iova;
	__u64 size;
	struct vfio_bitmap bitmap;
};
#define VFIO_IOMMU_DIRTY_PAGES _IO(VFIO_TYPE, VFIO_BASE + 17)

/* ---- Container with a POWER IOMMU ------------------------------------------------------------ */

/* How further DMA windows can be made. */
struct vfio_iommu_spapr_tce_ddw_info {
	__u64 pgsizes; /* page sizes, or-ed */
	__u32 max_dynamic_windows_supported;
	__u32 levels; /* most levels of a table */
};

/* VFIO_IOMMU_SPAPR_TCE_GET_INFO: the default window, and the means for more. */
struct vfio_iommu_spapr_tce_info {
	__u32 argsz;
	__u32 flags;		  /* VFIO_IOMMU_SPAPR_INFO_* */
	__u32 dma32_window_start; /* bus address */
	__u32 dma32_window_size;
	struct vfio_iommu_spapr_tce_ddw_info ddw; /* with INFO_DDW */
};
#define VFIO_IOMMU_SPAPR_INFO_DDW (1 << 0)
#define VFIO_IOMMU_SPAPR_TCE_GET_INFO _IO(VFIO_TYPE, VFIO_BASE + 12)

/* VFIO_IOMMU_SPAPR_(UN)REGISTER_MEMORY: pin memory before mapping it, unpin it afterwards. */
struct vfio_iommu_spapr_register_memory {
	__u32 argsz;
	__u32 flags; /* 0 */
	__u64 vaddr;
	__u64 size;
};
#define VFIO_IOMMU_SPAPR_REGISTER_MEMORY _IO(VFIO_TYPE, VFIO_BASE + 17)
#define VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY _IO(VFIO_TYPE, VFIO_BASE + 18)

/* VFIO_IOMMU_SPAPR_TCE_CREATE: make a DMA window. */
struct vfio_iommu_spapr_tce_create {
	__u32 argsz;
	__u32 flags;	  /* 0 */
	__u32 page_shift; /* pages of 2^page_shift bytes */
	__u32 __resv1;
	__u64 window_size;
	__u32 levels; /* of the table */
	__u32 __resv2;
	__u64 start_addr; /* out: bus address of the window */
};
#define VFIO_IOMMU_SPAPR_TCE_CREATE _IO(VFIO_TYPE, VFIO_BASE + 19)

/* VFIO_IOMMU_SPAPR_TCE_REMOVE: remove a DMA window. */
struct vfio_iommu_spapr_tce_remove {
	__u32 argsz;
	__u32 flags; /* 0 */
	__u64 start_addr;
};
#define VFIO_IOMMU_SPAPR_TCE_REMOVE _IO(VFIO_TYPE, VFIO_BASE + 20)

/* An error to inject. */
struct vfio_eeh_pe_err {
	__u32 type;
	__u32 func;
	__u64 addr;
	__u64 mask;
};

/* VFIO_EEH_PE_OP: error handling of a partitionable endpoint, as POWER firmware defines it. */
struct vfio_eeh_pe_op {
	__u32 argsz;
	__u32 flags; /* 0 */
	__u32 op;    /* VFIO_EEH_PE_*; GET_STATE returns one of VFIO_EEH_PE_STATE_* */
	union {
		struct vfio_eeh_pe_err err; /* for INJECT_ERR */
	};
};
#define VFIO_EEH_PE_DISABLE 0
#define VFIO_EEH_PE_ENABLE 1
#define VFIO_EEH_PE_UNFREEZE_IO 2
#define VFIO_EEH_PE_UNFREEZE_DMA 3
#define VFIO_EEH_PE_GET_STATE 4
#define VFIO_EEH_PE_STATE_NORMAL 0
#define VFIO_EEH_PE_STATE_RESET 1
#define VFIO_EEH_PE_STATE_STOPPED 2
#define VFIO_EEH_PE_STATE_STOPPED_DMA 4
#define VFIO_EEH_PE_STATE_UNAVAIL 5
#define VFIO_EEH_PE_RESET_DEACTIVATE 5
#define VFIO_EEH_PE_RESET_HOT 6
#define VFIO_EEH_PE_RESET_FUNDAMENTAL 7
#define VFIO_EEH_PE_CONFIGURE 8
#define VFIO_EEH_PE_INJECT_ERR 9
#define VFIO_EEH_PE_OP _IO(VFIO_TYPE, VFIO_BASE + 21)

#endif /* VFIO_H */
