// SPDX-License-Identifier: MIT
/*
 * The client's steps of fuzz_ioctl.c: every ioctl, with structs that make some sense (objects that exist, ranges near
 * what is mapped), now and then with raw bytes, a wrong size, or memory that cannot be written.
 */
#include "ioctl_world.h"

#include <errno.h>
#include <string.h>

#include <linux/iommufd.h>
#include <linux/vfio.h>

#include "core/ctx.h"
#include "core/ioas.h"
#include "core/selftest_abi.h"

#define ARG_MAX 256u
/* The types by which the test ABI knows its mock vIOMMUs, queues, events and page tables. */
#define TEST_TYPE 0xdeadbeef
#define TEST_EVENTS 0xbeefbeef
#define TEST_HWPT 0xdead

/* ---- taking -------------------------------------------------------------------------------------- */

struct find_id {
	unsigned int skip;
	uint32_t id;
};

static bool find_id(struct obj *obj, void *data)
{
	struct find_id *f = data;

	f->id = obj->id;
	return !f->skip--;
}

/* An ID of the context: mostly an object of that type. */
static uint32_t take_id_of(struct world *w, struct iommufd_ctx *ctx, enum obj_type type)
{
	unsigned int v = take8(w->in);
	struct find_id f = {.skip = type == OBJ_ANY ? v % 16 : v % 4};

	if (v >= 240)
		return (uint32_t)take(w->in, 4);
	if (v >= 200)
		return v % 12;
	obj_for_each(ctx, type, find_id, &f);
	return f.id;
}

static uint32_t take_id(struct world *w, unsigned int ctx)
{
	static const enum obj_type types[] = {OBJ_IOAS,	  OBJ_IOAS,   OBJ_IOAS,	    OBJ_HWPT_PAGING,
					      OBJ_DEVICE, OBJ_ACCESS, OBJ_SELFTEST, OBJ_ANY};

	return take_id_of(w, w->ctx[ctx], types[pick(w->in, ARRAY_SIZE(types))]);
}

uint32_t take_ioas(struct world *w, unsigned int ctx)
{
	return take_id_of(w, w->ctx[ctx], OBJ_IOAS);
}

uint32_t take_pt(struct world *w, struct iommufd_ctx *ctx)
{
	return take_id_of(w, ctx, seldom(w->in, 3) ? OBJ_HWPT_PAGING : OBJ_IOAS);
}

unsigned int take_ctx(struct world *w)
{
	return pick(w->in, 8) % NR_CTX;
}

struct find_area {
	unsigned int skip;
	bool found;
	uint64_t iova, length;
};

static bool find_area(struct obj *obj, void *data)
{
	struct find_area *f = data;
	struct iova_area *area;

	iova_map_lock(ioas_of(obj)->map);
	iova_map_for_each (area, ioas_of(obj)->map)
		if (!f->skip--) {
			f->found = true;
			f->iova = area->iova;
			f->length = area->last - area->iova + 1;
			break;
		}
	iova_map_unlock(ioas_of(obj)->map);
	return f->found;
}

void take_range(struct world *w, unsigned int ctx, uint64_t *iova, uint64_t *length)
{
	unsigned int kind = take8(w->in);
	struct find_area f = {.skip = kind % 8};

	*iova = take_iova(w->in);
	*length = take_length(w->in);
	if (kind >= 160)
		return;
	obj_for_each(w->ctx[ctx], OBJ_IOAS, find_area, &f);
	if (!f.found)
		return;
	*iova = f.iova;
	switch (kind / 8 % 6) {
	case 0:
		*iova += *length % f.length;
		break;
	case 1:
		*iova += f.length;
		break;
	case 2:
		*iova += f.length > SWI_PAGE_SIZE ? SWI_PAGE_SIZE : 0;
		*length = SWI_PAGE_SIZE;
		break;
	default:
		*length = f.length;
	}
}

/* ---- ioctls -------------------------------------------------------------------------------------- */

/*
 * Issues an ioctl with a copy of the struct, as a rule in the fuzzer's own memory; sometimes so that its end
 * cannot be written, or with another size.
 */
