/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. One request may take several exchanges: an answer 401 brings a challenge, which is answered once (with Basic, or with
 * a token that another exchange fetches); an answer 3xx brings another address. Redirects are followed by hand, because what
 * may be sent where is decided here: see may_visit(). Only the body of a final 200 or 206 goes to the pipe; all other bodies
 * are kept up to 64 KiB, for the registry's own words in the error and for tokens. Specification:
 * github.com/opencontainers/distribution-spec v1.1.
 */
#include "store/fetch.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/cancel.h"
#include "store/registry_auth.h"
#include "model/registry_reference.h"

#define REDIRECTS_MOST 5
#define KEPT_MOST      65536

struct agent {
	const struct fetch_channel *channel;
	CURL *curl;
	char *authorization; /* "Authorization: ..." that worked, or NULL */
	bool loopback;       /* the registry is this machine, and plain http is allowed */
};

/* One exchange: one HTTP request and its answer. */
struct exchange {
	struct agent *agent;
	const struct fetch_request *request; /* NULL: the body is kept, whatever the status is (tokens) */
	bool to_pipe, head_sent;
	uint64_t offset, body_bytes;
	struct str kept;
	char challenge[4096], location[2048], content_range[128], media_type[128];
	struct err failure; /* why a callback stopped the exchange */
	bool failed;
};

/* --- what arrives --- */

static void take_header(const char *line, size_t length, const char *name, char *out, size_t size)
{
	size_t name_length = strlen(name);

	if (length <= name_length || strncasecmp(line, name, name_length) != 0)
		return;
	line += name_length;
	length -= name_length;
	while (length && (*line == ' ' || *line == '\t')) {
		line++;
		length--;
	}
	while (length && isspace((unsigned char)line[length - 1]))
		length--;
	if (length < size && !memchr(line, 0, length)) {
		memcpy(out, line, length);
		out[length] = '\0';
	}
}

/* Several WWW-Authenticate headers are one list. */
static void take_challenge(struct exchange *x, const char *line, size_t length)
{
	char one[sizeof x->challenge] = "";
	size_t used = strlen(x->challenge);

	take_header(line, length, "www-authenticate:", one, sizeof one);
	if (one[0] && used + strlen(one) + 3 < sizeof x->challenge)
		(void)snprintf(x->challenge + used, sizeof x->challenge - used, "%s%s", used ? ", " : "", one);
}

static size_t on_header(char *line, size_t size, size_t count, void *data)
{
	struct exchange *x = data;
	size_t length = size * count;

	if (length > 5 && memcmp(line, "HTTP/", 5) == 0)
		x->challenge[0] = x->location[0] = x->content_range[0] = x->media_type[0] = '\0';
	take_challenge(x, line, length);
	take_header(line, length, "location:", x->location, sizeof x->location);
	take_header(line, length, "content-range:", x->content_range, sizeof x->content_range);
	take_header(line, length, "content-type:", x->media_type, sizeof x->media_type);
	return length;
}

static size_t fail(struct exchange *x)
{
	x->failed = true;
	return 0; /* curl ends with CURLE_WRITE_ERROR */
}

static int check_length(struct exchange *x)
{
	const struct fetch_request *q = x->request;
	curl_off_t announced = -1;

	(void)curl_easy_getinfo(x->agent->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &announced);
	if (announced < 0)
		return 0;
	uint64_t most = q->most_bytes - x->offset;
	if ((uint64_t)announced > most && !q->exact)
		return err_set(&x->failure, ERR_TOO_LARGE, "the registry announces %lld bytes, at most %llu are read",
			       (long long)announced, (unsigned long long)most);
	if ((uint64_t)announced != most && q->exact)
		return err_set(&x->failure, ERR_CORRUPT, "the registry announces %lld bytes, the manifest says %llu",
			       (long long)announced, (unsigned long long)most);
	return 0;
}

/* Before the first byte of the body, or at the end of an empty one. */
static int send_head(struct exchange *x)
{
	struct fetch_message m = { .type = FETCH_HEAD };
	unsigned long long start = 0;
	long status = 0;

	(void)curl_easy_getinfo(x->agent->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status == 206 && (sscanf(x->content_range, "bytes %llu-", &start) != 1 || start != x->request->offset))
		return err_set(&x->failure, ERR_CORRUPT, "the registry sent another part than was asked for (%s)",
			       x->content_range);
	x->offset = m.head.offset = start;
	int r = check_length(x);
	if (r < 0)
		return r;
	for (size_t i = 0; x->media_type[i] && !strchr("; \t", x->media_type[i]); i++)
		m.head.media_type[i] = (char)tolower((unsigned char)x->media_type[i]);
	x->head_sent = true;
	if (send(x->agent->channel->socket, &m, sizeof m, MSG_NOSIGNAL) < 0)
		return err_errno(&x->failure, errno, "answer");
	return 0;
}

