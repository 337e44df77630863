// SPDX-License-Identifier: MIT
/* Accesses: their life, the IOASes they are attached to, and what unmapping asks of them. */
#include "access_rig.h"

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig_open(rig);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	rig_close(*state);
	free(*state);
	return 0;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void an_access_takes_an_id_that_only_its_driver_can_free(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig);
	struct drv drv;

	drv_open(rig, &drv, ioas);
	assert_int_equal(drv.id, ioas + 1);
	assert_int_equal(destroy_id(rig, drv.id), -EBUSY);
	assert_int_equal(destroy_id(rig, ioas), -EBUSY);
	drv_close(&drv);
	assert_int_equal(drv.calls, 1);
	assert_true(drv.last_iova == 0 && drv.last_length == ULONG_MAX);
	assert_int_equal(destroy_id(rig, drv.id), -ENOENT);
	assert_int_equal(destroy_id(rig, ioas), 0);
}

static void an_access_keeps_its_context(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig);
	struct iommufd_access *access;
	char c = 0;

	assert_int_equal(map_at(rig, ioas, 0x1000, rig->mem, PAGE, R | W), 0);
	access = plain_open(rig, ioas);
	swiommu_close(rig->ctx);
	rig->mem[5] = 'x';
	assert_int_equal(iommufd_access_rw(access, 0x1005, &c, 1, IOMMUFD_ACCESS_RW_READ), 0);
	assert_int_equal(c, 'x');
	iommufd_access_destroy(access);
	assert_int_equal(swiommu_open(NULL, &rig->ctx), 0); /* for the teardown */
}

static void without_ops_there_is_no_access(void **state)
{
	struct rig *rig = *state;
	uint32_t id;

	assert_int_equal(PTR_ERR(iommufd_access_create(rig->ctx, NULL, NULL, &id)), -EINVAL);
	assert_int_equal(ioas_new(rig), 1);
}

static void descriptors_are_no_contexts(void **state)
{
	(void)state;
	assert_int_equal(PTR_ERR(iommufd_ctx_from_fd(-1)), -EBADF);
	assert_int_equal(PTR_ERR(iommufd_ctx_from_fd(0x7fffff)), -EBADF);
	assert_int_equal(PTR_ERR(iommufd_ctx_from_fd(STDERR_FILENO)), -EBADFD);
}

/* ---- attach and its relatives, by state ------------------------------------------------------ */

enum op { ATTACH, REPLACE };
enum target { SAME, OTHER, COARSE_OK, MISALIGNED, NOTHING, NOT_AN_IOAS };

/* From a detached or attached access, one call; what it answers and where the access is then. */
static const struct {
	const char *name;
	bool pins, attached;
	enum op op;
	enum target target;
	int rc;
	bool moves;
	unsigned int calls; /* of the callback */
} moves[] = {
	{"attach", true, false, ATTACH, OTHER, 0, true, 0},
	{"attach twice", true, true, ATTACH, SAME, -EINVAL, false, 0},
	{"attach elsewhere while attached", true, true, ATTACH, OTHER, -EINVAL, false, 0},
	{"attach to a bad ID while attached", true, true, ATTACH, NOTHING, -EINVAL, false, 0},
	{"attach to nothing", true, false, ATTACH, NOTHING, -ENOENT, false, 0},
	{"attach to another kind of object", true, false, ATTACH, NOT_AN_IOAS, -ENOENT, false, 0},
	{"attach, pinning, to misaligned areas", true, false, ATTACH, MISALIGNED, -EADDRINUSE,
	 false, 0},
	{"attach, not pinning, to misaligned areas", false, false, ATTACH, MISALIGNED, 0, true, 0},
	{"replace while detached", true, false, REPLACE, OTHER, -ENOENT, false, 0},
	{"replace", true, true, REPLACE, OTHER, 0, true, 1},
	{"replace by the same", true, true, REPLACE, SAME, 0, false, 0},
	{"replace by nothing", true, true, REPLACE, NOTHING, -ENOENT, false, 0},
	{"replace by another kind of object", true, true, REPLACE, NOT_AN_IOAS, -ENOENT, false, 0},
	{"replace, pinning, by misaligned areas", true, true, REPLACE, MISALIGNED, -EADDRINUSE,
	 false, 0},
	{"replace, not pinning, by misaligned areas", false, true, REPLACE, MISALIGNED, 0, true, 1},
};