static long issue(struct world *w, unsigned int ctx, unsigned int cmd, void *arg, size_t size)
{
	static _Alignas(8) uint8_t buf[ARG_MAX];
	unsigned int trick = take8(w->in);
	uint8_t *at = buf;
	long rc;

	memset(buf, 0, sizeof(buf));
	if (trick >= 248)
		at = arena + 32 * SWI_PAGE_SIZE - pick(w->in, (unsigned int)size + 1);
	memcpy(at, arg,
	       at == buf ? size : SWI_MIN(size, (size_t)(arena + 32 * SWI_PAGE_SIZE - at)));
	if (trick >= 240 && trick < 248)
		*(uint32_t *)buf = (uint32_t)take(w->in, trick < 246 ? 1 : 4);
	rc = client_ioctl(&w->client, w->ctx[ctx], cmd, at, at == buf ? sizeof(buf) : 0);
	if (at == buf)
		memcpy(arg, buf, size);
	return rc;
}

#define ISSUE(w, ctx, cmd, arg) issue(w, ctx, cmd, arg, sizeof(*(arg)))

void do_alloc(struct world *w)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd), .flags = seldom(w->in, 32)};

	ISSUE(w, take_ctx(w), IOMMU_IOAS_ALLOC, &cmd);
}

void do_destroy(struct world *w)
{
	unsigned int ctx = take_ctx(w);
	struct iommu_destroy cmd = {.size = sizeof(cmd), .id = take_id(w, ctx)};

	ISSUE(w, ctx, IOMMU_DESTROY, &cmd);
}

static uint32_t take_map_flags(struct world *w)
{
	unsigned int v = take8(w->in);

	return v < 128 ? 7 : v < 250 ? v % 8 : v;
}

void do_map(struct world *w)
{
	unsigned int ctx = take_ctx(w);
	struct iommu_ioas_map cmd = {
		.size = sizeof(cmd), .flags = take_map_flags(w), .ioas_id = take_ioas(w, ctx)};
	uint64_t user_va = take_uptr(w->in), length = take_length(w->in), ignored;

	fuzz_tame(&user_va, &length);
	take_range(w, ctx, (uint64_t *)&cmd.iova, &ignored);
	cmd.user_va = user_va;
	cmd.length = length;
	ISSUE(w, ctx, IOMMU_IOAS_MAP, &cmd);
}

void do_map_file(struct world *w)
{
	unsigned int ctx = take_ctx(w);
	struct iommu_ioas_map_file cmd = {
		.size = sizeof(cmd), .flags = take_map_flags(w), .ioas_id = take_ioas(w, ctx)};
	uint64_t ignored;

	cmd.fd = client_take_fd(&w->client, w->in);
	cmd.start =
		seldom(w->in, 16) ? take_iova(w->in) : take_length(w->in) % (18 * SWI_PAGE_SIZE);
	cmd.length = take_length(w->in);
	take_range(w, ctx, (uint64_t *)&cmd.iova, &ignored);
	ISSUE(w, ctx, IOMMU_IOAS_MAP_FILE, &cmd);
}

void do_copy(struct world *w)
{
	unsigned int ctx = take_ctx(w);
	struct iommu_ioas_copy cmd = {.size = sizeof(cmd), .flags = take_map_flags(w)};
	uint64_t ignored;

	cmd.dst_ioas_id = take_ioas(w, ctx);
	cmd.src_ioas_id = take_ioas(w, ctx);
	take_range(w, ctx, (uint64_t *)&cmd.src_iova, (uint64_t *)&cmd.length);
	take_range(w, ctx, (uint64_t *)&cmd.dst_iova, &ignored);
	ISSUE(w, ctx, IOMMU_IOAS_COPY, &cmd);
}

void do_unmap(struct world *w)
{
	unsigned int ctx = take_ctx(w);
	struct iommu_ioas_unmap cmd = {.size = sizeof(cmd), .ioas_id = take_ioas(w, ctx)};

	take_range(w, ctx, (uint64_t *)&cmd.iova, (uint64_t *)&cmd.length);
	if (seldom(w->in, 16)) {
		cmd.iova = 0;
		cmd.length = UINT64_MAX;
	}
	ISSUE(w, ctx, IOMMU_IOAS_UNMAP, &cmd);
}

void do_ranges(struct world *w)
{
	unsigned int ctx = take_ctx(w);
	struct iommu_ioas_allow_iovas allow = {.size = sizeof(allow), .ioas_id = take_ioas(w, ctx)};
	struct iommu_ioas_iova_ranges show = {.size = sizeof(show), .ioas_id = allow.ioas_id};
	uint64_t *list = (uint64_t *)(arena + 50 * SWI_PAGE_SIZE);

	allow.num_iovas = seldom(w->in, 32) ? (uint32_t)take(w->in, 4) : pick(w->in, 4);
	allow.allowed_iovas = seldom(w->in, 16) ? take_uptr(w->in) : (uintptr_t)list;
	for (unsigned int i = 0; i < SWI_MIN(allow.num_iovas, 4u); i++) {
		uint64_t first, length;

		take_range(w, ctx, &first, &length);
		list[2 * i] = first;
		list[2 * i + 1] = first + length - 1;
	}
	show.num_iovas = allow.num_iovas;
	show.allowed_iovas = allow.allowed_iovas;
	if (seldom(w->in, 4))
		ISSUE(w, ctx, IOMMU_IOAS_IOVA_RANGES, &show);
	else
		ISSUE(w, ctx, IOMMU_IOAS_ALLOW_IOVAS, &allow);
}

