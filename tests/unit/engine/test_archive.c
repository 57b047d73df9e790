/* SPDX-License-Identifier: Apache-2.0 */
/* Copies as tar: what goes out comes in again as it was, others' archives are understood, and none leads out of the folder. */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"
#include "engine/workspace/archive.h"
#include "engine/workspace/tar.h"

static char folder[] = "/tmp/carrel-archive-XXXXXX";
static struct err e;

static int run(const char *script)
{
	own_str char *command = mem_printf("cd %s && { %s; }", folder, script);
	int r = proc_run((const char *const[]){ "sh", "-c", command, NULL }, 65536, NULL, &e);

	if (r < 0)
		print_message("%s\n", e.message);
	return r < 0;
}

static int set_up(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	return fs_remove_tree(AT_FDCWD, folder, &e);
}

/* In a child, since packing leaves it in another folder; its error comes back by a file. */
static int in_child(int (*copy)(const char *, int, struct err *), const char *path, const char *archive, int flags)
{
	own_str char *where = mem_printf("%s/%s", folder, path), *file = mem_printf("%s/%s", folder, archive),
		     *said = mem_printf("%s/said", folder);
	pid_t pid = fork();

	if (pid == 0) {
		int fd = open(file, flags, 0600), r = copy(where, fd, &e);
		if (r < 0) {
			own_file FILE *out = fopen(said, "w");
			(void)fprintf(out, "%c%s", 'A' + (int)e.kind, e.message);
		}
		_exit(r < 0);
	}
	int status = 0;
	assert_true(waitpid(pid, &status, 0) == pid);
	assert_true(WIFEXITED(status));
	if (!WEXITSTATUS(status))
		return 0;
	own_strbuf struct str text = { 0 };
	assert_ok(fs_read_file(AT_FDCWD, said, 4096, &text, &e), &e);
	return err_set(&e, (enum err_kind)(text.bytes[0] - 'A'), "%s", text.bytes + 1);
}

static int pack(const char *path, const char *archive)
{
	return in_child(archive_pack, path, archive, O_WRONLY | O_CREAT | O_TRUNC);
}
static int unpack(const char *archive, const char *path) { return in_child(archive_unpack, path, archive, O_RDONLY); }

#define MAKE_TREE                                                                                                              \
	"rm -rf a b c; mkdir -p a/t/d/e b c && cd a/t && echo one >f && chmod 4751 f && ln f d/again && ln -s ../f d/link && " \
	"ln d/link d/e/hard-link && "                                                                                          \
	"mkfifo d/fifo && touch -d '1969-03-01 00:00:00.25' d/old && touch -d @1700000000.123456789 d/e/new && touch "         \
	"'d/\303\244 \377' && "                                                                                                \
	"truncate -s 3M d/hole && printf end >>d/hole && truncate -s 10M d/ends-in-hole && printf x | dd of=d/ends-in-hole "   \
	"conv=notrunc 2>/dev/null && "                                                                                         \
	"truncate -s 1M d/empty-hole && n=$(printf 'n%.0s' $(seq 120)) && mkdir -p $n/$n && echo long >$n/$n/$n && ln -s "     \
	"/$n/$n d/long-link && "                                                                                               \
	"ln $n/$n/$n $n/$n/2$n && chown 12345:3000000 d/old && touch -d @1600000000 d && cd ../.."
#define COMPARE                                                                                                                \
	"(cd a && find . -printf '%p %y %m %U %G %n %l %Ts %s\\n' | sed '/ d /s/ [0-9]*$//' | sort) >a.list && (cd $OTHER && " \
	"find . -printf '%p %y %m %U %G %n %l %Ts %s\\n' | "                                                                   \
	"sed '/ d /s/ [0-9]*$//' | sort) >b.list && sed -i '/^\\. /d' a.list b.list && diff a.list b.list && diff -r "         \
	"--no-dereference -x fifo a $OTHER"

