// SPDX-License-Identifier: MIT
/* The table of built-in models, and the parser for their options. */
#include "vfio/model.h"

#include "vfio/device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct vfio_model *const models[] = {
	&vfio_model_ioat, &vfio_model_nvme, &vfio_model_iopf, &vfio_model_edu, &vfio_model_user,
};

const struct vfio_model *vfio_model_at(unsigned int index)
{
	return index < ARRAY_SIZE(models) ? models[index] : NULL;
}

const struct vfio_model *vfio_model_find(const char *name)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(models); i++)
		if (!strcmp(models[i]->name, name))
			return models[i];
	return NULL;
}

const char *vfio_model_name(const struct vfio_model *model)
{
	return model->name;
}

const char *vfio_model_summary(const struct vfio_model *model)
{
	return model->summary;
}

const char *vfio_model_main_option(const struct vfio_model *model)
{
	return model->main_option;
}

const char *vfio_model_options(const struct vfio_model *model)
{
	return model->options;
}

/* ---- options ----------------------------------------------------------------------------- */

/* A decimal or 0x number that fills [text, text+len); K, M, G or T behind it stands for 1024, 1024^2... */
static bool parse_number(const char *text, size_t len, uint64_t *out)
{
	static const char units[] = "KMGT";
	const char *unit;
	char copy[24];
	char *end;

	if (!len || len >= sizeof(copy) || text[0] < '0' || text[0] > '9')
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	errno = 0;
	*out = strtoull(copy, &end, 0);
	if (errno || !*end)
		return !errno;
	unit = strchr(units, *end);
	return unit && !end[1] &&
	       !__builtin_mul_overflow(*out, 1ull << 10 * (unit - units + 1), out);
}

static int parse_value(const struct vfio_option *opt, const char *text, size_t len,
		       struct swi_reason *why)
{
	uint64_t value;

	if (opt->text) {
		if (!len || len >= opt->text_size)
			return swi_fail(why, -EINVAL, "option %s: needs 1 to %zu characters",
					opt->key, opt->text_size - 1);
		memcpy(opt->text, text, len);
		opt->text[len] = '\0';
		return 0;
	}
	if (!parse_number(text, len, &value))
		return swi_fail(why, -EINVAL, "option %s: \"%.*s\" is not a number", opt->key,
				(int)SWI_MIN(len, 40u), text);
	if (value < opt->min || value > opt->max)
		return swi_fail(why, -EINVAL, "option %s: %llu is not in %llu-%llu", opt->key,
				(unsigned long long)value, (unsigned long long)opt->min,
				(unsigned long long)opt->max);
	*opt->number = value;
	return 0;
}

static const struct vfio_option *find_option(const struct vfio_option *known, unsigned int nr,
					     const char *key, size_t len)
{
	for (unsigned int i = 0; i < nr; i++)
		if (strlen(known[i].key) == len && !memcmp(known[i].key, key, len))
			return &known[i];
	return NULL;
}

static int unknown_option(const char *key, size_t len, const struct vfio_option *known,
			  unsigned int nr, struct swi_reason *why)
{
	char keys[160] = "";
	size_t used = 0;

	for (unsigned int i = 0; i < nr && used < sizeof(keys); i++)
		used += (size_t)snprintf(keys + used, sizeof(keys) - used, " %s=", known[i].key);
	return swi_fail(why, -EINVAL, "no such option: \"%.*s\"; the model has%s",
			(int)SWI_MIN(len, 40u), key, nr ? keys : " none of its own");
}

int vfio_options_parse(const char *options, const struct vfio_option *known, unsigned int nr_known,
		       struct swi_reason *why)
{
	const char *p = options;

	while (p && *p) {
		size_t len = strcspn(p, ",");
		const char *eq = memchr(p, '=', len);
		const struct vfio_option *opt;
		int rc;

		if (!eq)
			return swi_fail(why, -EINVAL, "option \"%.*s\": needs key=value",
					(int)SWI_MIN(len, 40u), p);
		opt = find_option(known, nr_known, p, (size_t)(eq - p));
		if (!opt)
			return unknown_option(p, (size_t)(eq - p), known, nr_known, why);
		rc = parse_value(opt, eq + 1, len - (size_t)(eq + 1 - p), why);
		if (rc)
			return rc;
		p += len;
		if (*p)
			p++;
	}
	return 0;
}
