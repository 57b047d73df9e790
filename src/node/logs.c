/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The log is a chain of files, LOG.3 (oldest) to LOG; rotation renames. The reader holds one of them open
 * and knows it by its inode, so a rotation does not disturb it: at the end of a file it looks where in the chain that file is
 * now, and the next one is where it goes on. A record that is not whole yet is read again later; bytes that are no record are
 * skipped up to the next mark.
 */
#include "node/logs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "model/runner_protocol.h"

#define RECORD_MOST 65536
#define TAIL_MOST 100000
#define LOOK_MS 250

struct place {
	int age; /* 0: LOG, n: LOG.n */
	off_t at;
	uint32_t skip; /* bytes of the record's content */
};

struct logs {
	struct loop *loop;
	char *path;
	struct logs_request request;
	struct ws *ws;
	bool (*live)(void *data);
	void (*end)(void *data);
	void *data;
	int fd, notify_fd;
	off_t at;
	uint32_t skip;
	bool ended;
	struct loop_source *source, *timer;
	char record[RECORD_MOST + 1];
};

static char *path_of(const struct logs *l, int age) { return age ? mem_printf("%s.%d", l->path, age) : mem_strdup(l->path); }

static bool open_age(struct logs *l, int age)
{
	own_str char *path = path_of(l, age);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return false;
	own_close(&l->fd);
	l->fd = fd;
	l->at = 0;
	return true;
}

static bool header_is_right(const struct runner_log_record *h)
{
	return h->mark == RUNNER_LOG_MARK && h->length <= RECORD_MOST &&
	       h->check == (h->mark ^ h->length ^ h->stream ^ (uint32_t)h->time_ns ^ (uint32_t)(h->time_ns >> 32));
}

/* 1: a record (its content from l->record[1] on, l->at behind it); 0: no whole one there. */
static int read_record(struct logs *l, struct runner_log_record *h)
{
	for (; pread(l->fd, h, sizeof *h, l->at) == sizeof *h; l->at++) {
		if (!header_is_right(h))
			continue;
		if (pread(l->fd, l->record + 1, h->length, l->at + (off_t)sizeof *h) != (ssize_t)h->length)
			return 0;
		l->at += (off_t)sizeof *h + (off_t)h->length;
		return 1;
	}
	return 0;
}

/* The next file of the chain, seen from the one that is open now. */
static bool open_next(struct logs *l)
{
	struct stat mine, other;

	if (fstat(l->fd, &mine) < 0)
		return false;
	for (int age = 0; age < RUNNER_LOG_FILES; age++) {
		own_str char *path = path_of(l, age);
		if (stat(path, &other) == 0 && other.st_ino == mine.st_ino && other.st_dev == mine.st_dev)
			return age > 0 && open_age(l, age - 1);
	}
	return open_age(l, RUNNER_LOG_FILES - 1) || open_age(l, 0);
}

static bool open_oldest(struct logs *l)
{
	for (int age = RUNNER_LOG_FILES - 1; age >= 0; age--)
		if (open_age(l, age))
			return true;
	return false;
}

/* --- where to begin --- */

/* Notes the place of each line's beginning in a ring of the last `lines`. */
static void find_tail(struct logs *l, size_t lines, struct place *ret_place)
{
	own_str struct place *ring = mem_alloc_array(lines + 1, sizeof *ring);
	size_t seen = 0;
	bool at_start = true;
	struct runner_log_record h;

	for (int age = RUNNER_LOG_FILES - 1; age >= 0; age--) {
		if (!open_age(l, age))
			continue;
		while (read_record(l, &h))
			for (uint32_t i = 0; i < h.length; i++) {
				if (at_start)
					ring[seen++ % lines] = (struct place){ age, l->at - (off_t)sizeof h - (off_t)h.length,
									       i };
				at_start = l->record[1 + i] == '\n';
			}
		*ret_place = (struct place){ age, l->at, 0 };
	}
	if (seen)
		*ret_place = ring[seen < lines ? 0 : seen % lines];
}

