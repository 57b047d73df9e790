/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_QEMU_AGENT_ANSWER_H
#define ENGINE_QEMU_AGENT_ANSWER_H

/*
 * What QEMU's agent in a guest answers (qga/qapi-schema.json of QEMU), in a line that qmp_decode() accepted. The guest says it,
 * so each type and length is held against what was asked, and what does not fit is refused whole.
 */

#include "base/str.h"
#include "engine/qemu/qmp_message.h"

#define AGENT_PIECE 49152 /* bytes of a file in one command: 64 KiB as base64 */

void agent_quote(struct str *out, const char *text); /* as a JSON string */
/* False: not base64 (RFC 4648), to the last character. `out` may have got a part. `text` is a JSON string with its quotes. */
bool agent_decode(struct str *out, struct qmp_value text);
/* As much of it as is base64, and not more than `most` bytes: what a program said. */
void agent_decode_some(struct str *out, struct qmp_value text, size_t most);

/* guest-file-open */
int agent_handle(struct qmp_value value, uint64_t *ret_handle, struct err *e) must_check;
/* guest-file-read of AGENT_PIECE: adds what was read to `out`, which may be nothing. */
int agent_read(struct qmp_value value, struct str *out, struct err *e) must_check;
/* guest-file-write of `sent` bytes: how many of them were taken, at least one. */
int agent_written(struct qmp_value value, size_t sent, size_t *ret_count, struct err *e) must_check;

struct agent_status {
	bool exited;
	int status; /* as a shell has it */
};
/* guest-exec */
int agent_pid(struct qmp_value value, uint64_t *ret_pid, struct err *e) must_check;
/* guest-exec-status */
int agent_status(struct qmp_value value, struct agent_status *ret_status, struct err *e) must_check;
/* What tar said when it failed, as an error: its kind follows from its words, which are made printable. */
int agent_tar_error(const struct str *said, struct err *e) must_check;

#endif
