/* SPDX-License-Identifier: Apache-2.0 */
#include "node/checkpoint.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"
#include "engine/workspace/checkpoint_program.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	char *program;
	struct timespec changed;
	int result;
	struct err error;
	char version[CHECKPOINT_VERSION_SIZE];
} known; /* under the lock */

static void learn(const char *program)
{
	own_str char *helper = mem_printf("%s/libexec/carrel/carrel-checkpoint", fs_prefix());
	const char *const argv[] = { helper, "probe", "/tmp", NULL };
	own_strbuf struct str said = { 0 };

	err_clear(&known.error);
	known.result = proc_run(argv, 4096, &said, &known.error);
	const char *last = strstr(known.error.message, ": ");
	own_str char *why = mem_strdup(last ? last + 2 : known.error.message);
	if (known.result >= 0)
		(void)snprintf(known.version, sizeof known.version, "%.*s", (int)strcspn(str_text(&said), "\n"),
			       str_text(&said));
	else
		known.result = err_set(&known.error, ERR_UNSUPPORTED, "%s does not work here: %s", program, why);
	if (known.result < 0)
		(void)err_hint(&known.error, "%s", CHECKPOINT_PROGRAM_HINT);
}

int checkpoint_probe(char ret_version[CHECKPOINT_VERSION_SIZE], struct err *e)
{
	const char *program = checkpoint_program();
	struct stat st;

	if (!program || stat(program, &st) < 0) {
		(void)err_set(e, ERR_UNSUPPORTED, "this host has no CRIU, which suspends workspaces");
		return err_hint(e, "%s", CHECKPOINT_PROGRAM_HINT);
	}
	(void)pthread_mutex_lock(&lock);
	if (!known.program || !str_eq(known.program, program) ||
	    memcmp(&known.changed, &st.st_mtim, sizeof known.changed) != 0) {
		learn(program);
		free(known.program);
		known.program = mem_strdup(program);
		known.changed = st.st_mtim;
	}
	int r = known.result;
	if (r < 0 && e)
		*e = known.error;
	memcpy(ret_version, known.version, sizeof known.version);
	(void)pthread_mutex_unlock(&lock);
	return r < 0 ? r : 0;
}

bool checkpoint_reads(const char *version, const char *wrote)
{
	unsigned mine[3] = { 0 }, theirs[3] = { 0 };

	if (sscanf(version, "%u.%u.%u", &mine[0], &mine[1], &mine[2]) < 1 ||
	    sscanf(wrote, "%u.%u.%u", &theirs[0], &theirs[1], &theirs[2]) < 1)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(mine); i++)
		if (mine[i] != theirs[i])
			return mine[i] > theirs[i];
	return true;
}

char *checkpoint_features(void)
{
	own_strbuf struct str text = { 0 };
	const char *line = fs_read_file(AT_FDCWD, "/proc/cpuinfo", 4 << 20, &text, NULL) < 0 ?
				   NULL :
				   strstr(str_text(&text), "\nflags");

	if (!line)
		line = text.length ? strstr(str_text(&text), "\nFeatures") : NULL; /* aarch64 */
	line = line ? strchr(line, ':') : NULL;
	return line ? mem_strndup(line + 1, strcspn(line + 1, "\n")) : mem_strdup("");
}
