/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A conversion owns up to two processes and three descriptors: carrel-convert, which makes a partition of a tar, and for a
 * layer that is a partition already a child before it that makes a tar of that. They are joined by a pipe, and neither is
 * believed: the converter's answer is parsed like a message from outside, and the digest that it names is compared with the
 * bytes where a host takes the partition over.
 *
 * A reader that fails gives the converter a cut tar; so its own error, which knows why, is preferred to the converter's.
 */
#include "store/import_layer.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/decode.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "store/cancel.h"
#include "store/child.h"
#include "store/export_layer.h"
#include "store/import_wire.h"

/* What carrel-convert says on its descriptor 3, in one line. */
struct convert_answer {
	char *plain, *partition;
	struct wire_error *error;
};
#define C(member) offsetof(struct convert_answer, member)
static const struct field answer_fields[] = {
	{ "plain", FIELD_TEXT, C(plain), "digest of the plain tar", .max = 71 },
	{ "partition", FIELD_TEXT, C(partition), "digest of the partition", .max = 71 },
	{ "error", FIELD_OBJECT, C(error), "why there is none", .shape = &wire_error_shape },
	{ 0 },
};
static const struct shape answer_shape = { "convert-answer", sizeof(struct convert_answer), answer_fields,
					   "Answer of carrel-convert.", .open = true };

struct layer_conversion {
	char *name;
	int output_fd, answer_fd, pidfd;
	struct child reader; /* of a partition: turns it into a tar; pidfd -1: none */
};

static void release(struct layer_conversion *c)
{
	const int fds[] = { c->output_fd, c->answer_fd, c->pidfd };

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			(void)close(fds[i]);
	child_kill(&c->reader);
	free(c->name);
	free(c);
}

/* --- a partition becomes a tar again, for the writer to make the same partition of it --- */

struct relay {
	int partition_fd, tar_fd;
};

static int relay_write(void *data, const void *bytes, size_t length, struct err *e)
{
	const struct relay *relay = data;
	return fs_write_all(relay->tar_fd, bytes, length, e);
}

static int relay_run(void *data, struct err *e)
{
	const struct relay *relay = data;
	const struct layer_source source = { &relay->partition_fd, 1, false, LAYER_PLAIN };
	struct digest plain;

	cancel_in_child();
	return layer_export(&source, relay_write, data, &plain, e);
}

static int start_reader(struct layer_conversion *c, int partition_fd, int *ret_tar_fd, struct err *e)
{
	int pair[2];

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	own_fd int reading = pair[0], writing = pair[1];
	struct relay relay = { partition_fd, writing };
	const int fds[] = { partition_fd, writing };
	int r = child_start("the reader of partitions", CHILD_RELAYS, relay_run, &relay, fds, ARRAY_SIZE(fds), &c->reader, e);
	if (r == 0)
		*ret_tar_fd = TAKE_FD(reading);
	return r;
}

/* --- the converter --- */

static int start_converter(struct layer_conversion *c, int input_fd, const struct import_limits *limits, struct err *e)
{
	own_str char *path = wire_program("carrel-convert");
	own_str char *bytes = mem_printf("%llu", (unsigned long long)limits->layer_bytes);
	own_str char *entries = mem_printf("%llu", (unsigned long long)limits->entries);
	own_str char *depth = mem_printf("%llu", (unsigned long long)limits->depth);
	const char *const argv[] = { "carrel-convert", bytes, entries, depth, NULL };
	int pair[2];

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	c->answer_fd = pair[0];
	own_fd int answer_write = pair[1];
	const struct proc_fd fds[] = { { 0, input_fd }, { 1, c->output_fd }, { 3, answer_write } };
	const struct proc_spawn how = { .path = path, .argv = argv, .fds = fds, .fd_count = ARRAY_SIZE(fds),
					.die_with_parent = true };
	return proc_start(&how, &c->pidfd, NULL, e);
}

int layer_conversion_start(struct store_session *session, const char *name, int input_fd, bool is_partition,
			   const struct import_limits *limits, struct layer_conversion **ret_conversion, struct err *e)
{
	struct layer_conversion *c = mem_alloc(sizeof *c);
	own_fd int tar = -1;

	*c = (struct layer_conversion){ .name = mem_strdup(name), .output_fd = -1, .answer_fd = -1, .pidfd = -1,
					.reader = { .pidfd = -1, .report_fd = -1 } };
	int r = store_session_file(session, name, &c->output_fd, e);
	if (r == 0 && is_partition)
		r = start_reader(c, input_fd, &tar, e);
	if (r == 0)
		r = start_converter(c, is_partition ? tar : input_fd, limits, e);
	if (r < 0) {
		release(c);
		return r;
	}
	*ret_conversion = c;
	return 0;
}

int layer_conversion_fd(const struct layer_conversion *c) { return c->pidfd; }

static int take_answer(struct layer_conversion *c, const struct convert_answer *a, struct layer_result *ret_result,
		       struct err *e)
{
	struct stat st;

	if (a->error)
		return wire_error_take(a->error, e);
	if (!a->plain || !a->partition)
		return err_set(e, ERR_INTERNAL, "the converter did not say what it made");
	int r = digest_parse(a->plain, &ret_result->plain, e);
	if (r == 0)
		r = digest_parse(a->partition, &ret_result->partition, e);
	if (r == 0 && fstat(c->output_fd, &st) < 0)
		r = err_errno(e, errno, "look at the new partition");
	if (r == 0)
		ret_result->partition_bytes = (uint64_t)st.st_size;
	return r;
}

int layer_conversion_finish(struct layer_conversion *c, struct layer_result *ret_result, struct err *e)
{
	own_strbuf struct str text = { 0 };
	struct convert_answer answer = { 0 };
	int status = 0;

	int r = fs_read_fd(c->answer_fd, 65536, &text, e);
	if (r == 0)
		r = proc_wait(c->pidfd, &status, e);
	if (r < 0)
		return r;
	if (text.length == 0)
		return err_set(e, status == 128 + SIGKILL ? ERR_INTERNAL : ERR_CORRUPT,
			       "the converter of layers ended with status %d and no result", status);
	r = decode_text(str_text(&text), text.length, "converter", &answer_shape, &answer, e);
	if (r == 0)
		r = take_answer(c, &answer, ret_result, e);
	shape_done(&answer_shape, &answer);
	/* a partition that cannot be read gives a cut tar: the reader knows why */
	if (c->reader.pidfd >= 0) {
		struct err theirs;
		if (child_finish(&c->reader, &theirs) < 0 && theirs.number != EPIPE) {
			*e = theirs;
			return -e->number;
		}
	}
	return r;
}

int layer_conversion_put(struct layer_conversion *c, struct store_session *session, const struct layer_result *result,
			 struct err *e)
{
	return store_put_file(session, c->name, c->output_fd, STORE_PARTITION, &result->partition, e);
}

void layer_conversion_free(struct layer_conversion *c)
{
	int status;

	if (c->pidfd >= 0 && proc_signal(c->pidfd, SIGKILL, NULL) == 0 && proc_wait(c->pidfd, &status, NULL) < 0)
		errno = 0;
	release(c);
}
