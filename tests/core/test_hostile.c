// SPDX-License-Identifier: MIT
/*
 * What users and drivers can do wrong (spec devices.md 8): odd answers of drivers, look-ups at the wrong moment, objects
 * destroyed in any order, tombstones without end, no memory and no IDs, and structs that must be read once only.
 */
#include "nest_rig.h"

#include "core/ctx.h"

#define NEST IOMMU_HWPT_ALLOC_NEST_PARENT
#define TYPE 7u

/* ---- a driver that does as it is told ---------------------------------------------------------------- */

enum made { FINE, NOTHING, THE_PARENT, NOT_NESTED, WITHOUT_OPS, REFUSED };

static struct {
	enum made nested;
	size_t viommu_size, queue_size;
	bool no_viommu_ops;
	int viommu_rc, vdevice_rc;
	/* What the init of a HW queue depends on, and what that said. */
	struct iommufd_hw_queue *on, *last;
	bool on_itself;
	int depend_rc;
	/* What look-ups by the guest's number found in the init and destroy of a vDEVICE. */
	const void *in_init, *in_destroy;
	unsigned int freed;
} odd;

static void odd_free(struct iommu_domain *domain)
{
	odd.freed++;
	free(domain);
}

static const struct iommu_domain_ops odd_ops = {.free = odd_free};
static struct iommu_domain odd_blocked = {.type = IOMMU_DOMAIN_BLOCKED, .ops = &odd_ops};

static struct iommu_domain *make_nested(struct iommu_domain *parent)
{
	static struct iommu_domain bare = {.type = IOMMU_DOMAIN_NESTED};
	struct iommu_domain *domain;

	if (odd.nested == NOTHING)
		return NULL;
	if (odd.nested == THE_PARENT)
		return parent;
	if (odd.nested == NOT_NESTED)
		return &odd_blocked;
	if (odd.nested == WITHOUT_OPS)
		return &bare;
	if (odd.nested == REFUSED)
		return ERR_PTR(-EDOM);
	domain = calloc(1, sizeof(*domain));
	domain->type = IOMMU_DOMAIN_NESTED;
	domain->ops = &odd_ops;
	return domain;
}

static struct iommu_domain *nested_on_hwpt(struct device *dev, struct iommu_domain *parent,
					   uint32_t flags, const struct iommu_user_data *data)
{
	(void)dev;
	(void)flags;
	(void)data;
	return make_nested(parent);
}

static struct iommu_domain *viommu_parent;

static struct iommu_domain *nested_on_viommu(struct iommufd_viommu *viommu, uint32_t flags,
					     const struct iommu_user_data *data)
{
	(void)viommu;
	(void)flags;
	(void)data;
	return make_nested(viommu_parent);
}

static const void *found(struct iommufd_vdevice *vdev)
{
	const void *dev;

	iommufd_viommu_lock_vdevs(vdev->viommu);
	dev = iommufd_viommu_find_dev(vdev->viommu, vdev->virt_id);
	iommufd_viommu_unlock_vdevs(vdev->viommu);
	return dev;
}

static void vdevice_destroy(struct iommufd_vdevice *vdev)
{
	odd.in_destroy = found(vdev);
}

static int vdevice_init(struct iommufd_vdevice *vdev)
{
	odd.in_init = found(vdev);
	vdev->destroy = vdevice_destroy;
	return odd.vdevice_rc;
}

static size_t queue_size(struct iommufd_viommu *viommu, uint32_t type)
{
	(void)viommu;
	return type == TYPE || type == TYPE + 1 ? odd.queue_size : 0;
}

struct odd_queue {
	struct iommufd_hw_queue core;
	struct iommufd_hw_queue *on;
};

static void queue_destroy(struct iommufd_hw_queue *queue)
{
	struct odd_queue *q = container_of(queue, struct odd_queue, core);

	if (q->on)
		iommufd_hw_queue_undepend(queue, q->on);
}

static int queue_init(struct iommufd_hw_queue *queue, uint32_t index, uint64_t base_pa)
{
	struct odd_queue *q = container_of(queue, struct odd_queue, core);
	struct iommufd_hw_queue *on = odd.on_itself ? queue : odd.on;

	(void)index;
	(void)base_pa;
	odd.depend_rc = on ? iommufd_hw_queue_depend(queue, on) : 0;
	if (odd.depend_rc)
		return odd.depend_rc;
	q->on = on;
	queue->destroy = queue_destroy;
	odd.last = queue;
	return 0;
}

static struct iommufd_viommu_ops viommu_ops = {.alloc_domain_nested = nested_on_viommu,
					       .get_hw_queue_size = queue_size};

