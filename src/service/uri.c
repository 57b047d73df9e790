/* SPDX-License-Identifier: Apache-2.0 */
#include "service/uri.h"

#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int decode_part(const char *part, size_t length, char **ret_text, struct err *e)
{
	own_strbuf struct str text = { 0 };

	for (size_t i = 0; i < length; i++) {
		int c = (unsigned char)part[i];
		if (c == '%') {
			int high = length - i > 2 ? hex_value(part[i + 1]) : -1;
			int low = high >= 0 ? hex_value(part[i + 2]) : -1;
			if (low < 0)
				return err_set(e, ERR_INVALID, "the address has a '%%' without two hex digits behind it");
			c = high * 16 + low;
			i += 2;
		}
		if (c < 0x20 || c == 0x7f)
			return err_set(e, ERR_INVALID, "the address has a control character");
		str_putc(&text, (char)c);
	}
	*ret_text = str_take(&text);
	return 0;
}

static int parse_path(const char *path, size_t length, struct uri *u, struct err *e)
{
	const char *end = path + length;

	while (path < end) {
		const char *start = path + 1;
		size_t size = strcspn(start, "/?#");
		if (start + size > end)
			size = (size_t)(end - start);
		if (size == 0)
			return err_set(e, ERR_NOT_FOUND, "the address has an empty part");
		if (u->segment_count == URI_SEGMENTS_MOST)
			return err_set(e, ERR_NOT_FOUND, "no such address");
		int r = decode_part(start, size, &u->segments[u->segment_count], e);
		if (r < 0)
			return r;
		u->segment_count++;
		path = start + size;
	}
	return 0;
}

static int parse_parameter(const char *text, size_t length, struct uri *u, struct err *e)
{
	own_str char *name = NULL;
	own_str char *value = NULL;
	const char *equals = memchr(text, '=', length);
	size_t name_length = equals ? (size_t)(equals - text) : length;

	int r = decode_part(text, name_length, &name, e);
	if (r == 0)
		r = equals ? decode_part(equals + 1, length - name_length - 1, &value, e) : 0;
	if (r < 0)
		return r;
	if (!*name || u->query.count == URI_QUERY_MOST)
		return err_set(e, ERR_INVALID,
			       *name ? "the query has too many parameters" : "the query has a parameter without a name");
	if (pairs_get(&u->query, name))
		return err_set(e, ERR_INVALID, "the query has the parameter '%s' twice", name);
	pairs_set(&u->query, name, value ? value : "");
	return 0;
}

int uri_parse(const char *target, struct uri *ret_uri, struct err *e)
{
	struct uri u = { 0 };
	size_t path_length = strcspn(target, "?");
	const char *query = target[path_length] ? target + path_length + 1 : "";
	int r = *target == '/' ? 0 : err_set(e, ERR_INVALID, "the address does not start with '/'");

	if (r == 0)
		r = parse_path(target, path_length, &u, e);
	while (r == 0 && *query) {
		size_t length = strcspn(query, "&");
		if (length)
			r = parse_parameter(query, length, &u, e);
		query += length + (query[length] == '&');
	}
	if (r < 0) {
		uri_done(&u);
		return r;
	}
	*ret_uri = u;
	return 0;
}

void uri_done(struct uri *u)
{
	for (size_t i = 0; i < u->segment_count; i++)
		free(u->segments[i]);
	pairs_done(&u->query);
	*u = (struct uri){ 0 };
}
