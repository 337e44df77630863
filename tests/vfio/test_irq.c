// SPDX-License-Identifier: MIT
/* GET_IRQ_INFO, SET_IRQS and the signalling of interrupts: spec vfio.md 4.2, 4.3. */
#include "rig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"

#define NONE VFIO_IRQ_SET_DATA_NONE
#define BOOL VFIO_IRQ_SET_DATA_BOOL
#define FD VFIO_IRQ_SET_DATA_EVENTFD
#define MASK VFIO_IRQ_SET_ACTION_MASK
#define UNMASK VFIO_IRQ_SET_ACTION_UNMASK
#define TRIGGER VFIO_IRQ_SET_ACTION_TRIGGER

#define INTX VFIO_PCI_INTX_IRQ_INDEX
#define MSI VFIO_PCI_MSI_IRQ_INDEX
#define MSIX VFIO_PCI_MSIX_IRQ_INDEX
#define ERR VFIO_PCI_ERR_IRQ_INDEX
#define REQ VFIO_PCI_REQ_IRQ_INDEX

struct fixture {
	struct rig rig;
	int32_t efd[8];
};

static int setup(void **state)
{
	static struct fixture f;

	rig_bound(&f.rig, &probe_model, "");
	rig_write(&f.rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	for (unsigned int i = 0; i < 8; i++)
		f.efd[i] = rig_eventfd();
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	rig_close(&f->rig);
	for (unsigned int i = 0; i < 8; i++)
		close(f->efd[i]);
	return 0;
}

static long irqs(struct fixture *f, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
		 const void *payload)
{
	long rc = rig_set_irqs(&f->rig, flags, index, start, count, payload);

	/* Every failure comes with a reason, and only failures do. */
	assert_int_equal(rc < 0, f->rig.caller.reason[0] != '\0');
	return rc;
}

static void disable(struct fixture *f, uint32_t index)
{
	assert_int_equal(irqs(f, NONE | TRIGGER, index, 0, 0, NULL), 0);
	assert_int_equal(vfio_irq_active(f->rig.dev), -1);
}

static void info(void **state)
{
	static const struct {
		uint32_t argsz, index;
		long rc;
		uint32_t flags, count;
	} cases[] = {
		{16, INTX, 0, 7, 1},	{16, MSI, 0, 9, 8},
		{16, MSIX, 0, 1, 4},	{16, ERR, 0, 9, 1},
		{16, REQ, 0, 9, 1},	{16, 5, -EINVAL, 0, 0},
		{15, 0, -EINVAL, 0, 0}, {0, 0, -EINVAL, 0, 0},
		{64, INTX, 0, 7, 1},	{16, UINT32_MAX, -EINVAL, 0, 0},
	};
	struct fixture *f = *state;

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vfio_irq_info info = {.argsz = cases[i].argsz, .index = cases[i].index};

		rig_expect(&f->rig, VFIO_DEVICE_GET_IRQ_INFO, &info, cases[i].rc);
		assert_int_equal(info.flags, cases[i].flags);
		assert_int_equal(info.count, cases[i].count);
	}
	rig_expect(&f->rig, VFIO_DEVICE_GET_IRQ_INFO, NULL, -EFAULT);
}

static void info_of_a_bare_device(void **state)
{
	struct rig rig;

	(void)state;
	rig_bound(&rig, &bare_model, "");
	for (unsigned int i = 0; i < VFIO_PCI_NUM_IRQS; i++) {
		struct vfio_irq_info info = {.argsz = sizeof(info), .index = i};

		rig_expect(&rig, VFIO_DEVICE_GET_IRQ_INFO, &info, 0);
		assert_int_equal(info.count, i >= ERR);
		/* Nothing can be done to an index without interrupts. */
		assert_int_equal(rig_set_irqs(&rig, NONE | TRIGGER, i, 0, 0, NULL), -EINVAL);
	}
	rig_close(&rig);
}

