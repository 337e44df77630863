// SPDX-License-Identifier: MIT
/*
 * dma-copy [-d BDF] IN OUT: copies a file by device DMA, through iommufd and VFIO.
 *
 * The device is a channel of Intel's I/OAT DMA engine (8086:2021 and its relatives), bound to
 * vfio-pci. Nothing but the kernel's own interface is used, in the order every such driver needs:
 *
 *   1. make an IO address space (IOAS) on /dev/iommu;
 *   2. open /dev/vfio/devices/vfioN, bind it to that iommufd, attach it to the IOAS;
 *   3. map memory into the IOAS: what is mapped, and only that, the device can reach, under the
 *      IO virtual addresses (IOVAs) the IOAS gives to it;
 *   4. let the device master the bus, reach its registers in BAR0, get its interrupt on an eventfd;
 *   5. write DMA descriptors, ring the doorbell, wait for the interrupt.
 *
 * Two pairs of buffers take turns: while the device copies one, the program writes out the result
 * of the one before and reads the next piece of IN. One batch is in flight at a time and its last
 * descriptor interrupts, so the number of interrupts must equal the number of batches.
 *
 * At the end the source buffer is unmapped and the device asked to read it once more: the IOMMU
 * refuses, and the device says so in its registers.
 *
 * The exit status is 0 only if all of this happened. On an error the program just exits: closing
 * the files resets the device, detaches it and unmaps everything.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/vfio.h>

#include "ioat.h"

#ifndef VFIO_DEVICE_BIND_IOMMUFD
#error "these kernel headers are too old: Linux 6.6 or newer is needed"
#endif

#define PCI_DEVICES "/sys/bus/pci/devices"

/* What is pinned in all, 4 MiB and a bit, stays below the usual RLIMIT_MEMLOCK of 8 MiB. */
#define BATCH (1u << 20)
#define NR_DESCS 512u

/* Memory the device may reach. */
struct buffer {
	const char *name;
	void *va;
	uint64_t length;
	uint32_t perm; /* IOMMU_IOAS_MAP_READABLE and _WRITEABLE, as the device sees it */
	uint64_t iova; /* 0: unmapped */
};

struct dma {
	char bdf[16], node[300]; /* 0000:80:01.0, /dev/vfio/devices/vfio0 */
	unsigned int vendor, device;
	int iommufd, fd, event;
	uint32_t ioas;
	uint64_t config, config_size; /* config space: offset in the device file, and size */
	uint64_t bar, bar_size;	      /* BAR0 likewise */
	volatile unsigned char *regs; /* BAR0 mapped, or NULL: use pread and pwrite */

	struct iommu_iova_range *ranges;
	unsigned int nr_ranges;
	uint64_t alignment;

	struct buffer source, destination, control;
	struct ioat_desc *ring;	       /* in control: NR_DESCS of them, in a circle, */
	volatile uint64_t *completion; /* and behind them the completion record */
	unsigned int head;	       /* next descriptor to use */
	uint16_t count;		       /* descriptors given to the device so far, modulo 65536 */
	uint32_t desc_max;	       /* bytes per descriptor */

	uint64_t batches, descriptors, interrupts;
};

/* ---- messages ---- */

static bool progress_shown;

static void progress(uint64_t done, uint64_t total)
{
	static double last;
	struct timespec ts;
	double now;

	if (!isatty(STDERR_FILENO))
		return;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = ts.tv_sec + ts.tv_nsec / 1e9;
	if (now - last < 0.1)
		return;
	last = now;
	fprintf(stderr, "\rcopying: %" PRIu64 " MB", done / 1000000);
	if (total)
		fprintf(stderr, " of %" PRIu64 " MB, %.0f %%", total / 1000000,
			100.0 * done / total);
	fprintf(stderr, "\033[K");
	progress_shown = true;
}

static void progress_end(void)
{
	if (progress_shown)
		fprintf(stderr, "\r\033[K");
	progress_shown = false;
}

/* Says what failed, with the text of `error` unless that is 0, and exits. */
__attribute__((format(printf, 2, 3), noreturn)) static void fail(int error, const char *what, ...)
{
	va_list args;

	progress_end();
	fflush(stdout);
	fprintf(stderr, "dma-copy: ");
	va_start(args, what);
	vfprintf(stderr, what, args);
	va_end(args);
	if (error)
		fprintf(stderr, ": %s", strerror(error));
	fputc('\n', stderr);
	exit(1);
}

