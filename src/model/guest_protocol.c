/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Both directions go through here, so this file reads bytes of a guest that may be hostile: it allocates at most what
 * the payload's own length (which the reader bounded) allows, a list's elements included, because each element takes eight
 * bytes of it.
 */
#include "model/guest_protocol.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* --- numbers --- */

void guest_put_u32(uint8_t out[4], uint32_t n)
{
	n = htole32(n);
	memcpy(out, &n, sizeof n);
}

uint32_t guest_get_u32(const uint8_t in[4])
{
	uint32_t n;

	memcpy(&n, in, sizeof n);
	return le32toh(n);
}

/* --- frames: mark, session, type, number, length, check; 4 bytes each --- */

static uint32_t check_of(const uint32_t words[5])
{
	uint32_t sum = 0x811c9dc5;

	for (int i = 0; i < 5; i++) { /* FNV-1a over words: finds accidents, not forgers, who need none */
		sum ^= words[i];
		sum *= 0x01000193;
	}
	return sum;
}

void guest_frame_put(struct str *out, uint32_t session, enum guest_type type, uint32_t number, const void *payload,
		     size_t length)
{
	uint32_t words[5] = { GUEST_MARK, session, (uint32_t)type, number, (uint32_t)length };
	uint8_t header[GUEST_HEADER];

	for (int i = 0; i < 5; i++)
		guest_put_u32(header + 4 * i, words[i]);
	guest_put_u32(header + 20, check_of(words));
	str_add(out, header, sizeof header);
	str_add(out, payload, length);
}

void guest_reader_init(struct guest_reader *r, uint32_t longest) { *r = (struct guest_reader){ .longest = longest }; }

void guest_reader_done(struct guest_reader *r)
{
	str_done(&r->buffer);
	*r = (struct guest_reader){ 0 };
}

void guest_reader_add(struct guest_reader *r, const void *bytes, size_t length)
{
	if (r->taken) {
		str_drop_front(&r->buffer, r->taken);
		r->taken = 0;
	}
	str_add(&r->buffer, bytes, length);
}

static bool header_is_good(const struct guest_reader *r, const uint8_t *at, struct guest_frame *ret_frame)
{
	uint32_t words[5];

	for (int i = 0; i < 5; i++)
		words[i] = guest_get_u32(at + 4 * i);
	if (words[0] != GUEST_MARK || check_of(words) != guest_get_u32(at + 20) || words[4] > r->longest ||
	    words[2] > UINT16_MAX)
		return false;
	*ret_frame = (struct guest_frame){ .session = words[1], .type = (uint16_t)words[2], .number = words[3],
					   .length = words[4] };
	return true;
}

bool guest_reader_next(struct guest_reader *r, struct guest_frame *ret_frame)
{
	size_t at = r->taken;

	for (; r->buffer.length - at >= GUEST_HEADER; at++) {
		const uint8_t *header = (const uint8_t *)r->buffer.bytes + at;
		struct guest_frame f;
		if (!header_is_good(r, header, &f)) {
			r->noise_bytes++;
			continue;
		}
		r->taken = at;
		if (r->buffer.length - at - GUEST_HEADER < f.length)
			return false;
		r->taken = at + GUEST_HEADER + f.length;
		f.payload = header + GUEST_HEADER;
		*ret_frame = f;
		return true;
	}
	r->taken = at;
	return false;
}

/* --- messages --- */

#define HEAD 8

static void put_head(struct str *out, uint16_t tag, size_t length)
{
	uint8_t head[HEAD];

	guest_put_u32(head, tag);
	guest_put_u32(head + 4, (uint32_t)length);
	str_add(out, head, sizeof head);
}

static void put_text(struct str *out, uint16_t tag, const char *text)
{
	put_head(out, tag, strlen(text));
	str_puts(out, text);
}

