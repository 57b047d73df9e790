/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. EC2's tree is built as one flat object from path to text; a path that is a prefix of others is a folder,
 * whose listing follows from them. So there is one table of what is known, and no walk for each form of request.
 */
#include "network/metadata.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"

/* --- requests --- */

static int hex_value(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int parse_path(const char *from, size_t length, char *out, size_t size, struct err *e)
{
	size_t n = 0;

	if (!length || from[0] != '/')
		return err_set(e, ERR_INVALID, "a path begins with '/'");
	for (size_t i = 0; i < length && from[i] != '?'; i++) {
		char c = from[i];
		if (c == '%') {
			int high = i + 2 < length ? hex_value(from[i + 1]) : -1, low = high >= 0 ? hex_value(from[i + 2]) : -1;
			if (low < 0)
				return err_set(e, ERR_INVALID, "a wrong %% in the path");
			c = (char)(high << 4 | low);
			i += 2;
		}
		if ((unsigned char)c < 0x21 || c == 0x7f || n + 2 > size)
			return err_set(e, ERR_INVALID, "the path is too long or not printable");
		if (c != '/' || !n || out[n - 1] != '/')
			out[n++] = c;
	}
	if (n > 1 && out[n - 1] == '/')
		n--;
	out[n] = '\0';
	return 0;
}

static int parse_line(const char *line, size_t length, struct metadata_request *r, struct err *e)
{
	static const struct { const char *word; enum metadata_method method; } methods[] = { { "GET ", METADATA_GET },
											    { "HEAD ", METADATA_HEAD },
											    { "PUT ", METADATA_PUT } };
	size_t i = 0;

	while (i < ARRAY_SIZE(methods) &&
	       (length < strlen(methods[i].word) || memcmp(line, methods[i].word, strlen(methods[i].word)) != 0))
		i++;
	const char *version = length > 9 ? line + length - 9 : NULL;
	if (i == ARRAY_SIZE(methods))
		return err_set(e, ERR_METHOD, "only GET, HEAD and PUT");
	if (!version || (memcmp(version, " HTTP/1.1", 9) != 0 && memcmp(version, " HTTP/1.0", 9) != 0))
		return err_set(e, ERR_INVALID, "not HTTP/1.x");
	r->method = methods[i].method;
	const char *path = line + strlen(methods[i].word);
	return path > version ? err_set(e, ERR_INVALID, "no path") :
				parse_path(path, (size_t)(version - path), r->path, sizeof r->path, e);
}

static bool is_header(const char *line, size_t length, const char *name, const char **ret_value, size_t *ret_length)
{
	size_t n = strlen(name);

	if (length <= n || line[n] != ':' || strncasecmp(line, name, n) != 0)
		return false;
	for (n++; n < length && (line[n] == ' ' || line[n] == '\t'); n++)
		;
	while (length > n && (line[length - 1] == ' ' || line[length - 1] == '\t'))
		length--;
	*ret_value = line + n;
	*ret_length = length - n;
	return true;
}

static int parse_ttl(const char *value, size_t length, uint32_t *ret_ttl, struct err *e)
{
	uint32_t ttl = 0;

	for (size_t i = 0; i < length; i++) {
		if (value[i] < '0' || value[i] > '9' || i > 5)
			return err_set(e, ERR_INVALID, "a life time is a number of seconds");
		ttl = ttl * 10 + (uint32_t)(value[i] - '0');
	}
	if (ttl < 1 || ttl > METADATA_TTL_MOST)
		return err_set(e, ERR_INVALID, "a life time is 1 to %d seconds", METADATA_TTL_MOST);
	*ret_ttl = ttl;
	return 0;
}

static int parse_header(const char *line, size_t length, struct metadata_request *r, struct err *e)
{
	const char *value;
	size_t n;

	if (is_header(line, length, "X-aws-ec2-metadata-token-ttl-seconds", &value, &n))
		return parse_ttl(value, n, &r->ttl, e);
	if (is_header(line, length, "X-aws-ec2-metadata-token", &value, &n)) {
		if (n >= sizeof r->token || memchr(value, '\0', n))
			return err_set(e, ERR_INVALID, "the token is too long");
		memcpy(r->token, value, n);
		r->token[n] = '\0';
	} else if (is_header(line, length, "X-Forwarded-For", &value, &n)) {
		r->forwarded = true;
	} else if (is_header(line, length, "Transfer-Encoding", &value, &n) ||
		   (is_header(line, length, "Content-Length", &value, &n) && !(n == 1 && *value == '0'))) {
		return err_set(e, ERR_INVALID, "a request here has no body");
	}
	return 0;
}

int metadata_parse(const char *bytes, size_t length, struct metadata_request *ret_request, struct err *e)
{
	struct metadata_request r = { 0 };
	const char *end = memmem(bytes, length, "\r\n\r\n", 4);
	bool first = true;

	if (!end)
		return length > METADATA_HEAD_MOST ? err_set(e, ERR_TOO_LARGE, "the request's head is too long") : 0;
	for (const char *line = bytes; line <= end;) {
		const char *stop = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
		int f = first ? parse_line(line, (size_t)(stop - line), &r, e) :
				parse_header(line, (size_t)(stop - line), &r, e);
		if (f < 0)
			return f;
		first = false;
		line = stop + 2;
	}
	*ret_request = r;
	return 1;
}

/* --- tokens: the time they end and a MAC over attachment and time, in hex --- */

#define TOKEN_LENGTH (16 + 64)

static void make_token(const struct metadata_key *key, uint64_t attachment, uint64_t until_s, char out[static TOKEN_LENGTH + 1])
{
	uint64_t message[2] = { attachment, until_s };
	uint8_t mac[32] = { 0 };
	unsigned length = sizeof mac;

	(void)HMAC(EVP_sha256(), key->bytes, sizeof key->bytes, (const unsigned char *)message, sizeof message, mac, &length);
	(void)snprintf(out, 17, "%016" PRIx64, until_s);
	for (size_t i = 0; i < sizeof mac; i++)
		(void)snprintf(out + 16 + 2 * i, 3, "%02x", mac[i]);
}

static bool token_good(const char *token, const struct metadata_key *key, uint64_t attachment, uint64_t now_s)
{
	char right[TOKEN_LENGTH + 1];
	uint64_t until = 0;

	if (strlen(token) != TOKEN_LENGTH)
		return false;
	for (size_t i = 0; i < 16; i++) {
		int digit = hex_value(token[i]);
		if (digit < 0)
			return false;
		until = until << 4 | (uint64_t)digit;
	}
	make_token(key, attachment, until, right);
	return CRYPTO_memcmp(token, right, TOKEN_LENGTH) == 0 && now_s < until;
}

/* --- what is known --- */

static void put(json_t *tree, const char *value, const char *format, ...) format_printf(3, 4);
static void put(json_t *tree, const char *value, const char *format, ...)
{
	char path[256];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(path, sizeof path, format, arguments);
	va_end(arguments);
	if (value)
		(void)json_object_set_new(tree, path, json_string(value));
}

static const char *text_of(const json_t *object, const char *key) { return json_string_value(json_object_get(object, key)); }

static json_t *interfaces_of(const json_t *identity) { return json_object_get(identity, "interfaces"); }

static const json_t *own_interface(const json_t *identity)
{
	return json_array_get(interfaces_of(identity), (size_t)json_integer_value(json_object_get(identity, "which")));
}

static json_t *ec2_tree(const json_t *identity)
{
	json_t *tree = json_object();
	const json_t *own = own_interface(identity), *item;
	size_t i;

	put(tree, text_of(identity, "id"), "instance-id");
	put(tree, text_of(identity, "hostname"), "hostname");
	put(tree, text_of(identity, "hostname"), "local-hostname");
	put(tree, text_of(identity, "image"), "ami-id");
	put(tree, "carrel", "services/domain");
	put(tree, text_of(own, "mac"), "mac");
	put(tree, text_of(own, "ipv4"), "local-ipv4");
	put(tree, text_of(own, "ipv6"), "ipv6");
	json_array_foreach(interfaces_of(identity), i, item) {
		const char *mac = text_of(item, "mac");
		char number[24];
		(void)snprintf(number, sizeof number, "%zu", i);
		put(tree, number, "network/interfaces/macs/%s/device-number", mac);
		put(tree, mac, "network/interfaces/macs/%s/mac", mac);
		put(tree, text_of(identity, "hostname"), "network/interfaces/macs/%s/local-hostname", mac);
		put(tree, text_of(item, "ipv4"), "network/interfaces/macs/%s/local-ipv4s", mac);
		put(tree, text_of(item, "ipv6"), "network/interfaces/macs/%s/ipv6s", mac);
	}
	json_array_foreach(json_object_get(identity, "ssh-keys"), i, item)
		put(tree, json_string_value(item), "public-keys/%zu/openssh-key", i);
	return tree;
}

/* The names right below `folder`, one a line, folders with a slash; false: there is no such folder. */
static bool list_folder(const json_t *tree, const char *folder, struct str *out)
{
	json_t *seen = json_object();
	size_t length = strlen(folder);
	const char *path;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)tree, path, value) {
		if (length && (strncmp(path, folder, length) != 0 || path[length] != '/'))
			continue;
		const char *rest = path + length + (length > 0);
		size_t name = strcspn(rest, "/");
		char line[256];
		if (str_eq(folder, "public-keys"))
			(void)snprintf(line, sizeof line, "%.*s=key-%.*s", (int)name, rest, (int)name, rest);
		else
			(void)snprintf(line, sizeof line, "%.*s%s", (int)name, rest, rest[name] ? "/" : "");
		if (json_object_get(seen, line))
			continue;
		(void)json_object_set_new(seen, line, json_true());
		str_printf(out, "%s%s", out->length ? "\n" : "", line);
	}
	bool any = json_object_size(seen) > 0;
	json_decref(seen);
	return any;
}

