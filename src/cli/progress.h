/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

/* Progress on standard error: one line that is drawn anew on a terminal, else a plain line at each step and every few
 * seconds. */

#include <jansson.h>
#include <stdint.h>

#include "cli/cli.h"

struct progress {
	const struct cli *cli;
	const char *label;
	char step[64];
	uint64_t started_ms, drawn_ms, step_ms;
	uint64_t done, total, reused, done_at_step, drawn_done;
	bool drawn;
};

void progress_start(struct progress *p, const struct cli *cli, const char *label);
void progress_step(struct progress *p, const char *step);
/* `total` 0: not known. `reused`: of `done`, what was already there. */
void progress_bytes(struct progress *p, uint64_t done, uint64_t total, uint64_t reused);
/* For client_wait: the operation's step and bytes. `data` is the struct progress. */
void progress_operation(void *data, const json_t *operation);
void progress_end(struct progress *p); /* clears the line of a terminal; elsewhere the last line says how far it came */

#endif
