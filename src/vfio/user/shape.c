// SPDX-License-Identifier: MIT
/*
 * What the server's device looks like: GET_INFO, GET_REGION_INFO, GET_IRQ_INFO and its configuration space
 * (spec vfio.md 6.2, 6.5, 6.6).
 *
 * Everything is judged before it is believed. What would merely be lost by an odd answer is left out (an area that
 * is not made of whole pages cannot be mapped); what makes no sense at all fails.
 */
#include "vfio/user/user.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Room for a region's answer with its capabilities; one that needs more is used without them. */
#define REGION_INFO_MAX 4096u
#define REGION_SIZE_MAX (1ull << 36)
#define NR_CAPS_MAX 16

static int ask(struct vu_conn *c, uint16_t cmd, const char *what, void *info, size_t size,
	       struct swi_reason *why)
{
	struct vu_call call = {.cmd = cmd,
			       .head = info,
			       .head_len = size,
			       .reply = info,
			       .reply_min = size,
			       .reply_max = size};
	int rc = vu_call(c, &call);

	return rc ? swi_fail(why, rc, "the server does not answer %s: %s", what, strerror(-rc)) : 0;
}

static int get_info(struct vu_conn *c, struct vu_shape *s, unsigned int *nr_regions,
		    unsigned int *nr_irqs, struct swi_reason *why)
{
	struct vfio_device_info info = {.argsz = 16};
	int rc = ask(c, VU_DEVICE_GET_INFO, "GET_INFO", &info, 16, why);

	if (rc)
		return rc;
	if (!(info.flags & VFIO_DEVICE_FLAGS_PCI) ||
	    info.num_regions <= VFIO_PCI_CONFIG_REGION_INDEX)
		return swi_fail(
			why, -ENODEV,
			"the server's device is not a PCI function (flags 0x%x, %u regions)",
			info.flags, info.num_regions);
	s->flags = info.flags & (VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET);
	*nr_regions = info.num_regions;
	*nr_irqs = info.num_irqs;
	return 0;
}

/* ---- regions --------------------------------------------------------------------------------- */

/* Adds an area if it can be mapped at all. */
static void add_area(struct vu_region *r, const struct vfio_region_info *info, int fd,
		     uint64_t offset, uint64_t length)
{
	uint64_t file, end;
	struct vu_area *last = r->nr_areas ? &r->areas[r->nr_areas - 1] : NULL;
	struct stat st;

	if (__builtin_add_overflow(info->offset, offset, &file) ||
	    __builtin_add_overflow(file, length, &end))
		return;
	if (!length || (offset | length | file) % SWI_PAGE_SIZE || offset > r->size ||
	    length > r->size - offset || r->nr_areas == VU_NR_AREAS ||
	    (last && offset < last->offset + last->length))
		return;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || end > (uint64_t)st.st_size)
		return;
	r->areas[r->nr_areas++] = (struct vu_area){offset, length, file};
}

static void take_sparse(struct vu_region *r, const struct vfio_region_info *info, int fd,
			const uint8_t *cap, size_t len)
{
	struct vfio_region_sparse_mmap_area area;
	uint32_t nr;
	size_t at = sizeof(struct vfio_region_info_cap_sparse_mmap);

	if (len < at)
		return;
	memcpy(&nr, cap + offsetof(struct vfio_region_info_cap_sparse_mmap, nr_areas), sizeof(nr));
	for (; nr && len - at >= sizeof(area); nr--, at += sizeof(area)) {
		memcpy(&area, cap + at, sizeof(area));
		add_area(r, info, fd, area.offset, area.size);
	}
}

/* Looks for the sparse mmap capability in an answer of `len` bytes. */
static bool find_sparse(const uint8_t *bytes, size_t len, uint32_t at, size_t *found)
{
	struct vfio_info_cap_header cap;

	for (unsigned int i = 0; i < NR_CAPS_MAX && at >= sizeof(struct vfio_region_info); i++) {
		if (at > len || len - at < sizeof(cap))
			return false;
		memcpy(&cap, bytes + at, sizeof(cap));
		if (cap.id == VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
			*found = at;
			return true;
		}
		at = cap.next;
	}
	return false;
}

static void take_areas(struct vu_region *r, const struct vfio_region_info *info,
		       const uint8_t *bytes, size_t len, int fd)
{
	bool whole_answer = info->argsz <= REGION_INFO_MAX;
	size_t cap;

	if (fd < 0 || !(info->flags & VFIO_REGION_INFO_FLAG_MMAP))
		return;
	if (info->flags & VFIO_REGION_INFO_FLAG_CAPS &&
	    find_sparse(bytes, len, info->cap_offset, &cap))
		take_sparse(r, info, fd, bytes + cap, len - cap);
	else if (whole_answer)
		add_area(r, info, fd, 0, r->size & ~(uint64_t)(SWI_PAGE_SIZE - 1));
}