static size_t viommu_size(struct device *dev, uint32_t type)
{
	(void)dev;
	return type == TYPE ? odd.viommu_size : 0;
}

static int viommu_init(struct iommufd_viommu *viommu, struct iommu_domain *parent,
		       const struct iommu_user_data *data)
{
	(void)data;
	viommu_parent = parent;
	viommu->ops = odd.no_viommu_ops ? NULL : &viommu_ops;
	return odd.viommu_rc;
}

static const struct iommu_driver odd_driver = {.name = "odd",
					       .pgsize_bitmap = PAGE,
					       .aperture_last = (1ull << 40) - 1,
					       .hwpt_flags = NEST | IOMMU_HWPT_ALLOC_PASID,
					       .domain_alloc_nested = nested_on_hwpt,
					       .get_viommu_size = viommu_size,
					       .viommu_init = viommu_init};

/* A device behind it, bound, and a nesting parent. */
struct guest {
	struct iommu_group group;
	struct device dev;
	struct iommufd_device *idev;
	uint32_t id, parent;
};

static void guest_init(struct rig *r, struct guest *g)
{
	memset(&odd, 0, sizeof(odd));
	odd.viommu_size = sizeof(struct iommufd_viommu);
	odd.queue_size = sizeof(struct odd_queue);
	viommu_ops.vdevice_size = sizeof(struct iommufd_vdevice);
	viommu_ops.vdevice_init = vdevice_init;
	viommu_ops.hw_queue_init_phys = queue_init;
	memset(g, 0, sizeof(*g));
	assert_rc(iommu_group_init(&g->group, 3), 0);
	g->dev = (struct device){
		.name = "odd", .group = &g->group, .iommu = &odd_driver, .max_pasids = 8};
	g->idev = iommufd_device_bind(r->ctx, &g->dev, &g->id);
	assert_false(IS_ERR(g->idev));
	g->parent = hwpt_new(r, g->id, NEST, 0);
}

static void guest_fini(struct rig *r, struct guest *g)
{
	assert_rc(rm(r, g->parent), 0);
	iommufd_device_unbind(g->idev);
	iommu_group_fini(&g->group);
}

static long viommu(struct rig *r, struct guest *g, uint32_t type, uint32_t *id)
{
	struct iommu_viommu_alloc cmd = {
		.size = sizeof(cmd), .type = type, .dev_id = g->id, .hwpt_id = g->parent};
	long rc = ioc(r, IOMMU_VIOMMU_ALLOC, &cmd);

	*id = cmd.out_viommu_id;
	return rc;
}

static long vdevice(struct rig *r, uint32_t viommu, uint32_t dev, uint64_t virt_id, uint32_t *out)
{
	struct iommu_vdevice_alloc cmd = {
		.size = sizeof(cmd), .viommu_id = viommu, .dev_id = dev, .virt_id = virt_id};
	long rc = ioc(r, IOMMU_VDEVICE_ALLOC, &cmd);

	*out = cmd.out_vdevice_id;
	return rc;
}

static long hw_queue(struct rig *r, uint32_t viommu, uint32_t type, uint32_t index, uint32_t *out)
{
	struct iommu_hw_queue_alloc cmd = {.size = sizeof(cmd),
					   .viommu_id = viommu,
					   .type = type,
					   .index = index,
					   .nesting_parent_iova = BASE,
					   .length = PAGE};
	long rc = ioc(r, IOMMU_HW_QUEUE_ALLOC, &cmd);

	*out = cmd.out_hw_queue_id;
	return rc;
}

static uint32_t next_id(struct rig *r)
{
	uint32_t id = ioas_new(r->ctx);

	assert_rc(rm(r, id), 0);
	return id;
}

/* ---- odd answers (43, 13, 35) ----------------------------------------------------------------------- */

