/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of kinds is expanded here once more for its columns; kind_of_errno is the other direction, and decides what a user
 * of a program that knows nothing but errno sees. Every function takes a NULL error, for callers who only want to know that
 * something failed, and still returns the number. err_wrap prepends what was attempted, and what does not fit is cut at the
 * end: the innermost reason may be lost in a very long path, never the object.
 */
#define ERR_IMPLEMENTATION
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct kind_row {
	const char *name;
	int http_status, exit_code, number;
};

static const struct kind_row kinds[ERR_KIND_COUNT] = {
	[ERR_NONE] = { "none", 200, 0, 0 },
#define X(kind, name, status, code, number) [ERR_##kind] = { name, status, code, number },
	ERR_KINDS(X)
#undef X
};

static const struct kind_row *row(enum err_kind kind)
{
	return (unsigned)kind < ERR_KIND_COUNT ? &kinds[kind] : &kinds[ERR_INTERNAL];
}

const char *err_kind_name(enum err_kind kind) { return row(kind)->name; }
int err_kind_http_status(enum err_kind kind) { return row(kind)->http_status; }
int err_kind_exit_code(enum err_kind kind) { return row(kind)->exit_code; }

enum err_kind err_kind_from_name(const char *name)
{
	for (int k = ERR_NONE; k < ERR_KIND_COUNT; k++)
		if (strcmp(kinds[k].name, name) == 0)
			return (enum err_kind)k;
	return ERR_INTERNAL;
}

static enum err_kind kind_of_errno(int number)
{
	switch (number) {
	case EINVAL:
	case ENAMETOOLONG:
		return ERR_INVALID;
	case EACCES:
	case EPERM:
	case EROFS:
		return ERR_DENIED;
	case ENOENT:
	case ESRCH:
		return ERR_NOT_FOUND;
	case EBUSY:
		return ERR_CONFLICT;
	case EEXIST:
		return ERR_EXISTS;
	case EFBIG:
		return ERR_TOO_LARGE;
	case ENOSPC:
	case EDQUOT:
	case ENOMEM:
	case EMFILE:
	case ENFILE:
		return ERR_NO_CAPACITY;
	case EOPNOTSUPP:
	case ENOSYS:
		return ERR_UNSUPPORTED;
	case EBADMSG:
		return ERR_CORRUPT;
	case ECONNREFUSED:
	case ECONNRESET:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case EPIPE:
		return ERR_UNAVAILABLE;
	case ETIMEDOUT:
		return ERR_TIMEOUT;
	case ECANCELED:
		return ERR_CANCELLED;
	default:
		return ERR_INTERNAL;
	}
}

int err_set(struct err *e, enum err_kind kind, const char *fmt, ...)
{
	int number = row(kind)->number;

	if (!e)
		return -number;
	va_list args;
	va_start(args, fmt);
	*e = (struct err){ .kind = kind, .number = number };
	(void)vsnprintf(e->message, sizeof e->message, fmt, args);
	va_end(args);
	return -number;
}

/* The text of an errno, safe in threads. */
static const char *number_text(int number)
{
	const char *text = strerrordesc_np(number);

	return text ? text : "unknown error";
}

int err_errno(struct err *e, int number, const char *fmt, ...)
{
	if (!e)
		return -number;
	va_list args;
	va_start(args, fmt);
	*e = (struct err){ .kind = kind_of_errno(number), .number = number };
	int length = vsnprintf(e->message, sizeof e->message, fmt, args);
	va_end(args);
	if (length >= 0 && (size_t)length < sizeof e->message)
		(void)snprintf(e->message + length, sizeof e->message - (size_t)length, ": %s", number_text(number));
	return -number;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
	if (!e)
		return -EIO;
	char inner[sizeof e->message];
	memcpy(inner, e->message, sizeof inner);
	va_list args;
	va_start(args, fmt);
	int length = vsnprintf(e->message, sizeof e->message, fmt, args);
	va_end(args);
	if (length >= 0 && (size_t)length < sizeof e->message)
		(void)snprintf(e->message + length, sizeof e->message - (size_t)length, ": %s", inner);
	return -(e->number ? e->number : EIO);
}

int err_hint(struct err *e, const char *fmt, ...)
{
	if (!e)
		return -EIO;
	va_list args;
	va_start(args, fmt);
	(void)vsnprintf(e->hint, sizeof e->hint, fmt, args);
	va_end(args);
	return -(e->number ? e->number : EIO);
}

void err_clear(struct err *e)
{
	if (e)
		*e = (struct err){ 0 };
}
