// SPDX-License-Identifier: MIT
/*
 * Devices, page tables and IDs against each other (spec devices.md 8): the first half runs calls at once and checks
 * what must hold whoever is first; the second holds one call still half way. For the thread sanitizer as well.
 */
#include "nest_rig.h"

#include <semaphore.h>

#include "core/device.h"
#include "core/object.h"

#define NEST IOMMU_HWPT_ALLOC_NEST_PARENT

/* Calls of a thread of its own, on the context of a rig. */
static struct rig mine_of(struct rig *r)
{
	struct rig mine = {.abi = r->abi, .files = r->files, .ctx = r->ctx, .ioas = r->ioas};

	swiommu_caller_local(&mine.caller);
	mine.caller.files = r->files;
	return mine;
}

static uint32_t any(uint64_t *seed, uint32_t n)
{
	*seed = *seed * 6364136223846793005 + 1442695040888963407;
	return (uint32_t)(*seed >> 33) % n;
}

static uint32_t viommu_new(struct rig *r, uint32_t dev)
{
	struct iommu_viommu_alloc cmd = {.size = sizeof(cmd),
					 .type = MOCK_VIOMMU_TYPE,
					 .dev_id = dev,
					 .hwpt_id = hwpt_new(r, dev, NEST, 0)};

	assert_rc(ioc(r, IOMMU_VIOMMU_ALLOC, &cmd), 0);
	return cmd.out_viommu_id;
}

static long vdevice(struct rig *r, uint32_t viommu, uint32_t dev, uint64_t virt_id, uint32_t *out)
{
	struct iommu_vdevice_alloc cmd = {
		.size = sizeof(cmd), .viommu_id = viommu, .dev_id = dev, .virt_id = virt_id};
	long rc = ioc(r, IOMMU_VDEVICE_ALLOC, &cmd);

	*out = cmd.out_vdevice_id;
	return rc;
}

/* ---- one of several (1, 12) ---------------------------------------------------------------------------- */

#define CONTENDERS 3
#define ROUNDS 300

struct contest {
	struct rig *r;
	pthread_barrier_t start, end;
	uint32_t id, viommu, dev[CONTENDERS];
	uint64_t virt_id[CONTENDERS];
	bool over;
	long rc[CONTENDERS];
	uint32_t out[CONTENDERS];
	long (*fn)(struct contest *c, struct rig *mine, int who);
};

struct contender {
	struct contest *c;
	int who;
	pthread_t thread;
};

static void *contend(void *arg)
{
	struct contender *me = arg;
	struct contest *c = me->c;
	struct rig mine = mine_of(c->r);

	for (;;) {
		pthread_barrier_wait(&c->start);
		if (c->over)
			return NULL;
		c->rc[me->who] = c->fn(c, &mine, me->who);
		pthread_barrier_wait(&c->end);
	}
}

/* What all of them do at once works for exactly one, whose number is returned; the others hear one of two errors. */
static int winner(struct contest *c, long loses, long or_so)
{
	int won = -1;

	pthread_barrier_wait(&c->start);
	pthread_barrier_wait(&c->end);
	for (int i = 0; i < CONTENDERS; i++) {
		if (c->rc[i]) {
			assert_true(c->rc[i] == loses || c->rc[i] == or_so);
			continue;
		}
		assert_int_equal(won, -1);
		won = i;
	}
	assert_int_not_equal(won, -1);
	return won;
}

static void contest_begin(struct contest *c, struct contender *all)
{
	pthread_barrier_init(&c->start, NULL, CONTENDERS + 1);
	pthread_barrier_init(&c->end, NULL, CONTENDERS + 1);
	for (int i = 0; i < CONTENDERS; i++) {
		all[i] = (struct contender){.c = c, .who = i};
		assert_rc(pthread_create(&all[i].thread, NULL, contend, &all[i]), 0);
	}
}

