// SPDX-License-Identifier: MIT
/*
 * Calls to the supervisor: by system calls that the filter traps, or by the ring.
 *
 * The ring is used while the supervisor's thread looks at it. It does so when it has seen several calls of this process in a
 * short time, and stops when there have been none for a moment; then the system calls do, which wake it again. A request that
 * is not taken soon is taken back and made by system call. So nobody waits for a thread that does not run.
 *
 * Which open file a descriptor is: its position says (protocol.h). That is one system call that the filter does not
 * trap; it makes any guess about close, dup, exec or other threads unnecessary.
 */
#include <linux/futex.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include "preload/state.h"

#define FDS 1024
/* Numbers of VFIO and of iommufd. */
#define VFIO_FIRST 0x3b64
#define IOMMUFD_FIRST 0x3b80
/* So many calls must have gone by before a ring is asked for. */
#define RING_AFTER 16u
#define SPINS_PENDING 4000u
#define SPINS_TAKEN 20000u

/* What descriptors were last found to be. Any thread may change an entry while another reads it; then the secret and
 * the token do not fit together, and the call is made by system call. */
static struct known {
	_Atomic uint64_t token, secret;
	_Atomic uint32_t flags;
	_Atomic uint32_t calls;
} known[FDS];

uint64_t fast_fd(int fd)
{
	struct preload_state *s = preload_state();

	return HELPER_FD(fd, s ? s->ring_number : 0);
}

