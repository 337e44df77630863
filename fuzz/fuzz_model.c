// SPDX-License-Identifier: MIT
/*
 * MAP, MAP_FILE, COPY, UNMAP and everything that decides about them, against the oracle: three IOASes of one context
 * without page tables, and two accesses, one that wants pages and one that moves bytes.
 *
 * After every call the result must be the oracle's, the tree must hold its areas, and a reader that
 * has been there all the time must translate as the tree says, at the edges of each area and beside them. Calls
 * may be told to run out of memory; then the areas must be as before, or, when only the answer could not be
 * delivered, as after.
 */
#include "oracle.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/vfio.h>

#include "base/alloc.h"
#include "core/ctx.h"
#include "core/ioas.h"
#include "core/selftest_abi.h"

#define NR_IOAS 3u
#define MAX_CALLS 400u
#define NO_ID 999u

struct world {
	struct client client;
	struct swiommu_test_abi *abi;
	struct iommufd_ctx *ctx;
	struct oracle_ioas ioas[NR_IOAS];
	struct ioas *real[NR_IOAS];
	int compat; /* index of an IOAS; -1: none */
	struct {
		struct iommufd_access *access;
		uint32_t id;
		int ioas; /* index; -1: not attached */
	} access[2];
	struct input *in;
};

static struct iova_reader *reader;

/* ---- comparing ----------------------------------------------------------------------------------- */

static bool same_area(const struct iova_area *real, const struct oracle_area *o)
{
	bool file = mem_owner_is_file(backing_owner(real->backing));

	return real->iova == o->iova && real->last == o->last && real->prot == o->prot &&
	       backing_addr(real->backing) + real->offset == o->addr && file == !!o->source &&
	       backing_write_intent(real->backing) == o->intent && !real->busy && !real->host;
}

static bool same_areas(struct ioas *real, const struct oracle_ioas *o)
{
	struct iova_area *area;
	unsigned int i = 0;
	bool same = true;

	iova_map_lock(real->map);
	iova_map_for_each (area, real->map) {
		same = same && i < o->nr_areas && same_area(area, &o->areas[i]);
		i++;
	}
	same = same && i == o->nr_areas && iova_map_count(real->map) == i &&
	       real->align == oracle_align(o);
	iova_map_unlock(real->map);
	return same;
}

static void check_translation(struct ioas *real, const struct oracle_ioas *o, uint64_t iova)
{
	const struct oracle_area *want = oracle_at(o, iova);
	struct iova_area *area;
	uint64_t last = 0;

	iova_read_begin(reader);
	area = iova_translate_run(reader, real->map, iova, &last);
	iova_read_end(reader);
	FUZZ_CHECK(!area == !want, "IOVA %#llx: %s", (ull)iova, area ? "found" : "not found");
	if (area)
		FUZZ_CHECK(area->iova == want->iova && last == want->last,
			   "IOVA %#llx: found [%#llx, %#llx], want [%#llx, %#llx]", (ull)iova,
			   (ull)area->iova, (ull)last, (ull)want->iova, (ull)want->last);
}

static void dump_line(void *data, const char *text)
{
	(void)data;
	fprintf(stderr, "%s\n", text);
}

static void complain(struct world *w, const struct oracle_ioas *o)
{
	swiommu_dump(w->ctx, dump_line, NULL);
	fprintf(stderr, "wanted in IOAS %u, align %llu:\n", o->id, (ull)oracle_align(o));
	for (unsigned int i = 0; i < o->nr_areas; i++)
		fprintf(stderr, "  [%#llx, %#llx] prot %u source %d address %#llx\n",
			(ull)o->areas[i].iova, (ull)o->areas[i].last, o->areas[i].prot,
			o->areas[i].source, (ull)o->areas[i].addr);
}

static void check(struct world *w)
{
	for (unsigned int k = 0; k < NR_IOAS; k++) {
		const struct oracle_ioas *o = &w->ioas[k];
		bool same;

		if (!o->exists)
			continue;
		same = same_areas(w->real[k], o);
		if (!same)
			complain(w, o);
		FUZZ_CHECK(same, "IOAS %u is not as it should be", o->id);
		for (unsigned int i = 0; i < o->nr_areas; i++) {
			const struct oracle_area *a = &o->areas[i];

			check_translation(w->real[k], o, a->iova);
			check_translation(w->real[k], o, a->iova + (a->last - a->iova) / 2);
			check_translation(w->real[k], o, a->last);
			check_translation(w->real[k], o, a->iova - 1);
			check_translation(w->real[k], o, a->last + 1);
		}
	}
}

/* ---- calls --------------------------------------------------------------------------------------- */

