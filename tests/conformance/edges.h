/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CONFORMANCE_EDGES_H
#define TESTS_CONFORMANCE_EDGES_H

/*
 * What the cases of devices.md 9 have in common (their ids begin with "d9."): mock devices of the test ABI, which
 * every front end that knows IOMMU_TEST_CMD has, and the ioctls on them.
 */

#include "suite.h"

#define NEST IOMMU_HWPT_ALLOC_NEST_PARENT
#define DIRTY IOMMU_HWPT_ALLOC_DIRTY_TRACKING
#define FAULT IOMMU_HWPT_FAULT_ID_VALID
#define PASID IOMMU_HWPT_ALLOC_PASID

#define B MOCK_FIRST
#define NOBODY 0x7ffffff0u /* an ID that no object has */

struct tdev {
	struct ctx *c;
	uint32_t stdev, hwpt, idev;
};

/* A new IOAS with a device behind its automatic HWPT: the state "d attached to io" of the table. */
struct edge {
	struct ctx *c;
	uint32_t io;
	struct tdev d;
};

void edge_init(struct ctx *c, struct edge *e, uint32_t dev_flags); /* must succeed, or skips */
long tdev_try(struct ctx *c, uint32_t pt, uint32_t flags, struct tdev *out);
void tdev_add(struct ctx *c, uint32_t pt, uint32_t flags, struct tdev *out); /* must succeed */
long tdev_free(struct tdev *d);
/* `*pt`: also what it is attached to then. */
long tdev_replace(struct tdev *d, uint32_t *pt);
long tdev_move(struct tdev *d, uint32_t pt); /* the same without the output */
/* PASID 0: the device as a whole. */
long pasid_attach(struct tdev *d, uint32_t pasid, uint32_t pt);
long pasid_replace(struct tdev *d, uint32_t pasid, uint32_t pt);
long pasid_detach(struct tdev *d, uint32_t pasid);
long pasid_check(struct tdev *d, uint32_t pasid,
		 uint32_t hwpt); /* 0: attached there; hwpt 0: nowhere */

/* The next ID: what the next object gets. */
uint32_t next_id(struct ctx *c);
/* Whether the IOVAs of an IOAS are exactly [first, last], in units of `align`. */
void check_range(struct ctx *c, uint32_t ioas, uint64_t first, uint64_t last, uint64_t align);

/* HWPTs: NULL data makes a table without any; `*id` is written on success only. */
long hwpt_try(struct tdev *d, uint32_t pt, uint32_t flags, uint32_t *id);
uint32_t hwpt_new(struct tdev *d, uint32_t pt, uint32_t flags); /* must succeed */
long hwpt_fault(struct tdev *d, uint32_t pt, uint32_t flags, uint32_t fault, uint32_t *id);
long hwpt_data(struct tdev *d, uint32_t pt, uint32_t flags, uint32_t type, const void *data,
	       uint32_t len, uint32_t *id);
uint32_t nested_new(struct tdev *d, uint32_t parent, uint32_t flags); /* must succeed */

long fault_queue(struct ctx *c, uint32_t *id, int *fd);

#endif
