// SPDX-License-Identifier: MIT
/*
 * Rights of a range. The kernel decides this with its page tables in hand when it pins; we see only
 * mappings, and come to the same answers from three facts about each mapping of the range:
 *
 *  - its protection at this moment;
 *  - for a shared mapping and a device that writes, its filesystem: one that writes pages back to a
 *    disk must be told before a page gets dirty, a device cannot do that, so the kernel refuses;
 *  - one page, touched: the last one of the range, since in a file mapping everything before it
 * lies inside the file then. This finds pages beyond the end of the file, and memory that is none
 *    (secretmem, vvar, device registers). Writable memory without a file needs no such test.
 *
 * A filesystem is known by its device number. Filesystems that the kernel mounts for itself
 * (memfds, shared anonymous memory, SysV segments) are in no mount table; their numbers are found
 * by making such a file. A number that cannot be found at all is taken for a disk.
 */
#include "mem/rights.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef MFD_HUGETLB
#define MFD_HUGETLB 0x0004U
#endif

static dev_t memfd_dev(unsigned flags)
{
	struct stat st;
	dev_t dev = 0;
	int fd = memfd_create("swiommu", MFD_CLOEXEC | flags);

	if (fd < 0)
		return 0;
	if (!fstat(fd, &st))
		dev = st.st_dev;
	close(fd);
	return dev;
}

void rights_env_probe(struct rights_env *env)
{
	env->shmem_dev = memfd_dev(0);
	env->hugetlb_dev = memfd_dev(MFD_HUGETLB);
}

/*
 * The type of the filesystem `dev` in one mount table. Lines: "id parent major:minor root point
 * options [tags...] - type source superoptions".
 */
static bool mount_type(int proc_dir, const char *table, dev_t dev, char *type, size_t cap)
{
	char buf[4096], word[32], want[32];
	struct proc_words p = {.buf = buf, .size = sizeof(buf)};
	bool match = false, dash = false, found = false;
	unsigned field = 0;
	int delim;

	p.fd = openat(proc_dir, table, O_RDONLY | O_CLOEXEC);
	if (p.fd < 0)
		return false;
	snprintf(want, sizeof(want), "%u:%u", major(dev), minor(dev));
	while (!found && (delim = proc_word(&p, word, sizeof(word))) > 0) {
		if (field == 2)
			match = !strcmp(word, want);
		if (match && dash) {
			snprintf(type, cap, "%s", word);
			found = true;
		}
		dash = field > 5 && !strcmp(word, "-");
		field = delim == '\n' ? 0 : field + 1;
	}
	close(p.fd);
	return found;
}

bool rights_is_memory_file(const struct rights_env *env, const struct vma *v)
{
	static const char *const types[] = {"tmpfs", "hugetlbfs", "devtmpfs", "ramfs", "rootfs"};
	char type[32];
	size_t i;

	if (v->dev == 0)
		return false;
	if (v->dev == env->shmem_dev || v->dev == env->hugetlb_dev)
		return true;
	if (v->page_size > (uint64_t)getpagesize())
		return true; /* nothing but hugetlb has large pages by nature */
	if (!mount_type(env->proc_dir, "mountinfo", v->dev, type, sizeof(type)) &&
	    !mount_type(AT_FDCWD, "/proc/self/mountinfo", v->dev, type, sizeof(type)))
		return false;
	for (i = 0; i < ARRAY_SIZE(types); i++)
		if (!strcmp(type, types[i]))
			return true;
	return false;
}

static const char *whose(const struct rights_env *env, char *buf, size_t cap)
{
	if (!env->pid)
		return "this process";
	snprintf(buf, cap, "process %d", (int)env->pid);
	return buf;
}

static int check_vma(const struct rights_env *env, const struct vma *v, uint64_t addr,
		     uint64_t last, unsigned prot, bool *memory_file, struct swi_reason *why)
{
	uint64_t last_here = SWI_MIN(last, v->end - 1);
	char who[32];

	if (prot & ~v->prot)
		return swi_fail(why, -EFAULT, "memory of %s at %#llx is not %s",
				whose(env, who, sizeof(who)), (unsigned long long)addr,
				prot & ~v->prot & SWI_WRITE ? "writable" : "readable");
	if (v->dev && env->is_device && env->is_device(env->is_device_data, v->dev, v->ino))
		return swi_fail(why, -EFAULT,
				"at %#llx %s has mapped registers of a device, which are no memory",
				(unsigned long long)addr, whose(env, who, sizeof(who)));
	*memory_file = v->shared && rights_is_memory_file(env, v);
	if (v->shared && (prot & SWI_WRITE) && !*memory_file)
		return swi_fail(why, -EFAULT,
				"memory of %s at %#llx is a shared mapping of a file whose "
				"filesystem tracks dirty pages; a device cannot write to it",
				whose(env, who, sizeof(who)), (unsigned long long)addr);
	if (v->dev == 0 && (v->prot & SWI_WRITE))
		return 0;
	if (env->touch(env->data, v, last_here))
		return swi_fail(why, -EFAULT,
				"memory of %s at %#llx cannot be pinned: beyond the end of its "
				"file, or not ordinary memory",
				whose(env, who, sizeof(who)), (unsigned long long)last_here);
	return 0;
}

