/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest's agent may answer to any command; nothing is taken that is longer than what was asked for. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/qemu/agent_answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(struct qmp_value v)
{
	struct str out = { 0 };
	struct agent_status status;
	struct qmp_value said;
	uint64_t number;
	size_t count;

	if (agent_read(v, &out, NULL) < 0 ? out.length != 0 : out.length > AGENT_PIECE)
		abort();
	if (agent_written(v, 100, &count, NULL) >= 0 && (count < 1 || count > 100))
		abort();
	if (agent_handle(v, &number, NULL) >= 0 && number > INT64_MAX)
		abort();
	(void)!agent_pid(v, &number, NULL);
	if (agent_status(v, &status, NULL) >= 0 && (status.status < 0 || status.status > 255))
		abort();
	str_clear(&out);
	if (qmp_member(v, "err-data", &said))
		agent_decode_some(&out, said, 900);
	struct err e;
	if (out.length > 900 || agent_tar_error(&out, &e) >= 0)
		abort();
	for (const char *at = e.message; *at; at++)
		if (*at < 0x20 || *at >= 0x7f)
			abort();
	str_done(&out);
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
		look(m.value);
	free(line);
	return 0;
}
