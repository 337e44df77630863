// SPDX-License-Identifier: MIT
/*
 * The controller's registers and its thread.
 *
 * The register page is memory that the thread looks at. With mmio=poll it is shared with the client; with mmio=trap it is
 * private, and each access of the client is carried out on it, which keeps read-only registers
 * read-only and gives INTMS and INTMC their set and clear meaning at once. Either way the thread finds out by looking: CC.EN
 * rising makes the controller ready, falling resets it. A client that clears and sets EN without waiting in
 * between is noticed by a count of falling edges, when accesses are trapped.
 *
 * A mapping gives no sign when it is written, so the thread polls. After a stretch without work it sleeps between looks, an
 * eighth of the time that it has been idle, so that neither an idle device costs anything to speak of nor
 * a late command waits long. Accesses by read and write, and trapped ones, wake it.
 *
 * A reset asks the thread: `abort` makes it leave the command it is at, without a completion, and nothing
 * of the old life happens after it has taken note.
 */
#include "vfio/models/nvme/nvme.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#define SPIN_NS 50000ll /* looks without sleeping for this long after work */
#define NAP_MIN_NS 20000ll
#define NAP_MAX_NS 4000000ll
#define LOOKS_PER_CLOCK 32u /* how often the spinning thread asks for the time */

/* ---- registers --------------------------------------------------------------------------- */

static uint32_t get(const struct nvme *n, unsigned int reg)
{
	return __atomic_load_n(&n->regs[reg / 4], __ATOMIC_ACQUIRE);
}

static void set(struct nvme *n, unsigned int reg, uint32_t value)
{
	__atomic_store_n(&n->regs[reg / 4], value, __ATOMIC_RELEASE);
}

static uint64_t get64(const struct nvme *n, unsigned int reg)
{
	return get(n, reg) | (uint64_t)get(n, reg + 4) << 32;
}

uint64_t nvme_register_read(struct nvme *n, uint64_t offset, unsigned int size)
{
	uint64_t value = get(n, (unsigned int)offset & ~3u);

	if (size == 8)
		value |= (uint64_t)get(n, (unsigned int)offset + 4) << 32;
	return value >> 8 * (offset & 3);
}

static void write32(struct nvme *n, unsigned int reg, uint32_t value)
{
	uint32_t old = get(n, NVME_REG_INTMS);

	switch (reg) {
	case NVME_REG_INTMS:
	case NVME_REG_INTMC:
		/* Writers take turns, by n->lock; the thread only looks. */
		value = reg == NVME_REG_INTMS ? old | value : old & ~value;
		set(n, NVME_REG_INTMS, value);
		set(n, NVME_REG_INTMC, value);
		break;
	case NVME_REG_CC:
		if (get(n, NVME_REG_CC) & NVME_CC_EN && !(value & NVME_CC_EN))
			atomic_fetch_add(&n->cc_falls, 1);
		set(n, NVME_REG_CC, value);
		break;
	case NVME_REG_AQA:
		set(n, reg, value & 0x0fff0fff);
		break;
	case NVME_REG_ASQ:
	case NVME_REG_ACQ:
		set(n, reg, value & ~(uint32_t)(SWI_PAGE_SIZE - 1));
		break;
	case NVME_REG_ASQ + 4:
	case NVME_REG_ACQ + 4:
		set(n, reg, value);
		break;
	default: /* read only, or nothing there */
		break;
	}
}

void nvme_register_write(struct nvme *n, uint64_t offset, unsigned int size, uint64_t value)
{
	unsigned int reg = (unsigned int)offset;

	if (size < 4) /* registers are written as a whole or by 32-bit halves */
		return;
	pthread_mutex_lock(&n->lock);
	write32(n, reg, (uint32_t)value);
	if (size == 8)
		write32(n, reg + 4, (uint32_t)(value >> 32));
	n->kicks++;
	pthread_cond_signal(&n->wake);
	pthread_mutex_unlock(&n->lock);
}