static void test_out_and_in(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(run(MAKE_TREE), 0);
	own_str char *file = mem_printf("%s/a/t/f", folder), *copy = mem_printf("%s/b/t/f", folder);
	bool xattrs = setxattr(file, "user.note", "a\n\0b", 4, 0) == 0;
	assert_ok(pack("a/t", "a.tar"), &e);
	assert_ok(unpack("a.tar", "b"), &e);
	assert_int_equal(run("OTHER=b; " COMPARE), 0);
	assert_int_equal(run("[ $(stat -c %b b/t/d/ends-in-hole) -lt 64 ] && [ $(stat -c %b b/t/d/empty-hole) -lt 64 ] && "
			     "[ $(stat -c %s a.tar) -lt 200000 ]"),
			 0);
	if (xattrs) {
		char value[8];
		assert_int_equal(getxattr(copy, "user.note", value, sizeof value), 4);
		assert_memory_equal(value, "a\n\0b", 4);
	}
	/* Once more over what is there, and what others make of it. */
	assert_ok(unpack("a.tar", "b"), &e);
	assert_int_equal(run("OTHER=b; " COMPARE), 0);
	assert_int_equal(run("tar --numeric-owner -xpf a.tar -C c && OTHER=c; " COMPARE), 0);
	assert_int_equal(run("rm -rf c && mkdir c && bsdtar --numeric-owner -xpf a.tar -C c 2>/dev/null || exit 0; [ $(cat "
			     "c/t/d/again) = one ]"),
			 0);
}

static void test_others_archives(void **state)
{
	(void)state;
	static const char *const forms[] = { "--format=gnu --sparse",
					     "--format=pax --sparse --sparse-version=0.0",
					     "--format=pax --sparse --sparse-version=0.1",
					     "--format=pax --sparse --sparse-version=1.0",
					     "--format=gnu",
					     "--format=pax" };

	if (geteuid() != 0)
		skip();
	assert_int_equal(run(MAKE_TREE), 0);
	assert_int_equal(run("cd a/t/d && for i in $(seq 60); do printf $i | dd of=many bs=1 seek=$((i * 200000)) conv=notrunc "
			     "2>/dev/null; done"),
			 0);
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		own_str char *script = mem_printf("rm -rf b && mkdir b && tar %s --numeric-owner -C a -cf b.tar t", forms[i]);
		assert_int_equal(run(script), 0);
		assert_ok(unpack("b.tar", "b"), &e);
		assert_int_equal(run("OTHER=b; " COMPARE), 0);
	}
	assert_int_equal(run("rm -rf a/t/n* a/t/d/long-link b && mkdir b && tar --format=v7 --exclude=fifo --exclude=old -C a "
			     "-cf b.tar t"),
			 0);
	assert_ok(unpack("b.tar", "b"), &e);
	assert_int_equal(run("[ $(cat b/t/d/again) = one ]"), 0);
}

static void test_nothing_leads_out(void **state)
{
	static const struct {
		const char *make, *why;
		enum err_kind kind;
	} rows[] = {
		{ "tar -P --transform s,^,/tmp/, -cf x.tar f", "absolute", ERR_DENIED },
		{ "tar -P --transform s,^,../, -cf x.tar f", "out of the folder", ERR_DENIED },
		{ "tar -P --transform s,^,a/../../, -cf x.tar f", "out of the folder", ERR_DENIED },
		{ "ln -sfn /etc l && tar -cf x.tar l && rm l && mkdir l && touch l/f && tar -rf x.tar l/f && rm -r l",
		  "symbolic link", ERR_INVALID },
		{ "ln -sfn . l && tar -cf x.tar l && tar -P --transform s,^,l/, -rf x.tar f && rm l", "symbolic link",
		  ERR_INVALID },
		{ "touch g && ln -f g h && tar -P --transform s,^g,../g,RSh -cf x.tar g h", "out of the folder", ERR_DENIED },
		{ "tar -cf x.tar f && truncate -s 700 x.tar && truncate -s 600 x.tar", "ends in the middle", ERR_INVALID },
		{ "yes | head -c 600 >x.tar", "no tar", ERR_INVALID },
		{ "head -c 20000 /dev/zero | tr '\\0' a >x.tar", "no tar", ERR_INVALID },
		{ ": >x.tar", "empty", ERR_INVALID },
		{ "mkdir -p in/f/g && tar -cf x.tar f", "replace", ERR_INVALID },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		own_str char *script = mem_printf("rm -rf in x.tar && mkdir in && echo content >f && %s", rows[i].make);
		assert_int_equal(run(script), 0);
		assert_fails(unpack("x.tar", "in"), &e, rows[i].kind, rows[i].why);
	}
	assert_int_equal(run("[ ! -e g2 ] && [ ! -e ../f ]"), 0);
}

