/* SPDX-License-Identifier: Apache-2.0 */
/* What QEMU said stays readable while it is replaced under those who read it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../test.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "node/emulator.h"

static char folder[] = "/tmp/carrel-test-emulator-XXXXXX";
static char *program;

/* Written before anybody starts programs: a child that is just being started would hold the file open for writing (ETXTBSY). */
static void prepare(unsigned version)
{
	own_str char *fresh = mem_printf("%s.%u", program, version);
	own_str char *text = mem_printf("#!/bin/sh\n[ \"$1\" = --version ] && echo 'QEMU emulator version 9.%u (test)' || "
					"printf 'Supported:\\npc-q35-9.%u  Standard\\n'\n", version, version);

	assert_int_equal(fs_write_file(AT_FDCWD, fresh, text, strlen(text), 0755, false, NULL), 0);
}

/* As an upgrade does it: another file takes the place. */
static void install(unsigned version)
{
	own_str char *fresh = mem_printf("%s.%u", program, version);

	assert_return_code(rename(fresh, program), 0);
}

static int setup(void **unused)
{
	(void)unused;
	assert_non_null(mkdtemp(folder));
	program = mem_printf("%s/qemu", folder);
	return 0;
}

static int teardown(void **unused)
{
	(void)unused;
	free(program);
	return fs_remove_tree(AT_FDCWD, folder, NULL);
}

static void test_none_is_told(void **unused)
{
	const struct emulator *m = NULL;

	(void)unused;
	assert_int_equal(emulator_get(program, &m, NULL), -ENOENT);
	assert_null(m);
}

static void test_an_upgrade_is_seen_and_what_is_held_stays(void **unused)
{
	own_emulator const struct emulator *before = NULL, *again = NULL, *after = NULL;

	(void)unused;
	prepare(1);
	prepare(2);
	install(1);
	assert_int_equal(emulator_get(program, &before, NULL), 0);
	assert_int_equal(emulator_get(program, &again, NULL), 0);
	assert_ptr_equal(before, again);
	install(2);
	assert_int_equal(emulator_get(program, &after, NULL), 0);
	assert_string_equal(before->version, "9.1");
	assert_string_equal(before->machines[1], "pc-q35-9.1");
	assert_string_equal(after->version, "9.2");
	assert_string_equal(after->machines[1], "pc-q35-9.2");
	assert_null(after->machines[2]);
}

static atomic_bool over;

static atomic_uint wrong; /* cmocka's own words are for one thread */

static void *read_on(void *unused)
{
	while (!atomic_load(&over)) {
		own_emulator const struct emulator *m = NULL;
		if (emulator_get(program, &m, NULL) < 0) {
			atomic_fetch_add(&wrong, 1);
			break;
		}
		(void)sched_yield();
		if (strncmp(m->machines[1], "pc-q35-9.", 9) != 0 || strcmp(m->machines[1] + strlen("pc-q35-"), m->version) != 0)
			atomic_fetch_add(&wrong, 1);
	}
	return unused;
}

static void test_upgrades_under_readers(void **unused)
{
	pthread_t readers[4];

	(void)unused;
	for (unsigned i = 10; i < 30; i++)
		prepare(i);
	install(10);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_on, NULL), 0);
	for (unsigned i = 11; i < 30; i++) {
		own_emulator const struct emulator *m = NULL;
		install(i);
		assert_int_equal(emulator_get(program, &m, NULL), 0);
	}
	atomic_store(&over, true);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_join(readers[i], NULL), 0);
	assert_int_equal(atomic_load(&wrong), 0);
}

static void test_one_that_tells_nothing(void **unused)
{
	const struct emulator *m = NULL;
	static const char text[] = "#!/bin/sh\necho nothing\n";
	struct err e = { 0 };

	(void)unused;
	(void)unlink(program);
	assert_int_equal(fs_write_file(AT_FDCWD, program, text, strlen(text), 0755, false, NULL), 0);
	assert_true(emulator_get(program, &m, &e) < 0);
	assert_int_equal(e.kind, ERR_UNSUPPORTED);
	assert_null(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none_is_told),
		cmocka_unit_test(test_an_upgrade_is_seen_and_what_is_held_stays),
		cmocka_unit_test(test_upgrades_under_readers),
		cmocka_unit_test(test_one_that_tells_nothing),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
