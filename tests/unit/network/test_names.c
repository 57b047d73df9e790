/* SPDX-License-Identifier: Apache-2.0 */
/* A real dnsmasq on a bridge in a network namespace of this test. */
#include "commands.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "network/names.h"
#include "network/question.h"

#define PATIENCE_MS 90000
#define TEXT(text) ((char *)(uintptr_t)(text))

static struct err e;
static struct network lab = { .name = TEXT("lab"), .ipv4 = TEXT("10.88.0.0/24"), .ipv6 = TEXT("fd00:88::/64"), .mtu = 1400 };
static const struct names names = { &lab, "crb1" };
static char folder[] = "/tmp/test-names-XXXXXX";

/* What the agent does: decides for each query. */
static int agent = -1;
static bool away;

static void decide(void)
{
	struct names_question q;
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (away)
		return;
	if (agent < 0) {
		(void)snprintf(a.sun_path, sizeof a.sun_path, "%s/ask", folder);
		agent = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		if (connect(agent, (struct sockaddr *)&a, sizeof a) < 0) {
			(void)close(agent);
			agent = -1;
			return;
		}
	}
	ssize_t n;
	while ((n = recv(agent, &q, sizeof q, MSG_DONTWAIT)) == sizeof q) {
		struct names_decision d = { .id = q.id, .verdict = NAMES_ANSWER };
		assert_memory_equal(q.asker.bytes, "\x0a\x58\x00\x01", 4);
		d.verdict = str_eq(q.name, "hidden") ? NAMES_HIDDEN : str_eq(q.name, "nobody") ? NAMES_NOBODY : d.verdict;
		d.verdict = q.kind == NAMES_OUTSIDE ? NAMES_REFUSED : d.verdict;
		assert_int_equal(send(agent, &d, sizeof d, MSG_NOSIGNAL), sizeof d);
	}
	if (n == 0) {
		(void)close(agent);
		agent = -1;
	}
}

static int last_code; /* of the last answer */

/* Waits for an answer, deciding meanwhile. */
static ssize_t hear(int fd, unsigned char *answer, size_t size)
{
	for (int waited = 0; waited < 400; waited += 10) {
		struct pollfd in = { .fd = fd, .events = POLLIN };
		decide();
		if (poll(&in, 1, 10) == 1)
			return recv(fd, answer, size, 0);
	}
	return -1;
}

/* The address of a name, asked of the gateway; "": there is none; NULL: no answer. */
static const char *resolve_by(const char *name, int type)
{
	static char text[INET_ADDRSTRLEN];
	unsigned char message[600];
	unsigned char query[300] = { 0x12, 0x34, 1, 0, 0, 1 }, answer[512];
	size_t length = 12;
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(53), .sin_addr = { htonl(0x0a580001) } };
	own_fd int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	bool stream = type == SOCK_STREAM;

	for (const char *at = name; *at;) {
		size_t label = strcspn(at, ".");
		query[length++] = (unsigned char)label;
		memcpy(query + length, at, label);
		length += label;
		at += label + (at[label] == '.');
	}
	length++;
	query[length + 1] = query[length + 3] = 1; /* A, IN */
	length += 4;
	message[0] = 0;
	message[1] = (unsigned char)length;
	memcpy(message + 2, query, length);
	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 ||
	    send(fd, message + (stream ? 0 : 2), length + (stream ? 2 : 0), MSG_NOSIGNAL) < 0)
		return NULL;
	ssize_t n = hear(fd, message, sizeof message), head = stream ? 2 : 0;
	if (n < (ssize_t)length + head)
		return NULL;
	memcpy(answer, message + head, sizeof answer);
	n -= head;
	assert_memory_equal(answer, query, 2);
	last_code = answer[3] & 15;
	if (!answer[7])
		return "";
	return inet_ntop(AF_INET, answer + n - 4, text, sizeof text);
}

static const char *resolve(const char *name) { return resolve_by(name, SOCK_DGRAM); }

static void expect_by(const char *name, int type, const char *address)
{
	const char *got = NULL;

	for (int waited = 0; waited < PATIENCE_MS; waited += 20) {
		got = resolve_by(name, type);
		if (got && str_eq(got, address))
			return;
		(void)poll(NULL, 0, 20);
	}
	fail_msg("%s is '%s', not '%s'", name, got ? got : "(no answer)", address);
}

static void expect(const char *name, const char *address) { expect_by(name, SOCK_DGRAM, address); }

static struct member_address address = { .network = TEXT("lab"), .ipv4 = TEXT("10.88.0.7"), .ipv6 = TEXT("fd00:88::7"),
					 .mac = TEXT("02:00:00:00:00:07") };
static struct member db = { .id = TEXT("00000000000000aa"), .name = TEXT("db"), .addresses = { &address, 1 } };

