/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *checked(void *pointer)
{
	if (!pointer) {
		static const char text[] = "carrel: out of memory\n";
		(void)!write(STDERR_FILENO, text, sizeof text - 1);
		abort();
	}
	return pointer;
}

void *mem_alloc(size_t size_bytes) { return checked(calloc(1, size_bytes ? size_bytes : 1)); }
void *mem_alloc_array(size_t count, size_t size_bytes) { return checked(calloc(count ? count : 1, size_bytes)); }
void *mem_grow_array(void *array, size_t count, size_t size_bytes)
{
	return checked(reallocarray(array, count ? count : 1, size_bytes));
}
char *mem_strdup(const char *string) { return string ? checked(strdup(string)) : NULL; }

char *mem_strndup(const char *bytes, size_t length)
{
	char *copy = checked(malloc(length + 1));
	if (length) /* memcpy takes no NULL, even of nothing */
		memcpy(copy, bytes, length);
	copy[length] = '\0';
	return copy;
}

void *mem_dup(const void *bytes, size_t length)
{
	void *copy = checked(malloc(length ? length : 1));
	if (length)
		memcpy(copy, bytes, length);
	return copy;
}

char *mem_printf(const char *fmt, ...)
{
	char *text = NULL;
	va_list args;

	va_start(args, fmt);
	int length = vasprintf(&text, fmt, args);
	va_end(args);
	return checked(length < 0 ? NULL : text);
}
