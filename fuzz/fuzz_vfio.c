// SPDX-License-Identifier: MIT
/*
 * VFIO devices in this process: ioctls, register accesses, interrupts and DMA of two devices, an ioat and one
 * whose model has every kind of region and interrupt and answers to anything.
 *
 * The ioat's channel runs while the other calls are made: chains of descriptors are built in the arena, also looping
 * and broken ones. Everything must stay bounded, which libFuzzer's -timeout judges, closing must stop what is going
 * on, and in the end nothing may be left.
 */
#include "check.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "vfio/device.h"
#include "vfio/internal.h"
#include "vfio/model.h"

#define NR_DEVICES 2u
#define NR_FILES 3u
#define NR_CTX 2u
#define NR_EVENTFDS 5u
#define MAX_CALLS 200u

struct world {
	struct client client;
	struct mem_accounts *accounts;
	struct iommufd_ctx *ctx[NR_CTX];
	struct iommu_group group;
	struct vfio_device *dev[NR_DEVICES];
	unsigned int group_opens[NR_DEVICES];
	struct vfio_file *file[NR_FILES];
	unsigned int device_of[NR_FILES];
	int eventfd[NR_EVENTFDS];
	struct input *in;
};

/* ---- a model that has everything ------------------------------------------------------------------ */

struct all {
	struct vfio_device *dev;
	_Atomic uint64_t memory[64];
	struct vfio_dma dma;
	bool opened;
};

static int all_create(struct vfio_device *dev, const char *options, struct swi_reason *why,
		      void **out_priv)
{
	static const struct vfio_pci_id id = {
		.vendor = 0x1234, .device = 0x5678, .class_code = 0xff0102, .int_pin = 2};
	struct all *a = calloc(1, sizeof(*a));

	(void)options;
	(void)why;
	if (!a)
		return -ENOMEM;
	a->dev = dev;
	vfio_pci_set_id(dev, &id);
	vfio_pci_add_region(dev, 0, 0x4000, 0);
	vfio_pci_add_pages(dev, 0, 0x1000, 0x1000);
	vfio_pci_add_region(dev, 1, 16, 0);
	vfio_pci_add_region(dev, 2, 1 << 20, VFIO_BAR_64BIT | VFIO_BAR_PREFETCH);
	vfio_pci_add_region(dev, 4, 32, VFIO_BAR_IO);
	vfio_pci_add_region(dev, 6, 2048, 0);
	vfio_config_add_pm(dev);
	vfio_config_add_msi(dev, 3);
	vfio_config_add_pcie(dev, true);
	vfio_config_add_msix(dev, 5, 0, 0x2000, 0x3000);
	vfio_config_hook(dev, 0x200, 8);
	*out_priv = a;
	return 0;
}

static void all_destroy(void *priv)
{
	free(priv);
}

static int all_open(void *priv)
{
	struct all *a = priv;
	int rc = vfio_dma_open(a->dev, &a->dma);

	a->opened = !rc;
	return rc;
}

static void all_close(void *priv)
{
	struct all *a = priv;

	FUZZ_CHECK(a->opened, "close without open");
	vfio_dma_close(&a->dma);
	a->opened = false;
}

static void all_reset(void *priv)
{
	struct all *a = priv;

	for (size_t i = 0; i < ARRAY_SIZE(a->memory); i++)
		a->memory[i] = 0;
}

/* What the layer promises about every access. */
static void check_access(struct all *a, unsigned int region, uint64_t offset, unsigned int size)
{
	FUZZ_CHECK(size == 1 || size == 2 || size == 4 || size == 8, "size %u", size);
	FUZZ_CHECK(offset % size == 0 && offset + size <= vfio_device_region_size(a->dev, region),
		   "%u bytes at %#llx of region %u", size, (ull)offset, region);
	FUZZ_CHECK(region || offset + size <= 0x2000 || offset >= 0x2000 + 5 * 16,
		   "the MSI-X table");
}

static int all_read(void *priv, unsigned int region, uint64_t offset, unsigned int size,
		    uint64_t *out)
{
	struct all *a = priv;

	check_access(a, region, offset, size);
	*out = a->memory[offset / 8 % ARRAY_SIZE(a->memory)] >> 8 * (offset % 8);
	return offset == 0x18 ? -EIO : 0;
}

