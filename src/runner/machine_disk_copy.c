/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The agent has files and programs, but no streams. So a tar lies in a file of the guest for a while, in a folder of
 * its own below /tmp that its user alone may enter (the agent creates files that all may write):
 *
 *   in    asked -> folder -> an empty tar is unpacked -> the client's bytes are written -> unpacked -> clean -> the end
 *   out   asked -> folder -> file -> tar is started -> what it has written is read, until it has ended -> clean -> the end
 *
 * The empty tar finds out whether there are tar and target before gigabytes are sent. Going out, the file is read while it
 * grows, so one who looks at the first header only does not wait for the rest; nothing is passed on before there is a member,
 * since what begins with zeros may be a tar of a name that is not there.
 *
 * One command is under way at a time, with one piece of a file: that bounds memory and slows the client. Each command's answer
 * comes exactly once and goes on through next(), which is where a copy that nobody wants any more turns to cleaning; cleaning
 * goes through all its steps whatever is answered. The session ends after it; but when the client is gone, or when the guest
 * is paused or frozen and cleaning has to wait for it, the session ends at once and the copy lives on without it.
 */
#include "runner/machine_disk_copy.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/qemu/agent_answer.h"

#define SYNC_MS          3000
#define AGENT_MS         20000 /* a piece may have to be written to a slow disk */
#define POLL_FIRST_MS    10
#define POLL_MOST_MS     500
#define PATH_LONGEST     4095
#define SAID_MOST        900
#define BLOCK            512
#define EMPTY_TAR        10240
#define CLEAN_AGAIN_MS   3000
#define CLEAN_AGAIN_MOST 200 /* at intervals of CLEAN_AGAIN_MS and AGENT_MS: more than an hour */

typedef void step_fn(struct disk_copy *x);
typedef void answer_fn(struct disk_copy *x, struct qmp_value value);

struct disk_copy {
	struct disk_copies *all;
	struct disk_copy *next;
	struct session *session; /* NULL: it has ended */
	bool in;
	char *above, *name;  /* the folder that tar works in, and going out what it packs there */
	char *folder, *file; /* in the guest, for a while */
	int fd;              /* -1: none; the other end is the session's */
	struct loop_source *source, *timer;
	struct str waiting;  /* a piece for the agent, or for the session */
	const char *command; /* under way, or NULL */
	answer_fn *answer;
	const char *program; /* the last one */
	step_fn *after;      /* its end */
	uint64_t pid, handle;
	struct str said; /* by the program, on its standard error */
	int status;
	unsigned wait_ms;
	bool runs, open, made; /* what there is to clean */
	bool file_there, probed, begun, input_over, unwanted, cleaning;
	bool *cleans; /* the one of these that is under way */
	unsigned tries;
	struct err why; /* kind 0: it went well */
};

static void clean(struct disk_copy *x);

/* --- life --- */

static void unwatch(struct disk_copy *x)
{
	loop_remove(TAKE(x->source));
	loop_remove(TAKE(x->timer));
}

static void copy_free(struct disk_copy *x)
{
	for (struct disk_copy **at = &x->all->first; *at; at = &(*at)->next)
		if (*at == x) {
			*at = x->next;
			break;
		}
	unwatch(x);
	own_close(&x->fd);
	str_done(&x->waiting);
	str_done(&x->said);
	free(x->above);
	free(x->name);
	free(x->folder);
	free(x->file);
	free(x);
}

static void end_session(struct disk_copy *x, int status, const struct err *why)
{
	struct session *s = TAKE(x->session);

	loop_remove(TAKE(x->source));
	own_close(&x->fd);
	x->fd = -1;
	if (s && why)
		session_fail(s, why);
	else if (s)
		session_end(s, status);
}

/* The first reason is the one that counts. */
static void fail(struct disk_copy *x, const struct err *why)
{
	if (!x->why.kind && !x->cleaning)
		x->why = *why;
	x->unwanted = true;
}

static void next(struct disk_copy *x, step_fn *step)
{
	if (x->unwanted && !x->cleaning)
		clean(x);
	else
		step(x);
}

/* --- asking --- */

