/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err_json.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/own.h"
#include "base/str.h"

/* Bytes of the character at `s`, 0 when it is none (RFC 3629: no surrogates, nothing longer than needed, up to U+10FFFF). */
static size_t character(const unsigned char *s)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t length = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
	uint32_t point = length <= 1 ? s[0] : s[0] & (0x7fU >> length);

	for (size_t i = 1; i < length; i++) {
		if (s[i] >> 6 != 2) /* the end of the text too */
			return 0;
		point = point << 6 | (s[i] & 0x3f);
	}
	bool surrogate = point >= 0xd800 && point < 0xe000;
	return length > 1 && (point < least[length] || point > 0x10ffff || surrogate) ? 0 : length;
}

char *utf8_or_replaced(const char *text)
{
	own_strbuf struct str out = { 0 };

	for (const char *s = text; *s;) {
		size_t length = character((const unsigned char *)s);
		if (length)
			str_printf(&out, "%.*s", (int)length, s);
		else
			str_puts(&out, "\xef\xbf\xbd");
		s += length ? length : 1;
	}
	return str_take(&out);
}

json_t *err_to_json(const struct err *e)
{
	own_str char *message = utf8_or_replaced(e->message), *hint = utf8_or_replaced(e->hint);
	json_t *json = json_pack("{s:s, s:s}", "kind", err_kind_name(e->kind), "message", message);

	if (*hint)
		(void)json_object_set_new(json, "hint", json_string(hint));
	return json;
}
