/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. We accept connections ourselves, so that a peer's credentials and its number of connections are known before a byte
 * is read, and hand them to libmicrohttpd, which runs inside our loop: when its epoll descriptor is readable, when its own
 * time-out is due, and after we resumed a connection.
 *
 * A request whose handler did not answer at once is suspended: libmicrohttpd leaves the connection alone until the answer is
 * there. A connection that sends nothing for IDLE_SECONDS while it is not suspended is closed, which ends slow senders; a peer
 * that drips bytes holds one of its own connections, of which each user has a limited number. A stream that was let in has
 * UPLOAD_IDLE_SECONDS: what makes its bytes (mmdebstrap, docker save) may think for minutes.
 */
#include "service/server.h"

#include <errno.h>
#include <microhttpd.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err_json.h"
#include "base/fault.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "service/routes.h"
#include "service/service.h"

#define IDLE_SECONDS 30
#define UPLOAD_IDLE_SECONDS 600
#define CONNECTIONS_MOST 4096
#define ACCEPT_PAUSE_MS 100

/* One peer's connection. */
struct peer {
	struct identity who;
	struct peer *next;
};

struct server {
	struct service *service;
	struct MHD_Daemon *daemon;
	int listen_fd;
	struct loop_source *accepting, *readable, *timer, *pause;
	bool told_full; /* the log says that there are no descriptors left; again after one was accepted */
	struct peer *peers;
	size_t connections;
	bool run_posted;
};

size_t server_connections(const struct server *s) { return s->connections; }

/* --- libmicrohttpd within the loop --- */

static void run(struct server *s);

static void run_timer(void *data)
{
	struct server *s = data;
	s->timer = NULL;
	run(s);
}

static void run(struct server *s)
{
	MHD_UNSIGNED_LONG_LONG wait_ms;

	(void)MHD_run(s->daemon);
	loop_remove(s->timer);
	s->timer = MHD_get_timeout(s->daemon, &wait_ms) == MHD_YES ? loop_add_timer(s->service->loop, wait_ms, run_timer, s) :
								     NULL;
}

static void run_on_event(void *data, uint32_t events)
{
	(void)events;
	run(data);
}

static void run_posted(void *data)
{
	struct server *s = data;
	s->run_posted = false;
	run(s);
}

/* After a resume: not at once, for a callback of libmicrohttpd may be what resumes. */
static void run_soon(struct server *s)
{
	if (s->run_posted)
		return;
	s->run_posted = true;
	loop_post(s->service->loop, run_posted, s);
}

/* --- connections --- */

static size_t connections_of(const struct server *s, uid_t uid)
{
	size_t count = 0;
	for (const struct peer *p = s->peers; p; p = p->next)
		count += p->who.uid == uid;
	return count;
}

static void listen_again(void *data)
{
	struct server *s = data;
	s->pause = NULL;
	loop_set_events(s->accepting, EPOLLIN);
}

/* Without descriptors the socket stays readable: it is left alone for a moment. Who waits there is served when others have
 * gone. */
static void accept_failed(struct server *s, int number)
{
	struct err e;

	if (number != EMFILE && number != ENFILE && number != ENOBUFS && number != ENOMEM)
		return;
	if (!s->told_full) {
		(void)err_errno(&e, number, "accept a connection");
		(void)err_hint(&e, "%zu are open; raise the limit of open files (LimitNOFILE of the unit)", s->connections);
		log_error(&e, "new connections wait");
	}
	s->told_full = true;
	loop_set_events(s->accepting, 0);
	s->pause = loop_add_timer(s->service->loop, ACCEPT_PAUSE_MS, listen_again, s);
}

/* A peer with too many connections is hung up on: answering it would need one more. */
static void accept_one(void *data, uint32_t events)
{
	struct server *s = data;
	struct identity who;
	struct err e;
	own_fd int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0) {
		accept_failed(s, errno);
		return;
	}
	s->told_full = false;
	if (identity_of_peer(&s->service->config, fd, &who, &e) < 0) {
		log_error(&e, "a connection");
		return;
	}
	if (!who.admin && connections_of(s, who.uid) >= s->service->config.connections_per_user) {
		log_detail("user %u has too many connections", who.uid);
		return;
	}
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)MHD_add_connection(s->daemon, TAKE_FD(fd), (struct sockaddr *)&address, sizeof address);
	run(s);
}