static int all_write(void *priv, unsigned int region, uint64_t offset, unsigned int size,
		     uint64_t value)
{
	struct all *a = priv;

	check_access(a, region, offset, size);
	a->memory[offset / 8 % ARRAY_SIZE(a->memory)] = value;
	if (region == 1)
		vfio_irq_set_line(a->dev, value & 1);
	else if (offset == 0x20)
		vfio_irq_signal(a->dev, (unsigned int)value % 5, (unsigned int)(value >> 8) % 32);
	return 0;
}

static int all_config_read(void *priv, unsigned int pos, unsigned int size, uint32_t *out)
{
	struct all *a = priv;

	FUZZ_CHECK(size <= 4 && pos >= 0x200 && pos + size <= 0x208, "%u bytes at %#x", size, pos);
	*out = (uint32_t)a->memory[0];
	return 0;
}

static int all_config_write(void *priv, unsigned int pos, unsigned int size, uint32_t value)
{
	struct all *a = priv;

	FUZZ_CHECK(size <= 4 && pos >= 0x200 && pos + size <= 0x208, "%u bytes at %#x", size, pos);
	a->memory[0] = value;
	return value == 0xbad ? -EIO : 0;
}

static const struct vfio_model all_model = {
	.name = "all",
	.summary = "for fuzzing",
	.options = "",
	.create = all_create,
	.destroy = all_destroy,
	.open = all_open,
	.close = all_close,
	.reset = all_reset,
	.region_read = all_read,
	.region_write = all_write,
	.config_read = all_config_read,
	.config_write = all_config_write,
};

/* ---- the context's side -------------------------------------------------------------------------- */

static uint64_t take_small_iova(struct world *w)
{
	return seldom(w->in, 16) ? take_iova(w->in) : pick(w->in, 64) * SWI_PAGE_SIZE;
}

static void do_map(struct world *w)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map), .flags = 7, .ioas_id = 1 + pick(w->in, 4) / 3};
	uint64_t uptr = take_uptr(w->in), length = take_length(w->in);

	fuzz_tame(&uptr, &length);
	if (seldom(w->in, 4))
		map.flags = IOMMU_IOAS_MAP_FIXED_IOVA | 1u << (1 + pick(w->in, 2));
	map.user_va = uptr;
	map.length = length;
	map.iova = take_small_iova(w);
	client_ioctl(&w->client, w->ctx[0], IOMMU_IOAS_MAP, &map, sizeof(map));
}

/* The first pages one to one, so that chains can be followed. */
static void do_map_arena(struct world *w)
{
	struct iommu_ioas_map map = {.size = sizeof(map), .flags = 7, .ioas_id = 1};

	map.user_va = (uintptr_t)arena;
	map.length = 32 * SWI_PAGE_SIZE;
	client_ioctl(&w->client, w->ctx[0], IOMMU_IOAS_MAP, &map, sizeof(map));
}

static void do_unmap(struct world *w)
{
	struct iommu_ioas_unmap unmap = {.size = sizeof(unmap), .ioas_id = 1 + pick(w->in, 2)};

	unmap.iova = take_small_iova(w);
	unmap.length = seldom(w->in, 2) ? take_length(w->in) : 64 * SWI_PAGE_SIZE;
	client_ioctl(&w->client, w->ctx[0], IOMMU_IOAS_UNMAP, &unmap, sizeof(unmap));
}

static void do_context(struct world *w)
{
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct iommu_destroy destroy = {.size = sizeof(destroy), .id = pick(w->in, 8)};

	if (seldom(w->in, 2))
		client_ioctl(&w->client, w->ctx[0], IOMMU_IOAS_ALLOC, &alloc, sizeof(alloc));
	else
		client_ioctl(&w->client, w->ctx[0], IOMMU_DESTROY, &destroy, sizeof(destroy));
}

/* ---- files --------------------------------------------------------------------------------------- */

