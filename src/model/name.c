/* SPDX-License-Identifier: Apache-2.0 */
#include "model/name.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/mem.h"
#include "base/str.h"

static bool is_plain(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

int name_check(const char *name, struct err *e)
{
	size_t length = strnlen(name, NAME_LONGEST + 1);

	if (length == 0 || length > NAME_LONGEST)
		return err_set(e, ERR_INVALID, "a name has 1 to %d characters", NAME_LONGEST);
	for (size_t i = 0; i < length; i++)
		if (!is_plain(name[i]) && name[i] != '-')
			return err_set(e, ERR_INVALID, "a name may contain only a-z, 0-9 and '-'");
	if (name[0] == '-' || name[length - 1] == '-')
		return err_set(e, ERR_INVALID, "a name may not begin or end with '-'");
	return 0;
}

static bool tag_valid(const char *tag)
{
	size_t length = strlen(tag);
	if (length == 0 || length > 128)
		return false;
	for (size_t i = 0; i < length; i++) {
		bool letter = is_plain((char)(tag[i] | 0x20)) || tag[i] == '_';
		if (!letter && (i == 0 || (tag[i] != '.' && tag[i] != '-')))
			return false;
	}
	return true;
}

int name_check_image(const char *name, struct err *e)
{
	const char *colon = strchr(name, ':');
	size_t length = colon ? (size_t)(colon - name) : strlen(name);

	if (length == 0 || strlen(name) > 255)
		return err_set(e, ERR_INVALID, "an image name has 1 to 255 characters");
	if (colon && !tag_valid(colon + 1))
		return err_set(e, ERR_INVALID, "an image tag has 1 to 128 letters, digits, '.', '_' and '-'");
	bool after_separator = true;
	for (size_t i = 0; i < length; i++) {
		bool separator = name[i] == '.' || name[i] == '_' || name[i] == '-' || name[i] == '/';
		if (!separator && !is_plain(name[i]))
			return err_set(e, ERR_INVALID, "an image name may contain only a-z, 0-9, '.', '_', '-' and '/'");
		if (separator && after_separator)
			return err_set(e, ERR_INVALID, "two separators follow each other in an image name");
		after_separator = separator;
	}
	if (after_separator)
		return err_set(e, ERR_INVALID, "an image name ends with a letter or a digit");
	return 0;
}

int name_check_key(const char *key, struct err *e)
{
	if (!*key || strlen(key) > 256)
		return err_set(e, ERR_INVALID, "a key has 1 to 256 characters");
	for (const char *p = key; *p; p++)
		if ((unsigned char)*p < 0x21 || *p == 0x7f || *p == '=')
			return err_set(e, ERR_INVALID, "a key may not contain '=', spaces or control characters");
	return 0;
}

int name_check_path(const char *path, struct err *e)
{
	size_t length = strlen(path);
	if (path[0] != '/' || length > 4095)
		return err_set(e, ERR_INVALID, "a path must begin with '/' and have at most 4095 characters");
	for (const char *p = path; *p && length > 1; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return err_set(e, ERR_INVALID, "a path may not contain control characters");
		if (*p != '/')
			continue;
		size_t n = strcspn(p + 1, "/");
		bool dots = (n == 1 && p[1] == '.') || (n == 2 && p[1] == '.' && p[2] == '.');
		if (dots || n == 0)
			return err_set(e, ERR_INVALID,
				       "a path may not contain '.', '..' or empty components, nor end with '/'");
	}
	return 0;
}

static void random_bytes(void *bytes, size_t length)
{
	if (getrandom(bytes, length, 0) != (ssize_t)length)
		abort();
}

void id_new(char out[ID_SIZE])
{
	uint64_t number;
	random_bytes(&number, sizeof number);
	(void)snprintf(out, ID_SIZE, "%016llx", (unsigned long long)number);
}

bool id_valid(const char *id) { return strlen(id) == ID_LENGTH && strspn(id, "0123456789abcdef") == ID_LENGTH; }

char *name_make_up(void)
{
	static const char *const moods[] = { "amber", "brave", "calm",  "clear",  "eager", "fair",   "gentle",
					     "glad",  "keen",  "kind",  "lively", "lucky", "mellow", "merry",
					     "neat",  "noble", "proud", "quick",  "quiet", "wise" };
	static const char *const animals[] = { "badger", "beaver", "crane", "dove",  "falcon", "finch",  "fox",
					       "hare",   "heron",  "ibis",  "lark",  "lynx",   "marten", "otter",
					       "owl",    "robin",  "seal",  "stork", "swan",   "wren" };
	uint32_t r[3];
	random_bytes(r, sizeof r);
	return mem_printf("%s-%s-%03u", moods[r[0] % ARRAY_SIZE(moods)], animals[r[1] % ARRAY_SIZE(animals)], r[2] % 1000);
}