/* What the agent refused, in the words of one who wants to know what to do about it. */
static void explain(const struct disk_copy *x, const char *command, const struct err *said, struct err *ret)
{
	const char *text = said->message;

	if (strstr(text, "frozen"))
		(void)err_set(ret, ERR_CONFLICT, "the guest's file systems are frozen just now");
	else if (strstr(text, "No space left"))
		(void)err_set(ret, ERR_NO_CAPACITY, "the guest's /tmp has no room for the copy");
	else if (strstr(text, "disabled") || strstr(text, "has not been found") || strstr(text, "not allowed"))
		(void)err_set(ret, ERR_UNSUPPORTED,
			      "the guest's agent does not allow %s (see its options --block-rpcs and --allow-rpcs; on Fedora "
			      "and its like, "
			      "/etc/sysconfig/qemu-ga)",
			      command);
	else if (str_eq(command, "guest-exec") && strstr(text, "No such file")) /* of a path it would say that it is absent */
		(void)err_set(ret, ERR_UNSUPPORTED, "files are copied by the guest's %s, and there is none in it", x->program);
	else
		*ret = *said;
}

static void clean_again(void *data)
{
	struct disk_copy *x = data;

	x->timer = NULL;
	clean(x);
}

static void came(void *data, int result, struct qmp_value value, const struct err *said)
{
	struct disk_copy *x = data;
	const char *command = x->command;
	struct err e;

	x->command = NULL;
	if (result >= 0) {
		x->answer(x, value);
		return;
	}
	explain(x, command, said, &e);
	if (!x->cleaning)
		fail(x, &e);
	bool later = said->kind == ERR_TIMEOUT || e.kind == ERR_CONFLICT;
	if (later)
		end_session(x, 0, x->why.kind ? &x->why : NULL);
	if (later && x->cleaning && x->tries++ < CLEAN_AGAIN_MOST) {
		*x->cleans = true;
		x->timer = loop_add_timer(x->all->loop, CLEAN_AGAIN_MS, clean_again, x);
	} else {
		clean(x);
	}
}

static void ask(struct disk_copy *x, const char *command, const char *arguments, uint64_t deadline_ms, answer_fn *then)
{
	x->command = command;
	x->answer = then;
	qmp_send(x->all->agent, command, arguments, deadline_ms, came, x);
}

static void refuse(struct disk_copy *x, const struct err *e)
{
	fail(x, e);
	clean(x);
}

/* --- programs --- */

static void poll_program(void *data);

/* At once after a while, so that a program which ends soon is noticed soon. */
static void wait_a_little(struct disk_copy *x, loop_fn *then)
{
	x->timer = loop_add_timer(x->all->loop, x->wait_ms, then, x);
	x->wait_ms = x->wait_ms * 2 < POLL_MOST_MS ? x->wait_ms * 2 : POLL_MOST_MS;
}

static int take_status(struct disk_copy *x, struct qmp_value value, struct err *e)
{
	struct agent_status s;
	struct qmp_value text;
	int r = agent_status(value, &s, e);

	if (r < 0 || !s.exited)
		return r;
	x->runs = false;
	x->status = s.status;
	if (qmp_member(value, "err-data", &text))
		agent_decode_some(&x->said, text, SAID_MOST);
	return 1;
}

static void status_came(struct disk_copy *x, struct qmp_value value)
{
	struct err e;
	int r = take_status(x, value, &e);

	if (r < 0)
		refuse(x, &e);
	else if (r > 0)
		next(x, x->after);
	else if (x->unwanted && !x->cleaning)
		clean(x);
	else
		wait_a_little(x, poll_program);
}

static void ask_status(struct disk_copy *x, answer_fn *then)
{
	own_str char *arguments = mem_printf("{\"pid\":%" PRIu64 "}", x->pid);

	ask(x, "guest-exec-status", arguments, AGENT_MS, then);
}

static void poll_program(void *data)
{
	struct disk_copy *x = data;

	x->timer = NULL;
	ask_status(x, status_came);
}

static void program_started(struct disk_copy *x, struct qmp_value value)
{
	struct err e;

	if (agent_pid(value, &x->pid, &e) < 0) {
		refuse(x, &e);
		return;
	}
	x->runs = !x->cleaning;
	x->wait_ms = POLL_FIRST_MS;
	if (x->unwanted && !x->cleaning)
		clean(x);
	else
		poll_program(x);
}

