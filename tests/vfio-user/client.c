// SPDX-License-Identifier: MIT
/*
 * client SCENE: a VFIO program for the test server's device, which knows nothing of swiommu nor of vfio-user. Ends with 0 if
 * everything was as with a device of one's own.
 *
 *   basic       registers, mapped registers where that is offered, DMA, interrupts, reset
 *   dies        the device goes away in the middle; it is told, and can be taken down
 *   returns     the same, and the device comes back
 */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/iommufd.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHECK(cond) ((cond) ? (void)0 : failed(__LINE__, #cond))
#define PAGE 4096ul
#define SIZE (64 * PAGE)

static int iommufd, dev;
static uint32_t ioas;
static char *shared, *private;

static void failed(int line, const char *what)
{
	fprintf(stderr, "client.c:%d: not so: %s (errno %d, %s)\n", line, what, errno,
		strerror(errno));
	exit(1);
}

static uint64_t get(unsigned int region, uint64_t offset, unsigned int size)
{
	uint64_t v = 0;

	CHECK(pread(dev, &v, size, ((off_t)region << 40) + (off_t)offset) == (ssize_t)size);
	return v;
}

static void put(unsigned int region, uint64_t offset, unsigned int size, uint64_t v)
{
	CHECK(pwrite(dev, &v, size, ((off_t)region << 40) + (off_t)offset) == (ssize_t)size);
}

static void map(void *p, size_t len, uint64_t iova)
{
	struct iommu_ioas_map m = {.size = sizeof(m),
				   .flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
					    IOMMU_IOAS_MAP_WRITEABLE,
				   .ioas_id = ioas,
				   .user_va = (uintptr_t)p,
				   .length = len,
				   .iova = iova};

	CHECK(!ioctl(iommufd, IOMMU_IOAS_MAP, &m));
}

static void unmap(uint64_t iova, size_t len)
{
	struct iommu_ioas_unmap m = {
		.size = sizeof(m), .ioas_id = ioas, .iova = iova, .length = len};

	CHECK(!ioctl(iommufd, IOMMU_IOAS_UNMAP, &m));
}

static int arm(unsigned int index, unsigned int count, const int *fds)
{
	char bytes[sizeof(struct vfio_irq_set) + 8 * sizeof(int)];
	struct vfio_irq_set *set = (void *)bytes;

	set->argsz = sizeof(*set) + count * sizeof(int);
	set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	set->index = index;
	set->start = 0;
	set->count = count;
	memcpy(set->data, fds, count * sizeof(int));
	return ioctl(dev, VFIO_DEVICE_SET_IRQS, set);
}

static int plain_irqs(unsigned int index, unsigned int action, unsigned int count)
{
	struct vfio_irq_set set = {.argsz = sizeof(set),
				   .flags = VFIO_IRQ_SET_DATA_NONE | action,
				   .index = index,
				   .count = count};

	return ioctl(dev, VFIO_DEVICE_SET_IRQS, &set);
}

static void wait_for(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t n;

	CHECK(poll(&p, 1, 20000) == 1);
	CHECK(read(fd, &n, sizeof(n)) == sizeof(n));
}

static void start(void)
{
	struct vfio_device_bind_iommufd bind = {.argsz = sizeof(bind)};
	struct vfio_device_attach_iommufd_pt attach = {.argsz = 12};
	struct iommu_ioas_alloc alloc = {.size = sizeof(alloc)};
	int fd = memfd_create("client", 0);

	iommufd = open("/dev/iommu", O_RDWR);
	dev = open("/dev/vfio/devices/vfio0", O_RDWR);
	CHECK(iommufd >= 0 && dev >= 0);
	bind.iommufd = iommufd;
	CHECK(!ioctl(dev, VFIO_DEVICE_BIND_IOMMUFD, &bind));
	CHECK(!ioctl(iommufd, IOMMU_IOAS_ALLOC, &alloc));
	attach.pt_id = ioas = alloc.out_ioas_id;
	CHECK(!ioctl(dev, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach));
	put(7, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	CHECK(get(7, PCI_VENDOR_ID, 4) == 0x0b0b1234);
	CHECK(get(0, REG_MAGIC, 8) == MAGIC);
	CHECK(!ftruncate(fd, SIZE));
	shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	private = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED && private != MAP_FAILED);
	map(shared, SIZE, 0x1000000);
	map(private, SIZE, 0x2000000);
}

static uint64_t copy(uint64_t to, uint64_t from, uint64_t len, unsigned int how)
{
	put(0, REG_TARGET, 8, to);
	put(0, REG_SOURCE, 8, from);
	put(0, REG_LENGTH, 8, len);
	put(0, REG_GO, 8, how);
	return get(0, REG_STATUS, 8);
}

static void fill(char *p, int seed)
{
	for (size_t i = 0; i < SIZE; i++)
		p[i] = (char)(i * 31 + i / 256 + (size_t)seed);
}

static void check_dma(void)
{
	fill(shared, 1);
	CHECK(!copy(0x2000000 + 3, 0x1000000 + 5, SIZE - 7, GO_COPY));
	CHECK(!memcmp(private + 3, shared + 5, SIZE - 7));
	fill(private, 2);
	CHECK(!copy(0x1000000, 0x2000000, SIZE, GO_COPY));
	CHECK(!memcmp(private, shared, SIZE));
	fill(private, 3);
	CHECK(!copy(0x1000000, 0x2000000, SIZE, GO_MESSAGES));
	CHECK(!memcmp(private, shared, SIZE));
	CHECK(copy(0x1000000, 0x7000000, 64, GO_COPY) == EFAULT);
}

static void check_interrupts(void)
{
	int fds[8];

	for (int i = 0; i < 8; i++)
		fds[i] = eventfd(0, EFD_NONBLOCK);
	CHECK(!arm(VFIO_PCI_MSIX_IRQ_INDEX, 8, fds));
	for (int i = 0; i < 8; i++) {
		put(0, REG_IRQ, 8, (uint64_t)i);
		wait_for(fds[i]);
	}
	CHECK(!plain_irqs(VFIO_PCI_MSIX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER, 0));
	CHECK(!arm(VFIO_PCI_INTX_IRQ_INDEX, 1, fds));
	for (int i = 0; i < 3; i++) {
		put(0, REG_IRQ, 8, 0);
		wait_for(fds[0]);
		CHECK(!plain_irqs(VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK, 1));
	}
	CHECK(!plain_irqs(VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER, 0));
	for (int i = 0; i < 8; i++)
		close(fds[i]);
}

/* The whole BAR through a mapping: registers answer, and page 1 is memory that the server has too. */
static void check_mapped(void)
{
	struct vfio_region_info info = {.argsz = sizeof(info)};
	volatile uint64_t *bar;

	CHECK(!ioctl(dev, VFIO_DEVICE_GET_REGION_INFO, &info));
	CHECK(info.size == 0x4000);
	if (!(info.flags & VFIO_REGION_INFO_FLAG_MMAP)) {
		puts("mapped     no");
		return;
	}
	bar = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, dev, 0);
	CHECK(bar != MAP_FAILED);
	CHECK(bar[REG_MAGIC / 8] == MAGIC);
	bar[REG_SCRATCH / 8] = 0x1234567890;
	CHECK(get(0, REG_SCRATCH, 8) == 0x1234567890);
	bar[PAGE / 8 + 5] = 0xabcdef;
	CHECK(get(0, PAGE + 40, 8) == 0xabcdef);
	put(0, PAGE + 48, 8, 77);
	CHECK(bar[PAGE / 8 + 6] == 77);
	bar[2 * PAGE / 8] = 99;
	CHECK(get(0, 2 * PAGE, 8) == 99);
	CHECK(bar[3 * PAGE / 8] == UINT64_MAX);
	munmap((void *)bar, info.size);
	puts("mapped     yes");
}

static void basic(void)
{
	start();
	check_mapped();
	printf("mappings   %u, %u of them by file\n", (unsigned int)get(0, REG_MAPS, 4),
	       (unsigned int)get(0, REG_MAPS + 4, 4));
	check_dma();
	check_interrupts();
	put(0, REG_SCRATCH, 8, 1);
	CHECK(!ioctl(dev, VFIO_DEVICE_RESET));
	CHECK(get(0, REG_SCRATCH, 8) == 0);
	unmap(0x1000000, SIZE);
	CHECK(copy(0x2000000, 0x1000000, 64, GO_COPY) == EFAULT);
	printf("messages   %u\n", (unsigned int)get(0, REG_MESSAGES, 4));
}

/* How many of the two mappings, shared and private memory, the server has got a file for. */
static void check_files(unsigned int nr)
{
	start();
	CHECK(get(0, REG_MAPS, 4) == 2 && get(0, REG_MAPS + 4, 4) == nr);
	check_dma();
}

static void all_by_file(void)
{
	check_files(2);
}

static void private_by_message(void)
{
	check_files(1);
}

/* The server hangs up instead of answering. */
static void lose(void)
{
	int req = eventfd(0, EFD_NONBLOCK), irq = eventfd(0, EFD_NONBLOCK);

	start();
	check_dma();
	CHECK(!arm(VFIO_PCI_REQ_IRQ_INDEX, 1, &req));
	put(0, REG_FAULT, 8, FAULT_HANG_UP | CMD_READ << 8 | 3 << 16);
	while (get(0, REG_MAGIC, 8) == MAGIC)
		;
	wait_for(req);
	CHECK(arm(VFIO_PCI_MSIX_IRQ_INDEX, 1, &irq) == 0 || errno == EIO);
	close(req);
	close(irq);
}

static void dies(void)
{
	lose();
	CHECK(get(0, REG_SCRATCH, 4) == UINT32_MAX);
	CHECK(ioctl(dev, VFIO_DEVICE_RESET) && errno == EIO);
	unmap(0x1000000, SIZE);
}

static void returns(void)
{
	lose();
	while (get(0, REG_MAGIC, 8) != MAGIC)
		usleep(1000);
	check_dma();
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} scenes[] = {{"basic", basic},
		      {"all_by_file", all_by_file},
		      {"private_by_message", private_by_message},
		      {"dies", dies},
		      {"returns", returns}};

	for (size_t i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++)
		if (argc > 1 && !strcmp(argv[1], scenes[i].name)) {
			scenes[i].run();
			return 0;
		}
	return 2;
}
