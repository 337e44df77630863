// SPDX-License-Identifier: MIT
/*
 * What the ioctls make of pins and charges: domains that come and go, COPY, cuts, CHANGE_PROCESS.
 * Rows of spec core.md section 9 in brackets. The calling process is whoever a test says it is.
 */
#include "program.h"

#include <linux/capability.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include <swiommu/iommufd.h>

#include "base/alloc.h"
#include "mem/accounts.h"

#define BASE 0x1000000ull

struct world {
	struct mem_accounts *accounts;
	struct iommufd_ctx *ctx;
	struct swiommu_caller caller;
	struct swiommu_caller_ops ops;
	struct program p, q; /* two processes to be charged */
	struct iommu_group group;
	struct device dev;
	struct iommufd_device *idev;
};

/* Who calls. */
static pid_t calling_pid;
static uid_t calling_uid;
static bool privileged;

static int get_account(struct swiommu_caller *c, pid_t *process, uid_t *user)
{
	(void)c;
	*process = calling_pid;
	*user = calling_uid;
	return 0;
}

static bool capable(struct swiommu_caller *c, int cap)
{
	(void)c;
	return cap == CAP_IPC_LOCK ? privileged : true;
}

static void call_as(pid_t pid, uid_t uid, bool lock)
{
	calling_pid = pid;
	calling_uid = uid;
	privileged = lock;
}

static void set_limit(pid_t pid, unsigned pages)
{
	struct rlimit rl;

	assert_return_code(prlimit(pid, RLIMIT_MEMLOCK, NULL, &rl), errno);
	rl.rlim_cur = pages * PAGE;
	assert_return_code(prlimit(pid, RLIMIT_MEMLOCK, &rl, NULL), errno);
}

static int start(void **state)
{
	static struct world w;
	struct swiommu_options opt = {0};

	memset(&w, 0, sizeof(w));
	program_start(&w.p);
	program_start(&w.q);
	assert_int_equal(swiommu_accounts_create(&w.accounts), 0);
	opt.accounts = w.accounts;
	assert_int_equal(swiommu_open_with(&opt, &w.ctx), 0);
	swiommu_caller_local(&w.caller);
	w.ops = *w.caller.ops;
	w.ops.get_account = get_account;
	w.ops.capable = capable;
	w.caller.ops = &w.ops;
	assert_int_equal(iommu_group_init(&w.group, 1), 0);
	w.dev = (struct device){.name = "dev", .group = &w.group, .iommu = &iommu_generic_driver};
	call_as(w.p.pid, 7, false);
	*state = &w;
	return 0;
}

static void pages(struct world *w, pid_t pid, uint64_t pinned, uint64_t locked)
{
	uint64_t pin, lock;

	assert_int_equal(swiommu_accounts_usage(w->accounts, pid, &pin, &lock), 0);
	assert_int_equal(pin, pinned);
	assert_int_equal(lock, locked);
}

static int stop(void **state)
{
	struct world *w = *state;

	if (w->idev) {
		iommufd_device_detach(w->idev, 0);
		iommufd_device_unbind(w->idev);
	}
	swiommu_close(w->ctx);
	pages(w, w->p.pid, 0, 0);
	pages(w, w->q.pid, 0, 0);
	assert_int_equal(mem_accounts_user_pages(w->accounts, 7), 0);
	assert_int_equal(mem_accounts_user_pages(w->accounts, 8), 0);
	iommu_group_fini(&w->group);
	swiommu_accounts_put(w->accounts);
	program_stop(&w->p);
	program_stop(&w->q);
	return 0;
}

static long call(struct world *w, unsigned cmd, void *arg)
{
	return swiommu_ioctl(w->ctx, &w->caller, cmd, (uintptr_t)arg);
}

static uint32_t ioas_new(struct world *w)
{
	struct iommu_ioas_alloc a = {.size = sizeof(a)};

	assert_int_equal(call(w, IOMMU_IOAS_ALLOC, &a), 0);
	return a.out_ioas_id;
}

