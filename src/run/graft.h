/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_GRAFT_H
#define SWIOMMU_RUN_GRAFT_H

/*
 * Adding names to directories of the host, in a mount namespace of our own. See graft.c.
 *
 * Errors are sticky: after the first, every function does nothing, and rc and what tell of it. So a
 * tree can be written down line by line.
 */

#include <sys/types.h>

#include "base/base.h"

#define GRAFT_PATH 320
#define GRAFTS_MAX 32
#define GRAFT_TMPFS_OPTIONS "mode=755,size=64m"

struct graft {
	int rc;			/* 0 or negative errno */
	char what[160];		/* what went wrong */
	dev_t devs[GRAFTS_MAX]; /* our file systems */
	size_t nr_devs;
};

/* Makes `dir` a directory to which names can be added, whatever the host has of it. */
void graft(struct graft *g, const char *dir);
/* Covers `dir` (which exists) with an empty one of ours. */
void graft_empty(struct graft *g, const char *dir);
/* Entries of grafted directories, in place of what is there; the path is the last arguments. */
void graft_dir(struct graft *g, const char *path, ...) SWI_PRINTF(2, 3);
void graft_link(struct graft *g, const char *target, const char *path, ...) SWI_PRINTF(3, 4);
/* Of exactly this mode. */
void graft_file(struct graft *g, mode_t mode, const void *data, size_t size, const char *path, ...)
	SWI_PRINTF(5, 6);
void graft_text(struct graft *g, mode_t mode, const char *text, const char *path, ...)
	SWI_PRINTF(4, 5);
/* Puts `file` in the place of one of the host that cannot be replaced. */
void graft_over(struct graft *g, const char *file, const char *path);

#endif
