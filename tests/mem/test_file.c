// SPDX-License-Identifier: MIT
/* Files as memory: which, how far, whatever they were opened for. */
#include "program.h"

#include "base/alloc.h"

static struct mem_owner *own(int fd)
{
	struct mem_owner *o;

	assert_return_code(fd, errno);
	assert_int_equal(mem_owner_file(fd, &o, NULL), 0);
	return o;
}

static int can_pin(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot)
{
	struct swi_reason why = {""};
	struct mem_window win;
	int ret = o->ops->open_window(o, addr, len, prot, &win, &why);

	assert_true(!ret == !why.text[0]);
	assert_true(!ret == !!win.host);
	mem_window_close(&win);
	return ret;
}

/* The same file once more, opened in another way. */
static int reopened(int fd, int mode)
{
	char link[48];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return open(link, mode | O_CLOEXEC);
}

static void window_is_the_files_memory(void **state)
{
	int fd = memfd_of(3 * PAGE, 7), dupfd = dup(fd);
	struct mem_owner *o = own(fd);
	struct mem_window win;
	unsigned char b = 9;

	(void)state;
	assert_int_equal(o->ops->open_window(o, PAGE + 1, 2 * PAGE - 1, SWI_WRITE, &win, NULL), 0);
	assert_int_equal(*(unsigned char *)win.host, 7);
	*(unsigned char *)win.host = 8;
	assert_int_equal(pread(dupfd, &b, 1, PAGE + 1), 1);
	assert_int_equal(b, 8);
	b = 0x66;
	assert_int_equal(o->ops->write(o, 3 * PAGE - 1, &b, 1), 0);
	assert_int_equal(((unsigned char *)win.host)[2 * PAGE - 2], 0x66);
	b = 0;
	assert_int_equal(o->ops->read(o, 3 * PAGE - 1, &b, 1), 0);
	assert_int_equal(b, 0x66);
	mem_window_close(&win);
	mem_owner_put(o);
	close(dupfd);
}

static void only_whole_pages_inside_the_file(void **state)
{
	int fd = memfd_of(2 * PAGE + 100, 1), dupfd = dup(fd);
	struct mem_owner *o = own(fd);
	unsigned char b[2] = {0};

	(void)state;
	assert_int_equal(can_pin(o, 0, 2 * PAGE, SWI_WRITE), 0);
	assert_int_equal(can_pin(o, 0, 2 * PAGE + 1, SWI_READ), -EINVAL);
	assert_int_equal(can_pin(o, 2 * PAGE, 1, SWI_READ), -EINVAL);
	assert_int_equal(can_pin(o, 100 * PAGE, PAGE, SWI_READ), -EINVAL);
	assert_int_equal(can_pin(o, UINT64_MAX - PAGE + 1, PAGE, SWI_READ), -EINVAL);
	assert_int_equal(can_pin(o, UINT64_MAX, PAGE, SWI_READ), -EINVAL);
	assert_int_equal(o->ops->read(o, 2 * PAGE - 1, b, 1), 0);
	assert_int_equal(o->ops->read(o, 2 * PAGE - 1, b, 2), -EINVAL);
	assert_int_equal(o->ops->write(o, 2 * PAGE, b, 1), -EINVAL);
	/* No write has made the file longer, and what was cut off is gone at once. */
	assert_int_equal(lseek(dupfd, 0, SEEK_END), 2 * PAGE + 100);
	assert_return_code(ftruncate(dupfd, PAGE), errno);
	assert_int_equal(can_pin(o, 0, 2 * PAGE, SWI_READ), -EINVAL);
	assert_int_equal(o->ops->write(o, PAGE, b, 1), -EINVAL);
	assert_int_equal(o->ops->write_pinned(o, PAGE, b, 1), -EFAULT);
	assert_int_equal(o->ops->read_pinned(o, PAGE, b, 1), -EFAULT);
	assert_int_equal(o->ops->read_pinned(o, PAGE - 1, b, 1), 0);
	assert_int_equal(lseek(dupfd, 0, SEEK_END), PAGE);
	mem_owner_put(o);
	close(dupfd);
}

static void holes_are_memory(void **state)
{
	struct mem_owner *o;
	unsigned char b = 1;
	int fd = memfd_create("sparse", MFD_CLOEXEC);

	(void)state;
	assert_return_code(ftruncate(fd, 1l << 33), errno);
	o = own(fd);
	assert_int_equal(can_pin(o, 0, 1ull << 33, SWI_READ | SWI_WRITE), 0);
	assert_int_equal(o->ops->read(o, 1ull << 32, &b, 1), 0);
	assert_int_equal(b, 0);
	mem_owner_put(o);
}

static void open_mode_does_not_matter(void **state)
{
	static const int modes[] = {O_RDONLY, O_WRONLY, O_RDWR};
	int memfd = memfd_of(PAGE, 0x10);
	struct mem_window win;
	struct mem_owner *o;
	unsigned char b;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		o = own(reopened(memfd, modes[i]));
		assert_int_equal(o->ops->open_window(o, 0, PAGE, SWI_WRITE, &win, NULL), 0);
		*(unsigned char *)win.host = (unsigned char)(0x20 + i);
		mem_window_close(&win);
		assert_int_equal(can_pin(o, 0, PAGE, SWI_READ), 0);
		assert_int_equal(o->ops->read(o, 0, &b, 1), 0);
		assert_int_equal(b, 0x20 + i);
		b = (unsigned char)(0x30 + i);
		assert_int_equal(o->ops->write(o, 0, &b, 1), 0);
		assert_int_equal(pread(memfd, &b, 1, 0), 1);
		assert_int_equal(b, 0x30 + i);
		mem_owner_put(o);
	}
	close(memfd);
}

