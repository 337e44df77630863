// SPDX-License-Identifier: MIT
/*
 * The devices of a session: each --device is a model with a place, which is a PCI address, a number N
 * of vfioN, and an IOMMU group.
 *
 * All of them are read before the first is made, because what one asks for by name no other may be
 * given by chance: "--device ioat --device ioat,bdf=0000:80:01.0" must work. Several devices may ask
 * for one group; without group= each has one of its own. Nothing that the machine has itself is
 * taken: such an address or group is refused.
 */
#include "run/session.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/alloc.h"
#include "run/groups.h"

#define SPEC_MAX 1024
#define BDF_SIZE 13
#define GROUP_MAX 999999u

/* Majors of our own device numbers: what no kernel gives to anything, so that they name nothing else. */
#define MAJOR_CDEV 511
#define MAJOR_MISC 10
#define MINOR_IOMMU 60000 /* above what the kernel reaches by counting */
#define MINOR_VFIO 196
#define MAJOR_GROUP 510

/* What a --device asks for. */
struct request {
	const char *spec;
	const struct vfio_model *model;
	char bdf[BDF_SIZE]; /* "": any */
	bool has_group, emulated, noiommu;
	char vf_of[80]; /* "": it is no virtual function */
	unsigned int group;
	char options[SPEC_MAX + 32]; /* of the model */
};

/* ---- reading --------------------------------------------------------------------------------- */

static void say_models(struct session *s)
{
	const struct vfio_model *m;
	char names[256] = "";

	for (unsigned int i = 0; (m = vfio_model_at(i)); i++) {
		strncat(names, " ", sizeof(names) - strlen(names) - 1);
		strncat(names, vfio_model_name(m), sizeof(names) - strlen(names) - 1);
	}
	session_say(s, "the models are:%s (swiommu devices tells their options)", names);
}

/* "dddd:bb:dd.f" in hexadecimal, device at most 1f, function at most 7. */
static bool valid_bdf(const char *bdf)
{
	static const char form[] = "xxxx:xx:xx.x";

	for (size_t i = 0; i < sizeof(form); i++) {
		bool ok = form[i] == 'x' ? isxdigit((unsigned char)bdf[i]) : bdf[i] == form[i];

		if (!ok)
			return false;
	}
	return bdf[8] <= '1' && bdf[11] <= '7';
}

static bool on_machine(const char *bdf)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", bdf);
	return !access(path, F_OK);
}

/* bdf=TEXT; the domain may be left out, as lspci does. */
static int read_bdf(struct session *s, struct request *r, const char *text)
{
	char full[80];

	snprintf(full, sizeof(full), "%s%s", strlen(text) == 7 ? "0000:" : "", text);
	if (strlen(full) != BDF_SIZE - 1 || !valid_bdf(full)) {
		session_say(s, "--device %s: bdf=%s: not a PCI address such as 0000:80:01.0",
			    r->spec, text);
		return -EINVAL;
	}
	for (size_t i = 0; i < BDF_SIZE; i++)
		r->bdf[i] = tolower((unsigned char)full[i]);
	if (on_machine(r->bdf)) {
		session_say(s,
			    "--device %s: bdf=%s: this machine has a device at this address "
			    "already",
			    r->spec, r->bdf);
		return -EEXIST;
	}
	return 0;
}

static int read_group(struct session *s, struct request *r, const char *text)
{
	unsigned long n;
	char path[64], *end;

	n = strtoul(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || n > GROUP_MAX) {
		session_say(s, "--device %s: group=%s: not a number from 0 to %u", r->spec, text,
			    GROUP_MAX);
		return -EINVAL;
	}
	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%lu", n);
	if (!access(path, F_OK)) {
		session_say(s, "--device %s: group=%lu: this machine has a group of that number",
			    r->spec, n);
		return -EEXIST;
	}
	r->has_group = true;
	r->group = n;
	return 0;
}

/* "KEY=0" or "KEY=1"; `value` is where the digit is. */
static int read_flag(struct session *s, const struct request *r, const char *text, size_t value,
		     bool *out)
{
	if ((text[value] != '0' && text[value] != '1') || text[value + 1]) {
		session_say(s, "--device %s: %s: neither 0 nor 1", r->spec, text);
		return -EINVAL;
	}
	*out = text[value] == '1';
	return 0;
}

