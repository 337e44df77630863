// SPDX-License-Identifier: MIT
/*
 * The first command of a vfio-user connection: versions and capabilities, as JSON (spec vfio.md 6.3).
 *
 * We speak 0.2 and go down to what the server has within major 0. Capabilities that the server does not name, or names
 * in a way that makes no sense, are what the specification says for such. Unknown ones are passed over.
 *
 * We ask for the twin socket: the server then sends its DMA commands on a socket of their own, so
 * that they cannot collide with our commands.
 */
#include "vfio/user/conn.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TEXT_MAX 4096u

/* As little text as says it; our own capabilities never change. */
static const char our_text[] =
	"{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576,"
	"\"twin_socket\":{\"supported\":true}}}";
_Static_assert(VU_MAX_FDS == 16 && VU_MAX_DATA == 1048576, "as the text says");

struct version_message {
	struct vu_version v;
	char text[TEXT_MAX];
};

/* A number of the capabilities, between min and max; absent or nonsense: `fallback`. */
static uint64_t number(struct json_object *caps, const char *key, uint64_t min, uint64_t max,
		       uint64_t fallback)
{
	struct json_object *o;
	int64_t v;

	if (!caps || !json_object_object_get_ex(caps, key, &o) ||
	    !json_object_is_type(o, json_type_int))
		return fallback;
	v = json_object_get_int64(o);
	if (v < (int64_t)min)
		return fallback;
	return SWI_MIN((uint64_t)v, max);
}

static bool is_socket(int fd)
{
	int type;
	socklen_t len = sizeof(type);

	return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) && type == SOCK_STREAM;
}

/* Takes the twin socket out of the descriptors, if there is one. */
static int take_twin(struct vu_conn *c, struct json_object *caps, struct vu_call *call)
{
	struct json_object *twin, *o;
	int64_t index;

	if (!json_object_object_get_ex(caps, "twin_socket", &twin) ||
	    !json_object_is_type(twin, json_type_object) ||
	    !json_object_object_get_ex(twin, "supported", &o) || !json_object_get_boolean(o))
		return 0;
	index = json_object_object_get_ex(twin, "fd_index", &o) ? json_object_get_int64(o) : 0;
	if (index < 0 || index >= call->nr_reply_fds || !is_socket(call->reply_fds[index]))
		return vu_conn_fail(c, "the server promises a twin socket but sends none");
	vu_conn_set_twin(c, call->reply_fds[index]);
	call->reply_fds[index] = -1;
	return 0;
}

static int take_capabilities(struct vu_conn *c, struct json_object *root, struct vu_call *call)
{
	struct vu_limits *l = &c->limits;
	struct json_object *caps = NULL;

	if (!root || !json_object_object_get_ex(root, "capabilities", &caps) ||
	    !json_object_is_type(caps, json_type_object))
		caps = NULL;
	atomic_store(&l->msg_fds, number(caps, "max_msg_fds", 1, VU_MAX_FDS, VU_DEFAULT_MSG_FDS));
	atomic_store(&l->data_xfer,
		     number(caps, "max_data_xfer_size", 1, VU_MAX_DATA, VU_DEFAULT_DATA_XFER));
	atomic_store(&l->dma_maps,
		     number(caps, "max_dma_maps", 1, UINT32_MAX, VU_DEFAULT_DMA_MAPS));
	atomic_store(&l->pgsizes, number(caps, "pgsizes", 1, INT64_MAX, VU_DEFAULT_PGSIZES));
	return caps ? take_twin(c, caps, call) : 0;
}

/* The text that came with a version: not trusted to end, nor to be JSON. */
static int take_text(struct vu_conn *c, const char *text, size_t len, struct vu_call *call)
{
	struct json_tokener *tok;
	struct json_object *root;
	int rc;

	len = strnlen(text, len);
	if (!len)
		return take_capabilities(c, NULL, call);
	tok = json_tokener_new();
	if (!tok)
		return vu_conn_fail(c, "out of memory");
	root = json_tokener_parse_ex(tok, text, (int)len);
	if (root && json_object_is_type(root, json_type_object))
		rc = take_capabilities(c, root, call);
	else
		rc = vu_conn_fail(c, "its capabilities are not a JSON object");
	json_object_put(root);
	json_tokener_free(tok);
	return rc;
}

int vu_negotiate(struct vu_conn *c, struct swi_reason *why)
{
	static const struct vu_version ours = {VU_MAJOR, VU_MINOR};
	struct version_message theirs;
	int fds[VU_MAX_FDS];
	struct vu_call call = {.cmd = VU_VERSION,
			       .head = &ours,
			       .head_len = sizeof(ours),
			       .data = our_text,
			       .data_len = sizeof(our_text),
			       .reply = &theirs,
			       .reply_min = sizeof(theirs.v),
			       .reply_max = sizeof(theirs),
			       .reply_fds = fds,
			       .max_reply_fds = ARRAY_SIZE(fds)};
	int rc = vu_call(c, &call);

	if (rc)
		return swi_fail(why, -EIO, "the server does not answer VERSION%s%s",
				rc == -EIO ? "" : ": ", rc == -EIO ? "" : strerror(-rc));
	if (theirs.v.major != VU_MAJOR || theirs.v.minor > VU_MINOR)
		rc = vu_conn_fail(c, "the server speaks vfio-user %u.%u, we speak %u.0 to %u.%u",
				  theirs.v.major, theirs.v.minor, VU_MAJOR, VU_MAJOR, VU_MINOR);
	else
		rc = take_text(c, theirs.text, call.reply_len - sizeof(theirs.v), &call);
	for (unsigned int i = 0; i < call.nr_reply_fds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return rc ? swi_fail(why, rc, "VERSION cannot be agreed on with the server") : 0;
}