static inline void pause_cpu(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* ---- the ring ---------------------------------------------------------------------------------- */

static struct helper_ring *make_ring(struct preload_state *s)
{
	struct helper_ring_info info = {.fd = -1};
	long p;

	if (atomic_exchange_explicit(&s->ring_tried, 1, memory_order_acq_rel))
		return NULL;
	if (SYS3(SYS_ioctl, HELPER_FD(-1, 0), HELPER_CALL_RING, &info) || info.fd < 0)
		return NULL;
	p = SYS6(SYS_mmap, 0, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, info.fd, 0);
	SYS3(SYS_close, info.fd, 0, 0);
	if (p < 0)
		return NULL;
	/* A child makes its own. */
	if (info.size < sizeof(struct helper_ring) ||
	    SYS3(SYS_madvise, p, info.size, MADV_DONTFORK)) {
		SYS3(SYS_munmap, p, info.size, 0);
		return NULL;
	}
	trap_install(); /* for the guarded copies */
	s->ring_number = info.number;
	atomic_store_explicit(&s->ring, (struct helper_ring *)p, memory_order_release);
	return (struct helper_ring *)p;
}

/* The ring if it is being looked at; NULL: a system call is to be made. */
static struct helper_ring *ring_now(void)
{
	struct preload_state *s = preload_state();
	struct helper_ring *ring;

	if (!s)
		return NULL;
	ring = atomic_load_explicit(&s->ring, memory_order_acquire);
	if (ring)
		return atomic_load_explicit(&ring->polling, memory_order_relaxed) ? ring : NULL;
	if (s->ring_tried)
		return NULL;
	if (atomic_fetch_add_explicit(&s->slow_calls, 1, memory_order_relaxed) >= RING_AFTER)
		make_ring(s);
	return NULL;
}

static struct helper_slot *claim(struct helper_ring *ring)
{
	/* Threads begin at different slots, mostly: their stacks lie apart. */
	uintptr_t first = (uintptr_t)__builtin_frame_address(0) >> 16;

	first = first ^ first >> 7;
	for (unsigned int i = 0; i < HELPER_SLOTS; i++) {
		struct helper_slot *slot = &ring->slots[(first + i) % HELPER_SLOTS];
		uint32_t free = HELPER_SLOT_FREE;

		if (atomic_compare_exchange_strong_explicit(
			    &slot->state, &free, HELPER_SLOT_CLAIMED, memory_order_acquire,
			    memory_order_relaxed))
			return slot;
	}
	return NULL;
}

static void release(struct helper_slot *slot)
{
	atomic_store_explicit(&slot->state, HELPER_SLOT_FREE, memory_order_release);
}

static bool supervisor_lives(void)
{
	return !SYS3(SYS_ioctl, HELPER_FD(-1, 0), HELPER_CALL_PING, 0);
}

/* Sleeps until the slot is done. False: the supervisor has died. */
static bool sleep_until_done(struct helper_slot *slot)
{
	struct timespec second = {1, 0};
	uint32_t state = HELPER_SLOT_TAKEN;

	atomic_compare_exchange_strong_explicit(&slot->state, &state, HELPER_SLOT_WAITED,
						memory_order_acq_rel, memory_order_acquire);
	while (atomic_load_explicit(&slot->state, memory_order_acquire) == HELPER_SLOT_WAITED)
		if (SYS4(SYS_futex, &slot->state, FUTEX_WAIT, HELPER_SLOT_WAITED, &second) ==
			    -ETIMEDOUT &&
		    !supervisor_lives())
			return false;
	return true;
}

/*
 * Hands the claimed and filled slot over and waits. False: it was not served; the slot is claimed still, or lost with the
 * supervisor.
 */
static bool serve(struct helper_ring *ring, struct helper_slot *slot)
{
	uint32_t state;

	atomic_store_explicit(&slot->state, HELPER_SLOT_PENDING, memory_order_seq_cst);
	if (!atomic_load_explicit(&ring->polling, memory_order_seq_cst))
		goto take_back;
	for (unsigned int i = 0; i < SPINS_PENDING + SPINS_TAKEN; i++) {
		state = atomic_load_explicit(&slot->state, memory_order_acquire);
		if (state == HELPER_SLOT_DONE)
			return true;
		if (state == HELPER_SLOT_PENDING && i >= SPINS_PENDING)
			break;
		pause_cpu();
	}
take_back:
	state = HELPER_SLOT_PENDING;
	if (atomic_compare_exchange_strong_explicit(&slot->state, &state, HELPER_SLOT_CLAIMED,
						    memory_order_acq_rel, memory_order_acquire)) {
		/* It is busy, or does not get to run: it will say when it is back. */
		atomic_store_explicit(&ring->polling, 0, memory_order_relaxed);
		return false;
	}
	return sleep_until_done(slot);
}

/* ---- descriptors ------------------------------------------------------------------------------- */

int fast_token(int fd, struct helper_token *out)
{
	*out = (struct helper_token){0};
	return (int)SYS3(SYS_ioctl, fast_fd(fd), HELPER_CALL_TOKEN, out);
}

/* What the descriptor is at this moment, if that is known. */
static bool find_known(int fd, struct helper_token *out)
{
	struct known *k = &known[fd];

	out->token = atomic_load_explicit(&k->token, memory_order_acquire);
	if (!out->token)
		return false;
	out->secret = atomic_load_explicit(&k->secret, memory_order_relaxed);
	out->flags = atomic_load_explicit(&k->flags, memory_order_relaxed);
	if ((uint64_t)SYS3(SYS_lseek, fd, 0, 1 /* SEEK_CUR */) == out->token)
		return true;
	atomic_store_explicit(&k->token, 0, memory_order_relaxed);
	return false;
}

/* A call on it has been made by system call: next time it shall be known. Of devices at once: accesses will follow. */
static void learn(int fd, bool device)
{
	struct known *k;
	struct helper_token t;

	if (fd < 0 || fd >= FDS)
		return;
	k = &known[fd];
	if (atomic_load_explicit(&k->token, memory_order_relaxed))
		return;
	/* The first call on a file is often the only one. */
	if (atomic_fetch_add_explicit(&k->calls, 1, memory_order_relaxed) % 4 != 3 && !device)
		return;
	if (fast_token(fd, &t))
		return;
	atomic_store_explicit(&k->secret, t.secret, memory_order_relaxed);
	atomic_store_explicit(&k->flags, t.flags, memory_order_relaxed);
	atomic_store_explicit(&k->token, t.token, memory_order_release);
}

/* ---- calls ------------------------------------------------------------------------------------- */

/* The size that the struct says of itself, if the ring serves such a call; 0: no. */
static uint32_t ring_size(uint32_t command, uint64_t arg)
{
	uint32_t size;

	if (!helper_ring_serves(command, 0) ||
	    guarded_copy(&size, (const void *)arg, sizeof(size)) ||
	    !helper_ring_serves(command, size) || size < sizeof(size))
		return 0;
	return size;
}

/* What the supervisor has written goes where it belongs. */
static bool copy_back(const struct helper_slot *slot, uint64_t address)
{
	uint32_t first = slot->out_first, stop = slot->out_end;

	if (first >= stop || stop > HELPER_DATA_MAX)
		return true;
	return !guarded_copy((void *)(address + first), slot->data + first, stop - first);
}

static bool ring_ioctl(int fd, uint32_t command, uint64_t arg, long *result)
{
	struct helper_ring *ring;
	struct helper_slot *slot;
	struct helper_token t;
	uint32_t size;
	bool done = false;

	if (fd < 0 || fd >= FDS || (command & 0xff00) != 0x3b00)
		return false;
	ring = ring_now();
	size = ring ? ring_size(command, arg) : 0;
	if (!size || !find_known(fd, &t))
		return false;
	slot = claim(ring);
	if (!slot)
		return false;
	slot->request = (struct helper_request){.op = HELPER_REQUEST_IOCTL,
						.command = command,
						.token = t.token,
						.secret = t.secret,
						.address = arg,
						.data_size = size};
	/* The answer must find its way back: a struct that cannot be written is the system call's. */
	if (guarded_copy(slot->data, (const void *)arg, size) || guarded_touch((void *)arg) ||
	    guarded_touch((void *)(arg + size - 1)))
		goto out;
	done = serve(ring, slot) && !slot->refused;
	if (done)
		*result = copy_back(slot, arg) ? slot->result : -EFAULT;
out:
	release(slot);
	return done;
}

/* Before memory is mapped for DMA, it is made shared if the session wants that. */
static void prepare_memory(int fd, uint32_t command, uint64_t arg)
{
	struct iommu_ioas_map map;
	struct vfio_iommu_type1_dma_map dma;
	struct helper_token t;

	if (fd < 0 || fd >= FDS || (command != IOMMU_IOAS_MAP && command != VFIO_IOMMU_MAP_DMA))
		return;
	if (!atomic_load_explicit(&known[fd].token, memory_order_relaxed))
		learn(fd, true);
	if (!(atomic_load_explicit(&known[fd].flags, memory_order_relaxed) &
	      HELPER_TOKEN_CONVERT) ||
	    !find_known(fd, &t))
		return;
	trap_install(); /* for the guarded copies */
	if (command == IOMMU_IOAS_MAP && !guarded_copy(&map, (void *)arg, sizeof(map)))
		convert_range(map.user_va, map.length);
	if (command == VFIO_IOMMU_MAP_DMA && !guarded_copy(&dma, (void *)arg, sizeof(dma)))
		convert_range(dma.vaddr, dma.size);
}

long fast_ioctl(int fd, unsigned long command, uint64_t arg)
{
	long rc;

	prepare_memory(fd, (uint32_t)command, arg);
	if (ring_ioctl(fd, (uint32_t)command, arg, &rc))
		return rc;
	rc = SYS3(SYS_ioctl, fast_fd(fd), command, arg);
	if (rc >= 0 && (command & 0xff00) == 0x3b00)
		learn(fd, command >= VFIO_FIRST && command < IOMMUFD_FIRST);
	return rc;
}

static bool ring_move(const struct helper_token *t, bool write, void *buf, size_t count,
		      uint64_t position, long *result)
{
	struct helper_ring *ring = ring_now();
	struct helper_slot *slot = ring ? claim(ring) : NULL;
	bool done = false;

	if (!slot)
		return false;
	slot->request =
		(struct helper_request){.op = write ? HELPER_REQUEST_WRITE : HELPER_REQUEST_READ,
					.token = t->token,
					.secret = t->secret,
					.address = (uintptr_t)buf,
					.position = position,
					.data_size = (uint32_t)count};
	if (write && guarded_copy(slot->data, buf, count))
		goto out;
	done = serve(ring, slot) && !slot->refused;
	if (done)
		*result = copy_back(slot, (uintptr_t)buf) ? slot->result : -EFAULT;
out:
	release(slot);
	return done;
}

bool fast_is_device(int fd)
{
	return fd >= 0 && fd < FDS &&
	       atomic_load_explicit(&known[fd].token, memory_order_relaxed) &&
	       atomic_load_explicit(&known[fd].flags, memory_order_relaxed) & HELPER_TOKEN_DEVICE;
}

long fast_transfer(int fd, bool write, uint64_t buf, size_t count, uint64_t position)
{
	struct helper_token t;
	long rc;

	if (count && count <= HELPER_ACCESS_MAX && find_known(fd, &t) &&
	    ring_move(&t, write, (void *)buf, count, position, &rc))
		return rc;
	return SYS4(write ? SYS_pwrite64 : SYS_pread64, fast_fd(fd), buf, count, position);
}

int fast_access(uint64_t token, uint64_t secret, uint64_t position, void *data, unsigned int size,
		bool write)
{
	struct helper_token t = {.token = token, .secret = secret};
	struct helper_access a = {.token = token,
				  .secret = secret,
				  .position = position,
				  .data = (uintptr_t)data,
				  .size = size,
				  .write = write};
	struct preload_state *s = preload_state();
	long rc;

	if (ring_move(&t, write, data, size, position, &rc))
		return rc == (long)size ? 0 : -EIO;
	rc = SYS3(SYS_ioctl, HELPER_FD(-1, s ? s->ring_number : 0), HELPER_CALL_ACCESS, &a);
	return rc < 0 ? (int)rc : rc == (long)size ? 0 : -EIO;
}

int fast_decode(struct helper_insn *insn)
{
	return (int)SYS3(SYS_ioctl, HELPER_FD(-1, 0), HELPER_CALL_DECODE, insn);
}
