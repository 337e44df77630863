// SPDX-License-Identifier: MIT
/*
 * The vfio-user client against servers that misbehave, die and come back. Whatever the server does, no call may hang,
 * nothing may crash or leak, and what the program sees is a device that was pulled out.
 */
#include "urig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"

#define RW (IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE)
#define BASE 0x100000ull

static const struct server_options plain, with_twin = {.twin = true};

/* ---- faults in the middle of things ---------------------------------------------------------- */

struct scene {
	struct urig u;
	int32_t req, vector;
	char *memory;
};

static long try_map(struct scene *s, uint64_t iova)
{
	struct iommu_ioas_map map = {.size = sizeof(map),
				     .flags = IOMMU_IOAS_MAP_FIXED_IOVA | RW,
				     .ioas_id = s->u.rig.ioas,
				     .user_va = (uintptr_t)s->memory,
				     .length = PAGE,
				     .iova = iova};
	struct swiommu_caller me;

	swiommu_caller_local(&me);
	return swiommu_ioctl(s->u.rig.ctx, &me, IOMMU_IOAS_MAP, (uintptr_t)&map);
}

static long do_read(struct scene *s)
{
	uint64_t value;
	ssize_t n = rig_try_read(&s->u.rig, 0, REG_MAGIC, &value, 8);

	return n < 0 ? n : value == MAGIC ? 0 : value == UINT64_MAX ? -EIO : 1;
}

static long do_write(struct scene *s)
{
	uint64_t value = 1;
	ssize_t n = rig_try_write(&s->u.rig, 0, REG_SCRATCH, &value, 8);

	return n < 0 ? n : 0;
}

static long do_arm(struct scene *s)
{
	return rig_arm(&s->u.rig, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, &s->vector);
}

static long do_map(struct scene *s)
{
	return try_map(s, 5 * BASE);
}

static long do_unmap(struct scene *s)
{
	rig_unmap(&s->u.rig, BASE, PAGE);
	return 0;
}

static long do_reset(struct scene *s)
{
	return rig_ioctl(&s->u.rig, VFIO_DEVICE_RESET, NULL);
}

