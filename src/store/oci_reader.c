/* SPDX-License-Identifier: Apache-2.0 */
#include "store/oci_reader.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "store/child.h"

typedef int parse_fn(const char *bytes, size_t length, const char *source, void *ret_value, struct err *e);

struct task {
	const struct str *bytes;
	const char *source;
	const struct shape *shape;
	parse_fn *parse;
};

static int parse_document(const char *bytes, size_t length, const char *source, void *ret_value, struct err *e)
{
	return oci_parse_document(bytes, length, source, ret_value, e);
}

static int parse_config(const char *bytes, size_t length, const char *source, void *ret_value, struct err *e)
{
	return oci_parse_config(bytes, length, source, ret_value, e);
}

static int parse_saved(const char *bytes, size_t length, const char *source, void *ret_value, struct err *e)
{
	return oci_parse_saved(bytes, length, source, ret_value, e);
}

/* In the child. */
static int digest_document(void *data, int output_fd, struct err *e)
{
	const struct task *t = data;
	own_str void *value = mem_alloc(t->shape->size);

	int r = t->parse(str_text(t->bytes), t->bytes->length, t->source, value, e);
	if (r < 0)
		return r;
	json_t *json = encode(t->shape, value);
	own_str char *text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	shape_done(t->shape, value);
	return text ? fs_write_all(output_fd, text, strlen(text), e) :
		      err_set(e, ERR_CORRUPT, "%s is not UTF-8 text", t->source);
}

/* What the child says is parsed by the same code, so it is no more trusted than the bytes were: but it can only be smaller. */
static int read_in_child(struct task *t, void *ret_value, struct err *e)
{
	own_strbuf struct str answer = { 0 };

	if (t->bytes->length > OCI_DOCUMENT_BYTES_MOST)
		return err_set(e, ERR_TOO_LARGE, "%s has %zu bytes, at most 4 MiB are read", t->source, t->bytes->length);
	int r = child_answer("the reader of image documents", digest_document, t, 2 * OCI_DOCUMENT_BYTES_MOST, &answer, e);
	if (r < 0)
		return r;
	return decode_text(str_text(&answer), answer.length, t->source, t->shape, ret_value, e);
}

int oci_read_document(const struct str *bytes, const char *source, struct oci_document *ret_document, struct err *e)
{
	struct task t = { bytes, source, &oci_document_shape, parse_document };
	return read_in_child(&t, ret_document, e);
}

int oci_read_config(const struct str *bytes, const char *source, struct oci_config *ret_config, struct err *e)
{
	struct task t = { bytes, source, &oci_config_shape, parse_config };
	return read_in_child(&t, ret_config, e);
}

int oci_read_saved(const struct str *bytes, const char *source, struct oci_saved *ret_saved, struct err *e)
{
	struct task t = { bytes, source, &oci_saved_shape, parse_saved };
	return read_in_child(&t, ret_saved, e);
}