void do_option(struct world *w)
{
	unsigned int ctx = take_ctx(w);
	struct iommu_option cmd = {.size = sizeof(cmd), .option_id = pick(w->in, 10) % 4};

	cmd.op = (uint16_t)(pick(w->in, 10) % 3);
	cmd.object_id = cmd.option_id == IOMMU_OPTION_RLIMIT_MODE ? 0 : take_ioas(w, ctx);
	cmd.val64 = pick(w->in, 20) % 3;
	ISSUE(w, ctx, IOMMU_OPTION, &cmd);
}

void do_hwpt(struct world *w)
{
	unsigned int ctx = take_ctx(w);
	struct iommu_hwpt_alloc cmd = {.size = sizeof(cmd)};

	cmd.dev_id = take_id_of(w, w->ctx[ctx], OBJ_DEVICE);
	cmd.pt_id = take_pt(w, w->ctx[ctx]);
	cmd.flags = seldom(w->in, 4) ? take8(w->in) : 0;
	cmd.data_type = seldom(w->in, 16);
	ISSUE(w, ctx, IOMMU_HWPT_ALLOC, &cmd);
}

void do_hw_info(struct world *w)
{
	unsigned int ctx = take_ctx(w);
	struct iommu_hw_info cmd = {.size = sizeof(cmd)};

	cmd.dev_id = take_id_of(w, w->ctx[ctx], OBJ_DEVICE);
	cmd.flags = seldom(w->in, 8);
	cmd.data_len = take8(w->in);
	cmd.data_uptr = take_uptr(w->in);
	ISSUE(w, ctx, IOMMU_GET_HW_INFO, &cmd);
}

void do_compat(struct world *w)
{
	unsigned int ctx = take_ctx(w);
	struct iommu_vfio_ioas cmd = {.size = sizeof(cmd), .ioas_id = take_ioas(w, ctx)};
	uint32_t id;
	long rc;

	switch (pick(w->in, 12)) {
	case 0:
		rc = iommufd_vfio_compat_ioas_create(w->ctx[ctx]);
		FUZZ_CHECK(rc <= 0, "%ld", rc);
		break;
	case 1:
		rc = iommufd_vfio_compat_ioas_get_id(w->ctx[ctx], &id);
		FUZZ_CHECK(rc == 0 || rc == -ENODEV, "%ld", rc);
		break;
	case 2:
		if (seldom(w->in, 8))
			iommufd_vfio_compat_set_no_iommu(w->ctx[ctx]);
		break;
	default:
		cmd.op = (uint16_t)(pick(w->in, 9) % 4);
		ISSUE(w, ctx, IOMMU_VFIO_IOAS, &cmd);
	}
}

static void do_vfio_dma(struct world *w, unsigned int ctx)
{
	struct vfio_iommu_type1_dma_map map = {.argsz = sizeof(map),
					       .flags = take_map_flags(w) % 4};
	struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof(unmap)};
	uint64_t vaddr = take_uptr(w->in), size = take_length(w->in), ignored;

	if (seldom(w->in, 3)) {
		fuzz_tame(&vaddr, &size);
		map.vaddr = vaddr;
		map.size = size;
		take_range(w, ctx, (uint64_t *)&map.iova, &ignored);
		ISSUE(w, ctx, VFIO_IOMMU_MAP_DMA, &map);
		return;
	}
	if (seldom(w->in, 16))
		unmap.flags = VFIO_DMA_UNMAP_FLAG_ALL;
	else
		take_range(w, ctx, (uint64_t *)&unmap.iova, (uint64_t *)&unmap.size);
	ISSUE(w, ctx, VFIO_IOMMU_UNMAP_DMA, &unmap);
}

