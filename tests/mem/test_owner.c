// SPDX-License-Identifier: MIT
/* The local owner: pointers of this process, good and bad; and the text of mount and maps files. */
#include "program.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "mem/vma.h"

static struct mem_owner *local(void)
{
	struct mem_owner *o;

	assert_int_equal(mem_owner_local(&o), 0);
	assert_int_equal(mem_owner_pid(o), 0);
	return o;
}

static int can_pin(struct mem_owner *o, const void *p, uint64_t len, unsigned prot)
{
	struct swi_reason why = {""};
	struct mem_window win;
	int ret = o->ops->open_window(o, (uintptr_t)p, len, prot, &win, &why);

	assert_true(!ret == !why.text[0]);
	/* The memory itself, or a second mapping of it. */
	assert_true(ret ? !win.host : win.host == p || (win.map && win.host));
	mem_window_close(&win);
	return ret;
}

static void *anon(size_t len, int prot, int flags)
{
	void *p = mmap(NULL, len, prot, MAP_ANONYMOUS | flags, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static void rights_of_own_memory(void **state)
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
	struct mem_owner *o = local();
	char *p, b = 3;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		p = anon(2 * PAGE, rows[i].prot, i & 1 ? MAP_SHARED : MAP_PRIVATE);
		assert_int_equal(can_pin(o, p, 2 * PAGE, SWI_READ), rows[i].r ? 0 : -EFAULT);
		assert_int_equal(can_pin(o, p, 2 * PAGE, SWI_WRITE), rows[i].w ? 0 : -EFAULT);
		assert_int_equal(o->ops->read(o, (uintptr_t)p + PAGE, &b, 1),
				 rows[i].r ? 0 : -EFAULT);
		assert_int_equal(o->ops->write(o, (uintptr_t)p + PAGE, &b, 1),
				 rows[i].w ? 0 : -EFAULT);
		munmap(p, 2 * PAGE);
	}
	mem_owner_put(o);
}

static void data_moves_in_own_memory(void **state)
{
	struct mem_owner *o = local();
	char from[3 * PAGE], to[3 * PAGE];

	(void)state;
	memset(from, 0x5c, sizeof(from));
	assert_int_equal(o->ops->read(o, (uintptr_t)from, to, sizeof(to)), 0);
	assert_memory_equal(from, to, sizeof(to));
	memset(from, 0x5d, sizeof(from));
	assert_int_equal(o->ops->write(o, (uintptr_t)to, from, sizeof(to)), 0);
	assert_memory_equal(from, to, sizeof(to));
	assert_int_equal(o->ops->read_pinned(o, (uintptr_t)to, from, 0), 0);
	mem_owner_put(o);
}

static void bad_pointers_are_answered(void **state)
{
	static const uint64_t bad[] = {
		0, 8, 1ull << 47, 1ull << 63, 0xffff888000000000ull, UINT64_MAX - 1};
	struct mem_owner *o = local();
	char *p = anon(3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE), buf[3 * PAGE] = {0};
	struct mem_window win;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(o->ops->read(o, bad[i], buf, 4), -EFAULT);
		assert_int_equal(o->ops->write(o, bad[i], buf, 4), -EFAULT);
		assert_int_equal(o->ops->open_window(o, bad[i], 4, SWI_READ, &win, NULL), -EFAULT);
	}
	munmap(p + PAGE, PAGE);
	assert_int_equal(o->ops->read(o, (uintptr_t)p, buf, 3 * PAGE), -EFAULT);
	assert_int_equal(o->ops->write(o, (uintptr_t)p, buf, PAGE + 1), -EFAULT);
	assert_int_equal(o->ops->write(o, (uintptr_t)p, buf, PAGE), 0);
	assert_int_equal(can_pin(o, p, 3 * PAGE, SWI_READ), -EFAULT);
	assert_int_equal(can_pin(o, p, PAGE, SWI_READ), 0);
	assert_int_equal(can_pin(o, p, 0, SWI_READ), -EFAULT);
	munmap(p, 3 * PAGE);
	mem_owner_put(o);
}