/* Refusals in the header, one field at a time. */
static void header_refusals(void **state)
{
	static const struct {
		uint32_t argsz, flags, index, start, count;
		long rc;
	} cases[] = {
		{19, NONE | TRIGGER, MSIX, 0, 1, -EINVAL},
		{0, NONE | TRIGGER, MSIX, 0, 1, -EINVAL},
		{20, NONE | TRIGGER, 5, 0, 1, -EINVAL},
		{20, NONE | TRIGGER, UINT32_MAX, 0, 1, -EINVAL},
		{20, NONE | TRIGGER | 64, MSIX, 0, 1, -EINVAL},
		{20, NONE | TRIGGER | 1u << 31, MSIX, 0, 1, -EINVAL},
		{20, NONE | TRIGGER, MSIX, 4, 0, -EINVAL},
		{20, NONE | TRIGGER, MSIX, 4, 1, -EINVAL},
		{20, NONE | TRIGGER, MSIX, 0, 5, -EINVAL},
		{20, NONE | TRIGGER, MSIX, 3, 2, -EINVAL},
		{20, NONE | TRIGGER, MSIX, 1, UINT32_MAX, -EINVAL},
		{20, NONE | TRIGGER, MSIX, UINT32_MAX, 1, -EINVAL},
		{20, TRIGGER, MSIX, 0, 1, -EINVAL},
		{20, NONE | BOOL | TRIGGER, MSIX, 0, 0, -EINVAL},
		{24, NONE | FD | TRIGGER, MSIX, 0, 1, -EINVAL},
		{23, FD | TRIGGER, MSIX, 0, 1, -EINVAL},
		{20, BOOL | TRIGGER, MSIX, 0, 1, -EINVAL},
		{35, FD | TRIGGER, MSIX, 0, 4, -EINVAL},
		/* index and action */
		{20, NONE, MSIX, 0, 1, -ENOTTY},
		{20, NONE | MASK, MSIX, 0, 1, -ENOTTY},
		{20, NONE | UNMASK, MSI, 0, 1, -ENOTTY},
		{20, NONE | MASK, ERR, 0, 1, -ENOTTY},
		{20, NONE | UNMASK, REQ, 0, 1, -ENOTTY},
		{20, NONE | MASK | TRIGGER, INTX, 0, 1, -ENOTTY},
		{20, NONE | MASK | UNMASK, INTX, 0, 1, -ENOTTY},
		/* nothing is enabled yet */
		{20, NONE | TRIGGER, MSIX, 0, 0, -EINVAL},
		{20, NONE | TRIGGER, MSI, 0, 1, -EINVAL},
		{21, BOOL | TRIGGER, MSI, 0, 1, -EINVAL},
		{20, FD | TRIGGER, MSI, 0, 0, -EINVAL},
		{20, NONE | TRIGGER, INTX, 0, 0, -EINVAL},
		{20, NONE | TRIGGER, INTX, 0, 1, -EINVAL},
		{20, NONE | MASK, INTX, 0, 1, -EINVAL},
		{20, NONE | UNMASK, INTX, 0, 1, -EINVAL},
		{24, FD | MASK, INTX, 0, 1, -EINVAL},
		{20, NONE | TRIGGER, ERR, 0, 1, -EINVAL},
		{20, NONE | TRIGGER, ERR, 0, 0, -EINVAL},
		{21, BOOL | TRIGGER, REQ, 0, 1, -EINVAL},
	};
	struct fixture *f = *state;

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t set[32] = {cases[i].argsz, cases[i].flags, cases[i].index, cases[i].start,
				    cases[i].count};
		long rc;

		/* A payload that would do. */
		memcpy(set + 5, f->efd, 4 * sizeof(*set));
		rc = rig_ioctl(&f->rig, VFIO_DEVICE_SET_IRQS, set);

		if (rc != cases[i].rc || !f->rig.caller.reason[0])
			fail_msg("case %u: %ld, expected %ld (%s)", i, rc, cases[i].rc,
				 f->rig.caller.reason);
		assert_int_equal(vfio_irq_active(f->rig.dev), -1);
	}
	rig_expect(&f->rig, VFIO_DEVICE_SET_IRQS, NULL, -EFAULT);
}

/* The same of an enabled type, where they would reach vectors. */
static void counts_are_checked_when_enabled(void **state)
{
	static const struct {
		uint32_t start, count;
	} cases[] = {{4, 0}, {4, 1}, {0, 5}, {3, 2}, {1, UINT32_MAX}, {UINT32_MAX, 1}};
	struct fixture *f = *state;

	assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 0, 4, f->efd), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(
			irqs(f, NONE | TRIGGER, MSIX, cases[i].start, cases[i].count, NULL),
			-EINVAL);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(rig_count(f->efd[i]), 0);
}