static long map_file(struct world *w, uint32_t ioas, int fd, uint64_t at, unsigned n, uint64_t iova)
{
	struct iommu_ioas_map_file m = {
		.size = sizeof(m),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 IOMMU_IOAS_MAP_WRITEABLE,
		.ioas_id = ioas,
		.fd = fd,
		.start = at,
		.length = n * PAGE,
		.iova = iova,
	};

	return call(w, IOMMU_IOAS_MAP_FILE, &m);
}

static long map_memory(struct world *w, uint32_t ioas, void *p, unsigned n, uint64_t iova)
{
	struct iommu_ioas_map m = {
		.size = sizeof(m),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE,
		.ioas_id = ioas,
		.user_va = (uintptr_t)p,
		.length = n * PAGE,
		.iova = iova,
	};

	return call(w, IOMMU_IOAS_MAP, &m);
}

static long copy(struct world *w, uint32_t from, uint32_t to, uint64_t src, unsigned n,
		 uint64_t dst)
{
	struct iommu_ioas_copy c = {
		.size = sizeof(c),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE,
		.dst_ioas_id = to,
		.src_ioas_id = from,
		.length = n * PAGE,
		.dst_iova = dst,
		.src_iova = src,
	};

	return call(w, IOMMU_IOAS_COPY, &c);
}

static long unmap(struct world *w, uint32_t ioas, uint64_t iova, unsigned n)
{
	struct iommu_ioas_unmap u = {
		.size = sizeof(u), .ioas_id = ioas, .iova = iova, .length = n * PAGE};

	return call(w, IOMMU_IOAS_UNMAP, &u);
}

static long change(struct world *w)
{
	struct iommu_ioas_change_process c = {.size = sizeof(c)};

	return call(w, IOMMU_IOAS_CHANGE_PROCESS, &c);
}

static int attach(struct world *w, uint32_t ioas)
{
	uint32_t id;

	if (!w->idev) {
		w->idev = iommufd_device_bind(w->ctx, &w->dev, &id);
		assert_false(IS_ERR(w->idev));
	}
	return iommufd_device_attach(w->idev, 0, &ioas);
}

static int empty_memfd(unsigned n)
{
	int fd = memfd_create("change", MFD_CLOEXEC);

	assert_return_code(ftruncate(fd, (off_t)(n * PAGE)), errno);
	return fd;
}

/* ---- pins under domains --------------------------------------------------------------------- */

static void areas_pin_their_own_pages(void **state) /* example of core.md 5.2 */
{
	struct world *w = *state;
	uint32_t a = ioas_new(w), b = ioas_new(w);
	int fd = empty_memfd(8);

	assert_int_equal(map_file(w, a, fd, 0, 8, BASE), 0);
	pages(w, w->p.pid, 0, 0); /* lazy */
	assert_int_equal(copy(w, a, b, BASE + 2 * PAGE, 2, BASE), 0);
	assert_int_equal(attach(w, b), 0);
	pages(w, w->p.pid, 2, 0);
	assert_int_equal(copy(w, a, b, BASE, 8, BASE + 16 * PAGE), 0);
	pages(w, w->p.pid, 8, 0);
	assert_int_equal(unmap(w, a, BASE, 8), 0);
	pages(w, w->p.pid, 8, 0);
	assert_int_equal(unmap(w, b, BASE + 16 * PAGE, 8), 0);
	pages(w, w->p.pid, 2, 0);
	iommufd_device_detach(w->idev, 0);
	pages(w, w->p.pid, 0, 0);
	assert_int_equal(attach(w, b), 0);
	pages(w, w->p.pid, 2, 0);
	assert_int_equal(unmap(w, b, BASE, 2), 0);
	pages(w, w->p.pid, 0, 0);
	close(fd);
}

