// SPDX-License-Identifier: MIT
/*
 * Races held in the middle: what others see while a MAP, an UNMAP or a call's copies are half way.
 *
 * A call is stopped where it waits for the outside world: in the pinning of memory whose owner is
 * the test's own, in a DMA on such memory, or in the copies of a caller of the test's own. Nothing
 * depends on timing; where the other thread has to get somewhere first, its arrival is waited for.
 */
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

#include "base/alloc.h"
#include "fe_lib.h"
#include "mem/owner.h"

#define B MOCK_FIRST

/* ---- memory and callers that stop ---------------------------------------------------------------- */

struct gate {
	sem_t entered, go;
	int answer; /* of what was stopped */
};

struct gate_owner {
	struct mem_owner base;
	struct gate *window; /* stops pinning; NULL: does not */
	struct gate *data;   /* stops DMA */
};

struct gate_caller {
	struct swiommu_caller caller;
	struct swiommu_caller_ops ops;
	const struct swiommu_caller_ops *local;
	struct gate *window, *data, *in, *out; /* NULL: not stopped there */
	unsigned int copies_in;		       /* `in` stops the copy with this number, from 1 */
	unsigned int stop_at;
};

static int pass(struct gate *g)
{
	if (!g)
		return 0;
	sem_post(&g->entered);
	while (sem_wait(&g->go))
		;
	return g->answer;
}

static void gate_init(struct gate *g)
{
	sem_init(&g->entered, 0, 0);
	sem_init(&g->go, 0, 0);
	g->answer = 0;
}

static void wait_entered(struct gate *g)
{
	while (sem_wait(&g->entered))
		;
}

static int owner_read(struct mem_owner *o, uint64_t addr, void *buf, size_t len)
{
	(void)addr;
	memset(buf, 0x77, len);
	return pass(((struct gate_owner *)o)->data);
}

static int owner_write(struct mem_owner *o, uint64_t addr, const void *buf, size_t len)
{
	(void)addr;
	(void)buf;
	(void)len;
	return pass(((struct gate_owner *)o)->data);
}

static int owner_window(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot,
			struct mem_window *win, struct swi_reason *why)
{
	(void)addr;
	(void)len;
	(void)prot;
	(void)why;
	memset(win, 0, sizeof(*win));
	return pass(((struct gate_owner *)o)->window);
}

static void owner_destroy(struct mem_owner *o)
{
	swi_free(o);
}

static int caller_memory(struct swiommu_caller *c, struct mem_owner **out)
{
	static const struct mem_owner_ops ops = {
		.kind = "gate",
		.read = owner_read,
		.write = owner_write,
		.open_window = owner_window,
		.read_pinned = owner_read,
		.write_pinned = owner_write,
		.destroy = owner_destroy,
	};
	struct gate_caller *gc = (struct gate_caller *)c;
	struct gate_owner *o = swi_new(struct gate_owner);

	if (!o)
		return -ENOMEM;
	o->base.ops = &ops;
	o->base.refs = 1;
	o->window = gc->window;
	o->data = gc->data;
	*out = &o->base;
	return 0;
}

static int caller_in(struct swiommu_caller *c, void *dst, uint64_t uptr, size_t len)
{
	struct gate_caller *gc = (struct gate_caller *)c;
	int rc = ++gc->copies_in == gc->stop_at ? pass(gc->in) : 0;

	return rc ? rc : gc->local->copy_in(c, dst, uptr, len);
}

static int caller_out(struct swiommu_caller *c, uint64_t uptr, const void *src, size_t len)
{
	struct gate_caller *gc = (struct gate_caller *)c;
	int rc = pass(gc->out);

	return rc ? rc : gc->local->copy_out(c, uptr, src, len);
}

static void caller_init(struct gate_caller *gc)
{
	memset(gc, 0, sizeof(*gc));
	swiommu_caller_local(&gc->caller);
	gc->local = gc->caller.ops;
	gc->ops = *gc->local;
	gc->ops.get_memory = caller_memory;
	gc->ops.copy_in = caller_in;
	gc->ops.copy_out = caller_out;
	gc->caller.ops = &gc->ops;
}

/* ---- a call in another thread --------------------------------------------------------------------- */

