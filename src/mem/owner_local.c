// SPDX-License-Identifier: MIT
/*
 * This process' own memory, for embedders: an address is a pointer.
 *
 * A window on shared memory is a second mapping of it, which stays when the embedder unmaps the
 * first. Private memory, and what lies in several mappings, cannot be had twice: the window is the
 * pointer itself, and the embedder promises to keep the memory. Without that promise (nothing is pinned, or the address is simply wrong) data
 * is moved by process_vm_readv/writev on ourselves, where the kernel answers EFAULT instead of
 * sending a signal, whatever other threads unmap meanwhile. Where a sandbox forbids these calls,
 * the memory file of this process serves, after a look at the rights, which it ignores by itself.
 *
 * After a fork, "this process" means the child. The mappings file that is kept open for speed still
 * speaks of the parent then, so it is used by the process that opened it only.
 */
#include "mem/owner.h"

#include "base/alloc.h"
#include "mem/rights.h"
#include "mem/window.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

struct local_owner {
	struct mem_owner base;
	pid_t pid;	       /* whose mappings file it is */
	struct rights_env env; /* maps_fd is ours; -1 if there was no descriptor to be had */
};

/* process_vm_readv/writev on ourselves; -EPERM or -ENOSYS: not available here. */
static int move_self(uint64_t addr, void *buf, size_t len, bool write)
{
	struct iovec mine, theirs;
	ssize_t n;

	while (len) {
		mine = (struct iovec){buf, len};
		theirs = (struct iovec){(void *)(uintptr_t)addr, len};
		n = write ? process_vm_writev(getpid(), &mine, 1, &theirs, 1, 0)
			  : process_vm_readv(getpid(), &mine, 1, &theirs, 1, 0);
		if (n < 0)
			return errno == EPERM || errno == ENOSYS ? -errno : -EFAULT;
		if (n == 0)
			return -EFAULT;
		addr += n;
		buf = (char *)buf + n;
		len -= n;
	}
	return 0;
}

