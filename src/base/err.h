/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

/*
 * Errors: a kind (a stable name that programs may test), a sentence for people, and a hint that says what to do.
 *
 * A function that can fail returns 0 or a positive value on success and a negative errno on failure, and fills the `struct err`
 * that its caller owns. Outputs named `ret_x` are untouched on failure. A function fills the error or logs it, never both.
 *
 * `struct err` has no pointers: a child process hands it to its parent by writing the bytes to a pipe.
 */

#include <stdarg.h>
#include <stdbool.h>

#define must_check __attribute__((warn_unused_result))
#define format_printf(fmt, args) __attribute__((format(printf, fmt, args)))

/* The one table of error kinds: enum suffix, stable name, HTTP status, exit code of the command line, errno. */
#define ERR_KINDS(X)                                                                                                           \
	X(INVALID, "invalid", 400, 2, EINVAL)                                                                                  \
	X(DENIED, "denied", 403, 3, EACCES)                                                                                    \
	X(NOT_FOUND, "not-found", 404, 4, ENOENT)                                                                              \
	X(CONFLICT, "conflict", 409, 5, EBUSY)                                                                                 \
	X(EXISTS, "exists", 409, 5, EEXIST)                                                                                    \
	X(PRECONDITION, "precondition-failed", 412, 5, EAGAIN)                                                                 \
	X(TOO_LARGE, "too-large", 413, 2, EFBIG)                                                                               \
	X(NO_CAPACITY, "no-capacity", 507, 6, ENOSPC)                                                                          \
	X(UNSUPPORTED, "unsupported", 501, 7, EOPNOTSUPP)                                                                      \
	X(METHOD, "method", 405, 2, EOPNOTSUPP)                                                                                \
	X(CORRUPT, "corrupt", 422, 8, EBADMSG)                                                                                 \
	X(UNAVAILABLE, "unavailable", 503, 9, EHOSTUNREACH)                                                                    \
	X(TIMEOUT, "timeout", 504, 9, ETIMEDOUT)                                                                               \
	X(CANCELLED, "cancelled", 409, 10, ECANCELED)                                                                          \
	X(INTERNAL, "internal", 500, 1, EIO)

enum err_kind {
	ERR_NONE = 0,
#define X(kind, name, status, code, number) ERR_##kind,
	ERR_KINDS(X)
#undef X
	ERR_KIND_COUNT
};

struct err {
	enum err_kind kind;
	int number;         /* positive errno */
	char message[1024]; /* one sentence without a full stop: object, action, reason; always terminated */
	char hint[512];     /* what the user can do, or empty */
};

const char *err_kind_name(enum err_kind kind);
int err_kind_http_status(enum err_kind kind);
int err_kind_exit_code(enum err_kind kind);
/* ERR_INTERNAL for a name that no kind has. */
enum err_kind err_kind_from_name(const char *name);

/* Sets kind and sentence, clears the hint; returns the kind's negative errno. `e` may be NULL. */
int err_set(struct err *e, enum err_kind kind, const char *fmt, ...) format_printf(3, 4);
/* The same for a failed system call: the kind follows from `number`, its text is appended. Returns -number. */
int err_errno(struct err *e, int number, const char *fmt, ...) format_printf(3, 4);
/* Puts "context: " before the sentence; returns the negative errno the error has already. */
int err_wrap(struct err *e, const char *fmt, ...) format_printf(2, 3);
/* Adds what to do about it; returns as err_wrap. */
int err_hint(struct err *e, const char *fmt, ...) format_printf(2, 3);
void err_clear(struct err *e);

/* An analyser that looks at one file cannot know that these never return 0, and takes failures for successes without
 * outputs. */
#if defined(__clang_analyzer__) && !defined(ERR_IMPLEMENTATION)
#define err_set(...) ((void)(err_set)(__VA_ARGS__), -1)
#define err_errno(...) ((void)(err_errno)(__VA_ARGS__), -1)
#define err_wrap(...) ((void)(err_wrap)(__VA_ARGS__), -1)
#define err_hint(...) ((void)(err_hint)(__VA_ARGS__), -1)
#endif

#endif
