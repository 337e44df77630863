// SPDX-License-Identifier: MIT
/* Memory of another process: rights, windows, and whose memory it is after exec and exit. */
#include "program.h"

#include <linux/memfd.h>
#include <sys/ipc.h>
#include <sys/shm.h>

#include "base/alloc.h"

struct fixture {
	struct program p;
	struct mem_owner *o;
	unsigned fds;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->fds = count_fds();
	program_start(&f->p);
	assert_int_equal(mem_owner_process(f->p.pid, &f->o, NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	mem_owner_put(f->o);
	program_stop(&f->p);
	assert_int_equal(count_fds(), f->fds);
	free(f);
	return 0;
}

/* Another program, one that has the descriptors that the test has by now. */
static void restart(struct fixture *f)
{
	program_stop(&f->p);
	mem_owner_put(f->o);
	program_start(&f->p);
	assert_int_equal(mem_owner_process(f->p.pid, &f->o, NULL), 0);
}

static int can_pin(struct fixture *f, uint64_t addr, uint64_t len, unsigned prot)
{
	struct swi_reason why = {""};
	struct mem_window win;
	int ret = f->o->ops->open_window(f->o, addr, len, prot, &win, &why);

	/* Each failure has words, each success none. */
	assert_true(!ret == !why.text[0]);
	if (!ret)
		mem_window_close(&win);
	assert_null(win.host);
	return ret;
}

static int rd(struct fixture *f, uint64_t addr, void *buf, size_t len)
{
	return f->o->ops->read(f->o, addr, buf, len);
}

static int wr(struct fixture *f, uint64_t addr, const void *buf, size_t len)
{
	return f->o->ops->write(f->o, addr, buf, len);
}

/* Whether this kernel and our privilege let us open what a mapping maps. */
static bool mapped_files_can_be_opened(void)
{
	void *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (long)p, (long)p + PAGE);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	munmap(p, PAGE);
	return fd >= 0;
}

static void data_moves_both_ways(void **state)
{
	struct fixture *f = *state;
	uint64_t at = program_anon(&f->p, 3 * PAGE, MAP_PRIVATE, 0x5a);
	unsigned char buf[PAGE + 2] = {0};

	assert_int_equal(rd(f, at + PAGE - 1, buf, sizeof(buf)), 0);
	assert_int_equal(buf[0], 0);
	assert_int_equal(buf[1], 0x5a);
	assert_int_equal(buf[PAGE + 1], 0x5a);
	memset(buf, 0xc3, sizeof(buf));
	assert_int_equal(wr(f, at + PAGE - 1, buf, sizeof(buf)), 0);
	assert_int_equal(program_call(&f->p, PROGRAM_PEEK, (long)(at + PAGE - 1)), 0xc3);
	assert_int_equal(program_call(&f->p, PROGRAM_PEEK, (long)(at + 2 * PAGE)), 0xc3);
	assert_int_equal(program_call(&f->p, PROGRAM_PEEK, (long)(at + 2 * PAGE + 1)), 0);
	assert_int_equal(rd(f, at, buf, 0), 0);
	assert_int_equal(rd(f, 0, buf, 0), 0);
	assert_int_equal(mem_owner_pid(f->o), f->p.pid);
}

static void rights_of_a_mapping_decide(void **state)
{
	static const struct {
		int prot;
		bool r, w;
	} rows[] = {
		{PROT_READ | PROT_WRITE, true, true},
		{PROT_READ, true, false},
		{PROT_WRITE, false, true},
		{PROT_NONE, false, false},
	};
	static const int kinds[] = {MAP_PRIVATE, MAP_SHARED};
	struct fixture *f = *state;
	unsigned char b;
	uint64_t at;
	size_t i, k;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		for (k = 0; k < ARRAY_SIZE(kinds); k++) {
			at = program_anon(&f->p, 2 * PAGE, kinds[k], 7);
			assert_int_equal(
				program_call(&f->p, SYS_mprotect, (long)at, 2 * PAGE, rows[i].prot),
				0);
			assert_int_equal(can_pin(f, at, 2 * PAGE, SWI_READ),
					 rows[i].r ? 0 : -EFAULT);
			assert_int_equal(can_pin(f, at, 2 * PAGE, SWI_WRITE),
					 rows[i].w ? 0 : -EFAULT);
			assert_int_equal(can_pin(f, at, 2 * PAGE, SWI_READ | SWI_WRITE),
					 rows[i].r && rows[i].w ? 0 : -EFAULT);
			b = 0;
			assert_int_equal(rd(f, at + PAGE - 1, &b, 1), rows[i].r ? 0 : -EFAULT);
			b = 7;
			assert_int_equal(wr(f, at, &b, 1), rows[i].w ? 0 : -EFAULT);
		}
	}
}

