/* SPDX-License-Identifier: Apache-2.0 */
#include "store/import_wire.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err_json.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/export.h"

static const char *const format_names[] = { "tar", "oci", "disk", "raw", "registry", "kernel", NULL };
static const char *const init_names[] = { "detect", "yes", "no", NULL };

#define I(member) offsetof(struct import_wire, member)
static const struct field import_fields[] = {
	{ "store", FIELD_TEXT, I(store), "folder of the store", .required = true },
	{ "format", FIELD_ENUM, I(format), "what is imported", .required = true, .names = format_names },
	{ "init", FIELD_ENUM, I(init), "whether it has an init", .names = init_names },
	{ "reference", FIELD_TEXT, I(reference), "image in the registry or tag in the layout" },
	{ "architecture", FIELD_TEXT, I(architecture), "processor", .max = 64 },
	{ "user", FIELD_TEXT, I(user), "user name for the registry", .max = 1024 },
	{ "password", FIELD_TEXT, I(password), "password for the registry", .max = 65536 },
	{ "auth-file", FIELD_TEXT, I(auth_file), "password file" },
	{ "layer-bytes", FIELD_NUMBER, I(limits.layer_bytes), "most bytes of an unpacked layer" },
	{ "entries", FIELD_NUMBER, I(limits.entries), "most entries of a layer" },
	{ "depth", FIELD_NUMBER, I(limits.depth), "most directories inside each other" },
	{ "machine", FIELD_OBJECT, I(machine), "what its disks need", .shape = &image_machine_shape },
	{ "run", FIELD_OBJECT, I(run), "what it runs", .shape = &image_run_shape },
	{ 0 },
};
const struct shape import_wire_shape = { "import-request", sizeof(struct import_wire), import_fields,
					 "Request to carrel-import." };

#define X(member) offsetof(struct export_wire, member)
static const struct field export_fields[] = {
	{ "store", FIELD_TEXT, X(store), "folder of the store", .required = true },
	{ "tag", FIELD_TEXT, X(tag), "tag in the layout" },
	{ "format", FIELD_ENUM, X(format), "form of the export", .required = true, .names = export_format_names },
	{ "image", FIELD_OBJECT, X(image), "the image", .required = true, .shape = &image_shape },
	{ 0 },
};
const struct shape export_wire_shape = { "export-request", sizeof(struct export_wire), export_fields,
					 "Request to carrel-export." };

#define P(member) offsetof(struct wire_progress, member)
static const struct field progress_fields[] = {
	{ "step", FIELD_TEXT, P(step), "what is under way", .max = 32 },
	{ "done", FIELD_NUMBER, P(done_bytes), "bytes" },
	{ "total", FIELD_NUMBER, P(total_bytes), "bytes" },
	{ "reused", FIELD_NUMBER, P(reused_bytes), "bytes that were there" },
	{ 0 },
};
static const struct shape progress_shape = { "wire-progress", sizeof(struct wire_progress), progress_fields, "Progress." };

#define E(member) offsetof(struct wire_error, member)
static const struct field error_fields[] = {
	{ "kind", FIELD_TEXT, E(kind), "kind", .required = true, .max = 64 },
	{ "message", FIELD_TEXT, E(message), "sentence", .required = true },
	{ "hint", FIELD_TEXT, E(hint), "what to do" },
	{ 0 },
};
const struct shape wire_error_shape = { "wire-error", sizeof(struct wire_error), error_fields, "Error." };

#define A(member) offsetof(struct wire_answer, member)
static const struct field answer_fields[] = {
	{ "progress", FIELD_OBJECT, A(progress), "progress", .shape = &progress_shape },
	{ "error", FIELD_OBJECT, A(error), "error", .shape = &wire_error_shape },
	{ "image", FIELD_OBJECT, A(image), "the image", .shape = &image_shape },
	{ "complete", FIELD_BOOL, A(complete), "all is written" },
	{ "sockets", FIELD_NUMBER, A(sockets), "sockets that were left out" },
	{ 0 },
};
const struct shape wire_answer_shape = { "wire-answer", sizeof(struct wire_answer), answer_fields, "Answer." };

int wire_send(int fd, const struct shape *shape, const void *value, struct err *e)
{
	json_t *json = encode(shape, value);
	char *text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	if (!text)
		return err_set(e, ERR_INVALID, "%s is not UTF-8 text", shape->name);
	own_strbuf struct str line = { 0 };
	str_puts(&line, text);
	str_putc(&line, '\n');
	explicit_bzero(text, strlen(text));
	free(text);
	int r = fs_write_all(fd, line.bytes, line.length, e);
	explicit_bzero(line.bytes, line.length);
	return r;
}

int wire_receive(int fd, const struct shape *shape, void *ret_value, struct err *e)
{
	own_strbuf struct str line = { 0 };
	char c;

	for (ssize_t n; (n = read(fd, &c, 1)) != 0 && c != '\n';) {
		if (n < 0)
			return err_errno(e, errno, "read the request");
		str_putc(&line, c);
		if (line.length > WIRE_LINE_BYTES_MOST)
			return err_set(e, ERR_TOO_LARGE, "the request is too long");
	}
	int r = decode_text(str_text(&line), line.length, "request", shape, ret_value, e);
	if (line.bytes)
		explicit_bzero(line.bytes, line.length);
	return r;
}

/* On one line, without what a terminal takes for commands. */
static char *sendable(const char *text)
{
	char *copy = utf8_or_replaced(text);
	for (char *c = copy; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	return copy;
}

int wire_send_error(int fd, const struct err *error, struct err *e)
{
	own_str char *message = sendable(error->message), *hint = sendable(error->hint);
	struct wire_error w = { .kind = (char *)(uintptr_t)err_kind_name(error->kind), .message = message,
				.hint = *hint ? hint : NULL };
	struct wire_answer a = { .error = &w };
	return wire_send(fd, &wire_answer_shape, &a, e);
}

int wire_error_take(const struct wire_error *error, struct err *e)
{
	int r = err_set(e, err_kind_from_name(error->kind), "%s", error->message);
	return error->hint ? err_hint(e, "%s", error->hint) : r;
}

char *wire_program(const char *name)
{
	const char *folder = getenv("CARREL_LIBEXEC");
	return folder ? mem_printf("%s/%s", folder, name) : mem_printf("%s/libexec/carrel/%s", fs_prefix(), name);
}
