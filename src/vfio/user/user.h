/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_VFIO_USER_H
#define SWIOMMU_VFIO_USER_H

/*
 * The vfio-user client: a device model whose device is in a server, another process (spec vfio.md 6).
 *
 *   conn.c version.c  the connection
 *   shape.c           what the server's device looks like
 *   describe.c        the PCI function that the client sees instead
 *   maps.c            the server's copy of the DMA mappings
 *   serve.c           the server's DMA by messages
 *   irqs.c            eventfds for the server
 *   feature.c         DEVICE_FEATURE
 *   link.c            the thread that listens to the server; its end and its return
 *   user.c            the model
 */

#include "base/list.h"
#include "base/rbtree.h"
#include "core/dma_listener.h"
#include "vfio/model.h"
#include "vfio/user/conn.h"

#include <linux/vfio.h>
#include <semaphore.h>

#define VU_NR_BARS 6
#define VU_NR_REGIONS 8 /* BARs, ROM, configuration space */
#define VU_NR_AREAS 8
#define VU_NR_IRQS 3 /* INTx, MSI, MSI-X */
#define VU_CONFIG_MAX 4096u

/* A part of a region that the server lets be mapped. */
struct vu_area {
	uint64_t offset, length, fd_offset;
};

struct vu_region {
	uint64_t size; /* the server's, not rounded */
	uint32_t flags;
	unsigned int nr_areas;
	struct vu_area areas[VU_NR_AREAS];
};

/* The server's device, as it must come back after a reconnect. Compared byte by byte: no padding is left unset. */
struct vu_shape {
	uint32_t flags;
	uint32_t irqs[VU_NR_IRQS];
	struct vu_region regions[VU_NR_REGIONS];
	uint8_t identity[16]; /* vendor, device, revision, class, subsystem */
};

/* The server's copy of the DMA mappings; see maps.c. */
struct vu_maps {
	pthread_mutex_t lock; /* held while the server is told; outside of conn.call */
	struct rb_tree tree;  /* struct vu_map.node, by IOVA */
	unsigned int nr;
	unsigned int limit; /* what this server has turned out to take */
	struct list files;  /* struct vu_file.entry */
};

struct vu_device {
	struct vfio_device *dev;
	struct vu_conn conn;
	char path[108];
	struct swi_reason lost_why; /* conn.lock; why the connection was lost last */
	bool quiet;		    /* losing it is told by who tries to connect */

	/* Options. */
	uint64_t timeout_ms, reconnect_s, wait_s, memory_mask, ports_mask, max_maps;

	struct vu_shape shape; /* constant after create() */
	int region_fds
		[VU_NR_BARS]; /* owned; their numbers are constant, what they are changes with the server */

	struct vu_maps maps;
	struct dma_listener listener;
	bool listening;
	struct vfio_dma dma; /* for DMA by messages; the reading thread's */
	bool serving;	     /* it is open; conn.call or the reading thread */

	pthread_mutex_t command_lock; /* orders forwarded writes of COMMAND */
	int relay;		      /* eventfd: the server's INTx */
	int dummy;		      /* eventfd that nobody reads, for vectors without one */
	pthread_t thread;
	sem_t started; /* it reads */
	int wake;      /* eventfd: the thread is to end */
};

static inline struct vu_device *vu_of_conn(struct vu_conn *c)
{
	return container_of(c, struct vu_device, conn);
}

/* shape.c: asks the server. fds[] get descriptors of mappable BARs, -1 otherwise. 0 or negative errno with a reason. */
int vu_shape_get(struct vu_conn *c, struct vu_shape *out, int fds[VU_NR_BARS],
		 struct swi_reason *why);
/* The server's configuration space as far as it lets itself be read, zeros elsewhere; `size` bytes. */
int vu_shape_config(struct vu_conn *c, uint8_t *buf, unsigned int size);

/* describe.c: calls the builders of model.h. 0 or -EINVAL with a reason. */
int vu_describe(struct vu_device *u, const uint8_t config[VU_CONFIG_MAX], struct swi_reason *why);

/* maps.c */
int vu_maps_init(struct vu_maps *m);
void vu_maps_fini(struct vu_maps *m);
extern const struct dma_listener_ops vu_listener_ops;
/* A new connection in VU_SETUP: tells all mappings, then makes it VU_LIVE in the same breath. 0 or -EIO. */
int vu_maps_resend(struct vu_device *u);

/* serve.c */
void vu_serve(struct vu_conn *c, int sock, const struct vu_header *h, const uint8_t *body,
	      size_t len);

/* irqs.c */
int vu_irq_update(void *priv, unsigned int index, unsigned int start, unsigned int count);
void vu_irq_mask(void *priv, bool masked);
/* A new connection: arms what the client has armed. 0 or negative errno. */
int vu_irqs_resend(struct vu_device *u);

/* feature.c */
long vu_feature(void *priv, struct swiommu_caller *caller, uint64_t arg, uint32_t argsz,
		uint32_t flags);

/* link.c */
/* Starts and ends the thread that reads. 0 or negative errno. */
int vu_link_start(struct vu_device *u);
void vu_link_stop(struct vu_device *u);
/* Connects anew to a server whose device must look as before. 0, or negative errno with a reason. */
int vu_link_reconnect(struct vu_device *u, struct swi_reason *why);

/* user.c: one access of up to 8 bytes, whatever the server's limit. 0, the server's errno, -EIO. */
int vu_region_read(struct vu_conn *c, unsigned int region, uint64_t offset, void *buf,
		   uint32_t count);
void vu_send_command(struct vu_device *u);

#endif
