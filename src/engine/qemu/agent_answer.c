/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A value lies in a line of at most QMP_LINE_LONGEST that was checked whole, so its ends are known and nothing here
 * runs past them; what is left to check is meaning. A piece of a file is refused unless its length, its base64 and its count
 * agree: one wrong byte would be a wrong file. What a program said is for people: it is cut and made printable, never refused.
 */
#include "engine/qemu/agent_answer.h"

#include <string.h>

#include "base/mem.h"
#include "base/own.h"

#define SAID_MOST 300

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void agent_quote(struct str *out, const char *text)
{
	str_putc(out, '"');
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f)
			str_printf(out, "\\u%04x", c);
		else
			str_putc(out, *text);
	}
	str_putc(out, '"');
}

/* --- base64 --- */

static int digit_of(char c)
{
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* How many characters were base64's digits. */
static size_t decode(struct str *out, const char *text, size_t length, size_t most)
{
	unsigned bits = 0, count = 0;
	size_t from = out->length;

	for (size_t i = 0; i < length; i++) {
		int digit = digit_of(text[i]);
		if (digit < 0 || out->length - from >= most)
			return i;
		bits = bits << 6 | (unsigned)digit;
		if ((count += 6) >= 8) {
			count -= 8;
			str_putc(out, (char)(bits >> count & 0xff));
		}
	}
	return length;
}

static bool is_string(struct qmp_value v) { return v.length >= 2 && v.at[0] == '"'; }

bool agent_decode(struct str *out, struct qmp_value text)
{
	if (!is_string(text) || (text.length - 2) % 4)
		return false;
	const char *at = text.at + 1;
	size_t length = text.length - 2;
	for (int padding = 0; padding < 2 && length && at[length - 1] == '='; padding++)
		length--;
	return decode(out, at, length, SIZE_MAX) == length;
}

void agent_decode_some(struct str *out, struct qmp_value text, size_t most)
{
	if (is_string(text))
		(void)decode(out, text.at + 1, text.length - 2, most);
}

/* --- files --- */

static int wrong(const char *command, struct err *e)
{
	return err_set(e, ERR_CORRUPT, "the guest's agent answered %s with something else than it must", command);
}

int agent_handle(struct qmp_value value, uint64_t *ret_handle, struct err *e)
{
	own_str char *text = mem_strndup(value.length ? value.at : "", value.length);

	return value.length && str_to_u64(text, INT64_MAX, ret_handle) >= 0 ? 0 : wrong("guest-file-open", e);
}

int agent_read(struct qmp_value value, struct str *out, struct err *e)
{
	size_t from = out->length;
	struct qmp_value text;
	uint64_t count;

	if (qmp_number(value, "count", &count) && count == 0)
		return 0;
	if (!qmp_number(value, "count", &count) || count > AGENT_PIECE || !qmp_member(value, "buf-b64", &text) ||
	    text.length > AGENT_PIECE / 3 * 4 + 2 || !agent_decode(out, text) || out->length - from != count) {
		if (out->length > from) {
			out->length = from;
			out->bytes[from] = '\0';
		}
		return wrong("guest-file-read", e);
	}
	return 0;
}

int agent_written(struct qmp_value value, size_t sent, size_t *ret_count, struct err *e)
{
	uint64_t count;

	if (!qmp_number(value, "count", &count) || count > sent || count == 0)
		return wrong("guest-file-write", e);
	*ret_count = (size_t)count;
	return 0;
}

/* --- programs --- */

int agent_pid(struct qmp_value value, uint64_t *ret_pid, struct err *e)
{
	return qmp_number(value, "pid", ret_pid) && *ret_pid <= INT64_MAX ? 0 : wrong("guest-exec", e);
}

int agent_status(struct qmp_value value, struct agent_status *ret_status, struct err *e)
{
	struct qmp_value exited;
	uint64_t number;

	if (!qmp_member(value, "exited", &exited) || (*exited.at != 't' && *exited.at != 'f'))
		return wrong("guest-exec-status", e);
	*ret_status = (struct agent_status){ .exited = *exited.at == 't' };
	if (qmp_number(value, "signal", &number))
		ret_status->status = 128 + (int)(number & 127);
	else if (qmp_number(value, "exitcode", &number))
		ret_status->status = number && !(number & 255) ? 255 : (int)(number & 255);
	else if (ret_status->exited)
		ret_status->status = 255;
	return 0;
}

int agent_tar_error(const struct str *said, struct err *e)
{
	static const struct {
		const char *words;
		enum err_kind kind;
	} known[] = {
		{ "No space left", ERR_NO_CAPACITY }, { "Disk quota", ERR_NO_CAPACITY },  { "Read-only", ERR_DENIED },
		{ "ermission denied", ERR_DENIED },   { "not permitted", ERR_DENIED },    { "No such file", ERR_NOT_FOUND },
		{ "Not a directory", ERR_CONFLICT },  { "Is a directory", ERR_CONFLICT },
	};
	own_str char *text = mem_strndup(str_text(said), said->length < SAID_MOST ? said->length : SAID_MOST);
	enum err_kind kind = ERR_INTERNAL;
	size_t length = strlen(text);

	while (length && (text[length - 1] == '\n' || text[length - 1] == ' '))
		text[--length] = '\0';
	for (char *at = text; *at; at++)
		if ((unsigned char)*at < 0x20 || (unsigned char)*at >= 0x7f)
			*at = *at == '\n' ? ' ' : '?';
	for (size_t i = 0; i < ARRAY_SIZE(known) && kind == ERR_INTERNAL; i++)
		if (strstr(text, known[i].words))
			kind = known[i].kind;
	return err_set(e, kind, "in the guest, %s", length ? text : "tar failed without a word");
}