static void begin(struct logs *l)
{
	struct place place = { 0 };

	if (l->request.tail < 0) {
		(void)open_oldest(l);
		return;
	}
	find_tail(l, l->request.tail == 0 ? 1 : l->request.tail > TAIL_MOST ? TAIL_MOST : (size_t)l->request.tail, &place);
	if (!open_age(l, place.age)) {
		l->request.tail = -1; /* all that comes is new */
		return;
	}
	l->at = place.at;
	l->skip = place.skip;
	struct stat st;
	if (l->request.tail == 0 && fstat(l->fd, &st) == 0) {
		l->at = st.st_size;
		l->skip = 0;
	}
}

/* --- sending --- */

static void send_record(struct logs *l, const struct runner_log_record *h)
{
	uint32_t skip = l->skip < h->length ? l->skip : 0;

	l->skip = 0;
	if (h->time_ns / 1000000 < l->request.since_ms || h->length == skip)
		return;
	char *from = l->record + skip; /* the byte before the content becomes the channel */
	*from = (char)(h->stream == 2 ? 2 : 1);
	uint32_t length = h->length - skip;
	if (length > RECORD_MOST - 1) { /* a frame carries one byte less */
		ws_send(l->ws, false, from, RECORD_MOST);
		char last[2] = { *from, from[RECORD_MOST] };
		ws_send(l->ws, false, last, sizeof last);
		return;
	}
	ws_send(l->ws, false, from, (size_t)length + 1);
}

static void end_later(void *data)
{
	struct logs *l = data;
	l->timer = NULL;
	l->end(l->data);
}

static void look_again(void *data);

void logs_go_on(struct logs *l)
{
	struct runner_log_record h;

	if (l->ended)
		return;
	bool live = l->live(l->data); /* asked before reading: what a program wrote before its end is read */
	if (l->fd < 0)
		begin(l);
	while (l->fd >= 0) {
		if (ws_congested(l->ws))
			return;
		if (read_record(l, &h))
			send_record(l, &h);
		else if (!open_next(l))
			break;
	}
	if (l->request.follow && live) {
		if (!l->timer)
			l->timer = loop_add_timer(l->loop, LOOK_MS, look_again, l);
		return;
	}
	l->ended = true;
	ws_send(l->ws, true, "{\"exit\":0}", strlen("{\"exit\":0}"));
	loop_remove(l->timer);
	l->timer = loop_add_timer(l->loop, 0, end_later, l);
}

/* Also when nothing is written: the workspace may have ended. */
static void look_again(void *data)
{
	struct logs *l = data;
	l->timer = NULL;
	logs_go_on(l);
}

static void on_notify(void *data, uint32_t events)
{
	struct logs *l = data;
	char buffer[4096];

	(void)events;
	while (read(l->notify_fd, buffer, sizeof buffer) > 0)
		;
	logs_go_on(l);
}

struct logs *logs_new(struct loop *loop, const char *path, const struct logs_request *request, struct ws *ws,
		      bool (*live)(void *data), void (*end)(void *data), void *data)
{
	struct logs *l = mem_alloc(sizeof *l);

	*l = (struct logs){ .loop = loop, .path = mem_strdup(path), .request = *request, .ws = ws, .live = live, .end = end,
			    .data = data };
	l->fd = l->notify_fd = -1;
	own_str char *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
	if (request->follow)
		l->notify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (l->notify_fd >= 0 && inotify_add_watch(l->notify_fd, folder, IN_MODIFY | IN_CREATE | IN_MOVED_TO) >= 0)
		l->source = loop_add_fd(loop, l->notify_fd, EPOLLIN, on_notify, l);
	logs_go_on(l);
	return l;
}

void logs_free(struct logs *l)
{
	if (!l)
		return;
	loop_remove(l->source);
	loop_remove(l->timer);
	own_close(&l->fd);
	own_close(&l->notify_fd);
	free(l->path);
	free(l);
}
