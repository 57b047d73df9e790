/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_STR_H
#define BASE_STR_H

/* A growing byte string. Invariant: `bytes` is NULL or has `length` bytes and a NUL behind them. Starts as `{0}`. */

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/err.h"

struct str {
	char *bytes;
	size_t length, capacity;
};

static inline void str_done(struct str *s)
{
	free(s->bytes);
	*s = (struct str){ 0 };
}
#define own_strbuf __attribute__((cleanup(str_done)))

void str_reserve(struct str *s, size_t more_bytes);
void str_add(struct str *s, const void *bytes, size_t length);
void str_puts(struct str *s, const char *text);
void str_putc(struct str *s, char c);
void str_printf(struct str *s, const char *fmt, ...) format_printf(2, 3);
void str_vprintf(struct str *s, const char *fmt, va_list args) format_printf(2, 0);
void str_add_base64(struct str *s, const void *bytes, size_t length); /* RFC 4648, with padding */
void str_clear(struct str *s);                /* length 0, keeps the room */
void str_drop_front(struct str *s, size_t n); /* n <= length */
char *str_take(struct str *s);                /* never NULL; the caller frees */
static inline const char *str_text(const struct str *s) { return s->bytes ? s->bytes : ""; }

bool str_eq(const char *a, const char *b); /* NULL equals only NULL */
bool str_starts(const char *text, const char *prefix);
bool str_ends(const char *text, const char *suffix);
/* Strict decimal: digits only, no sign, no space, at most `max`. -EINVAL or -ERANGE; *ret_value untouched then. */
int str_to_u64(const char *text, uint64_t max, uint64_t *ret_value) must_check;
/* Edit distance of at most `limit` (limit + 1 means more). For "did you mean". */
unsigned str_distance(const char *a, const char *b, unsigned limit);
/* The candidate nearest to `word`, or NULL when none is near (distance over a third of its length). */
const char *str_nearest(const char *word, const char *const *candidates, size_t count);

/* "1.5 GiB", "12 KiB", "0 B" into `out` (at least 16 bytes); returns out. */
char *str_bytes(char *out, size_t size, uint64_t bytes);
/* A size a user wrote: "512M", "1.5GiB", "4096": powers of 1024. -EINVAL or -ERANGE. */
int str_parse_bytes(const char *text, uint64_t *ret_bytes) must_check;
/* A rate in bits a second: "10M", "1.5Gbit", "64000": powers of 1000. -EINVAL or -ERANGE. */
int str_parse_rate(const char *text, uint64_t *ret_bits) must_check;

#endif