static struct vfio_file *take_file(struct world *w)
{
	return w->file[pick(w->in, 16) < 13 ? 0 : pick(w->in, NR_FILES)];
}

static void do_open(struct world *w)
{
	unsigned int i = pick(w->in, NR_FILES);

	if (w->file[i]) {
		if (seldom(w->in, 4)) {
			vfio_file_close(w->file[i]);
			w->file[i] = NULL;
		}
		return;
	}
	w->device_of[i] = pick(w->in, NR_DEVICES);
	FUZZ_CHECK(!vfio_file_open(w->dev[w->device_of[i]], &w->file[i]), "open");
}

/* An ioctl whose struct may lie where its end cannot be written, and anything may be behind it. */
static long issue(struct world *w, unsigned int cmd, const void *arg, size_t size)
{
	static _Alignas(8) uint8_t buf[8192];
	struct vfio_file *file = take_file(w);
	unsigned int trick = take8(w->in);
	uint8_t *at = buf;
	long rc;

	if (!file)
		return -1;
	memset(buf, trick == 1, sizeof(buf));
	if (trick >= 248)
		at = arena + 32 * SWI_PAGE_SIZE - pick(w->in, 33);
	arena_write(at, arg,
		    at == buf ? size : SWI_MIN(size, (size_t)(arena + 32 * SWI_PAGE_SIZE - at)));
	if (trick >= 240 && trick < 248)
		*(uint32_t *)buf = (uint32_t)take(w->in, trick < 246 ? 1 : 4);
	w->client.arg = buf;
	w->client.arg_size = sizeof(buf);
	rc = vfio_file_ioctl(file, &w->client.caller, cmd, (uintptr_t)at);
	w->client.arg_size = 0;
	FUZZ_CHECK(rc >= 0 || is_known_errno(rc), "ioctl %#x gave %ld", cmd, rc);
	FUZZ_CHECK(rc >= 0 || w->client.caller.reason[0], "ioctl %#x gave %ld without a reason",
		   cmd, rc);
	return rc;
}

#define ISSUE(w, cmd, arg) issue(w, cmd, arg, sizeof(*(arg)))

static void do_bind(struct world *w)
{
	struct vfio_device_bind_iommufd bind = {.argsz = sizeof(bind), .iommufd = CLIENT_CTX_FD};

	if (seldom(w->in, 8)) {
		bind.iommufd = client_take_fd(&w->client, w->in);
		bind.flags = pick(w->in, 3);
	}
	ISSUE(w, VFIO_DEVICE_BIND_IOMMUFD, &bind);
}

static void do_attach(struct world *w)
{
	struct vfio_device_attach_iommufd_pt attach = {.argsz = 12, .pt_id = 1};
	struct vfio_device_detach_iommufd_pt detach = {.argsz = 8};

	if (seldom(w->in, 6)) {
		detach.flags = seldom(w->in, 8);
		ISSUE(w, VFIO_DEVICE_DETACH_IOMMUFD_PT, &detach);
		return;
	}
	if (seldom(w->in, 3))
		attach.pt_id = pick(w->in, 10);
	attach.flags = seldom(w->in, 16);
	ISSUE(w, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach);
}

static void do_set_irqs(struct world *w)
{
	static const uint32_t types[] = {VFIO_IRQ_SET_DATA_NONE, VFIO_IRQ_SET_DATA_BOOL,
					 VFIO_IRQ_SET_DATA_EVENTFD};
	static const uint32_t actions[] = {VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_TRIGGER,
					   VFIO_IRQ_SET_ACTION_MASK, VFIO_IRQ_SET_ACTION_UNMASK};
	union {
		struct vfio_irq_set set;
		uint8_t bytes[256];
	} u = {.set = {.index = pick(w->in, 40) % 6}};
	unsigned int type = pick(w->in, 3), size = type == 2 ? 4 : type;

	u.set.flags = types[type] | actions[pick(w->in, 4)];
	if (seldom(w->in, 32))
		u.set.flags = take8(w->in);
	u.set.start = pick(w->in, 64) % 9;
	u.set.count = seldom(w->in, 64) ? (uint32_t)take(w->in, 4) : pick(w->in, 10);
	u.set.argsz =
		(uint32_t)sizeof(u.set) + size * SWI_MIN(u.set.count, 32u) - seldom(w->in, 64);
	for (unsigned int i = 0; i < SWI_MIN(u.set.count, 32u); i++) {
		int32_t fd = pick(w->in, 8) ? client_take_fd(&w->client, w->in) : -1;

		if (type == 2)
			memcpy(u.bytes + sizeof(u.set) + 4 * i, &fd, 4);
		else if (type == 1)
			u.bytes[sizeof(u.set) + i] = take8(w->in) & 1;
	}
	issue(w, VFIO_DEVICE_SET_IRQS, &u, sizeof(u));
}

