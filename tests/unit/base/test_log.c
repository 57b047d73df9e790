/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <time.h>

#include "base/log.h"

static void test_utc(void **state)
{
	static const int64_t seconds[] = { 0,         -1,         86399,      86400,      951782399,   951782400,
					   951868800, 1077926400, 4107542399, 4107542400, -2203891200, 253402300799 };
	char ours[LOG_UTC_SIZE], theirs[LOG_UTC_SIZE];

	(void)state;
	for (size_t i = 0; i < sizeof seconds / sizeof *seconds + 60000; i++) {
		time_t at = i < sizeof seconds / sizeof *seconds ? seconds[i] : (time_t)(i * 86407 * 3);
		struct tm utc;
		assert_true(strftime(theirs, sizeof theirs, "%Y-%m-%dT%H:%M:%S", gmtime_r(&at, &utc)) > 0);
		assert_string_equal(log_utc(at, ours), theirs);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_utc) };

	return cmocka_run_group_tests_name("base/log", tests, NULL, NULL);
}
