/* SPDX-License-Identifier: Apache-2.0 */
/* A disk grows while its machine runs: QEMU makes the file larger and tells the guest, and carrel-init then grows the file
 * system. Of a machine that boots a disk of its own, the file system is its own affair. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "runner/machine_private.h"

struct growth {
	struct machine *machine;
	char disk[GUEST_SERIAL_LONGEST + 1];
	uint64_t bytes;
	channel_done_fn *done;
	void *data;
};

static void growth_end(void *data, int result, const struct err *e)
{
	struct growth *g = data;

	g->done(g->data, result, e);
	free(g);
}

static void resized(void *data, int result, struct qmp_value value, const struct err *e)
{
	struct growth *g = data;
	struct machine *m = g->machine;
	uint8_t payload[sizeof g->disk + 8];
	size_t length = strlen(g->disk) + 1;

	(void)value;
	if (result < 0 || m->disk || m->gone) {
		growth_end(g, result, e);
		return;
	}
	memcpy(payload, g->disk, length);
	guest_put_u32(payload + length, (uint32_t)g->bytes);
	guest_put_u32(payload + length + 4, (uint32_t)(g->bytes >> 32));
	channel_request(m->channel, GUEST_GROW, payload, length + 8, CHANNEL_DEADLINE_MS, growth_end, g);
}

static bool is_name(const char *text)
{
	size_t length = 0;

	while (isalnum((unsigned char)text[length]))
		length++;
	return length && length <= GUEST_SERIAL_LONGEST && !text[length];
}

void machine_grow(struct machine *m, const char *disk, uint64_t bytes, channel_done_fn *done, void *data)
{
	struct err e;
	int r = m->gone || !m->qmp || m->runner->status.state != RUNNER_RUNNING
			? err_set(&e, ERR_CONFLICT, "the workspace is not running")
		: !is_name(disk) || !bytes || bytes > INT64_MAX ? err_set(&e, ERR_INVALID, "no such disk, or no such size")
								: 0;

	if (r < 0) {
		done(data, r, &e);
		return;
	}
	struct growth *g = mem_alloc(sizeof *g);
	*g = (struct growth){ .machine = m, .bytes = bytes, .done = done, .data = data };
	(void)snprintf(g->disk, sizeof g->disk, "%s", disk);
	own_str char *arguments = mem_printf("{\"node-name\":\"%s\",\"size\":%" PRIu64 "}", disk, bytes);
	qmp_send(m->qmp, "block_resize", arguments, QMP_DEADLINE_MS, resized, g);
}