void nvme_kick(struct nvme *n)
{
	pthread_mutex_lock(&n->lock);
	n->kicks++;
	pthread_cond_signal(&n->wake);
	pthread_mutex_unlock(&n->lock);
}

void nvme_fatal(struct nvme *n)
{
	set(n, NVME_REG_CSTS, get(n, NVME_REG_CSTS) | NVME_CSTS_CFS);
}

/* ---- states of the controller ------------------------------------------------------------ */

/* Forgets all queues and commands. */
static void drop_queues(struct nvme *n)
{
	memset(n->sqs, 0, sizeof(n->sqs));
	memset(n->cqs, 0, sizeof(n->cqs));
	n->nr_active = 0;
	n->nr_held = 0;
	n->event_pending = n->event_masked = false;
	nvme_features_reset(n);
	for (unsigned int i = 0; i < SWI_PAGE_SIZE / 4; i++)
		__atomic_store_n(&n->doorbells[i], 0, __ATOMIC_RELAXED);
	nvme_update_line(n);
}

void nvme_power_on(struct nvme *n)
{
	for (unsigned int i = 0; i < SWI_PAGE_SIZE; i += 4)
		set(n, i, 0);
	set(n, NVME_REG_CAP, (uint32_t)NVME_CAP_VALUE);
	set(n, NVME_REG_CAP + 4, (uint32_t)(NVME_CAP_VALUE >> 32));
	set(n, NVME_REG_VS, NVME_VERSION);
	n->cc = 0;
	n->seen_falls = atomic_load(&n->cc_falls);
	n->interrupt_mask = 0;
	drop_queues(n);
	n->line = false; /* the VFIO layer lowers it */
}

/* CC.EN has risen: CC and the admin queue's registers count from now. */
static void enable(struct nvme *n, uint32_t cc)
{
	uint32_t aqa = get(n, NVME_REG_AQA);
	uint32_t sq_size = (aqa & 0xfff) + 1, cq_size = (aqa >> 16 & 0xfff) + 1;

	if (NVME_CC_CSS(cc) || NVME_CC_MPS(cc) || NVME_CC_AMS(cc) || sq_size < 2 || cq_size < 2) {
		nvme_fatal(n);
		return;
	}
	n->smart.power_cycles++;
	nvme_cq_start(n, 0, get64(n, NVME_REG_ACQ) & ~(SWI_PAGE_SIZE - 1), cq_size);
	n->cqs[0].interrupts = true;
	nvme_sq_start(n, 0, get64(n, NVME_REG_ASQ) & ~(SWI_PAGE_SIZE - 1), sq_size, &n->cqs[0]);
	set(n, NVME_REG_CSTS, NVME_CSTS_RDY);
}

static void disable(struct nvme *n)
{
	/* First, so that a client that finds its doorbells cleared does not find the old life's RDY. */
	set(n, NVME_REG_CSTS, 0);
	drop_queues(n);
}

static void shut_down(struct nvme *n)
{
	uint32_t csts = get(n, NVME_REG_CSTS) & ~(3u << 2);

	if (nvme_disk_sync(&n->disk, 0, n->disk.size))
		csts |= NVME_CSTS_CFS;
	set(n, NVME_REG_CSTS, csts | NVME_CSTS_SHST_DONE);
}

static bool look_at_cc(struct nvme *n)
{
	unsigned int falls = atomic_load(&n->cc_falls);
	uint32_t cc = get(n, NVME_REG_CC), old = n->cc;

	if (SWI_LIKELY(cc == old && falls == n->seen_falls))
		return false;
	n->cc = cc;
	if (old & NVME_CC_EN && (!(cc & NVME_CC_EN) || falls != n->seen_falls)) {
		disable(n);
		old = 0;
	}
	n->seen_falls = falls;
	if (cc & NVME_CC_EN && !(old & NVME_CC_EN))
		enable(n, cc);
	if (NVME_CC_SHN(cc) && NVME_CC_SHN(cc) != NVME_CC_SHN(old))
		shut_down(n);
	return true;
}

