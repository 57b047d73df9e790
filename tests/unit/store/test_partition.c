/* SPDX-License-Identifier: Apache-2.0 */
/* Partitions end to end in one process: writer, strict reader, tar and back; and archives that mean harm. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/erofs_format.h"
#include "store/erofs_reader.h"
#include "store/erofs_rewrite.h"
#include "store/erofs_writer.h"
#include "store/tar_export.h"
#include "store/tar_reader.h"
#include "store/tar_writer.h"
#include "../test.h"
#include "erofs_check.h"

static int memory(void)
{
	int fd = memfd_create("partition", MFD_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static int to_file(void *data, const void *bytes, size_t length, struct err *e)
{
	return fs_write_all(*(int *)data, bytes, length, e);
}

/* tar -> partition; the error of the call. */
static int convert(int tar, const struct tar_limits *plain, const struct erofs_limits *limits, int image, struct err *e)
{
	struct tar_summary summary;
	uint64_t bytes, inodes;

	assert_int_equal(lseek(tar, 0, SEEK_SET), 0);
	own_erofs_writer struct erofs_writer *w = erofs_writer_new(image, 0, limits);
	int r = tar_read(tar, plain, w, &summary, e);
	return r == 0 ? erofs_finish(w, &bytes, &inodes, e) : r;
}

static struct digest digest_of(int fd)
{
	struct err e;
	struct digest d;
	assert_ok(hash_fd(fd, &d, &e), &e);
	return d;
}

static void check(int image)
{
	struct err e;
	struct erofs_counts counts;
	own_erofs_reader struct erofs_reader *r = NULL;

	assert_ok(erofs_open(image, &r, &e), &e);
	assert_ok(erofs_check(r, &counts, &e), &e);
}

static void export_to(int image, int tar)
{
	struct err e;
	own_erofs_reader struct erofs_reader *r = NULL;
	struct tar_writer w = { to_file, &tar };

	assert_ok(erofs_open(image, &r, &e), &e);
	assert_ok(tar_export(&r, 1, false, &w, &e), &e);
}

/* partition -> tar -> partition gives the same bytes; a second tar too. */
static void round_trip(int image)
{
	struct err e;
	own_fd int tar = memory(), again = memory(), tar_again = memory();

	check(image);
	export_to(image, tar);
	assert_ok(convert(tar, &tar_default_limits, &erofs_default_limits, again, &e), &e);
	check(again);
	export_to(again, tar_again);
	struct digest a = digest_of(tar), b = digest_of(tar_again);
	assert_true(digest_eq(&a, &b));
	a = digest_of(image);
	b = digest_of(again);
	assert_true(digest_eq(&a, &b));
}

/* --- a tree from a seed --- */

struct random {
	uint64_t state;
	char last[1024]; /* the file that a hard link may name */
};

/* splitmix64 (Steele, Lea, Flood) */
static uint64_t draw(struct random *r, uint64_t most)
{
	uint64_t z = r->state += UINT64_C(0x9E3779B97F4A7C15);
	z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
	return (z ^ z >> 31) % (most + 1);
}

static void draw_path(struct random *r, char *out, size_t size)
{
	static const char *const parts[] = { "a", "b", "etc", "\xff\xfe", "\xc3\xa9", "x y", "-", "...", "usr", "lib" };
	size_t length = 0;

	for (uint64_t depth = draw(r, 3); depth > 0; depth--)
		length += (size_t)snprintf(out + length, size - length, "%s/", parts[draw(r, 4)]);
	(void)snprintf(out + length, size - length, "%s%llu", parts[5 + draw(r, 4)], (unsigned long long)draw(r, 1000000000));
	if (draw(r, 15) == 0) {
		length = strlen(out);
		size_t more = draw(r, 150);
		memset(out + length, 'n', more);
		out[length + more] = '\0';
	}
}

