/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_STORE_FILL_H
#define UNIT_STORE_FILL_H

/* Bytes for what packs them: text that repeats itself, or noise. */

#include <stdbool.h>
#include <unistd.h>

#include "../test.h"
#include "base/mem.h"
#include "base/own.h"

static inline void fill(int fd, uint64_t at, size_t length, bool compressible)
{
	own_str char *bytes = mem_alloc(length);
	uint64_t noise = 88172645463325252; /* xorshift64 */

	for (size_t i = 0; i < length; i++) {
		noise ^= noise << 13;
		noise ^= noise >> 7;
		noise ^= noise << 17;
		bytes[i] = compressible ? (char)('a' + i % 7) : (char)noise;
	}
	assert_int_equal(pwrite(fd, bytes, length, (off_t)at), length);
}

#endif
