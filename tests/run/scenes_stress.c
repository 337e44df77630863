// SPDX-License-Identifier: MIT
/*
 * kills COUNT SEED: ten processes, of three threads each, that share an open /dev/iommu and open
 * more of their own, map, unmap, copy, bind, attach and do DMA without end; COUNT times one of them
 * is killed at a random moment and replaced. Now and then all are ended: "quiet N" is printed, with
 * nothing open, and a byte awaited.
 */
#include "client.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS 10
#define THREADS 3
#define MEMORY (32 * PAGE)

struct thread {
	unsigned int seed;
	int shared, fd; /* fd: one of the two */
	uint32_t ioas, second;
	char *memory;
	uint64_t iova[8]; /* 0: free */
	size_t len[8];
};

static unsigned int dice(struct thread *t, unsigned int sides)
{
	return rand_r(&t->seed) % sides;
}

static void map_or_unmap(struct thread *t)
{
	unsigned int i = dice(t, 8);

	if (t->iova[i]) {
		CHECK(!ioas_unmap(t->fd, t->ioas, t->iova[i], t->len[i]));
		t->iova[i] = 0;
		return;
	}
	t->len[i] = (1 + dice(t, 8)) * PAGE;
	t->iova[i] = ioas_map(t->fd, t->ioas, t->memory + dice(t, 24) * PAGE, t->len[i]);
}

static void copy_mapping(struct thread *t)
{
	unsigned int i = dice(t, 8);
	struct iommu_ioas_copy cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_READABLE,
		.dst_ioas_id = t->second,
		.src_ioas_id = t->ioas,
		.length = t->len[i],
		.src_iova = t->iova[i],
	};

	if (!t->iova[i])
		return;
	CHECK(!ioctl(t->fd, IOMMU_IOAS_COPY, &cmd));
	if (dice(t, 2))
		CHECK(!ioas_unmap(t->fd, t->second, cmd.dst_iova, cmd.length));
}

static void arm_interrupt(int dev, int event)
{
	_Alignas(struct vfio_irq_set) char buf[sizeof(struct vfio_irq_set) + sizeof(int32_t)] = {0};
	struct vfio_irq_set *set = (struct vfio_irq_set *)buf;

	set->argsz = sizeof(buf);
	set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	set->index = VFIO_PCI_MSIX_IRQ_INDEX;
	set->count = 1;
	memcpy(set->data, &event, sizeof(event));
	CHECK(!ioctl(dev, VFIO_DEVICE_SET_IRQS, set));
}

static void use_device(struct thread *t)
{
	struct engine e = {.iommufd = t->fd, .fd = vfio_open(O_RDWR | O_CLOEXEC), .ioas = t->ioas};
	char *from = t->memory + MEMORY, *to = from + 2 * PAGE;
	int event;

	CHECK(e.fd >= 0);
	if (vfio_bind(e.fd, e.iommufd)) {
		CHECK(errno == EINVAL); /* somebody else has it */
		close(e.fd);
		return;
	}
	CHECK(!vfio_attach(e.fd, e.ioas));
	engine_start(&e);
	event = eventfd(0, EFD_CLOEXEC);
	arm_interrupt(e.fd, event);
	if (dice(t, 2)) {
		uint64_t src = ioas_map(e.iommufd, e.ioas, from, 2 * PAGE);
		uint64_t dst = ioas_map(e.iommufd, e.ioas, to, 2 * PAGE);

		memset(from, dice(t, 256), 2 * PAGE);
		CHECK(!engine_copy(&e, dst, src, 2 * PAGE));
		CHECK(all_bytes(to, 2 * PAGE, *from));
		CHECK(!ioas_unmap(e.iommufd, e.ioas, src, 2 * PAGE));
		CHECK(!ioas_unmap(e.iommufd, e.ioas, dst, 2 * PAGE));
	}
	CHECK(!close(e.fd));
	CHECK(!ioas_unmap(e.iommufd, e.ioas, e.iova, PAGE));
	munmap(e.desc, PAGE);
	close(event);
}

static void begin_anew(struct thread *t)
{
	CHECK(!destroy(t->fd, t->second));
	CHECK(!destroy(t->fd, t->ioas));
	if (t->fd != t->shared)
		CHECK(!close(t->fd));
	t->fd = dice(t, 2) ? t->shared : iommu_open();
	t->ioas = ioas_alloc(t->fd);
	t->second = ioas_alloc(t->fd);
	memset(t->iova, 0, sizeof(t->iova));
}

static void *work(void *arg)
{
	struct thread *t = arg;

	t->memory = pages(MEMORY + 4 * PAGE, 0);
	t->fd = t->shared;
	t->ioas = ioas_alloc(t->fd);
	t->second = ioas_alloc(t->fd);
	for (;;) {
		unsigned int what = dice(t, 100);

		if (what < 70)
			map_or_unmap(t);
		else if (what < 85)
			copy_mapping(t);
		else if (what < 93)
			use_device(t);
		else
			begin_anew(t);
	}
	return NULL;
}

static _Noreturn void worker(unsigned int seed, int shared)
{
	struct thread threads[THREADS];
	pthread_t id;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned int i = 0; i < THREADS; i++) {
		threads[i] = (struct thread){.seed = seed + i, .shared = shared};
		CHECK(!pthread_create(&id, NULL, work, &threads[i]));
	}
	for (;;)
		pause();
}

struct crowd {
	unsigned int seed;
	int shared;
	pid_t pids[WORKERS];
};

static void start(struct crowd *c, int i)
{
	c->pids[i] = fork();
	CHECK(c->pids[i] >= 0);
	if (!c->pids[i])
		worker(rand_r(&c->seed), c->shared);
	(void)rand_r(&c->seed);
}

static void end(struct crowd *c, int i)
{
	int status;

	CHECK(!kill(c->pids[i], SIGKILL));
	CHECK(waitpid(c->pids[i], &status, 0) == c->pids[i]);
	CHECK(WIFSIGNALED(status)); /* not by itself: its checks held */
}

static void start_all(struct crowd *c)
{
	c->shared = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < WORKERS; i++)
		start(c, i);
}

static void end_all(struct crowd *c)
{
	int fd, dev;

	for (int i = 0; i < WORKERS; i++)
		end(c, i);
	CHECK(!close(c->shared));
	/* Whoever had the device is dead, so it is free: at once. */
	fd = iommu_open();
	dev = vfio_open(O_RDWR);
	CHECK(!vfio_bind(dev, fd));
	CHECK(!close(dev) && !close(fd));
}

static void be_quiet(unsigned int kills)
{
	char c;

	printf("quiet %u\n", kills);
	fflush(stdout);
	CHECK(read(STDIN_FILENO, &c, 1) == 1);
}

static int kills(int argc, char **argv)
{
	unsigned int count = argc > 0 ? atoi(argv[0]) : 30;
	struct crowd c = {.seed = argc > 1 ? atoi(argv[1]) : 1};

	start_all(&c);
	for (unsigned int n = 1; n <= count; n++) {
		int i = rand_r(&c.seed) % WORKERS;

		sleep_us(rand_r(&c.seed) % 10000);
		end(&c, i);
		if (n == count || n == 10 || n % 100 == 0) {
			start(&c, i);
			end_all(&c);
			be_quiet(n);
			start_all(&c);
		} else {
			start(&c, i);
		}
	}
	end_all(&c);
	return 0;
}

const struct scene stress_scenes[] = {{"kills", kills}, {NULL, NULL}};