static void add_file(struct random *r, struct erofs_writer *w, const char *path, const struct erofs_attributes *a)
{
	static char bytes[70000];
	struct err e;
	uint64_t size = draw(r, 3) ? draw(r, 5000) : draw(r, sizeof bytes);

	for (size_t i = 0; i < size; i++)
		bytes[i] = (char)('a' + (i + size) % 26);
	assert_ok(erofs_begin_file(w, path, a, size, false, &e), &e);
	if (size)
		assert_ok(erofs_add_data(w, 0, bytes, size, &e), &e);
	assert_ok(erofs_end_file(w, &e), &e);
}

static void add_sparse(struct random *r, struct erofs_writer *w, const char *path, const struct erofs_attributes *a)
{
	char bytes[5000];
	struct err e;
	uint64_t size = draw(r, UINT64_C(6) << 30), at = 0;

	memset(bytes, 's', sizeof bytes);
	assert_ok(erofs_begin_file(w, path, a, size, true, &e), &e);
	for (int i = 0; i < 4 && at < size; i++, at += draw(r, 1 << 30)) {
		size_t n = size - at < sizeof bytes ? (size_t)(size - at) : sizeof bytes;
		assert_ok(erofs_add_data(w, at, bytes, n, &e), &e);
		at += n;
	}
	assert_ok(erofs_end_file(w, &e), &e);
}

static void add_random(struct random *r, struct erofs_writer *w)
{
	static const struct erofs_xattr xattrs[] = { { "security.capability", "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20 },
						     { "user.empty", "", 0 }, { "user.note", "a=b\nc", 5 } };
	struct err e;
	char path[1024];
	draw_path(r, path, sizeof path);
	struct erofs_attributes a = { .mode = 0100000 | (uint32_t)draw(r, 07777),
				      .uid = draw(r, 3) ? 0 : (uint32_t)draw(r, UINT32_MAX - 1),
				      .gid = (uint32_t)draw(r, 70000), .mtime = (int64_t)draw(r, 4000000000) - 1000000,
				      .mtime_nsec = draw(r, 1) ? (uint32_t)draw(r, 999999999) : 0, .xattrs = xattrs,
				      .xattr_count = draw(r, 3) ? 0 : draw(r, 3) };
	uint64_t kind = draw(r, 19);

	if (kind < 10)
		add_file(r, w, path, &a);
	else if (kind == 10)
		add_sparse(r, w, path, &a);
	else if (kind == 11 && r->last[0])
		assert_ok(erofs_add_hard_link(w, path, r->last, &e), &e);
	else if (kind == 12)
		assert_ok(erofs_add_whiteout(w, path, &e), &e);
	else if (kind == 13) {
		a.mode = S_IFIFO | 0600;
		assert_ok(erofs_add_special(w, path, &a, &e), &e);
	} else if (kind == 14) {
		a.mode = S_IFBLK | 0600;
		a.major = 8;
		a.minor = 300;
		assert_ok(erofs_add_special(w, path, &a, &e), &e);
	} else if (kind == 15) {
		a.mode = S_IFLNK | 0777;
		assert_ok(erofs_add_symlink(w, path, &a, "../\xff somewhere/else", &e), &e);
	} else if (kind < 19) {
		a.mode = S_IFDIR | (a.mode & 07777);
		assert_ok(erofs_add_directory(w, path, &a, &e), &e);
		if (kind == 18)
			assert_ok(erofs_set_opaque(w, path, &e), &e);
	}
	if (kind < 10)
		memcpy(r->last, path, sizeof r->last);
}

static void random_trees(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 12; seed++) {
		struct random r = { seed };
		struct err e;
		uint64_t bytes, inodes;
		own_fd int image = memory();
		own_erofs_writer struct erofs_writer *w = erofs_writer_new(image, 0, &erofs_default_limits);

		for (int i = 0; i < 400; i++)
			add_random(&r, w);
		assert_ok(erofs_finish(w, &bytes, &inodes, &e), &e);
		round_trip(image);
	}
}

