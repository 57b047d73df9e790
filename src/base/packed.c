/* SPDX-License-Identifier: Apache-2.0 */
#include "base/packed.h"

#include <string.h>

#include "base/mem.h"

bool packed_is(const void *head, size_t length)
{
	static const struct {
		size_t length;
		char magic[8];
	} kinds[] = { { 3, "\x1f\x8b\x08" }, { 6, "\xfd\x37zXZ" }, { 4, "\x28\xb5\x2f\xfd" }, { 3, "BZh" } };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (length >= kinds[i].length && memcmp(head, kinds[i].magic, kinds[i].length) == 0)
			return true;
	return false;
}
