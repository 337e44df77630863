// SPDX-License-Identifier: MIT
/*
 * The server's DMA by messages: DMA_READ and DMA_WRITE, done in the IOAS that the device is attached to, with
 * all checks of any other device's DMA. Memory without a file behind it is reached in this way only.
 *
 * A request that fails is answered with an errno and changes nothing for the connection; so is one that makes no
 * sense in itself. While nobody has the device bound there is no memory to reach.
 */
#include "vfio/user/user.h"

#include <errno.h>
#include <string.h>

/* What the server is told. The fault itself has gone to the context's fault hook, with all that is known. */
static int answer_of(int rc)
{
	return rc == -EOVERFLOW || rc == -EINVAL ? EINVAL : EFAULT;
}

static int serve_read(struct vu_device *u, const struct vu_dma_access *a, size_t len)
{
	int rc;

	if (len != sizeof(*a) || a->count > VU_MAX_DATA)
		return EINVAL;
	rc = vfio_dma_read(&u->dma, a->address, u->conn.tx_buf, a->count);
	return rc ? answer_of(rc) : 0;
}

static int serve_write(struct vu_device *u, const struct vu_dma_access *a, const uint8_t *data,
		       size_t len)
{
	int rc;

	if (a->count > VU_MAX_DATA || len != sizeof(*a) + a->count)
		return EINVAL;
	rc = vfio_dma_write(&u->dma, a->address, data, a->count);
	return rc ? answer_of(rc) : 0;
}

void vu_serve(struct vu_conn *c, int sock, const struct vu_header *h, const uint8_t *body,
	      size_t len)
{
	struct vu_device *u = vu_of_conn(c);
	struct vu_dma_access a = {0};
	bool read = h->cmd == VU_DMA_READ;
	int error;

	if (len < sizeof(a)) {
		vu_conn_reply(c, sock, h, EINVAL, NULL, 0, NULL, 0);
		return;
	}
	memcpy(&a, body, sizeof(a));
	if (!u->serving)
		error = ENXIO;
	else if (read)
		error = serve_read(u, &a, len);
	else
		error = serve_write(u, &a, body + sizeof(a), len);
	vu_conn_reply(c, sock, h, error, &a, sizeof(a), c->tx_buf, read ? a.count : 0);
}
