/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_MODEL_H
#define SWIOMMU_MODEL_H

/*
 * Device models: what one is, and what it may ask of the device that runs it.
 *
 * A model defines a constant struct vfio_model. In create() it describes a PCI function with the builders below;
 * afterwards the VFIO layer answers everything that a PCI function has in common with all others (configuration
 * space, region and interrupt information, splitting of accesses), and the model answers its own
 * registers. docs/writing-a-device.md begins at the beginning.
 *
 * Built in, a model is one file (or folder) under src/vfio/models and one line in src/vfio/model.c. Elsewhere it is a shared
 * object that names it with SWIOMMU_MODEL() and is given to `swiommu run --device ./NAME.so`.
 *
 * Life:  create -> { reset -> open -> ... -> close -> reset }* -> destroy
 *
 * Threads: region_read, region_write, config_* and reset may be called by several threads at once;
 * create, open, close and destroy are alone. The VFIO layer holds no lock that a service needs.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Why something failed, for people: filled in by swi_fail(). */
struct swi_reason;
/* Records the formatted reason (if `why` is not NULL) and returns `err`, a negative errno. */
int swi_fail(struct swi_reason *why, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

struct swiommu_caller;
struct vfio_device;

struct vfio_model {
	const char *name;
	const char *summary;	 /* one line */
	const char *options;	 /* "key=VALUE (what)" lines, or "" */
	const char *main_option; /* the key that MODEL:VALUE sets; NULL: none */
	/*
	 * Its DMA is done by another process, which reaches memory that has a file directly: the private memory of clients is
	 * put into files before it is mapped, where the front end can do that.
	 */
	bool prefers_files;

	/*
	 * Describes the function with the builders and makes the model's state. `options` is as
	 * vfio_device_create() has it. Errors of builders are collected by the device. -EINVAL,
	 * -ENOMEM.
	 */
	int (*create)(struct vfio_device *dev, const char *options, struct swi_reason *why,
		      void **out_priv);
	void (*destroy)(void *priv);

	/* The device has been bound to a context: open DMA handles, start threads. -errno: none
	 * started. */
	int (*open)(void *priv);
	/* Stops all of it and closes the DMA handles. */
	void (*close)(void *priv);
	/*
	 * To the state after power-on. When it returns, no DMA and no interrupt of what was going
	 * on before happens any more. The device may be open or closed.
	 */
	void (*reset)(void *priv);

	/*
	 * One register access in a BAR or the ROM: `size` is 1, 2, 4 or 8 and `offset` a multiple
	 * of it, inside the region. Must not wait for long. 0 or a negative errno for the caller.
	 */
	int (*region_read)(void *priv, unsigned int region, uint64_t offset, unsigned int size,
			   uint64_t *out);
	int (*region_write)(void *priv, unsigned int region, uint64_t offset, unsigned int size,
			    uint64_t value);
	/*
	 * A register access has stored into pages shared with the client (vfio_pci_add_pages()), where stores through a
	 * mapping happen unseen: a hint to look there. Rules as for region_write. May be NULL.
	 */
	void (*pages_written)(void *priv, unsigned int region, uint64_t offset, unsigned int size);

	/* As region_read and _write, for configuration registers claimed by vfio_config_hook(); size up to 4. May be
	 * NULL. */
	int (*config_read)(void *priv, unsigned int pos, unsigned int size, uint32_t *out);
	int (*config_write)(void *priv, unsigned int pos, unsigned int size, uint32_t value);

	/*
	 * The rest is for devices that live somewhere else and must be told what the VFIO layer otherwise answers alone.
	 * Each may be NULL, and each may block for a while: no lock is held that a service needs.
	 */

	/* In the place of reset: may fail, and DEVICE_RESET with it. */
	int (*try_reset)(void *priv);
	/* vfio_config_command() may have changed. */
	void (*command)(void *priv);
	/*
	 * What is armed of INTx, MSI or MSI-X has changed for vectors [start, start+count): vfio_irq_dup() tells. count 0: that
	 * index has been disabled. A failure disarms those vectors again and fails SET_IRQS; it does not matter for count 0.
	 */
	int (*irq_update)(void *priv, unsigned int index, unsigned int start, unsigned int count);
	/* The client has masked or unmasked INTx. */
	void (*irq_mask)(void *priv, bool masked);
	/*
	 * DEVICE_FEATURE with its general checks done: `flags` as given, `argsz` bytes at `arg` of the caller, header
	 * included. The result of the ioctl; -ENOTTY: not a feature of this device.
	 */
	long (*feature)(void *priv, struct swiommu_caller *caller, uint64_t arg, uint32_t argsz,
			uint32_t flags);
};

/* ---- builders: only inside create() ------------------------------------------------------ */

/* Identity of the function. */
struct vfio_pci_id {
	uint16_t vendor, device, subsystem_vendor, subsystem_device;
	uint32_t class_code; /* base class << 16 | sub-class << 8 | programming interface */
	uint8_t revision;
	uint8_t int_pin; /* 0 none, 1 INTA ... 4 INTD */
};

#define VFIO_BAR_IO 1u	     /* I/O ports; else memory */
#define VFIO_BAR_64BIT 2u    /* memory: takes the next BAR's register too */
#define VFIO_BAR_PREFETCH 4u /* memory */
#define VFIO_BAR_MMAP 8u     /* memory: all of it is pages shared with clients, see below */

void vfio_pci_set_id(struct vfio_device *dev, const struct vfio_pci_id *id);
/* Region 0-5 (a BAR), or 6 (the ROM, flags 0). `size` is a power of two, at least 16 (I/O: 4). */
void vfio_pci_add_region(struct vfio_device *dev, unsigned int index, uint64_t size,
			 unsigned int flags);

/*
 * [offset, offset+length) of memory BAR `index`, whole pages, is memory that clients can map: what they store there the
 * model finds by looking (polling), and the other way round. Accesses by read and write go there too and never to
 * region_read and region_write. All other pages of memory BARs are trapped: they can only be read and written (by a
 * client's helper, also through a mapping). At most 8 per BAR, in ascending order.
 */
void vfio_pci_add_pages(struct vfio_device *dev, unsigned int index, uint64_t offset,
			uint64_t length);

/*
 * The same for memory that somebody else shares: pages of the file `fd`, which stays the model's and open. A client's helper
 * can map them; read and write go to region_read and region_write as in trapped pages. Not beside vfio_pci_add_pages() in
 * one BAR.
 */
void vfio_pci_add_file_pages(struct vfio_device *dev, unsigned int index, uint64_t offset,
			     uint64_t length, int fd, uint64_t fd_offset);
/* The device can be reset by DEVICE_RESET. Devices with FLR always can. */
void vfio_pci_set_reset(struct vfio_device *dev);

/* The next capability (from 0x100 on: extended capability) goes to `pos` instead of behind the one before. */
void vfio_config_place(struct vfio_device *dev, unsigned int pos);
/* Power management: D0 and D3hot. */
void vfio_config_add_pm(struct vfio_device *dev);
/* PCI Express endpoint; configuration space becomes 4096 bytes. `flr`: function level reset. */
void vfio_config_add_pcie(struct vfio_device *dev, bool flr);
/* MSI with 64-bit addresses and 1 << vectors_lg2 vectors (0-5). */
void vfio_config_add_msi(struct vfio_device *dev, unsigned int vectors_lg2);
/*
 * MSI in the layout that the control register `control` says: 64-bit addresses, per-vector masks, vectors.
 */
void vfio_config_add_msi_as(struct vfio_device *dev, uint16_t control);
/* MSI-X with 1-2048 vectors; table and pending bits at 8-byte aligned offsets in `bar`. */
void vfio_config_add_msix(struct vfio_device *dev, unsigned int vectors, unsigned int bar,
			  uint32_t table, uint32_t pba);
/*
 * Any other capability, `size` bytes with its two-byte header, read only and zero until set by
 * vfio_config_set(). Returns its position; 0 after an error.
 */
unsigned int vfio_config_add_cap(struct vfio_device *dev, uint8_t id, unsigned int size);
/* Extended capability (after vfio_config_add_pcie()), `size` bytes with its four-byte header. */
unsigned int vfio_config_add_ext_cap(struct vfio_device *dev, uint16_t id, unsigned int version,
				     unsigned int size);
/*
 * A register of 1, 2 or 4 bytes: its value at open, the bits that writes store, the bits that
 * writing 1 clears.
 */
void vfio_config_set(struct vfio_device *dev, unsigned int pos, unsigned int size, uint32_t value,
		     uint32_t writable, uint32_t write1clear);
/* Accesses that lie in [first, first+length) go to the model's config_read and config_write. */
void vfio_config_hook(struct vfio_device *dev, unsigned int first, unsigned int length);

/* ---- options ----------------------------------------------------------------------------- */

/* One key a model knows: either a number in [min, max] or (text != NULL) a text. */
struct vfio_option {
	const char *key;
	uint64_t *number;
	uint64_t min, max;
	char *text;
	size_t text_size;
};

/* Parses "key=value,key=value"; keys that do not occur leave their default. -EINVAL. */
int vfio_options_parse(const char *options, const struct vfio_option *known, unsigned int nr_known,
		       struct swi_reason *why);

/* ---- services: from open() to close() ---------------------------------------------------- */

struct swiommu_dma;

/* One stream of DMA, for one thread at a time. */
struct vfio_dma {
	struct vfio_device *dev;
	struct swiommu_dma *stream;
};

int vfio_dma_open(struct vfio_device *dev, struct vfio_dma *dma);
/*
 * Requests tagged with a PASID (0: none), which follow what the client attaches that PASID to. flags: SWIOMMU_DMA_PAGE_REQUESTS of
 * <swiommu/iommufd.h>; an access may then wait until the client answers, so it needs a thread of its own. -EINVAL: no PASID of the
 * device, which has 20 bits of them.
 */
int vfio_dma_open_with(struct vfio_device *dev, struct vfio_dma *dma, uint32_t pasid,
		       unsigned int flags);
void vfio_dma_close(struct vfio_dma *dma);
/*
 * Accesses that wait for the client's answer to a page request end with -ECANCELED, and later ones do not wait, until
 * vfio_dma_resume(): to be called before waiting for the thread that uses the handle. A reset or close of the device does this
 * to all handles before it calls the model.
 */
void vfio_dma_cancel(struct vfio_dma *dma);
void vfio_dma_resume(struct vfio_dma *dma);
/*
 * As swiommu_dma_read() and _write(). While the client has not enabled bus mastering nothing is
 * accessed: -ENXIO. May block: never call it under a lock that a register access takes.
 */
int vfio_dma_read(struct vfio_dma *dma, uint64_t iova, void *buf, size_t len);
int vfio_dma_write(struct vfio_dma *dma, uint64_t iova, const void *buf, size_t len);

/* PCI_COMMAND_IO, _MEMORY, _MASTER: what of it is in effect (in D3hot nothing answers). Any time. */
uint16_t vfio_config_command(struct vfio_device *dev);

/*
 * Sends one interrupt: index VFIO_PCI_MSI_IRQ_INDEX or _MSIX_ (nothing happens when the client has
 * not enabled that type, has armed nothing for the vector, or bus mastering is off), _ERR_ or
 * _REQ_. Never blocks.
 */
void vfio_irq_signal(struct vfio_device *dev, unsigned int index, unsigned int vector);
/* Drives the INTx line, a level. A reset of the device lowers it. Never blocks. */
void vfio_irq_set_line(struct vfio_device *dev, bool asserted);
/*
 * For devices that tell when INTx has become asserted but not whether it still is: fires once, now or when it
 * is unmasked. Never blocks.
 */
void vfio_irq_pulse(struct vfio_device *dev);
/*
 * New descriptors on the eventfds that the client has armed for vectors [start, start+count) of MSI or MSI-X; -1 where there
 * is none, and everywhere when that type is not in use. -EMFILE: then none.
 */
int vfio_irq_dup(struct vfio_device *dev, unsigned int index, unsigned int start,
		 unsigned int count, int *fds);
/* The interrupt index in use (INTx, MSI, MSI-X), -1 when none. */
int vfio_irq_active(struct vfio_device *dev);

/*
 * The model's own address of the pages added by vfio_pci_add_pages() that contain `offset`; NULL if there are none. Valid
 * from after create() until destroy(), bound or not; what is in them is as the client and the model leave it (zeros at
 * first). The client may write to them at any moment: read a value once (volatile or atomic), then check it.
 */
void *vfio_pages(struct vfio_device *dev, unsigned int index, uint64_t offset);

/* A thread that takes none of the signals sent to the process; to be joined. 0 or a negative errno. */
int vfio_thread_start(pthread_t *thread, void *(*run)(void *), void *arg);

/* ---- a thread ---------------------------------------------------------------------------- */

/*
 * The thread of a model: for what a register starts and the register access must not wait for.
 *
 *   create()   vfio_worker_init(&m->worker, look, m)
 *   open()     vfio_dma_open(), vfio_worker_start()        close()   vfio_worker_stop(), vfio_dma_close()
 *   register   note what is to be done, vfio_worker_kick()
 *   look()     on the thread: do what has been noted. No lock is held, so DMA is fine here
 *   reset()    vfio_worker_pause(), clear everything, vfio_worker_resume()
 *
 * What the registers say is the model's to guard, as look() and register accesses run at once.
 */
struct vfio_worker {
	void (*look)(void *arg);
	void *arg;

	pthread_mutex_t lock;
	pthread_cond_t wake, idle; /* to the thread; from it */
	/* Guarded by lock. */
	bool kicked, busy, stop;
	unsigned int paused, period_us;
	pthread_t thread;
};

/* -ENOMEM. */
int vfio_worker_init(struct vfio_worker *w, void (*look)(void *arg), void *arg);
void vfio_worker_fini(struct vfio_worker *w);

/*
 * From here to vfio_worker_stop() look() is called after each kick, and, if period_us is not 0, so long after
 * it has returned: for models that poll shared pages. Kicks from before the start count. 0 or a negative errno.
 */
int vfio_worker_start(struct vfio_worker *w, unsigned int period_us);
/* Returns when look() has, for the last time. */
void vfio_worker_stop(struct vfio_worker *w);

/* For look(), while it does something that takes long: whether somebody waits for it to return. */
bool vfio_worker_must_return(struct vfio_worker *w);

/* There is something to do. Any thread, any time; cheap. Kicks during look() cause one more call. */
void vfio_worker_kick(struct vfio_worker *w);

/*
 * Returns when look() is not running, and forgets kicks; it is not called until as many calls of vfio_worker_resume().
 * Started or not; not from look().
 */
void vfio_worker_pause(struct vfio_worker *w);
void vfio_worker_resume(struct vfio_worker *w);

/* ---- models in shared objects ------------------------------------------------------------ */

/*
 * What a shared object exports under the name swiommu_model. This interface is not settled yet: the version counts up with
 * every change, and an object that was compiled for another one is refused.
 */
#define SWIOMMU_MODEL_VERSION 1u

struct swiommu_model_export {
	unsigned int version, size; /* of the interface; of struct vfio_model */
	const struct vfio_model *model;
};

#define SWIOMMU_MODEL(m)                                                                           \
	__attribute__((visibility("default"))) const struct swiommu_model_export swiommu_model = { \
		SWIOMMU_MODEL_VERSION, sizeof(struct vfio_model), &(m)}

#ifdef __cplusplus
}
#endif
#endif
