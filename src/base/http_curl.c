/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl by dlopen: the table below holds the few calls that are used. What is set on the handle: only http and https, no
 * redirects, no proxy for this machine, TLS checked as the system does, no signals.
 */
#include "base/http_curl.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "base/own.h"

#define BODY_MOST (64 << 20)

static struct {
	__typeof__(curl_global_init) *global_init;
	__typeof__(curl_easy_init) *easy_init;
	__typeof__(curl_easy_reset) *easy_reset;
	__typeof__(curl_easy_cleanup) *easy_cleanup;
	/* Variadic in libcurl; the header wraps them in macros for type checks, which names in a table are free of. */
	CURLcode (*easy_setopt)(CURL *, CURLoption, ...);
	CURLcode (*easy_getinfo)(CURL *, CURLINFO, ...);
	CURLcode (*easy_perform)(CURL *);
	const char *(*easy_strerror)(CURLcode);
	struct curl_slist *(*slist_append)(struct curl_slist *, const char *);
	void (*slist_free_all)(struct curl_slist *);
	bool loaded;
	char failure[256];
} lib;

static void load(void)
{
	void *handle = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
	if (!handle)
		handle = dlopen("libcurl-gnutls.so.4", RTLD_NOW | RTLD_LOCAL);
	const struct {
		const char *name;
		void *slot;
	} calls[] = {
		{ "curl_global_init", &lib.global_init },   { "curl_easy_init", &lib.easy_init },
		{ "curl_easy_reset", &lib.easy_reset },     { "curl_easy_cleanup", &lib.easy_cleanup },
		{ "curl_easy_setopt", &lib.easy_setopt },   { "curl_easy_getinfo", &lib.easy_getinfo },
		{ "curl_easy_perform", &lib.easy_perform }, { "curl_easy_strerror", &lib.easy_strerror },
		{ "curl_slist_append", &lib.slist_append }, { "curl_slist_free_all", &lib.slist_free_all },
	};
	for (size_t i = 0; handle && i < ARRAY_SIZE(calls); i++) {
		void *address = dlsym(handle, calls[i].name);
		if (!address)
			handle = NULL;
		memcpy(calls[i].slot, &address, sizeof address);
	}
	if (!handle) {
		const char *why = dlerror();
		(void)snprintf(lib.failure, sizeof lib.failure, "%s", why ? why : "unknown");
		return;
	}
	lib.loaded = lib.global_init(CURL_GLOBAL_ALL) == CURLE_OK;
}

static int need_library(struct err *e)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, load);
	if (lib.loaded)
		return 0;
	(void)err_set(e, ERR_UNSUPPORTED, "libcurl cannot be loaded: %s", lib.failure);
	return err_hint(e, "apt install libcurl4");
}

struct http_curl {
	char *address;
	CURL *handle;
};

int http_curl_new(const char *address, struct http_curl **ret_curl, struct err *e)
{
	int r = need_library(e);
	if (r < 0)
		return r;
	CURL *handle = lib.easy_init();
	if (!handle)
		return err_set(e, ERR_INTERNAL, "libcurl does not start");
	struct http_curl *c = mem_alloc(sizeof *c);
	c->handle = handle;
	c->address = mem_strdup(address);
	if (str_ends(c->address, "/"))
		c->address[strlen(c->address) - 1] = '\0';
	*ret_curl = c;
	return 0;
}

void http_curl_free(struct http_curl *c)
{
	lib.easy_cleanup(c->handle);
	free(c->address);
	free(c);
}

/* What the callbacks of one request share. */
struct exchange {
	struct http_curl *curl;
	const struct http_request *request;
	struct http_answer *answer;
	struct err *e;
	bool failed, told_head;
};

static size_t on_body(char *bytes, size_t size, size_t count, void *data)
{
	struct exchange *x = data;
	size_t length = size * count;
	long status = 0;

	(void)lib.easy_getinfo(x->curl->handle, CURLINFO_RESPONSE_CODE, &status);
	if (x->request->head && !x->told_head) {
		x->told_head = true;
		x->answer->status = (int)status;
		x->request->head(x->request->data, x->answer);
	}
	if (x->request->write && status >= 200 && status < 300) {
		if (x->request->write(x->request->data, bytes, length) == 0)
			return length;
		(void)err_set(x->e, ERR_CANCELLED, "the answer was not taken");
		x->failed = true;
		return 0;
	}
	if (x->answer->body.length + length > BODY_MOST) {
		(void)err_set(x->e, ERR_TOO_LARGE, "the answer is longer than %d MiB", BODY_MOST >> 20);
		x->failed = true;
		return 0;
	}
	str_add(&x->answer->body, bytes, length);
	return length;
}

static void keep_header(const char *line, size_t length, const char *name, char *out, size_t size)
{
	size_t n = strlen(name);
	if (length <= n || strncasecmp(line, name, n) != 0)
		return;
	while (n < length && (line[n] == ' ' || line[n] == '\t'))
		n++;
	while (length > n && (line[length - 1] == '\r' || line[length - 1] == '\n'))
		length--;
	if (length - n < size) {
		memcpy(out, line + n, length - n);
		out[length - n] = '\0';
	}
}

