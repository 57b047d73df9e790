/* SPDX-License-Identifier: Apache-2.0 */
/* What comes from a machine whose kernel may be hostile: frames in pieces, then each message by its type. First byte: size of a
 * piece. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "model/guest_protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct guest_shape *const shapes[GUEST_TYPE_COUNT] = {
	[GUEST_HELLO] = &guest_hello_shape,   [GUEST_CONFIGURE] = &guest_config_shape, [GUEST_STATE] = &guest_state_shape,
	[GUEST_ANSWER] = &guest_answer_shape, [GUEST_OPEN] = &guest_open_shape,	       [GUEST_CLOSE] = &guest_close_shape,
	[GUEST_IDENTITY] = &guest_identity_shape,
};

/* What was understood is written the same way again, and read again. */
static void take(const struct guest_frame *f)
{
	uint64_t value[64];
	struct err e;
	own_strbuf struct str again = { 0 };

	if (f->type >= GUEST_TYPE_COUNT || !shapes[f->type])
		return;
	const struct guest_shape *shape = shapes[f->type];
	if (shape->size > sizeof value)
		abort();
	if (guest_decode(shape, f->payload, f->length, value, &e) < 0)
		return;
	guest_encode(shape, value, &again);
	guest_done(shape, value);
	if (guest_decode(shape, again.bytes, again.length, value, &e) < 0)
		abort();
	if (f->type == GUEST_ANSWER)
		(void)!guest_error_get(&((struct guest_answer *)(void *)value)->error, &e);
	guest_done(shape, value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct guest_reader r;
	struct guest_frame f;
	size_t piece = size ? (size_t)data[0] + 1 : 1;

	guest_reader_init(&r, GUEST_ANSWER_LONGEST);
	for (size_t at = 1; at < size; at += piece) {
		guest_reader_add(&r, data + at, size - at < piece ? size - at : piece);
		while (guest_reader_next(&r, &f))
			take(&f);
		if (r.buffer.length > GUEST_ANSWER_LONGEST + GUEST_HEADER + 2 * piece)
			abort();
	}
	guest_reader_done(&r);
	return 0;
}
