// SPDX-License-Identifier: MIT
/*
 * The bytes behind the namespaces: a file or anonymous memory, mapped shared and as a whole.
 *
 * Reads and writes of the client are then a single copy between this mapping and the client's memory, made by the DMA layer,
 * which survives a file that somebody truncates meanwhile (mem/guard.h). Whatever must touch the mapping
 * here goes through a guarded copy as well.
 */
#include "vfio/models/nvme/nvme.h"

#include "mem/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_file(struct nvme_disk *disk, const char *path, uint64_t *size,
		     struct swi_reason *why)
{
	int flags = disk->read_only ? O_RDONLY : O_RDWR | (*size ? O_CREAT : 0);
	off_t end;

	disk->fd = open(path, flags | O_CLOEXEC, 0644);
	if (disk->fd < 0)
		return swi_fail(why, -errno, "file=%s: %s%s", path, strerror(errno),
				errno == ENOENT && !*size && !disk->read_only
					? "; with size= it is made"
					: "");
	disk->lasting = true;
	end = lseek(disk->fd, 0, SEEK_END); /* also of a block device */
	if (end < 0)
		return swi_fail(why, -EINVAL, "file=%s: has no size", path);
	if (!*size)
		*size = (uint64_t)end;
	if (*size <= (uint64_t)end)
		return 0;
	if (disk->read_only || ftruncate(disk->fd, (off_t)*size))
		return swi_fail(why, -EINVAL, "file=%s: has %lld bytes, and cannot be made longer",
				path, (long long)end);
	return 0;
}

static int open_memory(struct nvme_disk *disk, uint64_t size, struct swi_reason *why)
{
	disk->fd = memfd_create("swiommu-nvme", MFD_CLOEXEC);
	if (disk->fd < 0)
		return swi_fail(why, -errno, "no memory for a disk: %s", strerror(errno));
	if (ftruncate(disk->fd, (off_t)size))
		return swi_fail(why, -errno, "no memory for a disk of %llu bytes: %s",
				(unsigned long long)size, strerror(errno));
	return 0;
}

int nvme_disk_open(struct nvme_disk *disk, const char *path, uint64_t size, bool read_only,
		   struct swi_reason *why)
{
	void *map;
	int rc;

	*disk = (struct nvme_disk){.fd = -1, .read_only = read_only};
	rc = path[0] ? open_file(disk, path, &size, why) : open_memory(disk, size, why);
	if (!rc && !size)
		rc = swi_fail(why, -EINVAL, "file=%s: is empty; size= makes it longer", path);
	if (rc)
		goto fail;
	map = mmap(NULL, size, read_only ? PROT_READ : PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_NORESERVE, disk->fd, 0);
	if (map == MAP_FAILED) {
		rc = swi_fail(why, -errno, "a disk of %llu bytes cannot be mapped: %s",
			      (unsigned long long)size, strerror(errno));
		goto fail;
	}
	disk->map = map;
	disk->size = size;
	return 0;
fail:
	nvme_disk_close(disk);
	return rc;
}

void nvme_disk_close(struct nvme_disk *disk)
{
	if (disk->map)
		munmap(disk->map, disk->size);
	if (disk->fd >= 0)
		close(disk->fd);
	*disk = (struct nvme_disk){.fd = -1};
}

int nvme_disk_sync(struct nvme_disk *disk, uint64_t offset, uint64_t length)
{
	uint64_t first = offset & ~(SWI_PAGE_SIZE - 1);

	if (!disk->lasting || disk->read_only)
		return 0;
	if (!offset && length == disk->size)
		return fdatasync(disk->fd) ? -errno : 0;
	return msync(disk->map + first, length + (offset - first), MS_SYNC) ? -errno : 0;
}

int nvme_disk_zero(struct nvme_disk *disk, uint64_t offset, uint64_t length,
		   const atomic_bool *abort)
{
	static const uint8_t zeros[SWI_PAGE_SIZE];
	size_t n;
	int rc;

	if (!fallocate(disk->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
		       (off_t)length))
		return 0;
	for (; length; offset += n, length -= n) {
		if (atomic_load_explicit(abort, memory_order_relaxed))
			return -ECANCELED;
		n = SWI_MIN(length, sizeof(zeros));
		rc = mem_guard_copy(disk->map + offset, zeros, n);
		if (rc)
			return rc;
	}
	return 0;
}
