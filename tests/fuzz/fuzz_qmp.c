/* SPDX-License-Identifier: Apache-2.0 */
/* A line of QEMU that may be anything; what is taken out of it lies inside of it. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/qemu/qmp_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(const char *line, size_t size, struct qmp_value v)
{
	uint64_t number;
	char text[16];

	if (v.length && (v.at < line || v.at + v.length > line + size))
		abort();
	if (qmp_text(v, "status", text, sizeof text) && strlen(text) >= sizeof text)
		abort();
	(void)qmp_number(v, "thread-id", &number);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *line = malloc(size ? size : 1);
	struct qmp_message m;

	if (!line)
		return 0;
	if (size)
		memcpy(line, data, size);
	if (qmp_decode(line, size, &m, NULL) >= 0)
		look(line, size, m.value);
	free(line);
	return 0;
}
