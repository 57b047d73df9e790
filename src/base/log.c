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

/* The days of eras of 400 years, which begin in March: "chrono-Compatible Low-Level Date Algorithms" (Howard Hinnant),
 * civil_from_days. */
char *log_utc(int64_t seconds, char out[LOG_UTC_SIZE])
{
	int64_t days = seconds / 86400 - (seconds % 86400 < 0), second = seconds - days * 86400;
	int64_t shifted = days + 719468, era = (shifted >= 0 ? shifted : shifted - 146096) / 146097,
		day = shifted - era * 146097;
	int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365,
		of_year = day - (365 * year + year / 4 - year / 100);
	int64_t month = (5 * of_year + 2) / 153, of_month = of_year - (153 * month + 2) / 5 + 1;

	month += month < 10 ? 3 : -9;
	year += era * 400 + (month <= 2);
	(void)snprintf(out, LOG_UTC_SIZE, "%04d-%02d-%02dT%02d:%02d:%02d", (int)year, (int)month, (int)of_month,
		       (int)(second / 3600), (int)(second / 60 % 60), (int)(second % 60));
	return out;
}

static void add_prefix(struct str *line, enum log_level level)
{
	if (log_to_journal) {
		str_printf(line, "<%d>", (int)level);
		return;
	}
	struct timespec now;
	char stamp[LOG_UTC_SIZE];
	(void)clock_gettime(CLOCK_REALTIME, &now);
	static const char *const names[] = {
		[LOG_ERROR] = "error", [LOG_WARN] = "warning", [LOG_INFO] = "info", [LOG_DETAIL] = "detail"
	};
	str_printf(line, "%s.%03ldZ %s[%d] %s: ", log_utc(now.tv_sec, stamp), now.tv_nsec / 1000000, log_program, (int)getpid(),
		   names[level]);
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