static void odd_domains(void **state)
{
	static const long rcs[] = {0, -EOPNOTSUPP, -EOPNOTSUPP, -EOPNOTSUPP, -EOPNOTSUPP, -EDOM};
	struct rig *r = *state;
	uint32_t vi, id, next, on[2], pt;
	struct guest g;
	char data[4];

	guest_init(r, &g);
	assert_rc(viommu(r, &g, TYPE, &vi), 0);
	on[0] = g.parent;
	on[1] = vi;
	next = next_id(r);
	for (int i = 0; i < 2; i++)
		for (odd.nested = FINE; odd.nested <= REFUSED; odd.nested++) {
			assert_rc(hwpt_alloc(r, g.id, on[i], 0, 0, 1, data, 4, &id),
				  rcs[odd.nested]);
			if (!rcs[odd.nested])
				assert_rc(rm(r, id), 0);
			assert_int_equal(next_id(r), next);
		}
	assert_int_equal(odd.freed, 2);
	/* The parent is what it was. */
	pt = g.parent;
	assert_rc(iommufd_device_attach(g.idev, 0, &pt), 0);
	iommufd_device_detach(g.idev, 0);
	/* No ops, no PASIDs. */
	assert_rc(hwpt_alloc(r, g.id, r->ioas, IOMMU_HWPT_ALLOC_PASID, 0, 0, NULL, 0, &pt), 0);
	assert_rc(iommufd_device_attach(g.idev, 1, &pt), -EOPNOTSUPP);
	assert_rc(rm(r, pt), 0);
	assert_rc(rm(r, vi), 0);
	guest_fini(r, &g);
}

static void odd_viommus(void **state)
{
	struct rig *r = *state;
	uint32_t vi, id, next = 0;
	struct guest g;
	char *mem = memory(1);

	guest_init(r, &g);
	next = next_id(r);
	assert_rc(viommu(r, &g, TYPE + 1, &vi), -EOPNOTSUPP);
	odd.viommu_size--;
	assert_rc(viommu(r, &g, TYPE, &vi), -EOPNOTSUPP);
	odd.viommu_size++;
	odd.no_viommu_ops = true;
	assert_rc(viommu(r, &g, TYPE, &vi), -EOPNOTSUPP);
	odd.viommu_rc = -EDOM;
	assert_rc(viommu(r, &g, TYPE, &vi), -EDOM);
	assert_int_equal(next_id(r), next);
	odd.no_viommu_ops = false;
	odd.viommu_rc = 0;
	assert_rc(viommu(r, &g, TYPE, &vi), 0);

	next = next_id(r);
	viommu_ops.vdevice_size--;
	assert_rc(vdevice(r, vi, g.id, 5, &id), -EOPNOTSUPP);
	viommu_ops.vdevice_size++;
	viommu_ops.vdevice_init = NULL;
	assert_rc(vdevice(r, vi, g.id, 5, &id), -EOPNOTSUPP);
	viommu_ops.vdevice_init = vdevice_init;
	odd.vdevice_rc = -EDOM;
	odd.in_destroy = &odd;
	assert_rc(vdevice(r, vi, g.id, 5, &id), -EDOM);
	assert_ptr_equal(odd.in_destroy, &odd); /* not made, so not ended */
	odd.vdevice_rc = 0;
	assert_int_equal(next_id(r), next);

	assert_rc(map(r->ctx, r->ioas, RW, BASE, mem, PAGE), 0);
	assert_rc(hw_queue(r, vi, TYPE + 2, 0, &id), -EOPNOTSUPP);
	odd.queue_size = sizeof(struct iommufd_hw_queue) - 1;
	assert_rc(hw_queue(r, vi, TYPE, 0, &id), -EOPNOTSUPP);
	odd.queue_size = sizeof(struct odd_queue);
	viommu_ops.hw_queue_init_phys = NULL;
	assert_rc(hw_queue(r, vi, TYPE, 0, &id), -EOPNOTSUPP);
	assert_int_equal(next_id(r), next);
	assert_rc(unmap(r->ctx, r->ioas, BASE, PAGE), 0);
	assert_rc(rm(r, vi), 0);
	guest_fini(r, &g);
	munmap(mem, PAGE);
}

/* The guest's number leads to the device from the end of the init to the beginning of the destroy. */
static void looked_up_at_any_time(void **state)
{
	struct rig *r = *state;
	struct guest g;
	uint32_t vi, id;

	guest_init(r, &g);
	assert_rc(viommu(r, &g, TYPE, &vi), 0);
	odd.in_init = odd.in_destroy = &odd;
	assert_rc(vdevice(r, vi, g.id, 5, &id), 0);
	assert_null(odd.in_init);
	assert_rc(rm(r, id), 0);
	assert_null(odd.in_destroy);
	assert_rc(rm(r, vi), 0);
	guest_fini(r, &g);
}

