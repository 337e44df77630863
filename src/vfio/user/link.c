// SPDX-License-Identifier: MIT
/*
 * The thread that listens to a server while the device is bound, and what happens when the server is lost.
 *
 * Alive: it receives replies for those who wait, serves the server's DMA, and relays INTx. Lost: the program is
 * asked to give the device back (the REQ interrupt, once a second), and if the option reconnect= says so, it is
 * tried for so long to find a server at the same place. One that has the same device is told everything that
 * the old one knew (interrupts, mappings, COMMAND), and the device lives on; what the old server kept in
 * its registers is gone, which is what REQ tells.
 */
#include "vfio/user/user.h"

#include "vfio/device.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ASK_EVERY_MS 1000
#define TRY_EVERY_MS 100

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

static bool drain(int fd)
{
	uint64_t value;

	return read(fd, &value, sizeof(value)) == sizeof(value);
}

/* ---- a new server ---------------------------------------------------------------------------- */

/* The mappable memory of the new server takes the place of the old one's, under the same numbers. */
static int take_region_fds(struct vu_device *u, int fds[VU_NR_BARS])
{
	int rc = 0;

	for (unsigned int i = 0; i < VU_NR_BARS; i++) {
		if (fds[i] < 0)
			continue;
		if (dup3(fds[i], u->region_fds[i], O_CLOEXEC) < 0)
			rc = -errno;
		close(fds[i]);
	}
	return rc;
}

static int check_shape(struct vu_device *u, struct swi_reason *why)
{
	struct vu_shape shape;
	int fds[VU_NR_BARS];
	int rc = vu_shape_get(&u->conn, &shape, fds, why);

	if (rc)
		return rc;
	if (!memcmp(&shape, &u->shape, sizeof(shape)))
		return take_region_fds(u, fds);
	for (unsigned int i = 0; i < VU_NR_BARS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return swi_fail(why, -ENODEV, "the server's device is not the one it was");
}

int vu_link_reconnect(struct vu_device *u, struct swi_reason *why)
{
	int rc = vu_conn_open(&u->conn, u->path, why);

	if (rc)
		return rc;
	rc = check_shape(u, why);
	if (!rc) {
		vu_send_command(u);
		rc = vu_irqs_resend(u);
	}
	if (!rc)
		rc = vu_maps_resend(u);
	if (rc) {
		vu_conn_close(&u->conn);
		return why->text[0] ? rc : swi_fail(why, rc, "the server is gone again");
	}
	/* The client may have written COMMAND meanwhile. */
	vu_send_command(u);
	return 0;
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* Waits for something to do while connected. False: the thread is to end. */
static bool live_step(struct vu_device *u)
{
	struct vu_conn *c = &u->conn;
	struct pollfd p[] = {{.fd = u->wake, .events = POLLIN},
			     {.fd = u->relay, .events = POLLIN},
			     {.fd = c->sock, .events = POLLIN},
			     {.fd = c->twin, .events = POLLIN}};

	if (poll(p, ARRAY_SIZE(p), -1) < 0)
		return true;
	if (p[0].revents)
		return false;
	if (p[1].revents && drain(u->relay))
		vfio_irq_pulse(u->dev);
	if (p[2].revents && vu_conn_receive(c, c->sock))
		return true;
	if (p[3].revents)
		vu_conn_receive(c, c->twin);
	return true;
}

/* Waits; false: the thread is to end. */
static bool pause_ms(struct vu_device *u, int ms)
{
	struct pollfd p = {.fd = u->wake, .events = POLLIN};

	return poll(&p, 1, ms) <= 0;
}

/* The server is lost. Returns true when there is one again, false when the thread is to end. */
static bool lost_steps(struct vu_device *u)
{
	const struct vfio_device_place *place = vfio_device_place(u->dev);
	int64_t until = now_ms() + (int64_t)u->reconnect_s * 1000, ask_at = 0;
	struct swi_reason why = {""};
	int rc;

	vu_conn_close(&u->conn);
	do {
		if (now_ms() >= ask_at) {
			vfio_device_request(u->dev);
			ask_at = now_ms() + ASK_EVERY_MS;
		}
		if (now_ms() >= until)
			continue;
		u->quiet = true;
		rc = vu_link_reconnect(u, &why);
		u->quiet = false;
		if (!rc) {
			swi_log(place->log, SWI_LOG_WARN, "%s: there is a server at %s again",
				place->bdf, u->path);
			return true;
		}
		if (rc == -ENODEV) {
			swi_log(place->log, SWI_LOG_WARN, "%s: %s", place->bdf, why.text);
			until = 0;
		}
	} while (pause_ms(u, now_ms() < until ? TRY_EVERY_MS : ASK_EVERY_MS));
	return false;
}

static void *link_thread(void *arg)
{
	struct vu_device *u = arg;
	bool more = true;

	vu_conn_set_reading(&u->conn, true);
	sem_post(&u->started);
	while (more)
		more = vu_conn_is(&u->conn, VU_LOST) ? lost_steps(u) : live_step(u);
	return NULL;
}

int vu_link_start(struct vu_device *u)
{
	int rc;

	drain(u->relay);
	sem_init(&u->started, 0, 0);
	rc = vfio_thread_start(&u->thread, link_thread, u);
	if (rc)
		return rc;
	/* While nobody else calls: among many calls it might wait long for its turn. */
	while (sem_wait(&u->started))
		;
	return 0;
}

void vu_link_stop(struct vu_device *u)
{
	const uint64_t one = 1;

	(void)!write(u->wake, &one, sizeof(one));
	pthread_join(u->thread, NULL);
	drain(u->wake);
	vu_conn_set_reading(&u->conn, false);
}
