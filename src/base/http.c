/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Here is what both transports share: which addresses are allowed, the upgrade to a WebSocket, and the service's error object.
 * Plain http is decided by the text of the host alone, as a resolver may answer anything for a name. The connection of a unix
 * socket is made at the first request, and again when the peer closed the old one between two; a request that was begun is not
 * repeated.
 *
 * An upgrade has a connection of its own from the beginning, so the kept one is free for calls while a stream runs.
 */
#include "base/http.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/random.h>

#include "base/http_curl.h"
#include "base/http_wire.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/ws.h"

struct http {
	char *address;
	struct http_wire wire;
	struct http_curl *curl; /* NULL: `wire` is used */
};

/* By the name itself, so that no resolver can say otherwise. */
static bool is_loopback(const char *address)
{
	if (!str_starts(address, "http://"))
		return false;
	const char *host = address + strlen("http://");
	size_t n = str_starts(host, "127.") ? strspn(host, "0123456789.") : 0;
	if (str_starts(host, "localhost"))
		n = strlen("localhost");
	else if (str_starts(host, "[::1]"))
		n = strlen("[::1]");
	host += n;
	if (n && *host == ':')
		host += 1 + strspn(host + 1, "0123456789");
	return n && (*host == '\0' || *host == '/');
}

static int check_address(const char *address, struct err *e)
{
	if (str_starts(address, "unix:/") || str_starts(address, "https://") || is_loopback(address))
		return 0;
	if (str_starts(address, "http://"))
		return err_set(e, ERR_DENIED, "%.200s: plain http is for this machine only", address);
	(void)err_set(e, ERR_INVALID, "'%.200s' is no address of a service", address);
	return err_hint(e, "unix:/run/carrel/carreld.sock or https://HOST:PORT");
}

int http_new(const char *address, struct http **ret_http, struct err *e)
{
	struct http_curl *curl = NULL;
	int r = check_address(address, e);

	if (r == 0 && !str_starts(address, "unix:"))
		r = http_curl_new(address, &curl, e);
	if (r < 0)
		return r;
	struct http *h = mem_alloc(sizeof *h);
	h->address = mem_strdup(address);
	h->wire.fd = -1;
	h->curl = curl;
	*ret_http = h;
	return 0;
}

void http_free(struct http *h)
{
	if (h->curl)
		http_curl_free(h->curl);
	http_wire_close(&h->wire);
	free(h->address);
	free(h);
}

void http_answer_done(struct http_answer *a)
{
	str_done(&a->body);
	*a = (struct http_answer){ 0 };
}

int http_do(struct http *h, const struct http_request *request, struct http_answer *ret_answer, struct err *e)
{
	if (h->curl)
		return http_curl_do(h->curl, request, ret_answer, e);
	if (!http_wire_usable(&h->wire)) {
		int r = http_wire_connect(&h->wire, h->address, e);
		if (r < 0)
			return r;
	}
	return http_wire_do(&h->wire, request, ret_answer, e);
}

static int read_refusal(struct http_wire *w, const struct http_head *head, struct err *e)
{
	const struct http_request request = { .method = "GET" };
	struct http_answer answer = { 0 };
	int r = http_wire_read_body(w, &request, head, &answer, e);

	if (r == 0)
		r = http_error(&answer, e);
	http_answer_done(&answer);
	return r;
}

int http_check_upgrade(const char *address, struct err *e)
{
	int r = check_address(address, e);

	if (r < 0 || !str_starts(address, "https://"))
		return r;
	(void)err_set(e, ERR_UNSUPPORTED, "%.200s: terminals, logs and copies do not go over https yet", address);
	return err_hint(e, "forward the service's socket: ssh -N -L /tmp/carrel.sock:/run/carrel/carreld.sock HOST, then "
			   "--address unix:/tmp/carrel.sock");
}

int http_upgrade(const char *address, const char *path, int *ret_fd, struct str *ret_early, struct err *e)
{
	struct http_wire w = { .fd = -1 };
	struct http_head head;
	unsigned char nonce[16];
	char key[25], expected[29];

	int r = http_check_upgrade(address, e);
	if (r < 0)
		return r;
	if (getrandom(nonce, sizeof nonce, 0) != sizeof nonce)
		return err_errno(e, errno, "random bytes");
	(void)EVP_EncodeBlock((unsigned char *)key, nonce, sizeof nonce);
	ws_accept_key(key, expected);
	own_strbuf struct str out = { 0 };
	str_printf(&out,
		   "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: carrel/" CARREL_VERSION
		   "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
		   "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n",
		   path, key);
	r = http_wire_connect(&w, address, e);
	if (r == 0)
		r = http_wire_send(&w, out.bytes, out.length, e);
	if (r >= 0)
		r = http_wire_read_head(&w, &head, NULL, e);
	if (r == 0 && head.status != 101)
		r = read_refusal(&w, &head, e);
	else if (r == 0 && !str_eq(head.accept, expected))
		r = err_set(e, ERR_CORRUPT, "the service did not answer the WebSocket key");
	if (r == 0) {
		*ret_fd = TAKE_FD(w.fd);
		*ret_early = w.input;
		w.input = (struct str){ 0 };
	}
	http_wire_close(&w);
	return r;
}

static enum err_kind kind_of_status(int status)
{
	for (int k = ERR_NONE + 1; k < ERR_KIND_COUNT; k++)
		if (err_kind_http_status((enum err_kind)k) == status)
			return (enum err_kind)k;
	return ERR_INTERNAL;
}

int http_error(const struct http_answer *a, struct err *e)
{
	json_t *root = json_loadb(str_text(&a->body), a->body.length, 0, NULL);
	const json_t *error = json_object_get(root, "error");
	const char *kind = json_string_value(json_object_get(error, "kind"));
	const char *message = json_string_value(json_object_get(error, "message"));
	const char *hint = json_string_value(json_object_get(error, "hint"));
	int r;

	if (kind && message && err_kind_from_name(kind) != ERR_NONE)
		r = err_set(e, err_kind_from_name(kind), "%s", message);
	else
		r = err_set(e, kind_of_status(a->status), "the service answered with status %d", a->status);
	if (hint)
		r = err_hint(e, "%s", hint);
	json_decref(root);
	return r;
}

void http_quote(struct str *out, const char *text)
{
	for (const char *p = text; *p; p++) {
		unsigned char c = (unsigned char)*p;
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c);
		if (plain)
			str_putc(out, *p);
		else
			str_printf(out, "%%%02X", c);
	}
}