static int move_by_file(uint64_t addr, void *buf, size_t len, bool write)
{
	int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	int mem = open("/proc/self/mem", (write ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
	uint64_t stop = 0;
	struct vma_walk w;
	ssize_t n;
	int ret = -EFAULT;

	if (maps < 0 || mem < 0)
		goto out;
	vma_walk_start(&w, maps);
	for (; len; addr += n, buf = (char *)buf + n, len -= n) {
		if (rights_check_now(&w, addr, addr + len - 1, write ? SWI_WRITE : SWI_READ, &stop))
			goto out;
		n = write ? pwrite(mem, buf, stop - addr + 1, (off_t)addr)
			  : pread(mem, buf, stop - addr + 1, (off_t)addr);
		if (n <= 0)
			goto out;
	}
	ret = 0;
out:
	if (maps >= 0)
		close(maps);
	if (mem >= 0)
		close(mem);
	return ret;
}

static int move(uint64_t addr, void *buf, size_t len, bool write)
{
	uint64_t last;
	int ret;

	if (!len)
		return 0;
	if (!range_last(addr, len, &last) || last > INT64_MAX)
		return -EFAULT;
	ret = move_self(addr, buf, len, write);
	return ret == -EPERM || ret == -ENOSYS ? move_by_file(addr, buf, len, write) : ret;
}

static int local_read(struct mem_owner *o, uint64_t addr, void *buf, size_t len)
{
	(void)o;
	return move(addr, buf, len, false);
}

static int local_write(struct mem_owner *o, uint64_t addr, const void *buf, size_t len)
{
	(void)o;
	return move(addr, (void *)(uintptr_t)buf, len, true);
}

static int local_touch(void *data, const struct vma *v, uint64_t addr)
{
	char byte;

	(void)data;
	/* Memory that can only be written cannot be looked at; its protection has to do. */
	return v->prot & SWI_READ ? move(addr, &byte, 1, false) : 0;
}

static int local_open_window(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot,
			     struct mem_window *win, struct swi_reason *why)
{
	struct local_owner *lo = container_of(o, struct local_owner, base);
	struct rights_env env = lo->env;
	bool kept = env.maps_fd >= 0 && lo->pid == getpid();
	struct rights_parts parts;
	uint64_t last;
	int ret;

	*win = (struct mem_window){0};
	if (!range_last(addr, len, &last))
		return swi_fail(why, -EFAULT, "%#llx bytes at %#llx are no memory range",
				(unsigned long long)len, (unsigned long long)addr);
	if (!kept)
		env.maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	if (env.maps_fd < 0)
		return swi_fail(why, -ENOMEM, "/proc/self/maps cannot be opened: %s",
				strerror(errno));
	ret = rights_check_pin(&env, addr, last, prot, &parts, why);
	if (!kept)
		close(env.maps_fd);
	if (ret)
		return ret;
	if (rights_identify(&env, &parts, addr, last, win))
		return swi_fail(why, -ENOMEM, "out of memory");
	if (!parts.windowable || parts.n != 1 || window_alias(win, addr, len))
		win->host = (void *)(uintptr_t)addr;
	return 0;
}

static int local_page_key(struct mem_owner *o, uint64_t addr, struct page_key *key)
{
	struct rights_env env = container_of(o, struct local_owner, base)->env;
	uint64_t space[2];
	int ret;

	env.maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	if (env.maps_fd < 0)
		return -EFAULT;
	o->ops->space(o, space);
	ret = rights_page_key(&env, addr, space, key);
	close(env.maps_fd);
	return ret;
}

/* Our own mappings are looked at as those of any process: through /proc, where their files are found. */
static void local_open_file(struct mem_owner *o, uint64_t addr, uint64_t len, unsigned prot,
			    struct mem_file *out)
{
	struct mem_owner *me;

	(void)o;
	if (mem_owner_process(getpid(), &me, NULL))
		return;
	mem_owner_open_file(me, addr, len, prot, out);
	mem_owner_put(me);
}

static void local_space(struct mem_owner *o, uint64_t id[2])
{
	(void)o;
	if (!proc_space_id(-1, id))
		id[0] = id[1] = 0;
}

/* After a fork both mean the child, see above. */
static bool local_same(struct mem_owner *a, struct mem_owner *b)
{
	(void)a;
	(void)b;
	return true;
}

static void local_destroy(struct mem_owner *o)
{
	struct local_owner *lo = container_of(o, struct local_owner, base);

	if (lo->env.maps_fd >= 0)
		close(lo->env.maps_fd);
	swi_free(lo);
}

static bool local_twin(const struct mem_owner *a, const struct mem_owner *b)
{
	const struct local_owner *la = container_of(a, const struct local_owner, base);
	const struct local_owner *lb = container_of(b, const struct local_owner, base);

	return la->pid == lb->pid && la->env.maps_fd >= 0;
}

static const struct mem_owner_ops local_ops = {
	.kind = "local",
	.read = local_read,
	.write = local_write,
	.open_window = local_open_window,
	/* A window is always had; whoever goes without it is served as carefully as anybody. */
	.read_pinned = local_read,
	.write_pinned = local_write,
	.page_key = local_page_key,
	.open_file = local_open_file,
	.space = local_space,
	.same = local_same,
	.twin = local_twin,
	.destroy = local_destroy,
};

bool mem_owner_is_local(const struct mem_owner *o)
{
	return o->ops == &local_ops;
}

int mem_owner_local(struct mem_owner **out)
{
	struct local_owner *lo = swi_new(struct local_owner);

	if (!lo)
		return -ENOMEM;
	lo->base.ops = &local_ops;
	atomic_init(&lo->base.refs, 1);
	rights_env_probe(&lo->env);
	lo->pid = getpid();
	lo->base.hash = lo->pid;
	lo->env.maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	lo->env.proc_dir = -1; /* our own mount table is looked at anyway */
	lo->env.touch = local_touch;
	*out = &lo->base;
	return 0;
}
