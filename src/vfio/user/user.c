// SPDX-License-Identifier: MIT
/*
 * The vfio-user model: what the VFIO layer asks of a device, passed on to the server that has it.
 *
 * The connection is made when the device is, since only the server knows what the device looks like; whoever is
 * not there yet may be waited for (wait=). Until a client binds the device, and after the last close,
 * there is no thread: the few messages of those times (reset, COMMAND) are sent and their replies read by whoever calls.
 *
 * Without a server registers read as all ones, as with hardware that was pulled out, and writes vanish; what cannot be
 * done without it (arming interrupts, RESET, features) is EIO; a device whose server cannot be found again is
 * not bound.
 */
#include "vfio/user/user.h"

#include "base/alloc.h"
#include "vfio/device.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define WAIT_STEP_MS 50

/* ---- registers ------------------------------------------------------------------------------- */

int vu_region_read(struct vu_conn *c, unsigned int region, uint64_t offset, void *buf,
		   uint32_t count)
{
	struct {
		struct vu_region_access a;
		uint8_t data[256];
	} reply;
	uint32_t most = SWI_MIN(atomic_load(&c->limits.data_xfer), (uint32_t)sizeof(reply.data));
	int rc = 0;

	for (uint32_t n; count && !rc; offset += n, count -= n, buf = (char *)buf + n) {
		n = SWI_MIN(count, most);

		struct vu_region_access a = {offset, region, n};
		struct vu_call call = {.cmd = VU_REGION_READ,
				       .head = &a,
				       .head_len = sizeof(a),
				       .reply = &reply,
				       .reply_min = sizeof(a) + n,
				       .reply_max = sizeof(a) + n};

		rc = vu_call(c, &call);
		if (!rc)
			memcpy(buf, reply.data, n);
	}
	return rc;
}

static int vu_region_write(struct vu_conn *c, unsigned int region, uint64_t offset, const void *buf,
			   uint32_t count)
{
	uint32_t most = atomic_load(&c->limits.data_xfer);
	struct vu_region_access ignored;
	int rc = 0;

	for (uint32_t n; count && !rc; offset += n, count -= n, buf = (const char *)buf + n) {
		n = SWI_MIN(count, most);

		struct vu_region_access a = {offset, region, n};
		struct vu_call call = {.cmd = VU_REGION_WRITE,
				       .head = &a,
				       .head_len = sizeof(a),
				       .data = buf,
				       .data_len = n,
				       .reply = &ignored,
				       .reply_max = sizeof(ignored)};

		rc = vu_call(c, &call);
	}
	return rc;
}

/* How many of `size` bytes at `offset` the server's region has. */
static unsigned int in_region(const struct vu_device *u, unsigned int region, uint64_t offset,
			      unsigned int size)
{
	uint64_t have = u->shape.regions[region].size;

	return offset < have ? (unsigned int)SWI_MIN(size, have - offset) : 0;
}

/* The result of an access: without a server it is one to nothing. */
static int access_result(struct vu_device *u, int rc)
{
	return rc == -EIO && !vu_conn_is(&u->conn, VU_LIVE) ? 0 : rc;
}

static int user_read(void *priv, unsigned int region, uint64_t offset, unsigned int size,
		     uint64_t *out)
{
	struct vu_device *u = priv;
	uint8_t bytes[8], got[8];
	int rc;

	memset(bytes, 0xff, sizeof(bytes));
	rc = vu_region_read(&u->conn, region, offset, got, in_region(u, region, offset, size));
	if (!rc)
		memcpy(bytes, got, in_region(u, region, offset, size));
	*out = 0;
	for (unsigned int i = 0; i < size; i++)
		*out |= (uint64_t)bytes[i] << 8 * i;
	return access_result(u, rc);
}

static int user_write(void *priv, unsigned int region, uint64_t offset, unsigned int size,
		      uint64_t value)
{
	struct vu_device *u = priv;
	uint8_t bytes[8];

	for (unsigned int i = 0; i < size; i++)
		bytes[i] = (uint8_t)(value >> 8 * i);
	return access_result(u, vu_region_write(&u->conn, region, offset, bytes,
						in_region(u, region, offset, size)));
}

/* What the server does not know of its configuration space reads as zeros, and is not written. */
static int user_config_read(void *priv, unsigned int pos, unsigned int size, uint32_t *out)
{
	struct vu_device *u = priv;
	uint64_t v = 0;

	if (user_read(u, VFIO_PCI_CONFIG_REGION_INDEX, pos, size, &v))
		v = 0;
	*out = (uint32_t)v;
	return 0;
}