struct held {
	pthread_t thread;
	struct ctx *c;
	struct gate_caller gc;
	unsigned int cmd;
	union {
		struct iommu_ioas_map map;
		struct iommu_ioas_unmap unmap;
		struct iommu_ioas_alloc alloc;
		struct iommu_ioas_allow_iovas allow;
		struct iommu_ioas_iova_ranges ranges;
		struct iommu_destroy destroy;
	} arg;
	long rc;
};

static void need_lib(void)
{
	if (suite.fe != &fe_lib)
		skip("held-call", "a call can be held half way only in the library");
}

static void *held_thread(void *data)
{
	struct held *h = data;

	h->rc = swiommu_ioctl(fe_lib_ictx(h->c), &h->gc.caller, h->cmd, (uintptr_t)&h->arg);
	return NULL;
}

static void held_start(struct held *h)
{
	if (pthread_create(&h->thread, NULL, held_thread, h))
		give_up("no thread");
}

static long held_end(struct held *h, struct gate *g)
{
	sem_post(&g->go);
	pthread_join(h->thread, NULL);
	return h->rc;
}

/* A MAP of 16 pages at B that is being pinned. */
static void hold_map(struct ctx *c, uint32_t ioas, struct held *h, struct gate *g)
{
	gate_init(g);
	memset(h, 0, sizeof(*h));
	caller_init(&h->gc);
	h->gc.window = g;
	h->c = c;
	h->cmd = IOMMU_IOAS_MAP;
	h->arg.map = (struct iommu_ioas_map){
		.size = sizeof(h->arg.map),
		.flags = FIXED | RW,
		.ioas_id = ioas,
		.length = 16 * PAGE,
		.iova = B,
	};
	held_start(h);
	wait_entered(g);
}

struct scene {
	uint32_t ioas;
	struct mock m;
	struct held h;
	struct gate g;
};

static void scene_with_map(struct ctx *c, struct scene *s)
{
	need_lib();
	s->ioas = ioas_new(c);
	mock_add(c, s->ioas, &s->m);
	hold_map(c, s->ioas, &s->h, &s->g);
}

static void unmap_during_map(struct ctx *c)
{
	struct scene s;

	scene_with_map(c, &s);
	CHECK_RC(unmap(c, s.ioas, B, 16 * PAGE, NULL), -EBUSY);
	CHECK_RC(unmap(c, s.ioas, B + PAGE, PAGE, NULL), -EBUSY);
	CHECK_RC(unmap(c, s.ioas, 0, MAX, NULL), -EBUSY);
	CHECK_RC(held_end(&s.h, &s.g), 0);
	unmap_expect(c, s.ioas, 0, MAX, 16 * PAGE);
	mock_remove(&s.m);
}

static void map_during_map(struct ctx *c)
{
	struct scene s;
	char *v = memory(2);

	scene_with_map(c, &s);
	CHECK_RC(map_at(c, s.ioas, B + 15 * PAGE, (uintptr_t)v, 2 * PAGE), -EEXIST);
	CHECK_RC(map_at(c, s.ioas, B, (uintptr_t)v, PAGE), -EEXIST);
	CHECK_RC(map_at(c, s.ioas, B + 16 * PAGE, (uintptr_t)v, PAGE), 0);
	CHECK_RC(mock_check(&s.m, B + 16 * PAGE, v, PAGE), 0);
	unmap_expect(c, s.ioas, B + 16 * PAGE, PAGE, PAGE);
	CHECK_RC(held_end(&s.h, &s.g), 0);
	mock_remove(&s.m);
}

static void use_during_map(struct ctx *c)
{
	struct scene s;
	char b;

	scene_with_map(c, &s);
	CHECK_RC(copy(c, s.ioas, s.ioas, RW, B, PAGE, NULL), -ENOENT);
	CHECK_RC(mock_dma(&s.m, B, &b, 1, false), -ENOENT);
	CHECK_RC(destroy(c, s.ioas), -EBUSY);
	CHECK_RC(reserve_try(c, s.ioas, B + PAGE, 1), -EADDRINUSE);
	CHECK_RC(held_end(&s.h, &s.g), 0);
	CHECK_RC(mock_dma(&s.m, B, &b, 1, false), 0);
	mock_remove(&s.m);
}

static void map_fails_late(struct ctx *c)
{
	struct scene s;
	char *v = memory(16);

	scene_with_map(c, &s);
	s.g.answer = -EFAULT;
	CHECK_RC(held_end(&s.h, &s.g), -EFAULT);
	CHECK_RC(unmap(c, s.ioas, B, 16 * PAGE, NULL), -ENOENT);
	CHECK_RC(map_at(c, s.ioas, B, (uintptr_t)v, 16 * PAGE), 0);
	CHECK_RC(mock_check(&s.m, B, v, 16 * PAGE), 0);
	mock_remove(&s.m);
}