static json_t *openstack_data(const json_t *identity)
{
	json_t *keys = json_object(), *list = json_array(), *item;
	size_t i;

	json_array_foreach(json_object_get(identity, "ssh-keys"), i, item) {
		char name[32];
		(void)snprintf(name, sizeof name, "key-%zu", i);
		(void)json_object_set(keys, name, item);
		(void)json_array_append_new(list, json_pack("{s:s, s:s, s:O}", "name", name, "type", "ssh", "data", item));
	}
	return json_pack("{s:O?, s:O?, s:O?, s:o, s:o, s:i, s:s}", "uuid", json_object_get(identity, "id"), "name",
			 json_object_get(identity, "name"), "hostname", json_object_get(identity, "hostname"), "public_keys",
			 keys, "keys", list, "launch_index", 0, "availability_zone", "carrel");
}

static void add_route(json_t *network, const char *gateway, const char *any)
{
	if (gateway)
		(void)json_object_set_new(network, "routes",
					  json_pack("[{s:s, s:s, s:s}]", "network", any, "netmask", any, "gateway", gateway));
}

static json_t *openstack_network(const json_t *identity)
{
	json_t *links = json_array(), *networks = json_array(), *services = json_array();
	const json_t *item;
	size_t i;

	json_array_foreach(interfaces_of(identity), i, item) {
		static const struct {
			const char *key, *type, *gateway, *any;
		} families[] = { { "ipv4", "ipv4", "gateway4", "0.0.0.0" }, { "ipv6", "ipv6", "gateway6", "::" } };
		const char *device = text_of(item, "device");
		(void)json_array_append_new(links, json_pack("{s:s?, s:s, s:s?, s:O?}", "id", device, "type", "phy",
							     "ethernet_mac_address", text_of(item, "mac"), "mtu",
							     json_object_get(item, "mtu")));
		for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
			if (!text_of(item, families[f].key))
				continue;
			json_t *network = json_pack("{s:s?, s:s?, s:s, s:s?, s:s?}", "id", text_of(item, "network"), "link",
						    device, "type", families[f].type, "ip_address",
						    text_of(item, families[f].key), "network_id", text_of(item, "network"));
			add_route(network, i == 0 ? text_of(item, families[f].gateway) : NULL, families[f].any);
			(void)json_array_append_new(networks, network);
		}
		if (i == 0 && text_of(item, "gateway4"))
			(void)json_array_append_new(services, json_pack("{s:s, s:s}", "type", "dns", "address",
									text_of(item, "gateway4")));
	}
	return json_pack("{s:o, s:o, s:o}", "links", links, "networks", networks, "services", services);
}

