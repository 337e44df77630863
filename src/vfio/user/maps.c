// SPDX-License-Identifier: MIT
/*
 * The server's copy of the DMA mappings (spec vfio.md 6.4).
 *
 * A vfio-user server keeps a list of mappings, each either with a file that it maps itself or without, for DMA by
 * messages. This file keeps the same list, so that it can be sent again to a new server, and tells every change.
 * What the IOAS calls a mapping and what the server does need not be the same:
 *
 *  - the server can only take away whole mappings; where a part goes, the whole goes and the rest is sent again;
 *  - the server's list is short. Only when it is full are neighbours merged (same permissions, and the same
 *    file in one piece, or none), since for the moment of a merge the server has neither.
 *
 * How short the list is the server says in VERSION, or not: one that refuses a mapping where merging would help is
 * taken to be full.
 *
 * Files: many mappings are of few files, and each file is kept open once per access mode.
 *
 * A mapping that cannot be taken away would leave the server with memory that the program has back. So a
 * server that refuses that loses the connection. (What it has mapped itself it keeps until it ends: nobody but
 * the kernel could take it away.)
 *
 * The lock is held while the server answers. Its DMA by messages is served meanwhile and does not need it.
 */
#include "vfio/user/user.h"

#include "base/alloc.h"
#include "vfio/device.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct vu_file {
	struct list entry;
	unsigned int refs;
	dev_t dev;
	ino_t ino;
	int mode; /* O_RDONLY or O_RDWR */
	int fd;	  /* owned */
};

struct vu_map {
	struct rb_node node;
	uint64_t iova, length;
	unsigned int prot;
	struct vu_file *file; /* counted; NULL: by messages */
	uint64_t offset;
	bool absent; /* the server has refused to take it again */
};

int vu_maps_init(struct vu_maps *m)
{
	if (pthread_mutex_init(&m->lock, NULL))
		return -ENOMEM;
	m->tree = (struct rb_tree){0};
	m->nr = 0;
	list_init(&m->files);
	return 0;
}

