// SPDX-License-Identifier: MIT
/*
 * Accesses of the test ABI (spec test-abi.md 3): a little device model on the access kAPI, driven through
 * a file descriptor of its own. The ops name the descriptor, whichever context they are issued on.
 *
 * The model remembers what it has pinned as numbered items. `lock` makes "pin and remember" one step
 * against the unmap callback, which drops every item that the range touches: so none is missed.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/list.h"
#include "core/access.h"
#include "core/selftest.h"

/* More at a time is refused, so that a test cannot exhaust the machine. */
#define LENGTH_MAX (16u << 20)

struct test_access {
	struct swiommu_file file;
	struct iommufd_access *access;
	bool pins;
	pthread_mutex_t lock; /* held over pinning; a leaf but for what the kAPI takes */
	struct list items;    /* struct item.entry; lock */
	uint32_t next_id;     /* lock */
};

struct item {
	struct list entry;
	uint32_t id;
	uint64_t iova, length;
};

/* ---- life ----------------------------------------------------------------------------------------- */

static void drop_item_locked(struct test_access *ta, struct item *item)
{
	iommufd_access_unpin_pages(ta->access, item->iova, item->length);
	list_del(&item->entry);
	swi_free(item);
}

static void on_unmap(void *data, unsigned long iova, unsigned long length)
{
	struct test_access *ta = data;
	uint64_t last = length == IOVA_MAX ? IOVA_MAX : iova + length - 1;
	struct list *pos, *tmp;

	pthread_mutex_lock(&ta->lock);
	list_for_each_safe (pos, tmp, &ta->items) {
		struct item *item = list_entry(pos, struct item, entry);

		if (item->iova <= last && item->iova + item->length - 1 >= iova)
			drop_item_locked(ta, item);
	}
	pthread_mutex_unlock(&ta->lock);
}

static const struct iommufd_access_ops pinning_ops = {.needs_pin_pages = true, .unmap = on_unmap};
static const struct iommufd_access_ops plain_ops = {.unmap = on_unmap};

static void release_access(struct swiommu_file *file)
{
	struct test_access *ta = container_of(file, struct test_access, file);

	iommufd_access_destroy(ta->access);
	pthread_mutex_destroy(&ta->lock);
	swi_free(ta);
}

static const struct swiommu_file_ops access_file_ops = {
	.name = "access",
	.release = release_access,
};

static int create_access(struct call *call, bool pins, struct test_access **out)
{
	struct test_access *ta = swi_new(struct test_access);
	uint32_t id;
	int rc;

	if (!ta)
		return -ENOMEM;
	ta->access = iommufd_access_create(call->ctx, pins ? &pinning_ops : &plain_ops, ta, &id);
	if (IS_ERR(ta->access)) {
		rc = PTR_ERR(ta->access);
		swi_free(ta);
		return rc;
	}
	ta->pins = pins;
	swiommu_file_init(&ta->file, &access_file_ops);
	list_init(&ta->items);
	pthread_mutex_init(&ta->lock, NULL);
	*out = ta;
	return 0;
}

int test_create_access(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint32_t flags = cmd->create_access.flags;
	struct test_access *ta = NULL;
	int fd, rc;

	if (flags & ~MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES)
		return swi_fail(call->why, -EOPNOTSUPP, "flags %#x: only NEEDS_PIN_PAGES is known",
				flags);
	rc = create_access(call, flags, &ta);
	if (rc)
		return rc;
	rc = iommufd_access_attach(ta->access, cmd->id);
	if (rc) {
		swiommu_access_reason(ta->access, call->why->text, sizeof(call->why->text));
		goto put;
	}
	/* Once before there is a descriptor, so that a bad pointer leaves none behind. */
	rc = call_respond(call);
	if (rc)
		goto put;
	rc = swiommu_file_install(call->caller, &ta->file, O_CLOEXEC, &fd);
	if (rc) {
		rc = swi_fail(call->why, rc == -EMFILE ? -ENOMEM : rc,
			      "no file descriptor for the access");
		goto put;
	}
	cmd->create_access.out_access_fd = fd;
	rc = call_respond_installed(call);
put:
	swiommu_file_put(&ta->file);
	return rc;
}

