// SPDX-License-Identifier: MIT
/* See urig.h. */
#include "urig.h"

#include <dirent.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

void urig_serve(struct urig *u, const struct server_options *opt)
{
	static _Atomic unsigned int serial;

	memset(u, 0, sizeof(*u));
	u->opt = *opt;
	u->fds_before = count_fds();
	snprintf(u->path, sizeof(u->path), "/tmp/swiommu-test-%d-%u", (int)getpid(), serial++);
	u->server = server_start(u->path, opt);
}

static void make_options(struct urig *u, const char *more)
{
	snprintf(u->options, sizeof(u->options), "socket=%s%s%s", u->path, more ? "," : "",
		 more ? more : "");
}

void urig_open(struct urig *u, const struct server_options *opt, const char *more)
{
	urig_serve(u, opt);
	make_options(u, more);
	rig_open(&u->rig, &vfio_model_user, u->options);
}

void urig_bound(struct urig *u, const struct server_options *opt, const char *more)
{
	urig_serve(u, opt);
	make_options(u, more);
	rig_bound(&u->rig, &vfio_model_user, u->options);
}

void urig_ready(struct urig *u, const struct server_options *opt, const char *more)
{
	urig_serve(u, opt);
	make_options(u, more);
	rig_ready(&u->rig, &vfio_model_user, u->options);
}

void urig_close_server(struct urig *u)
{
	struct server_stats stats;

	if (u->server) {
		server_get_stats(u->server, &stats);
		server_stop(u->server);
		if (stats.violations && !u->opt.mutate)
			fail_msg("%u violations, the first: %s", stats.violations, stats.violation);
	}
	u->server = NULL;
	assert_int_equal(count_fds(), u->fds_before);
}

void urig_close(struct urig *u)
{
	struct server_stats stats;

	vfio_file_close(u->rig.file);
	if (u->server && !u->lost) {
		/* The device was unbound: nothing is mapped there any more. */
		server_get_stats(u->server, &stats);
		assert_int_equal(stats.maps, 0);
	}
	vfio_device_destroy(u->rig.dev);
	iommu_group_fini(&u->rig.group);
	swiommu_close(u->rig.other_ctx);
	swiommu_close(u->rig.ctx);
	urig_close_server(u);
}

uint64_t reg(struct urig *u, unsigned int offset)
{
	return rig_read(&u->rig, 0, offset, 8);
}

void set_reg(struct urig *u, unsigned int offset, uint64_t value)
{
	rig_write(&u->rig, 0, offset, 8, value);
}

uint64_t copy(struct urig *u, uint64_t to, uint64_t from, uint64_t len, unsigned int how)
{
	set_reg(u, REG_TARGET, to);
	set_reg(u, REG_SOURCE, from);
	set_reg(u, REG_LENGTH, len);
	set_reg(u, REG_STATUS, 9999);
	set_reg(u, REG_GO, how);
	while (reg(u, REG_STATUS) == 9999)
		;
	return reg(u, REG_STATUS);
}

unsigned int nr_maps(struct urig *u)
{
	struct server_stats stats;

	server_get_stats(u->server, &stats);
	return stats.maps;
}

unsigned int nr_file_maps(struct urig *u)
{
	struct server_stats stats;

	server_get_stats(u->server, &stats);
	return stats.file_maps;
}

char *shared_pages(unsigned int n, int *fd)
{
	void *p;

	*fd = memfd_create("test", MFD_CLOEXEC);
	assert_int_equal(ftruncate(*fd, n * PAGE), 0);
	p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	assert_true(p != MAP_FAILED);
	return p;
}