void do_vfio(struct world *w)
{
	struct {
		struct vfio_iommu_type1_info info;
		uint8_t caps[200];
	} info = {.info = {.argsz = take8(w->in) % 224}};
	unsigned int ctx = take_ctx(w);
	long rc;

	switch (pick(w->in, 10)) {
	case 0:
		rc = swiommu_ioctl(w->ctx[ctx], &w->client.caller, VFIO_CHECK_EXTENSION,
				   pick(w->in, 12));
		FUZZ_CHECK(rc == 0 || rc == 1 || is_known_errno(rc), "%ld", rc);
		break;
	case 1:
		rc = swiommu_ioctl(w->ctx[ctx], &w->client.caller, VFIO_SET_IOMMU, pick(w->in, 4));
		FUZZ_CHECK(rc == 0 || is_known_errno(rc), "%ld", rc);
		break;
	case 2:
		ISSUE(w, ctx, VFIO_IOMMU_GET_INFO, &info);
		break;
	default:
		do_vfio_dma(w, ctx);
	}
}

/* Any number with any bytes, but for what would map memory that is not the arena. */
void do_raw(struct world *w)
{
	unsigned int ctx = take_ctx(w), nr = take8(w->in), cmd = _IO(IOMMUFD_TYPE, nr);
	_Alignas(8) uint8_t arg[80];
	uint64_t *uptr = NULL, *length = NULL;

	take_bytes(w->in, arg, sizeof(arg));
	if (!seldom(w->in, 8))
		*(uint32_t *)arg = 8 + arg[0] % 66;
	if (cmd == IOMMU_IOAS_MAP) {
		uptr = (void *)(arg + offsetof(struct iommu_ioas_map, user_va));
		length = (void *)(arg + offsetof(struct iommu_ioas_map, length));
	} else if (cmd == VFIO_IOMMU_MAP_DMA) {
		uptr = (void *)(arg + offsetof(struct vfio_iommu_type1_dma_map, vaddr));
		length = (void *)(arg + offsetof(struct vfio_iommu_type1_dma_map, size));
	}
	if (uptr)
		fuzz_tame(uptr, length);
	if (cmd == IOMMU_TEST_CMD)
		w->unknown_pins = true;
	if (seldom(w->in, 16))
		cmd ^= (unsigned int)take(w->in, 4);
	ISSUE(w, ctx, cmd, &arg);
}

/* Calls on objects that only the mock IOMMU offers, if any: their IDs may be anything's. */
/* Reads or writes a descriptor that some ioctl has given out: a queue of faults or events, mostly. */
static void do_queue(struct world *w, uint64_t uptr)
{
	static const size_t lengths[] = {0, 7, 8, 12, 16, 20, 24, 40, 41, 80, 4096};
	size_t length = lengths[pick(w->in, ARRAY_SIZE(lengths))];
	int fd = client_take_fd(&w->client, w->in);
	struct swiommu_caller caller;

	swiommu_caller_local(&caller);
	caller.files = w->files;
	if (seldom(w->in, 3))
		swiommu_write(&caller, fd, uptr, length);
	else
		swiommu_read(&caller, fd, uptr, length);
}

