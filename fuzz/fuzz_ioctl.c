// SPDX-License-Identifier: MIT
/*
 * Everything at once: ioctls of three contexts that share one accounts object (one of them with the test ABI),
 * devices that bind, attach, replace and do DMA, accesses that pin and move bytes, clients
 * with bad pointers, odd sizes and no privileges, memory that runs out.
 *
 * There is no oracle for all of it. Between calls the invariants of check.h must hold, DMA must move the bytes that the
 * tree says, and in the end nothing may be left: no charge, no pin, no descriptor, no memory.
 */
#include "ioctl_world.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <linux/iommufd.h>

#include "base/alloc.h"
#include "core/access.h"

#define MAX_CALLS 250u

static const struct iommu_driver fine_driver = {
	.name = "fine",
	.pgsize_bitmap = 1ull << 11 | 1ull << 12 | 1ull << 21,
	.aperture_first = 0x1000,
	.aperture_last = (1ull << 32) - 1,
};

static const struct iommu_driver coarse_driver = {
	.name = "coarse",
	.pgsize_bitmap = 1ull << 14,
	.aperture_last = UINT64_MAX,
};

/* ---- the surroundings ---------------------------------------------------------------------------- */

static void dump_line(void *data, const char *text)
{
	*(size_t *)data += strlen(text);
}

/* As far as the hard limit permits. */
static void set_memlock(rlim_t bytes)
{
	struct rlimit limit;

	FUZZ_CHECK(!getrlimit(RLIMIT_MEMLOCK, &limit), "getrlimit");
	limit.rlim_cur = SWI_MIN(bytes, limit.rlim_max);
	FUZZ_CHECK(!setrlimit(RLIMIT_MEMLOCK, &limit), "setrlimit");
}

static void do_surroundings(struct world *w)
{
	unsigned int ctx = take_ctx(w), what = pick(w->in, 10);
	uint64_t pinned = 1, locked;
	size_t length = 0;

	switch (what) {
	case 0:
	case 1:
		w->client.capable = what;
		break;
	case 2:
		set_memlock(pick(w->in, 100) * SWI_PAGE_SIZE);
		break;
	case 3:
	case 4:
		FUZZ_CHECK(!ftruncate(memfds[what - 3],
				      pick(w->in, FUZZ_MEMFD_PAGES + 1) * SWI_PAGE_SIZE),
			   "ftruncate");
		break;
	case 5:
		swiommu_dump(w->ctx[ctx], dump_line, &length);
		break;
	case 6:
		/* What is pinned, or used directly, must stay where it is. */
		swiommu_accounts_usage(w->accounts, getpid(), &pinned, &locked);
		for (unsigned int i = 0; i < NR_ACCESSES; i++)
			pinned |= w->access[i].access && w->access[i].access->direct;
		if (!pinned)
			FUZZ_CHECK(!mprotect(arena + 20 * SWI_PAGE_SIZE, 4 * SWI_PAGE_SIZE,
					     (int)pick(w->in, 4) & (PROT_READ | PROT_WRITE)),
				   "mprotect");
		break;
	case 7:
		/* The client closes something that it was given. */
		for (unsigned int i = w->client.nr_fds; i--;)
			if (w->client.fds[i].owned) {
				close(w->client.fds[i].fd);
				w->client.fds[i] = w->client.fds[--w->client.nr_fds];
				break;
			}
		swiommu_files_sweep(w->files);
		break;
	default:
		w->fail_next = 1 + pick(w->in, 40);
	}
}

/* ---- a sequence ---------------------------------------------------------------------------------- */

static void (*const steps[])(struct world *w) = {
	do_alloc,   do_destroy,	       do_map,		do_map,	   do_map,
	do_map,	    do_map_file,       do_map_file,	do_copy,   do_copy,
	do_unmap,   do_unmap,	       do_unmap,	do_ranges, do_option,
	do_hwpt,    do_hw_info,	       do_compat,	do_vfio,   do_vfio,
	do_raw,	    do_test,	       do_test,		do_test,   do_virtual,
	do_virtual, do_change_process, do_bind,		do_bind,   do_attach,
	do_attach,  do_attach,	       do_dma,		do_dma,	   do_access,
	do_access,  do_access,	       do_pin,		do_pin,	   do_pin,
	do_rw,	    do_surroundings,   do_surroundings,
};

static void on_fault(void *data, const struct swiommu_fault *fault)
{
	(void)data;
	FUZZ_CHECK(fault->length && is_known_errno(fault->error) && fault->device, "a fault: %d",
		   fault->error);
	FUZZ_CHECK(memchr(fault->nearest, 0, sizeof(fault->nearest)), "a text without end");
}

static void on_log(void *data, enum swiommu_log_level level, const char *line)
{
	(void)data;
	(void)level;
	FUZZ_CHECK(strlen(line) < 2000, "a long line");
}

