/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Viewers speak RFB on a socket of their own; each connection becomes one stream of the service. Both sides are read
 * only while the other takes what it is given: what is held of one viewer is a frame in each direction.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/session.h"
#include "client/stream.h"

struct viewer {
	struct display *display;
	int fd;
	struct loop_source *source;
	struct stream *stream;
	struct str unsent; /* to the viewer */
	bool over;
};

struct display {
	struct cli *cli;
	struct loop *loop;
	const char *address, *path;
	int listener;
};

static void viewer_free(struct viewer *v)
{
	loop_remove(v->source);
	stream_free(v->stream);
	(void)close(v->fd);
	str_done(&v->unsent);
	free(v);
}

static void watch(struct viewer *v)
{
	bool takes = !v->over && !stream_congested(v->stream);
	loop_set_events(v->source, (takes ? EPOLLIN : 0) | (v->unsent.length ? EPOLLOUT : 0));
}

static void flush(struct viewer *v)
{
	while (v->unsent.length) {
		ssize_t n = send(v->fd, v->unsent.bytes, v->unsent.length, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		str_drop_front(&v->unsent, n < 0 ? v->unsent.length : (size_t)n);
	}
	if (!v->over && !v->unsent.length)
		stream_resume(v->stream);
}

static void on_output(void *data, int channel, const char *bytes, size_t length)
{
	struct viewer *v = data;

	(void)channel;
	str_add(&v->unsent, bytes, length);
	flush(v);
	if (v->unsent.length)
		stream_pause(v->stream);
	watch(v);
}

/* What the screen showed last is still delivered, if it goes at once. */
static void on_end(void *data, int status, const struct err *why)
{
	struct viewer *v = data;

	(void)status;
	if (why)
		(void)fprintf(stderr, "carrel: %s\n", why->message);
	v->over = true;
	flush(v);
	viewer_free(v);
}

static void on_drained(void *data) { watch(data); }

static void viewer_ready(void *data, uint32_t events)
{
	struct viewer *v = data;
	char bytes[16384];

	if (events & EPOLLOUT)
		flush(v);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		ssize_t n = recv(v->fd, bytes, sizeof bytes, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			viewer_free(v);
			return;
		}
		if (n > 0)
			stream_write(v->stream, bytes, (size_t)n);
	}
	watch(v);
}

static void accept_viewer(void *data, uint32_t events)
{
	static const struct stream_events stream_events = { on_output, on_end, on_drained };
	struct display *d = data;
	own_json json_t *request = json_object();
	struct err e;
	int fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0)
		return;
	struct viewer *v = mem_alloc(sizeof *v);
	*v = (struct viewer){ .display = d, .fd = fd };
	if (stream_open(d->loop, d->address, d->path, request, &stream_events, v, &v->stream, &e) < 0) {
		(void)fprintf(stderr, "carrel: %s\n", e.message);
		viewer_free(v);
		return;
	}
	v->source = loop_add_fd(d->loop, fd, EPOLLIN, viewer_ready, v);
}

/* --- where it listens --- */

static int listen_unix(const char *path, int *ret_fd, struct err *e)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof address.sun_path)
		return err_set(e, ERR_INVALID, "%s is too long for the name of a socket", path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	own_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	mode_t mask = umask(0177); /* whoever may open it sees the screen */
	int bound = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&address, sizeof address), number = errno;
	(void)umask(mask);
	if (bound < 0 || listen(fd, 8) < 0)
		return err_errno(e, bound < 0 ? number : errno, "listen on %s", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int listen_tcp(const char *text, int *ret_fd, char *ret_name, size_t size, struct err *e)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t length = sizeof address;
	const char *colon = strrchr(text, ':');
	own_str char *host = mem_strndup(text, (size_t)(colon - text));
	uint64_t port = 0;

	if (inet_pton(AF_INET, host, &address.sin_addr) != 1 || str_to_u64(colon + 1, 65535, &port) < 0)
		return err_set(e, ERR_INVALID, "'%s' is neither ADDRESS:PORT nor the path of a socket", text);
	address.sin_port = htons((uint16_t)port);
	own_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const int on = 1;
	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 8) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		return err_errno(e, errno, "listen on %s", text);
	(void)snprintf(ret_name, size, "%s:%u", host, ntohs(address.sin_port));
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static void interrupted(void *data) { loop_stop(((struct display *)data)->loop); }

static int serve(struct cli *cli, struct client *client, const char *path, const char *where, struct err *e)
{
	struct display d = { .cli = cli, .address = client_address(client), .path = path, .listener = -1 };
	bool is_path = strchr(where, '/') != NULL;
	char name[256];
	int r = is_path ? listen_unix(where, &d.listener, e) : listen_tcp(where, &d.listener, name, sizeof name, e);

	if (r < 0)
		return r;
	(void)puts(is_path ? where : name);
	(void)fflush(stdout);
	d.loop = loop_new();
	(void)loop_add_signal(d.loop, SIGINT, interrupted, &d);
	(void)loop_add_signal(d.loop, SIGTERM, interrupted, &d);
	(void)loop_add_fd(d.loop, d.listener, EPOLLIN, accept_viewer, &d);
	r = loop_run(d.loop, e);
	if (is_path)
		(void)unlink(where);
	(void)close(d.listener);
	return r < 0 ? r : 0;
}

static int display(struct cli *cli, const struct args *a, struct err *e)
{
	own_json json_t *request = json_object();
	own_str char *path = client_path("/v1/workspaces/%s/display", args_operand(a, 0));
	own_str char *object = client_path("/v1/workspaces/%s", args_operand(a, 0));
	const char *where = args_text(a, "listen");
	struct client *client;
	int status = 0;

	if (!where) {
		const struct session session = { .path = path, .request = request, .input = true };
		int r = session_run(cli, &session, &status, e);
		return r < 0 ? r : 0;
	}
	if (!strchr(where, '/') && !strchr(where, ':'))
		return err_set(e, ERR_INVALID, "'%s' is neither ADDRESS:PORT nor the path of a socket", where);
	int r = cli_client(cli, &client, e);
	if (r == 0)
		r = client_call(client, "GET", object, NULL, NULL, e); /* before anybody connects */
	return r < 0 ? r : serve(cli, client, path, where, e);
}

static const struct operand operands[] = { { "NAME", "workspace", COMPLETE_WORKSPACE }, { 0 } };
static const struct option options[] = {
	{ "listen", 0, OPTION_TEXT, "WHERE",
	  "for viewers: ADDRESS:PORT (port 0: a free one), or the path of a new socket; printed when it is there",
	  .complete = COMPLETE_FILE },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel display win --listen ./win.vnc", "then, in another terminal: vncviewer ./win.vnc" },
	{ "carrel display win --listen 127.0.0.1:5901", "for viewers that know no sockets with paths" },
	{ 0 },
};
const struct verb verb_display = {
	"display", "show the screen of a machine to a VNC viewer",
	"The screen of a workspace that boots a disk image, as RFB (RFC 6143). Without --listen one viewer's bytes are "
	"standard input and output. There is no password: whoever may connect sees the screen and types. A socket with a path "
	"can be opened by you only; a port can be opened by everybody on this computer.",
	operands, options, NULL, examples, display,
};