static void call(int fd, unsigned long request, void *arg, const char *name)
{
	int answer = ioctl(fd, request, arg);

	if (answer < 0)
		fail(errno, "%s", name);
	/* How VFIO_DEVICE_SET_IRQS says that it has fewer interrupts than asked for. */
	if (answer > 0)
		fail(0, "%s: only %d are available", name, answer);
}
#define CALL(fd, request, arg) call(fd, request, arg, #request)

/* ---- registers ---- */

static uint64_t file_read(struct dma *d, uint64_t base, struct reg r)
{
	uint64_t value = 0;
	ssize_t n = pread(d->fd, &value, r.size, base + r.offset);

	if (n != r.size)
		fail(n < 0 ? errno : EIO, "reading the register \"%s\"", r.name);
	return value;
}

static void file_write(struct dma *d, uint64_t base, struct reg r, uint64_t value)
{
	ssize_t n = pwrite(d->fd, &value, r.size, base + r.offset);

	if (n != r.size)
		fail(n < 0 ? errno : EIO, "writing the register \"%s\"", r.name);
}

static uint64_t reg_get(struct dma *d, struct reg r)
{
	if (!d->regs)
		return file_read(d, d->bar, r);
	switch (r.size) {
	case 1:
		return *(volatile uint8_t *)(d->regs + r.offset);
	case 2:
		return *(volatile uint16_t *)(d->regs + r.offset);
	case 4:
		return *(volatile uint32_t *)(d->regs + r.offset);
	default:
		return *(volatile uint64_t *)(d->regs + r.offset);
	}
}

