// SPDX-License-Identifier: MIT
/*
 * The ioctls that describe a device: GET_INFO, GET_REGION_INFO, GET_IRQ_INFO (spec vfio.md 4.2),
 * and DEVICE_FEATURE (4.6).
 *
 * Each copies its minimum in once, fills a struct of the ABI and copies back no more than the
 * caller's argsz. All answers are constants of the device, so no lock is involved.
 *
 * Capabilities are collected in a small chain behind the fixed part. When the caller has not enough
 * room for all of them it learns the size it needs and gets none.
 *
 * Features: those of the model; for a model that has none, and makes its DMA here, DMA logging (dma_log.c).
 */
#include "vfio/internal.h"

#include <errno.h>
#include <string.h>

/* Room for all capabilities that a region can have here. */
#define CAPS_MAX 256

/*
 * The chain that follows a fixed part of `base` bytes; offsets count from the start of that part.
 */
struct caps {
	uint32_t base, used;
	uint8_t bytes[CAPS_MAX];
};

/* Appends a capability; returns the place for `body` bytes behind its header. */
static void *add_cap(struct caps *caps, uint16_t id, uint16_t version, size_t body)
{
	struct vfio_info_cap_header header = {.id = id, .version = version};
	uint32_t size = (uint32_t)((sizeof(header) + body + 7) & ~7ull);
	uint8_t *place = caps->bytes + caps->used;

	if (caps->used) {
		/* All capabilities so far are one after the other: the last one gets the link. */
		uint32_t next = caps->base + caps->used, at = 0, link;

		while (memcpy(&link, caps->bytes + at + 4, 4), link)
			at = link - caps->base;
		memcpy(caps->bytes + at + 4, &next, 4);
	}
	memcpy(place, &header, sizeof(header));
	caps->used += size;
	return place + sizeof(header);
}

/*
 * Answers with the fixed part `info` and the chain. `argsz` and `cap_offset` point into `info`,
 * which keeps the caller's argsz otherwise.
 */
static long put_info(struct swiommu_caller *caller, uint64_t arg, void *info, size_t size,
		     uint32_t *argsz, uint32_t *cap_offset, const struct caps *caps,
		     const char *what)
{
	uint32_t room = *argsz;
	uint32_t need = (uint32_t)size + caps->used;
	long rc;

	if (caps->used && room < need) {
		*argsz = need;
	} else if (caps->used) {
		rc = vfio_copy_out(caller, arg + size, caps->bytes, caps->used, what);
		if (rc)
			return rc;
		*cap_offset = (uint32_t)size;
	}
	return vfio_copy_out(caller, arg, info, SWI_MIN(room, size), what);
}

long vfio_get_min(struct swiommu_caller *caller, void *dst, uint64_t arg, uint32_t min,
		  const char *what)
{
	uint32_t argsz;
	long rc = vfio_copy_in(caller, dst, arg, min, what);

	if (rc)
		return rc;
	memcpy(&argsz, dst, sizeof(argsz));
	if (argsz < min)
		return vfio_fail(caller, -EINVAL, "%s: argsz is %u, at least %u needed", what,
				 argsz, min);
	return 0;
}

long vfio_ioctl_get_info(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg)
{
	struct vfio_device_info info = {0};
	struct caps none = {0};
	long rc;

	rc = vfio_get_min(caller, &info, arg, 16, "VFIO_DEVICE_GET_INFO");
	if (rc)
		return rc;
	info.flags = VFIO_DEVICE_FLAGS_PCI | (file->dev->has_reset ? VFIO_DEVICE_FLAGS_RESET : 0);
	info.num_regions = VFIO_PCI_NUM_REGIONS;
	info.num_irqs = VFIO_PCI_NUM_IRQS;
	return put_info(caller, arg, &info, sizeof(info), &info.argsz, &info.cap_offset, &none,
			"VFIO_DEVICE_GET_INFO");
}

/* What of a BAR can be mapped, when not all of it can. */
static void add_sparse_cap(const struct vfio_region *r, struct caps *caps)
{
	struct vfio_region_sparse_mmap_area *area;
	uint32_t nr = r->nr_pages;
	uint8_t *body = add_cap(caps, VFIO_REGION_INFO_CAP_SPARSE_MMAP, 1, 8 + nr * sizeof(*area));

	memcpy(body, &nr, sizeof(nr));
	for (uint32_t i = 0; i < nr; i++) {
		struct vfio_region_sparse_mmap_area a = {.offset = r->pages[i].offset,
							 .size = r->pages[i].length};

		memcpy(body + 8 + i * sizeof(a), &a, sizeof(a));
	}
}

/* A client whose accesses are trapped sees BARs that can be mapped as a whole, as hardware has them. */
static void describe_bar(const struct vfio_device *dev, bool can_trap,
			 struct vfio_region_info *info, struct caps *caps)
{
	const struct vfio_region *r = &dev->regions[info->index];
	uint64_t span = vfio_region_span(dev, info->index);

	if (!r->size)
		return;
	info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	if (!span || (!can_trap && !r->nr_pages))
		return;
	info->flags |= VFIO_REGION_INFO_FLAG_MMAP;
	if (!can_trap && r->pages[0].length != span)
		add_sparse_cap(r, caps);
	if (dev->msix_vectors && dev->msix_bar == info->index)
		add_cap(caps, VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, 1, 0);
	if (caps->used)
		info->flags |= VFIO_REGION_INFO_FLAG_CAPS;
}

