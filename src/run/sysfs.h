/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_SYSFS_H
#define SWIOMMU_RUN_SYSFS_H

#include "run/graft.h"
#include "run/session.h"

/* Adds what /sys tells of the devices of the session: devices, groups, driver, modules. */
void sysfs_build(struct graft *g, const struct session *s);

#endif
