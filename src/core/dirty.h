/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CORE_DIRTY_H
#define SWIOMMU_CORE_DIRTY_H

/*
 * Dirty tracking: which memory devices wrote through one HWPT (spec devices.md 3).
 *
 * The dirty bits are those of the HWPT's page table, a bit for each leaf (pgtable/dirty.c). Leaves of a HWPT that can
 * track are no larger than the pages of the memory (domain.h). So bits come with a mapping and go with it, and neither
 * marking nor reading needs memory.
 *
 * Why no write is lost, without a lock on the writers' side: a marker is inside a read section of the map (a DMA), and
 * marks before it writes, leaving out what it finds marked already. A reader that cleared something waits for the open
 * sections before it returns. So what was written by a marker that relied on an old mark is in memory by then, and
 * whoever copies the memory afterwards has it.
 */

#include "core/hwpt.h"

/* What device_attach and _replace must know: -EINVAL if the HWPT tracks and the device's IOMMU cannot. */
int dirty_check_attach(const struct device *dev, const struct hwpt *hwpt, struct swi_reason *why);

/*
 * A device is about to write `length` bytes at `iova`, which are mapped: they are dirty. Inside a read section, or
 * map locked. The HWPT tracks.
 */
static inline void dirty_mark(const struct hwpt *hwpt, iova_t iova, uint64_t length)
{
	pgtable_mark_dirty(hwpt->tables.table, iova, length);
}

#endif
