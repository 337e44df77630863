// SPDX-License-Identifier: MIT
/* Making a session, and where its messages go. The devices in it: devices.c. */
#include "run/session.h"

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
#include "run/helper.h"
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

static const char *fault_cause(const struct swiommu_fault *f)
{
	switch (f->error) {
	case -ENOENT:
		return "not mapped";
	case -EPERM:
		return "no permission";
	case -ENXIO:
		return f->pasid ? "the PASID is not attached"
				: "the device is not attached to an IOAS";
	case -EOVERFLOW:
		return "the range passes 2^64";
	default:
		/* Only of a guest's tables there is more to say then. */
		return f->nearest[0] ? "outside of the guest's memory"
				     : "the memory behind the mapping is gone";
	}
}

static void on_fault(void *data, const struct swiommu_fault *f)
{
	struct session *s = data;
	struct session_device *d = NULL;
	uint64_t hidden = 0;
	char pasid[24] = "";

	for (size_t i = 0; i < s->nr_devices; i++)
		if (!strcmp(s->devices[i].place.bdf, f->device))
			d = &s->devices[i];
	if (d && !may_tell_fault(s, d, &hidden))
		return;
	if (hidden)
		session_say(s, "%s: %llu more DMA faults were not shown", f->device,
			    (unsigned long long)hidden);
	if (f->pasid)
		snprintf(pasid, sizeof(pasid), " with PASID %u", f->pasid);
	session_say(s, "%s: DMA fault: %s of %zu bytes at %s %#llx%s: %s%s%s", f->device,
		    f->write ? "write" : "read", f->length,
		    f->physical ? "physical address" : "IOVA", (unsigned long long)f->iova, pasid,
		    fault_cause(f), f->nearest[0] ? "; " : "", f->nearest);
}

void session_hooks(struct session *s, struct swiommu_hooks *out)
{
	*out = (struct swiommu_hooks){.log = on_ctx_log, .fault = on_fault, .data = s};
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
	int rc;

	if (!s)
		return -ENOMEM;
	s->listener = -1;
	s->explain = opt->explain;
	s->wait = opt->wait;
	s->stat_paths = opt->stat_paths;
	s->max_mappings = opt->max_mappings;
	s->share_memory = opt->share_memory;
	s->convert = opt->share_memory == SHARE_ALWAYS;
	s->no_helper = "--no-helper was given";
	s->chose_no_helper = opt->no_helper;
	if (!opt->no_helper)
		helper_find(s->helper, sizeof(s->helper), &s->no_helper);
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
	swiommu_accounts_set_memlock(s->accounts, opt->memlock);
	rc = shares_create(&s->shares);
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
	rc = session_add_devices(s, opt->devices, opt->nr_devices);
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
	session_remove_devices(s);
	swiommu_files_destroy(s->given);
	shares_destroy(s->shares);
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