static void put_objects(struct str *out, const struct guest_field *f, const struct guest_objects *list)
{
	for (size_t i = 0; i < list->count; i++) {
		own_strbuf struct str inner = { 0 };
		guest_encode(f->shape, (const char *)list->items + i * f->shape->size, &inner);
		put_head(out, f->tag, inner.length);
		str_add(out, inner.bytes, inner.length);
	}
}

static void put_field(struct str *out, const struct guest_field *f, const void *at)
{
	const struct guest_bytes *bytes = at;
	const struct guest_texts *texts = at;
	uint64_t number;

	switch (f->type) {
	case GUEST_NUMBER:
		number = htole64(*(const uint64_t *)at);
		put_head(out, f->tag, sizeof number);
		str_add(out, &number, sizeof number);
		break;
	case GUEST_TEXT:
		if (*(char *const *)at)
			put_text(out, f->tag, *(char *const *)at);
		break;
	case GUEST_BYTES:
		put_head(out, f->tag, bytes->length);
		str_add(out, bytes->bytes, bytes->length);
		break;
	case GUEST_TEXTS:
		for (size_t i = 0; i < texts->count; i++)
			put_text(out, f->tag, texts->items[i]);
		break;
	case GUEST_OBJECTS:
		put_objects(out, f, at);
		break;
	}
}

void guest_encode(const struct guest_shape *shape, const void *value, struct str *out)
{
	for (const struct guest_field *f = shape->fields; f->tag; f++)
		put_field(out, f, (const char *)value + f->offset);
}

static void free_field(const struct guest_field *f, void *at)
{
	struct guest_texts *texts = at;
	struct guest_objects *objects = at;

	if (f->type == GUEST_TEXT || f->type == GUEST_BYTES)
		free(*(void **)at); /* `bytes` is the first member */
	for (size_t i = 0; f->type == GUEST_TEXTS && i < texts->count; i++)
		free(texts->items[i]);
	for (size_t i = 0; f->type == GUEST_OBJECTS && i < objects->count; i++)
		guest_done(f->shape, (char *)objects->items + i * f->shape->size);
	if (f->type == GUEST_TEXTS || f->type == GUEST_OBJECTS)
		free(*(void **)at); /* `items` is */
}

void guest_done(const struct guest_shape *shape, void *value)
{
	for (const struct guest_field *f = shape->fields; f->tag; f++)
		free_field(f, (char *)value + f->offset);
	memset(value, 0, shape->size);
}

static int take_text(const struct guest_field *f, const uint8_t *bytes, size_t length, char **ret_text, struct err *e)
{
	if (length > f->most)
		return err_set(e, ERR_TOO_LARGE, "field %u has %zu bytes, the most is %u", f->tag, length, f->most);
	if (length && memchr(bytes, '\0', length))
		return err_set(e, ERR_CORRUPT, "text of field %u has a NUL", f->tag);
	*ret_text = mem_strndup((const char *)bytes, length);
	return 0;
}

static int take_object(const struct guest_field *f, const uint8_t *bytes, size_t length, struct guest_objects *list,
		       struct err *e)
{
	size_t size = f->shape->size;

	if (list->count == f->most)
		return err_set(e, ERR_TOO_LARGE, "field %u is there more than %u times", f->tag, f->most);
	list->items = mem_grow_array(list->items, list->count + 1, size);
	int r = guest_decode(f->shape, bytes, length, (char *)list->items + list->count * size, e);
	if (r >= 0)
		list->count++;
	return r;
}

#define TEXT_MOST 131072 /* one element of a list of texts: the longest argument that Linux takes */