/* The access behind a descriptor of the caller, to be put. */
static int get_access(struct call *call, uint32_t fd, struct test_access **out)
{
	struct swiommu_file *file;

	if (swiommu_file_lookup(call->caller, fd, &access_file_ops, &file))
		return swi_fail(call->why, -EBADFD, "id %u is not the descriptor of an access", fd);
	*out = container_of(file, struct test_access, file);
	return 0;
}

/* What the access is attached to, held; NULL: nothing. */
static struct ioas *get_ioas(struct test_access *ta)
{
	struct ioas *ioas;

	pthread_mutex_lock(&ta->access->lock);
	ioas = ta->access->ioas;
	if (ioas)
		obj_hold(&ioas->obj);
	pthread_mutex_unlock(&ta->access->lock);
	return ioas;
}

/* The IOVA that the caller means. */
static uint64_t decode_iova(struct test_access *ta, uint32_t flags, uint64_t iova)
{
	struct ioas *ioas;

	if (!(flags & MOCK_FLAGS_ACCESS_SYZ))
		return iova;
	ioas = get_ioas(ta);
	if (!ioas)
		return 0;
	iova = test_nth_iova(ioas, iova);
	obj_unhold(&ioas->obj);
	return iova;
}

/* ---- pinning -------------------------------------------------------------------------------------- */

int test_destroy_access_pages(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint32_t id = cmd->destroy_access_pages.access_pages_id;
	struct test_access *ta = NULL;
	struct list *pos;
	int rc;

	rc = get_access(call, cmd->id, &ta);
	if (rc)
		return rc;
	rc = -ENOENT;
	pthread_mutex_lock(&ta->lock);
	list_for_each (pos, &ta->items) {
		struct item *item = list_entry(pos, struct item, entry);

		if (item->id != id)
			continue;
		drop_item_locked(ta, item);
		rc = 0;
		break;
	}
	pthread_mutex_unlock(&ta->lock);
	if (rc)
		swi_fail(call->why, rc, "access_pages_id %u: no such item", id);
	swiommu_file_put(&ta->file);
	return rc;
}

/* Whether what is pinned are the pages that the caller has at uptr. */
static int compare_item(struct call *call, struct test_access *ta, uint64_t iova)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	struct ioas *ioas;
	int rc;

	ioas = get_ioas(ta);
	if (!ioas)
		return swi_fail(call->why, -ENOENT, "the access is being moved to another IOAS");
	rc = test_compare(call, ioas, NULL, iova, cmd->access_pages.uptr - iova % SWI_PAGE_SIZE,
			  (cmd->access_pages.length + SWI_PAGE_SIZE - 1) / SWI_PAGE_SIZE,
			  SWI_PAGE_SIZE, -EBADE);
	obj_unhold(&ioas->obj);
	return rc;
}

/* Pins and remembers. The item is judged while the lock keeps it from being dropped. */
static int add_item_locked(struct call *call, struct test_access *ta, uint64_t iova)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint64_t length = cmd->access_pages.length;
	struct item *item = swi_new(struct item);
	int rc;

	if (!item)
		return -ENOMEM;
	rc = access_pin(ta->access, iova, length, NULL,
			cmd->access_pages.flags & MOCK_FLAGS_ACCESS_WRITE ? IOMMUFD_ACCESS_RW_WRITE
									  : 0,
			call->why);
	if (rc)
		goto free;
	if (cmd->access_pages.uptr) {
		rc = compare_item(call, ta, iova);
		if (rc)
			goto unpin;
	}
	item->id = ta->next_id;
	item->iova = iova;
	item->length = length;
	cmd->access_pages.out_access_pages_id = item->id;
	rc = call_respond(call);
	if (rc)
		goto unpin;
	ta->next_id++;
	list_add_tail(&ta->items, &item->entry);
	return 0;
unpin:
	iommufd_access_unpin_pages(ta->access, iova, length);
