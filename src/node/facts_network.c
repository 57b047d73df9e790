/* SPDX-License-Identifier: Apache-2.0 */
#include "node/facts_network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "network/fast.h"
#include "network/filter.h"

#define TABLE_MOST ((size_t)16 << 20)
#define FOREIGN_MOST 16

static bool is_foreign(const char *device)
{
	return !str_starts(device, "crn") && !str_starts(device, "cri") && !str_starts(device, "crw") && !str_eq(device, "lo");
}

/* proc(5): Iface Destination Gateway Flags RefCnt Use Metric Mask ..., addresses as the machine's words in hex. */
static void add_ipv4(const char *table, json_t *list)
{
	for (const char *line = strchr(table, '\n'); line && line[1]; line = strchr(line + 1, '\n')) {
		char device[32], text[INET_ADDRSTRLEN];
		unsigned destination, mask;
		if (sscanf(line + 1, "%31s %x %*s %*s %*s %*s %*s %x", device, &destination, &mask) != 3 || !mask ||
		    !is_foreign(device))
			continue;
		struct in_addr address = { destination };
		unsigned length = (unsigned)__builtin_popcount(mask), first = ntohl(destination) >> 16;
		if (first == 0xa9fe || first >> 12 == 0xe || !inet_ntop(AF_INET, &address, text, sizeof text))
			continue;
		(void)json_array_append_new(list, json_sprintf("%s/%u", text, length));
	}
}

/* Destination and its length in hex, source and its, next hop, metric, two counters, flags, device. */
static void add_ipv6(const char *table, json_t *list)
{
	for (const char *line = table; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		char digits[33], device[32], text[INET6_ADDRSTRLEN];
		unsigned char bytes[16];
		unsigned length, byte;
		if (sscanf(line, "%32s %x %*s %*s %*s %*s %*s %*s %*s %31s", digits, &length, device) != 3 ||
		    strlen(digits) != 32 || !length)
			continue;
		for (int i = 0; i < 16; i++)
			bytes[i] = sscanf(digits + 2 * i, "%2x", &byte) == 1 ? (unsigned char)byte : 0;
		bool local = bytes[0] == 0xff || (bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80);
		if (!local && is_foreign(device) && inet_ntop(AF_INET6, bytes, text, sizeof text))
			(void)json_array_append_new(list, json_sprintf("%s/%u", text, length));
	}
}

json_t *facts_routes(void)
{
	json_t *list = json_array();
	own_strbuf struct str four = { 0 }, six = { 0 };

	if (fs_read_file(AT_FDCWD, "/proc/thread-self/net/route", TABLE_MOST, &four, NULL) >= 0)
		add_ipv4(str_text(&four), list);
	if (fs_read_file(AT_FDCWD, "/proc/thread-self/net/ipv6_route", TABLE_MOST, &six, NULL) >= 0)
		add_ipv6(str_text(&six), list);
	return list;
}

void facts_add_foreign_rules(json_t *items)
{
	own_str struct filter_fact *found = mem_alloc_array(FOREIGN_MOST, sizeof *found);
	int count = filter_facts(found, FOREIGN_MOST, NULL);

	for (int i = 0; i < count && i < FOREIGN_MOST; i++)
		(void)json_array_append_new(items,
					    json_pack("{s:s, s:b, s:s, s:s, s:s}", "name", "foreign-rules", "ok", 0, "need",
						      "optional", "detail", found[i].what, "hint", found[i].advice));
}

void facts_add_short_way(json_t *items)
{
	struct err e = { 0 };
	bool ok = fast_probe(&e) >= 0;

	(void)json_array_append_new(
		items, json_pack("{s:s, s:b, s:s, s:s, s:s}", "name", "short-way", "ok", ok, "need", "optional", "detail",
				 ok ? "packets of allowed connections between workspaces skip bridge and routing" : e.message,
				 "hint", ok ? "" : e.hint));
}