/* One "key=value" that is ours; 1: it is the model's. */
static int read_key(struct session *s, struct request *r, const char *key, size_t len)
{
	char text[64];

	if (len >= sizeof(text))
		return 1;
	snprintf(text, sizeof(text), "%.*s", (int)len, key);
	if (!strncmp(text, "bdf=", 4))
		return read_bdf(s, r, text + 4);
	if (!strncmp(text, "group=", 6))
		return read_group(s, r, text + 6);
	if (!strncmp(text, "vf_of=", 6)) {
		snprintf(r->vf_of, sizeof(r->vf_of), "%s%s", strlen(text) == 13 ? "0000:" : "",
			 text + 6);
		return 0;
	}
	if (!strncmp(text, "emulated=", 9))
		return read_flag(s, r, text, 9, &r->emulated);
	if (!strncmp(text, "noiommu=", 8))
		return read_flag(s, r, text, 8, &r->noiommu);
	return 1;
}

/* A built-in one, or the path of a shared object. */
static int find_model(struct session *s, struct request *r, const char *model)
{
	struct swi_reason why = {""};

	r->model = NULL;
	if (strchr(model, '/')) {
		if (vfio_model_load(model, &r->model, &why))
			session_say(s, "--device %s: %s", r->spec, why.text);
		return r->model ? 0 : -EINVAL;
	}
	r->model = vfio_model_find(model);
	if (r->model)
		return 0;
	session_say(s, "--device %s: there is no device model '%s'", r->spec, model);
	say_models(s);
	return -EINVAL;
}

/* "model,bdf=B,key=value": takes our keys out, the rest are the model's; "model:V" gives its main option. */
static int read_request(struct session *s, const char *spec, struct request *r)
{
	char model[SPEC_MAX], *out = r->options;
	const char *at, *end, *colon;
	int rc;

	r->spec = spec;
	if (strlen(spec) >= SPEC_MAX) {
		session_say(s, "--device: more than %d characters", SPEC_MAX - 1);
		return -E2BIG;
	}
	end = strchrnul(spec, ',');
	colon = memchr(spec, ':', end - spec);
	snprintf(model, sizeof(model), "%.*s", (int)((colon ? colon : end) - spec), spec);
	rc = find_model(s, r, model);
	if (rc)
		return rc;
	if (colon && !vfio_model_main_option(r->model)) {
		session_say(s, "--device %s: model '%s' has no main option", spec, model);
		return -EINVAL;
	}
	if (colon)
		out += snprintf(out, sizeof(r->options), "%.20s=%.*s",
				vfio_model_main_option(r->model), (int)(end - colon - 1),
				colon + 1);
	while (*end) {
		at = end + 1;
		end = strchrnul(at, ',');
		rc = read_key(s, r, at, end - at);
		if (rc < 0)
			return rc;
		if (!rc)
			continue;
		out += sprintf(out, "%s%.*s", out == r->options ? "" : ",", (int)(end - at), at);
	}
	return 0;
}

static int check_conflicts(struct session *s, const struct request *r, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < i; j++)
			if (r[i].bdf[0] && !strcmp(r[i].bdf, r[j].bdf)) {
				session_say(s,
					    "--device %s: bdf=%s: another --device (%s) has this "
					    "address already",
					    r[i].spec, r[i].bdf, r[j].spec);
				return -EEXIST;
			}
	return 0;
}

/* ---- places ---------------------------------------------------------------------------------- */

/* Addresses for those that did not ask for one: function 0 of slots that nobody has or asked for. */
static int place_rest(struct request *r, size_t n)
{
	unsigned int slot = 0x80 << 5 | 1;

	for (size_t i = 0; i < n; i++) {
		while (!r[i].bdf[0]) {
			char bdf[32];
			bool taken;

			if (slot >= 0x100 << 5)
				return -ENOSPC;
			snprintf(bdf, sizeof(bdf), "0000:%02x:%02x.0", slot >> 5, slot & 0x1f);
			taken = on_machine(bdf);
			for (size_t j = 0; j < n; j++)
				taken |= !strncmp(r[j].bdf, bdf, BDF_SIZE - 2);
			if (!taken)
				memcpy(r[i].bdf, bdf, BDF_SIZE);
			slot++;
			if (!(slot & 0x1f))
				slot++;
		}
	}
	return 0;
}

static bool multifunction(const struct request *r, size_t n, size_t which)
{
	for (size_t i = 0; i < n; i++)
		if (i != which && !strncmp(r[i].bdf, r[which].bdf, BDF_SIZE - 2))
			return true;
	return false;
}

