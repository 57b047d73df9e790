/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carreld: options, start, and the end of the process. It needs no root and keeps no privileges it could hand on. Memory is
 * filled from the database before there is a socket, so the first request already sees everything; the lock on the state
 * folder keeps a second one from the same database. The process ends without taking anything apart, which is also how it ends
 * when it is killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/fs.h"
#include "base/json_memory.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "service/event.h"
#include "service/host.h"
#include "service/lifecycle.h"
#include "service/routes.h"
#include "service/server.h"

#define HOUSEKEEPING_MS 600000

/* Readiness as systemd understands it (sd_notify(3)): one datagram to NOTIFY_SOCKET. */
static void notify(const char *message)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	own_fd int fd = -1;

	if (!path || strlen(path) >= sizeof address.sun_path)
		return;
	memcpy(address.sun_path, path, strlen(path));
	if (*path == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (fd < 0 || sendto(fd, message, strlen(message), MSG_NOSIGNAL, (struct sockaddr *)&address, size) < 0)
		log_warn("the service manager was not told: %s", strerrordesc_np(errno));
}

static void set_limits(void)
{
	struct rlimit files;

	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)umask(022);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max < 65536 ? files.rlim_max : 65536;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
}

/* One carreld a state folder: the lock is held as long as the process lives. */
static int lock_state(const char *folder, struct err *e)
{
	own_str char *path = mem_printf("%s/lock", folder);
	own_fd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return err_errno(e, errno, "%s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		(void)err_set(e, ERR_CONFLICT, "another carreld uses %s", folder);
		return err_hint(e, "stop it, or choose another folder with --state");
	}
	(void)TAKE_FD(fd);
	return 0;
}

static int open_database(struct service *s, struct err *e)
{
	own_str char *folder = mem_printf("%s/service", s->state_dir);
	own_str char *path = mem_printf("%s/carrel.db", folder);
	int r = fs_mkdirs(s->state_dir, 0755, e);

	if (r == 0)
		r = fs_mkdirs(folder, 0700, e);
	if (r == 0)
		r = lock_state(folder, e);
	if (r == 0)
		r = db_open(path, &s->db, e);
	return r;
}

static void housekeeping(void *data)
{
	struct service *s = data;
	operations_trim(s);
	(void)loop_add_timer(s->loop, HOUSEKEEPING_MS, housekeeping, s);
}

static void stop(void *data)
{
	struct service *s = data;
	log_info("asked to end");
	loop_stop(s->loop);
}

static int serve(struct service *s, struct err *e)
{
	own_str char *socket_path = mem_printf("%s/carreld.sock", s->run_dir);
	int r = fs_mkdirs(s->run_dir, 0755, e);

	s->loop = loop_new();
	(void)loop_add_signal(s->loop, SIGTERM, stop, s);
	(void)loop_add_signal(s->loop, SIGINT, stop, s);
	if (r == 0)
		r = open_database(s, e);
	if (r == 0)
		r = service_load(s, e);
	if (r >= 0)
		r = server_start(s, socket_path, &s->server, e);
	if (r < 0)
		return r;
	(void)loop_add_timer(s->loop, HOUSEKEEPING_MS, housekeeping, s);
	log_info("ready on %s: %zu workspaces", socket_path, s->workspaces.count);
	notify("READY=1");
	r = loop_run(s->loop, e);
	notify("STOPPING=1");
	(void)unlink(socket_path);
	db_close(s->db);
	return r;
}

static int run(int argc, char **argv, struct err *e)
{
	static const enum log_level levels[] = { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DETAIL };
	struct service s = { .started_ms = service_now_ms() };
	int r = config_read(argc, argv, &s.config, e);

	if (r != 0)
		return r < 0 ? r : 0;
	if (s.config.openapi) {
		json_t *openapi = openapi_document();
		r = json_dumpf(openapi, stdout, JSON_INDENT(2)) < 0 ? err_errno(e, EIO, "standard output") : 0;
		json_decref(openapi);
		return r;
	}
	log_init("carreld", levels[s.config.log_level]);
	set_limits();
	s.state_dir = s.config.state;
	s.run_dir = s.config.run;
	return serve(&s, e);
}

/* The process ends without taking apart what the kernel takes apart: nothing in memory matters that is not in the database. */
int main(int argc, char **argv)
{
	struct err e;

	json_memory_init();
	log_init("carreld", LOG_INFO);
	if (run(argc, argv, &e) < 0) {
		log_error(&e, "carreld");
		_exit(err_kind_exit_code(e.kind));
	}
	(void)fflush(stdout);
	_exit(0);
}