/* *fd: the file of the region's areas, -1 if there are none. */
static int get_region(struct vu_conn *c, unsigned int index, struct vu_region *r, int *fd,
		      struct swi_reason *why)
{
	struct vfio_region_info info = {.argsz = REGION_INFO_MAX, .index = index};
	uint8_t bytes[REGION_INFO_MAX];
	struct vu_call call = {.cmd = VU_DEVICE_GET_REGION_INFO,
			       .head = &info,
			       .head_len = sizeof(info),
			       .reply = bytes,
			       .reply_min = sizeof(info),
			       .reply_max = sizeof(bytes),
			       .reply_fds = fd,
			       .max_reply_fds = 1};
	int rc;

	*fd = -1;
	rc = vu_call(c, &call);
	if (rc)
		return swi_fail(why, rc, "the server does not answer GET_REGION_INFO %u: %s", index,
				strerror(-rc));
	memcpy(&info, bytes, sizeof(info));
	if (info.index != index || info.size > REGION_SIZE_MAX) {
		rc = swi_fail(why, -EPROTO, "the server's region %u is number %u, 0x%llx bytes",
			      index, info.index, (unsigned long long)info.size);
		goto close;
	}
	r->size = info.size;
	r->flags = info.flags & (VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
				 VFIO_REGION_INFO_FLAG_MMAP);
	if (index < VU_NR_BARS)
		take_areas(r, &info, bytes, call.reply_len, *fd);
	if (r->nr_areas)
		return 0;
close:
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	return rc;
}

static int get_irq(struct vu_conn *c, unsigned int index, uint32_t *count, struct swi_reason *why)
{
	static const uint32_t most[VU_NR_IRQS] = {1, 32, 2048};
	struct vfio_irq_info info = {.argsz = sizeof(info), .index = index};
	int rc = ask(c, VU_DEVICE_GET_IRQ_INFO, "GET_IRQ_INFO", &info, sizeof(info), why);

	if (rc)
		return rc;
	*count = info.flags & VFIO_IRQ_INFO_EVENTFD ? SWI_MIN(info.count, most[index]) : 0;
	return 0;
}

int vu_shape_get(struct vu_conn *c, struct vu_shape *out, int fds[VU_NR_BARS],
		 struct swi_reason *why)
{
	unsigned int nr_regions = 0, nr_irqs = 0;
	uint8_t header[64];
	int rc, ignored;

	memset(out, 0, sizeof(*out));
	for (unsigned int i = 0; i < VU_NR_BARS; i++)
		fds[i] = -1;
	rc = get_info(c, out, &nr_regions, &nr_irqs, why);
	for (unsigned int i = 0; !rc && i < VU_NR_REGIONS; i++)
		rc = get_region(c, i, &out->regions[i], i < VU_NR_BARS ? &fds[i] : &ignored, why);
	for (unsigned int i = 0; !rc && i < SWI_MIN(nr_irqs, VU_NR_IRQS); i++)
		rc = get_irq(c, i, &out->irqs[i], why);
	if (!rc && out->regions[VFIO_PCI_CONFIG_REGION_INDEX].size < 64)
		rc = swi_fail(why, -ENODEV, "the server's configuration space has %llu bytes",
			      (unsigned long long)out->regions[VFIO_PCI_CONFIG_REGION_INDEX].size);
	if (!rc)
		rc = vu_shape_config(c, header, sizeof(header));
	if (!rc) {
		memcpy(out->identity, header + PCI_VENDOR_ID, 4);
		memcpy(out->identity + 4, header + PCI_REVISION_ID, 4);
		memcpy(out->identity + 8, header + PCI_SUBSYSTEM_VENDOR_ID, 4);
		return 0;
	}
	for (unsigned int i = 0; i < VU_NR_BARS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return why->text[0]
		       ? rc
		       : swi_fail(why, rc, "the server's configuration space: %s", strerror(-rc));
}

int vu_shape_config(struct vu_conn *c, uint8_t *buf, unsigned int size)
{
	int rc;

	/* In one go if the server can; in registers where it has only those. */
	for (unsigned int pos = 0; pos < size; pos += 256) {
		unsigned int n = SWI_MIN(size - pos, 256u);

		rc = vu_region_read(c, VFIO_PCI_CONFIG_REGION_INDEX, pos, buf + pos, n);
		for (unsigned int at = pos; rc && at < pos + n; at += 4) {
			if (vu_conn_is(c, VU_LOST))
				return -EIO;
			if (vu_region_read(c, VFIO_PCI_CONFIG_REGION_INDEX, at, buf + at,
					   SWI_MIN(4u, pos + n - at)))
				memset(buf + at, 0, SWI_MIN(4u, pos + n - at));
		}
	}
	return vu_conn_is(c, VU_LOST) ? -EIO : 0;
}
