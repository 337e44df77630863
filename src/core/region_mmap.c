// SPDX-License-Identifier: MIT
/*
 * Memory of drivers that the user maps from the context's file (spec devices.md 5.7).
 *
 * All regions of a table lie in one file, at the offsets that users see; the host makes sure that mapping the
 * user's descriptor maps that file. When a mapping ends, by whatever process, nobody tells us. So a region that may
 * be mapped holds its vIOMMU, and its context, until we have looked at everybody's mappings and found none:
 * whenever a vIOMMU is about to be destroyed, and when the host asks.
 *
 * Between the permission to map and the mapping itself a moment passes, in which a look finds nothing. So looks
 * that come too soon wait for it to pass.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "core/call.h"
#include "core/viommu.h"

#define GRACE_NS 20000000ll

struct region {
	struct list entry; /* in the table, by offset */
	uint64_t offset, length;
	char *host;
	struct viommu *viommu; /* whose it is; counted, with its context, while `held` */
	bool held;	       /* somebody may have mapped it */
	int64_t granted;       /* when mapping it was last permitted */
};

struct swiommu_regions {
	pthread_mutex_t
		settling; /* outside of `lock`; held until what was mapped no more has been let go */
	pthread_mutex_t lock;
	struct list regions; /* lock */
	_Atomic unsigned int
		nr_held; /* regions that hold their vIOMMU, or are about to let it go */
	int fd;
	dev_t dev;
	ino_t ino;
};

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

/* ---- the table --------------------------------------------------------------------------------------- */

int swiommu_regions_create(int fd, struct swiommu_regions **out)
{
	struct swiommu_regions *r = swi_new(struct swiommu_regions);
	struct stat st;

	if (!r)
		return -ENOMEM;
	r->fd = fd < 0 ? memfd_create("swiommu-regions", MFD_CLOEXEC)
		       : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (r->fd < 0 || fstat(r->fd, &st)) {
		if (r->fd >= 0)
			close(r->fd);
		swi_free(r);
		return -ENOMEM;
	}
	r->dev = st.st_dev;
	r->ino = st.st_ino;
	pthread_mutex_init(&r->settling, NULL);
	pthread_mutex_init(&r->lock, NULL);
	list_init(&r->regions);
	*out = r;
	return 0;
}

void swiommu_regions_destroy(struct swiommu_regions *r)
{
	if (!r)
		return;
	close(r->fd);
	pthread_mutex_destroy(&r->lock);
	pthread_mutex_destroy(&r->settling);
	swi_free(r);
}

static struct region *region_of(struct list *pos)
{
	return list_entry(pos, struct region, entry);
}

/* The table of a context, made with the first region if the host gave none. */
static int table_of(struct iommufd_ctx *ctx, struct swiommu_regions **out)
{
	struct swiommu_regions *made = NULL;
	int rc = 0;

	pthread_mutex_lock(&ctx->table.lock);
	if (!ctx->regions) {
		rc = swiommu_regions_create(-1, &made);
		ctx->own_regions = !rc;
		/* Others look without the lock. */
		if (!rc)
			ctx->regions = made;
	}
	*out = ctx->regions;
	pthread_mutex_unlock(&ctx->table.lock);
	return rc;
}

/* ---- a driver's regions ------------------------------------------------------------------------------ */

/* Into the lowest gap, never at offset 0. */
static void place_locked(struct swiommu_regions *r, struct region *region)
{
	struct list *pos;

	region->offset = SWI_PAGE_SIZE;
	list_for_each (pos, &r->regions) {
		if (region_of(pos)->offset - region->offset >= region->length)
			break;
		region->offset = region_of(pos)->offset + region_of(pos)->length;
	}
	list_add_tail(pos, &region->entry);
}

static int back_locked(struct swiommu_regions *r, struct region *region)
{
	uint64_t end = region->offset + region->length;
	struct stat st;

	if (fstat(r->fd, &st) || ((uint64_t)st.st_size < end && ftruncate(r->fd, end)))
		return -ENOMEM;
	region->host = mmap(NULL, region->length, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
			    region->offset);
	return region->host == MAP_FAILED ? -ENOMEM : 0;
}

