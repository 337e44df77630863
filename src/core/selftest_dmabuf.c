// SPDX-License-Identifier: MIT
/*
 * The dma-bufs of the test ABI: memory of some device that others' DMA may reach until its exporter
 * revokes it (spec test-abi.md 5, core.md 5.9).
 *
 * Each MAP_FILE of one makes an attachment, which is a memory owner of its own: revoking ends all
 * attachments of that moment for good, while a later MAP_FILE may work again. An attachment never gives a
 * window, so every access comes through it and meets the lock under which it is revoked. Accounting and
 * software accesses do not apply (mem_owner_ops.device).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "base/list.h"
#include "core/selftest.h"
#include "mem/owner.h"

#define SIZE_MAX_DMABUF (2u << 20)

struct dmabuf {
	struct swiommu_file file; /* one reference is the program's, one each attachment's */
	pthread_rwlock_t lock;	  /* shared: data is moved; exclusive: attachments and revoking */
	struct list attachments;
	bool revoked; /* lock */
	uint64_t size;
	char *data;
};

struct attachment {
	struct mem_owner owner;
	struct dmabuf *buf; /* counted */
	struct list entry;  /* in buf->attachments; buf->lock */
	bool revoked;	    /* buf->lock */
};

/* ---- the buffer ------------------------------------------------------------------------------------ */

static void release_dmabuf(struct swiommu_file *file)
{
	struct dmabuf *buf = container_of(file, struct dmabuf, file);

	pthread_rwlock_destroy(&buf->lock);
	swi_free(buf->data);
	swi_free(buf);
}

static const struct swiommu_file_ops dmabuf_ops = {
	.name = "dma-buf",
	.release = release_dmabuf,
};

int test_dmabuf_get(struct call *call)
{
	const struct iommu_test_cmd *cmd = test_cmd_of(call);
	uint64_t size = (cmd->dmabuf_get.length + SWI_PAGE_SIZE - 1) & ~(SWI_PAGE_SIZE - 1);
	struct dmabuf *buf;
	int fd, rc;

	if (!size || size > SIZE_MAX_DMABUF)
		return swi_fail(call->why, -EINVAL, "length %u is 0 or more than %u",
				cmd->dmabuf_get.length, SIZE_MAX_DMABUF);
	buf = swi_new(struct dmabuf);
	if (!buf)
		return -ENOMEM;
	buf->data = swi_zalloc_aligned(SWI_PAGE_SIZE, size);
	if (!buf->data) {
		swi_free(buf);
		return -ENOMEM;
	}
	buf->size = size;
	list_init(&buf->attachments);
	pthread_rwlock_init(&buf->lock, NULL);
	swiommu_file_init(&buf->file, &dmabuf_ops);
	rc = swiommu_file_install(call->caller, &buf->file, cmd->dmabuf_get.open_flags & O_CLOEXEC,
				  &fd);
	swiommu_file_put(&buf->file);
	/* Linux 7.3 answers 0 here, a slip: the number is what the op is for. */
	return rc ? rc : fd;
}

int test_dmabuf_revoke(struct call *call)
{
	const struct iommu_test_cmd *cmd = test_cmd_of(call);
	struct swiommu_file *file;
	struct dmabuf *buf;
	struct list *pos;
	int rc;

	rc = swiommu_file_lookup(call->caller, cmd->dmabuf_revoke.dmabuf_fd, &dmabuf_ops, &file);
	if (rc == -EBADFD)
		return swi_fail(call->why, -EINVAL, "fd %d is not a dma-buf",
				cmd->dmabuf_revoke.dmabuf_fd);
	if (rc)
		return swi_fail(call->why, rc, "fd %d is not an open file",
				cmd->dmabuf_revoke.dmabuf_fd);
	buf = container_of(file, struct dmabuf, file);
	pthread_rwlock_wrlock(&buf->lock);
	buf->revoked = cmd->dmabuf_revoke.revoked;
	if (buf->revoked)
		list_for_each (pos, &buf->attachments)
			list_entry(pos, struct attachment, entry)->revoked = true;
	pthread_rwlock_unlock(&buf->lock);
	swiommu_file_put(file);
	return 0;
}

