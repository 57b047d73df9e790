/* SPDX-License-Identifier: Apache-2.0 */
/* What a clone's programs are told, in a folder in the place of a workspace's root. */
#include "../test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/own.h"
#include "base/str.h"
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

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(a_clone_learns_its_number_and_says_who_wants_to_be_called) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