static int user_config_write(void *priv, unsigned int pos, unsigned int size, uint32_t value)
{
	user_write(priv, VFIO_PCI_CONFIG_REGION_INDEX, pos, size, value);
	return 0;
}

void vu_send_command(struct vu_device *u)
{
	uint16_t command;

	pthread_mutex_lock(&u->command_lock);
	command = vfio_config_command(u->dev);
	vu_region_write(&u->conn, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &command,
			sizeof(command));
	pthread_mutex_unlock(&u->command_lock);
}

static void user_command(void *priv)
{
	vu_send_command(priv);
}

static int user_try_reset(void *priv)
{
	struct vu_device *u = priv;
	uint8_t ignored[64];
	struct vu_call call = {
		.cmd = VU_DEVICE_RESET, .reply = ignored, .reply_max = sizeof(ignored)};

	return vu_call(&u->conn, &call);
}

/* The VFIO layer calls try_reset in its place. */
static void user_reset(void *priv)
{
	user_try_reset(priv);
}

/* ---- bound and not --------------------------------------------------------------------------- */

static int user_open(void *priv)
{
	struct vu_device *u = priv;
	const struct vfio_device_place *place = vfio_device_place(u->dev);
	struct swi_reason why = {""};
	int rc;

	if (vu_conn_is(&u->conn, VU_LOST)) {
		rc = vu_link_reconnect(u, &why);
		if (rc) {
			swi_log(place->log, SWI_LOG_WARN, "%s: %s", place->bdf, why.text);
			return -EIO;
		}
		user_try_reset(u);
	}
	rc = vfio_dma_open(u->dev, &u->dma);
	if (rc)
		return rc;
	u->serving = true;
	rc = vu_link_start(u);
	if (rc)
		goto close_dma;
	u->listener.ops = &vu_listener_ops;
	rc = vfio_dma_listen(u->dev, &u->listener, &why);
	u->listening = !rc;
	/* An emulated device has no mappings of its own: all of its DMA comes as messages. */
	if (!rc || rc == -EOPNOTSUPP)
		return 0;
	swi_log(place->log, SWI_LOG_WARN, "%s: %s", place->bdf, why.text);
	vu_link_stop(u);
close_dma:
	u->serving = false;
	vfio_dma_close(&u->dma);
	return rc;
}

static void user_close(void *priv)
{
	struct vu_device *u = priv;

	if (u->listening)
		dma_listener_remove(&u->listener);
	vu_link_stop(u);
	u->serving = false;
	vfio_dma_close(&u->dma);
}

/* ---- making ---------------------------------------------------------------------------------- */

static void on_lost(struct vu_conn *c, const char *why)
{
	struct vu_device *u = vu_of_conn(c);
	const struct vfio_device_place *place = vfio_device_place(u->dev);

	pthread_mutex_lock(&c->lock);
	swi_fail(&u->lost_why, 0, "%s", why);
	pthread_mutex_unlock(&c->lock);
	if (!u->quiet)
		swi_log(place->log, SWI_LOG_WARN, "%s: the vfio-user server at %s is lost: %s",
			place->bdf, u->path, why);
}

static const struct vu_conn_ops conn_ops = {.serve = vu_serve, .lost = on_lost};

