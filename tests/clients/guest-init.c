// SPDX-License-Identifier: MIT
/*
 * The only program of a virtual machine with a Linux of its own, which was given the modelled NVMe disk
 * by VFIO: what a driver of a real system does with it must work. Writes and reads back a megabyte
 * past the page cache, from two threads at once, and looks whether the interrupts were MSI-X. Ends
 * with a line "guest: OK" or "guest: FAILED" on the console, then switches the machine off.
 *
 * With the word "twice" on the kernel's command line, the machine is started anew once before that, in
 * the middle of everything, so that the device is reset under a driver that did not close it.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISK "/dev/nvme0n1"
#define SECTOR 512
#define CHUNK (128u << 10) /* a transfer with a list of pages */
#define CHUNKS 4
#define THREADS 2
#define MARK (8 * SECTOR) /* where it is noted that the machine was restarted */
#define START (64u << 10) /* where on the disk the first thread writes */

static _Noreturn void end(void)
{
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static _Noreturn void failed(const char *what)
{
	printf("guest: FAILED %s: %s\n", what, strerror(errno));
	end();
}

static void mounts(void)
{
	mkdir("/dev", 0755);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	if (mount("dev", "/dev", "devtmpfs", 0, NULL) && errno != EBUSY)
		failed("mounting /dev");
	if (mount("proc", "/proc", "proc", 0, NULL) || mount("sys", "/sys", "sysfs", 0, NULL))
		failed("mounting /proc and /sys");
}

/* The word that belongs at a byte of the disk: different for each, and never zero. */
static uint64_t pattern(uint64_t at)
{
	return (at + 1) * 0x9e3779b97f4a7c15ull;
}

static void *transfer(void *arg)
{
	uint64_t first = START + (uintptr_t)arg * CHUNKS * CHUNK;
	int fd = open(DISK, O_RDWR | O_DIRECT);
	uint64_t *buf;

	if (fd < 0 || posix_memalign((void **)&buf, 4096, CHUNK))
		failed("opening the disk");
	for (unsigned int i = 0; i < CHUNKS; i++) {
		uint64_t at = first + (uint64_t)i * CHUNK;

		for (size_t w = 0; w < CHUNK / 8; w++)
			buf[w] = pattern(at + 8 * w);
		if (pwrite(fd, buf, CHUNK, at) != CHUNK)
			failed("writing");
	}
	if (fsync(fd))
		failed("flushing");
	for (unsigned int i = 0; i < CHUNKS; i++) {
		uint64_t at = first + (uint64_t)i * CHUNK;

		memset(buf, 0, CHUNK);
		if (pread(fd, buf, CHUNK, at) != CHUNK)
			failed("reading");
		for (size_t w = 0; w < CHUNK / 8; w++)
			if (buf[w] != pattern(at + 8 * w)) {
				errno = EIO;
				failed("comparing");
			}
	}
	free(buf);
	close(fd);
	return NULL;
}

/* Whether the kernel was given a word. */
static int told(const char *word)
{
	char line[1024] = "";
	FILE *f = fopen("/proc/cmdline", "r");

	if (f && !fgets(line, sizeof(line), f))
		line[0] = '\0';
	if (f)
		fclose(f);
	return strstr(line, word) != NULL;
}

/* The first time, leaves a mark on the disk and restarts. */
static void restart_once(void)
{
	static const char mark[] = "restarted";
	int fd = open(DISK, O_RDWR | O_DIRECT);
	char *buf;

	if (fd < 0 || posix_memalign((void **)&buf, 4096, SECTOR) ||
	    pread(fd, buf, SECTOR, MARK) != SECTOR)
		failed("reading the mark");
	if (strcmp(buf, mark)) {
		memset(buf, 0, SECTOR);
		strcpy(buf, mark);
		if (pwrite(fd, buf, SECTOR, MARK) != SECTOR || fsync(fd))
			failed("leaving a mark");
		printf("guest: restarts\n");
		reboot(RB_AUTOBOOT);
	}
	free(buf);
	close(fd);
}

static void tell_sector(void)
{
	char *buf;
	int fd = open(DISK, O_RDONLY | O_DIRECT);

	if (fd < 0 || posix_memalign((void **)&buf, 4096, SECTOR) ||
	    pread(fd, buf, SECTOR, SECTOR) != SECTOR)
		failed("reading sector 1");
	buf[SECTOR - 1] = '\0';
	printf("guest: %s", buf);
	free(buf);
	close(fd);
}

/* Interrupts of the disk's queues so far; *msix: all of them are MSI-X. */
static unsigned long interrupts(void)
{
	FILE *f = fopen("/proc/interrupts", "r");
	unsigned long n = 0;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		char *at = strchr(line, ':');

		if (!at || !strstr(line, "nvme0q"))
			continue;
		for (char *stop; n += strtoul(++at, &stop, 10), stop != at; at = stop)
			;
	}
	if (f)
		fclose(f);
	return n;
}

static int uses_msix(void)
{
	char mode[16] = "";
	glob_t g;
	FILE *f;

	if (glob("/sys/class/nvme/nvme0/device/msi_irqs/*", 0, NULL, &g) || !g.gl_pathc)
		return 0;
	f = fopen(g.gl_pathv[0], "r");
	return f && fgets(mode, sizeof(mode), f) && !strcmp(mode, "msix\n");
}

int main(void)
{
	pthread_t threads[THREADS];
	unsigned long before, after;

	setvbuf(stdout, NULL, _IOLBF, 0);
	mounts();
	for (unsigned int i = 0; access(DISK, F_OK); i++) {
		if (i == 300)
			failed("waiting for " DISK);
		usleep(100000);
	}
	tell_sector();
	if (told("twice"))
		restart_once();
	before = interrupts();
	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, transfer, (void *)i))
			failed("starting a thread");
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	after = interrupts();
	errno = ENODEV;
	if (after < before + THREADS * CHUNKS)
		failed("counting interrupts");
	if (!uses_msix())
		failed("looking for MSI-X");
	printf("guest: OK, %u bytes, %lu interrupts\n", THREADS * CHUNKS * CHUNK, after - before);
	end();
}
