// SPDX-License-Identifier: MIT
/* Shared objects that are no device model, each in its own way; see meson.build. */
#include <swiommu/model.h>

#if defined(OTHER_VERSION)
static const struct vfio_model model;
const struct swiommu_model_export swiommu_model = {SWIOMMU_MODEL_VERSION + 1, sizeof(model),
						   &model};
#elif defined(INCOMPLETE)
static const struct vfio_model model = {.name = "incomplete", .summary = "", .options = ""};
SWIOMMU_MODEL(model);
#else
extern int nothing;
int nothing;
#endif
