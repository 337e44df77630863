// SPDX-License-Identifier: MIT
/*
 * What every ioctl goes through before its handler, generated from one table: for each entry, how a
 * good call looks and what it answers, and which bits must be zero. A case per ioctl and rule.
 */
#include <stdio.h>

#include "suite.h"

#define STRUCT_MAX 72

struct zeroes {
	uint16_t offset, length;
	uint64_t known; /* bits that mean something */
};

struct tested {
	const char *name;
	unsigned int cmd;
	uint16_t min, full;
	/* Fills in a struct (zeroed, size set) for a call that can be repeated and answers `want`. */
	void (*fill)(struct ctx *c, void *buf);
	long want;
	struct zeroes zeroes[3];
};

/* Structs lie at the end of pages, at any alignment. */
static void put32(void *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

static uint32_t get32(const void *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static uint32_t one_ioas(struct ctx *c)
{
	static struct ctx *of;
	static uint32_t id;

	if (of != c) {
		id = ioas_new(c);
		of = c;
	}
	return id;
}

/* The ID that is not there, in the field after the size. */
static void fill_bad_id(struct ctx *c, void *buf)
{
	(void)c;
	put32((char *)buf + 4, 99);
}

static void fill_bad_second_id(struct ctx *c, void *buf)
{
	(void)c;
	put32((char *)buf + 8, 99);
}

static void fill_nothing(struct ctx *c, void *buf)
{
	(void)c;
	(void)buf;
}

static void fill_ioas(struct ctx *c, void *buf)
{
	put32((char *)buf + 4, one_ioas(c));
}

static void fill_copy(struct ctx *c, void *buf)
{
	struct iommu_ioas_copy *cmd = buf;

	cmd->flags = R;
	cmd->dst_ioas_id = cmd->src_ioas_id = one_ioas(c);
	cmd->length = 16;
	cmd->src_iova = 64;
	map_at(c, cmd->src_ioas_id, 64, 0, 16); /* there already after the first time */
}

static void fill_map(struct ctx *c, void *buf)
{
	struct iommu_ioas_map *cmd = buf;

	cmd->flags = R;
	cmd->ioas_id = one_ioas(c);
	cmd->length = 16;
}

static void fill_map_file(struct ctx *c, void *buf)
{
	struct iommu_ioas_map_file *cmd = buf;

	cmd->flags = R;
	cmd->ioas_id = one_ioas(c);
	cmd->length = 16;
	cmd->fd = 0;
}

static void fill_unmap(struct ctx *c, void *buf)
{
	struct iommu_ioas_unmap *cmd = buf;

	cmd->ioas_id = one_ioas(c);
	cmd->length = MAX;
}

static void fill_option(struct ctx *c, void *buf)
{
	struct iommu_option *cmd = buf;

	cmd->option_id = IOMMU_OPTION_HUGE_PAGES;
	cmd->op = IOMMU_OPTION_OP_GET;
	cmd->object_id = one_ioas(c);
}

static void fill_vfio_clear(struct ctx *c, void *buf)
{
	struct iommu_vfio_ioas *cmd = buf;

	(void)c;
	cmd->op = IOMMU_VFIO_IOAS_CLEAR;
}

static void fill_dirty_bitmap(struct ctx *c, void *buf)
{
	struct iommu_hwpt_get_dirty_bitmap *cmd = buf;

	(void)c;
	cmd->hwpt_id = 99;
	cmd->length = cmd->page_size = PAGE;
}

static void fill_vdevice(struct ctx *c, void *buf)
{
	struct iommu_vdevice_alloc *cmd = buf;

	(void)c;
	cmd->viommu_id = cmd->dev_id = 99;
}

static void fill_veventq(struct ctx *c, void *buf)
{
	struct iommu_veventq_alloc *cmd = buf;

	(void)c;
	cmd->viommu_id = 99;
	cmd->type = 1;
	cmd->veventq_depth = 1;
}

static void fill_hw_queue(struct ctx *c, void *buf)
{
	struct iommu_hw_queue_alloc *cmd = buf;

	(void)c;
	cmd->viommu_id = 99;
	cmd->type = 1;
	cmd->length = PAGE;
}

#define ALL_ZERO(off, len)  \
	{                   \
		off, len, 0 \
	}

static const struct tested tested[] = {
	{"DESTROY", IOMMU_DESTROY, 8, 8, fill_bad_id, -ENOENT, {}},
	{"IOAS_ALLOC", IOMMU_IOAS_ALLOC, 12, 12, fill_nothing, 0, {ALL_ZERO(4, 4)}},
	{"IOAS_ALLOW_IOVAS", IOMMU_IOAS_ALLOW_IOVAS, 24, 24, fill_ioas, 0, {ALL_ZERO(12, 4)}},
	{"IOAS_COPY", IOMMU_IOAS_COPY, 40, 40, fill_copy, 0, {{4, 4, 0x10007}}},
	{"IOAS_IOVA_RANGES",
	 IOMMU_IOAS_IOVA_RANGES,
	 32,
	 32,
	 fill_ioas,
	 -EMSGSIZE,
	 {ALL_ZERO(12, 4)}},
	{"IOAS_MAP", IOMMU_IOAS_MAP, 40, 40, fill_map, 0, {{4, 4, 7}, ALL_ZERO(12, 4)}},
	{"IOAS_UNMAP", IOMMU_IOAS_UNMAP, 24, 24, fill_unmap, 0, {}},
	{"OPTION", IOMMU_OPTION, 24, 24, fill_option, 0, {ALL_ZERO(10, 2), {4, 4, 1}, {8, 2, 1}}},
	{"VFIO_IOAS", IOMMU_VFIO_IOAS, 12, 12, fill_vfio_clear, 0, {ALL_ZERO(10, 2), {8, 2, 3}}},
	{"HWPT_ALLOC", IOMMU_HWPT_ALLOC, 24, 48, fill_bad_second_id, -ENOENT, {}},
	{"GET_HW_INFO", IOMMU_GET_HW_INFO, 32, 40, fill_bad_second_id, -ENOENT, {{4, 4, 1}}},
	{"HWPT_SET_DIRTY",
	 IOMMU_HWPT_SET_DIRTY_TRACKING,
	 16,
	 16,
	 fill_bad_second_id,
	 -ENOENT,
	 {{4, 4, 1}}},
	{"HWPT_GET_DIRTY", IOMMU_HWPT_GET_DIRTY_BITMAP, 48, 48, fill_dirty_bitmap, -ENOENT, {}},
	{"HWPT_INVALIDATE", IOMMU_HWPT_INVALIDATE, 32, 32, fill_bad_id, -ENOENT, {}},
	{"IOAS_MAP_FILE", IOMMU_IOAS_MAP_FILE, 40, 40, fill_map_file, 0, {{4, 4, 7}}},
	{"VIOMMU_ALLOC", IOMMU_VIOMMU_ALLOC, 24, 40, fill_nothing, -EOPNOTSUPP, {}},
	{"VDEVICE_ALLOC", IOMMU_VDEVICE_ALLOC, 24, 24, fill_vdevice, -ENOENT, {}},
	{"CHANGE_PROCESS", IOMMU_IOAS_CHANGE_PROCESS, 8, 8, fill_nothing, 0, {ALL_ZERO(4, 4)}},
	{"VEVENTQ_ALLOC", IOMMU_VEVENTQ_ALLOC, 28, 32, fill_veventq, -ENOENT, {{4, 4, 0}}},
	{"HW_QUEUE_ALLOC", IOMMU_HW_QUEUE_ALLOC, 40, 40, fill_hw_queue, -ENOENT, {{4, 4, 0}}},
	{"NOIOMMU_GET_PA", IOMMU_IOAS_NOIOMMU_GET_PA, 40, 40, fill_nothing, -EOPNOTSUPP, {}},
};

static const struct tested *under_test(void)
{
	return row_arg();
}

static long call_of(struct ctx *c, void *buf)
{
	return call(c, under_test()->cmd, buf);
}

/* A good struct of `size` bytes at `buf`; what a smaller one leaves out is left out. */
static void fill(struct ctx *c, char *buf, uint32_t size)
{
	const struct tested *t = under_test();
	_Alignas(8) char whole[STRUCT_MAX] = {0};

	t->fill(c, whole);
	put32(whole, size);
	memcpy(buf, whole, size < t->full ? size : t->full);
}

/* Skips the case if this ioctl is not there at all. */
static void need_ioctl(struct ctx *c)
{
	const struct tested *t = under_test();
	uint32_t zero[STRUCT_MAX / 4] = {0};

	if (call(c, t->cmd, zero) == -ENOTTY)
		skip(t->name, "the ioctl is not known");
}

static void size_below_min(struct ctx *c)
{
	const struct tested *t = under_test();

	need_ioctl(c);
	for (uint32_t size = 0; size < t->min; size++) {
		char *buf = page_end(size < 4 ? 4 : size);

		fill(c, buf, size < 4 ? 4 : size);
		put32(buf, size);
		CHECK_RC(call_of(c, buf), -EINVAL);
	}
}

static void exact_sizes_at_page_end(struct ctx *c)
{
	const struct tested *t = under_test();

	need_ioctl(c);
	for (uint32_t size = t->min; size <= t->full; size++) {
		char *buf = page_end(size);

		fill(c, buf, size);
		CHECK_RC(call_of(c, buf), t->want);
	}
}

static void zero_tail(struct ctx *c)
{
	const struct tested *t = under_test();
	const uint32_t more[] = {1, 3, 4, 8, 17, 500, 511, 512, 513, PAGE, 5 * PAGE};

	need_ioctl(c);
	for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++) {
		char *buf = page_end(t->full + more[i]);

		fill(c, buf, t->full + more[i]);
		CHECK_RC(call_of(c, buf), t->want);
		CHECK_EQ(get32(buf), t->full + more[i]);
	}
}

static void dirty_tail(struct ctx *c)
{
	const struct tested *t = under_test();
	const uint32_t tail = 600;
	char *buf = page_end(t->full + tail);

	need_ioctl(c);
	for (uint32_t at = 0; at < tail; at += at < 20 ? 1 : 29) {
		memset(buf, 0, t->full + tail);
		fill(c, buf, t->full + tail);
		buf[t->full + at] = 1;
		CHECK_RC(call_of(c, buf), -E2BIG);
	}
}

static void unreadable_tail(struct ctx *c)
{
	const struct tested *t = under_test();

	need_ioctl(c);
	for (uint32_t room = t->full; room < t->full + 600u; room += 37) {
		char *buf = page_end(room);

		fill(c, buf, room + 1);
		CHECK_RC(call_of(c, buf), -EFAULT);
		if (room == t->full)
			continue;
		/* A byte that is not zero comes first. */
		buf[room - 1] = 1;
		CHECK_RC(call_of(c, buf), -E2BIG);
	}
}

static void unreadable_head(struct ctx *c)
{
	const struct tested *t = under_test();

	need_ioctl(c);
	for (uint32_t room = 4; room < t->min; room += 4) {
		char *buf = page_end(room);

		fill(c, buf, room);
		put32(buf, t->min);
		CHECK_RC(call_of(c, buf), -EFAULT);
		put32(buf, t->full);
		CHECK_RC(call_of(c, buf), -EFAULT);
	}
	CHECK_RC(call_of(c, page_end(3)), -EFAULT);
	CHECK_RC(call_of(c, NULL), -EFAULT);
	CHECK_RC(call_of(c, (void *)1), -EFAULT);
}

static void any_alignment(struct ctx *c)
{
	const struct tested *t = under_test();
	char buf[STRUCT_MAX + 8];

	need_ioctl(c);
	for (int shift = 0; shift < 8; shift++) {
		fill(c, buf + shift, t->full);
		CHECK_RC(call_of(c, buf + shift), t->want);
	}
}

static void must_be_zero(struct ctx *c)
{
	const struct tested *t = under_test();

	need_ioctl(c);
	for (int i = 0; i < 3 && t->zeroes[i].length; i++) {
		const struct zeroes *z = &t->zeroes[i];

		for (int bit = 0; bit < z->length * 8; bit++) {
			_Alignas(8) char buf[STRUCT_MAX];

			if (z->known >> bit & 1)
				continue;
			fill(c, buf, t->full);
			buf[z->offset + bit / 8] |= 1 << bit % 8;
			CHECK_RC(call_of(c, buf), -EOPNOTSUPP);
		}
	}
}

static void number_bits(struct ctx *c)
{
	const struct tested *t = under_test();
	const unsigned int wrong[] = {
		_IOC(_IOC_READ, ';', _IOC_NR(t->cmd), 0),
		_IOC(_IOC_WRITE, ';', _IOC_NR(t->cmd), t->full),
		_IOC(_IOC_READ | _IOC_WRITE, ';', _IOC_NR(t->cmd), t->full),
		_IOC(_IOC_NONE, ';', _IOC_NR(t->cmd), t->full),
		_IO(':', _IOC_NR(t->cmd)),
		_IO(0, _IOC_NR(t->cmd)),
	};
	uint32_t zero[STRUCT_MAX / 4] = {0};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		CHECK_RC(call(c, wrong[i], zero), -ENOTTY);
		CHECK_RC(call(c, wrong[i], (void *)1), -EFAULT);
	}
}

