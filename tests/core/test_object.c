// SPDX-License-Identifier: MIT
/* The object table: IDs, the three steps of an object's life, who may destroy what and when. */
#include "support.h"

#include "core/ctx.h"

struct thing {
	struct obj obj;
	atomic_uint *destroyed;
};

static void thing_destroy(struct obj *obj)
{
	struct thing *t = container_of(obj, struct thing, obj);

	if (t->destroyed)
		++*t->destroyed;
}

static const struct obj_ops thing_ops = {
	.type = OBJ_HWPT_PAGING,
	.name = "thing",
	.size = sizeof(struct thing),
	.destroy = thing_destroy,
};

static struct obj *reserve(struct iommufd_ctx *ctx, uint32_t id)
{
	struct obj *obj;

	assert_rc(obj_alloc(ctx, &thing_ops, &obj), 0);
	assert_int_equal(obj->id, id);
	return obj;
}

static struct obj *publish(struct iommufd_ctx *ctx, uint32_t id, atomic_uint *destroyed)
{
	struct obj *obj = reserve(ctx, id);

	container_of(obj, struct thing, obj)->destroyed = destroyed;
	obj_publish(obj);
	return obj;
}

static int setup(void **state)
{
	*state = ctx_new(NULL);
	return 0;
}

static int teardown(void **state)
{
	swiommu_close(*state);
	return 0;
}

static void lowest_id_first(void **state)
{
	struct iommufd_ctx *ctx = *state;

	for (uint32_t i = 1; i <= 100; i++)
		publish(ctx, i, NULL);
	assert_rc(obj_destroy_id(ctx, 40, NULL), 0);
	assert_rc(obj_destroy_id(ctx, 7, NULL), 0);
	publish(ctx, 7, NULL);
	publish(ctx, 40, NULL);
	publish(ctx, 101, NULL);
}

static void a_reserved_id_is_taken_but_not_found(void **state)
{
	struct iommufd_ctx *ctx = *state;
	struct obj *one = reserve(ctx, 1), *got;
	atomic_uint destroyed = 0;

	assert_rc(obj_get(ctx, 1, OBJ_ANY, "id", NULL, &got), -ENOENT);
	assert_rc(obj_destroy_id(ctx, 1, NULL), -ENOENT);
	publish(ctx, 2, NULL);
	container_of(one, struct thing, obj)->destroyed = &destroyed;
	obj_abort(one, false);
	assert_int_equal(destroyed, 0);
	one = reserve(ctx, 1);
	container_of(one, struct thing, obj)->destroyed = &destroyed;
	obj_abort(one, true);
	assert_int_equal(destroyed, 1);
	publish(ctx, 1, NULL);
}

static void found_by_its_type(void **state)
{
	struct iommufd_ctx *ctx = *state;
	struct swi_reason why = {""};
	struct obj *obj = publish(ctx, 1, NULL), *got;

	assert_rc(obj_get(ctx, 1, OBJ_IOAS, "some_id", &why, &got), -ENOENT);
	assert_non_null(strstr(why.text, "some_id"));
	assert_non_null(strstr(why.text, "thing"));
	assert_rc(obj_get(ctx, 1, OBJ_HWPT_PAGING, "id", NULL, &got), 0);
	assert_ptr_equal(got, obj);
	obj_put(got);
	assert_rc(obj_get(ctx, 1, OBJ_ANY, "id", NULL, &got), 0);
	obj_put(got);
	assert_rc(obj_get(ctx, 0, OBJ_ANY, "id", NULL, &got), -ENOENT);
	assert_rc(obj_get(ctx, UINT32_MAX, OBJ_ANY, "id", NULL, &got), -ENOENT);
}

static void in_use_is_busy(void **state)
{
	struct iommufd_ctx *ctx = *state;
	atomic_uint destroyed = 0;
	struct obj *obj = publish(ctx, 1, &destroyed), *got;

	assert_rc(obj_get(ctx, 1, OBJ_ANY, "id", NULL, &got), 0);
	assert_rc(obj_destroy_id(ctx, 1, NULL), -EBUSY);
	obj_put(got);
	obj_hold(obj);
	assert_rc(obj_destroy_id(ctx, 1, NULL), -EBUSY);
	obj_unhold(obj);
	assert_int_equal(destroyed, 0);
	assert_rc(obj_destroy_id(ctx, 1, NULL), 0);
	assert_int_equal(destroyed, 1);
	assert_rc(obj_destroy_id(ctx, 1, NULL), -ENOENT);
}