/* An IOAS, mostly an existing one; NULL and an ID of none. */
static struct oracle_ioas *take_ioas(struct world *w, uint32_t *id)
{
	unsigned int k = take8(w->in);
	struct oracle_ioas *o = &w->ioas[k < 250 ? k % NR_IOAS : 0];

	if (k < 250 && o->exists) {
		*id = o->id;
		return o;
	}
	*id = k < 250 || k % 2 ? NO_ID : w->access[0].id;
	return NULL;
}

static unsigned int index_of(struct world *w, const struct oracle_ioas *o)
{
	return (unsigned int)(o - w->ioas);
}

/* The call may be made to fail; tells whether it has been. */
static bool arm(struct world *w)
{
	bool armed = seldom(w->in, 12);

	if (armed)
		swi_alloc_fail_nth(1 + pick(w->in, 24));
	return armed;
}

static long call(struct world *w, unsigned int cmd, void *arg, size_t size, bool armed,
		 bool *failed)
{
	long rc = client_ioctl(&w->client, w->ctx, cmd, arg, size);

	*failed = armed && !swi_alloc_fail_nth(0);
	return rc;
}

/*
 * The outcome of a call that `o` has been told about already. `before` is what it was. A call that was
 * made to fail leaves either.
 */
static void settle(struct world *w, struct oracle_ioas *o, const struct oracle_ioas *before,
		   long rc, long want, bool failed)
{
	if (!failed || !o) {
		FUZZ_CHECK(rc == want || (failed && rc < 0), "got %ld (%s), want %ld", rc,
			   w->client.caller.reason, want);
		return;
	}
	if (rc == want && rc >= 0)
		return;
	FUZZ_CHECK(rc < 0, "got %ld after a failure, want %ld", rc, want);
	/* An injected -ENOENT may look like the one that was wanted, of an UNMAP that stops half way. */
	if (same_areas(w->real[index_of(w, o)], before))
		*o = *before;
}

static unsigned int prot_of(uint32_t flags)
{
	return (flags & IOMMU_IOAS_MAP_READABLE ? SWI_READ : 0) |
	       (flags & IOMMU_IOAS_MAP_WRITEABLE ? SWI_WRITE : 0);
}

static uint32_t take_flags(struct world *w)
{
	uint8_t flags = take8(w->in);

	return flags < 248 ? flags % 8 : flags;
}

static uint64_t take_near(struct world *w)
{
	const struct oracle_ioas *o = &w->ioas[pick(w->in, NR_IOAS)];
	const struct oracle_area *a;
	unsigned int kind = take8(w->in);

	if (kind >= 192 || !o->exists || !o->nr_areas)
		return take_iova(w->in);
	a = &o->areas[take8(w->in) % o->nr_areas];
	switch (kind % 6) {
	case 0:
		return a->last + 1;
	case 1:
		return a->last - kind / 6 % 4;
	case 2:
		return a->iova + kind / 6 * SWI_PAGE_SIZE;
	case 3:
		return a->iova - 1 + kind / 6 % 3;
	default:
		return a->iova;
	}
}

/* Its length, or one more, or one less. */
static uint64_t take_length_near(struct world *w, uint64_t iova)
{
	unsigned int kind = take8(w->in);

	for (unsigned int k = 0; kind < 128 && k < NR_IOAS; k++) {
		const struct oracle_area *a =
			w->ioas[k].exists ? oracle_at(&w->ioas[k], iova) : NULL;

		if (a)
			return a->last - iova + 1 + (kind % 8 == 0) - (kind % 8 == 1);
	}
	return take_length(w->in);
}

/* The checks that MAP, MAP_FILE and COPY begin with. */
static int want_args(uint32_t flags, uint64_t iova, uint64_t length)
{
	if (flags & ~7u)
		return -EOPNOTSUPP;
	if (iova == UINT64_MAX || length == UINT64_MAX)
		return -EOVERFLOW;
	return prot_of(flags) ? 0 : -EINVAL;
}

/*
 * The rest of MAP and MAP_FILE: with want 0 so far the oracle says what comes out, else the call fails with `want`. *place is
 * the field of `cmd` that asks for an IOVA and tells it.
 */
static void map_and_settle(struct world *w, struct oracle_ioas *o, struct oracle_area *area,
			   long want, uint64_t length, uint32_t flags, unsigned int nr, void *cmd,
			   size_t size, const __u64 *place)
{
	struct oracle_ioas before = {0};
	uint64_t iova = *place;
	bool failed;
	long rc;

	if (!want) {
		before = *o;
		want = oracle_map(o, area, length, flags & IOMMU_IOAS_MAP_FIXED_IOVA, &iova);
	} else {
		o = NULL;
	}
	rc = call(w, nr, cmd, size, arm(w), &failed);
	settle(w, o, &before, rc, want, failed);
	FUZZ_CHECK(rc || *place == iova, "placed at %#llx, want %#llx", (ull)*place, (ull)iova);
}

