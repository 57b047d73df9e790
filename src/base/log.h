/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

/* One line per event on stderr, with syslog's "<N>" level in front when stderr is the journal (JOURNAL_STREAM is set). Control
 * characters in what is logged are shown as \xNN, so outside bytes cannot forge lines. Secrets are never passed here. */

#include <stdint.h>

#include "base/err.h"

enum log_level { LOG_ERROR = 3, LOG_WARN = 4, LOG_INFO = 6, LOG_DETAIL = 7 };

void log_init(const char *program, enum log_level most);
void log_line(enum log_level level, const char *fmt, ...) format_printf(2, 3);
/* The edge of a program: sentence and hint of an error. */
void log_error(const struct err *e, const char *fmt, ...) format_printf(2, 3);

/* Seconds since 1970 as "2026-11-21T14:37:42"; returns out. The C library's own brings time zones, and with them 100 KB, into
 * programs that are linked statically. */
#define LOG_UTC_SIZE 40
char *log_utc(int64_t seconds, char out[LOG_UTC_SIZE]);

#define log_err(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_detail(...) log_line(LOG_DETAIL, __VA_ARGS__)

#endif
