/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CONFORMANCE_FE_LIB_H
#define TESTS_CONFORMANCE_FE_LIB_H

/* What only the library front end can do: calls in the name of a caller of the test's own making. */

#include "suite.h"
#include <swiommu/iommufd.h>

struct iommufd_ctx *fe_lib_ictx(struct ctx *c);
struct iommufd_device *fe_lib_idev(struct mock *m);
/* One more stream of DMA of a mock device. */
struct swiommu_dma *fe_lib_dma(struct mock *m);

#endif
