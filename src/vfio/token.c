// SPDX-License-Identifier: MIT
/*
 * VF tokens: the secret by which the user of a physical function lets others use its virtual ones
 * (spec vfio.md 2.3 step 7). No device here is an SR-IOV function, so no token is ever wanted, and
 * one that is given is a mistake of the client's.
 */
#include "vfio/internal.h"

#include <ctype.h>
#include <errno.h>

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

long vfio_check_token(const struct vfio_device *dev, struct swiommu_caller *caller,
		      const uint8_t *token, const char *what)
{
	if (!token)
		return 0;
	return vfio_fail(caller, -EINVAL, "%s: a VF token, but %s is no SR-IOV function", what,
			 dev->place.bdf);
}
