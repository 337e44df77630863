// SPDX-License-Identifier: MIT
/*
 * I/O commands (NVMe 1.4, 6): all of them are carried out at once, by copies between the disk's mapping and the client.
 */
#include "vfio/models/nvme/nvme.h"

#include <endian.h>

#define DSM_DEALLOCATE (1u << 2)
#define DSM_RANGES_MAX 256u

struct dsm_range {
	uint32_t attributes;
	uint32_t blocks;
	uint64_t lba;
};

/* The blocks of a command with SLBA in CDW10-11 and NLB (0 is one) in CDW12, as bytes of the disk. */
struct extent {
	uint64_t offset, length;
};

static uint16_t find_extent(const struct nvme *n, uint32_t nsid, uint64_t lba, uint64_t blocks,
			    struct extent *out)
{
	out->offset = out->length = 0;
	if (lba > n->blocks || blocks > n->blocks - lba)
		return NVME_LBA_RANGE | NVME_DNR;
	out->offset = ((nsid - 1) * n->blocks + lba) * n->block_size;
	out->length = blocks * n->block_size;
	return NVME_SUCCESS;
}

static uint64_t start_lba(const struct nvme_command *cmd)
{
	return cmd->cdw10 | (uint64_t)cmd->cdw11 << 32;
}

static uint64_t nr_blocks(const struct nvme_command *cmd)
{
	return (cmd->cdw12 & 0xffff) + 1;
}

/* A write is in the file when it completes if the command or the lack of a write cache asks for that. */
static uint16_t make_lasting(struct nvme *n, const struct nvme_command *cmd, const struct extent *e)
{
	if (!(cmd->cdw12 & NVME_RW_FUA) && n->features[NVME_FEATURE_WRITE_CACHE] & 1)
		return NVME_SUCCESS;
	return nvme_disk_sync(&n->disk, e->offset, e->length) ? NVME_WRITE_FAULT : NVME_SUCCESS;
}

static uint16_t read_write(struct nvme *n, const struct nvme_command *cmd)
{
	bool write = cmd->opcode == NVME_IO_WRITE;
	struct extent e;
	uint16_t status;

	if (cmd->cdw12 & NVME_RW_PRINFO)
		return NVME_INVALID_FIELD | NVME_DNR;
	if (nr_blocks(cmd) * n->block_size > NVME_TRANSFER_MAX)
		return NVME_INVALID_FIELD | NVME_DNR;
	status = find_extent(n, cmd->nsid, start_lba(cmd), nr_blocks(cmd), &e);
	if (status)
		return status;
	if (write && n->disk.read_only)
		return NVME_WRITE_PROTECTED | NVME_DNR;
	status = nvme_transfer(n, cmd, n->disk.map + e.offset, e.length, !write);
	if (status)
		return status;
	if (write) {
		n->smart.writes++;
		n->smart.blocks_written += e.length / 512;
		return make_lasting(n, cmd, &e);
	}
	n->smart.reads++;
	n->smart.blocks_read += e.length / 512;
	return NVME_SUCCESS;
}

static uint16_t write_zeroes(struct nvme *n, const struct nvme_command *cmd)
{
	struct extent e;
	uint16_t status;

	if (cmd->cdw12 & NVME_RW_PRINFO)
		return NVME_INVALID_FIELD | NVME_DNR;
	status = find_extent(n, cmd->nsid, start_lba(cmd), nr_blocks(cmd), &e);
	if (status)
		return status;
	if (n->disk.read_only)
		return NVME_WRITE_PROTECTED | NVME_DNR;
	if (nvme_disk_zero(&n->disk, e.offset, e.length, &n->abort))
		return NVME_WRITE_FAULT;
	return make_lasting(n, cmd, &e);
}

static uint16_t dataset_management(struct nvme *n, const struct nvme_command *cmd)
{
	unsigned int nr = (cmd->cdw10 & 0xff) + 1;
	struct dsm_range ranges[DSM_RANGES_MAX];
	struct extent extents[DSM_RANGES_MAX];
	uint16_t status;

	status = nvme_transfer(n, cmd, ranges, nr * sizeof(ranges[0]), false);
	if (status)
		return status;
	for (unsigned int i = 0; i < nr; i++) {
		status = find_extent(n, cmd->nsid, le64toh(ranges[i].lba),
				     le32toh(ranges[i].blocks), &extents[i]);
		if (status)
			return status;
	}
	if (!(cmd->cdw11 & DSM_DEALLOCATE))
		return NVME_SUCCESS; /* hints about use, which change nothing here */
	if (n->disk.read_only)
		return NVME_WRITE_PROTECTED | NVME_DNR;
	for (unsigned int i = 0; i < nr; i++) {
		if (atomic_load(&n->abort))
			break;
		if (extents[i].length &&
		    nvme_disk_zero(&n->disk, extents[i].offset, extents[i].length, &n->abort))
			return NVME_WRITE_FAULT;
	}
	return NVME_SUCCESS;
}

uint16_t nvme_io(struct nvme *n, const struct nvme_command *cmd)
{
	bool one = cmd->nsid && cmd->nsid <= n->nr_namespaces;

	if (cmd->opcode == NVME_IO_FLUSH) {
		if (!one && cmd->nsid != NVME_NSID_ALL)
			return NVME_INVALID_NAMESPACE | NVME_DNR;
		return nvme_disk_sync(&n->disk, 0, n->disk.size) ? NVME_WRITE_FAULT : NVME_SUCCESS;
	}
	switch (cmd->opcode) {
	case NVME_IO_WRITE:
	case NVME_IO_READ:
		return one ? read_write(n, cmd) : NVME_INVALID_NAMESPACE | NVME_DNR;
	case NVME_IO_WRITE_ZEROES:
		return one ? write_zeroes(n, cmd) : NVME_INVALID_NAMESPACE | NVME_DNR;
	case NVME_IO_DSM:
		return one ? dataset_management(n, cmd) : NVME_INVALID_NAMESPACE | NVME_DNR;
	default:
		return NVME_INVALID_OPCODE | NVME_DNR;
	}
}

size_t nvme_io_bytes(const struct nvme *n, const struct nvme_command *cmd)
{
	return cmd->opcode == NVME_IO_FLUSH ? 0 : nr_blocks(cmd) * n->block_size;
}