/* --- answers --- */

static void respond(struct str *out, unsigned status, const char *reason, const char *type, const char *body, size_t length,
		    bool head)
{
	str_printf(out,
		   "HTTP/1.1 %u %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\nServer: carrel\r\n\r\n",
		   status, reason, type, length);
	if (!head)
		str_add(out, body, length);
}

static void respond_text(struct str *out, const char *text, bool head)
{
	respond(out, 200, "OK", "text/plain", text, strlen(text), head);
}

static void respond_json(struct str *out, json_t *json, bool head) /* takes it */
{
	own_str char *text = json_dumps(json, JSON_COMPACT);

	json_decref(json);
	respond(out, 200, "OK", "application/json", text ? text : "{}", text ? strlen(text) : 2, head);
}

static void refuse(struct str *out, unsigned status, const char *reason)
{
	respond(out, status, reason, "text/plain", reason, strlen(reason), false);
}

/* The part behind "/VERSION/", "" for the version itself; NULL: it is not a version that is served. */
static const char *behind_version(const char *path)
{
	static const char *const versions[] = { "latest",     "1.0",        "2008-02-01", "2009-04-04",
						"2011-01-01", "2014-02-25", "2016-09-02", "2018-09-24",
						"2019-10-01", "2020-10-27", "2021-03-23" };

	for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
		size_t n = strlen(versions[i]);
		if (path[0] == '/' && strncmp(path + 1, versions[i], n) == 0 && (!path[1 + n] || path[1 + n] == '/'))
			return path[1 + n] ? path + 2 + n : path + 1 + n;
	}
	return NULL;
}

