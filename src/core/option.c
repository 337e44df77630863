// SPDX-License-Identifier: MIT
/* IOMMU_OPTION (spec core.md 4.5): RLIMIT_MODE of the context, HUGE_PAGES of an IOAS. */
#include <errno.h>
#include <linux/capability.h>
#include <linux/iommufd.h>

#include "core/call.h"
#include "core/ioas.h"

static int rlimit_mode_set(struct call *call, uint64_t val)
{
	struct obj_table *t = &call->ctx->table;
	bool used;

	if (!call->caller->ops->capable(call->caller, CAP_SYS_RESOURCE))
		return swi_fail(call->why, -EPERM, "setting RLIMIT_MODE needs CAP_SYS_RESOURCE");
	pthread_mutex_lock(&t->lock);
	used = t->used;
	if (!used && val <= 1)
		call->ctx->rlimit_process = val;
	pthread_mutex_unlock(&t->lock);
	if (used)
		return swi_fail(call->why, -EBUSY,
				"RLIMIT_MODE can only be set while there are no objects");
	if (val > 1)
		return swi_fail(call->why, -EINVAL,
				"val64 is neither 0 (per user) nor 1 (per process)");
	return 0;
}

static int rlimit_mode(struct call *call, struct iommu_option *cmd)
{
	if (cmd->object_id)
		return swi_fail(call->why, -EOPNOTSUPP,
				"RLIMIT_MODE belongs to the context: object_id must be 0");
	switch (cmd->op) {
	case IOMMU_OPTION_OP_GET:
		cmd->val64 = call->ctx->rlimit_process;
		return 0;
	case IOMMU_OPTION_OP_SET:
		return rlimit_mode_set(call, cmd->val64);
	default:
		return swi_fail(call->why, -EOPNOTSUPP, "op %u is neither SET nor GET", cmd->op);
	}
}

static int huge_pages(struct call *call, struct iommu_option *cmd)
{
	struct ioas *ioas;
	struct obj *obj;
	int rc;

	rc = obj_get(call->ctx, cmd->object_id, OBJ_IOAS, "object_id", call->why, &obj);
	if (rc)
		return rc;
	ioas = ioas_of(obj);
	if (cmd->op == IOMMU_OPTION_OP_GET) {
		pthread_rwlock_rdlock(&ioas->domains);
		cmd->val64 = ioas->huge_pages;
		pthread_rwlock_unlock(&ioas->domains);
	} else if (cmd->op != IOMMU_OPTION_OP_SET) {
		rc = swi_fail(call->why, -EOPNOTSUPP, "op %u is neither SET nor GET", cmd->op);
	} else if (cmd->val64 > 1) {
		rc = swi_fail(call->why, -EINVAL, "val64 is neither 0 (off) nor 1 (on)");
	} else {
		rc = ioas_set_huge_pages(ioas, cmd->val64, call->why);
	}
	obj_put(obj);
	return rc;
}

int option_cmd(struct call *call)
{
	struct iommu_option *cmd = (void *)call->cmd.bytes;
	int rc;

	if (cmd->__reserved)
		return swi_fail(call->why, -EOPNOTSUPP, "__reserved is not 0");
	switch (cmd->option_id) {
	case IOMMU_OPTION_RLIMIT_MODE:
		rc = rlimit_mode(call, cmd);
		break;
	case IOMMU_OPTION_HUGE_PAGES:
		rc = huge_pages(call, cmd);
		break;
	default:
		return swi_fail(call->why, -EOPNOTSUPP, "option_id %u is not known",
				cmd->option_id);
	}
	if (rc)
		return rc;
	return call_copy_out(call, call->uptr + offsetof(struct iommu_option, val64), &cmd->val64,
			     sizeof(cmd->val64), "val64");
}
