/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_GOLDEN_H
#define UNIT_GOLDEN_H

/* Plans that are handed to others, against files. CARREL_GOLDEN=update writes the files anew: read the difference before it is
 * committed. */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#include "test.h"

/* `name`: below tests/unit. */
static inline void assert_golden(const char *text, const char *name)
{
	own_str char *path = mem_printf("%s/tests/unit/%s", getenv("CARREL_SOURCE_ROOT"), name);
	own_strbuf struct str expected = { 0 };
	struct err e = { 0 };

	if (str_eq(getenv("CARREL_GOLDEN"), "update"))
		assert_ok(fs_write_file(AT_FDCWD, path, text, strlen(text), 0644, false, &e), &e);
	assert_ok(fs_read_file(AT_FDCWD, path, 1 << 20, &expected, &e), &e);
	assert_string_equal(text, str_text(&expected));
}

#endif