static void answer_ec2(const char *path, const json_t *identity, bool head, struct str *out)
{
	const char *user_data = text_of(identity, "user-data"),
		   *inner = str_starts(path, "meta-data") ? path + strlen("meta-data") : NULL;
	struct str listing = { 0 };

	if (!*path)
		respond_text(out, user_data ? "meta-data/\nuser-data" : "meta-data/", head);
	else if (str_eq(path, "user-data") && user_data)
		respond_text(out, user_data, head);
	else if (inner && (!*inner || *inner == '/')) {
		json_t *tree = ec2_tree(identity);
		const char *key = *inner ? inner + 1 : inner, *value = text_of(tree, key);
		if (value)
			respond_text(out, value, head);
		else if (list_folder(tree, key, &listing))
			respond_text(out, str_text(&listing), head);
		json_decref(tree);
	}
	str_done(&listing);
	if (!out->length)
		refuse(out, 404, "Not Found");
}

static void answer_openstack(const char *path, const json_t *identity, bool head, struct str *out)
{
	static const char *const versions[] = { "latest",     "2012-08-10", "2013-10-17", "2015-10-15",
						"2016-06-30", "2016-10-06", "2017-02-22", "2018-08-27" };
	const char *file = strchr(path, '/');
	bool known = false;

	for (size_t i = 0; i < ARRAY_SIZE(versions); i++)
		known |= strncmp(path, versions[i], strlen(versions[i])) == 0 && strcspn(path, "/") == strlen(versions[i]);
	if (!*path) {
		struct str list = { 0 };
		for (size_t i = 1; i < ARRAY_SIZE(versions); i++)
			str_printf(&list, "%s\n", versions[i]);
		str_puts(&list, versions[0]);
		respond_text(out, str_text(&list), head);
		str_done(&list);
	} else if (known && !file)
		respond_text(out, "meta_data.json\nnetwork_data.json\nvendor_data.json\nuser_data", head);
	else if (known && str_eq(file, "/meta_data.json"))
		respond_json(out, openstack_data(identity), head);
	else if (known && str_eq(file, "/network_data.json"))
		respond_json(out, openstack_network(identity), head);
	else if (known && str_eq(file, "/vendor_data.json"))
		respond_json(out, json_object(), head);
	else if (known && str_eq(file, "/user_data") && text_of(identity, "user-data"))
		respond_text(out, text_of(identity, "user-data"), head);
	else
		refuse(out, 404, "Not Found");
}