static void check_move(struct rig *rig, size_t i)
{
	struct iommufd_access_ops ops = {.needs_pin_pages = moves[i].pins, .unmap = drv_unmap};
	uint32_t home = ioas_new(rig), other = ioas_new(rig), bad = ioas_new(rig), target, id;
	struct drv drv = {.lock = PTHREAD_MUTEX_INITIALIZER};
	char c;
	int rc;

	assert_int_equal(map_at(rig, home, 0x1000, rig->mem, PAGE, R), 0);
	assert_int_equal(map_at(rig, other, 0x2000, rig->mem, PAGE, R), 0);
	assert_int_equal(map_at(rig, bad, 0x2000, rig->mem + 100, PAGE, R), 0);
	drv.access = iommufd_access_create(rig->ctx, &ops, &drv, &id);
	assert_false(IS_ERR(drv.access));
	if (moves[i].attached)
		assert_int_equal(iommufd_access_attach(drv.access, home), 0);
	target = moves[i].target == SAME	  ? home
		 : moves[i].target == OTHER	  ? other
		 : moves[i].target == MISALIGNED  ? bad
		 : moves[i].target == NOT_AN_IOAS ? id
						  : 999;
	rc = moves[i].op == ATTACH ? iommufd_access_attach(drv.access, target)
				   : iommufd_access_replace(drv.access, target);
	if (rc != moves[i].rc)
		fail_msg("%s: %d, not %d", moves[i].name, rc, moves[i].rc);
	assert_int_equal(drv.calls, moves[i].calls);
	/* Where it is now: 0x1000 is mapped at home only, 0x2000 elsewhere only. */
	rc = iommufd_access_rw(drv.access, 0x2000, &c, 1, 0);
	if (rc != (moves[i].moves ? 0 : -ENOENT))
		fail_msg("%s: there %d", moves[i].name, rc);
	rc = iommufd_access_rw(drv.access, 0x1000, &c, 1, 0);
	if (rc != (moves[i].attached && !moves[i].moves ? 0 : -ENOENT))
		fail_msg("%s: at home %d", moves[i].name, rc);
	iommufd_access_destroy(drv.access);
	assert_int_equal(destroy_id(rig, home), 0);
	assert_int_equal(destroy_id(rig, other), 0);
	assert_int_equal(destroy_id(rig, bad), 0);
}

static void moving_answers_by_state_and_target(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(moves); i++)
		check_move(*state, i);
}

static void a_failing_move_says_why(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig);
	struct drv drv;
	char why[240];

	drv_create(rig, &drv);
	swiommu_access_reason(drv.access, why, sizeof(why));
	assert_string_equal(why, "");
	assert_int_equal(iommufd_access_attach(drv.access, 77), -ENOENT);
	swiommu_access_reason(drv.access, why, sizeof(why));
	assert_non_null(strstr(why, "77"));
	assert_int_equal(map_at(rig, ioas, 0x12345, rig->mem, 10, R), 0);
	assert_int_equal(iommufd_access_attach(drv.access, ioas), -EADDRINUSE);
	swiommu_access_reason(drv.access, why, sizeof(why));
	assert_non_null(strstr(why, "0x12345"));
	drv_close(&drv);
}

static void detaching_what_is_not_attached_only_warns(void **state)
{
	struct rig *rig = *state;
	struct drv drv;

	drv_create(rig, &drv);
	iommufd_access_detach(drv.access);
	assert_int_equal(rig->warnings, 1);
	assert_int_equal(drv.calls, 0);
	drv_close(&drv);
	assert_int_equal(drv.calls, 0);
}

static void replace_keeps_or_drops_pins(void **state)
{
	struct rig *rig = *state;
	uint32_t a = ioas_new(rig), b = ioas_new(rig), bad = ioas_new(rig);
	struct drv drv;

	assert_int_equal(map_at(rig, a, 0x1000, rig->mem, PAGE, R), 0);
	assert_int_equal(map_at(rig, bad, 0x1000, rig->mem + 1, PAGE, R), 0);
	drv_open(rig, &drv, a);
	assert_int_equal(drv_pin(&drv, 0x1000, PAGE, 0), 0);
	assert_int_equal(iommufd_access_replace(drv.access, a), 0);
	assert_int_equal(iommufd_access_replace(drv.access, 99), -ENOENT);
	assert_int_equal(iommufd_access_replace(drv.access, bad), -EADDRINUSE);
	assert_int_equal(pins_at(rig, a, 0x1000), 1);
	assert_int_equal(drv.calls, 0);
	assert_int_equal(iommufd_access_replace(drv.access, b), 0);
	assert_int_equal(drv.calls, 1);
	assert_int_equal(pins_at(rig, a, 0x1000), 0);
	assert_int_equal(destroy_id(rig, a), 0);
	drv_close(&drv);
	assert_int_equal(rig->warnings, 0);
}