static void ranges_with_holes_are_refused(void **state)
{
	struct fixture *f = *state;
	uint64_t at = program_anon(&f->p, 4 * PAGE, MAP_PRIVATE, 1);
	unsigned char buf[3 * PAGE] = {0};

	assert_int_equal(program_call(&f->p, SYS_munmap, (long)(at + PAGE), PAGE), 0);
	assert_int_equal(can_pin(f, at, PAGE, SWI_READ), 0);
	assert_int_equal(can_pin(f, at, 2 * PAGE, SWI_READ), -EFAULT);
	assert_int_equal(can_pin(f, at, 3 * PAGE, SWI_READ), -EFAULT);
	assert_int_equal(can_pin(f, at + PAGE, 1, SWI_READ), -EFAULT);
	assert_int_equal(can_pin(f, at + 2 * PAGE, 2 * PAGE, SWI_WRITE), 0);
	assert_int_equal(can_pin(f, at + PAGE - 1, 2, SWI_READ), -EFAULT);
	assert_int_equal(rd(f, at, buf, 3 * PAGE), -EFAULT);
	assert_int_equal(wr(f, at, buf, 3 * PAGE), -EFAULT);
	assert_int_equal(rd(f, at, buf, PAGE), 0);
}

static void addresses_that_are_none_are_refused(void **state)
{
	static const uint64_t bad[] = {
		0, 1ull << 47, 1ull << 63, 0xffff888000000000ull, UINT64_MAX - PAGE, UINT64_MAX};
	struct fixture *f = *state;
	unsigned char buf[2] = {0};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(can_pin(f, bad[i], 2, SWI_READ), -EFAULT);
		assert_int_equal(rd(f, bad[i], buf, 2), -EFAULT);
		assert_int_equal(wr(f, bad[i], buf, 2), -EFAULT);
		assert_int_equal(f->o->ops->read_pinned(f->o, bad[i], buf, 2), -EFAULT);
		assert_int_equal(f->o->ops->write_pinned(f->o, bad[i], buf, 2), -EFAULT);
	}
	assert_int_equal(can_pin(f, PAGE, UINT64_MAX, SWI_READ), -EFAULT);
	assert_int_equal(can_pin(f, program_anon(&f->p, PAGE, MAP_PRIVATE, 0), 0, SWI_READ),
			 -EFAULT);
}

static void window_is_the_programs_memory(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_of(4 * PAGE, 0);
	struct mem_window win;
	uint64_t at;
	volatile unsigned char *h;

	restart(f);
	at = program_mmap(&f->p, 0, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, PAGE);
	assert_int_equal(f->o->ops->open_window(f->o, at + 10, 2 * PAGE, SWI_WRITE, &win, NULL), 0);
	h = win.host;
	assert_non_null(h);
	h[0] = 0x11;
	assert_int_equal(program_call(&f->p, PROGRAM_PEEK, (long)(at + 10)), 0x11);
	program_call(&f->p, PROGRAM_POKE, (long)(at + 2 * PAGE + 9), 0x22);
	assert_int_equal(h[2 * PAGE - 1], 0x22);
	/* And it stays the same memory when the program unmaps it and closes the file. */
	assert_int_equal(program_call(&f->p, SYS_munmap, (long)at, 3 * PAGE), 0);
	assert_int_equal(program_call(&f->p, SYS_close, fd), 0);
	h[1] = 0x33;
	assert_int_equal(pread(fd, (void *)&at, 1, PAGE + 11), 1);
	assert_int_equal(at & 0xff, 0x33);
	mem_window_close(&win);
	close(fd);
}