void do_virtual(struct world *w)
{
	uint64_t iova, length, uptr = take_uptr(w->in);
	unsigned int ctx = seldom(w->in, 8) ? take_ctx(w) : TEST_CTX;
	uint32_t a = take_id_of(w, w->ctx[ctx], OBJ_ANY), b = take_id_of(w, w->ctx[ctx], OBJ_ANY);
	uint32_t word = seldom(w->in, 8) ? (uint32_t)take(w->in, 4) : pick(w->in, 3);
	struct iommu_viommu_alloc viommu = {.size = sizeof(viommu), .dev_id = a, .hwpt_id = b};
	struct iommu_vdevice_alloc vdevice = {.size = sizeof(vdevice), .viommu_id = a, .dev_id = b};
	struct iommu_fault_alloc fault = {.size = sizeof(fault)};
	struct iommu_veventq_alloc veventq = {.size = sizeof(veventq), .viommu_id = a};
	struct iommu_hw_queue_alloc queue = {.size = sizeof(queue), .viommu_id = a, .index = word};
	struct iommu_hwpt_set_dirty_tracking track = {
		.size = sizeof(track), .hwpt_id = a, .flags = word};
	struct iommu_hwpt_get_dirty_bitmap dirty = {
		.size = sizeof(dirty), .hwpt_id = a, .flags = word};
	struct iommu_hwpt_invalidate invalidate = {.size = sizeof(invalidate), .hwpt_id = a};
	struct iommu_hwpt_alloc hwpt = {
		.size = sizeof(hwpt), .dev_id = a, .pt_id = b, .data_uptr = uptr};

	take_range(w, ctx, &iova, &length);
	switch (pick(w->in, 10)) {
	case 0:
		viommu.type = seldom(w->in, 4) ? word : TEST_TYPE;
		viommu.data_len = seldom(w->in, 2) ? take8(w->in) : 0;
		viommu.data_uptr = uptr;
		ISSUE(w, ctx, IOMMU_VIOMMU_ALLOC, &viommu);
		break;
	case 1:
		vdevice.virt_id = word;
		ISSUE(w, ctx, IOMMU_VDEVICE_ALLOC, &vdevice);
		break;
	case 2:
		ISSUE(w, ctx, IOMMU_FAULT_QUEUE_ALLOC, &fault);
		break;
	case 3:
		veventq.type = seldom(w->in, 4) ? word : TEST_EVENTS;
		veventq.veventq_depth = take8(w->in);
		ISSUE(w, ctx, IOMMU_VEVENTQ_ALLOC, &veventq);
		break;
	case 4:
		queue.type = seldom(w->in, 4) ? word : TEST_TYPE;
		queue.nesting_parent_iova = iova;
		queue.length = length;
		ISSUE(w, ctx, IOMMU_HW_QUEUE_ALLOC, &queue);
		break;
	case 5:
		ISSUE(w, ctx, IOMMU_HWPT_SET_DIRTY_TRACKING, &track);
		break;
	case 6:
		dirty.iova = iova;
		dirty.length = length;
		dirty.page_size = 1ull << pick(w->in, 24);
		dirty.data = uptr;
		ISSUE(w, ctx, IOMMU_HWPT_GET_DIRTY_BITMAP, &dirty);
		break;
	case 7:
		invalidate.data_uptr = uptr;
		invalidate.data_type = seldom(w->in, 4) ? word : TEST_TYPE;
		invalidate.entry_len = take8(w->in);
		invalidate.entry_num = word;
		ISSUE(w, ctx, IOMMU_HWPT_INVALIDATE, &invalidate);
		break;
	case 8:
		do_queue(w, uptr);
		break;
	default:
		hwpt.flags = seldom(w->in, 2) ? pick(w->in, 16) : 0;
		hwpt.data_type = seldom(w->in, 2) ? TEST_HWPT : 0;
		hwpt.data_len = hwpt.data_type ? take8(w->in) % 8 : 0;
		hwpt.fault_id = take_id_of(w, w->ctx[ctx], OBJ_ANY);
		ISSUE(w, ctx, IOMMU_HWPT_ALLOC, &hwpt);
	}
}

void furnish_virtual(struct world *w)
{
	struct iommu_test_cmd mock = {
		.size = sizeof(mock), .op = IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS, .id = 1};
	struct iommu_fault_alloc fault = {.size = sizeof(fault)};
	struct iommu_hwpt_alloc hwpt = {.size = sizeof(hwpt), .pt_id = 1};
	struct iommu_viommu_alloc viommu = {.size = sizeof(viommu), .type = TEST_TYPE};
	struct iommu_vdevice_alloc vdevice = {.size = sizeof(vdevice), .virt_id = 1};
	struct iommu_veventq_alloc events = {
		.size = sizeof(events), .type = TEST_EVENTS, .veventq_depth = 2};
	struct iommufd_ctx *ctx = w->ctx[TEST_CTX];

	mock.mock_domain.dev_flags = MOCK_FLAGS_DEVICE_PASID;
	client_ioctl(&w->client, ctx, IOMMU_TEST_CMD, &mock, sizeof(mock));
	client_ioctl(&w->client, ctx, IOMMU_FAULT_QUEUE_ALLOC, &fault, sizeof(fault));
	hwpt.dev_id = mock.mock_domain.out_idev_id;
	hwpt.flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
	client_ioctl(&w->client, ctx, IOMMU_HWPT_ALLOC, &hwpt, sizeof(hwpt));
	hwpt.flags = IOMMU_HWPT_ALLOC_NEST_PARENT;
	client_ioctl(&w->client, ctx, IOMMU_HWPT_ALLOC, &hwpt, sizeof(hwpt));
	viommu.dev_id = hwpt.dev_id;
	viommu.hwpt_id = hwpt.out_hwpt_id;
	client_ioctl(&w->client, ctx, IOMMU_VIOMMU_ALLOC, &viommu, sizeof(viommu));
	vdevice.viommu_id = events.viommu_id = viommu.out_viommu_id;
	vdevice.dev_id = hwpt.dev_id;
	client_ioctl(&w->client, ctx, IOMMU_VDEVICE_ALLOC, &vdevice, sizeof(vdevice));
	client_ioctl(&w->client, ctx, IOMMU_VEVENTQ_ALLOC, &events, sizeof(events));
}