static int take_field(const struct guest_field *f, const uint8_t *bytes, size_t length, void *at, struct err *e)
{
	struct guest_bytes *blob = at;
	struct guest_texts *texts = at;
	struct guest_field element = { .tag = f->tag, .most = TEXT_MOST };
	uint64_t number;
	int r;

	switch (f->type) {
	case GUEST_NUMBER:
		if (length != sizeof number)
			return err_set(e, ERR_CORRUPT, "number of field %u has %zu bytes", f->tag, length);
		memcpy(&number, bytes, sizeof number);
		*(uint64_t *)at = le64toh(number);
		return 0;
	case GUEST_TEXT:
		free(*(char **)at);
		*(char **)at = NULL;
		return take_text(f, bytes, length, at, e);
	case GUEST_BYTES:
		if (length > f->most)
			return err_set(e, ERR_TOO_LARGE, "field %u has %zu bytes, the most is %u", f->tag, length, f->most);
		free(blob->bytes);
		*blob = (struct guest_bytes){ .bytes = mem_dup(bytes, length), .length = length };
		return 0;
	case GUEST_TEXTS:
		if (texts->count == f->most)
			return err_set(e, ERR_TOO_LARGE, "field %u is there more than %u times", f->tag, f->most);
		texts->items = mem_grow_array(texts->items, texts->count + 1, sizeof *texts->items);
		r = take_text(&element, bytes, length, &texts->items[texts->count], e);
		texts->count += r >= 0;
		return r;
	case GUEST_OBJECTS:
		return take_object(f, bytes, length, at, e);
	}
	return err_set(e, ERR_INTERNAL, "field %u has no type", f->tag);
}

static int take_fields(const struct guest_shape *shape, const uint8_t *at, size_t left, void *value, struct err *e)
{
	while (left) {
		if (left < HEAD || guest_get_u32(at + 4) > left - HEAD)
			return err_set(e, ERR_CORRUPT, "message is cut inside a field");
		uint32_t tag = guest_get_u32(at), length = guest_get_u32(at + 4);
		const struct guest_field *f = shape->fields;
		while (f->tag && f->tag != tag)
			f++;
		int r = f->tag ? take_field(f, at + HEAD, length, (char *)value + f->offset, e) : 0;
		if (r < 0)
			return r;
		at += HEAD + length;
		left -= HEAD + length;
	}
	return 0;
}

int guest_decode(const struct guest_shape *shape, const void *bytes, size_t length, void *ret_value, struct err *e)
{
	memset(ret_value, 0, shape->size);
	int r = take_fields(shape, bytes, length, ret_value, e);
	if (r < 0) {
		guest_done(shape, ret_value);
		return r;
	}
	for (const struct guest_field *f = shape->fields; f->tag; f++) {
		char **text = (char **)((char *)ret_value + f->offset);
		if (f->type == GUEST_TEXT && !*text)
			*text = mem_strdup("");
	}
	return 0;
}

/* --- the tables --- */

#define NUMBER(tag_, type_, member) { .tag = tag_, .type = GUEST_NUMBER, .offset = offsetof(struct type_, member) }
#define TEXT(tag_, type_, member, most_) \
	{ .tag = tag_, .type = GUEST_TEXT, .offset = offsetof(struct type_, member), .most = most_ }
#define BYTES(tag_, type_, member, most_) \
	{ .tag = tag_, .type = GUEST_BYTES, .offset = offsetof(struct type_, member), .most = most_ }
#define TEXTS(tag_, type_, member, most_) \
	{ .tag = tag_, .type = GUEST_TEXTS, .offset = offsetof(struct type_, member), .most = most_ }
#define OBJECTS(tag_, type_, member, most_, shape_)                                                                            \
	{ .tag = tag_, .type = GUEST_OBJECTS, .offset = offsetof(struct type_, member), .most = most_, .shape = &(shape_) }
#define SHAPE(name, type_, ...)                                                        \
	const struct guest_shape name = { .size = sizeof(struct type_),                \
					  .fields = (const struct guest_field[]){ __VA_ARGS__, { 0 } } }

#define PATH_MOST 4096
#define WORDS_MOST 65536 /* as many as fit into RUNNER_TEXTS_LONGEST */

SHAPE(guest_hello_shape, guest_hello, NUMBER(1, guest_hello, version), NUMBER(2, guest_hello, features),
      TEXT(3, guest_hello, boot_id, 64), TEXT(4, guest_hello, release, 64), NUMBER(5, guest_hello, uptime_ns));