static void do_map(struct world *w)
{
	struct iommu_ioas_map cmd = {.size = sizeof(cmd), .flags = take_flags(w)};
	struct oracle_ioas *o = take_ioas(w, &cmd.ioas_id);
	struct oracle_area area = {.prot = prot_of(cmd.flags),
				   .intent = cmd.flags & IOMMU_IOAS_MAP_WRITEABLE};
	long want;

	cmd.user_va = area.addr = take_uptr(w->in);
	cmd.length = take_length(w->in);
	cmd.iova = take_near(w);
	if (o && o->nr_areas == ORACLE_AREAS)
		return;
	want = want_args(cmd.flags, cmd.iova, cmd.length);
	if (!want && !o)
		want = -ENOENT;
	if (!want && cmd.user_va > UINT64_MAX - cmd.length)
		want = -EOVERFLOW;
	if (!want && (!cmd.length || cmd.length > UINT64_MAX - SWI_PAGE_SIZE))
		want = -EINVAL;
	map_and_settle(w, o, &area, want, cmd.length, cmd.flags, IOMMU_IOAS_MAP, &cmd, sizeof(cmd),
		       &cmd.iova);
}

static void do_map_file(struct world *w)
{
	struct iommu_ioas_map_file cmd = {.size = sizeof(cmd), .flags = take_flags(w)};
	struct oracle_ioas *o = take_ioas(w, &cmd.ioas_id);
	struct oracle_area area = {.prot = prot_of(cmd.flags),
				   .intent = cmd.flags & IOMMU_IOAS_MAP_WRITEABLE};
	unsigned int file = pick(w->in, 16);
	long want;

	cmd.fd = file < 15 ? memfds[file % 2] : -1;
	area.source = (int)(1 + file % 2);
	cmd.start = area.addr =
		seldom(w->in, 8) ? take_iova(w->in) : take_length(w->in) % (20 * SWI_PAGE_SIZE);
	cmd.length = take_length(w->in);
	cmd.iova = take_near(w);
	if (o && o->nr_areas == ORACLE_AREAS)
		return;
	want = want_args(cmd.flags, cmd.iova, cmd.length);
	if (!want && !o)
		want = -ENOENT;
	if (!want && !cmd.length)
		want = -EINVAL;
	if (!want && cmd.length - 1 > UINT64_MAX - cmd.start)
		want = -EOVERFLOW;
	if (!want && cmd.fd < 0)
		want = -EBADF;
	if (!want && cmd.length > UINT64_MAX - SWI_PAGE_SIZE)
		want = -EINVAL;
	map_and_settle(w, o, &area, want, cmd.length, cmd.flags, IOMMU_IOAS_MAP_FILE, &cmd,
		       sizeof(cmd), &cmd.iova);
}

static void do_copy(struct world *w)
{
	struct iommu_ioas_copy cmd = {.size = sizeof(cmd), .flags = take_flags(w)};
	struct oracle_ioas *to = take_ioas(w, &cmd.dst_ioas_id),
			   *from = take_ioas(w, &cmd.src_ioas_id);
	struct oracle_ioas before = {0};
	unsigned int pieces = 0;
	uint64_t iova;
	bool failed;
	long rc, want;

	cmd.src_iova = take_near(w);
	cmd.length = take_length_near(w, cmd.src_iova);
	cmd.dst_iova = iova = take_near(w);
	if (from)
		pieces = oracle_pieces(from, cmd.src_iova, cmd.length);
	if (to && to->nr_areas + pieces > ORACLE_AREAS)
		return;
	want = want_args(cmd.flags, iova, cmd.length);
	if (cmd.src_iova == UINT64_MAX && want != -EOPNOTSUPP)
		want = -EOVERFLOW;
	if (!want && !from)
		want = -ENOENT;
	if (!want && !cmd.length)
		want = -EINVAL;
	if (!want && cmd.length - 1 > UINT64_MAX - cmd.src_iova)
		want = -EOVERFLOW;
	if (!want && (!pieces || !to))
		want = -ENOENT;
	if (!want) {
		before = *to;
		want = oracle_copy(to, from, cmd.src_iova, cmd.length, prot_of(cmd.flags),
				   cmd.flags & IOMMU_IOAS_MAP_FIXED_IOVA, &iova);
	} else {
		to = NULL;
	}
	rc = call(w, IOMMU_IOAS_COPY, &cmd, sizeof(cmd), arm(w), &failed);
	settle(w, to, &before, rc, want, failed);
	FUZZ_CHECK(rc || cmd.dst_iova == iova, "placed at %#llx, want %#llx", (ull)cmd.dst_iova,
		   (ull)iova);
}

