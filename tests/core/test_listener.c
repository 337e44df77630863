// SPDX-License-Identifier: MIT
/*
 * DMA listeners: what they are told, when, and that MAP, UNMAP, attach, replace and detach wait for them. The listener
 * here keeps a list of what it knows and checks each call against it.
 */
#include "support.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/dma_listener.h"

#define BASE 0x100000ull
#define KNOWN_MAX 512

static const struct iommu_driver driver = {.name = "any",
					   .pgsize_bitmap = PAGE,
					   .aperture_first = 0,
					   .aperture_last = (1ull << 48) - 1};

struct known {
	uint64_t iova, length, fd_offset;
	unsigned int prot;
	ino_t ino; /* 0: no file */
	int mode;
};

struct ear {
	struct dma_listener l;
	pthread_mutex_t lock;
	struct known v[KNOWN_MAX];
	unsigned int n, calls;
	unsigned int fail_in;	 /* the so-manieth map() from now on fails; 0: none */
	unsigned int errors;	 /* told twice, or unknown things forgotten */
	struct swiommu_dma *dma; /* used inside unmap, to see that DMA does not wait for it */
};

struct rig {
	struct iommufd_ctx *ctx;
	struct iommu_group group;
	struct device dev[2];
	struct iommufd_device *idev[2];
	uint32_t ioas;
	struct ear ear;
	char *memory; /* 8 private pages */
	int memfd;
	char *shared; /* 8 pages of it */
};

static int ear_map(struct dma_listener *l, const struct dma_mapping *m, struct swi_reason *why)
{
	struct ear *ear = container_of(l, struct ear, l);
	struct known *k;
	struct stat st = {0};
	int rc = 0;

	pthread_mutex_lock(&ear->lock);
	ear->calls++;
	if (ear->fail_in && !--ear->fail_in) {
		rc = swi_fail(why, -ENOSPC, "no more");
		goto out;
	}
	for (unsigned int i = 0; i < ear->n; i++)
		if (m->iova < ear->v[i].iova + ear->v[i].length &&
		    ear->v[i].iova < m->iova + m->length)
			ear->errors++;
	if (ear->n == KNOWN_MAX) {
		ear->errors++;
		goto out;
	}
	k = &ear->v[ear->n++];
	*k = (struct known){m->iova, m->length, m->fd_offset, m->prot, 0, 0};
	if (m->fd >= 0 && !fstat(m->fd, &st)) {
		k->ino = st.st_ino;
		k->mode = fcntl(m->fd, F_GETFL) & O_ACCMODE;
	}
out:
	pthread_mutex_unlock(&ear->lock);
	return rc;
}

static void ear_unmap(struct dma_listener *l, iova_t first, iova_t last)
{
	struct ear *ear = container_of(l, struct ear, l);
	char byte;

	pthread_mutex_lock(&ear->lock);
	ear->calls++;
	for (unsigned int i = 0; i < ear->n;) {
		struct known *k = &ear->v[i];

		if (k->iova > last || k->iova + k->length - 1 < first)
			i++;
		else if (k->iova >= first && k->iova + k->length - 1 <= last)
			*k = ear->v[--ear->n];
		else
			ear->errors++, i++;
	}
	if (ear->dma) /* faults, which takes locks */
		swiommu_dma_read(ear->dma, 0xdead0000, &byte, 1);
	pthread_mutex_unlock(&ear->lock);
}

static const struct dma_listener_ops ear_ops = {.map = ear_map, .unmap = ear_unmap};

static const struct known *find(struct ear *ear, uint64_t iova)
{
	for (unsigned int i = 0; i < ear->n; i++)
		if (ear->v[i].iova == iova)
			return &ear->v[i];
	return NULL;
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	uint32_t id;

	rig->ctx = ctx_new(NULL);
	assert_rc(iommu_group_init(&rig->group, 0), 0);
	for (int i = 0; i < 2; i++) {
		rig->dev[i] = (struct device){
			.name = "0000:80:01.0", .group = &rig->group, .iommu = &driver};
		rig->idev[i] = iommufd_device_bind(rig->ctx, &rig->dev[i], &id);
	}
	rig->ioas = ioas_new(rig->ctx);
	rig->memory = memory(8);
	rig->memfd = memfd_create("test", MFD_CLOEXEC);
	assert_int_equal(ftruncate(rig->memfd, 8 * PAGE), 0);
	rig->shared = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, rig->memfd, 0);
	assert_true(rig->shared != MAP_FAILED);
	rig->ear.l.ops = &ear_ops;
	pthread_mutex_init(&rig->ear.lock, NULL);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	iommufd_device_unbind(rig->idev[0]);
	iommufd_device_unbind(rig->idev[1]);
	swiommu_close(rig->ctx);
	iommu_group_fini(&rig->group);
	munmap(rig->memory, 8 * PAGE);
	munmap(rig->shared, 8 * PAGE);
	close(rig->memfd);
	assert_int_equal(rig->ear.errors, 0);
	free(rig);
	return 0;
}