static void unhold_destroys_the_last(void **state)
{
	struct iommufd_ctx *ctx = *state;
	atomic_uint destroyed = 0;
	struct obj *obj = publish(ctx, 1, &destroyed), *got;

	obj_hold(obj);
	obj_hold(obj);
	assert_false(obj_unhold_destroy(obj));
	assert_true(obj_unhold_destroy(obj));
	assert_int_equal(destroyed, 1);
	/* Somebody who looks at it at that moment makes it stay. */
	obj = publish(ctx, 1, &destroyed);
	obj_hold(obj);
	assert_rc(obj_get(ctx, 1, OBJ_ANY, "id", NULL, &got), 0);
	assert_false(obj_unhold_destroy(obj));
	obj_put(got);
	assert_rc(obj_destroy_id(ctx, 1, NULL), 0);
}

struct destroyer {
	pthread_t thread;
	struct obj *obj;
	atomic_bool done;
	int rc;
};

static void *destroyer(void *data)
{
	struct destroyer *d = data;

	d->rc = obj_destroy_held(d->obj);
	d->done = true;
	return NULL;
}

/* The driver's destroy waits for the calls that use the object, and shuts out new ones meanwhile. */
static void destroy_held_waits(void **state)
{
	struct iommufd_ctx *ctx = *state;
	atomic_uint destroyed = 0;
	struct destroyer d = {.obj = publish(ctx, 1, &destroyed)};
	struct obj *user, *late;

	obj_hold(d.obj);
	assert_rc(obj_get(ctx, 1, OBJ_ANY, "id", NULL, &user), 0);
	assert_int_equal(pthread_create(&d.thread, NULL, destroyer, &d), 0);
	/* It has begun when wait_cnt is down to the user's one. */
	for (bool begun = false; !begun; sched_yield()) {
		pthread_mutex_lock(&ctx->table.lock);
		begun = d.obj->wait_cnt == 1;
		pthread_mutex_unlock(&ctx->table.lock);
	}
	assert_false(d.done);
	assert_int_equal(destroyed, 0);
	assert_rc(obj_get(ctx, 1, OBJ_ANY, "id", NULL, &late), -ENOENT);
	assert_false(obj_try_get(user));
	assert_rc(obj_destroy_id(ctx, 1, NULL), -EBUSY);
	obj_put(user);
	pthread_join(d.thread, NULL);
	assert_rc(d.rc, 0);
	assert_int_equal(destroyed, 1);
	assert_rc(obj_get(ctx, 1, OBJ_ANY, "id", NULL, &late), -ENOENT);
	publish(ctx, 1, NULL);
}

static void destroy_held_of_a_claimed_object(void **state)
{
	struct iommufd_ctx *ctx = *state;
	atomic_uint destroyed = 0;
	struct obj *obj = publish(ctx, 1, &destroyed), *got;

	obj_hold(obj); /* the driver's */
	obj_hold(obj); /* a dependent's */
	assert_rc(obj_destroy_held(obj), -EBUSY);
	assert_int_equal(destroyed, 0);
	/* Its driver's part may be gone: nobody finds it. */
	assert_rc(obj_get(ctx, 1, OBJ_ANY, "id", NULL, &got), -ENOENT);
	assert_rc(obj_destroy_id(ctx, 1, NULL), -EBUSY);
	obj_unhold(obj);
	assert_rc(obj_destroy_id(ctx, 1, NULL), 0);
	assert_int_equal(destroyed, 1);
}

