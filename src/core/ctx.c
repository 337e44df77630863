// SPDX-License-Identifier: MIT
/* Contexts: made by swiommu_open(), released when the last reference goes (spec core.md 1.1, 1.7). */
#include "core/ctx.h"

#include <errno.h>

#include "base/alloc.h"
#include "core/device.h"
#include "mem/accounts.h"
#include "mem/owners.h"
#include "mem/phys.h"

static void log_to_hooks(void *data, enum swi_log_level level, const char *line)
{
	struct iommufd_ctx *ctx = data;

	ctx->hooks.log(ctx->hooks.data, (enum swiommu_log_level)level, line);
}

int swiommu_open_with(const struct swiommu_options *options, struct iommufd_ctx **out)
{
	struct iommufd_ctx *ctx = swi_new(struct iommufd_ctx);

	if (!ctx)
		return -ENOMEM;
	if (phys_space_create(&ctx->phys))
		goto free;
	if (options && options->accounts)
		ctx->accounts = mem_accounts_get(options->accounts);
	else if (mem_accounts_create(&ctx->accounts))
		goto put_phys;
	if (mem_owners_create(&ctx->owners))
		goto put_accounts;
	pthread_mutex_init(&ctx->walk_lock, NULL);
	pthread_mutex_init(&ctx->sw_msi.lock, NULL);
	obj_table_init(&ctx->table);
	if (options) {
		ctx->hooks = options->hooks;
		ctx->test_abi = options->test_abi;
		ctx->regions = options->regions;
		ctx->noiommu = options->noiommu;
		ctx->unsafe_interrupts = options->unsafe_interrupts;
	}
	if (ctx->hooks.log)
		ctx->log = (struct swi_log){log_to_hooks, ctx};
	ctx->refs = 1;
	*out = ctx;
	return 0;
put_accounts:
	mem_accounts_put(ctx->accounts);
put_phys:
	phys_space_put(ctx->phys);
free:
	swi_free(ctx);
	return -ENOMEM;
}

int swiommu_open(const struct swiommu_hooks *hooks, struct iommufd_ctx **out)
{
	struct swiommu_options options = {0};

	if (hooks)
		options.hooks = *hooks;
	return swiommu_open_with(&options, out);
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
	device_detach_all(ictx);
	left = obj_table_release(&ictx->table);
	if (left)
		swi_log(&ictx->log, SWI_LOG_ERROR,
			"%u objects are still claimed at the end of their context", left);
	obj_table_fini(&ictx->table);
	pthread_mutex_destroy(&ictx->walk_lock);
	pthread_mutex_destroy(&ictx->sw_msi.lock);
	if (ictx->own_regions)
		swiommu_regions_destroy(ictx->regions);
	mem_accounts_put(ictx->accounts);
	phys_space_put(ictx->phys);
	mem_owners_put(ictx->owners);
	swi_free(ictx);
}

void swiommu_allow_unsafe_interrupts(struct iommufd_ctx *ctx, bool allow)
{
	ctx->unsafe_interrupts = allow;
}

int swiommu_accounts_create(struct mem_accounts **out)
{
	return mem_accounts_create(out);
}

void swiommu_accounts_put(struct mem_accounts *accounts)
{
	mem_accounts_put(accounts);
}

void swiommu_accounts_set_memlock(struct mem_accounts *accounts, uint64_t bytes)
{
	mem_accounts_set_floor(accounts, bytes);
}

int swiommu_accounts_usage(struct mem_accounts *accounts, pid_t pid, uint64_t *pinned,
			   uint64_t *locked)
{
	struct mem_usage usage;
	int rc = mem_accounts_usage(accounts, pid, &usage);

	*pinned = usage.pinned;
	*locked = usage.locked;
	return rc;
}

void swiommu_close(struct iommufd_ctx *ctx)
{
	iommufd_ctx_put(ctx);
}
