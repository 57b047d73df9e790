/* SPDX-License-Identifier: Apache-2.0 */
#include "network/question.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_MOST 63
#define CLASS_IN   1

static unsigned u16(const unsigned char *at) { return (unsigned)at[0] << 8 | at[1]; }

static char letter(unsigned char c)
{
	if (c >= 'A' && c <= 'Z')
		return (char)(c + 32);
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ? (char)c : '?';
}

int question_parse(const unsigned char *bytes, size_t length, char ret_name[static QUESTION_NAME_SIZE], size_t *ret_end)
{
	size_t at = QUESTION_HEADER, n = 0;

	/* a query (QR 0, OPCODE 0) with one question and no answers */
	if (length < QUESTION_HEADER + 5 || length > QUESTION_MOST || bytes[2] & 0xf8 || u16(bytes + 4) != 1 || u16(bytes + 6))
		return -EINVAL;
	while (at < length && bytes[at]) {
		size_t label = bytes[at++];
		if (label > LABEL_MOST || at + label >= length || n + label + 1 >= QUESTION_NAME_SIZE)
			return -EINVAL;
		if (n)
			ret_name[n++] = '.';
		for (size_t i = 0; i < label; i++)
			ret_name[n++] = letter(bytes[at++]);
	}
	ret_name[n] = '\0';
	if (at + 5 > length || u16(bytes + at + 3) != CLASS_IN)
		return -EINVAL;
	*ret_end = at + 5;
	return 0;
}

/* --- addresses as names (RFC 1035, 3.5; RFC 3596, 2.5) --- */

static bool read_four(const char *name, size_t length, struct names_address *out)
{
	const char *at = name;

	for (int i = 3; i >= 0; i--) {
		char *end;
		unsigned long value = *at >= '0' && *at <= '9' ? strtoul(at, &end, 10) : 256;
		if (value > 255 || (i ? *end != '.' : end != name + length))
			return false;
		out->bytes[i] = (unsigned char)value;
		at = end + 1;
	}
	return true;
}

static int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

static bool read_six(const char *name, size_t length, struct names_address *out)
{
	if (length != 63)
		return false;
	for (size_t i = 0; i < 32; i++) {
		int value = digit(name[i * 2]);
		size_t at = 15 - i / 2;
		if (value < 0 || (i < 31 && name[i * 2 + 1] != '.'))
			return false;
		out->bytes[at] = (unsigned char)(i % 2 ? out->bytes[at] | value << 4 : value);
	}
	out->ipv6 = 1;
	return true;
}

/* Length of what stands before ".SUFFIX"; 0: it does not end so. */
static size_t before(const char *name, const char *suffix)
{
	size_t length = strlen(name), tail = strlen(suffix);

	return length > tail + 1 && name[length - tail - 1] == '.' && strcmp(name + length - tail, suffix) == 0
		       ? length - tail - 1
		       : 0;
}

void question_classify(const char *name, const char *zone, struct names_question *out)
{
	size_t label = before(name, zone), four = before(name, "in-addr.arpa"), six = before(name, "ip6.arpa");

	out->kind = NAMES_OUTSIDE;
	(void)snprintf(out->name, sizeof out->name, "%s", name);
	if (!label && !strchr(name, '.'))
		label = strlen(name);
	if (label && label < sizeof out->name && !memchr(name, '.', label)) {
		out->kind = NAMES_HERE;
		out->name[label] = '\0';
	} else if ((four && read_four(name, four, &out->about)) || (six && read_six(name, six, &out->about))) {
		out->kind = NAMES_ADDRESS;
	}
}

size_t question_refuse(unsigned char *bytes, size_t end, unsigned code)
{
	bytes[2] = (unsigned char)(0x80 | (bytes[2] & 0x01)); /* an answer; recursion was desired or not */
	bytes[3] = (unsigned char)(0x80 | code);              /* and is available */
	memset(bytes + 6, 0, 6);
	return end;
}