static void window_joins_neighbouring_mappings(void **state)
{
	struct fixture *f = *state;
	int a = memfd_of(2 * PAGE, 0xaa), b = memfd_of(2 * PAGE, 0xbb);
	unsigned char *h;
	struct mem_window win;
	uint64_t at;

	restart(f);
	at = program_mmap(&f->p, 0, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* b1 a0 a1 b0: nothing the kernel could merge. */
	program_mmap(&f->p, at, PAGE, 3, MAP_SHARED | MAP_FIXED, b, PAGE);
	program_mmap(&f->p, at + PAGE, 2 * PAGE, 3, MAP_SHARED | MAP_FIXED, a, 0);
	program_mmap(&f->p, at + 3 * PAGE, PAGE, 3, MAP_SHARED | MAP_FIXED, b, 0);
	assert_int_equal(
		f->o->ops->open_window(f->o, at, 4 * PAGE, SWI_READ | SWI_WRITE, &win, NULL), 0);
	h = win.host;
	assert_non_null(h);
	assert_int_equal(h[PAGE - 1], 0xbb);
	assert_int_equal(h[PAGE], 0xaa);
	assert_int_equal(h[3 * PAGE - 1], 0xaa);
	assert_int_equal(h[3 * PAGE], 0xbb);
	memset(h + PAGE - 1, 0x77, 2);
	assert_int_equal(program_call(&f->p, PROGRAM_PEEK, (long)(at + PAGE - 1)), 0x77);
	assert_int_equal(program_call(&f->p, PROGRAM_PEEK, (long)(at + PAGE)), 0x77);
	assert_int_equal(program_call(&f->p, PROGRAM_PEEK, (long)(at + PAGE + 1)), 0xaa);
	mem_window_close(&win);
	/* One private page among them: no window, but no failure. */
	program_mmap(&f->p, at + 2 * PAGE, PAGE, 3, MAP_PRIVATE | MAP_FIXED, a, 0);
	assert_int_equal(f->o->ops->open_window(f->o, at, 4 * PAGE, SWI_WRITE, &win, NULL), 0);
	assert_null(win.host);
	mem_window_close(&win);
	close(a);
	close(b);
}

static void window_for_reading_cannot_be_written(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_of(PAGE, 0x42), status;
	struct mem_window win;
	uint64_t at;
	pid_t pid;

	assert_return_code(fchmod(fd, 0400), errno); /* no more than reading is needed for it */
	restart(f);
	at = program_mmap(&f->p, 0, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	assert_int_equal(f->o->ops->open_window(f->o, at, PAGE, SWI_WRITE, &win, NULL), -EFAULT);
	assert_int_equal(f->o->ops->open_window(f->o, at, PAGE, SWI_READ, &win, NULL), 0);
	assert_non_null(win.host);
	assert_int_equal(*(unsigned char *)win.host, 0x42);
	pid = fork();
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		*(volatile char *)win.host = 1;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	mem_window_close(&win);
	close(fd);
}

static void shared_memory_without_a_descriptor(void **state)
{
	struct fixture *f = *state;
	uint64_t at = program_anon(&f->p, 2 * PAGE, MAP_SHARED, 9);
	struct mem_window win;
	unsigned char b = 0;

	assert_int_equal(f->o->ops->open_window(f->o, at, 2 * PAGE, SWI_WRITE, &win, NULL), 0);
	/* Only privilege finds the file of a mapping that no descriptor leads to. */
	assert_true(!!win.host == mapped_files_can_be_opened());
	assert_int_equal(f->o->ops->read_pinned(f->o, at + PAGE, &b, 1), 0);
	assert_int_equal(b, 9);
	b = 10;
	assert_int_equal(f->o->ops->write_pinned(f->o, at + PAGE, &b, 1), 0);
	assert_int_equal(program_call(&f->p, PROGRAM_PEEK, (long)(at + PAGE)), 10);
	mem_window_close(&win);
}

static void sysv_segment_is_memory(void **state)
{
	struct fixture *f = *state;
	int id = shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0600);
	long at;

	assert_return_code(id, errno);
	at = program_call(&f->p, SYS_shmat, id, 0, 0);
	shmctl(id, IPC_RMID, NULL);
	assert_true(at > 0);
	assert_int_equal(can_pin(f, (uint64_t)at, PAGE, SWI_WRITE), 0);
}

static void files_on_disk(void **state)
{
	struct fixture *f = *state;
	int fd = disk_file();
	unsigned char b = 5;
	uint64_t at;

	if (fd < 0)
		skip(); /* nothing but memory filesystems here */
	restart(f);
	at = program_mmap(&f->p, 0, 4 * PAGE, 3, MAP_SHARED, fd, 0);
	assert_int_equal(can_pin(f, at, 2 * PAGE, SWI_READ), 0);
	assert_int_equal(can_pin(f, at, 2 * PAGE, SWI_WRITE), -EFAULT);
	assert_int_equal(can_pin(f, at, 2 * PAGE, SWI_READ | SWI_WRITE), -EFAULT);
	assert_int_equal(can_pin(f, at, 2 * PAGE + 1, SWI_READ), -EFAULT); /* beyond the end */
	assert_int_equal(wr(f, at, &b, 1), 0); /* an ordinary store is no DMA */
	at = program_mmap(&f->p, 0, 4 * PAGE, 3, MAP_PRIVATE, fd, 0);
	assert_int_equal(can_pin(f, at, 2 * PAGE, SWI_WRITE), 0);
	assert_int_equal(can_pin(f, at, 3 * PAGE, SWI_WRITE), -EFAULT);
	close(fd);
}

static void memfd_beyond_its_end(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_of(PAGE + 5, 1);
	uint64_t at;

	restart(f);
	at = program_mmap(&f->p, 0, 3 * PAGE, 3, MAP_SHARED, fd, 0);
	/* Through an address, the page that the end lies in can be used to its end. */
	assert_int_equal(can_pin(f, at, 2 * PAGE, SWI_WRITE), 0);
	assert_int_equal(can_pin(f, at, 2 * PAGE + 1, SWI_WRITE), -EFAULT);
	assert_int_equal(can_pin(f, at + 2 * PAGE, PAGE, SWI_READ), -EFAULT);
	close(fd);
}

static bool find_mapping(pid_t pid, const char *name, uint64_t *start, char *perms)
{
	char path[64], line[512];
	bool found = false;
	unsigned long long s;
	FILE *m;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	m = fopen(path, "r");
	assert_non_null(m);
	while (!found && fgets(line, sizeof(line), m))
		if (strstr(line, name) && sscanf(line, "%llx-%*x %4s", &s, perms) == 2) {
			*start = s;
			found = true;
		}
	fclose(m);
	return found;
}

static void memory_that_is_none(void **state)
{
	struct fixture *f = *state;
	char perms[5];
	uint64_t at;
	long fd, ret;

	if (find_mapping(f->p.pid, "[vvar", &at, perms))
		assert_int_equal(can_pin(f, at, 1, SWI_READ), -EFAULT);
	fd = program_call(&f->p, 447 /* memfd_secret */, 0);
	if (fd >= 0) {
		assert_int_equal(program_call(&f->p, SYS_ftruncate, fd, PAGE), 0);
		ret = program_call(&f->p, SYS_mmap, 0, PAGE, 3, MAP_SHARED, fd, 0);
		if (ret > 0) {
			program_call(&f->p, PROGRAM_POKE, ret, 1);
			assert_int_equal(can_pin(f, (uint64_t)ret, PAGE, SWI_READ), -EFAULT);
			assert_int_equal(can_pin(f, (uint64_t)ret, PAGE, SWI_WRITE), -EFAULT);
		}
	} else {
		print_message("memfd_secret is not to be had here: %ld\n", fd);
	}
}

static void pinned_rights_outlive_mprotect(void **state)
{
	struct fixture *f = *state;
	uint64_t at = program_anon(&f->p, PAGE, MAP_PRIVATE, 0x31);
	struct mem_window win;
	unsigned char b = 0;

	assert_int_equal(f->o->ops->open_window(f->o, at, PAGE, SWI_WRITE, &win, NULL), 0);
	assert_null(win.host);
	program_call(&f->p, SYS_mprotect, (long)at, PAGE, PROT_NONE);
	assert_int_equal(rd(f, at, &b, 1), -EFAULT);
	assert_int_equal(wr(f, at, &b, 1), -EFAULT);
	assert_int_equal(f->o->ops->read_pinned(f->o, at, &b, 1), 0);
	assert_int_equal(b, 0x31);
	b = 0x32;
	assert_int_equal(f->o->ops->write_pinned(f->o, at, &b, 1), 0);
	program_call(&f->p, SYS_mprotect, (long)at, PAGE, PROT_READ);
	assert_int_equal(program_call(&f->p, PROGRAM_PEEK, (long)at), 0x32);
	/* Private memory has no other place: once unmapped, it is gone, not somebody else's. */
	program_call(&f->p, SYS_munmap, (long)at, PAGE);
	assert_int_equal(f->o->ops->read_pinned(f->o, at, &b, 1), -EFAULT);
	assert_int_equal(f->o->ops->write_pinned(f->o, at, &b, 1), -EFAULT);
}

static void assert_unreachable(struct fixture *f, uint64_t at)
{
	unsigned char b = 0xee;

	assert_int_equal(rd(f, at, &b, 1), -EFAULT);
	assert_int_equal(wr(f, at, &b, 1), -EFAULT);
	assert_int_equal(f->o->ops->read_pinned(f->o, at, &b, 1), -EFAULT);
	assert_int_equal(f->o->ops->write_pinned(f->o, at, &b, 1), -EFAULT);
	assert_int_equal(b, 0xee);
	assert_int_equal(can_pin(f, at, 1, SWI_READ), -EFAULT);
	assert_int_equal(can_pin(f, at, 1, SWI_WRITE), -EFAULT);
}

static void successor_image_is_out_of_reach(void **state)
{
	static char path[] = "/bin/cat";
	static char *const argv[] = {path, NULL}, *const envp[] = {NULL};
	struct fixture *f = *state;
	struct mem_owner *successor;
	char maps_path[64], line[512], perms[5];
	unsigned long long start;
	unsigned seen = 0;
	unsigned char b;
	int in[2];
	uint64_t at;
	FILE *m;

	assert_return_code(pipe2(in, O_CLOEXEC), errno);
	restart(f);
	at = program_anon(&f->p, PAGE, MAP_PRIVATE, 1);
	assert_int_equal(can_pin(f, at, PAGE, SWI_WRITE), 0);
	assert_int_equal(program_call(&f->p, SYS_dup2, in[0], 0), 0);
	assert_int_equal(program_call(&f->p, SYS_execve, (long)path, (long)argv, (long)envp),
			 -EPIPE);
	assert_unreachable(f, at);
	/* The new image can be reached by who asks for it, at none of its addresses by the old. */
	assert_int_equal(mem_owner_process(f->p.pid, &successor, NULL), 0);
	snprintf(maps_path, sizeof(maps_path), "/proc/%d/maps", (int)f->p.pid);
	m = fopen(maps_path, "r");
	assert_non_null(m);
	while (fgets(line, sizeof(line), m)) {
		assert_int_equal(sscanf(line, "%llx-%*x %4s", &start, perms), 2);
		if (perms[0] == 'r' && perms[1] == 'w') {
			assert_int_equal(successor->ops->read(successor, start, &b, 1), 0);
			seen++;
		}
		assert_unreachable(f, start);
	}
	fclose(m);
	assert_true(seen > 0);
	mem_owner_put(successor);
	close(in[0]);
	close(in[1]);
}

static void exited_program_is_out_of_reach(void **state)
{
	struct fixture *f = *state;
	uint64_t at = program_anon(&f->p, PAGE, MAP_PRIVATE, 1);
	uint64_t shared = program_anon(&f->p, PAGE, MAP_SHARED, 1);
	struct mem_owner *o;
	siginfo_t info;
	int ret;

	assert_int_equal(program_call(&f->p, SYS_exit_group, 0), -EPIPE);
	assert_int_equal(waitid(P_PID, (id_t)f->p.pid, &info, WEXITED | WNOWAIT), 0);
	assert_unreachable(f, at);
	assert_unreachable(f, shared);
	/* A zombie has no memory to own any more, and users may not even ask. */
	ret = mem_owner_process(f->p.pid, &o, NULL);
	assert_true(ret == -ESRCH || (geteuid() != 0 && ret == -EPERM));
}

static void owners_that_cannot_be_had(void **state)
{
	struct fixture *f = *state;
	struct swi_reason why = {""};
	struct mem_owner *o;

	assert_int_equal(mem_owner_process(0x7fffffff, &o, &why), -ESRCH);
	assert_string_not_equal(why.text, "");
	why.text[0] = '\0';
	/* Init's memory as a user, none of a kernel thread as root. */
	assert_int_equal(mem_owner_process(geteuid() ? 1 : 2, &o, &why),
			 geteuid() ? -EPERM : -ESRCH);
	assert_string_not_equal(why.text, "");
	swi_alloc_fail_nth(1);
	assert_int_equal(mem_owner_process(f->p.pid, &o, &why), -ENOMEM);
	assert_int_equal(swi_alloc_fail_nth(0), 0);
}

/* A hostile program's descriptors: none of them is the mapped file, most must not be opened. */
static void window_finds_only_the_mapped_file(void **state)
{
	struct fixture *f = *state;
	int real = memfd_of(PAGE, 1), decoy = memfd_of(PAGE, 2);
	struct mem_window win;
	uint64_t at;

	restart(f);
	at = program_mmap(&f->p, 0, PAGE, 3, MAP_SHARED, real, 0);
	/* The decoy sits where the real file was. */
	assert_int_equal(program_call(&f->p, SYS_dup2, decoy, real), real);
	assert_int_equal(f->o->ops->open_window(f->o, at, PAGE, SWI_WRITE, &win, NULL), 0);
	assert_true(!!win.host == mapped_files_can_be_opened());
	if (win.host)
		assert_int_equal(*(unsigned char *)win.host, 1);
	mem_window_close(&win);
	close(real);
	close(decoy);
}

static void huge_pages(void **state)
{
	struct fixture *f = *state;
	const size_t huge = 2u << 20;
	int fd = memfd_create("huge", MFD_HUGETLB | MFD_HUGE_2MB | MFD_CLOEXEC);
	int small;
	struct mem_window win;
	uint64_t at;
	long ret;

	if (fd < 0 || ftruncate(fd, 2 * (off_t)huge)) {
		if (fd >= 0)
			close(fd);
		skip();
	}
	restart(f);
	ret = program_call(&f->p, SYS_mmap, 0, 2 * huge, 3, MAP_SHARED, fd, 0);
	if (ret < 0) {
		close(fd);
		skip(); /* no huge pages set aside */
	}
	at = (uint64_t)ret;
	program_call(&f->p, PROGRAM_POKE, (long)(at + huge + 5), 0x44);
	assert_int_equal(f->o->ops->open_window(f->o, at + huge + 5, PAGE, SWI_WRITE, &win, NULL),
			 0);
	assert_non_null(win.host);
	assert_int_equal(*(unsigned char *)win.host, 0x44);
	*(unsigned char *)win.host = 0x45;
	assert_int_equal(program_call(&f->p, PROGRAM_PEEK, (long)(at + huge + 5)), 0x45);
	mem_window_close(&win);
	/* A small page before the huge one: a window over both, aligned for the larger. */
	small = memfd_of(PAGE, 0x55);
	restart(f);
	at = program_mmap(&f->p, 0, 3 * huge, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	at = (at + 2 * huge - 1) & ~(huge - 1);
	program_mmap(&f->p, at, huge, 3, MAP_SHARED | MAP_FIXED, fd, (long)huge);
	program_mmap(&f->p, at - PAGE, PAGE, 3, MAP_SHARED | MAP_FIXED, small, 0);
	assert_int_equal(f->o->ops->open_window(f->o, at - 1, PAGE, SWI_WRITE, &win, NULL), 0);
	assert_non_null(win.host);
	assert_int_equal(((unsigned char *)win.host)[0], 0x55);
	assert_int_equal(((unsigned char *)win.host)[6], 0x45);
	mem_window_close(&win);
	close(small);
	close(fd);
}

static int group(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(data_moves_both_ways),
		T(rights_of_a_mapping_decide),
		T(ranges_with_holes_are_refused),
		T(addresses_that_are_none_are_refused),
		T(window_is_the_programs_memory),
		T(window_joins_neighbouring_mappings),
		T(window_for_reading_cannot_be_written),
		T(shared_memory_without_a_descriptor),
		T(sysv_segment_is_memory),
		T(files_on_disk),
		T(memfd_beyond_its_end),
		T(memory_that_is_none),
		T(pinned_rights_outlive_mprotect),
		T(successor_image_is_out_of_reach),
		T(exited_program_is_out_of_reach),
		T(owners_that_cannot_be_had),
		T(window_finds_only_the_mapped_file),
		T(huge_pages),
	};
	return cmocka_run_group_tests_name("process owner", tests, NULL, NULL);
}

int main(void)
{
	return run_variants(group) ? 1 : 0;
}
