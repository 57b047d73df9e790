/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_NETWORK_COMMANDS_H
#define TEST_NETWORK_COMMANDS_H

/* Commands of tests, as lines whose words are parted by one space; a command that fails fails the test. */

#include "../test.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"

/* What it writes; free it. */
static inline char *output(const char *line)
{
	char *words = mem_strdup(line), *rest = words;
	const char *argv[40] = { NULL };
	struct str out = { 0 };
	struct err e = { 0 };

	for (size_t i = 0; i < 39 && rest; i++)
		argv[i] = strsep(&rest, " ");
	assert_ok(proc_run(argv, 65536, &out, &e), &e);
	free(words);
	return out.bytes ? out.bytes : mem_strdup("");
}

static inline void run(const char *line) { free(output(line)); }

static inline void says(const char *line, const char *part)
{
	own_str char *out = output(line);
	if (!strstr(out, part))
		fail_msg("%s does not say '%s' but\n%s", line, part, out);
}

#endif
