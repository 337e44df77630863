// SPDX-License-Identifier: MIT
/*
 * The test ABI at random: threads issue its ops, and the ioctls that change what they act on, with small IDs, so
 * that they meet; every fourth call has a failure injected. What each call answers does not matter. After
 * each round everything is closed, and then nothing may be pinned or charged any more; sanitizers see
 * the rest. Descriptors are passed among the threads and closed at any moment.
 *
 * usage: stress [SECONDS [SEED]]
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/iommufd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "core/selftest_abi.h"
#include <swiommu/swiommu.h>

#define PAGE 4096ull
#define PAGES 32
#define THREADS 4
#define SLOTS 16
#define IDS 12
#define ROUND_MS 500

struct world {
	struct swiommu_options options;
	struct swiommu_files *files;
	struct iommufd_ctx *ctx[2];
	char *mem;
	_Atomic int fds[SLOTS];
	_Atomic uint64_t calls, successes;
	int64_t round_end;
};

struct thread {
	struct world *w;
	struct swiommu_caller caller;
	struct iommufd_ctx *ctx; /* of this call */
	uint64_t state;
	pthread_t id;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

static uint64_t below(struct thread *t, uint64_t n)
{
	t->state ^= t->state << 13;
	t->state ^= t->state >> 7;
	t->state ^= t->state << 17;
	return t->state % n;
}

/* ---- arguments: mostly sensible ones ---------------------------------------------------------------- */

static uint32_t any_id(struct thread *t)
{
	return 1 + below(t, IDS);
}

static uint64_t any_memory(struct thread *t)
{
	switch (below(t, 10)) {
	case 0:
		return 0;
	case 1:
		return below(t, UINT64_MAX);
	default:
		return (uintptr_t)t->w->mem + below(t, 2 * PAGES) * (PAGE / 2);
	}
}

static uint64_t any_iova(struct thread *t)
{
	return below(t, 10) ? 0x1000000 + below(t, 64) * (PAGE / 2) : below(t, UINT64_MAX);
}

static uint64_t any_length(struct thread *t)
{
	return below(t, 10) ? (1 + below(t, 8)) * (PAGE / 2) : below(t, 20000000);
}

static _Atomic int *any_slot(struct thread *t)
{
	return &t->w->fds[below(t, SLOTS)];
}

static void put_fd(_Atomic int *slot, int fd)
{
	int old = atomic_exchange(slot, fd);

	if (old >= 0)
		close(old);
}

/* ---- calls -------------------------------------------------------------------------------------------- */

static long issue(struct thread *t, unsigned int cmd, void *arg)
{
	return swiommu_ioctl(t->ctx, &t->caller, cmd, (uintptr_t)arg);
}