static void reg_set(struct dma *d, struct reg r, uint64_t value)
{
	/* What was stored to memory must be there before the device is told to look. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!d->regs) {
		file_write(d, d->bar, r, value);
		return;
	}
	switch (r.size) {
	case 1:
		*(volatile uint8_t *)(d->regs + r.offset) = value;
		break;
	case 2:
		*(volatile uint16_t *)(d->regs + r.offset) = value;
		break;
	case 4:
		*(volatile uint32_t *)(d->regs + r.offset) = value;
		break;
	default:
		*(volatile uint64_t *)(d->regs + r.offset) = value;
	}
}

static void sleep_ms(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Whether the bits `mask` of a register become `want` within two seconds. */
static bool reg_wait(struct dma *d, struct reg r, uint64_t mask, uint64_t want)
{
	for (int i = 0; i < 2000; i++) {
		if ((reg_get(d, r) & mask) == want)
			return true;
		sleep_ms();
	}
	return false;
}

/* ---- finding the device ---- */

static bool sysfs_hex(const char *bdf, const char *attribute, unsigned int *out)
{
	char path[128];
	FILE *f;
	bool ok;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", bdf, attribute);
	f = fopen(path, "re");
	if (!f)
		return false;
	ok = fscanf(f, "%x", out) == 1;
	fclose(f);
	return ok;
}

enum verdict { ABSENT, NOT_IOAT, NOT_VFIO, USABLE };

/* Looks at one PCI device; fills in the numbers, and its VFIO node if it is usable. */
static enum verdict examine(struct dma *d, const char *bdf)
{
	char path[128];
	struct dirent *e;
	DIR *dir;

	if (strlen(bdf) >= sizeof(d->bdf) || strchr(bdf, '/'))
		return ABSENT;
	strcpy(d->bdf, bdf);
	if (!sysfs_hex(bdf, "vendor", &d->vendor) || !sysfs_hex(bdf, "device", &d->device))
		return ABSENT;
	if (!ioat_matches(d->vendor, d->device))
		return NOT_IOAT;

	d->node[0] = '\0';
	snprintf(path, sizeof(path), PCI_DEVICES "/%s/vfio-dev", bdf);
	dir = opendir(path);
	if (!dir)
		return NOT_VFIO;
	while ((e = readdir(dir))) {
		if (!strncmp(e->d_name, "vfio", 4))
			snprintf(d->node, sizeof(d->node), "/dev/vfio/devices/%s", e->d_name);
	}
	closedir(dir);
	return d->node[0] ? USABLE : NOT_VFIO;
}

static void find_device(struct dma *d, const char *wanted)
{
	struct dirent **list;
	char unbound[16] = "";
	enum verdict verdict = ABSENT;
	int n;

	if (wanted) {
		switch (examine(d, wanted)) {
		case ABSENT:
			fail(0, "there is no PCI device %s in " PCI_DEVICES, wanted);
		case NOT_IOAT:
			fail(0, "%s is %04x:%04x, not an I/OAT DMA engine", wanted, d->vendor,
			     d->device);
		case NOT_VFIO:
			fail(0, "%s is not bound to vfio-pci", wanted);
		case USABLE:
			return;
		}
	}
	n = scandir(PCI_DEVICES, &list, NULL, alphasort);
	if (n < 0)
		fail(errno, PCI_DEVICES);
	for (int i = 0; i < n && verdict != USABLE; i++) {
		verdict = examine(d, list[i]->d_name);
		if (verdict == NOT_VFIO)
			strcpy(unbound, d->bdf);
	}
	while (n--)
		free(list[n]);
	free(list);
	if (verdict == USABLE)
		return;
	if (unbound[0])
		fail(0, "%s is an I/OAT DMA engine, but it is not bound to vfio-pci", unbound);
	fail(0, "there is no I/OAT DMA engine (8086:2021 or alike) in " PCI_DEVICES);
}

/* ---- iommufd ---- */

static void print_ranges(const struct dma *d)
{
	for (unsigned int i = 0; i < d->nr_ranges; i++)
		printf("%-12s0x%012" PRIx64 " - 0x%012" PRIx64 "\n", i ? "" : "IOVAs",
		       (uint64_t)d->ranges[i].start, (uint64_t)d->ranges[i].last);
}

/* Which IOVAs can be mapped: known once the device, and with it the IOMMU, is attached. */
static void get_iova_ranges(struct dma *d)
{
	struct iommu_ioas_iova_ranges cmd = {.size = sizeof(cmd), .ioas_id = d->ioas};

	/* The first call says how many there are. */
	if (ioctl(d->iommufd, IOMMU_IOAS_IOVA_RANGES, &cmd) && errno != EMSGSIZE)
		fail(errno, "IOMMU_IOAS_IOVA_RANGES");
	d->ranges = calloc(cmd.num_iovas, sizeof(*d->ranges));
	if (!d->ranges)
		fail(ENOMEM, "allocating %u ranges", cmd.num_iovas);
	cmd.allowed_iovas = (uintptr_t)d->ranges;
	CALL(d->iommufd, IOMMU_IOAS_IOVA_RANGES, &cmd);
	d->nr_ranges = cmd.num_iovas;
	d->alignment = cmd.out_iova_alignment;
}

static const char *perm_name(uint32_t perm)
{
	if (!(perm & IOMMU_IOAS_MAP_WRITEABLE))
		return "read-only";
	return perm & IOMMU_IOAS_MAP_READABLE ? "read/write" : "write-only";
}

/* Allocates a buffer and maps it: at *fixed, or where the IOAS likes. */
static void buffer_map(struct dma *d, struct buffer *b, const uint64_t *fixed)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = b->perm | (fixed ? IOMMU_IOAS_MAP_FIXED_IOVA : 0),
		.ioas_id = d->ioas,
		.length = b->length,
		.iova = fixed ? *fixed : 0,
	};

	b->va = mmap(NULL, b->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b->va == MAP_FAILED)
		fail(errno, "allocating the buffer \"%s\"", b->name);
	map.user_va = (uintptr_t)b->va;
	if (ioctl(d->iommufd, IOMMU_IOAS_MAP, &map))
		fail(errno, "IOMMU_IOAS_MAP of the buffer \"%s\"%s", b->name,
		     errno == ENOMEM ? " (is RLIMIT_MEMLOCK too low? see ulimit -l)" : "");
	b->iova = map.iova;
	printf("%-12s0x%012" PRIx64 "  %8" PRIu64 " bytes  %-10s  %s\n",
	       b == &d->source ? "mapped" : "", b->iova, b->length, perm_name(b->perm), b->name);
}

static void buffer_unmap(struct dma *d, struct buffer *b)
{
	struct iommu_ioas_unmap unmap = {
		.size = sizeof(unmap), .ioas_id = d->ioas, .iova = b->iova, .length = b->length};

	CALL(d->iommufd, IOMMU_IOAS_UNMAP, &unmap);
	if (unmap.length != b->length)
		fail(0, "IOMMU_IOAS_UNMAP removed %" PRIu64 " bytes of %" PRIu64,
		     (uint64_t)unmap.length, b->length);
	b->iova = 0;
}

