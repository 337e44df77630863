/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_DRIVER_H
#define SWIOMMU_DRIVER_H

/*
 * Devices and the software IOMMU drivers behind which they sit.
 *
 * A struct device is whatever makes DMA: a VFIO device, an emulator's bus master. It belongs to one
 * group (the unit of isolation) and to one struct iommu_driver, which says what the IOMMU in front
 * of it can do. The engine keeps pointers to both between iommufd_device_bind() and _unbind(); the
 * host owns the memory.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum iommu_resv_type {
	IOMMU_RESV_RESERVED, /* for no use at all */
	IOMMU_RESV_DIRECT, /* the firmware wants it mapped to itself at all times: such a device cannot be bound */
	IOMMU_RESV_DIRECT_RELAXABLE, /* the same, until a driver has the device: it is of no account here */
	IOMMU_RESV_MSI, /* where the device's interrupts are written, past the page tables */
	/*
	 * Where the host may let doorbells for interrupts be mapped, see iommufd_sw_msi(). A device has at most one such region, and
	 * then none of the kind before.
	 */
	IOMMU_RESV_SW_MSI,
};

/* An IOVA range that devices cannot use for mappings. Inclusive. */
struct iommu_resv_region {
	uint64_t first, last;
	enum iommu_resv_type type;
};

#define IOMMU_RESV_MAX 32

struct device;
struct iommu_domain;
struct iommu_user_data;
struct iopf_fault;
struct iommu_page_response;
struct iommufd_viommu;
struct iommu_domain_ops;

/* The formats of page tables, those of real IOMMUs bit for bit. Smallest page, sizes of leaves, IOVA bits at most: */
enum iommu_pt_format {
	IOMMU_PT_ANY,	   /* AMDV1, or AMDV1_2K if the smallest page is less than 4 KiB */
	IOMMU_PT_AMDV1,	   /* AMD-Vi host table: 4 KiB, all powers of two but 512 GiB; 64 */
	IOMMU_PT_AMDV1_2K, /* the same with a smallest page of 2 KiB; 63 */
	IOMMU_PT_X86_64, /* VT-d first stage, AMD-Vi v2: 4 KiB, 2 MiB, 1 GiB; 56; no dirty tracking */
	IOMMU_PT_VTDSS,	  /* VT-d second stage: 4 KiB, 2 MiB, 1 GiB; 57 */
	IOMMU_PT_RISCV64, /* RISC-V: 4 KiB, 2 MiB, 1 GiB and up; 56; no dirty tracking */
};

/* What page tables can hold; as in struct iommu_driver. */
struct iommu_table_format {
	uint64_t pgsize_bitmap;
	uint64_t aperture_first, aperture_last;
	enum iommu_pt_format format;
	bool coherent; /* every leaf says so, where the format can */
};

/* A software IOMMU driver. All members are constant. */
struct iommu_driver {
	const char *name;
	uint64_t pgsize_bitmap; /* bit n: pages of 2^n bytes; the smallest is at most 4096 */
	uint64_t aperture_first, aperture_last; /* IOVAs its page tables can hold */
	/* Of these tables. Sizes that the format does not have are left out; the smallest must be one of it. */
	enum iommu_pt_format pt_format;
	uint32_t hwpt_flags; /* IOMMU_HWPT_ALLOC_... that its page tables can be made with */
	/*
	 * It can make all DMA snoop caches (VFIO_DMA_CC_IOMMU), but for devices with no_enforce: page tables made for the others are
	 * made so, before anything is mapped.
	 */
	bool enforces_coherency;
	const struct iommu_resv_region *resv; /* reserved for every device, e.g. an MSI window */
	unsigned int nr_resv;
	/* Further regions of one device: fills in at most IOMMU_RESV_MAX, returns how many, or a negative errno. Optional. */
	int (*get_resv_regions)(struct device *dev, struct iommu_resv_region *regions);
	/*
	 * What IOMMU_GET_HW_INFO tells of the device's IOMMU: a struct in `data` (IOMMU_DRIVER_HW_INFO_MAX bytes), whose length
	 * is returned. *type is the kind that was asked for, 0 for any, and becomes the kind of the struct (enum
	 * iommu_hw_info_type). -EOPNOTSUPP: there is none of this kind. NULL: nothing is told.
	 */
	int (*hw_info)(const struct device *dev, uint32_t *type, void *data);