int iommufd_viommu_alloc_mmap(struct iommufd_viommu *pub, size_t length, void **host,
			      uint64_t *offset)
{
	struct viommu *viommu = viommu_of_pub(pub);
	struct swiommu_regions *r;
	struct region *region;
	int rc;

	if (!length || length % SWI_PAGE_SIZE)
		return -EINVAL;
	rc = table_of(viommu->obj.ctx, &r);
	if (rc)
		return rc;
	region = swi_new(struct region);
	if (!region)
		return -ENOMEM;
	region->length = length;
	region->viommu = viommu;
	pthread_mutex_lock(&r->lock);
	place_locked(r, region);
	rc = back_locked(r, region);
	if (rc)
		list_del(&region->entry);
	pthread_mutex_unlock(&r->lock);
	if (rc) {
		swi_free(region);
		return rc;
	}
	*host = region->host;
	*offset = region->offset;
	return 0;
}

static struct region *find_locked(struct swiommu_regions *r, const struct iommufd_ctx *ctx,
				  uint64_t offset)
{
	struct list *pos;

	list_for_each (pos, &r->regions) {
		struct region *region = region_of(pos);

		if (region->viommu->obj.ctx == ctx && offset >= region->offset &&
		    offset - region->offset < region->length)
			return region;
	}
	return NULL;
}

void iommufd_viommu_destroy_mmap(struct iommufd_viommu *pub, uint64_t offset)
{
	struct iommufd_ctx *ctx = viommu_of_pub(pub)->obj.ctx;
	struct swiommu_regions *r = ctx->regions;
	struct region *region;

	pthread_mutex_lock(&r->lock);
	region = find_locked(r, ctx, offset);
	if (region && region->offset == offset) {
		list_del(&region->entry);
		/* The next region there begins as zeroes. */
		(void)!fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, region->offset,
				 region->length);
		munmap(region->host, region->length);
		swi_free(region);
	}
	pthread_mutex_unlock(&r->lock);
}

/* ---- mapping ----------------------------------------------------------------------------------------- */

int swiommu_mmap(struct iommufd_ctx *ctx, struct swiommu_caller *caller, uint64_t length, int prot,
		 int flags, uint64_t offset, int *out_fd)
{
	struct swi_reason *why = (struct swi_reason *)caller->reason;
	int type = flags & MAP_TYPE, rc = 0;
	struct swiommu_regions *r = ctx->regions;
	struct region *region = NULL;

	caller->reason[0] = '\0';
	if (type != MAP_SHARED && type != MAP_SHARED_VALIDATE)
		return swi_fail(why, -EINVAL, "regions must be mapped MAP_SHARED");
	if (prot & PROT_EXEC)
		return swi_fail(why, -EPERM, "regions cannot be executed");
	length = (length + SWI_PAGE_SIZE - 1) & ~(SWI_PAGE_SIZE - 1);
	if (r) {
		pthread_mutex_lock(&r->lock);
		region = find_locked(r, ctx, offset);
		if (region && (region->offset != offset || region->length != length))
			region = NULL;
		if (region && !region->held && obj_try_get(&region->viommu->obj)) {
			obj_hold(&region->viommu->obj);
			obj_put(&region->viommu->obj);
			iommufd_ctx_get(ctx);
			region->held = true;
			r->nr_held++;
		}
		if (region && region->held)
			region->granted = now();
		else
			region = NULL;
		if (region && out_fd)
			*out_fd = r->fd;
		pthread_mutex_unlock(&r->lock);
	}
	if (!region)
		rc = swi_fail(why, -ENXIO, "no region of %#llx bytes is registered at offset %#llx",
			      (unsigned long long)length, (unsigned long long)offset);
	return rc;
}

