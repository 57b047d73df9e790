/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_IMPORT_WIRE_H
#define STORE_IMPORT_WIRE_H

/*
 * Between import.c (export.c) and the program carrel-import (carrel-export): the request is one line of JSON on descriptor 3,
 * the answers are lines of JSON on standard output: {"progress":{...}} now and then, at last {"image":{...}}, {"complete":true}
 * or {"error":{...}}. The archive is on descriptor 0 (an export's on 4). The program keeps what it pinned in the store until
 * descriptor 3 is closed at the other end, and cleans up and ends when that happens early. Secrets travel here and nowhere
 * else: never as arguments or environment.
 */

#include "base/decode.h"
#include "model/image.h"
#include "store/import.h"

#define WIRE_REQUEST_FD       3
#define WIRE_EXPORT_FD        4
#define WIRE_LINE_BYTES_MOST  (1 << 20)

struct import_wire {
	char *store;
	unsigned format, init; /* enum import_format, enum import_init */
	char *reference, *architecture, *user, *password, *auth_file;
	struct import_limits limits;
	struct image_machine *machine;
	struct image_run *run;
};

struct export_wire {
	char *store, *tag;
	unsigned format; /* enum export_format */
	struct image *image;
};

struct wire_progress {
	char *step;
	uint64_t done_bytes, total_bytes, reused_bytes;
};

struct wire_error {
	char *kind, *message, *hint;
};

struct wire_answer {
	struct wire_progress *progress;
	struct wire_error *error;
	struct image *image;
	bool complete;
	uint64_t sockets; /* that an export left out */
};

extern const struct shape wire_error_shape, import_wire_shape, export_wire_shape, wire_answer_shape;

/* One line on a descriptor. */
int wire_send(int fd, const struct shape *shape, const void *value, struct err *e) must_check;
/* The first line of a descriptor, decoded. */
int wire_receive(int fd, const struct shape *shape, void *ret_value, struct err *e) must_check;
int wire_send_error(int fd, const struct err *error, struct err *e) must_check;
/* The error of an answer as a struct err; returns its negative errno. */
int wire_error_take(const struct wire_error *error, struct err *e);
/* libexec/carrel/NAME of this installation, or of the build folder that CARREL_LIBEXEC names. The caller frees. */
char *wire_program(const char *name);

#endif
