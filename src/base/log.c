/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"

static const char *log_program = "carrel";
static enum log_level log_most = LOG_INFO;
static bool log_to_journal;

void log_init(const char *program, enum log_level most)
{
	log_program = program;
	log_most = most;
	log_to_journal = getenv("JOURNAL_STREAM") != NULL;
}

static void add_prefix(struct str *line, enum log_level level)
{
	if (log_to_journal) {
		str_printf(line, "<%d>", (int)level);
		return;
	}
	struct timespec now;
	struct tm utc;
	char stamp[32];
	(void)clock_gettime(CLOCK_REALTIME, &now);
	(void)gmtime_r(&now.tv_sec, &utc);
	(void)strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
	static const char *const names[] = { [LOG_ERROR] = "error", [LOG_WARN] = "warning", [LOG_INFO] = "info", [LOG_DETAIL] = "detail" };
	str_printf(line, "%s.%03ldZ %s[%d] %s: ", stamp, now.tv_nsec / 1000000, log_program, (int)getpid(), names[level]);
}

static void write_line(enum log_level level, const char *text)
{
	own_strbuf struct str line = { 0 };

	add_prefix(&line, level);
	for (const char *p = text; *p; p++) {
		unsigned char c = (unsigned char)*p;
		if (c < 0x20 || c == 0x7f)
			str_printf(&line, "\\x%02x", c);
		else
			str_putc(&line, *p);
	}
	str_putc(&line, '\n');
	(void)!write(STDERR_FILENO, line.bytes, line.length);
}

void log_line(enum log_level level, const char *fmt, ...)
{
	if (level > log_most)
		return;
	own_strbuf struct str text = { 0 };
	va_list args;
	va_start(args, fmt);
	str_vprintf(&text, fmt, args);
	va_end(args);
	write_line(level, str_text(&text));
}

void log_error(const struct err *e, const char *fmt, ...)
{
	own_strbuf struct str text = { 0 };
	va_list args;
	va_start(args, fmt);
	str_vprintf(&text, fmt, args);
	va_end(args);
	str_printf(&text, ": %s", e->message);
	if (e->hint[0])
		str_printf(&text, " (%s)", e->hint);
	write_line(LOG_ERROR, str_text(&text));
}