/* One past the largest number at the end of the names in a directory that begin with `prefix`. */
static unsigned int first_free_number(const char *dir, const char *prefix)
{
	size_t len = strlen(prefix);
	unsigned int next = 0;
	struct dirent *d;
	DIR *list = opendir(dir);

	if (!list)
		return 0;
	while ((d = readdir(list)))
		if (!strncmp(d->d_name, prefix, len) && isdigit((unsigned char)d->d_name[len]))
			next = SWI_MAX(next, (unsigned int)atoi(d->d_name + len) + 1);
	closedir(list);
	return next;
}

/* Group numbers for those that did not ask for one. */
static void group_rest(struct request *r, size_t n)
{
	unsigned int next = first_free_number("/sys/kernel/iommu_groups", "");

	for (size_t i = 0; i < n; i++)
		while (!r[i].has_group) {
			bool taken = false;

			for (size_t j = 0; j < n; j++)
				taken |= r[j].has_group && r[j].group == next;
			if (!taken) {
				r[i].has_group = true;
				r[i].group = next;
			}
			next++;
		}
}

/* ---- making ---------------------------------------------------------------------------------- */

static int get_group(struct session *s, unsigned int number, struct session_group **out)
{
	struct session_group *g;
	int rc;

	for (size_t i = 0; i < s->nr_groups; i++)
		if (s->groups[i].group.id == number) {
			*out = &s->groups[i];
			return 0;
		}
	g = &s->groups[s->nr_groups];
	rc = iommu_group_init(&g->group, number);
	if (rc)
		return rc;
	s->nr_groups++;
	*out = g;
	return 0;
}

/* A device without an IOMMU is alone in its group, and is none that needs no IOMMU. */
static int check_noiommu(struct session *s, const struct request *r, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (r[i].noiommu && r[i].emulated) {
			session_say(s, "--device %s: an emulated device has no use for noiommu=1",
				    r[i].spec);
			return -EINVAL;
		}
		for (size_t j = 0; j < n; j++)
			if (j != i && r[i].noiommu && r[i].group == r[j].group) {
				session_say(s,
					    "--device %s: with noiommu=1 no other device (%s) can "
					    "be in group %u",
					    r[i].spec, r[j].spec, r[i].group);
				return -EINVAL;
			}
	}
	return 0;
}

static int add_device(struct session *s, const struct request *r, unsigned int index, bool multi)
{
	struct session_device *d = &s->devices[s->nr_devices];
	struct swi_reason why = {""};
	int rc = get_group(s, r->group, &d->group);

	if (rc)
		return rc;
	memcpy(d->place.bdf, r->bdf, sizeof(d->place.bdf));
	d->place.multifunction = multi;
	d->place.emulated = r->emulated;
	d->place.noiommu = r->noiommu;
	d->place.index = index;
	d->place.group = &d->group->group;
	d->place.log = &s->log;
	rc = vfio_device_create(r->model, &d->place, r->options, &d->dev, &why);
	if (rc) {
		session_say(s, "--device %s: %s", r->spec, why.text[0] ? why.text : strerror(-rc));
		return rc;
	}
	s->nr_devices++;
	snprintf(d->name, sizeof(d->name), "%svfio%u", r->noiommu ? "noiommu-" : "", index);
	s->noiommu |= r->noiommu;
	if (r->noiommu)
		d->group->guarded = d->dev;
	if (s->share_memory == SHARE_WHERE_PREFERRED && vfio_device_prefers_files(d->dev))
		s->convert = true;
	return 0;
}

static void init_node(struct node *n, enum node_kind kind, dev_t rdev)
{
	n->kind = kind;
	n->rdev = rdev;
	n->fd = -1;
}

static struct node *add_node(struct session *s, enum node_kind kind, dev_t rdev)
{
	struct node *n = &s->nodes[s->nr_nodes++];

	init_node(n, kind, rdev);
	return n;
}

static void add_device_nodes(struct session *s)
{
	struct node *n;

	for (size_t i = 0; i < s->nr_devices; i++) {
		n = add_node(s, NODE_VFIO_CDEV, makedev(MAJOR_CDEV, s->devices[i].place.index));
		n->device = &s->devices[i];
		snprintf(n->path, sizeof(n->path), "/dev/vfio/devices/%s", s->devices[i].name);
		s->devices[i].rdev = n->rdev;
		s->devices[i].node = n;
	}
	if (s->nr_groups) {
		n = add_node(s, NODE_VFIO_CONTAINER, makedev(MAJOR_MISC, MINOR_VFIO));
		snprintf(n->path, sizeof(n->path), "/dev/vfio/vfio");
	}
	for (size_t i = 0; i < s->nr_groups; i++) {
		n = add_node(s, NODE_VFIO_GROUP, makedev(MAJOR_GROUP, s->groups[i].group.id));
		n->group = &s->groups[i];
		snprintf(n->path, sizeof(n->path), "/dev/vfio/%s%u",
			 s->groups[i].guarded ? "noiommu-" : "", s->groups[i].group.id);
	}
}

