/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two objects, because they end at different times. The worker ends for its user with the last line of the answer pipe, or
 * with that pipe's end; the process ends when the kernel says so, and is reaped by the loop whether there still is a worker or
 * not. If a signal killed it, its session in the store is cleaned up here, as it could not do that itself.
 *
 * The request pipe stays open as a sign of life: its end tells the program that nobody waits any more. All of it is on the
 * loop's thread.
 */
#include "store/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"
#include "store/store.h"

/* The process outlives the worker by the moment that it needs to clean up; this is what the loop keeps of it until it is
 * reaped. */
struct process {
	int pidfd;
	char *store;
	struct loop_source *source;
};

struct worker {
	struct worker_start how;
	int request_fd, answer_fd, pidfd; /* pidfd: a duplicate, for signals */
	struct loop_source *source;
	struct str line;
	bool cancelled, ended;
};

static void clean_up(const char *path)
{
	own_store struct store *store = NULL;
	struct err e;
	int r = store_open(path, &store, &e);

	if (r == 0)
		r = store_clean(store, &e);
	if (r < 0)
		log_error(&e, "store");
}

static void on_exit_of(void *data, uint32_t events)
{
	struct process *p = data;
	struct err e;
	int status = 0, r = proc_try_wait(p->pidfd, &status, &e);

	(void)events;
	if (r == 0)
		return;
	if (r < 0) {
		log_error(&e, "image store");
	} else if (status > 128) {
		log_warn("a process of the image store ended by signal %d", status - 128);
		clean_up(p->store);
	}
	loop_remove(p->source);
	(void)close(p->pidfd);
	free(p->store);
	free(p);
}

static void end(struct worker *w, const struct err *failure, struct wire_answer *answer)
{
	w->ended = true;
	loop_remove(TAKE(w->source));
	struct err cancelled;
	if (failure && w->cancelled && failure->kind != ERR_CANCELLED) {
		(void)err_set(&cancelled, ERR_CANCELLED, "cancelled");
		failure = &cancelled;
	}
	w->how.end(w->how.data, failure, answer);
}

/* true: it was the last. */
static bool take_line(struct worker *w, const char *line, size_t length)
{
	struct wire_answer answer = { 0 };
	struct err e;
	bool last = true;

	if (decode_text(line, length, "answer", &wire_answer_shape, &answer, &e) < 0) {
		end(w, &e, &answer);
	} else if (answer.error) {
		(void)wire_error_take(answer.error, &e);
		end(w, &e, &answer);
	} else if (answer.image || answer.complete) {
		end(w, NULL, &answer);
	} else {
		last = false;
		w->how.answer(w->how.data, &answer);
	}
	shape_done(&wire_answer_shape, &answer);
	return last;
}

static void on_lines(void *data, uint32_t events)
{
	struct worker *w = data;
	struct wire_answer none = { 0 };
	struct err e;
	char buffer[16384];

	(void)events;
	ssize_t n = read(w->answer_fd, buffer, sizeof buffer);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		str_add(&w->line, buffer, (size_t)n);
	for (char *newline; w->line.length && (newline = memchr(w->line.bytes, '\n', w->line.length));) {
		size_t length = (size_t)(newline - w->line.bytes);
		if (take_line(w, w->line.bytes, length))
			return; /* w may be gone */
		str_drop_front(&w->line, length + 1);
	}
	if (n > 0 && w->line.length <= WIRE_LINE_BYTES_MOST)
		return;
	(void)err_set(&e, ERR_INTERNAL, "%s ended without an answer", w->how.program);
	end(w, &e, &none);
}

static int launch(struct worker *w, int request_read, int answer_write, int *ret_pidfd, struct err *e)
{
	own_str char *path = wire_program(w->how.program);
	const char *const argv[] = { w->how.program, NULL };
	const struct proc_fd fds[] = {
		{ 0, w->how.input_fd },
		{ 1, answer_write },
		{ WIRE_REQUEST_FD, request_read },
		{ WIRE_EXPORT_FD, w->how.output_fd },
	};
	const struct proc_spawn how = { .path = path, .argv = argv, .fds = fds, .fd_count = w->how.output_fd < 0 ? 3 : 4 };
	return proc_start(&how, ret_pidfd, NULL, e);
}

static int open_pipes(struct worker *w, int *ret_request_read, int *ret_answer_write, struct err *e)
{
	int pair[2];

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	*ret_request_read = pair[0];
	w->request_fd = pair[1];
	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	w->answer_fd = pair[0];
	*ret_answer_write = pair[1];
	/* a request is small; the pipe takes it whole before anybody reads */
	(void)fcntl(w->request_fd, F_SETPIPE_SZ, WIRE_LINE_BYTES_MOST);
	return fs_set_blocking(w->answer_fd, false, e);
}

static void close_all(struct worker *w)
{
	int *const fds[] = { &w->request_fd, &w->answer_fd, &w->pidfd };
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (*fds[i] >= 0)
			(void)close(TAKE_FD(*fds[i]));
	str_done(&w->line);
}

int worker_start(struct loop *l, const struct worker_start *how, struct worker **ret_worker, struct err *e)
{
	own_fd int request_read = -1, answer_write = -1, pidfd = -1;
	struct worker *w = mem_alloc(sizeof *w);

	*w = (struct worker){ .how = *how, .request_fd = -1, .answer_fd = -1, .pidfd = -1 };
	int r = open_pipes(w, &request_read, &answer_write, e);
	if (r == 0)
		r = wire_send(w->request_fd, how->shape, how->request, e);
	if (r == 0)
		r = launch(w, request_read, answer_write, &pidfd, e);
	if (r == 0 && (w->pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 3)) < 0)
		r = err_errno(e, errno, "dup");
	if (r < 0) {
		close_all(w);
		free(w);
		return r;
	}
	w->source = loop_add_fd(l, w->answer_fd, EPOLLIN, on_lines, w);
	struct process *p = mem_alloc(sizeof *p);
	*p = (struct process){ .pidfd = TAKE_FD(pidfd), .store = mem_strdup(how->store) };
	p->source = loop_add_fd(l, p->pidfd, EPOLLIN, on_exit_of, p);
	*ret_worker = w;
	return 0;
}

void worker_cancel(struct worker *w)
{
	if (w->ended || w->cancelled)
		return;
	w->cancelled = true;
	struct err e;
	if (proc_signal(w->pidfd, SIGTERM, &e) < 0)
		log_error(&e, "cancel %s", w->how.program);
}

void worker_free(struct worker *w)
{
	if (!w->ended)
		loop_remove(w->source);
	close_all(w); /* the end of its request tells the program to clean up and go */
	free(w);
}