/* argv ends with NULL. Its words are wanted in one language. */
static void start_program(struct disk_copy *x, const char *const *argv, answer_fn *then)
{
	struct str arguments = { 0 };

	x->program = argv[0];
	str_clear(&x->said);
	str_puts(&arguments, "{\"path\":");
	agent_quote(&arguments, argv[0]);
	str_puts(&arguments, ",\"arg\":[");
	for (size_t i = 1; argv[i]; i++) {
		if (i > 1)
			str_putc(&arguments, ',');
		agent_quote(&arguments, argv[i]);
	}
	str_puts(&arguments, "],\"env\":[\"LC_ALL=C\",\"PATH=/usr/sbin:/usr/bin:/sbin:/bin\"],\"capture-output\":true}");
	ask(x, "guest-exec", str_text(&arguments), AGENT_MS, then);
	str_done(&arguments);
}

static void run_program(struct disk_copy *x, const char *const *argv, step_fn *after)
{
	x->after = after;
	start_program(x, argv, program_started);
}

static bool program_failed(struct disk_copy *x)
{
	struct err e;

	if (!x->status)
		return false;
	(void)!agent_tar_error(&x->said, &e);
	if (!x->file_there) { /* what is absent then is no file of the user's */
		own_str char *said = mem_strdup(e.message);
		(void)err_set(&e, ERR_UNSUPPORTED, "files are copied by way of the guest's /tmp: %s", said);
	}
	refuse(x, &e);
	return true;
}

/* --- cleaning: what fails here has nobody to tell --- */

static void finish(struct disk_copy *x)
{
	end_session(x, 0, x->why.kind ? &x->why : NULL);
	copy_free(x);
}

static void cleaned(struct disk_copy *x, struct qmp_value value)
{
	(void)value;
	clean(x);
}

static void killed(struct disk_copy *x)
{
	x->runs = false;
	clean(x);
}

/* The agent keeps what a program said until it is asked. */
static void kill_answered(struct disk_copy *x, struct qmp_value value)
{
	(void)value;
	x->after = killed;
	x->wait_ms = POLL_FIRST_MS;
	poll_program(x);
}

static void clean(struct disk_copy *x)
{
	x->cleaning = true;
	unwatch(x);
	if (x->runs) {
		own_str char *pid = mem_printf("%" PRIu64, x->pid);
		x->runs = false;
		x->cleans = &x->runs;
		start_program(x, (const char *const[]){ "kill", "-KILL", pid, NULL }, kill_answered);
	} else if (x->open) {
		own_str char *arguments = mem_printf("{\"handle\":%" PRIu64 "}", x->handle);
		x->open = false;
		x->cleans = &x->open;
		ask(x, "guest-file-close", arguments, AGENT_MS, cleaned);
	} else if (x->made) {
		x->made = false;
		x->cleans = &x->made;
		run_program(x, (const char *const[]){ "rm", "-r", "-f", x->folder, NULL }, clean);
	} else {
		finish(x);
	}
}

/* --- the file --- */

static void open_file(struct disk_copy *x, answer_fn *then)
{
	own_str char *arguments = mem_printf("{\"path\":\"%s\",\"mode\":\"w+\"}", x->file);

	ask(x, "guest-file-open", arguments, AGENT_MS, then);
}

static bool file_opened(struct disk_copy *x, struct qmp_value value)
{
	struct err e;

	if (agent_handle(value, &x->handle, &e) < 0) {
		refuse(x, &e);
		return false;
	}
	x->open = x->file_there = true;
	return true;
}

static void close_file(struct disk_copy *x, answer_fn *then)
{
	own_str char *arguments = mem_printf("{\"handle\":%" PRIu64 "}", x->handle);

	ask(x, "guest-file-close", arguments, AGENT_MS, then);
}

/* --- in --- */

static void take_input(struct disk_copy *x);
static void write_piece(struct disk_copy *x);

static void unpacked(struct disk_copy *x)
{
	if (program_failed(x))
		return;
	clean(x);
}

static void opened_for_input(struct disk_copy *x, struct qmp_value value)
{
	if (file_opened(x, value))
		next(x, take_input);
}

static void reopen(struct disk_copy *x) { open_file(x, opened_for_input); }

static void tried(struct disk_copy *x)
{
	if (program_failed(x))
		return;
	x->probed = true;
	next(x, reopen);
}

static void unpack(struct disk_copy *x)
{
	run_program(x, (const char *const[]){ "tar", "-x", "-f", x->file, "-C", x->above, NULL }, x->probed ? unpacked : tried);
}

static void closed(struct disk_copy *x, struct qmp_value value)
{
	(void)value;
	x->open = false;
	next(x, unpack);
}

static void close_and_unpack(struct disk_copy *x) { close_file(x, closed); }