/* --- archives that mean harm --- */

static void put(int tar, const char *path, const char *link, const char *hard_link, uint32_t mode, const char *content)
{
	struct err e;
	struct tar_writer w = { to_file, &tar };
	struct erofs_inode inode = { .mode = mode, .size_bytes = content ? strlen(content) : 0 };
	const struct tar_entry entry = { .path = path, .link = link, .hard_link = hard_link, .inode = &inode };

	assert_ok(tar_header(&w, &entry, &e), &e);
	if (content) {
		assert_ok(tar_data(&w, content, strlen(content), &e), &e);
		assert_ok(tar_pad(&w, strlen(content), &e), &e);
	}
}

static void refused(int tar, enum err_kind kind, const char *part)
{
	struct err e;
	own_fd int image = memory();
	const struct erofs_limits limits = { .entries = 1000, .image_bytes = 1 << 20 };
	const struct tar_limits plain = { .plain_bytes = 8 << 20 };

	assert_fails(convert(tar, &plain, &limits, image, &e), &e, kind, part);
	assert_int_equal(ftruncate(tar, 0), 0);
	assert_int_equal(lseek(tar, 0, SEEK_SET), 0);
}

static void names_that_leave(void **state)
{
	own_fd int tar = memory();

	(void)state;
	put(tar, "a/../../etc/passwd", NULL, NULL, S_IFREG | 0644, "x");
	refused(tar, ERR_CORRUPT, "..");
	put(tar, "..", NULL, NULL, S_IFDIR | 0755, NULL);
	refused(tar, ERR_CORRUPT, "..");
	put(tar, "f", NULL, "../../etc/shadow", S_IFREG | 0644, NULL);
	refused(tar, ERR_CORRUPT, "");
	put(tar, "f", NULL, "missing", S_IFREG | 0644, NULL);
	refused(tar, ERR_CORRUPT, "");
	put(tar, "s", "/etc", NULL, S_IFLNK | 0777, NULL);
	put(tar, "s/passwd", NULL, NULL, S_IFREG | 0644, "x");
	refused(tar, ERR_CORRUPT, "no directory");
}

static void absolute_names_lose_the_slash(void **state)
{
	struct err e;
	struct erofs_inode inode;
	own_fd int tar = memory(), image = memory();
	own_erofs_reader struct erofs_reader *r = NULL;

	(void)state;
	put(tar, "/etc/hosts", NULL, NULL, S_IFREG | 0644, "127.0.0.1");
	assert_ok(convert(tar, &tar_default_limits, &erofs_default_limits, image, &e), &e);
	assert_ok(erofs_open(image, &r, &e), &e);
	assert_ok(erofs_find(r, "/etc/hosts", &inode, &e), &e);
	char content[9];
	assert_ok(erofs_read(r, &inode, 0, content, sizeof content, &e), &e);
	assert_memory_equal(content, "127.0.0.1", 9);
	assert_fails(erofs_find(r, "etc/passwd", &inode, &e), &e, ERR_NOT_FOUND, "etc/passwd");
	assert_fails(erofs_find(r, "etc/hosts/x", &inode, &e), &e, ERR_NOT_FOUND, "etc/hosts/x");
}

