/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A Debian package is an ar archive whose member data.tar.* holds the files (deb(5)); a tar of the same files is read
 * as well. It is read twice: first to learn what each module needs (modules.dep is only made when a package is installed, so
 * their own .modinfo is asked), then to take what is wanted. Everything that reads it runs in a child without rights; it writes
 * to the one descriptor of the partition.
 *
 * The partition names modules by the order in which they are to be loaded: "1-..." before anything else, "2-..." when the
 * machine has a network, "3-..." when the workspace runs already, "4-..." when it may travel to another engine.
 */
#include "store/kernel.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/child.h"
#include "store/erofs_reader.h"
#include "store/erofs_writer.h"
#include "store/kernel_index.h"

#define FILE_MOST (UINT64_C(512) << 20) /* a kernel or a module */
#define MODULES_MOST 20000
#define PACKED_MOST (UINT64_C(512) << 20) /* of all packed modules */
#define BLOCK 65536

/* What machines need; what they depend on comes before. `optional`: a kernel may have it built in. */
static const struct {
	const char *name;
	char stage;
} wanted[] = {
	{ "crc32c_generic", '1' }, { "virtio_pci", '1' }, { "virtio_mmio", '1' }, { "virtio_blk", '1' }, { "virtio_console",
	  '1' },
	{ "erofs", '1' },	   { "ext4", '1' },	  { "overlay", '1' },	  { "virtio_net", '2' }, { "virtio_rng", '3' },
	{ "virtio_balloon", '3' }, { "unix_diag", '4' },  { "tcp_diag", '4' },	  { "udp_diag", '4' },	 { "raw_diag", '4' },
	{ "netlink_diag", '4' },   { "af_packet_diag", '4' }, { "tun", '4' },
	{ "veth", '4' },	   { "nf_tables", '4' },  { "nf_conntrack_netlink", '4' },
};

struct module {
	char *name, *depends; /* depends NULL: packed, and not looked into yet */
	char *path;	      /* below /lib/modules/RELEASE */
	struct str infos;
	struct str bytes;
	char stage; /* 0: not taken */
	unsigned order;
};

struct package {
	int package_fd, partition_fd;
	struct module *modules;
	size_t count, room;
	unsigned taken;
	uint64_t packed_bytes;
	struct str kernel, unpacked, config, builtin;
	struct erofs_writer *writer;
	char release[128], architecture[16];
};

/* --- reading --- */

static int archive_failed(struct archive *a, struct err *e)
{
	return err_set(e, ERR_CORRUPT, "the package cannot be read: %s",
		       archive_error_string(a) ? archive_error_string(a) : "unknown");
}

static int read_content(struct archive *a, struct str *out, struct err *e)
{
	char block[BLOCK];
	la_ssize_t n;

	str_clear(out);
	while ((n = archive_read_data(a, block, sizeof block)) > 0) {
		if (out->length + (size_t)n > FILE_MOST)
			return err_set(e, ERR_TOO_LARGE, "a file of the package has more than %d MiB", (int)(FILE_MOST >> 20));
		str_add(out, block, (size_t)n);
	}
	return n < 0 ? archive_failed(a, e) : 0;
}

/* "x.ko.xz" and the like become plain. */
static int unpack_content(struct str *bytes, struct err *e)
{
	struct archive *a = archive_read_new();
	struct archive_entry *entry;
	own_strbuf struct str plain = { 0 };
	int r = 0;

	(void)archive_read_support_filter_all(a);
	(void)archive_read_support_format_raw(a);
	if (archive_read_open_memory(a, bytes->bytes, bytes->length) < ARCHIVE_WARN ||
	    archive_read_next_header(a, &entry) < ARCHIVE_WARN)
		r = archive_failed(a, e);
	if (r >= 0)
		r = read_content(a, &plain, e);
	(void)archive_read_free(a);
	if (r >= 0) {
		str_clear(bytes);
		str_add(bytes, plain.bytes, plain.length);
	}
	return r;
}

/* Names with '-' and '_' are one (modprobe(8)). NULL: not a module. */
static char *module_name(const char *path, bool *ret_packed)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	const char *end = strstr(base, ".ko");

	if (!end || end == base || (end[3] && end[3] != '.') || !strstr(path, "/modules/"))
		return NULL;
	*ret_packed = end[3] == '.';
	char *name = mem_strndup(base, (size_t)(end - base));
	for (char *at = name; *at; at++)
		if (*at == '-')
			*at = '_';
	return name;
}

typedef int file_fn(struct package *p, struct archive *a, const char *path, struct err *e);

struct inner {
	struct archive *outer;
	char block[BLOCK];
};

