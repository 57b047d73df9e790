/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in a memory folder and what CRIU answers: first byte 0 a record, else an answer. A record that was understood is
 * written the same again. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "base/str.h"
#include "engine/workspace/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void record(const char *text, size_t length)
{
	own_strbuf struct str once = { 0 }, twice = { 0 };
	struct checkpoint c, again;

	if (checkpoint_decode(text, length, &c, NULL) < 0)
		return;
	checkpoint_encode(&c, &once);
	checkpoint_done(&c);
	if (checkpoint_decode(once.bytes, once.length, &again, NULL) < 0)
		abort();
	checkpoint_encode(&again, &twice);
	checkpoint_done(&again);
	if (!str_eq(str_text(&once), str_text(&twice)))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct checkpoint_answer a;

	if (!size)
		return 0;
	if (data[0] == 0)
		record((const char *)data + 1, size - 1);
	else
		(void)!checkpoint_decode_answer(data + 1, size - 1, &a, NULL);
	return 0;
}