static int make_nodes(struct session *s)
{
	struct node *n;

	s->nodes = swi_zalloc((s->nr_devices + s->nr_groups + 2) * sizeof(*s->nodes));
	if (!s->nodes)
		return -ENOMEM;
	n = add_node(s, NODE_IOMMU, makedev(MAJOR_MISC, MINOR_IOMMU));
	snprintf(n->path, sizeof(n->path), "/dev/iommu");
	add_device_nodes(s);
	return 0;
}

/* The older way to the devices: groups and containers. */
static int make_groups(struct session *s)
{
	struct vfio_system_options options = {
		.host = &groups_host,
		.contexts.accounts = s->accounts,
		.max_mappings = s->max_mappings,
	};
	int rc;

	session_hooks(s, &options.contexts.hooks);
	rc = vfio_system_create(&options, &s->vfio);
	for (size_t i = 0; !rc && i < s->nr_devices; i++)
		rc = vfio_system_add(s->vfio, s->devices[i].dev);
	for (size_t i = 0; !rc && i < s->nr_groups; i++)
		s->groups[i].vfio = vfio_system_group(s->vfio, &s->groups[i].group);
	return rc;
}

/* Virtual functions find their physical ones, wherever those stand on the command line. */
static int link_functions(struct session *s, const struct request *r)
{
	for (size_t i = 0; i < s->nr_devices; i++) {
		struct vfio_device *pf = NULL;

		if (!r[i].vf_of[0])
			continue;
		for (size_t k = 0; k < s->nr_devices; k++)
			if (k != i && !r[k].vf_of[0] &&
			    !strcasecmp(s->devices[k].place.bdf, r[i].vf_of))
				pf = s->devices[k].dev;
		if (!pf) {
			session_say(s,
				    "--device %s: vf_of=%s: no other device has this address, or "
				    "it is a virtual function itself",
				    r[i].spec, r[i].vf_of);
			return -EINVAL;
		}
		vfio_device_set_pf(s->devices[i].dev, pf);
	}
	return 0;
}

int session_add_devices(struct session *s, const char *const *specs, size_t n)
{
	struct request *r = swi_zalloc((n + 1) * sizeof(*r));
	unsigned int index = first_free_number("/dev/vfio/devices", "vfio");
	int rc = 0;

	s->devices = swi_zalloc((n + 1) * sizeof(*s->devices));
	s->groups = swi_zalloc((n + 1) * sizeof(*s->groups));
	if (!r || !s->devices || !s->groups)
		rc = -ENOMEM;
	for (size_t i = 0; !rc && i < n; i++)
		rc = read_request(s, specs[i], &r[i]);
	if (!rc)
		rc = check_conflicts(s, r, n);
	if (!rc)
		rc = place_rest(r, n);
	if (!rc)
		group_rest(r, n);
	if (!rc)
		rc = check_noiommu(s, r, n);
	for (size_t i = 0; !rc && i < n; i++)
		rc = add_device(s, &r[i], index + i, multifunction(r, n, i));
	if (!rc)
		rc = link_functions(s, r);
	swi_free(r);
	if (!rc)
		rc = make_groups(s);
	return rc ? rc : make_nodes(s);
}

void session_remove_devices(struct session *s)
{
	for (size_t i = 0; i < s->nr_nodes; i++)
		if (s->nodes[i].fd >= 0)
			close(s->nodes[i].fd);
	swi_free(s->nodes);
	vfio_system_destroy(s->vfio);
	for (size_t i = 0; i < s->nr_devices; i++)
		vfio_device_destroy(s->devices[i].dev);
	for (size_t i = 0; i < s->nr_groups; i++)
		iommu_group_fini(&s->groups[i].group);
	swi_free(s->devices);
	swi_free(s->groups);
}

uint64_t session_bar0_limit(const struct session *s)
{
	uint64_t limit = 0;

	for (size_t i = 0; i < s->nr_devices; i++)
		limit = SWI_MAX(limit, vfio_device_region_size(s->devices[i].dev, 0));
	return limit;
}