static void do_unmap(struct world *w)
{
	struct iommu_ioas_unmap cmd = {.size = sizeof(cmd)};
	struct oracle_ioas *o = take_ioas(w, &cmd.ioas_id), before = {0};
	bool all = seldom(w->in, 32), failed;
	uint64_t removed = 0;
	long rc, want = 0;

	cmd.iova = all ? 0 : take_near(w);
	cmd.length = all ? UINT64_MAX : take_length_near(w, cmd.iova);
	all = !cmd.iova && cmd.length == UINT64_MAX;
	if (!o)
		want = -ENOENT;
	else if (!all && (cmd.iova == UINT64_MAX || cmd.length == UINT64_MAX))
		want = -EOVERFLOW;
	else if (!cmd.length)
		want = -EINVAL;
	else if (cmd.length - 1 > UINT64_MAX - cmd.iova)
		want = -EOVERFLOW;
	if (!want) {
		before = *o;
		want = oracle_unmap(o, cmd.iova, all ? UINT64_MAX : cmd.iova + cmd.length - 1,
				    &removed);
		if (!want && !removed && !all)
			want = -ENOENT;
	} else {
		o = NULL;
	}
	rc = call(w, IOMMU_IOAS_UNMAP, &cmd, sizeof(cmd), arm(w), &failed);
	settle(w, o, &before, rc, want, failed);
	FUZZ_CHECK(rc || cmd.length == removed, "%#llx bytes unmapped, want %#llx", (ull)cmd.length,
		   (ull)removed);
}

/* ---- the VFIO container --------------------------------------------------------------------------- */

static struct oracle_ioas *compat_of(struct world *w)
{
	return w->compat < 0 ? NULL : &w->ioas[w->compat];
}

static void do_set_compat(struct world *w)
{
	struct iommu_vfio_ioas cmd = {.size = sizeof(cmd), .op = (uint16_t)pick(w->in, 3)};
	struct oracle_ioas *o = take_ioas(w, &cmd.ioas_id);
	long want = 0, rc;

	if (cmd.op == IOMMU_VFIO_IOAS_SET) {
		want = o ? 0 : -ENOENT;
		w->compat = o ? (int)index_of(w, o) : w->compat;
	} else if (cmd.op == IOMMU_VFIO_IOAS_CLEAR) {
		w->compat = -1;
	} else {
		want = w->compat < 0 ? -ENODEV : 0;
	}
	rc = client_ioctl(&w->client, w->ctx, IOMMU_VFIO_IOAS, &cmd, sizeof(cmd));
	FUZZ_CHECK(rc == want, "VFIO_IOAS %u: %ld, want %ld", cmd.op, rc, want);
	if (!rc && cmd.op == IOMMU_VFIO_IOAS_GET)
		FUZZ_CHECK(cmd.ioas_id == compat_of(w)->id, "compat IOAS %u", cmd.ioas_id);
}

static void do_vfio_map(struct world *w)
{
	struct vfio_iommu_type1_dma_map cmd = {.argsz = sizeof(cmd), .flags = pick(w->in, 64)};
	struct oracle_ioas *o = compat_of(w), before = {0};
	struct oracle_area area = {.prot = cmd.flags & 3,
				   .intent = cmd.flags & VFIO_DMA_MAP_FLAG_WRITE};
	bool failed;
	long rc, want = 0;

	if (cmd.flags < 60)
		cmd.flags %= 4;
	cmd.vaddr = area.addr = take_uptr(w->in);
	cmd.size = take_length(w->in);
	cmd.iova = take_near(w);
	if (o && o->nr_areas == ORACLE_AREAS)
		return;
	if (cmd.flags & ~3u)
		want = -EINVAL;
	else if (!o)
		want = -ENODEV;
	else if (cmd.vaddr > UINT64_MAX - cmd.size)
		want = -EOVERFLOW;
	else if (!cmd.size || cmd.size > UINT64_MAX - SWI_PAGE_SIZE)
		want = -EINVAL;
	if (!want) {
		uint64_t iova = cmd.iova;

		before = *o;
		want = oracle_map(o, &area, cmd.size, true, &iova);
	} else {
		o = NULL;
	}
	rc = call(w, VFIO_IOMMU_MAP_DMA, &cmd, sizeof(cmd), arm(w), &failed);
	settle(w, o, &before, rc, want, failed);
}

