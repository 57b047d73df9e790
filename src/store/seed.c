/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Sectors of 2,048 bytes: 16 are empty, then the primary descriptor, Joliet's, the end of descriptors, two path tables
 * for each of both, the two root folders, and the files one behind the other. Numbers are written twice, in both byte orders.
 * The date is that of the Unix epoch: there is no time in it.
 */
#include "store/seed.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

#define SECTOR 2048
enum { PRIMARY = 16, JOLIET, END, PATHS, PATHS_BIG, JOLIET_PATHS, JOLIET_PATHS_BIG, ROOT, JOLIET_ROOT, FILES };

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = p[3] = (uint8_t)v;
	p[1] = p[2] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = p[7 - i] = (uint8_t)(v >> 8 * i);
}

static size_t put_name(uint8_t *to, const char *name, bool joliet)
{
	size_t n = 0;

	for (const char *at = name; *at && at - name < SEED_NAME_MOST; at++) {
		if (joliet)
			to[n++] = 0;
		to[n++] = joliet ? (uint8_t)*at : (uint8_t)toupper((unsigned char)*at);
	}
	return n;
}

/* One entry of a folder; `name` of length 1 may be 0 (itself) or 1 (its parent). */
static size_t put_entry(uint8_t *to, uint32_t sector, uint32_t bytes, bool folder, const uint8_t *name, size_t length)
{
	static const uint8_t epoch[7] = { 70, 1, 1, 0, 0, 0, 0 };
	size_t whole = (33 + length + 1) / 2 * 2;

	to[0] = (uint8_t)whole;
	put32(to + 2, sector);
	put32(to + 10, bytes);
	memcpy(to + 18, epoch, sizeof epoch);
	to[25] = folder ? 2 : 0;
	put16(to + 28, 1);
	to[32] = (uint8_t)length;
	memcpy(to + 33, name, length);
	return whole;
}

static void fill_text(uint8_t *to, size_t length, bool joliet)
{
	for (size_t i = 0; i < length; i++)
		to[i] = joliet && i % 2 == 0 ? 0 : ' ';
}

static void put_date(uint8_t *to) { memcpy(to, "1970010100000000", 17); }

static void put_descriptor(uint8_t *s, const char *label, uint32_t sectors, bool joliet)
{
	static const uint8_t self;

	s[0] = joliet ? 2 : 1;
	memcpy(s + 1, "CD001\1", 6);
	fill_text(s + 8, 64, joliet);
	if (joliet)
		(void)put_name(s + 40, label, true);
	else
		memcpy(s + 40, label, strnlen(label, 32)); /* in small letters, as every reader of seeds expects it */
	put32(s + 80, sectors);
	if (joliet)
		memcpy(s + 88, "%/E", 3);
	put16(s + 120, 1);
	put16(s + 124, 1);
	put16(s + 128, SECTOR);
	put32(s + 132, 10); /* bytes of a path table */
	s[140] = joliet ? JOLIET_PATHS : PATHS;
	s[151] = joliet ? JOLIET_PATHS_BIG : PATHS_BIG;
	(void)put_entry(s + 156, joliet ? JOLIET_ROOT : ROOT, SECTOR, true, &self, 1);
	fill_text(s + 190, 623, joliet);
	for (unsigned at = 813; at < 813 + 4 * 17; at += 17)
		put_date(s + at);
	s[881] = 1;
}

/* The root alone. */
static void put_paths(uint8_t *s, uint32_t sector, bool big)
{
	s[0] = 1;
	s[big ? 5 : 2] = (uint8_t)sector;
	s[big ? 7 : 6] = 1;
}

static void put_root(uint8_t *s, const struct seed_file *files, size_t count, bool joliet)
{
	static const uint8_t self = 0, parent = 1;
	uint32_t own = joliet ? JOLIET_ROOT : ROOT, at = FILES;
	size_t used = put_entry(s, own, SECTOR, true, &self, 1);

	used += put_entry(s + used, own, SECTOR, true, &parent, 1);
	for (size_t i = 0; i < count; i++) {
		uint8_t name[SEED_NAME_MOST * 2 + 3];
		size_t length = put_name(name, files[i].name, joliet);
		if (!joliet) {
			memcpy(name + length, ".;1", 3);
			length += 3;
		}
		used += put_entry(s + used, at, (uint32_t)files[i].length, false, name, length);
		at += (uint32_t)((files[i].length + SECTOR - 1) / SECTOR);
	}
}

void seed_write(const char *label, const struct seed_file *files, size_t count, struct str *out)
{
	static const uint8_t end[7] = { 255, 'C', 'D', '0', '0', '1', 1 };
	uint32_t sectors = FILES;

	for (size_t i = 0; i < count; i++)
		sectors += (uint32_t)((files[i].length + SECTOR - 1) / SECTOR);
	str_clear(out);
	str_reserve(out, (size_t)sectors * SECTOR + 1);
	memset(out->bytes, 0, (size_t)sectors * SECTOR + 1);
	out->length = (size_t)sectors * SECTOR;
	uint8_t *s = (uint8_t *)out->bytes;
	put_descriptor(s + PRIMARY * SECTOR, label, sectors, false);
	put_descriptor(s + JOLIET * SECTOR, label, sectors, true);
	memcpy(s + END * SECTOR, end, sizeof end);
	put_paths(s + PATHS * SECTOR, ROOT, false);
	put_paths(s + PATHS_BIG * SECTOR, ROOT, true);
	put_paths(s + JOLIET_PATHS * SECTOR, JOLIET_ROOT, false);
	put_paths(s + JOLIET_PATHS_BIG * SECTOR, JOLIET_ROOT, true);
	put_root(s + ROOT * SECTOR, files, count, false);
	put_root(s + JOLIET_ROOT * SECTOR, files, count, true);
	s += FILES * SECTOR;
	for (size_t i = 0; i < count; i++) {
		memcpy(s, files[i].bytes, files[i].length);
		s += (files[i].length + SECTOR - 1) / SECTOR * SECTOR;
	}
}
