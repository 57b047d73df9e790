/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transfer joins a stream of the API and a file or a pipe on one loop, and ends by the first of: the other side's end, an
 * error of either, Ctrl-C (looked at five times a second, as the loop's waits are not ended by it). Input stops while the
 * stream is congested.
 *
 * An export that goes on gets the header once more; is_known compares it with the file's, so a file of two different states of
 * a workspace cannot come to be.
 */
#include "cli/bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/progress.h"
#include "client/stream.h"

#define ANSWER_MOST (16 << 20)
#define INTERRUPT_MS 200

/* --- the reader --- */

int bundle_open(const char *word, const char *file, struct pipe_child *ret_child, struct err *e)
{
	own_str char *helper = pipe_helper("carrel-bundle");
	const char *const argv[] = { helper, word, file, NULL };

	return pipe_start(ret_child, argv, str_eq(word, "chunks") ? PIPE_BOTH : PIPE_READ_ITS_OUTPUT, e);
}

/* Its error is one line of JSON. */
int bundle_close(struct pipe_child *c, struct err *e)
{
	int r = pipe_finish(c, e);

	if (r == 0)
		return 0;
	own_json json_t *error = json_loads(str_text(&c->said), JSON_DISABLE_EOF_CHECK, NULL);
	return json_is_object(error) ? client_error_of(error, e) : r;
}

int bundle_ask(const char *word, const char *file, json_t **ret_answer, struct err *e)
{
	own_pipe struct pipe_child child = PIPE_NONE;
	own_strbuf struct str text = { 0 };
	int r = bundle_open(word, file, &child, e);

	if (r == 0)
		r = fs_read_fd(child.fd, ANSWER_MOST, &text, e);
	if (r == 0)
		r = bundle_close(&child, e);
	if (r < 0 || !ret_answer)
		return r < 0 ? err_wrap(e, "%s", file) : 0;
	*ret_answer = json_loadb(text.bytes ? text.bytes : "", text.length, 0, NULL);
	return *ret_answer ? 0 : err_set(e, ERR_INTERNAL, "%s: no answer", file);
}

/* --- what the other side has --- */

static void add_partitions(const json_t *image, json_t *digests)
{
	const json_t *list = json_object_get(image, "partitions");

	for (size_t i = 0; i < json_array_size(list); i++)
		(void)json_array_append(digests, json_object_get(json_array_get(list, i), "digest"));
}

static int base_from_list(const char *file, json_t *digests, struct err *e)
{
	own_strbuf struct str text = { 0 };
	int r = fs_read_file(AT_FDCWD, file, 1 << 20, &text, e);
	char *rest = NULL;

	for (char *line = r == 0 ? strtok_r(text.bytes, " \t\r\n", &rest) : NULL; line;
	     line = strtok_r(NULL, " \t\r\n", &rest)) {
		if (!str_starts(line, "sha256:") || strlen(line) != 71)
			return err_set(e, ERR_INVALID, "%s: a list of sha256:... is expected, not '%.80s'", file, line);
		(void)json_array_append_new(digests, json_string(line));
	}
	return r;
}

static bool is_bundle(const char *file)
{
	own_fd int fd = open(file, O_RDONLY | O_CLOEXEC);
	char magic[8];
	return fd >= 0 && read(fd, magic, sizeof magic) == sizeof magic && memcmp(magic, "CARRELB1", sizeof magic) == 0;
}

int bundle_base(struct cli *cli, const char *base, json_t *ret_digests, struct err *e)
{
	own_json json_t *answer = NULL;
	struct client *client;
	int r;

	if (is_bundle(base)) {
		r = bundle_ask("show", base, &answer, e);
		if (r == 0)
			add_partitions(json_object_get(json_object_get(answer, "header"), "image"), ret_digests);
		return r;
	}
	if (strchr(base, '/') || access(base, R_OK) == 0)
		return base_from_list(base, ret_digests, e);
	own_str char *path = client_path("/v1/images/%s", base);
	r = cli_client(cli, &client, e);
	if (r == 0)
		r = client_call(client, "GET", path, NULL, &answer, e);
	if (r == 0)
		add_partitions(answer, ret_digests);
	return r;
}

/* --- transfers --- */

struct transfer {
	struct loop *loop;
	struct stream *stream;
	const struct bundle_transfer *how;
	uint64_t done;
	struct loop_source *source, *watch;
	bool ended;
	int result;
	struct progress progress;
	struct err *e;
};

static void end_with(struct transfer *x, int result)
{
	if (!x->ended)
		x->result = result;
	x->ended = true;
	loop_stop(x->loop);
}

/* What is there already is what comes, or the workspace is another one by now. */
static bool is_known(const struct transfer *x, const char *bytes, size_t length)
{
	own_str char *there = mem_alloc(length);
	return pread(x->how->into, there, length, (off_t)x->done) == (ssize_t)length && memcmp(there, bytes, length) == 0;
}

static void on_output(void *data, int channel, const char *bytes, size_t length)
{
	struct transfer *x = data;

	if (channel != STREAM_OUTPUT || x->ended)
		return;
	if (x->how->into < 0) { /* which chunks are there; why this fails its reader knows */
		(void)!fs_write_all(x->how->back, bytes, length, NULL);
		return;
	}
	if (x->done < x->how->known) {
		uint64_t left = x->how->known - x->done;
		size_t n = length < left ? length : (size_t)left;
		if (!is_known(x, bytes, n)) {
			end_with(x, err_set(x->e, ERR_PRECONDITION, "the workspace has changed since the export was begun"));
			return;
		}
		x->done += n;
		bytes += n;
		length -= n;
	}
	int r = length ? fs_write_all(x->how->into, bytes, length, x->e) : 0;
	if (r < 0)
		end_with(x, r);
	x->done += length;
	progress_bytes(&x->progress, x->done, x->how->total, x->how->known);
}

static void on_end(void *data, int status, const struct err *why)
{
	struct transfer *x = data;

	if (x->ended)
		return;
	if (why) {
		*x->e = *why;
		end_with(x, -(why->number ? why->number : EIO));
	} else {
		end_with(x, status ? err_set(x->e, ERR_INTERNAL, "the host ended with status %d", status) : 0);
	}
}

static void drained(void *data)
{
	struct transfer *x = data;

	if (x->source)
		loop_set_events(x->source, EPOLLIN);
}

static void send_piece(void *data, uint32_t events)
{
	struct transfer *x = data;
	char buffer[65535];
	ssize_t n = read(x->how->from, buffer, sizeof buffer);

	(void)events;
	if (n < 0 && errno == EINTR)
		return;
	if (n <= 0) { /* its end record came before this, or why it did not is asked of the reader */
		loop_remove(TAKE(x->source));
		stream_end_input(x->stream);
		return;
	}
	stream_write(x->stream, buffer, (size_t)n);
	if (x->done < x->how->total / 2 && x->done + (uint64_t)n >= x->how->total / 2)
		(void)fault_point("import.half");
	x->done += (uint64_t)n;
	progress_bytes(&x->progress, x->done, x->how->total, 0);
	if (stream_congested(x->stream))
		loop_set_events(x->source, 0);
}

static void watch_interrupt(void *data)
{
	struct transfer *x = data;

	x->watch = loop_add_timer(x->loop, INTERRUPT_MS, watch_interrupt, x);
	if (cli_interrupted)
		end_with(x, err_set(x->e, ERR_CANCELLED, "interrupted"));
}

int bundle_transfer(struct cli *cli, struct bundle_transfer *t, struct err *e)
{
	static const struct stream_events events = { on_output, on_end, drained };
	struct transfer x = { .how = t, .e = e };
	own_str char *path = t->path;
	struct client *client;
	int r = cli_client(cli, &client, e);

	if (r < 0)
		return r;
	x.loop = loop_new();
	progress_start(&x.progress, cli, t->label);
	progress_step(&x.progress, t->from >= 0 ? "import" : "export");
	r = stream_open(x.loop, client_address(client), path, t->request, &events, &x, &x.stream, e);
	if (r == 0 && t->from >= 0)
		x.source = loop_add_fd(x.loop, t->from, EPOLLIN, send_piece, &x);
	if (r == 0) {
		x.watch = loop_add_timer(x.loop, INTERRUPT_MS, watch_interrupt, &x);
		r = loop_run(x.loop, e);
	}
	loop_remove(x.source);
	loop_remove(x.watch);
	stream_free(x.stream);
	loop_free(x.loop);
	progress_end(&x.progress);
	return r < 0 ? r : x.result;
}