long vfio_ioctl_get_region_info(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg)
{
	struct vfio_device *dev = file->dev;
	struct vfio_region_info info;
	struct caps caps = {.base = sizeof(info)};
	long rc;

	rc = vfio_get_min(caller, &info, arg, sizeof(info), "VFIO_DEVICE_GET_REGION_INFO");
	if (rc)
		return rc;
	if (info.index >= VFIO_PCI_NUM_REGIONS || info.index == VFIO_PCI_VGA_REGION_INDEX)
		return vfio_fail(caller, -EINVAL,
				 "VFIO_DEVICE_GET_REGION_INFO: index %u: the device has regions "
				 "0-%d and no VGA",
				 info.index, VFIO_PCI_CONFIG_REGION_INDEX);
	info.flags = 0;
	info.cap_offset = 0;
	info.size = vfio_device_region_size(dev, info.index);
	info.offset = (uint64_t)info.index << VFIO_REGION_SHIFT;
	if (info.index < VFIO_NR_BARS)
		describe_bar(dev, caller->can_trap, &info, &caps);
	else if (info.index == VFIO_PCI_CONFIG_REGION_INDEX)
		info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	else if (info.size)
		info.flags = VFIO_REGION_INFO_FLAG_READ;
	return put_info(caller, arg, &info, sizeof(info), &info.argsz, &info.cap_offset, &caps,
			"VFIO_DEVICE_GET_REGION_INFO");
}

long vfio_ioctl_get_irq_info(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg)
{
	struct vfio_irq_info info;
	long rc;

	rc = vfio_get_min(caller, &info, arg, sizeof(info), "VFIO_DEVICE_GET_IRQ_INFO");
	if (rc)
		return rc;
	if (info.index >= VFIO_PCI_NUM_IRQS)
		return vfio_fail(caller, -EINVAL,
				 "VFIO_DEVICE_GET_IRQ_INFO: index %u: the device has indexes 0-%d",
				 info.index, VFIO_PCI_NUM_IRQS - 1);
	info.flags = VFIO_IRQ_INFO_EVENTFD;
	if (info.index == VFIO_PCI_INTX_IRQ_INDEX)
		info.flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
	else if (info.index != VFIO_PCI_MSIX_IRQ_INDEX)
		info.flags |= VFIO_IRQ_INFO_NORESIZE;
	info.count = vfio_irq_count(file->dev, info.index);
	return vfio_copy_out(caller, arg, &info, sizeof(info), "VFIO_DEVICE_GET_IRQ_INFO");
}

long vfio_check_feature(struct swiommu_caller *caller, uint32_t argsz, uint32_t flags,
			uint32_t directions, uint32_t size)
{
	const uint32_t get_set = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET;
	const unsigned int feature = flags & VFIO_DEVICE_FEATURE_MASK;

	if (flags & get_set & ~directions)
		return vfio_fail(caller, -EINVAL, "VFIO_DEVICE_FEATURE: feature %u has no %s",
				 feature, directions & VFIO_DEVICE_FEATURE_GET ? "SET" : "GET");
	if (flags & VFIO_DEVICE_FEATURE_PROBE)
		return 0;
	if (!(flags & get_set))
		return vfio_fail(caller, -EINVAL,
				 "VFIO_DEVICE_FEATURE: feature %u: neither GET nor SET", feature);
	if (argsz < sizeof(struct vfio_device_feature) + size)
		return vfio_fail(
			caller, -EINVAL,
			"VFIO_DEVICE_FEATURE: feature %u: argsz is %u, at least %zu needed",
			feature, argsz, sizeof(struct vfio_device_feature) + size);
	return 1;
}

long vfio_ioctl_feature(struct vfio_file *file, struct swiommu_caller *caller, uint64_t arg)
{
	const uint32_t get_set = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET;
	uint32_t head[2]; /* argsz, flags */
	long rc = vfio_get_min(caller, head, arg, sizeof(head), "VFIO_DEVICE_FEATURE");

	if (rc)
		return rc;
	if (head[1] & ~(VFIO_DEVICE_FEATURE_MASK | get_set | VFIO_DEVICE_FEATURE_PROBE))
		return vfio_fail(caller, -EINVAL, "VFIO_DEVICE_FEATURE: flags 0x%x: unknown bits",
				 head[1]);
	if ((head[1] & get_set) == get_set && !(head[1] & VFIO_DEVICE_FEATURE_PROBE))
		return vfio_fail(caller, -EINVAL,
				 "VFIO_DEVICE_FEATURE: GET and SET together only with PROBE");
	rc = vfio_token_feature(file->dev, caller, arg, head[0], head[1]);
	if (rc != -ENOTTY)
		return rc;
	if (file->dev->model->feature) {
		rc = file->dev->model->feature(file->dev->priv, caller, arg, head[0], head[1]);
	} else {
		rc = vfio_dma_log_feature(file->dev, caller, arg, head[0], head[1]);
	}
	if (rc != -ENOTTY)
		return rc;
	return vfio_fail(caller, -ENOTTY, "VFIO_DEVICE_FEATURE: %s does not have feature %u",
			 file->dev->place.bdf, head[1] & VFIO_DEVICE_FEATURE_MASK);
}