/* What a driver can do inside the callback for everything. */
static void try_all(struct drv *drv, unsigned long iova, unsigned long length)
{
	uint32_t *ioas = drv->cookie;
	char c;

	(void)iova;
	if (length != ULONG_MAX)
		return;
	assert_int_equal(iommufd_access_pin_pages(drv->access, 0x1000, 1, NULL, 0), -ENOENT);
	assert_int_equal(iommufd_access_rw(drv->access, 0x1000, &c, 1, 0), -ENOENT);
	assert_int_equal(iommufd_access_attach(drv->access, *ioas), -EBUSY);
	assert_int_equal(iommufd_access_replace(drv->access, *ioas), -ENOENT);
	iommufd_access_detach(drv->access); /* warns, does nothing */
}

static void while_it_moves_an_access_can_only_unpin(void **state)
{
	struct rig *rig = *state;
	uint32_t a = ioas_new(rig), b = ioas_new(rig);
	struct drv drv;

	assert_int_equal(map_at(rig, a, 0x1000, rig->mem, PAGE, R), 0);
	assert_int_equal(map_at(rig, b, 0x1000, rig->mem, PAGE, R), 0);
	drv_open(rig, &drv, a);
	drv.called = try_all;
	drv.cookie = &a;
	assert_int_equal(drv_pin(&drv, 0x1000, PAGE, 0), 0);
	assert_int_equal(iommufd_access_replace(drv.access, b), 0);
	assert_int_equal(rig->warnings, 1);
	assert_int_equal(pins_at(rig, a, 0x1000), 0);
	assert_int_equal(drv_pin(&drv, 0x1000, PAGE, 0), 0);
	iommufd_access_detach(drv.access);
	assert_int_equal(rig->warnings, 2);
	assert_int_equal(pins_at(rig, b, 0x1000), 0);
	drv.called = NULL;
	drv_close(&drv);
}

/* ---- alignment ------------------------------------------------------------------------------- */

static void alignment_follows_what_is_attached(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig);
	struct iommufd_access *plain;
	struct rig_device d;
	struct drv drv, drv2;

	assert_int_equal(align_of(rig, ioas), 1);
	plain = plain_open(rig, ioas);
	assert_int_equal(align_of(rig, ioas), 1);
	assert_int_equal(rig_device_attach(rig, &d, ioas), 0);
	assert_int_equal(align_of(rig, ioas), 2048);
	drv_open(rig, &drv, ioas);
	assert_int_equal(align_of(rig, ioas), 4096);
	drv_open(rig, &drv2, ioas);
	drv_close(&drv2);
	assert_int_equal(align_of(rig, ioas), 4096);
	rig_device_remove(&d);
	assert_int_equal(align_of(rig, ioas), 4096);
	assert_int_equal(map_at(rig, ioas, 0x1800, rig->mem, PAGE, R), -EINVAL);
	iommufd_access_detach(drv.access);
	assert_int_equal(align_of(rig, ioas), 1);
	assert_int_equal(map_at(rig, ioas, 0x1800, rig->mem, PAGE, R), 0);
	drv_close(&drv);
	iommufd_access_destroy(plain);
}

static void a_refused_access_leaves_the_alignment(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig);
	struct drv drv;

	assert_int_equal(map_at(rig, ioas, 0x1000, rig->mem + 100, PAGE, R), 0);
	drv_create(rig, &drv);
	assert_int_equal(iommufd_access_attach(drv.access, ioas), -EADDRINUSE);
	assert_int_equal(align_of(rig, ioas), 1);
	assert_int_equal(unmap_at(rig, ioas, 0x1000, PAGE), 0);
	assert_int_equal(iommufd_access_attach(drv.access, ioas), 0);
	drv_close(&drv);
}