static void sealed_files_can_be_read(void **state)
{
	static const int seals[] = {F_SEAL_WRITE, 0x0010 /* F_SEAL_FUTURE_WRITE */};
	struct mem_owner *o;
	unsigned char b;
	size_t i;
	int fd;

	(void)state;
	/* Sealed while it is owned already. */
	fd = memfd_of(PAGE, 0x76);
	o = own(dup(fd));
	assert_int_equal(can_pin(o, 0, PAGE, SWI_WRITE), 0);
	assert_return_code(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), errno);
	assert_int_equal(can_pin(o, 0, PAGE, SWI_WRITE), -EINVAL);
	assert_int_equal(o->ops->read(o, 5, &b, 1), 0);
	mem_owner_put(o);
	close(fd);
	for (i = 0; i < ARRAY_SIZE(seals); i++) {
		fd = memfd_of(PAGE, 0x77);
		assert_return_code(fcntl(fd, F_ADD_SEALS, seals[i]), errno);
		o = own(reopened(fd, O_RDONLY));
		close(fd);
		assert_int_equal(o->ops->read(o, 5, &b, 1), 0);
		assert_int_equal(b, 0x77);
		assert_int_equal(can_pin(o, 0, PAGE, SWI_READ), 0);
		/* Where Linux would let a device write. */
		assert_int_equal(can_pin(o, 0, PAGE, SWI_WRITE), -EINVAL);
		assert_int_equal(o->ops->write(o, 5, &b, 1), -EINVAL);
		mem_owner_put(o);
	}
}

static void refuses_all(struct mem_owner *o)
{
	unsigned char b;

	assert_int_equal(can_pin(o, 0, 1, SWI_READ), -EINVAL);
	assert_int_equal(can_pin(o, 0, PAGE, SWI_WRITE), -EINVAL);
	assert_int_equal(o->ops->read(o, 0, &b, 1), -EINVAL);
	assert_int_equal(o->ops->write(o, 0, &b, 1), -EINVAL);
	mem_owner_put(o);
}

static void other_files_are_owned_but_no_memory(void **state)
{
	int p[2], fd;

	(void)state;
	assert_return_code(pipe2(p, O_CLOEXEC), errno);
	refuses_all(own(p[0]));
	refuses_all(own(p[1]));
	refuses_all(own(open("/dev/null", O_RDWR | O_CLOEXEC)));
	refuses_all(own(open("/proc/self/maps", O_RDONLY | O_CLOEXEC)));
	refuses_all(own(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
	fd = disk_file();
	if (fd >= 0)
		refuses_all(own(fd));
}

static void what_is_no_open_file_stays_the_callers(void **state)
{
	struct swi_reason why = {""};
	struct mem_owner *o;
	int fd = open("/dev/null", O_PATH | O_CLOEXEC);

	(void)state;
	assert_int_equal(mem_owner_file(-1, &o, NULL), -EBADF);
	assert_int_equal(mem_owner_file(fd, &o, &why), -EBADF);
	assert_string_not_equal(why.text, "");
	assert_return_code(close(fd), errno); /* not taken over */
	fd = memfd_of(PAGE, 0);
	swi_alloc_fail_nth(1);
	assert_int_equal(mem_owner_file(fd, &o, &why), -ENOMEM);
	assert_return_code(close(fd), errno);
}

static void huge_pages(void **state)
{
	const size_t huge = 2u << 20;
	int fd = memfd_create("huge", MFD_HUGETLB | (21u << 26) | MFD_CLOEXEC);
	struct mem_window win;
	struct mem_owner *o;
	unsigned char b = 0x12;
	void *p;

	(void)state;
	if (fd < 0)
		skip();
	assert_return_code(ftruncate(fd, 2 * (off_t)huge), errno);
	p = mmap(NULL, 2 * huge, PROT_READ, MAP_SHARED, fd, 0); /* sets the pages aside */
	if (p == MAP_FAILED) {
		close(fd);
		skip();
	}
	o = own(fd);
	assert_int_equal(o->ops->write(o, huge + 3, &b, 1), 0);
	assert_int_equal(o->ops->open_window(o, huge - 1, 5, SWI_WRITE, &win, NULL), 0);
	assert_int_equal(((unsigned char *)win.host)[4], 0x12);
	mem_window_close(&win);
	b = 0;
	assert_int_equal(o->ops->read(o, huge + 3, &b, 1), 0);
	assert_int_equal(b, 0x12);
	assert_int_equal(can_pin(o, huge, huge + 1, SWI_READ), -EINVAL);
	mem_owner_put(o);
	munmap(p, 2 * huge);
}

static int group(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, remember_fds, no_fd_leaked)
	const struct CMUnitTest tests[] = {
		T(window_is_the_files_memory),
		T(only_whole_pages_inside_the_file),
		T(holes_are_memory),
		T(open_mode_does_not_matter),
		T(sealed_files_can_be_read),
		T(other_files_are_owned_but_no_memory),
		T(what_is_no_open_file_stays_the_callers),
		T(huge_pages),
	};
	return cmocka_run_group_tests_name("file owner", tests, NULL, NULL);
}

int main(void)
{
	int failed = group();

	if (geteuid() == 0)
		failed += run_as("as an ordinary user", true, false, group);
	else
		printf("# SKIPPED: as an ordinary user (we are one already)\n");
	return failed ? 1 : 0;
}