static void map_buffers(struct dma *d)
{
	uint64_t page = sysconf(_SC_PAGESIZE), align, at;
	unsigned int i;

	/* The least permission that works: the device only reads the source, only writes the
	 * destination. */
	d->source = (struct buffer){"source", NULL, 2 * BATCH, IOMMU_IOAS_MAP_READABLE, 0};
	d->destination =
		(struct buffer){"destination", NULL, 2 * BATCH, IOMMU_IOAS_MAP_WRITEABLE, 0};
	d->control = (struct buffer){"descriptors and completion record", NULL,
				     NR_DESCS * sizeof(struct ioat_desc) + page,
				     IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE, 0};
	buffer_map(d, &d->source, NULL);
	buffer_map(d, &d->destination, NULL);

	/* The descriptors go to an IOVA of our own choice: the end of the first range they fit in.
	 */
	align = d->alignment > page ? d->alignment : page;
	for (i = 0; i < d->nr_ranges; i++) {
		const struct iommu_iova_range *r = &d->ranges[i];

		if (r->last - r->start < d->control.length - 1)
			continue;
		at = (r->last - (d->control.length - 1)) & ~(align - 1);
		if (at && at >= r->start)
			break;
	}
	if (i == d->nr_ranges)
		fail(0, "no range of IOVAs has room for the descriptors");
	buffer_map(d, &d->control, &at);

	d->ring = d->control.va;
	d->completion = (uint64_t *)(d->ring + NR_DESCS);
	for (i = 0; i < NR_DESCS; i++)
		d->ring[i].next = at + (i + 1) % NR_DESCS * sizeof(*d->ring);
}

/* ---- VFIO ---- */

static struct vfio_region_info get_region(struct dma *d, unsigned int index)
{
	struct vfio_region_info info = {.argsz = sizeof(info), .index = index};
	const uint32_t rw = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;

	CALL(d->fd, VFIO_DEVICE_GET_REGION_INFO, &info);
	if ((info.flags & rw) != rw)
		fail(0, "region %u of the device cannot be read and written", index);
	return info;
}

static void open_registers(struct dma *d)
{
	struct vfio_region_info bar = get_region(d, VFIO_PCI_BAR0_REGION_INDEX);
	struct vfio_region_info config = get_region(d, VFIO_PCI_CONFIG_REGION_INDEX);
	long page = sysconf(_SC_PAGESIZE);

	d->config = config.offset;
	d->config_size = config.size;
	/* Registers answer only with memory decoding on, DMA goes out only as bus master. */
	file_write(d, d->config, cfg_command,
		   file_read(d, d->config, cfg_command) | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);

	if (bar.size < IOAT_REGS_SIZE)
		fail(0, "BAR0 has only %" PRIu64 " bytes", (uint64_t)bar.size);
	d->bar = bar.offset;
	d->bar_size = bar.size;
	if ((bar.flags & VFIO_REGION_INFO_FLAG_MMAP) && bar.size >= (uint64_t)page) {
		void *va = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd, bar.offset);

		/* It is refused where only other parts of the BAR can be mapped. */
		d->regs = va == MAP_FAILED ? NULL : va;
	}
}

/* Makes MSI-X vector 0 signal an eventfd. */
static void open_interrupt(struct dma *d)
{
	struct vfio_irq_info info = {.argsz = sizeof(info), .index = VFIO_PCI_MSIX_IRQ_INDEX};
	_Alignas(struct vfio_irq_set) char buf[sizeof(struct vfio_irq_set) + sizeof(int32_t)] = {0};
	struct vfio_irq_set *set = (struct vfio_irq_set *)buf;

	CALL(d->fd, VFIO_DEVICE_GET_IRQ_INFO, &info);
	if (!info.count || !(info.flags & VFIO_IRQ_INFO_EVENTFD))
		fail(0, "the device has no MSI-X interrupt for an eventfd");
	d->event = eventfd(0, EFD_CLOEXEC);
	if (d->event < 0)
		fail(errno, "eventfd");
	set->argsz = sizeof(buf);
	set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	set->index = VFIO_PCI_MSIX_IRQ_INDEX;
	set->count = 1;
	memcpy(set->data, &d->event, sizeof(d->event));
	CALL(d->fd, VFIO_DEVICE_SET_IRQS, set);
}