static la_ssize_t read_inner(struct archive *a, void *data, const void **ret_bytes)
{
	struct inner *in = data;
	la_ssize_t n = archive_read_data(in->outer, in->block, sizeof in->block);

	*ret_bytes = in->block;
	if (n < 0)
		archive_set_error(a, archive_errno(in->outer), "%s", archive_error_string(in->outer));
	return n < 0 ? ARCHIVE_FATAL : n;
}

static int each_inner(struct package *p, struct archive *outer, file_fn *fn, struct err *e)
{
	own_str struct inner *in = mem_alloc(sizeof *in);
	struct archive *a = archive_read_new();
	struct archive_entry *entry;
	int r = 0, got;

	in->outer = outer;
	(void)archive_read_support_filter_all(a);
	(void)archive_read_support_format_tar(a);
	if (archive_read_open(a, in, NULL, read_inner, NULL) < ARCHIVE_WARN)
		r = archive_failed(a, e);
	while (r >= 0 && (got = archive_read_next_header(a, &entry)) != ARCHIVE_EOF) {
		if (got < ARCHIVE_WARN)
			r = archive_failed(a, e);
		else if (archive_entry_filetype(entry) == AE_IFREG && archive_entry_pathname(entry))
			r = fn(p, a, archive_entry_pathname(entry), e);
	}
	(void)archive_read_free(a);
	return r;
}