void vu_maps_fini(struct vu_maps *m)
{
	pthread_mutex_destroy(&m->lock);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void file_put(struct vu_file *f)
{
	if (!f || --f->refs)
		return;
	list_del(&f->entry);
	close(f->fd);
	swi_free(f);
}

/* A reference to the open file `fd` is of, in *out. -ENOMEM, -EMFILE. */
static int file_get(struct vu_maps *m, int fd, struct vu_file **out)
{
	int mode = fcntl(fd, F_GETFL) & O_ACCMODE;
	struct vu_file *f;
	struct list *pos;
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	list_for_each (pos, &m->files) {
		f = list_entry(pos, struct vu_file, entry);
		if (f->dev == st.st_dev && f->ino == st.st_ino && f->mode == mode) {
			f->refs++;
			*out = f;
			return 0;
		}
	}
	f = swi_new(struct vu_file);
	if (!f)
		return -ENOMEM;
	f->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (f->fd < 0) {
		int rc = -errno;

		swi_free(f);
		return rc;
	}
	f->refs = 1;
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	f->mode = mode;
	/* In front: programs map many pieces of the file they began with. */
	list_add(&m->files, &f->entry);
	*out = f;
	return 0;
}

/* ---- the list -------------------------------------------------------------------------------- */

static struct vu_map *map_of(struct rb_node *node)
{
	return node ? container_of(node, struct vu_map, node) : NULL;
}

static uint64_t last_of(const struct vu_map *map)
{
	return map->iova + (map->length - 1);
}

static struct vu_map *next_of(struct vu_map *map)
{
	return map_of(rb_next(&map->node));
}

/* The first that ends at or after `iova`. */
static struct vu_map *find(struct vu_maps *m, uint64_t iova)
{
	struct rb_node *node = m->tree.root;
	struct vu_map *found = NULL;

	while (node) {
		struct vu_map *map = map_of(node);

		if (last_of(map) >= iova) {
			found = map;
			node = node->left;
		} else {
			node = node->right;
		}
	}
	return found;
}

static void insert(struct vu_maps *m, struct vu_map *map)
{
	struct rb_node **link = &m->tree.root, *parent = NULL;

	while (*link) {
		parent = *link;
		link = map->iova < map_of(parent)->iova ? &parent->left : &parent->right;
	}
	rb_insert(&m->tree, &map->node, parent, link);
	m->nr++;
}

static void drop(struct vu_maps *m, struct vu_map *map)
{
	rb_erase(&m->tree, &map->node);
	m->nr--;
	file_put(map->file);
	swi_free(map);
}

static bool mergeable(const struct vu_map *a, const struct vu_map *b)
{
	return last_of(a) + 1 == b->iova && a->prot == b->prot && a->file == b->file &&
	       (!a->file || a->offset + a->length == b->offset);
}

/* ---- the server ------------------------------------------------------------------------------ */

static int send_map(struct vu_device *u, const struct vu_map *map)
{
	struct vu_dma_map msg = {.argsz = sizeof(msg),
				 .flags = (map->prot & SWI_READ ? VU_DMA_MAP_READ : 0) |
					  (map->prot & SWI_WRITE ? VU_DMA_MAP_WRITE : 0),
				 .offset = map->offset,
				 .address = map->iova,
				 .size = map->length};
	uint8_t ignored[64];
	struct vu_call call = {.cmd = VU_DMA_MAP,
			       .head = &msg,
			       .head_len = sizeof(msg),
			       .fds = map->file ? &map->file->fd : NULL,
			       .nr_fds = !!map->file,
			       .reply = ignored,
			       .reply_max = sizeof(ignored)};

	return vu_call(&u->conn, &call);
}

/* When it returns the server does not have it any more, or there is no server. */
static void send_unmap(struct vu_device *u, const struct vu_map *map)
{
	struct vu_dma_unmap msg = {.argsz = sizeof(msg), .address = map->iova, .size = map->length};
	uint8_t ignored[64];
	struct vu_call call = {.cmd = VU_DMA_UNMAP,
			       .head = &msg,
			       .head_len = sizeof(msg),
			       .reply = ignored,
			       .reply_max = sizeof(ignored)};
	int rc;

	if (map->absent)
		return;
	rc = vu_call(&u->conn, &call);
	if (rc && !vu_conn_is(&u->conn, VU_LOST) && !vu_conn_is(&u->conn, VU_SETUP))
		vu_conn_fail(&u->conn, "it refuses to forget the DMA mapping [0x%llx, 0x%llx]: %s",
			     (ull)map->iova, (ull)last_of(map), strerror(-rc));
}

static void complain(struct vu_device *u, const struct vu_map *map, int rc)
{
	const struct vfio_device_place *place = vfio_device_place(u->dev);

	if (!vu_conn_is(&u->conn, VU_LOST))
		swi_log(place->log, SWI_LOG_WARN,
			"%s: the server has lost the DMA mapping [0x%llx, 0x%llx]: it does not "
			"take it "
			"back: %s",
			place->bdf, (ull)map->iova, (ull)last_of(map), strerror(-rc));
}

/* Sends what the server has had before, and ought to take again. */
static void send_again(struct vu_device *u, struct vu_map *map)
{
	int rc = send_map(u, map);

	map->absent = rc;
	if (rc)
		complain(u, map, rc);
}

/* Makes one of `first` and the mappings behind that continue it. Returns whether there were any. */
static bool merge_from(struct vu_device *u, struct vu_map *first)
{
	struct vu_map *next = next_of(first);
	bool told = !first->absent;

	if (!next || !mergeable(first, next))
		return false;
	send_unmap(u, first);
	while (next && mergeable(first, next)) {
		told |= !next->absent;
		send_unmap(u, next);
		first->length += next->length;
		drop(&u->maps, next);
		next = next_of(first);
	}
	if (told)
		send_again(u, first);
	return true;
}

/* Merges whatever can be merged. Returns whether anything could. */
static bool merge_all(struct vu_device *u)
{
	struct vu_map *map = map_of(rb_first(&u->maps.tree));
	bool any = false;

	for (; map; map = next_of(map))
		any |= merge_from(u, map);
	return any;
}

/* Whether `map`, which is not in the list, continues or is continued by one there. */
static bool has_neighbour(struct vu_maps *m, const struct vu_map *map)
{
	struct vu_map *next = find(m, last_of(map));
	struct vu_map *prev = map->iova ? find(m, map->iova - 1) : NULL;

	return (next && mergeable(map, next)) || (prev && mergeable(prev, map));
}

/* Puts a mapping that the server does not have beside those that it has, as part of one of them. */
static int join_neighbour(struct vu_device *u, struct vu_map *map)
{
	struct vu_map *prev = map->iova ? find(&u->maps, map->iova - 1) : NULL;
	struct vu_map *next = find(&u->maps, last_of(map));
	struct vu_map *into = prev && mergeable(prev, map) ? prev : next;
	struct vu_map old = *into;
	int rc;

	send_unmap(u, into);
	if (into == next) {
		into->iova = map->iova;
		into->offset = map->offset;
	}
	into->length += map->length;
	rc = send_map(u, into);
	if (!rc) {
		file_put(map->file);
		swi_free(map);
		return 0;
	}
	into->iova = old.iova;
	into->offset = old.offset;
	into->length = old.length;
	send_again(u, into);
	return rc;
}

/*
 * Adds a mapping to a list that is full. On success it belongs to the list, on its own or as a part of another; on failure
 * it is still the caller's.
 */
static int add_to_full(struct vu_device *u, struct vu_map *map, struct swi_reason *why)
{
	int rc;

	if (has_neighbour(&u->maps, map))
		return join_neighbour(u, map);
	if (!merge_all(u))
		return swi_fail(why, -ENOSPC,
				"the vfio-user server takes no more than %u DMA mappings, and none "
				"of them can be merged",
				u->maps.limit);
	rc = send_map(u, map);
	if (!rc)
		insert(&u->maps, map);
	return rc;
}

/* The same whether the list is full or not. */
static int add(struct vu_device *u, struct vu_map *map, struct swi_reason *why)
{
	struct vu_maps *m = &u->maps;
	unsigned int limit = m->limit;
	int rc;

	if (m->nr >= limit)
		return add_to_full(u, map, why);
	rc = send_map(u, map);
	if (!rc) {
		insert(m, map);
		return 0;
	}
	if (!m->nr || !vu_conn_is(&u->conn, VU_LIVE))
		return rc;
	/* Perhaps its list is shorter than it has said. */
	m->limit = m->nr;
	if (!add_to_full(u, map, NULL))
		return 0;
	m->limit = limit;
	return rc;
}

/* ---- what the engine tells ------------------------------------------------------------------- */

static int check_alignment(struct vu_device *u, const struct dma_mapping *m, struct swi_reason *why)
{
	uint64_t sizes = atomic_load(&u->conn.limits.pgsizes);
	uint64_t page = sizes & -sizes;

	if (!((m->iova | m->length | (m->fd >= 0 ? m->fd_offset : 0)) & (page - 1)))
		return 0;
	return swi_fail(why, -EINVAL,
			"the vfio-user server wants DMA mappings in pages of %llu bytes, not at "
			"IOVA 0x%llx, 0x%llx bytes",
			(ull)page, (ull)m->iova, (ull)m->length);
}

static int on_map(struct dma_listener *l, const struct dma_mapping *mapping, struct swi_reason *why)
{
	struct vu_device *u = container_of(l, struct vu_device, listener);
	struct vu_map *map = swi_new(struct vu_map);
	struct swi_reason local = {""};
	int rc;

	if (!map)
		return -ENOMEM;
	map->iova = mapping->iova;
	map->length = mapping->length;
	map->prot = mapping->prot;
	map->offset = mapping->fd >= 0 ? mapping->fd_offset : 0;
	pthread_mutex_lock(&u->maps.lock);
	rc = check_alignment(u, mapping, &local);
	if (!rc && mapping->fd >= 0)
		rc = file_get(&u->maps, mapping->fd, &map->file);
	if (!rc && vu_conn_is(&u->conn, VU_LIVE))
		rc = add(u, map, &local);
	else if (!rc)
		rc = -EIO;
	/* Nobody there: it is kept for who comes. */
	if (rc == -EIO && !vu_conn_is(&u->conn, VU_LIVE)) {
		insert(&u->maps, map);
		rc = 0;
	}
	if (rc)
		file_put(map->file);
	pthread_mutex_unlock(&u->maps.lock);
	if (!rc)
		return 0;
	swi_free(map);
	if (!local.text[0])
		swi_fail(&local, rc, "the vfio-user server does not take the mapping: %s",
			 strerror(-rc));
	return swi_fail(why, rc, "%s", local.text);
}

/*
 * Sends what is left of a mapping. As one can become two the list may be too long now; then others are merged, this one
 * perhaps with them.
 */
static void send_rest(struct vu_device *u, struct vu_map *map)
{
	uint64_t iova = map->iova;

	map->absent = true;
	if (u->maps.nr <= u->maps.limit && !send_map(u, map)) {
		map->absent = false;
		return;
	}
	if (vu_conn_is(&u->conn, VU_LIVE) && merge_all(u))
		map = find(&u->maps, iova);
	if (map->absent)
		send_again(u, map);
}

/* Takes [first, last] out of `map`, of which they cover at least a part. */
static void cut(struct vu_device *u, struct vu_map *map, uint64_t first, uint64_t last)
{
	uint64_t end = last_of(map);
	struct vu_map *right = NULL;

	send_unmap(u, map);
	if (end > last) {
		right = swi_new(struct vu_map);
		if (right) {
			*right = (struct vu_map){.iova = last + 1,
						 .length = end - last,
						 .prot = map->prot,
						 .file = map->file};
			if (map->file) {
				map->file->refs++;
				right->offset = map->offset + (last + 1 - map->iova);
			}
		} else {
			complain(u, map, -ENOMEM);
		}
	}
	if (map->iova < first) {
		map->length = first - map->iova;
		send_rest(u, map);
	} else {
		drop(&u->maps, map);
	}
	if (right) {
		insert(&u->maps, right);
		send_rest(u, right);
	}
}

static void on_unmap(struct dma_listener *l, iova_t first, iova_t last)
{
	struct vu_device *u = container_of(l, struct vu_device, listener);
	struct vu_map *map;

	pthread_mutex_lock(&u->maps.lock);
	while ((map = find(&u->maps, first)) && map->iova <= last)
		cut(u, map, first, last);
	pthread_mutex_unlock(&u->maps.lock);
}

const struct dma_listener_ops vu_listener_ops = {.map = on_map, .unmap = on_unmap};

int vu_maps_resend(struct vu_device *u)
{
	struct vu_maps *m = &u->maps;
	struct vu_map *map;
	int rc = 0;

	pthread_mutex_lock(&m->lock);
	m->limit = atomic_load(&u->conn.limits.dma_maps);
	if (u->max_maps)
		m->limit = SWI_MIN(m->limit, (unsigned int)u->max_maps);
	/* Nothing is told yet, so that merging costs no message. */
	for (map = map_of(rb_first(&m->tree)); map; map = next_of(map))
		map->absent = true;
	for (map = map_of(rb_first(&m->tree)); map && m->nr > m->limit; map = next_of(map))
		merge_from(u, map);
	for (map = map_of(rb_first(&m->tree)); map && !rc; map = next_of(map)) {
		send_again(u, map);
		rc = vu_conn_is(&u->conn, VU_SETUP) ? 0 : -EIO;
	}
	if (!rc)
		rc = vu_conn_go_live(&u->conn);
	pthread_mutex_unlock(&m->lock);
	return rc;
}