static void a_copy_must_be_aligned_for_pins(void **state)
{
	struct rig *rig = *state;
	uint32_t src = ioas_new(rig), dst = ioas_new(rig);
	struct drv drv;

	assert_int_equal(map_at(rig, src, 0x1000, rig->mem, 4 * PAGE, R), 0);
	drv_open(rig, &drv, dst);
	assert_int_equal(copy_at(rig, src, 0x1400, dst, 0x10000, PAGE, R), -EINVAL);
	assert_int_equal(copy_at(rig, src, 0x2000, dst, 0x10000, PAGE, R), 0);
	drv_close(&drv);
}

/* ---- unmapping what accesses pin ------------------------------------------------------------- */

static void unmap_calls_everybody_in_order_of_slots(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig);
	struct drv drv[3];

	assert_int_equal(map_at(rig, ioas, 0x10000, rig->mem, 4 * PAGE, R), 0);
	assert_int_equal(map_at(rig, ioas, 0x20000, rig->mem, 4 * PAGE, R), 0);
	for (int i = 0; i < 3; i++)
		drv_open(rig, &drv[i], ioas);
	assert_int_equal(drv_pin(&drv[1], 0x11000, PAGE, 0), 0);
	assert_int_equal(unmap_at(rig, ioas, 0x20000, 4 * PAGE), 0); /* nothing pinned there */
	assert_int_equal(drv[0].calls + drv[1].calls + drv[2].calls, 0);
	/* Part of the area only: nobody is asked. */
	assert_int_equal(unmap_at(rig, ioas, 0x11000, PAGE), -ENOENT);
	assert_int_equal(drv[1].calls, 0);
	assert_int_equal(pins_at(rig, ioas, 0x10000), 1);
	/* More than the area: it alone is named. */
	assert_int_equal(unmap_at(rig, ioas, 0xf000, 6 * PAGE), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(drv[i].calls, 1);
		assert_true(drv[i].last_iova == 0x10000 && drv[i].last_length == 4 * PAGE);
		drv_close(&drv[i]);
	}
}

static struct drv *order[8];
static unsigned int ordered;

static void note_order(struct drv *drv, unsigned long iova, unsigned long length)
{
	(void)iova;
	if (length != ULONG_MAX && ordered < ARRAY_SIZE(order))
		order[ordered++] = drv;
}

static void a_freed_slot_is_used_first(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig), other = ioas_new(rig);
	struct drv drv[4];

	assert_int_equal(map_at(rig, ioas, 0x10000, rig->mem, PAGE, R), 0);
	for (int i = 0; i < 4; i++) {
		drv_open(rig, &drv[i], i == 3 ? other : ioas);
		drv[i].called = note_order;
	}
	iommufd_access_detach(drv[1].access);
	assert_int_equal(iommufd_access_replace(drv[3].access, ioas), 0); /* slot 1 */
	assert_int_equal(iommufd_access_attach(drv[1].access, ioas), 0);  /* slot 3 */
	assert_int_equal(drv_pin(&drv[2], 0x10000, PAGE, 0), 0);
	ordered = 0;
	assert_int_equal(unmap_at(rig, ioas, 0x10000, PAGE), 0);
	assert_int_equal(ordered, 4);
	assert_ptr_equal(order[0], &drv[0]);
	assert_ptr_equal(order[1], &drv[3]);
	assert_ptr_equal(order[2], &drv[2]);
	assert_ptr_equal(order[3], &drv[1]);
	for (int i = 0; i < 4; i++)
		drv_close(&drv[i]);
}

