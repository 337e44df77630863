/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VFIO_MODELS_NVME_SPEC_H
#define SWIOMMU_VFIO_MODELS_NVME_SPEC_H

/*
 * What the NVM Express Base Specification 1.4 defines, as far as this controller has it: registers (3.1), commands and
 * completions (4.2, 4.6), status codes (4.6.1), opcodes (5, 6). All of it is little endian.
 */

#include "base/base.h"

/* ---- registers: BAR0 --------------------------------------------------------------------- */

#define NVME_REG_CAP 0x00u /* 8 bytes */
#define NVME_REG_VS 0x08u
#define NVME_REG_INTMS 0x0cu
#define NVME_REG_INTMC 0x10u
#define NVME_REG_CC 0x14u
#define NVME_REG_CSTS 0x1cu
#define NVME_REG_AQA 0x24u
#define NVME_REG_ASQ 0x28u /* 8 bytes */
#define NVME_REG_ACQ 0x30u /* 8 bytes */
#define NVME_REG_DOORBELLS 0x1000u

#define NVME_VERSION 0x00010400u
#define NVME_MAX_ENTRIES 4096u

/* MQES 4095, contiguous queues, 10 s to become ready, stride 0, NVM command set, pages of 4 KiB. */
#define NVME_CAP_VALUE ((NVME_MAX_ENTRIES - 1) | 1ull << 16 | 20ull << 24 | 1ull << 37)

#define NVME_CC_EN (1u << 0)
#define NVME_CC_CSS(cc) (((cc) >> 4) & 7)
#define NVME_CC_MPS(cc) (((cc) >> 7) & 15)
#define NVME_CC_AMS(cc) (((cc) >> 11) & 7)
#define NVME_CC_SHN(cc) (((cc) >> 14) & 3)
#define NVME_CC_IOSQES(cc) (((cc) >> 16) & 15)
#define NVME_CC_IOCQES(cc) (((cc) >> 20) & 15)

#define NVME_CSTS_RDY (1u << 0)
#define NVME_CSTS_CFS (1u << 1)
#define NVME_CSTS_SHST_DONE (2u << 2)

/* ---- commands ---------------------------------------------------------------------------- */

struct nvme_command {
	uint8_t opcode;
	uint8_t flags; /* bits 1:0 fused, bits 7:6 PRP or SGL */
	uint16_t cid;
	uint32_t nsid;
	uint32_t cdw2, cdw3;
	uint64_t metadata;
	uint64_t prp1, prp2;
	uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};

struct nvme_completion {
	uint32_t result;
	uint32_t reserved;
	uint16_t sq_head;
	uint16_t sq_id;
	uint16_t cid;
	uint16_t status; /* bit 0 phase, from bit 1 the status field */
};

#define NVME_NSID_ALL 0xffffffffu

enum nvme_admin_opcode {
	NVME_ADMIN_DELETE_SQ = 0x00,
	NVME_ADMIN_CREATE_SQ = 0x01,
	NVME_ADMIN_GET_LOG = 0x02,
	NVME_ADMIN_DELETE_CQ = 0x04,
	NVME_ADMIN_CREATE_CQ = 0x05,
	NVME_ADMIN_IDENTIFY = 0x06,
	NVME_ADMIN_ABORT = 0x08,
	NVME_ADMIN_SET_FEATURES = 0x09,
	NVME_ADMIN_GET_FEATURES = 0x0a,
	NVME_ADMIN_ASYNC_EVENT = 0x0c,
};

enum nvme_io_opcode {
	NVME_IO_FLUSH = 0x00,
	NVME_IO_WRITE = 0x01,
	NVME_IO_READ = 0x02,
	NVME_IO_WRITE_ZEROES = 0x08,
	NVME_IO_DSM = 0x09,
};

/* CDW12 of read and write. */
#define NVME_RW_FUA (1u << 30)
/* CDW12 bits 29:26 (protection information) need a format that we do not have. */
#define NVME_RW_PRINFO (15u << 26)

/* ---- status: code | type << 8 | do not retry << 14 --------------------------------------- */

#define NVME_DNR (1u << 14)

enum nvme_status {
	NVME_SUCCESS = 0,
	NVME_INVALID_OPCODE = 0x01,
	NVME_INVALID_FIELD = 0x02,
	NVME_DATA_TRANSFER_ERROR = 0x04,
	NVME_INTERNAL_ERROR = 0x06,
	NVME_ABORTED_BY_REQUEST = 0x07,
	NVME_INVALID_NAMESPACE = 0x0b,
	NVME_SEQUENCE_ERROR = 0x0c,
	NVME_INVALID_PRP_OFFSET = 0x13,
	NVME_WRITE_PROTECTED = 0x20,
	NVME_LBA_RANGE = 0x80,

	NVME_CQ_INVALID = 0x100,
	NVME_INVALID_QUEUE_ID = 0x101,
	NVME_INVALID_QUEUE_SIZE = 0x102,
	NVME_ASYNC_LIMIT = 0x105,
	NVME_INVALID_VECTOR = 0x108,
	NVME_INVALID_LOG = 0x109,
	NVME_INVALID_DELETION = 0x10c,
	NVME_NOT_SAVEABLE = 0x10d,

	NVME_WRITE_FAULT = 0x280,
};

/* ---- asynchronous events ----------------------------------------------------------------- */

#define NVME_EVENT_ERROR 0u
#define NVME_EVENT_INVALID_DOORBELL_VALUE 1u

#define NVME_LOG_ERROR 0x01u
#define NVME_LOG_SMART 0x02u
#define NVME_LOG_FIRMWARE 0x03u
#define NVME_LOG_EFFECTS 0x05u

/* ---- features ---------------------------------------------------------------------------- */

enum nvme_feature {
	NVME_FEATURE_ARBITRATION = 0x01,
	NVME_FEATURE_POWER = 0x02,
	NVME_FEATURE_TEMPERATURE = 0x04,
	NVME_FEATURE_ERROR_RECOVERY = 0x05,
	NVME_FEATURE_WRITE_CACHE = 0x06,
	NVME_FEATURE_QUEUES = 0x07,
	NVME_FEATURE_COALESCING = 0x08,
	NVME_FEATURE_VECTOR = 0x09,
	NVME_FEATURE_ATOMICITY = 0x0a,
	NVME_FEATURE_EVENTS = 0x0b,
	NVME_NR_FEATURES = 0x0c,
};

#endif
