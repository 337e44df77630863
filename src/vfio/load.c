// SPDX-License-Identifier: MIT
/*
 * Models in shared objects (<swiommu/model.h>). The object finds the services in the program that loads it, which must export
 * them. Objects stay loaded until the process ends, since nobody can tell when their last thread has left.
 */
#include "vfio/device.h"
#include "vfio/model.h"

#include <dlfcn.h>
#include <errno.h>

int vfio_model_load(const char *path, const struct vfio_model **out, struct swi_reason *why)
{
	const struct swiommu_model_export *e;
	const struct vfio_model *m;
	void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!object)
		return swi_fail(why, -ENOENT, "%s", dlerror());
	e = dlsym(object, "swiommu_model");
	if (!e)
		return swi_fail(why, -EINVAL,
				"%s: no device model: it does not have SWIOMMU_MODEL()", path);
	if (e->version != SWIOMMU_MODEL_VERSION || e->size != sizeof(*m))
		return swi_fail(why, -EINVAL,
				"%s: compiled for version %u of <swiommu/model.h>, this is %u: "
				"compile it again",
				path, e->version, SWIOMMU_MODEL_VERSION);
	m = e->model;
	if (!m || !m->name || !m->summary || !m->options || !m->create || !m->destroy || !m->open ||
	    !m->close || !m->reset || !m->region_read || !m->region_write)
		return swi_fail(why, -EINVAL, "%s: struct vfio_model is incomplete", path);
	*out = m;
	return 0;
}
