/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRIU's remote procedure calls: images/rpc.proto of its sources (MIT), field numbers from there. The encoding is protobuf's
 * (protobuf.dev/programming-guides/encoding): each field is a key (number << 3 | wire type) and a varint or a length with
 * bytes.
 */
#include "engine/workspace/checkpoint.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"

enum wire { VARINT, FIXED64, BYTES, FIXED32 = 5 };
enum option_kind { NUMBER, TEXT, INHERIT };

static const struct option_field {
	const char *name;
	unsigned number;
	enum option_kind kind;
} option_fields[] = {
	{ "images_dir_fd", 1, NUMBER },     { "pid", 2, NUMBER },		{ "leave_running", 3, NUMBER },
	{ "ext_unix_sk", 4, NUMBER },	    { "tcp_established", 5, NUMBER },	{ "evasive_devices", 6, NUMBER },
	{ "file_locks", 8, NUMBER },	    { "log_level", 9, NUMBER },		{ "log_file", 10, TEXT },
	{ "notify_scripts", 12, NUMBER },   { "root", 13, TEXT },		{ "link_remap", 18, NUMBER },
	{ "cpu_cap", 20, NUMBER },	    { "force_irmap", 21, NUMBER },	{ "work_dir_fd", 17, NUMBER },	{ "rst_sibling",
	  26, NUMBER },
	{ "inherit_fd", 27, INHERIT },	    { "manage_cgroups_mode", 34, NUMBER }, { "ghost_limit", 35, NUMBER },
	{ "irmap_scan_paths", 36, TEXT },   { "external", 37, TEXT },		{ "empty_ns", 38, NUMBER },
	{ "freeze_cgroup", 44, TEXT },	    { "timeout", 45, NUMBER },		{ "orphan_pts_master", 50, NUMBER },
	{ "network_lock", 64, NUMBER },     { "skip_file_rwx_check", 66, NUMBER }, { "leave_stopped", 69, NUMBER },
};

static void put_varint(struct str *out, uint64_t n)
{
	for (; n >= 0x80; n >>= 7)
		str_putc(out, (char)(n | 0x80));
	str_putc(out, (char)n);
}

static void put_number(struct str *out, unsigned field, uint64_t n)
{
	put_varint(out, (uint64_t)field << 3 | VARINT);
	put_varint(out, n);
}

static void put_bytes(struct str *out, unsigned field, const void *bytes, size_t length)
{
	put_varint(out, (uint64_t)field << 3 | BYTES);
	put_varint(out, length);
	str_add(out, bytes, length);
}

static int put_option(struct str *out, const struct checkpoint_option *o, struct err *e)
{
	own_strbuf struct str inner = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(option_fields); i++) {
		const struct option_field *f = &option_fields[i];
		if (!str_eq(f->name, o->name))
			continue;
		switch (f->kind) {
		case NUMBER:
			put_number(out, f->number, (uint64_t)o->number);
			return 0;
		case TEXT:
			put_bytes(out, f->number, o->text, strlen(o->text));
			return 0;
		case INHERIT:
			put_bytes(&inner, 1, o->text, strlen(o->text));
			put_number(&inner, 2, (uint64_t)o->number);
			put_bytes(out, f->number, inner.bytes, inner.length);
			return 0;
		}
	}
	return err_set(e, ERR_INTERNAL, "CRIU has no option %s", o->name);
}

int checkpoint_encode_request(enum checkpoint_request type, const struct checkpoint_options *o, struct str *out, struct err *e)
{
	own_strbuf struct str options = { 0 };

	for (size_t i = 0; o && i < o->count; i++) {
		int r = put_option(&options, &o->items[i], e);
		if (r < 0)
			return r;
	}
	put_number(out, 1, type);
	if (o)
		put_bytes(out, 2, options.bytes, options.length);
	return 0;
}

void checkpoint_encode_notified(struct str *out)
{
	put_number(out, 1, CHECKPOINT_NOTIFY);
	put_number(out, 3, 1);
}

/* --- answers --- */

struct reader {
	const unsigned char *at, *end;
	bool failed;
};

static uint64_t get_varint(struct reader *r)
{
	uint64_t n = 0;

	for (unsigned shift = 0; shift < 64 && r->at < r->end; shift += 7) {
		unsigned char byte = *r->at++;
		n |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return n;
	}
	r->failed = true;
	return 0;
}

/* A field: its number, or its bytes in *ret_inner. 0: the end. */
static unsigned get_field(struct reader *r, uint64_t *ret_number, struct reader *ret_inner)
{
	*ret_number = 0;
	*ret_inner = (struct reader){ 0 };
	if (r->at == r->end || r->failed)
		return 0;
	uint64_t key = get_varint(r), length;
	switch ((enum wire)(key & 7)) {
	case VARINT:
		*ret_number = get_varint(r);
		break;
	case BYTES:
		length = get_varint(r);
		if (length > (uint64_t)(r->end - r->at)) {
			r->failed = true;
			return 0;
		}
		*ret_inner = (struct reader){ .at = r->at, .end = r->at + length };
		r->at += length;
		break;
	case FIXED64:
	case FIXED32:
		length = (key & 7) == FIXED64 ? 8 : 4;
		if (length > (uint64_t)(r->end - r->at))
			r->failed = true;
		else
			r->at += length;
		break;
	default:
		r->failed = true;
	}
	return r->failed || key >> 3 == 0 || key >> 3 > 1u << 29 ? (r->failed = true, 0) : (unsigned)(key >> 3);
}

static void get_text(const struct reader *inner, char *out, size_t size)
{
	size_t n = (size_t)(inner->end - inner->at);

	n = n < size ? n : size - 1;
	if (n)
		memcpy(out, inner->at, n);
	out[n] = '\0';
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)out[i] < 0x20)
			out[i] = ' ';
}

/* criu_restore_resp: pid 1; criu_notify: script 1, pid 2; criu_version: major 1, minor 2, sublevel 4. */
static void get_inner(struct reader inner, unsigned outer, struct checkpoint_answer *a, bool *failed)
{
	struct reader text;
	uint64_t number;
	unsigned field;

	while ((field = get_field(&inner, &number, &text)) != 0) {
		if ((outer == 4 && field == 1) || (outer == 5 && field == 2))
			a->pid = (pid_t)number;
		else if (outer == 5 && field == 1)
			get_text(&text, a->script, sizeof a->script);
		else if (outer == 10 && field == 1)
			a->major = (unsigned)number;
		else if (outer == 10 && field == 2)
			a->minor = (unsigned)number;
		else if (outer == 10 && field == 4)
			a->sublevel = (unsigned)number;
	}
	*failed |= inner.failed;
}

int checkpoint_decode_answer(const void *bytes, size_t length, struct checkpoint_answer *ret_answer, struct err *e)
{
	struct reader r = { .at = bytes, .end = (const unsigned char *)bytes + length }, inner;
	struct checkpoint_answer a = { 0 };
	bool failed = false;
	uint64_t number;
	unsigned field;

	while ((field = get_field(&r, &number, &inner)) != 0) {
		if (field == 1)
			a.type = (unsigned)number;
		else if (field == 2)
			a.success = number != 0;
		else if (field == 4 || field == 5 || field == 10)
			get_inner(inner, field, &a, &failed);
		else if (field == 7)
			a.number = (int)number;
		else if (field == 9)
			get_text(&inner, a.message, sizeof a.message);
	}
	if (r.failed || failed)
		return err_set(e, ERR_CORRUPT, "CRIU's answer of %zu bytes is cut", length);
	*ret_answer = a;
	return 0;
}