static void an_unreadable_payload_is_a_fault(void **state)
{
	struct fixture *f = *state;
	uint8_t *page = rig_pages(8192);
	struct vfio_irq_set *set = (void *)(page + 4096 - 20);

	assert_int_equal(munmap(page + 4096, 4096), 0);
	*set = (struct vfio_irq_set){.argsz = 24, .flags = FD | TRIGGER, .index = MSIX, .count = 1};
	rig_expect(&f->rig, VFIO_DEVICE_SET_IRQS, set, -EFAULT);
	munmap(page, 4096);
}

/* What the kernel's selftest does with each of the two. */
static void arm_trigger_disable_rearm(void **state)
{
	struct fixture *f = *state;

	for (uint32_t index = MSI; index <= MSIX; index++) {
		for (uint32_t count = 4; count; count /= 2) {
			assert_int_equal(irqs(f, FD | TRIGGER, index, 0, count, f->efd), 0);
			assert_int_equal(vfio_irq_active(f->rig.dev), (int)index);
			for (uint32_t v = 0; v < count; v++) {
				assert_int_equal(irqs(f, NONE | TRIGGER, index, v, 1, NULL), 0);
				for (uint32_t i = 0; i < count; i++)
					assert_int_equal(rig_count(f->efd[i]), i == v);
			}
			assert_int_equal(irqs(f, NONE | TRIGGER, index, 0, count, NULL), 0);
			for (uint32_t i = 0; i < count; i++)
				assert_int_equal(rig_count(f->efd[i]), 1);
			disable(f, index);
			assert_int_equal(irqs(f, NONE | TRIGGER, index, 0, 1, NULL), -EINVAL);
		}
	}
}

static void bools_choose_vectors(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 0, 4, f->efd), 0);
	assert_int_equal(irqs(f, BOOL | TRIGGER, MSIX, 1, 3, "\0\1\377"), 0);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(rig_count(f->efd[i]), i >= 2);
}

static void vectors_come_and_go(void **state)
{
	struct fixture *f = *state;
	static const int32_t none[4] = {-1, -1, -1, -1};

	/* MSI-X: one allocated without a signal, then any others. */
	assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 0, 1, none), 0);
	assert_int_equal(vfio_irq_active(f->rig.dev), MSIX);
	assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 3, 1, f->efd), 0);
	vfio_irq_signal(f->rig.dev, MSIX, 3);
	vfio_irq_signal(f->rig.dev, MSIX, 0);
	vfio_irq_signal(f->rig.dev, MSIX, 4);
	vfio_irq_signal(f->rig.dev, MSIX, 1000000);
	vfio_irq_signal(f->rig.dev, MSIX, UINT32_MAX);
	assert_int_equal(rig_count(f->efd[0]), 1);
	/* Replaced, removed. */
	assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 3, 1, f->efd + 1), 0);
	vfio_irq_signal(f->rig.dev, MSIX, 3);
	assert_int_equal(rig_count(f->efd[0]), 0);
	assert_int_equal(rig_count(f->efd[1]), 1);
	assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 0, 4, none), 0);
	vfio_irq_signal(f->rig.dev, MSIX, 3);
	assert_int_equal(rig_count(f->efd[1]), 0);
	assert_int_equal(vfio_irq_active(f->rig.dev), MSIX); /* still enabled */
	disable(f, MSIX);

	/* MSI cannot grow beyond what the first call asked for. */
	assert_int_equal(irqs(f, FD | TRIGGER, MSI, 1, 1, f->efd), 0);
	assert_int_equal(irqs(f, FD | TRIGGER, MSI, 0, 1, f->efd + 1), 0);
	assert_int_equal(irqs(f, FD | TRIGGER, MSI, 2, 1, f->efd + 2), -EINVAL);
	vfio_irq_signal(f->rig.dev, MSI, 0);
	vfio_irq_signal(f->rig.dev, MSI, 1);
	vfio_irq_signal(f->rig.dev, MSI, 2);
	assert_int_equal(rig_count(f->efd[0]), 1);
	assert_int_equal(rig_count(f->efd[1]), 1);
	assert_int_equal(rig_count(f->efd[2]), 0);
}

