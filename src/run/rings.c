// SPDX-License-Identifier: MIT
/*
 * Rings: calls of programs without a system call (preload/protocol.h).
 *
 * One thread looks at the rings of all processes that are busy, and only while they are: it is woken when a process with a ring has made
 * several system calls in a few milliseconds, and sleeps again when nothing has come for a moment. It waits for nobody but
 * the calls it serves; if one of those blocks (on the program's memory, say), the others find that nobody looks and make
 * system calls, which the workers serve. So a ring never makes a call wait for another one, and there is no need for a second
 * thread.
 *
 * Only calls that succeed are answered. What is refused, for whatever reason, comes again as a system call, with everything that
 * belongs to it: exact errors, explanations, descriptors.
 *
 * A ring belongs to an address space, which a memory owner stands for: it stays what it is when the process execs, and tells when
 * it is gone.
 */
#include "run/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "mem/owner.h"
#include "run/dispatch.h"
#include "run/files.h"
#include "run/task.h"

#define RINGS_MAX 64u
#define RING_SIZE ((sizeof(struct helper_ring) + 4095) & ~4095ul)
/* So many system calls within so long make a process worth looking at. */
#define HOT_CALLS 6u
#define HOT_MS 4
/* Without a request for so long, the thread goes to sleep. */
#define IDLE_NS 100000
/* A request that came since is not that of a process that has ended. */
#define FRESH_NS 20000
#define IDENTITY_NS 1000000
/* How often to look for processes that have ended, while there are any. */
#define SWEEP_MS 500
#define STACK_SIZE (256u << 10)

struct ring_process {
	_Atomic unsigned int refs; /* rings.process[] and the thread */
	pid_t tgid;
	struct mem_owner *owner;
	struct helper_ring *ring;
	_Atomic bool hot;
	/* The thread's own: who it is. */
	bool identity_known, locks_memory;
	uid_t user;
	int64_t identity_time;
	/* rings.lock */
	int64_t window; /* ms */
	unsigned int calls;
};

struct rings {
	struct session *session;
	pthread_mutex_t lock; /* process[], wanted; short */
	pthread_cond_t wake;
	struct ring_process *process[RINGS_MAX]; /* number - 1 */
	size_t count;				 /* of those that are there; lock */
	_Atomic bool wanted;
	_Atomic bool stop;
	bool started;
	pthread_t thread;
	int64_t looked; /* ns: when the thread has looked last */
};

/* A call that a ring brought; `data` is the program's memory at request.address. */
struct ring_task {
	struct task task; /* first */
	struct ring_process *process;
	struct helper_request request;
	uint32_t data_size;
	uint32_t out_first, out_end;
	uint8_t data[HELPER_DATA_MAX];
};

static int64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void process_put(struct ring_process *p)
{
	if (--p->refs)
		return;
	if (p->ring)
		munmap(p->ring, RING_SIZE);
	if (p->owner)
		mem_owner_put(p->owner);
	swi_free(p);
}

bool ring_process_alive(struct ring_process *p)
{
	return !mem_owner_gone(p->owner);
}

/* ---- the caller, as the engine sees it --------------------------------------------------------- */

static struct ring_task *ring_task_of(struct swiommu_caller *c)
{
	return container_of(container_of(c, struct task, caller), struct ring_task, task);
}

static uint8_t *inside(struct ring_task *t, uint64_t uptr, size_t len)
{
	uint64_t off = uptr - t->request.address;

	return off <= t->data_size && len <= t->data_size - off ? t->data + off : NULL;
}

static int ring_copy_in(struct swiommu_caller *c, void *dst, uint64_t uptr, size_t len)
{
	const uint8_t *at = inside(ring_task_of(c), uptr, len);

	if (!at)
		return -EFAULT;
	memcpy(dst, at, len);
	return 0;
}

static int ring_copy_out(struct swiommu_caller *c, uint64_t uptr, const void *src, size_t len)
{
	struct ring_task *t = ring_task_of(c);
	uint8_t *at = inside(t, uptr, len);
	uint32_t first;

	if (!at)
		return -EFAULT;
	memcpy(at, src, len);
	first = (uint32_t)(at - t->data);
	t->out_first = SWI_MIN(t->out_first, first);
	t->out_end = SWI_MAX(t->out_end, first + (uint32_t)len);
	return 0;
}

static int ring_get_fd(struct swiommu_caller *c, int fd, int *out_fd)
{
	(void)c;
	(void)fd;
	(void)out_fd;
	return -EBADF;
}

static int ring_get_ctx(struct swiommu_caller *c, int fd, struct iommufd_ctx **out)
{
	(void)c;
	(void)fd;
	(void)out;
	return -EBADF;
}

