/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_CTX_H
#define SWIOMMU_CORE_CTX_H

/* The context behind one open of /dev/iommu: an object table, options, and a way to tell its host. */

#include <swiommu/iommufd.h>

#include "base/log.h"
#include "core/object.h"
#include "core/sw_msi.h"

struct iommufd_ctx {
	_Atomic unsigned int refs;
	struct obj_table table;
	_Atomic bool rlimit_process; /* RLIMIT_MODE 1: account to the process; else to the user */
	struct obj *compat_ioas;     /* of the VFIO container ioctls; no reference; table's lock */
	bool noiommu;		     /* devices without an IOMMU can be bound; immutable */
	_Atomic bool unsafe_interrupts;
	struct sw_msi sw_msi;
	bool no_iommu; /* VFIO no-iommu mode, entered for good; table's lock */
	struct swiommu_test_abi
		*test_abi;	       /* IOMMU_TEST_CMD is answered; NULL: it is not; immutable */
	struct mem_accounts *accounts; /* counted; immutable */
	struct mem_owners *owners;     /* whose memory is mapped; immutable */
	_Atomic(uint64_t) flushes;     /* of nested domains, so far; see dma_nested.c */
	pthread_mutex_t walk_lock;     /* a leaf: see iommu_walk_swap() */
	_Atomic uint64_t page_tables;  /* how many have been made */
	struct phys_space *phys;       /* counted; where backings are in page tables; immutable */
	struct swiommu_regions
		*_Atomic regions; /* NULL until needed; then constant. Set under the table's lock */
	bool own_regions;	  /* destroyed with the context */
	struct swiommu_hooks hooks; /* immutable */
	struct swi_log log;	    /* to hooks.log */
};

#endif