/* Only NONE with count 0 disables; a list of no eventfds is one of no changes. */
static void an_empty_list_changes_nothing(void **state)
{
	struct fixture *f = *state;

	for (uint32_t index = MSI; index <= MSIX; index++) {
		assert_int_equal(irqs(f, FD | TRIGGER, index, 0, 0, NULL), -EINVAL);
		assert_int_equal(vfio_irq_active(f->rig.dev), -1);
		assert_int_equal(irqs(f, FD | TRIGGER, index, 0, 2, f->efd), 0);
		for (uint32_t start = 0; start < 3; start++)
			assert_int_equal(irqs(f, FD | TRIGGER, index, start, 0, NULL), 0);
		assert_int_equal(irqs(f, FD | TRIGGER, index, 3, 0, NULL),
				 index == MSI ? -EINVAL : 0);
		assert_int_equal(irqs(f, BOOL | TRIGGER, index, 0, 0, NULL), 0);
		assert_int_equal(vfio_irq_active(f->rig.dev), (int)index);
		assert_int_equal(irqs(f, FD | TRIGGER, MSI + MSIX - index, 0, 0, NULL), -EINVAL);
		assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 0, NULL), -EINVAL);
		for (uint32_t v = 0; v < 2; v++) {
			vfio_irq_signal(f->rig.dev, index, v);
			assert_int_equal(rig_count(f->efd[v]), 1);
		}
		disable(f, index);
		/* Vectors that nothing is told of, but for the later ones. */
		assert_int_equal(irqs(f, FD | TRIGGER, index, 2, 0, NULL), 0);
		assert_int_equal(vfio_irq_active(f->rig.dev), (int)index);
		assert_int_equal(irqs(f, FD | TRIGGER, index, 1, 1, f->efd), 0);
		vfio_irq_signal(f->rig.dev, index, 1);
		assert_int_equal(rig_count(f->efd[0]), 1);
		disable(f, index);
	}
}

static void one_type_at_a_time(void **state)
{
	struct fixture *f = *state;

	for (uint32_t active = INTX; active <= MSIX; active++) {
		assert_int_equal(irqs(f, FD | TRIGGER, active, 0, 1, f->efd), 0);
		for (uint32_t other = INTX; other <= MSIX; other++) {
			if (other == active)
				continue;
			assert_int_equal(irqs(f, FD | TRIGGER, other, 0, 1, f->efd), -EINVAL);
			assert_int_equal(irqs(f, NONE | TRIGGER, other, 0, 0, NULL), -EINVAL);
			assert_int_equal(irqs(f, NONE | TRIGGER, other, 0, 1, NULL), -EINVAL);
			vfio_irq_signal(f->rig.dev, other, 0);
			assert_int_equal(rig_count(f->efd[0]), 0);
		}
		disable(f, active);
	}
}

/* Bad descriptors, and what is left of the vectors. */
static void bad_descriptors(void **state)
{
	struct fixture *f = *state;
	int pipes[2];
	int32_t fds[4];

	assert_int_equal(pipe(pipes), 0);
	const struct {
		int32_t fd;
		long rc;
	} bad[] = {{9999, -EBADF}, {pipes[0], -EINVAL}, {STDIN_FILENO, -EINVAL}};

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		memcpy(fds, f->efd, sizeof(fds));
		fds[2] = bad[i].fd;
		/* The first call: nothing is enabled. */
		assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 0, 4, fds), bad[i].rc);
		assert_int_equal(vfio_irq_active(f->rig.dev), -1);
		/* Later: vectors up to the bad one lose their signal. */
		assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 0, 4, f->efd), 0);
		assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 0, 4, fds), bad[i].rc);
		assert_int_equal(irqs(f, NONE | TRIGGER, MSIX, 0, 4, NULL), 0);
		for (uint32_t v = 0; v < 4; v++)
			assert_int_equal(rig_count(f->efd[v]), v == 3);
		disable(f, MSIX);
		/* The others. */
		assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 1, fds + 2), bad[i].rc);
		assert_int_equal(vfio_irq_active(f->rig.dev), -1);
		assert_int_equal(irqs(f, FD | TRIGGER, ERR, 0, 1, fds + 2), bad[i].rc);
		assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 1, f->efd), 0);
		assert_int_equal(irqs(f, FD | UNMASK, INTX, 0, 1, fds + 2), bad[i].rc);
		disable(f, INTX);
	}
	close(pipes[0]);
	close(pipes[1]);
}