	/* The rest is optional. Of the page tables that the engine makes from the IOAS; NULL: nothing is asked or told. */
	const struct iommu_domain_ops *domain_ops;
	/*
	 * A user makes a page table with data of the driver's: changes *format, which is what the members above say, to
	 * what the data asks for. -EOPNOTSUPP, -EINVAL, -EFAULT. NULL: data is refused.
	 */
	int (*table_format)(struct device *dev, const struct iommu_user_data *data,
			    struct iommu_table_format *format);
	/*
	 * A device comes, before its first binding takes effect, and goes, after its last has ended: what the driver must remember of
	 * it goes to dev->iommu_priv. One call at a time per group. An error of the first fails the binding.
	 */
	int (*probe_device)(struct device *dev);
	void (*release_device)(struct device *dev);
	/* Where a device goes when it is detached; it needs set_dev_pasid for any use of PASIDs. */
	struct iommu_domain *blocked_domain;
	/*
	 * A translation that a guest owns, on top of `parent`, which was made with NEST_PARENT for this driver. flags: of
	 * IOMMU_HWPT_ALLOC only PASID can be set. ERR_PTR(-errno) on failure.
	 */
	struct iommu_domain *(*domain_alloc_nested)(struct device *dev, struct iommu_domain *parent,
						    uint32_t flags,
						    const struct iommu_user_data *data);
	/* Requests with a PASID that has no attachment go to a nested domain of the whole device. */
	bool user_pasid_table;
	/* The answer to a page request, once for each group that was reported. Must not call back. */
	void (*page_response)(struct device *dev, const struct iopf_fault *evt,
			      const struct iommu_page_response *resp);
	/* The size of the driver's struct for a vIOMMU of a type, which begins with struct iommufd_viommu; 0: no such type. */
	size_t (*get_viommu_size)(struct device *dev, uint32_t type);
	/* Fills in the driver's part and viommu->ops; `data` may be NULL. Errors go to the user. */
	int (*viommu_init)(struct iommufd_viommu *viommu, struct iommu_domain *parent,
			   const struct iommu_user_data *data);
};

#define IOMMU_DRIVER_HW_INFO_MAX 64

/*
 * The driver that built-in devices use: 4 KiB pages and larger, a 48-bit aperture, the x86 MSI window
 * 0xfee00000-0xfeefffff reserved.
 */
extern const struct iommu_driver iommu_generic_driver;

/*
 * A set of devices that cannot be isolated from each other: its DMA is owned by one context at a
 * time. Made and freed by the host; initialise with iommu_group_init().
 */
struct iommu_group {
	unsigned int id; /* the number in /sys/kernel/iommu_groups */
	/* The engine's: who owns the DMA, counted per bound device; guarded by lock. */
	pthread_mutex_t lock;
	const void *owner;
	unsigned int owner_count;
	/* Its devices can raise each other's, or the host's, interrupts; set by the host before they are bound. */
	bool unsafe_interrupts;
};

/* 0 or -ENOMEM. */
int iommu_group_init(struct iommu_group *group, unsigned int id);
/* No device of the group may be bound. */
void iommu_group_fini(struct iommu_group *group);
/*
 * Claims the group's DMA for `owner`, a cookie: from now on devices of the group can be bound to the context with that
 * address only. -EPERM: it has an owner already.
 */
int iommu_group_claim_dma_owner(struct iommu_group *group, const void *owner);
void iommu_group_release_dma_owner(struct iommu_group *group);
/* Whether somebody owns the group's DMA: who has claimed it, or a context to which a device is bound. */
bool iommu_group_dma_owner_claimed(struct iommu_group *group);

struct device {
	const char *name; /* for messages: the BDF of a PCI device */
	struct iommu_group *group;
	const struct iommu_driver *iommu;
	/*
	 * Its IOMMU can record what it writes: page tables can be made with DIRTY_TRACKING for it, and it can be attached to
	 * such. The engine does the recording, in units of the entries that a page table of the driver would have.
	 */
	bool dirty_tracking;
	/* PASIDs that it can tag its requests with are below this; 0: it has none. */
	uint32_t max_pasids;
	bool incoherent; /* its DMA does not see the caches of processors: it cannot be bound */
	bool no_enforce; /* its IOMMU cannot make its DMA snoop caches, whatever the driver can */
	bool is_vf;	 /* PCI: a virtual function */
	bool pasid_exec; /* PCI: requests with a PASID can be for instructions */
	bool pasid_priv; /* PCI: requests with a PASID can be privileged */
	bool ats;	 /* PCI: it asks its IOMMU for translations */
	bool pri;	 /* PCI: it asks for pages that are missing, and can wait for them */
	/*
	 * A write of the device has reached a doorbell that iommufd_sw_msi() has mapped: `address` is what that was given. Called from
	 * the thread that does the DMA; must not block, nor call the engine. NULL: such writes are faults.
	 */
	void (*doorbell)(struct device *dev, uint64_t address, const void *data, size_t len);
	/*
	 * Which of the driver's IOMMUs it is behind, for comparison only: a vIOMMU is for devices behind one. NULL is one too.
	 */
	const void *iommu_instance;
	void *iommu_priv;      /* the driver's; NULL at first */
	unsigned int bindings; /* the engine's; 0 at first */
	void *engine;	       /* the engine's while it is bound; NULL at first */
};