static void unmap_gives_up_after_101_rounds_and_leaves_the_area_blocked(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig), other = ioas_new(rig);
	struct drv drv;
	char c;

	assert_int_equal(map_at(rig, ioas, 0x10000, rig->mem, PAGE, R | W), 0);
	assert_int_equal(map_at(rig, ioas, 0x11000, rig->mem, PAGE, R | W), 0);
	drv_open(rig, &drv, ioas);
	assert_int_equal(drv_pin(&drv, 0x11000, PAGE, 0), 0);
	drv.hold = true;
	assert_int_equal(unmap_at(rig, ioas, 0x10000, 2 * PAGE), -EDEADLOCK);
	assert_int_equal(drv.calls, 101);
	assert_int_equal(pins_at(rig, ioas, 0x10000), -1); /* that one had no pins */
	assert_int_equal(pins_at(rig, ioas, 0x11000), 1);
	/* Blocked for accesses, but mapped. */
	assert_int_equal(drv_pin(&drv, 0x11000, PAGE, 0), -EINVAL);
	assert_int_equal(iommufd_access_rw(drv.access, 0x11000, &c, 1, 0), -EINVAL);
	assert_int_equal(copy_at(rig, ioas, 0x11000, other, 0x5000, PAGE, R | W), 0);
	drv.hold = false;
	assert_int_equal(unmap_at(rig, ioas, 0x11000, PAGE), 0);
	assert_int_equal(drv.calls, 102);
	/* Its place is as good as new. */
	assert_int_equal(map_at(rig, ioas, 0x11000, rig->mem, PAGE, R | W), 0);
	assert_int_equal(iommufd_access_rw(drv.access, 0x11000, &c, 1, 0), 0);
	drv_close(&drv);
}

static void rounds_are_counted_for_each_area(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig);
	struct drv drv;

	for (unsigned long step = 1; step <= 2; step++) { /* adjacent, then spaced */
		for (unsigned long i = 0; i < 150; i++)
			assert_int_equal(map_at(rig, ioas, 0x100000 + i * step * PAGE,
						rig->mem + i * PAGE, PAGE, R),
					 0);
		drv_open(rig, &drv, ioas);
		for (unsigned long i = 0; i < 150; i++)
			assert_int_equal(drv_pin(&drv, 0x100000 + i * step * PAGE, PAGE, 0), 0);
		assert_int_equal(unmap_at(rig, ioas, 0x100000, 300 * PAGE), 0);
		assert_int_equal(drv.calls, 150);
		drv_close(&drv);
	}
}

static void pins_of_several_accesses_go_in_one_unmap(void **state)
{
	struct rig *rig = *state;
	static const struct iommufd_access_ops silent = {.unmap = NULL};
	uint32_t ioas = ioas_new(rig), id;
	struct iommufd_access *bystander;
	struct drv a, b;

	assert_int_equal(map_at(rig, ioas, 0x10000, rig->mem, 4 * PAGE, R), 0);
	/* One without a callback is not called (quirk Q4). */
	bystander = iommufd_access_create(rig->ctx, &silent, NULL, &id);
	assert_false(IS_ERR(bystander));
	assert_int_equal(iommufd_access_attach(bystander, ioas), 0);
	drv_open(rig, &a, ioas);
	drv_open(rig, &b, ioas);
	assert_int_equal(drv_pin(&a, 0x10000, 2 * PAGE, 0), 0);
	assert_int_equal(drv_pin(&a, 0x10000, 2 * PAGE, 0), 0);
	assert_int_equal(drv_pin(&b, 0x11000, 3 * PAGE, 0), 0);
	assert_int_equal(pins_at(rig, ioas, 0x10000), 3);
	assert_int_equal(unmap_at(rig, ioas, 0, UINT64_MAX), 0);
	assert_null(a.items);
	assert_null(b.items);
	drv_close(&a);
	drv_close(&b);
	iommufd_access_destroy(bystander);
}

/* The callback may use what is not being unmapped. */
static void use_neighbour(struct drv *drv, unsigned long iova, unsigned long length)
{
	int *rc = drv->cookie;
	char c;

	if (length == ULONG_MAX)
		return;
	rc[0] = iommufd_access_rw(drv->access, iova, &c, 1, 0);
	rc[1] = iommufd_access_rw(drv->access, 0x90000, &c, 1, 0);
	rc[2] = iommufd_access_pin_pages(drv->access, 0x90000, 1, NULL, 0);
	rc[3] = iommufd_access_pin_pages(drv->access, iova, 1, NULL, 0);
	iommufd_access_unpin_pages(drv->access, 0x90000, 1);
}

static void the_callback_can_use_other_areas(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig);
	int rc[4] = {1, 1, 1, 1};
	struct drv drv;

	assert_int_equal(map_at(rig, ioas, 0x10000, rig->mem, PAGE, R), 0);
	assert_int_equal(map_at(rig, ioas, 0x90000, rig->mem, PAGE, R), 0);
	drv_open(rig, &drv, ioas);
	drv.called = use_neighbour;
	drv.cookie = rc;
	assert_int_equal(drv_pin(&drv, 0x10000, PAGE, 0), 0);
	assert_int_equal(unmap_at(rig, ioas, 0x10000, PAGE), 0);
	assert_int_equal(rc[0], -EINVAL);
	assert_int_equal(rc[1], 0);
	assert_int_equal(rc[2], 0);
	assert_int_equal(rc[3], -EINVAL);
	drv_close(&drv);
}

