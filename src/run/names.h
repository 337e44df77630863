/* SPDX-License-Identifier: MIT */
#ifndef RUN_NAMES_H
#define RUN_NAMES_H

#include "run/session.h"

/*
 * The name of an ioctl on a file of this kind, such as "IOMMU_IOAS_MAP"; NULL if it has none. Only the low 32
 * bits of what a program passes make the command.
 */
const char *ioctl_name(enum node_kind kind, unsigned int cmd);

#endif
