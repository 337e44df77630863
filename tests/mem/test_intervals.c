// SPDX-License-Identifier: MIT
/*
 * Pinned intervals against a naive model: a counter per page.
 *
 * The owner is made up. A window of it is stamped, page by page, with the number of the lookup that
 * opened it, so that a read tells which lookup a page was pinned by; memory that is not pinned reads
 * as 0. Pages can be made to refuse.
 */
#include "program.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "base/alloc.h"
#include "mem/backing.h"

#define PAGES 48u
#define BASE 0x7000000000ull

struct fake {
	struct mem_owner owner;
	bool bad[PAGES];
	_Atomic unsigned lookups;
};

static struct fake *fake_of(struct mem_owner *o)
{
	return container_of(o, struct fake, owner);
}

static int fake_move(struct mem_owner *o, uint64_t addr, void *buf, size_t len)
{
	(void)o;
	(void)addr;
	memset(buf, 0, len);
	return 0;
}

static int fake_write(struct mem_owner *o, uint64_t addr, const void *buf, size_t len)
{
	(void)o;
	(void)addr;
	(void)buf;
	(void)len;
	return 0;
}

static int fake_open(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot,
		     struct mem_window *win, struct swi_reason *why)
{
	struct fake *f = fake_of(o);
	uint64_t first = (addr - BASE) / PAGE, i;
	unsigned stamp;
	char *p;

	(void)prot;
	*win = (struct mem_window){0};
	assert_true(addr % PAGE == 0 && len % PAGE == 0 && len);
	assert_true(first + len / PAGE <= PAGES);
	for (i = 0; i < len / PAGE; i++)
		if (f->bad[first + i])
			return swi_fail(why, -EFAULT, "page %u refuses", (unsigned)(first + i));
	stamp = ++f->lookups;
	/* A page more, so that no two windows are neighbours by chance. */
	p = mmap(NULL, len + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(p != MAP_FAILED);
	for (i = 0; i < len; i += sizeof(stamp))
		memcpy(p + i, &stamp, sizeof(stamp));
	win->host = win->map = p;
	win->map_length = len + PAGE;
	win->nr_idents = 1;
	win->ident = (struct mem_ident){.addr = addr, .last = addr + (len - 1), .ino = stamp};
	return 0;
}

static int fake_key(struct mem_owner *o, uint64_t addr, struct page_key *key)
{
	(void)o;
	(void)addr;
	(void)key;
	return -EFAULT;
}

static void fake_space(struct mem_owner *o, uint64_t id[2])
{
	(void)o;
	id[0] = id[1] = 0;
}

static void fake_destroy(struct mem_owner *o)
{
	free(fake_of(o));
}

static const struct mem_owner_ops fake_ops = {
	.kind = "fake",
	.read = fake_move,
	.write = fake_write,
	.open_window = fake_open,
	.read_pinned = fake_move,
	.write_pinned = fake_write,
	.page_key = fake_key,
	.space = fake_space,
	.destroy = fake_destroy,
};

static struct fake *fake_new(void)
{
	struct fake *f = calloc(1, sizeof(*f));

	f->owner.ops = &fake_ops;
	f->owner.refs = 1;
	return f;
}

static unsigned rng = 1;

static unsigned any(unsigned n)
{
	rng = rng * 1103515245u + 12345u;
	return (rng >> 8) % n;
}

/* ---- the model ------------------------------------------------------------------------------ */

#define MAX_HELD 64
#define LEAD 0x123u /* where in its first page the backing begins */
#define LENGTH (PAGES * PAGE - LEAD - 0x50)

struct model {
	struct fake *f;
	struct mem_accounts *accounts;
	struct backing *b;
	unsigned count[PAGES];
	unsigned stamp[PAGES]; /* lookup that pinned the page */
	struct interval {
		uint64_t offset, len;
		unsigned first, end; /* pages */
	} held[MAX_HELD];
	unsigned nr_held;
};

static void model_start(struct model *m, enum mem_charge_mode mode)
{
	struct mem_payer payer;

	memset(m, 0, sizeof(*m));
	m->f = fake_new();
	assert_int_equal(mem_accounts_create(&m->accounts), 0);
	assert_int_equal(mem_payer_init(&payer, m->accounts, getpid(), getuid(), mode, NULL), 0);
	assert_int_equal(backing_create(&m->f->owner, &payer, BASE + LEAD, LENGTH, true, &m->b), 0);
	mem_payer_fini(&payer);
	assert_int_equal(backing_nr_pages(m->b), PAGES);
}

static void model_stop(struct model *m)
{
	backing_put(m->b);
	mem_owner_put(&m->f->owner);
	mem_accounts_put(m->accounts);
}

static struct interval random_interval(void)
{
	struct interval i;
	uint64_t a, b;

