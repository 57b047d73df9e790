/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carrel-tar: local files to a tar on standard output, and a tar on standard input to local files, for `carrel cp` and
 * `carrel image import`. A program of its own, because loading libarchive costs 2 ms, which the other verbs do not pay.
 *
 *	carrel-tar pack PATH NAME [owners]          entries are named NAME and NAME/...; sorted, so that the same tree gives
 *	                                            the same tar
 *	carrel-tar look                             the first bytes of what standard input is the packed beginning of
 *	carrel-tar unpack FOLDER FROM TO [owners]   what is named FROM, FROM/... is written as TO, TO/... below FOLDER
 *
 * With `owners`, numeric owners are kept; else what is packed belongs to root and what is unpacked to the caller. A tar that
 * comes from a workspace is not trusted: nothing is written outside FOLDER, neither by ".." nor by links, and device nodes are
 * refused.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define LOOK_BYTES 4096

static int fail(const char *what, const char *why)
{
	(void)fprintf(stderr, "%s: %s\n", what, why);
	return 1;
}

/* --- pack --- */

struct packer {
	struct archive *disk, *out;
	struct archive_entry_linkresolver *links;
	const char *root, *name;
	bool owners;
	unsigned long sockets; /* left out: they mean nothing without their processes, and a tar has no form for them */
};

static int compare(const FTSENT **a, const FTSENT **b) { return strcmp((*a)->fts_name, (*b)->fts_name); }

static int copy_content(struct packer *p, const char *path)
{
	enum { block = 256 << 10 };
	own_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
	own_str char *buffer = mem_alloc(block);

	if (fd < 0)
		return fail(path, strerrordesc_np(errno));
	for (;;) {
		ssize_t n = read(fd, buffer, block);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(path, strerrordesc_np(errno));
		if (n == 0)
			return 0;
		if (archive_write_data(p->out, buffer, (size_t)n) < 0)
			return fail(path, archive_error_string(p->out));
	}
}

static int pack_file(struct packer *p, const FTSENT *file)
{
	struct archive_entry *entry = archive_entry_new(), *none = NULL;
	const char *below = file->fts_path + strlen(p->root);
	own_str char *name = mem_printf("%s%s", p->name, below);
	int r = 0;

	archive_entry_copy_sourcepath(entry, file->fts_path);
	archive_entry_copy_pathname(entry, name);
	if (archive_read_disk_entry_from_file(p->disk, entry, -1, file->fts_statp) < ARCHIVE_WARN)
		r = fail(file->fts_path, archive_error_string(p->disk));
	archive_entry_unset_atime(entry);
	archive_entry_unset_ctime(entry);
	archive_entry_unset_birthtime(entry);
	if (!p->owners) {
		archive_entry_set_uid(entry, 0);
		archive_entry_set_gid(entry, 0);
	}
	archive_entry_linkify(p->links, &entry, &none);
	if (r == 0 && archive_write_header(p->out, entry) < ARCHIVE_WARN)
		r = fail(file->fts_path, archive_error_string(p->out));
	if (r == 0 && archive_entry_size(entry) > 0 && archive_entry_filetype(entry) == AE_IFREG)
		r = copy_content(p, file->fts_path);
	archive_entry_free(entry);
	return r;
}

static int pack_tree(struct packer *p, char *path)
{
	FTS *walk = fts_open((char *[]){ path, NULL }, FTS_PHYSICAL | FTS_NOCHDIR, compare);
	int r = walk ? 0 : fail(path, strerrordesc_np(errno));

	while (walk && r == 0) {
		errno = 0;
		FTSENT *file = fts_read(walk);
		if (!file) {
			r = errno ? fail(path, strerrordesc_np(errno)) : 0;
			break;
		}
		if (file->fts_info == FTS_DNR || file->fts_info == FTS_ERR || file->fts_info == FTS_NS)
			r = fail(file->fts_path, strerrordesc_np(file->fts_errno));
		else if (file->fts_info != FTS_DP && S_ISSOCK(file->fts_statp->st_mode))
			p->sockets++;
		else if (file->fts_info != FTS_DP)
			r = pack_file(p, file);
	}
	if (walk)
		(void)fts_close(walk);
	return r;
}

static int pack(char *path, const char *name, bool owners)
{
	struct packer p = { .disk = archive_read_disk_new(), .out = archive_write_new(),
			    .links = archive_entry_linkresolver_new(), .root = path, .name = name, .owners = owners };

	while (strlen(path) > 1 && str_ends(path, "/"))
		path[strlen(path) - 1] = '\0';
	(void)archive_read_disk_set_symlink_physical(p.disk);
	(void)archive_read_disk_set_behavior(p.disk, ARCHIVE_READDISK_NO_FFLAGS);
	(void)archive_write_set_format_pax_restricted(p.out);
	(void)archive_write_set_bytes_per_block(p.out, 65536);
	(void)archive_write_set_bytes_in_last_block(p.out, 512);
	archive_entry_linkresolver_set_strategy(p.links, ARCHIVE_FORMAT_TAR_PAX_RESTRICTED);
	int r = archive_write_open_fd(p.out, STDOUT_FILENO) == ARCHIVE_OK ? pack_tree(&p, path) :
									    fail("output", archive_error_string(p.out));
	if (r == 0 && archive_write_close(p.out) != ARCHIVE_OK)
		r = fail("output", archive_error_string(p.out));
	if (r == 0 && p.sockets)
		(void)fprintf(stderr, "W: %lu %s left out: a tar has no form for sockets, and programs make them anew\n",
			      p.sockets, p.sockets == 1 ? "socket was" : "sockets were");
	archive_entry_linkresolver_free(p.links);
	(void)archive_write_free(p.out);
	(void)archive_read_free(p.disk);
	return r;
}