static void odd_dependencies(void **state)
{
	struct rig *r = *state;
	struct iommufd_hw_queue *first;
	uint32_t vi[2], q[3], id;
	char *mem = memory(1);
	struct guest g;

	guest_init(r, &g);
	for (int i = 0; i < 2; i++)
		assert_rc(viommu(r, &g, TYPE, &vi[i]), 0);
	assert_rc(map(r->ctx, r->ioas, RW, BASE, mem, PAGE), 0);
	odd.on_itself = true;
	assert_rc(hw_queue(r, vi[0], TYPE, 0, &id), -EINVAL);
	odd.on_itself = false;
	assert_rc(hw_queue(r, vi[0], TYPE, 0, &q[0]), 0);
	odd.on = first = odd.last;
	assert_rc(hw_queue(r, vi[1], TYPE, 0, &id), -EINVAL);
	assert_rc(hw_queue(r, vi[0], TYPE + 1, 0, &id), -EINVAL);
	assert_rc(hw_queue(r, vi[0], TYPE, 1, &q[1]), 0);
	odd.on = odd.last;
	assert_rc(hw_queue(r, vi[0], TYPE, 2, &q[2]), 0);
	/* In the order of their making they cannot go. */
	for (int i = 0; i < 2; i++)
		assert_rc(rm(r, q[i]), -EBUSY);
	assert_rc(rm(r, vi[0]), -EBUSY);
	assert_rc(unmap(r->ctx, r->ioas, BASE, PAGE), -EBUSY);
	for (int i = 3; i--;)
		assert_rc(rm(r, q[i]), 0);
	for (int i = 0; i < 2; i++)
		assert_rc(rm(r, vi[i]), 0);
	assert_rc(unmap(r->ctx, r->ioas, BASE, PAGE), 0);
	guest_fini(r, &g);
	munmap(mem, PAGE);
}

/* ---- all orders (33), no end (14) ------------------------------------------------------------------- */

/* A mock device, a vIOMMU with one of everything on it, and one thing more that needs its parent. */
enum { NESTED, VDEVICE, EVENTS, QUEUE, NR_THINGS };

struct scene {
	struct mock m;
	uint32_t parent, viommu, id[NR_THINGS];
	int fd;
};

static void scene_init(struct rig *r, struct scene *s)
{
	struct iommu_viommu_alloc vi = {.size = sizeof(vi), .type = MOCK_VIOMMU_TYPE};
	struct iommu_veventq_alloc ev = {
		.size = sizeof(ev), .type = MOCK_VEVENT_TYPE, .veventq_depth = 2};

	s->m = mock_add(r, r->ioas, 0);
	s->parent = hwpt_new(r, s->m.idev, NEST, 0);
	vi.dev_id = s->m.idev;
	vi.hwpt_id = s->parent;
	assert_rc(ioc(r, IOMMU_VIOMMU_ALLOC, &vi), 0);
	ev.viommu_id = s->viommu = vi.out_viommu_id;
	s->id[NESTED] = nested_new(r, s->m.idev, s->viommu, 0, 0);
	assert_rc(vdevice(r, s->viommu, s->m.idev, 5, &s->id[VDEVICE]), 0);
	assert_rc(ioc(r, IOMMU_VEVENTQ_ALLOC, &ev), 0);
	s->id[EVENTS] = ev.out_veventq_id;
	s->fd = (int)ev.out_veventq_fd;
	assert_rc(hw_queue(r, s->viommu, MOCK_HW_QUEUE_TYPE, 0, &s->id[QUEUE]), 0);
}

static void destroyed_in_any_order(void **state)
{
	struct rig *r = *state;
	char *mem = memory(1);
	uint32_t next;

	assert_rc(map(r->ctx, r->ioas, RW, BASE, mem, PAGE), 0);
	next = next_id(r);
	for (int order = 0; order < 24; order++) {
		int left[NR_THINGS] = {0, 1, 2, 3}, code = order;
		struct scene s;

		scene_init(r, &s);
		for (int n = NR_THINGS; n; n--) {
			int pick = code % n, thing = left[pick];

			code /= n;
			left[pick] = left[n - 1];
			assert_rc(rm(r, s.viommu), -EBUSY);
			assert_rc(rm(r, s.parent), -EBUSY);
			if (thing == EVENTS) {
				assert_rc(rm(r, s.id[EVENTS]), -EBUSY);
				close_fd(r, s.fd);
			}
			assert_rc(rm(r, s.id[thing]), 0);
		}
		assert_rc(rm(r, s.parent), -EBUSY);
		assert_rc(rm(r, s.viommu), 0);
		assert_rc(rm(r, s.parent), 0);
		assert_rc(rm(r, s.m.stdev), 0);
		assert_int_equal(next_id(r), next);
	}
	assert_rc(unmap(r->ctx, r->ioas, BASE, PAGE), 0);
	munmap(mem, PAGE);
}

#define CYCLES 3000