static void files_in_own_memory(void **state)
{
	struct mem_owner *o = local();
	int memfd = memfd_of(PAGE, 1), disk = disk_file();
	char *p;

	(void)state;
	p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	assert_int_equal(can_pin(o, p, PAGE, SWI_WRITE), 0);
	assert_int_equal(can_pin(o, p, 2 * PAGE, SWI_READ), -EFAULT); /* SIGBUS beyond the end */
	munmap(p, 2 * PAGE);
	if (disk >= 0) {
		p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, disk, 0);
		assert_int_equal(can_pin(o, p, 2 * PAGE, SWI_READ), 0);
		assert_int_equal(can_pin(o, p, 2 * PAGE, SWI_WRITE), -EFAULT);
		munmap(p, 2 * PAGE);
		p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, disk, 0);
		assert_int_equal(can_pin(o, p, 2 * PAGE, SWI_WRITE), 0);
		munmap(p, 2 * PAGE);
		close(disk);
	}
	close(memfd);
	mem_owner_put(o);
}

static void tmpfs_mounts_are_found(void **state)
{
	struct mem_owner *o = local();
	struct statfs fs;
	char *p;
	int fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	(void)state;
	if (fd < 0 || fstatfs(fd, &fs) || fs.f_type != TMPFS_MAGIC) {
		if (fd >= 0)
			close(fd);
		mem_owner_put(o);
		skip();
	}
	assert_return_code(ftruncate(fd, PAGE), errno);
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_int_equal(can_pin(o, p, PAGE, SWI_WRITE), 0);
	munmap(p, PAGE);
	close(fd);
	mem_owner_put(o);
}

static atomic_bool stop;

static void *map_and_unmap(void *arg)
{
	char *at = arg;

	while (!atomic_load(&stop)) {
		mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		     0);
		munmap(at, PAGE);
	}
	return NULL;
}

static void unmapping_meanwhile_is_survived(void **state)
{
	struct mem_owner *o = local();
	char *p = anon(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE), buf[64] = {0};
	pthread_t t;
	int i, ret;

	(void)state;
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&t, NULL, map_and_unmap, p), 0);
	for (i = 0; i < 20000; i++) {
		ret = o->ops->read(o, (uintptr_t)p, buf, sizeof(buf));
		assert_true(ret == 0 || ret == -EFAULT);
		ret = o->ops->write(o, (uintptr_t)p, buf, sizeof(buf));
		assert_true(ret == 0 || ret == -EFAULT);
	}
	atomic_store(&stop, true);
	pthread_join(t, NULL);
	munmap(p, PAGE);
	mem_owner_put(o);
}

static void works_where_process_vm_is_forbidden(void **state)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_writev, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {ARRAY_SIZE(filter), filter};
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
		    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
			_exit(1);
		rights_of_own_memory(NULL);
		data_moves_in_own_memory(NULL);
		bad_pointers_are_answered(NULL);
		_exit(42);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
}

static void after_a_fork_it_is_the_childs_memory(void **state)
{
	struct mem_owner *o = local();
	char *p = anon(2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE), b = 0;
	int status;
	pid_t pid;

	(void)state;
	p[0] = 1;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		p[0] = 2;
		munmap(p + PAGE, PAGE);
		assert_int_equal(o->ops->read(o, (uintptr_t)p, &b, 1), 0);
		assert_int_equal(b, 2);
		assert_int_equal(can_pin(o, p, PAGE, SWI_WRITE), 0);
		assert_int_equal(can_pin(o, p, 2 * PAGE, SWI_WRITE), -EFAULT);
		_exit(42);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
	assert_int_equal(can_pin(o, p, 2 * PAGE, SWI_WRITE), 0);
	munmap(p, 2 * PAGE);
	mem_owner_put(o);
}

