/* SPDX-License-Identifier: Apache-2.0 */
/* A state that is written, with QEMU's side played here, over a socket pair. */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runner/machine_memory.h"

static struct err e;

struct play {
	struct loop *loop;
	struct qmp *qmp;
	struct machine_memory *memory;
	int other, asked, done, result;
	const char *end; /* how the migration ends */
	char said[8192];
	size_t length;
	char why[256];
};

static void say(struct play *p, const char *text)
{
	assert_int_equal(send(p->other, text, strlen(text), 0), strlen(text));
}

static void on_event(void *data, const char *name, struct qmp_value value)
{
	struct play *p = data;

	machine_memory_event(p->memory, name, value);
}

static void on_closed(void *data, const struct err *why)
{
	(void)data;
	(void)why;
	fail();
}

static void on_done(void *data, int result, const struct err *why)
{
	struct play *p = data;

	p->done++;
	p->result = result;
	if (result < 0)
		(void)snprintf(p->why, sizeof p->why, "%s", why->message);
	loop_stop(p->loop);
}

static void command(struct play *p, const char *line)
{
	const char *id = strstr(line, "\"id\":");
	char text[256];

	if (strstr(line, "qmp_capabilities"))
		say(p, "{\"return\": {}}\n");
	if (!id)
		return;
	bool asks = strstr(line, "query-status") != NULL;
	if (asks)
		p->asked++;
	(void)snprintf(text, sizeof text, "{\"return\": {%s}, \"id\": %.*s}\n",
		       !asks ? "" : p->asked < 4 ? "\"status\": \"finish-migrate\"" : "\"status\": \"postmigrate\"",
		       (int)strspn(id + 5, "0123456789"), id + 5);
	say(p, text);
	if (strstr(line, "\"migrate\"")) {
		(void)snprintf(text, sizeof text, "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"%s\"}}\n", p->end);
		say(p, text);
	}
}

static void play(void *data, uint32_t events)
{
	struct play *p = data;
	char *line = p->said, *end;
	ssize_t n = recv(p->other, p->said + p->length, sizeof p->said - 1 - p->length, MSG_DONTWAIT);

	(void)events;
	if (n <= 0)
		return;
	p->length += (size_t)n;
	p->said[p->length] = '\0';
	for (; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		command(p, line);
	}
	p->length = strlen(line);
	(void)memmove(p->said, line, p->length + 1);
}

static void saved(struct play *p, const char *end)
{
	struct qmp_events events = { on_event, on_closed, p };
	int pair[2];

	*p = (struct play){ .loop = loop_new(), .end = end };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	p->other = pair[1];
	p->qmp = qmp_new(p->loop, pair[0], &events);
	p->memory = machine_memory_new(p->loop);
	struct loop_source *source = loop_add_fd(p->loop, p->other, EPOLLIN, play, p);
	say(p, "{\"QMP\": {}}\n");
	machine_memory_save(p->memory, p->qmp, open("/dev/null", O_WRONLY | O_CLOEXEC), on_done, p);
	assert_ok(loop_run(p->loop, &e), &e);
	assert_int_equal(p->done, 1);
	assert_false(machine_memory_busy(p->memory));
	loop_remove(source);
	qmp_free(p->qmp);
	machine_memory_free(p->memory);
	(void)close(p->other);
	loop_free(p->loop);
}

/* QEMU refuses to go on as long as it is in that state, and tells the end of the migration before it leaves it. */
static void test_is_over_when_qemu_may_go_on(void **state)
{
	struct play p;

	(void)state;
	saved(&p, "completed");
	assert_int_equal(p.result, 0);
	assert_int_equal(p.asked, 4);
}

static void test_a_failure_waits_as_well(void **state)
{
	struct play p;

	(void)state;
	saved(&p, "failed");
	assert_true(p.result < 0);
	assert_non_null(strstr(p.why, "(failed)"));
	assert_int_equal(p.asked, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_is_over_when_qemu_may_go_on),
		cmocka_unit_test(test_a_failure_waits_as_well),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