/* Does it on the model. `written`: the size comes back. */
static long want_vfio_unmap(struct oracle_ioas *o, const struct vfio_iommu_type1_dma_unmap *cmd,
			    uint64_t *removed, bool *written)
{
	long rc = 0;

	*written = false;
	if (cmd->flags & ~(uint32_t)VFIO_DMA_UNMAP_FLAG_ALL)
		return -EINVAL;
	if (!o)
		return -ENODEV;
	if (!cmd->flags && o->huge_off) {
		rc = oracle_cut(o, cmd->iova + cmd->size - 1);
		if (!rc && cmd->iova)
			rc = oracle_cut(o, cmd->iova - 1);
		if (rc)
			return rc;
	}
	*written = true;
	if (cmd->flags)
		return cmd->iova || cmd->size ? -EINVAL : oracle_unmap(o, 0, UINT64_MAX, removed);
	if (!cmd->size)
		return -EINVAL;
	if (cmd->size - 1 > UINT64_MAX - cmd->iova)
		return -EOVERFLOW;
	return oracle_unmap(o, cmd->iova, cmd->iova + cmd->size - 1, removed);
}

static void do_vfio_unmap(struct world *w)
{
	struct vfio_iommu_type1_dma_unmap cmd = {.argsz = sizeof(cmd), .flags = pick(w->in, 64)};
	struct oracle_ioas *o = compat_of(w);
	uint64_t removed = 0;
	bool written;
	long rc, want;

	cmd.flags = cmd.flags > 56 ? cmd.flags % 8 : 0;
	cmd.iova = take_near(w);
	cmd.size = take_length_near(w, cmd.iova);
	if (cmd.flags && seldom(w->in, 2))
		cmd.iova = cmd.size = 0;
	if (o && o->nr_areas + 2 > ORACLE_AREAS)
		return;
	want = want_vfio_unmap(o, &cmd, &removed, &written);
	rc = client_ioctl(&w->client, w->ctx, VFIO_IOMMU_UNMAP_DMA, &cmd, sizeof(cmd));
	FUZZ_CHECK(rc == want, "UNMAP_DMA: %ld (%s), want %ld", rc, w->client.caller.reason, want);
	if (written)
		FUZZ_CHECK(cmd.size == removed, "%#llx bytes unmapped, want %#llx", (ull)cmd.size,
			   (ull)removed);
}

static void do_vfio_type(struct world *w)
{
	struct oracle_ioas *o = compat_of(w);
	uint64_t type = pick(w->in, 4);
	long want = type % 2 ? 0 : -EINVAL, rc;

	if (!want && !o)
		want = -ENODEV;
	if (!want && type == VFIO_TYPE1_IOMMU) {
		if (!oracle_fits(o, SWI_PAGE_SIZE) && oracle_align(o) == 1)
			want = -EADDRINUSE;
		else
			o->huge_off = true;
	}
	rc = swiommu_ioctl(w->ctx, &w->client.caller, VFIO_SET_IOMMU, type);
	FUZZ_CHECK(rc == want, "SET_IOMMU %llu: %ld, want %ld", (ull)type, rc, want);
}

/* ---- ranges and options --------------------------------------------------------------------------- */

static void do_allow(struct world *w)
{
	struct iommu_ioas_allow_iovas cmd = {.size = sizeof(cmd)};
	struct oracle_ioas *o = take_ioas(w, &cmd.ioas_id);
	struct oracle_range list[ORACLE_RANGES];
	uint64_t *where = (uint64_t *)(arena + 50 * SWI_PAGE_SIZE);
	bool failed;
	long rc, want;

	cmd.num_iovas = pick(w->in, 6);
	cmd.allowed_iovas = (uintptr_t)where;
	for (unsigned int i = 0; i < cmd.num_iovas; i++) {
		list[i].first = where[2 * i] = take_near(w);
		list[i].last = where[2 * i + 1] =
			list[i].first + take_length_near(w, list[i].first) - 1;
	}
	want = o ? oracle_allow(o, list, cmd.num_iovas) : -ENOENT;
	rc = call(w, IOMMU_IOAS_ALLOW_IOVAS, &cmd, sizeof(cmd), false, &failed);
	FUZZ_CHECK(rc == want, "ALLOW_IOVAS: %ld, want %ld", rc, want);
}

static void do_reserve(struct world *w)
{
	struct iommu_test_cmd cmd = {.size = sizeof(cmd), .op = IOMMU_TEST_OP_ADD_RESERVED};
	struct oracle_ioas *o = take_ioas(w, &cmd.id);
	uint64_t first = take_near(w), length = take_length_near(w, first);
	long rc, want = 0;

	if (o && o->nr_reserved == ORACLE_RANGES)
		return;
	cmd.add_reserved.start = first;
	cmd.add_reserved.length = length;
	want = !length ? -EINVAL : length - 1 > UINT64_MAX - first ? -EOVERFLOW : o ? 0 : -ENOENT;
	if (!want)
		want = oracle_reserve(o, first, first + length - 1);
	rc = client_ioctl(&w->client, w->ctx, IOMMU_TEST_CMD, &cmd, sizeof(cmd));
	FUZZ_CHECK(rc == want, "ADD_RESERVED: %ld, want %ld", rc, want);
}

