/* SPDX-License-Identifier: Apache-2.0 */
/* What a clone's programs are told, in a folder in the place of a workspace's root. */
#include "../test.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/workspace/inside.h"
#include "guest/world.h"

static struct err e;

static enum guest_told tell(const struct world *w, uint64_t number)
{
	own_strbuf struct str text = { 0 };
	enum guest_told told = GUEST_UNTOLD;
	char line[24];

	assert_int_equal(world_tell_clone(w, number, &told, &e), 0);
	assert_int_equal(fs_read_file(w->root, "run/carrel/clone", 64, &text, &e), 0);
	(void)snprintf(line, sizeof line, "%llu\n", (unsigned long long)number);
	assert_string_equal(str_text(&text), line);
	return told;
}

static void a_clone_learns_its_number_and_says_who_wants_to_be_called(void **state)
{
	(void)state;
	char folder[] = "/tmp/carrel-world-XXXXXX";
	struct world w = { .root = -1 };

	assert_non_null(mkdtemp(folder));
	assert_int_equal(fs_open_dir(AT_FDCWD, folder, &w.root, &e), 0);
	assert_int_equal(tell(&w, 7), GUEST_TOLD);
	assert_int_equal(mkdirat(w.root, "etc", 0755), 0);
	assert_int_equal(mkdirat(w.root, "etc/carrel", 0755), 0);
	assert_int_equal(mkdirat(w.root, "etc/carrel/cloned.d", 0755), 0);
	assert_int_equal(tell(&w, 8), GUEST_TOLD);
	assert_int_equal(symlinkat("/bin/true", w.root, "etc/carrel/cloned.d/keys"), 0);
	assert_int_equal(tell(&w, 9), GUEST_HOOKS);

	/* a link is followed inside of the root */
	assert_int_equal(renameat(w.root, "etc/carrel/cloned.d", w.root, "hooks"), 0);
	assert_int_equal(symlinkat("/hooks", w.root, "etc/carrel/cloned.d"), 0);
	assert_int_equal(tell(&w, 10), GUEST_HOOKS);
	own_close(&w.root);
	assert_int_equal(fs_remove_tree(AT_FDCWD, folder, &e), 0);
}

static void put(struct tree *t, const char *text)
{
	const struct step s = { .kind = STEP_WRITE, .number = WRITE_ALWAYS, .source = "", .target = "/etc/hostname",
				.text = text };
	own_strbuf struct str now = { 0 };

	assert_int_equal(tree_step(t, &s, &e), 0);
	assert_int_equal(fs_read_file(t->root, "etc/hostname", 64, &now, &e), 0);
	assert_string_equal(str_text(&now), text);
}

static void a_file_of_ours_is_written_in_place(void **state)
{
	(void)state;
	static const struct plan none;
	char folder[] = "/tmp/carrel-world-XXXXXX";
	struct tree t = { .plan = &none, .root = -1, .terminal = -1, .terminal_peer = -1 };
	struct stat first, now;

	assert_non_null(mkdtemp(folder));
	assert_int_equal(fs_open_dir(AT_FDCWD, folder, &t.root, &e), 0);
	put(&t, "original\n");
	assert_int_equal(fstatat(t.root, "etc/hostname", &first, 0), 0);
	put(&t, "original-20\n");
	put(&t, "o-2\n");
	assert_int_equal(fstatat(t.root, "etc/hostname", &now, 0), 0);
	assert_int_equal(now.st_ino, first.st_ino);
	own_close(&t.root);
	assert_int_equal(fs_remove_tree(AT_FDCWD, folder, &e), 0);
}

static void in_memory(const struct world *w)
{
	struct statfs fs;
	own_fd int fd = openat(w->root, "run/carrel", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_int_equal(fstatfs(fd, &fs), 0);
	assert_int_equal(fs.f_type, TMPFS_MAGIC);
}

/* Twice: the second time it is there, as in a system, whose /run is in memory. */
static void the_original_has_a_folder_in_memory_for_clones(void **state)
{
	(void)state;
	char folder[] = "/var/tmp/carrel-world-XXXXXX";
	struct world w = { .root = -1 };

	if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0)
		skip();
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	assert_non_null(mkdtemp(folder));
	assert_int_equal(fs_open_dir(AT_FDCWD, folder, &w.root, &e), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(world_expect_clones(&w, &e), 0);
		in_memory(&w);
	}
	assert_int_equal(tell(&w, 3), GUEST_TOLD);
	own_str char *place = mem_printf("%s/run/carrel", folder);
	assert_int_equal(umount(place), 0);
	own_close(&w.root);
	assert_int_equal(fs_remove_tree(AT_FDCWD, folder, &e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_clone_learns_its_number_and_says_who_wants_to_be_called),
		cmocka_unit_test(a_file_of_ours_is_written_in_place),
		cmocka_unit_test(the_original_has_a_folder_in_memory_for_clones),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