/* ---- UNMAP that waits for a DMA -------------------------------------------------------------------- */

struct dma_thread {
	pthread_t thread;
	struct mock *m;
	int rc;
};

static void *dma_thread(void *data)
{
	struct dma_thread *d = data;
	char b[8];

	d->rc = mock_dma(d->m, B, b, sizeof(b), false);
	return NULL;
}

static void unmap_waits_for_dma(struct ctx *c)
{
	struct gate_caller gc;
	struct swiommu_dma *second;
	struct dma_thread d;
	struct held h;
	struct mock m;
	struct gate g;
	uint32_t ioas;
	char b, *v = memory(1);

	need_lib();
	ioas = ioas_new(c);
	mock_add(c, ioas, &m);
	second = fe_lib_dma(&m);
	gate_init(&g);
	caller_init(&gc);
	gc.data = &g;
	h.arg.map = (struct iommu_ioas_map){sizeof(h.arg.map), FIXED | RW, ioas, 0, 0, PAGE, B};
	CHECK_RC(swiommu_ioctl(fe_lib_ictx(c), &gc.caller, IOMMU_IOAS_MAP, (uintptr_t)&h.arg), 0);
	CHECK_RC(map_at(c, ioas, B + 2 * PAGE, (uintptr_t)v, PAGE), 0);
	d.m = &m;
	pthread_create(&d.thread, NULL, dma_thread, &d);
	wait_entered(&g);

	memset(&h, 0, sizeof(h));
	caller_init(&h.gc);
	h.c = c;
	h.cmd = IOMMU_IOAS_UNMAP;
	h.arg.unmap = (struct iommu_ioas_unmap){sizeof(h.arg.unmap), ioas, B, PAGE};
	held_start(&h);
	/* Until the area is busy, this is refused because it would cut it. */
	while (unmap(c, ioas, B, 1, NULL) != -EBUSY)
		sched_yield();
	CHECK_RC(copy(c, ioas, ioas, RW, B, PAGE, NULL), -ENOENT);
	CHECK_RC(swiommu_dma_read(second, B, &b, 1), -ENOENT);
	CHECK_RC(map_at(c, ioas, B, (uintptr_t)v, PAGE), -EEXIST);
	CHECK_RC(unmap(c, ioas, B, PAGE, NULL), -EBUSY);
	CHECK_RC(destroy(c, ioas), -EBUSY);
	CHECK_RC(swiommu_dma_read(second, B + 2 * PAGE, &b, 1), 0);
	CHECK_RC(held_end(&h, &g), 0);
	CHECK_EQ(h.arg.unmap.length, PAGE);
	pthread_join(d.thread, NULL);
	CHECK_RC(d.rc, 0);
	CHECK_RC(map_at(c, ioas, B, (uintptr_t)v, PAGE), 0);
	CHECK_RC(mock_check(&m, B, v, PAGE), 0);
	swiommu_dma_close(second);
	mock_remove(&m);
}

/* ---- callers that stop in their copies ------------------------------------------------------------- */

static void hold_alloc(struct ctx *c, struct held *h, struct gate *g)
{
	need_lib();
	gate_init(g);
	memset(h, 0, sizeof(*h));
	caller_init(&h->gc);
	h->gc.out = g;
	h->c = c;
	h->cmd = IOMMU_IOAS_ALLOC;
	h->arg.alloc.size = sizeof(h->arg.alloc);
	held_start(h);
	wait_entered(g);
}

static void unpublished_id(struct ctx *c)
{
	struct held h;
	struct gate g;

	hold_alloc(c, &h, &g);
	CHECK_RC(destroy(c, 1), -ENOENT);
	CHECK_RC(map_at(c, 1, PAGE, 0, PAGE), -ENOENT);
	CHECK_RC(rlimit_mode_set(c, 0), has_cap(CAP_SYS_RESOURCE) ? -EBUSY : -EPERM);
	CHECK_EQ(ioas_new(c), 2);
	CHECK_RC(held_end(&h, &g), 0);
	CHECK_EQ(h.arg.alloc.out_ioas_id, 1);
	CHECK_RC(map_at(c, 1, PAGE, 0, PAGE), 0);
}