static void attach(struct rig *rig, int i, uint32_t pt)
{
	assert_rc(iommufd_device_attach(rig->idev[i], 0, &pt), 0);
}

static void later_mappings_are_told(void **state)
{
	struct rig *rig = *state;
	struct stat st;
	const struct known *k;

	fstat(rig->memfd, &st);
	assert_rc(dma_listener_add(rig->idev[0], &rig->ear.l, NULL), 0);
	attach(rig, 0, rig->ioas);
	assert_int_equal(rig->ear.calls, 0);
	assert_rc(map(rig->ctx, rig->ioas, RW, BASE, rig->shared + PAGE, 2 * PAGE), 0);
	k = find(&rig->ear, BASE);
	assert_non_null(k);
	assert_int_equal(k->length, 2 * PAGE);
	assert_int_equal(k->prot, SWI_READ | SWI_WRITE);
	assert_int_equal(k->ino, st.st_ino);
	assert_int_equal(k->fd_offset, PAGE);
	assert_int_equal(k->mode, O_RDWR);
	/* What the device may only read is not handed out for writing. */
	assert_rc(map(rig->ctx, rig->ioas, R, BASE + 4 * PAGE, rig->shared, PAGE), 0);
	assert_int_equal(find(&rig->ear, BASE + 4 * PAGE)->mode, O_RDONLY);
	/* Private memory has no file. */
	assert_rc(map(rig->ctx, rig->ioas, RW, BASE + 8 * PAGE, rig->memory, PAGE), 0);
	assert_int_equal(find(&rig->ear, BASE + 8 * PAGE)->ino, 0);
	assert_int_equal(rig->ear.n, 3);
	assert_rc(unmap(rig->ctx, rig->ioas, BASE, 2 * PAGE), 0);
	assert_null(find(&rig->ear, BASE));
	assert_int_equal(rig->ear.n, 2);
	iommufd_device_detach(rig->idev[0], 0);
	assert_int_equal(rig->ear.n, 0);
	assert_rc(map(rig->ctx, rig->ioas, RW, BASE, rig->shared, PAGE), 0);
	assert_int_equal(rig->ear.n, 0);
	dma_listener_remove(&rig->ear.l);
}

static void attach_tells_what_is_there(void **state)
{
	struct rig *rig = *state;
	uint32_t second = ioas_new(rig->ctx), pt;

	for (int i = 0; i < 4; i++)
		assert_rc(map(rig->ctx, rig->ioas, RW, BASE + 2 * i * PAGE, rig->shared + i * PAGE,
			      PAGE),
			  0);
	assert_rc(map(rig->ctx, second, RW, BASE, rig->memory, PAGE), 0);
	attach(rig, 0, rig->ioas);
	assert_rc(dma_listener_add(rig->idev[0], &rig->ear.l, NULL), 0);
	assert_int_equal(rig->ear.n, 4);
	/* Replaced together with the device that shares its group. */
	attach(rig, 1, rig->ioas);
	pt = second;
	assert_rc(iommufd_device_replace(rig->idev[1], 0, &pt), 0);
	assert_int_equal(rig->ear.n, 1);
	assert_int_equal(find(&rig->ear, BASE)->ino, 0);
	iommufd_device_detach(rig->idev[1], 0);
	assert_int_equal(rig->ear.n, 1);
	dma_listener_remove(&rig->ear.l);
	assert_int_equal(rig->ear.n, 0);
	iommufd_device_detach(rig->idev[0], 0);
}

/* Memory of two files side by side comes in parts. */
static void parts_of_several_files(void **state)
{
	struct rig *rig = *state;
	const struct known *k;

	assert_true(mmap(rig->memory + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 rig->memfd, 3 * PAGE) != MAP_FAILED);
	assert_rc(dma_listener_add(rig->idev[0], &rig->ear.l, NULL), 0);
	attach(rig, 0, rig->ioas);
	assert_rc(map(rig->ctx, rig->ioas, RW, BASE, rig->memory, 3 * PAGE), 0);
	assert_int_equal(rig->ear.n, 3);
	k = find(&rig->ear, BASE + PAGE);
	assert_int_equal(k->length, PAGE);
	assert_int_equal(k->fd_offset, 3 * PAGE);
	assert_int_not_equal(k->ino, 0);
	assert_int_equal(find(&rig->ear, BASE + 2 * PAGE)->ino, 0);
	/* A part fails: nothing is mapped, nothing is known. */
	rig->ear.fail_in = 2;
	assert_rc(map(rig->ctx, rig->ioas, RW, BASE + 8 * PAGE, rig->memory, 3 * PAGE), -ENOSPC);
	assert_int_equal(rig->ear.n, 3);
	assert_rc(unmap(rig->ctx, rig->ioas, BASE + 8 * PAGE, 3 * PAGE), -ENOENT);
	assert_rc(unmap(rig->ctx, rig->ioas, BASE, 3 * PAGE), 0);
	assert_int_equal(rig->ear.n, 0);
	dma_listener_remove(&rig->ear.l);
	iommufd_device_detach(rig->idev[0], 0);
}