/* Whether a line of a maps file is a mapping of the region by a user. */
static bool maps_region(const struct swiommu_regions *r, const struct region *region, bool self,
			const char *line)
{
	unsigned long long start, end, offset, ino;
	unsigned int major, minor;
	char perms[8];

	if (sscanf(line, "%llx-%llx %7s %llx %x:%x %llu", &start, &end, perms, &offset, &major,
		   &minor, &ino) != 7)
		return false;
	if (ino != r->ino || major != major(r->dev) || minor != minor(r->dev))
		return false;
	if (self && start == (uintptr_t)region->host)
		return false;
	return offset < region->offset + region->length && offset + (end - start) > region->offset;
}

static bool process_maps(const struct swiommu_regions *r, const struct region *region, int pid)
{
	bool found = false, self = pid == getpid();
	char path[48], *line = NULL;
	size_t size = 0;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	if (!maps)
		return false;
	while (!found && getline(&line, &size, maps) > 0)
		found = maps_region(r, region, self, line);
	free(line);
	fclose(maps);
	return found;
}

/* Processes by number, ascending. */
struct pids {
	int *pid;
	size_t n, room;
};

static int add_pid(struct pids *pids, int pid)
{
	size_t room = pids->room ? 2 * pids->room : 256;
	int *grown = pids->pid;

	if (pids->n == pids->room) {
		grown = swi_realloc(pids->pid, room * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		pids->pid = grown;
		pids->room = room;
	}
	pids->pid[pids->n++] = pid;
	return 0;
}

static int compare_pids(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static int list_pids(struct pids *pids)
{
	DIR *proc = opendir("/proc");
	struct dirent *d;
	int rc = 0;

	pids->n = 0;
	if (!proc)
		return -errno;
	while (!rc && (d = readdir(proc)))
		if (isdigit((unsigned char)d->d_name[0]))
			rc = add_pid(pids, atoi(d->d_name));
	closedir(proc);
	if (!rc && pids->n)
		qsort(pids->pid, pids->n, sizeof(*pids->pid), compare_pids);
	return rc;
}

/*
 * A process that does not map the region will not either, for nobody gets leave to map it while we look; but one that
 * does may fork, and unmap it before we come to it. So all who have appeared meanwhile are looked at, until nobody
 * has. Who cannot look must not free what may be in use.
 */
static bool anybody_maps(const struct swiommu_regions *r, const struct region *region)
{
	unsigned int fail_nth = swi_alloc_fail_nth(0), last = 0;
	struct pids seen[2] = {{0}};
	bool found = false, fresh = true;

	while (fresh && !found) {
		struct pids *old = &seen[last], *new = &seen[!last];

		fresh = false;
		found = list_pids(new) != 0;
		for (size_t i = 0; i < new->n && !found; i++) {
			if (old->n && bsearch(&new->pid[i], old->pid, old->n, sizeof(*old->pid),
					      compare_pids))
				continue;
			fresh = true;
			found = process_maps(r, region, new->pid[i]);
		}
		last = !last;
	}
	swi_free(seen[0].pid);
	swi_free(seen[1].pid);
	swi_alloc_fail_nth(fail_nth);
	return found;
}

/* One held region that is mapped no more, not held then; its vIOMMU is for the caller to let go. */
static struct viommu *release_one(struct swiommu_regions *r)
{
	struct viommu *viommu = NULL;
	struct list *pos;
	int64_t wait;

	pthread_mutex_lock(&r->lock);
	list_for_each (pos, &r->regions) {
		struct region *region = region_of(pos);

		if (!region->held)
			continue;
		wait = region->granted + GRACE_NS - now();
		if (wait > 0)
			nanosleep(&(struct timespec){0, wait}, NULL);
		if (anybody_maps(r, region))
			continue;
		region->held = false;
		viommu = region->viommu;
		break;
	}
	pthread_mutex_unlock(&r->lock);
	return viommu;
}

void swiommu_regions_settle(struct swiommu_regions *r)
{
	struct iommufd_ctx *ctx;
	struct viommu *viommu;

	if (!r || !r->nr_held)
		return;
	pthread_mutex_lock(&r->settling);
	while ((viommu = release_one(r))) {
		ctx = viommu->obj.ctx;
		obj_unhold(&viommu->obj);
		iommufd_ctx_put(ctx);
		r->nr_held--;
	}
	pthread_mutex_unlock(&r->settling);
}