static size_t on_header(char *line, size_t size, size_t count, void *data)
{
	struct exchange *x = data;
	keep_header(line, size * count, "etag:", x->answer->etag, sizeof x->answer->etag);
	keep_header(line, size * count, "location:", x->answer->location, sizeof x->answer->location);
	keep_header(line, size * count, "carrel-operation:", x->answer->operation, sizeof x->answer->operation);
	return size * count;
}

static size_t on_read(char *buffer, size_t size, size_t count, void *data)
{
	struct exchange *x = data;
	long n = x->request->read(x->request->data, buffer, size * count);
	if (n >= 0)
		return (size_t)n;
	(void)(n == -ECANCELED ? err_set(x->e, ERR_CANCELLED, "cancelled") :
				 err_errno(x->e, (int)-n, "read what is to be sent"));
	x->failed = true;
	return CURL_READFUNC_ABORT;
}

/* libcurl calls at least once a second. */
static int on_moment(void *data, curl_off_t total, curl_off_t done, curl_off_t upload_total, curl_off_t upload_done)
{
	struct exchange *x = data;

	(void)total, (void)done, (void)upload_total, (void)upload_done;
	x->request->tick(x->request->data);
	return 0;
}

static struct curl_slist *set_request(struct exchange *x, const char *url)
{
	const struct http_request *q = x->request;
	CURL *h = x->curl->handle;
	struct curl_slist *headers = NULL;

	lib.easy_reset(h); /* keeps the connection */
	(void)lib.easy_setopt(h, CURLOPT_URL, url);
	(void)lib.easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
	(void)lib.easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	(void)lib.easy_setopt(h, CURLOPT_NOPROXY, "localhost,127.0.0.1,::1");
	(void)lib.easy_setopt(h, CURLOPT_USERAGENT, "carrel/" CARREL_VERSION);
	(void)lib.easy_setopt(h, CURLOPT_CUSTOMREQUEST, q->method);
	(void)lib.easy_setopt(h, CURLOPT_TIMEOUT_MS, q->timeout_ms);
	(void)lib.easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
	(void)lib.easy_setopt(h, CURLOPT_WRITEDATA, x);
	(void)lib.easy_setopt(h, CURLOPT_HEADERFUNCTION, on_header);
	(void)lib.easy_setopt(h, CURLOPT_HEADERDATA, x);
	if (q->tick) {
		(void)lib.easy_setopt(h, CURLOPT_XFERINFOFUNCTION, on_moment);
		(void)lib.easy_setopt(h, CURLOPT_XFERINFODATA, x);
		(void)lib.easy_setopt(h, CURLOPT_NOPROGRESS, 0L);
	}
	if (str_eq(q->method, "HEAD"))
		(void)lib.easy_setopt(h, CURLOPT_NOBODY, 1L);
	for (const char *const *line = q->headers; line && *line; line++)
		headers = lib.slist_append(headers, *line);
	if (q->read) {
		(void)lib.easy_setopt(h, CURLOPT_UPLOAD, 1L);
		(void)lib.easy_setopt(h, CURLOPT_READFUNCTION, on_read);
		(void)lib.easy_setopt(h, CURLOPT_READDATA, x);
		headers = lib.slist_append(headers, "Transfer-Encoding: chunked");
		headers = lib.slist_append(headers, "Expect:");
	} else if (q->body_length || str_eq(q->method, "POST")) {
		(void)lib.easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body_length);
		(void)lib.easy_setopt(h, CURLOPT_POSTFIELDS, q->body ? q->body : "");
	}
	(void)lib.easy_setopt(h, CURLOPT_HTTPHEADER, headers);
	return headers;
}

static int failure_of(CURLcode code, const char *address, struct err *e)
{
	const char *text = lib.easy_strerror(code);

	switch (code) {
	case CURLE_OPERATION_TIMEDOUT:
		return err_set(e, ERR_TIMEOUT, "%s: %s", address, text);
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CONNECT_ERROR:
		return err_set(e, ERR_DENIED, "%s: %s", address, text);
	case CURLE_URL_MALFORMAT:
		return err_set(e, ERR_INVALID, "%s: %s", address, text);
	default:
		return err_set(e, ERR_UNAVAILABLE, "%s: %s", address, text);
	}
}

int http_curl_do(struct http_curl *c, const struct http_request *q, struct http_answer *ret_answer, struct err *e)
{
	struct err scratch;
	struct http_answer a = { 0 };
	struct exchange x = { .curl = c, .request = q, .answer = &a, .e = e ? e : &scratch };
	own_str char *url = mem_printf("%s%s", c->address, q->path);
	struct curl_slist *headers = set_request(&x, url);
	CURLcode code = lib.easy_perform(c->handle);
	long status = 0;

	lib.slist_free_all(headers);
	(void)lib.easy_getinfo(c->handle, CURLINFO_RESPONSE_CODE, &status);
	if (code != CURLE_OK) {
		http_answer_done(&a);
		return x.failed ? -x.e->number : failure_of(code, c->address, e);
	}
	a.status = (int)status;
	*ret_answer = a;
	return 0;
}
