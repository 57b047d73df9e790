/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_QEMU_QMP_MESSAGE_H
#define ENGINE_QEMU_QMP_MESSAGE_H

/*
 * One line of QMP (docs/interop/qmp-spec.txt of QEMU): a JSON object. QEMU is believed no more than its guest, who may have
 * taken it over: a line is checked whole, to the last bracket, before anything of it is used. Values are found by key, not
 * built: a supervisor needs few of them and no library.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define QMP_LINE_LONGEST (4U << 20)
#define QMP_DEPTH_MOST 32

/* A JSON value inside the line. */
struct qmp_value {
	const char *at;
	size_t length;
};

enum qmp_kind { QMP_GREETING = 1, QMP_RETURN, QMP_ERROR, QMP_EVENT };

struct qmp_message {
	enum qmp_kind kind;
	uint64_t id;            /* of QMP_RETURN and QMP_ERROR, as it was sent */
	char name[64];          /* of an event: "SHUTDOWN"; of an error: its class */
	char text[256];         /* of an error: its sentence */
	struct qmp_value value; /* what was returned; an event's data, or empty */
};

int qmp_decode(const char *line, size_t length, struct qmp_message *ret_message, struct err *e) must_check;

/* In a value of a checked line. False: the key is not there, or its value is of another type or too long for `out`. */
bool qmp_member(struct qmp_value object, const char *key, struct qmp_value *ret_value);
bool qmp_text(struct qmp_value object, const char *key, char *out, size_t size); /* printable ASCII; else it is '?' */
bool qmp_number(struct qmp_value object, const char *key, uint64_t *ret_number);
bool qmp_true(struct qmp_value object, const char *key);

#endif