static long any_test_op(struct thread *t)
{
	_Atomic int *slot = any_slot(t);
	struct iommu_test_cmd c = {.size = sizeof(c), .op = below(t, 25), .id = any_id(t)};
	long rc;

	switch (c.op) {
	case IOMMU_TEST_OP_ADD_RESERVED:
		c.add_reserved.start =
			below(t, 2) ? any_iova(t) : 0x10000000 + below(t, 100) * PAGE;
		c.add_reserved.length = PAGE;
		break;
	case IOMMU_TEST_OP_MD_CHECK_MAP:
		c.check_map.iova = any_iova(t);
		c.check_map.length = any_length(t);
		c.check_map.uptr = any_memory(t);
		break;
	case IOMMU_TEST_OP_MD_CHECK_REFS:
		c.check_refs.length = PAGE;
		c.check_refs.uptr = (uintptr_t)t->w->mem;
		c.check_refs.refs = below(t, 3);
		break;
	case IOMMU_TEST_OP_CREATE_ACCESS:
		c.create_access.flags = below(t, 2);
		break;
	case IOMMU_TEST_OP_DESTROY_ACCESS_PAGES:
		c.id = *slot;
		c.destroy_access_pages.access_pages_id = 1 + below(t, 6);
		break;
	case IOMMU_TEST_OP_ACCESS_PAGES:
		c.id = *slot;
		c.access_pages.flags = below(t, 2);
		c.access_pages.iova = any_iova(t) & ~(PAGE - 1);
		c.access_pages.length = any_length(t);
		c.access_pages.uptr = below(t, 2) ? 0 : any_memory(t);
		break;
	case IOMMU_TEST_OP_ACCESS_RW:
		c.id = *slot;
		c.access_rw.flags = (below(t, 2) ? MOCK_ACCESS_RW_WRITE : 0) |
				    (below(t, 2) ? MOCK_ACCESS_RW_SLOW_PATH : 0);
		c.access_rw.iova = any_iova(t);
		c.access_rw.length = any_length(t) % (16 * PAGE);
		c.access_rw.uptr = any_memory(t);
		break;
	case IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT:
		c.memory_limit.limit = below(t, 100);
		break;
	case IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE:
		c.mock_domain_replace.pt_id = any_id(t);
		break;
	case IOMMU_TEST_OP_ACCESS_REPLACE_IOAS:
		c.id = *slot;
		c.access_replace_ioas.ioas_id = any_id(t);
		break;
	case IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS:
		c.mock_domain.dev_flags = below(t, 8) & ~2u;
		break;
	case IOMMU_TEST_OP_DMABUF_GET:
		c.dmabuf_get.length = any_length(t);
		c.dmabuf_get.open_flags = O_CLOEXEC;
		break;
	case IOMMU_TEST_OP_DMABUF_REVOKE:
		c.dmabuf_revoke.dmabuf_fd = *slot;
		c.dmabuf_revoke.revoked = below(t, 2);
		break;
	default:
		break;
	}
	rc = issue(t, IOMMU_TEST_CMD, &c);
	if (rc >= 0 && c.op == IOMMU_TEST_OP_CREATE_ACCESS)
		put_fd(slot, c.create_access.out_access_fd);
	else if (rc >= 0 && c.op == IOMMU_TEST_OP_DMABUF_GET)
		put_fd(slot, rc);
	return rc;
}

static long any_map(struct thread *t)
{
	struct iommu_ioas_map map = {.size = sizeof(map),
				     .flags = below(t, 8),
				     .ioas_id = any_id(t),
				     .user_va = any_memory(t),
				     .length = any_length(t),
				     .iova = any_iova(t)};
	struct iommu_ioas_map_file file = {.size = sizeof(file),
					   .flags = 7,
					   .ioas_id = any_id(t),
					   .fd = *any_slot(t),
					   .length = any_length(t),
					   .iova = any_iova(t)};

	return below(t, 3) ? issue(t, IOMMU_IOAS_MAP, &map) : issue(t, IOMMU_IOAS_MAP_FILE, &file);
}

static long any_unmap(struct thread *t)
{
	bool all = below(t, 2);
	struct iommu_ioas_unmap cmd = {.size = sizeof(cmd),
				       .ioas_id = any_id(t),
				       .iova = all ? 0 : any_iova(t),
				       .length = all ? UINT64_MAX : any_length(t)};

	return issue(t, IOMMU_IOAS_UNMAP, &cmd);
}

static long any_copy(struct thread *t)
{
	bool nth = below(t, 2);
	struct iommu_ioas_copy cmd = {.size = sizeof(cmd),
				      .flags = 7 | (nth ? MOCK_FLAGS_ACCESS_SYZ : 0),
				      .dst_ioas_id = any_id(t),
				      .src_ioas_id = any_id(t),
				      .length = any_length(t),
				      .dst_iova = any_iova(t),
				      .src_iova = nth ? below(t, 4) : any_iova(t)};

	return issue(t, IOMMU_IOAS_COPY, &cmd);
}

static long any_call(struct thread *t)
{
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct iommu_destroy destroy = {.size = sizeof(destroy), .id = any_id(t)};
	struct iommu_hwpt_alloc hwpt = {.size = sizeof(hwpt),
					.flags = below(t, 2),
					.dev_id = any_id(t),
					.pt_id = any_id(t)};

	switch (below(t, 10)) {
	case 0:
		return issue(t, IOMMU_IOAS_ALLOC, &alloc);
	case 1:
		return issue(t, IOMMU_DESTROY, &destroy);
	case 2:
		return issue(t, IOMMU_HWPT_ALLOC, &hwpt);
	case 3:
		return any_map(t);
	case 4:
		return any_unmap(t);
	case 5:
		return any_copy(t);
	case 6:
		put_fd(any_slot(t), -1);
		return 0;
	default:
		return any_test_op(t);
	}
}

