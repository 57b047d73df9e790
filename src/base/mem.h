/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

/*
 * Memory that cannot fail: a process that is out of memory says so on stderr and aborts, and its restart converges
 * (docs/decisions/0002). Lengths that come from outside are checked against a limit before anything is allocated.
 */

#include <stddef.h>

void *mem_alloc(size_t size_bytes) __attribute__((malloc, returns_nonnull)); /* zeroed */
void *mem_alloc_array(size_t count, size_t size_bytes) __attribute__((malloc, returns_nonnull)); /* zeroed, overflow checked */
void *mem_grow_array(void *array, size_t count, size_t size_bytes) __attribute__((returns_nonnull));
char *mem_strdup(const char *string); /* NULL for NULL */
char *mem_strndup(const char *bytes, size_t length) __attribute__((returns_nonnull));
void *mem_dup(const void *bytes, size_t length) __attribute__((returns_nonnull));
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2), returns_nonnull));

/* Makes room for one more element at array[count]; capacity doubles. */
#define MEM_PUSH_ROOM(array, count, capacity)                                                                                  \
	do {                                                                                                                   \
		if ((count) == (capacity)) {                                                                                   \
			(capacity) = (capacity) ? (capacity)*2 : 8;                                                            \
			(array) = mem_grow_array((array), (capacity), sizeof *(array));                                        \
		}                                                                                                              \
	} while (0)

#define ARRAY_SIZE(array) (sizeof(array) / sizeof *(array))

#endif