static void start(struct world *w, struct input *in)
{
	static const struct iommu_driver *const drivers[NR_DEVICES] = {
		&iommu_generic_driver, &iommu_generic_driver, &fine_driver, &coarse_driver};
	static const unsigned int groups[NR_DEVICES] = {0, 0, 1, 2};
	struct swiommu_options options = {.hooks = {.log = on_log, .fault = on_fault}};

	memset(w, 0, sizeof(*w));
	w->in = in;
	client_init(&w->client);
	w->client.capable = true;
	client_give_fd(&w->client, memfds[0], false);
	client_give_fd(&w->client, memfds[1], false);
	client_give_fd(&w->client, STDIN_FILENO, false);
	FUZZ_CHECK(!swiommu_files_create(&w->files) && !swiommu_test_abi_create(&w->abi) &&
			   !swiommu_accounts_create(&w->accounts),
		   "no world");
	w->client.caller.files = w->files;
	options.accounts = w->accounts;
	for (unsigned int i = 0; i < NR_CTX; i++) {
		options.test_abi = i == TEST_CTX ? w->abi : NULL;
		FUZZ_CHECK(!swiommu_open_with(&options, &w->ctx[i]), "no context");
		w->client.ctx[i] = w->ctx[i];
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(w->group); i++)
		FUZZ_CHECK(!iommu_group_init(&w->group[i], i), "no group");
	for (unsigned int i = 0; i < NR_DEVICES; i++) {
		w->device[i].ioas = &w->group_ioas[groups[i]];
		w->device[i].dev = (struct device){
			.name = "fake", .group = &w->group[groups[i]], .iommu = drivers[i]};
	}
}

/* Something to begin with, so that short inputs get far: IOASes with a mapping, a device, an access. */
static void furnish(struct world *w)
{
	uint8_t what = take8(w->in);

	for (unsigned int i = 0; i < NR_CTX && what & 3; i++) {
		struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
		struct iommu_ioas_map map = {.size = sizeof(map), .flags = 7, .ioas_id = 1};

		map.user_va = (uintptr_t)arena + i * SWI_PAGE_SIZE;
		map.length = 4 * SWI_PAGE_SIZE;
		map.iova = 0x1000000;
		client_ioctl(&w->client, w->ctx[i], IOMMU_IOAS_ALLOC, &alloc, sizeof(alloc));
		client_ioctl(&w->client, w->ctx[i], IOMMU_IOAS_MAP, &map, sizeof(map));
	}
	if (what & 4)
		furnish_virtual(w);
	for (unsigned int i = 0; i < 5 && what & 1u << (i + 3); i++)
		(i % 2 ? do_access : do_bind)(w);
}

static void drop_drivers(struct world *w)
{
	for (unsigned int i = 0; i < NR_DEVICES; i++)
		leave(&w->device[i]);
	for (unsigned int i = 0; i < NR_ACCESSES; i++)
		drop_access(&w->access[i]);
	client_fini(&w->client);
	swiommu_files_destroy(w->files);
}

/* Drivers may outlive the client's last close, or the other way round. */
static void finish(struct world *w, bool drivers_first)
{
	if (drivers_first)
		drop_drivers(w);
	for (unsigned int i = 0; i < NR_CTX; i++)
		swiommu_close(w->ctx[i]);
	if (!drivers_first)
		drop_drivers(w);
	swiommu_test_abi_destroy(w->abi);
	for (unsigned int i = 0; i < ARRAY_SIZE(w->group); i++) {
		FUZZ_CHECK(!w->group[i].owner && !w->group[i].owner_count,
			   "a group is still owned");
		iommu_group_fini(&w->group[i]);
	}
	FUZZ_CHECK(!w->nr_pins, "%u pins are left", w->nr_pins);
	check_accounts_empty(w->accounts);
	swiommu_accounts_put(w->accounts);
}

static void check(struct world *w, bool translations)
{
	struct check c = {.ctx = w->ctx,
			  .nr_ctx = NR_CTX,
			  .accounts = w->accounts,
			  .pins = w->pins,
			  .nr_pins = w->nr_pins,
			  .unknown_pins = w->unknown_pins};

	check_contexts(&c);
	if (translations)
		check_translations(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	unsigned int fds, i;
	struct world w;

	fuzz_setup();
	fuzz_restore();
	set_memlock(RLIM_INFINITY);
	fds = fuzz_count_fds();
	start(&w, &in);
	furnish(&w);
	for (i = 0; in.left && i < MAX_CALLS; i++) {
		swi_alloc_fail_nth(w.fail_next);
		w.fail_next = 0;
		steps[pick(&in, ARRAY_SIZE(steps))](&w);
		swi_alloc_fail_nth(0);
		check(&w, i % 8 == 0);
	}
	check(&w, true);
	mprotect(arena + 20 * SWI_PAGE_SIZE, 4 * SWI_PAGE_SIZE, PROT_READ | PROT_WRITE);
	finish(&w, i % 2);
	FUZZ_CHECK(fuzz_count_fds() == fds, "descriptors: %u before, %u after", fds,
		   fuzz_count_fds());
	return 0;
}