/* The mask is the same in INTMS and INTMC; of shared cells, what differs has been written. */
static bool look_at_mask(struct nvme *n)
{
	uint32_t set_bits = get(n, NVME_REG_INTMS), clear_bits, mask = n->interrupt_mask;

	if (n->polled) {
		clear_bits = get(n, NVME_REG_INTMC);
		if (set_bits != mask)
			mask |= set_bits;
		if (clear_bits != n->interrupt_mask)
			mask &= ~clear_bits;
		if (set_bits != mask)
			set(n, NVME_REG_INTMS, mask);
		if (clear_bits != mask)
			set(n, NVME_REG_INTMC, mask);
	} else {
		mask = set_bits;
	}
	if (SWI_LIKELY(mask == n->interrupt_mask))
		return false;
	n->interrupt_mask = mask;
	return true;
}

/* ---- the thread -------------------------------------------------------------------------- */

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* One look at everything; whether there was something to do. */
static bool look(struct nvme *n)
{
	bool worked = look_at_cc(n);

	worked |= look_at_mask(n);
	for (unsigned int i = 0; i < n->nr_active && !nvme_is_dead(n); i++) {
		worked |= nvme_sq_serve(n, &n->sqs[n->active[i]]);
		if (atomic_load_explicit(&n->abort, memory_order_relaxed))
			return true;
	}
	if (n->nr_active && !nvme_is_dead(n))
		worked |= nvme_serve_events(n);
	nvme_update_line(n);
	return worked;
}

/* Nothing can change unless somebody kicks: the client has no register to write to unseen. */
static bool may_sleep_for_good(const struct nvme *n)
{
	return !n->polled && !(n->cc & NVME_CC_EN);
}

/* Sleeps until it is time to look again, or a kick. */
static void nap(struct nvme *n, int64_t idle_ns)
{
	int64_t until = now_ns() + SWI_MIN(SWI_MAX(idle_ns / 8, NAP_MIN_NS), NAP_MAX_NS);
	struct timespec t = {until / 1000000000, until % 1000000000};
	int rc = 0;

	pthread_mutex_lock(&n->lock);
	while (!rc && n->kicks == n->seen_kicks && !atomic_load(&n->abort))
		rc = may_sleep_for_good(n) ? pthread_cond_wait(&n->wake, &n->lock)
					   : pthread_cond_timedwait(&n->wake, &n->lock, &t);
	n->seen_kicks = n->kicks;
	pthread_mutex_unlock(&n->lock);
}

/* Resets and the end; false: the end. */
static bool obey(struct nvme *n)
{
	uint64_t wanted;
	bool stop;

	if (SWI_LIKELY(!atomic_load_explicit(&n->abort, memory_order_acquire)))
		return true;
	pthread_mutex_lock(&n->lock);
	atomic_store(&n->abort, false);
	wanted = n->resets_wanted;
	stop = n->stop;
	pthread_mutex_unlock(&n->lock);
	nvme_power_on(n);
	pthread_mutex_lock(&n->lock);
	n->resets_done = wanted;
	pthread_cond_broadcast(&n->done);
	pthread_mutex_unlock(&n->lock);
	return !stop;
}

void *nvme_controller(void *arg)
{
	struct nvme *n = arg;
	int64_t last_work = now_ns(), now = last_work;
	unsigned int looks = 0;

	prctl(PR_SET_TIMERSLACK, 1000ul);
	while (obey(n)) {
		if (look(n)) {
			looks = 0;
			last_work = 0;
			continue;
		}
		relax();
		if (++looks % LOOKS_PER_CLOCK && now - last_work < SPIN_NS)
			continue;
		now = now_ns();
		if (!last_work)
			last_work = now;
		if (now - last_work >= SPIN_NS)
			nap(n, now - last_work);
	}
	return NULL;
}