static void note_connection(void *data, struct MHD_Connection *connection, void **socket_context,
			    enum MHD_ConnectionNotificationCode code)
{
	struct server *s = data;
	struct err e;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		struct peer *p = mem_alloc(sizeof *p);
		int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
		if (identity_of_peer(&s->service->config, fd, &p->who, &e) < 0)
			p->who = (struct identity){ .uid = (uid_t)-1 };
		p->next = s->peers;
		s->peers = p;
		s->connections++;
		*socket_context = p;
		return;
	}
	struct peer *p = *socket_context;
	for (struct peer **at = &s->peers; *at; at = &(*at)->next) {
		if (*at != p)
			continue;
		*at = p->next;
		s->connections--;
		free(p);
		break;
	}
}

/* --- answers --- */

static void answer(struct request *r, int status, struct MHD_Response *response)
{
	if (r->answered) {
		MHD_destroy_response(response);
		return;
	}
	if (r->allow)
		(void)MHD_add_response_header(response, "Allow", r->allow);
	if (r->operation)
		(void)MHD_add_response_header(response, "Carrel-Operation", r->operation);
	r->answered = true;
	r->status = status;
	r->response = response;
	if (!r->suspended)
		return;
	r->suspended = false;
	MHD_resume_connection(r->connection);
	run_soon(r->service->server);
}

static struct MHD_Response *text_response(char *text, size_t length, enum MHD_ResponseMemoryMode mode, const char *type)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(length, text, mode);
	if (type)
		(void)MHD_add_response_header(response, "Content-Type", type);
	return response;
}

void request_reply_text(struct request *r, int status, const char *type, char *text, size_t length)
{
	answer(r, status, text_response(text, length, MHD_RESPMEM_MUST_FREE, type));
}

void request_reply_json(struct request *r, int status, json_t *json)
{
	char *text = json ? json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
	struct err e;

	json_decref(json);
	if (!text) { /* a text in it is not UTF-8 */
		(void)err_set(&e, ERR_INTERNAL, "the answer cannot be written as JSON");
		request_fail(r, &e);
		return;
	}
	request_reply_text(r, status, "application/json", text, strlen(text));
}

void request_reply_cached(struct request *r, int status, const char *text, size_t length, const char *etag)
{
	const char *have = etag ? request_header(r, "If-None-Match") : NULL;
	struct MHD_Response *response;

	if (have && (str_eq(have, "*") || strstr(have, etag))) {
		status = MHD_HTTP_NOT_MODIFIED;
		response = text_response(NULL, 0, MHD_RESPMEM_PERSISTENT, NULL);
	} else {
		response = text_response((char *)(uintptr_t)text, length, MHD_RESPMEM_MUST_COPY, "application/json");
	}
	if (etag)
		(void)MHD_add_response_header(response, "ETag", etag);
	answer(r, status, response);
}

static void digest_etag(const char *text, char out[static 32])
{
	struct digest d = hash_bytes(text, strlen(text));
	char hex[DIGEST_HEX_SIZE];

	(void)digest_hex(&d, hex);
	(void)snprintf(out, 32, "\"%.16s\"", hex);
}

void request_reply_tagged(struct request *r, int status, json_t *json)
{
	own_str char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
	char etag[32];

	json_decref(json);
	if (!text) {
		request_reply_json(r, status, NULL);
		return;
	}
	digest_etag(text, etag);
	request_reply_cached(r, status, text, strlen(text), etag);
}

int request_check_match(const struct request *r, json_t *json, const char *what, struct err *e)
{
	const char *match = request_header(r, "If-Match");
	own_str char *text = match ? json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	char etag[32];

	json_decref(json);
	if (!match || str_eq(match, "*"))
		return 0;
	digest_etag(text ? text : "", etag);
	if (strstr(match, etag))
		return 0;
	(void)err_set(e, ERR_PRECONDITION, "%s has changed since (it is %s now)", what, etag);
	return err_hint(e, "show it again and decide anew");
}

void request_reply_nothing(struct request *r)
{
	answer(r, MHD_HTTP_NO_CONTENT, text_response(NULL, 0, MHD_RESPMEM_PERSISTENT, NULL));
}

json_t *error_to_json(const struct err *e)
{
	return json_pack("{s:o}", "error", err_to_json(e));
}

