// SPDX-License-Identifier: MIT
/*
 * VFIO groups and containers in this process: two groups with three devices, of which one is emulated, three
 * containers, an iommufd, and DMA of what is open.
 *
 * All sequences of open, set, map, unmap, reset and close must end: with every errno explained, nothing owned, nothing
 * charged and no descriptor left.
 */
#include "check.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <linux/iommufd.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "vfio/device.h"
#include "vfio/group.h"
#include "vfio/model.h"

#define NR_DEVICES 3u
#define NR_GROUPS 2u
#define NR_CONTAINERS 3u
#define NR_FILES 4u
#define MAX_CALLS 200u
#define CONTAINER_FD 7100
#define GROUP_FD 7200
#define BAR_PAGE 36u /* of the arena: where no memory is, the client has "mapped" a BAR */

static const char *const names[NR_DEVICES] = {"0000:5e:00.0", "0000:5e:00.1", "0000:5e:01.0"};

struct world {
	struct client client; /* first */
	struct swiommu_caller_ops ops;
	struct mem_accounts *accounts;
	struct iommufd_ctx *ctx;
	struct iommu_group group[NR_GROUPS];
	struct vfio_device *dev[NR_DEVICES];
	struct vfio_system *sys;
	struct vfio_container *container[NR_CONTAINERS];
	struct vfio_group_file *opened[NR_GROUPS];
	struct vfio_file *file[NR_FILES];
	struct input *in;
};

/* ---- the client's descriptors ---------------------------------------------------------------------- */

static int host_container(struct swiommu_caller *c, int fd, struct vfio_container **out)
{
	struct world *w = (struct world *)c;

	if (fd < CONTAINER_FD || fd >= CONTAINER_FD + (int)NR_CONTAINERS ||
	    !w->container[fd - CONTAINER_FD])
		return fd < 0 ? -EBADF : -EBADFD;
	*out = vfio_container_get(w->container[fd - CONTAINER_FD]);
	return 0;
}

static int host_group(struct swiommu_caller *c, int fd, struct vfio_group_file **out)
{
	struct world *w = (struct world *)c;

	if (fd < GROUP_FD || fd >= GROUP_FD + (int)NR_GROUPS || !w->opened[fd - GROUP_FD])
		return fd < 0 ? -EBADF : -EBADFD;
	*out = vfio_group_file_get(w->opened[fd - GROUP_FD]);
	return 0;
}

static int host_mapping(struct swiommu_caller *c, uint64_t uptr, uint64_t length,
			struct vfio_device **dev, uint64_t *pos)
{
	uint64_t bar = (uintptr_t)arena + BAR_PAGE * SWI_PAGE_SIZE;

	if (uptr < bar || length > 2 * SWI_PAGE_SIZE || uptr + length > bar + 2 * SWI_PAGE_SIZE)
		return -ENOENT;
	*dev = ((struct world *)c)->dev[1];
	*pos = uptr - bar;
	return 0;
}

static const struct vfio_host_ops host = {host_container, host_group, host_mapping};

static int take_fd(struct world *w)
{
	switch (pick(w->in, 4)) {
	case 0:
		return GROUP_FD + (int)pick(w->in, NR_GROUPS + 1);
	case 1:
		return client_take_fd(&w->client, w->in);
	default:
		return CONTAINER_FD + (int)pick(w->in, NR_CONTAINERS + 1);
	}
}

/* ---- calls ----------------------------------------------------------------------------------------- */

static long judge(struct world *w, long rc, unsigned int cmd)
{
	w->client.arg_size = 0;
	FUZZ_CHECK(rc >= 0 || is_known_errno(rc), "ioctl %#x gave %ld", cmd, rc);
	FUZZ_CHECK(rc >= 0 || w->client.caller.reason[0], "ioctl %#x gave %ld without a reason",
		   cmd, rc);
	return rc;
}

/* What a call is given: the struct, sometimes at the end of memory, sometimes with another argsz. */
static uint64_t put_arg(struct world *w, const void *arg, size_t size)
{
	static _Alignas(8) uint8_t buf[4096];
	unsigned int trick = take8(w->in);

	memset(buf, trick == 1, sizeof(buf));
	memcpy(buf, arg, size);
	if (trick >= 250)
		*(uint32_t *)buf = (uint32_t)take(w->in, trick < 253 ? 1 : 4);
	w->client.arg = buf;
	w->client.arg_size = trick >= 240 && trick < 250 ? pick(w->in, 49) : sizeof(buf);
	return (uintptr_t)buf;
}

#define ARG(w, arg) put_arg(w, arg, sizeof(*(arg)))