/* A device that is unbound under its vDEVICE costs an ID, nothing else. */
static void tombstones(void **state)
{
	struct rig *r = *state;
	uint32_t used, vi, parent, id;
	struct guest g;

	guest_init(r, &g);
	assert_rc(viommu(r, &g, TYPE, &vi), 0);
	parent = g.parent;
	used = r->ctx->table.used;
	for (uint32_t n = 1; n <= CYCLES; n++) {
		assert_rc(vdevice(r, vi, g.id, UINT64_MAX, &id), 0);
		iommufd_device_unbind(g.idev);
		assert_rc(rm(r, id), -ENOENT);
		g.idev = iommufd_device_bind(r->ctx, &g.dev, &g.id);
		assert_false(IS_ERR(g.idev));
		assert_int_equal(r->ctx->table.used, used + n);
		assert_int_equal(g.group.owner_count, 1);
	}
	g.parent = parent;
	assert_rc(rm(r, vi), 0);
	guest_fini(r, &g);
}

/* ---- limits in any order (46) ------------------------------------------------------------------------- */

#define KINDS 3
#define AREAS 6

/* What narrows an IOAS: kinds of page tables, an access that pins. What is mapped meets all that is there at any time. */
static const struct iommu_driver narrow[KINDS] = {
	{.name = "fine", .pgsize_bitmap = 2048, .aperture_last = (1ull << 40) - 1},
	{.name = "plain", .pgsize_bitmap = PAGE, .aperture_last = (1ull << 40) - 1},
	{.name = "high",
	 .pgsize_bitmap = PAGE,
	 .aperture_first = 1u << 20,
	 .aperture_last = UINT32_MAX},
};

static void forget(void *data, unsigned long iova, unsigned long length)
{
	(void)data;
	(void)iova;
	(void)length;
}

static const struct iommufd_access_ops pinning = {.needs_pin_pages = 1, .unmap = forget};

struct limits {
	struct iommu_group group[KINDS];
	struct device dev[KINDS];
	struct iommufd_device *idev[KINDS];
	bool attached[KINDS];
	struct iommufd_access *access;
	bool pins;
	struct {
		uint64_t iova, va, length; /* length 0: none */
	} area[AREAS];
	uint64_t seed;
	unsigned int done[4], refused[4];
};

static uint32_t any(struct limits *l, uint32_t n)
{
	l->seed = l->seed * 6364136223846793005 + 1442695040888963407;
	return (uint32_t)(l->seed >> 33) % n;
}

static void check_limits(struct rig *r, struct limits *l)
{
	uint64_t align, first = 0, last = UINT64_MAX, least = 1;

	first_range(r->ctx, r->ioas, &align);
	for (int i = 0; i < KINDS; i++)
		if (l->attached[i]) {
			uint64_t pages = narrow[i].pgsize_bitmap;

			first = first > narrow[i].aperture_first ? first : narrow[i].aperture_first;
			last = last < narrow[i].aperture_last ? last : narrow[i].aperture_last;
			least = least > pages ? least : pages;
		}
	if (l->pins)
		least = PAGE;
	assert_int_equal(align, least);
	for (int i = 0; i < AREAS; i++) {
		if (!l->area[i].length)
			continue;
		assert_int_equal((l->area[i].iova | l->area[i].va | l->area[i].length) % align, 0);
		assert_true(l->area[i].iova >= first &&
			    l->area[i].iova + l->area[i].length - 1 <= last);
	}
}

static long change_area(struct rig *r, struct limits *l, char *mem)
{
	static const uint64_t units[] = {512, 2048, PAGE};
	uint64_t unit = units[any(l, 16) ? 2 : any(l, 3)];
	int i = any(l, AREAS);
	struct iommu_ioas_map cmd = {.size = sizeof(cmd), .flags = 7, .ioas_id = r->ioas};
	long rc;

	if (l->area[i].length) {
		assert_rc(unmap(r->ctx, r->ioas, l->area[i].iova, l->area[i].length), 0);
		l->area[i].length = 0;
		return 0;
	}
	cmd.user_va = (uintptr_t)mem + any(l, 4) * unit;
	cmd.length = (1 + any(l, 4)) * unit;
	cmd.iova =
		(any(l, 16) ? 2 + any(l, 4) : 1) * (1ull << 19) + i * 0x10000ull + any(l, 4) * unit;
	if (any(l, 2))
		cmd.flags &= ~IOMMU_IOAS_MAP_FIXED_IOVA;
	rc = ioc(r, IOMMU_IOAS_MAP, &cmd);
	if (!rc) {
		l->area[i].iova = cmd.iova;
		l->area[i].va = cmd.user_va;
		l->area[i].length = cmd.length;
	}
	return rc;
}