static SHAPE(interface_shape, guest_interface, TEXT(1, guest_interface, mac, 17), TEXT(2, guest_interface, name, 15),
	     NUMBER(3, guest_interface, mtu), TEXTS(4, guest_interface, addresses, 64), TEXTS(5, guest_interface, routes, 256));

static SHAPE(volume_shape, guest_volume, TEXT(1, guest_volume, name, 255), TEXT(2, guest_volume, serial, GUEST_SERIAL_LONGEST));

SHAPE(guest_config_shape, guest_config, TEXTS(1, guest_config, partitions, 400),
      TEXT(2, guest_config, root, GUEST_SERIAL_LONGEST), OBJECTS(3, guest_config, volumes, 63, volume_shape),
      OBJECTS(4, guest_config, interfaces, 32, interface_shape), BYTES(5, guest_config, plan, GUEST_PAYLOAD_LONGEST),
      BYTES(6, guest_config, seed, 256), NUMBER(7, guest_config, clock_ns), NUMBER(8, guest_config, rescan),
      TEXT(9, guest_config, kernel, GUEST_SERIAL_LONGEST), TEXT(10, guest_config, luggage, GUEST_SERIAL_LONGEST),
      TEXT(11, guest_config, images, GUEST_SERIAL_LONGEST), TEXTS(12, guest_config, features, 512));

SHAPE(guest_identity_shape, guest_identity, TEXT(1, guest_identity, host_name, 64), TEXT(2, guest_identity, machine_id, 64),
      OBJECTS(4, guest_identity, interfaces, 32, interface_shape), BYTES(6, guest_identity, seed, 256),
      NUMBER(7, guest_identity, clock_ns), NUMBER(8, guest_identity, clone));

static SHAPE(error_shape, guest_error, TEXT(1, guest_error, kind, 64), TEXT(2, guest_error, message, 1024),
	     TEXT(3, guest_error, hint, 512));

SHAPE(guest_state_shape, guest_state, NUMBER(1, guest_state, phase), NUMBER(2, guest_state, exit_status),
      OBJECTS(3, guest_state, error, 1, error_shape), NUMBER(4, guest_state, uptime_ns));

SHAPE(guest_answer_shape, guest_answer, OBJECTS(3, guest_answer, error, 1, error_shape), NUMBER(4, guest_answer, told));

SHAPE(guest_close_shape, guest_close, NUMBER(2, guest_close, exit_status), OBJECTS(3, guest_close, error, 1, error_shape));

SHAPE(guest_open_shape, guest_open, NUMBER(1, guest_open, kind), NUMBER(2, guest_open, terminal), NUMBER(3, guest_open, input),
      NUMBER(4, guest_open, rows), NUMBER(5, guest_open, columns), TEXT(6, guest_open, user, 256),
      TEXT(7, guest_open, directory, PATH_MOST), TEXT(8, guest_open, path, PATH_MOST),
      TEXTS(9, guest_open, command, WORDS_MOST), TEXTS(10, guest_open, environment, WORDS_MOST));

/* --- errors --- */

void guest_error_set(struct guest_objects *list, const struct err *e)
{
	struct guest_error *error = mem_alloc(sizeof *error);

	*error = (struct guest_error){ .kind = mem_strdup(err_kind_name(e->kind)), .message = mem_strdup(e->message),
				       .hint = mem_strdup(e->hint) };
	*list = (struct guest_objects){ .items = error, .count = 1 };
}

static void make_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

int guest_error_get(const struct guest_objects *list, struct err *e)
{
	if (!list->count)
		return 0;
	const struct guest_error *error = list->items;
	struct err said = { 0 };
	int r = err_set(&said, err_kind_from_name(error->kind), "%s", error->message);
	if (*error->hint)
		(void)err_hint(&said, "%s", error->hint);
	make_printable(said.message);
	make_printable(said.hint);
	if (e)
		*e = said;
	return r;
}
