// SPDX-License-Identifier: MIT
/*
 * Every failure point of every call fails once: each allocation, look-up, copy and pin that can.
 *
 * A step is one call on a scene that is set up anew each time. It runs with the 1st, 2nd, ... of its
 * failure points failing until none fails any more. Each failed run must answer a fitting errno and
 * leave the scene as it was, which is compared by everything that can be seen: IDs, mappings,
 * ranges, alignment, options, whether devices reach their memory. The exception is the kernel's: where
 * only the answer could not be written any more, what was done stays done. Steps that take things away
 * must not ask for memory at all. That nothing leaks is the sanitizer's to say.
 */
#include <errno.h>
#include <linux/iommufd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include <swiommu/iommufd.h>

#define PAGE 4096ull
#define RW (IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE)
#define FIXED IOMMU_IOAS_MAP_FIXED_IOVA
#define BASE 0x1000000ull /* where device 0 can reach */
#define STEP_LIMIT 1000

/* ---- the scene ---------------------------------------------------------------------------------- */

/*
 * IOAS `full` has mappings and, when attached, devices; `other` has a few mappings that a device may
 * be moved to; `empty` has nothing. Two devices are in one group, the third is alone behind another IOMMU.
 */
struct scene {
	struct iommufd_ctx *ctx;
	uint32_t full, other, empty;
	char *memory; /* 16 pages */
	int memfd;
	struct iommu_group group[2];
	struct device dev[3];
	struct iommufd_device *idev[3];
	struct swiommu_dma *dma[3];
	bool attached[3];
	uint32_t spare_id;
};

static const struct iommu_resv_region windows[] = {{0x2000000, 0x2ffffff, IOMMU_RESV_MSI},
						   {0x5000000, 0x50fffff, IOMMU_RESV_RESERVED}};

static const struct iommu_driver drivers[2] = {
	{.name = "sweep",
	 .pgsize_bitmap = 2048 | PAGE,
	 .aperture_first = BASE,
	 .aperture_last = 0x7fffffff,
	 .resv = windows,
	 .nr_resv = 2},
	{.name = "sweep-2",
	 .pgsize_bitmap = PAGE,
	 .aperture_first = BASE,
	 .aperture_last = (1ull << 40) - 1},
};

static long call(struct scene *s, unsigned int cmd, void *arg)
{
	struct swiommu_caller caller;

	swiommu_caller_local(&caller);
	return swiommu_ioctl(s->ctx, &caller, cmd, (uintptr_t)arg);
}

static void must(long rc, const char *what)
{
	if (!rc)
		return;
	printf("Bail out! setting the scene: %s: %s\n", what, strerror(-rc));
	exit(1);
}

static long ioas_alloc(struct scene *s, uint32_t *id)
{
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};
	long rc = call(s, IOMMU_IOAS_ALLOC, &cmd);

	*id = cmd.out_ioas_id;
	return rc;
}

static long destroy(struct scene *s, uint32_t id)
{
	struct iommu_destroy cmd = {sizeof(cmd), id};

	return call(s, IOMMU_DESTROY, &cmd);
}

static long map(struct scene *s, uint32_t ioas, uint32_t flags, uint64_t iova, char *va,
		uint64_t len)
{
	struct iommu_ioas_map cmd = {sizeof(cmd), flags, ioas, 0, (uintptr_t)va, len, iova};

	return call(s, IOMMU_IOAS_MAP, &cmd);
}

static long copy(struct scene *s, uint32_t dst, uint32_t src, uint64_t iova, uint64_t len)
{
	struct iommu_ioas_copy cmd = {.size = sizeof(cmd),
				      .flags = RW,
				      .dst_ioas_id = dst,
				      .src_ioas_id = src,
				      .length = len,
				      .src_iova = iova};

	return call(s, IOMMU_IOAS_COPY, &cmd);
}

static long unmap(struct scene *s, uint32_t ioas, uint64_t iova, uint64_t len)
{
	struct iommu_ioas_unmap cmd = {sizeof(cmd), ioas, iova, len};

	return call(s, IOMMU_IOAS_UNMAP, &cmd);
}

static long bind(struct scene *s, int i)
{
	uint32_t id;
	struct iommufd_device *idev = iommufd_device_bind(s->ctx, &s->dev[i], &id);

	if (IS_ERR(idev))
		return PTR_ERR(idev);
	s->idev[i] = idev;
	return 0;
}