static void the_configuration(void **state)
{
	(void)state;
	static const char *const lines[] = { "interface=crb1\n", "dhcp-range=10.88.0.0,static,255.255.255.0,1h\n",
					     "dhcp-range=fd00:88::,static,off-link,64,1h\n", "domain=lab.carrel\n",
					     "dhcp-option=option:mtu,1400\n", "resolv-file=/data/resolv.conf\n" };
	struct str config = { 0 };

	assert_ok(names_config(&names, &config, &e), &e);
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		if (!strstr(config.bytes, lines[i]))
			fail_msg("no line %s in\n%s", lines[i], config.bytes);
	str_done(&config);
	struct network other = lab;
	other.kind = NETWORK_ISOLATED;
	assert_ok(names_config(&(struct names){ &other, "crb1" }, &config, &e), &e);
	assert_non_null(strstr(config.bytes, "no-resolv\n"));
	assert_null(strstr(config.bytes, "resolv-file"));
	str_done(&config);
	other.kind = NETWORK_BRIDGE;
	assert_fails(names_config(&(struct names){ &other, "br0" }, &config, &e), &e, ERR_UNSUPPORTED, "the site's own DHCP");
}

static int start(void)
{
	int r = names_start(folder, &names, &e);
	if (r < 0)
		fail_msg("%s", e.message);
	return r;
}

static int server(void)
{
	own_str char *path = mem_printf("%s/pid", folder);
	own_strbuf struct str text = { 0 };

	assert_ok(fs_read_file(AT_FDCWD, path, 64, &text, &e), &e);
	return (int)strtol(text.bytes, NULL, 10);
}

static void names_come_and_go(void **state)
{
	(void)state;
	assert_int_equal(start(), 1);
	assert_ok(names_put(folder, &names, &db, &e), &e);
	expect("db.lab.carrel", "10.88.0.7");
	int first = server();
	assert_int_equal(start(), 0); /* it runs */
	assert_int_equal(server(), first);
	address.ipv4 = TEXT("10.88.0.8");
	assert_ok(names_put(folder, &names, &db, &e), &e);
	expect("db.lab.carrel", "10.88.0.8");
	expect("db.carrel", "");
	assert_ok(names_remove(folder, db.id, &e), &e);
	expect("db.lab.carrel", "");
	assert_ok(names_remove(folder, db.id, &e), &e);
	assert_int_equal(server(), first);
}

static void who_may_ask_what(void **state)
{
	(void)state;
	struct member hidden = db;
	hidden.id = TEXT("00000000000000bb");
	hidden.name = TEXT("hidden");
	assert_ok(names_put(folder, &names, &hidden, &e), &e);
	assert_ok(names_put(folder, &names, &db, &e), &e);
	expect("db.lab.carrel", "10.88.0.8");
	assert_int_equal(last_code, 0);
	for (int i = 0; i < 2; i++) {
		int type = i ? SOCK_STREAM : SOCK_DGRAM;
		assert_string_equal(resolve_by("DB.lab.carrel", type), "10.88.0.8");
		assert_string_equal(resolve_by("hidden.lab.carrel", type), "");
		assert_int_equal(last_code, QUESTION_NXDOMAIN);
		assert_string_equal(resolve_by("www.example.org", type), "");
		assert_int_equal(last_code, QUESTION_REFUSED);
		assert_null(resolve_by("nobody.lab.carrel", type));
	}
	assert_ok(names_remove(folder, hidden.id, &e), &e);
	assert_ok(names_remove(folder, db.id, &e), &e);
}

static void leave(void)
{
	(void)close(agent);
	agent = -1;
	away = true;
}

static void what_was_decided_stands_while_the_agent_is_away(void **state)
{
	(void)state;
	const struct names_decision forget = { .verdict = NAMES_FORGET };

	assert_ok(names_put(folder, &names, &db, &e), &e);
	expect("db.lab.carrel", "10.88.0.8");
	expect("hidden.lab.carrel", "");
	expect("www.example.org", "");
	leave();
	for (int i = 0; i < 2; i++) {
		int type = i ? SOCK_STREAM : SOCK_DGRAM;
		expect_by("db.lab.carrel", type, "10.88.0.8");
		expect_by("hidden.lab.carrel", type, "");
		assert_int_equal(last_code, QUESTION_NXDOMAIN);
		expect_by("another.example.org", type, ""); /* as all names outside */
		assert_int_equal(last_code, QUESTION_REFUSED);
	}
	assert_null(resolve("never.lab.carrel"));
	away = false;
	expect("db.lab.carrel", "10.88.0.8");
	assert_int_equal(send(agent, &forget, sizeof forget, MSG_NOSIGNAL), sizeof forget);
	leave();
	assert_null(resolve("db.lab.carrel"));
	away = false;
	assert_ok(names_remove(folder, db.id, &e), &e);
}