/* The state of the device counts before what a descriptor is. */
static void state_errors_come_before_descriptor_errors(void **state)
{
	struct fixture *f = *state;
	static const int32_t bad = 9999, negative = -2;

	assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 1, f->efd), 0);
	assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 0, 1, &bad), -EINVAL);
	assert_int_equal(irqs(f, FD | MASK, INTX, 0, 1, &bad), -ENOTTY);
	assert_int_equal(irqs(f, FD | TRIGGER, REQ, 0, 1, &negative), -EINVAL);
}

static void err_and_req(void **state)
{
	struct fixture *f = *state;
	static const int32_t minus_one = -1;

	for (uint32_t index = ERR; index <= REQ; index++) {
		assert_int_equal(irqs(f, FD | TRIGGER, index, 0, 1, f->efd), 0);
		vfio_irq_signal(f->rig.dev, index, 0);
		assert_int_equal(rig_count(f->efd[0]), 1);
		assert_int_equal(irqs(f, NONE | TRIGGER, index, 0, 1, NULL), 0);
		assert_int_equal(rig_count(f->efd[0]), 1);
		assert_int_equal(irqs(f, BOOL | TRIGGER, index, 0, 1, "\0"), 0);
		assert_int_equal(rig_count(f->efd[0]), 0);
		assert_int_equal(irqs(f, BOOL | TRIGGER, index, 0, 1, "\1"), 0);
		assert_int_equal(rig_count(f->efd[0]), 1);
		assert_int_equal(irqs(f, BOOL | TRIGGER, index, 0, 0, NULL), -EINVAL);
		assert_int_equal(irqs(f, FD | TRIGGER, index, 0, 0, NULL), -EINVAL);
		/* Replaced. */
		assert_int_equal(irqs(f, FD | TRIGGER, index, 0, 1, f->efd + 1), 0);
		vfio_irq_signal(f->rig.dev, index, 0);
		assert_int_equal(rig_count(f->efd[0]), 0);
		assert_int_equal(rig_count(f->efd[1]), 1);
		/* Cleared both ways. */
		assert_int_equal(irqs(f, NONE | TRIGGER, index, 0, 0, NULL), 0);
		assert_int_equal(irqs(f, NONE | TRIGGER, index, 0, 1, NULL), -EINVAL);
		assert_int_equal(irqs(f, FD | TRIGGER, index, 0, 1, f->efd), 0);
		assert_int_equal(irqs(f, FD | TRIGGER, index, 0, 1, &minus_one), 0);
		assert_int_equal(irqs(f, NONE | TRIGGER, index, 0, 1, NULL), -EINVAL);
	}
	assert_int_equal(irqs(f, FD | TRIGGER, REQ, 0, 1, f->efd), 0);
	vfio_device_request(f->rig.dev);
	vfio_device_request(f->rig.dev);
	assert_int_equal(rig_count(f->efd[0]), 2);
}

/* ---- INTx -------------------------------------------------------------------------------- */