/* ---- an attachment as a memory owner --------------------------------------------------------------- */

static struct attachment *attachment_of(struct mem_owner *o)
{
	return container_of(o, struct attachment, owner);
}

static int move(struct mem_owner *o, uint64_t addr, void *buf, size_t len, bool write)
{
	struct attachment *a = attachment_of(o);
	int rc = -EFAULT;

	pthread_rwlock_rdlock(&a->buf->lock);
	if (!a->revoked && addr <= a->buf->size && len <= a->buf->size - addr) {
		if (write)
			memcpy(a->buf->data + addr, buf, len);
		else
			memcpy(buf, a->buf->data + addr, len);
		rc = 0;
	}
	pthread_rwlock_unlock(&a->buf->lock);
	return rc;
}

static int attachment_read(struct mem_owner *o, uint64_t addr, void *buf, size_t len)
{
	return move(o, addr, buf, len, false);
}

static int attachment_write(struct mem_owner *o, uint64_t addr, const void *buf, size_t len)
{
	return move(o, addr, (void *)(uintptr_t)buf, len, true);
}

/* Page tables take a revoked one too: there is nothing behind it then. */
static int attachment_open_window(struct mem_owner *o, uint64_t addr, uint64_t len,
				  unsigned int prot, struct mem_window *win, struct swi_reason *why)
{
	(void)o;
	(void)addr;
	(void)len;
	(void)prot;
	(void)why;
	memset(win, 0, sizeof(*win));
	return 0;
}

static int attachment_page_key(struct mem_owner *o, uint64_t addr, struct page_key *key)
{
	(void)o;
	(void)addr;
	(void)key;
	return -EFAULT;
}

static void attachment_space(struct mem_owner *o, uint64_t id[2])
{
	(void)o;
	id[0] = id[1] = 0;
}

static void attachment_destroy(struct mem_owner *o)
{
	struct attachment *a = attachment_of(o);
	struct dmabuf *buf = a->buf;

	pthread_rwlock_wrlock(&buf->lock);
	list_del(&a->entry);
	pthread_rwlock_unlock(&buf->lock);
	swi_free(a);
	swiommu_file_put(&buf->file);
}

static const struct mem_owner_ops attachment_ops = {
	.kind = "dma-buf",
	.device = true,
	.read = attachment_read,
	.write = attachment_write,
	.open_window = attachment_open_window,
	.read_pinned = attachment_read,
	.write_pinned = attachment_write,
	.page_key = attachment_page_key,
	.space = attachment_space,
	.destroy = attachment_destroy,
};

static int attach(struct call *call, struct dmabuf *buf, uint64_t last, struct mem_owner **out)
{
	struct attachment *a;
	bool revoked;

	if (last >= buf->size)
		return swi_fail(call->why, -EINVAL, "the dma-buf has %llu bytes only",
				(unsigned long long)buf->size);
	a = swi_new(struct attachment);
	if (!a)
		return -ENOMEM;
	a->owner.ops = &attachment_ops;
	a->owner.refs = 1;
	a->buf = buf;
	pthread_rwlock_wrlock(&buf->lock);
	revoked = buf->revoked;
	if (!revoked)
		list_add_tail(&buf->attachments, &a->entry);
	pthread_rwlock_unlock(&buf->lock);
	if (revoked) {
		swi_free(a);
		return swi_fail(call->why, -ENODEV, "the dma-buf has been revoked");
	}
	swiommu_file_get(&buf->file);
	*out = &a->owner;
	return 0;
}

int test_dmabuf_attach(struct call *call, int fd, uint64_t last, struct mem_owner **out)
{
	struct swiommu_file *file;
	int rc;

	*out = NULL;
	if (swiommu_file_lookup(call->caller, fd, &dmabuf_ops, &file))
		return 0;
	rc = attach(call, container_of(file, struct dmabuf, file), last, out);
	swiommu_file_put(file);
	return rc;
}
