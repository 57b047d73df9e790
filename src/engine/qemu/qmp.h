/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_QEMU_QMP_H
#define ENGINE_QEMU_QMP_H

/*
 * QEMU's control line, on an event loop. Commands are answered by a call, in time or with ERR_TIMEOUT; each command's call
 * happens exactly once, also when the line ends. Nothing is repeated: what a command that was not answered did is not known.
 */

#include "base/loop.h"
#include "engine/qemu/qmp_message.h"

#define QMP_DEADLINE_MS 10000

struct qmp;

/* result: 0, or a negative errno and *e (ERR_NOT_FOUND: there is no such device).
 * `value` is valid during the call. May send more commands; may not free the line. */
typedef void qmp_done_fn(void *data, int result, struct qmp_value value, const struct err *e);

struct qmp_events {
	void (*event)(void *data, const char *name, struct qmp_value value);
	/* The line is over: QEMU is gone, or said what it must not. After the calls of all commands. */
	void (*closed)(void *data, const struct err *e);
	void *data;
};

/* Takes the socket. Commands may be sent at once: they wait for QEMU's greeting. */
struct qmp *qmp_new(struct loop *l, int fd, const struct qmp_events *events);
/* The same language on the line of a guest's agent (qemu-ga): no greeting comes, and an answer that is too long is passed over,
 * which ends its command and not the line. Commands are sent one after the other, each when the one before was answered or
 * given up; their time counts from qmp_send(). */
struct qmp *qmp_new_agent(struct loop *l, int fd, const struct qmp_events *events);
void qmp_free(struct qmp *q); /* without any call */
/* `arguments`: a JSON object as text, or NULL. `done` may be NULL. */
void qmp_send(struct qmp *q, const char *command, const char *arguments, uint64_t deadline_ms, qmp_done_fn *done, void *data);
/* The same with a descriptor, which is taken: for getfd. */
void qmp_send_fd(struct qmp *q, const char *command, const char *arguments, int fd, uint64_t deadline_ms, qmp_done_fn *done,
		 void *data);

#endif
