// SPDX-License-Identifier: MIT
/*
 * Fault injection as the kernel offers it to a program under test.
 *
 * The program arms a thread by writing a number n to that thread's fail-nth file: the n-th failure
 * point that the kernel passes on its behalf fails. Here the engine passes them, on a worker's thread;
 * so the number is loaded into the worker (testabi_begin) while it works for the thread, and what is
 * left of it is taken back (testabi_end).
 *
 * The file that the program gets is a memfd that always holds the number as text, so that reading it
 * needs no trap. Writes are trapped (only those with a position, which is what programs that use the file
 * do), for a shorter number must not leave digits of a longer one behind.
 *
 * How many failures were really injected is counted and told, because a test whose failures never
 * happen passes.
 */
#include "run/testabi.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/list.h"
#include "mem/accounts.h"

/* A thread that has a fail-nth file open, or had. */
struct fail_thread {
	struct list entry; /* in testabi.threads */
	pid_t tid;
	uint64_t started; /* tells it from a later thread with the same number */
	unsigned int nth; /* failure points to go; 0 = off */
	unsigned int injected;
	struct list files; /* struct fail_file.entry */
};

struct fail_file {
	struct list entry;
	int fd; /* of our own */
	dev_t dev;
	ino_t ino;
};

struct testabi {
	struct session *session;
	pthread_mutex_t lock;
	struct list threads;
	_Atomic unsigned int nr_threads;
	unsigned int total; /* failures injected by threads that are gone */
};

int testabi_create(struct session *s, struct testabi **out)
{
	struct testabi *t = swi_new(struct testabi);

	if (!t)
		return -ENOMEM;
	t->session = s;
	pthread_mutex_init(&t->lock, NULL);
	list_init(&t->threads);
	*out = t;
	return 0;
}

/* ---- threads -------------------------------------------------------------------------------------- */

/* When the thread began, in ticks since boot; 0: there is none. */
static uint64_t start_time(pid_t tid)
{
	char path[40], buf[1024], *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	buf[n] = '\0';
	/* Field 22; the name, field 2, ends with the last parenthesis. */
	at = strrchr(buf, ')');
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at, NULL, 10) : 0;
}

static void forget_locked(struct testabi *t, struct fail_thread *ft)
{
	if (ft->injected)
		session_say(t->session, "fail-nth: %u failures injected for thread %d",
			    ft->injected, (int)ft->tid);
	t->total += ft->injected;
	while (!list_empty(&ft->files)) {
		struct fail_file *file = list_entry(ft->files.next, struct fail_file, entry);

		list_del(&file->entry);
		close(file->fd);
		swi_free(file);
	}
	list_del(&ft->entry);
	swi_free(ft);
	t->nr_threads--;
}

static void forget_ended_locked(struct testabi *t)
{
	struct list *pos, *tmp;

	list_for_each_safe (pos, tmp, &t->threads) {
		struct fail_thread *ft = list_entry(pos, struct fail_thread, entry);

		if (start_time(ft->tid) != ft->started)
			forget_locked(t, ft);
	}
}

static struct fail_thread *find_locked(struct testabi *t, pid_t tid)
{
	struct list *pos;

	list_for_each (pos, &t->threads) {
		struct fail_thread *ft = list_entry(pos, struct fail_thread, entry);

		if (ft->tid == tid)
			return ft;
	}
	return NULL;
}

static int get_thread_locked(struct testabi *t, pid_t tid, struct fail_thread **out)
{
	uint64_t started = start_time(tid);
	struct fail_thread *ft;

	if (!started)
		return -ENOENT;
	forget_ended_locked(t);
	*out = find_locked(t, tid);
	if (*out)
		return 0;
	ft = swi_new(struct fail_thread);
	if (!ft)
		return -ENOMEM;
	ft->tid = tid;
	ft->started = started;
	list_init(&ft->files);
	list_add_tail(&t->threads, &ft->entry);
	t->nr_threads++;
	*out = ft;
	return 0;
}

void testabi_destroy(struct testabi *t)
{
	if (!t)
		return;
	while (!list_empty(&t->threads))
		forget_locked(t, list_entry(t->threads.next, struct fail_thread, entry));
	session_say(t->session, "test ABI: %u failures were injected in all", t->total);
	pthread_mutex_destroy(&t->lock);
	swi_free(t);
}

/* ---- fail-nth files ------------------------------------------------------------------------------- */

static void show_nth_locked(struct fail_thread *ft)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%u\n", ft->nth);
	struct list *pos;

	list_for_each (pos, &ft->files) {
		struct fail_file *file = list_entry(pos, struct fail_file, entry);

		(void)!pwrite(file->fd, text, n, 0);
		(void)!ftruncate(file->fd, n);
	}
}