static long do_command(struct scene *s)
{
	rig_write(&s->u.rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	rig_write(&s->u.rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	return 0;
}

static const struct {
	const char *name;
	long (*run)(struct scene *s);
	unsigned int cmd;
	bool eio; /* without a server: EIO; else it succeeds, or reads all ones */
} ops[] = {
	{"read", do_read, CMD_READ, true},	   {"map", do_map, CMD_DMA_MAP, false},
	{"unmap", do_unmap, CMD_DMA_UNMAP, false}, {"write", do_write, CMD_WRITE, false},
	{"arm", do_arm, CMD_SET_IRQS, true},	   {"reset", do_reset, CMD_RESET, true},
	{"command", do_command, CMD_WRITE, false},
};

static bool takes_time(unsigned int fault)
{
	return fault == FAULT_SILENT || fault == FAULT_LATE || fault == FAULT_STALL_BODY;
}

static void scene_begin(struct scene *s, const struct server_options *opt, const char *more)
{
	memset(s, 0, sizeof(*s));
	s->req = rig_eventfd();
	s->vector = rig_eventfd();
	urig_ready(&s->u, opt, more);
	s->memory = rig_pages(PAGE);
	rig_map(&s->u.rig, s->memory, PAGE, BASE, RW);
	rig_map(&s->u.rig, s->memory, PAGE, 2 * BASE, RW);
	assert_int_equal(rig_arm(&s->u.rig, VFIO_PCI_REQ_IRQ_INDEX, 0, 1, &s->req), 0);
}

static void scene_end(struct scene *s)
{
	urig_close(&s->u);
	munmap(s->memory, PAGE);
	close(s->req);
	close(s->vector);
}

/* The device is gone for good, and the program can still take everything down. */
static void check_lost(struct scene *s)
{
	s->u.lost = true;
	rig_wait(s->req);
	assert_int_equal(do_read(s), -EIO); /* all ones */
	assert_int_equal(rig_read(&s->u.rig, CONFIG, 0xb4, 4), UINT32_MAX);
	assert_int_equal(rig_read(&s->u.rig, CONFIG, PCI_VENDOR_ID, 4), 0x0b0b1234);
	assert_int_equal(do_write(s), 0);
	assert_int_equal(do_reset(s), -EIO);
	assert_int_equal(do_arm(s), -EIO);
	assert_int_equal(do_command(s), 0);
	assert_int_equal(try_map(s, 7 * BASE), 0);
	rig_unmap(&s->u.rig, 7 * BASE, PAGE);
}

static void check_alive(struct scene *s)
{
	assert_int_equal(do_read(s), 0);
	assert_int_equal(try_map(s, 7 * BASE), 0);
	assert_int_equal(copy(&s->u, 7 * BASE, 7 * BASE + 64, 64, GO_MESSAGES), 0);
	rig_unmap(&s->u.rig, 7 * BASE, PAGE);
	assert_int_equal(do_arm(s), 0);
	set_reg(&s->u, REG_IRQ, 0);
	assert_int_equal(rig_wait(s->vector), 1);
	assert_int_equal(do_reset(s), 0);
	assert_int_equal(rig_count(s->req), 0);
}

static unsigned int tried, survived;

static void one_fault(unsigned int fault, unsigned int op, bool twin)
{
	/* A server that may not forget is not one to go on with. */
	bool refused = fault == FAULT_ERROR && ops[op].cmd == CMD_DMA_UNMAP;
	bool deadly = fault <= FAULT_LAST_DEADLY || refused;
	struct scene s;
	long rc;

	tried++;
	scene_begin(&s, twin ? &with_twin : &plain, takes_time(fault) ? "timeout=700" : NULL);
	server_fault(s.u.server, fault, ops[op].cmd, 0);
	rc = ops[op].run(&s);
	if (deadly && fault != FAULT_TWICE)
		assert_int_equal(rc, ops[op].eio ? -EIO : 0);
	else if (fault == FAULT_ERROR && ops[op].run != do_command)
		assert_int_equal(rc, -EINVAL);
	else if (!deadly)
		assert_int_equal(rc, 0);
	if (deadly)
		check_lost(&s);
	else
		check_alive(&s);
	/* Here the server has done what it says it has not. */
	s.u.lost |= fault == FAULT_ERROR && ops[op].cmd == CMD_DMA_MAP;
	scene_end(&s);
	survived++;
}

static void faults(void **state)
{
	(void)state;
	for (unsigned int fault = 1; fault < FAULT_LAST; fault++)
		for (unsigned int op = 0;
		     op < (takes_time(fault) ? 3 : sizeof(ops) / sizeof(ops[0])); op++)
			one_fault(fault, op, (fault + op) % 2);
	print_message("faults survived: %u of %u\n", survived, tried);
}

/* ---- faults while the device is made --------------------------------------------------------- */

/* Whether a device can be made; the reason why not. Nothing may be left open. */
static bool can_make(struct urig *u, struct swi_reason *why)
{
	struct vfio_device_place place = {
		.bdf = "0000:5e:00.0", .index = 3, .group = &u->rig.group};
	struct vfio_device *dev;

	snprintf(u->options, sizeof(u->options), "socket=%s,timeout=700", u->path);
	why->text[0] = '\0';
	if (vfio_device_create(&vfio_model_user, &place, u->options, &dev, why)) {
		assert_true(why->text[0] != '\0');
		return false;
	}
	vfio_device_destroy(dev);
	return true;
}

static void faults_at_the_start(void **state)
{
	static const unsigned int cmds[] = {CMD_VERSION, CMD_INFO, CMD_REGION_INFO, CMD_IRQ_INFO,
					    CMD_READ};
	unsigned int done = 0;
	struct swi_reason why;
	struct urig u;

	(void)state;
	for (unsigned int fault = 1; fault <= FAULT_LAST_DEADLY; fault++)
		for (unsigned int i = 0; i < sizeof(cmds) / sizeof(cmds[0]); i++) {
			if ((takes_time(fault) && i) || fault == FAULT_TWICE)
				continue;
			urig_serve(&u, i % 2 ? &with_twin : &plain);
			server_fault(u.server, fault, cmds[i], 0);
			if (can_make(&u, &why))
				fail_msg("fault %u of command %u: a device was made", fault,
					 cmds[i]);
			urig_close_server(&u);
			done++;
		}
	print_message("faults at the start survived: %u\n", done);
}

static void versions(void **state)
{
	static char deep[2000];
	static const struct {
		struct server_options opt;
		bool ok;
	} cases[] = {
		{{.version = "{}"}, true},
		{{.version = "", .version_len = 1}, true},
		{{.version = "{\"capabilities\":{}}"}, true},
		{{.version = "{\"capabilities\":7}"}, true},
		{{.version = "{\"capabilities\":{\"max_msg_fds\":\"x\",\"max_dma_maps\":-4,"
			     "\"max_data_xfer_size\":0,\"pgsizes\":[],\"other\":{}}}"},
		 true},
		{{.version = "{\"capabilities\":{\"max_msg_fds\":99999999999999999999}}"}, true},
		/* Without its NUL. */
		{{.version = "{\"capabilities\":{}}", .version_len = 19}, true},
		{{.version = "{\"capabilities\":{\"twin_socket\":{\"supported\":false}}}"}, true},
		{{.minor = 0xffff}, true},
		{{.minor = 1}, true},
		{{.minor = 3}, false},
		{{.major = 1}, false},
		{{.version = "nonsense"}, false},
		{{.version = "[1,2]"}, false},
		{{.version = "{\"capabilities\":"}, false},
		{{.version = deep}, false},
		{{.twin_fd = 1}, false},
		{{.twin_fd = 2}, false},
		{{.version = "{\"capabilities\":{\"twin_socket\":{\"supported\":true,"
			     "\"fd_index\":-1}}}"},
		 false},
	};
	struct swi_reason why;
	struct urig u;

	(void)state;
	memset(deep, '[', sizeof(deep) - 1);
	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		urig_serve(&u, &cases[i].opt);
		if (can_make(&u, &why) != cases[i].ok)
			fail_msg("version %u: %s", i, cases[i].ok ? why.text : "accepted");
		urig_close_server(&u);
	}
}

static void nobody_there(void **state)
{
	struct swi_reason why;
	struct urig u;

	(void)state;
	urig_serve(&u, &plain);
	server_stop(u.server);
	u.server = NULL;
	assert_false(can_make(&u, &why));
	assert_non_null(strstr(why.text, u.path));
	urig_close_server(&u);
}

/* ---- odd devices ----------------------------------------------------------------------------- */

static void set32(uint8_t *at, uint32_t v)
{
	memcpy(at, &v, 4);
}

static void set64(uint8_t *at, uint64_t v)
{
	memcpy(at, &v, 8);
}

#define BEND(name, command, statement)                                                       \
	static void name(uint16_t cmd, const uint8_t *request, uint8_t *body, uint32_t *len) \
	{                                                                                    \
		(void)request;                                                               \
		(void)body, (void)len;                                                       \
		if (cmd == (command))                                                        \
			statement;                                                           \
	}
#define BEND_BAR0(name, statement) \
	BEND(                      \
		name, CMD_REGION_INFO, if (!request[8]) { statement; })
#define BEND_CONFIG(name, statement)      \
	static void name(uint8_t *config) \
	{                                 \
		statement;                \
	}

BEND(no_pci, CMD_INFO, set32(body + 4, 1))
BEND(few_regions, CMD_INFO, set32(body + 8, 3))
BEND(no_irqs, CMD_INFO, set32(body + 12, 0))
BEND(many_vectors, CMD_IRQ_INFO, set32(body + 12, UINT32_MAX))
BEND(short_irq_info, CMD_IRQ_INFO, *len = 12)
BEND_BAR0(huge_bar, set64(body + 16, 1ull << 50))
BEND_BAR0(wrong_index, set32(body + 8, 4))
BEND_BAR0(cap_outside, set32(body + 12, 4000))
BEND_BAR0(cap_at_end, set32(body + 12, *len - 4))
BEND_BAR0(cap_inside_info, set32(body + 12, 8))
BEND_BAR0(cap_circle, {
	body[32] = 77;
	set32(body + 36, 32);
})
BEND_BAR0(many_areas, set32(body + 40, UINT32_MAX))
BEND_BAR0(crooked_area, set64(body + 48, 0x1001))
BEND_BAR0(area_outside, set64(body + 48, 0x3000))
BEND_BAR0(area_wraps, {
	set64(body + 48, 0x1000);
	set64(body + 56, -0x1000ull);
})
BEND_BAR0(file_too_small, set64(body + 24, 1ull << 40))
BEND_BAR0(file_wraps, set64(body + 24, -0x1000ull))
BEND_BAR0(large_argsz, set32(body, 1u << 30))
BEND_BAR0(odd_size, set64(body + 16, 0x2fff))
BEND(no_config, CMD_REGION_INFO, if (request[8] == 7) set64(body + 16, 16))
BEND(config_256, CMD_REGION_INFO, if (request[8] == 7) set64(body + 16, 256))

BEND_CONFIG(no_vendor, set32(config, UINT32_MAX))
BEND_CONFIG(cap_loop, config[0x51] = 0x40)
BEND_CONFIG(cap_itself, config[0x41] = 0x40)
BEND_CONFIG(caps_overlap, {
	config[0x41] = 0x44;
	config[0x44] = 5;
	config[0x45] = 0x60;
})
BEND_CONFIG(caps_in_header, config[0x34] = 0x10)
BEND_CONFIG(caps_at_the_end, {
	config[0x34] = 0xfc;
	config[0xfc] = 0x10;
	config[0xfd] = 0;
})
BEND_CONFIG(msix_outside, set32(config + 0xa4, 0xfffff8 | 1))
BEND_CONFIG(msix_no_bar, set32(config + 0xa4, 7))
BEND_CONFIG(msix_other_bar, set32(config + 0xa8, 0))
BEND_CONFIG(express_1, config[0x62] = 1)
BEND_CONFIG(ext_loop, set32(config + 0x180, 0x10010003))
BEND_CONFIG(ext_overlap, set32(config + 0x100, 0x10210001))
BEND_CONFIG(ext_first_hidden, set32(config + 0x100, 0x1801001b))
BEND_CONFIG(ext_outside, set32(config + 0x100, 0xffd10001))
BEND_CONFIG(bars_64, {
	set32(config + 0x10, 0xc);
	set32(config + 0x14, 0);
})
BEND_CONFIG(odd_pin, config[0x3d] = 99)

static void odd_devices(void **state)
{
	static const struct {
		const char *name;
		struct server_options opt;
		bool refused;
		int areas; /* mappable: 1 yes, -1 no, 0 do not look */
	} cases[] = {
#define D(f, ...) {#f, {.bend = f}, __VA_ARGS__}
#define C(f, ...)                                    \
	{                                            \
#f, {.bend_config = f }, __VA_ARGS__ \
	}
		D(no_pci, true, 0),	      D(few_regions, true, 0),
		D(no_irqs, false, 1),	      D(many_vectors, false, 1),
		D(short_irq_info, true, 0),   D(huge_bar, true, 0),
		D(wrong_index, true, 0),      D(cap_outside, false, 0),
		D(cap_at_end, false, 0),      D(cap_inside_info, false, 0),
		D(cap_circle, false, 0),      D(many_areas, false, 1),
		D(crooked_area, false, -1),   D(area_outside, false, -1),
		D(area_wraps, false, -1),     D(file_too_small, false, -1),
		D(file_wraps, false, -1),     D(large_argsz, false, 1),
		D(odd_size, false, 0),	      D(no_config, true, 0),
		D(config_256, false, 1),      C(no_vendor, true, 0),
		C(cap_loop, false, 1),	      C(cap_itself, false, 1),
		C(caps_overlap, false, 1),    C(caps_in_header, false, 1),
		C(caps_at_the_end, false, 1), C(msix_outside, false, 1),
		C(msix_no_bar, false, 1),     C(msix_other_bar, false, 1),
		C(express_1, false, 1),	      C(ext_loop, false, 1),
		C(ext_overlap, false, 1),     C(ext_first_hidden, false, 1),
		C(ext_outside, false, 1),     C(bars_64, false, 1),
		C(odd_pin, false, 1),
	};
	struct vfio_area area;
	struct swi_reason why;
	struct urig u;
	bool pages;

	(void)state;
	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		urig_serve(&u, &cases[i].opt);
		if (can_make(&u, &why) == cases[i].refused)
			fail_msg("%s: %s", cases[i].name, cases[i].refused ? "accepted" : why.text);
		urig_close_server(&u);
		if (cases[i].refused)
			continue;
		urig_ready(&u, &cases[i].opt, NULL);
		assert_int_equal(reg(&u, REG_MAGIC), MAGIC);
		assert_int_equal(rig_read(&u.rig, CONFIG, PCI_VENDOR_ID, 4), 0x0b0b1234);
		for (unsigned int pos = 0; pos < 256; pos += 4)
			rig_read(&u.rig, CONFIG, pos, 4);
		assert_int_equal(vfio_region_area(u.rig.dev, 0, 0x1000, &area), 0);
		pages = area.kind == VFIO_AREA_PAGES;
		if (cases[i].areas && pages != (cases[i].areas > 0))
			fail_msg("%s: pages of BAR0", cases[i].name);
		urig_close(&u);
	}
	print_message("odd devices: %zu\n", sizeof(cases) / sizeof(cases[0]));
}