static void piece_written(struct disk_copy *x, struct qmp_value value)
{
	size_t count;
	struct err e;

	if (agent_written(value, x->waiting.length, &count, &e) < 0) {
		refuse(x, &e);
		return;
	}
	str_drop_front(&x->waiting, count);
	next(x, x->waiting.length ? write_piece : x->probed ? take_input : close_and_unpack);
}

static void write_piece(struct disk_copy *x)
{
	struct str arguments = { 0 };

	str_printf(&arguments, "{\"handle\":%" PRIu64 ",\"buf-b64\":\"", x->handle);
	str_add_base64(&arguments, x->waiting.bytes, x->waiting.length);
	str_puts(&arguments, "\"}");
	ask(x, "guest-file-write", str_text(&arguments), AGENT_MS, piece_written);
	str_done(&arguments);
}

static void input_ready(void *data, uint32_t events)
{
	struct disk_copy *x = data;

	(void)events;
	loop_remove(TAKE(x->source));
	take_input(x);
}

/* As much as there is, up to one piece. */
static void take_input(struct disk_copy *x)
{
	static char bytes[AGENT_PIECE];

	while (!x->input_over && x->waiting.length < sizeof bytes) {
		ssize_t n = read(x->fd, bytes, sizeof bytes - x->waiting.length);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n <= 0)
			x->input_over = true;
		else
			str_add(&x->waiting, bytes, (size_t)n);
	}
	if (x->waiting.length)
		write_piece(x);
	else if (x->input_over)
		close_and_unpack(x);
	else
		x->source = loop_add_fd(x->all->loop, x->fd, EPOLLIN, input_ready, x);
}

static void try_empty(struct disk_copy *x)
{
	static const char zeros[EMPTY_TAR];

	str_add(&x->waiting, zeros, sizeof zeros);
	write_piece(x);
}

static void opened_for_trial(struct disk_copy *x, struct qmp_value value)
{
	if (file_opened(x, value))
		next(x, try_empty);
}

/* --- out --- */

static void read_piece(struct disk_copy *x);

static void read_again(void *data)
{
	struct disk_copy *x = data;

	x->timer = NULL;
	read_piece(x);
}

/* What it wrote between the last piece and its end is still to be read. */
static void packing_status(struct disk_copy *x, struct qmp_value value)
{
	struct err e;
	int r = take_status(x, value, &e);

	if (r < 0)
		refuse(x, &e);
	else if (r > 0)
		next(x, read_piece);
	else if (x->unwanted)
		clean(x);
	else
		wait_a_little(x, read_again);
}

static void pass_on(struct disk_copy *x);

static void output_writable(void *data, uint32_t events)
{
	struct disk_copy *x = data;

	(void)events;
	loop_remove(TAKE(x->source));
	pass_on(x);
}

static bool has_member(const struct str *tar)
{
	for (size_t i = 0; i < tar->length && i < BLOCK; i++)
		if (tar->bytes[i])
			return true;
	return false;
}

static void pass_on(struct disk_copy *x)
{
	while (x->waiting.length) {
		ssize_t n = send(x->fd, x->waiting.bytes, x->waiting.length, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			x->source = loop_add_fd(x->all->loop, x->fd, EPOLLOUT, output_writable, x);
			return;
		}
		str_drop_front(&x->waiting, n < 0 ? x->waiting.length : (size_t)n);
	}
	read_piece(x);
}

static void all_read(struct disk_copy *x)
{
	struct err e;

	if (program_failed(x))
		return;
	if (!x->begun) {
		(void)err_set(&e, ERR_NOT_FOUND, "the guest's tar packed nothing of %s", x->name);
		fail(x, &e);
	}
	clean(x);
}

static void piece_read(struct disk_copy *x, struct qmp_value value)
{
	size_t before = x->waiting.length;
	struct err e;

	if (agent_read(value, &x->waiting, &e) < 0) {
		refuse(x, &e);
	} else if (x->unwanted) {
		clean(x);
	} else if (x->waiting.length == before && x->runs) {
		ask_status(x, packing_status);
	} else if (x->waiting.length == before) {
		all_read(x);
	} else if (x->begun || has_member(&x->waiting)) {
		x->begun = true;
		x->wait_ms = POLL_FIRST_MS;
		pass_on(x);
	} else { /* zeros only: the end of a tar without a member */
		str_clear(&x->waiting);
		read_piece(x);
	}
}

static void read_piece(struct disk_copy *x)
{
	own_str char *arguments = mem_printf("{\"handle\":%" PRIu64 ",\"count\":%u}", x->handle, AGENT_PIECE);

	ask(x, "guest-file-read", arguments, AGENT_MS, piece_read);
}