static void test_what_is_in_the_way(void **state)
{
	(void)state;
	assert_int_equal(run("rm -rf in && mkdir -p s/d in/s/x in/s/f in/keep && echo new >s/f && echo new >s/l && echo new "
			     ">s/d/deep && ln -s keep in/s/l && "
			     "ln -s ../keep in/s/d && tar -cf x.tar s"),
			 0);
	assert_ok(unpack("x.tar", "in"), &e);
	assert_int_equal(run("[ -d in/s/x ] && [ $(cat in/s/f in/s/l in/s/d/deep | uniq) = new ] && [ ! -L in/s/l ] && [ ! -L "
			     "in/s/d ] && [ -z \"$(ls in/keep)\" ]"),
			 0);
	/* An archive without its folders, and without its end. */
	assert_int_equal(run("rm -rf in && mkdir in && tar -cf x.tar s/d/deep && truncate -s 1024 x.tar"), 0);
	assert_ok(unpack("x.tar", "in"), &e);
	assert_int_equal(run("[ $(stat -c %a in/s/d) = 755 ] && cmp s/d/deep in/s/d/deep"), 0);
	assert_fails(unpack("x.tar", "absent"), &e, ERR_NOT_FOUND, "absent");
	assert_fails(pack("absent", "x.tar"), &e, ERR_NOT_FOUND, "absent");
}

static void test_numbers_at_their_limits(void **state)
{
	struct tar_entry big = { .mode = S_IFREG | 0644,
				 .path = mem_strdup("big"),
				 .size = UINT64_C(9) << 30,
				 .sparse = true,
				 .uid = 4000000000,
				 .seconds = -5,
				 .nanoseconds = 250000000 };
	own_strbuf struct str out = { 0 };

	(void)state;
	tar_add_piece(&big, big.size, 0);
	tar_header(&big, &out);
	tar_entry_done(&big);
	assert_int_equal(out.length % TAR_BLOCK, 0);
	assert_int_equal(run("rm -rf in && mkdir in"), 0);
	own_str char *path = mem_printf("%s/x.tar", folder);
	own_fd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_ok(fs_write_all(fd, out.bytes, out.length, &e), &e);
	assert_ok(unpack("x.tar", "in"), &e);
	assert_int_equal(run("[ $(stat -c '%s %Y' in/big | tr ' ' _) = 9663676416_-5 ] && [ $(stat -c %b in/big) -lt 64 ]"), 0);
}

/* Headers without end, all about the same file. */
static void test_attributes_have_a_limit(void **state)
{
	struct tar_entry entry = { .mode = S_IFREG | 0644, .path = mem_strdup("f") };
	own_str char *value = mem_alloc(60000), *path = mem_printf("%s/x.tar", folder);
	own_strbuf struct str header = { 0 };

	(void)state;
	for (int i = 0; i < 10; i++)
		tar_add_xattr(&entry, "user.a", 6, value, 60000);
	tar_header(&entry, &header);
	tar_entry_done(&entry);
	own_fd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	for (int i = 0; i < 8; i++) /* all but the file's own header */
		assert_ok(fs_write_all(fd, header.bytes, header.length - TAR_BLOCK, &e), &e);
	assert_int_equal(run("rm -rf in && mkdir in"), 0);
	assert_fails(unpack("x.tar", "in"), &e, ERR_TOO_LARGE, "extended attributes");
}

/* A folder of the workspace's may have any name; only the root's are the kernel's. */
static void test_folders_that_are_called_as_the_kernels(void **state)
{
	(void)state;
	assert_int_equal(run("rm -rf a in && mkdir -p a/dev a/proc in && echo one >a/dev/f && echo two >a/proc/f"), 0);
	assert_ok(pack("a/.", "a.tar"), &e);
	assert_ok(unpack("a.tar", "in"), &e);
	assert_int_equal(run("[ $(cat in/dev/f in/proc/f | tr '\\n' _) = one_two_ ]"), 0);
}

static void test_a_link_to_itself(void **state)
{
	(void)state;
	assert_int_equal(run("rm -rf in && mkdir in && echo content >f && tar -cf x.tar ./f ./f"), 0);
	assert_ok(unpack("x.tar", "in"), &e);
	assert_int_equal(run("[ $(cat in/f) = content ]"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_out_and_in),
		cmocka_unit_test(test_others_archives),
		cmocka_unit_test(test_nothing_leads_out),
		cmocka_unit_test(test_what_is_in_the_way),
		cmocka_unit_test(test_numbers_at_their_limits),
		cmocka_unit_test(test_attributes_have_a_limit),
		cmocka_unit_test(test_folders_that_are_called_as_the_kernels),
		cmocka_unit_test(test_a_link_to_itself),
	};

	return cmocka_run_group_tests_name("engine/archive", tests, set_up, tear_down);
}