static void internal_pins_forbid_unmapping(void **state)
{
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig), id;
	struct iommufd_access *queue;
	struct drv drv;

	assert_int_equal(map_at(rig, ioas, 0x10000, rig->mem, 4 * PAGE, R | W), 0);
	drv_open(rig, &drv, ioas);
	assert_int_equal(access_create_internal(rig->ctx, &queue), 0);
	id = queue->obj.id;
	assert_int_equal(id, drv.id + 1);
	assert_int_equal(iommufd_access_attach(queue, ioas), 0);
	assert_int_equal(iommufd_access_pin_pages(queue, 0x10000, PAGE, NULL, 1),
			 -EINVAL); /* not for drivers */
	assert_int_equal(access_pin(queue, 0x10000, PAGE, NULL, 1, NULL), 0);
	assert_int_equal(drv_pin(&drv, 0x11000, PAGE, 0), 0);
	assert_int_equal(unmap_at(rig, ioas, 0x10000, 4 * PAGE), -EBUSY);
	assert_int_equal(unmap_at(rig, ioas, 0x11000, PAGE), -EBUSY); /* before ENOENT */
	assert_int_equal(unmap_at(rig, ioas, 0, UINT64_MAX), -EBUSY);
	assert_int_equal(drv.calls, 0);
	/* Only what it pinned itself counts as locked. */
	iommufd_access_unpin_pages(queue, 0x10000, PAGE);
	assert_int_equal(unmap_at(rig, ioas, 0x10000, 4 * PAGE), 0);
	assert_int_equal(drv.calls, 1);
	iommufd_access_destroy(queue);
	assert_int_equal(destroy_id(rig, id), -ENOENT);
	drv_close(&drv);
}

/* ---- limits ---------------------------------------------------------------------------------- */

static void an_ioas_has_65536_accesses_at_most(void **state)
{
	enum { N = 65536 };
	struct iommufd_access **all = malloc((N + 1) * sizeof(*all));
	struct rig *rig = *state;
	uint32_t ioas = ioas_new(rig), other = ioas_new(rig), id;

	for (unsigned int i = 0; i <= N; i++) {
		all[i] = iommufd_access_create(rig->ctx, &plain_ops, NULL, &id);
		assert_false(IS_ERR(all[i]));
		assert_int_equal(iommufd_access_attach(all[i], ioas), i < N ? 0 : -EBUSY);
	}
	assert_int_equal(iommufd_access_attach(all[N], other), 0);
	assert_int_equal(iommufd_access_replace(all[N], ioas), -EBUSY);
	iommufd_access_detach(all[777]);
	assert_int_equal(iommufd_access_replace(all[N], ioas), 0);
	for (unsigned int i = 0; i <= N; i++)
		iommufd_access_destroy(all[i]);
	free(all);
	assert_int_equal(destroy_id(rig, ioas), 0);
	assert_int_equal(destroy_id(rig, other), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(an_access_takes_an_id_that_only_its_driver_can_free),
		T(an_access_keeps_its_context),
		T(without_ops_there_is_no_access),
		T(descriptors_are_no_contexts),
		T(moving_answers_by_state_and_target),
		T(a_failing_move_says_why),
		T(detaching_what_is_not_attached_only_warns),
		T(replace_keeps_or_drops_pins),
		T(while_it_moves_an_access_can_only_unpin),
		T(alignment_follows_what_is_attached),
		T(a_refused_access_leaves_the_alignment),
		T(a_copy_must_be_aligned_for_pins),
		T(unmap_calls_everybody_in_order_of_slots),
		T(a_freed_slot_is_used_first),
		T(unmap_gives_up_after_101_rounds_and_leaves_the_area_blocked),
		T(rounds_are_counted_for_each_area),
		T(pins_of_several_accesses_go_in_one_unmap),
		T(the_callback_can_use_other_areas),
		T(internal_pins_forbid_unmapping),
		T(an_ioas_has_65536_accesses_at_most),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
