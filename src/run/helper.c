// SPDX-License-Identifier: MIT
/*
 * Marked calls: what the preload helper asks for, and finding its library.
 *
 * All arguments come from the program. A token proves nothing, but with its secret it does: the secret was given out for a descriptor
 * that the program had, so it is worth what the descriptor was. It is good as long as the open file lives.
 */
#include "run/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "run/files.h"
#include "run/task.h"

#define REGION_SHIFT 40

bool helper_made(const struct seccomp_data *data)
{
	return helper_is_marked(data->args[data->nr == SYS_mmap ? 4 : 0]);
}

bool helper_is_own_call(const struct seccomp_data *data)
{
	unsigned int cmd = data->args[1];

	return data->nr == SYS_ioctl && helper_made(data) && _IOC_TYPE(cmd) == ';' &&
	       _IOC_NR(cmd) >= _IOC_NR(HELPER_CALL_TOKEN);
}

static int copy_in(struct task *t, void *dst, uint64_t from, size_t len)
{
	return t->caller.ops->copy_in(&t->caller, dst, from, len);
}

static int copy_out(struct task *t, uint64_t to, const void *src, size_t len)
{
	return t->caller.ops->copy_out(&t->caller, to, src, len);
}

static long on_token(struct session *s, struct task *t, struct open_file *file, uint64_t arg)
{
	struct helper_token out = {0};

	open_file_name(file, &out.token, &out.secret);
	if (open_file_vfio(file))
		out.flags |= HELPER_TOKEN_DEVICE;
	if (s->convert)
		out.flags |= HELPER_TOKEN_CONVERT;
	return copy_out(t, arg, &out, sizeof(out));
}