static void do_ranges(struct world *w)
{
	struct iommu_ioas_iova_ranges cmd = {.size = sizeof(cmd)};
	struct oracle_ioas *o = take_ioas(w, &cmd.ioas_id);
	uint32_t room = pick(w->in, ORACLE_RANGES + 2);
	struct oracle_range want[ORACLE_RANGES + 1];
	struct iommu_iova_range *got = (void *)(arena + 50 * SWI_PAGE_SIZE);
	unsigned int n = o ? oracle_usable(o, want) : 0;
	long rc, want_rc = !o ? -ENOENT : n > room ? -EMSGSIZE : 0;

	cmd.num_iovas = room;
	cmd.allowed_iovas = (uintptr_t)got;
	rc = client_ioctl(&w->client, w->ctx, IOMMU_IOAS_IOVA_RANGES, &cmd, sizeof(cmd));
	FUZZ_CHECK(rc == want_rc, "IOVA_RANGES: %ld, want %ld", rc, want_rc);
	if (!o)
		return;
	FUZZ_CHECK(cmd.num_iovas == n && cmd.out_iova_alignment == oracle_align(o),
		   "%u ranges, want %u; align %llu", cmd.num_iovas, n, (ull)cmd.out_iova_alignment);
	for (unsigned int i = 0; i < SWI_MIN(n, room); i++)
		FUZZ_CHECK(got[i].start == want[i].first && got[i].last == want[i].last,
			   "range %u is [%#llx, %#llx]", i, (ull)got[i].start, (ull)got[i].last);
}

static void do_huge_pages(struct world *w)
{
	struct iommu_option cmd = {.size = sizeof(cmd),
				   .option_id = IOMMU_OPTION_HUGE_PAGES,
				   .op = IOMMU_OPTION_OP_SET,
				   .val64 = pick(w->in, 16) % 3};
	struct oracle_ioas *o = take_ioas(w, &cmd.object_id);
	long rc, want = 0;

	if (!o)
		want = -ENOENT;
	else if (cmd.val64 > 1)
		want = -EINVAL;
	else if (!cmd.val64 && oracle_align(o) == 1 && !oracle_fits(o, SWI_PAGE_SIZE))
		want = -EADDRINUSE;
	else
		o->huge_off = !cmd.val64;
	rc = client_ioctl(&w->client, w->ctx, IOMMU_OPTION, &cmd, sizeof(cmd));
	FUZZ_CHECK(rc == want, "HUGE_PAGES %llu: %ld, want %ld", (ull)cmd.val64, rc, want);
}

/* ---- accesses ------------------------------------------------------------------------------------ */

static void leave(struct world *w, unsigned int a)
{
	struct oracle_ioas *o = w->access[a].ioas < 0 ? NULL : &w->ioas[w->access[a].ioas];

	w->access[a].ioas = -1;
	if (!o)
		return;
	o->accesses--;
	o->page_accesses -= a;
}

/* Access 1 wants pages. */
static void do_access_move(struct world *w)
{
	unsigned int a = pick(w->in, 2), how = pick(w->in, 3);
	uint32_t id;
	struct oracle_ioas *o = take_ioas(w, &id);
	bool attached = w->access[a].ioas >= 0;
	long want = 0, rc;

	if (how == 0 && !attached)
		return;
	if (how == 0) {
		iommufd_access_detach(w->access[a].access);
		leave(w, a);
		return;
	}
	if (how == 1 && attached)
		want = -EINVAL;
	else if (how == 2 && !attached)
		want = -ENOENT;
	else if (!o)
		want = -ENOENT;
	else if (attached && (int)index_of(w, o) == w->access[a].ioas)
		o = NULL;
	else if (a && oracle_align(o) == 1 && !oracle_fits(o, SWI_PAGE_SIZE))
		want = -EADDRINUSE;
	rc = how == 1 ? iommufd_access_attach(w->access[a].access, id)
		      : iommufd_access_replace(w->access[a].access, id);
	FUZZ_CHECK(rc == want, "access %u, %s: %ld, want %ld", a, how == 1 ? "attach" : "replace",
		   rc, want);
	if (rc || !o)
		return;
	leave(w, a);
	w->access[a].ioas = (int)index_of(w, o);
	o->accesses++;
	o->page_accesses += a;
}

/* What the arena permits at an address. */
static unsigned int prot_at(uint64_t addr)
{
	uint64_t page = (addr - (uintptr_t)arena) / SWI_PAGE_SIZE;

	if (addr < (uintptr_t)arena || page >= ARENA_PAGES || (page >= 36 && page < 40))
		return 0;
	if (page >= 32 && page < 36)
		return SWI_READ;
	return page == 48 || page == 49 ? SWI_WRITE : SWI_READ | SWI_WRITE;
}