	if (!any(6)) {
		i.offset = 0;
		i.len = LENGTH;
	} else {
		a = (uint64_t)any(PAGES) * PAGE + any(3) * 0x7ff;
		b = (uint64_t)any(PAGES) * PAGE + any(3) * 0x7ff;
		a = SWI_MIN(a, LENGTH - 1);
		b = SWI_MIN(b, LENGTH - 1);
		i.offset = SWI_MIN(a, b);
		i.len = SWI_MAX(a, b) - i.offset + 1;
	}
	i.first = (LEAD + i.offset) / PAGE;
	i.end = (LEAD + i.offset + i.len - 1) / PAGE + 1;
	return i;
}

/* What the pages are, from outside, must be what the model says. */
static void compare(struct model *m)
{
	struct mem_usage usage;
	unsigned page, pinned = 0, got;
	struct page_key key;
	int ret;

	for (page = 0; page < PAGES; page++) {
		uint64_t offset = page ? page * PAGE - LEAD : 0;

		ret = backing_page_key(m->b, page, &key);
		assert_int_equal(ret, m->count[page] ? 0 : -ENOENT);
		if (!ret)
			assert_int_equal(key.inode, m->stamp[page]);
		offset = (offset + 3) & ~3ull;
		offset += (4 - ((LEAD + offset) & 3)) & 3;
		assert_int_equal(backing_read(m->b, offset, &got, 4), 0);
		assert_int_equal(got, m->count[page] ? m->stamp[page] : 0);
		pinned += !!m->count[page];
	}
	assert_int_equal(mem_accounts_usage(m->accounts, getpid(), &usage), 0);
	assert_int_equal(usage.pinned, pinned);
}

static void compare_host(struct model *m, const struct interval *i)
{
	char *host = backing_host(m->b, i->offset, i->len);
	unsigned page, stamp;
	bool one = true;

	for (page = i->first; page < i->end; page++)
		one = one && m->stamp[page] == m->stamp[i->first];
	assert_int_equal(!!host, one); /* windows of different lookups are not neighbours */
	if (!host)
		return;
	for (page = i->first; page < i->end; page++) {
		uint64_t at = page == i->first ? i->offset : page * PAGE - LEAD;

		at += (4 - ((LEAD + at) & 3)) & 3;
		if (at + 4 > i->offset + i->len)
			continue;
		memcpy(&stamp, host + (at - i->offset), 4);
		assert_int_equal(stamp, m->stamp[page]);
	}
}

static void random_pin(struct model *m)
{
	struct interval i = random_interval();
	bool refuses = false, failing = !any(4);
	unsigned page, lookup = m->f->lookups;
	int ret;

	for (page = i.first; page < i.end; page++)
		refuses = refuses || (m->f->bad[page] && !m->count[page]);
	if (failing)
		swi_alloc_fail_nth(1 + any(5));
	ret = backing_pin(m->b, i.offset, i.len, NULL);
	failing = failing && !swi_alloc_fail_nth(0);
	if (ret) {
		/* A lookup can be made to fail like an allocation. */
		assert_true(ret == -EFAULT ? refuses || failing : failing && ret == -ENOMEM);
		return;
	}
	assert_false(refuses);
	/* One lookup per stretch of pages that nobody had. */
	for (page = i.first; page < i.end; page++) {
		if (m->count[page]++)
			continue;
		if (page == i.first || m->count[page - 1] > 1)
			lookup++;
		m->stamp[page] = lookup;
	}
	assert_int_equal(m->f->lookups, lookup);
	m->held[m->nr_held++] = i;
	compare_host(m, &i);
}

static void random_unpin(struct model *m)
{
	unsigned which = any(m->nr_held), page;
	struct interval i = m->held[which];

	m->held[which] = m->held[--m->nr_held];
	for (page = i.first; page < i.end; page++)
		m->count[page]--;
	/* Not one allocation may be needed. */
	swi_alloc_fail_nth(1);
	backing_unpin(m->b, i.offset, i.len);
	assert_int_equal(swi_alloc_fail_nth(0), 1);
}

static void random_operations(void **state)
{
	unsigned seed = (unsigned)time(NULL) ^ (unsigned)getpid(), round, step, i;
	const char *given = getenv("SWIOMMU_TEST_SEED");
	struct model m;

	(void)state;
	rng = given ? (unsigned)strtoul(given, NULL, 0) : seed;
	printf("# SWIOMMU_TEST_SEED=%u\n", rng);
	for (round = 0; round < 30; round++) {
		model_start(&m, MEM_CHARGE_NONE);
		for (step = 0; step < 300; step++) {
			if (!any(10))
				m.f->bad[any(PAGES)] = !any(3);
			if (m.nr_held < MAX_HELD && any(round & 1 ? 2 : 3))
				random_pin(&m);
			else if (m.nr_held)
				random_unpin(&m);
			compare(&m);
			for (i = 0; i < m.nr_held; i++)
				compare_host(&m, &m.held[i]);
		}
		while (m.nr_held)
			random_unpin(&m);
		compare(&m);
		model_stop(&m);
	}
}

/* ---- single cases --------------------------------------------------------------------------- */

/* An interval that was never pinned is left alone where that can be told. */
static void unknown_intervals_do_nothing(void **state)
{
	struct page_key key;
	struct model m;

	(void)state;
	model_start(&m, MEM_CHARGE_NONE);
	backing_unpin(m.b, 0, LENGTH);
	backing_unpin(m.b, 2 * PAGE, PAGE);
	assert_int_equal(backing_pin(m.b, 2 * PAGE, PAGE, NULL), 0);
	backing_unpin(m.b, 4 * PAGE, PAGE);
	backing_unpin(m.b, 0, LENGTH);
	assert_int_equal(backing_page_key(m.b, backing_page_of(m.b, 2 * PAGE), &key), 0);
	backing_unpin(m.b, 2 * PAGE, PAGE);
	assert_int_equal(backing_page_key(m.b, backing_page_of(m.b, 2 * PAGE), &key), -ENOENT);
	model_stop(&m);
}

static void the_slow_way_pins_for_the_copy_only(void **state)
{
	struct mem_usage usage;
	struct model m;
	unsigned got[2 * PAGE / 4];

	(void)state;
	model_start(&m, MEM_CHARGE_NONE);
	assert_int_equal(backing_pin(m.b, 0, PAGE - LEAD, NULL), 0);
	m.f->bad[2] = true;
	/* Page 0 as pinned, page 1 by a lookup of its own; page 2 refuses a pin, though not a read. */
	assert_int_equal(backing_move_slow(m.b, 1, got, 2 * PAGE - LEAD - 1, SWI_READ), 0);
	assert_int_equal(got[0], 1);
	assert_int_equal(got[(2 * PAGE - LEAD - 1) / 4 - 1], 2);
	assert_int_equal(backing_move_slow(m.b, 2 * PAGE, got, 4, SWI_READ), -EFAULT);
	assert_int_equal(backing_read(m.b, 2 * PAGE, got, 4), 0);
	assert_int_equal(mem_accounts_usage(m.accounts, getpid(), &usage), 0);
	assert_int_equal(usage.pinned, 1);
	backing_unpin(m.b, 0, PAGE - LEAD);
	model_stop(&m);
}

/* ---- threads -------------------------------------------------------------------------------- */

static struct model shared;
static atomic_int failures;

static void *pin_and_unpin(void *arg)
{
	unsigned own = (unsigned)(uintptr_t)arg, i, first, len, got;
	uint64_t offset;

	for (i = 0; i < 4000; i++) {
		own = own * 1103515245u + 12345u;
		first = (own >> 8) % PAGES;
		len = 1 + (own >> 20) % (PAGES - first);
		offset = first ? first * PAGE - LEAD : 0;
		if (first + len == PAGES)
			len = (unsigned)(LENGTH - offset);
		else
			len = (unsigned)((first + len) * PAGE - LEAD - offset);
		if (i % 7 == 0) {
			offset = 0;
			len = LENGTH;
		}
		if (backing_pin(shared.b, offset, len, NULL)) {
			failures++;
			continue;
		}
		offset += (4 - ((LEAD + offset) & 3)) & 3;
		if (backing_read(shared.b, offset, &got, 4) || !got)
			failures++;
		offset -= (4 - ((LEAD + offset) & 3)) & 3;
		backing_unpin(shared.b, i % 7 ? (first ? first * PAGE - LEAD : 0) : 0, len);
	}
	return NULL;
}

static void *read_anything(void *arg)
{
	unsigned got[PAGE / 4], i;

	(void)arg;
	for (i = 0; i < 4000; i++)
		if (backing_read(shared.b, (i % (PAGES - 2)) * PAGE, got, PAGE))
			failures++;
	return NULL;
}

static void threads_race(void **state)
{
	pthread_t t[4];
	unsigned i;

	(void)state;
	model_start(&shared, MEM_CHARGE_NONE);
	failures = 0;
	for (i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, i == 3 ? read_anything : pin_and_unpin,
						(void *)(uintptr_t)(i + 1)),
				 0);
	for (i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(failures, 0);
	compare(&shared);
	model_stop(&shared);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_operations),
		cmocka_unit_test(unknown_intervals_do_nothing),
		cmocka_unit_test(the_slow_way_pins_for_the_copy_only),
		cmocka_unit_test(threads_race),
	};
	return cmocka_run_group_tests_name("intervals", tests, NULL, NULL);
}