static int each_file(struct package *p, file_fn *fn, struct err *e)
{
	struct archive *a = archive_read_new();
	struct archive_entry *entry;
	bool found = false, whole = false;
	int r = 0, got;

	(void)archive_read_support_filter_all(a);
	(void)archive_read_support_format_ar(a);
	(void)archive_read_support_format_tar(a);
	if (lseek(p->package_fd, 0, SEEK_SET) < 0 || archive_read_open_fd(a, p->package_fd, BLOCK) < ARCHIVE_WARN)
		r = archive_failed(a, e);
	while (r >= 0 && !found && (got = archive_read_next_header(a, &entry)) != ARCHIVE_EOF) {
		const char *path = got < ARCHIVE_WARN ? NULL : archive_entry_pathname(entry);
		bool tar = (archive_format(a) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_TAR;
		if (got < ARCHIVE_WARN)
			r = archive_failed(a, e);
		else if (tar && path && archive_entry_filetype(entry) == AE_IFREG)
			r = fn(p, a, path, e);
		else if (!tar && path && (found = str_starts(path, "data.tar")))
			r = each_inner(p, a, fn, e);
		whole |= tar;
	}
	(void)archive_read_free(a);
	return r >= 0 && !found && !whole ? err_set(e, ERR_INVALID, "this is not a Debian package: it has no data.tar") : r;
}

/* --- first pass: what there is --- */

static int find_depends(struct module *m, struct err *e)
{
	int r = kernel_module_depends(m->bytes.bytes, m->bytes.length, &m->depends, e);

	if (r >= 0)
		r = kernel_module_infos(m->bytes.bytes, m->bytes.length, &m->infos, e);
	if (r < 0)
		return err_wrap(e, "module %s", m->name);
	for (char *at = m->depends; *at; at++)
		if (*at == '-')
			*at = '_';
	return 0;
}

/* "./lib/modules/6.1.0/kernel/fs/x.ko" is "kernel/fs/x.ko". */
static const char *below_release(const char *path)
{
	const char *at = strstr(path, "/modules/"), *slash = at ? strchr(at + strlen("/modules/"), '/') : NULL;

	return slash ? slash + 1 : path;
}

/* Unpacking thousands of them takes a minute, and a dozen is wanted: packed ones are kept as they are. */
static int look_at_module(struct package *p, struct archive *a, const char *path, const char *name, bool packed, struct err *e)
{
	struct module m = { .name = mem_strdup(name), .path = mem_strdup(below_release(path)) };
	int r = read_content(a, &m.bytes, e);

	if (r >= 0 && packed && (p->packed_bytes += m.bytes.length) > PACKED_MOST)
		r = err_set(e, ERR_TOO_LARGE, "the package has more than %d MiB of modules", (int)(PACKED_MOST >> 20));
	if (r >= 0 && !packed) {
		r = find_depends(&m, e);
		str_done(&m.bytes);
	}
	if (r >= 0 && p->count == MODULES_MOST)
		r = err_set(e, ERR_TOO_LARGE, "more than %d modules", MODULES_MOST);
	if (r < 0)
		return r;
	MEM_PUSH_ROOM(p->modules, p->count, p->room);
	p->modules[p->count++] = m;
	return 0;
}

static int look(struct package *p, struct archive *a, const char *path, struct err *e)
{
	bool packed = false;
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	own_str char *name = module_name(path, &packed);

	if (name)
		return look_at_module(p, a, path, name, packed, e);
	if (str_eq(base, "modules.builtin"))
		return read_content(a, &p->builtin, e);
	if (str_starts(base, "config-") && strstr(path, "boot/"))
		return read_content(a, &p->config, e);
	if ((str_starts(base, "vmlinuz-") || str_starts(base, "vmlinux-")) && strstr(path, "boot/")) {
		(void)snprintf(p->release, sizeof p->release, "%s", base + strlen("vmlinuz-"));
		return read_content(a, &p->kernel, e);
	}
	return 0;
}

/* --- what is taken, in which order --- */

static struct module *find(struct package *p, const char *name)
{
	for (size_t i = 0; i < p->count; i++)
		if (str_eq(p->modules[i].name, name))
			return &p->modules[i];
	return NULL;
}

/* What it depends on first. A module that is in a circle is marked before, so the circle ends. */
static int take(struct package *p, struct module *m, char stage, struct err *e)
{
	char *save = NULL;
	int r = 0;

	if (m->stage)
		return 0;
	m->stage = stage;
	if (!m->depends && ((r = unpack_content(&m->bytes, e)) < 0 || (r = find_depends(m, e)) < 0))
		return r;
	own_str char *depends = mem_strdup(m->depends);
	for (char *name = strtok_r(depends, ",", &save); r >= 0 && name; name = strtok_r(NULL, ",", &save)) {
		struct module *other = find(p, name);
		if (other)
			r = take(p, other, stage, e);
	}
	m->order = p->taken++;
	return r;
}

/* --- second pass: the partition --- */

static int add_file(struct erofs_writer *w, const char *path, const void *bytes, size_t length, struct err *e)
{
	struct erofs_attributes a = { .mode = S_IFREG | 0644 };
	int r = erofs_begin_file(w, path, &a, length, false, e);

	if (r >= 0 && length)
		r = erofs_add_data(w, 0, bytes, length, e);
	return r < 0 ? r : erofs_end_file(w, e);
}

/* All of them are kept for /lib/modules as they are, if they are plain: what is needed for the start once more by its order. */
static int fetch(struct package *p, struct archive *a, const char *path, struct err *e)
{
	bool packed = false;
	own_str char *name = module_name(path, &packed);
	struct module *m = name ? find(p, name) : NULL;
	own_strbuf struct str bytes = { 0 };

	if (!m || (packed && (!m->stage || m->bytes.length)))
		return 0;
	int r = read_content(a, &bytes, e);
	if (r >= 0 && packed)
		r = unpack_content(&bytes, e);
	if (r >= 0 && !p->packed_bytes) {
		own_str char *where = mem_printf("lib/modules/%s/%s", p->release, m->path);
		r = add_file(p->writer, where, bytes.bytes, bytes.length, e);
	}
	if (r >= 0 && m->stage)
		m->bytes = (struct str){ .bytes = TAKE(bytes.bytes), .length = bytes.length, .capacity = bytes.capacity };
	return r;
}

static int add_modules(struct package *p, struct erofs_writer *w, struct err *e)
{
	struct erofs_attributes folder = { .mode = S_IFDIR | 0755 };
	int r = erofs_add_directory(w, "modules", &folder, e);

	for (unsigned order = 0; r >= 0 && order < p->taken; order++)
		for (size_t i = 0; r >= 0 && i < p->count; i++) {
			struct module *m = &p->modules[i];
			if (!m->stage || m->order != order)
				continue;
			own_str char *path = mem_printf("modules/%c-%02u-%s.ko", m->stage, order, m->name);
			r = add_file(w, path, m->bytes.bytes, kernel_module_unsigned_length(m->bytes.bytes, m->bytes.length),
				     e);
		}
	return r;
}

/* A kernel that can be started unpacked is kept so too: an emulated processor takes a tenth of its start to unpack it. */
static void unpack_kernel(struct package *p)
{
	size_t offset, length;
	struct err e;

	if (!kernel_config_has(str_text(&p->config), "PVH") ||
	    !kernel_image_payload(p->kernel.bytes, p->kernel.length, &offset, &length))
		return;
	str_add(&p->unpacked, p->kernel.bytes + offset, length);
	if (unpack_content(&p->unpacked, &e) < 0 || !kernel_image_is_elf(p->unpacked.bytes, p->unpacked.length))
		str_clear(&p->unpacked); /* packed in a way that we do not know: the machine does it itself */
}

static int add_index(void *data, const char *name, const struct str *content, struct err *e)
{
	struct package *p = data;
	own_str char *path = mem_printf("lib/modules/%s/%s", p->release, name);

	return add_file(p->writer, path, content->bytes, content->length, e);
}

static int compare_modules(const void *a, const void *b)
{
	return strcmp(((const struct kernel_index_module *)a)->path, ((const struct kernel_index_module *)b)->path);
}

static int add_indexes(struct package *p, struct err *e)
{
	own_str struct kernel_index_module *list = mem_alloc_array(p->count + 1, sizeof *list);

	if (p->packed_bytes)
		return 0;
	for (size_t i = 0; i < p->count; i++) {
		const struct module *m = &p->modules[i];
		list[i] = (struct kernel_index_module){ m->name, m->path, m->depends, &m->infos };
	}
	qsort(list, p->count, sizeof *list, compare_modules);
	int r = add_index(p, "modules.builtin", &p->builtin, e);
	return r < 0 ? r : kernel_index_write(list, p->count, str_text(&p->builtin), add_index, p, e);
}

static int add_kernel(struct package *p, struct err *e)
{
	struct erofs_writer *w = p->writer;
	int r = add_file(w, "vmlinuz", p->kernel.bytes, p->kernel.length, e);

	unpack_kernel(p);
	if (r >= 0 && p->unpacked.length)
		r = add_file(w, "vmlinux", p->unpacked.bytes, p->unpacked.length, e);
	if (r >= 0)
		r = add_file(w, "config", p->config.bytes, p->config.length, e);
	if (r >= 0)
		r = add_file(w, "release", p->release, strlen(p->release), e);
	return r < 0 ? r : add_file(w, "architecture", p->architecture, strlen(p->architecture), e);
}

static int write_partition(struct package *p, struct err *e)
{
	own_erofs_writer struct erofs_writer *w = p->writer = erofs_writer_new(p->partition_fd, 0, &erofs_default_limits);
	uint64_t size, inodes;
	int r = add_kernel(p, e);

	if (r >= 0)
		r = each_file(p, fetch, e);
	if (r >= 0)
		r = add_modules(p, w, e);
	if (r >= 0)
		r = add_indexes(p, e);
	return r < 0 ? r : erofs_finish(w, &size, &inodes, e);
}

/* In the child. It ends afterwards, so nothing is freed. */
static int build(void *data, struct err *e)
{
	struct package *p = data;
	int r = each_file(p, look, e);

	if (r < 0)
		return r;
	if (!p->kernel.length || !p->config.length) {
		(void)err_set(e, ERR_INVALID, "the package holds no kernel with its configuration");
		return err_hint(e, "linux-image-cloud-amd64 itself is empty: take the package it depends on");
	}
	if ((r = kernel_check_config(str_text(&p->config), p->architecture, e)) < 0)
		return r;
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(wanted); i++) {
		struct module *m = find(p, wanted[i].name);
		if (m)
			r = take(p, m, wanted[i].stage, e);
	}
	return r < 0 ? r : write_partition(p, e);
}

