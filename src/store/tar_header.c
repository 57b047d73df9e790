/* SPDX-License-Identifier: Apache-2.0 */
#include "store/tar_header.h"

#include <stdio.h>
#include <string.h>

struct tar_header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[6], version[2],
		owner[32], group[32], major[8], minor[8], prefix[155], pad[12];
};

static void tar_size(char out[12], uint64_t bytes)
{
	if (bytes < UINT64_C(1) << 33) {
		(void)snprintf(out, 12, "%011llo", (unsigned long long)bytes);
		return;
	}
	out[0] = (char)0x80;
	for (int i = 11; i > 0; i--, bytes >>= 8)
		out[i] = (char)(bytes & 0xff);
}

void tar_header_fill(const char *name, uint64_t bytes, uint8_t out[TAR_BLOCK])
{
	struct tar_header h = { .type = '0' };
	unsigned sum = 0;

	_Static_assert(sizeof h == TAR_BLOCK, "a tar header is one block");
	(void)snprintf(h.name, sizeof h.name, "%s", name);
	(void)snprintf(h.mode, sizeof h.mode, "%07o", 0644U);
	(void)snprintf(h.uid, sizeof h.uid, "%07o", 0U);
	(void)snprintf(h.gid, sizeof h.gid, "%07o", 0U);
	tar_size(h.size, bytes);
	(void)snprintf(h.mtime, sizeof h.mtime, "%011o", 0U);
	memcpy(h.magic, "ustar", 6);
	memcpy(h.version, "00", 2);
	memset(h.checksum, ' ', sizeof h.checksum);
	for (size_t i = 0; i < sizeof h; i++)
		sum += ((unsigned char *)&h)[i];
	(void)snprintf(h.checksum, sizeof h.checksum, "%06o", sum);
	memcpy(out, &h, sizeof h);
}
