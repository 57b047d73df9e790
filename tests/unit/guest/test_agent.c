/* SPDX-License-Identifier: Apache-2.0 */
/* The agent over a socket, with this machine's root as its world: streams, credit, sessions and phases without a machine. */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "guest/agent.h"
#include "model/guest_protocol.h"
#include "engine/workspace/plan.h"

static struct err e;

struct host {
	int fd;
	pid_t pid;
	uint32_t session;
	struct guest_reader reader;
	struct str output; /* of all streams */
};

static void host_send(struct host *h, enum guest_type type, uint32_t number, const void *payload, size_t length)
{
	own_strbuf struct str bytes = { 0 };

	guest_frame_put(&bytes, h->session, type, number, payload, length);
	assert_int_equal(send(h->fd, bytes.bytes, bytes.length, MSG_NOSIGNAL), bytes.length);
}

static void host_message(struct host *h, enum guest_type type, uint32_t number, const struct guest_shape *shape,
			 const void *value)
{
	own_strbuf struct str bytes = { 0 };

	guest_encode(shape, value, &bytes);
	host_send(h, type, number, bytes.bytes, bytes.length);
}

static struct guest_frame host_next(struct host *h)
{
	struct guest_frame f;
	char bytes[4096];

	while (!guest_reader_next(&h->reader, &f)) {
		ssize_t n = recv(h->fd, bytes, sizeof bytes, 0);
		if (n <= 0)
			fail_msg("the agent is silent: %s", n ? strerrordesc_np(errno) : "gone");
		guest_reader_add(&h->reader, bytes, (size_t)n);
	}
	assert_int_equal(f.session, h->session);
	assert_int_equal(h->reader.noise_bytes, 0);
	return f;
}

/* The next frame of the type; what streams say on the way is kept, without credit for it. */
static struct guest_frame host_await(struct host *h, enum guest_type type)
{
	for (;;) {
		struct guest_frame f = host_next(h);
		if (f.type == GUEST_DATA)
			str_add(&h->output, f.payload + 1, f.length - 1);
		if (f.type == type)
			return f;
	}
}

static void host_await_phase(struct host *h, enum guest_phase phase)
{
	struct guest_state s = { 0 };

	while (s.phase != phase) {
		struct guest_frame f = host_await(h, GUEST_STATE);
		guest_done(&guest_state_shape, &s);
		assert_int_equal(guest_decode(&guest_state_shape, f.payload, f.length, &s, &e), 0);
	}
	guest_done(&guest_state_shape, &s);
}

static struct guest_close host_await_close(struct host *h)
{
	struct guest_close c;
	struct guest_frame f = host_await(h, GUEST_CLOSE);

	assert_int_equal(guest_decode(&guest_close_shape, f.payload, f.length, &c, &e), 0);
	return c;
}

static void host_hello(struct host *h, uint32_t session)
{
	struct guest_hello hello = { .version = GUEST_VERSION };

	h->session = session;
	host_message(h, GUEST_HELLO, 0, &guest_hello_shape, &hello);
	(void)host_await(h, GUEST_HELLO);
}

static void begin(struct host *h, const char *const *argv, uint64_t flags)
{
	int pair[2];
	const char *none[] = { NULL }, *environment[] = { "PATH=/usr/bin:/bin", NULL };
	struct plan p = { .flags = flags, .stop_signal = SIGTERM, .capabilities = UINT64_MAX, .open_files = 1024,
			  .argv = (const char **)(uintptr_t)argv, .environment = environment, .partitions = none,
			  .cgroups_v1 = none, .volumes = none };
	own_strbuf struct str bytes = { 0 };

	*h = (struct host){ 0 };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	h->pid = fork();
	if (h->pid == 0) {
		struct agent_options how = { .port = pair[1], .root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC) };
		(void)close(pair[0]);
		_exit(agent_run(&how, &e) < 0);
	}
	(void)close(pair[1]);
	h->fd = pair[0];
	(void)setsockopt(h->fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = 20 }, sizeof(struct timeval));
	guest_reader_init(&h->reader, GUEST_ANSWER_LONGEST);
	host_hello(h, 11);
	plan_encode(&p, &bytes);
	struct guest_config c = { .root = (char *)(uintptr_t)"root", .plan = { bytes.bytes, bytes.length } };
	host_message(h, GUEST_CONFIGURE, 1, &guest_config_shape, &c);
}

static void finish(struct host *h)
{
	int status = 0;

	(void)close(h->fd);
	(void)kill(h->pid, SIGKILL);
	assert_int_equal(waitpid(h->pid, &status, 0), h->pid);
	guest_reader_done(&h->reader);
	str_done(&h->output);
}

static void open_stream(struct host *h, uint32_t number, enum guest_stream kind, const char *const *command, bool input)
{
	struct guest_open o = { .kind = kind, .input = input };

	while (command && command[o.command.count])
		o.command.count++;
	o.command.items = (char **)(uintptr_t)command;
	host_message(h, GUEST_OPEN, number, &guest_open_shape, &o);
}

