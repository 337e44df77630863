// SPDX-License-Identifier: MIT
/*
 * Identify (NVMe 1.4, 5.15): 4096 bytes that say what the controller and its namespaces are.
 *
 * Offsets are those of the specification. What is not written is 0, which everywhere means "not supported" or
 * "not reported".
 */
#include "vfio/models/nvme/nvme.h"

#include <string.h>

#define CNS_NAMESPACE 0x00u
#define CNS_CONTROLLER 0x01u
#define CNS_ACTIVE 0x02u
#define CNS_DESCRIPTORS 0x03u
#define CNS_NAMESPACE_NVM 0x05u
#define CNS_CONTROLLER_NVM 0x06u
#define CSI(cdw11) ((cdw11) >> 24)

#define DESCRIPTOR_UUID 3u

void nvme_put_text(uint8_t *at, size_t size, const char *text)
{
	size_t len = strlen(text);

	memset(at, ' ', size);
	memcpy(at, text, SWI_MIN(len, size));
}

/*
 * A UUID of version 8 that is the same for a serial number and namespace each time: a hash (FNV-1a) in two halves. NSID 0 is the
 * controller's own.
 */
static void make_uuid(const struct nvme *n, uint32_t nsid, uint8_t *out)
{
	for (unsigned int half = 0; half < 2; half++) {
		uint64_t h = 0xcbf29ce484222325ull;

		for (const char *p = n->serial; *p; p++)
			h = (h ^ (uint8_t)*p) * 0x100000001b3ull;
		h = (h ^ (nsid << 1 | half)) * 0x100000001b3ull;
		h ^= h >> 29;
		nvme_put(out + 8 * half, 8, h * 0x9e3779b97f4a7c15ull);
	}
	out[6] = (out[6] & 0x0f) | 0x80;
	out[8] = (out[8] & 0x3f) | 0x80;
}

static void put_nqn(const struct nvme *n, uint8_t *at)
{
	static const char prefix[] = "nqn.2014-08.org.nvmexpress:uuid:";
	static const char digits[] = "0123456789abcdef";
	uint8_t uuid[16];

	make_uuid(n, 0, uuid);
	memcpy(at, prefix, sizeof(prefix) - 1);
	at += sizeof(prefix) - 1;
	for (unsigned int i = 0; i < sizeof(uuid); i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*at++ = '-';
		*at++ = (uint8_t)digits[uuid[i] >> 4];
		*at++ = (uint8_t)digits[uuid[i] & 15];
	}
}

static void identify_controller(const struct nvme *n, uint8_t *d)
{
	nvme_put(d + 0, 2, 0x1234); /* PCI vendor */
	nvme_put(d + 2, 2, 0x1234); /* and subsystem vendor */
	nvme_put_text(d + 4, 20, n->serial);
	nvme_put_text(d + 24, 40, "swiommu NVMe");
	nvme_put_text(d + 64, 8, SWIOMMU_VERSION);
	d[77] = NVME_MDTS;
	nvme_put(d + 80, 4, NVME_VERSION);
	d[111] = 1; /* an I/O controller */
	d[258] = 3; /* aborts at a time, less one */
	d[259] = NVME_HELD_EVENTS - 1;
	d[260] = 1 << 1 | 1;	  /* one firmware slot, read only */
	d[261] = 1 << 1 | 1 << 2; /* log 5, and offsets into logs */
	d[262] = NVME_NR_ERRORS - 1;
	nvme_put(d + 266, 2, 343); /* warning and critical temperature, kelvin */
	nvme_put(d + 268, 2, 353);
	d[512] = 0x66; /* entries of 64 */
	d[513] = 0x44; /* and 16 bytes */
	nvme_put(d + 516, 4, n->nr_namespaces);
	nvme_put(d + 520, 2, 1 << 2 | 1 << 3); /* dataset management, write zeroes */
	d[525] = 3 << 1 | n->disk.lasting;     /* flush of all namespaces; volatile write cache */
	put_nqn(n, d + 768);
	nvme_put(d + 2048, 2, 900); /* power state 0: 9 W */
}

static void identify_namespace(const struct nvme *n, uint8_t *d)
{
	nvme_put(d + 0, 8, n->blocks);	/* size */
	nvme_put(d + 8, 8, n->blocks);	/* capacity */
	nvme_put(d + 16, 8, n->blocks); /* utilisation */
	d[33] = 1;			/* deallocated blocks read as zeros */
	d[99] = n->disk.read_only;
	d[130] = (uint8_t)__builtin_ctzll(n->block_size); /* of the only format */
}

/* The IDs above the given one, ascending; 0 ends the list. */
static uint16_t active_list(const struct nvme *n, uint32_t above, uint8_t *d)
{
	if (above >= 0xfffffffe)
		return NVME_INVALID_NAMESPACE | NVME_DNR;
	for (uint64_t id = above + 1ull, i = 0; id <= n->nr_namespaces && i < 1024; id++, i++)
		nvme_put(d + 4 * i, 4, id);
	return NVME_SUCCESS;
}

static bool is_namespace(const struct nvme *n, uint32_t nsid)
{
	return nsid && nsid <= n->nr_namespaces;
}

static uint16_t fill(struct nvme *n, const struct nvme_command *cmd, uint8_t *d)
{
	bool valid = is_namespace(n, cmd->nsid);

	switch (cmd->cdw10 & 0xff) {
	case CNS_NAMESPACE:
		if (!valid)
			return NVME_INVALID_NAMESPACE | NVME_DNR;
		identify_namespace(n, d);
		return NVME_SUCCESS;
	case CNS_CONTROLLER:
		identify_controller(n, d);
		return NVME_SUCCESS;
	case CNS_ACTIVE:
		return active_list(n, cmd->nsid, d);
	case CNS_DESCRIPTORS:
		if (!valid)
			return NVME_INVALID_NAMESPACE | NVME_DNR;
		d[0] = DESCRIPTOR_UUID;
		d[1] = 16;
		make_uuid(n, cmd->nsid, d + 4);
		return NVME_SUCCESS;
	case CNS_NAMESPACE_NVM: /* of a later specification: what is special to the NVM command set. Nothing is. */
		if (CSI(cmd->cdw11))
			return NVME_INVALID_FIELD | NVME_DNR;
		return valid ? NVME_SUCCESS : NVME_INVALID_NAMESPACE | NVME_DNR;
	case CNS_CONTROLLER_NVM:
		return CSI(cmd->cdw11) ? NVME_INVALID_FIELD | NVME_DNR : NVME_SUCCESS;
	default:
		return NVME_INVALID_FIELD | NVME_DNR;
	}
}

uint16_t nvme_identify(struct nvme *n, const struct nvme_command *cmd)
{
	uint8_t data[4096] = {0};
	uint16_t status = fill(n, cmd, data);

	return status ? status : nvme_transfer(n, cmd, data, sizeof(data), true);
}
