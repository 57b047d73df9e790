/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_MACHINE_WORDS_H
#define RUNNER_MACHINE_WORDS_H

/* What is said to the guest, as payloads - who it is, what time it is, what it shall run - and what is heard of it when it
 * fails. */

#include "model/guest_protocol.h"
#include "model/runner_protocol.h"

/* Of GUEST_CONFIGURE: `config` with the time and a new seed. */
void machine_words_config(const struct guest_config *config, struct str *out);
/* Of GUEST_IDENTITY for a machine that was away: the time, and a seed, as its random numbers may be another's too. `of`: a
 * clone's. */
int machine_words_identity(const struct guest_bytes *of, struct str *out, struct err *e) must_check;
/* exec, copy in, copy out; what it points to is the request's. */
struct guest_open machine_words_open(const struct runner_request *q, const char *const *texts, size_t count);

/* --- what it says: the tail of console and QEMU's errors --- */

/* Reads once; false: the end. */
bool machine_words_read(struct str *tail, int fd);
/* The last lines, printable and short enough for an error's sentence. */
char *machine_words_last(const struct str *tail);

#endif
