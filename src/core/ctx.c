// SPDX-License-Identifier: MIT
/* Contexts: made by swiommu_open(), released when the last reference goes (spec core.md 1.1, 1.7). */
#include "core/ctx.h"

#include <errno.h>

#include "base/alloc.h"

static void log_to_hooks(void *data, enum swi_log_level level, const char *line)
{
	struct iommufd_ctx *ctx = data;

	ctx->hooks.log(ctx->hooks.data, (enum swiommu_log_level)level, line);
}

int swiommu_open(const struct swiommu_hooks *hooks, struct iommufd_ctx **out)
{
	struct iommufd_ctx *ctx = swi_new(struct iommufd_ctx);

	if (!ctx)
		return -ENOMEM;
	obj_table_init(&ctx->table);
	if (hooks)
		ctx->hooks = *hooks;
	if (ctx->hooks.log)
		ctx->log = (struct swi_log){log_to_hooks, ctx};
	ctx->refs = 1;
	*out = ctx;
	return 0;
}

void iommufd_ctx_get(struct iommufd_ctx *ictx)
{
	ictx->refs++;
}

void iommufd_ctx_put(struct iommufd_ctx *ictx)
{
	unsigned int left;

	if (!ictx || --ictx->refs)
		return;
	left = obj_table_release(&ictx->table);
	if (left)
		swi_log(&ictx->log, SWI_LOG_ERROR,
			"%u objects are still claimed at the end of their context", left);
	obj_table_fini(&ictx->table);
	swi_free(ictx);
}

void swiommu_close(struct iommufd_ctx *ctx)
{
	iommufd_ctx_put(ctx);
}
