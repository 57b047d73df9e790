/* SPDX-License-Identifier: Apache-2.0 */
#include "store/initramfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/erofs_reader.h"

#define INIT_MOST (16u << 20)
#define MODULE_MOST (64u << 20)

struct writer {
	struct str bytes;
	unsigned inode;
};

static void pad(struct str *s)
{
	while (s->length % 4)
		str_putc(s, '\0');
}

static void add(struct writer *w, const char *name, unsigned mode, unsigned major, unsigned minor, const void *bytes,
		size_t length)
{
	str_printf(&w->bytes, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", ++w->inode, mode, 0u, 0u,
		   S_ISDIR(mode) ? 2u : 1u, 0u, (unsigned)length, 0u, 0u, major, minor, (unsigned)strlen(name) + 1, 0u);
	str_add(&w->bytes, name, strlen(name) + 1);
	pad(&w->bytes);
	str_add(&w->bytes, bytes, length);
	pad(&w->bytes);
}

/* --- modules --- */

struct modules {
	struct erofs_reader *reader;
	struct writer *out;
};

static int add_module(void *data, const struct erofs_name *entry, struct err *e)
{
	struct modules *m = data;
	struct erofs_inode inode;
	int r = erofs_inode(m->reader, entry->nid, &inode, e);

	if (r < 0 || str_starts(entry->name, "4-")) /* what travels has a disk of its own for them */
		return r;
	if (!S_ISREG(inode.mode) || inode.size_bytes > MODULE_MOST)
		return err_set(e, ERR_INVALID, "/modules/%s of the kernel partition is no module", entry->name);
	own_str void *bytes = mem_alloc(inode.size_bytes + 1);
	own_str char *path = mem_printf("modules/%s", entry->name);
	if (inode.size_bytes && (r = erofs_read(m->reader, &inode, 0, bytes, inode.size_bytes, e)) < 0)
		return r;
	add(m->out, path, S_IFREG | 0644, 0, 0, bytes, inode.size_bytes);
	return 0;
}

static int add_modules(struct writer *w, int kernel_fd, struct err *e)
{
	own_erofs_reader struct erofs_reader *reader = NULL;
	struct erofs_inode folder;
	int r = erofs_open(kernel_fd, &reader, e);

	if (r < 0 || (r = erofs_find(reader, "modules", &folder, e)) < 0)
		return err_wrap(e, "kernel partition");
	add(w, "modules", S_IFDIR | 0755, 0, 0, NULL, 0);
	struct modules m = { .reader = reader, .out = w };
	return erofs_list(reader, &folder, erofs_root(reader), add_module, &m, e);
}

static int make(int kernel_fd, const struct str *init, struct str *out, struct err *e)
{
	struct writer w = { 0 };

	add(&w, "dev", S_IFDIR | 0755, 0, 0, NULL, 0);
	/* where the kernel opens standard streams before devtmpfs is mounted */
	add(&w, "dev/console", S_IFCHR | 0600, 5, 1, NULL, 0);
	add(&w, "init", S_IFREG | 0755, 0, 0, init->bytes, init->length);
	int r = add_modules(&w, kernel_fd, e);
	if (r < 0) {
		str_done(&w.bytes);
		return r;
	}
	w.inode = UINT32_MAX;
	add(&w, "TRAILER!!!", 0, 0, 0, NULL, 0);
	*out = w.bytes;
	return 0;
}

static int read_init(int init_fd, struct str *out, struct err *e)
{
	if (lseek(init_fd, 0, SEEK_SET) < 0)
		return err_errno(e, errno, "read carrel-init");
	return fs_read_fd(init_fd, INIT_MOST, out, e);
}

int initramfs_get(int folder_fd, const struct digest *kernel, int kernel_partition_fd, int init_fd,
		  char ret_name[INITRAMFS_NAME_SIZE], struct err *e)
{
	static const char form[] = "carrel initramfs 2\n";
	char hex[DIGEST_HEX_SIZE], name[INITRAMFS_NAME_SIZE];
	own_strbuf struct str init = { 0 }, out = { 0 };
	own_hash struct hash *h = hash_new();
	int r = read_init(init_fd, &init, e);

	if (r < 0)
		return r;
	hash_add(h, form, sizeof form);
	hash_add(h, kernel->bytes, sizeof kernel->bytes);
	hash_add(h, init.bytes, init.length);
	struct digest both = hash_end(h);
	(void)snprintf(name, sizeof name, "%s.cpio", digest_hex(&both, hex));
	if (!fs_exists(folder_fd, name)) {
		if ((r = make(kernel_partition_fd, &init, &out, e)) < 0 ||
		    (r = fs_write_file(folder_fd, name, out.bytes, out.length, 0444, false, e)) < 0)
			return r;
	}
	memcpy(ret_name, name, sizeof name);
	return 0;
}
