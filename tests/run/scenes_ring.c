// SPDX-License-Identifier: MIT
/*
 * The ring between the preload helper and the supervisor: as programs use it without knowing, and as one would that means
 * ill and knows it well.
 */
#include "client.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "preload/protocol.h"

/* ---- as programs use it ------------------------------------------------------------------------ */

/* So many calls in a row that they go by the ring, where there is one. */
static void make_hot(int fd)
{
	for (int i = 0; i < 300; i++)
		CHECK(!option_get(fd));
}

/* A number is what it is at the moment of the call, however fast calls are. */
static int ring_follows_descriptors(int argc, char **argv)
{
	int a = iommu_open(), b = iommu_open(), null = open("/dev/null", O_RDWR), fd = dup(a);
	uint32_t in_a, in_b;

	(void)argc;
	(void)argv;
	in_a = ioas_alloc(a);
	ioas_alloc(b);
	in_b = ioas_alloc(b);
	CHECK(in_a != in_b);
	for (int i = 0; i < 200; i++) {
		make_hot(fd);
		CHECK(ioas_exists(fd, in_a) && !ioas_exists(fd, in_b));
		CHECK(dup2(b, fd) == fd);
		uint32_t id = ioas_alloc(fd);

		CHECK(ioas_exists(b, id) && ioas_exists(fd, in_b));
		CHECK(!destroy(b, id));
		CHECK(dup2(null, fd) == fd);
		CHECK_ERROR(option_get(fd), ENOTTY);
		CHECK(!close(fd));
		CHECK_ERROR(option_get(fd), EBADF);
		CHECK(dup2(a, fd) == fd);
		(void)!lseek(fd, i % 3 ? 0 : lseek(b, 0, SEEK_CUR), SEEK_SET);
		CHECK(ioas_exists(fd, in_a) && !ioas_exists(fd, in_b));
	}
	/* With another table of descriptors it is another number. */
	pid_t pid = fork();

	if (!pid) {
		make_hot(fd);
		CHECK(dup2(b, fd) == fd);
		make_hot(fd);
		CHECK(ioas_exists(fd, in_b));
		_exit(0);
	}
	make_hot(fd);
	CHECK(ioas_exists(fd, in_a));
	int status;

	CHECK(waitpid(pid, &status, 0) == pid && !status);
	return 0;
}

static int ring_gives_exact_errors(int argc, char **argv)
{
	int fd = iommu_open();
	uint32_t ioas = ioas_alloc(fd);
	void *p = pages(2 * PAGE, 1);
	char *edge = (char *)p + 2 * PAGE - 8;
	struct iommu_ioas_alloc cmd = {.size = sizeof(cmd)};
	static const struct iommu_option constant = {
		.size = sizeof(constant), .option_id = 999, .op = IOMMU_OPTION_OP_GET};

	(void)argc;
	(void)argv;
	CHECK(!munmap((char *)p + PAGE, PAGE));
	edge -= PAGE;
	for (int i = 0; i < 300; i++) {
		CHECK(!option_get(fd));
		CHECK(!ioas_map_at(fd, ioas, p, PAGE, 0x10000));
		CHECK_ERROR(ioas_map_at(fd, ioas, p, PAGE, 0x10000), EEXIST);
		CHECK_ERROR(ioas_map_at(fd, ioas, (char *)p + PAGE, PAGE, 0x90000), 0);
		CHECK(!ioas_unmap(fd, ioas, 0x90000, PAGE));
		CHECK(!ioas_unmap(fd, ioas, 0x10000, PAGE));
		CHECK_ERROR(ioas_unmap(fd, ioas, 0x10000, PAGE), ENOENT);
		CHECK_ERROR(destroy(fd, 12345), ENOENT);
		CHECK_ERROR(ioctl(fd, IOMMU_IOAS_ALLOC, NULL), EFAULT);
		CHECK_ERROR(ioctl(fd, IOMMU_IOAS_ALLOC, (char *)p + PAGE), EFAULT);
		memcpy(edge, &cmd, 8); /* the struct ends beyond the page */
		CHECK_ERROR(ioctl(fd, IOMMU_IOAS_ALLOC, edge), EFAULT);
		CHECK_ERROR(ioctl(fd, IOMMU_OPTION, &constant), EOPNOTSUPP);
		cmd.size = 4;
		CHECK_ERROR(ioctl(fd, IOMMU_IOAS_ALLOC, &cmd), EINVAL);
		cmd.size = sizeof(cmd);
		errno = 77;
		CHECK(!option_get(fd) && errno == 77);
	}
	return 0;
}

