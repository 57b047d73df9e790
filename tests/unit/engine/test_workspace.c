/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fixture.h"

static char out[65536];

#define SKIP_WITHOUT_RIGHTS()                                                                                                  \
	do {                                                                                                                   \
		const char *missing = fixture_missing();                                                                       \
		if (missing) {                                                                                                 \
			print_message("# not run: %s\n", missing);                                                              \
			skip();                                                                                                \
		}                                                                                                              \
	} while (0)

static void test_program(void **state)
{
	struct fixture f;

	(void)state;
	SKIP_WITHOUT_RIGHTS();
	fixture_open(&f, NULL);
	int status = fixture_shell(&f, "echo hello; echo $$; id -u; exit 7", out, sizeof out);
	print_message("# %d %s %s\n", status, out, f.e.message);
	assert_int_equal(status, 7);
	assert_string_equal(out, "hello\n2\n0\n");
	assert_true(fixture_close(&f));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_program) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
