/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine wrote for the host to read: files come over whole, and nothing else comes at all. */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "node/luggage.h"

#define MIB (1u << 20)

static struct err e;

struct place {
	char folder[32];
	int top, written, taken; /* the luggage, its folder of files, and the host's */
};

static void make(struct place *p)
{
	*p = (struct place){ .folder = "/tmp/carrel-luggage-XXXXXX" };
	assert_non_null(mkdtemp(p->folder));
	own_fd int base = open(p->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(base, "top", 0700) | mkdirat(base, "taken", 0700), 0);
	p->top = openat(base, "top", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	p->taken = openat(base, "taken", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(p->top, "memory", 0700), 0);
	p->written = openat(p->top, "memory", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(p->top >= 0 && p->taken >= 0 && p->written >= 0);
}

static void end(struct place *p)
{
	(void)close(p->top);
	(void)close(p->written);
	(void)close(p->taken);
	assert_ok(fs_remove_tree(AT_FDCWD, p->folder, &e), &e);
}

static void put(struct place *p, const char *name, const char *text)
{
	assert_ok(fs_write_file(p->written, name, text, strlen(text), 0600, false, &e), &e);
}

static void stretch(struct place *p, const char *name, off_t bytes)
{
	own_fd int fd = openat(p->written, name, O_WRONLY | O_CLOEXEC);

	assert_int_equal(ftruncate(fd, bytes), 0);
}

static int take(struct place *p, uint64_t most, struct memory_manifest *ret)
{
	*ret = (struct memory_manifest){ 0 };
	err_clear(&e);
	return luggage_take(p->top, p->taken, most, ret, &e);
}

static void test_files_come_over(void **state)
{
	struct memory_manifest m;
	struct place p;

	(void)state;
	make(&p);
	put(&p, "pages-1.img", "pages");
	put(&p, "core_7.img", "");
	put(&p, "criu.log", "what CRIU said");
	assert_ok(fs_write_file(p.taken, "core_7.img", "of a try before", 15, 0600, false, &e), &e);
	assert_ok(take(&p, MIB, &m), &e);
	assert_int_equal(m.files.count, 2);
	assert_false(fs_exists(p.taken, "criu.log"));
	for (size_t i = 0; i < 2; i++) {
		const struct memory_file *f = &((const struct memory_file *)m.files.items)[i];
		bool pages = str_eq(f->name, "pages-1.img");
		struct digest d = hash_bytes("pages", pages ? 5 : 0);
		char text[DIGEST_TEXT_SIZE];
		own_strbuf struct str read = { 0 };
		assert_true(pages || str_eq(f->name, "core_7.img"));
		assert_int_equal(f->length, pages ? 5 : 0);
		assert_string_equal(f->digest, digest_text(&d, text));
		assert_ok(fs_read_file(p.taken, f->name, MIB, &read, &e), &e);
		assert_string_equal(str_text(&read), pages ? "pages" : "");
	}
	memory_manifest_done(&m);
	end(&p);
}

/* The host's own names in that folder, and whatever could be read as more than a name. */
static void test_names(void **state)
{
	static const char *const wrong[] = { "manifest.json", "manifest.json.new", "ram", "state", "machine.json", ".hidden", "Upper",
					     "a b", "a\nb", "\303\274" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct memory_manifest m;
		struct place p;
		make(&p);
		put(&p, wrong[i], "x");
		assert_int_equal(take(&p, MIB, &m), -EBADMSG);
		assert_non_null(strstr(e.message, "strange name"));
		assert_false(fs_exists(p.taken, wrong[i]));
		memory_manifest_done(&m);
		end(&p);
	}
}

static void test_only_files(void **state)
{
	(void)state;
	for (int kind = 0; kind < 4; kind++) {
		struct memory_manifest m;
		struct place p;
		make(&p);
		put(&p, "kept", "x");
		switch (kind) {
		case 0:
			assert_int_equal(symlinkat("/etc/passwd", p.written, "link"), 0);
			break;
		case 1:
			assert_int_equal(symlinkat("kept", p.written, "link"), 0);
			break;
		case 2:
			assert_int_equal(mkfifoat(p.written, "link", 0600), 0);
			break;
		default:
			assert_int_equal(mkdirat(p.written, "link", 0700), 0);
		}
		assert_true(take(&p, MIB, &m) < 0);
		assert_false(fs_exists(p.taken, "link"));
		memory_manifest_done(&m);
		end(&p);
	}
}

static void test_the_folder_is_no_link(void **state)
{
	struct memory_manifest m;
	struct place p;

	(void)state;
	make(&p);
	assert_int_equal(renameat(p.top, "memory", p.top, "elsewhere"), 0);
	assert_int_equal(symlinkat("elsewhere", p.top, "memory"), 0);
	assert_true(take(&p, MIB, &m) < 0);
	memory_manifest_done(&m);
	end(&p);
}

/* Together no longer than the disk: a hole costs the guest nothing, and would cost the host. */
static void test_not_longer_than_the_disk(void **state)
{
	struct memory_manifest m;
	struct place p;

	(void)state;
	make(&p);
	put(&p, "a", "x");
	put(&p, "b", "x");
	stretch(&p, "a", MIB);
	assert_int_equal(take(&p, MIB, &m), -EBADMSG);
	memory_manifest_done(&m);
	assert_ok(take(&p, MIB + 1, &m), &e);
	assert_int_equal(m.files.count, 2);
	memory_manifest_done(&m);
	end(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files_come_over),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_only_files),
		cmocka_unit_test(test_the_folder_is_no_link),
		cmocka_unit_test(test_not_longer_than_the_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