void request_fail(struct request *r, const struct err *e)
{
	if (e->kind == ERR_INTERNAL)
		log_error(e, "%s", r->route ? r->route->path : "request");
	request_reply_json(r, err_kind_http_status(e->kind), error_to_json(e));
}

/* libmicrohttpd takes no answer while a body comes, so this one goes to the socket by our own hand. Nothing of an earlier
 * answer can be on its way: requests of a connection follow each other. What the peer still sends is refused by the socket, and
 * he reads the answer. */
void request_fail_at_once(struct request *r, const struct err *e)
{
	json_t *json = error_to_json(e);
	own_str char *body = json_dumps(json, JSON_COMPACT);
	int status = err_kind_http_status(e->kind);
	own_str char *text = mem_printf("HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: "
					"application/json\r\nContent-Length: %zu\r\n\r\n%s", status,
					MHD_get_reason_phrase_for((unsigned)status), strlen(body), body);
	int fd = MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;

	json_decref(json);
	if (r->answered)
		return;
	r->answered = r->cut = true;
	(void)!send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)shutdown(fd, SHUT_RDWR);
	request_body_wake(r);
	run_soon(r->service->server);
}

/* --- streams --- */

struct stream {
	struct request *request;
	struct server *server;
	struct MHD_Connection *connection;
	long (*read)(void *data, char *buffer, size_t size);
	void (*free_fn)(void *data);
	void *data;
	bool waiting;
};

static ssize_t stream_read(void *data, uint64_t at, char *buffer, size_t size)
{
	struct stream *t = data;
	long got = t->read(t->data, buffer, size);

	(void)at;
	if (got < 0)
		return got == STREAM_BROKEN ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
	if (got == 0) {
		t->waiting = true;
		MHD_suspend_connection(t->connection);
	}
	return got;
}

static void stream_free(void *data)
{
	struct stream *t = data;
	t->free_fn(t->data);
	free(t);
}

void request_reply_stream(struct request *r, const char *type, long (*read)(void *data, char *buffer, size_t size),
			  void (*free_fn)(void *data), void *data)
{
	struct stream *t = mem_alloc(sizeof *t);

	*t = (struct stream){ r, r->service->server, r->connection, read, free_fn, data, false };
	struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 32 << 10, stream_read, t,
									  stream_free);
	(void)MHD_add_response_header(response, "Content-Type", type);
	(void)MHD_add_response_header(response, "Cache-Control", "no-store");
	r->data = t;
	answer(r, MHD_HTTP_OK, response);
}

void request_wake(struct request *r)
{
	struct stream *t = r->data;
	if (!t->waiting)
		return;
	t->waiting = false;
	MHD_resume_connection(t->connection);
	run_soon(t->server);
}

/* --- upgrades --- */

struct upgrade {
	struct service *service;
	size_t longest;
	struct ws_events events;
	void (*opened)(void *data, struct ws *ws, void *handle);
	void (*abandoned)(void *data);
	void *data;
};

/* What request_upgrade_end needs. */
struct upgraded {
	struct server *server;
	struct MHD_UpgradeResponseHandle *handle;
};

static void become_websocket(void *data, struct MHD_Connection *connection, void *request_context, const char *early,
			     size_t early_length, MHD_socket fd, struct MHD_UpgradeResponseHandle *handle)
{
	struct upgrade *u = data;
	int own = dup(fd); /* the WebSocket closes its own; libmicrohttpd closes `fd` at request_upgrade_end */

	(void)connection;
	((struct request *)request_context)->upgrade = NULL;
	struct ws *ws = ws_new(u->service->loop, own, WS_SERVER, u->longest, early, early_length, &u->events, u->data);
	struct upgraded *kept = mem_alloc(sizeof *kept);
	*kept = (struct upgraded){ u->service->server, handle };
	u->opened(u->data, ws, kept);
	free(u);
}

bool request_is_upgrade(const struct request *r)
{
	const char *upgrade = request_header(r, "Upgrade");
	return upgrade && strcasecmp(upgrade, "websocket") == 0 && request_header(r, "Sec-WebSocket-Key");
}