static long attach(struct scene *s, int i, uint32_t pt)
{
	long rc = iommufd_device_attach(s->idev[i], 0, &pt);

	if (!rc)
		s->attached[i] = true;
	return rc;
}

static void scene_init(struct scene *s)
{
	memset(s, 0, sizeof(*s));
	must(swiommu_open(NULL, &s->ctx), "open");
	must(ioas_alloc(s, &s->full), "IOAS_ALLOC");
	must(ioas_alloc(s, &s->other), "IOAS_ALLOC");
	must(ioas_alloc(s, &s->empty), "IOAS_ALLOC");
	s->memory =
		mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	s->memfd = memfd_create("sweep", MFD_CLOEXEC);
	must(s->memory == MAP_FAILED || s->memfd < 0 || ftruncate(s->memfd, 4 * PAGE), "memory");
	for (int i = 0; i < 4; i++)
		must(map(s, s->full, FIXED | RW, BASE + i * PAGE, s->memory + i * PAGE, PAGE),
		     "MAP");
	must(map(s, s->other, FIXED | RW, BASE, s->memory + 8 * PAGE, 2 * PAGE), "MAP");
	for (int i = 0; i < 2; i++)
		must(iommu_group_init(&s->group[i], i), "group");
	for (int i = 0; i < 3; i++)
		s->dev[i] = (struct device){
			.name = "sweep", .group = &s->group[i / 2], .iommu = &drivers[i / 2]};
}

static void bind_all(struct scene *s)
{
	for (int i = 0; i < 3; i++) {
		must(bind(s, i), "bind");
		must(swiommu_dma_open(s->idev[i], &s->dma[i]), "DMA handle");
	}
}

static void attach_one(struct scene *s)
{
	bind_all(s);
	must(attach(s, 0, s->full), "attach");
}

static void attach_all(struct scene *s)
{
	attach_one(s);
	must(attach(s, 1, s->full), "attach");
	must(attach(s, 2, s->full), "attach");
}

static void scene_fini(struct scene *s)
{
	for (int i = 0; i < 3; i++) {
		if (s->attached[i])
			iommufd_device_detach(s->idev[i], 0);
		if (s->dma[i])
			swiommu_dma_close(s->dma[i]);
		if (s->idev[i])
			iommufd_device_unbind(s->idev[i]);
	}
	swiommu_close(s->ctx);
	for (int i = 0; i < 2; i++)
		iommu_group_fini(&s->group[i]);
	munmap(s->memory, 16 * PAGE);
	close(s->memfd);
}

/* ---- what can be seen of it ----------------------------------------------------------------------- */

struct picture {
	char text[16384];
	size_t len;
};

