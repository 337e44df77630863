/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VFIO_USER_PROTO_H
#define SWIOMMU_VFIO_USER_PROTO_H

/*
 * The vfio-user protocol on the wire (spec vfio.md 6.1 to 6.4): host byte order, no padding. Flags and
 * structures that it shares with VFIO are those of <linux/vfio.h>.
 */

#include <stdint.h>

enum vu_command {
	VU_VERSION = 1,
	VU_DMA_MAP,
	VU_DMA_UNMAP,
	VU_DEVICE_GET_INFO,
	VU_DEVICE_GET_REGION_INFO,
	VU_DEVICE_GET_REGION_IO_FDS,
	VU_DEVICE_GET_IRQ_INFO,
	VU_DEVICE_SET_IRQS,
	VU_REGION_READ,
	VU_REGION_WRITE,
	VU_DMA_READ,  /* from the server */
	VU_DMA_WRITE, /* from the server */
	VU_DEVICE_RESET,
	VU_REGION_WRITE_MULTI = 15,
	VU_DEVICE_FEATURE,
	VU_MIG_DATA_READ,
	VU_MIG_DATA_WRITE,
};

#define VU_TYPE_MASK 0xfu
#define VU_TYPE_COMMAND 0u
#define VU_TYPE_REPLY 1u
#define VU_NO_REPLY 0x10u
#define VU_ERROR 0x20u

struct vu_header {
	uint16_t id;
	uint16_t cmd;
	uint32_t size; /* of the whole message */
	uint32_t flags;
	uint32_t error; /* an errno, with VU_ERROR */
};

#define VU_MAJOR 0
#define VU_MINOR 2 /* the newest that we know */

struct vu_version {
	uint16_t major, minor;
	/* JSON text and a NUL follow. */
};

#define VU_DMA_MAP_READ 1u /* the device may read */
#define VU_DMA_MAP_WRITE 2u

struct vu_dma_map {
	uint32_t argsz, flags;
	uint64_t offset, address, size;
};

struct vu_dma_unmap {
	uint32_t argsz, flags;
	uint64_t address, size;
};

/* Of REGION_READ and REGION_WRITE; the bytes follow. */
struct vu_region_access {
	uint64_t offset;
	uint32_t region, count;
};

/* Of DMA_READ and DMA_WRITE; the bytes follow. */
struct vu_dma_access {
	uint64_t address, count;
};

/* What the other side takes if it does not say. */
#define VU_DEFAULT_MSG_FDS 1u
#define VU_DEFAULT_DATA_XFER (1u << 20)
#define VU_DEFAULT_DMA_MAPS 65535u
#define VU_DEFAULT_PGSIZES 4096u

#endif
