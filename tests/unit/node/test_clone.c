/* SPDX-License-Identifier: Apache-2.0 */
/* What of a snapshot a clone takes, and when; the files of it are in a folder in the place of the agent's. */
#include "../test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "node/clone.h"
#include "node/suspend_machine.h"

#define ORIGINAL "0123456789abcdef"
#define SNAPSHOT "fedcba9876543210"

static struct err e;
static char folder[] = "/tmp/carrel-clone-XXXXXX";
static struct node n = { .workspaces = folder };

static struct record *make(const char *of, const char *snapshot, bool memory)
{
	struct record *r = record_new(folder, "00000000000000aa");

	r->wish.origin = mem_alloc(sizeof *r->wish.origin);
	*r->wish.origin = (struct assignment_origin){ .workspace = mem_strdup(of), .snapshot = mem_strdup(snapshot), .number = 2, .memory = memory };
	r->wish.run = 3;
	return r;
}

static void it_waits_for_its_memory_until_it_has_begun(void **state)
{
	(void)state;
	struct record *r = make(ORIGINAL, SNAPSHOT, true);

	assert_true(clone_waits(r));
	r->truth.report->state = STATE_PREPARED;
	assert_true(clone_waits(r));
	r->truth.report->state = STATE_STARTING;
	assert_false(clone_waits(r));
	r->truth.report->state = STATE_STOPPED;
	r->truth.report->run = 1;
	assert_false(clone_waits(r));
	r->truth.report->state = STATE_PREPARED;
	r->truth.report->run = 0;
	r->wish.origin->memory = false; /* of a stopped workspace */
	assert_false(clone_waits(r));
	record_free(r);
}

static void its_volumes_are_those_of_the_snapshot_once(void **state)
{
	(void)state;
	struct record *r = make(ORIGINAL, SNAPSHOT, true);
	own_str char *there = mem_printf("%s/there", folder), *expected = mem_printf("%s/" ORIGINAL "/snapshots/" SNAPSHOT "/root.ext4", folder);
	own_str char *from = clone_volume(&n, r, there, "root");

	assert_string_equal(from, expected);
	assert_ok(fs_write_file(AT_FDCWD, there, "", 0, 0600, false, &e), &e);
	assert_null(clone_volume(&n, r, there, "root")); /* it has one */
	assert_int_equal(unlink(there), 0);
	record_free(r);
	r = record_new(folder, "00000000000000ab");
	assert_null(clone_volume(&n, r, there, "root")); /* it is no clone */
	record_free(r);
}

/* Ids come over the channel: none leads out of the folder. */
static void what_is_no_id_leads_nowhere(void **state)
{
	(void)state;
	struct record *r = make("../../../../etc", SNAPSHOT, true);
	own_str char *there = mem_printf("%s/there", folder);
	own_str char *from = clone_volume(&n, r, there, "root");

	assert_string_equal(from, "");
	record_free(r);
}

static void put(const char *path, const char *name, const char *text)
{
	own_str char *file = mem_printf("%s/%s", path, name);

	assert_ok(fs_write_file(AT_FDCWD, file, text, strlen(text), 0600, false, &e), &e);
}

/* The memory is one file with several names; the manifest tells whose it is now and no longer what its bytes were. */
static void memory_is_linked_and_bound_to_the_clone(void **state)
{
	(void)state;
	static const char digest[] = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
	struct record *r = make(ORIGINAL, SNAPSHOT, true);
	struct work w = { .node = &n, .record = r };
	struct memory_file files[] = { { .name = (char[]){ MEMORY_STATE }, .length = 5, .digest = (char *)(uintptr_t)digest },
				       { .name = (char[]){ MEMORY_RAM }, .length = 6, .sparse = (char *)(uintptr_t)digest } };
	const struct memory_manifest m = { .format = MEMORY_FORMAT, .kind = MEMORY_QEMU, .engine = ENGINE_EMULATOR, .workspace = (char[]){ ORIGINAL }, .run = 1,
					   .architecture = (char[]){ "amd64" }, .program = (char[]){ "qemu" }, .version = (char[]){ "7.2" },
					   .files = { files, 2 } };
	own_str char *text = memory_manifest_encode(&m), *from = mem_printf("%s/from", folder), *to = mem_printf("%s/to", folder);
	own_strbuf struct str read = { 0 };
	struct memory_manifest mine = { 0 };
	struct stat ram, base;

	assert_ok(fs_mkdirs(from, 0700, &e), &e);
	put(from, MEMORY_STATE, "state");
	put(from, MEMORY_RAM, "memory");
	put(from, MEMORY_MANIFEST, text);
	assert_ok(suspend_machine_clone_state(&w, from, to, &e), &e);
	own_str char *ram_path = mem_printf("%s/" MEMORY_RAM, from), *base_path = mem_printf("%s/" MEMORY_BASE, to);
	own_str char *manifest = mem_printf("%s/" MEMORY_MANIFEST, to);
	assert_int_equal(stat(ram_path, &ram), 0);
	assert_int_equal(stat(base_path, &base), 0);
	assert_int_equal(ram.st_ino, base.st_ino);
	assert_int_equal(base.st_mode & 0777, 0444);
	assert_ok(fs_read_file(AT_FDCWD, manifest, 65536, &read, &e), &e);
	assert_ok(memory_manifest_decode(str_text(&read), read.length, "manifest", &mine, &e), &e);
	assert_string_equal(mine.workspace, r->id);
	assert_int_equal(mine.run, 3);
	assert_null(memory_manifest_file(&mine, MEMORY_RAM));
	assert_null(memory_manifest_file(&mine, MEMORY_BASE)->sparse);
	assert_string_equal(memory_manifest_file(&mine, MEMORY_STATE)->digest, digest);
	memory_manifest_done(&mine);
	record_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_waits_for_its_memory_until_it_has_begun),
		cmocka_unit_test(its_volumes_are_those_of_the_snapshot_once),
		cmocka_unit_test(what_is_no_id_leads_nowhere),
		cmocka_unit_test(memory_is_linked_and_bound_to_the_clone),
	};
	if (!mkdtemp(folder))
		return 1;
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	(void)!fs_remove_tree(AT_FDCWD, folder, NULL);
	return r;
}