static void bombs(void **state)
{
	struct err e;
	own_fd int tar = memory();
	own_strbuf struct str deep = { 0 };
	char name[32];

	(void)state;
	for (int i = 0; i < 1100; i++) {
		(void)snprintf(name, sizeof name, "f%d", i);
		put(tar, name, NULL, NULL, S_IFREG | 0644, NULL);
	}
	refused(tar, ERR_TOO_LARGE, "entries");
	for (int i = 0; i < 300; i++)
		str_puts(&deep, "d/");
	put(tar, str_text(&deep), NULL, NULL, S_IFDIR | 0755, NULL);
	refused(tar, ERR_CORRUPT, "deep");
	own_str char *big = mem_alloc((2 << 20) + 1);
	memset(big, 'b', 2 << 20);
	put(tar, "big", NULL, NULL, S_IFREG | 0644, big);
	refused(tar, ERR_TOO_LARGE, "more than");
	memset(big, 'n', 300);
	big[300] = '\0';
	put(tar, big, NULL, NULL, S_IFREG | 0644, NULL);
	refused(tar, ERR_CORRUPT, "255");
	assert_int_equal(ftruncate(tar, 100 << 20), 0);
	assert_int_equal(lseek(tar, 0, SEEK_SET), 0);
	put(tar, "first", NULL, NULL, S_IFREG | 0644, NULL);
	refused(tar, ERR_TOO_LARGE, "more than");
	err_clear(&e);
}

static void damaged(void **state)
{
	own_fd int tar = memory();
	char byte = 'X';

	(void)state;
	put(tar, "file", NULL, NULL, S_IFREG | 0644, "content");
	assert_int_equal(pwrite(tar, &byte, 1, 10), 1); /* the checksum does not fit any more */
	refused(tar, ERR_CORRUPT, "");
	put(tar, "file", NULL, NULL, S_IFREG | 0644, "content");
	assert_int_equal(ftruncate(tar, 515), 0);
	refused(tar, ERR_CORRUPT, "");
	refused(tar, ERR_CORRUPT, "empty");
	put(tar, ".wh...", NULL, NULL, S_IFREG | 0644, NULL);
	refused(tar, ERR_CORRUPT, "hides nothing");
}

static void later_entries_count(void **state)
{
	struct err e;
	struct erofs_inode inode;
	own_fd int tar = memory(), image = memory();
	own_erofs_reader struct erofs_reader *r = NULL;

	(void)state;
	put(tar, "a", NULL, NULL, S_IFREG | 0644, "old");
	put(tar, "hard", NULL, "a", S_IFREG | 0644, NULL);
	put(tar, "a", NULL, NULL, S_IFREG | 0600, "newer");
	put(tar, "d/x", NULL, NULL, S_IFREG | 0600, "1");
	put(tar, "d", NULL, NULL, S_IFDIR | 0711, NULL);
	assert_ok(convert(tar, &tar_default_limits, &erofs_default_limits, image, &e), &e);
	check(image);
	assert_ok(erofs_open(image, &r, &e), &e);
	assert_ok(erofs_find(r, "a", &inode, &e), &e);
	assert_int_equal(inode.size_bytes, 5);
	assert_ok(erofs_find(r, "hard", &inode, &e), &e);
	assert_int_equal(inode.size_bytes, 3);
	assert_int_equal(inode.links, 1);
	assert_ok(erofs_find(r, "d", &inode, &e), &e);
	assert_int_equal(inode.mode, S_IFDIR | 0711);
	assert_ok(erofs_find(r, "d/x", &inode, &e), &e);
}

/* What was replaced leaves gaps, so the image is written once more; then it is the one that its own tar gives. */
static void rewritten(void **state)
{
	struct err e;
	uint64_t bytes, inodes;
	struct tar_summary summary;
	own_fd int tar = memory(), image = memory();
	own_str char *big = mem_alloc(100001);
	int pair[2];

	(void)state;
	memset(big, 'b', 100000);
	put(tar, "d/a", NULL, NULL, S_IFREG | 0644, big);
	put(tar, "d/a", NULL, NULL, S_IFREG | 0644, "small");
	put(tar, "d/b", NULL, "d/a", S_IFREG | 0644, NULL);
	assert_int_equal(lseek(tar, 0, SEEK_SET), 0);
	own_erofs_writer struct erofs_writer *w = erofs_writer_new(image, 0, &erofs_default_limits);
	assert_ok(tar_read(tar, &tar_default_limits, w, &summary, &e), &e);
	assert_ok(erofs_finish(w, &bytes, &inodes, &e), &e);
	assert_true(erofs_writer_replaced(w));
	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	assert_ok(erofs_rewrite(image, pair, &bytes, &inodes, &e), &e);
	assert_int_equal(inodes, 3);
	assert_int_equal(lseek(image, 0, SEEK_END), (off_t)bytes);
	assert_true(bytes < 20000);
	round_trip(image);
}