free:
	swi_free(item);
	return rc;
}

int test_access_pages(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint32_t flags = cmd->access_pages.flags;
	struct test_access *ta = NULL;
	uint64_t iova;
	int rc;

	if (cmd->access_pages.length > LENGTH_MAX)
		return swi_fail(call->why, -ENOMEM, "length is more than %u bytes", LENGTH_MAX);
	if (flags & ~(MOCK_FLAGS_ACCESS_WRITE | MOCK_FLAGS_ACCESS_SYZ))
		return swi_fail(call->why, -EOPNOTSUPP, "flags %#x: only WRITE and SYZ are known",
				flags);
	rc = get_access(call, cmd->id, &ta);
	if (rc)
		return rc;
	if (!ta->pins) {
		rc = swi_fail(call->why, -EOPNOTSUPP,
			      "the access was made without NEEDS_PIN_PAGES");
		goto put;
	}
	iova = decode_iova(ta, flags, cmd->access_pages.iova);
	pthread_mutex_lock(&ta->lock);
	rc = add_item_locked(call, ta, iova);
	pthread_mutex_unlock(&ta->lock);
put:
	swiommu_file_put(&ta->file);
	return rc;
}

/* ---- moving data ---------------------------------------------------------------------------------- */

static int move_data(struct call *call, struct test_access *ta, void *buf)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint64_t iova, length = cmd->access_rw.length;
	bool write = cmd->access_rw.flags & MOCK_ACCESS_RW_WRITE;
	unsigned int flags = write ? IOMMUFD_ACCESS_RW_WRITE : 0;
	struct mem_owner *caller;
	int rc;

	if (cmd->access_rw.flags & MOCK_ACCESS_RW_SLOW_PATH)
		flags |= __IOMMUFD_ACCESS_RW_SLOW_PATH;
	if (write) {
		rc = call_copy_in(call, buf, cmd->access_rw.uptr, length, "uptr");
		if (rc)
			return rc;
	}
	rc = call->caller->ops->get_memory(call->caller, &caller);
	if (rc)
		return rc;
	iova = decode_iova(ta, cmd->access_rw.flags, cmd->access_rw.iova);
	rc = access_rw_for(ta->access, caller, iova, buf, length, flags, call->why);
	mem_owner_put(caller);
	if (rc || write)
		return rc;
	return call_copy_out(call, cmd->access_rw.uptr, buf, length, "uptr");
}

int test_access_rw(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint32_t flags = cmd->access_rw.flags;
	struct test_access *ta = NULL;
	void *buf;
	int rc;

	if (cmd->access_rw.length > LENGTH_MAX)
		return swi_fail(call->why, -ENOMEM, "length is more than %u bytes", LENGTH_MAX);
	if (flags & ~(MOCK_ACCESS_RW_WRITE | MOCK_ACCESS_RW_SLOW_PATH | MOCK_FLAGS_ACCESS_SYZ))
		return swi_fail(call->why, -EOPNOTSUPP,
				"flags %#x: only WRITE, SLOW_PATH and SYZ are known", flags);
	rc = get_access(call, cmd->id, &ta);
	if (rc)
		return rc;
	/* All of it at once: a read that fails halfway must not show in the caller's buffer. */
	buf = swi_zalloc(SWI_MAX(cmd->access_rw.length, 1ull));
	rc = buf ? move_data(call, ta, buf) : -ENOMEM;
	swi_free(buf);
	swiommu_file_put(&ta->file);
	return rc;
}

int test_access_replace_ioas(struct call *call)
{
	struct iommu_test_cmd *cmd = test_cmd_of(call);
	struct test_access *ta = NULL;
	int rc;

	rc = get_access(call, cmd->id, &ta);
	if (rc)
		return rc;
	rc = iommufd_access_replace(ta->access, cmd->access_replace_ioas.ioas_id);
	if (rc)
		swiommu_access_reason(ta->access, call->why->text, sizeof(call->why->text));
	swiommu_file_put(&ta->file);
	return rc;
}
