/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room doubles, so that adding bytes is linear on the whole; memory that is missing ends the process (base/mem.h), hence no
 * results to check. The parsers of numbers, sizes and rates are strict - no sign, no space, no locale, no overflow - as they
 * read what users and other machines write; they say what is wrong by an errno, for a caller who knows what the text was for.
 */
#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

void str_reserve(struct str *s, size_t more_bytes)
{
	size_t needed = s->length + more_bytes + 1;
	if (needed <= s->capacity)
		return;
	size_t capacity = s->capacity ? s->capacity : 64;
	while (capacity < needed)
		capacity *= 2;
	s->bytes = mem_grow_array(s->bytes, capacity, 1);
	s->capacity = capacity;
	s->bytes[s->length] = '\0'; /* an empty one is a text too */
}

void str_add(struct str *s, const void *bytes, size_t length)
{
	str_reserve(s, length);
	if (length)
		memcpy(s->bytes + s->length, bytes, length);
	s->length += length;
	s->bytes[s->length] = '\0';
}

void str_puts(struct str *s, const char *text) { str_add(s, text, strlen(text)); }
void str_putc(struct str *s, char c) { str_add(s, &c, 1); }

void str_vprintf(struct str *s, const char *fmt, va_list args)
{
	va_list again;
	va_copy(again, args);
	int length = vsnprintf(NULL, 0, fmt, args);
	if (length > 0) {
		str_reserve(s, (size_t)length);
		(void)vsnprintf(s->bytes + s->length, (size_t)length + 1, fmt, again);
		s->length += (size_t)length;
	}
	va_end(again);
}

void str_printf(struct str *s, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	str_vprintf(s, fmt, args);
	va_end(args);
}

void str_add_base64(struct str *s, const void *bytes, size_t length)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *in = bytes;

	str_reserve(s, (length + 2) / 3 * 4);
	for (size_t i = 0; i < length; i += 3) {
		unsigned have = length - i < 3 ? (unsigned)(length - i) : 3, bits = 0;
		for (unsigned k = 0; k < 3; k++)
			bits = bits << 8 | (k < have ? in[i + k] : 0);
		for (unsigned k = 0; k < 4; k++)
			str_putc(s, k <= have ? digits[bits >> (18 - 6 * k) & 63] : '=');
	}
}

void str_clear(struct str *s)
{
	s->length = 0;
	if (s->bytes)
		s->bytes[0] = '\0';
}

void str_drop_front(struct str *s, size_t n)
{
	s->length -= n;
	if (s->bytes)
		memmove(s->bytes, s->bytes + n, s->length + 1);
}

char *str_take(struct str *s)
{
	char *bytes = s->bytes ? s->bytes : mem_strdup("");
	*s = (struct str){ 0 };
	return bytes;
}

bool str_eq(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }
bool str_starts(const char *text, const char *prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

bool str_ends(const char *text, const char *suffix)
{
	size_t length = strlen(text), tail = strlen(suffix);
	return length >= tail && strcmp(text + length - tail, suffix) == 0;
}

int str_to_u64(const char *text, uint64_t max, uint64_t *ret_value)
{
	uint64_t value = 0;

	if (!*text)
		return -EINVAL;
	for (const char *p = text; *p; p++) {
		if (*p < '0' || *p > '9')
			return -EINVAL;
		if (__builtin_mul_overflow(value, 10U, &value) || __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return -ERANGE;
	}
	if (value > max)
		return -ERANGE;
	*ret_value = value;
	return 0;
}

/* Levenshtein distance over a single row (Wagner and Fischer 1974); words here are short keys. */
unsigned str_distance(const char *a, const char *b, unsigned limit)
{
	enum { longest = 64 };
	size_t rows = strlen(a), columns = strlen(b);
	unsigned row[longest + 1];

	if (rows > longest || columns > longest)
		return limit + 1;
	for (size_t j = 0; j <= columns; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= rows; i++) {
		unsigned diagonal = row[0];
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= columns; j++) {
			unsigned replace = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			unsigned shift = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
			row[j] = replace < shift ? replace : shift;
		}
	}
	return row[columns] <= limit ? row[columns] : limit + 1;
}

const char *str_nearest(const char *word, const char *const *candidates, size_t count)
{
	const char *best = NULL;
	unsigned limit = (unsigned)strlen(word) / 3 + 1;

	for (size_t i = 0; i < count; i++) {
		unsigned distance = str_distance(word, candidates[i], limit);
		if (distance <= limit && (!best || distance < limit)) {
			best = candidates[i];
			limit = distance;
		}
	}
	return best;
}

char *str_bytes(char *out, size_t size, uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1024;
		unit++;
	}
	(void)snprintf(out, size, unit && value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return out;
}

/* Digits with an optional fraction, of which six places count. */
static int parse_decimal(const char **at, uint64_t *ret_whole, double *ret_fraction)
{
	uint64_t whole = 0, fraction = 0, scale = 1;
	const char *p = *at;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(whole, 10U, &whole) || __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole))
			return -ERANGE;
	if (*p == '.') {
		p++;
		if (*p < '0' || *p > '9')
			return -EINVAL;
		for (; *p >= '0' && *p <= '9'; p++)
			if (scale < 1000000) {
				fraction = fraction * 10 + (uint64_t)(*p - '0');
				scale *= 10;
			}
	}
	*at = p;
	*ret_whole = whole;
	*ret_fraction = (double)fraction / (double)scale;
	return 0;
}

/* The unit behind the number: 0 for none, 1 for K, 2 for M, ... */
static unsigned parse_letter(const char **at)
{
	static const char letters[] = "KMGTP";
	const char *letter = **at ? strchr(letters, **at & ~0x20) : NULL;

	if (!letter)
		return 0;
	(*at)++;
	return (unsigned)(letter - letters) + 1;
}

static int scale_up(uint64_t whole, double fraction, uint64_t unit, uint64_t *ret_value)
{
	uint64_t value;

	if (__builtin_mul_overflow(whole, unit, &value) ||
	    __builtin_add_overflow(value, (uint64_t)(fraction * (double)unit), &value))
		return -ERANGE;
	*ret_value = value;
	return 0;
}

int str_parse_bytes(const char *text, uint64_t *ret_bytes)
{
	uint64_t whole;
	double fraction;
	const char *p = text;
	int r = parse_decimal(&p, &whole, &fraction);

	if (r < 0)
		return r;
	unsigned power = parse_letter(&p);
	if (power && *p == 'i')
		p++;
	if (*p == 'B')
		p++;
	if (*p || (fraction > 0 && !power))
		return -EINVAL;
	return scale_up(whole, fraction, UINT64_C(1) << 10 * power, ret_bytes);
}

int str_parse_rate(const char *text, uint64_t *ret_bits)
{
	uint64_t whole, unit = 1;
	double fraction;
	const char *p = text;
	int r = parse_decimal(&p, &whole, &fraction);

	if (r < 0)
		return r;
	unsigned power = parse_letter(&p);
	for (unsigned i = 0; i < power; i++)
		unit *= 1000;
	if (str_starts(p, "bit"))
		p += 3;
	if (*p || (fraction > 0 && !power))
		return -EINVAL;
	return scale_up(whole, fraction, unit, ret_bits);
}
