/* SPDX-License-Identifier: Apache-2.0 */
#include "node/processor.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

static struct processor_host here;
static struct texts features;

/* The value of the first line that begins with one of two words. */
static char *line_of(const char *text, const char *word, const char *other)
{
	const char *at = strstr(text, word);

	if (!at)
		at = strstr(text, other);
	at = at ? strchr(at, ':') : NULL;
	if (!at)
		return NULL;
	at += 1 + strspn(at + 1, " \t");
	return mem_strndup(at, strcspn(at, "\n"));
}

static void look(void)
{
	own_strbuf struct str text = { 0 };

	if (fs_read_file(AT_FDCWD, "/proc/cpuinfo", 16 << 20, &text, NULL) < 0)
		return;
	own_str char *flags = line_of(str_text(&text), "\nflags", "\nFeatures"); /* aarch64 has the second */
	char *save = NULL;
	for (char *word = flags ? strtok_r(flags, " ", &save) : NULL; word; word = strtok_r(NULL, " ", &save))
		texts_add(&features, word);
	here.vendor = line_of(str_text(&text), "\nvendor_id", "\nCPU implementer");
	if (here.vendor) {
		own_str char *vendor = mem_printf("vendor:%s", here.vendor);
		texts_add(&features, vendor);
	}
	texts_add(&features, NULL);
	here.features = (const char *const *)features.items;
}

const struct processor_host *processor_here(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, look);
	return &here;
}