static void paint(struct picture *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void paint(struct picture *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	p->len += vsnprintf(p->text + p->len, sizeof(p->text) - p->len, fmt, ap);
	va_end(ap);
	if (p->len >= sizeof(p->text)) {
		printf("Bail out! the picture is too large\n");
		exit(1);
	}
}

static void paint_line(void *data, const char *line)
{
	paint(data, "%s\n", line);
}

static void paint_ioas(struct scene *s, struct picture *p, uint32_t ioas)
{
	struct iommu_iova_range ranges[16];
	struct iommu_ioas_iova_ranges cmd = {.size = sizeof(cmd),
					     .ioas_id = ioas,
					     .num_iovas = 16,
					     .allowed_iovas = (uintptr_t)ranges};
	struct iommu_option opt = {.size = sizeof(opt),
				   .option_id = IOMMU_OPTION_HUGE_PAGES,
				   .op = IOMMU_OPTION_OP_GET,
				   .object_id = ioas};
	struct iommu_ioas_map probe = {sizeof(probe),	     RW,       ioas, 0,
				       (uintptr_t)s->memory, 4 * PAGE, 0};

	must(call(s, IOMMU_IOAS_IOVA_RANGES, &cmd), "IOVA_RANGES");
	must(call(s, IOMMU_OPTION, &opt), "OPTION");
	paint(p, "ioas %u align %llu huge %llu usable", ioas,
	      (unsigned long long)cmd.out_iova_alignment, (unsigned long long)opt.val64);
	for (uint32_t i = 0; i < cmd.num_iovas; i++)
		paint(p, " %llx-%llx", (unsigned long long)ranges[i].start,
		      (unsigned long long)ranges[i].last);
	/* Where something would be placed shows the allowed list. */
	must(call(s, IOMMU_IOAS_MAP, &probe), "MAP");
	must(unmap(s, ioas, probe.iova, 4 * PAGE), "UNMAP");
	paint(p, " next %llx\n", (unsigned long long)probe.iova);
}

static void take(struct scene *s, struct picture *p)
{
	uint32_t id, ids[3] = {s->full, s->other, s->empty};
	char word[8];

	p->len = 0;
	for (int i = 0; i < 3; i++)
		paint_ioas(s, p, ids[i]);
	swiommu_dump(s->ctx, paint_line, p);
	for (int i = 0; i < 3; i++)
		if (s->dma[i])
			paint(p, "device %d reads %d %d\n", i,
			      swiommu_dma_read(s->dma[i], BASE, word, 8),
			      swiommu_dma_read(s->dma[i], BASE + 3 * PAGE, word, 8));
	/* The free IDs: the next three. */
	for (int i = 0; i < 3; i++) {
		must(ioas_alloc(s, &ids[i]), "IOAS_ALLOC");
		paint(p, "free id %u\n", ids[i]);
	}
	for (int i = 0; i < 3; i++)
		must(destroy(s, ids[i]), "DESTROY");
	id = iommufd_ctx_has_group(s->ctx, &s->group[0]) |
	     iommufd_ctx_has_group(s->ctx, &s->group[1]) << 1;
	paint(p, "groups %u\n", id);
}

/* ---- steps ---------------------------------------------------------------------------------------- */

static long do_open(struct scene *s)
{
	struct iommufd_ctx *ctx;
	long rc = swiommu_open(NULL, &ctx);

	(void)s;
	if (!rc)
		swiommu_close(ctx);
	return rc;
}

static long do_ioas_alloc(struct scene *s)
{
	return ioas_alloc(s, &s->spare_id);
}

static long do_map_fixed(struct scene *s)
{
	return map(s, s->full, FIXED | RW, BASE + 0x800000, s->memory, 4 * PAGE);
}

static long do_map_auto(struct scene *s)
{
	return map(s, s->full, RW, 0, s->memory, 4 * PAGE);
}

static long do_map_far(struct scene *s)
{
	return map(s, s->empty, FIXED | RW, 1ull << 62, s->memory, 3 * PAGE);
}

static long do_map_file(struct scene *s)
{
	struct iommu_ioas_map_file cmd = {sizeof(cmd), RW, s->full, s->memfd, 0, 2 * PAGE, 0};

	return call(s, IOMMU_IOAS_MAP_FILE, &cmd);
}

static long do_copy_one(struct scene *s)
{
	return copy(s, s->other, s->full, BASE, PAGE);
}

static long do_copy_four(struct scene *s)
{
	return copy(s, s->other, s->full, BASE, 4 * PAGE);
}

static long do_copy_self(struct scene *s)
{
	return copy(s, s->full, s->full, BASE, 4 * PAGE);
}

static long do_allow(struct scene *s)
{
	const struct iommu_iova_range list[] = {
		{0x3000000, 0x3ffffff}, {0x6000000, 0x6ffffff}, {0x4000000, 0x4000fff}};
	struct iommu_ioas_allow_iovas cmd = {sizeof(cmd), s->full, 3, 0, (uintptr_t)list};

	return call(s, IOMMU_IOAS_ALLOW_IOVAS, &cmd);
}

static long do_ranges(struct scene *s)
{
	struct iommu_iova_range list[8];
	struct iommu_ioas_iova_ranges cmd = {.size = sizeof(cmd),
					     .ioas_id = s->full,
					     .num_iovas = 8,
					     .allowed_iovas = (uintptr_t)list};

	return call(s, IOMMU_IOAS_IOVA_RANGES, &cmd);
}

static long do_huge_off(struct scene *s)
{
	struct iommu_option cmd = {.size = sizeof(cmd),
				   .option_id = IOMMU_OPTION_HUGE_PAGES,
				   .op = IOMMU_OPTION_OP_SET,
				   .object_id = s->empty};

	return call(s, IOMMU_OPTION, &cmd);
}

static long do_unmap(struct scene *s)
{
	return unmap(s, s->full, BASE, 2 * PAGE);
}

static long do_unmap_all(struct scene *s)
{
	return unmap(s, s->full, 0, UINT64_MAX);
}

static long do_destroy(struct scene *s)
{
	long rc = destroy(s, s->other);

	if (!rc)
		s->other = s->full; /* for the picture */
	return rc;
}

static long do_bind(struct scene *s)
{
	return bind(s, 0);
}

static long do_bind_member(struct scene *s)
{
	return bind(s, 1);
}

static void bind_first(struct scene *s)
{
	must(bind(s, 0), "bind");
}

static long do_attach_first(struct scene *s)
{
	return attach(s, 0, s->full);
}

static long do_attach_member(struct scene *s)
{
	return attach(s, 1, s->full);
}

static long do_attach_other_driver(struct scene *s)
{
	return attach(s, 2, s->full);
}

static long replace(struct scene *s, int i, uint32_t pt)
{
	return iommufd_device_replace(s->idev[i], 0, &pt);
}

static long do_replace_group(struct scene *s)
{
	return replace(s, 0, s->other);
}

static void attach_elsewhere_too(struct scene *s)
{
	attach_all(s);
	must(replace(s, 2, s->other), "replace");
}

static long do_replace_alone(struct scene *s)
{
	return replace(s, 2, s->full);
}

static long do_detach(struct scene *s)
{
	iommufd_device_detach(s->idev[0], 0);
	s->attached[0] = false;
	return 0;
}

static long do_detach_last(struct scene *s)
{
	iommufd_device_detach(s->idev[2], 0);
	s->attached[2] = false;
	return 0;
}

static long do_unbind(struct scene *s)
{
	swiommu_dma_close(s->dma[2]);
	s->dma[2] = NULL;
	iommufd_device_unbind(s->idev[2]);
	s->idev[2] = NULL;
	return 0;
}

static long do_dma_open(struct scene *s)
{
	struct swiommu_dma *dma;
	long rc = swiommu_dma_open(s->idev[0], &dma);

	if (!rc)
		swiommu_dma_close(dma);
	return rc;
}

static long do_dma(struct scene *s)
{
	char buf[3 * PAGE];
	long rc = swiommu_dma_read(s->dma[0], BASE + 5, buf, sizeof(buf));

	return rc ? rc : swiommu_dma_write(s->dma[0], BASE + 5, buf, sizeof(buf));
}

static const struct step {
	const char *name;
	void (*prepare)(struct scene *s); /* after scene_init() */
	long (*run)(struct scene *s);
	enum { MAKES, TAKES, CANNOT_FAIL } kind; /* TAKES: must not allocate */
	bool stays; /* what was done, when the answer cannot be written (EFAULT) */
} steps[] = {
	{"open", NULL, do_open, MAKES, false},
	{"IOAS_ALLOC", NULL, do_ioas_alloc, MAKES, false},
	{"MAP fixed", NULL, do_map_fixed, MAKES, true},
	{"MAP automatic", NULL, do_map_auto, MAKES, true},
	{"MAP far away", NULL, do_map_far, MAKES, true},
	{"MAP fixed, attached", attach_all, do_map_fixed, MAKES, true},
	{"MAP automatic, attached", attach_all, do_map_auto, MAKES, true},
	{"MAP_FILE", NULL, do_map_file, MAKES, true},
	{"MAP_FILE, attached", attach_all, do_map_file, MAKES, true},
	{"COPY of one area", NULL, do_copy_one, MAKES, true},
	{"COPY of four areas", NULL, do_copy_four, MAKES, true},
	{"COPY of four areas, attached", attach_elsewhere_too, do_copy_four, MAKES, true},
	{"COPY to itself, attached", attach_all, do_copy_self, MAKES, true},
	{"ALLOW_IOVAS", NULL, do_allow, MAKES, false},
	{"IOVA_RANGES", NULL, do_ranges, MAKES, false},
	{"IOVA_RANGES, attached", attach_all, do_ranges, MAKES, false},
	{"OPTION HUGE_PAGES", NULL, do_huge_off, TAKES, true},
	{"UNMAP", NULL, do_unmap, TAKES, true},
	{"UNMAP, attached", attach_all, do_unmap, TAKES, true},
	{"UNMAP all, attached", attach_all, do_unmap_all, TAKES, true},
	{"DESTROY", NULL, do_destroy, TAKES, false},
	{"bind", NULL, do_bind, MAKES, false},
	{"bind a second member", bind_first, do_bind_member, MAKES, false},
	{"attach", bind_all, do_attach_first, MAKES, false},
	{"attach a second member", attach_one, do_attach_member, MAKES, false},
	{"attach by another driver", attach_one, do_attach_other_driver, MAKES, false},
	{"replace of a group", attach_all, do_replace_group, MAKES, false},
	{"replace back", attach_elsewhere_too, do_replace_alone, MAKES, false},
	{"detach a member", attach_all, do_detach, CANNOT_FAIL, false},
	{"detach the last", attach_elsewhere_too, do_detach_last, CANNOT_FAIL, false},
	{"unbind", bind_all, do_unbind, CANNOT_FAIL, false},
	{"DMA handle", attach_all, do_dma_open, MAKES, false},
	{"DMA", attach_all, do_dma, CANNOT_FAIL, false},
};

static struct picture before, after, done; /* done: after a successful call */
static unsigned long injected;

static int complain(const struct step *step, unsigned int n, const char *what)
{
	printf("#   %s, point %u: %s\n", step->name, n, what);
	return -1;
}

static bool same(const struct picture *a, const struct picture *b)
{
	return a->len == b->len && !memcmp(a->text, b->text, a->len);
}

/* The answer to an injected failure, and what it left behind. */
static int judge(const struct step *step, struct scene *s, unsigned int n, long rc)
{
	int ret = 0;

	/* Out of memory; a copy or a pin; a look-up; a device that refuses. */
	if (rc != -ENOMEM && rc != -EFAULT && rc != -ENOENT && rc != -EINVAL)
		ret = complain(step, n, rc < 0 ? strerrorname_np(-rc) : "a result");
	if (step->kind == TAKES && rc == -ENOMEM)
		ret = complain(step, n, "asks for memory");
	take(s, &after);
	if (rc == -EFAULT && step->stays && same(&after, &done))
		return ret;
	if (!same(&after, &before)) {
		ret = complain(step, n, "the failed call has changed something");
		printf("# before:\n%s# after:\n%s", before.text, after.text);
		return ret;
	}
	/* And nothing stands in the way of success. */
	rc = step->run(s);
	return rc ? complain(step, n, "does not succeed afterwards") : ret;
}

static void prepare(const struct step *step, struct scene *s)
{
	scene_init(s);
	if (step->prepare)
		step->prepare(s);
}

/* The picture of success. */
static void take_done(const struct step *step)
{
	struct scene s;

	prepare(step, &s);
	must(step->run(&s), step->name);
	take(&s, &done);
	scene_fini(&s);
}

/* One run with the n-th point failing. 0: went on; 1: there were fewer; negative: wrong. */
static int run_once(const struct step *step, unsigned int n)
{
	struct scene s;
	int ret = 0;
	bool fired;
	long rc;

	prepare(step, &s);
	take(&s, &before);
	swi_alloc_fail_nth(n);
	rc = step->run(&s);
	fired = !swi_alloc_fail_nth(0);
	if (!fired) {
		ret = rc ? complain(step, n, "fails without an injected failure") : 1;
	} else {
		injected++;
		if (step->kind == CANNOT_FAIL)
			ret = complain(step, n, "can fail");
		else if (
			rc) /* what is not needed may fail unnoticed: then the call has done its work */
			ret = judge(step, &s, n, rc);
	}
	scene_fini(&s);
	return ret;
}

int main(void)
{
	const size_t count = sizeof(steps) / sizeof(steps[0]);
	unsigned int failed = 0;

	printf("1..%zu\n", count);
	for (size_t i = 0; i < count; i++) {
		unsigned long start = injected;
		unsigned int n = 1;
		bool bad = false;
		int rc;

		take_done(&steps[i]);
		while ((rc = run_once(&steps[i], n)) != 1 && n < STEP_LIMIT) {
			bad |= rc < 0;
			n++;
		}
		bad |= rc != 1;
		failed += bad;
		printf("%sok %zu - %s, %lu failures injected\n", bad ? "not " : "", i + 1,
		       steps[i].name, injected - start);
	}
	printf("# %zu calls swept, %lu failures injected, %u wrong\n", count, injected, failed);
	return failed != 0;
}