/* Not something of the fuzzer's own, which a mapping may well reach. */
static bool is_harmless(uint64_t addr, uint64_t len)
{
	uint64_t tame_addr = addr, tame_len = len;

	fuzz_tame(&tame_addr, &tame_len);
	return tame_addr == addr && tame_len == len && len - 1 <= UINT64_MAX - addr;
}

/* Whether the source of a piece can be used, and for reading its bytes. */
static int want_piece(const struct oracle_area *a, uint64_t addr, uint8_t *data, size_t len,
		      unsigned int dir)
{
	if (a->source) {
		if (addr >= FUZZ_MEMFD_PAGES * SWI_PAGE_SIZE ||
		    len > FUZZ_MEMFD_PAGES * SWI_PAGE_SIZE - addr)
			return -EINVAL;
		if (dir == SWI_READ)
			FUZZ_CHECK(pread(memfds[a->source - 1], data, len, (off_t)addr) ==
					   (ssize_t)len,
				   "pread");
		return 0;
	}
	if (!is_harmless(addr, len))
		return -ECANCELED;
	for (uint64_t at = addr; at < addr + len; at++)
		if (!(prot_at(at) & dir))
			return -EFAULT;
	if (dir == SWI_READ)
		memcpy(data, (const void *)(uintptr_t)addr, len);
	return 0;
}

#define RW_MAX (3 * SWI_PAGE_SIZE)

static int want_rw(const struct oracle_ioas *o, uint64_t iova, uint8_t *data, size_t len,
		   unsigned int dir, size_t *good, unsigned int *pieces)
{
	*good = 0;
	*pieces = 0;
	if (!len)
		return -EINVAL;
	if (len - 1 > UINT64_MAX - iova)
		return -EOVERFLOW;
	if (!o)
		return -ENOENT;
	for (size_t n; *good < len; *good += n, ++*pieces) {
		const struct oracle_area *a = oracle_at(o, iova + *good);
		int rc;

		if (!a)
			return -ENOENT;
		if (!(a->prot & dir))
			return -EPERM;
		n = SWI_MIN(len - *good, a->last - (iova + *good) + 1);
		if (!n) /* the area is all there is */
			n = len - *good;
		rc = want_piece(a, a->addr + (iova + *good - a->iova), data + *good, n, dir);
		if (rc)
			return rc;
	}
	return 0;
}

static void do_rw(struct world *w)
{
	static uint8_t data[RW_MAX], want_data[RW_MAX];
	unsigned int a = pick(w->in, 2), pieces, dir = seldom(w->in, 3) ? SWI_WRITE : SWI_READ;
	const struct oracle_ioas *o = w->access[a].ioas < 0 ? NULL : &w->ioas[w->access[a].ioas];
	uint64_t iova = take_near(w);
	size_t len = take_length_near(w, iova) % RW_MAX, good;
	long rc, want;

	if (dir == SWI_WRITE)
		memset(data, take8(w->in), len);
	want = want_rw(o, iova, want_data, len, dir, &good, &pieces);
	if (want == -ECANCELED)
		return;
	rc = iommufd_access_rw(w->access[a].access, iova, data, len,
			       dir == SWI_WRITE ? IOMMUFD_ACCESS_RW_WRITE : IOMMUFD_ACCESS_RW_READ);
	FUZZ_CHECK(rc == want, "rw of %zu bytes at %#llx: %ld, want %ld", len, (ull)iova, rc, want);
	if (dir == SWI_READ)
		FUZZ_CHECK(!memcmp(data, want_data, good), "other bytes at %#llx", (ull)iova);
	else if (!rc && pieces == 1 && !want_rw(o, iova, want_data, len, SWI_READ, &good, &pieces))
		FUZZ_CHECK(!memcmp(data, want_data, len), "not written at %#llx", (ull)iova);
}

/* ---- objects ------------------------------------------------------------------------------------- */

static uint32_t next_id(const struct world *w)
{
	for (uint32_t id = 1;; id++) {
		bool used = id == w->access[0].id || id == w->access[1].id;

		for (unsigned int k = 0; k < NR_IOAS; k++)
			used |= w->ioas[k].exists && w->ioas[k].id == id;
		if (!used)
			return id;
	}
}

static void follow(struct world *w, unsigned int k)
{
	FUZZ_CHECK(!iova_reader_attach(reader, w->real[k]->map), "reader");
}