static void contest_end(struct contest *c, struct contender *all)
{
	c->over = true;
	pthread_barrier_wait(&c->start);
	for (int i = 0; i < CONTENDERS; i++)
		pthread_join(all[i].thread, NULL);
	pthread_barrier_destroy(&c->start);
	pthread_barrier_destroy(&c->end);
}

static long destroy_it(struct contest *c, struct rig *mine, int who)
{
	(void)who;
	return rm(mine, c->id);
}

static void destroyed_once(void **state)
{
	struct rig *r = *state;
	struct contest c = {.r = r, .fn = destroy_it};
	struct contender all[CONTENDERS];
	struct mock m = mock_add(r, r->ioas, 0);

	contest_begin(&c, all);
	for (int i = 0; i < ROUNDS; i++) {
		c.id = i % 2 ? ioas_new(r->ctx) : hwpt_new(r, m.idev, 0, 0);
		winner(&c, -ENOENT, -EBUSY);
		assert_rc(rm(r, c.id), -ENOENT);
	}
	contest_end(&c, all);
}

static long make_vdevice(struct contest *c, struct rig *mine, int who)
{
	return vdevice(mine, c->viommu, c->dev[who], c->virt_id[who], &c->out[who]);
}

/* One vDEVICE for a device, and one for a number of the guest's. */
static void made_once(void **state)
{
	struct rig *r = *state;
	struct contest c = {.r = r, .fn = make_vdevice};
	struct contender all[CONTENDERS];
	struct mock m[CONTENDERS];

	for (int i = 0; i < CONTENDERS; i++)
		m[i] = mock_add(r, r->ioas, 0);
	c.viommu = viommu_new(r, m[0].idev);
	contest_begin(&c, all);
	for (int i = 0; i < ROUNDS; i++) {
		for (int k = 0; k < CONTENDERS; k++) {
			c.dev[k] = m[i % 2 ? 0 : k].idev;
			c.virt_id[k] = i % 2 ? k : 5;
		}
		assert_rc(rm(r, c.out[winner(&c, -EEXIST, -EEXIST)]), 0);
	}
	contest_end(&c, all);
	assert_rc(rm(r, c.viommu), 0);
}

/* ---- devices on the move (3 to 6) ------------------------------------------------------------------- */

#define MOVES 1500
#define RESV 0x200000ull
#define MAX_PASID 2

/* Remembers where its driver has put it, which must be what the engine takes it to be. */
struct mover {
	struct device dev;
	struct iommu_domain *at[MAX_PASID + 1];
	struct iommufd_device *idev;
	struct travel *travel;
	uint64_t seed;
	pthread_t thread;
	bool alone; /* in its group, and goes from one IOAS to the other only */
};

struct travel {
	struct rig *r;
	struct iommu_group groups[3];
	struct mover movers[4]; /* of groups 0, 0, 1, 2 */
	uint32_t pt[4];		/* two IOASes, two HWPTs for PASIDs */
	_Atomic uint32_t last;	/* an automatic HWPT that was there a moment ago */
	_Atomic unsigned int wrong, moved, refused;
	_Atomic bool stop;
};

static struct mover *mover_of(struct device *dev)
{
	return (struct mover *)dev;
}

/* The n-th step of a driver that this thread makes it take fails. */
static _Thread_local int fail_nth;

static int put_pasid(struct iommu_domain *domain, struct device *dev, uint32_t pasid,
		     struct iommu_domain *old)
{
	struct mover *m = mover_of(dev);

	if (old != m->at[pasid])
		m->travel->wrong++;
	if (fail_nth && !--fail_nth)
		return -EIO;
	m->at[pasid] = domain->type == IOMMU_DOMAIN_BLOCKED ? NULL : domain;
	return 0;
}

static int put_rid(struct iommu_domain *domain, struct device *dev, struct iommu_domain *old)
{
	return put_pasid(domain, dev, 0, old);
}

static int regions_of(struct device *dev, struct iommu_resv_region *regions)
{
	if (mover_of(dev)->alone)
		return 0;
	*regions = (struct iommu_resv_region){RESV, RESV + PAGE - 1, IOMMU_RESV_RESERVED};
	return 1;
}