static volatile sig_atomic_t handler_fd, handled;

static void call_in_handler(int sig)
{
	(void)sig;
	CHECK(!option_get(handler_fd));
	handled++;
}

struct caller {
	pthread_t thread;
	int fd;
};

static void *call_again(void *arg)
{
	struct caller *c = arg;

	for (int i = 0; i < 3000; i++)
		CHECK(!destroy(c->fd, ioas_alloc(c->fd)));
	return NULL;
}

/* Threads and signal handlers call at the same time. */
static int ring_is_shared(int argc, char **argv)
{
	struct itimerval every = {{0, 500}, {0, 500}};
	struct caller callers[6];

	(void)argc;
	(void)argv;
	handler_fd = iommu_open();
	CHECK(signal(SIGALRM, call_in_handler) != SIG_ERR);
	CHECK(!setitimer(ITIMER_REAL, &every, NULL));
	for (size_t i = 0; i < ARRAY_SIZE(callers); i++) {
		callers[i].fd = iommu_open();
		CHECK(!pthread_create(&callers[i].thread, NULL, call_again, &callers[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(callers); i++)
		CHECK(!pthread_join(callers[i].thread, NULL));
	CHECK(handled > 0);
	return 0;
}

/* ---- by who knows it --------------------------------------------------------------------------- */

/* The C library's function would not let the mark pass. */
static long marked(int fd, unsigned int ring, unsigned long command, void *arg)
{
#if defined(__x86_64__)
	long rc;

	__asm__ volatile("syscall"
			 : "=a"(rc)
			 : "a"(SYS_ioctl), "D"(HELPER_FD(fd, ring)), "S"(command), "d"(arg)
			 : "rcx", "r11", "memory");
	return rc;
#else
	(void)fd, (void)ring, (void)command, (void)arg;
	return -ENOSYS;
#endif
}

struct attack {
	struct helper_ring *ring;
	unsigned int number;
	int fd;
	struct helper_token token;
};

static bool attack_begin(struct attack *a)
{
	struct helper_ring_info info = {0};
	long rc;

	a->fd = iommu_open();
	CHECK(!option_get(a->fd));
	rc = marked(-1, 0, HELPER_CALL_RING, &info);
	if (rc == -EOPNOTSUPP || rc == -ENOSYS)
		return false;
	CHECK(!rc);
	a->number = info.number;
	a->ring = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, info.fd, 0);
	CHECK(a->ring != MAP_FAILED);
	/* It cannot be made shorter under the supervisor's feet. */
	CHECK(ftruncate(info.fd, 0) && errno == EPERM);
	close(info.fd);
	CHECK(!marked(a->fd, 0, HELPER_CALL_TOKEN, &a->token));
	return true;
}

/* Makes the supervisor look. */
static void attract(struct attack *a)
{
	for (int i = 0; i < 20; i++)
		CHECK(!marked(-1, a->number, HELPER_CALL_PING, NULL));
}

/* Hands a request over; true when it was answered, false when nobody looked for a while. */
static bool hand_over(struct attack *a, struct helper_slot *slot, const struct helper_request *q)
{
	double end = seconds() + 5;

	slot->request = *q;
	atomic_store(&slot->state, HELPER_SLOT_PENDING);
	while (atomic_load(&slot->state) != HELPER_SLOT_DONE) {
		attract(a);
		if (seconds() > end)
			return false;
	}
	atomic_store(&slot->state, HELPER_SLOT_FREE);
	return true;
}

static int ring_secrets(int argc, char **argv)
{
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct helper_request q = {.op = HELPER_REQUEST_IOCTL,
				   .command = IOMMU_IOAS_ALLOC,
				   .data_size = sizeof(alloc)};
	struct helper_slot *slot;
	struct attack a;

	(void)argc;
	(void)argv;
	if (!attack_begin(&a))
		return SKIP;
	slot = &a.ring->slots[3];
	memcpy(slot->data, &alloc, sizeof(alloc));
	q.address = 0x1000; /* nothing there: what counts is what the slot holds */
	q.token = a.token.token;
	q.secret = a.token.secret;
	CHECK(hand_over(&a, slot, &q) && !slot->refused && slot->result == 0);
	memcpy(&alloc, slot->data, sizeof(alloc));
	CHECK(ioas_exists(a.fd, alloc.out_ioas_id));
	q.secret ^= 1;
	CHECK(hand_over(&a, slot, &q) && slot->refused);
	q.secret ^= 1;
	q.token += 1ull << 20;
	CHECK(hand_over(&a, slot, &q) && slot->refused);
	q.token -= 1ull << 20;
	/* Not one of those that are served; larger than there is room; no operation. */
	q.command = IOMMU_IOAS_IOVA_RANGES;
	CHECK(hand_over(&a, slot, &q) && slot->refused);
	q.command = IOMMU_IOAS_ALLOC;
	q.data_size = 100000;
	CHECK(hand_over(&a, slot, &q) && slot->refused);
	q.data_size = sizeof(alloc);
	q.op = 77;
	CHECK(hand_over(&a, slot, &q) && slot->refused);
	/* Closed is closed. */
	q.op = HELPER_REQUEST_IOCTL;
	CHECK(!close(a.fd));
	a.fd = iommu_open();
	for (double end = seconds() + 5;; sleep_us(1000)) {
		CHECK(hand_over(&a, slot, &q));
		if (slot->refused)
			break;
		CHECK(seconds() < end); /* a moment later at most */
	}
	return 0;
}

static void scribble(struct attack *a, unsigned int *seed)
{
	static const uint32_t commands[] = {IOMMU_IOAS_ALLOC, IOMMU_IOAS_MAP, IOMMU_IOAS_UNMAP,
					    IOMMU_DESTROY,    IOMMU_OPTION,   VFIO_IOMMU_MAP_DMA};
	struct helper_slot *slot = &a->ring->slots[rand_r(seed) % HELPER_SLOTS];
	uint8_t *bytes = (uint8_t *)slot;

	switch (rand_r(seed) % 6) {
	case 0:
		bytes[rand_r(seed) % sizeof(*slot)] = (uint8_t)rand_r(seed);
		break;
	case 1:
		atomic_store(&slot->state, (uint32_t)rand_r(seed) % 8);
		break;
	case 2:
		for (size_t i = 0; i < HELPER_DATA_MAX; i++)
			slot->data[i] = (uint8_t)(rand_r(seed) % 3 ? 0 : rand_r(seed));
		slot->data[0] = 40;
		break;
	default:
		slot->request = (struct helper_request){
			.op = (uint32_t)rand_r(seed) % 4,
			.command = commands[(size_t)rand_r(seed) % ARRAY_SIZE(commands)],
			.token = a->token.token,
			.secret = a->token.secret,
			.address = (uint64_t)rand_r(seed) << 8,
			.position = (uint64_t)rand_r(seed) << 12,
			.data_size = (uint32_t)rand_r(seed) % 200};
		atomic_store(&slot->state, HELPER_SLOT_PENDING);
	}
}

/* Whatever is in the ring and while it changes: the supervisor serves on. */
static int ring_scribbled(int argc, char **argv)
{
	unsigned int seed = 1;
	double end = seconds() + 1.5;
	struct attack a;

	(void)argc;
	(void)argv;
	if (!attack_begin(&a))
		return SKIP;
	for (unsigned int i = 0; seconds() < end; i++) {
		scribble(&a, &seed);
		if (i % 64 == 0)
			attract(&a);
	}
	make_hot(a.fd);
	return ring_gives_exact_errors(0, NULL);
}

/* One that asks for rings over and over takes nobody else's. */
static int one_ring_for_a_process(int argc, char **argv)
{
	struct helper_ring_info info;
	struct attack a;

	(void)argc;
	(void)argv;
	if (!attack_begin(&a))
		return SKIP;
	for (unsigned int i = 0; i < 200; i++) {
		CHECK(!marked(-1, 0, HELPER_CALL_RING, &info));
		CHECK(info.number == a.number);
		close(info.fd);
	}
	make_hot(a.fd);
	return ring_gives_exact_errors(0, NULL);
}

const struct scene ring_scenes[] = {
	{"ring_follows_descriptors", ring_follows_descriptors},
	{"ring_gives_exact_errors", ring_gives_exact_errors},
	{"ring_is_shared", ring_is_shared},
	{"ring_secrets", ring_secrets},
	{"ring_scribbled", ring_scribbled},
	{"one_ring_for_a_process", one_ring_for_a_process},
	{NULL, NULL},
};