static void words_of_any_length(void **state)
{
	static const char text[] = "a  bb\tccc-and-more\n\nlast";
	static const struct {
		const char *word;
		int delim;
	} want[] = {{"a", ' '}, {"bb", ' '}, {"ccc", '\n'}, {"", '\n'}, {"las", 0}};
	char word[4], buf[3];
	struct proc_words p = {.buf = buf, .size = sizeof(buf)};
	size_t i;

	(void)state;
	p.fd = memfd_create("words", MFD_CLOEXEC);
	assert_int_equal(write(p.fd, text, sizeof(text) - 1), sizeof(text) - 1);
	for (i = 0; i < ARRAY_SIZE(want); i++) {
		assert_int_equal(proc_word(&p, word, sizeof(word)), want[i].delim);
		assert_string_equal(word, want[i].word);
	}
	close(p.fd);
	assert_int_equal(proc_word(&p, word, sizeof(word)), -EBADF);
}

/* Both ways to ask, where the kernel has both, tell the same of a process with many mappings. */
static void query_and_text_agree(void **state)
{
	struct vma_walk query, text;
	struct vma a, b;
	char *p = anon(600 * PAGE, PROT_READ, MAP_PRIVATE);
	int maps, memfd = memfd_of(2 * PAGE, 0), i, ret;

	(void)state;
	for (i = 0; i < 600; i += 3) {
		mmap(p + i * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memfd,
		     PAGE);
		munmap(p + (i + 1) * PAGE, PAGE);
	}
	maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	assert_return_code(maps, errno);
	vma_walk_start(&query, maps);
	vma_walk_start(&text, maps);
	text.text = true;
	for (i = 0; i < 600; i++) {
		ret = vma_walk_to(&text, (uintptr_t)p + i * PAGE + 7, &b);
		assert_int_equal(ret, i % 3 == 1 ? -ENOENT : 0);
		assert_int_equal(vma_walk_to(&query, (uintptr_t)p + i * PAGE + 7, &a), ret);
		if (ret)
			continue;
		assert_true(b.start == (uintptr_t)p + i * PAGE && b.end == b.start + PAGE);
		assert_true(a.start == b.start && a.end == b.end && a.prot == b.prot);
		assert_true(a.shared == b.shared && a.dev == b.dev && a.ino == b.ino);
		assert_true(b.shared == (i % 3 == 0));
		assert_int_equal(b.prot, i % 3 == 0 ? SWI_READ | SWI_WRITE : SWI_READ);
		if (b.shared)
			assert_true(a.offset == PAGE && b.offset == PAGE);
	}
	close(maps);
	close(memfd);
	munmap(p, 600 * PAGE);
}

static void owners_are_counted(void **state)
{
	struct mem_owner *o;
	char c = 1, d = 0;

	(void)state;
	swi_alloc_fail_nth(1);
	assert_int_equal(mem_owner_local(&o), -ENOMEM);
	o = local();
	assert_ptr_equal(mem_owner_get(o), o);
	mem_owner_put(o);
	assert_int_equal(o->ops->read(o, (uintptr_t)&c, &d, 1), 0);
	assert_int_equal(d, 1);
	mem_owner_put(o);
}

static int group(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, remember_fds, no_fd_leaked)
	const struct CMUnitTest tests[] = {
		T(rights_of_own_memory),
		T(data_moves_in_own_memory),
		T(bad_pointers_are_answered),
		T(files_in_own_memory),
		T(tmpfs_mounts_are_found),
		T(unmapping_meanwhile_is_survived),
		T(works_where_process_vm_is_forbidden),
		T(after_a_fork_it_is_the_childs_memory),
		T(words_of_any_length),
		T(query_and_text_agree),
		T(owners_are_counted),
	};
	return cmocka_run_group_tests_name("local owner", tests, NULL, NULL);
}

int main(void)
{
	return run_variants(group) ? 1 : 0;
}