static void intx_masks_itself(void **state)
{
	struct fixture *f = *state;
	struct vfio_device *dev = f->rig.dev;

	assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 1, f->efd), 0);
	vfio_irq_set_line(dev, true);
	assert_int_equal(rig_count(f->efd[0]), 1);
	assert_int_equal(rig_read(&f->rig, CONFIG, PCI_STATUS, 2),
			 PCI_STATUS_CAP_LIST | PCI_STATUS_INTERRUPT);
	vfio_irq_set_line(dev, true);
	vfio_irq_set_line(dev, false);
	vfio_irq_set_line(dev, true);
	assert_int_equal(rig_count(f->efd[0]), 0);
	/* Still asserted: fires again at once. */
	assert_int_equal(irqs(f, NONE | UNMASK, INTX, 0, 1, NULL), 0);
	assert_int_equal(rig_count(f->efd[0]), 1);
	vfio_irq_set_line(dev, false);
	assert_int_equal(rig_read(&f->rig, CONFIG, PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
	assert_int_equal(irqs(f, BOOL | UNMASK, INTX, 0, 1, "\1"), 0);
	assert_int_equal(rig_count(f->efd[0]), 0);
	vfio_irq_set_line(dev, true);
	assert_int_equal(rig_count(f->efd[0]), 1);
	/* BOOL 0 is no unmask. */
	assert_int_equal(irqs(f, BOOL | UNMASK, INTX, 0, 1, "\0"), 0);
	assert_int_equal(rig_count(f->efd[0]), 0);
}

static void intx_mask_by_call(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 1, f->efd), 0);
	assert_int_equal(irqs(f, BOOL | MASK, INTX, 0, 1, "\0"), 0);
	vfio_irq_set_line(f->rig.dev, true);
	assert_int_equal(rig_count(f->efd[0]), 1);
	vfio_irq_set_line(f->rig.dev, false);
	assert_int_equal(irqs(f, NONE | UNMASK, INTX, 0, 1, NULL), 0);
	assert_int_equal(irqs(f, NONE | MASK, INTX, 0, 1, NULL), 0);
	vfio_irq_set_line(f->rig.dev, true);
	assert_int_equal(rig_count(f->efd[0]), 0);
	/* The loopback does not care. */
	assert_int_equal(irqs(f, NONE | TRIGGER, INTX, 0, 1, NULL), 0);
	assert_int_equal(rig_count(f->efd[0]), 1);
	assert_int_equal(irqs(f, BOOL | TRIGGER, INTX, 0, 1, "\1"), 0);
	assert_int_equal(rig_count(f->efd[0]), 1);
	assert_int_equal(irqs(f, BOOL | TRIGGER, INTX, 0, 1, "\0"), 0);
	assert_int_equal(rig_count(f->efd[0]), 0);
	assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 0, NULL), -EINVAL);
	assert_int_equal(irqs(f, NONE | MASK, INTX, 0, 0, NULL), -EINVAL);
	assert_int_equal(irqs(f, FD | MASK, INTX, 0, 1, f->efd), -ENOTTY);
}

static void intx_disable_in_command(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 1, f->efd), 0);
	rig_write(&f->rig, CONFIG, PCI_COMMAND, 2, 2 | PCI_COMMAND_INTX_DISABLE);
	vfio_irq_set_line(f->rig.dev, true);
	assert_int_equal(rig_count(f->efd[0]), 0);
	assert_int_equal(irqs(f, NONE | TRIGGER, INTX, 0, 1, NULL), 0);
	assert_int_equal(rig_count(f->efd[0]), 0);
	assert_int_equal(irqs(f, NONE | UNMASK, INTX, 0, 1, NULL), 0);
	assert_int_equal(rig_count(f->efd[0]), 0);
	rig_write(&f->rig, CONFIG, PCI_COMMAND, 2, 2);
	assert_int_equal(rig_count(f->efd[0]), 1);
	/* Writing the same again is no edge. */
	rig_write(&f->rig, CONFIG, PCI_COMMAND, 2, 2);
	assert_int_equal(rig_count(f->efd[0]), 0);
	disable(f, INTX);
	/* Enabling it while disabled in COMMAND: masked from the start. */
	rig_write(&f->rig, CONFIG, PCI_COMMAND, 2, 2 | PCI_COMMAND_INTX_DISABLE);
	assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 1, f->efd), 0);
	assert_int_equal(rig_count(f->efd[0]), 0);
	rig_write(&f->rig, CONFIG, PCI_COMMAND, 2, 2);
	assert_int_equal(rig_count(f->efd[0]), 1);
}

