/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_FUZZ_IOCTL_WORLD_H
#define SWIOMMU_FUZZ_IOCTL_WORLD_H

/*
 * The world of fuzz_ioctl.c, and the steps that can be taken in it. Each step reads what it does from the input.
 */

#include "check.h"

#define NR_CTX 3u
#define TEST_CTX 2u /* has the test ABI */
#define NR_DEVICES 4u
#define NR_GROUPS 3u
#define NR_ACCESSES 3u
#define NR_PINS 64u

struct fake_device {
	struct device dev;
	struct iommufd_device *idev; /* NULL: not bound */
	struct ioas **ioas;	     /* of its group: what its attached members use */
	bool attached;
	struct swiommu_dma *dma;
};

struct fake_access {
	struct world *world;
	struct iommufd_access *access; /* NULL: none */
	unsigned int ctx;
	bool stubborn; /* ignores callbacks, but for those that end its attachment */
};

struct world {
	struct client client;
	struct swiommu_files *files;
	struct swiommu_test_abi *abi;
	struct mem_accounts *accounts;
	struct iommufd_ctx *ctx[NR_CTX];
	struct iommu_group group[NR_GROUPS];
	struct ioas *group_ioas[NR_GROUPS];
	struct fake_device device[NR_DEVICES];
	struct fake_access access[NR_ACCESSES];
	struct known_pin pins[NR_PINS];
	const struct iommufd_access *pinner[NR_PINS];
	unsigned int nr_pins;
	bool unknown_pins;
	unsigned int fail_next; /* the failure point that fails in the next step; 0: none */
	struct input *in;
};

/* ---- ioctl_calls.c: what a client does -------------------------------------------------------------- */

void do_alloc(struct world *w);
void do_destroy(struct world *w);
void do_map(struct world *w);
void do_map_file(struct world *w);
void do_copy(struct world *w);
void do_unmap(struct world *w);
void do_ranges(struct world *w);
void do_option(struct world *w);
void do_hwpt(struct world *w);
void do_hw_info(struct world *w);
void do_compat(struct world *w);
void do_vfio(struct world *w);
void do_raw(struct world *w);
void do_virtual(struct world *w);
void do_test(struct world *w);
void do_change_process(struct world *w);

/* Makes one of each object that only the mock IOMMU offers, as far as the engine has them. */
void furnish_virtual(struct world *w);
unsigned int take_ctx(struct world *w);
/* An ID of the context: an IOAS, mostly. */
uint32_t take_ioas(struct world *w, unsigned int ctx);
/* What can be attached to, mostly. */
uint32_t take_pt(struct world *w, struct iommufd_ctx *ctx);
/* An IOVA and a length; mostly of something that is mapped, or beside that. */
void take_range(struct world *w, unsigned int ctx, uint64_t *iova, uint64_t *length);

/* ---- ioctl_drivers.c: what drivers do --------------------------------------------------------------- */

void do_bind(struct world *w);
void do_attach(struct world *w);
void do_dma(struct world *w);
void do_access(struct world *w);
void do_pin(struct world *w);
void do_rw(struct world *w);

/* Ends what the device or access does, and it. */
void leave(struct fake_device *d);
void drop_access(struct fake_access *a);

#endif
