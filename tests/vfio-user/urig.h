/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_TESTS_VFIO_USER_URIG_H
#define SWIOMMU_TESTS_VFIO_USER_URIG_H

/* A test server and a rig (tests/vfio/rig.h) whose device is in it. */

#include "../vfio/rig.h"
#include "server.h"

struct urig {
	struct rig rig; /* first */
	struct server *server;
	struct server_options opt;
	char path[64];
	char options[160];
	bool lost;	/* the server may still hold mappings, as it was given up */
	int fds_before; /* descriptors of this process before anything was made */
};

/* Makes the server and the device: unbound, bound, or bound, attached and with COMMAND written. */
void urig_serve(struct urig *u, const struct server_options *opt);
void urig_open(struct urig *u, const struct server_options *opt, const char *more);
void urig_bound(struct urig *u, const struct server_options *opt, const char *more);
void urig_ready(struct urig *u, const struct server_options *opt, const char *more);
/* Ends both; the client must have kept to the protocol, and nothing may have been left open. */
void urig_close(struct urig *u);
/* The same after the server has been stopped (u->server NULL) or lost. */
void urig_close_server(struct urig *u);

uint64_t reg(struct urig *u, unsigned int offset);
void set_reg(struct urig *u, unsigned int offset, uint64_t value);
/* Has the device copy; its status. */
uint64_t copy(struct urig *u, uint64_t to, uint64_t from, uint64_t len, unsigned int how);
unsigned int nr_maps(struct urig *u);
unsigned int nr_file_maps(struct urig *u);
/* `n` pages of a new memfd, mapped shared; *fd is the file. */
char *shared_pages(unsigned int n, int *fd);

#define PAGE 4096ull

#endif