/* --- unpack --- */

/* The new name, or NULL when `path` is not below `from`. The caller frees. */
static char *rename_path(const char *path, const char *from, const char *to)
{
	while (str_starts(path, "./"))
		path += 2;
	size_t n = strlen(from);
	if (str_eq(from, "."))
		return mem_printf("%s/%s", to, path);
	if (strncmp(path, from, n) != 0 || (path[n] != '/' && path[n] != '\0'))
		return NULL;
	return mem_printf("%s%s", to, path + n);
}

static int copy_blocks(struct archive *in, struct archive *out)
{
	const void *block;
	size_t size;
	la_int64_t offset;

	for (;;) {
		int r = archive_read_data_block(in, &block, &size, &offset);
		if (r == ARCHIVE_EOF)
			return 0;
		if (r < ARCHIVE_WARN)
			return fail("archive", archive_error_string(in));
		if (archive_write_data_block(out, block, size, offset) < ARCHIVE_WARN)
			return fail("write", archive_error_string(out));
	}
}

static int unpack_entry(struct archive *in, struct archive *out, struct archive_entry *entry, const char *from, const char *to)
{
	own_str char *name = rename_path(archive_entry_pathname(entry), from, to);
	const char *hard_link = archive_entry_hardlink(entry);
	own_str char *target = hard_link ? rename_path(hard_link, from, to) : NULL;

	if (!name || (hard_link && !target))
		return fail(archive_entry_pathname(entry), "is not part of what was asked for");
	if (archive_entry_filetype(entry) == AE_IFCHR || archive_entry_filetype(entry) == AE_IFBLK) {
		(void)fprintf(stderr, "%s: a device node is left out\n", name);
		return 0;
	}
	archive_entry_copy_pathname(entry, name);
	if (hard_link)
		archive_entry_copy_hardlink(entry, target);
	if (archive_write_header(out, entry) < ARCHIVE_WARN)
		return fail(name, archive_error_string(out));
	int r = archive_entry_size(entry) > 0 ? copy_blocks(in, out) : 0;
	if (r == 0 && archive_write_finish_entry(out) < ARCHIVE_WARN)
		r = fail(name, archive_error_string(out));
	return r;
}

static int unpack_all(struct archive *in, struct archive *out, const char *from, const char *to)
{
	struct archive_entry *entry;

	for (;;) {
		int r = archive_read_next_header(in, &entry);
		if (r == ARCHIVE_EOF)
			return archive_write_close(out) < ARCHIVE_WARN ? fail("write", archive_error_string(out)) : 0;
		if (r < ARCHIVE_WARN)
			return fail("archive", archive_error_string(in));
		if (unpack_entry(in, out, entry, from, to) != 0)
			return 1;
	}
}

static int unpack(const char *folder, const char *from, const char *to, bool owners)
{
	int flags = ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_SECURE_SYMLINKS |
		    ARCHIVE_EXTRACT_SECURE_NODOTDOT | ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS | ARCHIVE_EXTRACT_UNLINK;
	struct archive *in = archive_read_new(), *out = archive_write_disk_new();

	if (owners)
		flags |= ARCHIVE_EXTRACT_OWNER | ARCHIVE_EXTRACT_XATTR | ARCHIVE_EXTRACT_ACL;
	if (chdir(folder) < 0)
		return fail(folder, strerrordesc_np(errno));
	(void)archive_read_support_format_tar(in);
	(void)archive_write_disk_set_options(out, flags);
	int r = archive_read_open_fd(in, STDIN_FILENO, 65536) == ARCHIVE_OK ? unpack_all(in, out, from, to) :
									      fail("input", archive_error_string(in));
	(void)archive_read_free(in);
	(void)archive_write_free(out);
	return r;
}

/* --- look --- */

/* Its end may be missing: what comes out before is what counts. */
static int look(void)
{
	struct archive *in = archive_read_new();
	struct archive_entry *entry;
	char head[LOOK_BYTES] = { 0 };
	la_ssize_t n = -1;

	(void)archive_read_support_filter_all(in);
	(void)archive_read_support_format_raw(in);
	if (archive_read_open_fd(in, STDIN_FILENO, 65536) == ARCHIVE_OK && archive_read_next_header(in, &entry) == ARCHIVE_OK)
		n = archive_read_data(in, head, sizeof head);
	(void)archive_read_free(in);
	return n > 0 && fwrite(head, 1, (size_t)n, stdout) == (size_t)n && fflush(stdout) == 0 ? 0 : 1;
}

int main(int count, char **words)
{
	bool owners = count > 1 && str_eq(words[count - 1], "owners");
	int operands = count - owners;

	if (operands == 2 && str_eq(words[1], "look"))
		return look();
	if (operands == 4 && str_eq(words[1], "pack"))
		return pack(words[2], words[3], owners);
	if (operands == 5 && str_eq(words[1], "unpack"))
		return unpack(words[2], words[3], words[4], owners);
	return fail("carrel-tar", "look | pack PATH NAME [owners] | unpack FOLDER FROM TO [owners]");
}