static void unused_slots(struct ctx *c)
{
	uint32_t zero[STRUCT_MAX / 4] = {0};

	for (unsigned int nr = 0x96; nr <= 0x9f; nr++)
		CHECK_RC(call(c, _IO(';', nr), zero), -ENOTTY);
	for (unsigned int nr = 0xa1; nr <= 0xff; nr++)
		CHECK_RC(call(c, _IO(';', nr), (void *)1), -ENOTTY);
	for (unsigned int nr = 0; nr < 0x80; nr++)
		if (nr < 100 || nr > 117)
			CHECK_RC(call(c, _IO(';', nr), (void *)1), -ENOTTY);
}

static const struct {
	const char *name, *title;
	void (*run)(struct ctx *c);
} rules[] = {
	{"short", "every size below the minimum", size_below_min},
	{"exact", "every known size, at the end of a page", exact_sizes_at_page_end},
	{"zeros", "longer with a tail of zeros", zero_tail},
	{"tail", "a tail that is not zero", dirty_tail},
	{"notail", "an unreadable tail", unreadable_tail},
	{"nohead", "an unreadable head", unreadable_head},
	{"align", "any alignment of the struct", any_alignment},
	{"zero", "reserved fields and unknown bits", must_be_zero},
	{"number", "wrong direction, size or type in the number", number_bits},
};

#define NR_TESTED (sizeof(tested) / sizeof(tested[0]))
#define NR_RULES (sizeof(rules) / sizeof(rules[0]))

static struct row *add_row(struct row *row, const struct tested *t, size_t rule)
{
	char id[60], title[100];

	snprintf(id, sizeof(id), "pre.%s.%s", t->name, rules[rule].name);
	snprintf(title, sizeof(title), "%s: %s", t->name, rules[rule].title);
	*row = (struct row){strdup(id), strdup(title), rules[rule].run, t};
	return row + 1;
}

struct rows rows_prevalidation(void)
{
	static struct row rows[NR_TESTED * NR_RULES + 1];
	struct row *row = rows;

	for (size_t i = 0; i < NR_TESTED; i++)
		for (size_t r = 0; r < NR_RULES; r++)
			if (rules[r].run != must_be_zero || tested[i].zeroes[0].length)
				row = add_row(row, &tested[i], r);
	*row++ = (struct row){"pre.unused", "numbers that are not used", unused_slots, NULL};
	return (struct rows){rows, row - rows};
}
