// SPDX-License-Identifier: MIT
/*
 * Everything at once on one context, and a check of what must hold in spite of it:
 *
 *  - A mapper owns slots of an IOAS and the memory for them. While a slot is mapped its first word is
 *    the slot's tag; as soon as UNMAP has returned the mapper poisons it. A DMA that reads poison, or
 *    another slot's tag, has used a translation that was no longer (or never) there. Each DMA thread
 *    has a word of its own that it writes; a write after UNMAP destroys poison.
 *  - Devices are attached, moved and detached meanwhile, two of them in one group.
 *  - Others copy, destroy, ask for ranges, or use IDs that come and go.
 *
 * In the end what is mapped must be what the mappers believe, byte for byte, and when all is taken
 * away no object is left. No step waits for time; the argument is the number of seconds.
 */
#include <errno.h>
#include <linux/iommufd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <swiommu/iommufd.h>

#include "../random.h"

#define PAGE 4096ull
#define NR_SPACES 2
#define NR_MAPPERS 2 /* per space */
#define NR_SLOTS 8   /* per mapper */
#define NR_DEVICES 3
#define NR_THREADS (NR_SPACES * NR_MAPPERS + 2 * NR_DEVICES + 3)
#define RW (IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE)
#define FIXED IOMMU_IOAS_MAP_FIXED_IOVA

#define SLOT_STRIDE 0x10000ull
#define SLOT_BASE 0x100000ull
#define COPY_BASE 0x40000000ull
#define POISON 0xdeadbeefdeadbeefull

struct slot {
	uint64_t *memory; /* word 0: the tag; words 1..: one for each DMA thread */
	bool mapped;
};

struct thread {
	pthread_t id;
	void (*step)(struct thread *t);
	unsigned int nr; /* among those with the same step */
	uint64_t seed;
	unsigned long steps, done; /* steps that had an effect */
};

static struct iommufd_ctx *ctx;
static uint32_t spaces[NR_SPACES];
static struct slot slots[NR_SPACES][NR_MAPPERS * NR_SLOTS];
static struct iommu_group groups[2];
static struct device devices[NR_DEVICES];
static struct iommufd_device *idevs[NR_DEVICES];
static bool attached[NR_DEVICES]; /* of the device's own thread */
static struct swiommu_dma *dmas[NR_DEVICES];
static atomic_bool stop;
static atomic_uint failures;

static const struct iommu_driver driver = {.name = "stress",
					   .pgsize_bitmap = PAGE,
					   .aperture_first = 0,
					   .aperture_last = (1ull << 48) - 1};

static void complain(const char *what, long value)
{
	if (failures++ < 20)
		printf("# %s: %ld (%s)\n", what, value,
		       value < 0 && strerrorname_np(-value) ? strerrorname_np(-value) : "");
}

static unsigned int below(struct thread *t, unsigned int n)
{
	return random_next(&t->seed) % n;
}

static long call(unsigned int cmd, void *arg)
{
	struct swiommu_caller caller;

	swiommu_caller_local(&caller);
	return swiommu_ioctl(ctx, &caller, cmd, (uintptr_t)arg);
}

static uint32_t ioas_alloc(void)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};
	long rc = call(IOMMU_IOAS_ALLOC, &cmd);

	if (rc)
		complain("IOAS_ALLOC", rc);
	return cmd.out_ioas_id;
}

static long destroy(uint32_t id)
{
	struct iommu_destroy cmd = {sizeof(cmd), id};

	return call(IOMMU_DESTROY, &cmd);
}

static uint64_t slot_iova(unsigned int i)
{
	return SLOT_BASE + i * SLOT_STRIDE;
}

static uint64_t slot_tag(unsigned int i)
{
	return 0x7a67000000000000u | i;
}

/* ---- mappers -------------------------------------------------------------------------------------- */