static void on_container(struct world *w, unsigned int cmd, uint64_t arg)
{
	struct vfio_container *c =
		w->container[pick(w->in, 8) < 6 ? 0 : pick(w->in, NR_CONTAINERS)];

	if (c)
		judge(w, vfio_container_ioctl(c, &w->client.caller, cmd, arg), cmd);
	w->client.arg_size = 0;
}

static void on_group(struct world *w, unsigned int cmd, uint64_t arg)
{
	struct vfio_group_file *gf = w->opened[pick(w->in, NR_GROUPS)];

	if (gf)
		judge(w, vfio_group_file_ioctl(gf, &w->client.caller, cmd, arg), cmd);
	w->client.arg_size = 0;
}

static void do_container(struct world *w)
{
	unsigned int i = pick(w->in, NR_CONTAINERS);

	if (!w->container[i]) {
		FUZZ_CHECK(!vfio_container_open(w->sys, &w->container[i]), "container");
	} else if (seldom(w->in, 4)) {
		vfio_container_put(w->container[i]);
		w->container[i] = NULL;
	}
}

static void do_group(struct world *w)
{
	unsigned int i = pick(w->in, NR_GROUPS);
	struct swi_reason why;

	if (w->opened[i]) {
		if (seldom(w->in, 4)) {
			vfio_group_file_put(w->opened[i]);
			w->opened[i] = NULL;
		}
		return;
	}
	if (vfio_group_file_open(vfio_system_group(w->sys, &w->group[i]), &w->opened[i], &why))
		w->opened[i] = NULL;
}

static void do_set(struct world *w)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	int32_t fd = take_fd(w);

	switch (pick(w->in, 8)) {
	case 0:
		on_group(w, VFIO_GROUP_UNSET_CONTAINER, 0);
		break;
	case 1:
		on_group(w, VFIO_GROUP_GET_STATUS, ARG(w, &status));
		break;
	default:
		on_group(w, VFIO_GROUP_SET_CONTAINER, ARG(w, &fd));
	}
}

static void do_type(struct world *w)
{
	on_container(w, VFIO_SET_IOMMU, pick(w->in, 8) < 7 ? 1 + 2 * pick(w->in, 2) : take8(w->in));
	on_container(w, VFIO_CHECK_EXTENSION, pick(w->in, 12));
}

static uint64_t take_small_iova(struct world *w)
{
	return seldom(w->in, 16) ? take_iova(w->in) : pick(w->in, 64) * SWI_PAGE_SIZE;
}

static void do_map(struct world *w)
{
	struct vfio_iommu_type1_dma_map map = {.argsz = sizeof(map), .flags = 3};
	uint64_t uptr = take_uptr(w->in), length = take_length(w->in);

	fuzz_tame(&uptr, &length);
	if (seldom(w->in, 4)) {
		uptr = (uintptr_t)arena + BAR_PAGE * SWI_PAGE_SIZE;
		length = (1 + pick(w->in, 2)) * SWI_PAGE_SIZE;
	}
	map.vaddr = uptr;
	map.size = seldom(w->in, 8) ? length : (length + 4095) & ~4095ull;
	map.iova = take_small_iova(w);
	if (seldom(w->in, 6))
		map.flags = pick(w->in, 16);
	on_container(w, VFIO_IOMMU_MAP_DMA, ARG(w, &map));
}

/* The first pages one to one, so that chains can be followed. */
static void do_map_arena(struct world *w)
{
	struct vfio_iommu_type1_dma_map map = {.argsz = sizeof(map), .flags = 3};

	map.vaddr = (uintptr_t)arena;
	map.size = 32 * SWI_PAGE_SIZE;
	on_container(w, VFIO_IOMMU_MAP_DMA, ARG(w, &map));
}

static void do_unmap(struct world *w)
{
	struct {
		struct {
			uint32_t argsz, flags;
			uint64_t iova, size;
		} head;
		struct vfio_bitmap bitmap;
	} u = {.head = {.argsz = sizeof(u)}};

	u.head.iova = take_small_iova(w);
	u.head.size = seldom(w->in, 2) ? take_length(w->in) : 64 * SWI_PAGE_SIZE;
	if (seldom(w->in, 3)) {
		u.head.flags = pick(w->in, 9);
		if (u.head.flags & VFIO_DMA_UNMAP_FLAG_ALL)
			u.head.iova = u.head.size = 0;
		u.bitmap.pgsize = SWI_PAGE_SIZE;
		u.bitmap.size = 8u << pick(w->in, 12);
		u.bitmap.data = (void *)(uintptr_t)take_uptr(w->in);
	}
	on_container(w, VFIO_IOMMU_UNMAP_DMA, ARG(w, &u));
}

