// SPDX-License-Identifier: MIT
/* Eventfds that write registers: spec vfio.md 4.6. */
#include "rig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct rig rig;

static int setup(void **state)
{
	rig_bound(&rig, &probe_model, "");
	rig_write(&rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	rig_close(*state);
	return 0;
}

static long ioeventfd(struct rig *r, uint64_t offset, uint32_t size, uint64_t data, int fd)
{
	struct vfio_device_ioeventfd req = {
		.argsz = 28, .flags = size, .offset = offset, .data = data, .fd = fd};

	return rig_ioctl(r, VFIO_DEVICE_IOEVENTFD, &req);
}

static unsigned int logged(struct rig *r)
{
	struct probe *p = probe_of(r);
	unsigned int n;

	pthread_mutex_lock(&p->lock);
	n = p->nr_log;
	pthread_mutex_unlock(&p->lock);
	return n;
}

static void signal_and_wait(struct rig *r, int fd, unsigned int writes)
{
	unsigned int before = logged(r);
	uint64_t one = 1;

	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	while (logged(r) < before + writes)
		sched_yield();
}

static void refusals(void **state)
{
	const uint64_t bar2 = 2ull << 40;
	int efd = rig_eventfd();
	const struct {
		uint64_t offset;
		uint32_t size;
		int fd;
		long rc;
	} cases[] = {
		{0, 0, efd, -EINVAL},
		{0, 3, efd, -EINVAL},
		{0, 16, efd, -EINVAL},
		{0, 17, efd, -EINVAL},
		{0, 4, -2, -EINVAL},
		{0xfffd, 4, efd, -EINVAL},
		{0x10000, 1, efd, -EINVAL},
		{1ull << 40 | 12, 8, efd, -EINVAL},
		{3ull << 40, 1, efd, -EINVAL}, /* the upper half of BAR2 */
		{6ull << 40, 1, efd, -EINVAL}, /* the ROM */
		{7ull << 40, 1, efd, -EINVAL}, /* configuration space */
		{9ull << 40, 1, efd, -EINVAL},
		{0x8000, 4, efd, -EINVAL}, /* the MSI-X table */
		{0x803f, 1, efd, -EINVAL},
		{0x7ffc, 8, efd, -EINVAL},
		{0, 4, 9999, -EBADF},
		{0, 4, STDOUT_FILENO, -EINVAL},
		{0, 4, -1, -ENODEV},
		{0x7ff8, 8, efd, 0},
		{0x8040, 4, efd, 0},
		{bar2, 4, efd, 0},
		{bar2, 4, efd, -EEXIST},
		{bar2, 4, 9999, -EEXIST},
		{bar2, 2, efd, 0},
	};
	struct rig *r = *state;

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		long rc = ioeventfd(r, cases[i].offset, cases[i].size, 7, cases[i].fd);

		if (rc != cases[i].rc)
			fail_msg("case %u: %ld, expected %ld (%s)", i, rc, cases[i].rc,
				 r->caller.reason);
	}
	rig_expect(r, VFIO_DEVICE_IOEVENTFD, NULL, -EFAULT);
	close(efd);
}

static void a_signal_writes_the_register(void **state)
{
	static const uint32_t sizes[] = {1, 2, 4, 8};
	struct rig *r = *state;
	struct probe *p = probe_of(r);
	int efd = rig_eventfd();

	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t at = 2ull << 40 | 0x40, value = 0x1122334455667788;

		assert_int_equal(ioeventfd(r, at, sizes[i], value, efd), 0);
		signal_and_wait(r, efd, 1);
		assert_true(p->log[p->nr_log - 1].write);
		assert_int_equal(p->log[p->nr_log - 1].region, 2);
		assert_int_equal(p->log[p->nr_log - 1].offset, 0x40);
		assert_int_equal(p->log[p->nr_log - 1].size, sizes[i]);
		assert_int_equal(p->log[p->nr_log - 1].value,
				 sizes[i] == 8 ? value : value & ((1ull << 8 * sizes[i]) - 1));
		assert_int_equal(ioeventfd(r, at, sizes[i], value, -1), 0);
		assert_int_equal(ioeventfd(r, at, sizes[i], value, -1), -ENODEV);
	}
	close(efd);
}

static void each_has_its_own_register(void **state)
{
	struct rig *r = *state;
	struct probe *p = probe_of(r);
	int one = rig_eventfd(), two = rig_eventfd();

	assert_int_equal(ioeventfd(r, 0, 4, 1, one), 0);
	assert_int_equal(ioeventfd(r, 0, 4, 2, two), 0);
	signal_and_wait(r, two, 1);
	assert_int_equal(p->log[p->nr_log - 1].value, 2);
	signal_and_wait(r, one, 1);
	assert_int_equal(p->log[p->nr_log - 1].value, 1);
	/* One eventfd for two registers writes one of them at least, and both when it is signalled again. */
	assert_int_equal(ioeventfd(r, 0, 4, 1, -1), 0);
	signal_and_wait(r, two, 1);
	assert_int_equal(p->log[p->nr_log - 1].value, 2);
	close(one);
	close(two);
}

static void nothing_is_written_after_removal(void **state)
{
	struct rig *r = *state;
	int efd = rig_eventfd(), other = rig_eventfd();
	uint64_t one = 1;
	unsigned int before;

	assert_int_equal(ioeventfd(r, 0, 4, 1, efd), 0);
	assert_int_equal(ioeventfd(r, 8, 4, 1, other), 0);
	signal_and_wait(r, efd, 1);
	assert_int_equal(ioeventfd(r, 0, 4, 1, -1), 0);
	before = logged(r);
	assert_int_equal(write(efd, &one, sizeof(one)), sizeof(one));
	signal_and_wait(r, other, 1);
	assert_int_equal(logged(r), before + 1);
	assert_int_equal(rig_count(efd), 1);
	/* While memory decoding is off nothing reaches the device. */
	rig_write(r, CONFIG, PCI_COMMAND, 2, 0);
	assert_int_equal(write(other, &one, sizeof(one)), sizeof(one));
	while (rig_count(other))
		sched_yield();
	assert_int_equal(logged(r), before + 1);
	close(efd);
	close(other);
}

static void the_limit_and_the_close(void **state)
{
	struct rig *r = *state;
	int efd = rig_eventfd();

	for (unsigned int i = 0; i < 1000; i++)
		assert_int_equal(ioeventfd(r, 0, 4, i, efd), 0);
	assert_int_equal(ioeventfd(r, 0, 4, 1000, efd), -ENOSPC);
	assert_int_equal(ioeventfd(r, 0, 4, 999, -1), 0);
	assert_int_equal(ioeventfd(r, 0, 4, 1000, efd), 0);
	vfio_file_close(r->file);
	assert_int_equal(vfio_file_open(r->dev, &r->file), 0);
	assert_int_equal(rig_bind(r), 0);
	assert_int_equal(ioeventfd(r, 0, 4, 5, -1), -ENODEV);
	assert_int_equal(ioeventfd(r, 0, 4, 5, efd), 0);
	close(efd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(refusals),
		TEST(a_signal_writes_the_register),
		TEST(each_has_its_own_register),
		TEST(nothing_is_written_after_removal),
		TEST(the_limit_and_the_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
