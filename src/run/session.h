/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_RUN_SESSION_H
#define SWIOMMU_RUN_SESSION_H

/*
 * A session: one `swiommu run`, from the first device to the exit status.
 *
 *   supervisor (this process)            program (our child, and whatever it starts)
 *   session_run() forks ──────────────▶ launch_child(): namespaces, file tree, filter, exec
 *   workers answer notifications ◀────── every trapped system call of every descendant
 *   files.c knows the open files, task.c reaches into the program, dispatch.c joins the two
 *
 * There is one struct session per process, but no global pointer to it.
 */

#include <limits.h>
#include <pthread.h>
#include <sys/types.h>

#include "base/list.h"
#include "base/log.h"
#include "vfio/device.h"
#include "vfio/group.h"

/* An IOMMU group with at least one device. */
struct session_group {
	struct iommu_group group;
	struct vfio_group *vfio;
	const struct vfio_device
		*guarded; /* its device without an IOMMU, if it is of one; see files.c */
};

struct session_device {
	struct vfio_device *dev;
	struct vfio_device_place place;
	struct session_group *group; /* one of session.groups */
	dev_t rdev;		     /* of its node */
	char name[24];		     /* of that: vfioN, or noiommu-vfioN */
	struct node *node;
	unsigned int
		faults_told; /* how many fault lines were printed in the current second; log_lock */
	int64_t faults_second;
	uint64_t faults_hidden;
};

/* What the launcher puts in place of a device file. */
enum node_kind { NODE_IOMMU, NODE_VFIO_CDEV, NODE_VFIO_CONTAINER, NODE_VFIO_GROUP, NODE_KINDS };

struct node {
	enum node_kind kind;
	struct session_device *device; /* of a cdev */
	struct session_group *group;   /* of a group */
	char path[64];
	dev_t rdev; /* the device number that programs are shown */
	/* Known once the program's file tree exists: an open file of our own on the placeholder. */
	int fd;
	dev_t st_dev;
	ino_t st_ino;
};

struct calls;
struct files;
struct rings;
struct shares;
struct workers;
struct testabi;

/* Whether private memory of the program is put into files before it is mapped for DMA. */
enum share_memory {
	SHARE_WHERE_PREFERRED, /* when there is a device whose DMA goes by files */
	SHARE_ALWAYS,
	SHARE_NEVER,
};

struct session {
	struct session_device *devices;
	size_t nr_devices;
	struct session_group *groups; /* at most as many as devices; they do not move */
	size_t nr_groups;
	struct vfio_system *vfio; /* groups and containers of the devices */
	struct node *nodes;
	size_t nr_nodes;
	struct calls *calls;
	struct files *files;
	struct mem_accounts *accounts; /* of pinned memory, for all contexts */
	struct workers *workers;
	struct swi_log log;
	pthread_mutex_t log_lock;
	struct swiommu_files *given; /* files that the engine has given to the program */
	struct swiommu_regions
		*regions; /* drivers' memory that it can map, in the file of /dev/iommu */
	struct swiommu_test_abi *mocks; /* IOMMU_TEST_CMD is answered; NULL: it is not */
	struct testabi *testabi;	/* and what else --test-abi brings */
	int log_fd;			/* where our own lines go */
	unsigned int max_mappings;	/* of a type 1 container; 0: the default */
	bool explain;			/* tell the reason of every failing call */
	enum share_memory share_memory;
	bool convert; /* and what follows from it and the devices (preload/convert.c) */
	char helper[PATH_MAX]; /* library of the preload helper; "": there is none, because */
	const char *no_helper; /* NULL: there is one */
	bool chose_no_helper;  /* the user has left it out */
	_Atomic bool missing_told; /* that somebody lacks it was said */
	struct shares *shares; /* memory that was made shared */
	bool noiommu;	       /* some device has no IOMMU */
	struct rings *rings;		/* helpers' rings; NULL: there are none */
	bool wait;			/* outlive the program until its last descendant has gone */
	bool stat_paths;		/* as in session_options */
	bool unprivileged; /* the program runs in a user namespace of ours: no real capabilities */
	int listener;	   /* seccomp notifications; -1 before launch */
};

struct session_options {
	const char **devices; /* "model[,bdf=B][,group=N][,key=value]..." */
	size_t nr_devices;
	bool explain, wait, test_abi, no_helper;
	enum share_memory share_memory;
	bool stat_paths;      /* stat by path shows our nodes as devices too */
	unsigned int max_mappings; /* of a type 1 container; 0: the default */
	uint64_t memlock; /* bytes that may be pinned even if RLIMIT_MEMLOCK is lower */
	const char *log_path; /* NULL: standard error */
};

/* 0 or negative errno; messages have been printed. */
int session_create(const struct session_options *opt, struct session **out);
void session_destroy(struct session *s);

/*
 * Runs argv under the session and returns the status that the caller should end with, as waitpid()
 * gives it; or a negative errno with a message printed when the program could not be started.
 */
int session_run(struct session *s, char **argv, int *wait_status);

/* One line to the user, with the prefix. */
void session_say(struct session *s, const char *fmt, ...) SWI_PRINTF(2, 3);

/* What contexts of the session tell us: warnings and DMA faults become lines. */
void session_hooks(struct session *s, struct swiommu_hooks *out);

/*
 * Adds the devices of `n` specifications "model[,bdf=B][,group=N][,key=value]...", all or none
 * (session_remove_devices() must follow either way), and the nodes of the session. 0 or negative
 * errno; messages have been printed. Once per session.
 */
int session_add_devices(struct session *s, const char *const *specs, size_t n);
/* No file of the program may be open any more. */
void session_remove_devices(struct session *s);

/* The largest BAR 0 of the devices: file positions below it are device registers. */
uint64_t session_bar0_limit(const struct session *s);

#endif
