/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_TEST_H
#define UNIT_TEST_H

/* What every cmocka program of ours includes. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs those before it. */
#include <cmocka.h>

#include "base/err.h"

/* `call` succeeds; otherwise the error's sentence is shown. */
#define assert_ok(call, error)                                                                                                 \
	do {                                                                                                                   \
		err_clear(error);                                                                                              \
		long ok_result = (call);                                                                                       \
		if (ok_result < 0)                                                                                             \
			fail_msg("%s: %ld: %s", #call, ok_result, (error)->message);                                           \
	} while (0)

/* `call` fails with this kind and a sentence that contains `part`. */
#define assert_fails(call, error, expected_kind, part)                                                                         \
	do {                                                                                                                   \
		err_clear(error);                                                                                              \
		long fail_result = (call);                                                                                     \
		if (fail_result >= 0)                                                                                          \
			fail_msg("%s succeeded", #call);                                                                       \
		if ((error)->kind != (expected_kind) || !strstr((error)->message, (part)))                                     \
			fail_msg("%s: kind %s, \"%s\"", #call, err_kind_name((error)->kind), (error)->message);                \
	} while (0)

#endif
