// SPDX-License-Identifier: MIT
/*
 * A mediated device on libswiommu: what a driver in the kernel does with iommufd_access_*, as a program.
 *
 * The device copies memory for its guest and keeps a log of what it did. It has one window of registers:
 *
 *   LOG		IOVA of the log, a page of the guest's memory, or 0. The device keeps it pinned, as it writes into
 *		it all the time: struct log_page.
 *   SRC, DST, LEN	a copy job, IOVAs and bytes
 *   GO		writing starts the job; reading gives its result, 0 or an errno
 *   ALIVE	1 as long as the log is there
 *
 * The part from "the driver" to "the guest" is what one ports. It shows the three things every such driver has: pages
 * that stay pinned and are written through their address, memory that is touched once (iommufd_access_rw), and the
 * unmap callback, which takes the pinned page away at any time. The guest below it maps memory, works with the
 * device, and pulls the log away from under it. The program ends with 0 if all went as it should.
 */
#include <errno.h>
#include <limits.h>
#include <linux/iommufd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <swiommu/iommufd.h>

#define PAGE 4096ul

enum reg {
	REG_LOG = 0x00,
	REG_SRC = 0x08,
	REG_DST = 0x10,
	REG_LEN = 0x18,
	REG_GO = 0x20,
	REG_ALIVE = 0x28
};

struct log_page {
	uint64_t jobs, failed;
	uint64_t last_src, last_dst, last_len;
};

/* ---- the driver ------------------------------------------------------------------------------ */

struct mdev {
	struct iommufd_access *access;
	uint32_t access_id;
	/*
	 * Held over "pin and write down" here and over "unpin and forget" in the callback, so that a pin is always
	 * either written down or not made. Never held while we attach, detach or destroy, which call the callback.
	 */
	pthread_mutex_t lock;
	unsigned long log_iova; /* 0: none */
	struct page *log;
	uint64_t src, dst, len, result;
};

/* Unpins the log. mdev->lock held. */
static void mdev_drop_log(struct mdev *mdev)
{
	if (!mdev->log_iova)
		return;
	iommufd_access_unpin_pages(mdev->access, mdev->log_iova, PAGE);
	mdev->log_iova = 0;
	mdev->log = NULL;
}

/* The guest unmaps [iova, iova + length), or the access leaves its IOAS (everything). */
static void mdev_unmap(void *data, unsigned long iova, unsigned long length)
{
	struct mdev *mdev = data;
	unsigned long last = length == ULONG_MAX ? ULONG_MAX : iova + length - 1;

	pthread_mutex_lock(&mdev->lock);
	if (mdev->log_iova && mdev->log_iova <= last && mdev->log_iova + PAGE - 1 >= iova)
		mdev_drop_log(mdev);
	pthread_mutex_unlock(&mdev->lock);
}

static const struct iommufd_access_ops mdev_access_ops = {
	.needs_pin_pages = 1,
	.unmap = mdev_unmap,
};

static int mdev_set_log(struct mdev *mdev, unsigned long iova)
{
	struct page *page;
	int rc = 0;

	pthread_mutex_lock(&mdev->lock);
	mdev_drop_log(mdev);
	if (iova) {
		rc = iommufd_access_pin_pages(mdev->access, iova, PAGE, &page,
					      IOMMUFD_ACCESS_RW_WRITE);
		if (!rc && !page_address(page)) {
			/* Memory of another process that cannot be mapped here: this driver insists. */
			iommufd_access_unpin_pages(mdev->access, iova, PAGE);
			rc = -EFAULT;
		}
		if (!rc) {
			mdev->log_iova = iova;
			mdev->log = page;
		}
	}
	pthread_mutex_unlock(&mdev->lock);
	return rc;
}

static int mdev_copy(struct mdev *mdev)
{
	char buf[512];
	uint64_t at;
	size_t n;
	int rc;

	for (at = 0; at < mdev->len; at += n) {
		n = mdev->len - at < sizeof(buf) ? mdev->len - at : sizeof(buf);
		rc = iommufd_access_rw(mdev->access, mdev->src + at, buf, n,
				       IOMMUFD_ACCESS_RW_READ);
		if (!rc)
			rc = iommufd_access_rw(mdev->access, mdev->dst + at, buf, n,
					       IOMMUFD_ACCESS_RW_WRITE);
		if (rc)
			return rc;
	}
	return 0;
}

static void mdev_go(struct mdev *mdev)
{
	int rc = mdev_copy(mdev);
	struct log_page *log;

	mdev->result = -rc;
	/* Under the lock the page cannot be taken away while we write. */
	pthread_mutex_lock(&mdev->lock);
	if (mdev->log) {
		log = page_address(mdev->log);
		log->jobs++;
		log->failed += rc != 0;
		log->last_src = mdev->src;
		log->last_dst = mdev->dst;
		log->last_len = mdev->len;
	}
	pthread_mutex_unlock(&mdev->lock);
}

static int mdev_write(struct mdev *mdev, enum reg reg, uint64_t value)
{
	switch (reg) {
	case REG_LOG:
		return mdev_set_log(mdev, value);
	case REG_SRC:
		mdev->src = value;
		return 0;
	case REG_DST:
		mdev->dst = value;
		return 0;
	case REG_LEN:
		mdev->len = value;
		return 0;
	case REG_GO:
		mdev_go(mdev);
		return 0;
	default:
		return -EINVAL;
	}
}

