// SPDX-License-Identifier: MIT
/*
 * Features (NVMe 1.4, 5.14 and 5.21). Most are words that are kept until the next controller reset; a table says which
 * bits the client can set. None can be saved.
 *
 * Arbitration, power states, error recovery and coalescing are advice: this controller has nothing to do otherwise.
 */
#include "vfio/models/nvme/nvme.h"

#define SAVE (1u << 31)
#define VECTOR_COALESCING_DISABLED (1u << 16)

static const struct {
	bool exists;
	uint32_t initial, writable;
} features[NVME_NR_FEATURES] = {
	[NVME_FEATURE_ARBITRATION] = {true, 7, 0xffffff07},
	[NVME_FEATURE_POWER] = {true, 0, 0},
	[NVME_FEATURE_TEMPERATURE] = {true, 0x157, 0xffff},
	[NVME_FEATURE_ERROR_RECOVERY] = {true, 0, 0xffff},
	[NVME_FEATURE_WRITE_CACHE] = {true, 1, 1},
	[NVME_FEATURE_QUEUES] = {true, 0, 0},
	[NVME_FEATURE_COALESCING] = {true, 0, 0xffff},
	[NVME_FEATURE_VECTOR] = {true, 0, 0},
	[NVME_FEATURE_ATOMICITY] = {true, 0, 1},
	[NVME_FEATURE_EVENTS] = {true, 0, 0xffff},
};

void nvme_features_reset(struct nvme *n)
{
	for (unsigned int i = 0; i < NVME_NR_FEATURES; i++)
		n->features[i] = features[i].initial;
	for (unsigned int i = 0; i < NVME_MAX_VECTORS; i++)
		n->vector_config[i] = 0;
}

static bool has_feature(const struct nvme *n, unsigned int id)
{
	if (id >= NVME_NR_FEATURES || !features[id].exists)
		return false;
	/* What does not outlive the session has no cache in front of it. */
	return id != NVME_FEATURE_WRITE_CACHE || n->disk.lasting;
}

/* As many as there are, whatever is asked for; both counts are less one. */
static uint32_t queue_counts(const struct nvme *n)
{
	uint32_t less_one = (uint32_t)n->nr_queues - 1;

	return less_one | less_one << 16;
}

uint16_t nvme_get_features(struct nvme *n, const struct nvme_command *cmd, uint32_t *result)
{
	unsigned int id = cmd->cdw10 & 0xff, vector = cmd->cdw11 & 0xffff;

	if (!has_feature(n, id))
		return NVME_INVALID_FIELD | NVME_DNR;
	/* Thresholds of other sensors than the composite one do not exist. */
	if (id == NVME_FEATURE_TEMPERATURE && cmd->cdw11 >> 16)
		return NVME_INVALID_FIELD | NVME_DNR;
	if (id == NVME_FEATURE_QUEUES) {
		*result = queue_counts(n);
	} else if (id == NVME_FEATURE_VECTOR) {
		if (vector >= n->nr_vectors)
			return NVME_INVALID_FIELD | NVME_DNR;
		*result = vector | n->vector_config[vector];
	} else {
		*result = n->features[id];
	}
	return NVME_SUCCESS;
}

static uint16_t set_queues(struct nvme *n, const struct nvme_command *cmd, uint32_t *result)
{
	if ((cmd->cdw11 & 0xffff) == 0xffff || cmd->cdw11 >> 16 == 0xffff)
		return NVME_INVALID_FIELD | NVME_DNR;
	for (unsigned int i = 1; i <= n->nr_queues; i++)
		if (n->cqs[i].exists)
			return NVME_SEQUENCE_ERROR | NVME_DNR;
	*result = queue_counts(n);
	return NVME_SUCCESS;
}

uint16_t nvme_set_features(struct nvme *n, const struct nvme_command *cmd, uint32_t *result)
{
	unsigned int id = cmd->cdw10 & 0xff, vector = cmd->cdw11 & 0xffff;

	if (!has_feature(n, id))
		return NVME_INVALID_FIELD | NVME_DNR;
	if (cmd->cdw10 & SAVE)
		return NVME_NOT_SAVEABLE | NVME_DNR;
	if (id == NVME_FEATURE_QUEUES)
		return set_queues(n, cmd, result);
	if (id == NVME_FEATURE_VECTOR) {
		if (vector >= n->nr_vectors)
			return NVME_INVALID_FIELD | NVME_DNR;
		n->vector_config[vector] = cmd->cdw11 & VECTOR_COALESCING_DISABLED;
		return NVME_SUCCESS;
	}
	/* There is one power state, 0. */
	if (id == NVME_FEATURE_POWER && cmd->cdw11 & 0x1f)
		return NVME_INVALID_FIELD | NVME_DNR;
	if (id == NVME_FEATURE_TEMPERATURE && cmd->cdw11 >> 16)
		return NVME_INVALID_FIELD | NVME_DNR;
	n->features[id] = cmd->cdw11 & features[id].writable;
	return NVME_SUCCESS;
}