static const struct iommu_domain_ops mover_ops = {.attach_dev = put_rid,
						  .set_dev_pasid = put_pasid};
static struct iommu_domain mover_blocked = {.type = IOMMU_DOMAIN_BLOCKED, .ops = &mover_ops};
static const struct iommu_driver mover_driver = {.name = "mover",
						 .pgsize_bitmap = PAGE,
						 .aperture_last = (1ull << 40) - 1,
						 .hwpt_flags = IOMMU_HWPT_ALLOC_PASID | NEST,
						 .domain_ops = &mover_ops,
						 .blocked_domain = &mover_blocked,
						 .get_resv_regions = regions_of};

static bool may_be(int rc)
{
	return !rc || rc == -EINVAL || rc == -EBUSY || rc == -EADDRINUSE || rc == -EIO ||
	       rc == -ENOENT;
}

static int move(struct mover *m, uint32_t pasid, uint32_t *pt)
{
	uint32_t kind = any(&m->seed, 4);
	int rc = 0;

	/* Detaching cannot fail, so it must not be told to. */
	fail_nth = any(&m->seed, 6) ? 0 : 1 + (int)any(&m->seed, 2);
	if (kind < 2)
		rc = iommufd_device_attach(m->idev, pasid, pt);
	else if (kind < 3)
		rc = iommufd_device_replace(m->idev, pasid, pt);
	fail_nth = 0;
	if (kind == 3)
		iommufd_device_detach(m->idev, pasid);
	return rc;
}

static void *travel_about(void *arg)
{
	struct mover *m = arg;
	struct travel *t = m->travel;

	for (int i = 0; i < MOVES; i++) {
		uint32_t pasid = any(&m->seed, MAX_PASID + 1), pt = t->pt[any(&m->seed, 4)];
		int rc = move(m, pasid, &pt);

		if (!may_be(rc))
			t->wrong++;
		t->moved += !rc;
		t->refused += rc != 0;
	}
	for (uint32_t pasid = 0; pasid <= MAX_PASID; pasid++)
		iommufd_device_detach(m->idev, pasid);
	return NULL;
}

/* Automatic HWPTs come and go under it, so there is always one to be had. */
static void *commute(void *arg)
{
	struct mover *m = arg;
	struct travel *t = m->travel;

	for (int i = 0; i < MOVES; i++) {
		uint32_t pt = t->pt[i & 1], other = t->pt[~i & 1];

		t->wrong += iommufd_device_attach(m->idev, 0, &pt) != 0;
		t->last = pt;
		t->wrong += iommufd_device_replace(m->idev, 0, &other) != 0;
		t->last = other;
		iommufd_device_detach(m->idev, 0);
	}
	return NULL;
}

/* To HWPTs that are about to vanish: what it is attached to then must be there. */
static void *follow(void *arg)
{
	struct mover *m = arg;
	struct travel *t = m->travel;
	struct rig mine = mine_of(t->r);
	uint32_t pt = t->pt[0];

	t->wrong += iommufd_device_attach(m->idev, 0, &pt) != 0;
	while (!t->stop) {
		uint32_t to = t->last;
		int rc = iommufd_device_replace(m->idev, 0, &to);

		t->wrong += rc && rc != -ENOENT && rc != -EINVAL;
		if (!rc)
			t->wrong += rm(&mine, to) != -EBUSY;
		t->moved += !rc;
	}
	iommufd_device_detach(m->idev, 0);
	return NULL;
}

/* Destroys what nobody uses just now, and puts mappings where devices have reserved regions. */
static void *be_in_the_way(void *arg)
{
	struct travel *t = arg;
	struct rig mine = mine_of(t->r);
	char *page = memory(1);

	while (!t->stop) {
		rm(&mine, t->last);
		if (!map(mine.ctx, t->pt[1], RW, RESV, page, PAGE))
			t->wrong += unmap(mine.ctx, t->pt[1], RESV, PAGE) != 0;
	}
	munmap(page, PAGE);
	return NULL;
}