void request_reply_upgrade(struct request *r, size_t longest_message, const struct ws_events *events,
			   void (*opened)(void *data, struct ws *ws, void *handle), void (*abandoned)(void *data), void *data)
{
	struct upgrade *u = mem_alloc(sizeof *u);
	char accept[29];

	*u = (struct upgrade){ r->service, longest_message, *events, opened, abandoned, data };
	r->upgrade = u;
	ws_accept_key(request_header(r, "Sec-WebSocket-Key"), accept);
	struct MHD_Response *response = MHD_create_response_for_upgrade(become_websocket, u);
	(void)MHD_add_response_header(response, "Upgrade", "websocket");
	(void)MHD_add_response_header(response, "Sec-WebSocket-Accept", accept);
	answer(r, MHD_HTTP_SWITCHING_PROTOCOLS, response);
}

void request_upgrade_end(void *handle)
{
	struct upgraded *kept = handle;
	(void)MHD_upgrade_action(kept->handle, MHD_UPGRADE_ACTION_CLOSE);
	run_soon(kept->server);
	free(kept);
}

/* The connection ended before the upgrade: nobody else knows. */
static void abandon_upgrade(struct upgrade *u)
{
	if (!u)
		return;
	if (u->abandoned)
		u->abandoned(u->data);
	free(u);
}

/* --- requests --- */

const char *request_query(const struct request *r, const char *name) { return pairs_get(&r->uri.query, name); }

const char *request_header(const struct request *r, const char *name)
{
	return r->connection ? MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name) : NULL;
}

bool request_flag(const struct request *r, const char *name)
{
	const char *value = request_query(r, name);
	return value && (!*value || str_eq(value, "1") || str_eq(value, "true"));
}

int request_number(const struct request *r, const char *name, uint64_t preset, uint64_t max, uint64_t *ret_number,
		   struct err *e)
{
	const char *value = request_query(r, name);

	*ret_number = preset;
	if (value && str_to_u64(value, max, ret_number) < 0)
		return err_set(e, ERR_INVALID, "query parameter '%s' must be a whole number up to %llu", name,
			       (unsigned long long)max);
	return 0;
}

int request_limit(const struct request *r, uint64_t *ret_limit, struct err *e)
{
	uint64_t limit = 0;
	int result = request_number(r, "limit", LIMIT_PRESET, LIMIT_MOST, &limit, e);

	if (result == 0 && limit == 0)
		result = err_set(e, ERR_INVALID, "query parameter 'limit' must be at least 1");
	if (result == 0)
		*ret_limit = limit;
	return result;
}

static void *begin_request(void *data, const char *target, struct MHD_Connection *connection)
{
	struct server *s = data;
	struct request *r = mem_alloc(sizeof *r);
	struct err e;

	r->service = s->service;
	r->connection = connection;
	if (uri_parse(target, &r->uri, &e) < 0) {
		request_fail(r, &e);
		r->failed_early = true;
	}
	return r;
}

static enum MHD_Result send_answer(struct request *r)
{
	struct MHD_Response *response = r->response;
	r->response = NULL;
	enum MHD_Result result = MHD_queue_response(r->connection, (unsigned)r->status, response);
	MHD_destroy_response(response);
	return result;
}

/* The first call for a request: only its head is known. An error is answered before the body comes. */
static void start(struct request *r, const char *method, struct err *e)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	const char *length = request_header(r, "Content-Length");
	uint64_t bytes = 0;

	r->started = true;
	r->who = ((struct peer *)info->socket_context)->who;
	if (r->answered)
		return;
	int result = routes_find(r, method, e);
	if (result > 0) {
		request_reply_nothing(r);
		return;
	}
	if (result == 0 && length && str_to_u64(length, UINT64_MAX, &bytes) < 0)
		result = err_set(e, ERR_INVALID, "Content-Length is not a number");
	if (result == 0 && !(r->route->flags & ROUTE_STREAM) && bytes > BODY_MOST)
		result = err_set(e, ERR_TOO_LARGE, "the body has more than %d bytes", BODY_MOST);
	bool stream = result == 0 && r->route->flags & ROUTE_STREAM;
	(void)MHD_set_connection_option(r->connection, MHD_CONNECTION_OPTION_TIMEOUT,
					(unsigned)(stream ? UPLOAD_IDLE_SECONDS : IDLE_SECONDS));
	if (stream)
		result = r->route->handle(r, e);
	if (result < 0)
		request_fail(r, e);
}

/* An answer that comes while the body still does is sent when it has come: libmicrohttpd takes none in between. false: no more
 * now. */