static size_t keep(struct exchange *x, const char *bytes, size_t length)
{
	if (x->kept.length + length > KEPT_MOST) {
		(void)err_set(&x->failure, ERR_TOO_LARGE, "the registry's answer is longer than 64 KiB");
		return fail(x);
	}
	str_add(&x->kept, bytes, length);
	return length;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *data)
{
	struct exchange *x = data;
	size_t length = size * count;
	long status = 0;

	(void)curl_easy_getinfo(x->agent->curl, CURLINFO_RESPONSE_CODE, &status);
	if (!x->request || (status != 200 && status != 206))
		return keep(x, bytes, length);
	if (!x->head_sent && send_head(x) < 0)
		return fail(x);
	if (x->body_bytes + length > x->request->most_bytes - x->offset) {
		(void)err_set(&x->failure, x->request->exact ? ERR_CORRUPT : ERR_TOO_LARGE,
			      "the registry sent more than %llu bytes", (unsigned long long)x->request->most_bytes);
		return fail(x);
	}
	if (fs_write_all(x->agent->channel->pipe, bytes, length, &x->failure) < 0)
		return fail(x);
	x->body_bytes += length;
	return length;
}

/* --- one exchange --- */

static int curl_failure(CURLcode code, const char *text, struct err *e)
{
	const char *why = text[0] ? text : curl_easy_strerror(code);

	switch (code) {
	case CURLE_OPERATION_TIMEDOUT:
		return err_set(e, ERR_TIMEOUT, "the registry does not answer: %.300s", why);
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
		(void)err_set(e, ERR_DENIED, "the registry's certificate is not trusted: %.300s", why);
		return err_hint(e, "add its authority to /etc/ssl/certs (update-ca-certificates)");
	default:
		return err_set(e, ERR_UNAVAILABLE, "the registry cannot be reached: %.300s", why);
	}
}

static struct curl_slist *request_headers(const struct exchange *x, const char *authorization)
{
	struct curl_slist *list = curl_slist_append(NULL, "User-Agent: carrel/" CARREL_VERSION);
	char line[700];

	if (x->request && x->request->accept[0]) {
		(void)snprintf(line, sizeof line, "Accept: %s", x->request->accept);
		list = curl_slist_append(list, line);
	}
	if (x->request && x->request->offset) {
		(void)snprintf(line, sizeof line, "Range: bytes=%llu-", (unsigned long long)x->request->offset);
		list = curl_slist_append(list, line);
	}
	return authorization ? curl_slist_append(list, authorization) : list;
}

static void set_options(struct exchange *x, const char *url, struct curl_slist *headers, char *error_text)
{
	CURL *c = x->agent->curl;
	const struct fetch_channel *channel = x->agent->channel;
	struct curl_blob authorities = { (void *)(uintptr_t)channel->authorities, channel->authorities_length,
					 CURL_BLOB_NOCOPY };
	long timeout_ms = x->request ? x->request->timeout_ms : 30000;

	curl_easy_reset(c);
	(void)curl_easy_setopt(c, CURLOPT_URL, url);
	(void)curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, x->agent->loopback ? "http,https" : "https");
	(void)curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	(void)curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, 15000L);
	(void)curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
	(void)curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, 30L);
	(void)curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, timeout_ms);
	(void)curl_easy_setopt(c, CURLOPT_BUFFERSIZE, 262144L);
	(void)curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(c, CURLOPT_HEADERDATA, x);
	(void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(c, CURLOPT_WRITEDATA, x);
	(void)curl_easy_setopt(c, CURLOPT_ERRORBUFFER, error_text);
	(void)curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
	if (channel->authorities_length)
		(void)curl_easy_setopt(c, CURLOPT_CAINFO_BLOB, &authorities);
	if (x->agent->loopback)
		(void)curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
}

static int exchange(struct exchange *x, const char *url, const char *authorization, long *ret_status, struct err *e)
{
	char error_text[CURL_ERROR_SIZE] = "";
	struct curl_slist *headers = request_headers(x, authorization);

	set_options(x, url, headers, error_text);
	CURLcode code = curl_easy_perform(x->agent->curl);
	curl_slist_free_all(headers);
	if (x->failed) {
		if (e)
			*e = x->failure;
		return -x->failure.number;
	}
	if (code != CURLE_OK)
		return curl_failure(code, error_text, e);
	(void)curl_easy_getinfo(x->agent->curl, CURLINFO_RESPONSE_CODE, ret_status);
	return 0;
}