static void do_info(struct world *w)
{
	struct vfio_device_info info = {.argsz = sizeof(info)};
	struct vfio_region_info region = {.argsz = sizeof(region), .index = pick(w->in, 12)};
	struct vfio_irq_info irq = {.argsz = sizeof(irq), .index = pick(w->in, 8)};
	uint8_t feature[64];
	uint32_t words[32] = {sizeof(words)};

	switch (pick(w->in, 8)) {
	case 0:
		ISSUE(w, VFIO_DEVICE_GET_INFO, &info);
		break;
	case 1:
	case 2:
		region.argsz += 64u * pick(w->in, 2);
		ISSUE(w, VFIO_DEVICE_GET_REGION_INFO, &region);
		break;
	case 3:
		ISSUE(w, VFIO_DEVICE_GET_IRQ_INFO, &irq);
		break;
	case 4:
		take_bytes(w->in, feature, sizeof(feature));
		*(uint32_t *)feature = feature[0];
		ISSUE(w, VFIO_DEVICE_FEATURE, &feature);
		break;
	case 5:
		ISSUE(w, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &words);
		break;
	case 6:
		words[2] = pick(w->in, 4);
		words[3] = (uint32_t)client_take_fd(&w->client, w->in);
		ISSUE(w, VFIO_DEVICE_PCI_HOT_RESET, &words);
		break;
	default:
		words[0] = 0;
		ISSUE(w, VFIO_DEVICE_RESET, &words);
	}
}

static void do_raw(struct world *w)
{
	uint8_t arg[96];
	unsigned int cmd = _IO(VFIO_TYPE, VFIO_BASE + pick(w->in, 24));

	take_bytes(w->in, arg, sizeof(arg));
	if (seldom(w->in, 2))
		*(uint32_t *)arg = arg[0];
	if (seldom(w->in, 8))
		cmd = (unsigned int)take(w->in, 4);
	ISSUE(w, cmd, &arg);
}

/* ---- registers ----------------------------------------------------------------------------------- */

static void move(struct world *w, struct vfio_file *file, bool write, uint64_t pos, uint64_t uptr,
		 size_t count)
{
	ssize_t n = write ? vfio_file_pwrite(file, &w->client.caller, uptr, count, pos)
			  : vfio_file_pread(file, &w->client.caller, uptr, count, pos);

	FUZZ_CHECK(n >= 0 ? (size_t)n <= count : is_known_errno(n), "%zd of %zu bytes at %#llx", n,
		   count, (ull)pos);
}

static void do_region(struct world *w)
{
	struct vfio_file *file = take_file(w);
	uint64_t pos = (uint64_t)(pick(w->in, 60) % 10) << 40,
		 uptr = (uintptr_t)arena + 50 * SWI_PAGE_SIZE;
	bool write = seldom(w->in, 2);
	uint64_t value;
	size_t count = seldom(w->in, 8) ? take(w->in, 2) : 1u << pick(w->in, 5);

	pos += seldom(w->in, 16)  ? take(w->in, 8)
	       : seldom(w->in, 2) ? take(w->in, 2) % 0x4000
				  : take8(w->in);
	if (seldom(w->in, 16))
		uptr = take_uptr(w->in);
	if (!file)
		return;
	value = write ? take(w->in, 8) : 0;
	if (write && uptr == (uintptr_t)arena + 50 * SWI_PAGE_SIZE)
		arena_write(arena + 50 * SWI_PAGE_SIZE, &value, sizeof(value));
	move(w, file, write, pos, uptr, count);
}