static int ring_install_fd(struct swiommu_caller *c, int fd, int flags, int *out_fd)
{
	(void)c;
	(void)fd;
	(void)flags;
	(void)out_fd;
	return -EMFILE;
}

static int ring_get_memory(struct swiommu_caller *c, struct mem_owner **out)
{
	*out = mem_owner_get(ring_task_of(c)->process->owner);
	return 0;
}

/*
 * Who the process is, read from /proc at most once in a while: that costs as much as many calls do. So the end of a
 * privilege counts for calls by the ring a moment late.
 */
static bool refresh_identity(struct ring_task *t)
{
	struct ring_process *p = t->process;
	int64_t now = now_ns(CLOCK_MONOTONIC);
	uid_t user = 0;
	pid_t pid = 0;

	if (p->identity_known && now - p->identity_time < IDENTITY_NS)
		return true;
	p->identity_known = !task_get_account(&t->task.caller, &pid, &user) && pid == p->tgid;
	p->user = user;
	p->locks_memory = task_capable(&t->task.caller, CAP_IPC_LOCK);
	p->identity_time = now;
	return p->identity_known;
}

static bool ring_capable(struct swiommu_caller *c, int cap)
{
	struct ring_task *t = ring_task_of(c);

	if (cap != CAP_IPC_LOCK)
		return task_capable(c, cap);
	return refresh_identity(t) && t->process->locks_memory;
}

static int ring_get_account(struct swiommu_caller *c, pid_t *process, uid_t *user)
{
	struct ring_task *t = ring_task_of(c);

	if (!refresh_identity(t))
		return -ESRCH;
	*process = t->process->tgid;
	*user = t->process->user;
	return 0;
}

static const struct swiommu_caller_ops ring_ops = {
	.copy_in = ring_copy_in,
	.copy_out = ring_copy_out,
	.get_fd = ring_get_fd,
	.get_ctx = ring_get_ctx,
	.get_memory = ring_get_memory,
	.capable = ring_capable,
	.get_account = ring_get_account,
	.install_fd = ring_install_fd,
};

/* ---- one request ------------------------------------------------------------------------------- */

static bool is_sane(const struct helper_request *q)
{
	switch (q->op) {
	case HELPER_REQUEST_IOCTL:
		return q->data_size && helper_ring_serves(q->command, q->data_size);
	case HELPER_REQUEST_READ:
	case HELPER_REQUEST_WRITE:
		return q->data_size && q->data_size <= HELPER_ACCESS_MAX;
	default:
		return false;
	}
}

static struct seccomp_data as_system_call(const struct helper_request *q)
{
	struct seccomp_data d = {0};

	if (q->op == HELPER_REQUEST_IOCTL) {
		d.nr = SYS_ioctl;
		d.args[1] = q->command;
		d.args[2] = q->address;
	} else {
		d.nr = q->op == HELPER_REQUEST_WRITE ? SYS_pwrite64 : SYS_pread64;
		d.args[1] = q->address;
		d.args[2] = q->data_size;
		d.args[3] = q->position;
	}
	return d;
}

static long perform(struct rings *r, struct ring_task *t)
{
	struct seccomp_data d = as_system_call(&t->request);
	struct session *s = r->session;
	struct open_file *file;
	struct call call;
	long rc;

	call_begin(s->calls, &call, &t->task);
	rc = files_get_named(s->files, t->request.token, t->request.secret, t->process->tgid,
			     &file);
	if (!rc) {
		rc = call_proceed(s->calls, &call, file) ? dispatch_file(s, &t->task, file, &d)
							 : -ESRCH;
		open_file_put(file);
	}
	call_end(s->calls, &call);
	return rc;
}