static void intx_with_nobody_to_tell(void **state)
{
	struct fixture *f = *state;
	static const int32_t minus_one = -1;

	assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 1, &minus_one), 0);
	assert_int_equal(vfio_irq_active(f->rig.dev), INTX);
	vfio_irq_set_line(f->rig.dev, true);
	assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 1, f->efd), 0);
	assert_int_equal(rig_count(f->efd[0]), 1);
	/* Swapped while masked: the new one is told after the unmask. */
	assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 1, f->efd + 1), 0);
	assert_int_equal(rig_count(f->efd[1]), 0);
	assert_int_equal(irqs(f, NONE | UNMASK, INTX, 0, 1, NULL), 0);
	assert_int_equal(rig_count(f->efd[0]), 0);
	assert_int_equal(rig_count(f->efd[1]), 1);
	/* A reset lowers the line. */
	rig_expect(&f->rig, VFIO_DEVICE_RESET, NULL, 0);
	assert_int_equal(irqs(f, NONE | UNMASK, INTX, 0, 1, NULL), 0);
	assert_int_equal(rig_count(f->efd[1]), 0);
}

static void intx_unmask_by_eventfd(void **state)
{
	struct fixture *f = *state;
	static const int32_t minus_one = -1;
	const uint64_t one = 1;

	assert_int_equal(irqs(f, FD | UNMASK, INTX, 0, 1, f->efd + 1), -EINVAL);
	assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 1, f->efd), 0);
	assert_int_equal(irqs(f, FD | UNMASK, INTX, 0, 1, f->efd + 1), 0);
	assert_int_equal(irqs(f, FD | UNMASK, INTX, 0, 1, f->efd + 2), -EBUSY);
	vfio_irq_set_line(f->rig.dev, true);
	assert_int_equal(rig_count(f->efd[0]), 1);
	for (unsigned int i = 0; i < 100; i++) {
		assert_int_equal(write(f->efd[1], &one, 8), 8);
		assert_int_equal(rig_wait(f->efd[0]), 1);
	}
	assert_int_equal(rig_count(f->efd[1]), 0); /* taken */
	/* Removed: signals are left alone. */
	assert_int_equal(irqs(f, FD | UNMASK, INTX, 0, 1, &minus_one), 0);
	assert_int_equal(irqs(f, FD | UNMASK, INTX, 0, 1, &minus_one), 0);
	assert_int_equal(write(f->efd[1], &one, 8), 8);
	/* Signalled before it is set: unmasks at once. */
	assert_int_equal(irqs(f, FD | UNMASK, INTX, 0, 1, f->efd + 1), 0);
	assert_int_equal(rig_wait(f->efd[0]), 1);
	disable(f, INTX);
	assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 1, f->efd), 0);
	assert_int_equal(irqs(f, FD | UNMASK, INTX, 0, 1, f->efd + 1), 0);
	/* Closing with the thread running is the teardown's. */
}

/* ---- signalling -------------------------------------------------------------------------- */

static void msi_needs_bus_mastering(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 0, 1, f->efd), 0);
	rig_write(&f->rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	vfio_irq_signal(f->rig.dev, MSIX, 0);
	assert_int_equal(rig_count(f->efd[0]), 0);
	/* The client's own trigger is none of the device's. */
	assert_int_equal(irqs(f, NONE | TRIGGER, MSIX, 0, 1, NULL), 0);
	assert_int_equal(rig_count(f->efd[0]), 1);
}

static void a_full_counter_does_not_block(void **state)
{
	struct fixture *f = *state;
	const uint64_t full = UINT64_MAX - 1;
	struct vfio_device_stats s;
	int efd = eventfd(0, 0);

	assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 0, 1, &efd), 0);
	assert_int_equal(write(efd, &full, 8), 8);
	vfio_irq_signal(f->rig.dev, MSIX, 0);
	vfio_device_get_stats(f->rig.dev, &s);
	assert_int_equal(s.interrupts, 0);
	assert_int_equal(rig_count(efd), full);
	vfio_irq_signal(f->rig.dev, MSIX, 0);
	vfio_device_get_stats(f->rig.dev, &s);
	assert_int_equal(s.interrupts, 1);
	close(efd);
}

static void an_eventfd_outlives_its_number(void **state)
{
	struct fixture *f = *state;
	int efd = eventfd(0, EFD_NONBLOCK), keep = dup(efd);

	assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 0, 1, &efd), 0);
	close(efd);
	vfio_irq_signal(f->rig.dev, MSIX, 0);
	assert_int_equal(rig_count(keep), 1);
	close(keep);
}