/* ---- domains ------------------------------------------------------------------------------------ */

enum iommu_domain_type {
	IOMMU_DOMAIN_BLOCKED,
	IOMMU_DOMAIN_PAGING, /* mirrors an IOAS */
	IOMMU_DOMAIN_NESTED, /* a guest's, on top of one that mirrors an IOAS */
};

/* What a device, or one PASID of it, can be attached to. A driver's own struct of a nested one embeds it. */
struct iommu_domain {
	enum iommu_domain_type type;
	const struct iommu_domain_ops *ops;
	uint32_t flags; /* of a paging domain: IOMMU_HWPT_ALLOC_... that it was made with */
	bool enforced;	/* of a paging domain: DMA through it snoops caches; set by the engine */
	bool takes_iopf; /* page requests of what is attached to it have a taker; set by the engine */
	void *engine;	 /* the engine's */
};

/* One translation by a nested domain. */
struct iommu_walk;

/* What iommu_domain_ops.translate finds. */
struct iommu_translation {
	uint64_t addr;	       /* in the parent: where the input address leads */
	unsigned int size_lg2; /* the same holds for the aligned 1 << size_lg2 bytes around it */
	uint32_t perm;	       /* IOMMU_FAULT_PERM_READ, _WRITE: what it may be remembered for */
};

struct iommu_user_data_array;

/*
 * The first two are called one at a time per group; `old` is where the device (or PASID) was, NULL: nowhere. On
 * failure it stays there. -EINVAL: does not fit this device, so that another domain is tried.
 */
struct iommu_domain_ops {
	int (*attach_dev)(struct iommu_domain *domain, struct device *dev,
			  struct iommu_domain *old);
	int (*set_dev_pasid)(struct iommu_domain *domain, struct device *dev, uint32_t pasid,
			     struct iommu_domain *old);
	/*
	 * Of a paging domain for a device whose DMA can be made to snoop: makes it so; called once, before anything is mapped.
	 * False: it cannot, which fails the allocation with -EINVAL. NULL: nothing has to be done for it.
	 */
	bool (*enforce_cache_coherency)(struct iommu_domain *domain);
	/* IOMMU_HWPT_INVALIDATE on a nested domain: stops at the first bad entry, entry_num becomes how many were done. */
	int (*cache_invalidate_user)(struct iommu_domain *domain,
				     struct iommu_user_data_array *array);
	void (*free)(struct iommu_domain *domain); /* of nested ones */
	/*
	 * Of a nested domain: where `iova` leads for a request that wants `perm` (IOMMU_FAULT_PERM_READ or _WRITE; _PRIV beside it:
	 * a privileged request). Reads the guest's tables with iommu_walk_load(). Answers are remembered until
	 * iommu_domain_flush(), or an unmap of the parent. From any thread, also at once; must not block but in the functions
	 * below. -ENOENT: not there, -EPERM: not allowed; these are page requests if the device can make them. -EFAULT: the guest's
	 * table is broken. NULL: addresses of the domain are those of the parent.
	 */
	int (*translate)(struct iommu_domain *domain, struct iommu_walk *walk, uint64_t iova,
			 uint32_t perm, struct iommu_translation *out);
};

/*
 * The word at an address of the parent, a multiple of 8; or made `value` of `old`, if it is that (*done), as a device that sets
 * accessed and dirty bits does it. Only inside translate(). -EFAULT: not mapped in the parent, or read-only.
 */
int iommu_walk_load(struct iommu_walk *walk, uint64_t addr, uint64_t *value);
int iommu_walk_swap(struct iommu_walk *walk, uint64_t addr, uint64_t old, uint64_t value,
		    bool *done);
/* Forgets what was translated by a nested domain. When it returns, no DMA uses that any more. */
void iommu_domain_flush(struct iommu_domain *domain);

/*
 * Where `iova` is by a paging domain (the engine's, see struct iommu_domain): a physical address in the sense of the
 * context's page tables, which is a number and nothing to be followed. 0: nowhere, or not a paging domain. Any thread; not
 * from domain_ops.
 */
uint64_t iommu_iova_to_phys(struct iommu_domain *domain, uint64_t iova);

/* ---- interrupts --------------------------------------------------------------------------------- */

/* A message that a device is to be given, as what to write where. */
struct msi_desc {
	struct device *dev;
	uint64_t address; /* out: the IOVA */
};

