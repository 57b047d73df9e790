/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/workspace/checkpoint_program.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"

const char *checkpoint_program(void)
{
	static const char *const places[] = { "/usr/local/sbin/criu", "/usr/sbin/criu", "/usr/local/bin/criu",
					      "/usr/bin/criu" };
	static char beside[PATH_MAX];
	const char *given = getenv("CARREL_CRIU");

	if (given && *given)
		return access(given, X_OK) == 0 ? given : NULL;
	(void)snprintf(beside, sizeof beside, "%s/libexec/carrel/criu/criu", fs_prefix());
	if (access(beside, X_OK) == 0)
		return beside;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (access(places[i], X_OK) == 0)
			return places[i];
	return NULL;
}

/* Said by a CRIU that may not raise its limits, and followed by others when it matters. */
static bool harmless(const char *line)
{
	return strstr(line, "rlimit: Can't setup") || strstr(line, "Dumping FAILED") || strstr(line, "Restoring FAILED");
}

bool checkpoint_log_error(const char *log, char *out, size_t size)
{
	for (const char *at = log; (at = strstr(at, "Error (")) != NULL; at++) {
		const char *text = strstr(at, "): ");
		size_t n = strcspn(at, "\n");
		own_str char *line = mem_strndup(at, n);
		if (harmless(line) || !text || text > at + n)
			continue;
		text += 3;
		(void)snprintf(out, size, "%.*s", (int)strcspn(text, "\n"), text);
		return true;
	}
	return false;
}

int checkpoint_explain(const char *line, const char *what, struct err *e)
{
	static const struct {
		const char *said, *means, *hint;
	} known[] = {
		{ "Unable to dump nested", "a process in it has namespaces of its own",
		  "run no containers or sandboxes in it while it is suspended" },
		{ "nested", "a process in it has namespaces of its own",
		  "run no containers or sandboxes in it while it is suspended" },
		{ "io_uring", "a process uses io_uring", NULL },
		{ "Can't dump half of stream unix connection", "a connection leads out of it by a socket in its files", NULL },
		{ "External socket is used", "a connection leads out of it by a socket in its files", NULL },
		{ "No space left", "the disk is full", NULL },
		{ "rt vDSO", "this CRIU does not know this kernel", "a newer CRIU may: tools/get-criu" },
		{ "Can't get 1:16 opt", "this CRIU does not know this kernel's sockets", "a newer CRIU may: tools/get-criu" },
		{ "/dev/", "a process has a device open that belongs to the host", NULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (!strstr(line, known[i].said))
			continue;
		int r = err_set(e, ERR_UNSUPPORTED, "CRIU cannot %s the workspace: %s (%s)", what, known[i].means, line);
		return known[i].hint ? err_hint(e, "%s", known[i].hint) : r;
	}
	return err_set(e, ERR_UNSUPPORTED, "CRIU cannot %s the workspace: %s", what, line);
}
