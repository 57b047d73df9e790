/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_SUSPEND_H
#define RUNNER_SUSPEND_H

/*
 * The conversation of a suspend (docs/formats/runner.md): SUSPEND is answered when the workspace stands still and its state is
 * written; then COMMIT on the same connection puts the manifest in its place and ends the workspace. The end of the connection
 * before that lets the workspace go on.
 */

#include "runner/runner.h"

/* `departs`: of a machine, the workspace inside and not the machine. Takes the connection and both descriptors, also when it
 * fails. `answer` as control.c gives it. */
typedef void suspend_answer_fn(struct runner *r, int fd, int result, const struct err *e);
void suspend_begin(struct runner *r, int fd, bool departs, int folder, int state, suspend_answer_fn *answer);
/* The manifest out of its place, for good. */
int suspend_take_manifest(int folder, struct err *e) must_check;

#endif