static void travel_init(struct rig *r, struct travel *t)
{
	static const int group_of[] = {0, 0, 1, 2};

	t->r = r;
	for (int i = 0; i < 3; i++)
		assert_rc(iommu_group_init(&t->groups[i], i), 0);
	for (int i = 0; i < 4; i++) {
		struct mover *m = &t->movers[i];
		uint32_t id;

		m->dev = (struct device){.name = "mover",
					 .group = &t->groups[group_of[i]],
					 .iommu = &mover_driver,
					 .max_pasids = MAX_PASID + 1};
		m->travel = t;
		m->seed = 33 + i;
		m->alone = i > 1;
		m->idev = iommufd_device_bind(r->ctx, &m->dev, &id);
		assert_false(IS_ERR(m->idev));
		if (i < 2)
			t->pt[i] = ioas_new(r->ctx);
		else
			assert_rc(hwpt_alloc(r, id, t->pt[i - 2], IOMMU_HWPT_ALLOC_PASID, 0, 0,
					     NULL, 0, &t->pt[i]),
				  0);
	}
}

static void devices_on_the_move(void **state)
{
	struct travel *t = calloc(1, sizeof(*t));
	void *(*const fns[4])(void *) = {travel_about, travel_about, commute, follow};
	struct rig *r = *state;
	pthread_t nuisance;

	travel_init(r, t);
	assert_rc(pthread_create(&nuisance, NULL, be_in_the_way, t), 0);
	for (int i = 0; i < 4; i++)
		assert_rc(pthread_create(&t->movers[i].thread, NULL, fns[i], &t->movers[i]), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(t->movers[i].thread, NULL);
	t->stop = true;
	pthread_join(t->movers[3].thread, NULL);
	pthread_join(nuisance, NULL);
	assert_int_equal(t->wrong, 0);
	assert_true(t->moved > 100 && t->refused > 100);
	for (int i = 0; i < 4; i++) {
		for (int k = 0; k <= MAX_PASID; k++)
			assert_null(t->movers[i].at[k]);
		iommufd_device_unbind(t->movers[i].idev);
	}
	/* Nothing holds any of it. */
	for (int i = 4; i--;)
		assert_rc(rm(r, t->pt[i]), 0);
	for (int i = 0; i < 3; i++)
		iommu_group_fini(&t->groups[i]);
	free(t);
}

/* ---- page tables beside changes (15, 17) ------------------------------------------------------------- */

#define SLOTS 8
#define SLOT(i) (BASE + (i)*0x10000ull)
#define POISON 0xdeadbeefdeadbeefull

struct tables {
	struct rig *r;
	uint64_t *slots[SLOTS];
	_Atomic bool stop;
	_Atomic unsigned int wrong, seen, missed;
};

static void *change_mappings(void *arg)
{
	struct tables *t = arg;
	struct rig mine = mine_of(t->r);
	uint64_t seed = 5;

	while (!t->stop) {
		uint32_t i = any(&seed, SLOTS);

		*(_Atomic uint64_t *)t->slots[i] = i;
		t->wrong += map(mine.ctx, mine.ioas, RW, SLOT(i), t->slots[i], PAGE) != 0;
		sched_yield();
		t->wrong += unmap(mine.ctx, mine.ioas, SLOT(i), PAGE) != 0;
		*(_Atomic uint64_t *)t->slots[i] = POISON;
	}
	return NULL;
}

/* A new page table shows what is mapped, and nothing that is no more. */
static void tables_beside_changes(void **state)
{
	struct rig *r = *state;
	struct tables t = {.r = r};
	struct mover m = {.travel = calloc(1, sizeof(struct travel)), .alone = true};
	struct iommu_group group;
	struct swiommu_dma *dma;
	uint32_t id, hwpt, was = 0;
	pthread_t thread;

	assert_rc(iommu_group_init(&group, 1), 0);
	m.dev = (struct device){.name = "dev", .group = &group, .iommu = &mover_driver};
	m.idev = iommufd_device_bind(r->ctx, &m.dev, &id);
	assert_false(IS_ERR(m.idev));
	assert_rc(swiommu_dma_open(m.idev, &dma), 0);
	for (int i = 0; i < SLOTS; i++)
		t.slots[i] = (uint64_t *)memory(1);
	assert_rc(pthread_create(&thread, NULL, change_mappings, &t), 0);
	for (int n = 0; n < 400 || ((!t.seen || !t.missed) && n < 100000); n++) {
		assert_rc(hwpt_alloc(r, id, r->ioas, 0, 0, 0, NULL, 0, &hwpt), 0);
		assert_rc(was ? iommufd_device_replace(m.idev, 0, &hwpt)
			      : iommufd_device_attach(m.idev, 0, &hwpt),
			  0);
		if (was)
			assert_rc(rm(r, was), 0);
		was = hwpt;
		for (int k = 0; k < 2 * SLOTS; k++) {
			uint64_t word = POISON;
			int rc = swiommu_dma_read(dma, SLOT(k % SLOTS), &word, sizeof(word));

			t.wrong += rc ? rc != -ENOENT : word != (uint64_t)k % SLOTS;
			t.seen += !rc;
			t.missed += rc != 0;
		}
	}
	t.stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(t.wrong + m.travel->wrong, 0);
	assert_true(t.seen && t.missed);
	swiommu_dma_close(dma);
	iommufd_device_detach(m.idev, 0);
	iommufd_device_unbind(m.idev);
	assert_rc(rm(r, was), 0);
	for (int i = 0; i < SLOTS; i++)
		munmap(t.slots[i], PAGE);
	iommu_group_fini(&group);
	free(m.travel);
}

/* ---- calls held still (7, 8, 10) --------------------------------------------------------------------- */

/* A call that stops where it answers, until it is told to go on. */
struct held {
	struct rig mine;
	struct swiommu_caller_ops ops;
	sem_t inside, go;
	uint32_t dev, viommu, out;
	long rc;
	pthread_t thread;
	int kind;
	bool stopped;
};

static struct held *held_of(struct swiommu_caller *c)
{
	return container_of(c, struct held, mine.caller);
}

static int stop_and_copy(struct swiommu_caller *c, uint64_t uptr, const void *src, size_t len)
{
	struct held *h = held_of(c);
	struct swiommu_caller plain;

	if (!h->stopped) {
		h->stopped = true;
		sem_post(&h->inside);
		while (sem_wait(&h->go))
			;
	}
	swiommu_caller_local(&plain);
	return plain.ops->copy_out(&plain, uptr, src, len);
}

enum { HELD_HW_INFO, HELD_HWPT, HELD_VIOMMU, HELD_VDEVICE, NR_HELD };

static long hw_info(struct rig *r, uint32_t dev)
{
	struct iommu_hw_info cmd = {.size = sizeof(cmd), .dev_id = dev};

	return ioc(r, IOMMU_GET_HW_INFO, &cmd);
}

static void *held_run(void *arg)
{
	struct held *h = arg;
	struct iommu_viommu_alloc cmd = {
		.size = sizeof(cmd), .type = MOCK_VIOMMU_TYPE, .dev_id = h->dev, .hwpt_id = h->out};

	if (h->kind == HELD_HW_INFO) {
		h->rc = hw_info(&h->mine, h->dev);
	} else if (h->kind == HELD_HWPT) {
		h->rc = hwpt_alloc(&h->mine, h->dev, h->mine.ioas, 0, 0, 0, NULL, 0, &h->out);
	} else if (h->kind == HELD_VIOMMU) {
		h->rc = ioc(&h->mine, IOMMU_VIOMMU_ALLOC, &cmd);
		h->out = cmd.out_viommu_id;
	} else {
		h->rc = vdevice(&h->mine, h->viommu, h->dev, 7, &h->out);
	}
	return NULL;
}

struct unbinding {
	struct rig *r;
	uint32_t stdev;
	_Atomic bool done;
	long rc;
	pthread_t thread;
};

static void *unbind_run(void *arg)
{
	struct unbinding *u = arg;
	struct rig mine = mine_of(u->r);

	u->rc = rm(&mine, u->stdev);
	u->done = true;
	return NULL;
}

/* No call on the device begins any more. */
static bool is_closed(struct rig *r, const struct held *h)
{
	uint32_t id;

	return h->kind == HELD_VDEVICE ? vdevice(r, h->viommu, h->dev, 9, &id) == -ENOENT
				       : hw_info(r, h->dev) == -ENOENT;
}

static void unbinding_waits_for(struct rig *r, int kind)
{
	struct mock keeper = mock_add(r, r->ioas, 0), m = mock_add(r, r->ioas, 0);
	struct unbinding u = {.r = r, .stdev = m.stdev};
	struct held h = {.mine = mine_of(r), .dev = m.idev, .kind = kind};
	uint32_t id, parent = hwpt_new(r, keeper.idev, NEST, 0);

	h.viommu = viommu_new(r, keeper.idev);
	h.out = parent;
	h.ops = *h.mine.caller.ops;
	h.ops.copy_out = stop_and_copy;
	h.mine.caller.ops = &h.ops;
	sem_init(&h.inside, 0, 0);
	sem_init(&h.go, 0, 0);
	assert_rc(pthread_create(&h.thread, NULL, held_run, &h), 0);
	while (sem_wait(&h.inside))
		;
	assert_rc(pthread_create(&u.thread, NULL, unbind_run, &u), 0);
	while (!is_closed(r, &h))
		sched_yield();
	assert_false(u.done);
	sem_post(&h.go);
	pthread_join(h.thread, NULL);
	pthread_join(u.thread, NULL);
	assert_rc(h.rc, 0);
	assert_rc(u.rc, 0);
	assert_rc(hw_info(r, m.idev), -ENOENT);
	if (kind == HELD_VDEVICE) {
		/* A tombstone: that number is nobody's again, the guest's is free. */
		assert_rc(rm(r, h.out), -ENOENT);
		assert_rc(vdevice(r, h.viommu, keeper.idev, 7, &id), 0);
		assert_int_not_equal(id, h.out);
		assert_rc(rm(r, id), 0);
	} else if (kind != HELD_HW_INFO) {
		assert_rc(rm(r, h.out), 0);
	}
	assert_rc(rm(r, h.viommu), 0);
	assert_rc(rm(r, parent), 0);
	assert_rc(rm(r, keeper.stdev), 0);
	sem_destroy(&h.inside);
	sem_destroy(&h.go);
}

static void unbinding_waits(void **state)
{
	for (int kind = 0; kind < NR_HELD; kind++)
		unbinding_waits_for(*state, kind);
}

/* An automatic HWPT that a call uses when its last device leaves it stays, and can be destroyed. */
static void automatic_one_in_use(void **state)
{
	struct rig *r = *state;
	struct mock m = mock_add(r, r->ioas, 0);
	uint32_t other = ioas_new(r->ctx);
	struct obj *used;

	assert_rc(obj_get(r->ctx, m.hwpt, OBJ_HWPT_PAGING, "", NULL, &used), 0);
	assert_rc(replace(r, &m, other), 0);
	assert_rc(rm(r, m.hwpt), -EBUSY);
	assert_rc(rm(r, r->ioas), -EBUSY);
	obj_put(used);
	/* It is there, and as good as any. */
	assert_rc(replace(r, &m, m.hwpt), 0);
	assert_rc(rm(r, m.hwpt), -EBUSY);
	assert_rc(obj_get(r->ctx, m.hwpt, OBJ_HWPT_PAGING, "", NULL, &used), 0);
	assert_rc(replace(r, &m, other), 0);
	obj_put(used);
	assert_rc(rm(r, m.hwpt), 0);
	assert_rc(rm(r, r->ioas), 0);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(destroyed_once),	  T(made_once),	      T(devices_on_the_move),
		T(tables_beside_changes), T(unbinding_waits), T(automatic_one_in_use),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