static void do_info(struct world *w)
{
	struct {
		struct {
			uint32_t argsz, flags;
		} head;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} dirty = {.head = {.argsz = sizeof(dirty), .flags = 1u << pick(w->in, 3)}};
	struct vfio_iommu_type1_info info = {.argsz = seldom(w->in, 4) ? 24 : 400};
	uint8_t raw[64];

	switch (pick(w->in, 4)) {
	case 0:
		on_container(w, VFIO_IOMMU_GET_INFO, ARG(w, &info));
		break;
	case 1:
		take_bytes(w->in, raw, sizeof(raw));
		raw[1] = raw[2] = raw[3] = 0;
		on_container(w, _IO(VFIO_TYPE, VFIO_BASE + pick(w->in, 24)), ARG(w, &raw));
		break;
	default:
		dirty.get.iova = take_small_iova(w);
		dirty.get.size = take_length(w->in);
		dirty.get.bitmap.pgsize = SWI_PAGE_SIZE;
		dirty.get.bitmap.size = 8u << pick(w->in, 12);
		dirty.get.bitmap.data = (void *)(uintptr_t)take_uptr(w->in);
		on_container(w, VFIO_IOMMU_DIRTY_PAGES, ARG(w, &dirty));
	}
}

/* ---- devices --------------------------------------------------------------------------------------- */

static void do_device(struct world *w)
{
	struct vfio_group_file *gf = w->opened[pick(w->in, NR_GROUPS)];
	unsigned int i = pick(w->in, NR_FILES);
	char name[80];

	if (w->file[i]) {
		if (seldom(w->in, 4)) {
			vfio_file_close(w->file[i]);
			w->file[i] = NULL;
		}
		return;
	}
	if (!gf)
		return;
	snprintf(name, sizeof(name), "%s%s", names[pick(w->in, NR_DEVICES)],
		 seldom(w->in, 8) ? " vf_token=00112233-4455-6677-8899-aabbccddeeff" : "");
	if (seldom(w->in, 16))
		name[pick(w->in, 13)] = (char)take8(w->in);
	if (judge(w, vfio_group_get_device(gf, &w->client.caller, ARG(w, &name), &w->file[i]), 0))
		w->file[i] = NULL;
}

static void on_device(struct world *w, unsigned int cmd, uint64_t arg)
{
	struct vfio_file *file = w->file[pick(w->in, NR_FILES)];

	if (file)
		judge(w, vfio_file_ioctl(file, &w->client.caller, cmd, arg), cmd);
	w->client.arg_size = 0;
}

static void do_reset(struct world *w)
{
	uint32_t words[16] = {sizeof(words)};

	if (seldom(w->in, 3)) {
		on_device(w, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, ARG(w, &words));
		return;
	}
	words[2] = pick(w->in, 4);
	for (unsigned int i = 0; i < words[2]; i++)
		words[3 + i] = (uint32_t)take_fd(w);
	on_device(w, VFIO_DEVICE_PCI_HOT_RESET, ARG(w, &words));
}

static void do_ioeventfd(struct world *w)
{
	struct vfio_device_ioeventfd req = {.argsz = sizeof(req), .flags = 1u << pick(w->in, 4)};

	req.offset = take(w->in, 2) % 0x4400;
	req.data = pick(w->in, 4);
	req.fd = seldom(w->in, 3) ? -1 : client_take_fd(&w->client, w->in);
	on_device(w, VFIO_DEVICE_IOEVENTFD, ARG(w, &req));
	eventfd_write(w->client.fds[0].fd, 1);
}

static void write_register(struct world *w, struct vfio_file *file, uint64_t pos, unsigned int size,
			   uint64_t value)
{
	uint8_t *at = arena + 50 * SWI_PAGE_SIZE;
	ssize_t n;

	arena_write(at, &value, 8);
	n = vfio_file_pwrite(file, &w->client.caller, (uintptr_t)at, size, pos);
	FUZZ_CHECK(n == (ssize_t)size || is_known_errno(n), "%zd of %u bytes", n, size);
}