static void do_alloc(struct world *w)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};
	struct swi_reason why;
	unsigned int k = pick(w->in, NR_IOAS);
	struct obj *obj;
	bool failed;
	long rc;

	if (w->ioas[k].exists)
		return;
	rc = call(w, IOMMU_IOAS_ALLOC, &cmd, sizeof(cmd), arm(w), &failed);
	FUZZ_CHECK(!rc || failed, "IOAS_ALLOC: %ld", rc);
	if (rc)
		return;
	FUZZ_CHECK(cmd.out_ioas_id == next_id(w), "ID %u, want %u", cmd.out_ioas_id, next_id(w));
	w->ioas[k] = (struct oracle_ioas){.exists = true, .id = cmd.out_ioas_id};
	FUZZ_CHECK(!obj_get(w->ctx, cmd.out_ioas_id, OBJ_IOAS, "id", &why, &obj), "no IOAS");
	w->real[k] = ioas_of(obj);
	obj_put(obj);
	follow(w, k);
}

static void do_destroy(struct world *w)
{
	struct iommu_destroy cmd = {.size = sizeof(cmd)};
	struct oracle_ioas *o = take_ioas(w, &cmd.id);
	long rc, want = o ? o->accesses ? -EBUSY : 0 : cmd.id == NO_ID ? -ENOENT : -EBUSY;

	if (o)
		iova_reader_detach(reader, w->real[index_of(w, o)]->map);
	rc = client_ioctl(&w->client, w->ctx, IOMMU_DESTROY, &cmd, sizeof(cmd));
	FUZZ_CHECK(rc == want, "DESTROY %u: %ld, want %ld", cmd.id, rc, want);
	if (!o)
		return;
	if (rc) {
		follow(w, index_of(w, o));
		return;
	}
	if (w->compat == (int)index_of(w, o))
		w->compat = -1;
	o->exists = false;
}

/* ---- a sequence ---------------------------------------------------------------------------------- */

static void (*const steps[])(struct world *w) = {
	do_map,	       do_map,	      do_map,	   do_map,	   do_map_file,	  do_copy,
	do_copy,       do_unmap,      do_unmap,	   do_unmap,	   do_allow,	  do_reserve,
	do_ranges,     do_huge_pages, do_vfio_map, do_vfio_unmap,  do_vfio_unmap, do_vfio_type,
	do_set_compat, do_rw,	      do_rw,	   do_access_move, do_alloc,	  do_destroy,
};

static void on_unmap(void *data, unsigned long iova, unsigned long length)
{
	(void)data;
	(void)iova;
	(void)length;
}

static void start(struct world *w, struct input *in)
{
	static const struct iommufd_access_ops ops[2] = {
		{.unmap = on_unmap}, {.needs_pin_pages = true, .unmap = on_unmap}};
	struct swiommu_options options = {0};

	memset(w, 0, sizeof(*w));
	w->in = in;
	w->compat = -1;
	client_init(&w->client);
	w->client.capable = true;
	client_give_fd(&w->client, memfds[0], false);
	client_give_fd(&w->client, memfds[1], false);
	FUZZ_CHECK(!swiommu_test_abi_create(&w->abi), "no test ABI");
	options.test_abi = w->abi;
	FUZZ_CHECK(!swiommu_open_with(&options, &w->ctx), "no context");
	FUZZ_CHECK(!iova_reader_init(reader), "no reader");
	for (unsigned int a = 0; a < 2; a++) {
		w->access[a].access =
			iommufd_access_create(w->ctx, &ops[a], NULL, &w->access[a].id);
		FUZZ_CHECK(!IS_ERR(w->access[a].access), "no access");
		w->access[a].ioas = -1;
	}
}

static void finish(struct world *w)
{
	uint64_t pinned, locked;

	FUZZ_CHECK(!swiommu_accounts_usage(w->ctx->accounts, getpid(), &pinned, &locked) &&
			   !pinned && !locked,
		   "%llu pages are pinned", (ull)pinned);
	for (unsigned int a = 0; a < 2; a++)
		iommufd_access_destroy(w->access[a].access);
	for (unsigned int k = 0; k < NR_IOAS; k++)
		if (w->ioas[k].exists)
			iova_reader_detach(reader, w->real[k]->map);
	iova_reader_fini(reader);
	swiommu_close(w->ctx);
	swiommu_test_abi_destroy(w->abi);
	client_fini(&w->client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static unsigned int fds;
	struct input in = {data, size};
	struct world w;

	fuzz_setup();
	if (!reader)
		reader = swi_zalloc_aligned(SWI_CACHELINE, sizeof(*reader));
	FUZZ_CHECK(reader, "no memory");
	fuzz_restore();
	fds = fuzz_count_fds();
	start(&w, &in);
	do_alloc(&w);
	for (unsigned int i = 0; in.left && i < MAX_CALLS; i++) {
		steps[pick(&in, ARRAY_SIZE(steps))](&w);
		check(&w);
	}
	finish(&w);
	FUZZ_CHECK(fuzz_count_fds() == fds, "descriptors: %u before, %u after", fds,
		   fuzz_count_fds());
	return 0;
}