static void cutting_keeps_the_counts(void **state)
{
	struct world *w = *state;
	struct iommu_vfio_ioas v = {.size = sizeof(v), .op = IOMMU_VFIO_IOAS_SET};
	struct vfio_iommu_type1_dma_map m = {.argsz = sizeof(m),
					     .flags = VFIO_DMA_MAP_FLAG_READ,
					     .iova = BASE,
					     .size = 8 * PAGE};
	struct vfio_iommu_type1_dma_unmap u;
	unsigned nth, left = 8;
	char *p = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	v.ioas_id = ioas_new(w);
	m.vaddr = (uintptr_t)p;
	assert_int_equal(call(w, IOMMU_VFIO_IOAS, &v), 0);
	assert_int_equal(swiommu_ioctl(w->ctx, &w->caller, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU), 0);
	assert_int_equal(attach(w, v.ioas_id), 0);
	assert_int_equal(call(w, VFIO_IOMMU_MAP_DMA, &m), 0);
	pages(w, w->p.pid, 8, 0);
	/* Pages 2, then 5-6, then the ends; memory runs out on the way. */
	static const struct {
		unsigned first, n;
	} cuts[] = {{2, 1}, {5, 2}, {0, 1}, {7, 1}, {1, 1}, {3, 2}};

	for (unsigned i = 0; i < ARRAY_SIZE(cuts); i++) {
		for (nth = 1; nth < 50; nth++) {
			long rc;

			u = (struct vfio_iommu_type1_dma_unmap){.argsz = sizeof(u),
								.iova = BASE + cuts[i].first * PAGE,
								.size = cuts[i].n * PAGE};
			swi_alloc_fail_nth(nth);
			rc = call(w, VFIO_IOMMU_UNMAP_DMA, &u);
			if (swi_alloc_fail_nth(0)) {
				assert_int_equal(rc, 0);
				break;
			}
			/* An injected lookup failure says that there is no IOAS. */
			if (!rc)
				break;
			pages(w, w->p.pid, left, 0);
		}
		left -= cuts[i].n;
		pages(w, w->p.pid, left, 0);
	}
	assert_int_equal(left, 0);
	munmap(p, 8 * PAGE);
}

static void limits_hold_for_mappings(void **state) /* [91] [93] [94] [97] */
{
	struct world *w = *state;
	uint32_t a = ioas_new(w), b = ioas_new(w);
	int fd = empty_memfd(32);

	set_limit(w->p.pid, 16);
	/* Lazily, so there is no limit; when they are pinned the first fits. */
	assert_int_equal(map_file(w, b, fd, 0, 8, BASE), 0);
	assert_int_equal(map_file(w, b, fd, 8 * PAGE, 4, BASE + 32 * PAGE), 0);
	assert_int_equal(map_file(w, b, fd, 0, 32, BASE + 64 * PAGE), 0);
	call_as(w->q.pid, 9, true);
	assert_int_equal(attach(w, b), -ENOMEM); /* the mapper's limit, not the caller's */
	pages(w, w->p.pid, 0, 0);
	call_as(w->p.pid, 7, false);
	assert_int_equal(attach(w, a), 0);
	assert_int_equal(map_file(w, a, fd, 0, 16, BASE), 0);
	assert_int_equal(map_file(w, a, fd, 0, 1, BASE + 64 * PAGE), -ENOMEM);
	assert_non_null(strstr(w->caller.reason, "RLIMIT_MEMLOCK"));
	assert_int_equal(copy(w, a, a, BASE, 16, BASE + 64 * PAGE), 0);
	pages(w, w->p.pid, 16, 0);
	call_as(w->p.pid, 7, true);
	assert_int_equal(map_file(w, a, fd, 0, 32, BASE + 128 * PAGE), 0);
	pages(w, w->p.pid, 48, 0);
	assert_int_equal(mem_accounts_user_pages(w->accounts, 7), 16);
	close(fd);
}

