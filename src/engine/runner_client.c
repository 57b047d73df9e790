/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol is one struct each way in one packet (model/runner_protocol.h); a runner of another version is refused, not
 * translated. Blocking, as the runner answers at once or when the thing asked for is done; who must not wait asks from a
 * thread.
 *
 * After an answer the connection is either closed, or is what was asked for: a stream, a watch, or the hold on a suspended
 * workspace, which the runner lets run on when the descriptor is closed - by us, or by the kernel when the agent dies.
 *
 * Of a runner that is gone the status file is what is left, in JSON, which an agent of any version can read.
 */
#include "engine/runner_client.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/rights.h"
#include "base/str.h"
#include "engine/workspace/request.h"

static const char *const state_names[] = { "", "starting", "running", "paused", "stopping", "ended", NULL };

/* A path through the folder's descriptor is short however long the folder's name is. */
static int dial(const char *run_dir, int *ret_fd, struct err *e)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	own_fd int dir = open(run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	own_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return err_errno(e, errno, "make socket");
	(void)snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/" RUNNER_SOCKET, dir);
	if (dir < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		(void)err_errno(e, errno, "no runner at %s", run_dir);
		if (e)
			e->kind = ERR_UNAVAILABLE;
		return -EHOSTUNREACH;
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int receive(int fd, struct runner_answer *a, int *ret_fds, struct err *e)
{
	ssize_t n = rights_receive(fd, a, sizeof *a, ret_fds, ret_fds ? 2 : 0, 0);

	if (n < 0)
		return err_errno(e, errno, "hear from the runner");
	if (n == 0)
		return err_set(e, ERR_UNAVAILABLE, "the runner hung up");
	if ((size_t)n < sizeof *a || a->version != RUNNER_VERSION)
		return err_set(e, ERR_UNSUPPORTED,
			       "the runner answers %zd bytes of protocol version %u, this agent reads %zu of %d", n,
			       (size_t)n < sizeof a->version ? 0 : a->version, sizeof *a, RUNNER_VERSION);
	if (a->result < 0 && e)
		*e = a->error;
	return a->result < 0 ? a->result : 0;
}

static int ask(const char *run_dir, struct runner_request q, const struct str *texts, int *ret_fd, struct runner_answer *a,
	       int *ret_fds, struct err *e)
{
	own_fd int fd = -1;
	int r = dial(run_dir, &fd, e);
	if (r < 0)
		return r;
	q.version = RUNNER_VERSION;
	q.size = sizeof q;
	q.texts_length = texts ? (uint32_t)texts->length : 0;
	if (q.texts_length > RUNNER_TEXTS_LONGEST)
		return err_set(e, ERR_TOO_LARGE, "command and environment have %u bytes, the most is %d", q.texts_length,
			       RUNNER_TEXTS_LONGEST);
	struct iovec data[2] = { { &q, sizeof q }, { texts ? texts->bytes : NULL, q.texts_length } };
	struct msghdr h = { .msg_iov = data, .msg_iovlen = texts ? 2 : 1 };
	if (sendmsg(fd, &h, MSG_NOSIGNAL) < 0)
		return err_errno(e, errno, "ask the runner");
	if ((r = receive(fd, a, ret_fds, e)) < 0)
		return r;
	if (ret_fd) {
		if ((r = fs_set_blocking(fd, false, e)) < 0)
			return r;
		*ret_fd = TAKE_FD(fd);
	}
	return 0;
}

static int suspend(const char *run_dir, unsigned flags, int folder, int state, int *ret_connection, struct err *e)
{
	struct runner_request q = { .version = RUNNER_VERSION, .size = sizeof q, .kind = RUNNER_SUSPEND, .flags = flags };
	const int fds[2] = { folder, state };
	struct runner_answer a = { 0 };
	own_fd int fd = -1;
	int r = dial(run_dir, &fd, e);

	if (r < 0)
		return r;
	if (rights_send(fd, &q, sizeof q, fds, 2, 0) < 0)
		return err_errno(e, errno, "ask the runner");
	if ((r = receive(fd, &a, NULL, e)) < 0)
		return r;
	*ret_connection = TAKE_FD(fd);
	return 0;
}

int runner_suspend(const char *run_dir, int folder, int state, int *ret_connection, struct err *e)
{
	return suspend(run_dir, 0, folder, state, ret_connection, e);
}

int runner_depart(const char *run_dir, int folder, int *ret_connection, struct err *e)
{
	return suspend(run_dir, RUNNER_DEPARTS, folder, folder, ret_connection, e);
}

int runner_commit(int connection, struct err *e)
{
	const struct runner_request q = { .version = RUNNER_VERSION, .size = sizeof q, .kind = RUNNER_COMMIT };
	struct runner_answer a = { 0 };

	if (send(connection, &q, sizeof q, MSG_NOSIGNAL) < 0)
		return err_errno(e, errno, "ask the runner");
	return receive(connection, &a, NULL, e);
}

static int command(const char *run_dir, enum runner_kind kind, uint64_t number, struct err *e)
{
	struct runner_answer a = { 0 };

	return ask(run_dir, (struct runner_request){ .kind = kind, .number = number }, NULL, NULL, &a, NULL, e);
}

int runner_status(const char *run_dir, struct runner_status *ret_status, struct err *e)
{
	struct runner_answer a = { 0 };
	int r = ask(run_dir, (struct runner_request){ .kind = RUNNER_STATUS }, NULL, NULL, &a, NULL, e);

	if (r >= 0)
		*ret_status = a.status;
	return r;
}

static uint32_t state_by_name(const char *name)
{
	for (uint32_t s = 1; state_names[s]; s++)
		if (str_eq(name, state_names[s]))
			return s;
	return 0;
}

int runner_read_status(const char *run_dir, struct runner_status *ret_status, struct err *e)
{
	own_str char *path = mem_printf("%s/" RUNNER_STATUS_FILE, run_dir);
	own_strbuf struct str text = { 0 };
	int r = fs_read_file(AT_FDCWD, path, 65536, &text, e);
	if (r < 0)
		return r;
	json_error_t why;
	json_t *j = json_loadb(text.bytes, text.length, 0, &why);
	if (!j)
		return err_set(e, ERR_CORRUPT, "%s: %s", path, why.text);
#define NUMBER(key) json_integer_value(json_object_get(j, key))
	*ret_status = (struct runner_status){
		.version = RUNNER_VERSION,
		.size = sizeof *ret_status,
		.state = state_by_name(json_string_value(json_object_get(j, "state"))),
		.exit_status = (int32_t)NUMBER("exit_status"),
		.pid = (int32_t)NUMBER("pid"),
		.runner_pid = (int32_t)NUMBER("runner_pid"),
		.run = (uint64_t)NUMBER("run"),
		.started_ms = (uint64_t)NUMBER("started_ms"),
		.ended_ms = (uint64_t)NUMBER("ended_ms"),
		.killed_for_memory = json_is_true(json_object_get(j, "killed_for_memory")),
		.maintenance = json_is_true(json_object_get(j, "maintenance")),
	};
#undef NUMBER
	json_decref(j);
	return 0;
}

int runner_watch(const char *run_dir, int *ret_fd, struct err *e)
{
	struct runner_answer a = { 0 };

	return ask(run_dir, (struct runner_request){ .kind = RUNNER_WATCH }, NULL, ret_fd, &a, NULL, e);
}

int runner_watch_read(int fd, struct runner_status *ret_status, struct err *e)
{
	struct runner_status s = { 0 };
	ssize_t n = recv(fd, &s, sizeof s, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < (ssize_t)sizeof s)
		return err_set(e, ERR_UNAVAILABLE, "the runner is gone");
	*ret_status = s;
	return 1;
}

int runner_stop(const char *run_dir, uint64_t timeout_ms, struct err *e)
{
	return command(run_dir, RUNNER_STOP, timeout_ms, e);
}
int runner_kill(const char *run_dir, struct err *e) { return command(run_dir, RUNNER_KILL, 0, e); }
int runner_pause(const char *run_dir, struct err *e) { return command(run_dir, RUNNER_PAUSE, 0, e); }
int runner_resume(const char *run_dir, struct err *e) { return command(run_dir, RUNNER_RESUME, 0, e); }

int runner_attach(const char *run_dir, unsigned rows, unsigned columns, bool input, int *ret_fd, struct err *e)
{
	struct runner_answer a = { 0 };
	struct runner_request q = { .kind = RUNNER_ATTACH, .flags = input ? RUNNER_INPUT : 0, .rows = rows,
				    .columns = columns };

	return ask(run_dir, q, NULL, ret_fd, &a, NULL, e);
}

int runner_console(const char *run_dir, unsigned rows, unsigned columns, bool input, int *ret_fd, struct err *e)
{
	struct runner_answer a = { 0 };
	struct runner_request q = { .kind = RUNNER_CONSOLE, .flags = input ? RUNNER_INPUT : 0, .rows = rows,
				    .columns = columns };

	return ask(run_dir, q, NULL, ret_fd, &a, NULL, e);
}

int runner_display(const char *run_dir, int *ret_fd, struct err *e)
{
	struct runner_answer a = { 0 };
	struct runner_request q = { .kind = RUNNER_DISPLAY };

	return ask(run_dir, q, NULL, ret_fd, &a, NULL, e);
}

static void add_text(struct str *out, const char *text)
{
	str_add(out, text ? text : "", text ? strlen(text) + 1 : 1);
}

int runner_connect(const char *run_dir, const struct launch_interface *interfaces, size_t count, struct err *e)
{
	struct runner_answer a = { 0 };
	own_strbuf struct str texts = { 0 };

	for (size_t i = 0; i < count; i++) {
		struct request_interface one = { 0 };
		request_interface(&interfaces[i], &one);
		for (size_t t = 0; t < INTERFACE_TEXTS; t++)
			add_text(&texts, one.texts[t]);
	}
	return ask(run_dir, (struct runner_request){ .kind = RUNNER_CONNECT }, &texts, NULL, &a, NULL, e);
}

int runner_grow(const char *run_dir, const char *disk, uint64_t bytes, struct err *e)
{
	struct runner_answer a = { 0 };
	own_strbuf struct str texts = { 0 };

	add_text(&texts, disk);
	return ask(run_dir, (struct runner_request){ .kind = RUNNER_GROW, .number = bytes }, &texts, NULL, &a, NULL, e);
}

int runner_exec(const char *run_dir, const struct runner_exec *what, int *ret_fd, struct err *e)
{
	struct runner_answer a = { 0 };
	own_strbuf struct str texts = { 0 };
	struct runner_request q = { .kind = RUNNER_EXEC, .rows = what->rows, .columns = what->columns,
				    .flags = (what->terminal ? RUNNER_TERMINAL : 0) | (what->input ? RUNNER_INPUT : 0) };

	add_text(&texts, what->user);
	add_text(&texts, what->directory);
	for (; what->command[q.commands]; q.commands++)
		add_text(&texts, what->command[q.commands]);
	for (size_t i = 0; what->environment && what->environment[i]; i++)
		add_text(&texts, what->environment[i]);
	return ask(run_dir, q, &texts, ret_fd, &a, NULL, e);
}

static int copy(const char *run_dir, enum runner_kind kind, const char *path, int *ret_fd, struct err *e)
{
	struct runner_answer a = { 0 };
	own_strbuf struct str texts = { 0 };

	add_text(&texts, path);
	return ask(run_dir, (struct runner_request){ .kind = kind, .flags = RUNNER_INPUT }, &texts, ret_fd, &a, NULL, e);
}

int runner_copy_in(const char *run_dir, const char *path, int *ret_fd, struct err *e)
{
	return copy(run_dir, RUNNER_COPY_IN, path, ret_fd, e);
}

int runner_copy_out(const char *run_dir, const char *path, int *ret_fd, struct err *e)
{
	return copy(run_dir, RUNNER_COPY_OUT, path, ret_fd, e);
}

int runner_volume(const char *run_dir, const char *name, int *ret_mount_fd, int *ret_loop_fd, struct err *e)
{
	struct runner_answer a = { 0 };
	own_strbuf struct str texts = { 0 };
	int fds[2] = { -1, -1 };

	add_text(&texts, name);
	int r = ask(run_dir, (struct runner_request){ .kind = RUNNER_VOLUME }, &texts, NULL, &a, fds, e);
	if (r < 0)
		return r;
	*ret_mount_fd = fds[0];
	*ret_loop_fd = fds[1];
	return 0;
}