static int parse(struct vu_device *u, const char *options, struct swi_reason *why)
{
	const struct vfio_option known[] = {
		{.key = "socket", .text = u->path, .text_size = sizeof(u->path)},
		{.key = "timeout", .number = &u->timeout_ms, .min = 10, .max = 3600000},
		{.key = "wait", .number = &u->wait_s, .min = 0, .max = 3600},
		{.key = "reconnect", .number = &u->reconnect_s, .min = 0, .max = 1000000},
		{.key = "max-maps", .number = &u->max_maps, .min = 1, .max = UINT32_MAX},
		{.key = "memory", .number = &u->memory_mask, .min = 0, .max = 0x3f},
		{.key = "ports", .number = &u->ports_mask, .min = 0, .max = 0x3f},
	};
	int rc = vfio_options_parse(options, known, ARRAY_SIZE(known), why);

	if (!rc && !u->path[0])
		rc = swi_fail(why, -EINVAL, "option socket=PATH is needed");
	return rc;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

/* The first connection, to a server that may be about to start. */
static int connect_first(struct vu_device *u, struct swi_reason *why)
{
	int64_t until = now_ms() + (int64_t)u->wait_s * 1000;
	struct timespec step = {.tv_nsec = WAIT_STEP_MS * 1000000};
	int rc;

	for (;;) {
		rc = vu_conn_open(&u->conn, u->path, why);
		if ((rc != -ENOENT && rc != -ECONNREFUSED && rc != -EBUSY) || now_ms() >= until)
			return rc;
		nanosleep(&step, NULL);
	}
}

static int get_to_know(struct vu_device *u, struct swi_reason *why)
{
	uint8_t config[VU_CONFIG_MAX] = {0};
	struct swi_reason lost;
	uint64_t size;
	int rc;

	rc = connect_first(u, why);
	if (!rc)
		rc = vu_shape_get(&u->conn, &u->shape, u->region_fds, why);
	size = u->shape.regions[VFIO_PCI_CONFIG_REGION_INDEX].size;
	if (!rc) {
		rc = vu_shape_config(&u->conn, config, (unsigned int)SWI_MIN(size, VU_CONFIG_MAX));
		if (rc)
			swi_fail(why, rc, "the server's configuration space cannot be read");
	}
	if (!rc)
		rc = vu_describe(u, config, why);
	if (!rc)
		rc = vu_maps_resend(u);
	if (rc && u->lost_why.text[0]) {
		lost = u->lost_why;
		swi_fail(why, rc, "socket %s: %s", u->path, lost.text);
	}
	return rc;
}

static int open_eventfds(struct vu_device *u)
{
	int *fds[] = {&u->relay, &u->dummy, &u->wake};

	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++) {
		*fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (*fds[i] < 0)
			return -errno;
	}
	return 0;
}

static void user_destroy(void *priv)
{
	struct vu_device *u = priv;
	int fds[] = {u->relay, u->dummy, u->wake};

	vu_conn_fini(&u->conn);
	vu_maps_fini(&u->maps);
	pthread_mutex_destroy(&u->command_lock);
	for (unsigned int i = 0; i < VU_NR_BARS; i++)
		if (u->region_fds[i] >= 0)
			close(u->region_fds[i]);
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	swi_free(u);
}

static int user_create(struct vfio_device *dev, const char *options, struct swi_reason *why,
		       void **out_priv)
{
	struct vu_device *u = swi_new(struct vu_device);
	int rc;

	if (!u)
		return swi_fail(why, -ENOMEM, "no memory for a device");
	u->dev = dev;
	u->timeout_ms = 5000;
	rc = parse(u, options, why);
	if (rc)
		goto free;
	rc = vu_conn_init(&u->conn, &conn_ops, (unsigned int)u->timeout_ms);
	if (rc)
		goto free;
	pthread_mutex_init(&u->command_lock, NULL);
	vu_maps_init(&u->maps);
	u->relay = u->dummy = u->wake = -1;
	for (unsigned int i = 0; i < VU_NR_BARS; i++)
		u->region_fds[i] = -1;
	u->quiet = true;
	rc = open_eventfds(u);
	u->conn.cancel = u->wake;
	if (!rc)
		rc = get_to_know(u, why);
	u->quiet = false;
	if (rc) {
		user_destroy(u);
		return why->text[0] ? rc : swi_fail(why, rc, "%s", strerror(-rc));
	}
	*out_priv = u;
	return 0;
free:
	swi_free(u);
	return rc;
}

const struct vfio_model vfio_model_user = {
	.name = "vfio-user",
	.summary = "a device in a vfio-user server, another process",
	.options = "socket=PATH (the server's socket; vfio-user:PATH is short for it)\n"
		   "timeout=MS (how long an answer may take; default 5000)\n"
		   "wait=SECONDS (how long to wait for the server at start; default 0)\n"
		   "reconnect=SECONDS (how long to look for a server that was lost; default 0)\n"
		   "max-maps=N (DMA mappings that the server gets at most; default: what it says)\n"
		   "memory=MASK (bits of BARs that are memory whatever the server says)\n"
		   "ports=MASK (bits of BARs that are I/O ports)\n",
	.main_option = "socket",
	.prefers_files = true,
	.create = user_create,
	.destroy = user_destroy,
	.open = user_open,
	.close = user_close,
	.reset = user_reset,
	.region_read = user_read,
	.region_write = user_write,
	.config_read = user_config_read,
	.config_write = user_config_write,
	.try_reset = user_try_reset,
	.command = user_command,
	.irq_update = vu_irq_update,
	.irq_mask = vu_irq_mask,
	.feature = vu_feature,
};