static void *run(void *arg)
{
	struct thread *t = arg;
	struct world *w = t->w;

	swiommu_caller_local(&t->caller);
	t->caller.files = w->files;
	while (now_ms() < w->round_end) {
		t->ctx = w->ctx[below(t, 2)];
		if (!below(t, 4))
			swi_alloc_fail_nth(1 + below(t, 30));
		w->successes += any_call(t) >= 0;
		swi_alloc_fail_nth(0);
		w->calls++;
	}
	return NULL;
}

/* ---- rounds --------------------------------------------------------------------------------------------- */

/* Whether something is left after everything has been closed. */
static bool leftovers(struct world *w)
{
	struct iommu_test_cmd c = {
		.size = sizeof(c),
		.op = IOMMU_TEST_OP_MD_CHECK_REFS,
		.check_refs = {.length = PAGES * PAGE, .uptr = (uintptr_t)w->mem}};
	struct swiommu_caller caller;
	struct iommufd_ctx *ctx;
	uint64_t pinned = 0, locked = 0;
	long rc;

	swiommu_caller_local(&caller);
	caller.files = w->files;
	if (swiommu_open_with(&w->options, &ctx))
		return true;
	rc = swiommu_ioctl(ctx, &caller, IOMMU_TEST_CMD, (uintptr_t)&c);
	swiommu_close(ctx);
	swiommu_accounts_usage(w->options.accounts, getpid(), &pinned, &locked);
	if (rc || pinned || locked)
		printf("# left: check of pins %ld %s, charged %" PRIu64 " and %" PRIu64 " pages\n",
		       rc, caller.reason, pinned, locked);
	return rc || pinned || locked;
}

static bool one_round(struct world *w, uint64_t seed)
{
	struct thread threads[THREADS] = {0};

	for (int i = 0; i < 2; i++)
		if (swiommu_open_with(&w->options, &w->ctx[i]))
			return false;
	w->round_end = now_ms() + ROUND_MS;
	for (int i = 0; i < THREADS; i++) {
		threads[i].w = w;
		threads[i].state = (seed * THREADS + i + 1) * 0x9e3779b97f4a7c15ull;
		pthread_create(&threads[i].id, NULL, run, &threads[i]);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i].id, NULL);
	for (int i = 0; i < SLOTS; i++)
		put_fd(&w->fds[i], -1);
	for (int i = 0; i < 2; i++)
		swiommu_close(w->ctx[i]);
	return !leftovers(w);
}

/* Pages with nothing behind them for as long as any mapping can be: ours would be written to else. */
static char *guarded_memory(void)
{
	char *mem =
		mmap(NULL, 64 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mem == MAP_FAILED)
		return mem;
	return mmap(mem, PAGES * PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

int main(int argc, char **argv)
{
	int64_t end = now_ms() + (argc > 1 ? atoi(argv[1]) : 4) * 1000ll;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL);
	struct world w = {0};
	bool ok = true;

	for (int i = 0; i < SLOTS; i++)
		w.fds[i] = -1;
	w.mem = guarded_memory();
	if (swiommu_test_abi_create(&w.options.test_abi) ||
	    swiommu_accounts_create(&w.options.accounts) || swiommu_files_create(&w.files) ||
	    w.mem == MAP_FAILED)
		return 1;
	printf("1..1\n# seed %" PRIu64 "\n", seed);
	while (ok && now_ms() < end)
		ok = one_round(&w, seed++);
	/* A run in which hardly anything succeeds would test nothing. */
	ok = ok && w.successes > w.calls / 20;
	printf("# %" PRIu64 " calls, %" PRIu64
	       " of them succeeded\n%s 1 nothing is left after random calls\n",
	       w.calls, w.successes, ok ? "ok" : "not ok");
	swiommu_files_destroy(w.files);
	swiommu_test_abi_destroy(w.options.test_abi);
	swiommu_accounts_put(w.options.accounts);
	return !ok;
}