static long change_device(struct rig *r, struct limits *l)
{
	int i = any(l, KINDS);
	uint32_t pt = r->ioas;
	long rc = 0;

	if (l->attached[i])
		iommufd_device_detach(l->idev[i], 0);
	else
		rc = iommufd_device_attach(l->idev[i], 0, &pt);
	if (!rc)
		l->attached[i] = !l->attached[i];
	return rc;
}

static long change_access(struct rig *r, struct limits *l)
{
	long rc = 0;

	if (l->pins)
		iommufd_access_detach(l->access);
	else
		rc = iommufd_access_attach(l->access, r->ioas);
	if (!rc)
		l->pins = !l->pins;
	return rc;
}

static long change_allowed(struct rig *r, struct limits *l)
{
	struct iommu_iova_range range = {any(l, 4) << 18, (1u << 21) + any(l, 4) * 0x100000u};
	struct iommu_ioas_allow_iovas cmd = {.size = sizeof(cmd),
					     .ioas_id = r->ioas,
					     .num_iovas = any(l, 2),
					     .allowed_iovas = (uintptr_t)&range};

	return ioc(r, IOMMU_IOAS_ALLOW_IOVAS, &cmd);
}

static void any_order_of_limits(void **state)
{
	struct rig *r = *state;
	struct limits *l = calloc(1, sizeof(*l));
	char *mem = memory(16);
	uint32_t id;

	l->seed = 4;
	for (int i = 0; i < KINDS; i++) {
		assert_rc(iommu_group_init(&l->group[i], i), 0);
		l->dev[i] = (struct device){
			.name = narrow[i].name, .group = &l->group[i], .iommu = &narrow[i]};
		l->idev[i] = iommufd_device_bind(r->ctx, &l->dev[i], &id);
		assert_false(IS_ERR(l->idev[i]));
	}
	l->access = iommufd_access_create(r->ctx, &pinning, l, &id);
	assert_false(IS_ERR(l->access));
	for (int i = 0; i < 20000; i++) {
		uint32_t what = any(l, 16);
		long rc;

		what = what > 2 ? 3 : what;
		rc = what == 0	 ? change_device(r, l)
		     : what == 1 ? change_access(r, l)
		     : what == 2 ? change_allowed(r, l)
				 : change_area(r, l, mem);
		l->done[what] += !rc;
		l->refused[what] += rc != 0;
		check_limits(r, l);
	}
	for (int i = 0; i < 4; i++)
		assert_true(l->done[i] > 20 && l->refused[i] > 10);
	iommufd_access_destroy(l->access);
	for (int i = 0; i < KINDS; i++) {
		iommufd_device_detach(l->idev[i], 0);
		iommufd_device_unbind(l->idev[i]);
		iommu_group_fini(&l->group[i]);
	}
	munmap(mem, 16 * PAGE);
	free(l);
}

/* ---- nothing left (40) -------------------------------------------------------------------------------- */

static void no_ids(void **state)
{
	struct rig *r = *state;
	struct obj_table *t = &r->ctx->table;
	uint32_t lowest = t->lowest_free, id, vi;
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct guest g;

	guest_init(r, &g);
	assert_rc(viommu(r, &g, TYPE, &vi), 0);
	lowest = t->lowest_free;
	/* As if all others were taken. */
	t->lowest_free = 0x80000000u;
	assert_rc(ioc(r, IOMMU_IOAS_ALLOC, &alloc), -EBUSY);
	assert_rc(hwpt_alloc(r, g.id, r->ioas, 0, 0, 0, NULL, 0, &id), -EBUSY);
	assert_rc(vdevice(r, vi, g.id, 5, &id), -EBUSY);
	assert_rc(iommufd_device_attach(g.idev, 0, &(uint32_t){r->ioas}), -EBUSY);
	assert_rc(PTR_ERR(iommufd_device_bind(r->ctx, &g.dev, &id)), -EBUSY);
	assert_int_equal(g.group.owner_count, 1);
	t->lowest_free = lowest;
	assert_rc(vdevice(r, vi, g.id, 5, &id), 0);
	assert_int_equal(id, lowest);
	assert_rc(rm(r, id), 0);
	assert_rc(rm(r, vi), 0);
	guest_fini(r, &g);
}

