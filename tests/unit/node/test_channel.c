/* SPDX-License-Identifier: Apache-2.0 */
/* The host channel against a service made here: hello, assignments, reports, plans, and a connection that breaks. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../test.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "base/ws.h"
#include "fake_engine.h"
#include "node/channel.h"
#include "node/isolate.h"

#define ID "00112233aabbccdd"
#define ASSIGNMENT                                                                                                             \
	"{\"id\":\"" ID "\",\"generation\":1,\"wish\":\"running\",\"run\":1,\"owner\":0,\"image\":{\"digest\":\"sha256:"       \
	"0000000000000000000000000000000000000000000000000000000000000000\",\"architecture\":\"amd64\",\"partitions\":[]},"    \
	"\"spec\":{\"image\":\"x\",\"name\":\"w\",\"command\":[\"true\"],\"resources\":{\"disk\":\"16M\"}}}"

static char folder[64];
static struct node node;
static struct agent *agent;
static struct channel *channel;
static int listener;
static struct loop_source *listening;
static struct ws *service;
static struct str heard;
static const char *wanted;
static struct err e;

static void on_message(void *data, bool text, const char *bytes, size_t length)
{
	(void)data, (void)text;
	str_add(&heard, bytes, length);
	str_putc(&heard, '\n');
	if (wanted && strstr(str_text(&heard), wanted))
		loop_stop(node.loop);
}

static void on_closed(void *data, const struct err *why)
{
	(void)data, (void)why;
	ws_free(TAKE(service));
}

static const struct ws_events events = { .message = on_message, .closed = on_closed };

/* The request is small and local: one read has it. */
static void on_connection(void *data, uint32_t what)
{
	char request[4096] = { 0 }, accept_key[29], key[64] = { 0 };
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	(void)data, (void)what;
	assert_true(read(fd, request, sizeof request - 1) > 0);
	assert_non_null(strstr(request, "GET /v1/hosts/local/channel "));
	const char *header = strcasestr(request, "Sec-WebSocket-Key: ");
	assert_non_null(header);
	assert_int_equal(sscanf(header + strlen("Sec-WebSocket-Key: "), "%63s", key), 1);
	ws_accept_key(key, accept_key);
	own_str char *answer = mem_printf("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
					  "Sec-WebSocket-Accept: %s\r\n\r\n", accept_key);
	assert_int_equal(write(fd, answer, strlen(answer)), strlen(answer));
	service = ws_new(node.loop, fd, WS_SERVER, 1 << 24, NULL, 0, &events, NULL);
}

static void timed_out(void *data)
{
	(void)data;
	wanted = NULL;
	loop_stop(node.loop);
}

static void await(const char *text)
{
	struct loop_source *timer = loop_add_timer(node.loop, 120000, timed_out, NULL);

	wanted = text;
	if (!strstr(str_text(&heard), text))
		assert_ok(loop_run(node.loop, &e), &e);
	if (!wanted)
		fail_msg("waited for %s, heard %s", text, str_text(&heard));
	loop_remove(timer);
}

static void say(const char *text) { ws_send(service, true, text, strlen(text)); }

static int setup(void **state)
{
	char program[] = "carrel-node", state_folder[96], run[96], group[64];
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct config config = { 0 };

	(void)state;
	if (geteuid() != 0)
		return 0;
	log_init("test", LOG_ERROR);
	fake_reset();
	(void)snprintf(folder, sizeof folder, "/tmp/carrel-test-channel-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	(void)snprintf(state_folder, sizeof state_folder, "--state=%s/state", folder);
	(void)snprintf(run, sizeof run, "--run=%s/run", folder);
	(void)snprintf(group, sizeof group, "--cgroup=carrel-node-c%d", (int)getpid());
	char *argv[] = { program, state_folder, run, group, (char[]){ "--blanks=0" }, (char[]){ "--ahead=0" }, NULL };
	if (config_read(6, argv, &config, &e) < 0 || node_init(&node, &config, &e) < 0)
		return -1;
	(void)snprintf(address.sun_path, sizeof address.sun_path, "%s/run/carreld.sock", folder);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 5) < 0)
		return -1;
	node.loop = loop_new();
	listening = loop_add_fd(node.loop, listener, EPOLLIN, on_connection, NULL);
	node.workers = workers_new(node.loop, 2);
	channel = channel_new(&node);
	if (agent_new(&node, &channel_agent_events, channel, &agent, &e) < 0)
		return -1;
	channel_start(channel, agent);
	return 0;
}