static void answer_put(const struct metadata_request *r, uint64_t attachment, const struct metadata_key *key, uint64_t now_s,
		       struct str *out)
{
	char token[TOKEN_LENGTH + 1];

	if (!str_eq(r->path, "/latest/api/token")) {
		refuse(out, 405, "Method Not Allowed");
		return;
	}
	if (r->forwarded) {
		refuse(out, 403, "Forbidden");
		return;
	}
	if (!r->ttl) {
		refuse(out, 400, "Bad Request");
		return;
	}
	make_token(key, attachment, now_s + r->ttl, token);
	str_printf(out,
		   "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-aws-ec2-metadata-token-ttl-seconds: %u\r\nContent-Length: "
		   "%d\r\n"
		   "Connection: close\r\nServer: carrel\r\n\r\n%s",
		   r->ttl, TOKEN_LENGTH, token);
}

void metadata_answer(const struct metadata_request *r, const json_t *identity, uint64_t attachment,
		     const struct metadata_key *key, uint64_t now_s, struct str *ret_response)
{
	bool head = r->method == METADATA_HEAD;
	const char *ec2 = behind_version(r->path);

	if (!identity)
		refuse(ret_response, 404, "Not Found");
	else if (r->method == METADATA_PUT)
		answer_put(r, attachment, key, now_s, ret_response);
	else if (r->token[0] && !token_good(r->token, key, attachment, now_s))
		refuse(ret_response, 401, "Unauthorized");
	else if (str_eq(r->path, "/"))
		respond_text(ret_response, "1.0\n2009-04-04\n2021-03-23\nlatest", head);
	else if (str_starts(r->path, "/openstack") && (!r->path[10] || r->path[10] == '/'))
		answer_openstack(r->path[10] ? r->path + 11 : "", identity, head, ret_response);
	else if (ec2)
		answer_ec2(ec2, identity, head, ret_response);
	else
		refuse(ret_response, 404, "Not Found");
}

/* --- for the agent --- */

json_t *metadata_identity(const struct assignment *a, size_t which)
{
	const struct attachment *all = a->attachments.items;
	json_t *interfaces = json_array(), *keys = json_array();

	for (size_t i = 0; i < a->attachments.count; i++) {
		char ipv4[NETWORK_ADDRESS_SIZE] = "", ipv6[NETWORK_ADDRESS_SIZE] = "";
		if (all[i].ipv4)
			network_address(all[i].ipv4, ipv4);
		if (all[i].ipv6)
			network_address(all[i].ipv6, ipv6);
		(void)json_array_append_new(interfaces, json_pack("{s:s, s:s, s:s, s:s*, s:s*}", "device", all[i].device,
								  "network", all[i].network, "mac", all[i].mac, "ipv4",
								  *ipv4 ? ipv4 : NULL, "ipv6", *ipv6 ? ipv6 : NULL));
	}
	for (size_t i = 0; i < a->spec->ssh_keys.count; i++)
		(void)json_array_append_new(keys, json_string(a->spec->ssh_keys.items[i]));
	return json_pack("{s:s, s:s, s:s, s:s*, s:s*, s:I, s:o, s:o}", "id", a->id, "name",
			 a->spec->name ? a->spec->name : a->id, "hostname",
			 a->spec->host_name ? a->spec->host_name :
			 a->spec->name      ? a->spec->name :
					      a->id,
			 "image", a->image->digest, "user-data", a->spec->user_data, "which", (json_int_t)which, "interfaces",
			 interfaces, "ssh-keys", keys);
}
