// SPDX-License-Identifier: MIT
/*
 * Every failure point on the way of an access, one after the other: a call that fails has changed nothing, the
 * same call then succeeds, and nothing is left at the end.
 */
#include "access_rig.h"

#include "base/alloc.h"

struct chain {
	struct rig rig;
	uint32_t ioas[2];
	struct drv drv;
	struct page *pages[16];
	char buf[64];
};

/* One call of the chain; what it changes must not have changed after a failure. */
static int create(struct chain *c)
{
	c->drv.access = iommufd_access_create(c->rig.ctx, &drv_ops, &c->drv, &c->drv.id);
	return IS_ERR(c->drv.access) ? (int)PTR_ERR(c->drv.access) : 0;
}

static int attach(struct chain *c)
{
	return iommufd_access_attach(c->drv.access, c->ioas[0]);
}

static int pin(struct chain *c)
{
	return iommufd_access_pin_pages(c->drv.access, 0x11000, 6 * PAGE, c->pages, 1);
}

static int pin_again(struct chain *c)
{
	return iommufd_access_pin_pages(c->drv.access, 0x12000, PAGE, NULL, 0);
}

static int rw(struct chain *c)
{
	return iommufd_access_rw(c->drv.access, 0x13ff0, c->buf, sizeof(c->buf), 1);
}

static int rw_past_the_pins(struct chain *c)
{
	return iommufd_access_rw(c->drv.access, 0x10ff0, c->buf, sizeof(c->buf), 0);
}

static int replace(struct chain *c)
{
	return iommufd_access_replace(c->drv.access, c->ioas[1]);
}

static int unpin(struct chain *c)
{
	iommufd_access_unpin_pages(c->drv.access, 0x12000, PAGE);
	iommufd_access_unpin_pages(c->drv.access, 0x11000, 6 * PAGE);
	return 0;
}

/* Without the ioctl around it, whose copies can fail. */
static int unmap(struct chain *c)
{
	unsigned int nth = swi_alloc_fail_nth(0);
	uint64_t removed;
	struct obj *obj;
	int rc;

	assert_int_equal(obj_get(c->rig.ctx, c->ioas[0], OBJ_IOAS, "", NULL, &obj), 0);
	swi_alloc_fail_nth(nth);
	rc = ioas_unmap(ioas_of(obj), 0x10000, 0x10000 + 8 * PAGE - 1, &removed, NULL);
	obj_put(obj);
	return rc;
}

static int destroy(struct chain *c)
{
	iommufd_access_destroy(c->drv.access);
	return 0;
}

static const struct {
	const char *name;
	int (*call)(struct chain *c);
	bool cannot_fail;
} calls[] = {
	{"create", create, false},  {"attach", attach, false},
	{"pin", pin, false},	    {"pin again", pin_again, false},
	{"rw", rw, false},	    {"rw past the pins", rw_past_the_pins, false},
	{"unpin", unpin, true},	    {"replace", replace, false},
	{"unmap", unmap, true}, /* also after a failure: it must not need memory */
	{"destroy", destroy, true},
};

struct state {
	uint64_t align[2];
	long pins[2];
	uint32_t next_id;
	unsigned int calls, ids;
};

static struct state look(struct chain *c)
{
	struct state s;

	memset(&s, 0, sizeof(s));
	for (int i = 0; i < 2; i++)
		s.align[i] = align_of(&c->rig, c->ioas[i]);
	s.pins[0] = pins_at(&c->rig, c->ioas[0], 0x10000);
	s.pins[1] = pins_at(&c->rig, c->ioas[0], 0x14000);
	s.next_id = ioas_new(&c->rig);
	assert_int_equal(destroy_id(&c->rig, s.next_id), 0);
	s.calls = c->drv.calls;
	s.ids = c->rig.ctx->table.used;
	return s;
}

/* The chain with its nth failure point failing. Returns whether there was one. */
static bool run_chain(unsigned int nth, unsigned int *failures, bool with_device)
{
	struct chain c = {.drv = {.lock = PTHREAD_MUTEX_INITIALIZER}};
	bool fired = false, armed = true;
	struct rig_device d;
	struct state before, after;
	int rc;

	rig_open(&c.rig);
	c.ioas[0] = ioas_new(&c.rig);
	c.ioas[1] = ioas_new(&c.rig);
	assert_int_equal(map_at(&c.rig, c.ioas[0], 0x10000, c.rig.mem, 4 * PAGE, R | W), 0);
	assert_int_equal(map_at(&c.rig, c.ioas[0], 0x14000, c.rig.mem + 9 * PAGE, 4 * PAGE, R | W),
			 0);
	if (with_device)
		assert_int_equal(rig_device_attach(&c.rig, &d, c.ioas[0]), 0);
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		before = look(&c);
		if (armed)
			swi_alloc_fail_nth(nth);
		rc = calls[i].call(&c);
		if (armed) {
			nth = swi_alloc_fail_nth(0);
			fired = armed && !nth;
			armed = nth;
		}
		if (rc) {
			/* What is made to fail has the errno of its place: memory, a look-up, a pin. */
			bool injected =
				rc == -ENOMEM || rc == -ENOENT || rc == -EFAULT || rc == -EINVAL;

			if (!injected || !fired || calls[i].cannot_fail)
				fail_msg("%s: %d", calls[i].name, rc);
			++*failures;
			after = look(&c);
			if (memcmp(&before, &after, sizeof(before)))
				fail_msg("%s has failed, but changed something", calls[i].name);
			rc = calls[i].call(&c);
			if (rc)
				fail_msg("%s has failed for good: %d", calls[i].name, rc);
		}
	}
	if (with_device)
		rig_device_remove(&d);
	assert_int_equal(c.rig.warnings, 0);
	assert_int_equal(destroy_id(&c.rig, c.ioas[0]), 0);
	assert_int_equal(destroy_id(&c.rig, c.ioas[1]), 0);
	assert_int_equal(c.rig.ctx->table.used, 0);
	rig_close(&c.rig);
	return fired;
}

static void sweep(bool with_device, unsigned int at_least)
{
	unsigned int nth = 1, failures = 0;

	while (run_chain(nth, &failures, with_device))
		nth++;
	print_message("%u failure points, %u calls that failed\n", nth - 1, failures);
	assert_true(failures >= at_least);
}

static void any_failure_changes_nothing(void **state)
{
	(void)state;
	/* create; attach: the list; pin: the io, its registration, and what two backings need; replace: 2 */
	sweep(false, 7);
}

static void any_failure_changes_nothing_under_a_device(void **state)
{
	(void)state;
	sweep(true, 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_failure_changes_nothing),
		cmocka_unit_test(any_failure_changes_nothing_under_a_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