static bool nobody(void *data, const char *id)
{
	(void)data, (void)id;
	return false;
}

static int teardown(void **state)
{
	(void)state;
	if (geteuid() != 0)
		return 0;
	int r = isolate_collect(&node, nobody, NULL, &e);
	isolate_clean(&node);
	workers_free(node.workers);
	agent_free(agent);
	channel_free(channel);
	if (service)
		ws_free(TAKE(service));
	loop_remove(listening);
	(void)close(listener);
	loop_free(node.loop);
	node_done(&node);
	str_done(&heard);
	return r < 0 ? r : fs_remove_tree(AT_FDCWD, folder, &e);
}

static void need_root(void)
{
	if (geteuid() != 0) {
		print_message("# skipped: needs root for cgroups\n");
		skip();
	}
}

static void test_wish_and_truth(void **state)
{
	(void)state;
	need_root();
	await("\"full\":true");
	assert_non_null(strstr(str_text(&heard), "\"type\":\"hello\",\"protocol\":1"));
	assert_non_null(strstr(str_text(&heard), "\"name\":\"mkfs.ext4\",\"ok\":"));
	say("{\"type\":\"assignments\",\"full\":true,\"authoritative\":true,\"items\":[" ASSIGNMENT "]}");
	await("\"state\":\"running\"");
	fake_end(ID, 4);
	await("\"state\":\"stopped\"");
	await("\"exit-status\":4");
	say("{\"type\":\"assignments\",\"full\":true,\"authoritative\":true,\"items\":[]}"); /* it was removed meanwhile */
	await("\"state\":\"removed\"");
}

static void test_connects_again_and_says_all(void **state)
{
	(void)state;
	need_root();
	await("\"full\":true");
	say("nonsense");
	say("{\"type\":\"assignments\",\"items\":[{\"id\":\"x\"},7," ASSIGNMENT "]}");
	await("\"state\":\"running\"");
	ws_free(TAKE(service));
	str_clear(&heard);
	fake_end(ID, 0);
	await("\"full\":true");
	await("\"state\":\"stopped\"");
}

static void test_plan(void **state)
{
	(void)state;
	need_root();
	await("\"full\":true");
	say("{\"type\":\"plan\",\"id\":17,\"assignment\":" ASSIGNMENT "}");
	await("\"type\":\"planned\",\"id\":17,\"plan\":{\"steps\":[{\"step\":\"stage\"");
	await("\"step\":\"launch\"");
	say("{\"type\":\"plan\",\"id\":18,\"assignment\":{}}");
	await("\"id\":18,\"error\":{\"kind\":\"invalid\"");
	own_str char *record = mem_printf("%s/state/node/workspaces/" ID, folder);
	assert_false(fs_exists(AT_FDCWD, record));
}

/* As many as ask get an answer, those together that ask while a look is under way. */
static void test_a_look_answers_all_who_asked(void **state)
{
	(void)state;
	need_root();
	await("\"full\":true");
	for (int i = 1; i <= 5; i++) {
		own_str char *question = mem_printf("{\"type\":\"look\",\"id\":%d}", i);
		say(question);
	}
	say("{\"type\":\"look\"}");
	for (int i = 1; i <= 5; i++) {
		own_str char *answer = mem_printf("\"type\":\"facts\",\"id\":%d,", i);
		await(answer);
	}
	say("{\"type\":\"look\",\"id\":6}");
	await("\"type\":\"facts\",\"id\":6,");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(test_wish_and_truth), TEST(test_connects_again_and_says_all), TEST(test_plan),
					    TEST(test_a_look_answers_all_who_asked) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