/* --- authentication --- */

static char *basic_authorization(const struct fetch_server *server)
{
	own_str char *plain = mem_printf("%s:%s", server->user, server->password);
	size_t length = strlen(plain);
	struct str line = { 0 };

	str_reserve(&line, 64 + length / 3 * 4); /* once: what grows leaves a copy behind */
	str_puts(&line, "Authorization: Basic ");
	str_add_base64(&line, plain, length);
	explicit_bzero(plain, length);
	return str_take(&line);
}

/* https anywhere; plain http only from a registry on this machine to this machine. */
static bool may_visit(const struct agent *a, const char *url)
{
	if (str_starts(url, "https://"))
		return true;
	return a->loopback && str_starts(url, "http://") && registry_host_is_loopback(url + strlen("http://"));
}

static void add_query(CURLU *url, const char *name, const char *value)
{
	own_str char *pair = mem_printf("%s=%s", name, value);
	if (value[0])
		(void)curl_url_set(url, CURLUPART_QUERY, pair, CURLU_APPENDQUERY | CURLU_URLENCODE);
}

static char *token_url(const struct registry_challenge *c)
{
	CURLU *url = curl_url();
	char *text = NULL, *copy = NULL;

	if (curl_url_set(url, CURLUPART_URL, c->realm, 0) == CURLUE_OK) {
		add_query(url, "service", c->service);
		add_query(url, "scope", c->scope);
		if (curl_url_get(url, CURLUPART_URL, &text, 0) == CURLUE_OK)
			copy = mem_strdup(text);
	}
	curl_free(text);
	curl_url_cleanup(url);
	return copy;
}

static int fetch_token(struct agent *a, const struct registry_challenge *c, struct err *e)
{
	struct exchange x = { .agent = a };
	const struct fetch_server *server = a->channel->server;
	own_str char *url = token_url(c), *token = NULL;
	own_str char *basic = server->user ? basic_authorization(server) : NULL;
	long status = 0;

	if (!url || !may_visit(a, url))
		return err_set(e, ERR_DENIED, "the registry names a token server that is not https: '%.200s'", c->realm);
	int r = exchange(&x, url, basic, &status, e);
	if (r == 0 && (status == 401 || status == 403)) {
		(void)err_set(e, ERR_DENIED, "the token server refuses %s",
			      server->user ? "user name and password" : "anonymous access");
		r = err_hint(e, "carrel image import ... --username NAME --password-stdin, or a password file (--authfile)");
	} else if (r == 0 && status != 200) {
		r = err_set(e, status >= 500 ? ERR_UNAVAILABLE : ERR_DENIED, "the token server answers with status %ld",
			    status);
	}
	if (r == 0)
		r = registry_token_parse(str_text(&x.kept), x.kept.length, &token, e);
	str_done(&x.kept);
	if (r < 0)
		return r;
	free(a->authorization);
	a->authorization = mem_printf("Authorization: Bearer %s", token);
	return 0;
}

static int authenticate(struct agent *a, const char *challenge, struct err *e)
{
	const struct fetch_server *server = a->channel->server;
	struct registry_challenge c;

	int r = registry_challenge_parse(challenge, &c, e);
	if (r < 0)
		return r;
	if (c.kind == CHALLENGE_BEARER)
		return fetch_token(a, &c, e);
	if (c.kind == CHALLENGE_BASIC && server->user) {
		free(a->authorization);
		a->authorization = basic_authorization(server);
		return 0;
	}
	(void)err_set(e, ERR_DENIED, "the registry asks for %s", c.kind == CHALLENGE_BASIC ? "user name and password" :
							       "an authentication that is not known here");
	return err_hint(e, "carrel image import ... --username NAME --password-stdin, or a password file (--authfile)");
}

/* --- one request --- */

/* The registry's own words: {"errors":[{"code","message"}]}, made printable. */
static void registry_words(const struct str *body, char *out, size_t size)
{
	json_t *answer = json_loadb(str_text(body), body->length, 0, NULL);
	const json_t *first = json_array_get(json_object_get(answer, "errors"), 0);
	const char *code = json_string_value(json_object_get(first, "code"));
	const char *message = json_string_value(json_object_get(first, "message"));

	(void)snprintf(out, size, "%s%.60s%s%.200s", code || message ? ": " : "", code ? code : "", code && message ? ": " : "",
		       message ? message : "");
	for (char *c = out; *c; c++)
		if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
			*c = '?';
	json_decref(answer);
}

