// SPDX-License-Identifier: MIT
/*
 * Looking up mappings. A kernel from 6.11 on answers for one address (PROCMAP_QUERY); on an older
 * one the text of the maps file is read, once per walk, since the addresses of a walk ascend.
 * Nothing is kept from one walk to the next: the program changes its mappings as it likes.
 *
 * The file is read with pread() at a position of our own, because one open maps file serves many
 * threads.
 */
#include "mem/vma.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The kernel's ABI of PROCMAP_QUERY, stated here because headers before 6.11 lack it. */
struct procmap_query_abi {
	uint64_t size;
	uint64_t query_flags;
	uint64_t query_addr;
	uint64_t vma_start;
	uint64_t vma_end;
	uint64_t vma_flags;
	uint64_t vma_page_size;
	uint64_t vma_offset;
	uint64_t inode;
	uint32_t dev_major;
	uint32_t dev_minor;
	uint32_t vma_name_size;
	uint32_t build_id_size;
	uint64_t vma_name_addr;
	uint64_t build_id_addr;
};

#define PROCMAP_QUERY_ABI _IOWR('f', 17, struct procmap_query_abi)
#define PROCMAP_VMA_READABLE 0x01
#define PROCMAP_VMA_WRITABLE 0x02
#define PROCMAP_VMA_SHARED 0x08

static int proc_getc(struct proc_words *p)
{
	ssize_t n;

	if (p->at == p->have) {
		do
			n = pread(p->fd, p->buf, p->size, p->pos);
		while (n < 0 && errno == EINTR);
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		p->pos += n;
		p->have = n;
		p->at = 0;
	}
	return (unsigned char)p->buf[p->at++];
}

int proc_word(struct proc_words *p, char *out, size_t cap)
{
	size_t len = 0;
	int c;

	while ((c = proc_getc(p)) == ' ' || c == '\t')
		;
	while (c > 0 && c != ' ' && c != '\t' && c != '\n') {
		if (len + 1 < cap)
			out[len++] = (char)c;
		c = proc_getc(p);
	}
	out[len] = '\0';
	return c == '\t' ? ' ' : c;
}

pid_t proc_thread_group(pid_t pid)
{
	char path[32], buf[512], word[24];
	struct proc_words p = {.buf = buf, .size = sizeof(buf)};
	bool next = false;
	pid_t tgid = -ESRCH;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	p.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (p.fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	while (proc_word(&p, word, sizeof(word)) > 0) {
		if (next) {
			tgid = (pid_t)strtol(word, NULL, 10);
			break;
		}
		next = !strcmp(word, "Tgid:");
	}
	close(p.fd);
	return tgid > 0 ? tgid : -ESRCH;
}

/*
 * The process and when it was started; and, as a process can run several programs, where the kernel
 * has put the program and its stack. The name in the second field may hold blanks and brackets.
 */
bool proc_space_id(int dir, uint64_t id[2])
{
	static const struct {
		unsigned field, into, shift;
	} what[] = {{1, 0, 48}, {22, 0, 0}, {26, 1, 24}, {28, 1, 0}, {45, 1, 12}, {47, 1, 36}};
	char buf[1024], *at, *end;
	unsigned field, i;
	ssize_t n;
	int fd;

	fd = dir < 0 ? open("/proc/self/stat", O_RDONLY | O_CLOEXEC)
		     : openat(dir, "stat", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return false;
	buf[n] = '\0';
	id[0] = id[1] = 0;
	at = buf;
	for (field = 1; *at; field++) {
		uint64_t value = strtoull(at, NULL, 10);

		for (i = 0; i < ARRAY_SIZE(what); i++)
			if (what[i].field == field)
				id[what[i].into] ^=
					value << what[i].shift |
					(what[i].shift ? value >> (64 - what[i].shift) : 0);
		end = field == 1 ? strrchr(at, ')') : strchr(at, ' ');
		if (!end)
			break;
		at = end + 1;
		if (field == 1) {
			field = 2; /* the name went by too */
			at += *at == ' ';
		}
	}
	return true;
}

void vma_walk_start(struct vma_walk *w, int maps_fd)
{
	w->fd = maps_fd;
	w->text = false;
	w->pos = 0;
	w->at = w->have = 0;
	w->cur.end = 0;
}

/*
 * One line: "start-end perms offset major:minor inode name". -ENOENT after the last one.
 * (The name, which may hold blanks, is skipped up to the newline.)
 */
static int next_line(struct vma_walk *w, struct vma *v)
{
	struct proc_words p = {w->fd, w->pos, w->at, w->have, w->buf, sizeof(w->buf)};
	char word[64], *end;
	unsigned field;
	int delim = ' ';

	memset(v, 0, sizeof(*v));
	for (field = 0; delim == ' '; field++) {
		delim = proc_word(&p, word, sizeof(word));
		if (delim < 0)
			return delim;
		if (delim == 0 && field == 0)
			return -ENOENT;
		switch (field) {
		case 0:
			v->start = strtoull(word, &end, 16);
			if (*end == '-')
				v->end = strtoull(end + 1, NULL, 16);
			break;
		case 1:
			if (strlen(word) < 4)
				return -EIO;
			v->prot =
				(word[0] == 'r' ? SWI_READ : 0) | (word[1] == 'w' ? SWI_WRITE : 0);
			v->shared = word[3] == 's';
			break;
		case 2:
			v->offset = strtoull(word, NULL, 16);
			break;
		case 3:
			v->dev = strtoul(word, &end, 16);
			v->dev = makedev(v->dev, *end == ':' ? strtoul(end + 1, NULL, 16) : 0);
			break;
		case 4:
			v->ino = strtoull(word, NULL, 10);
			break;
		}
	}
	w->pos = p.pos;
	w->at = p.at;
	w->have = p.have;
	return field >= 5 && v->start < v->end ? 0 : -EIO;
}

static int text_to(struct vma_walk *w, uint64_t addr, struct vma *out)
{
	int ret;

	while (w->cur.end <= addr) {
		ret = next_line(w, &w->cur);
		if (ret)
			return ret;
	}
	if (w->cur.start > addr)
		return -ENOENT;
	*out = w->cur;
	return 0;
}

int vma_walk_to(struct vma_walk *w, uint64_t addr, struct vma *out)
{
	struct procmap_query_abi q = {.size = sizeof(q), .query_addr = addr};

	if (w->text)
		return text_to(w, addr, out);
	if (ioctl(w->fd, PROCMAP_QUERY_ABI, &q) < 0) {
		if (errno != ENOTTY)
			return -errno;
		w->text = true;
		return text_to(w, addr, out);
	}
	out->start = q.vma_start;
	out->end = q.vma_end;
	out->prot = (q.vma_flags & PROCMAP_VMA_READABLE ? SWI_READ : 0) |
		    (q.vma_flags & PROCMAP_VMA_WRITABLE ? SWI_WRITE : 0);
	out->shared = q.vma_flags & PROCMAP_VMA_SHARED;
	out->offset = q.vma_offset;
	out->dev = makedev(q.dev_major, q.dev_minor);
	out->ino = q.inode;
	out->page_size = q.vma_page_size;
	return 0;
}
