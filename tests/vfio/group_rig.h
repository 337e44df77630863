/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_TESTS_VFIO_GROUP_RIG_H
#define SWIOMMU_TESTS_VFIO_GROUP_RIG_H

/*
 * The rig with groups and containers: two groups. The first has two devices in one slot (the rig's own, and a
 * mate) and one in another slot, which it shares with the one device of the second group.
 */

#include "rig.h"
#include "vfio/group.h"

enum { MINE, MATE, OTHER, EXTRA, NR_DEVICES };

/* Numbers by which the client knows its files. RIG_CTX_FD is the rig's iommufd. */
#define CONTAINER_FD 7100 /* and CONTAINER_FD + 1 */
#define GROUP_FD 7200	  /* and GROUP_FD + 1 */

/*
 * Where the client has "mapped" device OTHER: the last two pages of BAR0, of which one is trapped and one shared,
 * and one beyond its end. There is no memory.
 */
#define BAR_ADDRESS 0x2000ull
#define BAR_MAPPED 0x3000ull
#define BAR_FROM 0xe000

struct group_rig {
	struct rig r; /* first */
	int (*rig_get_ctx)(struct swiommu_caller *c, int fd, struct iommufd_ctx **out);
	struct vfio_system *sys;
	struct iommu_group other_group;
	struct vfio_device *devices[NR_DEVICES];
	struct vfio_model models[NR_DEVICES];
	struct vfio_container *containers[2];
	struct vfio_group_file *groups[2]; /* NULL while they are not open */
};

#define MINE_BDF "0000:5e:00.0"
#define MATE_BDF "0000:5e:00.1"
#define OTHER_BDF "0000:5e:01.0"
#define EXTRA_BDF "0000:5e:01.3"

/* max_mappings as of struct vfio_system_options. The containers are open, the groups are not. */
void group_rig_open(struct group_rig *g, unsigned int max_mappings);
/* All devices but MINE are emulated. */
void group_rig_open_emulated(struct group_rig *g);
/* Device OTHER, and so the second group, has no IOMMU. */
void group_rig_open_noiommu(struct group_rig *g);
void group_rig_close(struct group_rig *g);
/* Setup and teardown of a test: *state is a rig as of group_rig_open(). */
int group_rig_setup(void **state);
int group_rig_teardown(void **state);

int group_open(struct group_rig *g, unsigned int which); /* as open() */
void group_close(struct group_rig *g, unsigned int which);
long group_ioctl(struct group_rig *g, unsigned int which, unsigned int cmd, void *arg);
long container_ioctl(struct group_rig *g, unsigned int which, unsigned int cmd, void *arg);
long set_container(struct group_rig *g, unsigned int which, int fd);
/* GET_DEVICE_FD; *out is to be closed with vfio_file_close(). */
int get_device(struct group_rig *g, unsigned int which, const char *name, struct vfio_file **out);
/* Group 0 in container 0, which has the type. */
void group_ready(struct group_rig *g, unsigned long type);

long map_dma(struct group_rig *g, void *p, uint64_t size, uint64_t iova, uint32_t flags);
/* *size: in, and out. */
long unmap_dma(struct group_rig *g, uint64_t iova, uint64_t *size, uint32_t flags);
#define RW (VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)

/* What DMA of a started device gives for one byte at an IOVA. */
long probe_dma(struct vfio_device *dev, uint64_t iova, uint8_t *byte);

#endif