static void map_slot(unsigned int space, unsigned int i, struct slot *s)
{
	struct iommu_ioas_map cmd = {sizeof(cmd),	   FIXED | RW, spaces[space], 0,
				     (uintptr_t)s->memory, PAGE,       slot_iova(i)};
	long rc;

	for (unsigned int w = 1; w <= NR_DEVICES; w++)
		if (s->memory[w] != POISON)
			complain("DMA wrote to memory that was not mapped, word", w);
	s->memory[0] = slot_tag(i);
	rc = call(IOMMU_IOAS_MAP, &cmd);
	if (rc)
		complain("MAP", rc);
	else
		s->mapped = true;
}

static void unmap_slot(unsigned int space, unsigned int i, struct slot *s)
{
	struct iommu_ioas_unmap cmd = {sizeof(cmd), spaces[space], slot_iova(i), PAGE};
	long rc = call(IOMMU_IOAS_UNMAP, &cmd);

	if (rc || cmd.length != PAGE) {
		complain("UNMAP", rc);
		return;
	}
	for (unsigned int w = 0; w <= NR_DEVICES; w++)
		s->memory[w] = POISON;
	s->mapped = false;
}

static void mapper_step(struct thread *t)
{
	unsigned int space = t->nr / NR_MAPPERS;
	unsigned int i = t->nr % NR_MAPPERS * NR_SLOTS + below(t, NR_SLOTS);
	struct slot *s = &slots[space][i];

	if (s->mapped)
		unmap_slot(space, i, s);
	else
		map_slot(space, i, s);
	t->done++;
}

/* ---- devices -------------------------------------------------------------------------------------- */

static void check_attach(const char *what, long rc)
{
	/* -EINVAL: the group is elsewhere, or (replace) this member is not attached. */
	if (rc && rc != -EINVAL)
		complain(what, rc);
}

static void device_step(struct thread *t)
{
	struct iommufd_device *idev = idevs[t->nr];
	uint32_t pt = spaces[below(t, NR_SPACES)];
	long rc;

	if (!attached[t->nr]) {
		rc = iommufd_device_attach(idev, 0, &pt);
		check_attach("attach", rc);
		attached[t->nr] = !rc;
	} else if (below(t, 3)) {
		rc = iommufd_device_replace(idev, 0, &pt);
		check_attach("replace", rc);
	} else {
		iommufd_device_detach(idev, 0);
		attached[t->nr] = false;
		rc = 0;
	}
	t->done += !rc;
	/* Leave the others some time with this state. */
	if (below(t, 2))
		sched_yield();
}

static void dma_step(struct thread *t)
{
	unsigned int i = below(t, NR_MAPPERS * NR_SLOTS);
	uint64_t word = 0;
	int rc;

	if (below(t, 2)) {
		word = i;
		rc = swiommu_dma_write(dmas[t->nr], slot_iova(i) + 8 * (1 + t->nr), &word, 8);
	} else {
		rc = swiommu_dma_read(dmas[t->nr], slot_iova(i), &word, 8);
		if (!rc && word != slot_tag(i))
			complain(word == POISON ? "DMA read memory after UNMAP, slot"
						: "DMA read other memory, slot",
				 i);
	}
	t->done += !rc;
	if (rc && rc != -ENOENT && rc != -ENXIO)
		complain("DMA", rc);
}

/* ---- others --------------------------------------------------------------------------------------- */

static void copy_step(struct thread *t)
{
	unsigned int from = below(t, NR_SPACES), to = below(t, NR_SPACES);
	struct iommu_ioas_copy cmd = {
		.size = sizeof(cmd),
		.flags = FIXED | RW,
		.dst_ioas_id = spaces[to],
		.src_ioas_id = spaces[from],
		.length = PAGE,
		.dst_iova = COPY_BASE,
		.src_iova = slot_iova(below(t, NR_MAPPERS * NR_SLOTS)),
	};
	struct iommu_ioas_unmap undo = {sizeof(undo), spaces[to], COPY_BASE, PAGE};
	long rc = call(IOMMU_IOAS_COPY, &cmd);

	if (rc) {
		if (rc != -ENOENT)
			complain("COPY", rc);
		return;
	}
	t->done++;
	rc = call(IOMMU_IOAS_UNMAP, &undo);
	if (rc || undo.length != PAGE)
		complain("UNMAP of a copy", rc);
}

