/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests of memory states, which may have come from another host: what is accepted names files of its own folder only,
 * survives encoding, and is judged without a fault. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void judge(const struct memory_manifest *m)
{
	static const char *const list[] = { "pc-q35-7.2", "sse2", NULL };
	const struct memory_host host = { "amd64", "qemu-system-x86_64", "7.2.22", list, list, NULL };
	const struct memory_file *files = m->files.items;
	struct err e;

	for (size_t i = 0; i < m->files.count; i++)
		if (strchr(files[i].name, '/') || files[i].name[0] == '.' ||
		    memory_manifest_file(m, files[i].name) != &files[i])
			abort();
	(void)!memory_check(m, &host, &e);
	(void)!memory_check_workspace(m, "00112233aabbccdd", &m->partitions, 1, &e);
	(void)memory_manifest_bytes(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct memory_manifest m = { 0 }, again = { 0 };
	struct err e;

	if (memory_manifest_decode((const char *)bytes, length, "fuzz", &m, &e) < 0)
		return 0;
	judge(&m);
	char *text = memory_manifest_encode(&m);
	if (memory_manifest_decode(text, strlen(text), "again", &again, &e) < 0)
		abort();
	char *twice = memory_manifest_encode(&again);
	if (strcmp(text, twice) != 0)
		abort();
	free(text);
	free(twice);
	memory_manifest_done(&m);
	memory_manifest_done(&again);
	return 0;
}
