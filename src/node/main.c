/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of one agent: settings, the lock on the state folder, the loop, and an end that leaves all workspaces running - a
 * restart of the agent is nothing to them. Parts are taken down in the order in which they use each other: the workers finish
 * what they do, the agent answers what still waits for it, by the channel, then that goes. `--clean` is a life without a loop,
 * for removing Carrel from a host.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json_memory.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "node/agent.h"
#include "node/channel.h"
#include "node/config.h"
#include "node/facts.h"
#include "node/isolate.h"
#include "node/network.h"
#include "node/node.h"
#include "node/stream.h"

/* A workspace takes a few descriptors here; carrel-run sets its program's own limit. */
static void raise_file_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur >= files.rlim_max)
		return;
	files.rlim_cur = files.rlim_max < 262144 ? files.rlim_max : 262144;
	(void)setrlimit(RLIMIT_NOFILE, &files);
}

/* sd_notify's protocol: one datagram to the socket that NOTIFY_SOCKET names. */
static void notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	own_fd int fd = path ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;

	if (fd < 0 || strlen(path) >= sizeof address.sun_path)
		return;
	memcpy(address.sun_path, path, strlen(path));
	if (address.sun_path[0] == '@')
		address.sun_path[0] = '\0';
	(void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
		     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
}

/* One agent per state folder; the lock goes with the process. */
static int lock_state(const struct node *n, int *ret_fd, struct err *e)
{
	own_str char *path = mem_printf("%s/node/lock", n->config.state);
	own_fd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, ERR_CONFLICT, "another carrel-node works in %s", n->config.state);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static void stop_loop(void *data) { loop_stop(data); }

static int serve(struct node *n, struct err *e)
{
	struct agent *agent = NULL;

	(void)boot_id();
	n->loop = loop_new();
	(void)loop_add_signal(n->loop, SIGTERM, stop_loop, n->loop);
	(void)loop_add_signal(n->loop, SIGINT, stop_loop, n->loop);
	n->workers = workers_new(n->loop, (unsigned)n->config.workers);
	struct channel *channel = channel_new(n);
	int r = agent_new(n, &channel_agent_events, channel, &agent, e);
	if (r == 0) {
		channel_start(channel, agent);
		notify("READY=1");
		r = loop_run(n->loop, e);
		notify("STOPPING=1");
	}
	workers_free(n->workers);
	stream_close_all();
	if (agent)
		agent_free(agent); /* answers what still waits for it, by the channel */
	channel_free(channel);
	loop_free(n->loop);
	return r;
}

static bool nobody(void *data, const char *id)
{
	(void)data;
	(void)id;
	return false;
}

/* Volumes and records stay; whatever runs, is mounted or limits goes. The next agent finds all workspaces stopped. */
static int clean(struct node *n, struct err *e)
{
	int r = isolate_collect(n, nobody, NULL, e);
	isolate_clean(n);
	if (r == 0)
		r = networks_clean(n, e);
	return r < 0 ? r : mounts_clean(n->partitions, e);
}

static int run(struct config *config, struct err *e)
{
	struct node n;
	own_fd int lock = -1;
	int r = node_init(&n, config, e);

	if (r == 0 && n.config.facts) {
		json_t *facts = facts_read(&n);
		(void)json_dumpf(facts, stdout, JSON_INDENT(2));
		(void)putchar('\n');
		json_decref(facts);
		node_done(&n);
		return 0;
	}
	if (r == 0)
		r = lock_state(&n, &lock, e);
	if (r == 0)
		r = n.config.clean ? clean(&n, e) : serve(&n, e);
	node_done(&n);
	return r;
}

int main(int argc, char **argv)
{
	static const enum log_level levels[] = { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DETAIL };
	struct config config = { 0 };
	struct err e = { 0 };

	json_memory_init();
	log_init("carrel-node", LOG_INFO);
	(void)signal(SIGPIPE, SIG_IGN);
	raise_file_limit();
	int r = config_read(argc, argv, &config, &e);
	if (r > 0)
		return 0;
	if (r == 0) {
		log_init("carrel-node", levels[config.log_level]);
		r = run(&config, &e);
	}
	if (r == 0)
		return 0;
	log_error(&e, "cannot go on");
	return err_kind_exit_code(e.kind);
}