static void open_device(struct dma *d)
{
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct vfio_device_bind_iommufd bind = {.argsz = sizeof(bind)};
	struct vfio_device_attach_iommufd_pt attach = {.argsz = sizeof(attach)};
	struct vfio_device_info info = {.argsz = sizeof(info)};

	d->iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (d->iommufd < 0)
		fail(errno, "/dev/iommu");
	d->fd = open(d->node, O_RDWR | O_CLOEXEC);
	if (d->fd < 0)
		fail(errno, "%s", d->node);
	CALL(d->iommufd, IOMMU_IOAS_ALLOC, &alloc);
	d->ioas = alloc.out_ioas_id;
	bind.iommufd = d->iommufd;
	CALL(d->fd, VFIO_DEVICE_BIND_IOMMUFD, &bind);
	attach.pt_id = d->ioas;
	CALL(d->fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach);
	CALL(d->fd, VFIO_DEVICE_GET_INFO, &info);
	if (!(info.flags & VFIO_DEVICE_FLAGS_PCI))
		fail(0, "%s is not a PCI device", d->node);
	open_registers(d);
	open_interrupt(d);
}

static void close_device(struct dma *d)
{
	struct vfio_irq_set none = {
		.argsz = sizeof(none),
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_MSIX_IRQ_INDEX,
	};
	struct vfio_device_detach_iommufd_pt detach = {.argsz = sizeof(detach)};
	struct iommu_destroy destroy = {.size = sizeof(destroy), .id = d->ioas};

	CALL(d->fd, VFIO_DEVICE_SET_IRQS, &none);
	buffer_unmap(d, &d->destination);
	buffer_unmap(d, &d->control);
	CALL(d->fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, &detach);
	if (d->regs)
		munmap((void *)d->regs, sysconf(_SC_PAGESIZE));
	close(d->event);
	if (close(d->fd))
		fail(errno, "closing %s", d->node);
	CALL(d->iommufd, IOMMU_DESTROY, &destroy);
	if (close(d->iommufd))
		fail(errno, "closing /dev/iommu");
	munmap(d->source.va, d->source.length);
	munmap(d->destination.va, d->destination.length);
	munmap(d->control.va, d->control.length);
	free(d->ranges);
}

/* ---- the DMA channel ---- */

static void channel_reset(struct dma *d)
{
	uint64_t error;

	/* Errors stay until each of their bits has been written back. */
	if ((error = reg_get(d, reg_error)))
		reg_set(d, reg_error, error);
	if (d->config_size >= 4096) {
		if ((error = file_read(d, d->config, cfg_uncorrectable)))
			file_write(d, d->config, cfg_uncorrectable, error);
		if ((error = file_read(d, d->config, cfg_error)))
			file_write(d, d->config, cfg_error, error);
	}

	reg_set(d, reg_command, COMMAND_RESET);
	if (!reg_wait(d, reg_command, COMMAND_RESET, 0))
		fail(ETIMEDOUT, "resetting the channel");
	if ((error = reg_get(d, reg_error)))
		fail(0, "the channel reports error 0x%08" PRIx64 " after a reset", error);
}

static void channel_start(struct dma *d)
{
	unsigned int version = reg_get(d, reg_version), log2 = reg_get(d, reg_xfercap) & 0x1f;

	if (version < 0x30 || log2 < 12)
		fail(0, "unknown I/OAT version 0x%02x, or transfer limit 2^%u", version, log2);
	d->desc_max = log2 < 20 ? 1u << log2 : BATCH;

	channel_reset(d);
	reg_set(d, reg_intrctrl, INTRCTRL_MSIX);
	reg_set(d, reg_chanctrl, CHANCTRL_RUN);
	reg_set(d, reg_completion, d->control.iova + NR_DESCS * sizeof(*d->ring));
	reg_set(d, reg_chain, d->control.iova);
	if (!reg_wait(d, reg_status, ~UINT64_C(0), IOAT_ARMED))
		fail(0, "the channel does not start: its status is 0x%" PRIx64,
		     reg_get(d, reg_status));
}