/*
 * A bound device shall write its interrupts to the doorbell at the physical address `msi_addr`: makes that reachable in the
 * SW_MSI window of the device, in what it is attached to, and says where. One doorbell has one IOVA in all page tables of the
 * context that devices with the same window use, also in those that devices are attached to later. A device that is not
 * attached to `domain` (NULL: to whatever it is) as a whole, or has no window: desc->address is msi_addr. -EOVERFLOW: the context
 * has 64 doorbells; -ERANGE: no doorbell can be there; -ENOMEM. Not from a callback of the driver.
 */
int iommufd_sw_msi(struct iommu_domain *domain, struct msi_desc *desc, uint64_t msi_addr);

/* ---- what users pass to drivers ----------------------------------------------------------------- */

/* A driver's struct in the user's memory. */
struct iommu_user_data {
	uint32_t type;
	uint64_t uptr;
	size_t len;
	void *call; /* the engine's */
};

struct iommu_user_data_array {
	uint32_t type;
	uint64_t uptr;
	size_t entry_len;
	uint32_t entry_num;
	void *call;
};

/*
 * Copies a struct of `len` bytes in; the user's may be shorter, down to min_len, and is then filled with zeros.
 * -EINVAL: another type or length; -EFAULT.
 */
int __iommu_copy_struct_from_user(void *dst, const struct iommu_user_data *src, uint32_t type,
				  size_t min_len, size_t len);
/* The other way round; writes no more than the user has room for. */
int __iommu_copy_struct_to_user(const struct iommu_user_data *dst, const void *src, uint32_t type,
				size_t min_len, size_t len);
/* Entry `index`; lengths as above. */
int __iommu_copy_struct_from_user_array(void *dst, const struct iommu_user_data_array *src,
					uint32_t type, uint32_t index, size_t min_len, size_t len);
/*
 * All entries, `entry_size` bytes each at `dst`. Shorter ones are filled with zeros, of longer ones the rest must be zero
 * (-E2BIG). -EINVAL: another type, or no entry.
 */
int iommu_copy_struct_from_full_user_array(void *dst, size_t entry_size,
					   const struct iommu_user_data_array *src, uint32_t type);

#define __IOMMU_END_OF(type, member) (offsetof(type, member) + sizeof(((type *)0)->member))
#define iommu_copy_struct_from_user(dst, src, type, min_last) \
	__iommu_copy_struct_from_user(                        \
		dst, src, type, __IOMMU_END_OF(__typeof__(*(dst)), min_last), sizeof(*(dst)))
#define iommu_copy_struct_to_user(dst, src, type, min_last)                                       \
	__iommu_copy_struct_to_user(dst, src, type, __IOMMU_END_OF(__typeof__(*(src)), min_last), \
				    sizeof(*(src)))
#define iommu_copy_struct_from_user_array(dst, src, type, index, min_last)                \
	__iommu_copy_struct_from_user_array(dst, src, type, index,                        \
					    __IOMMU_END_OF(__typeof__(*(dst)), min_last), \
					    sizeof(*(dst)))

/* ---- page requests ------------------------------------------------------------------------------- */

enum {
	IOMMU_FAULT_PAGE_REQUEST_PASID_VALID = 1 << 0,
	IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE = 1 << 1,
};

/* Bits of iommu_fault_page_request.perm: what the device wants to do. */
enum {
	IOMMU_FAULT_PERM_READ = 1 << 0,
	IOMMU_FAULT_PERM_WRITE = 1 << 1,
	IOMMU_FAULT_PERM_EXEC = 1 << 2,
	IOMMU_FAULT_PERM_PRIV = 1 << 3,
};

struct iommu_fault_page_request {
	uint32_t flags;
	uint32_t pasid;
	uint32_t grpid;
	uint32_t perm; /* IOMMU_FAULT_PERM_... */
	uint64_t addr;
};

struct iopf_fault {
	struct iommu_fault_page_request prm;
};

enum iommu_page_response_code {
	IOMMU_PAGE_RESP_SUCCESS,
	IOMMU_PAGE_RESP_INVALID,
	IOMMU_PAGE_RESP_FAILURE,
};

struct iommu_page_response {
	uint32_t pasid;
	uint32_t grpid;
	enum iommu_page_response_code code;
};

/*
 * A bound device lets page requests through, from attach_dev on until it takes that back; counted by the driver. -ENODEV: the
 * driver cannot be answered; -EBUSY: it does already. Taking it back drops requests whose group is incomplete.
 */
int iopf_queue_add_device(struct device *dev);
void iopf_queue_remove_device(struct device *dev);
/* Drops the requests of incomplete groups. */
void iopf_queue_discard_partial(struct device *dev);
/*
 * A page request of a bound device. 0: it will be answered, by page_response(), when its group is complete. -EINVAL:
 * nobody takes it; answered as invalid already if it is the last of its group. -ENOMEM. From any thread while the device is bound.
 */
int iommu_report_device_fault(struct device *dev, const struct iopf_fault *evt);

#ifdef __cplusplus
}
#endif
#endif
