// SPDX-License-Identifier: MIT
/*
 * VF tokens: the secret that the user of a physical function and the users of its virtual ones share, so that nobody
 * who was not let in by the first depends on him (spec vfio.md 2.3 step 7).
 *
 * A physical function has a token from the beginning, one that nobody knows; DEVICE_FEATURE sets another one. Who
 * opens a virtual function must give it. Who opens the physical function while virtual ones are open must
 * give it too; while none is, the token that he gives becomes the one.
 */
#include "vfio/internal.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

bool vfio_parse_uuid(const char *text, size_t len, uint8_t uuid[16])
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	unsigned int nibbles = 0;

	if (len != sizeof(form) - 1)
		return false;
	for (size_t i = 0; i < len; i++) {
		int c = tolower((unsigned char)text[i]);
		int value = isdigit(c) ? c - '0' : c - 'a' + 10;

		if (form[i] == '-') {
			if (c != '-')
				return false;
			continue;
		}
		if (!isxdigit(c))
			return false;
		uuid[nibbles / 2] = (uint8_t)(nibbles % 2 ? uuid[nibbles / 2] | value : value << 4);
		nibbles++;
	}
	return true;
}

void vfio_device_set_pf(struct vfio_device *vf, struct vfio_device *pf)
{
	vf->pf = pf;
	/* Should there be no random numbers, the zeros are no secret; but a test needs none. */
	if (!pf->nr_vfs++ && getrandom(pf->vf_token, sizeof(pf->vf_token), GRND_NONBLOCK) < 0)
		memset(pf->vf_token, 0, sizeof(pf->vf_token));
}

struct vfio_device *vfio_device_pf(const struct vfio_device *dev)
{
	return dev->pf;
}

static bool matches(const struct vfio_device *pf, const uint8_t *token)
{
	return token && !memcmp(pf->vf_token, token, sizeof(pf->vf_token));
}

static long enter_vf_locked(struct vfio_device *dev, struct swiommu_caller *caller,
			    const uint8_t *token, const char *what)
{
	if (!matches(dev->pf, token))
		return vfio_fail(caller, -EACCES, "%s: %s is a virtual function of %s: %s", what,
				 dev->place.bdf, dev->pf->place.bdf,
				 token ? "that is not its token" : "its token is needed");
	dev->pf->vf_users++;
	return 0;
}

static long enter_pf_locked(struct vfio_device *dev, struct swiommu_caller *caller,
			    const uint8_t *token, const char *what)
{
	if (dev->vf_users && !matches(dev, token))
		return vfio_fail(caller, -EACCES, "%s: virtual functions of %s are in use: %s",
				 what, dev->place.bdf,
				 token ? "that is not their token" : "their token is needed");
	if (token)
		memcpy(dev->vf_token, token, sizeof(dev->vf_token));
	return 0;
}

long vfio_token_enter(struct vfio_device *dev, struct swiommu_caller *caller, const uint8_t *token,
		      const char *what)
{
	struct vfio_device *pf = dev->pf ? dev->pf : dev;
	long rc;

	if (!dev->pf && !dev->nr_vfs)
		return token ? vfio_fail(caller, -EINVAL,
					 "%s: a VF token, but %s is no SR-IOV function", what,
					 dev->place.bdf)
			     : 0;
	pthread_mutex_lock(&pf->token_lock);
	rc = dev->pf ? enter_vf_locked(dev, caller, token, what)
		     : enter_pf_locked(dev, caller, token, what);
	pthread_mutex_unlock(&pf->token_lock);
	return rc;
}

void vfio_token_leave(struct vfio_device *dev)
{
	if (!dev->pf)
		return;
	pthread_mutex_lock(&dev->pf->token_lock);
	dev->pf->vf_users--;
	pthread_mutex_unlock(&dev->pf->token_lock);
}

long vfio_token_feature(struct vfio_device *dev, struct swiommu_caller *caller, uint64_t arg,
			uint32_t argsz, uint32_t flags)
{
	uint8_t token[16];
	long rc;

	if ((flags & VFIO_DEVICE_FEATURE_MASK) != VFIO_DEVICE_FEATURE_PCI_VF_TOKEN || !dev->nr_vfs)
		return -ENOTTY;
	rc = vfio_check_feature(caller, argsz, flags, VFIO_DEVICE_FEATURE_SET, sizeof(token));
	if (rc <= 0)
		return rc;
	rc = vfio_copy_in(caller, token, arg + sizeof(struct vfio_device_feature), sizeof(token),
			  "VF token");
	if (rc)
		return rc;
	pthread_mutex_lock(&dev->token_lock);
	memcpy(dev->vf_token, token, sizeof(token));
	pthread_mutex_unlock(&dev->token_lock);
	return 0;
}