static long make_thing(struct rig *r, struct scene *s, int what, uint32_t *id, int *fd)
{
	struct mock_viommu_data region = {0};
	struct iommu_viommu_alloc vi = {.size = sizeof(vi),
					.type = MOCK_VIOMMU_TYPE,
					.dev_id = s->m.idev,
					.hwpt_id = s->parent,
					.data_len = sizeof(region),
					.data_uptr = (uintptr_t)&region};
	struct iommu_veventq_alloc ev = {.size = sizeof(ev),
					 .viommu_id = s->viommu,
					 .type = MOCK_VEVENT_TYPE + 1,
					 .veventq_depth = 2};
	struct mock_hwpt_data data = {0};
	long rc;

	*fd = -1;
	switch (what) {
	case 0:
		rc = ioc(r, IOMMU_VIOMMU_ALLOC, &vi);
		*id = vi.out_viommu_id;
		return rc;
	case 1:
		rc = ioc(r, IOMMU_VEVENTQ_ALLOC, &ev);
		*id = ev.out_veventq_id;
		*fd = rc ? -1 : (int)ev.out_veventq_fd;
		return rc;
	case 2:
		return hwpt_alloc(r, s->m.idev, s->viommu, 0, 0, MOCK_HWPT_DATA_TYPE, &data,
				  sizeof(data), id);
	case 3:
		return hwpt_alloc(r, s->m.idev, s->parent, 0, 0, MOCK_HWPT_DATA_TYPE, &data,
				  sizeof(data), id);
	case 4:
		return hw_queue(r, s->viommu, MOCK_HW_QUEUE_TYPE, 1, id);
	case 5:
		return fault_alloc(r, id, fd);
	case 6:
		return vdevice(r, s->viommu, s->m.idev, 6, id);
	default:
		return -ENOTTY;
	}
}

/* Whatever fails: the IDs are those that were, and then it works. */
static void no_memory(void **state)
{
	struct rig *r = *state;
	char *mem = memory(1);
	struct scene s;
	uint32_t id;
	int fd;

	assert_rc(map(r->ctx, r->ioas, RW, BASE, mem, PAGE), 0);
	scene_init(r, &s);
	assert_rc(rm(r, s.id[VDEVICE]), 0);
	for (int what = 0; what < 7; what++) {
		uint32_t used = r->ctx->table.used, next = next_id(r);
		unsigned int nth, left = 0;

		for (nth = 1; !left; nth++) {
			long rc;

			swi_alloc_fail_nth(nth);
			rc = make_thing(r, &s, what, &id, &fd);
			left = swi_alloc_fail_nth(0);
			if (!rc && !left)
				left = 1; /* it failed unnoticed */
			if (rc) {
				assert_true(rc == -ENOMEM || rc == -EFAULT || rc == -ENOENT ||
					    rc == -EINVAL);
				assert_int_equal(r->ctx->table.used, used);
				assert_int_equal(next_id(r), next);
				left = 0;
			}
		}
		assert_true(nth > 3);
		if (fd >= 0)
			close_fd(r, fd);
		assert_rc(rm(r, id), 0);
		assert_int_equal(r->ctx->table.used, used);
	}
	close_fd(r, s.fd);
	assert_rc(rm(r, s.id[QUEUE]), 0);
	assert_rc(unmap(r->ctx, r->ioas, BASE, PAGE), 0);
	munmap(mem, PAGE);
}

/* ---- read once (19, 20, 45) --------------------------------------------------------------------------- */

/* A caller whose memory is spoilt as soon as it has been read: who reads it again does not get what was there. */
struct spoiler {
	struct rig mine;
	struct swiommu_caller_ops ops;
	uint64_t structs; /* whose first four bytes are read by themselves before */
	unsigned int reads;
};

static int copy_in_and_spoil(struct swiommu_caller *c, void *dst, uint64_t uptr, size_t len)
{
	struct spoiler *s = container_of(c, struct spoiler, mine.caller);
	struct swiommu_caller plain;
	int rc;

	swiommu_caller_local(&plain);
	rc = plain.ops->copy_in(&plain, dst, uptr, len);
	if (!rc && !(uptr == s->structs && len == 4))
		memset((void *)(uintptr_t)uptr, 0xff, len);
	s->reads++;
	return rc;
}

static long spoilt(struct spoiler *s, unsigned int cmd, void *arg)
{
	s->structs = (uintptr_t)arg;
	return ioc(&s->mine, cmd, arg);
}