/* Has the device copy; returns the IOVA of the last descriptor. Control bits are for that one. */
static uint64_t channel_submit(struct dma *d, uint64_t destination, uint64_t source,
			       uint32_t length, uint32_t control)
{
	uint64_t last = 0;

	while (length) {
		struct ioat_desc *desc = &d->ring[d->head];
		uint32_t size = length < d->desc_max ? length : d->desc_max;

		length -= size;
		desc->size = size;
		desc->control = length ? 0 : control;
		desc->source = source;
		desc->destination = destination;
		source += size;
		destination += size;
		last = d->control.iova + d->head * sizeof(*desc);
		d->head = (d->head + 1) % NR_DESCS;
		d->count++;
		d->descriptors++;
	}
	reg_set(d, reg_count, d->count);
	return last;
}

/* Waits until the device says by interrupt and by completion record that `last` is done. */
static void channel_wait(struct dma *d, uint64_t last)
{
	struct pollfd p = {.fd = d->event, .events = POLLIN};
	uint64_t record, n;

	for (int tries = 0; poll(&p, 1, 1000) != 1; tries++) {
		uint64_t status = reg_get(d, reg_status);

		if ((status & STATUS_STATE) == IOAT_HALTED)
			fail(0,
			     "the channel halted after descriptor 0x%" PRIx64
			     ", error register 0x%08" PRIx64,
			     status & STATUS_ADDRESS, reg_get(d, reg_error));
		if (tries == 10)
			fail(ETIMEDOUT, "no interrupt, channel status 0x%" PRIx64, status);
	}
	if (read(d->event, &n, sizeof(n)) != sizeof(n))
		fail(errno, "reading the eventfd");
	d->interrupts += n;

	/* The record may become visible a moment after the interrupt. */
	for (int tries = 0;; tries++) {
		record = __atomic_load_n(d->completion, __ATOMIC_ACQUIRE);
		if ((record & STATUS_ADDRESS) == last && (record & STATUS_STATE) <= IOAT_IDLE)
			break;
		if ((record & STATUS_STATE) == IOAT_HALTED || tries == 3000)
			fail(0,
			     "descriptor 0x%" PRIx64 " is not done: completion record 0x%" PRIx64,
			     last, record);
		if (tries < 1000)
			sched_yield();
		else
			sleep_ms();
	}
	reg_set(d, reg_chanctrl, CHANCTRL_RUN);
}

/* ---- the work ---- */

static uint32_t read_batch(int fd, char *buf)
{
	uint32_t done = 0;

	while (done < BATCH) {
		ssize_t n = read(fd, buf + done, BATCH - done);

		if (n < 0)
			fail(errno, "reading IN");
		if (n == 0)
			break;
		done += n;
	}
	return done;
}

static void write_batch(int fd, const char *buf, uint32_t length)
{
	while (length) {
		ssize_t n = write(fd, buf, length);

		if (n < 0)
			fail(errno, "writing OUT");
		buf += n;
		length -= n;
	}
}

static uint64_t copy(struct dma *d, int in, int out, uint64_t total)
{
	char *source = d->source.va, *destination = d->destination.va;
	uint32_t length = read_batch(in, source), before = 0;
	uint64_t done = 0;

	for (unsigned int half = 0; length; half ^= 1) {
		uint64_t here = half * (uint64_t)BATCH, other = (half ^ 1) * (uint64_t)BATCH, last;
		uint32_t next;

		last = channel_submit(d, d->destination.iova + here, d->source.iova + here, length,
				      DESC_INTERRUPT | DESC_COMPLETION);
		write_batch(out, destination + other, before);
		next = read_batch(in, source + other);
		channel_wait(d, last);
		d->batches++;
		done += length;
		before = length;
		length = next;
		progress(done, total);
		if (!length)
			write_batch(out, destination + here, before);
	}
	progress_end();
	return done;
}

/*
 * Unmaps the source buffer and has the device read it. (A write to unmapped memory would teach us
 * less: writes on PCIe are not answered, so real hardware would not notice.)
 */