static void unpublished_id_is_taken_back(struct ctx *c)
{
	struct held h;
	struct gate g;

	hold_alloc(c, &h, &g);
	CHECK_EQ(ioas_new(c), 2);
	g.answer = -EFAULT;
	CHECK_RC(held_end(&h, &g), -EFAULT);
	CHECK_RC(destroy(c, 1), -ENOENT);
	CHECK_EQ(ioas_new(c), 1);
}

/* A caller whose memory blocks stops nobody else. */
static void blocked_list(struct ctx *c)
{
	const struct iommu_iova_range list[] = {{0x10000, 0x1ffff}};
	struct held h = {0};
	struct gate g;
	uint32_t ioas;
	uint64_t iova;

	need_lib();
	ioas = ioas_new(c);
	gate_init(&g);
	caller_init(&h.gc);
	h.gc.in = &g;
	h.gc.stop_at = 3; /* size, struct, list */
	h.c = c;
	h.cmd = IOMMU_IOAS_ALLOW_IOVAS;
	h.arg.allow =
		(struct iommu_ioas_allow_iovas){sizeof(h.arg.allow), ioas, 1, 0, (uintptr_t)list};
	held_start(&h);
	wait_entered(&g);
	CHECK_RC(map(c, ioas, RW, 0x1000, PAGE, &iova), 0);
	CHECK_EQ(iova, 0x1000);
	unmap_expect(c, ioas, 0, MAX, PAGE);
	CHECK_RC(destroy(c, ioas), -EBUSY);
	CHECK_RC(held_end(&h, &g), 0);
	CHECK_RC(map(c, ioas, RW, 0x1000, PAGE, &iova), 0);
	CHECK_EQ(iova, 0x10000);
}

static void blocked_ranges(struct ctx *c)
{
	struct iommu_iova_range range;
	struct held h = {0};
	struct gate g;
	uint32_t ioas;

	need_lib();
	ioas = ioas_new(c);
	gate_init(&g);
	caller_init(&h.gc);
	h.gc.out = &g;
	h.c = c;
	h.cmd = IOMMU_IOAS_IOVA_RANGES;
	h.arg.ranges = (struct iommu_ioas_iova_ranges){
		.size = sizeof(h.arg.ranges),
		.ioas_id = ioas,
		.num_iovas = 1,
		.allowed_iovas = (uintptr_t)&range,
	};
	held_start(&h);
	wait_entered(&g);
	CHECK_RC(map_at(c, ioas, PAGE, 0, PAGE), 0);
	unmap_expect(c, ioas, PAGE, PAGE, PAGE);
	sem_post(&g.go); /* the struct comes after the list */
	wait_entered(&g);
	CHECK_RC(held_end(&h, &g), 0);
	CHECK_EQ(range.last, MAX);
}

/* The struct changes under the call, after its size was read: the first size counts. */
static void size_changes(struct ctx *c)
{
	struct held h = {0};
	struct gate g;

	need_lib();
	gate_init(&g);
	caller_init(&h.gc);
	h.gc.in = &g;
	h.gc.stop_at = 2;
	h.c = c;
	h.cmd = IOMMU_DESTROY;
	h.arg.destroy = (struct iommu_destroy){sizeof(h.arg.destroy), ioas_new(c)};
	held_start(&h);
	wait_entered(&g);
	h.arg.destroy.size = 3;
	CHECK_RC(held_end(&h, &g), 0);
	CHECK_RC(destroy(c, 1), -ENOENT);
}

static const struct row rows[] = {
	{"8.2.1", "UNMAP during a MAP", unmap_during_map, NULL},
	{"8.2.2,7", "MAP during a MAP, over it and beside it", map_during_map, NULL},
	{"8.2.3-6", "COPY, DMA, DESTROY, reservation during a MAP", use_during_map, NULL},
	{"8.2.9", "MAP that fails late", map_fails_late, NULL},
	{"8.2.10-13", "UNMAP waits for a DMA; what others see", unmap_waits_for_dma, NULL},
	{"8.2.20", "an ID before it is published", unpublished_id, NULL},
	{"1.6", "an ID that is taken back", unpublished_id_is_taken_back, NULL},
	{"8.2.24-in", "a list that blocks", blocked_list, NULL},
	{"8.2.24-out", "ranges that block", blocked_ranges, NULL},
	{"8.2.23", "the struct changes under the call", size_changes, NULL},
};
ROWS(rows_races, rows);