static unsigned int open_fds(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* No call keeps or loses a descriptor, whichever allocation fails. */
static void no_descriptor_leaks(void **state)
{
	struct fixture *f = *state;
	unsigned int before = open_fds();
	int32_t fds[4] = {f->efd[0], f->efd[1], 9999, f->efd[2]};

	irqs(f, FD | TRIGGER, MSIX, 0, 4, fds);
	assert_int_equal(open_fds(), before);
	assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 0, 4, f->efd), 0);
	assert_int_equal(open_fds(), before + 4);
	assert_int_equal(irqs(f, FD | TRIGGER, MSI, 0, 4, f->efd), -EINVAL);
	assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 0, 4, f->efd + 1), 0);
	assert_int_equal(open_fds(), before + 4);
	disable(f, MSIX);
	assert_int_equal(open_fds(), before);
	assert_int_equal(irqs(f, FD | TRIGGER, INTX, 0, 1, f->efd), 0);
	assert_int_equal(irqs(f, FD | UNMASK, INTX, 0, 1, f->efd + 1), 0);
	assert_int_equal(irqs(f, FD | TRIGGER, REQ, 0, 1, f->efd), 0);
	assert_int_equal(open_fds(), before + 4);
	vfio_file_close(f->rig.file);
	assert_int_equal(open_fds(), before);
	assert_int_equal(vfio_file_open(f->rig.dev, &f->rig.file), 0);
	assert_int_equal(rig_bind(&f->rig), 0);

	swi_alloc_fail_nth(1);
	assert_int_equal(irqs(f, FD | TRIGGER, MSIX, 0, 4, f->efd), -ENOMEM);
	assert_int_equal(swi_alloc_fail_nth(0), 0);
	assert_int_equal(open_fds(), before);
	assert_int_equal(vfio_irq_active(f->rig.dev), -1);
}

/* Several threads set up and tear down while the device signals. */
static void *signaller(void *arg)
{
	struct fixture *f = arg;

	for (unsigned int i = 0; i < 3000; i++) {
		vfio_irq_signal(f->rig.dev, MSIX, i % 4);
		vfio_irq_signal(f->rig.dev, REQ, 0);
		vfio_irq_set_line(f->rig.dev, i % 2);
	}
	return NULL;
}

static void *changer(void *arg)
{
	struct fixture *f = arg;
	struct rig rig;

	rig_for_thread(&rig, &f->rig);
	for (unsigned int i = 0; i < 300; i++) {
		rig_arm(&rig, MSIX, i % 4, 1, f->efd + i % 8);
		rig_arm(&rig, REQ, 0, 1, f->efd + i % 8);
		rig_set_irqs(&rig, NONE | TRIGGER, MSIX, 0, 0, NULL);
		rig_arm(&rig, INTX, 0, 1, f->efd + i % 8);
		rig_set_irqs(&rig, FD | UNMASK, INTX, 0, 1, f->efd + 1);
		rig_set_irqs(&rig, NONE | TRIGGER, INTX, 0, 0, NULL);
		rig_read(&rig, CONFIG, 0, 4);
		rig_write(&rig, CONFIG, PCI_COMMAND, 2, i % 2 ? 0x406 : 6);
	}
	return NULL;
}

static void setup_races_with_signals(void **state)
{
	pthread_t threads[4];

	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, i % 2 ? signaller : changer, *state), 0);
	for (unsigned int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(info),
		cmocka_unit_test(info_of_a_bare_device),
		T(header_refusals),
		T(counts_are_checked_when_enabled),
		T(an_unreadable_payload_is_a_fault),
		T(arm_trigger_disable_rearm),
		T(bools_choose_vectors),
		T(vectors_come_and_go),
		T(an_empty_list_changes_nothing),
		T(one_type_at_a_time),
		T(bad_descriptors),
		T(state_errors_come_before_descriptor_errors),
		T(err_and_req),
		T(intx_masks_itself),
		T(intx_mask_by_call),
		T(intx_disable_in_command),
		T(intx_with_nobody_to_tell),
		T(intx_unmask_by_eventfd),
		T(msi_needs_bus_mastering),
		T(a_full_counter_does_not_block),
		T(an_eventfd_outlives_its_number),
		T(no_descriptor_leaks),
		T(setup_races_with_signals),
	};

	return cmocka_run_group_tests_name("vfio_irq", tests, NULL, NULL);
}