static void answer(struct helper_slot *slot, const struct ring_task *t, long rc)
{
	uint32_t taken = HELPER_SLOT_TAKEN;

	slot->refused = rc < 0;
	slot->result = rc;
	slot->out_first = t->out_first;
	slot->out_end = t->out_end;
	if (rc >= 0 && t->out_first < t->out_end)
		memcpy(slot->data + t->out_first, t->data + t->out_first,
		       t->out_end - t->out_first);
	if (atomic_compare_exchange_strong(&slot->state, &taken, HELPER_SLOT_DONE))
		return;
	/* It sleeps. */
	atomic_store(&slot->state, HELPER_SLOT_DONE);
	syscall(SYS_futex, &slot->state, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/*
 * Whether the caller can still be there. It was when we looked last, so unless that is long ago it cannot have been killed,
 * and somebody have waited for that.
 */
static bool is_fresh(struct rings *r, struct ring_process *p)
{
	return now_ns(CLOCK_MONOTONIC) - r->looked < FRESH_NS || ring_process_alive(p);
}

static void serve(struct rings *r, struct ring_process *p, struct helper_slot *slot)
{
	uint32_t pending = HELPER_SLOT_PENDING;
	struct ring_task t;
	long rc = -EINVAL;

	if (!atomic_compare_exchange_strong(&slot->state, &pending, HELPER_SLOT_TAKEN))
		return;
	task_init(&t.task, r->session, NULL, p->tgid, 0);
	t.task.caller.ops = &ring_ops;
	t.task.ring = p;
	t.process = p;
	t.out_first = UINT32_MAX;
	t.out_end = 0;
	/* From here on only the copies count: the program can change the slot at any time. */
	memcpy(&t.request, &slot->request, sizeof(t.request));
	__asm__ volatile("" : : : "memory");
	if (is_sane(&t.request) && is_fresh(r, p)) {
		t.data_size = t.request.data_size;
		memcpy(t.data, slot->data, t.data_size);
		__asm__ volatile("" : : : "memory");
		rc = perform(r, &t);
	}
	answer(slot, &t, rc);
}

/* ---- the thread -------------------------------------------------------------------------------- */

/* Address spaces come to an end without telling us. */
static void sweep(struct rings *r)
{
	struct ring_process *gone[RINGS_MAX];
	size_t n = 0;

	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < RINGS_MAX; i++)
		if (r->process[i] && !ring_process_alive(r->process[i])) {
			gone[n++] = r->process[i];
			r->process[i] = NULL;
			r->count--;
		}
	pthread_mutex_unlock(&r->lock);
	while (n)
		process_put(gone[--n]);
}

/* True: nothing has happened. */
static bool wait_a_moment_locked(struct rings *r)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += SWEEP_MS * 1000000l;
	if (t.tv_nsec >= 1000000000l) {
		t.tv_nsec -= 1000000000l;
		t.tv_sec++;
	}
	return pthread_cond_timedwait(&r->wake, &r->lock, &t) == ETIMEDOUT;
}

struct watch {
	struct ring_process *process[RINGS_MAX];
	size_t n;
};

static bool look(struct rings *r, const struct watch *w)
{
	bool any = false;

	for (size_t i = 0; i < w->n; i++) {
		struct helper_ring *ring = w->process[i]->ring;

		/* Helpers clear it when they find us slow. */
		if (!atomic_load_explicit(&ring->polling, memory_order_relaxed))
			atomic_store(&ring->polling, 1);
		for (size_t k = 0; k < HELPER_SLOTS; k++) {
			if (atomic_load_explicit(&ring->slots[k].state, memory_order_relaxed) !=
			    HELPER_SLOT_PENDING)
				continue;
			serve(r, w->process[i], &ring->slots[k]);
			any = true;
		}
	}
	r->looked = now_ns(CLOCK_MONOTONIC);
	return any;
}

static void begin_watch(struct rings *r, struct watch *w)
{
	w->n = 0;
	pthread_mutex_lock(&r->lock);
	while (!r->wanted && !r->stop) {
		if (!r->count) {
			pthread_cond_wait(&r->wake, &r->lock);
		} else if (wait_a_moment_locked(r)) {
			pthread_mutex_unlock(&r->lock);
			sweep(r);
			pthread_mutex_lock(&r->lock);
		}
	}
	r->wanted = false;
	for (size_t i = 0; i < RINGS_MAX; i++) {
		if (!r->process[i] || !r->process[i]->hot)
			continue;
		r->process[i]->refs++;
		w->process[w->n++] = r->process[i];
	}
	pthread_mutex_unlock(&r->lock);
}

static void end_watch(struct rings *r, struct watch *w)
{
	for (size_t i = 0; i < w->n; i++) {
		w->process[i]->hot = false;
		atomic_store(&w->process[i]->ring->polling, 0);
	}
	/*
	 * Whoever saw that somebody looks has put his request there by now, or sees that nobody does: both sides first
	 * write, then read, all in one order (memory_order_seq_cst).
	 */
	for (size_t i = 0; i < w->n; i++)
		for (size_t k = 0; k < HELPER_SLOTS; k++)
			if (atomic_load(&w->process[i]->ring->slots[k].state) ==
			    HELPER_SLOT_PENDING)
				serve(r, w->process[i], &w->process[i]->ring->slots[k]);
	while (w->n)
		process_put(w->process[--w->n]);
}