static void write_register(struct world *w, struct vfio_file *file, unsigned int region,
			   uint64_t offset, unsigned int size, uint64_t value)
{
	uint8_t *at = arena + 50 * SWI_PAGE_SIZE;

	arena_write(at, &value, 8);
	move(w, file, true, ((uint64_t)region << 40) + offset, (uintptr_t)at, size);
}

static void do_command(struct world *w)
{
	struct vfio_file *file = take_file(w);

	if (file)
		write_register(w, file, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, 2,
			       seldom(w->in, 4) ? take(w->in, 2)
						: PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* A chain of descriptors in the first pages of the arena, which should be mapped at IOVA 0. */
static uint64_t build_chain(struct world *w, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		uint64_t d[4];
		uint32_t size = (uint32_t)take(w->in, 2), control = pick(w->in, 64);

		if (seldom(w->in, 16))
			control |= (uint32_t)take8(w->in) << 24;
		else if (seldom(w->in, 3))
			control |= 1u << 24;
		d[0] = size | (uint64_t)control << 32;
		d[1] = SWI_PAGE_SIZE + take(w->in, 2);
		d[2] = 16 * SWI_PAGE_SIZE + take(w->in, 2);
		d[3] = seldom(w->in, 8) ? take_small_iova(w) : 64ull * (i + 1);
		/* Back to the beginning, or to itself. */
		if (i == n - 1)
			d[3] = 64ull * pick(w->in, n);
		arena_write(arena + 64 * i, d, sizeof(d));
	}
	return n;
}

static void do_chain(struct world *w)
{
	struct vfio_file *file = take_file(w);
	unsigned int n = 1 + pick(w->in, 8);

	if (!file)
		return;
	build_chain(w, n);
	if (seldom(w->in, 2))
		write_register(w, file, 0, 0x98, 8, 20 * SWI_PAGE_SIZE + take8(w->in));
	write_register(w, file, 0, 0x90, 8, seldom(w->in, 16) ? take_small_iova(w) : 0);
	write_register(w, file, 0, 0x86, 2, seldom(w->in, 16) ? take(w->in, 2) : pick(w->in, 20));
	for (unsigned int i = pick(w->in, 4) * 8; i; i--)
		sched_yield();
	if (seldom(w->in, 4))
		write_register(w, file, 0, 0x84, 1, pick(w->in, 64));
}

/* ---- the host's side ----------------------------------------------------------------------------- */

static void do_host(struct world *w)
{
	unsigned int i = pick(w->in, NR_DEVICES);
	struct vfio_file *file = take_file(w);
	struct vfio_device *dev = w->dev[i];
	struct vfio_device_stats stats;
	uint8_t config[5000];
	char text[256];
	const char *name;
	uint64_t length, offset;
	size_t n;

	switch (pick(w->in, 6)) {
	case 0:
		if (w->group_opens[i] && seldom(w->in, 2)) {
			vfio_device_group_close(dev);
			w->group_opens[i]--;
		} else if (!vfio_device_group_open(dev)) {
			w->group_opens[i]++;
		}
		break;
	case 1:
		vfio_device_request(dev);
		break;
	case 2:
		for (n = 0; (name = vfio_device_attribute_name((unsigned int)n)); n++)
			vfio_device_attribute(dev, name, text, pick(w->in, 255) + 1);
		break;
	case 3:
		n = vfio_device_config(dev, config, take(w->in, 2) % sizeof(config));
		FUZZ_CHECK(n == 256 || n == 4096, "%zu bytes of configuration", n);
		break;
	case 4:
		length = take_length(w->in);
		offset = ((uint64_t)pick(w->in, 10) << 40) + take(w->in, 2) * 256;
		if (file)
			FUZZ_CHECK(vfio_file_mmap(file, &w->client.caller, length, PROT_READ,
						  seldom(w->in, 4) ? MAP_PRIVATE : MAP_SHARED,
						  offset) <= 0,
				   "mmap");
		break;
	default:
		vfio_device_get_stats(dev, &stats);
		eventfd_write(w->eventfd[pick(w->in, NR_EVENTFDS)], 1);
	}
}

/* ---- a sequence ---------------------------------------------------------------------------------- */

static void (*const steps[])(struct world *w) = {
	do_map,	  do_map_arena, do_unmap,  do_context,	do_open,     do_bind,
	do_bind,  do_attach,	do_attach, do_set_irqs, do_set_irqs, do_info,
	do_raw,	  do_region,	do_region, do_region,	do_command,  do_command,
	do_chain, do_chain,	do_chain,  do_host,
};

static void on_fault(void *data, const struct swiommu_fault *fault)
{
	(void)data;
	FUZZ_CHECK(fault->length && is_known_errno(fault->error), "a fault: %d", fault->error);
}

static void start(struct world *w, struct input *in)
{
	struct swiommu_options options = {.hooks = {.fault = on_fault}};
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct vfio_device_place place = {.bdf = "0000:5e:00.0", .group = &w->group};
	static const char *const ioat_options[] = {"", "vectors=8", "xfercap=20,vectors=32",
						   "xfercap=12"};
	struct swi_reason why = {""};

	memset(w, 0, sizeof(*w));
	w->in = in;
	client_init(&w->client);
	w->client.capable = true;
	FUZZ_CHECK(!swiommu_accounts_create(&w->accounts), "no accounts");
	options.accounts = w->accounts;
	for (unsigned int i = 0; i < NR_CTX; i++) {
		FUZZ_CHECK(!swiommu_open_with(&options, &w->ctx[i]), "no context");
		w->client.ctx[i] = w->ctx[i];
		client_ioctl(&w->client, w->ctx[i], IOMMU_IOAS_ALLOC, &alloc, sizeof(alloc));
	}
	for (unsigned int i = 0; i < NR_EVENTFDS; i++) {
		w->eventfd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		FUZZ_CHECK(w->eventfd[i] >= 0, "eventfd");
		client_give_fd(&w->client, w->eventfd[i], true);
	}
	client_give_fd(&w->client, memfds[0], false);
	FUZZ_CHECK(!iommu_group_init(&w->group, 5), "no group");
	FUZZ_CHECK(!vfio_device_create(vfio_model_find("ioat"), &place, ioat_options[pick(in, 4)],
				       &w->dev[0], &why) &&
			   !vfio_device_create(&all_model, &place, "", &w->dev[1], &why),
		   "%s", why.text);
	w->device_of[0] = pick(in, NR_DEVICES);
	FUZZ_CHECK(!vfio_file_open(w->dev[w->device_of[0]], &w->file[0]), "open");
}

static void finish(struct world *w, bool files_first)
{
	for (unsigned int i = 0; i < NR_FILES && files_first; i++)
		vfio_file_close(w->file[i]);
	for (unsigned int i = 0; i < NR_CTX; i++)
		swiommu_close(w->ctx[i]);
	for (unsigned int i = 0; i < NR_FILES && !files_first; i++)
		vfio_file_close(w->file[i]);
	for (unsigned int i = 0; i < NR_DEVICES; i++) {
		while (w->group_opens[i]--)
			vfio_device_group_close(w->dev[i]);
		vfio_device_destroy(w->dev[i]);
	}
	FUZZ_CHECK(!w->group.owner, "the group is still owned");
	iommu_group_fini(&w->group);
	client_fini(&w->client);
	check_accounts_empty(w->accounts);
	swiommu_accounts_put(w->accounts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	unsigned int fds, i;
	struct world w;

	fuzz_setup();
	fuzz_restore();
	fds = fuzz_count_fds();
	start(&w, &in);
	for (i = 0; in.left && i < MAX_CALLS; i++) {
		struct check c = {.ctx = w.ctx, .nr_ctx = NR_CTX, .accounts = w.accounts};

		steps[pick(&in, ARRAY_SIZE(steps))](&w);
		if (i % 16 == 0)
			check_contexts(&c);
	}
	finish(&w, i % 2);
	FUZZ_CHECK(fuzz_count_fds() == fds, "descriptors: %u before, %u after", fds,
		   fuzz_count_fds());
	return 0;
}