static void provoke_fault(struct dma *d)
{
	const uint32_t length = 4096;
	unsigned char *destination = d->destination.va;
	uint64_t iova = d->source.iova, record;
	uint32_t error;

	buffer_unmap(d, &d->source);
	printf("%-12sunmapped the source, then told the device to read IOVA 0x%" PRIx64 "\n",
	       "fault", iova);
	memset(destination, 0x5a, length);
	*d->completion = 0;
	channel_submit(d, d->destination.iova, iova, length, 0);

	if (!reg_wait(d, reg_status, STATUS_STATE, IOAT_HALTED))
		fail(0, "the device did not halt: status 0x%" PRIx64, reg_get(d, reg_status));
	error = reg_get(d, reg_error);
	printf("%-12schannel halted, error register 0x%08" PRIx32 " (%s)\n", "", error,
	       ioat_error_name(error));
	for (int i = 0; ((record = __atomic_load_n(d->completion, __ATOMIC_ACQUIRE)) &
			 STATUS_STATE) != IOAT_HALTED;
	     i++) {
		if (i == 2000)
			fail(0, "the completion record does not tell: 0x%" PRIx64, record);
		sleep_ms();
	}
	printf("%-12scompletion record 0x%" PRIx64 ": halted after descriptor 0x%" PRIx64 "\n", "",
	       record, record & STATUS_ADDRESS);
	if (!error)
		fail(0, "the device halted without an error bit");
	for (uint32_t i = 0; i < length; i++) {
		if (destination[i] != 0x5a)
			fail(0, "the refused DMA changed the destination");
	}
	printf("%-12sthe destination is untouched\n", "");
	channel_reset(d);
	printf("%-12schannel reset, error register clear\n", "");
}

static int open_output(const char *path, const struct stat *in)
{
	struct stat st;
	int fd;

	if (!stat(path, &st) && st.st_dev == in->st_dev && st.st_ino == in->st_ino)
		fail(0, "IN and OUT are the same file");
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		fail(errno, "%s", path);
	return fd;
}

static void run(struct dma *d, int in, const char *out_path)
{
	struct timespec start, end;
	struct stat st;
	uint64_t bytes;
	double seconds;
	int out;

	if (fstat(in, &st))
		fail(errno, "IN");
	open_device(d);
	printf("%-12s%s, %04x:%04x, %s\n", "device", d->bdf, d->vendor, d->device, d->node);
	printf("%-12sBAR0, %" PRIu64 " bytes, by %s\n", "registers", d->bar_size,
	       d->regs ? "mmap" : "pread and pwrite");
	get_iova_ranges(d);
	print_ranges(d);
	map_buffers(d);
	channel_start(d);

	out = open_output(out_path, &st);
	clock_gettime(CLOCK_MONOTONIC, &start);
	bytes = copy(d, in, out, S_ISREG(st.st_mode) ? st.st_size : 0);
	clock_gettime(CLOCK_MONOTONIC, &end);
	if (close(out))
		fail(errno, "closing OUT");
	seconds = (end.tv_sec - start.tv_sec) + (end.tv_nsec - start.tv_nsec) / 1e9;
	printf("%-12s%" PRIu64 " bytes, %" PRIu64 " batches, %" PRIu64 " descriptors, %" PRIu64
	       " interrupts\n",
	       "copied", bytes, d->batches, d->descriptors, d->interrupts);
	printf("%-12s%.3f s, %.0f MB/s, with reading and writing the files\n", "time", seconds,
	       seconds > 0 ? bytes / 1e6 / seconds : 0);
	if (d->interrupts != d->batches)
		fail(0, "there should have been one interrupt per batch");

	provoke_fault(d);
	close_device(d);
}

int main(int argc, char **argv)
{
	static const char usage[] =
		"usage: dma-copy [-d BDF] IN OUT\n"
		"Copies the file IN to OUT with an I/OAT DMA engine bound to vfio-pci.\n"
		"  -d BDF  which one, e.g. 0000:80:01.0; else the first\n";
	struct dma d = {0};
	const char *bdf = NULL;
	int opt, in;

	while ((opt = getopt(argc, argv, "d:h")) != -1) {
		switch (opt) {
		case 'd':
			bdf = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (argc - optind != 2) {
		fputs(usage, stderr);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	in = open(argv[optind], O_RDONLY | O_CLOEXEC);
	if (in < 0)
		fail(errno, "%s", argv[optind]);
	find_device(&d, bdf);
	run(&d, in, argv[optind + 1]);
	close(in);
	if (fflush(stdout) || ferror(stdout))
		fail(errno, "standard output");
	return 0;
}
