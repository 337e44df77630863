// SPDX-License-Identifier: MIT
/*
 * Making a session: the devices that were asked for, each with a BDF, a group and a node, and where
 * messages go.
 */
#include "run/session.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "mem/guard.h"
#include "run/testabi.h"

/* ---- talking --------------------------------------------------------------------------------- */

void session_say(struct session *s, const char *fmt, ...)
{
	char line[640];
	va_list ap;
	int n = snprintf(line, sizeof(line), "swiommu: ");

	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	va_end(ap);
	n = SWI_MIN(n, (int)sizeof(line) - 2);
	line[n++] = '\n';
	/* One write, so that lines of threads and of the program do not mix. */
	(void)!write(s->log_fd, line, n);
}

static void on_log(void *data, enum swi_log_level level, const char *line)
{
	if (level <= SWI_LOG_WARN)
		session_say(data, "%s", line);
}

static void on_ctx_log(void *data, enum swiommu_log_level level, const char *line)
{
	if (level <= SWIOMMU_LOG_WARN)
		session_say(data, "%s", line);
}

/* A broken driver can fault a million times a second: so many lines are told in each. */
#define FAULT_LINES_PER_SECOND 10

static bool may_tell_fault(struct session *s, struct session_device *d, uint64_t *hidden)
{
	struct timespec now;
	bool tell;

	clock_gettime(CLOCK_MONOTONIC, &now);
	pthread_mutex_lock(&s->log_lock);
	if (d->faults_second != now.tv_sec) {
		d->faults_second = now.tv_sec;
		d->faults_told = 0;
	}
	tell = d->faults_told < FAULT_LINES_PER_SECOND;
	if (tell) {
		d->faults_told++;
		*hidden = d->faults_hidden;
		d->faults_hidden = 0;
	} else {
		d->faults_hidden++;
	}
	pthread_mutex_unlock(&s->log_lock);
	return tell;
}

static const char *fault_cause(int error)
{
	switch (error) {
	case -ENOENT:
		return "not mapped";
	case -EPERM:
		return "no permission";
	case -ENXIO:
		return "the device is not attached to an IOAS";
	case -EOVERFLOW:
		return "the range passes 2^64";
	default:
		return "the memory behind the mapping is gone";
	}
}

static void on_fault(void *data, const struct swiommu_fault *f)
{
	struct session *s = data;
	struct session_device *d = NULL;
	uint64_t hidden = 0;

	for (size_t i = 0; i < s->nr_devices; i++)
		if (!strcmp(s->devices[i].place.bdf, f->device))
			d = &s->devices[i];
	if (d && !may_tell_fault(s, d, &hidden))
		return;
	if (hidden)
		session_say(s, "%s: %llu more DMA faults were not shown", f->device,
			    (unsigned long long)hidden);
	session_say(s, "%s: DMA fault: %s of %zu bytes at IOVA %#llx: %s%s%s", f->device,
		    f->write ? "write" : "read", f->length, (unsigned long long)f->iova,
		    fault_cause(f->error), f->nearest[0] ? "; " : "", f->nearest);
}

void session_hooks(struct session *s, struct swiommu_hooks *out)
{
	*out = (struct swiommu_hooks){.log = on_ctx_log, .fault = on_fault, .data = s};
}

/* ---- places ---------------------------------------------------------------------------------- */

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

static bool bdf_taken(struct session *s, const char *bdf)
{
	char path[64];

	for (size_t i = 0; i < s->nr_devices; i++)
		if (!strcmp(s->devices[i].place.bdf, bdf))
			return true;
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", bdf);
	return !access(path, F_OK);
}