/* ---- servers that go and come ---------------------------------------------------------------- */

static void restart(struct scene *s, const struct server_options *opt)
{
	s->u.server = server_start(s->u.path, opt);
}

static void stop(struct scene *s)
{
	struct server_stats stats;

	server_get_stats(s->u.server, &stats);
	assert_int_equal(stats.violations, 0);
	server_stop(s->u.server);
	s->u.server = NULL;
}

static void wait_alive(struct scene *s)
{
	while (do_read(s))
		usleep(1000);
}

static void a_server_comes_back(void **state)
{
	struct scene s;

	(void)state;
	scene_begin(&s, &with_twin, "reconnect=60");
	assert_int_equal(do_arm(&s), 0);
	for (int i = 0; i < 3; i++) {
		stop(&s);
		check_lost(&s);
		/* What changes meanwhile is told to the new one. */
		assert_int_equal(try_map(&s, (10 + i) * BASE), 0);
		rig_write(&s.u.rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
		if (i == 2)
			rig_unmap(&s.u.rig, 2 * BASE, PAGE);
		restart(&s, i % 2 ? &plain : &with_twin);
		wait_alive(&s);
		assert_int_equal(nr_maps(&s.u), i == 2 ? 4 : 3 + i);
		assert_int_equal(reg(&s.u, REG_RESETS) >> 32 & 7, PCI_COMMAND_MEMORY);
		rig_write(&s.u.rig, CONFIG, PCI_COMMAND, 2,
			  PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
		assert_int_equal(copy(&s.u, BASE, (10 + i) * BASE + 9, 99, GO_COPY), 0);
		assert_int_equal(do_arm(&s), 0);
		set_reg(&s.u, REG_IRQ, 0);
		assert_int_equal(rig_wait(s.vector), 1);
		while (rig_count(s.req))
			;
	}
	scene_end(&s);
}

/* Interrupts that were armed before are armed at the new server without being asked for again. */
static void interrupts_come_back(void **state)
{
	struct scene s;

	(void)state;
	scene_begin(&s, &plain, "reconnect=60");
	assert_int_equal(do_arm(&s), 0);
	stop(&s);
	rig_wait(s.req);
	restart(&s, &plain);
	wait_alive(&s);
	set_reg(&s.u, REG_IRQ, 0);
	assert_int_equal(rig_wait(s.vector), 1);
	assert_int_equal(rig_set_irqs(&s.u.rig,
				      VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
				      VFIO_PCI_MSIX_IRQ_INDEX, 0, 0, NULL),
			 0);
	assert_int_equal(rig_arm(&s.u.rig, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, &s.vector), 0);
	stop(&s);
	rig_wait(s.req);
	restart(&s, &plain);
	wait_alive(&s);
	set_reg(&s.u, REG_IRQ, 0);
	assert_int_equal(rig_wait(s.vector), 1);
	scene_end(&s);
}

static void another_device_comes_back(void **state)
{
	const struct server_options other = {.device = 1};
	struct server_stats stats;
	struct scene s;

	(void)state;
	scene_begin(&s, &plain, "reconnect=60");
	stop(&s);
	rig_wait(s.req);
	restart(&s, &other);
	do {
		usleep(1000);
		server_get_stats(s.u.server, &stats);
	} while (!stats.clients);
	check_lost(&s);
	assert_int_equal(stats.maps, 0);
	scene_end(&s);
}

/* Without the option a lost server is looked for once, when the device is bound again. */
static void bind_after_loss(void **state)
{
	struct scene s;
	uint32_t pt;

	(void)state;
	scene_begin(&s, &plain, NULL);
	stop(&s);
	check_lost(&s);
	vfio_file_close(s.u.rig.file);
	assert_int_equal(vfio_file_open(s.u.rig.dev, &s.u.rig.file), 0);
	assert_int_equal(rig_bind(&s.u.rig), -EIO);
	assert_true(s.u.rig.caller.reason[0] != '\0');
	restart(&s, &plain);
	assert_int_equal(rig_bind(&s.u.rig), 0);
	pt = s.u.rig.ioas;
	assert_int_equal(rig_attach(&s.u.rig, &pt), 0);
	assert_int_equal(reg(&s.u, REG_MAGIC), MAGIC);
	assert_int_equal(nr_maps(&s.u), 2);
	scene_end(&s);
}

/* ---- lost under load ------------------------------------------------------------------------- */

struct load {
	struct scene *s;
	struct rig rig;
	unsigned int what;
	_Atomic bool stop;
};

static void *load_thread(void *arg)
{
	struct load *l = arg;
	struct scene *s = l->s;
	uint64_t value;

	for (unsigned int i = 0; !atomic_load(&l->stop); i++) {
		switch (l->what) {
		case 0:
			rig_try_read(&l->rig, 0, REG_MAGIC, &value, 8);
			break;
		case 1:
			rig_map(&l->rig, s->memory, PAGE, (30 + i % 4) * BASE, RW);
			rig_unmap(&l->rig, (30 + i % 4) * BASE, PAGE);
			break;
		case 2:
			rig_arm(&l->rig, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, &s->vector);
			rig_set_irqs(&l->rig, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
				     VFIO_PCI_MSIX_IRQ_INDEX, 0, 0, NULL);
			break;
		default:
			value = GO_MESSAGES;
			rig_try_write(&l->rig, 0, REG_GO, &value, 8);
			rig_ioctl(&l->rig, VFIO_DEVICE_RESET, NULL);
		}
	}
	return NULL;
}

static void lost_and_found_under_load(void **state)
{
	struct load loads[4];
	pthread_t threads[4];
	struct scene s;

	(void)state;
	scene_begin(&s, &with_twin, "reconnect=60");
	set_reg(&s.u, REG_SOURCE, BASE);
	set_reg(&s.u, REG_TARGET, 2 * BASE);
	set_reg(&s.u, REG_LENGTH, 512);
	for (unsigned int i = 0; i < 4; i++) {
		memset(&loads[i], 0, sizeof(loads[i]));
		loads[i].s = &s;
		loads[i].what = i;
		rig_for_thread(&loads[i].rig, &s.u.rig);
		pthread_create(&threads[i], NULL, load_thread, &loads[i]);
	}
	for (int i = 0; i < 4; i++) {
		usleep(20000);
		server_stop(s.u.server);
		s.u.server = NULL;
		usleep(5000);
		restart(&s, i % 2 ? &with_twin : &plain);
		wait_alive(&s);
	}
	for (unsigned int i = 0; i < 4; i++) {
		atomic_store(&loads[i].stop, true);
		pthread_join(threads[i], NULL);
	}
	wait_alive(&s);
	assert_int_equal(nr_maps(&s.u), 2);
	scene_end(&s);
}

/* ---- bytes changed at random ----------------------------------------------------------------- */

/* More of them with SEEDS=N in the environment. */
#define SEEDS 25

static void use_device(struct scene *s)
{
	uint32_t pt = s->u.rig.ioas;

	if (rig_bind(&s->u.rig))
		return;
	rig_attach(&s->u.rig, &pt);
	for (int i = 0; i < 6; i++) {
		do_read(s);
		try_map(s, (uint64_t)(3 + i) * BASE);
		do_arm(s);
		do_command(s);
		if (!try_map(s, BASE))
			rig_unmap(&s->u.rig, BASE, PAGE);
		for (unsigned int k = REG_SOURCE; k <= REG_LENGTH; k += 8) {
			uint64_t value = k == REG_LENGTH ? 64 : 3 * BASE + k;

			rig_try_write(&s->u.rig, 0, k, &value, 8);
		}
		rig_try_write(&s->u.rig, 0, REG_GO, &(uint64_t){GO_MESSAGES}, 8);
		do_reset(s);
		rig_read(&s->u.rig, CONFIG, 0xb4, 4);
	}
}

static void mutations(void **state)
{
	const char *more = getenv("SEEDS");
	unsigned int seeds = more ? (unsigned int)atoi(more) : SEEDS;
	struct swi_reason why;

	(void)state;
	for (unsigned int seed = 1; seed <= seeds; seed++) {
		struct server_options opt = {.twin = seed % 2, .mutate = seed};
		struct scene s = {.req = -1};

		/* A device that may come into being or not. */
		urig_serve(&s.u, &opt);
		can_make(&s.u, &why);
		server_stop(s.u.server);
		s.u.server = NULL;
		urig_close_server(&s.u);
		/* And one that has, before it begins. */
		opt.mutate_after = 100 + seed % 60;
		urig_open(&s.u, &opt, "timeout=400,reconnect=1");
		s.u.lost = true;
		s.vector = rig_eventfd();
		s.memory = rig_pages(PAGE);
		use_device(&s);
		munmap(s.memory, PAGE);
		close(s.vector);
		urig_close(&s.u);
	}
	print_message("seeds survived: %u\n", seeds);
}

/* ---- lack of memory --------------------------------------------------------------------------- */

/* Whether the device can be made with the nth allocation failing; false: there are not so many. */
static bool fails_to_be_made(struct urig *u, unsigned int nth)
{
	struct vfio_device_place place = {.bdf = "0000:00:01.0"};
	struct swi_reason why = {""};
	struct vfio_device *dev = NULL;
	char options[128];
	int rc;

	snprintf(options, sizeof(options), "socket=%s", u->path);
	swi_alloc_fail_nth(nth);
	rc = vfio_device_create(&vfio_model_user, &place, options, &dev, &why);
	if (swi_alloc_fail_nth(0)) {
		assert_int_equal(rc, 0);
		vfio_device_destroy(dev);
		return false;
	}
	assert_int_equal(rc, -ENOMEM);
	return true;
}

/* The same of binding it, and attaching it to what has mappings that the server is told. */
static bool fails_to_be_used(struct urig *u, unsigned int nth)
{
	struct rig *rig = &u->rig;
	uint32_t pt_id = rig->ioas;
	bool all;
	long rc;

	swi_alloc_fail_nth(nth);
	rc = rig_bind(rig);
	if (!rc)
		rc = rig_attach(rig, &pt_id);
	all = swi_alloc_fail_nth(0);
	assert_true(rc <= 0 && (!all || !rc));
	/* Where memory to find the file is short, the mapping goes without. */
	assert_int_equal(nr_maps(u), rc ? 0 : 3);
	vfio_file_close(rig->file);
	assert_int_equal(vfio_file_open(rig->dev, &rig->file), 0);
	assert_int_equal(nr_maps(u), 0);
	return !all;
}

static void lack_of_memory(void **state)
{
	unsigned int nth = 1;
	uint8_t *page = rig_pages(PAGE);
	struct urig u;

	(void)state;
	urig_serve(&u, &plain);
	while (fails_to_be_made(&u, nth))
		assert_in_range(nth++, 1, 100);
	assert_in_range(nth, 5, 100);
	urig_close_server(&u);
	urig_open(&u, &plain, NULL);
	for (unsigned int i = 0; i < 3; i++)
		rig_map(&u.rig, page, PAGE, BASE + 2 * i * PAGE, RW);
	for (nth = 1; fails_to_be_used(&u, nth);)
		assert_in_range(nth++, 1, 200);
	assert_in_range(nth, 10, 200);
	urig_close(&u);
	munmap(page, PAGE);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(faults),
		cmocka_unit_test(faults_at_the_start),
		cmocka_unit_test(versions),
		cmocka_unit_test(nobody_there),
		cmocka_unit_test(odd_devices),
		cmocka_unit_test(a_server_comes_back),
		cmocka_unit_test(interrupts_come_back),
		cmocka_unit_test(another_device_comes_back),
		cmocka_unit_test(bind_after_loss),
		cmocka_unit_test(lost_and_found_under_load),
		cmocka_unit_test(mutations),
		cmocka_unit_test(lack_of_memory),
	};

	/* One of them by name, to look at it. */
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