static int add_file_locked(struct fail_thread *ft, int fd)
{
	struct fail_file *file = swi_new(struct fail_file);
	struct stat st;

	if (!file)
		return -ENOMEM;
	if (fstat(fd, &st)) {
		swi_free(file);
		return -errno;
	}
	file->fd = fd;
	file->dev = st.st_dev;
	file->ino = st.st_ino;
	list_add_tail(&ft->files, &file->entry);
	show_nth_locked(ft);
	return 0;
}

/* Puts a file of ours into the program with the access mode and flags that it asked for. */
static long give(struct task *task, int fd, int flags)
{
	char path[40];
	int copy, number, rc;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	copy = open(path, (flags & O_ACCMODE) | O_CLOEXEC);
	if (copy < 0)
		return -errno;
	rc = task->caller.ops->install_fd(&task->caller, copy, flags & O_CLOEXEC, &number);
	close(copy);
	return rc ? rc : number;
}

static long open_fail_nth(struct testabi *t, struct task *task, pid_t tid, int flags)
{
	struct fail_thread *ft;
	long rc;
	int fd;

	fd = memfd_create("fail-nth", MFD_CLOEXEC);
	if (fd < 0)
		return -ENOMEM;
	pthread_mutex_lock(&t->lock);
	rc = get_thread_locked(t, tid, &ft);
	if (!rc)
		rc = add_file_locked(ft, fd);
	pthread_mutex_unlock(&t->lock);
	if (rc) {
		close(fd);
		return rc;
	}
	/* From here on the file is the thread's, and goes with it. */
	return give(task, fd, flags);
}

static struct fail_thread *owner_of_file_locked(struct testabi *t, const struct stat *st)
{
	struct list *pos, *at;

	list_for_each (pos, &t->threads) {
		struct fail_thread *ft = list_entry(pos, struct fail_thread, entry);

		list_for_each (at, &ft->files) {
			struct fail_file *file = list_entry(at, struct fail_file, entry);

			if (file->dev == st->st_dev && file->ino == st->st_ino)
				return ft;
		}
	}
	return NULL;
}

static bool parse_nth(const char *text, unsigned int *out)
{
	unsigned long long value;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	value = strtoull(text, &end, 0);
	if (*end == '\n')
		end++;
	if (errno || *end || value > INT_MAX)
		return false;
	*out = value;
	return true;
}

long testabi_pwrite(struct testabi *t, struct task *task, int fd, const struct seccomp_data *data)
{
	uint64_t count = data->args[2], pos = data->args[3];
	struct fail_thread *ft;
	char text[32] = "";
	struct stat st;
	unsigned int nth;
	long rc;

	if (!t->nr_threads || fstat(fd, &st))
		return TESTABI_CONTINUE;
	pthread_mutex_lock(&t->lock);
	ft = owner_of_file_locked(t, &st);
	pthread_mutex_unlock(&t->lock);
	if (!ft)
		return TESTABI_CONTINUE;
	if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
		return -EBADF;
	if (pos || count >= sizeof(text))
		return -EINVAL;
	rc = task->caller.ops->copy_in(&task->caller, text, data->args[1], count);
	if (rc)
		return rc;
	if (!parse_nth(text, &nth))
		return -EINVAL;
	pthread_mutex_lock(&t->lock);
	ft = owner_of_file_locked(t, &st); /* the thread may have ended meanwhile */
	if (ft) {
		ft->nth = nth;
		show_nth_locked(ft);
	}
	pthread_mutex_unlock(&t->lock);
	return ft ? (long)count : -ESRCH;
}

void testabi_begin(struct testabi *t, pid_t tid)
{
	struct fail_thread *ft;

	if (!t || !t->nr_threads)
		return;
	pthread_mutex_lock(&t->lock);
	ft = find_locked(t, tid);
	if (ft)
		swi_alloc_fail_nth(ft->nth);
	pthread_mutex_unlock(&t->lock);
}

void testabi_end(struct testabi *t, pid_t tid)
{
	struct fail_thread *ft;
	unsigned int left;

	if (!t || !t->nr_threads)
		return;
	left = swi_alloc_fail_nth(0);
	pthread_mutex_lock(&t->lock);
	ft = find_locked(t, tid);
	if (ft && ft->nth != left) {
		ft->injected += !left;
		ft->nth = left;
		show_nth_locked(ft);
	}
	pthread_mutex_unlock(&t->lock);
}

/* ---- opening -------------------------------------------------------------------------------------- */

