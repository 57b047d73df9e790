/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The grammar is that of github.com/distribution/reference, including its two surprises: whether the first component is a host
 * is guessed from a dot, a colon or the word "localhost", and docker.io has three names and an implied "library/". Case is
 * folded in the host only. Digests are SHA-256. All parts fit into arrays, so a reference is copied by assignment.
 */
#include "model/registry_reference.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/own.h"
#include "base/mem.h"
#include "base/str.h"

#define HEX_DIGITS "0123456789abcdef"

static int refuse(struct err *e, const char *text, const char *why)
{
	(void)err_set(e, ERR_INVALID, "image reference '%.200s': %s", text, why);
	return err_hint(e, "write docker://host[:port]/name[:tag] or docker://host[:port]/name@sha256:...");
}

/* alpha-numeric { ( "." | "_" | "__" | "-"... ) alpha-numeric } */
static bool component_valid(const char *s, size_t length)
{
	if (length == 0 || !isalnum((unsigned char)s[0]) || !isalnum((unsigned char)s[length - 1]))
		return false;
	for (size_t i = 0; i < length; i++) {
		if (islower((unsigned char)s[i]) || isdigit((unsigned char)s[i]) || s[i] == '-')
			continue;
		if (s[i] == '.' && s[i + 1] != '.')
			continue;
		if (s[i] != '_' || strncmp(s + i, "___", 3) == 0)
			return false;
	}
	return true;
}

static bool repository_valid(const char *name)
{
	for (;;) {
		size_t length = strcspn(name, "/");
		if (!component_valid(name, length))
			return false;
		if (!name[length])
			return true;
		name += length + 1;
	}
}

static bool tag_valid(const char *tag)
{
	size_t length = strlen(tag);

	if (length < 1 || length > 128 || tag[0] == '.' || tag[0] == '-')
		return false;
	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char)tag[i]) && !strchr("._-", tag[i]))
			return false;
	return true;
}

static bool port_valid(const char *port)
{
	uint64_t number;
	return strlen(port) <= 5 && str_to_u64(port, 65535, &number) == 0 && number > 0;
}

/* A host name, an IPv4 address, or an IPv6 address in brackets; then ":port" or nothing. */
static bool host_valid(const char *host)
{
	size_t length;

	if (host[0] == '[') {
		length = strspn(host + 1, HEX_DIGITS "ABCDEF:.") + 1;
		if (length < 3 || host[length] != ']')
			return false;
		length++;
	} else {
		length = strcspn(host, ":");
		if (length == 0 || host[0] == '-' || host[0] == '.' || host[length - 1] == '-' || host[length - 1] == '.')
			return false;
		for (size_t i = 0; i < length; i++)
			if (!isalnum((unsigned char)host[i]) && host[i] != '-' && (host[i] != '.' || host[i + 1] == '.'))
				return false;
	}
	return !host[length] || (host[length] == ':' && port_valid(host + length + 1));
}

/* The first component is a host when it cannot be part of a name on docker.io. */
static bool looks_like_host(const char *component, size_t length)
{
	return memchr(component, '.', length) || memchr(component, ':', length) ||
	       (length == 9 && !memcmp(component, "localhost", 9));
}

static int split_host(char **rest, const char *text, struct registry_reference *ref, struct err *e)
{
	char *slash = strchr(*rest, '/');

	if (!slash || !looks_like_host(*rest, (size_t)(slash - *rest))) {
		(void)snprintf(ref->host, sizeof ref->host, "docker.io");
		return 0;
	}
	*slash = '\0';
	if (strlen(*rest) >= sizeof ref->host || !host_valid(*rest))
		return refuse(e, text, "this is not a host or host:port");
	for (size_t i = 0; (*rest)[i]; i++)
		ref->host[i] = (char)tolower((unsigned char)(*rest)[i]);
	if (str_eq(ref->host, "index.docker.io") || str_eq(ref->host, "registry-1.docker.io"))
		(void)snprintf(ref->host, sizeof ref->host, "docker.io");
	*rest = slash + 1;
	return 0;
}

static int split_name(char *rest, const char *text, struct registry_reference *ref, struct err *e)
{
	char *colon = strchr(rest, ':');

	if (colon) {
		*colon = '\0';
		if (!tag_valid(colon + 1))
			return refuse(e, text, "the tag must be 1 to 128 letters, digits, '.', '_' or '-'");
		(void)snprintf(ref->tag, sizeof ref->tag, "%s", colon + 1);
	} else if (!ref->has_digest) {
		(void)snprintf(ref->tag, sizeof ref->tag, "latest");
	}
	bool library = str_eq(ref->host, "docker.io") && !strchr(rest, '/');
	int length = snprintf(ref->repository, sizeof ref->repository, "%s%s", library ? "library/" : "", rest);
	if (length < 0 || (size_t)length >= sizeof ref->repository)
		return refuse(e, text, "the name is longer than 255 characters");
	if (!repository_valid(ref->repository))
		return refuse(e, text, "the name must be lower-case letters, digits, '.', '_' and '-', in parts joined by '/'");
	return 0;
}

int registry_reference_parse(const char *text, struct registry_reference *ret_reference, struct err *e)
{
	struct registry_reference ref = { 0 };

	if (strlen(text) > 1024)
		return refuse(e, text, "it is longer than 1024 characters");
	own_str char *copy = mem_strdup(text);
	char *rest = str_starts(copy, "docker://") ? copy + strlen("docker://") : copy;
	char *at = strchr(rest, '@');
	if (at) {
		*at = '\0';
		int r = digest_parse(at + 1, &ref.digest, e);
		if (r < 0)
			return err_wrap(e, "image reference '%.200s'", text);
		ref.has_digest = true;
	}
	int r = split_host(&rest, text, &ref, e);
	if (r == 0)
		r = split_name(rest, text, &ref, e);
	if (r == 0)
		*ret_reference = ref;
	return r;
}

bool registry_host_is_loopback(const char *host)
{
	char bare[264];
	struct in_addr address;

	(void)snprintf(bare, sizeof bare, "%s", host);
	if (bare[0] == '[')
		return strncmp(bare, "[::1]", 5) == 0;
	bare[strcspn(bare, ":")] = '\0';
	if (str_eq(bare, "localhost"))
		return true;
	return inet_pton(AF_INET, bare, &address) == 1 && (ntohl(address.s_addr) >> 24) == 127;
}

void registry_reference_base(const struct registry_reference *r, char *out, size_t size)
{
	const char *host = str_eq(r->host, "docker.io") ? "registry-1.docker.io" : r->host;
	(void)snprintf(out, size, "%s://%s", registry_host_is_loopback(host) ? "http" : "https", host);
}