/* --- a damaged image is noticed or read as something, never believed beyond its end --- */

static void damaged_images(void **state)
{
	struct random r = { 99 };
	struct err e;
	uint64_t bytes, inodes;
	own_fd int image = memory();
	own_erofs_writer struct erofs_writer *w = erofs_writer_new(image, 0, &erofs_default_limits);

	(void)state;
	for (int i = 0; i < 60; i++)
		add_random(&r, w);
	assert_ok(erofs_finish(w, &bytes, &inodes, &e), &e);
	for (int round = 0; round < 3000; round++) {
		struct erofs_counts counts;
		own_erofs_reader struct erofs_reader *reader = NULL;
		uint8_t old, new = (uint8_t)draw(&r, 255);
		off_t at = (off_t)(EROFS_SB_AT + draw(&r, bytes - EROFS_SB_AT - 1));
		assert_int_equal(pread(image, &old, 1, at), 1);
		assert_int_equal(pwrite(image, &new, 1, at), 1);
		if (erofs_open(image, &reader, &e) == 0 && erofs_check(reader, &counts, &e) < 0)
			assert_true(e.kind == ERR_CORRUPT || e.kind == ERR_TOO_LARGE);
		assert_int_equal(pwrite(image, &old, 1, at), 1);
	}
	check(image);
}

static void merged_stacks(void **state)
{
	struct err e;
	own_fd int lower_tar = memory(), upper_tar = memory(), lower = memory(), upper = memory(), merged = memory(),
		   result = memory();
	own_erofs_reader struct erofs_reader *below = NULL, *above = NULL, *r = NULL;
	struct erofs_inode inode;

	(void)state;
	put(lower_tar, "etc/a", NULL, NULL, S_IFREG | 0644, "low");
	put(lower_tar, "etc/b", NULL, NULL, S_IFREG | 0644, "low");
	put(lower_tar, "var/old", NULL, NULL, S_IFREG | 0644, "low");
	put(lower_tar, "gone/x", NULL, NULL, S_IFREG | 0644, "low");
	put(upper_tar, "etc/a", NULL, NULL, S_IFREG | 0644, "upper");
	put(upper_tar, "var/.wh..wh..opq", NULL, NULL, S_IFREG | 0644, NULL);
	put(upper_tar, "var/new", NULL, NULL, S_IFREG | 0644, NULL);
	put(upper_tar, ".wh.gone", NULL, NULL, S_IFREG | 0644, NULL);
	assert_ok(convert(lower_tar, &tar_default_limits, &erofs_default_limits, lower, &e), &e);
	assert_ok(convert(upper_tar, &tar_default_limits, &erofs_default_limits, upper, &e), &e);
	round_trip(lower);
	round_trip(upper);
	assert_ok(erofs_open(lower, &below, &e), &e);
	assert_ok(erofs_open(upper, &above, &e), &e);
	struct erofs_reader *const stack[] = { below, above };
	struct tar_writer w = { to_file, &merged };
	assert_ok(tar_export(stack, 2, true, &w, &e), &e);
	assert_ok(convert(merged, &tar_default_limits, &erofs_default_limits, result, &e), &e);
	assert_ok(erofs_open(result, &r, &e), &e);
	assert_ok(erofs_find(r, "etc/a", &inode, &e), &e);
	assert_int_equal(inode.size_bytes, 5);
	assert_ok(erofs_find(r, "etc/b", &inode, &e), &e);
	assert_ok(erofs_find(r, "var/new", &inode, &e), &e);
	assert_fails(erofs_find(r, "var/old", &inode, &e), &e, ERR_NOT_FOUND, "var/old");
	assert_fails(erofs_find(r, "gone", &inode, &e), &e, ERR_NOT_FOUND, "gone");
}

