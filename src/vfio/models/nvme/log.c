// SPDX-License-Identifier: MIT
/* Get Log Page (NVMe 1.4, 5.14): errors, health, firmware slots, and what commands do. */
#include "vfio/models/nvme/nvme.h"

#define RETAIN_EVENT (1u << 15)
#define LOG_MAX 4096u

#define ERROR_ENTRY 64u
#define SMART_SIZE 512u
#define FIRMWARE_SIZE 512u

/* Newest first; entries that never were have count 0. */
static size_t error_log(const struct nvme *n, uint8_t *d)
{
	for (unsigned int i = 0; i < NVME_NR_ERRORS && i < n->error_count; i++) {
		const struct nvme_error *e = &n->errors[(n->error_count - 1 - i) % NVME_NR_ERRORS];
		uint8_t *at = d + i * ERROR_ENTRY;

		nvme_put(at, 8, e->count);
		nvme_put(at + 8, 2, e->sq_id);
		nvme_put(at + 10, 2, e->cid);
		nvme_put(at + 12, 2, e->status << 1);
		nvme_put(at + 14, 2, 0xffff); /* which byte of the command: not said */
		nvme_put(at + 16, 8, e->lba);
		nvme_put(at + 24, 4, e->nsid);
	}
	return NVME_NR_ERRORS * ERROR_ENTRY;
}

static size_t smart_log(const struct nvme *n, uint8_t *d)
{
	nvme_put(d + 1, 2, 310); /* temperature, kelvin */
	d[3] = 100;		 /* spare blocks, per cent */
	d[4] = 10;		 /* and when that is too few */
	/* Data in thousands of 512 bytes, rounded up. */
	nvme_put(d + 32, 8, (n->smart.blocks_read + 999) / 1000);
	nvme_put(d + 48, 8, (n->smart.blocks_written + 999) / 1000);
	nvme_put(d + 64, 8, n->smart.reads);
	nvme_put(d + 80, 8, n->smart.writes);
	nvme_put(d + 112, 8, n->smart.power_cycles);
	nvme_put(d + 176, 8, n->error_count);
	return SMART_SIZE;
}

static size_t firmware_log(uint8_t *d)
{
	d[0] = 1; /* slot 1 is active */
	nvme_put_text(d + 8, 8, SWIOMMU_VERSION);
	return FIRMWARE_SIZE;
}

/* Per opcode: bit 0 supported, bit 1 changes what is on the disk. */
static size_t effects_log(uint8_t *d)
{
	static const uint8_t admin[] = {
		NVME_ADMIN_DELETE_SQ,	NVME_ADMIN_CREATE_SQ,	 NVME_ADMIN_GET_LOG,
		NVME_ADMIN_DELETE_CQ,	NVME_ADMIN_CREATE_CQ,	 NVME_ADMIN_IDENTIFY,
		NVME_ADMIN_ABORT,	NVME_ADMIN_SET_FEATURES, NVME_ADMIN_GET_FEATURES,
		NVME_ADMIN_ASYNC_EVENT,
	};

	for (unsigned int i = 0; i < sizeof(admin); i++)
		nvme_put(d + 4 * admin[i], 4, 1);
	nvme_put(d + 1024 + 4 * NVME_IO_FLUSH, 4, 1);
	nvme_put(d + 1024 + 4 * NVME_IO_READ, 4, 1);
	nvme_put(d + 1024 + 4 * NVME_IO_WRITE, 4, 3);
	nvme_put(d + 1024 + 4 * NVME_IO_WRITE_ZEROES, 4, 3);
	nvme_put(d + 1024 + 4 * NVME_IO_DSM, 4, 3);
	return 4096;
}

uint16_t nvme_get_log(struct nvme *n, const struct nvme_command *cmd)
{
	uint64_t dwords = (cmd->cdw10 >> 16 | (uint64_t)(cmd->cdw11 & 0xffff) << 16) + 1;
	uint64_t offset = cmd->cdw12 | (uint64_t)cmd->cdw13 << 32;
	uint8_t data[LOG_MAX] = {0};
	unsigned int log = cmd->cdw10 & 0xff;
	uint16_t status;
	size_t size;

	if (log == NVME_LOG_ERROR)
		size = error_log(n, data);
	else if (log == NVME_LOG_SMART)
		size = smart_log(n, data);
	else if (log == NVME_LOG_FIRMWARE)
		size = firmware_log(data);
	else if (log == NVME_LOG_EFFECTS)
		size = effects_log(data);
	else
		return NVME_INVALID_LOG | NVME_DNR;
	if (offset > size || offset % 4)
		return NVME_INVALID_FIELD | NVME_DNR;
	/* What is beyond the log's end is not defined: nothing is written there. */
	status = nvme_transfer(n, cmd, data + offset, SWI_MIN(4 * dwords, size - offset), true);
	if (!status && log == NVME_LOG_ERROR && !(cmd->cdw10 & RETAIN_EVENT))
		n->event_masked = false;
	return status;
}
