/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/workspace/checkpoint_ids.h"

#include <string.h>

#include "base/own.h"

/* IMG_COMMON_MAGIC and USERNS_MAGIC of CRIU's magic.h. */
static const char magic[8] = "\x19\x43\x56\x54\x06\x49\x47\x55";

/* Where the first map's lower_first is: magic, length of the message, uid_map and its length, first = 0. */
#define FIRST_ID_AT 17

static void add_varint(struct str *out, uint32_t value)
{
	for (; value > 127; value >>= 7)
		str_putc(out, (char)(value | 128));
	str_putc(out, (char)value);
}

static void build(uint32_t first_id, struct str *out)
{
	own_strbuf struct str extent = { 0 };
	uint8_t length[4] = { 0 };

	str_add(&extent, "\x08\0\x10", 3); /* first: 0; lower_first: */
	add_varint(&extent, first_id);
	str_putc(&extent, '\x18'); /* count */
	add_varint(&extent, 65536);
	length[0] = (uint8_t)(2 * (extent.length + 2));
	str_add(out, magic, sizeof magic);
	str_add(out, length, sizeof length);
	for (char field = 1; field <= 2; field++) { /* uid_map, gid_map */
		str_putc(out, (char)(field << 3 | 2));
		str_putc(out, (char)extent.length);
		str_add(out, extent.bytes, extent.length);
	}
}

int checkpoint_ids_move(const struct str *image, uint32_t first_id, struct str *ret_image, struct err *e)
{
	own_strbuf struct str same = { 0 };
	uint64_t was = 0;

	for (size_t i = 0; i < 5 && FIRST_ID_AT + i < image->length; i++) {
		uint8_t byte = (uint8_t)image->bytes[FIRST_ID_AT + i];
		was |= (uint64_t)(byte & 127) << 7 * i;
		if (!(byte & 128))
			break;
	}
	build((uint32_t)was, &same);
	if (same.length != image->length || memcmp(same.bytes, image->bytes, same.length) != 0)
		return err_set(e, ERR_CORRUPT, "the memory state's users are not those of a workspace");
	build(first_id, ret_image);
	return 0;
}
