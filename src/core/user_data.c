// SPDX-License-Identifier: MIT
/* How drivers read and write structs of the user (spec devices.md 6.6). Each is read once. */
#include <errno.h>
#include <string.h>

#include "core/call.h"

static int copy_in(struct call *call, void *dst, uint64_t uptr, size_t have, size_t len)
{
	memset(dst, 0, len);
	return call_copy_in(call, dst, uptr, SWI_MIN(have, len), "data_uptr");
}

static int check(struct call *call, uint32_t type, uint32_t wanted, size_t have, size_t min_len,
		 size_t len)
{
	if (type != wanted)
		return swi_fail(call->why, -EINVAL, "data_type %#x: the driver wants %#x", type,
				wanted);
	if (have < min_len || have > len)
		return swi_fail(call->why, -EINVAL,
				"data of %zu bytes: the driver wants %zu to %zu", have, min_len,
				len);
	return 0;
}

int __iommu_copy_struct_from_user(void *dst, const struct iommu_user_data *src, uint32_t type,
				  size_t min_len, size_t len)
{
	int rc = check(src->call, src->type, type, src->len, min_len, len);

	return rc ? rc : copy_in(src->call, dst, src->uptr, src->len, len);
}

int __iommu_copy_struct_to_user(const struct iommu_user_data *dst, const void *src, uint32_t type,
				size_t min_len, size_t len)
{
	int rc = check(dst->call, dst->type, type, dst->len, min_len, len);

	return rc ? rc
		  : call_copy_out(dst->call, dst->uptr, src, SWI_MIN(dst->len, len), "data_uptr");
}

int __iommu_copy_struct_from_user_array(void *dst, const struct iommu_user_data_array *src,
					uint32_t type, uint32_t index, size_t min_len, size_t len)
{
	int rc = check(src->call, src->type, type, src->entry_len, min_len, len);

	if (rc)
		return rc;
	if (index >= src->entry_num)
		return -EINVAL;
	return copy_in(src->call, dst, src->uptr + src->entry_len * index, src->entry_len, len);
}

/* What an entry has beyond what we know of it must be zero. */
static int check_rest(struct call *call, uint64_t uptr, size_t len)
{
	uint8_t rest[SWI_PAGE_SIZE];
	int rc = call_copy_in(call, rest, uptr, len, "data_uptr");

	for (size_t i = 0; !rc && i < len; i++)
		if (rest[i])
			return swi_fail(call->why, -E2BIG, "an entry has data that is not known");
	return rc;
}

static int copy_each(char *dst, size_t entry_size, const struct iommu_user_data_array *src)
{
	int rc = 0;

	for (uint32_t i = 0; !rc && i < src->entry_num; i++) {
		uint64_t at = src->uptr + src->entry_len * i;

		if (src->entry_len > entry_size)
			rc = check_rest(src->call, at + entry_size, src->entry_len - entry_size);
		if (!rc)
			rc = copy_in(src->call, dst + entry_size * i, at, src->entry_len,
				     entry_size);
	}
	return rc;
}

int iommu_copy_struct_from_full_user_array(void *dst, size_t entry_size,
					   const struct iommu_user_data_array *src, uint32_t type)
{
	if (src->type != type || !src->entry_num)
		return swi_fail(((struct call *)src->call)->why, -EINVAL,
				"%u entries of type %#x: the driver wants some of type %#x",
				src->entry_num, src->type, type);
	if (src->entry_len == entry_size)
		return call_copy_in(src->call, dst, src->uptr, entry_size * src->entry_num,
				    "data_uptr");
	return copy_each(dst, entry_size, src);
}