/* Two contexts of one system share their counters, one with its own does not. */
static void contexts_share_a_user(void **state) /* [92] */
{
	struct world *w = *state;
	struct swiommu_options opt = {.accounts = w->accounts};
	struct iommufd_ctx *first = w->ctx, *second;
	uint32_t a = ioas_new(w), b;
	struct iommu_group group;
	struct device dev;
	struct iommufd_device *idev, *old;
	int fd = empty_memfd(16);

	set_limit(w->p.pid, 16);
	assert_int_equal(attach(w, a), 0);
	assert_int_equal(map_file(w, a, fd, 0, 16, BASE), 0);
	assert_int_equal(iommu_group_init(&group, 2), 0);
	dev = (struct device){.name = "two", .group = &group, .iommu = &iommu_generic_driver};
	for (int own = 0; own < 2; own++) {
		assert_int_equal(
			own ? swiommu_open(NULL, &second) : swiommu_open_with(&opt, &second), 0);
		w->ctx = second;
		b = ioas_new(w);
		old = w->idev;
		idev = iommufd_device_bind(second, &dev, &(uint32_t){0});
		assert_false(IS_ERR(idev));
		assert_int_equal(iommufd_device_attach(idev, 0, &b), 0);
		w->idev = old;
		b = 1;
		assert_int_equal(map_file(w, b, fd, 0, 1, BASE), own ? 0 : -ENOMEM);
		iommufd_device_detach(idev, 0);
		iommufd_device_unbind(idev);
		swiommu_close(second);
	}
	w->ctx = first;
	iommu_group_fini(&group);
	close(fd);
}

static void rlimit_mode_process(void **state) /* [96] */
{
	struct world *w = *state;
	struct iommu_option o = {.size = sizeof(o),
				 .option_id = IOMMU_OPTION_RLIMIT_MODE,
				 .op = IOMMU_OPTION_OP_SET,
				 .val64 = 1};
	uint64_t at = program_anon(&w->p, 8 * PAGE, MAP_PRIVATE, 1);
	int fd = empty_memfd(16);
	uint32_t a;

	set_limit(w->p.pid, 16);
	assert_int_equal(call(w, IOMMU_OPTION, &o), 0);
	assert_int_equal(program_call(&w->p, SYS_mlock, (long)at, 8 * PAGE), 0);
	a = ioas_new(w);
	assert_int_equal(attach(w, a), 0);
	assert_int_equal(map_file(w, a, fd, 0, 9, BASE), -ENOMEM);
	assert_int_equal(map_file(w, a, fd, 0, 8, BASE), 0);
	pages(w, w->p.pid, 8, 8);
	assert_int_equal(mem_accounts_user_pages(w->accounts, 7), 0);
	/* The charge of a process goes wholly to the next one. */
	call_as(w->q.pid, 7, false);
	set_limit(w->q.pid, 7);
	assert_int_equal(change(w), -ENOMEM);
	pages(w, w->p.pid, 8, 8);
	set_limit(w->q.pid, 8);
	assert_int_equal(change(w), 0);
	pages(w, w->p.pid, 0, 0);
	pages(w, w->q.pid, 8, 8);
	close(fd);
}

/* ---- CHANGE_PROCESS ------------------------------------------------------------------------- */

static void change_checks(void **state) /* [98] [99] */
{
	struct iommu_ioas_change_process c = {.size = sizeof(c), .__reserved = 1};
	static char memory[2 * PAGE];
	struct world *w = *state;
	uint32_t a;
	int fd = empty_memfd(1);

	assert_int_equal(call(w, IOMMU_IOAS_CHANGE_PROCESS, &c), -EOPNOTSUPP);
	c.size = 4;
	assert_int_equal(call(w, IOMMU_IOAS_CHANGE_PROCESS, &c), -EINVAL);
	assert_int_equal(change(w), 0);
	a = ioas_new(w);
	assert_int_equal(change(w), 0);
	assert_int_equal(map_file(w, a, fd, 0, 1, BASE), 0);
	assert_int_equal(change(w), 0);
	ioas_new(w);
	assert_int_equal(map_memory(w, ioas_new(w), memory, 1, BASE), 0);
	assert_int_equal(change(w), -EINVAL);
	assert_non_null(strstr(w->caller.reason, "MAP_FILE"));
	close(fd);
}

