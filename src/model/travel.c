/* SPDX-License-Identifier: Apache-2.0 */
#include "model/travel.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

const char *const travel_environment[] = { TRAVEL_TUNABLES, "LD_BIND_NOW=1", "OPENSSL_ia32cap=:~0x5f42fc230000",
					   "GNUTLS_CPUID_OVERRIDE=0x1e", "NETTLE_FAT_OVERRIDE=vendor:intel,aesni,pclmul",
					   "OPENBLAS_CORETYPE=Haswell", NULL };

bool travel_counts(const char *flag)
{
	static const char *const chosen_by[] = { "cx16", "lahf_lm", "popcnt", "pni",  "sse4_1", "sse4_2", "ssse3", "avx",
						 "avx2", "bmi1",    "bmi2",   "f16c", "fma",    "abm",    "movbe", "xsave" };

	for (size_t i = 0; i < ARRAY_SIZE(chosen_by); i++)
		if (str_eq(flag, chosen_by[i]))
			return true;
	return false;
}

static bool is_one_of(const char *text, const char *const *list)
{
	for (; *list; list++)
		if (str_eq(text, *list))
			return true;
	return false;
}

bool travel_link_goes(const char *link)
{
	static const char *const devices[] = { "null", "zero",    "full",  "random", "urandom", "tty",
					       "ptmx", "console", "stdin", "stdout", "stderr",  NULL };
	static const char *const kinds[] = { "[eventfd]",  "[eventpoll]", "[signalfd]", "[timerfd]", "[pidfd]",
					     "[fanotify]", "inotify",     "[inotify]",  NULL };

	if (str_starts(link, "anon_inode:"))
		return is_one_of(link + strlen("anon_inode:"), kinds);
	if (!str_starts(link, "/dev/"))
		return true;
	const char *name = link + strlen("/dev/");
	return is_one_of(name, devices) || str_starts(name, "pts/") || str_starts(name, "shm/") || str_starts(name, "mqueue/");
}

/* As the kernel prints them: words of 32 bits in the processor's order. */
static bool read_address(const char *hex, bool ipv6, unsigned char *ret_bytes)
{
	for (int i = 0; i < (ipv6 ? 4 : 1); i++) {
		unsigned word;
		if (sscanf(hex + i * 8, "%8x", &word) != 1)
			return false;
		uint32_t bytes = word;
		memcpy(ret_bytes + i * 4, &bytes, 4);
	}
	return true;
}

static bool is_loopback(const unsigned char *address, bool ipv6)
{
	static const unsigned char self[16] = { [15] = 1 }, mapped[12] = { [10] = 0xff, [11] = 0xff };

	return ipv6 ? memcmp(address, self, 16) == 0 || (memcmp(address, mapped, 12) == 0 && address[12] == 127) :
		      address[0] == 127;
}

#define ESTABLISHED 1

bool travel_connection(const char *line, bool ipv6, char *ret_text, size_t size)
{
	char from_hex[33], to_hex[33], from_text[INET6_ADDRSTRLEN], to_text[INET6_ADDRSTRLEN];
	unsigned char from[16], to[16];
	unsigned from_port, to_port, state;

	if (sscanf(line, " %*u: %32[0-9A-F]:%4x %32[0-9A-F]:%4x %2x", from_hex, &from_port, to_hex, &to_port, &state) != 5 ||
	    state != ESTABLISHED || strlen(from_hex) != (ipv6 ? 32 : 8) || strlen(to_hex) != strlen(from_hex) ||
	    !read_address(from_hex, ipv6, from) || !read_address(to_hex, ipv6, to) || is_loopback(to, ipv6) ||
	    memcmp(from, to, ipv6 ? 16 : 4) == 0)
		return false;
	(void)inet_ntop(ipv6 ? AF_INET6 : AF_INET, from, from_text, sizeof from_text);
	(void)inet_ntop(ipv6 ? AF_INET6 : AF_INET, to, to_text, sizeof to_text);
	(void)snprintf(ret_text, size, ipv6 ? "[%s]:%u to [%s]:%u" : "%s:%u to %s:%u", from_text, from_port, to_text, to_port);
	return true;
}