static void fill_test(struct world *w, struct iommu_test_cmd *cmd)
{
	uint64_t iova, length;

	take_range(w, TEST_CTX, &iova, &length);
	switch (cmd->op) {
	case IOMMU_TEST_OP_ADD_RESERVED:
		cmd->add_reserved.start = iova;
		cmd->add_reserved.length = length;
		break;
	case IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE:
		cmd->mock_domain_replace.pt_id = take_pt(w, w->ctx[TEST_CTX]);
		break;
	case IOMMU_TEST_OP_MD_CHECK_MAP:
		cmd->check_map.iova = iova;
		cmd->check_map.length = length;
		cmd->check_map.uptr = take_uptr(w->in);
		break;
	case IOMMU_TEST_OP_MD_CHECK_REFS:
		cmd->check_refs.length = length;
		cmd->check_refs.uptr = take_uptr(w->in);
		cmd->check_refs.refs = take8(w->in);
		break;
	case IOMMU_TEST_OP_CREATE_ACCESS:
		cmd->create_access.flags = pick(w->in, 2);
		break;
	case IOMMU_TEST_OP_DESTROY_ACCESS_PAGES:
		cmd->destroy_access_pages.access_pages_id = pick(w->in, 8);
		break;
	case IOMMU_TEST_OP_ACCESS_PAGES:
	case IOMMU_TEST_OP_ACCESS_RW:
		cmd->access_pages.flags = pick(w->in, 2);
		cmd->access_pages.iova = iova;
		cmd->access_pages.length = length;
		cmd->access_pages.uptr = take_uptr(w->in);
		if (cmd->op == IOMMU_TEST_OP_ACCESS_RW) {
			cmd->access_rw.iova = iova;
			cmd->access_rw.length = length;
			cmd->access_rw.uptr = take_uptr(w->in);
			cmd->access_rw.flags = pick(w->in, 4);
		}
		break;
	case IOMMU_TEST_OP_ACCESS_REPLACE_IOAS:
		cmd->access_replace_ioas.ioas_id = take_ioas(w, TEST_CTX);
		break;
	case IOMMU_TEST_OP_DMABUF_GET:
		cmd->dmabuf_get.length = pick(w->in, 17) * SWI_PAGE_SIZE;
		break;
	case IOMMU_TEST_OP_DMABUF_REVOKE:
		cmd->dmabuf_revoke.dmabuf_fd = client_take_fd(&w->client, w->in);
		cmd->dmabuf_revoke.revoked = pick(w->in, 2);
		break;
	case IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT:
		cmd->memory_limit.limit = (uint32_t)take(w->in, 2);
		break;
	default:
		/* Numbers in front, then a range: what most of the others begin with. */
		cmd->pasid.pasid = take8(w->in) % 8;
		cmd->pasid.pt_id = take_id(w, TEST_CTX);
		cmd->dirty.length = length;
		if (seldom(w->in, 2)) {
			cmd->dirty.iova = iova;
			cmd->dirty.page_size = 1ull << pick(w->in, 20);
			cmd->dirty.uptr = take_uptr(w->in);
		}
	}
}

void do_test(struct world *w)
{
	struct iommu_test_cmd cmd = {.size = sizeof(cmd), .op = 1 + pick(w->in, 24)};

	cmd.id = cmd.op == IOMMU_TEST_OP_DESTROY_ACCESS_PAGES ||
				 cmd.op == IOMMU_TEST_OP_ACCESS_PAGES ||
				 cmd.op == IOMMU_TEST_OP_ACCESS_RW ||
				 cmd.op == IOMMU_TEST_OP_ACCESS_REPLACE_IOAS
			 ? (uint32_t)client_take_fd(&w->client, w->in)
			 : take_id(w, TEST_CTX);
	fill_test(w, &cmd);
	w->unknown_pins |= cmd.op == IOMMU_TEST_OP_CREATE_ACCESS;
	ISSUE(w, TEST_CTX, IOMMU_TEST_CMD, &cmd);
}

void do_change_process(struct world *w)
{
	struct iommu_ioas_change_process cmd = {.size = sizeof(cmd)};

	ISSUE(w, take_ctx(w), IOMMU_IOAS_CHANGE_PROCESS, &cmd);
}