/* IOASes that live for a moment, and attempts on everybody else's IDs. */
static void destroy_step(struct thread *t)
{
	uint32_t mine = ioas_alloc(), victim = 1 + below(t, 20);
	struct iommu_ioas_map cmd = {sizeof(cmd), RW, mine, 0, 0x1000, 0x100 * PAGE, 0};
	long rc = call(IOMMU_IOAS_MAP, &cmd);

	if (rc)
		complain("MAP of a short-lived IOAS", rc);
	/* The shared IOASes are held by mappings of nobody: keep off those two. */
	if (victim > NR_SPACES && victim != mine) {
		rc = destroy(victim);
		if (rc != -ENOENT && rc != -EBUSY && rc)
			complain("DESTROY of any ID", rc);
	}
	rc = destroy(mine);
	/* The other one of us may have destroyed it, or may be looking at it. */
	if (rc && rc != -ENOENT)
		complain("DESTROY", rc);
	t->done++;
}

static void look_step(struct thread *t)
{
	struct iommu_iova_range range[4];
	uint32_t id = 1 + below(t, 16);
	struct iommu_ioas_iova_ranges ranges = {.size = sizeof(ranges),
						.ioas_id = id,
						.num_iovas = 4,
						.allowed_iovas = (uintptr_t)range};
	struct iommu_option option = {.size = sizeof(option),
				      .option_id = IOMMU_OPTION_HUGE_PAGES,
				      .op = IOMMU_OPTION_OP_GET,
				      .object_id = spaces[below(t, 2)]};
	long rc = id <= NR_SPACES ? call(IOMMU_IOAS_IOVA_RANGES, &ranges) : -ENOENT;

	if (rc && rc != -ENOENT)
		complain("IOVA_RANGES", rc);
	rc = call(IOMMU_OPTION, &option);
	if (rc)
		complain("OPTION", rc);
	t->done++;
}

/* ---- the run -------------------------------------------------------------------------------------- */

static void *thread_main(void *data)
{
	struct thread *t = data;

	while (!stop) {
		t->step(t);
		t->steps++;
	}
	return NULL;
}

static void set_scene(void)
{
	int rc = swiommu_open(NULL, &ctx);
	uint32_t id;

	for (unsigned int i = 0; i < NR_SPACES; i++)
		spaces[i] = ioas_alloc();
	for (unsigned int i = 0; i < NR_SPACES * NR_MAPPERS * NR_SLOTS; i++) {
		struct slot *s = &slots[i / (NR_MAPPERS * NR_SLOTS)][i % (NR_MAPPERS * NR_SLOTS)];

		s->memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				 -1, 0);
		for (unsigned int w = 0; w <= NR_DEVICES; w++)
			s->memory[w] = POISON;
	}
	for (unsigned int i = 0; i < 2; i++)
		rc |= iommu_group_init(&groups[i], i);
	for (unsigned int i = 0; i < NR_DEVICES && !rc; i++) {
		devices[i] = (struct device){
			.name = "stress", .group = &groups[i / 2], .iommu = &driver};
		idevs[i] = iommufd_device_bind(ctx, &devices[i], &id);
		rc = IS_ERR(idevs[i]) ? PTR_ERR(idevs[i]) : swiommu_dma_open(idevs[i], &dmas[i]);
	}
	if (rc) {
		printf("Bail out! setting the scene: %s\n", strerror(-rc));
		exit(1);
	}
}

