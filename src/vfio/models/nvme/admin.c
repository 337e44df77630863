// SPDX-License-Identifier: MIT
/*
 * Admin commands (NVMe 1.4, 5): queues, aborts, events; the others have files of their own.
 *
 * The order of the checks is that of the fields in the specification: identifier, size, then the rest.
 */
#include "vfio/models/nvme/nvme.h"

#define CREATE_CONTIGUOUS (1u << 0)
#define CREATE_CQ_INTERRUPTS (1u << 1)

static bool valid_new_id(const struct nvme *n, uint32_t id)
{
	return id && id <= n->nr_queues;
}

/* What both kinds of queues have in common: CDW10 bits 31:16 the size less one, PRP1 the place. */
static uint16_t check_queue(const struct nvme_command *cmd)
{
	uint32_t size = cmd->cdw10 >> 16;

	if (!size || size >= NVME_MAX_ENTRIES)
		return NVME_INVALID_QUEUE_SIZE | NVME_DNR;
	if (!(cmd->cdw11 & CREATE_CONTIGUOUS))
		return NVME_INVALID_FIELD | NVME_DNR;
	if (cmd->prp1 % SWI_PAGE_SIZE)
		return NVME_INVALID_PRP_OFFSET | NVME_DNR;
	return NVME_SUCCESS;
}

static uint16_t create_cq(struct nvme *n, const struct nvme_command *cmd)
{
	uint32_t id = cmd->cdw10 & 0xffff, vector = cmd->cdw11 >> 16;
	uint16_t status;

	if (!valid_new_id(n, id) || n->cqs[id].exists)
		return NVME_INVALID_QUEUE_ID | NVME_DNR;
	status = check_queue(cmd);
	if (status)
		return status;
	if (vector >= n->nr_vectors)
		return NVME_INVALID_VECTOR | NVME_DNR;
	if (NVME_CC_IOCQES(n->cc) != 4)
		return NVME_INVALID_FIELD | NVME_DNR;
	nvme_cq_start(n, (uint16_t)id, cmd->prp1, (cmd->cdw10 >> 16) + 1);
	n->cqs[id].interrupts = cmd->cdw11 & CREATE_CQ_INTERRUPTS;
	n->cqs[id].vector = (uint16_t)vector;
	return NVME_SUCCESS;
}

static uint16_t create_sq(struct nvme *n, const struct nvme_command *cmd)
{
	uint32_t id = cmd->cdw10 & 0xffff, cq = cmd->cdw11 >> 16;
	uint16_t status;

	if (!valid_new_id(n, cq) || !n->cqs[cq].exists)
		return NVME_CQ_INVALID | NVME_DNR;
	if (!valid_new_id(n, id) || n->sqs[id].exists)
		return NVME_INVALID_QUEUE_ID | NVME_DNR;
	status = check_queue(cmd);
	if (status)
		return status;
	if (NVME_CC_IOSQES(n->cc) != 6)
		return NVME_INVALID_FIELD | NVME_DNR;
	nvme_sq_start(n, (uint16_t)id, cmd->prp1, (cmd->cdw10 >> 16) + 1, &n->cqs[cq]);
	return NVME_SUCCESS;
}

/* Commands that the controller has not fetched yet are gone with the queue. */
static uint16_t delete_sq(struct nvme *n, const struct nvme_command *cmd)
{
	uint32_t id = cmd->cdw10 & 0xffff;

	if (!valid_new_id(n, id) || !n->sqs[id].exists)
		return NVME_INVALID_QUEUE_ID | NVME_DNR;
	nvme_sq_stop(n, &n->sqs[id]);
	return NVME_SUCCESS;
}

static uint16_t delete_cq(struct nvme *n, const struct nvme_command *cmd)
{
	uint32_t id = cmd->cdw10 & 0xffff;

	if (!valid_new_id(n, id) || !n->cqs[id].exists)
		return NVME_INVALID_QUEUE_ID | NVME_DNR;
	if (n->cqs[id].users)
		return NVME_INVALID_DELETION | NVME_DNR;
	n->cqs[id].exists = false;
	nvme_update_line(n);
	return NVME_SUCCESS;
}

/*
 * Commands are carried out as they are fetched, so the only ones that wait and can be aborted are requests for events.
 * Bit 0 of the result: it was not aborted.
 */
static uint16_t abort_command(struct nvme *n, const struct nvme_command *cmd, uint32_t *result)
{
	uint16_t sq = (uint16_t)cmd->cdw10, cid = (uint16_t)(cmd->cdw10 >> 16);

	*result = 1;
	if (sq)
		return NVME_SUCCESS;
	for (unsigned int i = 0; i < n->nr_held; i++) {
		if (n->held[i] != cid)
			continue;
		*result = nvme_abort_held(n, i) ? 0 : 1;
		break;
	}
	return NVME_SUCCESS;
}

static uint16_t async_event(struct nvme *n, const struct nvme_command *cmd)
{
	if (n->nr_held == NVME_HELD_EVENTS)
		return NVME_ASYNC_LIMIT | NVME_DNR;
	n->held[n->nr_held++] = cmd->cid;
	return NVME_NO_COMPLETION;
}

uint16_t nvme_admin(struct nvme *n, const struct nvme_command *cmd, uint32_t *result)
{
	switch (cmd->opcode) {
	case NVME_ADMIN_DELETE_SQ:
		return delete_sq(n, cmd);
	case NVME_ADMIN_CREATE_SQ:
		return create_sq(n, cmd);
	case NVME_ADMIN_GET_LOG:
		return nvme_get_log(n, cmd);
	case NVME_ADMIN_DELETE_CQ:
		return delete_cq(n, cmd);
	case NVME_ADMIN_CREATE_CQ:
		return create_cq(n, cmd);
	case NVME_ADMIN_IDENTIFY:
		return nvme_identify(n, cmd);
	case NVME_ADMIN_ABORT:
		return abort_command(n, cmd, result);
	case NVME_ADMIN_SET_FEATURES:
		return nvme_set_features(n, cmd, result);
	case NVME_ADMIN_GET_FEATURES:
		return nvme_get_features(n, cmd, result);
	case NVME_ADMIN_ASYNC_EVENT:
		return async_event(n, cmd);
	default:
		return NVME_INVALID_OPCODE | NVME_DNR;
	}
}