static uint64_t mdev_read(struct mdev *mdev, enum reg reg)
{
	uint64_t value = mdev->result;

	if (reg == REG_ALIVE) {
		pthread_mutex_lock(&mdev->lock);
		value = mdev->log_iova != 0;
		pthread_mutex_unlock(&mdev->lock);
	}
	return value;
}

/* In the kernel: the driver's bind_iommufd and attach_ioas. */
static int mdev_open(struct mdev *mdev, struct iommufd_ctx *ictx, uint32_t ioas_id)
{
	int rc;

	memset(mdev, 0, sizeof(*mdev));
	pthread_mutex_init(&mdev->lock, NULL);
	mdev->access = iommufd_access_create(ictx, &mdev_access_ops, mdev, &mdev->access_id);
	if (IS_ERR(mdev->access))
		return (int)PTR_ERR(mdev->access);
	rc = iommufd_access_attach(mdev->access, ioas_id);
	if (rc)
		iommufd_access_destroy(mdev->access);
	return rc;
}

/* unbind_iommufd. The callback runs in here, for the last time. */
static void mdev_close(struct mdev *mdev)
{
	iommufd_access_destroy(mdev->access);
	pthread_mutex_destroy(&mdev->lock);
}

/* ---- the guest ------------------------------------------------------------------------------- */

#define CHECK(what)                                                                             \
	do {                                                                                    \
		if (!(what)) {                                                                  \
			fprintf(stderr, "mdev-sample: line %d: not so: %s\n", __LINE__, #what); \
			exit(1);                                                                \
		}                                                                               \
	} while (0)

struct guest {
	struct iommufd_ctx *ctx;
	struct swiommu_caller caller;
	uint32_t ioas;
};

static void guest_map(struct guest *g, uint64_t iova, void *memory, uint64_t length)
{
	struct iommu_ioas_map cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 IOMMU_IOAS_MAP_WRITEABLE,
		.ioas_id = g->ioas,
		.user_va = (uintptr_t)memory,
		.length = length,
		.iova = iova,
	};

	CHECK(swiommu_ioctl(g->ctx, &g->caller, IOMMU_IOAS_MAP, (uintptr_t)&cmd) == 0);
}

static void guest_unmap(struct guest *g, uint64_t iova, uint64_t length)
{
	struct iommu_ioas_unmap cmd = {
		.size = sizeof(cmd), .ioas_id = g->ioas, .iova = iova, .length = length};

	CHECK(swiommu_ioctl(g->ctx, &g->caller, IOMMU_IOAS_UNMAP, (uintptr_t)&cmd) == 0);
}

static uint64_t guest_copy(struct mdev *mdev, uint64_t dst, uint64_t src, uint64_t len)
{
	CHECK(mdev_write(mdev, REG_SRC, src) == 0);
	CHECK(mdev_write(mdev, REG_DST, dst) == 0);
	CHECK(mdev_write(mdev, REG_LEN, len) == 0);
	CHECK(mdev_write(mdev, REG_GO, 1) == 0);
	return mdev_read(mdev, REG_GO);
}

int main(void)
{
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct guest g = {0};
	struct log_page *log;
	struct mdev mdev;
	char *data;

	CHECK(swiommu_open(NULL, &g.ctx) == 0);
	swiommu_caller_local(&g.caller);
	CHECK(swiommu_ioctl(g.ctx, &g.caller, IOMMU_IOAS_ALLOC, (uintptr_t)&alloc) == 0);
	g.ioas = alloc.out_ioas_id;
	log = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	data = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(log != MAP_FAILED && data != MAP_FAILED);
	guest_map(&g, 0x10000, log, PAGE);
	guest_map(&g, 0x20000, data, 4 * PAGE);
	CHECK(mdev_open(&mdev, g.ctx, g.ioas) == 0);

	/* Work, and the log of it. */
	strcpy(data + 100, "moved by a mediated device");
	CHECK(mdev_write(&mdev, REG_LOG, 0x10800) == -EINVAL); /* not a page's start */
	CHECK(mdev_write(&mdev, REG_LOG, 0x10000) == 0);
	CHECK(guest_copy(&mdev, 0x22ffa, 0x20064, 27) == 0);
	CHECK(!strcmp(data + 0x2ffa, "moved by a mediated device"));
	CHECK(guest_copy(&mdev, 0x90000, 0x20000, 8) == ENOENT);
	CHECK(log->jobs == 2 && log->failed == 1 && log->last_dst == 0x90000);

	/* The log goes: the callback lets go of it, so unmapping works, and the device goes on without. */
	CHECK(mdev_read(&mdev, REG_ALIVE) == 1);
	guest_unmap(&g, 0x10000, PAGE);
	CHECK(mdev_read(&mdev, REG_ALIVE) == 0);
	CHECK(guest_copy(&mdev, 0x21000, 0x20064, 27) == 0);
	CHECK(log->jobs == 2);

	/* And comes back; closing the device releases it. */
	guest_map(&g, 0x10000, log, PAGE);
	CHECK(mdev_write(&mdev, REG_LOG, 0x10000) == 0);
	CHECK(guest_copy(&mdev, 0x21000, 0x20064, 27) == 0);
	CHECK(log->jobs == 3);
	mdev_close(&mdev);
	guest_unmap(&g, 0x10000, PAGE);
	swiommu_close(g.ctx);
	printf("mdev-sample: %llu jobs logged, as it should be\n", (unsigned long long)log->jobs);
	return 0;
}