/* The path of an open call, cut at cap - 1 bytes. What is unreadable is left to the kernel. */
static bool read_path(struct task *task, uint64_t uptr, char *path, size_t cap)
{
	size_t have = 0, n;

	while (have < cap - 1) {
		/* Not beyond the page: what follows the string may not be there. */
		n = SWI_MIN(cap - 1 - have, 4096 - (uptr + have) % 4096);
		if (task->caller.ops->copy_in(&task->caller, path + have, uptr + have, n))
			return false;
		if (memchr(path + have, '\0', n))
			return true;
		have += n;
	}
	path[have] = '\0';
	return true;
}

static pid_t process_of(struct task *task)
{
	pid_t process;
	uid_t user;

	return task->caller.ops->get_account(&task->caller, &process, &user) ? 0 : process;
}

/* Parses "/proc/PID[/task/TID]/NAME", where PID may be "self" or "thread-self"; *id is what it means. */
static bool parse_proc_path(struct task *task, const char *path, const char *name, pid_t *id)
{
	const char *at;
	char *end;

	if (strncmp(path, "/proc/", 6))
		return false;
	at = path + 6;
	if (!strncmp(at, "thread-self/", 12)) {
		*id = task->tid;
		at += 12;
	} else if (!strncmp(at, "self/", 5)) {
		*id = process_of(task);
		at += 5;
	} else {
		*id = strtol(at, &end, 10);
		if (end == at || *end != '/')
			return false;
		at = end + 1;
	}
	if (!strncmp(at, "task/", 5)) {
		*id = strtol(at + 5, &end, 10);
		if (end == at + 5 || *end != '/')
			return false;
		at = end + 1;
	}
	return *id > 0 && !strcmp(at, name);
}

/* Adds to the number of a line "VmPin:\t       0 kB"; the other lines stay byte for byte. */
static void add_to_line(char *text, size_t size, const char *key, uint64_t pages)
{
	char *at = strstr(text, key), *end, *rest;
	unsigned long long kb;
	char line[48];
	size_t n;

	if (!at || !pages)
		return;
	at += strlen(key);
	kb = strtoull(at, &end, 10) + pages * (SWI_PAGE_SIZE / 1024);
	n = snprintf(line, sizeof(line), "\t%8llu", kb);
	if (at + n + strlen(end) >= text + size)
		return;
	rest = strdupa(end);
	memcpy(at, line, n);
	strcpy(at + n, rest);
}

/*
 * A process' status file with what it has pinned and locked here added, as of the moment of the open.
 * Files of processes that have nothing pinned are left to the kernel.
 */
static long open_status(struct testabi *t, struct task *task, pid_t id, int flags)
{
	char path[40], text[8192];
	struct mem_usage usage;
	ssize_t n;
	long rc;
	int fd;

	if ((flags & O_ACCMODE) != O_RDONLY ||
	    mem_accounts_usage(t->session->accounts, id, &usage) || !(usage.pinned | usage.locked))
		return TESTABI_CONTINUE;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)id);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return TESTABI_CONTINUE;
	n = read(fd, text, sizeof(text) - 256);
	close(fd);
	if (n <= 0)
		return TESTABI_CONTINUE;
	text[n] = '\0';
	add_to_line(text, sizeof(text), "\nVmLck:", usage.locked);
	add_to_line(text, sizeof(text), "\nVmPin:", usage.pinned);
	fd = memfd_create("status", MFD_CLOEXEC);
	if (fd < 0)
		return -ENOMEM;
	n = strlen(text);
	rc = pwrite(fd, text, n, 0) == n ? give(task, fd, flags) : -ENOMEM;
	close(fd);
	return rc;
}

/* An open of /dev/iommu makes a context, for which there may be no memory. */
static bool open_fails(struct testabi *t, pid_t tid)
{
	bool fails;

	testabi_begin(t, tid);
	fails = swi_fail_point();
	testabi_end(t, tid);
	return fails;
}

long testabi_open(struct testabi *t, struct task *task, const struct seccomp_data *data)
{
	bool at = data->nr == SYS_openat;
	char path[96];
	pid_t id;

	if (!read_path(task, data->args[at], path, sizeof(path)))
		return TESTABI_CONTINUE;
	if (!strcmp(path, "/dev/iommu"))
		return open_fails(t, task->tid) ? -ENOMEM : TESTABI_CONTINUE;
	if (parse_proc_path(task, path, "fail-nth", &id))
		return open_fail_nth(t, task, id, data->args[at + 1]);
	if (parse_proc_path(task, path, "status", &id))
		return open_status(t, task, id, data->args[at + 1]);
	return TESTABI_CONTINUE;
}