/* What was asked while no agent was there is answered when it comes; a front that dies is started again. */
static void it_outlives_the_agent_and_is_missed(void **state)
{
	(void)state;
	own_str char *path = mem_printf("%s/pid", folder);
	own_strbuf struct str text = { 0 };
	int pids[2];

	(void)close(agent);
	agent = -1;
	assert_string_equal(resolve("hidden.lab.carrel"), "");
	assert_ok(fs_read_file(AT_FDCWD, path, 128, &text, &e), &e);
	assert_int_equal(sscanf(text.bytes, "%d %*u %d", &pids[0], &pids[1]), 2);
	assert_int_equal(kill(pids[1], SIGKILL), 0);
	for (int waited = 0; names_start(folder, &names, &e) == 0 && waited < PATIENCE_MS; waited += 10)
		(void)poll(NULL, 0, 10);
	assert_int_not_equal(server(), pids[0]);
	assert_ok(names_put(folder, &names, &db, &e), &e);
	expect("db.lab.carrel", "10.88.0.8");
}

static bool nobody(void *data, const char *id)
{
	(void)data;
	(void)id;
	return false;
}

static void it_is_found_again_and_started_anew(void **state)
{
	(void)state;
	int first = server();

	assert_ok(names_put(folder, &names, &db, &e), &e);
	assert_int_equal(kill(first, SIGKILL), 0);
	for (int waited = 0; names_start(folder, &names, &e) == 0 && waited < PATIENCE_MS; waited += 10)
		(void)poll(NULL, 0, 10);
	assert_int_not_equal(server(), first);
	expect("db.lab.carrel", "10.88.0.8"); /* what it knew it knows */
	lab.mtu = 1300;
	assert_int_equal(start(), 1);
	assert_ok(names_sweep(folder, nobody, NULL, &e), &e);
	expect("db.lab.carrel", "");
}

/* Its own root, hardly any capability, and not root. */
static void it_is_confined(void **state)
{
	(void)state;
	own_str char *root = mem_printf("/proc/%d/root/etc/shadow", server()),
		     *status = mem_printf("/proc/%d/status", server());
	own_strbuf struct str text = { 0 };

	for (int waited = 0; waited < PATIENCE_MS; waited += 20) { /* it becomes nobody when it is ready */
		str_done(&text);
		assert_ok(fs_read_file(AT_FDCWD, status, 65536, &text, &e), &e);
		if (strstr(text.bytes, "Uid:\t65534\t65534"))
			break;
		(void)poll(NULL, 0, 20);
	}
	assert_non_null(strstr(text.bytes, "Uid:\t65534\t65534"));
	assert_non_null(strstr(text.bytes, "NoNewPrivs:\t1"));
	assert_non_null(strstr(text.bytes, "Seccomp:\t2"));
	assert_non_null(strstr(text.bytes, "CapBnd:\t00000000000034c0"));
	assert_int_equal(access(root, F_OK), -1);
}

static void it_ends(void **state)
{
	(void)state;
	int pid = server();

	assert_ok(names_stop(folder, &e), &e);
	assert_true(kill(pid, 0) < 0 && errno == ESRCH);
	assert_false(fs_exists(AT_FDCWD, folder));
	assert_ok(names_stop(folder, &e), &e);
}

static int open_world(void **state)
{
	(void)state;
	const char *build = getenv("CARREL_BUILD_ROOT");

	if (!build || geteuid() != 0 || access("/usr/sbin/dnsmasq", X_OK) < 0) {
		print_message("skipped: needs root, dnsmasq, and the build folder in CARREL_BUILD_ROOT\n");
		return -1;
	}
	own_str char *prefix = mem_printf("%s/tests/network-prefix", build), *libexec = mem_printf("%s/libexec", prefix),
		     *link = mem_printf("%s/carrel", libexec), *programs = mem_printf("%s/src/network", build);
	assert_ok(fs_mkdirs(libexec, 0755, &e), &e);
	assert_true(symlink(programs, link) == 0 || errno == EEXIST);
	assert_int_equal(setenv("CARREL_PREFIX", prefix, 1), 0);
	assert_non_null(mkdtemp(folder));
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	run("ip link set lo up");
	run("ip link add crb1 type bridge");
	run("ip address add 10.88.0.1/24 dev crb1");
	run("ip -6 address add fd00:88::1/64 dev crb1 nodad");
	run("ip link set crb1 up");
	return 0;
}

static int close_world(void **state)
{
	(void)state;
	return names_stop(folder, &e);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(the_configuration),
					    cmocka_unit_test(names_come_and_go),
					    cmocka_unit_test(who_may_ask_what),
					    cmocka_unit_test(what_was_decided_stands_while_the_agent_is_away),
					    cmocka_unit_test(it_outlives_the_agent_and_is_missed),
					    cmocka_unit_test(it_is_found_again_and_started_anew),
					    cmocka_unit_test(it_is_confined),
					    cmocka_unit_test(it_ends) };
	return cmocka_run_group_tests(tests, open_world, close_world);
}