static void change_needs_room_twice(void **state) /* [100] */
{
	struct world *w = *state;
	uint32_t a = ioas_new(w);
	int fd = empty_memfd(16);
	unsigned nth;
	long rc;

	set_limit(w->p.pid, 16);
	set_limit(w->q.pid, 16);
	assert_int_equal(attach(w, a), 0);
	assert_int_equal(map_file(w, a, fd, 0, 16, BASE), 0);
	assert_int_equal(change(w), 0); /* it is the same process */
	call_as(w->q.pid, 7, false);
	assert_int_equal(change(w), -ENOMEM);
	pages(w, w->p.pid, 16, 0);
	set_limit(w->q.pid, 32);
	for (nth = 1; nth < 50; nth++) {
		swi_alloc_fail_nth(nth);
		rc = change(w);
		if (swi_alloc_fail_nth(0) || !rc)
			break;
		/* The lookups of arguments can be made to fail, too. */
		assert_true(rc == -ENOMEM || rc == -EFAULT);
		pages(w, w->p.pid, 16, 0);
		pages(w, w->q.pid, 0, 0);
	}
	assert_int_equal(rc, 0);
	assert_in_range(nth, 2, 49);
	pages(w, w->p.pid, 0, 0);
	pages(w, w->q.pid, 16, 0);
	assert_int_equal(mem_accounts_user_pages(w->accounts, 7), 16);
	close(fd);
}

static void change_counts_each_backing_once(void **state) /* [101] [124] */
{
	struct world *w = *state;
	uint32_t a = ioas_new(w), b = ioas_new(w);
	int fd = empty_memfd(8);

	assert_int_equal(attach(w, a), 0);
	assert_int_equal(map_file(w, a, fd, 0, 8, BASE), 0);
	assert_int_equal(copy(w, a, a, BASE, 8, BASE + 8 * PAGE), 0);
	assert_int_equal(copy(w, a, b, BASE, 8, BASE), 0);
	call_as(w->q.pid, 8, false);
	set_limit(w->q.pid, 10);
	assert_int_equal(change(w), 0);
	pages(w, w->p.pid, 0, 0);
	pages(w, w->q.pid, 8, 0);
	assert_int_equal(mem_accounts_user_pages(w->accounts, 7), 0);
	assert_int_equal(mem_accounts_user_pages(w->accounts, 8), 8);
	/* Pinned without a limit: moves as well (Q12), and is given back where it is. */
	call_as(w->p.pid, 7, true);
	assert_int_equal(map_file(w, a, fd, 0, 4, BASE + 64 * PAGE), 0);
	pages(w, w->p.pid, 4, 0);
	call_as(w->q.pid, 8, false);
	assert_int_equal(change(w), 0);
	pages(w, w->p.pid, 0, 0);
	pages(w, w->q.pid, 12, 0);
	assert_int_equal(unmap(w, a, BASE + 64 * PAGE, 4), 0);
	pages(w, w->q.pid, 8, 0);
	close(fd);
}

static void change_after_the_mapper_has_gone(void **state) /* Q2 */
{
	struct world *w = *state;
	uint32_t a = ioas_new(w);
	int fd = empty_memfd(8);
	struct program r;

	program_start(&r);
	call_as(r.pid, 7, false);
	assert_int_equal(attach(w, a), 0);
	assert_int_equal(map_file(w, a, fd, 0, 8, BASE), 0);
	program_stop(&r);
	call_as(w->q.pid, 8, false);
	assert_int_equal(change(w), 0);
	assert_int_equal(mem_accounts_user_pages(w->accounts, 7), 0);
	pages(w, w->q.pid, 8, 0);
	assert_int_equal(unmap(w, a, BASE, 8), 0);
	pages(w, w->q.pid, 0, 0);
	close(fd);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		T(areas_pin_their_own_pages),
		T(cutting_keeps_the_counts),
		T(limits_hold_for_mappings),
		T(contexts_share_a_user),
		T(rlimit_mode_process),
		T(change_checks),
		T(change_needs_room_twice),
		T(change_counts_each_backing_once),
		T(change_after_the_mapper_has_gone),
	};
	return cmocka_run_group_tests_name("change", tests, NULL, NULL);
}