/* One descriptor that moves some bytes, or runs into what is not there. */
static void do_copy(struct world *w)
{
	struct vfio_file *file = w->file[pick(w->in, NR_FILES)];
	uint64_t d[4] = {take(w->in, 2)};

	if (!file)
		return;
	d[1] = seldom(w->in, 4) ? take_small_iova(w) : SWI_PAGE_SIZE + take(w->in, 2);
	d[2] = seldom(w->in, 4) ? take_small_iova(w) : 16 * SWI_PAGE_SIZE + take(w->in, 2);
	arena_write(arena, d, sizeof(d));
	write_register(w, file, (7ull << 40) + PCI_COMMAND, 2,
		       PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	write_register(w, file, 0x84, 1, 0x20);
	write_register(w, file, 0x90, 8, 0);
	write_register(w, file, 0x86, 2, 1 + pick(w->in, 20));
	for (unsigned int i = pick(w->in, 4) * 8; i; i--)
		sched_yield();
}

/* ---- a sequence ------------------------------------------------------------------------------------ */

static void (*const steps[])(struct world *w) = {
	do_container, do_group, do_group,  do_set,	 do_set,       do_set,	     do_type,
	do_type,      do_map,	do_map,	   do_map,	 do_map_arena, do_map_arena, do_unmap,
	do_unmap,     do_info,	do_device, do_device,	 do_device,    do_device,    do_copy,
	do_copy,      do_copy,	do_reset,  do_ioeventfd,
};

static void on_fault(void *data, const struct swiommu_fault *fault)
{
	(void)data;
	FUZZ_CHECK(fault->length && is_known_errno(fault->error), "a fault: %d", fault->error);
}

static void add_device(struct world *w, unsigned int i, unsigned int group)
{
	struct vfio_device_place place = {
		.index = i, .group = &w->group[group], .emulated = i == 2};
	struct swi_reason why = {""};

	strcpy(place.bdf, names[i]);
	FUZZ_CHECK(!vfio_device_create(vfio_model_find("ioat"), &place, "", &w->dev[i], &why), "%s",
		   why.text);
	FUZZ_CHECK(!vfio_system_add(w->sys, w->dev[i]), "system");
}

static void start(struct world *w, struct input *in)
{
	struct vfio_system_options options = {.host = &host, .contexts.hooks.fault = on_fault};
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	memset(w, 0, sizeof(*w));
	w->in = in;
	client_init(&w->client);
	w->client.capable = true;
	FUZZ_CHECK(fd >= 0 && !swiommu_accounts_create(&w->accounts), "no accounts");
	client_give_fd(&w->client, fd, true);
	client_give_fd(&w->client, memfds[0], false);
	options.contexts.accounts = w->accounts;
	options.max_mappings = seldom(in, 2) ? 4 : 0;
	FUZZ_CHECK(!swiommu_open_with(&options.contexts, &w->ctx), "no context");
	w->client.ctx[0] = w->ctx;
	FUZZ_CHECK(!vfio_system_create(&options, &w->sys), "no system");
	for (unsigned int i = 0; i < NR_GROUPS; i++)
		FUZZ_CHECK(!iommu_group_init(&w->group[i], i), "no group");
	add_device(w, 0, 0);
	add_device(w, 1, 1);
	add_device(w, 2, pick(in, 2));
	FUZZ_CHECK(!vfio_container_open(w->sys, &w->container[0]), "container");
}

static void close_files(struct world *w)
{
	for (unsigned int i = 0; i < NR_FILES; i++)
		vfio_file_close(w->file[i]);
}

static void close_groups(struct world *w)
{
	for (unsigned int i = 0; i < NR_GROUPS; i++)
		vfio_group_file_put(w->opened[i]);
}

static void close_containers(struct world *w)
{
	for (unsigned int i = 0; i < NR_CONTAINERS; i++)
		vfio_container_put(w->container[i]);
}

/* Everything is closed, in one of the possible orders. */
static void finish(struct world *w, unsigned int order)
{
	static void (*const orders[][3])(struct world * w) = {
		{close_files, close_groups, close_containers},
		{close_groups, close_containers, close_files},
		{close_containers, close_files, close_groups},
		{close_containers, close_groups, close_files},
	};

	for (unsigned int i = 0; i < 3; i++)
		orders[order % 4][i](w);
	vfio_system_destroy(w->sys);
	for (unsigned int i = 0; i < NR_DEVICES; i++)
		vfio_device_destroy(w->dev[i]);
	for (unsigned int i = 0; i < NR_GROUPS; i++) {
		FUZZ_CHECK(!w->group[i].owner, "group %u is still owned", i);
		iommu_group_fini(&w->group[i]);
	}
	swiommu_close(w->ctx);
	client_fini(&w->client);
	check_accounts_empty(w->accounts);
	swiommu_accounts_put(w->accounts);
}

#ifdef __SANITIZE_THREAD__
/* The engines of several devices may be told to write to the same memory at once, as hardware may. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:^mem_guard_copy$";
}
#endif

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
		struct check c = {.ctx = &w.ctx, .nr_ctx = 1, .accounts = w.accounts};

		steps[pick(&in, ARRAY_SIZE(steps))](&w);
		if (i % 16 == 0)
			check_translations(&c);
	}
	finish(&w, i);
	FUZZ_CHECK(fuzz_count_fds() == fds, "descriptors: %u before, %u after", fds,
		   fuzz_count_fds());
	return 0;
}