static long on_area(struct task *t, struct open_file *file, uint64_t arg)
{
	const struct node *node = open_file_node(file);
	struct helper_area a;
	struct vfio_area area;
	uint64_t off;
	long rc;

	if (!open_file_vfio(file) || !node->device)
		return -ENOTTY;
	if (copy_in(t, &a, arg, sizeof(a)))
		return -EFAULT;
	off = a.offset & ((1ull << REGION_SHIFT) - 1);
	if (a.offset >> REGION_SHIFT >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	rc = vfio_region_area(node->device->dev, (unsigned int)(a.offset >> REGION_SHIFT), off,
			      &area);
	if (rc)
		return rc;
	a.length = area.length - (off - area.offset);
	a.trapped = area.kind == VFIO_AREA_TRAPPED;
	a.fd = -1;
	a.fd_offset = area.fd_offset + (off - area.offset);
	if (!a.trapped && area.fd >= 0) {
		rc = t->caller.ops->install_fd(&t->caller, area.fd, O_CLOEXEC, &a.fd);
		if (rc)
			return rc;
	}
	return copy_out(t, arg, &a, sizeof(a));
}

static long on_access(struct session *s, struct task *t, struct call *call, uint64_t arg)
{
	struct helper_access a;
	struct open_file *file;
	struct vfio_file *vfio;
	long rc;

	if (copy_in(t, &a, arg, sizeof(a)))
		return -EFAULT;
	if (a.size > HELPER_ACCESS_MAX)
		return -EINVAL;
	rc = files_get_named(s->files, a.token, a.secret, t->tid, &file);
	if (rc)
		return rc;
	vfio = open_file_vfio(file);
	rc = -ESRCH;
	if (!vfio)
		rc = -EINVAL;
	else if (a.write && open_file_read_only(file))
		rc = -EBADF;
	else if (!call_proceed(s->calls, call, file))
		rc = -ESRCH;
	else if (a.write)
		rc = vfio_file_pwrite(vfio, &t->caller, a.data, a.size, a.position);
	else
		rc = vfio_file_pread(vfio, &t->caller, a.data, a.size, a.position);
	open_file_put(file);
	return rc;
}

static long on_decode(struct task *t, uint64_t arg)
{
	struct helper_insn insn;
	int rc;

	if (copy_in(t, &insn, arg, sizeof(insn)))
		return -EFAULT;
	rc = helper_decode(&insn);
	return rc ? rc : copy_out(t, arg, &insn, sizeof(insn));
}

static long on_share(struct session *s, struct task *t, uint64_t arg)
{
	struct helper_share share;
	int fd, rc;

	if (copy_in(t, &share, arg, sizeof(share)))
		return -EFAULT;
	rc = shares_add(s->shares, t, share.length, &fd, &share.offset, &share.inode);
	if (rc)
		return rc;
	rc = t->caller.ops->install_fd(&t->caller, fd, O_CLOEXEC, &share.fd);
	close(fd);
	return rc ? rc : copy_out(t, arg, &share, sizeof(share));
}

static long on_ring(struct session *s, struct task *t, uint64_t arg)
{
	struct helper_ring_info info = {0};
	int fd, rc;

	if (!s->rings)
		return -EOPNOTSUPP;
	rc = rings_add(s->rings, t, &fd, &info.number, &info.size);
	if (rc)
		return rc;
	rc = t->caller.ops->install_fd(&t->caller, fd, O_CLOEXEC, &info.fd);
	close(fd);
	return rc ? rc : copy_out(t, arg, &info, sizeof(info));
}

long helper_call(struct session *s, struct task *t, struct call *call, struct open_file *file,
		 const struct seccomp_data *data)
{
	unsigned int cmd = data->args[1];

	if (file)
		switch (cmd) {
		case HELPER_CALL_TOKEN:
			return on_token(s, t, file, data->args[2]);
		case HELPER_CALL_AREA:
			return on_area(t, file, data->args[2]);
		default:
			return -ENOTTY;
		}
	switch (cmd) {
	case HELPER_CALL_ACCESS:
		return on_access(s, t, call, data->args[2]);
	case HELPER_CALL_DECODE:
		return on_decode(t, data->args[2]);
	case HELPER_CALL_RING:
		return on_ring(s, t, data->args[2]);
	case HELPER_CALL_SHARE:
		return on_share(s, t, data->args[2]);
	case HELPER_CALL_PING:
		return 0;
	default:
		return -EBADF;
	}
}

void helper_tell_missing(struct session *s, struct task *t, const struct node *node,
			 uint64_t position)
{
	const char *why = s->no_helper;
	struct vfio_area area;

	if (t->caller.can_trap || !node->device ||
	    vfio_region_area(node->device->dev, (unsigned int)SWI_MIN(position >> REGION_SHIFT, 64),
			     position & ((1ull << REGION_SHIFT) - 1), &area) ||
	    (s->chose_no_helper && !s->explain) || atomic_exchange(&s->missing_told, true))
		return;
	session_say(
		s,
		"pid %d cannot map registers of %s, as it could with the preload helper: %s. It "
		"can "
		"read and write them (pread, pwrite); or give the device mmio=poll, if its model "
		"has that (swiommu devices)",
		(int)t->tid, node->path,
		why ? why
		    : "not loaded, as the program is static, runs under valgrind or was started "
		      "without LD_PRELOAD in its environment");
}

/* ---- the library ------------------------------------------------------------------------------- */

#define LIBRARY "libswiommu-preload.so"

/* Whether the library is in `dir` and may be read; its path. */
static bool library_in(const char *dir, char *path, size_t size)
{
	size_t len = strlen(dir);

	if (len + sizeof("/" LIBRARY) > size)
		return false;
	memcpy(path, dir, len);
	memcpy(path + len, "/" LIBRARY, sizeof("/" LIBRARY));
	return !access(path, R_OK);
}

void helper_find(char *path, size_t size, const char **why)
{
#ifdef SWIOMMU_HELPER_DIR
	char dir[PATH_MAX], moved[PATH_MAX + sizeof(SWIOMMU_HELPER_FROM_BIN) + 1];
	ssize_t n = readlink("/proc/self/exe", dir, sizeof(dir) - 1);
	char *slash;

	dir[n < 0 ? 0 : n] = '\0';
	slash = strrchr(dir, '/');
	if (slash)
		*slash = '\0';
	snprintf(moved, sizeof(moved), "%s/%s", dir, SWIOMMU_HELPER_FROM_BIN);
	/* Next to the binary, where a build has it; else where it is installed, also if that was moved as a whole. */
	if (library_in(dir, path, size) || library_in(moved, path, size) ||
	    library_in(SWIOMMU_HELPER_DIR, path, size))
		goto found;
	*why = LIBRARY " is not installed, or this user may not read it";
	path[0] = '\0';
	return;
found:
	/* The dynamic loader separates names by these. */
	*why = strpbrk(path, " :") ? "its path has a space or a colon in it" : NULL;
	if (*why)
		path[0] = '\0';
#else
	(void)size;
	path[0] = '\0';
	*why = "it was not built (no Zydis, or not x86-64)";
#endif
}

static void prepend(const char *name, const char *first, const char *separator)
{
	const char *old = getenv(name);
	char *value;

	if (!old || !old[0]) {
		setenv(name, first, 1);
		return;
	}
	if (asprintf(&value, "%s%s%s", first, separator, old) < 0)
		return;
	setenv(name, value, 1);
	free(value);
}

void helper_set_environment(const char *path)
{
	if (!path[0])
		return;
	prepend("LD_PRELOAD", path, ":");
	/* Programs built with the address sanitizer insist on being first; they need not be. */
	prepend("ASAN_OPTIONS", "verify_asan_link_order=0", ":");
}
