/* SPDX-License-Identifier: Apache-2.0 */
/* What templates take on disk, in a state folder of files that nothing was ever started from. */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "model/memory.h"
#include "node/template_private.h"

#define KIB 1024u

static struct err e;
static char state[] = "/tmp/carrel-room-XXXXXX";
static struct node n;

static void fill(int folder, const char *name, size_t bytes)
{
	own_str char *text = mem_alloc(bytes + 1);

	memset(text, 'x', bytes);
	assert_ok(fs_write_file(folder, name, text, bytes, 0600, false, &e), &e);
}

/* One whose name is 64 times `digit` but for the last one, and which was used at a time. */
static char *make(char digit, char last, size_t bytes, time_t used)
{
	char name[65] = { 0 };
	const struct timespec times[2] = { { .tv_sec = used }, { .tv_sec = used } };
	const struct memory_file ram = { .name = (char[]){ MEMORY_RAM }, .length = bytes };
	const struct memory_manifest m = { .format = MEMORY_FORMAT, .kind = MEMORY_QEMU, .engine = ENGINE_EMULATOR, .workspace = (char[]){ "0123456789abcdef" },
					   .architecture = (char[]){ "amd64" }, .program = (char[]){ "qemu-system-x86_64" }, .version = (char[]){ "7.2" },
					   .machine = (char[]){ "q35" }, .processor = (char[]){ "qemu64" }, .processors = 2,
					   .memory_bytes = UINT64_C(256) << 20, .files = { (void *)(uintptr_t)&ram, 1 } };
	struct memory_manifest again = { 0 };
	own_str char *manifest = memory_manifest_encode(&m);
	own_fd int folder = -1;

	assert_ok(memory_manifest_decode(manifest, strlen(manifest), "manifest", &again, &e), &e);
	memory_manifest_done(&again);
	memset(name, digit, 64);
	name[63] = last;
	own_str char *path = mem_printf("%s/node/templates/%s", state, name);
	assert_ok(fs_mkdirs(path, 0700, &e), &e);
	assert_ok(fs_open_dir(AT_FDCWD, path, &folder, &e), &e);
	fill(folder, MEMORY_RAM, bytes);
	fill(folder, MEMORY_STATE, 1);
	assert_ok(fs_write_file(folder, MEMORY_MANIFEST, manifest, strlen(manifest), 0600, false, &e), &e);
	assert_int_equal(utimensat(folder, MEMORY_MANIFEST, times, 0), 0);
	return mem_strdup(name);
}

static int begin(void **data)
{
	memcpy(state + strlen(state) - 6, "XXXXXX", 6);
	if (!mkdtemp(state))
		return -1;
	n = (struct node){ .config = { .state = state, .template_bytes = UINT64_C(1) << 30 } };
	*data = templates_new(&n);
	return 0;
}

static int end(void **data)
{
	templates_free(*data);
	return fs_remove_tree(AT_FDCWD, state, NULL);
}

static void the_ones_used_last_are_listed_first(void **data)
{
	struct templates *t = *data;
	own_str char *old = make('a', '0', KIB, 100), *young = make('b', '0', 64 * KIB, 300), *between = make('c', '0', KIB, 200);
	const char *const order[] = { young, between, old };
	json_t *items = templates_list(t);

	assert_int_equal(json_array_size(items), 3);
	for (size_t i = 0; i < 3; i++)
		assert_string_equal(json_string_value(json_object_get(json_array_get(items, i), "id")), order[i]);
	const json_t *first = json_array_get(items, 0);
	assert_string_equal(json_string_value(json_object_get(first, "used")), "1970-01-01T00:05:00.000Z");
	assert_string_equal(json_string_value(json_object_get(first, "engine")), "emulator");
	assert_int_equal(json_integer_value(json_object_get(first, "memory")), UINT64_C(256) << 20);
	assert_int_equal(json_integer_value(json_object_get(first, "processors")), 2);
	assert_in_range(json_integer_value(json_object_get(first, "size")), 64 * KIB, 128 * KIB);
	json_decref(items);
}

static void others_are_not_listed(void **data)
{
	struct templates *t = *data;
	own_str char *whole = make('a', '0', KIB, 100), *bad = make('b', '0', KIB, 100), *part = make('c', '0', KIB, 100);
	own_str char *manifest = mem_printf("%s/node/templates/%s/" MEMORY_MANIFEST, state, bad);
	own_str char *ram = mem_printf("%s/node/templates/%s/" MEMORY_RAM, state, part);
	own_str char *begun = mem_printf("%s/node/templates/%s" TEMPLATE_NEW, state, whole);

	assert_int_equal(truncate(manifest, 3), 0);
	assert_int_equal(unlink(ram), 0);
	assert_int_equal(mkdir(begun, 0700), 0);
	json_t *items = templates_list(t);
	assert_int_equal(json_array_size(items), 1);
	json_decref(items);
	templates_clean(t);
	assert_false(fs_exists(AT_FDCWD, begun));
	json_decref(templates_list(t));
}

static void one_goes_by_the_beginning_of_its_name(void **data)
{
	struct templates *t = *data;
	own_str char *one = make('a', '0', KIB, 100), *twin = make('a', '1', KIB, 100), *other = make('b', '0', KIB, 100);
	own_str char *path = mem_printf("%s/node/templates/%s", state, other);

	assert_int_equal(templates_drop(t, "bbb", &e), -ENOENT); /* too short to be meant */
	assert_int_equal(templates_drop(t, "", &e), -ENOENT);
	assert_int_equal(templates_drop(t, "../..", &e), -ENOENT);
	assert_int_equal(templates_drop(t, "ffff", &e), -ENOENT);
	assert_true(templates_drop(t, "aaaa", &e) < 0);
	assert_int_equal(e.kind, ERR_CONFLICT);
	assert_int_equal(templates_drop(t, "bbbb", &e), 0);
	assert_false(fs_exists(AT_FDCWD, path));
	assert_int_equal(templates_drop(t, one, &e), 0);
	assert_int_equal(templates_drop(t, "aaaa", &e), 0); /* it is the only one now */
	assert_int_equal(templates_drop(t, twin, &e), -ENOENT);
}

static void the_ones_used_least_make_room(void **data)
{
	struct templates *t = *data;
	own_str char *old = make('a', '0', 64 * KIB, 100), *young = make('b', '0', 64 * KIB, 300), *between = make('c', '0', 64 * KIB, 200);
	own_str char *kept = mem_printf("%s/node/templates/%s", state, young);

	n.config.template_bytes = 160 * KIB;
	templates_prune(t);
	assert_int_equal(templates_drop(t, old, &e), -ENOENT);
	assert_true(fs_exists(AT_FDCWD, kept));
	n.config.template_bytes = 100 * KIB;
	templates_prune(t);
	assert_int_equal(templates_drop(t, between, &e), -ENOENT);
	n.config.template_bytes = 0; /* switched off */
	templates_prune(t);
	assert_false(fs_exists(AT_FDCWD, kept));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_ones_used_last_are_listed_first, begin, end),
		cmocka_unit_test_setup_teardown(others_are_not_listed, begin, end),
		cmocka_unit_test_setup_teardown(one_goes_by_the_beginning_of_its_name, begin, end),
		cmocka_unit_test_setup_teardown(the_ones_used_least_make_room, begin, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