static bool take_body(struct request *r, const char *bytes, size_t length)
{
	struct err e;
	int result = 0;

	if (r->answered)
		return true;
	if (r->received)
		result = r->received(r, bytes, length, &e);
	else if (r->body.length + length > BODY_MOST)
		result = err_set(&e, ERR_TOO_LARGE, "the body has more than %d bytes", BODY_MOST);
	else
		str_add(&r->body, bytes, length);
	if (result < 0)
		request_fail(r, &e);
	return result <= 0;
}

void request_body_wake(struct request *r)
{
	if (!r->suspended)
		return;
	r->suspended = false;
	MHD_resume_connection(r->connection);
	run_soon(r->service->server);
}

/* libmicrohttpd may hand over several pieces of a body although the first asked to wait; suspending twice corrupts its
 * lists. */
static void suspend(struct request *r)
{
	if (r->suspended)
		return;
	r->suspended = true;
	MHD_suspend_connection(r->connection);
}

static enum MHD_Result handle(void *data, struct MHD_Connection *connection, const char *url, const char *method,
			      const char *version, const char *bytes, size_t *length, void **context)
{
	struct request *r = *context;
	struct err e;

	(void)data, (void)connection, (void)url, (void)version;
	if (r->cut)
		return MHD_NO;
	if (!r->started) {
		start(r, method, &e);
		return r->answered ? send_answer(r) : MHD_YES;
	}
	if (*length) {
		if (!take_body(r, bytes, *length))
			suspend(r);
		*length = 0;
		return MHD_YES;
	}
	if (!r->answered && r->route->flags & ROUTE_STREAM && r->ended)
		r->ended(r, false);
	else if (!r->answered && !(r->route->flags & ROUTE_STREAM) && routes_call(r, &e) < 0)
		request_fail(r, &e);
	if (r->answered)
		return send_answer(r);
	suspend(r);
	return MHD_YES;
}

void request_done(struct request *r)
{
	abandon_upgrade(TAKE(r->upgrade));
	routes_done(r);
	if (r->response)
		MHD_destroy_response(r->response);
	uri_done(&r->uri);
	str_done(&r->body);
	free(r);
}

static void end_request(void *data, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode code)
{
	struct request *r = *context;

	(void)data, (void)connection;
	if (!r)
		return;
	if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK && r->ended && !r->answered)
		r->ended(r, true);
	request_done(r);
	*context = NULL;
}

static size_t keep_escapes(void *data, struct MHD_Connection *connection, char *text)
{
	(void)data, (void)connection;
	return strlen(text);
}

/* --- start --- */

static mode_t octal(uint64_t digits)
{
	return (mode_t)((digits / 100 % 10) << 6 | (digits / 10 % 10) << 3 | digits % 10);
}

static int listen_on(const char *path, mode_t mode, struct err *e)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	own_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (strlen(path) >= sizeof address.sun_path)
		return err_set(e, ERR_INVALID, "%s: a socket's path has at most %zu bytes", path, sizeof address.sun_path - 1);
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (fd < 0)
		return err_errno(e, errno, "socket");
	(void)unlink(path);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || chmod(path, mode) < 0 || listen(fd, 1024) < 0)
		return err_errno(e, errno, "%s", path);
	return TAKE_FD(fd);
}

int server_start(struct service *s, const char *socket_path, struct server **ret_server, struct err *e)
{
	struct server *v = mem_alloc(sizeof *v);

	v->service = s;
	v->listen_fd = listen_on(socket_path, octal(s->config.socket_mode), e);
	if (v->listen_fd < 0) {
		free(v);
		return -e->number;
	}
	v->daemon = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE, 0, NULL, NULL, handle,
		v, MHD_OPTION_NOTIFY_COMPLETED, end_request, v, MHD_OPTION_NOTIFY_CONNECTION, note_connection, v,
		MHD_OPTION_URI_LOG_CALLBACK, begin_request, v, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, v,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MOST, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)(64 << 10), MHD_OPTION_END);
	if (!v->daemon) {
		(void)close(v->listen_fd);
		free(v);
		return err_set(e, ERR_INTERNAL, "the HTTP server did not start");
	}
	int epoll_fd = MHD_get_daemon_info(v->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
	v->readable = loop_add_fd(s->loop, epoll_fd, EPOLLIN, run_on_event, v);
	v->accepting = loop_add_fd(s->loop, v->listen_fd, EPOLLIN, accept_one, v);
	*ret_server = v;
	return 0;
}