static void pause_cpu(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static void *watcher(void *arg)
{
	struct rings *r = arg;
	struct watch w;
	int64_t quiet;

	while (!r->stop) {
		begin_watch(r, &w);
		quiet = now_ns(CLOCK_MONOTONIC);
		while (!r->stop && !r->wanted) {
			if (look(r, &w))
				quiet = r->looked;
			else if (r->looked - quiet > IDLE_NS)
				break;
			else
				pause_cpu();
		}
		/* Somebody else has become busy: those that were stay. */
		if (r->wanted)
			for (size_t i = 0; i < w.n; i++)
				w.process[i]->hot = true;
		end_watch(r, &w);
	}
	return NULL;
}

void rings_hint(struct rings *r, unsigned int number)
{
	int64_t now = now_ns(CLOCK_MONOTONIC_COARSE) / 1000000;
	struct ring_process *p;

	if (!r || !number || number > RINGS_MAX)
		return;
	pthread_mutex_lock(&r->lock);
	p = r->process[number - 1];
	if (p && now - p->window > HOT_MS) {
		p->window = now;
		p->calls = 0;
	}
	if (p && ++p->calls >= HOT_CALLS && !r->wanted) {
		p->calls = 0;
		p->hot = true;
		r->wanted = true;
		pthread_cond_signal(&r->wake);
	}
	pthread_mutex_unlock(&r->lock);
}

/* ---- life -------------------------------------------------------------------------------------- */

static int make_ring(int *out_fd, struct helper_ring **out)
{
	void *p;
	int rc, fd = memfd_create("swiommu-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	/* A program that could make it shorter could make us fault. */
	if (ftruncate(fd, RING_SIZE) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		goto fail;
	p = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		goto fail;
	*out = p;
	*out_fd = fd;
	return 0;
fail:
	rc = -errno;
	close(fd);
	return rc;
}

static int start_locked(struct rings *r)
{
	pthread_attr_t attr;
	int rc;

	if (r->started)
		return 0;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	rc = pthread_create(&r->thread, &attr, watcher, r);
	pthread_attr_destroy(&attr);
	r->started = !rc;
	return -rc;
}

/* The place of the process, which has one ring only: a new one replaces it. Else a free one; RINGS_MAX: there is none. */
static size_t find_place_locked(struct rings *r, pid_t tgid)
{
	size_t found = RINGS_MAX;

	for (size_t i = 0; i < RINGS_MAX; i++) {
		if (r->process[i] && r->process[i]->tgid == tgid)
			return i;
		if (!r->process[i] && found == RINGS_MAX)
			found = i;
	}
	return found;
}

static int insert(struct rings *r, struct ring_process *p, unsigned int *out_number)
{
	struct ring_process *old = NULL;
	size_t i;
	int rc;

	pthread_mutex_lock(&r->lock);
	rc = start_locked(r);
	i = find_place_locked(r, p->tgid);
	if (!rc && i == RINGS_MAX)
		rc = -EAGAIN;
	if (!rc) {
		old = r->process[i];
		r->process[i] = p;
		r->count += !old;
		pthread_cond_signal(&r->wake);
		*out_number = (unsigned int)i + 1;
	}
	pthread_mutex_unlock(&r->lock);
	if (old)
		process_put(old);
	return rc;
}

int rings_add(struct rings *r, struct task *t, int *out_fd, unsigned int *out_number,
	      uint32_t *out_size)
{
	struct mem_owner *owner;
	struct ring_process *p;
	uid_t user;
	int rc;

	sweep(r);
	p = swi_new(struct ring_process);
	if (!p)
		return -ENOMEM;
	p->refs = 1;
	rc = t->caller.ops->get_account(&t->caller, &p->tgid, &user);
	if (!rc)
		rc = t->caller.ops->get_memory(&t->caller, &owner);
	if (rc)
		goto fail;
	p->owner = owner;
	rc = make_ring(out_fd, &p->ring);
	if (rc)
		goto fail;
	*out_size = RING_SIZE;
	rc = insert(r, p, out_number);
	if (!rc)
		return 0;
	close(*out_fd);
fail:
	process_put(p);
	return rc;
}

int rings_create(struct session *s, struct rings **out)
{
	struct rings *r;
	cpu_set_t cpus;

	*out = NULL;
	/* A thread that looks needs a processor of its own; injected failures are counted per system call. */
	if (s->testabi || !s->helper[0] || sched_getaffinity(0, sizeof(cpus), &cpus) ||
	    CPU_COUNT(&cpus) < 2)
		return 0;
	r = swi_new(struct rings);
	if (!r)
		return -ENOMEM;
	r->session = s;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->wake, NULL);
	*out = r;
	return 0;
}

void rings_destroy(struct rings *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
	if (r->started)
		pthread_join(r->thread, NULL);
	for (size_t i = 0; i < RINGS_MAX; i++)
		if (r->process[i])
			process_put(r->process[i]);
	pthread_cond_destroy(&r->wake);
	pthread_mutex_destroy(&r->lock);
	swi_free(r);
}