static int place_device(struct session *s, struct session_device *d, const char *bdf)
{
	if (bdf[0]) {
		if (!valid_bdf(bdf)) {
			session_say(s, "bdf=%s: not a PCI address such as 0000:80:01.0", bdf);
			return -EINVAL;
		}
		for (size_t i = 0; i < sizeof(d->place.bdf); i++)
			d->place.bdf[i] = tolower((unsigned char)bdf[i]);
		if (bdf_taken(s, d->place.bdf)) {
			session_say(s, "bdf=%s: there is a device at this address already", bdf);
			return -EEXIST;
		}
		return 0;
	}
	for (unsigned int bus = 0x80; bus <= 0xff; bus++)
		for (unsigned int dev = 1; dev <= 0x1f; dev++) {
			char free_bdf[32];

			snprintf(free_bdf, sizeof(free_bdf), "0000:%02x:%02x.0", bus, dev);
			if (bdf_taken(s, free_bdf))
				continue;
			memcpy(d->place.bdf, free_bdf, sizeof(d->place.bdf));
			return 0;
		}
	return -ENOSPC;
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

/* ---- devices --------------------------------------------------------------------------------- */

#define SPEC_MAX 1024

/* Splits "model,bdf=B,key=value" into its model, BDF and the rest. The buffers hold SPEC_MAX bytes.
 */
static void split_spec(const char *spec, char *model, char *bdf, size_t bdf_size, char *options)
{
	const char *at = spec, *end;
	char *out = options;

	*bdf = *options = '\0';
	end = strchrnul(at, ',');
	memcpy(model, at, end - at);
	model[end - at] = '\0';
	while (*end) {
		at = end + 1;
		end = strchrnul(at, ',');
		if (!strncmp(at, "bdf=", 4)) {
			snprintf(bdf, bdf_size, "%.*s", (int)(end - at - 4), at + 4);
			continue;
		}
		if (out != options)
			*out++ = ',';
		memcpy(out, at, end - at);
		out += end - at;
		*out = '\0';
	}
}

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

static int add_device(struct session *s, const char *spec, unsigned int group, unsigned int index)
{
	struct session_device *d = &s->devices[s->nr_devices];
	char model[SPEC_MAX], bdf[64], options[SPEC_MAX];
	const struct vfio_model *m;
	struct swi_reason why = {""};
	int rc;

	if (strlen(spec) >= SPEC_MAX) {
		session_say(s, "--device: more than %d characters", SPEC_MAX - 1);
		return -E2BIG;
	}
	split_spec(spec, model, bdf, sizeof(bdf), options);
	m = vfio_model_find(model);
	if (!m) {
		session_say(s, "--device %s: there is no device model '%s'", spec, model);
		say_models(s);
		return -EINVAL;
	}
	rc = place_device(s, d, bdf);
	if (rc)
		return rc;
	rc = iommu_group_init(&d->group, group);
	if (rc)
		return rc;
	d->place.index = index;
	d->place.group = &d->group;
	d->place.log = &s->log;
	rc = vfio_device_create(m, &d->place, options, &d->dev, &why);
	if (rc) {
		iommu_group_fini(&d->group);
		session_say(s, "--device %s: %s", spec, why.text[0] ? why.text : strerror(-rc));
		return rc;
	}
	s->nr_devices++;
	return 0;
}

static int make_nodes(struct session *s)
{
	s->nodes = swi_zalloc((s->nr_devices + 1) * sizeof(*s->nodes));
	if (!s->nodes)
		return -ENOMEM;
	s->nodes[0].kind = NODE_IOMMU;
	snprintf(s->nodes[0].path, sizeof(s->nodes[0].path), "/dev/iommu");
	for (size_t i = 0; i < s->nr_devices; i++) {
		struct node *n = &s->nodes[i + 1];

		n->kind = NODE_VFIO_CDEV;
		n->device = &s->devices[i];
		snprintf(n->path, sizeof(n->path), "/dev/vfio/devices/vfio%u",
			 s->devices[i].place.index);
	}
	s->nr_nodes = s->nr_devices + 1;
	for (size_t i = 0; i < s->nr_nodes; i++)
		s->nodes[i].fd = -1;
	return 0;
}

uint64_t session_bar0_limit(const struct session *s)
{
	uint64_t limit = 0;

	for (size_t i = 0; i < s->nr_devices; i++)
		limit = SWI_MAX(limit, vfio_device_region_size(s->devices[i].dev, 0));
	return limit;
}

static int open_log(struct session *s, const char *path)
{
	/* Our own copy: the program may close or redirect its standard error. */
	s->log_fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)
			 : fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	if (s->log_fd >= 0)
		return 0;
	if (!path) { /* standard error is closed: nobody wants to hear, and its number may become
			another file's */
		s->log_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
		return s->log_fd < 0 ? -errno : 0;
	}
	s->log_fd = STDERR_FILENO;
	session_say(s, "--log %s: %s", path, strerror(errno));
	return -errno;
}

static int create_test_abi(struct session *s)
{
	int rc = swiommu_test_abi_create(&s->mocks);

	return rc ? rc : testabi_create(s, &s->testabi);
}

int session_create(const struct session_options *opt, struct session **out)
{
	struct session *s = swi_new(struct session);
	unsigned int group, index;
	int rc;

	if (!s)
		return -ENOMEM;
	s->listener = -1;
	s->explain = opt->explain;
	s->wait = opt->wait;
	s->log = (struct swi_log){on_log, s};
	pthread_mutex_init(&s->log_lock, NULL);
	rc = open_log(s, opt->log_path);
	if (rc)
		goto fail;
	rc = mem_guard_install();
	if (rc)
		goto fail;
	rc = swiommu_accounts_create(&s->accounts);
	if (rc)
		goto fail;
	rc = swiommu_files_create(&s->given);
	if (rc)
		goto fail;
	if (opt->test_abi) {
		rc = create_test_abi(s);
		if (rc)
			goto fail;
	}
	if (opt->nr_devices) {
		s->devices = swi_zalloc(opt->nr_devices * sizeof(*s->devices));
		if (!s->devices) {
			rc = -ENOMEM;
			goto fail;
		}
	}
	group = first_free_number("/sys/kernel/iommu_groups", "");
	index = first_free_number("/dev/vfio/devices", "vfio");
	for (size_t i = 0; i < opt->nr_devices; i++) {
		rc = add_device(s, opt->devices[i], group + i, index + i);
		if (rc)
			goto fail;
	}
	rc = make_nodes(s);
	if (rc)
		goto fail;
	*out = s;
	return 0;
fail:
	session_destroy(s);
	return rc;
}

void session_destroy(struct session *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->nr_nodes; i++)
		if (s->nodes[i].fd >= 0)
			close(s->nodes[i].fd);
	swi_free(s->nodes);
	for (size_t i = 0; i < s->nr_devices; i++) {
		vfio_device_destroy(s->devices[i].dev);
		iommu_group_fini(&s->devices[i].group);
	}
	swi_free(s->devices);
	swiommu_files_destroy(s->given);
	testabi_destroy(s->testabi);
	swiommu_test_abi_destroy(s->mocks);
	swiommu_accounts_put(s->accounts);
	if (s->listener >= 0)
		close(s->listener);
	if (s->log_fd > STDERR_FILENO)
		close(s->log_fd);
	pthread_mutex_destroy(&s->log_lock);
	swi_free(s);
}