static void structs_are_read_once(void **state)
{
	struct rig *r = *state;
	struct spoiler s = {.mine = {.abi = r->abi, .files = r->files, .ctx = r->ctx}};
	struct iommu_iova_range ranges[2] = {{0, 1ull << 40}, {1ull << 41, UINT64_MAX}};
	struct mock_viommu_invalidate invs[3] = {{0, 5, 0}, {0, 5, 1}, {0, 5, 3}};
	struct mock_hwpt_data data = {.iotlb = 77};
	struct mock_viommu_data region = {.in_data = 0xbeef};
	uint32_t other = ioas_new(r->ctx), bitmap = 0, id;
	char *mem = memory(1);
	struct scene sc;

	swiommu_caller_local(&s.mine.caller);
	s.mine.caller.files = r->files;
	s.ops = *s.mine.caller.ops;
	s.ops.copy_in = copy_in_and_spoil;
	s.mine.caller.ops = &s.ops;
	assert_rc(spoilt(&s, IOMMU_IOAS_ALLOW_IOVAS,
			 &(struct iommu_ioas_allow_iovas){sizeof(struct iommu_ioas_allow_iovas),
							  other, 2, 0, (uintptr_t)ranges}),
		  0);
	assert_rc(spoilt(&s, IOMMU_IOAS_MAP,
			 &(struct iommu_ioas_map){sizeof(struct iommu_ioas_map), 7, r->ioas, 0,
						  (uintptr_t)mem, PAGE, BASE}),
		  0);
	assert_rc(spoilt(&s, IOMMU_IOAS_COPY,
			 &(struct iommu_ioas_copy){sizeof(struct iommu_ioas_copy), 7, other,
						   r->ioas, PAGE, BASE, BASE}),
		  0);
	scene_init(r, &sc);
	assert_rc(spoilt(&s, IOMMU_HWPT_ALLOC,
			 &(struct iommu_hwpt_alloc){.size = sizeof(struct iommu_hwpt_alloc),
						    .dev_id = sc.m.idev,
						    .pt_id = sc.parent,
						    .data_type = MOCK_HWPT_DATA_TYPE,
						    .data_len = sizeof(data),
						    .data_uptr = (uintptr_t)&data}),
		  0);
	assert_rc(spoilt(&s, IOMMU_VIOMMU_ALLOC,
			 &(struct iommu_viommu_alloc){.size = sizeof(struct iommu_viommu_alloc),
						      .type = MOCK_VIOMMU_TYPE,
						      .dev_id = sc.m.idev,
						      .hwpt_id = sc.parent,
						      .data_len = sizeof(region),
						      .data_uptr = (uintptr_t)&region}),
		  0);
	assert_int_equal(region.out_data, 0xbeef);
	assert_rc(
		spoilt(&s, IOMMU_HWPT_INVALIDATE,
		       &(struct iommu_hwpt_invalidate){.size = sizeof(struct iommu_hwpt_invalidate),
						       .hwpt_id = sc.viommu,
						       .data_uptr = (uintptr_t)invs,
						       .data_type = MOCK_VIOMMU_INVALIDATE_TYPE,
						       .entry_len = sizeof(invs[0]),
						       .entry_num = 3}),
		0);
	for (uint32_t i = 0; i < MOCK_NR_CACHES; i++) {
		struct iommu_test_cmd check = {
			.op = IOMMU_TEST_OP_DEV_CHECK_CACHE,
			.id = sc.m.idev,
			.check_dev_cache = {.id = i, .cache = i == 2 ? MOCK_CACHE_DEFAULT : 0}};

		assert_rc(op(r, &check), 0);
	}
	assert_rc(spoilt(&s, IOMMU_HWPT_GET_DIRTY_BITMAP,
			 &(struct iommu_hwpt_get_dirty_bitmap){
				 .size = sizeof(struct iommu_hwpt_get_dirty_bitmap),
				 .hwpt_id =
					 hwpt_new(r, sc.m.idev, IOMMU_HWPT_ALLOC_DIRTY_TRACKING, 0),
				 .iova = BASE,
				 .length = PAGE,
				 .page_size = PAGE,
				 .data = (uintptr_t)&bitmap}),
		  0);
	assert_rc(spoilt(&s, IOMMU_IOAS_UNMAP,
			 &(struct iommu_ioas_unmap){sizeof(struct iommu_ioas_unmap), other, BASE,
						    PAGE}),
		  0);
	/* A struct longer than those known, whose tail is looked at. */
	{
		struct {
			struct iommu_ioas_alloc alloc;
			char tail[700];
		} longer = {.alloc = {.size = sizeof(longer)}};

		assert_rc(spoilt(&s, IOMMU_IOAS_ALLOC, &longer), 0);
		id = longer.alloc.out_ioas_id;
	}
	assert_rc(rm(r, id), 0);
	assert_true(s.reads > 20);
	close_fd(r, sc.fd);
	munmap(mem, PAGE);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(odd_domains),
		T(odd_viommus),
		T(looked_up_at_any_time),
		T(odd_dependencies),
		T(destroyed_in_any_order),
		T(tombstones),
		T(no_ids),
		T(no_memory),
		T(structs_are_read_once),
		T(any_order_of_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