static void held_until_the_end(void **state)
{
	struct iommufd_ctx *ctx = *state;
	atomic_uint destroyed = 0;
	struct obj *obj = publish(ctx, 1, &destroyed), *got;

	obj_hold_forever(obj);
	obj_hold_forever(obj);
	assert_rc(obj_destroy_id(ctx, 1, NULL), -EBUSY);
	assert_rc(obj_get(ctx, 1, OBJ_ANY, "id", NULL, &got), 0);
	obj_put(got);
	assert_int_equal(obj_table_release(&ctx->table), 0);
	assert_int_equal(destroyed, 1);
}

static unsigned int seen;

static bool count_until_three(struct obj *obj, void *data)
{
	(void)data;
	assert_true(obj->users > 1);
	return ++seen == 3;
}

static void for_each_holds_and_stops(void **state)
{
	struct iommufd_ctx *ctx = *state;
	struct obj *reserved;

	publish(ctx, 1, NULL);
	reserved = reserve(ctx, 2);
	for (uint32_t i = 3; i < 8; i++)
		publish(ctx, i, NULL);
	seen = 0;
	assert_true(obj_for_each(ctx, OBJ_HWPT_PAGING, count_until_three, NULL));
	assert_int_equal(seen, 3);
	seen = 100;
	assert_false(obj_for_each(ctx, OBJ_HWPT_PAGING, count_until_three, NULL));
	assert_int_equal(seen, 106);
	assert_false(obj_for_each(ctx, OBJ_IOAS, count_until_three, NULL));
	assert_int_equal(seen, 106);
	obj_abort(reserved, false);
}

static struct obj *parent_of_first;

static void child_destroy(struct obj *obj)
{
	thing_destroy(obj);
	obj_unhold(parent_of_first);
}

/* The end of a context: dependents first, whatever the order of the IDs. */
static void release_takes_dependents_first(void **state)
{
	static const struct obj_ops child_ops = {.type = OBJ_HWPT_PAGING,
						 .name = "child",
						 .size = sizeof(struct thing),
						 .destroy = child_destroy};
	struct iommufd_ctx *ctx = ctx_new(NULL);
	atomic_uint destroyed = 0;
	struct obj *child;

	(void)state;
	parent_of_first = publish(ctx, 1, &destroyed);
	assert_rc(obj_alloc(ctx, &child_ops, &child), 0);
	container_of(child, struct thing, obj)->destroyed = &destroyed;
	obj_hold(parent_of_first);
	obj_publish(child);
	swiommu_close(ctx);
	assert_int_equal(destroyed, 2);
}

static void count_errors(void *data, enum swiommu_log_level level, const char *line)
{
	(void)line;
	if (level == SWIOMMU_LOG_ERROR)
		++*(unsigned int *)data;
}

static void release_reports_what_is_claimed(void **state)
{
	unsigned int errors = 0;
	struct swiommu_hooks hooks = {.log = count_errors, .data = &errors};
	struct iommufd_ctx *ctx = ctx_new(&hooks);
	atomic_uint destroyed = 0;
	struct obj *obj = publish(ctx, 1, &destroyed);

	(void)state;
	publish(ctx, 2, &destroyed);
	obj_hold(obj); /* never given back */
	iommufd_ctx_get(ctx);
	iommufd_ctx_put(ctx);
	assert_int_equal(destroyed, 0);
	assert_int_equal(errors, 0);
	swiommu_close(ctx);
	assert_int_equal(destroyed, 1);
	assert_int_equal(errors, 1);
	free(container_of(obj, struct thing, obj));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(lowest_id_first, setup, teardown),
		cmocka_unit_test_setup_teardown(a_reserved_id_is_taken_but_not_found, setup,
						teardown),
		cmocka_unit_test_setup_teardown(found_by_its_type, setup, teardown),
		cmocka_unit_test_setup_teardown(in_use_is_busy, setup, teardown),
		cmocka_unit_test_setup_teardown(unhold_destroys_the_last, setup, teardown),
		cmocka_unit_test_setup_teardown(destroy_held_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(destroy_held_of_a_claimed_object, setup, teardown),
		cmocka_unit_test_setup_teardown(held_until_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(for_each_holds_and_stops, setup, teardown),
		cmocka_unit_test(release_takes_dependents_first),
		cmocka_unit_test(release_reports_what_is_claimed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