static void packing(struct disk_copy *x, struct qmp_value value)
{
	struct err e;

	if (agent_pid(value, &x->pid, &e) < 0) {
		refuse(x, &e);
		return;
	}
	x->runs = true;
	x->wait_ms = POLL_FIRST_MS;
	next(x, read_piece);
}

static void pack(struct disk_copy *x)
{
	start_program(x, (const char *const[]){ "tar", "-c", "-f", x->file, "-C", x->above, "--", x->name, NULL }, packing);
}

static void opened_for_output(struct disk_copy *x, struct qmp_value value)
{
	if (file_opened(x, value))
		next(x, pack);
}

/* --- the beginning --- */

static void folder_made(struct disk_copy *x)
{
	if (!program_failed(x))
		open_file(x, x->in ? opened_for_trial : opened_for_output);
}

static void make_folder(struct disk_copy *x)
{
	x->made = true;
	run_program(x, (const char *const[]){ "mkdir", "-m", "700", x->folder, NULL }, folder_made);
}

static void agent_is_there(void *data, int result, struct qmp_value value, const struct err *said)
{
	struct disk_copy *x = data;
	struct err e;

	(void)value;
	(void)said;
	x->command = NULL;
	if (result < 0) {
		(void)err_set(
			&e, ERR_UNAVAILABLE,
			"no files can be copied: the machine boots a disk of its own, and no agent answers there (install "
			"qemu-guest-agent in it, or copy over its network)");
		fail(x, &e);
	}
	next(x, make_folder);
}

static void leave(void *other)
{
	struct disk_copy *x = other;
	struct err e;

	(void)err_set(&e, ERR_CANCELLED, "nobody waits for the copy any more");
	fail(x, &e);
	end_session(x, 128 + SIGKILL, NULL);
	if (!x->command && !x->cleaning)
		clean(x);
}

/* "/a/b/" is "b" in "/a"; "/a/." is "." in "/a"; "/" is "." in itself. */
static void split(struct disk_copy *x, const char *path)
{
	size_t length = strlen(path);

	while (length > 1 && path[length - 1] == '/')
		length--;
	size_t name = length;
	while (name > 0 && path[name - 1] != '/')
		name--;
	x->name = name == length ? mem_strdup(".") : mem_strndup(path + name, length - name);
	x->above = name <= 1 ? mem_strdup("/") : mem_strndup(path, name - 1);
}

static void name_folder(struct disk_copy *x)
{
	uint64_t random[2] = { 0 };

	(void)!getrandom(random, sizeof random, 0);
	x->folder = mem_printf("/tmp/.carrel-%016" PRIx64 "%016" PRIx64, random[0], random[1]);
	x->file = mem_printf("%s/tar", x->folder);
}

int disk_copy_begin(struct disk_copies *all, bool in, const char *path, const struct session_options *how,
		    struct session **ret_session, struct err *e)
{
	struct session_options o = *how;
	int pair[2];

	if (path[0] != '/' || strlen(path) > PATH_LONGEST)
		return err_set(e, ERR_INVALID, "path \"%.100s\" is not absolute, or too long", path);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return err_errno(e, errno, "make a socket pair");
	struct disk_copy *x = mem_alloc(sizeof *x);
	*x = (struct disk_copy){ .all = all, .next = all->first, .in = in, .fd = pair[0], .wait_ms = POLL_FIRST_MS };
	all->first = x;
	if (in)
		x->above = mem_strdup(path);
	else
		split(x, path);
	name_folder(x);
	o.streams = (struct session_streams){ -1, in ? pair[1] : -1, in ? -1 : pair[1], -1, -1 };
	o.leave = leave;
	o.other = x;
	*ret_session = x->session = session_new(all->loop, &o);
	x->command = "guest-sync";
	qmp_send(all->agent, "guest-sync", "{\"id\":3}", SYNC_MS, agent_is_there, x);
	return 0;
}

/* --- the end of the machine --- */

void disk_copies_end(struct disk_copies *all, const struct err *why)
{
	for (struct disk_copy *x = all->first, *then; x; x = then) {
		then = x->next;
		end_session(x, 0, why);
		fail(x, why);
		if (!x->command && !x->cleaning)
			copy_free(x);
	}
}

void disk_copies_free(struct disk_copies *all)
{
	while (all->first)
		copy_free(all->first);
}
