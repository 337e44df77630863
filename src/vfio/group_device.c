// SPDX-License-Identifier: MIT
/*
 * Devices opened through their group: VFIO_GROUP_GET_DEVICE_FD (spec vfio.md 3.2) and the close of
 * what it gave.
 */
#include "vfio/group_internal.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

static const char what[] = "VFIO_GROUP_GET_DEVICE_FD";

#define NAME_MAX_BYTES 4096u /* with its NUL */

/* Copies the caller's string in, no further than the page in which it ends. */
static long copy_name(struct swiommu_caller *caller, char *name, uint64_t arg)
{
	size_t len = 0;

	while (len < NAME_MAX_BYTES) {
		size_t n =
			SWI_MIN(SWI_PAGE_SIZE - (arg + len) % SWI_PAGE_SIZE, NAME_MAX_BYTES - len);
		long rc = vfio_copy_in(caller, name + len, arg + len, n, what);

		if (rc)
			return rc;
		if (memchr(name + len, '\0', n))
			return 0;
		len += n;
	}
	return vfio_fail(caller, -EINVAL, "%s: the name is longer than a page", what);
}

/* A device of the group whose name begins the text; *tail is what follows: "" or words. */
static struct vfio_device *find_device(struct vfio_group *group, const char *name,
				       const char **tail)
{
	struct vfio_device *dev;
	struct list *pos;

	vfio_for_each_device (dev, pos, group) {
		size_t len = strlen(dev->place.bdf);

		if (strncmp(name, dev->place.bdf, len) || (name[len] && name[len] != ' '))
			continue;
		*tail = name + len;
		return dev;
	}
	return NULL;
}

/* "vf_token=UUID" words, at most one. */
static long parse_words(struct swiommu_caller *caller, const char *words, uint8_t token[16],
			bool *has_token)
{
	static const char key[] = "vf_token=";

	*has_token = false;
	for (words += strspn(words, " "); *words; words += strspn(words, " ")) {
		size_t len = strcspn(words, " ");

		if (strncmp(words, key, strlen(key)))
			return vfio_fail(caller, -EINVAL, "%s: \"%.*s\" is not known after a name",
					 what, (int)SWI_MIN(len, 40u), words);
		if (*has_token)
			return vfio_fail(caller, -EINVAL, "%s: two tokens", what);
		if (!vfio_parse_uuid(words + strlen(key), len - strlen(key), token))
			return vfio_fail(caller, -EINVAL, "%s: vf_token is not a UUID", what);
		*has_token = true;
		words += len;
	}
	return 0;
}

/* Binds the device to the group's context, and attaches it to the compat IOAS of this moment. */
static long bind_to_ctx(struct vfio_device *dev, struct iommufd_ctx *ctx,
			struct swiommu_caller *caller)
{
	uint32_t id, pt_id;
	long rc = iommufd_vfio_compat_ioas_get_id(ctx, &pt_id);

	if (rc)
		return vfio_fail(caller, rc, "%s: the iommufd has no compat IOAS", what);
	rc = vfio_device_bind(dev, ctx, &id);
	if (rc)
		return vfio_fail(caller, rc,
				 "%s: %s cannot be bound to the iommufd: its group's DMA has "
				 "another owner, or memory is short",
				 what, dev->place.bdf);
	rc = vfio_device_attach(dev, &pt_id, caller);
	if (rc)
		vfio_device_unbind(dev);
	return rc;
}

static void unbind_from_ctx(struct vfio_device *dev)
{
	vfio_device_detach(dev);
	vfio_device_unbind(dev);
}

static long first_open(struct vfio_group_file *gf, struct vfio_device *dev,
		       struct swiommu_caller *caller)
{
	uint32_t id;
	long rc = 0;

	if (gf->ctx && !dev->place.noiommu)
		rc = bind_to_ctx(dev, gf->ctx, caller);
	else if (gf->ctx && !iommufd_vfio_compat_ioas_get_id(gf->ctx, &id))
		rc = vfio_fail(caller, -EPERM,
			       "%s: the iommufd has got a compat IOAS (%u), which a device without "
			       "an IOMMU cannot use",
			       what, id);

	if (rc)
		return rc;
	rc = vfio_device_start(dev);
	if (!rc)
		return 0;
	if (gf->ctx && !dev->place.noiommu)
		unbind_from_ctx(dev);
	return vfio_fail(caller, rc, "%s: %s cannot start", what, dev->place.bdf);
}

static long open_locked(struct vfio_group_file *gf, struct vfio_device *dev,
			struct swiommu_caller *caller)
{
	long rc;

	if (!gf->ctx && !gf->container)
		return vfio_fail(caller, -EINVAL, "%s: the group is in no container", what);
	if (gf->container && !vfio_container_has_type(gf->container))
		return vfio_fail(caller, -EINVAL,
				 "%s: the container has no type: VFIO_SET_IOMMU comes first", what);
	if (dev->place.noiommu && vfio_noiommu_check(caller, what))
		return -EPERM;
	if (!dev->group_opens) {
		rc = first_open(gf, dev, caller);
		if (rc)
			return rc;
		dev->group_bound = gf->ctx && !dev->place.noiommu;
	}
	dev->group_opens++;
	gf->nr_device_files++;
	return 0;
}

int vfio_group_get_device(struct vfio_group_file *gf, struct swiommu_caller *caller, uint64_t arg,
			  struct vfio_file **out)
{
	char *name = swi_alloc(NAME_MAX_BYTES);
	struct vfio_device *dev;
	struct vfio_file *file;
	const char *tail;
	uint8_t token[16];
	bool has_token;
	long rc;

	caller->reason[0] = '\0';
	if (!name)
		return (int)vfio_fail(caller, -ENOMEM, "%s: out of memory", what);
	rc = copy_name(caller, name, arg);
	if (rc)
		goto free_name;
	dev = find_device(gf->group, name, &tail);
	if (!dev) {
		rc = vfio_fail(caller, -ENODEV, "%s: group %u has no device \"%.40s\"", what,
			       gf->group->group->id, name);
		goto free_name;
	}
	rc = parse_words(caller, tail, token, &has_token);
	if (!rc)
		rc = vfio_token_enter(dev, caller, has_token ? token : NULL, what);
	if (rc)
		goto free_name;
	rc = vfio_file_open(dev, &file);
	if (rc) {
		vfio_fail(caller, rc, "%s: out of memory", what);
		goto leave;
	}
	pthread_mutex_lock(&gf->group->lock);
	rc = open_locked(gf, dev, caller);
	pthread_mutex_unlock(&gf->group->lock);
	if (rc) {
		vfio_file_close(file);
		goto leave;
	}
	file->group = vfio_group_file_get(gf);
	atomic_store(&file->bound, true);
	*out = file;
	goto free_name;
leave:
	vfio_token_leave(dev);
free_name:
	swi_free(name);
	return (int)rc;
}

void vfio_group_close_device(struct vfio_file *file)
{
	struct vfio_group_file *gf = file->group;
	struct vfio_device *dev = file->dev;

	pthread_mutex_lock(&gf->group->lock);
	gf->nr_device_files--;
	if (!--dev->group_opens) {
		vfio_device_stop(dev);
		if (dev->group_bound)
			unbind_from_ctx(dev);
		dev->group_bound = false;
	}
	pthread_mutex_unlock(&gf->group->lock);
	vfio_token_leave(dev);
	vfio_group_file_put(gf);
}
