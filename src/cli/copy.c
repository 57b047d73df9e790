/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One tar in one direction over one stream, on a loop that ends with it. What is sent is read with blocking calls in pieces,
 * so a slow source delays only itself; the workspace's own answer, which is the result, is heard between two pieces. Names and
 * types in the tar are carrel-tar's affair; copy_look alone reads a header, to tell a file from a folder without asking for
 * either.
 */
#include "cli/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/progress.h"
#include "client/stream.h"

struct copy {
	struct loop *loop;
	struct stream *stream;
	int fd;            /* source or destination; -1: only the head is wanted */
	struct str head;   /* of a tar that is only looked at */
	bool sends, ended;
	struct progress progress;
	uint64_t done;
	int result;
	struct err *e;
};

static void end_with(struct copy *x, int result)
{
	if (!x->ended)
		x->result = result;
	x->ended = true;
	loop_stop(x->loop);
}

/* Type of the first member of a tar, past pax headers: '0' file, '5' folder, ...; 0: not known yet. POSIX.1-2017, pax,
 * "ustar". */
static char first_type(const struct str *tar)
{
	for (size_t at = 0; at + 512 <= tar->length;) {
		const char *header = tar->bytes + at;
		char type = (char)(header[156] ? header[156] : '0');
		if (type != 'x' && type != 'g' && type != 'L' && type != 'K')
			return type;
		at += 512 + (strtoull(header + 124, NULL, 8) + 511) / 512 * 512;
	}
	return 0;
}

static void on_output(void *data, int channel, const char *bytes, size_t length)
{
	struct copy *x = data;

	if (channel != STREAM_OUTPUT || x->ended)
		return;
	if (x->fd < 0) {
		str_add(&x->head, bytes, length);
		if (first_type(&x->head) || x->head.length > 1 << 20)
			end_with(x, 0);
		return;
	}
	int r = fs_write_all(x->fd, bytes, length, x->e);
	if (r < 0)
		end_with(x, r);
	x->done += length;
	progress_bytes(&x->progress, x->done, 0, 0);
}

static void on_end(void *data, int status, const struct err *why)
{
	struct copy *x = data;

	if (x->ended)
		return;
	if (why) {
		*x->e = *why;
		end_with(x, -(why->number ? why->number : EIO));
	} else {
		end_with(x, status ? err_set(x->e, ERR_INTERNAL, "the copy ended with status %d within the workspace", status) :
				     0);
	}
}

/* The source is read with blocking calls, one piece a turn of the loop, so that an answer is heard between them. */
static void send_piece(void *data)
{
	struct copy *x = data;
	char buffer[65535];

	if (x->ended || !x->sends || stream_congested(x->stream))
		return; /* `drained` comes back here */
	ssize_t n = read(x->fd, buffer, sizeof buffer);
	if (n < 0 && errno != EINTR) {
		end_with(x, err_errno(x->e, errno, "read what is to be copied"));
		return;
	}
	if (n == 0) {
		x->sends = false;
		stream_end_input(x->stream);
		return;
	}
	stream_write(x->stream, buffer, n > 0 ? (size_t)n : 0);
	x->done += n > 0 ? (uint64_t)n : 0;
	progress_bytes(&x->progress, x->done, 0, 0);
	if (!stream_congested(x->stream))
		(void)loop_add_timer(x->loop, 0, send_piece, x);
}

static int run(struct cli *cli, struct copy *x, char *api_path, const char *path, struct err *e)
{
	static const struct stream_events events = { on_output, on_end, send_piece };
	own_str char *owned = api_path;
	own_json json_t *request = json_pack("{s:s}", "path", path);
	struct client *client;
	int r = request ? cli_client(cli, &client, e) : err_set(e, ERR_INVALID, "a path is not UTF-8");

	if (r < 0)
		return r;
	x->e = e;
	x->loop = loop_new();
	progress_start(&x->progress, cli, "copy");
	r = stream_open(x->loop, client_address(client), owned, request, &events, x, &x->stream, e);
	if (r == 0 && x->sends)
		(void)loop_add_timer(x->loop, 0, send_piece, x);
	if (r == 0)
		r = loop_run(x->loop, e);
	stream_free(x->stream);
	loop_free(x->loop);
	progress_end(&x->progress);
	return r < 0 ? r : x->result;
}

int copy_in(struct cli *cli, const char *name, const char *path, int fd, struct err *e)
{
	struct copy x = { .fd = fd, .sends = true };
	return run(cli, &x, client_path("/v1/workspaces/%s/copy-in", name), path, e);
}

int copy_out(struct cli *cli, const char *name, const char *path, int fd, struct err *e)
{
	struct copy x = { .fd = fd };
	return run(cli, &x, client_path("/v1/workspaces/%s/copy-out", name), path, e);
}

int copy_look(struct cli *cli, const char *name, const char *path, enum copy_kind *ret_kind, struct err *e)
{
	struct copy x = { .fd = -1 };
	own_str char *show = client_path("/v1/workspaces/%s", name);
	struct client *client;
	int r = cli_client(cli, &client, e);

	if (r == 0) /* an absent workspace is not an absent file */
		r = client_call(client, "GET", show, NULL, NULL, e);
	if (r < 0)
		return r;
	r = run(cli, &x, client_path("/v1/workspaces/%s/copy-out", name), path, e);
	char type = first_type(&x.head);
	str_done(&x.head);
	if (r < 0 && e->kind != ERR_NOT_FOUND)
		return r;
	*ret_kind = r < 0 || !type ? COPY_ABSENT : type == '5' ? COPY_FOLDER : type == '2' ? COPY_LINK : COPY_FILE;
	err_clear(e);
	return 0;
}
