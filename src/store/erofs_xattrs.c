/* SPDX-License-Identifier: Apache-2.0 */
#include "store/erofs_xattrs.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/erofs_format.h"

static const struct {
	const char *prefix;
	uint8_t index;
	bool whole; /* the name is the prefix */
} xattr_prefixes[] = {
	{ "user.", EROFS_XATTR_USER, false },
	{ "trusted.", EROFS_XATTR_TRUSTED, false },
	{ "security.", EROFS_XATTR_SECURITY, false },
	{ "system.posix_acl_access", EROFS_XATTR_ACL_ACCESS, true },
	{ "system.posix_acl_default", EROFS_XATTR_ACL_DEFAULT, true },
};

static int add_xattr(struct str *out, const struct erofs_xattr *x, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(xattr_prefixes); i++) {
		size_t prefix = strlen(xattr_prefixes[i].prefix), length = strlen(x->name);
		bool fits = str_starts(x->name, xattr_prefixes[i].prefix) && (length == prefix) == xattr_prefixes[i].whole;
		if (!fits || length - prefix > 255 || x->length > UINT16_MAX)
			continue;
		uint8_t head[XATTR_ENTRY_BYTES] = { (uint8_t)(length - prefix), xattr_prefixes[i].index };
		put_le16(head + XATTR_VALUE_LENGTH, (uint16_t)x->length);
		str_add(out, head, sizeof head);
		str_add(out, x->name + prefix, length - prefix);
		str_add(out, x->value, x->length);
		while (out->length % 4)
			str_putc(out, '\0');
		return 0;
	}
	return err_set(e, ERR_UNSUPPORTED, "extended attribute '%.100s' cannot be stored", x->name);
}

static int compare_xattrs(const void *a, const void *b)
{
	return strcmp(((const struct erofs_xattr *)a)->name, ((const struct erofs_xattr *)b)->name);
}

int erofs_encode_xattrs(const struct erofs_xattr *xattrs, size_t count, uint8_t **ret_bytes, size_t *ret_length, struct err *e)
{
	*ret_bytes = NULL;
	*ret_length = 0;
	if (!count)
		return 0;
	own_strbuf struct str out = { 0 };
	own_str struct erofs_xattr *sorted = mem_dup(xattrs, count * sizeof *xattrs);
	qsort(sorted, count, sizeof *sorted, compare_xattrs);
	str_add(&out, (uint8_t[XATTR_HEADER_BYTES]){ 0 }, XATTR_HEADER_BYTES);
	for (size_t i = 0; i < count; i++) {
		int r = add_xattr(&out, &sorted[i], e);
		if (r < 0)
			return r;
	}
	if (out.length > EROFS_XATTRS_BYTES_MOST)
		return err_set(e, ERR_TOO_LARGE, "extended attributes of %zu bytes, at most %d are possible", out.length,
			       EROFS_XATTRS_BYTES_MOST);
	*ret_length = out.length;
	*ret_bytes = (uint8_t *)str_take(&out);
	return 0;
}