static int status_failure(const struct exchange *x, long status, struct err *e)
{
	char words[300];

	registry_words(&x->kept, words, sizeof words);
	if (status == 401 || status == 403) {
		(void)err_set(e, ERR_DENIED, "the registry refuses access (status %ld)%s", status, words);
		return err_hint(e, "the image may not exist, or user name and password are needed");
	}
	if (status == 404)
		return err_set(e, ERR_NOT_FOUND, "the registry does not have it%s", words);
	if (status == 429 || status >= 500)
		return err_set(e, ERR_UNAVAILABLE, "the registry answers with status %ld%s", status, words);
	return err_set(e, ERR_INVALID, "the registry answers with status %ld%s", status, words);
}

static int follow(struct agent *a, char **url, const char *location, struct err *e)
{
	CURLU *next = curl_url();
	char *text = NULL;
	int r = 0;

	if (!location[0] || curl_url_set(next, CURLUPART_URL, *url, 0) != CURLUE_OK ||
	    curl_url_set(next, CURLUPART_URL, location, 0) != CURLUE_OK ||
	    curl_url_get(next, CURLUPART_URL, &text, 0) != CURLUE_OK)
		r = err_set(e, ERR_CORRUPT, "the registry redirects to nowhere");
	else if (!may_visit(a, text))
		r = err_set(e, ERR_DENIED, "the registry redirects to '%.200s', which is not https", text);
	if (r == 0) {
		free(*url);
		*url = mem_strdup(text);
	}
	curl_free(text);
	curl_url_cleanup(next);
	return r;
}

static bool same_origin(const struct agent *a, const char *url)
{
	const char *base = a->channel->server->base;
	size_t length = strlen(base);
	return strncmp(url, base, length) == 0 && url[length] == '/';
}

static bool is_redirect(long status)
{
	return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* Until there is an answer that is neither a challenge that can be answered nor a redirect. */
static int converse(struct agent *a, struct exchange *x, char **url, struct err *e)
{
	bool answered = false;
	int redirects = 0;

	for (;;) {
		bool home = same_origin(a, *url);
		long status = 0;
		str_clear(&x->kept);
		int r = exchange(x, *url, home ? a->authorization : NULL, &status, e);
		if (r < 0)
			return r;
		if (status == 401 && home && !answered && x->challenge[0]) {
			answered = true;
			r = authenticate(a, x->challenge, e);
		} else if (is_redirect(status)) {
			if (redirects++ == REDIRECTS_MOST)
				return err_set(e, ERR_CORRUPT, "the registry redirects more than %d times", REDIRECTS_MOST);
			r = follow(a, url, x->location, e);
		} else if (status == 200 || status == 206) {
			return x->head_sent ? 0 : send_head(x) < 0 ? (*e = x->failure, -e->number) : 0;
		} else {
			return status_failure(x, status, e);
		}
		if (r < 0)
			return r;
	}
}

static int answer(struct agent *a, const struct fetch_request *request, struct err *e)
{
	struct exchange x = { .agent = a, .request = request };
	struct fetch_message end = { .type = FETCH_END };
	char *url = mem_printf("%s%s", a->channel->server->base, request->path);

	end.failed = converse(a, &x, &url, &end.error) < 0;
	end.body_bytes = x.body_bytes;
	free(url);
	str_done(&x.kept);
	if (send(a->channel->socket, &end, sizeof end, MSG_NOSIGNAL) < 0)
		return err_errno(e, errno, "answer");
	return 0;
}

int fetch_child_run(void *channel, struct err *e)
{
	struct agent a = { .channel = channel, .curl = curl_easy_init() };
	struct fetch_request request;
	int r = 0;

	cancel_in_child();
	if (!a.curl)
		return err_set(e, ERR_INTERNAL, "libcurl does not start");
	a.loopback = str_starts(a.channel->server->base, "http://");
	while (r == 0) {
		ssize_t n = recv(a.channel->socket, &request, sizeof request, 0);
		if (n == 0)
			break;
		if (n != (ssize_t)sizeof request)
			r = err_errno(e, n < 0 ? errno : EBADMSG, "read a request");
		else
			r = answer(&a, &request, e);
	}
	curl_easy_cleanup(a.curl);
	free(a.authorization);
	return r;
}