/* What is mapped at the address by now is not what was pinned. */
static void another_file_at_the_address(void **state)
{
	struct rig *rig = *state;
	int other = memfd_create("other", MFD_CLOEXEC);

	assert_int_equal(ftruncate(other, PAGE), 0);
	assert_rc(map(rig->ctx, rig->ioas, RW, BASE, rig->shared, PAGE), 0);
	attach(rig, 1, rig->ioas);
	assert_true(mmap(rig->shared, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, other,
			 0) != MAP_FAILED);
	assert_rc(dma_listener_add(rig->idev[1], &rig->ear.l, NULL), 0);
	assert_int_equal(rig->ear.n, 1);
	assert_int_equal(rig->ear.v[0].ino, 0);
	dma_listener_remove(&rig->ear.l);
	iommufd_device_detach(rig->idev[1], 0);
	close(other);
}

static void failure_undoes_attach(void **state)
{
	struct rig *rig = *state;
	uint32_t pt = rig->ioas;

	for (int i = 0; i < 4; i++)
		assert_rc(map(rig->ctx, rig->ioas, RW, BASE + 2 * i * PAGE, rig->shared + i * PAGE,
			      PAGE),
			  0);
	assert_rc(dma_listener_add(rig->idev[0], &rig->ear.l, NULL), 0);
	rig->ear.fail_in = 3;
	assert_rc(iommufd_device_attach(rig->idev[0], 0, &pt), -ENOSPC);
	assert_string_equal(swiommu_device_reason(rig->idev[0]), "no more");
	assert_int_equal(pt, rig->ioas);
	assert_int_equal(rig->ear.n, 0);
	assert_rc(iommufd_device_attach(rig->idev[0], 0, &pt), 0);
	assert_int_equal(rig->ear.n, 4);
	dma_listener_remove(&rig->ear.l);
	iommufd_device_detach(rig->idev[0], 0);
}

/* ---- everything at once --------------------------------------------------------------------------- */

struct churn {
	struct rig *rig;
	unsigned int seed;
};

static void *churn_maps(void *arg)
{
	struct churn *c = arg;
	uint64_t base = BASE + c->seed * (64 * PAGE);

	for (int i = 0; i < 150; i++) {
		uint64_t at = base + rand_r(&c->seed) % 8 * PAGE;

		map(c->rig->ctx, c->rig->ioas, RW, at, c->rig->shared, PAGE);
		unmap(c->rig->ctx, c->rig->ioas, base + rand_r(&c->seed) % 4 * PAGE, 4 * PAGE);
	}
	unmap(c->rig->ctx, c->rig->ioas, base, 64 * PAGE);
	return NULL;
}

static void *churn_attach(void *arg)
{
	struct churn *c = arg;

	for (int i = 0; i < 60; i++) {
		attach(c->rig, 0, c->rig->ioas);
		sched_yield();
		iommufd_device_detach(c->rig->idev[0], 0);
		if (c->rig->ear.n)
			c->rig->ear.errors++;
	}
	attach(c->rig, 0, c->rig->ioas);
	return NULL;
}

static void maps_and_attaches_race(void **state)
{
	struct rig *rig = *state;
	struct churn c[] = {{rig, 1}, {rig, 2}, {rig, 0}};
	pthread_t t[3];

	assert_rc(swiommu_dma_open(rig->idev[1], &rig->ear.dma), 0);
	assert_rc(dma_listener_add(rig->idev[0], &rig->ear.l, NULL), 0);
	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, i == 2 ? churn_attach : churn_maps, &c[i]);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(rig->ear.n, 0);
	assert_rc(map(rig->ctx, rig->ioas, RW, BASE, rig->shared, PAGE), 0);
	assert_int_equal(rig->ear.n, 1);
	dma_listener_remove(&rig->ear.l);
	iommufd_device_detach(rig->idev[0], 0);
	swiommu_dma_close(rig->ear.dma);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(later_mappings_are_told), TEST(attach_tells_what_is_there),
		TEST(parts_of_several_files),  TEST(another_file_at_the_address),
		TEST(failure_undoes_attach),   TEST(maps_and_attaches_race),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