static void add_part(struct rights_parts *parts, const struct vma *v, bool memory_file)
{
	struct vma *before = parts->n ? &parts->v[parts->n - 1] : NULL;

	parts->windowable = parts->windowable && memory_file && parts->n < RIGHTS_PARTS_MAX;
	if (before && !before->shared && !v->shared && before->page_size == v->page_size)
		before->end = v->end;
	else if (parts->n < RIGHTS_PARTS_MAX)
		parts->v[parts->n++] = *v;
	else
		parts->complete = false;
}

int rights_check_pin(const struct rights_env *env, uint64_t addr, uint64_t last, unsigned prot,
		     struct rights_parts *parts, struct swi_reason *why)
{
	bool memory_file = false;
	struct vma_walk w;
	struct vma v;
	char who[32];
	int ret;

	parts->n = 0;
	parts->complete = parts->windowable = true;
	vma_walk_start(&w, env->maps_fd);
	for (;; addr = v.end) {
		ret = vma_walk_to(&w, addr, &v);
		if (ret == -ENOENT)
			return swi_fail(why, -EFAULT, "nothing is mapped at %#llx of %s",
					(unsigned long long)addr, whose(env, who, sizeof(who)));
		if (ret)
			return swi_fail(why, -EFAULT, "the memory of %s is gone (%s)",
					whose(env, who, sizeof(who)), strerror(-ret));
		ret = check_vma(env, &v, addr, last, prot, &memory_file, why);
		if (ret)
			return ret;
		add_part(parts, &v, memory_file);
		if (v.end > last)
			return 0;
	}
}

/* ---- identity ------------------------------------------------------------------------------- */

static bool is_huge(const struct rights_env *env, const struct vma *v)
{
	return v->page_size > (uint64_t)getpagesize() || (v->dev && v->dev == env->hugetlb_dev);
}

static struct mem_ident ident_of(const struct rights_env *env, const struct vma *v)
{
	return (struct mem_ident){
		.addr = v->start,
		.last = v->end - 1,
		.is_private = !v->shared,
		.huge = is_huge(env, v),
		.dev = v->dev,
		.ino = v->ino,
		.offset = v->offset,
	};
}

int rights_page_key(const struct rights_env *env, uint64_t addr, const uint64_t space[2],
		    struct page_key *key)
{
	struct mem_ident id;
	struct vma_walk w;
	struct vma v;

	vma_walk_start(&w, env->maps_fd);
	if (vma_walk_to(&w, addr, &v) || !v.prot || env->touch(env->data, &v, addr))
		return -EFAULT;
	id = ident_of(env, &v);
	mem_ident_key(&id, addr, space, key);
	return 0;
}

int rights_identify(const struct rights_env *env, const struct rights_parts *parts, uint64_t addr,
		    uint64_t last, struct mem_window *win)
{
	struct mem_ident *ids = &win->ident;
	unsigned i;

	/* Too colourful a range has no identity: only questions of the test ABI need one. */
	if (!parts->complete || !parts->n)
		return 0;
	if (parts->n > 1) {
		ids = swi_alloc(parts->n * sizeof(*ids));
		if (!ids)
			return -ENOMEM;
		win->idents = ids;
	}
	for (i = 0; i < parts->n; i++)
		ids[i] = ident_of(env, &parts->v[i]);
	ids[0].offset += SWI_MAX(ids[0].addr, addr) - ids[0].addr;
	ids[0].addr = SWI_MAX(ids[0].addr, addr);
	ids[parts->n - 1].last = SWI_MIN(ids[parts->n - 1].last, last);
	win->nr_idents = parts->n;
	return 0;
}

int rights_check_now(struct vma_walk *w, uint64_t addr, uint64_t last, unsigned prot,
		     uint64_t *stop)
{
	struct vma v;

	if (vma_walk_to(w, addr, &v) || (prot & ~v.prot))
		return -EFAULT;
	*stop = SWI_MIN(last, v.end - 1);
	return 0;
}