/* Layers of some tools hide a directory and bring files below it without an entry for itself, in either order. */
static void hidden_directory_without_an_entry(void **state)
{
	(void)state;
	static const char *const orders[][3] = { { ".wh.d", "d/sub/x", NULL }, { "d/sub/x", ".wh.d", NULL } };
	struct err e;

	for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
		own_fd int lower_tar = memory(), upper_tar = memory(), lower = memory(), upper = memory();
		own_fd int merged = memory(), result = memory();
		own_erofs_reader struct erofs_reader *below = NULL, *above = NULL, *r = NULL;
		struct erofs_inode inode;
		put(lower_tar, "d/old", NULL, NULL, S_IFREG | 0644, "low");
		put(lower_tar, "d/sub/old", NULL, NULL, S_IFREG | 0644, "low");
		for (const char *const *name = orders[i]; *name; name++)
			put(upper_tar, *name, NULL, NULL, S_IFREG | 0644, (*name)[0] == '.' ? NULL : "new");
		assert_ok(convert(lower_tar, &tar_default_limits, &erofs_default_limits, lower, &e), &e);
		assert_ok(convert(upper_tar, &tar_default_limits, &erofs_default_limits, upper, &e), &e);
		assert_ok(erofs_open(lower, &below, &e), &e);
		assert_ok(erofs_open(upper, &above, &e), &e);
		assert_ok(erofs_find(above, "d", &inode, &e), &e);
		assert_int_equal(inode.mode, S_IFDIR | 0755);
		assert_int_equal(inode.uid, 0);
		struct erofs_reader *const stack[] = { below, above };
		struct tar_writer w = { to_file, &merged };
		assert_ok(tar_export(stack, 2, true, &w, &e), &e);
		assert_ok(convert(merged, &tar_default_limits, &erofs_default_limits, result, &e), &e);
		assert_ok(erofs_open(result, &r, &e), &e);
		assert_ok(erofs_find(r, "d/sub/x", &inode, &e), &e);
		assert_fails(erofs_find(r, "d/old", &inode, &e), &e, ERR_NOT_FOUND, "d/old");
		assert_fails(erofs_find(r, "d/sub/old", &inode, &e), &e, ERR_NOT_FOUND, "d/sub/old");
	}
}

/* A tar has no form for a socket: it is left out, and counted. */
static void sockets_are_counted(void **state)
{
	(void)state;
	struct err e;
	const struct erofs_attributes a = { .mode = S_IFSOCK | 0600 };
	own_fd int image = memory(), tar = memory();
	own_erofs_writer struct erofs_writer *writer = erofs_writer_new(image, 0, &erofs_default_limits);
	own_erofs_reader struct erofs_reader *r = NULL;
	struct tar_writer w = { to_file, &tar };
	uint64_t bytes, inodes;

	assert_ok(erofs_add_special(writer, "run/one", &a, &e), &e);
	assert_ok(erofs_add_special(writer, "run/two", &a, &e), &e);
	assert_ok(erofs_finish(writer, &bytes, &inodes, &e), &e);
	assert_ok(erofs_open(image, &r, &e), &e);
	assert_ok(tar_export(&r, 1, false, &w, &e), &e);
	assert_int_equal(w.sockets, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_trees),
		cmocka_unit_test(names_that_leave),
		cmocka_unit_test(absolute_names_lose_the_slash),
		cmocka_unit_test(bombs),
		cmocka_unit_test(damaged),
		cmocka_unit_test(later_entries_count),
		cmocka_unit_test(rewritten),
		cmocka_unit_test(damaged_images),
		cmocka_unit_test(merged_stacks),
		cmocka_unit_test(hidden_directory_without_an_entry),
		cmocka_unit_test(sockets_are_counted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
