// SPDX-License-Identifier: MIT
/*
 * IOMMU_TEST_CMD: the table of its ops, and the small ones.
 *
 * Only contexts that were made with a struct swiommu_test_abi know the ioctl. The object holds what
 * on Linux is global: it spans the contexts of one session.
 */
#include "core/selftest.h"

#include <errno.h>

#include "base/alloc.h"
#include "core/ioas.h"

/* The least memory for temporary lists of pages that pinning can do with; and what a page takes there. */
#define MEMORY_LIMIT_MIN 12
#define MEMORY_PER_PAGE 8

int swiommu_test_abi_create(struct swiommu_test_abi **out)
{
	struct swiommu_test_abi *abi = swi_new(struct swiommu_test_abi);

	if (!abi)
		return -ENOMEM;
	mock_bus_init(&abi->bus);
	*out = abi;
	return 0;
}

void swiommu_test_abi_destroy(struct swiommu_test_abi *abi)
{
	if (!abi)
		return;
	mock_bus_fini(&abi->bus);
	swi_free(abi);
}

static int test_add_reserved(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint64_t first = cmd->add_reserved.start, last;
	struct ioas *ioas;
	struct obj *obj;
	int rc;

	if (!cmd->add_reserved.length)
		return swi_fail(call->why, -EINVAL, "length is 0");
	rc = swi_range_last("start", first, cmd->add_reserved.length, &last, call->why);
	if (rc)
		return rc;
	rc = obj_get(call->ctx, cmd->id, OBJ_IOAS, "id", call->why, &obj);
	if (rc)
		return rc;
	ioas = ioas_of(obj);
	iova_map_lock(ioas->map);
	/* In the name of the IOAS itself, so that nothing takes it back. */
	rc = iova_map_reserve(ioas->map, first, last, ioas);
	iova_map_unlock(ioas->map);
	if (rc == -EADDRINUSE)
		swi_fail(call->why, rc, "the range meets a mapping or an allowed range");
	obj_put(obj);
	return rc;
}

static int test_set_temp_memory_limit(struct call *call)
{
	uint32_t limit = test_cmd_of(call)->memory_limit.limit;

	if (limit < MEMORY_LIMIT_MIN)
		return swi_fail(call->why, -EINVAL, "limit is less than %d bytes",
				MEMORY_LIMIT_MIN);
	/* It bounds lists of pages here as there: what fits into it is pinned at a time. */
	mem_accounts_set_batch(call->ctx->accounts, limit / MEMORY_PER_PAGE);
	return 0;
}

uint64_t test_nth_iova(struct ioas *ioas, uint64_t what)
{
	uint32_t nth = what, offset = what >> 32;
	struct iova_area *area;
	uint64_t iova = 0;

	iova_map_lock(ioas->map);
	for (area = iova_map_first(ioas->map, 0); area && nth; area = iova_area_next(area))
		nth--;
	if (area)
		iova = area->iova + offset;
	iova_map_unlock(ioas->map);
	return iova;
}

static int (*const ops[])(struct call *call) = {
	[IOMMU_TEST_OP_ADD_RESERVED] = test_add_reserved,
	[IOMMU_TEST_OP_MOCK_DOMAIN] = test_mock_domain,
	[IOMMU_TEST_OP_MD_CHECK_MAP] = test_check_map,
	[IOMMU_TEST_OP_MD_CHECK_REFS] = test_check_refs,
	[IOMMU_TEST_OP_CREATE_ACCESS] = test_create_access,
	[IOMMU_TEST_OP_DESTROY_ACCESS_PAGES] = test_destroy_access_pages,
	[IOMMU_TEST_OP_ACCESS_PAGES] = test_access_pages,
	[IOMMU_TEST_OP_ACCESS_RW] = test_access_rw,
	[IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT] = test_set_temp_memory_limit,
	[IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE] = test_mock_domain_replace,
	[IOMMU_TEST_OP_ACCESS_REPLACE_IOAS] = test_access_replace_ioas,
	[IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS] = test_mock_domain_flags,
	[IOMMU_TEST_OP_DIRTY] = test_dirty,
	[IOMMU_TEST_OP_MD_CHECK_IOTLB] = test_check_iotlb,
	[IOMMU_TEST_OP_TRIGGER_IOPF] = test_trigger_iopf,
	[IOMMU_TEST_OP_DEV_CHECK_CACHE] = test_check_cache,
	[IOMMU_TEST_OP_TRIGGER_VEVENT] = test_trigger_vevent,
	[IOMMU_TEST_OP_PASID_ATTACH] = test_pasid_attach,
	[IOMMU_TEST_OP_PASID_REPLACE] = test_pasid_replace,
	[IOMMU_TEST_OP_PASID_DETACH] = test_pasid_detach,
	[IOMMU_TEST_OP_PASID_CHECK_HWPT] = test_pasid_check_hwpt,
	[IOMMU_TEST_OP_DMABUF_GET] = test_dmabuf_get,
	[IOMMU_TEST_OP_DMABUF_REVOKE] = test_dmabuf_revoke,
};

int test_cmd(struct call *call)
{
	uint32_t op = test_cmd_of(call)->op;

	if (op >= ARRAY_SIZE(ops) || !ops[op])
		return swi_fail(call->why, -EOPNOTSUPP, "test op %u is not known", op);
	return ops[op](call);
}