static void program_to_its_end(void **state)
{
	(void)state;
	struct host h;
	static const char *const argv[] = { "sh", "-c", "echo out; exit 9", NULL };

	begin(&h, argv, 0);
	host_await_phase(&h, GUEST_RUNNING);
	open_stream(&h, 2, GUEST_PROGRAM, NULL, false);
	struct guest_close c = host_await_close(&h);
	assert_int_equal(c.exit_status, 9);
	guest_done(&guest_close_shape, &c);
	assert_string_equal(str_text(&h.output), "out\n");
	host_await_phase(&h, GUEST_ENDED);
	finish(&h);
}

static void output_waits_for_credit(void **state)
{
	(void)state;
	struct host h;
	uint8_t more[4];
	static const char *const argv[] = { "sleep", "100", NULL }, *const flood[] = { "dd",      "if=/dev/zero", "bs=1000000",
										       "count=1", "status=none",  NULL };

	begin(&h, argv, 0);
	host_await_phase(&h, GUEST_RUNNING);
	open_stream(&h, 5, GUEST_EXEC, flood, false);
	uint64_t got = 0;
	while (got + 1 < GUEST_WINDOW) { /* a window, and not a byte more */
		struct guest_frame f = host_await(&h, GUEST_DATA);
		got += f.length;
	}
	host_send(&h, GUEST_PING, 6, NULL, 0);
	for (struct guest_frame f = host_next(&h); f.type != GUEST_ANSWER || f.number != 6; f = host_next(&h))
		assert_int_not_equal(f.type, GUEST_DATA);
	guest_put_u32(more, 1000);
	host_send(&h, GUEST_CREDIT, 5, more, 4);
	struct guest_frame f = host_await(&h, GUEST_DATA);
	assert_in_range(f.length, 2, 1001);
	finish(&h);
}

static void a_new_session_ends_the_old_streams(void **state)
{
	(void)state;
	struct host h;
	static const char *const argv[] = { "sleep", "100", NULL }, *const cat[] = { "cat", NULL };

	begin(&h, argv, 0);
	host_await_phase(&h, GUEST_RUNNING);
	open_stream(&h, 3, GUEST_EXEC, cat, true);
	host_send(&h, GUEST_DATA, 3, "\0x", 2);
	(void)host_await(&h, GUEST_DATA);
	uint32_t old = h.session;
	host_hello(&h, 12);
	h.session = old;
	host_send(&h, GUEST_PING, 4, NULL, 0); /* of the session that is over: no answer */
	h.session = 12;
	open_stream(&h, 3, GUEST_EXEC, cat, true); /* its number is free again */
	host_send(&h, GUEST_DATA, 3, "\0", 1);
	struct guest_close c = host_await_close(&h);
	assert_int_equal(c.exit_status, 0);
	guest_done(&guest_close_shape, &c);
	finish(&h);
}

static void refusals(void **state)
{
	(void)state;
	struct host h;
	static const char *const argv[] = { "sleep", "100", NULL }, *const none[] = { "/no/such/command", NULL };

	begin(&h, argv, 0);
	host_await_phase(&h, GUEST_RUNNING);
	open_stream(&h, 3, GUEST_EXEC, none, false);
	struct guest_close c = host_await_close(&h);
	assert_int_equal(guest_error_get(&c.error, &e), -ENOENT);
	guest_done(&guest_close_shape, &c);
	open_stream(&h, 4, GUEST_COPY_OUT, NULL, false);
	c = host_await_close(&h);
	assert_int_equal(guest_error_get(&c.error, &e), -EINVAL);
	guest_done(&guest_close_shape, &c);
	host_send(&h, GUEST_OPEN, 5, "garbage", 7);
	c = host_await_close(&h);
	assert_int_equal(guest_error_get(&c.error, &e), -EBADMSG);
	guest_done(&guest_close_shape, &c);
	finish(&h);
}

static void shutdown_by_signal_then_by_force(void **state)
{
	(void)state;
	struct host h;
	uint8_t most[4];
	static const char *const argv[] = { "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done", NULL };

	begin(&h, argv, 0);
	open_stream(&h, 2, GUEST_PROGRAM, NULL, false);
	host_await_phase(&h, GUEST_RUNNING);
	if (!h.output.length)
		(void)host_await(&h, GUEST_DATA);
	guest_put_u32(most, 200);
	host_send(&h, GUEST_SHUTDOWN, 3, most, 4);
	struct guest_close c = host_await_close(&h);
	assert_int_equal(c.exit_status, 128 + SIGKILL);
	guest_done(&guest_close_shape, &c);
	host_await_phase(&h, GUEST_ENDED);
	finish(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(program_to_its_end),
		cmocka_unit_test(output_waits_for_credit),
		cmocka_unit_test(a_new_session_ends_the_old_streams),
		cmocka_unit_test(refusals),
		cmocka_unit_test(shutdown_by_signal_then_by_force),
	};
	if (geteuid() != 0) {
		(void)printf("1..0 # SKIP needs root to enter a root folder\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