/* Every slot is what its mapper believes, seen by DMA and by the number of bytes unmapped. */
static void check_final_state(void)
{
	uint64_t word, bytes;
	uint32_t pt;
	int rc;

	for (unsigned int space = 0; space < NR_SPACES; space++) {
		struct iommu_ioas_unmap cmd = {sizeof(cmd), spaces[space], 0, UINT64_MAX};

		pt = spaces[space];
		rc = iommufd_device_attach(idevs[0], 0, &pt);
		if (rc)
			complain("attach at the end", rc);
		bytes = 0;
		for (unsigned int i = 0; i < NR_MAPPERS * NR_SLOTS; i++) {
			struct slot *s = &slots[space][i];

			bytes += s->mapped ? PAGE : 0;
			rc = swiommu_dma_read(dmas[0], slot_iova(i), &word, 8);
			if (rc != (s->mapped ? 0 : -ENOENT))
				complain("DMA at the end", rc);
			if (s->mapped && word != slot_tag(i))
				complain("other memory at the end, slot", i);
		}
		rc = call(IOMMU_IOAS_UNMAP, &cmd);
		if (rc || cmd.length != bytes)
			complain("bytes mapped at the end, too many", cmd.length - bytes);
		iommufd_device_detach(idevs[0], 0);
	}
}

static void take_down(void)
{
	for (unsigned int i = 0; i < NR_DEVICES; i++)
		if (attached[i])
			iommufd_device_detach(idevs[i], 0);
	check_final_state();
	for (unsigned int i = 0; i < NR_DEVICES; i++) {
		swiommu_dma_close(dmas[i]);
		iommufd_device_unbind(idevs[i]);
	}
	/* An HWPT may have stayed because an attempt to destroy it met its last detach. */
	for (uint32_t id = 1; id < 50; id++)
		destroy(id);
	for (uint32_t id = 1; id < 50; id++)
		if (destroy(id) != -ENOENT)
			complain("an object is left", id);
	if (ioas_alloc() != 1)
		complain("ID 1 is not free", 0);
	swiommu_close(ctx);
	for (unsigned int i = 0; i < 2; i++)
		iommu_group_fini(&groups[i]);
}

static void start(struct thread *threads, unsigned int *n, unsigned int count,
		  void (*step)(struct thread *t), uint64_t seed)
{
	for (unsigned int i = 0; i < count; i++, ++*n) {
		threads[*n] = (struct thread){.step = step, .nr = i, .seed = seed + *n};
		if (pthread_create(&threads[*n].id, NULL, thread_main, &threads[*n])) {
			printf("Bail out! no thread\n");
			exit(1);
		}
	}
}

int main(int argc, char **argv)
{
	unsigned int seconds = argc > 1 ? atoi(argv[1]) : 3, n = 0;
	const char *env = getenv("SWIOMMU_TEST_SEED");
	uint64_t seed = env ? strtoull(env, NULL, 0) : (uint64_t)time(NULL) * 1000;
	struct timespec duration = {seconds, 0};
	struct thread threads[NR_THREADS];

	printf("1..1\n# SWIOMMU_TEST_SEED=%llu, %u s\n", (unsigned long long)seed, seconds);
	set_scene();
	start(threads, &n, NR_SPACES * NR_MAPPERS, mapper_step, seed);
	start(threads, &n, NR_DEVICES, device_step, seed);
	start(threads, &n, NR_DEVICES, dma_step, seed);
	start(threads, &n, 1, copy_step, seed);
	start(threads, &n, 1, destroy_step, seed);
	start(threads, &n, 1, look_step, seed);
	nanosleep(&duration, NULL);
	stop = true;
	for (unsigned int i = 0; i < n; i++) {
		pthread_join(threads[i].id, NULL);
		/* A thread that never got anything done has tested nothing. */
		if (!threads[i].done && seconds)
			complain("a thread that did nothing, number", i);
		printf("# thread %u: %lu of %lu steps\n", i, threads[i].done, threads[i].steps);
	}
	take_down();
	printf("%sok 1 - threads on one context, %u complaints\n", failures ? "not " : "",
	       failures);
	return failures != 0;
}