int kernel_build(int package_fd, int partition_fd, struct err *e)
{
	struct package p = { .package_fd = package_fd, .partition_fd = partition_fd };
	const int fds[] = { package_fd, partition_fd };
	struct child c;
	int r = child_start("the kernel package's reader", CHILD_PARSES, build, &p, fds, ARRAY_SIZE(fds), &c, e);

	return r < 0 ? r : child_finish(&c, e);
}

/* --- describing one --- */

static int read_text(struct erofs_reader *reader, const char *path, char *ret_text, size_t size, struct err *e)
{
	struct erofs_inode inode;
	int r = erofs_find(reader, path, &inode, e);

	if (r >= 0 && (!S_ISREG(inode.mode) || inode.size_bytes >= size))
		r = err_set(e, ERR_INVALID, "/%s of the kernel partition is no short text", path);
	if (r < 0 || (r = erofs_read(reader, &inode, 0, ret_text, inode.size_bytes, e)) < 0)
		return err_wrap(e, "this is not a kernel partition");
	ret_text[inode.size_bytes] = '\0';
	for (char *at = ret_text; *at; at++)
		if ((unsigned char)*at <= ' ' || *at == 0x7f)
			return err_set(e, ERR_INVALID, "/%s of the kernel partition is no plain text", path);
	return 0;
}

static int count(void *data, const struct erofs_name *entry, struct err *e)
{
	(void)entry;
	(void)e;
	++*(uint64_t *)data;
	return 0;
}

int kernel_describe(int partition_fd, struct kernel_about *ret_about, struct err *e)
{
	own_erofs_reader struct erofs_reader *reader = NULL;
	struct kernel_about about = { 0 };
	struct erofs_inode modules;
	int r = erofs_open(partition_fd, &reader, e);

	if (r < 0 || (r = read_text(reader, "release", about.release, sizeof about.release, e)) < 0 ||
	    (r = read_text(reader, "architecture", about.architecture, sizeof about.architecture, e)) < 0)
		return r;
	if ((r = erofs_find(reader, "modules", &modules, e)) < 0 ||
	    (r = erofs_list(reader, &modules, erofs_root(reader), count, &about.modules, e)) < 0)
		return r;
	*ret_about = about;
	return 0;
}
